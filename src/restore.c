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
 *    moves, amount, currency, mode and time of end that the row has.  The trail
 *    comes first; see payments.dump_order for how pg_restore knows that.
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
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

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
	Oid			saved_user;
	int			saved_context;

	if (restoring == GetTopTransactionId() && !sl_marked_in_use())
		return true;

	GetUserIdAndSecContext(&saved_user, &saved_context);
	SetUserIdAndSecContext(rel->rd_rel->relowner,
						   saved_context | SECURITY_LOCAL_USERID_CHANGE);
	SPI_connect();
	if (sl_in_use())
		ok = false;
	else
	{
		sl_pause_restored();
		restoring = GetTopTransactionId();
	}
	SPI_finish();
	SetUserIdAndSecContext(saved_user, saved_context);
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
			 errdetail_internal("The %s.", detail),
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
