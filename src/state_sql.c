/*-------------------------------------------------------------------------
 *
 * state_sql.c
 *	  Shows the state machine to SQL.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"

#include "catalog.h"
#include "compat.h"
#include "store.h"
#include "wake.h"

PG_FUNCTION_INFO_V1(sl_legal_transitions);
PG_FUNCTION_INFO_V1(sl_wake_worker);

/*
 * SQL: legal_transitions() returns setof (from_state, to_state, evidence).
 */
Datum
sl_legal_transitions(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	size_t		n;
	const SlEdge *edges = sl_edges(&n);
	size_t		i;

	sl_require_version();
	sl_init_materialized(fcinfo);
	for (i = 0; i < n; i++)
	{
		Datum		values[3];
		bool		nulls[3] = {false};

		nulls[0] = edges[i].from == SL_STATE_NONE;
		values[0] = nulls[0] ? (Datum) 0 : sl_state_datum(edges[i].from);
		values[1] = sl_state_datum(edges[i].to);
		values[2] = CStringGetTextDatum(edges[i].evidence);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/*
 * SQL: wake_worker() returns void.  At commit, the worker looks at the queue.
 */
Datum
sl_wake_worker(PG_FUNCTION_ARGS)
{
	sl_require_version();
	sl_wake_at_commit();
	PG_RETURN_VOID();
}
