/*-------------------------------------------------------------------------
 *
 * lookup.c
 *	  Asks Stripe what became of a request, or how a PaymentIntent stands.
 *
 * A request is "unknown" when nobody can tell whether Stripe carried it out
 * and it must not be sent again.  Only evidence ends that.  If the payment's
 * PaymentIntent is known it is retrieved, and its status tells.  A creation
 * whose answer was lost is searched for in the list of PaymentIntents of that
 * time, by the payment's id in the metadata; a list, not Stripe's search,
 * which lags behind by up to an hour.  What is not there, or not done, counts
 * only if the look began after the last sending can no longer be under way.
 *
 * The same question, asked for another reason: a payment that has not ended
 * after stripe_lifecycle.watch_after is compared with its PaymentIntent.  If
 * the two disagree an event is missing, and reconcile.c is told to read
 * Stripe's events again.  The answer itself moves no payment.
 *
 * A look is repeated at twice the age of the last one, so that what stays as
 * it is costs less and less.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "errors.h"
#include "event_reader.h"
#include "guc.h"
#include "ingest.h"
#include "lookup.h"
#include "pacing.h"
#include "reconcile.h"
#include "settle.h"
#include "subxact.h"

/* Between two looks, what the request's age is kept within. */
#define LOOKUP_PAUSE_MAX_MS		INT64CONST(3600000)
#define WATCH_PAUSE_MAX_MS		(7 * INT64CONST(86400000))

/* Beyond its timeout, how long a call could still be under way to Stripe. */
#define QUIET_MARGIN_MS			60000

/* How far Stripe's clock may be from ours. */
#define CLOCK_MARGIN_S			300

/* A search that began too early to prove that something is absent. */
#define EARLY_MARK				"-"

/* Due rows looked at in one claim; more wait for the next one. */
#define MAX_DUE					64

/* Ended payments forgotten at once. */
#define MAX_ENDED				1000

/* A cancellation that Stripe doesn't carry out is queued again this often. */
#define MAX_CANCELS				5

#define REQUESTS "stripe_lifecycle.api_requests"
#define ATTEMPTS "stripe_lifecycle.api_attempts"

/*
 * One row is taken at a time: looks are rare, and each needs its token.  A
 * search that began too early begins again as soon as that is no longer so:
 * what was given up by $4 can't be under way any more.
 */
#define CLAIM_BY(condition, column) \
	"WITH claimed AS (" \
	" UPDATE " REQUESTS " r SET attempts = r.attempts + 1, " column " = $3," \
	" lookup_cursor = CASE WHEN r.finished_at <= $4" \
	"  AND starts_with(r.lookup_cursor, '" EARLY_MARK "') THEN NULL" \
	"  ELSE r.lookup_cursor END" \
	" WHERE r.id = (SELECT d.id FROM " REQUESTS " d WHERE d.id = $1" \
	" AND " condition " FOR UPDATE SKIP LOCKED)" \
	" RETURNING r.id, r.attempts, r.operation, r.stripe_account," \
	" r.first_sent_at, r.finished_at, r.lookup_cursor," \
	" (SELECT p.payment_intent_id FROM stripe_lifecycle.payments p" \
	"  WHERE p.id = r.payment_id) AS payment_intent_id)," \
	" noted AS (" \
	" INSERT INTO " ATTEMPTS " (request_id, attempt, started_at, method)" \
	" SELECT id, attempts, $2, 'GET' FROM claimed)" \
	" SELECT * FROM claimed"

static SlQuery next_lookup = {
	.sql = "SELECT min(lookup_at) FROM " REQUESTS " WHERE status = 'unknown'",
};
static SlQuery next_watch = {
	.sql = "SELECT min(watch_at) FROM " REQUESTS " WHERE watch_at IS NOT NULL",
};
static SlQuery due_lookups = {
	.sql = "SELECT id, coalesce(stripe_account, '') FROM " REQUESTS
	" WHERE status = 'unknown' AND lookup_at <= $1 ORDER BY lookup_at",
	.args = {SL_TYPE_TIMESTAMPTZ},
};
static SlQuery due_watches = {
	.sql = "SELECT id, coalesce(stripe_account, '') FROM " REQUESTS
	" WHERE watch_at <= $1 ORDER BY watch_at",
	.args = {SL_TYPE_TIMESTAMPTZ},
};
static SlQuery claim_lookup = {
	.sql = CLAIM_BY("d.status = 'unknown' AND d.lookup_at <= $2", "lookup_at"),
	.args = {
		SL_TYPE_INT8, SL_TYPE_TIMESTAMPTZ, SL_TYPE_TIMESTAMPTZ,
		SL_TYPE_TIMESTAMPTZ
	},
};
static SlQuery claim_watch = {
	.sql = CLAIM_BY("d.watch_at <= $2", "watch_at"),
	.args = {
		SL_TYPE_INT8, SL_TYPE_TIMESTAMPTZ, SL_TYPE_TIMESTAMPTZ,
		SL_TYPE_TIMESTAMPTZ
	},
};

/*
 * Payments that have ended need no watching.  Those of the next minute too, so
 * that a worker need not come back for each.
 */
static SlQuery forget_ended = {
	.sql = "UPDATE " REQUESTS " r SET watch_at = NULL, watch_note = NULL"
	" FROM (SELECT d.id FROM " REQUESTS " d"
	"  JOIN stripe_lifecycle.payments p ON p.id = d.payment_id"
	"  WHERE d.watch_at <= $1 AND p.state IN ('succeeded', 'failed')"
	"  ORDER BY d.watch_at LIMIT " CppAsString2(MAX_ENDED) " FOR UPDATE OF d SKIP LOCKED) ended"
	" WHERE r.id = ended.id",
	.args = {SL_TYPE_TIMESTAMPTZ},
};

/*
 * A creation that went out without our mark can't be found in a list: all the
 * metadata that Stripe allows was the caller's.  An event may still tell.  For
 * a request without a payment there is nothing to be found out.
 */
static SlQuery park_unmarked = {
	.sql = "UPDATE " REQUESTS " r SET lookup_at = 'infinity'"
	" WHERE r.status = 'unknown' AND r.lookup_at <= $1"
	" AND (r.operation = 'create' AND strpos(r.body, '[" SL_METADATA_KEY "]=') = 0"
	"  AND NOT EXISTS (SELECT FROM stripe_lifecycle.payments p"
	"   WHERE p.id = r.payment_id AND p.payment_intent_id IS NOT NULL)"
	"  OR NOT EXISTS (SELECT FROM stripe_lifecycle.payments p"
	"   WHERE p.id = r.payment_id))",
	.args = {SL_TYPE_TIMESTAMPTZ},
};
static SlQuery postpone_lookup = {
	.sql = "UPDATE " REQUESTS " SET lookup_at = $2"
	" WHERE id = $1 AND status = 'unknown'",
	.args = {SL_TYPE_INT8, SL_TYPE_TIMESTAMPTZ},
};
static SlQuery postpone_watch = {
	.sql = "UPDATE " REQUESTS " SET watch_at = $2"
	" WHERE id = $1 AND watch_at IS NOT NULL",
	.args = {SL_TYPE_INT8, SL_TYPE_TIMESTAMPTZ},
};
static SlQuery count_cancels = {
	.sql = "SELECT count(*) FROM " REQUESTS
	" WHERE payment_id = $1 AND operation = 'cancel'",
	.args = {SL_TYPE_UUID},
};

/* ---------- claim ---------- */

/*
 * The page of the list to search next: PaymentIntents made between the first
 * sending and the time when the last one can't have been under way any more.
 */
static char *
list_path(TimestampTz first_sent, TimestampTz given_up, const char *cursor)
{
	int64		from = (int64) timestamptz_to_time_t(first_sent) - CLOCK_MARGIN_S;
	int64		to = (int64) timestamptz_to_time_t(given_up) + CLOCK_MARGIN_S +
		(sl_request_timeout + QUIET_MARGIN_MS) / 1000;
	char	   *path;

	path = psprintf("/v1/payment_intents?limit=100&created%%5Bgte%%5D=" INT64_FORMAT
					"&created%%5Blte%%5D=" INT64_FORMAT, from, to);
	if (cursor == NULL)
		return path;
	return psprintf("%s&starting_after=%s", path,
					cursor + (cursor[0] == EARLY_MARK[0] ? 1 : 0));
}

/* Calls that were given up by then can't be under way to Stripe any more. */
static TimestampTz
quiet_since(TimestampTz now)
{
	return TimestampTzPlusMilliseconds(now, -(sl_request_timeout + QUIET_MARGIN_MS));
}

/* The claimed row as a call in 'cxt', added to the others. */
static void
add_call(SlCallKind kind, HeapTuple tuple, TupleDesc desc, MemoryContext cxt,
		 SlClaim *claim)
{
	MemoryContext old = MemoryContextSwitchTo(cxt);
	SlApiCall  *call = palloc0(sizeof(SlApiCall));
	TimestampTz now = GetCurrentTimestamp();
	char	   *intent_id = sl_text_column(tuple, desc, 8);
	bool		isnull;

	call->kind = kind;
	call->request_id = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
	call->attempt = DatumGetInt32(SPI_getbinval(tuple, desc, 2, &isnull));
	call->operation = sl_text_column(tuple, desc, 3);
	call->method = pstrdup("GET");
	call->stripe_account = sl_text_column(tuple, desc, 4);
	call->first_sent_at = sl_time_column(tuple, desc, 5, now);
	if (intent_id != NULL)
		call->path = sl_id_is_plain(intent_id) ?
			psprintf("/v1/payment_intents/%s", intent_id) : pstrdup("");
	else
		call->path = list_path(call->first_sent_at,
							   sl_time_column(tuple, desc, 6, now),
							   sl_text_column(tuple, desc, 7));
	claim->calls = lappend(claim->calls, call);
	MemoryContextSwitchTo(old);
}

/* A look that is due, to be claimed. */
typedef struct Look
{
	SlCallKind	kind;
	int64		request_id;
	TimestampTz now;
	int			lease_ms;
	MemoryContext cxt;			/* of the call */
	SlClaim    *claim;
} Look;

static void
claim_look(void *arg)
{
	Look	   *l = arg;
	Datum		args[4] = {Int64GetDatum(l->request_id), TimestampTzGetDatum(l->now),
		TimestampTzGetDatum(TimestampTzPlusMilliseconds(l->now, l->lease_ms)),
	TimestampTzGetDatum(quiet_since(l->now))};

	if (sl_run(l->kind == SL_CALL_WATCH ? &claim_watch : &claim_lookup, args, NULL, 0) == 1)
		add_call(l->kind, SPI_tuptable->vals[0], SPI_tuptable->tupdesc, l->cxt, l->claim);
}

static void
postpone(SlCallKind kind, int64 request_id)
{
	Datum		args[2] = {Int64GetDatum(request_id),
	TimestampTzGetDatum(TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOOKUP_PAUSE_MAX_MS))};

	(void) sl_run(kind == SL_CALL_WATCH ? &postpone_watch : &postpone_lookup, args,
				  NULL, 0);
}

static void
postpone_look(void *arg)
{
	Look	   *l = arg;

	postpone(l->kind, l->request_id);
}

/*
 * The same where one of the rows is bad: it waits for much longer, or is passed
 * over if not even that can be had.
 */
static void
claim_carefully(Look *l)
{
	ErrorData  *error = sl_try(claim_look, l);

	if (error == NULL)
		return;
	if (!sl_error_is_of_row(error->sqlerrcode))
		ReThrowError(error);
	if (sl_try(postpone_look, l) != NULL)
		l->claim->passed_over = error->sqlerrcode;
	else
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("stripe_lifecycle could not look up request " INT64_FORMAT ": SQLSTATE %s",
						l->request_id, unpack_sql_state(error->sqlerrcode)),
				 errdetail("This is tried again in an hour.")));
}

/* When the first look is due, of requests or of payments. */
static TimestampTz
next_of(SlQuery *query)
{
	(void) sl_run(query, NULL, NULL, 1);
	return sl_time_column(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, DT_NOEND);
}

/*
 * Take due rows, as many as there is room and the pace of their accounts
 * allows.  Returns when to come back for those that have to wait.
 */
static TimestampTz
claim_due(SlCallKind kind, const char *api_key, int room, int lease_ms,
		  MemoryContext cxt, SlClaim *claim)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz wait_until = DT_NOEND;
	Datum		until = TimestampTzGetDatum(now);
	int			n = sl_run(kind == SL_CALL_WATCH ? &due_watches : &due_lookups,
						   &until, NULL, MAX_DUE);
	SPITupleTable *due = SPI_tuptable;
	int			i;

	for (i = 0; i < n && list_length(claim->calls) < room; i++)
	{
		uint64		pace = sl_pacing_id(api_key, sl_text_column(due->vals[i],
															 due->tupdesc, 2));
		int			before = list_length(claim->calls);
		Look		look = {kind, 0, now, lease_ms, cxt, claim};
		bool		isnull;

		if (!sl_pacing_take_one(pace, now, &wait_until))
			continue;
		look.request_id = DatumGetInt64(SPI_getbinval(due->vals[i], due->tupdesc,
													  1, &isnull));
		if (claim->careful)
			claim_carefully(&look);
		else
			claim_look(&look);
		if (list_length(claim->calls) == before)
			sl_pacing_give_back(pace, 1);
	}
	return wait_until;
}

/* Look after rows that need no question to be asked any more: *kind. */
static void
tidy_up(void *kind)
{
	TimestampTz now = GetCurrentTimestamp();
	Datum		until = TimestampTzGetDatum(now + USECS_PER_MINUTE);

	if (*(SlCallKind *) kind == SL_CALL_WATCH)
	{
		while (sl_run(&forget_ended, &until, NULL, 0) == MAX_ENDED)
			CHECK_FOR_INTERRUPTS();
	}
	else
	{
		until = TimestampTzGetDatum(now);
		(void) sl_run(&park_unmarked, &until, NULL, 0);
	}
}

/* The same where one of the rows is bad: it can wait. */
static void
tidy_up_carefully(SlCallKind kind, SlClaim *claim)
{
	ErrorData  *error = sl_try(tidy_up, &kind);

	if (error == NULL)
		return;
	if (!sl_error_is_of_row(error->sqlerrcode))
		ReThrowError(error);
	claim->passed_over = error->sqlerrcode;
}

/* Claim what is due of one kind of look; lowers the time when to come back. */
static void
claim_kind(SlCallKind kind, SlQuery *next, const char *api_key, int room,
		   int lease_ms, MemoryContext cxt, SlClaim *claim)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz wait_until = DT_NOEND;
	TimestampTz due = next_of(next);

	if (due <= now)
	{
		if (claim->careful)
			tidy_up_carefully(kind, claim);
		else
			tidy_up(&kind);
		if (api_key != NULL)
			wait_until = claim_due(kind, api_key, room, lease_ms, cxt, claim);
		due = next_of(next);
	}
	/* what is left has to wait for its pace, or for whoever has it locked */
	if (due <= now && api_key != NULL && list_length(claim->calls) < room)
		due = Min(wait_until, TimestampTzPlusMilliseconds(now, SL_LOCKED_PAUSE_MS));
	claim->next_due = Min(claim->next_due, due);
}

/*
 * Claim looks that are due, until claim->calls has 'room' calls; none without
 * a key.  Lowers claim->next_due.  The calls are in 'cxt'.
 */
void
sl_lookup_claim(const char *api_key, int room, int lease_ms, MemoryContext cxt,
				SlClaim *claim)
{
	claim_kind(SL_CALL_LOOKUP, &next_lookup, api_key, room, lease_ms, cxt, claim);
	claim_kind(SL_CALL_WATCH, &next_watch, api_key, room, lease_ms, cxt, claim);
}

/* ---------- settle ---------- */

static TimestampTz
later(TimestampTz now, TimestampTz since, int64 least_ms, int64 most_ms)
{
	int64		age_ms = (now - since) / 1000;

	return TimestampTzPlusMilliseconds(now, Min(Max(age_ms, least_ms), most_ms));
}

static TimestampTz
given_up_at(const SlRow *request, TimestampTz now)
{
	return request->nulls[REQ_FINISHED_AT] ? now :
		DatumGetTimestampTz(request->values[REQ_FINISHED_AT]);
}

/* Did the look begin when no sending could be under way any more? */
static bool
is_conclusive(const SlRow *request, const SlApiResult *res)
{
	return given_up_at(request, res->started_at) <= quiet_since(res->started_at);
}

/* It remains unknown; look again later, or once a look can be conclusive. */
static void
stay_unknown(SlRow *request, const SlApiResult *res, TimestampTz now)
{
	TimestampTz given_up = given_up_at(request, now);
	TimestampTz when = later(now, given_up, SL_LOOKUP_PAUSE_MS, LOOKUP_PAUSE_MAX_MS);

	if (given_up > quiet_since(now))
		when = Min(when, given_up + (now - quiet_since(now)));

	if (res->attempt.retry_after_ms > 0)
		when = Max(when, TimestampTzPlusMilliseconds(now,
													 Min(res->attempt.retry_after_ms,
														 SL_RETRY_AFTER_MAX_MS)));
	SET(request, REQ_LOOKUP_AT, TimestampTzGetDatum(when));
	sl_update_row(SL_REQUESTS, request, NULL);
}

/* Evidence was found: the request is decided. */
static void
resolve(SlRow *request, SlRequestStatus status, Jsonb *error, TimestampTz now)
{
	SET(request, REQ_STATUS, sl_status_datum(status));
	SET(request, REQ_FINISHED_AT, TimestampTzGetDatum(now));
	SET_NULL(request, REQ_LOOKUP_AT);
	SET_NULL(request, REQ_LOOKUP_CURSOR);
	if (error != NULL)
		SET(request, REQ_LAST_ERROR, JsonbPGetDatum(error));
	sl_update_row(SL_REQUESTS, request, NULL);
}

static void
resolve_rejected(SlRow *payment, SlRow *request, Jsonb *error, TimestampTz now)
{
	sl_show_rejection(payment, error, now);
	resolve(request, SL_REQUEST_REJECTED, error, now);
}

/* A creation: here is its PaymentIntent. */
static void
found_intent(SlRow *payment, SlRow *request, const SlIntent *intent,
			 TimestampTz now)
{
	Jsonb	   *problem = sl_adopt_intent(payment, intent, now);

	SET(request, REQ_WATCH_AT,
		TimestampTzGetDatum(TimestampTzPlusMilliseconds(now, sl_watch_after * INT64CONST(1000))));
	resolve(request, SL_REQUEST_SUCCEEDED, problem, now);
}

/*
 * A page of the list.  Whatever was made meanwhile stands before the pages
 * that were read already, which is why a search that began too early proves
 * nothing by finding nothing.
 */
static void
search_page(SlRow *payment, SlRow *request, const SlList *list,
			const SlApiResult *res, TimestampTz now)
{
	const char *cursor = request->nulls[REQ_LOOKUP_CURSOR] ? NULL :
		TextDatumGetCString(request->values[REQ_LOOKUP_CURSOR]);
	bool		conclusive = cursor == NULL ? is_conclusive(request, res) :
		cursor[0] != EARLY_MARK[0];
	bool		goes_on;
	char	   *last;
	SlIntent	intent;
	int			i;

	for (i = 0; i < list->n; i++)
	{
		if (sl_intent_read(list->items[i], &intent) && intent.has_payment_id &&
			memcmp(&intent.payment_id, DatumGetUUIDP(payment->values[PAY_ID]),
				   UUID_LEN) == 0)
		{
			found_intent(payment, request, &intent, now);
			return;
		}
	}

	SET_NULL(request, REQ_LOOKUP_CURSOR);
	goes_on = sl_list_next(list, &last);
	if (goes_on && last != NULL)
	{
		SET(request, REQ_LOOKUP_CURSOR,
			CStringGetTextDatum(psprintf("%s%s", conclusive ? "" : EARLY_MARK, last)));
		SET(request, REQ_LOOKUP_AT, TimestampTzGetDatum(now));
		sl_update_row(SL_REQUESTS, request, NULL);
	}
	else if (!goes_on || !conclusive)
		stay_unknown(request, res, now);
	else
	{
		sl_reject_waiting(payment, now);
		resolve_rejected(payment, request,
						 sl_error_object("lookup", "not_created",
										 "Stripe has no PaymentIntent of this payment: the call was not carried out"),
						 now);
	}
}

static void
judge_confirmation(SlRow *payment, SlRow *request, const SlIntent *intent,
				   const SlApiResult *res, TimestampTz now)
{
	switch (sl_state_of_status(intent->status))
	{
		case SL_STATE_REQUIRES_ACTION:
		case SL_STATE_PROCESSING:
		case SL_STATE_SUCCEEDED:
			resolve(request, SL_REQUEST_SUCCEEDED, NULL, now);
			break;
		case SL_STATE_FAILED:
			resolve_rejected(payment, request,
							 sl_error_object("lookup", "canceled",
											 "The PaymentIntent has been canceled"),
							 now);
			break;
		case SL_STATE_CREATED:
			if (intent->last_error != NULL)
				resolve_rejected(payment, request, intent->last_error, now);
			else if (is_conclusive(request, res))
				resolve_rejected(payment, request,
								 sl_error_object("lookup", "not_executed",
												 "The PaymentIntent has not been confirmed"),
								 now);
			else
				stay_unknown(request, res, now);
			break;
		case SL_STATE_NONE:
			stay_unknown(request, res, now);
			break;
	}
}

/*
 * A payment that a decline has failed must not be paid any more, so its
 * cancellation is asked for again: as another request, with another key.
 */
static void
cancel_again(const SlRow *payment)
{
	Datum		id = payment->values[PAY_ID];
	bool		isnull;

	if (sl_state_of_oid(DatumGetObjectId(payment->values[PAY_STATE])) !=
		SL_STATE_FAILED)
		return;
	(void) sl_run(&count_cancels, &id, NULL, 1);
	if (DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
									1, &isnull)) < MAX_CANCELS)
		(void) sl_enqueue_cancel(payment, NULL);
}

static void
judge_cancellation(SlRow *payment, SlRow *request, const SlIntent *intent,
				   const SlApiResult *res, TimestampTz now)
{
	SlState		mirrored = sl_state_of_status(intent->status);

	if (mirrored == SL_STATE_FAILED)
		resolve(request, SL_REQUEST_SUCCEEDED, NULL, now);
	else if (mirrored == SL_STATE_SUCCEEDED)
		resolve_rejected(payment, request,
						 sl_error_object("lookup", "succeeded",
										 "The PaymentIntent has succeeded"),
						 now);
	else if (mirrored != SL_STATE_NONE && is_conclusive(request, res))
	{
		resolve_rejected(payment, request,
						 sl_error_object("lookup", "not_executed",
										 "The PaymentIntent has not been canceled"),
						 now);
		cancel_again(payment);
	}
	else
		stay_unknown(request, res, now);
}

/*
 * What the answer says about an unknown request.  Between claim and now an
 * event may have named the PaymentIntent, so the answer's own kind counts.
 */
static void
settle_lookup(const SlApiCall *call, const SlApiResult *res, Jsonb *json,
			  SlRow *payment, SlRow *request, TimestampTz now)
{
	SlIntent	intent;
	SlList		list;

	if (res->outcome != SL_OUTCOME_SUCCEEDED || json == NULL)
	{
		/* the cursor may be what Stripe does not like */
		if (res->outcome == SL_OUTCOME_REJECTED)
			SET_NULL(request, REQ_LOOKUP_CURSOR);
		stay_unknown(request, res, now);
	}
	else if (strcmp(call->operation, "create") == 0 && sl_list_read(json, &list))
	{
		if (payment->nulls[PAY_PAYMENT_INTENT_ID])
			search_page(payment, request, &list, res, now);
		else
		{
			SET(request, REQ_LOOKUP_AT, TimestampTzGetDatum(now));
			sl_update_row(SL_REQUESTS, request, NULL);
		}
	}
	else if (!sl_intent_read(json, &intent))
		stay_unknown(request, res, now);
	else if (strcmp(call->operation, "create") == 0)
		found_intent(payment, request, &intent, now);
	else if (strcmp(call->operation, "confirm") == 0)
		judge_confirmation(payment, request, &intent, res, now);
	else if (strcmp(call->operation, "cancel") == 0)
		judge_cancellation(payment, request, &intent, res, now);
	else
		stay_unknown(request, res, now);
}

/* Does Stripe know more of this payment than we have heard? */
static bool
disagrees(const SlRow *payment, const SlIntent *intent)
{
	SlState		state = sl_state_of_oid(DatumGetObjectId(payment->values[PAY_STATE]));
	SlState		mirrored = sl_state_of_status(intent->status);

	/* a decline leaves no trace in the status */
	if (mirrored == SL_STATE_CREATED && intent->last_error != NULL &&
		strcmp(TextDatumGetCString(payment->values[PAY_DECLINE_POLICY]), "final") == 0)
		mirrored = SL_STATE_FAILED;
	return mirrored != SL_STATE_NONE && mirrored != state;
}

static void
settle_watch(const SlApiResult *res, Jsonb *json, const SlRow *payment,
			 SlRow *request, TimestampTz now)
{
	SlState		state = sl_state_of_oid(DatumGetObjectId(payment->values[PAY_STATE]));
	TimestampTz since = DatumGetTimestampTz(payment->values[PAY_CREATED_AT]);
	char	   *note;
	SlIntent	intent;

	if (state == SL_STATE_SUCCEEDED || state == SL_STATE_FAILED)
	{
		SET_NULL(request, REQ_WATCH_AT);
		SET_NULL(request, REQ_WATCH_NOTE);
		sl_update_row(SL_REQUESTS, request, NULL);
		return;
	}

	if (res->outcome != SL_OUTCOME_SUCCEEDED || json == NULL ||
		!sl_intent_read(json, &intent))
		note = res->transport_error != NULL ?
			psprintf("the PaymentIntent could not be looked at: %s", res->transport_error) :
			psprintf("the PaymentIntent could not be looked at: HTTP status %d",
					 res->attempt.http_status);
	else if (disagrees(payment, &intent))
	{
		note = psprintf("an event is missing: the PaymentIntent's status is %s", intent.status);
		sl_reconcile_rewind(payment);
	}
	else
		note = psprintf("no event is missing: the PaymentIntent's status is %s", intent.status);

	SET(request, REQ_WATCH_AT,
		TimestampTzGetDatum(later(now, since, sl_watch_after * INT64CONST(1000),
								  WATCH_PAUSE_MAX_MS)));
	SET(request, REQ_WATCH_NOTE, CStringGetTextDatum(note));
	sl_update_row(SL_REQUESTS, request, NULL);
}

/*
 * Store what a look found.  Harmless if the claim has been taken over or the
 * request was settled meanwhile.
 */
void
sl_lookup_settle(const SlApiCall *call, const SlApiResult *res)
{
	TimestampTz now = GetCurrentTimestamp();
	Jsonb	   *json = NULL;
	SlApiError	err;
	SlRow		payment;
	SlRow		request;
	bool		ok;

	if (res->body != NULL && !res->attempt.transport_failed)
		json = sl_json_parse(res->body, res->body_len, &ok);
	(void) sl_api_error_read(json, call->operation, res->attempt.http_status, &err);
	sl_record_attempt(call, res, res->outcome, &err, now);

	if (!sl_lock_request(call, &payment, &request))
		return;
	if (call->kind == SL_CALL_WATCH && !request.nulls[REQ_WATCH_AT])
		settle_watch(res, json, &payment, &request, now);
	else if (call->kind == SL_CALL_LOOKUP &&
			 sl_status_of_oid(DatumGetObjectId(request.values[REQ_STATUS])) ==
			 SL_REQUEST_UNKNOWN)
		settle_lookup(call, res, json, &payment, &request, now);
}

/*
 * The answer could not be stored, or the question not be sent.  Ask again much
 * later; the others go on.
 */
void
sl_lookup_set_aside(const SlApiCall *call, const char *sqlstate)
{
	postpone(call->kind, call->request_id);
	sl_close_attempt(call->request_id, call->attempt, sqlstate,
					 "the look-up could not be made or its answer not be stored");
}
