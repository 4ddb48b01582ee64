/*-------------------------------------------------------------------------
 *
 * test_retry_policy.c
 *	  What an answer means and how long to wait, as tables.
 *
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "retry_policy.h"

#define HOUR		(INT64_C(3600) * 1000)
#define WINDOW		(23 * HOUR)
#define NO_HEADER	(-1)

static const char *
outcome_name(SlOutcome outcome)
{
	switch (outcome)
	{
		case SL_OUTCOME_SUCCEEDED:
			return "succeeded";
		case SL_OUTCOME_REJECTED:
			return "rejected";
		case SL_OUTCOME_RETRY:
			return "retry";
		case SL_OUTCOME_UNKNOWN:
			return "unknown";
	}
	return "?";
}

static SlOutcome
classify(int transport_failed, int status, int should_retry,
		 int64_t retry_after_ms, int body_complete, int64_t elapsed)
{
	SlAttemptResult result;

	result.transport_failed = transport_failed;
	result.http_status = status;
	result.should_retry = should_retry;
	result.retry_after_ms = retry_after_ms;
	result.body_complete = body_complete;
	result.replayed = 0;
	return sl_retry_classify(&result, elapsed);
}

#define CHECK_OUTCOME(actual, expected) \
	CHECK_STR(outcome_name(actual), outcome_name(expected))

/* ---- what an answer means ---- */

/* Each status with Stripe-Should-Retry absent, false and true. */
static const struct
{
	int			status;
	SlOutcome	absent;
	SlOutcome	no;
	SlOutcome	yes;
}			statuses[] = {
	{200, SL_OUTCOME_SUCCEEDED, SL_OUTCOME_SUCCEEDED, SL_OUTCOME_SUCCEEDED},
	{201, SL_OUTCOME_SUCCEEDED, SL_OUTCOME_SUCCEEDED, SL_OUTCOME_SUCCEEDED},
	{299, SL_OUTCOME_SUCCEEDED, SL_OUTCOME_SUCCEEDED, SL_OUTCOME_SUCCEEDED},
	{300, SL_OUTCOME_REJECTED, SL_OUTCOME_REJECTED, SL_OUTCOME_RETRY},
	{302, SL_OUTCOME_REJECTED, SL_OUTCOME_REJECTED, SL_OUTCOME_RETRY},
	{399, SL_OUTCOME_REJECTED, SL_OUTCOME_REJECTED, SL_OUTCOME_RETRY},
	{400, SL_OUTCOME_REJECTED, SL_OUTCOME_REJECTED, SL_OUTCOME_RETRY},
	{401, SL_OUTCOME_REJECTED, SL_OUTCOME_REJECTED, SL_OUTCOME_RETRY},
	{402, SL_OUTCOME_REJECTED, SL_OUTCOME_REJECTED, SL_OUTCOME_RETRY},
	{403, SL_OUTCOME_REJECTED, SL_OUTCOME_REJECTED, SL_OUTCOME_RETRY},
	{404, SL_OUTCOME_REJECTED, SL_OUTCOME_REJECTED, SL_OUTCOME_RETRY},
	{408, SL_OUTCOME_REJECTED, SL_OUTCOME_REJECTED, SL_OUTCOME_RETRY},
	{410, SL_OUTCOME_REJECTED, SL_OUTCOME_REJECTED, SL_OUTCOME_RETRY},
	{424, SL_OUTCOME_REJECTED, SL_OUTCOME_REJECTED, SL_OUTCOME_RETRY},
	{499, SL_OUTCOME_REJECTED, SL_OUTCOME_REJECTED, SL_OUTCOME_RETRY},
	{409, SL_OUTCOME_RETRY, SL_OUTCOME_UNKNOWN, SL_OUTCOME_RETRY},
	{429, SL_OUTCOME_RETRY, SL_OUTCOME_UNKNOWN, SL_OUTCOME_RETRY},
	{500, SL_OUTCOME_RETRY, SL_OUTCOME_UNKNOWN, SL_OUTCOME_RETRY},
	{501, SL_OUTCOME_RETRY, SL_OUTCOME_UNKNOWN, SL_OUTCOME_RETRY},
	{502, SL_OUTCOME_RETRY, SL_OUTCOME_UNKNOWN, SL_OUTCOME_RETRY},
	{503, SL_OUTCOME_RETRY, SL_OUTCOME_UNKNOWN, SL_OUTCOME_RETRY},
	{504, SL_OUTCOME_RETRY, SL_OUTCOME_UNKNOWN, SL_OUTCOME_RETRY},
	{599, SL_OUTCOME_RETRY, SL_OUTCOME_UNKNOWN, SL_OUTCOME_RETRY},

	/* no final status is no answer, whatever else seems to have come */
	{0, SL_OUTCOME_RETRY, SL_OUTCOME_RETRY, SL_OUTCOME_RETRY},
	{-1, SL_OUTCOME_RETRY, SL_OUTCOME_RETRY, SL_OUTCOME_RETRY},
	{100, SL_OUTCOME_RETRY, SL_OUTCOME_RETRY, SL_OUTCOME_RETRY},
	{199, SL_OUTCOME_RETRY, SL_OUTCOME_RETRY, SL_OUTCOME_RETRY},
	{600, SL_OUTCOME_RETRY, SL_OUTCOME_RETRY, SL_OUTCOME_RETRY},
	{INT32_MAX, SL_OUTCOME_RETRY, SL_OUTCOME_RETRY, SL_OUTCOME_RETRY},
	{INT32_MIN, SL_OUTCOME_RETRY, SL_OUTCOME_RETRY, SL_OUTCOME_RETRY},
};

static void
test_statuses(void)
{
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(statuses); i++)
	{
		int			status = statuses[i].status;
		int			body;

		for (body = 0; body <= 1; body++)
		{
			/* only a success needs its body */
			bool		replay = body == 0 && status >= 200 && status < 300;
			SlOutcome	absent = replay ? SL_OUTCOME_RETRY : statuses[i].absent;
			SlOutcome	no = replay ? SL_OUTCOME_RETRY : statuses[i].no;
			SlOutcome	yes = replay ? SL_OUTCOME_RETRY : statuses[i].yes;

			unit_case("status %d, body %d", status, body);
			CHECK_OUTCOME(classify(0, status, -1, NO_HEADER, body, 0), absent);
			CHECK_OUTCOME(classify(0, status, 0, NO_HEADER, body, 0), no);
			CHECK_OUTCOME(classify(0, status, 1, NO_HEADER, body, 0), yes);

			/* a broken transfer is no answer, whatever it began with */
			CHECK_OUTCOME(classify(1, status, -1, NO_HEADER, body, 0),
						  SL_OUTCOME_RETRY);
			CHECK_OUTCOME(classify(1, status, 0, NO_HEADER, body, 0),
						  SL_OUTCOME_RETRY);
		}
	}
	unit_case(NULL);
}

/* ---- the window ---- */

static void
test_window(void)
{
	static const struct
	{
		const char *name;
		int64_t		elapsed;
		int64_t		retry_after;
		SlOutcome	expected;
	}			cases[] = {
		{"first answer", 0, NO_HEADER, SL_OUTCOME_RETRY},
		{"a clock set back", -5, NO_HEADER, SL_OUTCOME_RETRY},
		{"a clock set far back", INT64_MIN, NO_HEADER, SL_OUTCOME_RETRY},
		{"last millisecond", WINDOW - 1, NO_HEADER, SL_OUTCOME_RETRY},
		{"its end", WINDOW, NO_HEADER, SL_OUTCOME_UNKNOWN},
		{"after it", WINDOW + 1, NO_HEADER, SL_OUTCOME_UNKNOWN},
		{"at 24 hours", 24 * HOUR, NO_HEADER, SL_OUTCOME_UNKNOWN},
		{"long after", INT64_MAX, NO_HEADER, SL_OUTCOME_UNKNOWN},
		/* the pause is in the time already: a header changes nothing */
		{"Retry-After before the end", WINDOW - 1, INT64_MAX, SL_OUTCOME_RETRY},
		{"Retry-After at the end", WINDOW, 0, SL_OUTCOME_UNKNOWN},
		{"nonsense is none", WINDOW - 1, INT64_MIN, SL_OUTCOME_RETRY},
	};
	size_t		i;

	CHECK_INT(SL_RETRY_WINDOW_MS, WINDOW);
	for (i = 0; i < UNIT_LENGTH(cases); i++)
	{
		unit_case("window: %s", cases[i].name);
		CHECK_OUTCOME(classify(0, 503, -1, cases[i].retry_after, 1,
							   cases[i].elapsed), cases[i].expected);
		CHECK_OUTCOME(classify(1, 0, -1, cases[i].retry_after, 0,
							   cases[i].elapsed), cases[i].expected);
		CHECK_OUTCOME(classify(0, 200, -1, cases[i].retry_after, 0,
							   cases[i].elapsed), cases[i].expected);
		CHECK_OUTCOME(classify(0, 400, 1, cases[i].retry_after, 1,
							   cases[i].elapsed), cases[i].expected);

		/* an answer is an answer at any time */
		CHECK_OUTCOME(classify(0, 200, -1, cases[i].retry_after, 1,
							   cases[i].elapsed), SL_OUTCOME_SUCCEEDED);
		CHECK_OUTCOME(classify(0, 402, -1, cases[i].retry_after, 1,
							   cases[i].elapsed), SL_OUTCOME_REJECTED);
		CHECK_OUTCOME(classify(0, 500, 0, cases[i].retry_after, 1,
							   cases[i].elapsed), SL_OUTCOME_UNKNOWN);
	}
	unit_case(NULL);
}

/* ---- answers from Stripe's memory ---- */

static SlOutcome
classify_replay(int status, int should_retry, int body_complete, int64_t elapsed)
{
	SlAttemptResult result = {0, status, should_retry, NO_HEADER, body_complete, 1};

	return sl_retry_classify(&result, elapsed);
}

static void
test_replays(void)
{
	int			status;

	/* a saved server error is the same for ever, unless Stripe says otherwise */
	for (status = 500; status < 600; status++)
	{
		unit_case("replayed %d", status);
		CHECK_OUTCOME(classify_replay(status, -1, 1, 0), SL_OUTCOME_UNKNOWN);
		CHECK_OUTCOME(classify_replay(status, -1, 0, 0), SL_OUTCOME_UNKNOWN);
		CHECK_OUTCOME(classify_replay(status, 0, 1, 0), SL_OUTCOME_UNKNOWN);
		CHECK_OUTCOME(classify_replay(status, 1, 1, 0), SL_OUTCOME_RETRY);
		CHECK_OUTCOME(classify_replay(status, 1, 1, WINDOW), SL_OUTCOME_UNKNOWN);
	}
	unit_case("replayed, other statuses");
	CHECK_OUTCOME(classify_replay(200, -1, 1, 0), SL_OUTCOME_SUCCEEDED);
	CHECK_OUTCOME(classify_replay(200, -1, 1, WINDOW), SL_OUTCOME_SUCCEEDED);
	CHECK_OUTCOME(classify_replay(200, -1, 0, 0), SL_OUTCOME_RETRY);
	CHECK_OUTCOME(classify_replay(402, -1, 1, 0), SL_OUTCOME_REJECTED);
	CHECK_OUTCOME(classify_replay(400, -1, 1, 0), SL_OUTCOME_REJECTED);
	CHECK_OUTCOME(classify_replay(409, -1, 1, 0), SL_OUTCOME_RETRY);
	CHECK_OUTCOME(classify_replay(429, -1, 1, 0), SL_OUTCOME_RETRY);
	unit_case(NULL);
}

/* ---- what Stripe's SDKs were seen to do with the same answers ---- */

static void
test_sdk_cases(void)
{
	static const struct
	{
		const char *name;
		int			transport_failed;
		int			status;
		int			should_retry;
		int64_t		retry_after;
		int			body;
		SlOutcome	expected;
	}			cases[] = {
		/* node and python retry these, and so do we */
		{"409 idempotency_key_in_use", 0, 409, -1, NO_HEADER, 1, SL_OUTCOME_RETRY},
		{"500 with a JSON error", 0, 500, -1, NO_HEADER, 1, SL_OUTCOME_RETRY},
		{"503 and Should-Retry true", 0, 503, 1, NO_HEADER, 1, SL_OUTCOME_RETRY},
		{"400 and Should-Retry true", 0, 400, 1, NO_HEADER, 1, SL_OUTCOME_RETRY},
		{"502 with HTML", 0, 502, -1, NO_HEADER, 0, SL_OUTCOME_RETRY},
		{"429 lock_timeout, Should-Retry true, Retry-After", 0, 429, 1, 3000, 1, SL_OUTCOME_RETRY},
		{"connection reset", 1, 0, -1, NO_HEADER, 0, SL_OUTCOME_RETRY},
		{"reset after the status line", 1, 200, -1, NO_HEADER, 0, SL_OUTCOME_RETRY},
		/* none of them retries these */
		{"402", 0, 402, -1, NO_HEADER, 1, SL_OUTCOME_REJECTED},
		{"424", 0, 424, -1, NO_HEADER, 1, SL_OUTCOME_REJECTED},
		{"401", 0, 401, -1, NO_HEADER, 1, SL_OUTCOME_REJECTED},
		{"404", 0, 404, -1, NO_HEADER, 1, SL_OUTCOME_REJECTED},
		/* where they give up and leave the caller in doubt */
		{"500 and Should-Retry false", 0, 500, 0, NO_HEADER, 1, SL_OUTCOME_UNKNOWN},
		{"429 lock_timeout and Should-Retry false", 0, 429, 0, NO_HEADER, 1, SL_OUTCOME_UNKNOWN},
		/* where they give up, and a queue need not */
		{"429 lock_timeout without the header", 0, 429, -1, NO_HEADER, 1, SL_OUTCOME_RETRY},
		{"429 rate_limit and Retry-After", 0, 429, -1, 1000, 1, SL_OUTCOME_RETRY},
		/* a success of which half arrived */
		{"truncated body", 1, 200, -1, NO_HEADER, 0, SL_OUTCOME_RETRY},
		{"body that is no JSON", 0, 200, -1, NO_HEADER, 0, SL_OUTCOME_RETRY},
	};
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(cases); i++)
	{
		unit_case("SDK: %s", cases[i].name);
		CHECK_OUTCOME(classify(cases[i].transport_failed, cases[i].status,
							   cases[i].should_retry, cases[i].retry_after,
							   cases[i].body, 0), cases[i].expected);
		/* whatever would be tried again is not after 23 hours */
		CHECK_OUTCOME(classify(cases[i].transport_failed, cases[i].status,
							   cases[i].should_retry, cases[i].retry_after,
							   cases[i].body, WINDOW),
					  cases[i].expected == SL_OUTCOME_RETRY ? SL_OUTCOME_UNKNOWN :
					  cases[i].expected);
	}
	unit_case(NULL);
}

/*
 * A request's life by a clock that is moved: it is sent until 23 hours are over
 * and never after, however the pauses fall.
 */
static void
test_clock(void)
{
	static const struct
	{
		const char *name;
		SlAttemptResult answer;
		int			attempts;	/* at least */
	}			lives[] = {
		{"500 for ever", {0, 500, 1, -1, 1, 1}, 100},
		{"a truncated body for ever", {1, 200, -1, -1, 0, 0}, 100},
		{"a reset after processing for ever", {1, 0, -1, -1, 0, 0}, 100},
		{"Retry-After of an hour for ever", {0, 429, -1, HOUR, 1, 0}, 23},
	};
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(lives); i++)
	{
		int64_t		clock = 0;
		int			attempt = 0;
		SlOutcome	outcome = SL_OUTCOME_RETRY;

		unit_case("clock: %s", lives[i].name);
		while (outcome == SL_OUTCOME_RETRY)
		{
			int64_t		pause;

			attempt++;
			CHECK(clock < WINDOW);
			pause = sl_retry_delay_ms(attempt, 500, 60000, (uint32_t) attempt * 2654435761u,
									  lives[i].answer.retry_after_ms);
			outcome = sl_retry_classify(&lives[i].answer, clock + pause);
			clock += pause;
		}
		CHECK_OUTCOME(outcome, SL_OUTCOME_UNKNOWN);
		CHECK(clock >= WINDOW);
		CHECK(attempt >= lives[i].attempts);
	}
	unit_case("clock: a saved 500 is asked for twice");
	CHECK_OUTCOME(classify(0, 500, -1, NO_HEADER, 1, 500), SL_OUTCOME_RETRY);
	CHECK_OUTCOME(classify_replay(500, -1, 1, 1500), SL_OUTCOME_UNKNOWN);
	unit_case(NULL);
}

/* ---- the pause ---- */

#define LONGEST		0			/* the random number that gives the longest */
#define SHORTEST	UINT32_MAX

static void
test_pauses(void)
{
	static const struct
	{
		const char *name;
		int			attempt;
		int64_t		base;
		int64_t		max;
		int64_t		shortest;
		int64_t		longest;
	}			cases[] = {
		{"defaults, 1st", 1, 500, 60000, 500, 500},
		{"defaults, 2nd", 2, 500, 60000, 500, 1000},
		{"defaults, 3rd", 3, 500, 60000, 1000, 2000},
		{"defaults, 7th", 7, 500, 60000, 16000, 32000},
		{"defaults, 8th, capped", 8, 500, 60000, 30000, 60000},
		{"defaults, 9th", 9, 500, 60000, 30000, 60000},
		{"defaults, 64th", 64, 500, 60000, 30000, 60000},
		{"defaults, 65th", 65, 500, 60000, 30000, 60000},
		{"most attempts", INT32_MAX, 500, 60000, 30000, 60000},
		{"attempt 0 is the 1st", 0, 500, 60000, 500, 500},
		{"attempt -1", -1, 500, 60000, 500, 500},
		{"least attempts", INT32_MIN, 500, 60000, 500, 500},

		{"long base", 1, 8000, 60000, 4000, 8000},
		{"odd base", 1, 1001, 60000, 501, 1001},
		{"base just over the floor", 1, 501, 60000, 500, 501},
		{"base under the floor", 1, 100, 60000, 100, 100},
		{"base under the floor, 3rd", 3, 100, 60000, 200, 400},
		{"base under the floor, 4th", 4, 100, 60000, 400, 800},
		{"base 1", 1, 1, 60000, 1, 1},
		{"base 1, 11th", 11, 1, 60000, 512, 1024},
		{"base is max", 5, 60000, 60000, 30000, 60000},
		{"max not a power of two", 4, 500, 3000, 1500, 3000},

		{"base 0", 1, 0, 60000, 1, 1},
		{"base 0, 4th", 4, 0, 60000, 4, 8},
		{"negative base", 1, INT64_MIN, 60000, 1, 1},
		{"max 0", 3, 500, 0, 1, 1},
		{"negative max", 3, 500, INT64_MIN, 1, 1},
		{"max below base", 3, 500, 200, 200, 200},
		{"max below base, above the floor", 3, 5000, 2000, 1000, 2000},
		{"huge base", 1, INT64_MAX, 60000, 30000, 60000},
		{"huge max", 1, 500, INT64_MAX, 500, 500},
		{"huge max, many", INT32_MAX, 500, INT64_MAX, WINDOW / 2, WINDOW},
		{"all huge", INT32_MAX, INT64_MAX, INT64_MAX, WINDOW / 2, WINDOW},
	};
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(cases); i++)
	{
		int			attempt = cases[i].attempt;
		int64_t		base = cases[i].base;
		int64_t		max = cases[i].max;

		unit_case("pause: %s", cases[i].name);
		CHECK_INT(sl_retry_delay_ms(attempt, base, max, SHORTEST, NO_HEADER),
				  cases[i].shortest);
		CHECK_INT(sl_retry_delay_ms(attempt, base, max, LONGEST, NO_HEADER),
				  cases[i].longest);
	}
	unit_case(NULL);
}

/* In between, the random number chooses evenly and never leaves the bounds. */
static void
test_jitter(void)
{
	uint32_t	random = 12345;
	int64_t		least = INT64_MAX;
	int64_t		most = 0;
	int64_t		sum = 0;
	int			i;

	for (i = 0; i < 10000; i++)
	{
		int64_t		delay;

		random = random * 1664525u + 1013904223u;
		delay = sl_retry_delay_ms(8, 500, 60000, random, NO_HEADER);
		if (delay < least)
			least = delay;
		if (delay > most)
			most = delay;
		sum += delay;
	}
	CHECK(least >= 30000 && least < 30100);
	CHECK(most <= 60000 && most > 59900);
	CHECK(sum / 10000 > 44500 && sum / 10000 < 45500);

	CHECK_INT(sl_retry_delay_ms(8, 500, 60000, UINT32_MAX / 2, NO_HEADER),
			  45001);
}

static void
test_retry_after(void)
{
	static const struct
	{
		const char *name;
		int64_t		retry_after;
		int64_t		expected;	/* where the pause would be 30 s */
	}			cases[] = {
		{"absent", NO_HEADER, 30000},
		{"nonsense", INT64_MIN, 30000},
		{"now", 0, 30000},
		{"sooner", 29999, 30000},
		{"the same", 30000, 30000},
		{"later", 30001, 30001},
		{"later than the longest pause", 120000, 120000},
		{"just under an hour", HOUR - 1, HOUR - 1},
		{"an hour", HOUR, HOUR},
		{"more than an hour", HOUR + 1, HOUR},
		{"a year", 365 * 24 * HOUR, HOUR},
		{"for ever", INT64_MAX, HOUR},
	};
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(cases); i++)
	{
		unit_case("Retry-After: %s", cases[i].name);
		CHECK_INT(sl_retry_delay_ms(8, 500, 60000, SHORTEST,
									cases[i].retry_after), cases[i].expected);
	}
	unit_case(NULL);

	/* a pause longer than that isn't shortened */
	CHECK_INT(sl_retry_delay_ms(30, 500, 4 * HOUR, LONGEST, HOUR), 4 * HOUR);
}

int
main(void)
{
	test_statuses();
	test_window();
	test_replays();
	test_sdk_cases();
	test_clock();
	test_pauses();
	test_jitter();
	test_retry_after();
	return unit_done();
}
