/* unit_link.c - a link that goes and comes back: back-off, keepalives, kicks, and a
 * thousand logins in one process. */

static uint16_t link_port;
static int link_listener = -1;

/* A master that is logged in and comes back; its server is link_listener. */
static void link_begin(void)
{
	link_listener = cn_listener(&link_port);
	listen(link_listener, 8);
	fd_nonblock(link_listener);
	world_begin();
	g.op.host_name = g.op.tp.host = "127.0.0.1";
	g.op.port = link_port;
	g.op.reconnect = LK_YES;
	g.op.reconnect_min = 1;
	g.op.reconnect_max = 300;
	g.op.session_wait = 1000;
	g.log.level = TP_INFO;
}

static bool link_end(void)
{
	bool ok = world_end();
	close(link_listener);
	return ok;
}

static void link_lose(void)
{
	fake_fail("gone");
	world_run();
}

/* Time passes until the next try, which comes to its end, or to its login. */
static void link_try(void)
{
	world_sleep(g.lk.state == LK_WAITING && g.lk.retry_at > world.now ?
		g.lk.retry_at - world.now : 0);
	world.patience = 10;		/* the kernel's handshake may take a moment */
	for (int i = 0; i < 500 && g.lk.state == LK_CONNECTING; i++)
		world_run();
	world.patience = 0;
}

/* Takes the connection from the listener and closes it; false if none came.  The end
 * that connects may know of it earlier: on a busy machine the kernel hands its last
 * packet on later. */
static bool link_accept(void)
{
	struct pollfd p = { .fd = link_listener, .events = POLLIN };
	int fd = poll(&p, 1, 10000) == 1 ? accept4(link_listener, NULL, NULL, SOCK_CLOEXEC) : -1;
	return fd >= 0 && close(fd) == 0;
}

/* The next try succeeds; whether it did. */
static bool link_return(void)
{
	for (int i = 0; i < 10 && g.lk.state != LK_UP; i++)
		link_try();
	return g.lk.state == LK_UP && link_accept();
}

static void unit_link_cycles(void)
{
	struct session s, late;
	bool lost = true, back = true, served = true, idle = true;
	int fds = 0, n;
	link_begin();
	for (n = 0; n < 1000 && back; n++) {
		served = session_open(&s, 1000, 1000) && served;
		link_lose();
		peer_drain(&s.p);
		lost = lost && g.lk.state == LK_WAITING && s.p.eof && s.p.got == 0;
		session_close(&s);
		world_run();
		session_ask(&late, "late");	/* waits for the link */
		lost = lost && peer_quiet(&late.p) && !fake.out;
		back = link_return();
		const struct fake_message *m = fake_take();
		served = served && m && m->bytes[0] == SSH_CHANNEL_OPEN;
		late.id = 0;
		late.remote = 100;
		session_confirm(&late, 1000, 1000);
		served = served && fake_expect(SSH_CHANNEL_REQUEST, "usbs", 100, "exec", 1,
			"late") &&
			 peer_expect(&late.p, MUX_S_SESSION_OPENED, "uu", 9, 0);
		fake_put(SSH_CHANNEL_SUCCESS, "u", 0);
		session_finish(&late, 3);
		served = session_ended(&late, 3) && served;
		session_close(&late);
		world_run();
		while (fake.out)
			fake_take();
		idle = idle && world_idle() && !pool_wrong();
		if (n == 0)
			fds = world_count_fds();
		world.log[world.log_len = 0] = 0;
	}
	check(n == 1000 && back && g.lk.logins == 1001, "link: 1,000 logins after the first: %u",
		(unsigned)g.lk.logins - 1);
	check(lost, "link: each loss ends sessions and keeps who waits");
	check(served, "link: each time who waited is served");
	check(idle, "link: nothing is left of a connection");
	check(world_count_fds() == fds, "link: as many descriptors as after the first");
	check(fake.starts == 1001 && fake.stops == 1000, "link: each transport was ended");
	check(link_end(), "link: no descriptor leaked");
}

/* A delay is drawn below a bound that doubles, up to ReconnectMax; after a connection
 * that held it begins anew. */
static void unit_link_backoff(void)
{
	bool within = true, again = true;
	int64_t longest = 0;
	link_begin();
	close(link_listener);		/* refused from here on */
	link_lose();
	int64_t bound = 2;		/* the first connection has not held */
	for (int n = 0; n < 40; n++) {
		int64_t wait = g.lk.retry_at - g.now;
		within = within && g.lk.state == LK_WAITING && wait >= 0 && wait <= bound * 1000;
		longest = wait > longest ? wait : longest;
		bound = bound < 150 ? bound * 2 : 300;
		uint32_t tries = g.lk.tries;
		link_try();
		again = again && g.lk.tries == tries + 1;
	}
	check(within, "link: every delay is below its bound");
	check(longest > 150000, "link: and they do grow: %lld ms", (long long)longest);
	check(again, "link: each is followed by one try");
	if (!emulated("mips", "link: one line for all of them", NO_SO_ERROR))
		check(strstr(world.log, "refused; trying again") &&
			!strstr(strstr(world.log, "refused; trying again") + 1,
			"refused; trying again"),
		      "link: one line for all of them");
	for (int n = 0; n < 2; n++) {
		link_listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(link_port),
			.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
		int on = 1;
		setsockopt(link_listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
		if (bind(link_listener, (struct sockaddr *)&a, sizeof a) != 0 ||
			listen(link_listener, 8) != 0)
			abort();
		bool back = link_return();
		uint32_t tries = g.lk.tries;
		world_sleep(n ? RECONNECT_HELD_MS : RECONNECT_HELD_MS - 1);
		link_lose();
		if (n)
			check(back && g.lk.tries == 0,
				"link: a connection that held makes it begin anew");
		else
			check(back && g.lk.tries == tries + 1,
				"link: one that did not hold does not");
		if (n == 0)
			close(link_listener);
	}
	check(link_end(), "link: back-off: no descriptor leaked");
}

/* A server that cuts what is idle: each login succeeds, and the waits stay below
 * what the connection held. */
static void unit_link_flapping(void)
{
	struct session s;
	bool within = true;
	link_begin();
	for (int n = 0; n < 100; n++) {
		world_sleep(5000);
		link_lose();
		within = within && g.lk.retry_at - g.now <= 5000;
		within = link_return() && within;
	}
	check(within && g.lk.tries == 100,
		"link: a hundred losses after 5 s each: no wait is longer");
	while (fake.out)
		fake_take();
	bool ran = session_open(&s, 1000, 1000);
	session_finish(&s, 1);
	ran = session_ended(&s, 1) && ran;
	session_close(&s);
	link_lose();
	check(ran && g.lk.tries == 0 && g.lk.retry_at - g.now <= 1000,
		"link: a session that came to its end starts the count anew");
	check(link_end(), "link: flapping: no descriptor leaked");
}

/* The next try is far away.  Whoever needs the link brings it forward. */
static void link_wait(void)
{
	g.lk.tries = 12;
	link_lose();
	g.lk.retry_at = world.now + 250000;
}

static void unit_link_wanted(void)
{
	struct session s;
	struct sockaddr_in a;
	socklen_t len = sizeof a;
	link_begin();
	struct forward like = { .type = FW_LOCAL, .listen = { "127.0.0.1", 0 },
		.connect = { "there", 80 } };
	struct forward *f = fw_add(&like);
	ls_start(f);
	world_run();
	getsockname(f->socket[0], (struct sockaddr *)&a, &len);
	link_wait();
	world_sleep(3000);
	bool waits = g.lk.state == LK_WAITING;
	int64_t asked = world.now;
	session_ask(&s, "late");
	check(waits && link_return() && g.lk.logins == 2 && world.now - asked < 10000,
		"link: a request brings the next try forward");
	session_close(&s);
	world_run();
	world_server_closes();
	link_wait();
	int c = tcp_connect(ntohs(a.sin_port), f->socket[0]);
	bool rests = world_rest(100);
	check(c >= 0 && rests && g.lk.retry_at <= world.now + 1001,
		"link: so does a connection to a listener, after ReconnectMin");
	while (fake.out)
		fake_take();
	const struct fake_message *m = link_return() ? fake_take() : NULL;
	check(m && m->bytes[0] == SSH_CHANNEL_OPEN, "link: and is served then");
	close(c);
	world_run();
	world_server_closes();
	fake.login_ends = TP_FAILED;
	link_lose();
	fake.cause = TP_CAUSE_AUTH;
	link_try();
	world_run();
	session_ask(&s, "late");
	check(g.lk.refused && g.lk.retry_at - world.now >= 8000,
		"link: a login that was refused waits longer, whoever waits");
	session_close(&s);
	world_run();
	check(link_end(), "link: hurry: no descriptor leaked");
}

/* As when the signal has come: the loop has turned, so its clock is right. */
static void link_kick(void)
{
	world_wake();
	lk_kick();
	world_run();
}

static void unit_link_kick(void)
{
	link_begin();
	link_lose();
	g.lk.retry_at = world.now + 1000000;
	link_kick();
	check(link_return() && g.lk.logins == 2, "link: a kick ends a wait");
	fake.out_count = 0;
	while (fake.out)
		fake_take();
	link_kick();
	check(fake_expect(SSH_GLOBAL_REQUEST, "sb", "keepalive@openssh.com", 1),
		"link: a kick asks a link that is up");
	fake_put(SSH_REQUEST_FAILURE, "");
	world_run();
	world_sleep(PROBE_MS + 1);
	check(g.lk.state == LK_UP && g.lk.logins == 2,
		"link: an answer, even late in the queue, is life");
	link_kick();
	world_sleep(PROBE_MS - 1);
	check(g.lk.state == LK_UP, "link: the answer may take PROBE_MS");
	world_sleep(2);
	check(g.lk.state == LK_WAITING && strstr(world.log, "not responding"),
		"link: and not longer");
	check(link_end(), "link: kicks: no descriptor leaked");
}

/* A server that begins to change keys. */
static void unit_link_exchange(void)
{
	link_begin();
	fake.info.exchanging = true;
	world_wake();
	check(strcmp(in_state(), "exchanging keys") == 0,
		"link: a change of keys is a state that is told");
	world_sleep(EXCHANGE_MS - 10);
	fake.info.bytes_out += 100;
	world_wake();
	world_sleep(EXCHANGE_MS - 10);
	check(g.lk.state == LK_UP, "link: what we still send is progress of a change of keys");
	fake_put(SSH_GLOBAL_REQUEST, "sb", "hello@example.com", 0);
	world_run();
	world_sleep(EXCHANGE_MS - 10);
	check(g.lk.state == LK_UP, "link: so is what still comes");
	fake.info.bytes_in += 1000;		/* SSH_MSG_IGNORE is no message for us */
	world_wake();
	world_sleep(20);
	check(g.lk.state == LK_WAITING && strstr(world.log, "does not finish the key exchange"),
	      "link: a change of keys has an end");
	fake.info.exchanging = false;
	check(link_return(), "link: and the link comes back after it");
	fake.info.exchanging = true;
	world_wake();
	world_sleep(EXCHANGE_MS - 10);
	fake.info.exchanging = false;
	world_wake();
	fake.info.exchanging = true;
	world_wake();
	world_sleep(EXCHANGE_MS - 10);
	check(g.lk.state == LK_UP, "link: each change of keys has its own time");
	fake.info.exchanging = false;
	check(link_end(), "link: changes of keys: no descriptor leaked");
}

/* Who waits for a session meanwhile is told that keys are exchanged. */
static void unit_link_exchange_told(void)
{
	struct session s;
	int fds[3];
	link_begin();
	g.op.session_wait = EXCHANGE_MS / 2000;
	fake.info.exchanging = true;
	world_wake();
	memset(&s, 0, sizeof s);
	session_pipes(&s, fds);
	bool hello = peer_hello(&s.p);
	session_request(&s, 0, "run", fds);
	world_run();
	bool waits = peer_quiet(&s.p) && !fake.out;
	world_sleep(g.op.session_wait * 1000 + 1);
	check(hello && waits && peer_expect(&s.p, MUX_S_FAILURE, "us", 9,
		"no session in time: exchanging keys"),
	      "link: who waited for a session is told that keys are exchanged");
	fake.info.exchanging = false;
	session_close(&s);
	world_run();
	check(link_end(), "link: told of an exchange: no descriptor leaked");
}

/* So many messages of that type among what the master has sent; takes all. */
static int link_sent(int type)
{
	int n = 0;
	for (const struct fake_message *m; fake.out && (m = fake_take());)
		n += m->bytes[0] == type;
	return n;
}

static void unit_link_alive(void)
{
	link_begin();
	g.op.alive_interval = 10;
	g.op.alive_count = 3;
	link_lose();
	bool back = link_return();
	int64_t up = world.now;
	int asked = 0;
	link_sent(0);
	for (int i = 0; i < 3; i++) {
		world_sleep(9999);
		asked += link_sent(SSH_GLOBAL_REQUEST) != 0;
		world_sleep(1);
		asked += link_sent(SSH_GLOBAL_REQUEST) != 1;
	}
	check(back && asked == 0, "link: one keepalive after each interval of silence");
	world_sleep(9999);
	check(g.lk.state == LK_UP, "link: alive until interval x count, and one more, has passed");
	world_sleep(1);
	check(g.lk.state == LK_WAITING && world.now - up == 40000,
		"link: lost then, to the millisecond");
	back = link_return();
	for (int i = 0; i < 30; i++) {
		world_sleep(5000);
		fake.info.bytes_in++;	/* half a packet: no message, but life */
		world_wake();
	}
	check(back && g.lk.state == LK_UP && link_sent(SSH_GLOBAL_REQUEST) == 0,
		"link: any byte is life");
	g.op.alive_interval = 0;
	world_sleep(86400000);
	check(g.lk.state == LK_UP && link_sent(SSH_GLOBAL_REQUEST) == 0,
		"link: ServerAliveInterval=0 asks nothing for a day");
	check(link_end(), "link: keepalives: no descriptor leaked");
}

/* A login that does not come about: given up by ConnectTimeout. */
static void unit_link_login(void)
{
	link_begin();
	g.op.connect_timeout = 7;
	fake.login_ends = TP_LOGIN;
	link_lose();
	link_try();
	check(g.lk.state == LK_LOGIN, "link: a login begins");
	world_sleep(6999);
	check(g.lk.state == LK_LOGIN, "link: it has ConnectTimeout");
	world_sleep(2);
	check(g.lk.state == LK_WAITING && strstr(world.log, "timed out"), "link: and no more");
	link_accept();
	fake.login_ends = TP_UP;
	check(link_return() && g.lk.logins == 2, "link: the next one comes about");
	g.op.reconnect = LK_NO;
	fake_fail("gone");
	check(!world_run() && world.ended && g.rn.exit_code == 255,
		"link: Reconnect=no: the loss is the end");
	check(link_end(), "link: logins: no descriptor leaked");
}

/* poll() fails for good: signals are served all the same. */
static void unit_link_poll(void)
{
	static const int errors[] = { EINVAL, ENOMEM };
	for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
		link_begin();
		world.poll_error = errors[i];
		lp_on_signal(SIGTERM);
		int64_t began = world.turns;
		bool ran = world_run();
		check(!ran && world.ended && world.turns - began < 10,
			"link: poll() fails with \"%s\": ended by TERM",
		      strerror(errors[i]));
		check(link_end(), "link: no descriptor leaked");
	}
}

/* accept() fails for good: it is tried once in ACCEPT_MS. */
static void unit_link_accept(void)
{
	static const int errors[] = { EPERM, ENETDOWN, EMFILE };
	struct peer p, q;
	for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
		link_begin();
		struct forward like = { .type = FW_LOCAL, .listen = { "127.0.0.1", 0 },
			.connect = { "there", 80 } };
		struct forward *f = fw_add(&like);
		ls_start(f);
		world_run();
		struct sockaddr_in a;
		socklen_t len = sizeof a;
		getsockname(f->socket[0], (struct sockaddr *)&a, &len);
		int s = tcp_connect(ntohs(a.sin_port), f->socket[0]);
		peer_connect(&p);
		world.accept_error = errors[i];
		bool rests = world_rest(100);
		check(s >= 0 && rests && g.mc.end == 0,
			"link: accept() fails with \"%s\": no spinning", strerror(errors[i]));
		world.accept_error = 0;
		world_sleep(ACCEPT_MS - 1);
		bool paused = g.mc.end == 0 && g.ch.end == 0;
		world_sleep(1);
		check(paused && peer_expect(&p, MASTER_HELLO) && g.ch.end == 1,
			"link: and both are served after ACCEPT_MS");
		peer_close(&p);
		close(s);
		peer_connect(&q);
		world_run();
		check(peer_expect(&q, MASTER_HELLO), "link: the next at once");
		peer_close(&q);
		world_run();
		check(link_end(), "link: no descriptor leaked");
	}
}

/* No descriptor may be had, for a while or for good: who passes some waits, and is
 * told why it waited in vain. */
static void unit_link_descriptors(void)
{
	struct rlimit was, none;
	struct session s;
	for (int good = 0; good < 2; good++) {
		link_begin();
		int fds[3];
		memset(&s, 0, sizeof s);
		session_pipes(&s, fds);
		bool hello = peer_hello(&s.p);
		session_request(&s, 0, "run", fds);
		getrlimit(RLIMIT_NOFILE, &was);
		none = was;
		none.rlim_cur = 3;
		setrlimit(RLIMIT_NOFILE, &none);
		world_run();
		if (good)
			setrlimit(RLIMIT_NOFILE, &was);
		check(hello && peer_quiet(&s.p) && !fake.out,
			"link: out of descriptors: the request waits");
		world_sleep(good ? ACCEPT_MS : g.op.session_wait * 1000 + 1);
		setrlimit(RLIMIT_NOFILE, &was);
		if (good) {
			const struct fake_message *m = fake_take();
			check(m && m->bytes[0] == SSH_CHANNEL_OPEN,
				"link: and is done when there are some");
		} else
			check(peer_expect(&s.p, MUX_S_FAILURE, "us", 9,
				"the master has no file descriptors left") && peer_gone(&s.p),
			      "link: and is told in the end");
		session_close(&s);
		world_run();
		check(link_end(), "link: no descriptor leaked");
	}
}

/* One number is free, and a request passes three descriptors: the kernel drops the second
 * one, and the client hears why. */
static void unit_link_lost_descriptor(void)
{
	struct rlimit was, one;
	struct session s;
	int fds[3];
	link_begin();
	memset(&s, 0, sizeof s);
	session_pipes(&s, fds);
	bool hello = peer_hello(&s.p);
	session_request(&s, 0, "run", fds);
	getrlimit(RLIMIT_NOFILE, &was);
	one = was;
	int next = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0);
	close(next);
	one.rlim_cur = (rlim_t)next + 1;
	setrlimit(RLIMIT_NOFILE, &one);
	world_run();
	setrlimit(RLIMIT_NOFILE, &was);
	check(hello && peer_expect(&s.p, MUX_S_FAILURE, "us", 9,
		"the master has no file descriptors left") && peer_gone(&s.p),
		"link: a descriptor that the kernel drops is told as what it is");
	session_close(&s);
	world_run();
	check(link_end(), "link: no descriptor leaked");
}

/* The control socket, then its directory, goes away under the master. */
static void unit_link_path(void)
{
	char away[128];
	snprintf(away, sizeof away, "%s.away", world.dir);
	link_begin();
	unlink(world.path);
	world_sleep(US_LOOK_MS - 1);
	bool waited = !us_exists();
	world_sleep(1);
	check(waited && us_exists() && peer_served(),
		"link: a control socket that was removed is there again");
	check(strstr(world.log, "was removed, listening again"), "link: and that is said");
	if (rename(world.dir, away) != 0)
		abort();
	world_sleep(US_LOOK_MS);
	world_sleep(US_LOOK_MS);
	const char *first = strstr(world.log, "No such file");
	check(!us_exists() && first && !strstr(first + 1, "No such file"),
		"link: its directory is gone: said once");
	if (mkdir(world.dir, 0700) != 0)
		abort();
	lk_kick();
	world_wake();
	check(us_exists() && peer_served(),
		"link: its directory is back: so is the socket, after a kick");
	unlink(world.path);
	close(open(world.path, O_CREAT | O_WRONLY, 0600));
	lk_kick();
	world_wake();
	struct stat st;
	check(lstat(world.path, &st) == 0 && S_ISREG(st.st_mode),
		"link: what is not ours there stays");
	check(link_end(), "link: no descriptor leaked");
	unlink(world.path);
	rmdir(world.dir);
	if (rename(away, world.dir) != 0)
		abort();
	unlink(world.path);
}

/* Fewer descriptors than the tables could use: sessions wait for one another, and
 * clients that pass none are served. */
static void unit_link_few(void)
{
	struct session s[3];
	link_begin();
	g.fd.most = 2 * FD_SESSION;
	bool ok = session_open(&s[0], 1000, 1000) && session_open(&s[1], 1000, 1000);
	ok = session_ask(&s[2], "late") && ok;
	check(ok && peer_quiet(&s[2].p) && !fake.out, "link: room for two: the third waits");
	check(peer_served(), "link: who passes none is served");
	session_finish(&s[0], 0);
	session_close(&s[0]);
	world_run();
	while (fake.out && fake.out->bytes[0] != SSH_CHANNEL_OPEN)
		fake_take();
	check(fake.out, "link: the third goes when one has ended");
	for (int i = 1; i < 3; i++)
		session_close(&s[i]);
	world_run();
	check(link_end(), "link: no descriptor leaked");
}

static void unit_link(void)
{
	unit_link_poll();
	unit_link_accept();
	unit_link_descriptors();
	unit_link_lost_descriptor();
	unit_link_few();
	unit_link_path();
	unit_link_cycles();
	unit_link_backoff();
	unit_link_flapping();
	unit_link_wanted();
	unit_link_kick();
	unit_link_alive();
	unit_link_exchange();
	unit_link_exchange_told();
	unit_link_login();
}
