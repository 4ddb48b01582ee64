/*-------------------------------------------------------------------------
 *
 * outbox.h
 *	  The queue of calls to Stripe: enqueue, claim, settle.
 *
 * All functions run in the caller's transaction with an open SPI connection
 * and a pinned search_path.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_OUTBOX_H
#define SL_OUTBOX_H

#include "nodes/pg_list.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "retry_policy.h"
#include "store.h"

/* Stands in a request's path for the payment's PaymentIntent id. */
#define SL_INTENT_PLACEHOLDER "{payment_intent}"

/* A request whose outcome is unknown is first looked up after this pause. */
#define SL_LOOKUP_PAUSE_MS	10000

/* What a call is for. */
typedef enum SlCallKind
{
	SL_CALL_SEND,				/* the request itself */
	SL_CALL_LOOKUP,				/* what became of an unknown one? */
	SL_CALL_WATCH,				/* how does its PaymentIntent stand? */
	SL_CALL_EVENTS				/* a page of Stripe's events; no request's */
} SlCallKind;

/* A claimed request, ready to be sent; strings in the claimer's context. */
typedef struct SlApiCall
{
	SlCallKind	kind;
	int64		request_id;
	int			attempt;
	char	   *operation;
	char	   *method;
	char	   *path;			/* placeholder filled in */
	char	   *body;			/* this and the next NULL for a GET */
	char	   *idempotency_key;
	char	   *stripe_account; /* or NULL */
	TimestampTz first_sent_at;
	bool		is_orphan;		/* the payment does not exist: not to be sent */
} SlApiCall;

/* An account with something in the queue. */
typedef struct SlDueAccount
{
	char	   *name;			/* "": the API key's own */
	TimestampTz due;			/* of its first request */
} SlDueAccount;

/* What came of sending it. */
typedef struct SlApiResult
{
	SlAttemptResult attempt;
	SlOutcome	outcome;
	int64		retry_delay_ms; /* used if outcome is retry */
	const char *transport_error;	/* short constant-like text, or NULL */
	const char *stripe_request_id;	/* or NULL */
	bool		replayed;
	int64		server_time;	/* Stripe's clock, Unix seconds; 0: not said */
	double		duration_ms;
	TimestampTz started_at;
	char	   *body;			/* may be NULL */
	size_t		body_len;
} SlApiResult;

/* for the functions that applications call */
extern int64 sl_enqueue(const SlRow *payment, const char *operation,
						const char *path, const char *body);
extern int64 sl_enqueue_cancel(const SlRow *payment, const char *reason);

/* for ingest */
extern void sl_release_waiting(const pg_uuid_t *payment_id);

/* for the worker */
extern List *sl_outbox_accounts(void);
extern List *sl_outbox_claim(const char *account, int limit, int lease_ms,
							 MemoryContext cxt, bool careful, int *passed_over);
extern void sl_outbox_set_aside(int64 request_id, int attempt,
								const char *sqlstate, const char *message);
extern void sl_close_attempt(int64 request_id, int attempt,
							 const char *sqlstate, const char *message);
extern void sl_outbox_recover(void);
extern TimestampTz sl_outbox_next_due(const char *account);

#endif							/* SL_OUTBOX_H */
