# paramiko.py PORT HOSTKEY AUTHORIZED - a server of Paramiko: commands, terminals,
# -L, -D, -W and -R.
import os
import pty
import socket
import subprocess
import sys
import threading

sys.path[0] = "/usr/lib/python3/dist-packages"
import warnings

warnings.simplefilter("ignore")
import paramiko

port, hostkey, authorized = sys.argv[1:4]
allowed = open(authorized).read().split()[1]


def pump(read, write, end):
    try:
        while True:
            data = read(32768)
            if not data:
                break
            write(data)
    except (OSError, EOFError):
        pass
    end()


def thread(*args):
    t = threading.Thread(target=args[0], args=args[1:], daemon=True)
    t.start()
    return t


def join(channel, other):
    a = thread(pump, channel.recv, other.sendall, lambda: shut(other))
    b = thread(pump, other.recv, channel.sendall, channel.shutdown_write)
    a.join()
    b.join()
    channel.close()
    other.close()


def shut(other):
    try:
        other.shutdown(socket.SHUT_WR)
    except OSError:
        pass


class Server(paramiko.ServerInterface):
    def __init__(self, transport):
        self.transport = transport
        self.targets = {}
        self.terminals = set()

    def get_allowed_auths(self, username):
        return "publickey"

    def check_auth_publickey(self, username, key):
        good = key.get_base64() == allowed
        return paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED

    def check_channel_request(self, kind, chanid):
        return paramiko.OPEN_SUCCEEDED if kind == "session" else 1

    def check_channel_pty_request(self, channel, *args):
        self.terminals.add(channel.get_id())
        return True

    def check_channel_env_request(self, *args):
        return True

    def check_channel_exec_request(self, channel, command):
        thread(self.run, channel, command)
        return True

    def check_channel_direct_tcpip_request(self, chanid, origin, target):
        try:
            self.targets[chanid] = socket.create_connection(target)
        except OSError:
            return paramiko.OPEN_FAILED_CONNECT_FAILED
        return paramiko.OPEN_SUCCEEDED

    def check_port_forward_request(self, address, port):
        listener = socket.create_server(("127.0.0.1", port))
        thread(self.forward, listener, address)
        return listener.getsockname()[1]

    def forward(self, listener, address):
        while True:
            other, peer = listener.accept()
            channel = self.transport.open_forwarded_tcpip_channel(peer, (address, listener.getsockname()[1]))
            thread(join, channel, other)

    def run(self, channel, command):
        if channel.get_id() in self.terminals:
            master, slave = pty.openpty()
            child = subprocess.Popen(["/bin/sh", "-c", command], stdin=slave, stdout=slave, stderr=slave)
            os.close(slave)
            pump(lambda n: os.read(master, n), channel.sendall, lambda: None)
        else:
            child = subprocess.Popen(["/bin/sh", "-c", command], bufsize=0, stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            thread(pump, channel.recv, child.stdin.write, child.stdin.close)
            out = thread(pump, child.stdout.read, channel.sendall, lambda: None)
            pump(child.stderr.read, channel.sendall_stderr, lambda: None)
            out.join()
        channel.send_exit_status(child.wait())
        channel.close()


def serve(sock):
    transport = paramiko.Transport(sock)
    transport.add_server_key(paramiko.Ed25519Key(filename=hostkey))
    transport.packetizer.REKEY_BYTES = int(os.environ.get("REKEY_BYTES", 1 << 29))
    server = Server(transport)
    transport.start_server(server=server)
    while transport.is_active():
        channel = transport.accept(1)
        if channel and channel.get_id() in server.targets:
            thread(join, channel, server.targets.pop(channel.get_id()))


listener = socket.create_server(("127.0.0.1", int(port)))
while True:
    thread(serve, listener.accept()[0])
