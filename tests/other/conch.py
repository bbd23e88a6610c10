# conch.py PORT HOSTKEY AUTHORIZED - Twisted's Conch, its server for unix users.
import sys
import warnings

sys.path[0] = "/usr/lib/python3/dist-packages"
warnings.simplefilter("ignore")
from twisted.conch import checkers, unix
from twisted.conch.ssh import factory, keys
from twisted.cred import portal
from twisted.internet import reactor

port, hostkey, authorized = sys.argv[1:4]


class Factory(factory.SSHFactory):
    key = keys.Key.fromFile(hostkey)
    publicKeys = {b"ssh-ed25519": key}
    privateKeys = {b"ssh-ed25519": key}

    def getPrimes(self):
        return None


class AllUsers(checkers.InMemorySSHKeyDB):
    def getAuthorizedKeys(self, username):
        return [keys.Key.fromFile(authorized)]


class Realm(unix.UnixSSHRealm):     # whose own takes no bytes from the checker
    def requestAvatar(self, username, mind, *interfaces):
        user = unix.UnixConchUser(username.decode())
        return interfaces[0], user, user.logout


Factory.portal = portal.Portal(Realm(), [checkers.SSHPublicKeyChecker(AllUsers({}))])
reactor.listenTCP(int(port), Factory(), interface="127.0.0.1")
reactor.run()
