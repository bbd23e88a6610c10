/* linux.h - what sshmux.c needs of the system beyond POSIX.
 *
 * port/linux.c implements it for Linux; another system needs another file like it.
 * No function here waits, keeps state or allocates (except os_has_address() and
 * os_next_name(), which are for start-up).  What an older kernel, or a jail without
 * /proc, does not have gives the results below, never an error that would end the
 * program.  Returned descriptors are close-on-exec; the caller closes them.
 */
#ifndef SSHMUX_LINUX_H
#define SSHMUX_LINUX_H

#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>

/* The process at the other end of a Unix socket; all -1 if unknown. */
struct os_peer {
	int pid;
	uid_t uid;
	gid_t gid;
};
struct os_peer os_peer(int fd);

/* Whether that process is in a group, its first one or another. */
bool os_peer_in_group(int fd, gid_t group);

/* The name of a process's program, terminated; "" if unknown. */
void os_program(int pid, char *to, size_t size);

/* The path of our own program, terminated; false if unknown. */
bool os_self(char *to, size_t size);

/* Asks for `wanted` descriptors; returns how many we may have. */
unsigned long os_allow_descriptors(unsigned long wanted);

/* Closes all descriptors from `first` on, if the kernel can. */
void os_close_from(unsigned first);

/* Opens the pipe or terminal behind fd again, so that it never waits and nobody shares its
 * flags; -1 if that fails.  Does not open what would become something else: /dev/tty, a
 * pty's master. */
int os_reopen(int fd, int flags, const struct stat *st);

/* Whether it is /dev/null. */
bool os_is_null(const struct stat *st);

/* Whether reading and writing it never waits: a file, /dev/null, /dev/zero, /dev/full,
 * /dev/urandom. */
bool os_never_waits(const struct stat *st);

/* Whether fd is a file on a network file system. */
bool os_is_networked(int fd);

/* Finds the name in a directory that matches a pattern of glob(3) and comes next after `last`
 * in order, as if `end` followed each name; puts it in `last`, false if there is none. */
bool os_next_name(const char *directory, const char *pattern, char end, char last[NAME_MAX + 1]);

/* The address of a path or, with `abstract`, of a name that is in no file system and
 * disappears with its owner (unix(7)); returns its length, 0 with ENAMETOOLONG. */
socklen_t os_unix_address(struct sockaddr_un *a, const char *text, bool abstract);

/* Sends the text as a datagram to the socket at a path, or with '@' before it, of an abstract
 * name; false if it cannot be sent at once. */
bool os_tell(const char *path, const char *text);

/* Keeps the kernel's queue of unsent bytes short: limits it to `bytes`, or the send buffer
 * to `buffer` bytes on kernels without that limit. */
void os_keep_unsent(int fd, int bytes, int buffer);

/* Bytes that the kernel has not sent yet; 0 if unknown. */
int os_unsent(int fd);

/* Has poll() report a TCP socket as readable only when that many bytes have come; its end and
 * errors always.  Other sockets report each byte. */
void os_gather(int fd, int bytes);

/* A set of descriptors that is one itself: it is readable while poll() would report one of
 * them; -1 if there is none.  A member leaves it when it is closed here and everywhere. */
int os_new_set(void);

/* Adds p->fd with p->events; false if it cannot be in a set, as a file. */
bool os_add_to_set(int set, const struct pollfd *p);

/* A descriptor that becomes readable when addresses or interfaces change; -1 if there is
 * none. */
int os_watch_network(void);

/* Whether a connection's local address and its route to the peer are still right; sends no
 * packet.  OS_SAME for one that is not IP. */
enum os_route { OS_SAME, OS_OTHER, OS_NO_ADDRESS, OS_NO_ROUTE };
enum os_route os_route(int connection);

/* Whether the first `bits` bits are the same. */
bool os_same_bits(const uint8_t *a, const uint8_t *b, int bits);

/* Whether an interface that is up has an address with the same first `bits` bits as `net`:
 * 1 or 0; -1 with errno if the system does not say. */
int os_has_address(int family, const uint8_t *net, int bits);

/* The modes of a terminal as a pty request has them (RFC 4254, 8), only the end mark if fd is
 * none; returns their length. */
#define OS_MODES 320
size_t os_terminal_modes(int fd, uint8_t to[OS_MODES]);

/* Sets the modes that ssh sets for a session: each byte at once, unchanged. */
void os_terminal_raw(struct termios *t);

#endif
