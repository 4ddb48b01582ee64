/*-------------------------------------------------------------------------
 *
 * guard.c
 *	  The trigger that stands over every table of the extension.
 *
 * An AFTER ROW trigger, for it then judges the row that was really stored:
 * BEFORE triggers of others, whatever their names sort like, have had their
 * say.  It compares that row with the permit of the library's own write (see
 * store.c).  With a matching permit the row passes, if the edge is legal;
 * without one nothing passes that would change what the database promises.
 *
 * Here, and only here, a change of state becomes a row of the audit trail:
 * whoever and whatever changes a payment comes through this function, so no
 * transition can lack its row.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/rel.h"
#include "utils/uuid.h"

#include "compat.h"
#include "errors.h"
#include "store.h"

PG_FUNCTION_INFO_V1(sl_guard);

typedef struct GuardedRow
{
	Relation	rel;
	SlTableId	table;
	SlRow		old;			/* UPDATE only */
	SlRow		new;
} GuardedRow;

/* Are two values of a column the same bytes? */
static bool
same_value(Relation rel, int column, const SlRow *a, const SlRow *b)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), column);

	if (a->nulls[column] || b->nulls[column])
		return a->nulls[column] && b->nulls[column];
	return datum_image_eq(a->values[column], b->values[column],
						  att->attbyval, att->attlen);
}

/* First column in which the stored row differs from the other; -1 if none. */
static int
first_difference(const GuardedRow *g, const SlRow *other)
{
	int			i;

	for (i = 0; i < sl_table_ncols(g->table); i++)
		if (!sl_column_is_identity(g->table, i) &&
			!same_value(g->rel, i, &g->new, other))
			return i;
	return -1;
}

static const char *
column_name(const GuardedRow *g, int column)
{
	return NameStr(TupleDescAttr(RelationGetDescr(g->rel), column)->attname);
}

/* The id of the payment a row is, or is about; for messages. */
static char *
payment_id_text(const SlRow *row)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, row->values[PAY_ID]));
}

/* "processing, succeeded or failed", as a palloc'd list of the legal moves. */
static char *
legal_targets(SlState from)
{
	StringInfoData buf;
	size_t		n;
	const SlEdge *edges = sl_edges(&n);
	size_t		i;

	initStringInfo(&buf);
	for (i = 0; i < n; i++)
		if (edges[i].from == from)
			appendStringInfo(&buf, "%s%s", buf.len > 0 ? ", " : "",
							 sl_state_name(edges[i].to));
	if (buf.len == 0)
		appendStringInfoString(&buf, "none");
	return buf.data;
}

static const char *
edge_evidence(SlState from, SlState to)
{
	size_t		n;
	const SlEdge *edges = sl_edges(&n);
	size_t		i;

	for (i = 0; i < n; i++)
		if (edges[i].from == from && edges[i].to == to)
			return edges[i].evidence;
	return NULL;
}

/*
 * Refuse a change of state: because no such edge exists, or because the edge
 * exists but nobody but a verified event may take it.
 */
static void
refuse_transition(const GuardedRow *g, SlState from, SlState to)
{
	if (!sl_edge_is_legal(from, to))
		ereport(ERROR,
				(errcode(SL_ERRCODE_ILLEGAL_TRANSITION),
				 errmsg("payment %s cannot go from %s to %s",
						payment_id_text(&g->new),
						from == SL_STATE_NONE ? "nothing" : sl_state_name(from),
						sl_state_name(to)),
				 from == SL_STATE_NONE ?
				 errdetail("A payment begins as created.") :
				 errdetail("Legal from %s: %s.", sl_state_name(from),
						   legal_targets(from)),
				 errhint("See stripe_lifecycle.legal_transitions()."),
				 errtable(g->rel)));

	ereport(ERROR,
			(errcode(SL_ERRCODE_NO_EVIDENCE),
			 errmsg("payment %s cannot be moved from %s to %s by hand",
					payment_id_text(&g->new), sl_state_name(from),
					sl_state_name(to)),
			 errdetail("Only a verified event of Stripe's takes this edge: %s.",
					   edge_evidence(from, to)),
			 errhint("Hand Stripe's event to stripe_lifecycle.ingest_webhook()."),
			 errtable(g->rel)));
}

static void
refuse_column(const GuardedRow *g, int column)
{
	if (sl_column_is_immutable(g->table, column) && !g->old.nulls[column])
		ereport(ERROR,
				(errcode(SL_ERRCODE_IMMUTABLE_COLUMN),
				 errmsg("column \"%s\" of table \"%s.%s\" cannot be changed",
						column_name(g, column), SL_SCHEMA, sl_table_name(g->table)),
				 errdetail("Its value is fixed for the life of the row."),
				 errhint("Create another payment instead."),
				 errtablecol(g->rel, column + 1)));

	ereport(ERROR,
			(errcode(SL_ERRCODE_MAINTAINED_ROW),
			 errmsg("column \"%s\" of table \"%s.%s\" cannot be written directly",
					column_name(g, column), SL_SCHEMA, sl_table_name(g->table)),
			 errdetail("It is maintained by the functions of stripe_lifecycle from what Stripe says."),
			 errhint("Use the functions of schema stripe_lifecycle."),
			 errtablecol(g->rel, column + 1)));
}

static void
refuse_removal(Relation rel, const char *operation)
{
	ereport(ERROR,
			(errcode(SL_ERRCODE_APPEND_ONLY),
			 errmsg("cannot %s table \"%s.%s\"", operation, SL_SCHEMA,
					RelationGetRelationName(rel)),
			 errdetail("Payments and their records are kept."),
			 errhint("To begin anew, drop the extension or the database."),
			 errtable(rel)));
}

static void
refuse_insert(const GuardedRow *g)
{
	ereport(ERROR,
			(errcode(SL_ERRCODE_MAINTAINED_ROW),
			 errmsg("cannot insert into table \"%s.%s\" directly",
					SL_SCHEMA, sl_table_name(g->table)),
			 errdetail("Its rows are written by the functions of stripe_lifecycle only."),
			 errhint("Use the functions of schema stripe_lifecycle."),
			 errtable(g->rel)));
}

/*
 * Append the audit row of the move that the guard has just let through.  It
 * runs as the owner of the table, since whoever changed the payment need not
 * have any right on the audit trail.
 */
static void
append_transition(const GuardedRow *g, SlState from, SlState to,
				  const SlCause *cause)
{
	SlRow		row = {0};
	Oid			saved_user;
	int			saved_context;

	memset(row.nulls, true, sizeof(row.nulls));
	SET(&row, TRA_PAYMENT_ID, g->new.values[PAY_ID]);
	SET(&row, TRA_SEQ, g->new.values[PAY_TRANSITIONS]);
	if (from != SL_STATE_NONE)
		SET(&row, TRA_FROM_STATE, sl_state_datum(from));
	SET(&row, TRA_TO_STATE, sl_state_datum(to));
	SET(&row, TRA_AT, g->new.values[PAY_UPDATED_AT]);
	SET(&row, TRA_SOURCE, CStringGetTextDatum(cause->source));
	if (cause->event_id != NULL)
	{
		SET(&row, TRA_EVENT_ID, CStringGetTextDatum(cause->event_id));
		SET(&row, TRA_EVENT_TYPE, CStringGetTextDatum(cause->event_type));
		SET(&row, TRA_EVENT_CREATED, TimestampTzGetDatum(cause->event_created));
	}
	SET(&row, TRA_ROLE, CStringGetTextDatum(GetUserNameFromId(sl_acting_role(), false)));
	if (cause->note != NULL)
		SET(&row, TRA_NOTE, CStringGetTextDatum(cause->note));

	GetUserIdAndSecContext(&saved_user, &saved_context);
	SetUserIdAndSecContext(g->rel->rd_rel->relowner,
						   saved_context | SECURITY_LOCAL_USERID_CHANGE);
	SPI_connect();
	if (!sl_insert_new_row(SL_TRANSITIONS, &row, NULL))
		ereport(ERROR,
				(errcode(SL_ERRCODE_GUARD_BYPASSED),
				 errmsg("transition %d of payment %s is in the audit trail already",
						DatumGetInt32(g->new.values[PAY_TRANSITIONS]),
						payment_id_text(&g->new)),
				 errdetail("The trail of this payment does not agree with its row, so the row is left alone.")));
	SPI_finish();
	SetUserIdAndSecContext(saved_user, saved_context);
}

/*
 * A row written by anybody but the library.  It may not differ from what a
 * payment is before anything happened to it.
 */
static void
check_plain_insert(const GuardedRow *g)
{
	static const int evidence[] = {
		PAY_PAYMENT_INTENT_ID, PAY_CLIENT_SECRET, PAY_LIVEMODE,
		PAY_LATEST_CHARGE, PAY_CANCELLATION_REASON, PAY_LAST_ERROR,
		PAY_LAST_ERROR_AT, PAY_LAST_EVENT_ID, PAY_LAST_EVENT_CREATED,
		PAY_LAST_EVENT_RANK, PAY_FINISHED_AT
	};
	SlState		state;
	int			i;

	if (g->table != SL_PAYMENTS)
		refuse_insert(g);

	state = sl_state_of_oid(DatumGetObjectId(g->new.values[PAY_STATE]));
	if (state != SL_STATE_CREATED)
		refuse_transition(g, SL_STATE_NONE, state);
	for (i = 0; i < (int) lengthof(evidence); i++)
		if (!g->new.nulls[evidence[i]])
			refuse_column(g, evidence[i]);
	if (DatumGetInt64(g->new.values[PAY_AMOUNT_CAPTURABLE]) != 0)
		refuse_column(g, PAY_AMOUNT_CAPTURABLE);
	if (DatumGetInt64(g->new.values[PAY_AMOUNT_RECEIVED]) != 0)
		refuse_column(g, PAY_AMOUNT_RECEIVED);
	if (DatumGetInt32(g->new.values[PAY_DECLINE_COUNT]) != 0)
		refuse_column(g, PAY_DECLINE_COUNT);
	if (DatumGetInt32(g->new.values[PAY_TRANSITIONS]) != 1)
		refuse_column(g, PAY_TRANSITIONS);
}

/* Is there leave for this row?  If so, it is used up. */
static bool
take_permit(const GuardedRow *g, bool insert)
{
	const SlPermit *permit = sl_current_permit();

	if (permit == NULL || permit->used || permit->table != g->table ||
		permit->insert != insert || first_difference(g, permit->row) >= 0)
		return false;
	sl_permit_mark_used();
	return true;
}

static void
guard_insert(const GuardedRow *g)
{
	static const SlCause plain = {"insert", NULL, NULL, 0, NULL};
	const SlCause *cause = &plain;

	if (take_permit(g, true))
	{
		if (g->table == SL_PAYMENTS)
			cause = sl_current_permit()->cause;
	}
	else
		check_plain_insert(g);

	if (g->table == SL_PAYMENTS)
		append_transition(g, SL_STATE_NONE, SL_STATE_CREATED, cause);
}

static void
guard_plain_update(const GuardedRow *g)
{
	int			column;

	if (g->table == SL_TRANSITIONS || g->table == SL_ACTIONS)
		refuse_removal(g->rel, "update");

	/* Attempts, leases and results of a request are bookkeeping. */
	if (g->table == SL_REQUESTS)
	{
		for (column = 0; column < REQ_NCOLS; column++)
			if (sl_column_is_immutable(g->table, column) &&
				!same_value(g->rel, column, &g->new, &g->old))
				refuse_column(g, column);
		return;
	}

	if (g->table == SL_PAYMENTS && !same_value(g->rel, PAY_STATE, &g->new, &g->old))
		refuse_transition(g,
						  sl_state_of_oid(DatumGetObjectId(g->old.values[PAY_STATE])),
						  sl_state_of_oid(DatumGetObjectId(g->new.values[PAY_STATE])));
	column = first_difference(g, &g->old);
	if (column >= 0)
		refuse_column(g, column);
}

static void
guard_update(const GuardedRow *g)
{
	SlState		from;
	SlState		to;
	int			column;

	if (!take_permit(g, false))
	{
		guard_plain_update(g);
		return;
	}

	/* The library's own write keeps the promises as well. */
	for (column = 0; column < sl_table_ncols(g->table); column++)
		if (sl_column_is_immutable(g->table, column) && !g->old.nulls[column] &&
			!same_value(g->rel, column, &g->new, &g->old))
			refuse_column(g, column);
	if (g->table != SL_PAYMENTS)
		return;

	from = sl_state_of_oid(DatumGetObjectId(g->old.values[PAY_STATE]));
	to = sl_state_of_oid(DatumGetObjectId(g->new.values[PAY_STATE]));
	if (from == to)
		return;
	if (!sl_edge_is_legal(from, to))
		refuse_transition(g, from, to);
	append_transition(g, from, to, sl_current_permit()->cause);
}

/* An HTTP call's record is completed once and then left alone. */
static void
guard_attempt(Relation rel, HeapTuple old)
{
	int			attnum = SPI_fnumber(RelationGetDescr(rel), "finished_at");

	if (attnum <= 0 || !heap_attisnull(old, attnum, RelationGetDescr(rel)))
		refuse_removal(rel, "update a finished row of");
}

static void
check_protocol(FunctionCallInfo fcinfo)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	TriggerEvent event;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"guard\" was not called by trigger manager")));
	event = trigdata->tg_event;
	if (TRIGGER_FIRED_BY_TRUNCATE(event) ? !TRIGGER_FIRED_BEFORE(event) :
		!(TRIGGER_FIRED_AFTER(event) && TRIGGER_FIRED_FOR_ROW(event)))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"guard\" must be fired AFTER each row, or BEFORE TRUNCATE")));
	if (sl_table_of_relation(trigdata->tg_relation) == SL_NO_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"guard\" guards the tables of extension stripe_lifecycle only")));
}

/* A stored row may have more columns than we know: later versions append. */
static void
deform(Relation rel, SlTableId table, HeapTuple tuple, SlRow *row)
{
	TupleDesc	desc = RelationGetDescr(rel);
	int			ncols = sl_table_ncols(table);
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

/*
 * SQL: guard(), trigger.  Errors: classes SL001 to SL006.
 */
Datum
sl_guard(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	GuardedRow	g;

	check_protocol(fcinfo);
	g.rel = trigdata->tg_relation;
	g.table = sl_table_of_relation(g.rel);

	if (TRIGGER_FIRED_BY_TRUNCATE(trigdata->tg_event))
		refuse_removal(g.rel, "truncate");
	if (TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
		refuse_removal(g.rel, "delete from");

	if (g.table == SL_ATTEMPTS)
		guard_attempt(g.rel, trigdata->tg_trigtuple);
	else if (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
	{
		deform(g.rel, g.table, trigdata->tg_trigtuple, &g.new);
		memset(g.old.nulls, true, sizeof(g.old.nulls));
		guard_insert(&g);
	}
	else
	{
		deform(g.rel, g.table, trigdata->tg_trigtuple, &g.old);
		deform(g.rel, g.table, trigdata->tg_newtuple, &g.new);
		guard_update(&g);
	}

	return PointerGetDatum(NULL);
}
