/*-------------------------------------------------------------------------
 *
 * alloc.h
 *	  Included before everything else when a room of src/ is compiled to be
 *	  fuzzed inside a server: gives each of its allocations to malloc.
 *
 * PostgreSQL hands out small allocations from large blocks, within which
 * AddressSanitizer sees no bounds.  What the room allocates itself becomes a
 * block of exactly its size; what the server's code allocates stays as it is.
 *
 *-------------------------------------------------------------------------
 */
#ifndef FUZZ_ALLOC_H
#define FUZZ_ALLOC_H

#include "postgres.h"

extern void *fuzz_palloc(Size size);
extern void *fuzz_palloc0(Size size);
extern void *fuzz_repalloc(void *p, Size size);
extern char *fuzz_pstrdup(const char *s);
extern char *fuzz_pnstrdup(const char *s, Size len);
extern void fuzz_pfree(void *p);

#ifndef FUZZ_DRIVER
#undef palloc0
#undef pstrdup
#define palloc fuzz_palloc
#define palloc0 fuzz_palloc0
#define repalloc fuzz_repalloc
#define pstrdup fuzz_pstrdup
#define pnstrdup fuzz_pnstrdup
#define pfree fuzz_pfree
#endif

#endif							/* FUZZ_ALLOC_H */
