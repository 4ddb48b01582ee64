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
 * Without a cap there is no limit, until there is a complaint.  Then the rate
 * of the last second or two is what is halved, and what takes the cap's place;
 * a minute after the last complaint there is no limit again.
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

/* The rate that a complaint is about, where there is no cap, is between these. */
#define LEAST_OBSERVED (10 * MILLION)
#define MOST_OBSERVED (10000 * MILLION)

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

static int
is_slowed(const SlTokenBucket *b, int64_t now)
{
	return b->slowed_to != 0 && now - b->slowed_at < RECOVERY;
}

/* Neither a cap nor a complaint. */
static int
is_free(const SlTokenBucket *b, int cap, int64_t now)
{
	return cap == 0 && !is_slowed(b, now);
}

/* In millionths of tokens a second; not for a bucket that is free. */
static int64_t
rate_at(const SlTokenBucket *b, int cap, int64_t now)
{
	int64_t		full = cap == 0 ? b->slowed_from : cap * MILLION;
	int64_t		passed = now - b->slowed_at;

	if (!is_slowed(b, now))
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

/* Counts what is taken, second by second. */
static void
count_taken(SlTokenBucket *b, int64_t now, int64_t n)
{
	int64_t		passed = now - b->second;

	if (passed < 0 || passed >= 2 * MILLION)
	{
		b->second = now;
		b->taken = 0;
		b->taken_before = -1;
	}
	else if (passed >= MILLION)
	{
		b->second += MILLION;
		b->taken_before = b->taken;
		b->taken = 0;
	}
	b->taken += n;
}

/*
 * How fast they were taken lately, in millionths of tokens a second.  What went
 * out within less than a second counts as one second's, as it does for those
 * who count.
 */
static int64_t
observed_rate(SlTokenBucket *b, int64_t now)
{
	int64_t		passed;
	int64_t		n;

	count_taken(b, now, 0);
	passed = now - b->second;
	n = b->taken;
	if (b->taken_before >= 0)
	{
		passed += MILLION;
		n += b->taken_before;
	}
	n = least(n, MOST_OBSERVED / MILLION * 2);
	return least(greatest(n * MILLION * MILLION / greatest(passed, MILLION),
						  LEAST_OBSERVED), MOST_OBSERVED);
}

void
sl_bucket_init(SlTokenBucket *b, int cap, int64_t now)
{
	b->at = now;
	b->level = capacity(cap * MILLION);
	b->slowed_at = now;
	b->slowed_to = 0;
	b->slowed_from = 0;
	b->second = now;
	b->taken = 0;
	b->taken_before = -1;
}

int
sl_bucket_take(SlTokenBucket *b, int cap, int64_t now, int wanted)
{
	int64_t		n = greatest(wanted, 0);

	if (!is_free(b, cap, now))
	{
		fill(b, cap, now);
		n = greatest(least(b->level / TOKEN, wanted), 0);
		b->level -= n * TOKEN;
	}
	count_taken(b, now, n);
	return (int) n;
}

/* For those that were not needed; too many do no harm, the bucket spills. */
void
sl_bucket_give_back(SlTokenBucket *b, int n)
{
	b->level += n * TOKEN;
	b->taken = greatest(b->taken - n, 0);
}

int64_t
sl_bucket_wait(SlTokenBucket *b, int cap, int64_t now)
{
	int64_t		rate;

	if (is_free(b, cap, now))
		return 0;
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
	int64_t		rate = is_free(b, cap, now) ? observed_rate(b, now) :
		rate_at(b, cap, now);

	if (b->slowed_to != 0 && now >= b->slowed_at &&
		now - b->slowed_at < SAME_COMPLAINT)
		return;
	b->slowed_from = rate;
	b->slowed_to = greatest(rate / 2, MILLION);
	b->slowed_at = now;
	b->level = least(b->level, 0);
	b->at = now;
}

int64_t
sl_bucket_rate(const SlTokenBucket *b, int cap, int64_t now)
{
	return is_free(b, cap, now) ? 0 : rate_at(b, cap, now) / 1000;
}

int
sl_bucket_is_at_rest(const SlTokenBucket *b, int cap, int64_t now)
{
	SlTokenBucket copy = *b;

	if (cap == 0)
		return is_free(b, cap, now) && now - b->second >= 2 * MILLION;
	fill(&copy, cap, now);
	return rate_at(b, cap, now) == cap * MILLION &&
		copy.level == capacity(cap * MILLION);
}
