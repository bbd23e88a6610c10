/* assert.h - libc's, for dropbear's files: a failed assertion there ends the
 * connection, not the process.  Deliberately without an include guard, as
 * <assert.h> may be included many times. */
#undef assert
void fail_assert(const char *expr, const char *file, int line);
#define assert(x) do { if (!(x)) fail_assert(#x, "dropbear", __LINE__); } while (0)
#ifndef __cplusplus
#undef static_assert
#define static_assert _Static_assert
#endif
