/* ciphers.h - what ciphers.c offers: chacha20-poly1305 takes the place of
 * dropbear's, GCM is there for algorithms.c.
 *
 * Each has several ways, the best one that the CPU can go is taken when keys are
 * set.  The names of chacha20-poly1305's are avx2, ssse3 and plain; those of GCM
 * aesni, armv8 and plain.
 */
#ifndef SSHMUX_DROPBEAR_CIPHERS_H
#define SSHMUX_DROPBEAR_CIPHERS_H

#ifdef CIPHERS

extern const struct dropbear_cipher_mode mode_gcm;

/* For tests: names with commas between them, the only ways there are besides plain;
 * NULL allows all. */
extern const char *ciphers_only;

/* The way that keys of that many bytes would take. */
const char *ciphers_chacha_way(void);
const char *ciphers_gcm_way(size_t key_len);

#endif
#endif
