/* fuzz_mux.c - what clients of the control socket may do: bytes, frames and
 * descriptors in any order, by several of them, dying at any time, while the
 * server answers or not. */
#pragma GCC diagnostic ignored "-Wunused-function"
#include "unit_world.c"

static void fuzz_one(const uint8_t *data, size_t size);
#include "unit_fuzz.c"

#define FUZZ_PEERS 4

static const uint32_t fuzz_types[] = {
	MUX_MSG_HELLO, MUX_C_NEW_SESSION, MUX_C_ALIVE_CHECK, MUX_C_TERMINATE, MUX_C_STOP_LISTENING,
	0x10000006, 0x10000007, 0x10000008, 0x1000000f, 0x20000001, MUX_S_OK, 0x12345678,
};

/* A frame with a good length around whatever the input holds. */
static void fuzz_frame(struct peer *p, struct fuzz_input *f)
{
	const uint8_t *body;
	uint8_t type = fuzz_byte(f);
	size_t n = fuzz_bytes(f, fuzz_byte(f), &body);
	peer_put(p, fuzz_types[type % (sizeof fuzz_types / sizeof fuzz_types[0])], "ur", 7, body, n);
}

/* A session request that is in order but for its command. */
static void fuzz_request(struct peer *p, struct fuzz_input *f)
{
	const uint8_t *command;
	uint8_t tty = fuzz_byte(f) & 1;
	size_t n = fuzz_bytes(f, fuzz_byte(f), &command);
	peer_put(p, MUX_C_NEW_SESSION, "usuuuuusS", 9, "", tty, 0, 0, 0, 0x7e, "xterm", command, n);
	for (int i = 0; i < 3; i++)
		peer_pass(p, fuzz_null);
}

/* A session with a terminal wanted, whose input is there and then ends. */
static void fuzz_input(struct peer *p, struct fuzz_input *f)
{
	const uint8_t *keys;
	int in[2];
	size_t n = fuzz_bytes(f, fuzz_byte(f), &keys);
	if (pipe2(in, O_CLOEXEC) != 0 || write(in[1], keys, n) != (ssize_t)n)
		abort();
	peer_put(p, MUX_C_NEW_SESSION, "usuuuuuss", 9, "", 1, 0, 0, 0, 0x7e, "xterm", "");
	peer_pass(p, in[0]);
	peer_pass(p, fuzz_null);
	peer_pass(p, fuzz_null);
	close(in[0]);
	close(in[1]);
}

/* The server answers for a channel, in order or not. */
static void fuzz_server(uint8_t what, uint32_t id)
{
	const struct channel *c = &g.ch.slot[id % CHANNELS];
	id %= CHANNELS;
	if (c->state == CH_OPENING && what & 1)
		fake_put(SSH_CHANNEL_OPEN_CONFIRMATION, "uuuu", id, id, 1000, 500);
	else if (c->state == CH_OPENING)
		fake_put(SSH_CHANNEL_OPEN_FAILURE, "uuss", id, 1, "", "");
	else if (c->state == CH_OPEN && !(c->flags & CH_CLOSE_RCVD))
		fake_put(what & 1 ? SSH_CHANNEL_CLOSE : SSH_CHANNEL_EOF, "u", id);
}

static void fuzz_step(struct peer *p, struct fuzz_input *f, uint8_t op)
{
	const uint8_t *bytes;
	size_t n;
	switch (op % 10) {
	case 0:
		n = fuzz_bytes(f, fuzz_byte(f), &bytes);
		peer_bytes(p, bytes, n);
		break;
	case 1: fuzz_frame(p, f); break;
	case 2: peer_pass(p, fuzz_null); break;
	case 3: peer_close(p); break;
	case 4: peer_put(p, MUX_MSG_HELLO, "u", 4); break;
	case 5: fuzz_request(p, f); break;
	case 6: fuzz_server(fuzz_byte(f), op); break;
	case 8: fuzz_input(p, f); break;
	case 7: fake.room = fuzz_byte(f) & 1 ? SIZE_MAX : 0; break;
	default: world.now += fuzz_byte(f) * 100;
	}
}

/* A step is a byte of operation and client, then its operands. */
static void fuzz_one(const uint8_t *data, size_t size)
{
	struct fuzz_input f = { data, size };
	struct peer p[FUZZ_PEERS];
	world_begin();
	for (int i = 0; i < FUZZ_PEERS; i++)
		p[i].fd = -1;
	while (f.size > 0 && !world.ended) {
		uint8_t op = fuzz_byte(&f);
		struct peer *one = &p[op >> 6];
		if (one->fd < 0)
			peer_connect(one);
		fuzz_step(one, &f, op & 0x3f);
		peer_drain(one);
		one->got = 0;
		world_run();
		fuzz_account();
	}
	for (int i = 0; i < FUZZ_PEERS; i++)
		peer_close(&p[i]);
	fake.room = SIZE_MAX;
	if (!world.ended && world_wake())
		world_server_closes();
	for (int i = 0; i < 3 && !world.ended; i++)
		world_sleep(1000000);
	fuzz_require(world.ended || world_idle(), "something is left of clients that have gone");
	fuzz_require(world_end(), "a descriptor is left");
}
