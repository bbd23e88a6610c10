/* fuzz_transport.c - the ground under the fuzzers of port/dropbear: a directory of
 * their own, a server's end of a connection, the options of a login. */
#define FUZZ_TRANSPORT

#include "port.h"
#include "session.h"
#include "packet.h"
#include "ssh.h"
#include <dirent.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

static struct {
	uint32_t seed;
	char dir[64];
	int server;		/* the peer of the transport's socket */
	int fds;
	unsigned lines;		/* given to tp_log() */
	char said[8192];	/* the last of them, as far as they fit */
	struct tp_config config;
} ground = { .seed = 1, .server = -1 };

void tp_log(enum tp_level level, const char *line)
{
	size_t used = strlen(ground.said);
	ground.lines++;
	snprintf(ground.said + used, sizeof ground.said - used, "%d %s\n", (int)level, line);
}

/* Reads all of it; nothing is shown here. */
size_t tp_clean(const char *text, size_t len, bool lines, char *to, size_t size)
{
	(void)lines;
	len = len < size ? len : size - 1;
	memcpy(to, text, len);
	to[len] = '\0';
	return len;
}

static inline uint32_t rnd(uint32_t below)
{
	uint32_t x = ground.seed;
	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	ground.seed = x;
	return below ? x % below : 0;
}

static int ground_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;
	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

static void ground_remove(void)
{
	static const char *const names[] = { "hosts", "key", "key.pub", "agent", "askpass" };
	if (chdir(ground.dir) != 0)
		return;
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		unlink(names[i]);
	(void)!chdir("/");
	rmdir(ground.dir);
}

static void fuzz_start(void)
{
	const char *tmp = getenv("TMPDIR");
	if (ground.dir[0])
		return;
	snprintf(ground.dir, sizeof ground.dir, "%.40s/sshmux-fuzz-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(ground.dir))
		abort();
	atexit(ground_remove);
	signal(SIGPIPE, SIG_IGN);
}

static void fuzz_enter_dir(void)
{
	if (chdir(ground.dir) != 0)
		abort();
}

static inline void fuzz_end(void)
{
}

static inline uint32_t *fuzz_seed_of(void)
{
	return &ground.seed;
}

static void ground_file(const char *name, const uint8_t *data, size_t size)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	close(fd);
}

/* Once a process: everything is in the directory, nothing is ever asked. */
static void ground_init(void)
{
	static const char *const identity[] = { "key" }, *const hosts[] = { "hosts" };
	static bool done;
	if (done)
		return;
	done = true;
	ground.config = (struct tp_config){
		.user = "user", .host = "server.example", .host_key_name = "server.example",
			.port = 22,
		.identity = identity, .n_identity = 1, .known_hosts = hosts, .n_known_hosts = 1,
		.strict = TP_STRICT_NO, .batch = true, .cancel_fd = -1, .agent = "agent",
			.password = "secret",
	};
	if (!tp_init(&ground.config))
		abort();
}

/* A connection whose server we are. */
static void ground_connect(void)
{
	int two[2];
	ground.fds = ground_fds();
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, two) != 0)
		abort();
	ground.server = two[1];
	tp_start(two[0], !ground.config.batch, 1000);
}

/* Its end; whether all descriptors are closed. */
static bool ground_close(void)
{
	tp_stop();
	close(ground.server);
	return ground_fds() == ground.fds;
}

/* --- the server, in the clear ------------------------------------------------------ */

/* One packet without cipher and MAC, RFC 4253 6. */
static inline void ground_packet(uint8_t type, const uint8_t *body, size_t n)
{
	static uint8_t packet[36000];
	size_t padding = 8 - (6 + n) % 8;
	if (padding < 4)
		padding += 8;
	uint32_t length = (uint32_t)(2 + n + padding);
	for (int i = 0; i < 4; i++)
		packet[i] = (uint8_t)(length >> (24 - 8 * i));
	packet[4] = (uint8_t)padding;
	packet[5] = type;
	if (n)
		memcpy(packet + 6, body, n);
	memset(packet + 6 + n, 0, padding);
	(void)!send(ground.server, packet, length + 4, MSG_NOSIGNAL);
}

static inline void ground_authenticate(void)
{
	ses.session_id = buf_new(HASH_SIZE);
	buf_incrlen(ses.session_id, HASH_SIZE);
	auth_begin();
}

/* As after the first key exchange: the user is to be authenticated next. */
static inline void ground_exchanged(void)
{
	ses.requirenext = 0;
	ses.ignorenext = 0;
	ses.dataallowed = 1;
	ses.kexstate.sentkexinit = ses.kexstate.recvkexinit = 0;
	ses.kexstate.donefirstkex = 1;
	cli_ses.kex_state = KEX_NOTHING;
	cli_ses.state = USERAUTH_REQ_SENT;
	port_run(ground_authenticate);
}

/* Where the agent listens. */
static inline int ground_listen(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX, .sun_path = "agent" };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	unlink("agent");
	if (bind(fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(fd, 4) != 0)
		abort();
	return fd;
}
