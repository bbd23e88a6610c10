/* linux.h - what sshmux.c asks of the system beyond POSIX.
 *
 * port/linux.c implements it for Linux; another system needs another file like it.
 * Nothing here waits, allocates (but os_has_address(), which is for start-up) or
 * keeps a state of its own.  Whatever an older kernel, or a jail without /proc,
 * does not have is answered as said below, never by an error that would end the
 * program.  Descriptors handed out are close-on-exec and the caller's to close.
 */
#ifndef SSHMUX_LINUX_H
#define SSHMUX_LINUX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

/* Who holds the other end of a Unix socket; all -1 if that cannot be told. */
struct os_peer {
	int pid;
	uid_t uid;
	gid_t gid;
};
struct os_peer os_peer(int fd);

/* Whether that one is in a group, by its first one or by another. */
bool os_peer_in_group(int fd, gid_t group);

/* The name of a process' program, terminated; "" if it cannot be told. */
void os_program(int pid, char *to, size_t size);

/* The path of our own program, terminated; false if it cannot be told. */
bool os_self(char *to, size_t size);

/* Asks for `wanted` descriptors; how many we may have. */
unsigned long os_allow_descriptors(unsigned long wanted);

/* Closes all descriptors from `first` on, if the kernel can do that. */
void os_close_from(unsigned first);

/* An open file description of our own for the pipe or terminal behind fd, which
 * never waits and whose flags nobody shares; -1 if there is none to be had.
 * What opens as something else is left alone: /dev/tty, a pty's master. */
int os_reopen(int fd, int flags, const struct stat *st);

/* The address of a path or, with `abstract`, of a name that stands in no file system
 * and ends with its owner (unix(7)): its length; 0 with ENAMETOOLONG. */
socklen_t os_unix_address(struct sockaddr_un *a, const char *text, bool abstract);

/* Keeps the kernel's queue of bytes that it has not sent short: a small number of
 * `bytes`, or a send buffer of `buffer` bytes where that is not known. */
void os_keep_unsent(int fd, int bytes, int buffer);

/* Bytes that the kernel has not sent yet; 0 if it does not say. */
int os_unsent(int fd);

/* A descriptor that becomes readable when addresses or interfaces change; -1 without. */
int os_watch_network(void);

/* What the system thinks of a connection's local address and its way to the peer; no
 * packet is sent.  Both are addresses of `len` bytes, of IPv4 or IPv6. */
enum os_route { OS_SAME, OS_OTHER, OS_NO_ADDRESS, OS_NO_ROUTE };
enum os_route os_route(const struct sockaddr_storage *local, const struct sockaddr_storage *peer,
	socklen_t len);

/* Whether the first `bits` bits are the same. */
bool os_same_bits(const uint8_t *a, const uint8_t *b, int bits);

/* Whether an interface that is up has an address whose first `bits` bits are those of
 * `net`: 1 or 0; -1 with errno if the system does not say. */
int os_has_address(int family, const uint8_t *net, int bits);

#endif
