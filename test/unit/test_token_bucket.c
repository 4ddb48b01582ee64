/*-------------------------------------------------------------------------
 *
 * test_token_bucket.c
 *	  The pace of requests: what any one second sees, and what complaints do.
 *
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "token_bucket.h"

#define SECOND		INT64_C(1000000)
#define MINUTE		(60 * SECOND)

/* Any time will do to begin with. */
#define START		(INT64_C(500000) * SECOND)

#define MAX_SENT	200000

static int64_t sent[MAX_SENT];
static int	nsent;

/* Sends whenever it may, looking every 'step', and notes the times. */
static void
send_for(SlTokenBucket *b, int cap, int64_t from, int64_t until, int64_t step)
{
	int64_t		now;

	for (now = from; now < until; now += step)
	{
		int			n = sl_bucket_take(b, cap, now, 1000000);

		while (n-- > 0 && nsent < MAX_SENT)
			sent[nsent++] = now;
	}
}

/* The most that any second saw, wherever it begins, both ends included. */
static int
busiest_second(void)
{
	int			most = 0;
	int			first = 0;
	int			i;

	for (i = 0; i < nsent; i++)
	{
		while (sent[i] - sent[first] > SECOND)
			first++;
		if (i - first + 1 > most)
			most = i - first + 1;
	}
	return most;
}

/* No second sees more than the cap, and in the long run little less. */
static void
test_cap(void)
{
	static const int caps[] = {1, 2, 7, 10, 19, 20, 25, 99, 100, 1000, 10000};
	static const int64_t steps[] = {1, 100, 1000, 50000, 49999, 333333};
	size_t		i,
				j;

	for (i = 0; i < UNIT_LENGTH(caps); i++)
		for (j = 0; j < UNIT_LENGTH(steps); j++)
		{
			SlTokenBucket b;
			int			cap = caps[i];
			int64_t		seconds = steps[j] < 100 ? 3 : 10;

			unit_case("cap %d, step %" PRId64, cap, steps[j]);
			nsent = 0;
			sl_bucket_init(&b, cap, START);
			send_for(&b, cap, START, START + seconds * SECOND, steps[j]);
			CHECK(busiest_second() <= cap);
			/* whoever looks rarely finds only what the bucket holds */
			if (steps[j] <= 1000)
				CHECK(nsent >= cap * seconds * 9 / 10 - 1);
		}
	unit_case(NULL);
}

/* After a rest a tenth may go at once, and no more than that. */
static void
test_burst(void)
{
	SlTokenBucket b;

	sl_bucket_init(&b, 100, START);
	CHECK_INT(sl_bucket_take(&b, 100, START, 50), 10);
	CHECK_INT(sl_bucket_take(&b, 100, START, 50), 0);
	CHECK_INT(sl_bucket_take(&b, 100, START + MINUTE, 50), 10);

	sl_bucket_init(&b, 1, START);
	CHECK_INT(sl_bucket_take(&b, 1, START, 5), 1);
	CHECK_INT(sl_bucket_take(&b, 1, START + SECOND, 5), 0);
	CHECK_INT(sl_bucket_take(&b, 1, START + SECOND * 10 / 9 + 1, 5), 1);
}

/* What was not needed is there for the next one; it can't be hoarded. */
static void
test_give_back(void)
{
	SlTokenBucket b;

	sl_bucket_init(&b, 100, START);
	CHECK_INT(sl_bucket_take(&b, 100, START, 10), 10);
	sl_bucket_give_back(&b, 4);
	CHECK_INT(sl_bucket_take(&b, 100, START, 10), 4);
	sl_bucket_give_back(&b, 1000);
	CHECK_INT(sl_bucket_take(&b, 100, START, 1000), 10);
	CHECK_INT(sl_bucket_take(&b, 100, START, 0), 0);
	CHECK_INT(sl_bucket_take(&b, 100, START + SECOND, -1), 0);
}

/* Whoever sleeps as long as told finds a token, to the microsecond. */
static void
test_wait(void)
{
	static const int caps[] = {1, 3, 20, 77, 100, 1000, 10000};
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(caps); i++)
	{
		SlTokenBucket b;
		int			cap = caps[i];
		int64_t		now = START;
		int			turn;

		unit_case("cap %d", cap);
		sl_bucket_init(&b, cap, now);
		CHECK_INT(sl_bucket_wait(&b, cap, now), 0);
		(void) sl_bucket_take(&b, cap, now, 1000000);
		for (turn = 0; turn < 100; turn++)
		{
			int64_t		wait = sl_bucket_wait(&b, cap, now);

			CHECK(wait > 0 && wait <= 2 * SECOND / cap + 1);
			CHECK_INT(sl_bucket_take(&b, cap, now + wait - 1, 1), 0);
			now += wait + 1;
			CHECK_INT(sl_bucket_take(&b, cap, now, 1), 1);
		}
	}
	unit_case(NULL);
}

static void
test_slow_down(void)
{
	SlTokenBucket b;
	int64_t		now = START;

	sl_bucket_init(&b, 20, now);
	CHECK_INT(sl_bucket_rate(&b, 20, now), 20000);
	sl_bucket_slow_down(&b, 20, now);
	CHECK_INT(sl_bucket_rate(&b, 20, now), 10000);
	CHECK_INT(sl_bucket_take(&b, 20, now, 5), 0);
	CHECK_INT(sl_bucket_wait(&b, 20, now), SECOND / 9 + 1);

	/* all that were under way complain, too: that counts as one */
	sl_bucket_slow_down(&b, 20, now + 1);
	sl_bucket_slow_down(&b, 20, now + SECOND - 1);
	CHECK(sl_bucket_rate(&b, 20, now + SECOND - 1) >= 10000);

	/* a second later it does not: half of what it has become meanwhile */
	now += SECOND;
	CHECK_INT(sl_bucket_rate(&b, 20, now), 10333);
	sl_bucket_slow_down(&b, 20, now);
	CHECK_INT(sl_bucket_rate(&b, 20, now), 5166);

	/* it grows evenly: half of the cap in half a minute */
	CHECK_INT(sl_bucket_rate(&b, 20, now + 30 * SECOND), 15166);
	CHECK_INT(sl_bucket_rate(&b, 20, now + MINUTE), 20000);
	CHECK_INT(sl_bucket_rate(&b, 20, now + 1000 * MINUTE), 20000);

	/* one a second is the least, else nothing would ever show that it may rise */
	for (; now < START + 40 * SECOND; now += SECOND)
		sl_bucket_slow_down(&b, 20, now);
	CHECK_INT(sl_bucket_rate(&b, 20, now - SECOND), 1000);
	nsent = 0;
	send_for(&b, 20, now, now + MINUTE, 1000);
	CHECK(nsent > 500 && nsent < 650);
	CHECK(busiest_second() <= 20);

	/* a cap that was lowered meanwhile is not exceeded */
	sl_bucket_init(&b, 100, START);
	sl_bucket_slow_down(&b, 100, START);
	CHECK_INT(sl_bucket_rate(&b, 5, START + 1), 5000);
	CHECK_INT(sl_bucket_take(&b, 5, START + MINUTE, 100), 1);
}

/* Takes one every 'step', whatever it may cost, and gives some of them back. */
static void
take_steadily(SlTokenBucket *b, int64_t from, int64_t until, int64_t step)
{
	int64_t		now;

	for (now = from; now < until; now += step)
	{
		CHECK_INT(sl_bucket_take(b, 0, now, 3), 3);
		sl_bucket_give_back(b, 2);
	}
}

/* Without a cap there is no limit, until there is a complaint. */
static void
test_no_cap(void)
{
	SlTokenBucket b;
	int64_t		now = START;

	sl_bucket_init(&b, 0, now);
	CHECK_INT(sl_bucket_rate(&b, 0, now), 0);
	CHECK_INT(sl_bucket_wait(&b, 0, now), 0);
	CHECK_INT(sl_bucket_take(&b, 0, now, 1000000), 1000000);
	CHECK_INT(sl_bucket_take(&b, 0, now, 1000000), 1000000);
	CHECK_INT(sl_bucket_take(&b, 0, now, 0), 0);
	CHECK_INT(sl_bucket_take(&b, 0, now, -1), 0);
	CHECK_INT(sl_bucket_wait(&b, 0, now), 0);

	/* half of what was taken lately, whether that began just now ... */
	sl_bucket_init(&b, 0, now);
	take_steadily(&b, now, now + SECOND / 10, 5000);
	sl_bucket_slow_down(&b, 0, now + SECOND / 10);
	CHECK_INT(sl_bucket_rate(&b, 0, now + SECOND / 10), 10000);

	/* ... or long ago */
	sl_bucket_init(&b, 0, now);
	take_steadily(&b, now, now + 20 * SECOND + SECOND / 2, 5000);
	now += 20 * SECOND + SECOND / 2;
	sl_bucket_slow_down(&b, 0, now);
	CHECK_INT(sl_bucket_rate(&b, 0, now), 100000);
	CHECK_INT(sl_bucket_take(&b, 0, now, 5), 0);
	CHECK(sl_bucket_wait(&b, 0, now) > 0);
	CHECK(!sl_bucket_is_at_rest(&b, 0, now + 10 * SECOND));

	/* all that were under way complain, too: that counts as one */
	sl_bucket_slow_down(&b, 0, now + SECOND - 1);
	CHECK(sl_bucket_rate(&b, 0, now + SECOND) >= 100000);

	/* it may be half of even that, ... */
	now += SECOND;
	sl_bucket_slow_down(&b, 0, now);
	CHECK_INT(sl_bucket_rate(&b, 0, now), 51666);
	nsent = 0;
	send_for(&b, 0, now, now + 10 * SECOND, 1000);
	CHECK(busiest_second() <= 104);
	CHECK(nsent > 400 && nsent < 700);

	/* ... grows from there to what was too much, and is free after a minute */
	CHECK_INT(sl_bucket_rate(&b, 0, now + 59 * SECOND), 103333);
	CHECK_INT(sl_bucket_rate(&b, 0, now + MINUTE), 0);
	CHECK_INT(sl_bucket_take(&b, 0, now + MINUTE, 5000), 5000);
	CHECK(!sl_bucket_is_at_rest(&b, 0, now + MINUTE));
	CHECK(sl_bucket_is_at_rest(&b, 0, now + 2 * MINUTE));
}

/* What a complaint halves stays within reason; so does what comes after it. */
static void
test_no_cap_extremes(void)
{
	SlTokenBucket b;
	int64_t		now;

	/* about calls that were made long ago: nothing is known of their rate */
	sl_bucket_init(&b, 0, START);
	(void) sl_bucket_take(&b, 0, START, 5);
	sl_bucket_slow_down(&b, 0, START + MINUTE);
	CHECK_INT(sl_bucket_rate(&b, 0, START + MINUTE), 5000);

	/* about the very first */
	sl_bucket_init(&b, 0, START);
	(void) sl_bucket_take(&b, 0, START, 1000000000);
	sl_bucket_slow_down(&b, 0, START);
	CHECK_INT(sl_bucket_rate(&b, 0, START), 5000000);

	/* one a second is the least here, too */
	for (now = START; now < START + 40 * SECOND; now += SECOND)
		sl_bucket_slow_down(&b, 0, now);
	CHECK_INT(sl_bucket_rate(&b, 0, now - SECOND), 1000);

	/* a cap that comes or goes meanwhile counts at once */
	CHECK_INT(sl_bucket_rate(&b, 20, now + 2 * MINUTE), 20000);
	sl_bucket_init(&b, 20, START);
	sl_bucket_slow_down(&b, 20, START);
	CHECK_INT(sl_bucket_rate(&b, 0, START), 10000);
	CHECK_INT(sl_bucket_take(&b, 0, START, 5), 0);
	CHECK_INT(sl_bucket_rate(&b, 0, START + MINUTE), 0);

	/* a clock that went back stops nothing */
	sl_bucket_init(&b, 0, START);
	CHECK_INT(sl_bucket_take(&b, 0, START - MINUTE, 5), 5);
	sl_bucket_slow_down(&b, 0, START - MINUTE);
	CHECK(sl_bucket_rate(&b, 0, START - 2 * MINUTE) > 0);
	CHECK_INT(sl_bucket_rate(&b, 0, INT64_MAX), 0);
}

/* What is forgotten at rest comes back as it was. */
static void
test_rest(void)
{
	SlTokenBucket b;

	sl_bucket_init(&b, 20, START);
	CHECK(sl_bucket_is_at_rest(&b, 20, START));
	CHECK_INT(sl_bucket_take(&b, 20, START, 2), 2);
	CHECK(!sl_bucket_is_at_rest(&b, 20, START));
	CHECK(!sl_bucket_is_at_rest(&b, 20, START + SECOND / 20));
	CHECK(sl_bucket_is_at_rest(&b, 20, START + SECOND));
	sl_bucket_slow_down(&b, 20, START);
	CHECK(!sl_bucket_is_at_rest(&b, 20, START + 29 * SECOND));
	CHECK(sl_bucket_is_at_rest(&b, 20, START + MINUTE));
}

/* A clock that went back after all stops nothing for good. */
static void
test_clock(void)
{
	SlTokenBucket b;

	sl_bucket_init(&b, 20, START);
	(void) sl_bucket_take(&b, 20, START, 2);
	CHECK_INT(sl_bucket_take(&b, 20, START - 1000 * MINUTE, 2), 0);
	CHECK_INT(sl_bucket_take(&b, 20, START - 999 * MINUTE, 2), 2);
	sl_bucket_slow_down(&b, 20, START);
	CHECK(sl_bucket_rate(&b, 20, START - 1000 * MINUTE) >= 10000);
	CHECK_INT(sl_bucket_take(&b, 20, INT64_MAX, 2), 2);
}

int
main(void)
{
	test_cap();
	test_burst();
	test_give_back();
	test_wait();
	test_slow_down();
	test_no_cap();
	test_no_cap_extremes();
	test_rest();
	test_clock();
	return unit_done();
}
