/* transport.h - the seam between sshmux.c and whatever carries SSH packets.
 *
 * One SSH connection at a time, as a client.  The transport owns the socket,
 * the packet buffers, the key exchange, the check of the host key and the user's
 * authentication (RFC 4253, RFC 4252).  Its caller owns every message of type
 * 80..127 (RFC 4254) and the time.  port/dropbear/ implements this file with
 * dropbear's client code, tests/fake.c with a script.
 *
 * Rules for every function below:
 *  - It does not block, except to ask the user a question in a login with
 *    `interactive` and for the arithmetic of a key exchange.
 *  - It does not end the process.  An error ends only the connection: from then
 *    on tp_state() is TP_FAILED, tp_error() says why, and calls that need a
 *    connection do nothing.
 *  - Times are milliseconds of CLOCK_MONOTONIC; sizes are bytes.
 *  - The caller owns the strings it passes and keeps them as long as the
 *    transport; strings it gets are valid until the next tp_start().
 *  - Memory comes from a static arena that tp_stop() empties; nothing calls
 *    libc's allocator after tp_init().
 */
#ifndef SSHMUX_TRANSPORT_H
#define SSHMUX_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pollfd;

/* What a connection is doing.  TP_LOGIN covers identification, key exchange and
 * authentication; messages flow only in TP_UP. */
enum tp_state { TP_IDLE, TP_LOGIN, TP_UP, TP_FAILED };

/* Why a connection failed, in as much detail as the caller needs. */
enum tp_cause {
	TP_CAUSE_NONE,
	TP_CAUSE_LOST,		/* peer closed, I/O error, protocol error */
	TP_CAUSE_HOSTKEY,	/* unknown, changed, revoked or not the pinned one */
	TP_CAUSE_AUTH,		/* every method refused */
	TP_CAUSE_LIMIT,		/* the arena is full, or another limit is reached */
	TP_CAUSE_CANCELLED	/* cancel_fd became readable during a prompt */
};

/* StrictHostKeyChecking, ssh_config(5). */
enum tp_strict { TP_STRICT_ASK, TP_STRICT_YES, TP_STRICT_ACCEPT_NEW, TP_STRICT_NO };

enum tp_level { TP_ERROR, TP_INFO, TP_VERBOSE, TP_DEBUG };

/* The lists negotiated (RFC 4253 7.1), and the signatures of the user's keys. */
enum tp_algorithms { TP_KEX, TP_HOST_KEYS, TP_CIPHERS, TP_MACS, TP_USER_KEYS };

/* Everything that a login needs.  Lists are arrays of `n_…` strings.  Algorithm lists are
 * in ssh_config(5)'s form, NULL for the default (see tp_algorithms(); tp_init() refuses a
 * bad one). */
struct tp_config {
	const char *user;
	const char *host;		/* for messages: the name as the user typed it */
	const char *host_key_name;	/* the name in known_hosts: HostKeyAlias or HostName */
	bool host_key_alias;		/* host_key_name is an alias: never "[name]:port" */
	uint16_t port;
	const char *address;		/* what we are connected to, "address:port" or "" */
	const char *const *identity;	/* private key files, OpenSSH or dropbear format */
	size_t n_identity;
	bool identity_default;		/* the list is a default: a missing file is no error */
	bool identities_only;		/* use only those of the agent's keys in `identity` */
	const char *agent;		/* path of the agent's socket or NULL */
	const char *password;		/* from the environment, kept for every login, or NULL */
	const char *const *known_hosts;	/* files; new keys go to the first */
	size_t n_known_hosts;
	enum tp_strict strict;
	const char *const *pin;		/* "SHA256:…" fingerprints; if any, only these count */
	size_t n_pin;
	const char *revoked;		/* RevokedHostKeys: a file of public keys, or NULL */
	uint32_t rsa_bits;		/* RequiredRSASize: fewer make a key unacceptable */
	const char *ciphers, *macs, *kex, *host_key_algorithms, *user_key_algorithms;
	uint64_t rekey_bytes;		/* RekeyLimit; 0: the transport's own default */
	uint32_t rekey_seconds;		/* 0: no limit by time beyond the default */
	bool batch;			/* BatchMode: never ask anything */
	uint32_t prompts;	/* NumberOfPasswordPrompts: tries of each method that asks */
	/* methods (RFC 4252) not to try */
	bool no_pubkey, no_password, no_keyboard;
	int cancel_fd;			/* readable when the user wants to stop; -1 for none */
};

/* Facts of a connection, for logs and `-O conninfo`.  Names are never NULL ("" when not
 * known yet). */
struct tp_info {
	const char *peer_version;	/* "SSH-2.0-OpenSSH_9.2p1 Debian-2" */
	const char *kex, *host_key_algorithm, *cipher, *mac;
	const char *host_key_fingerprint;	/* "SHA256:…" */
	const char *auth_method;	/* "publickey", "password", … */
	uint64_t packets_in, packets_out, bytes_in, bytes_out;
	uint32_t key_exchanges;
	bool exchanging;		/* a key exchange is running: messages wait */
	uint32_t lacking;		/* bytes until a packet that has begun is whole, or 0 */
};

/* Most descriptors that tp_poll() asks for: the socket and the agent. */
#define TP_POLLFDS 2

/* Longest message that tp_send() takes, type byte included. */
extern const size_t tp_payload_max;

/* "dropbear 2026.94", for --version. */
extern const char tp_version[];

/* The SHA-1 of `len` bytes, for names of control sockets (%C). */
void tp_sha1(const uint8_t *p, size_t len, uint8_t hash[20]);

/* Resolves `spec`, a list in ssh_config(5)'s form: names and patterns, or changes to the
 * default after +, - or ^; NULL for the default, "*" for all there is.  Skips names that
 * only other versions of ssh have.  Writes names in order of preference, comma-separated,
 * to text[size].  Returns false with the reason in tp_error() if no name is left or one is
 * unknown everywhere.  Allowed before tp_init(). */
bool tp_algorithms(enum tp_algorithms kind, const char *spec, char *text, size_t size);

/* Checks `c` and prepares what every connection needs.  Called once, before the first
 * tp_start(); keeps `c`.  On error returns false with a one-line reason in tp_error(). */
bool tp_init(const struct tp_config *c);

/* Begins a login over `fd`, a connected non-blocking socket that the
 * transport owns until tp_stop().  `interactive` allows prompts at /dev/tty
 * or by SSH_ASKPASS (never when `batch` is set).  Precondition: TP_IDLE. */
void tp_start(int fd, bool interactive, int64_t now);

/* Ends a connection in any state: says goodbye if the peer still listens (one attempt,
 * never waits), closes the descriptor, empties the arena.  Then the state is TP_IDLE;
 * tp_error() and tp_cause() stay. */
void tp_stop(void);

/* tp_stop() without a word to the peer: for a child that goes on without the transport, so
 * that its memory holds no key. */
void tp_forget(void);

enum tp_state tp_state(void);
enum tp_cause tp_cause(void);
const char *tp_error(void);		/* one line, names the thing; "" if none */
const struct tp_info *tp_info(void);	/* never NULL, updated in place */

/* Fills `p` (TP_POLLFDS entries) with the descriptors to wait for, returns how many, and
 * lowers *timeout (ms, -1 for none) to the transport's next timer. */
size_t tp_poll(struct pollfd *p, int64_t now, int *timeout);

/* Moves bytes and runs timers after a poll(); `p` and `n` are from tp_poll(), with
 * revents.  Messages become available to tp_recv(). */
void tp_service(const struct pollfd *p, size_t n, int64_t now);

/* The next message of type 80..127, from its type byte on, or NULL if there is none yet.
 * The bytes stay valid until the next tp_recv() or tp_stop(); the caller may change them.
 * Reads from the socket as needed, a bounded amount in each call; a full output never
 * stops it. */
uint8_t *tp_recv(size_t *len);

/* Memory to build the next outgoing message in: tp_payload_max bytes, valid until
 * tp_send().  Precondition: TP_UP or TP_FAILED. */
uint8_t *tp_payload(void);

/* Queues the first `len` bytes of tp_payload() as one message.  Takes short messages even
 * when tp_room() is 0 (a reply must not be lost); they wait during a key exchange.  len in
 * 1..tp_payload_max. */
void tp_send(size_t len);

/* How many bytes of channel data the caller should still queue: 0 during a key exchange or
 * when enough is waiting.  This advice keeps the queue short, so that the caller chooses
 * late what goes next. */
size_t tp_room(void);

/* Sets how many bytes are enough: NET_QUEUE when a connection starts, FAST_QUEUE
 * at most. */
void tp_set_room(size_t bytes);

/* Writes as much of the queue as the socket takes now. */
void tp_flush(void);

/* Starts a key re-exchange now, unless one is running. */
void tp_rekey(void);

/* Provided by the caller: one line for people, without newline. */
void tp_log(enum tp_level level, const char *line);

/* Provided by the caller: makes foreign text safe to show.  Control characters and invalid
 * UTF-8 become \ooo, as in ssh; newlines stay if `lines`.  Writes what fits into to[size],
 * terminated, and returns how many bytes of `text` it has used: fewer than len when to[]
 * is full or the last character is incomplete. */
size_t tp_clean(const char *text, size_t len, bool lines, char *to, size_t size);

#endif
