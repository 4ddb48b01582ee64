/*-------------------------------------------------------------------------
 *
 * token_bucket.h
 *	  How fast requests may follow each other.
 *
 * No PostgreSQL in here.  Times are microseconds of any clock that does not
 * go back; a cap is whole requests per second, 1 to 10000, or 0: none.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_TOKEN_BUCKET_H
#define SL_TOKEN_BUCKET_H

#include <stdint.h>

/* Plain data without pointers: it may lie in shared memory. */
typedef struct SlTokenBucket
{
	int64_t		at;				/* when 'level' was right */
	int64_t		level;			/* what is in it; see TOKEN */
	int64_t		slowed_at;		/* of the latest slow-down, ... */
	int64_t		slowed_to;		/* ... millionths of tokens a second; 0: never */
	int64_t		slowed_from;	/* the rate before */
	int64_t		second;			/* when the second began that is counted: */
	int64_t		taken;			/* tokens since then, */
	int64_t		taken_before;	/* and in the second before; -1: not counted */
} SlTokenBucket;

extern void sl_bucket_init(SlTokenBucket *bucket, int cap, int64_t now);

/* Take as many as there are, 'wanted' at most; returns how many. */
extern int	sl_bucket_take(SlTokenBucket *bucket, int cap, int64_t now,
						   int wanted);
extern void sl_bucket_give_back(SlTokenBucket *bucket, int n);

/* Microseconds until there is a token; 0 if there is one. */
extern int64_t sl_bucket_wait(SlTokenBucket *bucket, int cap, int64_t now);

/* The other side has had too much. */
extern void sl_bucket_slow_down(SlTokenBucket *bucket, int cap, int64_t now);

/* The rate now, in thousandths of requests per second; 0: no limit. */
extern int64_t sl_bucket_rate(const SlTokenBucket *bucket, int cap, int64_t now);

/* Is it as good as new?  Then forgetting it changes nothing. */
extern int	sl_bucket_is_at_rest(const SlTokenBucket *bucket, int cap,
								 int64_t now);

#endif							/* SL_TOKEN_BUCKET_H */
