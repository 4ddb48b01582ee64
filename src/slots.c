/*-------------------------------------------------------------------------
 *
 * slots.c
 *	  The shared table of databases that may need a worker.
 *
 * Why no wake is lost.  A backend that has committed work sets the slot's
 * wake flag first and reads the worker's latch second; a worker that leaves
 * takes its latch away first and reads the wake flag second, with a full
 * barrier between the two on both sides.  So either the worker sees the flag
 * and stays, or the backend sees no latch and wakes the launcher, which looks
 * at the flag.  The launcher may find the worker not quite gone; then the
 * worker's own last step is to set the launcher's latch, and it looks again.
 *
 * The same order protects a slot that is given to another database: the OID
 * is written first, then the flag is read.  A backend that wakes a slot which
 * is no longer its database's asks for a tour of all databases instead.
 *
 * A reload reaches every process by a signal of its own, and none can tell
 * whether another has had it yet.  So the launcher's counts: it raises a
 * number, and workers re-read the configuration when they see the number
 * change.  A worker that leaves for want of a key compares it under the lock.
 *
 * What a committing backend touches is atomic, because nothing may fail once
 * a transaction has committed.  Everything else is under one lock, which is
 * never held over anything that can raise an error.
 *
 * A latch is always that of a PGPROC.  Those live as long as shared memory,
 * so setting the latch of a process that has just ended is harmless.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "guc.h"
#include "shmem.h"
#include "slots.h"
#include "stats.h"

/* A worker that fails is started again after 1 s, 2 s, 4 s ... 60 s. */
#define SL_BACKOFF_MIN_MS	1000
#define SL_BACKOFF_MAX_MS	60000

/* How often a database's worker says that it can't seal the audit trail. */
#define SL_SEALING_WARNING_MS	(3600 * 1000)

typedef struct SlSlot
{
	pg_atomic_uint32 dboid;		/* InvalidOid: free; changed under the lock */
	pg_atomic_uint32 wake;		/* work was committed, nobody looked yet */
	pg_atomic_uint64 latch;		/* the worker's, or 0 */

	/* under the lock */
	int			pid;			/* the worker's, or 0 */
	bool		launching;		/* asked for, has not reported yet */
	bool		awaits_reload;	/* worker left for want of an API key */
	bool		absent;			/* worker left for want of the extension */
	int			failures;		/* in a row */
	TimestampTz attached_at;
	TimestampTz next_due;		/* of the queue, when the worker left */
	TimestampTz not_before;		/* back-off after failures */
	uint32		warned_of_key;	/* the reload after which it was */
	TimestampTz warned_of_sealing;	/* when it was; 0: not since the reload */
} SlSlot;

typedef struct SlShared
{
	LWLock	   *lock;
	pg_atomic_uint64 launcher;	/* its latch, or 0 */
	pg_atomic_uint32 tour;		/* some database has work but no slot */
	pg_atomic_uint32 crowded;	/* the launcher could not get a process */
	pg_atomic_uint32 reloads;	/* how often the launcher has seen one */
	int			nslots;
	SlSlot		slots[FLEXIBLE_ARRAY_MEMBER];
} SlShared;

static SlShared *shared = NULL;
static int	my_slot = SL_NO_SLOT;	/* the worker's own */

static void launcher_exit(int code, Datum arg);
static void worker_exit(int code, Datum arg);

/* ---------- creation ---------- */

static Size
shared_size(void)
{
	return add_size(offsetof(SlShared, slots),
					mul_size(sl_max_databases, sizeof(SlSlot)));
}

/* What a free slot holds; the wake flag and the latch are looked after apart. */
static void
reset_slot(SlSlot *slot)
{
	slot->pid = 0;
	slot->launching = false;
	slot->awaits_reload = false;
	slot->absent = false;
	slot->failures = 0;
	slot->attached_at = 0;
	slot->next_due = DT_NOEND;
	slot->not_before = 0;
	slot->warned_of_key = 0;
	slot->warned_of_sealing = 0;
}

static void
attach_shared(void *memory, LWLock *lock, bool is_new)
{
	int			i;

	shared = memory;
	if (!is_new)
		return;
	shared->lock = lock;
	pg_atomic_init_u64(&shared->launcher, 0);
	pg_atomic_init_u32(&shared->tour, 0);
	pg_atomic_init_u32(&shared->crowded, 0);
	pg_atomic_init_u32(&shared->reloads, 0);
	shared->nslots = sl_max_databases;
	for (i = 0; i < shared->nslots; i++)
	{
		SlSlot	   *slot = &shared->slots[i];

		pg_atomic_init_u32(&slot->dboid, InvalidOid);
		pg_atomic_init_u32(&slot->wake, 0);
		pg_atomic_init_u64(&slot->latch, 0);
		reset_slot(slot);
	}
}

/* Without preloading there is no shared memory, and sl_slots_ready() says so. */
void
sl_slots_init(void)
{
	static SlSharedArea area = {"stripe_lifecycle", shared_size, attach_shared, NULL};

	if (process_shared_preload_libraries_in_progress)
		sl_shared_area_add(&area);
}

bool
sl_slots_ready(void)
{
	return shared != NULL;
}

/* ---------- any process ---------- */

static void
set_latch_at(pg_atomic_uint64 *where)
{
	Latch	   *latch = (Latch *) (uintptr_t) pg_atomic_read_u64(where);

	if (latch != NULL)
		SetLatch(latch);
}

/* Needs no lock: an OID is one atomic word. */
int
sl_slot_find(Oid dboid)
{
	int			i;

	for (i = 0; i < shared->nslots; i++)
	{
		if (pg_atomic_read_u32(&shared->slots[i].dboid) == dboid)
			return i;
	}
	return SL_NO_SLOT;
}

/*
 * Gives a slot that no worker has to another database, or to none.  See the
 * top for the order.
 */
static void
assign_locked(SlSlot *s, Oid dboid)
{
	pg_atomic_write_u32(&s->dboid, dboid);
	pg_memory_barrier();
	if (pg_atomic_exchange_u32(&s->wake, 0) != 0)
		sl_slots_request_tour();
	reset_slot(s);
}

/* A slot for a database that has none: a free one, or one of no use. */
static int
unused_slot_locked(void)
{
	int			i = sl_slot_find(InvalidOid);

	if (i != SL_NO_SLOT)
		return i;
	for (i = 0; i < shared->nslots; i++)
	{
		SlSlot	   *s = &shared->slots[i];

		if (s->absent && s->pid == 0 && !s->launching &&
			pg_atomic_read_u32(&s->wake) == 0)
			return i;
	}
	return SL_NO_SLOT;
}

static int
reserve_locked(Oid dboid)
{
	int			i = sl_slot_find(dboid);

	if (i == SL_NO_SLOT)
	{
		i = unused_slot_locked();
		if (i != SL_NO_SLOT)
			assign_locked(&shared->slots[i], dboid);
	}
	return i;
}

/* The database's slot, a new one if need be; SL_NO_SLOT when all are taken. */
int
sl_slot_reserve(Oid dboid)
{
	int			slot;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = reserve_locked(dboid);
	LWLockRelease(shared->lock);
	return slot;
}

/*
 * There is work in a database.  Called after commit: cannot fail.
 */
void
sl_slot_wake(int slot, Oid dboid)
{
	SlSlot	   *s = &shared->slots[slot];

	pg_atomic_write_u32(&s->wake, 1);
	pg_memory_barrier();
	if (pg_atomic_read_u32(&s->dboid) != dboid)
		sl_slots_request_tour();
	else if (pg_atomic_read_u64(&s->latch) != 0)
		set_latch_at(&s->latch);
	else
		set_latch_at(&shared->launcher);
}

/* Have the launcher look into every database.  Cannot fail. */
void
sl_slots_request_tour(void)
{
	pg_atomic_write_u32(&shared->tour, 1);
	pg_memory_barrier();
	set_latch_at(&shared->launcher);
}

/* How many reloads the launcher has announced; at least 1 once it runs. */
uint32
sl_slots_reloads(void)
{
	return pg_atomic_read_u32(&shared->reloads);
}

bool
sl_slots_launcher_alive(void)
{
	return pg_atomic_read_u64(&shared->launcher) != 0;
}

/* ---------- the launcher ---------- */

void
sl_slots_launcher_attach(void)
{
	on_shmem_exit(launcher_exit, (Datum) 0);
	pg_atomic_write_u64(&shared->launcher, (uint64) (uintptr_t) MyLatch);
	pg_memory_barrier();
}

static void
launcher_exit(int code, Datum arg)
{
	pg_atomic_write_u64(&shared->launcher, 0);
}

bool
sl_slots_tour_requested(void)
{
	return pg_atomic_read_u32(&shared->tour) != 0;
}

/* Before the databases are read: what is asked for later means another tour. */
void
sl_slots_take_tour_request(void)
{
	(void) pg_atomic_exchange_u32(&shared->tour, 0);
}

void
sl_slots_set_crowded(bool crowded)
{
	pg_atomic_write_u32(&shared->crowded, crowded);
}

/* Are there fewer processes than databases with work?  Then nobody lingers. */
bool
sl_slots_crowded(void)
{
	return pg_atomic_read_u32(&shared->crowded) != 0;
}

int
sl_slots_count(void)
{
	return shared->nslots;
}

/* False for a free slot. */
bool
sl_slot_view(int slot, SlSlotView *view)
{
	SlSlot	   *s = &shared->slots[slot];

	LWLockAcquire(shared->lock, LW_SHARED);
	view->dboid = pg_atomic_read_u32(&s->dboid);
	view->running = s->pid != 0;
	view->start_at = pg_atomic_read_u32(&s->wake) ? 0 : s->next_due;
	view->start_at = Max(view->start_at, s->not_before);
	LWLockRelease(shared->lock);
	return OidIsValid(view->dboid);
}

static void
count_failure(SlSlot *s)
{
	int			doublings = Min(s->failures, 6);
	int			pause = Min(SL_BACKOFF_MIN_MS << doublings, SL_BACKOFF_MAX_MS);

	s->failures++;
	s->not_before = GetCurrentTimestamp() + (int64) pause * 1000;
}

/* A worker for this database is about to be asked for. */
void
sl_slot_launching(int slot, Oid dboid)
{
	SlSlot	   *s = &shared->slots[slot];

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (pg_atomic_read_u32(&s->dboid) == dboid)
		s->launching = true;
	LWLockRelease(shared->lock);
}

/*
 * That worker's process is gone.  If it never reported here it failed before
 * it could (the database refused the connection, the library did not load),
 * and asking for another at once would only repeat that.
 */
void
sl_slot_launch_ended(int slot, Oid dboid)
{
	SlSlot	   *s = &shared->slots[slot];

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (pg_atomic_read_u32(&s->dboid) == dboid && s->launching)
	{
		s->launching = false;
		count_failure(s);
	}
	LWLockRelease(shared->lock);
}

/* The database no longer exists, so nobody is left in there to wake it. */
void
sl_slot_free(int slot, Oid dboid)
{
	SlSlot	   *s = &shared->slots[slot];

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (pg_atomic_read_u32(&s->dboid) == dboid && s->pid == 0)
		assign_locked(s, InvalidOid);
	LWLockRelease(shared->lock);
}

/* Workers read the configuration again; those that found no key, of either kind, may now. */
void
sl_slots_configuration_reloaded(void)
{
	int			i;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	pg_atomic_fetch_add_u32(&shared->reloads, 1);
	for (i = 0; i < shared->nslots; i++)
	{
		SlSlot	   *s = &shared->slots[i];

		if (s->warned_of_sealing != 0)
		{
			s->warned_of_sealing = 0;
			pg_atomic_write_u32(&s->wake, 1);
		}
		set_latch_at(&s->latch);
		if (s->awaits_reload && s->pid == 0)
		{
			s->awaits_reload = false;
			s->not_before = 0;
			pg_atomic_write_u32(&s->wake, 1);
		}
	}
	LWLockRelease(shared->lock);
}

/* ---------- the worker ---------- */

/*
 * Become the one worker of a database.  SL_NO_SLOT: another one is there
 * already, or there is no room.
 */
int
sl_slot_attach(Oid dboid, bool *already_served)
{
	int			i;

	*already_served = false;
	on_shmem_exit(worker_exit, (Datum) 0);

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	i = reserve_locked(dboid);
	if (i != SL_NO_SLOT)
	{
		SlSlot	   *s = &shared->slots[i];

		s->launching = false;
		if (s->pid != 0)
		{
			*already_served = true;
			i = SL_NO_SLOT;
		}
		else
		{
			s->pid = MyProcPid;
			s->attached_at = GetCurrentTimestamp();
			s->awaits_reload = false;
			s->absent = false;
			pg_atomic_write_u64(&s->latch, (uint64) (uintptr_t) MyLatch);
			my_slot = i;
		}
	}
	LWLockRelease(shared->lock);
	if (i != SL_NO_SLOT)
		sl_stats_worker_started();

	/* a tour goes on to the next database now */
	set_latch_at(&shared->launcher);
	return i;
}

/* Was there a wake?  If so, look at the queue: the flag is down again. */
bool
sl_slot_take_wake(int slot)
{
	return pg_atomic_exchange_u32(&shared->slots[slot].wake, 0) != 0;
}

/*
 * Hand the database back to the launcher, to be looked at again at next_due.
 * False if there was a wake meanwhile: the caller stays on duty.  Without a
 * key, or leave to serve, no wake can change anything; it is left for the
 * successor then, whom only next_due or a reload brings; the caller stays if
 * there was a reload since the one it has seen.
 */
bool
sl_slot_leave(int slot, TimestampTz next_due, SlLeave why, uint32 reloads_seen)
{
	SlSlot	   *s = &shared->slots[slot];
	bool		keyless = why == SL_LEAVE_KEYLESS;
	bool		stays;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	pg_atomic_write_u64(&s->latch, 0);
	pg_memory_barrier();
	if (why == SL_LEAVE_REPLACED)
		stays = false;
	else if (keyless || why == SL_LEAVE_UNSERVED)
		stays = sl_slots_reloads() != reloads_seen;
	else
		stays = pg_atomic_read_u32(&s->wake) != 0;
	if (stays)
		pg_atomic_write_u64(&s->latch, (uint64) (uintptr_t) MyLatch);
	else
	{
		s->pid = 0;
		s->failures = 0;
		s->next_due = next_due;
		s->not_before = keyless ? next_due : 0;
		s->awaits_reload = keyless;
		s->absent = why == SL_LEAVE_ABSENT;
		my_slot = SL_NO_SLOT;
	}
	LWLockRelease(shared->lock);

	if (!stays)
		set_latch_at(&shared->launcher);
	return !stays;
}

/* The missing key is worth one warning per reload, however many workers look. */
bool
sl_slot_may_warn_of_key(int slot)
{
	SlSlot	   *s = &shared->slots[slot];
	bool		may;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	may = s->warned_of_key != sl_slots_reloads();
	s->warned_of_key = sl_slots_reloads();
	LWLockRelease(shared->lock);
	return may;
}

/* One an hour, however many workers come and go. */
bool
sl_slot_may_warn_of_sealing(int slot)
{
	SlSlot	   *s = &shared->slots[slot];
	TimestampTz now = GetCurrentTimestamp();
	bool		may;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	may = s->warned_of_sealing == 0 ||
		TimestampDifferenceExceeds(s->warned_of_sealing, now, SL_SEALING_WARNING_MS);
	if (may)
		s->warned_of_sealing = now;
	LWLockRelease(shared->lock);
	return may;
}

/*
 * Any way out of a worker that has not left properly is a failure, an
 * administrator's pg_terminate_backend() too.  What it had in hand is still
 * in the queue, so the next one is to look.
 *
 * on_shmem_exit and not before_shmem_exit: by now the transaction has been
 * rolled back and all locks are released, but the PGPROC is still ours.
 */
static void
worker_exit(int code, Datum arg)
{
	SlSlot	   *s;

	if (my_slot == SL_NO_SLOT)
		return;
	s = &shared->slots[my_slot];

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	pg_atomic_write_u64(&s->latch, 0);
	s->pid = 0;
	s->next_due = 0;
	if (TimestampDifferenceExceeds(s->attached_at, GetCurrentTimestamp(),
								   SL_BACKOFF_MAX_MS))
		s->failures = 0;
	count_failure(s);
	LWLockRelease(shared->lock);
	my_slot = SL_NO_SLOT;
	sl_stats_worker_failed();

	set_latch_at(&shared->launcher);
}
