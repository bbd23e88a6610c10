/* ciphers.c - known answers for each way that a cipher can be gone on this CPU, and
 * how fast each is.  TAP on stdout; the last line is "N passed, N failed".
 *
 * The raw primitives are tested with RFC 8439 and the vectors of "The Galois/Counter
 * Mode of Operation" (McGrew, Viega; NIST's submission); whole packets with tags made
 * by OpenSSL's ciphers out of the same bytes.  `ciphers WAY KEY_BITS MIB` instead
 * encrypts that much and prints nanoseconds; KEY_BITS 0 is chacha20-poly1305. */
#include "../port/dropbear/ciphers.c"
#include <time.h>

#define PACKET 32784		/* the longest one here, without length and tag */

static unsigned passed, failed;
static unsigned char buffer_of[4 + PACKET + TAG + 16], other[4 + PACKET + TAG];

void tp_log(enum tp_level level, const char *line)
{
	(void)level;
	fprintf(stderr, "%s\n", line);
}

/* Nothing is shown here; the library asks for it all the same. */
size_t tp_clean(const char *text, size_t len, bool lines, char *to, size_t size)
{
	(void)text;
	(void)lines;
	to[0] = 0;
	return size > 1 ? len : 0;
}

static void check(bool ok, const char *what, const char *way, size_t n)
{
	*(ok ? &passed : &failed) += 1;
	printf("%s %u - %s, %s, %zu\n", ok ? "ok" : "not ok", passed + failed, what, way, n);
}

static const size_t lengths[] = { 16, 1040, PACKET };

/* The packet all known answers are for. */
static size_t packet(unsigned char *p, size_t n)
{
	size_t i;

	STORE32H(n, p);
	for (i = 4; i < 4 + n; i++)
		p[i] = (unsigned char)(i * 7 + 13);
	return 4 + n;
}

static void key_bytes(unsigned char *key, size_t n)
{
	while (n-- > 0)
		key[n] = (unsigned char)n;
}

/* The mode's whole contract with one packet: tag, length, there and back, damage. */
static bool one(const struct dropbear_cipher_mode *m, unsigned seq, void *out_state, void *in_state,
	void *bad_state, size_t n, const char *length, const char *tag)
{
	size_t len = packet(buffer_of, n);
	unsigned said = 0;
	bool ok;

	if (m->aead_crypt(seq, buffer_of, buffer_of, len, TAG, out_state, LTC_ENCRYPT) != CRYPT_OK)
		return false;
	ok = (length == NULL || memcmp(buffer_of, length, 4) == 0) &&
		memcmp(buffer_of + len, tag, TAG) == 0;
	ok = ok && m->aead_getlength(seq, buffer_of, &said, 16, in_state) == CRYPT_OK && said == n;
	memcpy(other, buffer_of, len + TAG);
	other[len - 1] ^= 1;
	ok = ok && m->aead_crypt(seq, other, other, len, TAG, bad_state, LTC_DECRYPT) != CRYPT_OK;
	ok = ok && m->aead_crypt(seq, buffer_of, buffer_of, len, TAG, in_state,
		LTC_DECRYPT) == CRYPT_OK;
	packet(other, n);
	return ok && memcmp(buffer_of, other, len) == 0;
}

union state {
	struct gcm_keys gcm;
	struct chacha_keys chacha;
	uint64_t word[100];
};

/* Packets that no peer may send are refused before a key is used. */
static void refusals(const struct dropbear_cipher_mode *m, const char *way, void *state)
{
	unsigned n;

	check(m->aead_getlength(0, buffer_of, &n, 3, state) != CRYPT_OK,
		"too short for a length", way, 3);
	check(m->aead_crypt(0, buffer_of, other, 3, TAG, state, LTC_DECRYPT) != CRYPT_OK,
		"too short for a packet", way, 3);
	check(m->aead_crypt(0, buffer_of, other, 16, TAG - 1, state, LTC_DECRYPT) != CRYPT_OK,
		"too short for a tag", way, TAG - 1);
}

static void chacha_packets(const char *way)
{
	static const char *const answers[][2] = {
		{ "\x69\xa6\x14\xd8",
		"\x65\x05\xcf\x5b\x09\x69\xde\xdc\xfa\xd5\x90\xef\xa0\x0e\xe7\x0a" },
		{ "\xb9\x0e\xe0\xa0",
		"\x28\x55\x94\x0a\x53\x6b\x55\x48\xbe\xe3\xff\x44\x51\x85\x82\x72" },
		{ "\x94\x45\x8e\x49",
		"\x4d\xca\xd5\x6b\x7a\xe8\xb4\x50\x64\xfe\x76\x45\x05\xca\xbd\x70" },
	};
	static union state s;
	unsigned char key[2 * KEY];
	unsigned seq = 0xfffffffe;
	size_t i;

	key_bytes(key, sizeof(key));
	dropbear_mode_chachapoly.start(-1, NULL, key, sizeof(key), 0, &s);
	for (i = 0; i < 3; i++)
		check(one(&dropbear_mode_chachapoly, seq + (unsigned)i, &s, &s, &s, lengths[i],
			answers[i][0], answers[i][1]), "chacha20-poly1305 packet", way, lengths[i]);
	refusals(&dropbear_mode_chachapoly, way, &s);
	check(dropbear_mode_chachapoly.start(-1, NULL, key, KEY, 0, &s) != CRYPT_OK,
		"half a key is refused", way, KEY);
}

/* The counter of packets runs over a word's end; states are copies, as dropbear makes. */
static void gcm_packets(const char *way, size_t key_len)
{
	static const char *const answers[2][3] = { {
		"\x2b\xf7\xe5\x47\x65\x96\x1c\x3c\xaf\x91\x1b\x7f\x56\xaf\x61\xe2",
		"\x09\x5b\xe5\x36\xfa\x70\xf2\xc0\x4f\xc9\x9e\x02\x7f\xa8\x30\xc2",
		"\xeb\xed\x73\xcb\x8a\xc6\x62\x95\x66\xd3\x39\x0e\xb0\x7e\xf8\x4f",
	}, {
		"\x22\x44\x02\x48\x00\xd3\x28\x68\xe9\x38\x61\x4c\xb6\x0c\x26\x8d",
		"\x35\xda\x6a\x7d\x55\xd3\x5b\x8f\x75\x67\x53\x79\xab\x59\x1c\xe6",
		"\x11\xd1\x37\x13\x43\xbf\x9d\x4e\x0f\xe8\x9e\x21\xb1\xa3\xa5\xd1",
	} };
	static const unsigned char iv[NONCE] = { 1, 2, 3, 4, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe };
	static union state first;
	static struct { uint64_t shift; union state out, in, bad; } s;
	unsigned char key[32];
	size_t i;

	key_bytes(key, sizeof(key));
	mode_gcm.start(-1, iv, key, (int)key_len, 0, &first);
	memcpy(&s.out, &first, sizeof(first));
	memcpy(&s.in, &first, sizeof(first));
	for (i = 0; i < 3; i++) {
		memcpy(&s.bad, &s.in, sizeof(first));
		check(one(&mode_gcm, 0, &s.out, &s.in, &s.bad, lengths[i], NULL,
			answers[key_len == 32][i]),
			key_len == 32 ? "aes256-gcm packet" : "aes128-gcm packet", way, lengths[i]);
	}
	refusals(&mode_gcm, way, &s.in);
}

/* RFC 8439 2.4.2 (its first block and the tail) and 2.5.2 */
static void chacha_raw(const struct chacha_way *w)
{
	static const char text[] = "Ladies and Gentlemen of the class of '99: If I could offer you "
		"only one tip for the future, sunscreen would be it.";
	static const unsigned char nonce[8] = { 0, 0, 0, 0x4a, 0, 0, 0, 0 };
	static const char head[] =
		"\x6e\x2e\x35\x9a\x25\x68\xf9\x80\x41\xba\x07\x28\xdd\x0d\x69\x81";
	static const char tail[] = "\x87\x4d";
	static const char auth_key[] =
		"\x85\xd6\xbe\x78\x57\x55\x6d\x33\x7f\x44\x52\xfe\x42\xd5\x06\xa8"
		"\x01\x03\x80\x8a\xfb\x0d\xb2\xfd\x4a\xbf\xf6\xaf\x41\x49\xf5\x1b";
	static const char auth_text[] = "Cryptographic Forum Research Group";
	static const char auth_tag[] =
		"\xa8\x06\x1d\xc1\x30\x51\x36\xc6\xc2\x2b\x8b\xaf\x0c\x01\x27\xa9";
	unsigned char key[KEY], out[sizeof(text)], tag[TAG];
	size_t n = sizeof(text) - 1;

	key_bytes(key, sizeof(key));
	w->stream->stream_xor_ic(out, (const unsigned char *)text, n, nonce, 1, key);
	check(memcmp(out, head, 16) == 0 && memcmp(out + n - 2, tail, 2) == 0, "RFC 8439 2.4.2",
		w->name, n);
	n = sizeof(auth_text) - 1;
	w->mac->onetimeauth(tag, (const unsigned char *)auth_text, n,
		(const unsigned char *)auth_key);
	check(memcmp(tag, auth_tag, TAG) == 0, "RFC 8439 2.5.2", w->name, n);
}

/* McGrew and Viega's test cases 4 (AES-128) and 16 (AES-256) */
static const unsigned char gcm_key[32] = {
	0xfe, 0xff, 0xe9, 0x92, 0x86, 0x65, 0x73, 0x1c, 0x6d, 0x6a, 0x8f, 0x94, 0x67, 0x30, 0x83,
		0x08,
	0xfe, 0xff, 0xe9, 0x92, 0x86, 0x65, 0x73, 0x1c, 0x6d, 0x6a, 0x8f, 0x94, 0x67, 0x30, 0x83,
		0x08,
};
static const unsigned char gcm_iv[NONCE] = {
	0xca, 0xfe, 0xba, 0xbe, 0xfa, 0xce, 0xdb, 0xad, 0xde, 0xca, 0xf8, 0x88,
};
static const char gcm_text[] = "\xd9\x31\x32\x25\xf8\x84\x06\xe5\xa5\x59\x09\xc5\xaf\xf5\x26\x9a"
	"\x86\xa7\xa9\x53\x15\x34\xf7\xda\x2e\x4c\x30\x3d\x8a\x31\x8a\x72"
	"\x1c\x3c\x0c\x95\x95\x68\x09\x53\x2f\xcf\x0e\x24\x49\xa6\xb5\x25"
	"\xb1\x6a\xed\xf5\xaa\x0d\xe6\x57\xba\x63\x7b\x39";
static const char gcm_more[] = "\xfe\xed\xfa\xce\xde\xad\xbe\xef\xfe\xed\xfa\xce\xde\xad\xbe\xef"
	"\xab\xad\xda\xd2";
static const char *const gcm_tags[2] = {
	"\x5b\xc9\x4f\xbc\x32\x21\xa5\xdb\x94\xfa\xe9\x5a\xe7\x12\x1a\x47",
	"\x76\xfc\x6e\xce\x0f\x4e\x17\x68\xcd\xdf\x88\x53\xbb\x2d\x55\x1b",
};

static void gcm_raw(const char *way, br_aes_gen_ctr_keys *k, br_ghash ghash, size_t key_len)
{
	unsigned char text[60], tag[TAG];
	br_gcm_context g;

	memcpy(text, gcm_text, sizeof(text));
	br_gcm_init(&g, &k->vtable, ghash);
	br_gcm_reset(&g, gcm_iv, NONCE);
	br_gcm_aad_inject(&g, gcm_more, 20);
	br_gcm_flip(&g);
	br_gcm_run(&g, 1, text, sizeof(text));
	br_gcm_get_tag(&g, tag);
	check(memcmp(tag, gcm_tags[key_len == 32], TAG) == 0, "McGrew and Viega's test case", way,
		key_len == 32 ? 16 : 4);
}

static void gcm_raws(size_t key_len)
{
	br_aes_gen_ctr_keys k;

	br_aes_ct_ctr_init(&k.c_ct, gcm_key, key_len);
	gcm_raw("plain, 32 bits", &k, br_ghash_ctmul, key_len);
	gcm_raw("plain, 32 bits only", &k, br_ghash_ctmul32, key_len);
	br_aes_ct64_ctr_init(&k.c_ct64, gcm_key, key_len);
	gcm_raw("plain, 64 bits", &k, br_ghash_ctmul64, key_len);
#ifdef WITH_X86
	if (has_aesni()) {
		br_aes_x86ni_ctr_init(&k.c_x86ni, gcm_key, key_len);
		gcm_raw("aesni", &k, br_ghash_pclmul, key_len);
	}
#endif
}

#ifdef SODIUM_GCM
static void sodium_raw(void)
{
	unsigned char text[60], tag[TAG], left = 0;
	size_t i;

	if (!allowed("", crypto_aead_aes256gcm_is_available))
		return;
	crypto_aead_aes256gcm_beforenm(&aligned, gcm_key);
	crypto_aead_aes256gcm_encrypt_detached_afternm(text, tag, NULL,
		(const unsigned char *)gcm_text, sizeof(text), (const unsigned char *)gcm_more, 20,
		NULL, gcm_iv, &aligned);
	check(memcmp(tag, gcm_tags[1], TAG) == 0, "McGrew and Viega's test case", "libsodium", 16);
	ciphers_forget();
	for (i = 0; i < sizeof(aligned); i++)
		left |= ((unsigned char *)&aligned)[i];
	check(left == 0, "the copy of the keys is wiped", "libsodium", i);
}
#else
static void sodium_raw(void) { }
#endif

static void all(void)
{
	size_t i, len;

	for (i = 0; i < ARRAY_SIZE(chacha_ways); i++) {
		ciphers_only = chacha_ways[i].name;
		if (!allowed(ciphers_only, chacha_ways[i].has)) {
			printf("# this CPU has no %s\n", ciphers_only);
			continue;
		}
		check(strcmp(ciphers_chacha_way(), ciphers_only) == 0, "chosen", ciphers_only, 0);
		chacha_raw(&chacha_ways[i]);
		chacha_packets(ciphers_only);
	}
	for (len = 16; len <= 32; len += 16)
		gcm_raws(len);
	sodium_raw();
	for (i = 0; i < ARRAY_SIZE(gcm_ways); i++)
		for (len = 16; len <= 32; len += 16) {
			ciphers_only = gcm_ways[i].name;
			if (gcm_ways[i].key_len != 0 && gcm_ways[i].key_len != len)
				continue;
			if (!allowed(ciphers_only, gcm_ways[i].has)) {
				printf("# this CPU has no %s\n", ciphers_only);
				continue;
			}
			check(strcmp(ciphers_gcm_way(len), ciphers_only) == 0, "chosen",
				ciphers_only, len);
			gcm_packets(ciphers_only, len);
		}
}

static void speed(const char *way, int bits, long mib)
{
	const struct dropbear_cipher_mode *m = bits == 0 ? &dropbear_mode_chachapoly : &mode_gcm;
	static union state s;
	unsigned char key[2 * KEY];
	size_t len = packet(buffer_of, PACKET);
	struct timespec a, b;
	long i, n = mib * 1048576 / (long)len;

	ciphers_only = way;
	key_bytes(key, sizeof(key));
	m->start(-1, key, key, bits == 0 ? 2 * KEY : bits / 8, 0, &s);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
	for (i = 0; i < n; i++)
		m->aead_crypt((unsigned)i, buffer_of, buffer_of, len, TAG, &s, LTC_ENCRYPT);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
	printf("%s %ld ns for %ld bytes\n", bits == 0 ? ciphers_chacha_way() :
		ciphers_gcm_way((size_t)bits / 8), (long)(b.tv_sec - a.tv_sec) * 1000000000 +
		(b.tv_nsec - a.tv_nsec), n * (long)len);
}

int main(int argc, char **argv)
{
	if (argc == 4) {
		speed(argv[1], atoi(argv[2]), atol(argv[3]));
		return 0;
	}
	all();
	printf("1..%u\n%u passed, %u failed\n", passed + failed, passed, failed);
	return failed > 0;
}
