/* fuzz_socks.c - SOCKS of a local client: its bytes in pieces, what the server says
 * meanwhile, and that pieces make no difference. */
#pragma GCC diagnostic ignored "-Wunused-function"
#include "unit_world.c"

static void fuzz_one(const uint8_t *data, size_t size);
#include "unit_fuzz.c"

/* A client of a dynamic forward, whose listener has an address of the kernel's choice. */
static int fuzz_dial(void)
{
	struct forward f = { .type = FW_DYNAMIC, .listen = { "localhost", 1080 }, .client = -1,
		.connector = -1 };
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct linger at_once = { .l_onoff = 1 };	/* no port waits for late packets */
	socklen_t len = sizeof a;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(listener, (struct sockaddr *)&a, sizeof a) != 0 || listen(listener, 1) != 0 ||
	    getsockname(listener, (struct sockaddr *)&a, &len) != 0 ||
		connect(fd, (struct sockaddr *)&a, len) != 0)
		abort();
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
	fd_nonblock(fd);
	struct forward *added = fw_add(&f);
	added->state = FW_ACTIVE;
	added->socket[0] = listener;
	world_run();
	return fd;
}

static void fuzz_server(struct fuzz_input *f, uint8_t what)
{
	const uint8_t *bytes;
	size_t n = fuzz_bytes(f, fuzz_byte(f), &bytes);
	const struct channel *c = &g.ch.slot[0];
	if (c->state == CH_OPENING && what & 1)
		fake_put(SSH_CHANNEL_OPEN_CONFIRMATION, "uuuu", 0, 100, 1000, 500);
	else if (c->state == CH_OPENING)
		fake_put(SSH_CHANNEL_OPEN_FAILURE, "uuSs", 0, what >> 4, bytes, n, "");
	else if (ch_is_open(c) && c->rcvd < CH_CLOSED)
		fake_put(SSH_CHANNEL_DATA, "uS", 0, bytes, n < c->window ? n : c->window);
}

/* The same bytes at once and one by one come to the same end. */
static void fuzz_pieces(const uint8_t *data, size_t size)
{
	struct endpoint whole = { "", 0 }, cut = { "", 0 };
	struct channel a = { .socks = 0 }, b = { .socks = 0 };
	bool done_a = false, done_b = false;
	int used_a = sk_step(&a, data, size, &whole, &done_a), used_b = 0;
	for (size_t n = 1; n <= size && used_b == 0; n++)
		used_b = sk_step(&b, data, n, &cut, &done_b);
	fuzz_require(used_a == used_b || used_a < 0 || used_b < 0,
		"pieces of a SOCKS request make a difference");
	if (used_a > 0 && done_a && used_a == used_b)
		fuzz_require(strcmp(whole.host, cut.host) == 0 && whole.port == cut.port,
			"pieces change the host");
	fuzz_require(strnlen(whole.host, sizeof whole.host) < sizeof whole.host,
		"a host without an end");
}

static void fuzz_one(const uint8_t *data, size_t size)
{
	struct fuzz_input f = { data, size };
	const uint8_t *bytes;
	char got[512];
	fuzz_pieces(data, size);
	world_begin();
	int fd = fuzz_dial();
	while (f.size > 0 && g.lk.state == LK_UP) {
		uint8_t op = fuzz_byte(&f);
		size_t n;
		if (op >= 252)
			fuzz_server(&f, fuzz_byte(&f));
		else if (op == 251)
			shutdown(fd, SHUT_WR);
		else if (op == 250)
			world.now += SOCKS_MS / 2;
		else {
			n = fuzz_bytes(&f, op, &bytes);
			(void)!send(fd, bytes, n, MSG_NOSIGNAL);
		}
		world_run();
		fuzz_account();
		(void)!read(fd, got, sizeof got);
		while (fake_take())
			;
	}
	close(fd);
	world_run();
	if (g.lk.state == LK_UP)
		world_server_closes();
	world_sleep(1000000);
	fuzz_require(g.lk.state != LK_UP || world_idle(), "something is left");
	fuzz_require(world_end(), "a descriptor is left");
}
