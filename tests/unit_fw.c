/* unit_fw.c - forwards: requests, sockets, SOCKS in pieces, the server's
 * channels. */

static uint16_t forward_port(void)
{
	uint16_t port;
	close(cn_listener(&port));
	return port;
}

static int forward_listener(uint16_t port)
{
	struct sockaddr_in a = { 0 };
	socklen_t len = sizeof a;
	for (int i = 0; i < FORWARDS; i++)
		for (int k = 0; k < FW_SOCKETS; k++)
			if (g.fw.slot[i].state &&
				getsockname(g.fw.slot[i].socket[k], (struct sockaddr *)&a,
				&len) == 0 &&
			    ntohs(a.sin_port) == port)
				return g.fw.slot[i].socket[k];
	return -1;
}

static int forward_connect(uint16_t port)
{
	int fd = tcp_connect(port, forward_listener(port));
	if (fd >= 0)
		fd_nonblock(fd);
	return fd;
}

/* A connected client that asks for a forward; whether this is the answer. */
static bool forward_ask(struct peer *p, uint32_t message, uint32_t type, const char *host,
	uint32_t port, const char *to, uint32_t to_port)
{
	peer_put(p, message, "uususu", 5, type, host, port, to, to_port);
	return world_run();
}

/* Whether a FAILURE came whose reason begins so. */
static bool forward_failed(struct peer *p, const char *why)
{
	peer_drain(p);
	bool ok = !p->eof && p->got >= 16 + strlen(why) && buf_u32_at(p->in) == p->got - 4 &&
		buf_u32_at(p->in + 4) == MUX_S_FAILURE &&
		  buf_u32_at(p->in + 8) == 5 && memcmp(p->in + 16, why, strlen(why)) == 0;
	p->got = 0;
	return ok;
}

static void unit_fw_refused(void)
{
	static const struct { uint32_t type; const char *host; uint32_t port; const char *to;
		uint32_t to_port; } bad[] = {
		{ 0, "", 8080, "h", 80 }, { 4, "", 8080, "h", 80 },
		{ 0xffffffff, "", 8080, "h", 80 },
		{ 1, "", 8080, "h", 0 }, { 1, "", 8080, "", 80 }, { 2, "", 8080, "", 80 },
		{ 3, "/path", 0xfffffffe, "socks", 0 }, { 1, "", 65536, "h", 80 },
		{ 1, "", 0xffffffff, "h", 80 },
		{ 1, "", 8080, "h", 65536 }, { 2, "", 8080, "h", 0xfffffffd },
	};
	bool all = true;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct peer p;
		world_begin();
		peer_hello(&p);
		forward_ask(&p, MUX_C_OPEN_FWD, bad[i].type, bad[i].host, bad[i].port, bad[i].to,
			bad[i].to_port);
		bool ok = forward_failed(&p, "Invalid forwarding request");
		peer_close(&p);
		world_run();
		also(&all, world_idle() && world_end() && ok, "request %zu", i);
	}
	check(all, "fw: requests that are none: refused, and the master lives");
	struct peer p;
	world_begin();
	peer_hello(&p);
	forward_ask(&p, MUX_C_CLOSE_FWD, 1, "", 8080, "h", 80);
	check(forward_failed(&p, "port not forwarded"), "fw: closing a forward that is not there");
	peer_close(&p);
	check_clean("fw: refused requests");
}

static void unit_fw_local(void)
{
	struct peer p;
	uint16_t port = forward_port();
	char text[32] = "";
	world_begin();
	peer_hello(&p);
	forward_ask(&p, MUX_C_OPEN_FWD, 1, "127.0.0.1", port, "target", 80);
	check(peer_expect(&p, MUX_S_OK, "u", 5), "fw: local forward opened");
	forward_ask(&p, MUX_C_OPEN_FWD, 1, "127.0.0.1", port, "target", 80);
	check(peer_expect(&p, MUX_S_OK, "u", 5), "fw: the same again is OK");
	forward_ask(&p, MUX_C_OPEN_FWD, 1, "127.0.0.1", port, "other", 80);
	check(forward_failed(&p, "Port forwarding failed"),
		"fw: another target on the same port is not");
	int fd = forward_connect(port);
	world_run();
	const struct fake_message *m = fake_take();
	check(fd >= 0 && m && m->bytes[0] == SSH_CHANNEL_OPEN &&
		memcmp(m->bytes + 5, "direct-tcpip", 12) == 0, "fw: a connection opens a channel");
	fake_put(SSH_CHANNEL_OPEN_CONFIRMATION, "uuuu", 0, 50, 1000, 1000);
	(void)!write(fd, "question", 8);
	world_run();
	fake_put(SSH_CHANNEL_DATA, "us", 0, "answer");
	world_run();
	check(fake_expect(SSH_CHANNEL_DATA, "us", 50, "question") &&
		read(fd, text, sizeof text) == 6, "fw: bytes both ways");
	shutdown(fd, SHUT_WR);
	world_run();
	check(fake_expect(SSH_CHANNEL_EOF, "u", 50) && !fake_take(), "fw: half a close is an EOF");
	fake_put(SSH_CHANNEL_DATA, "us", 0, "more");
	fake_put(SSH_CHANNEL_EOF, "u", 0);
	fake_put(SSH_CHANNEL_CLOSE, "u", 0);
	world_run();
	check(read(fd, text, sizeof text) == 4 && read(fd, text, sizeof text) == 0 &&
		fake_expect(SSH_CHANNEL_CLOSE, "u", 50), "fw: the other half, then CLOSE");
	close(fd);
	fd = forward_connect(port);
	world_run();
	fake_put(SSH_CHANNEL_OPEN_FAILURE, "uuss", 0, 2, "refused", "");
	world_run();
	ssize_t n = read(fd, text, sizeof text);
	check(n == 0 || (n < 0 && errno == ECONNRESET),
		"fw: refused by the server is a closed connection");
	close(fd);
	forward_ask(&p, MUX_C_CLOSE_FWD, 1, "127.0.0.1", port, "target", 80);
	fd = forward_connect(port);
	check(peer_expect(&p, MUX_S_OK, "u", 5) && fd < 0, "fw: closed, and nobody listens");
	peer_close(&p);
	check_clean("fw: local forward");
}

/* A dynamic forward's connection; the channel it opens has id 0. */
static int forward_socks(struct peer *p)
{
	uint16_t port = forward_port();
	world_begin();
	peer_hello(p);
	forward_ask(p, MUX_C_OPEN_FWD, 3, "127.0.0.1", port, "socks", 0);
	if (!peer_expect(p, MUX_S_OK, "u", 5))
		return -1;
	int fd = forward_connect(port);
	world_run();
	return fd;
}

#define SOCKS5 "\5\2\1\0"
#define SOCKS5_NAME "\5\1\0\3\6target\0\120"
#define SOCKS4 "\4\1\0\120\12\0\0\1user"
#define SOCKS4A "\4\1\0\120\0\0\0\1user\0target"

static const struct { const char *name, *bytes; size_t len; const char *host; } forward_requests[] =
	{
	{ "SOCKS 5, a name", SOCKS5 SOCKS5_NAME, sizeof(SOCKS5 SOCKS5_NAME) - 1, "target" },
	{ "SOCKS 5, IPv4", SOCKS5 "\5\1\0\1\12\0\0\1\0\120", 14, "10.0.0.1" },
	{ "SOCKS 5, IPv6", SOCKS5 "\5\1\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\120", 26, "::1" },
	{ "SOCKS 4", SOCKS4, sizeof SOCKS4, "10.0.0.1" },
	{ "SOCKS 4a", SOCKS4A, sizeof SOCKS4A, "target" },
};

/* Each request whole and cut at every byte. */
static void unit_fw_socks(void)
{
	for (size_t i = 0; i < sizeof forward_requests / sizeof forward_requests[0]; i++) {
		bool all = true;
		for (size_t cut = 0; cut < forward_requests[i].len; cut++) {
			struct peer p;
			int fd = forward_socks(&p);
			(void)!write(fd, forward_requests[i].bytes, cut);
			world_run();
			bool early = fake_take() != NULL;
			(void)!write(fd, forward_requests[i].bytes + cut,
				forward_requests[i].len - cut);
			world_run();
			const struct fake_message *m = fake_take();
			size_t n = strlen(forward_requests[i].host);
			also(&all, !early && m && m->bytes[0] == SSH_CHANNEL_OPEN &&
				buf_u32_at(m->bytes + 29) == n &&
			     memcmp(m->bytes + 33, forward_requests[i].host, n) == 0 &&
				buf_u32_at(m->bytes + 33 + n) == 80,
			     "cut at %zu", cut);
			close(fd);
			peer_close(&p);
			world_run();
			also(&all, world_end(), "descriptors, cut at %zu", cut);
		}
		check(all, "fw: %s cut at every byte", forward_requests[i].name);
	}
}

/* What is no request ends the connection; half a one and no more, too. */
static void unit_fw_socks_broken(void)
{
	static const struct { const char *name, *bytes; size_t len; bool ends; } broken[] = {
		{ "a web browser", "GET / HTTP/1.0\r\n\r\n", 18, false },
		{ "SOCKS 5 with a password only", "\5\1\2", 3, false },
		{ "SOCKS 5 BIND", "\5\1\0\5\2\0\1\1\2\3\4\0\120", 13, false },
		{ "SOCKS 5 with an empty name", "\5\1\0\5\1\0\3\0\0\120", 10, false },
		{ "SOCKS 4 BIND", "\4\2\0\120\1\2\3\4u\0", 10, false },
		{ "half a greeting, then the end", "\5\2\0", 3, true },
		{ "half a request, then the end", SOCKS5 "\5\1\0", 7, true },
		{ "half of SOCKS 4, then the end", "\4\1\0", 3, true },
		{ "nothing, then the end", "", 0, true },
	};
	for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
		struct peer p;
		int fd = forward_socks(&p);
		(void)!write(fd, broken[i].bytes, broken[i].len);
		if (broken[i].ends)
			fd_close(&fd);
		bool rests = world_rest(50);
		check(rests && g.ch.end == 0, "fw: %s ends the connection", broken[i].name);
		fd_close(&fd);
		peer_close(&p);
		world.now += SOCKS_MS;
		world_rest(50);
		world_end();
	}
}

/* ----- forwards at the server ----- */

static bool forward_remote(struct peer *p, const char *to, uint32_t to_port)
{
	peer_hello(p);
	forward_ask(p, MUX_C_OPEN_FWD, 2, "", 8080, to, to_port);
	bool ok = fake_expect(SSH_GLOBAL_REQUEST, "sbsu", "tcpip-forward", 1, "localhost", 8080) &&
		peer_quiet(p);
	fake_put(SSH_REQUEST_SUCCESS, "");
	world_run();
	return peer_expect(p, MUX_S_OK, "u", 5) && ok;
}

static void forward_server_opens(uint32_t window)
{
	fake_put(SSH_CHANNEL_OPEN, "suuususu", "forwarded-tcpip", 60, window, 1000, "localhost",
		8080, "10.0.0.1", 12345);
	world_run();
}

static void unit_fw_remote(void)
{
	struct peer p;
	uint16_t port;
	char text[32];
	world_begin();
	int l = cn_listener(&port);
	listen(l, 1);
	check(forward_remote(&p, "127.0.0.1", port),
		"fw: remote forward: the server is asked, then the client answered");
	forward_server_opens(1000);
	int fd = accept(l, NULL, NULL);
	const struct fake_message *m = fake_take();
	check(fd >= 0 && m && m->bytes[0] == SSH_CHANNEL_OPEN_CONFIRMATION &&
		buf_u32_at(m->bytes + 1) == 60, "fw: its channels are connected");
	fake_put(SSH_CHANNEL_DATA, "us", 0, "hello");
	world_run();
	check(read(fd, text, sizeof text) == 5, "fw: bytes arrive");
	close(fd);
	world_run();
	fake_put(SSH_CHANNEL_CLOSE, "u", 0);
	world_run();
	while (fake_take())
		;
	close(l);
	forward_server_opens(1000);
	if (emulated("mips", "fw: a closed port is an open failure", NO_SO_ERROR))
		fake_take();
	else
		check(fake_expect(SSH_CHANNEL_OPEN_FAILURE, "uuss",
				60, 2, "Connection refused", ""),
			"fw: a closed port is an open failure");
	forward_ask(&p, MUX_C_CLOSE_FWD, 2, "", 8080, "127.0.0.1", port);
	check(peer_expect(&p, MUX_S_OK, "u", 5) && fake_expect(SSH_GLOBAL_REQUEST, "sbsu",
		"cancel-tcpip-forward", 0, "localhost", 8080), "fw: cancelled");
	forward_server_opens(1000);
	m = fake_take();
	check(m && m->bytes[0] == SSH_CHANNEL_OPEN_FAILURE, "fw: and its channels refused");
	forward_ask(&p, MUX_C_OPEN_FWD, 2, "", 0, "127.0.0.1", 80);
	fake_take();
	fake_put(SSH_REQUEST_SUCCESS, "u", 40000);
	world_run();
	check(peer_expect(&p, MUX_S_REMOTE_PORT, "uu", 5, 40000), "fw: the server chooses a port");
	forward_ask(&p, MUX_C_OPEN_FWD, 2, "*", 81, "h", 80);
	check(fake_expect(SSH_GLOBAL_REQUEST, "sbsu", "tcpip-forward", 1, "", 81),
		"fw: * is the empty address");
	fake_put(SSH_REQUEST_FAILURE, "");
	world_run();
	check(forward_failed(&p, "remote port forwarding failed for listen port 81"),
		"fw: refused by the server");
	forward_ask(&p, MUX_C_OPEN_FWD, 2, "", 0, "h", 81);
	fake_take();
	fake_put(SSH_REQUEST_SUCCESS, "");
	world_run();
	check(g.lk.state == LK_DOWN, "fw: a granted port without its number loses the link");
	peer_close(&p);
	check(world_end(), "fw: remote forward: no descriptor leaked");
}

/* The reply of SOCKS waits for the server's window. */
static void unit_fw_remote_socks(void)
{
	struct peer p;
	uint16_t port;
	uint8_t request[10] = { 5, 1, 0, 1, 127, 0, 0, 1, 0, 0 };
	world_begin();
	int l = cn_listener(&port);
	listen(l, 1);
	request[8] = (uint8_t)(port >> 8);
	request[9] = (uint8_t)port;
	check(forward_remote(&p, "socks", 0), "fw: remote dynamic forward");
	forward_server_opens(1);
	fake_take();
	fake_put(SSH_CHANNEL_DATA, "us", 0, "\5\1");
	fake_put(SSH_CHANNEL_DATA, "uS", 0, "\0", (size_t)1);
	fake_put(SSH_CHANNEL_DATA, "uS", 0, request, sizeof request);
	world_run();
	size_t sent = 0;
	for (const struct fake_message *m; (m = fake_take());)
		if (m->bytes[0] == SSH_CHANNEL_DATA)
			sent += m->len - SSH_DATA_HEADER;
	check(sent <= 1 && (g.ch.end == 0 || g.ch.slot[0].remote_window <= 1),
		"fw: %zu bytes into a window of 1", sent);
	fake_put(SSH_CHANNEL_CLOSE, "u", 0);
	world_run();
	world_sleep(SOCKS_MS);
	close(l);
	peer_close(&p);
	check_clean("fw: remote SOCKS");
}

/* A request with much behind it in one message. */
static void unit_fw_remote_socks_ahead(void)
{
	struct peer p;
	uint16_t port;
	uint8_t bytes[1000] = { 4, 1, 0, 0, 127, 0, 0, 1, 0 }, got[1000];
	world_begin();
	int l = cn_listener(&port);
	listen(l, 1);
	bytes[2] = (uint8_t)(port >> 8);
	bytes[3] = (uint8_t)port;
	memset(bytes + 9, 'd', sizeof bytes - 9);
	forward_remote(&p, "socks", 0);
	forward_server_opens(1000);
	fake_put(SSH_CHANNEL_DATA, "uS", 0, bytes, sizeof bytes);
	world_run();
	int fd = accept(l, NULL, NULL);
	world_run();
	check(fd >= 0 && read(fd, got, sizeof got) == (ssize_t)sizeof bytes - 9,
		"fw: what follows a SOCKS request at once goes to its target");
	close(fd);
	close(l);
	peer_close(&p);
	check_clean("fw: SOCKS with data");
}

/* A request that is longer than the first window. */
static void unit_fw_remote_socks_long(void)
{
	struct peer p;
	uint8_t start[4] = { 4, 1, 0, 80 };
	world_begin();
	forward_remote(&p, "socks", 0);
	forward_server_opens(1000);
	while (fake_take())
		;
	struct channel *c = &g.ch.slot[0];
	c->window = sizeof start;
	pool_account(c);
	fake_put(SSH_CHANNEL_DATA, "uS", 0, start, sizeof start);
	world_run();
	check(fake_expect(SSH_CHANNEL_WINDOW_ADJUST, "uu", 60, SK_MAX) && c->window == SK_MAX,
		"fw: half a SOCKS request fills the window: there is more");
	fake_put(SSH_CHANNEL_CLOSE, "u", 0);
	world_run();
	peer_close(&p);
	check_clean("fw: a long SOCKS request");
}

static void unit_fw(void)
{
	unit_fw_refused();
	unit_fw_local();
	unit_fw_socks();
	unit_fw_socks_broken();
	unit_fw_remote();
	unit_fw_remote_socks();
	unit_fw_remote_socks_ahead();
	unit_fw_remote_socks_long();
}
