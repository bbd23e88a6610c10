/* pty - runs a command on a terminal of its own and plays its user.
 *
 * usage: pty WORD... -- COMMAND...
 *
 * All output of the terminal goes to stdout.  Words, from left to right; the
 * first that fails ends the script with status 1 and a line on stderr:
 *
 *   size ROWS COLS     set the size (before COMMAND runs, if it comes first);
 *                      the kernel sends SIGWINCH to those it concerns
 *   expect TEXT        until TEXT has come, after what was expected before
 *   send TEXT          type it; \r \n \e \\ and \ooo (octal) are understood
 *   raw                until somebody has made the terminal raw
 *   wait FILE          until FILE exists
 *   touch FILE         create FILE
 *   sendonly TEXT      the same, but output is left unread
 *   quiet MS           nothing comes within MS milliseconds
 *   tty FILE           write the terminal's name to FILE
 *   kill SIGNAL        a number, to COMMAND
 *   timeout S          for every later wait, 30 at first
 *   end                until COMMAND ends; pty ends with its status (128 +
 *                      signal).  Implied after the last word.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static int master = -1;
static pid_t child;
static long deadline_ms = 30000;
static char seen[1 << 20];		/* output that no expect has passed yet */
static size_t n_seen;
static bool ended;			/* no more output will come */

static void fail(const char *fmt, ...)
{
	va_list ap;

	fputs("pty: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	if (child > 0)
		kill(child, SIGKILL);
	exit(1);
}

static long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000L + t.tv_nsec / 1000000;
}

static int number(const char *s)
{
	char *end;
	long v = s ? strtol(s, &end, 0) : -1;

	if (v < 0 || v > 1000000 || *end)
		fail("not a number: %s", s ? s : "");
	return (int)v;
}

/* Takes what output there is within ms; false if there was none. */
static bool take(long ms)
{
	struct pollfd p = { master, POLLIN, 0 };
	ssize_t n;

	if (ended || poll(&p, 1, (int)ms) != 1)
		return false;
	if (n_seen == sizeof seen) {	/* the oldest half is not waited for any more */
		n_seen = sizeof seen / 2;
		memmove(seen, seen + n_seen, n_seen);
	}
	n = read(master, seen + n_seen, sizeof seen - n_seen);
	if (n <= 0) {
		ended = true;
		return false;
	}
	if (write(1, seen + n_seen, (size_t)n) != n)
		fail("stdout: %s", strerror(errno));
	n_seen += (size_t)n;
	return true;
}

static bool over(void)
{
	siginfo_t i = { .si_pid = 0 };

	return waitid(P_PID, (id_t)child, &i, WEXITED | WNOHANG | WNOWAIT) == 0 &&
		i.si_pid == child;
}

static void expect(const char *text)
{
	long end = now() + deadline_ms;

	for (;;) {
		char *at = memmem(seen, n_seen, text, strlen(text));

		if (at) {
			at += strlen(text);
			n_seen -= (size_t)(at - seen);
			memmove(seen, at, n_seen);
			return;
		}
		if (now() > end || (!take(100) && (ended || (over() && !take(100)))))
			fail("\"%s\" did not come", text);
	}
}

static char *unescape(char *s)
{
	char *to = s, *from = s;

	while (*from) {
		unsigned v = 0;
		int digits = 0;

		if (*from != '\\') {
			*to++ = *from++;
			continue;
		}
		from++;
		while (digits < 3 && *from >= '0' && *from <= '7') {
			v = v * 8 + (unsigned)(*from++ - '0');
			digits++;
		}
		if (!digits) {
			v = *from == 'r' ? '\r' : *from == 'n' ? '\n' : *from == 'e' ? 27 :
				(unsigned char)*from;
			from += *from != 0;
		}
		*to++ = (char)v;
	}
	*to = 0;
	return s;
}

/* Types the text; what comes meanwhile is taken, so that neither side waits. */
static void type(const char *p, bool taking)
{
	long end = now() + deadline_ms;
	size_t n = strlen(p);

	while (n > 0) {
		struct pollfd q = { master, POLLOUT, 0 };
		ssize_t w = poll(&q, 1, 100) == 1 ? write(master, p, n) : 0;

		if (w > 0) {
			p += w;
			n -= (size_t)w;
		}
		if (taking)
			take(0);
		if (now() > end)
			fail("nobody reads what is typed");
	}
}

static void wait_file(const char *name)
{
	long end = now() + deadline_ms;

	while (access(name, F_OK)) {
		if (now() > end)
			fail("%s did not appear", name);
		poll(NULL, 0, 10);
	}
}

static void wait_raw(void)
{
	long end = now() + deadline_ms;
	struct termios t;

	while (tcgetattr(master, &t) || t.c_lflag & ICANON) {
		if (now() > end)
			fail("the terminal did not become raw");
		poll(NULL, 0, 10);
	}
}

static void write_file(const char *name, const char *text)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		fail("%s: %s", name, strerror(errno));
	close(fd);
}

static int finish(void)
{
	long end = now() + deadline_ms;
	int status = 0;

	while (waitpid(child, &status, WNOHANG) != child) {
		if (now() > end)
			fail("the command does not end");
		if (!take(50) && ended)
			poll(NULL, 0, 20);
	}
	while (take(100))
		;
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void resize(const char *rows, const char *cols)
{
	struct winsize w = { .ws_row = (unsigned short)number(rows),
		.ws_col = (unsigned short)number(cols) };

	if (ioctl(master, TIOCSWINSZ, &w))
		fail("TIOCSWINSZ: %s", strerror(errno));
}

static void start(char **command)
{
	const char *name = ptsname(master);
	int slave = open(name, O_RDWR | O_NOCTTY);

	child = fork();
	if (child)
		return;		/* our own slave descriptor keeps the terminal alive */
	setsid();
	ioctl(slave, TIOCSCTTY, 0);
	for (int i = 0; i < 3; i++)
		dup2(slave, i);
	if (slave > 2)
		close(slave);
	for (int i = 1; i < NSIG; i++)	/* a background job of a shell ignores some */
		if (i != SIGPIPE && i != SIGHUP)
			signal(i, SIG_DFL);
	execvp(command[0], command);
	fail("%s: %s", command[0], strerror(errno));
}

static char **step(char **w)
{
	const char *c = *w++;

	if (!strcmp(c, "size")) {
		resize(w[0], w[1]);
		return w + 2;
	}
	if (!strcmp(c, "raw")) {
		wait_raw();
		return w;
	}
	if (!strcmp(c, "end"))
		exit(finish());
	if (!strcmp(c, "expect"))
		expect(unescape(*w));
	else if (!strcmp(c, "send"))
		type(unescape(*w), true);
	else if (!strcmp(c, "sendonly"))
		type(unescape(*w), false);
	else if (!strcmp(c, "wait"))
		wait_file(*w);
	else if (!strcmp(c, "touch"))
		write_file(*w, "");
	else if (!strcmp(c, "tty"))
		write_file(*w, ptsname(master));
	else if (!strcmp(c, "kill"))
		kill(child, number(*w));
	else if (!strcmp(c, "timeout"))
		deadline_ms = 1000L * number(*w);
	else if (!strcmp(c, "quiet")) {
		if (take(number(*w)))
			fail("nothing was to come");
	} else
		fail("unknown word: %s", c);
	return w + 1;
}

int main(int argc, char **argv)
{
	char **w = argv + 1, **command = argv + 1;

	while (*command && strcmp(*command, "--"))
		command++;
	if (!*command || !command[1])
		fail("usage: pty WORD... -- COMMAND...");
	*command++ = NULL;
	(void)argc;
	master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (master < 0 || grantpt(master) || unlockpt(master))
		fail("no terminal: %s", strerror(errno));
	signal(SIGHUP, SIG_DFL);
	if (*w && !strcmp(*w, "size"))
		w = step(w);
	start(command);
	while (*w)
		w = step(w);
	return finish();
}
