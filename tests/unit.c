/* unit.c - tests of sshmux.c from the inside, through the fake transport.
 * TAP on stdout; the last line is "N passed, N failed". */
#include "unit_world.c"

static int passed, failed, skipped;

/* One test point. */
static void check(bool ok, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void check(bool ok, const char *format, ...)
{
	va_list ap;
	*(ok ? &passed : &failed) += 1;
	printf("%s %d - ", ok ? "ok" : "not ok", passed + failed + skipped);
	va_start(ap, format);
	vprintf(format, ap);
	va_end(ap);
	printf("\n");
	fflush(stdout);
}

/* One of the many cases of a point: which it was is told if it fails. */
static void also(bool *all, bool ok, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void also(bool *all, bool ok, const char *format, ...)
{
	va_list ap;
	*all = *all && ok;
	if (ok)
		return;
	printf("#  wrong: ");
	va_start(ap, format);
	vprintf(format, ap);
	va_end(ap);
	printf("\n");
}

/* True under qemu-user (EMULATED=mips-24kc) as a CPU whose name begins with `cpu`, if
 * it cannot do what the point `name` asks for, and why not; the point is skipped. */
static bool emulated(const char *cpu, const char *name, const char *why)
{
	const char *is = getenv("EMULATED");
	if (!is || strncmp(is, cpu, strlen(cpu)) != 0)
		return false;
	printf("ok %d - %s # SKIP qemu-user: %s\n", passed + failed + ++skipped, name, why);
	return true;
}

#define NO_SO_ERROR "SO_ERROR has the host's number, which on MIPS means something else"
#define NO_CLOSING "descriptors beyond the room for them stay open; Linux closes them"

/* The end of most tests: with all clients gone and all channels closed by the
 * server nothing is left, and the master serves. */
static void check_clean(const char *after)
{
	world_run();
	world_server_closes();
	bool idle = world_idle(), served = g.lk.state != LK_UP || peer_served();
	check(idle && served, "%s: all given back, others served", after);
	check(world_end(), "%s: no descriptor leaked", after);
}

#include "unit_base.c"
#include "unit_mux.c"
#include "unit_ssh.c"
#include "unit_flow.c"
#include "unit_px.c"
#include "unit_fw.c"
#include "unit_link.c"
#include "unit_xf.c"
#include "unit_op.c"
#include "unit_text.c"
#include "unit_status.c"
#include "unit_small.c"

/* With a word on the command line only the groups whose name holds it. */
int main(int argc, char **argv)
{
	static const struct { const char *name; void (*run)(void); } groups[] = {
		{ "base", unit_base }, { "mux", unit_mux }, { "ssh", unit_ssh },
		{ "flow", unit_flow }, { "px", unit_px }, { "forward", unit_fw },
		{ "link", unit_link },
		{ "xf", unit_xf }, { "options", unit_op }, { "text", unit_text },
		{ "status", unit_status }, { "small", unit_small },
	};
	if (!world_open_dir()) {
		perror("temporary directory");
		return 1;
	}
	for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++)
		if (argc < 2 || strstr(groups[i].name, argv[1]))
			groups[i].run();
	check(world.doubled == 0, "no poll set named a descriptor twice: %u did", world.doubled);
	fake_reset();
	world_remove_dir();
	printf("1..%d\n%d passed, %d failed\n", passed + failed + skipped, passed, failed);
	return failed != 0;
}
