/* nomalloc - an allocator that ends the program once it is armed.
 *
 * Linked into a copy of sshmux in place of libc's own.  Until the file $NOMALLOC
 * exists it allocates out of a static area; from then on every call aborts with a
 * line that names it.  Children are free to allocate: only the process that
 * started is watched.  A free() is no allocation and does nothing. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define AREA (8 << 20)

static _Alignas(16) unsigned char area[AREA];
static size_t used;
static const char *armed;
static pid_t watched;

static __attribute__((constructor)) void begin(void)
{
	armed = getenv("NOMALLOC");
	watched = getpid();
}

static void *allocate(const char *who, size_t n)
{
	if (armed && getpid() == watched && access(armed, F_OK) == 0) {
		(void)!write(STDERR_FILENO, who, strlen(who));
		(void)!write(STDERR_FILENO, " was called\n", 12);
		abort();
	}
	/* The size goes before the bytes, for realloc(). */
	size_t whole = (n + 31) & ~(size_t)15;
	if (n > AREA || whole > AREA - used)
		return NULL;
	unsigned char *p = area + used + 16;
	memcpy(p - 16, &n, sizeof n);
	used += whole;
	return p;
}

void *malloc(size_t n) { return allocate("malloc", n); }

void *calloc(size_t count, size_t size)
{
	/* what is not used yet is zero: nothing is given twice */
	return size && count > AREA / size ? NULL : allocate("calloc", count * size);
}

void *realloc(void *old, size_t n)
{
	void *p = allocate("realloc", n);
	size_t had;
	if (p && old) {
		memcpy(&had, (unsigned char *)old - 16, sizeof had);
		memcpy(p, old, had < n ? had : n);
	}
	return p;
}

void *aligned_alloc(size_t align, size_t n)
{
	uintptr_t p = (uintptr_t)allocate("aligned_alloc", n + align);
	return p ? (void *)((p + align - 1) / align * align) : NULL;
}

void free(void *p) { (void)p; }
