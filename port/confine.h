/* confine.h - what a running master gives up: the part that depends on Linux and
 * on the CPU.
 *
 * After confine() the process, and what it forks, may make only the system calls
 * that confine.c lists: no exec, no fork, no mount, no ptrace.  Others fail with
 * EPERM and are in the kernel's audit log; builds with CHECKS are killed by them.
 * Programs are therefore started by a helper that was forked before (sp_ in
 * sshmux.c).  There is no way back.
 */
#ifndef SSHMUX_CONFINE_H
#define SSHMUX_CONFINE_H

#include <stdbool.h>
#include <sys/types.h>

/* No core file holds the keys, and no other process of the same user may read this
 * one's memory.  Keeps programs that it starts as they are. */
void confine_memory(void);

/* Whether this kernel and CPU have such a filter; false with errno. */
bool confine_able(void);

/* No new privileges and no other system calls from now on.  False with errno if
 * that failed: nothing was changed then but no_new_privs. */
bool confine(void);

/* fork(), but the child is a child of our parent. */
pid_t confine_fork_sibling(void);

#endif
