/* localoptions.h - the parts of dropbear that sshmux is built from.
 *
 * Dropbear's options.h includes this before its defaults.  We switch off what is
 * sshmux's own job (forwarding, sessions, the agent, prompts) and what is too slow
 * or too weak to offer.  The router profile also drops algorithms that need more
 * than its arena to compute.  Any name may be set on the compiler's command line
 * instead.
 */
#ifndef SSHMUX_DROPBEAR_LOCALOPTIONS_H
#define SSHMUX_DROPBEAR_LOCALOPTIONS_H

#include "../../config.h"

/* Longest message sent; ses.writepayload is that long (RFC 4253 6.1 asks
 * every peer to take 32768). */
#define TRANS_MAX_PAYLOAD_LEN PAYLOAD_MAX
/* Longest message received: banners longer than 32 KB exist, and a small arena has no room
 * for them. */
#define RECV_MAX_PAYLOAD_LEN BY_PROFILE(32768, 66560)

/* We build only a client; the server's options just have to be consistent. */
#define DROPBEAR_SVR_PASSWORD_AUTH 0
#define DROPBEAR_SVR_PUBKEY_AUTH 1
#define DROPBEAR_SVR_LOCALTCPFWD 0
#define DROPBEAR_SVR_REMOTETCPFWD 0
#define DROPBEAR_SVR_LOCALSTREAMFWD 0
#define DROPBEAR_SVR_REMOTESTREAMFWD 0
#define DROPBEAR_SVR_AGENTFWD 0
#define DROPBEAR_CLI_LOCALTCPFWD 0
#define DROPBEAR_CLI_REMOTETCPFWD 0
#define DROPBEAR_CLI_AGENTFWD 0
#define DROPBEAR_CLI_PROXYCMD 0
#define DROPBEAR_CLI_NETCAT 0
#define DROPBEAR_CLI_IMMEDIATE_AUTH 0
#define DROPBEAR_USE_PASSWORD_ENV 0
#define DROPBEAR_X11FWD 0
#define DROPBEAR_SK_KEYS 0
#define DROPBEAR_USER_ALGO_LIST 0

/* No guessed key exchange packet: the order of algorithms depends on each host's keys, so
 * a guess is worth nothing. */
#define DROPBEAR_KEX_FIRST_FOLLOWS 0
#define DROPBEAR_KEXGUESS2 0

/* Fast tables rather than small ones: the cipher is 97 % of a transfer. */
#define DROPBEAR_SMALL_CODE 0

/* Not dropbear's GCM, which takes 1,355 instructions a byte on MIPS: see ciphers.c. */
#define DROPBEAR_ENABLE_GCM_MODE 0
#define DROPBEAR_ENABLE_CBC_MODE 0
#define DROPBEAR_CHACHA20POLY1305 1
#define DROPBEAR_AES128 1
#define DROPBEAR_AES256 1

#ifndef DROPBEAR_SHA2_512_HMAC
#define DROPBEAR_SHA2_512_HMAC 1
#endif
/* SHA-1 is still good for MACs; and for old servers, if the user asks for it. */
#define DROPBEAR_SHA1_HMAC 1
#define DROPBEAR_RSA_SHA1 1
#ifndef DROPBEAR_DH_GROUP14_SHA1
#define DROPBEAR_DH_GROUP14_SHA1 BY_PROFILE(0, 1)
#endif
#ifndef DROPBEAR_DH_GROUP1
#define DROPBEAR_DH_GROUP1 BY_PROFILE(0, 1)
#endif
#ifndef DROPBEAR_DH_GROUP14_SHA256
#define DROPBEAR_DH_GROUP14_SHA256 BY_PROFILE(0, 1)
#endif
#ifndef DROPBEAR_DH_GROUP16
#define DROPBEAR_DH_GROUP16 BY_PROFILE(0, 1)
#endif
/* One key exchange that resists quantum computers is enough for a router:
 * sntrup761 is a quarter of mlkem768's size. */
#ifndef DROPBEAR_MLKEM768
#define DROPBEAR_MLKEM768 BY_PROFILE(0, 1)
#endif
#ifndef DROPBEAR_ECC_384
#define DROPBEAR_ECC_384 BY_PROFILE(0, 1)
#endif
#ifndef DROPBEAR_ECC_521
#define DROPBEAR_ECC_521 BY_PROFILE(0, 1)
#endif

#endif
