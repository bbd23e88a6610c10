/* transport.c - port/transport.h on dropbear: the entry points.
 *
 * All of dropbear's code runs below port_run(), which turns its fatal errors
 * into TP_FAILED.  The work is in session.c (packets), auth.c (login) and
 * hostkey.c; memory is arena.c's.
 */
#include "port.h"
#include "session.h"
#include "packet.h"
#include "kex.h"
#include "algo.h"
#include "crypto_desc.h"
#include "dbrandom.h"
#include "dbutil.h"
#include <poll.h>
#include <sys/random.h>

/* Re-key at the latest after this many bytes (RFC 4253 9 recommends it); more would
 * overflow dropbear's counters.  Below the minimum, we would do nothing but re-key. */
#define REKEY_BYTES_MAX ((uint64_t)KEX_REKEY_DATA)
#define REKEY_BYTES_MIN 16384

#define ENTROPY_SECONDS 60
#define STACK_WIPE 32768	/* more stack than a signature uses */

const size_t tp_payload_max = PAYLOAD_MAX;
const char tp_version[] = "dropbear " DROPBEAR_VERSION;

static int64_t exchanged;	/* when we saw the last key exchange end */
static uint32_t exchanges;	/* how many we have seen */
static enum agent_event event;	/* argument of agent_step() */
static size_t send_len;		/* argument of send_step() */
static size_t enough;		/* bytes in the queue when tp_room() is 0 */

/* --- preparation ---------------------------------------------------------- */

/* Waits for the kernel's random numbers (early at boot), with a message and a time limit.
 * Kernels without getrandom() have them or are beyond help. */
static bool have_entropy(void)
{
	char byte;
	int i;

	for (i = 0; i < ENTROPY_SECONDS; i++) {
		if (getrandom(&byte, 1, GRND_NONBLOCK) == 1 || (errno != EAGAIN && errno != EINTR))
			return true;
		if (i % 10 == 1)
			port_log(TP_INFO, "waiting for the kernel's random numbers");
		poll(NULL, 0, 1000);
	}
	return false;
}

/* Runs below port_run(): dropbear gives up without a random source. */
static void seed(void)
{
	crypto_init();
	seedrandom();
}

/* A mistyped pin would refuse every server: reports it at once. */
static bool check_pins(const struct tp_config *c)
{
	size_t i;

	for (i = 0; i < c->n_pin; i++) {
		if (strncmp(c->pin[i], "SHA256:", 7) == 0 && strlen(c->pin[i]) == 7 + 43)
			continue;
		snprintf(port.error, sizeof(port.error),
			"not a SHA256 fingerprint: %s", c->pin[i]);
		return false;
	}
	return true;
}

void tp_sha1(const uint8_t *p, size_t len, uint8_t hash[20])
{
	hash_state h;

	sha1_init(&h);
	sha1_process(&h, p, len);
	sha1_done(&h, hash);
}

bool tp_init(const struct tp_config *c)
{
	port_install();
	port.config = c;
	port.error[0] = '\0';
	if (strlen(c->user) > 255 || strlen(c->host_key_name) > 255) {
		snprintf(port.error, sizeof(port.error), "user or host name too long");
		return false;
	}
	if (!check_pins(c) || !algorithms_init(c))
		return false;
	if (!have_entropy()) {
		snprintf(port.error, sizeof(port.error), "the kernel has no random numbers yet");
		return false;
	}
	arena_reset();
	return port_run(seed);
}

/* --- beginning and end ---------------------------------------------------- */

static void clear_info(void)
{
	memset(&port.info, 0, sizeof(port.info));
	port.info.peer_version = port.info.kex = port.info.host_key_algorithm = "";
	port.info.cipher = port.info.mac = port.info.host_key_fingerprint = "";
	port.info.auth_method = "";
}

void tp_start(int fd, bool interactive, int64_t now)
{
	port.fd = fd;
	port.now = now;
	port.interactive = interactive && !port.config->batch;
	port.passwords_barred = false;
	port.state = TP_LOGIN;
	port.cause = TP_CAUSE_NONE;
	port.error[0] = '\0';
	clear_info();
	exchanged = now;
	exchanges = 0;
	enough = NET_QUEUE;
	agent_begin();
	port_run(session_begin);
}

void tp_forget(void)
{
	if (port.state == TP_IDLE)
		return;
	agent_end();
	close(port.fd);
	port.fd = -1;
	session_end();
	port.state = TP_IDLE;
}

void tp_stop(void)
{
	if (port.state == TP_IDLE)
		return;
	if (port.state != TP_FAILED)
		port_run(session_goodbye);
	port_log(TP_DEBUG, "transport memory: %zu of %u bytes at most",
		arena_peak(), (unsigned)ARENA_SIZE);
	tp_forget();
}

/* --- what it is ----------------------------------------------------------- */

enum tp_state tp_state(void)
{
	return port.state;
}

enum tp_cause tp_cause(void)
{
	return port.cause;
}

const char *tp_error(void)
{
	return port.error;
}

static bool active(void)
{
	return port.state == TP_LOGIN || port.state == TP_UP;
}

const struct tp_info *tp_info(void)
{
	if (port.info.kex == NULL)
		clear_info();
	if (active())
		port.info.packets_out = session_sent();
	port.info.lacking = active() ? session_lacking() : 0;
	port.info.exchanging = port.state == TP_UP && !ses.dataallowed;
	return &port.info;
}

/* --- re-keying ------------------------------------------------------------ */

/* RekeyLimit's bytes, for both directions together, within our bounds. */
static uint64_t rekey_bytes(void)
{
	uint64_t n = port.config->rekey_bytes;

	if (n == 0 || n > REKEY_BYTES_MAX)
		return REKEY_BYTES_MAX;
	return n < REKEY_BYTES_MIN ? REKEY_BYTES_MIN : n;
}

/* RekeyLimit's time; at most dropbear's eight hours. */
static int64_t rekey_deadline(void)
{
	uint32_t seconds = port.config->rekey_seconds;

	if (seconds == 0 || seconds > KEX_REKEY_TIMEOUT)
		seconds = KEX_REKEY_TIMEOUT;
	return exchanged + (int64_t)seconds * 1000;
}

/* No exchange is running and the login is over. */
static bool may_rekey(void)
{
	return port.state == TP_UP && !ses.kexstate.sentkexinit;
}

static bool rekey_due(void)
{
	return may_rekey() && (port.now >= rekey_deadline() || ses.kexstate.needrekey ||
		(uint64_t)ses.kexstate.datarecv + ses.kexstate.datatrans >= rekey_bytes());
}

static void rekey_step(void)
{
	ses.kexstate.needrekey = 0;
	send_msg_kexinit();
}

void tp_rekey(void)
{
	if (may_rekey())
		port_run(rekey_step);
}

/* --- the loop ------------------------------------------------------------- */

/* Restarts the clock of the next re-key when an exchange has ended. */
static void note_exchange(void)
{
	if (exchanges != port.info.key_exchanges)
		exchanged = port.now;
	exchanges = port.info.key_exchanges;
}

size_t tp_poll(struct pollfd *p, int64_t now, int *timeout)
{
	int64_t left;
	size_t n = 1;

	if (!active()) {
		/* It may have failed outside tp_service(): the caller must look at
		 * once. */
		if (port.state == TP_FAILED)
			*timeout = 0;
		return 0;
	}
	port.now = now;
	p[0].fd = port.fd;
	p[0].events = POLLIN;
	p[0].revents = 0;
	if (!isempty(&ses.writequeue))
		p[0].events |= POLLOUT;
	n += agent_poll(&p[1], timeout);
	if (session_pending() || rekey_due())
		*timeout = 0;
	if (may_rekey()) {
		left = rekey_deadline() - now;
		if (left < 0)
			left = 0;
		if (*timeout < 0 || *timeout > left)
			*timeout = (int)left;
	}
	return n;
}

/* Wipes what a signature has left on the stack. */
static void __attribute__((noinline)) wipe_stack(void)
{
	char below[STACK_WIPE];

	explicit_bzero(below, sizeof(below));
}

static void agent_step(void)
{
	auth_agent_event(event);
}

static void service(const struct pollfd *p, size_t n, int64_t now)
{
	port.now = now;
	if (n > 0 && p[0].revents != 0)
		session_readable();
	event = agent_service(n > 1 ? p[1].revents : 0);
	if (event != AGENT_NOTHING && !port_run(agent_step))
		return;
	/* In a login all messages are ours; the caller need not ask for any. */
	if (port.state == TP_LOGIN && !port_run(session_pump))
		return;
	note_exchange();
	if (rekey_due())
		tp_rekey();
	tp_flush();
}

/* When a login has ended, successful or not, none of the user's keys stay in memory. */
void tp_service(const struct pollfd *p, size_t n, int64_t now)
{
	bool login = port.state == TP_LOGIN;

	if (!active())
		return;
	service(p, n, now);
	if (!login || port.state == TP_LOGIN)
		return;
	arena_wipe();
	wipe_stack();
}

uint8_t *tp_recv(size_t *len)
{
	if (port.state != TP_UP || !port_run(session_pump))
		return NULL;
	note_exchange();
	if (rekey_due())
		tp_rekey();
	return port.state == TP_UP ? session_message(len) : NULL;
}

uint8_t *tp_payload(void)
{
	return ses.writepayload->data;
}

/* The caller has written into writepayload's memory; we set only its length. */
static void send_step(void)
{
	buf_setlen(ses.writepayload, (unsigned)send_len);
	encrypt_packet();
}

void tp_send(size_t len)
{
	if (port.state != TP_UP || len == 0 || len > tp_payload_max)
		return;
	send_len = len;
	port_run(send_step);
}

size_t tp_room(void)
{
	if (port.state != TP_UP || !ses.dataallowed || ses.writequeue_len >= enough)
		return 0;
	return enough - ses.writequeue_len;
}

void tp_set_room(size_t bytes)
{
	enough = bytes;
}

void tp_flush(void)
{
	if (active())
		port_run(session_flush);
}
