/*-------------------------------------------------------------------------
 *
 * wake.c
 *	  Wakes the worker of this database when a transaction that queued work
 *	  commits.
 *
 * Everything that can fail or wait happens inside the transaction: finding
 * or reserving the database's slot.  After the commit only atomics and a
 * latch are touched, since an error there would take the server down.
 *
 * A transaction that is prepared commits in some other session later, which
 * knows nothing of what this one did.  So the end of any COMMIT PREPARED
 * wakes the worker of its database; one look at the queue too many is cheap.
 *
 * The callbacks are registered once per process.  Doing so per transaction
 * would let them pile up for as long as the session lives.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"

#include "changes.h"
#include "compat.h"
#include "guc.h"
#include "slots.h"
#include "wake.h"

static bool wake_pending = false;	/* this transaction queued work */
static int	slot_to_wake = SL_NO_SLOT;	/* of this database; a hint */
static bool warned = false;

static ProcessUtility_hook_type prev_process_utility = NULL;

static void
xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			if (wake_pending)
			{
				wake_pending = false;
				if (slot_to_wake == SL_NO_SLOT)
					sl_slots_request_tour();
				else
					sl_slot_wake(slot_to_wake, MyDatabaseId);
			}
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			wake_pending = false;
			break;
		default:
			break;
	}
}

/*
 * COMMIT PREPARED runs inside a transaction of its own, whose end comes after
 * the prepared one's effects are visible: xact_callback does the rest.
 */
static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *query_env, DestReceiver *dest,
				QueryCompletion *completion)
{
	bool		commits_prepared;

	commits_prepared = IsA(pstmt->utilityStmt, TransactionStmt) &&
		((TransactionStmt *) pstmt->utilityStmt)->kind ==
		TRANS_STMT_COMMIT_PREPARED;

	if (prev_process_utility)
		prev_process_utility(pstmt, query, read_only_tree, context, params,
							 query_env, dest, completion);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params,
								query_env, dest, completion);

	if (commits_prepared)
		sl_changes_note_any();
	if (commits_prepared && sl_slots_ready())
	{
		int			slot = sl_slot_find(MyDatabaseId);

		/* no slot: the extension has never been at work here */
		if (slot != SL_NO_SLOT)
		{
			slot_to_wake = slot;
			wake_pending = true;
		}
	}
}

void
sl_wake_init(void)
{
	sl_slots_init();
	if (!process_shared_preload_libraries_in_progress)
		return;
	RegisterXactCallback(xact_callback, NULL);
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}

/* Nobody is to be woken where stripe_lifecycle.databases wants no worker. */
static bool
is_served(void)
{
	char	   *name;

	if (sl_databases[0] == '\0')
		return true;
	name = get_database_name(MyDatabaseId);
	return name == NULL || sl_database_is_served(name);
}

/*
 * Without the library being preloaded this does nothing: the request waits
 * in its table until the server has been restarted with a worker.
 */
void
sl_wake_at_commit(void)
{
	if (!sl_slots_ready() || wake_pending || !is_served())
		return;

	slot_to_wake = sl_slot_reserve(MyDatabaseId);
	if (slot_to_wake == SL_NO_SLOT && !warned)
	{
		warned = true;
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no worker can serve this database: too many databases use stripe_lifecycle"),
				 errdetail("The request is stored and waits."),
				 errhint("Increase \"stripe_lifecycle.max_databases\" and restart the server.")));
	}
	wake_pending = true;
}

bool
sl_worker_available(void)
{
	return sl_slots_ready() && sl_slots_launcher_alive();
}
