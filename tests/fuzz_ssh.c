/* fuzz_ssh.c - what the server may say: connection messages of any content, to
 * a master with two open sessions, one that is opening, and two forwards of
 * the server's: 8080 to a closed port, 1080 speaks SOCKS. */
#pragma GCC diagnostic ignored "-Wunused-function"
#include "unit_world.c"

static void fuzz_one(const uint8_t *data, size_t size);
#include "unit_fuzz.c"

/* A message is a byte of length and its bytes; some lengths mean events that
 * are no message. */
static void fuzz_message(struct session *s, struct fuzz_input *f)
{
	const uint8_t *bytes;
	char drain[256];
	uint8_t n = fuzz_byte(f);
	switch (n) {
	case 255: (void)!read(s[0].out, drain, sizeof drain); break;
	case 254: (void)!write(s[0].in, drain, fuzz_byte(f)); break;
	case 253: session_close(&s[1]); break;
	case 252: fd_close(&s[0].out); break;
	case 251: fake.info.exchanging = !fake.info.exchanging; fake.wake = true; break;
	case 250: fake.room = fuzz_byte(f) & 1 ? SIZE_MAX : 100; fake.wake = true; break;
	case 249: fd_close(&s[0].in); break;
	case 248: world.now += 1000; break;
	default: {
		size_t len = fuzz_bytes(f, n, &bytes);
		/* the transport keeps the others */
		if (len > 0 && bytes[0] >= 80 && bytes[0] < 128)
			fake_put_bytes(bytes, len);
	}
	}
}

static void fuzz_forward(uint32_t port, const char *host, uint32_t to)
{
	struct forward f = { .type = FW_REMOTE, .listen = { "localhost", port },
		.connect = { "", to } };
	snprintf(f.connect.host, sizeof f.connect.host, "%s", host);
	fw_add(&f)->state = FW_ACTIVE;
}

static void fuzz_one(const uint8_t *data, size_t size)
{
	struct fuzz_input f = { data, size };
	struct session s[3];
	world_begin();
	for (int i = 0; i < 2; i++)
		fuzz_require(session_open(&s[i], 500, 100), "no session");
	fuzz_require(session_ask(&s[2], "run"), "no third one");
	fuzz_forward(8080, "127.0.0.1", 1);
	fuzz_forward(1080, "socks", 0);
	while (f.size > 0 && g.lk.state == LK_UP) {
		fuzz_message(s, &f);
		world_run();
		fuzz_account();
		while (fake_take())
			;
	}
	bool up = g.lk.state == LK_UP;
	fake.room = SIZE_MAX;
	fake.info.exchanging = false;
	for (int i = 0; i < 3; i++)
		session_close(&s[i]);
	world_wake();
	if (up)
		world_server_closes();
	else
		fuzz_require(g.rn.exit_code == 255, "link lost and no exit status of 255");
	fuzz_require(g.mc.end == 0 && (g.lk.state != LK_UP || world_idle()), "something is left");
	fuzz_require(world_end(), "a descriptor is left");
}
