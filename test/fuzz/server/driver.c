/*-------------------------------------------------------------------------
 *
 * driver.c
 *	  Runs libFuzzer inside a PostgreSQL server in single-user mode.
 *
 * Some rooms of src/ stand on the server's own code (jsonb, numeric,
 * ereport), of which no library exists.  So the fuzzer goes where that code
 * is: this library holds libFuzzer and the rooms, compiled with
 * AddressSanitizer, UndefinedBehaviorSanitizer and coverage counters, and
 *
 *		LOAD '/path/of/this/library';
 *
 * runs the fuzzer until its time is up, and ends the server.  What guides it
 * is the coverage of the rooms; the server's code is not instrumented, and is
 * what it is in production.  libFuzzer's options are in the environment
 * variable FUZZ_OPTIONS, separated by blanks; FUZZ_PROGRAM is the command by
 * which it can call itself with other options.  The script run sets both.
 *
 *-------------------------------------------------------------------------
 */
#define FUZZ_DRIVER
#include "alloc.h"

#include <string.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "driver.h"

PG_MODULE_MAGIC;

#define MAX_OPTIONS 32
#define MAX_BLOCKS 65536

extern PGDLLEXPORT void _PG_init(void);
extern int	LLVMFuzzerRunDriver(int *argc, char ***argv,
								int (*callback) (const uint8_t *data, size_t size));

/* What the rooms have allocated for this input. */
static void *blocks[MAX_BLOCKS];
static int	n_blocks = 0;

static void *
remember(void *p)
{
	REQUIRE(p != NULL && n_blocks < MAX_BLOCKS);
	blocks[n_blocks++] = p;
	return p;
}

static int
find_block(const void *p)
{
	int			i;

	for (i = n_blocks - 1; i >= 0; i--)
		if (blocks[i] == p)
			return i;
	return -1;
}

void *
fuzz_palloc(Size size)
{
	return remember(malloc(size > 0 ? size : 1));
}

void *
fuzz_palloc0(Size size)
{
	return remember(calloc(1, size > 0 ? size : 1));
}

void *
fuzz_repalloc(void *p, Size size)
{
	int			i = find_block(p);

	if (i < 0)
		return repalloc(p, size);
	blocks[i] = realloc(p, size);
	REQUIRE(blocks[i] != NULL);
	return blocks[i];
}

char *
fuzz_pnstrdup(const char *s, Size len)
{
	char	   *copy;

	len = strnlen(s, len);
	copy = fuzz_palloc(len + 1);
	memcpy(copy, s, len);
	copy[len] = '\0';
	return copy;
}

char *
fuzz_pstrdup(const char *s)
{
	return fuzz_pnstrdup(s, strlen(s));
}

void
fuzz_pfree(void *p)
{
	int			i = find_block(p);

	if (i < 0)
		pfree(p);				/* from the server's own code */
	else
	{
		free(p);
		blocks[i] = blocks[--n_blocks];
	}
}

void *
fuzz_exact(const void *data, size_t len)
{
	return memcpy(fuzz_palloc(len), data, len);
}

static int
run_one(const uint8_t *data, size_t size)
{
	static MemoryContext cxt = NULL;
	MemoryContext old;

	if (cxt == NULL)
		cxt = AllocSetContextCreate(TopMemoryContext, "fuzz", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(cxt);
	fuzz_one((const char *) data, size);
	REQUIRE(CurrentMemoryContext == cxt);
	MemoryContextSwitchTo(old);
	MemoryContextReset(cxt);
	while (n_blocks > 0)
		free(blocks[--n_blocks]);
	return 0;
}

void
_PG_init(void)
{
	char	   *options = getenv("FUZZ_OPTIONS");
	char	   *args[MAX_OPTIONS + 2] = {getenv("FUZZ_PROGRAM")};
	char	  **argv = args;
	int			argc = 1;
	char	   *word;

	if (IsUnderPostmaster || options == NULL || args[0] == NULL)
		ereport(ERROR,
				(errmsg("this library is for a server in single-user mode that server/run starts")));
	for (word = strtok(options, " "); word != NULL && argc <= MAX_OPTIONS;
		 word = strtok(NULL, " "))
		args[argc++] = word;
	exit(LLVMFuzzerRunDriver(&argc, &argv, run_one));
}
