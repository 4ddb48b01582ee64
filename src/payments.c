/*-------------------------------------------------------------------------
 *
 * payments.c
 *	  SQL functions by which applications create, confirm and cancel payments.
 *
 * None of them moves a payment: they record wishes, and the worker carries
 * them to Stripe.  What they accept, Stripe should accept, since a refusal
 * is best heard by the caller who can still mend it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "audit.h"
#include "catalog.h"
#include "compat.h"
#include "errors.h"
#include "guc.h"
#include "http_errors.h"
#include "identity.h"
#include "ingest.h"
#include "outbox.h"
#include "owner.h"
#include "payment_args.h"
#include "payment_id.h"
#include "payment_status.h"
#include "privacy.h"
#include "store.h"
#include "wake.h"

#define CREATE_PATH "/v1/payment_intents"
#define CONFIRM_PATH "/v1/payment_intents/" SL_INTENT_PLACEHOLDER "/confirm"

PG_FUNCTION_INFO_V1(sl_create_payment);
PG_FUNCTION_INFO_V1(sl_confirm_payment);
PG_FUNCTION_INFO_V1(sl_cancel_payment);

static SlQuery payment_by_key = {
	.sql = "SELECT %s FROM stripe_lifecycle.payments WHERE idempotency_key = $1"
	" AND owner IS NULL",
	.columns_of = SL_PAYMENTS,
	.args = {SL_TYPE_TEXT},
};
static SlQuery payment_by_key_and_owner = {
	.sql = "SELECT %s FROM stripe_lifecycle.payments WHERE idempotency_key = $1"
	" AND owner = $2",
	.columns_of = SL_PAYMENTS,
	.args = {SL_TYPE_TEXT, SL_TYPE_TEXT},
};
static SlQuery creation_refused = {
	.sql = "SELECT 1 FROM stripe_lifecycle.api_requests WHERE payment_id = $1"
	" AND operation = 'create'"
	" HAVING count(*) > 0 AND bool_and(status = 'rejected')",
	.args = {SL_TYPE_UUID},
};

/*
 * Say so where the work is queued if nobody will send it, for it would wait
 * without a sign.
 */
static void
warn_without_worker(void)
{
	char	   *name;

	if (!sl_worker_available())
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("no worker of stripe_lifecycle is running, so nothing is sent to Stripe"),
				 errdetail("What is queued waits."),
				 errhint("Add stripe_lifecycle to shared_preload_libraries and restart the server.")));

	name = sl_databases[0] != '\0' ? get_database_name(MyDatabaseId) : NULL;
	if (name != NULL && !sl_database_is_served(name))
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("\"stripe_lifecycle.databases\" does not name database \"%s\", so nothing is sent to Stripe",
						name),
				 errdetail("What is queued waits.")));
	sl_warn_if_paused();
}

/*
 * Where payments have owners, one that a customer creates has to have one:
 * were it let pass without, a misspelt claim would make all of them nobody's.
 */
static void
read_creator(SlCaller *caller)
{
	sl_caller_read(caller);
	if (caller->separated && caller->owner == NULL)
		ereport(ERROR,
				(errcode(SL_ERRCODE_NO_OWNER),
				 errmsg("the request does not say whose payment this is"),
				 errdetail("Its token lacks the claim that \"stripe_lifecycle.owner_claim\" names, or it is no string or number of 1 to 255 characters."),
				 errhint("Log in, and repeat the request with the token.")));
}

/*
 * Insert a new payment of these arguments with its outbox row; false if the
 * idempotency key is taken.
 */
static bool
insert_payment(const SlPaymentArgs *args, const char *owner, pg_uuid_t *id)
{
	static const SlCause cause = {"create_payment", NULL, NULL, 0, NULL};
	TimestampTz now = GetCurrentTimestamp();
	SlRow		row;
	SlRow		transition;

	memset(row.nulls, true, sizeof(row.nulls));
	memset(row.values, 0, sizeof(row.values));
	SET(&row, PAY_ID, UUIDPGetDatum(id));
	SET(&row, PAY_STATE, sl_state_datum(SL_STATE_CREATED));
	sl_args_to_row(args, &row);
	SET(&row, PAY_AMOUNT_CAPTURABLE, Int64GetDatum(0));
	SET(&row, PAY_AMOUNT_RECEIVED, Int64GetDatum(0));
	SET(&row, PAY_DECLINE_COUNT, Int32GetDatum(0));
	SET(&row, PAY_TRANSITIONS, Int32GetDatum(1));
	SET(&row, PAY_CREATED_AT, TimestampTzGetDatum(now));
	SET(&row, PAY_UPDATED_AT, TimestampTzGetDatum(now));
	if (owner != NULL)
		SET(&row, PAY_OWNER, CStringGetTextDatum(owner));
	sl_audit_record(&row, SL_STATE_NONE, &cause, &transition);
	if (!sl_insert_row(SL_PAYMENTS, &row, &transition))
		return false;

	(void) sl_enqueue(&row, "create", CREATE_PATH, sl_create_body(args, id));
	return true;
}

/*
 * The payment of this owner that has this key already: keys are each owner's
 * own, lest one learn of another's, or take them away.  The same arguments
 * mean the same request, repeated; others are a mistake that the caller must
 * hear of.
 */
static pg_uuid_t *
existing_payment(const SlPaymentArgs *args, const char *owner)
{
	Datum		values[2] = {CStringGetTextDatum(args->idempotency_key)};
	SlQuery    *query = &payment_by_key;
	const char *differs;
	SlRow		row;

	if (owner != NULL)
	{
		query = &payment_by_key_and_owner;
		values[1] = CStringGetTextDatum(owner);
	}
	if (sl_run(query, values, NULL, 1) == 0)
		sl_write_suppressed(SL_PAYMENTS);
	sl_read_row(SL_PAYMENTS, 0, &row);
	differs = sl_args_difference(args, &row);
	if (differs != NULL)
		ereport(ERROR,
				(errcode(SL_ERRCODE_KEY_REUSED),
				 errmsg("idempotency key was used before with another \"%s\"", differs),
				 errdetail("The payment that has this key is left as it is."),
				 errhint("Repeat a request with the same arguments; use a new key for a new payment.")));
	return DatumGetUUIDP(row.values[PAY_ID]);
}

/*
 * SQL: create_payment(...) returns uuid.  Errors: SL010 to SL016, SL019,
 * SL050.
 */
static Datum
create_payment(PG_FUNCTION_ARGS)
{
	SlPaymentArgs args;
	SlCaller	caller;
	pg_uuid_t  *id = palloc(sizeof(pg_uuid_t));
	pg_uuid_t  *made = sl_payment_id_new();

	sl_require_writable("create_payment()");
	SL_PRIVATE_ARGUMENTS_BEGIN();
	sl_require_version();
	read_creator(&caller);
	sl_args_read(fcinfo, &args);
	SPI_connect();
	if (insert_payment(&args, caller.owner, made))
		*id = *made;
	else
		*id = *existing_payment(&args, caller.owner);
	warn_without_worker();
	SPI_finish();
	SL_PRIVATE_ARGUMENTS_END();

	PG_RETURN_UUID_P(id);
}

/* Lock a payment that something is still to be done with. */
static void
lock_unfinished(FunctionCallInfo fcinfo, const char *what, SlRow *payment)
{
	SlState		state;

	if (PG_ARGISNULL(0))
		sl_unknown_payment();
	sl_require_visible(PG_GETARG_UUID_P(0));	/* before the lock is waited for */
	if (!sl_lock_payment(PG_GETARG_UUID_P(0), payment))
		sl_unknown_payment();
	state = sl_state_of_oid(DatumGetObjectId(payment->values[PAY_STATE]));
	if (state == SL_STATE_SUCCEEDED || state == SL_STATE_FAILED)
		ereport(ERROR,
				(errcode(SL_ERRCODE_PAYMENT_FINISHED),
				 errmsg("cannot %s a payment that has %s", what, sl_state_name(state)),
				 errhint("Create another payment.")));

	/* else the call would wait for ever for a PaymentIntent */
	if (payment->nulls[PAY_PAYMENT_INTENT_ID] &&
		sl_run(&creation_refused, &payment->values[PAY_ID], NULL, 1) > 0)
		ereport(ERROR,
				(errcode(SL_ERRCODE_PAYMENT_FINISHED),
				 errmsg("cannot %s a payment that has no PaymentIntent", what),
				 errdetail("Stripe refused to create it; payment_status() shows why."),
				 errhint("Create another payment.")));
}

/*
 * SQL: confirm_payment(payment_id uuid, params jsonb) returns bigint.
 * Errors: SL017, SL018, SL014, SL019.
 */
static Datum
confirm_payment(PG_FUNCTION_ARGS)
{
	SlRow		payment;
	char	   *body;
	int64		id;

	sl_require_writable("confirm_payment()");
	SL_PRIVATE_ARGUMENTS_BEGIN();
	sl_require_version();
	body = sl_params_body(PG_ARGISNULL(1) ? NULL : PG_GETARG_JSONB_P(1));
	SPI_connect();
	lock_unfinished(fcinfo, "confirm", &payment);
	id = sl_enqueue(&payment, "confirm", CONFIRM_PATH, body);
	warn_without_worker();
	SPI_finish();
	SL_PRIVATE_ARGUMENTS_END();

	PG_RETURN_INT64(id);
}

/*
 * SQL: cancel_payment(payment_id uuid, cancellation_reason text) returns
 * bigint.  Errors: SL017, SL018, SL015, SL019.
 */
static Datum
cancel_payment(PG_FUNCTION_ARGS)
{
	static const char *const reasons[] = {
		"duplicate", "fraudulent", "requested_by_customer", "abandoned"
	};
	const char *reason = NULL;
	SlRow		payment;
	int64		id;
	int			i;

	sl_require_version();
	sl_require_writable("cancel_payment()");
	if (!PG_ARGISNULL(1))
	{
		char	   *given = text_to_cstring(PG_GETARG_TEXT_PP(1));

		sl_refuse_card_text("argument", "cancellation_reason", PG_GETARG_TEXT_PP(1));
		for (i = 0; i < (int) lengthof(reasons); i++)
			if (strcmp(given, reasons[i]) == 0)
				reason = reasons[i];
		if (reason == NULL)
			ereport(ERROR,
					(errcode(SL_ERRCODE_ARGUMENT),
					 errmsg("argument \"cancellation_reason\" is not one that Stripe knows"),
					 errhint("Pass duplicate, fraudulent, requested_by_customer, abandoned or NULL.")));
	}
	SPI_connect();
	lock_unfinished(fcinfo, "cancel", &payment);
	id = sl_enqueue_cancel(&payment, reason);
	warn_without_worker();
	SPI_finish();

	PG_RETURN_INT64(id);
}

/* The entry points: errors fit HTTP where HTTP is what called. */

Datum
sl_create_payment(PG_FUNCTION_ARGS)
{
	return sl_http_call(create_payment, fcinfo, "create_payment");
}

Datum
sl_confirm_payment(PG_FUNCTION_ARGS)
{
	return sl_http_call(confirm_payment, fcinfo, "confirm_payment");
}

Datum
sl_cancel_payment(PG_FUNCTION_ARGS)
{
	return sl_http_call(cancel_payment, fcinfo, "cancel_payment");
}
