/*-------------------------------------------------------------------------
 *
 * rate_limit.c
 *	  Token buckets for many clients in a table of fixed size.
 *
 * A bucket that holds B tokens and gets one per interval is kept as the time
 * at which it will be full: every token taken moves that time forward by an
 * interval, and a token is there as long as it is not B intervals away.  So
 * settings may change at any moment, and a bucket whose time has passed holds
 * no information: its place can be had.
 *
 * What when all buckets of a set are in use and another client comes?  It
 * takes the place of the one that will be full first, and its debt as well.
 * The earliest time of a set therefore never goes back, whoever comes and
 * goes; and whoever was pushed out and returns finds a debt that is at least
 * as great as the one left behind.  Nobody gains tokens by crowding others, or
 * himself, out.  A set that is flooded makes its clients share buckets: too
 * strict, never too lax.
 *
 *-------------------------------------------------------------------------
 */
#include "rate_limit.h"

#define SECOND 1000000.0

/* One a day is the slowest that makes sense, and cannot overflow anything. */
#define LONGEST_INTERVAL (86400 * SECOND)

SlRate
sl_rate_of(double per_second, int burst)
{
	SlRate		rate = {1, burst < 1 ? 1 : burst};
	double		interval = SECOND / per_second;

	if (interval >= LONGEST_INTERVAL)
		rate.interval = (int64_t) LONGEST_INTERVAL;
	else if (interval > 1)
		rate.interval = (int64_t) interval;
	return rate;
}

/* The key's bucket, or the place of one with all that it owes. */
static SlRateBucket *
bucket_of(SlRateSet *set, uint64_t key)
{
	SlRateBucket *place = &set->buckets[0];
	int			i;

	for (i = 0; i < SL_RATE_WAYS; i++)
	{
		SlRateBucket *b = &set->buckets[i];

		if (b->key == key)
			return b;
		if (b->full_at < place->full_at)
			place = b;
	}
	place->key = key;
	return place;
}

int64_t
sl_rate_take(SlRateSet *set, uint64_t key, SlRate rate, int64_t now)
{
	int64_t		depth = rate.interval * rate.burst;
	SlRateBucket *b = bucket_of(set, key);
	int64_t		full_at;

	/* an empty bucket is the worst, also where it was a larger one before */
	if (b->full_at > now + depth)
		b->full_at = now + depth;
	full_at = (b->full_at > now ? b->full_at : now) + rate.interval;
	if (full_at - now > depth)
		return full_at - now - depth;
	b->full_at = full_at;
	return 0;
}
