/* fuzz_config.c - a configuration file, read for one host. */
#define WORLD_SILENT
#pragma GCC diagnostic ignored "-Wunused-function"
#include "unit_world.c"

static void fuzz_one(const uint8_t *data, size_t size);
#include "unit_fuzz.c"

/* Reads the file as main() does, up to where the network would begin.  What an
 * error leaves open is closed, since the process does not end. */
static bool fuzz_read(int first_fd)
{
	world_clear();
	g.op.control_path = g.op.host_name = g.op.tp.host = NULL;
	g.op.send_env.n = 0;
	g.op.given = "host.example";
	g.op.config_file = "config";
	world.exit_code = -1;
	if (setjmp(world.exited)) {
		for (int fd = first_fd; fd < first_fd + 2 * INCLUDE_DEPTH; fd++)
			close(fd);
		return false;
	}
	cf_files();
	dv_resolve();
	dv_login();
	return true;
}

static void fuzz_one(const uint8_t *data, size_t size)
{
	fuzz_enter_dir();
	int fd = open("config", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	close(fd);
	if (fuzz_read(fd)) {
		fuzz_require(g.op.port >= 1 && g.op.port <= 65535, "port out of range");
		fuzz_require(g.op.identity.n <= OPTION_LIST && g.op.global_hosts.n <= OPTION_LIST,
			"list too long");
		fuzz_require(g.op.host_name && *g.op.host_name && *g.op.host_name != '-',
			"no host to connect to");
		fuzz_require(!op_where.file, "still in a file");
	} else
		fuzz_require(world.exit_code == 255 && world.log_len > 0,
			"an error without a word");
}
