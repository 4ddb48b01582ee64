/*-------------------------------------------------------------------------
 *
 * stripe_api.h
 *	  Stripe's conventions on top of HTTP: headers out, verdict in.
 *
 * Knows neither SQL nor libcurl.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_STRIPE_API_H
#define SL_STRIPE_API_H

#include "http_client.h"
#include "retry_policy.h"

/* One call, as it is to go out. */
typedef struct SlStripeCall
{
	const char *method;
	const char *path;
	const char *body;			/* form-encoded; the query of a GET or DELETE */
	const char *idempotency_key;	/* or NULL */
	const char *account;		/* connected account, or NULL */
} SlStripeCall;

/* What came back, apart from the body. */
typedef struct SlStripeAnswer
{
	SlAttemptResult attempt;
	const char *request_id;		/* Stripe's, or NULL; part of the response */
	bool		replayed;		/* repeats what was answered before */
	bool		throttled;		/* the account has had too many requests */
	int64		server_time;	/* Date, in Unix seconds; 0 if it isn't said */
} SlStripeAnswer;

extern bool sl_stripe_request(const SlStripeCall *call, const char *base,
							  const char *version, SlHttpRequest *request);
extern void sl_stripe_answer(const SlHttpResponse *response,
							 SlStripeAnswer *answer);

#endif							/* SL_STRIPE_API_H */
