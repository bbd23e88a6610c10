/* fuzz_login.c - what a server says before and in a login: raw bytes, packets in the
 * clear, and (first byte odd) packets after a key exchange that is taken for done. */
#include "fuzz_transport.c"

static void fuzz_one(const uint8_t *data, size_t size);
#include "unit_fuzz.c"

static const uint8_t fuzz_types[] = {
	SSH_MSG_KEXINIT, SSH_MSG_KEXDH_REPLY, SSH_MSG_NEWKEYS, SSH_MSG_SERVICE_ACCEPT,
	SSH_MSG_EXT_INFO,
	SSH_MSG_USERAUTH_FAILURE, SSH_MSG_USERAUTH_SUCCESS, SSH_MSG_USERAUTH_BANNER, 60,
	SSH_MSG_DISCONNECT, SSH_MSG_IGNORE, SSH_MSG_DEBUG, SSH_MSG_UNIMPLEMENTED, 80, 90, 94,
};

/* The loop of sshmux.c, as far as the transport sees it. */
static void fuzz_serve(void)
{
	static int64_t now = 1000;
	static char sink[8192];
	size_t len;
	for (int turn = 0; turn < 40 && tp_state() != TP_FAILED; turn++) {
		struct pollfd p[TP_POLLFDS];
		int timeout = -1;
		size_t n = tp_poll(p, now, &timeout);
		fuzz_require(n <= TP_POLLFDS, "more descriptors than TP_POLLFDS");
		int ready = poll(p, n, 0);
		tp_service(p, n, now);
		while (tp_state() == TP_UP && tp_recv(&len))
			fuzz_require(len > 0, "a message without a type");
		while (recv(ground.server, sink, sizeof sink, MSG_DONTWAIT) > 0)
			;
		if (ready <= 0 && timeout != 0)
			return;
		now++;
	}
}

/* The agent's answer, if we are asked. */
static void fuzz_agent(int listener, int *agent, const uint8_t *bytes, size_t n)
{
	if (*agent < 0)
		*agent = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (*agent >= 0)
		(void)!send(*agent, bytes, n, MSG_NOSIGNAL);
}

/* As after the first key exchange: the user is to be authenticated next. */
static void fuzz_exchanged(void)
{
	static const char ident[] = "SSH-2.0-server\r\n";
	(void)!send(ground.server, ident, sizeof ident - 1, MSG_NOSIGNAL);
	fuzz_serve();
	if (tp_state() == TP_LOGIN)
		ground_exchanged();
}

static void fuzz_one(const uint8_t *data, size_t size)
{
	static const char key[] = "ssh-ed25519 nothing";
	struct fuzz_input f = { data, size };
	const uint8_t *bytes;
	int agent = -1;
	fuzz_enter_dir();
	ground_file("hosts", data, 0);
	ground_file("key", (const uint8_t *)key, sizeof key - 1);
	ground_init();
	int listener = ground_listen();
	uint8_t how = fuzz_byte(&f);
	ground_connect();
	if (how & 1)
		fuzz_exchanged();
	while (f.size > 0 && tp_state() != TP_FAILED) {
		uint8_t op = fuzz_byte(&f), n = fuzz_byte(&f);
		size_t len = fuzz_bytes(&f, n, &bytes);
		if (op == 0xff)
			fuzz_agent(listener, &agent, bytes, len);
		else if (op == 0xfe)
			(void)!send(ground.server, bytes, len, MSG_NOSIGNAL);
		else if (op == 0xfd)
			tp_rekey();
		else
			ground_packet(op & 0x80 ? op & 0x7f : fuzz_types[op % sizeof fuzz_types],
				bytes, len);
		fuzz_serve();
	}
	fuzz_require(tp_state() != TP_FAILED || *tp_error(), "failed without a word");
	if (agent >= 0)
		close(agent);
	fuzz_require(ground_close(), "a descriptor is left");
	close(listener);
}
