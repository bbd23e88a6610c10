/* ciphers.h - the ciphers of ciphers.c: chacha20-poly1305 replaces dropbear's,
 * GCM is for algorithms.c.
 *
 * Each has several ways; when keys are set, it takes the best one that the CPU has.
 * Those of chacha20-poly1305 are avx2, ssse3 and plain; those of GCM are aesni-avx
 * and armv8 (256 bits), aesni, and plain.
 */
#ifndef SSHMUX_DROPBEAR_CIPHERS_H
#define SSHMUX_DROPBEAR_CIPHERS_H

#ifdef CIPHERS

extern const struct dropbear_cipher_mode mode_gcm;

/* Wipes copies of keys. */
void ciphers_forget(void);

/* For tests: the only ways allowed besides plain, as names separated by commas; NULL
 * allows all. */
extern const char *ciphers_only;

/* The way that keys of that many bytes take. */
const char *ciphers_chacha_way(void);
const char *ciphers_gcm_way(size_t key_len);

#endif
#endif
