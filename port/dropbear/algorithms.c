/* algorithms.c - which algorithms we offer, in which order, and how we read the
 * lists of ssh_config(5).
 *
 * The choice is dropbear's own tables (common-algo.c, compiled under the names
 * dropbear_…) and the rows of `more_…` below.  We own the tables that its
 * negotiation reads (sshkex, sigalgs, sshciphers, sshhashes) and fill them
 * afresh for every login, so that nothing carries over.  Entries of sshkex
 * without code are protocol markers (ext-info-c, RFC 8308; kex-strict-c) and
 * always stay.
 *
 * Encrypt-then-MAC is dropbear's AES-CTR and HMAC in OpenSSH's order (PROTOCOL,
 * 1.5 there): the length travels in the clear, the MAC covers the bytes as sent.
 * It uses dropbear's hooks for ciphers that authenticate by themselves.
 */
#include "port.h"
#include "session.h"
#include "algo.h"
#include "ssh.h"
#include "dbutil.h"
#include "ciphers.h"

extern algo_type dropbear_kex[], dropbear_keys[], dropbear_ciphers[], dropbear_hashes[];
extern const struct dropbear_cipher_mode dropbear_mode_ctr;

#define LIST_SIZE 1024		/* the longest list, with its NUL */

algo_type sshkex[24], sigalgs[12], sshciphers[16], sshhashes[16];

static const struct dropbear_cipher aes192 = { &aes_desc, 24, 16 };
#ifdef CIPHERS
static const struct dropbear_cipher aes128_gcm = { &aes_desc, 16, 16 };
static const struct dropbear_cipher aes256_gcm = { &aes_desc, 32, 16 };
#endif
static const struct dropbear_hash etm_sha1 = { &sha1_desc, 20, 20 };
static const struct dropbear_hash etm_sha256 = { &sha256_desc, 32, 32 };
static const struct dropbear_hash etm_sha512 = { &sha512_desc, 64, 64 };

static const algo_type none[] = { { NULL, 0, NULL, 0, NULL } };
/* Dropbear takes it for rsa-sha2-256; see signature.c. */
static const algo_type more_keys[] = {
	{ "rsa-sha2-512", DROPBEAR_SIGNATURE_RSA_SHA256, NULL, 1, NULL },
	{ NULL, 0, NULL, 0, NULL }
};
static const algo_type more_ciphers[] = {
	{ "aes192-ctr", 0, &aes192, 1, &dropbear_mode_ctr },
#ifdef CIPHERS
	{ "aes128-gcm@openssh.com", 0, &aes128_gcm, 1, &mode_gcm },
	{ "aes256-gcm@openssh.com", 0, &aes256_gcm, 1, &mode_gcm },
#endif
	{ NULL, 0, NULL, 0, NULL }
};
static const algo_type more_hashes[] = {
	{ "hmac-sha2-256-etm@openssh.com", 0, &etm_sha256, 1, NULL },
	{ "hmac-sha2-512-etm@openssh.com", 0, &etm_sha512, 1, NULL },
	{ "hmac-sha1-etm@openssh.com", 0, &etm_sha1, 1, NULL },
	{ NULL, 0, NULL, 0, NULL }
};

/* OpenSSH's names.  `usual` is its default, in its order; `rest` is offered only on
 * request; `gone` are patterns of names that a list may contain but no build has.  A build
 * may lack some of `usual` and `rest`. */
static const char kex_usual[] = "mlkem768x25519-sha256,sntrup761x25519-sha512,"
	"sntrup761x25519-sha512@openssh.com,curve25519-sha256,curve25519-sha256@libssh.org,"
	"ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521,"
	"diffie-hellman-group-exchange-sha256,diffie-hellman-group16-sha512,"
	"diffie-hellman-group18-sha512,diffie-hellman-group14-sha256";
static const char kex_rest[] = "diffie-hellman-group14-sha1,diffie-hellman-group1-sha1";
static const char kex_gone[] = "diffie-hellman-group-exchange-sha1,"
	"sntrup4591761x25519-sha512@tinyssh.org,gss-*";
static const char key_usual[] = "ssh-ed25519-cert-v01@openssh.com,"
	"ecdsa-sha2-nistp256-cert-v01@openssh.com,ecdsa-sha2-nistp384-cert-v01@openssh.com,"
	"ecdsa-sha2-nistp521-cert-v01@openssh.com,sk-ssh-ed25519-cert-v01@openssh.com,"
	"sk-ecdsa-sha2-nistp256-cert-v01@openssh.com,rsa-sha2-512-cert-v01@openssh.com,"
	"rsa-sha2-256-cert-v01@openssh.com,ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,"
	"ecdsa-sha2-nistp521,sk-ssh-ed25519@openssh.com,sk-ecdsa-sha2-nistp256@openssh.com,"
	"rsa-sha2-512,rsa-sha2-256";
static const char key_rest[] = "ssh-rsa,ssh-rsa-cert-v01@openssh.com,ssh-dss,"
	"ssh-dss-cert-v01@openssh.com";
static const char key_gone[] = "ssh-rsa-cert-v00@openssh.com,ssh-dss-cert-v00@openssh.com,"
	"webauthn-sk-ecdsa-sha2-nistp256@openssh.com,ssh-xmss@openssh.com,"
	"ssh-xmss-cert-v01@openssh.com";
static const char cipher_usual[] = "chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,"
	"aes256-ctr,aes128-gcm@openssh.com,aes256-gcm@openssh.com";
static const char cipher_rest[] = "aes128-cbc,aes192-cbc,aes256-cbc,3des-cbc";
static const char cipher_gone[] = "rijndael-cbc@lysator.liu.se,blowfish-cbc,cast128-cbc,"
	"arcfour,arcfour128,arcfour256";
static const char mac_usual[] = "umac-64-etm@openssh.com,umac-128-etm@openssh.com,"
	"hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,hmac-sha1-etm@openssh.com,"
	"umac-64@openssh.com,umac-128@openssh.com,hmac-sha2-256,hmac-sha2-512,hmac-sha1";
static const char mac_gone[] = "hmac-sha1-96,hmac-md5,hmac-md5-96,hmac-sha1-96-etm@openssh.com,"
	"hmac-md5-etm@openssh.com,hmac-md5-96-etm@openssh.com,hmac-ripemd160,"
	"hmac-ripemd160@openssh.com,hmac-ripemd160-etm@openssh.com,hmac-sha2-256-96,"
	"hmac-sha2-512-96";

#ifdef CIPHERS
/* The default where the CPU has instructions for AES, and where it has none.  There GCM is
 * slow and comes last, for servers that have nothing else. */
static const char cipher_aes_first[] = "aes128-gcm@openssh.com,aes256-gcm@openssh.com,"
	"chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr";
static const char cipher_aes256_first[] = "aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,"
	"aes128-ctr,aes192-ctr,aes256-ctr,aes128-gcm@openssh.com";
#endif

/* By enum tp_algorithms.  No live table: the agent decides which there are. */
static const struct table {
	const char *what;		/* for messages */
	algo_type *live;
	size_t room;			/* entries of `live`, with its end mark */
	const algo_type *compiled, *more;
	const char *usual, *rest, *gone;
} tables[] = {
	[TP_KEX] = { "key exchange algorithm", sshkex, ARRAY_SIZE(sshkex), dropbear_kex, none,
		kex_usual, kex_rest, kex_gone },
	[TP_HOST_KEYS] = { "host key algorithm", sigalgs, ARRAY_SIZE(sigalgs), dropbear_keys,
		more_keys, key_usual, key_rest, key_gone },
	[TP_CIPHERS] = { "cipher", sshciphers, ARRAY_SIZE(sshciphers), dropbear_ciphers,
		more_ciphers, cipher_usual, cipher_rest, cipher_gone },
	[TP_MACS] = { "MAC", sshhashes, ARRAY_SIZE(sshhashes), dropbear_hashes, more_hashes,
		mac_usual, "", mac_gone },
	[TP_USER_KEYS] = { "key algorithm", NULL, 0, NULL, NULL, key_usual, key_rest, key_gone },
};

static const char *host_key;	/* the algorithm agreed on */

/* --- names ---------------------------------------------------------------- */

/* Steps through the names of a list: for (n = 0; next_name(&list, &n);).  The name is `n`
 * bytes at `list`. */
static bool next_name(const char **list, size_t *n)
{
	*list += *n;
	*list += strspn(*list, ",");
	*n = strcspn(*list, ",");
	return *n > 0;
}

static bool listed(const char *list, const char *name, size_t len)
{
	size_t n = 0;

	while (next_name(&list, &n))
		if (n == len && memcmp(list, name, n) == 0)
			return true;
	return false;
}

/* The row with that name, NULL if this build has none. */
static const algo_type *find(const struct table *t, const char *name, size_t len)
{
	const algo_type *both[2] = { t->compiled, t->more }, *a;
	int i;

	for (i = 0; i < 2; i++)
		for (a = both[i]; a->name != NULL; a++)
			if (strlen(a->name) == len && memcmp(a->name, name, len) == 0)
				return a;
	return NULL;
}

/* The names that we offer by default, best first. */
static const char *usual(const struct table *t)
{
#ifdef CIPHERS
	if (t->live != sshciphers || strcmp(ciphers_gcm_way(32), "plain") == 0)
		return t->usual;
	/* the same code is faster with the shorter key */
	return strcmp(ciphers_gcm_way(16), ciphers_gcm_way(32)) == 0 ? cipher_aes_first :
		cipher_aes256_first;
#else
	return t->usual;
#endif
}

static bool have(const struct table *t, const char *name, size_t len)
{
	if (!listed(t->usual, name, len) && !listed(t->rest, name, len))
		return false;
	return t->live == NULL || find(t, name, len) != NULL;
}

/* --- ssh_config's lists --------------------------------------------------- */

/* A list that we are building; `full` once something did not fit. */
struct list {
	char *text;
	size_t size, len;
	bool full;
};

static void add(struct list *l, const char *name, size_t n)
{
	if (listed(l->text, name, n))
		return;
	if (l->len + n + 2 > l->size) {
		l->full = true;
		return;
	}
	l->len += (size_t)snprintf(l->text + l->len, l->size - l->len, "%s%.*s",
		l->len > 0 ? "," : "", (int)n, name);
}

/* Whether one of the patterns matches; NULL matches nothing. */
static bool fits(const char *patterns, const char *name, size_t len)
{
	char text[64];
	size_t n = 0;

	snprintf(text, sizeof(text), "%.*s", (int)len, name);
	while (patterns != NULL && next_name(&patterns, &n))
		if (port_glob(patterns, n, text))
			return true;
	return false;
}

/* Adds the `names` that this build has: only those that match `only`, if given, and do not
 * match `without`. */
static void add_names(struct list *l, const struct table *t, const char *names,
	const char *only, const char *without)
{
	size_t n = 0;

	while (next_name(&names, &n))
		if (have(t, names, n) && (only == NULL || fits(only, names, n)) &&
		    !fits(without, names, n))
			add(l, names, n);
}

/* Adds one word of a list: a name or a pattern.  Returns false if no version of ssh knows
 * it. */
static bool add_word(struct list *l, const struct table *t, const char *word, size_t n)
{
	char text[100];

	snprintf(text, sizeof(text), "%.*s", (int)n, word);
	if (strpbrk(text, "*?") != NULL) {
		add_names(l, t, usual(t), text, NULL);
		add_names(l, t, t->rest, text, NULL);
	} else if (have(t, word, n)) {
		add(l, word, n);
	} else if (listed(t->usual, word, n) || listed(t->rest, word, n) ||
	    fits(t->gone, word, n)) {
		port_log(TP_VERBOSE, "%s %s is not in this build, passed over", t->what, text);
	} else {
		snprintf(port.error, sizeof(port.error), "unknown %s %s", t->what, text);
		return false;
	}
	return true;
}

static bool add_words(struct list *l, const struct table *t, const char *words)
{
	size_t n = 0;

	while (next_name(&words, &n))
		if (!add_word(l, t, words, n))
			return false;
	return true;
}

/* See transport.h. */
bool tp_algorithms(enum tp_algorithms kind, const char *spec, char *text, size_t size)
{
	const struct table *t = &tables[kind];
	struct list l = { .text = text, .size = size };
	char form = spec != NULL ? *spec : '+';

	text[0] = '\0';
	if (form == '^' && !add_words(&l, t, spec + 1))
		return false;
	if (form == '+' || form == '-' || form == '^')
		add_names(&l, t, usual(t), NULL, form == '-' ? spec + 1 : NULL);
	if (spec != NULL && form == '+' && !add_words(&l, t, spec + 1))
		return false;
	if (form != '+' && form != '-' && form != '^' && !add_words(&l, t, spec))
		return false;
	if (l.len > 0 && !l.full)
		return true;
	snprintf(port.error, sizeof(port.error), l.full ? "too many names" :
		"no %s of this list is in this build", t->what);
	return false;
}

/* --- a login -------------------------------------------------------------- */

/* The user's list, or NULL. */
static const char *configured(const struct tp_config *c, enum tp_algorithms kind)
{
	switch (kind) {
	case TP_KEX:		return c->kex;
	case TP_HOST_KEYS:	return c->host_key_algorithms;
	case TP_CIPHERS:	return c->ciphers;
	case TP_MACS:		return c->macs;
	case TP_USER_KEYS:	return c->user_key_algorithms;
	}
	return NULL;
}

/* Called once, before any connection.  Returns false with the reason in port.error. */
bool algorithms_init(const struct tp_config *c)
{
	char list[LIST_SIZE];
	unsigned kind;

	for (kind = 0; kind < ARRAY_SIZE(tables); kind++)
		if (!tp_algorithms(kind, configured(c, kind), list, sizeof(list)))
			return false;
	return true;
}

/* The type of key (known_hosts, RFC 4253 6.6) behind a signature's name. */
static bool is_of_type(const char *name, const char *types)
{
	if (strncmp(name, "rsa-sha2-", 9) == 0)
		name = "ssh-rsa";
	return listed(types, name, strlen(name));
}

static bool is_live(const struct table *t, size_t n, const algo_type *a)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (t->live[i].name == a->name)
			return true;
	return false;
}

/* Appends the names of `list` to live[*n] unless they are there: all, or those of the
 * given key types. */
static void enter(const struct table *t, const char *list, const char *types, size_t *n)
{
	const algo_type *a;
	size_t len = 0;

	while (next_name(&list, &len)) {
		a = find(t, list, len);
		if (a != NULL && *n + 1 < t->room && !is_live(t, *n, a) &&
		    (types == NULL || is_of_type(a->name, types)))
			t->live[(*n)++] = *a;
	}
}

/* RFC 8308 2.1 and strict key exchange; leaves out the server's half. */
static void enter_markers(size_t *n)
{
	const algo_type *a;

	for (a = dropbear_kex; a->name != NULL; a++)
		if (a->data == NULL && strcmp(a->name, SSH_STRICT_KEX_S) != 0 &&
		    *n + 1 < ARRAY_SIZE(sshkex))
			sshkex[(*n)++] = *a;
}

/* Whether the order of host keys follows the known_hosts files, as in ssh: unless the user
 * has set one. */
bool algorithms_follow_files(void)
{
	const char *spec = port.config->host_key_algorithms;

	return spec == NULL || *spec == '+' || *spec == '-';
}

/* Whether this login asks for a host key of that type. */
bool algorithms_offer_key(const char *type)
{
	const algo_type *a;

	for (a = sigalgs; a->name != NULL; a++)
		if (is_of_type(a->name, type))
			return true;
	return false;
}

/* Sets the tables for a login. */
void algorithms_begin(const struct tp_config *c)
{
	char list[LIST_SIZE], known[256];
	const struct table *t;
	unsigned kind;
	size_t n;

	host_key = "";
	for (kind = 0; kind < ARRAY_SIZE(tables); kind++) {
		t = &tables[kind];
		n = 0;
		if (t->live == NULL || !tp_algorithms(kind, configured(c, kind), list,
			sizeof(list)))
			continue;
		if (kind == TP_HOST_KEYS && algorithms_follow_files()) {
			hostkey_known_types(known, sizeof(known));
			enter(t, list, known, &n);
		}
		enter(t, list, NULL, &n);
		if (kind == TP_KEX)
			enter_markers(&n);
		memset(&t->live[n], 0, sizeof(t->live[n]));
	}
}

/* Whether the user's keys may be used with that algorithm. */
bool algorithms_allow_user_key(const char *name)
{
	char list[LIST_SIZE];

	return tp_algorithms(TP_USER_KEYS, port.config->user_key_algorithms, list, sizeof(list)) &&
		listed(list, name, strlen(name));
}

/* --- encrypt-then-MAC ----------------------------------------------------- */

static int etm_start(int cipher, const unsigned char *iv, const unsigned char *key,
	int key_len, int rounds, void *state)
{
	return dropbear_mode_ctr.start(cipher, iv, key, key_len, rounds, state);
}

/* The MAC of a packet as sent. */
static bool etm_mac(const struct key_context_directional *k, uint32_t seq,
	const unsigned char *packet, unsigned long len, unsigned char mac[MAX_MAC_LEN])
{
	unsigned char number[4];
	unsigned long n = MAX_MAC_LEN;
	hmac_state h;

	STORE32H(seq, number);
	return hmac_init(&h, k->hash_index, k->mackey, k->algo_mac->keysize) == CRYPT_OK &&
		hmac_process(&h, number, sizeof(number)) == CRYPT_OK &&
		hmac_process(&h, packet, len) == CRYPT_OK && hmac_done(&h, mac, &n) == CRYPT_OK;
}

static int etm_crypt(unsigned seq, const unsigned char *in, unsigned char *out,
	unsigned long len, unsigned long tag_len, void *state, int direction)
{
	bool sends = direction == LTC_ENCRYPT;
	const struct key_context_directional *k = sends ? &ses.keys->trans : &ses.keys->recv;
	unsigned char mac[MAX_MAC_LEN];

	if (len < 4)
		return CRYPT_ERROR;
	if (!sends && (!etm_mac(k, seq, in, len, mac) ||
	    constant_time_memcmp(in + len, mac, tag_len) != 0))
		return CRYPT_ERROR;
	memmove(out, in, 4);
	if ((sends ? dropbear_mode_ctr.encrypt : dropbear_mode_ctr.decrypt)(in + 4, out + 4,
	    len - 4, state) != CRYPT_OK)
		return CRYPT_ERROR;
	if (sends && !etm_mac(k, seq, out, len, mac))
		return CRYPT_ERROR;
	if (sends)
		memcpy(out + len, mac, tag_len);
	return CRYPT_OK;
}

static int etm_length(unsigned seq, const unsigned char *in, unsigned *out,
	unsigned long len, void *state)
{
	(void)seq;
	(void)len;
	(void)state;
	LOAD32H(*out, in);
	return CRYPT_OK;
}

static const struct dropbear_cipher_mode mode_etm = {
	.start = etm_start, .aead_crypt = etm_crypt, .aead_getlength = etm_length,
};

/* The MAC decides how the cipher works; dropbear has chosen them separately. */
static void settle_etm(struct key_context_directional *d)
{
	const struct dropbear_hash *m = d->algo_mac;

	if (d->crypt_mode == &dropbear_mode_ctr &&
	    (m == &etm_sha1 || m == &etm_sha256 || m == &etm_sha512))
		d->crypt_mode = &mode_etm;
}

/* --- the agreed algorithms ------------------------------------------------ */

/* The server's list number `i` of SSH_MSG_KEXINIT, RFC 4253 7.1, at ses.payload; false: *p
 * and *n are not set. */
static bool their_list(unsigned i, unsigned char **p, size_t *n)
{
	buffer *b = ses.payload;
	unsigned pos = b->pos;
	bool ok = b->len - ses.payload_beginning > 17;

	buf_setpos(b, ses.payload_beginning + (ok ? 17 : 0));
	for (i++; ok && i > 0; i--)
		ok = port_take_string(b, p, n);
	buf_setpos(b, pos);
	return ok;
}

/* Notes the first of our host key algorithms that the server has, too. */
static void note_host_key(void)
{
	char theirs[LIST_SIZE];
	unsigned char *p;
	size_t n;
	const algo_type *a;

	if (!their_list(1, &p, &n))
		return;
	snprintf(theirs, sizeof(theirs), "%.*s", (int)n, p);
	for (a = sigalgs; a->name != NULL; a++)
		if (listed(theirs, a->name, strlen(a->name)))
			break;
	host_key = a->name != NULL ? a->name : "";
}

/* Called when dropbear has read the server's KEXINIT and chosen. */
void algorithms_agreed(void)
{
	note_host_key();
	settle_etm(&ses.newkeys->recv);
	settle_etm(&ses.newkeys->trans);
}

/* Whether the host must sign with SHA-512.  Dropbear has no name for that. */
bool algorithms_host_key_is_sha512(void)
{
	return strcmp(host_key, "rsa-sha2-512") == 0;
}

/* After a failed negotiation: what the server offers of the kind that dropbear calls
 * `what`. */
void algorithms_their_offer(const char *what, char *text, size_t size)
{
	static const char *const names[] = {
		"kex", "hostkey", "enc c->s", "enc s->c", "mac c->s", "mac s->c"
	};
	unsigned char *p;
	unsigned i;
	size_t n;

	text[0] = '\0';
	for (i = 0; i < ARRAY_SIZE(names); i++)
		if (strcmp(names[i], what) == 0 && ses.payload != NULL && their_list(i, &p, &n))
			snprintf(text, size, ". Their offer: %.*s", (int)n, p);
}

/* The name of the live entry with this code (and mode, for a cipher). */
static const char *name_of(const algo_type *a, const void *data, const void *mode)
{
	for (; a->name != NULL; a++)
		if (a->data == data && (mode == NULL || a->mode == mode))
			return a->name;
	return "";
}

/* Names what the last key exchange agreed on.  For ciphers that authenticate
 * by themselves the MAC is "<implicit>", as ssh prints it. */
void algorithms_describe(struct tp_info *info)
{
	const struct key_context_directional *d = &ses.keys->trans;
	bool etm = d->crypt_mode == &mode_etm;

	info->kex = name_of(sshkex, ses.keys->algo_kex, NULL);
	info->cipher = name_of(sshciphers, d->algo_crypt, etm ? &dropbear_mode_ctr : d->crypt_mode);
	info->mac = d->crypt_mode->aead_crypt != NULL && !etm ? "<implicit>" :
		name_of(sshhashes, d->algo_mac, NULL);
	info->host_key_algorithm = host_key;
}
