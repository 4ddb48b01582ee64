/*-------------------------------------------------------------------------
 *
 * settle.c
 *	  Stores what came of a call to Stripe: in the request, in the record of
 *	  the attempt, and in the payment.
 *
 * An answer to the worker never moves a payment: it brings the
 * PaymentIntent's id and the secret for the customer's browser, or an error
 * to show.  Everything about the state comes by event.
 *
 * Locks are taken in the order of ingest.c, the payment's row first.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "errors.h"
#include "event_reader.h"
#include "guc.h"
#include "ingest.h"
#include "outbox.h"
#include "privacy.h"
#include "reconcile.h"
#include "settle.h"

static SlQuery reject_waiting = {
	.sql = "UPDATE stripe_lifecycle.api_requests"
	" SET status = 'rejected', finished_at = $2, last_error = $3"
	" WHERE payment_id = $1 AND CASE status WHEN 'queued'"	/* as in outbox.c */
	" THEN next_attempt_at = 'infinity' ELSE false END",
	.args = {SL_TYPE_UUID, SL_TYPE_TIMESTAMPTZ, SL_TYPE_JSONB},
};
static SlQuery look_at_request = {
	.sql = "SELECT %s FROM stripe_lifecycle.api_requests WHERE id = $1",
	.columns_of = SL_REQUESTS,
	.args = {SL_TYPE_INT8},
};
static SlQuery lock_request = {
	.sql = "SELECT %s FROM stripe_lifecycle.api_requests WHERE id = $1 FOR UPDATE",
	.columns_of = SL_REQUESTS,
	.args = {SL_TYPE_INT8},
};
static SlQuery finish_attempt = {
	.sql = "UPDATE stripe_lifecycle.api_attempts"
	" SET started_at = $3, finished_at = $4, duration_ms = $5, http_status = $6,"
	" stripe_request_id = $7, result = $8, error = $9, idempotent_replayed = $10"
	" WHERE request_id = $1 AND attempt = $2 AND finished_at IS NULL",
	.args = {
		SL_TYPE_INT8, SL_TYPE_INT4, SL_TYPE_TIMESTAMPTZ, SL_TYPE_TIMESTAMPTZ,
		SL_TYPE_FLOAT8, SL_TYPE_INT4, SL_TYPE_TEXT, SL_TYPE_TEXT,
		SL_TYPE_TEXT, SL_TYPE_BOOL
	},
};
static SlQuery earlier_attempt_in_doubt = {
	.sql = "SELECT 1 FROM stripe_lifecycle.api_attempts"
	" WHERE request_id = $1 AND attempt < $2 AND method = 'POST'"
	" AND (http_status IS NULL OR http_status < 400 OR http_status >= 500)",
	.args = {SL_TYPE_INT8, SL_TYPE_INT4},
};

static bool
state_is_terminal(const SlRow *payment)
{
	SlState		state = sl_state_of_oid(DatumGetObjectId(payment->values[PAY_STATE]));

	return state == SL_STATE_SUCCEEDED || state == SL_STATE_FAILED;
}

/* How an attempt ended, as api_attempts.result has it. */
static const char *
result_label(SlOutcome outcome)
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
			break;
	}
	return "unknown";
}

/* One line for api_attempts.error, redacted; NULL if there is nothing to say. */
static char *
attempt_error(const SlApiResult *res, const SlApiError *err, SlOutcome outcome)
{
	if (res->transport_error != NULL)
		return sl_redacted(res->transport_error);
	if (outcome == SL_OUTCOME_SUCCEEDED)
		return NULL;
	if (err->type != NULL)
		return sl_redacted(psprintf("%s%s%s", err->type, err->code ? ": " : "",
									err->code ? err->code : ""));
	return psprintf("HTTP status %d without a body that could be read",
					res->attempt.http_status);
}

/* Complete the record of an HTTP call. */
void
sl_record_attempt(const SlApiCall *call, const SlApiResult *res,
				  SlOutcome outcome, const SlApiError *err, TimestampTz now)
{
	char	   *error = attempt_error(res, err, outcome);
	Datum		args[10];
	bool		nulls[10] = {false};

	args[0] = Int64GetDatum(call->request_id);
	args[1] = Int32GetDatum(call->attempt);
	args[2] = TimestampTzGetDatum(res->started_at);
	args[3] = TimestampTzGetDatum(now);
	args[4] = Float8GetDatum(res->duration_ms);
	args[5] = Int32GetDatum(res->attempt.http_status);
	nulls[5] = res->attempt.http_status <= 0;
	nulls[6] = res->stripe_request_id == NULL;
	args[6] = nulls[6] ? (Datum) 0 : CStringGetTextDatum(sl_redacted(res->stripe_request_id));
	args[7] = CStringGetTextDatum(result_label(outcome));
	nulls[8] = error == NULL;
	args[8] = nulls[8] ? (Datum) 0 : CStringGetTextDatum(error);
	args[9] = BoolGetDatum(res->replayed);
	(void) sl_run(&finish_attempt, args, nulls, 0);
}

/*
 * Stripe's answer names the PaymentIntent.  Take it and, as long as the
 * payment has not ended, the secret for the customer's browser; nothing else,
 * for the state moves by events.  Returns an error object if the answer
 * contradicts what an event said before.
 */
Jsonb *
sl_adopt_intent(SlRow *payment, const SlIntent *intent, TimestampTz now)
{
	bool		linked;

	if (!payment->nulls[PAY_PAYMENT_INTENT_ID] &&
		strcmp(TextDatumGetCString(payment->values[PAY_PAYMENT_INTENT_ID]),
			   intent->id) != 0)
	{
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("Stripe answered with PaymentIntent \"%s\" for payment %s, which has another",
						intent->id,
						DatumGetCString(DirectFunctionCall1(uuid_out,
															payment->values[PAY_ID]))),
				 errhint("Cancel the PaymentIntent that is not the payment's at Stripe.")));
		return sl_error_object("worker", "second_payment_intent",
							   psprintf("Stripe answered with %s", intent->id));
	}

	linked = sl_link_intent(payment, intent->id, intent->livemode);
	if (intent->client_secret != NULL && !state_is_terminal(payment))
		SET(payment, PAY_CLIENT_SECRET, CStringGetTextDatum(intent->client_secret));
	SET(payment, PAY_UPDATED_AT, TimestampTzGetDatum(now));
	sl_update_row(SL_PAYMENTS, payment, NULL);
	if (linked)
		sl_drain_parked(payment);
	sl_reconcile_account(payment);
	return NULL;
}

/* Show, on a payment that has not ended, why a call was refused for good. */
void
sl_show_rejection(SlRow *payment, Jsonb *error, TimestampTz now)
{
	if (state_is_terminal(payment))
		return;
	SET(payment, PAY_LAST_ERROR, JsonbPGetDatum(error));
	SET(payment, PAY_LAST_ERROR_AT, TimestampTzGetDatum(now));
	SET(payment, PAY_UPDATED_AT, TimestampTzGetDatum(now));
	sl_update_row(SL_PAYMENTS, payment, NULL);
}

/* What waited for a PaymentIntent that will never be is refused with it. */
void
sl_reject_waiting(const SlRow *payment, TimestampTz now)
{
	Datum		args[3] = {payment->values[PAY_ID], TimestampTzGetDatum(now),
		JsonbPGetDatum(sl_error_object("worker", "no_payment_intent",
									   "The PaymentIntent was never created"))};

	(void) sl_run(&reject_waiting, args, NULL, 0);
}

/*
 * Stripe refused for good.  The payment shows the error; its state is for
 * events to move.
 */
static void
take_rejection(SlRow *payment, const SlApiCall *call, const SlApiError *err,
			   TimestampTz now)
{
	bool		is_create = strcmp(call->operation, "create") == 0;

	sl_show_rejection(payment, err->reduced, now);

	/* A declined confirmation still made a PaymentIntent. */
	if (is_create && err->has_intent)
		(void) sl_adopt_intent(payment, &err->intent, now);
	else if (is_create && payment->nulls[PAY_PAYMENT_INTENT_ID])
		sl_reject_waiting(payment, now);
}

/*
 * Stripe checks the key before it looks at the idempotency key, so a refusal
 * of this kind says nothing about an earlier attempt that may have arrived.
 */
static bool
says_nothing_of_earlier(const SlApiCall *call, int http_status)
{
	Datum		args[2] = {Int64GetDatum(call->request_id),
	Int32GetDatum(call->attempt)};

	return (http_status == 401 || http_status == 403) && call->attempt > 1 &&
		sl_run(&earlier_attempt_in_doubt, args, NULL, 1) > 0;
}

/*
 * The final word on an attempt, now that the body was read: a success needs
 * a PaymentIntent in it, and a cancellation refused because the intent is
 * canceled already has reached its goal.
 */
static SlOutcome
final_outcome(const SlApiCall *call, const SlApiResult *res, Jsonb *json,
			  const SlApiError *err, SlIntent *intent)
{
	if (res->outcome == SL_OUTCOME_SUCCEEDED &&
		(json == NULL || !sl_intent_read(json, intent)))
		return SL_OUTCOME_RETRY;
	if (res->outcome == SL_OUTCOME_REJECTED &&
		strcmp(call->operation, "cancel") == 0 &&
		err->has_intent && strcmp(err->intent.status, "canceled") == 0)
	{
		*intent = err->intent;
		return SL_OUTCOME_SUCCEEDED;
	}
	if (res->outcome == SL_OUTCOME_REJECTED &&
		says_nothing_of_earlier(call, res->attempt.http_status))
		return SL_OUTCOME_UNKNOWN;
	return res->outcome;
}

/*
 * When to ask Stripe of its own accord: about a request whose outcome nobody
 * knows, soon; about a new PaymentIntent, once its payment should have ended.
 */
static void
plan_looks(SlRow *request, const SlRow *payment, SlOutcome outcome,
		   TimestampTz now)
{
	bool		is_create = strcmp(TextDatumGetCString(request->values[REQ_OPERATION]),
								   "create") == 0;

	if (outcome == SL_OUTCOME_UNKNOWN)
	{
		SET(request, REQ_LOOKUP_AT,
			TimestampTzGetDatum(TimestampTzPlusMilliseconds(now, SL_LOOKUP_PAUSE_MS)));
		/* of a search before this sending */
		request->nulls[REQ_LOOKUP_CURSOR] = true;
	}
	else if (outcome != SL_OUTCOME_RETRY && is_create &&
			 !payment->nulls[PAY_PAYMENT_INTENT_ID] && !state_is_terminal(payment))
		SET(request, REQ_WATCH_AT,
			TimestampTzGetDatum(TimestampTzPlusMilliseconds(now, sl_watch_after * INT64CONST(1000))));
}

static void
write_request(SlRow *request, const SlRow *payment, const SlApiResult *res,
			  SlOutcome outcome, Jsonb *error, TimestampTz now)
{
	static const SlRequestStatus status_of[] = {
		[SL_OUTCOME_SUCCEEDED] = SL_REQUEST_SUCCEEDED,
		[SL_OUTCOME_REJECTED] = SL_REQUEST_REJECTED,
		[SL_OUTCOME_RETRY] = SL_REQUEST_QUEUED,
		[SL_OUTCOME_UNKNOWN] = SL_REQUEST_UNKNOWN
	};
	int64		delay = res->retry_delay_ms > 0 ? res->retry_delay_ms :
		SL_RETRY_FLOOR_MS;

	SET(request, REQ_STATUS, sl_status_datum(status_of[outcome]));
	if (outcome == SL_OUTCOME_RETRY)
		SET(request, REQ_NEXT_ATTEMPT_AT,
			TimestampTzGetDatum(TimestampTzPlusMilliseconds(now, delay)));
	else
		SET(request, REQ_FINISHED_AT, TimestampTzGetDatum(now));
	if (res->attempt.http_status > 0)
		SET(request, REQ_HTTP_STATUS, Int32GetDatum(res->attempt.http_status));
	if (res->stripe_request_id != NULL)
		SET(request, REQ_STRIPE_REQUEST_ID,
			CStringGetTextDatum(sl_redacted(res->stripe_request_id)));
	if (error != NULL)
		SET(request, REQ_LAST_ERROR, JsonbPGetDatum(error));
	plan_looks(request, payment, outcome, now);
	sl_update_row(SL_REQUESTS, request, NULL);
}

/*
 * Lock the request and its payment, the payment first as everywhere.  False if
 * the claim has been taken over meanwhile.
 */
bool
sl_lock_request(const SlApiCall *call, SlRow *payment, SlRow *request)
{
	Datum		id = Int64GetDatum(call->request_id);

	return sl_find_row(SL_REQUESTS, REQ_ID, id, &look_at_request, request) &&
		sl_lock_payment(DatumGetUUIDP(request->values[REQ_PAYMENT_ID]), payment) &&
		sl_lock_row(SL_REQUESTS, REQ_ID, id, &lock_request, request) &&
		DatumGetInt32(request->values[REQ_ATTEMPTS]) == call->attempt;
}

/*
 * Store what came of a call.  Harmless if the claim has been taken over
 * meanwhile: then only the attempt's own record is completed.
 */
void
sl_outbox_settle(const SlApiCall *call, const SlApiResult *res)
{
	TimestampTz now = GetCurrentTimestamp();
	Jsonb	   *json = NULL;
	Jsonb	   *problem = NULL;
	SlApiError	err;
	SlIntent	intent;
	SlOutcome	outcome;
	SlRow		payment;
	SlRow		request;
	bool		ok;

	if (res->body != NULL && !res->attempt.transport_failed)
		json = sl_json_parse(res->body, res->body_len, &ok);
	(void) sl_api_error_read(json, call->operation, res->attempt.http_status, &err);
	outcome = final_outcome(call, res, json, &err, &intent);
	sl_record_attempt(call, res, outcome, &err, now);

	if (!sl_lock_request(call, &payment, &request) ||
		sl_status_of_oid(DatumGetObjectId(request.values[REQ_STATUS])) !=
		SL_REQUEST_IN_FLIGHT)
		return;

	if (outcome == SL_OUTCOME_SUCCEEDED)
	{
		if (strcmp(call->operation, "create") == 0)
			problem = sl_adopt_intent(&payment, &intent, now);
	}
	else
	{
		problem = res->transport_error == NULL ? err.reduced :
			sl_error_object("transport", NULL, res->transport_error);
		if (outcome == SL_OUTCOME_REJECTED)
			take_rejection(&payment, call, &err, now);
	}
	write_request(&request, &payment, res, outcome, problem, now);
}
