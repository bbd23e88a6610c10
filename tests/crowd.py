# crowd.py SOCKET COUNT FILE - opens COUNT sessions of `cat` at a master, as one program,
# and asks for its status twice, once without reading the answer for a while.  FILE
# appears when all are open.  The end of stdin lets the slow reader read; its answer
# goes to stdout.
import array
import os
import socket
import struct
import sys

path, count, ready = sys.argv[1], int(sys.argv[2]), sys.argv[3]


def text(s):
    return struct.pack(">I", len(s)) + s


def frame(s):
    return text(s)


def take(sock, n):
    data = b""
    while len(data) < n:
        more = sock.recv(n - len(data))
        if not more:
            sys.exit("the master hung up")
        data += more
    return data


def answer(sock):
    return take(sock, struct.unpack(">I", take(sock, 4))[0])


def greet():
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    sock.sendall(frame(struct.pack(">II", 1, 4) + text(b"sshmux") + text(b"1")))
    answer(sock)
    return sock


clients = []
null = os.open("/dev/null", os.O_WRONLY)
read, write = os.pipe()
for i in range(count):
    sock = greet()
    request = struct.pack(">II", 0x10000002, 1) + text(b"") + struct.pack(">IIIII", 0, 0, 0, 0, 0xffffffff)
    sock.sendall(frame(request + text(b"") + text(b": %d; exec cat" % i)))
    for fd in (read, null, null):
        sock.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
    clients.append(sock)
for sock in clients:
    kind = struct.unpack(">I", answer(sock)[:4])[0]
    if kind != 0x80000006:
        sys.exit("a session was not opened: 0x%x" % kind)
slow = greet()
slow.sendall(frame(struct.pack(">II", 0x20736d05, 2) + text(b"status-json") + struct.pack(">I", 0)))
open(ready, "w").close()
sys.stdin.read()
while True:
    piece = answer(slow)
    n = struct.unpack(">I", piece[8:12])[0]
    if n == 0:
        break
    sys.stdout.write(piece[12:12 + n].decode())
