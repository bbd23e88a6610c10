/* unit_xf.c - agent and X11 channels that nobody asked for, X11 greetings of
 * every length, programs that do not end. */

static size_t greeting(uint8_t to[XF_GREETING], bool big, const uint8_t *cookie)
{
	memset(to, 0, XF_GREETING);
	to[0] = big ? 'B' : 'l';
	to[big ? 3 : 2] = 11;
	to[big ? 7 : 6] = sizeof xf_protocol - 1;
	to[big ? 9 : 8] = XF_COOKIE;
	memcpy(to + XF_HEADER, xf_protocol, sizeof xf_protocol - 1);
	memcpy(to + XF_COOKIE_AT, cookie, XF_COOKIE);
	return XF_GREETING;
}

static void unit_xf_greeting(void)
{
	uint8_t bytes[XF_GREETING + 8] = { 0 };
	bool right = true, wrong = true;
	memcpy(g.xf.slot[0].fake, "0123456789abcdef", XF_COOKIE);
	for (int big = 0; big < 2; big++) {
		greeting(bytes, big, g.xf.slot[0].fake);
		for (size_t n = 0; n <= sizeof bytes; n++)
			right = right &&
				xf_check(g.xf.slot[0].fake, bytes, n) == (n >= XF_GREETING);
		for (size_t i = 0; i < XF_GREETING; i++) {
			bool pad = i == 1 || (i > 1 && i < 6) || i == 10 || i == 11 || i == 30 ||
				i == 31;
			bytes[i] ^= 1;
			wrong = wrong && xf_check(g.xf.slot[0].fake, bytes, XF_GREETING) == (pad ?
				1 : -1);
			bytes[i] ^= 1;
		}
	}
	check(right, "xf: a greeting of either byte order is taken when it is whole");
	check(wrong, "xf: and only if each byte that counts is right");
}

static bool xf_opens(const char *type, uint32_t id)
{
	fake_put(SSH_CHANNEL_OPEN, "suuusu", type, id, 1000, 1000, "127.0.0.1", 1);
	world_run();
	const struct fake_message *m = fake_take();
	return m && m->bytes[0] == SSH_CHANNEL_OPEN_CONFIRMATION && buf_u32_at(m->bytes + 1) == id;
}

static void unit_xf_unasked(void)
{
	static const char *const types[] = { "x11", "auth-agent@openssh.com", "agent-connect" };
	bool refused = true;
	setenv("DISPLAY", ":7", 1);
	world_begin();
	g.op.forward_agent = "/nowhere";
	g.op.forward_x11 = 1;
	for (size_t i = 0; i < 3; i++)
		refused = refused && !xf_opens(types[i], 70);
	check(refused && g.ch.end == 0, "xf: allowed, but no session asked: channels are refused");
	struct session s;
	check(strstr(world.log, "no session asked for") &&
		!strstr(strstr(world.log, "no session asked for") + 1, "no session asked for"),
	      "xf: which is said once");
	session_open(&s, 1000, 1000);
	g.ch.slot[s.id].flags |= CH_AGENT;
	check(!xf_opens("x11", 70) && !xf_opens("auth-agent@openssh.com", 71) &&
		g.lk.state == LK_UP,
	      "xf: asked for the agent: no display, and an agent that is gone is refused");
	g.ch.slot[s.id].flags |= CH_DISPLAY;
	check(xf_wanted(CH_DISPLAY), "xf: a session asked for the display");
	session_finish(&s, 0);
	session_close(&s);
	world_run();
	while (fake_take())
		;
	check(!xf_opens("x11", 72) && g.ch.end == 0,
		"xf: it is over: nothing is forwarded any more");
	log_counts();
	check(strstr(world.log, "asked for: 5 on"), "xf: and how often it was tried is counted");
	check_clean("xf: refused channels");
}

static void unit_xf_cookie(void)
{
	uint8_t bytes[XF_GREETING];
	setenv("DISPLAY", ":7", 1);
	struct session s;
	world_begin();
	session_open(&s, 1000, 1000);
	g.ch.slot[s.id].flags |= CH_DISPLAY;
	g.ch.slot[s.id].display = 1;
	greeting(bytes, true, (const uint8_t *)"0123456789abcdeX");
	check(xf_opens("x11", 70), "xf: asked for: the display's channel is opened");
	fake_put(SSH_CHANNEL_DATA, "uS", 1, bytes, (size_t)20);
	world_run();
	check(fake_take() == NULL, "xf: half a greeting waits");
	memcpy(g.xf.slot[0].fake, "0123456789abcdef", XF_COOKIE);
	fake_put(SSH_CHANNEL_DATA, "uS", 1, bytes + 20, sizeof bytes - 20);
	world_run();
	bool closed = false;
	for (const struct fake_message *m; (m = fake_take());)
		closed = closed || m->bytes[0] == SSH_CHANNEL_CLOSE;
	check(closed && strstr(world.log, "wrong authentication"),
		"xf: a wrong cookie closes the channel, with a line");
	fake_put(SSH_CHANNEL_CLOSE, "u", 1);
	session_close(&s);
	check_clean("xf: a wrong cookie");
}

/* A display of that path, and the channel of a program that shows `cookie`; whether
 * the connection comes there. */
static bool xf_arrives(int listener, uint32_t id, const uint8_t *cookie)
{
	uint8_t bytes[XF_GREETING], got[XF_GREETING] = { 0 };
	greeting(bytes, false, cookie);
	if (!xf_opens("x11", id))
		return false;
	int at = g.ch.end - 1;
	fake_put(SSH_CHANNEL_DATA, "uS", (uint32_t)at, bytes, sizeof bytes);
	int fd = -1;
	for (int i = 0; i < 100 && fd < 0; i++) {
		world_run();
		fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0)
			usleep(10000);
	}
	for (int i = 0; i < 20; i++)
		world_run();
	bool same = fd >= 0 && read(fd, got, sizeof got) == sizeof got &&
		memcmp(got, bytes, XF_HEADER) == 0;
	fake_put(SSH_CHANNEL_CLOSE, "u", (uint32_t)at);
	world_run();
	if (fd >= 0)
		close(fd);
	world_run();
	while (fake_take())
		;
	return same;
}

static int xf_listen(char *path, size_t size, const char *name)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	snprintf(path, size, "%.36s/%s", world.dir, name);
	snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	return bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(fd, 5) == 0 ? fd : -1;
}

/* Two sessions, each with a display of its own. */
static void unit_xf_displays(void)
{
	struct session s[2];
	char path[2][64];
	int listener[2];
	world_begin();
	g.op.forward_x11 = 1;
	g.op.xauth = "/nowhere";
	for (int i = 0; i < 2; i++) {
		session_open(&s[i], 1000, 1000);
		listener[i] = xf_listen(path[i], sizeof path[i], i ? "x1" : "x0");
		xf_request_x11(&g.ch.slot[s[i].id], str_of(path[i]));
	}
	check(g.ch.slot[s[0].id].display == 1 && g.ch.slot[s[1].id].display == 2 &&
		xf_in_use() == 3 &&
	      memcmp(g.xf.slot[0].fake, g.xf.slot[1].fake, XF_COOKIE) != 0,
		"xf: each session has a display and a cookie of its own");
	while (fake_take())
		;
	bool second = xf_arrives(listener[1], 80, g.xf.slot[1].fake),
		first = xf_arrives(listener[0], 81, g.xf.slot[0].fake);
	check(first && second, "xf: the cookie tells which display is meant");
	uint8_t cookie[XF_COOKIE];
	memcpy(cookie, g.xf.slot[0].fake, XF_COOKIE);
	session_finish(&s[0], 0);
	session_close(&s[0]);
	world_run();
	check(xf_in_use() == 2, "xf: a session's end frees its display");
	check(!xf_arrives(listener[0], 82, cookie),
	      "xf: and its cookie opens nothing more");
	struct channel *c = &g.ch.slot[s[1].id];
	check(!xf_take(c, str_of("-display")) && !xf_take(c, str_of("a b:0")) &&
		!xf_take(c, str_of(":x")) && !xf_take(c, str_of("")),
	      "xf: what is no display's name is none");
	session_close(&s[1]);
	for (int i = 0; i < 2; i++)
		close(listener[i]);
	check_clean("xf: two displays");
}

/* A program that ignores everything, and one that is not there. */
static void unit_xf_programs(void)
{
	static const char *const stubborn[] = { "sh", "-c", "trap '' TERM; sleep 300", NULL };
	static const char *const missing[] = { "/nowhere/at/all", NULL };
	struct program *p = &g.ex.slot[EX_ASKERS];
	world_begin();
	ex_start(p, stubborn, NULL, g.now + 50);
	check(p->state == EX_RUNNING && as_answer(EX_ASKERS) == AS_WAITING, "xf: a program runs");
	world_sleep(100);
	check(p->state == EX_FAILED && as_answer(EX_ASKERS) == AS_NO && p->state == EX_IDLE,
	      "xf: its deadline ends it, the answer is no");
	ex_start(p, missing, NULL, g.now + 5000);
	for (int i = 0; i < 100 && p->state == EX_RUNNING; i++) {
		usleep(20000);
		world_run();
	}
	check(as_answer(EX_ASKERS) == AS_NO, "xf: a program that is not there says no");
	check_clean("xf: programs");
}

static void unit_xf(void)
{
	unit_xf_greeting();
	unit_xf_unasked();
	unit_xf_cookie();
	unit_xf_displays();
	unit_xf_programs();
	unsetenv("DISPLAY");
}
