/* home.so - loaded into the servers of the tests (LD_PRELOAD): the account
 * $TEST_ME has the home directory $TEST_HOME, the shell $TEST_SHELL, which counts
 * as a valid one, and, if it is set, the password whose hash is $TEST_SHADOW.  With
 * $TEST_NETWORKED regular files seem to be on a network file system.
 * All else is as the system has it.  No descriptor is opened or kept. */
#include <dlfcn.h>
#include <fcntl.h>
#include <pwd.h>
#include <shadow.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
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

/* --- PAM, for servers with UsePAM: one question, the text of the file $TEST_PAM after
 * its first byte (its echo, as PAM numbers it); $TEST_PAM_ANSWER is right. */

struct pam_message { int msg_style; const char *msg; };
struct pam_response { char *resp; int resp_retcode; };
struct pam_conv { int (*conv)(int, const struct pam_message **, struct pam_response **, void *);
	void *data; };

/* sshd empties the environment */
static struct pam { struct pam_conv conv; char user[64], path[128], right[64]; } pam;

int pam_start(const char *service, const char *user, const struct pam_conv *conv,
	struct pam **handle)
{
	const char *path = getenv("TEST_PAM"), *right = getenv("TEST_PAM_ANSWER");

	(void)service;
	pam.conv = *conv;
	strncpy(pam.user, user ? user : "", sizeof(pam.user) - 1);
	strncpy(pam.path, path ? path : "", sizeof(pam.path) - 1);
	strncpy(pam.right, right ? right : "", sizeof(pam.right) - 1);
	*handle = &pam;
	return 0;
}

int pam_set_item(struct pam *p, int type, const void *item)
{
	if (type == 5 && item)		/* PAM_CONV */
		p->conv = *(const struct pam_conv *)item;
	return 0;
}

int pam_get_item(struct pam *p, int type, const void **item)
{
	*item = type == 2 ? p->user : NULL;	/* PAM_USER */
	return 0;
}

int pam_authenticate(struct pam *p, int flags)
{
	static char text[65536];
	struct pam_message m = { 0, text + 1 };
	const struct pam_message *list = &m;
	struct pam_response *r = NULL;
	int fd = open(p->path, O_RDONLY);
	ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;

	(void)flags;
	if (n < 1)
		return 7;		/* PAM_AUTH_ERR */
	close(fd);
	text[n] = '\0';
	m.msg_style = text[0] - '0';
	if (p->conv.conv(1, &list, &r, p->conv.data) || !r || !r->resp)
		return 7;
	return strcmp(r->resp, p->right) == 0 ? 0 : 7;
}

int pam_end(struct pam *p, int status) { (void)p; (void)status; return 0; }
int pam_acct_mgmt(struct pam *p, int flags) { (void)p; (void)flags; return 0; }
int pam_chauthtok(struct pam *p, int flags) { (void)p; (void)flags; return 0; }
int pam_setcred(struct pam *p, int flags) { (void)p; (void)flags; return 0; }
int pam_open_session(struct pam *p, int flags) { (void)p; (void)flags; return 0; }
int pam_close_session(struct pam *p, int flags) { (void)p; (void)flags; return 0; }
int pam_putenv(struct pam *p, const char *value) { (void)p; (void)value; return 0; }
char **pam_getenvlist(struct pam *p) { (void)p; return NULL; }
const char *pam_strerror(struct pam *p, int error) { (void)p; return error ? "refused" : "good"; }

int fstatfs(int fd, struct statfs *fs)
{
	int (*next)(int, struct statfs *), result;
	struct stat st;

	*(void **)&next = dlsym(RTLD_NEXT, "fstatfs");
	result = next(fd, fs);
	if (result == 0 && getenv("TEST_NETWORKED") && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		fs->f_type = 0x65735546;
	return result;
}
