/* fuzz_hosts.c - known_hosts: the first byte chooses how strict, the rest is the file. */
#include "fuzz_transport.c"

static void fuzz_one(const uint8_t *data, size_t size);
#include "unit_fuzz.c"

/* The server's key: type, then 32 bytes. */
static const uint8_t fuzz_key[] = "\0\0\0\013ssh-ed25519\0\0\0\040abcdefghijklmnopqrstuvwxyz012345";

static void fuzz_judge(void)
{
	char types[200];
	hostkey_begin();
	hostkey_known_types(types, sizeof types);
	fuzz_require(strnlen(types, sizeof types) < sizeof types, "a list without an end");
	hostkey_check(fuzz_key, sizeof fuzz_key - 1);
	hostkey_remember();
}

static void fuzz_one(const uint8_t *data, size_t size)
{
	if (size == 0)
		return;
	fuzz_enter_dir();
	ground_file("key", data, 0);
	ground_file("hosts", data + 1, size - 1);
	ground_init();
	ground.config.strict = (enum tp_strict)(data[0] & 3);
	ground.config.port = data[0] & 4 ? 2222 : 22;
	ground_connect();
	bool taken = port_run(fuzz_judge);
	fuzz_require(taken || (tp_state() == TP_FAILED && *tp_error()), "refused without a word");
	fuzz_require(ground_close(), "a descriptor is left");
}
