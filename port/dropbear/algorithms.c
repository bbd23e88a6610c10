/* algorithms.c - which algorithms are offered, in which order.
 *
 * Dropbear's tables (sshkex, sigalgs, sshciphers, sshhashes) are global and
 * changed in place.  A copy of each as compiled is kept here and every login
 * starts from it, so that nothing carries over.  Names that a list leaves out
 * are removed from the table; entries of sshkex without code behind them are
 * protocol markers (ext-info-c, RFC 8308; kex-strict-c) and always stay.
 */
#include "port.h"
#include "session.h"
#include "algo.h"
#include "ssh.h"

#define TABLE_MAX 24		/* entries of the longest table, its end included */

struct table {
	algo_type *live;
	const char *what;	/* for error messages */
	algo_type compiled[TABLE_MAX];
	size_t n;		/* entries without the end */
};

static struct table kex = { .live = sshkex, .what = "key exchange algorithm" };
static struct table keys = { .live = sigalgs, .what = "host key algorithm" };
static struct table ciphers = { .live = sshciphers, .what = "cipher" };
static struct table macs = { .live = sshhashes, .what = "MAC" };

/* The hybrid of ML-KEM is the cheapest post-quantum one, so it comes first;
 * the others follow in dropbear's order. */
static const char kex_first[] = "mlkem768x25519-sha256,"
	"sntrup761x25519-sha512,sntrup761x25519-sha512@openssh.com,"
	"curve25519-sha256,curve25519-sha256@libssh.org";

/* Keeps the table as compiled.  Returns false if TABLE_MAX is too small. */
static bool save(struct table *t)
{
	while (t->n < TABLE_MAX && t->live[t->n].name != NULL) {
		t->compiled[t->n] = t->live[t->n];
		t->n++;
	}
	return t->n < TABLE_MAX;
}

static bool is_marker(const struct table *t, const algo_type *a)
{
	return t == &kex && a->data == NULL;
}

/* The compiled entry of that name, NULL if there is none. */
static const algo_type *find(const struct table *t, const char *name, size_t len)
{
	size_t i;

	for (i = 0; i < t->n; i++)
		if (strlen(t->compiled[i].name) == len &&
		    memcmp(t->compiled[i].name, name, len) == 0)
			return &t->compiled[i];
	return NULL;
}

/* Is the name among the first `n` of the live table already? */
static bool is_live(const struct table *t, size_t n, const char *name)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (strcmp(t->live[i].name, name) == 0)
			return true;
	return false;
}

/* Fills the live table: the names of `list` that exist, in that order, then
 * the markers and, if `rest`, everything else as compiled. */
static void arrange(struct table *t, const char *list, bool rest)
{
	const algo_type *a;
	size_t len, i, n = 0;

	for (; list != NULL && *list != '\0'; list += len + (list[len] == ',')) {
		len = strcspn(list, ",");
		a = find(t, list, len);
		if (a != NULL && !is_live(t, n, a->name))
			t->live[n++] = *a;
	}
	for (i = 0; i < t->n; i++) {
		a = &t->compiled[i];
		if ((rest || is_marker(t, a)) && !is_live(t, n, a->name))
			t->live[n++] = *a;
	}
	memset(&t->live[n], 0, sizeof(t->live[n]));
}

/* Checks that every name of a configured list exists. */
static bool check(const struct table *t, const char *list)
{
	const algo_type *a;
	size_t len;

	if (list == NULL)
		return true;
	do {
		len = strcspn(list, ",");
		a = find(t, list, len);
		if (a == NULL || is_marker(t, a)) {
			snprintf(port.error, sizeof(port.error), "unknown %s %.*s",
				t->what, (int)len, list);
			return false;
		}
		list += len;
	} while (*list++ == ',');
	return true;
}

/* Once, before any connection.  Returns false with the reason in port.error. */
bool algorithms_init(const struct tp_config *c)
{
	algo_type *a;

	/* The server's half of strict key exchange is not ours to offer. */
	for (a = sshkex; a->name != NULL; a++)
		if (strcmp(a->name, SSH_STRICT_KEX_S) == 0)
			a->usable = 0;
	if (!save(&kex) || !save(&keys) || !save(&ciphers) || !save(&macs)) {
		snprintf(port.error, sizeof(port.error), "too many algorithms are compiled in");
		return false;
	}
	return check(&kex, c->kex) && check(&keys, c->host_key_algorithms) &&
		check(&ciphers, c->ciphers) && check(&macs, c->macs);
}

/* Sets the tables for a login.  Unless the user orders them, host key types
 * that the files know for this host come first, as with ssh. */
void algorithms_begin(const struct tp_config *c)
{
	char known[256];

	arrange(&kex, c->kex != NULL ? c->kex : kex_first, c->kex == NULL);
	arrange(&ciphers, c->ciphers, c->ciphers == NULL);
	arrange(&macs, c->macs, c->macs == NULL);
	if (c->host_key_algorithms != NULL) {
		arrange(&keys, c->host_key_algorithms, false);
		return;
	}
	hostkey_known_types(known, sizeof(known) - sizeof(",rsa-sha2-256"));
	/* known_hosts names the key's type, the table its signatures (RFC 8332). */
	if (strstr(known, "ssh-rsa") != NULL)
		strcat(known, ",rsa-sha2-256");
	arrange(&keys, known, true);
}

/* The name of the compiled entry with this code (and mode, for a cipher). */
static const char *name_of(const struct table *t, const void *data, const void *mode)
{
	size_t i;

	for (i = 0; i < t->n; i++)
		if (t->compiled[i].data == data && (mode == NULL || t->compiled[i].mode == mode))
			return t->compiled[i].name;
	return "";
}

/* Names what the last key exchange agreed on.  For ciphers that authenticate
 * by themselves the MAC is "<implicit>", as ssh prints it. */
void algorithms_describe(struct tp_info *info)
{
	const struct key_context_directional *d = &ses.keys->trans;

	info->kex = name_of(&kex, ses.keys->algo_kex, NULL);
	info->cipher = name_of(&ciphers, d->algo_crypt, d->crypt_mode);
	info->mac = d->crypt_mode->aead_crypt != NULL ? "<implicit>" :
		name_of(&macs, d->algo_mac, NULL);
	info->host_key_algorithm = signature_name_from_type(ses.keys->algo_signature, NULL);
}
