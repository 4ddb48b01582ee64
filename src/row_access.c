/*-------------------------------------------------------------------------
 *
 * row_access.c
 *	  Finds, locks and writes single rows of a table by its access methods,
 *	  below the executor.
 *
 * An event is three rows written and one locked, each by a statement that the
 * executor would set up from nothing and tear down again: that is more than
 * half of the time it takes.  What a statement sets up depends on the table
 * alone, so here it is made once and kept until the table changes: CHECK
 * constraints and predicates of indexes ready to be evaluated, triggers,
 * indexes.  The rows go the way that logical replication's go
 * (ExecSimpleRelationInsert and ExecSimpleRelationUpdate): constraints are
 * checked, all indexes kept, row triggers fired and deferred as ever.
 *
 * Only for tables with nothing out of the ordinary.  Whoever adds rules,
 * BEFORE or statement triggers, row security, columns or partitions gets the
 * executor itself: is_ordinary() below says no, and the caller runs its SQL.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/nbtree.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "storage/lmgr.h"
#include "utils/datum.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "compat.h"
#include "row_access.h"

static SlAccess *listed = NULL;

/* ---------- what is kept ---------- */

/* A table changed, or all may have. */
static void
table_changed(Datum arg, Oid relid)
{
	SlAccess   *a;

	for (a = listed; a != NULL; a = a->next)
		if (!OidIsValid(relid) || a->made_for == relid)
			a->current = false;
}

/* A function changed; an expression may have a copy of it in it. */
static void
function_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	table_changed(arg, InvalidOid);
}

static void
hear_of_changes(SlAccess *a)
{
	if (listed == NULL)
	{
		CacheRegisterRelcacheCallback(table_changed, (Datum) 0);
		CacheRegisterSyscacheCallback(PROCOID, function_changed, (Datum) 0);
	}
	a->next = listed;
	listed = a;
	a->listed = true;
}

static bool
has_ordinary_triggers(const TriggerDesc *t)
{
	return t == NULL ||
		!(t->trig_insert_before_row || t->trig_update_before_row ||
		  t->trig_insert_instead_row || t->trig_update_instead_row ||
		  t->trig_insert_before_statement || t->trig_update_before_statement ||
		  t->trig_insert_after_statement || t->trig_update_after_statement ||
		  t->trig_insert_new_table || t->trig_update_old_table ||
		  t->trig_update_new_table);
}

/*
 * The columns that the caller knows, and perhaps one more that the database
 * numbers by itself.
 */
static bool
has_ordinary_columns(Relation rel, const SlAccess *a)
{
	TupleDesc	desc = RelationGetDescr(rel);
	int			identities = 0;
	int			i;

	if (desc->natts < a->ncols || desc->natts > a->ncols + 1)
		return false;
	for (i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped || att->attgenerated != '\0')
			return false;
		if (i < a->ncols && att->atttypid != a->types[i])
			return false;
		if (att->attidentity != '\0')
		{
			if (att->atttypid != INT8OID || (i > 0 && i < a->ncols))
				return false;
			identities++;
		}
		else if (i >= a->ncols)
			return false;
	}
	return identities <= 1;
}

/* The column that the database numbers, or -1. */
static int
identity_column(Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);
	int			i;

	for (i = 0; i < desc->natts; i++)
		if (TupleDescAttr(desc, i)->attidentity != '\0')
			return i;
	return -1;
}

/* Is the executor's way the only one to write this table? */
static bool
is_ordinary(Relation rel, const SlAccess *a)
{
	return rel->rd_rel->relkind == RELKIND_RELATION &&
		!rel->rd_rel->relispartition && !rel->rd_rel->relhassubclass &&
		!rel->rd_rel->relrowsecurity && rel->rd_rules == NULL &&
		has_ordinary_triggers(rel->trigdesc) &&
		has_ordinary_columns(rel, a);
}

/*
 * A range table of the one table.  As in the statements that this stands in
 * for, all columns but the key count as updated, whether they change or not:
 * triggers on UPDATE OF some column depend on that.
 */
static void
make_range_table(SlAccess *a, Relation rel)
{
	Bitmapset  *updated = NULL;
	int			i;

	for (i = 1; i < a->ncols; i++)
		updated = bms_add_member(updated,
								 i + 1 - FirstLowInvalidHeapAttributeNumber);
	sl_init_range_table(a->estate, rel, updated);
}

/* What an index is asked: is its first column equal to a key yet to come? */
static void
make_scan_key(Relation index, ScanKey skey)
{
	Oid			opclass_type = index->rd_opcintype[0];
	Oid			equal = get_opfamily_member(index->rd_opfamily[0], opclass_type,
											opclass_type, BTEqualStrategyNumber);

	ScanKeyEntryInitialize(skey, 0, 1, BTEqualStrategyNumber, InvalidOid,
						   index->rd_indcollation[0], get_opcode(equal),
						   (Datum) 0);
}

/* Forget what was kept, and make it for the table as it is now. */
static void
make_anew(SlAccess *a, Relation rel)
{
	MemoryContext old;
	int			i;

	if (!a->listed)
		hear_of_changes(a);
	if (a->cxt != NULL)
		MemoryContextDelete(a->cxt);
	a->cxt = NULL;
	a->locked_by = InvalidFullTransactionId;
	a->made_for = a->relid;
	a->current = true;
	a->usable = is_ordinary(rel, a);
	if (!a->usable)
		return;

	a->cxt = AllocSetContextCreate(TopMemoryContext, "stripe_lifecycle table",
								   ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(a->cxt);
	a->estate = CreateExecutorState();
	MemoryContextSwitchTo(a->estate->es_query_cxt);
	make_range_table(a, rel);
	a->target = makeNode(ResultRelInfo);
	InitResultRelInfo(a->target, rel, 1, NULL, 0);
	/* that is where triggers look for it */
	a->estate->es_opened_result_relations = list_make1(a->target);
	ExecOpenIndices(a->target, true);
	a->indexes = palloc(sizeof(Oid) * (a->target->ri_NumIndices + 1));
	a->questions = palloc0(sizeof(ScanKeyData) * (a->target->ri_NumIndices + 1));
	for (i = 0; i < a->target->ri_NumIndices; i++)
	{
		Relation	index = a->target->ri_IndexRelationDescs[i];

		a->indexes[i] = RelationGetRelid(index);
		if (index->rd_rel->relam == BTREE_AM_OID)
			make_scan_key(index, &a->questions[i]);
	}
	ExecCloseIndices(a->target);
	a->identity = identity_column(rel);
	if (a->identity >= 0)
		a->sequence = sl_identity_sequence(rel, a->identity + 1);
	MemoryContextSwitchTo(old);
}

/*
 * Open the table; NULL if it has to be left to the executor.  So it has in a
 * transaction with a fixed snapshot, whose rules are the executor's to know,
 * and on a standby, which must not take locks as for a write.
 */
static Relation
open_table(SlAccess *a, LOCKMODE mode)
{
	Relation	rel;

	if (a->busy || IsolationUsesXactSnapshot() || RecoveryInProgress())
		return NULL;
	rel = table_open(a->relid, mode);
	if (!a->current || a->made_for != a->relid)
		make_anew(a, rel);
	if (a->usable)
		return rel;
	table_close(rel, NoLock);
	return NULL;
}

/* ---------- finding ---------- */

/* An index of this column alone that has all rows, or -1. */
static int
index_of_column(SlAccess *a, int column, bool unique)
{
	int			i;

	for (i = 0; i < a->target->ri_NumIndices; i++)
	{
		IndexInfo  *info = a->target->ri_IndexRelationInfo[i];

		if (info->ii_Am == BTREE_AM_OID && (info->ii_Unique || !unique) &&
			info->ii_NumIndexKeyAttrs == 1 &&
			info->ii_IndexAttrNumbers[0] == column + 1 &&
			info->ii_Predicate == NIL)
			return i;
	}
	return -1;
}

/* Scan an index for a key, in the active snapshot. */
static IndexScanDesc
begin_scan(Relation rel, Relation index, const ScanKeyData *question, Datum key)
{
	ScanKeyData skey = *question;
	IndexScanDesc scan = sl_index_beginscan(rel, index, GetActiveSnapshot(), 1);

	skey.sk_argument = key;
	index_rescan(scan, &skey, 1, NULL, 0);
	return scan;
}

/* Look a row up by a unique index; true if the active snapshot has it. */
static bool
find(Relation rel, Relation index, const ScanKeyData *question, Datum key,
	 TupleTableSlot *slot)
{
	IndexScanDesc scan = begin_scan(rel, index, question, key);
	bool		found = index_getnext_slot(scan, ForwardScanDirection, slot);

	index_endscan(scan);		/* the slot holds the page by itself */
	return found;
}

/* Of all rows with the key, the one whose first column, an int8, is largest. */
static bool
find_newest(Relation rel, Relation index, const ScanKeyData *question,
			Datum key, TupleTableSlot *newest)
{
	IndexScanDesc scan = begin_scan(rel, index, question, key);
	TupleTableSlot *slot = NULL;
	int64		largest = 0;
	bool		found = index_getnext_slot(scan, ForwardScanDirection, newest);
	bool		isnull;

	if (found)
	{
		largest = DatumGetInt64(slot_getattr(newest, 1, &isnull));
		slot = table_slot_create(rel, NULL);
	}
	while (found && index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		int64		n = DatumGetInt64(slot_getattr(slot, 1, &isnull));

		if (n > largest)
		{
			ExecCopySlot(newest, slot);
			largest = n;
		}
	}
	if (slot != NULL)
		ExecDropSingleTupleTableSlot(slot);
	index_endscan(scan);
	return found;
}

/*
 * Lock the row in the slot, which then has its latest version, waited for if
 * need be.  False if it is there no more.
 */
static bool
lock_latest(Relation rel, TupleTableSlot *slot)
{
	TM_FailureData failure;
	ItemPointerData tid = slot->tts_tid;
	TM_Result	result;

	result = table_tuple_lock(rel, &tid, GetActiveSnapshot(), slot,
							  GetCurrentCommandId(false), LockTupleExclusive,
							  LockWaitBlock,
							  TUPLE_LOCK_FLAG_LOCK_UPDATE_IN_PROGRESS |
							  TUPLE_LOCK_FLAG_FIND_LAST_VERSION,
							  &failure);
	switch (result)
	{
		case TM_Ok:
			return true;
		case TM_SelfModified:
		case TM_Deleted:
			return false;
		default:
			elog(ERROR, "unexpected table_tuple_lock status: %u", result);
			return false;
	}
}

/* Keep where the row is that the slot holds, which was locked just now. */
static void
remember_locked(SlAccess *a, TupleTableSlot *slot)
{
	a->locked = slot->tts_tid;
	a->locked_by = GetTopFullTransactionIdIfAny();
	a->locked_in = GetCurrentSubTransactionId();
}

/*
 * The row to be updated is nearly always the one that was locked last, so there
 * is no need to search an index for it.  A lock that a subtransaction took and
 * lost does not count: the table may have been cut shorter since.
 */
static bool
find_locked(SlAccess *a, Relation rel, Datum key, TupleTableSlot *slot)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), 0);
	Datum		first;
	bool		isnull;

	if (!FullTransactionIdIsValid(a->locked_by) ||
		!FullTransactionIdEquals(a->locked_by, GetTopFullTransactionIdIfAny()) ||
		a->locked_in != GetCurrentSubTransactionId())
		return false;
	if (!table_tuple_fetch_row_version(rel, &a->locked, GetActiveSnapshot(), slot))
		return false;
	first = slot_getattr(slot, 1, &isnull);
	return !isnull && datum_image_eq(first, key, att->attbyval, att->attlen);
}

/* The columns that the caller knows, in the current memory context. */
static void
copy_values(SlAccess *a, Relation rel, TupleTableSlot *slot, Datum *values,
			bool *nulls)
{
	TupleDesc	desc = RelationGetDescr(rel);
	HeapTuple	tuple = ExecCopySlotHeapTuple(slot);
	Datum	   *all_values = values;
	bool	   *all_nulls = nulls;

	if (desc->natts > a->ncols)
	{
		all_values = palloc(sizeof(Datum) * desc->natts);
		all_nulls = palloc(sizeof(bool) * desc->natts);
	}
	heap_deform_tuple(tuple, desc, all_values, all_nulls);
	if (desc->natts > a->ncols)
	{
		memcpy(values, all_values, sizeof(Datum) * a->ncols);
		memcpy(nulls, all_nulls, sizeof(bool) * a->ncols);
	}
}

/* One column of it, likewise. */
static void
copy_value(Relation rel, TupleTableSlot *slot, int column, Datum *value,
		   bool *isnull)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), column);

	*value = slot_getattr(slot, column + 1, isnull);
	if (!*isnull)
		*value = datumCopy(*value, att->attbyval, att->attlen);
}

/* What is done with a row that is looked for. */
typedef enum Purpose
{
	TO_SEE,
	TO_LOCK,
	TO_SEE_NEWEST
} Purpose;

/* With ALL_COLUMNS, values and nulls are arrays. */
#define ALL_COLUMNS (-1)

static SlAccessResult
look_for(SlAccess *a, int column, Datum key, Purpose purpose, int wanted,
		 Datum *values, bool *nulls)
{
	SlAccessResult result = SL_ACCESS_USE_SQL;
	LOCKMODE	mode = purpose == TO_LOCK ? RowExclusiveLock : AccessShareLock;
	Relation	rel = open_table(a, mode);
	int			i = rel == NULL ? -1 :
		index_of_column(a, column, purpose != TO_SEE_NEWEST);

	if (i >= 0)
	{
		Relation	index = index_open(a->indexes[i], mode);
		TupleTableSlot *slot = table_slot_create(rel, NULL);
		bool		found;

		CommandCounterIncrement();
		PushActiveSnapshot(GetTransactionSnapshot());
		found = purpose == TO_SEE_NEWEST ?
			find_newest(rel, index, &a->questions[i], key, slot) :
			find(rel, index, &a->questions[i], key, slot);
		if (found && purpose == TO_LOCK)
		{
			found = lock_latest(rel, slot);
			if (found)
				remember_locked(a, slot);
		}
		if (found && wanted != ALL_COLUMNS)
			copy_value(rel, slot, wanted, values, nulls);
		else if (found && values != NULL)
			copy_values(a, rel, slot, values, nulls);
		PopActiveSnapshot();
		ExecDropSingleTupleTableSlot(slot);
		index_close(index, NoLock);
		result = found ? SL_ACCESS_DONE : SL_ACCESS_NO_ROW;
	}
	if (rel != NULL)
		table_close(rel, NoLock);
	return result;
}

/*
 * Find a row by a column that has a unique index and never changes once it has
 * a value.  With 'lock' it is locked, as SELECT FOR UPDATE does.  Its values,
 * unless they are not asked for, live in the current memory context.
 */
SlAccessResult
sl_access_find(SlAccess *a, int column, Datum key, bool lock, Datum *values,
			   bool *nulls)
{
	return look_for(a, column, key, lock ? TO_LOCK : TO_SEE, ALL_COLUMNS,
					values, nulls);
}

/*
 * Of the rows that have the key in a column with an index, which should be
 * few, find the one with the largest value in the first column, an int8; and of
 * that one the value of the column wanted.
 */
SlAccessResult
sl_access_newest(SlAccess *a, int column, Datum key, int wanted, Datum *value,
				 bool *isnull)
{
	return look_for(a, column, key, TO_SEE_NEWEST, wanted, value, isnull);
}

/* ---------- writing ---------- */

static void
begin_write(SlAccess *a, Relation rel)
{
	int			i;

	a->busy = true;
	a->target->ri_RelationDesc = rel;
	for (i = 0; i < a->target->ri_NumIndices; i++)
	{
		IndexInfo  *info = a->target->ri_IndexRelationInfo[i];

		a->target->ri_IndexRelationDescs[i] = index_open(a->indexes[i],
														 RowExclusiveLock);
		/* what an access method or a trigger's function keeps ends with this */
		info->ii_AmCache = NULL;
		info->ii_Context = CurrentMemoryContext;
	}
	if (a->target->ri_TrigDesc != NULL)
		memset(a->target->ri_TrigFunctions, 0,
			   sizeof(FmgrInfo) * a->target->ri_TrigDesc->numtriggers);
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	a->estate->es_snapshot = GetActiveSnapshot();
	a->estate->es_output_cid = GetCurrentCommandId(true);
	AfterTriggerBeginQuery();
}

static void
end_write(SlAccess *a, Relation rel)
{
	AfterTriggerEndQuery(a->estate);
	PopActiveSnapshot();
	CommandCounterIncrement();

	/* slots refer to the table, which may be another next time */
	ExecResetTupleTable(a->estate->es_tupleTable, true);
	a->estate->es_tupleTable = NIL;
	a->target->ri_TrigOldSlot = NULL;
	a->target->ri_TrigNewSlot = NULL;
	ResetPerTupleExprContext(a->estate);
	ExecCloseIndices(a->target);
	table_close(rel, NoLock);
	a->busy = false;
}

/* An error: transaction abort will close what is open; keep none of it. */
static void
give_up(SlAccess *a)
{
	a->current = false;
	a->busy = false;
}

/* A row to be written; the column that the caller does not know is null. */
static TupleTableSlot *
make_slot(Relation rel, const Datum *values, const bool *nulls, int ncols)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);

	ExecClearTuple(slot);
	memcpy(slot->tts_values, values, sizeof(Datum) * ncols);
	memcpy(slot->tts_isnull, nulls, sizeof(bool) * ncols);
	if (RelationGetDescr(rel)->natts > ncols)
		slot->tts_isnull[ncols] = true;
	return slot;
}

/*
 * Insert a row unless one of its keys is taken, as ON CONFLICT DO NOTHING does;
 * that is, speculatively: if somebody else turns out to have inserted the same
 * key at the same moment, the row is taken back.
 */
static bool
insert_unless_there(SlAccess *a, Relation rel, TupleTableSlot *slot)
{
	TransactionId xid = GetCurrentTransactionId();
	List	   *recheck;
	bool		conflict;

	ExecConstraints(a->target, slot, a->estate);
	do
	{
		uint32		token;

		if (!sl_check_index_constraints(a->target, slot, a->estate))
			return false;
		token = SpeculativeInsertionLockAcquire(xid);
		table_tuple_insert_speculative(rel, slot, GetCurrentCommandId(true), 0,
									   NULL, token);
		recheck = sl_insert_index_tuples(a->target, slot, a->estate, &conflict);
		table_tuple_complete_speculative(rel, slot, token, !conflict);
		SpeculativeInsertionLockRelease(xid);
	} while (conflict);

	ExecARInsertTriggers(a->estate, a->target, slot, recheck, NULL);
	return true;
}

/* Give a new row its number; the caller hears of it if he knows the column. */
static void
number_row(SlAccess *a, TupleTableSlot *slot, Datum *values, bool *nulls)
{
	Datum		n = Int64GetDatum(nextval_internal(a->sequence, false));

	slot->tts_values[a->identity] = n;
	slot->tts_isnull[a->identity] = false;
	if (a->identity < a->ncols)
	{
		values[a->identity] = n;
		nulls[a->identity] = false;
	}
}

/*
 * Insert a row; an identity column's value is made and filled in here.  With
 * 'may_exist' a row that has a key of it already is no error, and no row is
 * written.  Otherwise errors are those of INSERT, that of a taken key included.
 */
SlAccessResult
sl_access_insert(SlAccess *a, Datum *values, bool *nulls, bool may_exist)
{
	volatile bool written = true;
	Relation	rel = open_table(a, RowExclusiveLock);
	TupleTableSlot *slot;

	if (rel == NULL)
		return SL_ACCESS_USE_SQL;
	PG_TRY();
	{
		begin_write(a, rel);
		slot = make_slot(rel, values, nulls, a->ncols);
		if (a->identity >= 0)
			number_row(a, slot, values, nulls);
		ExecStoreVirtualTuple(slot);
		if (may_exist)
			written = insert_unless_there(a, rel, slot);
		else
			ExecSimpleRelationInsert(a->target, a->estate, slot);
		ExecDropSingleTupleTableSlot(slot);
		end_write(a, rel);
	}
	PG_CATCH();
	{
		give_up(a);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return written ? SL_ACCESS_DONE : SL_ACCESS_NO_ROW;
}

/* Update the row with the same first column; the caller has it locked. */
SlAccessResult
sl_access_update(SlAccess *a, const Datum *values, const bool *nulls)
{
	volatile SlAccessResult result = SL_ACCESS_NO_ROW;
	Relation	rel = open_table(a, RowExclusiveLock);
	int			i = rel == NULL ? -1 : index_of_column(a, 0, true);
	TupleTableSlot *slot;
	TupleTableSlot *old;

	if (i < 0)
	{
		if (rel != NULL)
			table_close(rel, NoLock);
		return SL_ACCESS_USE_SQL;
	}
	PG_TRY();
	{
		begin_write(a, rel);
		old = table_slot_create(rel, NULL);
		if (find_locked(a, rel, values[0], old) ||
			find(rel, a->target->ri_IndexRelationDescs[i], &a->questions[i],
				 values[0], old))
		{
			slot = make_slot(rel, values, nulls, a->ncols);
			if (a->identity >= a->ncols)
				slot->tts_values[a->identity] =
					slot_getattr(old, a->identity + 1,
								 &slot->tts_isnull[a->identity]);
			ExecStoreVirtualTuple(slot);
			ExecSimpleRelationUpdate(a->target, a->estate, NULL, old, slot);
			ExecDropSingleTupleTableSlot(slot);
			result = SL_ACCESS_DONE;
		}
		ExecDropSingleTupleTableSlot(old);
		end_write(a, rel);
	}
	PG_CATCH();
	{
		give_up(a);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return result;
}
