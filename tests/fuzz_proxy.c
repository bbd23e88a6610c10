/* fuzz_proxy.c - proxy mode both ways: two clients that speak SSH messages, and the
 * server that answers them, each with any bytes in any order. */
#pragma GCC diagnostic ignored "-Wunused-function"
#include "unit_world.c"

static void fuzz_one(const uint8_t *data, size_t size);
#include "unit_fuzz.c"

#define FUZZ_PROXIES 2
#define FUZZ_REMOTE 100		/* the server's number of our channel 0 */

/* One frame of proxy mode: length, 0, type, payload. */
static void fuzz_frame(struct peer *p, uint8_t type, const char *format, ...)
{
	static uint8_t bytes[4096];
	va_list ap;
	va_start(ap, format);
	size_t n = fake_build(bytes + 6, sizeof bytes - 6, format, ap);
	va_end(ap);
	buf_set_u32(bytes, (uint32_t)n + 2);
	bytes[4] = 0;
	bytes[5] = type;
	peer_bytes(p, bytes, n + 6);
}

static const char *const fuzz_channels[] = {
	"session", "direct-tcpip", "direct-streamlocal@openssh.com", "forwarded-tcpip",
	"forwarded-streamlocal@openssh.com", "x11", "auth-agent@openssh.com", "unknown@example.org",
};
static const char *const fuzz_requests[] = {
	"exec", "shell", "subsystem", "pty-req", "env", "window-change", "signal", "x11-req",
	"auth-agent-req@openssh.com", "exit-status", "exit-signal", "eow@openssh.com", "xon-xoff",
	"break", "keepalive@openssh.com", "unknown@example.org",
};
static const char *const fuzz_globals[] = {
	"tcpip-forward", "cancel-tcpip-forward", "streamlocal-forward@openssh.com",
	"cancel-streamlocal-forward@openssh.com", "keepalive@openssh.com",
	"hostkeys-00@openssh.com",
	"no-more-sessions@openssh.com", "unknown@example.org",
};

/* What a client says. */
static void fuzz_client(struct peer *p, struct fuzz_input *f, uint8_t op)
{
	const uint8_t *bytes;
	uint8_t which = fuzz_byte(f);
	uint32_t id = FUZZ_REMOTE + which % (CHANNELS + 1);
	size_t n = fuzz_bytes(f, fuzz_byte(f), &bytes);
	switch (op) {
	case 0: fuzz_frame(p, SSH_CHANNEL_OPEN, "suuur", fuzz_channels[which & 7], which >> 3,
		which * 50, 700, bytes, n); break;
	case 1: fuzz_frame(p, SSH_CHANNEL_DATA, "uS", id, bytes, n); break;
	case 2: fuzz_frame(p, SSH_CHANNEL_REQUEST, "usbr", id, fuzz_requests[which >> 4],
		which >> 3 & 1, bytes, n); break;
	case 3: fuzz_frame(p, which, "r", bytes, n); break;
	case 4: peer_bytes(p, bytes, n); break;
	case 5: fuzz_frame(p, which & 0x80 ? SSH_CHANNEL_CLOSE : SSH_CHANNEL_EOF, "u", id); break;
	case 6: fuzz_frame(p, SSH_CHANNEL_WINDOW_ADJUST, "uu", id, (uint32_t)n * 16); break;
	case 7: fuzz_frame(p, SSH_GLOBAL_REQUEST, "sbr", fuzz_globals[which & 7], which >> 3 & 1,
		bytes, n); break;
	case 8: fuzz_frame(p, SSH_CHANNEL_OPEN_CONFIRMATION, "uuuu", id, which, n * 10, 500); break;
	case 9: fuzz_frame(p, which & 0x80 ? SSH_CHANNEL_SUCCESS : SSH_CHANNEL_OPEN_FAILURE, "ur",
		id, bytes, n); break;
	case 10: fuzz_frame(p, SSH_CHANNEL_EXTENDED_DATA, "uuS", id, 1 + (which >> 7), bytes, n);
		break;
	default: fuzz_frame(p, SSH_GLOBAL_REQUEST, "sbsu", which & 1 ? "tcpip-forward" :
		"cancel-tcpip-forward", which >> 1 & 1, "", which >> 4);
	}
}

/* What the server says: of a channel only what its state allows, or anything. */
static void fuzz_server(struct fuzz_input *f, uint8_t op)
{
	const uint8_t *bytes;
	uint8_t which = fuzz_byte(f);
	uint32_t id = which % CHANNELS;
	size_t n = fuzz_bytes(f, fuzz_byte(f), &bytes);
	const struct channel *c = &g.ch.slot[id];
	bool open = ch_is_open(c);
	if (op == 0 && c->state == CH_OPENING)
		fake_put(SSH_CHANNEL_OPEN_CONFIRMATION, "uuuu", id, FUZZ_REMOTE + id, n * 20, 400);
	else if (op == 1 && c->state == CH_OPENING)
		fake_put(SSH_CHANNEL_OPEN_FAILURE, "uuSs", id, 1, bytes, n, "");
	else if (op == 2 && open)
		fake_put(SSH_CHANNEL_DATA, "uS", id, bytes, n < c->window ? n : c->window);
	else if (op == 3 && open)
		fake_put(SSH_CHANNEL_REQUEST, "usbr", id, fuzz_requests[which >> 4], which >> 3 & 1,
			bytes, n);
	else if (op == 4 && open && c->rcvd < CH_CLOSED)
		fake_put(which & 0x80 ? SSH_CHANNEL_CLOSE : SSH_CHANNEL_EOF, "u", id);
	else if (op == 5)
		fake_put(which & 0x80 ? SSH_REQUEST_SUCCESS : SSH_REQUEST_FAILURE, "r", bytes, n);
	else if (op == 6)
		fake_put(SSH_CHANNEL_OPEN, "suuur", fuzz_channels[which & 7],
			FUZZ_REMOTE + (which >> 3), 500, 300, bytes, n);
	else if (op == 7 && open)
		fake_put(SSH_CHANNEL_WINDOW_ADJUST, "uu", id, (uint32_t)n * 16);
	else if (op == 8 && open)
		fake_put(which & 0x80 ? SSH_CHANNEL_SUCCESS : SSH_CHANNEL_FAILURE, "u", id);
	else if (op == 9)
		fake_put(80 + which % 21, "r", bytes, n);
	else if (op == 10 && open)
		fake_put(SSH_CHANNEL_EXTENDED_DATA, "uuS", id, 1, bytes, n < c->window ? n :
			c->window);
	else if (op == 11)
		fake_put(SSH_CHANNEL_OPEN, "suuususu", "forwarded-tcpip", FUZZ_REMOTE + id, 500,
			300, "", which >> 4, "127.0.0.1", 7);
}

/* What happens besides. */
static void fuzz_event(struct peer *p, struct fuzz_input *f, uint8_t op)
{
	switch (op & 3) {
	case 0: fake.room = fuzz_byte(f) & 1 ? SIZE_MAX : 300; fake.wake = true; break;
	case 1: fake.info.exchanging = fuzz_byte(f) & 1; fake.wake = true; break;
	case 2: world.now += fuzz_byte(f) * 100; break;
	default: peer_close(p);
	}
}

static void fuzz_connect(struct peer *p)
{
	if (peer_hello(p)) {
		peer_put(p, MUX_C_PROXY, "u", 5);
		world_run();
	}
	peer_drain(p);
	p->got = 0;
}

/* A step is a byte of operation, who says it and whether the client reads, then its
 * operands. */
static void fuzz_one(const uint8_t *data, size_t size)
{
	struct fuzz_input f = { data, size };
	struct peer p[FUZZ_PROXIES];
	world_begin();
	for (int i = 0; i < FUZZ_PROXIES; i++)
		fuzz_connect(&p[i]);
	while (f.size > 0 && !world.ended && g.lk.state == LK_UP) {
		uint8_t op = fuzz_byte(&f);
		struct peer *one = &p[op >> 7];
		if (one->fd < 0)
			fuzz_connect(one);
		if (op % 16 >= 12)
			fuzz_event(one, &f, op);
		else if (op & 0x40)
			fuzz_server(&f, op % 16);
		else
			fuzz_client(one, &f, op % 16);
		if (one->fd >= 0 && !(op & 0x20))
			peer_drain(one);
		one->got = 0;
		world_run();
		fuzz_account();
		while (fake_take())
			;
	}
	for (int i = 0; i < FUZZ_PROXIES; i++)
		peer_close(&p[i]);
	fake.room = SIZE_MAX;
	fake.info.exchanging = false;
	/* a client stays until its requests are answered */
	for (int n = g.tx.n_global; n > 0; n--)
		fake_put(SSH_REQUEST_FAILURE, "");
	if (!world.ended && world_wake() && g.lk.state == LK_UP)
		world_server_closes();
	for (int i = 0; i < 3 && !world.ended; i++)
		world_sleep(1000000);
	fuzz_require(world.ended || g.lk.state != LK_UP || world_idle(),
		"something is left of clients that have gone");
	fuzz_require(world_end(), "a descriptor is left");
}
