/* home.so - loaded into the servers of the tests (LD_PRELOAD): the account
 * $TEST_ME has the home directory $TEST_HOME, the shell $TEST_SHELL, which counts
 * as a valid one, and, if it is set, the password whose hash is $TEST_SHADOW.
 * All else is as the system has it.  No descriptor is opened or kept. */
#include <dlfcn.h>
#include <pwd.h>
#include <shadow.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_me(const char *name)
{
	const char *me = getenv("TEST_ME");

	return me && name && !strcmp(me, name);
}

static struct passwd *changed(struct passwd *p)
{
	static struct passwd mine;
	static char name[64], home[128], shell[128], hidden[] = "x", gecos[] = "";
	const char *dir = getenv("TEST_HOME"), *sh = getenv("TEST_SHELL");

	if (!p || !dir || !sh || !is_me(p->pw_name))
		return p;
	mine = *p;
	strncpy(name, p->pw_name, sizeof(name) - 1);
	strncpy(home, dir, sizeof(home) - 1);
	strncpy(shell, sh, sizeof(shell) - 1);
	mine.pw_name = name;
	mine.pw_dir = home;
	mine.pw_shell = shell;
	mine.pw_passwd = hidden;
	mine.pw_gecos = gecos;
	return &mine;
}

struct passwd *getpwnam(const char *name)
{
	struct passwd *(*next)(const char *);

	*(void **)&next = dlsym(RTLD_NEXT, "getpwnam");
	return changed(next(name));
}

struct passwd *getpwuid(uid_t uid)
{
	struct passwd *(*next)(uid_t);

	*(void **)&next = dlsym(RTLD_NEXT, "getpwuid");
	return changed(next(uid));
}

struct spwd *getspnam(const char *name)
{
	static char hash[256], me[64];
	static struct spwd mine = { .sp_namp = me, .sp_pwdp = hash, .sp_lstchg = 19000,
		.sp_min = 0, .sp_max = 99999, .sp_warn = 7, .sp_inact = -1, .sp_expire = -1 };
	struct spwd *(*next)(const char *);
	const char *given = getenv("TEST_SHADOW");

	if (given && is_me(name)) {
		strncpy(hash, given, sizeof(hash) - 1);
		strncpy(me, name, sizeof(me) - 1);
		return &mine;
	}
	*(void **)&next = dlsym(RTLD_NEXT, "getspnam");
	return next(name);
}

static int shells;

char *getusershell(void)
{
	return shells++ ? NULL : getenv("TEST_SHELL");
}

void setusershell(void)
{
	shells = 0;
}

void endusershell(void)
{
	shells = 0;
}
