/* net - the other end of forwards: servers and clients on loopback.
 *
 * ADDRESS is HOST:PORT ([v6]:PORT), or a path for a unix socket.
 *
 *   net serve ADDRESS FILE COMMAND...   listens (port 0: any), writes the port
 *        to FILE once it does, and runs COMMAND on each connection, its stdin
 *        and stdout.  On TERM it closes the listener and leaves.
 *   net [OPTION...] call ADDRESS        stdin goes there, what comes to stdout.
 *        The end of stdin is a half close; ends when the other side closed.
 *        Status 3 if the connection was reset.
 *   net [OPTION...] many N ADDRESS      N connections at once; each sends a line
 *        of its own, half closes and must get that line back.  Prints how many did.
 *   net shut                            half closes the socket that is stdout
 *   net hold ADDRESS FILE [N]           connects N times, creates FILE, waits for the end
 *   net sink ADDRESS FILE               takes UDP packets, appends a byte to FILE
 *        at the start and for each, answers none
 *
 * Options of call and many:
 *   -s4 HOST:PORT, -s4a, -s5, -s5name   first ask the SOCKS server at ADDRESS to
 *        connect there (-s5: HOST is an address; -s5name, -s4a: a name)
 *   -on         goes on sending when the other side has half closed (stdout is
 *               closed then)
 *   -together   greeting and request in one write
 *   -bytewise   SOCKS words one byte at a time
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
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
#include <sys/wait.h>
#include <unistd.h>

#define DEADLINE_MS 60000

static enum { NONE, SOCKS4, SOCKS4A, SOCKS5, SOCKS5_NAME } socks;
static const char *socks_to;
static bool together, bytewise, go_on;

static void fail(const char *fmt, ...)
{
	va_list ap;

	fputs("net: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

/* Splits HOST:PORT; the host without brackets. */
static const char *split(const char *address, char host[256])
{
	const char *colon = strrchr(address, ':');

	if (!colon || (size_t)(colon - address) >= 256)
		fail("not an address: %s", address);
	memcpy(host, address, (size_t)(colon - address));
	host[colon - address] = 0;
	if (host[0] == '[') {
		memmove(host, host + 1, strlen(host));
		host[strlen(host) - 1] = 0;
	}
	return colon + 1;
}

static int open_socket(const char *address, int type, bool listening)
{
	union { struct sockaddr any; struct sockaddr_un un; struct sockaddr_storage space; } a;
	socklen_t len = sizeof a.un;
	int s, one = 1;

	memset(&a, 0, sizeof a);
	if (address[0] == '/') {
		a.un.sun_family = AF_UNIX;
		if (strlen(address) >= sizeof a.un.sun_path)
			fail("path too long");
		strcpy(a.un.sun_path, address);
	} else {
		struct addrinfo hints = { .ai_socktype = type, .ai_flags = AI_NUMERICHOST }, *r;
		char host[256];
		const char *port = split(address, host);

		if (getaddrinfo(host, port, &hints, &r))
			fail("not an address: %s", address);
		len = r->ai_addrlen;
		memcpy(&a, r->ai_addr, len);
		freeaddrinfo(r);
	}
	s = socket(a.any.sa_family, type | SOCK_CLOEXEC, 0);
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (listening ? bind(s, &a.any, len) || (type == SOCK_STREAM && listen(s, 512)) :
		connect(s, &a.any, len))
		fail("%s: %s", address, strerror(errno));
	return s;
}

/* --- serve ------------------------------------------------------------------ */

static void put_port(int s, const char *file)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof a;
	char port[8] = "0", temp[300];
	FILE *f;

	memset(&a, 0, sizeof a);
	if (getsockname(s, (struct sockaddr *)&a, &len) == 0 && a.ss_family != AF_UNIX)
		getnameinfo((struct sockaddr *)&a, len, NULL, 0, port, sizeof port, NI_NUMERICSERV);
	snprintf(temp, sizeof temp, "%s.new", file);
	f = fopen(temp, "w");
	if (!f || fprintf(f, "%s\n", port) < 0 || fclose(f) || rename(temp, file))
		fail("%s: %s", file, strerror(errno));
}

static void serve(const char *address, const char *file, char **command)
{
	int s = open_socket(address, SOCK_STREAM, true);

	signal(SIGCHLD, SIG_IGN);
	put_port(s, file);
	for (;;) {
		int c = accept4(s, NULL, NULL, SOCK_CLOEXEC);

		if (c < 0)
			continue;
		if (fork() == 0) {
			signal(SIGCHLD, SIG_DFL);
			dup2(c, 0);
			dup2(c, 1);
			execvp(command[0], command);
			_exit(127);
		}
		close(c);
	}
}

/* --- clients ------------------------------------------------------------------ */

static void put_all(int s, const uint8_t *p, size_t n)
{
	while (n > 0) {
		ssize_t w = send(s, p, bytewise ? 1 : n, MSG_NOSIGNAL);

		if (w < 0)
			fail("SOCKS server: %s", strerror(errno));
		p += w;
		n -= (size_t)w;
	}
}

/* Reads exactly n bytes that must begin with `want`. */
static void want(int s, const uint8_t *expected, size_t n_expected, size_t n)
{
	uint8_t got[16];

	for (size_t have = 0; have < n; have++) {
		struct pollfd p = { s, POLLIN, 0 };

		if (poll(&p, 1, DEADLINE_MS) != 1)
			fail("SOCKS server: no answer");
		if (recv(s, got + have, 1, 0) != 1)
			fail("SOCKS server closed the connection");
		if (have < n_expected && got[have] != expected[have])
			fail("SOCKS server: byte %zu is %u", have, got[have]);
	}
}

static size_t socks_request(uint8_t *to)
{
	char host[256];
	const char *port = split(socks_to, host);
	uint16_t number = htons((uint16_t)atoi(port));
	size_t n = strlen(host), at = 4;

	if (socks == SOCKS4 || socks == SOCKS4A) {
		memcpy(to, "\4\1", 2);
		memcpy(to + 2, &number, 2);
		memcpy(to + 4, "\0\0\0\1", 4);
		if (socks == SOCKS4 && inet_pton(AF_INET, host, to + 4) != 1)
			fail("not an IPv4 address: %s", host);
		memcpy(to + 8, "user", 5);
		if (socks == SOCKS4)
			return 13;
		memcpy(to + 13, host, n + 1);
		return 14 + n;
	}
	memcpy(to, "\5\1\0\3", 4);
	if (socks == SOCKS5_NAME) {
		to[4] = (uint8_t)n;
		memcpy(to + 5, host, n);
		at = 5 + n;
	} else if (inet_pton(AF_INET, host, to + 4) == 1) {
		to[3] = 1;
		at = 8;
	} else if (inet_pton(AF_INET6, host, to + 4) == 1) {
		to[3] = 4;
		at = 20;
	} else
		fail("not an address: %s", host);
	memcpy(to + at, &number, 2);
	return at + 2;
}

static void negotiate(int s)
{
	uint8_t request[600] = { 5, 2, 0, 2 };	/* methods: none, password */
	size_t greeting = socks >= SOCKS5 ? 4 : 0, n;

	if (socks == NONE)
		return;
	n = socks_request(request + greeting);
	if (greeting && !together) {
		put_all(s, request, greeting);
		want(s, (const uint8_t *)"\5\0", 2, 2);
		put_all(s, request + greeting, n);
	} else {
		put_all(s, request, greeting + n);
		if (greeting)
			want(s, (const uint8_t *)"\5\0", 2, 2);
	}
	if (greeting)
		want(s, (const uint8_t *)"\5\0\0\1", 4, 10);
	else
		want(s, (const uint8_t *)"\0\132", 2, 8);
}

static int call(const char *address)
{
	static char up[65536], down[65536];
	size_t n_up = 0;
	bool more = true, closed = false;
	int s = open_socket(address, SOCK_STREAM, false);

	negotiate(s);
	for (;;) {
		struct pollfd p[2] = { { s, closed ? 0 : POLLIN, 0 },
			{ more && !n_up ? 0 : -1, POLLIN, 0 } };
		ssize_t n;

		if (n_up)
			p[0].events |= POLLOUT;
		poll(p, 2, -1);
		if (!closed && p[0].revents & (POLLIN | POLLHUP | POLLERR)) {
			n = recv(s, down, sizeof down, MSG_DONTWAIT);
			if (n == 0 && (!go_on || !more))
				return 0;
			if (n == 0) {
				close(1);
				closed = true;
			}
			if (n < 0 && errno != EAGAIN)
				return 3;
			for (ssize_t at = 0, w; n > 0 && at < n; at += w)
				if ((w = write(1, down + at, (size_t)(n - at))) <= 0)
					return 4;
		}
		if (p[1].revents) {
			n = read(0, up, sizeof up);
			more = n > 0;
			n_up = more ? (size_t)n : 0;
			if (!more)
				shutdown(s, SHUT_WR);
			if (!more && closed)
				return 0;
		}
		if (n_up && p[0].revents & POLLOUT) {
			n = send(s, up, n_up, MSG_NOSIGNAL | MSG_DONTWAIT);
			if (n < 0 && errno != EAGAIN)
				n = (ssize_t)n_up;	/* nobody reads: the rest is for nobody */
			if (n > 0)
				memmove(up, up + n, n_up -= (size_t)n);
		}
	}
}

/* N connections, all open before the first line is sent. */
static void many(int n, const char *address)
{
	int *s = calloc((size_t)n, sizeof *s), good = 0;

	for (int i = 0; i < n; i++)
		s[i] = open_socket(address, SOCK_STREAM, false);
	for (int i = 0; i < n; i++) {
		negotiate(s[i]);
		dprintf(s[i], "line %d\n", i);
		shutdown(s[i], SHUT_WR);
	}
	for (int i = 0; i < n; i++) {
		char line[32], got[64];
		size_t have = 0;
		ssize_t r;

		snprintf(line, sizeof line, "line %d\n", i);
		do {
			struct pollfd p = { s[i], POLLIN, 0 };

			r = poll(&p, 1, DEADLINE_MS) == 1 ?
				recv(s[i], got + have, sizeof got - have, 0) : -1;
			have += r > 0 ? (size_t)r : 0;
		} while (r > 0 && have < sizeof got);
		good += r == 0 && have == strlen(line) && !memcmp(got, line, have);
	}
	printf("%d\n", good);
}

static void hold(const char *address, const char *file, int n)
{
	int s = -1;
	char byte;

	for (int i = 0; i < n; i++)
		s = open_socket(address, SOCK_STREAM, false);

	close(open(file, O_WRONLY | O_CREAT, 0600));
	while (recv(s, &byte, 1, 0) > 0)
		;
}

static void sink(const char *address, const char *file)
{
	char packet[2048];
	int s = open_socket(address, SOCK_DGRAM, true),
		f = open(file, O_WRONLY | O_CREAT | O_APPEND, 0600);

	while (write(f, ".", 1) == 1 && recv(s, packet, sizeof packet, 0) >= 0)
		;
}

static char **options(char **w)
{
	static const char *const names[] = { "", "-s4", "-s4a", "-s5", "-s5name" };

	for (; *w && **w == '-'; w++) {
		int i = SOCKS5_NAME;

		if (!strcmp(*w, "-together"))
			together = true;
		else if (!strcmp(*w, "-on"))
			go_on = true;
		else if (!strcmp(*w, "-bytewise"))
			bytewise = true;
		else {
			while (i && strcmp(*w, names[i]))
				i--;
			if (!i || !*++w)
				fail("unknown option");
			socks = i;
			socks_to = *w;
		}
	}
	return w;
}

int main(int argc, char **argv)
{
	char **w = options(argv + 1);
	int n = (int)(argv + argc - w);

	signal(SIGPIPE, SIG_IGN);
	if (n == 1 && !strcmp(w[0], "shut"))
		shutdown(1, SHUT_WR);
	else if (n == 2 && !strcmp(w[0], "call"))
		return call(w[1]);
	else if (n == 3 && !strcmp(w[0], "many"))
		many(atoi(w[1]), w[2]);
	else if ((n == 3 || n == 4) && !strcmp(w[0], "hold"))
		hold(w[1], w[2], n == 4 ? atoi(w[3]) : 1);
	else if (n == 3 && !strcmp(w[0], "sink"))
		sink(w[1], w[2]);
	else if (n >= 4 && !strcmp(w[0], "serve")) {
		signal(SIGPIPE, SIG_DFL);
		serve(w[1], w[2], w + 3);
	} else
		fail("wrong words");
	return 0;
}
