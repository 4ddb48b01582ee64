/*-------------------------------------------------------------------------
 *
 * event_reader.c
 *	  Reads Stripe's JSON: events, PaymentIntents and API errors.
 *
 * Foreign text comes in, a few checked facts go out, and with them a reduced
 * copy that holds allow-listed fields only.  The copy has the shape of the
 * original, so that a parked event is later read by the same function.  What
 * is not listed (client_secret, names, addresses, card details) is never
 * stored, and no error message here quotes anything of the text.  Card numbers
 * are masked in every string, for people write them into any field; in what is
 * kept of errors and events, keys and secrets as well.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

#include "compat.h"
#include "errors.h"
#include "event_reader.h"
#include "payment_id.h"
#include "privacy.h"

/* Longest id, type or code taken at its word. */
#define MAX_TOKEN 255

static const char *const error_keys[] = {
	"type", "code", "decline_code", "message", "param", "advice_code",
	"network_decline_code", NULL
};

/* Says what is wrong with an event; returns false. */
static bool
bad_event(SlEventFlaw *flaw, const char *what, const char *field)
{
	flaw->field = field;
	flaw->what = what;
	return false;
}

void
sl_event_refuse(const SlEventFlaw *flaw)
{
	ereport(ERROR,
			(errcode(SL_ERRCODE_BAD_EVENT),
			 errmsg("webhook body is not a Stripe event: field \"%s\" %s",
					flaw->field, flaw->what),
			 errdetail("The signature was good, so the body came from Stripe or from a holder of the secret.  Nothing was stored."),
			 errhint("Point Stripe's endpoint for snapshot (v1) events here; thin (v2) events are not supported.")));
}

/* The member of an object, or NULL if it is absent or JSON null. */
static JsonbValue *
member(JsonbContainer *object, const char *key, JsonbValue *buf)
{
	JsonbValue *v = getKeyJsonValueFromContainer(object, key, strlen(key), buf);

	return v == NULL || v->type == jbvNull ? NULL : v;
}

/* The member of an object if it is an object itself, else NULL. */
static JsonbContainer *
member_object(JsonbContainer *object, const char *key)
{
	JsonbValue	buf;
	JsonbValue *v = object == NULL ? NULL : member(object, key, &buf);

	if (v == NULL || v->type != jbvBinary ||
		!JsonContainerIsObject(v->val.binary.data))
		return NULL;
	return v->val.binary.data;
}

/* A string member, palloc'd; NULL if absent, too long or not a string. */
static char *
member_string(JsonbContainer *object, const char *key)
{
	JsonbValue	buf;
	JsonbValue *v = object == NULL ? NULL : member(object, key, &buf);

	if (v == NULL || v->type != jbvString || v->val.string.len > MAX_TOKEN)
		return NULL;
	return sl_without_cards(v->val.string.val, v->val.string.len);
}

/*
 * Digits as a whole number; false if they are anything else.  Stripe's amounts
 * and times have far fewer than the 18 digits that surely fit.
 */
static bool
whole_number(const char *text, int64 *result)
{
	size_t		digits = strspn(text + (text[0] == '-'), "0123456789");

	if (digits == 0 || digits > 18 || text[(text[0] == '-') + digits] != '\0')
		return false;
	*result = strtoll(text, NULL, 10);
	return true;
}

static bool
member_int64(JsonbContainer *object, const char *key, int64 *result)
{
	JsonbValue	buf;
	JsonbValue *v = member(object, key, &buf);

	return v != NULL && v->type == jbvNumeric &&
		whole_number(DatumGetCString(DirectFunctionCall1(numeric_out,
														 NumericGetDatum(v->val.numeric))),
					 result);
}

static bool
member_bool(JsonbContainer *object, const char *key, bool *result)
{
	JsonbValue	buf;
	JsonbValue *v = member(object, key, &buf);

	if (v == NULL || v->type != jbvBool)
		return false;
	*result = v->val.boolean;
	return true;
}

static void
push_key(SlJsonbBuilder *out, const char *key)
{
	JsonbValue	k;

	k.type = jbvString;
	k.val.string.val = unconstify(char *, key);
	k.val.string.len = strlen(key);
	sl_jsonb_push(out, WJB_KEY, &k);
}

/* Mask what must not be stored, in memory of its own. */
static void
redact_scalar(JsonbValue *v)
{
	char	   *s;

	if (v->type == jbvString)
		s = sl_redacted(pnstrdup(v->val.string.val, v->val.string.len));
	else if (v->type == jbvNumeric)
	{
		char	   *digits = DatumGetCString(DirectFunctionCall1(numeric_out,
																 NumericGetDatum(v->val.numeric)));

		s = sl_redacted(digits);
		if (strcmp(s, digits) == 0)
			return;
	}
	else
		return;
	v->type = jbvString;
	v->val.string.val = s;
	v->val.string.len = strlen(s);
}

/* Copy the listed scalar members; objects and arrays are left out. */
static void
copy_scalars(SlJsonbBuilder *out, JsonbContainer *object,
			 const char *const *keys)
{
	int			i;

	if (object == NULL)
		return;
	for (i = 0; keys[i] != NULL; i++)
	{
		JsonbValue	buf;
		JsonbValue *v = member(object, keys[i], &buf);

		if (v == NULL || v->type == jbvBinary)
			continue;
		redact_scalar(v);
		push_key(out, keys[i]);
		sl_jsonb_push(out, WJB_VALUE, v);
	}
}

static void
push_string(SlJsonbBuilder *out, const char *key, const char *value)
{
	JsonbValue	v;

	if (value == NULL)
		return;
	push_key(out, key);
	v.type = jbvString;
	v.val.string.val = sl_redacted(value);
	v.val.string.len = strlen(v.val.string.val);
	sl_jsonb_push(out, WJB_VALUE, &v);
}

static void
push_number(SlJsonbBuilder *out, const char *key, int64 value)
{
	JsonbValue	v;

	push_key(out, key);
	v.type = jbvNumeric;
	v.val.numeric = int64_to_numeric(value);
	sl_jsonb_push(out, WJB_VALUE, &v);
}

/* {"source": ..., <scalars of an error object>} */
static Jsonb *
reduce_error(const char *source, const char *operation, int http_status,
			 JsonbContainer *error)
{
	SlJsonbBuilder out = {0};

	sl_jsonb_push(&out, WJB_BEGIN_OBJECT, NULL);
	push_string(&out, "source", source);
	push_string(&out, "operation", operation);
	if (http_status > 0)
		push_number(&out, "http_status", http_status);
	copy_scalars(&out, error, error_keys);
	sl_jsonb_push(&out, WJB_END_OBJECT, NULL);
	return sl_jsonb_built(&out);
}

/* An error object of our own making: source, code, message. */
Jsonb *
sl_error_object(const char *source, const char *code, const char *message)
{
	SlJsonbBuilder out = {0};

	sl_jsonb_push(&out, WJB_BEGIN_OBJECT, NULL);
	push_string(&out, "source", source);
	push_string(&out, "code", code);
	push_string(&out, "message", message);
	sl_jsonb_push(&out, WJB_END_OBJECT, NULL);
	return sl_jsonb_built(&out);
}

/*
 * Parse bytes as JSON; NULL if they are none in UTF-8, which nobody has
 * checked yet if they came as bytea.  The server's own error would quote a
 * piece of the text, so it is swallowed; nothing but memory of this context is
 * touched by the parser, which makes that safe without a subtransaction.
 * Errors of any other kind (out of memory, a cancelled query) go on as they
 * are.
 */
Jsonb *
sl_json_parse_any(const char *text, size_t len)
{
	MemoryContext cxt = CurrentMemoryContext;
	char	   *terminated = pnstrdup(text, len);
	Jsonb	   *volatile result = NULL;

	PG_TRY();
	{
		if (strlen(terminated) == len &&
			pg_verify_mbstr(PG_UTF8, terminated, (int) len, true))
			result = DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
														CStringGetDatum(terminated)));
	}
	PG_CATCH();
	{
		int			category = ERRCODE_TO_CATEGORY(geterrcode());

		if (category != ERRCODE_DATA_EXCEPTION &&
			category != ERRCODE_PROGRAM_LIMIT_EXCEEDED)
			PG_RE_THROW();
		MemoryContextSwitchTo(cxt);
		FlushErrorState();
		result = NULL;
	}
	PG_END_TRY();

	pfree(terminated);
	return result;
}

/* The same for what has to be an object; *ok tells whether it is one. */
Jsonb *
sl_json_parse(const char *text, size_t len, bool *ok)
{
	Jsonb	   *result = sl_json_parse_any(text, len);

	*ok = result != NULL && JB_ROOT_IS_OBJECT(result);
	return *ok ? result : NULL;
}

/* The metadata is anybody's text: what is no UUID counts as absent. */
static bool
read_payment_id(JsonbContainer *object, pg_uuid_t *id)
{
	char	   *text = member_string(member_object(object, "metadata"),
									 SL_METADATA_KEY);

	return text != NULL && sl_uuid_parse(text, id);
}

static Jsonb *
read_decline(JsonbContainer *object)
{
	JsonbContainer *error = member_object(object, "last_payment_error");

	return error == NULL ? NULL : reduce_error("decline", NULL, 0, error);
}

/* ---------- events ---------- */

/* A string of an event, palloc'd; NULL if absent, too long or not a string. */
static char *
fact_string(const SlEventFacts *facts, SlEventFact f)
{
	const SlFact *fact = &facts->fact[f];

	if (fact->type != SL_FACT_STRING || fact->len > MAX_TOKEN)
		return NULL;
	return sl_without_cards(fact->text, fact->len);
}

/* A whole number of an event; false if absent or anything else. */
static bool
fact_int64(const SlEventFacts *facts, SlEventFact f, int64 *result)
{
	const SlFact *fact = &facts->fact[f];

	return fact->type == SL_FACT_NUMBER &&
		whole_number(pnstrdup(fact->text, fact->len), result);
}

static bool
read_payment_intent(SlEvent *event, SlEventFlaw *flaw)
{
	const SlEventFacts *facts = &event->facts;
	char	   *payment_id;

	event->status = fact_string(facts, SL_FACT_STATUS);
	if (event->status == NULL)
		return bad_event(flaw, "is missing or not a string", "data.object.status");
	if (!fact_int64(facts, SL_FACT_AMOUNT, &event->amount))
		return bad_event(flaw, "is missing or not a whole number", "data.object.amount");
	event->currency = fact_string(facts, SL_FACT_CURRENCY);
	if (event->currency == NULL)
		return bad_event(flaw, "is missing or not a string", "data.object.currency");
	if (!fact_int64(facts, SL_FACT_AMOUNT_CAPTURABLE, &event->amount_capturable))
		event->amount_capturable = 0;
	if (!fact_int64(facts, SL_FACT_AMOUNT_RECEIVED, &event->amount_received))
		event->amount_received = 0;
	event->latest_charge = fact_string(facts, SL_FACT_LATEST_CHARGE);
	event->cancellation_reason = fact_string(facts, SL_FACT_CANCELLATION_REASON);
	event->last_error = sl_facts_error(facts, "decline");
	payment_id = fact_string(facts, SL_FACT_PAYMENT_ID);
	event->has_payment_id = payment_id != NULL &&
		sl_uuid_parse(payment_id, &event->payment_id);
	return true;
}

/* Read an event out of its facts; false, with the reason, if it is none. */
static bool
read_event(SlEvent *event, SlEventFlaw *flaw)
{
	const SlEventFacts *facts = &event->facts;
	char	   *kind = fact_string(facts, SL_FACT_EVENT_KIND);

	if (kind == NULL || strcmp(kind, "event") != 0)
		return bad_event(flaw, "is not \"event\"", "object");
	event->id = fact_string(facts, SL_FACT_EVENT_ID);
	if (event->id == NULL || event->id[0] == '\0')
		return bad_event(flaw, "is missing or not a string", "id");
	event->type = fact_string(facts, SL_FACT_EVENT_TYPE);
	if (event->type == NULL || event->type[0] == '\0')
		return bad_event(flaw, "is missing or not a string", "type");
	if (!fact_int64(facts, SL_FACT_EVENT_CREATED, &event->created) ||
		event->created < 0 || event->created > INT64CONST(253402300799))
		return bad_event(flaw, "is missing or not a time in Unix seconds", "created");
	if (facts->fact[SL_FACT_EVENT_LIVEMODE].type != SL_FACT_BOOLEAN)
		return bad_event(flaw, "is missing or not a boolean", "livemode");
	event->livemode = facts->fact[SL_FACT_EVENT_LIVEMODE].boolean;
	event->api_version = fact_string(facts, SL_FACT_EVENT_API_VERSION);
	event->account = fact_string(facts, SL_FACT_EVENT_ACCOUNT);

	if (!facts->present[SL_PART_OBJECT])
		return bad_event(flaw, "is missing or not an object", "data.object");
	event->object_id = fact_string(facts, SL_FACT_ID);
	kind = fact_string(facts, SL_FACT_KIND);
	event->is_payment_intent = kind != NULL && strcmp(kind, "payment_intent") == 0;
	if (!event->is_payment_intent)
	{
		event->payment_intent_id = fact_string(facts, SL_FACT_PAYMENT_INTENT);
		return true;
	}
	event->payment_intent_id = event->object_id;
	if (event->payment_intent_id == NULL || event->payment_intent_id[0] == '\0')
		return bad_event(flaw, "is missing or not a string", "data.object.id");
	return read_payment_intent(event, flaw);
}

/*
 * Read bytes that should be an event.  The event points into them.
 */
SlEventReading
sl_event_read_text(const char *text, size_t len, SlEvent *event,
				   SlEventFlaw *flaw)
{
	memset(event, 0, sizeof(*event));
	if (!sl_facts_of_text(text, len, &event->facts))
		return SL_EVENT_NO_JSON;
	return read_event(event, flaw) ? SL_EVENT_READ : SL_EVENT_FLAWED;
}

/* Read an event of the API's, raising SL026 if it is none. */
void
sl_event_read(Jsonb *body, SlEvent *event)
{
	SlEventFlaw flaw;

	memset(event, 0, sizeof(*event));
	sl_facts_of_jsonb(body, &event->facts);
	if (!read_event(event, &flaw))
		sl_event_refuse(&flaw);
}

/*
 * Read a PaymentIntent's event that was stored: in 'event' are the columns,
 * from its id to its payment's, and 'payload' has the rest.  Raises SL026 if it
 * is none, which should be impossible.
 */
void
sl_event_restore(SlEvent *event, Jsonb *payload)
{
	bool		has_payment_id = event->has_payment_id;
	pg_uuid_t	payment_id = event->payment_id;
	SlEventFlaw flaw;

	event->is_payment_intent = true;
	event->payment_intent_id = event->object_id;
	sl_facts_of_jsonb(payload, &event->facts);
	if (!read_payment_intent(event, &flaw))
		sl_event_refuse(&flaw);
	if (has_payment_id)
	{
		event->has_payment_id = true;
		event->payment_id = payment_id;
	}
}

/*
 * What is stored of an event besides its columns, of which one may say whose
 * it is.
 */
Jsonb *
sl_event_stored(const SlEvent *event, bool has_payment)
{
	return sl_facts_stored(&event->facts, !has_payment);
}

/* ---------- answers of the API ---------- */

static bool
read_intent(JsonbContainer *object, SlIntent *intent)
{
	char	   *kind = member_string(object, "object");

	memset(intent, 0, sizeof(*intent));
	if (kind == NULL || strcmp(kind, "payment_intent") != 0)
		return false;
	intent->id = member_string(object, "id");
	intent->client_secret = member_string(object, "client_secret");
	intent->status = member_string(object, "status");
	intent->last_error = read_decline(object);
	intent->has_payment_id = read_payment_id(object, &intent->payment_id);
	return intent->id != NULL && intent->id[0] != '\0' &&
		intent->status != NULL &&
		member_bool(object, "livemode", &intent->livemode);
}

/* Read an API answer that should be a PaymentIntent; false if it is none. */
bool
sl_intent_read(Jsonb *body, SlIntent *intent)
{
	return read_intent(&body->root, intent);
}

/* Take a page of a list apart; false if it is none. */
bool
sl_list_read(Jsonb *body, SlList *list)
{
	char	   *kind = member_string(&body->root, "object");
	JsonbValue	buf;
	JsonbValue *data;
	JsonbContainer *array;
	int			i;

	memset(list, 0, sizeof(*list));
	if (kind == NULL || strcmp(kind, "list") != 0 ||
		!member_bool(&body->root, "has_more", &list->has_more))
		return false;
	data = member(&body->root, "data", &buf);
	if (data == NULL || data->type != jbvBinary ||
		!JsonContainerIsArray(data->val.binary.data))
		return false;
	array = data->val.binary.data;
	list->items = palloc(sizeof(Jsonb *) * (JsonContainerSize(array) + 1));
	for (i = 0; i < (int) JsonContainerSize(array); i++)
	{
		JsonbValue *item = getIthJsonbValueFromContainer(array, i);

		if (item->type != jbvBinary || !JsonContainerIsObject(item->val.binary.data))
			return false;
		list->items[list->n++] = JsonbValueToJsonb(item);
	}
	return true;
}

/* The id of an object of Stripe's, palloc'd; NULL if it has none. */
char *
sl_object_id(Jsonb *object)
{
	return member_string(&object->root, "id");
}

/* Letters, digits and underscores: safe in any part of a URL. */
bool
sl_id_is_plain(const char *id)
{
	return id[0] != '\0' &&
		strspn(id, "0123456789abcdefghijklmnopqrstuvwxyz"
			   "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") == strlen(id);
}

/*
 * The object that the next page is to start after, or NULL if this was the
 * last page.  False: there are more, but the page doesn't say after what.
 */
bool
sl_list_next(const SlList *list, char **after)
{
	*after = NULL;
	if (!list->has_more)
		return true;
	if (list->n > 0)
		*after = sl_object_id(list->items[list->n - 1]);
	return *after != NULL && sl_id_is_plain(*after);
}

/* When it was created, in Unix seconds; false if that is not said. */
bool
sl_object_created(Jsonb *object, int64 *created)
{
	return member_int64(&object->root, "created", created);
}

/*
 * Read an API answer that should be an error; false if it is none.  'body'
 * may be NULL (no JSON arrived).
 */
bool
sl_api_error_read(Jsonb *body, const char *operation, int http_status,
				  SlApiError *error)
{
	JsonbContainer *object = body == NULL ? NULL :
		member_object(&body->root, "error");
	JsonbContainer *intent;

	memset(error, 0, sizeof(*error));
	error->reduced = reduce_error("api", operation, http_status, object);
	if (object == NULL)
		return false;
	error->type = member_string(object, "type");
	error->code = member_string(object, "code");
	intent = member_object(object, "payment_intent");
	error->has_intent = intent != NULL && read_intent(intent, &error->intent);
	return true;
}
