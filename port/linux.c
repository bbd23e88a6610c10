/* linux.c - port/linux.h for Linux. */
#include "linux.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
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

bool os_is_null(const struct stat *st)
{
	return S_ISCHR(st->st_mode) && st->st_rdev == makedev(1, 3);
}

bool os_never_waits(const struct stat *st)
{
	unsigned n = minor(st->st_rdev);
	return S_ISREG(st->st_mode) || (S_ISCHR(st->st_mode) && major(st->st_rdev) == 1 &&
		(n == 3 || n == 5 || n == 7 || n == 9));
}

/* ===== files */

bool os_is_networked(int fd)
{
	/* linux/magic.h: FUSE, NFS, CIFS, SMB 2, 9P, Ceph, AFS */
	static const uint32_t types[] = {
		0x65735546, 0x6969, 0xff534d42, 0xfe534d42, 0x01021997, 0x00c36400, 0x5346414f
	};
	struct statfs fs;
	if (fstatfs(fd, &fs) != 0)
		return false;
	for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
		if ((uint32_t)fs.f_type == types[i])
			return true;
	return false;
}

/* Whether c is in the set at *p, "[a-z]" or "[!a-z]"; moves *p past it.  A [ without an
 * end is a plain character. */
static bool glob_set(const char **p, char c)
{
	const char *q = *p + 1;
	bool negated = *q == '!', found = false;
	q += negated;
	if (!*q || !strchr(q + 1, ']'))
		return *(*p)++ == c;
	do {
		unsigned char from = (unsigned char)*q++, to = from;
		if (*q == '-' && q[1] != ']') {
			to = (unsigned char)q[1];
			q += 2;
		}
		found |= from <= (unsigned char)c && (unsigned char)c <= to;
	} while (*q != ']');
	*p = q + 1;
	return found != negated;
}

/* Whether the pattern at *p, not a *, matches c; moves *p past it. */
static bool glob_takes(const char **p, char c)
{
	if (**p == '[')
		return glob_set(p, c);
	bool any = **p == '?';
	*p += **p == '\\' && (*p)[1];
	return any + (*(*p)++ == c);
}

/* glob(3)'s patterns: *, ?, [...] and a backslash before a literal character. */
static bool glob(const char *p, const char *name)
{
	const char *star = NULL, *from = name;
	if (*name == '.' && *p != '.' && !(*p == '\\' && p[1] == '.'))
		return false;
	while (*name || *p) {
		if (*p == '*') {
			star = ++p;
			from = name;
		} else if (*p && *name && glob_takes(&p, *name))
			name++;
		else if (star && *from) {
			p = star;
			name = ++from;
		} else
			return false;
	}
	return true;
}

/* Compares two names as if `end` followed each. */
static int glob_order(const char *a, const char *b, char end)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b ? 0 : (unsigned char)(*a ? *a : end) - (unsigned char)(*b ? *b : end);
}

bool os_next_name(const char *directory, const char *pattern, char end, char last[NAME_MAX + 1])
{
	char next[NAME_MAX + 1] = "";
	DIR *d = opendir(*directory ? directory : ".");
	for (const struct dirent *e; d && (e = readdir(d));)
		if (glob(pattern, e->d_name) &&
			(!last[0] || glob_order(e->d_name, last, end) > 0) &&
		    (!next[0] || glob_order(e->d_name, next, end) < 0))
			snprintf(next, sizeof next, "%s", e->d_name);
	if (d)
		closedir(d);
	memcpy(last, next, sizeof next);
	return next[0];
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

bool os_tell(const char *path, const char *text)
{
	struct sockaddr_un a;
	bool abstract = path[0] == '@';
	socklen_t len = 0;
	if (path[0] == '/' || abstract)
		len = os_unix_address(&a, path + abstract, abstract);
	int fd = len ? socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) : -1;
	size_t n = strlen(text);
	bool sent = fd >= 0 && sendto(fd, text, n, MSG_DONTWAIT | MSG_NOSIGNAL,
		(struct sockaddr *)&a, len) == (ssize_t)n;
	if (fd >= 0)
		close(fd);
	return sent;
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

void os_gather(int fd, int bytes)
{
	setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof bytes);
}

int os_new_set(void)
{
	return epoll_create1(EPOLL_CLOEXEC);
}

bool os_add_to_set(int set, const struct pollfd *p)
{
	struct epoll_event e = { .events = (uint16_t)p->events };	/* the same bits */
	return epoll_ctl(set, EPOLL_CTL_ADD, p->fd, &e) == 0;
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
enum os_route os_route(int connection)
{
	struct sockaddr_storage local, peer, chosen;
	socklen_t len = sizeof local, size = sizeof peer;
	if (getsockname(connection, (struct sockaddr *)&local, &len) != 0 ||
		getpeername(connection, (struct sockaddr *)&peer, &size) != 0 ||
		(local.ss_family != AF_INET && local.ss_family != AF_INET6))
		return OS_SAME;			/* ProxyCommand: its own business */
	((struct sockaddr_in *)(void *)&local)->sin_port = 0;	/* sin6_port has the same offset */
	size = sizeof chosen;
	enum os_route route = OS_SAME;
	int bound = socket(local.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int fd = socket(local.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (bound >= 0 && bind(bound, (struct sockaddr *)&local, len) != 0 &&
		errno == EADDRNOTAVAIL)
		route = OS_NO_ADDRESS;
	else if (fd >= 0 && connect(fd, (struct sockaddr *)&peer, len) != 0 &&
		 (errno == ENETUNREACH || errno == EHOSTUNREACH || errno == ENETDOWN))
		route = OS_NO_ROUTE;
	else if (fd >= 0 && getsockname(fd, (struct sockaddr *)&chosen, &size) == 0 &&
		 memcmp(os_ip((struct sockaddr *)&chosen), os_ip((struct sockaddr *)&local),
			local.ss_family == AF_INET6 ? 16 : 4) != 0)
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

/* ===== terminals */

/* RFC 4254, 8 */
#define OP_ISPEED 128
#define OP_OSPEED 129
static const struct mode {
	uint8_t opcode;
	enum { CHARACTER, IFLAG, LFLAG, OFLAG, CFLAG } in;
	tcflag_t what;			/* index of c_cc, or mask */
} modes[] = {
	{ 1, CHARACTER, VINTR }, { 2, CHARACTER, VQUIT }, { 3, CHARACTER, VERASE },
	{ 4, CHARACTER, VKILL }, { 5, CHARACTER, VEOF }, { 6, CHARACTER, VEOL },
	{ 7, CHARACTER, VEOL2 }, { 8, CHARACTER, VSTART }, { 9, CHARACTER, VSTOP },
	{ 10, CHARACTER, VSUSP }, { 12, CHARACTER, VREPRINT }, { 13, CHARACTER, VWERASE },
	{ 14, CHARACTER, VLNEXT }, { 18, CHARACTER, VDISCARD },
	{ 30, IFLAG, IGNPAR }, { 31, IFLAG, PARMRK }, { 32, IFLAG, INPCK },
	{ 33, IFLAG, ISTRIP }, { 34, IFLAG, INLCR }, { 35, IFLAG, IGNCR },
	{ 36, IFLAG, ICRNL }, { 37, IFLAG, IUCLC }, { 38, IFLAG, IXON },
	{ 39, IFLAG, IXANY }, { 40, IFLAG, IXOFF }, { 41, IFLAG, IMAXBEL },
	{ 42, IFLAG, IUTF8 },
	{ 50, LFLAG, ISIG }, { 51, LFLAG, ICANON }, { 52, LFLAG, XCASE },
	{ 53, LFLAG, ECHO }, { 54, LFLAG, ECHOE }, { 55, LFLAG, ECHOK },
	{ 56, LFLAG, ECHONL }, { 57, LFLAG, NOFLSH }, { 58, LFLAG, TOSTOP },
	{ 59, LFLAG, IEXTEN }, { 60, LFLAG, ECHOCTL }, { 61, LFLAG, ECHOKE },
	{ 62, LFLAG, PENDIN },
	{ 70, OFLAG, OPOST }, { 71, OFLAG, OLCUC }, { 72, OFLAG, ONLCR },
	{ 73, OFLAG, OCRNL }, { 74, OFLAG, ONOCR }, { 75, OFLAG, ONLRET },
	{ 90, CFLAG, CS7 }, { 91, CFLAG, CS8 }, { 92, CFLAG, PARENB },
	{ 93, CFLAG, PARODD },
};
_Static_assert(OS_MODES >= 5 * (sizeof modes / sizeof modes[0] + 2) + 1, "they must fit");

static uint32_t mode_speed(speed_t s)
{
	static const struct { speed_t code; uint32_t baud; } speeds[] = {
		{ B300, 300 }, { B1200, 1200 }, { B2400, 2400 }, { B4800, 4800 }, { B9600, 9600 },
		{ B19200, 19200 }, { B38400, 38400 }, { B57600, 57600 }, { B115200, 115200 },
		{ B230400, 230400 }, { B460800, 460800 }, { B921600, 921600 },
	};
	for (size_t i = 0; i < sizeof speeds / sizeof speeds[0]; i++)
		if (speeds[i].code == s)
			return speeds[i].baud;
	return 9600;
}

static uint32_t mode_value(const struct termios *t, const struct mode *m)
{
	switch (m->in) {
	case CHARACTER:	return t->c_cc[m->what] == _POSIX_VDISABLE ? 255 : t->c_cc[m->what];
	case IFLAG:	return (t->c_iflag & m->what) != 0;
	case LFLAG:	return (t->c_lflag & m->what) != 0;
	case OFLAG:	return (t->c_oflag & m->what) != 0;
	case CFLAG:	return (t->c_cflag & m->what) == m->what;
	}
	return 0;
}

static uint8_t *mode_put(uint8_t *to, uint8_t opcode, uint32_t value)
{
	*to++ = opcode;
	for (int shift = 24; shift >= 0; shift -= 8)
		*to++ = (uint8_t)(value >> shift);
	return to;
}

size_t os_terminal_modes(int fd, uint8_t to[OS_MODES])
{
	struct termios t;
	uint8_t *at = to;
	if (tcgetattr(fd, &t) == 0) {
		at = mode_put(at, OP_OSPEED, mode_speed(cfgetospeed(&t)));
		at = mode_put(at, OP_ISPEED, mode_speed(cfgetispeed(&t)));
		for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++)
			at = mode_put(at, modes[i].opcode, mode_value(&t, &modes[i]));
	}
	*at++ = 0;
	return (size_t)(at - to);
}

void os_terminal_raw(struct termios *t)
{
	t->c_iflag |= IGNPAR;
	t->c_iflag &= (tcflag_t)~(ISTRIP | INLCR | IGNCR | ICRNL | IXON | IXANY | IXOFF | IUCLC);
	t->c_lflag &= (tcflag_t)~(ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHONL | IEXTEN);
	t->c_oflag &= (tcflag_t)~OPOST;
	t->c_cc[VMIN] = 1;
	t->c_cc[VTIME] = 0;
}
