/* config.h - the results of dropbear's configure, written by hand.
 *
 * Every Linux libc of the last ten years (glibc, musl) has all of this, on
 * every CPU and in either byte order, so we probe nothing and a cross build
 * needs no configure run.  We leave out what only dropbear's server or programs
 * use (utmp, PAM, shadow, pty): we do not compile their code.
 */
#ifndef SSHMUX_DROPBEAR_CONFIG_H
#define SSHMUX_DROPBEAR_CONFIG_H

#define BUNDLED_LIBTOM 1	/* the libtomcrypt and libtommath beside src/ */
#define DISABLE_ZLIB 1		/* no compression: costs memory, and rsync and gzip gain nothing */
#define DISABLE_SYSLOG 1	/* messages go to tp_log() */
#define DISABLE_PAM 1
#define DISABLE_LASTLOG 1
#define DISABLE_UTMP 1
#define DISABLE_UTMPX 1
#define DISABLE_WTMP 1
#define DISABLE_WTMPX 1
#define DROPBEAR_FUZZ 0
#define DROPBEAR_PLUGIN 0

/* Hashed known_hosts lines are HMAC-SHA1; dropbear itself no longer needs it. */
#define LTC_SHA1

/* Its AES runs in counter mode alone, which only ever encrypts: no tables, keys and rounds
 * for the other way. */
#define ENCRYPT_ONLY
#define aes_desc aes_enc_desc

#define STDC_HEADERS 1
#define HAVE_BASENAME 1
#define HAVE_CLEARENV 1
#define HAVE_CLOCK_GETTIME 1
#define HAVE_DAEMON 1
#define HAVE_DECL_HTOLE64 1
#define HAVE_ENDIAN_H 1
#define HAVE_FORK 1
#define HAVE_FREEADDRINFO 1
#define HAVE_GAI_STRERROR 1
#define HAVE_CONST_GAI_STRERROR_PROTO 1
#define HAVE_GETADDRINFO 1
#define HAVE_GETNAMEINFO 1
#define HAVE_GETGROUPLIST 1
#define HAVE_GETPASS 1
#define HAVE_GETRANDOM 1
#define HAVE_GETUSERSHELL 1
#define HAVE_HTOLE64 1
#define HAVE_INTTYPES_H 1
#define HAVE_LIBGEN_H 1
#define HAVE_NETDB_H 1
#define HAVE_NETINET_IN_H 1
#define HAVE_NETINET_IN_SYSTM_H 1
#define HAVE_NETINET_TCP_H 1
#define HAVE_PATHS_H 1
#define HAVE_PUTENV 1
#define HAVE_SETRESGID 1
#define HAVE_STATIC_ASSERT 1
#define HAVE_UNDERSCORE_STATIC_ASSERT 1
#define HAVE_STDINT_H 1
#define HAVE_STDIO_H 1
#define HAVE_STDLIB_H 1
#define HAVE_STRINGS_H 1
#define HAVE_STRING_H 1
#define HAVE_STRUCT_ADDRINFO 1
#define HAVE_STRUCT_IN6_ADDR 1
#define HAVE_STRUCT_SOCKADDR_IN6 1
#define HAVE_STRUCT_SOCKADDR_STORAGE 1
#define HAVE_STRUCT_SOCKADDR_STORAGE_SS_FAMILY 1
#define HAVE_SYS_PRCTL_H 1
#define HAVE_SYS_RANDOM_H 1
#define HAVE_SYS_SELECT_H 1
#define HAVE_SYS_SOCKET_H 1
#define HAVE_SYS_STAT_H 1
#define HAVE_SYS_TYPES_H 1
#define HAVE_SYS_UIO_H 1
#define HAVE_SYS_WAIT_H 1
#define HAVE_UINT8_T 1
#define HAVE_UINT16_T 1
#define HAVE_UINT32_T 1
#define HAVE_U_INT8_T 1
#define HAVE_U_INT16_T 1
#define HAVE_U_INT32_T 1
#define HAVE_UNISTD_H 1
#define HAVE_WRITEV 1

#endif
