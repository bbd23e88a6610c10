/* agent.c - asks an ssh-agent without ever waiting for it.
 *
 * Speaks the agent protocol of draft-ietf-sshm-ssh-agent:
 * uint32 length, byte type, contents.  One request at a time; agent_service()
 * reports the answer or a failure.  An agent that is stopped, gone or talks
 * nonsense costs at most the deadline and one log line that names it.  Signing
 * may take longer: the agent may ask its user to confirm.  The first request of
 * a login opens the socket, agent_end() closes it.  Answers longer than
 * ANSWER_MAX are refused.
 */
#include "port.h"
#include <poll.h>

#define LIST_MS 5000
#define SIGN_MS 20000
#define ANSWER_MAX 16384	/* about 150 ed25519 keys */

#define REQUEST_IDENTITIES 11
#define SIGN_REQUEST 13

static struct {
	int fd;
	bool busy;		/* a request is running */
	const char *broken;	/* why every request fails */
	int64_t deadline;
	buffer *out;		/* the request; its pos counts up as it is written */
	buffer *in;		/* the answer; len counts up to size */
	unsigned char head[4];	/* the answer's length */
	unsigned head_len;
} agent = { .fd = -1 };

void agent_begin(void)
{
	memset(&agent, 0, sizeof(agent));
	agent.fd = -1;
}

/* Closes the socket.  The arena frees the buffers. */
void agent_end(void)
{
	if (agent.fd >= 0)
		close(agent.fd);
	agent.fd = -1;
	agent.busy = false;
}

/* Leaves errors to agent_service(), which handles all of them. */
static void agent_connect(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	if (strlen(port.config->agent) >= sizeof(a.sun_path)) {
		agent.broken = "path too long";
		return;
	}
	strcpy(a.sun_path, port.config->agent);
	agent.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* EAGAIN means that the agent's queue is full: it is not there for us. */
	if (agent.fd < 0 || connect(agent.fd, (struct sockaddr *)&a, sizeof(a)) != 0)
		agent.broken = strerror(errno);
}

/* Begins a request of `len` bytes of contents; the caller fills agent.out. */
static void start_request(unsigned char type, unsigned len, int64_t limit_ms)
{
	if (agent.out != NULL)
		buf_free(agent.out);
	if (agent.in != NULL)
		buf_free(agent.in);
	agent.in = NULL;
	agent.out = buf_new(4 + 1 + len);
	buf_putint(agent.out, 1 + len);
	buf_putbyte(agent.out, type);
	agent.head_len = 0;
	agent.busy = true;
	agent.deadline = port.now + limit_ms;
	if (agent.fd < 0)
		agent_connect();
}

/* The answer is SSH_AGENT_IDENTITIES_ANSWER. */
void agent_ask_keys(void)
{
	start_request(REQUEST_IDENTITIES, 0, LIST_MS);
	buf_setpos(agent.out, 0);
}

/* The answer is SSH_AGENT_SIGN_RESPONSE. */
void agent_ask_signature(const buffer *blob, const buffer *data, uint32_t flags)
{
	start_request(SIGN_REQUEST, 4 + blob->len + 4 + data->len + 4, SIGN_MS);
	buf_putbufstring(agent.out, blob);
	buf_putbufstring(agent.out, data);
	buf_putint(agent.out, flags);
	buf_setpos(agent.out, 0);
}

/* Adds the agent's socket to the caller's poll() while a request is running. */
size_t agent_poll(struct pollfd *p, int *timeout)
{
	int64_t left = agent.deadline - port.now;

	if (!agent.busy)
		return 0;
	if (left < 0 || agent.broken != NULL)
		left = 0;
	if (*timeout < 0 || *timeout > left)
		*timeout = (int)left;
	if (agent.fd < 0)
		return 0;
	p->fd = agent.fd;
	p->events = POLLIN;
	p->revents = 0;
	if (agent.out->pos < agent.out->len)
		p->events |= POLLOUT;
	return 1;
}

/* Whether to try again later, rather than give up. */
static bool transient(ssize_t n)
{
	return n < 0 && (errno == EAGAIN || errno == EINTR);
}

static void write_some(void)
{
	unsigned left = agent.out->len - agent.out->pos;
	ssize_t n;

	if (left == 0)
		return;
	n = send(agent.fd, agent.out->data + agent.out->pos, left, MSG_NOSIGNAL);
	if (n > 0)
		buf_incrpos(agent.out, (unsigned)n);
	else if (!transient(n))
		agent.broken = "closed the connection";
}

/* Reads the first four bytes: the answer's length. */
static void read_head(void)
{
	uint32_t len;
	ssize_t n = read(agent.fd, agent.head + agent.head_len, 4 - agent.head_len);

	if (n > 0)
		agent.head_len += (unsigned)n;
	else if (!transient(n))
		agent.broken = "closed the connection";
	if (agent.head_len < 4 || agent.broken != NULL)
		return;
	len = (uint32_t)agent.head[0] << 24 | (uint32_t)agent.head[1] << 16 |
		(uint32_t)agent.head[2] << 8 | agent.head[3];
	if (len == 0 || len > ANSWER_MAX)
		agent.broken = "sent an answer of impossible length";
	else
		agent.in = buf_new(len);
}

/* Reads the rest of the answer into a buffer of exactly its length. */
static void read_some(void)
{
	ssize_t n;

	if (agent.in == NULL)
		read_head();
	if (agent.in == NULL || agent.broken != NULL)
		return;
	n = read(agent.fd, agent.in->data + agent.in->len, agent.in->size - agent.in->len);
	if (n > 0)
		buf_setlen(agent.in, agent.in->len + (unsigned)n);
	else if (!transient(n))
		agent.broken = "closed the connection";
}

/* Moves bytes.  AGENT_ANSWER: agent_answer() returns the answer.  AGENT_FAILED: the
 * failure is logged, and later requests of this login fail, too. */
enum agent_event agent_service(short revents)
{
	if (!agent.busy)
		return AGENT_NOTHING;
	if (agent.broken == NULL && (revents & (POLLOUT | POLLERR)))
		write_some();
	if (agent.broken == NULL && (revents & (POLLIN | POLLHUP)))
		read_some();
	if (agent.in != NULL && agent.in->len == agent.in->size) {
		agent.busy = false;
		return AGENT_ANSWER;
	}
	if (agent.broken == NULL && port.now >= agent.deadline)
		agent.broken = "does not answer";
	if (agent.broken == NULL)
		return AGENT_NOTHING;
	port_log(TP_INFO, "Agent %s: %s", port.config->agent, agent.broken);
	agent_end();
	return AGENT_FAILED;
}

/* The last answer, from its type byte on; valid until the next request. */
buffer *agent_answer(void)
{
	return agent.in;
}
