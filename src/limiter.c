/*-------------------------------------------------------------------------
 *
 * limiter.c
 *	  Counts requests of clients and roles in shared memory.
 *
 * The buckets are those of rate_limit.c.  Which set of a table a client's
 * bucket is in depends on a secret number of this server's, so that nobody can
 * aim at somebody else's set.  Databases don't share buckets.
 *
 * The clock is the one that nobody can set; it is the same for all processes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/spin.h"

#include "compat.h"
#include "guc.h"
#include "limiter.h"
#include "rate_limit.h"
#include "shmem.h"

/* of 8 buckets each: room for 4096 clients per limit, in 200 kB */
#define SETS 512

typedef struct LockedSet
{
	slock_t		mutex;			/* held for a look at a few words */
	SlRateSet	set;
} LockedSet;

typedef struct Shared
{
	uint64		seed;
	LockedSet	sets[SL_LIMITS][SETS];
} Shared;

static Shared *shared = NULL;

static Size
shared_size(void)
{
	return sizeof(Shared);
}

static void
attach_shared(void *memory, LWLock *lock, bool is_new)
{
	int			limit;
	int			i;

	shared = memory;
	if (!is_new)
		return;
	memset(shared, 0, sizeof(Shared));
	if (!pg_strong_random(&shared->seed, sizeof(shared->seed)))
		elog(ERROR, "could not generate a random number");
	for (limit = 0; limit < SL_LIMITS; limit++)
		for (i = 0; i < SETS; i++)
			SpinLockInit(&shared->sets[limit][i].mutex);
}

void
sl_limiter_init(void)
{
	static SlSharedArea area = {"stripe_lifecycle_limiter", shared_size, attach_shared, NULL};

	if (process_shared_preload_libraries_in_progress)
		sl_shared_area_add(&area);
}

/* False: there is no such limit. */
static bool
rate_of_limit(SlLimit limit, SlRate *rate)
{
	double		per_second = 0;
	int			burst = 1;

	switch (limit)
	{
		case SL_LIMIT_ADDRESS:
			per_second = sl_rate_limit_address;
			burst = sl_rate_limit_address_burst;
			break;
		case SL_LIMIT_ROLE:
			per_second = sl_rate_limit_role;
			burst = sl_rate_limit_role_burst;
			break;
		case SL_LIMIT_WEBHOOK:
			per_second = sl_rate_limit_webhook;
			burst = sl_rate_limit_webhook_burst;
			break;
		case SL_LIMITS:
			break;
	}
	if (per_second <= 0)
		return false;
	*rate = sl_rate_of(per_second, burst);
	return true;
}

bool
sl_limiter_lacks_memory(void)
{
	SlRate		rate;
	int			limit;

	for (limit = 0; shared == NULL && limit < SL_LIMITS; limit++)
	{
		if (rate_of_limit((SlLimit) limit, &rate))
			return true;
	}
	return false;
}

int64
sl_limiter_take(SlLimit limit, const void *who, size_t len)
{
	instr_time	now;
	SlRate		rate;
	uint64		key;
	LockedSet  *s;
	int64		wait;

	if (shared == NULL || !rate_of_limit(limit, &rate))
		return 0;
	key = hash_bytes_extended(who, (int) len, shared->seed ^ MyDatabaseId);
	if (key == 0)
		key = 1;
	INSTR_TIME_SET_CURRENT(now);

	s = &shared->sets[limit][key % SETS];
	SpinLockAcquire(&s->mutex);
	wait = sl_rate_take(&s->set, key, rate, (int64) INSTR_TIME_GET_MICROSEC(now));
	SpinLockRelease(&s->mutex);
	return (wait + 999) / 1000;
}
