/* identity.c - the user's private keys, from files.
 *
 * A login reads a key when its turn comes and frees it right after, so at most
 * one is in memory.  Formats: dropbear's own, OpenSSH's openssh-key-v1 and its
 * older PEM ones; the start of the file tells which.  Encrypted keys get a message
 * and are skipped: agents are for them.  A damaged file costs one log line, never
 * the login.  Files are at most FILE_MAX bytes.
 */
#include "port.h"
#include "dbutil.h"
#include "dbrandom.h"
#include "rsa.h"

#define FILE_MAX 8192	/* an RSA-8192 key in OpenSSH's format has 6.4 KB */

/* Arguments and result of parse(), which runs below port_try(). */
static buffer *contents;
static sign_key *parsed;
static buffer *parsed_blob;

static bool begins(const buffer *b, const char *text)
{
	size_t n = strlen(text);

	return b->len >= n && memcmp(b->data, text, n) == 0;
}

static bool contains(const buffer *b, const char *text)
{
	return memmem(b->data, b->len, text, strlen(text)) != NULL;
}

/* Opens `path` and reads all of it into a new buffer.  Makes the buffer first: no
 * descriptor may be open when an allocation fails.  Returns NULL with errno. */
static buffer *read_file(const char *path, struct stat *st)
{
	buffer *b = buf_new(FILE_MAX);
	int fd = port_open(path, O_RDONLY), error = errno;
	ssize_t n = -1;

	if (fd >= 0) {
		do
			n = read(fd, b->data, b->size);
		while (n < 0 && errno == EINTR);
		error = n == 0 ? ENODATA : n == (ssize_t)b->size ? EFBIG : errno;
		if (fstat(fd, st) != 0)
			st->st_mode = 0;
		close(fd);
	}
	if (n <= 0 || n == (ssize_t)b->size) {
		buf_burn_free(b);
		errno = error;
		return NULL;
	}
	buf_setlen(b, (unsigned)n);
	return b;
}

/* As in ssh: a key of ours that others can read is not secret. */
static bool too_open(const struct stat *st, const char *path)
{
	if (st->st_uid != getuid() || (st->st_mode & 077) == 0)
		return false;
	port_log(TP_ERROR, "Identity file %s: permissions %04o are too open, ignored",
		path, (unsigned)st->st_mode & 0777);
	return true;
}

/* OpenSSH's format begins with its name (15 bytes are 20 characters) and the cipher, which
 * is "none" for an unencrypted key. */
static bool is_encrypted(const buffer *b)
{
	return contains(b, "ENCRYPTED") || (contains(b, "b3BlbnNzaC1rZXktdjEA") &&
		!contains(b, "b3BlbnNzaC1rZXktdjEAAAAABG5vbmU"));
}

/* ssh reads `-i key.pub` as "that key of the agent". */
static bool is_public(const buffer *b)
{
	return begins(b, "ssh-") || begins(b, "ecdsa-") || begins(b, "sk-");
}

/* Reads private key and public blob from `contents`.  Fails below port_try(). */
static void parse(void)
{
	enum signkey_type type = DROPBEAR_SIGNKEY_ANY;
	buffer *tagged;
	bool ok;

	if (begins(contents, "-----BEGIN")) {
		parsed = port_import_key((char *)contents->data, contents->len);
		ok = parsed != NULL;
	} else {
		parsed = new_sign_key();
		ok = buf_get_priv_key(contents, parsed, &type) == DROPBEAR_SUCCESS;
		if (ok)
			parsed->type = type;
	}
	if (!ok)
		dropbear_exit(begins(contents, "-----BEGIN PRIVATE KEY") ?
			"PKCS#8, which is not read here: \"ssh-keygen -p -f\" makes it OpenSSH's" :
			"unknown format or type");
	if (parsed->rsakey != NULL && mp_count_bits(parsed->rsakey->n) > RSA_BITS_MAX)
		dropbear_exit("RSA keys of more than %d bits do not fit this build's memory",
			RSA_BITS_MAX);
	tagged = buf_new(MAX_PUBKEY_SIZE + 4);
	buf_put_pub_key(tagged, parsed, parsed->type);
	buf_setpos(tagged, 0);
	parsed_blob = buf_getstringbuf(tagged);
	buf_free(tagged);
}

/* Makes a key from a file's contents. */
static sign_key *load(buffer *b, const char *path, bool complain, buffer **blob)
{
	char reason[200];

	if (is_encrypted(b)) {
		port_log(complain ? TP_INFO : TP_VERBOSE,
			"Identity file %s is encrypted, ignored; an agent can hold it", path);
		return NULL;
	}
	contents = b;
	parsed = NULL;
	parsed_blob = NULL;
	addrandom(b->data, b->len);
	if (!port_try(parse, reason, sizeof(reason))) {
		port_log(TP_ERROR, "Identity file %s ignored: %s", path, reason);
		return NULL;
	}
	*blob = parsed_blob;
	return parsed;
}

/* Reads the private key at `path`.  `complain`: the user named the file, so it is an error
 * if it is missing.  On success the caller frees key and blob. */
sign_key *identity_load(const char *path, bool complain, buffer **blob)
{
	struct stat st;
	sign_key *key = NULL;
	buffer *b = read_file(path, &st);

	if (b == NULL) {
		port_log(complain ? TP_ERROR : TP_VERBOSE,
			"Identity file %s not accessible: %s.", path, strerror(errno));
		return NULL;
	}
	/* A public key names a key of the agent: nothing to load. */
	if (!is_public(b) && !too_open(&st, path))
		key = load(b, path, complain, blob);
	buf_burn_free(b);
	return key;
}

/* --- public parts --------------------------------------------------------- */

/* Turns "TYPE BASE64 COMMENT" into the hash of its blob. */
static bool hash_public_line(const buffer *b, unsigned char hash[HASH_SIZE])
{
	const unsigned char *text = memchr(b->data, ' ', b->len), *end;
	unsigned long n = b->len;
	buffer *blob;
	bool ok;

	if (text == NULL)
		return false;
	text++;
	for (end = text; end < b->data + b->len && *end > ' '; end++)
		;
	blob = buf_new(b->len);
	ok = base64_decode(text, (unsigned long)(end - text), blob->data, &n) == CRYPT_OK;
	if (ok)
		port_hash(blob->data, n, hash);
	buf_free(blob);
	return ok;
}

/* openssh-key-v1 leaves the public key unencrypted even when the private one is encrypted:
 * magic, cipher, kdf, kdf options, count, public key, … */
static bool hash_openssh_private(const buffer *b, unsigned char hash[HASH_SIZE])
{
	const unsigned char *text = memmem(b->data, b->len, "b3BlbnNzaC1rZXktdjEA", 20);
	const unsigned char *end;
	unsigned long n = b->len;
	unsigned char *p;
	size_t len;
	buffer *raw;
	bool ok;

	if (text == NULL)
		return false;
	end = memchr(text, '-', (size_t)(b->data + b->len - text));
	if (end == NULL)
		end = b->data + b->len;
	raw = buf_new(b->len);
	ok = base64_decode(text, (unsigned long)(end - text), raw->data, &n) == CRYPT_OK && n > 15;
	if (ok) {
		buf_setlen(raw, (unsigned)n);
		buf_setpos(raw, 15);
		ok = port_take_string(raw, &p, &len) && port_take_string(raw, &p, &len) &&
			port_take_string(raw, &p, &len) && raw->len - raw->pos > 4;
	}
	if (ok) {
		buf_incrpos(raw, 4);
		ok = port_take_string(raw, &p, &len);
	}
	if (ok)
		port_hash(p, len, hash);
	buf_burn_free(raw);
	return ok;
}

/* Hashes a public key file, or a private one in OpenSSH's format. */
static bool hash_of_file(const char *path, unsigned char hash[HASH_SIZE])
{
	struct stat st;
	buffer *b = read_file(path, &st);
	bool ok;

	if (b == NULL)
		return false;
	ok = is_public(b) ? hash_public_line(b, hash) : hash_openssh_private(b, hash);
	buf_burn_free(b);
	return ok;
}

/* SHA-256 of the public part of identity file `path`: from PATH.pub or from the file
 * itself.  Returns false if neither has it. */
bool identity_public_hash(const char *path, unsigned char hash[HASH_SIZE])
{
	char public[PATH_SIZE];
	sign_key *key;
	buffer *blob;

	if (snprintf(public, sizeof(public), "%s.pub", path) < (int)sizeof(public) &&
	    hash_of_file(public, hash))
		return true;
	if (hash_of_file(path, hash))
		return true;
	key = identity_load(path, false, &blob);
	if (key == NULL)
		return false;
	port_hash(blob->data, blob->len, hash);
	sign_key_free(key);
	buf_free(blob);
	return true;
}
