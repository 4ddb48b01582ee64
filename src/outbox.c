/*-------------------------------------------------------------------------
 *
 * outbox.c
 *	  The queue of calls to Stripe, in tables api_requests and api_attempts.
 *
 * A request's bytes and its idempotency key are written once, in the
 * transaction that wants the call, and frozen; so the key exists before the
 * first byte leaves, and every attempt, by whatever worker after whatever
 * crash, is the same request to Stripe.  A claim is committed before the
 * call; what the claimer does not live to settle becomes due again.
 *
 * Stripe remembers a key for 24 hours at least.  A request whose first
 * attempt is older than 23 is never sent again: it becomes "unknown", for
 * lookup.c to find out about.
 *
 * What waits is found by account first and time second: ACCOUNT_OF below is
 * the expression that the index api_requests_due is made of.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "errors.h"
#include "event_reader.h"
#include "outbox.h"
#include "subxact.h"
#include "wake.h"

#define ACCOUNT_OF(request) "coalesce(" request ".stripe_account, '')"
#define IS_PENDING(request) request ".status IN ('queued', 'in_flight')"

/* So many rows may be refused in one look; the next one goes on behind them. */
#define SL_MAX_PASSED_OVER 100

#define CANCEL_PATH "/v1/payment_intents/" SL_INTENT_PLACEHOLDER "/cancel"

static SlQuery count_operation = {
	.sql = "SELECT count(*) FROM stripe_lifecycle.api_requests"
	" WHERE payment_id = $1 AND operation = $2",
	.args = {SL_TYPE_UUID, SL_TYPE_TEXT},
};

/*
 * CASE: an index on one payment's requests is there to be used.  From a plain
 * condition the planner would conclude that those on what waits will do, which
 * are long just when there is much to do.
 */
static SlQuery release_waiting = {
	.sql = "UPDATE stripe_lifecycle.api_requests SET"
	" next_attempt_at = CASE status WHEN 'queued' THEN $2 ELSE next_attempt_at END,"
	" lookup_at = CASE status WHEN 'unknown' THEN $2 ELSE lookup_at END"
	" WHERE payment_id = $1 AND CASE status WHEN 'unknown' THEN true"
	" WHEN 'queued' THEN next_attempt_at = 'infinity' ELSE false END",
	.args = {SL_TYPE_UUID, SL_TYPE_TIMESTAMPTZ},
};

/*
 * Requests that are due: $2 of an account's, the first ones first, or a
 * certain one.  $3 is the time.
 */
#define DUE_OF_ACCOUNT \
	"SELECT r.id, r.first_sent_at FROM stripe_lifecycle.api_requests r" \
	" WHERE " IS_PENDING("r") " AND " ACCOUNT_OF("r") " = $1" \
	" AND r.next_attempt_at <= $3" \
	" ORDER BY r.next_attempt_at LIMIT $2"
#define DUE_BY_ID \
	"SELECT r.id, r.first_sent_at FROM stripe_lifecycle.api_requests r" \
	" WHERE r.id = $1 AND " IS_PENDING("r") " AND r.next_attempt_at <= $3 LIMIT $2"

/* Those first sent before $4 are not sent again. */
#define GIVE_UP(due) \
	"UPDATE stripe_lifecycle.api_requests" \
	" SET status = 'unknown', finished_at = $3, last_error = $5, lookup_at = $6," \
	" lookup_cursor = NULL" \
	" WHERE id IN (SELECT due.id FROM (" due " FOR UPDATE SKIP LOCKED) due" \
	" WHERE due.first_sent_at < $4)"
#define CLAIM(due) \
	"WITH due AS (" due " FOR UPDATE SKIP LOCKED)," \
	" claimed AS (" \
	" UPDATE stripe_lifecycle.api_requests r" \
	" SET status = 'in_flight', attempts = r.attempts + 1, next_attempt_at = $5," \
	" first_sent_at = coalesce(r.first_sent_at, $3)" \
	" FROM due WHERE r.id = due.id" \
	" AND (due.first_sent_at >= $4 OR due.first_sent_at IS NULL)" \
	" RETURNING r.id, r.attempts, r.operation, r.method, r.path, r.body," \
	" r.idempotency_key, r.stripe_account, r.first_sent_at," \
	" (SELECT p.payment_intent_id FROM stripe_lifecycle.payments p" \
	"  WHERE p.id = r.payment_id) AS payment_intent_id," \
	" NOT EXISTS (SELECT FROM stripe_lifecycle.payments p" \
	"  WHERE p.id = r.payment_id) AS is_orphan)," \
	" noted AS (" \
	" INSERT INTO stripe_lifecycle.api_attempts (request_id, attempt, started_at)" \
	" SELECT id, attempts, $3 FROM claimed)" \
	" SELECT * FROM claimed ORDER BY id"

static SlQuery give_up_of_account = {
	.sql = GIVE_UP(DUE_OF_ACCOUNT),
	.args = {
		SL_TYPE_TEXT, SL_TYPE_INT4, SL_TYPE_TIMESTAMPTZ, SL_TYPE_TIMESTAMPTZ,
		SL_TYPE_JSONB, SL_TYPE_TIMESTAMPTZ
	},
};
static SlQuery give_up_by_id = {
	.sql = GIVE_UP(DUE_BY_ID),
	.args = {
		SL_TYPE_INT8, SL_TYPE_INT4, SL_TYPE_TIMESTAMPTZ, SL_TYPE_TIMESTAMPTZ,
		SL_TYPE_JSONB, SL_TYPE_TIMESTAMPTZ
	},
};
static SlQuery claim_of_account = {
	.sql = CLAIM(DUE_OF_ACCOUNT),
	.args = {
		SL_TYPE_TEXT, SL_TYPE_INT4, SL_TYPE_TIMESTAMPTZ, SL_TYPE_TIMESTAMPTZ,
		SL_TYPE_TIMESTAMPTZ
	},
};
static SlQuery claim_by_id = {
	.sql = CLAIM(DUE_BY_ID),
	.args = {
		SL_TYPE_INT8, SL_TYPE_INT4, SL_TYPE_TIMESTAMPTZ, SL_TYPE_TIMESTAMPTZ,
		SL_TYPE_TIMESTAMPTZ
	},
};
static SlQuery due_behind = {
	.sql = "SELECT r.id, r.next_attempt_at FROM stripe_lifecycle.api_requests r"
	" WHERE " IS_PENDING("r") " AND " ACCOUNT_OF("r") " = $1"
	" AND r.next_attempt_at <= $3 AND r.next_attempt_at >= $4"
	" AND (r.next_attempt_at, r.id) > ($4, $5)"
	" ORDER BY r.next_attempt_at, r.id LIMIT $2",
	.args = {
		SL_TYPE_TEXT, SL_TYPE_INT4, SL_TYPE_TIMESTAMPTZ, SL_TYPE_TIMESTAMPTZ,
		SL_TYPE_INT8
	},
};

/* No look-up would help it. */
static SlQuery set_bad_aside = {
	.sql = "UPDATE stripe_lifecycle.api_requests SET status = 'unknown',"
	" finished_at = $2, last_error = $3, lookup_at = 'infinity', lookup_cursor = NULL"
	" WHERE id = $1 AND status IN ('queued', 'in_flight')",
	.args = {SL_TYPE_INT8, SL_TYPE_TIMESTAMPTZ, SL_TYPE_JSONB},
};
static SlQuery set_aside = {
	.sql = "UPDATE stripe_lifecycle.api_requests"
	" SET status = 'unknown', finished_at = $3, last_error = $4, lookup_at = $5,"
	" lookup_cursor = NULL"
	" WHERE id = $1 AND attempts = $2 AND status = 'in_flight'",
	.args = {
		SL_TYPE_INT8, SL_TYPE_INT4, SL_TYPE_TIMESTAMPTZ, SL_TYPE_JSONB,
		SL_TYPE_TIMESTAMPTZ
	},
};

/* Whoever made these calls did not live to see their end ... */
static SlQuery recover = {
	.sql = "UPDATE stripe_lifecycle.api_requests SET"
	" next_attempt_at = CASE WHEN status = 'in_flight'"
	"  THEN least(next_attempt_at, $1) ELSE next_attempt_at END,"
	" lookup_at = CASE WHEN status = 'unknown'"
	"  THEN least(lookup_at, $1) ELSE lookup_at END,"
	" watch_at = CASE WHEN watch_at IS NOT NULL THEN least(watch_at, $1) END"
	" WHERE id IN (SELECT r.id FROM stripe_lifecycle.api_attempts a"
	"  JOIN stripe_lifecycle.api_requests r"
	"  ON r.id = a.request_id AND r.attempts = a.attempt"
	"  WHERE a.finished_at IS NULL FOR UPDATE OF r SKIP LOCKED)",
	.args = {SL_TYPE_TIMESTAMPTZ},
};

/* ... and neither will anybody else. */
static SlQuery close_lost = {
	.sql = "UPDATE stripe_lifecycle.api_attempts SET finished_at = $1, result = 'lost'"
	" WHERE (request_id, attempt) IN (SELECT a.request_id, a.attempt"
	"  FROM stripe_lifecycle.api_attempts a WHERE a.finished_at IS NULL"
	"  FOR UPDATE SKIP LOCKED)",
	.args = {SL_TYPE_TIMESTAMPTZ},
};
static SlQuery close_attempt = {
	.sql = "UPDATE stripe_lifecycle.api_attempts"
	" SET finished_at = $3, result = 'unknown', error = $4"
	" WHERE request_id = $1 AND attempt = $2 AND finished_at IS NULL",
	.args = {SL_TYPE_INT8, SL_TYPE_INT4, SL_TYPE_TIMESTAMPTZ, SL_TYPE_TEXT},
};

/* From one account to the next in the index, without reading what is between. */
static SlQuery accounts_waiting = {
	.sql = "WITH RECURSIVE account (name) AS ("
	" (SELECT " ACCOUNT_OF("r") " FROM stripe_lifecycle.api_requests r"
	"  WHERE " IS_PENDING("r") " ORDER BY 1 LIMIT 1)"
	" UNION ALL"
	" SELECT (SELECT " ACCOUNT_OF("r") " FROM stripe_lifecycle.api_requests r"
	"  WHERE " IS_PENDING("r") " AND " ACCOUNT_OF("r") " > account.name"
	"  ORDER BY 1 LIMIT 1)"
	" FROM account WHERE account.name IS NOT NULL)"
	" SELECT account.name, (SELECT r.next_attempt_at"
	"  FROM stripe_lifecycle.api_requests r"
	"  WHERE " IS_PENDING("r") " AND " ACCOUNT_OF("r") " = account.name"
	"  ORDER BY r.next_attempt_at LIMIT 1)"
	" FROM account WHERE account.name IS NOT NULL",
};
static SlQuery next_due = {
	.sql = "SELECT r.next_attempt_at FROM stripe_lifecycle.api_requests r"
	" WHERE " IS_PENDING("r") " AND " ACCOUNT_OF("r") " = $1"
	" ORDER BY r.next_attempt_at LIMIT 1",
	.args = {SL_TYPE_TEXT},
};

/*
 * The key of a payment's n-th call of an operation.  It is made of the row's
 * own id, so nothing that changes on a retry can get into it.
 */
static char *
make_idempotency_key(const SlRow *payment, const char *operation)
{
	Datum		args[2] = {payment->values[PAY_ID], CStringGetTextDatum(operation)};
	char	   *id = DatumGetCString(DirectFunctionCall1(uuid_out, args[0]));
	bool		isnull;
	int64		n;

	if (strcmp(operation, "create") == 0)
		return psprintf("stripe_lifecycle-%s-create", id);
	(void) sl_run(&count_operation, args, NULL, 1);
	n = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
									1, &isnull));
	return psprintf("stripe_lifecycle-%s-%s-" INT64_FORMAT, id, operation, n + 1);
}

/*
 * Queue a call for a payment that the caller has locked, or has just made.
 * It is sent when the transaction commits, or when the PaymentIntent becomes
 * known, if it needs that.  Returns the request's id.
 */
int64
sl_enqueue(const SlRow *payment, const char *operation, const char *path,
		   const char *body)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		waits = strstr(path, SL_INTENT_PLACEHOLDER) != NULL &&
		payment->nulls[PAY_PAYMENT_INTENT_ID];
	SlRow		row;

	memset(row.nulls, true, sizeof(row.nulls));
	memset(row.values, 0, sizeof(row.values));
	SET(&row, REQ_PAYMENT_ID, payment->values[PAY_ID]);
	SET(&row, REQ_OPERATION, CStringGetTextDatum(operation));
	SET(&row, REQ_METHOD, CStringGetTextDatum("POST"));
	SET(&row, REQ_PATH, CStringGetTextDatum(path));
	SET(&row, REQ_BODY, CStringGetTextDatum(body));
	SET(&row, REQ_IDEMPOTENCY_KEY,
		CStringGetTextDatum(make_idempotency_key(payment, operation)));
	row.values[REQ_STRIPE_ACCOUNT] = payment->values[PAY_STRIPE_ACCOUNT];
	row.nulls[REQ_STRIPE_ACCOUNT] = payment->nulls[PAY_STRIPE_ACCOUNT];
	SET(&row, REQ_CREATED_AT, TimestampTzGetDatum(now));
	SET(&row, REQ_STATUS, sl_status_datum(SL_REQUEST_QUEUED));
	SET(&row, REQ_ATTEMPTS, Int32GetDatum(0));
	SET(&row, REQ_NEXT_ATTEMPT_AT, TimestampTzGetDatum(waits ? DT_NOEND : now));

	/* the key is new: nothing inserted means that it was taken away */
	if (!sl_insert_new_row(SL_REQUESTS, &row, NULL))
		sl_write_suppressed(SL_REQUESTS);
	sl_wake_at_commit();
	return DatumGetInt64(row.values[REQ_ID]);
}

/* Queue the cancellation of a payment's PaymentIntent; reason may be NULL. */
int64
sl_enqueue_cancel(const SlRow *payment, const char *reason)
{
	char	   *body = reason == NULL ? pstrdup("") :
		psprintf("cancellation_reason=%s", reason);

	return sl_enqueue(payment, "cancel", CANCEL_PATH, body);
}

/*
 * The payment's PaymentIntent is known: what waited for it may go, and what is
 * not known to have been carried out can be looked up.
 */
void
sl_release_waiting(const pg_uuid_t *payment_id)
{
	Datum		args[2] = {UUIDPGetDatum(payment_id),
	TimestampTzGetDatum(GetCurrentTimestamp())};

	if (sl_run(&release_waiting, args, NULL, 0) > 0)
		sl_wake_at_commit();
}

/* The path with the PaymentIntent's id in place of its placeholder. */
static char *
fill_path(const char *path, const char *intent_id)
{
	const char *hole = strstr(path, SL_INTENT_PLACEHOLDER);

	if (hole == NULL)
		return pstrdup(path);
	return psprintf("%.*s%s%s", (int) (hole - path), path,
					intent_id == NULL ? "" : intent_id,
					hole + strlen(SL_INTENT_PLACEHOLDER));
}

static SlApiCall *
read_claim(HeapTuple tuple, TupleDesc desc, MemoryContext cxt)
{
	MemoryContext old = MemoryContextSwitchTo(cxt);
	SlApiCall  *call = palloc0(sizeof(SlApiCall));
	bool		isnull;

	call->request_id = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
	call->attempt = DatumGetInt32(SPI_getbinval(tuple, desc, 2, &isnull));
	call->operation = sl_text_column(tuple, desc, 3);
	call->method = sl_text_column(tuple, desc, 4);
	call->path = fill_path(sl_text_column(tuple, desc, 5),
						   sl_text_column(tuple, desc, 10));
	call->body = sl_text_column(tuple, desc, 6);
	call->idempotency_key = sl_text_column(tuple, desc, 7);
	call->stripe_account = sl_text_column(tuple, desc, 8);
	call->first_sent_at = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 9, &isnull));
	call->is_orphan = DatumGetBool(SPI_getbinval(tuple, desc, 11, &isnull));
	MemoryContextSwitchTo(old);
	return call;
}

/*
 * The accounts for which something waits, each with the time its first request
 * is due: a list of SlDueAccount in the current memory context.
 */
List *
sl_outbox_accounts(void)
{
	List	   *accounts = NIL;
	int			n = sl_run(&accounts_waiting, NULL, NULL, 0);
	int			i;

	for (i = 0; i < n; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		SlDueAccount *account = palloc(sizeof(SlDueAccount));

		account->name = sl_text_column(tuple, desc, 1);
		account->due = sl_time_column(tuple, desc, 2, DT_NOEND);
		accounts = lappend(accounts, account);
	}
	return accounts;
}

/* Requests that are due, to be claimed. */
typedef struct Batch
{
	Datum		which;			/* an account, or the id of a request */
	bool		by_id;
	int			limit;
	TimestampTz now;
	int			lease_ms;
	MemoryContext cxt;			/* of the calls */
	List	   *calls;			/* claimed so far */
	ErrorData  *error;			/* why it could not be claimed */
} Batch;

static void
claim_batch(void *arg)
{
	Batch	   *b = arg;
	TimestampTz look_at = TimestampTzPlusMilliseconds(b->now, SL_LOOKUP_PAUSE_MS);
	TimestampTz lease_end = TimestampTzPlusMilliseconds(b->now, b->lease_ms);
	Datum		args[6] = {b->which, Int32GetDatum(b->limit), TimestampTzGetDatum(b->now),
	TimestampTzGetDatum(b->now - SL_RETRY_WINDOW_MS * 1000)};
	int			n;
	int			i;

	args[4] = JsonbPGetDatum(sl_error_object("worker", "key_expired",
											 "Stripe may have forgotten the idempotency key, so the call is not repeated"));
	args[5] = TimestampTzGetDatum(look_at);
	/* until there is none at the head of the queue: what is behind moves up */
	while (sl_run(b->by_id ? &give_up_by_id : &give_up_of_account, args, NULL, 0) > 0)
		CHECK_FOR_INTERRUPTS();

	args[4] = TimestampTzGetDatum(lease_end);
	n = sl_run(b->by_id ? &claim_by_id : &claim_of_account, args, NULL, 0);
	for (i = 0; i < n; i++)
	{
		SlApiCall  *call = read_claim(SPI_tuptable->vals[i],
									  SPI_tuptable->tupdesc, b->cxt);
		MemoryContext old = MemoryContextSwitchTo(b->cxt);

		b->calls = lappend(b->calls, call);
		MemoryContextSwitchTo(old);
	}
}

static void
set_one_aside(void *arg)
{
	Batch	   *b = arg;
	Datum		args[3] = {b->which, TimestampTzGetDatum(b->now),
	JsonbPGetDatum(sl_error_object("database", unpack_sql_state(b->error->sqlerrcode),
								   "the database refused to have the request claimed"))};

	(void) sl_run(&set_bad_aside, args, NULL, 0);
}

/*
 * Claim one request that may be bad: if so, set it aside.  False: that could
 * not be had either, or should not be, since it is somebody's trigger that
 * objects, which may well object to all.
 */
static bool
claim_one(Batch *b)
{
	ErrorData  *error;

	b->error = sl_try(claim_batch, b);
	if (b->error == NULL)
		return true;
	if (!sl_error_is_of_row(b->error->sqlerrcode))
		ReThrowError(b->error);
	if (ERRCODE_TO_CATEGORY(b->error->sqlerrcode) == ERRCODE_PLPGSQL_ERROR)
		return false;
	error = sl_try(set_one_aside, b);
	if (error != NULL && !sl_error_is_of_row(error->sqlerrcode))
		ReThrowError(error);
	if (error != NULL)
		return false;
	ereport(WARNING,
			(errcode(b->error->sqlerrcode),
			 errmsg("stripe_lifecycle set request " INT64_FORMAT " aside, which could not be claimed: SQLSTATE %s",
					DatumGetInt64(b->which), unpack_sql_state(b->error->sqlerrcode)),
			 errhint("See stripe_lifecycle.dead_requests.")));
	return true;
}

/*
 * How far a careful look at an account's queue has come: it is not to begin
 * with the same refused rows each time, however many they are.
 */
typedef struct Place
{
	char	   *account;
	TimestampTz due;			/* of the last row that was looked at, */
	int64		id;				/* and its id */
} Place;

static List *places = NIL;

/* The place of an account; at first the beginning.  Lives until forgotten. */
static Place *
place_of(const char *account)
{
	MemoryContext old;
	Place	   *place;
	ListCell   *lc;

	foreach(lc, places)
	{
		place = lfirst(lc);
		if (strcmp(place->account, account) == 0)
			return place;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	place = palloc(sizeof(Place));
	place->account = pstrdup(account);
	place->due = DT_NOBEGIN;
	place->id = 0;
	places = lappend(places, place);
	MemoryContextSwitchTo(old);
	return place;
}

static void
forget_place(Place *place)
{
	places = list_delete_ptr(places, place);
	pfree(place->account);
	pfree(place);
}

/* Claim row by row, going past those that are bad. */
static List *
claim_carefully(const char *account, int limit, Batch *b, int *passed_over)
{
	Place	   *place = place_of(account);
	int			most = limit + SL_MAX_PASSED_OVER;
	Datum		args[5] = {CStringGetTextDatum(account), Int32GetDatum(most),
		TimestampTzGetDatum(b->now), TimestampTzGetDatum(place->due),
	Int64GetDatum(place->id)};
	int			n = sl_run(&due_behind, args, NULL, 0);
	SPITupleTable *due = SPI_tuptable;
	int			i;

	b->by_id = true;
	b->limit = 1;
	for (i = 0; i < n && list_length(b->calls) < limit; i++)
	{
		bool		isnull;

		b->which = SPI_getbinval(due->vals[i], due->tupdesc, 1, &isnull);
		place->id = DatumGetInt64(b->which);
		place->due = sl_time_column(due->vals[i], due->tupdesc, 2, DT_NOBEGIN);
		if (!claim_one(b))
			*passed_over = b->error->sqlerrcode;
	}
	/* at the end of the queue: from the beginning again */
	if (i == n && n < most)
		forget_place(place);
	return b->calls;
}

/*
 * Claim up to 'limit' due requests of an account for 'lease_ms'.  The caller
 * commits before it sends anything.  Returns a list of SlApiCall in 'cxt'.
 * An error is raised if the database refuses one of the rows, unless 'careful',
 * which goes past those: see claim.h.
 */
List *
sl_outbox_claim(const char *account, int limit, int lease_ms, MemoryContext cxt,
				bool careful, int *passed_over)
{
	Batch		batch = {CStringGetTextDatum(account), false, limit,
	GetCurrentTimestamp(), lease_ms, cxt, NIL, NULL};

	if (careful)
		return claim_carefully(account, limit, &batch, passed_over);
	claim_batch(&batch);
	return batch.calls;
}

/*
 * Complete the record of an HTTP call whose answer could not be stored, or
 * that could not be sent.
 */
void
sl_close_attempt(int64 request_id, int attempt, const char *sqlstate,
				 const char *message)
{
	Datum		args[4] = {Int64GetDatum(request_id), Int32GetDatum(attempt),
		TimestampTzGetDatum(GetCurrentTimestamp()),
	CStringGetTextDatum(psprintf("SQLSTATE %s: %s", sqlstate, message))};

	(void) sl_run(&close_attempt, args, NULL, 0);
}

/*
 * Settling a request failed: put it aside with its error, so that the others
 * go on.  Called in a fresh transaction.  It is "unknown": Stripe may well
 * have done it.
 */
void
sl_outbox_set_aside(int64 request_id, int attempt, const char *sqlstate,
					const char *message)
{
	TimestampTz now = GetCurrentTimestamp();
	Datum		args[5] = {Int64GetDatum(request_id), Int32GetDatum(attempt),
		TimestampTzGetDatum(now),
		JsonbPGetDatum(sl_error_object("database", sqlstate, message)),
	TimestampTzGetDatum(TimestampTzPlusMilliseconds(now, SL_LOOKUP_PAUSE_MS))};

	(void) sl_run(&set_aside, args, NULL, 0);
	sl_close_attempt(request_id, attempt, sqlstate, message);
}

/*
 * When a worker starts, no other one serves this database: whatever is in
 * flight was claimed by one that died.  Make it due, and complete the records
 * of all calls that were under way, look-ups included.  Rows that somebody has
 * locked keep their lease.
 */
void
sl_outbox_recover(void)
{
	Datum		now = TimestampTzGetDatum(GetCurrentTimestamp());

	(void) sl_run(&recover, &now, NULL, 0);
	(void) sl_run(&close_lost, &now, NULL, 0);
}

/* When the next request of an account is due; DT_NOEND if none is. */
TimestampTz
sl_outbox_next_due(const char *account)
{
	Datum		arg = CStringGetTextDatum(account);

	if (sl_run(&next_due, &arg, NULL, 1) == 0)
		return DT_NOEND;
	return sl_time_column(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, DT_NOEND);
}
