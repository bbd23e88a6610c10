/* glue.c - connects dropbear to sshmux: its global variables, its fatal errors and
 * log, its file reading; and the small helpers of this port.
 *
 * A fatal error below port_run() is recorded in `port` and jumps back there;
 * only the first one of a connection counts.
 */
#include "port.h"
#include <stdarg.h>
#include "dbutil.h"
#include "dbrandom.h"
#include "session.h"
#include "runopts.h"
#include "keyimport.h"

#define LOG_LINE 512	/* longest line for tp_log(), with its NUL */

struct port port = { .fd = -1 };

/* Dropbear's globals; we do not compile their own files. */
struct sshsession ses;
struct clientsession cli_ses;
cli_runopts cli_opts;
runopts opts;

static jmp_buf escape;
static bool guarded;	/* `escape` is valid */
static bool trying;	/* below port_try(): an error does not concern the peer */

/* libtomcrypt's table of arithmetic needs a primality test.  A client that makes no such
 * keys never calls it; the real one is 5 KB. */
mp_err mp_prime_is_prime(const mp_int *a, int t, mp_bool *result)
{
	(void)a;
	(void)t;
	*result = MP_NO;
	return MP_ERR;
}

int mp_prime_rabin_miller_trials(int size)
{
	(void)size;
	return 0;
}

/* Powers and inverses modulo an even number, or by other ways than Montgomery's: no key
 * and no group needs them (RFC 8017 3.1, RFC 4419 6.1).  A peer that sends an even modulus
 * gets libtommath's own error for it. */
mp_err s_mp_exptmod(const mp_int *g, const mp_int *x, const mp_int *p, mp_int *y, int mode);
mp_err s_mp_exptmod(const mp_int *g, const mp_int *x, const mp_int *p, mp_int *y, int mode)
{
	(void)g;
	(void)x;
	(void)p;
	(void)y;
	(void)mode;
	return MP_VAL;
}

mp_err s_mp_invmod_slow(const mp_int *a, const mp_int *b, mp_int *c);
mp_err s_mp_invmod_slow(const mp_int *a, const mp_int *b, mp_int *c)
{
	(void)a;
	(void)b;
	(void)c;
	return MP_VAL;
}

mp_bool mp_reduce_is_2k_l(const mp_int *a)
{
	(void)a;
	return MP_NO;
}

/* --- text ----------------------------------------------------------------- */

static void log_v(enum tp_level level, const char *format, va_list args)
{
	char line[LOG_LINE];

	vsnprintf(line, sizeof(line), format, args);
	tp_log(level, line);
}

void port_log(enum tp_level level, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_v(level, format, args);
	va_end(args);
}

/* The length of the piece of `text` that fits in one line of the log: up to a newline,
 * LOG_LINE, or the last whole UTF-8 character before that. */
static size_t piece(const char *text, size_t len)
{
	size_t n = 0;

	while (n < len && n < LOG_LINE - 1 && text[n] != '\n')
		n++;
	if (n == LOG_LINE - 1 && n < len)
		while (n > LOG_LINE - 5 && ((unsigned char)text[n] & 0xc0) == 0x80)
			n--;
	return n;
}

/* Logs a server's text for the user line by line, long lines in pieces.  Leaves out empty
 * lines at the end. */
void port_log_lines(enum tp_level level, const char *text, size_t len)
{
	size_t i, n;

	while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r'))
		len--;
	for (i = 0; i < len; i += n + (i + n < len && text[i + n] == '\n')) {
		n = piece(text + i, len - i);
		port_log(level, "%.*s", (int)(n - (n > 0 && text[i + n - 1] == '\r')),
			text + i);
	}
}

/* Matches `*` and `?` as in ssh_config(5) PATTERNS; ignores case.  Needs no recursion:
 * only the last `*` can still grow. */
bool port_glob(const char *pattern, size_t len, const char *name)
{
	const char *end = pattern + len, *star = NULL, *resume = NULL;

	while (*name != '\0') {
		if (pattern < end && *pattern == '*') {
			star = pattern++;
			resume = name;
		} else if (pattern < end && (*pattern == '?' ||
		    tolower((unsigned char)*pattern) == tolower((unsigned char)*name))) {
			pattern++;
			name++;
		} else if (star != NULL) {
			pattern = star + 1;
			name = ++resume;
		} else {
			return false;
		}
	}
	while (pattern < end && *pattern == '*')
		pattern++;
	return pattern == end;
}

/* --- failure -------------------------------------------------------------- */

/* Runs `step` and catches port_fail() and dropbear's fatal errors.  Returns false if it
 * failed; the connection is then TP_FAILED.  Only transport.c and port_try() call it. */
bool port_run(void (*step)(void))
{
	if (setjmp(escape) != 0) {
		guarded = false;
		return false;
	}
	guarded = true;
	step();
	guarded = false;
	return true;
}

/* Runs `step` below port_run() so that its failure does not end the connection: `reason`
 * gets the text.  For parsing a user's files.  Memory that `step` has allocated stays
 * allocated until tp_stop(). */
bool port_try(void (*step)(void), char *reason, size_t size)
{
	jmp_buf outer;
	volatile enum tp_state state = port.state;
	volatile enum tp_cause cause = port.cause;
	bool done;

	memcpy(outer, escape, sizeof(outer));
	trying = true;
	done = port_run(step);
	trying = false;
	memcpy(escape, outer, sizeof(escape));
	guarded = true;
	if (!done) {
		snprintf(reason, size, "%s", port.error);
		port.error[0] = '\0';
		port.state = state;
		port.cause = cause;
	}
	return done;
}

static void leave(void) __attribute__((noreturn));
static void leave(void)
{
	if (!guarded)
		abort();	/* a broken invariant: nowhere to return to */
	port.state = TP_FAILED;
	longjmp(escape, 1);
}

void port_fail(enum tp_cause cause, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(port.error, sizeof(port.error), format, args);
	va_end(args);
	port.cause = cause;
	leave();
}

/* Dropbear's words for failed negotiations, and the words that ssh's users know. */
static const struct { const char *dropbear, *ours; } known_errors[] = {
	{ "No matching algo kex", "no matching key exchange method found" },
	{ "No matching algo hostkey", "no matching host key type found" },
	{ "No matching algo enc", "no matching cipher found" },
	{ "No matching algo mac", "no matching MAC found" },
	{ "Bad hostkey signature", "incorrect host key signature" },
	{ "Bad KEX packet", "bad host key or key exchange message from the server" },
	{ "Bad packet size", "packet of a bad size from the server (or its MAC is wrong)" },
	{ "Integrity error", "message damaged on its way from the server (its MAC is wrong)" },
	{ "Error decrypting", "message damaged on its way from the server (its MAC is wrong)" },
	{ "Bad curve25519", "the server's part of the key exchange is no valid key" },
	{ "Bad sntrup", "the server's part of the key exchange is no valid key" },
	{ "Bad buf_", "a message of the server ends too early, or says wrong lengths" },
	{ "Bad ", "malformed message from the server" },
};

/* dropbear_exit(), dropbear_close() and fail_assert() end here. */
static void fatal(int exitcode, const char *format, va_list args)
	__attribute__((noreturn));
static void fatal(int exitcode, const char *format, va_list args)
{
	char text[200];
	const char *reason = text;
	char offer[sizeof(port.error)] = "";
	size_t i;

	(void)exitcode;
	vsnprintf(text, sizeof(text), format, args);
	if (strncmp(text, "No matching algo ", 17) == 0)
		algorithms_their_offer(text + 17, offer, sizeof(offer));
	for (i = 0; i < ARRAY_SIZE(known_errors) && reason == text; i++)
		if (strncmp(text, known_errors[i].dropbear,
		    strlen(known_errors[i].dropbear)) == 0)
			reason = known_errors[i].ours;
	if (trying)
		port_fail(TP_CAUSE_LOST, "%s", reason);
	port_fail(TP_CAUSE_LOST, "%s: %s%s", port.config->host, reason, offer);
}

/* Dropbear's messages are details to sshmux's users. */
static void note(int priority, const char *format, va_list args)
{
	/* Dropbear says this for every connection, because hostkey.c does the check. */
	if (strncmp(format, "Caution, skipping hostkey check", 31) != 0)
		log_v(priority <= LOG_ERR ? TP_INFO : TP_VERBOSE, format, args);
}

/* Takes what a library would print; see guard.h. */
void port_complain(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_v(TP_VERBOSE, format, args);
	va_end(args);
}

/* libtomcrypt's own assertions. */
void crypt_argchk(const char *v, const char *s, int d)
{
	(void)s;
	port_fail(TP_CAUSE_LOST, "%s: invalid argument in the cipher library (%s, %d)",
		port.config->host, v, d);
}

/* Replaces genrandom() in packet.c, which needs a few bytes to pad each packet.  Each call
 * of genrandom() hashes at least one block, so we make 32 bytes at a time. */
void port_padding(unsigned char *p, unsigned len)
{
	static unsigned char made[HASH_SIZE];
	static unsigned left;

	for (; len > 0; len--) {
		if (left == 0)
			genrandom(made, left = sizeof(made));
		*p++ = made[--left];
	}
}

/* Points dropbear's hooks here.  tp_init() calls it first. */
void port_install(void)
{
	_dropbear_exit = fatal;
	_dropbear_log = note;
}

/* --- files ---------------------------------------------------------------- */

/* Opens a regular file for reading or appending and never waits for it (a FIFO of that
 * name could make us wait).  Returns -1 with errno; EINVAL if it is not a regular file
 * (EISDIR for a directory). */
int port_open(const char *path, int flags)
{
	struct stat st;
	int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);

	if (fd >= 0 && (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))) {
		close(fd);
		errno = S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
		return -1;
	}
	return fd;
}

/* The key that keyimport.c reads as a file. */
static const char *import_text;
static size_t import_left;

FILE *port_fopen(const char *name)
{
	static char key_file;	/* its address represents the open file */

	(void)name;
	return import_text != NULL ? (FILE *)(void *)&key_file : NULL;
}

/* fgets() on the key in memory. */
char *port_fgets(char *line, int size)
{
	int n = 0;

	while (n < size - 1 && import_left > 0) {
		line[n++] = *import_text++;
		import_left--;
		if (line[n - 1] == '\n')
			break;
	}
	line[n] = '\0';
	return n > 0 ? line : NULL;
}

/* Parses an unencrypted private key in one of OpenSSH's text formats.  Returns NULL if it
 * is damaged or of a type that we do not have (keyimport.c logs that). */
sign_key *port_import_key(const char *text, size_t len)
{
	sign_key *key;

	import_text = text;
	import_left = len;
	key = import_read("", NULL, KEYFILE_OPENSSH);
	import_text = NULL;
	return key;
}

/* Takes an SSH string (RFC 4251 5) from `b`.  Unlike dropbear's buf_get*, it does not end
 * the connection for bad data of an agent or a file. */
bool port_take_string(buffer *b, unsigned char **p, size_t *n)
{
	uint32_t len;

	if (b->len - b->pos < 4)
		return false;
	len = buf_getint(b);
	if (len > b->len - b->pos)
		return false;
	*p = b->data + b->pos;
	*n = len;
	buf_incrpos(b, len);
	return true;
}

/* The bits of an RSA key, or of the key of a certificate (RFC 4253, 6.6), if these are fewer
 * than RequiredRSASize; 0 for every other blob. */
unsigned port_short_rsa(const unsigned char *data, size_t len)
{
	buffer b = { .data = (unsigned char *)data, .len = (unsigned)len, .size = (unsigned)len };
	unsigned char *p;
	size_t n;
	unsigned bits;

	if (!port_take_string(&b, &p, &n) || n < 7 || memcmp(p, "ssh-rsa", 7) != 0 ||
	    (n > 7 && !port_take_string(&b, &p, &n)) ||		/* a certificate's nonce */
	    !port_take_string(&b, &p, &n) || !port_take_string(&b, &p, &n))
		return 0;
	for (; n > 0 && *p == 0; n--)
		p++;
	bits = n > 0 ? (unsigned)n * 8 - (unsigned)__builtin_clz(*p) + 24 : 1;
	return bits < port.config->rsa_bits ? bits : 0;
}

/* --- SHA-256 -------------------------------------------------------------- */

void port_hash(const unsigned char *data, size_t len, unsigned char out[HASH_SIZE])
{
	hash_state h;

	sha256_init(&h);
	sha256_process(&h, data, len);
	sha256_done(&h, out);
}
