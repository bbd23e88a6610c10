#!/usr/bin/python3
"""hostile.py - a server that logs everybody in and then attacks, or attacks before.

  hostile.py list after|before        the attacks, one a line: name, what must happen
  hostile.py after FILE               a server on loopback, its port to FILE; the command
                                      of a session names the attack
  hostile.py before NAME FILE         the same, without a login: that attack at once

After an attack: "lives" - the session ends with `done` and status 0; "lost" - the link
is lost, once, and the next session is served over a new one; "either"; "served": either,
whatever the session wrote.
Before a login: the master ends with a message."""
import os
import socket
import struct
import sys
import threading
import time

ESC = b"\x1b]0;owned\x07"


def u32(n):
    return struct.pack(">I", n)


def text(b):
    return u32(len(b)) + b


# --- after the login: (send, id) - send(type, payload) says one message ------------

def over_window(send, me):
    for _ in range(400):
        send(94, u32(me) + text(b"x" * 30000))


def cut_short(send, me):
    for kind in range(80, 101):
        send(kind, b"")


def many(kind, payload, n):
    return lambda send, me: [send(kind, payload(me)) for _ in range(n)]


def opens(kind, n, more=b""):
    return lambda send, me: [send(90, text(kind) + u32(i) + u32(1000) + u32(1000) + more) for i in range(n)]


def exit_signal(send, me):
    send(98, u32(me) + text(b"exit-signal") + b"\0" + text(ESC + b"KILL") + b"\1" + text(ESC + b"\nsshmux: forged") + text(b""))
    send(96, u32(me))
    send(97, u32(me))


def closes(send, me):
    for kind in (96, 96, 97):
        send(kind, u32(me))


def data_after_close(send, me):
    send(97, u32(me))
    send(94, u32(me) + text(b"late"))


AFTER = {
    "nothing": ("lives", lambda send, me: None),
    "data-beyond-the-window": ("served", over_window),
    "data-of-no-channel": ("either", many(94, lambda me: u32(4000) + text(b"x"), 1)),
    "data-longer-than-its-message": ("lost", many(94, lambda me: u32(me) + u32(0xffffffff) + b"x", 1)),
    "messages-cut-short": ("lost", cut_short),
    "window-overflow": ("either", many(93, lambda me: u32(me) + u32(0xffffffff), 3)),
    "window-of-no-channel": ("either", many(93, lambda me: u32(0xffffffff) + u32(1), 1)),
    "success-nobody-asked-for": ("either", many(99, u32, 40)),
    "failure-nobody-asked-for": ("either", many(100, u32, 40)),
    "global-success-nobody-asked-for": ("either", many(81, lambda me: b"", 40)),
    "global-failure-nobody-asked-for": ("either", many(82, lambda me: b"", 40)),
    "confirmation-twice": ("lost", many(91, lambda me: u32(me) + u32(7) + u32(1000) + u32(1000), 2)),
    "open-failure-of-an-open-one": ("lost", many(92, lambda me: u32(me) + u32(1) + text(ESC) + text(b""), 1)),
    "eof-twice-then-close": ("either", closes),
    "data-after-close": ("either", data_after_close),
    "opens-x11-flood": ("lives", opens(b"x11", 3000, text(b"h") + u32(1))),
    "opens-agent-flood": ("lives", opens(b"auth-agent@openssh.com", 3000)),
    "opens-forward-flood": ("lives", opens(b"forwarded-tcpip", 3000, text(b"h") + u32(1) + text(b"h") + u32(2))),
    "opens-unknown": ("lives", opens(ESC + b"@x", 100)),
    "opens-session": ("lives", opens(b"session", 100)),
    "opens-cut-short": ("lost", lambda send, me: send(90, text(b"x11") + b"\0\0")),
    "global-request-flood": ("lives", many(80, lambda me: text(b"keepalive@openssh.com") + b"\1", 5000)),
    "hostkeys-garbage": ("lives", many(80, lambda me: text(b"hostkeys-00@openssh.com") + b"\0" + b"\xff" * 300, 3)),
    "channel-request-flood": ("lives", many(98, lambda me: u32(me) + text(b"unknown@x") + b"\0", 5000)),
    # (paramiko closes its channel when one is refused.)
    "channel-request-flood-answered": ("either", many(98, lambda me: u32(me) + text(b"unknown@x") + b"\1", 5000)),
    "exit-signal-with-escapes": ("either", exit_signal),
    "ignore-flood": ("lives", many(2, lambda me: text(b"x" * 1000), 3000)),
    "debug-with-escapes": ("lives", many(4, lambda me: b"\1" + text(ESC) + text(b""), 50)),
    "unimplemented-flood": ("lives", many(3, lambda me: u32(1), 100)),
    "types-unknown": ("either", lambda send, me: [send(k, b"x") for k in range(101, 128)]),
    "disconnect-with-escapes": ("lost", many(1, lambda me: u32(2) + text(ESC + b"\nsshmux: forged") + text(b""), 1)),
    "auth-messages-again": ("either", many(52, lambda me: b"", 3)),
    "zero-data-flood": ("lives", many(94, lambda me: u32(me) + text(b""), 3000)),
    "extended-of-a-kind-unknown": ("lives", many(95, lambda me: u32(me) + u32(99) + text(b"x"), 20)),
    "empty-message": ("either", lambda send, me: send(None, b"")),
}


def server(path):
    import paramiko

    key = paramiko.ECDSAKey.generate()

    class Session(paramiko.ServerInterface):
        def check_auth_none(self, user):
            return paramiko.AUTH_SUCCESSFUL

        def get_allowed_auths(self, user):
            return "none"

        def check_channel_request(self, kind, number):
            return paramiko.OPEN_SUCCEEDED if kind == "session" else paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

        def check_channel_env_request(self, channel, name, value):
            return True

        def check_channel_exec_request(self, channel, command):
            threading.Thread(target=run, args=(channel, command.decode()), daemon=True).start()
            return True

    def run(channel, command):
        transport = channel.get_transport()

        def send(kind, payload):
            m = paramiko.Message()
            if kind is not None:
                m.add_byte(bytes([kind]))
            m.add_bytes(payload)
            transport._send_message(m)

        time.sleep(0.05)    # the answer to the request goes first
        try:
            AFTER[command][1](send, channel.remote_chanid)
            channel.sendall(b"done\n")
            channel.send_exit_status(0)
            channel.close()
        except Exception:
            transport.close()

    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    s.listen(20)
    tell(path, s.getsockname()[1])
    keep = []
    while True:
        c, _ = s.accept()
        t = paramiko.Transport(c)
        t.add_server_key(key)
        t.daemon = True
        keep.append(t)
        try:
            t.start_server(server=Session(), event=threading.Event())
        except Exception:
            pass


# --- before it: bytes, then silence or the end ---------------------------------------

def packet(payload):
    padding = 8 - (5 + len(payload)) % 8
    if padding < 4:
        padding += 8
    return u32(1 + len(payload) + padding) + bytes([padding]) + payload + b"\0" * padding


def kexinit(kex=b"curve25519-sha256", cipher=b"aes128-ctr"):
    lists = [kex, b"ssh-ed25519", cipher, cipher, b"hmac-sha2-256", b"hmac-sha2-256", b"none", b"none", b"", b""]
    return packet(b"\x14" + b"\0" * 16 + b"".join(text(x) for x in lists) + b"\0" + u32(0))


HELLO = b"SSH-2.0-server\r\n"
BEFORE = {
    "closes-at-once": b"",
    "silence": None,
    "nothing-but-lines": b"hello\r\n" * 9000,
    "a-line-without-end": b"x" * 70000,
    "nul-bytes": b"\0" * 100,
    "http": b"HTTP/1.0 400 Bad Request\r\n\r\n",
    "old-protocol": b"SSH-1.5-server\r\n",
    "escapes-in-the-version": b"SSH-1.0-" + ESC + b"\r\n",
    "garbage-after-the-version": HELLO + bytes(range(256)) * 40,
    "length-zero": HELLO + u32(0) * 8,
    "length-huge": HELLO + u32(0xffffffff) + b"x" * 100,
    "length-2-31": HELLO + u32(0x80000000) + b"x" * 100,
    "padding-beyond-the-packet": HELLO + u32(12) + b"\xff" + b"\x14" * 11,
    "no-common-kex": HELLO + kexinit(kex=b"nothing@x"),
    "no-common-cipher": HELLO + kexinit(cipher=b"nothing@x"),
    "kexinit-cut-short": HELLO + packet(b"\x14" + b"\0" * 10),
    "kexinit-of-long-lists": HELLO + kexinit(kex=b"a," * 15000 + b"curve25519-sha256"),
    "kexinit-twice": HELLO + kexinit() * 2,
    "newkeys-at-once": HELLO + packet(b"\x15"),
    "reply-at-once": HELLO + packet(b"\x1f" + text(b"key") + text(b"x" * 32) + text(b"sig")),
    "kex-reply-garbage": HELLO + kexinit() + packet(b"\x1f" + text(b"\0\0\0\x0bssh-ed25519" + text(b"k" * 32)) + text(b"\0" * 32) + text(b"sig")),
    "kex-reply-empty": HELLO + kexinit() + packet(b"\x1f"),
    "auth-success-at-once": HELLO + packet(b"\x34"),
    "channel-open-at-once": HELLO + packet(b"\x5a" + text(b"x11")),
    "disconnect-with-escapes": HELLO + packet(b"\x01" + u32(2) + text(ESC + b"\nsshmux: forged") + text(b"")),
    "ignore-flood": HELLO + packet(b"\x02" + text(b"x" * 100)) * 3000,
    "debug-with-escapes": HELLO + packet(b"\x04\x01" + text(ESC) + text(b"")) * 10,
    "empty-packets": HELLO + packet(b"") * 10,
}


def before(name, path):
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    s.listen(5)
    tell(path, s.getsockname()[1])
    c, _ = s.accept()
    if BEFORE[name] is None:
        time.sleep(60)
    try:
        c.sendall(BEFORE[name])
        c.shutdown(socket.SHUT_WR)
        while c.recv(4096):
            pass
    except OSError:
        pass


def tell(path, port):
    with open(path + ".new", "w") as f:
        f.write("%d\n" % port)
    os.rename(path + ".new", path)


if __name__ == "__main__":
    if sys.argv[1:] == ["list", "after"]:
        print("\n".join("%s %s" % (n, AFTER[n][0]) for n in AFTER))
    elif sys.argv[1:] == ["list", "before"]:
        print("\n".join(BEFORE))
    elif sys.argv[1] == "after":
        server(sys.argv[2])
    else:
        before(sys.argv[2], sys.argv[3])
