/*-------------------------------------------------------------------------
 *
 * payment_args.c
 *	  Checks the arguments of a payment and turns them into the exact bytes
 *	  of the call to Stripe.
 *
 * One clear error for each thing that can be wrong, raised before anything
 * is written.  Limits are Stripe's own.  Messages name the argument and the
 * rule and do not repeat the value, which may be what should not be logged.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "compat.h"
#include "currency.h"
#include "errors.h"
#include "event_reader.h"
#include "form_encoder.h"
#include "guc.h"
#include "payment_args.h"
#include "privacy.h"

#define MAX_KEY_LENGTH 255
#define MAX_METADATA_KEYS 50
#define MAX_METADATA_KEY_LENGTH 40
#define MAX_METADATA_VALUE_LENGTH 500

/* Positions of the arguments of create_payment(). */
enum
{
	ARG_AMOUNT, ARG_CURRENCY, ARG_KEY, ARG_DESCRIPTION, ARG_CUSTOMER,
	ARG_RECEIPT_EMAIL, ARG_CAPTURE_METHOD, ARG_DECLINE_POLICY,
	ARG_STRIPE_ACCOUNT, ARG_METADATA, ARG_PARAMS
};

/* Parameters that have an argument of their own. */
static const char *const named_params[] = {
	"amount", "currency", "description", "customer", "receipt_email",
	"capture_method", "metadata"
};

/* The arguments that are text, by position. */
static const char *const text_args[] = {
	[ARG_CURRENCY] = "currency",
	[ARG_KEY] = "idempotency_key",
	[ARG_DESCRIPTION] = "description",
	[ARG_CUSTOMER] = "customer",
	[ARG_RECEIPT_EMAIL] = "receipt_email",
	[ARG_CAPTURE_METHOD] = "capture_method",
	[ARG_DECLINE_POLICY] = "decline_policy",
	[ARG_STRIPE_ACCOUNT] = "stripe_account"
};

static char *
text_arg(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

static int
char_length(const char *s, int len)
{
	return pg_mbstrlen_with_len(s, len);
}

static void
read_currency_and_amount(FunctionCallInfo fcinfo, SlPaymentArgs *args)
{
	const SlCurrency *currency;

	if (PG_ARGISNULL(ARG_AMOUNT))
		ereport(ERROR,
				(errcode(SL_ERRCODE_AMOUNT),
				 errmsg("argument \"amount\" must not be null")));
	args->amount = PG_GETARG_INT64(ARG_AMOUNT);

	args->currency = text_arg(fcinfo, ARG_CURRENCY);
	currency = args->currency == NULL ? NULL :
		sl_currency_lookup(args->currency, strlen(args->currency));
	if (currency == NULL)
		ereport(ERROR,
				(errcode(SL_ERRCODE_CURRENCY),
				 errmsg("argument \"currency\" is not an ISO 4217 currency code"),
				 errhint("Pass three letters, such as usd or EUR.")));
	args->currency = pstrdup(currency->code);

	switch (sl_amount_check(currency, args->amount))
	{
		case SL_AMOUNT_OK:
			break;
		case SL_AMOUNT_NOT_POSITIVE:
			ereport(ERROR,
					(errcode(SL_ERRCODE_AMOUNT),
					 errmsg("argument \"amount\" must be greater than zero")));
			break;
		case SL_AMOUNT_TOO_LARGE:
			ereport(ERROR,
					(errcode(SL_ERRCODE_AMOUNT),
					 errmsg("argument \"amount\" is larger than Stripe accepts for currency \"%s\"",
							currency->code),
					 errdetail("The largest amount is " INT64_FORMAT ", in the smallest unit of the currency.",
							   currency->max_amount)));
			break;
		case SL_AMOUNT_NOT_MULTIPLE:
			ereport(ERROR,
					(errcode(SL_ERRCODE_AMOUNT),
					 errmsg("argument \"amount\" must be a multiple of %d for currency \"%s\"",
							currency->multiple, currency->code),
					 errdetail("Stripe charges no finer amounts in this currency.")));
			break;
	}
}

static void
read_key(FunctionCallInfo fcinfo, SlPaymentArgs *args)
{
	int			length;

	args->idempotency_key = text_arg(fcinfo, ARG_KEY);
	length = args->idempotency_key == NULL ? 0 :
		char_length(args->idempotency_key, strlen(args->idempotency_key));
	if (length < 1 || length > MAX_KEY_LENGTH)
		ereport(ERROR,
				(errcode(SL_ERRCODE_IDEMPOTENCY_KEY),
				 errmsg("argument \"idempotency_key\" must have 1 to %d characters",
						MAX_KEY_LENGTH),
				 errhint("Pass what identifies the purchase, such as the order's id, and the same again on every retry.")));
}

static void
bad_argument(const char *name, const char *rule)
{
	ereport(ERROR,
			(errcode(SL_ERRCODE_ARGUMENT),
			 errmsg("argument \"%s\" %s", name, rule)));
}

/* An id of Stripe's: a prefix, then letters, digits and underscores. */
static char *
stripe_id_arg(FunctionCallInfo fcinfo, int n, const char *name,
			  const char *prefix)
{
	char	   *s = text_arg(fcinfo, n);
	size_t		plen = strlen(prefix);
	const char *p;

	if (s == NULL)
		return NULL;
	for (p = s + (strncmp(s, prefix, plen) == 0 ? plen : 0);
		 isalnum((unsigned char) *p) || *p == '_'; p++)
		 /* skip */ ;
	if (strncmp(s, prefix, plen) != 0 || s[plen] == '\0' || *p != '\0' ||
		strlen(s) > MAX_KEY_LENGTH)
		bad_argument(name, psprintf("must be an id of Stripe's that begins with %s",
									prefix));
	return s;
}

static void
read_options(FunctionCallInfo fcinfo, SlPaymentArgs *args)
{
	const char *at;

	args->description = text_arg(fcinfo, ARG_DESCRIPTION);
	args->customer = stripe_id_arg(fcinfo, ARG_CUSTOMER, "customer", "cus_");
	args->stripe_account = stripe_id_arg(fcinfo, ARG_STRIPE_ACCOUNT,
										 "stripe_account", "acct_");
	args->receipt_email = text_arg(fcinfo, ARG_RECEIPT_EMAIL);
	at = args->receipt_email == NULL ? NULL : strchr(args->receipt_email, '@');
	if (args->receipt_email != NULL &&
		(at == NULL || at == args->receipt_email || at[1] == '\0'))
		bad_argument("receipt_email", "must be an e-mail address");

	args->capture_method = text_arg(fcinfo, ARG_CAPTURE_METHOD);
	if (args->capture_method == NULL)
		args->capture_method = pstrdup("automatic");
	if (strcmp(args->capture_method, "automatic") != 0 &&
		strcmp(args->capture_method, "automatic_async") != 0 &&
		strcmp(args->capture_method, "manual") != 0)
		bad_argument("capture_method", "must be automatic, automatic_async or manual");

	args->decline_policy = text_arg(fcinfo, ARG_DECLINE_POLICY);
	args->decline_policy_given = args->decline_policy != NULL;
	if (!args->decline_policy_given)
		args->decline_policy = pstrdup(sl_decline_policy == SL_DECLINE_RETRY ?
									   "retry" : "final");
	if (strcmp(args->decline_policy, "final") != 0 &&
		strcmp(args->decline_policy, "retry") != 0)
		bad_argument("decline_policy", "must be final or retry");
}

static Jsonb *
empty_object(void)
{
	SlJsonbBuilder out = {0};

	sl_jsonb_push(&out, WJB_BEGIN_OBJECT, NULL);
	sl_jsonb_push(&out, WJB_END_OBJECT, NULL);
	return sl_jsonb_built(&out);
}

static Jsonb *
object_arg(FunctionCallInfo fcinfo, int n, const char *name, int errcode_)
{
	Jsonb	   *j;

	if (PG_ARGISNULL(n))
		return empty_object();
	j = PG_GETARG_JSONB_P(n);
	if (!JB_ROOT_IS_OBJECT(j))
		ereport(ERROR,
				(errcode(errcode_),
				 errmsg("argument \"%s\" must be a JSON object", name)));
	return j;
}

static void
bad_metadata(const char *rule)
{
	ereport(ERROR,
			(errcode(SL_ERRCODE_METADATA),
			 errmsg("argument \"metadata\" %s", rule),
			 errdetail("Stripe takes at most %d keys of up to %d characters, with strings of up to %d characters.",
					   MAX_METADATA_KEYS, MAX_METADATA_KEY_LENGTH,
					   MAX_METADATA_VALUE_LENGTH)));
}

static void
check_metadata_key(const char *key, int len)
{
	int			length = char_length(key, len);

	if (length < 1 || length > MAX_METADATA_KEY_LENGTH)
		bad_metadata(psprintf("has a key that is empty or longer than %d characters",
							  MAX_METADATA_KEY_LENGTH));
	if (memchr(key, '[', len) != NULL || memchr(key, ']', len) != NULL)
		bad_metadata("has a key with square brackets");
	if (len == strlen(SL_METADATA_KEY) && memcmp(key, SL_METADATA_KEY, len) == 0)
		bad_metadata("has the key \"" SL_METADATA_KEY "\", which is the extension's own");
}

static void
check_metadata(Jsonb *metadata)
{
	JsonbIterator *it = JsonbIteratorInit(&metadata->root);
	JsonbIteratorToken token;
	JsonbValue	v;

	if (JB_ROOT_COUNT(metadata) > MAX_METADATA_KEYS)
		bad_metadata(psprintf("has more than %d keys", MAX_METADATA_KEYS));
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			check_metadata_key(v.val.string.val, v.val.string.len);
		else if (token == WJB_VALUE && v.type != jbvString)
			bad_metadata("has a value that is not a string");
		else if (token == WJB_VALUE &&
				 char_length(v.val.string.val, v.val.string.len) >
				 MAX_METADATA_VALUE_LENGTH)
			bad_metadata(psprintf("has a value longer than %d characters",
								  MAX_METADATA_VALUE_LENGTH));
	}
}

static void
check_params(Jsonb *params)
{
	JsonbValue	buf;
	int			i;

	for (i = 0; i < (int) lengthof(named_params); i++)
		if (getKeyJsonValueFromContainer(&params->root, named_params[i],
										 strlen(named_params[i]), &buf) != NULL)
			ereport(ERROR,
					(errcode(SL_ERRCODE_PARAMS),
					 errmsg("argument \"params\" must not have the key \"%s\"",
							named_params[i]),
					 errhint("Pass it as the argument of that name.")));
}

/* Before anything else: no other mistake may have the value looked at. */
static void
refuse_cards(FunctionCallInfo fcinfo)
{
	int			i;

	for (i = 0; i < (int) lengthof(text_args); i++)
		if (text_args[i] != NULL && !PG_ARGISNULL(i))
			sl_refuse_card_text("argument", text_args[i], PG_GETARG_TEXT_PP(i));
	if (!PG_ARGISNULL(ARG_METADATA))
		sl_refuse_card_jsonb("argument", "metadata", PG_GETARG_JSONB_P(ARG_METADATA));
	if (!PG_ARGISNULL(ARG_PARAMS))
		sl_refuse_card_jsonb("argument", "params", PG_GETARG_JSONB_P(ARG_PARAMS));
}

/*
 * Read and check the arguments of create_payment().  Errors: SL010 to SL015,
 * SL019.
 */
void
sl_args_read(FunctionCallInfo fcinfo, SlPaymentArgs *args)
{
	refuse_cards(fcinfo);
	read_currency_and_amount(fcinfo, args);
	read_key(fcinfo, args);
	read_options(fcinfo, args);
	args->metadata = object_arg(fcinfo, ARG_METADATA, "metadata",
								SL_ERRCODE_METADATA);
	check_metadata(args->metadata);
	args->params = object_arg(fcinfo, ARG_PARAMS, "params", SL_ERRCODE_PARAMS);
	check_params(args->params);
}

static void
set_text(SlRow *row, int column, const char *value)
{
	row->nulls[column] = value == NULL;
	row->values[column] = value == NULL ? (Datum) 0 : CStringGetTextDatum(value);
}

/* Fill in the columns of table payments that the arguments define. */
void
sl_args_to_row(const SlPaymentArgs *args, SlRow *row)
{
	row->values[PAY_AMOUNT] = Int64GetDatum(args->amount);
	row->nulls[PAY_AMOUNT] = false;
	set_text(row, PAY_IDEMPOTENCY_KEY, args->idempotency_key);
	set_text(row, PAY_CURRENCY, args->currency);
	set_text(row, PAY_DESCRIPTION, args->description);
	set_text(row, PAY_CUSTOMER, args->customer);
	set_text(row, PAY_RECEIPT_EMAIL, args->receipt_email);
	set_text(row, PAY_CAPTURE_METHOD, args->capture_method);
	set_text(row, PAY_DECLINE_POLICY, args->decline_policy);
	set_text(row, PAY_STRIPE_ACCOUNT, args->stripe_account);
	row->values[PAY_METADATA] = JsonbPGetDatum(args->metadata);
	row->nulls[PAY_METADATA] = false;
	row->values[PAY_PARAMS] = JsonbPGetDatum(args->params);
	row->nulls[PAY_PARAMS] = false;
}

static bool
same_text(const SlRow *row, int column, const char *value)
{
	if (row->nulls[column] || value == NULL)
		return row->nulls[column] && value == NULL;
	return strcmp(TextDatumGetCString(row->values[column]), value) == 0;
}

static bool
same_jsonb(const SlRow *row, int column, Jsonb *value)
{
	return compareJsonbContainers(&DatumGetJsonbP(row->values[column])->root,
								  &value->root) == 0;
}

/*
 * The name of the first argument that differs from a stored payment; NULL if
 * none does.  A decline policy that was left to the setting is not compared,
 * for the setting may have changed between two identical calls.
 */
const char *
sl_args_difference(const SlPaymentArgs *args, const SlRow *row)
{
	if (DatumGetInt64(row->values[PAY_AMOUNT]) != args->amount)
		return "amount";
	if (!same_text(row, PAY_CURRENCY, args->currency))
		return "currency";
	if (!same_text(row, PAY_DESCRIPTION, args->description))
		return "description";
	if (!same_text(row, PAY_CUSTOMER, args->customer))
		return "customer";
	if (!same_text(row, PAY_RECEIPT_EMAIL, args->receipt_email))
		return "receipt_email";
	if (!same_text(row, PAY_CAPTURE_METHOD, args->capture_method))
		return "capture_method";
	if (args->decline_policy_given &&
		!same_text(row, PAY_DECLINE_POLICY, args->decline_policy))
		return "decline_policy";
	if (!same_text(row, PAY_STRIPE_ACCOUNT, args->stripe_account))
		return "stripe_account";
	if (!same_jsonb(row, PAY_METADATA, args->metadata))
		return "metadata";
	if (!same_jsonb(row, PAY_PARAMS, args->params))
		return "params";
	return NULL;
}

static void *
grow(void *old, size_t size)
{
	return old == NULL ? palloc(size) : repalloc(old, size);
}

static void
put(SlFormBuf *buf, const char *key, const char *value)
{
	if (value == NULL)
		return;
	sl_form_push(buf, key, strlen(key));
	sl_form_value(buf, value, strlen(value));
	sl_form_pop(buf);
}

static void
refuse_card_data(void)
{
	ereport(ERROR,
			(errcode(SL_ERRCODE_CARD_DATA),
			 errmsg("argument \"params\" must not contain card data"),
			 errhint("Let Stripe's own form collect the card, and pass the PaymentMethod's id."),
			 errhidestmt(true),
			 errhidecontext(true)));
}

static bool
is_named(const char *name, int len, const char *wanted)
{
	return name != NULL && len == (int) strlen(wanted) &&
		memcmp(name, wanted, len) == 0;
}

/*
 * The places where Stripe's API takes a raw card, at whatever depth, and a
 * card's code, which nobody may ever store.  (payment_method_options.card holds
 * preferences and no card.)
 */
static void
check_no_card(const SlFormBuf *buf, const JsonbValue *key, bool is_object)
{
	static const char *const objects[] = {"card", "source"};
	static const char *const codes[] = {"cvc", "cvv", "cvc2", "cvv2"};
	const SlFormPath *path = &buf->path;
	const char *name = key->val.string.val;
	int			len = key->val.string.len;
	int			i;

	if (path->depth == 1 && is_named(name, len, "card") &&
		is_named(path->segment[0].name, (int) path->segment[0].len,
				 "payment_method_options"))
		return;
	for (i = 0; i < (int) lengthof(objects); i++)
		if (is_object && is_named(name, len, objects[i]))
			refuse_card_data();
	for (i = 0; i < (int) lengthof(codes); i++)
		if (is_named(name, len, codes[i]))
			refuse_card_data();
}

/*
 * A name must stay one name on the wire: with a bracket in it, it could be
 * read as a path to another parameter, past the checks made here.
 */
static void
check_param_name(const JsonbValue *key)
{
	const char *name = key->val.string.val;
	int			len = key->val.string.len;

	if (len == 0 || memchr(name, '[', len) != NULL || memchr(name, ']', len) != NULL)
		ereport(ERROR,
				(errcode(SL_ERRCODE_PARAMS),
				 errmsg("argument \"params\" has a key that is empty or has square brackets"),
				 errhint("Nest objects instead, such as {\"a\": {\"b\": 1}} for a[b]=1.")));
}

/* Append a scalar; JSON null sends nothing, since it would mean "unset". */
static void
put_scalar(SlFormBuf *buf, const JsonbValue *v)
{
	const char *s;

	switch (v->type)
	{
		case jbvString:
			sl_form_value(buf, v->val.string.val, v->val.string.len);
			break;
		case jbvBool:
			s = v->val.boolean ? "true" : "false";
			sl_form_value(buf, s, strlen(s));
			break;
		case jbvNumeric:
			s = DatumGetCString(DirectFunctionCall1(numeric_out,
													NumericGetDatum(v->val.numeric)));
			sl_form_value(buf, s, strlen(s));
			break;
		default:
			break;
	}
}

static void put_container(SlFormBuf *buf, JsonbContainer *container);

static void
put_value(SlFormBuf *buf, const JsonbValue *v)
{
	if (v->type == jbvBinary)
		put_container(buf, v->val.binary.data);
	else
		put_scalar(buf, v);
}

/*
 * Append an object or array, member by member, as Stripe nests them:
 * a[b]=.. and a[0]=...  The encoder's depth limit bounds the recursion.
 */
static void
put_container(SlFormBuf *buf, JsonbContainer *container)
{
	JsonbIterator *it = JsonbIteratorInit(container);
	JsonbIteratorToken token;
	JsonbValue	key = {0};
	JsonbValue	v;
	unsigned	index = 0;

	/* The first token opens the container itself. */
	(void) JsonbIteratorNext(&it, &v, true);
	while (!buf->failed &&
		   (token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			key = v;
			continue;
		}
		if (token == WJB_VALUE)
		{
			check_param_name(&key);
			check_no_card(buf, &key, v.type == jbvBinary);
			sl_form_push(buf, key.val.string.val, key.val.string.len);
		}
		else if (token == WJB_ELEM && v.type != jbvNull)
			sl_form_push_index(buf, index++);
		else
			continue;
		put_value(buf, &v);
		sl_form_pop(buf);
	}
}

static char *
finish(SlFormBuf *buf)
{
	if (buf->failed)
		ereport(ERROR,
				(errcode(SL_ERRCODE_PARAMS),
				 errmsg("argument \"params\" is nested too deeply")));
	return buf->data == NULL ? pstrdup("") : buf->data;
}

/*
 * The body of the call that creates the PaymentIntent, palloc'd.  The id
 * goes into the metadata, so that events find their payment even before the
 * PaymentIntent's id is stored; with as many keys as Stripe allows there is
 * no room for it, and such events are parked until the id is known.
 */
char *
sl_create_body(const SlPaymentArgs *args, const pg_uuid_t *id)
{
	SlFormBuf	buf;

	sl_form_init(&buf, grow);
	put(&buf, "amount", psprintf(INT64_FORMAT, args->amount));
	put(&buf, "currency", args->currency);
	put(&buf, "capture_method", args->capture_method);
	put(&buf, "customer", args->customer);
	put(&buf, "description", args->description);
	put(&buf, "receipt_email", args->receipt_email);
	sl_form_push(&buf, "metadata", strlen("metadata"));
	put_container(&buf, &args->metadata->root);
	if (JB_ROOT_COUNT(args->metadata) < MAX_METADATA_KEYS)
		put(&buf, SL_METADATA_KEY,
			DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(id))));
	sl_form_pop(&buf);
	put_container(&buf, &args->params->root);
	return finish(&buf);
}

/*
 * The body of further parameters alone, palloc'd; NULL stands for none.
 * Errors: SL014, SL019.
 */
char *
sl_params_body(Jsonb *params)
{
	SlFormBuf	buf;

	if (params == NULL)
		return pstrdup("");
	sl_refuse_card_jsonb("argument", "params", params);
	if (!JB_ROOT_IS_OBJECT(params))
		ereport(ERROR,
				(errcode(SL_ERRCODE_PARAMS),
				 errmsg("argument \"params\" must be a JSON object")));
	sl_form_init(&buf, grow);
	put_container(&buf, &params->root);
	return finish(&buf);
}
