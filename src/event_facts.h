/*-------------------------------------------------------------------------
 *
 * event_facts.h
 *	  What is looked at in a Stripe event, wherever the event comes from: as
 *	  text, as jsonb, or as a reduced copy that was stored.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_EVENT_FACTS_H
#define SL_EVENT_FACTS_H

#include "utils/jsonb.h"

/* Key of the PaymentIntent's metadata that carries the payment's id. */
#define SL_METADATA_KEY "stripe_lifecycle_payment_id"

/* The objects in an event of which something is looked at. */
typedef enum SlEventPart
{
	SL_PART_EVENT,
	SL_PART_REQUEST,
	SL_PART_DATA,
	SL_PART_OBJECT,				/* data.object */
	SL_PART_ERROR,				/* its last_payment_error */
	SL_PART_METADATA,			/* its metadata */
	SL_PART_COUNT
} SlEventPart;

/* Scalars, in the order in which they are stored.  Those of data.object have
 * no word for it in their names. */
typedef enum SlEventFact
{
	/* the event itself; these have columns of their own and are not stored */
	SL_FACT_EVENT_ID, SL_FACT_EVENT_TYPE, SL_FACT_EVENT_KIND,
	SL_FACT_EVENT_ACCOUNT, SL_FACT_EVENT_CREATED, SL_FACT_EVENT_LIVEMODE,
	SL_FACT_EVENT_API_VERSION, SL_FACT_ID, SL_FACT_KIND,
	/* the rest is stored */
	SL_FACT_AMOUNT, SL_FACT_CHARGE, SL_FACT_REASON, SL_FACT_STATUS,
	SL_FACT_CAPTURED, SL_FACT_CURRENCY, SL_FACT_CANCELED_AT,
	SL_FACT_LATEST_CHARGE, SL_FACT_PAYMENT_INTENT, SL_FACT_AMOUNT_RECEIVED,
	SL_FACT_AMOUNT_REFUNDED, SL_FACT_AMOUNT_CAPTURABLE,
	SL_FACT_CANCELLATION_REASON,
	SL_FACT_PAYMENT_ID,			/* metadata; stored where asked for */
	SL_FACT_ERROR_CODE, SL_FACT_ERROR_TYPE, SL_FACT_ERROR_PARAM,
	SL_FACT_ERROR_MESSAGE, SL_FACT_ERROR_ADVICE_CODE,
	SL_FACT_ERROR_DECLINE_CODE, SL_FACT_ERROR_NETWORK_DECLINE_CODE,
	SL_FACT_REQUEST_ID,
	SL_FACT_COUNT
} SlEventFact;

typedef enum SlFactType
{
	SL_FACT_ABSENT,				/* or null */
	SL_FACT_STRING,
	SL_FACT_NUMBER,				/* its text, in JSON's notation */
	SL_FACT_BOOLEAN
} SlFactType;

/* The text is the source's own, or palloc'd; it has no NUL at its end. */
typedef struct SlFact
{
	SlFactType	type;
	bool		boolean;
	const char *text;
	int			len;
} SlFact;

typedef struct SlEventFacts
{
	bool		present[SL_PART_COUNT]; /* is it there, and an object? */
	SlFact		fact[SL_FACT_COUNT];
} SlEventFacts;

extern bool sl_facts_of_text(const char *text, size_t len, SlEventFacts *facts);
extern void sl_facts_of_jsonb(Jsonb *event, SlEventFacts *facts);
extern Jsonb *sl_facts_stored(const SlEventFacts *facts, bool with_payment_id);
extern Jsonb *sl_facts_error(const SlEventFacts *facts, const char *source);

#endif							/* SL_EVENT_FACTS_H */
