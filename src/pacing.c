/*-------------------------------------------------------------------------
 *
 * pacing.c
 *	  Keeps the server's requests per second below Stripe's limits.
 *
 * Stripe counts per account.  Several databases may act for one, each with a
 * worker of its own, so the buckets (token_bucket.c) are in shared memory.  A
 * bucket belongs to an API key together with the connected account that the
 * call acts for.  What is kept of both is a hash that tells nothing of them.
 *
 * The table has a fixed size.  A bucket that is full and has not been slowed
 * down holds no information, so its place can be had; if there is none of
 * these, the one that was looked at least recently goes, and its account may
 * exceed its rate for a moment.
 *
 * The clock is the one that nobody can set; it is the same for all processes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "guc.h"
#include "pacing.h"
#include "shmem.h"
#include "token_bucket.h"

#define SL_PACING_BUCKETS 256

typedef struct SlPacer
{
	uint64		id;				/* 0: free */
	SlTokenBucket bucket;
} SlPacer;

typedef struct SlPacingShared
{
	LWLock	   *lock;
	SlPacer		pacers[SL_PACING_BUCKETS];
} SlPacingShared;

static SlPacingShared *shared = NULL;

static Size
shared_size(void)
{
	return sizeof(SlPacingShared);
}

static void
attach_shared(void *memory, LWLock *lock, bool is_new)
{
	shared = memory;
	if (is_new)
	{
		memset(shared, 0, sizeof(SlPacingShared));
		shared->lock = lock;
	}
}

/* Without preloading there is no worker, and nobody to be slowed down. */
void
sl_pacing_init(void)
{
	static SlSharedArea area = {"stripe_lifecycle_pacing", shared_size, attach_shared, NULL};

	if (process_shared_preload_libraries_in_progress)
		sl_shared_area_add(&area);
}

static int64
monotonic_us(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MICROSEC(now);
}

uint64
sl_pacing_id(const char *api_key, const char *account)
{
	uint64		id;

	id = hash_bytes_extended((const unsigned char *) api_key,
							 (int) strlen(api_key), 0);
	if (account != NULL && account[0] != '\0')
		id = hash_bytes_extended((const unsigned char *) account,
								 (int) strlen(account), id);
	return id == 0 ? 1 : id;
}

/* The bucket, a new one if need be. */
static SlTokenBucket *
bucket_locked(uint64 id, int64 now)
{
	SlPacer    *place = NULL;
	SlPacer    *oldest = &shared->pacers[0];
	int			i;

	for (i = 0; i < SL_PACING_BUCKETS; i++)
	{
		SlPacer    *p = &shared->pacers[i];

		if (p->id == id)
			return &p->bucket;
		if (p->id == 0 && place == NULL)
			place = p;
		if (p->bucket.at < oldest->bucket.at)
			oldest = p;
	}
	for (i = 0; place == NULL && i < SL_PACING_BUCKETS; i++)
	{
		if (sl_bucket_is_at_rest(&shared->pacers[i].bucket,
								 sl_max_requests_per_second, now))
			place = &shared->pacers[i];
	}
	if (place == NULL)
		place = oldest;
	place->id = id;
	sl_bucket_init(&place->bucket, sl_max_requests_per_second, now);
	return &place->bucket;
}

int
sl_pacing_take(uint64 id, int wanted)
{
	int64		now = monotonic_us();
	int			n;

	if (shared == NULL)
		return wanted;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	n = sl_bucket_take(bucket_locked(id, now), sl_max_requests_per_second, now,
					   wanted);
	LWLockRelease(shared->lock);
	return n;
}

void
sl_pacing_give_back(uint64 id, int n)
{
	int64		now = monotonic_us();

	if (n == 0 || shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	sl_bucket_give_back(bucket_locked(id, now), n);
	LWLockRelease(shared->lock);
}

int64
sl_pacing_delay_ms(uint64 id)
{
	int64		now = monotonic_us();
	int64		wait;

	if (shared == NULL)
		return 0;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	wait = sl_bucket_wait(bucket_locked(id, now), sl_max_requests_per_second, now);
	LWLockRelease(shared->lock);
	return (wait + 999) / 1000;
}

/*
 * Take one, or learn when that may be tried again: 'wait_until' is lowered to
 * that time.
 */
bool
sl_pacing_take_one(uint64 id, TimestampTz now, TimestampTz *wait_until)
{
	TimestampTz then;

	if (sl_pacing_take(id, 1) == 1)
		return true;
	then = TimestampTzPlusMilliseconds(now, Max(sl_pacing_delay_ms(id), 1));
	*wait_until = Min(*wait_until, then);
	return false;
}

void
sl_pacing_throttled(uint64 id)
{
	int64		now = monotonic_us();

	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	sl_bucket_slow_down(bucket_locked(id, now), sl_max_requests_per_second, now);
	LWLockRelease(shared->lock);
}
