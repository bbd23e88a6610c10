/* ways - linked into a copy of sshmux: $CIPHER_WAYS names the ways (ciphers.h) that
 * its ciphers may go besides plain, whatever the CPU has more. */
#include <stdlib.h>

extern const char *ciphers_only;

static __attribute__((constructor)) void begin(void)
{
	ciphers_only = getenv("CIPHER_WAYS");
}
