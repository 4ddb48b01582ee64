/*-------------------------------------------------------------------------
 *
 * event_facts.c
 *	  What is looked at in a Stripe event: an allow-list.
 *
 * The tables below say where in an event stands what anybody here looks at.
 * Nothing else of it is kept, not even for a moment: of a webhook's text the
 * rest is passed over without a copy, and what is stored is made of these facts
 * alone, with card numbers, keys and secrets masked, since people write them
 * into any field.  What has a column of its own is not stored a second time.
 *
 * As in jsonb, the last of several members of one name counts.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "compat.h"
#include "event_facts.h"
#include "json_scan.h"
#include "privacy.h"

/* Longest number kept: any int64, and more decimals than money has. */
#define MAX_DIGITS 18

#define NO_FACT SL_FACT_COUNT
#define NO_PART SL_PART_COUNT

/* A member of a part. */
typedef struct Member
{
	const char *name;
	size_t		len;
	SlEventFact fact;			/* if it is a scalar, or NO_FACT */
	SlEventPart part;			/* if it is an object, or NO_PART */
	bool		expandable;		/* may be an object whose id is the fact */
	bool		number;			/* is a number by its nature */
} Member;

#define NAME(s)				s, sizeof(s) - 1
#define SCALAR(s, fact)		{NAME(s), fact, NO_PART, false, false}
#define NUMBER(s, fact)		{NAME(s), fact, NO_PART, false, true}
#define OBJECT_ID(s, fact)	{NAME(s), fact, NO_PART, true, false}
#define OBJECT(s, part)		{NAME(s), NO_FACT, part, false, false}
#define END					{NULL, 0, NO_FACT, NO_PART, false, false}

static const Member event_members[] = {
	SCALAR("id", SL_FACT_EVENT_ID),
	OBJECT("data", SL_PART_DATA),
	SCALAR("type", SL_FACT_EVENT_TYPE),
	SCALAR("object", SL_FACT_EVENT_KIND),
	SCALAR("account", SL_FACT_EVENT_ACCOUNT),
	NUMBER("created", SL_FACT_EVENT_CREATED),
	OBJECT("request", SL_PART_REQUEST),
	SCALAR("livemode", SL_FACT_EVENT_LIVEMODE),
	SCALAR("api_version", SL_FACT_EVENT_API_VERSION),
	END
};
static const Member request_members[] = {
	SCALAR("id", SL_FACT_REQUEST_ID),
	END
};
static const Member data_members[] = {
	OBJECT("object", SL_PART_OBJECT),
	END
};
static const Member object_members[] = {
	SCALAR("id", SL_FACT_ID),
	NUMBER("amount", SL_FACT_AMOUNT),
	SCALAR("charge", SL_FACT_CHARGE),
	SCALAR("object", SL_FACT_KIND),
	SCALAR("reason", SL_FACT_REASON),
	SCALAR("status", SL_FACT_STATUS),
	SCALAR("captured", SL_FACT_CAPTURED),
	SCALAR("currency", SL_FACT_CURRENCY),
	OBJECT("metadata", SL_PART_METADATA),
	NUMBER("canceled_at", SL_FACT_CANCELED_AT),
	OBJECT_ID("latest_charge", SL_FACT_LATEST_CHARGE),
	OBJECT_ID("payment_intent", SL_FACT_PAYMENT_INTENT),
	NUMBER("amount_received", SL_FACT_AMOUNT_RECEIVED),
	NUMBER("amount_refunded", SL_FACT_AMOUNT_REFUNDED),
	NUMBER("amount_capturable", SL_FACT_AMOUNT_CAPTURABLE),
	OBJECT("last_payment_error", SL_PART_ERROR),
	SCALAR("cancellation_reason", SL_FACT_CANCELLATION_REASON),
	END
};
static const Member error_members[] = {
	SCALAR("code", SL_FACT_ERROR_CODE),
	SCALAR("type", SL_FACT_ERROR_TYPE),
	SCALAR("param", SL_FACT_ERROR_PARAM),
	SCALAR("message", SL_FACT_ERROR_MESSAGE),
	SCALAR("advice_code", SL_FACT_ERROR_ADVICE_CODE),
	SCALAR("decline_code", SL_FACT_ERROR_DECLINE_CODE),
	SCALAR("network_decline_code", SL_FACT_ERROR_NETWORK_DECLINE_CODE),
	END
};
static const Member metadata_members[] = {
	SCALAR(SL_METADATA_KEY, SL_FACT_PAYMENT_ID),
	END
};

static const Member *const members_of[SL_PART_COUNT] = {
	event_members, request_members, data_members, object_members,
	error_members, metadata_members
};

/* Forget a part and all that is in it: it begins, perhaps not for the first time. */
static void
begin_part(SlEventFacts *facts, SlEventPart part)
{
	const Member *m;

	if (facts->present[part])
		for (m = members_of[part]; m->name != NULL; m++)
		{
			if (m->fact != NO_FACT)
				facts->fact[m->fact].type = SL_FACT_ABSENT;
			if (m->part != NO_PART && facts->present[m->part])
			{
				begin_part(facts, m->part);
				facts->present[m->part] = false;
			}
		}
	facts->present[part] = true;
}

/* ---------- out of a text ---------- */

static void walk(SlJsonScan *s, SlEventFacts *facts, SlEventPart part);

/* The text of a token, without its escapes. */
static const char *
token_text(const SlJsonScan *s, int *len)
{
	char	   *text;

	*len = (int) s->token_len;
	if (!s->token_escaped)
		return s->token;
	text = palloc(s->token_len);
	*len = (int) sl_json_unescape(s->token, s->token_len, text);
	return text;
}

/* The member of the key that the scan is at, or NULL if it is none of ours. */
static const Member *
find_member(const SlJsonScan *s, SlEventPart part)
{
	int			len;
	const char *name = token_text(s, &len);
	const Member *m;

	for (m = members_of[part]; m->name != NULL; m++)
		if (m->len == (size_t) len && memcmp(m->name, name, m->len) == 0)
			return m;
	return NULL;
}

/* Pass over the rest of an object or array that the scan has entered. */
static void
skip_rest(SlJsonScan *s, SlJsonType type)
{
	while (type == SL_JSON_OBJECT ? sl_json_next_key(s) : sl_json_next_element(s))
		sl_json_skip(s);
}

/* Take a scalar that the scan has just met.  Of numbers those that Stripe
 * would send: 1e999999 is none, and no numeric could hold it. */
static void
take_token(const SlJsonScan *s, SlJsonType type, SlFact *fact)
{
	fact->type = SL_FACT_ABSENT;
	switch (type)
	{
		case SL_JSON_STRING:
			fact->type = SL_FACT_STRING;
			fact->text = token_text(s, &fact->len);
			break;
		case SL_JSON_NUMBER:
			if (s->token_len > MAX_DIGITS ||
				memchr(s->token, 'e', s->token_len) != NULL ||
				memchr(s->token, 'E', s->token_len) != NULL)
				break;
			fact->type = SL_FACT_NUMBER;
			fact->text = s->token;
			fact->len = (int) s->token_len;
			break;
		case SL_JSON_TRUE:
		case SL_JSON_FALSE:
			fact->type = SL_FACT_BOOLEAN;
			fact->boolean = type == SL_JSON_TRUE;
			break;
		default:
			break;
	}
}

/* An object in place of an id: its id. */
static void
take_expanded(SlJsonScan *s, SlFact *fact)
{
	while (sl_json_next_key(s))
	{
		SlJsonType	type;
		int			len;
		const char *name = token_text(s, &len);

		if (len != 2 || memcmp(name, "id", 2) != 0)
		{
			sl_json_skip(s);
			continue;
		}
		type = sl_json_value(s);
		if (type == SL_JSON_OBJECT || type == SL_JSON_ARRAY)
			skip_rest(s, type);
		take_token(s, type, fact);
	}
}

static void
take_member(SlJsonScan *s, SlEventFacts *facts, const Member *m)
{
	SlJsonType	type = sl_json_value(s);

	if (m->part != NO_PART)
	{
		begin_part(facts, m->part);
		if (type == SL_JSON_OBJECT)
		{
			walk(s, facts, m->part);
			return;
		}
		facts->present[m->part] = false;
	}
	else
	{
		facts->fact[m->fact].type = SL_FACT_ABSENT;
		if (type == SL_JSON_OBJECT && m->expandable)
		{
			take_expanded(s, &facts->fact[m->fact]);
			return;
		}
		take_token(s, type, &facts->fact[m->fact]);
	}
	if (type == SL_JSON_OBJECT || type == SL_JSON_ARRAY)
		skip_rest(s, type);
}

/* Go through the object of a part, which the scan has just entered. */
static void
walk(SlJsonScan *s, SlEventFacts *facts, SlEventPart part)
{
	while (sl_json_next_key(s))
	{
		const Member *m = find_member(s, part);

		if (m == NULL)
			sl_json_skip(s);
		else
			take_member(s, facts, m);
	}
}

/*
 * Out of bytes; false if they are no JSON object in UTF-8, which nobody has
 * checked yet.  The facts' texts are parts of it.
 */
bool
sl_facts_of_text(const char *text, size_t len, SlEventFacts *facts)
{
	SlJsonScan	s;

	memset(facts, 0, sizeof(*facts));
	if (!pg_verify_mbstr(PG_UTF8, text, (int) len, true))
		return false;
	sl_json_begin(&s, text, len);
	if (sl_json_value(&s) != SL_JSON_OBJECT)
		return false;
	begin_part(facts, SL_PART_EVENT);
	walk(&s, facts, SL_PART_EVENT);
	return sl_json_end(&s);
}

/* ---------- out of jsonb ---------- */

static void
take_value(const JsonbValue *v, SlFact *fact)
{
	switch (v->type)
	{
		case jbvString:
			fact->type = SL_FACT_STRING;
			fact->text = v->val.string.val;
			fact->len = v->val.string.len;
			break;
		case jbvNumeric:
			fact->type = SL_FACT_NUMBER;
			fact->text = DatumGetCString(DirectFunctionCall1(numeric_out,
															 NumericGetDatum(v->val.numeric)));
			fact->len = (int) strlen(fact->text);
			if (fact->len > MAX_DIGITS)
				fact->type = SL_FACT_ABSENT;
			break;
		case jbvBool:
			fact->type = SL_FACT_BOOLEAN;
			fact->boolean = v->val.boolean;
			break;
		default:
			break;
	}
}

static void
look_into(JsonbContainer *object, SlEventFacts *facts, SlEventPart part)
{
	const Member *m;

	facts->present[part] = true;
	for (m = members_of[part]; m->name != NULL; m++)
	{
		JsonbValue	buf;
		JsonbValue *v = getKeyJsonValueFromContainer(object, m->name, m->len, &buf);

		if (v == NULL)
			continue;
		if (v->type == jbvBinary && JsonContainerIsObject(v->val.binary.data))
		{
			if (m->part != NO_PART)
				look_into(v->val.binary.data, facts, m->part);
			else if (m->expandable &&
					 (v = getKeyJsonValueFromContainer(v->val.binary.data, "id", 2,
													   &buf)) != NULL)
				take_value(v, &facts->fact[m->fact]);
		}
		else if (m->fact != NO_FACT)
			take_value(v, &facts->fact[m->fact]);
	}
}

/* Out of jsonb, an object.  The facts' texts are parts of it, or palloc'd. */
void
sl_facts_of_jsonb(Jsonb *event, SlEventFacts *facts)
{
	memset(facts, 0, sizeof(*facts));
	look_into(&event->root, facts, SL_PART_EVENT);
}

/* ---------- what is stored ---------- */

static void
push_name(SlJsonbBuilder *out, const char *name, size_t len)
{
	JsonbValue	k;

	k.type = jbvString;
	k.val.string.val = unconstify(char *, name);
	k.val.string.len = (int) len;
	sl_jsonb_push(out, WJB_KEY, &k);
}

static void
set_string(JsonbValue *v, char *s)
{
	v->type = jbvString;
	v->val.string.val = s;
	v->val.string.len = (int) strlen(s);
}

/* Is a number really one, or digits that should not be stored? */
static void
set_number(JsonbValue *v, const SlFact *fact, bool by_nature)
{
	char	   *digits = pnstrdup(fact->text, fact->len);
	char	   *masked = by_nature ? digits : sl_redacted(digits);

	if (strcmp(digits, masked) != 0)
		set_string(v, masked);
	else
	{
		v->type = jbvNumeric;
		if (strchr(digits, '.') == NULL)
			v->val.numeric = int64_to_numeric(strtoll(digits, NULL, 10));
		else
			v->val.numeric = DatumGetNumeric(DirectFunctionCall3(numeric_in,
																 CStringGetDatum(digits),
																 ObjectIdGetDatum(InvalidOid),
																 Int32GetDatum(-1)));
	}
}

static void
push_fact(SlJsonbBuilder *out, const Member *m, const SlFact *fact)
{
	JsonbValue	v;

	switch (fact->type)
	{
		case SL_FACT_STRING:
			set_string(&v, sl_redacted(pnstrdup(fact->text, fact->len)));
			break;
		case SL_FACT_NUMBER:
			set_number(&v, fact, m->number);
			break;
		case SL_FACT_BOOLEAN:
			v.type = jbvBool;
			v.val.boolean = fact->boolean;
			break;
		default:
			return;
	}
	push_name(out, m->name, m->len);
	sl_jsonb_push(out, WJB_VALUE, &v);
}

/* The facts of a part that are stored, and the parts in it. */
static void
push_part(SlJsonbBuilder *out, const SlEventFacts *facts, SlEventPart part,
		  bool with_payment_id)
{
	const Member *m;

	for (m = members_of[part]; m->name != NULL; m++)
	{
		if (m->fact != NO_FACT)
		{
			if (m->fact >= SL_FACT_AMOUNT)
				push_fact(out, m, &facts->fact[m->fact]);
		}
		else if (facts->present[m->part] &&
				 (m->part != SL_PART_METADATA || with_payment_id))
		{
			push_name(out, m->name, m->len);
			sl_jsonb_push(out, WJB_BEGIN_OBJECT, NULL);
			push_part(out, facts, m->part, with_payment_id);
			sl_jsonb_push(out, WJB_END_OBJECT, NULL);
		}
	}
}

/* What is stored of an event, in its own shape, besides the columns. */
Jsonb *
sl_facts_stored(const SlEventFacts *facts, bool with_payment_id)
{
	SlJsonbBuilder out = {0};

	sl_jsonb_push(&out, WJB_BEGIN_OBJECT, NULL);
	push_part(&out, facts, SL_PART_EVENT, with_payment_id);
	sl_jsonb_push(&out, WJB_END_OBJECT, NULL);
	return sl_jsonb_built(&out);
}

/* What is stored of a payment's last error; NULL if the event has none. */
Jsonb *
sl_facts_error(const SlEventFacts *facts, const char *source)
{
	SlJsonbBuilder out = {0};
	JsonbValue	v;

	if (!facts->present[SL_PART_ERROR])
		return NULL;
	sl_jsonb_push(&out, WJB_BEGIN_OBJECT, NULL);
	push_name(&out, NAME("source"));
	set_string(&v, pstrdup(source));
	sl_jsonb_push(&out, WJB_VALUE, &v);
	push_part(&out, facts, SL_PART_ERROR, false);
	sl_jsonb_push(&out, WJB_END_OBJECT, NULL);
	return sl_jsonb_built(&out);
}
