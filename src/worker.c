/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  Calls Stripe on behalf of one database: claim, call, settle.
 *
 * The only file that sees both the queue (outbox.h, SQL) and the network
 * (http_client.h).  Three short steps:
 *
 *	claim	one transaction takes due requests and commits, which also makes
 *			durable whatever wrote them, before a byte goes out;
 *	call	no transaction, snapshot or lock is held while Stripe thinks;
 *	settle	one transaction stores all answers that have arrived.
 *
 * A request takes a place in a window of stripe_lifecycle.max_in_flight from
 * its claim until it is settled; a place that becomes free is filled at once,
 * so that one slow call keeps nobody waiting.  How fast they may follow each
 * other is claim.c's matter.
 *
 * Each transaction runs as the role stripe_lifecycle_worker, in a way that
 * nothing inside can undo: the statements fire other people's triggers.  For
 * the same reason settings are put right again before each.  No transaction
 * waits long for a lock, so neither does anybody who wants to drop or update
 * the extension.  A worker belongs to one incarnation of it: when that is gone,
 * what is under way is of no use to anybody, and the worker ends.
 *
 * If settling fails, each answer is tried alone.  One that the database
 * refuses is set aside with its error.  One that failed for a reason that
 * will pass (a deadlock, a full disk) is kept and tried again; Stripe would
 * replay its answer anyway, if this process did not live to store it.
 *
 * Now and then it seals the audit trail as well (seal.c) and removes what is too
 * old (retention.c), which concerns nobody but this database: in short
 * transactions of their own, between the others.
 *
 * There is one worker per database at most (slots.c).  It ends when there has
 * been nothing to do for a while, and leaves word of when the next request is
 * due.  An error outside of settling ends it too, but only after what is under
 * way has been settled; the launcher starts another one then, more and more
 * slowly if that keeps happening.
 *
 * Two memory contexts: one for the life of the process, and one that is reset
 * each time round the loop.  Requests under way have one each.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "common/pg_prng.h"
#include "executor/spi.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "claim.h"
#include "compat.h"
#include "errors.h"
#include "guc.h"
#include "http_client.h"
#include "identity.h"
#include "outbox.h"
#include "pacing.h"
#include "probe.h"
#include "retention.h"
#include "seal.h"
#include "secrets.h"
#include "settle.h"
#include "slots.h"
#include "stats.h"
#include "stripe_api.h"
#include "version.h"
#include "worker.h"

#define SL_WORKER_ROLE "stripe_lifecycle_worker"

/* Longest wait for a lock, in milliseconds, as a setting has it. */
#define SL_LOCK_TIMEOUT "200"

/* max_in_flight's upper bound */
#define SL_MAX_WINDOW		256

/* A claim outlives its call's own timeout by this much. */
#define SL_LEASE_MARGIN_MS	60000

/* Without a key: when to look for one again if nobody reloads. */
#define SL_NO_KEY_PAUSE_MS	30000

/* The queue can't be read for a reason that will pass. */
#define SL_NO_CLAIM_PAUSE_MS	1000
#define SL_NO_CLAIM_WARNING_MS	60000

/* While idle: how often to ask whether we are in the way. */
#define SL_IN_THE_WAY_MS	250

/* Pauses before an answer is stored once more. */
#define SL_SETTLE_PAUSE_MIN_MS	250
#define SL_SETTLE_PAUSE_MAX_MS	10000

/* A claimed request: under way, or waiting to be settled. */
typedef struct Flight
{
	dlist_node	node;
	MemoryContext cxt;			/* holds this and the call's strings */
	SlApiCall	call;
	uint64		pace;			/* whose rate it counts for */
	TimestampTz started_at;
	SlHttpExchange *exchange;	/* once it has ended; owns what result refers to */
	SlApiResult result;
	bool		unsendable;		/* result is not to be used: set aside */
	int			settle_failures;
	TimestampTz settle_at;		/* not before */
} Flight;

typedef struct Worker
{
	int			slot;
	char	   *database;		/* its name */
	Oid			extension;		/* once seen */
	MemoryContext cxt;
	MemoryContext scratch;
	SlHttpClient *http;			/* NULL until first needed */
	uint32		reloads;		/* announced by the launcher and heeded */
	uint32		idle_event;
	uint32		http_event;

	dlist_head	ended;			/* Flights to be settled */
	int			nflights;		/* in the window */
	int			nprobes;		/* of them, questions of probe.c's */
	int			nended;

	bool		look;			/* the queue may hold more than we know */
	bool		absent;			/* the extension is not there, or not ours, ... */
	bool		replaced;		/* ... but another one of its name is, ... */
	bool		unfit;			/* ... or one of a version that is not this library's */
	bool		unserved;		/* stripe_lifecycle.databases leaves us out */
	bool		noted;			/* we have left our name in worker_state */
	bool		keyless;
	bool		careful;		/* claim row by row: one of them may be bad */
	bool		failed;			/* finish what is under way, then end */
	TimestampTz next_due;
	SlSealing	sealing;
	TimestampTz next_seal;
	TimestampTz next_removal;	/* of what is too old */
	TimestampTz active_at;		/* last wake, claim or answer */
	TimestampTz complained;		/* of a claim that failed */
} Worker;

/* ---------- transactions ---------- */

/*
 * The database's owner may have set any of these with ALTER DATABASE, and a
 * trigger that ran in here with SET.  They would change what our statements
 * mean, or whether they end.  row_security: rows that a policy hides are an
 * error, and not an empty queue.
 */
static void
pin_settings(void)
{
	static const char *const pins[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"session_replication_role", "origin"},
		{"statement_timeout", "0"},
		{"lock_timeout", SL_LOCK_TIMEOUT},
		{"idle_in_transaction_session_timeout", "0"},
#ifdef SL_TRANSACTION_TIMEOUT_SETTING
		{SL_TRANSACTION_TIMEOUT_SETTING, "0"},
#endif
		{"row_security", "off"},
		{"jit", "off"}
	};
	size_t		i;

	for (i = 0; i < lengthof(pins); i++)
	{
		if (strcmp(GetConfigOption(pins[i][0], false, false), pins[i][1]) != 0)
			SetConfigOption(pins[i][0], pins[i][1], PGC_SUSET, PGC_S_SESSION);
	}

	/*
	 * A claim must be on disk before Stripe hears of the request, and with it,
	 * earlier in the log, the payment.
	 */
	if (synchronous_commit == SYNCHRONOUS_COMMIT_OFF)
		SetConfigOption("synchronous_commit", "on", PGC_SUSET, PGC_S_SESSION);
}

/* Activity texts are constants: they are there for all to read. */
static void
begin_transaction(const char *activity)
{
	pin_settings();
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	pgstat_report_activity(STATE_RUNNING, activity);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	PushActiveSnapshot(GetTransactionSnapshot());
}

static void
end_transaction(Worker *w)
{
	SPI_finish();
	PopActiveSnapshot();

	/* deferred triggers run as our role, too; an abort restores it by itself */
	CommitTransactionCommand();
	SetUserIdAndSecContext(GetSessionUserId(), 0);
	MemoryContextSwitchTo(w->scratch);
	pgstat_report_activity(STATE_IDLE, NULL);
	pgstat_report_stat(true);
}

/*
 * Be the worker's role until the transaction ends.  With this bit set neither
 * SET ROLE nor SET SESSION AUTHORIZATION is to be had.
 */
static void
act_as_worker(void)
{
	Oid			role = get_role_oid(SL_WORKER_ROLE, true);

	if (!OidIsValid(role))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role \"%s\" does not exist", SL_WORKER_ROLE),
				 errhint("Create it with NOLOGIN, and grant it again what the extension's script does.")));
	SetUserIdAndSecContext(role, SECURITY_LOCAL_USERID_CHANGE);
	sl_act_as(role);
}

/*
 * The objects are of another version than the library, so their queue is not
 * ours to touch.  Whoever brings the two together wakes us.
 */
static bool
is_unfit(Worker *w)
{
	char	   *problem = sl_version_problem();

	if (problem != NULL && !w->unfit)
		ereport(WARNING,
				(errcode(SL_ERRCODE_SCHEMA_MISMATCH),
				 errmsg("stripe_lifecycle sends nothing from database \"%s\": %s",
						get_database_name(MyDatabaseId), problem),
				 errdetail("What is queued waits."),
				 errhint("%s", sl_version_hint())));
	w->unfit = problem != NULL;
	return w->unfit;
}

/*
 * Is the extension there, and will it be until this transaction ends?  DROP
 * EXTENSION waits for us then, for as long as one of our short transactions
 * lasts; if it was first, we find nothing once it is done.  If so, the rest of
 * the transaction runs as the worker's role.
 *
 * An extension that was dropped and created again has another queue, in which
 * our requests' ids mean other requests.
 */
static bool
extension_locked(Worker *w)
{
	Oid			oid = get_extension_oid(SL_EXTENSION, true);

	if (OidIsValid(oid))
	{
		LockDatabaseObject(ExtensionRelationId, oid, 0, AccessShareLock);
		if (get_extension_oid(SL_EXTENSION, true) != oid)
			oid = InvalidOid;
	}
	w->replaced = OidIsValid(oid) && OidIsValid(w->extension) &&
		oid != w->extension;
	w->absent = !OidIsValid(oid) || w->replaced || is_unfit(w);
	if (w->absent)
		return false;
	w->extension = oid;
	act_as_worker();
	return true;
}

/*
 * In a PG_CATCH block: undo the transaction and return what went wrong, in
 * the scratch context.
 */
static ErrorData *
abandon_transaction(Worker *w)
{
	ErrorData  *error;

	MemoryContextSwitchTo(w->scratch);
	error = CopyErrorData();
	FlushErrorState();
	AbortCurrentTransaction();
	MemoryContextSwitchTo(w->scratch);
	pgstat_report_activity(STATE_IDLE, NULL);
	return error;
}

/* Only the code: a message may quote what a customer wrote. */
static const char *
sqlstate_of(const ErrorData *error)
{
	return unpack_sql_state(error->sqlerrcode);
}

/* ---------- start ---------- */

static void
connect_to_database(Oid dboid)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(dboid, InvalidOid, 0);
	SetConfigOption("application_name", "stripe_lifecycle worker",
					PGC_USERSET, PGC_S_OVERRIDE);
}

/*
 * Become this database's worker and take over what the last one left in
 * flight.  False: there is nothing to do here, or somebody else does it.
 */
static bool
take_over(Worker *w)
{
	bool		present;
	bool		served;

	begin_transaction("stripe_lifecycle: looking for the extension");
	present = extension_locked(w);
	w->database = MemoryContextStrdup(w->cxt, get_database_name(MyDatabaseId));
	end_transaction(w);
	if (!sl_database_is_served(w->database))
		return false;
	/* with a slot there may have been a wake, which is for the loop to take */
	if (!present && sl_slot_find(MyDatabaseId) == SL_NO_SLOT)
		return false;

	w->slot = sl_slot_attach(MyDatabaseId, &served);
	w->sealing.slot = w->slot;
	if (w->slot == SL_NO_SLOT)
	{
		if (!served)
			ereport(WARNING,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("no worker can serve this database: too many databases use stripe_lifecycle"),
					 errhint("Increase \"stripe_lifecycle.max_databases\" and restart the server.")));
		return false;
	}

	begin_transaction("stripe_lifecycle: taking over requests in flight");
	if (extension_locked(w))
	{
		sl_outbox_recover();
		sl_probe_recover();
	}
	end_transaction(w);
	return true;
}

static void
start_up(Worker *w, Oid dboid)
{
	memset(w, 0, sizeof(*w));
	/* before signals get through: a reload from here on is heeded */
	w->reloads = sl_slots_reloads();
	connect_to_database(dboid);
	if (ConfigReloadPending)
		ProcessConfigFile(PGC_SIGHUP);

	w->cxt = AllocSetContextCreate(TopMemoryContext, "stripe_lifecycle worker",
								   ALLOCSET_DEFAULT_SIZES);
	w->scratch = AllocSetContextCreate(w->cxt, "stripe_lifecycle worker round",
									   ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(w->scratch);
	dlist_init(&w->ended);
	w->sealing.cxt = w->cxt;
	w->slot = SL_NO_SLOT;
	w->look = true;
	w->next_due = DT_NOEND;
	w->idle_event = sl_wait_event_new("StripeLifecycleWorkerIdle");
	w->http_event = sl_wait_event_new("StripeLifecycleWorkerHttp");
}

/* ---------- flights ---------- */

static Flight *
new_flight(Worker *w, const SlApiCall *call, const char *key)
{
	MemoryContext cxt = AllocSetContextCreate(w->cxt, "stripe_lifecycle request",
											  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	Flight	   *f = palloc0(sizeof(Flight));

	f->cxt = cxt;
	f->call = *call;
	f->call.operation = pstrdup(call->operation);
	f->call.method = pstrdup(call->method);
	f->call.path = pstrdup(call->path);
	f->call.body = call->body ? pstrdup(call->body) : NULL;
	f->call.idempotency_key = call->idempotency_key ? pstrdup(call->idempotency_key) : NULL;
	f->call.stripe_account = call->stripe_account ? pstrdup(call->stripe_account) : NULL;
	f->pace = sl_pacing_id(key, call->stripe_account);
	f->started_at = GetCurrentTimestamp();
	MemoryContextSwitchTo(old);
	w->nflights++;
	w->nprobes += call->kind != SL_CALL_SEND;
	return f;
}

/* It has been settled, so it counts. */
static void
free_flight(Worker *w, Flight *f)
{
	if (!f->unsendable && f->call.kind == SL_CALL_SEND)
		sl_stats_attempt(f->result.outcome, f->result.attempt.http_status,
						 f->result.duration_ms,
						 f->call.kind == SL_CALL_SEND ? f->call.attempt : 1);
	if (f->exchange != NULL)
		sl_http_exchange_free(f->exchange);
	w->nflights--;
	w->nprobes -= f->call.kind != SL_CALL_SEND;
	MemoryContextDelete(f->cxt);
}

static void
add_ended(Worker *w, Flight *f)
{
	dlist_push_tail(&w->ended, &f->node);
	w->nended++;
}

/*
 * The verdict on an attempt.  What counts against the time for which Stripe
 * remembers the key is when a retry would start, not when this one ended.
 */
static void
judge(Flight *f)
{
	SlApiResult *r = &f->result;
	TimestampTz now = GetCurrentTimestamp();
	int64		since_first = (now - f->call.first_sent_at) / 1000;

	r->started_at = f->started_at;
	r->retry_delay_ms = sl_retry_delay_ms(f->call.attempt, sl_retry_base_delay,
										  sl_retry_max_delay,
										  pg_prng_uint32(&pg_global_prng_state),
										  r->attempt.retry_after_ms);
	r->outcome = sl_retry_classify(&r->attempt, since_first + r->retry_delay_ms);
}

/* An attempt that never got as far as libcurl. */
static void
fail_flight(Worker *w, Flight *f, const char *why)
{
	f->result.attempt.transport_failed = 1;
	f->result.attempt.should_retry = -1;
	f->result.attempt.retry_after_ms = -1;
	f->result.transport_error = why;
	judge(f);
	add_ended(w, f);
}

/* The exchange stays with the flight, since the result points into it. */
static void
read_answer(Flight *f, SlHttpExchange *exchange)
{
	const SlHttpResponse *response = sl_http_response(exchange);
	SlApiResult *r = &f->result;
	SlStripeAnswer answer;

	sl_stripe_answer(response, &answer);
	f->exchange = exchange;
	r->attempt = answer.attempt;
	r->transport_error = response->error;
	r->stripe_request_id = answer.request_id;
	r->replayed = answer.replayed;
	r->server_time = answer.server_time;
	r->duration_ms = response->duration_ms;
	if (answer.throttled)
		sl_pacing_throttled(f->pace);
	if (answer.attempt.body_complete)
	{
		r->body = response->body;
		r->body_len = response->body_len;
	}
	judge(f);
}

static void
collect_answers(Worker *w)
{
	SlHttpExchange *exchange;

	if (w->http == NULL)
		return;
	while ((exchange = sl_http_next_finished(w->http)) != NULL)
	{
		Flight	   *f = sl_http_tag(exchange);

		read_answer(f, exchange);
		add_ended(w, f);
		w->active_at = GetCurrentTimestamp();
	}
}

/* Sends a claimed request off. */
static void
send_request(Worker *w, Flight *f, const char *key)
{
	SlStripeCall call = {f->call.method, f->call.path, f->call.body,
	f->call.idempotency_key, f->call.stripe_account};
	SlHttpRequest request;
	const char *error;

	if (f->call.is_orphan ||
		!sl_stripe_request(&call, sl_api_base, sl_api_version, &request))
	{
		f->unsendable = true;
		add_ended(w, f);
		return;
	}
	request.bearer = key;
	request.connect_timeout_ms = sl_connect_timeout;
	request.timeout_ms = sl_request_timeout;

	if (w->http == NULL)
		w->http = sl_http_new(SL_MAX_WINDOW, &error);
	if (w->http == NULL || !sl_http_start(w->http, &request, f, &error))
		fail_flight(w, f, error);
}

/* ---------- claim ---------- */

/*
 * Work is waiting and there is no key.  One warning per reload of the
 * configuration; the queue is left alone.
 */
static void
miss_key(Worker *w, const char *why)
{
	w->next_due = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
											  SL_NO_KEY_PAUSE_MS);
	if (sl_slot_may_warn_of_key(w->slot))
		ereport(WARNING,
				(errcode(SL_ERRCODE_SECRET),
				 errmsg("stripe_lifecycle has no API key, so requests to Stripe wait"),
				 errdetail_internal("%s", why),
				 errhint("Put the key into the file named by \"stripe_lifecycle.api_key_file\" and reload the configuration.")));
}

/* Not more often than once a minute, unless it is this worker's last word. */
static void
complain_of_claim(Worker *w, int sqlerrcode, const char *consequence)
{
	TimestampTz now = GetCurrentTimestamp();

	if (!w->failed && !TimestampDifferenceExceeds(w->complained, now,
												  SL_NO_CLAIM_WARNING_MS))
		return;
	w->complained = now;
	ereport(WARNING,
			(errcode(sqlerrcode),
			 errmsg("stripe_lifecycle worker could not claim requests: SQLSTATE %s",
					unpack_sql_state(sqlerrcode)),
			 errdetail_internal("%s", consequence)));
}

/*
 * Looks at the queue: takes up to 'room' requests, in w->scratch, and learns
 * when to look again.
 */
static List *
look_at_queue(Worker *w, int room, const char *key)
{
	SlClaim		claim = {NIL, DT_NOEND, false, w->careful, 0};
	SlClaim		probes = claim;
	int			lease_ms = sl_request_timeout + SL_LEASE_MARGIN_MS;
	bool		known = false;
	bool		may_send;
	int			passed_over;

	begin_transaction("stripe_lifecycle: claiming requests");
	may_send = extension_locked(w) && sl_may_send(&known);
	if (may_send)
	{
		sl_probe_claim(key, sl_probe_room(room, w->nprobes), lease_ms,
					   w->scratch, &probes);
		sl_claim(key, room - list_length(probes.calls), lease_ms, w->scratch,
				 &claim);
		MemoryContextSwitchTo(w->scratch);	/* SPI has changed it */
		claim.calls = list_concat(claim.calls, probes.calls);
		claim.next_due = Min(claim.next_due, probes.next_due);
		claim.more |= probes.more;
	}
	if (claim.calls != NIL && !(w->noted && known))
		sl_note_serving();
	end_transaction(w);

	passed_over = claim.passed_over != 0 ? claim.passed_over : probes.passed_over;
	w->careful = passed_over != 0;
	if (w->careful)
		complain_of_claim(w, passed_over,
						  "Those that are refused are passed over; the others go on.");
	w->noted |= claim.calls != NIL;
	w->next_due = claim.next_due;
	w->look = claim.more;
	return claim.calls;
}

/*
 * If it is one row that is bad, the others are to go on: the next look, at
 * once, takes care.  If the error will pass (somebody has the table locked), so
 * much the better.  Else no more is claimed; what is under way will be settled,
 * and after that this process ends.
 */
static void
fail_claim(Worker *w, const ErrorData *error)
{
	if (!w->careful && sl_error_is_of_row(error->sqlerrcode))
	{
		w->careful = w->look = true;
		return;
	}
	w->look = false;
	w->failed = !sl_error_passes(error->sqlerrcode);
	w->next_due = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
											  SL_NO_CLAIM_PAUSE_MS);
	complain_of_claim(w, error->sqlerrcode, w->failed ? "This worker ends." :
					  "This is tried again.");
}

static List *
claim(Worker *w, int room, const char *key)
{
	List	   *volatile calls = NIL;

	PG_TRY();
	{
		calls = look_at_queue(w, room, key);
	}
	PG_CATCH();
	{
		fail_claim(w, abandon_transaction(w));
		calls = NIL;
	}
	PG_END_TRY();
	return calls;
}

/* Fills the window. */
static void
refill(Worker *w)
{
	int			room = sl_max_in_flight - w->nflights;
	TimestampTz now = GetCurrentTimestamp();
	const char *why;
	const char *key;
	List	   *calls;
	ListCell   *lc;

	if (w->failed || w->unserved)
		w->look = false;
	if (w->unserved || room <= 0 || (!w->look && (w->failed || w->next_due > now)))
		return;

	key = sl_api_key(&why);
	calls = claim(w, room, key);
	foreach(lc, calls)
	{
		send_request(w, new_flight(w, lfirst(lc), key), key);
		w->active_at = now;
	}

	w->keyless = key == NULL && w->next_due <= now;
	if (w->keyless)
		miss_key(w, why);
}

/* ---------- settle ---------- */

static void
put_aside(const Flight *f, const char *sqlstate, const char *message)
{
	if (f->call.kind != SL_CALL_SEND)
		sl_probe_set_aside(&f->call, sqlstate);
	else
		sl_outbox_set_aside(f->call.request_id, f->call.attempt, sqlstate, message);
}

static void
settle_flight(Flight *f)
{
	if (f->call.is_orphan)
		put_aside(f, "23503", "the request belongs to no payment");
	else if (f->unsendable)
		put_aside(f, "22023", "the request holds a character that cannot be sent");
	else if (f->call.kind != SL_CALL_SEND)
		sl_probe_settle(&f->call, &f->result);
	else
		sl_outbox_settle(&f->call, &f->result);
}

/* Stores some answers in one transaction.  NULL, or what went wrong. */
static ErrorData *
settle_together(Worker *w, Flight **flights, int n)
{
	ErrorData  *volatile error = NULL;

	PG_TRY();
	{
		int			i;

		begin_transaction("stripe_lifecycle: settling requests");
		if (extension_locked(w))
		{
			for (i = 0; i < n; i++)
				settle_flight(flights[i]);
		}
		end_transaction(w);
	}
	PG_CATCH();
	{
		error = abandon_transaction(w);
	}
	PG_END_TRY();
	return error;
}

/* The database refuses this answer: keep the error in its place. */
static ErrorData *
set_aside(Worker *w, Flight *f, const ErrorData *reason)
{
	ErrorData  *volatile error = NULL;

	PG_TRY();
	{
		begin_transaction("stripe_lifecycle: setting a request aside");
		if (extension_locked(w))
			put_aside(f, sqlstate_of(reason), "the database refused to store the answer");
		end_transaction(w);
	}
	PG_CATCH();
	{
		error = abandon_transaction(w);
	}
	PG_END_TRY();
	return error;
}

/* Try again later; in memory, so at the price of a place in the window. */
static void
postpone_settling(Worker *w, Flight *f)
{
	int			doublings = Min(f->settle_failures, 10);
	int			pause = Min(SL_SETTLE_PAUSE_MIN_MS << doublings,
							SL_SETTLE_PAUSE_MAX_MS);

	f->settle_failures++;
	f->settle_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), pause);
	add_ended(w, f);
}

static void
settle_alone(Worker *w, Flight *f)
{
	ErrorData  *error = settle_together(w, &f, 1);

	if (error != NULL)
	{
		bool		passes = sl_error_passes(error->sqlerrcode);

		sl_stats_error(sqlstate_of(error));
		ereport(passes && f->settle_failures > 0 ? DEBUG1 : WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("could not store Stripe's answer to request " INT64_FORMAT ": SQLSTATE %s",
						f->call.request_id, sqlstate_of(error)),
				 passes ? errdetail("It is kept and will be stored later.") :
				 errdetail("The request is set aside as \"unknown\".")));
		if (passes || set_aside(w, f, error) != NULL)
		{
			postpone_settling(w, f);
			return;
		}
	}
	free_flight(w, f);
}

/*
 * Stores all answers whose time has come: together those that are new, alone
 * those that could not be stored before.
 */
static void
settle(Worker *w)
{
	Flight	   *flights[SL_MAX_WINDOW];
	Flight	   *again[SL_MAX_WINDOW];
	TimestampTz now;
	dlist_mutable_iter iter;
	int			n = 0;
	int			nagain = 0;
	int			i;

	if (w->nended == 0)
		return;
	now = GetCurrentTimestamp();
	dlist_foreach_modify(iter, &w->ended)
	{
		Flight	   *f = dlist_container(Flight, node, iter.cur);

		if (f->settle_at > now)
			continue;
		dlist_delete(iter.cur);
		w->nended--;
		if (f->settle_failures > 0)
			again[nagain++] = f;
		else
			flights[n++] = f;
	}
	if (n + nagain == 0)
		return;

	if (n > 1 && settle_together(w, flights, n) == NULL)
	{
		for (i = 0; i < n; i++)
			free_flight(w, flights[i]);
	}
	else
	{
		for (i = 0; i < n; i++)
			settle_alone(w, flights[i]);
	}
	for (i = 0; i < nagain; i++)
		settle_alone(w, again[i]);
	/* retries, and calls that waited for a PaymentIntent */
	w->look = true;
	w->active_at = GetCurrentTimestamp();
}

/* ---------- seal ---------- */

/*
 * One checkpoint of the audit trail, if it is due.  Whatever goes wrong here
 * must not keep payments from being sent.
 */
static void
seal(Worker *w)
{
	volatile bool sealed = false;
	SlCheckpoint checkpoint;

	if (w->failed || w->unserved || w->next_seal > GetCurrentTimestamp())
		return;
	w->next_seal = DT_NOEND;
	if (!sl_seal_is_on())
		return;
	PG_TRY();
	{
		begin_transaction("stripe_lifecycle: sealing the audit trail");
		if (extension_locked(w))
			sealed = sl_seal(&w->sealing, &checkpoint, &w->next_seal);
		end_transaction(w);
	}
	PG_CATCH();
	{
		sealed = false;
		w->next_seal = sl_seal_failed(&w->sealing,
									  abandon_transaction(w)->sqlerrcode);
	}
	PG_END_TRY();
	if (sealed)
		sl_seal_announce(&checkpoint);
}

/* ---------- remove ---------- */

/* One step of removing what is too old, if it is due; no more than sealing may
 * it keep payments from being sent. */
static void
retain(Worker *w)
{
	if (w->failed || w->unserved || w->next_removal > GetCurrentTimestamp())
		return;
	w->next_removal = DT_NOEND;
	if (!sl_retention_is_on())
		return;
	PG_TRY();
	{
		begin_transaction("stripe_lifecycle: removing what is too old");
		if (extension_locked(w))
			w->next_removal = sl_retain();
		end_transaction(w);
	}
	PG_CATCH();
	{
		w->next_removal = sl_retain_failed(abandon_transaction(w)->sqlerrcode);
	}
	PG_END_TRY();
}

/* ---------- end ---------- */

/*
 * Is somebody waiting for this database to be empty?  DROP DATABASE and its
 * like hold a lock that ours conflicts with, while they wait for a few seconds
 * for everybody to be gone.
 */
static bool
in_the_way(void)
{
	LOCKTAG		tag;
	LockAcquireResult result;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, MyDatabaseId, 0);
	StartTransactionCommand();
	result = LockAcquire(&tag, RowExclusiveLock, false, true);
	CommitTransactionCommand();
	return result == LOCKACQUIRE_NOT_AVAIL;
}

/*
 * Stay for a while after the last bit of work: the next one is served without
 * a process having to start.  Stay also for transactions that have to end before
 * the audit trail can be sealed: somebody else would have to begin anew.
 */
static bool
lingers(Worker *w)
{
	if (w->absent || w->unserved || sl_slots_crowded())
		return false;
	if (sl_seal_waits(&w->sealing))
		return true;
	return !w->keyless && w->active_at != 0 &&
		!TimestampDifferenceExceeds(w->active_at, GetCurrentTimestamp(),
									sl_worker_linger);
}

/* When, and for what reason, the launcher is to think of this database again. */
static bool
leave_slot(Worker *w)
{
	if (w->replaced)
		return sl_slot_leave(w->slot, 0, SL_LEAVE_REPLACED, w->reloads);
	if (w->absent)
		return sl_slot_leave(w->slot, DT_NOEND, SL_LEAVE_ABSENT, w->reloads);
	if (w->unserved)
		return sl_slot_leave(w->slot, 0, SL_LEAVE_UNSERVED, w->reloads);
	return sl_slot_leave(w->slot, Min(w->next_due, Min(w->next_seal, w->next_removal)),
						 w->keyless ? SL_LEAVE_KEYLESS : SL_LEAVE_IDLE, w->reloads);
}

/*
 * Nothing is under way, or nothing whose answer could be stored: is it time to
 * go?  Does not return if so.
 */
static void
end_if_idle(Worker *w)
{
	if ((w->nflights > 0 && !w->absent) || w->look ||
		sl_slots_reloads() != w->reloads)
		return;
	if (w->failed)
		proc_exit(1);
	if (lingers(w) && !in_the_way())
		return;
	if (!leave_slot(w))
	{
		w->look = true;
		return;
	}
	sl_api_key_forget();
	if (w->http != NULL)
		sl_http_free(w->http);
	proc_exit(0);
}

/* ---------- the loop ---------- */

static void
handle_interrupts(Worker *w)
{
	/* between transactions there is nothing that a cancel could mean */
	QueryCancelPending = false;
	/* the postmaster logs this; a shutdown needs no further line */
	if (ProcDiePending)
		proc_exit(1);
	CHECK_FOR_INTERRUPTS();

	/* the launcher says when; see slots.c */
	ConfigReloadPending = false;
	if (sl_slots_reloads() != w->reloads)
	{
		w->reloads = sl_slots_reloads();
		ProcessConfigFile(PGC_SIGHUP);
		w->unserved = !sl_database_is_served(w->database);
		w->look = true;
		w->next_seal = w->next_removal = 0;
	}
	if (sl_slot_take_wake(w->slot))
	{
		w->look = true;
		w->active_at = GetCurrentTimestamp();
		/* the first payment ever, or resume_worker()? */
		if (w->next_seal == DT_NOEND || w->sealing.held_up)
			w->next_seal = 0;
		if (w->next_removal == DT_NOEND)
			w->next_removal = 0;
	}
}

/* When the loop has to go round again even if nothing happens. */
static TimestampTz
next_turn(Worker *w)
{
	TimestampTz when = w->failed || w->unserved ? DT_NOEND :
		Min(w->next_seal, w->next_removal);
	dlist_iter	iter;

	if (!w->failed && w->nflights < sl_max_in_flight)
		when = Min(when, w->next_due);
	dlist_foreach(iter, &w->ended)
	{
		Flight	   *f = dlist_container(Flight, node, iter.cur);

		when = Min(when, f->settle_at);
	}
	if (w->nflights == 0)
		when = Min(when, TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													 SL_IN_THE_WAY_MS));
	return when;
}

static void
wait_for_something(Worker *w)
{
	TimestampTz when = next_turn(w);
	long		ms = -1;

	if (when != DT_NOEND)
		ms = Min(TimestampDifferenceMilliseconds(GetCurrentTimestamp(), when),
				 3600 * 1000);
	if (w->http != NULL)
		sl_http_wait(w->http, ms,
					 w->nflights > w->nended ? w->http_event : w->idle_event);
	else
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH |
						 (ms >= 0 ? WL_TIMEOUT : 0), ms, w->idle_event);
}

void
sl_worker_main(Datum main_arg)
{
	Worker		w;

	start_up(&w, DatumGetObjectId(main_arg));
	if (!take_over(&w))
		proc_exit(0);

	for (;;)
	{
		ResetLatch(MyLatch);
		handle_interrupts(&w);
		MemoryContextReset(w.scratch);

		collect_answers(&w);
		settle(&w);
		refill(&w);
		seal(&w);
		retain(&w);
		end_if_idle(&w);
		if (!w.look || w.nflights >= sl_max_in_flight)
			wait_for_something(&w);
	}
}
