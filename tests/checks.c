/* checks.c - the invariants of sshmux.c, recomputed from its tables.
 *
 * sshmux.c includes this file in builds with -DCHECKS (make CPPFLAGS=-DCHECKS; the
 * unit tests and fuzzers always): each turn of the loop ends with lp_check(), which
 * aborts with a word about what is wrong.  Nothing here changes the state. */

/* --- windows: blocks, charges, what was promised ------------------------------------ */

static uint32_t check_free_blocks(void)
{
	uint32_t n = WINDOW_BLOCKS - g.pool.fresh;
	for (uint16_t b = g.pool.free; b != NO_BLOCK && n <= WINDOW_BLOCKS; b = g.pool.next[b])
		n++;
	return n;
}

static uint32_t check_chain(const struct queue *q)
{
	return q->len ? (q->off + q->len + WINDOW_BLOCK - 1) / WINDOW_BLOCK : 0;
}

/* Everything recomputed from the queues. */
static const char *pool_wrong(void)
{
	uint32_t charges = 0, extra = 0, used = 0, promised = 0;
	for (int i = 0; i < CHANNELS; i++) {
		const struct channel *c = &g.ch.slot[i];
		uint32_t mine = check_chain(&c->queue[CH_OUT]) + check_chain(&c->queue[CH_ERR]);
		if (c->state == CH_FREE && (c->charge || mine))
			return "a free channel holds blocks";
		if (mine > c->charge)
			return "more blocks in use than charged";
		if (c->state != CH_FREE && c->charge != pool_bytes(c) / WINDOW_BLOCK)
			return "charge out of date";
		charges += c->charge;
		extra += pool_extra(c->charge);
		used += mine;
		promised += c->state == CH_FREE ? 0 :
			c->window + c->queue[CH_OUT].len + c->queue[CH_ERR].len;
	}
	if (extra != g.pool.shared)
		return "pool.shared is not the sum of the extras";
	if (charges > WINDOW_BLOCKS || extra > WINDOW_BLOCKS - WINDOW_RESERVED ||
		promised > WINDOW_POOL)
		return "pool overdrawn";
	if (used + check_free_blocks() != WINDOW_BLOCKS)
		return "blocks lost or doubled";
	return NULL;
}

/* --- who belongs to whom -------------------------------------------------------------- */

static bool check_index(int i, int n)
{
	return i >= -1 && i < n;
}

static int check_connector(const struct channel *c)
{
	return ch_is_socket(c) ? c->connector : -1;
}

/* A channel against the tables of its life. */
static const char *check_life(const struct channel *c)
{
	bool waits = c->state == CH_REFUSED || c->state == CH_CONFIRMED ||
		c->state == CH_STARTING || c->state == CH_ENDED;
	bool lent = fd_of(c, CH_IN) >= 0 || fd_of(c, CH_OUT) >= 0 || fd_of(c, CH_ERR) >= 0;
	if (c->state >= CH_STATES || c->kind >= CH_KINDS)
		return "a channel of no state or kind";
	if (c->state == CH_DEAD)
		return "a dead channel that was not reaped";
	if (!(ch_states[c->state].kinds & OF(c->kind)))
		return "a channel in a state that its kind has not";
	if (c->sent > CH_CLOSED || c->rcvd > CH_CLOSED ||
		(c->state == CH_ENDED && (c->sent < CH_CLOSED || c->rcvd < CH_CLOSED)))
		return "a channel whose halves are not where its state is";
	if (c->flags & ~ch_kinds[c->kind].flags)
		return "a channel with a flag that its kind has not";
	if (waits && c->client < 0)
		return "a channel that waits for its client, and has none";
	if (lent && c->state != CH_OPEN && c->kind != CH_LOCAL)
		return "a channel that has its descriptors before it is open";
	if (c->kind == CH_PROXY && (c->px.stored > PROXY_STORE || c->px.n_verdicts > PX_VERDICTS))
		return "a proxied channel holds more than it can";
	return NULL;
}

static const char *ch_wrong(void)
{
	int sessions = 0;
	for (int i = 0; i < CHANNELS; i++) {
		const struct channel *c = &g.ch.slot[i];
		if (c->state == CH_FREE)
			continue;
		sessions += c->kind == CH_SESSION;
		if (i >= g.ch.end)
			return "a channel behind ch.end";
		if (check_life(c))
			return check_life(c);
		if (!check_index(c->client, CLIENTS) || !check_index(c->forward, FORWARDS) ||
			!check_index(check_connector(c), CONNECTORS))
			return "a channel's link beyond its table";
		if (c->client >= 0 && g.mc.slot[c->client].phase == MX_FREE)
			return "a channel of a client that has left";
		if (c->client >= 0 && c->kind != CH_PROXY && g.mc.slot[c->client].channel != i)
			return "a channel whose client has another one";
		if (check_connector(c) >= 0 && g.cn.slot[c->connector].state == CN_IDLE)
			return "a channel waits for an idle connector";
	}
	return sessions == g.ch.sessions ? NULL : "ch.sessions is not the number of sessions";
}

static const char *mx_wrong(void)
{
	for (int i = 0; i < CLIENTS; i++) {
		const struct client *c = &g.mc.slot[i];
		if (c->phase == MX_FREE)
			continue;
		if (i >= g.mc.end)
			return "a client behind mx.end";
		if (c->dead)
			return "a dead client that was not reaped";
		if (!check_index(c->channel, CHANNELS) || !check_index(c->forward, FORWARDS) ||
		    !check_index(c->request, REQUESTS) || !check_index(c->answer, REQUESTS))
			return "a client's link beyond its table";
		if (c->out_pos > c->out_len || c->out_len > sizeof c->out ||
			c->n_fds > MX_DESCRIPTOR_MAX)
			return "a client holds more than it can";
		if (c->channel >= 0 && (g.ch.slot[c->channel].state == CH_FREE ||
			g.ch.slot[c->channel].client != i))
			return "a client whose channel is another's";
		if (c->forward >= 0 && (g.fw.slot[c->forward].state == FW_FREE ||
			g.fw.slot[c->forward].client != i))
			return "a client waits for a forward that does not know it";
		if (c->phase == MX_OPENING && c->channel < 0)
			return "a client waits for a channel that it has not";
		if (c->tail && (!check_index(c->tail_channel, CHANNELS) ||
			g.ch.slot[c->tail_channel].queue[c->tail_stream].len < c->tail))
			return "a frame's tail is not in its channel";
	}
	return NULL;
}

/* Each connector that works has one owner, each owner a connector that works. */
static const char *fw_wrong(void)
{
	int owners[CONNECTORS] = { 0 };
	for (int i = g.cn.end; i < CONNECTORS; i++)
		if (g.cn.slot[i].state != CN_IDLE)
			return "a connector beyond the end of those used";
	for (int i = 0; i < FORWARDS; i++) {
		const struct forward *f = &g.fw.slot[i];
		if (f->state == FW_FREE)
			continue;
		if (i >= g.fw.end)
			return "a forward beyond the end of those in use";
		if (!check_index(f->client, CLIENTS) || !check_index(f->connector, CONNECTORS))
			return "a forward's link beyond its table";
		if (f->client >= 0 && g.mc.slot[f->client].phase == MX_FREE)
			return "a forward of a client that has left";
		if (f->client >= 0 && f->type != FW_PROXY && g.mc.slot[f->client].forward != i)
			return "a forward whose client waits for another";
		if (f->connector >= 0)
			owners[f->connector]++;
	}
	for (int i = 0; i < g.ch.end; i++)
		if (g.ch.slot[i].state != CH_FREE && check_connector(&g.ch.slot[i]) >= 0)
			owners[g.ch.slot[i].connector]++;
	for (int i = 0; i < CONNECTORS; i++)
		if (owners[i] != (g.cn.slot[i].state != CN_IDLE))
			return owners[i] ? "a connector with several owners, or idle" :
				"a connector that works for nobody";
	return NULL;
}

static bool check_strangers;	/* a unit test holds request memory itself */

/* Each stored request has one client, and none overlaps another. */
static const char *req_wrong(void)
{
	int owners[REQUESTS] = { 0 };
	for (int i = 0; i < g.mc.end; i++) {
		const struct client *c = &g.mc.slot[i];
		if (c->phase != MX_FREE && c->request >= 0)
			owners[c->request]++;
		if (c->phase != MX_FREE && c->answer >= 0)
			owners[c->answer]++;
	}
	for (int i = 0; i < REQUESTS; i++) {
		const struct req *r = &g.req.slot[i];
		if (owners[i] != (r->len > 0) && !(check_strangers && !owners[i]))
			return "a stored request without its one client";
		if (r->len > 0 && (r->at > REQUEST_POOL || r->len > REQUEST_POOL - r->at))
			return "a stored request beyond the pool";
		for (int k = 0; r->len > 0 && k < i; k++)
			if (g.req.slot[k].len > 0 && g.req.slot[k].at < r->at + r->len &&
				r->at < g.req.slot[k].at + g.req.slot[k].len)
				return "two stored requests overlap";
	}
	return NULL;
}

/* Global requests in flight: each is for somebody, forwards in their state. */
static const char *tx_wrong(void)
{
	if (g.tx.n_global < 0 || g.tx.n_global > GLOBAL_REQUESTS)
		return "more global requests than places";
	for (int i = 0; i < g.tx.n_global; i++) {
		const struct global_request *r = &g.tx.global[i];
		bool of_forward = r->kind == GLOBAL_FORWARD;
		if (r->kind > GLOBAL_PROXY_CANCEL || !check_index(r->of, of_forward ? FORWARDS :
			32767))
			return "a global request of nobody";
		if (of_forward && r->of >= 0 && g.fw.slot[r->of].state == FW_FREE)
			return "a global request of a forward that is gone";
	}
	return NULL;
}

/* --- descriptors: each open, each owned once ------------------------------------------ */

#define CHECK_FDS (FD_LIMIT + 64)

static struct { int fd[CHECK_FDS]; int n; } check_owned;

/* False if it is closed or somebody else's already; -1 is no descriptor. */
static bool check_own(int fd)
{
	if (fd < 0)
		return true;
	for (int i = 0; i < check_owned.n; i++)
		if (check_owned.fd[i] == fd)
			return false;
	if (check_owned.n < CHECK_FDS)
		check_owned.fd[check_owned.n++] = fd;
	return fcntl(fd, F_GETFD) >= 0;
}

static const char *fd_wrong(void)
{
	bool ok = true;
	check_owned.n = 0;
	for (int i = 0; i < g.mc.end && ok; i++) {
		const struct client *c = &g.mc.slot[i];
		ok = c->phase == MX_FREE || check_own(c->fd);
		for (int k = 0; ok && c->phase != MX_FREE && k < c->n_fds; k++)
			ok = check_own(c->fds[k]);
	}
	if (!ok)
		return "a client's descriptor is closed, or another's too";
	for (int i = 0; i < g.ch.end && ok; i++) {
		const struct channel *c = &g.ch.slot[i];
		if (c->state == CH_FREE)
			continue;
		/* both directions */
		bool one = ch_is_socket(c) && fd_of(c, CH_IN) == fd_of(c, CH_OUT);
		ok = check_own(fd_of(c, CH_IN)) && (one || check_own(fd_of(c, CH_OUT))) &&
			check_own(fd_of(c, CH_ERR));
	}
	if (!ok)
		return "a channel's descriptor is closed, or another's too";
	for (int i = 0; i < FORWARDS && ok; i++)
		for (int k = 0; ok && g.fw.slot[i].state != FW_FREE && k < FW_SOCKETS; k++)
			ok = check_own(g.fw.slot[i].socket[k]);
	for (int i = 0; i < CONNECTORS && ok; i++)
		ok = g.cn.slot[i].state == CN_IDLE || check_own(g.cn.slot[i].fd);
	return ok ? NULL : "a forward's descriptor is closed, or another's too";
}

static void lp_check(void)
{
	const char *(*const all[])(void) = { pool_wrong, ch_wrong, mx_wrong, fw_wrong, req_wrong,
		tx_wrong, fd_wrong };
	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
		const char *wrong = all[i]();
		if (wrong) {
			/* unit tests keep the log */
			fprintf(stderr, "broken invariant: %s\n", wrong);
			log_abort(wrong);
		}
	}
}
