/*-------------------------------------------------------------------------
 *
 * health.c
 *	  Shows SQL what only the server's memory and files know: counters,
 *	  workers, secrets.
 *
 * What health() and pg_stat_stripe_lifecycle make of it is SQL, in the install
 * script; here are the facts.  Nothing of a secret is among them but whether
 * it can be used, and the API key's mode.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <unistd.h>

#include "access/htup_details.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "guc.h"
#include "secrets.h"
#include "slots.h"
#include "stats.h"
#include "wake.h"

PG_FUNCTION_INFO_V1(sl_stats);
PG_FUNCTION_INFO_V1(sl_stats_latency);
PG_FUNCTION_INFO_V1(sl_server_status);

/* stats(): four times, the error's class, the histogram, and the counters */
#define STATS_COLUMNS (SL_COUNTERS + 6)
#define SERVER_COLUMNS 14

static TupleDesc
result_desc(FunctionCallInfo fcinfo, int ncols)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE ||
		desc->natts != ncols)
		elog(ERROR, "unexpected row type of a function's result");
	return BlessTupleDesc(desc);
}

/* The next column. */
static void
put(Datum *values, bool *nulls, int *n, bool isnull, Datum value)
{
	nulls[*n] = isnull;
	values[*n] = isnull ? (Datum) 0 : value;
	(*n)++;
}

static void
put_time(Datum *values, bool *nulls, int *n, TimestampTz t)
{
	put(values, nulls, n, t == 0, TimestampTzGetDatum(t));
}

static void
put_text(Datum *values, bool *nulls, int *n, const char *s)
{
	put(values, nulls, n, s == NULL,
		s == NULL ? (Datum) 0 : CStringGetTextDatum(s));
}

static void
put_counters(Datum *values, bool *nulls, int *n, const SlStats *stats,
			 int first, int end)
{
	int			i;

	for (i = first; i < end; i++)
		put(values, nulls, n, false, Int64GetDatum((int64) stats->counters[i]));
}

static Datum
histogram(const SlStats *stats)
{
	Datum		elements[SL_LATENCY_BUCKETS];
	int			i;

	for (i = 0; i < SL_LATENCY_BUCKETS; i++)
		elements[i] = Int64GetDatum((int64) stats->latency[i]);
	return PointerGetDatum(construct_array(elements, SL_LATENCY_BUCKETS, INT8OID,
										   sizeof(int64), true, TYPALIGN_DOUBLE));
}

/*
 * SQL: stats() returns one row; all NULL where nothing is counted.
 */
Datum
sl_stats(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[STATS_COLUMNS] = {0};
	bool		nulls[STATS_COLUMNS];
	SlStats		stats;
	int			n = 0;

	sl_require_version();
	desc = result_desc(fcinfo, STATS_COLUMNS);
	memset(nulls, true, sizeof(nulls));
	if (sl_stats_read(&stats))
	{
		put_time(values, nulls, &n, stats.since);
		put_counters(values, nulls, &n, &stats, 0, SL_COUNT_WEBHOOK_FIRST);
		put_time(values, nulls, &n, stats.last_success);
		put_time(values, nulls, &n, stats.last_error_at);
		put_text(values, nulls, &n,
				 stats.last_error[0] == '\0' ? NULL : stats.last_error);
		put(values, nulls, &n, false, histogram(&stats));
		put_counters(values, nulls, &n, &stats, SL_COUNT_WEBHOOK_FIRST,
					 SL_COUNT_WORKER_STARTS);
		put_time(values, nulls, &n, stats.last_webhook);
		put_counters(values, nulls, &n, &stats, SL_COUNT_WORKER_STARTS,
					 SL_COUNTERS);
		Assert(n == STATS_COLUMNS);
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}

/*
 * SQL: stats_latency() returns setof (from_ms, below_ms, calls).
 */
Datum
sl_stats_latency(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	SlStats		stats;
	int			i;

	sl_require_version();
	sl_init_materialized(fcinfo);
	if (!sl_stats_read(&stats))
		return (Datum) 0;
	for (i = 0; i < SL_LATENCY_BUCKETS; i++)
	{
		Datum		values[3] = {0};
		bool		nulls[3] = {false};

		values[0] = Int64GetDatum(i == 0 ? 0 : INT64CONST(1) << (i - 1));
		nulls[1] = i == SL_LATENCY_BUCKETS - 1;
		values[1] = Int64GetDatum(INT64CONST(1) << i);
		values[2] = Int64GetDatum((int64) stats.latency[i]);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

static bool
worker_running(void)
{
	int			slot = sl_slots_ready() ? sl_slot_find(MyDatabaseId) : SL_NO_SLOT;
	SlSlotView	view;

	return slot != SL_NO_SLOT && sl_slot_view(slot, &view) &&
		view.dboid == MyDatabaseId && view.running;
}

/* Where this server is, to be compared with where the queue was last served. */
static void
put_identity(Datum *values, bool *nulls, int *n)
{
	char		host[256] = "";
	bool		recovering = RecoveryInProgress();

	put_text(values, nulls, n, psprintf(INT64_FORMAT, (int64) GetSystemIdentifier()));
	put(values, nulls, n, recovering,
		recovering ? (Datum) 0 : Int32GetDatum((int32) GetWALInsertionTimeLine()));
	if (gethostname(host, sizeof(host) - 1) != 0)
		host[0] = '\0';
	put_text(values, nulls, n, host[0] == '\0' ? NULL : host);
	put(values, nulls, n, false, Int32GetDatum(PostPortNumber));
}

/* Whether the key for checkpoints can be used, and which one it is. */
static void
put_checkpoint_key(Datum *values, bool *nulls, int *n)
{
	char		fingerprint[2 * SL_CHECKPOINT_HASH_LEN + 1];
	const char *why = NULL;
	SlKeyRing  *ring = NULL;

	/* not to be set is no problem */
	if (sl_checkpoint_key_file[0] != '\0')
		ring = sl_checkpoint_keys(false, &why);
	if (ring != NULL)
		sl_hex_encode(sl_keyring_signer(ring), SL_CHECKPOINT_HASH_LEN, fingerprint);
	put_text(values, nulls, n, ring == NULL ? why : NULL);
	put_text(values, nulls, n, ring == NULL ? NULL : fingerprint);
	sl_keyring_free(ring);
}

/*
 * SQL: server_status() returns one row.
 */
Datum
sl_server_status(PG_FUNCTION_ARGS)
{
	static const char *const modes[] = {
		[SL_KEY_MODE_UNKNOWN] = NULL,
		[SL_KEY_TEST] = "test",
		[SL_KEY_LIVE] = "live"
	};
	TupleDesc	desc;
	Datum		values[SERVER_COLUMNS];
	bool		nulls[SERVER_COLUMNS];
	char	   *problem;
	SlKeyMode	mode;
	int			nsecrets;
	int			n = 0;

	sl_require_version();
	desc = result_desc(fcinfo, SERVER_COLUMNS);
	put(values, nulls, &n, false, BoolGetDatum(sl_slots_ready()));
	put(values, nulls, &n, false, BoolGetDatum(sl_worker_available()));
	put(values, nulls, &n, false, BoolGetDatum(worker_running()));
	put(values, nulls, &n, false,
		BoolGetDatum(sl_database_is_served(get_database_name(MyDatabaseId))));
	mode = sl_api_key_problem(&problem);
	put_text(values, nulls, &n, problem);
	put_text(values, nulls, &n, modes[mode]);
	nsecrets = sl_webhook_secrets_problem(&problem);
	put_text(values, nulls, &n, problem);
	put(values, nulls, &n, false, Int32GetDatum(nsecrets));
	put_identity(values, nulls, &n);
	put_checkpoint_key(values, nulls, &n);
	Assert(n == SERVER_COLUMNS);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}
