/*-------------------------------------------------------------------------
 *
 * replication.c
 *	  Tables that get their rows from another server.
 *
 * On a subscriber of logical replication the rows were judged where they were
 * written.  There the guards let the apply worker's own writes through, and
 * nobody else's: what was written locally could contradict what arrives, and
 * would then stop replication.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "replication/logicalworker.h"
#include "utils/catcache.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "catalog.h"
#include "compat.h"
#include "errors.h"
#include "replication.h"

/*
 * In a trigger: is the write that set it off one of the apply worker itself?
 * What triggers of others do in there is theirs and gets no leave.
 */
bool
sl_is_replicated_write(void)
{
	return IsLogicalWorker() &&
		DatumGetInt32(OidFunctionCall0(F_PG_TRIGGER_DEPTH)) == 1;
}

/* Does a subscription of this database write to the table? */
bool
sl_is_subscribed(Oid table)
{
	CatCList   *list = SearchSysCacheList1(SUBSCRIPTIONRELMAP,
										   ObjectIdGetDatum(table));
	bool		subscribed = list->n_members > 0;

	ReleaseSysCacheList(list);
	return subscribed;
}

/* Raises SL007 if it does; for whoever is not the apply worker. */
void
sl_refuse_subscribed(Oid table)
{
	if (!sl_is_subscribed(table))
		return;
	ereport(ERROR,
			(errcode(SL_ERRCODE_SUBSCRIBED),
			 errmsg("cannot write to table \"%s.%s\": its rows come from another server",
					SL_SCHEMA, get_rel_name(table)),
			 errdetail("A subscription of this database replicates the table."),
			 errhint("Write on the publishing server.  To take over here, drop the subscription and call stripe_lifecycle.resume_worker().")));
}
