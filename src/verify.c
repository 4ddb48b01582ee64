/*-------------------------------------------------------------------------
 *
 * verify.c
 *	  verify_audit(): every break in the audit trail.
 *
 * The trails and the payments are read side by side, both in the order of the
 * payment's id, through cursors: memory does not grow with the tables.  What
 * comes out are the breaks only.  All is read under the caller's snapshot, so
 * what is written meanwhile does not look like a break.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"

#include "audit.h"
#include "catalog.h"
#include "compat.h"

PG_FUNCTION_INFO_V1(sl_verify_audit);

#define FETCH_ROWS 1000

/* Columns of the result. */
enum
{
	OUT_PAYMENT_ID, OUT_SEQ, OUT_PROBLEM, OUT_DETAIL,
	OUT_NCOLS
};

/* Rows in the order of a payment's id, which is their first column. */
typedef struct Stream
{
	Portal		portal;
	SPITupleTable *batch;		/* NULL before the first and after the last */
	uint64		n;				/* rows in it */
	uint64		next;
	const int  *columns;		/* place in an SlRow of each of its columns */
	int			ncols;
	MemoryContext cxt;			/* holds the batch's values once detoasted */
	SlRow		row;			/* the row at hand, if there is one */
	bool		has_row;
} Stream;

static const char *const trail_sql =
"SELECT payment_id, seq, from_state, to_state, at, source, event_id, event_type,"
" event_created, role, note, amount, currency, livemode, hash"
" FROM stripe_lifecycle.payment_transitions"
" WHERE $1 IS NULL OR payment_id = $1"
" ORDER BY payment_id, seq";
static const int trail_columns[] = {
	TRA_PAYMENT_ID, TRA_SEQ, TRA_FROM_STATE, TRA_TO_STATE, TRA_AT, TRA_SOURCE,
	TRA_EVENT_ID, TRA_EVENT_TYPE, TRA_EVENT_CREATED, TRA_ROLE, TRA_NOTE,
	TRA_AMOUNT, TRA_CURRENCY, TRA_LIVEMODE, TRA_HASH
};

static const char *const payments_sql =
"SELECT id, state, amount, currency, livemode, transitions, finished_at, audit_head"
" FROM stripe_lifecycle.payments"
" WHERE $1 IS NULL OR id = $1"
" ORDER BY id";
static const int payment_columns[] = {
	PAY_ID, PAY_STATE, PAY_AMOUNT, PAY_CURRENCY, PAY_LIVEMODE,
	PAY_TRANSITIONS, PAY_FINISHED_AT, PAY_AUDIT_HEAD
};

/*
 * An event may be gone, since they are not kept for ever; but what is there has
 * to agree, in both directions.  These give rows of the result.
 */
static const char *const event_breaks_sql =
"SELECT t.payment_id, t.seq, 'event_differs',"
" 'event ' || t.event_id || ' ' || CASE"
"  WHEN e.payment_id IS DISTINCT FROM t.payment_id THEN 'belongs to another payment, or to none'"
"  WHEN e.outcome <> 'applied' THEN 'is kept as ' || e.outcome"
"  ELSE 'is of another type or time' END"
" FROM stripe_lifecycle.payment_transitions t"
" JOIN stripe_lifecycle.webhook_events e ON e.event_id = t.event_id"
" WHERE ($1 IS NULL OR t.payment_id = $1)"
" AND (e.payment_id IS DISTINCT FROM t.payment_id OR e.outcome <> 'applied'"
"  OR e.type <> t.event_type OR e.created <> t.event_created)"
" UNION ALL "
"SELECT e.payment_id, NULL, 'event_unused',"
" 'event ' || e.event_id || ' is kept as applied, but is not in the trail'"
" FROM stripe_lifecycle.webhook_events e"
" WHERE e.outcome = 'applied' AND ($1 IS NULL OR e.payment_id = $1)"
" AND NOT EXISTS (SELECT FROM stripe_lifecycle.payment_transitions t"
"  WHERE t.payment_id = e.payment_id AND t.event_id = e.event_id)";

/* Where a break goes: the result, and the payment at hand. */
typedef struct Sink
{
	ReturnSetInfo *result;
	Datum		payment_id;
} Sink;

static void
put_break(void *arg, int seq, const char *problem, const char *detail)
{
	Sink	   *sink = arg;
	Datum		values[OUT_NCOLS];
	bool		nulls[OUT_NCOLS] = {false};

	values[OUT_PAYMENT_ID] = sink->payment_id;
	values[OUT_SEQ] = Int32GetDatum(seq);
	nulls[OUT_SEQ] = seq == 0;
	values[OUT_PROBLEM] = CStringGetTextDatum(problem);
	values[OUT_DETAIL] = CStringGetTextDatum(detail);
	tuplestore_putvalues(sink->result->setResult, sink->result->setDesc,
						 values, nulls);
}

static Portal
open_cursor(const char *sql, Datum payment_id, bool all)
{
	Oid			argtype = UUIDOID;
	char		isnull = all ? 'n' : ' ';

	return SPI_cursor_open_with_args(NULL, sql, 1, &argtype, &payment_id,
									 &isnull, true, 0);
}

/* Have the next row at hand, if there is one. */
static void
advance(Stream *s)
{
	static pg_uuid_t nobody;
	HeapTuple	tuple;
	int			i;

	if (s->batch != NULL && s->next == s->n)
	{
		SPI_freetuptable(s->batch);
		s->batch = NULL;
		CHECK_FOR_INTERRUPTS();
	}
	if (s->batch == NULL)
	{
		SPI_cursor_fetch(s->portal, true, FETCH_ROWS);
		s->batch = SPI_tuptable;
		s->n = SPI_processed;
		s->next = 0;
	}
	s->has_row = s->next < s->n;
	if (!s->has_row)
		return;
	tuple = s->batch->vals[s->next++];
	for (i = 0; i < s->ncols; i++)
		s->row.values[s->columns[i]] =
			heap_getattr(tuple, i + 1, s->batch->tupdesc,
						 &s->row.nulls[s->columns[i]]);
	/* rows that have lost their key come last, as those of no payment */
	if (s->row.nulls[s->columns[0]])
		s->row.values[s->columns[0]] = UUIDPGetDatum(&nobody);
}

static void
begin_stream(Stream *s, const char *sql, const int *columns, int ncols,
			 Datum payment_id, bool all)
{
	memset(s, 0, sizeof(*s));
	s->portal = open_cursor(sql, payment_id, all);
	s->columns = columns;
	s->ncols = ncols;
	advance(s);
}

/* Which payment comes first: < 0 that of the trail, > 0 that of the payments. */
static int
compare(const Stream *trail, const Stream *payments)
{
	if (!trail->has_row || !payments->has_row)
		return trail->has_row ? -1 : 1;
	return memcmp(DatumGetUUIDP(trail->row.values[TRA_PAYMENT_ID]),
				  DatumGetUUIDP(payments->row.values[PAY_ID]), UUID_LEN);
}

/* The trail of one payment, and its row: whichever of the two there is. */
static void
verify_payment(Stream *trail, Stream *payments, Sink *sink)
{
	int			order = compare(trail, payments);
	pg_uuid_t	id = *DatumGetUUIDP(order > 0 ? payments->row.values[PAY_ID] :
									trail->row.values[TRA_PAYMENT_ID]);
	SlReplay	replay;

	sink->payment_id = UUIDPGetDatum(&id);
	sl_replay_begin(&replay, put_break, sink);
	while (order <= 0 && trail->has_row &&
		   memcmp(DatumGetUUIDP(trail->row.values[TRA_PAYMENT_ID]), &id, UUID_LEN) == 0)
	{
		sl_replay_row(&replay, &trail->row);
		advance(trail);
	}
	sl_replay_end(&replay, order >= 0 ? &payments->row : NULL);
	if (order >= 0)
		advance(payments);
}

static void
verify_trails(Datum payment_id, bool all, Sink *sink)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext,
											  "replay of a payment",
											  ALLOCSET_DEFAULT_SIZES);
	Stream		trail;
	Stream		payments;

	begin_stream(&trail, trail_sql, trail_columns, lengthof(trail_columns),
				 payment_id, all);
	begin_stream(&payments, payments_sql, payment_columns,
				 lengthof(payment_columns), payment_id, all);
	while (trail.has_row || payments.has_row)
	{
		MemoryContext old = MemoryContextSwitchTo(cxt);

		verify_payment(&trail, &payments, sink);
		MemoryContextSwitchTo(old);
		MemoryContextReset(cxt);
	}
	SPI_cursor_close(trail.portal);
	SPI_cursor_close(payments.portal);
	MemoryContextDelete(cxt);
}

static void
verify_events(Datum payment_id, bool all, Sink *sink)
{
	Portal		portal = open_cursor(event_breaks_sql, payment_id, all);
	uint64		i;

	do
	{
		CHECK_FOR_INTERRUPTS();
		SPI_cursor_fetch(portal, true, FETCH_ROWS);
		for (i = 0; i < SPI_processed; i++)
			tuplestore_puttuple(sink->result->setResult, SPI_tuptable->vals[i]);
		SPI_freetuptable(SPI_tuptable);
	} while (SPI_processed > 0);
	SPI_cursor_close(portal);
}

/*
 * SQL: verify_audit(payment_id uuid) returns the breaks: payment_id, seq (NULL
 * if the break is not that of one transition), problem, detail.  NULL means all
 * payments.  Errors: insufficient_privilege without SELECT on the tables.
 */
Datum
sl_verify_audit(PG_FUNCTION_ARGS)
{
	bool		all = PG_ARGISNULL(0);
	Datum		payment_id = all ? (Datum) 0 : PG_GETARG_DATUM(0);
	Sink		sink;

	sl_require_version();
	sl_init_materialized(fcinfo);
	sink.result = (ReturnSetInfo *) fcinfo->resultinfo;

	SPI_connect();
	verify_trails(payment_id, all, &sink);
	verify_events(payment_id, all, &sink);
	SPI_finish();
	return (Datum) 0;
}
