/*-------------------------------------------------------------------------
 *
 * verify_checkpoints.c
 *	  SQL functions that judge checkpoints: verify_checkpoints() compares the
 *	  audit trail with them, checkpoint_line() shows one as it was logged.
 *
 * What is compared with what is sealed_trail.c's matter, as it is in the
 * stand-alone verifier.  Here checkpoints and transitions are read side by
 * side, by position, under the caller's snapshot: transitions that were not
 * sealed when it was taken are not, and are no break.
 *
 * This cannot replace a look from outside.  Whoever can write anything in here
 * can take the newest checkpoints away together with what they seal, and only
 * the server's log, kept elsewhere, knows that they were there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

#include "audit.h"
#include "catalog.h"
#include "checkpoint_store.h"
#include "compat.h"
#include "errors.h"
#include "sealed_trail.h"
#include "secrets.h"

PG_FUNCTION_INFO_V1(sl_verify_checkpoints);
PG_FUNCTION_INFO_V1(sl_checkpoint_line_sql);

/* The first checkpoint with transitions of that time or later. */
static SlQuery first_since = {
	.sql = "SELECT min(number) FROM stripe_lifecycle.audit_checkpoints"
	" WHERE last_at >= $1",
	.args = {SL_TYPE_TIMESTAMPTZ},
};

static void
put_finding(void *arg, int64_t number, SlFinding finding, const char *detail)
{
	ReturnSetInfo *result = arg;
	Datum		values[3];
	bool		nulls[3] = {false};

	values[0] = Int64GetDatum(number);
	nulls[0] = number == 0;
	values[1] = CStringGetTextDatum(sl_finding_name(finding));
	values[2] = CStringGetTextDatum(detail);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/*
 * The keys whose signatures count: those of the server's file, if it has any,
 * and those given.  The ring is to be freed.
 */
static SlKeyRing *
trusted_keys(text *public_keys)
{
	const char *why;
	SlKeyRing  *ring = sl_checkpoint_keys(false, &why);
	SlKeyResult result = SL_KEY_OK;

	if (ring == NULL)
		ring = sl_keyring_new();
	if (ring == NULL || !sl_keyring_forget_private(ring))
		result = SL_KEY_CRYPTO;
	else if (public_keys != NULL)
		result = sl_keyring_add(ring, VARDATA_ANY(public_keys),
								VARSIZE_ANY_EXHDR(public_keys));
	if (result == SL_KEY_OK)
		return ring;
	sl_keyring_free(ring);
	ereport(ERROR,
			(errcode(SL_ERRCODE_ARGUMENT),
			 errmsg("argument \"public_keys\" %s", sl_key_result_text(result)),
			 errhint("Give public keys of Ed25519 in PEM, as \"openssl pkey -pubout\" writes them.")));
	return NULL;				/* keep compiler quiet */
}

/* Where to begin: 1, or a later number; INT64_MAX: nowhere. */
static int64
first_number(TimestampTz since)
{
	Datum		arg = TimestampTzGetDatum(since);
	Datum		number;
	bool		isnull;

	if (TIMESTAMP_IS_NOBEGIN(since))
		return 1;
	(void) sl_look(&first_since, &arg, NULL);
	number = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	return isnull ? PG_INT64_MAX : DatumGetInt64(number);
}

/* A checkpoint by its number. */
static bool
find_checkpoint(int64 number, SlCheckpoint *c)
{
	SlRows		rows;
	bool		found;

	sl_open_checkpoints(&rows, number, number);
	found = sl_next_checkpoint(&rows, c);
	sl_close_rows(&rows);
	return found;
}

/* Hands everything from a checkpoint on to the comparison. */
static void
compare(SlSealedTrail *trail, int64 from_number)
{
	SlCheckpoint before;
	SlCheckpoint c;
	SlRows		checkpoints;
	SlRows		transitions;
	SlLeaf		leaf;
	bool		has_checkpoint;
	bool		has_leaf;
	bool		has_before = from_number > 1 && find_checkpoint(from_number - 1, &before);

	if (from_number > 1)
		sl_sealed_trail_partial(trail, has_before ? &before : NULL);
	sl_open_checkpoints(&checkpoints, from_number, PG_INT64_MAX);
	has_checkpoint = sl_next_checkpoint(&checkpoints, &c);

	/* without the one before, what is between the two can't be told apart */
	sl_open_transitions(&transitions,
						has_before ? before.to_position :
						from_number > 1 && has_checkpoint ? c.from_position : PG_INT64_MIN,
						PG_INT64_MAX, PG_INT64_MAX, true);
	has_leaf = sl_next_transition(&transitions, &leaf);
	while (has_checkpoint)
	{
		sl_sealed_trail_checkpoint(trail, &c);
		while (has_leaf && leaf.position <= c.to_position)
		{
			sl_sealed_trail_transition(trail, leaf.position, leaf.at, leaf.hash);
			has_leaf = sl_next_transition(&transitions, &leaf);
		}
		has_checkpoint = sl_next_checkpoint(&checkpoints, &c);
	}
	sl_sealed_trail_end(trail);
	sl_close_rows(&transitions);
	sl_close_rows(&checkpoints);
}

/*
 * SQL: verify_checkpoints(since timestamptz, public_keys text) returns what is
 * wrong: checkpoint, problem, detail.  Errors: SL015; insufficient_privilege
 * without SELECT on the tables.
 */
Datum
sl_verify_checkpoints(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	TimestampTz since = PG_ARGISNULL(0) ? DT_NOBEGIN : PG_GETARG_TIMESTAMPTZ(0);
	SlKeyRing  *volatile ring;
	SlSealedTrail *volatile trail;
	int64		from_number;

	sl_require_version();
	sl_init_materialized(fcinfo);
	ring = trusted_keys(PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1));
	trail = sl_sealed_trail_new(ring, put_finding, result);
	PG_TRY();
	{
		if (trail == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("could not initialize SHA-256")));
		SPI_connect();
		from_number = first_number(since);
		if (from_number < PG_INT64_MAX)
			compare(trail, from_number);
		SPI_finish();
	}
	PG_FINALLY();
	{
		sl_sealed_trail_free(trail);
		sl_keyring_free(ring);
	}
	PG_END_TRY();
	return (Datum) 0;
}

/*
 * SQL: checkpoint_line(checkpoint audit_checkpoints) returns text, the line as
 * the server logged it; NULL for a row that is none.
 */
Datum
sl_checkpoint_line_sql(PG_FUNCTION_ARGS)
{
	HeapTupleHeader header = PG_GETARG_HEAPTUPLEHEADER(0);
	TupleDesc	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(header),
											  HeapTupleHeaderGetTypMod(header));
	char		line[SL_CHECKPOINT_LINE_SIZE];
	HeapTupleData tuple;
	SlCheckpoint c;
	SlRow		row;
	int			i;

	sl_require_version();
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	for (i = 0; i < CKP_NCOLS; i++)
		row.values[i] = heap_getattr(&tuple, i + 1, desc, &row.nulls[i]);
	ReleaseTupleDesc(desc);
	if (!sl_checkpoint_of_row(&row, &c))
		PG_RETURN_NULL();
	sl_checkpoint_line(&c, line);
	PG_RETURN_TEXT_P(cstring_to_text(line));
}
