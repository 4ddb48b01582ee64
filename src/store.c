/*-------------------------------------------------------------------------
 *
 * store.c
 *	  Reads and writes the extension's tables, and tells the guard which
 *	  writes are the library's own.
 *
 * The guard trigger must know where a change comes from, and nothing that
 * SQL can set may tell it: no setting, table, role or temporary object.  So
 * the only statement of it is the variable 'permit_top' below.  It points to
 * the row about to be written, complete, and is set only around the one
 * statement that writes it.  A permit is good for one row, one operation and
 * exactly those values: a user's trigger that runs inside the statement and
 * writes anything else finds no leave, and one that alters our row on its
 * way makes the guard refuse it.  PG_FINALLY takes the permit away on every
 * way out, the abort of a subtransaction included, since errors reach us as
 * a longjmp through that block.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/lsyscache.h"

#include "catalog.h"
#include "compat.h"
#include "errors.h"
#include "replication.h"
#include "row_access.h"
#include "store.h"

typedef struct SlColumn
{
	const char *name;
	SlType		type;
	bool		immutable;		/* frozen once it is not NULL */
} SlColumn;

typedef struct SlTable
{
	const char *name;
	int			ncols;
	bool		identity;		/* column 0 is GENERATED ALWAYS AS IDENTITY */
	const SlColumn *columns;
} SlTable;

static const SlColumn payment_columns[PAY_NCOLS] = {
	{"id", SL_TYPE_UUID, true},
	{"idempotency_key", SL_TYPE_TEXT, true},
	{"state", SL_TYPE_STATE, false},
	{"amount", SL_TYPE_INT8, true},
	{"currency", SL_TYPE_TEXT, true},
	{"description", SL_TYPE_TEXT, true},
	{"customer", SL_TYPE_TEXT, true},
	{"receipt_email", SL_TYPE_TEXT, true},
	{"capture_method", SL_TYPE_TEXT, true},
	{"decline_policy", SL_TYPE_TEXT, true},
	{"stripe_account", SL_TYPE_TEXT, true},
	{"metadata", SL_TYPE_JSONB, true},
	{"params", SL_TYPE_JSONB, true},
	{"payment_intent_id", SL_TYPE_TEXT, true},
	{"client_secret", SL_TYPE_TEXT, false},
	{"livemode", SL_TYPE_BOOL, true},
	{"amount_capturable", SL_TYPE_INT8, false},
	{"amount_received", SL_TYPE_INT8, false},
	{"latest_charge", SL_TYPE_TEXT, false},
	{"cancellation_reason", SL_TYPE_TEXT, false},
	{"decline_count", SL_TYPE_INT4, false},
	{"last_error", SL_TYPE_JSONB, false},
	{"last_error_at", SL_TYPE_TIMESTAMPTZ, false},
	{"last_event_id", SL_TYPE_TEXT, false},
	{"last_event_created", SL_TYPE_TIMESTAMPTZ, false},
	{"last_event_rank", SL_TYPE_INT2, false},
	{"transitions", SL_TYPE_INT4, false},
	{"created_at", SL_TYPE_TIMESTAMPTZ, true},
	{"updated_at", SL_TYPE_TIMESTAMPTZ, false},
	{"finished_at", SL_TYPE_TIMESTAMPTZ, false},
	{"owner", SL_TYPE_TEXT, true},
	{"audit_head", SL_TYPE_BYTEA, false},
};

StaticAssertDecl(PAY_NCOLS <= SL_MAX_COLUMNS && EVT_NCOLS <= SL_MAX_COLUMNS &&
				 REQ_NCOLS <= SL_MAX_COLUMNS, "SL_MAX_COLUMNS is too small");

static const SlColumn transition_columns[TRA_NCOLS] = {
	{"payment_id", SL_TYPE_UUID, true},
	{"seq", SL_TYPE_INT4, true},
	{"from_state", SL_TYPE_STATE, true},
	{"to_state", SL_TYPE_STATE, true},
	{"at", SL_TYPE_TIMESTAMPTZ, true},
	{"source", SL_TYPE_TEXT, true},
	{"event_id", SL_TYPE_TEXT, true},
	{"event_type", SL_TYPE_TEXT, true},
	{"event_created", SL_TYPE_TIMESTAMPTZ, true},
	{"role", SL_TYPE_TEXT, true},
	{"note", SL_TYPE_TEXT, true},
	{"amount", SL_TYPE_INT8, true},
	{"currency", SL_TYPE_TEXT, true},
	{"livemode", SL_TYPE_BOOL, true},
	{"hash", SL_TYPE_BYTEA, true},
};

static const SlColumn event_columns[EVT_NCOLS] = {
	{"event_id", SL_TYPE_TEXT, true},
	{"type", SL_TYPE_TEXT, true},
	{"created", SL_TYPE_TIMESTAMPTZ, true},
	{"livemode", SL_TYPE_BOOL, true},
	{"api_version", SL_TYPE_TEXT, true},
	{"account", SL_TYPE_TEXT, true},
	{"object_id", SL_TYPE_TEXT, true},
	{"payment_intent_id", SL_TYPE_TEXT, true},
	{"payment_id", SL_TYPE_UUID, false},
	{"outcome", SL_TYPE_OUTCOME, false},
	{"reason", SL_TYPE_TEXT, false},
	{"secret_label", SL_TYPE_TEXT, true},
	{"source", SL_TYPE_TEXT, true},
	{"received_at", SL_TYPE_TIMESTAMPTZ, true},
	{"applied_at", SL_TYPE_TIMESTAMPTZ, false},
	{"payload", SL_TYPE_JSONB, true},
};

static const SlColumn request_columns[REQ_NCOLS] = {
	{"id", SL_TYPE_INT8, true},
	{"payment_id", SL_TYPE_UUID, true},
	{"operation", SL_TYPE_TEXT, true},
	{"method", SL_TYPE_TEXT, true},
	{"path", SL_TYPE_TEXT, true},
	{"body", SL_TYPE_TEXT, true},
	{"idempotency_key", SL_TYPE_TEXT, true},
	{"stripe_account", SL_TYPE_TEXT, true},
	{"created_at", SL_TYPE_TIMESTAMPTZ, true},
	{"status", SL_TYPE_STATUS, false},
	{"attempts", SL_TYPE_INT4, false},
	{"next_attempt_at", SL_TYPE_TIMESTAMPTZ, false},
	{"first_sent_at", SL_TYPE_TIMESTAMPTZ, false},
	{"finished_at", SL_TYPE_TIMESTAMPTZ, false},
	{"http_status", SL_TYPE_INT4, false},
	{"stripe_request_id", SL_TYPE_TEXT, false},
	{"last_error", SL_TYPE_JSONB, false},
	{"lookup_at", SL_TYPE_TIMESTAMPTZ, false},
	{"lookup_cursor", SL_TYPE_TEXT, false},
	{"watch_at", SL_TYPE_TIMESTAMPTZ, false},
	{"watch_note", SL_TYPE_TEXT, false},
};

static const SlColumn action_columns[ACT_NCOLS] = {
	{"id", SL_TYPE_INT8, true},
	{"at", SL_TYPE_TIMESTAMPTZ, true},
	{"role", SL_TYPE_TEXT, true},
	{"action", SL_TYPE_TEXT, true},
	{"request_id", SL_TYPE_INT8, true},
	{"payment_id", SL_TYPE_UUID, true},
	{"event_id", SL_TYPE_TEXT, true},
	{"reason", SL_TYPE_TEXT, true},
};

static const SlColumn checkpoint_columns[CKP_NCOLS] = {
	{"number", SL_TYPE_INT8, true},
	{"trail", SL_TYPE_UUID, true},
	{"from_position", SL_TYPE_INT8, true},
	{"to_position", SL_TYPE_INT8, true},
	{"leaves", SL_TYPE_INT8, true},
	{"first_at", SL_TYPE_TIMESTAMPTZ, true},
	{"last_at", SL_TYPE_TIMESTAMPTZ, true},
	{"sealed_at", SL_TYPE_TIMESTAMPTZ, true},
	{"root", SL_TYPE_BYTEA, true},
	{"previous", SL_TYPE_BYTEA, true},
	{"key", SL_TYPE_BYTEA, true},
	{"signature", SL_TYPE_BYTEA, true},
};

static const SlTable tables[SL_TABLE_COUNT] = {
	{"payments", PAY_NCOLS, false, payment_columns},
	{"payment_transitions", TRA_NCOLS, false, transition_columns},
	{"webhook_events", EVT_NCOLS, false, event_columns},
	{"api_requests", REQ_NCOLS, true, request_columns},
	{"api_attempts", 0, false, NULL},	/* never written row by row */
	{"operator_actions", ACT_NCOLS, true, action_columns},
	{"in_use", 0, false, NULL}, /* likewise */
	{"audit_checkpoints", CKP_NCOLS, false, checkpoint_columns},
};

/* Plans of the whole-row writes; see SlQuery for those of other rooms. */
static SPIPlanPtr insert_plans[SL_TABLE_COUNT];
static SPIPlanPtr update_plans[SL_TABLE_COUNT];
static uint64 insert_generation[SL_TABLE_COUNT];
static uint64 update_generation[SL_TABLE_COUNT];

static SlPermit *permit_top = NULL;

/* The worker's, in the worker. */
static Oid	acting_role = InvalidOid;

/*
 * The audit shows this role instead of the session's, which a worker shares
 * with the bootstrap superuser.
 */
void
sl_act_as(Oid role)
{
	acting_role = role;
}

/*
 * On whose behalf is this?  Not the current user: inside of our functions that
 * is their owner.
 */
Oid
sl_acting_role(void)
{
	return OidIsValid(acting_role) ? acting_role : GetOuterUserId();
}

/*
 * In a trigger: whoever set it off need not have any right on what the trigger
 * itself reads and writes, so that is done by the owner of the table.  Connects
 * to SPI as well.  An error takes back both.
 */
SlSavedUser
sl_become_owner(Relation rel)
{
	SlSavedUser saved;

	GetUserIdAndSecContext(&saved.user, &saved.context);
	SetUserIdAndSecContext(rel->rd_rel->relowner,
						   saved.context | SECURITY_LOCAL_USERID_CHANGE);
	SPI_connect();
	return saved;
}

void
sl_become_again(SlSavedUser saved)
{
	SPI_finish();
	SetUserIdAndSecContext(saved.user, saved.context);
}

/* The leave to write that is in force, or NULL; for the guard. */
const SlPermit *
sl_current_permit(void)
{
	return permit_top;
}

/* The guard saw the row that the permit is for. */
void
sl_permit_mark_used(void)
{
	Assert(permit_top != NULL);
	permit_top->used = true;
}

/* Which of our tables a relation is, by schema and name. */
SlTableId
sl_table_of_relation(Relation rel)
{
	int			i;

	if (RelationGetNamespace(rel) == sl_catalog()->schema)
		for (i = 0; i < SL_TABLE_COUNT; i++)
			if (strcmp(RelationGetRelationName(rel), tables[i].name) == 0)
				return (SlTableId) i;
	return SL_NO_TABLE;
}

int
sl_table_ncols(SlTableId table)
{
	return tables[table].ncols;
}

const char *
sl_table_name(SlTableId table)
{
	return tables[table].name;
}

bool
sl_column_is_identity(SlTableId table, int column)
{
	return tables[table].identity && column == 0;
}

/* Frozen once it has a value? */
bool
sl_column_is_immutable(SlTableId table, int column)
{
	return tables[table].columns[column].immutable;
}

SlState
sl_state_of_oid(Oid label)
{
	return (SlState) sl_enum_position(SL_ENUM_STATE, label);
}

Datum
sl_state_datum(SlState state)
{
	return ObjectIdGetDatum(sl_catalog()->labels[SL_ENUM_STATE][state]);
}

Datum
sl_outcome_datum(SlEventOutcome outcome)
{
	return ObjectIdGetDatum(sl_catalog()->labels[SL_ENUM_OUTCOME][outcome]);
}

/* The label of an outcome; constant storage. */
const char *
sl_outcome_name(SlEventOutcome outcome)
{
	return sl_enum_label(SL_ENUM_OUTCOME, outcome);
}

Datum
sl_status_datum(SlRequestStatus status)
{
	return ObjectIdGetDatum(sl_catalog()->labels[SL_ENUM_STATUS][status]);
}

SlRequestStatus
sl_status_of_oid(Oid label)
{
	return (SlRequestStatus) sl_enum_position(SL_ENUM_STATUS, label);
}

/*
 * Take a stored row apart.  It may have more columns than we know: later
 * versions append.
 */
void
sl_deform(Relation rel, SlTableId table, HeapTuple tuple, SlRow *row)
{
	TupleDesc	desc = RelationGetDescr(rel);
	int			ncols = tables[table].ncols;
	int			i;

	if (desc->natts < ncols)
		ereport(ERROR,
				(errcode(SL_ERRCODE_SCHEMA_MISMATCH),
				 errmsg("table \"%s.%s\" lacks columns that the library expects",
						SL_SCHEMA, RelationGetRelationName(rel)),
				 errhint("Run ALTER EXTENSION stripe_lifecycle UPDATE.")));
	if (desc->natts <= SL_MAX_COLUMNS)
		heap_deform_tuple(tuple, desc, row->values, row->nulls);
	else
		for (i = 0; i < ncols; i++)
			row->values[i] = heap_getattr(tuple, i + 1, desc, &row->nulls[i]);
}

static Oid
type_oid(SlType type)
{
	switch (type)
	{
		case SL_TYPE_UUID:
			return UUIDOID;
		case SL_TYPE_TEXT:
			return TEXTOID;
		case SL_TYPE_INT2:
			return INT2OID;
		case SL_TYPE_INT4:
			return INT4OID;
		case SL_TYPE_INT8:
			return INT8OID;
		case SL_TYPE_BOOL:
			return BOOLOID;
		case SL_TYPE_TIMESTAMPTZ:
			return TIMESTAMPTZOID;
		case SL_TYPE_JSONB:
			return JSONBOID;
		case SL_TYPE_FLOAT8:
			return FLOAT8OID;
		case SL_TYPE_BYTEA:
			return BYTEAOID;
		case SL_TYPE_STATE:
			return sl_catalog()->enums[SL_ENUM_STATE];
		case SL_TYPE_OUTCOME:
			return sl_catalog()->enums[SL_ENUM_OUTCOME];
		case SL_TYPE_STATUS:
			return sl_catalog()->enums[SL_ENUM_STATUS];
		case SL_TYPE_END:
			break;
	}
	return InvalidOid;
}

static void
append_column_list(StringInfo buf, SlTableId table)
{
	int			i;

	for (i = 0; i < tables[table].ncols; i++)
		appendStringInfo(buf, "%s%s", i > 0 ? ", " : "",
						 tables[table].columns[i].name);
}

/*
 * Prepare a statement whose text is made of compile-time constants only, and
 * keep the plan for the life of the session.  An older plan, of a previous
 * incarnation of the extension, is freed.
 */
static SPIPlanPtr
prepare(const char *sql, int nargs, Oid *argtypes, SPIPlanPtr old)
{
	SPIPlanPtr	plan = SPI_prepare(sql, nargs, argtypes);

	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	SPI_keepplan(plan);
	if (old != NULL)
		SPI_freeplan(old);
	return plan;
}

static void
prepare_query(SlQuery *query)
{
	Oid			argtypes[SL_QUERY_MAX_ARGS];
	StringInfoData sql;
	const char *hole = strstr(query->sql, "%s");
	uint64		generation = sl_catalog()->generation;
	int			nargs = 0;

	while (nargs < SL_QUERY_MAX_ARGS && query->args[nargs] != SL_TYPE_END)
	{
		argtypes[nargs] = type_oid(query->args[nargs]);
		nargs++;
	}

	initStringInfo(&sql);
	if (hole != NULL)
	{
		appendBinaryStringInfo(&sql, query->sql, hole - query->sql);
		append_column_list(&sql, query->columns_of);
		appendStringInfoString(&sql, hole + 2);
	}
	else
		appendStringInfoString(&sql, query->sql);

	query->plan = prepare(sql.data, nargs, argtypes, query->plan);
	query->generation = generation;
	pfree(sql.data);
}

/* SPI wants NULLs as a string of 'n' and ' '. */
static void
spi_nulls(const bool *nulls, int n, char *out)
{
	int			i;

	for (i = 0; i < n; i++)
		out[i] = nulls != NULL && nulls[i] ? 'n' : ' ';
}

static int
run(SlQuery *query, const Datum *values, const bool *nulls, long limit,
	bool callers_snapshot)
{
	char		spinulls[SL_QUERY_MAX_ARGS];
	int			rc;

	if (query->plan == NULL || query->generation != sl_catalog()->generation)
		prepare_query(query);
	spi_nulls(nulls, SL_QUERY_MAX_ARGS, spinulls);
	rc = SPI_execute_plan(query->plan, (Datum *) values, spinulls,
						  callers_snapshot, limit);
	if (rc < 0)
		elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(rc));
	return (int) SPI_processed;
}

/*
 * Run a constant statement; returns how many rows it gave or touched.  A new
 * snapshot is taken, so that it sees what committed while we waited.  Rows
 * live in SPI_tuptable until SPI_finish.
 */
int
sl_run(SlQuery *query, const Datum *values, const bool *nulls, long limit)
{
	return run(query, values, nulls, limit, false);
}

/* The same for a query, of which one row is wanted, under the caller's snapshot. */
int
sl_look(SlQuery *query, const Datum *values, const bool *nulls)
{
	return run(query, values, nulls, 1, true);
}

/*
 * Open a cursor for a constant query, to be read with SPI_cursor_fetch() and
 * closed with SPI_cursor_close().  It sees what the caller's own snapshot does,
 * or, under a new one, all that is committed.
 */
Portal
sl_open(SlQuery *query, const Datum *values, const bool *nulls,
		bool callers_snapshot)
{
	char		spinulls[SL_QUERY_MAX_ARGS];

	if (query->plan == NULL || query->generation != sl_catalog()->generation)
		prepare_query(query);
	spi_nulls(nulls, SL_QUERY_MAX_ARGS, spinulls);
	return SPI_cursor_open(NULL, query->plan, (Datum *) values, spinulls,
						   callers_snapshot);
}

/*
 * Take row n of the latest sl_run() or fetch that selected all columns of a table.
 * Pass-by-reference values point into SPI_tuptable: valid until SPI_finish.
 */
void
sl_read_row(SlTableId table, uint64 n, SlRow *row)
{
	Assert(SPI_tuptable->tupdesc->natts == tables[table].ncols);
	heap_deform_tuple(SPI_tuptable->vals[n], SPI_tuptable->tupdesc,
					  row->values, row->nulls);
}

/* A column of a row in SPI_tuptable as a palloc'd string; NULL if it is null. */
char *
sl_text_column(HeapTuple tuple, TupleDesc desc, int attnum)
{
	bool		isnull;
	Datum		d = SPI_getbinval(tuple, desc, attnum, &isnull);

	return isnull ? NULL : TextDatumGetCString(d);
}

/* The same of a timestamp, which is 'absent' if it is null. */
TimestampTz
sl_time_column(HeapTuple tuple, TupleDesc desc, int attnum, TimestampTz absent)
{
	bool		isnull;
	Datum		d = SPI_getbinval(tuple, desc, attnum, &isnull);

	return isnull ? absent : DatumGetTimestampTz(d);
}

static void
prepare_insert(SlTableId table)
{
	const SlTable *t = &tables[table];
	int			first = t->identity ? 1 : 0;
	Oid			argtypes[SL_MAX_COLUMNS];
	StringInfoData sql;
	int			i;

	initStringInfo(&sql);
	appendStringInfo(&sql, "INSERT INTO %s.%s (", SL_SCHEMA, t->name);
	for (i = first; i < t->ncols; i++)
		appendStringInfo(&sql, "%s%s", i > first ? ", " : "", t->columns[i].name);
	appendStringInfoString(&sql, ") VALUES (");
	for (i = first; i < t->ncols; i++)
	{
		argtypes[i - first] = type_oid(t->columns[i].type);
		appendStringInfo(&sql, "%s$%d", i > first ? ", " : "", i - first + 1);
	}
	appendStringInfo(&sql, ") ON CONFLICT DO NOTHING");
	if (t->identity)
		appendStringInfo(&sql, " RETURNING %s", t->columns[0].name);

	insert_plans[table] = prepare(sql.data, t->ncols - first, argtypes,
								  insert_plans[table]);
	insert_generation[table] = sl_catalog()->generation;
	pfree(sql.data);
}

static void
prepare_update(SlTableId table)
{
	const SlTable *t = &tables[table];
	Oid			argtypes[SL_MAX_COLUMNS];
	StringInfoData sql;
	int			i;

	initStringInfo(&sql);
	appendStringInfo(&sql, "UPDATE %s.%s SET ", SL_SCHEMA, t->name);
	for (i = 0; i < t->ncols; i++)
	{
		argtypes[i] = type_oid(t->columns[i].type);
		if (i > 0)
			appendStringInfo(&sql, "%s%s = $%d", i > 1 ? ", " : "",
							 t->columns[i].name, i + 1);
	}
	appendStringInfo(&sql, " WHERE %s OPERATOR(pg_catalog.=) $1", t->columns[0].name);

	update_plans[table] = prepare(sql.data, t->ncols, argtypes,
								  update_plans[table]);
	update_generation[table] = sl_catalog()->generation;
	pfree(sql.data);
}

/*
 * Somebody's trigger or rule took a row of ours away.  Plans are made anew
 * after this: one that a rule rewrote to nothing depends on no table, so
 * PostgreSQL would not notice that the rule is gone.
 */
void
sl_write_suppressed(SlTableId table)
{
	memset(insert_generation, 0, sizeof(insert_generation));
	memset(update_generation, 0, sizeof(update_generation));

	/* where rows are replicated, their numbers are not drawn here */
	sl_refuse_subscribed(get_relname_relid(tables[table].name, sl_catalog()->schema));
	ereport(ERROR,
			(errcode(SL_ERRCODE_GUARD_BYPASSED),
			 errmsg("a write to table \"%s.%s\" was suppressed",
					SL_SCHEMA, tables[table].name),
			 errdetail("A trigger or rule that is not part of stripe_lifecycle discarded the row."),
			 tables[table].identity ?
			 errhint("Remove BEFORE triggers that return NULL and INSTEAD rules from the table.  If its rows once came by logical replication, resume_worker() moves its numbers on.") :
			 errhint("Remove BEFORE triggers that return NULL and INSTEAD rules from the table.")));
}

/*
 * A table for work below the executor.  Its OID and the types of its columns
 * are those of the extension's present incarnation.
 */
static SlAccess *
access_to(SlTableId table)
{
	static SlAccess access[SL_TABLE_COUNT];
	static Oid	types[SL_TABLE_COUNT][SL_MAX_COLUMNS];
	static uint64 generation[SL_TABLE_COUNT];
	const SlTable *t = &tables[table];
	SlAccess   *a = &access[table];
	int			i;

	if (generation[table] != sl_catalog()->generation)
	{
		for (i = 0; i < t->ncols; i++)
			types[table][i] = type_oid(t->columns[i].type);
		a->relid = get_relname_relid(t->name, sl_catalog()->schema);
		a->ncols = t->ncols;
		a->types = types[table];
		generation[table] = sl_catalog()->generation;
	}
	return a;
}

/*
 * What SQL finds in place of sl_access_...().  Its values live in the current
 * memory context as well.
 */
static bool
found_by_sql(SlQuery *query, Datum key, SlRow *row)
{
	MemoryContext cxt = CurrentMemoryContext;
	bool		found;

	SPI_connect();
	found = sl_run(query, &key, NULL, 1) > 0;
	if (found && row != NULL)
	{
		MemoryContext spi = MemoryContextSwitchTo(cxt);

		heap_deform_tuple(heap_copytuple(SPI_tuptable->vals[0]),
						  SPI_tuptable->tupdesc, row->values, row->nulls);
		MemoryContextSwitchTo(spi);
	}
	SPI_finish();
	return found;
}

/*
 * Find a row by a column with a unique index, and lock it; false if there is
 * none.  Its values live in the current memory context.  'query' does the same
 * where SQL has to.  These need no connection to SPI.
 */
bool
sl_lock_row(SlTableId table, int column, Datum key, SlQuery *query, SlRow *row)
{
	SlAccessResult result = sl_access_find(access_to(table), column, key, true,
										   row->values, row->nulls);

	return result == SL_ACCESS_USE_SQL ? found_by_sql(query, key, row) :
		result == SL_ACCESS_DONE;
}

/* The same without a lock; 'row' may be NULL. */
bool
sl_find_row(SlTableId table, int column, Datum key, SlQuery *query, SlRow *row)
{
	SlAccessResult result = sl_access_find(access_to(table), column, key, false,
										   row == NULL ? NULL : row->values,
										   row == NULL ? NULL : row->nulls);

	return result == SL_ACCESS_USE_SQL ? found_by_sql(query, key, row) :
		result == SL_ACCESS_DONE;
}

/*
 * Of several rows with the same key, look at the one whose first column is
 * largest, and of that at one column.  'query' returns that column alone.
 */
bool
sl_newest_value(SlTableId table, int column, Datum key, int wanted,
				SlQuery *query, Datum *value, bool *isnull)
{
	SlAccessResult result = sl_access_newest(access_to(table), column, key,
											 wanted, value, isnull);
	SlRow		row;

	if (result != SL_ACCESS_USE_SQL)
		return result == SL_ACCESS_DONE;
	if (!found_by_sql(query, key, &row))
		return false;
	*value = row.values[0];
	*isnull = row.nulls[0];
	return true;
}

/* Write a row by a statement; returns whether a row was written. */
static bool
write_by_sql(SlTableId table, bool insert, SlRow *row)
{
	int			first = insert && tables[table].identity ? 1 : 0;
	SPIPlanPtr *plan = insert ? &insert_plans[table] : &update_plans[table];
	char		spinulls[SL_MAX_COLUMNS];
	int			rc;

	if (*plan == NULL || sl_catalog()->generation !=
		(insert ? insert_generation[table] : update_generation[table]))
	{
		if (insert)
			prepare_insert(table);
		else
			prepare_update(table);
	}
	spi_nulls(row->nulls + first, tables[table].ncols - first, spinulls);
	rc = SPI_execute_plan(*plan, row->values + first, spinulls, false, 0);
	if (rc < 0)
		elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(rc));
	if (first > 0 && SPI_processed == 1)
		row->values[0] = SPI_getbinval(SPI_tuptable->vals[0],
									   SPI_tuptable->tupdesc, 1,
									   &row->nulls[0]);
	return SPI_processed == 1;
}

static bool
write_row(SlTableId table, bool insert, bool may_exist, SlRow *row)
{
	SlAccess   *access = access_to(table);
	SlAccessResult result = insert ?
		sl_access_insert(access, row->values, row->nulls, may_exist) :
		sl_access_update(access, row->values, row->nulls);

	if (result == SL_ACCESS_USE_SQL)
		return write_by_sql(table, insert, row);
	return result == SL_ACCESS_DONE;
}

/*
 * Write a whole row under a permit for exactly that row; returns whether a row
 * was written.
 */
static bool
write_permitted(SlPermit *permit, SlRow *row, bool may_exist)
{
	volatile bool written = false;

	permit->outer = permit_top;
	permit->used = false;
	permit->row = row;
	permit_top = permit;
	PG_TRY();
	{
		written = write_row(permit->table, permit->insert, may_exist, row);
	}
	PG_FINALLY();
	{
		permit_top = permit->outer;
	}
	PG_END_TRY();

	/* A trigger wrote the row in our stead and took ours away. */
	if (!written && permit->used)
		sl_write_suppressed(permit->table);
	if (written && !permit->used)
		ereport(ERROR,
				(errcode(SL_ERRCODE_GUARD_BYPASSED),
				 errmsg("the guard of table \"%s.%s\" did not see a row being written",
						SL_SCHEMA, tables[permit->table].name),
				 errdetail("Without its guard the table could be changed without trace, so nothing is written."),
				 errhint("Enable it again: ALTER TABLE %s.%s ENABLE ALWAYS TRIGGER stripe_lifecycle_guard.",
						 SL_SCHEMA, tables[permit->table].name)));
	return written;
}

static bool
insert_permitted(SlTableId table, SlRow *row, const SlRow *transition,
				 bool may_exist)
{
	SlPermit	permit = {.table = table,.insert = true,.transition = transition};

	if (table == SL_PAYMENTS || table == SL_EVENTS)
		sl_note_in_use();
	return write_permitted(&permit, row, may_exist);
}

/*
 * Insert a row; false if one with the same unique key is there already.  An
 * identity column is left to the database and filled in here.  A payment comes
 * with its audit row, which the guard will write (see audit.c).
 */
bool
sl_insert_row(SlTableId table, SlRow *row, const SlRow *transition)
{
	return insert_permitted(table, row, transition, true);
}

/*
 * Insert a row whose key nobody else can have inserted meanwhile, because the
 * caller holds the lock that they would need.  If it is there all the same,
 * that is false or an error (unique_violation).
 */
bool
sl_insert_new_row(SlTableId table, SlRow *row, const SlRow *transition)
{
	return insert_permitted(table, row, transition, false);
}

/*
 * Update a row, found by its first column, to exactly these values.  The
 * caller has it locked, so a row that was not written means that somebody's
 * trigger suppressed the write.
 */
void
sl_update_row(SlTableId table, SlRow *row, const SlRow *transition)
{
	SlPermit	permit = {.table = table,.insert = false,.transition = transition};

	if (!write_permitted(&permit, row, false))
		sl_write_suppressed(table);
}

/* ---------- rows that may go ---------- */

/* What is older than this may be deleted just now; see retention.c. */
static TimestampTz removal_limit = DT_NOBEGIN;

/* For the guard, which judges each row by it. */
TimestampTz
sl_removal_limit(void)
{
	return removal_limit;
}

/* Run a statement that deletes rows; the guard lets those go that may. */
void
sl_run_removal(SlQuery *query, const Datum *values, TimestampTz limit)
{
	removal_limit = limit;
	PG_TRY();
	{
		(void) sl_run(query, values, NULL, 0);
	}
	PG_FINALLY();
	{
		removal_limit = DT_NOBEGIN;
	}
	PG_END_TRY();
}

/* ---------- is this database in use? ---------- */

/*
 * Rows are restored into a database where the library has written nothing of
 * its own, and nowhere else; see restore.c.  Table in_use remembers that it has.
 */
static SlQuery look_in_use = {
	.sql = "SELECT xmin FROM stripe_lifecycle.in_use",
};

/*
 * Requests that are there already came past the guards, which otherwise pause
 * the database: by pg_restore --disable-triggers.  One statement, hence one
 * snapshot: others that mark it at the same time have their requests and their
 * row here seen together.
 */
static SlQuery mark_in_use = {
	.sql = "WITH restored AS (UPDATE stripe_lifecycle.worker_state"
	" SET paused = true, paused_reason = 'restored from a dump',"
	" paused_by = $2, paused_at = $1"
	" WHERE NOT paused AND system_identifier IS NULL"
	" AND EXISTS (SELECT FROM stripe_lifecycle.api_requests)"
	" AND NOT EXISTS (SELECT FROM stripe_lifecycle.in_use))"
	" INSERT INTO stripe_lifecycle.in_use VALUES ($1)",
	.args = {SL_TYPE_TIMESTAMPTZ, SL_TYPE_TEXT},
};

/* The incarnation of the extension that is known to be in use for good. */
static uint64 in_use_generation = 0;

/* The transaction in which we said so, and which may yet be rolled back. */
static TransactionId marked_by = InvalidTransactionId;

/*
 * Have the library's functions written a payment or an event here?  What this
 * very transaction says, by whichever of them, is not known for good.
 */
bool
sl_in_use(void)
{
	bool		isnull;
	Datum		xmin;

	if (in_use_generation == sl_catalog()->generation)
		return true;
	if (sl_run(&look_in_use, NULL, NULL, 1) == 0)
		return false;
	xmin = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (!TransactionIdIsCurrentTransactionId(DatumGetTransactionId(xmin)))
		in_use_generation = sl_catalog()->generation;
	return true;
}

/*
 * Is that known, or has this very transaction said so?  Not a look: false means
 * that the answer of an earlier sl_in_use() in this transaction still holds.
 */
bool
sl_marked_in_use(void)
{
	return in_use_generation == sl_catalog()->generation ||
		(marked_by != InvalidTransactionId &&
		 marked_by == GetTopTransactionIdIfAny());
}

/*
 * They are about to.  Costs nothing once it is known to be so.  Sessions that
 * find no row at the same time each leave one, rather than wait for each other.
 */
void
sl_note_in_use(void)
{
	Datum		args[2];

	if (sl_in_use())
		return;
	args[0] = TimestampTzGetDatum(GetCurrentTimestamp());
	args[1] = CStringGetTextDatum(GetUserNameFromId(sl_acting_role(), false));
	(void) sl_run(&mark_in_use, args, NULL, 0);
	marked_by = GetTopTransactionIdIfAny();
}
