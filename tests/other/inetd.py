# inetd.py PORT COMMAND... - runs COMMAND on each connection, its stdin and stdout.
import socket
import subprocess
import sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
running = []
while True:
    c, _ = listener.accept()
    running = [p for p in running if p.poll() is None]
    running.append(subprocess.Popen(sys.argv[2:], stdin=c, stdout=c))
    c.close()
