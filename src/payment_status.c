/*-------------------------------------------------------------------------
 *
 * payment_status.c
 *	  The SQL function by which frontends follow a payment, and wait for news.
 *
 * A frontend may wait for a minute, and many do at the same time.  So a wait
 * holds as little as can be: no row lock; no lock of a table, since each look
 * is made in a subtransaction and rolled back; no snapshot, where that is safe
 * (snapshot_release.c says where); and no query until a commit has changed
 * something (changes.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "catalog.h"
#include "changes.h"
#include "compat.h"
#include "errors.h"
#include "guc.h"
#include "http_errors.h"
#include "http_request.h"
#include "owner.h"
#include "payment_status.h"
#include "snapshot_release.h"
#include "store.h"
#include "work_limits.h"

PG_FUNCTION_INFO_V1(sl_payment_status);

#define MAX_WAIT_MS 60000

/* Of a statement's time, what is left for the answer when a wait ends. */
#define TIME_TO_ANSWER_MS 250

/* What payment_status() shows, in its order: columns of the payment ... */
static const int status_columns[] = {
	PAY_ID, PAY_STATE, PAY_AMOUNT, PAY_CURRENCY, PAY_PAYMENT_INTENT_ID,
	PAY_CLIENT_SECRET, -1, PAY_LAST_ERROR, PAY_DECLINE_COUNT, PAY_LIVEMODE,
	PAY_CREATED_AT, PAY_UPDATED_AT, PAY_FINISHED_AT
};

#define STATUS_COLUMNS lengthof(status_columns)
#define STATUS_REQUEST 6		/* and, here, the status of its latest request */

static SlQuery payment_by_id = {
	.sql = "SELECT %s FROM stripe_lifecycle.payments"
	" WHERE id OPERATOR(pg_catalog.=) $1",
	.columns_of = SL_PAYMENTS,
	.args = {SL_TYPE_UUID},
};
static SlQuery latest_request = {
	.sql = "SELECT status FROM stripe_lifecycle.api_requests"
	" WHERE payment_id OPERATOR(pg_catalog.=) $1 ORDER BY id DESC LIMIT 1",
	.args = {SL_TYPE_UUID},
};

/* ... and what tells whether any of it has changed, updated_at alone apart. */
static SlQuery mark_of_payment = {
	.sql = "SELECT p.updated_at, p.finished_at IS NOT NULL, p.state,"
	" p.payment_intent_id IS NOT NULL, p.client_secret IS NOT NULL,"
	" p.decline_count, p.last_error_at,"
	" (SELECT r.status FROM stripe_lifecycle.api_requests r"
	"  WHERE r.payment_id = p.id ORDER BY r.id DESC LIMIT 1)"
	" FROM stripe_lifecycle.payments p WHERE p.id = $1",
	.args = {SL_TYPE_UUID},
};

#define MARK_COLUMNS 8			/* all of them by value; NULL counts as 0 */
#define MARK_UPDATED_AT 0
#define MARK_FINISHED 1

typedef struct Mark
{
	bool		found;
	Datum		values[MARK_COLUMNS];
} Mark;

void
sl_unknown_payment(void)
{
	ereport(ERROR,
			(errcode(SL_ERRCODE_UNKNOWN_PAYMENT),
			 errmsg("there is no such payment"),
			 errhint("Pass the id that create_payment() returned.")));
	pg_unreachable();
}

/* To those who may not see it, a payment is one that does not exist. */
static bool
is_visible(const pg_uuid_t *id)
{
	SlCaller	caller;

	sl_caller_read(&caller);
	return sl_caller_may_see(&caller, id);
}

void
sl_require_visible(const pg_uuid_t *id)
{
	if (!is_visible(id))
		sl_unknown_payment();
}

static int64
wait_in_ms(const Interval *wait)
{
	if (wait->month != 0 || wait->day != 0 || wait->time < 0)
		ereport(ERROR,
				(errcode(SL_ERRCODE_ARGUMENT),
				 errmsg("argument \"wait\" must be a time of 0 to 60 seconds")));
	return Min(wait->time / 1000, MAX_WAIT_MS);
}

static void
read_mark(const pg_uuid_t *id, Mark *mark)
{
	Datum		arg = UUIDPGetDatum(id);
	int			i;

	memset(mark, 0, sizeof(*mark));
	if (!is_visible(id) || sl_run(&mark_of_payment, &arg, NULL, 1) == 0)
		return;
	mark->found = true;
	for (i = 0; i < MARK_COLUMNS; i++)
	{
		bool		isnull;
		Datum		value = SPI_getbinval(SPI_tuptable->vals[0],
										  SPI_tuptable->tupdesc, i + 1, &isnull);

		mark->values[i] = isnull ? (Datum) 0 : value;
	}
}

/*
 * Is there news?  An event that only confirms what was known, such as
 * payment_intent.created, changes updated_at and is none.
 */
static bool
differs(const Mark *a, const Mark *b)
{
	int			i;

	for (i = MARK_FINISHED; i < MARK_COLUMNS; i++)
	{
		if (a->values[i] != b->values[i])
			return true;
	}
	return a->found != b->found;
}

/*
 * Look, and leave no trace: the end of the subtransaction lets go of the
 * tables' locks, which would otherwise be kept until the transaction ends.
 * With a snapshot of our own, for there may be none: SPI would then give one
 * to the portal, and keep it.
 */
static void
glance(const pg_uuid_t *id, Mark *mark)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	read_mark(id, mark);
	SPI_finish();
	PopActiveSnapshot();
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
}

/* Sleep until the payment differs from what it was, or the time has come. */
static void
sleep_until_changed(const pg_uuid_t *id, const Mark *before, uint64 seen,
					TimestampTz until)
{
	Mark		now = *before;

	while (!differs(before, &now))
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

		if (left <= 0)
			break;
		sl_changes_wait(id, seen, left);
		if (sl_changes_count(id) != seen || !sl_changes_are_counted())
		{
			seen = sl_changes_count(id);
			glance(id, &now);
		}
	}
}

/*
 * Sleep, for HTTP in one of a limited number of places: each waiting request
 * takes one of PostgREST's few connections, of which webhooks need one.
 */
static void
wait_for_change(FunctionCallInfo fcinfo, const pg_uuid_t *id,
				const Mark *before, uint64 seen, int64 ms)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);
	bool		released;

	if (sl_request_present() && !sl_changes_enter(sl_http_max_waiting))
		return;
	PG_TRY();
	{
		released = sl_snapshot_release(fcinfo);
		sleep_until_changed(id, before, seen, until);
		if (released)
			sl_snapshot_take_back();
	}
	PG_FINALLY();
	{
		sl_changes_leave();
	}
	PG_END_TRY();
}

/*
 * How long to wait at most.  Whoever asks by HTTP has not chosen the statement
 * timeout, and should get an answer and not an error before it is over.
 */
static int64
time_to_wait(FunctionCallInfo fcinfo)
{
	int64		ms = PG_ARGISNULL(1) ? 0 : wait_in_ms(PG_GETARG_INTERVAL_P(1));
	int			left;

	/* in a fixed snapshot it would never see anything new */
	if (ms == 0 || IsolationUsesXactSnapshot())
		return 0;
	left = sl_request_present() ? sl_statement_time_left() : -1;
	return left < 0 ? ms : Max(Min(ms, left - TIME_TO_ANSWER_MS), 0);
}

/* The shape of the answer, which who calls the function in FROM has at hand. */
static TupleDesc
result_desc(FunctionCallInfo fcinfo)
{
	ReturnSetInfo *caller = (ReturnSetInfo *) fcinfo->resultinfo;
	TupleDesc	desc = NULL;

	if (caller != NULL && IsA(caller, ReturnSetInfo))
		desc = caller->expectedDesc;
	if (desc == NULL &&
		get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (desc->natts != (int) STATUS_COLUMNS)
		ereport(ERROR,
				(errcode(SL_ERRCODE_SCHEMA_MISMATCH),
				 errmsg("type \"%s.payment_summary\" is not as the library expects it",
						SL_SCHEMA),
				 errhint("Run ALTER EXTENSION stripe_lifecycle UPDATE.")));
	return BlessTupleDesc(desc);
}

/* The answer; the tuple is palloc'd in the caller's context. */
static HeapTuple
look(const pg_uuid_t *id, TupleDesc result)
{
	Datum		values[STATUS_COLUMNS];
	bool		nulls[STATUS_COLUMNS];
	SlRow		payment;
	int			i;

	sl_require_visible(id);
	if (!sl_find_row(SL_PAYMENTS, PAY_ID, UUIDPGetDatum(id), &payment_by_id,
					 &payment))
		sl_unknown_payment();
	for (i = 0; i < (int) STATUS_COLUMNS; i++)
		if (i != STATUS_REQUEST)
		{
			values[i] = payment.values[status_columns[i]];
			nulls[i] = payment.nulls[status_columns[i]];
		}
	if (!sl_newest_value(SL_REQUESTS, REQ_PAYMENT_ID, UUIDPGetDatum(id),
						 REQ_STATUS, &latest_request, &values[STATUS_REQUEST],
						 &nulls[STATUS_REQUEST]))
		nulls[STATUS_REQUEST] = true;
	return heap_form_tuple(result, values, nulls);
}

/*
 * SQL: payment_status(payment_id uuid, wait interval, known timestamptz)
 * returns a row.  With a wait it answers when something has changed or the
 * time is up; at once if the payment has ended, or if its updated_at is not
 * the one that the caller knows.  Errors: SL017, SL015.
 */
static Datum
payment_status(PG_FUNCTION_ARGS)
{
	pg_uuid_t	id;
	TupleDesc	result;
	int64		ms;

	sl_require_version();
	if (PG_ARGISNULL(0))
		sl_unknown_payment();
	id = *PG_GETARG_UUID_P(0);
	ms = time_to_wait(fcinfo);
	result = result_desc(fcinfo);

	if (ms > 0)
	{
		uint64		seen = sl_changes_count(&id);
		Mark		before;

		glance(&id, &before);
		if (before.found && !DatumGetBool(before.values[MARK_FINISHED]) &&
			(PG_ARGISNULL(2) ||
			 PG_GETARG_TIMESTAMPTZ(2) == DatumGetTimestampTz(before.values[MARK_UPDATED_AT])))
			wait_for_change(fcinfo, &id, &before, seen, ms);
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(look(&id, result)));
}

Datum
sl_payment_status(PG_FUNCTION_ARGS)
{
	return sl_http_call(payment_status, fcinfo, "payment_status");
}
