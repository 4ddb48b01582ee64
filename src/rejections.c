/*-------------------------------------------------------------------------
 *
 * rejections.c
 *	  Keeps the last webhooks that were turned away, for operators to look at.
 *
 * A ring in shared memory: no table, because most rejections roll back what
 * they write, and because anybody on the internet can cause them.  Its size is
 * fixed, and nothing of what was sent is in it but its length and how far its
 * time was from ours.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "rejections.h"
#include "shmem.h"

PG_FUNCTION_INFO_V1(sl_recent_rejections);

#define RING 256
#define COLUMNS 5

/* Farther off than this no interval is shown; a header may say anything. */
#define MAX_SKEW INT64CONST(3153600000)

typedef struct Entry
{
	TimestampTz at;				/* 0: never used */
	Oid			dboid;
	SlRejection rejection;
} Entry;

typedef struct Shared
{
	LWLock	   *lock;
	uint64		count;			/* of all there ever were */
	Entry		ring[RING];
} Shared;

static Shared *shared = NULL;

static const char *const names[SL_REFUSALS] = {
	[SL_REFUSED_BAD_SIGNATURE] = "bad_signature",
	[SL_REFUSED_STALE] = "stale",
	[SL_REFUSED_MALFORMED] = "malformed",
	[SL_REFUSED_TOO_LARGE] = "too_large",
	[SL_REFUSED_BAD_BODY] = "bad_body",
	[SL_REFUSED_BAD_EVENT] = "bad_event",
	[SL_REFUSED_NO_SECRET] = "no_secret",
	[SL_REFUSED_WRONG_MODE] = "wrong_mode",
	[SL_REFUSED_UNAVAILABLE] = "unavailable",
	[SL_REFUSED_FAILED] = "failed"
};

static Size
shared_size(void)
{
	return sizeof(Shared);
}

static void
attach_shared(void *memory, LWLock *lock, bool is_new)
{
	shared = memory;
	if (is_new)
	{
		memset(shared, 0, sizeof(Shared));
		shared->lock = lock;
	}
}

void
sl_rejections_init(void)
{
	static SlSharedArea area = {"stripe_lifecycle_rejections", shared_size, attach_shared, NULL};

	if (process_shared_preload_libraries_in_progress)
		sl_shared_area_add(&area);
}

const char *
sl_refusal_name(SlRefusal why)
{
	return names[why];
}

void
sl_rejection_note(const SlRejection *rejection)
{
	TimestampTz now = GetCurrentTimestamp();
	Entry	   *e;

	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	e = &shared->ring[shared->count++ % RING];
	e->at = now;
	e->dboid = MyDatabaseId;
	e->rejection = *rejection;
	LWLockRelease(shared->lock);
}

/* This database's, the latest first, palloc'd; returns how many. */
static int
copy_ring(Entry **entries)
{
	uint64		i;
	int			n = 0;

	*entries = palloc(sizeof(Entry) * RING);
	if (shared == NULL)
		return 0;
	LWLockAcquire(shared->lock, LW_SHARED);
	for (i = 0; i < Min(shared->count, RING); i++)
	{
		Entry	   *e = &shared->ring[(shared->count - 1 - i) % RING];

		if (e->dboid == MyDatabaseId)
			(*entries)[n++] = *e;
	}
	LWLockRelease(shared->lock);
	return n;
}

static Datum
sender_datum(const SlAddress *sender)
{
	char		text[SL_ADDRESS_TEXT];

	sl_address_print(sender, text);
	return DirectFunctionCall1(inet_in, CStringGetDatum(text));
}

static Datum
skew_datum(int64 seconds)
{
	Interval   *skew = palloc0(sizeof(Interval));

	skew->time = seconds * USECS_PER_SEC;
	return IntervalPGetDatum(skew);
}

/*
 * SQL: recent_rejections() returns setof (at, reason, sender, body_bytes,
 * time_skew), the latest first; nothing where the library is not preloaded.
 */
Datum
sl_recent_rejections(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Entry	   *entries;
	int			n;
	int			i;

	sl_require_version();
	sl_init_materialized(fcinfo);
	n = copy_ring(&entries);
	for (i = 0; i < n; i++)
	{
		const SlRejection *r = &entries[i].rejection;
		Datum		values[COLUMNS] = {0};
		bool		nulls[COLUMNS] = {false};

		values[0] = TimestampTzGetDatum(entries[i].at);
		values[1] = CStringGetTextDatum(sl_refusal_name(r->why));
		nulls[2] = r->sender.family == 0;
		if (!nulls[2])
			values[2] = sender_datum(&r->sender);
		nulls[3] = r->size < 0;
		values[3] = Int64GetDatum(r->size);
		nulls[4] = !r->has_skew || r->skew > MAX_SKEW || r->skew < -MAX_SKEW;
		if (!nulls[4])
			values[4] = skew_datum(r->skew);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
