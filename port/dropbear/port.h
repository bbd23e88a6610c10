/* port.h - what the files of port/dropbear share; no other file includes it.
 *
 * One connection at a time; its state is in `port` and in dropbear's own `ses`
 * and `cli_ses`.  The files: arena, glue, prompt, hostkey, algorithms, signature,
 * identity, agent, auth, session, transport.
 *
 * How errors travel: code below port_run() may call port_fail(), which does not
 * return; it records cause and reason and jumps back to the entry point.
 * Dropbear's fatal errors end there, too.  So nothing below port_run() may hold a
 * descriptor in a local variable across a call that can fail.  Memory is the
 * arena's and dies with the connection; a connection's descriptors are in `port`
 * and in agent.c.
 */
#ifndef SSHMUX_PORT_H
#define SSHMUX_PORT_H

#include "includes.h"
#include "buffer.h"
#include "signkey.h"
#include "../transport.h"
#include "../../config.h"

#define HASH_SIZE 32			/* SHA-256 */
#define FINGERPRINT_SIZE (7 + 43 + 1)	/* "SHA256:", base64 without "=", NUL */
#define PATH_SIZE 1024			/* longest path that we build */
#define PORT_ERROR BY_PROFILE(320, 720)	/* an offer of algorithms is long */
#define SECRET_SIZE 512			/* longest password or answer, with its NUL */

struct port {
	const struct tp_config *config;
	enum tp_state state;
	enum tp_cause cause;
	char error[PORT_ERROR];
	int fd;			/* the peer's, -1 when idle */
	bool interactive;	/* prompts are allowed in this login */
	bool passwords_barred;	/* the host key changed and StrictHostKeyChecking=no */
	int64_t now;		/* the caller's clock, ms */
	struct tp_info info;
};

extern struct port port;

/* glue.c */
void port_install(void);
void port_fail(enum tp_cause cause, const char *format, ...)
	__attribute__((noreturn, format(printf, 2, 3)));
void port_log(enum tp_level level, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
bool port_run(void (*step)(void));
bool port_try(void (*step)(void), char *reason, size_t size);
bool port_glob(const char *pattern, size_t len, const char *name);
void port_log_lines(enum tp_level level, const char *text, size_t len);
void port_hash(const unsigned char *data, size_t len, unsigned char out[HASH_SIZE]);
int port_open(const char *path, int flags);
sign_key *port_import_key(const char *text, size_t len);
bool port_take_string(buffer *b, unsigned char **p, size_t *n);
unsigned port_short_rsa(const unsigned char *data, size_t len);

/* arena.c */
void *arena_alloc(size_t n);
void arena_cut(void *p, size_t n);	/* n is no more than the block's size */
void arena_reset(void);
void arena_wipe(void);
size_t arena_peak(void);

/* prompt.c */
enum prompt_result { PROMPT_ANSWERED, PROMPT_NO_TERMINAL, PROMPT_ENDED, PROMPT_CANCELLED };
enum prompt_result prompt(const char *intro, const char *text, size_t len, bool echo,
	int cancel_fd, char *answer, size_t size);

/* hostkey.c */
void hostkey_begin(void);
void hostkey_check(const unsigned char *blob, size_t len);
void hostkey_remember(void);
void hostkey_logged_in(void);
void hostkey_known_types(char *list, size_t size);
const char *hostkey_fingerprint(void);

/* algorithms.c */
bool algorithms_init(const struct tp_config *c);
void algorithms_begin(const struct tp_config *c);
void algorithms_agreed(void);
bool algorithms_follow_files(void);
bool algorithms_offer_key(const char *type);
bool algorithms_host_key_is_sha512(void);
bool algorithms_allow_user_key(const char *name);
void algorithms_their_offer(const char *what, char *text, size_t size);
void algorithms_describe(struct tp_info *info);

/* signature.c */
void signature_from_host(void);
void signature_put(buffer *to, sign_key *key, const char *algorithm, buffer *data);

/* identity.c: a private key from a file.  On failure logs why and returns
 * NULL; on success `blob` holds the public part. */
sign_key *identity_load(const char *path, bool complain, buffer **blob);
bool identity_public_hash(const char *path, unsigned char hash[HASH_SIZE]);

/* agent.c: at most one request at a time; agent_service() gets the answer. */
enum agent_event { AGENT_NOTHING, AGENT_ANSWER, AGENT_FAILED };
void agent_begin(void);
void agent_end(void);
void agent_ask_keys(void);
void agent_ask_signature(const buffer *blob, const buffer *data, uint32_t flags);
size_t agent_poll(struct pollfd *p, int *timeout);
enum agent_event agent_service(short revents);
buffer *agent_answer(void);

/* auth.c */
void auth_begin(void);
void auth_agent_event(enum agent_event event);
void auth_rx_accept(void);
void auth_rx_failure(void);
void auth_rx_success(void);
void auth_rx_banner(void);
void auth_rx_60(void);

/* session.c */
void session_begin(void);
void session_readable(void);
void session_pump(void);
void session_goodbye(void);
void session_flush(void);
bool session_pending(void);
uint32_t session_lacking(void);
uint64_t session_sent(void);
uint8_t *session_message(size_t *len);
void session_end(void);

#endif
