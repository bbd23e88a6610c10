/* fuzz_keys.c - a private key's file, or one of a public key. */
#include "fuzz_transport.c"

static void fuzz_one(const uint8_t *data, size_t size);
#include "unit_fuzz.c"

static void fuzz_load(void)
{
	unsigned char hash[HASH_SIZE];
	buffer *blob = NULL;
	sign_key *key = identity_load("key", true, &blob);
	fuzz_require(!key || (blob && blob->len > 0), "a key without its public part");
	identity_public_hash("key", hash);
}

static void fuzz_one(const uint8_t *data, size_t size)
{
	fuzz_enter_dir();
	ground_file("hosts", data, 0);
	ground_file("key", data, size);
	ground_init();
	ground_connect();
	fuzz_require(port_run(fuzz_load) || *tp_error(), "refused without a word");
	fuzz_require(ground_close(), "a descriptor is left");
}
