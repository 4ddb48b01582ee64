/*-------------------------------------------------------------------------
 *
 * test_rate_limit.c
 *	  Token buckets: what passes, and that nobody gains by crowding.
 *
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "rate_limit.h"

#define SECOND INT64_C(1000000)

/* Any time will do to begin with. */
#define START (INT64_C(777) * SECOND)

static uint64_t
random64(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* How many of 'tries' at one moment pass. */
static int
burst_of(SlRateSet *set, uint64_t key, SlRate rate, int64_t now, int tries)
{
	int			passed = 0;

	while (tries-- > 0)
		passed += sl_rate_take(set, key, rate, now) == 0;
	return passed;
}

static void
test_rates(void)
{
	static const struct
	{
		double		per_second;
		int			burst;
		int64_t		interval;
		int			wanted_burst;
	}			cases[] = {
		{1, 1, SECOND, 1},
		{10, 20, SECOND / 10, 20},
		{0.5, 5, 2 * SECOND, 5},
		{3, 1, 333333, 1},
		{1e6, 7, 1, 7},
		{1e9, 7, 1, 7},
		{1e-9, 1000000, 86400 * SECOND, 1000000},
		{1e-300, 1, 86400 * SECOND, 1},
		{1, 0, SECOND, 1},
		{1, -5, SECOND, 1},
	};
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(cases); i++)
	{
		SlRate		rate = sl_rate_of(cases[i].per_second, cases[i].burst);

		unit_case("%g/s, %d", cases[i].per_second, cases[i].burst);
		CHECK_INT(rate.interval, cases[i].interval);
		CHECK_INT(rate.burst, cases[i].wanted_burst);
	}
	unit_case(NULL);
}

/* After a rest the burst and no more; then one for every interval. */
static void
test_one_bucket(void)
{
	static const int bursts[] = {1, 2, 20, 1000};
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(bursts); i++)
	{
		SlRateSet	set = {0};
		SlRate		rate = sl_rate_of(10, bursts[i]);
		int64_t		now = START;
		int			n;

		unit_case("burst %d", bursts[i]);
		CHECK_INT(burst_of(&set, 5, rate, now, bursts[i] + 10), bursts[i]);
		for (n = 0; n < 50; n++)
		{
			int64_t		wait = sl_rate_take(&set, 5, rate, now);

			CHECK(wait > 0 && wait <= rate.interval);
			CHECK(sl_rate_take(&set, 5, rate, now + wait - 1) > 0);
			now += wait;
			CHECK_INT(sl_rate_take(&set, 5, rate, now), 0);
		}
		now += rate.interval * bursts[i];
		CHECK_INT(burst_of(&set, 5, rate, now, bursts[i] + 10), bursts[i]);
		/* a rest that is longer gains nothing */
		now += 1000 * SECOND;
		CHECK_INT(burst_of(&set, 5, rate, now, bursts[i] + 10), bursts[i]);
	}
	unit_case(NULL);
}

/* In any stretch of time no more than the burst and what came in passes. */
static void
test_bound(void)
{
	static int64_t passed[20000];
	SlRateSet	set = {0};
	SlRate		rate = sl_rate_of(50, 10);
	uint64_t	seed = 42;
	int64_t		now = START;
	int			n = 0;
	int			i;
	int			j;

	while (n < 2000)
	{
		now += (int64_t) (random64(&seed) % 20000);
		if (sl_rate_take(&set, 9, rate, now) == 0)
			passed[n++] = now;
	}
	for (i = 0; i < n; i += 7)
		for (j = i; j < n; j += 13)
			CHECK(j - i + 1 <= rate.burst + (passed[j] - passed[i]) / rate.interval + 1);
	/* and in the long run it is used up */
	CHECK(n >= (now - START) / rate.interval - 1);
}

/* Others' buckets are others', as long as there is room. */
static void
test_neighbours(void)
{
	SlRateSet	set = {0};
	SlRate		rate = sl_rate_of(1, 3);
	uint64_t	key;

	for (key = 1; key <= SL_RATE_WAYS; key++)
		CHECK_INT(burst_of(&set, key, rate, START, 10), 3);
	for (key = 1; key <= SL_RATE_WAYS; key++)
		CHECK_INT(burst_of(&set, key, rate, START + SECOND, 10), 1);
	/* at rest again, so that as many others find room */
	for (key = 101; key <= 100 + SL_RATE_WAYS; key++)
		CHECK_INT(burst_of(&set, key, rate, START + 10 * SECOND, 10), 3);
}

/*
 * One client with many addresses that all fall into one set: all of them
 * together get no more than the set's buckets hold, and coming back under an
 * old address gains nothing.
 */
static void
test_crowding(void)
{
	SlRateSet	set = {0};
	SlRate		rate = sl_rate_of(1, 5);
	int			passed = 0;
	uint64_t	key;
	int			round;

	CHECK_INT(burst_of(&set, 7, rate, START, 10), 5);
	for (key = 1000; key < 3000; key++)
		passed += burst_of(&set, key, rate, START, 3);
	CHECK_INT(passed, 5 * (SL_RATE_WAYS - 1));
	CHECK_INT(burst_of(&set, 7, rate, START, 10), 0);

	/* the flood goes on for a minute: one per bucket and second */
	passed = 0;
	for (round = 1; round <= 60; round++)
		for (key = 5000; key < 5200; key++)
			passed += burst_of(&set, key, rate, START + round * SECOND, 2);
	CHECK_INT(passed, 60 * SL_RATE_WAYS);
}

/* At random: pushing out and coming back never leaves anybody with less debt. */
static void
test_no_gain(void)
{
	SlRate		rate = sl_rate_of(7, 4);
	uint64_t	seed = 4711;
	int			game;

	for (game = 0; game < 200; game++)
	{
		SlRateSet	set = {0};
		int64_t		debt[40] = {0};
		int64_t		now = START;
		int			i;

		for (i = 0; i < 500; i++)
		{
			uint64_t	key = 1 + random64(&seed) % 39;

			now += (int64_t) (random64(&seed) % 30000);
			if (sl_rate_take(&set, key, rate, now) == 0)
			{
				/* a bucket of one's own would have let it pass, too */
				debt[key] = (debt[key] > now ? debt[key] : now) + rate.interval;
				CHECK(debt[key] - now <= rate.interval * rate.burst);
			}
		}
	}
}

/* Settings change under way: nobody is locked out for longer than now allowed. */
static void
test_reload(void)
{
	SlRateSet	set = {0};
	SlRate		slow = sl_rate_of(0.001, 100);
	SlRate		fast = sl_rate_of(100, 10);

	CHECK_INT(burst_of(&set, 3, slow, START, 1000), 100);
	CHECK(sl_rate_take(&set, 3, fast, START) <= fast.interval);
	CHECK_INT(sl_rate_take(&set, 3, fast, START + fast.interval), 0);
	CHECK_INT(burst_of(&set, 3, fast, START + SECOND, 100), 10);
}

/* The widest settings overflow nothing (UBSan would say). */
static void
test_extremes(void)
{
	SlRateSet	set = {0};
	SlRate		rate = sl_rate_of(1e-9, 1000000);
	int64_t		late = INT64_C(1) << 60;

	CHECK_INT(sl_rate_take(&set, UINT64_MAX, rate, 0), 0);
	CHECK_INT(sl_rate_take(&set, UINT64_MAX, rate, late), 0);
	CHECK_INT(burst_of(&set, 1, sl_rate_of(1e6, 1), late, 2), 1);
}

int
main(void)
{
	test_rates();
	test_one_bucket();
	test_bound();
	test_neighbours();
	test_crowding();
	test_no_gain();
	test_reload();
	test_extremes();
	return unit_done();
}
