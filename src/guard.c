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
 * What is already judged passes: the rows of a dump, as far as restore.c takes
 * them, and those that logical replication brings.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/uuid.h"

#include "audit.h"
#include "changes.h"
#include "compat.h"
#include "errors.h"
#include "privacy.h"
#include "replication.h"
#include "restore.h"
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
						to == SL_STATE_NONE ? "nothing" : sl_state_name(to)),
				 from == SL_STATE_NONE ?
				 errdetail("A payment begins as created; any other state takes the audit trail that proves it, which a restore brings first.") :
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

/* The table does that by itself, unless its owner has altered it. */
static void
refuse_null(const GuardedRow *g, int column)
{
	if (g->new.nulls[column])
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("column \"%s\" of table \"%s.%s\" cannot be null",
						column_name(g, column), SL_SCHEMA,
						sl_table_name(g->table)),
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
			 errhint("Use the functions of schema stripe_lifecycle.  A dump is restored into a database where they have written nothing yet."),
			 errtable(g->rel)));
}

/*
 * Has the sequence of positions been left behind by the rows?  Told by the newest
 * payment but the one at hand, and by the newest checkpoint: both by an index.
 */
static SlQuery positions_behind = {
	.sql = "SELECT 1 FROM stripe_lifecycle.payment_transitions_position_seq s"
	" WHERE CASE WHEN s.is_called THEN s.last_value ELSE 0 END < GREATEST("
	"(SELECT t.position FROM stripe_lifecycle.payment_transitions t"
	" WHERE t.seq = 1 AND t.payment_id = (SELECT p.id FROM stripe_lifecycle.payments p"
	" WHERE p.id <> $1 ORDER BY p.id DESC LIMIT 1)),"
	" (SELECT c.to_position FROM stripe_lifecycle.audit_checkpoints c"
	" ORDER BY c.number DESC LIMIT 1))",
	.args = {SL_TYPE_UUID},
};

/*
 * Logical replication brings rows, but not the state of sequences.  Until
 * resume_worker() has moved them on, new transitions would be given positions
 * of old ones, and break the checkpoints that sealed those.  Asked once in each
 * session.
 */
static void
refuse_positions_behind(const GuardedRow *g)
{
	static uint64 checked_generation = 0;
	Datum		id = g->new.values[PAY_ID];

	if (checked_generation == sl_catalog()->generation)
		return;
	if (sl_run(&positions_behind, &id, NULL, 1) > 0)
		ereport(ERROR,
				(errcode(SL_ERRCODE_SUBSCRIBED),
				 errmsg("cannot write to table \"%s.payment_transitions\": its rows come from another server, and have not been taken over",
						SL_SCHEMA),
				 errdetail("They have numbers that the sequence of this database would give again."),
				 errhint("To take over here, call stripe_lifecycle.resume_worker().")));
	checked_generation = sl_catalog()->generation;
}

static void
insert_transition(const GuardedRow *g, const SlRow *transition)
{
	SlRow		row = *transition;

	refuse_positions_behind(g);
	if (!sl_insert_new_row(SL_TRANSITIONS, &row, NULL))
		ereport(ERROR,
				(errcode(SL_ERRCODE_GUARD_BYPASSED),
				 errmsg("transition %d of payment %s is in the audit trail already",
						DatumGetInt32(g->new.values[PAY_TRANSITIONS]),
						payment_id_text(&g->new)),
				 errdetail("The trail of this payment does not agree with its row, so the row is left alone.")));
}

/* Do two values of different tables, neither NULL, have the same bytes? */
static bool
same_bytea(Datum a, Datum b)
{
	return datum_image_eq(a, b, false, -1);
}

/*
 * Append the audit row of the move that the guard has just let through.  The
 * library has made the row; the guard knows what it has to say.
 */
static void
append_transition(const GuardedRow *g, SlState from, const SlRow *transition)
{
	SlSavedUser saved;

	if (transition == NULL ||
		memcmp(DatumGetUUIDP(transition->values[TRA_PAYMENT_ID]),
			   DatumGetUUIDP(g->new.values[PAY_ID]), UUID_LEN) != 0 ||
		transition->values[TRA_SEQ] != g->new.values[PAY_TRANSITIONS] ||
		transition->nulls[TRA_FROM_STATE] != (from == SL_STATE_NONE) ||
		(from != SL_STATE_NONE &&
		 transition->values[TRA_FROM_STATE] != sl_state_datum(from)) ||
		transition->values[TRA_TO_STATE] != g->new.values[PAY_STATE] ||
		!same_bytea(transition->values[TRA_HASH], g->new.values[PAY_AUDIT_HEAD]))
		elog(ERROR, "audit row of payment %s does not say what happened to it",
			 payment_id_text(&g->new));

	saved = sl_become_owner(g->rel);
	insert_transition(g, transition);
	sl_become_again(saved);
}

/*
 * A payment that somebody inserted by hand: its trail begins here, and the hash
 * of its first row goes into the payment.
 */
static void
begin_trail(const GuardedRow *g)
{
	static const SlCause cause = {"insert", NULL, NULL, 0, NULL};
	SlRow		payment = g->new;
	SlRow		transition;
	SlSavedUser saved = sl_become_owner(g->rel);

	sl_audit_record(&payment, SL_STATE_NONE, &cause, &transition);
	insert_transition(g, &transition);
	sl_update_row(SL_PAYMENTS, &payment, NULL);
	sl_become_again(saved);
}

/* What create_payment() refuses in its arguments. */
static void
refuse_cards(const GuardedRow *g)
{
	int			i;

	for (i = 0; i < sl_table_ncols(g->table); i++)
	{
		Oid			type = TupleDescAttr(RelationGetDescr(g->rel), i)->atttypid;

		if (g->new.nulls[i])
			continue;
		if (type == TEXTOID)
			sl_refuse_card_text("column", column_name(g, i),
								DatumGetTextPP(g->new.values[i]));
		else if (type == JSONBOID)
			sl_refuse_card_jsonb("column", column_name(g, i),
								 DatumGetJsonbP(g->new.values[i]));
	}
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
		PAY_LAST_EVENT_RANK, PAY_FINISHED_AT, PAY_AUDIT_HEAD
	};
	static const int required[] = {
		PAY_ID, PAY_IDEMPOTENCY_KEY, PAY_STATE, PAY_AMOUNT, PAY_CURRENCY,
		PAY_CAPTURE_METHOD, PAY_DECLINE_POLICY, PAY_METADATA, PAY_PARAMS,
		PAY_AMOUNT_CAPTURABLE, PAY_AMOUNT_RECEIVED, PAY_DECLINE_COUNT,
		PAY_TRANSITIONS, PAY_CREATED_AT, PAY_UPDATED_AT
	};
	SlState		state;
	int			i;

	if (g->table != SL_PAYMENTS)
		refuse_insert(g);

	for (i = 0; i < (int) lengthof(required); i++)
		refuse_null(g, required[i]);
	refuse_cards(g);

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
	refuse_null(g, 0);			/* the key, by which all is looked up */
	if (take_permit(g, true))
	{
		if (g->table == SL_PAYMENTS)
			append_transition(g, SL_STATE_NONE, sl_current_permit()->transition);
		return;
	}
	if (sl_take_restored(g->rel, g->table, &g->new))
		return;
	check_plain_insert(g);
	begin_trail(g);
}

static void
guard_plain_update(const GuardedRow *g)
{
	int			column;

	if (g->table == SL_TRANSITIONS || g->table == SL_ACTIONS ||
		g->table == SL_CHECKPOINTS)
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
	append_transition(g, from, sl_current_permit()->transition);
}

/* An HTTP call's record is completed once and then left alone. */
static void
guard_attempt(Relation rel, HeapTuple old)
{
	int			attnum = SPI_fnumber(RelationGetDescr(rel), "finished_at");

	if (attnum <= 0 || !heap_attisnull(old, attnum, RelationGetDescr(rel)))
		refuse_removal(rel, "update a finished row of");
}

/* The time in a column of a row; what is absent is never too old. */
static TimestampTz
stored_time(Relation rel, HeapTuple tuple, const char *column)
{
	TupleDesc	desc = RelationGetDescr(rel);
	int			attnum = SPI_fnumber(desc, column);
	bool		isnull = true;
	Datum		d = attnum <= 0 ? (Datum) 0 : heap_getattr(tuple, attnum, desc, &isnull);

	return isnull ? DT_NOEND : DatumGetTimestampTz(d);
}

/*
 * May the row go because it is too old?  retention.c chooses; whatever it, or a
 * trigger of others meanwhile, would take beyond that is refused here.
 */
static bool
may_be_removed(const GuardedRow *g, HeapTuple old)
{
	TimestampTz limit = sl_removal_limit();
	SlRow		row;

	if (limit == DT_NOBEGIN ||
		DatumGetInt32(OidFunctionCall0(F_PG_TRIGGER_DEPTH)) != 1)
		return false;
	switch (g->table)
	{
		case SL_EVENTS:
			sl_deform(g->rel, g->table, old, &row);
			return row.values[EVT_OUTCOME] != sl_outcome_datum(SL_EVENT_CONFLICT) &&
				stored_time(g->rel, old, "received_at") < limit &&
				stored_time(g->rel, old, "created") < limit;
		case SL_REQUESTS:
			sl_deform(g->rel, g->table, old, &row);
			return (row.values[REQ_STATUS] == sl_status_datum(SL_REQUEST_SUCCEEDED) ||
					row.values[REQ_STATUS] == sl_status_datum(SL_REQUEST_REJECTED)) &&
				stored_time(g->rel, old, "finished_at") < limit &&
				stored_time(g->rel, old, "created_at") < limit;
		case SL_ATTEMPTS:
			return stored_time(g->rel, old, "finished_at") < limit;
		default:
			return false;
	}
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

/* Those who wait for news of the payment hear of it once this is committed. */
static void
note_change(const GuardedRow *g)
{
	if (g->table == SL_PAYMENTS)
		sl_changes_note(DatumGetUUIDP(g->new.values[PAY_ID]));
	else if (g->table == SL_REQUESTS)
		sl_changes_note(DatumGetUUIDP(g->new.values[REQ_PAYMENT_ID]));
}

/*
 * SQL: guard(), trigger.  Errors: SL001 to SL007, SL019.
 */
Datum
sl_guard(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	GuardedRow	g;

	check_protocol(fcinfo);
	g.rel = trigdata->tg_relation;
	g.table = sl_table_of_relation(g.rel);

	if (sl_is_replicated_write())
		return PointerGetDatum(NULL);
	if (TRIGGER_FIRED_BY_TRUNCATE(trigdata->tg_event))
		refuse_removal(g.rel, "truncate");
	if (TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
	{
		if (!may_be_removed(&g, trigdata->tg_trigtuple))
			refuse_removal(g.rel, "delete from");
		return PointerGetDatum(NULL);
	}
	sl_refuse_subscribed(RelationGetRelid(g.rel));

	if (g.table == SL_IN_USE)
		refuse_removal(g.rel, "update");
	if (g.table == SL_ATTEMPTS)
		guard_attempt(g.rel, trigdata->tg_trigtuple);
	else if (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
	{
		sl_deform(g.rel, g.table, trigdata->tg_trigtuple, &g.new);
		memset(g.old.nulls, true, sizeof(g.old.nulls));
		guard_insert(&g);
		note_change(&g);
	}
	else
	{
		sl_deform(g.rel, g.table, trigdata->tg_trigtuple, &g.old);
		sl_deform(g.rel, g.table, trigdata->tg_newtuple, &g.new);
		guard_update(&g);
		note_change(&g);
	}

	return PointerGetDatum(NULL);
}
