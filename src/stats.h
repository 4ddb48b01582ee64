/*-------------------------------------------------------------------------
 *
 * stats.h
 *	  Counters per database: calls to Stripe, webhooks, workers.
 *
 * Everything here does nothing where the library is not preloaded, since
 * there is no shared memory to count in then.  None of it can fail.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_STATS_H
#define SL_STATS_H

#include "datatype/timestamp.h"

#include "rejections.h"
#include "retry_policy.h"

/* In the order of the columns of stats(), which health.c relies on. */
typedef enum SlCounter
{
	SL_COUNT_ATTEMPTS,
	SL_COUNT_SUCCEEDED,
	SL_COUNT_REJECTED,
	SL_COUNT_RETRY,
	SL_COUNT_UNKNOWN,
	SL_COUNT_RETRIES,
	SL_COUNT_TRANSPORT_ERRORS,
	SL_COUNT_HTTP_2XX,
	SL_COUNT_HTTP_4XX,			/* without 429 */
	SL_COUNT_HTTP_429,
	SL_COUNT_HTTP_5XX,

	SL_COUNT_WEBHOOK_FIRST,
	SL_COUNT_WEBHOOK_APPLIED = SL_COUNT_WEBHOOK_FIRST,
	SL_COUNT_WEBHOOK_RECORDED,
	SL_COUNT_WEBHOOK_STALE,
	SL_COUNT_WEBHOOK_CONFLICT,
	SL_COUNT_WEBHOOK_UNMATCHED,
	SL_COUNT_WEBHOOK_IGNORED,
	SL_COUNT_WEBHOOK_DUPLICATE,

	SL_COUNT_REFUSED_FIRST,
	SL_COUNT_REFUSED_BAD_SIGNATURE = SL_COUNT_REFUSED_FIRST,
	SL_COUNT_REFUSED_STALE,
	SL_COUNT_REFUSED_MALFORMED,
	SL_COUNT_REFUSED_TOO_LARGE,
	SL_COUNT_REFUSED_BAD_BODY,
	SL_COUNT_REFUSED_BAD_EVENT,
	SL_COUNT_REFUSED_NO_SECRET,
	SL_COUNT_REFUSED_WRONG_MODE,
	SL_COUNT_REFUSED_UNAVAILABLE,
	SL_COUNT_REFUSED_FAILED,

	SL_COUNT_WORKER_STARTS,
	SL_COUNT_WORKER_FAILURES,
	SL_COUNTERS
} SlCounter;

/*
 * Latencies by powers of two, in milliseconds: bucket 0 is below 1, bucket i
 * is from 2^(i-1) to below 2^i, the last one has no upper bound.
 */
#define SL_LATENCY_BUCKETS 21

#define SL_STATS_ERROR_MAX 32

/* A database's numbers, as they are read out. */
typedef struct SlStats
{
	TimestampTz since;			/* counting began */
	TimestampTz last_success;	/* 0: never */
	TimestampTz last_error_at;	/* 0: never */
	TimestampTz last_webhook;	/* 0: never */
	char		last_error[SL_STATS_ERROR_MAX];
	uint64		counters[SL_COUNTERS];
	uint64		latency[SL_LATENCY_BUCKETS];
} SlStats;

/* from _PG_init */
extern void sl_stats_init(void);

/* the worker */
extern void sl_stats_attempt(SlOutcome outcome, int http_status,
							 double duration_ms, int attempt);
extern void sl_stats_error(const char *sqlstate_or_class);
extern void sl_stats_worker_started(void);
extern void sl_stats_worker_failed(void);

/* whoever takes in webhooks */
extern void sl_stats_webhook(const char *outcome);
extern void sl_stats_webhook_refused(SlRefusal why);

/* health.c */
extern bool sl_stats_read(SlStats *out);

#endif							/* SL_STATS_H */
