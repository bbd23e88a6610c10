# asyncssh.py PORT HOSTKEY AUTHORIZED - AsyncSSH's server: commands, terminals, SFTP,
# forwards in all directions.
import asyncio
import os
import pty
import sys
import warnings

warnings.simplefilter("ignore")
import asyncssh

port, hostkey, authorized = sys.argv[1:4]


class Server(asyncssh.SSHServer):
    def connection_requested(self, *args):
        return True

    def server_requested(self, *args):
        return True


async def command(process):
    if process.get_terminal_type():
        master, slave = pty.openpty()
        child = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", process.command, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        await process.redirect(stdin=os.dup(master), stdout=master)
        process.exit(await child.wait())
        return
    child = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", process.command or "exec sh", stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    await process.redirect(stdin=child.stdin, stdout=child.stdout, stderr=child.stderr)
    status = await child.wait()
    await process.wait_closed() if process.is_closing() else None
    await process.stdout.drain()
    process.exit(status)


async def main():
    await asyncssh.create_server(
        Server, "127.0.0.1", int(port), server_host_keys=[hostkey],
        authorized_client_keys=authorized, process_factory=command, sftp_factory=True,
        encoding=None, line_editor=False)
    await asyncio.get_event_loop().create_future()


asyncio.run(main())
