/* linux.c - port/linux.h for Linux. */
#include "linux.h"
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#ifndef SIOCOUTQNSD
#define SIOCOUTQNSD 0x894b	/* linux/sockios.h, which musl's compiler wrapper does not see */
#endif

/* ===== processes */

struct os_peer os_peer(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof peer;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0)
		return (struct os_peer){ -1, (uid_t)-1, (gid_t)-1 };
	return (struct os_peer){ peer.pid, peer.uid, peer.gid };
}

bool os_peer_in_group(int fd, gid_t group)
{
	if (os_peer(fd).gid == group)
		return true;
#ifdef SO_PEERGROUPS
	gid_t groups[64];
	socklen_t len = sizeof groups;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) == 0)
		for (size_t i = 0; i < len / sizeof groups[0]; i++)
			if (groups[i] == group)
				return true;
#endif
	return false;
}

void os_program(int pid, char *to, size_t size)
{
	char path[32];
	snprintf(path, sizeof path, "/proc/%d/comm", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	ssize_t n = fd < 0 ? 0 : read(fd, to, size - 1);
	to[n > 0 ? n : 0] = 0;
	to[strcspn(to, "\n")] = 0;
	if (fd >= 0)
		close(fd);
}

bool os_self(char *to, size_t size)
{
	ssize_t n = readlink("/proc/self/exe", to, size - 1);
	to[n > 0 ? n : 0] = 0;
	return n > 0;
}

/* ===== descriptors */

unsigned long os_allow_descriptors(unsigned long wanted)
{
	struct rlimit files;
	if (getrlimit(RLIMIT_NOFILE, &files) != 0)
		return wanted;
	if (files.rlim_cur >= wanted)
		return files.rlim_cur;
	files.rlim_cur = files.rlim_max < wanted ? files.rlim_max : wanted;
	if (setrlimit(RLIMIT_NOFILE, &files) != 0)
		getrlimit(RLIMIT_NOFILE, &files);
	return files.rlim_cur;
}

void os_close_from(unsigned first)
{
#ifdef SYS_close_range
	syscall(SYS_close_range, first, ~0u, 0);
#endif
	(void)first;
}

int os_reopen(int fd, int flags, const struct stat *st)
{
	char path[32];
	struct stat own;
	unsigned number;
	bool terminal = S_ISCHR(st->st_mode) && isatty(fd) && st->st_rdev != makedev(5, 0) &&
		ioctl(fd, TIOCGPTN, &number) != 0;
	if (!terminal && !S_ISFIFO(st->st_mode))
		return -1;
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	int again = open(path, (flags & O_ACCMODE) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (again < 0 || (fstat(again, &own) == 0 && own.st_ino == st->st_ino &&
		own.st_dev == st->st_dev))
		return again;
	close(again);
	return -1;
}

/* ===== the network */

socklen_t os_unix_address(struct sockaddr_un *a, const char *text, bool abstract)
{
	size_t n = strlen(text);
	*a = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (n + 1 > sizeof a->sun_path) {
		errno = ENAMETOOLONG;
		return 0;
	}
	memcpy(a->sun_path + abstract, text, n);
	return abstract ? (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n) :
		(socklen_t)sizeof *a;
}

void os_keep_unsent(int fd, int bytes, int buffer)
{
	if (setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &bytes, sizeof bytes) != 0 &&
		errno == ENOPROTOOPT)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
}

int os_unsent(int fd)
{
	int unsent;
	return ioctl(fd, SIOCOUTQNSD, &unsent) == 0 ? unsent : 0;
}

int os_watch_network(void)
{
	struct {		/* struct sockaddr_nl, which musl's compiler wrapper does not see */
		sa_family_t family;
		uint16_t pad;
		/* rtnetlink(7): RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR */
		uint32_t pid, groups;
	} a = { .family = AF_NETLINK, .groups = 0x111 };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) == 0)
		return fd;
	close(fd);
	return -1;
}

static const uint8_t *os_ip(const struct sockaddr *a)
{
	if (a->sa_family == AF_INET6)
		return (const uint8_t *)&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr;
	return (const uint8_t *)&((const struct sockaddr_in *)(const void *)a)->sin_addr;
}

/* Binds and connects datagram sockets to ask the kernel. */
enum os_route os_route(const struct sockaddr_storage *local, const struct sockaddr_storage *peer,
	socklen_t len)
{
	struct sockaddr_storage chosen;
	socklen_t size = sizeof chosen;
	enum os_route route = OS_SAME;
	int bound = socket(local->ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int fd = socket(local->ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (bound >= 0 && bind(bound, (const struct sockaddr *)local, len) != 0 &&
		errno == EADDRNOTAVAIL)
		route = OS_NO_ADDRESS;
	else if (fd >= 0 && connect(fd, (const struct sockaddr *)peer, len) != 0 &&
		 (errno == ENETUNREACH || errno == EHOSTUNREACH || errno == ENETDOWN))
		route = OS_NO_ROUTE;
	else if (fd >= 0 && getsockname(fd, (struct sockaddr *)&chosen, &size) == 0 &&
		 memcmp(os_ip((struct sockaddr *)&chosen), os_ip((const struct sockaddr *)local),
			local->ss_family == AF_INET6 ? 16 : 4) != 0)
		route = OS_OTHER;
	if (bound >= 0)
		close(bound);
	if (fd >= 0)
		close(fd);
	return route;
}

bool os_same_bits(const uint8_t *a, const uint8_t *b, int bits)
{
	return memcmp(a, b, (size_t)bits / 8) == 0 &&
		(bits % 8 == 0 || (a[bits / 8] ^ b[bits / 8]) >> (8 - bits % 8) == 0);
}

int os_has_address(int family, const uint8_t *net, int bits)
{
	struct ifaddrs *list;
	int has = 0;
	if (getifaddrs(&list) != 0)
		return -1;
	for (const struct ifaddrs *i = list; i && !has; i = i->ifa_next)
		has = i->ifa_addr && i->ifa_addr->sa_family == family && i->ifa_flags & IFF_UP &&
		      os_same_bits(os_ip(i->ifa_addr), net, bits);
	freeifaddrs(list);
	return has;
}
