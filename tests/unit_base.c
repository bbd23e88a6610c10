/* unit_base.c - cursors, window pool, request memory, connector, control
 * socket. */

/* ----- buf_ ----- */

static void unit_buf(void)
{
	uint8_t bytes[16] = { 0, 0, 0, 3, 'a', 'b', 'c', 7 };
	struct buf b = buf_over(bytes, 8);
	struct str s = buf_get_str(&b);
	check(str_is(s, "abc") && buf_get_u8(&b) == 7 && !b.bad, "buf: string and byte");
	check(buf_get_u8(&b) == 0 && b.bad, "buf: beyond the end is zero and bad");
	b.pos = 0;
	check(buf_get_u32(&b) == 0 && b.bad, "buf: the first error sticks");
	static const uint32_t lengths[] = { 5, 0x7fffffff, 0x80000000, 0xfffffffc, 0xffffffff };
	bool all = true;
	for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
		buf_set_u32(bytes, lengths[i]);
		b = buf_over(bytes, 8);
		s = buf_get_str(&b);
		also(&all, s.len == 0 && b.bad && b.pos <= 8, "length %u", lengths[i]);
	}
	check(all, "buf: string lengths beyond the end");
	b = buf_over(bytes, 6);
	buf_put_u32(&b, 0x01020304);
	buf_put_u32(&b, 0x05060708);
	check(b.bad && b.pos == 4 && buf_u32_at(bytes) == 0x01020304,
		"buf: a write that does not fit writes nothing");
	memcpy(bytes, "\0\0\0\2x\0", 6);
	b = buf_over(bytes, 6);
	buf_get_text(&b);
	check(b.bad, "buf: NUL in a text is bad");
	b = buf_over(bytes, 6);
	buf_get_str(&b);
	check(!b.bad, "buf: NUL in a string is not");
}

/* ----- pool_: a model of channels whose peers use up windows and whose
 * readers take what they like ----- */

struct pool_model {
	/* bytes put in and taken out, as counters */
	uint32_t sent[CH_STREAMS], taken[CH_STREAMS];
};

/* The nth byte of a stream: queues must keep their order. */
static uint8_t pool_byte(int channel, int stream, uint32_t n)
{
	return (uint8_t)(n * 7 + n / 251 + (uint32_t)(channel * 31 + stream * 97));
}

static void pool_arrive(struct channel *c, struct pool_model *m)
{
	static uint8_t bytes[WINDOW_POOL];
	int s = (int)rnd(CH_STREAMS), id = sl_channel_index(c);
	uint32_t n = c->window ? rnd(c->window + 1) : 0;
	if (rnd(3) == 0)
		n = n > 3 ? 3 : n;
	for (uint32_t i = 0; i < n; i++)
		bytes[i] = pool_byte(id, s, m->sent[s] + i);
	c->window -= n;
	pool_put(&c->queue[s], bytes, n);
	m->sent[s] += n;
	pool_account(c);
}

/* The reader takes some; false if the bytes are not those that were put. */
static bool pool_take(struct channel *c, struct pool_model *m)
{
	struct iovec iov[5];
	int s = (int)rnd(CH_STREAMS), pieces = pool_iov(&c->queue[s], iov, 1 + (int)rnd(5));
	uint32_t most = 0, n, at = 0;
	for (int i = 0; i < pieces; i++)
		most += (uint32_t)iov[i].iov_len;
	n = rnd(2) ? most : rnd(most + 1);
	bool same = most <= c->queue[s].len && (pieces > 0 || c->queue[s].len == 0);
	for (int i = 0; i < pieces; i++)
		for (size_t k = 0; k < iov[i].iov_len && at < n; k++, at++)
			same = same &&
				((uint8_t *)iov[i].iov_base)[k] == pool_byte(sl_channel_index(c), s,
				m->taken[s] + at);
	pool_drop(&c->queue[s], n);
	m->taken[s] += n;
	pool_account(c);
	return same;
}

/* What ch_credit() may do at most, in any amount. */
static void pool_promise(struct channel *c)
{
	uint32_t room = pool_room(c);
	c->window += rnd(4) ? room : rnd(room + 1);
	pool_account(c);
}

static void pool_leave(struct channel *c)
{
	c->state = CH_DEAD;
	ch_free(c);
}

static struct channel *pool_newcomer(void)
{
	struct channel *c = ch_alloc(CH_SESSION, CH_OPENING);
	return c;
}

/* One random step; a word about what is wrong. */
static const char *pool_step(struct pool_model *m)
{
	struct channel *c = &g.ch.slot[rnd(CHANNELS)];
	if (c->state == CH_FREE) {
		c = rnd(8) ? NULL : pool_newcomer();
		if (c && c->window < WINDOW_MIN_BLOCKS * WINDOW_BLOCK - 2 * (WINDOW_BLOCK - 1))
			return "a newcomer got less than the minimum";
		if (c)
			m[sl_channel_index(c)] = (struct pool_model){ { 0 }, { 0 } };
		return NULL;
	}
	switch (rnd(10)) {
	case 0: case 1: case 2:
		pool_arrive(c, &m[sl_channel_index(c)]);
		break;
	case 3: case 4: case 5: case 6:
		return pool_take(c, &m[sl_channel_index(c)]) ? NULL : "bytes in disorder";
	case 7: case 8:
		pool_promise(c);
		break;
	default:
		if (rnd(40) == 0)
			pool_leave(c);
	}
	return NULL;
}

static void unit_pool_property(void)
{
	static struct pool_model model[CHANNELS];
	const char *wrong = NULL;
	int step = 0;
	world_clear();
	for (; step < 300000 && !wrong; step++)
		if (!(wrong = pool_step(model)))
			wrong = pool_wrong();
	check(!wrong, "pool: invariants hold at each of %d random steps%s%s", step, wrong ? ": " :
		"", wrong ? wrong : "");
	for (int i = 0; i < CHANNELS; i++)
		if (g.ch.slot[i].state != CH_FREE)
			pool_leave(&g.ch.slot[i]);
	check(world_idle() && !pool_wrong(), "pool: everything comes back");
}

/* Credit as given by a reader that always keeps up. */
static uint32_t pool_greedy(struct channel *c)
{
	c->window += pool_room(c);
	pool_account(c);
	return c->window;
}

/* However many have had no data, a busy one gets an eighth of the shared part. */
static void unit_pool_idle(void)
{
	struct channel *c[CHANNELS];
	const uint32_t shared = (WINDOW_BLOCKS - WINDOW_RESERVED) * WINDOW_BLOCK;
	world_clear();
	for (int i = 0; i < CHANNELS; i++)
		c[i] = pool_newcomer();
	uint32_t got = pool_greedy(c[CHANNELS - 1]);
	check(got >= shared / 8 && !pool_wrong(), "pool: idle channels leave a busy one %u of %u",
		got, shared);
	for (int i = 0; i < CHANNELS; i++)
		pool_leave(c[i]);
}

static void unit_pool_shares(void)
{
	world_clear();
	uint32_t shared = (WINDOW_BLOCKS - WINDOW_RESERVED) * WINDOW_BLOCK,
		min = 3 * WINDOW_BLOCK - 126;
	struct channel *c[CHANNELS];
	for (int i = 0; i < CHANNELS; i++)
		c[i] = pool_newcomer();
	uint32_t first = pool_greedy(c[0]);
	check(first >= shared / 4 && first <= WINDOW_POOL / 2 + WINDOW_BLOCK * 4,
		"pool: with idle neighbours one gets %u of %u",
	      first, WINDOW_POOL);
	for (int i = 1; i < CHANNELS; i++)
		pool_leave(c[i]);
	first = pool_greedy(c[0]);
	check(first + 2 * WINDOW_BLOCK >= shared / 2 && first <= shared / 2 + min,
		"pool: a lone channel gets half (%u of %u)", first, shared);
	bool all = true;
	for (int i = 1; i < CHANNELS; i++) {
		c[i] = pool_newcomer();
		also(&all, c[i]->window >= min && pool_greedy(c[i]) >= min, "newcomer %d", i);
	}
	check(all && !pool_wrong(), "pool: newcomers beside a greedy one get their minimum");
	check(!pool_newcomer(), "pool: no channel beyond CHANNELS");
	for (int i = 0; i < CHANNELS; i++)
		pool_leave(c[i]);
	for (int i = 0; i < CHANNELS; i++)
		c[i] = pool_newcomer();
	for (int i = 0; i + 1 < CHANNELS; i++)
		also(&all, pool_greedy(c[i]) >= min, "channel %d", i);
	first = pool_greedy(c[CHANNELS - 1]);
	check(all && first >= shared / 40,
		"pool: beside %d that once were busy one still gets %u of %u", CHANNELS - 1, first,
		shared);
	for (int i = 0; i < CHANNELS; i++)
		pool_leave(c[i]);
}

/* ----- req_ ----- */

static bool req_overlap(void)
{
	for (int i = 0; i < REQUESTS; i++)
		for (int k = 0; k < i; k++)
			if (g.req.slot[i].len && g.req.slot[k].len &&
				g.req.slot[i].at < g.req.slot[k].at + g.req.slot[k].len &&
			    g.req.slot[k].at < g.req.slot[i].at + g.req.slot[i].len)
				return true;
	return false;
}

/* The longest gap, by brute force. */
static uint32_t req_gap(void)
{
	uint32_t best = 0, run = 0;
	for (uint32_t at = 0; at < REQUEST_POOL; at++) {
		bool used = false;
		for (int i = 0; i < REQUESTS; i++)
			used |= g.req.slot[i].len && at >= g.req.slot[i].at &&
				at < g.req.slot[i].at + g.req.slot[i].len;
		run = used ? 0 : run + 1;
		best = run > best ? run : best;
	}
	return best;
}

static void unit_req(void)
{
	world_clear();
	int16_t slot[REQUESTS] = { -1, -1, -1 };
	bool ok = true;
	for (int step = 0; step < 4000 && ok; step++) {
		int16_t *s = &slot[rnd(REQUESTS)];
		uint32_t len = 1 + rnd(REQUEST_MAX);
		if (*s >= 0) {
			req_free(s);
			continue;
		}
		bool fits = req_gap() >= len;
		*s = (int16_t)req_alloc(len);
		ok = fits == (*s >= 0) && !req_overlap() &&
		     (*s < 0 ||
			(g.req.slot[*s].len == len && g.req.slot[*s].at + len <= REQUEST_POOL));
	}
	check(ok, "req: placed exactly when a gap is long enough, never overlapping");
	for (int i = 0; i < REQUESTS; i++)
		req_free(&slot[i]);
	for (int i = 0; i < REQUESTS; i++)
		slot[i] = (int16_t)req_alloc(1);
	check(req_alloc(1) < 0, "req: no more than REQUESTS");
	for (int i = 0; i < REQUESTS; i++)
		req_free(&slot[i]);
	check(world_requests() == 0 && req_gap() == REQUEST_POOL, "req: all comes back");
}

/* ----- cn_ ----- */

static int cn_listener(uint16_t *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof a;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(fd, (struct sockaddr *)&a, sizeof a) != 0 || getsockname(fd, (struct sockaddr *)&a,
		&len) != 0)
		abort();
	*port = ntohs(a.sin_port);
	return fd;
}

/* A connection to a listener of the program, which has it when this returns: on a busy
 * machine the kernel hands the last packet of a handshake on later. */
static int tcp_connect(uint16_t port, int listener)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct pollfd p = { .fd = listener, .events = POLLIN };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(fd, (struct sockaddr *)&a, sizeof a) != 0 || poll(&p, 1, 10000) != 1)
		fd_close(&fd);
	return fd;
}

/* Serves a connector until it has an outcome or nothing happens for long. */
static void cn_drive(struct connector *c)
{
	for (int i = 0; i < 50 && cn_events(c); i++) {
		struct pollfd p = { .fd = c->fd, .events = cn_events(c) };
		poll(&p, 1, 5000);
		cn_service(c, p.revents, world.now);
	}
}

static void unit_cn_addresses(void)
{
	struct connector c;
	uint16_t port;
	world_clear();
	int l = cn_listener(&port), fds = world_count_fds();
	cn_start(&c, "127.0.0.1", port, AF_UNSPEC, world.now + 5000, world.now);
	cn_drive(&c);
	if (!emulated("mips", "cn: closed port refused", NO_SO_ERROR))
		check(c.state == CN_FAILED && strcmp(c.why, "Connection refused") == 0 && c.fd < 0,
			"cn: closed port refused: %s", c.why);
	listen(l, 8);
	cn_start(&c, "127.0.0.1", port, AF_INET, world.now + 5000, world.now);
	cn_drive(&c);
	check(c.state == CN_DONE && c.fd >= 0 && c.pid == 0,
		"cn: an address connects without a child");
	cn_stop(&c);
	/* one dead address after the other, then the living one */
	cn_start(&c, "127.0.0.1", 1, AF_INET, world.now + 5000, world.now);
	fd_close(&c.fd);
	c.n = 3;
	c.next = 0;
	c.port = port;
	for (int i = 0; i < 3; i++) {
		c.reply.address[i].family = AF_INET;
		memcpy(c.reply.address[i].bytes, i < 2 ? "\x7f\x01\x02\x03" : "\x7f\0\0\1", 4);
	}
	cn_next(&c, world.now);
	cn_drive(&c);
	check(c.state == CN_DONE && c.next == 3, "cn: addresses are tried in turn (%u of 3)",
		c.next);
	cn_stop(&c);
	check(world_count_fds() == fds, "cn: no descriptor leaked");
	close(l);
}

/* An answer of the helper that comes too late is not the next job's. */
static void unit_sp_answers(void)
{
	int sv[2], helper = g.sp.helper;
	struct sp_answer late = { 1, 4711, 0 }, right = { 2, 4712, 0 };
	socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv);
	g.sp.helper = sv[0];
	send(sv[1], &late, sizeof late, 0);
	send(sv[1], &right, sizeof right, 0);
	check(sp_await(2) == 4712, "sp: a late answer is dropped");
	send(sv[1], &right, 3, 0);
	check(sp_await(3) == -1 && errno == EPIPE, "sp: a short answer starts nothing");
	close(sv[1]);
	check(sp_await(4) == -1 && errno == EPIPE, "sp: nor does a helper that is gone");
	close(sv[0]);
	g.sp.helper = helper;
}

static void unit_cn_names(void)
{
	struct connector c;
	uint16_t port;
	world_clear();
	int l = cn_listener(&port), fds = world_count_fds();
	listen(l, 8);
	cn_start(&c, "localhost", port, AF_INET, world.now + 5000, world.now);
	check(c.state == CN_RESOLVING && c.pid > 0, "cn: a name is resolved in a child");
	cn_drive(&c);
	check(c.state == CN_DONE, "cn: localhost connects: %s", c.why);
	cn_stop(&c);
	cn_start(&c, "no.such.host.invalid", port, AF_INET, world.now + 5000, world.now);
	cn_drive(&c);
	check(c.state == CN_FAILED && strncmp(c.why, "Could not resolve hostname: ", 28) == 0,
		"cn: unknown name: %s", c.why);
	cn_start(&c, "127.0.0.1", port, AF_INET6, world.now + 5000, world.now);
	cn_drive(&c);
	check(c.state == CN_FAILED, "cn: an IPv4 address is none of IPv6: %s", c.why);
	cn_start(&c, "localhost", port, AF_INET, world.now + 5000, world.now);
	cn_service(&c, 0, world.now + 4999);
	bool patient = c.state == CN_RESOLVING;
	cn_service(&c, 0, world.now + 5000);
	check(patient && c.state == CN_FAILED && strstr(c.why, "timed out") && c.fd < 0,
		"cn: a slow resolver times out: %s", c.why);
	while (waitpid(-1, NULL, 0) > 0)
		;
	check(world_count_fds() == fds, "cn: no descriptor leaked by resolving");
	close(l);
}

/* A resolver that dies, or answers in pieces. */
static void unit_cn_child(void)
{
	struct connector c;
	int p[2];
	world_clear();
	for (int whole = 0; whole < 2; whole++) {
		memset(&c, 0, sizeof c);
		if (pipe2(p, O_NONBLOCK | O_CLOEXEC) != 0)
			abort();
		c.fd = p[0];
		c.state = CN_RESOLVING;
		c.port = 1;
		c.deadline = world.now + 1000;
		struct cn_reply r = { .error = 0, .n = 1 };
		r.address[0].family = AF_INET;
		memcpy(r.address[0].bytes, "\x7f\0\0\1", 4);
		bool waits = true;
		for (size_t i = 0; i < sizeof r - !whole; i++) {
			waits = waits && c.state == CN_RESOLVING;
			(void)!write(p[1], (char *)&r + i, 1);
			cn_service(&c, POLLIN, world.now);
		}
		close(p[1]);
		if (whole)
			check(waits && c.state != CN_RESOLVING, "cn: an answer byte by byte");
		else {
			cn_service(&c, POLLHUP, world.now);
			check(c.state == CN_FAILED && strstr(c.why, "resolver ended"),
				"cn: a resolver that dies: %s", c.why);
		}
		cn_stop(&c);
	}
}

/* An address that answers nothing gets its share of the time. */
static void unit_cn_timeout(void)
{
	struct connector c;
	uint16_t port;
	world_clear();
	int l = cn_listener(&port), full[8];
	listen(l, 0);
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	for (int i = 0; i < 8; i++) {		/* its queue is full: a SYN is not answered */
		full[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		(void)!connect(full[i], (struct sockaddr *)&a, sizeof a);
	}
	cn_start(&c, "127.0.0.1", port, AF_INET, world.now + 1000, world.now);
	cn_service(&c, 0, world.now + 999);
	bool patient = c.state == CN_CONNECTING;
	cn_service(&c, 0, world.now + 1000);
	check(patient && c.state == CN_FAILED && strcmp(c.why, "Connection timed out") == 0,
		"cn: black hole: %s", c.why);
	c.n = 2;
	c.next = 0;
	c.reply.address[1] = c.reply.address[0];
	cn_next(&c, world.now);
	check(c.attempt_deadline == world.now + 500, "cn: two addresses share the time");
	cn_stop(&c);
	for (int i = 0; i < 8; i++)
		close(full[i]);
	close(l);
}

/* ----- us_ ----- */

static bool us_exists(void)
{
	struct stat st;
	return lstat(world.path, &st) == 0;
}

static int us_entries(void)
{
	DIR *d = opendir(world.dir);
	int n = -2;
	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

static void unit_us_place(void)
{
	struct stat st;
	world_clear();
	check(!us_check(world.path) && us_listen(world.path) == 0, "us: listens");
	check(lstat(world.path, &st) == 0 && S_ISSOCK(st.st_mode) && (st.st_mode & 0777) == 0600 &&
		us_entries() == 1,
	      "us: mode 0600, no temporary name left");
	int first = g.us.listener;
	const char *why = us_check(world.path);
	check(why && strstr(why, "already running") && us_listen(world.path) == EEXIST,
		"us: a live master is not replaced: %s", why);
	check(g.us.listener == first && us_entries() == 1, "us: nothing left by the attempt");
	close(first);			/* dies without removing */
	g.us.listener = -1;
	g.us.bound = false;
	check(us_exists() && !us_check(world.path) && us_listen(world.path) == 0 &&
		us_entries() == 1, "us: a dead master's socket is replaced");
	us_remove();
	check(!us_exists() && us_entries() == 0, "us: removed at the end");
}

static void unit_us_foreign(void)
{
	world_clear();
	close(open(world.path, O_CREAT | O_WRONLY, 0644));
	const char *why = us_check(world.path);
	check(why && strstr(why, "not a socket") && us_listen(world.path) == EEXIST && us_exists(),
		"us: a file is not touched: %s", why);
	unlink(world.path);
	(void)!symlink("/dev/null", world.path);
	check(us_check(world.path) && us_listen(world.path) == EEXIST && us_exists(),
		"us: a symbolic link is not touched");
	unlink(world.path);
	us_listen(world.path);
	unlink(world.path);
	close(open(world.path, O_CREAT | O_WRONLY, 0644));
	us_remove();
	check(us_exists(), "us: at the end a path that is not ours any more stays");
	unlink(world.path);
	check(us_entries() == 0, "us: nothing else left");
	char deep[200];
	memset(deep, 'x', sizeof deep);
	deep[sizeof deep - 1] = 0;
	check(us_check(deep) && us_listen(deep) == ENAMETOOLONG, "us: path too long: %s",
		us_check(deep));
	deep[sizeof(((struct sockaddr_un *)0)->sun_path) - US_SUFFIX] = 0;
	check(us_check(deep) && us_listen(deep) == ENAMETOOLONG,
		"us: path too long for its temporary name");
	check(us_check("/nowhere/at/all") &&
		strcmp(us_check("/nowhere/at/all"), strerror(ENOENT)) == 0,
		"us: directory missing");
}

/* The tables of a channel's life: no state that nothing leads to or from, and a kind
 * that may be in the states between which it goes. */
static void unit_ch_states(void)
{
	uint32_t reached = 0;
	bool left = true;
	for (int i = 0; i < CH_STATES; i++) {
		reached |= ch_states[i].next;
		also(&left, ch_states[i].next && ch_states[i].name && ch_states[i].kinds,
			"state %d", i);
	}
	for (int i = 0; i < CH_KINDS; i++)
		also(&left, ch_kinds[i].name, "kind %d", i);
	check(left && reached == OF(CH_STATES) - 1, "ch: each state is reached and left");
}

static void unit_base(void)
{
	unit_ch_states();
	unit_buf();
	unit_pool_property();
	unit_pool_shares();
	unit_pool_idle();
	unit_req();
	unit_cn_addresses();
	unit_sp_answers();
	unit_cn_names();
	unit_cn_child();
	unit_cn_timeout();
	unit_us_place();
	unit_us_foreign();
}
