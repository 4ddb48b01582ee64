/*-------------------------------------------------------------------------
 *
 * http_surface.c
 *	  What PostgREST puts on the internet as it is: webhook(json), which Stripe
 *	  calls, and pre_request(), which comes before every call.
 *
 * An answer of PostgREST's is made in one of three ways.  A function that
 * returns commits, and may choose status and headers; one that raises PTnnn
 * answers nnn and rolls back; SQLSTATE PGRST is the same with headers.  So:
 *
 * - What Stripe should not send again as it is (a bad signature, no event) is
 *	 answered and committed.
 * - What it should deliver again is raised as PT503, or as PT500 if it is an
 *	 error that nobody foresaw, whatever SQLSTATE that had: some of those
 *	 would be answered with 200, and the event be lost.
 *
 * The message of a PTnnn error becomes the reason phrase of HTTP unescaped.
 * Those here are constants, and nothing of a request is in any answer.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "catalog.h"
#include "compat.h"
#include "errors.h"
#include "guc.h"
#include "http_errors.h"
#include "http_request.h"
#include "limiter.h"
#include "stats.h"
#include "webhook.h"
#include "work_limits.h"

PG_FUNCTION_INFO_V1(sl_webhook);
PG_FUNCTION_INFO_V1(sl_pre_request);

#define ERRCODE_PT500 MAKE_SQLSTATE('P', 'T', '5', '0', '0')
#define ERRCODE_PT503 MAKE_SQLSTATE('P', 'T', '5', '0', '3')

/* docs/postgrest.md says what each is for. */
static const SlHttpHeader security_headers[] = {
	{"Cache-Control", "no-store"},
	{"Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"},
	{"Cross-Origin-Resource-Policy", "same-origin"},
	{"Referrer-Policy", "no-referrer"},
	{"Strict-Transport-Security", "max-age=63072000"},
	{"X-Content-Type-Options", "nosniff"},
	{"X-Frame-Options", "DENY"}
};

/* How a refused delivery is answered. */
static const struct
{
	int			status;
	const char *code;
	const char *message;
}			answers[] = {
	[SL_REFUSED_BAD_SIGNATURE] = {400, "SL021", "no signature matches"},
	[SL_REFUSED_STALE] = {400, "SL022", "the signed time is too far from now"},
	[SL_REFUSED_MALFORMED] = {400, "SL023", "the Stripe-Signature header is missing or malformed"},
	[SL_REFUSED_TOO_LARGE] = {413, "SL024", "the body is too large"},
	[SL_REFUSED_BAD_BODY] = {400, "SL025", "the body is not a JSON object"},
	[SL_REFUSED_BAD_EVENT] = {400, "SL026", "the body is not a Stripe snapshot event"},
	[SL_REFUSED_WRONG_MODE] = {400, "SL061", "the event is of the other mode, live or test, than this endpoint"}
};

/* ---------- webhook ---------- */

static Datum
error_answer(int status, const char *code, const char *message)
{
	sl_response_set_status(status);
	return CStringGetTextDatum(psprintf("{\"error\": {\"code\": \"%s\", \"message\": \"%s\"}}",
										code, message));
}

static Datum
limited_answer(int64 wait_ms)
{
	SlHttpHeader header = {"Retry-After", NULL};

	header.value = psprintf(INT64_FORMAT, (wait_ms + 999) / 1000);
	sl_response_add_headers(&header, 1);
	return error_answer(429, "SL060", "too many webhooks without a good signature");
}

/*
 * The answer to a refused delivery.  Only unverified ones are counted against
 * their sender, and a verified one is never turned away for their sake: the
 * signature is checked first, which is cheap.  Those over the limit are not
 * kept for operators, or a flood would wash away all others.
 */
static Datum
refused_answer(const SlDelivery *d)
{
	if (!d->verified)
	{
		SlAddress	sender;
		int64		wait_ms;

		sl_request_sender(&sender);
		wait_ms = sl_limiter_take(SL_LIMIT_WEBHOOK, &sender, sizeof(sender));
		if (wait_ms > 0)
		{
			sl_stats_webhook_refused(d->refusal);
			return limited_answer(wait_ms);
		}
	}
	sl_delivery_note_refusal(d, d->refusal);
	return error_answer(answers[d->refusal].status, answers[d->refusal].code,
						answers[d->refusal].message);
}

/* A trigger of somebody's may have chosen a status or none of our business. */
static Datum
accepted_answer(const char *outcome)
{
	sl_stats_webhook(outcome);
	sl_response_set_status(200);
	return CStringGetTextDatum(psprintf("{\"received\": true, \"outcome\": \"%s\"}",
										outcome));
}

/* What the error says is for the server's log only. */
static void
raise_undelivered(const ErrorData *e, SlRefusal why)
{
	const char *for_log = e->detail_log != NULL ? e->detail_log : e->detail;
	const char *detail = "Something went wrong here; the server's log says what.";

	if (why == SL_REFUSED_NO_SECRET)
		detail = "There is no webhook signing secret to verify it with.";
	else if (why == SL_REFUSED_UNAVAILABLE)
		detail = "The database is busy, or cannot be written to at present.";

	ereport(ERROR,
			(errcode(why == SL_REFUSED_FAILED ? ERRCODE_PT500 : ERRCODE_PT503),
			 errmsg_internal("%s", why == SL_REFUSED_FAILED ?
							 "webhook not processed" : "webhook not taken in now"),
			 errdetail_internal("%s", detail),
			 errdetail_log("SQLSTATE %s: %s%s%s",
						   unpack_sql_state(e->sqlerrcode),
						   e->message == NULL ? "" : e->message,
						   for_log == NULL ? "" : "  ",
						   for_log == NULL ? "" : for_log),
			 errhint("Deliver it again later."),
			 errhidestmt(true),
			 errhidecontext(true)));
}

static void
read_delivery_arguments(FunctionCallInfo fcinfo, SlDelivery *d)
{
	memset(d, 0, sizeof(*d));
	d->check_mode = true;
	if (!PG_ARGISNULL(0))
	{
		text	   *body = PG_GETARG_TEXT_PP(0);

		d->body = VARDATA_ANY(body);
		d->body_len = VARSIZE_ANY_EXHDR(body);
	}
	d->header = sl_request_header("stripe-signature");
	d->header_len = d->header == NULL ? 0 : strlen(d->header);
}

/*
 * SQL: webhook(json) returns json.  The parameter is the raw body, the
 * signature is taken from the request's headers.  Errors: PT503, PT500.
 */
Datum
sl_webhook(PG_FUNCTION_ARGS)
{
	MemoryContext cxt = CurrentMemoryContext;
	volatile Datum answer = (Datum) 0;
	SlWorkLimits limits;
	SlDelivery	d;

	read_delivery_arguments(fcinfo, &d);
	sl_limits_begin(&limits, sl_webhook_lock_timeout, sl_webhook_statement_timeout);
	SL_PRIVATE_ARGUMENTS_BEGIN();
	PG_TRY();
	{
		sl_require_version();
		sl_deliver(&d);
		answer = d.refusal == SL_NOT_REFUSED ? accepted_answer(d.outcome) :
			refused_answer(&d);
		sl_limits_end(&limits);
	}
	PG_CATCH();
	{
		SlRefusal	why;
		ErrorData  *e;

		MemoryContextSwitchTo(cxt);
		e = CopyErrorData();
		FlushErrorState();
		sl_limits_abandon(&limits);
		why = sl_refusal_of_error(e->sqlerrcode);
		sl_delivery_note_refusal(&d, why);
		raise_undelivered(e, why);
	}
	PG_END_TRY();
	SL_PRIVATE_ARGUMENTS_END();

	PG_RETURN_DATUM(answer);
}

/* ---------- pre_request ---------- */

static void
count_request(void)
{
	SlAddress	sender;
	Oid			role = GetOuterUserId();
	int64		wait_ms;

	sl_request_sender(&sender);
	wait_ms = sl_limiter_take(SL_LIMIT_ADDRESS, &sender, sizeof(sender));
	if (wait_ms == 0)
		wait_ms = sl_limiter_take(SL_LIMIT_ROLE, &role, sizeof(role));
	if (wait_ms > 0)
		sl_http_too_many_requests((wait_ms + 999) / 1000);
}

/* Once per session is enough, however many requests it serves. */
static void
warn_without_limits(void)
{
	static bool warned = false;

	if (warned)
		return;
	warned = true;
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("rate limits of stripe_lifecycle are not in force"),
			 errdetail("They are counted in shared memory, and the library is not preloaded."),
			 errhint("Add stripe_lifecycle to shared_preload_libraries and restart the server.")));
}

/*
 * SQL: pre_request() returns void.  Headers for the answer, and a limit to
 * requests.  Errors: PGRST with status 429 and Retry-After.
 */
Datum
sl_pre_request(PG_FUNCTION_ARGS)
{
	sl_response_add_headers(security_headers, lengthof(security_headers));
	if (sl_limiter_lacks_memory())
		warn_without_limits();
	else if (!(sl_request_method_is("POST") && sl_request_path_is(sl_webhook_path)))
		count_request();
	PG_RETURN_VOID();
}
