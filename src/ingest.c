/*-------------------------------------------------------------------------
 *
 * ingest.c
 *	  Takes a verified event to its payment: match, deduplicate, decide,
 *	  write.  One short transaction, the caller's; no network.
 *
 * Order of locks: the payment's row first, then the PaymentIntent's
 * advisory lock, then rows of other tables.  Two deliveries of one event, or
 * two events of one payment, queue up at the payment's row.
 *
 * An event can arrive before its payment is known to be its own, while the
 * worker is just storing the PaymentIntent's id.  Parking such an event and
 * linking the id exclude each other through an advisory lock on the id: the
 * one that comes second sees what the first one committed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/async.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "audit.h"
#include "compat.h"
#include "errors.h"
#include "ingest.h"
#include "outbox.h"
#include "privacy.h"

/* What an event means for a payment, before anything is written. */
typedef struct Verdict
{
	SlEventOutcome outcome;
	const char *reason;			/* or NULL */
	SlEvidenceKind kind;
	SlDecision	decision;
	const char *note;			/* for the audit trail, or NULL */
} Verdict;

static SlQuery payment_by_id = {
	.sql = "SELECT %s FROM stripe_lifecycle.payments"
	" WHERE id OPERATOR(pg_catalog.=) $1 FOR UPDATE",
	.columns_of = SL_PAYMENTS,
	.args = {SL_TYPE_UUID},
};
static SlQuery payment_by_intent = {
	.sql = "SELECT %s FROM stripe_lifecycle.payments"
	" WHERE payment_intent_id OPERATOR(pg_catalog.=) $1 FOR UPDATE",
	.columns_of = SL_PAYMENTS,
	.args = {SL_TYPE_TEXT},
};
static SlQuery event_by_id = {
	.sql = "SELECT %s FROM stripe_lifecycle.webhook_events"
	" WHERE event_id OPERATOR(pg_catalog.=) $1 FOR UPDATE",
	.columns_of = SL_EVENTS,
	.args = {SL_TYPE_TEXT},
};
static SlQuery look_at_event = {
	.sql = "SELECT %s FROM stripe_lifecycle.webhook_events"
	" WHERE event_id OPERATOR(pg_catalog.=) $1",
	.columns_of = SL_EVENTS,
	.args = {SL_TYPE_TEXT},
};
static SlQuery event_exists = {
	.sql = "SELECT event_id FROM stripe_lifecycle.webhook_events"
	" WHERE event_id OPERATOR(pg_catalog.=) $1",
	.args = {SL_TYPE_TEXT},
};
static SlQuery parked_events = {
	.sql = "SELECT %s FROM stripe_lifecycle.webhook_events"
	" WHERE payment_intent_id OPERATOR(pg_catalog.=) $1"
	" AND outcome OPERATOR(pg_catalog.=) 'unmatched'"
	" ORDER BY created, event_id FOR UPDATE",
	.columns_of = SL_EVENTS,
	.args = {SL_TYPE_TEXT},
};

#define SET_TEXT(row, col, string) \
	do { \
		const char *s_ = (string); \
		if (s_ != NULL) \
			SET(row, col, CStringGetTextDatum(s_)); \
		else \
			SET_NULL(row, col); \
	} while (0)

/* Find and lock a payment by its id; false if there is none. */
bool
sl_lock_payment(const pg_uuid_t *id, SlRow *payment)
{
	return sl_lock_row(SL_PAYMENTS, PAY_ID, UUIDPGetDatum(id), &payment_by_id,
					   payment);
}

static bool
lock_payment_of_intent(const char *intent_id, SlRow *payment)
{
	return sl_lock_row(SL_PAYMENTS, PAY_PAYMENT_INTENT_ID,
					   CStringGetTextDatum(intent_id), &payment_by_intent,
					   payment);
}

/*
 * Exclude others that park events of this PaymentIntent or link it, until
 * the transaction ends.  The lock tag is of the advisory class, with a
 * sub-identifier that SQL's advisory lock functions never use.
 */
static void
lock_intent(const char *intent_id)
{
	LOCKTAG		tag;
	uint64		hash = hash_bytes_extended((const unsigned char *) intent_id,
										   strlen(intent_id), 0);

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (hash >> 32),
						 (uint32) hash, 3);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

static SlState
state_of(const SlRow *payment)
{
	return sl_state_of_oid(DatumGetObjectId(payment->values[PAY_STATE]));
}

static bool
retries_declines(const SlRow *payment)
{
	return strcmp(TextDatumGetCString(payment->values[PAY_DECLINE_POLICY]),
				  "retry") == 0;
}

/* Unix seconds of a timestamp that was made from whole Unix seconds. */
static int64
unix_seconds(TimestampTz t)
{
	return t / USECS_PER_SEC +
		(int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY;
}

/*
 * Does the event contradict the payment?  Returns the reason, or NULL.  It
 * names what differs; ids and amounts are no secrets, nothing else is shown.
 */
static const char *
contradiction(const SlRow *p, const SlEvent *e, SlEvidenceKind kind)
{
	if (!p->nulls[PAY_PAYMENT_INTENT_ID] &&
		strcmp(TextDatumGetCString(p->values[PAY_PAYMENT_INTENT_ID]),
			   e->payment_intent_id) != 0)
		return psprintf("second PaymentIntent %s for a payment that has %s",
						e->payment_intent_id,
						TextDatumGetCString(p->values[PAY_PAYMENT_INTENT_ID]));
	if (!p->nulls[PAY_LIVEMODE] &&
		DatumGetBool(p->values[PAY_LIVEMODE]) != e->livemode)
		return e->livemode ? "live event for a test payment" :
			"test event for a live payment";
	if (DatumGetInt64(p->values[PAY_AMOUNT]) != e->amount)
		return sl_redacted(psprintf("amount is " INT64_FORMAT " in the event, " INT64_FORMAT " in the payment",
									e->amount, DatumGetInt64(p->values[PAY_AMOUNT])));
	if (strcmp(TextDatumGetCString(p->values[PAY_CURRENCY]), e->currency) != 0)
		return "currency differs between event and payment";
	if (!sl_evidence_agrees(kind, e->status))
		return "status of the PaymentIntent does not bear out the event's type";
	return NULL;
}

/* What the event does to the payment, given that it is to be believed. */
static Verdict
weigh(const SlRow *payment, const SlEvent *event)
{
	static const SlEventOutcome outcome_of[] = {
		SL_EVENT_APPLIED, SL_EVENT_RECORDED, SL_EVENT_STALE
	};
	Verdict		v = {.outcome = SL_EVENT_IGNORED};
	SlKnown		known;

	v.kind = sl_evidence_of_type(event->type);
	known.state = state_of(payment);
	known.retry_declines = retries_declines(payment);
	known.has_last = !payment->nulls[PAY_LAST_EVENT_CREATED];
	if (known.has_last)
	{
		known.last_created =
			unix_seconds(DatumGetTimestampTz(payment->values[PAY_LAST_EVENT_CREATED]));
		known.last_rank = DatumGetInt16(payment->values[PAY_LAST_EVENT_RANK]);
	}
	v.decision = sl_decide(&known, v.kind, event->created);
	v.outcome = outcome_of[v.decision.verdict];
	if (v.decision.late_success)
		v.note = "succeeded after it had failed: the money came before the cancellation";
	return v;
}

static Verdict
judge(const SlRow *payment, const SlEvent *event)
{
	Verdict		v = {.outcome = SL_EVENT_CONFLICT};

	v.kind = sl_evidence_of_type(event->type);
	v.reason = contradiction(payment, event, v.kind);
	return v.reason != NULL ? v : weigh(payment, event);
}

/* The facts of a decline are kept however late its event comes. */
static void
note_decline(SlRow *p, const SlEvent *e)
{
	TimestampTz at = time_t_to_timestamptz((pg_time_t) e->created);

	SET(p, PAY_DECLINE_COUNT,
		Int32GetDatum(DatumGetInt32(p->values[PAY_DECLINE_COUNT]) + 1));
	if (p->nulls[PAY_LAST_ERROR_AT] ||
		at >= DatumGetTimestampTz(p->values[PAY_LAST_ERROR_AT]))
	{
		SET(p, PAY_LAST_ERROR_AT, TimestampTzGetDatum(at));
		if (e->last_error != NULL)
			SET(p, PAY_LAST_ERROR, JsonbPGetDatum(e->last_error));
		else
			SET(p, PAY_LAST_ERROR,
				JsonbPGetDatum(sl_error_object("decline", "card_declined", NULL)));
	}
}

/* Take what the event says into the row; the caller writes the row. */
static void
take_facts(SlRow *p, const SlEvent *e, const Verdict *v, TimestampTz now)
{
	const SlDecision *d = &v->decision;
	bool		ends = d->to == SL_STATE_SUCCEEDED || d->to == SL_STATE_FAILED;

	if (v->kind == SL_EVIDENCE_DECLINED)
		note_decline(p, e);
	if (v->kind == SL_EVIDENCE_CANCELED && e->cancellation_reason != NULL)
		SET_TEXT(p, PAY_CANCELLATION_REASON, e->cancellation_reason);
	if (e->amount_received > DatumGetInt64(p->values[PAY_AMOUNT_RECEIVED]))
		SET(p, PAY_AMOUNT_RECEIVED, Int64GetDatum(e->amount_received));

	if (d->advances || d->verdict == SL_VERDICT_APPLIED)
	{
		SET(p, PAY_AMOUNT_CAPTURABLE, Int64GetDatum(e->amount_capturable));
		if (e->latest_charge != NULL)
			SET_TEXT(p, PAY_LATEST_CHARGE, e->latest_charge);
	}
	if (d->advances)
	{
		SET_TEXT(p, PAY_LAST_EVENT_ID, e->id);
		SET(p, PAY_LAST_EVENT_CREATED,
			TimestampTzGetDatum(time_t_to_timestamptz((pg_time_t) e->created)));
		SET(p, PAY_LAST_EVENT_RANK, Int16GetDatum(sl_evidence_rank(v->kind)));
	}
	if (d->verdict == SL_VERDICT_APPLIED)
	{
		SET(p, PAY_STATE, sl_state_datum(d->to));
		SET(p, PAY_TRANSITIONS,
			Int32GetDatum(DatumGetInt32(p->values[PAY_TRANSITIONS]) + 1));
		if (ends)
		{
			SET(p, PAY_FINISHED_AT, TimestampTzGetDatum(now));
			SET_NULL(p, PAY_CLIENT_SECRET);
		}
	}
	SET(p, PAY_UPDATED_AT, TimestampTzGetDatum(now));
}

/*
 * Give a payment its PaymentIntent, in memory, and what waits for that with
 * it; returns whether it was new.  The caller writes the row and then calls
 * sl_drain_parked().  The payment is locked and has no other PaymentIntent.
 */
bool
sl_link_intent(SlRow *payment, const char *intent_id, bool livemode)
{
	if (payment->nulls[PAY_LIVEMODE])
		SET(payment, PAY_LIVEMODE, BoolGetDatum(livemode));
	if (!payment->nulls[PAY_PAYMENT_INTENT_ID])
		return false;
	lock_intent(intent_id);
	SET_TEXT(payment, PAY_PAYMENT_INTENT_ID, intent_id);
	sl_release_waiting(DatumGetUUIDP(payment->values[PAY_ID]));
	return true;
}

/* Let operators know, without anything of the payload. */
static void
announce_conflict(const SlRow *payment, const SlEvent *event, const char *reason)
{
	char	   *id = DatumGetCString(DirectFunctionCall1(uuid_out,
														 payment->values[PAY_ID]));

	Async_Notify("stripe_lifecycle_conflict", event->id);
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("event \"%s\" contradicts payment %s", event->id, id),
			 errdetail("%s.", reason),
			 errhint("The payment was not changed.  Look at stripe_lifecycle.webhook_events where outcome is conflict.")));
}

/* Write what the verdict says; the event's own row is the caller's matter. */
static void
carry_out(SlRow *payment, const SlEvent *event, const Verdict *v,
		  const char *source, TimestampTz now)
{
	SlCause		cause = {source, event->id, event->type, 0, NULL};
	SlState		from = state_of(payment);
	SlRow		transition;
	bool		moves = v->decision.verdict == SL_VERDICT_APPLIED;
	bool		linked;

	if (v->outcome == SL_EVENT_CONFLICT)
	{
		announce_conflict(payment, event, v->reason);
		return;
	}

	linked = sl_link_intent(payment, event->payment_intent_id, event->livemode);
	if (v->outcome == SL_EVENT_STALE && !linked &&
		v->kind != SL_EVIDENCE_DECLINED)
		return;

	cause.event_created = time_t_to_timestamptz((pg_time_t) event->created);
	cause.note = v->note;
	take_facts(payment, event, v, now);
	if (moves)
		sl_audit_record(payment, from, &cause, &transition);
	sl_update_row(SL_PAYMENTS, payment, moves ? &transition : NULL);

	if (v->decision.cancel_intent)
		sl_enqueue_cancel(payment, NULL);
	if (linked)
		sl_drain_parked(payment);
}

/* An event about a PaymentIntent, as it stands in its row. */
static void
restore_event(const SlRow *row, SlEvent *event)
{
	memset(event, 0, sizeof(*event));
	event->id = TextDatumGetCString(row->values[EVT_EVENT_ID]);
	event->type = TextDatumGetCString(row->values[EVT_TYPE]);
	event->created = unix_seconds(DatumGetTimestampTz(row->values[EVT_CREATED]));
	event->livemode = DatumGetBool(row->values[EVT_LIVEMODE]);
	event->object_id = TextDatumGetCString(row->values[EVT_OBJECT_ID]);
	event->has_payment_id = !row->nulls[EVT_PAYMENT_ID];
	if (event->has_payment_id)
		event->payment_id = *DatumGetUUIDP(row->values[EVT_PAYMENT_ID]);
	sl_event_restore(event, DatumGetJsonbP(row->values[EVT_PAYLOAD]));
}

/*
 * Apply the events that were parked until this PaymentIntent became known.
 * The payment is locked, linked and written; it is kept up to date in
 * memory as the events are applied.
 */
void
sl_drain_parked(SlRow *payment)
{
	Datum		arg = payment->values[PAY_PAYMENT_INTENT_ID];
	int			n = sl_run(&parked_events, &arg, NULL, 0);
	SPITupleTable *parked = SPI_tuptable;
	int			i;

	for (i = 0; i < n; i++)
	{
		SlRow		row;
		SlEvent		event;
		Verdict		v;
		TimestampTz now = GetCurrentTimestamp();

		heap_deform_tuple(parked->vals[i], parked->tupdesc, row.values, row.nulls);
		restore_event(&row, &event);
		v = judge(payment, &event);

		SET(&row, EVT_OUTCOME, sl_outcome_datum(v.outcome));
		SET_TEXT(&row, EVT_REASON, v.reason);
		SET(&row, EVT_PAYMENT_ID, payment->values[PAY_ID]);
		SET(&row, EVT_APPLIED_AT, TimestampTzGetDatum(now));
		sl_update_row(SL_EVENTS, &row, NULL);
		carry_out(payment, &event, &v,
				  TextDatumGetCString(row.values[EVT_SOURCE]), now);
	}
}

static bool
event_is_there(Datum id)
{
	return sl_find_row(SL_EVENTS, EVT_EVENT_ID, id, &event_exists, NULL);
}

/* Store the event itself; false if it is there already. */
static bool
store_event(const SlEvent *e, const SlRow *payment, const Verdict *v,
			const char *source, const char *label, TimestampTz now)
{
	SlRow		row;

	SET_TEXT(&row, EVT_EVENT_ID, e->id);
	SET_TEXT(&row, EVT_TYPE, e->type);
	SET(&row, EVT_CREATED,
		TimestampTzGetDatum(time_t_to_timestamptz((pg_time_t) e->created)));
	SET(&row, EVT_LIVEMODE, BoolGetDatum(e->livemode));
	SET_TEXT(&row, EVT_API_VERSION, e->api_version);
	SET_TEXT(&row, EVT_ACCOUNT, e->account);
	SET_TEXT(&row, EVT_OBJECT_ID, e->object_id);
	SET_TEXT(&row, EVT_PAYMENT_INTENT_ID, e->payment_intent_id);
	if (payment != NULL)
		SET(&row, EVT_PAYMENT_ID, payment->values[PAY_ID]);
	else
		SET_NULL(&row, EVT_PAYMENT_ID);
	SET(&row, EVT_OUTCOME, sl_outcome_datum(v->outcome));
	SET_TEXT(&row, EVT_REASON, v->reason);
	SET_TEXT(&row, EVT_SECRET_LABEL, label);
	SET_TEXT(&row, EVT_SOURCE, source);
	SET(&row, EVT_RECEIVED_AT, TimestampTzGetDatum(now));
	if (v->outcome != SL_EVENT_UNMATCHED)
		SET(&row, EVT_APPLIED_AT, TimestampTzGetDatum(now));
	else
		SET_NULL(&row, EVT_APPLIED_AT);
	SET(&row, EVT_PAYLOAD, JsonbPGetDatum(sl_event_stored(e, payment != NULL)));

	/*
	 * Deliveries of one event about a locked payment come one at a time, so a
	 * look is enough.  Of others two may come at once.
	 */
	if (payment != NULL)
	{
		if (event_is_there(row.values[EVT_EVENT_ID]))
			return false;
		if (sl_insert_new_row(SL_EVENTS, &row, NULL))
			return true;
	}
	else if (sl_insert_row(SL_EVENTS, &row, NULL))
		return true;

	/* Nothing inserted must mean a duplicate, not a trigger that ate it. */
	if (!event_is_there(row.values[EVT_EVENT_ID]))
		sl_write_suppressed(SL_EVENTS);
	return false;
}

/*
 * Find and lock the payment of an event, by PaymentIntent id, else by the
 * payment id in its metadata.  If there is none, the PaymentIntent is left
 * locked against linking, so that the caller can park the event.
 */
static bool
match_payment(const SlEvent *event, SlRow *payment)
{
	if (lock_payment_of_intent(event->payment_intent_id, payment))
		return true;
	if (event->has_payment_id && sl_lock_payment(&event->payment_id, payment))
		return true;
	lock_intent(event->payment_intent_id);
	return lock_payment_of_intent(event->payment_intent_id, payment);
}

static void
check_transaction(void)
{
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(SL_ERRCODE_ISOLATION),
				 errmsg("webhooks must be ingested at isolation level READ COMMITTED"),
				 errdetail("A fixed snapshot would hide events that arrived meanwhile."),
				 errhint("Use BEGIN ISOLATION LEVEL READ COMMITTED, or call the function outside a transaction block.")));
	sl_require_writable("ingest_webhook()");
}

/*
 * Take in one verified event.  Needs an open SPI connection.  Returns the
 * outcome's name, or "duplicate"; constant storage.
 */
const char *
sl_ingest_event(const SlEvent *event, const char *source,
				const char *secret_label)
{
	Verdict		v = {.outcome = SL_EVENT_IGNORED};
	SlRow		payment;
	bool		matched = false;
	TimestampTz now;

	check_transaction();
	v.kind = sl_evidence_of_type(event->type);
	if (v.kind != SL_EVIDENCE_NONE)
	{
		if (!event->is_payment_intent)
			ereport(ERROR,
					(errcode(SL_ERRCODE_BAD_EVENT),
					 errmsg("webhook body is not a Stripe event: field \"data.object\" is not a PaymentIntent"),
					 errdetail("Events of type payment_intent.* carry one.  Nothing was stored.")));
		matched = match_payment(event, &payment);
		if (matched)
			v = judge(&payment, event);
		else
			v.outcome = SL_EVENT_UNMATCHED;
	}

	now = GetCurrentTimestamp();
	if (!store_event(event, matched ? &payment : NULL, &v, source,
					 secret_label, now))
		return "duplicate";
	if (matched)
		carry_out(&payment, event, &v, source, now);
	return sl_outcome_name(v.outcome);
}

/* ---------- events that wait for an operator ---------- */

static SlEventOutcome
outcome_of(const SlRow *event)
{
	return (SlEventOutcome)
		sl_enum_position(SL_ENUM_OUTCOME, DatumGetObjectId(event->values[EVT_OUTCOME]));
}

static bool
waits_for_decision(const SlRow *event)
{
	return outcome_of(event) == SL_EVENT_CONFLICT ||
		outcome_of(event) == SL_EVENT_UNMATCHED;
}

/*
 * Take a stored event and lock what it is about, in the usual order.  Returns
 * whether it has a payment.
 */
static bool
lock_event(const char *event_id, SlEvent *event, SlRow *row, SlRow *payment)
{
	Datum		id = CStringGetTextDatum(event_id);
	bool		matched = false;

	if (!sl_find_row(SL_EVENTS, EVT_EVENT_ID, id, &look_at_event, row))
		ereport(ERROR,
				(errcode(SL_ERRCODE_UNKNOWN_EVENT),
				 errmsg("there is no such event"),
				 errhint("See stripe_lifecycle.conflicts, and stripe_lifecycle.webhook_events where outcome is unmatched.")));
	if (waits_for_decision(row))
	{
		restore_event(row, event);
		matched = match_payment(event, payment);
		(void) sl_lock_row(SL_EVENTS, EVT_EVENT_ID, id, &event_by_id, row);
	}
	if (!waits_for_decision(row))
		ereport(ERROR,
				(errcode(SL_ERRCODE_EVENT_DECIDED),
				 errmsg("event \"%s\" does not wait for a decision", event_id),
				 errdetail("Its outcome is %s.", sl_outcome_name(outcome_of(row)))));
	return matched;
}

/* The verdict, this time. */
static Verdict
judge_again(SlAgain how, const SlRow *row, const SlRow *payment,
			const SlEvent *event)
{
	const char *before = row->nulls[EVT_REASON] ? "it belongs to no payment" :
		TextDatumGetCString(row->values[EVT_REASON]);
	Verdict		v = {.outcome = SL_EVENT_UNMATCHED};

	if (how == SL_AGAIN_DISMISS)
	{
		v.outcome = SL_EVENT_IGNORED;
		v.reason = psprintf("dismissed by an operator: %s", before);
	}
	else if (payment != NULL && how == SL_AGAIN_JUDGE)
		v = judge(payment, event);
	else if (payment != NULL)
	{
		before = contradiction(payment, event, sl_evidence_of_type(event->type));
		v = weigh(payment, event);
		if (before != NULL)
		{
			v.reason = psprintf("accepted by an operator: %s", before);
			v.note = v.note == NULL ? v.reason :
				psprintf("%s; %s", v.reason, v.note);
		}
	}
	return v;
}

/*
 * Look again at an event that contradicted its payment, or had none.  It was
 * verified when it came, so it may move a payment.  Needs an open SPI
 * connection; returns the outcome's name.
 */
const char *
sl_ingest_again(const char *event_id, SlAgain how, bool *has_payment,
				pg_uuid_t *payment_id)
{
	TimestampTz now = GetCurrentTimestamp();
	SlRow		payment;
	SlRow		row;
	SlEvent		event;
	Verdict		v;

	check_transaction();
	*has_payment = lock_event(event_id, &event, &row, &payment);
	if (*has_payment)
		*payment_id = *DatumGetUUIDP(payment.values[PAY_ID]);
	v = judge_again(how, &row, *has_payment ? &payment : NULL, &event);
	if (sl_outcome_datum(v.outcome) == row.values[EVT_OUTCOME])
		return sl_outcome_name(v.outcome);

	SET(&row, EVT_OUTCOME, sl_outcome_datum(v.outcome));
	SET_TEXT(&row, EVT_REASON, v.reason);
	SET(&row, EVT_APPLIED_AT, TimestampTzGetDatum(now));
	if (*has_payment)
		SET(&row, EVT_PAYMENT_ID, payment.values[PAY_ID]);
	sl_update_row(SL_EVENTS, &row, NULL);
	if (*has_payment && how != SL_AGAIN_DISMISS)
		carry_out(&payment, &event, &v,
				  how == SL_AGAIN_ACCEPT ? "operator" :
				  TextDatumGetCString(row.values[EVT_SOURCE]), now);
	return sl_outcome_name(v.outcome);
}
