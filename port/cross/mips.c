/* mips.c - what gcc calls where a MIPS CPU has no instruction.
 *
 * Debian's libgcc for MIPS expects an FPU: floating-point instructions are in
 * it, and its calling convention differs.  This takes its place: 64-bit
 * arithmetic, and the floating-point functions that musl's printf() refers to
 * for the formats that nobody here uses.  Those end the program; they are here
 * so that it links.  A function missing here is an error of the linker's.
 */

typedef unsigned long long u64;
typedef long long s64;
typedef unsigned int u32;

/* The two halves of a value, whichever comes first in memory. */
#define HIGH(x) ((u32)((x) >> 32))
#define LOW(x) ((u32)(x))

/* Shifts by words, so that gcc does not call what is defined here. */
static u64 join(u32 high, u32 low)
{
	union {
		u64 whole;
		struct {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
			u32 high, low;
#else
			u32 low, high;
#endif
		} half;
	} x;

	x.half.high = high;
	x.half.low = low;
	return x.whole;
}

/* Counts are 0 to 63. */
u64 __ashldi3(u64 x, int n)
{
	if (n >= 32)
		return join(LOW(x) << (n - 32), 0);
	if (n == 0)
		return x;
	return join(HIGH(x) << n | LOW(x) >> (32 - n), LOW(x) << n);
}

u64 __lshrdi3(u64 x, int n)
{
	if (n >= 32)
		return join(0, HIGH(x) >> (n - 32));
	if (n == 0)
		return x;
	return join(HIGH(x) >> n, LOW(x) >> n | HIGH(x) << (32 - n));
}

s64 __ashrdi3(s64 x, int n)
{
	int high = (int)HIGH(x);

	if (n >= 32)
		return (s64)join((u32)(high >> 31), (u32)(high >> (n - 32)));
	if (n == 0)
		return x;
	return (s64)join((u32)(high >> n), LOW(x) >> n | HIGH(x) << (32 - n));
}

/* One digit of 16 bits of a long division: *rest, below `d`, is followed by the
 * digit `next`; `d` has its highest bit set.  The guess from the upper half of
 * `d` is at most two too large. */
static u32 digit(u32 *rest, u32 next, u32 d)
{
	u32 upper = d >> 16, lower = d & 0xffff;
	u32 q = *rest / upper, r = *rest % upper;

	while (q > 0xffff || q * lower > (r << 16 | next)) {
		q--;
		r += upper;
		if (r > 0xffff)
			break;
	}
	*rest = (*rest << 16 | next) - q * d;
	return q;
}

/* (high, low) / d for high < d; the rest goes to *rest. */
static u32 divide_word(u32 high, u32 low, u32 d, u32 *rest)
{
	int n = __builtin_clz(d);
	u32 q;

	d <<= n;
	if (n > 0) {
		high = high << n | low >> (32 - n);
		low <<= n;
	}
	q = digit(&high, low >> 16, d) << 16;
	q |= digit(&high, low & 0xffff, d);
	*rest = high >> n;
	return q;
}

/* a / b for b of more than 32 bits: the quotient has at most 32, and dividing
 * by the upper 32 bits of b, rounded down, guesses it at most one too large. */
static u64 divide_long(u64 a, u64 b, u64 *rest)
{
	int n = __builtin_clz(HIGH(b));
	u64 top = __lshrdi3(a, 1), product;
	u32 q, unused;

	q = divide_word(HIGH(top), LOW(top), HIGH(__ashldi3(b, n)), &unused);
	q = LOW(__lshrdi3(q, 31 - n));
	if (q > 0)
		q--;
	product = (u64)q * LOW(b) + join(q * HIGH(b), 0);
	*rest = a - product;
	if (*rest >= b) {
		q++;
		*rest -= b;
	}
	return q;
}

static u64 divide(u64 a, u64 b, u64 *rest)
{
	u32 high, low, r = 0;

	if (HIGH(b) != 0)
		return divide_long(a, b, rest);
	if (LOW(b) == 0)
		__builtin_trap();
	high = HIGH(a) / LOW(b);
	r = HIGH(a) % LOW(b);
	if (r == 0) {
		low = LOW(a) / LOW(b);
		r = LOW(a) % LOW(b);
	} else {
		low = divide_word(r, LOW(a), LOW(b), &r);
	}
	*rest = r;
	return join(high, low);
}

/* What MIPS16 has no instruction for. */
int __clzsi2(u32 x)
{
	return __builtin_clz(x);
}

int __ctzsi2(u32 x)
{
	return 31 - __builtin_clz(x & -x);
}

int __popcountsi2(u32 x)
{
	int n = 0;

	for (; x != 0; x &= x - 1)
		n++;
	return n;
}

u64 __udivdi3(u64 a, u64 b)
{
	u64 rest;

	return divide(a, b, &rest);
}

u64 __umoddi3(u64 a, u64 b)
{
	u64 rest;

	divide(a, b, &rest);
	return rest;
}

static u64 magnitude(s64 x)
{
	return x < 0 ? -(u64)x : (u64)x;
}

s64 __divdi3(s64 a, s64 b)
{
	u64 q = __udivdi3(magnitude(a), magnitude(b));

	return (s64)((a < 0) != (b < 0) ? -q : q);
}

/* The rest has the sign of what is divided. */
s64 __moddi3(s64 a, s64 b)
{
	u64 r = __umoddi3(magnitude(a), magnitude(b));

	return (s64)(a < 0 ? -r : r);
}

#define UNUSED(name) void name(void); void name(void) { __builtin_trap(); }
UNUSED(__adddf3)
UNUSED(__subdf3)
UNUSED(__muldf3)
UNUSED(__divdf3)
UNUSED(__eqdf2)
UNUSED(__nedf2)
UNUSED(__ltdf2)
UNUSED(__ledf2)
UNUSED(__gtdf2)
UNUSED(__gedf2)
UNUSED(__unorddf2)
UNUSED(__fixdfsi)
UNUSED(__fixunsdfsi)
UNUSED(__floatsidf)
UNUSED(__floatunsidf)
