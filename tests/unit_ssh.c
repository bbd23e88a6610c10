/* unit_ssh.c - the server: broken messages, messages at the wrong time, and
 * what has to be answered. */

/* ----- every message, every length ----- */

/* What is sent to a master with one open session (channel 0). */
enum ssh_outcome { SSH_LOST, SSH_GOES_ON, SSH_EITHER };

static bool ssh_send_bytes(const uint8_t *bytes, size_t len, enum ssh_outcome expected)
{
	struct session s;
	world_begin();
	bool ok = session_open(&s, 1000, 1000);
	while (fake_take())
		;
	fake_put_bytes(bytes, len);
	world_run();
	bool lost = g.lk.state != LK_UP;
	if (expected != SSH_EITHER)
		ok = ok && lost == (expected == SSH_LOST);
	if (lost) {
		world_run();
		peer_drain(&s.p);
		ok = ok && g.rn.exit_code == 255 &&
			strstr(world.log, "protocol error by the server") != NULL;
	}
	session_close(&s);
	world_run();
	if (!lost)
		world_server_closes();
	else
		world_sleep(FAREWELL_MS);
	ok = (lost || world_idle()) && ok;
	return world_end() && ok;
}

static bool ssh_send(enum ssh_outcome expected, int type, const char *format, ...)
{
	static uint8_t bytes[4096];
	va_list ap;
	va_start(ap, format);
	bytes[0] = (uint8_t)type;
	size_t n = 1 + fake_build(bytes + 1, sizeof bytes - 1, format, ap);
	va_end(ap);
	return ssh_send_bytes(bytes, n, expected);
}

/* A good message of each type, its shortest length that is whole, and where
 * its string lengths stand (0: no more). */
static const struct ssh_good {
	int type;
	const char *name;
	const char *bytes;
	size_t len, whole;
	size_t strings[3];
	enum ssh_outcome outcome;	/* of the whole message */
} ssh_good[] = {
#define B(s) s, sizeof s - 1
	{ 80, "GLOBAL_REQUEST", B("\120\0\0\0\4name\1"), 10, { 1 }, SSH_GOES_ON },
	{ 81, "REQUEST_SUCCESS", B("\121"), 1, { 0 }, SSH_LOST },
	{ 82, "REQUEST_FAILURE", B("\122"), 1, { 0 }, SSH_LOST },
	{ 90, "CHANNEL_OPEN", B("\132\0\0\0\3x11\0\0\0\7\0\0\1\0\0\0\1\0"), 12, { 1 },
	SSH_GOES_ON },
	{ 91, "OPEN_CONFIRMATION", B("\133\0\0\0\0\0\0\0\7\0\0\1\0\0\0\1\0"), 17, { 0 }, SSH_LOST },
	{ 92, "OPEN_FAILURE", B("\134\0\0\0\0\0\0\0\1\0\0\0\2no\0\0\0\0"), 15, { 9 }, SSH_LOST },
	{ 93, "WINDOW_ADJUST", B("\135\0\0\0\0\0\0\1\0"), 9, { 0 }, SSH_GOES_ON },
	{ 94, "DATA", B("\136\0\0\0\0\0\0\0\3abc"), 12, { 5 }, SSH_GOES_ON },
	{ 95, "EXTENDED_DATA", B("\137\0\0\0\0\0\0\0\1\0\0\0\3abc"), 16, { 9 }, SSH_GOES_ON },
	{ 96, "EOF", B("\140\0\0\0\0"), 5, { 0 }, SSH_GOES_ON },
	{ 97, "CLOSE", B("\141\0\0\0\0"), 5, { 0 }, SSH_GOES_ON },
	{ 98, "REQUEST exit-status", B("\142\0\0\0\0\0\0\0\13exit-status\0\0\0\0\7"), 25, { 5 },
	SSH_GOES_ON },
	{ 98, "REQUEST exit-signal",
	B("\142\0\0\0\0\0\0\0\13exit-signal\0\0\0\0\4TERM\0\0\0\0\0\0\0\0\0"), 29, { 5, 21 },
	SSH_GOES_ON },
	{ 98, "REQUEST eow", B("\142\0\0\0\0\0\0\0\17eow@openssh.com\0"), 25, { 5 }, SSH_GOES_ON },
	{ 98, "REQUEST unknown", B("\142\0\0\0\0\0\0\0\7unknown\1"), 17, { 5 }, SSH_GOES_ON },
	{ 99, "CHANNEL_SUCCESS", B("\143\0\0\0\0"), 5, { 0 }, SSH_LOST },
	{ 100, "CHANNEL_FAILURE", B("\144\0\0\0\0"), 5, { 0 }, SSH_LOST },
#undef B
};

static void unit_ssh_short(void)
{
	for (size_t i = 0; i < sizeof ssh_good / sizeof ssh_good[0]; i++) {
		const struct ssh_good *t = &ssh_good[i];
		bool all = true;
		for (size_t len = 1; len < t->whole; len++)
			also(&all, ssh_send_bytes((const uint8_t *)t->bytes, len, SSH_LOST),
			     "cut at %zu", len);
		check(all, "ssh: %s short by any number of bytes loses the link, cleanly", t->name);
		check(ssh_send_bytes((const uint8_t *)t->bytes, t->len, t->outcome),
			"ssh: %s whole, unasked: %s", t->name,
		      t->outcome == SSH_LOST ? "link lost" : "taken");
	}
}

static void unit_ssh_lengths(void)
{
	static const uint32_t lengths[] = { 0, 1, 4096, 32768, 0x7fffffff, 0x80000000, 0xfffffff0,
		0xffffffff };
	uint8_t b[128];
	for (size_t i = 0; i < sizeof ssh_good / sizeof ssh_good[0]; i++) {
		const struct ssh_good *t = &ssh_good[i];
		bool all = true;
		for (int k = 0; k < 3 && t->strings[k]; k++)
			for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++) {
				memcpy(b, t->bytes, t->len);
				buf_set_u32(b + t->strings[k], lengths[l]);
				also(&all, ssh_send_bytes(b, t->len, lengths[l] > 1 ? SSH_LOST :
					SSH_EITHER),
				     "string %d, length %u", k, lengths[l]);
			}
		if (t->strings[0])
			check(all, "ssh: %s with string lengths 0, 1, too long, 2^32-1", t->name);
	}
}

/* What an honest peer may still send of a channel that is closed. */
static bool ssh_may_be_late(int type)
{
	return type == SSH_CHANNEL_WINDOW_ADJUST || type >= SSH_CHANNEL_REQUEST;
}

/* Channels that are not there, for every message that names one. */
static void unit_ssh_channels(void)
{
	static const uint32_t ids[] = { 1, CHANNELS - 1, CHANNELS, CHANNELS + 1, 0x7fffffff,
		0xffffffff };
	uint8_t b[128];
	bool all = true;
	for (size_t i = 0; i < sizeof ssh_good / sizeof ssh_good[0]; i++)
		for (size_t k = 0; ssh_good[i].type > 90 && k < sizeof ids / sizeof ids[0]; k++) {
			memcpy(b, ssh_good[i].bytes, ssh_good[i].len);
			buf_set_u32(b + 1, ids[k]);
			also(&all,
				ssh_send_bytes(b, ssh_good[i].len,
				ssh_may_be_late(ssh_good[i].type) ? SSH_GOES_ON : SSH_LOST),
			     "%s of channel %u", ssh_good[i].name, ids[k]);
		}
	check(all,
		"ssh: data, EOF and CLOSE for channels that do not exist lose the link, "
		"the rest is ignored");
	all = true;
	for (int type = 80; type < 128; type++) {
		size_t i = (size_t)type - SSH_FIRST;
		bool known = i < LENGTH(rx_table) && rx_table[i].run;
		uint8_t byte = (uint8_t)type;
		if (!known)
			also(&all, ssh_send_bytes(&byte, 1, SSH_EITHER), "type %d", type);
	}
	check(all, "ssh: unknown message types do no harm");
}

/* ----- windows ----- */

static void unit_ssh_windows(void)
{
	static uint8_t data[8192];
	check(ssh_send(SSH_GOES_ON, SSH_CHANNEL_DATA, "uS", 0, data, (size_t)WINDOW_START),
		"ssh: data up to the window");
	check(ssh_send(SSH_GOES_ON, SSH_CHANNEL_DATA, "uS", 0, data, (size_t)WINDOW_START + 9),
		"ssh: a few bytes more, which the pool can hold");
	check(ssh_send(SSH_LOST, SSH_CHANNEL_DATA, "uS", 0, data, (size_t)2 * WINDOW_START),
		"ssh: data beyond the window loses the link");
	check(ssh_send(SSH_LOST, SSH_CHANNEL_EXTENDED_DATA, "uuS", 0, 1, data,
		(size_t)2 * WINDOW_START), "ssh: extended data beyond the window too");
	check(ssh_send(SSH_LOST, SSH_CHANNEL_EXTENDED_DATA, "uuS", 0, 77, data,
		(size_t)2 * WINDOW_START), "ssh: and of a kind unknown");
	check(ssh_send(SSH_GOES_ON, SSH_CHANNEL_WINDOW_ADJUST, "uu", 0, 0xffffffff - 1000),
		"ssh: a window of 2^32-1");
	check(ssh_send(SSH_LOST, SSH_CHANNEL_WINDOW_ADJUST, "uu", 0, 0xffffffff - 999),
		"ssh: a window beyond it loses the link");
	check(ssh_send(SSH_GOES_ON, SSH_CHANNEL_WINDOW_ADJUST, "uu", 0, 0),
		"ssh: an adjustment by nothing");
	check(ssh_send(SSH_GOES_ON, SSH_CHANNEL_DATA, "us", 0, ""), "ssh: data without bytes");
}

/* Nothing is sent beyond the server's window and packet size. */
static void unit_ssh_remote_window(void)
{
	struct session s;
	uint8_t data[100] = { 1, 2, 3 };
	world_begin();
	session_open(&s, 25, 10);
	while (fake_take())
		;
	(void)!write(s.in, data, sizeof data);
	world_run();
	check(fake_expect(SSH_CHANNEL_DATA, "uS", s.remote, data, (size_t)10) &&
		fake_expect(SSH_CHANNEL_DATA, "uS", s.remote, data + 10, (size_t)10) &&
	      fake_expect(SSH_CHANNEL_DATA, "uS", s.remote, data + 20, (size_t)5) && !fake_take(),
	      "ssh: input stops at the server's window, in packets of its size");
	fake_put(SSH_CHANNEL_WINDOW_ADJUST, "uu", (uint32_t)s.id, 3);
	world_run();
	check(fake_expect(SSH_CHANNEL_DATA, "uS", s.remote, data + 25, (size_t)3) && !fake_take(),
		"ssh: an adjustment lets it go on");
	fake.room = 0;
	fake_put(SSH_CHANNEL_WINDOW_ADJUST, "uu", (uint32_t)s.id, 1000);
	world_run();
	check(!fake_take(), "ssh: nothing is read while the network has no room");
	fake.room = SIZE_MAX;
	world_wake();
	size_t n = 0;
	for (const struct fake_message *m; (m = fake_take());)
		n += m->len - SSH_DATA_HEADER;
	check(n == sizeof data - 28, "ssh: and goes on when it has (%zu bytes)", n);
	close(s.in);
	s.in = -1;
	world_run();
	check(fake_expect(SSH_CHANNEL_EOF, "u", s.remote) && !fake_take(),
		"ssh: EOF of the input is told, nothing more");
	session_finish(&s, 0);
	check(session_ended(&s, 0), "ssh: and the session ends as ever");
	session_close(&s);
	check_clean("ssh: remote window");
	check(ssh_send(SSH_LOST, SSH_CHANNEL_OPEN_CONFIRMATION, "uuuu", 0, 1, 1, 1),
		"ssh: a second confirmation loses the link");
}

/* Two ways to a confirmation that cannot be: packets of no bytes. */
static void unit_ssh_no_packets(void)
{
	struct session s;
	world_begin();
	session_ask(&s, "run");
	session_confirm(&s, 1000, 0);
	peer_drain(&s.p);
	check(g.lk.state == LK_DOWN && s.p.eof, "ssh: packets of 0 bytes lose the link");
	session_close(&s);
	check(world_end(), "ssh: packets of 0 bytes leave nothing");
}

/* ----- refusals ----- */

static void unit_ssh_open_refused(void)
{
	struct session s;
	world_begin();
	session_ask(&s, "run");
	fake_put(SSH_CHANNEL_OPEN_FAILURE, "uuss", 0, 2, "no more sessions", "en");
	world_run();
	check(peer_expect(&s.p, MUX_S_FAILURE, "us", 9, "Session open refused by peer") &&
		peer_gone(&s.p), "ssh: open refused is a FAILURE, then the end");
	session_close(&s);
	check_clean("ssh: open refused");
}

/* The server closes what it has just opened, as often as that is taken. */
static void unit_ssh_stillborn(void)
{
	struct session s;
	int opens = 0, closes = 0, others = 0;
	world_begin();
	session_ask(&s, "run");
	for (int round = 0; round < REOPENS; round++) {
		fake_put(SSH_CHANNEL_OPEN_CONFIRMATION, "uuuu", (uint32_t)s.id, s.remote, 1000,
			1000);
		fake_put(SSH_CHANNEL_EOF, "u", (uint32_t)s.id);
		fake_put(SSH_CHANNEL_CLOSE, "u", (uint32_t)s.id);
		world_run();
		for (int i = 0; i < g.mc.end; i++)
			s.id = g.mc.slot[i].phase == MX_OPENING ? g.mc.slot[i].channel : s.id;
		for (const struct fake_message *m; (m = fake_take());) {
			opens += m->bytes[0] == SSH_CHANNEL_OPEN;
			closes += m->bytes[0] == SSH_CHANNEL_CLOSE;
			others += m->bytes[0] == SSH_CHANNEL_REQUEST;
		}
	}
	check(opens == 1 + REOPENS && closes == REOPENS && others == 0,
		"ssh: a session that is closed at once is opened again (%d, %d, %d)", opens, closes,
		others);
	session_confirm(&s, 1000, 1000);
	check(fake_expect(SSH_CHANNEL_REQUEST, "usbs", s.remote, "exec", 1, "run"),
		"ssh: and its command runs once");
	check(peer_expect(&s.p, MUX_S_SESSION_OPENED, "uu", 9, (uint32_t)s.id),
		"ssh: which its client is told once");
	session_finish(&s, 0);
	session_close(&s);
	check_clean("ssh: closed at once");
}

/* A dropbear has to take the command before its client is told and input is read:
 * one that closes before is asked again, one that is lost is not. */
static void unit_ssh_stillborn_asked(bool lost)
{
	struct session s;
	world_begin();
	fake.info.peer_version = "SSH-2.0-dropbear";
	session_ask(&s, "run");
	check(write(s.in, "input", 5) == 5, "ssh: input for a dropbear");
	fake_take();
	session_confirm(&s, 1000, 1000);
	check(fake_expect(SSH_CHANNEL_REQUEST, "usbs", s.remote, "exec", 1, "run") && !fake_take(),
		"ssh: a dropbear is asked first");
	if (lost) {
		g.op.reconnect = LK_ALWAYS;
		fake_fail("Connection reset by peer");
		world_run();
		check(g.lk.state == LK_WAITING && peer_expect(&s.p, MUX_S_SESSION_OPENED, "uu", 9,
			(uint32_t)s.id) && peer_gone(&s.p),
		      "ssh: a connection that is lost then may have started it: "
		      "it is not asked again");
		session_close(&s);
		check(world_end(), "ssh: lost while asked: no descriptor leaked");
		return;
	}
	fake_put(SSH_CHANNEL_CLOSE, "u", (uint32_t)s.id);
	world_run();
	for (int i = 0; i < g.mc.end; i++)
		s.id = g.mc.slot[i].phase == MX_OPENING ? g.mc.slot[i].channel : s.id;
	while (fake_take())
		;
	session_confirm(&s, 1000, 1000);
	check(fake_expect(SSH_CHANNEL_REQUEST, "usbs", s.remote, "exec", 1, "run") && !fake_take(),
		"ssh: it has closed before it answered: it is asked again");
	fake_put(SSH_CHANNEL_SUCCESS, "u", (uint32_t)s.id);
	world_run();
	check(peer_expect(&s.p, MUX_S_SESSION_OPENED, "uu", 9, (uint32_t)s.id) &&
		fake_expect(SSH_CHANNEL_DATA, "us", s.remote, "input"),
		"ssh: then the input goes to it");
	session_finish(&s, 3);
	check(session_ended(&s, 3), "ssh: and its status comes");
	session_close(&s);
	check_clean("ssh: asked again");
}

/* The end of an input that is /dev/null goes with the request, window or not. */
static void unit_ssh_no_input(void)
{
	struct session s = { 0 };
	int fds[3];
	world_begin();
	session_pipes(&s, fds);
	close(fds[0]);
	fds[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	check(peer_hello(&s.p), "ssh: no input: hello");
	session_request(&s, 0, "run", fds);
	world_run();
	check(fake_take() && g.mc.slot[0].phase == MX_OPENING, "ssh: no input: asked");
	s.id = g.mc.slot[0].channel;
	s.remote = 100;
	session_confirm(&s, 0, 1000);
	check(fake_expect(SSH_CHANNEL_REQUEST, "usbs", s.remote, "exec", 1, "run") &&
		fake_expect(SSH_CHANNEL_EOF, "u", s.remote),
		"ssh: no input: its end comes at once");
	check(peer_expect(&s.p, MUX_S_SESSION_OPENED, "uu", 9, (uint32_t)s.id),
		"ssh: no input: it runs");
	fake_put(SSH_CHANNEL_SUCCESS, "u", (uint32_t)s.id);
	session_finish(&s, 4);
	check(session_ended(&s, 4), "ssh: no input: its status comes");
	session_close(&s);
	check_clean("ssh: no input");
}

static void unit_ssh_exec_refused(bool crowded, bool dropbear)
{
	struct session s, other[2];
	char text[64] = "";
	world_begin();
	if (dropbear)
		fake.info.peer_version = "SSH-2.0-dropbear";
	if (crowded) {			/* others hold most of the window pool */
		for (int i = 0; i < 2; i++) {
			session_open(&other[i], 9, 9);
			struct channel *c = &g.ch.slot[other[i].id];
			c->window += pool_room(c);
			pool_account(c);
		}
	}
	session_ask(&s, "run");
	session_confirm(&s, 1000, 1000);
	while (fake_take())
		;
	check(!dropbear || write(s.in, "for others", 10) == 10, "ssh: input that nobody will read");
	fake_put(SSH_CHANNEL_FAILURE, "u", (uint32_t)s.id);
	world_run();
	ssize_t n = read(s.err, text, sizeof text - 1);
	check(n > 0 && strcmp(text, "exec request failed\r\n") == 0,
		"ssh: exec refused is said on stderr%s", crowded ? " while others hold the pool" :
		"");
	bool closes = false, data = false;
	for (const struct fake_message *m; (m = fake_take());) {
		closes |= m->bytes[0] == SSH_CHANNEL_CLOSE;
		data |= m->bytes[0] == SSH_CHANNEL_DATA;
	}
	check(closes && !data, "ssh: and the channel is closed, no input was read");
	fake_put(SSH_CHANNEL_CLOSE, "u", (uint32_t)s.id);
	world_run();
	check(peer_expect(&s.p, MUX_S_SESSION_OPENED, "uu", 9, (uint32_t)s.id) && peer_gone(&s.p),
		"ssh: without an exit status");
	session_close(&s);
	for (int i = 0; crowded && i < 2; i++)
		session_close(&other[i]);
	check_clean("ssh: exec refused");
}

/* A server that refuses and tells a status all the same, before or after; what was
 * asked for is named. */
static void unit_ssh_refused_status(void)
{
	static const struct { uint32_t subsystem; const char *command, *says; } kinds[] = {
		{ 0, "run", "exec request failed\r\n" }, { 0, "", "shell request failed\r\n" },
		{ 1, "sftp", "subsystem request failed\r\n" },
	};
	for (int i = 0; i < 6; i++) {
		struct session s;
		char text[64] = "";
		int fds[3];
		bool before = i % 2;
		memset(&s, 0, sizeof s);
		world_begin();
		session_pipes(&s, fds);
		peer_hello(&s.p);
		peer_put(&s.p, MUX_C_NEW_SESSION, "usuuuuuss", 9, "", 0, 0, 0,
			kinds[i / 2].subsystem, 0, "", kinds[i / 2].command);
		for (int k = 0; k < 3; k++) {
			peer_pass(&s.p, fds[k]);
			close(fds[k]);
		}
		world_run();
		session_confirm(&s, 1000, 1000);
		if (!before)
			fake_put(SSH_CHANNEL_FAILURE, "u", 0);
		fake_put(SSH_CHANNEL_REQUEST, "usbu", 0, "exit-status", 0, 0);
		if (before)
			fake_put(SSH_CHANNEL_FAILURE, "u", 0);
		fake_put(SSH_CHANNEL_EOF, "u", 0);
		fake_put(SSH_CHANNEL_CLOSE, "u", 0);
		world_run();
		check(read(s.err, text, sizeof text - 1) > 0 &&
			strcmp(text, kinds[i / 2].says) == 0, "ssh: what was refused is said");
		check(peer_expect(&s.p, MUX_S_SESSION_OPENED, "uu", 9, 0) && peer_gone(&s.p),
			"ssh: exit-status 0 %s a refusal is none", before ? "before" : "after");
		session_close(&s);
		check_clean("ssh: refused with a status");
	}
}

static void unit_ssh_pty_refused(void)
{
	struct session s;
	char text[64] = "";
	int fds[3];
	memset(&s, 0, sizeof s);
	world_begin();
	session_pipes(&s, fds);
	peer_hello(&s.p);
	session_request(&s, 1, "run", fds);
	world_run();
	fake_take();
	s.remote = 7;
	session_confirm(&s, 1000, 1000);
	check(fake_expect(SSH_CHANNEL_REQUEST, "usbsuuuuS", 7, "pty-req", 1, "xterm", 0, 0, 0, 0,
		"\0", (size_t)1), "ssh: pty-req of no terminal: no size, no modes");
	check(fake_expect(SSH_CHANNEL_REQUEST, "usbs", 7, "exec", 1, "run"),
		"ssh: then exec, without waiting");
	fake_put(SSH_CHANNEL_FAILURE, "u", 0);
	fake_put(SSH_CHANNEL_SUCCESS, "u", 0);
	world_run();
	ssize_t n = read(s.err, text, sizeof text - 1);
	check(n > 0 && strcmp(text, "PTY allocation request failed\r\n") == 0,
		"ssh: pty refused is said on stderr");
	check(peer_expect(&s.p, MUX_S_SESSION_OPENED, "uu", 9, 0) &&
		peer_expect(&s.p, MUX_S_TTY_ALLOC_FAIL, "u", 0) && peer_quiet(&s.p),
	      "ssh: the client is told, the session goes on");
	fake_put(SSH_CHANNEL_FAILURE, "u", 0);
	world_run();
	check(g.lk.state == LK_DOWN, "ssh: a third answer to two requests loses the link");
	session_close(&s);
	check(world_end(), "ssh: pty refused: no descriptor leaked");
}

/* ----- requests of the server ----- */

static void unit_ssh_requests(void)
{
	struct session s;
	world_begin();
	session_open(&s, 1000, 1000);
	fake_put(SSH_GLOBAL_REQUEST, "sb", "keepalive@openssh.com", 1);
	world_run();
	check(fake_expect(SSH_REQUEST_FAILURE, "") && !fake_take(), "ssh: a keepalive is answered");
	fake_put(SSH_GLOBAL_REQUEST, "sbs", "hostkeys-00@openssh.com", 0, "key");
	world_run();
	check(!fake_take(), "ssh: hostkeys without want_reply is not");
	fake_put(SSH_CHANNEL_REQUEST, "usb", (uint32_t)s.id, "keepalive@openssh.com", 1);
	world_run();
	check(fake_expect(SSH_CHANNEL_FAILURE, "u", s.remote) && !fake_take(),
		"ssh: a channel's keepalive is answered");
	fake_put(SSH_CHANNEL_REQUEST, "usb", (uint32_t)s.id, "unknown", 0);
	world_run();
	check(!fake_take(), "ssh: an unknown request without want_reply is not");
	fake_put(SSH_CHANNEL_OPEN, "suuu", "unheard-of", 42, 1000, 1000);
	fake_put(SSH_CHANNEL_OPEN, "suuususu", "forwarded-tcpip", 43, 1000, 1000, "localhost", 8080,
		"10.0.0.1", 12345);
	world_run();
	bool refused = true;
	for (uint32_t i = 42; i < 44; i++) {
		const struct fake_message *m = fake_take();
		refused = refused && m && m->len >= 9 && m->bytes[0] == SSH_CHANNEL_OPEN_FAILURE &&
			buf_u32_at(m->bytes + 1) == i;
	}
	check(refused && g.ch.end == 1,
		"ssh: channels that nobody asked the server for are refused");
	fake_put(SSH_CHANNEL_REQUEST, "usb", (uint32_t)s.id, "eow@openssh.com", 0);
	world_run();
	check(!fake_take() && g.ch.slot[s.id].end[CH_IN].fd < 0 && write(s.in, "x", 1) < 0 &&
		errno == EPIPE, "ssh: eow closes stdin and no EOF is sent");
	fake_put(SSH_CHANNEL_REQUEST, "usbu", (uint32_t)s.id, "exit-status", 1, 3);
	world_run();
	check(fake_expect(SSH_CHANNEL_SUCCESS, "u", s.remote) && peer_quiet(&s.p),
		"ssh: exit-status answered if so wished, and kept");
	fake_put(SSH_CHANNEL_CLOSE, "u", (uint32_t)s.id);
	world_run();
	check(session_ended(&s, 3), "ssh: until the channel is closed");
	session_close(&s);
	session_open(&s, 4096, 1024);
	session_close(&s);
	world_run();
	fake_put(SSH_CHANNEL_REQUEST, "usb", (uint32_t)s.id, "eow@openssh.com", 0);
	fake_put(SSH_CHANNEL_EOF, "u", (uint32_t)s.id);
	world_run();
	int closes = 0;
	for (const struct fake_message *m; (m = fake_take());)
		closes += m->bytes[0] == SSH_CHANNEL_CLOSE;
	check(closes == 1,
		"ssh: what the server says to a CLOSE of ours brings no second one: %d came",
		closes);
	fake_put(SSH_CHANNEL_CLOSE, "u", (uint32_t)s.id);
	world_run();
	check_clean("ssh: requests");
}

static void unit_ssh_exit_signal(void)
{
	struct session s;
	world_begin();
	session_open(&s, 1000, 1000);
	fake_put(SSH_CHANNEL_REQUEST, "usbsbss", (uint32_t)s.id, "exit-signal", 0, "TERM", 0,
		"terminated", "");
	fake_put(SSH_CHANNEL_CLOSE, "u", (uint32_t)s.id);
	world_run();
	check(peer_gone(&s.p), "ssh: exit-signal: no exit status, the end");
	session_close(&s);
	check_clean("ssh: exit-signal");
	static const uint32_t values[] = { 0, 1, 44, 255, 300, 0xffffffff };
	bool all = true;
	for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
		world_begin();
		session_open(&s, 1000, 1000);
		session_finish(&s, values[i]);
		also(&all, session_ended(&s, values[i]), "status %u", values[i]);
		session_close(&s);
		world_run();
		also(&all, world_idle() && world_end(), "what is left after status %u", values[i]);
	}
	check(all, "ssh: exit statuses go through as they are");
}

/* ----- a status before the loss ----- */

static void unit_ssh_cut(bool eof)
{
	struct session s;
	world_begin();
	session_open(&s, 1000, 1000);
	fake_put(SSH_CHANNEL_REQUEST, "usbu", (uint32_t)s.id, "exit-status", 0, 7);
	if (eof)
		fake_put(SSH_CHANNEL_EOF, "u", (uint32_t)s.id);
	world_run();
	fake_fail("connection reset");
	world_run();
	check(eof ? session_ended(&s, 7) : peer_gone(&s.p),
		"ssh: SES-cut: a status %s EOF, then the loss", eof ? "and" : "without");
	session_close(&s);
	world_end();
}

/* ----- messages too late ----- */

static void unit_ssh_late(void)
{
	struct session s;
	char text[64];
	world_begin();
	session_open(&s, 1000, 1000);
	fake_put(SSH_CHANNEL_EOF, "u", (uint32_t)s.id);
	fake_put(SSH_CHANNEL_DATA, "us", (uint32_t)s.id, "late");
	world_run();
	check(read(s.out, text, sizeof text) == 0, "ssh: data after EOF is not delivered");
	fake_put(SSH_CHANNEL_REQUEST, "usbu", (uint32_t)s.id, "exit-status", 0, 3);
	fake_put(SSH_CHANNEL_CLOSE, "u", (uint32_t)s.id);
	world_run();
	check(session_ended(&s, 3), "ssh: requests after EOF are");
	fake_put(SSH_CHANNEL_DATA, "us", (uint32_t)s.id, "later");
	world_run();
	check(g.lk.state == LK_DOWN && g.rn.exit_code == 255,
		"ssh: data after CLOSE loses the link");
	session_close(&s);
	check(world_end(), "ssh: late messages: no descriptor leaked");
	for (int type = SSH_CHANNEL_WINDOW_ADJUST; type <= SSH_CHANNEL_FAILURE; type++) {
		struct session other;
		bool late = ssh_may_be_late(type);
		world_begin();
		session_open(&other, 1000, 1000);
		session_open(&s, 1000, 1000);
		fake_put(SSH_CHANNEL_CLOSE, "u", (uint32_t)s.id);
		fake_put(type, "uuuuu", (uint32_t)s.id, 0, 0, 0, 0);
		world_run();
		if (late)			/* and when the slot is free */
			fake_put(type, "uuuuu", (uint32_t)s.id, 0, 0, 0, 0);
		bool goes_on = world_run();
		peer_drain(&s.p);
		check(goes_on == late && s.p.eof, "ssh: message %d behind CLOSE %s", type, late ?
			"is ignored" : "loses the link");
		check(!late || peer_quiet(&other.p), "ssh: another session goes on");
		session_close(&s);
		session_close(&other);
		world_run();
		world_server_closes();
		world_end();
	}
}

/* A channel that is opening has no data, requests or end. */
static void unit_ssh_early(void)
{
	for (int type = SSH_CHANNEL_WINDOW_ADJUST; type <= SSH_CHANNEL_FAILURE; type++) {
		struct session s;
		world_begin();
		session_ask(&s, "run");
		fake_put(type, "uuuuu", (uint32_t)s.id, 0, 0, 0, 0);
		/* for who had the number before */
		bool goes_on = world_run(), late = ssh_may_be_late(type);
		check(goes_on == late, "ssh: message %d for a channel that is opening %s", type,
			late ? "is ignored" : "loses the link");
		session_close(&s);
		world_run();
		world_server_closes();
		check(world_end(), "ssh: ... and nothing is left");
	}
}

/* ----- environment, shell, subsystem ----- */

static void unit_ssh_environment(void)
{
	struct session s;
	int fds[3];
	static char big[FAKE_PAYLOAD];
	memset(big, 'v', sizeof big);
	memcpy(big, "LC_BIG=", 7);
	memset(&s, 0, sizeof s);
	world_begin();
	g.op.set_env = (struct list){ { "OURS=1" }, 1 };
	session_pipes(&s, fds);
	peer_hello(&s.p);
	peer_put(&s.p, MUX_C_NEW_SESSION, "usuuuuusssssssssS", 9, "", 0, 0, 0, 1, 0, "", "sftp",
		"PATH=/bin", "LANG=C", "LANG", "=x",
		 "LC_ALL=", "LC_=a=b", "LD_PRELOAD=x", big, sizeof big);
	for (int i = 0; i < 3; i++) {
		peer_pass(&s.p, fds[i]);
		close(fds[i]);
	}
	world_run();
	fake_take();
	s.remote = 7;
	session_confirm(&s, 10, 10);
	check(fake_expect(SSH_CHANNEL_REQUEST, "usbss", 7, "env", 0, "OURS", "1") &&
		fake_expect(SSH_CHANNEL_REQUEST, "usbss", 7, "env", 0, "LANG", "C") &&
	      fake_expect(SSH_CHANNEL_REQUEST, "usbss", 7, "env", 0, "LC_ALL", "") &&
		fake_expect(SSH_CHANNEL_REQUEST, "usbss", 7, "env", 0, "LC_", "a=b"),
	      "ssh: the master's SetEnv, then what SendEnv allows");
	check(fake_expect(SSH_CHANNEL_REQUEST, "usbs", 7, "subsystem", 1, "sftp"),
		"ssh: a variable longer than a message is left out; subsystem");
	session_close(&s);
	check_clean("ssh: environment");
}

/* ----- keepalives of ours ----- */

static void unit_ssh_keepalive(void)
{
	world_begin();
	g.op.alive_interval = 5;
	g.op.alive_count = 2;
	g.lk.alive_at = g.now + 5000;
	world_sleep(4999);
	check(!fake_take(), "ssh: no keepalive before its time");
	world_sleep(1);
	check(fake_expect(SSH_GLOBAL_REQUEST, "sb", "keepalive@openssh.com", 1),
		"ssh: a keepalive after silence");
	fake_put(SSH_REQUEST_FAILURE, "");
	world_run();
	check(g.tx.n_global == 0 && g.lk.alive_unanswered == 0, "ssh: its answer is any answer");
	world_sleep(5000);
	world_sleep(5000);
	check(fake.out_count == 3 && g.lk.state == LK_UP, "ssh: ServerAliveCountMax keepalives");
	bool goes_on = world_sleep(5000);
	check(!goes_on && g.rn.exit_code == 255 && strstr(world.log, "not responding"),
		"ssh: and then the link is lost");
	world_end();
	world_begin();
	fake_put(SSH_REQUEST_SUCCESS, "");
	fake_put(SSH_REQUEST_SUCCESS, "");
	goes_on = world_run();
	check(!goes_on && g.rn.exit_code == 255,
		"ssh: answers to global requests that were not made lose the link");
	world_end();
}

/* ----- while keys are exchanged ----- */

static void unit_ssh_exchange(void)
{
	struct session s, t;
	char text[16] = "";
	world_begin();
	session_open(&s, 1000, 1000);
	while (fake_take())
		;
	fake.info.exchanging = true;
	(void)!write(s.in, "input", 5);
	session_ask(&t, "run");
	world_wake();
	check(!fake_take(), "ssh: nothing is sent while keys are exchanged");
	fake_put(SSH_CHANNEL_DATA, "us", (uint32_t)s.id, "output");
	world_run();
	check(read(s.out, text, sizeof text) == 6, "ssh: what comes is delivered");
	fake.info.exchanging = false;
	world_wake();
	bool data = false, open = false;
	for (const struct fake_message *m; (m = fake_take());) {
		data |= m->bytes[0] == SSH_CHANNEL_DATA;
		open |= m->bytes[0] == SSH_CHANNEL_OPEN;
	}
	check(data && open, "ssh: all goes on afterwards");
	session_close(&s);
	session_close(&t);
	check_clean("ssh: key exchange");
}

/* ----- login ----- */

static void unit_ssh_login(void)
{
	uint16_t port;
	world_clear();
	int fds = world_count_fds(), l = cn_listener(&port);
	listen(l, 1);
	lp_open_signals();
	g.op.host_name = "127.0.0.1";
	g.op.port = port;
	g.now = rn_clock();
	fake.login_ends = TP_LOGIN;
	world.patience = 50;
	lk_start();
	world_run();
	world.patience = 0;
	check(g.lk.state == LK_LOGIN && fake.starts == 1 && access(world.path, F_OK) != 0,
		"ssh: connected; no control socket before the login");
	fake.login_ends = TP_UP;
	world_wake();
	check(g.lk.state == LK_UP && peer_served(), "ssh: logged in, and there is one");
	close(l);
	check(world_end() && world_count_fds() == fds, "ssh: login leaves nothing");
	for (int how = 0; how < 2; how++) {
		world_clear();
		lp_open_signals();
		g.now = rn_clock();
		g.lk.state = LK_LOGIN;
		g.lk.login_deadline = g.now + 1000;
		fake.login_ends = how ? TP_FAILED : TP_LOGIN;
		fake.error = "Permission denied (publickey).";
		tp_start(open("/dev/null", O_RDWR | O_CLOEXEC), true, g.now);
		bool waits = world_run(), ends = !world_sleep(1000);
		check((how ? !waits : waits && ends) && g.rn.exit_code == 255 &&
			strstr(world.log, how ? "Permission denied" : "timed out"),
		      "ssh: a login that %s", how ? "is refused" : "takes too long");
		world.fds = fds;
		check(access(world.path, F_OK) != 0 && world_end(), "ssh: ... leaves nothing");
	}
}

static void unit_ssh(void)
{
	unit_ssh_short();
	unit_ssh_lengths();
	unit_ssh_channels();
	unit_ssh_windows();
	unit_ssh_remote_window();
	unit_ssh_no_packets();
	unit_ssh_open_refused();
	unit_ssh_stillborn();
	unit_ssh_stillborn_asked(false);
	unit_ssh_stillborn_asked(true);
	unit_ssh_no_input();
	unit_ssh_exec_refused(false, false);
	unit_ssh_exec_refused(false, true);
	unit_ssh_exec_refused(true, false);
	unit_ssh_refused_status();
	unit_ssh_pty_refused();
	unit_ssh_requests();
	unit_ssh_exit_signal();
	unit_ssh_cut(false);
	unit_ssh_cut(true);
	unit_ssh_late();
	unit_ssh_early();
	unit_ssh_environment();
	unit_ssh_keepalive();
	unit_ssh_exchange();
	unit_ssh_login();
}
