/* signature.c - rsa-sha2-512 (RFC 8332) with dropbear's RSA, which knows SHA-256.
 *
 * The two differ in name and in the message to sign, RFC 8017 9.2.  So dropbear
 * computes as for rsa-sha2-256; we replace the message when rsa.c has just made it,
 * and the name, which has the same length, in the packet.
 */
#include "port.h"
#include "session.h"
#include "bignum.h"
#include "dbutil.h"
#include "kex.h"

#define NAME_LEN 12	/* of both names */
static const char sha256_name[] = "rsa-sha2-256", sha512_name[] = "rsa-sha2-512";

/* RFC 8017 9.2, note 1: the bytes before a SHA-512 hash. */
static const unsigned char sha512_info[] = {
	0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01,
	0x65, 0x03, 0x04, 0x02, 0x03, 0x05, 0x00, 0x04, 0x40
};

static buffer *const *sha512_data;	/* the data to sign or verify now, or NULL */

void port_rsa_message(mp_int *number, const unsigned char *bytes, unsigned len);

/* 00 01 FF … FF 00 INFO HASH */
static void make_message(unsigned char *m, size_t len)
{
	size_t tail = sizeof(sha512_info) + 64;
	hash_state h;

	if (len < tail + 11)
		dropbear_exit("RSA key is too short");
	memset(m, 0xff, len);
	m[0] = 0;
	m[1] = 1;
	m[len - tail - 1] = 0;
	memcpy(m + len - tail, sha512_info, sizeof(sha512_info));
	sha512_init(&h);
	sha512_process(&h, (*sha512_data)->data, (*sha512_data)->len);
	sha512_done(&h, m + len - 64);
}

/* rsa.c's bytes_to_mp(): rsa.c calls it only for the message, which is in a buffer of its
 * own. */
void port_rsa_message(mp_int *number, const unsigned char *bytes, unsigned len)
{
	if (sha512_data != NULL)
		make_message((unsigned char *)(uintptr_t)bytes, len);
	bytes_to_mp(number, bytes, len);
}

/* The name of the signature in SSH_MSG_KEXDH_REPLY (RFC 4253 8); its pos is after the type
 * byte: host key, the server's public value, signature.  NULL if there is no name of that
 * length. */
static unsigned char *host_signature_name(void)
{
	buffer *b = ses.payload;
	unsigned pos = b->pos;
	unsigned char *p = NULL;
	size_t n = 0;
	int i;

	for (i = 0; i < 3; i++)
		if (!port_take_string(b, &p, &n))
			n = 0;
	buf_setpos(b, pos);
	return n > 4 + NAME_LEN && p[3] == NAME_LEN ? p + 4 : NULL;
}

/* recv_msg_kexdh_reply(), for a signature of either kind. */
void signature_from_host(void)
{
	unsigned char *name = algorithms_host_key_is_sha512() ? host_signature_name() : NULL;

	sha512_data = NULL;
	if (algorithms_host_key_is_sha512()) {
		if (name == NULL || memcmp(name, sha512_name, NAME_LEN) != 0)
			dropbear_exit("Non-matching signing type");
		memcpy(name, sha256_name, NAME_LEN);
		sha512_data = &ses.hash;
	}
	recv_msg_kexdh_reply();
}

/* Signs `data` with the user's key: an SSH string at the end of `to`. */
void signature_put(buffer *to, sign_key *key, const char *algorithm, buffer *data)
{
	bool sha512 = strcmp(algorithm, sha512_name) == 0;
	unsigned start = to->pos;

	sha512_data = sha512 ? &data : NULL;
	buf_put_sign(to, key, signature_type_from_name(sha512 ? sha256_name : algorithm,
		(unsigned)strlen(algorithm)), data);
	sha512_data = NULL;
	if (sha512)
		memcpy(to->data + start + 4 + 4, sha512_name, NAME_LEN);
}
