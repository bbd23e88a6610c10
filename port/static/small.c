/* small.c - what a static binary takes in place of musl's printf(), malloc() and searches.
 *
 * Theirs serve any program: floating point and wide characters, threads and a
 * heap that lives for years.  Here they would be a twentieth of the binary, for
 * numbers, strings and the few blocks that libc itself wants before sshmux
 * serves anybody, or in a child that soon ends.  Linked before libc, these are
 * found first; all of printf's family ends in vfprintf(), and no other member of
 * the archive defines what stands here (the linker would say so).
 *
 * Built with STATIC=1 alone.  tests/unit.c compares them with the C library's.
 */
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ===== printf: %d %i %u %x %X %o %c %s %p %%, with the flags - 0 #, a width, a
 * precision and a length.  Anything else stands in the output as it was written. */

struct conversion {
	bool left, zeros, marked;
	int width, precision;	/* -1: none */
	int length;		/* bytes of the number */
	char letter;
};

static int small_number(const char **format, va_list *args)
{
	int n = 0;
	if (**format == '*') {
		++*format;
		return va_arg(*args, int);
	}
	while (**format >= '0' && **format <= '9' && n < INT_MAX / 10 - 1)
		n = 10 * n + *(*format)++ - '0';
	return n;
}

static int small_length(const char **format)
{
	int length = sizeof(int), longs = 0;
	for (;; ++*format)
		switch (**format) {
		case 'h': length /= 2; break;
		case 'l': length = longs++ == 0 ? sizeof(long) : sizeof(long long); break;
		case 'j': length = sizeof(intmax_t); break;
		case 'z': case 't': length = sizeof(size_t); break;
		default: return length;
		}
}

/* What stands behind a '%'. */
static struct conversion small_conversion(const char **format, va_list *args)
{
	struct conversion c = { .precision = -1 };
	for (; **format && strchr("-0#", **format); ++*format)
		*(**format == '-' ? &c.left : **format == '0' ? &c.zeros : &c.marked) = true;
	c.width = small_number(format, args);
	if (c.width < 0) {
		c.left = true;
		c.width = -c.width;
	}
	if (**format == '.') {
		++*format;
		c.precision = small_number(format, args);
	}
	c.length = small_length(format);
	c.letter = **format;
	*format += c.letter != '\0';
	return c;
}

static int small_fill(FILE *to, char with, int n)
{
	for (int i = 0; i < n; i++)
		fputc(with, to);
	return n > 0 ? n : 0;
}

/* `sign` and then at least c->precision characters of `text`, within c->width */
static int small_put(FILE *to, const struct conversion *c, const char *sign, const char *text,
	int len)
{
	int signs = (int)strlen(sign), least = c->letter != 's' && c->precision > len ?
		c->precision : len;
	int pad = c->width - signs - least, zeros = least - len, put;
	if (c->zeros && !c->left && pad > 0) {
		zeros += pad;
		pad = 0;
	}
	put = c->left ? 0 : small_fill(to, ' ', pad);
	fwrite(sign, 1, (size_t)signs, to);
	put += signs + small_fill(to, '0', zeros);
	fwrite(text, 1, (size_t)len, to);
	return put + len + (c->left ? small_fill(to, ' ', pad) : 0);
}

static int small_put_number(FILE *to, struct conversion *c, uintmax_t n, bool negative)
{
	char text[3 * sizeof n], *at = text + sizeof text;
	const char *digits = c->letter == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
	int shift = c->letter == 'o' ? 3 : strchr("xXp", c->letter) ? 4 : 0;
	const char *sign = negative ? "-" : c->marked && shift == 4 && n ?
		(c->letter == 'X' ? "0X" : "0x") : "";
	c->zeros = c->zeros && c->precision < 0;
	for (uintmax_t rest = n; rest || (at == text + sizeof text && c->precision != 0);
	     rest = shift ? rest >> shift : rest / 10)
		*--at = digits[shift ? rest & ((1u << shift) - 1) : rest % 10];
	return small_put(to, c, sign, at, (int)(text + sizeof text - at));
}

static int small_put_signed(FILE *to, struct conversion *c, va_list *args)
{
	intmax_t n = c->length == sizeof(long long) ? va_arg(*args, long long) :
		     c->length == sizeof(long) ? va_arg(*args, long) : va_arg(*args, int);
	n = c->length == sizeof(short) ? (short)n : c->length == sizeof(char) ? (signed char)n : n;
	return small_put_number(to, c, n < 0 ? -(uintmax_t)n : (uintmax_t)n, n < 0);
}

static int small_put_unsigned(FILE *to, struct conversion *c, va_list *args)
{
	uintmax_t n = c->length == sizeof(long long) ? va_arg(*args, unsigned long long) :
		      c->length == sizeof(long) ? va_arg(*args, unsigned long) :
			va_arg(*args, unsigned);
	n = c->length == sizeof(short) ? (unsigned short)n : c->length == sizeof(char) ?
		(unsigned char)n : n;
	return small_put_number(to, c, n, false);
}

static int small_put_text(FILE *to, const struct conversion *c, const char *text)
{
	size_t most = c->precision < 0 ? INT_MAX : (size_t)c->precision;
	text = text ? text : "(null)";
	return small_put(to, c, "", text, (int)strnlen(text, most));
}

static int small_put_one(FILE *to, struct conversion *c, const char *as_written, int len,
	va_list *args)
{
	char character;
	switch (c->letter) {
	case 'd': case 'i':
		return small_put_signed(to, c, args);
	case 'p':
		c->marked = true;
		c->length = sizeof(void *);
		/* fall through */
	case 'u': case 'x': case 'X': case 'o':
		return small_put_unsigned(to, c, args);
	case 's':
		c->zeros = false;
		return small_put_text(to, c, va_arg(*args, const char *));
	case 'c': case '%':
		character = c->letter == 'c' ? (char)va_arg(*args, int) : '%';
		c->zeros = false;
		c->precision = -1;
		return small_put(to, c, "", &character, 1);
	default:
		return (int)fwrite(as_written, 1, (size_t)len, to);
	}
}

int vfprintf(FILE *restrict to, const char *restrict text, va_list given)
{
	const char *format = text;
	va_list args;
	int put = 0;
	va_copy(args, given);
	while (*format) {
		size_t plain = strcspn(format, "%");
		put += (int)fwrite(format, 1, plain, to);
		format += plain;
		if (!*format)
			break;
		const char *from = format++;
		struct conversion c = small_conversion(&format, &args);
		put += small_put_one(to, &c, from, (int)(format - from), &args);
	}
	va_end(args);
	return ferror(to) ? -1 : put;
}

/* ===== Searches: texts are short here; musl's are for megabytes. */

void *memmem(const void *in, size_t size, const void *what, size_t len)
{
	for (const unsigned char *at = in; size >= len; at++, size--)
		if (memcmp(at, what, len) == 0)
			return (void *)(uintptr_t)at;
	return NULL;
}

char *strstr(const char *in, const char *what)
{
	return memmem(in, strlen(in), what, strlen(what));
}

/* ===== malloc: blocks one behind the other in mapped memory, each after its
 * size.  The last one may grow and be given back; the others stay. */

#define SMALL_UNIT 16			/* what a block is aligned to, and its head */
#define SMALL_CHUNK 65536		/* mapped at a time; what nobody wrote to costs nothing */

static unsigned char *small_next, *small_end;

static size_t *small_size(void *block)
{
	return (size_t *)(void *)((unsigned char *)block - SMALL_UNIT);
}

static bool small_is_last(void *block)
{
	return (unsigned char *)block + *small_size(block) == small_next;
}

void *malloc(size_t n)
{
	size_t size = (n + SMALL_UNIT - 1) & ~(size_t)(SMALL_UNIT - 1), whole = size + SMALL_UNIT;
	if (n > PTRDIFF_MAX - SMALL_CHUNK) {
		errno = ENOMEM;
		return NULL;
	}
	if (whole > (size_t)(small_end - small_next)) {
		size_t chunk = (whole + SMALL_CHUNK - 1) & ~(size_t)(SMALL_CHUNK - 1);
		void *p = mmap(NULL, chunk, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			0);
		if (p == MAP_FAILED)
			return NULL;
		small_next = p;
		small_end = small_next + chunk;
	}
	void *block = small_next + SMALL_UNIT;
	*small_size(block) = size;
	small_next += whole;
	return block;
}

void free(void *block)
{
	if (block && small_is_last(block))
		small_next = (unsigned char *)block - SMALL_UNIT;
}

void *calloc(size_t count, size_t size)
{
	size_t n;
	void *block = __builtin_mul_overflow(count, size, &n) ? (errno = ENOMEM, NULL) : malloc(n);
	return block ? memset(block, 0, n) : NULL;
}

void *realloc(void *old, size_t n)
{
	if (old && n <= *small_size(old))
		return old;
	if (old && small_is_last(old) && n <= (size_t)(small_end - (unsigned char *)old)) {
		*small_size(old) = (n + SMALL_UNIT - 1) & ~(size_t)(SMALL_UNIT - 1);
		small_next = (unsigned char *)old + *small_size(old);
		return old;
	}
	void *block = malloc(n);
	if (block && old) {
		memcpy(block, old, *small_size(old));
		free(old);
	}
	return block;
}
