/* conform.c - what port/transport.h promises, asked of an implementation.
 *
 *	conform PORT USER KEY KNOWN_HOSTS	dropbear's, with a server on loopback
 *	conform-fake				tests/fake.c, which plays the server
 *
 * Both must behave alike where sshmux.c relies on it: that is what makes the unit
 * tests worth something. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifdef CONFORM_FAKE
#include "fake.h"
#else
#include "../port/transport.h"
#endif

#define SECONDS 60

static int points, failures;
static char last[512];			/* what the transport said last */

void tp_log(enum tp_level level, const char *line)
{
	if (level <= TP_INFO)
		snprintf(last, sizeof last, "%s", line);
}

/* Prompts are not shown here. */
size_t tp_clean(const char *text, size_t len, bool lines, char *to, size_t size)
{
	(void)text;
	(void)lines;
	to[0] = '\0';
	return size > 1 ? len : 0;
}

static void check(bool ok, const char *name)
{
	printf("%s %d - %s\n", ok ? "ok" : "not ok", ++points, name);
	failures += !ok;
}

static int64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* A connected descriptor. */
static int connected(const char *port)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (*port && connect(fd, (struct sockaddr *)&a, sizeof a) != 0) {
		perror("connect");
		exit(1);
	}
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

static uint8_t answer;			/* the type of the answer that came last */
static unsigned parts;			/* turns that ended inside of a packet */
static bool untrue;			/* what a packet lacked was not what came */

/* Compares what a packet lacked before a turn with what came in it. */
static void look_at_parts(const struct tp_info *before)
{
	const struct tp_info *i = tp_info();
	uint64_t came = i->bytes_in - before->bytes_in;
	if (tp_state() == TP_FAILED || before->lacking == 0)
		return;
	parts++;
	if (came < before->lacking)
		untrue |= i->lacking != before->lacking - came ||
			i->packets_in != before->packets_in;
	else
		untrue |= i->packets_in == before->packets_in;
}

/* One turn as lp_ makes it. */
static void turn(void)
{
	struct tp_info before = *tp_info();
	struct pollfd p[TP_POLLFDS];
	int timeout = 100;
	size_t len;
	size_t n = tp_poll(p, now_ms(), &timeout);
	poll(p, n, timeout < 0 || timeout > 100 ? 100 : timeout);
	tp_service(p, n, now_ms());
#ifdef CONFORM_FAKE
	if (fake.out && !fake.info.exchanging && fake_take()->bytes[0] == 80)
		fake_put(82, "");
#endif
	for (uint8_t *m; (m = tp_recv(&len));)
		if (m[0] == 81 || m[0] == 82)
			answer = m[0];
	look_at_parts(&before);
}

static bool exchanging(void)
{
	return tp_info()->exchanging;
}

static bool is_up(void)
{
	return tp_state() != TP_LOGIN;
}

static bool has_exchanged(void)
{
	return !exchanging();
}

static bool has_answer(void)
{
	return answer != 0;
}

static bool comes(bool (*what)(void))
{
	for (int64_t end = now_ms() + SECONDS * 1000; !what(); turn())
		if (now_ms() > end)
			return false;
	return true;
}

/* keepalive@openssh.com, a global request that every server answers */
static void ask(void)
{
	static const char name[] = "keepalive@openssh.com";
	uint8_t *p = tp_payload();
	p[0] = 80;
	memset(p + 1, 0, 3);
	p[4] = sizeof name - 1;
	memcpy(p + 5, name, sizeof name - 1);
	p[5 + sizeof name - 1] = 1;
	tp_send(5 + sizeof name);
}

static bool has_names(void)
{
	const struct tp_info *i = tp_info();
	return i && i->peer_version && i->kex && i->host_key_algorithm && i->cipher && i->mac &&
		i->host_key_fingerprint && i->auth_method && tp_error();
}

static void conform(int fd)
{
	size_t len;
	check(tp_state() == TP_IDLE && has_names() && !exchanging(),
		"idle: no name is NULL, no exchange");
	check(!tp_recv(&len) && tp_room() == 0, "idle: nothing comes, no room");
	tp_rekey();
	check(!exchanging(), "idle: no change of keys");
	tp_start(fd, false, now_ms());
	check(tp_state() == TP_LOGIN && !exchanging() && !tp_recv(&len) && tp_room() == 0,
	      "login: nothing comes, no room; its exchange is no change of keys");
	comes(is_up);
	check(tp_state() == TP_UP && has_names() && !exchanging() && tp_room() > 0,
		"up: there is room");
	uint32_t before = tp_info()->key_exchanges;
	tp_rekey();
	check(exchanging() && tp_room() == 0, "exchanging: at once, without room");
	tp_rekey();
	ask();
	check(tp_state() == TP_UP, "exchanging: a second one and a message do no harm");
	check(comes(has_exchanged) && tp_room() > 0, "exchanging: it ends, there is room again");
	check(comes(has_answer), "exchanging: the message went then, and is answered");
	check(tp_info()->key_exchanges == before + 1, "exchanging: it was one");
	check(!untrue, "a packet lacks what comes until it is whole");
	printf("# %u turns ended inside of a packet\n", parts);
	tp_stop();
	check(tp_state() == TP_IDLE && tp_info()->lacking == 0 && !exchanging() &&
		!tp_recv(&len) && tp_room() == 0 && has_names(),
	      "stopped: as at the beginning");
}

int main(int argc, char **argv)
{
	const char *key[] = { argc > 4 ? argv[3] : "" }, *hosts[] = { argc > 4 ? argv[4] : "" };
	const char *port = argc > 4 ? argv[1] : "";
	struct tp_config c = {
		.user = argc > 4 ? argv[2] : "nobody", .host = "127.0.0.1",
			.host_key_name = "127.0.0.1",
		.port = (uint16_t)atoi(port), .identity = key, .n_identity = 1,
			.known_hosts = hosts,
		.n_known_hosts = 1, .strict = TP_STRICT_YES, .batch = true, .cancel_fd = -1,
	};
#ifdef CONFORM_FAKE
	fake_reset();
#endif
	if (!tp_init(&c)) {
		fprintf(stderr, "%s\n", tp_error());
		return 1;
	}
	conform(connected(port));
	if (failures)
		printf("# %s; %s\n", tp_error(), last);
	printf("1..%d\n", points);
	return failures != 0;
}
