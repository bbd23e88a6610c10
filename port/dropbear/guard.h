/* guard.h - included before every file of dropbear, libtomcrypt, libtommath.
 *
 * The process lives for months and allocates nothing, so three things of theirs
 * must not reach libc:
 *  - m_free() is libc's free() in dbmalloc.h; here the allocator is arena.c,
 *    so this file replaces dbmalloc.h.
 *  - stdio: FILE allocates, and messages belong to tp_log().  The one reader
 *    that matters is keyimport.c, which gets its key from memory (glue.c).
 *  - assert() would abort; shim/assert.h ends the connection instead.
 */
#ifndef SSHMUX_DROPBEAR_GUARD_H
#define SSHMUX_DROPBEAR_GUARD_H

#define DBMALLOC_H_		/* dbmalloc.h's own guard: this replaces it */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "options.h"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

void *m_malloc(size_t size);
void *m_calloc(size_t count, size_t size);
void *m_strdup(const char *s);
void *m_realloc(void *p, size_t size);
void *m_realloc_ltm(void *p, size_t oldsize, size_t newsize);
void m_free_ltm(void *p, size_t size);
void m_free_direct(void *p);
#define m_free(X) do { m_free_direct(X); (X) = NULL; } while (0)

FILE *port_fopen(const char *name);
char *port_fgets(char *line, int size);
void port_complain(const char *format, ...);

#ifndef PORT_OWN_FILE
#undef fopen
#undef fclose
#undef fgets
#undef fgetc
#undef getc
#undef getchar
#undef fseek
#undef fwrite
#undef fputc
#undef fputs
#undef fflush
#undef fprintf
#undef printf
#undef sscanf
#define fopen(name, mode) port_fopen(name)
#define fclose(file) ((void)(file), 0)
#define fgets(line, size, file) port_fgets(line, size)
#define fgetc(file) EOF
#define getc(file) EOF
#define getchar() '\n'
#define fseek(file, offset, whence) (-1)
#define fwrite(data, size, count, file) (0)
#define fputc(c, file) (EOF)
#define fputs(s, file) (EOF)
#define fflush(file) (0)
#define fprintf(file, ...) port_complain(__VA_ARGS__)
#define printf(...) port_complain(__VA_ARGS__)
#define sscanf(...) (0)
#endif

#endif
