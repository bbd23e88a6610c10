/* arena.c - the allocator of dropbear, libtomcrypt and libtommath.
 *
 * Owns one static array of ARENA_SIZE bytes.  First fit, neighbours merge when
 * freed.  Blocks lie back to back; each begins with a head that knows its own
 * size and that of the block before, so both neighbours can be found without a
 * list.  Sizes are bytes, with the head, multiples of GRAIN.
 *
 * Exhaustion ends the connection (TP_CAUSE_LIMIT), never the process.
 * arena_reset() drops everything at once; so longjmp may leave a connection at
 * any point.  Bytes beyond the high-water mark are never touched, so an idle
 * arena costs no resident memory.
 *
 * In builds with the address sanitizer, malloc() makes each block, counted
 * against the same ARENA_SIZE, so that the sanitizer sees its ends and its life.
 */
#include "port.h"

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define ARENA_MALLOC
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define ARENA_MALLOC
#endif

/* Enough for every type that the libraries store: they have no long double. */
#define GRAIN 8u
#define CUT_MIN 512u	/* a block keeps a surplus smaller than this */

struct head {
	uint32_t size;		/* of this block; the lowest bit is set while in use */
	uint32_t before;	/* size of the block before, 0 for the first */
};

_Static_assert(sizeof(struct head) % GRAIN == 0, "heads keep blocks aligned");

static uint32_t used, peak;	/* bytes in use now, and the most since the last reset */

size_t arena_peak(void)
{
	return peak;
}

/* Size of a block for `n` bytes of contents, 0 if impossible. */
static uint32_t block_size(size_t n)
{
	if (n == 0 || n > ARENA_SIZE - sizeof(struct head))
		return 0;
	return (uint32_t)((n + GRAIN - 1) / GRAIN * GRAIN + sizeof(struct head));
}

/* The reason that users see; the figures show how much ARENA_SIZE lacks. */
static void exhausted(size_t n)
{
	port_fail(TP_CAUSE_LIMIT, "out of transport memory (%u of %u bytes in use, %zu wanted)",
		(unsigned)used, (unsigned)ARENA_SIZE, n);
}

#ifdef ARENA_MALLOC

/* The head before the contents. */
struct block {
	_Alignas(16) struct block *next;
	struct block **link;	/* what points to this one */
	size_t n;		/* bytes of contents */
};
static struct block *blocks;

/* Like malloc(), but never returns NULL. */
void *arena_alloc(size_t n)
{
	uint32_t size = block_size(n);
	struct block *b;

	if (size == 0 || size > ARENA_SIZE - used)
		exhausted(n);
	b = malloc(sizeof(*b) + n);
	if (b == NULL)
		exhausted(n);
	b->n = n;
	b->next = blocks;
	b->link = &blocks;
	if (blocks != NULL)
		blocks->link = &b->next;
	blocks = b;
	used += size;
	if (peak < used)
		peak = used;
	return b + 1;
}

void m_free_direct(void *p)
{
	struct block *b;

	if (p == NULL)
		return;
	b = (struct block *)p - 1;
	used -= block_size(b->n);
	*b->link = b->next;
	if (b->next != NULL)
		b->next->link = b->link;
	free(b);
}

/* Always moves, to expose who kept the old pointer. */
void *m_realloc(void *p, size_t n)
{
	void *q = m_malloc(n);
	size_t old = p != NULL ? ((struct block *)p - 1)->n : 0;

	if (old > 0)
		memcpy(q, p, old < n ? old : n);
	m_free_direct(p);
	return q;
}

/* Never moves: who called it has pointers into the block. */
void arena_cut(void *p, size_t n)
{
	struct block *b = (struct block *)p - 1;

	used -= block_size(b->n);
	b->n = n;
	used += block_size(n);
}

void arena_reset(void)
{
	while (blocks != NULL)
		m_free_direct(blocks + 1);
	peak = 0;
}

/* Nothing to do: free memory is not ours. */
void arena_wipe(void)
{
}

#else

static _Alignas(GRAIN) unsigned char arena[ARENA_SIZE];
static uint32_t first_free;	/* no block below this offset is free */
static uint32_t touched;	/* never written from here on */
static bool ready;

static struct head *at(uint32_t offset)
{
	return (struct head *)(void *)(arena + offset);
}

/* Where a block begins, from the start of the arena. */
static uint32_t offset_of(const struct head *h)
{
	return (uint32_t)((const unsigned char *)h - arena);
}

/* The size without the in-use bit. */
static uint32_t size_of(const struct head *h)
{
	return h->size & ~1u;
}

/* The block after `h`, or NULL if `h` is the last. */
static struct head *after(const struct head *h)
{
	uint32_t next = offset_of(h) + size_of(h);

	return next < ARENA_SIZE ? at(next) : NULL;
}

/* Sets the size of a block and tells its right neighbour. */
static void set_size(struct head *h, uint32_t size, uint32_t in_use)
{
	struct head *next;

	h->size = size | in_use;
	next = after(h);
	if (next != NULL)
		next->before = size;
}

/* Empties the arena and wipes the used part: it held keys and passwords. */
void arena_reset(void)
{
	explicit_bzero(arena, touched);
	touched = sizeof(struct head);
	first_free = 0;
	used = 0;
	peak = 0;
	ready = true;
	at(0)->before = 0;
	set_size(at(0), ARENA_SIZE, 0);
}

/* Wipes free memory: freed keys, and numbers computed with them. */
void arena_wipe(void)
{
	uint32_t offset, size;
	struct head *h;

	for (h = at(0); h != NULL && offset_of(h) < touched; h = after(h)) {
		offset = offset_of(h);
		size = size_of(h) < touched - offset ? size_of(h) : touched - offset;
		if (!(h->size & 1))
			explicit_bzero(h + 1, size - sizeof(struct head));
	}
}

/* Cuts `h`, a block of at least `size`, to `size` and marks it used; the rest becomes a
 * free block if it is large enough. */
static void take(struct head *h, uint32_t size)
{
	uint32_t whole = size_of(h), rest = whole - size, end;
	struct head *tail;

	if (rest < sizeof(struct head) + GRAIN) {
		size = whole;
		rest = 0;
	}
	if (rest > 0) {
		tail = at(offset_of(h) + size);
		tail->before = size;
		set_size(tail, rest, 0);
	}
	h->size = size | 1u;
	end = offset_of(h) + size + (rest > 0 ? sizeof(struct head) : 0);
	if (touched < end)
		touched = end;
	used += size;
	if (peak < used)
		peak = used;
}

/* Like malloc(), but never returns NULL. */
void *arena_alloc(size_t n)
{
	uint32_t size = block_size(n);
	struct head *h;
	bool lowest = true;

	if (!ready)
		arena_reset();
	if (size == 0)
		exhausted(n);
	for (h = at(first_free); h != NULL; h = after(h)) {
		if (h->size & 1)
			continue;
		if (lowest)
			first_free = offset_of(h);
		lowest = false;
		if (h->size >= size)
			break;
	}
	if (h == NULL)
		exhausted(n);
	take(h, size);
	return h + 1;
}

/* The head of an allocated block.  For any other pointer an invariant is broken: the
 * connection cannot go on. */
static struct head *head_of(void *p)
{
	struct head *h = (struct head *)p - 1;

	if ((unsigned char *)p < arena + sizeof(struct head) ||
	    (unsigned char *)p >= arena + ARENA_SIZE || !(h->size & 1))
		port_fail(TP_CAUSE_LIMIT, "transport memory is damaged");
	return h;
}

/* Merges with free neighbours on both sides, so no two free blocks touch. */
void m_free_direct(void *p)
{
	struct head *h, *next, *before;

	if (p == NULL)
		return;
	h = head_of(p);
	used -= size_of(h);
	h->size &= ~1u;
	next = after(h);
	if (next != NULL && !(next->size & 1))
		set_size(h, h->size + next->size, 0);
	if (h->before != 0) {
		before = at(offset_of(h) - h->before);
		if (!(before->size & 1)) {
			set_size(before, before->size + h->size, 0);
			h = before;
		}
	}
	if (first_free > offset_of(h))
		first_free = offset_of(h);
}

/* In place when the right neighbour is free and large enough: dropbear enlarges its read
 * buffer that way for every long packet.  Cuts a block that is much too long. */
void *m_realloc(void *p, size_t n)
{
	uint32_t size = block_size(n), old, room;
	struct head *h, *next;
	void *q;

	if (p == NULL)
		return m_malloc(n);
	if (size == 0)
		exhausted(n);
	h = head_of(p);
	old = size_of(h);
	if (size <= old && old - size < CUT_MIN)
		return p;
	next = after(h);
	room = old + (next == NULL || next->size & 1 ? 0 : next->size);
	if (room < size) {
		q = arena_alloc(n);
		memcpy(q, p, old - sizeof(struct head));
		m_free_direct(p);
		return q;
	}
	set_size(h, room, 1);
	used -= old;
	take(h, size);
	if (first_free > offset_of(h))
		first_free = offset_of(h);
	return p;
}

/* Never moves: a smaller size has room where the block is. */
void arena_cut(void *p, size_t n)
{
	m_realloc(p, n);
}

#endif

/* Like calloc(). */
void *m_malloc(size_t n)
{
	return memset(arena_alloc(n), 0, n);
}

void *m_calloc(size_t count, size_t size)
{
	if (size != 0 && count > ARENA_SIZE / size)
		exhausted(ARENA_SIZE);
	return m_malloc(count * size);
}

void *m_strdup(const char *s)
{
	size_t n = strlen(s) + 1;

	return memcpy(m_malloc(n), s, n);
}

/* libtommath's forms, which also know the old size. */
void *m_realloc_ltm(void *p, size_t oldsize, size_t newsize)
{
	(void)oldsize;
	return m_realloc(p, newsize);
}

void m_free_ltm(void *p, size_t size)
{
	(void)size;
	m_free_direct(p);
}
