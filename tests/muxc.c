/* muxc - a scripted peer on a control socket, for what stock programs never do.
 *
 * usage: muxc PATH WORD...        a client of the master at PATH
 *        muxc -l PATH WORD...     a master listening at PATH
 *
 * Words, executed from left to right; the first that fails ends the script
 * with status 1 and a line on stderr:
 *
 *   hello                 send HELLO version 4
 *   send TYPE FIELD...    send a frame
 *   raw FIELD...          send the fields alone, no frame around them
 *   bytewise              from here on one byte per write
 *   fd N...               pass descriptors, one per message
 *   fds N...              pass descriptors, all in one message
 *   forget N              close a descriptor of ours
 *   expect TYPE FIELD...  the next frame; "..." ignores the rest of it, and as
 *                         TYPE any frame; other fields must match to the end
 *   eof                   the peer closes, nothing before it
 *   quiet MS              nothing comes within MS milliseconds
 *   frames                print what comes until the peer closes
 *   drain                 read until the peer closes, whatever comes
 *   flood N               send N ALIVE_CHECKs without reading any answer
 *   wait FILE             until FILE exists
 *   touch FILE            create FILE
 *   connect               one more connection, the current one stays open
 *   close                 close the current connection
 *   shut                  half close: no more writing
 *   accept                (with -l) take the next connection
 *   take N                receive N descriptors, one per message
 *   write I TEXT          to the I-th descriptor received
 *   drop                  close the received descriptors
 *   timeout S             for every later wait, 20 at first
 *   die                   kill -9 itself
 *
 * Fields: NUMBER (uint32), :TEXT (string), +N (string of N letters), =HEX
 * (bytes as they are), @x (uint32 kept under the letter x by the first
 * expect, compared or sent later), * (expect: any uint32), :* (any string),
 * pid (expect: a running process).
 *
 * Every frame that comes is printed to stdout as TYPE and words in hex.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define FRAME_MAX (1 << 21)

static int sock = -1, listener = -1;
static const char *path;
static long deadline_ms = 20000;
static bool bytewise;
static uint8_t out[FRAME_MAX], in[FRAME_MAX];
static size_t out_len, in_len;
static uint32_t kept[256];
static bool is_kept[256];
static int taken[16];
static size_t n_taken;

static void fail(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fputs("muxc: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

static long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000L + t.tv_nsec / 1000000;
}

static uint32_t number(const char *s)
{
	char *end;
	unsigned long v;

	if (!s)
		fail("a number is missing");
	errno = 0;
	v = strtoul(s, &end, 0);
	if (*end || end == s || errno || v > 0xffffffffUL)
		fail("not a number: %s", s);
	return (uint32_t)v;
}

/* Fields begin with a character that no word begins with; "pid" and "..." are
 * fields too. */
static bool is_field(const char *s)
{
	return s && ((*s >= '0' && *s <= '9') || (*s && strchr(":+=@*", *s)) ||
	    !strcmp(s, "pid") || !strcmp(s, "..."));
}

/* --- sending --------------------------------------------------------------- */

static void put(const void *p, size_t n)
{
	if (n > sizeof(out) - out_len)
		fail("frame too long");
	memcpy(out + out_len, p, n);
	out_len += n;
}

static void put32(uint32_t v)
{
	uint8_t b[4] = { v >> 24, v >> 16, v >> 8, v };

	put(b, 4);
}

static void put_field(const char *s)
{
	static char fill[FRAME_MAX];
	unsigned byte;
	size_t n;

	switch (*s) {
	case ':':
		n = strlen(s + 1);
		put32((uint32_t)n);
		put(s + 1, n);
		break;
	case '+':
		n = number(s + 1);
		if (n > sizeof(fill))
			fail("too long: %s", s);
		memset(fill, 'x', n);
		put32((uint32_t)n);
		put(fill, n);
		break;
	case '=':
		for (s++; sscanf(s, "%2x", &byte) == 1 && s[1]; s += 2)
			put(&(uint8_t){ (uint8_t)byte }, 1);
		if (*s)
			fail("not hex: %s", s);
		break;
	case '@':
		if (!is_kept[(uint8_t)s[1]])
			fail("nothing kept under %s", s);
		put32(kept[(uint8_t)s[1]]);
		break;
	default:
		put32(number(s));
	}
}

/* Writes all of `out`.  A peer that has gone away is no failure here: what it
 * had to say is for the words that read. */
static void flush_out(void)
{
	long end = now() + deadline_ms;
	size_t done = 0;

	while (done < out_len) {
		struct pollfd p = { sock, POLLOUT, 0 };
		ssize_t n = send(sock, out + done, bytewise ? 1 : out_len - done,
		    MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n >= 0)
			done += (size_t)n;
		else if (errno != EAGAIN && errno != EINTR)
			break;
		else if (now() > end)
			fail("peer does not read");
		else
			poll(&p, 1, 100);
	}
	out_len = 0;
}

static char **send_frame(char **w, bool framed)
{
	if (framed)
		put32(0);
	if (framed && !is_field(*w))
		fail("send: a type is missing");
	while (is_field(*w))
		put_field(*w++);
	if (framed) {
		size_t n = out_len;

		out_len = 0;
		put32((uint32_t)(n - 4));
		out_len = n;
	}
	flush_out();
	return w;
}

static void pass(const int *fd, size_t n)
{
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(sizeof(int) * 16)];
	} u;
	struct iovec iov = { "", 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = &u, .msg_controllen = CMSG_SPACE(sizeof(int) * n) };

	memset(&u, 0, sizeof(u));
	u.h.cmsg_level = SOL_SOCKET;
	u.h.cmsg_type = SCM_RIGHTS;
	u.h.cmsg_len = CMSG_LEN(sizeof(int) * n);
	memcpy(CMSG_DATA(&u.h), fd, sizeof(int) * n);
	if (sendmsg(sock, &m, MSG_NOSIGNAL) != 1 && errno != EPIPE &&
	    errno != ECONNRESET)
		fail("sendmsg: %s", strerror(errno));
}

static char **pass_list(char **w, bool together)
{
	int fd[16];
	size_t n = 0;

	while (is_field(*w)) {
		if (n == 16)
			fail("too many descriptors");
		fd[n++] = (int)number(*w++);
		if (!together)
			pass(&fd[--n], 1);
	}
	if (n)
		pass(fd, n);
	return w;
}

/* --- receiving ------------------------------------------------------------- */

/* Reads n bytes exactly, so that descriptors stay in the socket.  Returns what
 * came before the peer closed. */
static size_t get(uint8_t *p, size_t n, long end)
{
	size_t have = 0;

	while (have < n) {
		struct pollfd q = { sock, POLLIN, 0 };
		long left = end - now();
		ssize_t r;

		if (left <= 0 || poll(&q, 1, (int)left) == 0)
			fail("nothing came within %ld ms", deadline_ms);
		r = recv(sock, p + have, n - have, 0);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			break;
		have += (size_t)r;
	}
	return have;
}

static uint32_t word_at(size_t at)
{
	if (in_len - at < 4 || at > in_len)
		fail("frame too short");
	return (uint32_t)in[at] << 24 | (uint32_t)in[at + 1] << 16 |
	    (uint32_t)in[at + 2] << 8 | in[at + 3];
}

/* Reads and prints one frame; false at the end of the connection. */
static bool get_frame(void)
{
	long end = now() + deadline_ms;
	size_t got = get(in, 4, end), i;

	if (got == 0)
		return false;
	in_len = got;
	uint32_t n = got == 4 ? word_at(0) : 0;
	if (n < 4 || n > sizeof(in) || get(in, n, end) != n)
		fail("incomplete frame");
	in_len = n;
	for (i = 0; i + 4 <= n; i += 4)
		printf("%s%08x", i ? " " : "", word_at(i));
	for (; i < n; i++)
		printf(" %02x", in[i]);
	putchar('\n');
	return true;
}

static size_t match(size_t at, const char *s)
{
	uint32_t v = word_at(at);
	size_t n;

	switch (*s) {
	case ':':
	case '+':
		at += 4;
		if (v > in_len - at)
			fail("string too long for its frame");
		n = *s == '+' ? number(s + 1) : strlen(s + 1);
		if (!strcmp(s, ":*"))
			return at + v;
		if (v != n || (*s == ':' && memcmp(in + at, s + 1, n)))
			fail("expected %s, got \"%.*s\"", s, (int)v, in + at);
		return at + v;
	case '*':
		break;
	case 'p':
		if (v < 2 || (kill((pid_t)v, 0) && errno == ESRCH))
			fail("%u is no process", v);
		break;
	case '@':
		if (!is_kept[(uint8_t)s[1]]) {
			is_kept[(uint8_t)s[1]] = true;
			kept[(uint8_t)s[1]] = v;
		}
		if (v != kept[(uint8_t)s[1]])
			fail("expected %s = %u, got %u", s, kept[(uint8_t)s[1]], v);
		break;
	default:
		if (v != number(s))
			fail("expected %s, got 0x%08x", s, v);
	}
	return at + 4;
}

static char **expect(char **w)
{
	size_t at = 0;

	if (!get_frame())
		fail("expected a frame of type %s, the peer closed", *w);
	for (; is_field(*w); w++) {
		if (!strcmp(*w, "...")) {
			at = in_len;
			continue;
		}
		at = match(at, *w);
	}
	if (at != in_len)
		fail("%zu bytes more than expected", in_len - at);
	return w;
}

static void expect_eof(void)
{
	uint8_t byte;

	if (get(&byte, 1, now() + deadline_ms))
		fail("expected the end, got data");
}

static void expect_quiet(uint32_t ms)
{
	struct pollfd p = { sock, POLLIN, 0 };

	if (poll(&p, 1, (int)ms))
		fail("expected nothing, but something came");
}

static void drain(void)
{
	long end = now() + deadline_ms;

	while (get(in, 1, end))
		;
}

static void take(uint32_t count)
{
	for (; count; count--) {
		union {
			struct cmsghdr h;
			char space[CMSG_SPACE(sizeof(int))];
		} u;
		char byte;
		struct iovec iov = { &byte, 1 };
		struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1,
			.msg_control = &u, .msg_controllen = sizeof(u) };
		struct pollfd p = { sock, POLLIN, 0 };

		if (n_taken == 16 || poll(&p, 1, (int)deadline_ms) != 1 ||
		    recvmsg(sock, &m, 0) != 1 || !CMSG_FIRSTHDR(&m))
			fail("no descriptor came");
		memcpy(&taken[n_taken++], CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(int));
	}
}

/* --- connections and files ------------------------------------------------- */

static void open_socket(bool listening)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int s = socket(AF_UNIX, SOCK_STREAM, 0);

	if (strlen(path) + 4 >= sizeof(a.sun_path))
		fail("path too long");
	sprintf(a.sun_path, "%s%s", path, listening ? ".new" : "");
	if (listening) {	/* it has its name when it listens */
		if (bind(s, (struct sockaddr *)&a, sizeof(a)) || listen(s, 16) ||
			rename(a.sun_path, path))
			fail("%s: %s", path, strerror(errno));
		listener = s;
		return;
	}
	if (connect(s, (struct sockaddr *)&a, sizeof(a)))
		fail("%s: %s", path, strerror(errno));
	sock = s;
}

static void accept_one(void)
{
	struct pollfd p = { listener, POLLIN, 0 };

	if (poll(&p, 1, (int)deadline_ms) != 1)
		fail("no client came");
	sock = accept(listener, NULL, NULL);
	if (sock < 0)
		fail("accept: %s", strerror(errno));
}

static void wait_file(const char *name)
{
	long end = now() + deadline_ms;

	if (!name)
		fail("wait: a file is missing");
	while (access(name, F_OK)) {
		if (now() > end)
			fail("%s did not appear", name);
		poll(NULL, 0, 10);
	}
}

static void touch(const char *name)
{
	int fd = name ? open(name, O_WRONLY | O_CREAT, 0600) : -1;

	if (fd < 0)
		fail("cannot create a file");
	close(fd);
}

static void write_taken(uint32_t i, const char *text)
{
	if (i >= n_taken || !text ||
	    write(taken[i], text, strlen(text)) != (ssize_t)strlen(text))
		fail("cannot write to descriptor %u", i);
}

static void flood(uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		put32(8);
		put32(0x10000004);
		put32(i);
	}
	flush_out();
}

static char **step(char **w)
{
	const char *c = *w++;

	if (!strcmp(c, "hello")) {
		char *words[] = { "1", "4", NULL };
		send_frame(words, true);
	} else if (!strcmp(c, "send"))
		return send_frame(w, true);
	else if (!strcmp(c, "raw"))
		return send_frame(w, false);
	else if (!strcmp(c, "bytewise"))
		bytewise = true;
	else if (!strcmp(c, "fd"))
		return pass_list(w, false);
	else if (!strcmp(c, "fds"))
		return pass_list(w, true);
	else if (!strcmp(c, "forget"))
		close((int)number(*w++));
	else if (!strcmp(c, "expect"))
		return expect(w);
	else if (!strcmp(c, "eof"))
		expect_eof();
	else if (!strcmp(c, "quiet"))
		expect_quiet(number(*w++));
	else if (!strcmp(c, "frames"))
		while (get_frame())
			;
	else if (!strcmp(c, "drain"))
		drain();
	else if (!strcmp(c, "flood"))
		flood(number(*w++));
	else if (!strcmp(c, "wait"))
		wait_file(*w++);
	else if (!strcmp(c, "touch"))
		touch(*w++);
	else if (!strcmp(c, "connect"))
		open_socket(false);
	else if (!strcmp(c, "close"))
		close(sock);
	else if (!strcmp(c, "shut"))
		shutdown(sock, SHUT_WR);
	else if (!strcmp(c, "accept"))
		accept_one();
	else if (!strcmp(c, "take"))
		take(number(*w++));
	else if (!strcmp(c, "write")) {
		uint32_t i = number(*w++);
		write_taken(i, *w++);
	} else if (!strcmp(c, "drop"))
		while (n_taken)
			close(taken[--n_taken]);
	else if (!strcmp(c, "timeout"))
		deadline_ms = 1000L * number(*w++);
	else if (!strcmp(c, "die"))
		raise(SIGKILL);
	else
		fail("unknown word: %s", c);
	return w;
}

int main(int argc, char **argv)
{
	bool master = argc > 2 && !strcmp(argv[1], "-l");
	char **w = argv + (master ? 3 : 2);

	if (argc < 3)
		fail("usage: muxc [-l] PATH WORD...");
	path = argv[master ? 2 : 1];
	open_socket(master);
	while (*w)
		w = step(w);
	return 0;
}
