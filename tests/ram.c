/* ram - what the static memory of sshmux.c is for, for `make ram`.
 *
 * usage: ram TOTAL     (bytes: data + bss of the linked binary)
 *
 * Compiled with the limits of the binary that is asked about; prints a line an
 * owner, "bytes  owner  formula", and what is left for everything else.
 */
#define main sshmux_main
#include "../sshmux.c"
#undef main

static long long sum;

static void owner(long long bytes, const char *name, const char *formula)
{
	printf("%9lld  %-16s %s\n", bytes, name, formula);
	sum += bytes;
}

int main(int argc, char **argv)
{
	char text[160];
	if (argc != 2)
		return 1;
	(void)sshmux_main;
	owner(ARENA_SIZE, "arena", "ARENA_SIZE: everything dropbear allocates");
	owner(sizeof g.pool.block + sizeof g.pool.next, "window pool",
		"WINDOW_POOL + 2 bytes a block");
	owner(sizeof g.req.memory + sizeof g.req.slot, "requests",
		"REQUEST_POOL + 8 bytes a request");
	snprintf(text, sizeof text, "CHANNELS %d * %zu", CHANNELS, sizeof(struct channel));
	owner(sizeof g.ch.slot, "channels", text);
	snprintf(text, sizeof text, "CLIENTS %d * %zu", CLIENTS, sizeof(struct client));
	owner(sizeof g.mc.slot, "clients", text);
	snprintf(text, sizeof text, "FORWARDS %d * %zu + CONNECTORS %d * %zu", FORWARDS,
		sizeof(struct forward),
		 CONNECTORS, sizeof(struct connector));
	owner(sizeof g.fw.slot + sizeof g.cn.slot, "forwards", text);
	snprintf(text, sizeof text, "%d descriptors * %zu", POLLFDS,
		sizeof g.lp.poll[0] + sizeof g.lp.owner[0]);
	owner(sizeof g.lp.poll + sizeof g.lp.owner, "poll set", text);
	owner(sizeof g.scratch, "working space", "SCRATCH");
	owner((long long)sizeof g - (sum - ARENA_SIZE), "the rest of g",
		"options, link, queue of global requests");
	owner(atoll(argv[1]) - sum, "transport, libc",
		"read buffer, known_hosts line, tables, libc's own");
	printf("%9lld  %-16s data + bss, %s profile\n", sum, "total", PROFILE_NAME);
	return 0;
}
