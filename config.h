/* config.h - every limit of sshmux: what it is, what a user sees when it is
 * reached, and what it costs in bytes of static memory.
 *
 * Two profiles.  PROFILE=router (make PROFILE=router) is for devices with
 * 32 MB of memory, the default is for everything larger.  Any name may be set
 * on the compiler's command line instead (make CPPFLAGS=-DFORWARDS=100); sshmux.c refuses to
 * compile when settings contradict each other.  `make ram` prints the bill.
 */
#ifndef SSHMUX_CONFIG_H
#define SSHMUX_CONFIG_H

#define SSHMUX_VERSION "0.1.0"

#ifdef PROFILE_ROUTER
#define BY_PROFILE(router, large) (router)
#define PROFILE_NAME "router"
#else
#define BY_PROFILE(router, large) (large)
#define PROFILE_NAME "default"
#endif

/* --- how many ------------------------------------------------------------ */

/* Programs connected to the control socket at once.  Further ones wait in the
 * kernel's queue (LISTEN_BACKLOG) until a place is free.
 * Range 2..1024.  Cost: CLIENTS * sizeof(struct client), about 384 bytes each. */
#ifndef CLIENTS
#define CLIENTS BY_PROFILE(64, 256)
#endif

/* SSH channels at once: sessions, forwarded connections, proxied channels.
 * Beyond it sessions wait (SESSION_WAIT_MS), forwarded connections are closed.
 * Range 2..2048.  Cost: CHANNELS * (sizeof(struct channel) + WINDOW_MIN_BLOCKS *
 * WINDOW_BLOCK), about 216 + 384 bytes each. */
#ifndef CHANNELS
#define CHANNELS BY_PROFILE(96, 512)
#endif

/* Of those, sessions at once.  Beyond it they wait, then are refused with
 * "Session open refused by peer".  Range 1..CHANNELS.  Costs nothing more. */
#ifndef SESSIONS
#define SESSIONS BY_PROFILE(32, 256)
#endif

/* Forwards at once, from options and from clients.  A further one is refused
 * with "too many forwards".  Range 1..256.  Cost: FORWARDS * sizeof(struct
 * forward), about 2 * FORWARD_HOST + 160 bytes each. */
#ifndef FORWARDS
#define FORWARDS BY_PROFILE(24, 64)
#endif

/* Longest host name or socket path of a forward, its end mark included.
 * Range 108..256. */
#ifndef FORWARD_HOST
#define FORWARD_HOST BY_PROFILE(128, 256)
#endif

/* Names being resolved and connections being made for forwards at once.
 * Beyond it they wait their turn, up to CONNECT_MS.
 * Range 1..64.  Cost: about 400 bytes each. */
#ifndef CONNECTORS
#define CONNECTORS BY_PROFILE(8, 32)
#endif

/* Askpass programs at once (ControlMaster=ask); further questions wait.
 * Range 1..64.  Cost: 24 bytes each. */
#ifndef ASKERS
#define ASKERS BY_PROFILE(2, 4)
#endif

/* --- requests ------------------------------------------------------------- */

/* Longest request body: command + environment + TERM with their lengths.
 * A longer one is answered with FAILURE "request too long".
 * Range 1024..262144.  Cost: see REQUEST_POOL. */
#ifndef REQUEST_MAX
#define REQUEST_MAX 25088
#endif

/* Where request bodies wait until their channel is open, each in as many bytes
 * as it has.  While it is full, further requests stay unread in their sockets.
 * Range REQUEST_MAX..1 MiB.  Cost: REQUEST_POOL bytes. */
#ifndef REQUEST_POOL
#define REQUEST_POOL (BY_PROFILE(2, 8) * REQUEST_MAX)
#endif

/* Requests held in REQUEST_POOL at once.  Range 2..CLIENTS.
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

/* The window pool: bytes received for readers that are not ready, and the
 * promise (advertised window) to take more.  One busy channel alone gets about
 * half of it; its throughput is at most window / round-trip time.
 * Range 32 KiB..4 MiB, a multiple of WINDOW_BLOCK.
 * Cost: WINDOW_POOL + 2 bytes a block. */
#ifndef WINDOW_POOL
#define WINDOW_POOL (BY_PROFILE(88, 1280) * 1024)
#endif

/* Grain of the pool.  Smaller wastes less per channel, larger costs fewer
 * system calls.  Range 64..4096. */
#ifndef WINDOW_BLOCK
#define WINDOW_BLOCK 128
#endif

/* Blocks that every channel can always have.  Two streams of a session may
 * each leave one block partly filled, so the smallest window is
 * WINDOW_MIN_BLOCKS * WINDOW_BLOCK - 2 * (WINDOW_BLOCK - 1) = 130 bytes.
 * Range 3..64.  Cost: taken out of the pool, CHANNELS times. */
#ifndef WINDOW_MIN_BLOCKS
#define WINDOW_MIN_BLOCKS 3
#endif

/* Window that a new channel starts with: this part of what it may have, and no
 * more than WINDOW_START.  A channel whose server is silent keeps it, so more for
 * each is less for those that come later; it is four times as large after each
 * round trip that its reader keeps up with.  WINDOW_SHARE in the range 1..1024.
 * Cost nothing. */
#ifndef WINDOW_SHARE
#define WINDOW_SHARE BY_PROFILE(16, 32)
#endif
#ifndef WINDOW_START
#define WINDOW_START (32 * 1024)
#endif

/* Channel requests of the server (exit-status, exit-signal) that wait for a
 * proxy client to take the data before them.  A client for whom more must wait
 * is dropped.  Range 40..152.  Cost: CHANNELS * (PROXY_STORE + 28) bytes. */
#ifndef PROXY_STORE
#define PROXY_STORE 48
#endif

/* --- transport (port/dropbear) -------------------------------------------- */

/* Everything dropbear allocates.  When it is full the connection ends with
 * "out of transport memory".  Signing with an RSA-4096 key needs 172 KB,
 * RSA-2048 or a finite-field group 65 KB.  Range 48 KiB..1 MiB.
 * Cost: ARENA_SIZE. */
#ifndef ARENA_SIZE
#define ARENA_SIZE (BY_PROFILE(72, 192) * 1024)
#endif

/* Longest RSA key of the user's that ARENA_SIZE has room to sign with; a longer
 * one is ignored, and said to be.  Range 2048..4096.  Costs nothing. */
#ifndef RSA_BITS_MAX
#define RSA_BITS_MAX BY_PROFILE(2048, 4096)
#endif

/* Longest message we send.  Bounds the command (an 8 KB one must fit).
 * Range 10240..32768.  Cost: inside the arena, about twice. */
#ifndef PAYLOAD_MAX
#define PAYLOAD_MAX BY_PROFILE(10240, 16384)
#endif

/* Bytes read from the network at once.  Range 2048..65536.
 * Cost: NET_READ_SIZE. */
#ifndef NET_READ_SIZE
#define NET_READ_SIZE BY_PROFILE(4 * 1024, 16 * 1024)
#endif

/* Longest channel data we let the server send in one message.
 * Range 1024..32700.  Cost: inside the arena, twice. */
#ifndef PACKET_MAX
#define PACKET_MAX BY_PROFILE(8 * 1024, 32 * 1024 - 64)
#endif

/* Bytes of bulk data that may wait for the network's socket: the rest of
 * NET_QUEUE is kept for opens and requests.  Costs nothing. */
#ifndef BULK_QUEUE
#define BULK_QUEUE (NET_QUEUE * 3 / 4)
#endif

/* Longest message of bulk data, and what may wait of it, while more than one
 * channel is open.
 * Range 512..32768.  Costs nothing. */
#ifndef BULK_PACKET
#define BULK_PACKET 4096
#endif

/* Unsent bytes in the kernel's queue before it says it is full
 * (TCP_NOTSENT_LOWAT).  Range 2048..1 MiB.  Cost: kernel memory. */
#ifndef NET_UNSENT
#define NET_UNSENT BY_PROFILE(8 * 1024, 32 * 1024)
#endif

/* The same while more than one channel is open. */
#ifndef NET_UNSENT_SHARED
#define NET_UNSENT_SHARED 2048
#endif

/* Encrypted bytes that wait for the network's socket before channels stop
 * reading their input.  Short, so that what goes next is decided late.
 * Range 4096..262144.  Cost: inside the arena. */
#ifndef NET_QUEUE
#define NET_QUEUE BY_PROFILE(12 * 1024, 32 * 1024)
#endif

/* Longest line of a known_hosts file; a longer one is skipped.
 * Range 1024..16384.  Cost: KNOWN_HOSTS_LINE. */
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

/* How long a forwarded connection may take to connect, and to make its SOCKS
 * request or its X11 greeting. */
#ifndef CONNECT_MS
#define CONNECT_MS 30000
#endif
#ifndef SOCKS_MS
#define SOCKS_MS 30000
#endif

/* A connection that held so long makes the next back-off start anew. */
#ifndef RECONNECT_HELD_MS
#define RECONNECT_HELD_MS 60000
#endif

/* How long the server may take to answer after SIGUSR1. */
#ifndef PROBE_MS
#define PROBE_MS 10000
#endif

/* How long the server's limit of sessions is believed after a refusal. */
#ifndef SESSION_LIMIT_MS
#define SESSION_LIMIT_MS 60000
#endif

/* How long after the end of a session a refusal may only mean that the server has
 * not noticed that end; so long, at the most, until the next try. */
#ifndef SESSION_FREED_MS
#define SESSION_FREED_MS 1000
#endif

/* How often a session is opened again that the server closed before it took the
 * command.  Range 0..255.  Costs nothing. */
#ifndef REOPENS
#define REOPENS 4
#endif

/* How often terminals are asked for their size, besides SIGWINCH. */
#ifndef TT_RESIZE_MS
#define TT_RESIZE_MS 1000
#endif

/* How long the user may take to answer a question (ControlMaster=ask); then the
 * answer is no. */
#ifndef ASK_MS
#define ASK_MS 120000
#endif

/* How long xauth may take to tell a display's cookie.  Programs at the server
 * that want the display wait for it; then they go on without a cookie. */
#ifndef XAUTH_MS
#define XAUTH_MS 5000
#endif

/* How long output is flushed to clients and goodbyes are said at the end. */
#ifndef FAREWELL_MS
#define FAREWELL_MS 2000
#endif

/* --- the rest ------------------------------------------------------------- */

/* The askpass program unless SSH_ASKPASS names one. */
#ifndef ASKPASS
#define ASKPASS "/usr/bin/ssh-askpass"
#endif

/* Where the system's configuration file is, and what it includes. */
#ifndef CONFIG_DIRECTORY
#define CONFIG_DIRECTORY "/etc/sshmux/"
#endif

/* Configuration files that include one another; one more is an error.
 * Range 1..64.  Cost: PATH_MAX + NAME_MAX bytes of stack each. */
#ifndef INCLUDE_DEPTH
#define INCLUDE_DEPTH 16
#endif

/* Files that one pattern of an Include names; further ones are left out.
 * Costs time: the directory is read once a file. */
#ifndef INCLUDE_FILES
#define INCLUDE_FILES 256
#endif

/* Hosts on the way to one another by ProxyJump; one more is taken for a loop.
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
 * Range 2048..32768.  Cost: SCRATCH. */
#ifndef SCRATCH
#define SCRATCH BY_PROFILE(4096, 16384)
#endif

/* Option texts that are kept: users, paths with the home directory put in.
 * Cost: OPTION_TEXT. */
#ifndef OPTION_TEXT
#define OPTION_TEXT 4096
#endif

/* Addresses of one host that are tried.  Cost: 28 bytes each. */
#ifndef ADDRESSES
#define ADDRESSES 8
#endif

/* Answer to one client that is being written.  A client that does not read
 * its answers is not read from.  Range 128..4096.  Cost: CLIENTS times. */
#ifndef REPLY_MAX
#define REPLY_MAX 192
#endif

#endif
