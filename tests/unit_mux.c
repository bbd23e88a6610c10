/* unit_mux.c - clients: frames in pieces, broken frames, clients that die,
 * requests that wait, the end of the master. */

/* A stream of frames with the place where each ends; descriptors follow the
 * session request. */
static size_t mux_put(uint8_t *to, uint32_t type, const char *format, ...)
{
	va_list ap;
	va_start(ap, format);
	size_t n = frame_build(to, 4096, type, format, ap);
	va_end(ap);
	return n;
}

/* ----- frames in pieces ----- */

static const struct { uint32_t type; const char *name; } mux_plain[] = {
	{ MUX_C_ALIVE_CHECK, "ALIVE_CHECK" }, { MUX_C_STOP_LISTENING, "STOP_LISTENING" },
	{ MUX_C_TERMINATE, "TERMINATE" }, { 0x12345678, "unknown request" },
};

static bool mux_plain_answered(struct peer *p, uint32_t type)
{
	if (type == MUX_C_ALIVE_CHECK)
		return peer_expect(p, MUX_S_ALIVE, "uu", 5, (uint32_t)getpid());
	if (type == 0x12345678)
		return peer_expect(p, MUX_S_FAILURE, "us", 5, "unsupported request");
	return peer_expect(p, MUX_S_OK, "u", 5);
}

/* HELLO and one request with trailing bytes, cut in two at every byte. */
static void unit_mux_split(void)
{
	uint8_t b[256];
	for (size_t t = 0; t < sizeof mux_plain / sizeof mux_plain[0]; t++) {
		size_t n = mux_put(b, MUX_MSG_HELLO, "uss", 4, "some-extension", "value");
		n += mux_put(b + n, mux_plain[t].type, "us", 5,
			"later versions may add fields to a request");
		bool all = true;
		for (size_t cut = 0; cut <= n; cut++) {
			struct peer p;
			world_begin();
			peer_connect(&p);
			also(&all, peer_bytes(&p, b, cut), "cut at %zu", cut);
			world_run();
			peer_bytes(&p, b + cut, n - cut);
			world_run();
			also(&all, peer_expect(&p, MASTER_HELLO) &&
				mux_plain_answered(&p, mux_plain[t].type),
			     "answer, cut at %zu", cut);
			peer_close(&p);
			world_run();
			also(&all, world_idle() && world_end(), "what is left, cut at %zu", cut);
		}
		check(all, "mux: %s cut at every byte", mux_plain[t].name);
	}
}

/* The session request cut at every byte, its descriptors one by one. */
static void unit_mux_split_session(void)
{
	uint8_t b[512];
	size_t n = mux_put(b, MUX_MSG_HELLO, "u", 4);
	n += mux_put(b + n, MUX_C_NEW_SESSION, "usuuuuuSss", 9, "", 0, 0, 0, 0, 0xffffffff, "xterm",
		(size_t)5, "echo hello world", "LANG=C");
	bool all = true;
	world_begin();
	for (size_t cut = 0; cut <= n; cut++) {
		struct session s = { .remote = 7 };
		int fds[3];
		session_pipes(&s, fds);
		peer_connect(&s.p);
		peer_bytes(&s.p, b, cut);
		world_run();
		peer_bytes(&s.p, b + cut, n - cut);
		for (int i = 0; i < 3; i++) {
			world_run();
			peer_pass(&s.p, fds[i]);
			close(fds[i]);
		}
		world_run();
		also(&all, fake_expect(SSH_CHANNEL_OPEN, "suuu", "session", 0, WINDOW_START,
			PACKET_MAX),
		     "OPEN, cut at %zu", cut);
		session_confirm(&s, 1000, 1000);
		also(&all, fake_expect(SSH_CHANNEL_REQUEST, "usbss", 7, "env", 0, "LANG", "C") &&
		     fake_expect(SSH_CHANNEL_REQUEST, "usbs", 7, "exec", 1, "echo hello world"),
			"requests, cut at %zu", cut);
		also(&all, peer_expect(&s.p, MASTER_HELLO) &&
			peer_expect(&s.p, MUX_S_SESSION_OPENED, "uu", 9, 0),
		     "answer, cut at %zu", cut);
		session_finish(&s, 3);
		also(&all, session_ended(&s, 3), "status, cut at %zu", cut);
		session_close(&s);
		world_run();
		while (fake_take())
			;
		also(&all, world_idle(), "what is left, cut at %zu", cut);
	}
	check(all, "mux: session request cut at every byte");
	check_clean("mux: session requests in pieces");
}

/* Everything in one write, the answers in order. */
static void unit_mux_pipelined(void)
{
	uint8_t b[1024];
	struct peer p;
	size_t n = mux_put(b, MUX_MSG_HELLO, "uss", 4, "", "");
	for (uint32_t i = 0; i < 12; i++)
		n += mux_put(b + n, i % 3 ? MUX_C_ALIVE_CHECK : 0x2f000001 + i, "us",
			0xfffffff0 + i, "trailing bytes");
	world_begin();
	peer_connect(&p);
	peer_bytes(&p, b, n);
	world_run();
	bool all = peer_expect(&p, MASTER_HELLO);
	for (uint32_t i = 0; i < 12; i++)
		also(&all, i % 3 ? peer_expect(&p, MUX_S_ALIVE, "uu", 0xfffffff0 + i,
			(uint32_t)getpid())
				 : peer_expect(&p, MUX_S_FAILURE, "us", 0xfffffff0 + i,
					"unsupported request"), "frame %u", i);
	check(all && peer_quiet(&p), "mux: thirteen frames in one write, answered in order");
	peer_close(&p);
	check_clean("mux: pipelined frames");
}

/* A client that writes and never reads loses only itself. */
static void unit_mux_deaf(void)
{
	uint8_t b[64];
	struct peer p;
	size_t n = mux_put(b, MUX_C_ALIVE_CHECK, "u", 1);
	world_begin();
	peer_hello(&p);
	int sent = 0;
	for (; sent < 200000 && write(p.fd, b, n) == (ssize_t)n; sent++)
		if (sent % 64 == 0)
			world_run();
	check(sent < 200000 && peer_served(),
		"mux: one that reads no answers is not read from (%d requests)", sent);
	peer_close(&p);
	check_clean("mux: a deaf client");
}

/* ----- broken frames ----- */

/* After a HELLO (unless `raw` is the first thing said), these bytes: the
 * connection is closed at once, without a word, and others are served. */
static void mux_dropped(const char *what, bool greeted, const void *bytes, size_t n)
{
	struct peer p;
	world_begin();
	if (greeted)
		peer_hello(&p);
	else
		peer_connect(&p);
	peer_bytes(&p, bytes, n);
	world_run();
	bool ok = greeted || peer_expect(&p, MASTER_HELLO);
	check(peer_gone(&p) && ok && peer_served(), "mux: %s is dropped", what);
	peer_close(&p);
	world_run();
	bool idle = world_idle();
	check(world_end() && idle, "mux: %s leaves nothing", what);
}

static void unit_mux_lengths(void)
{
	static const struct { uint32_t length; const char *name; } bad[] = {
		{ 0, "frame length 0" }, { 1, "frame length 1" }, { 3, "frame length 3" },
		{ MUX_FRAME_MAX + 1, "frame length max+1" }, { 0x7fffffff, "frame length 2^31-1" },
		{ 0x80000000, "frame length 2^31" }, { 0xffffffff, "frame length 2^32-1" },
	};
	uint8_t b[64];
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		buf_set_u32(b, bad[i].length);
		mux_dropped(bad[i].name, true, b, 4);
		mux_dropped(bad[i].name, false, b, 4);
		mux_put(b + 4, MUX_C_ALIVE_CHECK, "u", 1);
		memmove(b + 4, b + 8, 8);
		mux_dropped(bad[i].name, true, b, 12);
	}
	buf_set_u32(b, 4);
	buf_set_u32(b + 4, MUX_C_ALIVE_CHECK);
	mux_dropped("request without an id", true, b, 8);
	memset(b + 8, 0, 8);
	mux_dropped("request without an id and more", true, b, 16);
	buf_set_u32(b, 7);
	mux_dropped("request with half an id", true, b, 16);
}

static void unit_mux_hello(void)
{
	uint8_t b[64];
	mux_dropped("second HELLO", true, b, mux_put(b, MUX_MSG_HELLO, "u", 4));
	mux_dropped("request before HELLO", false, b, mux_put(b, MUX_C_ALIVE_CHECK, "u", 4));
	mux_dropped("unknown type before HELLO", false, b, mux_put(b, 0x1234, "u", 4));
	mux_dropped("HELLO version 3", false, b, mux_put(b, MUX_MSG_HELLO, "u", 3));
	mux_dropped("HELLO version 0", false, b, mux_put(b, MUX_MSG_HELLO, "u", 0));
	mux_dropped("HELLO version 2^32-1", false, b, mux_put(b, MUX_MSG_HELLO, "u", 0xffffffff));
	mux_dropped("HELLO with a name and no value", false, b,
		mux_put(b, MUX_MSG_HELLO, "us", 4, "info"));
	mux_dropped("HELLO with a stray byte", false, b, mux_put(b, MUX_MSG_HELLO, "ub", 4, 1));
	mux_dropped("HELLO with a name too long", false, b,
		mux_put(b, MUX_MSG_HELLO, "uur", 4, 0xffffffff, "abc", (size_t)3));
	struct peer p;
	uint8_t big[1500];
	memset(big, 'x', sizeof big);
	world_begin();
	peer_connect(&p);
	peer_put(&p, MUX_MSG_HELLO, "usSss", 4, "some@extension", big, sizeof big, "sshmux", "1");
	peer_put(&p, MUX_C_ALIVE_CHECK, "u", 3);
	world_run();
	check(peer_expect(&p, MASTER_HELLO) &&
		peer_expect(&p, MUX_S_ALIVE, "uu", 3, (uint32_t)getpid()) && g.mc.slot[0].sshmux,
	      "mux: HELLO with long unknown extensions");
	peer_close(&p);
	check_clean("mux: extensions");
}

/* The largest frames: skipped or refused, the connection usable. */
static void unit_mux_largest(void)
{
	static uint8_t big[MUX_FRAME_MAX];
	struct peer p;
	world_begin();
	peer_hello(&p);
	peer_put(&p, MUX_C_ALIVE_CHECK, "ur", 1, big, (size_t)MUX_FRAME_MAX - 8);
	world_run();
	check(peer_expect(&p, MUX_S_ALIVE, "uu", 1, (uint32_t)getpid()),
		"mux: ALIVE_CHECK of the largest frame");
	peer_put(&p, 0x1fffffff, "ur", 2, big, (size_t)MUX_FRAME_MAX - 8);
	world_run();
	check(peer_expect(&p, MUX_S_FAILURE, "us", 2, "unsupported request") && peer_quiet(&p),
		"mux: unknown type of the largest frame");
	peer_close(&p);
	check_clean("mux: largest frames");
}

/* The fields of a session request: `at` is the offset of a length field in
 * the body after the request id. */
static size_t mux_session_body(uint8_t *b)
{
	return mux_put(b, MUX_C_NEW_SESSION, "usuuuuusss", 9, "rsv", 0, 0, 0, 0, 0x7e, "xterm",
		"command", "LANG=C");
}

/* One length field of it set to `value`: refused without a word, or, where the
 * message stays well-formed, served. */
static bool mux_session_broken(size_t at, uint32_t value, bool malformed)
{
	struct session s;
	uint8_t b[256];
	int fds[3];
	memset(&s, 0, sizeof s);
	size_t n = mux_session_body(b);
	buf_set_u32(b + 12 + at, value);
	session_pipes(&s, fds);
	peer_hello(&s.p);
	peer_bytes(&s.p, b, n);
	for (int i = 0; i < 3; i++) {
		peer_pass(&s.p, fds[i]);
		close(fds[i]);
	}
	world_run();
	const struct fake_message *m = fake_take();
	bool ok = malformed ? peer_gone(&s.p) && !m : m && m->bytes[0] == SSH_CHANNEL_OPEN;
	session_close(&s);
	world_run();
	world_server_closes();
	return ok && world_idle();
}

static void unit_mux_session_lengths(void)
{
	/* reserved, TERM, command, environment: where, how long, what follows */
	static const struct { size_t at; uint32_t len, rest; const char *name; } field[] = {
		{ 0, 3, 20 + 9 + 11 + 10, "reserved" }, { 27, 5, 11 + 10, "TERM" },
		{ 36, 7, 10, "command" }, { 47, 6, 0, "environment" },
	};
	world_begin();
	for (size_t i = 0; i < sizeof field / sizeof field[0]; i++) {
		uint32_t most = field[i].len + field[i].rest;
		bool all = mux_session_broken(field[i].at, field[i].len, false);
		static const uint32_t beyond[] = { 1, 100, 0x7fffffff, 0x80000000, 0xfffffffc,
			0xffffffff };
		for (size_t k = 0; k < sizeof beyond / sizeof beyond[0]; k++) {
			uint32_t v = beyond[k] > 100 ? beyond[k] : most + beyond[k];
			also(&all, mux_session_broken(field[i].at, v, true), "length %u", v);
		}
		check(all, "mux: length of %s beyond the message", field[i].name);
	}
	check(mux_session_broken(36, 17, true) && mux_session_broken(47, 5, true) &&
		mux_session_broken(47, 0, true),
	      "mux: lengths that leave stray bytes");
	check_clean("mux: broken lengths");
}

/* A request cut short anywhere is malformed, and dropped. */
static void unit_mux_session_short(void)
{
	bool all = true;
	uint8_t b[256];
	size_t n = mux_session_body(b);
	world_begin();
	for (size_t len = 8; len < n - 4; len++) {
		struct session s;
		int fds[3];
		/* whole without its environment is whole */
		if (len == n - 4 - 10)
			continue;
		memset(&s, 0, sizeof s);
		session_pipes(&s, fds);
		peer_hello(&s.p);
		buf_set_u32(b, (uint32_t)len);
		peer_bytes(&s.p, b, 4 + len);
		for (int i = 0; i < 3; i++) {
			peer_pass(&s.p, fds[i]);
			close(fds[i]);
		}
		world_run();
		also(&all, peer_gone(&s.p) && fake.out_count == 0, "cut at %zu", len);
		session_close(&s);
		world_run();
	}
	check(all && world_idle(), "mux: session request short by any number of bytes is dropped");
	check_clean("mux: short requests");
}

/* NUL bytes: malformed in every string that means something. */
static void unit_mux_nul(void)
{
	static const struct { const char *name; const char *rsv, *term, *cmd, *env; bool served;
		} cases[] = {
		{ "reserved", "a\0b", "ter", "cmd", "A=b", true },
		{ "TERM", "rsv", "a\0b", "cmd", "A=b", false },
		{ "command", "rsv", "ter", "a\0b", "A=b", false },
		{ "environment", "rsv", "ter", "cmd", "A\0b", false },
		{ "nothing", "rsv", "ter", "cmd", "A=b", true },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct session s = { .id = 0 };
		int fds[3];
		world_begin();
		session_pipes(&s, fds);
		peer_hello(&s.p);
		peer_put(&s.p, MUX_C_NEW_SESSION, "uSuuuuuSSS", 9, cases[i].rsv, (size_t)3, 0, 0, 0,
			0, 0,
			 cases[i].term, (size_t)3, cases[i].cmd, (size_t)3, cases[i].env,
				(size_t)3);
		for (int k = 0; k < 3; k++) {
			peer_pass(&s.p, fds[k]);
			close(fds[k]);
		}
		world_run();
		check(cases[i].served ? fake.out_count == 1 && peer_quiet(&s.p) : peer_gone(&s.p) &&
			fake.out_count == 0,
		      "mux: NUL in %s: %s", cases[i].name, cases[i].served ? "served" : "dropped");
		session_close(&s);
		check_clean("mux: NUL");
	}
}

/* ----- bodies and memory ----- */

static void mux_command(struct session *s, const char *bytes, size_t n)
{
	int fds[3];
	memset(s, 0, sizeof *s);
	session_pipes(s, fds);
	peer_hello(&s->p);
	peer_put(&s->p, MUX_C_NEW_SESSION, "uSuuuuusS", 9, "", (size_t)0, 0, 0, 0, 0, 0, "", bytes,
		n);
	for (int i = 0; i < 3; i++) {
		peer_pass(&s->p, fds[i]);
		close(fds[i]);
	}
	world_run();
}

static void unit_mux_body_sizes(void)
{
	static char big[REQUEST_MAX + 64];
	memset(big, 'c', sizeof big);
	struct session s;
	static const struct { size_t n; const char *answer; } cases[] = {
		{ 0, NULL }, { 1, NULL }, { MX_SMALL - 32, NULL }, { MX_SMALL - 31, NULL },
		{ FAKE_PAYLOAD - 64, NULL }, { FAKE_PAYLOAD - 63, "command too long" },
		{ REQUEST_MAX - 32, "command too long" }, { REQUEST_MAX - 31, "request too long" },
		{ REQUEST_MAX + 64, "request too long" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		world_begin();
		mux_command(&s, big, cases[i].n);
		bool ok = !cases[i].answer ||
			(peer_expect(&s.p, MUX_S_FAILURE, "us", 9, cases[i].answer) &&
			peer_gone(&s.p));
		if (!cases[i].answer) {
			ok = fake_expect(SSH_CHANNEL_OPEN, "suuu", "session", 0, WINDOW_START,
				PACKET_MAX);
			session_confirm(&s, 9, 9);
			ok = ok &&
				(cases[i].n ? fake_expect(SSH_CHANNEL_REQUEST, "usbS", 0, "exec", 1,
				big, cases[i].n)
					       : fake_expect(SSH_CHANNEL_REQUEST, "usb", 0, "shell",
						1));
		}
		check(ok, "mux: command of %zu bytes: %s", cases[i].n, cases[i].answer ?
			cases[i].answer : "taken whole");
		session_close(&s);
		check_clean("mux: command sizes");
	}
}

/* Memory for bodies is full: the next waits unread, and goes on when there is
 * room - because one was served, or because its client went. */
static void unit_mux_memory(bool by_death)
{
	static char big[REQUEST_MAX - 600];
	struct session s[3];
	memset(big, 'c', sizeof big);
	world_begin();
	fake.room = 0;			/* no channel is opened: bodies stay */
	for (int i = 0; i < 3; i++)
		mux_command(&s[i], big, sizeof big);
	check(world_requests() == 2 && g.mc.slot[2].phase == MX_BODY_WAIT && fake.out_count == 0,
		"mux: the third body waits for memory");
	if (by_death)
		session_close(&s[0]);
	else
		fake.room = SIZE_MAX;
	world_wake();
	if (!by_death) {
		check(world_requests() == 2 && fake.out_count == 2, "mux: two channels opening");
		fake_put(SSH_CHANNEL_OPEN_CONFIRMATION, "uuuu", 0, 9, 9, 9);
		world_run();
	}
	bool last = g.mc.slot[2].phase == MX_QUEUED || g.mc.slot[2].phase == MX_OPENING;
	check(last, "mux: a body that waited goes on when memory is %s", by_death ?
		"left by the dead" : "free");
	fake.room = SIZE_MAX;
	world_wake();
	for (int i = 0; i < 3; i++)
		session_close(&s[i]);
	check_clean("mux: full memory");
}

/* Whether the history has that a table was full, once, and how often it was. */
static bool limit_reached(enum table which, uint32_t times)
{
	int events = 0;
	for (uint32_t i = 0; i < g.ev.next && i < EVENTS; i++)
		events += g.ev.slot[i].kind == EV_LIMIT &&
			strcmp(g.ev.slot[i].text, st_tables[which].name) == 0;
	return events == 1 && g.ev.refused[which] == times &&
		g.ev.peak[which] == st_tables[which].size;
}

/* Sessions beyond SESSIONS wait their turn, first come first served, and are
 * refused when it does not come. */
static void unit_mux_queue(void)
{
	struct session s[SESSIONS], late[2];
	bool ok = true;
	world_begin();
	for (int i = 0; i < SESSIONS; i++)
		ok = session_open(&s[i], 1000, 1000) && ok;
	mux_command(&late[0], "first", 5);
	mux_command(&late[1], "second", 6);
	check(ok && fake.out_count == SESSIONS * 2 && peer_quiet(&late[0].p),
		"mux: sessions beyond SESSIONS wait");
	check(limit_reached(TABLE_SESSIONS, 1), "mux: ... which is an event, and counted");
	session_finish(&s[1], 0);
	check(session_ended(&s[1], 0), "mux: one of them ends");
	while (fake.out && fake.out->bytes[0] != SSH_CHANNEL_OPEN)
		fake_take();
	const struct fake_message *m = fake_take();
	check(m && m->bytes[0] == SSH_CHANNEL_OPEN && buf_u32_at(m->bytes + 12) == 1 && !fake.out,
		"mux: its place goes to the first in line, at once");
	late[0].id = 1;
	session_confirm(&late[0], 1000, 1000);
	check(fake_expect(SSH_CHANNEL_REQUEST, "usbs", 0, "exec", 1, "first"),
		"mux: ... who gets what it asked for");
	world_sleep(SESSION_WAIT_MS - 1);
	check(peer_quiet(&late[1].p), "mux: the second waits");
	world_sleep(2);
	peer_drain(&late[1].p);
	check(late[1].p.got > 12 && buf_u32_at(late[1].p.in + 4) == MUX_S_FAILURE && late[1].p.eof,
		"mux: a wait too long ends with FAILURE");
	for (int i = 0; i < SESSIONS; i++)
		session_close(&s[i]);
	session_close(&late[0]);
	session_close(&late[1]);
	check_clean("mux: a queue of sessions");
}

/* A body that waits for memory has the patience of a session that waits. */
static void unit_mux_memory_patience(void)
{
	static char big[REQUEST_MAX - 600];
	struct session s[3];
	memset(big, 'c', sizeof big);
	world_begin();
	fake.room = 0;
	for (int i = 0; i < 3; i++)
		mux_command(&s[i], big, sizeof big);
	world_sleep(REQUEST_MS);
	check(peer_quiet(&s[2].p), "mux: who waits for memory is not punished as a slow writer");
	world_sleep(SESSION_WAIT_MS - REQUEST_MS + 1);
	peer_drain(&s[0].p);
	check(s[0].p.got >= 12 && buf_u32_at(s[0].p.in + 4) == MUX_S_FAILURE,
		"mux: no session in time is a FAILURE");
	for (int i = 0; i < 3; i++)
		session_close(&s[i]);
	fake.room = SIZE_MAX;
	check_clean("mux: patience");
}

/* ----- more than one thing on a connection ----- */

static void unit_mux_second_session(void)
{
	struct session s, t;
	int fds[3];
	static char big[REQUEST_MAX + 64];
	world_begin();
	session_open(&s, 1000, 1000);
	session_pipes(&t, fds);
	int before = world_count_fds();
	session_request(&s, 0, "again", fds);	/* not s: its connection */
	world_run();
	check(peer_expect(&s.p, MUX_S_FAILURE, "us", 9, "Multiple sessions not supported") &&
		peer_quiet(&s.p),
	      "mux: a second session on a connection is refused, the first goes on");
	check(world_count_fds() == before - 3, "mux: its descriptors are closed");
	session_close(&(struct session){ .p.fd = -1, .in = t.in, .out = t.out, .err = t.err });
	session_pipes(&t, fds);
	peer_put(&s.p, MUX_C_NEW_SESSION, "usuuuuusS", 9, "", 0, 0, 0, 0, 0, "", big, sizeof big);
	for (int i = 0; i < 3; i++) {
		peer_pass(&s.p, fds[i]);
		close(fds[i]);
	}
	world_run();
	peer_drain(&s.p);
	check(s.p.got >= 12 && buf_u32_at(s.p.in + 4) == MUX_S_FAILURE && !s.p.eof &&
		g.mc.slot[0].channel >= 0,
	      "mux: a second session too long to read leaves the first alone");
	s.p.got = 0;
	session_close(&(struct session){ .p.fd = -1, .in = t.in, .out = t.out, .err = t.err });
	peer_put(&s.p, MUX_C_ALIVE_CHECK, "u", 8);
	world_run();
	check(peer_expect(&s.p, MUX_S_ALIVE, "uu", 8, (uint32_t)getpid()),
		"mux: ALIVE_CHECK while a session runs");
	session_finish(&s, 7);
	check(session_ended(&s, 7), "mux: the session ends as ever");
	session_close(&s);
	check_clean("mux: second session");
}

/* ----- descriptors that do not come as they should ----- */

/* `n` good descriptors, then ordinary bytes. */
static void mux_no_descriptors(int n)
{
	struct session s;
	int fds[3];
	memset(&s, 0, sizeof s);
	world_begin();
	session_pipes(&s, fds);
	peer_hello(&s.p);
	peer_put(&s.p, MUX_C_NEW_SESSION, "usuuuuuss", 9, "", 0, 0, 0, 0, 0, "", "cmd");
	for (int i = 0; i < n; i++)
		peer_pass(&s.p, fds[i]);
	peer_bytes(&s.p, "abc", 3);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	world_run();
	check(peer_expect(&s.p, MUX_S_FAILURE, "us", 9, "did not receive file descriptors") &&
		peer_gone(&s.p) && fake.out_count == 0,
	      "mux: bytes after %d descriptors", n);
	session_close(&s);
	check_clean("mux: missing descriptors");
}

/* Three in one message are not what the protocol says. */
static void unit_mux_descriptors_at_once(void)
{
	if (emulated("", "mux: three descriptors in one message", NO_CLOSING))
		return;
	struct session s;
	int fds[3];
	union { char space[CMSG_SPACE(3 * sizeof(int))]; struct cmsghdr align; } control;
	memset(&s, 0, sizeof s);
	memset(&control, 0, sizeof control);
	world_begin();
	session_pipes(&s, fds);
	peer_hello(&s.p);
	peer_put(&s.p, MUX_C_NEW_SESSION, "usuuuuuss", 9, "", 0, 0, 0, 0, 0, "", "cmd");
	world_run();
	struct iovec iov = { "", 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
		.msg_controllen = sizeof control };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(3 * sizeof(int));
	memcpy(CMSG_DATA(c), fds, sizeof fds);
	bool sent = sendmsg(s.p.fd, &m, MSG_NOSIGNAL) == 1;
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	world_run();
	check(sent && peer_expect(&s.p, MUX_S_FAILURE, "us", 9,
		"did not receive file descriptors") && peer_gone(&s.p),
	      "mux: three descriptors in one message");
	session_close(&s);
	check_clean("mux: descriptors at once");
}

/* Descriptors where none belong are closed, whoever sends them. */
static void unit_mux_descriptors_astray(void)
{
	struct peer p;
	world_begin();
	peer_hello(&p);
	int before = world_count_fds();
	for (int i = 0; i < 3; i++)
		peer_pass(&p, STDIN_FILENO);
	world_run();
	check(world_count_fds() == before, "mux: descriptors nobody asked for are closed");
	peer_close(&p);
	check_clean("mux: stray descriptors");
}

/* ----- clients that are slow or die ----- */

static void unit_mux_slow(void)
{
	struct peer p;
	world_begin();
	peer_connect(&p);
	world_run();
	peer_expect(&p, MASTER_HELLO);
	world_sleep(HELLO_MS - 1);
	bool patient = peer_quiet(&p);
	world_sleep(1);
	check(patient && peer_gone(&p), "mux: no HELLO in time is dropped");
	peer_close(&p);
	peer_hello(&p);
	world_sleep(100 * REQUEST_MS);
	check(peer_quiet(&p), "mux: an idle client is not");
	peer_bytes(&p, "\0", 1);
	world_run();
	world_sleep(REQUEST_MS - 1);
	patient = peer_quiet(&p);
	world_sleep(1);
	check(patient && peer_gone(&p), "mux: a frame that does not go on is dropped");
	peer_close(&p);
	peer_hello(&p);
	peer_put(&p, MUX_C_NEW_SESSION, "usuuuuuss", 9, "", 0, 0, 0, 0, 0, "",
		"a command longer than a small body has place for, so it takes memory");
	peer_pass(&p, STDIN_FILENO);
	world_run();
	check(world_requests() == 1 && peer_served(),
		"mux: descriptors are awaited without stopping others");
	world_sleep(REQUEST_MS);
	check(peer_gone(&p) && world_requests() == 0, "mux: descriptors that do not come: dropped");
	peer_close(&p);
	check_clean("mux: slow clients");
}

enum mux_death {
	DIES_CONNECTED, DIES_GREETED, DIES_IN_HEADER, DIES_IN_BODY, DIES_IN_SKIP, DIES_WITHOUT_FDS,
	DIES_BETWEEN_FDS,
	DIES_WAITING_MEMORY, DIES_QUEUED, DIES_OPENING, DIES_CONFIRMED, DIES_REFUSED, DIES_OPEN,
	DIES_AFTER_STATUS,
	DIES_AFTER_EOF, DIES_AFTER_CLOSE, DIES_STALLED, MUX_DEATHS
};

static const char *const mux_deaths[MUX_DEATHS] = {
	"connected", "after HELLO", "mid-header", "mid-body", "in a skipped body",
	"before its descriptors", "between descriptors",
	"waiting for memory", "queued", "opening", "as the server confirms",
	"as the server refuses", "open",
	"after exit-status", "after the server's EOF", "after the server's CLOSE",
	"with output waiting",
};

/* Brings a client to the point where it is to die; it has not been seen there
 * by the loop when the moment is a message of the server. */
static void mux_live_until(struct session *s, enum mux_death when)
{
	static uint8_t bytes[REQUEST_MAX];
	memset(bytes, 'x', sizeof bytes);
	if (when == DIES_CONNECTED || when == DIES_GREETED) {
		peer_connect(&s->p);
		if (when == DIES_GREETED)
			peer_put(&s->p, MUX_MSG_HELLO, "u", 4);
	} else if (when <= DIES_BETWEEN_FDS) {
		size_t n = mux_put(bytes, when == DIES_IN_SKIP ? MUX_C_ALIVE_CHECK :
			MUX_C_NEW_SESSION, "usuuuuuss", 9,
				   "", 0, 0, 0, 0, 0, "xterm",
					"a command that is longer than the place "
					"in the client's slot for sure");
		peer_hello(&s->p);
		peer_bytes(&s->p, bytes, when == DIES_IN_HEADER ? 7 : when < DIES_WITHOUT_FDS ?
			n - 5 : n);
		if (when == DIES_BETWEEN_FDS) {
			peer_pass(&s->p, STDIN_FILENO);
			peer_pass(&s->p, STDIN_FILENO);
		}
	} else if (when <= DIES_QUEUED) {
		fake.room = 0;
		check_strangers = when == DIES_WAITING_MEMORY;
		if (when == DIES_WAITING_MEMORY)
			while (req_alloc(64) >= 0)
				;
		peer_hello(&s->p);
		peer_put(&s->p, MUX_C_NEW_SESSION, "usuuuuusS", 9, "", 0, 0, 0, 0, 0, "xterm",
			bytes, (size_t)1000);
		for (int i = 0; i < 3; i++)
			peer_pass(&s->p, STDIN_FILENO);
	} else if (when <= DIES_REFUSED) {
		session_ask(s, "run");
		if (when == DIES_CONFIRMED)
			fake_put(SSH_CHANNEL_OPEN_CONFIRMATION, "uuuu", (uint32_t)s->id, s->remote,
				100, 100);
		else if (when == DIES_REFUSED)
			fake_put(SSH_CHANNEL_OPEN_FAILURE, "uuss", (uint32_t)s->id, 2, "no", "");
		return;
	} else {
		session_open(s, 1000, 1000);
		if (when == DIES_STALLED)
			session_stall(s);
		else if (when == DIES_AFTER_STATUS)
			fake_put(SSH_CHANNEL_REQUEST, "usbu", (uint32_t)s->id, "exit-status", 0, 0);
		else if (when == DIES_AFTER_EOF)
			fake_put(SSH_CHANNEL_EOF, "u", (uint32_t)s->id);
		else if (when == DIES_AFTER_CLOSE) {
			fake_put(SSH_CHANNEL_CLOSE, "u", (uint32_t)s->id);
			return;
		}
	}
	world_run();
}

/* A client dies at a point of its life: the server is told, all comes back. */
static void mux_dies(enum mux_death when, bool turn_before)
{
	struct session s = { .p.fd = -1, .in = -1, .out = -1, .err = -1, .id = -1 };
	world_begin();
	mux_live_until(&s, when);
	if (turn_before)
		world_run();
	while (when >= DIES_OPEN && !turn_before && fake_take())
		;
	bool told = true;
	session_close(&s);
	world_run();
	if (when == DIES_WAITING_MEMORY)
		for (int16_t i = 0; i < REQUESTS; i++)
			req_free(&(int16_t){ i });
	if (when >= DIES_CONFIRMED && when != DIES_REFUSED) {
		const struct fake_message *m;
		told = false;
		while ((m = fake_take()))
			told |= m->bytes[0] == SSH_CHANNEL_CLOSE;
		if (when != DIES_AFTER_CLOSE && g.ch.end)
			fake_put(SSH_CHANNEL_CLOSE, "u", (uint32_t)s.id);
	} else if (when == DIES_OPENING) {
		fake_put(SSH_CHANNEL_OPEN_CONFIRMATION, "uuuu", 0, 100, 100, 100);
		world_run();
		while (fake.out && fake.out->bytes[0] != SSH_CHANNEL_EOF)
			fake_take();
		told = fake_expect(SSH_CHANNEL_EOF, "u", 100) &&
			fake_expect(SSH_CHANNEL_CLOSE, "u", 100);
		fake_put(SSH_CHANNEL_CLOSE, "u", 0);
	}
	fake.room = SIZE_MAX;
	world_run();
	bool idle = world_idle(), served = peer_served();
	check(told, "mux: a client dies %s%s: the server is told at once", mux_deaths[when],
		turn_before ? " (seen before)" : "");
	check(idle && served, "mux: a client dies %s%s: all given back", mux_deaths[when],
		turn_before ? " (seen before)" : "");
	if (!world_end())
		check(false, "mux: a client dies %s: descriptors", mux_deaths[when]);
}

static void unit_mux_deaths(void)
{
	for (int when = 0; when < MUX_DEATHS; when++) {
		mux_dies((enum mux_death)when, true);
		mux_dies((enum mux_death)when, false);
	}
}

/* ----- more clients than places ----- */

static void unit_mux_crowd(void)
{
	struct peer p[CLIENTS + 2];
	world_begin();
	for (int i = 0; i < CLIENTS + 2; i++)
		peer_connect(&p[i]);
	world_run();
	bool first = true;
	for (int i = 0; i < CLIENTS; i++)
		first = peer_expect(&p[i], MASTER_HELLO) && first;
	check(first && peer_quiet(&p[CLIENTS]) && peer_quiet(&p[CLIENTS + 1]),
		"mux: clients beyond CLIENTS wait in the kernel");
	check(limit_reached(TABLE_CLIENTS, 1), "mux: ... which is an event, and counted");
	peer_close(&p[2]);
	world_run();
	check(peer_expect(&p[CLIENTS], MASTER_HELLO) && peer_quiet(&p[CLIENTS + 1]),
		"mux: a place that comes free is taken at once");
	check(limit_reached(TABLE_CLIENTS, 2), "mux: ... and counted, as the table is full again");
	for (int i = 0; i < CLIENTS + 2; i++)
		peer_close(&p[i]);
	check_clean("mux: a crowd");
}

/* ----- the end of the master ----- */

enum mux_end { ENDS_BY_SIGNAL, ENDS_BY_TERMINATE, ENDS_BY_LOSS, MUX_ENDS };

/* With a session, an opening one, a queued one, an idle client and one in the
 * middle of a request. */
static void mux_master_ends(enum mux_end how)
{
	static const char *const names[] = { "SIGTERM", "TERMINATE", "loss of the connection" };
	struct session open, opening;
	struct peer idle, slow, boss;
	world_begin();
	bool ok = session_open(&open, 1000, 1000) && session_ask(&opening, "later") &&
		peer_hello(&idle) && peer_hello(&slow);
	peer_bytes(&slow, "\0\0", 2);
	world_run();
	ok = peer_hello(&boss) && ok;
	if (how == ENDS_BY_SIGNAL)
		kill(getpid(), SIGTERM);
	else if (how == ENDS_BY_TERMINATE)
		peer_put(&boss, MUX_C_TERMINATE, "u", 6);
	else
		fake_fail("connection reset");
	bool goes_on = world_run();
	check(ok && !goes_on, "mux: by %s the master ends at once, with no wait", names[how]);
	if (how == ENDS_BY_TERMINATE)
		check(peer_expect(&boss, MUX_S_OK, "u", 6), "mux: TERMINATE is answered");
	check(g.rn.exit_code == (how == ENDS_BY_LOSS ? 255 : 0), "mux: %s: exit status %d",
		names[how], g.rn.exit_code);
	check(peer_gone(&open.p) && peer_gone(&idle) && peer_gone(&slow),
		"mux: %s: clients see the end", names[how]);
	check(access(world.path, F_OK) != 0 && fake.stops == 1,
		"mux: %s: socket gone, transport stopped", names[how]);
	session_close(&open);
	session_close(&opening);
	peer_close(&idle);
	peer_close(&slow);
	peer_close(&boss);
	bool left = world_idle();
	check(world_end() && left, "mux: %s: nothing left", names[how]);
}

/* A confirmation and the loss behind it arrive together. */
static void unit_mux_lost_as_confirmed(void)
{
	struct session s;
	world_begin();
	session_ask(&s, "run");
	fake_put(SSH_CHANNEL_OPEN_CONFIRMATION, "uuuu", (uint32_t)s.id, s.remote, 100, 100);
	fake_put(SSH_CHANNEL_DATA, "uS", 77, "x", (size_t)1);
	bool goes_on = world_run();
	peer_drain(&s.p);
	check(!goes_on && s.p.eof,
		"mux: confirmed and lost in one turn: the client is let go at once");
	check(strstr(world.log, "protocol error"), "mux: ... and the log says why: %.80s",
		world.log);
	session_close(&s);
	world_end();
}

static void unit_mux_stop_listening(void)
{
	struct session s;
	struct peer p, late;
	world_begin();
	session_open(&s, 1000, 1000);
	peer_hello(&p);
	peer_put(&p, MUX_C_STOP_LISTENING, "u", 6);
	bool runs = world_run();
	check(runs && peer_expect(&p, MUX_S_OK, "u", 6), "mux: STOP_LISTENING is answered");
	peer_connect(&late);
	check(late.fd < 0 && access(world.path, F_OK) != 0, "mux: nobody new is let in");
	peer_close(&p);
	runs = world_run();
	session_finish(&s, 5);
	check(runs && session_ended(&s, 5), "mux: sessions go on to their end");
	check(world.ended, "mux: with the last of them the master ends");
	session_close(&s);
	check(world_end(), "mux: STOP_LISTENING leaves nothing");
}

/* ----- interrupted system calls ----- */

/* A whole life of three sessions with every call interrupted or cut short. */
static bool mux_chaos(uint32_t seed)
{
	struct session s[SESSIONS];
	char text[64], got[64] = "";
	size_t n = 0;
	world_begin();
	world.seed = seed;
	bool ok = true;
	for (int i = 0; i < SESSIONS; i++) {
		world.chaos = 3;
		ok = session_open(&s[i], 100000, 500) && ok;
	}
	for (int i = 0; i < SESSIONS; i++) {
		snprintf(text, sizeof text, "output of session %d", i);
		fake_put(SSH_CHANNEL_DATA, "us", (uint32_t)s[i].id, text);
		ok = write(s[i].in, text, strlen(text)) > 0 && ok;
		world_run();
		ssize_t r = read(s[i].out, got, sizeof got - 1);
		ok = r == (ssize_t)strlen(text) && memcmp(got, text, (size_t)r) == 0 && ok;
		for (const struct fake_message *m; n < strlen(text) * (size_t)(i + 1) &&
			(m = fake_take());)
			n += m->bytes[0] == SSH_CHANNEL_DATA ? m->len - SSH_DATA_HEADER : 0;
	}
	ok = n == 3 * strlen(text) && ok;
	for (int i = 0; i < SESSIONS; i++) {
		session_finish(&s[i], (uint32_t)i);
		ok = session_ended(&s[i], (uint32_t)i) && ok;
		session_close(&s[i]);
	}
	world_run();
	world.chaos = 0;
	ok = world_idle() && ok;
	return world_end() && ok;
}

static void unit_mux_interrupted(void)
{
	int bad = 0;
	for (uint32_t seed = 1; seed <= 60; seed++)
		bad += !mux_chaos(seed * 2654435761u);
	check(bad == 0,
		"mux: sessions with short and interrupted I/O everywhere (%d of 60 went wrong)",
		bad);
}

static void unit_mux(void)
{
	unit_mux_split();
	unit_mux_split_session();
	unit_mux_pipelined();
	unit_mux_deaf();
	unit_mux_lengths();
	unit_mux_hello();
	unit_mux_largest();
	unit_mux_session_lengths();
	unit_mux_session_short();
	unit_mux_nul();
	unit_mux_body_sizes();
	unit_mux_memory(false);
	unit_mux_memory(true);
	unit_mux_memory_patience();
	unit_mux_queue();
	unit_mux_second_session();
	for (int n = 0; n < 3; n++)
		mux_no_descriptors(n);
	unit_mux_descriptors_at_once();
	unit_mux_descriptors_astray();
	unit_mux_slow();
	unit_mux_deaths();
	unit_mux_crowd();
	for (int how = 0; how < MUX_ENDS; how++)
		mux_master_ends((enum mux_end)how);
	unit_mux_lost_as_confirmed();
	unit_mux_stop_listening();
	unit_mux_interrupted();
}
