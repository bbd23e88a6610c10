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
	peer_put(p, fuzz_types[type % (sizeof fuzz_types / sizeof fuzz_types[0])], "ur", 7, body,
		n);
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
	else if (ch_is_open(c) && c->rcvd < CH_CLOSED)
		fake_put(what & 1 ? SSH_CHANNEL_CLOSE : SSH_CHANNEL_EOF, "u", id);
}

/* One descriptor of a kind: our end of it is closed at once. */
static void fuzz_pass_kind(struct peer *p, uint8_t kind)
{
	int two[2] = { -1, -1 };
	if (kind % 5 == 0 && pipe2(two, O_CLOEXEC) != 0)
		abort();
	if (kind % 5 == 1 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, two) != 0)
		abort();
	if (kind % 5 == 2)
		two[0] = open("/dev/zero", O_RDWR | O_CLOEXEC);
	if (kind % 5 == 3)
		two[0] = open(".", O_RDONLY | O_CLOEXEC);
	if (kind % 5 == 4)
		two[0] = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	peer_pass(p, two[kind % 5 < 2 && kind & 0x80 ? 1 : 0]);
	fd_close(&two[0]);
	fd_close(&two[1]);
}

/* Several descriptors and perhaps ordinary bytes in one message. */
static void fuzz_pass_many(struct peer *p, uint8_t how)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(4 * sizeof(int))];
	} control;
	char bytes[2] = "x";
	int n = 1 + how % 4, fds[4] = { fuzz_null, fuzz_null, fuzz_null, fuzz_null };
	struct iovec iov = { bytes, how & 0x80 ? 2 : 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			    .msg_controllen = CMSG_SPACE((size_t)n * sizeof(int)) };
	memset(&control, 0, sizeof control);
	control.head = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
					 .cmsg_len = CMSG_LEN((size_t)n * sizeof(int)) };
	memcpy(CMSG_DATA(&control.head), fds, (size_t)n * sizeof(int));
	(void)!sendmsg(p->fd, &m, MSG_NOSIGNAL);
}

/* What a server may say of a channel that is open. */
static void fuzz_server_says(struct fuzz_input *f)
{
	static const char *const requests[] = { "exit-status", "exit-signal", "eow@openssh.com",
		"keepalive@openssh.com" };
	const uint8_t *bytes;
	uint8_t what = fuzz_byte(f);
	uint32_t id = fuzz_byte(f) % CHANNELS;
	size_t n = fuzz_bytes(f, fuzz_byte(f), &bytes);
	if (!ch_is_open(&g.ch.slot[id]))
		return;
	switch (what % 5) {
	case 0: fake_put(SSH_CHANNEL_DATA, "uS", id, bytes, n); break;
	case 1: fake_put(SSH_CHANNEL_EXTENDED_DATA, "uuS", id, 1 + (what >> 7), bytes, n); break;
	case 2: fake_put(SSH_CHANNEL_WINDOW_ADJUST, "uu", id, (uint32_t)n * 100); break;
	case 3: fake_put(what & 0x80 ? SSH_CHANNEL_SUCCESS : SSH_CHANNEL_FAILURE, "u", id); break;
	default: fake_put(SSH_CHANNEL_REQUEST, "usbr", id, requests[(what >> 4) & 3], what >> 7,
		bytes, n);
	}
}

static void fuzz_more(struct peer *p, struct fuzz_input *f, uint8_t op)
{
	switch (op & 7) {
	case 0: fuzz_pass_kind(p, fuzz_byte(f)); break;
	case 1: fuzz_pass_many(p, fuzz_byte(f)); break;
	case 2: fuzz_server_says(f); break;
	case 3: fake.info.exchanging = fuzz_byte(f) & 1; break;
	case 4: shutdown(p->fd, SHUT_WR); break;
	case 5: fake_put(fuzz_byte(f) & 1 ? SSH_REQUEST_SUCCESS : SSH_REQUEST_FAILURE, ""); break;
	default: fake.wake = true;
	}
}

static void fuzz_step(struct peer *p, struct fuzz_input *f, uint8_t op)
{
	const uint8_t *bytes;
	size_t n;
	if (op >= 32) {
		fuzz_more(p, f, op);
		return;
	}
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
		if (one->fd >= 0)
			peer_drain(one);
		one->got = 0;
		world_run();
		fuzz_account();
	}
	for (int i = 0; i < FUZZ_PEERS; i++)
		peer_close(&p[i]);
	fake.room = SIZE_MAX;
	fake.info.exchanging = false;
	if (!world.ended && world_wake())
		world_server_closes();
	for (int i = 0; i < 3 && !world.ended; i++)
		world_sleep(1000000);
	fuzz_require(world.ended || world_idle(), "something is left of clients that have gone");
	fuzz_require(world_end(), "a descriptor is left");
}
