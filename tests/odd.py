# odd.py PORT KIND HOSTKEY AUTHORIZED PASSWORD - an SSH server (AsyncSSH) that is
# within its rights, or nearly, and unlike OpenSSH.  KIND:
#   late     sends channel data between its KEXINIT and NEWKEYS
#   unnamed  names no method that can continue
#   rounds   keyboard-interactive asks twice, for the password and once more
#   slow     drops a request that comes before it has accepted the service
#   stuck    begins a key exchange on the command `stick`, and never ends it
import asyncio
import sys
import warnings

warnings.simplefilter("ignore")
import asyncssh
from asyncssh import connection
from asyncssh.packet import Boolean, NameList, String

port, kind, hostkey, authorized, password = sys.argv[1:6]
Connection = connection.SSHServerConnection


class Server(asyncssh.SSHServer):
    def connection_made(self, conn):
        self.round = 0

    def begin_auth(self, username):
        return True

    def kbdint_auth_supported(self):
        return kind == "rounds"

    def public_key_auth_supported(self):
        return kind != "rounds"

    def get_kbdint_challenge(self, username, lang, submethods):
        return "", "", "en", [("Password: ", False)]

    def validate_kbdint_response(self, username, responses):
        if list(responses) != [password]:
            return False
        self.round += 1
        return True if self.round == 2 else ("", "", "en", [("Once more: ", False)])


def unnamed(self, partial):
    self._auth = None
    self.send_packet(connection.MSG_USERAUTH_FAILURE, NameList([]), Boolean(partial))


def drop_early(process_service, process_userauth):
    def service(self, *args):
        process_service(self, *args)
        self.early = True
        asyncio.get_event_loop().call_soon(setattr, self, "early", False)

    def userauth(self, *args):
        if not self.early:
            process_userauth(self, *args)

    return service, userauth


def stick(conn):
    conn._send_kexinit()
    conn._recv_packet = lambda: False

    async def drip():
        while True:
            conn.send_packet(connection.MSG_IGNORE, String(b"x"))
            await asyncio.sleep(0.2)

    asyncio.ensure_future(drip())


async def command(process):
    if process.command == "stick":
        stick(process.channel.get_connection())
        return
    if process.command == "pour":
        for _ in range(400):
            process.stdout.write(b"0123456789abcdef" * 1024)
            await process.stdout.drain()
    else:
        process.stdout.write(b"in\n")
    process.exit(0)


async def main():
    handlers = dict(Connection._packet_handlers)
    if kind == "unnamed":
        Connection.send_userauth_failure = unnamed
    if kind == "slow":
        service, userauth = connection.MSG_SERVICE_REQUEST, connection.MSG_USERAUTH_REQUEST
        handlers[service], handlers[userauth] = drop_early(handlers[service], handlers[userauth])
        Connection._packet_handlers = handlers
    await asyncssh.create_server(
        Server, "127.0.0.1", int(port), server_host_keys=[hostkey], encoding=None,
        process_factory=command, authorized_client_keys=authorized if kind != "rounds" else None,
        rekey_bytes=256 * 1024 if kind == "late" else 1 << 30,
        server_version="Uppity" if kind == "slow" else ())
    await asyncio.get_event_loop().create_future()


asyncio.get_event_loop().run_until_complete(main())
