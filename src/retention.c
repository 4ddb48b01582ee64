/*-------------------------------------------------------------------------
 *
 * retention.c
 *	  Removes events and requests that nobody can need any more, after
 *	  stripe_lifecycle.event_retention and request_retention.
 *
 * An event's row is what keeps a second delivery from counting, so none goes
 * that Stripe could still deliver: its list of events and its retries end after
 * 30 days, and the settings begin at 35.  Stripe's time and ours must both be
 * that old.  Events that wait for somebody stay: conflicts, and unmatched ones
 * that carry a payment's id.
 *
 * The requests of a payment go together, with the records of their calls, and
 * only if the payment has ended and every one of them is settled for good: the
 * keys of further requests are made by counting those that are there.  The
 * cancellation of a failed payment that Stripe refused stays, since the customer
 * could still pay.  Payments and the audit trail are kept for ever.
 *
 * A table is gone through once a day, some pages at a time, each in a short
 * transaction of its own.  That takes no index, which every insert would have to
 * pay for, and no step takes longer because the table is large.  Where it stands
 * is in table retention_state, so it goes on there after a restart.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "event_reader.h"
#include "guc.h"
#include "identity.h"
#include "retention.h"
#include "store.h"

/* Pages of one step, the pause after it, and how often a table is gone through. */
#define PAGES_AT_ONCE		64
#define STEP_PAUSE_MS		20
#define ROUND_EVERY			INT64CONST(86400)	/* seconds */

/* After an error. */
#define PROBLEM_PAUSE_MS	60000

#define IN_PAGES(row) \
	row ".ctid >= $1::tid AND " row ".ctid < $2::tid"

static SlQuery where_it_stands = {
	.sql = "SELECT block, due_at FROM stripe_lifecycle.retention_state"
	" WHERE table_name = $1 FOR UPDATE",
	.args = {SL_TYPE_TEXT},
};
static SlQuery note_step = {
	.sql = "UPDATE stripe_lifecycle.retention_state"
	" SET block = $2, due_at = $3, removed = removed + $4,"
	" finished_at = CASE WHEN $2 = 0 THEN $5 ELSE finished_at END"
	" WHERE table_name = $1",
	.args = {
		SL_TYPE_TEXT, SL_TYPE_INT8, SL_TYPE_TIMESTAMPTZ, SL_TYPE_INT8,
		SL_TYPE_TIMESTAMPTZ
	},
};
static SlQuery remove_events = {
	.sql = "WITH removed AS (DELETE FROM stripe_lifecycle.webhook_events e"
	" WHERE " IN_PAGES("e") " AND e.received_at < $3 AND e.created < $3"
	" AND e.outcome <> 'conflict' AND (e.outcome <> 'unmatched' OR"
	" e.payload #>> '{data,object,metadata," SL_METADATA_KEY "}' IS NULL)"
	" RETURNING 1) SELECT count(*) FROM removed",
	.args = {SL_TYPE_TEXT, SL_TYPE_TEXT, SL_TYPE_TIMESTAMPTZ},
};

/* The lock keeps further requests of the payment away, which begin with it. */
static SlQuery remove_requests = {
	.sql = "WITH ended AS MATERIALIZED (SELECT p.id FROM stripe_lifecycle.payments p"
	" WHERE p.id IN (SELECT r.payment_id FROM stripe_lifecycle.api_requests r"
	"  WHERE " IN_PAGES("r") ")"
	" AND p.finished_at < $3 AND NOT EXISTS"
	" (SELECT FROM stripe_lifecycle.api_requests o WHERE o.payment_id = p.id"
	"  AND (o.status NOT IN ('succeeded', 'rejected')"
	"   OR coalesce(o.finished_at >= $3, true) OR o.created_at >= $3"
	"   OR (o.status = 'rejected' AND o.operation = 'cancel'"
	"    AND p.state = 'failed' AND o.http_status IS DISTINCT FROM 402)))"
	" FOR KEY SHARE OF p SKIP LOCKED),"
	" removed AS (DELETE FROM stripe_lifecycle.api_requests r USING ended"
	"  WHERE r.payment_id = ended.id RETURNING r.id),"
	" calls AS (DELETE FROM stripe_lifecycle.api_attempts a USING removed"
	"  WHERE a.request_id = removed.id)"
	" SELECT count(*) FROM removed",
	.args = {SL_TYPE_TEXT, SL_TYPE_TEXT, SL_TYPE_TIMESTAMPTZ},
};

bool
sl_retention_is_on(void)
{
	return sl_event_retention > 0 || sl_request_retention > 0;
}

static int64
pages_of(const char *table)
{
	Oid			relid = get_relname_relid(table, sl_catalog()->schema);
	Relation	rel = table_open(relid, AccessShareLock);
	int64		pages = RelationGetNumberOfBlocks(rel);

	table_close(rel, AccessShareLock);
	return pages;
}

static int64
first_int64(void)
{
	bool		isnull;

	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
									   SPI_tuptable->tupdesc, 1, &isnull));
}

/* Removes what is older than 'limit' from some pages; returns how many rows. */
static int64
remove_from(SlQuery *query, int64 block, TimestampTz limit)
{
	Datum		args[3] = {
		CStringGetTextDatum(psprintf("(" INT64_FORMAT ",0)", block)),
		CStringGetTextDatum(psprintf("(" INT64_FORMAT ",0)", block + PAGES_AT_ONCE)),
		TimestampTzGetDatum(limit)
	};

	sl_run_removal(query, args, limit);
	return first_int64();
}

/* One step in one table, if it is due; returns when the next one is. */
static TimestampTz
step(const char *table, SlQuery *query, int retention)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz due;
	Datum		args[5] = {CStringGetTextDatum(table)};
	int64		block;
	int64		removed;

	if (retention <= 0)
		return DT_NOEND;
	if (sl_run(&where_it_stands, args, NULL, 1) == 0)
		return DT_NOEND;
	block = first_int64();
	due = sl_time_column(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, DT_NOBEGIN);
	if (due > now)
		return due;

	removed = remove_from(query, block, now - retention * USECS_PER_SEC);
	block += PAGES_AT_ONCE;
	due = TimestampTzPlusMilliseconds(now, STEP_PAUSE_MS);
	if (block >= pages_of(table))
	{
		block = 0;
		due = now + ROUND_EVERY * USECS_PER_SEC;
	}
	args[1] = Int64GetDatum(block);
	args[2] = TimestampTzGetDatum(due);
	args[3] = Int64GetDatum(removed);
	args[4] = TimestampTzGetDatum(now);
	(void) sl_run(&note_step, args, NULL, 0);
	return due;
}

/*
 * Remove a little of what has become too old.  Returns when to come back.  A
 * copy that nobody has taken into use is left as it is.
 */
TimestampTz
sl_retain(void)
{
	TimestampTz events;
	TimestampTz requests;

	if (!sl_may_seal())
		return DT_NOEND;
	events = step("webhook_events", &remove_events, sl_event_retention);
	requests = step("api_requests", &remove_requests, sl_request_retention);
	return Min(events, requests);
}

/* It could not be done; returns when to try again. */
TimestampTz
sl_retain_failed(int sqlerrcode)
{
	ereport(WARNING,
			(errcode(sqlerrcode),
			 errmsg("stripe_lifecycle could not remove what is older than its retention: SQLSTATE %s",
					unpack_sql_state(sqlerrcode)),
			 errdetail("Nothing was removed by this step.  It is tried again.")));
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), PROBLEM_PAUSE_MS);
}
