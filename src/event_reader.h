/*-------------------------------------------------------------------------
 *
 * event_reader.h
 *	  What the extension reads out of a Stripe event.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_EVENT_READER_H
#define SL_EVENT_READER_H

#include "utils/jsonb.h"
#include "utils/uuid.h"

#include "event_facts.h"

/* Strings are palloc'd in the context current at its reading; NULL = absent. */
typedef struct SlEvent
{
	char	   *id;
	char	   *type;
	int64		created;		/* Unix seconds */
	bool		livemode;
	char	   *api_version;
	char	   *account;
	char	   *object_id;
	char	   *payment_intent_id;	/* of whatever object the event is about */
	bool		is_payment_intent;	/* data.object is a PaymentIntent */

	/* the rest only if is_payment_intent */
	char	   *status;
	int64		amount;
	char	   *currency;
	int64		amount_capturable;
	int64		amount_received;
	char	   *latest_charge;
	char	   *cancellation_reason;
	Jsonb	   *last_error;		/* reduced last_payment_error, or NULL */
	bool		has_payment_id;
	pg_uuid_t	payment_id;		/* from the metadata */

	SlEventFacts facts;			/* of which all this was read */
} SlEvent;

typedef enum SlEventReading
{
	SL_EVENT_READ,
	SL_EVENT_NO_JSON,			/* not an object in JSON and UTF-8 */
	SL_EVENT_FLAWED				/* not an event */
} SlEventReading;

/* Why something is no event; constant storage. */
typedef struct SlEventFlaw
{
	const char *field;
	const char *what;
} SlEventFlaw;

/* A PaymentIntent as the API answers it; same lifetimes. */
typedef struct SlIntent
{
	char	   *id;
	char	   *client_secret;
	char	   *status;
	bool		livemode;
	Jsonb	   *last_error;		/* reduced last_payment_error, or NULL */
	bool		has_payment_id;
	pg_uuid_t	payment_id;		/* from the metadata */
} SlIntent;

/* A page of one of the API's lists. */
typedef struct SlList
{
	int			n;
	Jsonb	  **items;
	bool		has_more;
} SlList;

/* An API error as the API answers it, with the intent it may contain. */
typedef struct SlApiError
{
	Jsonb	   *reduced;		/* type, code, decline_code, message, param */
	char	   *type;
	char	   *code;
	bool		has_intent;
	SlIntent	intent;
} SlApiError;

extern Jsonb *sl_json_parse(const char *text, size_t len, bool *ok);
extern Jsonb *sl_json_parse_any(const char *text, size_t len);
extern SlEventReading sl_event_read_text(const char *text, size_t len,
										 SlEvent *event, SlEventFlaw *flaw);
extern void sl_event_refuse(const SlEventFlaw *flaw);
extern void sl_event_read(Jsonb *body, SlEvent *event);
extern void sl_event_restore(SlEvent *event, Jsonb *payload);
extern Jsonb *sl_event_stored(const SlEvent *event, bool has_payment);
extern bool sl_intent_read(Jsonb *body, SlIntent *intent);
extern bool sl_list_read(Jsonb *body, SlList *list);
extern bool sl_list_next(const SlList *list, char **after);
extern char *sl_object_id(Jsonb *object);
extern bool sl_id_is_plain(const char *id);
extern bool sl_object_created(Jsonb *object, int64 *created);
extern bool sl_api_error_read(Jsonb *body, const char *operation,
							  int http_status, SlApiError *error);
extern Jsonb *sl_error_object(const char *source, const char *code,
							  const char *message);

#endif							/* SL_EVENT_READER_H */
