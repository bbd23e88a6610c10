/* libgcc.c - what gcc calls where a CPU has no instruction.
 *
 * It takes the place of Debian's libgcc for CPUs that this was not compiled for: MIPS and
 * PowerPC without an FPU, whose calling convention differs, too; ARMv4 and big-endian ARM;
 * x86 before the i686.  Arithmetic on twice the width of a register, and the
 * floating-point functions that musl's printf() refers to for the formats that nobody
 * here uses.  Those end the program; they are here so that it links.  A function missing
 * here is an error of the linker's.
 */

/* A register, and two of them, after which the functions are named */
#ifdef __LP64__
#define BITS 64
typedef unsigned long word;
typedef unsigned __int128 dword;
typedef __int128 sdword;
#define NAME(name, number) __##name##ti##number
#define LEADING_ZEROS __builtin_clzl
#else
#define BITS 32
typedef unsigned int word;
typedef unsigned long long dword;
typedef long long sdword;
#define NAME(name, number) __##name##di##number
#define LEADING_ZEROS leading_zeros
#endif
#define HALF (BITS / 2)
#define HALF_MASK (((word)1 << HALF) - 1)

/* The two halves of a value, whichever comes first in memory. */
#define HIGH(x) ((word)((x) >> BITS))
#define LOW(x) ((word)(x))

/* Shifts by words, so that gcc does not call what is defined here. */
static dword join(word high, word low)
{
	union {
		dword whole;
		struct {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
			word high, low;
#else
			word low, high;
#endif
		} half;
	} x;

	x.half.high = high;
	x.half.low = low;
	return x.whole;
}

/* Counts are 0 to BITS * 2 - 1. */
dword NAME(ashl, 3)(dword x, int n)
{
	if (n >= BITS)
		return join(LOW(x) << (n - BITS), 0);
	if (n == 0)
		return x;
	return join(HIGH(x) << n | LOW(x) >> (BITS - n), LOW(x) << n);
}

dword NAME(lshr, 3)(dword x, int n)
{
	if (n >= BITS)
		return join(0, HIGH(x) >> (n - BITS));
	if (n == 0)
		return x;
	return join(HIGH(x) >> n, LOW(x) >> n | HIGH(x) << (BITS - n));
}

sdword NAME(ashr, 3)(sdword x, int n)
{
#ifdef __LP64__
	long high = (long)HIGH(x);
#else
	int high = (int)HIGH(x);
#endif

	if (n >= BITS)
		return (sdword)join((word)(high >> (BITS - 1)), (word)(high >> (n - BITS)));
	if (n == 0)
		return x;
	return (sdword)join((word)(high >> n), LOW(x) >> n | HIGH(x) << (BITS - n));
}

#if BITS == 32
/* ARMv4 cannot count, and cannot divide: gcc would call what is defined here. */
static int leading_zeros(word x)
{
#ifdef __arm__
	int n = 0;

	for (; (x & 0x80000000) == 0; x <<= 1)
		n++;
	return n;
#else
	return __builtin_clz(x);
#endif
}
#endif

#ifdef __arm__
/* n / d, bit by bit; the rest goes to *rest. */
static word divide_bits(word n, word d, word *rest)
{
	word q = 0;
	int i;

	if (d == 0)
		__builtin_trap();
	for (i = n == 0 ? -1 : leading_zeros(d) - leading_zeros(n); i >= 0; i--) {
		if (n >= d << i) {
			n -= d << i;
			q |= (word)1 << i;
		}
	}
	*rest = n;
	return q;
}

/* Two results come back in r0 and r1. */
static dword registers(word r0, word r1)
{
	union {
		word part[2];
		dword whole;
	} x = { { r0, r1 } };

	return x.whole;
}

dword __aeabi_uidivmod(word n, word d)
{
	word rest, q = divide_bits(n, d, &rest);

	return registers(q, rest);
}

word __aeabi_uidiv(word n, word d)
{
	word rest;

	return divide_bits(n, d, &rest);
}

dword __aeabi_idivmod(int n, int d)
{
	word rest, q = divide_bits(n < 0 ? -(word)n : (word)n, d < 0 ? -(word)d : (word)d, &rest);

	return registers((n < 0) != (d < 0) ? -q : q, n < 0 ? -rest : rest);
}

int __aeabi_idiv(int n, int d)
{
	word rest, q = divide_bits(n < 0 ? -(word)n : (word)n, d < 0 ? -(word)d : (word)d, &rest);

	return (int)((n < 0) != (d < 0) ? -q : q);
}
#endif

/* One digit of half a word of a long division: *rest, below `d`, is followed by the
 * digit `next`; `d` has its highest bit set.  The guess from the upper half of
 * `d` is at most two too large. */
static word digit(word *rest, word next, word d)
{
	word upper = d >> HALF, lower = d & HALF_MASK;
	word q = *rest / upper, r = *rest % upper;

	while (q > HALF_MASK || q * lower > (r << HALF | next)) {
		q--;
		r += upper;
		if (r > HALF_MASK)
			break;
	}
	*rest = (*rest << HALF | next) - q * d;
	return q;
}

/* (high, low) / d for high < d; the rest goes to *rest. */
static word divide_word(word high, word low, word d, word *rest)
{
	int n = LEADING_ZEROS(d);
	word q;

	d <<= n;
	if (n > 0) {
		high = high << n | low >> (BITS - n);
		low <<= n;
	}
	q = digit(&high, low >> HALF, d) << HALF;
	q |= digit(&high, low & HALF_MASK, d);
	*rest = high >> n;
	return q;
}

/* a / b for b of more than one word: the quotient has at most one, and dividing
 * by the upper word of b, rounded down, guesses it at most one too large. */
static dword divide_long(dword a, dword b, dword *rest)
{
	int n = LEADING_ZEROS(HIGH(b));
	dword top = NAME(lshr, 3)(a, 1), product;
	word q, unused;

	q = divide_word(HIGH(top), LOW(top), HIGH(NAME(ashl, 3)(b, n)), &unused);
	q = q >> (BITS - 1 - n);
	if (q > 0)
		q--;
	product = (dword)q * LOW(b) + join(q * HIGH(b), 0);
	*rest = a - product;
	if (*rest >= b) {
		q++;
		*rest -= b;
	}
	return q;
}

dword NAME(udivmod, 4)(dword a, dword b, dword *rest)
{
	word high, low, r = 0;

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

dword NAME(udiv, 3)(dword a, dword b)
{
	dword rest;

	return NAME(udivmod, 4)(a, b, &rest);
}

dword NAME(umod, 3)(dword a, dword b)
{
	dword rest;

	NAME(udivmod, 4)(a, b, &rest);
	return rest;
}

static dword magnitude(sdword x)
{
	return x < 0 ? -(dword)x : (dword)x;
}

/* The rest has the sign of what is divided. */
sdword NAME(divmod, 4)(sdword a, sdword b, sdword *rest)
{
	dword r, q = NAME(udivmod, 4)(magnitude(a), magnitude(b), &r);

	*rest = (sdword)(a < 0 ? -r : r);
	return (sdword)((a < 0) != (b < 0) ? -q : q);
}

sdword NAME(div, 3)(sdword a, sdword b)
{
	sdword rest;

	return NAME(divmod, 4)(a, b, &rest);
}

sdword NAME(mod, 3)(sdword a, sdword b)
{
	sdword rest;

	NAME(divmod, 4)(a, b, &rest);
	return rest;
}

#if BITS == 32 && (defined __arm__ || defined __mips)
word __bswapsi2(word x)
{
	return x >> 24 | (x >> 8 & 0xff00) | (x << 8 & 0xff0000) | x << 24;
}

dword __bswapdi2(dword x)
{
	return join(__bswapsi2(LOW(x)), __bswapsi2(HIGH(x)));
}
#endif

#ifdef __arm__
/* Quotient in r0 and r1, rest in r2 and r3 */
#define DIVMOD(name, function) \
	__asm__(".section .text." #name ",\"ax\",%progbits\n" \
		".align 2\n.arm\n.global " #name "\n.type " #name ",%function\n" #name ":\n" \
		"push {r4, lr}\nsub sp, sp, #16\nadd r4, sp, #8\nstr r4, [sp]\nbl " #function "\n" \
		"ldr r2, [sp, #8]\nldr r3, [sp, #12]\nadd sp, sp, #16\npop {r4, pc}\n.previous")
DIVMOD(__aeabi_uldivmod, __udivmoddi4);
DIVMOD(__aeabi_ldivmod, __divmoddi4);
#endif

#ifdef __powerpc64__
/* musl's save the registers of vectors, too, which the e5500 does not have.  From the start
 * of the buffer: return address, condition, stack, general and floating-point registers
 * 14 to 31. */
#define JUMP(name, code) __asm__(".section .text." #name ",\"ax\",@progbits\n" \
	".global " #name "\n.type " #name ",@function\n" #name ":\n" code "blr\n.previous")
#define FROM_14 ".irp n,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
JUMP(setjmp, "mflr 0\nstd 0, 0(3)\nmfcr 0\nstd 0, 8(3)\nstd 1, 16(3)\n"
	FROM_14 "std \\n, (\\n - 11) * 8(3)\nstfd \\n, (\\n + 7) * 8(3)\n.endr\nli 3, 0\n");
JUMP(longjmp, "ld 0, 0(3)\nmtlr 0\nld 0, 8(3)\nmtcr 0\nld 1, 16(3)\n"
	FROM_14 "ld \\n, (\\n - 11) * 8(3)\nlfd \\n, (\\n + 7) * 8(3)\n.endr\n"
	"mr. 3, 4\nbnelr\nli 3, 1\n");
#elif defined __powerpc__
/* How functions compiled for size return: registers from n on from below r11, which
 * was the stack pointer, and the return address. */
__asm__(".section .text._restgpr,\"ax\",@progbits\n"
	".irp n,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
	".global _restgpr_\\n\\()_x\n_restgpr_\\n\\()_x:\n"
	"lwz \\n, (\\n - 32) * 4(11)\n.endr\n"
	"lwz 0, 4(11)\nmtlr 0\nmr 1, 11\nblr\n.previous");
#endif

/* What MIPS16, and ARMv4, have no instruction for. */
int __clzsi2(unsigned int x)
{
#if BITS == 32
	return leading_zeros(x);
#else
	return __builtin_clz(x);
#endif
}

int __ctzsi2(unsigned int x)
{
	return 31 - __clzsi2(x & -x);
}

static int ones(unsigned long x)
{
	int n = 0;

	for (; x != 0; x &= x - 1)
		n++;
	return n;
}

int __popcountsi2(unsigned int x)
{
	return ones(x);
}

#if BITS == 64
int __popcountdi2(word x)
{
	return ones(x);
}
#endif

#define UNUSED(name) void name(void); void name(void) { __builtin_trap(); }
#ifdef __arm__
UNUSED(__aeabi_dadd)
UNUSED(__aeabi_dsub)
UNUSED(__aeabi_dmul)
UNUSED(__aeabi_ddiv)
UNUSED(__aeabi_dcmpeq)
UNUSED(__aeabi_dcmplt)
UNUSED(__aeabi_dcmple)
UNUSED(__aeabi_dcmpge)
UNUSED(__aeabi_dcmpgt)
UNUSED(__aeabi_dcmpun)
UNUSED(__aeabi_d2iz)
UNUSED(__aeabi_d2uiz)
UNUSED(__aeabi_i2d)
UNUSED(__aeabi_ui2d)
#else
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
#endif
#if defined __mips64 || defined __loongarch64
UNUSED(__addtf3)
UNUSED(__subtf3)
UNUSED(__multf3)
UNUSED(__divtf3)
UNUSED(__eqtf2)
UNUSED(__netf2)
UNUSED(__lttf2)
UNUSED(__letf2)
UNUSED(__gttf2)
UNUSED(__getf2)
UNUSED(__unordtf2)
UNUSED(__fixtfsi)
UNUSED(__fixtfdi)
UNUSED(__fixunstfsi)
UNUSED(__floatsitf)
UNUSED(__floatunsitf)
UNUSED(__extenddftf2)
UNUSED(__trunctfdf2)
#endif
