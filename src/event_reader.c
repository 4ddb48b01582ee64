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
#include "json_scan.h"
#include "payment_id.h"
#include "privacy.h"

/* Longest id, type or code taken at its word. */
#define MAX_TOKEN 255

/* Longest number taken: any int64, and more decimals than money has. */
#define MAX_DIGITS 18

static const char *const event_keys[] = {
	"id", "object", "type", "created", "livemode", "api_version", "account", NULL
};
static const char *const request_keys[] = {"id", "idempotency_key", NULL};
static const char *const object_keys[] = {
	"id", "object", "status", "amount", "amount_capturable", "amount_received",
	"amount_refunded", "captured", "currency", "latest_charge", "payment_intent",
	"charge", "cancellation_reason", "canceled_at", "capture_method", "created",
	"reason", NULL
};
static const char *const error_keys[] = {
	"type", "code", "decline_code", "message", "param", "advice_code",
	"network_decline_code", NULL
};
static const char *const metadata_keys[] = {SL_METADATA_KEY, NULL};
static const char *const id_keys[] = {"id", NULL};
static const char *const no_keys[] = {NULL};

/*
 * Which members of an event are looked at at all: scalars by these names, and
 * objects of which some members are.
 */
typedef struct Kept
{
	const char *const *scalars;
	const struct KeptObject *objects;	/* the last has no name; or NULL */
} Kept;

typedef struct KeptObject
{
	const char *name;
	const Kept *kept;
} KeptObject;

static const Kept kept_error = {error_keys, NULL};
static const Kept kept_metadata = {metadata_keys, NULL};
static const Kept kept_request = {request_keys, NULL};
static const Kept kept_expanded = {id_keys, NULL};
static const KeptObject object_objects[] = {
	{"last_payment_error", &kept_error}, {"metadata", &kept_metadata},
	{"latest_charge", &kept_expanded}, {"payment_intent", &kept_expanded},
	{NULL, NULL}
};
static const Kept kept_object = {object_keys, object_objects};
static const KeptObject data_objects[] = {{"object", &kept_object}, {NULL, NULL}};
static const Kept kept_data = {no_keys, data_objects};
static const KeptObject event_objects[] = {
	{"data", &kept_data}, {"request", &kept_request}, {NULL, NULL}
};
static const Kept kept_event = {event_keys, event_objects};

/* Numbers, and read again when a parked event is: these stay what they are. */
static const char *const number_keys[] = {
	"created", "amount", "amount_capturable", "amount_received",
	"amount_refunded", "canceled_at", NULL
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

/* A member that is an id or an expanded object with an id. */
static char *
member_id(JsonbContainer *object, const char *key)
{
	JsonbContainer *expanded = member_object(object, key);

	return expanded != NULL ? member_string(expanded, "id") :
		member_string(object, key);
}

/*
 * A whole number; false if absent or anything else.  Stripe's amounts and
 * times have far fewer than the 18 digits that surely fit.
 */
static bool
member_int64(JsonbContainer *object, const char *key, int64 *result)
{
	JsonbValue	buf;
	JsonbValue *v = member(object, key, &buf);
	char	   *text;
	size_t		digits;

	if (v == NULL || v->type != jbvNumeric)
		return false;
	text = DatumGetCString(DirectFunctionCall1(numeric_out,
											   NumericGetDatum(v->val.numeric)));
	digits = strspn(text + (text[0] == '-'), "0123456789");
	if (digits == 0 || digits > 18 || text[(text[0] == '-') + digits] != '\0')
		return false;
	*result = strtoll(text, NULL, 10);
	pfree(text);
	return true;
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

static bool
is_listed(const char *key, const char *const *keys)
{
	while (*keys != NULL && strcmp(key, *keys) != 0)
		keys++;
	return *keys != NULL;
}

/* Mask what must not be stored, in memory of its own. */
static void
redact_scalar(const char *key, JsonbValue *v)
{
	char	   *s;

	if (v->type == jbvString)
		s = sl_redacted(pnstrdup(v->val.string.val, v->val.string.len));
	else if (v->type == jbvNumeric && !is_listed(key, number_keys))
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
		redact_scalar(keys[i], v);
		push_key(out, keys[i]);
		sl_jsonb_push(out, WJB_VALUE, v);
	}
}

/* Copy the listed scalars of an object under a key, if there is one. */
static void
copy_object(SlJsonbBuilder *out, const char *key, JsonbContainer *object,
			const char *const *keys)
{
	if (object == NULL)
		return;
	push_key(out, key);
	sl_jsonb_push(out, WJB_BEGIN_OBJECT, NULL);
	copy_scalars(out, object, keys);
	sl_jsonb_push(out, WJB_END_OBJECT, NULL);
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

static bool
is_token(const SlJsonScan *s, const char *name)
{
	return s->token_len == strlen(name) &&
		memcmp(s->token, name, s->token_len) == 0;
}

/* Is the key just met one of these? */
static bool
is_scalar_kept(const SlJsonScan *s, const Kept *kept)
{
	int			i;

	for (i = 0; kept->scalars[i] != NULL; i++)
		if (is_token(s, kept->scalars[i]))
			return true;
	return false;
}

static const Kept *
object_kept(const SlJsonScan *s, const Kept *kept)
{
	const KeptObject *o;

	for (o = kept->objects; o != NULL && o->name != NULL; o++)
		if (is_token(s, o->name))
			return o->kept;
	return NULL;
}

/* The string just met: in place, or a copy without its escapes. */
static void
token_string(const SlJsonScan *s, JsonbValue *v)
{
	v->type = jbvString;
	v->val.string.val = unconstify(char *, s->token);
	v->val.string.len = (int) s->token_len;
	if (s->token_escaped)
	{
		v->val.string.val = palloc(s->token_len);
		v->val.string.len = (int) sl_json_unescape(s->token, s->token_len,
												   v->val.string.val);
	}
}

/*
 * The number just met; false if it is none that Stripe would send, such as
 * 1e999999, which a numeric could not hold.
 */
static bool
token_number(const SlJsonScan *s, JsonbValue *v)
{
	char		digits[MAX_DIGITS + 1];

	if (s->token_len > MAX_DIGITS ||
		memchr(s->token, 'e', s->token_len) != NULL ||
		memchr(s->token, 'E', s->token_len) != NULL)
		return false;
	memcpy(digits, s->token, s->token_len);
	digits[s->token_len] = '\0';
	v->type = jbvNumeric;
	if (strchr(digits, '.') == NULL)
		v->val.numeric = int64_to_numeric(strtoll(digits, NULL, 10));
	else
		v->val.numeric = DatumGetNumeric(DirectFunctionCall3(numeric_in,
															 CStringGetDatum(digits),
															 ObjectIdGetDatum(InvalidOid),
															 Int32GetDatum(-1)));
	return true;
}

/* Take the value of the key just met, if it is a scalar that can be kept. */
static bool
take_scalar(SlJsonScan *s, SlJsonType type, JsonbValue *v)
{
	switch (type)
	{
		case SL_JSON_STRING:
			token_string(s, v);
			return true;
		case SL_JSON_NUMBER:
			return token_number(s, v);
		case SL_JSON_TRUE:
		case SL_JSON_FALSE:
			v->type = jbvBool;
			v->val.boolean = type == SL_JSON_TRUE;
			return true;
		default:				/* null counts as absent */
			return false;
	}
}

static void skip_members(SlJsonScan *s, SlJsonType type);

/*
 * Copy what is kept of the object that the scan has just entered, to its end.
 */
static void
keep_members(SlJsonScan *s, SlJsonbBuilder *out, const Kept *kept)
{
	while (sl_json_next_key(s))
	{
		bool		scalar = is_scalar_kept(s, kept);
		const Kept *members = object_kept(s, kept);
		JsonbValue	key;
		JsonbValue	value;
		SlJsonType	type;

		if (!scalar && members == NULL)
		{
			sl_json_skip(s);
			continue;
		}
		token_string(s, &key);
		type = sl_json_value(s);
		if (type == SL_JSON_OBJECT && members != NULL)
		{
			sl_jsonb_push(out, WJB_KEY, &key);
			sl_jsonb_push(out, WJB_BEGIN_OBJECT, NULL);
			keep_members(s, out, members);
			sl_jsonb_push(out, WJB_END_OBJECT, NULL);
		}
		else if (type == SL_JSON_OBJECT || type == SL_JSON_ARRAY)
			skip_members(s, type);
		else if (scalar && take_scalar(s, type, &value))
		{
			sl_jsonb_push(out, WJB_KEY, &key);
			sl_jsonb_push(out, WJB_VALUE, &value);
		}
	}
}

/* Pass over the rest of an object or array that the scan has just entered. */
static void
skip_members(SlJsonScan *s, SlJsonType type)
{
	while (type == SL_JSON_OBJECT ? sl_json_next_key(s) : sl_json_next_element(s))
		sl_json_skip(s);
}

/*
 * Read bytes that should be an event, and keep of them what sl_event_read()
 * looks at; *ok tells whether they were a JSON object in UTF-8.  What is kept
 * points into the bytes no more.
 */
Jsonb *
sl_event_parse(const char *text, size_t len, bool *ok)
{
	SlJsonbBuilder out = {0};
	SlJsonScan	s;

	*ok = false;
	if (!pg_verify_mbstr(PG_UTF8, text, (int) len, true))
		return NULL;
	sl_json_begin(&s, text, len);
	if (sl_json_value(&s) != SL_JSON_OBJECT)
		return NULL;
	sl_jsonb_push(&out, WJB_BEGIN_OBJECT, NULL);
	keep_members(&s, &out, &kept_event);
	if (!sl_json_end(&s))
		return NULL;
	sl_jsonb_push(&out, WJB_END_OBJECT, NULL);
	*ok = true;
	return sl_jsonb_built(&out);
}

static Jsonb *
reduce_event(JsonbContainer *root, JsonbContainer *object)
{
	SlJsonbBuilder out = {0};

	sl_jsonb_push(&out, WJB_BEGIN_OBJECT, NULL);
	copy_scalars(&out, root, event_keys);
	copy_object(&out, "request", member_object(root, "request"), request_keys);
	push_key(&out, "data");
	sl_jsonb_push(&out, WJB_BEGIN_OBJECT, NULL);
	push_key(&out, "object");
	sl_jsonb_push(&out, WJB_BEGIN_OBJECT, NULL);
	copy_scalars(&out, object, object_keys);
	copy_object(&out, "last_payment_error",
				member_object(object, "last_payment_error"), error_keys);
	copy_object(&out, "metadata", member_object(object, "metadata"),
				metadata_keys);
	sl_jsonb_push(&out, WJB_END_OBJECT, NULL);
	sl_jsonb_push(&out, WJB_END_OBJECT, NULL);
	sl_jsonb_push(&out, WJB_END_OBJECT, NULL);
	return sl_jsonb_built(&out);
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

static bool
read_payment_intent(JsonbContainer *object, SlEvent *event, SlEventFlaw *flaw)
{
	event->status = member_string(object, "status");
	if (event->status == NULL)
		return bad_event(flaw, "is missing or not a string", "data.object.status");
	if (!member_int64(object, "amount", &event->amount))
		return bad_event(flaw, "is missing or not a whole number", "data.object.amount");
	event->currency = member_string(object, "currency");
	if (event->currency == NULL)
		return bad_event(flaw, "is missing or not a string", "data.object.currency");
	if (!member_int64(object, "amount_capturable", &event->amount_capturable))
		event->amount_capturable = 0;
	if (!member_int64(object, "amount_received", &event->amount_received))
		event->amount_received = 0;
	event->latest_charge = member_id(object, "latest_charge");
	event->cancellation_reason = member_string(object, "cancellation_reason");
	event->last_error = read_decline(object);
	event->has_payment_id = read_payment_id(object, &event->payment_id);
	return true;
}

/*
 * Read an event, whole or reduced; false, with the reason, if it is none.
 */
bool
sl_event_check(Jsonb *body, SlEvent *event, SlEventFlaw *flaw)
{
	JsonbContainer *root = &body->root;
	JsonbContainer *object;
	char	   *kind = member_string(root, "object");

	memset(event, 0, sizeof(*event));
	if (kind == NULL || strcmp(kind, "event") != 0)
		return bad_event(flaw, "is not \"event\"", "object");
	event->id = member_string(root, "id");
	if (event->id == NULL || event->id[0] == '\0')
		return bad_event(flaw, "is missing or not a string", "id");
	event->type = member_string(root, "type");
	if (event->type == NULL || event->type[0] == '\0')
		return bad_event(flaw, "is missing or not a string", "type");
	if (!member_int64(root, "created", &event->created) ||
		event->created < 0 || event->created > INT64CONST(253402300799))
		return bad_event(flaw, "is missing or not a time in Unix seconds", "created");
	if (!member_bool(root, "livemode", &event->livemode))
		return bad_event(flaw, "is missing or not a boolean", "livemode");
	event->api_version = member_string(root, "api_version");
	event->account = member_string(root, "account");

	object = member_object(member_object(root, "data"), "object");
	if (object == NULL)
		return bad_event(flaw, "is missing or not an object", "data.object");
	event->object_id = member_string(object, "id");
	kind = member_string(object, "object");
	event->is_payment_intent = kind != NULL && strcmp(kind, "payment_intent") == 0;
	if (event->is_payment_intent)
	{
		event->payment_intent_id = event->object_id;
		if (event->payment_intent_id == NULL || event->payment_intent_id[0] == '\0')
			return bad_event(flaw, "is missing or not a string", "data.object.id");
		if (!read_payment_intent(object, event, flaw))
			return false;
	}
	else
		event->payment_intent_id = member_id(object, "payment_intent");

	event->reduced = reduce_event(root, object);
	return true;
}

/* The same, raising SL026 if it is none. */
void
sl_event_read(Jsonb *body, SlEvent *event)
{
	SlEventFlaw flaw;

	if (!sl_event_check(body, event, &flaw))
		sl_event_refuse(&flaw);
}

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
