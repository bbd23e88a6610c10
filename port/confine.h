/* confine.h - the rights that a running master gives up: the part that depends on
 * Linux and on the CPU.
 *
 * After confine() the process, and its children, may make only the system calls
 * in confine.list: no exec, no fork, no mount, no ptrace.  Others fail with EPERM
 * and go to the kernel's audit log; they kill builds with CHECKS.  So a helper,
 * forked before, starts programs (sp_ in sshmux.c).  There is no way back.
 */
#ifndef SSHMUX_CONFINE_H
#define SSHMUX_CONFINE_H

#include <stdbool.h>
#include <sys/types.h>

/* Keeps keys out of core files, and other processes of the same user out of our memory.
 * Programs that we start are not affected. */
void confine_memory(void);

/* Whether this kernel and CPU have such a filter; false with errno. */
bool confine_able(void);

/* Allows no new privileges and no other system calls from now on.  False with errno if
 * that failed; then at most no_new_privs is set. */
bool confine(void);

/* fork(), but the child belongs to our parent. */
pid_t confine_fork_sibling(void);

#endif
