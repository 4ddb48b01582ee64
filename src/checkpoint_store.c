/*-------------------------------------------------------------------------
 *
 * checkpoint_store.c
 *	  Checkpoints and the transitions they seal, as they are in the tables.
 *
 * Both can be many, so they are read through cursors, a batch at a time.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "audit.h"
#include "checkpoint_store.h"
#include "compat.h"

#define BATCH 1000

static SlQuery newest = {
	.sql = "SELECT %s FROM stripe_lifecycle.audit_checkpoints"
	" ORDER BY number DESC LIMIT 1",
	.columns_of = SL_CHECKPOINTS,
};
static SlQuery checkpoints = {
	.sql = "SELECT %s FROM stripe_lifecycle.audit_checkpoints"
	" WHERE number BETWEEN $1 AND $2 ORDER BY number",
	.columns_of = SL_CHECKPOINTS,
	.args = {SL_TYPE_INT8, SL_TYPE_INT8},
};
static SlQuery transitions = {
	.sql = "SELECT position, at, hash FROM stripe_lifecycle.payment_transitions"
	" WHERE position >= $1 AND position <= $2 ORDER BY position LIMIT $3",
	.args = {SL_TYPE_INT8, SL_TYPE_INT8, SL_TYPE_INT8},
};

/* A sequence of which no value was taken yet says 1, too. */
static SlQuery last_position = {
	.sql = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END"
	" FROM stripe_lifecycle.payment_transitions_position_seq",
};

/*
 * A time in microseconds since 1970.  Infinite ones, which no clock gives, are
 * as good as the ends of the range.
 */
int64
sl_unix_time(TimestampTz t)
{
	const int64 limit = INT64CONST(9000000000000000000);

	if (TIMESTAMP_IS_NOBEGIN(t))
		return -limit;
	if (TIMESTAMP_IS_NOEND(t))
		return limit;
	return t - SL_UNIX_EPOCH_USECS;
}

/* Take n bytes of a bytea; zeroes if it is NULL or does not have just so many. */
static bool
read_bytes(Datum value, bool isnull, unsigned char *out, size_t n)
{
	bytea	   *b = isnull ? NULL : DatumGetByteaPP(value);

	memset(out, 0, n);
	if (b == NULL || VARSIZE_ANY_EXHDR(b) != n)
		return false;
	memcpy(out, VARDATA_ANY(b), n);
	return true;
}

static Datum
bytea_datum(const unsigned char *bytes, int n)
{
	bytea	   *b = palloc(VARHDRSZ + n);

	SET_VARSIZE(b, VARHDRSZ + n);
	memcpy(VARDATA(b), bytes, n);
	return PointerGetDatum(b);
}

/* False: a row that its table's constraints should not have let in. */
bool
sl_checkpoint_of_row(const SlRow *row, SlCheckpoint *c)
{
	const Datum *v = row->values;
	int			i;

	memset(c, 0, sizeof(*c));
	for (i = 0; i < CKP_NCOLS; i++)
		if (row->nulls[i])
			return false;
	memcpy(c->trail, DatumGetUUIDP(v[CKP_TRAIL])->data, sizeof(c->trail));
	c->number = DatumGetInt64(v[CKP_NUMBER]);
	c->from_position = DatumGetInt64(v[CKP_FROM_POSITION]);
	c->to_position = DatumGetInt64(v[CKP_TO_POSITION]);
	c->leaves = DatumGetInt64(v[CKP_LEAVES]);
	c->first_at = sl_unix_time(DatumGetTimestampTz(v[CKP_FIRST_AT]));
	c->last_at = sl_unix_time(DatumGetTimestampTz(v[CKP_LAST_AT]));
	c->sealed_at = sl_unix_time(DatumGetTimestampTz(v[CKP_SEALED_AT]));
	return read_bytes(v[CKP_ROOT], false, c->root, sizeof(c->root)) &&
		read_bytes(v[CKP_PREVIOUS], false, c->previous, sizeof(c->previous)) &&
		read_bytes(v[CKP_KEY], false, c->key, sizeof(c->key)) &&
		read_bytes(v[CKP_SIGNATURE], false, c->signature, sizeof(c->signature));
}

/*
 * The last one, as the caller's snapshot sees it, or a new one; false if there
 * is none.
 */
bool
sl_newest_checkpoint(bool callers_snapshot, SlCheckpoint *c)
{
	SlRow		row;

	if ((callers_snapshot ? sl_look(&newest, NULL, NULL) :
		 sl_run(&newest, NULL, NULL, 1)) == 0)
		return false;
	sl_read_row(SL_CHECKPOINTS, 0, &row);
	(void) sl_checkpoint_of_row(&row, c);
	return true;
}

/* False: there is one of that number already. */
bool
sl_insert_checkpoint(const SlCheckpoint *c)
{
	pg_uuid_t	trail;
	SlRow		row = {0};

	memcpy(trail.data, c->trail, sizeof(trail.data));
	row.values[CKP_NUMBER] = Int64GetDatum(c->number);
	row.values[CKP_TRAIL] = UUIDPGetDatum(&trail);
	row.values[CKP_FROM_POSITION] = Int64GetDatum(c->from_position);
	row.values[CKP_TO_POSITION] = Int64GetDatum(c->to_position);
	row.values[CKP_LEAVES] = Int64GetDatum(c->leaves);
	row.values[CKP_FIRST_AT] = TimestampTzGetDatum(c->first_at + SL_UNIX_EPOCH_USECS);
	row.values[CKP_LAST_AT] = TimestampTzGetDatum(c->last_at + SL_UNIX_EPOCH_USECS);
	row.values[CKP_SEALED_AT] = TimestampTzGetDatum(c->sealed_at + SL_UNIX_EPOCH_USECS);
	row.values[CKP_ROOT] = bytea_datum(c->root, sizeof(c->root));
	row.values[CKP_PREVIOUS] = bytea_datum(c->previous, sizeof(c->previous));
	row.values[CKP_KEY] = bytea_datum(c->key, sizeof(c->key));
	row.values[CKP_SIGNATURE] = bytea_datum(c->signature, sizeof(c->signature));
	return sl_insert_row(SL_CHECKPOINTS, &row, NULL);
}

/*
 * The last position that was given to a transition, committed or not; 0 if
 * none ever was.  Not bound to any snapshot.
 */
int64
sl_last_position(void)
{
	bool		isnull;

	if (sl_run(&last_position, NULL, NULL, 1) == 0)
		return 0;
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
									   SPI_tuptable->tupdesc, 1, &isnull));
}

/* ---------- many rows ---------- */

static void
open_rows(SlRows *rows, Portal portal)
{
	memset(rows, 0, sizeof(*rows));
	rows->portal = portal;
}

/* Have the next row at hand. */
static bool
next_row(SlRows *rows)
{
	if (rows->batch != NULL && rows->next < rows->n)
	{
		rows->next++;
		return true;
	}
	if (rows->batch != NULL)
		SPI_freetuptable(rows->batch);
	CHECK_FOR_INTERRUPTS();
	SPI_cursor_fetch(rows->portal, true, BATCH);
	rows->batch = SPI_tuptable;
	rows->n = SPI_processed;
	rows->next = 1;
	return rows->n > 0;
}

void
sl_close_rows(SlRows *rows)
{
	if (rows->batch != NULL)
		SPI_freetuptable(rows->batch);
	SPI_cursor_close(rows->portal);
}

/* Checkpoints by number, both ends included, as the caller's snapshot sees them. */
void
sl_open_checkpoints(SlRows *rows, int64 from_number, int64 to_number)
{
	Datum		args[2] = {Int64GetDatum(from_number), Int64GetDatum(to_number)};

	open_rows(rows, sl_open(&checkpoints, args, NULL, true));
}

bool
sl_next_checkpoint(SlRows *rows, SlCheckpoint *c)
{
	SlRow		row;

	if (!next_row(rows))
		return false;
	heap_deform_tuple(rows->batch->vals[rows->next - 1], rows->batch->tupdesc,
					  row.values, row.nulls);
	(void) sl_checkpoint_of_row(&row, c);
	return true;
}

/*
 * The first position above another one.  PG_INT64_MIN is below all of them: no
 * row is so far down that it would be passed over.
 */
int64
sl_position_above(int64 position)
{
	return position == PG_INT64_MIN || position == PG_INT64_MAX ?
		position : position + 1;
}

/*
 * Transitions by position, above the first and up to the second, but no more
 * than limit; as the caller's snapshot sees them, or a new one.
 */
void
sl_open_transitions(SlRows *rows, int64 from_position, int64 to_position,
					int64 limit, bool callers_snapshot)
{
	Datum		args[3] = {Int64GetDatum(sl_position_above(from_position)),
	Int64GetDatum(to_position), Int64GetDatum(limit)};

	open_rows(rows, sl_open(&transitions, args, NULL, callers_snapshot));
}

bool
sl_next_transition(SlRows *rows, SlLeaf *leaf)
{
	static unsigned char hash[SL_AUDIT_HASH_LEN];
	HeapTuple	tuple;
	TupleDesc	desc;
	Datum		value;
	bool		isnull;

	if (!next_row(rows))
		return false;
	tuple = rows->batch->vals[rows->next - 1];
	desc = rows->batch->tupdesc;
	leaf->position = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
	leaf->at = sl_unix_time(DatumGetTimestampTz(SPI_getbinval(tuple, desc, 2, &isnull)));
	value = SPI_getbinval(tuple, desc, 3, &isnull);
	(void) read_bytes(value, isnull, hash, sizeof(hash));
	leaf->hash = hash;
	return true;
}
