/*-------------------------------------------------------------------------
 *
 * retry_policy.h
 *	  What an answer from Stripe's API means, and when to ask again.
 *
 * Arithmetic only: the caller brings the clock and the random number, so every
 * decision can be tested as a table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_RETRY_POLICY_H
#define SL_RETRY_POLICY_H

#include <stdint.h>

/*
 * Stripe promises to remember an idempotency key for 24 hours and not a second
 * more; after that the same request would be a new one.  The last hour is left
 * for what may lie between a retry's due time and its arrival, and for clocks
 * that differ.
 */
#define SL_RETRY_WINDOW_MS			((int64_t) 23 * 3600 * 1000)

/* The longest pause that a Retry-After header can ask for. */
#define SL_RETRY_AFTER_MAX_MS		((int64_t) 3600 * 1000)

/* The first pause of the official SDKs, and the least of any. */
#define SL_RETRY_FLOOR_MS			((int64_t) 500)

typedef enum SlOutcome
{
	SL_OUTCOME_SUCCEEDED,		/* Stripe did it */
	SL_OUTCOME_REJECTED,		/* Stripe refused it for good */
	SL_OUTCOME_RETRY,			/* ask again: same key, same bytes */
	SL_OUTCOME_UNKNOWN			/* only other evidence can tell; never re-send */
} SlOutcome;

typedef struct SlAttemptResult
{
	int			transport_failed;	/* no whole HTTP answer arrived */
	int			http_status;
	int			should_retry;	/* Stripe-Should-Retry: -1 absent, 0, 1 */
	int64_t		retry_after_ms; /* Retry-After: -1 absent */
	int			body_complete;	/* a whole body that parses as JSON */
	int			replayed;		/* repeats the saved answer to an earlier sending */
} SlAttemptResult;

/*
 * What one attempt means for its request.  ms_since_first_send reaches from the
 * first byte ever sent for it to the moment when a retry would start: now, plus
 * the pause that sl_retry_delay_ms() gives.
 */
extern SlOutcome sl_retry_classify(const SlAttemptResult *result,
								   int64_t ms_since_first_send);

/*
 * The pause before the next attempt, after "attempt" attempts (1 and up):
 * base_ms, doubled for each attempt after the first, at most max_ms, scaled by
 * a factor between a half and one that the random number chooses, but no less
 * than half a second (or base_ms or max_ms, if smaller), and no less than
 * retry_after_ms (-1 for none), of which an hour at most is honoured.
 */
extern int64_t sl_retry_delay_ms(int attempt, int64_t base_ms, int64_t max_ms,
								 uint32_t random, int64_t retry_after_ms);

#endif							/* SL_RETRY_POLICY_H */
