/*-------------------------------------------------------------------------
 *
 * rate_limit.h
 *	  Token buckets for many clients in a table of fixed size.
 *
 * No PostgreSQL in here.  Times are microseconds of any clock that does not
 * go back; a caller sees to it that one set is used by one process at a time.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_RATE_LIMIT_H
#define SL_RATE_LIMIT_H

#include <stdint.h>

/* Buckets that share a set; see rate_limit.c for what happens when all are in use. */
#define SL_RATE_WAYS 8

/*
 * A bucket is one number: when it will be full again.  Zeroes are a free one.
 */
typedef struct SlRateBucket
{
	uint64_t	key;			/* whose it is; 0: nobody's */
	int64_t		full_at;
} SlRateBucket;

typedef struct SlRateSet
{
	SlRateBucket buckets[SL_RATE_WAYS];
} SlRateSet;

/* So many at once after a rest, and one more after every interval. */
typedef struct SlRate
{
	int64_t		interval;		/* microseconds, at least 1 */
	int			burst;			/* at least 1 */
} SlRate;

/* The rate of so many per second, which must be greater than 0. */
extern SlRate sl_rate_of(double per_second, int burst);

/*
 * Take a token of this key's bucket; key must not be 0.  Returns 0, or, if
 * there is none, the microseconds until there will be one.
 */
extern int64_t sl_rate_take(SlRateSet *set, uint64_t key, SlRate rate,
							int64_t now);

#endif							/* SL_RATE_LIMIT_H */
