/* prompt.c - asks the user a question at the terminal, during a login.
 *
 * Owns /dev/tty while a prompt is shown.  The one place of the transport that
 * waits: for the terminal or for `cancel_fd`, whichever comes first.  The
 * terminal's modes are restored on every path.
 */
#include "port.h"
#include <poll.h>

static int tty = -1;
static struct termios before;

/* SIGTTOU must not stop us while modes are set: a shell could take the terminal
 * away between our check and the call. */
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

/* Returns false without a terminal, or when it is another job's. */
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
	/* No suspending with echo off. */
	modes.c_cc[VSUSP] = _POSIX_VDISABLE;
	set_modes(&modes);
	return true;
}

/* Every path of prompt() that opened the terminal ends here. */
static void tty_close(void)
{
	set_modes(&before);
	close(tty);
	tty = -1;
}

/* Output is a courtesy: what the terminal does not take is lost. */
static void tty_write(const char *text)
{
	size_t len = strlen(text);
	ssize_t n;

	while (len > 0) {
		n = write(tty, text, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		text += n;
		len -= (size_t)n;
	}
}

/* Waits for input.  Returns false if the user wants to stop. */
static bool tty_wait(int cancel_fd)
{
	struct pollfd p[2] = {
		{ .fd = tty, .events = POLLIN },
		{ .fd = cancel_fd, .events = POLLIN },	/* poll() skips -1 */
	};

	while (poll(p, 2, -1) < 0)
		if (errno != EINTR)
			return false;
	return p[1].revents == 0;
}

/* Reads one line into answer[size], without its newline; what does not fit is
 * dropped. */
static enum prompt_result tty_line(int cancel_fd, char *answer, size_t size)
{
	size_t used = 0;
	ssize_t n;
	char c;

	for (;;) {
		if (!tty_wait(cancel_fd))
			return PROMPT_CANCELLED;
		n = read(tty, &c, 1);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n <= 0)
			return PROMPT_ENDED;
		if (c == '\n' || c == '\r')
			break;
		if (used + 1 < size)
			answer[used++] = c;
	}
	answer[used] = '\0';
	return PROMPT_ANSWERED;
}

/* Shows `text` and reads the answer.  The caller wipes it.  PROMPT_ENDED: the
 * user typed end-of-file or the terminal is gone. */
enum prompt_result prompt(const char *text, bool echo, int cancel_fd,
	char *answer, size_t size)
{
	enum prompt_result result;

	answer[0] = '\0';
	if (!tty_open(echo))
		return PROMPT_NO_TERMINAL;
	tty_write(text);
	result = tty_line(cancel_fd, answer, size);
	if (!echo || result != PROMPT_ANSWERED)
		tty_write("\n");
	tty_close();
	return result;
}
