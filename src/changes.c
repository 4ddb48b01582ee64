/*-------------------------------------------------------------------------
 *
 * changes.c
 *	  How sessions that wait for news of a payment hear of a commit.
 *
 * Shared memory has a row of counters.  A transaction that writes a payment or
 * one of its requests notes which counter is theirs, and raises it once it has
 * committed; the guard, through which every write comes, does the noting.  So
 * a session that waits sleeps on its counter and asks no table until there is
 * something to see.  Payments share counters: one look too many now and then.
 *
 * No news is missed: a waiter reads the counter first and looks at the payment
 * second; a writer is visible first and raises the counter second.
 *
 * Where nobody counts, one has to look: on a standby, whose writes are
 * replayed, and where the library is not preloaded.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/wait_event.h"

#include "changes.h"
#include "compat.h"
#include "shmem.h"

#define COUNTERS 256

/* Pause between two looks where nobody counts. */
#define LOOK_EVERY_MS 100

typedef struct Counter
{
	pg_atomic_uint64 commits;
	ConditionVariable waiters;
} Counter;

typedef struct Shared
{
	pg_atomic_uint32 waiting;	/* sessions that took a place */
	Counter		counters[COUNTERS];
} Shared;

static Shared *shared = NULL;
static bool noted[COUNTERS];	/* by the transaction at hand */
static bool anything_noted = false;
static bool has_place = false;

static Size
shared_size(void)
{
	return sizeof(Shared);
}

static void
attach_shared(void *memory, LWLock *lock, bool is_new)
{
	int			i;

	shared = memory;
	if (!is_new)
		return;
	pg_atomic_init_u32(&shared->waiting, 0);
	for (i = 0; i < COUNTERS; i++)
	{
		pg_atomic_init_u64(&shared->counters[i].commits, 0);
		ConditionVariableInit(&shared->counters[i].waiters);
	}
}

/* Called after a commit: atomics, spinlocks and latches, nothing that fails. */
static void
announce(void)
{
	int			i;

	for (i = 0; i < COUNTERS; i++)
	{
		if (!noted[i])
			continue;
		pg_atomic_fetch_add_u64(&shared->counters[i].commits, 1);
		ConditionVariableBroadcast(&shared->counters[i].waiters);
	}
}

/*
 * What a subtransaction noted before it was rolled back stays noted: no harm.
 * A prepared transaction announces nothing; whoever commits it does.
 */
static void
xact_callback(XactEvent event, void *arg)
{
	if (!anything_noted ||
		(event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT &&
		 event != XACT_EVENT_PREPARE))
		return;
	if (event == XACT_EVENT_COMMIT)
		announce();
	memset(noted, 0, sizeof(noted));
	anything_noted = false;
}

void
sl_changes_init(void)
{
	static SlSharedArea area = {"stripe_lifecycle_changes", shared_size, attach_shared, NULL};

	if (!process_shared_preload_libraries_in_progress)
		return;
	sl_shared_area_add(&area);
	RegisterXactCallback(xact_callback, NULL);
}

static int
counter_of(const pg_uuid_t *payment)
{
	return (int) (hash_bytes_extended(payment->data, UUID_LEN, MyDatabaseId) %
				  COUNTERS);
}

void
sl_changes_note(const pg_uuid_t *payment)
{
	if (shared == NULL)
		return;
	noted[counter_of(payment)] = true;
	anything_noted = true;
}

void
sl_changes_note_any(void)
{
	if (shared == NULL)
		return;
	memset(noted, true, sizeof(noted));
	anything_noted = true;
}

bool
sl_changes_are_counted(void)
{
	return shared != NULL && !RecoveryInProgress();
}

uint64
sl_changes_count(const pg_uuid_t *payment)
{
	if (shared == NULL)
		return 0;
	return pg_atomic_read_u64(&shared->counters[counter_of(payment)].commits);
}

static uint32
wait_event(void)
{
	static uint32 event = 0;

	if (event == 0)
		event = sl_wait_event_new("StripeLifecyclePaymentStatus");
	return event;
}

void
sl_changes_wait(const pg_uuid_t *payment, uint64 seen, int64 ms)
{
	Counter    *c;

	if (!sl_changes_are_counted())
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 (long) Min(ms, LOOK_EVERY_MS), wait_event());
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		return;
	}

	c = &shared->counters[counter_of(payment)];
	ConditionVariablePrepareToSleep(&c->waiters);
	if (pg_atomic_read_u64(&c->commits) == seen)
		(void) ConditionVariableTimedSleep(&c->waiters, (long) ms, wait_event());
	ConditionVariableCancelSleep();
}

/* ---------- places ---------- */

static void
leave_at_exit(int code, Datum arg)
{
	sl_changes_leave();
}

bool
sl_changes_enter(int limit)
{
	static bool registered = false;

	if (shared == NULL)
		return limit > 0;
	if (!registered)
	{
		before_shmem_exit(leave_at_exit, (Datum) 0);
		registered = true;
	}
	if (pg_atomic_fetch_add_u32(&shared->waiting, 1) >= (uint32) limit)
	{
		pg_atomic_fetch_sub_u32(&shared->waiting, 1);
		return false;
	}
	has_place = true;
	return true;
}

void
sl_changes_leave(void)
{
	if (!has_place)
		return;
	has_place = false;
	pg_atomic_fetch_sub_u32(&shared->waiting, 1);
}
