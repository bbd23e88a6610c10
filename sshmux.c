/* sshmux.c - one SSH connection, shared by many local commands.
 *
 * A master logs in to a server once (port/transport.h), keeps the connection
 * and serves OpenSSH's ControlMaster protocol (PROTOCOL.mux) on a unix socket.
 * Local programs, stock `ssh -S` or this same binary as a client, hand it
 * their stdio and get a session of their own on the shared connection.
 *
 * Map.  A section calls only sections above it.  News for a lower section (a
 * channel opened, a session ended) waits in the slot as a state or an event bit.
 * A name begins with the prefix of its section.
 *
 *   types      limits checked, protocol numbers, the one state struct `g`
 *   log_       messages for people
 *   rn_        the run: clock, random numbers, when to skip the wait, how it ends
 *   ev_        history: a ring of events, and which limits were reached
 *   rl_        RateLimit: how much bulk may be sent and received
 *   sl_        slots of the tables: links between them, loops over them
 *   buf_       bounds-checked cursors over messages
 *   pool_      the window pool: blocks of received bytes, and their account
 *   req_       request bodies that wait for their channel
 *   fd_        descriptors: flags, reading, writing, passing
 *   sp_        starting programs: by fork, or by a helper outside
 *   cn_        connecting: resolver child, addresses in turn
 *   ex_        short-lived programs that answer a question
 *   tx_        SSH messages we send
 *   fl_        bytes in flight: how many the server may have to take yet
 *   ch_        channels and their flow control
 *   tt_        terminals: a pty and its size
 *   us_        the control socket
 *   ac_        access: who may connect, who may request what
 *   fw_        forwards: slots and texts
 *   ls_        setting up forwards: listeners here and at the server
 *   sk_        SOCKS requests and replies
 *   co_        connections of forwards
 *   in_        texts about the connection, channels and forwards
 *   es_        escape sequences that a user types
 *   px_        proxy mode: clients that speak SSH messages themselves
 *   xf_        the agent and the X display, for programs at the server
 *   rx_        SSH messages we receive, one handler each, and their table
 *   as_        asking the user to allow a client's request
 *   js_        writing JSON
 *   st_        status, events and counters: JSON, tables, OpenMetrics
 *   mc_        the clients: slots, answers
 *   mx_        mux messages of our clients, one handler each, and their table
 *   fr_        frames: reading requests, writing answers
 *   se_        sessions of the clients, from the open channel to the exit status
 *   ad_        admission: which waiting client gets memory and channels next
 *   sd_        the scheduler: what is sent next, and how much
 *   lk_        the link: connect, log in, keepalive, loss
 *   hk_        reports of the uplink's state: to EventCommand, to supervisors
 *   lp_        the poll loop
 *   cl_        the mux client: its connection to a master
 *   ct_        control commands (-O)
 *   cs_        our session over a master's connection
 *   op_        options: the keywords and their values
 *   av_        the command line
 *   tk_        %-tokens in the values of options
 *   cf_        configuration files
 *   dv_        values derived from several options
 *   li_        -O list
 *   pr_        -G
 *   main
 *
 * The way of a byte from a client's stdin to the server: the client has passed the
 * descriptor (se_start); lp_add_channel() puts it into the poll set while the server
 * has a window for it (ch_wants_read); poll() finds it readable and sd_announce()
 * notes its channel; sd_send() gives that channel its turn; ch_read() reads the byte
 * straight into the message being built; ch_send() adds the header, tp_send()
 * encrypts the message, tp_flush() writes it.  A byte from the server: poll() wakes us
 * when its packet is whole (lp_gather); tp_service() reads it, tp_recv() returns a
 * message, rx_message() finds the handler; rx_data() subtracts the byte from the
 * window; ch_deliver() writes it at once, or pool_put() keeps it until poll() says
 * that the reader takes more (ch_write); ch_credit() then reopens the window.
 *
 * A session: ac_accept() accepts the connection, mc_add() sends HELLO; fr_read()
 * collects frame and descriptors; mx_dispatch() calls mx_new_session(), mx_queue()
 * puts the request into the queue; ad_admit() opens a channel (CH_OPENING); the
 * server's CONFIRMATION makes it CH_CONFIRMED; se_confirmed() requests terminal,
 * environment and command (CH_STARTING); se_start() sends SESSION_OPENED (CH_OPEN).
 * At the end come exit-status, EOF and CLOSE; ch_settle() answers, and once all is
 * delivered the channel is CH_ENDED; se_events() sends EXIT_MESSAGE;
 * lp_reap() frees channel and client.
 *
 * Invariants.  A build with CHECKS verifies 3, 4 and 8, all links between slots and
 * the channels' states after each turn (tests/checks.c).
 *  1. After start-up nothing allocates memory; the transport stays inside its arena.
 *     The state is in `g`.  The exceptions: the options' texts (op_store); static
 *     buffers that a function uses within a turn, or that keep a text until its next
 *     call; and `cl`, because the client is another process.
 *  2. Only poll() blocks.  Our own descriptors are non-blocking.  A passed one shares
 *     its flags with its owner: we use it through a description of our own (pipes,
 *     terminals) or with MSG_DONTWAIT (sockets).  Where neither is possible we set
 *     O_NONBLOCK, and restore it on every way out.
 *  3. Handlers only mark; lp_reap() alone frees channels and clients.  fw_free() frees
 *     a forward once no client waits for it and no request about it is unanswered.
 *  4. The bytes buffered for readers plus the windows advertised never exceed
 *     the window pool (see pool_): a reader that stops does not harm the others.
 *  5. Local input is read only when the network has room for it.
 *  6. A bad client loses its own connection.  A bad server loses the link.  A
 *     broken invariant aborts.
 *  7. Every loop has a bound.  Every wait has a deadline on the monotonic clock, with
 *     three exceptions: an open channel, a greeted client, and an answer of the server
 *     (MX_OPENING, FW_ASKED).  The answer comes as long as the link is up; lk_ detects
 *     when it is not.  Our client waits as long as its user wants (--timeout).
 *  8. Answers that SSH does not label are matched in order, through a queue for each
 *     kind.
 *
 * tp_ is the SSH transport (port/transport.h), os_ the system beyond POSIX
 * (port/linux.h).
 *
 * Sources: RFC 4254 (connection protocol) and OpenSSH's PROTOCOL.mux.  Rules found in
 * neither are rows of tests/protocol.tsv; comments cite their ids.
 */

/* ===== types ==============================================================
 * The checks of the limits, the numbers of the protocols, and the state `g`.  Every
 * section may read the state; only the section named beside a field writes it. */

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <syslog.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "config.h"
#include "port/confine.h"
#include "port/linux.h"
#include "port/transport.h"

#define LENGTH(array) (sizeof (array) / sizeof (array)[0])
#define UNUSED __attribute__((unused))
#define PRINTF(text, first) __attribute__((format(printf, text, first)))
/* Fills the array `text` from the last named parameter, `format`, and what follows it. */
#define FORMAT(text, format) \
	do { \
		va_list ap_; \
		va_start(ap_, format); \
		vsnprintf(text, sizeof (text), format, ap_); \
		va_end(ap_); \
	} while (0)
#define EXIT_SSH 255		/* the exit status of ssh's own failures */
#define PLURAL(n) ((n) == 1 ? "" : "s")
#define WINDOW_BLOCKS (WINDOW_POOL / WINDOW_BLOCK)
#define WINDOW_RESERVED (CHANNELS * WINDOW_MIN_BLOCKS)
#define POLLFDS (6 + TP_POLLFDS + CLIENTS + 3 * CHANNELS + FW_SOCKETS * FORWARDS + CONNECTORS)
/* Descriptors outside the tables: signals, listener, log, link, a login's files. */
#define FD_OWN 24
#define FD_LIMIT \
	(FD_OWN + 40 + CLIENTS + 3 * CHANNELS + FW_SOCKETS * FORWARDS + CONNECTORS + PROGRAMS)

/* PROTOCOL.mux */
#define MUX_VERSION 4
#define MUX_FRAME_MAX 262144
enum mux_type {
	MUX_MSG_HELLO = 0x00000001,
	MUX_C_NEW_SESSION = 0x10000002,
	MUX_C_ALIVE_CHECK = 0x10000004,
	MUX_C_TERMINATE = 0x10000005,
	MUX_C_OPEN_FWD = 0x10000006,
	MUX_C_CLOSE_FWD = 0x10000007,
	MUX_C_NEW_STDIO_FWD = 0x10000008,
	MUX_C_STOP_LISTENING = 0x10000009,
	MUX_C_EXT_INFO = 0x20000001,
	MUX_C_PROXY = 0x1000000f,
	MUX_S_OK = 0x80000001,
	MUX_S_PERMISSION_DENIED = 0x80000002,
	MUX_S_FAILURE = 0x80000003,
	MUX_S_EXIT_MESSAGE = 0x80000004,
	MUX_S_ALIVE = 0x80000005,
	MUX_S_SESSION_OPENED = 0x80000006,
	MUX_S_REMOTE_PORT = 0x80000007,
	MUX_S_TTY_ALLOC_FAIL = 0x80000008,
	MUX_S_EXT_INFO = 0x90000001,
	/* Our extensions, only if both HELLOs carried sshmux=1: */
	MUX_X_C_RESUME = 0x20736d01,	/* 0: we run again after a stop, read our terminal */
	/* seconds, instead of SessionWait (-1: keep it); uint32 1: report my place in line */
	MUX_X_C_WAIT = 0x20736d02,
	MUX_X_C_STATE = 0x20736d03,	/* rid, uint32 probe: how is the link? */
	MUX_X_C_KILL = 0x20736d04,	/* 0: our time is up, send TERM to the command */
	MUX_X_C_REPORT = 0x20736d05,	/* rid, string what, uint32 since: send a report */
	MUX_X_C_CONTROL = 0x20736d06,	/* rid, string verb, string, string; reply OK or FAILURE */
	MUX_X_C_SIGNAL = 0x20736d07,	/* 0, string name: our user sent us this signal */
	MUX_X_C_WEIGHT = 0x20736d08,	/* enum sd_weight: the kind of my session */
	MUX_X_S_SUSPEND = 0x90736d01,	/* session id: the user typed ~^Z */
	/* rid, reason: not started, its turn did not come in time */
	MUX_X_S_TRY_LATER = 0x90736d02,
	MUX_X_S_STATE = 0x90736d03,	/* rid, uint32 up, string state: the answer to C_STATE */
	MUX_X_S_REPORT = 0x90736d05,	/* rid, string: the next piece; empty at the end */
	/* rid, uint32: the client's place in line, from 1 */
	MUX_X_S_PLACE = 0x90736d04,
	MUX_S_PROXY = 0x8000000f,
};

/* RFC 4250, 4.1.2 */
enum ssh_type {
	SSH_FIRST = 80,
	SSH_GLOBAL_REQUEST = SSH_FIRST,
	SSH_REQUEST_SUCCESS = 81,
	SSH_REQUEST_FAILURE = 82,
	SSH_CHANNEL_OPEN = 90,
	SSH_CHANNEL_OPEN_CONFIRMATION = 91,
	SSH_CHANNEL_OPEN_FAILURE = 92,
	SSH_CHANNEL_WINDOW_ADJUST = 93,
	SSH_CHANNEL_DATA = 94,
	SSH_CHANNEL_EXTENDED_DATA = 95,
	SSH_CHANNEL_EOF = 96,
	SSH_CHANNEL_CLOSE = 97,
	SSH_CHANNEL_REQUEST = 98,
	SSH_CHANNEL_SUCCESS = 99,
	SSH_CHANNEL_FAILURE = 100,
};
#define SSH_EXTENDED_DATA_STDERR 1
#define SSH_OPEN_ADMINISTRATIVELY_PROHIBITED 1
#define SSH_OPEN_CONNECT_FAILED 2
#define SSH_OPEN_RESOURCE_SHORTAGE 4
#define SSH_DATA_HEADER 9	/* type, recipient channel, length */

/* A cursor over `len` bytes at `p`, for reading or for writing.  The first
 * access out of bounds sets `bad` for good: from then on reads return 0 or an
 * empty string, and writes do nothing.  One check at a message's end is enough. */
struct buf {
	uint8_t *p;
	size_t len, pos;
	bool bad;
};

/* Bytes inside a message: not owned, not terminated. */
struct str {
	const uint8_t *p;
	uint32_t len;
};

/* Bytes waiting for one descriptor: a chain of window blocks. */
#define NO_BLOCK 0xffff
struct queue {
	uint32_t len;		/* bytes waiting */
	uint16_t head, tail;	/* block numbers; meaningless while len is 0 */
	uint16_t off;		/* bytes already taken from the head block */
	uint16_t end;		/* bytes used in the tail block */
};

/* A descriptor that a client passed to us.  It shares its open file description,
 * O_NONBLOCK included, with the client and often with the client's shell. */
struct passed {
	int fd;			/* -1 when closed */
	bool socket;		/* MSG_DONTWAIT works, whatever its flags */
	/* a terminal that we could not re-open: blocking, used only after poll() */
	bool tty;
	bool nonblock;		/* never blocks */
	bool restore;		/* we set O_NONBLOCK and must clear it again */
	uint32_t inode;		/* helps to find others that share the description */
};

/* The input that poll() found at a channel or a proxy client; valid until a read
 * comes back short.  Short input goes before bulk (sd_). */
enum sd_input { SD_NONE, SD_BULK, SD_SHORT };

/* What its user declared (--bulk, --interactive, a terminal); SD_GUESSED: look at its input. */
enum sd_weight { SD_GUESSED, SD_IS_BULK, SD_INTERACTIVE };

struct sender {
	uint32_t quantum;		/* bytes it may still send in its turn */
	uint8_t input;			/* enum sd_input */
	uint8_t weight;			/* enum sd_weight */
	/* ch_: low bits of ev_seconds() when data last came */
	uint16_t heard;
};

/* Senders are numbered: first the channels, then the clients.  A client in proxy
 * mode sends like one channel; other clients send nothing. */
#define SENDERS (CHANNELS + CLIENTS)

enum sd_mode { SD_ALONE, SD_SHARED, SD_FAST };

/* What is at our end of a channel. */
enum ch_kind {
	CH_SESSION,		/* a client's stdin, stdout and stderr */
	CH_STDIO,		/* a client's stdin and stdout (MUX_C_NEW_STDIO_FWD) */
	CH_LOCAL,		/* a socket that one of our listeners accepted */
	CH_REMOTE,		/* a socket that we connected for the server */
	CH_X11,			/* like CH_REMOTE, for a program that wants the display */
	CH_PROXY,		/* a channel that a proxy client runs itself */
	CH_KINDS
};

/* In the order of a channel's life; ch_states lists the steps allowed. */
enum ch_state {
	CH_FREE,
	CH_SOCKS_LOCAL,		/* a local socket must send its SOCKS request */
	/* the server opened it: its socket connects, or its proxy client decides */
	CH_CONNECTING,
	CH_OPENING,		/* we opened it and wait for the server's answer */
	/* the server refused, or the link was lost; its client must be told */
	CH_REFUSED,
	/* from here to CH_OPEN the server counts it as open: */
	/* its client must be told, or a session's requests wait for room */
	CH_CONFIRMED,
	/* a session's requests were sent, and its client waits for the answers */
	CH_STARTING,
	CH_SOCKS_REMOTE,	/* its data must begin with a SOCKS request */
	CH_GREETING,		/* its data must begin with an X11 greeting */
	CH_OPEN,		/* data flows, then EOF and CLOSE */
	/* no longer open: */
	CH_ENDED,		/* its client must be told */
	CH_DEAD,		/* to be reaped */
	CH_STATES
};

/* How far each direction of an open channel has ended: `sent` from us to the server,
 * `rcvd` from the server to us.  Both only move forward.
 *
 *	what happens			sent		rcvd
 *	our input ends			CH_EOF
 *	the server stops reading (eow)	CH_EOF, not sent
 *	ch_is_over()			CH_CLOSED
 *	the server's EOF				CH_EOF: after what waits, output ends
 *	its CLOSE, hence ch_is_over()	CH_CLOSED	CH_CLOSED
 *	the link is lost		CH_CLOSED	CH_CLOSED, neither sent
 *	px_reopen()					CH_FLOWS: another channel
 *
 * Once both are CH_CLOSED and all is delivered, the channel's state moves on. */
enum ch_half { CH_FLOWS, CH_EOF, CH_CLOSED };

enum ch_flag {
	CH_EOW_SENT = 1 << 0,
	CH_STATUS = 1 << 1,	/* `status` holds the remote exit status */
	CH_TTY = 1 << 2,	/* a pty was asked for */
	CH_AGENT = 1 << 3,	/* xf_: a session that asked for the agent, or a connection to it */
	CH_FAILED = 1 << 4,	/* one of its ends could not be set up: close as soon as possible */
	CH_SUSPENDED = 1 << 5,	/* its client is stopped: do not read its terminal */
	CH_LINE_START = 1 << 6,	/* es_: the next byte typed may be the escape character */
	CH_ESCAPED = 1 << 7,	/* es_: the escape character is held back */
	CH_DISPLAY = 1 << 8,	/* like CH_AGENT, for the display */
};

/* Events of a channel that its client has not heard of yet. */
enum ch_event {
	CH_EV_TTY_FAILED = 1 << 0,
	CH_EV_HANG_UP = 1 << 1,	/* the user typed ~. */
	CH_EV_SUSPEND = 1 << 2,	/* the user typed ~^Z */
};
#define NO_ESCAPE 0xffffffffu
#define MX_KEEP_WAIT 0xffffffffu

/* Our channel requests that want a reply, in the order sent (RFC 4254, 5.4:
 * replies come in that order and carry no name).  Those from EXEC on start the
 * program. */
enum ch_request { CH_RQ_NONE, CH_RQ_PTY, CH_RQ_X11, CH_RQ_EXEC, CH_RQ_SHELL, CH_RQ_SUBSYSTEM };
#define CH_REQUESTS 4

enum stream { CH_OUT, CH_ERR, CH_STREAMS };
enum ch_end { CH_IN = CH_STREAMS, CH_ENDS };	/* its descriptors: streams, then input */

/* px_: what a proxy client must still be told about its channel, besides data. */
enum px_owed {
	PX_OPEN = 1 << 0,	/* the server's CHANNEL_OPEN, which waits in queue[CH_OUT] */
	PX_EOF = 1 << 1,
	PX_CLOSE = 1 << 2,
	PX_CLOSED = 1 << 3,	/* it knows of the server's CLOSE */
	PX_ERR_NEXT = 1 << 4,	/* stderr is next: stdout and stderr alternate */
	PX_FRESH = 1 << 5,	/* dropbear: it has seen only the open of this session */
	PX_REOPENED = 1 << 6,	/* we open it again; the client does not know that */
	PX_STATUS = 1 << 7,	/* it knows the exit status, but output may still come */
};
#define PX_VERDICTS 32

/* The part of a channel that only a proxied one needs. */
struct proxied {
	uint32_t id;			/* the client's number for it */
	uint32_t window;		/* bytes that the client still takes */
	uint32_t packet;		/* longest data that the client takes */
	uint32_t adjust;		/* window from the server, not yet told to the client */
	/* answers to the client's requests, the oldest in bit 0: 1 is success */
	uint32_t verdicts;
	uint8_t n_verdicts;
	uint8_t pending;		/* client's requests that the server has not answered */
	uint8_t asked;			/* server's requests that the client has not answered */
	uint8_t owed;			/* enum px_owed */
	uint8_t reopened;		/* how often we opened it again */
	uint8_t stored;			/* bytes used in `store` */
	/* channel requests, each preceded by its length; or why the open failed */
	uint8_t store[PROXY_STORE];
};

/* A session as reports show it; its channel owns the record. */
enum counted { IN_BYTES, OUT_BYTES, ERR_BYTES, COUNTED };
struct record {
	uint32_t since, active;		/* ev_seconds() when opened, when a byte last moved */
	uint64_t bytes[COUNTED];	/* from its stdin, to its stdout and stderr */
	bool used;
	char command[COMMAND_TEXT];	/* its first bytes, terminated */
};

/* Events, for -O watch and -O log.  st_events says what `n` and `text` mean. */
enum ev_kind {
	EV_UP, EV_DOWN, EV_TRYING, EV_SESSION_OPENED, EV_SESSION_CLOSED, EV_FORWARD_UP,
	EV_FORWARD_DOWN, EV_FORWARD_FAILED, EV_LIMIT, EV_REKEY, EV_REFUSED, EV_ENDING, EV_KINDS
};
#define EV_NUMBERS 5
struct event {
	int64_t at;			/* ms */
	uint64_t in, out;		/* bytes */
	int32_t n[EV_NUMBERS];
	uint8_t kind;			/* enum ev_kind */
	char text[EVENT_TEXT];
};

/* The limits of config.h that are reported when reached. */
enum table {
	TABLE_CLIENTS, TABLE_CHANNELS, TABLE_SESSIONS, TABLE_FORWARDS, TABLE_CONNECTORS,
	TABLE_REQUESTS, TABLE_ASKERS, TABLE_DISPLAYS, TABLE_WINDOW_POOL, TABLES
};

struct channel {
	uint8_t state;			/* enum ch_state */
	uint8_t kind;			/* enum ch_kind */
	uint8_t events;			/* enum ch_event */
	uint8_t sent : 4, rcvd : 4;	/* enum ch_half */
	uint16_t flags;			/* enum ch_flag */
	int16_t forward;		/* fw_: index of its forward, -1 for none */
	int16_t client;			/* index, -1 once it left */
	int16_t record;			/* a session's, -1 for none */
	uint8_t display;		/* xf_: index, plus one, of its display, 0 for none yet */
	uint16_t charge;		/* pool_: blocks accounted to this channel */
	uint32_t remote_id;
	uint32_t remote_window;		/* bytes we may still send */
	uint32_t remote_packet;		/* longest data the peer takes */
	uint32_t flight;		/* fl_: bytes sent that the peer has not given back */
	uint32_t flight_at;		/* fl_: ms, when it was opened or gave back last */
	uint32_t window;		/* bytes the peer may still send */
	uint32_t window_target;		/* what `window` is filled up to */
	uint32_t consumed;		/* bytes taken since the target last grew */
	struct sender sender;		/* sd_ */
	struct queue queue[CH_STREAMS];
	union {				/* by kind */
		struct proxied px;		/* CH_PROXY */
		struct {
			struct passed end[CH_ENDS];	/* fd_of() works for any kind */
			union {
				struct {		/* CH_SESSION, CH_STDIO */
					uint32_t status;
					/* escape character, above 0xff for none */
					uint32_t escape;
					struct winsize size;	/* last size told to the server */
					/* enum ch_request, oldest first */
					uint8_t request[CH_REQUESTS];
				};
				struct {		/* CH_LOCAL, CH_REMOTE, CH_X11 */
					/* for connecting, SOCKS request, greeting */
					int64_t deadline;
					int16_t connector;	/* cn_: index, -1 for none */
					/* version of the request, 0 for none */
					uint8_t socks;
				};
			};
		};
	};
};

/* A frame is read in these steps.  From MX_ASK_WAIT on nothing is read: the
 * next frame waits until this one is answered (PROTOCOL.mux: replies come in
 * order). */
enum mx_phase {
	MX_FREE, MX_HEADER, MX_BODY_WAIT, MX_BODY, MX_SKIP, MX_DESCRIPTORS,
	MX_NO_DESCRIPTOR,		/* they stay in the socket until we have room for them */
	MX_ASK_WAIT,			/* waits for a free askpass program */
	MX_ASKING, MX_QUEUED, MX_OPENING, MX_FORWARDING, MX_PROBING,
	MX_REPORTING,			/* st_: pieces go out whenever its socket takes one */
	/* proxy mode, must come last: frames of SSH messages, read by px_ */
	MX_PROXY_HEAD, MX_PROXY_WAIT, MX_PROXY_BODY, MX_PROXY_DATA
};

/* px_: the one answer that a proxy client may wait for.  Until the answer is written,
 * we read nothing more from that client. */
enum px_answer {
	PX_NONE,
	PX_ASKED,			/* the server has not answered a global request */
	PX_GRANTED, PX_REFUSED,		/* it has: to be sent to the client */
	PX_NO_CHANNEL,			/* CHANNEL_OPEN_FAILURE is to be sent */
};

#define MX_HEADER_SIZE 12	/* length, type, request id (version in HELLO) */
#define MX_SMALL 64		/* a body up to this size never waits for memory */
#define MX_DESCRIPTOR_MAX 3

struct client {
	int fd;
	struct os_peer peer;		/* who connected */
	uint8_t phase;			/* enum mx_phase */
	bool split;			/* of the call that this master split from */
	bool dead;			/* to be reaped */
	bool closing;			/* to be dropped when its replies are written */
	bool greeted;			/* its HELLO came */
	bool sshmux;			/* its HELLO carried sshmux=1 */
	bool too_long;			/* the body did not fit and was skipped */
	bool tell_place;		/* it wants to know its place in the queue */
	bool patient;			/* --wait: it would rather wait for another master */
	bool probed;			/* event: the server answered its probe */
	uint16_t place;			/* the place it was told last */
	int16_t channel;		/* its session, -1 for none */
	int16_t forward;		/* that it waits for, -1 for none */
	int16_t request;		/* req_ slot that holds the body, -1 for none */
	int16_t answer;			/* req_ slot with an answer too long for `out` */
	uint32_t answer_pos;
	uint8_t report, part;		/* st_: which report, which part of it comes next */
	bool comma;			/* st_: this part already has an element */
	int8_t ask;			/* as_: program that asks about its request, -1 for none */
	bool consent;			/* the user allowed the present request */
	uint8_t n_fds;
	uint8_t reopened;		/* how often its session was opened again */
	int fds[MX_DESCRIPTOR_MAX];
	uint32_t ticket;		/* order of arrival of the present request */
	uint32_t type, rid;
	uint32_t body_len, got;		/* of the header, then of the body */
	int64_t deadline;		/* ms, 0 for none */
	union {
		struct {
			int64_t give_up;	/* when its wait for a session ends */
			int64_t wait;		/* ms it may wait */
		};
		/* px_: bytes of its channels: IN_BYTES to the server, OUT_BYTES from it */
		uint64_t moved[2];
	};
	uint8_t verdict;		/* px_: enum px_answer */
	uint8_t tail_stream;
	/* px_: how many of its channels are PX_REOPENED; it is read only at 0 */
	uint8_t reopening;
	int16_t tail_channel;
	union {
		int16_t next_channel;	/* px_: the channel served last */
		uint16_t item;		/* st_: the next item of the report's part */
	};
	uint32_t tail;			/* px_: bytes of that channel's stream that follow `out` */
	union {
		/* px_: goes with `verdict`: a port, or the channel's number */
		uint32_t word;
		uint32_t seen;		/* st_: number of the next event to tell */
	};
	struct sender sender;		/* sd_: in proxy mode */
	uint16_t out_len, out_pos;
	uint8_t out[REPLY_MAX];
	uint8_t header[MX_HEADER_SIZE];
	uint8_t small[MX_SMALL];
};

/* Our global requests that want a reply, oldest first (RFC 4254, 4). */
enum global_kind { GLOBAL_KEEPALIVE, GLOBAL_FORWARD, GLOBAL_PROBE, GLOBAL_PROXY,
	GLOBAL_PROXY_CANCEL };
struct global_request {
	uint8_t kind;
	int16_t of;			/* index of the forward or the client, by kind */
	bool reply;			/* px_: its client wants the answer */
};
#define GLOBAL_REQUESTS (FORWARDS + 8)

/* One attempt to connect to a host: a resolver child, then each address. */
enum cn_state { CN_IDLE, CN_RESOLVING, CN_RESOLVED, CN_CONNECTING, CN_DONE, CN_FAILED };
struct connector {
	enum cn_state state;
	bool names_only;		/* ends in CN_RESOLVED, does not connect */
	int fd;				/* resolver's pipe, then the socket */
	pid_t pid;			/* resolver child, 0 for none */
	uint16_t port;
	uint8_t n, next;		/* number of addresses, the next one to try */
	int64_t deadline;		/* for all of it */
	int64_t attempt_deadline;	/* for the present address */
	size_t got;			/* bytes of `reply` received */
	struct cn_reply {
		int32_t error;		/* getaddrinfo's */
		int32_t n;
		struct cn_address {
			sa_family_t family;
			uint32_t scope;
			uint8_t bytes[16];
		} address[ADDRESSES];
	} reply;
	char why[160];			/* last error, for people */
};

/* A program that runs for us.  SIGCHLD reports its end. */
enum ex_state { EX_IDLE, EX_RUNNING, EX_FAILED, EX_DONE };
struct program {
	uint8_t state;			/* enum ex_state */
	pid_t pid;			/* while it runs */
	int fd;				/* its stdout, -1 for none */
	int64_t deadline;
};
#define EX_XAUTH 0			/* xf_'s */
#define EX_EVENT 1			/* hk_'s */
#define EX_ASKERS 2			/* as_'s begin here */

#define HK_VARIABLES 6			/* in EventCommand's environment */
#define HK_VARIABLE 256			/* bytes of each */
#define PROGRAMS (EX_ASKERS + ASKERS)

#define XF_COOKIE 16			/* bytes of an MIT-MAGIC-COOKIE-1 */
#define XF_NAME 48			/* of a display's name, terminator included */

/* A session's display: `fake` is our cookie for it, `real` the one that xauth reports. */
enum xf_state { XF_UNKNOWN, XF_TO_ASK, XF_ASKED, XF_KNOWN };
struct display {
	char name[XF_NAME];
	uint8_t state;			/* enum xf_state, of the real cookie */
	uint8_t fake[XF_COOKIE], real[XF_COOKIE];
};

/* A forward (MUX_C_OPEN_FWD in PROTOCOL.mux): where to listen, where to connect.
 * With port FW_PATH the host is the path of a unix socket. */
enum fw_type {
	FW_LOCAL = 1, FW_REMOTE = 2, FW_DYNAMIC = 3,
	/* a remote one that proxy client `client` requested, -1 once it left */
	FW_PROXY,
};
enum fw_state {
	FW_FREE,
	FW_RESOLVING,		/* the name to listen on */
	FW_WAITING,		/* remote: to be requested when the link allows */
	FW_ASKED,		/* remote: requested, the server has not answered */
	FW_ACTIVE,
};
#define FW_PATH 0xfffffffeu
#define FW_SOCKETS 4

struct endpoint {
	char host[FORWARD_HOST];
	uint32_t port;
};

struct forward {
	uint8_t state;			/* enum fw_state */
	uint8_t type;			/* enum fw_type */
	bool answered;			/* event: up or failed, its client must be told */
	int16_t client;			/* that waits for it (FW_PROXY: owns it), -1 for none */
	int16_t connector;		/* resolves the name to listen on, -1 for none */
	struct endpoint listen, connect;
	uint32_t allocated;		/* remote: the port that the server gave */
	int socket[FW_SOCKETS];		/* local: listening, -1 for none */
	dev_t dev;			/* of a unix socket that we created */
	ino_t ino;
	/* was set up once, or comes from an option: retried for ever */
	bool permanent;
	uint8_t tries;			/* failures since it last worked */
	bool told;			/* the last connection failed, and `why` was logged */
	bool cleared;			/* the server was asked to remove what is at its path */
	uint32_t since;			/* ev_seconds() of its last change of state */
	uint32_t connections, failed;	/* in all; how many of them failed */
	uint64_t bytes[2];		/* IN_BYTES to the server, OUT_BYTES from it */
	int64_t retry_at;
	uid_t uid;			/* of the client that asked for it; 0 for an option */
	/* the last error, its own or a connection's; "" for none */
	char why[92];
};

/* ControlMaster: ASK asks the user about every request.  AUTO and AUTO_ASK become
 * YES and ASK if there is no master yet. */
enum op_master { OP_MASTER_NO, OP_MASTER_YES, OP_MASTER_ASK, OP_MASTER_AUTO, OP_MASTER_AUTO_ASK };

enum lk_state { LK_DOWN, LK_WAITING, LK_CONNECTING, LK_LOGIN, LK_UP };
enum lk_reconnect { LK_NO, LK_YES, LK_ALWAYS };
enum rl_way { RL_UP, RL_DOWN, RL_WAYS };
enum rn_stop { RN_RUN, RN_WHEN_IDLE, RN_NOW };

/* After the first login the process may split in two: the master, and a parent that
 * serves the user as a client or just exits. */
enum lp_split { LP_STAYS, LP_SERVES_ITSELF, LP_DETACHES };

/* What a server or a client can cause again and again: logged once per connection. */
enum log_often { LOG_UNASKED, LOG_COOKIE, LOG_NOT_OPENED, LOG_STRANGER, LOG_CROWD, LOG_DENIED,
	LOG_OFTEN = LOG_DENIED + 6 };

#ifdef CHECKS
#define CHECKING true
#else
#define CHECKING false			/* tests/checks.c */
#endif

static struct {
	/* op_ */
	struct {
		int64_t level;			/* LogLevel: index into log_kinds */
		int64_t master, session_type;	/* enum op_master; 0 default, 1 none, 2 subsystem */
		const char *given;		/* the host as typed */
		const char *control_path, *mux_command, *host_name;
		const char *config_file, *ignore_unknown;
		bool dump;			/* -G */
		void (*list)(const char *);	/* -O list: called for each name in the files */
		int64_t port;
		const char *const *command;	/* words */
		int n_command;
		struct list { const char *at[OPTION_LIST]; size_t n; }
			identity, known_hosts, global_hosts, pin, send_env, set_env;
		int64_t connect_timeout, alive_interval, alive_count;	/* s, s, count */
		int64_t family;			/* AF_… */
		/* ControlPersist: s, 0 for ever, -1 no */
		int64_t persist, attempts, prompts, fallback, background, stdin_null,
			clear_forwards;
		int64_t pubkey_auth, password_auth, keyboard_auth;
		const char *preferred_auth, *identity_agent;
		const char *proxy_command, *proxy_jump, *remote_command, *local_command;
		int64_t permit_local;
		int64_t batch, identities_only, strict, gateway_ports, exit_on_forward_failure;
		/* enum lk_reconnect; s */
		int64_t reconnect, reconnect_min, reconnect_max, session_wait;
		int64_t tcp_keepalive, dscp[2];	/* dscp: interactive, bulk */
		/* s, s, count; of the client */
		int64_t wait, timeout, retry, idempotent, probe;
		int64_t json, since;		/* --json; --since: count */
		int64_t notify_fd, event_delay;	/* --notify-fd; s */
		const char *event_command;
		int64_t weight;			/* --bulk, --interactive: enum sd_weight */
		/* RateLimit: bits per second by enum rl_way, 0 for no limit */
		int64_t rate[RL_WAYS];
		int64_t request_tty, escape;	/* enum cl_tty; a character or NO_ESCAPE */
		int64_t forward_x11, x11_trusted;	/* no, yes; 0 not set, 1 no, 2 yes */
		const char *refuse;
		const char *permit_open;	/* HOST:PORT..., separated by one blank */
		int64_t bind_unlink, bind_mask;
		const char *revoked_keys;
		int64_t rsa_bits;
		const char *forward_agent;	/* "yes", "no", a path, or "$VARIABLE" */
		const char *xauth;
		const char *stdio_forward;
		int64_t foreign_master, watch_network;
		const char *control_group;
		int64_t confine;
		int64_t max_per_user;		/* 0 for no limit but the tables */
		struct list allow;		/* ControlAllow: words, one per line */
		const char *user, *host_key_alias, *bind_address, *bind_interface, *tag;
		bool final, wants_final;	/* cf_: reading the files again; must do so */
		struct tp_config tp;
	} op;

	struct {
		int64_t level;		/* enum tp_level: the most detailed one logged */
		uint32_t lost;		/* lines that could not be written */
		uint16_t often[LOG_OFTEN];	/* counts on this connection */
		int fd;			/* -E, 0 for stderr */
		bool syslog;		/* -y */
		int64_t facility;
	} log;

	struct {
		/* descriptors that the tables may use, 0 for no limit */
		int most;
	} fd;

	struct {
		enum rn_stop stop;
		int exit_code;
		bool again;		/* the next poll() does not wait */
	} rn;

	struct {
		struct event slot[EVENTS];	/* number k is in slot k % EVENTS */
		uint32_t next;		/* number of the next event */
		uint32_t begun;		/* ev_seconds() when the master began */
		uint32_t peak[TABLES], refused[TABLES];
		bool full[TABLES];	/* and counted as such */
	} ev;

	struct {
		/* by enum rl_way: thousandths of a bit that may move now; negative: debt */
		int64_t level[RL_WAYS];
		int64_t at;		/* when they were last filled */
		bool denied[RL_WAYS];		/* a sender waits for more */
	} rl;

	struct {
		int helper;		/* socket to it, 0 for none */
		pid_t pid;		/* its process */
		bool lost;		/* it has ended: nothing can be started any more */
	} sp;

	struct {
		struct program slot[PROGRAMS];
	} ex;

	struct {
		struct connector slot[CONNECTORS];
		int end;		/* no slot from here on was ever used */
	} cn;

	struct {
		struct global_request global[GLOBAL_REQUESTS];
		int n_global;
		int64_t asked_at;	/* when the oldest keepalive was sent, 0 for none */
		uint32_t rtt, rtt_min, rtt_max, rtt_n;	/* ms */
		uint64_t rtt_sum;
	} tx;

	struct {
		uint32_t most, least;	/* bytes of one channel */
		uint32_t rtt;		/* ms, the shortest seen */
		int channel, late;	/* the round's, the one that was late last, plus one */
		uint32_t left;		/* bytes to be given back before it ends */
		uint32_t began;		/* ms */
	} fl;

	struct {
		struct channel slot[CHANNELS];
		struct record record[SESSIONS];
		/* channels whose bytes or window have moved, as bits; lp_ begins anew */
		uint32_t busy[(CHANNELS + 31) / 32];
		int end;		/* all slots from here on are free */
		int next;		/* the channel to settle first */
		int sessions;
		int session_limit;	/* the server's, learned from its refusals */
		int64_t limit_until;	/* when to try more again */
		int64_t freed_at;	/* when a session's slot was freed last */
	} ch;

	struct {
		const char *path;	/* to serve, NULL for none */
		int listener;
		/* socket that claims the path while we log in (us_claim()); -1 for none */
		int early;
		int64_t accept_after;	/* do not accept before: no descriptor, or an error */
		bool bound;
		bool missed;		/* the socket is not at its path, and that was logged */
		int64_t look_at;	/* when to look for it there */
		dev_t dev;
		ino_t ino;
		gid_t group;		/* ControlGroup */
	} us;

	struct {
		struct forward slot[FORWARDS];
		int end;		/* all slots from here on are free */
		/* forwards and connections of forwards that the server or we have set up */
		uint32_t accepted;
	} fw;

	struct {
		int64_t accept_after;	/* do not accept before: accept() failed */
	} co;

	struct {
		struct display slot[DISPLAYS];
	} xf;

	struct {
		struct client slot[CLIENTS];
		int end;		/* all slots from here on are free */
	} mc;

	struct {
		bool held, draining;	/* -O hold, -O drain */
		bool reconnect;		/* -O reconnect, for lk_ to see */
	} mx;

	struct {
		uint32_t ticket;	/* of the next request */
	} fr;

	struct {
		uint32_t completed;	/* sessions that ended with a status */
		uint32_t opened;	/* sessions in all */
		/* open no session before; the wait in ms, doubled each time */
		int64_t open_after, open_wait;
	} se;

	struct {
		uint32_t ready[(SENDERS + 31) / 32];	/* senders that may have input, as bits */
		int next;		/* the sender whose turn it is */
		int fd;			/* the transport's socket; not ours to close */
		int unsent;		/* its TCP_NOTSENT_LOWAT */
		int gather;		/* its SO_RCVLOWAT */
		enum sd_mode mode;
		/* bytes of any kind that may wait for the network now */
		uint32_t room;
		uint32_t queue;		/* how much of that may be bulk */
		uint32_t packet;	/* longest bulk message */
		uint32_t quantum;	/* bytes of one sender's turn */
		uint32_t burst;		/* bytes queued since `queue` was set */
		bool backlogged;	/* the kernel has not sent the last burst yet */
		bool held;		/* bulk waits for the kernel to do so */
		bool shared, typed;	/* several channels are open, a terminal is */
		uint32_t pace;		/* bytes that the network takes in FAST_MS */
		int64_t pace_at;	/* when it was measured */
		uint64_t pace_bytes;	/* sent by then */
		int64_t short_at;	/* when short input last came to one of several channels */
	} sd;

	struct {
		enum lk_state state;
		/* an error that will stay: do not reconnect, whatever Reconnect says */
		bool last_try;
		struct connector uplink;
		int64_t login_deadline, alive_at, connected_at, exchange_at;
		uint64_t alive_bytes, exchange_bytes;
		int alive_unanswered;
		uint32_t logins, tries;	/* in all; failed since the last login that lasted */
		uint32_t since;		/* ev_seconds() of the last change of state */
		uint32_t key_exchanges;	/* that were recorded as events */
		char last[160];		/* the last `why`, kept after a login */
		/* of earlier connections */
		struct tp_traffic { uint64_t packets_in, packets_out, bytes_in, bytes_out; } gone;
		uint32_t failures;	/* logins that failed in a row */
		uint32_t used;		/* lk_uses() when the login succeeded */
		bool refused;		/* the server answered, but login or host key failed */
		int64_t failed_at;	/* when the connection or the last try failed */
		int64_t retry_at;	/* when to try again */
		int64_t down_at;	/* when the link was lost */
		int64_t probe_at;	/* deadline for the answer to a probe, 0 for none */
		uint64_t probe_bytes;
		pid_t proxy;		/* ProxyCommand's process, 0 for none */
		/* netlink socket: reports changes of the network; -1 for none */
		int watch;
		int64_t look_at;	/* when to check the link after a change, 0 for never */
		/* the transport's socket, for its DSCP; not ours to close */
		int net_fd;
		int tos;		/* set on it, -1 for none yet */
		char error[160];	/* a protocol error found by rx_ */
		char why[160];		/* why the last try failed */
		char local[INET6_ADDRSTRLEN + 8], remote[INET6_ADDRSTRLEN + 8];	/* "1.2.3.4:22" */
	} lk;

	struct {
		bool told_up;		/* EventCommand last heard "up" */
		bool ready, stopping;	/* the supervisor was told so */
		uint8_t state;		/* link state that the supervisor was told, plus one */
		uint32_t seen;		/* number of the next event to look at */
		char *environment[HK_VARIABLES + 1];
	} hk;

	struct {
		int signal_pipe[2];
		int cancel_pipe[2];	/* readable once a signal ends us */
		enum lp_split split;	/* what happens after the login */
		bool has_split;		/* we are the child that stays */
		bool confined;		/* as far as possible */
		/* in the parent: its connection to the child, 0 for none */
		int split_fd;
		pid_t split_master;
		int64_t resize_at;	/* when to check terminal sizes next */
		int64_t idle_at;	/* ControlPersist: when to end */
		int64_t stop_deadline;
		bool quick;		/* this turn is */
		int64_t full_at;	/* when the last full one was */
		int silent;		/* the set of what quick turns leave out, or -1 */
		int64_t silent_after;	/* when there may be one again */
		/* bytes that had moved by then, and by the one before */
		uint64_t moved, moved_before;
		/* channels that a quick turn looks at, as bits; since when they are collected */
		uint32_t awake[(CHANNELS + 31) / 32];
		int64_t marked_at;
		/* as of the last full turn: clients that a quick one looks at, as bits; whether
		 * more may connect to us, and to forwards */
		uint32_t asking[(CLIENTS + 31) / 32];
		bool open, accepts;
		uint64_t came;		/* bytes from the server so far */
		int64_t came_at;	/* when some had come */
		bool at_once;		/* soon after those before */
		int n_poll;
		struct pollfd poll[POLLFDS];
		struct lp_owner { uint8_t kind; uint8_t stream; uint16_t index; } owner[POLLFDS];
	} lp;

	int64_t now;			/* lp_: rn_clock() when the turn began, ms */

	/* the big ones last: their untouched pages cost nothing */
	/* free for any function; any call into another section may overwrite it */
	uint8_t scratch[SCRATCH];
	struct {
		struct req { uint32_t at, len; } slot[REQUESTS];	/* len 0: free */
		uint8_t memory[REQUEST_POOL];	/* the client builds its request there */
	} req;
	struct {
		uint16_t next[WINDOW_BLOCKS];
		uint16_t free, last;	/* chain of free blocks that were used before */
		uint16_t fresh;		/* blocks from here on were never used */
		uint32_t shared;	/* blocks charged beyond the channels' minimum */
		uint8_t block[WINDOW_BLOCKS][WINDOW_BLOCK];
	} pool;
} g;	/* all zeros at start; main() sets what must not be zero */

/* ===== log_ ===============================================================
 * Messages for people, on stderr, in a file (-E) or to syslogd (-y): one line each, its
 * text up to LOG_TEXT bytes.  The master never waits for one: a line that cannot be
 * written at once is lost and counted.  Any section may call it.
 * Calls nobody. */

/* -y: sends a datagram as syslog(3) does (RFC 3164), but never waits.  It carries no
 * time: syslogd adds that, because we do not read the wall clock.  False if it cannot
 * be sent. */
static bool log_to_syslog(enum tp_level level, const char *text)
{
	static const uint8_t severity[] = { LOG_ERR, LOG_NOTICE, LOG_INFO, LOG_DEBUG };
	char line[600];
	snprintf(line, sizeof line, "<%d>sshmux[%d]: %s", (int)g.log.facility | severity[level],
		(int)getpid(), text);
	return os_tell("/dev/log", line);
}

/* Length of the character at p, and in *c its number (UTF-8 as of RFC 3629); 0 if it is
 * none, more than len if it is cut off. */
static size_t log_utf8(const uint8_t *p, size_t len, uint32_t *c)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t n = *p < 0x80 ? 1 : *p < 0xc2 ? 0 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : *p < 0xf5 ? 4 :
		0;
	*c = n > 1 ? *p & (0x7fu >> n) : *p;
	for (size_t i = 1; i < n && i < len; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		*c = *c << 6 | (p[i] & 0x3f);
	}
	if (n > len)
		return n;
	return *c < least[n] || (*c >= 0xd800 && *c < 0xe000) || *c > 0x10ffff ? 0 : n;
}

/* Likewise; 0 also for one that can harm a terminal: a C0 or C1 control. */
static size_t log_character(const uint8_t *p, size_t len)
{
	uint32_t c;
	size_t n = log_utf8(p, len, &c);
	return n <= len && (c < ' ' || (c >= 0x7f && c < 0xa0)) ? 0 : n;
}

/* Makes foreign text harmless for people (transport.h).  No other function does. */
size_t tp_clean(const char *text, size_t len, bool lines, char *to, size_t size)
{
	size_t at = 0, put = 0;
	while (at < len) {
		const uint8_t *p = (const uint8_t *)text + at;
		bool cr = lines && *p == '\r' && (at + 1 == len || p[1] == '\n');
		size_t n = cr ? 2 : *p == '\t' || (lines && *p == '\n') ? 1 :
			log_character(p, len - at);
		if (n > len - at || put + (n ? n : 4) >= size)
			break;
		if (n)
			memcpy(to + put, p, n);
		else
			snprintf(to + put, 5, "\\%03o", *p);
		at += n ? n : 1;
		put += n ? n : 4;
	}
	to[put] = 0;
	return at;
}

#define LOG_TEXT 512		/* longest text of a line; cleaned, up to four times that */

static bool log_ready(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	return poll(&p, 1, 0) == 1 && p.revents & POLLOUT;
}

/* Cleans the text and writes one line with one call.  `end` ends a client's line, which
 * may wait; NULL: a line of the master, which never waits.  False if it is not written. */
static bool log_put(enum tp_level level, bool to_syslog, const char *text, const char *end)
{
	char line[4 * LOG_TEXT + 64];
	size_t n = end ? 0 : (size_t)snprintf(line, 64, "sshmux: ");
	if (!end && g.log.lost)
		n += (size_t)snprintf(line + n, 48, "(%u line%s lost) ", (unsigned)g.log.lost,
			PLURAL(g.log.lost));
	tp_clean(text, strnlen(text, LOG_TEXT), false, line + n, sizeof line - n - 2);
	if (to_syslog && log_to_syslog(level, line + n))
		return true;
	n += strlen(line + n);
	n += (size_t)snprintf(line + n, 3, "%s", end ? end : "\n");
	int fd = g.log.fd ? g.log.fd : STDERR_FILENO;
	return (end || log_ready(fd)) && write(fd, line, n) == (ssize_t)n;
}

/* Logs a line; one that stderr does not take at once is lost and counted. */
static void log_line(enum tp_level level, const char *text)
{
	if ((int)level <= g.log.level)
		g.log.lost = log_put(level, g.log.syslog, text, NULL) ? 0 : g.log.lost + 1;
}

static PRINTF(2, 3) void log_at(enum tp_level level, const char *format, ...)
{
	if ((int)level > g.log.level)
		return;
	char text[LOG_TEXT];
	FORMAT(text, format);
	log_line(level, text);
}

/* The level of a line about `what`: TP_ERROR for the first one on a connection. */
static enum tp_level log_once(enum log_often what)
{
	if (g.log.often[what] < UINT16_MAX)
		g.log.often[what]++;
	return g.log.often[what] == 1 ? TP_ERROR : TP_DEBUG;
}

/* A connection has ended: logs the counts of log_once(). */
static void log_counts(void)
{
	static const char *const names[] = {
		"agent or X11 forwarding that no session asked for",
		"X11 connections with wrong authentication", "channels that the server refused",
		"connections of other users", "connections beyond MaxPerUser",
		"requests that ControlAllow refused"
	};
	for (int i = 0; i < LOG_OFTEN; i++)
		if (g.log.often[i] > 1)
			log_at(TP_ERROR, "%s: %u on this connection",
				names[i < LOG_DENIED ? i : LOG_DENIED], (unsigned)g.log.often[i]);
	memset(g.log.often, 0, sizeof g.log.often);
}

/* The transport logs through this (port/transport.h).  When logins fail in a row, the
 * later failures are logged at TP_VERBOSE. */
void tp_log(enum tp_level level, const char *line)
{
	log_line(g.lk.failures > 0 && level < TP_VERBOSE ? TP_VERBOSE : level, line);
}

/* An invariant is broken: the program cannot go on. */
static void log_abort(const char *what)
{
	log_at(TP_ERROR, "internal error: %s", what);
	abort();
}

struct op_choice { const char *name; int value; };

/* Logs lines up to this level from now on. */
static void log_upto(enum tp_level level)
{
	g.log.level = level;
}

/* -E: lines go to fd from now on; -y: to syslogd, if fd is -1. */
static void log_to(int fd)
{
	if (fd < 0)
		g.log.syslog = true;
	else
		g.log.fd = fd;
}

static const struct op_choice log_levels[] = {	/* indices into log_kinds */
	{ "SILENT", 0 }, { "QUIET", 0 }, { "FATAL", 1 }, { "ERROR", 2 }, { "INFO", 3 },
	{ "VERBOSE", 4 }, { "DEBUG", 5 }, { "DEBUG1", 5 },
	{ "DEBUG2", 6 }, { "DEBUG3", 7 }, { NULL, 0 }
};
static const uint8_t log_kinds[] = { TP_ERROR, TP_ERROR, TP_ERROR, TP_INFO, TP_VERBOSE, TP_DEBUG,
	TP_DEBUG, TP_DEBUG };

/* -O loglevel; false if no level has that name. */
static bool log_set_level(struct str name)
{
	for (const struct op_choice *l = log_levels; l->name; l++)
		if (strlen(l->name) == name.len && strncasecmp(l->name, (const char *)name.p,
			name.len) == 0) {
			log_upto(log_kinds[l->value]);
			return true;
		}
	return false;
}

/* ===== rn_ ================================================================
 * The run of the master: its clock (ms), random numbers for back-off, whether the next
 * turn follows at once, and how the run ends.  Any section may call it.
 * Calls nobody. */

/* Milliseconds of the monotonic clock; never 0. */
static int64_t rn_clock(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000 + 1;
}

/* Fills n bytes with random ones from the kernel; false if that fails. */
static bool rn_bytes(void *to, size_t n)
{
	int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
	bool ok = fd >= 0 && read(fd, to, n) == (ssize_t)n;
	if (fd >= 0)
		close(fd);
	return ok;
}

/* A number below n (1..2^31), good enough to spread retries. */
static uint32_t rn_random(uint32_t n)
{
	static uint32_t state;		/* xorshift */
	/* identical routers boot with equal clocks and pids: ask the kernel */
	if (state == 0) {
		if (!rn_bytes(&state, sizeof state))
			state = (uint32_t)rn_clock() * 2654435761u ^ (uint32_t)getpid();
		state |= 1;
	}
	state ^= state << 13;
	state ^= state >> 17;
	state ^= state << 5;
	return state % n;
}

/* Exponential back-off with full jitter: a random delay in ms.  Its maximum is `least`
 * seconds, doubled with each try, but not above `most` seconds. */
static int64_t rn_backoff(uint32_t tries, int64_t least, int64_t most)
{
	int64_t cap = least << (tries < 16 ? tries : 16);
	return 1 + rn_random((uint32_t)((cap < most ? cap : most) * 1000));
}

/* The next poll() must not wait: there is work that no descriptor announces. */
static void rn_again(void)
{
	g.rn.again = true;
}

static void rn_waits(void)
{
	g.rn.again = false;
}

/* Requests the end, with this exit status, unless an earlier request ends sooner. */
static void rn_stop(enum rn_stop when, int exit_code)
{
	if (when < g.rn.stop)
		return;
	g.rn.stop = when;
	g.rn.exit_code = exit_code;
}

/* ===== ev_ ================================================================
 * History: the last EVENTS events, and the peak use of each table.  Any section may
 * add to it; st_ and hk_ read it.
 * Calls nobody. */

/* The time in seconds, for ages; never 0. */
static uint32_t ev_seconds(void)
{
	return (uint32_t)(g.now / 1000) + 1;
}

/* The master begins. */
static void ev_begin(void)
{
	g.ev.begun = ev_seconds();
}

/* Records e in place of the oldest event.  `text` is cut to EVENT_TEXT. */
static void ev_add(struct event e, const char *text)
{
	struct event *to = &g.ev.slot[g.ev.next++ % EVENTS];
	e.at = g.now;
	snprintf(e.text, sizeof e.text, "%s", text);
	*to = e;
}

/* An entry of a table was taken: n are in use now. */
static void ev_used(enum table which, uint32_t n)
{
	g.ev.full[which] = false;
	if (n > g.ev.peak[which])
		g.ev.peak[which] = n;
}

/* A table is full: the first time is an event, later ones are only counted, once until
 * an entry is taken again: who waits may ask in each turn. */
static void ev_full(enum table which, const char *name)
{
	if (!g.ev.full[which] && g.ev.refused[which]++ == 0)
		ev_add((struct event){ .kind = EV_LIMIT }, name);
	g.ev.full[which] = true;
}

/* ===== rl_ ================================================================
 * RateLimit: one token bucket for what we send, and one for the windows we promise,
 * which bound what the server sends.  Each fills with time, up to RATE_MS of its rate.
 * Interactive senders are not limited and take nothing.
 * Calls nobody. */

/* A byte in the buckets' unit: what one bit per second moves in one ms. */
#define RL_BYTE 8000
#define RL_LEAST 512			/* bytes; fewer are not worth a message */

/* Bytes that the rate allows in `ms`; at least enough for a message or two. */
static int64_t rl_bytes(enum rl_way way, int64_t ms)
{
	int64_t n = g.op.rate[way] * ms / RL_BYTE;
	return n > 4 * RL_LEAST ? n : 4 * RL_LEAST;
}

/* A turn begins: fills the buckets. */
static void rl_fill(void)
{
	int64_t ms = g.now - g.rl.at;
	g.rl.at = g.now;
	for (int way = 0; way < RL_WAYS; way++) {
		int64_t most = rl_bytes((enum rl_way)way, RATE_MS) * RL_BYTE;
		int64_t filled = ms < 60000 ? g.rl.level[way] + g.op.rate[way] * ms : most;
		g.rl.level[way] = filled < most ? filled : most;
		g.rl.denied[way] = false;
	}
}

static bool rl_is_limited(enum rl_way way, const struct sender *s)
{
	return g.op.rate[way] > 0 && s->weight != SD_INTERACTIVE;
}

/* How many of n bytes s may move now.  Short input may run into debt. */
static uint32_t rl_room(enum rl_way way, const struct sender *s, uint32_t n)
{
	if (!rl_is_limited(way, s))
		return n;
	int64_t room = g.rl.level[way] / RL_BYTE;
	if (way == RL_UP && s->input == SD_SHORT)
		room += rl_bytes(way, RATE_MS);
	if (room >= RL_LEAST || room >= n)
		return room < n ? (uint32_t)room : n;
	g.rl.denied[way] = true;
	return 0;
}

/* s has moved n bytes; a negative n returns some. */
static void rl_take(enum rl_way way, const struct sender *s, int64_t n)
{
	if (rl_is_limited(way, s))
		g.rl.level[way] -= n * RL_BYTE;
}

/* When a denied sender may try again; 0 if none was denied. */
static int64_t rl_due(void)
{
	int64_t due = 0;
	for (int way = 0; way < RL_WAYS; way++) {
		int64_t lacks = rl_bytes((enum rl_way)way, RATE_MS) / 2 * RL_BYTE - g.rl.level[way];
		if (!g.rl.denied[way])
			continue;
		int64_t at = g.now + (lacks > 0 ? lacks / g.op.rate[way] + 1 : 1);
		due = due && due < at ? due : at;
	}
	return due;
}

/* ===== sl_ ================================================================
 * The slots of the tables.  Slots refer to each other by index, -1 for none.  This
 * section turns an index into a slot (NULL if it is not in use) and a slot into its
 * index.  The loops visit only slots in use, and may free the one they visit.
 * Calls nobody. */

#define for_each_channel(c) \
	for (struct channel *c = g.ch.slot; c < g.ch.slot + g.ch.end; c++) \
		if (c->state == CH_FREE) { } else
#define for_each_client(c) \
	for (struct client *c = g.mc.slot; c < g.mc.slot + g.mc.end; c++) \
		if (c->phase == MX_FREE) { } else
#define for_each_forward(f) \
	for (struct forward *f = g.fw.slot; f < g.fw.slot + g.fw.end; f++) \
		if (f->state == FW_FREE) { } else
#define for_each_connector(k) \
	for (struct connector *k = g.cn.slot; k < g.cn.slot + g.cn.end; k++) \
		if (k->state == CN_IDLE) { } else
#define for_each_program(p) \
	for (struct program *p = g.ex.slot; p < g.ex.slot + PROGRAMS; p++) \
		if (p->state == EX_IDLE) { } else

/* The first bit from i on that is set, or `end`. */
static int sl_bit(const uint32_t *bits, int i, int end)
{
	for (; i < end; i = (i / 32 + 1) * 32) {
		uint32_t word = bits[i / 32] >> i % 32;
		if (word)
			return i + __builtin_ctz(word) < end ? i + __builtin_ctz(word) : end;
	}
	return end;
}

static struct channel *sl_channel(int64_t i)
{
	return i >= 0 && i < g.ch.end && g.ch.slot[i].state != CH_FREE ? &g.ch.slot[i] : NULL;
}

#define for_each_bit(i, bits, n) \
	for (int i = sl_bit(bits, 0, n); i < (n); i = sl_bit(bits, i + 1, n))

static int16_t sl_channel_index(const struct channel *c)
{
	return (int16_t)(c - g.ch.slot);
}

static struct client *sl_client(int i)
{
	return i >= 0 && i < g.mc.end && g.mc.slot[i].phase != MX_FREE ? &g.mc.slot[i] : NULL;
}

static int16_t sl_client_index(const struct client *c)
{
	return (int16_t)(c - g.mc.slot);
}

static struct forward *sl_forward(int i)
{
	return i >= 0 && i < FORWARDS && g.fw.slot[i].state != FW_FREE ? &g.fw.slot[i] : NULL;
}

static int16_t sl_forward_index(const struct forward *f)
{
	return (int16_t)(f - g.fw.slot);
}

static struct connector *sl_connector(int i)
{
	return i >= 0 && i < CONNECTORS && g.cn.slot[i].state != CN_IDLE ? &g.cn.slot[i] : NULL;
}

/* ===== buf_ ===============================================================
 * Cursors over messages, big-endian as in SSH and mux, and strings inside them.  They
 * own no memory; an access out of bounds sets `bad` (struct buf).
 * Calls log_. */

static struct buf buf_over(void *p, size_t len)
{
	return (struct buf){ .p = p, .len = len };
}

/* Takes the next n bytes; NULL if there are fewer. */
static uint8_t *buf_take(struct buf *b, size_t n)
{
	if (b->bad || n > b->len - b->pos) {
		b->bad = true;
		return NULL;
	}
	b->pos += n;
	return b->p + b->pos - n;
}

static uint32_t buf_u32_at(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void buf_set_u32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}

static uint8_t buf_get_u8(struct buf *b)
{
	const uint8_t *p = buf_take(b, 1);
	return p ? *p : 0;
}

static uint32_t buf_get_u32(struct buf *b)
{
	const uint8_t *p = buf_take(b, 4);
	return p ? buf_u32_at(p) : 0;
}

static struct str buf_get_str(struct buf *b)
{
	uint32_t len = buf_get_u32(b);
	const uint8_t *p = buf_take(b, len);
	return p ? (struct str){ p, len } : (struct str){ (const uint8_t *)"", 0 };
}

/* Reads a string of a mux message; an embedded NUL makes the message malformed. */
static struct str buf_get_text(struct buf *b)
{
	struct str s = buf_get_str(b);
	if (memchr(s.p, 0, s.len))
		b->bad = true;
	return s;
}

static void buf_put_u8(struct buf *b, uint8_t v)
{
	uint8_t *p = buf_take(b, 1);
	if (p)
		*p = v;
}

static void buf_put_u32(struct buf *b, uint32_t v)
{
	uint8_t *p = buf_take(b, 4);
	if (p)
		buf_set_u32(p, v);
}

static void buf_put_bytes(struct buf *b, const void *from, size_t n)
{
	uint8_t *p = buf_take(b, n);
	if (p)
		memcpy(p, from, n);
}

static void buf_put_str(struct buf *b, struct str s)
{
	buf_put_u32(b, s.len);
	buf_put_bytes(b, s.p, s.len);
}

/* Begins a mux frame: a length, a type and a word (request or session id); returns where.
 * buf_end() fills in the length. */
static size_t buf_frame(struct buf *b, uint32_t type, uint32_t word)
{
	size_t start = b->pos;
	buf_put_u32(b, 0);
	buf_put_u32(b, type);
	buf_put_u32(b, word);
	return start;
}

/* The length at `start` becomes that of what follows it. */
static void buf_end(struct buf *b, size_t start)
{
	if (!b->bad)
		buf_set_u32(b->p + start, (uint32_t)(b->pos - start) - 4);
}

static struct str str_of(const char *s)
{
	return (struct str){ (const uint8_t *)s, (uint32_t)strlen(s) };
}

static void buf_put_text(struct buf *b, const char *s)
{
	buf_put_str(b, str_of(s));
}

/* Matches patterns with * and ?, as in ssh's options. */
static bool str_matches(struct str s, const char *pattern)
{
	const char *star = NULL;	/* after the last '*' */
	uint32_t at = 0, mark = 0;	/* how far that '*' has matched */
	while (at < s.len) {
		if (*pattern == '*') {
			star = ++pattern;
			mark = at;
		} else if (*pattern && (*pattern == '?' || (uint8_t)*pattern == s.p[at])) {
			pattern++;
			at++;
		} else if (star) {
			pattern = star;
			at = ++mark;
		} else
			return false;
	}
	return pattern[strspn(pattern, "*")] == 0;
}

static bool str_is(struct str s, const char *t)
{
	return s.len == strlen(t) && memcmp(s.p, t, s.len) == 0;
}

/* Appends a formatted line, with foreign text made harmless by tp_clean().  A line that does
 * not fit is left out whole. */
static PRINTF(2, 3) void buf_print(struct buf *b, const char *format, ...)
{
	char line[2 * LOG_TEXT], *end;
	size_t left = b->len - b->pos;
	va_list ap;
	va_start(ap, format);
	int n = vsnprintf(line, sizeof line, format, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof line)
		return;
	end = line + n;			/* the line end itself is not cleaned */
	end -= end > line && end[-1] == '\n';
	end -= end > line && end[-1] == '\r';
	size_t text = (size_t)(end - line), rest = strlen(end);
	if (left <= rest || tp_clean(line, text, false, (char *)b->p + b->pos, left - rest) < text)
		return;
	b->pos += strlen((char *)b->p + b->pos);
	memcpy(b->p + b->pos, end, rest);
	b->pos += rest;
}

/* ===== pool_ ==============================================================
 * The window pool: WINDOW_BLOCKS blocks of B = WINDOW_BLOCK bytes for what readers
 * have not taken yet.  A window is a promise that we must always be able to keep.  So
 * a channel is charged, in blocks, for what is buffered and for what may still come:
 *
 *	bytes  = buffered + bytes taken from head blocks + advertised + 2 (B - 1)
 *	charge = bytes / B, rounded down
 *
 * 2 (B - 1) is what two streams may waste in partly filled tail blocks.  Bytes that
 * arrive move from `advertised` to `buffered`: `bytes`, and with it the charge, does
 * not change, and a channel never uses more than `charge` blocks.  So pool_put()
 * cannot fail as long as all charges fit into the pool.
 *
 * Every channel may always charge WINDOW_MIN_BLOCKS.  Beyond these it gets half of
 * F * F / N, where the others leave F of the N shared blocks free: a lone channel gets
 * half of them, a second one beside it an eighth.  SSH cannot take a window back.
 * So many channels that were busy once must leave a newcomer enough to work with, and
 * many that never were (pool_start()) must leave the busy ones enough.
 * Calls log_, ev_. */

static uint32_t pool_bytes(const struct channel *c)
{
	uint32_t n = c->window + 2 * (WINDOW_BLOCK - 1);
	for (int s = 0; s < CH_STREAMS; s++)
		if (c->queue[s].len)
			n += c->queue[s].len + c->queue[s].off;
	return n;
}

static uint32_t pool_extra(uint32_t charge)
{
	return charge > WINDOW_MIN_BLOCKS ? charge - WINDOW_MIN_BLOCKS : 0;
}

/* Updates the account after c's window or queues changed. */
static void pool_account(struct channel *c)
{
	uint32_t charge = c->state == CH_FREE ? 0 : pool_bytes(c) / WINDOW_BLOCK;
	g.pool.shared += pool_extra(charge) - pool_extra(c->charge);
	ev_used(TABLE_WINDOW_POOL, g.pool.shared);
	c->charge = (uint16_t)charge;
	if (g.pool.shared > WINDOW_BLOCKS - WINDOW_RESERVED)
		log_abort("window pool overdrawn");
}

/* Bytes that c may have buffered and advertised together, by the rule above. */
static uint32_t pool_limit(const struct channel *c)
{
	uint32_t all = WINDOW_BLOCKS - WINDOW_RESERVED,
		left = all - (g.pool.shared - pool_extra(c->charge));
	uint32_t blocks = WINDOW_MIN_BLOCKS + left * left / all / 2;	/* blocks have 16 bits */
	return blocks * WINDOW_BLOCK - 2 * (WINDOW_BLOCK - 1);
}

#define POOL_LEAST (WINDOW_MIN_BLOCKS * WINDOW_BLOCK - 2 * (WINDOW_BLOCK - 1))

/* The window in which a channel shows its speed: a small part of its limit. */
static uint32_t pool_small(const struct channel *c)
{
	uint32_t small = pool_limit(c) / WINDOW_SHARE;
	return small < POOL_LEAST ? POOL_LEAST : small < WINDOW_START ? small : WINDOW_START;
}

/* The shared blocks of channels that have had no data yet. */
static uint32_t pool_idle(void)
{
	uint32_t n = 0;
	for_each_channel(c)
		if (c->consumed == 0 && c->window == c->window_target)
			n += pool_extra(c->charge);
	return n;
}

/* The small window of a new channel.  Channels without data never hold more than
 * WINDOW_IDLE percent of the pool together, however many there are. */
static uint32_t pool_small_start(const struct channel *c)
{
	uint32_t most = (WINDOW_BLOCKS - WINDOW_RESERVED) * WINDOW_IDLE / 100,
		idle = pool_idle(), small = pool_small(c);
	uint32_t part = most > idle ? (most - idle) * WINDOW_BLOCK / WINDOW_SHARE : 0;
	part = part > POOL_LEAST ? part : POOL_LEAST;
	return small < part ? small : part;
}

/* The window that c begins with, and keeps until data comes: large until WINDOW_EARLY
 * percent of the pool are taken. */
static uint32_t pool_start(const struct channel *c)
{
	uint32_t early = (WINDOW_BLOCKS - WINDOW_RESERVED) * WINDOW_EARLY / 100,
		small = pool_small_start(c), limit = pool_limit(c);
	uint32_t start = g.pool.shared < early ? (early - g.pool.shared) * WINDOW_BLOCK : 0;
	start = start < WINDOW_START ? start : WINDOW_START;
	start = start < limit ? start : limit;
	return start > small ? start : small;
}

/* How many more bytes c may promise or buffer. */
static uint32_t pool_room(const struct channel *c)
{
	uint32_t held = pool_bytes(c) - 2 * (WINDOW_BLOCK - 1), limit = pool_limit(c);
	return limit > held ? limit - held : 0;
}

static uint16_t pool_take_block(void)
{
	uint16_t b = g.pool.free;
	if (b != NO_BLOCK)
		g.pool.free = g.pool.next[b];
	else if (g.pool.fresh < WINDOW_BLOCKS)
		b = g.pool.fresh++;
	else
		log_abort("window pool empty");
	return b;
}

/* Frees a block, at the end of the chain: the next queue then gets neighbours in order,
 * which pool_iov() joins. */
static void pool_give_block(uint16_t b)
{
	if (g.pool.free == NO_BLOCK)
		g.pool.free = b;
	else
		g.pool.next[g.pool.last] = b;
	g.pool.last = b;
	g.pool.next[b] = NO_BLOCK;
}

/* Appends n bytes that are already charged. */
static void pool_put(struct queue *q, const uint8_t *p, size_t n)
{
	while (n > 0) {
		if (q->len == 0) {
			q->head = q->tail = pool_take_block();
			q->off = q->end = 0;
		} else if (q->end == WINDOW_BLOCK) {
			uint16_t b = pool_take_block();
			g.pool.next[q->tail] = b;
			q->tail = b;
			q->end = 0;
		}
		size_t part = WINDOW_BLOCK - q->end;
		if (part > n)
			part = n;
		memcpy(g.pool.block[q->tail] + q->end, p, part);
		q->end = (uint16_t)(q->end + part);
		q->len += (uint32_t)part;
		p += part;
		n -= part;
	}
}

/* Points iov at the oldest bytes, at most WRITE_MOST of them in at most `max` pieces;
 * returns the number of pieces. */
static int pool_iov(const struct queue *q, struct iovec *iov, int max)
{
	int n = 0;
	uint32_t left = q->len < WRITE_MOST ? q->len : WRITE_MOST;
	uint16_t b = q->head, off = q->off;
	for (; left > 0 && n < max; off = 0) {
		uint32_t part = WINDOW_BLOCK - off;
		if (part > left)
			part = left;
		uint8_t *p = g.pool.block[b] + off;
		if (n > 0 && (uint8_t *)iov[n - 1].iov_base + iov[n - 1].iov_len == p)
			iov[n - 1].iov_len += part;	/* join neighbours */
		else
			iov[n++] = (struct iovec){ p, part };
		left -= part;
		if (left > 0)
			b = g.pool.next[b];
	}
	return n;
}

/* Drops the oldest n bytes and frees their blocks. */
static void pool_drop(struct queue *q, uint32_t n)
{
	while (n > 0) {
		uint32_t part = WINDOW_BLOCK - q->off;
		if (part > q->len)
			part = q->len;
		if (part > n)
			part = n;
		q->off = (uint16_t)(q->off + part);
		q->len -= part;
		n -= part;
		if (q->off == WINDOW_BLOCK || q->len == 0) {
			uint16_t b = q->head;
			q->head = g.pool.next[b];
			q->off = 0;
			pool_give_block(b);
		}
	}
}

/* ===== req_ ===============================================================
 * Request bodies, kept until their channel is open: REQUESTS slots in REQUEST_POOL
 * bytes, each body in exactly its size.  Few are long and none lives long, so first
 * fit, without moving, is enough.  The caller frees its slot.
 * Calls ev_, buf_. */

static uint8_t *req_data(int slot)
{
	return g.req.memory + g.req.slot[slot].at;
}

/* A slot for len bytes (1..REQUEST_MAX); -1 if there is no room now. */
static int req_alloc(uint32_t len)
{
	int slot = -1;
	for (int i = 0; i < REQUESTS && slot < 0; i++)
		if (g.req.slot[i].len == 0)
			slot = i;
	uint32_t at = 0;
	for (int i = 0; slot >= 0 && i < REQUESTS; i++) {
		const struct req *r = &g.req.slot[i];
		if (r->len > 0 && r->at < at + len && at < r->at + r->len) {
			at = r->at + r->len;
			i = -1;		/* moved up: look at all again, at most REQUESTS times */
		}
	}
	if (slot < 0 || len > REQUEST_POOL - at) {
		ev_full(TABLE_REQUESTS, "REQUESTS");
		return -1;
	}
	ev_used(TABLE_REQUESTS, (uint32_t)slot + 1);
	g.req.slot[slot] = (struct req){ .at = at, .len = len };
	return slot;
}

/* The body of c's present request. */
static uint8_t *req_body(const struct client *c)
{
	return c->request >= 0 ? req_data(c->request) : (uint8_t *)(uintptr_t)c->small;
}

static void req_free(int16_t *slot)
{
	if (*slot >= 0)
		g.req.slot[*slot].len = 0;
	*slot = -1;
}

struct req_session {
	uint32_t want_tty, want_x11, want_agent, subsystem, escape;
	struct str term, command;
};

/* Reads the fixed part of a session request and leaves `b` at the environment.
 * False if malformed. */
static bool req_session(struct buf *b, struct req_session *s)
{
	buf_get_str(b);			/* reserved */
	s->want_tty = buf_get_u32(b);
	s->want_x11 = buf_get_u32(b);
	s->want_agent = buf_get_u32(b);
	s->subsystem = buf_get_u32(b);
	s->escape = buf_get_u32(b);
	s->term = buf_get_text(b);
	s->command = buf_get_text(b);
	struct buf env = *b;
	while (!env.bad && env.pos < env.len)
		buf_get_text(&env);
	return !b->bad && !env.bad;
}

/* ===== fd_ ================================================================
 * Descriptors: flags, reading, writing, passing.  Reading and writing return the bytes
 * moved (> 0), FD_AGAIN for "not now", FD_END for end of file, or FD_ERROR with errno.
 * Calls log_. */

enum { FD_AGAIN = -1, FD_END = 0, FD_ERROR = -2, FD_LOST = -3 };
#define FD_INTERRUPTS 8		/* as many EINTR in a row count as "not now" */
#define FD_TTY_CHUNK 512	/* what a terminal takes at once after POLLOUT */

/* n = call, repeated while a signal interrupts it, at most FD_INTERRUPTS times. */
#define FD_CALL(n, call) \
	for (int tries_ = 0; \
		tries_ < FD_INTERRUPTS && ((n) = (call)) < 0 && errno == EINTR; tries_++)

static ssize_t fd_result(ssize_t n)
{
	if (n >= 0)
		return n;
	return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? FD_AGAIN : FD_ERROR;
}

static ssize_t fd_read(int fd, void *p, size_t len)
{
	ssize_t n = -1;
	FD_CALL(n, read(fd, p, len));
	return fd_result(n);
}

static ssize_t fd_writev(int fd, const struct iovec *iov, int pieces)
{
	ssize_t n = -1;
	FD_CALL(n, writev(fd, iov, pieces));
	return n == 0 ? FD_AGAIN : fd_result(n);
}

static ssize_t fd_write(int fd, const void *p, size_t len)
{
	struct iovec iov = { (void *)(uintptr_t)p, len };
	return fd_writev(fd, &iov, 1);
}

static void fd_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void fd_nonblock(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	if (flags >= 0)
		fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

/* Puts /dev/null in the place of fd; false if that fails. */
static bool fd_null(int fd)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	bool done = null >= 0 && dup2(null, fd) >= 0;
	fd_close(&null);
	return done;
}

/* Counts clients without a session.  FD_SPARE of them always fit (FD_OWN): a master
 * can still answer and be stopped when its sessions use all other descriptors. */
#define FD_SPARE 4
static int fd_idle(void)
{
	int n = 0;
	for_each_client(c)
		n += c->phase < MX_PROXY_HEAD && c->channel < 0 && c->n_fds == 0;
	return n;
}

/* A descriptor of channel c; -1 if it does not have that one, or no longer. */
static int fd_of(const struct channel *c, int end)
{
	return c->state == CH_FREE || c->kind == CH_PROXY ? -1 : c->end[end].fd;
}

/* Descriptors that the tables hold, and room for those that clients are passing. */
static int fd_used(void)
{
	int idle = fd_idle(), n = idle > FD_SPARE ? -FD_SPARE : -idle;
	for_each_client(c)
		n += 1 + (c->n_fds > 0 ? MX_DESCRIPTOR_MAX : 0);
	for_each_channel(c) {
		int in = fd_of(c, CH_IN), out = fd_of(c, CH_OUT);
		n += (in >= 0) + (out >= 0 && out != in) + (fd_of(c, CH_ERR) >= 0);
	}
	for_each_forward(f)
		for (int k = 0; k < FW_SOCKETS; k++)
			n += f->socket[k] >= 0;
	for_each_connector(o)
		n++;
	return n;
}

/* Whether the tables may hold n more descriptors (RLIMIT_NOFILE). */
static bool fd_room(int n)
{
	return g.fd.most == 0 || fd_used() + n <= g.fd.most;
}
#define FD_SESSION (1 + MX_DESCRIPTOR_MAX)	/* a client with a session: others leave room */

/* Whether the kernel gives us another descriptor: the limit may have been lowered. */
static bool fd_more(void)
{
	int fd = fcntl(STDIN_FILENO, F_DUPFD, 0);
	if (fd < 0)
		return errno == EBADF;
	close(fd);
	return true;
}

/* At start: raises the limit to what the tables need, or the system allows. */
static void fd_raise_limit(void)
{
	unsigned long files = os_allow_descriptors(FD_LIMIT);
	if (files >= FD_LIMIT)
		return;
	int left = (int)files - FD_OWN;
	g.fd.most = left > FD_SESSION ? left : FD_SESSION;
	log_at(g.op.control_path ? TP_INFO : TP_VERBOSE,
		"no more than %d descriptors (ulimit -n): %d session%s at once", (int)files,
		g.fd.most / FD_SESSION, PLURAL(g.fd.most / FD_SESSION));
}

/* accept(); -1 if there is no connection.  After an error that may last, *after says
 * when to try again: poll() would report the listener again at once. */
static int fd_accept(int listener, int64_t *after)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0 && errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
		*after = g.now + ACCEPT_MS;
	return fd;
}

/* Takes over a descriptor that a client passed, so that we never block on it
 * (FDS-nonblock): we use a socket with MSG_DONTWAIT, a pipe or terminal through a
 * description of our own, and what else may wait with O_NONBLOCK, cleared again later.
 * True if nothing can be read from it: /dev/null. */
static bool fd_borrow(struct passed *d, int fd)
{
	struct stat st;
	*d = (struct passed){ .fd = fd };
	if (fstat(fd, &st) != 0)
		return false;
	d->inode = (uint32_t)st.st_ino;
	d->socket = S_ISSOCK(st.st_mode);
	d->nonblock = d->socket || os_never_waits(&st);
	if (d->nonblock)
		return os_is_null(&st);
	int flags = fcntl(fd, F_GETFL), own = flags < 0 ? -1 : os_reopen(fd, flags, &st);
	if (own >= 0) {
		close(fd);
		d->fd = own;
		d->nonblock = true;
	}
	if (flags < 0 || d->nonblock)
		return false;
	d->tty = isatty(fd);
	d->nonblock = !d->tty;
	if (!d->tty && !(flags & O_NONBLOCK))
		d->restore = fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0;
	return false;
}

/* Read and write a descriptor that fd_borrow() took over, or a socket of ours. */
static ssize_t fd_read_passed(const struct passed *d, void *p, size_t len)
{
	ssize_t n = -1;
	if (!d->socket)
		return fd_read(d->fd, p, len);
	FD_CALL(n, recv(d->fd, p, len, MSG_DONTWAIT));
	return fd_result(n);
}

static ssize_t fd_write_passed(const struct passed *d, const struct iovec *iov, int pieces)
{
	struct msghdr m = { .msg_iov = (struct iovec *)(uintptr_t)iov,
		.msg_iovlen = (size_t)pieces };
	ssize_t n = -1;
	if (!d->socket)
		return fd_writev(d->fd, iov, pieces);
	FD_CALL(n, sendmsg(d->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL));
	return n == 0 ? FD_AGAIN : fd_result(n);
}

/* O_NONBLOCK was just cleared on d's description.  If another descriptor of ours shares
 * it, the first such one sets the flag again, and must clear it in turn. */
static void fd_inherit(const struct passed *d)
{
	for_each_channel(c)
		for (int k = 0; k < CH_ENDS; k++) {
			struct passed *o = &c->end[k];
			if (fd_of(c, k) < 0 || o == d || !o->nonblock || o->inode != d->inode)
				continue;
			int flags = fcntl(o->fd, F_GETFL);
			if (flags < 0 || flags & O_NONBLOCK)
				continue;
			o->restore = fcntl(o->fd, F_SETFL, flags | O_NONBLOCK) == 0;
			return;
		}
}

/* Restores the flags of a passed descriptor and closes our copy. */
static void fd_return(struct passed *d)
{
	if (d->fd >= 0 && d->restore) {
		int flags = fcntl(d->fd, F_GETFL);
		if (flags >= 0)
			fcntl(d->fd, F_SETFL, flags & ~O_NONBLOCK);
		fd_inherit(d);
	}
	d->restore = false;
	fd_close(&d->fd);
}

/* An IP address: its bytes, by its family. */
static void *fd_ip(const void *address)
{
	struct sockaddr_in6 *v6 = (void *)(uintptr_t)address;
	struct sockaddr_in *v4 = (void *)(uintptr_t)address;
	return v4->sin_family == AF_INET6 ? (void *)&v6->sin6_addr : (void *)&v4->sin_addr;
}

/* Begins an IP address, for its bytes to be filled in; returns its length. */
static socklen_t fd_ip_begin(struct sockaddr_storage *a, int family, uint32_t port)
{
	*a = (struct sockaddr_storage){ .ss_family = (sa_family_t)family };
	/* sin6_port has the same offset */
	((struct sockaddr_in *)(void *)a)->sin_port = htons((uint16_t)port);
	return family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

/* Writes an IP address as text; returns the port, -1 if it is an address of another kind. */
static int fd_ip_text(const struct sockaddr_storage *a, char to[INET6_ADDRSTRLEN])
{
	if (a->ss_family != AF_INET6 && a->ss_family != AF_INET)
		return -1;
	inet_ntop(a->ss_family, fd_ip(a), to, INET6_ADDRSTRLEN);
	return ntohs(((const struct sockaddr_in *)(const void *)a)->sin_port);
}

/* "1.2.3.4:22" or "[::1]:22". */
static void fd_address(const struct sockaddr_storage *a, char *to, size_t size)
{
	char ip[INET6_ADDRSTRLEN];
	int port = fd_ip_text(a, ip);
	if (port < 0)
		snprintf(to, size, "local");
	else
		snprintf(to, size, a->ss_family == AF_INET6 ? "[%s]:%d" : "%s:%d", ip, port);
}

/* Closes all descriptors from 3 on except these. */
static void fd_close_others(int keep, int also)
{
	for (int fd = 3; fd < FD_LIMIT; fd++)
		/* exec() closes g.us.early */
		if (fd != keep && fd != also && fd != g.us.early)
			close(fd);
	os_close_from(FD_LIMIT);
}

/* Restores all passed descriptors; called on every way out of the process. */
static void fd_return_all(void)
{
	for_each_channel(c)
		for (int k = 0; k < CH_ENDS; k++)
			if (fd_of(c, k) >= 0)
				fd_return(&c->end[k]);
}

/* Sends the n bytes at p with a descriptor; returns what sendmsg() does. */
static ssize_t fd_send_with(int to, int fd, const void *p, size_t n, int flags)
{
	union { char space[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
	struct iovec iov = { (void *)(uintptr_t)p, n };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
		.msg_controllen = sizeof control };
	memset(&control, 0, sizeof control);
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof fd);
	ssize_t sent = -1;
	FD_CALL(sent, sendmsg(to, &m, flags | MSG_NOSIGNAL));
	return sent;
}

/* Receives up to n bytes; *fd becomes the descriptor that came with them.  It is FD_ERROR
 * unless it was exactly one, FD_LOST if no number was free for it: fd_more() asks
 * for one only.  Returns what recvmsg() does. */
static ssize_t fd_receive_with(int from, int *fd, void *p, size_t n)
{
	union { char space[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
	struct iovec iov = { p, n };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
		.msg_controllen = CMSG_LEN(sizeof(int)) };
	ssize_t got = -1;
	FD_CALL(got, recvmsg(from, &m, MSG_CMSG_CLOEXEC));
	const struct cmsghdr *c = got > 0 ? CMSG_FIRSTHDR(&m) : NULL;
	*fd = got > 0 && !c && m.msg_flags & MSG_CTRUNC ? FD_LOST : FD_ERROR;
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
		c->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(fd, CMSG_DATA(c), sizeof *fd);
	if (c && m.msg_flags & MSG_CTRUNC) {	/* there were more: the kernel closed them */
		fd_close(fd);
		*fd = FD_ERROR;
	}
	return got;
}

/* Receives one byte with one descriptor, as PROTOCOL.mux passes them.  Returns 1 with
 * *fd, FD_AGAIN or FD_END; FD_ERROR or FD_LOST as fd_receive_with() tells. */
static ssize_t fd_receive(int from, int *fd)
{
	uint8_t byte;
	ssize_t n = fd_receive_with(from, fd, &byte, 1);
	return n > 0 && *fd < 0 ? *fd : fd_result(n);
}

/* ===== sp_ ================================================================
 * Starts the resolver and the programs that options name.  A confined master
 * (port/confine.h) can neither fork() nor exec(): a helper does, forked before the
 * master is confined.  The helper runs only what its own copy of the options names, so
 * an attacker who controls the master cannot run any other program.
 * Calls log_, rn_, fd_. */

/* Gives a program the signal settings that it would have without us. */
static void sp_default_signals(void)
{
	sigset_t none;
	sigemptyset(&none);
	signal(SIGPIPE, SIG_DFL);
	signal(SIGXFSZ, SIG_DFL);
	signal(SIGTTIN, SIG_DFL);
	signal(SIGTTOU, SIG_DFL);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* In the child.  It closes our descriptors, so that a slow name server does not keep
 * clients' descriptors open. */
static void sp_resolve(const char *host, int family, int out)
{
	fd_close_others(out, out);
	struct addrinfo hints = { .ai_family = family, .ai_socktype = SOCK_STREAM }, *list = NULL;
	struct cn_reply r = { 0 };
	r.error = getaddrinfo(host, NULL, &hints, &list);
	for (struct addrinfo *a = list; r.error == 0 && a && r.n < ADDRESSES; a = a->ai_next) {
		struct cn_address *to = &r.address[r.n];
		bool v6 = a->ai_family == AF_INET6;
		if (!v6 && a->ai_family != AF_INET)
			continue;
		to->family = (sa_family_t)a->ai_family;
		memcpy(to->bytes, fd_ip(a->ai_addr), v6 ? 16 : 4);
		const struct sockaddr_in6 *from = (const void *)a->ai_addr;
		to->scope = v6 ? from->sin6_scope_id : 0;
		r.n++;
	}
	ssize_t n = write(out, &r, sizeof r);	/* less than PIPE_BUF: whole or not at all */
	_exit(n == (ssize_t)sizeof r ? 0 : 1);
}

/* ProxyCommand, LocalCommand: runs `before` and the command with the user's shell. */
static void sp_shell(const char *before, const char *command)
{
	char line[PATH_MAX * 2 + 1200];
	const char *shell = getenv("SHELL");
	if (!shell || !*shell)
		shell = "/bin/sh";
	snprintf(line, sizeof line, "%s%s", before, command);
	sp_default_signals();
	fd_close_others(0, 0);
	execl(shell, shell, "-c", line, (char *)NULL);
	_exit(127);
}

static void sp_proxy(int fd)
{
	if (dup2(fd, STDIN_FILENO) < 0 || dup2(fd, STDOUT_FILENO) < 0)
		_exit(127);
	/* as in ssh: it outlives our caller, so it must not keep the caller's stderr */
	if (g.op.persist >= 0 && g.log.level < TP_DEBUG)
		fd_null(STDERR_FILENO);
	sp_shell("exec ", g.op.proxy_command);
}

/* The program inherits no descriptor of ours and no ignored signal.  It gets its own
 * process group, so that what it starts ends with it. */
static void sp_exec(const char *const argv[], const char *const variables[], int out)
{
	sp_default_signals();
	setpgid(0, 0);
	if (!fd_null(STDIN_FILENO) || dup2(out, STDOUT_FILENO) < 0)
		_exit(127);
	fd_close_others(0, 0);
	for (; variables && *variables; variables++)
		putenv((char *)(uintptr_t)*variables);
	execvp(argv[0], (char *const *)(uintptr_t)argv);
	_exit(127);
}

enum sp_kind { SP_RESOLVE, SP_PROXY, SP_LOCAL, SP_PROGRAM };
#define SP_WORDS 12		/* a program's words and variables */

/* A job to start.  `text`: a host, or a program's words and then its variables. */
struct sp_job {
	uint8_t kind;			/* enum sp_kind */
	uint8_t words, variables;
	int32_t family;
	uint32_t number;		/* which answer is its own: one may come too late */
	uint32_t len;
	char text[JOB_TEXT];
};

/* What the helper answers. */
struct sp_answer { uint32_t number; int32_t pid, error; };

static bool sp_put(struct sp_job *j, const char *text)
{
	size_t n = strlen(text) + 1;
	if (n > sizeof j->text - j->len || j->words + j->variables >= SP_WORDS)
		return false;
	memcpy(j->text + j->len, text, n);
	j->len += (uint32_t)n;
	return true;
}

/* Whether the helper may run it: a program from the options, with variables of ours. */
static bool sp_is_known(const char *program, const char *const variables[])
{
	const char *ask = getenv("SSH_ASKPASS");
	const char *const known[] = { g.op.event_command, g.op.xauth ? g.op.xauth : "xauth",
		ask && *ask ? ask : ASKPASS };
	bool found = false;
	for (size_t i = 0; i < LENGTH(known); i++)
		found |= known[i] && strcmp(program, known[i]) == 0;
	for (; found && *variables; variables++)
		found = strncmp(*variables, "SSHMUX_", 7) == 0 ||
			strncmp(*variables, "SSH_ASKPASS_PROMPT=", 19) == 0;
	return found;
}

/* In our child or the helper's: does the job, does not return. */
static void sp_run(struct sp_job *j, int fd, bool helper)
{
	const char *list[SP_WORDS + 2] = { NULL }, **variables = list + j->words + 1;
	char *p = j->text, *end = j->text + j->len;
	for (int i = 0; i < j->words + j->variables && p < end; i++, p += strlen(p) + 1)
		list[i + (i >= j->words)] = p;
	switch ((enum sp_kind)j->kind) {
	case SP_RESOLVE:	sp_resolve(j->text, j->family, fd); break;
	case SP_PROXY:		sp_proxy(fd); break;
	case SP_LOCAL:		sp_shell("", g.op.local_command); break;
	case SP_PROGRAM:
		if (!helper || (list[0] && sp_is_known(list[0], variables)))
			sp_exec(list, variables, fd);
	}
	_exit(127);
}

/* The helper.  It ends with its master; what it starts are the master's children. */
static void sp_help(int from)
{
	struct sp_job j = { .len = 0 };
	for (;;) {
		int fd;
		ssize_t n = fd_receive_with(from, &fd, &j, sizeof j);
		if (n == 0 || (n < 0 && errno != EINTR))
			_exit(0);
		if (fd < 0 || (size_t)n < offsetof(struct sp_job, text))
			continue;
		j.len = (uint32_t)((size_t)n - offsetof(struct sp_job, text));
		if (j.len == 0 || j.words + j.variables > SP_WORDS || j.text[j.len - 1] != 0)
			j.kind = UINT8_MAX;
		pid_t pid = confine_fork_sibling();
		if (pid == 0)
			sp_run(&j, fd, true);
		close(fd);
		struct sp_answer answer = { j.number, pid, errno };
		(void)!send(from, &answer, sizeof answer, MSG_NOSIGNAL);
	}
}

/* Forks the helper; false with errno. */
static bool sp_begin_helper(void)
{
	int sv[2];
	sigset_t all;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) != 0)
		return false;
	pid_t pid = fork();
	if (pid == 0) {
		sigfillset(&all);
		sigprocmask(SIG_SETMASK, &all, NULL);
		if (g.us.early >= 0)
			close(g.us.early);
		fd_close_others(sv[1], sv[1]);
		tp_forget();
		memset(g.pool.block, 0, (size_t)g.pool.fresh * sizeof g.pool.block[0]);
		sp_help(sv[1]);
	}
	close(sv[1]);
	g.sp.helper = pid > 0 ? sv[0] : -1;
	g.sp.pid = pid;
	if (pid <= 0)
		close(sv[0]);
	return pid > 0;
}

/* One of our children has ended; it may be the helper. */
static void sp_exited(pid_t pid)
{
	if (pid != g.sp.pid)
		return;
	g.sp.lost = true;
	log_at(TP_ERROR, "the helper, which resolves names and starts programs, was ended");
}

/* The helper's answer to this job; earlier ones, which came too late, are dropped.
 * This is the one wait outside the loop: for a fork, HELPER_MS at the most. */
static pid_t sp_await(uint32_t number)
{
	struct pollfd p = { .fd = g.sp.helper, .events = POLLIN };
	struct sp_answer answer;
	int64_t until = rn_clock() + HELPER_MS;
	for (int64_t left; (left = until - rn_clock()) > 0 && poll(&p, 1, (int)left) == 1;) {
		if (recv(g.sp.helper, &answer, sizeof answer, MSG_DONTWAIT) != sizeof answer) {
			errno = EPIPE;
			return -1;
		}
		if (answer.number == number) {
			errno = answer.error;
			return answer.pid;
		}
	}
	errno = ETIMEDOUT;
	return -1;
}

/* Has the helper start the job; returns its process id, or -1 with errno. */
static pid_t sp_ask(struct sp_job *j, int fd)
{
	static uint32_t jobs;
	errno = ECHILD;
	if (g.sp.lost)
		return -1;
	j->number = ++jobs;
	size_t n = offsetof(struct sp_job, text) + j->len;
	return fd_send_with(g.sp.helper, fd, j, n, MSG_DONTWAIT) < 0 ? -1 : sp_await(j->number);
}

/* Starts the job with fd, which the caller still owns; its process id, or -1 with errno. */
static pid_t sp_start(struct sp_job *j, int fd)
{
	if (g.sp.helper > 0)
		return sp_ask(j, fd);
	pid_t pid = fork();
	if (pid == 0)
		sp_run(j, fd, false);
	return pid;
}

/* sp_start() for a resolver, or for a command from the options. */
static pid_t sp_start_with(enum sp_kind kind, const char *host, int family, int fd)
{
	struct sp_job j = { .kind = (uint8_t)kind, .family = family };
	errno = ENAMETOOLONG;
	return sp_put(&j, host) ? sp_start(&j, fd) : -1;
}

/* ===== cn_ ================================================================
 * Connects to host:port and never waits: a child resolves names (getaddrinfo() blocks
 * and allocates), and addresses are tried in turn.  The owner polls `fd` for
 * cn_events() and calls cn_service(); cn_stop() closes what is open.  Times are in ms.
 * Calls rn_, ev_, fd_, sp_. */

static void cn_fail(struct connector *c, const char *why)
{
	fd_close(&c->fd);
	c->state = CN_FAILED;
	snprintf(c->why, sizeof c->why, "%s", why);
}

/* Stops whatever runs.  lp_ reaps the child, if any, on SIGCHLD. */
static void cn_stop(struct connector *c)
{
	if (c->state == CN_IDLE)
		return;
	fd_close(&c->fd);
	if (c->pid > 0 && c->state == CN_RESOLVING)
		kill(c->pid, SIGKILL);
	c->pid = 0;
	c->state = CN_IDLE;
}

static void cn_reset(struct connector *c, uint16_t port, int64_t deadline)
{
	memset(c, 0, sizeof *c);
	c->fd = -1;
	c->port = port;
	c->deadline = c->attempt_deadline = deadline;
}

static void cn_fork(struct connector *c, const char *host, int family)
{
	int p[2];
	if (pipe(p) != 0) {
		cn_fail(c, strerror(errno));
		return;
	}
	for (int i = 0; i < 2; i++)
		fcntl(p[i], F_SETFD, FD_CLOEXEC);
	fd_nonblock(p[0]);
	c->pid = sp_start_with(SP_RESOLVE, host, family, p[1]);
	int error = errno;
	close(p[1]);
	c->fd = p[0];
	c->got = 0;
	c->state = CN_RESOLVING;
	if (c->pid < 0)
		cn_fail(c, strerror(error));
}

static socklen_t cn_address(const struct connector *c, int i, struct sockaddr_storage *to)
{
	const struct cn_address *a = &c->reply.address[i];
	bool v6 = a->family == AF_INET6;
	socklen_t len = fd_ip_begin(to, a->family, c->port);
	memcpy(fd_ip(to), a->bytes, v6 ? 16 : 4);
	if (v6)
		((struct sockaddr_in6 *)(void *)to)->sin6_scope_id = a->scope;
	return len;
}

/* Binds the uplink's socket to the address (-b) and interface (-B), if any; false with
 * errno. */
static bool cn_bind(const struct connector *c, sa_family_t family)
{
	const char *from = g.op.bind_address, *interface = g.op.bind_interface;
	struct sockaddr_storage a;
	socklen_t len = fd_ip_begin(&a, family, 0);
	if (c != &g.lk.uplink)
		return true;
	if (interface && setsockopt(c->fd, SOL_SOCKET, SO_BINDTODEVICE, interface,
		(socklen_t)strlen(interface) + 1) != 0)
		return false;
	if (!from)
		return true;
	errno = EADDRNOTAVAIL;
	return inet_pton(family, from, fd_ip(&a)) == 1 &&
		bind(c->fd, (struct sockaddr *)&a, len) == 0;
}

/* Tries the next address; CN_FAILED with the last error when none is left.  Each
 * address gets an equal share of the time that remains. */
static void cn_next(struct connector *c, int64_t now)
{
	fd_close(&c->fd);
	while (c->next < c->n) {
		struct sockaddr_storage to;
		c->attempt_deadline = now + (c->deadline - now) / (c->n - c->next);
		socklen_t len = cn_address(c, c->next++, &to);
		c->fd = socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		c->state = CN_CONNECTING;
		if (c->fd >= 0 && cn_bind(c, to.ss_family) &&
			(connect(c->fd, (struct sockaddr *)&to, len) == 0 || errno == EINPROGRESS))
			return;
		snprintf(c->why, sizeof c->why, "%s", strerror(errno));
		fd_close(&c->fd);
	}
	c->state = CN_FAILED;
}

/* Begins to connect.  Ends not later than `deadline`: CN_DONE with `fd` (non-blocking,
 * from then on the caller's) or CN_FAILED with `why`. */
static void cn_start(struct connector *c, const char *host, uint16_t port, int family,
	int64_t deadline, int64_t now)
{
	cn_reset(c, port, deadline);
	struct cn_address *a = &c->reply.address[0];
	if (family != AF_INET6 && inet_pton(AF_INET, host, a->bytes) == 1)
		a->family = AF_INET;
	else if (family != AF_INET && inet_pton(AF_INET6, host, a->bytes) == 1)
		a->family = AF_INET6;
	if (a->family == 0) {
		cn_fork(c, host, family);
		return;
	}
	c->n = 1;
	cn_next(c, now);
}

/* ProxyCommand: a program's stdin and stdout are the connection, at once.  Returns its
 * process id, 0 on failure; the caller must end the process. */
static pid_t cn_proxy(struct connector *c)
{
	int sv[2];
	cn_reset(c, 0, 0);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) != 0) {
		cn_fail(c, strerror(errno));
		return 0;
	}
	pid_t pid = sp_start_with(SP_PROXY, "", 0, sv[1]);
	int error = errno;
	close(sv[1]);
	fd_nonblock(sv[0]);
	c->fd = sv[0];
	c->state = CN_DONE;
	c->pid = pid < 0 ? -1 : 0;
	if (pid < 0)
		cn_fail(c, strerror(error));
	return pid > 0 ? pid : 0;
}

/* Whether it failed because the helper is gone: no other try will do better. */
static bool cn_is_helpless(const struct connector *c)
{
	return g.sp.lost && c->state == CN_FAILED && c->pid < 0;
}

/* Only finds a name's addresses: CN_RESOLVED or CN_FAILED. */
static void cn_resolve(struct connector *c, const char *host, int family, int64_t deadline)
{
	cn_reset(c, 0, deadline);
	c->names_only = true;
	cn_fork(c, host, family);
}

static short cn_events(const struct connector *c)
{
	return c->state == CN_RESOLVING ? POLLIN : c->state == CN_CONNECTING ? POLLOUT : 0;
}

static void cn_read_reply(struct connector *c, int64_t now)
{
	ssize_t n = fd_read(c->fd, (uint8_t *)&c->reply + c->got, sizeof c->reply - c->got);
	if (n == FD_AGAIN)
		return;
	if (n > 0)
		c->got += (size_t)n;
	if (n > 0 && c->got < sizeof c->reply)
		return;
	c->pid = 0;
	if (c->got < sizeof c->reply)
		cn_fail(c, "Could not resolve hostname: resolver ended");
	else if (c->reply.error != 0 || c->reply.n <= 0) {
		cn_fail(c, "");
		snprintf(c->why, sizeof c->why, "Could not resolve hostname: %s",
			 c->reply.error ? gai_strerror(c->reply.error) : "no address");
	} else {
		c->n = (uint8_t)(c->reply.n < ADDRESSES ? c->reply.n : ADDRESSES);
		if (c->names_only) {
			fd_close(&c->fd);
			c->state = CN_RESOLVED;
		} else
			cn_next(c, now);
	}
}

static void cn_check_connect(struct connector *c, int64_t now)
{
	int error = 0;
	socklen_t len = sizeof error;
	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
		error = errno;
	if (error == 0) {
		c->state = CN_DONE;
		return;
	}
	snprintf(c->why, sizeof c->why, "%s", strerror(error));
	cn_next(c, now);
}

/* After poll(): `revents` of `fd`, or 0 if only time has passed. */
static void cn_service(struct connector *c, short revents, int64_t now)
{
	if (revents && c->state == CN_RESOLVING)
		cn_read_reply(c, now);
	else if (revents && c->state == CN_CONNECTING)
		cn_check_connect(c, now);
	else if (c->state == CN_RESOLVING && now >= c->deadline) {
		cn_stop(c);
		cn_fail(c, "Could not resolve hostname: timed out");
	} else if (c->state == CN_CONNECTING && now >= c->attempt_deadline) {
		snprintf(c->why, sizeof c->why, "Connection timed out");
		cn_next(c, now);
	}
}

static int cn_take(void)
{
	for (int i = 0; i < CONNECTORS; i++)
		if (g.cn.slot[i].state == CN_IDLE) {
			ev_used(TABLE_CONNECTORS, (uint32_t)i + 1);
			if (i >= g.cn.end)
				g.cn.end = i + 1;
			return i;
		}
	ev_full(TABLE_CONNECTORS, "CONNECTORS");
	return -1;
}

static void cn_release(int16_t *index)
{
	if (*index >= 0) {
		cn_stop(&g.cn.slot[*index]);
		rn_again();		/* a channel may wait for one */
	}
	*index = -1;
}

/* ===== ex_ ================================================================
 * Short-lived programs that answer a question: xauth, an askpass program; and
 * EventCommand.  We read the output once, from a pipe, after the program has ended.  One
 * that writes more than the pipe takes, or does not end, is killed at its deadline.
 * The user of a slot frees it with ex_read() or ex_stop().
 * Calls rn_, fd_, sp_. */

/* Starts argv.  `variables`, unless NULL, are added to its environment. */
static void ex_start(struct program *p, const char *const argv[], char *const variables[],
	int64_t deadline)
{
	int out[2];
	struct sp_job j = { .kind = SP_PROGRAM };
	*p = (struct program){ .state = EX_FAILED, .fd = -1, .deadline = deadline };
	rn_again();			/* so that a failure is seen at once */
	if (pipe2(out, O_CLOEXEC) != 0)
		return;
	fd_nonblock(out[0]);
	p->fd = out[0];
	bool fits = true;
	for (; *argv; argv++, j.words++)
		fits = fits && sp_put(&j, *argv);
	for (; variables && *variables; variables++, j.variables++)
		fits = fits && sp_put(&j, *variables);
	p->pid = fits ? sp_start(&j, out[1]) : -1;
	close(out[1]);
	if (p->pid > 0)
		p->state = EX_RUNNING;
}

/* One of our children has ended; it may be a program. */
static void ex_exited(pid_t pid, int status)
{
	for_each_program(p)
		if (p->state == EX_RUNNING && p->pid == pid)
			p->state = WIFEXITED(status) && WEXITSTATUS(status) == 0 ? EX_DONE :
				EX_FAILED;
}

static void ex_kill(struct program *p)
{
	if (p->state != EX_RUNNING)
		return;
	kill(-p->pid, SIGKILL);
	kill(p->pid, SIGKILL);
	p->state = EX_FAILED;
}

static void ex_expire(void)
{
	for_each_program(p)
		if (p->state == EX_RUNNING && g.now >= p->deadline)
			ex_kill(p);
}

/* Ends the program, whatever its state, and frees the slot. */
static void ex_stop(struct program *p)
{
	if (p->state == EX_IDLE)
		return;
	ex_kill(p);
	fd_close(&p->fd);
	p->state = EX_IDLE;
}

/* Reads the output of a program that is EX_DONE, terminated, and frees the slot. */
static void ex_read(struct program *p, char *to, size_t size)
{
	ssize_t n = p->state == EX_DONE ? fd_read(p->fd, to, size - 1) : 0;
	to[n > 0 ? n : 0] = 0;
	ex_stop(p);
}

/* ===== tx_ ================================================================
 * The SSH messages we send.  Each is built in the transport's own buffer, then queued;
 * without a link it is dropped.  Field names are those of RFC 4254.  Also the queue of
 * global requests that wait for their answers.
 * Calls log_, sl_, buf_. */

static struct buf *tx_begin(enum ssh_type type)
{
	static struct buf b;
	bool up = tp_state() == TP_UP;	/* if the link was lost in this turn, drop it */
	b = up ? buf_over(tp_payload(), tp_payload_max) : buf_over(g.scratch, sizeof g.scratch);
	buf_put_u8(&b, (uint8_t)type);
	return &b;
}

static void tx_end(const struct buf *b)
{
	if (tp_state() != TP_UP)
		return;
	if (b->bad)
		log_abort("message longer than the payload buffer");
	tp_send(b->pos);
}

/* Whether the server's version names this software: "OpenSSH", "dropbear". */
static bool tx_peer_is(const char *software)
{
	const char *v = tp_info()->peer_version;
	return strncmp(v, "SSH-2.0-", 8) == 0 && strncmp(v + 8, software, strlen(software)) == 0;
}

/* The longest text in a request; dropbear ends the connection over a longer one. */
static uint32_t tx_text_max(void)
{
	return tx_peer_is("dropbear") ? 9000 : UINT32_MAX;
}

/* Sends a message that consists of the recipient channel alone. */
static void tx_channel(enum ssh_type type, const struct channel *c)
{
	struct buf *b = tx_begin(type);
	buf_put_u32(b, c->remote_id);
	tx_end(b);
}

/* Begins to open c; the caller adds what its type needs. */
static struct buf *tx_channel_open(const char *type, const struct channel *c, uint32_t packet)
{
	struct buf *b = tx_begin(SSH_CHANNEL_OPEN);
	buf_put_text(b, type);
	buf_put_u32(b, (uint32_t)sl_channel_index(c));
	buf_put_u32(b, c->window);
	buf_put_u32(b, packet < PACKET_MAX ? packet : PACKET_MAX);
	return b;
}

static void tx_channel_open_failure(uint32_t remote_id, uint32_t code, const char *text)
{
	struct buf *b = tx_begin(SSH_CHANNEL_OPEN_FAILURE);
	buf_put_u32(b, remote_id);
	buf_put_u32(b, code);
	buf_put_text(b, text);
	buf_put_text(b, "");
	tx_end(b);
}

static void tx_window_adjust(const struct channel *c, uint32_t bytes)
{
	struct buf *b = tx_begin(SSH_CHANNEL_WINDOW_ADJUST);
	buf_put_u32(b, c->remote_id);
	buf_put_u32(b, bytes);
	tx_end(b);
}

/* Begins a channel request; the caller adds what its type needs. */
static struct buf *tx_request(const struct channel *c, const char *name, bool want_reply)
{
	struct buf *b = tx_begin(SSH_CHANNEL_REQUEST);
	buf_put_u32(b, c->remote_id);
	buf_put_text(b, name);
	buf_put_u8(b, want_reply);
	return b;
}

/* Whether one more global request may wait for an answer. */
static bool tx_may_ask(void)
{
	return g.tx.n_global < GLOBAL_REQUESTS;
}

/* Remembers a global request that waits for its answer.  Precondition: tx_may_ask(). */
static void tx_expect(enum global_kind kind, int of, bool reply)
{
	g.tx.global[g.tx.n_global++] = (struct global_request){ (uint8_t)kind, (int16_t)of, reply };
}

/* An answer came: *first is the request it belongs to; false if none was waiting. */
static bool tx_answered(struct global_request *first)
{
	if (g.tx.n_global == 0)
		return false;
	*first = g.tx.global[0];
	memmove(g.tx.global, g.tx.global + 1, (size_t)--g.tx.n_global * sizeof *first);
	return true;
}

/* Client `of` no longer waits for its probes. */
static void tx_forget_probes(int of)
{
	for (int i = 0; i < g.tx.n_global; i++)
		if (g.tx.global[i].kind == GLOBAL_PROBE && g.tx.global[i].of == of)
			g.tx.global[i].kind = GLOBAL_KEEPALIVE;
}

/* The link is lost: no answer will come. */
static void tx_link_lost(void)
{
	g.tx.n_global = 0;
	g.tx.asked_at = 0;
}

/* A keepalive of either kind (GLOBAL_KEEPALIVE, GLOBAL_PROBE); false if too many
 * global requests are unanswered. */
static bool tx_keepalive(enum global_kind kind, int16_t of)
{
	if (!tx_may_ask())
		return false;
	tx_expect(kind, of, false);
	g.tx.asked_at = g.tx.asked_at ? g.tx.asked_at : g.now;
	struct buf *b = tx_begin(SSH_GLOBAL_REQUEST);
	buf_put_text(b, "keepalive@openssh.com");
	buf_put_u8(b, true);		/* wants a reply */
	tx_end(b);
	return true;
}

/* A keepalive was answered: measures the round trip of the oldest one not measured. */
static void tx_keepalive_answered(void)
{
	if (!g.tx.asked_at)
		return;
	uint32_t ms = (uint32_t)(g.now - g.tx.asked_at);
	g.tx.asked_at = 0;
	g.tx.rtt = ms;
	g.tx.rtt_sum += ms;
	g.tx.rtt_min = g.tx.rtt_n == 0 || ms < g.tx.rtt_min ? ms : g.tx.rtt_min;
	g.tx.rtt_max = ms > g.tx.rtt_max ? ms : g.tx.rtt_max;
	g.tx.rtt_n++;
}

/* ===== fl_ ====================================================================
 * Bytes in flight: what a channel has sent and the server has not given back by
 * WINDOW_ADJUST.  OpenSSH's server holds what its program has not taken in one buffer,
 * which it copies whenever more comes: an upload that fills the window of 2 MB is several
 * times slower than one that does not.  So a channel has g.fl.most bytes in flight at
 * most, whatever the window.
 *
 * FLIGHT bytes are enough for a round trip of FLIGHT_NEAR ms.  The limit adapts to a longer
 * one in rounds: a round begins when a channel at the limit gets something back, and ends
 * when it gets back the first byte that it sent after that.  If that took less than two
 * round trips, little waited at the server, and the limit doubles; if it took longer than
 * four and FLIGHT_NEAR ms, the limit halves.  The round trip is the shortest round, or time
 * from CHANNEL_OPEN to its confirmation.  A round shorter than FLIGHT_NEAR ms brings the
 * limit to FLIGHT_FAST: half as many wakes for WINDOW_ADJUST, and nobody waits long behind
 * that.
 *
 * Some servers give nothing back before half of their window is used.  So a channel at
 * the limit that gets nothing for FLIGHT_MS doubles it too, and if that helped at once,
 * it stays.
 * Calls sl_, tx_. */

/* Begins with a new connection.  Only OpenSSH's server is meant. */
static void fl_begin(void)
{
	g.fl.most = g.fl.least = tx_peer_is("OpenSSH") ? FLIGHT : FLIGHT_MOST;
	g.fl.rtt = UINT32_MAX / 4;
	g.fl.channel = g.fl.late = 0;
}

/* A channel is opened by us or by the server. */
static void fl_opened(struct channel *c)
{
	c->flight = 0;
	c->flight_at = (uint32_t)g.now;
	if (g.fl.channel == sl_channel_index(c) + 1)
		g.fl.channel = 0;
	if (g.fl.late == sl_channel_index(c) + 1)
		g.fl.late = 0;
}

static void fl_measured(uint32_t ms)
{
	g.fl.rtt = ms < g.fl.rtt ? ms : g.fl.rtt;
}

/* The server has confirmed a channel that we opened. */
static void fl_confirmed(struct channel *c)
{
	fl_measured((uint32_t)g.now - c->flight_at);
	c->flight_at = (uint32_t)g.now;
}

/* Whether c has used up its limit.  FLIGHT_MOST is none. */
static bool fl_is_full(const struct channel *c, uint32_t spare)
{
	return g.fl.most < FLIGHT_MOST && c->flight + spare >= g.fl.most;
}

/* Bytes that c may send now. */
static uint32_t fl_room(const struct channel *c)
{
	uint32_t room = g.fl.most >= FLIGHT_MOST ? UINT32_MAX :
		g.fl.most > c->flight ? g.fl.most - c->flight : 0;
	return room < c->remote_window ? room : c->remote_window;
}

static void fl_sent(struct channel *c, uint32_t n)
{
	if (c->flight == 0)
		c->flight_at = (uint32_t)g.now;
	c->flight += n;
	c->remote_window -= n;
}

static void fl_double(void)
{
	g.fl.most = g.fl.most < FLIGHT_MOST / 2 ? g.fl.most * 2 : FLIGHT_MOST;
}

/* Ends a round whose channel gets nothing back any more: it has nothing to send, or is
 * gone. */
static void fl_give_up_round(void)
{
	if (g.fl.channel &&
		(uint32_t)g.now - g.ch.slot[g.fl.channel - 1].flight_at > FLIGHT_MS)
		g.fl.channel = 0;
}

static void fl_round_ends(void)
{
	uint32_t took = (uint32_t)g.now - g.fl.began;
	g.fl.channel = 0;
	fl_measured(took);
	bool near = took < FLIGHT_NEAR;
	if (near ? g.fl.most <= FLIGHT_FAST / 2 : g.fl.rtt >= FLIGHT_NEAR && took <= 2 * g.fl.rtt)
		fl_double();
	else if (near ? g.fl.most > FLIGHT_FAST : took > 4 * g.fl.rtt + FLIGHT_NEAR)
		g.fl.most = g.fl.most / 2 > g.fl.least ? g.fl.most / 2 : g.fl.least;
}

/* The server gives n bytes of window: what it took, or its first window. */
static void fl_given(struct channel *c, uint32_t n)
{
	uint32_t now = (uint32_t)g.now, taken = n < c->flight ? n : c->flight;
	bool full = fl_is_full(c, PACKET_MAX);
	if (g.fl.late == sl_channel_index(c) + 1) {
		if (now - c->flight_at <= 2 * g.fl.rtt + FLIGHT_MS / 8)
			g.fl.least = g.fl.most;	/* more in flight was what it waited for */
		g.fl.late = 0;
	}
	fl_give_up_round();
	c->flight -= taken;
	c->flight_at = now;
	c->remote_window += n;
	if (g.fl.channel == sl_channel_index(c) + 1) {
		g.fl.left -= taken < g.fl.left ? taken : g.fl.left;
		if (g.fl.left == 0)
			fl_round_ends();
	}
	if (full && g.fl.channel == 0) {
		g.fl.channel = sl_channel_index(c) + 1;
		g.fl.left = c->flight + 1;
		g.fl.began = now;
	}
}

/* Milliseconds until c, which has used up its limit, is late; -1 if it has not. */
static int fl_patience(const struct channel *c)
{
	uint32_t waited = (uint32_t)g.now - c->flight_at;
	if (!fl_is_full(c, 1) || c->remote_window == 0)
		return -1;
	return waited < FLIGHT_MS ? (int)(FLIGHT_MS - waited) : 0;
}

/* Looks whether c is late. */
static void fl_settle(struct channel *c)
{
	if (fl_patience(c) != 0)
		return;
	fl_double();
	g.fl.late = sl_channel_index(c) + 1;
	c->flight_at = (uint32_t)g.now;
}

/* ===== ch_ ================================================================
 * Channels: each connects one SSH channel to the descriptors of one local program.
 * Output goes from the packet straight to the descriptor; only what the descriptor does
 * not take goes into the window pool.  Input is read straight into the outgoing packet.
 * A channel owns its descriptors, blocks and record; ch_free() releases them.
 * Calls log_, ev_, rl_, sl_, buf_, pool_, fd_, cn_, tx_, fl_. */

#define OF(what) (1u << (what))

/* The flags that a channel of each kind may have. */
static const struct {
	const char *name;		/* for people */
	uint16_t flags;			/* enum ch_flag */
} ch_kinds[CH_KINDS] = {
	[CH_SESSION] = { "client-session",
		CH_STATUS | CH_TTY | CH_AGENT | CH_DISPLAY | CH_EOW_SENT | CH_FAILED |
			 CH_SUSPENDED | CH_LINE_START | CH_ESCAPED },
	[CH_STDIO] = { "stdio-forward", CH_STATUS },
	[CH_LOCAL] = { "direct", 0 },
	[CH_REMOTE] = { "forwarded", CH_AGENT | CH_FAILED },
	[CH_X11] = { "x11", CH_DISPLAY | CH_FAILED },
	[CH_PROXY] = { "proxied", CH_TTY },
};

/* The life of a channel: which kinds may be in a state, and which states may follow. */
static const struct {
	const char *name;		/* for people */
	uint8_t kinds;			/* OF(enum ch_kind) */
	uint16_t next;			/* OF(enum ch_state) */
} ch_states[CH_STATES] = {
	[CH_FREE] = { "free", 0xff, OF(CH_SOCKS_LOCAL) | OF(CH_CONNECTING) | OF(CH_OPENING) },
	/* the request came: OPENING; it was malformed or too late: DEAD */
	[CH_SOCKS_LOCAL] = { "socks", OF(CH_LOCAL), OF(CH_OPENING) | OF(CH_DEAD) },
	/* connected, or the client accepts: OPEN; data must name the target first:
	 * SOCKS_REMOTE, GREETING; else: DEAD */
	[CH_CONNECTING] = { "connecting", OF(CH_REMOTE) | OF(CH_X11) | OF(CH_PROXY),
		OF(CH_SOCKS_REMOTE) | OF(CH_GREETING) | OF(CH_OPEN) | OF(CH_DEAD) },
	/* the server accepts or refuses; without a client: OPEN, to be closed, or DEAD */
	[CH_OPENING] = { "opening", OF(CH_SESSION) | OF(CH_STDIO) | OF(CH_LOCAL) | OF(CH_PROXY),
		OF(CH_CONFIRMED) | OF(CH_REFUSED) | OF(CH_OPEN) | OF(CH_DEAD) },
	[CH_REFUSED] = { "refused", OF(CH_SESSION) | OF(CH_STDIO) | OF(CH_PROXY), OF(CH_DEAD) },
	/* a session: STARTING; other kinds, once their client is told: OPEN; the link is lost:
	 * REFUSED, DEAD; the server closed it unused, we ask again (SES-stillborn): OPENING */
	[CH_CONFIRMED] = { "open", OF(CH_SESSION) | OF(CH_STDIO) | OF(CH_LOCAL) | OF(CH_PROXY),
		OF(CH_STARTING) | OF(CH_OPEN) | OF(CH_REFUSED) | OF(CH_OPENING) | OF(CH_DEAD) },
	/* the command runs, or fails to start, or its client leaves */
	[CH_STARTING] = { "open", OF(CH_SESSION), OF(CH_OPEN) },
	/* connected, or refused and to be closed: OPEN; the link is lost: DEAD */
	[CH_SOCKS_REMOTE] = { "open", OF(CH_REMOTE), OF(CH_OPEN) | OF(CH_DEAD) },
	[CH_GREETING] = { "open", OF(CH_X11), OF(CH_OPEN) | OF(CH_DEAD) },
	/* closed by both sides, all delivered: ENDED, or DEAD if no client must be told;
	 * px_reopen(): OPENING */
	[CH_OPEN] = { "open", 0xff, OF(CH_ENDED) | OF(CH_DEAD) | OF(CH_OPENING) },
	[CH_ENDED] = { "closed", OF(CH_SESSION) | OF(CH_STDIO), OF(CH_DEAD) },
	[CH_DEAD] = { "closed", 0xff, OF(CH_FREE) | OF(CH_DEAD) },
};

/* The only way to change a channel's state. */
static void ch_become(struct channel *c, enum ch_state next)
{
	if (CHECKING && !(ch_states[c->state].next & OF(next) &&
		ch_states[next].kinds & OF(c->kind)))
		log_abort("a channel's step that is none");
	c->state = (uint8_t)next;
}

/* Whether the server counts it as open. */
static bool ch_is_open(const struct channel *c)
{
	return c->state >= CH_CONFIRMED && c->state <= CH_OPEN;
}

/* The server or our table allows `most` sessions at once; assumed until `until`. */
static void ch_limit_sessions(int most, int64_t until)
{
	g.ch.session_limit = most;
	g.ch.limit_until = until;
}

/* Takes a record for a session's report; -1 if none is free. */
static int16_t ch_record(void)
{
	for (int16_t i = 0; i < SESSIONS; i++)
		if (!g.ch.record[i].used) {
			uint32_t now = ev_seconds();
			g.ch.record[i] = (struct record){ .used = true, .since = now,
				.active = now };
			return i;
		}
	return -1;
}

/* Remembers what a session was asked to run. */
static void ch_name(const struct channel *c, struct str command)
{
	if (c->record < 0)
		return;
	char *to = g.ch.record[c->record].command;
	uint32_t n = command.len < COMMAND_TEXT ? command.len : COMMAND_TEXT - 1;
	memcpy(to, command.p, n);
	to[n] = 0;
}

/* Something of c has moved: a quick turn looks at it (lp_). */
static void ch_mark(const struct channel *c)
{
	int i = sl_channel_index(c);
	g.ch.busy[i / 32] |= 1u << i % 32;
}

/* Begins to look for busy channels anew; `was` gets those of the last time. */
static void ch_unmark(uint32_t was[static sizeof g.ch.busy / sizeof g.ch.busy[0]])
{
	memcpy(was, g.ch.busy, sizeof g.ch.busy);
	memset(g.ch.busy, 0, sizeof g.ch.busy);
}

/* Counts n bytes that have moved. */
static void ch_count(const struct channel *c, enum counted what, uint32_t n)
{
	ch_mark(c);
	if (c->record >= 0) {
		g.ch.record[c->record].bytes[what] += n;
		g.ch.record[c->record].active = ev_seconds();
	} else if (c->forward >= 0)
		sl_forward(c->forward)->bytes[what] += n;
	if (c->kind == CH_PROXY && c->client >= 0)
		sl_client(c->client)->moved[what != IN_BYTES] += n;
}

/* Cuts a window to what RateLimit allows in `ms`: the server may send all of it at once. */
static uint32_t ch_held_back(uint32_t window, int64_t ms)
{
	int64_t most = rl_bytes(RL_DOWN, ms);
	return g.op.rate[RL_DOWN] && window > most ? (uint32_t)most : window;
}

static uint32_t ch_first_window(const struct channel *c)
{
	return ch_held_back(pool_start(c), RATE_MS);
}

/* Whether its local end is one socket, used in both directions. */
static bool ch_is_socket(const struct channel *c)
{
	return c->kind == CH_LOCAL || c->kind == CH_REMOTE || c->kind == CH_X11;
}

/* A new channel in `state`, its first window charged to the pool; NULL if all slots are
 * taken. */
static struct channel *ch_alloc(enum ch_kind kind, enum ch_state state)
{
	int i = 0;
	while (i < CHANNELS && g.ch.slot[i].state != CH_FREE)
		i++;
	if (i == CHANNELS) {
		ev_full(TABLE_CHANNELS, "CHANNELS");
		return NULL;
	}
	ev_used(TABLE_CHANNELS, (uint32_t)i + 1);
	struct channel *c = &g.ch.slot[i];
	memset(c, 0, sizeof *c);
	c->kind = (uint8_t)kind;
	ch_become(c, state);
	c->client = c->forward = -1;
	if (ch_is_socket(c))
		c->connector = -1;
	c->record = kind == CH_SESSION ? ch_record() : -1;
	for (int k = 0; k < CH_ENDS && kind != CH_PROXY; k++)
		c->end[k].fd = -1;
	c->window = c->window_target = ch_first_window(c);
	c->sender.heard = (uint16_t)ev_seconds();
	fl_opened(c);
	pool_account(c);
	if (kind == CH_SESSION)
		ev_used(TABLE_SESSIONS, (uint32_t)++g.ch.sessions);
	if (i >= g.ch.end)
		g.ch.end = i + 1;
	return c;
}

/* Whether its local end is a proxy client that is still there. */
static bool ch_is_proxied(const struct channel *c)
{
	return c->kind == CH_PROXY && c->client >= 0;
}

/* Whether its client or its forward has gone: nothing waits for its end. */
static bool ch_is_abandoned(const struct channel *c)
{
	return c->client < 0 && c->forward < 0 && !ch_is_socket(c);
}

static bool ch_is_closing(const struct channel *c)
{
	return c->sent == CH_CLOSED || c->rcvd == CH_CLOSED;
}

/* Ends one direction: returns a passed descriptor, or shuts a socket down.  A socket is
 * closed with its second direction. */
static void ch_release(struct channel *c, int end)
{
	int fd = fd_of(c, end);
	if (fd < 0)
		return;
	if (ch_is_socket(c)) {
		shutdown(fd, end == CH_IN ? SHUT_RD : SHUT_WR);
		if (fd_of(c, end == CH_IN ? CH_OUT : CH_IN) >= 0)
			c->end[end].fd = -1;
	}
	fd_return(&c->end[end]);
}

/* Frees a channel and all it owns; for lp_reap(). */
static void ch_free(struct channel *c)
{
	if (ch_is_socket(c) && c->connector >= 0)	/* it was still connecting */
		cn_stop(sl_connector(c->connector));
	ch_release(c, CH_IN);
	for (int s = 0; s < CH_STREAMS; s++) {
		ch_release(c, s);
		pool_drop(&c->queue[s], c->queue[s].len);
	}
	if (c->kind == CH_SESSION) {
		g.ch.sessions--;
		g.ch.freed_at = g.now;
	}
	if (c->record >= 0)
		g.ch.record[c->record].used = false;
	if (c->remote_packet > 0)	/* was open: refund the unused window */
		rl_take(RL_DOWN, &c->sender, (int64_t)ch_first_window(c) - c->window);
	ch_become(c, CH_FREE);
	pool_account(c);
	while (g.ch.end > 0 && g.ch.slot[g.ch.end - 1].state == CH_FREE)
		g.ch.end--;
}

static bool ch_empty(const struct channel *c)
{
	return c->queue[CH_OUT].len == 0 && c->queue[CH_ERR].len == 0;
}

/* Ends one output stream: drops what waits; what still comes will be discarded. */
static void ch_end_output(struct channel *c, enum stream s)
{
	pool_drop(&c->queue[s], c->queue[s].len);
	ch_release(c, s);
	pool_account(c);
}

static void ch_end_input(struct channel *c)
{
	ch_release(c, CH_IN);
	c->sender.input = SD_NONE;
}

/* Its local program is gone and no longer reads or writes. */
static void ch_abandon(struct channel *c)
{
	if (c->state == CH_REFUSED || c->state == CH_ENDED)
		ch_become(c, CH_DEAD);
	else if (c->state == CH_CONFIRMED || c->state == CH_STARTING)
		ch_become(c, CH_OPEN);
	c->client = -1;
	c->events = 0;
	ch_end_input(c);
	ch_end_output(c, CH_OUT);
	ch_end_output(c, CH_ERR);
}

/* The link is lost: no more messages, but data already received is still delivered.  An
 * exit status counts only if all output had come, for which EOF stands (SES-cut). */
static void ch_lose(struct channel *c)
{
	if (c->rcvd == CH_FLOWS)
		c->flags &= (uint16_t)~CH_STATUS;
	if (c->state != CH_OPEN && c->client < 0)
		ch_become(c, CH_DEAD);
	else if (c->state == CH_OPENING || c->state == CH_CONFIRMED)
		ch_become(c, CH_REFUSED);
	ch_end_input(c);
	c->sent = c->rcvd = CH_CLOSED;
}

/* Remembers a request that wants a reply. */
static void ch_expect(struct channel *c, enum ch_request kind)
{
	for (int i = 0; i < CH_REQUESTS; i++)
		if (c->request[i] == CH_RQ_NONE) {
			c->request[i] = (uint8_t)kind;
			return;
		}
	log_abort("more channel requests than CH_REQUESTS");
}

/* A reply came: returns its request, CH_RQ_NONE if none was waiting. */
static enum ch_request ch_answered(struct channel *c)
{
	enum ch_request first = c->request[0];
	memmove(c->request, c->request + 1, CH_REQUESTS - 1);
	c->request[CH_REQUESTS - 1] = CH_RQ_NONE;
	return first;
}

/* Data came.  After a silence the window starts small again: the target drops to
 * pool_small(). */
static void ch_heard(struct channel *c)
{
	uint16_t now = (uint16_t)ev_seconds();
	uint32_t small = pool_small(c);
	if ((uint16_t)(now - c->sender.heard) > WINDOW_SILENCE && c->window_target > small) {
		c->window_target = small;
		c->consumed = 0;
	}
	c->sender.heard = now;
}

/* Writes what waits for stream s, as much as its reader takes. */
static void ch_write(struct channel *c, enum stream s)
{
	struct iovec iov[64];
	struct passed *d = &c->end[s];
	int pieces = pool_iov(&c->queue[s], iov, 64);
	ch_mark(c);
	if (d->tty) {
		pieces = 1;
		if (iov[0].iov_len > FD_TTY_CHUNK)
			iov[0].iov_len = FD_TTY_CHUNK;
	}
	ssize_t n = fd_write_passed(d, iov, pieces);
	if (n > 0) {
		pool_drop(&c->queue[s], (uint32_t)n);
		c->consumed += (uint32_t)n;
		pool_account(c);
	} else if (n == FD_ERROR)
		ch_end_output(c, s);
}

/* Takes len bytes for stream s: writes what it can at once, the rest goes into the pool.
 * The caller has already subtracted them from the window. */
static void ch_deliver(struct channel *c, enum stream s, const uint8_t *p, uint32_t len)
{
	ssize_t n = 0;
	ch_count(c, s == CH_OUT ? OUT_BYTES : ERR_BYTES, len);
	/* before CH_OPEN other messages go first, or no descriptor has been passed */
	bool open = c->state == CH_OPEN;
	struct iovec iov = { (void *)(uintptr_t)p, len };
	if (open && fd_of(c, s) >= 0 && c->queue[s].len == 0 && c->end[s].nonblock)
		n = fd_write_passed(&c->end[s], &iov, 1);
	if (n == FD_ERROR)
		ch_end_output(c, s);
	bool nobody = open && fd_of(c, s) < 0 && !ch_is_proxied(c);
	uint32_t taken = nobody ? len : n > 0 ? (uint32_t)n : 0;
	c->consumed += taken;
	if (taken < len)
		pool_put(&c->queue[s], p + taken, len - taken);
	pool_account(c);
}

/* Writes a line of ours to the session's stderr.  It is dropped if the pool has no room
 * and the descriptor does not take it at once. */
static void ch_tell(struct channel *c, const char *text)
{
	struct passed *d = &c->end[CH_ERR];
	uint32_t len = (uint32_t)strlen(text);
	if ((d->fd >= 0 || c->state != CH_OPEN) && pool_room(c) >= len)
		ch_deliver(c, CH_ERR, (const uint8_t *)text, len);
	else if (d->fd >= 0 && d->nonblock && c->queue[CH_ERR].len == 0)
		(void)fd_write_passed(d, &(struct iovec){ (void *)(uintptr_t)text, len }, 1);
}

static bool ch_wants_write(const struct channel *c, enum stream s)
{
	return c->queue[s].len > 0 && fd_of(c, s) >= 0;
}

/* Bytes that may be read: what fl_ allows, less a byte held back by es_. */
static uint32_t ch_window(const struct channel *c)
{
	uint32_t held = (c->flags & CH_ESCAPED) != 0, room = fl_room(c);
	return room > held ? room - held : 0;
}

/* Whether to poll for input: the server has a window for it.  The caller checks the
 * transport's room, once for all channels. */
static bool ch_wants_read(const struct channel *c)
{
	return c->state == CH_OPEN && fd_of(c, CH_IN) >= 0 && ch_window(c) > 0 &&
		c->sender.input == SD_NONE && c->sent == CH_FLOWS && !(c->flags & CH_SUSPENDED);
}

/* Whether poll() has announced input and the server has a window for it. */
static bool ch_wants_send(const struct channel *c)
{
	return c->state == CH_OPEN && c->sender.input != SD_NONE && ch_window(c) > 0;
}

/* Where the data starts in the message being built. */
static uint8_t *ch_data(void)
{
	return tp_payload() + SSH_DATA_HEADER;
}

/* The longest data message that c may send now, at most `max` bytes. */
static uint32_t ch_most(const struct channel *c, uint32_t max)
{
	uint32_t most = (uint32_t)tp_payload_max - SSH_DATA_HEADER;
	most = max < most ? max : most;
	most = fl_room(c) < most ? fl_room(c) : most;
	return c->remote_packet < most ? c->remote_packet : most;
}

/* Reads at most `max` bytes of input; 0 if there is none now, or no more. */
static uint32_t ch_input(struct channel *c, uint8_t *to, uint32_t max)
{
	ssize_t n = fd_read_passed(&c->end[CH_IN], to, max);
	ch_mark(c);
	if (n == FD_END || n == FD_ERROR)
		ch_end_input(c);
	if (n == FD_ERROR && ch_is_socket(c))		/* reset: the other direction is dead too */
		ch_end_output(c, CH_OUT);
	/* a terminal blocks: read it only once after each poll() */
	if (n < (ssize_t)max || c->end[CH_IN].tty)
		c->sender.input = SD_NONE;
	return n > 0 ? (uint32_t)n : 0;
}

/* Sends the n bytes at ch_data(). */
static void ch_send(struct channel *c, uint32_t n)
{
	uint8_t *p = tp_payload();
	if (n == 0)
		return;
	p[0] = SSH_CHANNEL_DATA;
	buf_set_u32(p + 1, c->remote_id);
	buf_set_u32(p + 5, n);
	tp_send(SSH_DATA_HEADER + n);
	fl_sent(c, n);
	ch_count(c, IN_BYTES, n);
}

/* Sends at most `max` bytes of input in one message; returns how many. */
static uint32_t ch_read(struct channel *c, uint32_t max)
{
	uint32_t n = ch_input(c, ch_data(), ch_most(c, max));
	ch_send(c, n);
	return n;
}

/* How far the server may exceed c's window: some servers miscount it slightly. */
static uint32_t ch_spare(const struct channel *c)
{
	uint32_t room = pool_room(c),
		held = c->window + c->queue[CH_OUT].len + c->queue[CH_ERR].len;
	if (!ch_is_proxied(c))
		return room;
	uint32_t more = c->px.window > held ? c->px.window - held : 0;
	return more < room ? more : room;
}

/* How much must be free before we promise it: few messages, but the server never waits
 * for one. */
static uint32_t ch_step(uint32_t target)
{
	if (target / 8 > PACKET_MAX)
		return target / 8 < 3 * PACKET_MAX ? target / 8 : 3 * PACKET_MAX;
	return target / 4 < PACKET_MAX ? target / 4 : PACKET_MAX;
}

/* Promises the peer more once ch_step() is free.  Each time the reader keeps up with the
 * target, the target grows fourfold. */
static void ch_credit(struct channel *c)
{
	if (c->rcvd > CH_FLOWS || c->sent == CH_CLOSED)
		return;
	if (c->consumed >= c->window_target && ch_empty(c)) {
		uint32_t limit = pool_limit(c);
		c->consumed = 0;
		c->window_target = c->window_target < limit / 4 ? c->window_target * 4 : limit;
	}
	bool limited = rl_is_limited(RL_DOWN, &c->sender);
	uint32_t target = limited ? ch_held_back(c->window_target, 1000) : c->window_target,
		room = pool_room(c);
	uint32_t held = c->window + c->queue[CH_OUT].len + c->queue[CH_ERR].len;
	if (ch_is_proxied(c) && target > c->px.window)
		target = c->px.window;
	if (room > target || held + room > target)
		room = target > held ? target - held : 0;
	uint32_t step = ch_step(target);
	if (room == 0 || (room < step && c->window > step) ||
		(room = rl_room(RL_DOWN, &c->sender, room)) == 0)
		return;
	if (limited)
		g.ch.next = sl_channel_index(c) + 1;
	rl_take(RL_DOWN, &c->sender, room);
	c->window += room;
	pool_account(c);
	tx_window_adjust(c, room);
}

/* The output's reader went away: tells an OpenSSH server, so that the remote program
 * gets SIGPIPE ("eow@openssh.com"). */
static void ch_tell_eow(struct channel *c)
{
	if (c->kind != CH_SESSION || fd_of(c, CH_OUT) >= 0 || c->rcvd > CH_FLOWS ||
		c->flags & CH_EOW_SENT)
		return;
	c->flags |= CH_EOW_SENT;
	if (tx_peer_is("OpenSSH"))
		tx_end(tx_request(c, "eow@openssh.com", false));
}

/* Whether we must send CLOSE now.  The server decides when a session ends; a forwarded
 * connection ends when nothing can flow in either direction; a stdio forward ends with
 * the server's EOF (STDIO-eof). */
static bool ch_is_over(const struct channel *c)
{
	if (c->rcvd == CH_CLOSED || c->flags & CH_FAILED || ch_is_abandoned(c))
		return true;
	if (c->kind == CH_STDIO && c->rcvd >= CH_EOF)
		return ch_empty(c);
	return c->kind != CH_SESSION && fd_of(c, CH_IN) < 0 && fd_of(c, CH_OUT) < 0;
}

/* Sends EOF or CLOSE. */
static void ch_say(struct channel *c, enum ch_half end)
{
	c->sent = end;
	tx_channel(end == CH_EOF ? SSH_CHANNEL_EOF : SSH_CHANNEL_CLOSE, c);
}

/* Sends and closes whatever the channel's state requires now. */
static void ch_settle(struct channel *c)
{
	if (c->state != CH_OPEN || ch_is_proxied(c))
		return;
	if (c->rcvd > CH_FLOWS && ch_empty(c))
		ch_end_output(c, CH_OUT);
	if (c->rcvd == CH_CLOSED)
		ch_end_input(c);
	if (c->sent == CH_FLOWS)
		fl_settle(c);
	if (c->sent < CH_CLOSED) {
		ch_tell_eow(c);
		if (fd_of(c, CH_IN) < 0 && c->sent == CH_FLOWS)
			ch_say(c, CH_EOF);
		if (ch_is_over(c))
			ch_say(c, CH_CLOSED);
		ch_credit(c);
	}
	if (c->sent == CH_CLOSED && c->rcvd == CH_CLOSED && ch_empty(c))
		ch_become(c, c->client < 0 ? CH_DEAD : CH_ENDED);
}

/* Settles all channels, not always in the same order: the first may use up RateLimit. */
static void ch_settle_all(void)
{
	for (int i = 0, first = g.ch.next; i < g.ch.end; i++)
		ch_settle(&g.ch.slot[(first + i) % g.ch.end]);
}

/* ===== tt_ ================================================================
 * Terminals: their size in a pty request (RFC 4254, 6.2), and changes of size.
 * Calls buf_, fd_, tx_, ch_. */

static void tt_put_size(struct buf *b, const struct winsize *w)
{
	buf_put_u32(b, w->ws_col);
	buf_put_u32(b, w->ws_row);
	buf_put_u32(b, w->ws_xpixel);
	buf_put_u32(b, w->ws_ypixel);
}

/* Requests a pty with the size and modes of `tty`, which need not be a terminal. */
static void tt_request_pty(struct channel *c, int tty, struct str term)
{
	memset(&c->size, 0, sizeof c->size);
	if (ioctl(tty, TIOCGWINSZ, &c->size) != 0)
		memset(&c->size, 0, sizeof c->size);
	struct buf *b = tx_request(c, "pty-req", true);
	buf_put_str(b, term);
	uint8_t modes[OS_MODES];
	tt_put_size(b, &c->size);
	buf_put_str(b, (struct str){ modes, (uint32_t)os_terminal_modes(tty, modes) });
	tx_end(b);
	ch_expect(c, CH_RQ_PTY);
	c->flags |= CH_TTY;
}

static bool tt_is_open(const struct channel *c)
{
	return c->state == CH_OPEN && c->flags & CH_TTY && c->sent != CH_CLOSED &&
		fd_of(c, CH_IN) >= 0;
}

static bool tt_any(void)
{
	for_each_channel(c)
		if (tt_is_open(c))
			return true;
	return false;
}

/* Tells the server about terminals that changed size.  Called on SIGWINCH, and every
 * TT_RESIZE_MS because another user's client cannot signal us. */
static void tt_resize(void)
{
	for_each_channel(c) {
		struct winsize w;
		if (!tt_is_open(c) || ioctl(c->end[CH_IN].fd, TIOCGWINSZ, &w) != 0 ||
			memcmp(&w, &c->size, sizeof w) == 0)
			continue;
		c->size = w;
		struct buf *b = tx_request(c, "window-change", false);
		tt_put_size(b, &w);
		tx_end(b);
	}
}

/* ===== us_ ====================================================================
 * The control socket.  It is created under a temporary name and then linked to its
 * path, so that a client never finds one without a listener.  us_remove() removes it only
 * if it is still the one we created.
 * Calls log_, rn_, fd_. */

#define US_PATH sizeof(((struct sockaddr_un *)0)->sun_path)
#define US_SUFFIX 17			/* "." and sixteen random characters */

static bool us_address(struct sockaddr_un *a, const char *path)
{
	return os_unix_address(a, path, false) > 0;
}

static const char *us_too_long(const char *path, size_t most)
{
	static char text[64];
	snprintf(text, sizeof text, "path is too long (%zu bytes, at most %zu)", strlen(path),
		most);
	return text;
}

/* The path with a dot and random characters behind it; 0, or errno. */
static int us_beside(char to[US_PATH], const char *path)
{
	static const char alphabet[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	size_t n = strlen(path);
	if (n + US_SUFFIX >= US_PATH)
		return ENAMETOOLONG;
	snprintf(to, US_PATH, "%s.", path);
	if (!rn_bytes(to + n + 1, US_SUFFIX - 1))
		return EIO;
	for (size_t i = n + 1; i < n + US_SUFFIX; i++)
		to[i] = alphabet[(uint8_t)to[i] % 64];
	to[n + US_SUFFIX] = 0;
	return 0;
}

/* Connects to a socket's path; -1 with errno.  It never waits. */
static int us_connect(const char *path)
{
	struct sockaddr_un a;
	int fd = us_address(&a, path) ? socket(AF_UNIX,
		SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) : -1;
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) == 0)
		return fd;
	int error = errno;
	close(fd);
	errno = error;
	return -1;
}

enum us_found { US_NOTHING, US_STALE, US_LIVE, US_FOREIGN };

/* What is at the control path; *st describes it. */
static enum us_found us_look(const char *path, struct stat *st)
{
	if (lstat(path, st) != 0)
		return US_NOTHING;
	if (!S_ISSOCK(st->st_mode))
		return US_FOREIGN;
	int fd = us_connect(path);
	if (fd < 0)
		return errno == ECONNREFUSED ? US_STALE : errno == ENAMETOOLONG ? US_FOREIGN :
			US_LIVE;
	close(fd);
	return US_LIVE;
}

/* The directory of `path`, for messages and access(); the next call overwrites it. */
static const char *us_directory(const char *path)
{
	static char dir[US_PATH];
	const char *slash = strrchr(path, '/');
	snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
	return dir;
}

/* The abstract socket that claims a path while its master logs in.  Its name has user,
 * directory and file; it disappears with its process (unix(7)). */
static bool us_early_address(struct sockaddr_un *a, socklen_t *len, const char *path)
{
	struct stat st;
	char text[US_PATH];
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	if (stat(us_directory(path), &st) != 0)
		return false;
	name += strlen(name) > 50 ? strlen(name) - 50 : 0;
	snprintf(text, sizeof text, "sshmux %u %llx %llx %s", (unsigned)getuid(),
		 (unsigned long long)st.st_dev, (unsigned long long)st.st_ino, name);
	*len = os_unix_address(a, text, true);
	return *len > 0;
}

/* Claims the path for a login that begins; false if another login has claimed it. */
static bool us_claim(const char *path)
{
	struct sockaddr_un a;
	socklen_t len;
	if (g.us.early >= 0 || !us_early_address(&a, &len, path))
		return true;
	g.us.early = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (g.us.early < 0 || (bind(g.us.early, (struct sockaddr *)&a, len) == 0 &&
		listen(g.us.early, LISTEN_BACKLOG) == 0))
		return true;
	bool taken = errno == EADDRINUSE;
	fd_close(&g.us.early);
	return !taken;
}

/* Who else may replace what is in a directory: NULL for nobody, or the reason why no
 * master listens there.  Its owner always may, sticky or not.  A group with the user's own
 * number is taken for the user's own, as umask 002 expects, and ControlGroup may write
 * anyway. */
static const char *us_open_to(const struct stat *dir)
{
	bool known = dir->st_gid == getuid() ||
		(g.op.control_group && dir->st_gid == g.us.group);
	if (dir->st_uid != 0 && dir->st_uid != getuid())
		return "its directory belongs to another user, who is not root";
	if (dir->st_mode & S_ISVTX)
		return NULL;
	if (dir->st_mode & S_IWOTH)
		return "everybody may write to its directory, which is not sticky: chmod o-w";
	return dir->st_mode & S_IWGRP && !known ?
		"a group may write to its directory, which is not sticky: chmod g-w" : NULL;
}

/* Checks whether a master may listen at the path: NULL, or the reason why not. */
static const char *us_check(const char *path)
{
	struct stat st;
	if (strlen(path) + US_SUFFIX >= US_PATH)
		return us_too_long(path, US_PATH - US_SUFFIX - 1);
	if (access(us_directory(path), W_OK | X_OK) != 0 || stat(us_directory(path), &st) != 0)
		return strerror(errno);
	const char *open_to = us_open_to(&st);
	enum us_found found = us_look(path, &st);
	return open_to ? open_to :
		found == US_LIVE ? "a master is already running there" :
		found == US_FOREIGN ? "exists and is not a socket" : NULL;
}

/* Removes a dead master's socket: renames it, checks that it is the one that was found
 * dead, and only then removes it. */
static void us_remove_stale(const char *path, const char *aside, const struct stat *dead)
{
	struct stat st;
	if (rename(path, aside) != 0 || lstat(aside, &st) != 0)
		return;
	if (st.st_ino != dead->st_ino || st.st_dev != dead->st_dev)
		(void)!link(aside, path);	/* another master was faster: restore its socket */
	unlink(aside);
}

/* Gives the listening socket at `temp` its final name.  0 or errno. */
static int us_place(const char *temp, const char *path)
{
	struct stat st;
	char aside[US_PATH];
	if (link(temp, path) == 0)
		return 0;
	if (errno == EEXIST && us_look(path, &st) == US_STALE) {
		if (us_beside(aside, path) == 0)
			us_remove_stale(path, aside, &st);
		return link(temp, path) == 0 ? 0 : errno;
	}
	/* no hard links on this file system: rename, if the path is free or its socket dead */
	if ((errno == EPERM || errno == EOPNOTSUPP || errno == ENOSYS) &&
		us_look(path, &st) <= US_STALE)
		return rename(temp, path) == 0 ? 0 : errno;
	return errno;
}

/* Sets the path to serve; NULL for none. */
static void us_serve(const char *path)
{
	g.us.path = path;
}

/* ControlGroup: its members may connect. */
static void us_let_in(gid_t group)
{
	g.us.group = group;
}

/* Whether the master stays after its first client has gone (ControlPersist). */
static bool us_persists(void)
{
	return g.op.persist >= 0 && g.us.path;
}

/* No descriptor is left: accept no connection for a while. */
static void us_pause(void)
{
	g.us.accept_after = g.now + ACCEPT_MS;
}

/* Creates the control socket and listens.  0 or errno. */
static int us_listen(const char *path)
{
	struct sockaddr_un a;
	struct stat st;
	char temp[US_PATH];
	int error = us_beside(temp, path);
	if (error)
		return error;
	us_address(&a, temp);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mode_t mask = umask(0177);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) != 0)
		error = errno;
	umask(mask);
	if (error == 0 && g.op.control_group && (chown(temp, (uid_t)-1, g.us.group) != 0 ||
		chmod(temp, 0660) != 0))
		error = errno;
	if (error == 0 && (listen(fd, LISTEN_BACKLOG) != 0 || lstat(temp, &st) != 0))
		error = errno;
	if (error == 0)
		error = us_place(temp, path);
	if (fd >= 0)
		unlink(temp);
	if (error) {
		fd_close(&fd);
		return error;
	}
	g.us.listener = fd;
	g.us.bound = true;
	g.us.dev = st.st_dev;
	g.us.ino = st.st_ino;
	return 0;
}

/* Whether the socket at the path is ours. */
static bool us_stands(void)
{
	struct stat st;
	return g.us.bound && lstat(g.us.path, &st) == 0 && st.st_dev == g.us.dev &&
		st.st_ino == g.us.ino;
}

/* Watches the socket: if it or its directory was removed, we listen again as soon as
 * the path is free. */
static void us_watch(void)
{
	g.us.look_at = g.now + US_LOOK_MS;
	if (!g.us.bound || us_stands())
		return;
	int old = g.us.listener;
	const char *why = us_check(g.us.path);
	int error = why ? 0 : us_listen(g.us.path);
	if (error)
		why = strerror(error);
	if (!why)
		close(old);
	if (!why || !g.us.missed)
		log_at(TP_ERROR, "ControlSocket %s was removed%s%s", g.us.path,
		       why ? ": " : ", listening again", why ? why : "");
	g.us.missed = why != NULL;
}

/* Stops listening and removes the path if it is still our socket. */
static void us_remove(void)
{
	fd_close(&g.us.listener);
	if (us_stands())
		unlink(g.us.path);
	g.us.bound = false;
}

/* ===== ac_ ====================================================================
 * Access: who may connect to the control socket, and who may request what
 * (ControlGroup, ControlAllow, MaxPerUser).
 * Calls log_, ev_, sl_, buf_, fd_. */

/* Whether it is the master's own user or root, who may do everything. */
static bool ac_is_own(uid_t uid)
{
	return uid == 0 || uid == getuid();
}

/* What ControlAllow can allow.  "command" has a pattern, "subsystem" may have one. */
enum ac_right { AC_SESSION, AC_COMMAND, AC_SUBSYSTEM, AC_FORWARD, AC_CONTROL, AC_PROXY, AC_RIGHTS };
static const char *const ac_rights[] = { "session", "command", "subsystem", "forward", "control",
	"proxy" };
_Static_assert(LOG_DENIED + AC_RIGHTS == LOG_OFTEN, "one line for each right");

/* Parses a word of a rule: returns its right, AC_RIGHTS for "all", -1 if it is invalid;
 * *pattern is NULL if it has none. */
static int ac_right(const char *word, size_t len, const char **pattern)
{
	size_t n = 0;
	while (n < len && word[n] != '=')
		n++;
	*pattern = n < len ? word + n + 1 : NULL;
	for (int i = 0; i < AC_RIGHTS; i++)
		if (strlen(ac_rights[i]) == n && memcmp(word, ac_rights[i], n) == 0)
			return i == AC_COMMAND ? (*pattern ? i : -1) : !*pattern ||
				i == AC_SUBSYSTEM ? i : -1;
	return n == 3 && len == 3 && memcmp(word, "all", 3) == 0 ? AC_RIGHTS : -1;
}

/* Whether a pattern allows `text`.  If the pattern has wildcards, the text must contain
 * no character that is special to a shell. */
static bool ac_fits(struct str text, const char *pattern)
{
	static const char shell[] = ";&|<>`$(){}\\'\"\n!#~";
	for (uint32_t i = 0; strpbrk(pattern, "*?") && i < text.len; i++)
		if (!text.p[i] || strchr(shell, text.p[i]))
			return false;
	return str_matches(text, pattern);
}

/* Whether a rule's words (those after its subject) allow the right. */
static bool ac_allows(const char *words, enum ac_right right, struct str text)
{
	for (const char *next; *words; words = next) {
		const char *pattern;
		char own[COMMAND_PATTERN];
		size_t n = strcspn(words, "\n");
		next = words + n + (words[n] == '\n');
		int allowed = ac_right(words, n, &pattern);
		if (pattern)
			snprintf(own, sizeof own, "%.*s", (int)(words + n - pattern), pattern);
		if (allowed == AC_RIGHTS ||
			(allowed == (int)right && (!pattern || ac_fits(text, own))) ||
		    (allowed == AC_SESSION && right == AC_COMMAND))
			return true;
	}
	return false;
}

/* Whether a rule applies to the peer: its subject is "1001", "@100" or "*". */
static bool ac_is_about(const char *who, int fd)
{
	if (*who == '*')
		return true;
	return *who == '@' ? os_peer_in_group(fd, (gid_t)strtoul(who + 1, NULL, 10)) :
		os_peer(fd).uid == strtoul(who, NULL, 10);
}

/* Whether the peer has the right.  A refusal is reported once for each right. */
static bool ac_may(int fd, enum ac_right right, struct str text)
{
	if (g.op.allow.n == 0)
		return true;
	struct os_peer peer = os_peer(fd);
	if (ac_is_own(peer.uid))
		return true;
	for (size_t i = 0; i < g.op.allow.n; i++) {
		const char *rule = g.op.allow.at[i], *words = strchr(rule, '\n');
		if (words && ac_is_about(rule, fd) && ac_allows(words + 1, right, text))
			return true;
	}
	if (!g.log.often[LOG_DENIED + right])
		ev_add((struct event){ .kind = EV_REFUSED, .n = { peer.pid, (int32_t)peer.uid } },
			ac_rights[right]);
	log_at(log_once(LOG_DENIED + right), "user %u may not: %s %.*s", (unsigned)peer.uid,
		ac_rights[right],
	       (int)(text.len > 100 ? 100 : text.len), text.len ? (const char *)text.p : "");
	return false;
}

/* Whether a user has reached MaxPerUser.  Clients, channels of proxy mode, forwards and
 * connections of forwards count. */
static bool ac_is_crowded(uid_t uid)
{
	int64_t n = 0;
	if (g.op.max_per_user == 0 || ac_is_own(uid))
		return false;
	for_each_client(c)
		n += c->peer.uid == uid;
	for_each_forward(f)
		n += f->uid == uid;
	for_each_channel(c) {
		bool proxied = c->kind == CH_PROXY && c->client >= 0;
		if (proxied ? sl_client(c->client)->peer.uid == uid : c->forward >= 0 &&
			sl_forward(c->forward)->uid == uid)
			n++;
	}
	if (n >= g.op.max_per_user)
		log_at(log_once(LOG_CROWD),
			"user %u has as many connections and forwards as MaxPerUser allows: %d",
			(unsigned)uid, (int)n);
	return n >= g.op.max_per_user;
}

/* Accepts a connection from a user who may use the master; -1 if there is none.  *who
 * becomes that user.  (The kernel enforces ControlGroup, by the socket's mode.) */
static int ac_accept(int listener, struct os_peer *who)
{
	int fd = fd_accept(listener, &g.us.accept_after);
	if (fd < 0)
		return -1;
	struct os_peer peer = *who = os_peer(fd);
	bool may = ac_is_own(peer.uid) || (peer.uid != (uid_t)-1 && g.op.control_group);
	if (may && !ac_is_crowded(peer.uid))
		return fd;
	if (!may) {
		if (!g.log.often[LOG_STRANGER])
			ev_add((struct event){ .kind = EV_REFUSED,
				.n = { peer.pid, (int32_t)peer.uid } }, "another user's");
		log_at(log_once(LOG_STRANGER), "multiplex uid mismatch: peer euid %u != uid %u",
			(unsigned)peer.uid, (unsigned)getuid());
	}
	close(fd);
	return -1;
}

/* ===== fw_ ====================================================================
 * Forwards (PROTOCOL.mux, 4 to 6): their slots, and their texts in options.  There are
 * FORWARDS slots: fw_add() takes one, fw_free() closes its listeners and frees it.
 * Calls ev_, sl_, fd_, cn_. */

static bool fw_is_path(const struct endpoint *e)
{
	return e->port == FW_PATH;
}

/* A remote dynamic forward: the server's connections speak SOCKS to us. */
static bool fw_is_remote_dynamic(const struct forward *f)
{
	return f->type == FW_REMOTE && f->connect.port == 0;
}

static bool fw_same(const struct endpoint *a, const struct endpoint *b)
{
	return a->port == b->port && strcmp(a->host, b->host) == 0;
}

/* The forward equal to `like` in all fields (FWD-match), or NULL.  The connect fields of a
 * dynamic one mean nothing. */
static struct forward *fw_find(const struct forward *like)
{
	for_each_forward(f) {
		if (f->type == like->type && fw_same(&f->listen, &like->listen) &&
		    (f->type == FW_DYNAMIC || fw_same(&f->connect, &like->connect)))
			return f;
	}
	return NULL;
}

/* Takes a slot in FW_WAITING with `like`'s type and endpoints; NULL if all are in use. */
static struct forward *fw_add(const struct forward *like)
{
	for (int i = 0; i < FORWARDS; i++) {
		struct forward *f = &g.fw.slot[i];
		if (f->state != FW_FREE)
			continue;
		memset(f, 0, sizeof *f);
		f->state = FW_WAITING;
		f->type = like->type;
		f->listen = like->listen;
		f->connect = like->connect;
		f->client = f->connector = -1;
		f->since = ev_seconds();
		ev_used(TABLE_FORWARDS, (uint32_t)i + 1);
		if (i >= g.fw.end)
			g.fw.end = i + 1;
		for (int k = 0; k < FW_SOCKETS; k++)
			f->socket[k] = -1;
		return f;
	}
	ev_full(TABLE_FORWARDS, "FORWARDS");
	return NULL;
}

/* Counts a use of the link: a listener at the server, or a connection of a forward. */
static void fw_accepted(void)
{
	g.fw.accepted++;
}

static const char *const fw_types[] = { "", "local", "remote", "dynamic", "proxied" };

/* "local 127.0.0.1:8080 -> host:80", for people. */
static const char *fw_name(const struct forward *f)
{
	static char text[2 * FORWARD_HOST + 64];
	char from[16] = "", to[16] = "";
	if (!fw_is_path(&f->listen))
		snprintf(from, sizeof from, ":%u", (unsigned)(f->allocated ? f->allocated :
			f->listen.port));
	if (!fw_is_path(&f->connect))
		snprintf(to, sizeof to, ":%u", (unsigned)f->connect.port);
	if (f->type == FW_PROXY)
		snprintf(text, sizeof text, "%s %s%s", fw_types[f->type], f->listen.host, from);
	else if (f->type == FW_DYNAMIC || fw_is_remote_dynamic(f))
		snprintf(text, sizeof text, "%s %s%s (SOCKS)", fw_types[f->type], f->listen.host,
			from);
	else
		snprintf(text, sizeof text, "%s %s%s -> %s%s", fw_types[f->type], f->listen.host,
			from, f->connect.host, to);
	return text;
}

/* Reads one field of a forward's text, up to the next ':' outside brackets; a field with a
 * '/' is a path.  Moves *p past the ':', or sets it to NULL at the end. */
static bool fw_field(const char **p, struct endpoint *e)
{
	const char *from = *p, *end = from + strcspn(from, ":");
	e->port = 0;
	if (*from == '[') {
		from++;
		end = strchr(from, ']');
		if (!end || (end[1] && end[1] != ':'))
			return false;
	}
	size_t len = (size_t)(end - from);
	if (len >= sizeof e->host)
		return false;
	memcpy(e->host, from, len);
	e->host[len] = 0;
	if (memchr(from, '/', len))
		e->port = FW_PATH;
	end += *end == ']';
	*p = *end ? end + 1 : NULL;
	return true;
}

/* A TCP port given by number or name (services(5)); -1 if it is neither.  For start-up only. */
static int64_t fw_port(const char *text)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);
	if (isdigit((unsigned char)text[0]) && !*end)
		return n <= 65535 ? (int64_t)n : -1;
	/* musl would accept 22/tcp */
	bool name = isalpha((unsigned char)text[0]) && !strchr(text, '/');
	struct servent *service = name ? getservbyname(text, "tcp") : NULL;
	return service ? ntohs((uint16_t)service->s_port) : -1;
}

/* Makes an endpoint from a host field and a port field.  False if the host is a path, or the
 * port is invalid or below `least`. */
static bool fw_host_port(struct endpoint *to, const struct endpoint *host,
	const struct endpoint *port, uint32_t least)
{
	int64_t n = fw_port(port->host);
	if (n < least || host->port == FW_PATH)
		return false;
	*to = *host;
	to->port = (uint32_t)n;
	return true;
}

/* Parses ssh's -L, -R and -D: [bind:]port:host:hostport, where a path may replace either
 * side; [bind:]port for -D, and for -R without a target.  An empty bind address means "*", a
 * missing one "" (FWD-bind-text). */
static bool fw_parse(const char *text, enum fw_type type, struct forward *f)
{
	struct endpoint field[4], none = { "", 0 };
	int n = 0, at = 0;
	memset(f, 0, sizeof *f);
	f->type = (uint8_t)type;
	for (const char *p = text; p && n <= 4; n++)
		if (n == 4 || !fw_field(&p, &field[n]))
			return false;
	int target = field[n - 1].port == FW_PATH ? 1 : 2;
	if (type == FW_DYNAMIC || n <= 2)
		target = n == 2 && field[1].port == FW_PATH ? 1 : 0;
	if (target == 0)
		memcpy(f->connect.host, "socks", 6);
	else if (target == 1)
		f->connect = field[n - 1];
	else if (n < 3 || !fw_host_port(&f->connect, &field[n - 2], &field[n - 1], 1))
		return false;
	if ((target == 0 && type == FW_LOCAL) || (target != 0 && type == FW_DYNAMIC))
		return false;
	n -= target;
	if (n == 1 && field[0].port == FW_PATH)
		f->listen = field[0];
	else if (n == 2 && field[0].host[0] == 0)
		memcpy(field[0].host, "*", 2);
	at = n == 2;
	return f->listen.port == FW_PATH || (n >= 1 && n <= 2 &&
		fw_host_port(&f->listen, at ? &field[0] : &none, &field[at], type == FW_REMOTE ? 0 :
		1));
}

/* Parses one HOST:PORT of PermitRemoteOpen, which ends at a blank.  Either part may be *; for
 * the port this gives 0. */
static bool fw_destination(const char *p, struct str *host, uint32_t *port)
{
	bool bracket = *p == '[';
	size_t n = strcspn(p + bracket, bracket ? "] " : ": ");
	*host = (struct str){ (const uint8_t *)p + bracket, (uint32_t)n };
	p += n + 2 * bracket;
	if (n == 0 || p[-bracket] == ' ' || *p != ':')
		return false;
	bool any = *++p == '*';
	size_t digits = strspn(p, "0123456789");
	*port = any ? 0 : (uint32_t)strtoul(p, NULL, 10);
	p += any ? 1 : digits;
	return (!*p || *p == ' ') && digits <= 5 && *port <= 65535 && (any || *port > 0);
}

static void fw_close(struct forward *f)
{
	struct stat st;
	for (int k = 0; k < FW_SOCKETS; k++)
		fd_close(&f->socket[k]);
	if (f->ino && lstat(f->listen.host, &st) == 0 && st.st_dev == f->dev && st.st_ino == f->ino)
		unlink(f->listen.host);
	f->ino = 0;
}

static void fw_free(struct forward *f)
{
	for_each_channel(c)	/* it may still wait for a connector */
		if (c->forward == sl_forward_index(f))
			c->forward = -1;
	fw_close(f);
	cn_release(&f->connector);
	f->state = FW_FREE;
	while (g.fw.end > 0 && g.fw.slot[g.fw.end - 1].state == FW_FREE)
		g.fw.end--;
}

/* ===== ls_ ====================================================================
 * Sets forwards up: listeners here, and listeners at the server (RFC 4254, 7).  The event
 * `answered` says that a try has succeeded or failed; `why` has the last error.
 * Calls log_, rn_, ev_, sl_, buf_, fd_, cn_, tx_, ch_, us_, fw_. */

#define LS_UNLINK_HINT " (StreamLocalBindUnlink=yes removes a socket left there)"

/* Whether a failure of f ends the master, which then gives it as the reason
 * (ExitOnForwardFailure). */
static bool ls_is_vital(const struct forward *f)
{
	return g.op.exit_on_forward_failure && g.lk.logins == 1 && f->client < 0;
}

/* "its name: what happened", for events. */
static const char *ls_event(const struct forward *f, const char *what)
{
	static char text[256];
	snprintf(text, sizeof text, "%.150s: %.90s", fw_name(f), what);
	return text;
}

/* f is set up, or a try has failed.  Logs one line per change, not per try. */
static void ls_decided(struct forward *f, bool stands)
{
	f->answered = true;
	f->since = ev_seconds();
	if (stands) {
		f->state = FW_ACTIVE;
		ev_add((struct event){ .kind = EV_FORWARD_UP }, fw_name(f));
		log_at(f->tries ? TP_INFO : TP_VERBOSE, "forward %s is set up", fw_name(f));
		if (f->type == FW_REMOTE)
			fw_accepted();
		f->permanent = true;
		f->cleared = false;
		f->tries = 0;
		f->why[0] = 0;
		return;
	}
	f->state = FW_WAITING;
	f->retry_at = g.now + rn_backoff(f->tries, g.op.reconnect_min, g.op.reconnect_max);
	if (f->tries == 0)
		ev_add((struct event){ .kind = EV_FORWARD_FAILED }, ls_event(f, f->why));
	if (f->tries == 0 && !ls_is_vital(f))
		log_at(TP_ERROR, "forward %s: %s", fw_name(f), f->why);
	f->tries = (uint8_t)(f->tries + (f->tries < UINT8_MAX));
}

/* Listens on one more address; a system error goes into f->why. */
static bool ls_bind(struct forward *f, const void *address, socklen_t len)
{
	const struct sockaddr *a = address;
	int k = 0, on = 1;
	while (k < FW_SOCKETS && f->socket[k] >= 0)
		k++;
	if (k == FW_SOCKETS)
		return false;
	int fd = socket(a->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && a->sa_family != AF_UNIX)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (fd >= 0 && a->sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
	if (fd < 0 || bind(fd, a, len) != 0 || listen(fd, LISTEN_BACKLOG) != 0) {
		snprintf(f->why, sizeof f->why, "%s", strerror(errno));
		fd_close(&fd);
		return false;
	}
	f->socket[k] = fd;
	return true;
}

static bool ls_bind_ip(struct forward *f, const char *ip)
{
	struct sockaddr_storage a;
	int family = strchr(ip, ':') ? AF_INET6 : AF_INET;
	socklen_t len = fd_ip_begin(&a, family, f->listen.port);
	return inet_pton(family, ip, fd_ip(&a)) == 1 && ls_bind(f, &a, len);
}

static void ls_bind_path(struct forward *f)
{
	struct sockaddr_un a;
	struct stat st;
	if (!us_address(&a, f->listen.host)) {
		snprintf(f->why, sizeof f->why, "%s",
			us_too_long(f->listen.host, sizeof a.sun_path - 1));
		return;
	}
	if (g.op.bind_unlink && lstat(f->listen.host, &st) == 0 && S_ISSOCK(st.st_mode))
		unlink(f->listen.host);
	mode_t mask = umask((mode_t)g.op.bind_mask);
	bool ok = ls_bind(f, &a, sizeof a);
	if (!ok && errno == EADDRINUSE)
		snprintf(f->why, sizeof f->why, "%s" LS_UNLINK_HINT, strerror(EADDRINUSE));
	umask(mask);
	if (ok && lstat(f->listen.host, &st) == 0) {
		f->dev = st.st_dev;
		f->ino = st.st_ino;
	}
}

static void ls_listen(struct forward *f)
{
	const char *host = f->listen.host;
	bool any = strcmp(host, "*") == 0 || (host[0] == 0 && g.op.gateway_ports);
	f->why[0] = 0;
	if (fw_is_path(&f->listen))
		ls_bind_path(f);
	else if (any || host[0] == 0 || strcmp(host, "localhost") == 0) {
		ls_bind_ip(f, any ? "0.0.0.0" : "127.0.0.1");
		ls_bind_ip(f, any ? "::" : "::1");
	} else if (!ls_bind_ip(f, host) && !f->why[0]) {	/* a host name */
		f->connector = (int16_t)cn_take();
		if (f->connector >= 0) {
			f->state = FW_RESOLVING;
			cn_resolve(&g.cn.slot[f->connector], host, AF_UNSPEC, g.now + CONNECT_MS);
			return;
		}
		snprintf(f->why, sizeof f->why, "too many names are being resolved");
	}
	ls_decided(f, f->socket[0] >= 0);	/* one address is enough (FWD-bind-any) */
}

/* Listens once the name to listen on is resolved, or fails if it cannot be. */
static void ls_resolved(struct forward *f)
{
	struct connector *c = sl_connector(f->connector);
	if (c->state == CN_RESOLVING)
		return;
	c->port = (uint16_t)f->listen.port;
	for (int i = 0; c->state == CN_RESOLVED && i < c->n; i++) {
		struct sockaddr_storage a;
		socklen_t len = cn_address(c, i, &a);
		ls_bind(f, &a, len);
	}
	if (c->state == CN_FAILED)
		memcpy(f->why, c->why, sizeof f->why - 1);
	cn_release(&f->connector);
	ls_decided(f, f->socket[0] >= 0);	/* one address is enough (FWD-bind-any) */
}

/* The address to send for the listen host (FWD-host-rules); a proxy client's own is sent
 * unchanged. */
static const char *ls_remote_host(const struct forward *f)
{
	if (f->type == FW_PROXY)
		return f->listen.host;
	return f->listen.host[0] == 0 ? "localhost" : strcmp(f->listen.host, "*") == 0 ? "" :
		f->listen.host;
}

static void ls_tx(const struct forward *f, bool cancel, bool want_reply)
{
	struct buf *b = tx_begin(SSH_GLOBAL_REQUEST);
	if (fw_is_path(&f->listen)) {
		buf_put_text(b, cancel ? "cancel-streamlocal-forward@openssh.com" :
			"streamlocal-forward@openssh.com");
		buf_put_u8(b, want_reply);
		buf_put_text(b, f->listen.host);
	} else {
		buf_put_text(b, cancel ? "cancel-tcpip-forward" : "tcpip-forward");
		buf_put_u8(b, want_reply);
		buf_put_text(b, ls_remote_host(f));
		buf_put_u32(b, f->allocated ? f->allocated : f->listen.port);
	}
	tx_end(b);
}

/* StreamLocalBindUnlink: opens a session without a client, to remove the socket at f's path.
 * f's next try waits until the session ends.  False if none was opened. */
static bool ls_clear(struct forward *f)
{
	if (f->cleared || !g.op.bind_unlink || f->listen.host[0] != '/' ||
		g.ch.sessions >= g.ch.session_limit)
		return false;
	struct channel *c = ch_alloc(CH_SESSION, CH_OPENING);
	if (!c)
		return false;
	c->forward = sl_forward_index(f);
	f->cleared = true;
	f->state = FW_WAITING;
	f->retry_at = g.now + CONNECT_MS;
	tx_end(tx_channel_open("session", c, PACKET_MAX));
	return true;
}

/* test -S 'PATH' && rm -f 'PATH' */
static void ls_clear_command(const struct channel *c, const char *path)
{
	static const char *const words[] = { "test -S '", "' && rm -f '", "'" };
	char command[8 * FORWARD_HOST + 32];
	size_t n = 0;
	for (int i = 0; i < 3; i++) {
		n += (size_t)sprintf(command + n, "%s", words[i]);
		for (const char *p = path; i < 2 && *p; p++)
			n += (size_t)sprintf(command + n, *p == '\'' ? "'\\''" : "%c", *p);
	}
	struct buf *b = tx_request(c, "exec", false);
	buf_put_text(b, command);
	tx_end(b);
}

/* Follows that session: sends its command, and lets f try again once the session ends. */
static void ls_clearing(struct channel *c)
{
	struct forward *f = sl_forward(c->forward);
	if (c->state == CH_CONFIRMED) {
		if (f)
			ls_clear_command(c, f->listen.host);
		ch_become(c, CH_OPEN);
	}
	if (f && c->state != CH_DEAD && c->rcvd != CH_CLOSED)
		return;
	if (f)
		f->retry_at = g.now;
	c->forward = -1;
	rn_again();
}

/* The server's answer to the request for f. */
static void ls_answer(struct forward *f, bool granted, struct buf *b)
{
	if (f->state != FW_ASKED)
		return;
	if (granted && f->listen.port == 0)
		f->allocated = buf_get_u32(b);
	if (granted && f->listen.port == 0 && f->client < 0 && f->connect.port != FW_PATH)
		log_at(TP_INFO, "Allocated port %u for remote forward to %s:%u",
			(unsigned)f->allocated, f->connect.host, (unsigned)f->connect.port);
	if (!granted && fw_is_path(&f->listen) && ls_clear(f))
		return;
	if (!granted)
		snprintf(f->why, sizeof f->why, "the server refuses to listen there%s",
			 fw_is_path(&f->listen) && !g.op.bind_unlink ? LS_UNLINK_HINT : "");
	ls_decided(f, granted && !b->bad);
}

/* Starts to set up a forward of any type. */
static void ls_start(struct forward *f)
{
	if (f->type != FW_REMOTE)
		ls_listen(f);
	else if (g.lk.state == LK_UP && tx_may_ask()) {	/* else it stays in FW_WAITING */
		f->state = FW_ASKED;
		tx_expect(GLOBAL_FORWARD, sl_forward_index(f), false);
		ls_tx(f, false, true);
	}
}

/* The remote forward that a channel opened by the server belongs to, or NULL. */
static struct forward *ls_for_open(struct str host, uint32_t port)
{
	for_each_forward(f) {
		if (f->state == FW_ACTIVE && (f->type == FW_REMOTE || f->type == FW_PROXY) &&
		    str_is(host, fw_is_path(&f->listen) ? f->listen.host : ls_remote_host(f)) &&
		    port == (f->allocated ? f->allocated : f->listen.port))
			return f;
	}
	return NULL;
}

/* Whether f waits only until f->retry_at for its next try. */
static bool ls_is_due(const struct forward *f)
{
	return f->state == FW_WAITING && !(f->answered && f->client >= 0) &&
		(f->type != FW_REMOTE || (g.lk.state == LK_UP && tx_may_ask()));
}

/* The link is lost: listeners at the server are gone, local ones stay. */
static void ls_link_lost(void)
{
	for_each_forward(f) {
		if (f->type != FW_REMOTE || (f->state != FW_ASKED && f->state != FW_ACTIVE))
			continue;
		f->state = FW_WAITING;
		f->retry_at = 0;
		f->cleared = false;
		f->allocated = 0;
		f->since = ev_seconds();
		snprintf(f->why, sizeof f->why, "connection to the server lost");
		ev_add((struct event){ .kind = EV_FORWARD_DOWN }, ls_event(f, f->why));
	}
}

/* A failed forward that must end the master (ExitOnForwardFailure), NULL if there is none.
 * Forwards of clients never do. */
static const struct forward *ls_failed(void)
{
	for_each_forward(f) {
		if (f->client >= 0 || !f->answered)
			continue;
		f->answered = false;
		if (f->state != FW_ACTIVE && ls_is_vital(f))
			return f;
	}
	return NULL;
}

/* Each turn: sets up what is due, and follows what is being set up. */
static void ls_settle(void)
{
	for_each_forward(f)		/* each has its own back-off */
		if (g.lk.logins > 0 && ls_is_due(f) && g.now >= f->retry_at)
			ls_start(f);
	for_each_forward(f)
		if (f->state == FW_RESOLVING)
			ls_resolved(f);
	for_each_channel(c)
		if (c->kind == CH_SESSION && c->client < 0 &&
			(c->forward >= 0 || c->state == CH_CONFIRMED))
			ls_clearing(c);
}

/* ===== sk_ ====================================================================
 * SOCKS 4, 4a and 5, "no authentication", CONNECT: reads requests, builds replies.
 * Calls nobody. */

#define SK_MAX 1100		/* longest request, in bytes */

/* Reads a request of SOCKS 5 (RFC 1928, 4).  Returns as sk_step(). */
static int sk_request5(const uint8_t *p, size_t n, struct endpoint *to)
{
	if (n < 5)
		return 0;
	size_t len = p[3] == 1 ? 4 : p[3] == 4 ? 16 : p[3] == 3 ? p[4] : 0, at = p[3] == 3 ? 5 : 4;
	if (p[0] != 5 || p[1] != 1 || len == 0)
		return -1;
	if (n < at + len + 2)
		return 0;
	if (p[3] != 3)
		inet_ntop(p[3] == 1 ? AF_INET : AF_INET6, p + at, to->host, sizeof to->host);
	else if (len >= sizeof to->host || memchr(p + at, 0, len))
		return -1;
	else {
		memcpy(to->host, p + at, len);
		to->host[len] = 0;
	}
	to->port = (uint32_t)p[at + len] << 8 | p[at + len + 1];
	return (int)(at + len + 2);
}

/* Likewise, of SOCKS 4: address and user; 4a: a host, too.  NUL ends each. */
static int sk_request4(const uint8_t *p, size_t n, struct endpoint *to)
{
	if (p[0] != 4 || (n > 1 && p[1] != 1))
		return -1;
	const uint8_t *user = n > 8 ? memchr(p + 8, 0, n - 8) : NULL;
	if (!user)
		return 0;
	to->port = (uint32_t)p[2] << 8 | p[3];
	if (p[4] || p[5] || p[6] || !p[7]) {
		inet_ntop(AF_INET, p + 4, to->host, sizeof to->host);
		return (int)(user + 1 - p);
	}
	const uint8_t *host = user + 1, *end = memchr(host, 0, n - (size_t)(host - p));
	if (!end)
		return 0;
	if (end == host || (size_t)(end - host) >= sizeof to->host)
		return -1;
	memcpy(to->host, host, (size_t)(end - host) + 1);
	return (int)(end + 1 - p);
}

/* Reads one step of a SOCKS conversation, the greeting or the request, from the n bytes at p.
 * Returns the step's length, 0 if it is not complete yet, -1 if we do not support it.
 * c->socks becomes the version; a request sets *done and, once complete, fills *to. */
static int sk_step(struct channel *c, const uint8_t *p, size_t n, struct endpoint *to, bool *done)
{
	*done = false;
	if (n == 0)
		return 0;
	if (c->socks == 0 && p[0] == 5) {		/* RFC 1928, 3 */
		if (n < 2 || n < 2u + p[1])
			return 0;
		c->socks = 5;
		return memchr(p + 2, 0, p[1]) ? 2 + p[1] : -1;
	}
	*done = true;
	if (c->socks == 5)
		return sk_request5(p, n, to);
	int used = sk_request4(p, n, to);
	if (used > 0)
		c->socks = 4;
	return used;
}

static const uint8_t sk_method[] = { 5, 0 };

/* Writes the reply that grants a request, by c's SOCKS version; returns its length. */
static size_t sk_grant(const struct channel *c, uint8_t to[10])
{
	static const uint8_t v4[8] = { 0, 90 }, v5[10] = { 5, 0, 0, 1 };
	memcpy(to, c->socks == 4 ? v4 : v5, c->socks == 4 ? sizeof v4 : sizeof v5);
	return c->socks == 4 ? sizeof v4 : sizeof v5;
}

/* ===== co_ ====================================================================
 * Connections of forwards: those that a local listener accepts open a channel, those that
 * the server opens a channel for connect to their target.  Either may begin with SOCKS.
 * Calls log_, sl_, buf_, pool_, fd_, cn_, tx_, ch_, us_, ac_, fw_, sk_. */

/* c's connection succeeded (`why` is NULL) or failed.  Its forward counts failures; a reason
 * that repeats is logged only as verbose. */
static void co_tried(struct channel *c, const char *why)
{
	struct forward *f = sl_forward(c->forward);
	char text[sizeof f->why] = "";
	if (why)
		snprintf(text, sizeof text, "%s", why);
	bool known = why && f && f->told && strcmp(f->why, text) == 0;
	if (why)
		log_at(known ? TP_VERBOSE : f ? TP_INFO : log_once(LOG_NOT_OPENED),
			"channel %d: open failed: %s", sl_channel_index(c), text);
	if (!f)
		return;
	f->told = why != NULL;
	f->failed += why != NULL;
	if (why)
		memcpy(f->why, text, sizeof text);
}

/* Whether PermitRemoteOpen lets a remote dynamic forward connect to `to`. */
static bool co_permits(const struct endpoint *to)
{
	struct str host;
	uint32_t port;
	for (const char *p = g.op.permit_open; *p; p += *p == ' ') {
		if (!fw_destination(p, &host, &port))
			return strcasecmp(p, "any") == 0;
		if ((str_is(host, "*") || str_is(host, to->host)) &&
			(port == 0 || port == to->port))
			return true;
		p += strcspn(p, " ");
	}
	return false;
}

static void co_use_socket(struct channel *c, int fd)
{
	int on = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	c->end[CH_IN] = c->end[CH_OUT] = (struct passed){ .fd = fd, .nonblock = true };
}

/* Asks the server to connect to `to` for channel c. */
static void co_open(struct channel *c, const struct endpoint *to, const char *from_ip,
	uint32_t from_port)
{
	bool path = fw_is_path(to);
	struct buf *b = tx_channel_open(path ? "direct-streamlocal@openssh.com" : "direct-tcpip", c,
		PACKET_MAX);
	buf_put_text(b, to->host);
	if (!path)
		buf_put_u32(b, to->port);
	buf_put_text(b, path ? "" : from_ip);
	buf_put_u32(b, path ? 0 : from_port);
	tx_end(b);
}

/* Likewise, for a connection that a local listener accepted; sends its peer's address. */
static void co_open_for(struct channel *c, const struct endpoint *to)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof a;
	char ip[INET6_ADDRSTRLEN] = "127.0.0.1";
	int port = getpeername(c->end[CH_IN].fd, (struct sockaddr *)&a, &len) == 0 ?
		fd_ip_text(&a, ip) : 0;
	co_open(c, to, ip, port > 0 ? (uint32_t)port : 0);
	ch_become(c, CH_OPENING);
	c->deadline = 0;		/* none: it waits until the link ends */
}

/* Whether there is room to accept another connection. */
static bool co_wants_accept(void)
{
	return g.lk.state == LK_UP && tp_room() > 0 && g.now >= g.co.accept_after &&
		fd_room(1 + FD_SESSION);
}

static void co_accept(struct forward *f, int listener)
{
	int fd = fd_accept(listener, &g.co.accept_after);
	if (fd < 0)
		return;
	struct channel *c = g.lk.state == LK_UP ? ch_alloc(CH_LOCAL, CH_SOCKS_LOCAL) : NULL;
	if (!c || ac_is_crowded(f->uid)) {	/* the link may be lost since poll() */
		if (c)
			ch_become(c, CH_DEAD);
		close(fd);
		return;
	}
	co_use_socket(c, fd);
	c->forward = sl_forward_index(f);
	f->connections++;
	c->deadline = g.now + SOCKS_MS;
	if (f->type == FW_LOCAL)
		co_open_for(c, &f->connect);
}

/* A local socket in CH_SOCKS_LOCAL is readable.  Peeks at its bytes, and reads them only when
 * they complete a step.  `ended`: no more will come. */
static void co_socks_local(struct channel *c, bool ended)
{
	struct endpoint to;
	bool done = false;
	for (int i = 0; i < 2 && !done; i++) {		/* greeting and request may come together */
		ssize_t n = recv(c->end[CH_IN].fd, g.scratch, SK_MAX, MSG_PEEK);
		if (fd_result(n) == FD_AGAIN)
			return;
		int used = n > 0 ? sk_step(c, g.scratch, (size_t)n, &to, &done) : -1;
		int more = used == 0 ? (int)n + 1 : 1;
		setsockopt(c->end[CH_IN].fd, SOL_SOCKET, SO_RCVLOWAT, &more, sizeof more);
		if (used == 0 && n < SK_MAX && !ended)
			return;
		if (used <= 0 || fd_read(c->end[CH_IN].fd, g.scratch, (size_t)used) != used ||
		    (!done && fd_write(c->end[CH_IN].fd, sk_method, sizeof sk_method) < 2)) {
			ch_become(c, CH_DEAD);
			return;
		}
	}
	if (done)
		co_open_for(c, &to);
}

/* The server has opened a local socket's channel. */
static void co_local_opened(struct channel *c)
{
	uint8_t grant[10];
	ch_become(c, CH_OPEN);
	fw_accepted();
	co_tried(c, NULL);
	if (c->socks) {
		size_t n = sk_grant(c, grant);
		if (fd_write(c->end[CH_OUT].fd, grant, n) != (ssize_t)n)
			ch_end_output(c, CH_OUT);
	}
}

/* Gives up c's connection and reports the reason `why`, unless that is "". */
static void co_refuse(struct channel *c, const char *why)
{
	char text[200];
	snprintf(text, sizeof text, "connect failed: %s", why);
	if (*why)
		co_tried(c, text);
	cn_release(&c->connector);
	if (c->state == CH_CONNECTING) {
		tx_channel_open_failure(c->remote_id, SSH_OPEN_CONNECT_FAILED, *why ? why :
			"connect failed");
		ch_become(c, CH_DEAD);
	} else {
		ch_become(c, CH_OPEN);
		c->flags |= CH_FAILED;
		ch_end_output(c, CH_OUT);
	}
}

static void co_confirm(struct channel *c, enum ch_state next)
{
	struct buf *b = tx_begin(SSH_CHANNEL_OPEN_CONFIRMATION);
	buf_put_u32(b, c->remote_id);
	buf_put_u32(b, (uint32_t)sl_channel_index(c));
	buf_put_u32(b, c->window);
	buf_put_u32(b, PACKET_MAX);
	tx_end(b);
	ch_become(c, next);
}

/* Sends n bytes of our own to the server's side; false if they exceed its window or packet
 * size, or the link is down. */
static bool co_send_data(struct channel *c, const uint8_t *p, size_t n)
{
	if (g.lk.state != LK_UP || n > c->remote_window || n > c->remote_packet)
		return false;
	struct buf *b = tx_begin(SSH_CHANNEL_DATA);
	buf_put_u32(b, c->remote_id);
	buf_put_str(b, (struct str){ p, (uint32_t)n });
	tx_end(b);
	c->remote_window -= (uint32_t)n;
	return true;
}

/* The target is connected. */
static void co_connected(struct channel *c, int fd)
{
	uint8_t grant[10];
	co_use_socket(c, fd);
	co_tried(c, NULL);
	fw_accepted();
	if (c->state == CH_CONNECTING)
		co_confirm(c, CH_OPEN);
	else {
		ch_become(c, CH_OPEN);
		if (c->kind == CH_REMOTE && !co_send_data(c, grant, sk_grant(c, grant)))
			c->flags |= CH_FAILED;
	}
}

static void co_connect_path(struct channel *c, const char *path)
{
	int fd = us_connect(path);
	if (fd >= 0)
		co_connected(c, fd);
	else
		co_refuse(c, strerror(errno));
}

/* Starts to connect, or leaves that to a later turn if no connector is free. */
static void co_connect(struct channel *c, const struct endpoint *to)
{
	if (fw_is_path(to)) {
		co_connect_path(c, to->host);
		return;
	}
	c->connector = (int16_t)cn_take();
	if (c->connector >= 0)
		cn_start(&g.cn.slot[c->connector], to->host, (uint16_t)to->port, AF_UNSPEC,
			g.now + CONNECT_MS, g.now);
}

/* Checks whether c's connector has finished; gives c one if it still waits for one. */
static void co_connecting(struct channel *c)
{
	if (c->connector < 0) {
		if (c->forward < 0 || g.now >= c->deadline)
			co_refuse(c, "Connection timed out");
		else
			co_connect(c, &g.fw.slot[c->forward].connect);
		return;
	}
	struct connector *k = sl_connector(c->connector);
	if (k->state == CN_DONE) {
		int fd = k->fd;
		k->fd = -1;
		cn_release(&c->connector);
		co_connected(c, fd);
	} else if (k->state == CN_FAILED)
		co_refuse(c, k->why);
}

/* Grants more window once c's is used up: a request may be longer than the first window, and
 * is consumed only when it is complete. */
static void co_socks_widen(struct channel *c)
{
	uint32_t room = pool_room(c);
	if (c->window > 0 || room == 0)
		return;
	room = room < SK_MAX ? room : SK_MAX;
	c->window = room;
	pool_account(c);
	tx_window_adjust(c, room);
}

/* Reads SOCKS messages that came as channel data on a remote dynamic forward. */
static void co_socks_remote(struct channel *c)
{
	struct iovec iov[SK_MAX / WINDOW_BLOCK + 3];
	struct endpoint to;
	bool done = false;
	for (int i = 0; i < 2 && !done && cn_take() >= 0; i++) {
		size_t n = 0;
		int pieces = pool_iov(&c->queue[CH_OUT], iov, (int)LENGTH(iov));
		for (int k = 0; k < pieces && n < SK_MAX; k++) {
			size_t part = iov[k].iov_len < SK_MAX - n ? iov[k].iov_len : SK_MAX - n;
			memcpy(g.scratch + n, iov[k].iov_base, part);
			n += part;
		}
		int used = sk_step(c, g.scratch, n, &to, &done);
		if (used < 0 || (used == 0 && (n >= SK_MAX || c->rcvd >= CH_EOF))) {
			co_refuse(c, "");
			return;
		}
		if (used == 0) {
			co_socks_widen(c);
			return;
		}
		pool_drop(&c->queue[CH_OUT], (uint32_t)used);
		pool_account(c);
		if (!done && !co_send_data(c, sk_method, sizeof sk_method)) {
			co_refuse(c, "");
			return;
		}
	}
	if (done && co_permits(&to))
		co_connect(c, &to);
	else if (done) {
		co_tried(c, "administratively prohibited by PermitRemoteOpen");
		co_refuse(c, "");
	}
}

/* A slot for a channel that the server opens.  If none is free, refuses the channel and
 * returns NULL. */
static struct channel *co_server_channel(enum ch_kind kind, uint32_t id, uint32_t window,
	uint32_t packet)
{
	struct channel *c = fd_room(1 + FD_SESSION) ? ch_alloc(kind, CH_CONNECTING) : NULL;
	if (!c) {
		tx_channel_open_failure(id, SSH_OPEN_RESOURCE_SHORTAGE, "no channel is free");
		return NULL;
	}
	c->remote_id = id;
	c->remote_window = window;
	c->remote_packet = packet;
	return c;
}

/* The server opens a channel for forward f. */
static void co_server_open(struct forward *f, uint32_t id, uint32_t window, uint32_t packet)
{
	struct channel *c = co_server_channel(CH_REMOTE, id, window, packet);
	if (!c)
		return;
	c->forward = sl_forward_index(f);
	f->connections++;
	if (!fw_is_remote_dynamic(f)) {
		c->deadline = g.now + CONNECT_MS;
		co_connect(c, &f->connect);
		return;
	}
	c->deadline = g.now + SOCKS_MS;
	co_confirm(c, CH_SOCKS_REMOTE);
}

static void co_settle_channel(struct channel *c)
{
	bool speaks = c->state == CH_SOCKS_REMOTE || c->state == CH_GREETING;
	if (speaks && (c->rcvd == CH_CLOSED || g.now >= c->deadline))
		co_refuse(c, "");
	else if (c->connector >= 0 || c->state == CH_CONNECTING)
		co_connecting(c);
	else if (c->state == CH_SOCKS_REMOTE)
		co_socks_remote(c);
	else if (c->state == CH_CONFIRMED)
		co_local_opened(c);
	else if (c->state == CH_SOCKS_LOCAL && g.now >= c->deadline)
		ch_become(c, CH_DEAD);
}

static void co_settle(void)
{
	for_each_channel(c)
		if (ch_is_socket(c) && c->state != CH_DEAD)
			co_settle_channel(c);
}

/* ===== in_ ================================================================
 * Texts about the connection, its channels and forwards, for `-O conninfo`,
 * `-O channels`, ~I and ~#, with lines that end in CR LF (INFO-text).  The caller
 * provides the buffer; a line that does not fit is left out.
 * Calls sl_, buf_, fw_. */

/* The link's state for people: "up", "connecting", "reconnecting, try 7, next in
 * 12 s: Connection refused". */
static const char *in_state(void)
{
	static char text[280];
	if (g.lk.state == LK_UP)
		return tp_info()->exchanging ? "exchanging keys" : "up";
	int n = snprintf(text, sizeof text, "%s, try %u", g.lk.logins ? "reconnecting" :
		"connecting", (unsigned)g.lk.tries + 1);
	if (g.lk.state == LK_WAITING)
		n += snprintf(text + n, sizeof text - (size_t)n, ", next in %d s",
			(int)((g.lk.retry_at - g.now + 999) / 1000));
	if (g.lk.why[0])
		snprintf(text + n, sizeof text - (size_t)n, ": %s", g.lk.why);
	return text;
}

static void in_connection(struct buf *b)
{
	const struct tp_info *i = tp_info();
	int64_t s = (g.now - g.lk.connected_at) / 1000;
	buf_print(b, "Connection information for %s pid %d\r\n", g.op.tp.host, (int)getpid());
	if (g.lk.state != LK_UP) {
		buf_print(b, "  %s\r\n", in_state());
		return;
	}
	buf_print(b, "  tcp %s -> %s\r\n", g.lk.local, g.lk.remote);
	buf_print(b, "  duration %02d:%02d:%02d\r\n", (int)(s / 3600), (int)(s / 60 % 60),
		(int)(s % 60));
	buf_print(b, "  server %s\r\n", i->peer_version);
	buf_print(b, "  kexalgorithm %s\r\n", i->kex);
	buf_print(b, "  hostkeyalgorithm %s\r\n", i->host_key_algorithm);
	buf_print(b, "  hostkey %s\r\n", i->host_key_fingerprint);
	buf_print(b, "  cipher %s\r\n", i->cipher);
	buf_print(b, "  mac %s\r\n", i->mac);
	buf_print(b, "  compression none\r\n");
	buf_print(b, "  rekey count %u%s\r\n", (unsigned)i->key_exchanges, i->exchanging ?
		", exchanging keys" : "");
	buf_print(b, "  traffic %llu pkts %llu bytes in, %llu pkts %llu bytes out\r\n",
		 (unsigned long long)i->packets_in, (unsigned long long)i->bytes_in,
		 (unsigned long long)i->packets_out, (unsigned long long)i->bytes_out);
	buf_print(b, "  sessions %d of %d%s\r\n", g.ch.sessions, g.ch.session_limit,
		 g.ch.session_limit < SESSIONS ? " (the server's limit)" : "");
	buf_print(b, "  logins %u\r\n", (unsigned)g.lk.logins);
}

static void in_channels(struct buf *b)
{
	buf_print(b, "The following connections are open:\r\n");
	for_each_channel(c) {
		if (c->state == CH_DEAD)
			continue;
		buf_print(b, "  #%d %s (%s r%u i%u/%u o%u%s)\r\n", sl_channel_index(c),
			ch_kinds[c->kind].name, ch_states[c->state].name, (unsigned)c->remote_id,
			(unsigned)(c->queue[CH_OUT].len + c->queue[CH_ERR].len),
			(unsigned)c->window, (unsigned)c->remote_window, c->flags & CH_TTY ?
			" tty" : "");
	}
	for_each_forward(f)
		buf_print(b, "  forward %s: %s, %u of %u connection%s failed%s%s\r\n", fw_name(f),
			f->state == FW_ACTIVE ? "active" : "waiting", (unsigned)f->failed,
			(unsigned)f->connections, PLURAL(f->connections),
			f->why[0] ? ", last: " : "", f->why);
}

/* ===== es_ ================================================================
 * Escapes: a user types the escape character at the start of a line, then one byte
 * that names a command (ESC-…).  Only terminals have escapes; each session keeps its
 * own state in its channel's flags.
 * Calls sl_, buf_, tx_, ch_. */

#define ES_READ 128		/* typed bytes read in one turn: every two may make a request */
#define CONTROL(letter) ((letter) & 0x1f)

static const char es_help[] =
	"Supported escape sequences:\r\n"
	" ~.   - terminate session\r\n"
	" ~B   - send a BREAK to the remote system\r\n"
	" ~R   - request rekey\r\n"
	" ~#   - list forwarded connections\r\n"
	" ~I   - show connection information\r\n"
	" ~?   - this message\r\n"
	" ~~   - send the escape character by typing it twice\r\n"
	"(Note that escapes are only recognized immediately after newline.)\r\n";

static void es_text(struct channel *c, void (*print)(struct buf *))
{
	struct buf b = buf_over(g.scratch, sizeof g.scratch - 1);
	print(&b);
	g.scratch[b.pos] = 0;
	ch_tell(c, (const char *)g.scratch);
}

/* Runs the command that follows the escape character.  False if there is no such command:
 * then both characters are sent. */
static bool es_command(struct channel *c, uint8_t byte)
{
	char echo[64] = "";
	struct buf *b;
	bool sshmux = c->client >= 0 && sl_client(c->client)->sshmux;
	switch (byte) {
	case '.':	c->events |= CH_EV_HANG_UP; return true;
	case 'B':
		b = tx_request(c, "break", false);
		buf_put_u32(b, 1000);
		tx_end(b);
		break;
	case 'R':	tp_rekey(); return true;
	case '?':	ch_tell(c, es_help); return true;
	case '#':	ch_tell(c, "~#\r\n"); es_text(c, in_channels); return true;
	case 'I':	ch_tell(c, "~I\r\n"); es_text(c, in_connection); return true;
	case CONTROL('Z'):
		if (sshmux) {
			c->events |= CH_EV_SUSPEND;
			c->flags |= CH_SUSPENDED;
			return true;
		}
		snprintf(echo, sizeof echo, "~^Z escape not available to multiplexed sessions\r\n");
		break;
	case 'C': case 'V': case 'v': case '&':
		snprintf(echo, sizeof echo, "~%c escape not available to multiplexed sessions\r\n",
			byte);
		break;
	default:
		return false;
	}
	ch_tell(c, echo[0] ? echo : "~B\r\n");
	return true;
}

/* Handles one typed byte; returns how many bytes it puts at `to`, at most 2. */
static uint32_t es_byte(struct channel *c, uint8_t byte, uint8_t *to)
{
	uint32_t n = 0;
	if (c->flags & CH_ESCAPED) {
		c->flags &= (uint16_t)~CH_ESCAPED;
		if (byte != c->escape && es_command(c, byte))
			return 0;		/* still at a line start */
		if (byte != c->escape)
			to[n++] = (uint8_t)c->escape;
	} else if (c->flags & CH_LINE_START && byte == c->escape) {
		c->flags |= CH_ESCAPED;
		return 0;
	}
	c->flags &= (uint16_t)~CH_LINE_START;
	if (byte == '\r' || byte == '\n')
		c->flags |= CH_LINE_START;
	to[n++] = byte;
	return n;
}

/* ch_read() for sessions with escapes.  Sends at most one byte more than it reads: an escape
 * character that was held back. */
static uint32_t es_read(struct channel *c, uint32_t max)
{
	static uint8_t typed[ES_READ];
	uint32_t put = 0, held = (c->flags & CH_ESCAPED) != 0;
	max = ch_most(c, max < ES_READ ? max : ES_READ);
	uint32_t got = ch_input(c, typed, max > held ? max - held : 1);
	for (uint32_t i = 0; i < got && !(c->events & CH_EV_HANG_UP); i++) {
		/* a command may send, so what was typed before it goes first */
		if (c->flags & CH_ESCAPED && put > 0) {
			ch_send(c, put);
			put = 0;
		}
		put += es_byte(c, typed[i], ch_data() + put);
	}
	ch_send(c, put);
	return got;
}

/* ===== px_ ================================================================
 * Proxy mode (PROTOCOL.mux, MUX_C_PROXY): a client speaks the connection protocol
 * itself, and its socket takes the place of a transport.  A frame is
 *
 *	uint32 length (2 + payload) | byte 0 | byte type | payload
 *
 * Client and server both address channels by our numbers; most of the rest passes
 * unchanged.  A client can name only its own channels and forwards.  A message that
 * could make the server end the connection for all is checked before it is passed on;
 * a client that sends a bad one is dropped (px_drop()).
 *
 * Windows are not end to end.  The server is granted only what the pool can hold
 * (ch_credit()), and never more than the client has granted, so everything buffered
 * for a client fits its window.  Data waits unframed in the channel's queues and is
 * framed again when the socket takes it.  Everything else for a client is kept as
 * state of the channel (struct proxied), never as frames, so it needs no queue.
 *
 * `out` contains whole frames and perhaps the start of one more.  The rest of that
 * one is the `tail` oldest bytes of one channel's queue; until they are written, no
 * other frame begins.
 * Calls log_, sl_, buf_, pool_, req_, fd_, tx_, ch_, ac_, fw_, ls_. */

#define PX_HEADER 6
#define PX_FRAME_MAX (PROXY_STORE + 28)	/* longest frame, less its tail */
#define PX_DATA_MAX 32768		/* most data in one frame to a client */
#define PX_PUMP 256			/* writes to one client in one turn of the loop */
#define PX_PIECES 64

static bool px_is(const struct client *c)
{
	return c->phase >= MX_PROXY_HEAD;
}

/* Whether the link is lost and px_settle() will drop c, when all is written. */
static bool px_is_closing(const struct client *c)
{
	return px_is(c) && c->closing && !c->dead;
}

static void px_drop(struct client *c, const char *why)
{
	if (!c->dead)
		log_at(TP_VERBOSE, "proxy client %d dropped: %s", sl_client_index(c), why);
	c->dead = true;
}

static bool px_owns(const struct client *c, const struct channel *ch)
{
	return ch->kind == CH_PROXY && ch->client == sl_client_index(c) &&
	       ch->state != CH_FREE && ch->state != CH_DEAD;
}

/* The most data that fits in one message to the server with any header, up to `wanted`. */
static uint32_t px_packet_max(uint32_t wanted)
{
	uint32_t most = (uint32_t)tp_payload_max - SSH_DATA_HEADER - 4;
	return wanted < most ? wanted : most;
}

/* Gets ready for the next frame. */
static void px_next(struct client *c)
{
	req_free(&c->request);
	c->phase = MX_PROXY_HEAD;
	c->got = 0;
	c->deadline = 0;
}

/* While there is no link, the client's frames wait in its socket. */
static void px_begin(struct client *c)
{
	log_at(TP_VERBOSE, "proxy client %d", sl_client_index(c));
	c->moved[IN_BYTES] = c->moved[OUT_BYTES] = 0;
	px_next(c);
	if (g.lk.state != LK_UP)
		c->deadline = g.now + g.op.session_wait * 1000 + 1;
}

/* --- to the client ---------------------------------------------------------- */

static bool px_has_room(const struct client *c)
{
	return c->tail == 0 && sizeof c->out - c->out_len >= PX_FRAME_MAX;
}

static struct buf px_frame(struct client *c, enum ssh_type type)
{
	struct buf b = buf_over(c->out + c->out_len, sizeof c->out - c->out_len);
	buf_put_u32(&b, 0);
	buf_put_u8(&b, 0);
	buf_put_u8(&b, (uint8_t)type);
	return b;
}

/* Ends a frame.  Its last `tail` bytes, if any, are still in a queue. */
static void px_frame_end(struct client *c, struct buf *b, uint32_t tail)
{
	if (b->bad)
		log_abort("frame longer than PX_FRAME_MAX");
	buf_set_u32(b->p, (uint32_t)b->pos - 4 + tail);
	c->out_len += (uint16_t)b->pos;
	c->tail = tail;
}

/* Makes a frame of a channel number and, unless `word` is NULL, one word. */
static void px_tell_word(struct client *c, struct channel *ch, enum ssh_type type,
	const uint32_t *word)
{
	struct buf b = px_frame(c, type);
	buf_put_u32(&b, ch->px.id);
	if (word)
		buf_put_u32(&b, *word);
	px_frame_end(c, &b, 0);
}

/* Stock clients reject a frame shorter than five bytes, so an answer that needs no word
 * carries one too: the port, or 0. */
static void px_tell_answer(struct client *c)
{
	if (c->verdict <= PX_ASKED || !px_has_room(c))
		return;
	struct buf b = px_frame(c, c->verdict == PX_NO_CHANNEL ? SSH_CHANNEL_OPEN_FAILURE :
				c->verdict == PX_GRANTED ? SSH_REQUEST_SUCCESS :
				SSH_REQUEST_FAILURE);
	buf_put_u32(&b, c->word);
	if (c->verdict == PX_NO_CHANNEL) {
		buf_put_u32(&b, SSH_OPEN_RESOURCE_SHORTAGE);
		buf_put_text(&b, "no channel is free");
		buf_put_text(&b, "");
	}
	px_frame_end(c, &b, 0);
	c->verdict = PX_NONE;
}

/* Tells the client whether its channel was opened.  It cannot have used any of the server's
 * window yet, so it gets all of that here. */
static void px_tell_opened(struct client *c, struct channel *ch)
{
	struct proxied *px = &ch->px;
	bool open = ch->state == CH_CONFIRMED;
	struct buf b = px_frame(c, open ? SSH_CHANNEL_OPEN_CONFIRMATION : SSH_CHANNEL_OPEN_FAILURE);
	buf_put_u32(&b, px->id);
	if (open) {
		ch->remote_packet = px_packet_max(ch->remote_packet);
		px->adjust = 0;
		buf_put_u32(&b, (uint32_t)sl_channel_index(ch));
		buf_put_u32(&b, ch->remote_window);
		buf_put_u32(&b, ch->remote_packet);
	} else {
		buf_put_bytes(&b, px->store, 4);
		buf_put_str(&b, (struct str){ px->store + 4, px->stored - 4u });
		buf_put_text(&b, "");
	}
	px_frame_end(c, &b, 0);
	ch_become(ch, open ? CH_OPEN : CH_DEAD);
}

/* Ends the head of a frame; its other n bytes come from stream s of ch. */
static void px_set_tail(struct client *c, struct channel *ch, enum stream s, struct buf *b,
	uint32_t n)
{
	c->tail_channel = sl_channel_index(ch);
	c->tail_stream = (uint8_t)s;
	px_frame_end(c, b, n);
}

static void px_tell_data(struct client *c, struct channel *ch)
{
	bool err = ch->queue[CH_OUT].len == 0 ||
		(ch->queue[CH_ERR].len > 0 && ch->px.owed & PX_ERR_NEXT);
	struct buf b = px_frame(c, err ? SSH_CHANNEL_EXTENDED_DATA : SSH_CHANNEL_DATA);
	uint32_t n = ch->queue[err ? CH_ERR : CH_OUT].len;
	if (n > ch->px.packet)
		n = ch->px.packet;
	if (n > PX_DATA_MAX)
		n = PX_DATA_MAX;
	buf_put_u32(&b, ch->px.id);
	if (err)
		buf_put_u32(&b, SSH_EXTENDED_DATA_STDERR);
	buf_put_u32(&b, n);
	px_set_tail(c, ch, err ? CH_ERR : CH_OUT, &b, n);
	ch->px.owed = (uint8_t)(err ? ch->px.owed & ~PX_ERR_NEXT : ch->px.owed | PX_ERR_NEXT);
}

/* Passes on the oldest request in the store. */
static void px_tell_request(struct client *c, struct channel *ch)
{
	struct proxied *px = &ch->px;
	uint8_t len = px->store[0];
	struct buf request = buf_over(px->store + 1, len);
	if (str_is(buf_get_str(&request), "exit-status"))
		px->owed |= PX_STATUS;
	struct buf b = px_frame(c, SSH_CHANNEL_REQUEST);
	buf_put_u32(&b, px->id);
	buf_put_bytes(&b, px->store + 1, len);
	px_frame_end(c, &b, 0);
	px->stored -= (uint8_t)(len + 1);
	memmove(px->store, px->store + len + 1, px->stored);
}

static void px_tell_end(struct client *c, struct channel *ch)
{
	bool eof = ch->px.owed & PX_EOF;
	px_tell_word(c, ch, eof ? SSH_CHANNEL_EOF : SSH_CHANNEL_CLOSE, NULL);
	ch->px.owed &= (uint8_t)~((eof ? PX_EOF : PX_CLOSE) | PX_STATUS);
	if (!eof)
		ch->px.owed |= PX_CLOSED;
}

/* The link is lost between the exit status and the end of the output, so ssh would return
 * that status over a part of the output.  Another one takes its place. */
static void px_tell_lost(struct client *c, struct channel *ch)
{
	struct buf b = px_frame(c, SSH_CHANNEL_REQUEST);
	buf_put_u32(&b, ch->px.id);
	buf_put_text(&b, "exit-status");
	buf_put_u8(&b, false);		/* want_reply */
	buf_put_u32(&b, EXIT_SSH);
	px_frame_end(c, &b, 0);
	ch->px.owed &= (uint8_t)~PX_STATUS;
}

/* Whether dropbear closed a new session because another one ended (SES-stillborn).  At most,
 * its client knows that it was opened. */
static bool px_is_stillborn(const struct client *c, const struct channel *ch)
{
	return ch->px.owed & PX_FRESH && ch->rcvd == CH_CLOSED && ch->px.reopened < REOPENS &&
		!c->closing;
}

/* Opens that session again.  `adjust` becomes minus the window that the client knows of; the
 * new window is added when it comes. */
static void px_reopen(struct client *c, struct channel *ch)
{
	bool told = ch->state == CH_OPEN;
	tx_channel(SSH_CHANNEL_CLOSE, ch);
	ch->rcvd = CH_FLOWS;
	ch->px.owed = told ? PX_FRESH | PX_REOPENED : PX_FRESH;
	ch->px.adjust -= ch->remote_window;
	ch->px.reopened++;
	ch_become(ch, CH_OPENING);
	c->reopening += told;
	tx_end(tx_channel_open("session", ch, ch->px.packet));
}

/* The server's answer to that.  The client has already heard of the first open and hears
 * nothing of the second. */
static void px_reopened(struct client *c, struct channel *ch)
{
	ch->remote_packet = px_packet_max(ch->remote_packet);
	ch->px.owed &= (uint8_t)~PX_REOPENED;
	c->reopening--;
	if (ch->state == CH_REFUSED || (int32_t)ch->px.adjust < 0)
		px_drop(c, "its session was closed and cannot be opened again");
	ch_become(ch, ch->state == CH_REFUSED ? CH_DEAD : CH_OPEN);
}

/* Puts the next due frame of channel ch, if any, into c->out; data goes before EOF and CLOSE. */
static void px_tell(struct client *c, struct channel *ch)
{
	struct proxied *px = &ch->px;
	bool decided = ch->state == CH_CONFIRMED || ch->state == CH_REFUSED;
	if (px->owed & PX_OPEN) {
		struct buf b = px_frame(c, SSH_CHANNEL_OPEN);
		px->owed &= (uint8_t)~PX_OPEN;
		px_set_tail(c, ch, CH_OUT, &b, ch->queue[CH_OUT].len);
	} else if (px_is_stillborn(c, ch))
		px_reopen(c, ch);
	else if (decided && c->closing)		/* not the server's verdict */
		return;
	else if (decided && px->owed & PX_REOPENED)
		px_reopened(c, ch);
	else if (decided)
		px_tell_opened(c, ch);
	else if (ch->state != CH_OPEN)
		return;
	else if (px->adjust) {
		px_tell_word(c, ch, SSH_CHANNEL_WINDOW_ADJUST, &px->adjust);
		px->adjust = 0;
	} else if (px->n_verdicts) {
		px_tell_word(c, ch, px->verdicts & 1 ? SSH_CHANNEL_SUCCESS : SSH_CHANNEL_FAILURE,
			NULL);
		px->verdicts >>= 1;
		px->n_verdicts--;
	} else if (!ch_empty(ch))
		px_tell_data(c, ch);
	else if (px->stored)
		px_tell_request(c, ch);
	else if (px->owed & (PX_EOF | PX_CLOSE) &&
		(!(px->owed & PX_FRESH) || ch->rcvd == CH_CLOSED))
		px_tell_end(c, ch);
	else if (px->owed & PX_STATUS && c->closing)
		px_tell_lost(c, ch);
}

/* Fills c->out with due frames, one channel after another. */
static void px_fill(struct client *c)
{
	px_tell_answer(c);
	for (int n = 0; n < g.ch.end && px_has_room(c); n++) {
		c->next_channel = (int16_t)((c->next_channel + 1) % g.ch.end);
		struct channel *ch = &g.ch.slot[c->next_channel];
		if (px_owns(c, ch))
			px_tell(c, ch);
	}
}

/* n bytes of the tail were written. */
static void px_written(struct client *c, uint32_t n)
{
	struct channel *ch = &g.ch.slot[c->tail_channel];
	pool_drop(&ch->queue[c->tail_stream], n);
	c->tail -= n;
	if (ch->state == CH_OPEN) {
		ch->px.window -= n;
		ch->consumed += n;
	}
	pool_account(ch);
}

/* Points iov at the tail; returns the number of pieces. */
static int px_tail_iov(const struct client *c, struct iovec *iov)
{
	int n = pool_iov(&g.ch.slot[c->tail_channel].queue[c->tail_stream], iov, PX_PIECES);
	size_t left = c->tail;
	for (int i = 0; i < n; i++) {
		if (iov[i].iov_len >= left) {
			iov[i].iov_len = left;
			return i + 1;
		}
		left -= iov[i].iov_len;
	}
	return n;
}

/* Writes as much as the socket takes; false when it takes no more. */
static bool px_write(struct client *c)
{
	struct iovec iov[1 + PX_PIECES];
	size_t head = c->out_len - c->out_pos;
	int n = 0;
	if (head > 0)
		iov[n++] = (struct iovec){ c->out + c->out_pos, head };
	if (c->tail > 0)
		n += px_tail_iov(c, iov + n);
	ssize_t w = fd_writev(c->fd, iov, n);
	if (w == FD_ERROR)
		px_drop(c, "it does not read");
	if (w <= 0)
		return false;
	size_t part = (size_t)w < head ? (size_t)w : head;
	c->out_pos += (uint16_t)part;
	if (c->out_pos == c->out_len)
		c->out_pos = c->out_len = 0;
	if ((size_t)w > part)
		px_written(c, (uint32_t)((size_t)w - part));
	return true;
}

/* Writes and refills in turn, until nothing is due, the socket is full or PX_PUMP writes are
 * done. */
static void px_pump(struct client *c)
{
	px_fill(c);
	for (int i = 0; i < PX_PUMP && !c->dead && (c->out_len || c->tail) && px_write(c); i++)
		px_fill(c);
}

/* --- from the server, except data -------------------------------------------- */

static void px_server_refused(struct channel *ch, uint32_t code, struct str text)
{
	uint32_t len = text.len < PROXY_STORE - 4 ? text.len : PROXY_STORE - 4;
	buf_set_u32(ch->px.store, code);
	memcpy(ch->px.store + 4, text.p, len);
	ch->px.stored = (uint8_t)(4 + len);
}

/* A channel request from the server; b has been read up to and including want_reply.  A
 * keepalive is answered here: a stopped client must not end the connection for all. */
static void px_server_request(struct channel *ch, const struct buf *b, struct str name,
	bool want_reply)
{
	struct proxied *px = &ch->px;
	size_t at = 1 + 4, len = b->len - at;
	if (ch->sent == CH_CLOSED)
		return;
	if (want_reply && px->asked == 0 && str_is(name, "keepalive@openssh.com")) {
		tx_channel(SSH_CHANNEL_FAILURE, ch);
		return;
	}
	if (len + 1 > (size_t)(PROXY_STORE - px->stored) || px->asked == UINT8_MAX) {
		px_drop(sl_client(ch->client), "too many requests of the server wait for it");
		return;
	}
	px->store[px->stored] = (uint8_t)len;
	memcpy(px->store + px->stored + 1, b->p + at, len);
	px->stored += (uint8_t)(len + 1);
	px->asked += want_reply;
}

/* The server's answer to the client's oldest request on ch; false if there was no request. */
static bool px_server_reply(struct channel *ch, bool success)
{
	struct proxied *px = &ch->px;
	if (px->pending == 0)
		return false;
	px->pending--;
	px->verdicts |= (uint32_t)success << px->n_verdicts++;
	return true;
}

/* The server's answer to a global request.  If the client has left meanwhile, a forward just
 * granted is cancelled. */
static void px_server_answer(const struct global_request *r, bool granted, struct buf *b)
{
	struct forward *f = &g.fw.slot[r->of];
	struct client *c = sl_client(f->client);
	bool cancel = r->kind == GLOBAL_PROXY_CANCEL;
	if (!cancel && granted && f->listen.port == 0)
		f->allocated = buf_get_u32(b);
	if (c && r->reply) {
		c->verdict = granted ? PX_GRANTED : PX_REFUSED;
		c->word = granted && !cancel ? f->allocated : 0;
	}
	if (granted && !cancel) {
		f->state = FW_ACTIVE;
		if (!c)
			ls_tx(f, true, false);
	}
	if (!c || granted == cancel)
		fw_free(f);
}

/* The server opens a channel for a proxy client's forward.  The message waits in the
 * channel's own queue, which is free: no window has been granted yet. */
static void px_server_open(struct forward *f, struct buf *b, uint32_t id, uint32_t window,
	uint32_t packet)
{
	struct channel *ch = f->client < 0 ? NULL : ch_alloc(CH_PROXY, CH_CONNECTING);
	if (ch) {
		ch->window = 0;
		pool_account(ch);
	}
	if (!ch || pool_room(ch) < b->len - 1) {
		tx_channel_open_failure(id, SSH_OPEN_RESOURCE_SHORTAGE, "no channel is free");
		if (ch)
			ch_become(ch, CH_DEAD);
		return;
	}
	ch->client = f->client;
	ch->remote_id = id;
	ch->remote_window = window;
	ch->remote_packet = px_packet_max(packet);
	uint8_t *terms = b->p + 1 + 4 + buf_u32_at(b->p + 1);
	buf_set_u32(terms, (uint32_t)sl_channel_index(ch));
	buf_set_u32(terms + 8, ch->remote_packet);
	pool_put(&ch->queue[CH_OUT], b->p + 1, b->len - 1);
	pool_account(ch);
	ch->px.owed = PX_OPEN;
}

/* --- from the client ----------------------------------------------------------- */

/* Passes on the message in b, which lacks its type byte. */
static void px_pass(const struct client *c, const struct buf *b)
{
	struct buf *m = tx_begin((enum ssh_type)c->type);
	buf_put_bytes(m, b->p, b->len);
	tx_end(m);
}

/* Passes on a message to channel ch that has been checked in full. */
static void px_relay(const struct client *c, struct channel *ch, const struct buf *b)
{
	buf_set_u32(b->p, ch->remote_id);
	ch->px.owed &= (uint8_t)~PX_FRESH;
	px_pass(c, b);
}

/* The channel of c that a message names.  If c may not name it, drops c and returns NULL. */
static struct channel *px_channel(struct client *c, struct buf *b, enum ch_state state)
{
	uint32_t id = buf_get_u32(b);
	struct channel *ch = b->bad ? NULL : sl_channel(id);
	if (ch && px_owns(c, ch) && ch->state == state && ch->sent != CH_CLOSED)
		return ch;
	px_drop(c, "message for a channel that is not its own");
	return NULL;
}

/* Reads a name, or another text that a server treats as a C string.  b turns bad if it is
 * longer than `most`. */
static struct str px_text(struct buf *b, uint32_t most)
{
	struct str s = buf_get_text(b);
	b->bad |= s.len > most;
	return s;
}

#define PX_NAME_MAX 64		/* RFC 4250, 4.6.1 */

/* Reads terminal modes (RFC 4254, 8): a word follows each opcode from 1 to 159, any other
 * opcode ends them. */
static void px_modes(struct buf *b)
{
	struct str s = buf_get_str(b);
	struct buf modes = buf_over((void *)(uintptr_t)s.p, s.len);
	for (uint8_t code = s.len ? 1 : 0; code > 0 && code < 160 && !modes.bad;)
		if ((code = buf_get_u8(&modes)) > 0 && code < 160)
			buf_get_u32(&modes);
	b->bad |= modes.bad;
}

/* The fields that follow the head of each message that servers know: b a byte, u a word, s a
 * text, m terminal modes; nothing may follow them.  Other messages pass unchecked, for the
 * server to refuse. */
struct px_shape {
	const char *name, *fields;
};
static const struct px_shape px_opens[] = {
	{ "session", "" }, { "direct-tcpip", "susu" }, { "direct-streamlocal@openssh.com", "ssu" },
	{ "tun@openssh.com", "uu" }, { NULL, NULL }
}, px_requests[] = {
	{ "pty-req", "suuuum" }, { "x11-req", "bssu" }, { "env", "ss" }, { "shell", "" },
	{ "exec", "s" }, { "subsystem", "s" }, { "window-change", "uuuu" }, { "signal", "s" },
	{ "break", "u" }, { "auth-agent-req@openssh.com", "" }, { "agent-req", "" },
	{ "eow@openssh.com", "" }, { NULL, NULL }
};

/* Reads the rest of b as the message `name`; b turns bad if the fields do not match. */
static void px_check(struct buf *b, struct str name, const struct px_shape *shape)
{
	while (shape->name && !str_is(name, shape->name))
		shape++;
	const char *f = shape->name ? shape->fields : "";
	for (; *f; f++)
		if (*f == 'b')
			buf_get_u8(b);
		else if (*f == 'u')
			buf_get_u32(b);
		else if (*f == 's')
			px_text(b, tx_text_max());
		else
			px_modes(b);
	b->bad |= shape->name && b->pos < b->len;
}

/* Whether b is good and read to its end. */
static bool px_whole(struct buf *b)
{
	b->bad |= b->pos < b->len;
	return !b->bad;
}

/* Reads the client's sender channel, window and packet size from b into ch, and puts ours in
 * their place.  False if they are invalid. */
static bool px_terms(struct channel *ch, struct buf *b)
{
	uint8_t *at = b->p + b->pos;
	ch->px.id = buf_get_u32(b);
	ch->px.window = buf_get_u32(b);
	ch->px.packet = buf_get_u32(b);
	if (b->bad || ch->px.packet == 0)
		return false;
	ch->window = 0;
	pool_account(ch);
	uint32_t grant = pool_start(ch);
	ch->window = grant < ch->px.window ? grant : ch->px.window;
	pool_account(ch);
	buf_set_u32(at, (uint32_t)sl_channel_index(ch));
	buf_set_u32(at + 4, ch->window);
	buf_set_u32(at + 8, ch->px.packet < PACKET_MAX ? ch->px.packet : PACKET_MAX);
	return true;
}

static void px_channel_open(struct client *c, UNUSED struct channel *none, struct buf *b)
{
	struct str type = px_text(b, PX_NAME_MAX);
	struct buf terms = *b;
	uint32_t id = buf_get_u32(b);
	buf_get_u32(b);
	buf_get_u32(b);
	px_check(b, type, px_opens);
	struct channel *ch = b->bad || ac_is_crowded(c->peer.uid) ? NULL :
		ch_alloc(CH_PROXY, CH_OPENING);
	if (!ch) {
		c->verdict = PX_NO_CHANNEL;
		c->word = id;
	} else if (!px_terms(ch, &terms)) {
		ch_become(ch, CH_DEAD);
		px_drop(c, "channel open");
	} else {
		ch->client = sl_client_index(c);
		ch->px.owed = str_is(type, "session") && tx_peer_is("dropbear") ? PX_FRESH : 0;
		px_pass(c, b);
	}
}

/* c's answer to a CHANNEL_OPEN.  It cannot come before c has read that message in full. */
static void px_open_answer(struct client *c, struct channel *ch, struct buf *b)
{
	bool open = c->type == SSH_CHANNEL_OPEN_CONFIRMATION;
	if (!ch_empty(ch) || ch->px.owed & PX_OPEN) {
		px_drop(c, "answer to a channel open that it has not got");
		return;
	}
	if (open && !px_terms(ch, b)) {
		px_drop(c, "channel open confirmation");
		return;
	}
	if (!open) {
		buf_get_u32(b);
		px_text(b, tx_text_max());
		px_text(b, tx_text_max());
	}
	if (!px_whole(b))
		return;
	ch_become(ch, open ? CH_OPEN : CH_DEAD);
	px_relay(c, ch, b);
}

/* The client grants more window.  It is kept here and granted to the server as the pool
 * allows. */
static void px_window_adjust(struct client *c, struct channel *ch, struct buf *b)
{
	uint32_t more = buf_get_u32(b);
	if (more > UINT32_MAX - ch->px.window)
		px_drop(c, "window beyond 2^32-1");
	else
		ch->px.window += more;
}

/* The fixed part of DATA or EXTENDED_DATA.  The data itself is still in the socket; c->rid is
 * its length by the frame's header. */
static void px_data(struct client *c, struct channel *ch, struct buf *b)
{
	if (c->type == SSH_CHANNEL_EXTENDED_DATA)
		buf_get_u32(b);
	uint32_t len = buf_get_u32(b);
	if (len != c->rid || len > ch->remote_packet || len > ch->remote_window ||
		ch->sent >= CH_EOF) {
		px_drop(c, "data that does not fit");
		return;
	}
	ch->remote_window -= len;
	if (len == 0)
		return;
	c->phase = MX_PROXY_DATA;
	c->body_len = len;
}

/* Passes on a message, but drops it if the server has already closed the channel; only a
 * CLOSE still goes out then (px_close()). */
static void px_relay_open(const struct client *c, struct channel *ch, const struct buf *b)
{
	if (ch->rcvd != CH_CLOSED)
		px_relay(c, ch, b);
}

static void px_eof(struct client *c, struct channel *ch, struct buf *b)
{
	if (!px_whole(b))
		return;
	if (ch->sent >= CH_EOF) {
		px_drop(c, "a second EOF");
		return;
	}
	ch->sent = CH_EOF;
	px_relay_open(c, ch, b);
}

static void px_close(struct client *c, struct channel *ch, struct buf *b)
{
	if (!px_whole(b))
		return;
	ch->sent = CH_CLOSED;
	px_relay(c, ch, b);
}

static void px_channel_request(struct client *c, struct channel *ch, struct buf *b)
{
	struct str name = px_text(b, PX_NAME_MAX);
	bool want_reply = buf_get_u8(b), pty = str_is(name, "pty-req");
	px_check(b, name, px_requests);
	if (b->bad || ch->rcvd == CH_CLOSED)
		return;
	if ((pty && ch->flags & CH_TTY) ||
		(want_reply && ch->px.pending + ch->px.n_verdicts >= PX_VERDICTS)) {
		px_drop(c, pty ? "a second terminal" : "too many requests without an answer");
		return;
	}
	ch->flags |= pty ? CH_TTY : 0;
	ch->px.pending += want_reply;
	px_relay(c, ch, b);
}

static void px_channel_reply(struct client *c, struct channel *ch, struct buf *b)
{
	if (!px_whole(b))
		return;
	if (ch->px.asked == 0) {
		px_drop(c, "answer to a request that was not made");
		return;
	}
	ch->px.asked--;
	px_relay_open(c, ch, b);
}

/* The forward of c that listens at host:port, or path; NULL if it has none. */
static struct forward *px_forward(const struct client *c, const struct endpoint *at)
{
	for_each_forward(f) {
		if (f->type == FW_PROXY && f->client == sl_client_index(c) &&
		    strcmp(f->listen.host, at->host) == 0 &&
		    at->port == (f->allocated ? f->allocated : f->listen.port))
			return f;
	}
	return NULL;
}

/* Whether the server still owes an answer about f. */
static bool px_in_flight(const struct forward *f)
{
	for (int i = 0; i < g.tx.n_global; i++)
		if (g.tx.global[i].kind >= GLOBAL_PROXY && &g.fw.slot[g.tx.global[i].of] == f)
			return true;
	return false;
}

/* Asks the server to listen at `at` for c, or to stop.  Always wants a reply: the master must
 * know.  False if it cannot ask. */
static bool px_ask(struct client *c, const struct endpoint *at, bool cancel, bool reply)
{
	struct forward like = { .type = FW_PROXY, .listen = *at };
	struct forward *f = px_forward(c, at);
	if (!tx_may_ask() || (cancel && (!f || px_in_flight(f))) || (f && !cancel && at->port != 0))
		return false;
	if (!cancel && !(f = fw_add(&like)))
		return false;
	if (!cancel) {
		f->client = sl_client_index(c);
		f->state = FW_ASKED;
	}
	tx_expect(cancel ? GLOBAL_PROXY_CANCEL : GLOBAL_PROXY, sl_forward_index(f), reply);
	ls_tx(f, cancel, true);
	return true;
}

/* Requests to listen at the server are passed on.  All others are answered here; above all,
 * "no-more-sessions@openssh.com" must not reach the server. */
static void px_global_request(struct client *c, UNUSED struct channel *none, struct buf *b)
{
	struct str name = buf_get_str(b);
	bool reply = buf_get_u8(b), asked = false;
	bool cancel = name.len > 7 && memcmp(name.p, "cancel-", 7) == 0;
	struct str what = { name.p + (cancel ? 7 : 0), name.len - (cancel ? 7 : 0) };
	bool tcp = str_is(what, "tcpip-forward"),
		path = str_is(what, "streamlocal-forward@openssh.com");
	if (tcp || path) {
		struct endpoint at = { .port = FW_PATH };
		struct str host = buf_get_text(b);
		if (tcp)
			at.port = buf_get_u32(b);
		if (b->bad)
			return;
		if (host.len < sizeof at.host && (path || at.port <= 65535)) {
			memcpy(at.host, host.p, host.len);
			asked = px_ask(c, &at, cancel, reply);
		}
	}
	if (reply && !b->bad)
		c->verdict = asked ? PX_ASKED : PX_REFUSED;
	c->word = 0;
}

static const struct {
	uint8_t type;
	uint8_t state;			/* of the channel that it names; CH_FREE: it names none */
	void (*run)(struct client *, struct channel *, struct buf *);
} px_table[] = {
	{ SSH_GLOBAL_REQUEST, CH_FREE, px_global_request },
	{ SSH_CHANNEL_OPEN, CH_FREE, px_channel_open },
	{ SSH_CHANNEL_OPEN_CONFIRMATION, CH_CONNECTING, px_open_answer },
	{ SSH_CHANNEL_OPEN_FAILURE, CH_CONNECTING, px_open_answer },
	{ SSH_CHANNEL_WINDOW_ADJUST, CH_OPEN, px_window_adjust },
	{ SSH_CHANNEL_DATA, CH_OPEN, px_data },
	{ SSH_CHANNEL_EXTENDED_DATA, CH_OPEN, px_data },
	{ SSH_CHANNEL_EOF, CH_OPEN, px_eof },
	{ SSH_CHANNEL_CLOSE, CH_OPEN, px_close },
	{ SSH_CHANNEL_REQUEST, CH_OPEN, px_channel_request },
	{ SSH_CHANNEL_SUCCESS, CH_OPEN, px_channel_reply },
	{ SSH_CHANNEL_FAILURE, CH_OPEN, px_channel_reply },
};

/* A message has come: all of it, or all but its data. */
static void px_dispatch(struct client *c)
{
	struct buf b = buf_over(req_body(c), c->body_len);
	size_t i = 0;
	while (i < LENGTH(px_table) && px_table[i].type != c->type)
		i++;
	if (i == LENGTH(px_table)) {
		px_drop(c, "a message of a type that is not for it to send");
		return;
	}
	enum ch_state state = (enum ch_state)px_table[i].state;
	struct channel *ch = state == CH_FREE ? NULL : px_channel(c, &b, state);
	if (ch || state == CH_FREE)
		px_table[i].run(c, ch, &b);
	if (b.bad)
		px_drop(c, "malformed message");
	if (c->phase == MX_PROXY_BODY)
		px_next(c);
	c->got = 0;
}

/* The header of a frame has come: decides where the rest goes. */
static void px_head(struct client *c)
{
	uint32_t length = buf_u32_at(c->header);
	uint32_t fixed = c->header[5] == SSH_CHANNEL_DATA ? 8 :
		c->header[5] == SSH_CHANNEL_EXTENDED_DATA ? 12 : 0;
	c->type = c->header[5];
	c->got = 0;
	c->body_len = fixed ? fixed : length - 2;
	c->rid = length - 2 - fixed;
	if (length < 2 + 4 || length > MUX_FRAME_MAX || length - 2 < fixed || c->header[4] != 0)
		px_drop(c, "not a frame");
	else if (c->body_len >= tp_payload_max || c->body_len > REQUEST_MAX)
		px_drop(c, "message too long");
	else if (c->body_len <= MX_SMALL)
		c->phase = MX_PROXY_BODY;
	else {
		c->phase = MX_PROXY_WAIT;
		c->deadline = g.now + SESSION_WAIT_MS;
	}
}

/* Reads up to `want` bytes into `to` and adds them to c->got; 0 if none are there now. */
static uint32_t px_fetch(struct client *c, uint8_t *to, size_t want)
{
	ssize_t n = fd_read(c->fd, to, want);
	if (n == FD_END || n == FD_ERROR)
		px_drop(c, "it has left");
	if (n < (ssize_t)want)
		c->sender.input = SD_NONE;
	if (n <= 0)
		return 0;
	c->got += (uint32_t)n;
	return (uint32_t)n;
}

/* Reads the data that is there from the socket straight into a message. */
static uint32_t px_relay_data(struct client *c, uint32_t max)
{
	struct buf fixed = buf_over(c->small, 4);
	struct channel *ch = px_channel(c, &fixed, CH_OPEN);
	uint8_t *p = tp_payload();
	uint32_t head = c->type == SSH_CHANNEL_DATA ? SSH_DATA_HEADER : SSH_DATA_HEADER + 4;
	uint32_t want = c->body_len - c->got;
	if (!ch)
		return 0;
	if (want > max)
		want = max;
	if (want > tp_payload_max - head)
		want = (uint32_t)tp_payload_max - head;
	uint32_t n = px_fetch(c, p + head, want);
	if (c->got == c->body_len)
		px_next(c);
	if (n == 0 || ch->rcvd == CH_CLOSED)
		return n;
	p[0] = (uint8_t)c->type;
	memcpy(p + 1, c->small, head - 1);
	buf_set_u32(p + 1, ch->remote_id);
	buf_set_u32(p + head - 4, n);
	ch->px.owed &= (uint8_t)~PX_FRESH;
	tp_send(head + n);
	ch_count(ch, IN_BYTES, n);
	return n;
}

static bool px_may_read(const struct client *c)
{
	return px_is(c) && !c->dead && !c->closing && c->verdict == PX_NONE && !c->reopening &&
		c->phase != MX_PROXY_WAIT && g.rn.stop != RN_NOW;
}

/* Whether to poll for input.  The caller checks the transport's room, once for all clients. */
static bool px_wants_read(const struct client *c)
{
	return px_may_read(c) && c->sender.input == SD_NONE;
}

/* Whether poll() has announced input that is still unread. */
static bool px_wants_send(const struct client *c)
{
	return px_may_read(c) && c->sender.input != SD_NONE;
}

/* Reads one step, with at most `max` bytes of data.  Returns how many bytes it read; 0 if
 * none are there now.  Precondition: px_wants_send() and room in the transport. */
static uint32_t px_read(struct client *c, uint32_t max)
{
	uint32_t n = 0;
	if (c->phase == MX_PROXY_HEAD) {
		n = px_fetch(c, c->header + c->got, PX_HEADER - c->got);
		if (c->got == PX_HEADER)
			px_head(c);
	} else if (c->phase == MX_PROXY_BODY) {
		n = px_fetch(c, req_body(c) + c->got, c->body_len - c->got);
		if (c->got == c->body_len)
			px_dispatch(c);
	} else if (c->phase == MX_PROXY_DATA)
		n = px_relay_data(c, max);
	return n;
}

/* --- each turn, and the end ------------------------------------------------------ */

/* Runs after px_settle(): what that wrote to clients may have made room for more data, and no
 * later event would tell us. */
static void px_settle_channels(void)
{
	bool may_send = g.lk.state == LK_UP && !tp_info()->exchanging;
	for_each_channel(ch) {
		if (!ch_is_proxied(ch) || ch->state != CH_OPEN)
			continue;
		if (ch->px.owed & PX_CLOSED && ch->sent == CH_CLOSED)
			ch_become(ch, CH_DEAD);
		else if (may_send)
			ch_credit(ch);
	}
}

/* An unfinished message takes up room in req_, so the client gets a deadline.  Time in which
 * the master does not read does not count. */
static void px_settle(struct client *c)
{
	if (c->phase == MX_PROXY_HEAD && g.lk.state == LK_UP && !c->closing)
		c->deadline = 0;	/* set by px_begin() */
	if (c->request >= 0 && g.lk.state == LK_UP && tp_room() == 0)
		c->deadline = g.now + REQUEST_MS;
	px_pump(c);
	if (c->closing && c->out_len == 0 && c->tail == 0)
		px_drop(c, "the link is lost");
}

/* The client is gone: closes its channels and cancels its forwards, at once or when the
 * server has answered. */
static void px_leave(struct client *c)
{
	for_each_channel(ch) {
		if (!px_owns(c, ch))
			continue;
		if (ch->state != CH_CONNECTING) {
			ch_abandon(ch);
			continue;
		}
		if (g.lk.state == LK_UP && !c->closing)
			tx_channel_open_failure(ch->remote_id, SSH_OPEN_CONNECT_FAILED,
				"connect failed");
		ch_become(ch, CH_DEAD);
	}
	for_each_forward(f) {
		if (f->type != FW_PROXY || f->client != sl_client_index(c))
			continue;
		f->client = -1;
		if (px_in_flight(f))
			continue;
		if (g.lk.state == LK_UP)
			ls_tx(f, true, false);
		fw_free(f);
	}
}

/* The link is lost, and the listeners at the server with it.  Clients have FAREWELL_MS to
 * read what has already come for them. */
static void px_link_lost(void)
{
	for_each_client(c)
		if (px_is(c)) {
			c->closing = true;
			c->deadline = g.now + FAREWELL_MS;
		}
	for_each_forward(f)
		if (f->type == FW_PROXY)
			fw_free(f);
}

/* ===== xf_ ================================================================
 * Forwards the agent and X displays to programs at the server, each only if the master
 * allows it and a session asked (RFC 4254, 6.3).
 * Each session gets a fake cookie of its own for programs at the server.  The cookie
 * tells which display is meant: the one of the session's client if that is an sshmux,
 * else the master's.  A program that shows it is let through, and the display's own
 * cookie takes its place.  A connection to the agent shows nothing that tells sessions
 * apart, so all go to the master's agent.  There are DISPLAYS slots; one is free again
 * when no open channel uses it.
 * Calls log_, rn_, ev_, buf_, pool_, cn_, ex_, tx_, ch_, co_. */

static const char xf_protocol[] = "MIT-MAGIC-COOKIE-1";

/* The path of the agent's socket; NULL if there is no agent or it must not be forwarded. */
static const char *xf_agent(void)
{
	const char *a = g.op.forward_agent;
	if (!a || strcasecmp(a, "no") == 0)
		return NULL;
	if (strcasecmp(a, "yes") == 0)
		return getenv("SSH_AUTH_SOCK");
	return a[0] == '$' ? getenv(a + 1) : a;
}

/* Parses display d, "[host]:number[.screen]" or a path: where it listens, and its screen.
 * False if d is not a display. */
static bool xf_display(const char *d, struct endpoint *to, uint32_t *screen)
{
	const char *colon = strrchr(d, ':');
	*screen = 0;
	to->port = FW_PATH;
	if (d[0] == '/')
		return (size_t)snprintf(to->host, sizeof to->host, "%s", d) < sizeof to->host;
	if (!colon || !isdigit((unsigned char)colon[1]))
		return false;
	char *end;
	unsigned long n = strtoul(colon + 1, &end, 10);
	int len = (int)(colon - d);
	if (*end == '.')
		*screen = (uint32_t)strtoul(end + 1, NULL, 10);
	if (n > 65535 - 6000 || (size_t)len >= sizeof to->host)
		return false;
	if (len == 0 || (len == 4 && strncmp(d, "unix", 4) == 0))
		snprintf(to->host, sizeof to->host, "/tmp/.X11-unix/X%lu", n);
	else {
		snprintf(to->host, sizeof to->host, "%.*s", len, d);
		to->port = 6000 + (uint32_t)n;
	}
	return true;
}

/* Whether c is an open session that asked for `wish`, or an open connection that serves one. */
static bool xf_asked(const struct channel *c, uint16_t wish)
{
	return ch_is_open(c) && c->flags & wish && !ch_is_closing(c) && !ch_is_abandoned(c);
}

/* The displays that open sessions or their X11 connections use, one bit each. */
static uint32_t xf_in_use(void)
{
	uint32_t in_use = 0;
	for (int i = 0; i < g.ch.end; i++) {
		const struct channel *c = &g.ch.slot[i];
		if (c->display && xf_asked(c, CH_DISPLAY))
			in_use |= 1u << (c->display - 1);
	}
	return in_use;
}

/* The first display in this state, or NULL. */
static struct display *xf_find(enum xf_state state)
{
	for (struct display *d = g.xf.slot; d < g.xf.slot + DISPLAYS; d++)
		if (d->state == state)
			return d;
	return NULL;
}

/* Runs xauth for the next display that needs its cookie.  Each session asks again, because
 * the display may have been restarted meanwhile. */
static void xf_ask_cookie(void)
{
	struct display *d = xf_find(XF_TO_ASK);
	char name[XF_NAME + 8];
	if (!d)
		return;
	/* xauth's name for a display that ssh itself forwards here */
	bool forwarded = strncmp(d->name, "localhost:", 10) == 0;
	snprintf(name, sizeof name, "%s%s", forwarded ? "unix" : "", d->name + (forwarded ? 9 : 0));
	const char *const argv[] = { g.op.xauth ? g.op.xauth : "xauth", "list", name, NULL };
	ex_start(&g.ex.slot[EX_XAUTH], argv, NULL, g.now + XAUTH_MS);
	d->state = XF_ASKED;
}

/* Reads the cookie from one line "display  protocol  hex"; false if it has no usable one. */
static bool xf_cookie_line(char *line, uint8_t *cookie)
{
	static const char digits[] = "0123456789abcdef";
	char *rest;
	const char *name = strtok_r(line, " \t", &rest), *protocol = name ?
		strtok_r(NULL, " \t", &rest) : NULL;
	const char *hex = protocol ? strtok_r(NULL, " \t", &rest) : NULL;
	if (!hex || strcmp(protocol, xf_protocol) != 0 || strlen(hex) != 2 * XF_COOKIE)
		return false;
	memset(cookie, 0, XF_COOKIE);
	for (int i = 0; i < 2 * XF_COOKIE; i++) {
		const char *digit = strchr(digits, tolower((unsigned char)hex[i]));
		if (!digit)
			return false;
		cookie[i / 2] |= (uint8_t)((digit - digits) << (i % 2 ? 0 : 4));
	}
	return true;
}

/* Reads xauth's answer for the display it was asked about, unless a new session has taken
 * that slot. */
static void xf_read_cookie(void)
{
	char *text = (char *)g.scratch, *rest;
	struct display *d = xf_find(XF_ASKED);
	ex_read(&g.ex.slot[EX_XAUTH], text, sizeof g.scratch);
	if (!d)
		return;
	d->state = XF_UNKNOWN;
	for (char *line = strtok_r(text, "\n", &rest); line && d->state != XF_KNOWN;
		line = strtok_r(NULL, "\n", &rest))
		if (xf_cookie_line(line, d->real))
			d->state = XF_KNOWN;
	log_at(TP_VERBOSE, "X11: %s", d->state == XF_KNOWN ? "xauth knows the display's cookie" :
	       "no cookie from xauth: the display is asked without one of its own");
}

/* A slot for c's display `name`; NULL if none is free or the name is invalid. */
static struct display *xf_take(struct channel *c, struct str name)
{
	struct endpoint to;
	uint32_t screen, in_use = xf_in_use();
	int i = 0;
	while (i < DISPLAYS && in_use & 1u << i)
		i++;
	struct display *d = &g.xf.slot[i];
	bool plain = name.len < XF_NAME;
	for (uint32_t k = 0; plain && k < name.len; k++)
		plain = isalnum(name.p[k]) || memchr(":/.-_[]", name.p[k], 7);
	if (i == DISPLAYS) {
		ev_full(TABLE_DISPLAYS, "DISPLAYS");
		ch_tell(c, "X11 forwarding request failed: too many displays\r\n");
	}
	if (i == DISPLAYS || !plain || name.len == 0)
		return NULL;
	*d = (struct display){ .state = XF_UNKNOWN };
	memcpy(d->name, name.p, name.len);
	if (!xf_display(d->name, &to, &screen) || !rn_bytes(d->fake, XF_COOKIE))
		return NULL;
	ev_used(TABLE_DISPLAYS, (uint32_t)i + 1);
	d->state = XF_TO_ASK;
	c->display = (uint8_t)(i + 1);
	return d;
}

/* Asks the server to forward X11 to the display `name` for c, or to the master's if `name` is
 * empty. */
static void xf_request_x11(struct channel *c, struct str name)
{
	struct endpoint to;
	uint32_t screen;
	char hex[2 * XF_COOKIE + 1];
	const char *own = getenv("DISPLAY");
	const struct display *d = !g.op.forward_x11 ? NULL :
		xf_take(c, name.len > 0 ? name : str_of(own ? own : ""));
	if (!d || !xf_display(d->name, &to, &screen))
		return;
	for (int i = 0; i < XF_COOKIE; i++)
		snprintf(hex + 2 * i, 3, "%02x", d->fake[i]);
	struct buf *b = tx_request(c, "x11-req", true);
	buf_put_u8(b, false);		/* not for a single connection */
	buf_put_text(b, xf_protocol);
	buf_put_text(b, hex);
	buf_put_u32(b, screen);
	tx_end(b);
	ch_expect(c, CH_RQ_X11);
	c->flags |= CH_DISPLAY;
}

/* The greeting of an X11 program (X Window System Protocol, 8), in bytes: byte order 1, pad
 * 1, version 2 * 2, lengths of protocol and cookie 2 * 2, pad 2; then both, each padded to a
 * multiple of four.  Only our protocol and lengths are accepted, so a right greeting has one
 * size, and it lies in one block: the queue's first. */
#define XF_HEADER 12
#define XF_COOKIE_AT (XF_HEADER + 20)
#define XF_GREETING (XF_COOKIE_AT + XF_COOKIE)
_Static_assert(XF_GREETING <= WINDOW_BLOCK, "an X11 greeting must fit in one block");

/* 1 if the n bytes at p show the cookie `shown`, 0 if more are needed, -1 if they do not. */
static int xf_check(const uint8_t *shown, const uint8_t *p, size_t n)
{
	if (n < XF_HEADER)
		return 0;
	bool big = p[0] == 'B';
	unsigned protocol = big ? p[6] << 8 | p[7] : p[7] << 8 | p[6];
	unsigned cookie = big ? p[8] << 8 | p[9] : p[9] << 8 | p[8];
	if ((!big && p[0] != 'l') || protocol != sizeof xf_protocol - 1 || cookie != XF_COOKIE)
		return -1;
	if (n < XF_GREETING)
		return 0;
	uint8_t differ = 0;		/* compares all of them: the time reveals nothing */
	for (int i = 0; i < XF_COOKIE; i++)
		differ |= p[XF_COOKIE_AT + i] ^ shown[i];
	return memcmp(p + XF_HEADER, xf_protocol, sizeof xf_protocol - 1) == 0 && !differ ? 1 : -1;
}

/* Checks the greeting on a new X11 channel: nothing reaches a display until the greeting
 * shows the cookie of a display in use.  Then waits for xauth and for a connector. */
static void xf_greeting(struct channel *c, uint32_t in_use)
{
	struct iovec first = { g.scratch, 0 };
	struct endpoint to;
	uint32_t screen;
	int right = -1;
	pool_iov(&c->queue[CH_OUT], &first, 1);
	for (int i = 0; i < DISPLAYS && right < 1; i++) {
		int shows = in_use & 1u << i ? xf_check(g.xf.slot[i].fake, first.iov_base,
			first.iov_len) : -1;
		right = shows > right ? shows : right;
		if (shows == 1)
			c->display = (uint8_t)(i + 1);
	}
	if (right < 0 || (right == 0 && c->rcvd >= CH_EOF)) {
		if (first.iov_len > 0)
			log_at(log_once(LOG_COOKIE),
				"X11 connection rejected because of wrong authentication.");
		co_refuse(c, "");
	}
	const struct display *d = right == 1 ? &g.xf.slot[c->display - 1] : NULL;
	if (!d || d->state == XF_TO_ASK || d->state == XF_ASKED || cn_take() < 0)
		return;
	if (d->state == XF_KNOWN)
		memcpy((uint8_t *)first.iov_base + XF_COOKIE_AT, d->real, XF_COOKIE);
	if (xf_display(d->name, &to, &screen))
		co_connect(c, &to);
}

static bool xf_wanted(uint16_t wish)
{
	bool wanted = false;
	for_each_channel(c)
		wanted |= xf_asked(c, wish);
	return wanted;
}

/* The server opens a channel to the agent or a display.  False if it wants something else, or
 * no session asked for it. */
static bool xf_server_open(struct str type, uint32_t id, uint32_t window, uint32_t packet)
{
	bool x11 = str_is(type, "x11");
	uint16_t wish = x11 ? CH_DISPLAY : CH_AGENT;
	if (!x11 && !str_is(type, "auth-agent@openssh.com") && !str_is(type, "agent-connect"))
		return false;
	if (!xf_wanted(wish)) {		/* logged once per connection, and counted */
		log_at(log_once(LOG_UNASKED),
			"the server tried %s forwarding, which no session asked for", x11 ? "X11" :
			"agent");
		return false;
	}
	struct channel *c = co_server_channel(x11 ? CH_X11 : CH_REMOTE, id, window, packet);
	if (c)
		c->flags |= wish;
	if (c && x11) {
		c->deadline = g.now + SOCKS_MS;
		co_confirm(c, CH_GREETING);
	} else if (c)
		co_connect_path(c, xf_agent());
	return true;
}

static void xf_settle(void)
{
	uint32_t in_use = 0;
	bool looked = false;
	if (g.ex.slot[EX_XAUTH].state > EX_RUNNING)
		xf_read_cookie();
	if (g.ex.slot[EX_XAUTH].state == EX_IDLE)
		xf_ask_cookie();
	for_each_channel(c) {
		if (c->state != CH_GREETING || c->connector >= 0)
			continue;
		if (!looked)
			in_use = xf_in_use();
		looked = true;
		xf_greeting(c, in_use);
	}
}

/* ===== rx_ ================================================================
 * The SSH messages we receive (RFC 4254), one handler each, and their table.
 * A message that breaks the protocol loses the link (rx_bad()), but not the master.
 * Calls log_, sl_, buf_, pool_, tx_, fl_, ch_, ls_, co_, px_, xf_. */

static void rx_bad(const char *why)
{
	if (!g.lk.error[0])
		snprintf(g.lk.error, sizeof g.lk.error, "protocol error by the server: %s", why);
}

/* The channel that a message is for; NULL if it is not open or already closed.  Window
 * adjustments, requests and replies may legitimately come too late (CHAN-late). */
static struct channel *rx_late_channel(struct buf *b)
{
	uint32_t id = buf_get_u32(b);
	struct channel *c = b->bad ? NULL : sl_channel(id);
	return c && ch_is_open(c) && c->rcvd != CH_CLOSED ? c : NULL;
}

/* Likewise, for messages that must not come late: NULL means that the link is lost. */
static struct channel *rx_channel(struct buf *b)
{
	struct channel *c = rx_late_channel(b);
	if (!c)
		rx_bad("message for a channel that is not open");
	return c;
}

/* The server opens a channel.  It may do so only for a forward that it was asked for, or for
 * the agent or display of a session that asked. */
static void rx_channel_open(struct buf *b)
{
	struct str type = buf_get_str(b);
	uint32_t id = buf_get_u32(b), window = buf_get_u32(b), packet = buf_get_u32(b);
	bool tcp = str_is(type, "forwarded-tcpip"),
		path = str_is(type, "forwarded-streamlocal@openssh.com");
	struct forward *f = NULL;
	if (tcp || path) {
		struct str host = buf_get_str(b);
		f = ls_for_open(host, tcp ? buf_get_u32(b) : FW_PATH);
	}
	if (b->bad || packet == 0)
		rx_bad("channel open");
	else if (f && f->type == FW_PROXY)
		px_server_open(f, b, id, window, packet);
	else if (f)
		co_server_open(f, id, window, packet);
	else if (!xf_server_open(type, id, window, packet))
		tx_channel_open_failure(id, SSH_OPEN_ADMINISTRATIVELY_PROHIBITED, "open failed");
}

static struct channel *rx_opening(struct buf *b)
{
	uint32_t id = buf_get_u32(b);
	struct channel *c = b->bad ? NULL : sl_channel(id);
	if (c && c->state == CH_OPENING)
		return c;
	rx_bad("answer for a channel that is not opening");
	return NULL;
}

static void rx_channel_open_confirmation(struct buf *b)
{
	struct channel *c = rx_opening(b);
	if (!c)
		return;
	c->remote_id = buf_get_u32(b);
	c->remote_window = buf_get_u32(b);
	c->remote_packet = buf_get_u32(b);
	if (b->bad || c->remote_packet == 0) {
		rx_bad("channel open confirmation");
		return;
	}
	fl_confirmed(c);
	ch_become(c, ch_is_abandoned(c) ? CH_OPEN : CH_CONFIRMED);
	if (c->kind == CH_PROXY)
		c->px.adjust += c->remote_window;	/* px_reopen() */
}

static void rx_channel_open_failure(struct buf *b)
{
	struct channel *c = rx_opening(b);
	if (!c)
		return;
	static const char *const reasons[] = {	/* RFC 4254, 5.1 */
		"unknown reason", "administratively prohibited", "connect failed",
		"unknown channel type", "resource shortage"
	};
	uint32_t code = buf_get_u32(b);
	struct str text = buf_get_str(b);
	char why[160];
	snprintf(why, sizeof why, "%s%s%.*s", reasons[code < LENGTH(reasons) ?
		code : 0], text.len ? ": " : "",
		(int)(text.len > 100 ? 100 : text.len), (const char *)text.p);
	bool own = c->client >= 0 && sl_client(c->client)->split;
	if ((c->kind == CH_SESSION && !own) || ch_is_proxied(c))	/* its client hears of it */
		log_at(TP_VERBOSE, "channel %d: open failed: %s", sl_channel_index(c), why);
	else
		co_tried(c, why);
	ch_become(c, c->client < 0 ? CH_DEAD : CH_REFUSED);
	if (ch_is_proxied(c))
		px_server_refused(c, code, text);
}

static void rx_channel_window_adjust(struct buf *b)
{
	struct channel *c = rx_late_channel(b);
	uint32_t more = buf_get_u32(b);
	if (!c)
		return;
	if (more > UINT32_MAX - c->remote_window)
		rx_bad("window beyond 2^32-1");
	else {
		fl_given(c, more);
		ch_mark(c);
		c->px.adjust += c->kind == CH_PROXY ? more : 0;
	}
}

/* Data received for one stream; CH_STREAMS if it is to be discarded. */
static void rx_data(struct channel *c, int stream, struct str data)
{
	uint32_t over = data.len > c->window ? data.len - c->window : 0;
	if (over > ch_spare(c)) {
		rx_bad("more data than the window allows");
		return;
	}
	ch_heard(c);
	c->window += over;
	c->window -= data.len;
	if (stream < CH_STREAMS && c->rcvd == CH_FLOWS)
		ch_deliver(c, (enum stream)stream, data.p, data.len);
	else
		c->consumed += data.len;
	pool_account(c);
}

static void rx_channel_data(struct buf *b)
{
	struct channel *c = rx_channel(b);
	int stream = CH_OUT;
	if (b->p[0] == SSH_CHANNEL_EXTENDED_DATA)
		stream = buf_get_u32(b) == SSH_EXTENDED_DATA_STDERR ? CH_ERR : CH_STREAMS;
	struct str data = buf_get_str(b);
	if (c && !b->bad)
		rx_data(c, stream, data);
}

/* Twisted Conch sends EOF ahead of data that waits for our window; its CLOSE comes after that
 * data (CHAN-eof-early). */
static void rx_channel_eof(struct buf *b)
{
	struct channel *c = rx_channel(b);
	if (!c || (c->kind == CH_SESSION && tx_peer_is("Twisted")))
		return;
	c->rcvd = CH_EOF;
	c->px.owed |= c->kind == CH_PROXY ? PX_EOF : 0;
}

static void rx_channel_close(struct buf *b)
{
	struct channel *c = rx_channel(b);
	if (!c)
		return;
	c->rcvd = CH_CLOSED;
	c->px.owed |= c->kind == CH_PROXY ? PX_CLOSE : 0;
}

static void rx_exit_status(struct channel *c, struct buf *b)
{
	uint32_t status = buf_get_u32(b);
	if (b->bad || (c->kind != CH_SESSION && c->kind != CH_STDIO))
		return;
	c->status = status;
	c->flags |= CH_STATUS;
}

/* A signal gets no EXIT_MESSAGE: the client's exit status is 255. */
static void rx_exit_signal(struct channel *c, struct buf *b)
{
	struct str name = buf_get_str(b);
	c->flags &= (uint16_t)~CH_STATUS;
	log_at(TP_VERBOSE, "channel %d: remote command ended by signal %.*s",
	       sl_channel_index(c), (int)(name.len > 32 ? 32 : name.len), (const char *)name.p);
}

/* The remote program reads no more; no EOF is sent back. */
static void rx_eow(struct channel *c, UNUSED struct buf *b)
{
	ch_end_input(c);
	if (c->sent == CH_FLOWS)
		c->sent = CH_EOF;
}

static void rx_channel_request(struct buf *b)
{
	static const struct {
		const char *name;
		void (*run)(struct channel *, struct buf *);
	} known[] = {
		{ "exit-status", rx_exit_status },
		{ "exit-signal", rx_exit_signal },
		{ "eow@openssh.com", rx_eow },
	};
	struct channel *c = rx_late_channel(b);
	struct str name = buf_get_str(b);
	bool want_reply = buf_get_u8(b), done = false;
	if (!c || b->bad)
		return;
	if (ch_is_proxied(c)) {
		px_server_request(c, b, name, want_reply);
		return;
	}
	for (size_t i = 0; i < LENGTH(known); i++)
		if (str_is(name, known[i].name)) {
			known[i].run(c, b);
			done = !b->bad;
		}
	if (want_reply && c->sent != CH_CLOSED)
		tx_channel(done ? SSH_CHANNEL_SUCCESS : SSH_CHANNEL_FAILURE, c);
}

/* The server refuses request `what` on c. */
static void rx_refused(struct channel *c, enum ch_request what)
{
	static const char *const text[] = {
		[CH_RQ_PTY] = "PTY allocation request failed\r\n",
			[CH_RQ_X11] = "X11 forwarding request failed\r\n",
		[CH_RQ_EXEC] = "exec request failed\r\n",
			[CH_RQ_SHELL] = "shell request failed\r\n",
		[CH_RQ_SUBSYSTEM] = "subsystem request failed\r\n",
	};
	ch_tell(c, text[what]);
	if (what == CH_RQ_PTY) {
		c->flags &= (uint16_t)~CH_TTY;
		c->events |= CH_EV_TTY_FAILED;
	} else if (what == CH_RQ_X11)
		c->flags &= (uint16_t)~CH_DISPLAY;
	else {	/* no command ran, whatever exit status comes */
		ch_end_input(c);
		c->flags |= CH_FAILED;
	}
}

static void rx_channel_reply(struct buf *b)
{
	bool success = b->p[0] == SSH_CHANNEL_SUCCESS;
	struct channel *c = rx_late_channel(b);
	if (!c)
		return;
	if (c->kind == CH_PROXY) {		/* its client may have left before the answer */
		if (!px_server_reply(c, success))
			rx_bad("answer to a channel request that was not made");
		return;
	}
	enum ch_request what = c->kind == CH_SESSION ? ch_answered(c) : CH_RQ_NONE;
	if (what == CH_RQ_NONE)
		rx_bad("answer to a channel request that was not made");
	else if (!success)
		rx_refused(c, what);
}

/* Every request that wants a reply gets a failure, which also answers
 * "keepalive@openssh.com".  The rest, such as "hostkeys-00@openssh.com", is ignored. */
static void rx_global_request(struct buf *b)
{
	buf_get_str(b);
	if (buf_get_u8(b) && !b->bad)
		tx_end(tx_begin(SSH_REQUEST_FAILURE));
}

/* The answer to our oldest global request.  For a keepalive success and failure mean the
 * same; lk_ has already noted that the answer came. */
static void rx_global_reply(struct buf *b)
{
	struct global_request first;
	bool success = b->p[0] == SSH_REQUEST_SUCCESS;
	if (!tx_answered(&first)) {
		rx_bad("answer to a global request that was not made");
		return;
	}
	if (first.kind == GLOBAL_FORWARD)
		ls_answer(&g.fw.slot[first.of], success, b);
	else if (first.kind != GLOBAL_PROBE && first.kind != GLOBAL_KEEPALIVE)
		px_server_answer(&first, success, b);
	else {
		tx_keepalive_answered();
		if (first.kind == GLOBAL_PROBE)
			g.mc.slot[first.of].probed = true;
	}
}

static const struct {
	void (*run)(struct buf *);
} rx_table[] = {
	[SSH_GLOBAL_REQUEST - SSH_FIRST] = { rx_global_request },
	[SSH_REQUEST_SUCCESS - SSH_FIRST] = { rx_global_reply },
	[SSH_REQUEST_FAILURE - SSH_FIRST] = { rx_global_reply },
	[SSH_CHANNEL_OPEN - SSH_FIRST] = { rx_channel_open },
	[SSH_CHANNEL_OPEN_CONFIRMATION - SSH_FIRST] = { rx_channel_open_confirmation },
	[SSH_CHANNEL_OPEN_FAILURE - SSH_FIRST] = { rx_channel_open_failure },
	[SSH_CHANNEL_WINDOW_ADJUST - SSH_FIRST] = { rx_channel_window_adjust },
	[SSH_CHANNEL_DATA - SSH_FIRST] = { rx_channel_data },
	[SSH_CHANNEL_EXTENDED_DATA - SSH_FIRST] = { rx_channel_data },
	[SSH_CHANNEL_EOF - SSH_FIRST] = { rx_channel_eof },
	[SSH_CHANNEL_CLOSE - SSH_FIRST] = { rx_channel_close },
	[SSH_CHANNEL_REQUEST - SSH_FIRST] = { rx_channel_request },
	[SSH_CHANNEL_SUCCESS - SSH_FIRST] = { rx_channel_reply },
	[SSH_CHANNEL_FAILURE - SSH_FIRST] = { rx_channel_reply },
};

/* Whether messages of this type only let bytes move. */
static bool rx_is_data(uint8_t type)
{
	return type >= SSH_CHANNEL_WINDOW_ADJUST && type <= SSH_CHANNEL_EXTENDED_DATA;
}

/* Handles one message, which begins with its type byte. */
static void rx_message(uint8_t *p, size_t len)
{
	struct buf b = buf_over(p, len);
	uint8_t type = buf_get_u8(&b);
	size_t i = (size_t)type - SSH_FIRST;
	if (i < LENGTH(rx_table) && rx_table[i].run)
		rx_table[i].run(&b);
	else
		rx_bad("unknown message");
	if (b.bad)
		rx_bad("message too short");
}

/* ===== as_ ================================================================
 * ControlMaster=ask: asks the user through an askpass program, as ssh does.  Its one
 * argument is the question.  Exit status 0 with no output or with "yes" means yes.  No
 * more than ASKERS run at once, each for up to ASK_MS; as_forget() ends one early.
 * Calls log_, ev_, ex_. */

enum as_answer { AS_WAITING, AS_NO, AS_YES };

/* The first idle slot; PROGRAMS if all are busy. */
static int as_idle(void)
{
	int i = EX_ASKERS;
	while (i < PROGRAMS && g.ex.slot[i].state != EX_IDLE)
		i++;
	return i;
}

/* Starts to ask; returns the slot, or -1 while all are busy.  If no program can be run, the
 * answer is no. */
static int8_t as_start(const char *question)
{
	const char *program = getenv("SSH_ASKPASS"), *require = getenv("SSH_ASKPASS_REQUIRE");
	bool never = require && strcasecmp(require, "never") == 0;
	char clean[4 * LOG_TEXT];
	tp_clean(question, strlen(question), false, clean, sizeof clean);
	const char *const argv[] = { never ? "" : program && *program ? program : ASKPASS, clean,
		NULL };
	static char prompt[] = "SSH_ASKPASS_PROMPT=confirm", *const confirm[] = { prompt, NULL };
	int i = as_idle();
	if (i == PROGRAMS) {
		ev_full(TABLE_ASKERS, "ASKERS");
		return -1;
	}
	ev_used(TABLE_ASKERS, (uint32_t)(i - EX_ASKERS) + 1);
	ex_start(&g.ex.slot[i], argv, confirm, g.now + ASK_MS);
	return (int8_t)i;
}

static enum as_answer as_answer(int8_t slot)
{
	char said[64];
	struct program *p = &g.ex.slot[slot];
	if (p->state == EX_RUNNING)
		return AS_WAITING;
	bool done = p->state == EX_DONE;
	ex_read(p, said, sizeof said);
	said[strcspn(said, "\r\n")] = 0;
	return done && (!*said || strcasecmp(said, "yes") == 0) ? AS_YES : AS_NO;
}

/* Stops asking: the answer is no longer needed. */
static void as_forget(int8_t *slot)
{
	if (*slot >= 0)
		ex_stop(&g.ex.slot[*slot]);
	*slot = -1;
}

/* ===== js_ ====================================================================
 * Writes JSON: values, each with the comma and the name that go before it.
 * Calls log_, buf_. */

/* Puts a string: escapes control characters, replaces invalid UTF-8. */
static void js_string(struct buf *b, const char *s)
{
	const uint8_t *p = (const uint8_t *)s;
	buf_put_u8(b, '"');
	while (*p) {
		uint32_t c;
		size_t len = strlen((const char *)p), n = log_utf8(p, len, &c);
		if (n == 0 || n > len)
			buf_print(b, "\\ufffd");
		else if (*p < 0x20 || *p == 0x7f)
			buf_print(b, "\\u%04x", (unsigned)*p);
		else if (*p == '"' || *p == '\\')
			buf_print(b, "\\%c", *p);
		else
			buf_put_bytes(b, p, n);
		p += n && n <= len ? n : 1;
	}
	buf_put_u8(b, '"');
}

/* Puts a comma, unless this is the first value, and the value's name, if it has one. */
static void js_name(struct buf *b, const char *name)
{
	uint8_t last = b->pos ? b->p[b->pos - 1] : '{';
	if (!strchr("{[,", last))
		buf_put_u8(b, ',');
	if (name)
		buf_print(b, "\"%s\":", name);
}

static void js_open(struct buf *b, const char *name)
{
	js_name(b, name);
	buf_put_u8(b, '{');
}

/* Puts a number, or null unless it is known. */
static void js_known(struct buf *b, const char *name, bool known, int64_t n)
{
	js_name(b, name);
	if (known)
		buf_print(b, "%lld", (long long)n);
	else
		buf_print(b, "null");
}

static void js_number(struct buf *b, const char *name, int64_t n)
{
	js_known(b, name, true, n);
}

/* Puts a text; NULL becomes null. */
static void js_text(struct buf *b, const char *name, const char *s)
{
	js_name(b, name);
	if (s)
		js_string(b, s);
	else
		buf_print(b, "null");
}

/* ===== st_ ================================================================
 * Reports: `-O status` for people and as JSON, `-O metrics`, `-O log`, `-O
 * watch`.  A report is made straight from the state, in pieces of one whole element
 * (a session, a forward, …).  So a slow reader costs no memory; what begins or ends
 * between two pieces may or may not appear.  The manual's section REPORTS is the
 * schema.
 * Calls ev_, sl_, buf_, req_, ch_, fw_, in_, px_, xf_, js_. */

enum st_report { ST_NONE, ST_STATUS, ST_JSON, ST_METRICS, ST_LOG, ST_LOG_JSON, ST_WATCH,
	ST_REPORTS };

enum st_result { ST_END, ST_PIECE, ST_WAIT };

/* --- what reports say, in any form ----------------------------------------------- */

static const char *st_link(void)
{
	static const char *const states[] = { "down", "waiting", "connecting", "login", "up" };
	return states[g.lk.state];
}

/* What the master does with new clients. */
static const char *st_mode(void)
{
	return g.rn.stop != RN_RUN ? "ending" : g.mx.held ? "held" : "serving";
}

static struct tp_traffic st_traffic(bool all)
{
	const struct tp_info *i = tp_info();
	struct tp_traffic t = all ? g.lk.gone : (struct tp_traffic){ 0, 0, 0, 0 };
	if (g.lk.net_fd < 0)
		return t;
	t.packets_in += i->packets_in;
	t.packets_out += i->packets_out;
	t.bytes_in += i->bytes_in;
	t.bytes_out += i->bytes_out;
	return t;
}

/* The kernel's view of a client, and its program's name if /proc shows it. */
struct st_peer {
	struct os_peer id;
	char program[32];
};

static struct st_peer st_peer(const struct client *c)
{
	struct st_peer p = { .id = c->peer };
	os_program(p.id.pid, p.program, sizeof p.program);
	return p;
}

/* Whether client i has, or waits for, a session or the connection of -W. */
static bool st_has_session(int i)
{
	const struct client *c = &g.mc.slot[i];
	return c->phase != MX_FREE && !c->dead && (c->channel >= 0 || c->phase == MX_QUEUED);
}

static const char *st_session_state(const struct client *c)
{
	const struct channel *ch = sl_channel(c->channel);
	if (!ch)
		return "waiting";
	if (ch->state < CH_OPEN)
		return "opening";
	return ch_is_closing(ch) ? "closing" : "open";
}

/* Its place in the queue, from 1. */
static uint32_t st_place(const struct client *c)
{
	uint32_t place = 1;
	for_each_client(o)
		place += o->phase == MX_QUEUED && (int32_t)(o->ticket - c->ticket) < 0;
	return place;
}

static const struct record *st_record(const struct client *c)
{
	static const struct record none;
	int at = c->channel >= 0 ? sl_channel(c->channel)->record : -1;
	return at >= 0 ? &g.ch.record[at] : &none;
}

/* The command that c asked for; while c waits, it comes from the request (PROTOCOL.mux, 4). */
static const char *st_command(const struct client *c)
{
	static char text[COMMAND_TEXT];
	if (c->channel >= 0 || c->type != MUX_C_NEW_SESSION)
		return st_record(c)->command;
	struct buf b = buf_over(req_body(c), c->body_len);
	struct req_session s;
	req_session(&b, &s);
	snprintf(text, sizeof text, "%.*s", (int)(s.command.len < sizeof text ? s.command.len :
		sizeof text), (const char *)s.command.p);
	return text;
}

static bool st_has_forward(int i)
{
	return g.fw.slot[i].state != FW_FREE;
}

static const char *st_forward_state(const struct forward *f)
{
	static const char *const states[] = { "", "resolving", "waiting", "asked", "active" };
	return states[f->state];
}

static int st_connections(const struct forward *f)
{
	int n = 0;
	for_each_channel(c)
		n += c->forward == sl_forward_index(f);
	return n;
}

static bool st_has_proxy(int i)
{
	return g.mc.slot[i].phase != MX_FREE && px_is(&g.mc.slot[i]);
}

static int st_proxied(int client)
{
	int n = 0;
	for_each_channel(c)
		n += ch_is_proxied(c) && c->client == client;
	return n;
}

/* --- tables and their limits -------------------------------------------------------- */

/* Defines name(), which counts the slots in use among n. */
#define ST_COUNT(name, n, used) \
	static uint32_t name(void) \
	{ \
		uint32_t count = 0; \
		for (int i = 0; i < (n); i++) \
			count += (used); \
		return count; \
	}
ST_COUNT(st_clients, g.mc.end, g.mc.slot[i].phase != MX_FREE)
ST_COUNT(st_channels, g.ch.end, g.ch.slot[i].state != CH_FREE)
ST_COUNT(st_forwards, g.fw.end, g.fw.slot[i].state != FW_FREE)
ST_COUNT(st_connectors, g.cn.end, g.cn.slot[i].state != CN_IDLE)
ST_COUNT(st_requests, REQUESTS, g.req.slot[i].len > 0)
ST_COUNT(st_askers, PROGRAMS, i >= EX_ASKERS && g.ex.slot[i].state != EX_IDLE)
static uint32_t st_sessions(void) { return (uint32_t)g.ch.sessions; }
static uint32_t st_displays(void) { return (uint32_t)__builtin_popcount(xf_in_use()); }
static uint32_t st_blocks(void) { return g.pool.shared; }

static const struct st_table {
	const char *name;
	uint32_t size;
	uint32_t (*used)(void);
} st_tables[TABLES] = {
	[TABLE_CLIENTS] = { "CLIENTS", CLIENTS, st_clients },
	[TABLE_CHANNELS] = { "CHANNELS", CHANNELS, st_channels },
	[TABLE_SESSIONS] = { "SESSIONS", SESSIONS, st_sessions },
	[TABLE_FORWARDS] = { "FORWARDS", FORWARDS, st_forwards },
	[TABLE_CONNECTORS] = { "CONNECTORS", CONNECTORS, st_connectors },
	[TABLE_REQUESTS] = { "REQUESTS", REQUESTS, st_requests },
	[TABLE_ASKERS] = { "ASKERS", ASKERS, st_askers },
	[TABLE_DISPLAYS] = { "DISPLAYS", DISPLAYS, st_displays },
	[TABLE_WINDOW_POOL] = { "WINDOW_POOL", WINDOW_BLOCKS - WINDOW_RESERVED, st_blocks },
};

/* --- JSON, element by element --------------------------------------------------------- */

static void st_json_traffic(struct buf *b, struct tp_traffic t)
{
	js_number(b, "received_bytes", (int64_t)t.bytes_in);
	js_number(b, "sent_bytes", (int64_t)t.bytes_out);
	js_number(b, "received_packets", (int64_t)t.packets_in);
	js_number(b, "sent_packets", (int64_t)t.packets_out);
}

/* Addresses, version and algorithms of the present connection, or of the last one. */
static void st_json_peer(struct buf *b)
{
	const struct tp_info *i = tp_info();
	js_text(b, "local_address", g.lk.local);
	js_text(b, "remote_address", g.lk.remote);
	js_text(b, "server_version", i->peer_version);
	js_text(b, "kex", i->kex);
	js_text(b, "host_key_algorithm", i->host_key_algorithm);
	js_text(b, "host_key_fingerprint", i->host_key_fingerprint);
	js_text(b, "cipher", i->cipher);
	js_text(b, "mac", i->mac);
	js_text(b, "auth_method", i->auth_method);
	js_number(b, "key_exchanges", i->key_exchanges);
}

static void st_json_round_trip(struct buf *b)
{
	js_open(b, "round_trip_ms");
	js_number(b, "count", g.tx.rtt_n);
	js_number(b, "last", g.tx.rtt);
	js_number(b, "min", g.tx.rtt_min);
	js_number(b, "mean", g.tx.rtt_n ? (int64_t)(g.tx.rtt_sum / g.tx.rtt_n) : 0);
	js_number(b, "max", g.tx.rtt_max);
	buf_put_u8(b, '}');
}

static void st_json_uplink(struct buf *b)
{
	js_open(b, "uplink");
	js_text(b, "state", st_link());
	js_number(b, "age", ev_seconds() - (g.lk.since ? g.lk.since : g.ev.begun));
	js_text(b, "host", g.op.host_name);
	js_number(b, "port", g.op.port);
	js_text(b, "user", g.op.tp.user);
	st_json_peer(b);
	js_number(b, "logins", g.lk.logins);
	js_number(b, "tries", g.lk.tries);
	js_known(b, "next_try", g.lk.state == LK_WAITING, (g.lk.retry_at - g.now + 999) / 1000);
	js_text(b, "last_error", g.lk.last[0] ? g.lk.last : NULL);
	js_known(b, "last_error_age", g.lk.failed_at != 0, (g.now - g.lk.failed_at) / 1000);
	st_json_round_trip(b);
	st_json_traffic(b, st_traffic(false));
	js_open(b, "total");
	st_json_traffic(b, st_traffic(true));
	buf_print(b, "}}");
}

static void st_json_head(struct buf *b)
{
	js_open(b, NULL);
	js_number(b, "version", 1);
	js_text(b, "program", "sshmux " SSHMUX_VERSION);
	js_number(b, "pid", getpid());
	js_number(b, "age", ev_seconds() - g.ev.begun);
	js_text(b, "control_path", g.us.path);
	js_text(b, "mode", st_mode());
	js_number(b, "session_limit", g.ch.session_limit);
	st_json_uplink(b);
}

static void st_json_peer_of(struct buf *b, const struct client *c)
{
	struct st_peer p = st_peer(c);
	js_number(b, "pid", p.id.pid);
	js_number(b, "uid", p.id.uid);
	js_text(b, "program", p.program);
}

static void st_json_session(struct buf *b, int i)
{
	const struct client *c = &g.mc.slot[i];
	const struct channel *ch = sl_channel(c->channel);
	const struct record *r = st_record(c);
	js_open(b, NULL);
	js_known(b, "id", ch != NULL, c->channel);
	js_text(b, "type", c->type == MUX_C_NEW_SESSION ? "session" : "stdio");
	js_text(b, "state", st_session_state(c));
	js_number(b, "place", ch ? 0 : st_place(c));
	st_json_peer_of(b, c);
	js_text(b, "command", st_command(c));
	js_name(b, "tty");
	buf_print(b, ch && ch->flags & CH_TTY ? "true" : "false");
	js_number(b, "age", r->since ? ev_seconds() - r->since : 0);
	js_number(b, "idle", r->active ? ev_seconds() - r->active : 0);
	js_number(b, "stdin_bytes", (int64_t)r->bytes[IN_BYTES]);
	js_number(b, "stdout_bytes", (int64_t)r->bytes[OUT_BYTES]);
	js_number(b, "stderr_bytes", (int64_t)r->bytes[ERR_BYTES]);
	js_number(b, "send_window", ch ? ch->remote_window : 0);
	js_number(b, "receive_window", ch ? ch->window : 0);
	js_number(b, "buffered", ch ? ch->queue[CH_OUT].len + ch->queue[CH_ERR].len : 0);
	buf_put_u8(b, '}');
}

static void st_json_end(struct buf *b, const char *name, const struct endpoint *e,
	uint32_t allocated)
{
	js_open(b, name);
	js_text(b, fw_is_path(e) ? "path" : "host", e->host);
	if (!fw_is_path(e))
		js_number(b, "port", allocated ? allocated : e->port);
	buf_put_u8(b, '}');
}

static void st_json_forward(struct buf *b, int i)
{
	const struct forward *f = &g.fw.slot[i];
	js_open(b, NULL);
	js_text(b, "type", fw_is_remote_dynamic(f) ? "remote-dynamic" : fw_types[f->type]);
	st_json_end(b, "listen", &f->listen, f->allocated);
	st_json_end(b, "connect", &f->connect, 0);
	js_text(b, "state", st_forward_state(f));
	js_number(b, "age", ev_seconds() - f->since);
	js_number(b, "connections", st_connections(f));
	js_number(b, "connections_total", f->connections);
	js_number(b, "connections_failed", f->failed);
	js_number(b, "sent_bytes", (int64_t)f->bytes[IN_BYTES]);
	js_number(b, "received_bytes", (int64_t)f->bytes[OUT_BYTES]);
	js_text(b, "last_error", f->why[0] ? f->why : NULL);
	buf_put_u8(b, '}');
}

static void st_json_proxy(struct buf *b, int i)
{
	js_open(b, NULL);
	st_json_peer_of(b, &g.mc.slot[i]);
	js_number(b, "channels", st_proxied(i));
	js_number(b, "sent_bytes", (int64_t)g.mc.slot[i].moved[IN_BYTES]);
	js_number(b, "received_bytes", (int64_t)g.mc.slot[i].moved[OUT_BYTES]);
	buf_put_u8(b, '}');
}

static void st_json_table(struct buf *b, int i)
{
	js_open(b, NULL);
	js_text(b, "name", st_tables[i].name);
	js_number(b, "size", st_tables[i].size);
	js_number(b, "in_use", st_tables[i].used());
	js_number(b, "peak", g.ev.peak[i]);
	js_number(b, "refused", g.ev.refused[i]);
	buf_put_u8(b, '}');
}

/* --- for people ---------------------------------------------------------------------- */

/* "17", "1.2k", "33M": at most four characters.  The last four results stay valid. */
static const char *st_size(uint64_t n)
{
	static char text[4][12];
	static unsigned at;
	static const char units[] = " kMGTPE";
	char *to = text[at++ % 4];
	unsigned unit = 0, tenth = 0;
	for (; n >= 1000; n /= 1000, unit++)
		tenth = (unsigned)(n % 1000 / 100);
	if (unit == 0)
		snprintf(to, sizeof text[0], "%u", (unsigned)n);
	else if (n < 10)
		snprintf(to, sizeof text[0], "%u.%u%c", (unsigned)n, tenth, units[unit]);
	else
		snprintf(to, sizeof text[0], "%u%c", (unsigned)n, units[unit]);
	return to;
}

/* "7s", "5m06s", "4h05m", "3d04h".  The last four results stay valid. */
static const char *st_span(int64_t seconds)
{
	static char text[4][16];
	static unsigned at;
	char *to = text[at++ % 4];
	unsigned s = (unsigned)seconds;
	if (s < 60)
		snprintf(to, sizeof text[0], "%us", s);
	else if (s < 3600)
		snprintf(to, sizeof text[0], "%um%02us", s / 60, s % 60);
	else if (s < 86400)
		snprintf(to, sizeof text[0], "%uh%02um", s / 3600, s / 60 % 60);
	else
		snprintf(to, sizeof text[0], "%ud%02uh", s / 86400, s / 3600 % 24);
	return to;
}

static void st_people_head(struct buf *b)
{
	const struct tp_info *i = tp_info();
	struct tp_traffic t = st_traffic(true);
	buf_print(b, "master      pid %d, %s, for %s\n", (int)getpid(), st_mode(),
		st_span(ev_seconds() - g.ev.begun));
	buf_print(b, "uplink      %s for %s: %s@%s port %d\n", st_link(),
		 st_span(ev_seconds() - (g.lk.since ? g.lk.since : g.ev.begun)), g.op.tp.user,
		 g.op.host_name, (int)g.op.port);
	if (g.lk.state == LK_UP) {
		buf_print(b, "server      %s, %s\n", g.lk.remote, i->peer_version);
		buf_print(b, "keys        %s, %s, %s\n", i->kex, i->host_key_algorithm, i->cipher);
	} else
		buf_print(b, "            %s\n", in_state());
	buf_print(b, "logins      %u\n", (unsigned)g.lk.logins);
	if (g.lk.last[0])
		buf_print(b, "last error  %s ago: %s\n", st_span((g.now - g.lk.failed_at) / 1000),
			g.lk.last);
	if (g.tx.rtt_n)
		buf_print(b, "round trip  %u ms (min %u, mean %u, max %u of %u)\n",
			(unsigned)g.tx.rtt, (unsigned)g.tx.rtt_min,
			(unsigned)(g.tx.rtt_sum / g.tx.rtt_n), (unsigned)g.tx.rtt_max,
			(unsigned)g.tx.rtt_n);
	buf_print(b, "traffic     %sB received, %sB sent\n", st_size(t.bytes_in),
		st_size(t.bytes_out));
	buf_print(b, "sessions    %d of %d\n", g.ch.sessions, g.ch.session_limit);
}

static void st_people_session(struct buf *b, int i)
{
	const struct client *c = &g.mc.slot[i];
	const struct record *r = st_record(c);
	struct st_peer p = st_peer(c);
	char id[12] = "-";
	if (c->channel >= 0)
		snprintf(id, sizeof id, "%d", c->channel);
	buf_print(b, "  %4s %-8s %7d %-10.10s %6s %6s %6s %6s  %s\n", id, st_session_state(c),
		(int)p.id.pid, p.program, st_span(r->since ? ev_seconds() - r->since : 0),
		st_span(r->active ? ev_seconds() - r->active : 0),
		st_size(r->bytes[IN_BYTES]), st_size(r->bytes[OUT_BYTES] + r->bytes[ERR_BYTES]),
		st_command(c));
}

static void st_people_forward(struct buf *b, int i)
{
	const struct forward *f = &g.fw.slot[i];
	buf_print(b, "  %-8s %6s %4d of %-6u %6u %6s %6s  %s%s%s\n", st_forward_state(f),
		st_span(ev_seconds() - f->since),
		st_connections(f), (unsigned)f->connections, (unsigned)f->failed,
		st_size(f->bytes[IN_BYTES]), st_size(f->bytes[OUT_BYTES]),
		fw_name(f), f->why[0] ? ": " : "", f->why);
}

static void st_people_proxy(struct buf *b, int i)
{
	struct st_peer p = st_peer(&g.mc.slot[i]);
	buf_print(b, "  pid %d %s, %d channel%s, %sB sent, %sB received\n", (int)p.id.pid,
		p.program, st_proxied(i), PLURAL(st_proxied(i)),
		st_size(g.mc.slot[i].moved[IN_BYTES]), st_size(g.mc.slot[i].moved[OUT_BYTES]));
}

/* Lists a limit only if it was reached. */
static void st_people_table(struct buf *b, int i)
{
	if (g.ev.refused[i])
		buf_print(b, "limit       %s (%u) reached %u time%s\n", st_tables[i].name,
			(unsigned)st_tables[i].size, (unsigned)g.ev.refused[i],
			PLURAL(g.ev.refused[i]));
}

/* The link's state in a line; while it is up, since when, and the sessions. */
static const char *st_brief(void)
{
	static char text[48];
	if (g.lk.state != LK_UP)
		return in_state();
	snprintf(text, sizeof text, "up for %s, sessions %d of %d",
		st_span(ev_seconds() - g.lk.since), g.ch.sessions, g.ch.session_limit);
	return text;
}

/* --- the parts of a status ---------------------------------------------------------------- */

/* The parts in order; json_first and people_first go before a part's elements. */
static const struct st_part {
	int size;
	bool (*has)(int);		/* which of the slots to show; NULL: all */
	void (*json)(struct buf *, int);
	void (*people)(struct buf *, int);
	const char *json_first, *people_first;
} st_parts[] = {
	{ CLIENTS, st_has_session, st_json_session, st_people_session, ",\"sessions\":[",
	  "    ID STATE        PID PROGRAM       AGE   IDLE     IN    OUT  COMMAND\n" },
	{ FORWARDS, st_has_forward, st_json_forward, st_people_forward, "],\"forwards\":[",
	  "forwards     AGE NOW AND TOTAL  FAILED   SENT   RCVD\n" },
	{ CLIENTS, st_has_proxy, st_json_proxy, st_people_proxy, "],\"proxies\":[", "proxies\n" },
	{ TABLES, NULL, st_json_table, st_people_table, "],\"tables\":[", "" },
};
#define ST_PARTS LENGTH(st_parts)

/* The next element of c's status: the head, the elements of each part, the end. */
static enum st_result st_status(struct client *c, struct buf *b)
{
	bool json = c->report == ST_JSON;
	if (c->part == 0) {
		(json ? st_json_head : st_people_head)(b);
		c->part = 1;
		return ST_PIECE;
	}
	if (c->part > ST_PARTS)
		return ST_END;
	const struct st_part *p = &st_parts[c->part - 1];
	while (c->item < p->size && p->has && !p->has(c->item))
		c->item++;
	bool ends = c->item == p->size;
	if (!c->comma && (json || !ends))	/* before the first, or for an empty array */
		buf_put_bytes(b, json ? p->json_first : p->people_first,
			strlen(json ? p->json_first : p->people_first));
	else if (json && !ends)
		buf_put_u8(b, ',');
	c->comma = true;
	if (ends) {
		c->part++;
		c->item = 0;
		c->comma = false;
		if (json && c->part > ST_PARTS)
			buf_print(b, "]}\n");
	} else
		(json ? p->json : p->people)(b, c->item++);
	return ST_PIECE;
}

/* --- counters: OpenMetrics ------------------------------------------------------------------ */

/* The labels; `host` tells masters apart, and is escaped as in JSON, but without \u. */
static void st_labels(struct buf *b, const char *table)
{
	buf_print(b, "{host=\"");
	for (const char *p = g.op.host_name; *p; p++)
		if (*p == '"' || *p == '\\')
			buf_print(b, "\\%c", *p);
		else
			buf_put_u8(b, (uint8_t)*p);
	buf_print(b, table ? "\",table=\"%s\"} " : "\"} ", table);
}

static void st_metric_head(struct buf *b, const char *name, const char *type, const char *unit,
	const char *help)
{
	buf_print(b, "# TYPE %s %s\n", name, type);
	if (unit[0])
		buf_print(b, "# UNIT %s %s\n", name, unit);
	buf_print(b, "# HELP %s %s\n", name, help);
}

/* Puts family `which`, with one sample for each table. */
static void st_metric_tables(struct buf *b, int which)
{
	static const char *const names[] = { "sshmux_table_in_use", "sshmux_table_peak",
		"sshmux_table_refused" };
	static const char *const help[] = { "Slots in use.", "Most slots ever in use.",
		"How often a table was full." };
	st_metric_head(b, names[which], which == 2 ? "counter" : "gauge", "", help[which]);
	for (int i = 0; i < TABLES; i++) {
		buf_print(b, "%s%s", names[which], which == 2 ? "_total" : "");
		st_labels(b, st_tables[i].name);
		buf_print(b, "%u\n", (unsigned)(which == 0 ? st_tables[i].used() : which == 1 ?
			g.ev.peak[i] : g.ev.refused[i]));
	}
}

static enum st_result st_counters(struct client *c, struct buf *b)
{
	uint64_t active = 0;
	for_each_forward(f)
		active += f->state == FW_ACTIVE;
	struct tp_traffic t = st_traffic(true);
	const struct st_metric {
		const char *name, *type, *unit, *help;
		uint64_t value;
	} metrics[] = {
		{ "sshmux_up", "gauge", "", "Whether the uplink is up.", g.lk.state == LK_UP },
		{ "sshmux_uplink_state_seconds", "gauge", "seconds",
			"How long the uplink has been up, or not.",
			ev_seconds() - (g.lk.since ? g.lk.since : g.ev.begun) },
		{ "sshmux_uptime_seconds", "gauge", "seconds", "Age of the master.",
			ev_seconds() - g.ev.begun },
		{ "sshmux_logins", "counter", "", "Logins that succeeded.", g.lk.logins },
		{ "sshmux_received_bytes", "counter", "bytes", "Bytes received from the server.",
			t.bytes_in },
		{ "sshmux_sent_bytes", "counter", "bytes", "Bytes sent to the server.",
			t.bytes_out },
		{ "sshmux_sessions_opened", "counter", "", "Sessions opened.", g.se.opened },
		{ "sshmux_sessions", "gauge", "", "Sessions open now.", (uint64_t)g.ch.sessions },
		{ "sshmux_round_trip_seconds", "gauge", "seconds",
			"Round trip of the last keepalive.", g.tx.rtt },	/* ms */
		{ "sshmux_forwards_active", "gauge", "", "Forwards that stand.", active },
		{ "sshmux_forwards_waiting", "gauge", "", "Forwards that do not stand.",
			st_forwards() - active },
	};
	size_t i = c->item++, n = LENGTH(metrics);
	if (i < n) {
		const struct st_metric *m = &metrics[i];
		st_metric_head(b, m->name, m->type, m->unit, m->help);
		buf_print(b, "%s%s", m->name, m->type[0] == 'c' ? "_total" : "");
		st_labels(b, NULL);
		if (strcmp(m->name, "sshmux_round_trip_seconds") == 0)
			buf_print(b, "%u.%03u\n", (unsigned)(m->value / 1000),
				(unsigned)(m->value % 1000));
		else
			buf_print(b, "%llu\n", (unsigned long long)m->value);
	} else if (i < n + 3)
		st_metric_tables(b, (int)(i - n));
	else if (i == n + 3)
		buf_print(b, "# EOF\n");
	else
		return ST_END;
	return ST_PIECE;
}

/* --- events -------------------------------------------------------------------------------- */

/* The names of an event, of its numbers and of its text; `moved` if it counts bytes too. */
static const struct st_event {
	const char *name;
	const char *n[EV_NUMBERS];
	const char *text;
	bool moved;
} st_events[EV_KINDS] = {
	[EV_UP] = { "uplink-up", { "login", "tries" }, "address", false },
	[EV_DOWN] = { "uplink-down", { "seconds" }, "reason", false },
	[EV_TRYING] = { "uplink-trying", { "tries", "next_try" }, "reason", false },
	[EV_SESSION_OPENED] = { "session-opened", { "session", "pid", "uid" }, "command", false },
	[EV_SESSION_CLOSED] = { "session-closed", { "session", "pid", "uid", "status", "seconds" },
		"command", true },
	[EV_FORWARD_UP] = { "forward-up", { NULL }, "forward", false },
	[EV_FORWARD_DOWN] = { "forward-down", { NULL }, "forward", false },
	[EV_FORWARD_FAILED] = { "forward-failed", { NULL }, "forward", false },
	[EV_LIMIT] = { "limit-reached", { NULL }, "table", false },
	[EV_REKEY] = { "keys-exchanged", { NULL }, "kex", false },
	[EV_REFUSED] = { "client-refused", { "pid", "uid" }, "reason", false },
	[EV_ENDING] = { "master-ending", { NULL }, "reason", false },
};

static void st_json_event(struct buf *b, const struct event *e)
{
	const struct st_event *s = &st_events[e->kind];
	js_open(b, NULL);
	js_text(b, "event", s->name);
	js_number(b, "age", (g.now - e->at) / 1000);
	for (int i = 0; i < EV_NUMBERS && s->n[i]; i++)
		js_number(b, s->n[i], e->n[i]);
	if (s->moved) {
		js_number(b, "stdin_bytes", (int64_t)e->in);
		js_number(b, "output_bytes", (int64_t)e->out);
	}
	js_text(b, s->text, e->text);
	buf_print(b, "}\n");
}

static void st_people_event(struct buf *b, const struct event *e)
{
	const struct st_event *s = &st_events[e->kind];
	buf_print(b, "%7s ago  %-15s", st_span((g.now - e->at) / 1000), s->name);
	for (int i = 0; i < EV_NUMBERS && s->n[i]; i++)
		buf_print(b, " %s %d,", s->n[i], (int)e->n[i]);
	if (s->moved)
		buf_print(b, " %sB in, %sB out,", st_size(e->in), st_size(e->out));
	buf_print(b, " %s %s\n", s->text, e->text);
}

/* The next event that c has not seen, or first the number of events it missed. */
static enum st_result st_next_event(struct client *c, struct buf *b)
{
	uint32_t waiting = g.ev.next - c->seen;
	if (waiting == 0)
		return c->report == ST_WATCH ? ST_WAIT : ST_END;
	if (waiting > EVENTS) {
		js_open(b, NULL);
		js_text(b, "event", "lost");
		js_number(b, "count", waiting - EVENTS);
		buf_print(b, "}\n");
		c->seen = g.ev.next - EVENTS;
		return ST_PIECE;
	}
	const struct event *e = &g.ev.slot[c->seen++ % EVENTS];
	(c->report == ST_LOG ? st_people_event : st_json_event)(b, e);
	return ST_PIECE;
}

/* --- reports ------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	enum st_result (*next)(struct client *, struct buf *);
} st_reports[ST_REPORTS] = {
	[ST_STATUS] = { "status", st_status },
	[ST_JSON] = { "status-json", st_status },
	[ST_METRICS] = { "metrics", st_counters },
	[ST_LOG] = { "log", st_next_event },
	[ST_LOG_JSON] = { "log-json", st_next_event },
	[ST_WATCH] = { "watch", st_next_event },
};

/* Begins the report `what`; a watch starts with the last `since` events.  False if there is
 * no such report. */
static bool st_begin(struct client *c, struct str what, uint32_t since)
{
	uint32_t known = g.ev.next < EVENTS ? g.ev.next : EVENTS;
	uint8_t report = ST_REPORTS - 1;
	while (report > ST_NONE && !str_is(what, st_reports[report].name))
		report--;
	c->report = report;
	c->part = 0;
	c->comma = false;
	c->item = 0;
	if (report != ST_WATCH || since > known)
		since = known;
	c->seen = g.ev.next - since;
	return report != ST_NONE;
}

/* Makes the next piece of c's report. */
static enum st_result st_next(struct client *c, struct buf *b)
{
	return st_reports[c->report].next(c, b);
}

/* ===== mc_ ====================================================================
 * The clients: their slots, and answers to them.  mc_drop() only marks a client: in
 * lp_reap(), mc_free() frees it and all that it holds.
 * Calls log_, rn_, ev_, sl_, buf_, req_, fd_, tx_, ch_, us_, fw_, px_, as_, st_. */

static void mc_drop(struct client *c)
{
	c->dead = true;
}

/* Builds the HELLO of a master or a client.  A master says that it answers
 * EXT_INFO (HELLO-info); both add sshmux=1, which other programs ignore. */
static void mc_put_hello(struct buf *b, bool master)
{
	size_t start = buf_frame(b, MUX_MSG_HELLO, MUX_VERSION);
	if (master) {
		buf_put_text(b, "info");
		buf_put_text(b, "0");
	}
	buf_put_text(b, "sshmux");
	buf_put_text(b, "1");
	buf_end(b, start);
}

static struct client *mc_add(int fd, struct os_peer peer)
{
	int i = 0;
	while (i < CLIENTS && g.mc.slot[i].phase != MX_FREE)
		i++;
	if (i == CLIENTS)		/* callers check that one is free */
		log_abort("more clients than CLIENTS");
	struct client *c = &g.mc.slot[i];
	memset(c, 0, sizeof *c);
	c->fd = fd;
	c->peer = peer;
	c->phase = MX_HEADER;
	c->channel = c->request = c->forward = c->answer = -1;
	c->ask = -1;
	c->deadline = g.now + HELLO_MS;
	c->wait = g.op.session_wait * 1000;
	ev_used(TABLE_CLIENTS, (uint32_t)i + 1);
	if (i >= g.mc.end)
		g.mc.end = i + 1;
	struct buf b = buf_over(c->out, sizeof c->out);
	mc_put_hello(&b, true);
	c->out_len = (uint16_t)b.pos;
	return c;
}

/* Closes the descriptors that arrived but did not go to a channel. */
static void mc_close_fds(struct client *c)
{
	for (int i = 0; i < c->n_fds; i++)
		fd_close(&c->fds[i]);
	c->n_fds = 0;
}

/* Whether c is the only client and no channel but abandoned ones is left: then the
 * master need not wait for them. */
static bool mc_is_alone(const struct client *c)
{
	for_each_client(o)
		if (o != c)
			return false;
	for_each_channel(ch)
		if (!ch_is_abandoned(ch))
			return false;
	return true;
}

/* Tells watchers that a session has ended; `status` is its exit status or -1. */
static void mc_tell_closed(const struct client *c, const struct channel *ch, int32_t status)
{
	const struct record *r = st_record(c);
	if (ch->record >= 0)
		ev_add((struct event){ .kind = EV_SESSION_CLOSED, .in = r->bytes[IN_BYTES],
			.out = r->bytes[OUT_BYTES] + r->bytes[ERR_BYTES],
			.n = { sl_channel_index(ch), c->peer.pid, (int32_t)c->peer.uid, status,
			(int32_t)(ev_seconds() - r->since) } }, r->command);
}

/* Frees a client that was dropped, and all that it holds. */
static void mc_free(struct client *c)
{
	if (c->channel >= 0) {
		mc_tell_closed(c, sl_channel(c->channel), -1);
		ch_abandon(sl_channel(c->channel));
	}
	if (c->forward >= 0) {			/* it has no client to answer now */
		sl_forward(c->forward)->client = -1;
		if (sl_forward(c->forward)->state == FW_WAITING)
			fw_free(sl_forward(c->forward));
	}
	tx_forget_probes(sl_client_index(c));
	as_forget(&c->ask);
	if (px_is(c))
		px_leave(c);
	mc_close_fds(c);
	req_free(&c->request);
	req_free(&c->answer);
	fd_close(&c->fd);
	c->phase = MX_FREE;
	if (c->split && !us_persists() && g.rn.stop == RN_RUN)
		rn_stop(mc_is_alone(c) ? RN_NOW : RN_WHEN_IDLE, g.rn.exit_code);
	while (g.mc.end > 0 && g.mc.slot[g.mc.end - 1].phase == MX_FREE)
		g.mc.end--;
}

/* Queues a frame: a type and a word (request or session id), then a second word
 * and a text, unless `value` or `text` is NULL. */
static void mc_reply(struct client *c, enum mux_type type, uint32_t word, const uint32_t *value,
	const char *text)
{
	struct buf b = buf_over(c->out + c->out_len, sizeof c->out - c->out_len);
	buf_frame(&b, type, word);
	if (value)
		buf_put_u32(&b, *value);
	if (text)
		buf_put_text(&b, text);
	if (b.bad) {		/* the client does not read its answers */
		mc_drop(c);
		return;
	}
	buf_end(&b, 0);
	c->out_len += (uint16_t)b.pos;
}

static void mc_ok(struct client *c)
{
	mc_reply(c, MUX_S_OK, c->rid, NULL, NULL);
}

static void mc_failure(struct client *c, const char *why)
{
	mc_reply(c, MUX_S_FAILURE, c->rid, NULL, why);
}

/* As with ssh, the client stays connected. */
static void mc_denied(struct client *c)
{
	mc_reply(c, MUX_S_PERMISSION_DENIED, c->rid, NULL, "Permission denied");
}

/* Ends the present request; the next one may come. */
static void mc_next(struct client *c)
{
	mc_close_fds(c);
	req_free(&c->request);
	c->phase = MX_HEADER;
	c->got = 0;
	c->too_long = c->consent = false;
	c->deadline = 0;
}

/* Refuses a session: writes FAILURE, then closes the connection. */
static void mc_refuse(struct client *c, const char *why)
{
	mc_failure(c, why);
	mc_next(c);
	c->closing = true;
}

/* Refuses a request that waited too long.  An sshmux client gets an answer of its
 * own for this, so that it can tell it from other failures. */
static void mc_later(struct client *c, const char *why)
{
	mc_reply(c, c->sshmux ? MUX_X_S_TRY_LATER : MUX_S_FAILURE, c->rid, NULL, why);
	mc_next(c);
	c->closing = true;
}

static const char mc_no_descriptors[] = "the master has no file descriptors left";

/* The master takes no more sessions.  Who has the patience waits for the next one. */
static void mc_drained(struct client *c)
{
	(c->patient ? mc_later : mc_refuse)(c, "the master is draining");
}

/* Whether all answers to c are written. */
static bool mc_written(const struct client *c)
{
	return c->out_len == 0 && c->answer < 0;
}

/* Whether the only clients left, if any, are those that read reports. */
static bool mc_only_watchers(void)
{
	for_each_client(c)
		if (c->phase != MX_REPORTING)
			return false;
	return true;
}

/* ===== mx_ ====================================================================
 * The requests of PROTOCOL.mux: a handler for each message, and their table.  A refused
 * request gets FAILURE or PERMISSION_DENIED; times are in ms.
 * Calls log_, rn_, ev_, sl_, buf_, req_, tx_, us_, ac_, fw_, ls_, in_, px_, as_, st_, mc_. */

/* Whether the present request may go ahead: without asking, or because the user
 * said yes.  If false, we ask the user now or later; the handler returns, and
 * runs again after a yes. */
static PRINTF(2, 3) bool mx_consent(struct client *c, const char *format, ...)
{
	char question[2 * FORWARD_HOST + 300];
	if (g.op.master != OP_MASTER_ASK || c->consent || c->split)
		return true;
	FORMAT(question, format);
	for (char *p = question; *p; p++)	/* clients chose some of the words */
		if (iscntrl((unsigned char)*p))
			*p = '?';
	c->ask = as_start(question);
	c->phase = c->ask < 0 ? MX_ASK_WAIT : MX_ASKING;
	return false;
}

static struct buf mx_body(struct client *c)
{
	return buf_over(req_body(c), c->too_long ? 0 : c->body_len);
}

static void mx_hello(struct client *c, struct buf *b)
{
	if (c->rid != MUX_VERSION || c->too_long) {
		log_at(TP_VERBOSE, "client with mux version %u dropped", (unsigned)c->rid);
		mc_drop(c);
		return;
	}
	while (!b->bad && b->pos < b->len) {
		struct str name = buf_get_str(b), value = buf_get_str(b);
		if (str_is(name, "sshmux") && str_is(value, "1"))
			c->sshmux = true;
	}
	c->greeted = true;
}

static void mx_alive_check(struct client *c, UNUSED struct buf *b)
{
	uint32_t pid = (uint32_t)getpid();
	mc_reply(c, MUX_S_ALIVE, c->rid, &pid, NULL);
}

/* Removes the path before it answers, so that a new master can start. */
static void mx_terminate(struct client *c, UNUSED struct buf *b)
{
	if (!mx_consent(c, "Terminate shared connection to %s? ", g.op.host_name))
		return;
	us_remove();
	mc_ok(c);
	c->closing = true;
	rn_stop(RN_NOW, 0);
}

static void mx_stop_listening(struct client *c, UNUSED struct buf *b)
{
	if (!mx_consent(c, "Disable further multiplexing on shared connection to %s? ",
		g.op.host_name))
		return;
	us_remove();
	mc_ok(c);
	rn_stop(RN_WHEN_IDLE, g.rn.exit_code);
}

#define ENV_NAME_MAX 1024

/* The longest exec and pty-req that surely fit into one message, in bytes. */
#define MX_COMMAND_MAX (tp_payload_max - 64)
#define MX_TERM_MAX 512

/* The checks that sessions and stdio forwards share; answers c if it returns false. */
static bool mx_may_open(struct client *c)
{
	if (c->channel >= 0)
		mc_failure(c, "Multiple sessions not supported");
	else if (c->too_long)
		mc_refuse(c, "request too long");
	else if (g.mx.draining)
		mc_drained(c);
	else
		return true;
	return false;
}

/* Makes c wait for its turn.  With SessionWait 0 it gets one chance. */
static void mx_queue(struct client *c)
{
	if (g.ch.sessions == SESSIONS)
		ev_full(TABLE_SESSIONS, "SESSIONS");
	c->phase = MX_QUEUED;
	c->give_up = c->deadline = g.now + c->wait + 1;
	c->place = 0;
	c->reopened = 0;
}

static void mx_new_session(struct client *c, struct buf *b)
{
	struct req_session s;
	if (!mx_may_open(c))
		return;
	if (!req_session(b, &s))
		mc_drop(c);
	else if (s.command.len > MX_COMMAND_MAX || s.term.len > MX_TERM_MAX)
		mc_refuse(c, "command too long");
	else if (mx_consent(c, "Allow shared connection to %s? ", g.op.host_name))
		mx_queue(c);
}

/* Copies a host or path out of a message; false if it is too long. */
static bool mx_endpoint(struct endpoint *e, struct str host, uint32_t port)
{
	if (host.len >= sizeof e->host)
		return false;
	memcpy(e->host, host.p, host.len);
	e->host[host.len] = 0;
	e->port = port;
	return true;
}

static bool mx_port_ok(uint32_t port)
{
	return port <= 65535 || port == FW_PATH;
}

static bool mx_parse_stdio(struct buf *b, struct endpoint *to)
{
	buf_get_str(b);			/* reserved */
	struct str host = buf_get_text(b);
	uint32_t port = buf_get_u32(b);
	return !b->bad && mx_endpoint(to, host, port);
}

static void mx_new_stdio_fwd(struct client *c, struct buf *b)
{
	struct endpoint to;
	if (!mx_may_open(c))
		return;
	bool fits = mx_parse_stdio(b, &to);
	if (b->bad)
		mc_drop(c);
	else if (!fits || to.host[0] == 0 || to.port == 0 || !mx_port_ok(to.port))
		mc_refuse(c, "Invalid forwarding request");
	else if (to.port == FW_PATH ? mx_consent(c, "Allow forward to %s? ", to.host)
				    : mx_consent(c, "Allow forward to %s:%u? ", to.host,
				    (unsigned)to.port))
		mx_queue(c);
}

/* Reads the fields of a forward.  If they are invalid, it answers or drops c and
 * returns false. */
static bool mx_parse_forward(struct client *c, struct buf *b, struct forward *f)
{
	uint32_t type = buf_get_u32(b);
	struct str listen = buf_get_text(b);
	uint32_t listen_port = buf_get_u32(b);
	struct str connect = buf_get_text(b);
	uint32_t connect_port = buf_get_u32(b);
	if (b->bad && !c->too_long) {
		mc_drop(c);
		return false;
	}
	f->uid = c->peer.uid;
	bool dynamic = type == FW_DYNAMIC || (type == FW_REMOTE && connect_port == 0);
	bool ok = !c->too_long && type >= FW_LOCAL && type <= FW_DYNAMIC &&
		mx_endpoint(&f->listen, listen, listen_port) &&
			mx_endpoint(&f->connect, connect, connect_port) &&
		mx_port_ok(listen_port) && mx_port_ok(connect_port) &&
		(type != FW_DYNAMIC || listen_port != FW_PATH) &&
		(type == FW_REMOTE || listen_port != 0) &&
			(dynamic || (connect_port != 0 && connect.len > 0)) &&
		(type != FW_REMOTE || connect_port != 0 || str_is(connect, "socks"));
	f->type = (uint8_t)type;
	b->bad = false;
	if (!ok)
		mc_failure(c, "Invalid forwarding request");
	return ok;
}

/* Tells a client what became of the forward it asked for. */
static void mx_forward_done(struct client *c, struct forward *f)
{
	char why[160];
	if (f->state == FW_ACTIVE && f->type == FW_REMOTE && f->listen.port == 0)
		mc_reply(c, MUX_S_REMOTE_PORT, c->rid, &f->allocated, NULL);
	else if (f->state == FW_ACTIVE)
		mc_ok(c);
	else if (f->type != FW_REMOTE)
		snprintf(why, sizeof why, "Port forwarding failed: %s", f->why);
	else if (f->listen.port == FW_PATH)
		snprintf(why, sizeof why, "remote port forwarding failed for listen path %.100s",
			f->listen.host);
	else
		snprintf(why, sizeof why, "remote port forwarding failed for listen port %u%s%.90s",
			(unsigned)f->listen.port,
			g.lk.state == LK_UP ? "" : ": ", g.lk.state == LK_UP ? "" : f->why);
	if (f->state != FW_ACTIVE)
		mc_failure(c, why);
}

static bool mx_consent_forward(struct client *c, const struct forward *f)
{
	const char *host = f->listen.host[0] ? f->listen.host : f->type != FW_REMOTE &&
		g.op.gateway_ports ? "*" : "LOCALHOST";
	char from[16] = "", to[16] = "";
	bool socks = f->type == FW_DYNAMIC || fw_is_remote_dynamic(f);
	if (!fw_is_path(&f->listen))
		snprintf(from, sizeof from, ":%u", (unsigned)f->listen.port);
	if (!fw_is_path(&f->connect) && !socks)
		snprintf(to, sizeof to, ":%u", (unsigned)f->connect.port);
	return mx_consent(c, "Open %s forward %s%s -> %s%s on %s?", fw_types[f->type], host, from,
			  socks ? "*" : f->connect.host, to, g.op.host_name);
}

/* A forward has the rights of the master's user.  So another user's forward may not
 * open Unix sockets, here or by remote SOCKS, nor listen on a port below 1024. */
static bool mx_may_forward(const struct forward *f)
{
	bool remote = f->type == FW_REMOTE;
	const struct endpoint *here = remote ? &f->connect : &f->listen;
	return ac_is_own(f->uid) || (!fw_is_path(here) && !fw_is_remote_dynamic(f) &&
		(remote || here->port >= 1024));
}

static void mx_open_fwd(struct client *c, struct buf *b)
{
	struct forward like, *f;
	if (!mx_parse_forward(c, b, &like))
		return;
	if (!mx_may_forward(&like) || ac_is_crowded(like.uid)) {
		mc_denied(c);
		return;
	}
	if ((f = fw_find(&like)) && f->state == FW_ACTIVE) {
		mx_forward_done(c, f);
		return;
	}
	if (!f && !mx_consent_forward(c, &like))
		return;
	if (f || !(f = fw_add(&like))) {
		mc_failure(c, f ? "Port forwarding failed: it is being set up" :
			"Port forwarding failed: too many forwards");
		return;
	}
	c->forward = sl_forward_index(f);
	c->phase = MX_FORWARDING;
	if (g.lk.state != LK_UP)
		c->deadline = g.now + c->wait + 1;
	f->client = sl_client_index(c);
	f->uid = like.uid;
	ls_start(f);
}

static void mx_close_fwd(struct client *c, struct buf *b)
{
	struct forward like, *f;
	if (!mx_parse_forward(c, b, &like))
		return;
	f = fw_find(&like);
	if (!f || f->client >= 0 || f->state == FW_ASKED ||
		(!ac_is_own(like.uid) && like.uid != f->uid)) {
		mc_failure(c, "port not forwarded");
		return;
	}
	if (f->type == FW_REMOTE && f->state == FW_ACTIVE && g.lk.state == LK_UP)
		ls_tx(f, true, false);
	if (f->state == FW_ACTIVE)
		ev_add((struct event){ .kind = EV_FORWARD_DOWN }, ls_event(f, "cancelled"));
	fw_free(f);			/* its open connections go on */
	mc_ok(c);
}

/* Answers a client when the forward that it waits for stands or has failed. */
static void mx_forward_events(struct client *c)
{
	struct forward *f = sl_forward(c->forward);
	if (!f->answered && c->deadline == 0 && g.lk.state != LK_UP && f->type == FW_REMOTE)
		c->deadline = g.now + c->wait + 1;	/* lost while the server was asked */
	if (!f->answered)
		return;
	f->answered = false;
	f->client = c->forward = -1;
	mx_forward_done(c, f);
	if (f->state != FW_ACTIVE && !f->permanent)
		fw_free(f);
	mc_next(c);
}

/* The link did not come up in time for the forward that c asked for. */
static void mx_forward_expired(struct client *c)
{
	struct forward *f = sl_forward(c->forward);
	if (f->state == FW_ASKED) {		/* the link came in time: the server decides */
		c->deadline = 0;
		return;
	}
	snprintf(f->why, sizeof f->why, "%.90s", in_state());
	if (c->sshmux) {
		mc_later(c, f->why);
		f->client = c->forward = -1;
		if (!f->permanent)
			fw_free(f);
		return;
	}
	f->answered = true;
	mx_forward_events(c);
}

/* Answers EXT_INFO (INFO-…).  The text may be longer than a client's `out`, so it
 * stays in request memory until it is written. */
static void mx_ext_info(struct client *c, struct buf *b)
{
	struct str what = buf_get_text(b);
	bool connection = str_is(what, "connection"), known = connection ||
		str_is(what, "channels");
	if (b->bad) {			/* a short request gets an answer, too (INFO-short) */
		b->bad = false;
		mc_failure(c, "malformed request");
		return;
	}
	const char *why = known ? NULL : "info request type not supported";
	struct buf t = buf_over(g.scratch, sizeof g.scratch - 1);
	buf_frame(&t, MUX_S_EXT_INFO, c->rid);
	buf_put_u32(&t, known);
	buf_put_u32(&t, 0);		/* length of the text */
	size_t text = t.pos;
	if (connection)
		in_connection(&t);
	else if (known)
		in_channels(&t);
	if (known && (c->answer = (int16_t)req_alloc((uint32_t)t.pos)) < 0)
		why = "too many requests at once";
	if (why) {
		buf_set_u32(t.p + text - 8, false);
		t.pos = text;
		buf_print(&t, "%s", why);
	}
	buf_end(&t, text - 4);
	buf_end(&t, 0);
	if (c->answer >= 0)
		memcpy(req_data(c->answer), t.p, t.pos);
	else {
		/* `out` is empty, or we would not have read the request */
		memcpy(c->out + c->out_len, t.p, t.pos);
		c->out_len += (uint16_t)t.pos;
	}
	c->answer_pos = 0;
}

/* How long c's requests may wait (s), and whether it wants its place in the queue. */
static void mx_wait(struct client *c, struct buf *b)
{
	c->patient = c->rid != MX_KEEP_WAIT && c->rid > 0;
	if (c->rid != MX_KEEP_WAIT)
		c->wait = (int64_t)(c->rid < 86400 ? c->rid : 86400) * 1000;
	c->tell_place = b->len >= 4 && buf_get_u32(b);
}

/* The client says whether its data is bulk or interactive: sd_ need not guess. */
static void mx_weight(struct client *c, UNUSED struct buf *b)
{
	if (c->rid <= SD_INTERACTIVE)
		c->sender.weight = (uint8_t)c->rid;
}

static void mx_tell_state(struct client *c, bool up, const char *text)
{
	uint32_t flag = up;
	mc_reply(c, MUX_X_S_STATE, c->rid, &flag, text);
}

/* Tells the state of the link; if c wants a probe, only after the server has answered. */
static void mx_state(struct client *c, struct buf *b)
{
	bool probe = buf_get_u32(b);
	if (!probe || g.lk.state != LK_UP || !tx_keepalive(GLOBAL_PROBE, sl_client_index(c))) {
		mx_tell_state(c, g.lk.state == LK_UP && !probe, st_brief());
		return;
	}
	c->phase = MX_PROBING;
	c->deadline = g.now + PROBE_MS;
}

/* Answers c when the answer to its probe has come or the link is lost. */
static void mx_probe_events(struct client *c)
{
	if (!c->probed && g.lk.state == LK_UP)
		return;
	mx_tell_state(c, c->probed, in_state());
	c->probed = false;
	mc_next(c);
}

/* Passes a signal on to a session's command (RFC 4254, 6.9); false if it cannot now. */
static bool mx_send_signal(struct channel *ch, struct str name)
{
	if (ch->state != CH_OPEN || ch->sent == CH_CLOSED || tp_room() == 0)
		return false;
	struct buf *m = tx_request(ch, "signal", false);
	buf_put_str(m, name);
	tx_end(m);
	return true;
}

/* Whether this is a signal that a client may name (RFC 4254, 6.10). */
static bool mx_is_signal(struct str name)
{
	static const char *const known[] = {
		"ABRT", "ALRM", "FPE", "HUP", "ILL", "INT", "KILL", "PIPE", "QUIT", "SEGV", "TERM",
		"USR1", "USR2"
	};
	for (size_t i = 0; i < LENGTH(known); i++)
		if (str_is(name, known[i]))
			return true;
	return false;
}

/* The client's --timeout is over: sends TERM to its command. */
static void mx_kill(struct client *c, UNUSED struct buf *b)
{
	if (c->channel >= 0)
		mx_send_signal(sl_channel(c->channel), str_of("TERM"));
}

/* An sshmux client was continued after ~^Z. */
static void mx_resume(struct client *c, UNUSED struct buf *b)
{
	if (c->channel >= 0)
		sl_channel(c->channel)->flags &= (uint16_t)~CH_SUSPENDED;
}

/* Begins a report; fr_write_report() sends it in pieces. */
static void mx_report(struct client *c, struct buf *b)
{
	struct str what = buf_get_str(b);
	uint32_t since = buf_get_u32(b);
	if (b->bad || !st_begin(c, what, since)) {
		b->bad = false;
		mc_failure(c, "there is no such report");
		return;
	}
	c->phase = MX_REPORTING;
}

/* The session with this number, or NULL. */
static struct channel *mx_session_by(struct str number)
{
	uint32_t id = 0;
	bool digits = number.len > 0 && number.len < 6;
	for (uint32_t i = 0; digits && i < number.len; i++) {
		digits = isdigit(number.p[i]);
		id = id * 10 + (uint32_t)(number.p[i] - '0');
	}
	struct channel *ch = digits ? sl_channel(id) : NULL;
	return ch && ch->kind == CH_SESSION && ch->state == CH_OPEN && ch->client >= 0 ? ch : NULL;
}

/* An sshmux client got a signal and passes it on to its command. */
static void mx_signal(struct client *c, struct buf *b)
{
	struct str name = buf_get_str(b);
	if (!b->bad && c->channel >= 0 && mx_is_signal(name))
		mx_send_signal(sl_channel(c->channel), name);
}

/* The verbs of -O.  Each returns NULL, or why it fails. */

/* Frees the path for another master; this one ends when its sessions have finished. */
static const char *mx_drain(UNUSED const struct str *word)
{
	us_remove();
	g.mx.draining = true;
	rn_stop(RN_WHEN_IDLE, g.rn.exit_code);
	for_each_client(c)	/* those that wait have not begun */
		if (c->phase == MX_QUEUED && c->type == MUX_C_NEW_SESSION)
			mc_drained(c);
	return NULL;
}

static const char *mx_hold(UNUSED const struct str *word)
{
	g.mx.held = true;
	return NULL;
}

static const char *mx_unhold(UNUSED const struct str *word)
{
	g.mx.held = false;
	return NULL;
}

static const char *mx_reconnect(UNUSED const struct str *word)
{
	if (g.op.reconnect == LK_NO || g.rn.stop != RN_RUN)
		return "the master would end: it was not told to reconnect";
	g.mx.reconnect = true;
	return NULL;
}

static const char *mx_loglevel(const struct str *word)
{
	return log_set_level(word[0]) ? NULL : "there is no such level";
}

static const char mx_no_session[] = "there is no such session";

static const char *mx_signal_session(const struct str *word)
{
	struct channel *ch = mx_session_by(word[0]);
	return !ch ? mx_no_session : !mx_is_signal(word[1]) ? "there is no such signal" :
		mx_send_signal(ch, word[1]) ? NULL : "the session cannot be told now";
}

/* Drops the session's client; the server sees the channel close. */
static const char *mx_kill_session(const struct str *word)
{
	struct channel *ch = mx_session_by(word[0]);
	if (ch)
		mc_drop(sl_client(ch->client));
	return ch ? NULL : mx_no_session;
}

static const struct mx_verb {
	const char *name;
	const char *(*run)(const struct str *);
} mx_verbs[] = {
	{ "drain", mx_drain },
	{ "hold", mx_hold },
	{ "resume", mx_unhold },
	{ "reconnect", mx_reconnect },
	{ "loglevel", mx_loglevel },
	{ "signal", mx_signal_session },
	{ "kill", mx_kill_session },
};

static void mx_control(struct client *c, struct buf *b)
{
	struct str verb = buf_get_str(b), word[2];
	word[0] = buf_get_str(b);
	word[1] = buf_get_str(b);
	const struct mx_verb *v = NULL;
	for (size_t i = 0; i < LENGTH(mx_verbs); i++)
		if (str_is(verb, mx_verbs[i].name))
			v = &mx_verbs[i];
	if (!b->bad && v && !mx_consent(c, "Allow %s on shared connection to %s? ", v->name,
		g.op.host_name))
		return;
	const char *why = b->bad || !v ? "there is no such command" : v->run(word);
	b->bad = false;
	mc_reply(c, why ? MUX_S_FAILURE : MUX_S_OK, c->rid, NULL, why);
}

/* From here on the client speaks SSH messages itself. */
static void mx_proxy(struct client *c, UNUSED struct buf *b)
{
	if (c->channel >= 0) {
		mc_failure(c, "Multiple sessions not supported");
		return;
	}
	if (!mx_consent(c, "Allow multiplex proxy connection to %s? ", g.op.host_name))
		return;
	mc_reply(c, MUX_S_PROXY, c->rid, NULL, NULL);
	px_begin(c);
}

static const struct mx_handler {
	uint32_t type;
	uint8_t fds;			/* descriptors that follow the frame */
	bool body;			/* read the body; else skip it */
	uint8_t right;			/* enum ac_right that it needs, AC_RIGHTS for none */
	void (*run)(struct client *, struct buf *);
} mx_table[] = {
	{ MUX_MSG_HELLO, 0, true, AC_RIGHTS, mx_hello },
	{ MUX_C_NEW_SESSION, 3, true, AC_SESSION, mx_new_session },
	{ MUX_C_ALIVE_CHECK, 0, false, AC_RIGHTS, mx_alive_check },
	{ MUX_C_TERMINATE, 0, false, AC_CONTROL, mx_terminate },
	{ MUX_C_OPEN_FWD, 0, true, AC_FORWARD, mx_open_fwd },
	{ MUX_C_CLOSE_FWD, 0, true, AC_FORWARD, mx_close_fwd },
	{ MUX_C_NEW_STDIO_FWD, 2, true, AC_FORWARD, mx_new_stdio_fwd },
	{ MUX_C_STOP_LISTENING, 0, false, AC_CONTROL, mx_stop_listening },
	{ MUX_C_EXT_INFO, 0, true, AC_CONTROL, mx_ext_info },
	{ MUX_X_C_RESUME, 0, false, AC_RIGHTS, mx_resume },
	{ MUX_X_C_WAIT, 0, true, AC_RIGHTS, mx_wait },
	{ MUX_X_C_WEIGHT, 0, false, AC_RIGHTS, mx_weight },
	{ MUX_X_C_STATE, 0, true, AC_RIGHTS, mx_state },
	{ MUX_X_C_KILL, 0, false, AC_RIGHTS, mx_kill },
	{ MUX_X_C_REPORT, 0, true, AC_CONTROL, mx_report },
	{ MUX_X_C_CONTROL, 0, true, AC_CONTROL, mx_control },
	{ MUX_X_C_SIGNAL, 0, true, AC_RIGHTS, mx_signal },
	{ MUX_C_PROXY, 0, false, AC_PROXY, mx_proxy },
};

static const struct mx_handler *mx_handler(uint32_t type)
{
	for (size_t i = 0; i < LENGTH(mx_table); i++)
		if (mx_table[i].type == type)
			return &mx_table[i];
	return NULL;
}

/* Whether c has the right to make this request. */
static bool mx_permitted(const struct client *c, const struct mx_handler *h, struct buf b)
{
	struct req_session s = { .command = { .len = 0 } };
	enum ac_right right = (enum ac_right)h->right;
	if (h->run == mx_new_session && req_session(&b, &s))
		right = s.subsystem ? AC_SUBSYSTEM : s.command.len ? AC_COMMAND : AC_SESSION;
	return right == AC_RIGHTS || ac_may(c->fd, right, s.command);
}

/* The frame and its descriptors have arrived: answers the request. */
static void mx_dispatch(struct client *c)
{
	const struct mx_handler *h = mx_handler(c->type);
	struct buf b = mx_body(c);
	c->phase = MX_HEADER;
	c->deadline = 0;
	if (h && !mx_permitted(c, h, b))
		mc_denied(c);
	else if (h)
		h->run(c, &b);
	else
		mc_failure(c, "unsupported request");
	if (b.bad)
		mc_drop(c);
	if (c->phase == MX_HEADER)
		mc_next(c);
}

/* The user has answered, or cannot be asked. */
static void mx_ask_events(struct client *c)
{
	enum as_answer answer = as_answer(c->ask);
	if (answer == AS_WAITING)
		return;
	as_forget(&c->ask);
	if (answer == AS_YES) {
		c->consent = true;
		mx_dispatch(c);
		return;
	}
	log_at(TP_VERBOSE, "the user refused request 0x%08x of a client", (unsigned)c->type);
	mc_denied(c);
	mc_next(c);
}

/* Whether -O reconnect has come since the last call. */
static bool mx_takes_reconnect(void)
{
	bool asked = g.mx.reconnect;
	g.mx.reconnect = false;
	return asked;
}

/* ===== fr_ ====================================================================
 * Reads the clients' frames and writes the answers.  It never reads past a frame, because
 * descriptors may follow, and it reads nothing more while an answer is due or not yet
 * written.  A frame has MUX_FRAME_MAX bytes at most, a body that a handler reads
 * REQUEST_MAX.  A frame that breaks the protocol drops the client.
 * Calls buf_, req_, fd_, us_, st_, mc_, mx_. */

/* Whether a request is malformed: checked before its descriptors are received. */
static bool fr_is_malformed(struct client *c)
{
	struct buf b = mx_body(c);
	struct req_session session;
	struct endpoint to;
	if (c->type == MUX_C_NEW_SESSION)
		return !req_session(&b, &session);
	mx_parse_stdio(&b, &to);
	return b.bad;
}

/* The body was read or skipped: now the descriptors, if any, or the answer. */
static void fr_body_done(struct client *c)
{
	const struct mx_handler *h = mx_handler(c->type);
	if (h && h->fds > 0 && !c->too_long && fr_is_malformed(c))
		mc_drop(c);
	else if (h && h->fds > 0)
		c->phase = MX_DESCRIPTORS;
	else
		mx_dispatch(c);
}

/* The header is complete: checks it and decides where the body goes. */
static void fr_head(struct client *c)
{
	struct buf b = buf_over(c->header, sizeof c->header);
	uint32_t length = buf_get_u32(&b);
	c->type = buf_get_u32(&b);
	c->rid = buf_get_u32(&b);
	if (c->greeted == (c->type == MUX_MSG_HELLO)) {
		mc_drop(c);
		return;
	}
	const struct mx_handler *h = mx_handler(c->type);
	c->body_len = length - (MX_HEADER_SIZE - 4);
	c->got = 0;
	c->ticket = g.fr.ticket++;
	c->give_up = g.now + c->wait + 1;
	c->too_long = h && h->body && c->body_len > REQUEST_MAX;
	if (c->body_len == 0)
		fr_body_done(c);
	else if (!h || !h->body || c->too_long)
		c->phase = MX_SKIP;
	else if (c->body_len <= MX_SMALL)
		c->phase = MX_BODY;
	else {
		c->phase = MX_BODY_WAIT;
		c->deadline = g.now + c->wait + 1;
	}
}

/* Reads up to `want` bytes into `to` and counts them in c->got; true if any came. */
static bool fr_read_some(struct client *c, uint8_t *to, size_t want)
{
	ssize_t n = fd_read(c->fd, to, want);
	if (n == FD_END || n == FD_ERROR)
		mc_drop(c);
	if (n <= 0)
		return false;
	if (c->phase == MX_HEADER && c->got == 0 && c->greeted)
		c->deadline = g.now + REQUEST_MS;
	c->got += (uint32_t)n;
	return true;
}

static bool fr_read_descriptor(struct client *c)
{
	int fd;
	bool room = c->n_fds > 0 || fd_room(MX_DESCRIPTOR_MAX);
	if (!room || (c->n_fds == 0 && !fd_more())) {
		c->phase = MX_NO_DESCRIPTOR;
		c->deadline = c->give_up;
		if (room)
			us_pause();
		return true;
	}
	ssize_t n = fd_receive(c->fd, &fd);
	if (n == FD_AGAIN)
		return false;
	if (n == FD_END)
		mc_drop(c);
	else if (n == FD_LOST && !fd_more())
		mc_later(c, mc_no_descriptors);
	else if (n == FD_ERROR || n == FD_LOST)		/* the system may forbid it */
		mc_refuse(c, "did not receive file descriptors");
	else {
		c->fds[c->n_fds++] = fd;
		if (c->n_fds == mx_handler(c->type)->fds)
			mx_dispatch(c);
	}
	return true;
}

/* One step of reading; false when nothing more can be read now. */
static bool fr_step(struct client *c)
{
	size_t left;
	switch ((enum mx_phase)c->phase) {
	case MX_HEADER:
		if (!fr_read_some(c, c->header + c->got, MX_HEADER_SIZE - c->got))
			return false;
		left = buf_u32_at(c->header);	/* at least a type and a word */
		if (c->got >= 4 && (left < MX_HEADER_SIZE - 4 || left > MUX_FRAME_MAX))
			mc_drop(c);
		else if (c->got == MX_HEADER_SIZE)
			fr_head(c);
		return true;
	case MX_BODY:
		if (!fr_read_some(c, mx_body(c).p + c->got, c->body_len - c->got))
			return false;
		if (c->got == c->body_len)
			fr_body_done(c);
		return true;
	case MX_SKIP:
		left = c->body_len - c->got;
		if (!fr_read_some(c, g.scratch, left < sizeof g.scratch ? left : sizeof g.scratch))
			return false;
		if (c->got == c->body_len)
			fr_body_done(c);
		return true;
	case MX_DESCRIPTORS:
		return fr_read_descriptor(c);
	default:
		return false;
	}
}

static bool fr_wants_read(const struct client *c)
{
	return !c->dead && !c->closing && mc_written(c) && g.rn.stop != RN_NOW &&
	       (c->phase == MX_HEADER || c->phase == MX_BODY || c->phase == MX_SKIP ||
		c->phase == MX_DESCRIPTORS);
}

#define FR_STEPS 16		/* for one client at a time */
#define FR_REPORT_HEAD 16	/* length, type, rid, length of the text */

/* Reads to the end of a request: most clients wait for an answer then, and poll() tells if
 * one does not.  HELLO has none. */
static void fr_read(struct client *c)
{
	for (int i = 0; i < FR_STEPS && fr_wants_read(c) && fr_step(c); i++)
		if (c->phase == MX_HEADER && c->got == 0 && c->type != MUX_MSG_HELLO)
			break;
}

static void fr_write_answer(struct client *c)
{
	uint32_t left = g.req.slot[c->answer].len - c->answer_pos;
	ssize_t n = fd_write(c->fd, req_data(c->answer) + c->answer_pos, left);
	if (n == FD_ERROR)
		mc_drop(c);
	if (n > 0)
		c->answer_pos += (uint32_t)n;
	if (n == (ssize_t)left)
		req_free(&c->answer);
}

/* Sends pieces of a report while the socket takes them.  A Unix socket takes a piece
 * this small whole or not at all; we build a piece that it refuses again later. */
static void fr_write_report(struct client *c)
{
	for (int i = 0; i < FR_STEPS && !c->dead && c->phase == MX_REPORTING; i++) {
		struct client before = *c;
		struct buf head = buf_over(g.scratch, FR_REPORT_HEAD);
		struct buf b = buf_over(g.scratch + FR_REPORT_HEAD,
			sizeof g.scratch - FR_REPORT_HEAD);
		enum st_result r = st_next(c, &b);
		if (r == ST_WAIT)
			return;
		if (r == ST_END)
			b.pos = 0;
		else if (b.pos == 0)		/* this element has no text */
			continue;
		uint32_t len = FR_REPORT_HEAD + (uint32_t)b.pos;
		buf_frame(&head, MUX_X_S_REPORT, c->rid);
		buf_put_u32(&head, (uint32_t)b.pos);
		buf_set_u32(head.p, len - 4);
		ssize_t n = fd_write(c->fd, g.scratch, len);
		if (n == FD_AGAIN) {
			*c = before;		/* the piece is built again later */
			return;
		}
		if (n != (ssize_t)len)
			mc_drop(c);
		else if (r == ST_END)
			mc_next(c);
	}
}

static void fr_write(struct client *c)
{
	if (c->out_pos < c->out_len) {
		ssize_t n = fd_write(c->fd, c->out + c->out_pos, c->out_len - c->out_pos);
		if (n == FD_ERROR)
			mc_drop(c);
		if (n > 0)
			c->out_pos += (uint16_t)n;
	}
	if (c->out_pos == c->out_len)
		c->out_pos = c->out_len = 0;
	if (c->answer >= 0 && c->out_len == 0)
		fr_write_answer(c);
	if (c->phase == MX_REPORTING && mc_written(c))
		fr_write_report(c);
	if (c->closing && mc_written(c))
		mc_drop(c);
}

/* Whether we have something to write to c. */
static bool fr_wants_write(const struct client *c)
{
	return !mc_written(c) || (c->phase == MX_REPORTING &&
		(c->report != ST_WATCH || c->seen != g.ev.next));
}

/* ===== se_ ====================================================================
 * The clients' sessions: from the open channel to the exit status.  A session that the
 * server did not start keeps its client's place in the queue and is opened again.
 * Calls log_, rn_, ev_, sl_, buf_, req_, fd_, tx_, ch_, tt_, ac_, xf_, st_, mc_, mx_. */

/* Whether SendEnv lets us send this variable (NAME=value). */
static bool se_env_allowed(struct str s)
{
	const uint8_t *equals = memchr(s.p, '=', s.len);
	if (!equals || equals == s.p || equals - s.p >= ENV_NAME_MAX)
		return false;
	for (size_t i = 0; i < g.op.send_env.n; i++)
		if (str_matches((struct str){ s.p, (uint32_t)(equals - s.p) }, g.op.send_env.at[i]))
			return true;
	return false;
}

static void se_send_env(struct channel *ch, struct str s)
{
	const uint8_t *equals = memchr(s.p, '=', s.len);
	if (!equals)
		return;
	uint32_t name = (uint32_t)(equals - s.p);
	struct buf *b = tx_request(ch, "env", false);
	buf_put_str(b, (struct str){ s.p, name });
	buf_put_str(b, (struct str){ equals + 1, s.len - name - 1 });
	if (b->bad)
		log_at(TP_VERBOSE, "channel %d: environment variable too long",
			sl_channel_index(ch));
	else
		tx_end(b);
}

/* The DISPLAY that an sshmux client sent in its environment, which begins at `b`. */
static struct str se_display(struct buf b)
{
	static const char name[] = "DISPLAY=";
	while (b.pos < b.len) {
		struct str v = buf_get_str(&b);
		if (v.len > sizeof name - 1 && memcmp(v.p, name, sizeof name - 1) == 0)
			return (struct str){ v.p + sizeof name - 1,
				v.len - (uint32_t)(sizeof name - 1) };
	}
	return str_of("");
}

/* A session's channel is open: requests display, agent, terminal, environment and
 * command without waiting for answers in between. */
static void se_request(struct client *c, struct channel *ch)
{
	struct req_session s;
	struct buf b = mx_body(c);
	req_session(&b, &s);	/* it was checked when it came */
	ch_name(ch, s.command);
	ch->escape = s.want_tty ? s.escape : NO_ESCAPE;
	ch->flags |= CH_LINE_START;
	bool own = ac_is_own(c->peer.uid);	/* no other user gets agent or display */
	if (s.want_x11 && own)
		xf_request_x11(ch, c->sshmux ? se_display(b) : str_of(""));
	if (s.want_agent && own && xf_agent()) {
		tx_end(tx_request(ch, "auth-agent-req@openssh.com", false));
		ch->flags |= CH_AGENT;
	}
	if (s.want_tty) {
		tt_request_pty(ch, c->fds[0], s.term);
		ch->sender.weight = c->sender.weight ? c->sender.weight : SD_INTERACTIVE;
	}
	int n = 0;
	for (size_t i = 0; i < g.op.set_env.n; i++, n++)
		se_send_env(ch, str_of(g.op.set_env.at[i]));
	while (b.pos < b.len && n < ENV_VARIABLES) {
		struct str v = buf_get_str(&b);
		if (!se_env_allowed(v))
			continue;
		se_send_env(ch, v);
		n++;
	}
	static const char *const start[] = { "exec", "shell", "subsystem" };
	enum ch_request what = s.subsystem ? CH_RQ_SUBSYSTEM : s.command.len ? CH_RQ_EXEC :
		CH_RQ_SHELL;
	struct buf *m = tx_request(ch, start[what - CH_RQ_EXEC], true);
	if (what != CH_RQ_SHELL)
		buf_put_str(m, s.command);
	tx_end(m);
	ch_expect(ch, what);
	ch_become(ch, CH_STARTING);
}

/* Tells the client; from here on its descriptors belong to the channel. */
static void se_start(struct client *c, struct channel *ch)
{
	uint32_t sid = (uint32_t)sl_channel_index(ch);
	bool empty = fd_borrow(&ch->end[CH_IN], c->fds[0]);
	fd_borrow(&ch->end[CH_OUT], c->fds[1]);
	if (ch->kind == CH_SESSION)
		fd_borrow(&ch->end[CH_ERR], c->fds[2]);
	c->n_fds = 0;
	ch_become(ch, CH_OPEN);
	if (ch->flags & CH_FAILED || empty)	/* nobody reads it, or nothing comes */
		ch_end_input(ch);
	mc_reply(c, MUX_S_SESSION_OPENED, c->rid, &sid, NULL);
	log_at(TP_VERBOSE, "channel %d: session opened", sl_channel_index(ch));
	g.se.opened += ch->kind == CH_SESSION;
	if (ch->record >= 0)
		ev_add((struct event){ .kind = EV_SESSION_OPENED,
			.n = { sl_channel_index(ch), c->peer.pid, (int32_t)c->peer.uid } },
			st_record(c)->command);
	mc_next(c);
}

/* Learns the server's limit of sessions from a refusal; true if waiting can help.
 * If a session has just ended, the server may not have freed its slot yet: then we
 * learn nothing and ask again soon. */
static bool se_learn_limit(int others)
{
	if (g.ch.freed_at && g.now - g.ch.freed_at < SESSION_FREED_MS) {
		g.se.open_wait = g.se.open_wait ? g.se.open_wait * 2 : 50;
		g.se.open_wait = g.se.open_wait < SESSION_FREED_MS ? g.se.open_wait :
			SESSION_FREED_MS;
		g.se.open_after = g.now + g.se.open_wait;
		return true;
	}
	if (others == 0)
		return false;
	if (others < g.ch.session_limit)
		log_at(TP_VERBOSE, "the server allows %d session%s at once", others,
			PLURAL(others));
	ch_limit_sessions(others, g.now + SESSION_LIMIT_MS);
	return true;
}

/* The channel was not opened.  If the reason may be the server's limit of sessions,
 * or the link is down, the request keeps its place and waits (SES-server-limit). */
static void se_refused(struct client *c, struct channel *ch)
{
	bool up = g.lk.state == LK_UP;
	bool wait = up ? ch->kind == CH_SESSION && se_learn_limit(g.ch.sessions - 1) :
		g.rn.stop == RN_RUN;
	ch_become(ch, CH_DEAD);
	c->channel = -1;
	if (wait && g.now < c->give_up) {
		c->phase = MX_QUEUED;
		c->deadline = c->give_up;
	} else
		mc_refuse(c, up ? "Session open refused by peer" : "connection to the server lost");
}

/* Whether the server closed a session before it took the command, as dropbear does
 * when another session ends at that moment (SES-stillborn). */
static bool se_is_stillborn(const struct client *c, const struct channel *ch)
{
	bool taken = ch->state == CH_STARTING && ch->request[0] == CH_RQ_NONE;
	return ch->kind == CH_SESSION && !taken && ch->rcvd == CH_CLOSED && ch->sent != CH_CLOSED &&
	       c->reopened < REOPENS && g.now < c->give_up;
}

/* Whether dropbear has yet to take the command.  We read no input before that,
 * because we could not read it again for another channel. */
static bool se_awaits_start(const struct channel *ch)
{
	return ch->kind == CH_SESSION && ch->request[0] != CH_RQ_NONE && ch->rcvd != CH_CLOSED &&
	       tx_peer_is("dropbear");
}

/* The server started nothing: the request keeps its place and waits for another channel. */
static void se_reopen(struct client *c, struct channel *ch)
{
	ch_abandon(ch);
	c->channel = -1;
	c->reopened++;
	c->phase = MX_QUEUED;
	c->deadline = c->give_up;
	rn_again();
}

/* The server has confirmed the channel; true when we have told its client. */
static bool se_confirmed(struct client *c, struct channel *ch)
{
	if (se_is_stillborn(c, ch)) {
		se_reopen(c, ch);
		return false;
	}
	if (ch->state == CH_CONFIRMED && tp_room() == 0)
		return false;
	if (ch->state == CH_CONFIRMED && ch->kind == CH_SESSION)
		se_request(c, ch);
	g.se.open_wait = 0;
	if (!se_awaits_start(ch)) {
		se_start(c, ch);
		if (ch->rcvd > CH_FLOWS || ch->flags & CH_FAILED || !ch_empty(ch))
			rn_again();	/* for what the server has sent already */
		else if (!tp_info()->exchanging)
			ch_settle(ch);	/* if there is no input, its end goes with the request */
	}
	tp_flush();
	return ch->state == CH_OPEN;
}

/* Handles what has happened to a client's session since the last turn. */
static void se_events(struct client *c)
{
	struct channel *ch = sl_channel(c->channel);
	uint32_t sid = (uint32_t)c->channel;
	if (ch->state == CH_REFUSED) {
		se_refused(c, ch);
		return;
	}
	if ((ch->state == CH_CONFIRMED || ch->state == CH_STARTING) && !se_confirmed(c, ch))
		return;
	if (ch->events & CH_EV_TTY_FAILED) {
		ch->events &= (uint8_t)~CH_EV_TTY_FAILED;
		mc_reply(c, MUX_S_TTY_ALLOC_FAIL, sid, NULL, NULL);
	}
	if (ch->events & CH_EV_SUSPEND) {
		ch->events &= (uint8_t)~CH_EV_SUSPEND;
		mc_reply(c, MUX_X_S_SUSPEND, sid, NULL, NULL);
	}
	if (ch->events & CH_EV_HANG_UP) {	/* at once: the server may be dead (ESC-dot) */
		mc_drop(c);
		return;
	}
	if (ch->state == CH_ENDED) {
		if (ch->flags & CH_STATUS && !(ch->flags & CH_FAILED))
			mc_reply(c, MUX_S_EXIT_MESSAGE, sid, &ch->status, NULL);
		g.se.completed += (ch->flags & CH_STATUS) != 0;
		mc_tell_closed(c, ch, ch->flags & CH_STATUS && !(ch->flags & CH_FAILED) ?
			(int32_t)ch->status : -1);
		log_at(TP_VERBOSE, "channel %d: session ended", c->channel);
		ch_become(ch, CH_DEAD);
		c->channel = -1;
		c->closing = true;
	}
}

/* ===== ad_ ====================================================================
 * Admission: gives free memory, descriptors and channels to waiting clients, first come,
 * first served, and ends waits at their deadlines.
 * Calls rn_, sl_, req_, fd_, tx_, ch_, co_, in_, as_, st_, mc_, mx_, fr_. */

/* The client that has waited longest in this phase, or NULL.  `others`: leaves out those
 * that wait for a session. */
static struct client *ad_oldest(enum mx_phase phase, bool others)
{
	struct client *first = NULL;
	for_each_client(c)
		if (c->phase == phase && !c->dead && !(others && c->type == MUX_C_NEW_SESSION) &&
			(!first || (int32_t)(c->ticket - first->ticket) < 0))
			first = c;
	return first;
}

/* The client that has waited longest and may open its channel now, or NULL.  Limits
 * of sessions do not apply to stdio forwards. */
static struct client *ad_next_to_open(void)
{
	bool session = g.ch.sessions < g.ch.session_limit && g.now >= g.se.open_after;
	return g.mx.held ? NULL : ad_oldest(MX_QUEUED, !session);
}

/* Opens the channel that a waiting client asked for. */
static void ad_open(struct client *c, struct channel *ch)
{
	struct buf b = mx_body(c);
	struct endpoint to;
	ch->client = sl_client_index(c);
	ch->sender.weight = c->sender.weight;
	c->channel = sl_channel_index(ch);
	c->phase = MX_OPENING;
	c->deadline = 0;
	if (ch->kind == CH_SESSION)
		tx_end(tx_channel_open("session", ch, PACKET_MAX));
	else if (mx_parse_stdio(&b, &to))
		co_open(ch, &to, "127.0.0.1", 65535);
}

/* Tells a client its place in the queue when that has changed. */
static void ad_tell_place(struct client *c)
{
	uint32_t place = st_place(c);
	if (place == c->place || !mc_written(c))
		return;
	c->place = (uint16_t)place;
	mc_reply(c, MUX_X_S_PLACE, c->rid, &place, NULL);
}

/* Gives memory to those that wait for it with a body, the oldest first.  Most bodies are
 * there already; a session's channel is opened in this turn, other requests go on in the
 * next. */
static void ad_give_memory(enum mx_phase waits, enum mx_phase reads)
{
	struct client *c;
	while ((c = ad_oldest(waits, false)) &&
		(c->request = (int16_t)req_alloc(c->body_len)) >= 0) {
		c->phase = (uint8_t)reads;
		c->deadline = g.now + REQUEST_MS;
		fr_read(c);
		if (c->phase != MX_QUEUED)
			rn_again();
	}
}

/* Gives free memory, descriptors and channels to waiting clients, first come, first
 * served. */
static void ad_admit(void)
{
	struct client *c;
	ad_give_memory(MX_BODY_WAIT, MX_BODY);
	ad_give_memory(MX_PROXY_WAIT, MX_PROXY_BODY);
	while (g.now >= g.us.accept_after && fd_room(MX_DESCRIPTOR_MAX) &&
		(c = ad_oldest(MX_NO_DESCRIPTOR, false))) {
		c->phase = MX_DESCRIPTORS;
		rn_again();
	}
	if (g.now >= g.ch.limit_until)
		ch_limit_sessions(SESSIONS, g.ch.limit_until);
	while (as_idle() < PROGRAMS && (c = ad_oldest(MX_ASK_WAIT, false)))
		mx_dispatch(c);
	while (g.lk.state == LK_UP && tp_room() > 0 && (c = ad_next_to_open())) {
		bool session = c->type == MUX_C_NEW_SESSION;
		struct channel *ch = ch_alloc(session ? CH_SESSION : CH_STDIO, CH_OPENING);
		if (!ch)
			break;
		ad_open(c, ch);
	}
	for_each_client(o)
		if (o->phase == MX_QUEUED && o->tell_place)
			ad_tell_place(o);
}

/* Whether a request waits for something that others hold. */
static bool ad_is_short(void)
{
	for_each_client(c)
		if (c->phase == MX_QUEUED || c->phase == MX_BODY_WAIT ||
			c->phase == MX_NO_DESCRIPTOR || c->phase == MX_ASK_WAIT ||
			c->phase == MX_PROXY_WAIT)
			return true;
	return false;
}

/* Whether a request waits for the link. */
static bool ad_waits(void)
{
	return ad_oldest(MX_QUEUED, false) || ad_oldest(MX_FORWARDING, false);
}

static void ad_expire(struct client *c)
{
	if (c->deadline == 0 || g.now < c->deadline)
		return;
	char why[200] = "Session open refused by peer";
	bool can_open = g.lk.state == LK_UP && !tp_info()->exchanging;
	if (!can_open || g.ch.session_limit == SESSIONS || g.mx.held)
		snprintf(why, sizeof why, "no session in time: %.170s",
			 g.mx.held ? "the master holds them back" : can_open ? "all are in use" :
			 in_state());
	if (c->phase == MX_QUEUED || c->phase == MX_BODY_WAIT || c->phase == MX_NO_DESCRIPTOR)
		mc_later(c, c->phase == MX_QUEUED ? why : c->phase == MX_BODY_WAIT ?
			"no room for the request in time" : mc_no_descriptors);
	else if (c->phase == MX_FORWARDING)
		mx_forward_expired(c);
	else if (c->phase == MX_PROBING) {
		tx_forget_probes(sl_client_index(c));
		mx_tell_state(c, false, "the server does not answer");
		mc_next(c);
	} else
		mc_drop(c);
}

/* ===== sd_ ================================================================
 * The scheduler decides which channel or proxy client sends next, and how much.
 * Sizes are in bytes, times in ms.
 *
 * Why a keystroke never waits for bulk.  It could wait in four places:
 *  1. Unread, while others have their turn.  A terminal's input, and any input of
 *     SHORT_INPUT or less, is announced as SD_SHORT and goes first in each round.  A
 *     turn is one quantum at most, and after ROUNDS rounds poll() looks for
 *     new input.
 *  2. Unread, because our queue is full.  Bulk may fill only `queue` of its `room`
 *     bytes (sd_room); short input fits into the rest.
 *  3. In our queue.  While several channels are open, bulk comes in bursts of one
 *     BULK_PACKET, and the next burst waits until the kernel has sent the last
 *     (sd_shape).  Bursts grow only while the kernel keeps up.
 *  4. In the kernel's queue.  The kernel takes at most NET_UNSENT_SHARED bytes that it
 *     has not sent (sd_set_unsent); while it has that many, we queue no bulk
 *     (`backlogged`).
 * So a keystroke waits for one burst in our queue and NET_UNSENT_SHARED bytes in the
 * kernel's, however much others send.  SD_FAST gives that up for throughput, but only
 * while no terminal is open and no short input has come for QUIET_MS; then the queues
 * hold what the network takes in FAST_MS.  In SD_ALONE only one channel is open.
 * Calls rl_, sl_, ch_, tt_, es_, px_. */

#define PACE_MS 20		/* the network's pace is measured over this long */
#define ROUNDS 8		/* rounds in one turn of the loop */

/* Keeps the kernel's send queue small, so that we decide late what goes next. */
static void sd_set_unsent(int bytes)
{
	if (bytes == g.sd.unsent || g.sd.fd < 0)
		return;
	g.sd.unsent = bytes;
	os_keep_unsent(g.sd.fd, bytes, NET_UNSENT * 4);
}

/* Lets so many bytes come before poll() wakes us. */
static void sd_gather(int bytes)
{
	if (bytes != g.sd.gather)
		os_gather(g.sd.fd, g.sd.gather = bytes);
}

/* Sets how many bytes may wait: in our queue, how many of them bulk, and unsent in
 * the kernel's. */
static void sd_set_mode(enum sd_mode mode, uint32_t room, uint32_t queue, uint32_t unsent)
{
	g.sd.mode = mode;
	g.sd.room = room;
	g.sd.queue = queue;
	g.sd.packet = UINT32_MAX;
	g.sd.quantum = mode == SD_FAST ? FAST_QUANTUM : SEND_QUANTUM;
	g.sd.backlogged = false;
	g.sd.burst = 0;
	tp_set_room(room);
	sd_set_unsent((int)unsent);
}

/* Begins with a new connection; its socket still belongs to the transport. */
static void sd_begin(int fd)
{
	g.sd.fd = fd;
	g.sd.unsent = 0;
	g.sd.gather = 1;
	g.sd.pace = 0;
	g.sd.pace_bytes = 0;
	g.sd.pace_at = g.now;
	sd_set_mode(SD_ALONE, NET_QUEUE, BULK_QUEUE, NET_UNSENT);
}

static void sd_end(void)
{
	g.sd.fd = -1;
}

/* Whether more than one channel is open, so that they share the queues. */
static bool sd_is_shared(void)
{
	int n = 0;
	for_each_channel(c) {
		n += c->state == CH_OPENING || ch_is_open(c);
		if (n > 1)
			return true;
	}
	return false;
}

/* Measures the network's pace: the bytes that it takes in FAST_MS. */
static void sd_measure(void)
{
	uint64_t bytes = tp_info()->bytes_out;
	int64_t took = g.now - g.sd.pace_at;
	if (took < PACE_MS)
		return;
	uint64_t pace = (bytes - g.sd.pace_bytes) * FAST_MS / (uint64_t)took;
	g.sd.pace = pace < FAST_QUEUE ? (uint32_t)pace : FAST_QUEUE;
	g.sd.pace_bytes = bytes;
	g.sd.pace_at = g.now;
}

/* The largest power of two up to n: few values, so few system calls. */
static uint32_t sd_round_down(uint32_t n)
{
	return n ? 1u << (31 - __builtin_clz(n)) : 0;
}

/* Decides once a turn how bulk goes: in large pieces if the network is fast and no
 * short input is likely; in pieces that suit a slow network if only one channel is
 * open; else as sd_shape() decides. */
static void sd_choose(void)
{
	sd_measure();
	bool quiet = !g.sd.shared || g.now - g.sd.short_at >= QUIET_MS;
	uint32_t fast = g.sd.pace < FAST_QUEUE * 3 / 4 ? g.sd.pace : FAST_QUEUE * 3 / 4;
	if (quiet && g.sd.pace > BULK_QUEUE && !g.sd.typed)
		sd_set_mode(SD_FAST, FAST_QUEUE, fast, sd_round_down(g.sd.pace));
	else if (!g.sd.shared)
		sd_set_mode(SD_ALONE, NET_QUEUE, BULK_QUEUE, NET_UNSENT);
	else if (g.sd.mode != SD_SHARED)
		sd_set_mode(SD_SHARED, NET_QUEUE, BULK_PACKET, NET_UNSENT_SHARED);
}

/* While several channels are open, a burst of bulk is one small packet, and the next
 * waits until the kernel has sent it.  While the network keeps up, each burst is
 * twice as long as the last. */
static void sd_shape(void)
{
	if (g.sd.mode != SD_SHARED)
		return;
	int unsent = g.sd.fd < 0 ? 0 : os_unsent(g.sd.fd);
	if (unsent > 0)
		g.sd.queue = BULK_PACKET;
	else if (g.sd.burst >= g.sd.queue)
		g.sd.queue = g.sd.queue < BULK_QUEUE / 2 ? g.sd.queue * 2 : BULK_QUEUE;
	g.sd.backlogged = unsent >= NET_UNSENT_SHARED;
	g.sd.packet = g.sd.queue;
	g.sd.burst = 0;
}

/* Bytes that may be queued now.  Bulk does not get all the room: some is kept for
 * opens and requests, which would find none beside an upload that fills the line. */
static size_t sd_room(enum sd_input input)
{
	size_t room = tp_room(), kept = g.sd.room - g.sd.queue;
	if (input == SD_SHORT)
		return room;
	return room > kept && !g.sd.backlogged ? room - kept : 0;
}

/* How many of n bytes one sender may queue now. */
static uint32_t sd_may(const struct sender *s, uint32_t n)
{
	return sd_room(s->input) > 0 ? rl_room(RL_UP, s, n) : 0;
}

static struct sender *sd_sender(int i)
{
	return i < CHANNELS ? &g.ch.slot[i].sender : &g.mc.slot[i - CHANNELS].sender;
}

/* poll() has found input of sender i at fd.  Terminals and short input go before
 * bulk, unless the user has said what this input is. */
static void sd_announce(int i, int fd)
{
	struct sender *s = sd_sender(i);
	int waiting = s->weight != SD_GUESSED;
	bool is_short = s->weight == SD_INTERACTIVE || (s->weight == SD_GUESSED &&
			ioctl(fd, FIONREAD, &waiting) == 0 && waiting <= SHORT_INPUT);
	s->input = is_short ? SD_SHORT : SD_BULK;
	g.sd.ready[i / 32] |= 1u << i % 32;
	if (is_short && waiting > 0)
		g.sd.short_at = g.now;
}

/* --- when the next turn comes ------------------------------------------------- */

/* Quick turns (lp_) open no channels. */
static void sd_turn_begins(bool quick)
{
	g.sd.held = false;
	if (quick)
		return;
	g.sd.shared = sd_is_shared();
	g.sd.typed = tt_any();
}

/* s has input that waits for its turn.  The turn comes at once, when the kernel has
 * sent enough, or when rl_ allows it. */
static void sd_wait(const struct sender *s, int *timeout)
{
	if (sd_may(s, 1) > 0)
		*timeout = 0;
	else
		g.sd.held |= sd_room(s->input) == 0;
}

/* Whether the loop should turn when the kernel has sent enough. */
static bool sd_waits_for_network(void)
{
	return g.sd.held && g.sd.backlogged && g.sd.fd >= 0;
}

/* --- whose turn it is --------------------------------------------------------- */

static bool sd_wants_send(int i)
{
	return i < CHANNELS ? ch_wants_send(&g.ch.slot[i]) :
		px_wants_send(&g.mc.slot[i - CHANNELS]);
}

/* Moves at most `max` bytes of sender i's input; a proxy client's frame may be longer. */
static uint32_t sd_move(int i, uint32_t max)
{
	if (i >= CHANNELS)
		return px_read(&g.mc.slot[i - CHANNELS], max);
	struct channel *c = &g.ch.slot[i];
	return c->kind == CH_SESSION && c->escape <= 0xff ? es_read(c, max) : ch_read(c, max);
}

/* One sender's turn; true if it sent anything.  If there is too little room, the turn
 * goes on next time. */
static bool sd_turn(int i)
{
	struct sender *s = sd_sender(i);
	bool sent = false;
	if (s->quantum == 0)
		s->quantum = g.sd.quantum;
	uint32_t may;
	while (s->quantum > 0 && sd_wants_send(i) && (may = sd_may(s, s->quantum)) > 0) {
		uint32_t n = sd_move(i, may < g.sd.packet ? may : g.sd.packet);
		rl_take(RL_UP, s, n);
		s->quantum -= n < s->quantum ? n : s->quantum;
		g.sd.burst += n;
		sent |= n > 0;
	}
	if (!sd_wants_send(i))
		s->quantum = 0;
	return sent;
}

/* The first sender from i on that is ready, or `end`. */
static int sd_ready(int i, int end)
{
	return sl_bit(g.sd.ready, i, end);
}

/* Gives a turn to each sender from `i` to `end` with this kind of input; true if any
 * sent. */
static bool sd_pass(enum sd_input input, int i, int end)
{
	bool sent = false;
	for (i = sd_ready(i, end); i < end && sd_room(input) > 0; i = sd_ready(i + 1, end)) {
		const struct sender *s = sd_sender(i);
		if (s->input == SD_NONE)
			g.sd.ready[i / 32] &= ~(1u << i % 32);
		if (s->input != input || !sd_wants_send(i))
			continue;
		sent |= sd_turn(i);
		if (input == SD_BULK)
			g.sd.next = s->quantum > 0 ? i : i + 1;
	}
	return sent;
}

/* Round robin in bytes.  True if any of them sent. */
static bool sd_round(enum sd_input input)
{
	int first = g.sd.next;
	bool sent = sd_pass(input, first, SENDERS);
	return sd_pass(input, 0, first) || sent;
}

/* Sends short input first, then bulk in turn, while the transport has room.  After
 * one burst of large pieces it stops, so that poll() can find short input. */
static void sd_send(void)
{
	bool more = sd_ready(0, SENDERS) < SENDERS;
	if (more)
		sd_choose();
	for (int i = 0; i < ROUNDS && more; i++) {
		sd_shape();
		more = sd_round(SD_SHORT);
		more |= sd_round(SD_BULK);
		more &= g.sd.mode != SD_FAST || g.sd.burst < g.sd.queue;
		tp_flush();
	}
}

/* ===== lk_ ================================================================
 * The link to the server: connects, logs in, keeps it alive, notices its loss and
 * decides what that means to clients.  The transport does the cryptography and owns
 * the socket once it is connected.  Every failure ends in lk_lost(), which logs each
 * new reason.  Times are in ms, those of options and `since` in seconds.
 * Calls log_, rn_, ev_, fd_, sp_, cn_, tx_, fl_, ch_, tt_, us_, ac_, fw_, ls_, px_, mc_,
 * mx_, sd_. */

/* Whether another try may follow (-o Reconnect). */
static bool lk_comes_back(void)
{
	return g.rn.stop == RN_RUN && !g.lk.last_try && !cn_is_helpless(&g.lk.uplink) &&
		(g.op.reconnect == LK_ALWAYS || (g.op.reconnect == LK_YES && g.lk.logins > 0) ||
				    (g.lk.state == LK_CONNECTING && g.lk.logins == 0 &&
				    g.lk.tries + 1 < g.op.attempts));
}

/* Logs one line per change of state: the first failure, and each new reason. */
static void lk_report(const char *why, bool again)
{
	if (again && g.lk.state != LK_UP && strcmp(why, g.lk.why) == 0)
		return;
	int len = (int)strlen(why);
	log_at(TP_ERROR, again ? "%.*s; trying again" : "%.*s",
		len - (again && len > 0 && why[len - 1] == '.'), why);
}

/* A child process has ended: perhaps ProxyCommand's. */
static void lk_exited(pid_t pid)
{
	if (pid == g.lk.proxy)
		g.lk.proxy = 0;
}

/* Ends ProxyCommand's process. */
static void lk_end_proxy(void)
{
	if (g.lk.proxy > 0)
		kill(g.lk.proxy, SIGHUP);
	g.lk.proxy = 0;
}

/* Ends the connection, whatever its state; sessions keep what they have received. */
static void lk_leave(void)
{
	cn_stop(&g.lk.uplink);
	tp_stop();
	lk_end_proxy();
	g.lk.state = LK_DOWN;
	g.lk.net_fd = -1;
	g.lk.probe_at = 0;
	sd_end();
	tx_link_lost();
	for_each_channel(c)
		if (c->state != CH_DEAD)
			ch_lose(c);
}

/* Counts the uses of the link so far: sessions, forwards and their connections. */
static uint32_t lk_uses(void)
{
	return g.se.completed + g.fw.accepted;
}

#define LK_REFUSED 16		/* times ReconnectMin, after the server has refused us */

/* Decides when to try again.  A connection that lasted long, or was of use, resets
 * the count.  After any other the wait is no longer than the connection lasted, or
 * we would try a server that cuts idle connections less and less often. */
static void lk_schedule(bool was_up)
{
	int64_t min = g.op.reconnect_min, max = g.op.reconnect_max,
		held = g.now - g.lk.connected_at;
	if (was_up) {
		g.lk.down_at = g.now;
		g.lk.tries = held >= RECONNECT_HELD_MS || lk_uses() != g.lk.used ? 0 :
			g.lk.tries + 1;
		if (held / 1000 < max)
			max = held / 1000 > min ? held / 1000 : min;
	} else {
		g.lk.tries++;
		g.lk.failures++;
	}
	/* a quick try does not help, and fail2ban counts tries */
	if (g.lk.refused)
		min = LK_REFUSED * min < max ? LK_REFUSED * min : max;
	g.lk.state = LK_WAITING;
	g.lk.failed_at = g.now;
	g.lk.retry_at = g.now + rn_backoff(g.lk.tries, min, max) + (g.lk.refused ? min * 500 : 0);
}

/* When to try if somebody waits for the link: ReconnectMin after the last failure,
 * however long the wait has become. */
static int64_t lk_soon(void)
{
	return g.lk.failed_at + g.op.reconnect_min * 1000;
}

static bool lk_may_hasten(void)
{
	return g.lk.state == LK_WAITING && !g.lk.refused && lk_soon() < g.lk.retry_at;
}

static void lk_hasten(void)
{
	if (lk_may_hasten())
		g.lk.retry_at = lk_soon();
}

/* Keeps what reports tell about a connection that is over. */
static void lk_remember(const char *why, bool was_up)
{
	const struct tp_info *i = tp_info();
	snprintf(g.lk.why, sizeof g.lk.why, "%.159s", why);
	memcpy(g.lk.last, g.lk.why, sizeof g.lk.last);
	g.lk.failed_at = g.now;
	if (g.lk.net_fd >= 0) {
		g.lk.gone.packets_in += i->packets_in;
		g.lk.gone.packets_out += i->packets_out;
		g.lk.gone.bytes_in += i->bytes_in;
		g.lk.gone.bytes_out += i->bytes_out;
	}
	if (was_up)
		ev_add((struct event){ .kind = EV_DOWN,
			.n = { (int32_t)(ev_seconds() - g.lk.since) } }, why);
	if (was_up || g.lk.since == 0)
		g.lk.since = ev_seconds();
}

/* The connection has ended or failed; `why` is the reason.  Sessions keep what they
 * have received; the control socket stays if we try again. */
static void lk_lost(const char *why)
{
	bool again = lk_comes_back(), was_up = g.lk.state == LK_UP;
	bool failed = g.lk.state == LK_LOGIN && tp_state() == TP_FAILED;
	g.lk.refused = failed && (tp_cause() == TP_CAUSE_AUTH || tp_cause() == TP_CAUSE_HOSTKEY);
	lk_report(why, again);
	lk_remember(why, was_up);
	lk_leave();
	ls_link_lost();
	log_counts();
	if (was_up)
		px_link_lost();
	if (!again) {
		rn_stop(RN_NOW, g.rn.stop == RN_NOW ? g.rn.exit_code : EXIT_SSH);
		return;
	}
	lk_schedule(was_up);
	if (!was_up)
		ev_add((struct event){ .kind = EV_TRYING, .n = { (int32_t)g.lk.tries,
			(int32_t)((g.lk.retry_at - g.now + 999) / 1000) } }, why);
}

static PRINTF(1, 2) void lk_fail(const char *format, ...)
{
	char text[400];
	FORMAT(text, format);
	lk_lost(text);
}

/* A message came, so no key exchange holds messages back. */
static void lk_moves(void)
{
	g.lk.exchange_at = 0;
}

/* Gives a login more time, in ms. */
static void lk_grant(int64_t ms)
{
	g.lk.login_deadline += ms;
}

static void lk_start(void)
{
	int64_t limit = g.op.connect_timeout > 0 ? g.op.connect_timeout * 1000 : LOGIN_MS;
	g.lk.error[0] = 0;
	g.lk.state = LK_CONNECTING;
	g.lk.login_deadline = g.now + limit;
	log_at(g.lk.tries ? TP_DEBUG : TP_VERBOSE, "connecting to %s port %d", g.op.host_name,
		(int)g.op.port);
	rn_again();			/* ProxyCommand is connected at once */
	if (g.op.proxy_command)
		g.lk.proxy = cn_proxy(&g.lk.uplink);
	else
		cn_start(&g.lk.uplink, g.op.host_name, (uint16_t)g.op.port, (int)g.op.family,
			g.lk.login_deadline, g.now);
}

static void lk_connected(void)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof a;
	int on = 1;
	if (getsockname(g.lk.uplink.fd, (struct sockaddr *)&a, &len) == 0)
		fd_address(&a, g.lk.local, sizeof g.lk.local);
	len = sizeof a;
	if (getpeername(g.lk.uplink.fd, (struct sockaddr *)&a, &len) == 0)
		fd_address(&a, g.lk.remote, sizeof g.lk.remote);
	log_at(TP_VERBOSE, "connected to %s [%s]", g.op.host_name, g.lk.remote);
	setsockopt(g.lk.uplink.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (g.op.tcp_keepalive)
		setsockopt(g.lk.uplink.fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	sd_begin(g.lk.uplink.fd);
	g.lk.state = LK_LOGIN;
	g.lk.net_fd = g.lk.uplink.fd;
	g.lk.tos = -1;
	tp_start(g.lk.uplink.fd, g.lk.logins == 0 && g.op.reconnect != LK_ALWAYS, g.now);
	g.lk.uplink.fd = -1;
	g.lk.uplink.state = CN_IDLE;
	rn_again();			/* the login may have failed at once */
}

/* Admits those who connected while we logged in; those who find no free slot must
 * connect again. */
static void lk_admit_early(void)
{
	int fd;
	struct os_peer peer;
	while (g.us.early >= 0 && g.us.bound && g.mc.end < CLIENTS - 1 &&
		(fd = ac_accept(g.us.early, &peer)) >= 0)
		mc_add(fd, peer);
	fd_close(&g.us.early);
}

/* Creates the control socket, once. */
static void lk_listen(void)
{
	int error = g.us.bound || g.rn.stop != RN_RUN || !g.us.path ? 0 : us_listen(g.us.path);
	if (error == EEXIST && g.lp.split == LP_SERVES_ITSELF) {
		log_at(TP_ERROR, "ControlSocket %s already exists, disabling multiplexing",
			g.us.path);
		us_serve(NULL);
	} else if (error) {
		g.lk.last_try = true;
		lk_fail("ControlSocket %s: %s", g.us.path, error == EEXIST ? "already exists" :
			strerror(error));
	}
	lk_admit_early();
}

/* Logged in. */
static void lk_up(void)
{
	const struct tp_info *i = tp_info();
	g.lk.state = LK_UP;
	fl_begin();
	g.lk.connected_at = g.now;
	g.lk.used = lk_uses();
	g.lk.alive_at = g.now + g.op.alive_interval * 1000;
	g.lk.alive_bytes = i->bytes_in;
	g.lk.alive_unanswered = 0;
	g.lk.exchange_at = 0;
	log_at(TP_VERBOSE, "authenticated to %s (%s) using \"%s\", %s, %s", g.op.tp.host,
		g.lk.remote, i->auth_method, i->kex, i->cipher);
	g.lk.since = ev_seconds();
	g.lk.key_exchanges = i->key_exchanges;
	ev_add((struct event){ .kind = EV_UP,
		.n = { (int32_t)g.lk.logins + 1, (int32_t)g.lk.tries + 1 } }, g.lk.remote);
	if (g.lk.logins++ > 0 || g.lk.tries > 0)
		log_at(TP_INFO, "connected to %s again, after %u tr%s", g.op.tp.host,
			(unsigned)g.lk.tries + 1, g.lk.tries ? "ies" : "y");
	else if (g.op.reconnect == LK_ALWAYS)		/* no user watches this login */
		log_at(TP_INFO, "connected to %s", g.op.tp.host);
	g.lk.why[0] = 0;
	g.lk.failures = 0;
	ch_limit_sessions(SESSIONS, g.ch.limit_until);
	lk_listen();
	if (g.op.local_command)		/* runs after each login; nobody waits for it */
		sp_start_with(SP_LOCAL, "", 0, STDERR_FILENO);
}

static void lk_send_keepalive(void)
{
	if (!tp_info()->exchanging)
		tx_keepalive(GLOBAL_KEEPALIVE, -1);
}

/* Sends a keepalive after ServerAliveInterval of silence; the link is lost after
 * ServerAliveCountMax of them without a sign of life. */
static void lk_alive(void)
{
	if (g.op.alive_interval <= 0)
		return;
	uint64_t bytes = tp_info()->bytes_in;
	if (bytes != g.lk.alive_bytes) {
		g.lk.alive_bytes = bytes;
		g.lk.alive_unanswered = 0;
		g.lk.alive_at = g.now + g.op.alive_interval * 1000;
	}
	if (g.now < g.lk.alive_at)
		return;
	if (g.lk.alive_unanswered >= g.op.alive_count) {
		lk_fail("Timeout, server %s not responding.", g.op.tp.host);
		return;
	}
	g.lk.alive_at = g.now + g.op.alive_interval * 1000;
	g.lk.alive_unanswered++;
	lk_send_keepalive();
}

/* --- changes of the network ------------------------------------------------- */

#define LK_SETTLE_MS 1000	/* an address may go for a moment while it is renewed */

/* Opens a socket that wakes us when addresses or interfaces change; without it, only
 * SIGUSR1 tells us. */
static void lk_watch(void)
{
	g.lk.watch = g.op.watch_network ? os_watch_network() : -1;
}

/* The socket is readable.  We ignore what its messages say: hundreds may come, and
 * some may be lost. */
static void lk_noticed(void)
{
	for (int i = 0; i < 64 && recv(g.lk.watch, g.scratch, sizeof g.scratch, MSG_DONTWAIT) >= 0;
		i++)
		;
	if (g.lk.look_at == 0)
		g.lk.look_at = g.now + LK_SETTLE_MS;
}

/* Whether the connection still has its local address and its route to the server. */
static enum os_route lk_route(void)
{
	enum os_route route = g.lk.net_fd < 0 ? OS_SAME : os_route(g.lk.net_fd);
	bool bound = g.op.bind_address || g.op.bind_interface;
	return route == OS_OTHER && bound ? OS_SAME : route;
}

/* Asks the server for a sign of life within PROBE_MS. */
static void lk_probe(void)
{
	if (g.lk.state != LK_UP || g.lk.probe_at)
		return;
	g.lk.probe_at = g.now + PROBE_MS;
	g.lk.probe_bytes = tp_info()->bytes_in;
	lk_send_keepalive();
}

/* Ends a connection that has lost its address or its route; true if so. */
static bool lk_is_cut_off(enum os_route route)
{
	if (route == OS_NO_ADDRESS)
		lk_fail("Connection to %s lost: %s is no address of this machine any more",
			g.op.tp.host, g.lk.local);
	else if (route == OS_NO_ROUTE)
		lk_fail("Connection to %s lost: no route to %s any more", g.op.tp.host,
			g.lk.remote);
	return route >= OS_NO_ADDRESS;
}

/* The network has changed and has had time to settle. */
static void lk_look(void)
{
	enum os_route route = g.lk.state == LK_UP || g.lk.state == LK_LOGIN ? lk_route() : OS_SAME;
	g.lk.look_at = 0;
	lk_hasten();
	if (!lk_is_cut_off(route) && route == OS_OTHER)
		lk_probe();
}

/* SIGUSR1: something has happened to the network or the control socket.  If we wait
 * for the next try, it comes now.  A link that seems up ends if it is cut off; else it
 * has PROBE_MS to show life. */
static void lk_kick(void)
{
	us_watch();
	if (g.lk.state == LK_UP || g.lk.state == LK_LOGIN)
		lk_is_cut_off(lk_route());
	if (g.lk.state == LK_WAITING)
		g.lk.retry_at = g.now;
	lk_probe();
}

static void lk_check_probe(void)
{
	if (g.lk.probe_at && tp_info()->bytes_in != g.lk.probe_bytes)
		g.lk.probe_at = 0;
	else if (g.lk.probe_at && g.now >= g.lk.probe_at)
		lk_fail("Timeout, server %s not responding.", g.op.tp.host);
}

/* Gives up on a server that begins a key exchange and does not finish it, whatever
 * else it says.  A slow line is no reason: the server has time while we send, or
 * messages come. */
static void lk_exchange(void)
{
	const struct tp_info *i = tp_info();
	if (!i->exchanging)
		g.lk.exchange_at = 0;
	else if (g.lk.exchange_at == 0 || i->bytes_out != g.lk.exchange_bytes)
		g.lk.exchange_at = g.now + EXCHANGE_MS;
	else if (g.now >= g.lk.exchange_at)
		lk_fail("Timeout, server %s does not finish the key exchange.", g.op.tp.host);
	g.lk.exchange_bytes = i->bytes_out;
}

/* Sets IPQoS's class on the socket: the interactive one while a terminal is open. */
static void lk_mark(void)
{
	int tos = (int)(tt_any() ? g.op.dscp[0] : g.op.dscp[1]);
	if (tos == g.lk.tos || tos < 0 || g.lk.net_fd < 0)
		return;
	g.lk.tos = tos;
	if (g.lk.remote[0] == '[')
		setsockopt(g.lk.net_fd, IPPROTO_IPV6, IPV6_TCLASS, &tos, sizeof tos);
	else
		setsockopt(g.lk.net_fd, IPPROTO_IP, IP_TOS, &tos, sizeof tos);
}

static void lk_service_login(void)
{
	if (tp_state() == TP_UP)
		lk_up();
	else if (tp_state() == TP_FAILED)
		lk_fail("%s", tp_error());
	else if (g.now >= g.lk.login_deadline)
		lk_fail("Connection to %s port %d timed out", g.op.host_name, (int)g.op.port);
}

static void lk_service_up(void)
{
	if (g.lk.error[0])
		lk_fail("Connection to %s lost: %s", g.op.tp.host, g.lk.error);
	else if (tp_state() != TP_UP && strncmp(tp_error(), "Connection to ", 14) == 0)
		lk_fail("%s", tp_error());
	else if (tp_state() != TP_UP)
		lk_fail("Connection to %s lost: %s", g.op.tp.host, tp_error());
	else {
		lk_alive();
		lk_mark();
		if (tp_info()->key_exchanges != g.lk.key_exchanges)
			ev_add((struct event){ .kind = EV_REKEY }, tp_info()->kex);
		g.lk.key_exchanges = tp_info()->key_exchanges;
		lk_exchange();
	}
	if (g.lk.state == LK_UP)
		lk_check_probe();
	if (mx_takes_reconnect() && g.lk.state == LK_UP) {
		lk_fail("Connection to %s left as asked", g.op.tp.host);
		g.lk.retry_at = g.now;
	}
	const struct forward *f = g.lk.state == LK_UP ? ls_failed() : NULL;
	if (f) {
		g.lk.last_try = true;
		lk_fail("forward %s: %s", fw_name(f), f->why);
	}
}

/* Moves the link's state on after the transport was served. */
static void lk_service(void)
{
	if (g.lk.look_at && g.now >= g.lk.look_at)
		lk_look();
	switch (g.lk.state) {
	case LK_CONNECTING:
		if (g.lk.uplink.state == CN_DONE)
			lk_connected();
		else if (g.lk.uplink.state == CN_FAILED && g.lk.uplink.n == 0)
			lk_fail("%s: %s", g.op.host_name, g.lk.uplink.why);
		else if (g.lk.uplink.state == CN_FAILED)
			lk_fail("connect to host %s port %d: %s", g.op.host_name, (int)g.op.port,
				g.lk.uplink.why);
		break;
	case LK_LOGIN:	lk_service_login(); break;
	case LK_UP:	lk_service_up(); break;
	case LK_WAITING:
		if (g.now >= g.lk.retry_at)
			lk_start();
		break;
	case LK_DOWN:	break;
	}
}

/* ===== hk_ ================================================================
 * Tells others about the link: EventCommand, and a supervisor through its
 * NOTIFY_SOCKET (sd_notify(3)) and descriptor (--notify-fd).  It looks at the state
 * each turn.  One command runs at a time, for EVENT_MS at most; when it has ended,
 * the next one tells only the newest state.  A supervisor that has gone is no error.
 * Calls log_, rn_, ex_, in_. */

/* Sets one variable of a command's environment, in g.scratch until the command starts.
 * No text comes straight from the server: log_ cleaned `why`, names come from options. */
static void hk_variable(int slot, const char *name, const char *value)
{
	char *text = (char *)g.scratch + slot * HK_VARIABLE;
	snprintf(text, HK_VARIABLE, "%s=%s", name, value);
	g.hk.environment[slot] = text;
}

/* Runs EventCommand, if there is one, for `event`. */
static void hk_run(const char *event, const char *reason)
{
	const char *const argv[] = { g.op.event_command, NULL };
	char pid[16], port[16];
	if (!g.op.event_command)
		return;
	snprintf(pid, sizeof pid, "%d", (int)getpid());
	snprintf(port, sizeof port, "%d", (int)g.op.port);
	hk_variable(0, "SSHMUX_EVENT", event);
	hk_variable(1, "SSHMUX_HOST", g.op.host_name);
	hk_variable(2, "SSHMUX_PORT", port);
	hk_variable(3, "SSHMUX_REASON", reason);
	hk_variable(4, "SSHMUX_CONTROL_PATH", g.us.path ? g.us.path : "");
	hk_variable(5, "SSHMUX_PID", pid);
	log_at(TP_VERBOSE, "event %s: %s is run", event, argv[0]);
	ex_start(&g.ex.slot[EX_EVENT], argv, g.hk.environment, g.now + EVENT_MS);
}

/* The command has ended: logs its output line by line. */
static void hk_ended(struct program *p)
{
	char said[512];
	if (p->state == EX_FAILED)
		log_at(TP_ERROR, "%s failed, or ran longer than %d s", g.op.event_command,
			EVENT_MS / 1000);
	ex_read(p, said, sizeof said);
	for (char *line = said, *end; *line; line = end) {
		end = line + strcspn(line, "\n");
		end += *end ? (*end = 0, 1) : 0;
		log_at(TP_INFO, "%s: %s", g.op.event_command, line);
	}
}

/* When to report an outage; 0 if there is none to report. */
static int64_t hk_due(void)
{
	bool down = g.hk.told_up && g.lk.state != LK_UP && g.rn.stop == RN_RUN;
	return down && g.op.event_command ? g.lk.down_at + g.op.event_delay * 1000 : 0;
}

/* The next forward that could not be set up since the last call, or NULL. */
static const char *hk_failed_forward(void)
{
	if (g.ev.next - g.hk.seen > EVENTS)
		g.hk.seen = g.ev.next - EVENTS;
	while (g.hk.seen != g.ev.next) {
		const struct event *e = &g.ev.slot[g.hk.seen++ % EVENTS];
		if (e->kind == EV_FORWARD_FAILED)
			return e->text;
	}
	return NULL;
}

static void hk_events(void)
{
	struct program *p = &g.ex.slot[EX_EVENT];
	if (p->state == EX_RUNNING)
		return;
	if (p->state != EX_IDLE)
		hk_ended(p);
	if (g.lk.state == LK_UP && !g.hk.told_up) {
		g.hk.told_up = true;
		hk_run("up", "");
	} else if (hk_due() && g.now >= hk_due()) {
		g.hk.told_up = false;
		hk_run("down", g.lk.why);
	} else {
		const char *forward = hk_failed_forward();
		if (forward)
			hk_run("forward-failed", forward);
	}
}

/* Sends a datagram to the supervisor, if it is still there. */
static void hk_notify(const char *text)
{
	const char *path = getenv("NOTIFY_SOCKET");
	if (path)
		os_tell(path, text);
}

/* Tells a supervisor once that the control socket is there, once that we stop, and
 * each new state of the link. */
static void hk_supervisors(void)
{
	char text[320];
	bool serves = g.us.bound && g.rn.stop == RN_RUN, ends = g.rn.stop != RN_RUN;
	if (serves && !g.hk.ready) {
		g.hk.ready = true;
		hk_notify("READY=1");
		if (g.op.notify_fd > 0) {
			(void)!write((int)g.op.notify_fd, "\n", 1);
			close((int)g.op.notify_fd);
		}
	}
	if (g.hk.ready && ends && !g.hk.stopping) {
		g.hk.stopping = true;
		hk_notify("STOPPING=1");
	}
	if (g.hk.state == (uint8_t)g.lk.state + 1)
		return;
	g.hk.state = (uint8_t)((uint8_t)g.lk.state + 1);
	snprintf(text, sizeof text, "STATUS=%.300s", in_state());
	hk_notify(text);
}

/* SIGUSR1 has been handled: it is what the supervisor calls a reload. */
static void hk_reloaded(void)
{
	char text[64];
	if (!g.hk.ready || g.hk.stopping)
		return;
	snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%lld",
		(long long)rn_clock() * 1000);
	hk_notify(text);
	hk_notify("READY=1");
}

/* ===== lp_ ================================================================
 * The loop.  Each turn builds the poll set (POLLFDS entries at most) from the state,
 * polls, serves the transport, the clients and the channels, settles what follows and
 * frees what is dead.  Times are in ms.  It also takes the signals, and splits the
 * process after the login.
 * Calls log_, rn_, ev_, rl_, sl_, fd_, sp_, cn_, ex_, fl_, ch_, tt_, us_, ac_, fw_, ls_, co_, px_,
 * xf_, rx_, mc_, mx_, fr_, se_, ad_, sd_, lk_, hk_. */

enum lp_kind {
	LP_SIGNAL, LP_TRANSPORT, LP_WATCH, LP_NETWORK, LP_LISTENER, LP_UPLINK, LP_CONNECTOR,
	LP_FORWARD, LP_CLIENT, LP_INPUT, LP_OUTPUT, LP_SILENT
};
#define LP_PAUSE_MS 100		/* pause after a poll() that failed */

static void lp_on_signal(int number)
{
	int saved = errno;
	uint8_t byte = (uint8_t)number;
	(void)!write(g.lp.signal_pipe[1], &byte, 1);
	if (number != SIGCHLD && number != SIGUSR1 && number != SIGWINCH)
		(void)!write(g.lp.cancel_pipe[1], &byte, 1);
	errno = saved;
}

static void lp_catch(int number, bool unless_ignored)
{
	struct sigaction a, old;
	memset(&a, 0, sizeof a);
	a.sa_handler = lp_on_signal;
	sigfillset(&a.sa_mask);
	if (unless_ignored && sigaction(number, NULL, &old) == 0 && old.sa_handler == SIG_IGN)
		return;
	sigaction(number, &a, NULL);
}

static void lp_open_signals(void)
{
	if (pipe2(g.lp.signal_pipe, O_CLOEXEC | O_NONBLOCK) != 0 ||
		pipe2(g.lp.cancel_pipe, O_CLOEXEC | O_NONBLOCK) != 0) {
		log_at(TP_ERROR, "no pipe for signals: %s", strerror(errno));
		exit(EXIT_SSH);
	}
	lp_catch(SIGTERM, true);
	lp_catch(SIGINT, true);
	lp_catch(SIGHUP, true);
	lp_catch(SIGQUIT, true);
	lp_catch(SIGALRM, false);
	lp_catch(SIGCHLD, false);
	lp_catch(SIGUSR1, false);
	lp_catch(SIGWINCH, false);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);	/* the log, or a client's file, has reached ulimit -f */
	signal(SIGTTIN, SIG_IGN);
	signal(SIGTTOU, SIG_IGN);
}

static void lp_reap_children(void)
{
	int status;
	pid_t pid;
	for (int i = 0; i < CLIENTS && (pid = waitpid(-1, &status, WNOHANG)) > 0; i++) {
		sp_exited(pid);
		lk_exited(pid);
		ex_exited(pid, status);
	}
}

static void lp_signal(int number)
{
	switch (number) {
	case SIGCHLD:
		lp_reap_children();
		break;
	case SIGUSR1:
		lk_kick();
		hk_reloaded();
		break;
	case SIGWINCH:
		if (g.lk.state == LK_UP)
			tt_resize();
		break;
	case SIGALRM:			/* --timeout, while we log in for our own session */
		log_at(TP_ERROR, "no session with %s in time", g.op.host_name);
		rn_stop(RN_NOW, EX_TEMPFAIL);
		break;
	default:
		log_at(TP_VERBOSE, "ended by signal %d", number);
		rn_stop(RN_NOW, number == SIGTERM && (g.lp.split == LP_STAYS || g.lp.has_split) ?
			0 : EXIT_SSH);
	}
}

static void lp_signals(void)
{
	uint8_t numbers[32];
	ssize_t n = fd_read(g.lp.signal_pipe[0], numbers, sizeof numbers);
	for (ssize_t i = 0; i < n; i++)
		lp_signal(numbers[i]);
}

/* --- quick turns --------------------------------------------------------------
 * Looking at every slot and descriptor may cost more than what a bulk stream moves in
 * one turn.  So while bytes move fast, only every QUICK_MS a turn is full.  The others
 * are quick: they leave out the clients whose session runs, and the channels that have
 * been silent for QUIET_MS and have no terminal.  A quick turn in which anything happens
 * but that data moves goes on as a full one, and the next is full, too.
 *
 * poll() of 500 silent sockets takes longer than a quick turn.  So after SILENT_MS in which
 * only data moved they become a set (epoll), which is one entry of a quick turn's poll():
 * when one of them speaks the next turn is full, and other full turns are rare.  The set is
 * never changed: what is no longer true of it ends it. */

static uint64_t lp_moved(void)
{
	return tp_info()->bytes_in + tp_info()->bytes_out;
}

/* Whether nothing happens but that data moves. */
static bool lp_is_plain(void)
{
	return g.lk.state == LK_UP && tp_state() == TP_UP && !tp_info()->exchanging &&
		!g.lk.error[0] && !g.rn.again && g.rn.stop == RN_RUN;
}

/* Whether c's request is under way, or may come at any moment. */
static bool lp_is_asking(const struct client *c)
{
	return c->phase < MX_REPORTING && (c->channel < 0 || c->phase != MX_HEADER || c->got > 0);
}

/* Whether turns may be quick.  RateLimit and proxy clients need full ones. */
static bool lp_is_fast(void)
{
	if (!lp_is_plain() || (int64_t)(lp_moved() - g.lp.moved_before) < QUICK_BYTES ||
		g.op.rate[RL_UP] || g.op.rate[RL_DOWN] ||
		sd_ready(CHANNELS, SENDERS) < SENDERS)
		return false;
	for (size_t i = 0; i < sizeof g.lp.awake / sizeof g.lp.awake[0]; i++)
		g.lp.awake[i] |= g.ch.busy[i] | g.sd.ready[i];
	for_each_bit(i, g.lp.awake, CHANNELS)
		if (g.ch.slot[i].kind == CH_PROXY)
			return false;
	return true;
}

static void lp_end_silent(int64_t after)
{
	fd_close(&g.lp.silent);
	g.lp.silent_after = after;
}

/* More happens than that data moves: this turn is a full one. */
static void lp_more(void)
{
	g.lp.quick = false;
	lp_end_silent(g.now + SILENT_MS);
}

/* When the next full turn is due. */
static int64_t lp_full_due(void)
{
	return g.lp.full_at + (g.lp.silent < 0 ? QUICK_MS : SILENT_MS);
}

static void lp_full_turn(void)
{
	g.lp.moved_before = g.lp.moved;
	g.lp.moved = lp_moved();
	if (g.now - g.lp.marked_at < QUIET_MS)
		return;
	g.lp.marked_at = g.now;
	ch_unmark(g.lp.awake);
	lp_end_silent(0);
}

/* Whether what poll() has found makes this a full turn. */
static bool lp_is_more_than_data(void)
{
	for (int i = 0; i < g.lp.n_poll; i++) {
		enum lp_kind kind = (enum lp_kind)g.lp.owner[i].kind;
		if (g.lp.poll[i].revents && kind != LP_TRANSPORT && kind != LP_NETWORK &&
			kind != LP_INPUT && kind != LP_OUTPUT)
			return true;
	}
	return false;
}

/* Whether a quick turn leaves out this entry of a full one. */
static bool lp_is_silent(const struct lp_owner *o)
{
	int i = o->index;
	if (o->kind == LP_CLIENT)
		return !(g.lp.asking[i / 32] >> i % 32 & 1);
	return (o->kind == LP_INPUT || o->kind == LP_OUTPUT) &&
		!((g.lp.awake[i / 32] | g.ch.busy[i / 32]) >> i % 32 & 1);
}

/* Makes the set from the poll set of a full turn; none if one of them cannot be in it. */
static void lp_begin_silent(void)
{
	if (g.lp.silent >= 0 || g.now < g.lp.silent_after || tp_room() == 0)
		return;
	g.lp.silent = os_new_set();
	for (int i = 0; i < g.lp.n_poll && g.lp.silent >= 0; i++)
		if (lp_is_silent(&g.lp.owner[i]) && !os_add_to_set(g.lp.silent, &g.lp.poll[i]))
			lp_end_silent(g.now + SILENT_MS);
}

/* What lp_settle() does when only data has moved.  False if there is more to do. */
static bool lp_settle_quick(void)
{
	sd_send();
	for_each_bit(i, g.ch.busy, CHANNELS) {
		struct channel *c = &g.ch.slot[i];
		if (c->state == CH_FREE)
			continue;
		ch_settle(c);
		if (c->state != CH_OPEN || c->events || c->kind == CH_PROXY)
			return false;
	}
	tp_flush();
	return lp_is_plain();
}

/* --- the poll set --------------------------------------------------------------- */

static void lp_add(enum lp_kind kind, int index, int stream, int fd, short events)
{
	if (g.lp.n_poll == POLLFDS)
		log_abort("more descriptors than POLLFDS");
	g.lp.owner[g.lp.n_poll] = (struct lp_owner){ (uint8_t)kind, (uint8_t)stream,
		(uint16_t)index };
	g.lp.poll[g.lp.n_poll++] = (struct pollfd){ .fd = fd, .events = events };
}

static void lp_earlier(int *timeout, int64_t deadline)
{
	if (deadline == 0)
		return;
	int64_t left = deadline > g.now ? deadline - g.now : 0;
	if (left > INT_MAX)
		left = INT_MAX;
	if (*timeout < 0 || left < *timeout)
		*timeout = (int)left;
}

/* Leaves out a client from which we want nothing now, or poll() would report its
 * hang-up over and over. */
static void lp_add_proxy(const struct client *c, int *timeout)
{
	bool room = g.lk.state == LK_UP && tp_room() > 0;
	short events = (short)((room && px_wants_read(c) ? POLLIN : 0) | (c->out_len || c->tail ?
		POLLOUT : 0));
	if (room && px_wants_send(c))
		sd_wait(&c->sender, timeout);
	if (events)
		lp_add(LP_CLIENT, sl_client_index(c), 0, c->fd, events);
}

static void lp_add_client(const struct client *c, int *timeout)
{
	lp_earlier(timeout, c->deadline);
	if (c->phase == MX_NO_DESCRIPTOR && g.us.accept_after > g.now)
		lp_earlier(timeout, g.us.accept_after);
	if (px_is(c))
		lp_add_proxy(c, timeout);
	else
		lp_add(LP_CLIENT, sl_client_index(c), 0, c->fd,
			(short)((fr_wants_read(c) ? POLLIN : 0) | (fr_wants_write(c) ?
			POLLOUT : 0)));
}

static void lp_add_clients(int *timeout)
{
	int n = 0;
	memset(g.lp.asking, 0, sizeof g.lp.asking);
	for_each_client(c) {
		int i = sl_client_index(c);
		n++;
		g.lp.asking[i / 32] |= (uint32_t)lp_is_asking(c) << i % 32;
		lp_add_client(c, timeout);
	}
	if (n == CLIENTS)		/* others wait in the kernel, where we cannot see them */
		ev_full(TABLE_CLIENTS, "CLIENTS");
	g.lp.open = n < CLIENTS && (fd_room(FD_SESSION) || fd_idle() < FD_SPARE);
}

static void lp_add_listener(int *timeout)
{
	if (g.us.listener < 0 || !g.lp.open)
		return;
	if (g.now >= g.us.accept_after)
		lp_add(LP_LISTENER, 0, 0, g.us.listener, POLLIN);
	else
		lp_earlier(timeout, g.us.accept_after);
}

/* A socket that we read and write has one entry, LP_INPUT: the kernel refuses a poll
 * set with more entries than a process may have descriptors. */
static void lp_add_channel(const struct channel *c, bool room, int *timeout)
{
	int i = sl_channel_index(c);
	short in = 0, out = ch_wants_write(c, CH_OUT) ? POLLOUT : 0;
	int input = fd_of(c, CH_IN);
	bool one = input == fd_of(c, CH_OUT);
	if (room && c->state == CH_SOCKS_LOCAL)
		in = POLLIN | POLLRDHUP;
	else if (room && ch_wants_send(c))
		sd_wait(&c->sender, timeout);
	else if (room && ch_wants_read(c))
		in = POLLIN;
	if (room && c->sent == CH_FLOWS && fl_patience(c) >= 0)
		lp_earlier(timeout, g.now + 1 + fl_patience(c));
	if (in || (one && out))
		lp_add(LP_INPUT, i, 0, input, (short)(in | (one ? out : 0)));
	if (out && !one)
		lp_add(LP_OUTPUT, i, CH_OUT, c->end[CH_OUT].fd, POLLOUT);
	if (ch_wants_write(c, CH_ERR))
		lp_add(LP_OUTPUT, i, CH_ERR, c->end[CH_ERR].fd, POLLOUT);
}

static void lp_add_channels(int *timeout)
{
	bool room = g.lk.state == LK_UP && tp_room() > 0;
	for_each_channel(c) {
		if (c->sender.weight == SD_INTERACTIVE)
			ch_mark(c);
		if (ch_is_socket(c) && c->connector < 0 && c->state < CH_OPEN)
			lp_earlier(timeout, c->deadline);
		lp_add_channel(c, room, timeout);
	}
}

/* For a quick turn, which ends when a full one is due. */
static void lp_add_awake(int *timeout)
{
	bool room = tp_room() > 0;
	lp_earlier(timeout, lp_full_due());
	if (g.lp.silent >= 0)
		lp_add(LP_SILENT, 0, 0, g.lp.silent, POLLIN);
	for_each_bit(i, g.lp.awake, CHANNELS)
		lp_add_channel(&g.ch.slot[i], room, timeout);
	for_each_bit(i, g.lp.asking, CLIENTS)
		if (sl_client(i))
			lp_add_client(sl_client(i), timeout);
}

/* Has poll() wake us when the kernel has sent enough, through the transport's own
 * entry if there is one. */
static void lp_add_network(void)
{
	for (int i = 0; i < g.lp.n_poll; i++)
		if (g.lp.owner[i].kind == LP_TRANSPORT && g.lp.poll[i].fd == g.sd.fd) {
			g.lp.poll[i].events |= POLLOUT;
			return;
		}
	lp_add(LP_NETWORK, 0, 0, g.sd.fd, POLLOUT);
}

static void lp_add_forwards(int *timeout)
{
	if (!g.lp.quick)
		g.lp.accepts = co_wants_accept() || lk_may_hasten();
	bool room = g.lp.accepts;
	if (!room && g.now < g.co.accept_after)
		lp_earlier(timeout, g.co.accept_after);
	for_each_connector(k)
		if (cn_events(k)) {
			lp_add(LP_CONNECTOR, (int)(k - g.cn.slot), 0, k->fd, cn_events(k));
			lp_earlier(timeout, k->attempt_deadline);
		}
	for_each_forward(f) {
		if (g.lk.logins > 0 && ls_is_due(f))
			lp_earlier(timeout, f->retry_at ? f->retry_at : 1);
		for (int k = 0; room && k < FW_SOCKETS; k++)
			if (f->state == FW_ACTIVE && f->socket[k] >= 0)
				lp_add(LP_FORWARD, sl_forward_index(f), k, f->socket[k], POLLIN);
	}
}

/* A part of the largest window, so that its server need not wait for us; 0 where a terminal
 * is open, or the server has not taken all that we sent. */
static uint32_t lp_gather_downloads(void)
{
	uint32_t most = 0;
	for_each_bit(i, g.lp.awake, CHANNELS) {
		const struct channel *c = &g.ch.slot[i];
		if (c->state != CH_FREE && c->flight > 0)
			return 0;
		if (c->state != CH_FREE && c->window_target / 4 > most)
			most = c->window_target / 4;
	}
	return g.sd.typed ? 0 : most < GATHER ? most : GATHER;
}

/* Notices when something has come, and whether it was soon after what came before. */
static void lp_notice(void)
{
	uint64_t came = tp_info()->bytes_in;
	if (came == g.lp.came)
		return;
	g.lp.at_once = g.now - g.lp.came_at <= GATHER_MS;
	g.lp.came_at = g.now;
	g.lp.came = came;
}

/* How much is to come before poll() wakes us: the rest of a packet, which is of no use
 * before; more where only downloads come, and one turn's bytes after the other's at once. */
static void lp_gather(int *timeout)
{
	uint32_t lacking = tp_info()->lacking, bytes = lacking < GATHER_LEAST ? 1 : lacking,
		more = 0;
	int limit = PACKET_MS;
	int64_t silence = g.now - g.lp.came_at;
	if (GATHER > 1 && g.lp.quick && g.lp.at_once && silence <= GATHER_MS)
		more = lp_gather_downloads();
	if (more > 1 && more >= lacking) {
		bytes = more;
		limit = GATHER_MS + 1;
	}
	if (silence >= limit)
		bytes = 1;
	if (bytes > 1)
		lp_earlier(timeout, g.lp.came_at + limit);
	sd_gather((int)bytes);
}

static void lp_add_transport(int *timeout)
{
	struct pollfd p[TP_POLLFDS];
	size_t n = tp_poll(p, g.now, timeout);
	for (size_t i = 0; i < n; i++)
		lp_add(LP_TRANSPORT, (int)i, 0, p[i].fd, p[i].events);
}

/* Of whatever has neither a slot nor a descriptor. */
static void lp_add_deadlines(int *timeout)
{
	if (g.lk.state == LK_LOGIN)
		lp_earlier(timeout, g.lk.login_deadline);
	if (g.lk.state == LK_WAITING)
		lp_earlier(timeout, g.lk.retry_at);
	if (g.us.bound)
		lp_earlier(timeout, g.us.look_at ? g.us.look_at : 1);
	if (g.se.open_after > g.now)
		lp_earlier(timeout, g.se.open_after);
	lp_earlier(timeout, g.lk.probe_at);
	lp_earlier(timeout, g.lk.look_at);
	lp_earlier(timeout, g.lk.state == LK_UP ? g.lk.exchange_at : 0);
	if (g.lk.state == LK_UP && g.op.alive_interval > 0)
		lp_earlier(timeout, g.lk.alive_at);
	if (g.sd.typed)
		lp_earlier(timeout, g.lp.resize_at);
	lp_earlier(timeout, hk_due());
	lp_earlier(timeout, g.lp.stop_deadline);
	lp_earlier(timeout, g.lp.idle_at);
	for_each_program(o)
		if (o->state == EX_RUNNING)
			lp_earlier(timeout, o->deadline);
	if (g.lp.quick && *timeout == 0)
		g.lp.full_at = 0;	/* it is met in a full turn, the next one */
}

/* Fills g.lp.poll; returns poll()'s timeout. */
static int lp_build(void)
{
	int timeout = g.rn.again ? 0 : -1;
	g.lp.n_poll = 0;
	rn_waits();
	if (!g.lp.quick)
		lp_full_turn();
	sd_turn_begins(g.lp.quick);
	lp_add_deadlines(&timeout);
	lp_add(LP_SIGNAL, 0, 0, g.lp.signal_pipe[0], POLLIN);
	if (g.lk.state == LK_LOGIN || g.lk.state == LK_UP)
		lp_add_transport(&timeout);
	if (g.lk.state == LK_CONNECTING && cn_events(&g.lk.uplink)) {
		lp_add(LP_UPLINK, 0, 0, g.lk.uplink.fd, cn_events(&g.lk.uplink));
		lp_earlier(&timeout, g.lk.uplink.attempt_deadline);
	}
	if (g.lk.watch >= 0)
		lp_add(LP_WATCH, 0, 0, g.lk.watch, POLLIN);
	if (!g.lp.quick) {
		lp_add_clients(&timeout);
		lp_add_channels(&timeout);
	} else
		lp_add_awake(&timeout);
	lp_add_listener(&timeout);
	lp_add_forwards(&timeout);
	lp_earlier(&timeout, rl_due());
	if (sd_waits_for_network())
		lp_add_network();
	return timeout;
}

#define RX_BATCH 64		/* messages in one turn of the loop */

/* The transport's descriptors stand together in the poll set, after LP_SIGNAL. */
static void lp_serve_transport(void)
{
	if (g.lk.state != LK_LOGIN && g.lk.state != LK_UP)
		return;
	size_t n = 0;
	while (1 + (int)n < g.lp.n_poll && g.lp.owner[1 + n].kind == LP_TRANSPORT)
		n++;
	int64_t before = g.now;
	tp_service(g.lp.poll + 1, n, g.now);
	g.now = rn_clock();
	if (g.lk.state == LK_LOGIN)
		lk_grant(g.now - before);	/* time at a prompt does not count */
	uint8_t *p;
	size_t len;
	for (int i = 0; i < RX_BATCH && g.lk.state == LK_UP && !g.lk.error[0] &&
		(p = tp_recv(&len)); i++) {
		if (!rx_is_data(p[0]))
			lp_more();
		rx_message(p, len);
		lk_moves();
	}
}

static void lp_serve_client(struct client *c, short revents)
{
	if (px_is(c)) {
		if (revents & POLLOUT)
			px_pump(c);
		if (revents & (POLLIN | POLLHUP | POLLERR))
			sd_announce(CHANNELS + sl_client_index(c), c->fd);
		return;
	}
	if (revents & POLLOUT)
		fr_write(c);
	if (fr_wants_read(c) && revents & (POLLIN | POLLHUP | POLLERR))
		fr_read(c);
	else if (revents & (POLLHUP | POLLERR))
		mc_drop(c);
}

/* Most clients have said all when they are accepted: that needs no turn of the loop. */
static void lp_accept(void)
{
	struct os_peer peer;
	int fd = g.us.listener < 0 ? -1 : ac_accept(g.us.listener, &peer);
	if (fd < 0)
		return;
	struct client *c = mc_add(fd, peer);
	fr_write(c);
	fr_read(c);
}

static void lp_serve_input(struct channel *c, short events, short revents)
{
	if (events & POLLIN && revents & ~POLLOUT) {
		if (c->state == CH_SOCKS_LOCAL)
			co_socks_local(c, revents & (POLLRDHUP | POLLHUP | POLLERR));
		else if (fd_of(c, CH_IN) >= 0)
			sd_announce(sl_channel_index(c), c->end[CH_IN].fd);
	}
	if (events & POLLOUT && revents & ~POLLIN && ch_wants_write(c, CH_OUT))
		ch_write(c, CH_OUT);
}

static void lp_serve(const struct lp_owner *o, const struct pollfd *p)
{
	short revents = p->revents;
	struct channel *ch = o->kind == LP_INPUT || o->kind == LP_OUTPUT ? &g.ch.slot[o->index] :
		NULL;
	switch ((enum lp_kind)o->kind) {
	case LP_SIGNAL:
		lp_signals();
		break;
	case LP_WATCH:
		lk_noticed();
		break;
	case LP_LISTENER:
		lp_accept();
		break;
	case LP_CLIENT:
		lp_serve_client(&g.mc.slot[o->index], revents);
		break;
	case LP_INPUT:
		lp_serve_input(ch, p->events, revents);
		break;
	case LP_FORWARD:
		if (g.lk.state != LK_UP)
			lk_hasten();		/* the connection waits in the kernel's queue */
		else if (g.fw.slot[o->index].socket[o->stream] >= 0)
			co_accept(&g.fw.slot[o->index], g.fw.slot[o->index].socket[o->stream]);
		break;
	case LP_CONNECTOR:
		cn_service(&g.cn.slot[o->index], revents, g.now);
		break;
	case LP_OUTPUT:
		if (ch_wants_write(ch, (enum stream)o->stream))
			ch_write(ch, (enum stream)o->stream);
		break;
	case LP_UPLINK:
	case LP_TRANSPORT:
	case LP_NETWORK:
	case LP_SILENT:
		break;			/* served already, or only a wake-up */
	}
}

static void lp_settle(void)
{
	if (g.lk.state == LK_UP && tp_state() == TP_UP)
		sd_send();
	ls_settle();
	co_settle();
	if (g.us.bound && g.now >= g.us.look_at)
		us_watch();
	ex_expire();
	xf_settle();
	hk_events();
	hk_supervisors();
	if (g.lk.state == LK_UP && g.now >= g.lp.resize_at) {
		g.lp.resize_at = g.now + TT_RESIZE_MS;
		tt_resize();
	}
	if (g.lk.state != LK_UP || !tp_info()->exchanging)
		ch_settle_all();
	for_each_client(c) {
		if (c->dead)
			continue;
		if (c->phase == MX_ASKING)
			mx_ask_events(c);
		if (c->channel >= 0)
			se_events(c);
		if (c->forward >= 0)
			mx_forward_events(c);
		if (c->phase == MX_PROBING)
			mx_probe_events(c);
		ad_expire(c);
		if (px_is(c))
			px_settle(c);
		else
			fr_write(c);
	}
	px_settle_channels();
	ad_admit();
	if (ad_waits())
		lk_hasten();
	if (g.lk.state == LK_UP)
		tp_flush();
}

/* Frees what has ended.  If anybody waits for that, or has channels that must be closed,
 * the loop runs again. */
static void lp_reap(void)
{
	bool freed = false, again = false;
	for_each_client(c)
		if (c->dead) {
			again |= c->channel >= 0 || px_is(c);
			mc_free(c);
			freed = true;
		}
	for_each_channel(c)
		if (c->state == CH_DEAD) {
			ch_free(c);
			freed = true;
		}
	if (again || (freed && (ad_is_short() || g.rn.stop != RN_RUN)))
		rn_again();
}

/* Begins the master's end: takes no more requests and leaves the server, but still
 * delivers what was received, for FAREWELL_MS at most. */
static void lp_begin_stop(void)
{
	g.lp.stop_deadline = g.now + FAREWELL_MS;
	rn_again();
	ev_add((struct event){ .kind = EV_ENDING }, g.lk.why);
	us_remove();
	if (g.lk.state != LK_DOWN) {
		lk_leave();
		px_link_lost();
	}
}

/* True when nothing is left to do. */
static bool lp_stopped(void)
{
	bool idle = mc_only_watchers() && g.ch.end == 0;
	if (!idle)
		g.lp.idle_at = 0;
	else if (g.lp.has_split && us_persists() && g.op.persist > 0 && g.lp.idle_at == 0)
		g.lp.idle_at = g.now + g.op.persist * 1000;
	if (idle && (g.rn.stop == RN_WHEN_IDLE || (g.lp.idle_at && g.now >= g.lp.idle_at)))
		rn_stop(RN_NOW, g.rn.exit_code);
	if (g.rn.stop != RN_NOW)
		return false;
	if (g.lp.stop_deadline == 0)
		lp_begin_stop();
	for_each_client(c)	/* drop those that wait for neither output nor an answer */
		if (c->channel < 0 && !fr_wants_write(c) && c->tail == 0 && !px_is_closing(c)) {
			mc_drop(c);
			rn_again();
		}
	return (g.mc.end == 0 && g.ch.end == 0) || g.now >= g.lp.stop_deadline;
}

/* If poll() fails (no memory, or a lowered limit of descriptors), we still serve
 * signals, and poll again after a pause. */
static void lp_poll(int timeout)
{
	if (poll(g.lp.poll, (nfds_t)g.lp.n_poll, timeout) >= 0)
		return;
	int error = errno;
	for (int i = 0; i < g.lp.n_poll; i++)
		g.lp.poll[i].revents = 0;
	if (error == EINTR)
		return;
	log_at(TP_VERBOSE, "poll of %d descriptors: %s", g.lp.n_poll, strerror(error));
	g.lp.poll[0].revents = POLLIN;		/* LP_SIGNAL: reading it never waits */
	nanosleep(&(struct timespec){ .tv_nsec = LP_PAUSE_MS * 1000000 }, NULL);
}

#ifdef CHECKS
#include "tests/checks.c"	/* lp_check(): aborts when an invariant is broken */
#else
static void lp_check(void)
{
}
#endif

static void lp_serve_uplink(void)
{
	short uplink = 0;
	for (int i = 0; i < g.lp.n_poll; i++)
		if (g.lp.owner[i].kind == LP_UPLINK)
			uplink = g.lp.poll[i].revents;
	if (g.lk.state == LK_CONNECTING)
		cn_service(&g.lk.uplink, uplink, g.now);
}

/* One turn of the loop. */
static void lp_turn(void)
{
	bool fast = lp_is_fast();
	g.lp.quick = fast && g.now < lp_full_due();
	int timeout = lp_build();
	if (fast && !g.lp.quick)
		lp_begin_silent();
	else
		lp_gather(&timeout);
	lp_poll(fast && !g.lp.quick ? 0 : timeout);	/* only quick turns wait then */
	g.now = rn_clock();
	bool more = lp_is_more_than_data();
	if (!g.lp.quick || more)
		g.lp.full_at = more ? 0 : g.now;
	if (more)
		lp_more();
	rl_fill();
	lp_serve_uplink();
	lp_serve_transport();
	lp_notice();
	if (!lp_is_plain())
		lp_more();
	if (!g.lp.quick)
		lk_service();
	for (int i = 0; i < g.lp.n_poll; i++)
		if (g.lp.poll[i].revents)
			lp_serve(&g.lp.owner[i], &g.lp.poll[i]);
	if (!g.lp.quick || !lp_settle_quick()) {
		for_each_connector(k)
			if (cn_events(k))
				cn_service(k, 0, g.now);	/* its deadlines */
		lp_settle();
		lp_reap();
	}
	lp_check();
}

/* --- splitting in two --------------------------------------------------------- */

/* Whether it is time to split: the login stands, and the user has heard what is to
 * be said about forwards. */
static bool lp_may_split(void)
{
	if (g.lp.split == LP_STAYS || g.lp.has_split || g.lk.state != LK_UP || g.rn.stop != RN_RUN)
		return false;
	int n = 0;
	for_each_client(c)
		n++;
	if (n == CLIENTS)
		return false;		/* our other half becomes a client, too */
	for_each_forward(f) {
		bool open = f->state != FW_ACTIVE && (f->state != FW_WAITING || f->tries == 0);
		/* a failed one may end the master */
		bool failed = f->state == FW_WAITING && f->tries > 0;
		if ((open && (f->type != FW_REMOTE || g.op.exit_on_forward_failure)) ||
			(failed && g.op.exit_on_forward_failure))
			return false;
	}
	return true;
}

/* Closes the caller's stdio: a caller that waits for the end of our output must not
 * wait for the master (CTL-caller). */
static void lp_close_stdio(bool detached)
{
	fd_null(STDIN_FILENO);
	fd_null(STDOUT_FILENO);
	if (detached && (g.log.fd || g.log.level < TP_DEBUG))
		fd_null(STDERR_FILENO);
}

/* Makes the child the master. */
static void lp_be_master(int own)
{
	bool detached = g.lp.split == LP_DETACHES || g.op.background ||
		(us_persists() && g.us.bound);
	g.lp.has_split = true;
	for_each_connector(k)
		k->pid = 0;
	if (own >= 0) {
		fd_nonblock(own);
		mc_add(own, os_peer(own))->split = true;
	}
	if (detached)
		setsid();
	lp_close_stdio(detached);
}

/* Forks the child that stays as master.  True in the parent: its loop ends here. */
static bool lp_split(void)
{
	int sv[2] = { -1, -1 };
	if (g.lp.split == LP_SERVES_ITSELF && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0,
		sv) != 0) {
		lk_fail("socketpair: %s", strerror(errno));
		return false;
	}
	sigset_t all, before;		/* signals wait until one of the two can take them */
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &before);
	g.lp.split_master = fork();
	if (g.lp.split_master <= 0 || g.lp.split == LP_DETACHES)
		sigprocmask(SIG_SETMASK, &before, NULL);
	if (g.lp.split_master < 0)
		lk_fail("fork: %s", strerror(errno));
	if (g.lp.split_master > 0) {
		fd_close_others(sv[1], g.log.fd);
		g.lp.split_fd = sv[1];
		return true;
	}
	fd_close(&sv[1]);
	if (g.lp.split_master == 0)
		lp_be_master(sv[0]);
	else
		fd_close(&sv[0]);
	return false;
}

/* A master that serves others gives up the rights that it no longer needs. */
static void lp_confine(void)
{
	if (g.lp.confined || !g.us.bound || g.lk.state != LK_UP ||
		(g.lp.split != LP_STAYS && !g.lp.has_split))
		return;
	g.lp.confined = true;
	bool ready = g.op.confine && confine_able() && sp_begin_helper();
	int error = errno;
	confine_memory();		/* not for the helper: it runs the user's programs */
	if (ready && confine())
		log_at(TP_DEBUG, "confined: no more system calls than are needed");
	else if (g.op.confine)
		log_at(TP_VERBOSE, "not confined: %s", strerror(ready ? errno : error));
}

/* Runs the loop; returns the exit code, which has no meaning in a parent that has
 * split (g.lp.split_master > 0). */
static int lp_run(void)
{
	g.now = rn_clock();
	ev_begin();
	if (g.op.reconnect == LK_ALWAYS)
		lk_listen();
	lk_watch();
	if (g.rn.stop == RN_RUN)
		lk_start();
	do {
		lp_turn();
		if (lp_may_split() && lp_split())
			return 0;
		lp_confine();
	} while (!lp_stopped());
	for_each_client(c)
		mc_drop(c);
	lp_reap();
	for_each_forward(f)
		fw_free(f);
	for_each_program(p)
		ex_stop(p);
	fd_return_all();
	return g.rn.exit_code;
}

/* ===== cl_ ====================================================================
 * The mux client's connection to a master: frames, HELLO, answers, signals.  It may block:
 * it has the process to itself.  cl.out, the requests, uses g.req.memory.  A failure is a
 * message and exit status 255, or EX_TEMPFAIL if no session was free in time.
 * Calls log_, rn_, buf_, fd_, us_, mc_. */

enum cl_tty { CL_TTY_AUTO, CL_TTY_NO, CL_TTY_YES, CL_TTY_FORCE };

#define CL_RETRY_MAX 30		/* seconds between two tries of --retry at the most */
#define CL_CONNECT_MS 200	/* between two tries to reach a master, with --wait */
#define CL_GRACE 5		/* seconds that a command has after INT or TERM */
/* The exit status when --timeout ended a session, as timeout(1) has it. */
#define CL_TIMED_OUT 124

static struct cl_state {
	int fd;
	uint32_t rid;			/* of the next request */
	bool greeted, info, sshmux;	/* HELLO has come; what it says of the master */
	bool foreign;			/* the master belongs to another user */
	bool raw;			/* our terminal is in raw mode: restore `saved` */
	struct termios saved;
	pid_t master;			/* gets our SIGWINCH; 0 if not known */
	bool may_run;			/* the command may have started */
	bool open;			/* the session is open */
	bool late;			/* no master, or no session, in time */
	bool lost;			/* the session ended without an exit status */
	bool signalled;			/* INT or TERM was passed on to the command */
	bool split;			/* the master is our child: cs_split() */
	pid_t copier[3];		/* children that copy stdin, stdout, stderr; 0: none */
	struct buf out;			/* requests not written yet */
} cl = { .fd = -1 };
static bool cl_early;			/* the master is still logging in: us_claim() */
static bool cl_listing;		/* -O list: what we print is a part of its line */
static volatile sig_atomic_t cl_signal, cl_resized;

/* A frame from the master: its type, its second word and the rest. */
struct cl_frame {
	uint32_t type, word;
	struct buf rest;
};

static PRINTF(1, 2) void cl_say(const char *format, ...)
{
	char text[LOG_TEXT];
	FORMAT(text, format);
	log_put(TP_ERROR, g.log.syslog && !g.op.mux_command, text, cl_listing ? "\n" : "\r\n");
}

static void cl_pass_resize(void)
{
	if (cl_resized && cl.master > 1)
		kill(cl.master, SIGWINCH);
	cl_resized = 0;
}

/* Reads exactly n bytes.  False with errno at EOF (EPIPE), on an error, or when a signal
 * asks us to leave. */
static bool cl_read(void *to, size_t n)
{
	for (size_t got = 0; got < n;) {
		ssize_t r = read(cl.fd, (char *)to + got, n - got);
		cl_pass_resize();
		if (r == 0)
			errno = EPIPE;
		if (r == 0 || (r < 0 && (errno != EINTR || cl_signal)))
			return false;
		if (r > 0)
			got += (size_t)r;
	}
	return true;
}

/* Writes all of cl.out. */
static bool cl_flush(void)
{
	for (size_t put = 0; put < cl.out.pos;) {
		ssize_t r = send(cl.fd, cl.out.p + put, cl.out.pos - put, MSG_NOSIGNAL);
		if (r < 0 && (errno != EINTR || cl_signal))
			return false;
		if (r > 0)
			put += (size_t)r;
	}
	cl.out.pos = 0;
	return true;
}

/* Prints a part of a master's text without control characters: the master may belong to
 * somebody else.  Returns the number of bytes that need more input; they move from the end
 * to the front. */
static size_t cl_show(uint8_t *p, size_t len)
{
	char clean[1024];
	size_t at = 0, n;
	while ((n = tp_clean((char *)p + at, len - at, true, clean, sizeof clean)) > 0) {
		size_t shown = strlen(clean);
		shown -= cl_listing && shown > 0 && clean[shown - 1] == '\n';
		(void)!write(STDOUT_FILENO, clean, shown);
		at += n;
	}
	memmove(p, p + at, len - at);
	return len - at;
}

/* Reads the next frame.  Prints a text as it comes; drops other bytes that do not fit in
 * the buffer. */
static bool cl_frame(struct cl_frame *f)
{
	static uint8_t body[1024];
	uint8_t head[8];
	memset(f, 0, sizeof *f);
	if (!cl_read(head, 8))
		return false;
	uint32_t len = buf_u32_at(head);
	f->type = buf_u32_at(head + 4);
	if (len < 8 || len > MUX_FRAME_MAX) {
		errno = EPROTO;
		return false;
	}
	len -= 4;
	uint32_t keep = len < sizeof body ? len : sizeof body;
	if (!cl_read(body, keep))
		return false;
	f->rest = buf_over(body, keep);
	f->word = buf_get_u32(&f->rest);
	/* where a text starts that we print as it arrives, however long it is: after id, status
	 * and length, or after id and length; 0 for other frames */
	uint32_t text = f->type == MUX_S_EXT_INFO ? 12 : f->type == MUX_X_S_REPORT ? 8 : 0;
	size_t cut = text && keep > text ? cl_show(body + text, keep - text) : 0;
	memcpy(g.scratch, body + text, cut);
	for (size_t left = len - keep, part; left > 0; left -= part) {
		part = left < sizeof g.scratch - cut ? left : sizeof g.scratch - cut;
		if (!cl_read(g.scratch + cut, part))
			return false;
		cut = text ? cl_show(g.scratch, cut + part) : 0;
	}
	return true;
}

/* Whether we must refuse this master: it gets our descriptors and environment, so it must
 * belong to us or to root. */
static bool cl_is_foreign(void)
{
	struct os_peer peer = os_peer(cl.fd);
	cl.foreign = peer.uid != 0 && peer.uid != getuid();
	if (!cl.foreign || g.op.foreign_master)
		return cl.foreign = false;
	if (cl_early) {			/* anybody can bind such a name: ignore it */
		cl.foreign = false;
		return true;
	}
	cl_say("Control socket %s belongs to another user (uid %u): not used "
		"(-o AllowForeignMaster=yes allows it)", g.op.control_path, (unsigned)peer.uid);
	return true;
}

/* One try to reach the master; 0 or errno. */
static int cl_try_connect(const struct sockaddr_un *a, socklen_t len)
{
	fd_close(&cl.fd);
	cl = (struct cl_state){ .fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0),
		.out = buf_over(g.req.memory, sizeof g.req.memory) };
	return cl.fd >= 0 && connect(cl.fd, (const struct sockaddr *)a, len) == 0 ? 0 : errno;
}

/* Whether we may log in ourselves when the master fails, as ssh does: never once the
 * command may have started (CTL-fallback).  Fallback=no wins even over ControlMaster=auto:
 * whoever sets it would rather have no connection than one to the wrong machine. */
static bool cl_may_fall_back(void)
{
	if (g.op.mux_command || cl_signal || cl.late || cl.may_run || cl.foreign)
		return false;
	if (g.op.master == OP_MASTER_NO && (g.op.wait >= 0 || g.op.retry > 0))
		return false;
	if (g.op.stdio_forward && cl.greeted)
		return false;
	return g.op.fallback;
}

/* Connects; with --wait, waits for a master that is not there yet. */
static bool cl_connect(void)
{
	struct sockaddr_un a;
	socklen_t len = sizeof a;
	const char *path = g.op.control_path;
	int64_t until = rn_clock() + g.op.wait * 1000;
	if (cl_early && !us_early_address(&a, &len, path))
		return false;
	if (!cl_early && !us_address(&a, path)) {
		cl_say("ControlPath too long ('%s' >= %d bytes)", path, (int)sizeof a.sun_path);
		exit(EXIT_SSH);
	}
	int error = cl_try_connect(&a, len);
	while (error && g.op.wait > 0 && g.op.master == OP_MASTER_NO && !cl_signal &&
		rn_clock() < until) {
		poll(NULL, 0, CL_CONNECT_MS);
		error = cl_try_connect(&a, len);
	}
	if (error) {
		if (!cl_may_fall_back() || (error != ENOENT && g.op.master == OP_MASTER_NO))
			cl_say("Control socket connect(%s): %s", path, strerror(error));
		cl.late = (g.op.wait > 0 && g.op.master == OP_MASTER_NO) ||
			(!g.op.fallback && (error == ENOENT || error == ECONNREFUSED));
		return false;
	}
	if (cl_is_foreign())
		return false;
	mc_put_hello(&cl.out, false);
	return true;
}

/* ConnectTimeout limits the wait for a silent master (since OpenSSH 9.4). */
static bool cl_is_mute(void)
{
	struct pollfd p = { .fd = cl.fd, .events = POLLIN };
	int64_t ms = g.op.connect_timeout * 1000;
	if (cl_early && ms <= 0)
		ms = LOGIN_MS;
	if (ms <= 0 || cl.split)
		return false;
	return poll(&p, 1, ms < INT_MAX ? (int)ms : INT_MAX) == 0;
}

/* Reads the master's HELLO, once.  It tells whether the master knows our extensions. */
static bool cl_hello(void)
{
	struct cl_frame f;
	if (cl.greeted)
		return true;
	if (!cl_flush() || cl_is_mute() || !cl_frame(&f) || f.type != MUX_MSG_HELLO) {
		if (!cl_early)
			cl_say("sshmux: master hello exchange failed");
		return false;
	}
	if (f.word != MUX_VERSION) {
		cl_say("Unsupported multiplexing protocol version %u (expected %d)",
			(unsigned)f.word, MUX_VERSION);
		return false;
	}
	while (!f.rest.bad && f.rest.pos < f.rest.len) {
		struct str name = buf_get_str(&f.rest), value = buf_get_str(&f.rest);
		cl.info |= str_is(name, "info") && str_is(value, "0");
		cl.sshmux |= str_is(name, "sshmux") && str_is(value, "1");
	}
	cl.greeted = true;
	return true;
}

/* Begins a request; cl_end() fills in its length. */
static size_t cl_begin(enum mux_type type)
{
	return buf_frame(&cl.out, type, cl.rid);
}

static bool cl_end(size_t start)
{
	buf_end(&cl.out, start);
	return !cl.out.bad;
}

/* Reads the answer to the last request; says what is wrong if there is none or it answers
 * another request. */
static bool cl_answer(const char *what, struct cl_frame *f)
{
	if (!cl_hello())
		return false;
	bool ok = cl_flush();
	while (ok && (ok = cl_frame(f)) && f->type == MUX_X_S_PLACE && cl.sshmux)
		cl_say("sshmux: waiting for a session, place %u", (unsigned)buf_get_u32(&f->rest));
	if (!ok) {
		if (!cl_signal)
			cl_say("sshmux: %s: read from master failed: %s", what, strerror(errno));
		return false;
	}
	if (f->word != cl.rid) {
		cl_say("sshmux: %s: out of sequence reply: my id %u theirs %u", what,
			(unsigned)cl.rid, (unsigned)f->word);
		return false;
	}
	cl.rid++;
	return true;
}

static const char cl_stdio_what[] = "stdio forwarding request";

/* Says why the master refused a request. */
static void cl_refused(const char *what, struct cl_frame *f)
{
	struct str why = buf_get_str(&f->rest);
	cl.late = f->type == MUX_X_S_TRY_LATER;
	cl.may_run = false;
	if (f->type == MUX_S_PERMISSION_DENIED)
		cl_say("Master refused %s: %.*s", what, (int)why.len, (const char *)why.p);
	else if (f->type == MUX_S_FAILURE && strcmp(what, cl_stdio_what) == 0)
		cl_say("Stdio forwarding request failed: %.*s", (int)why.len, (const char *)why.p);
	else if (f->type == MUX_S_FAILURE || f->type == MUX_X_S_TRY_LATER)
		cl_say("sshmux: %s failed: %.*s", what, (int)why.len, (const char *)why.p);
	else
		cl_say("sshmux: %s: unexpected response from master 0x%08x", what,
			(unsigned)f->type);
}

/* Sends a frame that has no answer, from a signal handler: a type and perhaps a short text.
 * False if there is no session of an sshmux master that it could be for. */
static bool cl_send_now(enum mux_type type, const char *text)
{
	uint8_t frame[24];
	struct buf b = buf_over(frame, sizeof frame);
	buf_frame(&b, type, 0);
	if (text)
		buf_put_text(&b, text);
	buf_end(&b, 0);
	return cl.sshmux && cl.open && send(cl.fd, frame, b.pos, MSG_NOSIGNAL | MSG_DONTWAIT) > 0;
}

/* Passes a signal on to the command, if the master is an sshmux and the command has no
 * terminal to get signals from.  After INT or TERM we leave, too: at the second one or
 * after CL_GRACE seconds, since a server need not deliver signals (OpenSSH does not for
 * root). */
static bool cl_pass_signal(int number)
{
	static const struct { int number; const char name[5]; } passed[] = {
		{ SIGHUP, "HUP" }, { SIGINT, "INT" }, { SIGQUIT, "QUIT" }, { SIGTERM, "TERM" },
		{ SIGUSR1, "USR1" }, { SIGUSR2, "USR2" },
	};
	size_t i = 0;
	while (i < LENGTH(passed) && passed[i].number != number)
		i++;
	if (i == LENGTH(passed) || !cl.sshmux || !cl.open || cl.raw || cl.signalled)
		return false;
	cl.signalled = number == SIGINT || number == SIGTERM;
	if (cl.signalled)
		alarm(CL_GRACE);
	return cl_send_now(MUX_X_C_SIGNAL, passed[i].name);
}

static void cl_on_signal(int number)
{
	int saved = errno;
	if (number == SIGALRM && cl.signalled)
		number = SIGTERM;
	if (cl_pass_signal(number) || number == SIGUSR1 || number == SIGUSR2) {
		errno = saved;
		return;
	}
	if (number == SIGALRM)
		cl_send_now(MUX_X_C_KILL, NULL);	/* --timeout is over */
	if (number == SIGWINCH)
		cl_resized = 1;
	else {
		cl_signal = number;
		shutdown(cl.fd, SHUT_RDWR);	/* wakes even a read() that is just starting */
	}
	errno = saved;
}

static void cl_catch_signals(void)
{
	static const int numbers[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGALRM, SIGWINCH, SIGUSR1,
		SIGUSR2 };
	struct sigaction a, old;
	memset(&a, 0, sizeof a);
	a.sa_handler = cl_on_signal;
	for (size_t i = 0; i < LENGTH(numbers); i++)
		if (numbers[i] == SIGUSR1 || (sigaction(numbers[i], NULL, &old) == 0 &&
			old.sa_handler != SIG_IGN))
			/* main() ignores USR1 for the master's sake */
			sigaction(numbers[i], &a, NULL);
}

/* From here on we leave on a signal or at the end of --timeout. */
static void cl_set_timeout(void)
{
	unsigned left = alarm(0);	/* what an earlier try has left */
	cl_catch_signals();
	if (g.op.timeout > 0)
		alarm(left ? left : (unsigned)g.op.timeout);
}

/* Ends a request and reads its answer; unless that is of type `wanted`, says why not and
 * returns false. */
static bool cl_ask(size_t start, const char *what, enum mux_type wanted, struct cl_frame *f)
{
	cl_end(start);
	if (!cl_answer(what, f))
		return false;
	if (f->type != wanted)
		cl_refused(what, f);
	return f->type == wanted;
}

/* Asks for the master's pid. */
static bool cl_alive(void)
{
	struct cl_frame f = { .type = 0 };
	if (cl_ask(cl_begin(MUX_C_ALIVE_CHECK), "alive check", MUX_S_ALIVE, &f) &&
		(cl.master = (pid_t)buf_get_u32(&f.rest)) > 0)
		return true;
	if (f.type)
		cl_say("sshmux: master alive check failed");
	return false;
}

/* ===== ct_ ================================================================
 * The control commands (-O), with ssh's messages and exit status: a function for each,
 * and their table.
 * Calls buf_, cl_. */

struct ct_command {
	const char *name;
	int (*run)(const struct ct_command *);
	int words;			/* how many follow the host, or stand alone */
	const char *what;		/* the name in the request; of a report, with --json */
};

static int ct_check(UNUSED const struct ct_command *k)
{
	struct cl_frame f;
	if (!cl_alive())
		return EXIT_SSH;
	bool up = true;
	struct str state = { (const uint8_t *)"", 0 };
	if (cl.sshmux) {
		size_t start = cl_begin(MUX_X_C_STATE);
		buf_put_u32(&cl.out, (uint32_t)g.op.probe);
		cl_end(start);
		if (!cl_answer("state request", &f))
			return EXIT_SSH;
		up = buf_get_u32(&f.rest);
		state = buf_get_str(&f.rest);
	}
	if (up && (!cl_listing || state.len == 0))
		cl_say("Master running (pid=%u)", (unsigned)cl.master);
	else
		cl_say("Master running (pid=%u), %.*s", (unsigned)cl.master, (int)state.len,
			(const char *)state.p);
	return up ? 0 : EX_TEMPFAIL;
}

static int ct_done(const char *what)
{
	if (g.log.level >= TP_INFO)
		cl_say("%s", what);
	return 0;
}

static int ct_exit(UNUSED const struct ct_command *k)
{
	struct cl_frame f;
	cl_end(cl_begin(MUX_C_TERMINATE));
	if (!cl_hello() || !cl_flush())
		return EXIT_SSH;
	cl_frame(&f);			/* OpenSSH's master ends without an answer (TERM-eof) */
	if (!f.type || f.type == MUX_S_OK)
		return ct_done("Exit request sent.");
	cl_refused("termination request", &f);
	return EXIT_SSH;
}

static int ct_stop(UNUSED const struct ct_command *k)
{
	struct cl_frame f;
	bool ok = cl_ask(cl_begin(MUX_C_STOP_LISTENING), "stop listening request", MUX_S_OK, &f);
	return ok ? ct_done("Stop listening request sent.") : EXIT_SSH;
}

/* Opens or cancels one forward.  `print`: prints the port that the server chose. */
static bool ct_forward(const struct forward *f, enum mux_type type, bool print)
{
	struct cl_frame r;
	size_t start = cl_begin(type);
	buf_put_u32(&cl.out, f->type);
	buf_put_text(&cl.out, f->listen.host);
	buf_put_u32(&cl.out, f->listen.port);
	buf_put_text(&cl.out, f->connect.host);
	buf_put_u32(&cl.out, f->connect.port);
	cl_end(start);
	if (!cl_answer("forwarding request", &r))
		return false;
	if (r.type == MUX_S_REMOTE_PORT && type == MUX_C_OPEN_FWD) {
		uint32_t port = buf_get_u32(&r.rest);
		if (print) {
			printf("%u\n", (unsigned)port);
			fflush(stdout);
		}
		if (g.log.level >= TP_VERBOSE)
			cl_say("Allocated port %u for remote forward to %s:%u", (unsigned)port,
				f->connect.host, (unsigned)f->connect.port);
		return true;
	}
	if (r.type != MUX_S_OK)
		cl_refused("forwarding request", &r);
	return r.type == MUX_S_OK;
}

/* All forwards of the options, local ones first (FWD-order).  False if one failed. */
static bool ct_forwards(enum mux_type type, bool print)
{
	bool ok = true;
	for (int remote = 0; remote < 2; remote++)
		for_each_forward(f) {
			if ((f->type == FW_REMOTE) != remote || ct_forward(f, type, print))
				continue;
			cl_say("sshmux: master %sforward request failed", type == MUX_C_OPEN_FWD ?
				"" : "cancel ");
			ok = false;
			if (!cl.greeted)
				return false;
		}
	return ok;
}

static int ct_open_forwards(UNUSED const struct ct_command *k)
{
	return ct_forwards(MUX_C_OPEN_FWD, true) ? 0 : cl.late ? EX_TEMPFAIL : EXIT_SSH;
}

/* ssh exits with 0 whatever the master says to a cancel (FWD-cancel-exit). */
static int ct_cancel_forwards(UNUSED const struct ct_command *k)
{
	ct_forwards(MUX_C_CLOSE_FWD, false);
	return cl.greeted ? 0 : EXIT_SSH;
}

static int ct_info(const struct ct_command *k)
{
	struct cl_frame f;
	if (cl_hello() && !cl.info)
		cl_say("mux server does not support info request");
	if (!cl.info)
		return EXIT_SSH;
	size_t start = cl_begin(MUX_C_EXT_INFO);
	buf_put_text(&cl.out, k->what);
	return cl_ask(start, "info request", MUX_S_EXT_INFO, &f) ? 0 : EXIT_SSH;
}

/* Whether the master is an sshmux; says so if not. */
static bool ct_is_sshmux(const char *what)
{
	if (cl_hello() && !cl.sshmux)
		cl_say("sshmux: the master does not know %s: it is none of sshmux", what);
	return cl.sshmux;
}

/* Prints a report of an sshmux master as it comes; 0 when it is complete.  A watch runs
 * until the master ends or a signal ends us. */
static int ct_report(const struct ct_command *k)
{
	struct cl_frame f;
	if (!ct_is_sshmux("reports"))
		return EXIT_SSH;
	size_t start = cl_begin(MUX_X_C_REPORT);
	buf_put_text(&cl.out, g.op.json && k->what ? k->what : k->name);
	buf_put_u32(&cl.out, (uint32_t)g.op.since);
	cl_end(start);
	bool ok = cl_flush() && cl_frame(&f);
	while (ok && f.type == MUX_X_S_REPORT && buf_get_u32(&f.rest) > 0)
		ok = cl_frame(&f);
	if (ok && f.type != MUX_X_S_REPORT)
		cl_refused("report", &f);
	return ok && f.type == MUX_X_S_REPORT ? 0 : EXIT_SSH;
}

/* drain, hold, …: sent together with the command's words. */
static int ct_control(const struct ct_command *k)
{
	struct cl_frame f;
	if (!ct_is_sshmux(k->name))
		return EXIT_SSH;
	size_t start = cl_begin(MUX_X_C_CONTROL);
	buf_put_text(&cl.out, k->name);
	for (int i = 0; i < 2; i++)
		buf_put_text(&cl.out, i < g.op.n_command ? g.op.command[i] : "");
	return cl_ask(start, k->name, MUX_S_OK, &f) ? 0 : EXIT_SSH;
}

/* One direction of a copy, with the bytes that are read but not written yet. */
struct ct_way {
	int from, to;
	uint8_t *at;
	size_t pos, len;
};
#define CT_WAY (REQUEST_POOL / 2)	/* cl.out does not need g.req.memory any more */
#define CT_CHUNK 4096			/* what a pipe takes without blocking after POLLOUT */

/* What this direction waits for: input, or room in its output. */
static struct pollfd ct_way_poll(const struct ct_way *w)
{
	return w->pos < w->len ? (struct pollfd){ .fd = w->to, .events = POLLOUT }
			       : (struct pollfd){ .fd = w->from, .events = POLLIN };
}

/* One step of a direction that poll() reports ready; false at its end.  Both ends stay
 * blocking: other processes share them. */
static bool ct_way_step(struct ct_way *w)
{
	ssize_t n;
	if (w->pos == w->len) {
		n = read(w->from, w->at, CT_WAY);
		w->pos = 0;
		w->len = n > 0 ? (size_t)n : 0;
		return n > 0 || (n < 0 && (errno == EINTR || errno == EAGAIN));
	}
	size_t left = w->len - w->pos;
	n = send(w->to, w->at + w->pos, left, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && errno == ENOTSOCK)
		n = write(w->to, w->at + w->pos, left < CT_CHUNK ? left : CT_CHUNK);
	if (n > 0)
		w->pos += (size_t)n;
	return n > 0 || errno == EINTR || errno == EAGAIN;
}

/* `-O proxy`: after the answer, copies stdin to the socket and the socket to stdout until
 * either one ends. */
static int ct_proxy(UNUSED const struct ct_command *k)
{
	struct cl_frame f;
	cl_end(cl_begin(MUX_C_PROXY));
	if (!cl_answer("proxy request", &f))
		return EXIT_SSH;
	if (f.type != MUX_S_PROXY) {
		struct str why = buf_get_str(&f.rest);
		cl_say("sshmux: master returned error: %.*s", (int)why.len, (const char *)why.p);
		return EXIT_SSH;
	}
	struct ct_way way[2] = {
		{ .from = STDIN_FILENO, .to = cl.fd, .at = g.req.memory },
		{ .from = cl.fd, .to = STDOUT_FILENO, .at = g.req.memory + CT_WAY },
	};
	signal(SIGPIPE, SIG_IGN);
	for (;;) {
		struct pollfd p[2] = { ct_way_poll(&way[0]), ct_way_poll(&way[1]) };
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return EXIT_SSH;
		for (int i = 0; i < 2; i++)
			if (p[i].revents && !ct_way_step(&way[i]))
				return 0;
	}
}

static const struct ct_command ct_commands[] = {
	{ "check", ct_check, 0, NULL },
	{ "exit", ct_exit, 0, NULL },
	{ "stop", ct_stop, 0, NULL },
	{ "forward", ct_open_forwards, 0, NULL },
	{ "cancel", ct_cancel_forwards, 0, NULL },
	{ "conninfo", ct_info, 0, "connection" },
	{ "channels", ct_info, 0, "channels" },
	{ "proxy", ct_proxy, 0, NULL },
	{ "status", ct_report, 0, "status-json" },
	{ "metrics", ct_report, 0, NULL },
	{ "log", ct_report, 0, "log-json" },
	{ "watch", ct_report, 0, NULL },
	{ "drain", ct_control, 0, NULL },
	{ "hold", ct_control, 0, NULL },
	{ "resume", ct_control, 0, NULL },
	{ "reconnect", ct_control, 0, NULL },
	{ "loglevel", ct_control, 1, NULL },
	{ "signal", ct_control, 2, NULL },
	{ "kill", ct_control, 1, NULL },
};

static const struct ct_command *ct_find_command(const char *name)
{
	for (size_t i = 0; i < LENGTH(ct_commands); i++)
		if (strcmp(ct_commands[i].name, name) == 0)
			return &ct_commands[i];
	return NULL;
}

/* `-O name`, with ssh's messages and exit status. */
static int ct_command(const char *name)
{
	cl_set_timeout();
	const struct ct_command *k = ct_find_command(name);
	int status = cl_connect() ? k->run(k) : EXIT_SSH;
	return cl_signal == SIGALRM ? CL_TIMED_OUT : status;
}

/* ===== cs_ ====================================================================
 * Our session, or -W, over a master's connection: passes our stdio, waits for the end, and
 * takes care of the terminal meanwhile.
 * Calls rn_, buf_, fd_, us_, fw_, mc_, se_, cl_, ct_. */

static bool cs_has_display(void)
{
	return g.op.forward_x11 && getenv("DISPLAY");
}

/* What only an sshmux master understands: -v and --wait, unless it is our child; --bulk and
 * --interactive.  Also reads HELLO before DISPLAY may be sent: cs_put_session() needs
 * cl.sshmux. */
static bool cs_put_wishes(void)
{
	bool wait = !cl.split && (g.op.wait >= 0 || g.log.level >= TP_VERBOSE);
	if (!wait && !g.op.weight && !cs_has_display())
		return true;
	if (!cl_hello())
		return false;
	if (cl.sshmux && wait) {
		size_t start = buf_frame(&cl.out, MUX_X_C_WAIT, g.op.wait < 0 ? MX_KEEP_WAIT :
			(uint32_t)g.op.wait);
		buf_put_u32(&cl.out, g.log.level >= TP_VERBOSE);
		buf_end(&cl.out, start);
	}
	if (cl.sshmux && g.op.weight)
		buf_end(&cl.out, buf_frame(&cl.out, MUX_X_C_WEIGHT, (uint32_t)g.op.weight));
	return true;
}

static void cs_cooked(void)
{
	if (cl.raw)
		tcsetattr(STDIN_FILENO, TCSADRAIN, &cl.saved);
	cl.raw = false;
}

/* The modes that ssh sets: each byte at once, unchanged. */
static void cs_raw(void)
{
	struct termios t;
	if (tcgetattr(STDIN_FILENO, &t) != 0)
		return;
	cl.saved = t;
	os_terminal_raw(&t);
	cl.raw = tcsetattr(STDIN_FILENO, TCSADRAIN, &t) == 0;
}

/* ~^Z: we stop as any job does; the master leaves the terminal alone until we say that we
 * are back. */
static void cs_suspend(void)
{
	bool raw = cl.raw;
	cs_cooked();
	kill(getpid(), SIGTSTP);
	if (raw)
		cs_raw();
	cl_resized = 1;
	cl_pass_resize();
	cl_end(cl_begin(MUX_X_C_RESUME));
	cl_flush();
}

/* -t, -T and RequestTTY; without them only a shell gets a terminal. */
static bool cs_wants_tty(void)
{
	bool here = isatty(STDIN_FILENO), shell = g.op.n_command == 0 && g.op.session_type == 0;
	if (g.op.request_tty == CL_TTY_FORCE)
		return true;
	if (g.op.request_tty == CL_TTY_NO || (g.op.request_tty == CL_TTY_AUTO && !shell))
		return false;
	if (!here && g.log.level >= TP_INFO)
		cl_say("Pseudo-terminal will not be allocated because stdin is not a terminal.");
	return here;
}

/* The words of the command, joined by blanks as ssh joins them. */
static void cs_put_words(struct buf *b)
{
	size_t length = b->pos;
	buf_put_u32(b, 0);
	for (int i = 0; i < g.op.n_command; i++) {
		if (i > 0)
			buf_put_u8(b, ' ');
		buf_put_bytes(b, g.op.command[i], strlen(g.op.command[i]));
	}
	buf_end(b, length);
}

/* The whole session request; false if it does not fit. */
static bool cs_put_session(bool tty)
{
	extern char **environ;
	struct buf *b = &cl.out;
	const char *term = getenv("TERM");
	size_t start = cl_begin(MUX_C_NEW_SESSION);
	buf_put_text(b, "");		/* reserved */
	buf_put_u32(b, tty);
	buf_put_u32(b, (uint32_t)g.op.forward_x11);
	buf_put_u32(b, g.op.forward_agent && strcasecmp(g.op.forward_agent, "no") != 0);
	buf_put_u32(b, g.op.session_type == 2);
	buf_put_u32(b, (uint32_t)g.op.escape);
	buf_put_text(b, term ? term : "");
	cs_put_words(b);
	for (size_t i = 0; i < g.op.set_env.n; i++)
		buf_put_text(b, g.op.set_env.at[i]);
	bool display = cs_has_display() && cl.sshmux;	/* for the master, not for the server */
	for (char **e = environ; *e; e++)
		if (se_env_allowed(str_of(*e)) || (display && strncmp(*e, "DISPLAY=", 8) == 0))
			buf_put_text(b, *e);
	return cl_end(start);
}

/* In a child: copies until the input ends or nobody reads the output. */
static void cs_copy(int from, int to)
{
	sigset_t none;
	ssize_t n = -1, k = 1;
	signal(SIGPIPE, SIG_DFL);
	sigfillset(&none);
	sigdelset(&none, SIGPIPE);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (dup2(from, STDIN_FILENO) < 0 || dup2(to, STDOUT_FILENO) < 0)
		_exit(1);
	close(STDERR_FILENO);
	fd_close_others(0, 0);
	while (k > 0 && (n = read(STDIN_FILENO, g.scratch, sizeof g.scratch)) > 0)
		for (ssize_t at = 0; at < n && k > 0; at += k)
			k = write(STDOUT_FILENO, g.scratch + at, (size_t)(n - at));
	_exit(n == 0 ? 0 : 1);
}

/* The descriptor to pass for stdin, stdout or stderr: itself, or a pipe to a child that
 * reads or writes the file for us.  A network file system may be carried by our own
 * connection, so the master must not wait for a file there. */
static int cs_stand_in(int fd)
{
	int p[2], ours = fd == STDIN_FILENO;	/* the end that the child keeps */
	if (!os_is_networked(fd) || pipe2(p, O_CLOEXEC) != 0)
		return fd;
	cl.copier[fd] = fork();
	if (cl.copier[fd] == 0)
		cs_copy(ours ? fd : p[0], ours ? p[1] : fd);
	close(p[ours]);
	if (cl.copier[fd] > 0)
		return p[!ours];
	close(p[!ours]);
	return fd;
}

/* The session is over: stops copying input and lets the output copies finish. */
static void cs_end_copies(void)
{
	if (cl.copier[STDIN_FILENO] > 0)
		kill(cl.copier[STDIN_FILENO], SIGKILL);
	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		if (cl.copier[fd] > 0)
			waitpid(cl.copier[fd], NULL, 0);
	memset(cl.copier, 0, sizeof cl.copier);
}

/* Sends the request and then n descriptors.  *sid becomes the session's id. */
static bool cs_open(const char *what, int n, uint32_t *sid)
{
	struct cl_frame f;
	bool sent = cl_flush();
	for (int fd = 0; sent && fd < n; fd++) {
		int passed = cs_stand_in(fd);
		sent = fd_send_with(cl.fd, passed, "", 1, 0) == 1;
		if (passed != fd)
			close(passed);
	}
	cl.may_run = sent;
	if (!cl_answer(what, &f)) {
		cl.may_run &= cl.greeted;	/* a master greets before it reads */
		return false;
	}
	if (f.type != MUX_S_SESSION_OPENED) {
		cl_refused(what, &f);
		return false;
	}
	*sid = buf_get_u32(&f.rest);
	cl.open = true;
	return !f.rest.bad;
}

/* Waits for EOF, the end of the session; its exit status may come before that. */
static int cs_wait(uint32_t sid)
{
	struct cl_frame f;
	int status = EXIT_SSH;
	bool have = false;
	while (cl_frame(&f)) {
		bool mine = f.word == sid;
		if (mine && f.type == MUX_S_TTY_ALLOC_FAIL)
			cs_cooked();
		else if (mine && f.type == MUX_X_S_SUSPEND && cl.sshmux)
			cs_suspend();
		else if (mine && f.type == MUX_S_EXIT_MESSAGE && !have) {
			status = (int)(buf_get_u32(&f.rest) & 0xff);
			have = true;
		} else {
			cs_cooked();
			cl_say("sshmux: unexpected message 0x%08x from master", (unsigned)f.type);
			return EXIT_SSH;
		}
	}
	cl.lost = !have;
	return cl_signal == SIGALRM ? CL_TIMED_OUT : cl_signal ? EXIT_SSH : status;
}

/* -f: the session is open; our caller goes on. */
static void cs_background(void)
{
	unsigned left = alarm(0);	/* fork() does not pass it on */
	pid_t pid = fork();
	if (pid > 0)
		_exit(0);
	if (pid == 0)
		setsid();
	alarm(left);
	fd_close_others(cl.fd, g.log.fd);
}

/* Runs the command through the master; returns its exit status, or 255.  -N changes
 * nothing here: as in ssh, a client without a command gets a shell (SES-shell). */
static int cs_session(void)
{
	uint32_t sid;
	bool tty = cs_wants_tty();
	if (tty && !cl_alive())
		return EXIT_SSH;
	if (!cs_put_session(tty)) {
		cl_say("sshmux: command and environment are longer than %d bytes", REQUEST_POOL);
		return EXIT_SSH;
	}
	if (!cs_open("session request", 3, &sid))
		return EXIT_SSH;
	if (g.op.background)
		cs_background();
	if (tty)
		cs_raw();
	int status = cs_wait(sid);
	cs_cooked();
	if (tty && g.log.level >= TP_INFO)
		cl_say("%s to %s closed.", cl.split && !us_persists() ? "Connection" :
			"Shared connection", g.op.host_name);
	return status;
}

/* -W's host:port, [host]:port or path. */
static bool cs_parse_stdio(const char *text, struct forward *to)
{
	char forward[FORWARD_HOST + 32];
	return (size_t)snprintf(forward, sizeof forward, "1:%s", text) < sizeof forward &&
		fw_parse(forward, FW_LOCAL, to);
}

/* -W: connects stdin and stdout to a host and port.  The master's EOF ends it; the exit
 * status is then 0 whatever the cause, as in ssh (STDIO-exit). */
static int cs_stdio(void)
{
	struct forward to;
	struct cl_frame f;
	uint32_t sid;
	cs_parse_stdio(g.op.stdio_forward, &to);
	size_t start = cl_begin(MUX_C_NEW_STDIO_FWD);
	buf_put_text(&cl.out, "");
	buf_put_text(&cl.out, to.connect.host);
	buf_put_u32(&cl.out, to.connect.port);
	cl_end(start);
	if (!cs_open(cl_stdio_what, 2, &sid))
		return EXIT_SSH;
	if (!cl_frame(&f))
		return 0;
	cl_say("sshmux: master returned unexpected message %u", (unsigned)f.type);
	return EXIT_SSH;
}

/* One try at the session or -W. */
static int cs_once(void)
{
	if (!cl_connect() || (cl_early && !cl_hello()) || !cs_put_wishes() ||
		!ct_forwards(MUX_C_OPEN_FWD, false))
		return cl.late ? EX_TEMPFAIL : EXIT_SSH;
	int status = g.op.stdio_forward ? cs_stdio() : cs_session();
	cs_end_copies();
	if (!cl.open && (cl.late || cl_signal == SIGALRM))
		return EX_TEMPFAIL;
	return status;
}

/* --retry: only for a command that certainly did not start, or that may run twice. */
static bool cs_may_retry(int status)
{
	if (status == 0 || cl_signal || cl.foreign)
		return false;
	return !cl.may_run || (g.op.idempotent && (cl.lost || !cl.open));
}

/* Runs the session when the master is our child.  It has logged in and opens the forwards
 * itself. */
static int cs_split(void)
{
	static const int numbers[] = { SIGCHLD, SIGUSR1, SIGPIPE, SIGXFSZ, SIGTTIN, SIGTTOU };
	for (size_t i = 0; i < LENGTH(numbers); i++)
		signal(numbers[i], SIG_DFL);
	cl = (struct cl_state){ .fd = g.lp.split_fd, .split = true,
		.out = buf_over(g.req.memory, sizeof g.req.memory) };
	mc_put_hello(&cl.out, false);
	cl_signal = 0;
	cl_set_timeout();
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	int status = !cs_put_wishes() ? EXIT_SSH : g.op.stdio_forward ? cs_stdio() : cs_session();
	fd_close(&cl.fd);
	if (g.op.background || (us_persists() && g.us.bound))
		return status;
	if (cl_signal)
		kill(g.lp.split_master, SIGTERM);
	while (waitpid(g.lp.split_master, NULL, 0) < 0 && errno == EINTR)
		if (cl_signal)
			kill(g.lp.split_master, SIGTERM);
	return status;
}

static int cs_main(void)
{
	cl_set_timeout();
	int64_t until = rn_clock() + g.op.wait * 1000;
	int status = cs_once();
	while (cl.greeted && cl.late && !cl_signal && rn_clock() < until) {	/* it drained */
		poll(NULL, 0, CL_CONNECT_MS);
		status = cs_once();
	}
	for (int64_t i = 0; i < g.op.retry && cs_may_retry(status) &&
		!(g.op.master && cl_may_fall_back()); i++) {
		poll(NULL, 0, (int)rn_backoff((uint32_t)i, 1, CL_RETRY_MAX));
		if (!cl_signal)
			status = cs_once();
	}
	return status;
}

/* ===== op_ ====================================================================
 * Options: a table of ssh_config's keywords, and their values.  As in ssh, the first value
 * of an option wins, so the command line is read before the files.  Texts stay in op_store
 * (OPTION_TEXT bytes) until the process ends; op_die() reports what is wrong.
 * Calls log_, buf_, ac_, fw_. */

static struct {
	const char *file;		/* being read, NULL for the command line */
	unsigned line;
} op_where;

static PRINTF(1, 2) _Noreturn void op_die(const char *format, ...)
{
	char text[280];
	FORMAT(text, format);
	if (op_where.file)
		log_at(TP_ERROR, "%.200s line %u: %s", op_where.file, op_where.line, text);
	else
		log_line(TP_ERROR, text);
	exit(EXIT_SSH);
}

enum op_kind {
	OP_NUMBER, OP_MASK, OP_PORT, OP_TIME, OP_CHOICE, OP_PERSIST, OP_ESCAPE,	/* to an int64_t */
	OP_TEXT, OP_REST, OP_APPEND, OP_WORDS, OP_ADD_WORDS, OP_VARIABLES, OP_REKEY, OP_FORWARD,
	OP_QOS, OP_RATE, OP_ALGORITHMS, OP_ALLOW, OP_OPENS
};

#define RATE_LEAST 8000			/* RateLimit, bits a second */
#define RATE_MOST 1000000000000
#define ALGORITHMS_TEXT 1024		/* a list of algorithms written out */

/* Whom an option is for. */
enum op_role { OP_MASTER, OP_CLIENT, OP_BOTH };

/* If a value has several names, -G prints the first. */
static const struct op_choice op_yes_no[] = { { "no", 0 }, { "yes", 1 }, { "false", 0 },
	{ "true", 1 }, { NULL, 0 } };
static const struct op_choice op_pubkey[] = {	/* its kinds are all the same here */
	{ "no", 0 }, { "yes", 1 }, { "false", 0 }, { "true", 1 }, { "unbound", 1 },
	{ "host-bound", 1 }, { NULL, 0 }
};
static const struct op_choice op_trusted[] = { { "no", 1 }, { "yes", 2 }, { "false", 1 },
	{ "true", 2 }, { NULL, 0 } };
static const struct op_choice op_masters[] = {
	{ "false", OP_MASTER_NO }, { "no", OP_MASTER_NO }, { "true", OP_MASTER_YES },
	{ "yes", OP_MASTER_YES }, { "ask", OP_MASTER_ASK }, { "auto", OP_MASTER_AUTO },
	{ "autoask", OP_MASTER_AUTO_ASK }, { NULL, 0 }
};
static const struct op_choice op_strict[] = {
	{ "ask", TP_STRICT_ASK }, { "true", TP_STRICT_YES }, { "yes", TP_STRICT_YES },
	{ "accept-new", TP_STRICT_ACCEPT_NEW },
	{ "false", TP_STRICT_NO }, { "no", TP_STRICT_NO }, { "off", TP_STRICT_NO }, { NULL, 0 }
};
static const struct op_choice op_facilities[] = {
	{ "DAEMON", LOG_DAEMON }, { "USER", LOG_USER }, { "AUTH", LOG_AUTH },
	{ "AUTHPRIV", LOG_AUTHPRIV }, { "LOCAL0", LOG_LOCAL0 }, { "LOCAL1", LOG_LOCAL1 },
	{ "LOCAL2", LOG_LOCAL2 }, { "LOCAL3", LOG_LOCAL3 }, { "LOCAL4", LOG_LOCAL4 },
	{ "LOCAL5", LOG_LOCAL5 }, { "LOCAL6", LOG_LOCAL6 }, { "LOCAL7", LOG_LOCAL7 }, { NULL, 0 }
};
static const struct op_choice op_families[] = {
	{ "any", AF_UNSPEC }, { "inet", AF_INET }, { "inet6", AF_INET6 }, { NULL, 0 }
};
static const struct op_choice op_reconnect[] = {
	{ "no", LK_NO }, { "yes", LK_YES }, { "always", LK_ALWAYS }, { NULL, 0 }
};
static const struct op_choice op_dscp[] = {	/* the byte on the wire: class << 2 */
	{ "af11", 40 }, { "af12", 48 }, { "af13", 56 }, { "af21", 72 }, { "af22", 80 },
	{ "af23", 88 },
	{ "af31", 104 }, { "af32", 112 }, { "af33", 120 }, { "af41", 136 }, { "af42", 144 },
	{ "af43", 152 },
	{ "cs0", 0 }, { "cs1", 32 }, { "cs2", 64 }, { "cs3", 96 }, { "cs4", 128 }, { "cs5", 160 },
	{ "cs6", 192 },
	{ "cs7", 224 }, { "ef", 184 }, { "le", 4 }, { "lowdelay", 16 }, { "throughput", 8 },
	{ "reliability", 4 }, { "none", -1 }, { NULL, 0 }
};
static const struct op_choice op_ttys[] = {
	{ "auto", CL_TTY_AUTO }, { "false", CL_TTY_NO }, { "no", CL_TTY_NO },
	{ "true", CL_TTY_YES }, { "yes", CL_TTY_YES }, { "force", CL_TTY_FORCE }, { NULL, 0 }
};
static const struct op_choice op_session_types[] = {
	{ "default", 0 }, { "none", 1 }, { "subsystem", 2 }, { NULL, 0 }
};

/* `to` points to a const char * for texts, an int64_t for numbers and choices, a struct
 * list for lists. */
#define NUMBER(kind, field, min, max, start) kind, &g.op.field, NULL, min, max, start
#define CHOICE(field, choices, start) OP_CHOICE, &g.op.field, choices, 0, 0, start
#define TEXT(kind, field) kind, &g.op.field, NULL, 0, 0, 0
#define FORWARDS_OF(type) OP_FORWARD, NULL, NULL, type, 0, 0
#define ALGORITHMS(field, list) OP_ALGORITHMS, &g.op.field, NULL, list, 0, 0
static const struct op_keyword {
	const char *name;
	uint8_t role, kind;		/* enum op_role, op_kind */
	void *to;
	const struct op_choice *choices;
	int32_t min, max;		/* of a number; `min` also: which forwards or algorithms */
	int32_t start;			/* the number if no option gives one */
} op_keywords[] = {
	{ "AllowForeignMaster", OP_CLIENT, CHOICE(foreign_master, op_yes_no, 0) },
	{ "AddressFamily", OP_MASTER, CHOICE(family, op_families, 0) },
	{ "BatchMode", OP_MASTER, CHOICE(batch, op_yes_no, 0) },
	{ "BindAddress", OP_MASTER, TEXT(OP_TEXT, bind_address) },
	{ "BindInterface", OP_MASTER, TEXT(OP_TEXT, bind_interface) },
	{ "Ciphers", OP_MASTER, ALGORITHMS(tp.ciphers, TP_CIPHERS) },
	{ "ClearAllForwardings", OP_BOTH, CHOICE(clear_forwards, op_yes_no, 0) },
	{ "Confine", OP_MASTER, CHOICE(confine, op_yes_no, 1) },
	{ "ConnectionAttempts", OP_MASTER, NUMBER(OP_NUMBER, attempts, 1, INT32_MAX, 1) },
	{ "ConnectTimeout", OP_MASTER, NUMBER(OP_TIME, connect_timeout, 0, INT32_MAX, -1) },
	{ "ControlAllow", OP_MASTER, TEXT(OP_ALLOW, allow) },
	{ "ControlGroup", OP_MASTER, TEXT(OP_TEXT, control_group) },
	{ "ControlMaster", OP_BOTH, CHOICE(master, op_masters, 0) },
	{ "ControlPath", OP_BOTH, TEXT(OP_TEXT, control_path) },
	{ "ControlPersist", OP_MASTER, OP_PERSIST, &g.op.persist, op_yes_no, 0, INT32_MAX, -1 },
	{ "DynamicForward", OP_BOTH, FORWARDS_OF(FW_DYNAMIC) },
	{ "EscapeChar", OP_CLIENT, OP_ESCAPE, &g.op.escape, NULL, 0, 0, '~' },
	{ "EventCommand", OP_MASTER, TEXT(OP_TEXT, event_command) },
	{ "EventDelay", OP_MASTER, NUMBER(OP_TIME, event_delay, 0, 86400, 10) },
	{ "ExitOnForwardFailure", OP_MASTER, CHOICE(exit_on_forward_failure, op_yes_no, 0) },
	{ "Fallback", OP_CLIENT, CHOICE(fallback, op_yes_no, 1) },
	{ "ForkAfterAuthentication", OP_BOTH, CHOICE(background, op_yes_no, 0) },
	{ "ForwardAgent", OP_BOTH, TEXT(OP_TEXT, forward_agent) },
	{ "ForwardX11", OP_BOTH, CHOICE(forward_x11, op_yes_no, 0) },
	{ "ForwardX11Trusted", OP_BOTH, CHOICE(x11_trusted, op_trusted, 2) },
	{ "GatewayPorts", OP_MASTER, CHOICE(gateway_ports, op_yes_no, 0) },
	{ "GlobalKnownHostsFile", OP_MASTER, TEXT(OP_WORDS, global_hosts) },
	{ "HostKeyAlias", OP_MASTER, TEXT(OP_TEXT, host_key_alias) },
	{ "HostKeyAlgorithms", OP_MASTER, ALGORITHMS(tp.host_key_algorithms, TP_HOST_KEYS) },
	{ "HostKeyFingerprint", OP_MASTER, TEXT(OP_APPEND, pin) },
	{ "HostName", OP_BOTH, TEXT(OP_TEXT, host_name) },
	{ "IdentitiesOnly", OP_MASTER, CHOICE(identities_only, op_yes_no, 0) },
	{ "IdentityAgent", OP_MASTER, TEXT(OP_TEXT, identity_agent) },
	{ "IdentityFile", OP_MASTER, TEXT(OP_APPEND, identity) },
	{ "IgnoreUnknown", OP_BOTH, TEXT(OP_TEXT, ignore_unknown) },
	{ "IPQoS", OP_MASTER, OP_QOS, g.op.dscp, op_dscp, 0, 0, 0 },
	{ "KbdInteractiveAuthentication", OP_MASTER, CHOICE(keyboard_auth, op_yes_no, 1) },
	{ "KexAlgorithms", OP_MASTER, ALGORITHMS(tp.kex, TP_KEX) },
	{ "LocalCommand", OP_MASTER, TEXT(OP_REST, local_command) },
	{ "LocalForward", OP_BOTH, FORWARDS_OF(FW_LOCAL) },
	{ "LogLevel", OP_BOTH, CHOICE(level, log_levels, 3) },
	{ "MACs", OP_MASTER, ALGORITHMS(tp.macs, TP_MACS) },
	{ "MaxPerUser", OP_MASTER, NUMBER(OP_NUMBER, max_per_user, 0, INT32_MAX, 0) },
	{ "NumberOfPasswordPrompts", OP_MASTER, NUMBER(OP_NUMBER, prompts, 1, INT32_MAX, 3) },
	{ "PasswordAuthentication", OP_MASTER, CHOICE(password_auth, op_yes_no, 1) },
	{ "PermitLocalCommand", OP_MASTER, CHOICE(permit_local, op_yes_no, 0) },
	{ "PermitRemoteOpen", OP_MASTER, TEXT(OP_OPENS, permit_open) },
	{ "Port", OP_MASTER, NUMBER(OP_PORT, port, 1, 65535, 22) },
	{ "PreferredAuthentications", OP_MASTER, TEXT(OP_TEXT, preferred_auth) },
	{ "ProxyCommand", OP_MASTER, TEXT(OP_REST, proxy_command) },
	{ "ProxyJump", OP_MASTER, TEXT(OP_TEXT, proxy_jump) },
	{ "PubkeyAcceptedAlgorithms", OP_MASTER, ALGORITHMS(tp.user_key_algorithms, TP_USER_KEYS) },
	{ "PubkeyAuthentication", OP_MASTER, CHOICE(pubkey_auth, op_pubkey, 1) },
	{ "RateLimit", OP_MASTER, OP_RATE, g.op.rate, NULL, 0, 0, 0 },
	{ "Reconnect", OP_MASTER, CHOICE(reconnect, op_reconnect, -1) },
	{ "ReconnectMax", OP_MASTER, NUMBER(OP_TIME, reconnect_max, 1, 86400, 300) },
	{ "ReconnectMin", OP_MASTER, NUMBER(OP_TIME, reconnect_min, 1, 3600, 1) },
	{ "RefuseConnection", OP_BOTH, TEXT(OP_TEXT, refuse) },
	{ "RekeyLimit", OP_MASTER, OP_REKEY, NULL, NULL, 0, 0, 0 },
	{ "RemoteCommand", OP_CLIENT, TEXT(OP_REST, remote_command) },
	{ "RemoteForward", OP_BOTH, FORWARDS_OF(FW_REMOTE) },
	{ "RequestTTY", OP_CLIENT, CHOICE(request_tty, op_ttys, 0) },
	{ "RequiredRSASize", OP_MASTER, NUMBER(OP_NUMBER, rsa_bits, 0, INT32_MAX, 1024) },
	{ "RevokedHostKeys", OP_MASTER, TEXT(OP_TEXT, revoked_keys) },
	{ "SendEnv", OP_BOTH, TEXT(OP_ADD_WORDS, send_env) },
	{ "ServerAliveCountMax", OP_MASTER, NUMBER(OP_NUMBER, alive_count, 0, INT32_MAX, 3) },
	{ "ServerAliveInterval", OP_MASTER, NUMBER(OP_TIME, alive_interval, 0, INT32_MAX, 0) },
	{ "SessionType", OP_BOTH, CHOICE(session_type, op_session_types, 0) },
	{ "SessionWait", OP_MASTER,
		NUMBER(OP_TIME, session_wait, 0, 86400, SESSION_WAIT_MS / 1000) },
	{ "SetEnv", OP_BOTH, TEXT(OP_VARIABLES, set_env) },
	{ "StdinNull", OP_CLIENT, CHOICE(stdin_null, op_yes_no, 0) },
	{ "StreamLocalBindMask", OP_MASTER, NUMBER(OP_MASK, bind_mask, 0, 0777, 0177) },
	{ "StreamLocalBindUnlink", OP_MASTER, CHOICE(bind_unlink, op_yes_no, 0) },
	{ "StrictHostKeyChecking", OP_MASTER, CHOICE(strict, op_strict, 0) },
	{ "SyslogFacility", OP_BOTH, OP_CHOICE, &g.log.facility, op_facilities, 0, 0, LOG_USER },
	{ "Tag", OP_BOTH, TEXT(OP_TEXT, tag) },
	{ "TCPKeepAlive", OP_MASTER, CHOICE(tcp_keepalive, op_yes_no, 1) },
	{ "User", OP_MASTER, TEXT(OP_TEXT, user) },
	{ "UserKnownHostsFile", OP_MASTER, TEXT(OP_WORDS, known_hosts) },
	{ "WatchNetwork", OP_MASTER, CHOICE(watch_network, op_yes_no, 1) },
	{ "XAuthLocation", OP_MASTER, TEXT(OP_TEXT, xauth) },
};
#define OP_KEYWORDS LENGTH(op_keywords)

/* ssh_config's other keywords.  Ignoring those in op_idle is safe: we lack what they would
 * add.  Ignoring those in op_unsafe is not: they would protect against an attacker. */
static const char op_idle[] =
	"AddKeysToAgent AFSTokenPassing CanonicalDomains CanonicalizeFallbackLocal "
	"CanonicalizeHostname CanonicalizeMaxDots CanonicalizePermittedCNAMEs "
	"CASignatureAlgorithms CertificateFile ChannelTimeout CheckHostIP Cipher Compression "
	"CompressionLevel EnableEscapeCommandline EnableSSHKeysign FallBackToRsh "
	"FingerprintHash ForwardX11Timeout GlobalKnownHostsFile2 GSSAPIAuthentication "
	"GSSAPIClientIdentity GSSAPIDelegateCredentials GSSAPIKexAlgorithms "
	"GSSAPIKeyExchange GSSAPIRenewalForcesRekey GSSAPIServerIdentity GSSAPITrustDns "
	"HashKnownHosts HostbasedAcceptedAlgorithms HostbasedAuthentication "
	"HostbasedKeyTypes KbdInteractiveDevices KerberosAuthentication KerberosTGTPassing "
	"KnownHostsCommand LogVerbose NoHostAuthenticationForLocalhost "
	"ObscureKeystrokeTiming PKCS11Provider Protocol RhostsAuthentication "
	"RhostsRSAAuthentication RSAAuthentication SecurityKeyProvider SmartcardDevice "
	"Tunnel TunnelDevice UpdateHostKeys UsePrivilegedPort UserKnownHostsFile2 UseRoaming "
	"UseRsh VerifyHostKeyDNS VersionAddendum VisualHostKey WarnWeakCrypto";
static const char *const op_aliases[][2] = {	/* older names of our keywords */
	{ "ChallengeResponseAuthentication", "KbdInteractiveAuthentication" },
	{ "DSAAuthentication", "PubkeyAuthentication" },
	{ "IdentityFile2", "IdentityFile" },
	{ "KeepAlive", "TCPKeepAlive" },
	{ "PubkeyAcceptedKeyTypes", "PubkeyAcceptedAlgorithms" },
	{ "SkeyAuthentication", "KbdInteractiveAuthentication" },
	{ "TISAuthentication", "KbdInteractiveAuthentication" },
};
static const char op_unsafe[] = "ProxyUseFdpass";

static bool op_set[OP_KEYWORDS];	/* which keywords have a value */
static char op_fallback_from[128];	/* the file that set Fallback, for a message */

/* --- words ------------------------------------------------------------------ */

/* Texts that stay until the process ends. */
static struct {
	char text[OPTION_TEXT];
	size_t used;
} op_store;

static void op_put(char c)
{
	if (op_store.used == sizeof op_store.text)
		op_die("options are longer than %d bytes", OPTION_TEXT);
	op_store.text[op_store.used++] = c;
}

static const char *op_keep(const char *s, size_t len)
{
	const char *to = op_store.text + op_store.used;
	for (size_t i = 0; i < len; i++)
		op_put(s[i]);
	op_put(0);
	return to;
}

/* Both texts in one. */
static const char *op_join(const char *a, const char *b)
{
	const char *to = op_store.text + op_store.used;
	while (*a)
		op_put(*a++);
	while (*b)
		op_put(*b++);
	op_put(0);
	return to;
}

static const char *op_lower(const char *s)
{
	const char *to = op_store.text + op_store.used;
	for (; *s; s++)
		op_put((char)tolower((unsigned char)*s));
	op_put(0);
	return to;
}

/* Values to read: a line of words, or one word taken as it is. */
struct op_text {
	const char *p;			/* NULL at the end */
	bool whole;
};

/* The next word, with quotes and backslashes removed as ssh does; NULL at the end of the
 * line or before a comment. */
static const char *op_word(struct op_text *t)
{
	const char *p = t->p, *word = op_store.text + op_store.used;
	char quote = 0;
	if (t->whole || !p) {
		t->p = NULL;
		return p;
	}
	p += strspn(p, " \t");
	t->p = NULL;
	if (!*p || *p == '#')
		return NULL;
	for (; *p && (quote || (*p != ' ' && *p != '\t')); p++)
		if (*p == quote)
			quote = 0;
		else if (!quote && (*p == '"' || *p == '\''))
			quote = *p;
		else {
			p += *p == '\\' && p[1] && strchr(quote ? "\"'\\" : "\"'\\ ", p[1]);
			op_put(*p);
		}
	op_put(0);
	if (quote)
		op_die("a quote is not closed");
	t->p = p;
	return word;
}

/* Characters that a name must not have: %-tokens pass names to shells, or to programs as
 * words.  The rules are those of OpenSSH 10 for names on the command line. */
#define OP_BAD_HOST "'`\"$\\;&<>|(){}, "
#define OP_BAD_USER "'`\";&<>|(){}"

static bool op_printable(const char *s)
{
	while (*s && !iscntrl((unsigned char)*s))
		s++;
	return *s == 0;
}

static bool op_safe(const char *name, const char *bad)
{
	size_t n = strlen(name);
	return n > 0 && *name != '-' && !strpbrk(name, bad) && !strstr(name, " -") &&
		name[n - 1] != '\\' && op_printable(name);
}

/* op_safe() for each of ProxyJump's hosts. */
static bool op_safe_jump(const char *jump)
{
	size_t mark = op_store.used, n;
	bool ok = true;
	for (const char *p = jump; ok; p += n + 1) {
		n = strcspn(p, ",");
		const char *hop = op_keep(p, n), *at = strrchr(hop, '@');
		hop += strncasecmp(hop, "ssh://", 6) == 0 ? 6 : 0;
		ok = op_safe(at ? at + 1 : hop, OP_BAD_HOST) &&
			(!at || op_safe(op_keep(hop, (size_t)(at - hop)), OP_BAD_USER));
		op_store.used = mark;
		if (!p[n])
			break;
	}
	return ok;
}

static const char *op_home(void)
{
	const struct passwd *p = getpwuid(getuid());
	const char *home = p ? p->pw_dir : getenv("HOME");
	return home ? home : "/";
}

/* Puts the home directory into "~/x" and "~user/x". */
static const char *op_path(const char *path)
{
	if (path[0] != '~')
		return path;
	char user[64];
	size_t n = strcspn(path, "/");
	snprintf(user, sizeof user, "%.*s", (int)n - 1, path + 1);
	const struct passwd *p = n > 1 ? getpwnam(user) : NULL;
	if (n > 1 && !p)
		op_die("there is no user %s", user);
	return op_join(p ? p->pw_dir : op_home(), path + n);
}

static bool op_is(const char *text, size_t len, const char *word)
{
	return strlen(word) == len && strncasecmp(text, word, len) == 0;
}

/* Whether a list of names, separated by `by`, has this one. */
static bool op_names(const char *list, char by, const char *name, size_t len)
{
	const char part[2] = { by, 0 };
	for (const char *p = list; *p; p += p[0] == by) {
		size_t n = strcspn(p, part);
		if (n == len && strncasecmp(p, name, n) == 0)
			return true;
		p += n;
	}
	return false;
}

/* ssh's pattern lists: separated by commas, ! excludes; `lower`: ignores case. */
static bool op_matches(const char *text, size_t len, const char *list, bool lower)
{
	char name[PATH_MAX], pattern[NI_MAXHOST];
	bool found = false;
	if (len >= sizeof name)
		return false;
	for (size_t i = 0; i <= len; i++)
		name[i] = (char)(i == len ? 0 : lower ? tolower((unsigned char)text[i]) : text[i]);
	for (const char *p = list; *p; p += *p == ',') {
		bool negated = *p == '!';
		size_t n = 0;
		for (p += negated; *p && *p != ','; p++)
			if (n < sizeof pattern - 1)
				pattern[n++] = (char)(lower ? tolower((unsigned char)*p) : *p);
		pattern[n] = 0;
		bool here = str_matches(str_of(name), pattern);
		if (here && negated)
			return false;
		found |= here;
	}
	return found;
}

/* --- values ----------------------------------------------------------------- */

static void op_append(const struct op_keyword *k, const char *value)
{
	struct list *l = k->to;
	for (size_t i = 0; k->kind == OP_APPEND && i < l->n; i++)
		if (strcmp(l->at[i], value) == 0)
			return;
	if (l->n == OPTION_LIST)
		op_die("more than %d values of %s", OPTION_LIST, k->name);
	l->at[l->n++] = value;
}

/* SendEnv -PATTERN: removes names given before. */
static void op_remove(struct list *l, const char *pattern)
{
	size_t n = 0;
	for (size_t i = 0; i < l->n; i++)
		if (!str_matches(str_of(l->at[i]), pattern))
			l->at[n++] = l->at[i];
	l->n = n;
}

static bool op_words(const struct op_keyword *k, const char *word, struct op_text *t)
{
	for (; word; word = op_word(t)) {
		bool is_variable = *word != '=' && strchr(word, '=');
		if (k->kind == OP_VARIABLES && !is_variable)
			return false;
		if (k->kind == OP_ADD_WORDS && *word == '-')
			op_remove(k->to, word + 1);
		else
			op_append(k, k->kind == OP_WORDS ? op_path(word) : word);
	}
	return true;
}

/* The number at *p, below 2^54 so that it cannot overflow; -1 if there are no digits. */
static int64_t op_digits(const char **p)
{
	int64_t n = isdigit((unsigned char)**p) ? 0 : -1;
	for (; isdigit((unsigned char)**p) && n < INT64_C(1) << 50; (*p)++)
		n = n * 10 + (**p - '0');
	return n;
}

/* Seconds: "90", "5m", "1h30m"; -1 if it is not a time. */
static int64_t op_time(const char *p)
{
	static const char units[] = "smhdw";
	static const int32_t seconds[] = { 1, 60, 3600, 86400, 604800 };
	int64_t sum = *p ? 0 : -1;
	while (*p && sum >= 0 && sum < INT64_C(1) << 31) {
		int64_t n = op_digits(&p);
		const char *unit = *p ? strchr(units, tolower((unsigned char)*p)) : NULL;
		if (n < 0 || n > INT32_MAX || (*p && !unit))
			return -1;
		sum += n * (unit ? seconds[unit - units] : 1);
		p += *p != 0;
	}
	return sum;
}

/* A number, perhaps with K, M or G for powers of `base`; -1 if it is none. */
static int64_t op_scaled(const char *p, int64_t base)
{
	int64_t n = op_digits(&p);
	const char *units = "KMG", *unit = *p ? strchr(units, toupper((unsigned char)*p)) : NULL;
	for (int i = 0; unit && n >= 0 && i <= unit - units; i++)
		n = n > INT64_MAX / base ? -1 : n * base;
	return p[unit != NULL] ? -1 : n;
}

/* RekeyLimit "bytes[K|M|G] [time]", either may be "default" or "none". */
static bool op_rekey(UNUSED const struct op_keyword *k, const char *value, struct op_text *t)
{
	const char *time = op_word(t);
	if (strcasecmp(value, "default") != 0 && strcasecmp(value, "none") != 0) {
		int64_t bytes = op_scaled(value, 1024);
		if (bytes < 16)
			return false;
		g.op.tp.rekey_bytes = (uint64_t)bytes;
	}
	if (time && strcasecmp(time, "none") != 0) {
		int64_t s = op_time(time);
		if (s < 0 || s > UINT32_MAX)
			return false;
		g.op.tp.rekey_seconds = (uint32_t)s;
	}
	return true;
}

/* Checks a list here, where file and line are known; the transport parses it again. */
static bool op_algorithms(const struct op_keyword *k, const char *word, UNUSED struct op_text *t)
{
	char list[ALGORITHMS_TEXT];
	if (!tp_algorithms((enum tp_algorithms)k->min, word, list, sizeof list))
		op_die("%s: %s", k->name, tp_error());
	*(const char **)k->to = word;
	return true;
}

static bool op_choose(const struct op_choice *c, const char *value, int64_t *to)
{
	for (; c->name; c++)
		if (strcasecmp(c->name, value) == 0) {
			*to = c->value;
			return true;
		}
	return false;
}

static bool op_choice(const struct op_keyword *k, const char *value, UNUSED struct op_text *t)
{
	return op_choose(k->choices, value, k->to);
}

static bool op_port(const struct op_keyword *k, const char *value, UNUSED struct op_text *t)
{
	int64_t port = fw_port(value);
	if (port > 0)
		*(int64_t *)k->to = port;
	return port > 0;
}

/* An octal number. */
static bool op_mask(const struct op_keyword *k, const char *value, UNUSED struct op_text *t)
{
	char *end;
	*(int64_t *)k->to = strtol(value, &end, 8);
	return end != value && !*end && *(int64_t *)k->to >= 0 && *(int64_t *)k->to <= k->max;
}

static bool op_number(const struct op_keyword *k, const char *value, UNUSED struct op_text *t)
{
	const char *p = value;
	bool none = k->kind == OP_TIME && k->max == INT32_MAX && strcasecmp(value, "none") == 0;
	int64_t n = none ? -1 : k->kind == OP_NUMBER ? op_digits(&p) : op_time(value);
	if ((n < k->min && !none) || n > k->max || (k->kind == OP_NUMBER && *p))
		return false;
	*(int64_t *)k->to = n;
	return true;
}

/* ControlPersist: no gives -1; yes and 0 give 0, which means for ever. */
static bool op_persist(const struct op_keyword *k, const char *value, struct op_text *t)
{
	int64_t yes;
	if (!op_choose(k->choices, value, &yes))
		return op_number(k, value, t);
	g.op.persist = yes ? 0 : -1;
	return true;
}

/* A class or a number for IPQoS; false if it is neither. */
static bool op_class(const char *word, int64_t *to)
{
	const char *p = word;
	if (op_choose(op_dscp, word, to))
		return true;
	if (word[0] == '0' && word[1] == 'x') {
		char *end;
		*to = (int64_t)strtoul(word, &end, 16);
		p = end;
	} else
		*to = op_digits(&p);
	return *p == 0 && *to >= 0 && *to <= 255;
}

/* Bits a second, with K, M or G for powers of 1000; "none" for no limit. */
static bool op_rate(const char *value, int64_t *rate)
{
	bool none = strcasecmp(value, "none") == 0;
	*rate = none ? 0 : op_scaled(value, 1000);
	return none || (*rate >= RATE_LEAST && *rate <= RATE_MOST);
}

/* RateLimit: one rate for both directions, or one to send and one to receive.  IPQoS: one
 * class for all, or one for terminals and one for the rest. */
static bool op_pair(const struct op_keyword *k, const char *first, struct op_text *t)
{
	bool (*take)(const char *, int64_t *) = k->kind == OP_QOS ? op_class : op_rate;
	const char *second = op_word(t);
	int64_t *to = k->to;
	return take(first, &to[0]) && take(second ? second : first, &to[1]);
}

/* "none", one character, or ^ and a letter. */
static bool op_escape(const struct op_keyword *k, const char *s, UNUSED struct op_text *t)
{
	size_t n = strlen(s);
	*(int64_t *)k->to = n == 1 ? (uint8_t)s[0] : n == 2 && s[0] == '^' ? s[1] & 0x1f :
		NO_ESCAPE;
	return n == 1 || (n == 2 && s[0] == '^') || strcmp(s, "none") == 0;
}

/* A forward as in ssh's option, or in ssh_config's two words. */
static bool op_forward(const struct op_keyword *k, const char *value, struct op_text *t)
{
	char text[2 * FORWARD_HOST + 32];
	const char *rest = op_word(t);
	struct forward f, *known;
	if ((size_t)snprintf(text, sizeof text, "%s%s%s", value, rest ? ":" : "", rest ? rest :
		"") >= sizeof text || !fw_parse(text, (enum fw_type)k->min, &f))
		return false;
	known = fw_find(&f);
	if (!known && !(known = fw_add(&f)))
		op_die("more than %d forwards", FORWARDS);
	known->permanent = true;
	return true;
}

/* ControlAllow: a user or group, then what they may do.  The words follow each other in
 * op_store and become the lines of one text, which ac_may() reads. */
static bool op_rule(const struct op_keyword *k, const char *who, struct op_text *t)
{
	const char *word, *pattern;
	int n = 0;
	for (; (word = op_word(t)); n++) {
		if (ac_right(word, strlen(word), &pattern) < 0 || strlen(word) >= COMMAND_PATTERN ||
			strchr(word, '\n'))
			return false;
		op_store.text[word - op_store.text - 1] = '\n';
	}
	op_append(k, who);
	return n > 0;
}

/* PermitRemoteOpen: HOST:PORT..., or "any" or "none" alone.  The words follow each other. */
static bool op_opens(const struct op_keyword *k, const char *word, struct op_text *t)
{
	char *start = op_store.text + (word - op_store.text);
	bool alone = false;
	int n = 0;
	for (; word; word = op_word(t), n++) {
		struct str host;
		uint32_t port;
		alone |= strcasecmp(word, "any") == 0 || strcasecmp(word, "none") == 0;
		if (!alone && !fw_destination(word, &host, &port))
			return false;
	}
	for (char *p = start; p < op_store.text + op_store.used - 1; p++)
		if (!*p)
			*p = ' ';
	*(const char **)k->to = start;
	return n == 1 || !alone;
}

static bool op_text(const struct op_keyword *k, const char *word, UNUSED struct op_text *t)
{
	if (k->kind == OP_APPEND)
		op_append(k, op_path(word));
	else
		*(const char **)k->to = word;
	return true;
}

/* --- values printed, for -G ------------------------------------------------- */

static void op_print_number(const struct op_keyword *k, const char *name)
{
	int64_t n = *(int64_t *)k->to;
	if (n < 0)			/* ConnectTimeout */
		printf("%s none\n", name);
	else
		printf("%s %lld\n", name, (long long)n);
}

static void op_print_mask(const struct op_keyword *k, const char *name)
{
	printf("%s 0%llo\n", name, *(unsigned long long *)k->to);
}

static const char *op_chosen(const struct op_choice *c, int64_t value)
{
	while (c->name && c->value != value)
		c++;
	return c->name ? c->name : "";
}

static void op_print_choice(const struct op_keyword *k, const char *name)
{
	printf("%s %s\n", name, op_chosen(k->choices, *(int64_t *)k->to));
}

static void op_print_persist(const struct op_keyword *k, const char *name)
{
	if (g.op.persist > 0)
		op_print_number(k, name);
	else
		printf("%s %s\n", name, g.op.persist < 0 ? "no" : "yes");
}

static void op_print_escape(UNUSED const struct op_keyword *k, const char *name)
{
	if (g.op.escape == NO_ESCAPE)
		printf("%s none\n", name);
	else
		printf("%s %s%c\n", name, g.op.escape < ' ' ? "^" : "",
			(int)(g.op.escape < ' ' ? g.op.escape + '@' : g.op.escape));
}

static void op_print_text(const struct op_keyword *k, const char *name)
{
	if (*(const char **)k->to)
		printf("%s %s\n", name, *(const char **)k->to);
}

/* Each value has a line; those of OP_WORDS share one. */
static void op_print_list(const struct op_keyword *k, const char *name)
{
	const struct list *l = k->to;
	bool one = k->kind == OP_WORDS;
	for (size_t i = 0; i < l->n; i++)
		printf("%s %s%s", one && i > 0 ? "" : name, l->at[i],
			one && i + 1 < l->n ? "" : "\n");
}

static void op_print_rekey(UNUSED const struct op_keyword *k, const char *name)
{
	printf("%s %llu %u\n", name, (unsigned long long)g.op.tp.rekey_bytes,
		(unsigned)g.op.tp.rekey_seconds);
}

static void op_print_endpoint(const struct endpoint *e, bool listens)
{
	if (e->port == FW_PATH)
		printf(" %s", e->host);
	else if (listens && e->host[0] == 0)
		printf(" %u", (unsigned)e->port);
	else
		printf(" [%s]:%u", e->host, (unsigned)e->port);
}

static void op_print_forwards(const struct op_keyword *k, const char *name)
{
	for_each_forward(f) {
		if (f->type != k->min)
			continue;
		printf("%s", name);
		op_print_endpoint(&f->listen, true);
		if (f->type != FW_DYNAMIC && strcmp(f->connect.host, "socks") != 0)
			op_print_endpoint(&f->connect, false);
		putchar('\n');
	}
}

static void op_print_qos(UNUSED const struct op_keyword *k, const char *name)
{
	printf("%s %s %s\n", name, op_chosen(op_dscp, g.op.dscp[0]),
		op_chosen(op_dscp, g.op.dscp[1]));
}

static void op_print_rates(UNUSED const struct op_keyword *k, const char *name)
{
	printf("%s", name);
	for (int way = 0; way < RL_WAYS; way++)
		if (g.op.rate[way])
			printf(" %lld", (long long)g.op.rate[way]);
		else
			printf(" none");
	puts("");
}

static void op_print_algorithms(const struct op_keyword *k, const char *name)
{
	char list[ALGORITHMS_TEXT];
	tp_algorithms((enum tp_algorithms)k->min, *(const char **)k->to, list, sizeof list);
	printf("%s %s\n", name, list);
}

/* Prints the rules as they were written, with quotes around a word that has a blank. */
static void op_print_rules(const struct op_keyword *k, const char *name)
{
	const struct list *l = k->to;
	for (size_t i = 0; i < l->n; i++) {
		printf("%s", name);
		for (const char *word = l->at[i], *end; *word; word = *end ? end + 1 : end) {
			end = word + strcspn(word, "\n");
			const char *quote = memchr(word, ' ', (size_t)(end - word)) ? "\"" : "";
			printf(" %s%.*s%s", quote, (int)(end - word), word, quote);
		}
		putchar('\n');
	}
}

/* The kinds: whether they collect all values or keep the first; how a value is read, its
 * first word given; how it is printed. */
static const struct {
	bool many;
	bool (*take)(const struct op_keyword *, const char *, struct op_text *);
	void (*print)(const struct op_keyword *, const char *);
} op_kinds[] = {
	[OP_NUMBER] = { false, op_number, op_print_number },
	[OP_MASK] = { false, op_mask, op_print_mask },
	[OP_PORT] = { false, op_port, op_print_number },
	[OP_TIME] = { false, op_number, op_print_number },
	[OP_CHOICE] = { false, op_choice, op_print_choice },
	[OP_PERSIST] = { false, op_persist, op_print_persist },
	[OP_ESCAPE] = { false, op_escape, op_print_escape },
	[OP_TEXT] = { false, op_text, op_print_text },
	[OP_REST] = { false, op_text, op_print_text },
	[OP_APPEND] = { true, op_text, op_print_list },
	[OP_WORDS] = { false, op_words, op_print_list },
	[OP_ADD_WORDS] = { true, op_words, op_print_list },
	[OP_VARIABLES] = { false, op_words, op_print_list },
	[OP_REKEY] = { false, op_rekey, op_print_rekey },
	[OP_FORWARD] = { true, op_forward, op_print_forwards },
	[OP_QOS] = { false, op_pair, op_print_qos },
	[OP_RATE] = { false, op_pair, op_print_rates },
	[OP_ALGORITHMS] = { false, op_algorithms, op_print_algorithms },
	[OP_ALLOW] = { true, op_rule, op_print_rules },
	[OP_OPENS] = { false, op_opens, op_print_text },
};

/* Tokens pass these values to shells.  A User in a file may be anything without control
 * characters, as in ssh (CVE-2025-61984): the file's owner chose it. */
static void op_check(const struct op_keyword *k)
{
	const char *value = k->kind == OP_TEXT ? *(const char **)k->to : NULL;
	bool ok = true;
	if (k->to == &g.op.user || k->to == &g.op.host_key_alias)
		ok = op_where.file ? op_printable(value) :
			op_safe(value, k->to == &g.op.user ? OP_BAD_USER : OP_BAD_HOST);
	else if (k->to == &g.op.host_name)
		ok = op_safe(value, OP_BAD_HOST);
	else if (k->to == &g.op.proxy_jump)
		ok = op_safe_jump(value);
	else if (k->to == &g.op.event_command && value[0] != '/')
		op_die("%s \"%s\" is not an absolute path", k->name, value);
	if (!ok)
		op_die("%s \"%s\" contains invalid characters", k->name, value);
}

/* What else changes with a value. */
static void op_follow(const struct op_keyword *k)
{
	op_check(k);
	if (k->to == &g.op.level)
		log_upto(log_kinds[g.op.level]);
	if (k->to == &g.op.background && g.op.background)
		g.op.stdin_null = 1;
	if (k->to == &g.op.fallback && op_where.file)
		snprintf(op_fallback_from, sizeof op_fallback_from, " (%.100s line %u)",
			op_where.file, op_where.line);
	int64_t yes;
	if (k->to == &g.op.forward_agent && op_choose(op_yes_no, g.op.forward_agent, &yes))
		g.op.forward_agent = yes ? "yes" : "no";
}

static const struct op_keyword *op_find(const char *name, size_t len)
{
	for (size_t i = 0; i < LENGTH(op_aliases); i++)
		if (op_is(name, len, op_aliases[i][0])) {
			name = op_aliases[i][1];
			len = strlen(name);
		}
	for (size_t i = 0; i < OP_KEYWORDS; i++)
		if (op_is(name, len, op_keywords[i].name))
			return &op_keywords[i];
	return NULL;
}

/* ProxyCommand and ProxyJump are two forms of one option: the first one wins. */
static bool op_is_taken(const struct op_keyword *k)
{
	if (k->to == &g.op.proxy_jump && g.op.proxy_command)
		return true;
	if (k->to == &g.op.proxy_command && g.op.proxy_jump &&
		strcasecmp(g.op.proxy_jump, "none") != 0)
		return true;
	return op_set[k - op_keywords] && !op_kinds[k->kind].many;
}

static void op_assign(const struct op_keyword *k, struct op_text t)
{
	struct op_text all = t;
	if (op_is_taken(k))
		return;
	op_set[k - op_keywords] = true;
	if (k->kind == OP_REST)
		t = (struct op_text){ op_keep(t.p, strlen(t.p)), true };
	const char *word = op_word(&t);
	if (!word || !*word || !op_kinds[k->kind].take(k, word, &t))
		op_die("bad value \"%s\" for %s", all.p, k->name);
	if (op_word(&t))
		op_die("%s: more words than it takes", k->name);
	op_follow(k);
}

/* --- keywords --------------------------------------------------------------- */

/* A keyword that we do not have.  A file written for ssh must not fail for it, unless the
 * keyword is mistyped; on the command line the user means it. */
static void op_foreign(const char *name, size_t len, const char *value)
{
	bool idle = op_names(op_idle, ' ', name, len), refused = op_names(op_unsafe, ' ', name,
		len);
	if (refused && (strcasecmp(value, "no") == 0 || strcasecmp(value, "none") == 0 ||
		strcasecmp(value, "any") == 0))
		return;
	if (g.op.ignore_unknown && op_matches(name, len, g.op.ignore_unknown, true))
		return;
	if (!op_where.file && refused)
		op_die("%.*s is not possible, and to go without it would not be safe", (int)len,
			name);
	if (!refused && !idle)
		op_die("Bad configuration option: %.*s", (int)len, name);
	if (op_where.file)
		log_at(refused ? TP_INFO : TP_VERBOSE, "%s line %u: %.*s has no effect",
			op_where.file, op_where.line, (int)len, name);
	else
		log_at(TP_VERBOSE, "option %.*s has no effect", (int)len, name);
}

static void op_keyword(const char *name, size_t len, struct op_text value)
{
	const struct op_keyword *k = op_find(name, len);
	if (k)
		op_assign(k, value);
	else
		op_foreign(name, len, value.p);
}

static void op_set_word(const char *name, const char *word)
{
	op_keyword(name, strlen(name), (struct op_text){ word, true });
}

/* The value of "Name=value" or "Name value"; *len becomes the length of the name. */
static const char *op_value(const char *text, size_t *len)
{
	*len = strcspn(text, " \t=");
	const char *value = text + *len + strspn(text + *len, " \t");
	if (*value == '=')
		value += 1 + strspn(value + 1, " \t");
	return value;
}

static void op_option(const char *text)
{
	size_t len;
	text += strspn(text, " \t");
	const char *value = op_value(text, &len);
	op_keyword(text, len, (struct op_text){ value, false });
}

/* ===== av_ ====================================================================
 * The command line: a table of letters, one of long options; help and -Q.
 * Calls log_, cl_, ct_, cs_, op_. */

static const struct av_letter {
	char letter;
	const char *argument;		/* its argument's name, NULL: takes none */
	const char *keyword;		/* the keyword it sets, NULL: see av_special() */
	const char *value;		/* the keyword's value if there is no argument */
	const char *help;
} av_letters[] = {
	{ '1', NULL, NULL, NULL, "refused: there is no protocol 1" },
	{ '2', NULL, NULL, NULL, "no effect: there is only protocol 2" },
	{ '4', NULL, "AddressFamily", "inet", "IPv4 only" },
	{ '6', NULL, "AddressFamily", "inet6", "IPv6 only" },
	{ 'A', NULL, "ForwardAgent", "yes", "sessions that ask may use the master's agent" },
	{ 'a', NULL, "ForwardAgent", "no", "they may not" },
	{ 'B', "INTERFACE", "BindInterface", NULL, "interface to connect from" },
	{ 'b', "ADDRESS", "BindAddress", NULL, "address to connect from" },
	{ 'C', NULL, "Compression", "yes", "no effect: there is no compression" },
	{ 'c', "CIPHERS", "Ciphers", NULL, "ciphers in order of preference, separated by commas" },
	{ 'D', "[BIND:]PORT", "DynamicForward", NULL, "SOCKS server on PORT" },
	{ 'E', "FILE", NULL, NULL, "messages go to FILE" },
	{ 'e', "CHARACTER", "EscapeChar", NULL, "escape character of a terminal session, or none" },
	{ 'F', "FILE", NULL, NULL, "read this configuration file alone, or none" },
	{ 'f', NULL, "ForkAfterAuthentication", "yes", "go to the background when logged in" },
	{ 'G', NULL, NULL, NULL, "print the options that result, and end" },
	{ 'g', NULL, "GatewayPorts", "yes", "forwards listen on all addresses" },
	{ 'h', NULL, NULL, NULL, "this help" },
	{ 'I', "PKCS11", NULL, NULL, "refused: keys on smart cards" },
	{ 'i', "KEY", "IdentityFile", NULL,
	"private key, OpenSSH or dropbear format; may be repeated" },
	{ 'J', "[USER@]HOST", NULL, NULL, "connect through these hosts, separated by commas" },
	{ 'K', NULL, "GSSAPIAuthentication", "yes", "no effect: there is no GSSAPI" },
	{ 'k', NULL, "GSSAPIDelegateCredentials", "no", "no effect, likewise" },
	{ 'L', "LISTEN:TO", "LocalForward", NULL,
	"forward [bind:]port or path to host:port or path" },
	{ 'l', "USER", "User", NULL, "user to log in as" },
	{ 'M', NULL, NULL, NULL, "be the master; -MM: ask the user about each request" },
	{ 'm', "MACS", "MACs", NULL, "message authentication codes in order of preference" },
	{ 'N', NULL, "SessionType", "none", "run no command" },
	{ 'n', NULL, "StdinNull", "yes", "read nothing: stdin is /dev/null" },
	{ 'O', "COMMAND", NULL, NULL,
	"tell the master: check, forward, cancel, exit, stop, conninfo, channels, proxy, "
	  "status, metrics, log, watch, drain, hold, resume, reconnect, loglevel, signal, "
	  "kill; list" },
	{ 'o', "NAME=VALUE", NULL, NULL, "option by its ssh_config name" },
	{ 'P', "TAG", "Tag", NULL, "a name for Match tagged" },
	{ 'p', "PORT", "Port", NULL, "port of the server" },
	{ 'Q', "WHAT", NULL, NULL, "print what this build has: cipher, mac, kex, key, sig, …" },
	{ 'q', NULL, "LogLevel", "QUIET", "only errors" },
	{ 'R', "LISTEN:TO", "RemoteForward", NULL, "the same from the server to here" },
	{ 'S', "PATH", "ControlPath", NULL, "control socket, or none" },
	{ 's', NULL, "SessionType", "subsystem", "the command names a subsystem" },
	{ 'T', NULL, NULL, NULL, "no terminal at the server" },
	{ 't', NULL, NULL, NULL, "a terminal at the server; -tt even if stdin is none" },
	{ 'V', NULL, NULL, NULL, "version" },
	{ 'v', NULL, NULL, NULL, "explain; -vv more" },
	{ 'W', "HOST:PORT", NULL, NULL,
	"connect stdin and stdout to HOST:PORT or a path at the server" },
	{ 'w', "TUN", NULL, NULL, "refused: tunnel devices" },
	{ 'X', NULL, "ForwardX11", "yes",
	"sessions that ask may use the master's display, like -Y" },
	{ 'x', NULL, "ForwardX11", "no", "they may not" },
	{ 'Y', NULL, "ForwardX11", "yes", "trusted X11 forwarding, the only kind" },
	{ 'y', NULL, NULL, NULL, "messages go to the system's log" },
};

/* Options of our client that ssh does not have. */
static const struct av_long {
	const char *name, *argument, *help;
	int64_t *to;
	int64_t value;			/* without an argument; 0 means 1 */
} av_longs[] = {
	{ "wait", "SECONDS", "wait so long for a master and for a session (exit status 75)",
	&g.op.wait, 0 },
	{ "timeout", "SECONDS", "end the command after so long (exit status 124)", &g.op.timeout,
	0 },
	{ "retry", "COUNT", "try again if the command certainly did not start", &g.op.retry, 0 },
	{ "idempotent", NULL, "with --retry: also if it may have started", &g.op.idempotent, 0 },
	{ "probe", NULL, "with -O check: ask the server too", &g.op.probe, 0 },
	{ "json", NULL, "with -O status, log, list: JSON", &g.op.json, 0 },
	{ "notify-fd", "FD", "write a newline to FD when the control socket is there",
	&g.op.notify_fd, 0 },
	{ "since", "COUNT", "with -O watch: so many of the last events come first", &g.op.since,
	0 },
	{ "bulk", NULL, "what the session moves is bulk: it gives way, RateLimit holds for it",
	&g.op.weight, SD_IS_BULK },
	{ "interactive", NULL, "somebody waits for what it moves: it goes first, without a limit",
	&g.op.weight, SD_INTERACTIVE },
};

static void av_usage(void)
{
	static const char *const roles[] = { "The connection to the server", "Sessions", "Both" };
	printf("usage: sshmux [options] [user@]host [command ...]       as ssh does\n"
	       "       sshmux -M -S PATH -N [options] [user@]host      log in and serve PATH\n"
	       "       sshmux -S PATH [options] host [command ...]     run a command through it\n"
	       "       sshmux -S PATH -O COMMAND [host]\n\n");
	for (size_t i = 0; i < LENGTH(av_letters); i++)
		printf("  -%c %-12s %s\n", av_letters[i].letter, av_letters[i].argument ?
			av_letters[i].argument : "", av_letters[i].help);
	for (size_t i = 0; i < LENGTH(av_longs); i++)
		printf("  --%s%s%s\n        %s\n", av_longs[i].name, av_longs[i].argument ? "=" :
			"", av_longs[i].argument ? av_longs[i].argument : "", av_longs[i].help);
	for (int role = 0; role < 3; role++) {
		printf("\n%s, -o:", roles[role]);
		for (size_t i = 0; i < OP_KEYWORDS; i++)
			if ((int)op_keywords[i].role == role)
				printf(" %s", op_keywords[i].name);
	}
	printf("\n\nNo effect, -o: %s\n\nRefused, -o: %s\n", op_idle, op_unsafe);
	exit(0);
}

static void av_version(void)
{
	printf("sshmux %s (%s, %s profile)\n", SSHMUX_VERSION, tp_version, PROFILE_NAME);
	exit(0);
}

/* -Q: for each of ssh's words a list for tp_algorithms(), or the answer itself. */
#define AV_AS_IS (-1)
static const struct av_query { const char *name; int kind; const char *spec; } av_queries[] = {
	{ "cipher", TP_CIPHERS, "*" }, { "cipher-auth", TP_CIPHERS, "*poly1305*,*-gcm*" },
	{ "mac", TP_MACS, "*" }, { "kex", TP_KEX, "*" }, { "key", TP_HOST_KEYS, "ssh-*,ecdsa-*" },
	{ "key-plain", TP_HOST_KEYS, "ssh-*,ecdsa-*" }, { "key-cert", AV_AS_IS, "" },
	{ "key-ca-sign", AV_AS_IS, "" }, { "key-sig", TP_USER_KEYS, "*" },
	{ "sig", TP_HOST_KEYS, "*" }, { "compression", AV_AS_IS, "none" },
	{ "protocol-version", AV_AS_IS, "2" }, { "Ciphers", TP_CIPHERS, "*" },
	{ "MACs", TP_MACS, "*" }, { "KexAlgorithms", TP_KEX, "*" },
	{ "HostKeyAlgorithms", TP_HOST_KEYS, "*" },
	{ "PubkeyAcceptedAlgorithms", TP_USER_KEYS, "*" },
	{ "PubkeyAcceptedKeyTypes", TP_USER_KEYS, "*" },
};
#define AV_QUERIES LENGTH(av_queries)

static void av_query(const char *what)
{
	char list[ALGORITHMS_TEXT];
	const struct av_query *q = av_queries;
	bool help = strcmp(what, "help") == 0;
	for (; q < av_queries + AV_QUERIES && (help || strcasecmp(q->name, what) != 0); q++)
		if (help)
			puts(q->name);
	if (help)
		exit(0);
	if (q == av_queries + AV_QUERIES)
		op_die("Unsupported query \"%s\"", what);
	snprintf(list, sizeof list, "%s", q->spec);
	if (q->kind != AV_AS_IS)
		tp_algorithms((enum tp_algorithms)q->kind, q->spec, list, sizeof list);
	for (char *p = list; *p; p++)
		if (*p == ',')
			*p = '\n';
	if (*list)
		puts(list);
	exit(0);
}

/* -E: our messages go there, the command's output does not. */
static void av_log_to(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0)
		op_die("Couldn't open logfile %s: %s", path, strerror(errno));
	log_to(fd);
}

/* -t and -T: the last one counts; a second -t forces a terminal. */
static void av_tty(bool wanted)
{
	int64_t before = g.op.request_tty;
	op_set_word("RequestTTY", "no");
	g.op.request_tty = !wanted ? CL_TTY_NO : before == CL_TTY_YES ? CL_TTY_FORCE : CL_TTY_YES;
}

/* Letters that do more than set a keyword. */
static void av_special(const struct av_letter *l, const char *argument)
{
	struct forward to;
	switch (l->letter) {
	case 'h':	av_usage(); break;
	case 'V':	av_version(); break;
	case '2':	break;
	case 'E':	av_log_to(argument); break;
	case 'F':	g.op.config_file = argument; break;
	case 'G':	g.op.dump = true; break;
	case 'Q':	av_query(argument); break;
	case 'M':
		op_set_word("ControlMaster", "no");
		g.op.master = g.op.master == OP_MASTER_YES ? OP_MASTER_ASK : OP_MASTER_YES;
		break;
	case 'J':
		if (g.op.proxy_jump)
			op_die("only one -J is permitted: its hosts are separated by commas");
		if (g.op.proxy_command)
			op_die("Cannot specify -J with ProxyCommand");
		op_set_word("ProxyJump", argument);
		break;
	case 'O':
		if (strcmp(argument, "list") != 0 && !ct_find_command(argument)) {
			cl_say("Invalid multiplex command.");
			exit(EXIT_SSH);
		}
		g.op.mux_command = argument;
		break;
	case 'W':
		if (!cs_parse_stdio(argument, &to))
			op_die("Bad stdio forwarding specification '%s'", argument);
		g.op.stdio_forward = argument;
		break;
	case 't':
	case 'T':	av_tty(l->letter == 't'); break;
	case 'o':	op_option(argument); break;
	case 'y':	log_to(-1); break;
	case 'v':
		op_set_word("LogLevel", "VERBOSE");
		log_upto(g.op.level > 4 ? TP_DEBUG : TP_VERBOSE);
		g.op.level = g.op.level < 5 ? 5 : g.op.level < 7 ? g.op.level + 1 : 7;
		break;
	default:	/* '1', 'I', 'w' */
		op_die("-%c is %s", l->letter, l->help);
	}
}

/* For these letters the last one counts, not the first (CFG-first). */
#define AV_LAST "46AaBbcegmNnqSsXxY"

/* -i with a missing file: only a warning, as in ssh. */
static bool av_is_missing_key(char letter, const char *path)
{
	if (letter != 'i' || access(op_path(path), F_OK) == 0)
		return false;
	log_at(TP_ERROR, "Warning: Identity file %s not accessible: %s.", path, strerror(errno));
	return true;
}

/* One word of letters, "-MNS" or "-p22"; returns how many words it used. */
static int av_letter_word(char **word)
{
	for (const char *p = *word + 1; *p; p++) {
		const struct av_letter *l = NULL;
		for (size_t i = 0; i < LENGTH(av_letters); i++)
			if (av_letters[i].letter == *p)
				l = &av_letters[i];
		if (!l)
			op_die("unknown option -- %c (see sshmux -h)", *p);
		const char *argument = l->argument ? p[1] ? p + 1 : word[1] : l->value;
		if (l->argument && !argument)
			op_die("option requires an argument -- %c", *p);
		if (l->keyword && strchr(AV_LAST, *p))
			op_set[op_find(l->keyword, strlen(l->keyword)) - op_keywords] = false;
		if (l->keyword && av_is_missing_key(l->letter, argument))
			;
		else if (l->keyword)
			op_set_word(l->keyword, argument);
		else
			av_special(l, argument);
		if (l->argument)
			return p[1] ? 1 : 2;
	}
	return 1;
}

/* Decodes a user's name in a URI: %40 is @. */
static const char *av_decode(const char *p, size_t n)
{
	const char *to = op_store.text + op_store.used;
	for (size_t i = 0; i < n; i++) {
		char hex[3] = { 0 };
		if (p[i] == '%' && i + 2 < n && isxdigit((unsigned char)p[i + 1]) &&
			isxdigit((unsigned char)p[i + 2])) {
			memcpy(hex, p + i + 1, 2);
			i += 2;
		}
		char c = hex[0] ? (char)strtol(hex, NULL, 16) : p[i];
		op_put(c ? c : '\1');		/* %00 would end the name; op_safe() refuses \1 */
	}
	op_put(0);
	return to;
}

/* [user@]host, or ssh://[user@]host[:port] */
static void av_host(const char *word)
{
	bool uri = strncasecmp(word, "ssh://", 6) == 0;
	const char *from = word + (uri ? 6 : 0), *at = strrchr(from, '@'), *host = at ? at + 1 :
		from;
	size_t n = uri ? strcspn(host, "/") : strlen(host);
	const char *port = uri && *host == '[' ? strchr(host, ']') : host;
	if (uri && host[n] && host[n + 1])
		op_die("bad destination \"%s\"", word);
	port = uri && port ? memchr(port, ':', n - (size_t)(port - host)) : NULL;
	size_t name = port ? (size_t)(port - host) : n;
	bool bracketed = name > 1 && host[0] == '[' && host[name - 1] == ']';
	g.op.given = op_keep(host + bracketed, name - 2 * bracketed);
	if (at == from || !op_safe(g.op.given, OP_BAD_HOST))
		op_die("bad destination \"%s\"", word);
	if (port)
		op_set_word("Port", op_keep(port + 1, n - name - 1));
	if (!at)
		return;
	op_set_word("User", uri ? av_decode(from, (size_t)(at - from)) :
		op_keep(from, (size_t)(at - from)));
}

static void av_long(const char *word)
{
	size_t n = strcspn(word, "=");
	const char *value = word[n] ? word + n + 1 : NULL;
	if (op_is(word, n, "version"))
		av_version();
	if (op_is(word, n, "help"))
		av_usage();
	for (size_t i = 0; i < LENGTH(av_longs); i++) {
		const struct av_long *l = &av_longs[i];
		if (!op_is(word, n, l->name))
			continue;
		int64_t number = value ? op_time(value) : l->value ? l->value : 1;
		if (!value != !l->argument || number < 0 || number > 86400 * 7)
			op_die("bad value for --%s", l->name);
		*l->to = number;
		return;
	}
	op_die("unknown option --%s (see sshmux -h)", word);
}

/* -O's words.  If there is no host, av_host() took the first word for one. */
static void av_command_words(void)
{
	const struct ct_command *k = ct_find_command(g.op.mux_command);
	int words = k ? k->words : 0;
	static const char *all[3];
	if (words > 0 && g.op.given && g.op.n_command == words - 1) {
		all[0] = g.op.given;
		memcpy(all + 1, g.op.command, (size_t)g.op.n_command * sizeof *all);
		g.op.command = all;
		g.op.n_command++;
		g.op.given = NULL;
	}
	if (words > 0 && g.op.n_command != words)
		op_die("-O %s takes %d word%s", k->name, words, words > 1 ?
			"s: a session's number and a signal" : "");
}

/* The command line: options, host, more options, then the command. */
static void av_parse(char **argv)
{
	char **word = argv + 1;
	bool end = false;		/* "--" was seen */
	while (*word) {
		if (!end && strcmp(*word, "--") == 0) {
			end = true;
			word++;
		} else if (!end && strncmp(*word, "--", 2) == 0)
			av_long(*word++ + 2);
		else if (!end && (*word)[0] == '-' && (*word)[1])
			word += av_letter_word(word);
		else if (!g.op.given)
			av_host(*word++);
		else
			break;
	}
	g.op.command = (const char *const *)word;
	while (g.op.command[g.op.n_command])
		g.op.n_command++;
	if (g.op.mux_command)
		av_command_words();
}

/* ===== tk_ ====================================================================
 * Tokens: %-sequences and ${NAME} in the values of options.
 * Calls op_. */

static const char *tk_user(void)
{
	const struct passwd *p = getpwuid(getuid());
	if (!p && getuid() != 0)
		op_die("No user exists for uid %u", (unsigned)getuid());
	return p ? p->pw_name : "root";
}

static const char *tk_local_host(void)
{
	static char name[NI_MAXHOST];
	if (gethostname(name, sizeof name - 1) != 0)
		name[0] = 0;
	return name;
}

/* The name of ProxyJump's last host, without user and port. */
static const char *tk_jump_host(void)
{
	static char name[NI_MAXHOST];
	const char *hop = g.op.proxy_jump && strcasecmp(g.op.proxy_jump, "none") != 0 ?
		g.op.proxy_jump : "";
	hop = strrchr(hop, ',') ? strrchr(hop, ',') + 1 : hop;
	hop += strncasecmp(hop, "ssh://", 6) == 0 ? 6 : 0;
	hop = strrchr(hop, '@') ? strrchr(hop, '@') + 1 : hop;
	snprintf(name, sizeof name, "%.*s", (int)strcspn(hop + (*hop == '['), *hop == '[' ? "]" :
		":/"), hop + (*hop == '['));
	return name;
}

/* %C: names the connection in a fixed length, for paths. */
static void tk_hash(char to[41])
{
	char text[1024];
	uint8_t hash[20];
	int n = snprintf(text, sizeof text, "%s%s%d%s%s", tk_local_host(), g.op.host_name,
		(int)g.op.port, g.op.tp.user, tk_jump_host());
	tp_sha1((const uint8_t *)text, n < (int)sizeof text ? (size_t)n : sizeof text - 1, hash);
	for (int i = 0; i < 20; i++)
		snprintf(to + 2 * i, 3, "%02x", hash[i]);
}

/* A token's value, in `room` if it must be built; NULL for an unknown token. */
static const char *tk_token(char token, char room[64])
{
	switch (token) {
	case '%':	return "%";
	case 'C':	tk_hash(room); return room;
	case 'd':	return op_home();
	case 'h':	return g.op.host_name;
	case 'i':	snprintf(room, 64, "%u", (unsigned)getuid()); return room;
	case 'j':	return tk_jump_host();
	case 'k':	return g.op.host_key_alias ? g.op.host_key_alias : g.op.given;
	case 'L':	snprintf(room, 64, "%.*s", (int)strcspn(tk_local_host(), "."),
		tk_local_host()); return room;
	case 'l':	return tk_local_host();
	case 'n':	return g.op.given;
	case 'p':	snprintf(room, 64, "%d", (int)g.op.port); return room;
	case 'r':	return g.op.tp.user;
	case 'T':	return "NONE";		/* for LocalCommand: there is no tunnel */
	case 'u':	return tk_user();
	}
	return NULL;
}

/* Puts the value of ${NAME} in *value and returns where ${NAME} ends; dies if there is no
 * value. */
static const char *tk_variable(const char *p, const char **value)
{
	char name[128];
	const char *end = strchr(p, '}');
	size_t n = end ? (size_t)(end - p) : 0;
	if (!end || n == 0 || n >= sizeof name)
		op_die("bad environment variable in \"%s\"", p);
	memcpy(name, p, n);
	name[n] = 0;
	*value = getenv(name);
	if (!*value)
		op_die("env var ${%s} has no value", name);
	return end;
}

#define TK_TOKENS "CdhijkLlnpru"

/* Expands the %-tokens in `text`: those in `tokens`, or TK_TOKENS if NULL.  `variables`:
 * ${NAME}, too. */
static const char *tk_expand(const char *text, const char *tokens, bool variables)
{
	char room[64];
	if (!text || (!strchr(text, '%') && !(variables && strstr(text, "${"))))
		return text;
	const char *start = op_store.text + op_store.used;
	for (const char *p = text; *p; p++) {
		const char *value = NULL;
		if (variables && p[0] == '$' && p[1] == '{')
			p = tk_variable(p + 2, &value);
		else if (*p != '%') {
			op_put(*p);
			continue;
		} else if (!*++p || (*p != '%' && !strchr(tokens ? tokens : TK_TOKENS, *p)) ||
			!(value = tk_token(*p, room)))
			op_die("unknown key %%%c in \"%s\"", *p ? *p : ' ', text);
		if (!op_printable(value))
			op_die("\"%.60s\": a value in it contains invalid characters", text);
		while (*value)
			op_put(*value++);
	}
	op_put(0);
	return start;
}

/* `s` with each % doubled: tk_expand() turns it back into `s`. */
static const char *tk_literal(const char *s)
{
	const char *start = op_store.text + op_store.used;
	for (; *s; s++) {
		if (*s == '%')
			op_put('%');
		op_put(*s);
	}
	op_put(0);
	return start;
}

/* ===== cf_ ====================================================================
 * Reads configuration files in ssh_config's format: Host, Match, Include.  An error ends
 * the program.
 * Calls log_, buf_, fd_, sp_, op_, tk_. */

/* Reads one line of a file that pread() cannot read, such as a pipe. */
static ssize_t cf_read_pipe(int fd, char *line, size_t size)
{
	size_t n = 0;
	while (n < size && read(fd, line + n, 1) == 1)
		if (line[n++] == '\n')
			break;
	return (ssize_t)n;
}

/* Reads the next line of a file into g.scratch, without trailing blanks; false at
 * the end. */
static bool cf_line(int fd, off_t *at)
{
	char *line = (char *)g.scratch;
	ssize_t n = pread(fd, line, sizeof g.scratch - 1, *at);
	if (n < 0 && errno == ESPIPE)
		n = cf_read_pipe(fd, line, sizeof g.scratch - 1);
	if (n <= 0)
		return false;
	const char *end = memchr(line, '\n', (size_t)n);
	if (!end && n == sizeof g.scratch - 1)
		op_die("a line is too long");
	size_t len = end ? (size_t)(end - line) : (size_t)n;
	*at += (off_t)len + 1;
	while (len > 0 && strchr(" \t\r\f", line[len - 1]))
		len--;
	line[len] = 0;
	op_where.line++;
	return true;
}

/* The host that the files are read for; in the final pass, the one that the first pass
 * found. */
static const char *cf_host_now(void)
{
	const char *typed = g.op.host_name, *host = g.op.given;
	if (typed) {
		g.op.host_name = g.op.given;	/* %h in HostName is this one */
		host = tk_expand(typed, "h", false);
		g.op.host_name = typed;
	}
	return host;
}

static const char *cf_user_now(void)
{
	return g.op.user ? g.op.user : tk_user();
}

/* tk_expand() while files are being read, with the values known so far. */
static const char *cf_expand_now(const char *text, bool variables)
{
	const char *host = g.op.host_name, *user = g.op.tp.user, *alias = g.op.host_key_alias;
	g.op.host_name = cf_host_now();
	g.op.tp.user = cf_user_now();
	if (!alias)
		g.op.host_key_alias = g.op.host_name;
	text = tk_expand(text, NULL, variables);
	g.op.host_name = host;
	g.op.tp.user = user;
	g.op.host_key_alias = alias;
	return text;
}

/* Host PATTERN...: a pattern matches, and none with ! does. */
static bool cf_host(struct op_text t)
{
	bool found = false, refused = false, any = false;
	size_t mark = op_store.used;
	const char *host = g.op.final ? cf_host_now() : g.op.given;
	for (const char *word; (word = op_word(&t)); any = true) {
		bool here = str_matches(str_of(host), word + (*word == '!'));
		refused |= here && *word == '!';
		found |= here;
	}
	if (!any)
		op_die("Host without a pattern");
	op_store.used = mark;
	return found && !refused;
}

/* Match exec: true if the command exits with 0.  Its stdin and stdout are /dev/null. */
static bool cf_exec(const char *command)
{
	const char *shell = getenv("SHELL") ? getenv("SHELL") : "/bin/sh";
	int status = 0;
	if (access(shell, X_OK) != 0)
		op_die("Shell \"%s\" is not executable: %s", shell, strerror(errno));
	pid_t pid = fork();
	if (pid == 0) {
		fd_null(STDIN_FILENO);
		fd_null(STDOUT_FILENO);
		sp_default_signals();
		fd_close_others(0, 0);
		execl(shell, shell, "-c", command, (char *)NULL);
		raise(SIGTERM);
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (pid < 0 || !WIFEXITED(status))
		op_die("Match exec \"%.100s\" failed", command);
	return WEXITSTATUS(status) == 0;
}

/* Whether an interface that is up has an address in a network, ADDRESS or ADDRESS/BITS. */
static bool cf_network(const char *text)
{
	char name[INET6_ADDRSTRLEN];
	uint8_t net[16], none[16] = { 0 };
	size_t n = strcspn(text, "/");
	int family = memchr(text, ':', n) ? AF_INET6 : AF_INET, most = family == AF_INET ? 32 : 128;
	const char *p = text + n + (text[n] == '/');
	int64_t bits = text[n] ? op_digits(&p) : most;
	snprintf(name, sizeof name, "%.*s", (int)n, text);
	bool ok = n < sizeof name && inet_pton(family, name, net) == 1 && bits >= 0 &&
		bits <= most && *p == 0;
	for (int i = (int)bits; ok && i < most; i++)
		ok = !(net[i / 8] & 0x80 >> i % 8) || os_same_bits(net, none, most);
	if (!ok)
		op_die("bad network \"%.60s\"", text);
	int has = os_has_address(family, net, (int)bits);
	if (has < 0)
		log_at(TP_ERROR, "Match localnetwork: %s", strerror(errno));
	return has > 0;
}

static bool cf_local_network(const char *networks)
{
	bool here = false;
	for (const char *p = networks; *p; p += *p == ',') {
		size_t n = strcspn(p, ",");
		here |= cf_network(op_keep(p, n));
		p += n;
	}
	return here;
}

/* The remote command, or the subsystem's name. */
static const char *cf_command_now(void)
{
	char *all = (char *)g.req.memory;	/* not used yet */
	size_t n = 0;
	all[0] = 0;
	for (int i = 0; i < g.op.n_command && n < sizeof g.req.memory; i++)
		n += (size_t)snprintf(all + n, sizeof g.req.memory - n, "%s%s", i ? " " : "",
			g.op.command[i]);
	return all;
}

static const char *cf_given_now(void) { return g.op.given; }
static const char *cf_version_now(void) { return "OpenSSH_10.0p1"; }	/* we know its keywords */
static const char *cf_tag_now(void) { return g.op.tag ? g.op.tag : ""; }
static const char *cf_session_now(void)
{
	return g.op.session_type == 2 ? "subsystem" : g.op.session_type == 1 ? "none" :
		g.op.n_command ? "exec" : "shell";
}

/* Match's criteria that take a list, and the value that each compares with it. */
static const struct cf_criterion {
	const char *name;
	const char *(*now)(void);	/* NULL: exec, localnetwork */
	bool lower, empty;		/* "" matches a missing value */
} cf_criteria[] = {
	{ "command", cf_command_now, false, true }, { "exec", NULL, false, false },
	{ "host", cf_host_now, true, false }, { "localnetwork", NULL, false, false },
	{ "localuser", tk_user, false, false }, { "originalhost", cf_given_now, true, false },
	{ "sessiontype", cf_session_now, false, false }, { "tagged", cf_tag_now, false, true },
	{ "user", cf_user_now, false, false }, { "version", cf_version_now, false, false },
};

/* Whether a criterion holds.  `wanted`: the earlier ones do; only then exec runs its
 * command. */
static bool cf_holds(const struct cf_criterion *c, const char *list, bool wanted)
{
	const char *text = c->now ? c->now() : NULL;
	if (text && !*text)
		return c->empty && !*list;
	if (text)
		return op_matches(text, strlen(text), list, c->lower);
	if (c->name[0] == 'l')
		return cf_local_network(list);
	const char *command = cf_expand_now(list, false);
	return wanted && !g.op.list && cf_exec(command);
}

/* Match's criteria without a list: 1 if this one holds, 0 if not, -1 if it is another
 * word. */
static int cf_pass(const char *word, size_t n, bool negated)
{
	bool final = op_is(word, n, "final");
	g.op.wants_final |= final && !negated;
	return final || op_is(word, n, "canonical") ? g.op.final : -1;
}

/* Match CRITERION...: all must hold. */
static bool cf_match(struct op_text t)
{
	bool matches = true;
	size_t mark = op_store.used;
	const char *word;
	int many = 0;
	for (; (word = op_word(&t)); many++) {
		bool negated = *word == '!';
		size_t n = strcspn(word += negated, "=");
		const struct cf_criterion *c = cf_criteria,
			*end = c + LENGTH(cf_criteria);
		if (op_is(word, n, "all")) {
			if (many > 1 || op_word(&t))
				op_die("'%s' cannot be combined with other Match attributes", word);
			many++;
			matches &= !negated;
			break;
		}
		int pass = cf_pass(word, n, negated);
		if (pass >= 0) {
			matches &= pass != negated;
			continue;
		}
		while (c < end && !op_is(word, n, c->name))
			c++;
		if (c == end)
			op_die("Unsupported Match attribute %s", word);
		const char *list = word[n] ? word + n + 1 : op_word(&t);
		if (!list || (!*list && !c->empty))
			op_die("missing argument for Match '%s'", word);
		matches &= cf_holds(c, list, matches) != negated;
	}
	if (!many)
		op_die("Match without a word");
	op_store.used = mark;
	return matches;
}

static bool cf_read(const char *path, int depth);

/* In an Include, and only there, ~ comes from the environment first (CFG-include-home).
 * ~ with an unknown user is an ordinary name. */
static const char *cf_tilde(const char *path)
{
	const char *home = getenv("HOME");
	size_t n = path[0] == '~' ? strcspn(path, "/") : 0;
	if (n == 1 && home && *home)
		return op_join(home, path + 1);
	return n > 1 && !getpwnam(op_keep(path + 1, n - 1)) ? path : op_path(path);
}

/* A file that exists must be readable, as in ssh. */
static void cf_include_file(const char *path, int depth)
{
	struct stat st;
	if (lstat(path, &st) == 0 && !cf_read(path, depth) && errno != ENOENT)
		op_die("Can't open user config file %s: %s", path, strerror(errno));
}

/* Reads all files below the first n bytes of `full` that match the pattern `rest`; `left`:
 * how many more it may read. */
static void cf_include_below(char full[PATH_MAX], size_t n, const char *rest, int depth, int *left)
{
	char pattern[NAME_MAX + 1], last[NAME_MAX + 1] = "";
	size_t len;
	for (;; rest += len + (rest[len] == '/')) {
		len = strcspn(rest, "/");
		bool end = !rest[len];
		if (len >= sizeof pattern || n + len + 2 > PATH_MAX)
			return;
		snprintf(pattern, sizeof pattern, "%.*s", (int)len, rest);
		if (strpbrk(pattern, "*?[\\"))
			break;
		n += (size_t)sprintf(full + n, "%s%s", pattern, end ? "" : "/");
		if (end) {
			(*left)--;
			cf_include_file(full, depth);
			return;
		}
	}
	while (os_next_name(full, pattern, rest[len], last)) {
		size_t more = strlen(last);
		if (*left <= 0)
			op_die("an Include names more than %d files", INCLUDE_FILES);
		if (n + more + 2 <= PATH_MAX) {
			memcpy(full + n, last, more + 1);
			if (rest[len]) {
				memcpy(full + n + more, "/", 2);
				cf_include_below(full, n + more + 1, rest + len + 1, depth, left);
			} else {
				(*left)--;
				cf_include_file(full, depth);
			}
		}
		full[n] = 0;
	}
}

/* Include PATH...: a relative path starts in the user's or the system's directory. */
static void cf_include(struct op_text t, const char *beside, int depth)
{
	if (depth == INCLUDE_DEPTH)
		op_die("too many files include one another");
	const char *word = op_word(&t);
	if (!word)
		op_die("Include without a file");
	for (; word; word = op_word(&t)) {
		word = cf_expand_now(word, true);
		if (*word != '/' && *word != '~')
			word = op_join(beside, word);
		char full[PATH_MAX] = "";
		int left = INCLUDE_FILES;
		cf_include_below(full, 0, cf_tilde(word), depth + 1, &left);
	}
}

/* ssh's rule for the user's own files: a file that others can write could make us run
 * commands. */
static void cf_check_owner(const char *path, int fd)
{
	struct stat st;
	if (fstat(fd, &st) == 0 && ((st.st_uid != 0 && st.st_uid != getuid()) || st.st_mode & 022))
		op_die("Bad owner or permissions on %s", path);
}

/* -O list: calls g.op.list for the names on a Host line that are not patterns.  False: skip
 * the keywords of this block. */
static bool cf_names(struct op_text t)
{
	size_t mark = op_store.used;
	for (const char *word; (word = op_word(&t));)
		if (!strpbrk(word, "*?!") && op_safe(word, OP_BAD_HOST))
			g.op.list(word);
	op_store.used = mark;
	return false;
}

/* Reads a file; false if it cannot be opened. */
static bool cf_read(const char *path, int depth)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	off_t at = 0;
	bool active = true;
	if (fd < 0)
		return false;
	const char *file = op_where.file;
	unsigned line = op_where.line;
	op_where.file = path;
	op_where.line = 0;
	if (!g.op.config_file || depth > 0)
		cf_check_owner(path, fd);
	while (cf_line(fd, &at)) {
		size_t len;
		const char *text = (char *)g.scratch + strspn((char *)g.scratch, " \t"),
			*value = op_value(text, &len);
		struct op_text t = { value, false };
		if (!*text || *text == '#')
			continue;
		if (op_is(text, len, "Host"))
			active = g.op.list ? cf_names(t) : cf_host(t);
		else if (op_is(text, len, "Match"))
			active = cf_match(t);
		else if (active && op_is(text, len, "Include"))
			cf_include((struct op_text){ op_keep(value, strlen(value)), false },
				strncmp(path, "/etc/", 5) == 0 ? CONFIG_DIRECTORY : "~/.ssh/",
				depth);
		else if (active && !g.op.list)
			op_keyword(text, len, t);
		else if (!g.op.list && !op_find(text, len) && !op_is(text, len, "Include"))
			op_foreign(text, len, "none");	/* mistyped, even for other hosts */
	}
	close(fd);
	op_where.file = file;
	op_where.line = line;
	return true;
}

/* -F's file alone, or the user's and then the system's. */
static void cf_files_once(void)
{
	const char *path = g.op.config_file;
	if (!path) {
		cf_read(op_path("~/.ssh/config"), 0);
		cf_read(CONFIG_DIRECTORY "config", 0);
	} else if (strcasecmp(path, "none") != 0 && !cf_read(path, 0))
		op_die("Can't open user config file %s: %s", path, strerror(errno));
}

/* Reads the files; for Match final once more, with the host that the first pass found. */
static void cf_files(void)
{
	cf_files_once();
	if (!g.op.wants_final || g.op.list)
		return;
	g.op.host_name = tk_literal(op_lower(cf_host_now()));
	op_set[op_find("HostName", 8) - op_keywords] = true;
	g.op.final = true;
	cf_files_once();
}

/* ===== dv_ ====================================================================
 * Derives values that depend on several options, and fills in what a login needs and no
 * option gave.
 * Calls us_, fw_, op_, tk_. */

static bool dv_is_none(const char *value)
{
	return !value || strcasecmp(value, "none") == 0;
}

/* Each jump reads the same files: without a limit, a loop of jumps would never end. */
static void dv_count_jump(const char *jump)
{
	const char *before = getenv("SSHMUX_JUMPS");
	char text[12];
	int n = before ? atoi(before) : 0;
	if (n < 0 || n >= JUMPS)
		op_die("jumphost loop via %.100s, or more than %d of them", jump, JUMPS);
	snprintf(text, sizeof text, "%d", n + 1);
	setenv("SSHMUX_JUMPS", text, 1);
}

/* -J: a ProxyCommand that runs sshmux itself, which reaches the last host through the
 * others. */
static const char *dv_jump(void)
{
	char command[PATH_MAX * 2 + 1024];
	char self[PATH_MAX];
	const char *jump = tk_literal(g.op.proxy_jump), *comma = strrchr(jump, ','), *host = comma ?
		comma + 1 : jump, *file = g.op.config_file;
	bool uri = strncasecmp(host, "ssh://", 6) == 0;
	dv_count_jump(jump);
	if (!os_self(self, sizeof self) || (file && strchr(file, '\'')))
		op_die("bad ProxyJump \"%.100s\"", jump);
	int n = snprintf(command, sizeof command, "'%s'%s%s%s%s%.*s%s -W '[%%h]:%%p' -- '%s%s'",
		tk_literal(self),
		file ? " -F '" : "", file ? tk_literal(file) : "", file ? "'" : "",
		comma ? " -J '" : "", comma ? (int)(comma - jump) : 0, jump, comma ? "'" : "",
		uri ? "" : "ssh://", host);
	if (n >= (int)sizeof command)
		op_die("ProxyJump is too long");
	return op_keep(command, (size_t)n);
}

/* Settles the host name that we connect to. */
static void dv_resolve_host(void)
{
	const char *name = g.op.host_name;
	g.op.host_name = g.op.given;
	if (!g.op.given)
		return;
	if (name)
		name = tk_expand(name, "h", false);
	else
		name = g.op.given;
	if (strlen(name) >= NI_MAXHOST || !op_safe(name, OP_BAD_HOST))
		op_die("bad HostName \"%.100s\"", name);
	g.op.host_name = op_lower(name);
	if (g.op.host_key_alias)
		g.op.host_key_alias = op_lower(g.op.host_key_alias);
}

static void dv_resolve_command(void)
{
	static const char *word;
	if (dv_is_none(g.op.remote_command))
		g.op.remote_command = NULL;
	if (!g.op.remote_command || g.op.stdio_forward || g.op.mux_command || g.op.dump)
		return;
	if (g.op.n_command > 0)
		op_die("Cannot execute command-line and remote command.");
	word = tk_expand(g.op.remote_command, NULL, false);
	g.op.command = &word;
	g.op.n_command = 1;
}

/* A socket's path with its tokens and variables replaced. */
static const char *dv_path(const char *path)
{
	if (!g.op.given && strchr(path, '%'))
		op_die("the path \"%.100s\" depends on the host, and none is given", path);
	return tk_expand(path, NULL, true);
}

/* The same, if an end of a forward is a path. */
static void dv_socket(struct endpoint *e)
{
	const char *path = fw_is_path(e) ? dv_path(e->host) : e->host;
	if (strlen(path) >= sizeof e->host)
		op_die("\"%s\": %s", path, us_too_long(path, sizeof e->host - 1));
	memmove(e->host, path, strlen(path) + 1);
}

static void dv_resolve_path(void)
{
	const char *path = g.op.control_path;
	if (dv_is_none(path))
		g.op.control_path = NULL;
	else
		g.op.control_path = op_path(dv_path(path));
}

/* Settles what every role must know. */
static void dv_resolve(void)
{
	dv_resolve_host();
	const char *user = g.op.user ? g.op.user : tk_user();
	g.op.tp.user = op_keep(user, strlen(user));
	if (dv_is_none(g.op.proxy_jump))
		g.op.proxy_jump = NULL;
	if (dv_is_none(g.op.proxy_command))
		g.op.proxy_command = NULL;
	if (dv_is_none(g.op.revoked_keys))
		g.op.revoked_keys = NULL;
	dv_resolve_path();
	dv_resolve_command();
	for_each_forward(f) {
		if (g.op.clear_forwards || g.op.stdio_forward)
			f->state = FW_FREE;
		dv_socket(&f->listen);
		dv_socket(&f->connect);
	}
}

static void dv_default_paths(struct list *l, const char *const *paths)
{
	for (bool none = l->n == 0; none && *paths; paths++)
		l->at[l->n++] = op_path(*paths);
}

static void dv_drop_none(struct list *l)
{
	size_t n = 0;
	for (size_t i = 0; i < l->n; i++)
		if (!dv_is_none(l->at[i]))
			l->at[n++] = l->at[i];
	l->n = n;
}

/* The files with keys and known hosts. */
static void dv_paths(void)
{
	static const char *const keys[] = { "~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa",
		"~/.ssh/id_dropbear", NULL };
	static const char *const hosts[] = { "~/.ssh/known_hosts", "~/.ssh/known_hosts2", NULL };
	static const char *const global[] = { "/etc/ssh/ssh_known_hosts",
		"/etc/ssh/ssh_known_hosts2", NULL };
	g.op.tp.identity_default = g.op.identity.n == 0;
	dv_default_paths(&g.op.identity, keys);
	dv_default_paths(&g.op.known_hosts, hosts);
	dv_default_paths(&g.op.global_hosts, global);
	for (size_t i = 0; i < g.op.identity.n; i++)
		g.op.identity.at[i] = tk_expand(g.op.identity.at[i], NULL, true);
	for (size_t i = 0; i < g.op.known_hosts.n; i++)
		g.op.known_hosts.at[i] = tk_expand(g.op.known_hosts.at[i], NULL, true);
	dv_drop_none(&g.op.identity);
}

/* The agent's socket: IdentityAgent, or SSH_AUTH_SOCK. */
static const char *dv_agent(void)
{
	const char *agent = g.op.identity_agent;
	if (!agent || strcmp(agent, "SSH_AUTH_SOCK") == 0)
		return getenv("SSH_AUTH_SOCK");
	if (*agent == '$' && agent[1] != '{')
		return getenv(agent + 1);
	return dv_is_none(agent) ? NULL : op_path(tk_expand(agent, NULL, true));
}

static bool dv_prefers(const char *method)
{
	return !g.op.preferred_auth || op_names(g.op.preferred_auth, ',', method, strlen(method));
}

/* Fills in the transport's configuration. */
static void dv_transport(void)
{
	static struct list hosts;
	struct tp_config *t = &g.op.tp;
	hosts = g.op.known_hosts;
	for (size_t i = 0; i < g.op.global_hosts.n && hosts.n < OPTION_LIST; i++)
		hosts.at[hosts.n++] = g.op.global_hosts.at[i];
	t->host = g.op.host_name;
	t->host_key_name = g.op.host_key_alias ? g.op.host_key_alias : g.op.host_name;
	t->host_key_alias = g.op.host_key_alias != NULL;
	t->port = (uint16_t)g.op.port;
	t->address = g.lk.remote;
	t->identity = g.op.identity.at;
	t->n_identity = g.op.identity.n;
	t->identities_only = g.op.identities_only;
	t->agent = dv_agent();
	t->password = getenv("DROPBEAR_PASSWORD");
	t->known_hosts = hosts.at;
	t->n_known_hosts = hosts.n;
	t->strict = (enum tp_strict)g.op.strict;
	t->pin = g.op.pin.at;
	t->n_pin = g.op.pin.n;
	if (g.op.revoked_keys)
		t->revoked = op_path(tk_expand(g.op.revoked_keys, NULL, true));
	t->rsa_bits = (uint32_t)g.op.rsa_bits;
	t->batch = g.op.batch;
	t->prompts = (uint32_t)g.op.prompts;
	t->no_pubkey = !g.op.pubkey_auth || !dv_prefers("publickey");
	t->no_password = !g.op.password_auth || !dv_prefers("password");
	t->no_keyboard = !g.op.keyboard_auth || !dv_prefers("keyboard-interactive");
	t->cancel_fd = g.lp.cancel_pipe[0];
}

/* The number of a user or group. */
static unsigned long dv_id(const char *name, size_t len, bool group)
{
	const char *text = op_keep(name, len);
	char *end;
	unsigned long id = strtoul(text, &end, 10);
	if (*text && !*end)
		return id;
	const struct passwd *u = group ? NULL : getpwnam(text);
	const struct group *of = group ? getgrnam(text) : NULL;
	if (!u && !of)
		op_die("there is no %s \"%s\"", group ? "group" : "user", text);
	return u ? u->pw_uid : of->gr_gid;
}

/* Who else may connect, and what they may do.  Looks up names once, here. */
static void dv_access(void)
{
	char id[24];
	if (g.op.control_group)
		us_let_in((gid_t)dv_id(g.op.control_group, strlen(g.op.control_group), true));
	else if (g.op.allow.n > 0)
		op_die("ControlAllow without ControlGroup: nobody else may connect");
	for (size_t i = 0; i < g.op.allow.n; i++) {
		const char *rule = g.op.allow.at[i];
		size_t n = strcspn(rule, "\n");
		bool group = *rule == '@';
		if (*rule == '*')
			continue;
		snprintf(id, sizeof id, "%s%lu", group ? "@" : "",
			dv_id(rule + group, n - group, group));
		g.op.allow.at[i] = op_join(id, rule + n);
	}
}

/* Fills in what a login needs and no option gave. */
static void dv_login(void)
{
	dv_paths();
	if (dv_is_none(g.op.forward_agent))
		g.op.forward_agent = NULL;
	else
		g.op.forward_agent = op_path(g.op.forward_agent);
	if (g.op.forward_x11 && g.op.x11_trusted == 1)
		op_die("X11 forwarding is always trusted: ForwardX11Trusted=no is not possible");
	if (g.op.proxy_jump)
		g.op.proxy_command = dv_jump();
	g.op.proxy_command = tk_expand(g.op.proxy_command, "hnpr", false);
	g.op.local_command = g.op.permit_local ? tk_expand(g.op.local_command, TK_TOKENS "T",
		false) : NULL;
	dv_transport();
}

/* Reconnect's default: yes for a master that runs no session of its own. */
static int64_t dv_reconnect(void)
{
	return g.op.control_path && g.op.master && g.op.session_type == 1 && !g.op.stdio_forward ?
		LK_YES : LK_NO;
}

/* ===== li_ ====================================================================
 * -O list: the masters of all names in the configuration files.
 * Calls buf_, js_, ct_, cf_, dv_. */

/* -O list --json: an object for each name; `status` is what -O status --json prints, or null. */
static void li_json(const char *name)
{
	struct buf b = buf_over(g.scratch, sizeof g.scratch);
	js_open(&b, NULL);
	js_text(&b, "name", name);
	js_text(&b, "control_path", g.op.control_path);
	js_name(&b, "status");
	(void)!write(STDOUT_FILENO, b.p, b.pos);
	g.op.timeout = LIST_SECONDS;
	if (ct_command("status") != 0)
		(void)!write(STDOUT_FILENO, "null", 4);
	(void)!write(STDOUT_FILENO, "}\n", 2);
}

/* In a child: reads the files for one name and asks its master. */
static void li_one(const char *name)
{
	g.op.list = NULL;
	cl_listing = true;
	g.op.given = name;
	op_where.file = NULL;
	cf_files();
	dv_resolve();
	if (!g.op.control_path)
		exit(0);
	if (g.op.connect_timeout <= 0)
		g.op.connect_timeout = LIST_SECONDS;
	if (g.op.json) {
		li_json(name);
		exit(0);
	}
	printf("%s\t%s\t", name, g.op.control_path);
	fflush(stdout);
	dup2(STDOUT_FILENO, STDERR_FILENO);
	exit(ct_command("check"));
}

/* Each name gets a child, which has no options set yet. */
static void li_name(const char *name)
{
	pid_t pid = fork();
	if (pid == 0)
		li_one(name);
	if (pid > 0)
		waitpid(pid, NULL, 0);
}

static int li_list(void)
{
	g.op.list = li_name;
	g.op.given = "";
	cf_files();
	return 0;
}

/* ===== pr_ ====================================================================
 * -G: prints the options that result.
 * Calls op_, dv_. */

/* Prints one option, its name in small letters. */
static void pr_option(const struct op_keyword *k)
{
	char name[40];
	size_t n = 0;
	for (; n < sizeof name - 1 && k->name[n]; n++)
		name[n] = (char)tolower((unsigned char)k->name[n]);
	name[n] = 0;
	op_kinds[k->kind].print(k, name);
}

static int pr_dump(void)
{
	if (!g.op.given)
		op_die("no host given (see sshmux -h)");
	if (!g.op.user)
		g.op.user = g.op.tp.user;
	if (!g.op.forward_agent)
		g.op.forward_agent = "no";
	if (g.op.reconnect < 0)
		g.op.reconnect = dv_reconnect();
	dv_paths();
	for (size_t i = 0; i < OP_KEYWORDS; i++)
		pr_option(&op_keywords[i]);
	return 0;
}

/* ===== main ===============================================================
 * Decides our role: client, master, or both. */

/* Opens descriptors 0, 1 and 2 if they are closed, so that none of our files gets these
 * numbers. */
static void main_stdio(void)
{
	int fd;
	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= 2);
	fd_close(&fd);
}

/* Whether we want a session or -W, not only the connection. */
static bool main_has_session(void)
{
	return g.op.session_type != 1 || g.op.stdio_forward;
}

/* Chooses the path that we serve, or NULL.  Another master may serve it already
 * (CTL-stale). */
static void main_check_path(void)
{
	struct stat st;
	const char *path = g.op.control_path;
	if (g.op.master == OP_MASTER_NO)
		path = NULL;
	const char *why = path ? us_check(path) : NULL;
	if (why && main_has_session() && us_look(path, &st) >= US_LIVE) {
		log_at(TP_ERROR, "ControlSocket %s already exists, disabling multiplexing", path);
		path = NULL;
	} else if (why)
		op_die("ControlSocket %s: %s", path, why);
	us_serve(path);
}

/* In ProxyCommand's environment: an sshmux there must not wait for the login that it
 * serves, though it has the same ControlPath. */
#define MAIN_LOGIN "SSHMUX_LOGIN"

/* Logs in, as a master or only for ourselves. */
static int main_connect(void)
{
	dv_access();
	main_check_path();
	if (g.op.master == OP_MASTER_AUTO || g.op.master == OP_MASTER_AUTO_ASK)
		g.op.master = g.op.master == OP_MASTER_AUTO ? OP_MASTER_YES : OP_MASTER_ASK;
	g.lp.split = main_has_session() ? LP_SERVES_ITSELF : g.op.background || us_persists() ?
		LP_DETACHES : LP_STAYS;
	if (g.op.reconnect < 0)
		g.op.reconnect = dv_reconnect();
	if (g.op.control_path)
		us_claim(g.op.control_path);
	else
		fd_close(&g.us.early);
	fd_close_others(g.log.fd, (int)g.op.notify_fd);
	fd_raise_limit();
	lp_open_signals();
	unsigned left = alarm(0);
	if (g.op.timeout > 0 && main_has_session())
		alarm(left ? left : (unsigned)g.op.timeout);
	dv_login();
	if (g.op.proxy_command)
		setenv(MAIN_LOGIN, "1", 1);
	if (!tp_init(&g.op.tp))
		op_die("%s", tp_error());
	int status = lp_run();
	return g.lp.split_fd > 0 ? cs_split() : status;
}

/* Fallback=no: unless we are to be a master, we do not log in without knowing of one. */
static void main_check_fallback(void)
{
	bool masters = g.op.master == OP_MASTER_YES || g.op.master == OP_MASTER_ASK;
	if (!g.op.fallback && !masters && !g.op.control_path)
		op_die("%s: no ControlPath leads to a master, "
			"and Fallback=no%s forbids a login without one", g.op.given,
		       op_fallback_from);
}

/* Start values other than zero. */
static void main_defaults(void)
{
	g.pool.free = NO_BLOCK;
	g.us.early = g.us.listener = g.lk.uplink.fd = g.lp.signal_pipe[0] = g.lp.signal_pipe[1] =
		g.lp.cancel_pipe[0] = g.lp.cancel_pipe[1] = -1;
	g.lk.net_fd = g.sd.fd = g.lk.watch = g.lp.silent = -1;
	g.log.level = TP_INFO;
	for (const struct op_keyword *k = op_keywords; k < op_keywords + OP_KEYWORDS; k++)
		if (k->kind <= OP_ESCAPE)
			*(int64_t *)k->to = k->start;
	g.op.wait = -1;
	g.op.permit_open = "any";
	g.op.dscp[0] = 72;		/* af21 */
	g.op.dscp[1] = 32;		/* cs1, as in ssh */
}

/* Runs over a master's connection; true if that settles it, with our exit status. */
static bool main_ride(int *status)
{
	*status = cs_main();
	return !cl_may_fall_back();
}

/* ControlMaster=auto without a master: of several calls at once, the first logs in; the
 * others wait for it and share its connection.  If it fails, each goes on alone. */
static bool main_ride_along(int *status)
{
	const char *path = g.op.control_path;
	struct stat st;
	if (!getenv(MAIN_LOGIN) && !us_claim(path)) {
		cl_early = true;
		bool rode = main_ride(status);
		cl_early = false;
		if (rode)
			return true;
	}
	if (us_look(path, &st) != US_LIVE)
		return false;
	fd_close(&g.us.early);		/* another process has just become the master */
	return main_ride(status);
}

int main(UNUSED int argc, char **argv)
{
	signal(SIGUSR1, SIG_IGN);	/* SIGUSR1 may come before we can handle it */
	main_defaults();
	main_stdio();
	av_parse(argv);
	if (g.op.given)
		cf_files();
	dv_resolve();
	if (g.op.dump)
		return pr_dump();
	if (g.op.send_env.n == 0)
		g.op.send_env = (struct list){ { "LANG", "LC_*" }, 2 };
	if (g.op.mux_command && strcmp(g.op.mux_command, "list") == 0)
		return li_list();
	if (g.op.mux_command && !g.op.control_path)
		op_die("No ControlPath specified for \"-O\" command");
	if (g.op.mux_command)
		return ct_command(g.op.mux_command);
	if (!g.op.given)
		op_die("no host given (see sshmux -h)");
	if (g.op.background && g.op.n_command == 0 && main_has_session() && !g.op.stdio_forward)
		op_die("Cannot fork into background without a command to execute.");
	if (g.op.refuse)
		op_die("connection refused by the configuration: %s", g.op.refuse);
	main_check_fallback();
	if (g.op.stdin_null)
		fd_null(STDIN_FILENO);
	if (g.op.control_path && (g.op.master == OP_MASTER_NO || g.op.master >= OP_MASTER_AUTO)) {
		int status;
		if (main_ride(&status) ||
			(g.op.master >= OP_MASTER_AUTO && main_ride_along(&status)))
			return status;
	}
	return main_connect();
}
