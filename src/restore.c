/*-------------------------------------------------------------------------
 *
 * restore.c
 *	  Rows that come from a dump: whether they are taken.
 *
 * To a trigger a restore is an INSERT or COPY like any other.  Two rules let
 * pg_dump | psql and pg_restore -j bring everything back without a switch that
 * somebody could leave on:
 *
 * 1. Rows are taken only into a database where the library has not written a
 *    payment or an event of its own yet (table in_use).  From the first
 *    create_payment() or webhook on, or from resume_worker() on what was
 *    restored, no row of any of the tables gets in by hand, for good.
 *
 * 2. Even there a payment is taken only if its audit trail proves it: a chain
 *    of hashes without a gap, from the creation to just the state, number of
 *    moves, amount, currency, mode and time of end that the row has.  In a dump
 *    the trails come first; pg_restore -j may be faster with the payments, so
 *    these wait while others of its jobs are at work.
 *
 * Whatever comes in so sends nothing until an operator says so: the database
 * is paused with it, or knows itself for a copy.
 *
 * The trail is read through its index and not by a query: a plan made while the
 * table was still empty would be a poor one for the rows that follow.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"

#include "audit.h"
#include "compat.h"
#include "errors.h"
#include "identity.h"
#include "restore.h"

/* The transaction that was found to be restoring, and has paused the worker. */
static TransactionId restoring = InvalidTransactionId;

/*
 * May rows be restored here at all?  Asked once per transaction; what the
 * library itself writes later in the same one is remembered by sl_in_use().
 */
static bool
may_restore(Relation rel)
{
	bool		ok = true;
	SlSavedUser saved;

	if (restoring == GetTopTransactionId() && !sl_marked_in_use())
		return true;

	saved = sl_become_owner(rel);
	if (sl_in_use())
		ok = false;
	else
	{
		sl_pause_restored();
		restoring = GetTopTransactionId();
	}
	sl_become_again(saved);
	return ok;
}

/* ---------- the trail of a payment ---------- */

/*
 * A scan by the first column, a uuid, of the primary key of one of our tables.
 * It sees all that is committed, and all of this transaction, the statement at
 * hand included.
 */
typedef struct KeyScan
{
	Relation	rel;
	Relation	index;
	SysScanDesc scan;
} KeyScan;

static void
begin_scan(KeyScan *s, SlTableId table, Datum key)
{
	Oid			relid = get_relname_relid(sl_table_name(table), sl_catalog()->schema);
	Oid			index;
	ScanKeyData scankey;

	s->rel = table_open(relid, AccessShareLock);
	list_free(RelationGetIndexList(s->rel));
	index = s->rel->rd_pkindex;
	if (!OidIsValid(index))
		ereport(ERROR,
				(errcode(SL_ERRCODE_SCHEMA_MISMATCH),
				 errmsg("table \"%s.%s\" has lost its primary key", SL_SCHEMA,
						sl_table_name(table)),
				 errtable(s->rel)));
	s->index = index_open(index, AccessShareLock);
	ScanKeyInit(&scankey, 1, BTEqualStrategyNumber, F_UUID_EQ, key);
	s->scan = systable_beginscan_ordered(s->rel, s->index, SnapshotSelf,
										 1, &scankey);
}

static HeapTuple
next_row(KeyScan *s)
{
	return systable_getnext_ordered(s->scan, ForwardScanDirection);
}

static void
end_scan(KeyScan *s)
{
	systable_endscan_ordered(s->scan);
	index_close(s->index, AccessShareLock);
	table_close(s->rel, AccessShareLock);
}

static bool
row_exists(SlTableId table, Datum key)
{
	KeyScan		s;
	bool		exists;

	begin_scan(&s, table, key);
	exists = HeapTupleIsValid(next_row(&s));
	end_scan(&s);
	return exists;
}

/* ---------- waiting for it ---------- */

/* How long the other jobs of a restore must have been idle to be through. */
#define QUIET "5 s"
#define LOOK_EVERY_MS 100

/*
 * Sessions that may be other jobs of the restore we are in.  To take one for
 * that which is none costs time and nothing else.
 */
static SlQuery other_jobs = {
	.sql = "SELECT 1 FROM pg_catalog.pg_stat_activity o, pg_catalog.pg_stat_activity me"
	" WHERE me.pid = pg_catalog.pg_backend_pid() AND o.pid <> me.pid"
	" AND o.datid = me.datid AND o.usesysid = me.usesysid"
	" AND o.application_name = me.application_name"
	" AND (o.state <> 'idle' OR o.state_change > pg_catalog.clock_timestamp() - interval '" QUIET "')",
};

/*
 * Wait until the payment's trail is there or nobody is left to bring it.  No
 * row may be locked meanwhile that another job could need.
 */
static void
wait_for_trail(Relation rel, Datum payment_id)
{
	SlSavedUser saved = sl_become_owner(rel);

	while (!row_exists(SL_TRANSITIONS, payment_id))
	{
		pgstat_clear_snapshot();
		if (sl_in_use() || sl_run(&other_jobs, NULL, NULL, 1) == 0)
			break;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 LOOK_EVERY_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	sl_become_again(saved);
}

/* ---------- the proof ---------- */

/* A restored payment is not what its trail says. */
static void
refuse_unproven(void *arg, int seq, const char *problem, const char *detail)
{
	const SlRow *payment = arg;

	ereport(ERROR,
			(errcode(SL_ERRCODE_NO_EVIDENCE),
			 errmsg("payment %s is not what its audit trail proves",
					DatumGetCString(DirectFunctionCall1(uuid_out, payment->values[PAY_ID]))),
			 seq > 0 ? errdetail("Transition %d: %s.", seq, detail) :
			 errdetail("Column %s.", detail),
			 errhint("Restore payments and payment_transitions from one dump, whole and unchanged.")));
}

/* Raises an error unless the payment's trail gives just this row. */
static void
check_proof(const SlRow *payment)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext,
											  "proof of a payment",
											  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	SlReplay	replay;
	KeyScan		s;
	HeapTuple	tuple;
	SlRow		row;

	sl_replay_begin(&replay, refuse_unproven, (void *) payment);
	begin_scan(&s, SL_TRANSITIONS, payment->values[PAY_ID]);
	while (HeapTupleIsValid(tuple = next_row(&s)))
	{
		sl_deform(s.rel, SL_TRANSITIONS, tuple, &row);
		sl_replay_row(&replay, &row);
	}
	end_scan(&s);
	sl_replay_end(&replay, payment);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}

static void
refuse_late_restore(Relation rel, const SlRow *payment)
{
	ereport(ERROR,
			(errcode(SL_ERRCODE_MAINTAINED_ROW),
			 errmsg("cannot restore payment %s here",
					DatumGetCString(DirectFunctionCall1(uuid_out, payment->values[PAY_ID]))),
			 errdetail("The database is in use: payments have been made or events taken in since the extension was created."),
			 errhint("Restore into a new database."),
			 errtable(rel)));
}

/*
 * A row that is inserted by nobody of the library.  True: it comes from a dump
 * and is taken as it is, a payment's trail included.  False: it is none of a
 * dump, as far as this can be told.  Error: a payment that has a trail, but not
 * one that proves it.
 */
bool
sl_take_restored(Relation rel, SlTableId table, const SlRow *row)
{
	switch (table)
	{
		case SL_PAYMENTS:
			/* what was stored once has the hash of its trail's end */
			if (!row->nulls[PAY_AUDIT_HEAD] && restoring != GetTopTransactionId())
				wait_for_trail(rel, row->values[PAY_ID]);
			if (!row_exists(SL_TRANSITIONS, row->values[PAY_ID]))
				return false;
			if (!may_restore(rel))
				refuse_late_restore(rel, row);
			check_proof(row);
			return true;
		case SL_TRANSITIONS:

			/* what is there has its trail, which only the guard extends */
			return may_restore(rel) &&
				!row_exists(SL_PAYMENTS, row->values[TRA_PAYMENT_ID]);
		default:
			return may_restore(rel);
	}
}
