/* unit_small.c - port/static/small.c beside the C library it stands in for. */
#define vfprintf small_vfprintf
#define malloc small_malloc
#define calloc small_calloc
#define realloc small_realloc
#define free small_free
#define memmem small_memmem
#define strstr small_strstr
#define restrict	/* the library declares them otherwise */
int small_vfprintf(FILE *to, const char *text, va_list given);
void *small_memmem(const void *in, size_t size, const void *what, size_t len);
char *small_strstr(const char *in, const char *what);
#include "../port/static/small.c"
#undef vfprintf
#undef malloc
#undef calloc
#undef realloc
#undef free
#undef memmem
#undef strstr
#undef restrict

/* What one of both prints, and how much it says that was. */
static int small_text(int (*print)(FILE *, const char *, va_list), char *to, size_t size,
	const char *format, va_list args)
{
	FILE *f = fmemopen(to, size, "w");
	int n = print(f, format, args);
	fclose(f);
	return n;
}

static void small_same(const char *format, ...)
{
	char ours[600] = "", libc[600] = "";
	va_list args;
	va_start(args, format);
	int n = small_text(small_vfprintf, ours, sizeof ours, format, args);
	va_end(args);
	va_start(args, format);
	int m = small_text(vfprintf, libc, sizeof libc, format, args);
	va_end(args);
	check(n == m && strcmp(ours, libc) == 0,
		"small: %s is \"%.60s\" (%d), \"%.60s\" (%d) in libc", format, ours, n, libc, m);
}

static void small_numbers(void)
{
	static const int numbers[] = { 0, 1, -1, 42, INT_MAX, INT_MIN };
	static const char *const formats[] = { "%d", "%i", "[%6d]", "[%-6d]", "[%06d]", "%u", "%x",
		"%X", "%#x", "%o", "%.3d",
					       "[%8.3d]", "%hd", "%hhu", "[%02x]", "[%.0d]",
						"[%08x]", "[%-8u]" };
	for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
		for (size_t k = 0; k < sizeof numbers / sizeof numbers[0]; k++)
			small_same(formats[i], numbers[k]);
	small_same("%ld %lu %lx", LONG_MIN, ULONG_MAX, ULONG_MAX);
	small_same("%lld %llu %llx %llo", LLONG_MIN, ULLONG_MAX, ULLONG_MAX, ULLONG_MAX);
	small_same("%zu %jd %td", SIZE_MAX, INTMAX_MIN, (ptrdiff_t)-1);
	small_same("[%*d][%-*d][%*d]", 5, 7, 5, 7, -5, 7);
}

static void small_texts(void)
{
	small_same("plain, %% and \xc3\xa9");
	small_same("[%s][%10s][%-10s][%.2s][%-10.2s][%.*s]", "text", "text", "text", "text", "text",
		3, "text");
	small_same("[%c][%3c][%-3c]%s", 'a', 'b', 'c', "");
	small_same("[%s]", (const char *)NULL);
	small_same("%.4s", "not\0terminated");
	small_same("<%d>sshmux[%d]: %s%s %u:%02u", 27, 1234, "a", "b", 5u, 7u);
}

static void small_memory(void)
{
	char *first = small_malloc(10), *last = small_malloc(100);
	check(first && last && ((uintptr_t)first | (uintptr_t)last) % 16 == 0,
		"small: blocks are aligned");
	memset(first, 1, 10);
	memset(last, 2, 100);
	check(first[9] == 1 && last[0] == 2, "small: and apart");
	check(small_realloc(last, 2000) == last && last[99] == 2,
		"small: the last one grows where it is");
	char *moved = small_realloc(first, 300);
	check(moved != first && moved[9] == 1, "small: another one moves");
	small_free(moved);
	char *again = small_calloc(3, 100);
	check(again == moved && again[0] == 0 && again[299] == 0,
		"small: freed at the end, taken again as zeros");
	char *large = small_realloc(again, 300000);
	check(large && large[0] == 0, "small: more than a chunk");
	large[299999] = 1;
	small_free(large);
	check(!small_malloc(SIZE_MAX) && !small_malloc(SIZE_MAX / 2) &&
		!small_calloc(SIZE_MAX / 2, 3) && errno == ENOMEM,
	      "small: what no machine has is refused");
	small_free(NULL);
	check(small_realloc(NULL, 5) != NULL, "small: realloc() of nothing");
}

static void small_searches(void)
{
	static const char *const texts[] = { "", "a", "aab", "abab", "aabaabaaab", "xyz" };
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
		for (size_t k = 0; k < sizeof texts / sizeof texts[0]; k++) {
			const char *in = texts[i], *what = texts[k];
			check(small_strstr(in, what) == strstr(in, what),
				"small: \"%s\" in \"%s\"", what, in);
			check(small_memmem(in, strlen(in), what, strlen(what)) ==
				memmem(in, strlen(in), what, strlen(what)),
				"small: the bytes \"%s\" in \"%s\"", what, in);
		}
}

static void unit_small(void)
{
	small_numbers();
	small_texts();
	small_searches();
	small_memory();
}
