/* echo - how long one byte takes there and back.
 *
 *   echo COUNT MS COMMAND...    runs COMMAND, which returns what it reads; sends
 *        it one byte every MS milliseconds, each after the one before is back.
 *        Prints the median, the 99th percentile and the longest, microseconds.
 */
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int64_t microseconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static int ascending(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	int to[2], from[2];

	if (argc < 4 || atoi(argv[1]) < 1 || pipe(to) != 0 || pipe(from) != 0)
		return 2;
	int count = atoi(argv[1]), pause_ms = atoi(argv[2]);
	int64_t *took = calloc((size_t)count, sizeof *took);
	pid_t pid = fork();
	if (pid == 0) {
		dup2(to[0], 0);
		dup2(from[1], 1);
		for (int i = 0; i < 2; i++) {
			close(to[i]);
			close(from[i]);
		}
		execvp(argv[3], argv + 3);
		_exit(127);
	}
	close(to[0]);
	close(from[1]);
	signal(SIGPIPE, SIG_IGN);
	/* The first tells that the command runs. */
	for (int i = -1; took && i < count; i++) {
		char c = 'x';
		struct pollfd p = { .fd = from[0], .events = POLLIN };
		int64_t began = microseconds();
		if (write(to[1], &c, 1) != 1 || poll(&p, 1, 60000) != 1 ||
			read(from[0], &c, 1) != 1) {
			fprintf(stderr, "echo: nothing came back after byte %d\n", i);
			kill(pid, SIGTERM);
			return 1;
		}
		int64_t left = pause_ms * 1000 - (microseconds() - began);
		if (i >= 0)
			took[i] = microseconds() - began;
		if (left > 0)
			nanosleep(&(struct timespec){ left / 1000000, left % 1000000 * 1000 },
				NULL);
	}
	kill(pid, SIGTERM);		/* a raw terminal knows no end of input */
	waitpid(pid, NULL, 0);
	qsort(took, (size_t)count, sizeof *took, ascending);
	printf("%lld %lld %lld\n", (long long)took[(count - 1) / 2],
	       (long long)took[(count - 1) * 99 / 100], (long long)took[count - 1]);
	return 0;
}
