/*-------------------------------------------------------------------------
 *
 * retry_policy.c
 *	  What an answer from Stripe's API means, and when to ask again.
 *
 * The rules are those of Stripe's SDKs and documentation (error-low-level,
 * rate-limits), with the differences that a durable queue needs: it retries
 * for hours instead of seconds, honours Retry-After, and keeps "we don't know"
 * apart from "no", because a request that may have been executed must be
 * settled by evidence, not given up.
 *
 *-------------------------------------------------------------------------
 */
#include "retry_policy.h"

#include <stdbool.h>

/*
 * Statuses that leave open whether the request was, is being or will be
 * executed: 409 says that its first sending is still at work, 429 that this
 * sending was turned away (an earlier one may not have been), 5xx nothing.
 */
static bool
is_open_status(int status)
{
	return status == 409 || status == 429 || status >= 500;
}

/*
 * Not every three digits are an answer: without a final status nobody has said
 * anything about the request.
 */
static bool
is_final_status(int status)
{
	return status >= 200 && status <= 599;
}

/* The outcome as the answer alone tells it. */
static SlOutcome
judge_answer(const SlAttemptResult *result)
{
	int			status = result->http_status;

	if (result->transport_failed || !is_final_status(status))
		return SL_OUTCOME_RETRY;

	/*
	 * A success whose body was lost: asking again with the same key replays
	 * the stored answer.  A header can't turn a success into anything else.
	 */
	if (status < 300)
		return result->body_complete ? SL_OUTCOME_SUCCEEDED : SL_OUTCOME_RETRY;

	if (result->should_retry > 0)
		return SL_OUTCOME_RETRY;
	if (!is_open_status(status))
		return SL_OUTCOME_REJECTED;

	/*
	 * "Don't retry" isn't "it didn't happen".  And a server error that Stripe
	 * has saved under the key stays what it is for as long as the key is
	 * remembered: to ask again says nothing new.
	 */
	if (result->should_retry == 0 || (result->replayed && status >= 500))
		return SL_OUTCOME_UNKNOWN;
	return SL_OUTCOME_RETRY;
}

SlOutcome
sl_retry_classify(const SlAttemptResult *result, int64_t ms_since_first_send)
{
	SlOutcome	outcome = judge_answer(result);

	/* Too late to be sure that Stripe still knows the key. */
	if (outcome == SL_OUTCOME_RETRY &&
		ms_since_first_send >= SL_RETRY_WINDOW_MS)
		return SL_OUTCOME_UNKNOWN;

	return outcome;
}

static int64_t
least(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

int64_t
sl_retry_delay_ms(int attempt, int64_t base_ms, int64_t max_ms,
				  uint32_t random, int64_t retry_after_ms)
{
	int64_t		delay;
	int64_t		floor_ms;
	int64_t		wanted;
	int			i;

	/*
	 * Settings out of range can't make this loop spin or overflow: no pause
	 * is shorter than a millisecond or longer than the window.
	 */
	if (base_ms < 1)
		base_ms = 1;
	if (max_ms < 1)
		max_ms = 1;
	max_ms = least(max_ms, SL_RETRY_WINDOW_MS);

	delay = least(base_ms, max_ms);
	for (i = 1; i < attempt && delay < max_ms; i++)
		delay = least(delay * 2, max_ms);

	/* Jitter, so that requests that failed together don't return together. */
	floor_ms = least(least(base_ms, max_ms), SL_RETRY_FLOOR_MS);
	delay -= (int64_t) ((uint64_t) (delay / 2) * random / UINT32_MAX);
	if (delay < floor_ms)
		delay = floor_ms;

	/* Honoured as a lower bound; absent, it is below any pause. */
	wanted = least(retry_after_ms, SL_RETRY_AFTER_MAX_MS);
	return delay > wanted ? delay : wanted;
}
