/* link - a loopback TCP relay that plays the bad network of a router.
 *
 *   link [OPTION...] serve ADDRESS:PORT FILE CONTROL TARGET
 *        listens (port 0: any), writes the port to FILE, relays to 127.0.0.1's
 *        port TARGET (or ADDRESS:PORT), takes commands on the unix socket
 *        CONTROL.  Ends on TERM.
 *   link hole ADDRESS:PORT FILE      takes UDP and never answers; writes the port too
 *   link CONTROL COMMAND...     one command; prints the answer, status 0 if it is
 *        done by then
 *
 * Options: -rate BITS  bits per second, each way     -delay MS  one way
 *          -narrow     at most 4 KB wait before the link, the sockets' buffers
 *                      included: what waits, waits in who sends
 *
 * Commands:
 *   cut             resets what is connected
 *   orphan          resets our side only: the server keeps waiting, until "bury"
 *   bury            ends what the server still has
 *   hangup          ends it orderly, without waiting for what is under way
 *   freeze, thaw    nothing moves, nobody is told; new connections are silent too
 *   refuse, accept  the port is closed, is open again
 *   target TARGET   where new connections go
 *   rate BITS, delay MS
 *   damage N        a bit of the Nth byte from now that comes down is changed
 *   status          "open N, accepted N, up BYTES, down BYTES"
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PAIRS 256		/* connections at once */
#define PIECE 1448		/* bytes that travel together */
#define FLIGHT (1 << 20)	/* bytes on their way, at most */
#define PIECES (FLIGHT / 256)
#define QUEUE 4096		/* narrow: before the link */
#define CATCH_UP 20000000	/* ns of lateness of ours that the rate makes good */

/* One way of a connection: a ring of bytes, and when each piece arrives. */
struct way {
	uint8_t *bytes;
	struct { int64_t due; size_t left; } piece[PIECES];
	size_t at, used, first, pieces;
	bool ended, shut;	/* the sender has ended; the receiver knows */
};

struct pair {
	int fd[2];		/* who connected to us, whom we connected to */
	struct way way[2];	/* way[i]: from fd[i] to fd[1 - i] */
};

static struct pair *pair[PAIRS];
static int orphan[PAIRS], n_orphans;	/* descriptors to the server */
static int listener = -1, control = -1, n_pairs, turn;
static struct sockaddr_in here, target;
static bool frozen, narrow;
static int64_t rate, delay, now;	/* bits per second; ns; ns */
static int64_t free_at[2];	/* when the link takes the next piece, up and down */
static uint64_t moved[2], accepted;
static int64_t damage;		/* bytes down until one is changed, that one included */
static volatile sig_atomic_t stop;

static void fail(const char *fmt, ...)
{
	va_list ap;

	fputs("link: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

static int64_t nanoseconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* [ADDRESS:]PORT */
static struct sockaddr_in address(const char *text)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	const char *colon = strrchr(text, ':');
	char host[64] = "127.0.0.1";

	if (colon)
		snprintf(host, sizeof host, "%.*s", (int)(colon - text), text);
	a.sin_port = htons((uint16_t)atoi(colon ? colon + 1 : text));
	if (inet_pton(AF_INET, host, &a.sin_addr) != 1)
		fail("no address: %s", text);
	return a;
}

/* The kernel's queue for what we are to read: set before there is a connection,
 * it bounds the window, which is half of it, from the first byte on. */
static void squeeze(int fd)
{
	int buffer = QUEUE, segment = PIECE;

	if (narrow && (setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer) != 0 ||
		       setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment) != 0))
		fail("narrow: %s", strerror(errno));
}

static void open_listener(void)
{
	int on = 1;

	listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	squeeze(listener);
	if (bind(listener, (struct sockaddr *)&here, sizeof here) != 0 ||
		listen(listener, 128) != 0)
		fail("port %d: %s", ntohs(here.sin_port), strerror(errno));
	socklen_t len = sizeof here;
	getsockname(listener, (struct sockaddr *)&here, &len);
}

/* `hard`: by a reset */
static void end_pair(int i, bool hard)
{
	struct linger l = { .l_onoff = 1 };

	for (int k = 0; k < 2; k++) {
		if (hard)
			setsockopt(pair[i]->fd[k], SOL_SOCKET, SO_LINGER, &l, sizeof l);
		close(pair[i]->fd[k]);
		free(pair[i]->way[k].bytes);
	}
	free(pair[i]);
	pair[i] = pair[--n_pairs];
	pair[n_pairs] = NULL;
}

static void end_all(bool hard)
{
	while (n_pairs > 0)
		end_pair(n_pairs - 1, hard);
}

static void make_orphans(void)
{
	while (n_pairs > 0) {
		if (n_orphans < PAIRS)
			orphan[n_orphans++] = dup(pair[n_pairs - 1]->fd[1]);
		end_pair(n_pairs - 1, true);
	}
}

static void bury(void)
{
	while (n_orphans > 0)
		close(orphan[--n_orphans]);
}

static void take_one(void)
{
	int on = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0)
		return;
	accepted++;
	int to = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	squeeze(to);
	if (n_pairs == PAIRS || to < 0 || connect(to, (struct sockaddr *)&target,
		sizeof target) != 0) {
		struct linger l = { .l_onoff = 1 };
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
		close(fd);
		if (to >= 0)
			close(to);
		return;
	}
	fcntl(to, F_SETFL, O_NONBLOCK);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	setsockopt(to, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	struct pair *p = calloc(1, sizeof *p);
	for (int k = 0; p && k < 2; k++) {
		p->way[k].bytes = malloc(FLIGHT);
		if (!p->way[k].bytes)
			p = NULL;
	}
	if (!p)
		fail("no memory");
	p->fd[0] = fd;
	p->fd[1] = to;
	pair[n_pairs++] = p;
}

/* Bytes that may be under way at once: what the delay holds, and one piece. */
static size_t room(const struct way *w)
{
	int64_t most = rate ? rate / 8 * (delay / 1000) / 1000000 + PIECE : FLIGHT;

	if (most > FLIGHT)
		most = FLIGHT;
	return w->pieces == PIECES || (int64_t)w->used >= most ? 0 : (size_t)most - w->used;
}

static bool may_read(const struct pair *p, int k)
{
	const struct way *w = &p->way[k];

	return !frozen && !w->ended && room(w) >= (rate ? PIECE : 1) &&
		(!rate || now >= free_at[k]);
}

static bool may_write(const struct pair *p, int k)
{
	const struct way *w = &p->way[k];

	return !frozen && w->pieces > 0 && now >= w->piece[w->first].due;
}

/* False if the connection is broken. */
static bool take(struct pair *p, int k)
{
	struct way *w = &p->way[k];
	size_t end = (w->at + w->used) % FLIGHT, most = room(w);

	if (most > FLIGHT - end)
		most = FLIGHT - end;
	if (rate && most > PIECE)
		most = PIECE;
	ssize_t n = read(p->fd[k], w->bytes + end, most);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (n == 0) {
		w->ended = true;
		return true;
	}
	if (k == 1 && damage > 0 && damage <= n)
		w->bytes[end + (size_t)damage - 1] ^= 1;
	if (k == 1)
		damage -= n;
	int64_t start = now;
	if (rate && now - free_at[k] < CATCH_UP)
		start = free_at[k];
	if (rate)
		free_at[k] = start + n * 8 * 1000000000 / rate;
	size_t last = (w->first + w->pieces++) % PIECES;
	w->piece[last].due = (rate ? free_at[k] : now) + delay;
	w->piece[last].left = (size_t)n;
	w->used += (size_t)n;
	moved[k] += (uint64_t)n;
	return true;
}

static bool give(struct pair *p, int k)
{
	struct way *w = &p->way[k];
	size_t most = w->piece[w->first].left;

	if (most > FLIGHT - w->at)
		most = FLIGHT - w->at;
	ssize_t n = send(p->fd[1 - k], w->bytes + w->at, most, MSG_NOSIGNAL);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	w->at = (w->at + (size_t)n) % FLIGHT;
	w->used -= (size_t)n;
	w->piece[w->first].left -= (size_t)n;
	if (w->piece[w->first].left == 0) {
		w->first = (w->first + 1) % PIECES;
		w->pieces--;
	}
	return true;
}

/* Moves what can be moved; false when the pair is at its end. */
static bool serve_pair(struct pair *p)
{
	for (int k = 0; k < 2; k++) {
		struct way *w = &p->way[k];
		while (may_write(p, k)) {
			size_t used = w->used;
			if (!give(p, k))
				return false;
			if (w->used == used)
				break;
		}
		if (may_read(p, k)) {
			if (!take(p, k))
				return false;
			while (may_write(p, k)) {
				size_t used = w->used;
				if (!give(p, k))
					return false;
				if (w->used == used)
					break;
			}
		}
		if (!frozen && w->ended && w->pieces == 0 && !w->shut) {
			shutdown(p->fd[1 - k], SHUT_WR);
			w->shut = true;
		}
	}
	return !(p->way[0].shut && p->way[1].shut);
}

static void command(char *text, char *answer, size_t max)
{
	char *word = strtok(text, " \n"), *value = strtok(NULL, " \n");

	snprintf(answer, max, "done");
	if (!word)
		word = "";
	if (strcmp(word, "cut") == 0)
		end_all(true);
	else if (strcmp(word, "hangup") == 0)
		end_all(false);
	else if (strcmp(word, "orphan") == 0)
		make_orphans();
	else if (strcmp(word, "bury") == 0)
		bury();
	else if (strcmp(word, "freeze") == 0 || strcmp(word, "thaw") == 0)
		frozen = word[0] == 'f';
	else if (strcmp(word, "refuse") == 0 && listener >= 0) {
		close(listener);
		listener = -1;
	} else if (strcmp(word, "accept") == 0 && listener < 0)
		open_listener();
	else if (strcmp(word, "target") == 0 && value)
		target = address(value);
	else if (strcmp(word, "rate") == 0 && value)
		rate = atoll(value);
	else if (strcmp(word, "delay") == 0 && value)
		delay = atoll(value) * 1000000;
	else if (strcmp(word, "damage") == 0 && value)
		damage = atoll(value);
	else if (strcmp(word, "status") == 0)
		snprintf(answer, max, "open %d, accepted %llu, up %llu, down %llu", n_pairs,
			 (unsigned long long)accepted, (unsigned long long)moved[0],
			 (unsigned long long)moved[1]);
	else
		snprintf(answer, max, "bad command");
}

static void serve_control(void)
{
	char text[256], answer[256];
	int fd = accept4(control, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return;
	ssize_t n = read(fd, text, sizeof text - 1);
	if (n > 0) {
		text[n] = 0;
		command(text, answer, sizeof answer - 1);
		strcat(answer, "\n");
		(void)!write(fd, answer, strlen(answer));
	}
	close(fd);
}

/* When something will be due that no descriptor announces. */
static int64_t next_event(void)
{
	int64_t at = INT64_MAX;

	for (int i = 0; i < n_pairs && !frozen; i++)
		for (int k = 0; k < 2; k++) {
			const struct way *w = &pair[i]->way[k];
			if (w->pieces && w->piece[w->first].due > now &&
				w->piece[w->first].due < at)
				at = w->piece[w->first].due;
			if (rate && !w->ended && free_at[k] > now && free_at[k] < at)
				at = free_at[k];
		}
	return at;
}

static void turn_once(void)
{
	static struct pollfd p[2 + 2 * PAIRS];
	int n = 0;

	now = nanoseconds();
	p[n++] = (struct pollfd){ .fd = control, .events = POLLIN };
	p[n++] = (struct pollfd){ .fd = frozen ? -1 : listener, .events = POLLIN };
	for (int i = 0; i < n_pairs; i++)
		for (int k = 0; k < 2; k++) {
			short events = (short)((may_read(pair[i], k) ? POLLIN : 0) |
				(may_write(pair[i], 1 - k) ? POLLOUT : 0));
			p[n++] = (struct pollfd){ .fd = events ? pair[i]->fd[k] : -1,
				.events = events };
		}
	int64_t at = next_event(), wait = at - now;
	struct timespec t = { wait / 1000000000, wait % 1000000000 };
	if (ppoll(p, (nfds_t)n, at == INT64_MAX ? NULL : &t, NULL) < 0)
		return;
	now = nanoseconds();
	/* The link's turn goes round. */
	turn = n_pairs ? (turn + 1) % n_pairs : 0;
	for (int i = n_pairs - 1; i >= 0; i--) {
		int at_pair = (i + turn) % n_pairs;
		if (!serve_pair(pair[at_pair])) {
			end_pair(at_pair, pair[at_pair]->way[0].shut && pair[at_pair]->way[1].shut ?
				false : true);
			break;
		}
	}
	if (p[1].revents)
		take_one();
	if (p[0].revents)
		serve_control();
}

static void on_term(int number)
{
	(void)number;
	stop = 1;
}

static int ask(const char *path, int n, char **words)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	char text[256] = "";
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
	for (int i = 0; i < n; i++)
		snprintf(text + strlen(text), sizeof text - strlen(text), "%s ", words[i]);
	if (connect(fd, (struct sockaddr *)&a, sizeof a) != 0)
		fail("%s: %s", path, strerror(errno));
	(void)!write(fd, text, strlen(text));
	ssize_t got = read(fd, text, sizeof text - 1);
	if (got <= 0)
		fail("no answer");
	text[got] = 0;
	fputs(text, stdout);
	return strncmp(text, "bad", 3) == 0;
}

/* The file is whole when it is there. */
static void tell_port(const char *file)
{
	char part[256];

	snprintf(part, sizeof part, "%s.part", file);
	FILE *f = fopen(part, "w");
	if (!f || fprintf(f, "%d\n", ntohs(here.sin_port)) < 0 || fclose(f) != 0 ||
		rename(part, file) != 0)
		fail("%s: %s", file, strerror(errno));
}

static void hole(char **argv)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	here = address(argv[0]);
	if (bind(fd, (struct sockaddr *)&here, sizeof here) != 0)
		fail("%s: %s", argv[0], strerror(errno));
	tell_port(argv[1]);
	pause();
}

static void serve(char **argv)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	here = address(argv[0]);
	target = address(argv[3]);
	open_listener();
	control = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(a.sun_path, sizeof a.sun_path, "%s", argv[2]);
	if (bind(control, (struct sockaddr *)&a, sizeof a) != 0 || listen(control, 16) != 0)
		fail("%s: %s", argv[2], strerror(errno));
	prctl(PR_SET_TIMERSLACK, 1UL);
	signal(SIGPIPE, SIG_IGN);
	struct sigaction s = { .sa_handler = on_term };
	sigaction(SIGTERM, &s, NULL);
	tell_port(argv[1]);
	while (!stop)
		turn_once();
	end_all(true);
}

int main(int argc, char **argv)
{
	int i = 1;

	for (; i < argc && argv[i][0] == '-'; i++)
		if (strcmp(argv[i], "-narrow") == 0)
			narrow = true;
		else if (strcmp(argv[i], "-rate") == 0 && i + 1 < argc)
			rate = atoll(argv[++i]);
		else if (strcmp(argv[i], "-delay") == 0 && i + 1 < argc)
			delay = atoll(argv[++i]) * 1000000;
		else
			fail("bad option %s", argv[i]);
	if (i + 5 == argc && strcmp(argv[i], "serve") == 0) {
		serve(argv + i + 1);
		return 0;
	}
	if (i + 3 == argc && strcmp(argv[i], "hole") == 0)
		hole(argv + i + 1);
	if (i + 2 > argc)
		fail("usage: link serve ADDRESS:PORT FILE CONTROL TARGET, link CONTROL COMMAND");
	return ask(argv[i], argc - i - 1, argv + i + 1);
}
