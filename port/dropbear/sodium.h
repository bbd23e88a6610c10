/* sodium.h - included before every file of libsodium: the results of its
 * configure, taken from the compiler's own macros.
 *
 * Only 64-bit x86 and ARM get code for their vector and AES instructions, chosen
 * at run time; the router profile leaves that code out.
 */
#ifndef SSHMUX_DROPBEAR_SODIUM_H
#define SSHMUX_DROPBEAR_SODIUM_H

#define CONFIGURED 1
#define SODIUM_STATIC 1
#define HAVE_SYS_AUXV_H 1
#define HAVE_GETAUXVAL 1

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define NATIVE_LITTLE_ENDIAN 1
#else
#define NATIVE_BIG_ENDIAN 1
#endif
#ifdef __SIZEOF_INT128__
#define HAVE_TI_MODE 1
#endif

#if defined(__x86_64__) && !defined(CIPHERS_SMALL)
#define HAVE_CPUID 1
#define HAVE_AVX_ASM 1
#define HAVE_EMMINTRIN_H 1
#define HAVE_PMMINTRIN_H 1
#define HAVE_TMMINTRIN_H 1
#define HAVE_SMMINTRIN_H 1
#define HAVE_AVXINTRIN_H 1
#define HAVE_AVX2INTRIN_H 1
#define HAVE_WMMINTRIN_H 1
#endif
#if defined(__aarch64__) && !defined(CIPHERS_SMALL)
#define HAVE_ARMCRYPTO 1
#endif

#endif
