/*-------------------------------------------------------------------------
 *
 * audit.c
 *	  The audit trail: makes its rows, hashes them, replays them.
 *
 * Whoever moves a payment makes the audit row first, in memory, for its hash
 * belongs into the payment's own row (audit_head): so the next row is hashed
 * onto this one without a look at the trail, and a trail that has lost its end
 * disagrees with its payment.  It is the guard that writes the row, and only if
 * it says what the guard sees happen.
 *
 * A replay is what verify_audit() does with every trail, and what the guard
 * does with the trail of a payment that is restored.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "datatype/timestamp.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/uuid.h"

#include "audit.h"
#include "compat.h"
#include "errors.h"

StaticAssertDecl((int) TRA_HASH == (int) SL_AUDIT_NFIELDS,
				 "the hash covers all columns before it");


/* ---------- hashes ---------- */

/* Kept for the life of the process. */
static SlAuditHash *
hasher(void)
{
	static SlAuditHash *hash = NULL;

	if (hash == NULL)
		hash = sl_audit_hash_new();
	if (hash == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not initialize SHA-256")));
	return hash;
}

/*
 * A state in a row that may have been tampered with: NULL where the table does
 * not have it, or a label that is none of ours, is no state.
 */
static SlState
state_in(const SlRow *row, int column)
{
	return row->nulls[column] ? SL_STATE_NONE :
		sl_state_of_oid(DatumGetObjectId(row->values[column]));
}

static const char *
state_text(SlState state)
{
	return state == SL_STATE_NONE ? "nothing" : sl_state_name(state);
}

/* As text: into buf, or constant. */
const char *
sl_audit_time_text(TimestampTz t, char buf[SL_AUDIT_TIME_SIZE])
{
	if (TIMESTAMP_IS_NOBEGIN(t))
		return "-infinity";
	if (TIMESTAMP_IS_NOEND(t))
		return "infinity";
	sl_audit_time(t - SL_UNIX_EPOCH_USECS, buf);
	return buf;
}

/*
 * A column's value, not NULL, as it is hashed and exported.  The text is in buf,
 * constant, or the value's own, and *len bytes long.
 */
const char *
sl_audit_text(SlTransitionColumn column, Datum value,
			  char buf[SL_AUDIT_TEXT_SIZE], size_t *len)
{
	const char *s = buf;
	text	   *t;

	switch (column)
	{
		case TRA_PAYMENT_ID:
			*len = sl_audit_uuid(DatumGetUUIDP(value)->data, buf);
			return buf;
		case TRA_SEQ:
			*len = pg_ltoa(DatumGetInt32(value), buf);
			return buf;
		case TRA_AMOUNT:
			*len = pg_lltoa(DatumGetInt64(value), buf);
			return buf;
		case TRA_FROM_STATE:
		case TRA_TO_STATE:
			s = state_text(sl_state_of_oid(DatumGetObjectId(value)));
			break;
		case TRA_AT:
		case TRA_EVENT_CREATED:
			s = sl_audit_time_text(DatumGetTimestampTz(value), buf);
			break;
		case TRA_LIVEMODE:
			s = DatumGetBool(value) ? "true" : "false";
			break;
		default:
			t = DatumGetTextPP(value);
			*len = VARSIZE_ANY_EXHDR(t);
			return VARDATA_ANY(t);
	}
	*len = strlen(s);
	return s;
}

static void
hash_column(SlAuditHash *hash, SlTransitionColumn column, Datum value)
{
	char		buf[SL_AUDIT_TEXT_SIZE];
	size_t		len;
	const char *s = sl_audit_text(column, value, buf, &len);

	sl_audit_hash_field(hash, s, len);
}

/* The hash of a row, onto the one before it; prev NULL for the first. */
static void
hash_row(const SlRow *transition, const unsigned char *prev, unsigned char *out)
{
	SlAuditHash *hash = hasher();
	int			i;

	sl_audit_hash_begin(hash, prev);
	for (i = 0; i < TRA_HASH; i++)
	{
		if (transition->nulls[i])
			sl_audit_hash_field(hash, NULL, 0);
		else
			hash_column(hash, (SlTransitionColumn) i, transition->values[i]);
	}
	if (!sl_audit_hash_finish(hash, out))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not compute SHA-256 hash")));
}

/* The bytes of a hash, or NULL if the value is none. */
static const unsigned char *
hash_bytes_of(Datum value, bool isnull)
{
	bytea	   *b;

	if (isnull)
		return NULL;
	b = DatumGetByteaPP(value);
	return VARSIZE_ANY_EXHDR(b) == SL_AUDIT_HASH_LEN ?
		(const unsigned char *) VARDATA_ANY(b) : NULL;
}

/* ---------- rows ---------- */

/*
 * The audit row of what was just done to a payment in memory: its state, number
 * of transitions and time of update are the new ones, 'from' is the state it
 * was in.  Sets the payment's audit_head as well.  Values that are not copied
 * are those of the payment or of the cause.
 */
void
sl_audit_record(SlRow *payment, SlState from, const SlCause *cause,
				SlRow *transition)
{
	const unsigned char *prev = NULL;
	bytea	   *hash = palloc(VARHDRSZ + SL_AUDIT_HASH_LEN);

	if (from != SL_STATE_NONE)
	{
		prev = hash_bytes_of(payment->values[PAY_AUDIT_HEAD],
							 payment->nulls[PAY_AUDIT_HEAD]);
		if (prev == NULL)
			ereport(ERROR,
					(errcode(SL_ERRCODE_GUARD_BYPASSED),
					 errmsg("payment %s has no hash to continue its audit trail from",
							DatumGetCString(DirectFunctionCall1(uuid_out, payment->values[PAY_ID]))),
					 errhint("See stripe_lifecycle.verify_audit().")));
	}

	memset(transition->nulls, true, sizeof(transition->nulls));
	SET(transition, TRA_PAYMENT_ID, payment->values[PAY_ID]);
	SET(transition, TRA_SEQ, payment->values[PAY_TRANSITIONS]);
	if (from != SL_STATE_NONE)
		SET(transition, TRA_FROM_STATE, sl_state_datum(from));
	SET(transition, TRA_TO_STATE, payment->values[PAY_STATE]);
	SET(transition, TRA_AT, payment->values[PAY_UPDATED_AT]);
	SET(transition, TRA_SOURCE, CStringGetTextDatum(cause->source));
	if (cause->event_id != NULL)
	{
		SET(transition, TRA_EVENT_ID, CStringGetTextDatum(cause->event_id));
		SET(transition, TRA_EVENT_TYPE, CStringGetTextDatum(cause->event_type));
		SET(transition, TRA_EVENT_CREATED, TimestampTzGetDatum(cause->event_created));
	}
	SET(transition, TRA_ROLE,
		CStringGetTextDatum(GetUserNameFromId(sl_acting_role(), false)));
	if (cause->note != NULL)
		SET(transition, TRA_NOTE, CStringGetTextDatum(cause->note));
	SET(transition, TRA_AMOUNT, payment->values[PAY_AMOUNT]);
	SET(transition, TRA_CURRENCY, payment->values[PAY_CURRENCY]);
	transition->values[TRA_LIVEMODE] = payment->values[PAY_LIVEMODE];
	transition->nulls[TRA_LIVEMODE] = payment->nulls[PAY_LIVEMODE];

	SET_VARSIZE(hash, VARHDRSZ + SL_AUDIT_HASH_LEN);
	hash_row(transition, prev, (unsigned char *) VARDATA(hash));
	SET(transition, TRA_HASH, PointerGetDatum(hash));
	SET(payment, PAY_AUDIT_HEAD, PointerGetDatum(hash));
}

/* ---------- replay ---------- */

void
sl_replay_begin(SlReplay *replay, SlBreakCallback report, void *arg)
{
	memset(replay, 0, sizeof(*replay));
	replay->report = report;
	replay->arg = arg;
}

static void
found(const SlReplay *r, int seq, const char *problem, const char *detail)
{
	r->report(r->arg, seq, problem, detail);
}

/* Is the row the one that comes next?  Reports it if not. */
static bool
check_sequence(const SlReplay *r, int seq)
{
	int			expected = r->seq + 1;

	if (seq == expected)
		return true;
	if (seq < expected)
		found(r, seq, "wrong_seq", "its number is that of an earlier row, or none");
	else if (seq == expected + 1)
		found(r, expected, "missing", "the row is missing");
	else
		found(r, expected, "missing", psprintf("rows %d to %d are missing", expected, seq - 1));
	return false;
}

static void
check_move(const SlReplay *r, int seq, const SlRow *t)
{
	SlState		from = state_in(t, TRA_FROM_STATE);
	SlState		to = state_in(t, TRA_TO_STATE);

	if (r->rows == 0 && (from != SL_STATE_NONE || to != SL_STATE_CREATED))
		found(r, seq, "not_created", "a trail begins with the creation of its payment");
	else if (r->rows > 0 && from != r->state)
		found(r, seq, "broken_link",
			  psprintf("it begins with %s, but the row before it ends with %s",
					   state_text(from), state_text(r->state)));
	else if (!sl_edge_is_legal(from, to))
		found(r, seq, "illegal_edge",
			  psprintf("a payment cannot go from %s to %s", state_text(from),
					   state_text(to)));
}

/*
 * Take the next row of the trail, in the order of seq.  Any column may be NULL:
 * whoever tampers can take a table's constraints away.  That is a hash that
 * does not fit, whatever else.
 */
void
sl_replay_row(SlReplay *r, const SlRow *t)
{
	int			seq = t->nulls[TRA_SEQ] ? 0 : DatumGetInt32(t->values[TRA_SEQ]);
	const unsigned char *stored = hash_bytes_of(t->values[TRA_HASH],
												t->nulls[TRA_HASH]);

	/* behind a gap neither the hash nor the state before is known */
	if (check_sequence(r, seq))
	{
		unsigned char hash[SL_AUDIT_HASH_LEN];

		check_move(r, seq, t);
		hash_row(t, r->rows == 0 ? NULL : r->hash, hash);
		if (stored == NULL || memcmp(stored, hash, sizeof(hash)) != 0)
			found(r, seq, "altered",
				  "its hash is not that of the row before it and its own fields");
	}

	/* go on from what stands there, so that one break is reported once */
	r->rows++;
	r->seq = seq;
	r->state = state_in(t, TRA_TO_STATE);
	r->at = t->nulls[TRA_AT] ? 0 : DatumGetTimestampTz(t->values[TRA_AT]);
	r->amount = t->nulls[TRA_AMOUNT] ? 0 : DatumGetInt64(t->values[TRA_AMOUNT]);
	strlcpy(r->currency, t->nulls[TRA_CURRENCY] ? "null" :
			TextDatumGetCString(t->values[TRA_CURRENCY]), sizeof(r->currency));
	if (!t->nulls[TRA_LIVEMODE])
	{
		r->has_livemode = true;
		r->livemode = DatumGetBool(t->values[TRA_LIVEMODE]);
	}
	if (stored != NULL)
		memcpy(r->hash, stored, SL_AUDIT_HASH_LEN);
	else
		memset(r->hash, 0, SL_AUDIT_HASH_LEN);
}

static void
differs(const SlReplay *r, const char *column, const char *row, const char *trail)
{
	found(r, 0, "row_differs",
		  psprintf("%s is %s in the payment, and %s by its trail", column, row, trail));
}

static void
check_number(const SlReplay *r, const SlRow *p, SlPaymentColumn column, int64 wanted)
{
	int64		value = p->nulls[column] ? 0 : column == PAY_AMOUNT ?
		DatumGetInt64(p->values[column]) : DatumGetInt32(p->values[column]);

	if (p->nulls[column] || value != wanted)
		differs(r, column == PAY_AMOUNT ? "amount" : "transitions",
				p->nulls[column] ? "null" : psprintf(INT64_FORMAT, value),
				psprintf(INT64_FORMAT, wanted));
}

/* Did the payment end when its trail says? */
static void
check_finished(const SlReplay *r, const SlRow *p)
{
	bool		ended = r->state == SL_STATE_SUCCEEDED ||
		r->state == SL_STATE_FAILED;

	if (p->nulls[PAY_FINISHED_AT] ? ended :
		!ended || DatumGetTimestampTz(p->values[PAY_FINISHED_AT]) != r->at)
		differs(r, "finished_at",
				p->nulls[PAY_FINISHED_AT] ? "null" :
				pstrdup(timestamptz_to_str(DatumGetTimestampTz(p->values[PAY_FINISHED_AT]))),
				ended ? pstrdup(timestamptz_to_str(r->at)) : "null");
}

/*
 * The trail is complete: does it give the payment's row?  Needs the columns
 * state, amount, currency, livemode, transitions, finished_at and audit_head;
 * NULL if there is no such payment.
 */
void
sl_replay_end(SlReplay *r, const SlRow *p)
{
	const unsigned char *head;
	SlState		state;
	const char *currency;

	if (p == NULL)
	{
		found(r, 0, "no_payment", "there is no payment for this trail");
		return;
	}
	if (r->rows == 0)
	{
		found(r, 0, "no_trail", "the payment has no audit trail");
		return;
	}

	state = state_in(p, PAY_STATE);
	if (state != r->state)
		differs(r, "state", state_text(state), state_text(r->state));
	check_number(r, p, PAY_TRANSITIONS, r->rows);
	check_number(r, p, PAY_AMOUNT, r->amount);
	currency = p->nulls[PAY_CURRENCY] ? "null" :
		TextDatumGetCString(p->values[PAY_CURRENCY]);
	if (strcmp(currency, r->currency) != 0)
		differs(r, "currency", currency, r->currency);
	if (r->has_livemode && (p->nulls[PAY_LIVEMODE] ||
							DatumGetBool(p->values[PAY_LIVEMODE]) != r->livemode))
		differs(r, "livemode", p->nulls[PAY_LIVEMODE] ? "null" :
				r->livemode ? "false" : "true", r->livemode ? "true" : "false");
	check_finished(r, p);
	head = hash_bytes_of(p->values[PAY_AUDIT_HEAD], p->nulls[PAY_AUDIT_HEAD]);
	if (head == NULL || memcmp(head, r->hash, SL_AUDIT_HASH_LEN) != 0)
		found(r, 0, "row_differs",
			  "audit_head of the payment is not the hash of the last row of its trail");
}
