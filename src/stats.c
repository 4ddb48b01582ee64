/*-------------------------------------------------------------------------
 *
 * stats.c
 *	  Counts calls to Stripe, webhooks and workers, per database, in shared
 *	  memory.
 *
 * Shared memory and not a table: refused webhooks roll back what they write,
 * and a count must not make two deliveries wait for each other.  The numbers
 * survive workers and sessions and begin anew when the server starts; what
 * has to survive that is in the tables.
 *
 * A database's entry is found by its OID and made at its first use.  When all
 * are taken the one that was idle longest gives way, usually that of a
 * database that was dropped.  A process that still counts into an entry while
 * it changes hands puts a number into the wrong place; that is the price of
 * counting without a lock, which commits and error paths need.
 *
 * What becomes of a webhook is counted when its transaction commits: an
 * ingestion that was rolled back, by a savepoint too, did not happen.  So the
 * counts wait in a stack with one level per subtransaction.  A refusal always
 * rolls back, so it is counted at once.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "guc.h"
#include "shmem.h"
#include "stats.h"

#define OUTCOMES (SL_COUNT_REFUSED_FIRST - SL_COUNT_WEBHOOK_FIRST)

typedef struct Entry
{
	pg_atomic_uint32 dboid;		/* InvalidOid: free; changed under the lock */
	pg_atomic_uint64 used_at;	/* when something was last counted */
	pg_atomic_uint64 since;
	pg_atomic_uint64 last_success;
	pg_atomic_uint64 last_webhook;
	pg_atomic_uint64 counters[SL_COUNTERS];
	pg_atomic_uint64 latency[SL_LATENCY_BUCKETS];

	slock_t		mutex;			/* over the last two */
	TimestampTz last_error_at;
	char		last_error[SL_STATS_ERROR_MAX];
} Entry;

typedef struct Shared
{
	LWLock	   *lock;			/* to give an entry to a database */
	int			nentries;
	Entry		entries[FLEXIBLE_ARRAY_MEMBER];
} Shared;

/* Webhooks of one level of subtransactions, until their fate is known. */
typedef struct Pending
{
	struct Pending *outer;
	int			level;
	uint64		counts[OUTCOMES];
} Pending;

/* In the order of SlCounter. */
static const char *const outcome_names[OUTCOMES] = {
	"applied", "recorded", "stale", "conflict", "unmatched", "ignored",
	"duplicate"
};

static Shared *shared = NULL;
static Entry *my_entry = NULL;	/* a hint: it may have changed hands */
static Pending *pending = NULL;	/* in TopTransactionContext */

/* ---------- creation ---------- */

static Size
shared_size(void)
{
	return add_size(offsetof(Shared, entries),
					mul_size(sl_max_databases, sizeof(Entry)));
}

static void
init_entry(Entry *e)
{
	int			i;

	pg_atomic_init_u32(&e->dboid, InvalidOid);
	pg_atomic_init_u64(&e->used_at, 0);
	pg_atomic_init_u64(&e->since, 0);
	pg_atomic_init_u64(&e->last_success, 0);
	pg_atomic_init_u64(&e->last_webhook, 0);
	for (i = 0; i < SL_COUNTERS; i++)
		pg_atomic_init_u64(&e->counters[i], 0);
	for (i = 0; i < SL_LATENCY_BUCKETS; i++)
		pg_atomic_init_u64(&e->latency[i], 0);
	SpinLockInit(&e->mutex);
	e->last_error_at = 0;
	e->last_error[0] = '\0';
}

static void
attach_shared(void *memory, LWLock *lock, bool is_new)
{
	int			i;

	shared = memory;
	if (!is_new)
		return;
	shared->lock = lock;
	shared->nentries = sl_max_databases;
	for (i = 0; i < shared->nentries; i++)
		init_entry(&shared->entries[i]);
}

/* ---------- entries ---------- */

static Entry *
find_entry(Oid dboid)
{
	int			i;

	for (i = 0; i < shared->nentries; i++)
	{
		if (pg_atomic_read_u32(&shared->entries[i].dboid) == dboid)
			return &shared->entries[i];
	}
	return NULL;
}

static Entry *
idlest_entry(void)
{
	Entry	   *idlest = &shared->entries[0];
	int			i;

	for (i = 1; i < shared->nentries; i++)
	{
		Entry	   *e = &shared->entries[i];

		if (pg_atomic_read_u64(&e->used_at) < pg_atomic_read_u64(&idlest->used_at))
			idlest = e;
	}
	return idlest;
}

/* Gives an entry to this database; the one before loses its numbers. */
static void
take_entry(Entry *e, TimestampTz now)
{
	int			i;

	pg_atomic_write_u32(&e->dboid, InvalidOid);
	pg_memory_barrier();
	pg_atomic_write_u64(&e->since, (uint64) now);
	pg_atomic_write_u64(&e->used_at, (uint64) now);
	pg_atomic_write_u64(&e->last_success, 0);
	pg_atomic_write_u64(&e->last_webhook, 0);
	for (i = 0; i < SL_COUNTERS; i++)
		pg_atomic_write_u64(&e->counters[i], 0);
	for (i = 0; i < SL_LATENCY_BUCKETS; i++)
		pg_atomic_write_u64(&e->latency[i], 0);
	SpinLockAcquire(&e->mutex);
	e->last_error_at = 0;
	e->last_error[0] = '\0';
	SpinLockRelease(&e->mutex);
	pg_memory_barrier();
	pg_atomic_write_u32(&e->dboid, MyDatabaseId);
}

/* This database's entry; NULL without shared memory, or without a database. */
static Entry *
entry(TimestampTz now)
{
	if (shared == NULL || !OidIsValid(MyDatabaseId))
		return NULL;
	if (my_entry == NULL ||
		pg_atomic_read_u32(&my_entry->dboid) != MyDatabaseId)
		my_entry = find_entry(MyDatabaseId);
	if (my_entry == NULL)
	{
		LWLockAcquire(shared->lock, LW_EXCLUSIVE);
		my_entry = find_entry(MyDatabaseId);
		if (my_entry == NULL)
			my_entry = find_entry(InvalidOid);
		if (my_entry == NULL)
			my_entry = idlest_entry();
		if (pg_atomic_read_u32(&my_entry->dboid) != MyDatabaseId)
			take_entry(my_entry, now);
		LWLockRelease(shared->lock);
	}
	pg_atomic_write_u64(&my_entry->used_at, (uint64) now);
	return my_entry;
}

static void
count(Entry *e, int counter)
{
	pg_atomic_fetch_add_u64(&e->counters[counter], 1);
}

static void
note_error(Entry *e, const char *class, TimestampTz now)
{
	SpinLockAcquire(&e->mutex);
	e->last_error_at = now;
	strlcpy(e->last_error, class, sizeof(e->last_error));
	SpinLockRelease(&e->mutex);
}

/* ---------- the worker ---------- */

static int
latency_bucket(double ms)
{
	int			bucket = 0;
	double		bound = 1.0;

	while (bucket < SL_LATENCY_BUCKETS - 1 && ms >= bound)
	{
		bucket++;
		bound *= 2.0;
	}
	return bucket;
}

static void
count_answer(Entry *e, int http_status)
{
	if (http_status <= 0)
		count(e, SL_COUNT_TRANSPORT_ERRORS);
	else if (http_status == 429)
		count(e, SL_COUNT_HTTP_429);
	else if (http_status >= 500)
		count(e, SL_COUNT_HTTP_5XX);
	else if (http_status >= 400)
		count(e, SL_COUNT_HTTP_4XX);
	else if (http_status >= 200 && http_status < 300)
		count(e, SL_COUNT_HTTP_2XX);
}

/*
 * A call whose answer, or lack of one, has been stored.  http_status is 0 if
 * none came; 'attempt' counts from 1.
 */
void
sl_stats_attempt(SlOutcome outcome, int http_status, double duration_ms,
				 int attempt)
{
	static const int counter_of[] = {
		[SL_OUTCOME_SUCCEEDED] = SL_COUNT_SUCCEEDED,
		[SL_OUTCOME_REJECTED] = SL_COUNT_REJECTED,
		[SL_OUTCOME_RETRY] = SL_COUNT_RETRY,
		[SL_OUTCOME_UNKNOWN] = SL_COUNT_UNKNOWN
	};
	TimestampTz now = GetCurrentTimestamp();
	Entry	   *e = entry(now);
	char		class[SL_STATS_ERROR_MAX];

	if (e == NULL)
		return;
	count(e, SL_COUNT_ATTEMPTS);
	count(e, counter_of[outcome]);
	if (attempt > 1)
		count(e, SL_COUNT_RETRIES);
	count_answer(e, http_status);
	pg_atomic_fetch_add_u64(&e->latency[latency_bucket(duration_ms)], 1);

	if (outcome == SL_OUTCOME_SUCCEEDED)
	{
		pg_atomic_write_u64(&e->last_success, (uint64) now);
		return;
	}
	if (http_status > 0)
		snprintf(class, sizeof(class), "http_%d", http_status);
	else
		strlcpy(class, "transport", sizeof(class));
	note_error(e, class, now);
}

/* Something else went wrong: its SQLSTATE, or a word for it; never data. */
void
sl_stats_error(const char *sqlstate_or_class)
{
	TimestampTz now = GetCurrentTimestamp();
	Entry	   *e = entry(now);

	if (e != NULL)
		note_error(e, sqlstate_or_class, now);
}

void
sl_stats_worker_started(void)
{
	Entry	   *e = entry(GetCurrentTimestamp());

	if (e != NULL)
		count(e, SL_COUNT_WORKER_STARTS);
}

void
sl_stats_worker_failed(void)
{
	Entry	   *e = entry(GetCurrentTimestamp());

	if (e != NULL)
		count(e, SL_COUNT_WORKER_FAILURES);
}

/* ---------- webhooks ---------- */

static int
position_of(const char *name, const char *const *names, int n)
{
	int			i;

	for (i = 0; i < n; i++)
	{
		if (strcmp(names[i], name) == 0)
			return i;
	}
	return -1;
}

/*
 * A delivery was taken in, with this outcome; counted if it is committed.
 */
void
sl_stats_webhook(const char *outcome)
{
	int			i = position_of(outcome, outcome_names, OUTCOMES);
	int			level = GetCurrentTransactionNestLevel();

	/* the entry is looked up here, because nothing may wait after a commit */
	if (i < 0 || entry(GetCurrentTimestamp()) == NULL)
		return;
	if (pending == NULL || pending->level < level)
	{
		Pending    *p = MemoryContextAllocZero(TopTransactionContext,
											   sizeof(Pending));

		p->outer = pending;
		p->level = level;
		pending = p;
	}
	pending->counts[i]++;
}

/* A delivery was refused. */
void
sl_stats_webhook_refused(SlRefusal why)
{
	Entry	   *e = entry(GetCurrentTimestamp());

	if (e != NULL)
		count(e, SL_COUNT_REFUSED_FIRST + why);
}

/* Atomics only: called after the commit, where nothing may fail. */
static void
count_pending(void)
{
	int			i;

	if (my_entry == NULL ||
		pg_atomic_read_u32(&my_entry->dboid) != MyDatabaseId)
		return;
	for (i = 0; i < OUTCOMES; i++)
		pg_atomic_fetch_add_u64(&my_entry->counters[SL_COUNT_WEBHOOK_FIRST + i],
								(int64) pending->counts[i]);
	pg_atomic_write_u64(&my_entry->last_webhook,
						(uint64) GetCurrentTimestamp());
}

/*
 * By the end of the transaction one level is left at most.  What a prepared
 * transaction took in is not counted, since some other session commits it.
 */
static void
xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			if (pending != NULL)
				count_pending();
			pending = NULL;
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			pending = NULL;
			break;
		default:
			break;
	}
}

static void
subxact_callback(SubXactEvent event, SubTransactionId mySubid,
				 SubTransactionId parentSubid, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();
	int			i;

	if (pending == NULL || pending->level < level)
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
		pending = pending->outer;
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		Pending    *outer = pending->outer;

		if (outer == NULL || outer->level < level - 1)
			pending->level = level - 1;
		else
		{
			for (i = 0; i < OUTCOMES; i++)
				outer->counts[i] += pending->counts[i];
			pending = outer;
		}
	}
}

/* ---------- ---------- */

/*
 * Registered while the library is being preloaded, so that every process has
 * the callbacks, once.
 */
void
sl_stats_init(void)
{
	static SlSharedArea area = {"stripe_lifecycle_stats", shared_size, attach_shared, NULL};

	StaticAssertStmt((int) SL_REFUSALS ==
					 SL_COUNT_WORKER_STARTS - SL_COUNT_REFUSED_FIRST,
					 "every refusal has a counter");

	if (!process_shared_preload_libraries_in_progress)
		return;
	sl_shared_area_add(&area);
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}

/* This database's numbers; false where nothing is counted. */
bool
sl_stats_read(SlStats *out)
{
	Entry	   *e = entry(GetCurrentTimestamp());
	int			i;

	if (e == NULL)
		return false;
	out->since = (TimestampTz) pg_atomic_read_u64(&e->since);
	out->last_success = (TimestampTz) pg_atomic_read_u64(&e->last_success);
	out->last_webhook = (TimestampTz) pg_atomic_read_u64(&e->last_webhook);
	for (i = 0; i < SL_COUNTERS; i++)
		out->counters[i] = pg_atomic_read_u64(&e->counters[i]);
	for (i = 0; i < SL_LATENCY_BUCKETS; i++)
		out->latency[i] = pg_atomic_read_u64(&e->latency[i]);
	SpinLockAcquire(&e->mutex);
	out->last_error_at = e->last_error_at;
	memcpy(out->last_error, e->last_error, sizeof(out->last_error));
	SpinLockRelease(&e->mutex);
	return true;
}
