/* fake.c - the transport of the unit tests, see fake.h.
 *
 * Every message has memory of its own and exactly as long as it is, so that an
 * address sanitizer sees a read beyond its end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fake.h"
#include "../port/linux.c"	/* the system is the real one */

#define MESSAGE_MAX (300 * 1024)

const size_t tp_payload_max = FAKE_PAYLOAD;
const char tp_version[] = "fake transport";

struct fake fake;

static uint8_t *payload;		/* what tp_payload() gave out last */
static struct fake_message *received;	/* what tp_recv() gave out last */
static struct fake_message *taken;	/* what fake_take() gave out last */

static void append(struct fake_message ***end, const void *bytes, size_t len)
{
	struct fake_message *m = malloc(sizeof *m + len);
	if (!m)
		abort();
	m->next = NULL;
	m->len = len;
	if (len)
		memcpy(m->bytes, bytes, len);
	**end = m;
	*end = &m->next;
}

static struct fake_message *detach(struct fake_message **first, struct fake_message ***end)
{
	struct fake_message *m = *first;
	if (m && !(*first = m->next))
		*end = first;
	return m;
}

static void forget(struct fake_message **first, struct fake_message ***end)
{
	while (*first)
		free(detach(first, end));
	*end = first;
}

/* ----- for the test ----- */

void fake_reset(void)
{
	tp_stop();
	forget(&fake.in, &fake.in_end);
	forget(&fake.out, &fake.out_end);
	free(taken);
	taken = NULL;
	memset(&fake, 0, sizeof fake);
	fake.in_end = &fake.in;
	fake.out_end = &fake.out;
	fake.login_ends = TP_UP;
	fake.room = SIZE_MAX;
	fake.error = "";
	fake.fd = -1;
	fake.info = (struct tp_info){
		.peer_version = "SSH-2.0-OpenSSH_9.2p1", .kex = "", .host_key_algorithm = "",
			.cipher = "",
		.mac = "", .host_key_fingerprint = "", .auth_method = "none",
	};
}

void fake_fail(const char *why)
{
	fake.state = TP_FAILED;
	fake.cause = TP_CAUSE_LOST;
	fake.error = why;
	fake.wake = true;
}

static size_t put_u32(uint8_t *to, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		to[i] = (uint8_t)(v >> (24 - 8 * i));
	return 4;
}

size_t fake_build(uint8_t *to, size_t max, const char *format, va_list ap)
{
	size_t n = 0;
	for (const char *f = format; *f; f++) {
		const void *p = NULL;
		size_t len = 0;
		if (*f == 's') {
			p = va_arg(ap, const char *);
			len = strlen(p);
		} else if (*f == 'S' || *f == 'r') {
			p = va_arg(ap, const void *);
			len = va_arg(ap, size_t);
		}
		if (n + len + 4 > max)
			abort();
		if (*f == 'b')
			to[n++] = (uint8_t)va_arg(ap, int);
		else if (*f == 'u')
			n += put_u32(to + n, va_arg(ap, uint32_t));
		else if (*f != 'r')
			n += put_u32(to + n, (uint32_t)len);
		if (len)
			memcpy(to + n, p, len);
		n += len;
	}
	return n;
}

void fake_put_bytes(const void *bytes, size_t len)
{
	append(&fake.in_end, bytes, len);
	fake.wake = true;
}

void fake_put(int type, const char *format, ...)
{
	static uint8_t bytes[MESSAGE_MAX];
	va_list ap;
	va_start(ap, format);
	bytes[0] = (uint8_t)type;
	fake_put_bytes(bytes, 1 + fake_build(bytes + 1, sizeof bytes - 1, format, ap));
	va_end(ap);
}

const struct fake_message *fake_take(void)
{
	free(taken);
	taken = detach(&fake.out, &fake.out_end);
	return taken;
}

static void show(const char *what, const uint8_t *p, size_t len)
{
	printf("# %s:", what);
	for (size_t i = 0; i < len && i < 120; i++)
		printf(p[i] > ' ' && p[i] < 127 ? " %c" : " %02x", p[i]);
	printf(" (%zu bytes)\n", len);
}

bool fake_expect(int type, const char *format, ...)
{
	static uint8_t bytes[MESSAGE_MAX];
	const struct fake_message *m = fake_take();
	va_list ap;
	va_start(ap, format);
	bytes[0] = (uint8_t)type;
	size_t len = 1 + fake_build(bytes + 1, sizeof bytes - 1, format, ap);
	va_end(ap);
	if (m && m->len == len && memcmp(m->bytes, bytes, len) == 0)
		return true;
	show("expected from the master", bytes, len);
	if (m)
		show("it sent", m->bytes, m->len);
	else
		printf("# it sent nothing\n");
	return false;
}

/* ----- port/transport.h ----- */

/* Without a table of names: what is asked for is there. */
bool tp_algorithms(enum tp_algorithms kind, const char *spec, char *text, size_t size)
{
	(void)kind;
	snprintf(text, size, "%s", spec ? spec : "default");
	return true;
}

bool tp_init(const struct tp_config *c)
{
	return c->user != NULL;
}

void tp_start(int fd, bool interactive, int64_t now)
{
	(void)interactive;
	(void)now;
	if (fake.state != TP_IDLE)
		abort();
	fake.fd = fd;
	fake.state = TP_LOGIN;
	fake.wake = true;
	fake.starts++;
}

void tp_forget(void)
{
	tp_stop();
}

void tp_stop(void)
{
	if (fake.state != TP_IDLE) {
		close(fake.fd);
		fake.stops++;
		forget(&fake.in, &fake.in_end);
	}
	fake.fd = -1;
	fake.state = TP_IDLE;
	fake.info.exchanging = fake.rekeying = false;
	free(received);
	free(payload);
	received = NULL;
	payload = NULL;
}

enum tp_state tp_state(void)
{
	return fake.state;
}

enum tp_cause tp_cause(void)
{
	return fake.cause;
}

const char *tp_error(void)
{
	return fake.error;
}

const struct tp_info *tp_info(void)
{
	return &fake.info;
}

size_t tp_poll(struct pollfd *p, int64_t now, int *timeout)
{
	(void)p;
	(void)now;
	if (fake.wake || (fake.in && fake.state == TP_UP))
		*timeout = 0;
	return 0;
}

void tp_service(const struct pollfd *p, size_t n, int64_t now)
{
	(void)p;
	(void)n;
	(void)now;
	fake.wake = false;
	if (fake.state == TP_LOGIN)
		fake.state = fake.login_ends;
	if (fake.rekeying) {
		fake.info.exchanging = fake.rekeying = false;
		fake.info.key_exchanges++;
	}
}

uint8_t *tp_recv(size_t *len)
{
	free(received);
	received = fake.state == TP_UP ? detach(&fake.in, &fake.in_end) : NULL;
	if (!received)
		return NULL;
	fake.info.bytes_in += received->len;
	*len = received->len;
	return received->bytes;
}

uint8_t *tp_payload(void)
{
	if (fake.state != TP_UP && fake.state != TP_FAILED)
		abort();
	if (!payload && !(payload = malloc(FAKE_PAYLOAD)))
		abort();
	return payload;
}

void tp_send(size_t len)
{
	if (len < 1 || len > FAKE_PAYLOAD || !payload)
		abort();
	if (fake.state == TP_UP) {
		append(&fake.out_end, payload, len);
		fake.out_count++;
		if (fake.room != SIZE_MAX)
			fake.room -= len < fake.room ? len : fake.room;
	}
	free(payload);		/* its place is not valid any more */
	payload = NULL;
}

size_t tp_room(void)
{
	return fake.state == TP_UP && !fake.info.exchanging ? fake.room : 0;
}

void tp_set_room(size_t bytes)
{
	fake.enough = bytes;
}

void tp_flush(void)
{
}

void tp_rekey(void)
{
	if (fake.state != TP_UP || fake.info.exchanging)
		return;
	fake.rekeys++;
	fake.info.exchanging = fake.rekeying = fake.wake = true;
}

/* No hash, but as long as one. */
void tp_sha1(const uint8_t *p, size_t len, uint8_t hash[20])
{
	memset(hash, 0, 20);
	for (size_t i = 0; i < len; i++)
		hash[i % 20] = (uint8_t)(hash[i % 20] * 31 + p[i]);
}
