/*-------------------------------------------------------------------------
 *
 * reconcile.c
 *	  Reads Stripe's own list of events, for webhooks that never came.
 *
 * A run pages through GET /v1/events, from the newest event back to a little
 * before the cursor, and hands each event of ours to the same ingestion as a
 * webhook, with source "events_api": it came over TLS in answer to our key,
 * which proves it as a signature does.  Events can come in any order and any
 * number of times, so nothing is lost by reading some twice.
 *
 * One page is one transaction, which also stores how far the run has come: a
 * crash costs a page.  Each event has a subtransaction of its own.  One that
 * the database refuses is noted and the others go on, as does the cursor.
 * From time to time a run begins where the first of those stands; the pauses
 * grow as they get older, so that one event that can never be taken in neither
 * has all the others read again in every run nor fills the log.
 *
 * Stripe lists events for 30 days.  Whatever was not read by then is beyond
 * reach; such a gap is written down and stays until an operator removes it.
 *
 * Times of events are Stripe's, and so is the cursor: a run that is complete
 * has seen what there was when its first page was made, by the clock of the
 * server that made it.
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
#include "pacing.h"
#include "reconcile.h"
#include "subxact.h"

#define SOURCE "events_api"

/* Each run begins this much before the cursor. */
#define OVERLAP_US			(5 * USECS_PER_MINUTE)

/* How long Stripe lists an event. */
#define RETENTION_US		(30 * USECS_PER_DAY)

/* Pauses after a page that could not be had. */
#define PAUSE_MIN_MS		10000
#define PAUSE_MAX_MS		3600000

/* Before what could not be taken in is tried again: its age, within these. */
#define RETRY_MIN_MS		10000
#define RETRY_MAX_MS		(24 * INT64CONST(3600000))

#define STATE_TABLE "stripe_lifecycle.reconcile_state"

/* When an account is due; $1 is the interval. */
#define DUE "coalesce(due_at," \
	" least(coalesce(last_finished_at, since) + $1 * interval '1 s', retry_at))"

/* reconcile_state, as far as a run needs it; the order of read_run. */
#define RUN_COLUMNS \
	"account, since, cursor_created, rewind_to, run_started_at, run_gte," \
	" run_after, run_newest, run_failed, run_pages, failures, in_flight," \
	" run_failures, failing, failing_since, retry_from, retry_at"

typedef struct Run
{
	char	   *account;		/* "": the key's own */
	TimestampTz since;
	TimestampTz cursor;			/* these may be absent: DT_NOBEGIN */
	TimestampTz rewind_to;
	TimestampTz started_at;
	TimestampTz gte;
	char	   *after;			/* NULL before the first page */
	TimestampTz newest;
	TimestampTz failed;			/* DT_NOBEGIN: none */
	int			pages;
	int			failures;
	bool		in_flight;
	int			nfailed;		/* events that it could not take in */
	int			failing;		/* of all runs: how many of these are left, ... */
	TimestampTz failing_since;
	TimestampTz retry_from;		/* ... where the first of them is, ... */
	TimestampTz retry_at;		/* ... and when to try it again */
	Jsonb	   *problem;		/* to be stored in last_error, or NULL */
} Run;

static SlQuery add_account = {
	.sql = "INSERT INTO " STATE_TABLE " (account, since)"
	" VALUES (coalesce($1, ''), $2) ON CONFLICT DO NOTHING",
	.args = {SL_TYPE_TEXT, SL_TYPE_TIMESTAMPTZ},
};
static SlQuery rewind_account = {
	.sql = "UPDATE " STATE_TABLE " SET rewind_to = least(rewind_to, $2),"
	" due_at = CASE WHEN run_started_at IS NULL AND failures = 0"
	" THEN $3 ELSE due_at END"
	" WHERE account = coalesce($1, '')",
	.args = {SL_TYPE_TEXT, SL_TYPE_TIMESTAMPTZ, SL_TYPE_TIMESTAMPTZ},
};
static SlQuery next_due = {
	.sql = "SELECT min(" DUE ") FROM " STATE_TABLE,
	.args = {SL_TYPE_INT4},
};
static SlQuery due_accounts = {
	.sql = "SELECT " RUN_COLUMNS " FROM " STATE_TABLE
	" WHERE " DUE " <= $2 ORDER BY " DUE " FOR UPDATE SKIP LOCKED",
	.args = {SL_TYPE_INT4, SL_TYPE_TIMESTAMPTZ},
};
static SlQuery lock_account = {
	.sql = "SELECT " RUN_COLUMNS " FROM " STATE_TABLE
	" WHERE account = $1 FOR UPDATE",
	.args = {SL_TYPE_TEXT},
};
static SlQuery oldest_payment = {
	.sql = "SELECT min(created_at), min(created_at) FILTER (WHERE finished_at IS NULL)"
	" FROM stripe_lifecycle.payments WHERE coalesce(stripe_account, '') = $1",
	.args = {SL_TYPE_TEXT},
};
static SlQuery begin_run = {
	.sql = "UPDATE " STATE_TABLE " SET run_started_at = $2, run_gte = $3,"
	" run_after = NULL, run_newest = NULL, run_failed = NULL, run_pages = 0,"
	" run_failures = 0, rewind_to = NULL, last_error = NULL, retry_from = $6,"
	" gap_from = least(gap_from, $4), gap_to = greatest(gap_to, $5)"
	" WHERE account = $1",
	.args = {
		SL_TYPE_TEXT, SL_TYPE_TIMESTAMPTZ, SL_TYPE_TIMESTAMPTZ,
		SL_TYPE_TIMESTAMPTZ, SL_TYPE_TIMESTAMPTZ, SL_TYPE_TIMESTAMPTZ
	},
};
static SlQuery lease_page = {
	.sql = "UPDATE " STATE_TABLE " SET in_flight = true, due_at = $2"
	" WHERE account = $1",
	.args = {SL_TYPE_TEXT, SL_TYPE_TIMESTAMPTZ},
};
static SlQuery fail_page = {
	.sql = "UPDATE " STATE_TABLE " SET in_flight = false, failures = failures + 1,"
	" due_at = $2, last_error = $3, run_after = CASE WHEN $4 THEN NULL ELSE run_after END"
	" WHERE account = $1",
	.args = {SL_TYPE_TEXT, SL_TYPE_TIMESTAMPTZ, SL_TYPE_JSONB, SL_TYPE_BOOL},
};
static SlQuery store_page = {
	.sql = "UPDATE " STATE_TABLE " SET in_flight = false, failures = 0, due_at = $2,"
	" run_after = $3, run_newest = $4, run_failed = $5, run_pages = run_pages + 1,"
	" last_error = coalesce($6, last_error), run_failures = $7,"
	" failing_error = coalesce($6, failing_error)"
	" WHERE account = $1",
	.args = {
		SL_TYPE_TEXT, SL_TYPE_TIMESTAMPTZ, SL_TYPE_TEXT, SL_TYPE_TIMESTAMPTZ,
		SL_TYPE_TIMESTAMPTZ, SL_TYPE_JSONB, SL_TYPE_INT4
	},
};
static SlQuery end_run = {
	.sql = "UPDATE " STATE_TABLE " SET run_started_at = NULL, run_gte = NULL,"
	" run_after = NULL, run_newest = NULL, run_failed = NULL,"
	" cursor_created = $2, proven_until = least($2, $6), last_finished_at = $3,"
	" due_at = CASE WHEN rewind_to IS NULL THEN NULL ELSE $3 END,"
	" failing = $4, failing_since = $5, retry_from = $6, retry_at = $7,"
	" failing_error = CASE WHEN $6 IS NOT NULL THEN failing_error END"
	" WHERE account = $1",
	.args = {
		SL_TYPE_TEXT, SL_TYPE_TIMESTAMPTZ, SL_TYPE_TIMESTAMPTZ, SL_TYPE_INT4,
		SL_TYPE_TIMESTAMPTZ, SL_TYPE_TIMESTAMPTZ, SL_TYPE_TIMESTAMPTZ
	},
};
static SlQuery recover = {
	.sql = "UPDATE " STATE_TABLE " SET in_flight = false, due_at = $1"
	" WHERE in_flight",
	.args = {SL_TYPE_TIMESTAMPTZ},
};

/* Ours, and not here yet? */
static SlQuery is_wanted = {
	.sql = "SELECT 1 WHERE NOT EXISTS (SELECT FROM stripe_lifecycle.webhook_events"
	" WHERE event_id = $1)"
	" AND (EXISTS (SELECT FROM stripe_lifecycle.payments WHERE payment_intent_id = $2)"
	" OR EXISTS (SELECT FROM stripe_lifecycle.payments WHERE id = $3))",
	.args = {SL_TYPE_TEXT, SL_TYPE_TEXT, SL_TYPE_UUID},
};

/* ---------- which accounts, from when ---------- */

/*
 * Stripe has told us of a PaymentIntent of this payment: its account has
 * events from now on.  Without any there is nothing to read, ever.
 */
void
sl_reconcile_account(const SlRow *payment)
{
	Datum		args[2] = {payment->values[PAY_STRIPE_ACCOUNT],
	TimestampTzGetDatum(GetCurrentTimestamp())};
	bool		nulls[2] = {payment->nulls[PAY_STRIPE_ACCOUNT], false};

	(void) sl_run(&add_account, args, nulls, 0);
}

/*
 * An event of this payment is missing: the next run begins where the payment
 * was last heard of, and soon.
 */
void
sl_reconcile_rewind(const SlRow *payment)
{
	bool		heard = !payment->nulls[PAY_LAST_EVENT_CREATED];
	Datum		args[3] = {payment->values[PAY_STRIPE_ACCOUNT],
		payment->values[heard ? PAY_LAST_EVENT_CREATED : PAY_CREATED_AT],
	TimestampTzGetDatum(GetCurrentTimestamp())};
	bool		nulls[3] = {payment->nulls[PAY_STRIPE_ACCOUNT], false, false};

	sl_reconcile_account(payment);
	(void) sl_run(&rewind_account, args, nulls, 0);
}

static void
read_run(HeapTuple tuple, TupleDesc desc, Run *run)
{
	bool		isnull;

	memset(run, 0, sizeof(*run));
	run->account = sl_text_column(tuple, desc, 1);
	run->since = sl_time_column(tuple, desc, 2, DT_NOBEGIN);
	run->cursor = sl_time_column(tuple, desc, 3, DT_NOBEGIN);
	run->rewind_to = sl_time_column(tuple, desc, 4, DT_NOBEGIN);
	run->started_at = sl_time_column(tuple, desc, 5, DT_NOBEGIN);
	run->gte = sl_time_column(tuple, desc, 6, DT_NOBEGIN);
	run->after = sl_text_column(tuple, desc, 7);
	run->newest = sl_time_column(tuple, desc, 8, DT_NOBEGIN);
	run->failed = sl_time_column(tuple, desc, 9, DT_NOBEGIN);
	run->pages = DatumGetInt32(SPI_getbinval(tuple, desc, 10, &isnull));
	run->failures = DatumGetInt32(SPI_getbinval(tuple, desc, 11, &isnull));
	run->in_flight = DatumGetBool(SPI_getbinval(tuple, desc, 12, &isnull));
	run->nfailed = DatumGetInt32(SPI_getbinval(tuple, desc, 13, &isnull));
	run->failing = DatumGetInt32(SPI_getbinval(tuple, desc, 14, &isnull));
	run->failing_since = sl_time_column(tuple, desc, 15, DT_NOBEGIN);
	run->retry_from = sl_time_column(tuple, desc, 16, DT_NOBEGIN);
	run->retry_at = sl_time_column(tuple, desc, 17, DT_NOBEGIN);
}

static void
announce_gap(TimestampTz from, TimestampTz to)
{
	char	   *first = pstrdup(timestamptz_to_str(from));

	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("stripe_lifecycle cannot read Stripe's events from %s to %s any more",
					first, timestamptz_to_str(to)),
			 errdetail("Stripe keeps events for 30 days.  Webhooks that were missed in that time are lost."),
			 errhint("Look at stripe_lifecycle.stuck_payments; the gap stays in stripe_lifecycle.reconcile_state until you remove it there.")));
}

/* A parameter that may be absent. */
static void
set_time(Datum *args, bool *nulls, int i, TimestampTz t)
{
	args[i] = TimestampTzGetDatum(t);
	nulls[i] = t == DT_NOBEGIN;
}

/*
 * Where a new run begins.  The first one of an account begins with its oldest
 * payment.  What had not ended before Stripe's memory begins is beyond reach.
 */
static void
start_run(Run *run, TimestampTz now)
{
	Datum		args[6] = {CStringGetTextDatum(run->account), TimestampTzGetDatum(now)};
	bool		nulls[6] = {false};
	TimestampTz reach = now - RETENTION_US;
	TimestampTz begin = run->cursor;
	TimestampTz doubtful = run->cursor;

	if (run->cursor == DT_NOBEGIN)
	{
		(void) sl_run(&oldest_payment, args, NULL, 1);
		begin = sl_time_column(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, DT_NOBEGIN);
		doubtful = sl_time_column(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, DT_NOBEGIN);
	}
	if (run->rewind_to != DT_NOBEGIN)
		begin = Min(begin, run->rewind_to);
	if (run->retry_from != DT_NOBEGIN && run->retry_at <= now)
		begin = Min(begin, run->retry_from);
	begin = Max(begin, reach);
	if (run->retry_from != DT_NOBEGIN && run->retry_from < reach)
	{
		doubtful = doubtful == DT_NOBEGIN ? run->retry_from : Min(doubtful, run->retry_from);
		run->retry_from = reach;
	}
	if (doubtful != DT_NOBEGIN && doubtful < reach)
		announce_gap(doubtful, reach);
	else
		doubtful = DT_NOBEGIN;
	run->gte = begin - OVERLAP_US;
	run->after = NULL;
	run->pages = 0;
	args[2] = TimestampTzGetDatum(run->gte);
	set_time(args, nulls, 3, doubtful);
	set_time(args, nulls, 4, doubtful == DT_NOBEGIN ? DT_NOBEGIN : reach);
	set_time(args, nulls, 5, run->retry_from);
	(void) sl_run(&begin_run, args, nulls, 0);
}

/* ---------- claim ---------- */

static void
add_call(const Run *run, MemoryContext cxt, SlClaim *claim)
{
	MemoryContext old = MemoryContextSwitchTo(cxt);
	SlApiCall  *call = palloc0(sizeof(SlApiCall));

	call->kind = SL_CALL_EVENTS;
	call->attempt = run->pages;
	call->operation = pstrdup("events");
	call->method = pstrdup("GET");
	call->path = psprintf("/v1/events?type=payment_intent.%%2A&limit=100"
						  "&created%%5Bgte%%5D=" INT64_FORMAT "%s%s",
						  (int64) timestamptz_to_time_t(run->gte),
						  run->after == NULL ? "" : "&starting_after=",
						  run->after == NULL ? "" : run->after);
	call->stripe_account = run->account[0] == '\0' ? NULL : pstrdup(run->account);
	claim->calls = lappend(claim->calls, call);
	MemoryContextSwitchTo(old);
}

static TimestampTz
look_for_due(void)
{
	Datum		interval = Int32GetDatum(sl_reconcile_interval);

	(void) sl_run(&next_due, &interval, NULL, 1);
	return sl_time_column(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, DT_NOEND);
}

/*
 * Claim the next page of every account that is due, until claim->calls has
 * 'room' calls; none without a key.  Lowers claim->next_due.
 */
void
sl_reconcile_claim(const char *api_key, int room, int lease_ms,
				   MemoryContext cxt, SlClaim *claim)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz wait_until = DT_NOEND;
	TimestampTz due;
	Datum		args[2] = {Int32GetDatum(sl_reconcile_interval), TimestampTzGetDatum(now)};
	SPITupleTable *accounts;
	int			n;
	int			i;

	if (sl_reconcile_interval == 0)
		return;
	due = look_for_due();
	if (due <= now && api_key != NULL)
	{
		n = sl_run(&due_accounts, args, NULL, 0);
		accounts = SPI_tuptable;
		for (i = 0; i < n && list_length(claim->calls) < room; i++)
		{
			uint64		pace;
			Run			run;

			read_run(accounts->vals[i], accounts->tupdesc, &run);
			pace = sl_pacing_id(api_key, run.account);
			if (!sl_pacing_take_one(pace, now, &wait_until))
				continue;
			if (run.started_at == DT_NOBEGIN)
				start_run(&run, now);
			args[0] = CStringGetTextDatum(run.account);
			args[1] = TimestampTzGetDatum(TimestampTzPlusMilliseconds(now, lease_ms));
			(void) sl_run(&lease_page, args, NULL, 0);
			add_call(&run, cxt, claim);
		}
		due = look_for_due();
	}
	/* what is left has to wait for its pace, or for whoever has it locked */
	if (due <= now && api_key != NULL && list_length(claim->calls) < room)
		due = Min(wait_until, TimestampTzPlusMilliseconds(now, SL_LOCKED_PAUSE_MS));
	claim->next_due = Min(claim->next_due, due);
}

/* A worker has begun: pages that its predecessor was fetching are due. */
void
sl_reconcile_recover(void)
{
	Datum		now = TimestampTzGetDatum(GetCurrentTimestamp());

	(void) sl_run(&recover, &now, NULL, 0);
}

/* ---------- settle ---------- */

static bool
is_event_wanted(const SlEvent *event)
{
	Datum		args[3] = {CStringGetTextDatum(event->id)};
	bool		nulls[3] = {false, event->payment_intent_id == NULL, !event->has_payment_id};

	if (!nulls[1])
		args[1] = CStringGetTextDatum(event->payment_intent_id);
	if (!nulls[2])
		args[2] = UUIDPGetDatum(&event->payment_id);
	return sl_run(&is_wanted, args, nulls, 1) > 0;
}

/*
 * Does an error concern more than the one event?  Somebody who has its payment
 * locked, or a deadlock over it, does not.
 */
static bool
stops_page(int sqlerrcode)
{
	int			category = ERRCODE_TO_CATEGORY(sqlerrcode);

	return sl_error_passes(sqlerrcode) &&
		category != ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE &&
		category != ERRCODE_TRANSACTION_ROLLBACK;
}

/*
 * An event could not be taken in.  One warning: runs that meet it again begin
 * before the cursor.  Only the SQLSTATE, since the message may quote somebody's
 * data.
 */
static void
note_failure(Jsonb *item, bool ours, int sqlerrcode, Run *run)
{
	char	   *id = sl_object_id(item);
	TimestampTz at = run->gte;
	int64		created;

	if (sl_object_created(item, &created))
		at = time_t_to_timestamptz((pg_time_t) created);
	if (ours)
	{
		run->nfailed++;
		run->failed = run->failed == DT_NOBEGIN ? at : Min(run->failed, at);
		run->problem = sl_error_object("reconcile", unpack_sql_state(sqlerrcode),
									   psprintf("event %s could not be taken in",
												id == NULL ? "without id" : id));
	}
	ereport(run->cursor != DT_NOBEGIN && at < run->cursor ? DEBUG1 : WARNING,
			(errcode(sqlerrcode),
			 errmsg("stripe_lifecycle could not take in event \"%s\" from Stripe's list: SQLSTATE %s",
					id == NULL ? "" : id, unpack_sql_state(sqlerrcode)),
			 ours ? errdetail("It is tried again, at growing intervals, until it can be.") :
			 errdetail("It is passed over."),
			 ours ? errhint("See stripe_lifecycle.reconcile_state.") : 0));
}

typedef struct ListedEvent
{
	Jsonb	   *event;
	bool		ours;			/* as far as it is known */
} ListedEvent;

static void
ingest_item(void *arg)
{
	ListedEvent *item = arg;
	SlEvent		event;

	sl_event_read(item->event, &event);
	item->ours = is_event_wanted(&event);
	if (item->ours)
		(void) sl_ingest_event(&event, SOURCE, NULL);
}

/*
 * Take in one event.  An error that would meet the others as well is raised
 * again, for the whole page to be taken in later.  Any other is noted.
 */
static void
take_in(Jsonb *event, Run *run)
{
	ListedEvent item = {event, false};
	ErrorData  *error = sl_try(ingest_item, &item);

	if (error == NULL)
		return;
	if (stops_page(error->sqlerrcode))
		ReThrowError(error);
	note_failure(event, item.ours, error->sqlerrcode, run);
}

static void
page_failed(const Run *run, const SlApiResult *res, Jsonb *problem, TimestampTz now)
{
	int64		pause = Min((int64) PAUSE_MIN_MS << Min(run->failures, 10), PAUSE_MAX_MS);
	Datum		args[4];

	if (res != NULL)
		pause = Max(pause, Min(res->attempt.retry_after_ms, SL_RETRY_AFTER_MAX_MS));
	args[0] = CStringGetTextDatum(run->account);
	args[1] = TimestampTzGetDatum(TimestampTzPlusMilliseconds(now, pause));
	args[2] = JsonbPGetDatum(problem);
	/* the event to go on from may be gone: begin the run again */
	args[3] = BoolGetDatum(res != NULL && res->outcome == SL_OUTCOME_REJECTED);
	(void) sl_run(&fail_page, args, NULL, 0);
}

/* When the first page was made, by Stripe's clock. */
static TimestampTz
page_time(const SlApiResult *res, const SlList *list)
{
	int64		created;

	if (res->server_time > 0)
		return time_t_to_timestamptz((pg_time_t) res->server_time);
	if (list->n > 0 && sl_object_created(list->items[0], &created))
		return time_t_to_timestamptz((pg_time_t) created);
	return res->started_at;
}

/*
 * All pages were read.  What could not be taken in is tried again after as
 * long as that has been so already; a run that began after it says nothing of
 * it.
 */
static void
finish_run(const Run *run, TimestampTz now)
{
	Datum		args[7] = {CStringGetTextDatum(run->account),
		TimestampTzGetDatum(run->newest), TimestampTzGetDatum(now)};
	bool		nulls[7] = {false};
	bool		tried = run->retry_from == DT_NOBEGIN || run->gte <= run->retry_from;
	TimestampTz since = run->failing_since;
	TimestampTz from = tried ? run->failed : run->retry_from;
	TimestampTz again = run->retry_at;

	if (!tried && run->failed != DT_NOBEGIN)
		from = Min(from, run->failed);
	if (from == DT_NOBEGIN)
		since = again = DT_NOBEGIN;
	else if (since == DT_NOBEGIN)
	{
		since = now;
		again = TimestampTzPlusMilliseconds(now, RETRY_MIN_MS);
	}
	else if (again <= run->started_at)
		again = TimestampTzPlusMilliseconds(now, Min(Max((now - since) / 1000, RETRY_MIN_MS),
													 RETRY_MAX_MS));
	args[3] = Int32GetDatum(tried ? run->nfailed : Max(run->failing, run->nfailed));
	set_time(args, nulls, 4, since);
	set_time(args, nulls, 5, from);
	set_time(args, nulls, 6, again);
	(void) sl_run(&end_run, args, nulls, 0);
}

/* 'after': where the next page begins; NULL if this was the last one. */
static void
page_taken(const Run *run, const char *after, TimestampTz now)
{
	Datum		args[7] = {CStringGetTextDatum(run->account), TimestampTzGetDatum(now)};
	bool		nulls[7] = {false};

	nulls[2] = after == NULL;
	if (after != NULL)
		args[2] = CStringGetTextDatum(after);
	args[3] = TimestampTzGetDatum(run->newest);
	set_time(args, nulls, 4, run->failed);
	nulls[5] = run->problem == NULL;
	args[5] = PointerGetDatum(run->problem);
	args[6] = Int32GetDatum(run->nfailed);
	(void) sl_run(&store_page, args, nulls, 0);
	if (after == NULL)
		finish_run(run, now);
}

/* False: somebody else has fetched this page meanwhile, or the row is gone. */
static bool
lock_run(const SlApiCall *call, Run *run)
{
	Datum		account = CStringGetTextDatum(call->stripe_account == NULL ? "" :
											  call->stripe_account);

	if (sl_run(&lock_account, &account, NULL, 1) == 0)
		return false;
	read_run(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, run);
	return run->in_flight && run->started_at != DT_NOBEGIN &&
		run->pages == call->attempt;
}

/* Take in a page of events, and store how far the run has come. */
void
sl_reconcile_settle(const SlApiCall *call, const SlApiResult *res)
{
	TimestampTz now = GetCurrentTimestamp();
	Jsonb	   *json = NULL;
	Run			run;
	SlList		list;
	SlApiError	err;
	char	   *after;
	bool		ok;
	int			i;

	if (!lock_run(call, &run))
		return;
	if (res->body != NULL && !res->attempt.transport_failed)
		json = sl_json_parse(res->body, res->body_len, &ok);
	if (res->outcome != SL_OUTCOME_SUCCEEDED || json == NULL ||
		!sl_list_read(json, &list) || !sl_list_next(&list, &after))
	{
		(void) sl_api_error_read(json, call->operation, res->attempt.http_status, &err);
		page_failed(&run, res, res->transport_error == NULL ? err.reduced :
					sl_error_object("transport", NULL, res->transport_error), now);
		return;
	}

	if (run.newest == DT_NOBEGIN)
		run.newest = page_time(res, &list);
	for (i = 0; i < list.n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		take_in(list.items[i], &run);
	}
	page_taken(&run, after, now);
}

/* The page could not be stored, or the question not be sent. */
void
sl_reconcile_set_aside(const SlApiCall *call, const char *sqlstate)
{
	Run			run;

	if (lock_run(call, &run))
		page_failed(&run, NULL,
					sl_error_object("reconcile", sqlstate, "a page of events could not be stored"),
					GetCurrentTimestamp());
}
