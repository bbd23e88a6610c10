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


async def pump(source, target):
    try:
        while data := await source.read(32768):
            target.write(data)
            await target.drain()
    except (OSError, asyncssh.Error):
        pass


async def feed(source, target):
    await pump(source, target)
    target.close()


async def terminal(process):
    master, slave = pty.openpty()
    child = subprocess.Popen(["/bin/sh", "-c", process.command], stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    await process.redirect(stdin=os.dup(master), stdout=master)
    await process.stdout.drain()
    process.exit(await asyncio.get_event_loop().run_in_executor(None, child.wait))


async def command(process):
    if process.get_terminal_type():
        return await terminal(process)
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", process.command or "exec sh", stdin=pipe, stdout=pipe, stderr=pipe)
    feeds = asyncio.ensure_future(feed(process.stdin, child.stdin))
    await asyncio.gather(pump(child.stdout, process.stdout), pump(child.stderr, process.stderr))
    process.exit(await child.wait())
    feeds.cancel()


async def main():
    await asyncssh.create_server(
        Server, "127.0.0.1", int(port), server_host_keys=[hostkey],
        authorized_client_keys=authorized, process_factory=command, sftp_factory=True,
        encoding=None, line_editor=False, reuse_address=True,
        rekey_bytes=int(os.environ.get("REKEY_BYTES", 1 << 30)))
    await asyncio.get_event_loop().create_future()


asyncio.run(main())
