/* ciphers.c - libsodium and BearSSL behind dropbear's table of ciphers.
 *
 * chacha20-poly1305@openssh.com (PROTOCOL.chacha20poly1305): two keys of 256 bits,
 * the second for the packet's length; the nonce is the sequence number.  AES-GCM
 * (RFC 5647, with the length as additional data): a nonce of 12 bytes; the last
 * eight count the packets.
 *
 * The library for each CPU, chosen by measuring (sshmux.1):
 *   x86_64   libsodium, AVX2 or SSSE3; aes256-gcm: libsodium with AES-NI and AVX, about
 *            1.5 times as fast as BearSSL with AES-NI; aes128-gcm: that
 *   aarch64  aes256-gcm: libsodium, with the AES instructions of ARMv8
 *   others   BearSSL's chacha20 and GCM in constant time, libsodium's Poly1305
 *
 * Dropbear copies the states, so they must not point into themselves.  Both libraries
 * rely on the contract of dropbear_cipher_mode: `in` and `out` are the same bytes or
 * do not overlap, the tag follows the packet.
 */
#include "port.h"
#include "algo.h"
#include "dbutil.h"
#include "session.h"
#include "ciphers.h"
#include "bearssl_block.h"
#include "bearssl_hash.h"
#include "bearssl_aead.h"
#include "sodium.h"
#include "crypto_onetimeauth/poly1305/donna/poly1305_donna.h"
#include "crypto_onetimeauth/poly1305/sse2/poly1305_sse2.h"
#include "crypto_stream/chacha20/dolbeau/chacha20_dolbeau-avx2.h"
#include "crypto_stream/chacha20/dolbeau/chacha20_dolbeau-ssse3.h"
#include "crypto_stream/chacha20/ref/chacha20_ref.h"
#include "sodium/crypto_aead_aes256gcm.h"
#include "sodium/runtime.h"

#define TAG 16
#define NONCE 12	/* of GCM */
#define KEY 32		/* of chacha20, which needs two of them */

#if defined(__x86_64__) && !defined(CIPHERS_SMALL)
#define WITH_X86 1
#define SODIUM_GCM "aesni-avx"	/* its code takes both */
#elif defined(HAVE_ARMCRYPTO)
#define SODIUM_GCM "armv8"
#endif

int _sodium_runtime_get_cpu_features(void);

const char *ciphers_only;

/* What libsodium needs from its other files. */
void sodium_memzero(void *p, size_t len)
{
	m_burn(p, (unsigned int)len);
}

void sodium_misuse(void)
{
	dropbear_exit("invalid argument in the cipher library");
}

int crypto_verify_16(const unsigned char *a, const unsigned char *b)
{
	return constant_time_memcmp(a, b, 16) == 0 ? 0 : -1;
}

/* Whether we may use that way.  Asks the CPU once. */
static bool allowed(const char *name, int (*has)(void))
{
	static bool asked;

	if (!asked)
		_sodium_runtime_get_cpu_features();
	asked = true;
	return has == NULL ||
		(has() && (ciphers_only == NULL || strstr(ciphers_only, name) != NULL));
}

/* --- chacha20-poly1305 ---------------------------------------------------- */

struct chacha_keys {
	unsigned char payload[KEY], length[KEY];
};

#ifndef WITH_X86
static int chacha_xor(unsigned char *out, const unsigned char *in, unsigned long long len,
	const unsigned char *nonce, uint64_t block, const unsigned char *key)
{
	unsigned char iv[NONCE] = { 0 };

	memcpy(iv + 4, nonce, 8);
	memmove(out, in, (size_t)len);
	br_chacha20_ct_run(key, iv, (uint32_t)block, out, (size_t)len);
	return 0;
}
static const struct crypto_stream_chacha20_implementation chacha_ct = {
	.stream_xor_ic = chacha_xor
};
#define CHACHA_PLAIN chacha_ct
#else
#define CHACHA_PLAIN crypto_stream_chacha20_ref_implementation
#endif

/* The best one first; the last one always works. */
static const struct chacha_way {
	const char *name;
	int (*has)(void);
	const struct crypto_stream_chacha20_implementation *stream;
	const struct crypto_onetimeauth_poly1305_implementation *mac;
} chacha_ways[] = {
#ifdef WITH_X86
	{ "avx2", sodium_runtime_has_avx2, &crypto_stream_chacha20_dolbeau_avx2_implementation,
		&crypto_onetimeauth_poly1305_sse2_implementation },
	{ "ssse3", sodium_runtime_has_ssse3, &crypto_stream_chacha20_dolbeau_ssse3_implementation,
		&crypto_onetimeauth_poly1305_sse2_implementation },
#endif
	{ "plain", NULL, &CHACHA_PLAIN, &crypto_onetimeauth_poly1305_donna_implementation },
};

static const struct chacha_way *chacha_way(void)
{
	const struct chacha_way *w = chacha_ways;

	while (!allowed(w->name, w->has))
		w++;
	return w;
}

const char *ciphers_chacha_way(void)
{
	return chacha_way()->name;
}

static int chachapoly_start(int cipher, const unsigned char *iv, const unsigned char *key,
	int key_len, int rounds, void *state)
{
	(void)cipher;
	(void)iv;
	(void)rounds;
	if (key_len != (int)sizeof(struct chacha_keys))
		return CRYPT_ERROR;
	memcpy(state, key, sizeof(struct chacha_keys));
	return CRYPT_OK;
}

static int chachapoly_crypt(unsigned seq, const unsigned char *in, unsigned char *out,
	unsigned long len, unsigned long tag_len, void *state, int direction)
{
	const struct chacha_way *w = chacha_way();
	const struct chacha_keys *k = state;
	unsigned char nonce[8], key[KEY] = { 0 }, tag[TAG];

	if (len < 4 || tag_len != TAG)
		return CRYPT_ERROR;
	STORE64H((uint64_t)seq, nonce);
	w->stream->stream_xor_ic(key, key, KEY, nonce, 0, k->payload);
	if (direction == LTC_DECRYPT) {
		w->mac->onetimeauth(tag, in, len, key);
		if (constant_time_memcmp(in + len, tag, TAG) != 0)
			return CRYPT_ERROR;
	}
	w->stream->stream_xor_ic(out, in, 4, nonce, 0, k->length);
	w->stream->stream_xor_ic(out + 4, in + 4, len - 4, nonce, 1, k->payload);
	if (direction == LTC_ENCRYPT)
		w->mac->onetimeauth(out + len, out, len, key);
	return CRYPT_OK;
}

static int chachapoly_length(unsigned seq, const unsigned char *in, unsigned *out,
	unsigned long len, void *state)
{
	const struct chacha_keys *k = state;
	unsigned char nonce[8], plain[4];

	if (len < sizeof(plain))
		return CRYPT_ERROR;
	STORE64H((uint64_t)seq, nonce);
	chacha_way()->stream->stream_xor_ic(plain, in, sizeof(plain), nonce, 0, k->length);
	LOAD32H(*out, plain);
	return CRYPT_OK;
}

static const struct ltc_cipher_descriptor no_descriptor = { .name = NULL };
static const struct dropbear_hash chacha_mac = { NULL, 32, TAG };

const struct dropbear_cipher dropbear_chachapoly = { &no_descriptor, 2 * KEY, 8 };
const struct dropbear_cipher_mode dropbear_mode_chachapoly = {
	.start = chachapoly_start, .aead_crypt = chachapoly_crypt,
		.aead_getlength = chachapoly_length,
	.aead_mac = &chacha_mac,
};

/* --- AES-GCM -------------------------------------------------------------- */

struct gcm_way;

struct gcm_keys {
	const struct gcm_way *way;
	union {
		br_aes_gen_ctr_keys bearssl;
		unsigned char sodium[sizeof(crypto_aead_aes256gcm_state)];
	} key;
	unsigned char nonce[NONCE];
};

_Static_assert(sizeof(struct gcm_keys) <= sizeof(ses.keys->trans.cipher_state) &&
	sizeof(struct chacha_keys) <= sizeof(ses.keys->trans.cipher_state), "dropbear has room");

/* `crypt` works in place on a packet of `len` bytes at `p`: it does not encrypt the first
 * four, and the tag follows.  Returns false if the tag is wrong. */
struct gcm_way {
	const char *name;
	int (*has)(void);
	size_t key_len;		/* 0: any */
	void (*start)(struct gcm_keys *k, const unsigned char *key, size_t len);
	bool (*crypt)(struct gcm_keys *k, unsigned char *p, size_t len, bool encrypt);
};

static bool bearssl_crypt(struct gcm_keys *k, br_ghash ghash, unsigned char *p, size_t len,
	bool encrypt)
{
	br_gcm_context g;

	br_gcm_init(&g, &k->key.bearssl.vtable, ghash);
	br_gcm_reset(&g, k->nonce, NONCE);
	br_gcm_aad_inject(&g, p, 4);
	br_gcm_flip(&g);
	br_gcm_run(&g, encrypt, p + 4, len - 4);
	if (!encrypt)
		return br_gcm_check_tag(&g, p + len) == 1;
	br_gcm_get_tag(&g, p + len);
	return true;
}

/* Words of the CPU's size: 64-bit code is slow on a 32-bit CPU. */
#if UINTPTR_MAX > 0xffffffff
#define aes_plain_init br_aes_ct64_ctr_init
#define ghash_plain br_ghash_ctmul64
#else
#define aes_plain_init br_aes_ct_ctr_init
#define ghash_plain br_ghash_ctmul
#endif

static void plain_start(struct gcm_keys *k, const unsigned char *key, size_t len)
{
	aes_plain_init((void *)&k->key.bearssl, key, len);
}

static bool plain_crypt(struct gcm_keys *k, unsigned char *p, size_t len, bool encrypt)
{
	return bearssl_crypt(k, ghash_plain, p, len, encrypt);
}

#ifdef WITH_X86
static int has_aesni(void)
{
	return br_aes_x86ni_ctr_get_vtable() != NULL && br_ghash_pclmul_get() != 0;
}

static void aesni_start(struct gcm_keys *k, const unsigned char *key, size_t len)
{
	br_aes_x86ni_ctr_init((void *)&k->key.bearssl, key, len);
}

static bool aesni_crypt(struct gcm_keys *k, unsigned char *p, size_t len, bool encrypt)
{
	return bearssl_crypt(k, br_ghash_pclmul, p, len, encrypt);
}
#endif

#ifdef SODIUM_GCM
/* libsodium's state must be aligned; dropbear's copy is not. */
static crypto_aead_aes256gcm_state aligned;

static void sodium_start(struct gcm_keys *k, const unsigned char *key, size_t len)
{
	(void)len;
	crypto_aead_aes256gcm_beforenm(&aligned, key);
	memcpy(k->key.sodium, &aligned, sizeof(aligned));
}

static bool sodium_crypt(struct gcm_keys *k, unsigned char *p, size_t len, bool encrypt)
{
	memcpy(&aligned, k->key.sodium, sizeof(aligned));
	if (encrypt)
		return crypto_aead_aes256gcm_encrypt_detached_afternm(p + 4, p + len, NULL, p + 4,
			len - 4, p, 4, NULL, k->nonce, &aligned) == 0;
	return crypto_aead_aes256gcm_decrypt_detached_afternm(p + 4, NULL, p + 4, len - 4, p + len,
		p, 4, k->nonce, &aligned) == 0;
}
#endif

/* The best one first; the last one always works. */
static const struct gcm_way gcm_ways[] = {
#ifdef SODIUM_GCM
	{ SODIUM_GCM, crypto_aead_aes256gcm_is_available, 32, sodium_start, sodium_crypt },
#endif
#ifdef WITH_X86
	{ "aesni", has_aesni, 0, aesni_start, aesni_crypt },
#endif
	{ "plain", NULL, 0, plain_start, plain_crypt },
};

static const struct gcm_way *gcm_way(size_t key_len)
{
	const struct gcm_way *w = gcm_ways;

	while (!allowed(w->name, w->has) || (w->key_len != 0 && w->key_len != key_len))
		w++;
	return w;
}

const char *ciphers_gcm_way(size_t key_len)
{
	return gcm_way(key_len)->name;
}

static int gcm_start(int cipher, const unsigned char *iv, const unsigned char *key,
	int key_len, int rounds, void *state)
{
	struct gcm_keys *k = state;

	(void)cipher;
	(void)rounds;
	k->way = gcm_way((size_t)key_len);
	k->way->start(k, key, (size_t)key_len);
	memcpy(k->nonce, iv, NONCE);
	return CRYPT_OK;
}

static int gcm_crypt(unsigned seq, const unsigned char *in, unsigned char *out,
	unsigned long len, unsigned long tag_len, void *state, int direction)
{
	struct gcm_keys *k = state;
	bool encrypt = direction == LTC_ENCRYPT;
	int i;

	(void)seq;
	if (len < 4 || tag_len != TAG)
		return CRYPT_ERROR;
	if (in != out)
		memmove(out, in, len + (encrypt ? 0 : TAG));
	if (!k->way->crypt(k, out, len, encrypt))
		return CRYPT_ERROR;
	/* RFC 5647 7.1: the invocation counter, big endian */
	for (i = NONCE - 1; i >= 4 && ++k->nonce[i] == 0; i--)
		;
	return CRYPT_OK;
}

static int gcm_length(unsigned seq, const unsigned char *in, unsigned *out,
	unsigned long len, void *state)
{
	(void)seq;
	(void)state;
	if (len < 4)
		return CRYPT_ERROR;
	LOAD32H(*out, in);
	return CRYPT_OK;
}

void ciphers_forget(void)
{
#ifdef SODIUM_GCM
	explicit_bzero(&aligned, sizeof(aligned));
#endif
}

static const struct dropbear_hash gcm_mac = { NULL, 0, TAG };

const struct dropbear_cipher_mode mode_gcm = {
	.start = gcm_start, .aead_crypt = gcm_crypt, .aead_getlength = gcm_length,
	.aead_mac = &gcm_mac,
};
