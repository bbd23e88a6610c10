/* unit_fuzz.c - what drives a fuzzer: it includes this file after unit_world.c or
 * fuzz_transport.c and defines
 *
 *	static void fuzz_one(const uint8_t *data, size_t size);
 *
 * Built with clang -fsanitize=fuzzer -DLIBFUZZER, libFuzzer calls it.  Built
 * in any other way the program replays the files and directories it is given
 * and then goes on with as many mutations of them as FUZZ_RUNS says, the same
 * ones each time. */

#define FUZZ_MAX 4096

#ifndef FUZZ_TRANSPORT
static int fuzz_null = -1;		/* takes and gives nothing */

static void fuzz_start(void)
{
	static bool started;
	if (started)
		return;
	if (!world_open_dir())
		abort();
	atexit(world_remove_dir);
	world.no_children = true;
	fuzz_null = open("/dev/null", O_RDWR | O_CLOEXEC);
	started = true;
}

/* Paths that the input names are made here. */
static void fuzz_enter_dir(void)
{
	if (chdir(world.dir) != 0)
		abort();
}

static void fuzz_account(void)
{
	const char *wrong = pool_wrong();
	if (wrong) {
		fprintf(stderr, "broken: %s\n", wrong);
		abort();
	}
}

static inline void fuzz_end(void)
{
	fake_reset();
}

static inline uint32_t *fuzz_seed_of(void)
{
	return &world.seed;
}

#endif

/* The input goes on from `*data`; zero at its end. */
struct fuzz_input {
	const uint8_t *data;
	size_t size;
};

static inline uint8_t fuzz_byte(struct fuzz_input *f)
{
	if (f->size == 0)
		return 0;
	f->size--;
	return *f->data++;
}

/* At most `n` bytes; returns how many. */
static inline size_t fuzz_bytes(struct fuzz_input *f, size_t n, const uint8_t **bytes)
{
	*bytes = f->data;
	if (n > f->size)
		n = f->size;
	f->data += n;
	f->size -= n;
	return n;
}

/* A broken invariant is a crash. */
static void fuzz_require(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "broken: %s\n", what);
	abort();
}

#ifdef LIBFUZZER

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	fuzz_start();
	fuzz_enter_dir();
	fuzz_one(data, size);
	return 0;
}

#else

#define FUZZ_SEEDS 64

static struct { uint8_t data[FUZZ_MAX]; size_t size; } fuzz_seed[FUZZ_SEEDS], fuzz_last;
static int fuzz_seeds, fuzz_files;

/* The input that broke something, for tests/corpus. */
static void fuzz_keep(int number)
{
	int fd = open("/tmp/sshmux-fuzz-broken", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	(void)number;
	if (fd >= 0 && write(fd, fuzz_last.data, fuzz_last.size) >= 0)
		fprintf(stderr, "the input is in /tmp/sshmux-fuzz-broken\n");
	signal(number, SIG_DFL);
	raise(number);
}

static void fuzz_file(int dir, const char *name)
{
	static uint8_t data[FUZZ_MAX];
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, data, sizeof data);
	if (fd >= 0)
		close(fd);
	if (n < 0)
		return;
	fuzz_last.size = (size_t)n;
	memcpy(fuzz_last.data, data, fuzz_last.size);
	fuzz_one(data, (size_t)n);
	fuzz_files++;
	if (fuzz_seeds < FUZZ_SEEDS) {
		memcpy(fuzz_seed[fuzz_seeds].data, data, (size_t)n);
		fuzz_seed[fuzz_seeds++].size = (size_t)n;
	}
}

static void fuzz_path(const char *path)
{
	DIR *d = opendir(path);
	if (!d)
		fuzz_file(AT_FDCWD, path);
	for (struct dirent *e; d && (e = readdir(d));)
		if (e->d_name[0] != '.')
			fuzz_file(dirfd(d), e->d_name);
	if (d)
		closedir(d);
}

/* A seed with a few bytes changed, cut, or carried on by another one. */
static size_t fuzz_mutate(uint8_t *data)
{
	static const uint8_t odd[] = { 0, 1, 0x7f, 0x80, 0xfe, 0xff };
	int from = fuzz_seeds ? (int)rnd((uint32_t)fuzz_seeds) : -1;
	size_t n = from < 0 ? 0 : fuzz_seed[from].size;
	if (n)
		memcpy(data, fuzz_seed[from].data, n);
	if (n == 0 || rnd(4) == 0)
		for (size_t more = 1 + rnd(60); more && n < FUZZ_MAX; more--)
			data[n++] = (uint8_t)rnd(256);
	for (uint32_t changes = rnd(8); changes; changes--)
		data[rnd((uint32_t)n)] = rnd(2) ? odd[rnd(sizeof odd)] : (uint8_t)rnd(256);
	if (rnd(3) == 0) {
		const int other = (int)rnd((uint32_t)(fuzz_seeds ? fuzz_seeds : 1));
		size_t keep = rnd((uint32_t)n + 1), part = fuzz_seed[other].size;
		if (part > FUZZ_MAX - keep)
			part = FUZZ_MAX - keep;
		memcpy(data + keep, fuzz_seed[other].data, part);
		n = keep + part;
	}
	return rnd(5) ? n : rnd((uint32_t)n + 1);
}

int main(int argc, char **argv)
{
	static uint8_t data[FUZZ_MAX];
	const char *word = getenv("FUZZ_RUNS");
	long runs = word ? atol(word) : 2000;
	fuzz_start();
	signal(SIGABRT, fuzz_keep);
	signal(SIGSEGV, fuzz_keep);
	for (int i = 1; i < argc; i++)
		fuzz_path(argv[i]);
	fuzz_enter_dir();
	for (long i = 0; i < runs; i++) {
		*fuzz_seed_of() = (uint32_t)i * 2654435761u + 1;
		fuzz_last.size = fuzz_mutate(data);
		memcpy(fuzz_last.data, data, fuzz_last.size);
		fuzz_one(data, fuzz_last.size);
	}
	fuzz_end();
	printf("%d files, %ld mutations: no crash\n", fuzz_files, runs);
	return 0;
}

#endif
