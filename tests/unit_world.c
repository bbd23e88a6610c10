/* unit_world.c - the world around sshmux.c in its unit tests and fuzzers.
 *
 * Includes the program itself with small limits, stands between it and the
 * kernel (short and interrupted I/O on demand, a clock that the test moves),
 * and plays its clients on the real control socket.  world_run() turns the
 * real loop until it would sleep: whatever the loop has left undone at that
 * point stays undone, as it would in a quiet night. */

#define CLIENTS 6
#define CHANNELS 4
#define SESSIONS 3
#define REQUEST_MAX 2048
#define REQUEST_POOL 4096
#define REQUESTS 3
#define ENV_VARIABLES 8
#define WINDOW_BLOCK 64
#define WINDOW_POOL 4096
#define WINDOW_SHARE 1
#define WINDOW_START 1024
#define QUICK_BYTES 256
#define OPTION_LIST 4
#define FORWARDS 4
#define CONNECTORS 2
#ifndef OPTION_TEXT
#define OPTION_TEXT (256 * 1024)
#endif
#define REPLY_MAX 192
#ifndef CHECKS
#define CHECKS
#endif

#include <arpa/inet.h>
#include <dirent.h>
#include <pwd.h>
#include <sys/eventfd.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "fake.h"

static struct {
	int64_t now;		/* the clock, ms */
	int64_t seen;		/* what the program last saw of it */
	unsigned chaos;		/* one call in so many is interrupted or cut short; 0: none */
	uint32_t seed;
	int patience;		/* ms that poll() may really wait: a child is at work */
	unsigned turns;		/* calls of poll() */
	unsigned long polled;	/* descriptors in all of them */
	int poll_error, accept_error;	/* what each call fails with */
	unsigned doubled;	/* poll sets that named a descriptor twice */
	bool no_children;	/* fork() fails: names are not resolved */
	const char *host_name;	/* of this machine, NULL for the real one */
	const struct passwd *user;	/* who runs us, likewise */
	bool ended;		/* the loop came to its end */
	jmp_buf asleep;		/* poll() would sleep */
	jmp_buf exited;		/* exit() was called */
	int exit_code;
	char log[8192];		/* what went to stderr */
	size_t log_len;
	char dir[64], path[96];	/* temporary directory, control socket in it */
	int fds;		/* open descriptors at the start of the test */
} world = { .now = 1000, .seed = 1 };

/* A deterministic generator (xorshift): tests are the same everywhere. */
static inline uint32_t rnd(uint32_t below)
{
	uint32_t x = world.seed;
	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	world.seed = x;
	return below ? x % below : 0;
}

/* Whether this call fails, with errno set if so. */
static bool chaos(void)
{
	if (!world.chaos || rnd(world.chaos))
		return false;
	errno = rnd(2) ? EINTR : EAGAIN;
	return true;
}

static ssize_t unit_read(int fd, void *p, size_t n)
{
	if (chaos())
		return -1;
	return read(fd, p, world.chaos && n > 1 ? 1 + rnd((uint32_t)n) : n);
}

static ssize_t unit_writev(int fd, const struct iovec *iov, int pieces)
{
	if (chaos())
		return -1;
	if (!world.chaos || iov[0].iov_len == 0)
		return writev(fd, iov, pieces);
	return write(fd, iov[0].iov_base, 1 + rnd((uint32_t)iov[0].iov_len));
}

/* Messages for people are kept for the test. */
static ssize_t unit_write(int fd, const void *p, size_t n)
{
	if (fd != STDERR_FILENO)
		return write(fd, p, n);
	if (n < sizeof world.log - world.log_len) {
		memcpy(world.log + world.log_len, p, n);
		world.log_len += n;
		world.log[world.log_len] = 0;
	}
	return (ssize_t)n;
}

static ssize_t unit_recvmsg(int fd, struct msghdr *m, int flags)
{
	return chaos() ? -1 : recvmsg(fd, m, flags);
}

static int unit_accept4(int fd, struct sockaddr *a, socklen_t *len, int flags)
{
	errno = world.accept_error;
	return world.accept_error || chaos() ? -1 : accept4(fd, a, len, flags);
}

/* Nothing leaves this machine. */
static int unit_connect(int fd, const struct sockaddr *a, socklen_t len)
{
	const struct sockaddr_in *v4 = (const void *)a;
	if (a->sa_family == AF_UNIX ||
		(a->sa_family == AF_INET && ntohl(v4->sin_addr.s_addr) >> 24 == 127))
		return connect(fd, a, len);
	errno = ENETUNREACH;
	return -1;
}

static pid_t unit_fork(void)
{
	if (!world.no_children)
		return fork();
	errno = EAGAIN;
	return -1;
}

static int unit_gethostname(char *name, size_t size)
{
	return world.host_name ? snprintf(name, size, "%s", world.host_name) < 0 :
		gethostname(name, size);
}

static const struct passwd *unit_getpwuid(uid_t uid)
{
	return world.user ? world.user : getpwuid(uid);
}

static int unit_clock_gettime(clockid_t id, struct timespec *t)
{
	(void)id;
	world.seen = world.now;
	*t = (struct timespec){ world.now / 1000, world.now % 1000 * 1000000 };
	return 0;
}

static bool poll_doubled(const struct pollfd *p, nfds_t n)
{
	for (nfds_t i = 0; i < n; i++)
		for (nfds_t k = 0; k < i; k++)
			if (p[i].fd == p[k].fd)
				return true;
	return false;
}

static bool world_is_quick(void);

static int unit_poll(struct pollfd *p, nfds_t n, int timeout)
{
	if (n == 1 && p->fd == STDERR_FILENO) {
		p->revents = POLLOUT;
		return 1;
	}
	world.turns++;
	world.polled += n;
	world.doubled += poll_doubled(p, n);
	if (world.poll_error) {
		errno = world.poll_error;
		return -1;
	}
	if (world.chaos && !rnd(world.chaos)) {
		errno = EINTR;
		return -1;
	}
	int r = poll(p, n, 0);
	if (r == 0 && world.patience)
		r = poll(p, n, world.patience);
	if (r != 0 || (timeout >= 0 && world.now - world.seen >= timeout))
		return r;
	if (world_is_quick()) {		/* it waits for some ms only */
		world.now += timeout;
		return 0;
	}
	longjmp(world.asleep, 1);
}

static void unit_exit(int code) __attribute__((noreturn));
static void unit_exit(int code)
{
	world.exit_code = code;
	longjmp(world.exited, 1);
}

#include <ctype.h>
#include <fnmatch.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pwd.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>

#define read unit_read
#define write unit_write
#define writev unit_writev
#define recvmsg unit_recvmsg
#define accept4 unit_accept4
#define poll(p, n, timeout) unit_poll(p, n, timeout)
#define connect(fd, a, len) unit_connect(fd, a, len)
#define fork() unit_fork()
#define clock_gettime unit_clock_gettime
#define gethostname unit_gethostname
#define getpwuid unit_getpwuid
#define exit unit_exit
#define main sshmux_main
#ifdef WORLD_SILENT
#define printf(...) ((void)snprintf(NULL, 0, __VA_ARGS__))	/* usage, version, -G */
#endif
int sshmux_main(int argc, char **argv);
#if defined __GNUC__ && !defined __clang__
/* with the sanitizers' own checks gcc believes in null and overlapping strings */
#pragma GCC diagnostic ignored "-Wformat-truncation"
#pragma GCC diagnostic ignored "-Wrestrict"
#endif
#include "../sshmux.c"
#undef read
#undef write
#undef writev
#undef recvmsg
#undef accept4
#undef poll
#undef connect
#undef fork
#undef clock_gettime
#undef gethostname
#undef getpwuid
#undef exit
#undef main
#undef printf

/* ----- the loop ----- */

static bool world_is_quick(void)
{
	return g.lp.quick;
}

#define TURNS_MAX 20000		/* a loop that does not come to rest is broken */

/* Turns the loop until it would sleep or the master has ended; false if
 * neither comes in so many turns. */
static bool world_rest(unsigned most)
{
	static unsigned end;
	end = world.turns + most;
	if (setjmp(world.asleep))
		return true;
	while (world.turns < end) {
		lp_turn();
		if ((world.ended = lp_stopped()))
			return true;
	}
	return false;
}

/* The same for a loop that must come to rest; false when it has ended. */
static bool world_run(void)
{
	if (world_rest(TURNS_MAX))
		return !world.ended;
	fprintf(stderr, "the loop does not come to rest\n");
	abort();
}

/* The same after some time. */
static bool world_sleep(int64_t ms)
{
	world.now += ms;
	return world_run();
}

/* The network has changed without a message: room, key exchange. */
static bool world_wake(void)
{
	fake.wake = true;
	return world_run();
}

static int world_count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;
	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

/* The state that main() begins with, from main() itself: it has set it up by
 * the time it finds the first word wrong. */
static void world_defaults(void)
{
	static char name[] = "sshmux", wrong[] = "--wrong";
	static char *argv[] = { name, wrong, NULL };
	static __typeof__(g) fresh;
	static bool known;
	if (!known && setjmp(world.exited) == 0) {
		memset(&g, 0, sizeof g);
		sshmux_main(2, argv);
	}
	if (!known)
		memcpy(&fresh, &g, sizeof g);
	known = true;
	memcpy(&g, &fresh, sizeof g);
}

static void world_clear(void)
{
	world_defaults();
	g.log.level = TP_ERROR;
	g.op.reconnect = LK_NO;
	g.op.send_env = (struct list){ { "LANG", "LC_*" }, 2 };
	g.op.control_path = g.us.path = world.path;
	g.op.host_name = g.op.tp.host = "server";
	world.log[world.log_len = 0] = 0;
	world.chaos = 0;
	world.patience = 0;
	world.poll_error = world.accept_error = 0;
	world.ended = false;
	memset(op_set, 0, sizeof op_set);
	op_store.used = 0;
	op_where.file = NULL;
	check_strangers = false;
	fake_reset();
}

/* A master that is logged in and listens. */
static void world_begin(void)
{
	world_clear();
	world.fds = world_count_fds();
	lp_open_signals();
	g.now = rn_clock();
	g.lk.state = LK_LOGIN;
	g.lk.login_deadline = g.now + 1000;
	tp_start(open("/dev/null", O_RDWR | O_CLOEXEC), true, g.now);
	world_run();
	fake.out_count = 0;
}

static int world_requests(void)
{
	int n = 0;
	for (int i = 0; i < REQUESTS; i++)
		n += g.req.slot[i].len > 0;
	return n;
}

/* Whether nothing of clients and channels is left. */
static bool world_idle(void)
{
	bool idle = g.mc.end == 0 && g.ch.end == 0 && g.ch.sessions == 0 && g.pool.shared == 0 &&
		    check_free_blocks() == WINDOW_BLOCKS && world_requests() == 0;
	if (!idle)
		printf("# clients %d, channels %d, sessions %d, pool_shared %u, "
			"blocks %u of %u, requests %d\n", g.mc.end,
		       g.ch.end, g.ch.sessions, g.pool.shared, check_free_blocks(), WINDOW_BLOCKS,
			world_requests());
	return idle;
}

/* Takes everything down; whether every descriptor was closed. */
static bool world_end(void)
{
	tp_stop();
	us_remove();
	cn_stop(&g.lk.uplink);
	for (int i = 0; i < g.mc.end; i++)
		if (g.mc.slot[i].phase != MX_FREE)
			mc_drop(&g.mc.slot[i]);
	lp_reap();
	for (int i = 0; i < g.ch.end; i++)
		if (g.ch.slot[i].state != CH_FREE)
			g.ch.slot[i].state = CH_DEAD;
	lp_reap();
	for (int i = 0; i < FORWARDS; i++)
		if (g.fw.slot[i].state != FW_FREE)
			fw_free(&g.fw.slot[i]);
	fd_close(&g.lp.signal_pipe[0]);
	fd_close(&g.lp.signal_pipe[1]);
	fd_close(&g.lp.cancel_pipe[0]);
	fd_close(&g.lp.cancel_pipe[1]);
	fd_close(&g.lp.silent);
	int fds = world_count_fds();
	if (fds != world.fds)
		printf("# %d descriptors open, %d at the start\n", fds, world.fds);
	return fds == world.fds;
}

static bool world_open_dir(void)
{
	const char *tmp = getenv("TMPDIR");
	snprintf(world.dir, sizeof world.dir, "%.40s/sshmux-unit-XXXXXX", tmp ? tmp : "/tmp");
	signal(SIGPIPE, SIG_IGN);
	if (!mkdtemp(world.dir))
		return false;
	snprintf(world.path, sizeof world.path, "%s/ctl", world.dir);
	return true;
}

static void world_remove_dir(void)
{
	DIR *d = opendir(world.dir);
	for (struct dirent *e; d && (e = readdir(d));)
		if (e->d_name[0] != '.' || strlen(e->d_name) > 2)
			unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
	rmdir(world.dir);
}

/* ----- clients ----- */

struct peer {
	int fd;
	bool eof;
	size_t got;
	uint8_t in[4096];
};

/* What the master says first. */
#define MASTER_HELLO MUX_MSG_HELLO, "ussss", 4, "info", "0", "sshmux", "1"

static void peer_connect(struct peer *p)
{
	struct sockaddr_un a;
	memset(p, 0, sizeof *p);
	us_address(&a, world.path);
	p->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (connect(p->fd, (struct sockaddr *)&a, sizeof a) != 0)
		fd_close(&p->fd);
}

static void peer_close(struct peer *p)
{
	fd_close(&p->fd);
}

/* Writes all of it; lets the master read when the socket is full.  False if
 * the master has closed it. */
static bool peer_bytes(struct peer *p, const void *bytes, size_t n)
{
	const uint8_t *from = bytes;
	for (int full = 0; n > 0 && full < 100;) {
		ssize_t w = write(p->fd, from, n);
		if (w < 0 && errno != EAGAIN)
			return false;
		if (w < 0) {
			full++;
			world_run();
			continue;
		}
		from += w;
		n -= (size_t)w;
	}
	return n == 0;
}

/* A frame as fake.h describes messages; returns its length. */
static size_t frame_build(uint8_t *to, size_t max, uint32_t type, const char *format, va_list ap)
{
	size_t n = fake_build(to + 8, max - 8, format, ap);
	buf_set_u32(to, (uint32_t)n + 4);
	buf_set_u32(to + 4, type);
	return n + 8;
}

static void peer_put(struct peer *p, uint32_t type, const char *format, ...)
{
	static uint8_t bytes[300 * 1024];
	va_list ap;
	va_start(ap, format);
	size_t n = frame_build(bytes, sizeof bytes, type, format, ap);
	va_end(ap);
	peer_bytes(p, bytes, n);
}

/* Descriptors that stand for a program's stdio. */
static bool peer_pass(struct peer *p, int fd)
{
	return fd_send_with(p->fd, fd, "", 1, 0) == 1;
}

static void peer_drain(struct peer *p)
{
	ssize_t n;
	while (p->fd >= 0 && !p->eof &&
		(n = read(p->fd, p->in + p->got, sizeof p->in - p->got)) != 0) {
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0)
			break;
		p->got += (size_t)n;
	}
	p->eof = true;
}

/* Whether the next frame of the master is this one; takes it. */
static bool peer_expect(struct peer *p, uint32_t type, const char *format, ...)
{
	uint8_t bytes[1024];
	va_list ap;
	va_start(ap, format);
	size_t n = frame_build(bytes, sizeof bytes, type, format, ap);
	va_end(ap);
	peer_drain(p);
	if (p->got < n || memcmp(p->in, bytes, n) != 0) {
		printf("# frame 0x%08x of %zu bytes expected, %zu bytes came, type 0x%08x\n", type,
			n, p->got,
		       p->got >= 8 ? buf_u32_at(p->in + 4) : 0);
		return false;
	}
	memmove(p->in, p->in + n, p->got -= n);
	return true;
}

/* Whether the master has said nothing more and closed the connection. */
static bool peer_gone(struct peer *p)
{
	peer_drain(p);
	if (p->got || !p->eof)
		printf("# %zu bytes more, type 0x%08x, %s\n", p->got, p->got >= 8 ?
			buf_u32_at(p->in + 4) : 0,
		       p->eof ? "then the end" : "not closed");
	return p->eof && p->got == 0;
}

/* Whether the connection is open and silent. */
static bool peer_quiet(struct peer *p)
{
	peer_drain(p);
	return !p->eof && p->got == 0;
}

static bool peer_hello(struct peer *p)
{
	peer_connect(p);
	peer_put(p, MUX_MSG_HELLO, "u", 4);
	world_run();
	return peer_expect(p, MASTER_HELLO);
}

/* Whether the master still serves. */
static bool peer_served(void)
{
	struct peer p;
	bool ok = peer_hello(&p);
	peer_put(&p, MUX_C_ALIVE_CHECK, "u", 77);
	world_run();
	ok = ok && peer_expect(&p, MUX_S_ALIVE, "uu", 77, (uint32_t)getpid());
	peer_close(&p);
	world_run();
	return ok;
}

/* ----- sessions ----- */

struct session {
	struct peer p;
	int in, out, err;		/* our ends */
	int id;				/* the master's channel */
	uint32_t remote;		/* the server's */
};

static void session_pipes(struct session *s, int theirs[3])
{
	int a[2], b[2], c[2];
	if (pipe2(a, O_CLOEXEC) || pipe2(b, O_CLOEXEC) || pipe2(c, O_CLOEXEC))
		abort();
	s->in = a[1];
	s->out = b[0];
	s->err = c[0];
	fd_nonblock(s->in);
	fd_nonblock(s->out);
	fd_nonblock(s->err);
	theirs[0] = a[0];
	theirs[1] = b[1];
	theirs[2] = c[1];
}

/* A request for `command` with these descriptors (ours are closed after). */
static void session_request(struct session *s, uint32_t tty, const char *command, int fds[3])
{
	peer_put(&s->p, MUX_C_NEW_SESSION, "usuuuuuss", 9, "", tty, 0, 0, 0, 0x7e, "xterm",
		command);
	for (int i = 0; i < 3; i++) {
		peer_pass(&s->p, fds[i]);
		close(fds[i]);
	}
}

/* Connected, request sent, channel not open yet. */
static bool session_ask(struct session *s, const char *command)
{
	int fds[3];
	memset(s, 0, sizeof *s);
	session_pipes(s, fds);
	bool ok = peer_hello(&s->p);
	session_request(s, 0, command, fds);
	world_run();
	s->id = -1;
	for (int i = 0; i < g.mc.end; i++)
		if (g.mc.slot[i].phase == MX_OPENING && s->id < g.mc.slot[i].channel &&
		    g.ch.slot[g.mc.slot[i].channel].state == CH_OPENING)
			s->id = g.mc.slot[i].channel;
	s->remote = 100 + (uint32_t)s->id;
	return ok;
}

static void session_confirm(struct session *s, uint32_t window, uint32_t packet)
{
	fake_put(SSH_CHANNEL_OPEN_CONFIRMATION, "uuuu", (uint32_t)s->id, s->remote, window, packet);
	world_run();
}

/* A session that runs; everything sent on the way is taken. */
static bool session_open(struct session *s, uint32_t window, uint32_t packet)
{
	bool ok = session_ask(s, "run");
	const struct fake_message *m = fake_take();
	ok = ok && m && m->bytes[0] == SSH_CHANNEL_OPEN;
	session_confirm(s, window, packet);
	ok = ok && fake_expect(SSH_CHANNEL_REQUEST, "usbs", s->remote, "exec", 1, "run");
	ok = ok && peer_expect(&s->p, MUX_S_SESSION_OPENED, "uu", 9, (uint32_t)s->id);
	fake_put(SSH_CHANNEL_SUCCESS, "u", (uint32_t)s->id);
	world_run();
	return ok;
}

static void session_close(struct session *s)
{
	peer_close(&s->p);
	fd_close(&s->in);
	fd_close(&s->out);
	fd_close(&s->err);
}

/* The remote command is over. */
static void session_finish(struct session *s, uint32_t status)
{
	fake_put(SSH_CHANNEL_REQUEST, "usbu", (uint32_t)s->id, "exit-status", 0, status);
	fake_put(SSH_CHANNEL_EOF, "u", (uint32_t)s->id);
	fake_put(SSH_CHANNEL_CLOSE, "u", (uint32_t)s->id);
	world_run();
}

static bool session_ended(struct session *s, uint32_t status)
{
	return peer_expect(&s->p, MUX_S_EXIT_MESSAGE, "uu", (uint32_t)s->id, status) &&
		peer_gone(&s->p);
}

/* The server sends until the reader's pipe is full and bytes wait in the pool.
 * The nth byte is n. */
static uint32_t session_stall(struct session *s)
{
	uint8_t bytes[200];
	uint32_t n = 0;
	const struct channel *c = &g.ch.slot[s->id];
	for (int i = 0; i < 2000 && c->queue[CH_OUT].len == 0; i++) {
		uint32_t part = c->window < sizeof bytes ? c->window : sizeof bytes;
		for (uint32_t k = 0; k < part; k++)
			bytes[k] = (uint8_t)(n + k);
		n += part;
		fake_put(SSH_CHANNEL_DATA, "uS", (uint32_t)s->id, bytes, (size_t)part);
		world_run();
	}
	return n;
}

/* Answers whatever closes channels still, so that they become free. */
static void world_server_closes(void)
{
	for (int i = 0; i < g.ch.end; i++) {
		if (g.ch.slot[i].state == CH_OPENING)
			fake_put(SSH_CHANNEL_OPEN_FAILURE, "uuss", (uint32_t)i, 2, "", "");
		else if (ch_is_open(&g.ch.slot[i]) && g.ch.slot[i].rcvd < CH_CLOSED)
			fake_put(SSH_CHANNEL_CLOSE, "u", (uint32_t)i);
	}
	world_run();
	world_run();
}
