/*-------------------------------------------------------------------------
 *
 * webhook.c
 *	  Takes in Stripe's webhooks: the signature check alone, and the whole way.
 *
 * The order of checks is size, signature over the raw bytes, age, and only
 * then a look at the body: nothing of an unverified body is ever parsed,
 * stored or shown.  The scheme is Stripe's (docs.stripe.com/webhooks):
 * HMAC-SHA256 over the time, a dot and the body, the whole secret being the
 * key.
 *
 * What is wrong with a delivery is a result and not an error, since HTTP
 * answers some of these and commits (http_surface.c).  For SQL they are
 * errors; that is the last part of this file.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/int.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "errors.h"
#include "event_reader.h"
#include "guc.h"
#include "http_request.h"
#include "ingest.h"
#include "secrets.h"
#include "signature.h"
#include "state_machine.h"
#include "stats.h"
#include "webhook.h"

PG_FUNCTION_INFO_V1(sl_verify_webhook_signature);
PG_FUNCTION_INFO_V1(sl_ingest_webhook);

/* Unix seconds, rounded down as Stripe's own libraries do. */
static int64
unix_seconds(TimestampTz t)
{
	int64		epoch_diff = (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) *
		SECS_PER_DAY * USECS_PER_SEC;
	int64		usec;

	/* infinities, and what lies beside them, are just far away */
	if (pg_add_s64_overflow(t, epoch_diff, &usec))
		return t < 0 ? PG_INT64_MIN / USECS_PER_SEC : PG_INT64_MAX / USECS_PER_SEC;
	return usec >= 0 ? usec / USECS_PER_SEC : (usec - USECS_PER_SEC + 1) / USECS_PER_SEC;
}

/* Whole seconds of an interval; months and days have no fixed length here. */
static int64
tolerance_seconds(const Interval *tolerance)
{
	if (tolerance->month != 0 || tolerance->day != 0 ||
		tolerance->time < USECS_PER_SEC)
		ereport(ERROR,
				(errcode(SL_ERRCODE_ARGUMENT),
				 errmsg("tolerance must be at least one second, in hours, minutes and seconds"),
				 errhint("Pass NULL to skip the age check.")));
	return tolerance->time / USECS_PER_SEC;
}

static void
refuse_blank_secret(void)
{
	ereport(ERROR,
			(errcode(SL_ERRCODE_SECRET),
			 errmsg("webhook secret must not be null, empty or blank"),
			 errdetail("Anybody can compute a signature under an empty secret."),
			 errhint("Pass the endpoint's whole signing secret, whsec_ included.")));
}

static void
crypto_failure(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_INTERNAL_ERROR),
			 errmsg("could not compute HMAC-SHA256"),
			 errhint("See whether OpenSSL's configuration forbids it.")));
}

/*
 * The key of the latest call of one place in a query: a statement that checks
 * many deliveries mostly has one secret, and making a key takes as long as
 * using it.  It goes away with the query.
 */
typedef struct LastKey
{
	SlSigKey   *key;
	MemoryContextCallback at_end;
	size_t		room;			/* for a secret */
	size_t		len;
	char		secret[FLEXIBLE_ARRAY_MEMBER];
} LastKey;

static void
forget_key(void *arg)
{
	LastKey    *last = arg;

	sl_sig_key_free(last->key);
	last->key = NULL;
	explicit_bzero(last->secret, last->len);
}

static SlSigKey *
key_of_secret(FmgrInfo *flinfo, const text *secret)
{
	LastKey    *last = flinfo->fn_extra;
	size_t		len = VARSIZE_ANY_EXHDR(secret);
	SlSigResult why;

	if (last != NULL && last->key != NULL && last->len == len &&
		memcmp(last->secret, VARDATA_ANY(secret), len) == 0)
		return last->key;

	if (last == NULL || last->room < len)
	{
		if (last != NULL)
			forget_key(last);
		last = MemoryContextAllocZero(flinfo->fn_mcxt,
									  offsetof(LastKey, secret) + len);
		last->room = len;
		last->at_end.func = forget_key;
		last->at_end.arg = last;
		MemoryContextRegisterResetCallback(flinfo->fn_mcxt, &last->at_end);
		flinfo->fn_extra = last;
	}
	else
		forget_key(last);
	last->len = len;
	memcpy(last->secret, VARDATA_ANY(secret), len);
	last->key = sl_sig_key_new(last->secret, len, &why);
	if (last->key == NULL && why == SL_SIG_BLANK_SECRET)
		refuse_blank_secret();
	if (last->key == NULL)
		crypto_failure();
	return last->key;
}

static bool
verify_arguments(FunctionCallInfo fcinfo)
{
	SlSigHeader header;
	SlSigResult result;
	SlSigKey   *key;
	bytea	   *payload;
	text	   *sent;
	bool		check_age = !PG_ARGISNULL(3);
	int64		tolerance = check_age ? tolerance_seconds(PG_GETARG_INTERVAL_P(3)) : 0;

	if (PG_ARGISNULL(2))
		refuse_blank_secret();
	if (check_age && PG_ARGISNULL(4))
		ereport(ERROR,
				(errcode(SL_ERRCODE_ARGUMENT),
				 errmsg("argument \"at\" must not be null when there is a tolerance")));
	key = key_of_secret(fcinfo->flinfo, PG_GETARG_TEXT_PP(2));
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		return false;

	payload = PG_GETARG_BYTEA_PP(0);
	sent = PG_GETARG_TEXT_PP(1);
	result = sl_sig_parse(VARDATA_ANY(sent), VARSIZE_ANY_EXHDR(sent), &header);
	if (result == SL_SIG_OK)
		result = sl_sig_match(&header, key, VARDATA_ANY(payload),
							  VARSIZE_ANY_EXHDR(payload));
	if (result == SL_SIG_CRYPTO)
		crypto_failure();
	if (result == SL_SIG_OK && check_age)
		result = sl_sig_age(&header, unix_seconds(PG_GETARG_TIMESTAMPTZ(4)),
							tolerance);
	return result == SL_SIG_OK;
}

/*
 * SQL: verify_webhook_signature(payload text|bytea, signature_header text,
 * secret text, tolerance interval, at timestamptz) returns boolean.  Never
 * NULL, since NOT NULL would not be true either: a missing payload or header
 * is false.  Errors: SL020 blank secret, SL015 tolerance or at.
 */
Datum
sl_verify_webhook_signature(PG_FUNCTION_ARGS)
{
	bool		valid;

	SL_PRIVATE_ARGUMENTS_BEGIN();
	valid = verify_arguments(fcinfo);
	SL_PRIVATE_ARGUMENTS_END();

	PG_RETURN_BOOL(valid);
}

/* ---------- deliveries ---------- */

/*
 * Check a delivery against every active secret; returns the one that
 * matched.  All are tried, in the same way, whatever matches.
 */
static const SlWebhookSecret *
verify_delivery(SlDelivery *d)
{
	SlWebhookSecret *secrets;
	const SlWebhookSecret *matched = NULL;
	SlSigHeader header;
	int			n = sl_webhook_secrets(&secrets);
	int			i;

	d->signature = d->header == NULL ? SL_SIG_NO_HEADER :
		sl_sig_parse(d->header, d->header_len, &header);
	if (d->signature != SL_SIG_OK)
		return NULL;
	d->has_time = true;
	d->time = header.t;

	for (i = 0; i < n; i++)
	{
		SlSigResult one = sl_sig_match(&header, secrets[i].key, d->body,
									   d->body_len);

		if (one == SL_SIG_CRYPTO)
			crypto_failure();
		if (one == SL_SIG_OK && matched == NULL)
			matched = &secrets[i];
	}
	d->signature = matched == NULL ? SL_SIG_NO_MATCH :
		sl_sig_age(&header, unix_seconds(GetCurrentTimestamp()),
				   sl_webhook_tolerance);
	return d->signature == SL_SIG_OK ? matched : NULL;
}

static SlRefusal
refusal_of_signature(SlSigResult result)
{
	switch (result)
	{
		case SL_SIG_NO_MATCH:
			return SL_REFUSED_BAD_SIGNATURE;
		case SL_SIG_STALE:
			return SL_REFUSED_STALE;
		default:
			return SL_REFUSED_MALFORMED;
	}
}

/* "test" or "live" if this server takes only the one; NULL if it takes both. */
const char *
sl_expected_mode(void)
{
	switch (sl_webhook_mode)
	{
		case SL_MODE_TEST:
			return "test";
		case SL_MODE_LIVE:
			return "live";
		case SL_MODE_AUTO:
			switch (sl_api_key_mode())
			{
				case SL_KEY_TEST:
					return "test";
				case SL_KEY_LIVE:
					return "live";
				case SL_KEY_MODE_UNKNOWN:
					break;
			}
			break;
		case SL_MODE_ANY:
			break;
	}
	return NULL;
}

/* Read a verified body; what is in the way of applying it, if anything. */
static SlRefusal
read_delivery(SlDelivery *d, SlEvent *event)
{
	const char *mode = d->check_mode ? sl_expected_mode() : NULL;

	switch (sl_event_read_text(d->body, d->body_len, event, &d->flaw))
	{
		case SL_EVENT_NO_JSON:
			return SL_REFUSED_BAD_BODY;
		case SL_EVENT_FLAWED:
			return SL_REFUSED_BAD_EVENT;
		case SL_EVENT_READ:
			break;
	}
	if (mode != NULL && event->livemode != (strcmp(mode, "live") == 0))
		return SL_REFUSED_WRONG_MODE;
	if (!event->is_payment_intent &&
		sl_evidence_of_type(event->type) != SL_EVIDENCE_NONE)
	{
		d->flaw.field = "data.object";
		d->flaw.what = "is not a PaymentIntent";
		return SL_REFUSED_BAD_EVENT;
	}
	return SL_NOT_REFUSED;
}

void
sl_deliver(SlDelivery *d)
{
	const SlWebhookSecret *secret;
	SlEvent		event;

	d->verified = false;
	d->has_time = false;
	d->outcome = NULL;
	if (d->body == NULL)
	{
		d->refusal = SL_REFUSED_BAD_BODY;
		return;
	}
	if (d->body_len > (size_t) sl_webhook_max_size)
	{
		d->refusal = SL_REFUSED_TOO_LARGE;
		return;
	}
	secret = verify_delivery(d);
	if (secret == NULL)
	{
		d->refusal = refusal_of_signature(d->signature);
		return;
	}
	d->verified = true;

	SPI_connect();
	d->refusal = read_delivery(d, &event);
	if (d->refusal == SL_NOT_REFUSED)
		d->outcome = sl_ingest_event(&event, "webhook", secret->label);
	SPI_finish();
}

void
sl_delivery_note_refusal(const SlDelivery *d, SlRefusal refusal)
{
	SlRejection r = {.why = refusal,.size = -1};

	if (d->body != NULL)
		r.size = (int64) d->body_len;
	r.has_skew = d->has_time;
	if (d->has_time)
		r.skew = d->time - unix_seconds(GetCurrentTimestamp());
	sl_request_sender(&r.sender);
	sl_stats_webhook_refused(refusal);
	sl_rejection_note(&r);
}

SlRefusal
sl_refusal_of_error(int sqlerrcode)
{
	if (sqlerrcode == SL_ERRCODE_SECRET)
		return SL_REFUSED_NO_SECRET;
	if (sl_error_passes(sqlerrcode) || sqlerrcode == SL_ERRCODE_ISOLATION ||
		sqlerrcode == ERRCODE_READ_ONLY_SQL_TRANSACTION)
		return SL_REFUSED_UNAVAILABLE;
	return SL_REFUSED_FAILED;
}

/* ---------- as SQL calls it ---------- */

static void
refuse_signature(SlSigResult result)
{
	switch (result)
	{
		case SL_SIG_NO_HEADER:
		case SL_SIG_MALFORMED:
		case SL_SIG_NO_SCHEME:
			ereport(ERROR,
					(errcode(SL_ERRCODE_BAD_HEADER),
					 errmsg("webhook refused: %s", sl_sig_result_text(result)),
					 errhint("Pass the value of the Stripe-Signature header unchanged.")));
			break;
		case SL_SIG_STALE:
			ereport(ERROR,
					(errcode(SL_ERRCODE_STALE_SIGNATURE),
					 errmsg("webhook refused: %s", sl_sig_result_text(result)),
					 errdetail("Times may differ by %d seconds.", sl_webhook_tolerance),
					 errhint("Check the server's clock.  A retry by Stripe carries a fresh time.")));
			break;
		case SL_SIG_NO_MATCH:
			ereport(ERROR,
					(errcode(SL_ERRCODE_BAD_SIGNATURE),
					 errmsg("webhook refused: %s", sl_sig_result_text(result)),
					 errhint("Pass the body as it was received, byte for byte, and check that stripe_lifecycle.webhook_secret_file holds the endpoint's secret.")));
			break;
		default:
			crypto_failure();
	}
}

/* Refuse a delivery; says which check failed and nothing of what was sent. */
static void
refuse_delivery(const SlDelivery *d)
{
	switch (d->refusal)
	{
		case SL_REFUSED_BAD_BODY:
			if (d->body == NULL)
				ereport(ERROR,
						(errcode(SL_ERRCODE_BAD_BODY),
						 errmsg("webhook body must not be null")));
			ereport(ERROR,
					(errcode(SL_ERRCODE_BAD_BODY),
					 errmsg("webhook body is not a JSON object"),
					 errdetail("Its signature is good.  Nothing was stored.")));
			break;
		case SL_REFUSED_TOO_LARGE:
			ereport(ERROR,
					(errcode(SL_ERRCODE_PAYLOAD_TOO_LARGE),
					 errmsg("webhook body of %zu bytes is too large", d->body_len),
					 errdetail("The limit is %d bytes.", sl_webhook_max_size),
					 errhint("Raise stripe_lifecycle.webhook_max_size if Stripe's events really are that large.")));
			break;
		case SL_REFUSED_BAD_EVENT:
			sl_event_refuse(&d->flaw);
			break;
		default:
			refuse_signature(d->signature);
			break;
	}
}

/*
 * SQL: ingest_webhook(payload text|bytea, signature_header text) returns
 * text.  Errors: SL020 to SL027; all of them write nothing.
 */
Datum
sl_ingest_webhook(PG_FUNCTION_ARGS)
{
	bytea	   *payload = PG_ARGISNULL(0) ? NULL : PG_GETARG_BYTEA_PP(0);
	text	   *sent = PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1);
	MemoryContext cxt = CurrentMemoryContext;
	SlDelivery	d = {0};

	if (payload != NULL)
	{
		d.body = VARDATA_ANY(payload);
		d.body_len = VARSIZE_ANY_EXHDR(payload);
	}
	if (sent != NULL)
	{
		d.header = VARDATA_ANY(sent);
		d.header_len = VARSIZE_ANY_EXHDR(sent);
	}

	SL_PRIVATE_ARGUMENTS_BEGIN();
	sl_require_version();
	PG_TRY();
	{
		sl_deliver(&d);
	}
	PG_CATCH();
	{
		ErrorData  *e;

		MemoryContextSwitchTo(cxt);
		e = CopyErrorData();
		FlushErrorState();
		sl_delivery_note_refusal(&d, sl_refusal_of_error(e->sqlerrcode));
		ReThrowError(e);
	}
	PG_END_TRY();
	if (d.refusal != SL_NOT_REFUSED)
	{
		sl_delivery_note_refusal(&d, d.refusal);
		refuse_delivery(&d);
	}
	SL_PRIVATE_ARGUMENTS_END();
	sl_stats_webhook(d.outcome);

	PG_RETURN_TEXT_P(cstring_to_text(d.outcome));
}
