/* flock -n FILE COMMAND... - runs COMMAND while no one else holds FILE, else
 * status 1.  OpenWrt's BusyBox has it, Debian's has not; for the router
 * machines of `make check-vm`. */
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int fd;

	if (argc < 4 || strcmp(argv[1], "-n"))
		return 64;
	/* The command inherits the descriptor, and so the lock. */
	fd = open(argv[2], O_RDONLY | O_CREAT, 0600);
	if (fd < 0)
		return 66;
	if (flock(fd, LOCK_EX | LOCK_NB))
		return 1;
	execvp(argv[3], argv + 3);
	return 69;
}
