/*-------------------------------------------------------------------------
 *
 * driver.h
 *	  What a fuzz target inside a server consists of.
 *
 *-------------------------------------------------------------------------
 */
#ifndef FUZZ_DRIVER_H
#define FUZZ_DRIVER_H

#include <stdio.h>
#include <stdlib.h>

/* Unlike Assert(), never compiled away. */
#define REQUIRE(condition) \
	do { \
		if (!(condition)) \
		{ \
			fprintf(stderr, "%s:%d: not true: %s\n", \
					__FILE__, __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

/*
 * One input.  Memory of the current context, and what alloc.h's functions
 * gave, is freed after it.
 */
extern void fuzz_one(const char *data, size_t len);

/* A copy in a block of exactly its size; freed after this input. */
extern void *fuzz_exact(const void *data, size_t len);

#endif							/* FUZZ_DRIVER_H */
