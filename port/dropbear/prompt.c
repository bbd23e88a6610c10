/* prompt.c - asks the user a question, during a login: at the terminal, or
 * through an askpass program where there is none.
 *
 * Owns /dev/tty while it shows a prompt.  Only this file of the transport waits:
 * for the terminal or the program, or for `cancel_fd`, whichever comes first.
 * Every path restores the terminal's modes.
 */
#include "port.h"
#include <poll.h>

static int tty = -1;
static struct termios before;

/* SIGTTOU must not stop us while we set modes: a shell could take the terminal away
 * between our check and the call. */
static void set_modes(const struct termios *modes)
{
	sigset_t ttou, old;

	sigemptyset(&ttou);
	sigaddset(&ttou, SIGTTOU);
	sigprocmask(SIG_BLOCK, &ttou, &old);
	while (tcsetattr(tty, TCSANOW, modes) != 0 && errno == EINTR)
		;
	sigprocmask(SIG_SETMASK, &old, NULL);
}

/* Returns false if there is no terminal or it belongs to another job. */
static bool tty_open(bool echo)
{
	struct termios modes;

	tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (tty < 0)
		return false;
	if (tcgetpgrp(tty) != getpgrp() || tcgetattr(tty, &before) != 0) {
		close(tty);
		tty = -1;
		return false;
	}
	modes = before;
	modes.c_lflag |= ICANON | ISIG;
	modes.c_iflag |= ICRNL;
	if (!echo)
		modes.c_lflag &= ~(tcflag_t)(ECHO | ECHOE | ECHOK | ECHONL);
	/* The user must not suspend us with echo off. */
	modes.c_cc[VSUSP] = _POSIX_VDISABLE;
	set_modes(&modes);
	return true;
}

/* Every path of prompt() that has opened the terminal ends here. */
static void tty_close(void)
{
	set_modes(&before);
	close(tty);
	tty = -1;
}

/* Writes bytes.  Returns false, and drops the rest, if the terminal takes nothing for a
 * second. */
static bool tty_write(const char *p, size_t len)
{
	struct pollfd room = { .fd = tty, .events = POLLOUT };
	ssize_t n;

	while (len > 0) {
		n = write(tty, p, len);
		if (n < 0 && errno == EAGAIN && poll(&room, 1, 1000) > 0)
			continue;
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		p += n;
		len -= (size_t)n;
	}
	return true;
}

/* Shows text, which a server may have chosen; its rest is dropped with what tty_write()
 * drops. */
static void tty_say(const char *text, size_t len)
{
	char clean[256];
	size_t n;

	for (; (n = tp_clean(text, len, true, clean, sizeof(clean))) > 0; len -= n) {
		if (!tty_write(clean, strlen(clean)))
			return;
		text += n;
	}
}

/* Waits for input.  Returns false if the user wants to stop. */
static bool input_wait(int fd, int cancel_fd)
{
	struct pollfd p[2] = {
		{ .fd = fd, .events = POLLIN },
		{ .fd = cancel_fd, .events = POLLIN },	/* poll() skips -1 */
	};

	while (poll(p, 2, -1) < 0)
		if (errno != EINTR)
			return false;
	return p[1].revents == 0;
}

/* Reads one line into answer[size], without its newline, which a program may leave out;
 * drops what does not fit. */
static enum prompt_result read_line(int fd, int cancel_fd, char *answer, size_t size)
{
	size_t used = 0;
	ssize_t n;
	char c;

	for (;;) {
		if (!input_wait(fd, cancel_fd))
			return PROMPT_CANCELLED;
		n = read(fd, &c, 1);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n <= 0 && (used == 0 || fd == tty))
			return PROMPT_ENDED;
		if (n <= 0)
			break;
		if (c == '\n' || c == '\r')
			break;
		if (used + 1 < size)
			answer[used++] = c;
	}
	answer[used] = '\0';
	return PROMPT_ANSWERED;
}

/* --- askpass, ssh(1) ------------------------------------------------------- */

static bool is_set(const char *name)
{
	const char *value = getenv(name);

	return value != NULL && *value != '\0';
}

/* Where to ask: at the terminal, with the program, or nowhere. */
static enum { AT_TERMINAL, BY_PROGRAM, NOWHERE } where_to_ask(void)
{
	const char *require = getenv("SSH_ASKPASS_REQUIRE");
	bool allowed = is_set("DISPLAY") || is_set("WAYLAND_DISPLAY");
	int fd;

	if (require == NULL)
		require = "";
	if (strcasecmp(require, "force") == 0)
		return BY_PROGRAM;
	if (strcasecmp(require, "never") == 0)
		allowed = false;
	if (allowed && strcasecmp(require, "prefer") == 0)
		return BY_PROGRAM;
	fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return allowed ? BY_PROGRAM : NOWHERE;
	close(fd);
	return AT_TERMINAL;
}

/* In the child: passes on nothing of ours but the pipe. */
static void become_askpass(const char *intro, const char *text, size_t len, int out)
	__attribute__((noreturn));
static void become_askpass(const char *intro, const char *text, size_t len, int out)
{
	char clean[8192];
	size_t n;
	const char *program = is_set("SSH_ASKPASS") ? getenv("SSH_ASKPASS") : ASKPASS;
	sigset_t none;

	tp_clean(intro, strlen(intro), false, clean, sizeof(clean));
	n = strlen(clean);
	tp_clean(text, len, true, clean + n, sizeof(clean) - n);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	if (dup2(out, STDOUT_FILENO) >= 0)
		execlp(program, program, clean, (char *)NULL);
	_exit(127);
}

/* The first line that the program prints, if it succeeds. */
static enum prompt_result ask_program(const char *intro, const char *text, size_t len,
	int cancel_fd, char *answer, size_t size)
{
	enum prompt_result result;
	int out[2], status = -1;
	pid_t pid;

	if (pipe2(out, O_CLOEXEC) != 0)
		return PROMPT_ENDED;
	pid = fork();
	if (pid == 0)
		become_askpass(intro, text, len, out[1]);
	close(out[1]);
	result = pid > 0 ? read_line(out[0], cancel_fd, answer, size) : PROMPT_ENDED;
	close(out[0]);
	if (pid > 0 && result == PROMPT_CANCELLED)
		kill(pid, SIGTERM);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (result != PROMPT_CANCELLED && (!WIFEXITED(status) || WEXITSTATUS(status) != 0)) {
		port_log(TP_VERBOSE, "the askpass program gives no answer");
		return PROMPT_ENDED;
	}
	return result;
}

/* --- either ----------------------------------------------------------------- */

/* Shows `intro`, then `len` bytes of `text`, and reads the answer, which the caller
 * wipes.  PROMPT_ENDED: the user typed end-of-file or the terminal is gone. */
enum prompt_result prompt(const char *intro, const char *text, size_t len, bool echo,
	int cancel_fd, char *answer, size_t size)
{
	enum prompt_result result;

	answer[0] = '\0';
	switch (where_to_ask()) {
	case BY_PROGRAM:
		return ask_program(intro, text, len, cancel_fd, answer, size);
	case NOWHERE:
		return PROMPT_NO_TERMINAL;
	case AT_TERMINAL:
		break;
	}
	if (!tty_open(echo))
		return PROMPT_NO_TERMINAL;
	tty_say(intro, strlen(intro));
	tty_say(text, len);
	result = read_line(tty, cancel_fd, answer, size);
	if (!echo || result != PROMPT_ANSWERED)
		tty_write("\n", 1);
	tty_close();
	return result;
}
