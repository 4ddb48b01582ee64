/*-------------------------------------------------------------------------
 *
 * operator.c
 *	  SQL functions by which an operator puts right what the worker and the
 *	  state machine leave to a human.
 *
 * Each of them is a row of operator_actions, written in the same transaction:
 * who (the session's role, not the owner of these functions), what, why.  None
 * of them moves a payment by itself: that takes a verified event, and these
 * functions can only have one looked at again (ingest.c).
 *
 * A call is repeated in the one of two ways that cannot charge twice.  While
 * Stripe remembers its key, the same bytes go out under the same key; what
 * Stripe has refused is done under a new key, since the old one would only
 * bring the old refusal back.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "catalog.h"
#include "compat.h"
#include "errors.h"
#include "ingest.h"
#include "outbox.h"
#include "privacy.h"
#include "store.h"
#include "wake.h"

#define MAX_REASON_LENGTH 1000

PG_FUNCTION_INFO_V1(sl_record_action);
PG_FUNCTION_INFO_V1(sl_retry_request);
PG_FUNCTION_INFO_V1(sl_replay_event);
PG_FUNCTION_INFO_V1(sl_resolve_conflict);

static SlQuery payment_of_request = {
	.sql = "SELECT payment_id FROM stripe_lifecycle.api_requests"
	" WHERE id OPERATOR(pg_catalog.=) $1",
	.args = {SL_TYPE_INT8},
};
static SlQuery request_by_id = {
	.sql = "SELECT %s FROM stripe_lifecycle.api_requests"
	" WHERE id OPERATOR(pg_catalog.=) $1 FOR UPDATE",
	.columns_of = SL_REQUESTS,
	.args = {SL_TYPE_INT8},
};
static SlQuery calls_of_operation = {
	.sql = "SELECT pg_catalog.count(*), pg_catalog.max(id)"
	" FROM stripe_lifecycle.api_requests"
	" WHERE payment_id OPERATOR(pg_catalog.=) $1"
	" AND operation OPERATOR(pg_catalog.=) $2",
	.args = {SL_TYPE_UUID, SL_TYPE_TEXT},
};

/* An attempt that Stripe may have carried out without our hearing of it. */
static SlQuery attempt_in_doubt = {
	.sql = "SELECT attempt FROM stripe_lifecycle.api_attempts"
	" WHERE request_id OPERATOR(pg_catalog.=) $1"
	" AND method OPERATOR(pg_catalog.=) 'POST'"
	" AND (result IS NULL OR result IN ('lost', 'unknown')"
	" OR (result OPERATOR(pg_catalog.=) 'retry'"
	" AND coalesce(http_status, 500) OPERATOR(pg_catalog.>=) 500))",
	.args = {SL_TYPE_INT8},
};

/* A look-up that ended with: there is nothing at Stripe. */
static SlQuery found_absent = {
	.sql = "SELECT id FROM stripe_lifecycle.api_requests"
	" WHERE id OPERATOR(pg_catalog.=) $1"
	" AND (last_error OPERATOR(pg_catalog.->>) 'source') OPERATOR(pg_catalog.=) 'lookup'"
	" AND (last_error OPERATOR(pg_catalog.->>) 'code') OPERATOR(pg_catalog.=) 'not_created'",
	.args = {SL_TYPE_INT8},
};

/* ---------- the record ---------- */

/*
 * An argument that explains: NULL, or of a length that one can read and without
 * a card number.
 */
static text *
reason_argument(FunctionCallInfo fcinfo, int n)
{
	text	   *reason;

	if (PG_ARGISNULL(n))
		return NULL;
	reason = PG_GETARG_TEXT_PP(n);
	sl_refuse_card_text("argument", "reason", reason);
	if (pg_mbstrlen_with_len(VARDATA_ANY(reason), VARSIZE_ANY_EXHDR(reason)) >
		MAX_REASON_LENGTH)
		ereport(ERROR,
				(errcode(SL_ERRCODE_ARGUMENT),
				 errmsg("argument \"reason\" must not be longer than %d characters",
						MAX_REASON_LENGTH)));
	return reason;
}

/*
 * Append a row to operator_actions; returns its columns.  request_id is 0,
 * the pointers are NULL where they don't apply.
 */
static SlRow
record_action(const char *action, int64 request_id, const pg_uuid_t *payment_id,
			  const char *event_id, text *reason)
{
	SlRow		row;

	memset(row.nulls, true, sizeof(row.nulls));
	memset(row.values, 0, sizeof(row.values));
	SET(&row, ACT_AT, TimestampTzGetDatum(GetCurrentTimestamp()));
	SET(&row, ACT_ROLE,
		CStringGetTextDatum(GetUserNameFromId(GetOuterUserId(), true)));
	SET(&row, ACT_ACTION, CStringGetTextDatum(action));
	if (request_id != 0)
		SET(&row, ACT_REQUEST_ID, Int64GetDatum(request_id));
	if (payment_id != NULL)
		SET(&row, ACT_PAYMENT_ID, UUIDPGetDatum(payment_id));
	if (event_id != NULL)
		SET(&row, ACT_EVENT_ID, CStringGetTextDatum(event_id));
	if (reason != NULL)
		SET(&row, ACT_REASON, PointerGetDatum(reason));

	if (!sl_insert_new_row(SL_ACTIONS, &row, NULL))
		sl_write_suppressed(SL_ACTIONS);
	return row;
}

/*
 * SQL: record_action(action text, reason text) returns text, the role on
 * whose behalf the session runs.  For the extension's own SQL functions.
 */
Datum
sl_record_action(PG_FUNCTION_ARGS)
{
	text	   *reason = reason_argument(fcinfo, 1);
	char	   *role = GetUserNameFromId(GetOuterUserId(), true);

	sl_require_version();
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(SL_ERRCODE_ARGUMENT),
				 errmsg("argument \"action\" must not be null")));
	SPI_connect();
	(void) record_action(text_to_cstring(PG_GETARG_TEXT_PP(0)), 0, NULL, NULL,
						 reason);
	SPI_finish();
	PG_RETURN_TEXT_P(cstring_to_text(role));
}

/* ---------- requests ---------- */

/* Lock a request and its payment, the payment first as everywhere. */
static void
lock_request(int64 id, SlRow *payment, SlRow *request)
{
	Datum		arg = Int64GetDatum(id);
	bool		isnull;
	Datum		payment_id;

	if (sl_run(&payment_of_request, &arg, NULL, 1) == 0)
		ereport(ERROR,
				(errcode(SL_ERRCODE_UNKNOWN_REQUEST),
				 errmsg("there is no request " INT64_FORMAT, id),
				 errhint("See stripe_lifecycle.dead_requests.")));
	payment_id = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
							   &isnull);
	if (!sl_lock_payment(DatumGetUUIDP(payment_id), payment) ||
		sl_run(&request_by_id, &arg, NULL, 1) == 0)
		ereport(ERROR,
				(errcode(SL_ERRCODE_UNKNOWN_PAYMENT),
				 errmsg("request " INT64_FORMAT " belongs to no payment", id)));
	sl_read_row(SL_REQUESTS, 0, request);
}

static SlState
state_of(const SlRow *payment)
{
	return sl_state_of_oid(DatumGetObjectId(payment->values[PAY_STATE]));
}

/* When a request with this path may go: now, or once its PaymentIntent is. */
static Datum
due_time(const SlRow *payment, const SlRow *request)
{
	bool		waits = payment->nulls[PAY_PAYMENT_INTENT_ID] &&
		strstr(TextDatumGetCString(request->values[REQ_PATH]),
			   SL_INTENT_PLACEHOLDER) != NULL;

	return TimestampTzGetDatum(waits ? DT_NOEND : GetCurrentTimestamp());
}

/*
 * Nobody knows what became of it.  As long as Stripe remembers the key, the
 * same bytes under the same key bring the answer, and do no more than that if
 * they were carried out before.
 */
static int64
send_unknown_again(const SlRow *payment, SlRow *request)
{
	int64		id = DatumGetInt64(request->values[REQ_ID]);

	if (!request->nulls[REQ_FIRST_SENT_AT] &&
		DatumGetTimestampTz(request->values[REQ_FIRST_SENT_AT]) <
		GetCurrentTimestamp() - SL_RETRY_WINDOW_MS * 1000)
		ereport(ERROR,
				(errcode(SL_ERRCODE_KEY_EXPIRED),
				 errmsg("request " INT64_FORMAT " was first sent too long ago to be sent again", id),
				 errdetail("Stripe may have forgotten its idempotency key, so it could be carried out twice."),
				 errhint("A look-up at Stripe decides what became of it.  See the payment in Stripe's Dashboard.")));

	SET(request, REQ_STATUS, sl_status_datum(SL_REQUEST_QUEUED));
	SET(request, REQ_NEXT_ATTEMPT_AT, due_time(payment, request));
	SET_NULL(request, REQ_FINISHED_AT);
	SET_NULL(request, REQ_LOOKUP_AT);
	SET_NULL(request, REQ_LOOKUP_CURSOR);
	sl_update_row(SL_REQUESTS, request, NULL);
	return id;
}

static void
refuse_retry(int64 id, const char *why, const char *what_to_do)
{
	ereport(ERROR,
			(errcode(SL_ERRCODE_NOT_RETRYABLE),
			 errmsg("request " INT64_FORMAT " cannot be sent again: %s", id, why),
			 errhint("%s", what_to_do)));
}

/*
 * Is it certain that a rejected creation made no PaymentIntent?  A look-up
 * that found none says so.  A refusal does if no earlier attempt may have got
 * through, since some refusals come before Stripe looks at the key; but not an
 * error of Stripe's own (5xx), nor 409, which can mean that another call with
 * that key was under way.
 */
static bool
made_nothing(const SlRow *request)
{
	int			http_status = request->nulls[REQ_HTTP_STATUS] ? 0 :
		DatumGetInt32(request->values[REQ_HTTP_STATUS]);

	if (sl_run(&found_absent, &request->values[REQ_ID], NULL, 1) > 0)
		return true;
	return http_status >= 400 && http_status <= 499 && http_status != 409 &&
		sl_run(&attempt_in_doubt, &request->values[REQ_ID], NULL, 1) == 0;
}

/* May what was refused be asked for anew? */
static void
check_refused(const SlRow *payment, const SlRow *request, const char *operation)
{
	int64		id = DatumGetInt64(request->values[REQ_ID]);
	SlState		state = state_of(payment);

	/* what is failed here may still have to be canceled there */
	if (state == SL_STATE_SUCCEEDED ||
		(state == SL_STATE_FAILED && strcmp(operation, "cancel") != 0))
		ereport(ERROR,
				(errcode(SL_ERRCODE_PAYMENT_FINISHED),
				 errmsg("cannot %s a payment that has %s", operation,
						sl_state_name(state)),
				 errhint("Create another payment.")));
	if (strcmp(operation, "create") != 0)
		return;
	if (!payment->nulls[PAY_PAYMENT_INTENT_ID])
		refuse_retry(id, "the payment has a PaymentIntent already",
					 "Use confirm_payment() with another payment method.");
	if (!made_nothing(request))
		refuse_retry(id, "no answer of Stripe's proves that there is no PaymentIntent",
					 "Look for the payment in Stripe's Dashboard, then create another one.");
}

/* A new request of the same wish, under a new key; returns its id. */
static int64
ask_anew(const SlRow *payment, const SlRow *request, const char *operation)
{
	Datum		args[2] = {payment->values[PAY_ID],
	request->values[REQ_OPERATION]};
	int64		id = DatumGetInt64(request->values[REQ_ID]);
	int64		ncalls;
	SlRow		row = *request;
	bool		isnull;
	int			i;

	(void) sl_run(&calls_of_operation, args, NULL, 1);
	ncalls = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
										 SPI_tuptable->tupdesc, 1, &isnull));
	if (DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
									SPI_tuptable->tupdesc, 2, &isnull)) != id)
		refuse_retry(id, psprintf("a later %s took its place", operation),
					 "See the payment's later requests in stripe_lifecycle.api_requests.");

	/* the wish is kept, what became of it is not */
	for (i = 0; i < sl_table_ncols(SL_REQUESTS); i++)
		if (i > REQ_STRIPE_ACCOUNT)
			SET_NULL(&row, i);
	SET(&row, REQ_IDEMPOTENCY_KEY,
		CStringGetTextDatum(psprintf("stripe_lifecycle-%s-%s-" INT64_FORMAT,
									 DatumGetCString(DirectFunctionCall1(uuid_out, args[0])),
									 operation, ncalls + 1)));
	SET(&row, REQ_CREATED_AT, TimestampTzGetDatum(GetCurrentTimestamp()));
	SET(&row, REQ_STATUS, sl_status_datum(SL_REQUEST_QUEUED));
	SET(&row, REQ_ATTEMPTS, Int32GetDatum(0));
	SET(&row, REQ_NEXT_ATTEMPT_AT, due_time(payment, request));
	if (!sl_insert_new_row(SL_REQUESTS, &row, NULL))
		sl_write_suppressed(SL_REQUESTS);
	return DatumGetInt64(row.values[REQ_ID]);
}

/*
 * SQL: retry_request(request_id bigint, reason text) returns bigint, the id
 * of the request that will be sent.  Errors: SL040, SL041, SL042, SL018.
 */
Datum
sl_retry_request(PG_FUNCTION_ARGS)
{
	text	   *reason = reason_argument(fcinfo, 1);
	int64		id = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT64(0);
	int64		sent = 0;
	SlRow		payment;
	SlRow		request;
	char	   *operation;

	sl_require_version();
	sl_require_writable("retry_request()");
	SPI_connect();
	lock_request(id, &payment, &request);
	operation = TextDatumGetCString(request.values[REQ_OPERATION]);
	switch (sl_status_of_oid(DatumGetObjectId(request.values[REQ_STATUS])))
	{
		case SL_REQUEST_UNKNOWN:
			sent = send_unknown_again(&payment, &request);
			break;
		case SL_REQUEST_REJECTED:
			check_refused(&payment, &request, operation);
			sent = ask_anew(&payment, &request, operation);
			break;
		case SL_REQUEST_SUCCEEDED:
			refuse_retry(id, "it has succeeded", "There is nothing to be done.");
			break;
		default:
			refuse_retry(id, "it is still under way",
						 "The worker repeats it by itself.");
	}
	(void) record_action("retry_request", id,
						 DatumGetUUIDP(payment.values[PAY_ID]), NULL, reason);
	sl_wake_at_commit();
	SPI_finish();
	PG_RETURN_INT64(sent);
}

/* ---------- events ---------- */

/* Look at an event again, and record that it was done. */
static Datum
event_again(FunctionCallInfo fcinfo, SlAgain how, const char *action, text *reason)
{
	char	   *event_id = PG_ARGISNULL(0) ? pstrdup("") :
		text_to_cstring(PG_GETARG_TEXT_PP(0));
	pg_uuid_t	payment_id;
	bool		has_payment;
	const char *outcome;

	if (!PG_ARGISNULL(0))
		sl_refuse_card_text("argument", "event_id", PG_GETARG_TEXT_PP(0));
	SPI_connect();
	outcome = sl_ingest_again(event_id, how, &has_payment, &payment_id);
	(void) record_action(action, 0, has_payment ? &payment_id : NULL, event_id,
						 reason);
	SPI_finish();
	return PointerGetDatum(cstring_to_text(outcome));
}

/*
 * SQL: replay_event(event_id text, reason text) returns text, the outcome.
 * Errors: SL043, SL044, SL027.
 */
Datum
sl_replay_event(PG_FUNCTION_ARGS)
{
	sl_require_version();
	sl_require_writable("replay_event()");
	return event_again(fcinfo, SL_AGAIN_JUDGE, "replay_event",
					   reason_argument(fcinfo, 1));
}

/*
 * SQL: resolve_conflict(event_id text, action text, reason text) returns
 * text, the outcome.  Errors: SL015, SL043, SL044, SL027.
 */
Datum
sl_resolve_conflict(PG_FUNCTION_ARGS)
{
	char	   *action = PG_ARGISNULL(1) ? pstrdup("") :
		text_to_cstring(PG_GETARG_TEXT_PP(1));
	bool		accept = strcmp(action, "accept") == 0;

	sl_require_version();
	sl_require_writable("resolve_conflict()");
	if (!accept && strcmp(action, "dismiss") != 0)
		ereport(ERROR,
				(errcode(SL_ERRCODE_ARGUMENT),
				 errmsg("argument \"action\" must be accept or dismiss"),
				 errhint("accept applies what the event says although it contradicts the payment; dismiss leaves the payment as it is.")));
	return event_again(fcinfo, accept ? SL_AGAIN_ACCEPT : SL_AGAIN_DISMISS,
					   accept ? "accept_event" : "dismiss_event",
					   reason_argument(fcinfo, 2));
}
