/* session.c - the life of one SSH connection on dropbear's packet layer.
 *
 * Owns dropbear's session state (`ses`, `cli_ses`) and the read buffer between
 * socket and packet.c.  Does identification (RFC 4253 4.2) and key exchange, has
 * the table of handlers, and decides which messages go to the caller.  Everything
 * here runs below port_run().  Nothing blocks: port_read() returns EAGAIN like the
 * socket, and a call of session_pump() handles at most PACKETS packets.
 */
#include "port.h"
#include "session.h"
#include "packet.h"
#include "kex.h"
#include "algo.h"
#include "ssh.h"
#include "dbutil.h"
#include "runopts.h"
#include "ciphers.h"

#define PACKETS 32		/* per call; the caller has other work too */
#define IDENT_MAX 255		/* RFC 4253 4.2, with the line end */
#define PREAMBLE_MAX 16384	/* bytes of other lines before it */
#define PACKET_EXTRA 256	/* length, padding, MAC */
#define DISCONNECT_BY_APPLICATION 11
#define DISCONNECT_NO_MORE_AUTH_METHODS 14

static unsigned char net[NET_READ_SIZE];	/* bytes read that packet.c has not taken yet */
static size_t net_pos, net_len;
static bool net_dry;		/* the last port_read() returned nothing: there was no more */
static bool drained;		/* as far as we know, the socket is empty */
static int failure;		/* errno of a read(), for the next port_read() */
static bool more;		/* session_pump() stopped before the socket was empty */
static bool handed_out;		/* the caller has ses.payload */
static char ident[IDENT_MAX + 1];
static size_t ident_len;
static size_t preamble;		/* bytes of lines before the identification */
static size_t written;		/* by the last port_writev() */
static buffer *prepared;	/* the packet that holds ses.writepayload's bytes */
static uint64_t sent_before;	/* packets sent before ses.transseq restarted at 0 */

buffer *port_packet(unsigned size);
void *port_copy(void *to, const void *from, size_t n);
ssize_t port_read(int fd, void *data, size_t size);
ssize_t port_writev(int fd, const struct iovec *iov, int n);

/* --- bytes ---------------------------------------------------------------- */

/* Reads `size` bytes into `data` and further bytes into `net`, which is empty: one system
 * call for as much as there is.  A socket that gave less has no more until poll() reports
 * it. */
static ssize_t read_socket(void *data, size_t size)
{
	struct iovec iov[] = { { data, size }, { net, sizeof(net) } };
	ssize_t n = -1;

	errno = failure != 0 ? failure : EAGAIN;
	if (!drained && failure == 0)
		do
			n = readv(port.fd, iov, 2);
		while (n < 0 && errno == EINTR);
	net_dry = n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
	drained = net_dry || (n > 0 && (size_t)n < size + sizeof(net));
	if (n <= 0)
		return n;
	port.info.bytes_in += (uint64_t)n;
	net_pos = 0;
	net_len = (size_t)n > size ? (size_t)n - size : 0;
	return n - (ssize_t)net_len;
}

/* packet.c's read(), which dropbear calls twice for each packet: first takes bytes from
 * `net`, then reads the rest of a long packet straight into it. */
ssize_t port_read(int fd, void *data, size_t size)
{
	size_t n = net_len - net_pos;
	ssize_t rest = 0;

	(void)fd;
	if (n == 0)
		return read_socket(data, size);
	if (n > size)
		n = size;
	memcpy(data, net + net_pos, n);
	net_pos += n;
	if (n < size)
		rest = read_socket((unsigned char *)data + n, size - n);
	if (rest < 0 && !net_dry)
		failure = errno;
	return (ssize_t)n + (rest > 0 ? rest : 0);
}

/* packet.c's writev(), without SIGPIPE. */
ssize_t port_writev(int fd, const struct iovec *iov, int n)
{
	struct msghdr m = { .msg_iov = (struct iovec *)(uintptr_t)iov };
	ssize_t done;

	m.msg_iovlen = (unsigned)n;
	done = sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	written = done > 0 ? (size_t)done : 0;
	port.info.bytes_out += written;
	return done;
}

/* The peer is gone; dropbear calls this when read() or writev() returns 0. */
static void closed_by_peer(void)
{
	if (port.state == TP_UP)
		port_fail(TP_CAUSE_LOST, "Connection to %s closed by remote host.",
			port.config->host);
	port_fail(TP_CAUSE_LOST, "Connection closed by %s port %u", port.config->host,
		(unsigned)port.config->port);
}

/* Writes what the socket takes; stops when it takes less than offered. */
void session_flush(void)
{
	int rounds;

	for (rounds = 0; rounds < 4 && !isempty(&ses.writequeue); rounds++) {
		written = 0;
		write_packet();
		if (written == 0)
			return;
	}
}

/* --- packets -------------------------------------------------------------- */

/* Memory for a packet, not cleared: the caller writes all of it. */
static buffer *new_packet(unsigned size)
{
	buffer *b = arena_alloc(sizeof(*b) + size);

	*b = (buffer){ .data = (unsigned char *)(b + 1), .size = size };
	return b;
}

/* Builds the next long message where it will be encrypted. */
static void new_payload(void)
{
	prepared = new_packet(TRANS_MAX_PAYLOAD_LEN + PACKET_EXTRA);
	ses.writepayload->data = prepared->data + PACKET_PAYLOAD_OFF;
}

/* packet.c's buf_new().  For a long message, returns the packet that already has the
 * payload, cut to size. */
buffer *port_packet(unsigned size)
{
	buffer *b = prepared;

	if (size < PAYLOAD_MAX / 2 || size > b->size)
		return new_packet(size);
	b->size = size;
	arena_cut(b, sizeof(*b) + size);
	return b;
}

/* packet.c's memcpy(), which copies the payload into the packet. */
void *port_copy(void *to, const void *from, size_t n)
{
	if (to != from)
		return memcpy(to, from, n);
	new_payload();
	return to;
}

/* --- identification ------------------------------------------------------- */

/* A complete line that is not the identification: servers may talk first. */
static void other_line(void)
{
	port_log(TP_VERBOSE, "%s", ident);
	ident_len = 0;
}

/* RFC 4253 4.2: 2.0, or 1.99 for servers that also speak the old protocol. */
static void take_ident(void)
{
	if (strncmp(ident, "SSH-2.", 6) != 0 && strncmp(ident, "SSH-1.99-", 9) != 0)
		port_fail(TP_CAUSE_LOST, "%s: incompatible remote version '%.80s'",
			port.config->host, ident);
	ses.remoteident = m_strdup(ident);
	port.info.peer_version = ident;
}

/* Reads the bytes that have come, up to the end of the identification line.  Returns true
 * when it is complete. */
static bool read_ident(void)
{
	char c;
	ssize_t n;

	while ((n = port_read(port.fd, &c, 1)) == 1) {
		if (++preamble > PREAMBLE_MAX)
			port_fail(TP_CAUSE_LOST, "%s: no SSH identification in %d bytes",
				port.config->host, PREAMBLE_MAX);
		if (c == '\0')
			port_fail(TP_CAUSE_LOST, "%s: not an SSH server", port.config->host);
		if (c != '\n') {
			if (ident_len < IDENT_MAX)
				ident[ident_len++] = c;
			continue;
		}
		if (ident_len > 0 && ident[ident_len - 1] == '\r')
			ident_len--;
		ident[ident_len] = '\0';
		if (strncmp(ident, "SSH-", 4) == 0) {
			take_ident();
			return true;
		}
		other_line();
	}
	if (n == 0)
		closed_by_peer();
	if (!net_dry)
		port_fail(TP_CAUSE_LOST, "%s: %s", port.config->host, strerror(errno));
	return false;
}

/* --- handlers ------------------------------------------------------------- */

static void rx_kexinit(void)
{
	recv_msg_kexinit();
	algorithms_agreed();
}

/* SSH_MSG_KEXDH_REPLY and its relatives begin with the host key's blob.  We check the key
 * here; then dropbear verifies that the server owns it. */
static void rx_kexdh_reply(void)
{
	unsigned pos = ses.payload->pos, sent;
	unsigned char *blob;
	size_t len;

	if (cli_ses.kex_state != KEXDH_INIT_SENT)
		dropbear_exit("Unexpected key exchange reply");
	if (!port_take_string(ses.payload, &blob, &len))
		dropbear_exit("Bad key exchange reply");
	hostkey_check(blob, len);
	port.info.host_key_fingerprint = hostkey_fingerprint();
	buf_setpos(ses.payload, pos);
	sent = ses.transseq;
	signature_from_host();
	if (ses.transseq < sent)	/* strict kex: restarts after NEWKEYS */
		sent_before += sent + 1;
	hostkey_remember();
}

/* SSH_MSG_NEWKEYS, RFC 4253 7.3: the exchange is complete. */
static void rx_newkeys(void)
{
	recv_msg_newkeys();
	port.info.key_exchanges++;
	algorithms_describe(&port.info);
}

/* RFC 4253 11.1.  Dropbear would only report that it happened. */
static void rx_disconnect(void)
{
	unsigned char *text = NULL;
	size_t len = 0;
	uint32_t reason = 0;
	bool denied;

	buf_incrpos(ses.payload, 1);
	if (ses.payload->len - ses.payload->pos >= 4) {
		reason = buf_getint(ses.payload);
		port_take_string(ses.payload, &text, &len);
	}
	denied = port.state == TP_LOGIN && ses.kexstate.donefirstkex &&
		(reason == 2 || reason == DISCONNECT_NO_MORE_AUTH_METHODS);
	port_fail(denied ? TP_CAUSE_AUTH : TP_CAUSE_LOST,
		"Received disconnect from %s port %u:%u: %.*s", port.config->host,
		(unsigned)port.config->port, (unsigned)reason,
		(int)(len < 120 ? len : 120), text != NULL ? (char *)text : "");
}

/* RFC 4253 11.3: helps to find faults. */
static void rx_debug(void)
{
	unsigned pos = ses.payload->pos;
	unsigned char *text;
	size_t len;

	if (ses.payload->len - pos < 2)
		return;
	buf_incrpos(ses.payload, 2);
	if (port_take_string(ses.payload, &text, &len))
		port_log_lines(TP_DEBUG, (char *)text, len);
	buf_setpos(ses.payload, pos);
}

static const packettype handlers[] = {
	{ SSH_MSG_KEXINIT, rx_kexinit },
	{ SSH_MSG_KEXDH_REPLY, rx_kexdh_reply },
	{ SSH_MSG_NEWKEYS, rx_newkeys },
	{ SSH_MSG_SERVICE_ACCEPT, auth_rx_accept },
	{ SSH_MSG_EXT_INFO, recv_msg_ext_info },
	{ SSH_MSG_USERAUTH_FAILURE, auth_rx_failure },
	{ SSH_MSG_USERAUTH_SUCCESS, auth_rx_success },
	{ SSH_MSG_USERAUTH_BANNER, auth_rx_banner },
	{ SSH_MSG_USERAUTH_SPECIFIC_60, auth_rx_60 },
	{ 0, NULL }
};

/* --- the course of a connection ------------------------------------------- */

/* Sets dropbear's start values and sends the first messages: both sides send their
 * identification and KEXINIT without waiting for the other's. */
void session_begin(void)
{
	static const char line[] = LOCAL_IDENT "\r\n";
	buffer *b;

	ses.sock_in = ses.sock_out = port.fd;
	ses.signal_pipe[0] = ses.signal_pipe[1] = -1;
	ses.writepayload = new_packet(0);
	ses.writepayload->size = TRANS_MAX_PAYLOAD_LEN;
	new_payload();
	ses.keys = m_malloc(sizeof(*ses.keys));
	ses.keys->recv.algo_crypt = ses.keys->trans.algo_crypt = &dropbear_nocipher;
	ses.keys->recv.crypt_mode = ses.keys->trans.crypt_mode = &dropbear_mode_none;
	ses.keys->recv.algo_mac = ses.keys->trans.algo_mac = &dropbear_nohash;
	ses.requirenext = SSH_MSG_KEXINIT;
	ses.dataallowed = 1;
	ses.packettypes = handlers;
	ses.remoteclosed = closed_by_peer;
	initqueue(&ses.writequeue);
	ses.init_done = 1;
	cli_opts.username = (char *)(uintptr_t)port.config->user;
	cli_opts.remotehost = (char *)(uintptr_t)port.config->host;
	cli_opts.no_hostkey_check = 1;
	cli_opts.batch_mode = 1;

	hostkey_begin();
	algorithms_begin(port.config);
	b = buf_new(sizeof(line));
	buf_putbytes(b, (const unsigned char *)line, sizeof(line) - 1);
	writebuf_enqueue(b);
	kexfirstinitialise();
	send_msg_kexinit();
	session_flush();
}

/* Does what must follow the packet just handled (dropbear's client does so in its loop,
 * depending on ses.lastpacket). */
static void progress(void)
{
	if (ses.lastpacket == SSH_MSG_KEXINIT && cli_ses.kex_state == KEX_NOTHING) {
		send_msg_kexdh_init();
		cli_ses.kex_state = KEXDH_INIT_SENT;
		return;
	}
	if (cli_ses.kex_state != KEX_NOTHING && ses.kexstate.sentnewkeys) {
		cli_ses.kex_state = KEX_NOTHING;
		if (cli_ses.state == STATE_NOTHING) {
			cli_ses.state = USERAUTH_REQ_SENT;
			auth_begin();
		}
	}
}

/* Messages of the connection protocol are the caller's, except when a login makes them
 * wrong: then dropbear's checks end the connection.  RFC 4253 7.1 forbids them between the
 * server's KEXINIT and NEWKEYS, but some servers have a few under way, and ssh takes them
 * (KEX-late). */
static bool is_for_caller(unsigned char type)
{
	return type >= 80 && type <= 127 && port.state == TP_UP && !ses.ignorenext;
}

/* Handles the packet in ses.payload.  Returns true if it is the caller's. */
static bool dispatch(void)
{
	unsigned char type = ses.payload->data[ses.payload->pos];

	port.info.packets_in++;
	if (is_for_caller(type)) {
		ses.lastpacket = type;
		handed_out = true;
		return true;
	}
	if (type == SSH_MSG_DISCONNECT)
		rx_disconnect();
	if (type == SSH_MSG_DEBUG)
		rx_debug();
	process_packet();
	maybe_flush_reply_queue();
	progress();
	return false;
}

/* Reads and handles packets until one is for the caller, the socket has no
 * more, or PACKETS are done. */
void session_pump(void)
{
	int budget;

	if (handed_out) {
		buf_free(ses.payload);
		ses.payload = NULL;
		handed_out = false;
	}
	more = false;
	for (budget = PACKETS; budget > 0; budget--) {
		if (ses.remoteident == NULL && !read_ident())
			return;
		net_dry = false;
		read_packet();
		if (ses.payload != NULL) {
			if (dispatch())
				return;
		} else if (net_dry) {
			return;
		}
	}
	more = true;
}

/* The message that session_pump() stopped for, or NULL. */
uint8_t *session_message(size_t *len)
{
	if (!handed_out)
		return NULL;
	*len = ses.payload->len - ses.payload->pos;
	return ses.payload->data + ses.payload->pos;
}

/* Packets sent, from the sequence numbers that dropbear keeps. */
uint64_t session_sent(void)
{
	return sent_before + ses.transseq;
}

/* poll() reports that the socket may have more. */
void session_readable(void)
{
	drained = false;
}

/* Whether there is work even if the socket stays silent. */
bool session_pending(void)
{
	return more || net_pos < net_len;
}

/* Bytes that a packet lacks whose length is known; 0 if there is none. */
uint32_t session_lacking(void)
{
	const buffer *b = ses.readbuf;

	return b != NULL && b->len >= ses.keys->recv.algo_crypt->blocksize ? b->len - b->pos : 0;
}

/* SSH_MSG_DISCONNECT, RFC 4253 11.1, one attempt.  It is allowed during a key exchange, so
 * it does not use dropbear's queue of deferred messages. */
void session_goodbye(void)
{
	buf_setpos(ses.writepayload, 0);
	buf_setlen(ses.writepayload, 0);
	buf_putbyte(ses.writepayload, SSH_MSG_DISCONNECT);
	buf_putint(ses.writepayload, DISCONNECT_BY_APPLICATION);
	buf_putstring(ses.writepayload, "disconnected by user", 20);
	buf_putstring(ses.writepayload, "", 0);
	encrypt_packet();
	session_flush();
}

/* Forgets the connection and everything in the arena. */
void session_end(void)
{
	explicit_bzero(&ses, sizeof(ses));
	explicit_bzero(&cli_ses, sizeof(cli_ses));
	explicit_bzero(net, sizeof(net));
#ifdef CIPHERS
	ciphers_forget();
#endif
	net_pos = net_len = ident_len = preamble = 0;
	failure = 0;
	sent_before = 0;
	net_dry = drained = more = handed_out = false;
	arena_reset();
}
