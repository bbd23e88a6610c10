/* herd - 10,000 masters whose server restarts.
 *
 * A simulation in steps of one millisecond with the back-off of sshmux.c itself.  The
 * server is away for some time, then takes so many logins a second (0: any
 * number) and refuses the rest.  All masters lose it at the same moment and try
 * again until they are in.
 *
 *   herd [MASTERS]     prints the table
 *   herd check         TAP: the bounds that the table is there to show
 */
#define main sshmux_main
int sshmux_main(int argc, char **argv);
#include "../sshmux.c"
#undef main

#define MASTERS_MOST 20000
#define LONGEST 7200000		/* ms after which we stop looking */

enum rule { FIXED, FULL_JITTER };

struct outcome {
	int peak;		/* most tries in one second after the server is back */
	int peak_down;		/* the same while it is away */
	int half, all;		/* seconds until so many were in, from its return */
	double each;		/* tries of one master */
};

/* Who tries at which millisecond: a list for each. */
static int first_at[LONGEST], next_of[MASTERS_MOST];
static uint32_t tries_of[MASTERS_MOST];
static int per_second[LONGEST / 1000];

static void tries_at(int i, int64_t when)
{
	if (when >= LONGEST)
		return;			/* we do not look so far */
	next_of[i] = first_at[when];
	first_at[when] = i;
}

static int64_t pause_of(enum rule rule, uint32_t tries)
{
	return rule == FIXED ? 10000 : rn_backoff(tries, 1, 300);
}

static struct outcome simulate(enum rule rule, int n, int64_t away, int capacity)
{
	struct outcome o = { 0 };
	int in = 0, taken = 0;
	int64_t tries = 0;
	memset(per_second, 0, sizeof per_second);
	memset(first_at, 0xff, sizeof first_at);
	memset(tries_of, 0, sizeof tries_of);
	for (int i = 0; i < n; i++)
		tries_at(i, pause_of(rule, 0));
	for (int64_t now = 0; now < LONGEST && in < n; now++) {
		if (now % 1000 == 0)
			taken = 0;
		for (int i = first_at[now], next; i >= 0; i = next) {
			next = next_of[i];
			per_second[now / 1000]++;
			tries++;
			if (now < away || (capacity && taken == capacity)) {
				tries_at(i, now + pause_of(rule, ++tries_of[i]));
				continue;
			}
			taken++;
			in++;
			o.all = (int)((now - away) / 1000) + 1;
			if (in == (n + 1) / 2)
				o.half = o.all;
		}
	}
	if (in < n)
		o.all = -1;
	for (int64_t s = 0; s < LONGEST / 1000; s++) {
		int *peak = s * 1000 < away ? &o.peak_down : &o.peak;
		if (per_second[s] > *peak)
			*peak = per_second[s];
	}
	o.each = (double)tries / n;
	return o;
}

static const struct { int away, capacity; } cases[] = {
	{ 5, 0 }, { 60, 0 }, { 600, 0 }, { 5, 100 }, { 60, 100 }, { 600, 100 },
};

static void table(int n)
{
	printf("%d masters lose their server at once; "
		"tries in the busiest second after its return,\n"
	       "seconds until half and until all are in, tries of each\n\n", n);
	printf("%8s %12s | %8s %6s %6s %7s | %8s %6s %6s %7s\n", "away", "logins/s", "every",
		"half", "all",
	       "tries", "ours", "half", "all", "tries");
	printf("%8s %12s | %8s %6s %6s %7s |\n", "s", "it takes", "10 s", "s", "s", "each");
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct outcome a = simulate(FIXED, n, cases[i].away * 1000, cases[i].capacity);
		struct outcome b = simulate(FULL_JITTER, n, cases[i].away * 1000,
			cases[i].capacity);
		printf("%8d %12d | %8d %6d %6d %7.1f | %8d %6d %6d %7.1f\n", cases[i].away,
			cases[i].capacity,
		       a.peak, a.half, a.all, a.each, b.peak, b.half, b.all, b.each);
	}
}

static int points, failed;
static void point(bool good, const char *name)
{
	printf("%s %d - %s\n", good ? "ok" : "not ok", ++points, name);
	failed += !good;
}

static int bounds(void)
{
	const int n = 10000;
	struct outcome fixed = simulate(FIXED, n, 600000, 0),
		ours = simulate(FULL_JITTER, n, 600000, 0);
	point(fixed.peak == n, "a fixed interval brings all of them in one second");
	point(ours.peak * 20 <= n, "the back-off at most a twentieth of them");
	point(ours.all > 0 && ours.all <= 301, "and all of them within ReconnectMax");
	point(ours.each < fixed.each / 2, "with fewer tries");
	fixed = simulate(FIXED, n, 60000, 100);
	ours = simulate(FULL_JITTER, n, 60000, 100);
	point(ours.all > 0, "a server that takes 100 a second gets all of them in");
	point(ours.peak * 4 <= fixed.peak, "and is asked for far fewer at once");
	printf("1..%d\n", points);
	return failed != 0;
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "check") == 0)
		return bounds();
	int n = argc == 2 ? atoi(argv[1]) : 10000;
	if (n < 1 || n > MASTERS_MOST)
		return 2;
	table(n);
	return 0;
}
