/* logins.c - logins on port/dropbear with a scripted server and agent: what the client
 * asks of both, message by message, after a key exchange that is taken for done.
 *
 *	logins			without a terminal
 *	logins ask FILE		with one: tests/pty is its user, who looks away until FILE exists
 */
#include "fuzz_transport.c"
#include <stdarg.h>
#include <time.h>

#define REQUEST SSH_MSG_USERAUTH_REQUEST
#define FAILURE SSH_MSG_USERAUTH_FAILURE
#define SUCCESS SSH_MSG_USERAUTH_SUCCESS

/* An agent's numbers, draft-ietf-sshm-ssh-agent */
enum { REFUSES = 5, ASKS_KEYS = 11, KEYS = 12, ASKS_SIGNATURE = 13, SIGNATURE = 14 };

#define BLOB_SIZE 51
static const char ed25519[] = "\0\0\0\013ssh-ed25519\0\0\0\040abcdefghijklmnopqrstuvwxyz012345";
static const char other[] = "\0\0\0\013ssh-ed25519\0\0\0\040ABCDEFGHIJKLMNOPQRSTUVWXYZ012345";

static const char *about;	/* the login under test, for the names of points */
static int points, failures;
static int64_t now;
static int listener = -1, agent = -1;

struct bytes {
	size_t n;
	uint8_t byte[36000];
};
static struct bytes got;	/* what take() or asked_agent() has taken, from its type on */

static void check(bool ok, const char *name)
{
	printf("%s %d - %s: %s\n", ok ? "ok" : "not ok", ++points, about, name);
	if (!ok)
		printf("# error \"%s\", said:\n%s", tp_error(), ground.said);
	failures += !ok;
}

/* --- what the server and the agent say ---------------------------------------------- */

static void add(struct bytes *b, const void *p, size_t n)
{
	if (b->n + n > sizeof b->byte)
		abort();
	memcpy(b->byte + b->n, p, n);
	b->n += n;
}

static void add_u32(struct bytes *b, size_t v)
{
	uint8_t p[4] = { (uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v };
	add(b, p, 4);
}

/* b: a byte; u: 32 bits; s: a string; n: a length and that many bytes, as a string;
 * x: as they are */
static void build(struct bytes *b, const char *form, va_list args)
{
	for (b->n = 0; *form; form++) {
		uint8_t byte;
		const char *s;
		size_t n;
		switch (*form) {
		case 'b':
			byte = (uint8_t)va_arg(args, int);
			add(b, &byte, 1);
			break;
		case 'u':
			add_u32(b, va_arg(args, unsigned));
			break;
		case 's':
			s = va_arg(args, const char *);
			add_u32(b, strlen(s));
			add(b, s, strlen(s));
			break;
		default:
			n = va_arg(args, size_t);
			if (*form == 'n')
				add_u32(b, n);
			add(b, va_arg(args, const void *), n);
		}
	}
}

/* One turn as lp_ makes it; whether there is more to do. */
static bool turn(void)
{
	struct pollfd p[TP_POLLFDS];
	int timeout = -1;
	size_t len, n = tp_poll(p, now, &timeout);
	int ready = poll(p, n, 0);
	tp_service(p, n, now);
	while (tp_recv(&len))
		;
	return ready > 0 || timeout == 0;
}

static void serve(void)
{
	for (int turns = 100; turns && turn() && tp_state() != TP_FAILED; turns--)
		if (agent < 0 && listener >= 0)
			agent = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

static void says(uint8_t type, const char *form, ...)
{
	static struct bytes b;
	va_list args;
	va_start(args, form);
	build(&b, form, args);
	va_end(args);
	ground_packet(type, b.byte, b.n);
	serve();
}

/* The agent's answer; `cut` bytes at its end do not come. */
static void agent_gives(size_t cut, const char *form, ...)
{
	static struct bytes b, whole;
	va_list args;
	va_start(args, form);
	build(&b, form, args);
	va_end(args);
	whole.n = 0;
	add_u32(&whole, b.n);
	add(&whole, b.byte, b.n);
	(void)!send(agent, whole.byte, whole.n - cut, MSG_NOSIGNAL);
	serve();
}

static void agent_leaves(void)
{
	close(agent);
	agent = -1;
}

/* --- what they are asked ------------------------------------------------------------- */

static bool receive(int fd, size_t n)
{
	got.n = n;
	return n <= sizeof got.byte && recv(fd, got.byte, n, MSG_DONTWAIT) == (ssize_t)n;
}

static size_t u32(const uint8_t *p)
{
	return (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
}

/* The next message that the client has sent; false if there is none. */
static bool take(void)
{
	if (!receive(ground.server, 5))
		return false;
	size_t len = u32(got.byte), padding = got.byte[4];
	if (!receive(ground.server, len - 1))
		return false;
	got.n -= padding;
	return true;
}

static bool contains(const void *p, size_t n)
{
	return memmem(got.byte, got.n, p, n) != NULL;
}

/* The client's next message is a request by this method, with these words. */
static bool requests(const char *method, const char *words)
{
	return take() && got.byte[0] == REQUEST && contains(method, strlen(method)) &&
		contains(words, strlen(words));
}

static bool requests_key(const char *blob, size_t n)
{
	return requests("publickey", "") && contains(blob, n);
}

/* The agent has been asked that. */
static bool asked_agent(uint8_t type)
{
	return agent >= 0 && receive(agent, 4) && receive(agent, u32(got.byte)) &&
		got.byte[0] == type;
}

static bool said(const char *text)
{
	return strstr(ground.said, text) != NULL;
}

/* The login has ended for this reason; so tp_stop() leaves it. */
static bool because(enum tp_cause cause, const char *text)
{
	return tp_cause() == cause && strstr(tp_error(), text) != NULL;
}

static bool failed(enum tp_cause cause, const char *text)
{
	return tp_state() == TP_FAILED && because(cause, text);
}

/* --- a login -------------------------------------------------------------------------- */

#define ALL "publickey,password,keyboard-interactive"

static void end(void)
{
	if (agent >= 0)
		agent_leaves();
	if (!ground_close())
		check(false, "a descriptor is left");
	if (listener >= 0)
		close(listener);
	listener = -1;
}

/* Begins a login: the user has the password "secret" and what the agent has. */
static void begin(const char *name)
{
	static const char ident[] = "SSH-2.0-server\r\n";
	static char sink[8192];
	about = name;
	ground.said[0] = '\0';
	now = 1000;
	ground_connect();
	(void)!send(ground.server, ident, sizeof ident - 1, MSG_NOSIGNAL);
	turn();
	while (recv(ground.server, sink, sizeof sink, MSG_DONTWAIT) > 0)
		;
	ground_exchanged();
	serve();
	if (!take() || got.byte[0] != SSH_MSG_SERVICE_REQUEST)
		check(false, "asks for the service");
	says(SSH_MSG_SERVICE_ACCEPT, "s", "ssh-userauth");
	if (!requests("none", "user"))
		check(false, "asks for the methods");
}

static void begin_with_agent(const char *name)
{
	listener = ground_listen();
	begin(name);
	says(FAILURE, "sb", ALL, 0);
	serve();
	if (!asked_agent(ASKS_KEYS))
		check(false, "the agent is asked for its keys");
}

/* The agent has both keys; the server wants the first one signed. */
static void begin_signing(const char *name)
{
	begin_with_agent(name);
	agent_gives(0, "bunsns", KEYS, 2, (size_t)BLOB_SIZE, ed25519, "one", (size_t)BLOB_SIZE,
		other, "two");
	if (!requests_key(ed25519, BLOB_SIZE))
		check(false, "offers the agent's first key");
	says(60, "sn", "ssh-ed25519", (size_t)BLOB_SIZE, ed25519);
}

#define PASSWORD_NEXT "and the password is next"

/* --- what is not of a login ------------------------------------------------------------- */

/* With one field of the configuration wrong, nothing begins. */
static void preparation(void)
{
	static char name[300];
	static const char *const pins[] = { "SHA256:short" };
	struct tp_config c = ground.config;
	about = "preparation";
	memset(name, 'n', sizeof name - 1);
	c.user = name;
	check(!tp_init(&c) && strstr(tp_error(), "too long"), "a name that is too long");
	c = ground.config;
	c.pin = pins;
	c.n_pin = 1;
	check(!tp_init(&c) && strstr(tp_error(), "fingerprint: SHA256:short"),
		"a pin that is none");
	c = ground.config;
	c.ciphers = "nonsense";
	check(!tp_init(&c) && strstr(tp_error(), "unknown cipher nonsense"), "an unknown cipher");
	check(tp_init(&ground.config), "and without all that it is good");
}

static void lists_of_algorithms(void)
{
	static const char *const bad[] = { "nonsense", "+nonsense", "^nonsense", "+aes256-ctr,x" };
	char text[500];
	about = "lists of algorithms";
	for (size_t i = 0; i < 4; i++)
		check(!tp_algorithms(TP_CIPHERS, bad[i], text, sizeof text) &&
			strstr(tp_error(), "unknown cipher "), bad[i]);
	check(!tp_algorithms(TP_CIPHERS, NULL, text, 30) && strstr(tp_error(), "too many names"),
		"one that is too long");
	check(!tp_algorithms(TP_CIPHERS, "-*", text, sizeof text) &&
		strstr(tp_error(), "no cipher of this list"), "one without a name");
}

/* What asks for memory; a connection that gets none ends. */
static void *held;
static void hold(void)
{
	held = m_malloc(64);
	memcpy(held, "kept", 5);
}
static void want_all(void) { m_malloc(ARENA_SIZE); }
static void want_nothing(void) { m_malloc(0); }
static void want_most(void) { m_malloc(ARENA_SIZE - 1000); }
static void want_product(void) { m_calloc(ARENA_SIZE, ARENA_SIZE); }
static void want_longer(void) { m_realloc(held, ARENA_SIZE); }
static void want_some(void) { held = m_realloc(NULL, 5); }
#ifndef __SANITIZE_ADDRESS__
static void free_twice(void) { m_free_direct(held); m_free_direct(held); }
static void free_foreign(void) { m_free_direct(ground.said); }
#endif

static void memory(void)
{
	static const struct {
		void (*step)(void);
		const char *name, *error;
	} steps[] = {
		{ want_all, "all of it", "out of transport memory" },
		{ want_nothing, "none of it", "out of transport memory" },
		{ want_most, "more than is left", "out of transport memory" },
		{ want_product, "a product that overflows", "out of transport memory" },
		{ want_longer, "a longer block", "out of transport memory" },
#ifndef __SANITIZE_ADDRESS__
		{ free_twice, "freed twice", "transport memory is damaged" },
		{ free_foreign, "freed that is not ours", "transport memory is damaged" },
#endif
	};
	about = "memory";
	for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
		ground_connect();
		port_run(hold);
		port_run(steps[i].step);
		check(failed(TP_CAUSE_LIMIT, steps[i].error), steps[i].name);
		end();
	}
	ground_connect();
	check(port_run(want_some) && held, "the next connection has some");
	end();
}

static void not_connected(void)
{
	struct pollfd p[TP_POLLFDS];
	int timeout = -1;
	about = "not connected";
	tp_stop();
	tp_forget();
	tp_service(p, 0, now);
	tp_send(1);
	check(tp_state() == TP_IDLE && tp_poll(p, now, &timeout) == 0 && timeout == -1,
		"nothing happens");
}

/* --- the server's host key ---------------------------------------------------------------- */

static const char *host_blob;
static size_t host_len;
static void host_step(void)
{
	hostkey_check((const unsigned char *)host_blob, host_len);
	hostkey_remember();
}

/* Whether this login takes the key. */
static bool takes_host(const char *blob, size_t n)
{
	host_blob = blob;
	host_len = n;
	return port_run(host_step);
}

static void begin_host(const char *name, const char *file)
{
	static const char *files[1];
	about = name;
	ground.said[0] = '\0';
	files[0] = file;
	ground.config.known_hosts = files;
	ground_connect();
}

static void refused_hosts(void)
{
	static char zeros[2300];
	static const struct {
		const char *blob;
		size_t n;
		enum tp_cause cause;
		const char *error;
	} refused[] = {
		{ "abc", 3, TP_CAUSE_LOST, "bad host key" },
		{ zeros, sizeof zeros, TP_CAUSE_LOST, "bad host key" },
		{ "\1\0\0\4abcd", 8, TP_CAUSE_LOST, "bad host key" },
		{ "\0\0\0\100abcd", 8, TP_CAUSE_LOST, "bad host key" },
		{ "\0\0\0\7ssh-rsa", 11, TP_CAUSE_HOSTKEY,
			"no RSA host key is known for server.example" },
		{ "\0\0\0\7ecdsa-x", 11, TP_CAUSE_HOSTKEY, "no ECDSA host key" },
		{ "\0\0\0\7unheard", 11, TP_CAUSE_HOSTKEY, "no unheard host key" },
	};
	ground.config.strict = TP_STRICT_YES;
	for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
		begin_host("a host key", "none");
		check(!takes_host(refused[i].blob, refused[i].n) &&
			failed(refused[i].cause, refused[i].error), refused[i].error);
		end();
	}
}

/* Before any login has succeeded: the key of the first one counts from then on. */
static void host_keys(void)
{
	refused_hosts();
	ground.config.strict = TP_STRICT_ACCEPT_NEW;
	begin_host("a new host", "new/hosts");
	check(takes_host(ed25519, BLOB_SIZE) && said("2 Created new\n") &&
		said("1 Warning: Permanently added 'server.example' (ED25519)"), "is remembered");
	check(takes_host(ed25519, BLOB_SIZE), "shows its key again");
	check(!takes_host(other, BLOB_SIZE) &&
		failed(TP_CAUSE_HOSTKEY, "host key changed during the connection"),
		"but no other one");
	end();
	begin_host("a known host", "new/hosts");
	check(takes_host(ed25519, BLOB_SIZE) && !said("added"), "is taken");
	end();
	unlink("new/hosts");
	begin_host("files that are a directory", "new");
	check(takes_host(ed25519, BLOB_SIZE) && said("1 new: Is a directory"), "are named");
	check(said("1 Failed to add the host key of server.example to new: Is a directory"),
		"twice");
	end();
	rmdir("new");
	unlink("key");
	mkfifo("key", 0600);
	begin_host("files that are a FIFO", "key");
	check(takes_host(ed25519, BLOB_SIZE) && said("1 key: Invalid argument"),
		"are not waited for");
	end();
	unlink("key");
	begin_host("no files", "none");
	check(takes_host(ed25519, BLOB_SIZE) && !said("added") && access("none", F_OK) != 0,
		"nothing is remembered");
	hostkey_logged_in();
	end();
	ground.config.strict = TP_STRICT_NO;
	begin_host("a later login", "none");
	check(!takes_host(other, BLOB_SIZE) &&
		failed(TP_CAUSE_HOSTKEY, "is not the one of the first login"), "of another server");
	end();
	begin_host("a later login", "hosts");
	check(takes_host(ed25519, BLOB_SIZE), "of the same server");
	end();
}

/* --- before the login ---------------------------------------------------------------------- */

static void begin_ident(const char *name)
{
	about = name;
	ground.said[0] = '\0';
	now = 1000;
	ground_connect();
}

static void hang_up(void)
{
	static char sink[8192];
	while (recv(ground.server, sink, sizeof sink, MSG_DONTWAIT) > 0)
		;
	shutdown(ground.server, SHUT_RDWR);
}

static void before_login(void)
{
	static char lines[17000];
	begin_ident("a server that hangs up");
	hang_up();
	serve();
	check(failed(TP_CAUSE_LOST, "Connection closed by server.example port 22"), "is lost");
	end();
	begin_ident("a server that breaks down");
	close(ground.server);
	ground.server = open("/dev/null", O_RDWR | O_CLOEXEC);
	serve();
	check(failed(TP_CAUSE_LOST, "server.example: Connection reset by peer"), "is lost");
	end();
	begin_ident("a server that talks first");
	memset(lines, '\n', sizeof lines);
	(void)!send(ground.server, lines, sizeof lines, MSG_NOSIGNAL);
	serve();
	check(failed(TP_CAUSE_LOST, "no SSH identification in 16384 bytes"), "but too much");
	end();
}

/* --- after it ------------------------------------------------------------------------------- */

static void begin_up(const char *name)
{
	begin(name);
	says(SUCCESS, "");
	if (tp_state() != TP_UP)
		check(false, "logs in");
}

static void after_login(void)
{
	struct pollfd p[TP_POLLFDS];
	int timeout = -1;
	begin_up("a server that hangs up later");
	hang_up();
	serve();
	check(failed(TP_CAUSE_LOST, "Connection to server.example closed by remote host."),
		"is lost");
	check(tp_poll(p, now, &timeout) == 0 && timeout == 0, "at once");
	tp_service(p, 0, now);
	tp_send(1);
	end();
	begin_up("a long time");
	now += 9 * 3600 * 1000;
	timeout = -1;
	check(tp_poll(p, now, &timeout) == 1 && timeout == 0, "is a reason to act");
	turn();
	check(take() && got.byte[0] == SSH_MSG_KEXINIT, "keys are changed");
	tp_forget();
	check(tp_state() == TP_IDLE && !take(), "forgotten without a word");
	end();
	begin_up("more messages than one turn takes");
	for (int i = 0; i < 70; i++)
		ground_packet(SSH_MSG_IGNORE, (const uint8_t *)"\0\0\0\0", 4);
	uint64_t before = tp_info()->packets_in;
	check(turn() && tp_info()->packets_in < before + 70, "leave some for the next");
	serve();
	check(tp_info()->packets_in == before + 70, "which takes them");
	tp_stop();
	check(take() && got.byte[0] == SSH_MSG_DISCONNECT, "and then says goodbye");
	end();
}

/* --- keys in files ------------------------------------------------------------------------- */

static void offers_none(const char *name, const char *text)
{
	begin(name);
	says(FAILURE, "sb", ALL, 0);
	check(said(text), text);
	check(requests("password", "secret"), PASSWORD_NEXT);
	end();
}

static void key_is(const char *text, mode_t mode)
{
	unlink("key");
	ground_file("key", (const uint8_t *)text, strlen(text));
	chmod("key", mode);
}

/* A key of dropbear's format from the corpus, and its public part, which only it has. */
static void key_of_dropbear(void)
{
	static char key[4096], path[1000], public[100];
	const char *tests = getenv("TESTDIR");
	snprintf(path, sizeof path, "%.900s/corpus/keys/dropbear", tests ? tests : "");
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, key, sizeof key);
	size_t len = 0;
	if (fd >= 0)
		close(fd);
	ground_file("key", (const uint8_t *)key, n < 0 ? 0 : (size_t)n);
	ground.config.agent = "agent";
	ground.config.identities_only = true;
	listener = ground_listen();
	begin("a key file that an agent has, too");
	says(FAILURE, "sb", ALL, 0);
	check(requests("publickey", "ssh-ed25519"), "is offered");
	if (got.n > BLOB_SIZE)
		memcpy(public, got.byte + got.n - BLOB_SIZE, len = BLOB_SIZE);
	says(FAILURE, "sb", ALL, 0);
	serve();
	check(asked_agent(ASKS_KEYS), "then the agent is asked");
	agent_gives(0, "bunsns", KEYS, 2, (size_t)BLOB_SIZE, other, "other", len, public, "same");
	check(said("Skipping ssh-ed25519 key: agent"), "its key is the same");
	check(requests("password", "secret"), "IdentitiesOnly: the other one is not offered");
	ground.config.identities_only = false;
	end();
}

/* A key of the agent whose file is not here, only FILE.pub. */
static void key_by_public_file(void)
{
	static const char text[] = "ssh-ed25519 "
		"AAAAC3NzaC1lZDI1NTE5AAAAIGFiY2RlZmdoaWprbG1ub3BxcnN0dXZ3eHl6MDEyMzQ1 me";
	unlink("key");
	ground_file("key.pub", (const uint8_t *)text, sizeof text - 1);
	ground.config.identities_only = true;
	listener = ground_listen();
	begin("IdentitiesOnly: a key named by its public file");
	says(FAILURE, "sb", ALL, 0);
	serve();
	asked_agent(ASKS_KEYS);
	agent_gives(0, "bunsns", KEYS, 2, (size_t)BLOB_SIZE, other, "other", (size_t)BLOB_SIZE,
		ed25519, "named");
	check(requests_key(ed25519, BLOB_SIZE), "is the one that is offered");
	ground.config.identities_only = false;
	unlink("key.pub");
	end();
}

/* An RSA key of dropbear's format with more bits than any build takes. */
static void key_too_long(void)
{
	static struct bytes key;
	static char number[1025];
	memset(number + 1, 0x7f, sizeof number - 1);
	number[1] = (char)0xff;
	key.n = 0;
	for (int i = 0; i < 6; i++) {
		const char *part = i == 0 ? "ssh-rsa" : i == 1 ? "\1\0\1" : number;
		size_t n = i == 0 ? 7 : i == 1 ? 3 : sizeof number;
		add_u32(&key, n);
		add(&key, part, n);
	}
	unlink("key");
	ground_file("key", key.byte, key.n);
	offers_none("an RSA key of 8192 bits", "do not fit this build's memory");
}

static void key_files(void)
{
	const char *kept = ground.config.agent;
	ground.config.agent = NULL;
	key_is("-----BEGIN OPENSSH PRIVATE KEY-----\n", 0644);
	offers_none("a key that others can read", "permissions 0644 are too open, ignored");
	key_is("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n", 0600);
	offers_none("an encrypted key, PEM", "key is encrypted, ignored; an agent can hold it");
	key_is("-----BEGIN ENCRYPTED PRIVATE KEY-----\n", 0600);
	offers_none("an encrypted key, PKCS#8", "key is encrypted, ignored");
	key_is("-----BEGIN OPENSSH PRIVATE KEY-----\n"
		"b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIA\n", 0600);
	offers_none("an encrypted key, OpenSSH's", "key is encrypted, ignored");
	key_is("", 0600);
	offers_none("an empty key file", "key not accessible: No data available");
	unlink("key");
	mkfifo("key", 0600);
	offers_none("a FIFO in place of a key", "key not accessible: Invalid argument");
	unlink("key");
	if (mkdir("key", 0700) != 0)
		abort();
	offers_none("a directory in place of a key", "key not accessible: Is a directory");
	rmdir("key");
	key_too_long();
	key_of_dropbear();
	key_by_public_file();
	key_is("ssh-ed25519 nothing", 0600);
	ground.config.agent = kept;
}

/* --- agents ----------------------------------------------------------------------------- */

/* The agent is of no use: the login goes on without it. */
static void without(const char *text)
{
	check(said(text), text);
	check(requests("password", "secret"), PASSWORD_NEXT);
	says(SUCCESS, "");
	check(tp_state() == TP_UP, "which is good");
	end();
}

static void agent_that_signs(void)
{
	begin_signing("an agent that signs");
	check(asked_agent(ASKS_SIGNATURE) && contains(ed25519, BLOB_SIZE), "it is asked to");
	agent_gives(0, "bn", SIGNATURE, (size_t)30, "\0\0\0\013ssh-ed25519\0\0\0\013hello world");
	check(requests_key(ed25519, BLOB_SIZE) && contains("hello world", 11),
		"the server gets what it signed");
	says(FAILURE, "sb", ALL, 0);
	check(said("refused the signature"), "which the server refuses");
	check(requests_key(other, BLOB_SIZE), "the next key is offered");
	says(FAILURE, "sb", "password", 0);
	check(requests("password", "secret"), "where no key is wanted any more, no key is offered");
	end();
}

static void agents_without_a_signature(void)
{
	static const struct {
		const char *name, *form;
		int type;
		size_t n;
		const char *bytes;
	} answers[] = {
		{ "an agent that refuses to sign", "b", REFUSES, 0, "" },
		{ "a signature without length", "bx", SIGNATURE, 2, "\0\0" },
		{ "a signature that is cut short", "bx", SIGNATURE, 10, "\0\0\0\100abcdef" },
		{ "a signature that is too short", "bn", SIGNATURE, 7, "\0\0\0\003abc" },
		{ "a signature that is too long", "bn", SIGNATURE, 4097, (const char *)got.byte },
		{ "a signature whose type is cut short", "bn", SIGNATURE, 9, "\0\0\0\100abcde" },
	};
	for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
		begin_signing(answers[i].name);
		asked_agent(ASKS_SIGNATURE);
		agent_gives(0, answers[i].form, answers[i].type, answers[i].n, answers[i].bytes);
		check(said("did not sign"), "it is said");
		check(requests_key(other, BLOB_SIZE), "the next key is offered");
		end();
	}
}

/* RFC 8308, as the server's first message after its NEWKEYS */
static void server_takes_keys(const char *algorithms)
{
	ses.lastpacket = SSH_MSG_NEWKEYS;
	says(SSH_MSG_EXT_INFO, "uss", 1, "server-sig-algs", algorithms);
}

static void signatures_of_rsa(void)
{
	static const char rsa[] = "\0\0\0\007ssh-rsa\0\0\0\003\1\0\1\0\0\0\004\0abc";
	const size_t n = sizeof rsa - 1;
	begin_with_agent("an agent that knows SHA-1 alone");
	server_takes_keys("ssh-ed25519,rsa-sha2-512,rsa-sha2-256");
	agent_gives(0, "buns", KEYS, 1, n, rsa, "rsa");
	check(requests_key(rsa, n) && contains("rsa-sha2-512", 12), "its RSA key is offered");
	says(60, "sn", "rsa-sha2-512", n, rsa);
	check(asked_agent(ASKS_SIGNATURE) && memcmp(got.byte + got.n - 4, "\0\0\0\4", 4) == 0,
		"it is asked for SHA-512");
	agent_gives(0, "bn", SIGNATURE, (size_t)16, "\0\0\0\007ssh-rsa\0\0\0\1x");
	without("did not sign");
	begin_with_agent("a server that takes no RSA");
	server_takes_keys("ssh-ed25519");
	agent_gives(0, "buns", KEYS, 1, n, rsa, "rsa");
	without("Skipping");
}

static void agents_of_odd_lists(void)
{
	static const char long_type[] = "\0\0\0\100" "0123456789012345678901234567890123456789"
		"012345678901234567890123";
	static const char zeros[5000];
	begin_with_agent("an agent without a list");
	agent_gives(0, "b", REFUSES);
	without("has no list of keys");
	begin_with_agent("a list that is cut short");
	agent_gives(0, "bu", KEYS, 3);
	without("bad list of keys");
	begin_with_agent("keys that are none");
	agent_gives(0, "bussssnsnsns", KEYS, 5, "", "empty", "xx", "short",
		(size_t)4097, zeros, "long",
		sizeof long_type - 1, long_type, "type", (size_t)BLOB_SIZE, ed25519, "good");
	check(requests_key(ed25519, BLOB_SIZE), "are passed over, the good one is offered");
	end();
	begin_with_agent("the same key twice");
	agent_gives(0, "bunsns", KEYS, 2, (size_t)BLOB_SIZE, ed25519, "one", (size_t)BLOB_SIZE,
		ed25519, "two");
	check(requests_key(ed25519, BLOB_SIZE), "is offered");
	says(FAILURE, "sb", ALL, 0);
	without("Skipping");
}

static void agents_that_talk_nonsense(void)
{
	static const char *const heads[] = { "\0\0\0\0", "\0\0\100\1", "\377\377\377\377" };
	for (size_t i = 0; i < 3; i++) {
		begin_with_agent("an answer of nonsense");
		(void)!send(agent, heads[i], 4, MSG_NOSIGNAL);
		serve();
		without("sent an answer of impossible length");
	}
	begin_with_agent("an answer in pieces");
	static const char answer[] = "\0\0\0\5\14\0\0\0\1";
	for (size_t i = 0; i < 9; i++) {
		(void)!send(agent, answer + i, 1, MSG_NOSIGNAL);
		serve();
	}
	without("bad list of keys");
}

static void agents_that_leave(void)
{
	listener = ground_listen();
	begin("an agent that closes without a look at the request");
	says(FAILURE, "sb", ALL, 0);
	serve();
	agent_leaves();
	serve();
	without("closed the connection");
	begin_with_agent("an agent that closes instead of an answer");
	agent_leaves();
	serve();
	without("closed the connection");
	begin_with_agent("one that closes in its answer");
	agent_gives(3, "bu", KEYS, 0);
	agent_leaves();
	serve();
	without("closed the connection");
	begin_with_agent("one that closes in its answer's length");
	(void)!send(agent, "\0\0", 2, MSG_NOSIGNAL);
	agent_leaves();
	serve();
	without("closed the connection");
	begin_with_agent("one that is gone when it is to sign");
	agent_gives(0, "buns", KEYS, 1, (size_t)BLOB_SIZE, ed25519, "one");
	check(requests_key(ed25519, BLOB_SIZE), "its key is offered");
	agent_leaves();
	says(60, "sn", "ssh-ed25519", (size_t)BLOB_SIZE, ed25519);
	without("closed the connection");
}

static void agents_that_wait(void)
{
	begin_with_agent("an agent that does not answer");
	now += 4999;
	serve();
	check(!take(), "is waited for");
	now += 1;
	serve();
	without("does not answer");
	begin_signing("an agent that asks its user");
	now += 19999;
	serve();
	check(!take(), "is waited for");
	now += 1;
	serve();
	without("does not answer");
}

static void agents_that_are_not_there(void)
{
	static char name[200];
	const char *kept = ground.config.agent;
	begin("no agent");
	unlink("agent");
	says(FAILURE, "sb", ALL, 0);
	without("Agent agent: No such file");
	memset(name, 'a', sizeof name - 1);
	ground.config.agent = name;
	begin("an agent whose path is too long");
	says(FAILURE, "sb", ALL, 0);
	without("path too long");
	ground.config.agent = kept;
	begin("no agent, no password");
	ground.config.no_password = ground.config.no_keyboard = true;
	says(FAILURE, "sb", ALL, 0);
	check(failed(TP_CAUSE_AUTH, "user@server.example: Permission denied (" ALL ")."),
		"the login has failed");
	ground.config.no_password = ground.config.no_keyboard = false;
	end();
}

/* --- servers ---------------------------------------------------------------------------- */

/* The server's message ends the login. */
static void lost(const char *text)
{
	check(failed(TP_CAUSE_LOST, text), text);
	end();
}

static void servers_out_of_turn(void)
{
	begin_with_agent("success while the agent is asked");
	says(SUCCESS, "");
	lost("Unexpected userauth success");
	begin_with_agent("failure while the agent is asked");
	says(FAILURE, "sb", ALL, 0);
	lost("Unexpected userauth failure");
	begin_with_agent("an answer while the agent is asked");
	says(60, "");
	lost("Unexpected userauth message");
	begin("a failure that is cut short");
	says(FAILURE, "b", 0);
	lost("");
	static const char *const blobs[] = { other, ed25519 };
	for (size_t i = 0; i < 2; i++) {
		begin_with_agent("a key that was not offered");
		agent_gives(0, "buns", KEYS, 1, (size_t)BLOB_SIZE, ed25519, "one");
		take();
		says(60, "sn", "ssh-ed25519", (size_t)BLOB_SIZE - i, blobs[i]);
		lost("server accepts a key that was not offered");
	}
}

static void servers_that_want_more(void)
{
	begin("a key and a password");
	says(FAILURE, "sb", "password", 1);
	check(said("partial success (none), more is needed"), "it is said");
	check(requests("password", "secret"), "the password is given");
	says(FAILURE, "sb", "keyboard-interactive", 1);
	check(said("partial success (password), more is needed"), "again");
	check(requests("keyboard-interactive", ""), "questions are asked for");
	says(60, "sssusb", "", "", "", 1, "Code: ", 0);
	check(take() && got.byte[0] == 61 && contains("secret", 6), "and answered");
	says(FAILURE, "sb", "keyboard-interactive", 0);
	check(failed(TP_CAUSE_AUTH, "(keyboard-interactive)"), "only once");
	end();
	begin("a password that has expired");
	says(FAILURE, "sb", "password,keyboard-interactive", 0);
	check(requests("password", "secret"), "is given");
	says(60, "ss", "change it\nnow", "");
	check(said("1 change it\n1 now\n"), "the server's words are shown");
	check(said("0 server.example: the password has expired and must be changed"),
		"and what they mean");
	check(requests("keyboard-interactive", ""), "another method is tried");
	end();
}

static void questions(void)
{
	begin("several questions");
	says(FAILURE, "sb", "keyboard-interactive,password", 0);
	take();		/* by password */
	says(FAILURE, "sb", "keyboard-interactive", 0);
	check(requests("keyboard-interactive", ""), "are asked for");
	says(60, "sssu", "", "", "", 0);
	check(take() && got.n == 5 && got.byte[0] == 61 && u32(got.byte + 1) == 0,
		"none has no answer");
	says(60, "sssusbsb", "", "", "", 2, "Password: ", 0, "Code: ", 0);
	check(failed(TP_CAUSE_AUTH, "Permission denied"), "two need a user");
	check(!take(), "half an answer is not sent");
	end();
	static const struct { const char *name, *form, *error; } bad[] = {
		{ "a question cut short", "sssuu", "malformed message" },
		{ "a question without its echo", "sssus", "ends too early" },
		{ "texts cut short", "ss", "malformed message" },
	};
	for (size_t i = 0; i < 3; i++) {
		begin(bad[i].name);
		says(FAILURE, "sb", "keyboard-interactive", 0);
		says(60, bad[i].form, "", "", "", 2, "");
		lost(bad[i].error);
	}
	begin("too many questions");
	says(FAILURE, "sb", "keyboard-interactive", 0);
	says(60, "sssu", "", "", "", 33);
	lost("Too many keyboard-interactive questions");
	begin("too many rounds of questions");
	says(FAILURE, "sb", "keyboard-interactive", 0);
	for (int i = 0; i < 32; i++)
		says(60, "sssu", "", "", "", 0);
	check(tp_state() == TP_LOGIN, "thirty-two are answered");
	says(60, "sssu", "", "", "", 0);
	lost("Too many keyboard-interactive questions");
}

static void banners(void)
{
	begin("banners");
	for (int i = 0; i < 22; i++)
		says(SSH_MSG_USERAUTH_BANNER, "ss", i == 20 ? "too many" : "hello", "");
	check(said("hello") && !said("too many"), "twenty are shown");
	says(SUCCESS, "");
	check(tp_state() == TP_UP, "then success");
	static const uint8_t late[] = { SSH_MSG_SERVICE_ACCEPT, FAILURE, SUCCESS, 60 };
	for (size_t i = 0; i < sizeof late; i++)
		says(late[i], "sb", ALL, 0);
	says(SSH_MSG_USERAUTH_BANNER, "ss", "late", "");
	check(tp_state() == TP_UP && !said("late") && !take(),
		"what comes after it of a login does nothing");
	end();
}

/* A line of the log is shorter than the banner's, and no character is cut in two. */
static void long_banner(void)
{
	static char text[1202];
	begin("a long line of a banner");
	text[0] = 'a';
	for (size_t i = 1; i + 1 < sizeof text; i += 2)
		memcpy(text + i, "\303\251", 2);
	text[sizeof text - 1] = '\0';
	says(SSH_MSG_USERAUTH_BANNER, "ss", text, "");
	check(said("\303\251\n") && !said("\303\n"), "is cut between characters");
	end();
}

static void goodbyes(void)
{
	begin("disconnected: too many failures");
	says(SSH_MSG_DISCONNECT, "uss", 2, "Too many authentication failures", "");
	check(failed(TP_CAUSE_AUTH, "2: Too many authentication failures"), "is a refusal");
	end();
	begin("disconnected by application");
	says(SSH_MSG_DISCONNECT, "uss", 11, "bye", "");
	lost("Received disconnect from server.example port 22:11: bye");
	begin("disconnected without a reason");
	says(SSH_MSG_DISCONNECT, "");
	lost("Received disconnect from server.example port 22:0: ");
	begin("debug messages");
	says(SSH_MSG_DEBUG, "");
	says(SSH_MSG_DEBUG, "bu", 1, 99);
	says(SSH_MSG_DEBUG, "bss", 1, "look", "");
	check(said("3 look\n") && tp_state() == TP_LOGIN, "the whole one is shown");
	end();
}

/* --- questions to the user ---------------------------------------------------------------- */

/* Whether the password that the client sent is this one. */
static bool requests_password(const char *password)
{
	size_t n = strlen(password);
	return requests("password", "") && got.n > n + 4 &&
		u32(got.byte + got.n - n - 4) == n &&
		memcmp(got.byte + got.n - n, password, n) == 0;
}

/* A login that has nothing but its user. */
static void begin_asking(const char *name, const char *methods)
{
	begin(name);
	says(FAILURE, "sb", methods, 0);
}

static void passwords(void)
{
	static char cut[SECRET_SIZE];
	begin_asking("passwords", "password");
	check(requests_password("wrong"), "the first one");
	says(FAILURE, "sb", "password", 0);
	check(said("Permission denied, please try again."), "was wrong");
	check(requests_password(""), "an empty one");
	says(FAILURE, "sb", "password", 0);
	memset(cut, 'x', sizeof cut - 1);
	check(requests_password(cut), "one that is too long is cut");
	says(FAILURE, "sb", "password", 0);
	check(failed(TP_CAUSE_AUTH, "Permission denied (password)."), "three are enough");
	end();
	begin_asking("control characters", "password");
	check(requests_password("\032x"), "do not suspend");
	end();
	static const char *const ends[] = { "the end of the input", "the end of it in a line" };
	for (size_t i = 0; i < 2; i++) {
		begin_asking(ends[i], "password");
		check(!take() && failed(TP_CAUSE_AUTH, "Permission denied"), "is no answer");
		end();
	}
}

static void asked_questions(void)
{
	begin_asking("questions", "keyboard-interactive,password");
	check(requests("keyboard-interactive", ""), "are asked for");
	says(60, "sssusbsb", "Name", "Text", "", 2, "Shown: ", 1, "Hidden: ", 0);
	check(said("1 Name\n1 Text\n"), "their texts are shown");
	check(take() && got.byte[0] == 61 &&
		contains("\0\0\0\2\0\0\0\004here\0\0\0\005there", 21), "and answered");
	says(FAILURE, "sb", "keyboard-interactive,password", 0);
	check(requests("keyboard-interactive", ""), "the next try");
	says(60, "sssusbsb", "", "", "", 2, "Shown: ", 1, "Hidden: ", 0);
	check(requests_password("pass"), "without an answer it is another method's turn");
	says(SUCCESS, "");
	check(tp_state() == TP_UP, "which is good");
	end();
}

static int64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* A terminal that takes no more: the question is cut, the answer counts. */
static void stuck_terminal(const char *done)
{
	static char text[30001];
	int64_t began = now_ms();
	begin_asking("a terminal that is stuck", "keyboard-interactive");
	memset(text, 'q', sizeof text - 1);
	says(60, "sssusb", "", "", "", 1, text, 0);
	check(requests("keyboard-interactive", "") && take() && contains("at last", 7),
		"gets a part of the question");
	check(now_ms() - began < 10000, "is not waited for again and again");
	close(open(done, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	end();
}

static void cancelled(const char *name)
{
	int two[2];
	if (pipe(two) != 0 || write(two[1], "", 1) != 1)
		abort();
	ground.config.cancel_fd = two[0];
	begin_asking(name, "password");
	check(failed(TP_CAUSE_CANCELLED, "server.example: cancelled") && !take(), "ends the login");
	end();
	ground.config.cancel_fd = -1;
	close(two[0]);
	close(two[1]);
}

/* A job in the background does not own its terminal. */
static void in_background(void)
{
	if (setpgid(0, 0) != 0)
		abort();
	begin_asking("a job in the background", "password");
	check(!take() && failed(TP_CAUSE_AUTH, "Permission denied"), "asks nothing");
	end();
}

static void askpass_is(const char *script)
{
	unlink("askpass");
	ground_file("askpass", (const uint8_t *)script, strlen(script));
	chmod("askpass", 0700);
}

static void askpass(void)
{
	static const struct { const char *name, *script; } silent[] = {
		{ "an askpass program that says nothing", "#!/bin/sh\n" },
		{ "one that fails", "#!/bin/sh\necho pass; exit 1\n" },
		{ "one that is killed", "#!/bin/sh\necho pass; kill -9 $$\n" },
		{ "one that is none", "" },
	};
	setenv("SSH_ASKPASS_REQUIRE", "force", 1);
	askpass_is("#!/bin/sh\nprintf %s \"$1\"\n");
	begin_asking("an askpass program", "password");
	check(requests_password("user@server.example's password: "), "gets the question");
	end();
	for (size_t i = 0; i < 4; i++) {
		askpass_is(silent[i].script);
		begin_asking(silent[i].name, "password");
		check(!take() && failed(TP_CAUSE_AUTH, "Permission denied"), "gives no password");
		end();
	}
	askpass_is("#!/bin/sh\nexec sleep 600\n");
	cancelled("an askpass program that is cancelled");
}

/* Whether the question about a host has this text. */
static bool was_asked(const char *text)
{
	static char asked[8192];
	int fd = open("key.pub", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, asked, sizeof asked - 1);
	if (fd >= 0)
		close(fd);
	asked[n > 0 ? n : 0] = '\0';
	return strstr(asked, text) != NULL;
}

/* A new host, and a user who answers as the program does; the questions are in key.pub. */
static bool confirms(const char *name, const char *address, const char *answer)
{
	static char script[200];
	bool taken;
	snprintf(script, sizeof script, "#!/bin/sh\necho \"$1\" >>key.pub\n%s\n", answer);
	unlink("key.pub");
	askpass_is(script);
	ground.config.address = address;
	begin_host(name, "none");
	taken = takes_host(ed25519, BLOB_SIZE);
	end();
	return taken;
}

static void confirmations(void)
{
	ground.config.strict = TP_STRICT_ASK;
	check(confirms("a new host", "", "echo yes") &&
		was_asked("host 'server.example (<no hostip for proxy command>)' can't"), "yes");
	check(confirms("one with an address", "[::1]:22", "echo YES") && was_asked("(::1)"), "YES");
	check(!confirms("one on another port", "10.0.0.1:22", "echo no") &&
		was_asked("(10.0.0.1)") &&
		because(TP_CAUSE_HOSTKEY, "no ED25519 host key is known"), "no");
	check(!confirms("a user who says anything else", "", "echo perhaps") &&
		was_asked("Please type 'yes', 'no' or the fingerprint: ") &&
		because(TP_CAUSE_HOSTKEY, "no ED25519 host key is known"),
		"is asked again, not for ever");
	ground.config.cancel_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	check(!confirms("a user who leaves", "", "exec sleep 600") &&
		because(TP_CAUSE_CANCELLED, "cancelled"), "ends the login");
	close(ground.config.cancel_fd);
	ground.config.cancel_fd = -1;
	ground.config.strict = TP_STRICT_NO;
}

static void with_terminal(const char *done)
{
	ground.config.batch = false;
	ground.config.prompts = 3;
	ground.config.agent = ground.config.password = NULL;
	setenv("SSH_ASKPASS", "./askpass", 1);
	setenv("SSH_ASKPASS_REQUIRE", "force", 1);
	confirmations();	/* before any login succeeds */
	unsetenv("SSH_ASKPASS_REQUIRE");
	passwords();
	asked_questions();
	stuck_terminal(done);
	cancelled("a question that is cancelled");
	askpass();
	unsetenv("SSH_ASKPASS_REQUIRE");
	in_background();
}

static void without_terminal(void)
{
	preparation();
	lists_of_algorithms();
	not_connected();
	memory();
	host_keys();
	before_login();
	after_login();
	key_files();
	agent_that_signs();
	agents_without_a_signature();
	signatures_of_rsa();
	agents_of_odd_lists();
	agents_that_talk_nonsense();
	agents_that_leave();
	agents_that_wait();
	agents_that_are_not_there();
	servers_out_of_turn();
	servers_that_want_more();
	questions();
	long_banner();
	banners();
	goodbyes();
}

int main(int argc, char **argv)
{
	static const char key[] = "ssh-ed25519 nothing";
	fuzz_start();
	fuzz_enter_dir();
	ground_file("hosts", NULL, 0);
	ground_file("key", (const uint8_t *)key, sizeof key - 1);
	ground_init();
	if (argc > 2 && strcmp(argv[1], "ask") == 0)
		with_terminal(argv[2]);
	else
		without_terminal();
	printf("1..%d\n", points);
	return failures != 0;
}
