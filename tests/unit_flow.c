/* unit_flow.c - bytes: order, back-pressure, closing, fairness, and the flags
 * of descriptors that others share. */

/* Reads all there is; whether it continues the count that session_stall()
 * began. */
static uint32_t flow_read(int fd, uint32_t at, bool *same)
{
	uint8_t bytes[4096];
	ssize_t n;
	while ((n = read(fd, bytes, sizeof bytes)) > 0)
		for (ssize_t i = 0; i < n; i++, at++)
			*same = *same && bytes[i] == (uint8_t)at;
	return at;
}

/* ----- output ----- */

/* A reader that stops: at most its window waits, others go on; then it takes
 * everything, and only after that hears of the end. */
static void unit_flow_stalled(void)
{
	struct session s, t;
	bool same = true;
	world_begin();
	session_open(&s, 1000, 1000);
	session_open(&t, 1000, 1000);
	uint32_t sent = session_stall(&s), read_so_far = 0;
	struct channel *c = &g.ch.slot[s.id];
	while (c->window > 0) {			/* the server uses its window up */
		uint8_t bytes[200];
		uint32_t part = c->window < sizeof bytes ? c->window : sizeof bytes;
		for (uint32_t k = 0; k < part; k++)
			bytes[k] = (uint8_t)(sent + k);
		sent += part;
		fake_put(SSH_CHANNEL_DATA, "uS", (uint32_t)s.id, bytes, (size_t)part);
		world_run();
	}
	check(c->queue[CH_OUT].len <= WINDOW_POOL / 2 && !pool_wrong(),
		"flow: a stalled reader holds %u bytes, no more", c->queue[CH_OUT].len);
	while (fake_take())
		;
	char text[16];
	fake_put(SSH_CHANNEL_DATA, "us", (uint32_t)t.id, "hello");
	world_run();
	check(read(t.out, text, sizeof text) == 5, "flow: another session goes on meanwhile");
	session_finish(&s, 9);
	check(peer_quiet(&s.p) && fake_expect(SSH_CHANNEL_EOF, "u", s.remote) &&
		fake_expect(SSH_CHANNEL_CLOSE, "u", s.remote),
	      "flow: CLOSE is answered, the client waits for its output");
	for (int i = 0; i < 1000 && read_so_far < sent; i++) {
		read_so_far = flow_read(s.out, read_so_far, &same);
		world_run();
	}
	check(same && read_so_far == sent, "flow: every byte in order (%u of %u)", read_so_far,
		sent);
	world_run();
	check(read(s.out, text, sizeof text) == 0 && session_ended(&s, 9),
		"flow: then the end of stdout and the exit status");
	session_close(&s);
	session_close(&t);
	check_clean("flow: a stalled reader");
}

/* Both streams, kept apart, in any order of reading. */
static void unit_flow_streams(void)
{
	struct session s;
	char out[64] = "", err[64] = "";
	world_begin();
	session_open(&s, 1000, 1000);
	fake_put(SSH_CHANNEL_DATA, "us", (uint32_t)s.id, "to out");
	fake_put(SSH_CHANNEL_EXTENDED_DATA, "uus", (uint32_t)s.id, 1, "to err");
	fake_put(SSH_CHANNEL_EXTENDED_DATA, "uus", (uint32_t)s.id, 2, "to nobody");
	fake_put(SSH_CHANNEL_DATA, "us", (uint32_t)s.id, " again");
	world_run();
	check(read(s.out, out, sizeof out) == 12 && read(s.err, err, sizeof err) == 6 &&
		!strcmp(out, "to out again") && !strcmp(err, "to err"),
	      "flow: stdout and stderr apart, other streams nowhere");
	close(s.out);
	s.out = -1;
	fake_put(SSH_CHANNEL_DATA, "us", (uint32_t)s.id, "nobody listens");
	world_run();
	check(fake_expect(SSH_CHANNEL_REQUEST, "usb", s.remote, "eow@openssh.com", 0),
		"flow: a closed stdout is told by eow");
	fake_put(SSH_CHANNEL_EXTENDED_DATA, "uus", (uint32_t)s.id, 1, "still");
	world_run();
	check(read(s.err, err, sizeof err) == 5, "flow: stderr goes on");
	session_finish(&s, 1);
	check(session_ended(&s, 1), "flow: and the exit status comes");
	session_close(&s);
	check_clean("flow: two streams");
	world_begin();
	fake.info.peer_version = "SSH-2.0-dropbear_2022.83";
	session_open(&s, 1000, 1000);
	close(s.out);
	s.out = -1;
	fake_put(SSH_CHANNEL_DATA, "us", (uint32_t)s.id, "nobody listens");
	world_run();
	check(!fake_take(), "flow: no eow for other servers");
	session_close(&s);
	check_clean("flow: no eow");
	world_begin();
	fake.info.peer_version = "SSH-2.0-Twisted_22.4.0";
	session_open(&s, 1000, 1000);
	fake_put(SSH_CHANNEL_EOF, "u", (uint32_t)s.id);
	world_run();
	fake_put(SSH_CHANNEL_DATA, "us", (uint32_t)s.id, "late");
	world_run();
	check(read(s.out, out, sizeof out) == 4,
		"flow: Conch's EOF does not cut off what waits for our window");
	session_finish(&s, 3);
	check(session_ended(&s, 3) && read(s.out, out, sizeof out) == 0,
		"flow: its CLOSE is the end");
	session_close(&s);
	check_clean("flow: an early EOF");
}

/* Windows grow while the reader keeps up, and are never more than promised. */
static void unit_flow_window_grows(void)
{
	struct session s;
	static uint8_t bytes[WINDOW_POOL];
	uint32_t most = 0, credit = WINDOW_START;
	bool kept = true;
	world_begin();
	session_open(&s, 1000, 1000);
	while (fake_take())
		;
	for (int i = 0; i < 60; i++) {
		uint32_t part = credit > 2000 ? 2000 : credit;
		kept = kept && credit == g.ch.slot[s.id].window && part > 0;
		fake_put(SSH_CHANNEL_DATA, "uS", (uint32_t)s.id, bytes, (size_t)part);
		credit -= part;
		world_run();
		while (read(s.out, bytes, sizeof bytes) > 0)
			;
		for (const struct fake_message *m; (m = fake_take());)
			if (m->bytes[0] == SSH_CHANNEL_WINDOW_ADJUST)
				credit += buf_u32_at(m->bytes + 5);
		most = credit > most ? credit : most;
	}
	uint32_t half = (WINDOW_BLOCKS - WINDOW_RESERVED) * WINDOW_BLOCK / 2;
	check(kept, "flow: the window is what was promised less what came");
	check(most + 2 * WINDOW_BLOCK >= half && most <= WINDOW_POOL / 2 + 4 * WINDOW_BLOCK,
		"flow: a lone reader that keeps up gets about half the pool (%u of %u)", most,
		WINDOW_POOL);
	struct session t;
	session_open(&t, 1000, 1000);
	check(g.ch.slot[t.id].window >= WINDOW_MIN_BLOCKS * WINDOW_BLOCK - 2 * (WINDOW_BLOCK - 1),
		"flow: a newcomer gets %u", g.ch.slot[t.id].window);
	session_close(&s);
	session_close(&t);
	check_clean("flow: windows");
}

/* RateLimit's buckets, in steps of a clock of our own. */
static void unit_flow_rate(void)
{
	struct sender bulk = { .input = SD_BULK }, brief = { .input = SD_SHORT };
	struct sender typed = { .input = SD_SHORT, .weight = SD_INTERACTIVE };
	world_begin();
	uint32_t free = rl_room(RL_UP, &bulk, 1000000);
	g.op.rate[RL_UP] = 8000000;
	g.op.rate[RL_DOWN] = 80000;
	g.now += 100000;
	rl_fill();
	int64_t most = rl_bytes(RL_UP, RATE_MS);
	check(free == 1000000 && rl_room(RL_UP, &typed, 1000000) == 1000000,
		"flow: no rate, no limit; nor for who is interactive");
	check(rl_room(RL_UP, &bulk, 1000000) == most && most == 1000 * RATE_MS && rl_due() == 0,
		"flow: a full bucket: %d bytes", (int)most);
	rl_take(RL_UP, &bulk, most);
	rl_take(RL_UP, &typed, 1000000);
	check(rl_room(RL_UP, &bulk, 1000000) == 0 && rl_due() == g.now + RATE_MS / 2 + 1,
		"flow: an empty one, until it is half full");
	check(rl_room(RL_UP, &brief, 1000000) == most, "flow: short input may run into debt");
	rl_take(RL_UP, &brief, most);
	check(rl_room(RL_UP, &brief, 1000000) == 0, "flow: but not for ever");
	g.now += RATE_MS + 10;
	rl_fill();
	check(rl_room(RL_UP, &bulk, 1000000) == 10000 && rl_room(RL_UP, &bulk, 7) == 7 &&
		rl_due() == 0, "flow: it fills with the time");
	check(rl_room(RL_DOWN, &bulk, 1000000) == 2048 && ch_held_back(1000000, 1000) == 10000,
		"flow: the other way has its own");
	g.op.rate[RL_UP] = g.op.rate[RL_DOWN] = 0;
	check_clean("flow: a rate");
}

/* ----- input ----- */

/* More than one turn may send, from a file that is always readable. */
static void unit_flow_upload(void)
{
	struct session s;
	enum { SIZE = FLIGHT - 1000 };
	static uint8_t data[SIZE], got[SIZE];
	int fds[3];
	size_t n = 0;
	for (int i = 0; i < SIZE; i++)
		data[i] = (uint8_t)rnd(256);
	memset(&s, 0, sizeof s);
	world_begin();
	session_pipes(&s, fds);
	close(fds[0]);
	char name[128];
	snprintf(name, sizeof name, "%s/data", world.dir);
	fds[0] = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
	bool ok = write(fds[0], data, SIZE) == SIZE && lseek(fds[0], 0, SEEK_SET) == 0;
	unlink(name);
	peer_hello(&s.p);
	session_request(&s, 0, "cat", fds);
	world_run();
	session_confirm(&s, 0x7fffffff, 32768);
	bool eof = false;
	for (const struct fake_message *m; (m = fake_take());) {
		if (m->bytes[0] == SSH_CHANNEL_DATA && n + m->len - 9 <= SIZE) {
			memcpy(got + n, m->bytes + 9, m->len - 9);
			n += m->len - 9;
		}
		eof |= m->bytes[0] == SSH_CHANNEL_EOF;
	}
	check(ok && n == SIZE && eof && memcmp(data, got, SIZE) == 0,
		"flow: a file is sent to its end without a stop (%zu of %d)", n, SIZE);
	session_close(&s);
	check_clean("flow: upload");
}

static void flow_endless_input(struct session *s)
{
	struct channel *c = &g.ch.slot[s->id];
	fd_return(&c->end[CH_IN]);
	fd_borrow(&c->end[CH_IN], open("/dev/zero", O_RDONLY | O_CLOEXEC));
}

/* ----- bytes in flight ----- */

/* Takes all that was sent; returns the bytes of data. */
static uint32_t flight_taken(void)
{
	uint32_t n = 0;
	for (const struct fake_message *m; (m = fake_take());)
		if (m->bytes[0] == SSH_CHANNEL_DATA)
			n += (uint32_t)m->len - SSH_DATA_HEADER;
	return n;
}

/* A session with endless input, on a network with that round trip; what it sends. */
static uint32_t flight_begin(struct session *s, int64_t rtt)
{
	world_begin();
	session_ask(s, "run");
	world_sleep(rtt);
	session_confirm(s, 0x7fffffff, 32768);
	fake_put(SSH_CHANNEL_SUCCESS, "u", (uint32_t)s->id);
	flow_endless_input(s);
	world_run();
	return flight_taken();
}

/* The server gives n bytes back; what is sent then. */
static uint32_t flight_give(const struct session *s, uint32_t n)
{
	fake_put(SSH_CHANNEL_WINDOW_ADJUST, "uu", (uint32_t)s->id, n);
	world_run();
	return flight_taken();
}

/* After that many ms all that is in flight comes back, which ends a round and begins the
 * next.  What is sent then. */
static uint32_t flight_round(const struct session *s, int64_t ms)
{
	world_sleep(ms);
	return flight_give(s, g.ch.slot[s->id].flight);
}

static void flight_end(struct session *s)
{
	session_close(s);
	check_clean("flow: in flight");
}

static void unit_flow_flight(void)
{
	struct session s;
	uint32_t sent = flight_begin(&s, 20);
	check(sent == FLIGHT, "flow: no more than FLIGHT bytes in flight (%u)", sent);
	check(flight_give(&s, 1000) == 1000, "flow: what the server takes goes on");
	check(flight_round(&s, 40) == 2 * FLIGHT, "flow: a round of two round trips doubles it");
	check(flight_round(&s, 70) == 2 * FLIGHT, "flow: one of up to four leaves it");
	check(flight_round(&s, 90) == FLIGHT, "flow: a longer one halves it");
	check(flight_round(&s, 700) == FLIGHT, "flow: FLIGHT is the least");
	flight_end(&s);
	flight_begin(&s, FLIGHT_NEAR - 1);
	flight_give(&s, 1);
	check(flight_round(&s, FLIGHT_NEAR) == FLIGHT, "flow: near, FLIGHT is enough");
	check(flight_round(&s, FLIGHT_NEAR - 1) == FLIGHT_FAST,
		"flow: where a round is short FLIGHT_FAST");
	check(flight_round(&s, 1) == FLIGHT_FAST, "flow: and no more");
	check(flight_round(&s, 30) == FLIGHT, "flow: FLIGHT again when it takes long");
	flight_end(&s);
}

/* A server that gives nothing back before more is in flight. */
static void unit_flow_late(void)
{
	struct session s;
	flight_begin(&s, 20);
	world_sleep(FLIGHT_MS - 1);
	check(flight_taken() == 0, "flow: the server may take FLIGHT_MS");
	world_sleep(1);
	world_sleep(1);
	check(flight_taken() == FLIGHT, "flow: then twice as much is in flight");
	flight_give(&s, FLIGHT);
	check(flight_round(&s, 500) == 2 * FLIGHT, "flow: that helped: it stays");
	flight_end(&s);
	flight_begin(&s, 20);
	world_sleep(FLIGHT_MS + 1);
	world_sleep(FLIGHT_MS / 2);
	flight_taken();
	flight_give(&s, FLIGHT);
	check(flight_round(&s, 500) == FLIGHT, "flow: it did not: the reader was slow");
	flight_end(&s);
	struct channel c = { .flight = 2 * (uint32_t)FLIGHT_MOST, .remote_window = 5 };
	g.fl.most = FLIGHT_MOST;
	check(fl_room(&c) == 5 && fl_patience(&c) < 0, "flow: FLIGHT_MOST is no limit");
	fake.info.peer_version = "SSH-2.0-mod_sftp";	/* gives nothing back for 4 GB */
	fl_begin();
	check(fl_room(&c) == 5, "flow: a server that is not OpenSSH has no limit");
}

/* A round whose channel goes silent or ends does not keep others from theirs. */
static void unit_flow_rounds(void)
{
	for (int ends = 0; ends < 2; ends++) {
		struct session s, other;
		flight_begin(&s, 20);
		flight_give(&s, 1000);
		session_open(&other, 0x7fffffff, 32768);
		g.fl.rtt = 20;			/* the other was confirmed at once */
		fd_return(&g.ch.slot[s.id].end[CH_IN]);
		if (ends)
			fake_put(SSH_CHANNEL_CLOSE, "u", (uint32_t)s.id);
		world_run();
		flow_endless_input(&other);
		world_run();
		flight_taken();
		world_sleep(FLIGHT_MS - 100);
		flight_give(&other, 1);
		world_sleep(101);
		flight_give(&other, 1);
		check(flight_round(&other, 40) == 2 * FLIGHT,
			"flow: one goes %s: the other's rounds", ends ? "away" : "silent");
		session_close(&other);
		flight_end(&s);
	}
}

/* Only the channel that was late shows whether more in flight has helped. */
static void unit_flow_whose(void)
{
	struct session s, other;
	flight_begin(&s, 20);
	session_open(&other, 0x7fffffff, 32768);
	world_sleep(FLIGHT_MS);
	world_sleep(1);
	flight_taken();
	flow_endless_input(&other);
	world_run();
	flight_taken();
	flight_give(&other, FLIGHT);
	check(g.fl.most == 2 * FLIGHT && g.fl.least == FLIGHT,
		"flow: what another gets back shows nothing");
	session_close(&other);
	flight_end(&s);
}

/* What the transport must have room for so that n bytes of data may go: a part
 * is kept for requests. */
static size_t flow_room(size_t n)
{
	return g.sd.room - g.sd.queue + n;
}

/* Two endless inputs on a network that takes `room` bytes a turn, the server
 * taking packets of these sizes. */
static void flow_fair(uint32_t packet_a, uint32_t packet_b, size_t room)
{
	struct session s[2];
	uint32_t packet[2] = { packet_a, packet_b }, bytes[2] = { 0, 0 };
	world_begin();
	for (int i = 0; i < 2; i++)
		session_open(&s[i], 0x7fffffff, packet[i]);
	for (int i = 0; i < 2; i++)
		flow_endless_input(&s[i]);
	while (fake_take())
		;
	for (int turn = 0; turn < 2000; turn++) {
		fake.room = flow_room(room);
		fake.wake = true;
		world_run();
		for (const struct fake_message *m; (m = fake_take());)
			if (m->bytes[0] == SSH_CHANNEL_DATA)
				bytes[buf_u32_at(m->bytes +
					1) == s[1].remote] += (uint32_t)m->len - 9;
	}
	uint32_t more = bytes[0] > bytes[1] ? bytes[0] : bytes[1],
		less = bytes[0] + bytes[1] - more;
	check(less > 0 && (more - less) <= more / 10,
		"flow: packets of %u and %u, room %zu: %u and %u bytes", packet_a, packet_b, room,
		bytes[0], bytes[1]);
	session_close(&s[0]);
	session_close(&s[1]);
	world_run();
	fake.room = SIZE_MAX;
	check_clean("flow: fair shares");
}

/* A channel that was held up long has no claim on what it missed. */
static void unit_flow_no_debts(void)
{
	struct session s[2];
	uint32_t first = 0;
	world_begin();
	for (int i = 0; i < 2; i++)
		session_open(&s[i], 0x7fffffff, 500);
	flow_endless_input(&s[0]);
	for (int turn = 0; turn < 500; turn++) {	/* room for one packet at a time */
		fake.room = flow_room(1);
		fake.wake = true;
		world_run();
	}
	while (fake_take())
		;
	flow_endless_input(&s[1]);
	fake.room = 200000;
	fake.wake = true;
	world_run();
	for (const struct fake_message *m; (m = fake_take()) &&
		!(m->bytes[0] == SSH_CHANNEL_DATA && buf_u32_at(m->bytes + 1) == s[1].remote);)
		first += m->bytes[0] == SSH_CHANNEL_DATA ? (uint32_t)m->len - 9 : 0;
	check(first <= 4 * SEND_QUANTUM,
		"flow: after long scarcity %u bytes pass before the next channel's turn", first);
	session_close(&s[0]);
	session_close(&s[1]);
	world_run();
	fake.room = SIZE_MAX;
	check_clean("flow: no debts");
}

/* A terminal's keystroke goes before the bulk that waits. */
static void unit_flow_terminal_first(void)
{
	struct session s[2];
	world_begin();
	for (int i = 0; i < 2; i++)
		session_open(&s[i], 0x7fffffff, 32768);
	flow_endless_input(&s[0]);
	g.ch.slot[1].flags |= CH_TTY;
	bool all = true;
	for (int i = 0; i < 50; i++) {
		fake.room = 0;
		(void)!write(s[1].in, "k", 1);
		world_wake();
		while (fake_take())
			;
		fake.room = flow_room(5000 + rnd(20000));
		world_wake();
		const struct fake_message *m = fake_take();
		bool first = m && buf_u32_at(m->bytes + 1) == s[1].remote;
		/* one packet may be ahead: its input was known before */
		m = first ? m : fake_take();
		also(&all, m && buf_u32_at(m->bytes + 1) == s[1].remote, "round %d", i);
	}
	check(all, "flow: a keystroke goes before bulk");
	session_close(&s[0]);
	session_close(&s[1]);
	world_run();
	fake.room = SIZE_MAX;
	check_clean("flow: terminals first");
}

/* One turn of sd_choose() on a network that took `bytes` in PACE_MS. */
static enum sd_mode flow_mode(uint64_t bytes)
{
	fake.info.bytes_out += bytes;
	g.now += PACE_MS;
	sd_turn_begins(false);
	sd_choose();
	return g.sd.mode;
}

/* Large pieces need a fast network, nobody who has something to say, no terminal. */
static void unit_flow_fast(void)
{
	struct session s[2];
	const uint64_t slow = BULK_QUEUE * PACE_MS / FAST_MS, fast = slow * 4;
	world_begin();
	session_open(&s[0], 0x7fffffff, 32768);
	check(flow_mode(slow) == SD_ALONE, "flow: alone on a slow network: small pieces");
	const uint32_t most = FAST_QUEUE * 3 / 4;	/* the router's queue has no more */
	check(flow_mode(fast) == SD_FAST && g.sd.queue == (BULK_QUEUE * 4 < most ? BULK_QUEUE * 4 :
		most), "flow: on a fast one as much as it takes in FAST_MS");
	session_open(&s[1], 0x7fffffff, 32768);
	g.sd.short_at = g.now - QUIET_MS - PACE_MS;
	check(flow_mode(fast) == SD_FAST, "flow: and beside one that is silent");
	g.sd.short_at = g.now;
	check(flow_mode(fast) == SD_SHARED && g.sd.queue == BULK_PACKET,
		"flow: not beside one that has just said something");
	g.sd.short_at = g.now - QUIET_MS;
	g.ch.slot[1].flags |= CH_TTY;
	check(tt_any() && flow_mode(fast) == SD_SHARED, "flow: nor beside a terminal");
	session_close(&s[0]);
	session_close(&s[1]);
	check_clean("flow: large pieces");
}

/* One turn in which the server sends QUICK_BYTES to s, a millisecond after the last. */
static void flow_turn(struct session *s)
{
	static uint8_t bytes[QUICK_BYTES];
	fake_put(SSH_CHANNEL_DATA, "uS", (uint32_t)s->id, bytes, sizeof bytes);
	world.now++;
	world_rest(1);
	while (read(s->out, bytes, sizeof bytes) > 0)
		;
}

/* How many turns until the server gets a byte of s, at most `most`. */
static int flow_until_heard(struct session *busy, struct session *s, int most)
{
	int n = 0;
	while (fake_take())
		;
	bool heard = write(s->in, "x", 1) != 1;
	while (!heard && n++ < most) {
		const struct fake_message *m;
		flow_turn(busy);
		while ((m = fake_take()))
			heard |= m->bytes[0] == SSH_CHANNEL_DATA;
	}
	return n;
}

/* The most turns until s, silent for long, is heard beside a fast stream. */
static int flow_worst(struct session *busy, struct session *s)
{
	int most = 0;
	for (int i = 0; i < 20; i++) {
		for (int k = 0; k < 2 * QUIET_MS + i; k++)
			flow_turn(busy);
		int n = flow_until_heard(busy, s, 100);
		most = n > most ? n : most;
	}
	return most;
}

/* The same while no descriptor is left for a set of the silent. */
static int flow_worst_without_set(struct session *busy, struct session *s)
{
	struct rlimit files, none;
	int free_one = dup(STDIN_FILENO);
	lp_more();
	getrlimit(RLIMIT_NOFILE, &files);
	none = (struct rlimit){ (rlim_t)free_one, files.rlim_max };
	close(free_one);
	setrlimit(RLIMIT_NOFILE, &none);
	int most = flow_worst(busy, s);
	setrlimit(RLIMIT_NOFILE, &files);
	return most;
}

static int flow_gathers(int fd)
{
	int bytes = 0;
	getsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &bytes, &(socklen_t){ sizeof bytes });
	return bytes;
}

/* n milliseconds in which something comes each time; how many bytes poll() waits for then. */
static int flow_comes(struct session *s, int fd, int n)
{
	for (int i = 0; i < n; i++)
		flow_turn(s);
	return flow_gathers(fd);
}

/* poll() waits for the rest of a packet, and while only a download moves, for a part of its
 * window. */
static void unit_flow_gather(void)
{
	struct session s;
	int ends[2];
	world_begin();
	session_open(&s, 0x7fffffff, 32768);
	struct channel *c = &g.ch.slot[s.id];
	check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0, "flow: a network");
	g.sd.fd = ends[0];
	check(flow_gathers(ends[0]) == 1, "flow: each byte is seen at once");
	flow_comes(&s, ends[0], 4 * QUICK_MS);
	int most = c->window_target / 4 < GATHER ? (int)c->window_target / 4 : GATHER;
	bool always = most > 1 || GATHER == 1;
	for (int i = 0; i < 2 * QUICK_MS; i++)
		always &= flow_comes(&s, ends[0], 1) == most;
	check(always, "flow: only a download moves: when %d bytes have come", most);
	c->flight = 1;
	check(flow_comes(&s, ends[0], 3) == 1, "flow: not while we send");
	c->flight = 0;
	check(flow_comes(&s, ends[0], 3) == most, "flow: when all is taken, again");
	c->flags |= CH_TTY;
	check(flow_comes(&s, ends[0], 2 * QUICK_MS) == 1, "flow: not beside a terminal");
	c->flags &= (uint16_t)~CH_TTY;
	check(flow_comes(&s, ends[0], 4 * QUICK_MS) == most, "flow: without it, again");
	world_sleep(GATHER_MS + 1);
	check(flow_gathers(ends[0]) == 1, "flow: not when nothing more comes");
	c->flight = 1;
	fake.info.lacking = GATHER_LEAST - 1;
	check(flow_comes(&s, ends[0], 3) == 1, "flow: the end of a packet comes soon");
	fake.info.lacking = GATHER_LEAST;
	world_sleep(QUIET_MS);
	fake_put(SSH_CHANNEL_DATA, "us", (uint32_t)s.id, "x");
	world_run();
	check(flow_gathers(ends[0]) == GATHER_LEAST, "flow: else the loop waits for it");
	world_sleep(PACKET_MS / 2);
	check(flow_gathers(ends[0]) == GATHER_LEAST, "flow: for PACKET_MS");
	world_sleep(PACKET_MS);
	check(flow_gathers(ends[0]) == 1, "flow: and no longer");
	fake.info.lacking = c->flight = 0;
	g.sd.fd = -1;
	close(ends[0]);
	close(ends[1]);
	session_close(&s);
	check_clean("flow: gathering");
}

/* Beside a fast stream most turns look at those who are silent as one entry, or leave them
 * out; nobody is heard later than QUICK_MS. */
static void unit_flow_quick(void)
{
	struct session s[3];
	world_begin();
	for (int i = 0; i < 3; i++)
		session_open(&s[i], 0x7fffffff, 32768);
	world_sleep(2 * QUIET_MS);
	int all = g.lp.n_poll, full = 0;
	for (int i = 0; i < 2 * QUIET_MS; i++)
		flow_turn(&s[0]);
	unsigned turns = world.turns;
	unsigned long polled = world.polled;
	for (int i = 0; i < 4 * SILENT_MS; i++, full += !g.lp.quick)
		flow_turn(&s[0]);
	turns = world.turns - turns;
	polled = world.polled - polled;
	check(turns == 4 * SILENT_MS && polled * 3 < turns * (unsigned long)all * 2,
		"flow: quick turns look at the busy ones (%lu of %lu)", polled,
		turns * (unsigned long)all);
	check(full > 0 && full <= 5, "flow: few turns are full (%d of %u)", full, turns);
	check(flow_worst(&s[0], &s[1]) == 2, "flow: a silent one is heard in the next turn");
	check(flow_until_heard(&s[0], &s[1], 100) == 1, "flow: and from then on at once");
	int most = flow_worst_without_set(&s[0], &s[1]);
	check(most > 2 && most <= QUICK_MS + 1, "flow: without a set it is heard soon (%d ms)",
		most);
	g.ch.slot[s[2].id].sender.weight = SD_INTERACTIVE;
	for (int k = 0; k < SILENT_MS; k++)
		flow_turn(&s[0]);
	check(flow_until_heard(&s[0], &s[2], 100) == 1, "flow: a terminal is heard at once");
	for (int i = 0; i < 3; i++)
		session_close(&s[i]);
	check_clean("flow: quick turns");
}

/* ----- terminals ----- */

static int flow_pty(int *slave)
{
	int m = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (m < 0 || grantpt(m) != 0 || unlockpt(m) != 0)
		abort();
	*slave = open(ptsname(m), O_RDWR | O_NOCTTY | O_CLOEXEC);
	struct termios t;
	if (*slave < 0 || tcgetattr(*slave, &t) != 0)
		abort();
	cfmakeraw(&t);
	tcsetattr(*slave, TCSANOW, &t);
	return m;
}

static volatile sig_atomic_t flow_blocked;

static void flow_on_alarm(int number)
{
	(void)number;
	flow_blocked = 1;
}

/* A session on a terminal, whose own description stays blocking: the master has
 * another one. */
static void unit_flow_terminal(void)
{
	struct session s;
	struct sigaction a = { .sa_handler = flow_on_alarm };
	int slave, fds[3];
	memset(&s, 0, sizeof s);
	s.out = s.err = -1;
	sigaction(SIGALRM, &a, NULL);
	world_begin();
	s.in = flow_pty(&slave);
	struct winsize w = { .ws_row = 24, .ws_col = 80 };
	ioctl(slave, TIOCSWINSZ, &w);
	for (int i = 0; i < 3; i++)
		fds[i] = fcntl(slave, F_DUPFD_CLOEXEC, 0);
	peer_hello(&s.p);
	session_request(&s, 1, "", fds);
	world_run();
	fake_take();
	s.remote = 7;
	session_confirm(&s, 10, 100);
	const struct fake_message *m = fake_take();
	check(m && m->len > 300 && memcmp(m->bytes + 9, "pty-req\1\0\0\0\5xterm\0\0\0\120\0\0\0\30",
		25) == 0 && m->bytes[m->len - 1] == 0,
	      "flow: pty-req with size and modes");
	check(fake_expect(SSH_CHANNEL_REQUEST, "usb", 7, "shell", 1) && !fake_take(),
		"flow: no command is a shell");
	check(!(fcntl(slave, F_GETFL) & O_NONBLOCK), "flow: a terminal is left blocking");
	alarm(2);
	(void)!write(s.in, "0123456789", 10);
	world_run();
	check(fake_expect(SSH_CHANNEL_DATA, "us", 7, "0123456789") && !fake_take(),
		"flow: keys up to the server's window");
	fake_put(SSH_CHANNEL_WINDOW_ADJUST, "uu", 0, 1000);
	world_run();
	check(!flow_blocked && !fake_take(),
		"flow: a new window, nothing typed: no read that blocks");
	alarm(0);
	flow_blocked = 0;
	char text[3000];
	memset(text, 'o', sizeof text);
	fake_put(SSH_CHANNEL_DATA, "uS", 0, text, (size_t)1000);
	world_run();
	size_t n = 0;
	for (ssize_t r; (r = read(s.in, text, sizeof text)) > 0; world_run())
		n += (size_t)r;
	check(n == 1000, "flow: output to the terminal (%zu bytes)", n);
	w.ws_col = 132;
	ioctl(slave, TIOCSWINSZ, &w);
	while (fake_take())
		;
	raise(SIGWINCH);
	world_run();
	check(fake_expect(SSH_CHANNEL_REQUEST, "usbuuuu", 7, "window-change", 0, 132, 24, 0, 0) &&
		!fake_take(), "flow: SIGWINCH tells the new size");
	raise(SIGWINCH);
	world_run();
	check(!fake_take(), "flow: but only a new one");
	close(slave);
	session_close(&s);
	check_clean("flow: a terminal");
}

/* Everything that the server was sent as data, and whether a break came in
 * between, after how many bytes. */
static size_t flow_typed(char *to, size_t max, int *break_at)
{
	size_t n = 0;
	*break_at = -1;
	for (const struct fake_message *m; (m = fake_take());) {
		if (m->bytes[0] == SSH_CHANNEL_REQUEST && m->len > 14 &&
			memcmp(m->bytes + 9, "break", 5) == 0)
			*break_at = (int)n;
		if (m->bytes[0] != SSH_CHANNEL_DATA || n + m->len - SSH_DATA_HEADER >= max)
			continue;
		memcpy(to + n, m->bytes + SSH_DATA_HEADER, m->len - SSH_DATA_HEADER);
		n += m->len - SSH_DATA_HEADER;
	}
	to[n] = 0;
	return n;
}

/* A session that wants a terminal, on pipes. */
static void flow_escapes_open(struct session *s, uint32_t window)
{
	int fds[3];
	memset(s, 0, sizeof *s);
	world_begin();
	session_pipes(s, fds);
	peer_hello(&s->p);
	session_request(s, 1, "", fds);
	world_run();
	s->remote = 100;
	session_confirm(s, window, 1000);
	while (fake_take())
		;
}

static void unit_flow_escapes(void)
{
	static const struct { const char *name, *typed, *sent; int break_at; } keys[] = {
		{ "no escape", "ls ~ ~? ~.\r", "ls ~ ~? ~.\r", -1 },
		{ "~~ is one ~", "~~\r~~a~~", "~\r~a~~", -1 },
		{ "an unknown one", "\r~x\r~", "\r~x\r", -1 },
		{ "~? is answered here", "a\n~?b", "a\nb", -1 },
		{ "one after the other", "~?~#~?z", "z", -1 }, { "~B alone", "~B", "", 0 },
		{ "~B among others", "ls\r~Bmore\r~Bend", "ls\rmore\rend", 8 },
	};
	struct session s;
	char sent[128];
	int break_at;
	for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
		for (int slow = 0; slow < 2; slow++) {
			flow_escapes_open(&s, 1000);
			for (size_t at = 0; at < strlen(keys[i].typed); at += slow ? 1 : 100) {
				(void)!write(s.in, keys[i].typed + at, slow ? 1 :
					strlen(keys[i].typed));
				world_run();
			}
			size_t n = flow_typed(sent, sizeof sent, &break_at);
			check(n == strlen(keys[i].sent) && strcmp(sent, keys[i].sent) == 0 &&
				break_at == keys[i].break_at,
			      "flow: escapes: %s, %s", keys[i].name, slow ? "key by key" :
				"at once");
			session_close(&s);
			world_run();
			world_end();
		}
	}
	flow_escapes_open(&s, 1);
	(void)!write(s.in, "~", 1);
	world_run();
	(void)!write(s.in, "x", 1);
	check(world_rest(100), "flow: an escape that is none and a window of 1: the loop rests");
	fake_put(SSH_CHANNEL_WINDOW_ADJUST, "uu", 0, 10);
	world_rest(100);
	flow_typed(sent, sizeof sent, &break_at);
	check(strcmp(sent, "~x") == 0, "flow: both keys follow when there is room");
	session_close(&s);
	world_rest(100);
	world_end();
	flow_escapes_open(&s, 1000);
	(void)!write(s.in, "exit\r~.", 7);
	world_run();
	check(peer_expect(&s.p, MUX_S_SESSION_OPENED, "uu", 9, 0) && peer_gone(&s.p),
		"flow: ~. ends the session at once");
	session_close(&s);
	check_clean("flow: escapes");
}

/* ----- flags of passed descriptors ----- */

static bool flow_nonblock(int fd)
{
	return fcntl(fd, F_GETFL) & O_NONBLOCK;
}

/* Passes a/b/c as the stdio of a session that is then open. */
static void flow_session(struct session *s, const int fds[3])
{
	int copies[3];
	memset(s, 0, sizeof *s);
	s->in = s->out = s->err = -1;
	for (int i = 0; i < 3; i++)
		copies[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
	peer_hello(&s->p);
	session_request(s, 0, "x", copies);
	world_run();
	for (int i = 0; i < g.mc.end; i++)
		if (g.mc.slot[i].phase == MX_OPENING)
			s->id = g.mc.slot[i].channel;
	s->remote = (uint32_t)s->id + 100;
	session_confirm(s, 1000, 1000);
}

/* Two sessions, all six descriptors one open file description of a kind that
 * only O_NONBLOCK keeps from waiting (an eventfd); they end in either order and
 * in every way. */
static void flow_shared(bool nonblock_before, int order, int how)
{
	int sv[1];
	struct session s[2];
	static const char *const ways[] = { "exit", "death of the client", "end of stdout first",
		"end of the master" };
	world_begin();
	if ((sv[0] = eventfd(0, EFD_CLOEXEC)) < 0)
		abort();
	if (nonblock_before)
		fd_nonblock(sv[0]);
	for (int i = 0; i < 2; i++)
		flow_session(&s[i], (int[]){ sv[0], sv[0], sv[0] });
	bool during = flow_nonblock(sv[0]), between = true;
	for (int i = 0; i < 2 && how < 3; i++) {
		struct session *one = &s[i ^ order];
		if (how == 2) {
			fake_put(SSH_CHANNEL_EOF, "u", (uint32_t)one->id);
			world_run();
			between = between && flow_nonblock(sv[0]);
		}
		if (how == 1) {
			peer_close(&one->p);
			world_run();
			fake_put(SSH_CHANNEL_CLOSE, "u", (uint32_t)one->id);
			world_run();
		} else
			session_finish(one, 0);
		if (i == 0)
			between = between && flow_nonblock(sv[0]);
	}
	if (how == 3) {
		raise(SIGTERM);
		world_run();
		for (int i = 0; i < 2; i++)
			world_sleep(FAREWELL_MS);
		fd_return_all();
	}
	check(during && between && flow_nonblock(sv[0]) == nonblock_before,
		"flow: O_NONBLOCK of one description in two sessions, %s before, order %d, %s",
	      nonblock_before ? "set" : "not set", order, ways[how]);
	close(sv[0]);
	session_close(&s[0]);
	session_close(&s[1]);
	world_run();
	check(world_end(), "flow: ... no descriptor leaked");
}

/* Two sessions read one terminal, and it takes the output of both without being
 * read: whoever comes second must not make the master wait. */
static void flow_terminal_shared(void)
{
	static uint8_t bytes[1000];
	struct session s[2];
	size_t typed = 0;
	bool waits = false;
	world_begin();
	int slave, master = flow_pty(&slave);
	for (int i = 0; i < 2; i++)
		flow_session(&s[i], (int[]){ slave, slave, slave });
	while (fake_take())
		;
	alarm(20);		/* a master that waits ends the test */
	check(write(master, "line\n", 5) == 5, "flow: somebody types for two sessions");
	world_run();
	for (const struct fake_message *m; (m = fake_take());)
		typed += m->bytes[0] == SSH_CHANNEL_DATA ? m->len - 9 : 0;
	check(typed == 5,
		"flow: two sessions read one terminal: the line comes once, nobody waits");
	for (int i = 0; i < 2000 && !waits; i++) {
		const struct channel *c = &g.ch.slot[s[i % 2].id];
		size_t n = c->window < sizeof bytes ? c->window : sizeof bytes;
		if (n > 0 && i % 4 < 2)
			fake_put(SSH_CHANNEL_DATA, "uS", (uint32_t)s[i % 2].id, bytes, n);
		else if (n > 0)
			fake_put(SSH_CHANNEL_EXTENDED_DATA, "uuS", (uint32_t)s[i % 2].id, 1, bytes,
				n);
		world_run();
		while (fake_take())
			;
		waits = !ch_empty(&g.ch.slot[s[0].id]) && !ch_empty(&g.ch.slot[s[1].id]);
	}
	check(waits, "flow: a terminal that nobody reads: the rest of both waits in the pool");
	alarm(0);
	for (int i = 0; i < 2; i++)
		session_finish(&s[i], 0);
	for (int i = 0; i < 2; i++)
		peer_close(&s[i].p);
	world_run();
	close(master);
	close(slave);
	for (int i = 0; i < 2; i++)
		session_close(&s[i]);
	world_run();
	check(world_end(), "flow: ... no descriptor leaked");
}

/* A pipe's and a socket's flags are never touched, open or not. */
static void flow_untouched(bool socket)
{
	int p[2];
	struct session s;
	world_begin();
	if (socket ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p) : pipe2(p, O_CLOEXEC))
		abort();
	flow_session(&s, (int[]){ p[0], p[1], p[1] });
	bool set = flow_nonblock(p[0]) || flow_nonblock(p[1]);
	session_finish(&s, 0);
	check(!set && !flow_nonblock(p[0]) && !flow_nonblock(p[1]),
		"flow: the flags of a %s are never touched", socket ? "socket" : "pipe");
	close(p[0]);
	close(p[1]);
	session_close(&s);
	world_run();
	check(world_end(), "flow: ... no descriptor leaked");
}

/* A queued request's descriptors are not touched. */
static void unit_flow_flags_untouched(void)
{
	int p[2], fds[3];
	struct session s;
	world_begin();
	if (pipe2(p, O_CLOEXEC) != 0)
		abort();
	for (int i = 0; i < 3; i++)
		fds[i] = fcntl(p[i > 0], F_DUPFD_CLOEXEC, 0);
	memset(&s, 0, sizeof s);
	s.in = s.out = s.err = -1;
	peer_hello(&s.p);
	session_request(&s, 0, "x", fds);
	world_run();
	check(!flow_nonblock(p[0]) && !flow_nonblock(p[1]),
		"flow: while the channel opens the flags are as they were");
	session_confirm(&s, 10, 10);
	check(!flow_nonblock(p[0]) && !flow_nonblock(p[1]), "flow: nor later: they are a pipe's");
	session_finish(&s, 0);
	check(!flow_nonblock(p[0]) && !flow_nonblock(p[1]), "flow: at the end they are again");
	close(p[0]);
	close(p[1]);
	session_close(&s);
	check_clean("flow: flags");
}

/* ----- random life ----- */

/* Everything at once: clients come, go and die, the server talks, readers
 * stall, calls are interrupted; the account is checked after each step. */
static void flow_soak_step(struct session *s, bool *alive)
{
	uint8_t bytes[256] = { 0 };
	int i = (int)rnd(SESSIONS);
	struct channel *c = alive[i] ? &g.ch.slot[s[i].id] : NULL;
	if (!c) {
		world.chaos = 0;
		alive[i] = session_ask(&s[i], "run") && s[i].id >= 0;
		if (alive[i])
			session_confirm(&s[i], 5000, 300);
		else
			session_close(&s[i]);
		world.chaos = 4;
		return;
	}
	if (!ch_is_open(c) || c->rcvd == CH_CLOSED)
		return;
	switch (rnd(12)) {
	case 0: case 1: case 2:
		fake_put(SSH_CHANNEL_DATA, "uS", (uint32_t)s[i].id, bytes,
			(size_t)rnd(c->window < 256 ? c->window + 1 : 256));
		break;
	case 3:
		fake_put(SSH_CHANNEL_EXTENDED_DATA, "uuS", (uint32_t)s[i].id, 1, bytes,
			(size_t)rnd(c->window < 256 ? c->window + 1 : 256));
		break;
	case 4: case 5: (void)!read(s[i].out, bytes, sizeof bytes); break;
	case 6: case 7: (void)!write(s[i].in, bytes, rnd(sizeof bytes)); break;
	case 8: fake_put(SSH_CHANNEL_WINDOW_ADJUST, "uu", (uint32_t)s[i].id, rnd(2000)); break;
	case 9: fd_close(rnd(2) ? &s[i].out : &s[i].err); break;
	case 10: fake.room = rnd(3) ? SIZE_MAX : rnd(500); break;
	default:
		if (rnd(4) == 0)
			fake_put(SSH_CHANNEL_EOF, "u", (uint32_t)s[i].id);
	}
}

static void flow_soak_end(struct session *s, bool *alive)
{
	int i = (int)rnd(SESSIONS);
	if (!alive[i])
		return;
	struct channel *c = &g.ch.slot[s[i].id];
	fake.room = SIZE_MAX;
	if (rnd(2))
		session_close(&s[i]);
	world_run();
	if (ch_is_open(c) && c->rcvd < CH_CLOSED)
		fake_put(SSH_CHANNEL_CLOSE, "u", (uint32_t)s[i].id);
	world_run();
	session_close(&s[i]);
	world_run();
	alive[i] = false;
}

static void unit_flow_soak(void)
{
	struct session s[SESSIONS];
	bool alive[SESSIONS] = { false };
	const char *wrong = NULL;
	int step = 0;
	world_begin();
	world.seed = 12345;
	for (; step < 20000 && !wrong && g.lk.state == LK_UP; step++) {
		flow_soak_step(s, alive);
		if (rnd(30) == 0)
			flow_soak_end(s, alive);
		world_run();
		wrong = pool_wrong();
		while (fake_take())
			;
	}
	check(!wrong && g.lk.state == LK_UP,
		"flow: %d random steps of sessions keep the account%s%s%s", step, wrong ? ": " : "",
		wrong ? wrong : "", world.log);
	for (int i = 0; i < SESSIONS; i++)
		if (alive[i])
			session_close(&s[i]);
	world.chaos = 0;
	fake.room = SIZE_MAX;
	check_clean("flow: a random life");
}

static void unit_flow(void)
{
	unit_flow_rate();
	unit_flow_stalled();
	unit_flow_streams();
	unit_flow_window_grows();
	unit_flow_upload();
	unit_flow_flight();
	unit_flow_late();
	unit_flow_rounds();
	unit_flow_whose();
	flow_fair(32768, 32768, 4000);
	flow_fair(32768, 500, 4000);
	flow_fair(500, 32768, 4000);
	flow_fair(500, 1000, 20000);
	flow_fair(32768, 1000, 1);
	unit_flow_no_debts();
	unit_flow_terminal_first();
	unit_flow_fast();
	unit_flow_quick();
	unit_flow_gather();
	unit_flow_terminal();
	unit_flow_escapes();
	flow_terminal_shared();
	flow_untouched(false);
	flow_untouched(true);
	for (int order = 0; order < 2; order++)
		for (int how = 0; how < 4; how++)
			for (int before = 0; before < 2; before++)
				flow_shared(before, order, how);
	unit_flow_flags_untouched();
	unit_flow_soak();
}
