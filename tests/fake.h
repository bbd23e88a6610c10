/* fake.h - a transport without a network: the test plays the server.
 *
 * fake.c implements port/transport.h in memory.  A test puts the messages that
 * the server is to have sent with fake_put(), looks at what the master sent
 * with fake_take() or fake_expect(), and sets the fields of `fake`.
 *
 * Messages are described by a format, one letter a field:
 *	b  byte (int)			u  uint32 (uint32_t)
 *	s  string (const char *)	S  string (const void *, size_t)
 *	r  raw bytes (const void *, size_t)
 */
#ifndef SSHMUX_FAKE_H
#define SSHMUX_FAKE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../port/transport.h"

/* Small, so that the limits that follow from it are reached. */
#define FAKE_PAYLOAD 1600

struct fake_message {
	struct fake_message *next;
	size_t len;
	uint8_t bytes[];		/* from the type byte on */
};

extern struct fake {
	enum tp_state state;
	enum tp_state login_ends;	/* what TP_LOGIN becomes when served: itself to stay */
	enum tp_cause cause;
	const char *error;
	size_t room;			/* what tp_room() says; each message takes its length off */
	size_t enough;			/* what tp_set_room() said last; changes nothing */
	bool wake;			/* something happened on the network: poll() is to return */
	bool rekeying;			/* a change of keys that the next tp_service() ends */
	int fd;
	int starts, stops, rekeys;
	struct tp_info info;
	struct fake_message *in, **in_end;	/* from the server */
	struct fake_message *out, **out_end;	/* from the master */
	size_t out_count;
} fake;

/* Everything as at the start of a program. */
void fake_reset(void);

/* The connection fails for the reason given. */
void fake_fail(const char *why);

/* Appends fields to `to`, which holds `max` bytes; returns the length. */
size_t fake_build(uint8_t *to, size_t max, const char *format, va_list ap);

/* One message from the server. */
void fake_put(int type, const char *format, ...);
void fake_put_bytes(const void *bytes, size_t len);

/* The oldest message of the master that was not taken yet, NULL if there is
 * none; valid until the next call. */
const struct fake_message *fake_take(void);

/* Whether that oldest message is this one, byte by byte; takes it. */
bool fake_expect(int type, const char *format, ...);

#endif
