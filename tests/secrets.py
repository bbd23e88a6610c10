# secrets.py PID KEYFILE... - looks for private parts of keys in a process's memory.
#
# Eight bytes of one are a find, in the forms that programs keep numbers in: as they
# are written (big-endian), turned round, and as libtommath's digits of 60 or 28 bits.
# PID self: in this program's own memory, which holds some: the search must find them.
# Exit status 0: none, 1: some, 2: no look was possible.
import hashlib
import os
import sys
import warnings

warnings.simplefilter("ignore")
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives import serialization


def load(path):
    data = open(path, "rb").read()
    if b"OPENSSH" in data:
        return serialization.load_ssh_private_key(data, None)
    return serialization.load_pem_private_key(data, None)


def numbers(key):
    if isinstance(key, ed25519.Ed25519PrivateKey):
        seed = key.private_bytes(serialization.Encoding.Raw, serialization.PrivateFormat.Raw,
                                 serialization.NoEncryption())
        digest = hashlib.sha512(seed).digest()
        yield "seed", seed
        yield "scalar", digest[:32]
        yield "prefix", digest[32:]
        return
    n = key.private_numbers()
    if isinstance(key, rsa.RSAPrivateKey):
        parts = ("p", n.p), ("q", n.q), ("d", n.d), ("dmp1", n.dmp1), ("dmq1", n.dmq1)
    else:
        parts = (("scalar", n.private_value),)
    for name, value in parts:
        yield name, value.to_bytes((value.bit_length() + 7) // 8, "big")


def needles(name, raw):
    value = int.from_bytes(raw, "big")
    for form, text in (("bytes", raw), ("bytes turned round", raw[::-1])):
        for i in range(0, len(raw) - 7, 8):
            yield "%s as %s" % (name, form), text[i:i + 8]
    for bits, size in ((60, 8), (28, 4)):
        mask = (1 << bits) - 1
        digits = [value >> i & mask for i in range(0, value.bit_length() - bits, bits)]
        words = [d.to_bytes(size, "little") for d in digits]
        step = 8 // size
        for i in range(0, len(words) - step + 1, step):
            yield "%s in digits of %d bits" % (name, bits), b"".join(words[i:i + step])


def regions(pid):
    for line in open("/proc/%s/maps" % pid):
        where, mode = line.split()[:2]
        if mode.startswith("rw") and "[vvar" not in line:
            start, end = (int(x, 16) for x in where.split("-"))
            yield start, end, line.split()[-1]


def main():
    pid, keys = sys.argv[1], sys.argv[2:]
    wanted = [n for k in keys for name, raw in numbers(load(k))
              for n in needles(os.path.basename(k) + ": " + name, raw)]
    kept = [n[1] for n in wanted]
    found = set()
    looked = 0
    try:
        memory = open("/proc/%s/mem" % pid, "rb", 0)
        for start, end, name in regions(pid):
            try:
                memory.seek(start)
                data = memory.read(end - start)
            except (OSError, OverflowError):
                continue
            looked += len(data)
            for what, needle in wanted:
                if needle in data:
                    found.add("%s in %s" % (what, name))
    except OSError as e:
        print(e)
    if looked < 65536 or not kept:
        sys.exit(2)
    print("\n".join(sorted(found)))
    sys.exit(1 if found else 0)


main()
