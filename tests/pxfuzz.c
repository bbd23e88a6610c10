/* pxfuzz - a hostile proxy client (PROTOCOL.mux, MUX_C_PROXY).
 *
 * usage: pxfuzz SOCKET COUNT SEED [PORT]
 *
 * Sends COUNT SSH messages to the master at SOCKET, most of them made of good
 * ones by cutting, lengthening, and changing bytes and lengths; connects again
 * whenever the master has dropped it.  PORT is a port that it may forward to and from.
 * Ends with 0 and a line of numbers when all are sent, with 1 when there is no
 * master any more. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
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

static uint32_t seed;
static const char *path;
static int sock = -1;
static uint32_t port, connections, dropped;

/* What the master has said of our channels: their numbers, newest last. */
static uint32_t channels[32];
static unsigned n_channels;

static uint8_t in[1 << 17];
static size_t in_len;
static uint8_t out[70000];
static size_t out_len;

static uint32_t rnd(uint32_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 17;
	seed ^= seed << 5;
	return below ? seed % below : 0;
}

static uint32_t get(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void set(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (24 - 8 * i));
}

/* Appends to `out`: b a byte, u a word, s a string. */
static void put(const char *format, ...)
{
	va_list ap;
	va_start(ap, format);
	for (const char *f = format; *f; f++)
		if (*f == 'b')
			out[out_len++] = (uint8_t)va_arg(ap, int);
		else if (*f == 'u') {
			set(out + out_len, va_arg(ap, uint32_t));
			out_len += 4;
		} else {
			const char *s = va_arg(ap, const char *);
			size_t n = strlen(s);
			set(out + out_len, (uint32_t)n);
			memcpy(out + out_len + 4, s, n);
			out_len += 4 + n;
		}
	va_end(ap);
}

/* Takes the frames that have come, for the numbers of channels. */
static void look(void)
{
	size_t at = 0;
	while (in_len - at >= 4 && in_len - at - 4 >= get(in + at)) {
		size_t n = get(in + at);
		const uint8_t *p = in + at + 4;
		if (n >= 10 && p[1] == 91)
			channels[n_channels++ % 32] = get(p + 6);
		if (n >= 22 && p[1] == 90)		/* the type, then the sender's number */
			channels[n_channels++ % 32] =
				get(p + 6 + (get(p + 2) <= n - 14 ? get(p + 2) : 0));
		at += 4 + n;
	}
	memmove(in, in + at, in_len -= at);
	if (in_len > sizeof in / 2)
		in_len = 0;
}

/* Reads what is there; false when the master has closed. */
static bool drain(int wait_ms)
{
	struct pollfd p = { .fd = sock, .events = POLLIN };
	while (poll(&p, 1, wait_ms) > 0) {
		ssize_t n = read(sock, in + in_len, sizeof in - in_len);
		if (n <= 0)
			return false;
		in_len += (size_t)n;
		look();
		wait_ms = 0;
	}
	return true;
}

/* All of it, reading meanwhile; false when the master has closed. */
static bool send_all(const uint8_t *p, size_t n)
{
	while (n > 0) {
		struct pollfd w = { .fd = sock, .events = POLLIN | POLLOUT };
		if (poll(&w, 1, 20000) <= 0 || (w.revents & POLLIN && !drain(0)))
			return false;
		if (!(w.revents & POLLOUT))
			continue;
		ssize_t k = send(sock, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (k < 0 && errno != EAGAIN)
			return false;
		p += k > 0 ? k : 0;
		n -= k > 0 ? (size_t)k : 0;
	}
	return true;
}

static bool begin(void)
{
	static const uint8_t words[] = { 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 8, 0x10, 0, 0,
		15, 0, 0, 0, 7 };
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	if (sock >= 0)
		close(sock);
	snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
	sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (sock < 0 || connect(sock, (struct sockaddr *)&a, sizeof a) != 0 ||
	    send(sock, words, sizeof words, MSG_NOSIGNAL) != (ssize_t)sizeof words)
		return false;
	connections++;
	n_channels = 0;
	in_len = 0;
	/* HELLO and PROXY, which are no frames of SSH messages */
	for (int i = 0; i < 400; i++) {
		struct pollfd p = { .fd = sock, .events = POLLIN };
		if (poll(&p, 1, 50) <= 0)
			continue;
		ssize_t n = read(sock, in + in_len, sizeof in - in_len);
		if (n <= 0)
			return false;
		in_len += (size_t)n;
		size_t hello = in_len >= 4 ? 4 + get(in) : sizeof in;
		if (in_len >= hello + 12) {
			in_len = 0;
			return true;
		}
	}
	return false;
}

static uint32_t channel(void)
{
	unsigned have = n_channels < 32 ? n_channels : 32;
	return have && rnd(100) ? channels[(n_channels - 1 - rnd(rnd(3) ? 1 : have)) % 32] :
		rnd(40);
}

/* A request of a good form, most of them for things that begin nothing. */
static void request(void)
{
	static const char *const plain[] = { "auth-agent-req@openssh.com", "agent-req",
		"eow@openssh.com", "keepalive@openssh.com", "shell" };
	int reply = rnd(2) != 0;
	uint32_t kind = rnd(12), starts = rnd(25) == 0;	/* what costs a process is rare */
	put("u", channel());
	if (!starts && (kind == 3 || kind == 4))
		kind = 2;
	switch (kind) {
	case 0: put("sbsuuuub", "pty-req", reply, "xterm", 80u, 24u, 0u, 0u, 0); out_len--;
		put("ubub", 6u, 1, 3u, 0); break;
	case 1: put("sbbssu", "x11-req", reply, 0, "MIT-MAGIC-COOKIE-1",
		"00112233445566778899aabbccddeeff", 0u); break;
	case 2: put("sbss", "env", reply, "LC_FUZZ", "value"); break;
	case 3: put("sbs", "exec", reply, rnd(2) ? "exec true" : "exec sleep 0.1"); break;
	case 4: put("sbs", "subsystem", reply, "nothing"); break;
	case 5: put("sbuuuu", "window-change", reply, 80u, 24u, 0u, 0u); break;
	case 6: put("sbs", "signal", reply, "USR1"); break;
	case 7: put("sbu", "break", reply, 10u); break;
	case 8: put("sbu", "unheard-of", reply, 7u); break;
	default: put("sb", plain[rnd(4 + starts)], reply);
	}
}

static void open_channel(void)
{
	uint32_t window = rnd(4) ? 65536 : rnd(3) ? 10 : 0xffffffff;
	switch (rnd(8)) {
	case 0: put("suuususu", "direct-tcpip", rnd(99), window, 32768u, "127.0.0.1", rnd(3) ?
		port : 1u, "127.0.0.1", 5u); break;
	case 1: put("suuussu", "direct-streamlocal@openssh.com", rnd(99), window, 32768u,
		"/nowhere", "", 0u); break;
	case 2: put("suuuuu", "tun@openssh.com", rnd(99), window, 32768u, 1u, 1u); break;
	case 3: put("suuus", "unheard-of", rnd(99), window, 32768u, "more"); break;
	default: put("suuu", "session", rnd(99), window, rnd(5) ? 32768u : rnd(10));
	}
}

/* One good message, its type first. */
static void compose(void)
{
	/* first a channel */
	uint32_t kind = n_channels ? rnd(20) : rnd(40) ? rnd(6) : rnd(20);
	out_len = 6;
	if (kind < 6) {
		put("b", 90);
		open_channel();
	} else if (kind < 12) {
		put("b", 98);
		request();
	} else switch (kind) {
	case 12: put("bus", 94, channel(), "data"); break;
	case 13: put("buus", 95, channel(), 1u, "data"); break;
	case 14: put("bu", 96, channel()); break;
	case 15: put("bu", 97, channel()); break;
	case 16: put("buu", 93, channel(), rnd(3) ? 1000u : 0xffffffffu); break;
	case 17: put("bu", rnd(2) ? 99 : 100, channel()); break;
	case 18:
		put("bsbsu", 80, rnd(2) ? "tcpip-forward" : "cancel-tcpip-forward", (int)rnd(2),
			"127.0.0.1", rnd(2) ? port + 1 + rnd(3) : 0u);
		break;
	default:
		if (rnd(2))
			put("buuuu", 91, channel(), rnd(50), 65536u, 32768u);
		else
			put("buuss", 92, channel(), 1u, "no", "");
	}
}

/* Changes one thing or none; out[6] is the type. */
static void spoil(void)
{
	static const uint32_t odd[] = { 0, 1, 0xff, 0x7fffffff, 0x80000000, 0xffffffff, 9001,
		65536 };
	size_t n = out_len - 7;
	switch (rnd(20)) {
	case 0: out_len = 7 + rnd((uint32_t)n + 1); break;
	case 1: case 2:
		for (uint32_t more = 1 + rnd(rnd(8) ? 8 : 9990); more; more--)
			out[out_len++] = (uint8_t)rnd(rnd(2) ? 256 : 1);
		break;
	case 3: if (n) out[7 + rnd((uint32_t)n)] = (uint8_t)rnd(256); break;
	case 4: if (n) out[7 + rnd((uint32_t)n)] = 0; break;
	case 5: if (n >= 4) set(out + 7 + rnd((uint32_t)n - 3), odd[rnd(8)]); break;
	case 6: if (rnd(4) == 0) out[6] = (uint8_t)(rnd(4) ? 80 + rnd(48) : rnd(256)); break;
	default: break;
	}
}

int main(int argc, char **argv)
{
	if (argc < 4) {
		fprintf(stderr, "usage: pxfuzz SOCKET COUNT SEED [PORT]\n");
		return 2;
	}
	path = argv[1];
	long count = atol(argv[2]), sent = 0;
	seed = (uint32_t)strtoul(argv[3], NULL, 10) * 2654435761u | 1;
	port = argc > 4 ? (uint32_t)atoi(argv[4]) : 1;
	for (int failures = 0; sent < count && failures < 100;) {
		if (!begin()) {
			failures++;
			usleep(100000);
			continue;
		}
		failures = 0;
		for (bool ok = true; ok && sent < count; sent++) {
			compose();
			spoil();
			uint8_t type = out[6];
			set(out, (uint32_t)(out_len - 7) + 2);
			out[4] = rnd(300) ? 0 : 1;
			out[5] = type;
			memmove(out + 6, out + 7, out_len - 7);
			ok = send_all(out, out_len - 1) && drain(type == 90 ? 20 : 0);
			dropped += !ok;
		}
	}
	printf("%ld messages, %u connections, %u dropped\n", sent, connections, dropped);
	return sent == count ? 0 : 1;
}
