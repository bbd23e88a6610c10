/* config.h - every limit of sshmux: what it is, what a user sees when it is
 * reached, and what it costs in bytes of static memory.
 *
 * Two profiles.  PROFILE=router (make PROFILE=router) is for devices with
 * 32 MB of memory, the default is for everything larger.  Any name may be set
 * on the compiler's command line instead (make CPPFLAGS=-DFORWARDS=100).  A number
 * out of its range (LIMITS, below), or two that contradict each other, do not
 * compile.  `make ram` prints the bill.
 */
#ifndef SSHMUX_CONFIG_H
#define SSHMUX_CONFIG_H

#define SSHMUX_VERSION "0.2.0"

#ifdef PROFILE_ROUTER
#define BY_PROFILE(router, large) (router)
#define PROFILE_NAME "router"
#else
#define BY_PROFILE(router, large) (large)
#define PROFILE_NAME "default"
#endif

/* --- how many ------------------------------------------------------------ */

/* Programs connected to the control socket at once.  Further ones wait in the kernel's
 * queue (LISTEN_BACKLOG) until one leaves.
 * Cost: CLIENTS * sizeof(struct client), about 384 bytes each. */
#ifndef CLIENTS
#define CLIENTS BY_PROFILE(64, 256)
#endif

/* SSH channels at once: sessions, forwarded connections, proxied channels.  Beyond that,
 * sessions wait (SESSION_WAIT_MS) and forwarded connections are closed.
 * Cost: CHANNELS * (sizeof(struct channel) + WINDOW_MIN_BLOCKS * WINDOW_BLOCK), about 152
 * + 384 bytes each. */
#ifndef CHANNELS
#define CHANNELS BY_PROFILE(96, 512)
#endif

/* Sessions at once, out of CHANNELS.  Further ones wait, then are refused with "Session
 * open refused by peer".  Costs nothing more. */
#ifndef SESSIONS
#define SESSIONS BY_PROFILE(32, 256)
#endif

/* Forwards at once, from options and from clients.  A further one is refused
 * with "too many forwards".  Cost: FORWARDS * sizeof(struct
 * forward), about 2 * FORWARD_HOST + 160 bytes each. */
#ifndef FORWARDS
#define FORWARDS BY_PROFILE(24, 64)
#endif

/* Longest host name or socket path of a forward, with its NUL. */
#ifndef FORWARD_HOST
#define FORWARD_HOST BY_PROFILE(128, 256)
#endif

/* Forwarded connections at once that resolve a name or connect.  Further ones wait, up to
 * CONNECT_MS.
 * Cost: about 400 bytes each. */
#ifndef CONNECTORS
#define CONNECTORS BY_PROFILE(8, 32)
#endif

/* X displays at once, one for each session that asks for one.  A further session runs
 * without one, and its client gets a message.
 * Cost: 92 bytes each. */
#ifndef DISPLAYS
#define DISPLAYS BY_PROFILE(4, 32)
#endif

/* Askpass programs at once (ControlMaster=ask); further questions wait.
 * Cost: 24 bytes each. */
#ifndef ASKERS
#define ASKERS BY_PROFILE(2, 4)
#endif

/* --- requests ------------------------------------------------------------- */

/* Longest request body: command + environment + TERM with their lengths.
 * A longer one is answered with FAILURE "request too long".
 * Cost: see REQUEST_POOL. */
#ifndef REQUEST_MAX
#define REQUEST_MAX BY_PROFILE(25088, 100352)
#endif

/* Memory for request bodies until their channels are open; each takes only its own length.
 * While it is full, further requests stay unread in their sockets.
 * Cost: REQUEST_POOL bytes. */
#ifndef REQUEST_POOL
#define REQUEST_POOL (2 * REQUEST_MAX)
#endif

/* Requests held in REQUEST_POOL at once.
 * Cost: 8 bytes each. */
#ifndef REQUESTS
#define REQUESTS BY_PROFILE(16, 64)
#endif

/* Environment variables sent to a session, the master's own SetEnv included;
 * further ones are dropped.  Costs nothing. */
#ifndef ENV_VARIABLES
#define ENV_VARIABLES 256
#endif

/* --- windows -------------------------------------------------------------- */

/* The window pool: bytes received for readers that are not ready, and the bytes we have
 * promised to take (advertised windows).  One busy channel alone gets about half of it;
 * its throughput is at most window / round-trip time.  A multiple of WINDOW_BLOCK.
 * Cost: WINDOW_POOL + 2 bytes a block. */
#ifndef WINDOW_POOL
#define WINDOW_POOL (BY_PROFILE(88, 1376) * 1024)
#endif

/* Block size of the pool.  Smaller blocks waste less per channel, larger ones cost fewer
 * system calls. */
#ifndef WINDOW_BLOCK
#define WINDOW_BLOCK 128
#endif

/* Blocks reserved for every channel.  Two streams of a session may each leave one block
 * partly filled, so the smallest window is WINDOW_MIN_BLOCKS * WINDOW_BLOCK - 2 *
 * (WINDOW_BLOCK - 1) = 130 bytes.
 * Cost: taken out of the pool, CHANNELS times. */
#ifndef WINDOW_MIN_BLOCKS
#define WINDOW_MIN_BLOCKS 3
#endif

/* First window of a new channel.  While at most WINDOW_EARLY percent of the pool's free
 * part are promised, it is WINDOW_START.  After that, it is the WINDOW_SHAREth part of
 * what the channel may have, and grows fourfold with each round trip that the reader keeps
 * up with.  Channels that have had no data yet hold at most WINDOW_IDLE percent together:
 * what they hold is lost to a busy one, whose window must not become too small.
 * Costs nothing. */
#ifndef WINDOW_SHARE
#define WINDOW_SHARE BY_PROFILE(16, 32)
#endif
#ifndef WINDOW_START
#define WINDOW_START (BY_PROFILE(12, 256) * 1024)
#endif
#ifndef WINDOW_EARLY
#define WINDOW_EARLY BY_PROFILE(40, 45)
#endif
#ifndef WINDOW_IDLE
#define WINDOW_IDLE 50
#endif

/* Seconds without data after which a window refills only to what WINDOW_SHARE gives.
 * Costs nothing. */
#ifndef WINDOW_SILENCE
#define WINDOW_SILENCE 5
#endif

/* Bytes for the server's channel requests (exit-status, exit-signal) that wait until a
 * proxy client has taken the data before them.  A client that needs more is dropped.
 * Cost: CHANNELS * (PROXY_STORE + 28) bytes. */
#ifndef PROXY_STORE
#define PROXY_STORE 48
#endif

/* --- transport (port/dropbear) -------------------------------------------- */

/* All memory that dropbear allocates.  When it is full, the connection ends with "out of
 * transport memory".  Signing with an RSA-4096 key needs 172 KB, with RSA-2048 or a
 * finite-field group 65 KB.
 * Cost: ARENA_SIZE. */
#ifndef ARENA_SIZE
#define ARENA_SIZE (BY_PROFILE(72, 480) * 1024)
#endif

/* Longest RSA key of the user that can sign within ARENA_SIZE; a longer one is ignored,
 * with a message.  Costs nothing. */
#ifndef RSA_BITS_MAX
#define RSA_BITS_MAX BY_PROFILE(2048, 4096)
#endif

/* Longest message we send.  Bounds the command (an 8 KB one must fit).
 * Cost: inside the arena, about twice. */
#ifndef PAYLOAD_MAX
#define PAYLOAD_MAX BY_PROFILE(10240, 32 * 1024 + 16)
#endif

/* Bytes read from the network at once.
 * Cost: NET_READ_SIZE. */
#ifndef NET_READ_SIZE
#define NET_READ_SIZE BY_PROFILE(4 * 1024, 64 * 1024)
#endif

/* Longest channel data we let the server send in one message.
 * Cost: inside the arena, twice. */
#ifndef PACKET_MAX
#define PACKET_MAX BY_PROFILE(8 * 1024, 32 * 1024 - 64)
#endif

/* Bytes of bulk data that may wait for the network's socket; the rest of NET_QUEUE is for
 * opens and requests.  Costs nothing. */
#ifndef BULK_QUEUE
#define BULK_QUEUE (NET_QUEUE * 3 / 4)
#endif

/* Longest message of bulk data, and most bytes of it that may wait, while more than one
 * channel is open.
 * Costs nothing. */
#ifndef BULK_PACKET
#define BULK_PACKET 4096
#endif

/* Input is short, and goes before bulk, if at most this many bytes wait.
 * Costs nothing. */
#ifndef SHORT_INPUT
#define SHORT_INPUT 512
#endif

/* Bytes of those that wait for a reader which one write offers; a pipe has room for no
 * more.  Costs nothing. */
#ifndef WRITE_MOST
#define WRITE_MOST 65536
#endif

/* Bytes that a channel may send before the others get their turns.
 * Costs nothing. */
#ifndef SEND_QUANTUM
#define SEND_QUANTUM 8192
#endif

/* Bulk goes in large pieces while no other channel has data to send and the network takes
 * more than BULK_QUEUE in FAST_MS milliseconds.  Then FAST_QUEUE and FAST_QUANTUM replace
 * NET_QUEUE and SEND_QUANTUM, and our queue and the kernel's together may hold what the
 * network takes in FAST_MS.
 * Cost: FAST_QUEUE inside the arena. */
#ifndef FAST_QUEUE
#define FAST_QUEUE BY_PROFILE(NET_QUEUE, 256 * 1024)
#endif
#ifndef FAST_QUANTUM
#define FAST_QUANTUM BY_PROFILE(SEND_QUANTUM, 128 * 1024)
#endif
#ifndef FAST_MS
#define FAST_MS 5
#endif

/* Bytes that a channel may have in flight, sent but not taken by the server's program,
 * when the connection is new and the server OpenSSH.  The limit doubles while a round trip
 * of FLIGHT_NEAR ms or more is longer than these take, or if the server gives no window for
 * FLIGHT_MS ms; at FLIGHT_MOST there is none.  It is FLIGHT_FAST at most where the server
 * takes what is in flight in less than FLIGHT_NEAR ms.
 * Costs nothing. */
#ifndef FLIGHT
#define FLIGHT (256 * 1024)
#endif
#ifndef FLIGHT_FAST
#define FLIGHT_FAST (512 * 1024)
#endif
#ifndef FLIGHT_MOST
#define FLIGHT_MOST (64 * 1024 * 1024)
#endif
#ifndef FLIGHT_NEAR
#define FLIGHT_NEAR 5
#endif
#ifndef FLIGHT_MS
#define FLIGHT_MS 800
#endif

/* While QUICK_BYTES move within QUICK_MS milliseconds, the loop looks only that often at
 * clients whose session runs, and at channels that have been silent for QUIET_MS and have
 * no terminal.
 * Costs nothing. */
#ifndef QUICK_BYTES
#define QUICK_BYTES (16 * 1024)
#endif
#ifndef QUICK_MS
#define QUICK_MS FAST_MS
#endif

/* Nothing of a packet can be used before its last byte.  So the loop is not woken before the
 * rest of one has come, if that is GATHER_LEAST bytes or more, or PACKET_MS milliseconds have
 * passed.  While only downloads come, each turn's bytes within GATHER_MS after the last one's,
 * it waits for GATHER bytes or a quarter of the window, but no longer than for another
 * GATHER_MS; 1: never.
 * Cost: as much of the kernel's memory. */
#ifndef GATHER
#define GATHER BY_PROFILE(1, 64 * 1024)
#endif
#ifndef GATHER_LEAST
#define GATHER_LEAST 4096
#endif
#ifndef GATHER_MS
#define GATHER_MS 1
#endif
#ifndef PACKET_MS
#define PACKET_MS 20
#endif

/* After so many milliseconds in which only data moved, fast, the silent ones are watched as
 * one, and are looked at one by one no more often than that.
 * Cost: a descriptor. */
#ifndef SILENT_MS
#define SILENT_MS 50
#endif

/* RateLimit: the most that may go at once is what its rate moves in this time.
 * Costs nothing. */
#ifndef RATE_MS
#define RATE_MS 50
#endif

/* How long bulk goes in small pieces after short input of another channel. */
#ifndef QUIET_MS
#define QUIET_MS 1000
#endif

/* Unsent bytes in the kernel's queue before it says it is full
 * (TCP_NOTSENT_LOWAT).  Cost: kernel memory. */
#ifndef NET_UNSENT
#define NET_UNSENT BY_PROFILE(8 * 1024, 32 * 1024)
#endif

/* NET_UNSENT while more than one channel is open. */
#ifndef NET_UNSENT_SHARED
#define NET_UNSENT_SHARED 2048
#endif

/* Encrypted bytes that may wait for the network's socket; then channels stop reading their
 * input.  A short queue lets us choose late what goes next.
 * Cost: inside the arena. */
#ifndef NET_QUEUE
#define NET_QUEUE BY_PROFILE(12 * 1024, 32 * 1024)
#endif

/* Longest line of a known_hosts file; a longer one is skipped.
 * Cost: KNOWN_HOSTS_LINE. */
#ifndef KNOWN_HOSTS_LINE
#define KNOWN_HOSTS_LINE 4096
#endif

/* --- time, milliseconds --------------------------------------------------- */

/* From the first byte of a request to its last descriptor; then the client is
 * dropped. */
#ifndef REQUEST_MS
#define REQUEST_MS 10000
#endif

/* From accept to the client's HELLO. */
#ifndef HELLO_MS
#define HELLO_MS 10000
#endif

/* How long a session waits for a free channel (-o SessionWait). */
#ifndef SESSION_WAIT_MS
#define SESSION_WAIT_MS 15000
#endif

/* Connect and login together when ConnectTimeout is not given. */
#ifndef LOGIN_MS
#define LOGIN_MS 120000
#endif

/* How long a key re-exchange may go on while we neither send a byte nor receive a
 * message. */
#ifndef EXCHANGE_MS
#define EXCHANGE_MS 60000
#endif

/* How long a forwarded connection may take to connect, and to make its SOCKS
 * request or its X11 greeting. */
#ifndef CONNECT_MS
#define CONNECT_MS 30000
#endif
#ifndef SOCKS_MS
#define SOCKS_MS 30000
#endif

/* A connection that lasted this long resets the back-off. */
#ifndef RECONNECT_HELD_MS
#define RECONNECT_HELD_MS 60000
#endif

/* Time until the next try when accept() failed or a client's descriptors did not fit. */
#ifndef ACCEPT_MS
#define ACCEPT_MS 1000
#endif

/* How often the master looks whether its control socket is still at its path. */
#ifndef US_LOOK_MS
#define US_LOOK_MS 60000
#endif

/* How long the server may take to answer after SIGUSR1. */
#ifndef PROBE_MS
#define PROBE_MS 10000
#endif

/* How long we trust the server's limit of sessions after a refusal. */
#ifndef SESSION_LIMIT_MS
#define SESSION_LIMIT_MS 60000
#endif

/* How long after a session's end a refusal may only mean that the server has not noticed
 * that end; also the longest time until the next try. */
#ifndef SESSION_FREED_MS
#define SESSION_FREED_MS 1000
#endif

/* How often we reopen a session that the server closed before it took the command.  Costs
 * nothing. */
#ifndef REOPENS
#define REOPENS 4
#endif

/* How often we ask terminals for their size, besides SIGWINCH. */
#ifndef TT_RESIZE_MS
#define TT_RESIZE_MS 1000
#endif

/* How long the user may take to answer a question (ControlMaster=ask); then the
 * answer is no. */
#ifndef ASK_MS
#define ASK_MS 120000
#endif

/* How long xauth may take to print a display's cookie.  Programs at the server that want
 * the display wait for it; after that they go on without a cookie. */
#ifndef XAUTH_MS
#define XAUTH_MS 5000
#endif

/* How long we flush output to clients and say goodbye at the end. */
#ifndef FAREWELL_MS
#define FAREWELL_MS 2000
#endif

/* --- the rest ------------------------------------------------------------- */

/* The askpass program unless SSH_ASKPASS names one. */
#ifndef ASKPASS
#define ASKPASS "/usr/bin/ssh-askpass"
#endif

/* Directory of the system's configuration file and of what that includes. */
#ifndef CONFIG_DIRECTORY
#define CONFIG_DIRECTORY "/etc/sshmux/"
#endif

/* Depth of configuration files that include one another; one more is an error.
 * Cost: PATH_MAX bytes of stack each, and 2 * NAME_MAX a pattern with wildcards. */
#ifndef INCLUDE_DEPTH
#define INCLUDE_DEPTH 16
#endif

/* Files that one pattern of an Include may name; one more is an error.
 * Costs time: we read the directory once for each file. */
#ifndef INCLUDE_FILES
#define INCLUDE_FILES 256
#endif

/* ProxyJump hosts in a row; one more is taken for a loop.
 * Costs nothing. */
#ifndef JUMPS
#define JUMPS 16
#endif

/* Seconds that `-O list` gives a master to answer.  Costs nothing. */
#ifndef LIST_SECONDS
#define LIST_SECONDS 5
#endif

#ifndef LISTEN_BACKLOG
#define LISTEN_BACKLOG 128
#endif

/* Private keys (-i), known_hosts files, pins, environment patterns and
 * variables that options can name.  Further ones are an error at start.
 * Cost: 8 bytes each. */
#ifndef OPTION_LIST
#define OPTION_LIST 16
#endif

/* Working space within one function: skipped bytes, SOCKS requests, the texts of
 * `-O conninfo` and `-O channels` (longer ones are cut at a line's end).
 * Cost: SCRATCH. */
#ifndef SCRATCH
#define SCRATCH BY_PROFILE(4096, 16384)
#endif

/* Option texts that we keep: users, paths with the home directory put in.
 * Cost: OPTION_TEXT. */
#ifndef OPTION_TEXT
#define OPTION_TEXT 4096
#endif

/* Addresses of one host that are tried.  Cost: 28 bytes each. */
#ifndef ADDRESSES
#define ADDRESSES 8
#endif

/* How long EventCommand may run, ms; then it is killed.  Costs nothing. */
#ifndef EVENT_MS
#define EVENT_MS 30000
#endif

/* How many of the last events -O log and -O watch --since remember.
 * Cost: 52 + EVENT_TEXT bytes each. */
#ifndef EVENTS
#define EVENTS BY_PROFILE(16, 64)
#endif

/* Bytes of an event's text, with its NUL.  A longer text is cut. */
#ifndef EVENT_TEXT
#define EVENT_TEXT BY_PROFILE(44, 124)
#endif

/* Bytes of a session's command that reports show, with its NUL.
 * Cost: COMMAND_TEXT + about 36 bytes a session. */
#ifndef COMMAND_TEXT
#define COMMAND_TEXT BY_PROFILE(47, 201)
#endif

/* Bytes of a host to resolve, or of a program's words and variables, for the helper.
 * A longer one is not started.  Cost: on the stack only. */
#ifndef JOB_TEXT
#define JOB_TEXT 4096
#endif

/* How long the master waits for its helper to fork, ms.  Costs nothing. */
#ifndef HELPER_MS
#define HELPER_MS 1000
#endif

/* Bytes of a command's pattern in ControlAllow, with its NUL.  A longer one is an error.
 * Cost: on the stack only. */
#ifndef COMMAND_PATTERN
#define COMMAND_PATTERN 256
#endif

/* Longest answer that waits to be written to one client.  We do not read from a client
 * that does not read its answers.
 * Cost: CLIENTS times. */
#ifndef REPLY_MAX
#define REPLY_MAX 192
#endif

/* --- ranges ---------------------------------------------------------------- */

/* The least and the most that every number above may be.  Outside of it, nothing that
 * includes this file compiles.  tests/live/06-limits.sh fails when a name is missing here.
 * The unit tests use the smallest pools. */
#define LIMITS(LIMIT) \
	LIMIT(CLIENTS, 2, 1024) \
	LIMIT(CHANNELS, 2, 2048) \
	LIMIT(SESSIONS, 1, 1024) \
	LIMIT(FORWARDS, 1, 256) \
	LIMIT(FORWARD_HOST, 108, 256) \
	LIMIT(CONNECTORS, 1, 64) \
	LIMIT(DISPLAYS, 1, 32) \
	LIMIT(ASKERS, 1, 64) \
	LIMIT(REQUEST_MAX, 1024, 262144) \
	LIMIT(REQUEST_POOL, 1024, 2097152) \
	LIMIT(REQUESTS, 2, 1024) \
	LIMIT(ENV_VARIABLES, 0, 65536) \
	LIMIT(EVENT_MS, 1000, 600000) \
	LIMIT(EVENTS, 2, 1024) \
	LIMIT(EVENT_TEXT, 24, 255) \
	LIMIT(COMMAND_TEXT, 16, 255) \
	LIMIT(JOB_TEXT, 1024, 65536) \
	LIMIT(HELPER_MS, 100, 60000) \
	LIMIT(COMMAND_PATTERN, 16, 4096) \
	LIMIT(WINDOW_POOL, 4096, 4194304) \
	LIMIT(WINDOW_BLOCK, 64, 4096) \
	LIMIT(WINDOW_MIN_BLOCKS, 3, 64) \
	LIMIT(WINDOW_SHARE, 1, 1024) \
	LIMIT(WINDOW_START, 1024, 4194304) \
	LIMIT(WINDOW_EARLY, 0, 90) \
	LIMIT(WINDOW_IDLE, 0, 100) \
	LIMIT(WINDOW_SILENCE, 1, 3600) \
	LIMIT(PROXY_STORE, 40, 255) \
	LIMIT(ARENA_SIZE, 49152, 1048576) \
	LIMIT(RSA_BITS_MAX, 2048, 4096) \
	LIMIT(PAYLOAD_MAX, 10240, 32784) \
	LIMIT(NET_READ_SIZE, 2048, 65536) \
	LIMIT(PACKET_MAX, 1024, 32704) \
	LIMIT(BULK_QUEUE, 1024, 262144) \
	LIMIT(BULK_PACKET, 512, 32768) \
	LIMIT(SHORT_INPUT, 1, 1048576) \
	LIMIT(WRITE_MOST, 4096, 16777216) \
	LIMIT(SEND_QUANTUM, 512, 1048576) \
	LIMIT(NET_UNSENT, 2048, 1048576) \
	LIMIT(NET_UNSENT_SHARED, 1024, 1048576) \
	LIMIT(NET_QUEUE, 4096, 262144) \
	LIMIT(FAST_QUEUE, 4096, 524288) \
	LIMIT(FAST_QUANTUM, 512, 1048576) \
	LIMIT(FAST_MS, 1, 100) \
	LIMIT(FLIGHT, 1024, 67108864) \
	LIMIT(FLIGHT_FAST, 1024, 67108864) \
	LIMIT(FLIGHT_MOST, 65536, 1073741824) \
	LIMIT(FLIGHT_NEAR, 0, 10000) \
	LIMIT(FLIGHT_MS, 10, 60000) \
	LIMIT(QUIET_MS, 0, 60000) \
	LIMIT(QUICK_BYTES, 1, 1048576) \
	LIMIT(QUICK_MS, 0, 100) \
	LIMIT(GATHER, 1, 1048576) \
	LIMIT(GATHER_LEAST, 1, 1048576) \
	LIMIT(GATHER_MS, 1, 100) \
	LIMIT(PACKET_MS, 1, 10000) \
	LIMIT(SILENT_MS, 0, 1000) \
	LIMIT(RATE_MS, 1, 1000) \
	LIMIT(KNOWN_HOSTS_LINE, 1024, 16384) \
	LIMIT(REQUEST_MS, 100, 86400000) \
	LIMIT(HELLO_MS, 100, 86400000) \
	LIMIT(SESSION_WAIT_MS, 1000, 86400000) \
	LIMIT(LOGIN_MS, 1000, 86400000) \
	LIMIT(EXCHANGE_MS, 1000, 86400000) \
	LIMIT(CONNECT_MS, 100, 86400000) \
	LIMIT(SOCKS_MS, 100, 86400000) \
	LIMIT(RECONNECT_HELD_MS, 0, 86400000) \
	LIMIT(ACCEPT_MS, 10, 86400000) \
	LIMIT(US_LOOK_MS, 100, 86400000) \
	LIMIT(PROBE_MS, 100, 86400000) \
	LIMIT(SESSION_LIMIT_MS, 0, 86400000) \
	LIMIT(SESSION_FREED_MS, 0, 86400000) \
	LIMIT(REOPENS, 0, 255) \
	LIMIT(TT_RESIZE_MS, 10, 86400000) \
	LIMIT(ASK_MS, 1000, 86400000) \
	LIMIT(XAUTH_MS, 100, 86400000) \
	LIMIT(FAREWELL_MS, 0, 86400000) \
	LIMIT(INCLUDE_DEPTH, 1, 64) \
	LIMIT(INCLUDE_FILES, 1, 65536) \
	LIMIT(JUMPS, 1, 64) \
	LIMIT(LIST_SECONDS, 1, 86400) \
	LIMIT(LISTEN_BACKLOG, 1, 65535) \
	LIMIT(OPTION_LIST, 4, 1024) \
	LIMIT(SCRATCH, 2048, 32768) \
	LIMIT(OPTION_TEXT, 1024, 262144) \
	LIMIT(ADDRESSES, 1, 128) \
	LIMIT(REPLY_MAX, 128, 4096)

#define LIMIT_CHECK(name, least, most) \
	_Static_assert((name) >= (least) && (name) <= (most), \
		#name " is not in " #least ".." #most);
LIMITS(LIMIT_CHECK)

/* What must hold between two of them. */
_Static_assert(SESSIONS <= CHANNELS, "more SESSIONS than CHANNELS");
_Static_assert(SESSIONS <= CLIENTS, "every session has a client: more SESSIONS than CLIENTS");
_Static_assert(REQUEST_POOL >= REQUEST_MAX, "REQUEST_MAX does not fit in REQUEST_POOL");
_Static_assert(REQUESTS <= CLIENTS, "more REQUESTS than CLIENTS");
_Static_assert(WINDOW_POOL % WINDOW_BLOCK == 0, "WINDOW_POOL must be whole WINDOW_BLOCKs");
_Static_assert(WINDOW_POOL / WINDOW_BLOCK < 0xffff,
	"WINDOW_POOL has more WINDOW_BLOCKs than numbers");
_Static_assert(CHANNELS * WINDOW_MIN_BLOCKS <= WINDOW_POOL / WINDOW_BLOCK * 3 / 4,
	"WINDOW_POOL is too small for CHANNELS");
_Static_assert(REPLY_MAX >= PROXY_STORE + 40, "a relayed request must fit in REPLY_MAX");
_Static_assert(ARENA_SIZE % 8 == 0, "ARENA_SIZE must be a multiple of 8");
_Static_assert(ARENA_SIZE >= 2 * (PAYLOAD_MAX + PACKET_MAX) + FAST_QUEUE,
	"ARENA_SIZE is too small for PAYLOAD_MAX, PACKET_MAX and FAST_QUEUE");
_Static_assert(RSA_BITS_MAX <= 2048 || ARENA_SIZE >= 172 * 1024,
	"ARENA_SIZE is too small for RSA_BITS_MAX");
_Static_assert(FLIGHT < FLIGHT_MOST, "FLIGHT is a part of FLIGHT_MOST");
_Static_assert(BULK_QUEUE <= NET_QUEUE, "BULK_QUEUE is a part of NET_QUEUE");
_Static_assert(NET_QUEUE <= FAST_QUEUE, "NET_QUEUE is a part of FAST_QUEUE");
_Static_assert(BULK_PACKET <= BULK_QUEUE, "BULK_PACKET does not fit in BULK_QUEUE");
_Static_assert(SHORT_INPUT <= SEND_QUANTUM, "SHORT_INPUT is sent in one SEND_QUANTUM");
_Static_assert(NET_UNSENT_SHARED <= NET_UNSENT, "NET_UNSENT_SHARED is a part of NET_UNSENT");

#endif
