/* fuzz_options.c - the command line: the input's words are parted by NUL. */
#define WORLD_SILENT
#pragma GCC diagnostic ignored "-Wunused-function"
#include "unit_world.c"

static void fuzz_one(const uint8_t *data, size_t size);
#include "unit_fuzz.c"

#define FUZZ_WORDS 16

/* Parses `argv` as main() does, up to where the network would begin. */
static bool fuzz_parse(char **argv)
{
	world_clear();
	g.op.control_path = g.op.given = g.op.host_name = g.op.tp.host = NULL;
	g.op.send_env.n = 0;
	world.exit_code = -1;
	if (setjmp(world.exited))
		return false;
	av_parse(argv);
	g.op.config_file = "none";
	dv_resolve();
	if (g.op.host_name)
		dv_login();
	return true;
}

static void fuzz_one(const uint8_t *data, size_t size)
{
	static char text[FUZZ_MAX + 1], *argv[FUZZ_WORDS + 2];
	size_t n = size < FUZZ_MAX ? size : FUZZ_MAX;
	memcpy(text, data, n);
	text[n] = 0;
	int words = 0;
	fuzz_enter_dir();		/* -E makes files */
	argv[words++] = text;
	for (size_t at = 0; at < n && words <= FUZZ_WORDS; at += strlen(text + at) + 1)
		argv[words++] = text + at;
	argv[words] = NULL;
	bool parsed = fuzz_parse(argv);
	if (g.log.fd)
		close(g.log.fd);
	if (parsed) {
		fuzz_require(g.op.port >= 1 && g.op.port <= 65535, "port out of range");
		fuzz_require(g.op.identity.n <= OPTION_LIST && g.op.set_env.n <= OPTION_LIST &&
			g.op.send_env.n <= OPTION_LIST, "list too long");
		fuzz_require(g.op.tp.rekey_bytes == 0 || g.op.tp.rekey_bytes >= 16,
			"rekey limit out of range");
	} else
		fuzz_require(world.exit_code == 0 ||
			(world.exit_code == 255 && (world.log_len > 0 || g.log.fd)),
			"an error without a word");
}
