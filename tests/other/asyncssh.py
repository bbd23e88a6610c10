# asyncssh.py PORT HOSTKEY AUTHORIZED - AsyncSSH's server: commands, terminals, SFTP,
# forwards in all directions.
import asyncio
import os
import pty
import subprocess
import sys
import warnings

sys.path[0] = "/usr/lib/python3/dist-packages"
warnings.simplefilter("ignore")
import asyncssh

port, hostkey, authorized = sys.argv[1:4]


class Server(asyncssh.SSHServer):
    def connection_requested(self, *args):
        return True

    def server_requested(self, *args):
        return True


async def command(process):
    run = ["/bin/sh", "-c", process.command or "exec sh"]
    if process.get_terminal_type():
        master, slave = pty.openpty()
        child = subprocess.Popen(run, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        await process.redirect(stdin=os.dup(master), stdout=master)
    else:
        child = subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        await process.redirect(stdin=child.stdin, stdout=child.stdout, stderr=child.stderr)
        await process.stderr.drain()
    await process.stdout.drain()
    process.exit(await asyncio.get_event_loop().run_in_executor(None, child.wait))


async def main():
    await asyncssh.create_server(
        Server, "127.0.0.1", int(port), server_host_keys=[hostkey],
        authorized_client_keys=authorized, process_factory=command, sftp_factory=True,
        encoding=None, line_editor=False)
    await asyncio.get_event_loop().create_future()


asyncio.run(main())
