/*-------------------------------------------------------------------------
 *
 * webhook.c
 *	  SQL functions that take Stripe's webhooks: the signature check alone,
 *	  and the whole way in.
 *
 * The order of checks is size, signature over the raw bytes, age, and only
 * then a look at the body: nothing of an unverified body is ever parsed,
 * stored or shown.  The scheme is Stripe's (docs.stripe.com/webhooks):
 * HMAC-SHA256 over the time, a dot and the body, the whole secret being the
 * key.
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
#include "ingest.h"
#include "secrets.h"
#include "signature.h"
#include "stats.h"

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

static bool
verify_arguments(FunctionCallInfo fcinfo)
{
	SlSigHeader header;
	SlSigResult result = SL_SIG_NO_HEADER;
	SlSigResult why = SL_SIG_OK;
	SlSigKey   *key;
	bytea	   *payload = PG_ARGISNULL(0) ? NULL : PG_GETARG_BYTEA_PP(0);
	text	   *sent = PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1);
	text	   *secret = PG_ARGISNULL(2) ? NULL : PG_GETARG_TEXT_PP(2);
	bool		check_age = !PG_ARGISNULL(3);
	int64		tolerance = check_age ? tolerance_seconds(PG_GETARG_INTERVAL_P(3)) : 0;

	if (secret == NULL)
		refuse_blank_secret();
	if (check_age && PG_ARGISNULL(4))
		ereport(ERROR,
				(errcode(SL_ERRCODE_ARGUMENT),
				 errmsg("argument \"at\" must not be null when there is a tolerance")));

	/* The key is OpenSSL's memory: nothing until its free may raise. */
	key = sl_sig_key_new(VARDATA_ANY(secret), VARSIZE_ANY_EXHDR(secret), &why);
	if (key != NULL && payload != NULL && sent != NULL)
	{
		result = sl_sig_parse(VARDATA_ANY(sent), VARSIZE_ANY_EXHDR(sent), &header);
		if (result == SL_SIG_OK)
			result = sl_sig_match(&header, key, VARDATA_ANY(payload),
								  VARSIZE_ANY_EXHDR(payload));
		if (result == SL_SIG_OK && check_age)
			result = sl_sig_age(&header, unix_seconds(PG_GETARG_TIMESTAMPTZ(4)),
								tolerance);
	}
	sl_sig_key_free(key);

	if (key == NULL && why == SL_SIG_BLANK_SECRET)
		refuse_blank_secret();
	if (key == NULL || result == SL_SIG_CRYPTO)
		crypto_failure();
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

/* Refuse a delivery; says which check failed and nothing of what was sent. */
static void
refuse_delivery(SlSigResult result)
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

/*
 * Check a delivery against every active secret; returns the one that
 * matched.  All are tried, in the same way, whatever matches.
 */
static const SlWebhookSecret *
verify_delivery(const text *sent, const bytea *payload)
{
	SlWebhookSecret *secrets;
	const SlWebhookSecret *matched = NULL;
	SlSigHeader header;
	SlSigResult result;
	int			n = sl_webhook_secrets(&secrets);
	int			i;

	result = sent == NULL ? SL_SIG_NO_HEADER :
		sl_sig_parse(VARDATA_ANY(sent), VARSIZE_ANY_EXHDR(sent), &header);
	if (result != SL_SIG_OK)
		refuse_delivery(result);

	result = SL_SIG_NO_MATCH;
	for (i = 0; i < n; i++)
	{
		SlSigResult one = sl_sig_match(&header, secrets[i].key,
									   VARDATA_ANY(payload),
									   VARSIZE_ANY_EXHDR(payload));

		if (one == SL_SIG_CRYPTO)
			crypto_failure();
		if (one == SL_SIG_OK && matched == NULL)
			matched = &secrets[i];
	}
	if (matched == NULL)
		refuse_delivery(SL_SIG_NO_MATCH);

	result = sl_sig_age(&header, unix_seconds(GetCurrentTimestamp()),
						sl_webhook_tolerance);
	if (result != SL_SIG_OK)
		refuse_delivery(result);
	return matched;
}

static const char *
ingest_delivery(const bytea *payload, const text *sent)
{
	const SlWebhookSecret *secret;
	const char *outcome;
	SlEvent		event;
	Jsonb	   *body;
	bool		ok;

	if (payload == NULL)
		ereport(ERROR,
				(errcode(SL_ERRCODE_BAD_BODY),
				 errmsg("webhook body must not be null")));
	if (VARSIZE_ANY_EXHDR(payload) > (Size) sl_webhook_max_size)
		ereport(ERROR,
				(errcode(SL_ERRCODE_PAYLOAD_TOO_LARGE),
				 errmsg("webhook body of %zu bytes is too large",
						(size_t) VARSIZE_ANY_EXHDR(payload)),
				 errdetail("The limit is %d bytes.", sl_webhook_max_size),
				 errhint("Raise stripe_lifecycle.webhook_max_size if Stripe's events really are that large.")));

	secret = verify_delivery(sent, payload);

	SPI_connect();
	body = sl_json_parse(VARDATA_ANY(payload), VARSIZE_ANY_EXHDR(payload), &ok);
	if (!ok)
		ereport(ERROR,
				(errcode(SL_ERRCODE_BAD_BODY),
				 errmsg("webhook body is not a JSON object"),
				 errdetail("Its signature is good.  Nothing was stored.")));
	sl_event_read(body, &event);
	outcome = sl_ingest_event(&event, "webhook", secret->label);
	SPI_finish();
	return outcome;
}

/* Count a refusal by its SQLSTATE; anything else is no word on the webhook. */
static void
count_refusal(int sqlstate)
{
	static const struct
	{
		int			sqlstate;
		const char *kind;
	}			kinds[] = {
		{SL_ERRCODE_SECRET, "no_secret"},
		{SL_ERRCODE_BAD_SIGNATURE, "bad_signature"},
		{SL_ERRCODE_STALE_SIGNATURE, "stale"},
		{SL_ERRCODE_BAD_HEADER, "malformed"},
		{SL_ERRCODE_PAYLOAD_TOO_LARGE, "too_large"},
		{SL_ERRCODE_BAD_BODY, "bad_body"},
		{SL_ERRCODE_BAD_EVENT, "bad_event"}
	};
	int			i;

	for (i = 0; i < (int) lengthof(kinds); i++)
		if (kinds[i].sqlstate == sqlstate)
			sl_stats_webhook_refused(kinds[i].kind);
}

/*
 * SQL: ingest_webhook(payload text|bytea, signature_header text) returns
 * text.  Errors: SL020 to SL027; all of them write nothing.
 */
Datum
sl_ingest_webhook(PG_FUNCTION_ARGS)
{
	const char *volatile outcome = NULL;

	SL_PRIVATE_ARGUMENTS_BEGIN();
	sl_require_version();
	PG_TRY();
	{
		outcome = ingest_delivery(PG_ARGISNULL(0) ? NULL : PG_GETARG_BYTEA_PP(0),
								  PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1));
	}
	PG_CATCH();
	{
		count_refusal(geterrcode());
		PG_RE_THROW();
	}
	PG_END_TRY();
	SL_PRIVATE_ARGUMENTS_END();
	sl_stats_webhook(outcome);

	PG_RETURN_TEXT_P(cstring_to_text(outcome));
}
