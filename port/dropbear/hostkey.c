/* hostkey.c - is this the server the user means?  StrictHostKeyChecking, pins
 * and known_hosts, ssh_config(5) and sshd(8) "SSH_KNOWN_HOSTS FILE FORMAT".
 *
 * Owns one line buffer of KNOWN_HOSTS_LINE bytes; longer lines are skipped.
 * Every login reads the files afresh, so that edits count at the next one.
 * hostkey_check() returns if the key is acceptable and ends the connection
 * (TP_CAUSE_HOSTKEY) otherwise.  hostkey_remember() writes new keys; session.c
 * calls it after the server has proved that it owns the key.
 *
 * Keys are compared as base64 text: the text in a file is the same encoding
 * (RFC 4648) of the same blob (RFC 4253 6.6).
 */
#include "port.h"

#define BLOB_MAX 2200		/* an RSA-16384 key */
#define KEY_TEXT_SIZE (BLOB_MAX / 3 * 4 + 8)
#define NAME_SIZE 300		/* "[name]:port" */

/* The known_hosts files' answer for one key under one name. */
enum verdict { HOST_NEW, HOST_OK, HOST_CHANGED, HOST_REVOKED };

/* One line, split into fields; the strings point into the line buffer. */
struct entry {
	const char *marker;	/* "@revoked", "@cert-authority" or "" */
	char *hosts;
	const char *type, *key;
};

struct lines {			/* a file being read */
	int fd;
	bool cut;		/* a longer line counts, without its end */
	size_t pos, len;	/* unread bytes in `chunk` */
	unsigned number;	/* of the current line, from 1 */
	char chunk[512];
};

static char line[KNOWN_HOSTS_LINE];
static char key_text[KEY_TEXT_SIZE];	/* the server's key in base64 */
static char key_type[64];		/* "ssh-ed25519" */
static char fingerprint[FINGERPRINT_SIZE];
static unsigned char first_key[HASH_SIZE];	/* the key of the first key exchange */
static bool have_first_key;
static unsigned char shown_key[HASH_SIZE];	/* the key being checked */
static unsigned char login_key[HASH_SIZE];	/* the key of the very first login */
static bool have_login_key;
static bool must_remember;		/* accepted, but not in the file yet */
static const char *found_file;		/* place of the line that decided, for messages */
static unsigned found_line;
static bool other_types;		/* we know the host by a key of another type */

/* --- reading lines -------------------------------------------------------- */

/* The next byte of the file, or -1 at its end (or on an error, which ends it). */
static int next_byte(struct lines *f)
{
	ssize_t n;

	if (f->pos == f->len) {
		do
			n = read(f->fd, f->chunk, sizeof(f->chunk));
		while (n < 0 && errno == EINTR);
		if (n <= 0)
			return -1;
		f->len = (size_t)n;
		f->pos = 0;
	}
	return (unsigned char)f->chunk[f->pos++];
}

/* Reads the next line of at most KNOWN_HOSTS_LINE - 1 bytes into `line`,
 * cutting or skipping longer ones.  Returns false at the end of the file. */
static bool next_line(struct lines *f)
{
	size_t n;
	int c;

	do {
		n = 0;
		f->number++;
		while ((c = next_byte(f)) >= 0 && c != '\n')
			if (n++ < sizeof(line) - 1)
				line[n - 1] = (char)c;
		if (c < 0 && n == 0)
			return false;
	} while (n >= sizeof(line) && !f->cut);
	line[n < sizeof(line) ? n : sizeof(line) - 1] = '\0';
	return true;
}

/* Cuts the next word off `rest`; "" at the end of the line. */
static char *word(char **rest)
{
	char *start = *rest + strspn(*rest, " \t\r");
	char *end = start + strcspn(start, " \t\r");

	*rest = end;
	if (*end != '\0') {
		*end = '\0';
		*rest = end + 1;
	}
	return start;
}

/* Splits `line` into fields.  Returns false for comments and lines that are no entry. */
static bool parse(struct entry *e)
{
	char *rest = line;

	e->marker = "";
	e->hosts = word(&rest);
	if (e->hosts[0] == '#')
		return false;
	if (e->hosts[0] == '@') {
		e->marker = e->hosts;
		e->hosts = word(&rest);
	}
	e->type = word(&rest);
	e->key = word(&rest);
	return e->key[0] != '\0';
}

/* --- matching names ------------------------------------------------------- */

/* A comma-separated list; a matching `!pattern` vetoes. */
static bool list_matches(const char *list, const char *name)
{
	bool match = false, negated;
	size_t len;

	for (; *list != '\0'; list += len + (list[len] == ',')) {
		len = strcspn(list, ",");
		negated = *list == '!';
		if (!port_glob(list + negated, len - negated, name))
			continue;
		if (negated)
			return false;
		match = true;
	}
	return match;
}

/* HMAC-SHA1 (RFC 2104); `key` is at most one SHA-1 block long. */
static void hmac_sha1(const unsigned char *key, size_t key_len, const char *text,
	unsigned char out[SHA1_HASH_SIZE])
{
	unsigned char pad[64];
	hash_state h;
	size_t i;

	memset(pad, 0x36, sizeof(pad));
	for (i = 0; i < key_len; i++)
		pad[i] ^= key[i];
	sha1_init(&h);
	sha1_process(&h, pad, sizeof(pad));
	sha1_process(&h, (const unsigned char *)text, strlen(text));
	sha1_done(&h, out);
	for (i = 0; i < sizeof(pad); i++)
		pad[i] ^= 0x36 ^ 0x5c;
	sha1_init(&h);
	sha1_process(&h, pad, sizeof(pad));
	sha1_process(&h, out, SHA1_HASH_SIZE);
	sha1_done(&h, out);
}

/* "|1|salt|hash": the hash is that of the name in lower case. */
static bool hash_matches(const char *hashed, const char *name)
{
	unsigned char salt[64], want[64], got[SHA1_HASH_SIZE];
	unsigned long salt_len = sizeof(salt), want_len = sizeof(want);
	const char *bar = strchr(hashed + 3, '|');

	if (bar == NULL || strlen(bar) > 60 || bar - hashed > 60 ||
	    base64_decode((const unsigned char *)hashed + 3,
		(unsigned long)(bar - hashed - 3), salt, &salt_len) != CRYPT_OK ||
	    base64_decode((const unsigned char *)bar + 1, strlen(bar + 1),
		want, &want_len) != CRYPT_OK || want_len != sizeof(got))
		return false;
	hmac_sha1(salt, salt_len, name, got);
	return memcmp(want, got, sizeof(got)) == 0;
}

/* Whether the entry's first field names the host, plainly, by pattern or hashed. */
static bool host_matches(const struct entry *e, const char *name)
{
	if (strncmp(e->hosts, "|1|", 3) == 0)
		return hash_matches(e->hosts, name);
	return list_matches(e->hosts, name);
}

/* The name to look up: in lower case, with its port unless that is 22. */
static void lookup_name(char name[NAME_SIZE], bool with_port)
{
	const struct tp_config *c = port.config;
	size_t i;

	if (with_port && !c->host_key_alias && c->port != 22)
		snprintf(name, NAME_SIZE, "[%s]:%u", c->host_key_name, (unsigned)c->port);
	else
		snprintf(name, NAME_SIZE, "%s", c->host_key_name);
	for (i = 0; name[i] != '\0'; i++)
		name[i] = (char)tolower((unsigned char)name[i]);
}

/* --- searching the files -------------------------------------------------- */

/* Whether we asked the server for that type of key before the others. */
static bool was_preferred(const char *type)
{
	return algorithms_follow_files() && algorithms_offer_key(type);
}

/* Weighs one entry that names the host.  A revocation outweighs everything; an equal key
 * outweighs a different one. */
static enum verdict weigh(const struct entry *e, enum verdict so_far)
{
	bool same_type = strcmp(e->type, key_type) == 0;
	bool same_key = same_type && strcmp(e->key, key_text) == 0;

	if (strcmp(e->marker, "@revoked") == 0)
		return same_key ? HOST_REVOKED : so_far;
	if (e->marker[0] != '\0')
		return so_far;	/* an authority's key is no host's key */
	if (!same_type && was_preferred(e->type))
		other_types = true;
	if (same_key)
		return HOST_OK;
	return same_type && so_far == HOST_NEW ? HOST_CHANGED : so_far;
}

/* Users write "none" or /dev/null for no file. */
static bool is_nowhere(const char *path)
{
	return strcmp(path, "none") == 0 || strcmp(path, "/dev/null") == 0;
}

static int open_known_hosts(const char *path)
{
	if (!is_nowhere(path))
		return port_open(path, O_RDONLY);
	errno = ENOENT;
	return -1;
}

/* Continues a search in one more file.  A missing file is no error; an unreadable one gets
 * a line in the log. */
static enum verdict search_file(const char *path, const char *name, enum verdict verdict)
{
	struct lines f = { .fd = open_known_hosts(path) };
	enum verdict before;
	struct entry e;

	if (f.fd < 0) {
		if (errno != ENOENT)
			port_log(TP_INFO, "%s: %s", path, strerror(errno));
		return verdict;
	}
	while (verdict != HOST_REVOKED && next_line(&f)) {
		if (!parse(&e) || !host_matches(&e, name))
			continue;
		before = verdict;
		verdict = weigh(&e, verdict);
		if (verdict != before) {
			found_file = path;
			found_line = f.number;
		}
	}
	close(f.fd);
	return verdict;
}

/* Searches all files in order, under one name.  Keeps the first line that decides, for
 * messages. */
static enum verdict search(const char *name)
{
	enum verdict verdict = HOST_NEW;
	size_t i;

	other_types = false;
	for (i = 0; i < port.config->n_known_hosts && verdict != HOST_REVOKED; i++)
		verdict = search_file(port.config->known_hosts[i], name, verdict);
	return verdict;
}

/* As in ssh, a host that is unknown on an unusual port may show the key that we know for
 * it without a port.  A different key there does not count; a revoked one does. */
static enum verdict search_all(void)
{
	char with_port[NAME_SIZE], plain[NAME_SIZE];
	enum verdict verdict, second;
	bool others;

	lookup_name(with_port, true);
	lookup_name(plain, false);
	verdict = search(with_port);
	if (verdict != HOST_NEW || strcmp(with_port, plain) == 0)
		return verdict;
	others = other_types;
	second = search(plain);
	other_types = others;
	return second == HOST_OK || second == HOST_REVOKED ? second : HOST_NEW;
}

/* Collects the types of the host's known keys into a comma-separated list, so that we ask
 * for them first and a server's second key type is no surprise.  Leaves out types that do
 * not fit. */
static void collect_types(const char *path, const char *name, char *list, size_t size)
{
	struct lines f = { .fd = open_known_hosts(path) };
	struct entry e;
	size_t used;

	while (f.fd >= 0 && next_line(&f)) {
		if (!parse(&e) || e.marker[0] != '\0' || !host_matches(&e, name))
			continue;
		used = strlen(list);
		if (strstr(list, e.type) == NULL && used + strlen(e.type) + 2 < size)
			snprintf(list + used, size - used, "%s%s", used > 0 ? "," : "", e.type);
	}
	if (f.fd >= 0)
		close(f.fd);
}

/* See collect_types(); uses every file. */
void hostkey_known_types(char *list, size_t size)
{
	char name[NAME_SIZE];
	size_t i;

	list[0] = '\0';
	lookup_name(name, true);
	for (i = 0; i < port.config->n_known_hosts; i++)
		collect_types(port.config->known_hosts[i], name, list, size);
}

/* --- the decision --------------------------------------------------------- */

/* Ends the connection with ssh's messages and the reason. */
static void refuse(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
static void refuse(const char *format, ...)
{
	char why[sizeof(port.error)];
	va_list ap;

	va_start(ap, format);
	vsnprintf(why, sizeof(why), format, ap);
	va_end(ap);
	port_fail(TP_CAUSE_HOSTKEY, "Host key verification failed: %s", why);
}

/* "ED25519": a type as ssh names it to users. */
static const char *type_for_people(void)
{
	if (strcmp(key_type, "ssh-ed25519") == 0)
		return "ED25519";
	if (strcmp(key_type, "ssh-rsa") == 0)
		return "RSA";
	return strncmp(key_type, "ecdsa-", 6) == 0 ? "ECDSA" : key_type;
}

/* RFC 4253 6.6: a blob begins with the name of its type. */
/* Puts the key's type, text and fingerprint in the statics above. */
static void describe_key(const unsigned char *blob, size_t len)
{
	unsigned char hash[HASH_SIZE];
	char text[48];
	unsigned long n = sizeof(text);
	size_t type_len;

	if (len < 4 || len > BLOB_MAX)
		port_fail(TP_CAUSE_LOST, "%s: bad host key", port.config->host);
	type_len = (size_t)blob[2] << 8 | blob[3];
	if (blob[0] != 0 || blob[1] != 0 || type_len > len - 4 ||
	    type_len >= sizeof(key_type))
		port_fail(TP_CAUSE_LOST, "%s: bad host key", port.config->host);
	memcpy(key_type, blob + 4, type_len);
	key_type[type_len] = '\0';
	if (len > MAX_PUBKEY_SIZE && strcmp(key_type, "ssh-rsa") == 0)
		port_fail(TP_CAUSE_HOSTKEY, "%s: its RSA host key has more than 4096 bits, "
			"which is not supported: it may have another host key for "
			"HostKeyAlgorithms",
			port.config->host);

	port_hash(blob, len, hash);
	base64_encode(hash, sizeof(hash), (unsigned char *)text, &n);
	snprintf(fingerprint, sizeof(fingerprint), "SHA256:%.43s", text);
	n = sizeof(key_text);
	base64_encode(blob, len, (unsigned char *)key_text, &n);
}

/* Whether it is one of the user's pins. */
static bool pinned(void)
{
	size_t i;

	for (i = 0; i < port.config->n_pin; i++)
		if (strcmp(port.config->pin[i], fingerprint) == 0)
			return true;
	return false;
}

/* The server's address as ssh shows it: with its port, in brackets, unless that is 22. */
static void show_address(char text[NAME_SIZE])
{
	const char *a = port.config->address, *colon = strrchr(a, ':');
	int v6 = a[0] == '[', len = colon != NULL ? (int)(colon - a) - 2 * v6 : 0;

	if (colon == NULL)
		snprintf(text, NAME_SIZE, "<no hostip for proxy command>");
	else if (port.config->port == 22)
		snprintf(text, NAME_SIZE, "%.*s", len, a + v6);
	else
		snprintf(text, NAME_SIZE, "[%.*s]%s", len, a + v6, colon);
}

/* Asks until the answer is yes, no or the fingerprint itself.  Returns false for no or
 * without a terminal. */
static bool confirmed(void)
{
	char text[1024], answer[SECRET_SIZE], name[NAME_SIZE], address[NAME_SIZE];
	enum prompt_result result;
	int tries;

	lookup_name(name, true);
	show_address(address);
	snprintf(text, sizeof(text), "The authenticity of host '%s (%s)' can't be established.\n"
		"%s key fingerprint is %s.\n"
		"Are you sure you want to continue connecting (yes/no/[fingerprint])? ",
		name, address, type_for_people(), fingerprint);
	for (tries = 0; tries < 10; tries++) {
		result = prompt("", text, strlen(text), true, port.config->cancel_fd, answer,
			sizeof(answer));
		if (result == PROMPT_CANCELLED)
			port_fail(TP_CAUSE_CANCELLED, "%s: cancelled", port.config->host);
		if (result != PROMPT_ANSWERED || strcasecmp(answer, "no") == 0)
			return false;
		if (strcasecmp(answer, "yes") == 0 || strcmp(answer, fingerprint) == 0)
			return true;
		snprintf(text, sizeof(text), "Please type 'yes', 'no' or the fingerprint: ");
	}
	return false;
}

/* StrictHostKeyChecking for a key that no file mentions. */
static void unknown(void)
{
	const struct tp_config *c = port.config;
	bool ask = c->strict == TP_STRICT_ASK && port.interactive;

	/* The server chose a type that we do not know, although we asked first for those
	 * that we know.  For a policy that accepts only first contacts, the host has
	 * changed.  (Stricter than ssh, which lets a stranger choose.) */
	if (c->strict == TP_STRICT_NO || (c->strict == TP_STRICT_ACCEPT_NEW && !other_types) ||
	    (ask && confirmed())) {
		must_remember = true;
		return;
	}
	refuse("no %s host key is known for %s%s; the server shows %s",
		type_for_people(), c->host,
		other_types ? " (but one of another type is)" : "", fingerprint);
}

/* We know a different key of the same type: somebody may be in between.  Only "no" goes
 * on, and then without secrets. */
static void changed(void)
{
	const struct tp_config *c = port.config;

	if (c->strict != TP_STRICT_NO)
		refuse("the %s host key of %s has changed to %s; offending key in %s:%u",
			type_for_people(), c->host, fingerprint, found_file, found_line);
	port_log(TP_ERROR, "The %s host key of %s has changed to %s; offending key in %s:%u.",
		type_for_people(), c->host, fingerprint, found_file, found_line);
	/* This server must not learn a password. */
	port.passwords_barred = true;
	port_log(TP_INFO, "Password and keyboard-interactive authentication are disabled"
		" to avoid man-in-the-middle attacks.");
}

/* At a later login, a server that is in no file must show the key of the first login,
 * whatever StrictHostKeyChecking says. */
static void must_be_familiar(void)
{
	if (!have_login_key || memcmp(shown_key, login_key, HASH_SIZE) == 0)
		return;
	refuse("the %s host key %s of %s is not the one of the first login",
		type_for_people(), fingerprint, port.config->host);
}

/* Whether a line of RevokedHostKeys has the key, as in a .pub file. */
static bool has_key(void)
{
	char *rest = line, *w = word(&rest);

	for (; w[0] != '\0' && w[0] != '#'; w = word(&rest))
		if (strcmp(w, key_text) == 0)
			return true;
	return false;
}

/* RevokedHostKeys.  A list that cannot be read revokes all keys, as in ssh. */
static void must_not_be_revoked(const char *path)
{
	struct lines f = { .fd = port_open(path, O_RDONLY), .cut = true };
	bool is_krl = false, revoked = false;

	if (f.fd < 0)
		refuse("RevokedHostKeys %s: %s", path, strerror(errno));
	while (!is_krl && !revoked && next_line(&f)) {
		is_krl = f.number == 1 && strcmp(line, "SSHKRL") == 0;
		revoked = has_key();
	}
	close(f.fd);
	if (is_krl)
		refuse("RevokedHostKeys %s is a KRL: only a list of public keys is read", path);
	if (revoked)
		refuse("the %s host key %s of %s is revoked by %s:%u",
			type_for_people(), fingerprint, port.config->host, path, f.number);
}

/* Pins outrank the files: with pins we do not even read them. */
static void decide(void)
{
	const struct tp_config *c = port.config;

	if (c->revoked != NULL)
		must_not_be_revoked(c->revoked);
	if (c->n_pin > 0) {
		if (pinned())
			return;
		refuse("the %s host key %s of %s is not one of the pinned keys",
			type_for_people(), fingerprint, c->host);
	}
	switch (search_all()) {
	case HOST_OK:
		return;
	case HOST_REVOKED:
		refuse("the %s host key %s of %s is revoked by %s:%u",
			type_for_people(), fingerprint, c->host, found_file, found_line);
	case HOST_CHANGED:
		must_be_familiar();
		changed();
		return;
	case HOST_NEW:
		must_be_familiar();
		unknown();
		return;
	}
}

/* Forgets the last connection's server. */
void hostkey_begin(void)
{
	have_first_key = false;
	must_remember = false;
	other_types = false;
	fingerprint[0] = '\0';
}

/* Returns if the server's key is acceptable.  In a re-exchange it must be the key of the
 * first exchange; the user is not asked again. */
void hostkey_check(const unsigned char *blob, size_t len)
{
	unsigned char hash[HASH_SIZE];

	port_hash(blob, len, hash);
	if (have_first_key) {
		if (memcmp(hash, first_key, HASH_SIZE) != 0)
			port_fail(TP_CAUSE_HOSTKEY, "%s: host key changed during the connection",
				port.config->host);
		return;
	}
	describe_key(blob, len);
	if (port_short_rsa(blob, len) > 0)
		refuse("the RSA host key of %s has %u bits, less than RequiredRSASize",
			port.config->host, port_short_rsa(blob, len));
	memcpy(shown_key, hash, HASH_SIZE);
	decide();
	memcpy(first_key, hash, HASH_SIZE);
	have_first_key = true;
}

/* The user is logged in: later logins must show this server's key. */
void hostkey_logged_in(void)
{
	if (!have_login_key)
		memcpy(login_key, first_key, HASH_SIZE);
	have_login_key = true;
}

const char *hostkey_fingerprint(void)
{
	return fingerprint;
}

/* --- remembering ---------------------------------------------------------- */

/* Creates the directory of `path` (~/.ssh) if nothing else is missing. */
static void make_directory(const char *path)
{
	char directory[PATH_SIZE];
	const char *slash = strrchr(path, '/');

	if (slash == NULL || slash == path || slash - path >= (ptrdiff_t)sizeof(directory))
		return;
	memcpy(directory, path, (size_t)(slash - path));
	directory[slash - path] = '\0';
	if (mkdir(directory, 0700) == 0)
		port_log(TP_VERBOSE, "Created %s", directory);
}

/* Writes one line with one write(), after a newline if the file's last line has none. */
static bool append(int fd, const char *name)
{
	char last = '\n';
	off_t end = lseek(fd, 0, SEEK_END);
	int n;

	if (end > 0 && pread(fd, &last, 1, end - 1) != 1)
		last = '\n';
	n = snprintf(line, sizeof(line), "%s%s %s %s\n", last == '\n' ? "" : "\n",
		name, key_type, key_text);
	if (n >= (int)sizeof(line)) {
		errno = EMSGSIZE;
		return false;
	}
	return write(fd, line, (size_t)n) == n;
}

/* Adds the key that hostkey_check() accepted as new, now that the server has proved that
 * it owns the key.  A failure is only a warning: it does not affect the connection. */
void hostkey_remember(void)
{
	const char *path;
	char name[NAME_SIZE];
	bool done;
	int fd;

	if (!must_remember || port.config->n_known_hosts == 0)
		return;
	must_remember = false;
	path = port.config->known_hosts[0];
	if (is_nowhere(path))
		return;
	lookup_name(name, true);
	make_directory(path);
	fd = port_open(path, O_RDWR | O_APPEND | O_CREAT);
	done = fd >= 0 && append(fd, name);
	if (done)
		port_log(TP_INFO,
			"Warning: Permanently added '%s' (%s) to the list of known hosts.",
			name, type_for_people());
	else
		port_log(TP_INFO, "Failed to add the host key of %s to %s: %s",
			name, path, strerror(errno));
	if (fd >= 0)
		close(fd);
}
