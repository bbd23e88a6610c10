/* auth.c - proves who the user is: RFC 4252, RFC 4256.
 *
 * A state machine without a loop of its own: every message of the server and
 * every answer of the agent moves it one step.  Order of methods: public keys
 * (files, then the agent's), keyboard-interactive, password; a password from the
 * environment goes to "password" first.  Each attempt uses up a key or one of
 * NumberOfPasswordPrompts tries, so a login ends whatever the server says.
 *
 * The agent's keys are opaque here: blob in, signature out.  So certificates and
 * hardware keys work if agent and server know them.
 */
#include "port.h"
#include "session.h"
#include "packet.h"
#include "algo.h"
#include "ssh.h"
#include "dbutil.h"

#define QUESTION_ROUNDS 32	/* keyboard-interactive requests in a login */
#define QUESTIONS 32		/* in one of them */
#define BANNERS 20		/* banner messages shown in a login */
#define AGENT_BLOB_MAX 4096	/* longer keys and signatures are skipped */
#define TRIED_MAX (2 * OPTION_LIST)	/* keys that we remember, to offer each once */

#define IDENTITIES_ANSWER 12	/* draft-ietf-sshm-ssh-agent */
#define SIGN_RESPONSE 14
#define SIGN_RSA_SHA2_256 2
#define SIGN_RSA_SHA2_512 4

/* What we are waiting for. */
enum step {
	STEP_NONE,		/* "none", to learn the methods */
	STEP_QUERY,		/* whether this key would do */
	STEP_SIGNED,		/* the request with its signature */
	STEP_KEYBOARD,		/* keyboard-interactive */
	STEP_PASSWORD,
	STEP_AGENT_LIST,	/* the agent's list of keys; the server waits */
	STEP_AGENT_SIGN,	/* the agent's signature; likewise */
	STEP_SERVICE,		/* the service of authentication */
	STEP_DONE
};

enum { METHOD_PUBLICKEY = 1, METHOD_KEYBOARD = 2, METHOD_PASSWORD = 4 };

static struct {
	enum step step;
	unsigned offered;		/* METHOD_… that can continue */
	char offered_names[128];	/* for "Permission denied (…)" */

	size_t next_identity;		/* index into the files */
	bool agent_asked, agent_lost;
	buffer *agent_keys;		/* the agent's list, pos at the next key */
	uint32_t agent_left;		/* keys left in the list */
	unsigned n_tried;
	unsigned char tried[TRIED_MAX][HASH_SIZE];

	sign_key *key;			/* on trial; NULL if it is the agent's */
	buffer *blob;			/* its public part */
	char algorithm[64];		/* of the signature, RFC 8332 */
	buffer *signed_data;

	unsigned keyboard_tries, password_tries, rounds, banners;
	/* The given password: tried as "password"; tried in questions; answered one in
	 * this round. */
	bool given_to_password, given_to_keyboard, given_now;
} auth;

static const struct { const char *name; unsigned bit; } methods[] = {
	{ "publickey", METHOD_PUBLICKEY },
	{ "keyboard-interactive", METHOD_KEYBOARD },
	{ "password", METHOD_PASSWORD },
};

static bool seen_banner;	/* shown in a login that succeeded: not again */

static void next(void);

/* --- building requests ---------------------------------------------------- */

/* An SSH string, RFC 4251 5. */
static void put_text(buffer *b, const char *text)
{
	buf_putstring(b, text, (unsigned)strlen(text));
}

/* The head of every SSH_MSG_USERAUTH_REQUEST, RFC 4252 5. */
static void put_request(buffer *b, const char *method)
{
	buf_putbyte(b, SSH_MSG_USERAUTH_REQUEST);
	put_text(b, port.config->user);
	put_text(b, SSH_SERVICE_CONNECTION);
	put_text(b, method);
}

/* RFC 4252 7: the part of a publickey request that is also signed. */
static void put_key_request(buffer *b, bool with_signature)
{
	put_request(b, "publickey");
	buf_putbyte(b, with_signature);
	put_text(b, auth.algorithm);
	buf_putbufstring(b, auth.blob);
}

/* Asks for the methods; "none" may even succeed. */
static void send_none(void)
{
	put_request(ses.writepayload, "none");
	encrypt_packet();
	port.info.auth_method = "none";
	auth.step = STEP_NONE;
}

/* Whether the server takes a request before it has accepted the service, which saves a
 * round trip.  Only for servers that we know: some others drop the request. */
static bool is_hasty(void)
{
	return strncmp(ses.remoteident, "SSH-2.0-OpenSSH", 15) == 0 ||
		strncmp(ses.remoteident, "SSH-2.0-dropbear", 16) == 0;
}

void auth_begin(void)
{
	memset(&auth, 0, sizeof(auth));
	agent_begin();
	auth.step = STEP_SERVICE;
	buf_putbyte(ses.writepayload, SSH_MSG_SERVICE_REQUEST);
	put_text(ses.writepayload, SSH_SERVICE_USERAUTH);
	encrypt_packet();
	if (is_hasty())
		send_none();
}

/* SSH_MSG_SERVICE_ACCEPT, RFC 4253 10: a server that refuses disconnects. */
void auth_rx_accept(void)
{
	if (port.state != TP_UP && auth.step == STEP_SERVICE)
		send_none();
}

/* --- public keys ---------------------------------------------------------- */

/* Ends the trial of a key, whatever the result; frees its private part. */
static void drop_key(void)
{
	if (auth.key != NULL)
		sign_key_free(auth.key);
	if (auth.blob != NULL)
		buf_free(auth.blob);
	if (auth.signed_data != NULL)
		buf_free(auth.signed_data);
	auth.key = NULL;
	auth.blob = NULL;
	auth.signed_data = NULL;
}

/* Returns true if we tried this key before; notes it otherwise. */
static bool tried_before(void)
{
	unsigned char hash[HASH_SIZE];
	unsigned i;

	port_hash(auth.blob->data, auth.blob->len, hash);
	for (i = 0; i < auth.n_tried; i++)
		if (memcmp(auth.tried[i], hash, HASH_SIZE) == 0)
			return true;
	if (auth.n_tried < TRIED_MAX)
		memcpy(auth.tried[auth.n_tried++], hash, HASH_SIZE);
	return false;
}

#define CERT "-cert-v01@openssh.com"

/* Whether the server may take an algorithm.  If it listed its own (RFC 8308), others are
 * not worth an attempt, since servers count attempts.  Certificates are never listed. */
static bool server_takes(const char *algorithm)
{
	return cli_ses.server_sig_algs == NULL || strstr(algorithm, CERT) != NULL ||
		buf_has_algo(cli_ses.server_sig_algs, algorithm) == DROPBEAR_SUCCESS;
}

/* Chooses the algorithm for an RSA key (RFC 8332), `cert` for its certificate: one that
 * the server lists and the user allows, SHA-1 only as the last choice.  A server that
 * sends no list and needs SHA-1 is an old one. */
static void name_rsa_algorithm(bool cert)
{
	static const char *const listed[] = { "rsa-sha2-512", "rsa-sha2-256", "ssh-rsa" };
	static const char *const unlisted[] = { "ssh-rsa", "rsa-sha2-256", "rsa-sha2-512" };
	const char *const *names = cli_ses.server_sig_algs != NULL ? listed : unlisted;
	int i;

	for (i = 0; i < 3; i++) {
		snprintf(auth.algorithm, sizeof(auth.algorithm), "%s%s", names[i], cert ? CERT :
			"");
		if (server_takes(names[i]) && algorithms_allow_user_key(auth.algorithm))
			return;
	}
}

/* Asks whether the key on trial would do, before we sign anything. */
static bool offer_key(const char *where)
{
	if (port_short_rsa(auth.blob->data, auth.blob->len) > 0)
		port_log(TP_INFO, "Key %s ignored: %u bits, less than RequiredRSASize", where,
			port_short_rsa(auth.blob->data, auth.blob->len));
	if (tried_before() || !server_takes(auth.algorithm) ||
	    port_short_rsa(auth.blob->data, auth.blob->len) > 0 ||
	    !algorithms_allow_user_key(auth.algorithm)) {
		port_log(TP_VERBOSE, "Skipping %s key: %s", auth.algorithm, where);
		drop_key();
		return false;
	}
	port_log(TP_VERBOSE, "Offering %s key: %s", auth.algorithm, where);
	put_key_request(ses.writepayload, false);
	encrypt_packet();
	auth.step = STEP_QUERY;
	return true;
}

/* Offers the key in a file.  Returns false if there is none. */
static bool offer_file(const char *path)
{
	auth.key = identity_load(path, !port.config->identity_default, &auth.blob);
	if (auth.key == NULL)
		return false;
	if (auth.key->type == DROPBEAR_SIGNKEY_RSA)
		name_rsa_algorithm(false);
	else
		snprintf(auth.algorithm, sizeof(auth.algorithm), "%s",
			signkey_name_from_type(auth.key->type, NULL));
	return offer_key(path);
}

/* IdentitiesOnly: whether the blob is the public part of one of the files. */
static bool is_identity(const buffer *blob)
{
	unsigned char want[HASH_SIZE], have[HASH_SIZE];
	size_t i;

	port_hash(blob->data, blob->len, want);
	for (i = 0; i < port.config->n_identity; i++)
		if (identity_public_hash(port.config->identity[i], have) &&
		    memcmp(want, have, HASH_SIZE) == 0)
			return true;
	return false;
}

/* Sets the signature algorithm for an agent's key: its type, except for RSA.  Returns
 * false for blobs that make no sense. */
static bool name_agent_algorithm(void)
{
	unsigned char *type;
	size_t len;

	buf_setpos(auth.blob, 0);
	if (!port_take_string(auth.blob, &type, &len) || len >= sizeof(auth.algorithm))
		return false;
	snprintf(auth.algorithm, sizeof(auth.algorithm), "%.*s", (int)len, type);
	if (strcmp(auth.algorithm, "ssh-rsa") == 0 || strcmp(auth.algorithm, "ssh-rsa" CERT) == 0)
		name_rsa_algorithm(auth.algorithm[7] != '\0');
	return true;
}

/* Takes the next key from the agent's list and offers it if allowed. */
static bool offer_next_of_agent(void)
{
	unsigned char *blob, *comment;
	size_t blob_len, comment_len;

	auth.agent_left--;
	if (!port_take_string(auth.agent_keys, &blob, &blob_len) ||
	    !port_take_string(auth.agent_keys, &comment, &comment_len)) {
		port_log(TP_INFO, "Agent %s: bad list of keys", port.config->agent);
		auth.agent_left = 0;
		return false;
	}
	if (blob_len == 0 || blob_len > AGENT_BLOB_MAX)
		return false;
	auth.blob = buf_new((unsigned)blob_len);
	buf_putbytes(auth.blob, blob, (unsigned)blob_len);
	if (!name_agent_algorithm() ||
	    (port.config->identities_only && !is_identity(auth.blob))) {
		drop_key();
		return false;
	}
	return offer_key(port.config->agent);
}

/* Starts a trial of the next key.  Returns false when there are no more. */
static bool try_publickey(void)
{
	const struct tp_config *c = port.config;

	drop_key();
	port.info.auth_method = "publickey";
	while (auth.next_identity < c->n_identity)
		if (offer_file(c->identity[auth.next_identity++]))
			return true;
	if (c->agent == NULL || auth.agent_lost)
		return false;
	if (!auth.agent_asked) {
		auth.agent_asked = true;
		agent_ask_keys();
		auth.step = STEP_AGENT_LIST;
		return true;
	}
	while (auth.agent_left > 0)
		if (offer_next_of_agent())
			return true;
	return false;
}

/* RFC 4252 7: we sign the session's name and the request. */
static buffer *data_to_sign(void)
{
	buffer *data = buf_new(4 + ses.session_id->len + 64 +
		(unsigned)strlen(port.config->user) + 128 + auth.blob->len);

	buf_putbufstring(data, ses.session_id);
	put_key_request(data, true);
	return data;
}

/* SIGN_RSA_… for an algorithm, 0 where the key alone decides. */
static uint32_t agent_flags(void)
{
	if (strncmp(auth.algorithm, "rsa-sha2-512", 12) == 0)
		return SIGN_RSA_SHA2_512;
	return strncmp(auth.algorithm, "rsa-sha2-256", 12) == 0 ? SIGN_RSA_SHA2_256 : 0;
}

/* SSH_MSG_USERAUTH_PK_OK: the server would take the key.  Sign. */
static void rx_key_accepted(void)
{
	unsigned char *algorithm, *blob;
	size_t algorithm_len, blob_len;

	if (!port_take_string(ses.payload, &algorithm, &algorithm_len) ||
	    !port_take_string(ses.payload, &blob, &blob_len) ||
	    blob_len != auth.blob->len || memcmp(blob, auth.blob->data, blob_len) != 0)
		port_fail(TP_CAUSE_LOST, "%s: server accepts a key that was not offered",
			port.config->host);
	auth.signed_data = data_to_sign();
	if (auth.key == NULL) {
		agent_ask_signature(auth.blob, auth.signed_data, agent_flags());
		auth.step = STEP_AGENT_SIGN;
		return;
	}
	put_key_request(ses.writepayload, true);
	signature_put(ses.writepayload, auth.key, auth.algorithm, auth.signed_data);
	encrypt_packet();
	drop_key();
	auth.step = STEP_SIGNED;
}

/* --- the agent's answers -------------------------------------------------- */

/* Copies the list: the agent's buffer is reused for signatures. */
static void agent_keys(void)
{
	buffer *b = agent_answer();

	if (b->len < 5 || b->data[0] != IDENTITIES_ANSWER) {
		port_log(TP_INFO, "Agent %s: has no list of keys", port.config->agent);
		auth.agent_lost = true;
		return;
	}
	auth.agent_keys = buf_newcopy(b);
	buf_setpos(auth.agent_keys, 1);
	auth.agent_left = buf_getint(auth.agent_keys);
}

/* Passes the agent's signature on.  Returns false if we cannot use it. */
static bool send_agent_signature(void)
{
	buffer *b = agent_answer();
	unsigned char *signature, *type;
	size_t len, type_len;

	buf_setpos(b, 0);
	if (b->len < 1 || buf_getbyte(b) != SIGN_RESPONSE ||
	    !port_take_string(b, &signature, &len) || len < 8 || len > AGENT_BLOB_MAX)
		return false;
	/* An old agent ignores the flag and signs with SHA-1: no use. */
	buf_setpos(b, 1 + 4);
	if (!port_take_string(b, &type, &type_len) || (agent_flags() != 0 &&
	    (type_len != 12 || memcmp(type, auth.algorithm, 12) != 0)))
		return false;
	put_key_request(ses.writepayload, true);
	buf_putstring(ses.writepayload, (const char *)signature, (unsigned)len);
	encrypt_packet();
	drop_key();
	auth.step = STEP_SIGNED;
	return true;
}

/* Continues a login that was waiting for the agent: with the next attempt, or its end. */
void auth_agent_event(enum agent_event event)
{
	if (event == AGENT_FAILED) {
		auth.agent_lost = true;
	} else if (auth.step == STEP_AGENT_LIST) {
		agent_keys();
	} else if (auth.step == STEP_AGENT_SIGN) {
		if (send_agent_signature())
			return;
		port_log(TP_INFO, "Agent %s: did not sign", port.config->agent);
	}
	next();
}

/* --- passwords ------------------------------------------------------------ */

/* Whether we may ask the user.  prompt() finds out whether there is a terminal. */
static bool can_ask(void)
{
	return port.interactive && !port.config->batch;
}

/* Asks the user.  Returns false if nobody answers. */
static bool ask(const char *intro, const char *text, size_t len, bool echo,
	char answer[SECRET_SIZE])
{
	enum prompt_result r = prompt(intro, text, len, echo, port.config->cancel_fd,
		answer, SECRET_SIZE);

	if (r == PROMPT_CANCELLED) {
		explicit_bzero(answer, SECRET_SIZE);
		port_fail(TP_CAUSE_CANCELLED, "%s: cancelled", port.config->host);
	}
	return r == PROMPT_ANSWERED;
}

/* RFC 4252 8. */
static void send_password(const char *password)
{
	put_request(ses.writepayload, "password");
	buf_putbyte(ses.writepayload, 0);
	put_text(ses.writepayload, password);
	encrypt_packet();
	auth.step = STEP_PASSWORD;
	port.info.auth_method = "password";
}

/* Tries the password from the environment, once in a login. */
static bool try_given_password(void)
{
	if (port.config->password == NULL || auth.given_to_password)
		return false;
	auth.given_to_password = true;
	send_password(port.config->password);
	return true;
}

/* Asks for a password and sends it.  Returns false without one. */
static bool try_password(void)
{
	char text[300], answer[SECRET_SIZE];

	if (!can_ask() || auth.password_tries >= port.config->prompts)
		return false;
	if (auth.password_tries++ > 0)
		port_log(TP_INFO, "Permission denied, please try again.");
	snprintf(text, sizeof(text), "%.100s@%.150s's password: ",
		port.config->user, port.config->host);
	if (!ask(text, "", 0, false, answer)) {
		auth.password_tries = port.config->prompts;
		return false;
	}
	send_password(answer);
	explicit_bzero(answer, sizeof(answer));
	return true;
}

/* RFC 4256 3.1.  Starts only if the user or a given password can answer. */
static bool try_keyboard(void)
{
	bool given = port.config->password != NULL && !auth.given_to_keyboard;

	if (!given && (!can_ask() || auth.keyboard_tries >= port.config->prompts))
		return false;
	if (!given)
		auth.keyboard_tries++;
	auth.given_now = false;
	put_request(ses.writepayload, "keyboard-interactive");
	put_text(ses.writepayload, "");
	put_text(ses.writepayload, "");
	encrypt_packet();
	auth.step = STEP_KEYBOARD;
	port.info.auth_method = "keyboard-interactive";
	return true;
}

/* Answers one question into writepayload.  The given password answers a hidden question
 * that is `alone`, or the first hidden one of several; the user answers all others.
 * Returns false without an answer. */
static bool answer_question(bool alone)
{
	unsigned char *question;
	size_t len;
	char intro[300], answer[SECRET_SIZE];
	bool echo;

	if (!port_take_string(ses.payload, &question, &len))
		dropbear_exit("Bad keyboard-interactive request");
	echo = buf_getbool(ses.payload);
	if (!echo && port.config->password != NULL && !auth.given_to_keyboard &&
	    (alone || !auth.given_now)) {
		auth.given_now = true;
		put_text(ses.writepayload, port.config->password);
		return true;
	}
	snprintf(intro, sizeof(intro), "(%.100s@%.150s) ", port.config->user, port.config->host);
	if (!can_ask() || !ask(intro, (char *)question, len, echo, answer))
		return false;
	put_text(ses.writepayload, answer);
	explicit_bzero(answer, sizeof(answer));
	return true;
}

/* SSH_MSG_USERAUTH_INFO_REQUEST, RFC 4256 3.2. */
static void rx_questions(void)
{
	unsigned char *name, *text, *language;
	size_t name_len, text_len, language_len;
	uint32_t i, n;

	if (!port_take_string(ses.payload, &name, &name_len) ||
	    !port_take_string(ses.payload, &text, &text_len) ||
	    !port_take_string(ses.payload, &language, &language_len))
		dropbear_exit("Bad keyboard-interactive request");
	n = buf_getint(ses.payload);
	if (n > QUESTIONS || ++auth.rounds > QUESTION_ROUNDS)
		dropbear_exit("Too many keyboard-interactive questions");
	if (can_ask()) {
		port_log_lines(TP_INFO, (char *)name, name_len);
		port_log_lines(TP_INFO, (char *)text, text_len);
	}
	buf_putbyte(ses.writepayload, SSH_MSG_USERAUTH_INFO_RESPONSE);
	buf_putint(ses.writepayload, n);
	for (i = 0; i < n; i++) {
		if (answer_question(n == 1))
			continue;
		/* No answer: try another method. */
		buf_setpos(ses.writepayload, 0);
		buf_setlen(ses.writepayload, 0);
		auth.keyboard_tries = port.config->prompts;
		auth.given_to_keyboard = true;
		next();
		return;
	}
	encrypt_packet();
}

/* --- the course of a login ------------------------------------------------ */

/* Starts the next attempt, or ends the login if there is none. */
static void next(void)
{
	unsigned passwords = port.passwords_barred ? 0 : auth.offered;

	if (port.config->no_password)
		passwords &= ~METHOD_PASSWORD;
	if (port.config->no_keyboard)
		passwords &= ~METHOD_KEYBOARD;
	if (!port.config->no_pubkey && (auth.offered & METHOD_PUBLICKEY) && try_publickey())
		return;
	drop_key();
	if ((passwords & METHOD_PASSWORD) && try_given_password())
		return;
	if ((passwords & METHOD_KEYBOARD) && try_keyboard())
		return;
	if ((passwords & METHOD_PASSWORD) && try_password())
		return;
	port_fail(TP_CAUSE_AUTH, "%s@%s: Permission denied (%s).",
		port.config->user, port.config->host, auth.offered_names);
}

/* Whether the server must answer now. */
static bool awaiting(void)
{
	return auth.step <= STEP_PASSWORD;
}

/* Keeps the methods that the server says can continue: as bits and, for the final error,
 * as names. */
static void note_methods(const char *names, size_t len)
{
	size_t i, n, m;

	auth.offered = 0;
	for (i = 0; i < len; i += n + 1) {
		const char *comma = memchr(names + i, ',', len - i);

		n = comma != NULL ? (size_t)(comma - names) - i : len - i;
		for (m = 0; m < ARRAY_SIZE(methods); m++)
			if (strlen(methods[m].name) == n &&
			    memcmp(methods[m].name, names + i, n) == 0)
				auth.offered |= methods[m].bit;
	}
	/* A server that names no method may still take keys. */
	if (len == 0)
		auth.offered = METHOD_PUBLICKEY;
	snprintf(auth.offered_names, sizeof(auth.offered_names), "%.*s", (int)len, names);
}

/* SSH_MSG_USERAUTH_FAILURE, RFC 4252 5.1. */
void auth_rx_failure(void)
{
	unsigned char *names;
	size_t len;
	bool partial;

	if (port.state == TP_UP)
		return;
	if (!awaiting() || !port_take_string(ses.payload, &names, &len))
		dropbear_exit("Unexpected userauth failure");
	partial = buf_getbool(ses.payload);
	note_methods((char *)names, len);
	if (partial)
		port_log(TP_INFO, "Authenticated with partial success (%s), more is needed.",
			port.info.auth_method);
	else if (auth.step == STEP_SIGNED)
		port_log(TP_VERBOSE, "The server refused the signature.");
	/* A server that asked nothing this time will not ask next time. */
	if (auth.step == STEP_KEYBOARD)
		auth.given_to_keyboard = true;
	next();
}

/* SSH_MSG_USERAUTH_SUCCESS: from here on the caller's messages flow. */
void auth_rx_success(void)
{
	if (port.state == TP_UP)
		return;
	if (!awaiting())
		dropbear_exit("Unexpected userauth success");
	drop_key();
	if (auth.agent_keys != NULL)
		buf_free(auth.agent_keys);
	agent_end();
	explicit_bzero(&auth, sizeof(auth));
	auth.step = STEP_DONE;
	ses.authstate.authdone = 1;
	hostkey_logged_in();
	seen_banner = true;
	port.state = TP_UP;
}

/* SSH_MSG_USERAUTH_BANNER, RFC 4252 5.4. */
void auth_rx_banner(void)
{
	unsigned char *text;
	size_t len;

	if (port.state == TP_UP || auth.banners++ >= BANNERS)
		return;
	if (port_take_string(ses.payload, &text, &len))
		port_log_lines(seen_banner ? TP_VERBOSE : TP_INFO, (char *)text, len);
}

/* SSH_MSG_USERAUTH_PASSWD_CHANGEREQ, RFC 4252 8: we do not change passwords. */
static void rx_password_expired(void)
{
	unsigned char *text;
	size_t len;

	if (port_take_string(ses.payload, &text, &len))
		port_log_lines(TP_INFO, (char *)text, len);
	port_log(TP_ERROR, "%s: the password has expired and must be changed",
		port.config->host);
	next();
}

/* The meaning of message 60 depends on the method. */
void auth_rx_60(void)
{
	if (port.state == TP_UP)
		return;
	if (auth.step == STEP_QUERY)
		rx_key_accepted();
	else if (auth.step == STEP_KEYBOARD)
		rx_questions();
	else if (auth.step == STEP_PASSWORD)
		rx_password_expired();
	else
		dropbear_exit("Unexpected userauth message");
}
