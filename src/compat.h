/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  Everything that differs between PostgreSQL 15 and 19, in one place.
 *
 * The only file that looks at PG_VERSION_NUM.  Call sites use the newest
 * shape of an interface; older servers get it from here.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_COMPAT_H
#define SL_COMPAT_H

#if PG_VERSION_NUM < 150000
#error "stripe_lifecycle requires PostgreSQL 15 or later"
#endif

/* fmgr.h declares _PG_init from 16 on. */
#if PG_VERSION_NUM < 160000
extern PGDLLEXPORT void _PG_init(void);
#endif

/* A function that does not return: an attribute behind its declaration until 17,
 * a word before it from 18 on. */
#if PG_VERSION_NUM < 180000
#define pg_noreturn pg_attribute_noreturn()
#endif

/*
 * Building jsonb: the builder became one struct in 19.
 */
#include "utils/jsonb.h"

#if PG_VERSION_NUM >= 190000
typedef JsonbInState SlJsonbBuilder;

static inline void
sl_jsonb_push(SlJsonbBuilder *b, JsonbIteratorToken token, JsonbValue *value)
{
	pushJsonbValue(b, token, value);
}
#else
typedef struct SlJsonbBuilder
{
	JsonbParseState *parseState;
	JsonbValue *result;
} SlJsonbBuilder;

static inline void
sl_jsonb_push(SlJsonbBuilder *b, JsonbIteratorToken token, JsonbValue *value)
{
	b->result = pushJsonbValue(&b->parseState, token, value);
}
#endif

static inline Jsonb *
sl_jsonb_built(SlJsonbBuilder *b)
{
	return JsonbValueToJsonb(b->result);
}

/* Where get_database_name() is declared. */
#if PG_VERSION_NUM >= 190000
#include "utils/lsyscache.h"
#else
#include "commands/dbcommands.h"
#endif

/* Wait events with names of their own came with 17. */
#if PG_VERSION_NUM >= 170000
#define sl_wait_event_new(name) WaitEventExtensionNew(name)
#else
#define sl_wait_event_new(name) PG_WAIT_EXTENSION
#endif

/* A set of events for the whole session, owned by nothing shorter-lived. */
#if PG_VERSION_NUM >= 170000
#define sl_create_wait_event_set(n) CreateWaitEventSet(NULL, (n))
#else
#define sl_create_wait_event_set(n) CreateWaitEventSet(TopMemoryContext, (n))
#endif

/* From 19 on DROP DATABASE may end a worker that says so. */
#if PG_VERSION_NUM >= 190000
#define SL_BGWORKER_INTERRUPTIBLE BGWORKER_INTERRUPTIBLE
#else
#define SL_BGWORKER_INTERRUPTIBLE 0
#endif

/* A DROP DATABASE that was interrupted leaves this mark (DATCONNLIMIT_
 * INVALID_DB, missing in the first minor releases of 15). */
#define SL_DATCONNLIMIT_INVALID (-2)

/* This setting would cut a worker's transaction short, where it exists. */
#if PG_VERSION_NUM >= 170000
#define SL_TRANSACTION_TIMEOUT_SETTING "transaction_timeout"
#endif

/*
 * Set-returning functions in materialize mode, of rows or of single values.
 * Renamed in 16; the early minor releases of 15 have the old name only.  The
 * tuplestore they write to no longer comes along with funcapi.h from 19 on.
 */
#include "funcapi.h"
#include "utils/tuplestore.h"

#if PG_VERSION_NUM >= 160000
#define sl_init_materialized(fcinfo) InitMaterializedSRF(fcinfo, 0)
#define sl_init_materialized_scalar(fcinfo) \
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC)
#else
#define sl_init_materialized(fcinfo) SetSingleFuncCall(fcinfo, 0)
#define sl_init_materialized_scalar(fcinfo) \
	SetSingleFuncCall(fcinfo, SRF_SINGLE_USE_EXPECTED)
#endif

/*
 * The range table of an executor state that was made by hand, for one table
 * whose given columns count as updated.  From 16 on the columns stand in a list
 * of their own; 18 wants to know which entries survived pruning.
 */
#include "executor/executor.h"
#include "parser/parse_relation.h"
#include "utils/rel.h"

static inline void
sl_init_range_table(EState *estate, Relation rel, Bitmapset *updated)
{
	RangeTblEntry *rte = makeNode(RangeTblEntry);

	rte->rtekind = RTE_RELATION;
	rte->relid = RelationGetRelid(rel);
	rte->relkind = rel->rd_rel->relkind;
	rte->rellockmode = RowExclusiveLock;
#if PG_VERSION_NUM >= 160000
	{
		List	   *permissions = NIL;

		addRTEPermissionInfo(&permissions, rte)->updatedCols = updated;
#if PG_VERSION_NUM >= 180000
		ExecInitRangeTable(estate, list_make1(rte), permissions,
						   bms_make_singleton(1));
#else
		ExecInitRangeTable(estate, list_make1(rte), permissions);
#endif
	}
#else
	rte->updatedCols = updated;
	ExecInitRangeTable(estate, list_make1(rte));
#endif
}

/* Scans count what they read from 18 on, and take hints from 19 on; ours are no
 * part of a plan. */
#include "access/genam.h"

#if PG_VERSION_NUM >= 190000
#define sl_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan((heap), (index), (snapshot), NULL, (nkeys), 0, SO_NONE)
#elif PG_VERSION_NUM >= 180000
#define sl_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan((heap), (index), (snapshot), NULL, (nkeys), 0)
#else
#define sl_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan((heap), (index), (snapshot), (nkeys), 0)
#endif

/*
 * Parts of INSERT ... ON CONFLICT DO NOTHING, for all unique indexes.  Indexes
 * that summarise came with 16; 18 can leave a row of the table out of account;
 * 19 has flags in one argument.
 */
static inline bool
sl_check_index_constraints(ResultRelInfo *target, TupleTableSlot *slot,
						   EState *estate)
{
	ItemPointerData conflict;

#if PG_VERSION_NUM >= 180000
	ItemPointerData none;

	ItemPointerSetInvalid(&none);
	return ExecCheckIndexConstraints(target, slot, estate, &conflict, &none, NIL);
#else
	return ExecCheckIndexConstraints(target, slot, estate, &conflict, NIL);
#endif
}

static inline List *
sl_insert_index_tuples(ResultRelInfo *target, TupleTableSlot *slot,
					   EState *estate, bool *conflict)
{
	*conflict = false;
#if PG_VERSION_NUM >= 190000
	return ExecInsertIndexTuples(target, estate, EIIT_NO_DUPE_ERROR, slot, NIL,
								 conflict);
#elif PG_VERSION_NUM >= 160000
	return ExecInsertIndexTuples(target, slot, estate, false, true, conflict,
								 NIL, false);
#else
	return ExecInsertIndexTuples(target, slot, estate, false, true, conflict,
								 NIL);
#endif
}

/* The sequence behind an identity column; 17 wants the relation itself. */
#include "catalog/dependency.h"

#if PG_VERSION_NUM >= 170000
#define sl_identity_sequence(rel, attnum) getIdentitySequence((rel), (attnum), false)
#else
#define sl_identity_sequence(rel, attnum) \
	getIdentitySequence(RelationGetRelid(rel), (attnum), false)
#endif

#endif							/* SL_COMPAT_H */
