/*-------------------------------------------------------------------------
 *
 * snapshot_release.c
 *	  Lets a function wait without keeping a snapshot, where that is safe.
 *
 * A statement holds its snapshot for as long as it runs, and with it this
 * session's xmin: VACUUM can remove nothing that has died since, in the whole
 * database.  Between two statements of a READ COMMITTED transaction there is
 * no snapshot, and nobody misses it.  This brings about the same state in the
 * middle of a statement that does nothing but call the function which waits,
 * such as
 *
 *		SELECT * FROM payment_status('...', wait => '30 s')
 *
 * A snapshot may go if nobody uses it to read any more, and if nobody keeps a
 * value by reference that only the snapshot protects (a TOAST pointer).  So
 * all of the following has to be true, or the snapshot stays:
 *
 * - The transaction is READ COMMITTED: every statement has its own snapshot.
 * - The portal that runs has an executor, and the function was called by that
 *	 very executor: no other function stands in between, whose variables or
 *	 queries might depend on the snapshot.
 * - Its plan reads no relation (relationOids is empty; the relations of views
 *	 and of inlined functions would be there), so that the executor has nothing
 *	 to read, and has read nothing.
 * - Its plan depends on no user-defined function or domain but this one
 *	 function (invalItems says so, by which the plan cache knows what to watch).
 *	 So no value in it can come from a table behind the planner's back.
 * - The snapshot has the three references that the portal gives it and no
 *	 more: of the portal's descriptor, of its executor's state, and the one on
 *	 the stack of active snapshots.
 *
 * Nothing is changed behind the snapshot manager's back: these three are given
 * up through its own functions, and it sets xmin as it does at the end of a
 * statement.  Should anybody else hold a snapshot in this session (a cursor, a
 * function from within which a query came here), xmin stays with theirs.
 *
 * When the wait is over, the three get a new snapshot of that moment.  An
 * error in the meantime, such as a cancelled query, finds fewer snapshots to
 * clean up; a failed portal's descriptor and state are not looked at again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/execdesc.h"
#include "nodes/execnodes.h"
#include "nodes/nodeFuncs.h"
#include "nodes/plannodes.h"
#include "tcop/pquery.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "compat.h"
#include "snapshot_release.h"

/* expression_tree_walker: is this very node in a tree? */
static bool
contains_node(Node *tree, void *node)
{
	if (tree == NULL)
		return false;
	return tree == node || expression_tree_walker(tree, contains_node, node);
}

/*
 * Was the function called by this executor itself?  From a FROM clause, it
 * gets the executor's context; in a list of results, its call is part of the
 * plan.
 */
static bool
called_from(FunctionCallInfo fcinfo, const QueryDesc *q)
{
	const ReturnSetInfo *rsinfo = (const ReturnSetInfo *) fcinfo->resultinfo;

	if (rsinfo != NULL)
		return IsA(rsinfo, ReturnSetInfo) && rsinfo->econtext != NULL &&
			rsinfo->econtext->ecxt_estate == q->estate;
	return fcinfo->flinfo->fn_expr != NULL &&
		contains_node((Node *) q->plannedstmt->planTree->targetlist,
					  fcinfo->flinfo->fn_expr);
}

/* Does the plan do nothing but call this function, and built-in ones? */
static bool
plan_reads_nothing(const PlannedStmt *plan, Oid function)
{
	uint32		hash = GetSysCacheHashValue1(PROCOID, ObjectIdGetDatum(function));
	ListCell   *lc;

	if (plan->commandType != CMD_SELECT || plan->relationOids != NIL ||
		plan->rowMarks != NIL || plan->hasModifyingCTE)
		return false;
	foreach(lc, plan->invalItems)
	{
		const PlanInvalItem *item = lfirst_node(PlanInvalItem, lc);

		if (item->cacheId != PROCOID || item->hashValue != hash)
			return false;
	}
	return true;
}

static bool
is_safe(FunctionCallInfo fcinfo)
{
	QueryDesc  *q = ActivePortal == NULL ? NULL : ActivePortal->queryDesc;

	return q != NULL && q->estate != NULL && q->snapshot != NULL &&
		ActivePortal->strategy == PORTAL_ONE_SELECT &&
		ActivePortal->portalSnapshot == NULL &&
		ActivePortal->holdSnapshot == NULL &&
		!IsolationUsesXactSnapshot() &&
		called_from(fcinfo, q) &&
		q->estate->es_snapshot == q->snapshot &&
		ActiveSnapshotSet() && GetActiveSnapshot() == q->snapshot &&
		q->snapshot->regd_count == 2 && q->snapshot->active_count == 1 &&
		plan_reads_nothing(q->plannedstmt, fcinfo->flinfo->fn_oid);
}

bool
sl_snapshot_release(FunctionCallInfo fcinfo)
{
	QueryDesc  *q;

	if (!is_safe(fcinfo))
		return false;

	q = ActivePortal->queryDesc;
	PopActiveSnapshot();
	UnregisterSnapshotFromOwner(q->estate->es_snapshot, ActivePortal->resowner);
	q->estate->es_snapshot = InvalidSnapshot;
	UnregisterSnapshotFromOwner(q->snapshot, ActivePortal->resowner);
	q->snapshot = InvalidSnapshot;

	/* it is taken anew by whoever looks into the catalogs next */
	InvalidateCatalogSnapshot();
	return true;
}

void
sl_snapshot_take_back(void)
{
	QueryDesc  *q = ActivePortal->queryDesc;
	Snapshot	now = GetTransactionSnapshot();

	q->snapshot = RegisterSnapshotOnOwner(now, ActivePortal->resowner);
	q->estate->es_snapshot = RegisterSnapshotOnOwner(q->snapshot,
													 ActivePortal->resowner);
	PushActiveSnapshot(q->snapshot);
}
