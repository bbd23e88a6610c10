/* unit_px.c - proxy clients: messages that a server would end the connection of
 * all over, and sessions that a dropbear closes before their command. */

/* A frame as fake.h describes messages: length, 0, type, payload. */
static size_t px_build(uint8_t *to, size_t max, int type, const char *format, va_list ap)
{
	size_t n = fake_build(to + 6, max - 6, format, ap);
	buf_set_u32(to, (uint32_t)n + 2);
	to[4] = 0;
	to[5] = (uint8_t)type;
	return n + 6;
}

static void px_say(struct peer *p, int type, const char *format, ...)
{
	uint8_t bytes[20000];
	va_list ap;
	va_start(ap, format);
	peer_bytes(p, bytes, px_build(bytes, sizeof bytes, type, format, ap));
	va_end(ap);
	world_run();
}

static bool px_hears(struct peer *p, int type, const char *format, ...)
{
	uint8_t bytes[1024];
	va_list ap;
	va_start(ap, format);
	size_t n = px_build(bytes, sizeof bytes, type, format, ap);
	va_end(ap);
	peer_drain(p);
	if (p->got < n || memcmp(p->in, bytes, n) != 0) {
		printf("# message %d of %zu bytes expected, %zu came, type %d\n", type, n, p->got,
			p->got > 5 ? p->in[5] : -1);
		return false;
	}
	memmove(p->in, p->in + n, p->got -= n);
	return true;
}

static bool px_connect(struct peer *p)
{
	bool ok = peer_hello(p);
	peer_put(p, MUX_C_PROXY, "u", 7);
	world_run();
	return peer_expect(p, MUX_S_PROXY, "u", 7) && ok;
}

/* A proxied session, channel 0 on our side, 55 at the server. */
static bool px_session(struct peer *p)
{
	bool ok = px_connect(p);
	px_say(p, SSH_CHANNEL_OPEN, "suuu", "session", 3, 500, 500);
	const struct fake_message *m = fake_take();
	ok = ok && m && m->bytes[0] == SSH_CHANNEL_OPEN && buf_u32_at(m->bytes + 12) == 0;
	fake_put(SSH_CHANNEL_OPEN_CONFIRMATION, "uuuu", 0, 55, 1000, 1000);
	world_run();
	return px_hears(p, SSH_CHANNEL_OPEN_CONFIRMATION, "uuuu", 3, 0, 1000, 1000) && ok;
}

/* What a good client may say of its session, and what is passed on. */
static void unit_px_good(void)
{
	struct peer p;
	world_begin();
	check(px_session(&p), "px: a session, by the master's number");
	px_say(&p, SSH_CHANNEL_REQUEST, "usbsuuuuS", 0, "pty-req", 1, "xterm", 80, 24, 0, 0,
		"\6\0\0\0\3", (size_t)6);
	check(fake_expect(SSH_CHANNEL_REQUEST, "usbsuuuuS", 55, "pty-req", 1, "xterm", 80, 24, 0, 0,
		"\6\0\0\0\3", (size_t)6), "px: pty-req goes through");
	px_say(&p, SSH_CHANNEL_REQUEST, "usbss", 0, "env", 0, "A", "b");
	check(fake_expect(SSH_CHANNEL_REQUEST, "usbss", 55, "env", 0, "A", "b"), "px: env");
	px_say(&p, SSH_CHANNEL_REQUEST, "usbs", 0, "exec", 1, "run");
	check(fake_expect(SSH_CHANNEL_REQUEST, "usbs", 55, "exec", 1, "run"), "px: exec");
	px_say(&p, SSH_CHANNEL_REQUEST, "usbur", 0, "unheard-of@example", 0, 9, "and\0more",
		(size_t)8);
	check(fake_expect(SSH_CHANNEL_REQUEST, "usbur", 55, "unheard-of@example", 0, 9, "and\0more",
		(size_t)8), "px: what nobody knows goes through whole");
	px_say(&p, SSH_CHANNEL_DATA, "us", 0, "input");
	check(fake_expect(SSH_CHANNEL_DATA, "us", 55, "input"), "px: data");
	px_say(&p, SSH_CHANNEL_CLOSE, "u", 0);
	check(fake_expect(SSH_CHANNEL_CLOSE, "u", 55), "px: CLOSE");
	fake_put(SSH_CHANNEL_SUCCESS, "u", 0);
	fake_put(SSH_CHANNEL_CLOSE, "u", 0);
	world_run();
	check(px_hears(&p, SSH_CHANNEL_SUCCESS, "u", 3) && px_hears(&p, SSH_CHANNEL_CLOSE, "u", 3),
		"px: its answers carry its own number");
	peer_close(&p);
	check_clean("px: a good client");
}

/* Messages that servers end the connection over: none reaches the server, their
 * client is dropped, a bystander goes on. */
static void unit_px_bad(void)
{
#define B(s) s, sizeof s - 1
#define SESSION "\0\0\0\7session\0\0\0\1\0\0\0\144\0\0\0\144"
#define TO "\0\0\0\0"
	static const struct { const char *name; int type; const char *bytes; size_t len; } bad[] = {
		{ "session open with something behind it", 90, B(SESSION "x") },
		{ "a session open of no packets", 90,
		B("\0\0\0\7session\0\0\0\1\0\0\0\144\0\0\0\0") },
		{ "an open whose type has a NUL", 90,
		B("\0\0\0\7sess\0on\0\0\0\1\0\0\0\144\0\0\0\144") },
		{ "direct-tcpip cut short", 90,
		B("\0\0\0\14direct-tcpip\0\0\0\1\0\0\0\144\0\0\0\144\0\0\0\1h\0\0\0\26") },
		{ "direct-tcpip to a host with a NUL", 90,
		B("\0\0\0\14direct-tcpip\0\0\0\1\0\0\0\144\0\0\0\144"
			"\0\0\0\2h\0\0\0\0\26\0\0\0\1h\0\0\0\1") },
		{ "direct-streamlocal without its last word", 90,
		B("\0\0\0\36direct-streamlocal@openssh.com\0\0\0\1\0\0\0\144\0\0\0\144"
			"\0\0\0\2/p\0\0\0\0") },
		{ "tun with something behind it", 90,
		B("\0\0\0\17tun@openssh.com\0\0\0\1\0\0\0\144\0\0\0\144\0\0\0\1\0\0\0\1\0") },
		{ "exec with something behind it", 98, B(TO "\0\0\0\4exec\1\0\0\0\1x\0") },
		{ "exec without a command", 98, B(TO "\0\0\0\4exec\1") },
		{ "exec of a command with a NUL", 98, B(TO "\0\0\0\4exec\1\0\0\0\2x\0") },
		{ "shell with something behind it", 98, B(TO "\0\0\0\5shell\1x") },
		{ "a request whose name has a NUL", 98, B(TO "\0\0\0\4e\0ec\1") },
		{ "a request without want_reply", 98, B(TO "\0\0\0\5shell") },
		{ "env with one string", 98, B(TO "\0\0\0\3env\0\0\0\0\1A") },
		{ "subsystem without its name", 98, B(TO "\0\0\0\11subsystem\1") },
		{ "pty-req cut short", 98,
		B(TO "\0\0\0\7pty-req\1\0\0\0\1x\0\0\0\120\0\0\0\30\0\0\0\0\0\0\0") },
		{ "pty-req with half a mode", 98,
		B(TO "\0\0\0\7pty-req\1\0\0\0\1x\0\0\0\120\0\0\0\30\0\0\0\0\0\0\0\0\0\0\0\2\6\0") },
		{ "window-change cut short", 98,
		B(TO "\0\0\0\15window-change\0\0\0\0\120\0\0\0\30\0\0\0\0") },
		{ "x11-req without its screen", 98, B(TO "\0\0\0\7x11-req\1\0\0\0\0\1a\0\0\0\1b") },
		{ "signal without a name", 98, B(TO "\0\0\0\6signal\0") },
		{ "break without a length", 98, B(TO "\0\0\0\5break\0") },
		{ "eow with something behind it", 98, B(TO "\0\0\0\17eow@openssh.com\0x") },
		{ "EOF with something behind it", 96, B(TO "x") },
		{ "CLOSE with something behind it", 97, B(TO "x") },
		{ "CLOSE cut short", 97, B("\0\0\0") },
		{ "an answer that nobody awaits", 99, B(TO) },
	};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct peer p;
		struct session s;
		world_begin();
		bool ok = px_session(&p) && session_open(&s, 100, 100);
		px_say(&p, bad[i].type, "r", bad[i].bytes, bad[i].len);
		/* the end of the dropped client's channel, no more */
		const struct fake_message *m = fake_take();
		bool silent = m && m->bytes[0] == SSH_CHANNEL_EOF &&
			fake_expect(SSH_CHANNEL_CLOSE, "u", 55) && !fake_take();
		check(ok && silent && peer_gone(&p) && peer_quiet(&s.p),
			"px: %s ends its client alone", bad[i].name);
		peer_close(&p);
		session_close(&s);
		world_run();
		world_server_closes();
		world_end();
	}
	struct peer p;
	world_begin();
	px_session(&p);
	for (int i = 0; i < 2; i++)
		px_say(&p, SSH_CHANNEL_REQUEST, "usbsuuuus", 0, "pty-req", 1, "x", 80, 24, 0, 0,
			"");
	check(peer_gone(&p), "px: so does a second terminal");
	peer_close(&p);
	check_clean("px: a second terminal");
	static char text[9001];
	memset(text, 'c', sizeof text);
	for (int dropbear = 0; dropbear < 2; dropbear++) {
		world_begin();
		fake.info.peer_version = dropbear ? "SSH-2.0-dropbear_2022.83" :
			"SSH-2.0-OpenSSH_9.2p1";
		px_session(&p);
		px_say(&p, SSH_CHANNEL_REQUEST, "usbS", 0, "exec", 1, text, (size_t)1500);
		const struct fake_message *m = fake_take();
		check(m && m->len > 1500, "px: a command of 1500 bytes");
		peer_close(&p);
		check_clean("px: a long command");
	}
}

/* A dropbear closes a session that has no command yet when another one ends. */
static void unit_px_stillborn(bool told, bool again)
{
	struct peer p;
	world_begin();
	fake.info.peer_version = "SSH-2.0-dropbear_2022.83";
	if (told)
		check(px_session(&p), "px: a session on a dropbear");
	else {
		px_connect(&p);
		px_say(&p, SSH_CHANNEL_OPEN, "suuu", "session", 3, 500, 500);
		fake_take();
		fake_put(SSH_CHANNEL_OPEN_CONFIRMATION, "uuuu", 0, 55, 1000, 1000);
	}
	if (again)
		px_say(&p, SSH_CHANNEL_REQUEST, "usbs", 0, "exec", 1, "run");
	if (again)
		fake_take();
	fake_put(SSH_CHANNEL_EOF, "u", 0);
	fake_put(SSH_CHANNEL_CLOSE, "u", 0);
	world_run();
	if (again) {
		check(px_hears(&p, SSH_CHANNEL_EOF, "u", 3) &&
			px_hears(&p, SSH_CHANNEL_CLOSE, "u", 3) && !fake_take(),
		      "px: closed when it had its command: that is told, nothing is opened");
		peer_close(&p);
		check_clean("px: closed after the command");
		return;
	}
	check(fake_expect(SSH_CHANNEL_CLOSE, "u", 55) &&
		fake_expect(SSH_CHANNEL_OPEN, "suuu", "session", 0, 500, 500) && !fake_take(),
	      "px: closed before its command: it is opened again");
	check(peer_quiet(&p), "px: which its client does not hear of");
	if (told) {
		px_say(&p, SSH_CHANNEL_REQUEST, "usbs", 0, "exec", 1, "run");
		check(!fake_take(), "px: its command waits meanwhile");
	}
	fake_put(SSH_CHANNEL_OPEN_CONFIRMATION, "uuuu", 0, 56, 1200, 1000);
	world_run();
	if (told)
		check(px_hears(&p, SSH_CHANNEL_WINDOW_ADJUST, "uu", 3, 200),
			"px: a larger window is told");
	else {
		check(px_hears(&p, SSH_CHANNEL_OPEN_CONFIRMATION, "uuuu", 3, 0, 1200, 1000),
			"px: the second confirmation is told");
		px_say(&p, SSH_CHANNEL_REQUEST, "usbs", 0, "exec", 1, "run");
	}
	check(fake_expect(SSH_CHANNEL_REQUEST, "usbs", 56, "exec", 1, "run") && !fake_take(),
		"px: the command goes to the new one");
	fake_put(SSH_CHANNEL_SUCCESS, "u", 0);
	fake_put(SSH_CHANNEL_DATA, "us", 0, "out");
	fake_put(SSH_CHANNEL_CLOSE, "u", 0);
	world_run();
	check(px_hears(&p, SSH_CHANNEL_SUCCESS, "u", 3) && px_hears(&p, SSH_CHANNEL_DATA, "us", 3,
		"out") && px_hears(&p, SSH_CHANNEL_CLOSE, "u", 3),
	      "px: and its client has what it asked for");
	peer_close(&p);
	check_clean("px: opened again");
}

/* One that never lives, and one that cannot be had again. */
static void unit_px_given_up(bool refused)
{
	struct peer p;
	world_begin();
	fake.info.peer_version = "SSH-2.0-dropbear_2022.83";
	px_session(&p);
	int opens = 0;
	for (int i = 0; i < REOPENS + 1; i++) {
		fake_put(SSH_CHANNEL_CLOSE, "u", 0);
		world_run();
		for (const struct fake_message *m; (m = fake_take());)
			opens += m->bytes[0] == SSH_CHANNEL_OPEN;
		if (refused) {
			fake_put(SSH_CHANNEL_OPEN_FAILURE, "uuss", 0, 2, "no", "");
			world_run();
			break;
		}
		if (i < REOPENS)
			fake_put(SSH_CHANNEL_OPEN_CONFIRMATION, "uuuu", 0, 56 + i, 1000, 1000);
		world_run();
	}
	if (refused)
		check(peer_gone(&p) && opens == 1, "px: refused the second time: its client ends");
	else
		check(opens == REOPENS && px_hears(&p, SSH_CHANNEL_CLOSE, "u", 3),
			"px: after %d times the close is told", opens);
	peer_close(&p);
	check_clean("px: given up");
}

/* The link is lost after the exit status: unless the end of the output was told, ssh must not
 * return that status. */
static void unit_px_lost(bool whole)
{
	struct peer p;
	world_begin();
	px_session(&p);
	px_say(&p, SSH_CHANNEL_REQUEST, "usbs", 0, "exec", 0, "run");
	fake_put(SSH_CHANNEL_DATA, "us", 0, "part");
	fake_put(SSH_CHANNEL_REQUEST, "usbu", 0, "exit-status", 0, 7);
	if (whole)
		fake_put(SSH_CHANNEL_EOF, "u", 0);
	world_run();
	check(px_hears(&p, SSH_CHANNEL_DATA, "us", 3, "part") &&
		px_hears(&p, SSH_CHANNEL_REQUEST, "usbu", 3, "exit-status", 0, 7) &&
		(!whole || px_hears(&p, SSH_CHANNEL_EOF, "u", 3)), "px: output and its status");
	g.op.reconnect = LK_ALWAYS;
	fake_fail("gone");
	world_run();
	if (!whole)
		check(px_hears(&p, SSH_CHANNEL_REQUEST, "usbu", 3, "exit-status", 0, EXIT_SSH),
			"px: lost before the end of the output: another status");
	check(p.got == 0 && peer_gone(&p), "px: lost %s the end: nothing else, and closed",
		whole ? "after" : "before");
	peer_close(&p);
	check_clean("px: lost");
}

/* A long message waits for memory.  That is freed at the end of a turn, and no event comes
 * after it. */
static void unit_px_memory(void)
{
	static char big[REQUEST_MAX - 600];
	struct peer p, slow[2];
	memset(big, 'v', sizeof big);
	world_begin();
	px_session(&p);
	for (int i = 0; i < 2; i++) {
		uint8_t head[MX_HEADER_SIZE];
		peer_hello(&slow[i]);
		buf_set_u32(head, REQUEST_MAX);
		buf_set_u32(head + 4, MUX_C_NEW_SESSION);
		buf_set_u32(head + 8, 1);
		peer_bytes(&slow[i], head, sizeof head);
	}
	px_say(&p, SSH_CHANNEL_REQUEST, "usbsS", 0, "env", 0, "A", big, sizeof big);
	check(world_requests() == 2 && !fake_take(), "px: a long message waits for memory");
	peer_close(&slow[0]);
	world_run();
	check(fake_expect(SSH_CHANNEL_REQUEST, "usbsS", 55, "env", 0, "A", big, sizeof big),
		"px: it goes on as another client leaves");
	peer_close(&slow[1]);
	peer_close(&p);
	check_clean("px: memory");
}

static void unit_px(void)
{
	unit_px_good();
	unit_px_bad();
	unit_px_stillborn(true, false);
	unit_px_stillborn(false, false);
	unit_px_stillborn(true, true);
	unit_px_given_up(false);
	unit_px_given_up(true);
	unit_px_lost(false);
	unit_px_lost(true);
	unit_px_memory();
}
