/*-------------------------------------------------------------------------
 *
 * token_bucket.c
 *	  A token bucket whose rate is halved when the other side complains.
 *
 * The promise is that no second, wherever it begins, sees more requests than
 * the cap.  A bucket that holds C tokens and is filled at R a second lets up to
 * C + R of them through in a second.  So both share the cap: a tenth of it, or
 * one, may go at once after a rest, and nine tenths is the rate of filling.
 *
 * After a complaint the rate is halved, down to one a second, and the bucket
 * is emptied.  Many requests are under way when the limit is hit, and all are
 * turned away; so complaints within a second count as one.  From there the
 * rate grows by a sixtieth of the cap each second.
 *
 *-------------------------------------------------------------------------
 */
#include "token_bucket.h"

#define MILLION INT64_C(1000000)

/*
 * One token, as levels are counted.  A hundred times finer than rates, so that
 * even the slowest one fills something in every microsecond.
 */
#define TOKEN (100 * MILLION)

/* What a rate fills in a time. */
#define FILLED(rate, passed) ((rate) * (passed) / (MILLION / 100))

/* The rate's growth from nothing to the cap would take so long. */
#define RECOVERY (60 * MILLION)

/* Complaints that come closer together are one. */
#define SAME_COMPLAINT MILLION

/* No bucket takes longer to fill, so nothing older need be counted. */
#define LONGEST_FILL (10 * MILLION)

static int64_t
least(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static int64_t
greatest(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

/* In millionths of tokens a second. */
static int64_t
rate_at(const SlTokenBucket *b, int cap, int64_t now)
{
	int64_t		full = cap * MILLION;
	int64_t		passed = now - b->slowed_at;

	if (b->slowed_to == 0 || passed >= RECOVERY)
		return full;
	return least(full, b->slowed_to + full * greatest(passed, 0) / RECOVERY);
}

/* How much it holds when it is full. */
static int64_t
capacity(int64_t rate)
{
	return greatest(1, rate / (10 * MILLION)) * TOKEN;
}

/* In millionths of tokens a second. */
static int64_t
filling(int64_t rate)
{
	return rate / 10 * 9;
}

/* Brings the level up to date. */
static void
fill(SlTokenBucket *b, int cap, int64_t now)
{
	int64_t		rate = rate_at(b, cap, now);
	int64_t		passed = least(greatest(now - b->at, 0), LONGEST_FILL);

	b->level = least(b->level + FILLED(filling(rate), passed), capacity(rate));
	b->at = now;
}

void
sl_bucket_init(SlTokenBucket *b, int cap, int64_t now)
{
	b->at = now;
	b->level = capacity(cap * MILLION);
	b->slowed_at = now;
	b->slowed_to = 0;
}

int
sl_bucket_take(SlTokenBucket *b, int cap, int64_t now, int wanted)
{
	int64_t		n;

	fill(b, cap, now);
	n = greatest(least(b->level / TOKEN, wanted), 0);
	b->level -= n * TOKEN;
	return (int) n;
}

/* For those that were not needed; too many do no harm, the bucket spills. */
void
sl_bucket_give_back(SlTokenBucket *b, int n)
{
	b->level += n * TOKEN;
}

int64_t
sl_bucket_wait(SlTokenBucket *b, int cap, int64_t now)
{
	int64_t		rate;

	fill(b, cap, now);
	if (b->level >= TOKEN)
		return 0;
	rate = filling(rate_at(b, cap, now));

	/* rounded up: then there is one */
	return ((TOKEN - b->level) * (MILLION / 100) + rate - 1) / rate;
}

void
sl_bucket_slow_down(SlTokenBucket *b, int cap, int64_t now)
{
	int64_t		rate = rate_at(b, cap, now);

	if (b->slowed_to != 0 && now >= b->slowed_at &&
		now - b->slowed_at < SAME_COMPLAINT)
		return;
	b->slowed_to = greatest(rate / 2, MILLION);
	b->slowed_at = now;
	b->level = least(b->level, 0);
	b->at = now;
}

int64_t
sl_bucket_rate(const SlTokenBucket *b, int cap, int64_t now)
{
	return rate_at(b, cap, now) / 1000;
}

int
sl_bucket_is_at_rest(const SlTokenBucket *b, int cap, int64_t now)
{
	SlTokenBucket copy = *b;

	fill(&copy, cap, now);
	return rate_at(b, cap, now) == cap * MILLION &&
		copy.level == capacity(cap * MILLION);
}
