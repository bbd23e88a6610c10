/* confine.c - see confine.h.  Linux, seccomp(2).
 *
 * The list has the system calls of a master, and those that other CPUs and other libcs
 * use instead.  Any other call kills builds with CHECKS and those of 87-nomalloc, so the
 * suite finds what is missing.  Constants are the kernel's: not every compiler that
 * builds this has its headers.
 */
#include "confine.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

void confine_memory(void)
{
	struct rlimit none = { 0, 0 };
#ifndef CHECKS
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
#endif
	setrlimit(RLIMIT_CORE, &none);
}

pid_t confine_fork_sibling(void)
{
	return (pid_t)syscall(SYS_clone, 0x8000 /* CLONE_PARENT */ | SIGCHLD, 0, 0, 0, 0);
}

/* linux/audit.h: which system call numbers are in use */
#if defined __x86_64__ && !defined __ILP32__
#define CONFINE_ARCH 0xc000003eu
#elif defined __i386__
#define CONFINE_ARCH 0x40000003u
#elif defined __aarch64__ && !defined __AARCH64EB__
#define CONFINE_ARCH 0xc00000b7u
#elif defined __arm__ && defined __ARM_EABI__ && !defined __ARMEB__
#define CONFINE_ARCH 0x40000028u
#elif defined __mips__ && defined _ABIO32 && _MIPS_SIM == _ABIO32
#define CONFINE_ARCH (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? 0x00000008u : 0x40000008u)
#elif defined __riscv && __riscv_xlen == 64
#define CONFINE_ARCH 0xc00000f3u
#endif

/* Sanitizers, and the counters of `make coverage`, make calls of their own. */
#if defined __SANITIZE_ADDRESS__ || defined COVERAGE
#undef CONFINE_ARCH
#endif
#ifdef __has_feature
#if __has_feature(address_sanitizer)
#undef CONFINE_ARCH
#endif
#endif

#ifndef CONFINE_ARCH

bool confine_able(void)
{
	errno = ENOSYS;
	return false;
}

bool confine(void)
{
	return confine_able();
}

#else

/* The calls; those made in every turn come first. */
static const uint16_t allowed[] = {
#define CALL(name) SYS_##name,
#include "confine.list"
};
#define CALLS (sizeof allowed / sizeof allowed[0])
_Static_assert(CALLS < 250, "a jump of the filter goes no further");

/* linux/filter.h */
struct instruction {
	uint16_t code;
	uint8_t yes, no;
	uint32_t k;
};
struct program {
	uint16_t n;
	struct instruction *at;
};
enum { LOAD = 0x20, EQUAL = 0x15, RETURN = 0x06 };
enum { NUMBER_AT = 0, ARCH_AT = 4 };	/* in struct seccomp_data */

#if defined CHECKS || defined CONFINE_KILLS
#define REFUSE 0x80000000u		/* SECCOMP_RET_KILL_PROCESS */
#else
#define REFUSE (0x00050000u | EPERM)	/* SECCOMP_RET_ERRNO */
#endif
#define ALLOW 0x7fff0000u		/* SECCOMP_RET_ALLOW */

bool confine_able(void)
{
	return prctl(21 /* PR_GET_SECCOMP */, 0, 0, 0, 0) >= 0;
}

bool confine(void)
{
	struct instruction code[CALLS + 5];
	struct program program = { CALLS + 5, code };
	code[0] = (struct instruction){ LOAD, 0, 0, ARCH_AT };
	code[1] = (struct instruction){ EQUAL, 0, (uint8_t)(CALLS + 1), CONFINE_ARCH };
	code[2] = (struct instruction){ LOAD, 0, 0, NUMBER_AT };
	for (size_t i = 0; i < CALLS; i++)
		code[3 + i] = (struct instruction){ EQUAL, (uint8_t)(CALLS - i), 0, allowed[i] };
	code[CALLS + 3] = (struct instruction){ RETURN, 0, 0, REFUSE };
	code[CALLS + 4] = (struct instruction){ RETURN, 0, 0, ALLOW };
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return false;
#ifdef SYS_seccomp	/* SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_LOG */
	if (syscall(SYS_seccomp, 1, 2, &program) == 0)
		return true;
#endif
	return prctl(22 /* PR_SET_SECCOMP */, 2, &program, 0, 0) == 0;
}

#endif
