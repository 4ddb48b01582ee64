/*-------------------------------------------------------------------------
 *
 * launcher.c
 *	  Starts a worker in each database that has something to send.
 *
 * There is one launcher per server.  It is connected to no database, so it
 * stands in nobody's way, and it sees the shared catalogs only.  Which
 * databases have work it learns from the slots (see slots.c): because a
 * backend committed some, or because the worker that left last time said when
 * the next request falls due.
 *
 * What was queued before the server started is in no slot.  So at its own
 * start the launcher makes a tour: one short-lived worker in one database
 * after the other, which stays if it finds the extension and work, and is gone
 * in a few milliseconds if not.  The next database's turn comes when a worker
 * has ended or has taken its slot.  Server start, crash recovery, promotion of
 * a standby and a restart of the launcher are all the same to it.
 *
 * Databases that stripe_lifecycle.databases leaves out are not visited, and
 * their slots are passed over.  A change of that setting means another tour.
 *
 * Between two events it sleeps without a timeout.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "compat.h"
#include "guc.h"
#include "launcher.h"
#include "slots.h"

#define SL_LIBRARY "stripe_lifecycle"

/* After being refused a process: how long to wait, when and how often to complain. */
#define SL_NO_PROCESS_PAUSE_MS		500
#define SL_NO_PROCESS_PATIENCE_MS	1000
#define SL_NO_PROCESS_WARNING_MS	60000

/* Tours that backends ask for come no closer together than this. */
#define SL_TOUR_INTERVAL_MS			10000

/* A worker that was asked for and whose process is not known to be gone. */
typedef struct Launch
{
	Oid			dboid;
	BackgroundWorkerHandle *handle;
} Launch;

typedef struct Launcher
{
	MemoryContext cxt;			/* lives as long as the process */
	MemoryContext scratch;		/* reset each time round */
	List	   *launches;		/* of Launch */
	List	   *tour;			/* OIDs of databases still to be visited */
	Oid			visiting;		/* whom the tour waits for */
	TimestampTz next_tour;		/* no new one before */
	TimestampTz blocked_until;	/* no process was to be had ... */
	TimestampTz blocked_since;	/* ... since then; 0: there was one */
	TimestampTz complained;
	char	   *databases;		/* the setting, as it was last seen */
} Launcher;

/* What pg_database says, for one round. */
typedef struct Databases
{
	bool		known;
	List	   *all;			/* OIDs */
	List	   *connectable;
	List	   *unserved;		/* not in stripe_lifecycle.databases */
} Databases;

/*
 * Registered even where no database has the extension yet, so that CREATE
 * EXTENSION is all it takes.
 */
void
sl_launcher_register(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_library_name, SL_LIBRARY, BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "sl_launcher_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "stripe_lifecycle launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "stripe_lifecycle launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

/*
 * Reads pg_database, once per round at most.  The lists are in the scratch
 * context.
 */
static void
read_databases(Launcher *l, Databases *dbs)
{
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (dbs->known)
		return;

	StartTransactionCommand();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_database db = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext old = MemoryContextSwitchTo(l->scratch);

		dbs->all = lappend_oid(dbs->all, db->oid);
		if (db->datallowconn && db->datconnlimit != SL_DATCONNLIMIT_INVALID)
			dbs->connectable = lappend_oid(dbs->connectable, db->oid);
		if (!sl_database_is_served(NameStr(db->datname)))
			dbs->unserved = lappend_oid(dbs->unserved, db->oid);
		MemoryContextSwitchTo(old);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(l->scratch);
	dbs->known = true;
}

/* Only a setting can make one so; without it nothing has to be read. */
static bool
is_unserved(Launcher *l, Databases *dbs, Oid dboid)
{
	if (sl_databases[0] == '\0')
		return false;
	read_databases(l, dbs);
	return list_member_oid(dbs->unserved, dboid);
}

static bool
is_launched(Launcher *l, Oid dboid)
{
	ListCell   *lc;

	foreach(lc, l->launches)
	{
		if (((Launch *) lfirst(lc))->dboid == dboid)
			return true;
	}
	return false;
}

/*
 * No free background worker process.  Workers of ours that have nothing to do
 * make room; if that does not help, say so, but not all the time.
 */
static void
process_refused(Launcher *l)
{
	TimestampTz now = GetCurrentTimestamp();

	sl_slots_set_crowded(true);
	l->blocked_until = TimestampTzPlusMilliseconds(now, SL_NO_PROCESS_PAUSE_MS);
	if (l->blocked_since == 0)
		l->blocked_since = now;
	if (!TimestampDifferenceExceeds(l->blocked_since, now,
									SL_NO_PROCESS_PATIENCE_MS) ||
		!TimestampDifferenceExceeds(l->complained, now, SL_NO_PROCESS_WARNING_MS))
		return;
	l->complained = now;
	ereport(WARNING,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("stripe_lifecycle could not start a worker: no background worker slot is free"),
			 errdetail("Requests are stored and wait; this is tried again every %d milliseconds.",
					   SL_NO_PROCESS_PAUSE_MS),
			 errhint("You might need to increase \"max_worker_processes\".")));
}

/*
 * Asks the postmaster for a worker.  It reports back through this process's
 * latch, both when the worker runs and when it has ended.
 */
static bool
launch(Launcher *l, Oid dboid)
{
	BackgroundWorker worker;
	BackgroundWorkerHandle *handle;
	MemoryContext old;
	Launch	   *entry;
	int			slot = sl_slot_find(dboid);

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION | SL_BGWORKER_INTERRUPTIBLE;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, SL_LIBRARY, BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "sl_worker_main", BGW_MAXLEN);
	snprintf(worker.bgw_name, BGW_MAXLEN,
			 "stripe_lifecycle worker for database %u", dboid);
	strlcpy(worker.bgw_type, "stripe_lifecycle worker", BGW_MAXLEN);
	worker.bgw_main_arg = ObjectIdGetDatum(dboid);
	worker.bgw_notify_pid = MyProcPid;

	if (slot != SL_NO_SLOT)
		sl_slot_launching(slot, dboid);

	old = MemoryContextSwitchTo(l->cxt);
	if (RegisterDynamicBackgroundWorker(&worker, &handle))
	{
		entry = palloc(sizeof(Launch));
		entry->dboid = dboid;
		entry->handle = handle;
		l->launches = lappend(l->launches, entry);
	}
	else
		handle = NULL;
	MemoryContextSwitchTo(old);

	if (handle == NULL)
		process_refused(l);
	else if (l->blocked_since != 0)
	{
		l->blocked_since = 0;
		sl_slots_set_crowded(false);
	}
	return handle != NULL;
}

/* Forgets the workers whose process has ended. */
static void
reap_launches(Launcher *l)
{
	ListCell   *lc;

	foreach(lc, l->launches)
	{
		Launch	   *entry = (Launch *) lfirst(lc);
		pid_t		pid;
		int			slot;

		switch (GetBackgroundWorkerPid(entry->handle, &pid))
		{
			case BGWH_STARTED:
			case BGWH_NOT_YET_STARTED:
				continue;
			case BGWH_POSTMASTER_DIED:
				proc_exit(1);
			case BGWH_STOPPED:
				break;
		}
		slot = sl_slot_find(entry->dboid);
		if (slot != SL_NO_SLOT)
			sl_slot_launch_ended(slot, entry->dboid);
		/* its process is free now */
		l->blocked_until = 0;
		l->launches = foreach_delete_current(l->launches, lc);
		pfree(entry->handle);
		pfree(entry);
	}
}

/* Is somebody at work in there, or about to be? */
static bool
is_served(Launcher *l, Oid dboid)
{
	int			slot = sl_slot_find(dboid);
	SlSlotView	view;

	return is_launched(l, dboid) ||
		(slot != SL_NO_SLOT && sl_slot_view(slot, &view) &&
		 view.dboid == dboid && view.running);
}

/* Has the worker that the tour waits for ended, or settled in? */
static bool
visit_is_over(Launcher *l)
{
	int			slot;
	SlSlotView	view;

	if (!OidIsValid(l->visiting) || !is_launched(l, l->visiting))
		return true;
	slot = sl_slot_find(l->visiting);
	return slot != SL_NO_SLOT && sl_slot_view(slot, &view) &&
		view.dboid == l->visiting && view.running;
}

/*
 * One step of a tour, or the beginning of one that was asked for.  Returns
 * when to call again at the latest.
 */
static TimestampTz
tour(Launcher *l, Databases *dbs, TimestampTz now)
{
	if (l->tour == NIL && sl_slots_tour_requested())
	{
		MemoryContext old;

		if (now < l->next_tour)
			return l->next_tour;
		sl_slots_take_tour_request();
		l->next_tour = TimestampTzPlusMilliseconds(now, SL_TOUR_INTERVAL_MS);
		read_databases(l, dbs);
		old = MemoryContextSwitchTo(l->cxt);
		l->tour = list_difference_oid(dbs->connectable, dbs->unserved);
		MemoryContextSwitchTo(old);
	}

	while (l->tour != NIL)
	{
		Oid			dboid = linitial_oid(l->tour);

		if (!visit_is_over(l))
			return DT_NOEND;
		l->visiting = InvalidOid;
		if (now < l->blocked_until)
			return l->blocked_until;
		if (!is_served(l, dboid))
		{
			if (!launch(l, dboid))
				return l->blocked_until;
			l->visiting = dboid;
		}
		l->tour = list_delete_first(l->tour);
	}
	return DT_NOEND;
}

/*
 * Starts a worker for one slot whose time has come; a slot whose database is
 * gone is given up.  False: no process was to be had.
 */
static bool
start_one(Launcher *l, Databases *dbs, int slot, Oid dboid)
{
	read_databases(l, dbs);
	if (!list_member_oid(dbs->all, dboid))
	{
		sl_slot_free(slot, dboid);
		return true;
	}
	if (!list_member_oid(dbs->connectable, dboid))
	{
		/* may be opened again: a failed launch, with back-off */
		sl_slot_launching(slot, dboid);
		sl_slot_launch_ended(slot, dboid);
		return true;
	}
	return launch(l, dboid);
}

/* Starts all workers that are due; returns when the next one will be. */
static TimestampTz
start_due(Launcher *l, Databases *dbs, TimestampTz now)
{
	TimestampTz next = DT_NOEND;
	int			i;

	for (i = 0; i < sl_slots_count(); i++)
	{
		SlSlotView	view;

		if (!sl_slot_view(i, &view) || view.running)
			continue;
		/* its end comes with a signal */
		if (is_launched(l, view.dboid))
			continue;
		if (view.start_at > now)
		{
			next = Min(next, view.start_at);
			continue;
		}
		if (is_unserved(l, dbs, view.dboid))
			continue;
		if (now < l->blocked_until ||
			!start_one(l, dbs, i, view.dboid))
			return Min(next, l->blocked_until);

		/* given up, backing off, or launched: what is it now? */
		if (sl_slot_view(i, &view) && !is_launched(l, view.dboid))
			next = Min(next, view.start_at);
	}
	return next;
}

static void
sleep_until(TimestampTz when, uint32 wait_event)
{
	int			events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;
	long		ms = -1;

	if (when != DT_NOEND)
	{
		/* up to an hour at once, against clocks that are set */
		ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), when);
		ms = Min(ms, 3600 * 1000);
		events |= WL_TIMEOUT;
	}
	(void) WaitLatch(MyLatch, events, ms, wait_event);
}

/* What was queued in a database while it was left out is in no slot. */
static void
look_for_new_databases(Launcher *l)
{
	if (l->databases != NULL && strcmp(l->databases, sl_databases) == 0)
		return;
	if (l->databases != NULL)
	{
		pfree(l->databases);
		l->next_tour = 0;
		sl_slots_request_tour();
	}
	l->databases = MemoryContextStrdup(l->cxt, sl_databases);
}

static void
handle_interrupts(Launcher *l)
{
	/* there is no statement that a cancel request could mean */
	QueryCancelPending = false;
	/* the postmaster logs this; a shutdown needs no further line */
	if (ProcDiePending)
		proc_exit(1);
	CHECK_FOR_INTERRUPTS();

	if (ConfigReloadPending)
	{
		int			reconcile = sl_reconcile_interval;
		int			checkpoint = sl_checkpoint_interval;
		char	   *key_file = pstrdup(sl_checkpoint_key_file);

		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		sl_slots_configuration_reloaded();
		look_for_new_databases(l);
		/* without a worker a run or a checkpoint may be due earlier than noted */
		if (sl_reconcile_interval != reconcile ||
			sl_checkpoint_interval != checkpoint ||
			strcmp(sl_checkpoint_key_file, key_file) != 0)
		{
			l->next_tour = 0;
			sl_slots_request_tour();
		}
	}
}

static void
start_up(Launcher *l)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	SetConfigOption("application_name", "stripe_lifecycle launcher",
					PGC_USERSET, PGC_S_OVERRIDE);

	memset(l, 0, sizeof(*l));
	l->cxt = AllocSetContextCreate(TopMemoryContext, "stripe_lifecycle launcher",
								   ALLOCSET_DEFAULT_SIZES);
	l->scratch = AllocSetContextCreate(l->cxt, "stripe_lifecycle launcher round",
									   ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(l->scratch);
	look_for_new_databases(l);
	sl_slots_set_crowded(false);
	sl_slots_launcher_attach();
	sl_slots_configuration_reloaded();
	sl_slots_request_tour();
}

/*
 * An error ends the process, and the postmaster starts another one a second
 * later; all that it has to know is in the slots and the tour.
 */
void
sl_launcher_main(Datum main_arg)
{
	Launcher	l;
	uint32		wait_event;

	start_up(&l);
	wait_event = sl_wait_event_new("StripeLifecycleLauncherMain");

	for (;;)
	{
		Databases	dbs = {false, NIL, NIL, NIL};
		TimestampTz now;
		TimestampTz next;
		TimestampTz next_visit;

		ResetLatch(MyLatch);
		handle_interrupts(&l);
		MemoryContextReset(l.scratch);

		reap_launches(&l);
		now = GetCurrentTimestamp();
		next = start_due(&l, &dbs, now);
		next_visit = tour(&l, &dbs, now);
		sleep_until(Min(next, next_visit), wait_event);
	}
}
