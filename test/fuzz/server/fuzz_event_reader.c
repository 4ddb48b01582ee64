/*-------------------------------------------------------------------------
 *
 * fuzz_event_reader.c
 *	  Arbitrary bytes, as if they had come from Stripe, against the event
 *	  reader.
 *
 * Crashes aside: whatever is read out of the text is compared with what the
 * reader finds in the same event as jsonb, and with a second reading by the
 * server's own jsonb functions, with card numbers masked; what is to be stored
 * has allow-listed fields only, no card number and no secret in any of them,
 * and gives the same event again; what is refused is refused with one SQLSTATE
 * and a message of known words, with nothing of the input in it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <string.h>

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#include "card_number.h"
#include "driver.h"
#include "errors.h"
#include "event_reader.h"
#include "json_scan.h"
#include "payment_id.h"
#include "privacy.h"
#include "redact.h"

/* Longest id, type or code that the reader takes. */
#define MAX_TOKEN 255

/* What may be stored besides the columns, by path; written down anew. */
static const char *const storable[] = {
	"request.id",
	"data.object.status", "data.object.amount", "data.object.amount_capturable",
	"data.object.amount_received", "data.object.amount_refunded",
	"data.object.captured", "data.object.currency", "data.object.latest_charge",
	"data.object.payment_intent", "data.object.charge",
	"data.object.cancellation_reason", "data.object.canceled_at",
	"data.object.reason",
	"data.object.last_payment_error.type", "data.object.last_payment_error.code",
	"data.object.last_payment_error.decline_code",
	"data.object.last_payment_error.message",
	"data.object.last_payment_error.param",
	"data.object.last_payment_error.advice_code",
	"data.object.last_payment_error.network_decline_code",
	"data.object.metadata.stripe_lifecycle_payment_id"
};

/* Fields that a refusal names. */
static const char *const refusable[] = {
	"object", "id", "type", "created", "livemode", "data.object",
	"data.object.id", "data.object.status", "data.object.amount",
	"data.object.currency"
};

/* ---------- the second reading ---------- */

/* A member, as SQL's -> has it; NULL if there is none. */
static Jsonb *
at(Jsonb *object, const char *key)
{
	LOCAL_FCINFO(fcinfo, 2);
	Datum		result;

	if (object == NULL)
		return NULL;
	InitFunctionCallInfoData(*fcinfo, NULL, 2, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = JsonbPGetDatum(object);
	fcinfo->args[0].isnull = false;
	fcinfo->args[1].value = CStringGetTextDatum(key);
	fcinfo->args[1].isnull = false;
	result = jsonb_object_field(fcinfo);
	return fcinfo->isnull ? NULL : DatumGetJsonbP(result);
}

static bool
is_string(Jsonb *j, JsonbValue *v)
{
	return j != NULL && JB_ROOT_IS_SCALAR(j) && JsonbExtractScalar(&j->root, v) &&
		v->type == jbvString;
}

/* The field is this string, or, if the string is NULL, no string to be taken. */
static void
require_string(Jsonb *object, const char *key, const char *got)
{
	JsonbValue	v;

	if (got == NULL)
		REQUIRE(!is_string(at(object, key), &v) || v.val.string.len > MAX_TOKEN);
	else
	{
		REQUIRE(is_string(at(object, key), &v) && v.val.string.len <= MAX_TOKEN);
		REQUIRE(strcmp(sl_without_cards(v.val.string.val, v.val.string.len), got) == 0);
		REQUIRE(!sl_card_is_in(got, strlen(got)));
	}
}

static void
require_number(Jsonb *object, const char *key, int64 got)
{
	Jsonb	   *j = at(object, key);
	char		text[32];

	REQUIRE(j != NULL);
	snprintf(text, sizeof(text), INT64_FORMAT, got);
	REQUIRE(strcmp(JsonbToCString(NULL, &j->root, VARSIZE(j)), text) == 0);
}

/* ---------- what may be stored ---------- */

/* Amounts and times are stored as they are. */
static bool
is_number_field(const char *name)
{
	const char *key = strrchr(name, '.') == NULL ? name : strrchr(name, '.') + 1;

	return strncmp(key, "amount", 6) == 0 || strcmp(key, "created") == 0 ||
		strcmp(key, "canceled_at") == 0;
}

static void
require_harmless(const char *name, const JsonbValue *v)
{
	if (v->type == jbvString)
		REQUIRE(!sl_redact_finds(v->val.string.val, v->val.string.len));
	else if (v->type == jbvNumeric && !is_number_field(name))
	{
		char	   *digits = DatumGetCString(DirectFunctionCall1(numeric_out,
																 NumericGetDatum(v->val.numeric)));

		REQUIRE(!sl_card_is_in(digits, strlen(digits)));
	}
}

static void
require_storable(JsonbContainer *container, const char *path)
{
	JsonbIterator *it = JsonbIteratorInit(container);
	JsonbIteratorToken token;
	JsonbValue	key = {0};
	JsonbValue	v;

	REQUIRE(JsonContainerIsObject(container));
	(void) JsonbIteratorNext(&it, &v, true);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		char	   *name;
		bool		found = false;
		size_t		i;

		if (token == WJB_KEY)
			key = v;
		if (token != WJB_VALUE)
			continue;
		name = psprintf("%s%.*s", path, key.val.string.len, key.val.string.val);
		if (v.type == jbvBinary)
		{
			require_storable(v.val.binary.data, psprintf("%s.", name));
			continue;
		}
		for (i = 0; i < lengthof(storable); i++)
			found = found || strcmp(storable[i], name) == 0;
		if (!found)
			fprintf(stderr, "not to be stored: %s\n", name);
		REQUIRE(found);
		require_harmless(name, &v);
	}
}

static bool
same_jsonb(Jsonb *a, Jsonb *b)
{
	return compareJsonbContainers(&a->root, &b->root) == 0;
}

/* ---------- events ---------- */

/* Reads an event; false if it was refused, as it should be. */
static bool
read_event(Jsonb *body, SlEvent *event)
{
	MemoryContext cxt = CurrentMemoryContext;
	volatile bool ok = false;

	PG_TRY();
	{
		sl_event_read(body, event);
		ok = true;
	}
	PG_CATCH();
	{
		ErrorData  *e;
		bool		known = false;
		size_t		i;

		MemoryContextSwitchTo(cxt);
		e = CopyErrorData();
		FlushErrorState();
		REQUIRE(e->sqlerrcode == SL_ERRCODE_BAD_EVENT);
		for (i = 0; i < lengthof(refusable); i++)
		{
			char	   *begin = psprintf("webhook body is not a Stripe event: field \"%s\" is ",
										 refusable[i]);

			known = known || (strncmp(e->message, begin, strlen(begin)) == 0 &&
							  strspn(e->message + strlen(begin),
									 " \"abcdefghijklmnopqrstuvwxyzUJ") ==
							  strlen(e->message + strlen(begin)));
		}
		REQUIRE(known);
	}
	PG_END_TRY();
	return ok;
}

static void
compare_event(Jsonb *body, const SlEvent *event)
{
	Jsonb	   *object = at(at(body, "data"), "object");
	JsonbValue	v;
	pg_uuid_t	id;

	require_string(body, "object", "event");
	require_string(body, "id", event->id);
	require_string(body, "type", event->type);
	require_number(body, "created", event->created);
	REQUIRE(event->created >= 0);
	require_string(body, "api_version", event->api_version);
	require_string(body, "account", event->account);
	require_string(object, "id", event->object_id);
	REQUIRE(event->id[0] != '\0' && event->type[0] != '\0');
	if (!event->is_payment_intent)
		return;
	require_string(object, "object", "payment_intent");
	require_string(object, "status", event->status);
	require_string(object, "currency", event->currency);
	require_number(object, "amount", event->amount);
	require_string(object, "cancellation_reason", event->cancellation_reason);
	/* no masking may come between an event and its payment */
	if (is_string(at(at(object, "metadata"), SL_METADATA_KEY), &v) &&
		sl_uuid_parse(pnstrdup(v.val.string.val, v.val.string.len), &id))
		REQUIRE(event->has_payment_id &&
				memcmp(&event->payment_id, &id, UUID_LEN) == 0);
	else
		REQUIRE(!event->has_payment_id);
}

static bool
same_text(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* What can be stored as it is comes back as it was. */
static bool
same_but_for_masks(const char *first, const char *again)
{
	if (first != NULL && sl_redact_finds(first, strlen(first)))
		return again != NULL;
	return same_text(first, again);
}

static void
require_same_intent(const SlEvent *a, const SlEvent *b)
{
	REQUIRE(a->amount == b->amount);
	REQUIRE(a->amount_capturable == b->amount_capturable);
	REQUIRE(a->amount_received == b->amount_received);
	REQUIRE(same_but_for_masks(a->status, b->status));
	REQUIRE(same_but_for_masks(a->currency, b->currency));
	REQUIRE(same_but_for_masks(a->latest_charge, b->latest_charge));
	REQUIRE(same_but_for_masks(a->cancellation_reason, b->cancellation_reason));
	REQUIRE(a->has_payment_id == b->has_payment_id);
	REQUIRE(!a->has_payment_id ||
			memcmp(&a->payment_id, &b->payment_id, UUID_LEN) == 0);
	REQUIRE((a->last_error == NULL) == (b->last_error == NULL));
	REQUIRE(a->last_error == NULL || same_jsonb(a->last_error, b->last_error));
}

/* An event out of a text is the same event out of jsonb. */
static void
compare_readings(const SlEvent *text, Jsonb *body)
{
	SlEvent		event;

	REQUIRE(read_event(body, &event));
	REQUIRE(same_text(text->id, event.id) && same_text(text->type, event.type));
	REQUIRE(text->created == event.created && text->livemode == event.livemode);
	REQUIRE(same_text(text->api_version, event.api_version));
	REQUIRE(same_text(text->account, event.account));
	REQUIRE(same_text(text->object_id, event.object_id));
	REQUIRE(same_text(text->payment_intent_id, event.payment_intent_id));
	REQUIRE(text->is_payment_intent == event.is_payment_intent);
	if (text->is_payment_intent)
		require_same_intent(text, &event);
}

/* What is stored of it is harmless; with its columns it is the same event. */
static void
check_stored(const SlEvent *event)
{
	Jsonb	   *stored = sl_event_stored(event, event->has_payment_id);
	SlEvent		again = {0};

	require_storable(&stored->root, "");
	require_storable(&sl_event_stored(event, !event->has_payment_id)->root, "");
	if (!event->is_payment_intent)
		return;
	again.object_id = event->object_id;
	again.has_payment_id = event->has_payment_id;
	again.payment_id = event->payment_id;
	sl_event_restore(&again, fuzz_exact(stored, VARSIZE(stored)));
	REQUIRE(again.is_payment_intent);
	REQUIRE(same_text(again.payment_intent_id, event->payment_intent_id));
	require_same_intent(event, &again);
}

static bool
is_known_flaw(const SlEventFlaw *flaw)
{
	size_t		i;

	for (i = 0; i < lengthof(refusable); i++)
		if (strcmp(refusable[i], flaw->field) == 0)
			return strncmp(flaw->what, "is ", 3) == 0;
	return false;
}

/* ---------- answers of the API ---------- */

static void
check_intent(Jsonb *body, const SlIntent *intent)
{
	require_string(body, "object", "payment_intent");
	require_string(body, "id", intent->id);
	require_string(body, "status", intent->status);
	require_string(body, "client_secret", intent->client_secret);
}

/* What goes into the URL of the next page is the last object's id, and plain. */
static void
check_next(const SlList *list)
{
	char	   *after;
	bool		ok = sl_list_next(list, &after);
	const char *p;

	if (!list->has_more)
		REQUIRE(ok && after == NULL);
	if (!list->has_more || !ok)
		return;
	REQUIRE(list->n > 0 && after != NULL && after[0] != '\0');
	require_string(list->items[list->n - 1], "id", after);
	for (p = after; *p != '\0'; p++)
		REQUIRE((*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'z') ||
				(*p >= 'A' && *p <= 'Z') || *p == '_');
}

static void
check_answers(Jsonb *body)
{
	SlIntent	intent;
	SlApiError	error;
	SlList		list;
	int64		created;
	char	   *id = sl_object_id(body);
	int			i;

	require_string(body, "id", id);
	if (sl_object_created(body, &created))
		require_number(body, "created", created);
	if (sl_intent_read(body, &intent))
		check_intent(body, &intent);
	if (sl_api_error_read(body, "create", 402, &error))
	{
		require_string(at(body, "error"), "type", error.type);
		require_string(at(body, "error"), "code", error.code);
		if (error.has_intent)
			check_intent(at(at(body, "error"), "payment_intent"), &error.intent);
	}
	require_string(error.reduced, "source", "api");
	require_string(error.reduced, "operation", "create");
	require_number(error.reduced, "http_status", 402);
	if (!sl_list_read(body, &list))
		return;
	for (i = 0; i < list.n; i++)
	{
		REQUIRE(JB_ROOT_IS_OBJECT(list.items[i]));
		id = sl_object_id(list.items[i]);
		require_string(list.items[i], "id", id);
	}
	check_next(&list);
}

/* ---------- bytes ---------- */

static Jsonb *
parse(const char *data, size_t len, bool *ok)
{
	MemoryContext cxt = CurrentMemoryContext;
	Jsonb	   *body = sl_json_parse(fuzz_exact(data, len), len, ok);

	REQUIRE(CurrentMemoryContext == cxt);
	REQUIRE(*ok == (body != NULL));
	if (!*ok)
		return NULL;
	REQUIRE(JB_ROOT_IS_OBJECT(body));
	REQUIRE(memchr(data, '\0', len) == NULL);
	REQUIRE(pg_verify_mbstr(PG_UTF8, data, (int) len, true));
	return body;
}

/* How deep brackets are nested, more or less: those in strings count too. */
static int
depth(const char *data, size_t len)
{
	int			now = 0;
	int			most = 0;
	size_t		i;

	for (i = 0; i < len; i++)
	{
		if (data[i] == '{' || data[i] == '[')
			now++;
		most = Max(most, now);
		if (data[i] == '}' || data[i] == ']')
			now--;
	}
	return most;
}

void
fuzz_one(const char *data, size_t len)
{
	SlEventFlaw flaw;
	SlEvent		event;
	SlEventReading reading;
	Jsonb	   *body;
	Jsonb	   *again;
	char	   *text;
	bool		ok;

	reading = sl_event_read_text(fuzz_exact(data, len), len, &event, &flaw);
	REQUIRE(reading != SL_EVENT_FLAWED || is_known_flaw(&flaw));
	if (reading == SL_EVENT_READ)
		check_stored(&event);

	/* jsonb has no room for some numbers, and the scan for deep nesting */
	body = parse(data, len, &ok);
	if (!ok)
		return;
	REQUIRE(reading != SL_EVENT_NO_JSON || depth(data, len) > SL_JSON_MAX_DEPTH);

	/* as the server writes it, it says the same */
	text = JsonbToCString(NULL, &body->root, VARSIZE(body));
	again = parse(text, strlen(text), &ok);
	REQUIRE(ok && same_jsonb(body, again));

	body = fuzz_exact(body, VARSIZE(body));
	if (reading == SL_EVENT_READ)
	{
		compare_event(body, &event);
		compare_readings(&event, body);
	}
	else if (read_event(body, &event))
	{
		compare_event(body, &event);
		check_stored(&event);
	}
	check_answers(body);
}
