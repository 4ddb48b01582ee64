/*-------------------------------------------------------------------------
 *
 * audit_export.c
 *	  audit_export(): the audit trail and its checkpoints as lines of text, for
 *	  the stand-alone verifier.  docs/checkpoints.md describes them.
 *
 * A checkpoint proves the transitions that it seals only if all of them are
 * there.  So the range that is asked for is widened to whole checkpoints, each
 * of which comes before its transitions; last come those that are not sealed
 * yet.  The fields are the very texts that are hashed, and with each transition
 * comes the hash that it was hashed onto, so that every line can be checked by
 * itself.
 *
 * All is read under the caller's snapshot, through cursors.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "audit.h"
#include "catalog.h"
#include "checkpoint_store.h"
#include "compat.h"
#include "errors.h"

PG_FUNCTION_INFO_V1(sl_audit_export);

#define BATCH 1000

/* The columns of the query below, after the fields that are hashed. */
enum
{
	COL_HASH = SL_AUDIT_NFIELDS, COL_POSITION, COL_PREVIOUS
};

static const char *const field_names[SL_AUDIT_NFIELDS] = {
	"payment_id", "seq", "from_state", "to_state", "at", "source", "event_id",
	"event_type", "event_created", "role", "note", "amount", "currency",
	"livemode"
};

/* Which fields are numbers or booleans in JSON. */
static bool
is_bare(int field)
{
	return field == SL_AUDIT_SEQ || field == SL_AUDIT_AMOUNT ||
		field == SL_AUDIT_LIVEMODE;
}

static SlQuery numbers = {
	.sql = "SELECT min(number), max(number) FROM stripe_lifecycle.audit_checkpoints"
	" WHERE last_at >= $1 AND first_at < $2",
	.args = {SL_TYPE_TIMESTAMPTZ, SL_TYPE_TIMESTAMPTZ},
};

#define TRANSITIONS \
	"SELECT t.payment_id, t.seq, t.from_state, t.to_state, t.at, t.source," \
	" t.event_id, t.event_type, t.event_created, t.role, t.note, t.amount," \
	" t.currency, t.livemode, t.hash, t.position, p.hash" \
	" FROM stripe_lifecycle.payment_transitions t" \
	" LEFT JOIN stripe_lifecycle.payment_transitions p" \
	" ON p.payment_id = t.payment_id AND p.seq = t.seq - 1"
static SlQuery sealed = {
	.sql = TRANSITIONS " WHERE t.position >= $1 AND t.position <= $2 ORDER BY t.position",
	.args = {SL_TYPE_INT8, SL_TYPE_INT8},
};
static SlQuery not_sealed = {
	.sql = TRANSITIONS " WHERE t.position >= $1 AND t.at >= $2 AND t.at < $3 ORDER BY t.position",
	.args = {SL_TYPE_INT8, SL_TYPE_TIMESTAMPTZ, SL_TYPE_TIMESTAMPTZ},
};

typedef struct Export
{
	ReturnSetInfo *result;
	bool		json;
	StringInfoData line;
	int64		checkpoints;
	int64		transitions;
} Export;

/* ---------- lines ---------- */

/* A value that has to be quoted: text of any kind. */
static void
put_quoted(Export *x, const char *s, size_t len)
{
	size_t		i;

	if (x->json)
	{
		/* wants a C string */
		escape_json(&x->line, pnstrdup(s, len));
		return;
	}
	appendStringInfoChar(&x->line, '"');
	for (i = 0; i < len; i++)
	{
		if (s[i] == '"')
			appendStringInfoChar(&x->line, '"');
		appendStringInfoChar(&x->line, s[i]);
	}
	appendStringInfoChar(&x->line, '"');
}

/* The next field; s NULL means NULL. */
static void
put_field(Export *x, const char *name, const char *s, size_t len, bool bare)
{
	if (x->json)
		appendStringInfo(&x->line, "%s\"%s\":", x->line.len > 1 ? "," : "", name);
	else if (x->line.len > 0)
		appendStringInfoChar(&x->line, ',');
	if (s == NULL)
		appendStringInfoString(&x->line, x->json ? "null" : "");
	else if (bare)
		appendBinaryStringInfo(&x->line, s, len);
	else
		put_quoted(x, s, len);
}

static void
begin_line(Export *x, const char *record)
{
	resetStringInfo(&x->line);
	if (x->json)
		appendStringInfoChar(&x->line, '{');
	put_field(x, "record", record, strlen(record), false);
}

static void
end_line(Export *x)
{
	Datum		value;
	bool		isnull = false;

	if (x->json)
		appendStringInfoChar(&x->line, '}');
	value = PointerGetDatum(cstring_to_text_with_len(x->line.data, x->line.len));
	tuplestore_putvalues(x->result->setResult, x->result->setDesc, &value, &isnull);
	pfree(DatumGetPointer(value));
}

/* A line that is no transition: CSV has the same columns for all. */
static void
put_text_line(Export *x, const char *record, const char *text)
{
	int			i;

	begin_line(x, record);
	put_field(x, "text", text, strlen(text), false);
	for (i = 0; !x->json && i < SL_AUDIT_NFIELDS + 3; i++)
		put_field(x, "", NULL, 0, true);
	end_line(x);
}

static void
put_header(Export *x)
{
	int			i;
	Datum		value;
	bool		isnull = false;

	if (x->json)
		return;
	resetStringInfo(&x->line);
	appendStringInfoString(&x->line, "record,text,position");
	for (i = 0; i < SL_AUDIT_NFIELDS; i++)
		appendStringInfo(&x->line, ",%s", field_names[i]);
	appendStringInfoString(&x->line, ",previous_hash,hash");
	value = PointerGetDatum(cstring_to_text_with_len(x->line.data, x->line.len));
	tuplestore_putvalues(x->result->setResult, x->result->setDesc, &value, &isnull);
}

static void
put_hash(Export *x, const char *name, Datum value, bool isnull)
{
	bytea	   *b = isnull ? NULL : DatumGetByteaPP(value);
	size_t		len = isnull ? 0 : VARSIZE_ANY_EXHDR(b);
	char	   *hex = palloc(2 * len + 1);

	if (b != NULL)
		sl_hex_encode((const unsigned char *) VARDATA_ANY(b), len, hex);
	put_field(x, name, b == NULL ? NULL : hex, 2 * len, false);
}

static void
put_transition(Export *x, HeapTuple tuple, TupleDesc desc)
{
	char		buf[SL_AUDIT_TEXT_SIZE];
	bool		isnull;
	Datum		value;
	int			i;

	begin_line(x, "transition");
	if (!x->json)
		put_field(x, "text", NULL, 0, true);
	value = SPI_getbinval(tuple, desc, COL_POSITION + 1, &isnull);
	put_field(x, "position", buf, pg_lltoa(DatumGetInt64(value), buf), true);
	for (i = 0; i < SL_AUDIT_NFIELDS; i++)
	{
		size_t		len = 0;
		const char *s = NULL;

		value = SPI_getbinval(tuple, desc, i + 1, &isnull);
		if (!isnull)
			s = sl_audit_text((SlTransitionColumn) i, value, buf, &len);
		put_field(x, field_names[i], s, len, is_bare(i));
	}
	value = SPI_getbinval(tuple, desc, COL_PREVIOUS + 1, &isnull);
	put_hash(x, "previous_hash", value, isnull);
	value = SPI_getbinval(tuple, desc, COL_HASH + 1, &isnull);
	put_hash(x, "hash", value, isnull);
	end_line(x);
	x->transitions++;
}

/* ---------- what is exported ---------- */

static void
put_transitions(Export *x, SlQuery *query, const Datum *args)
{
	Portal		portal = sl_open(query, args, NULL, true);
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext,
											  "lines of an export",
											  ALLOCSET_DEFAULT_SIZES);
	uint64		i;

	do
	{
		CHECK_FOR_INTERRUPTS();
		SPI_cursor_fetch(portal, true, BATCH);
		for (i = 0; i < SPI_processed; i++)
		{
			MemoryContext old = MemoryContextSwitchTo(cxt);

			put_transition(x, SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
			MemoryContextSwitchTo(old);
			MemoryContextReset(cxt);
		}
		SPI_freetuptable(SPI_tuptable);
	} while (SPI_processed > 0);
	SPI_cursor_close(portal);
	MemoryContextDelete(cxt);
}

static void
put_checkpoint(Export *x, const SlCheckpoint *c)
{
	char		line[SL_CHECKPOINT_LINE_SIZE];
	Datum		args[2];

	/* nothing can be before the first, so whatever is there belongs to be seen */
	args[0] = Int64GetDatum(c->number == 1 ? PG_INT64_MIN :
							sl_position_above(c->from_position));
	args[1] = Int64GetDatum(c->to_position);
	sl_checkpoint_line(c, line);
	put_text_line(x, "checkpoint", line);
	put_transitions(x, &sealed, args);
	x->checkpoints++;
}

/* All checkpoints from the first to the last of that time, and what they seal. */
static void
put_sealed(Export *x, const Datum *range)
{
	bool		isnull;
	Datum		first;
	Datum		last;
	SlRows		rows;
	SlCheckpoint c;

	(void) sl_look(&numbers, range, NULL);
	first = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	last = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull);
	if (isnull)
		return;
	sl_open_checkpoints(&rows, DatumGetInt64(first), DatumGetInt64(last));
	while (sl_next_checkpoint(&rows, &c))
		put_checkpoint(x, &c);
	sl_close_rows(&rows);
}

static void
put_all(Export *x, TimestampTz since, TimestampTz until)
{
	Datum		args[3] = {TimestampTzGetDatum(since), TimestampTzGetDatum(until)};
	char		from[SL_AUDIT_TIME_SIZE];
	char		to[SL_AUDIT_TIME_SIZE];
	SlCheckpoint newest;

	initStringInfo(&x->line);
	put_header(x);
	put_text_line(x, "export", psprintf("stripe_lifecycle export 1 since=%s until=%s",
										sl_audit_time_text(since, from),
										sl_audit_time_text(until, to)));
	put_sealed(x, args);
	args[2] = args[1];
	args[1] = args[0];
	args[0] = Int64GetDatum(sl_newest_checkpoint(true, &newest) ?
							sl_position_above(newest.to_position) : PG_INT64_MIN);
	put_transitions(x, &not_sealed, args);
	put_text_line(x, "end", psprintf("stripe_lifecycle end checkpoints=" INT64_FORMAT
									 " transitions=" INT64_FORMAT,
									 x->checkpoints, x->transitions));
}

/*
 * SQL: audit_export(since timestamptz, until timestamptz, format text) returns
 * setof text.  Errors: SL015; insufficient_privilege without SELECT on the
 * tables.
 */
Datum
sl_audit_export(PG_FUNCTION_ARGS)
{
	TimestampTz since = PG_ARGISNULL(0) ? DT_NOBEGIN : PG_GETARG_TIMESTAMPTZ(0);
	TimestampTz until = PG_ARGISNULL(1) ? DT_NOEND : PG_GETARG_TIMESTAMPTZ(1);
	char	   *format = PG_ARGISNULL(2) ? pstrdup("") :
		text_to_cstring(PG_GETARG_TEXT_PP(2));
	Export		x = {0};

	sl_require_version();
	x.json = strcmp(format, "json") == 0;
	if (!x.json && strcmp(format, "csv") != 0)
		ereport(ERROR,
				(errcode(SL_ERRCODE_ARGUMENT),
				 errmsg("argument \"format\" must be json or csv")));
	if (since > until)
		ereport(ERROR,
				(errcode(SL_ERRCODE_ARGUMENT),
				 errmsg("argument \"since\" must not be later than \"until\"")));
	sl_init_materialized_scalar(fcinfo);
	x.result = (ReturnSetInfo *) fcinfo->resultinfo;
	SPI_connect();
	put_all(&x, since, until);
	SPI_finish();
	return (Datum) 0;
}
