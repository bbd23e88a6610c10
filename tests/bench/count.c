/* count.c - a plugin of qemu-user: counts the instructions of each process, and adds a line
 * with them to the file that COUNT_FILE names when the process ends.
 * Debian's qemu-user has no header for plugins: these are the parts of its interface, version 1.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
enum { ADD_U64 };	/* enum qemu_plugin_op */

extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id,
	struct qemu_plugin_tb *));
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *,
	uint64_t);
extern void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);
extern int qemu_plugin_install(plugin_id, const void *, int, char **);

extern int qemu_plugin_version;
int qemu_plugin_version = 1;

static uint64_t count;

static void translated(plugin_id id, struct qemu_plugin_tb *block)
{
	(void)id;
	qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &count,
		qemu_plugin_tb_n_insns(block));
}

static void ended(plugin_id id, void *data)
{
	const char *path = getenv("COUNT_FILE");
	FILE *f = path ? fopen(path, "a") : NULL;
	(void)id;
	(void)data;
	if (!f)
		return;
	fprintf(f, "%" PRIu64 "\n", count);
	fclose(f);
}

int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
	(void)info;
	(void)argc;
	(void)argv;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	qemu_plugin_register_atexit_cb(id, ended, NULL);
	return 0;
}
