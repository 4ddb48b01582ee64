/*-------------------------------------------------------------------------
 *
 * ingest.h
 *	  Applying verified events to payments.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_INGEST_H
#define SL_INGEST_H

#include "event_reader.h"
#include "store.h"

/* Why a stored event is looked at again. */
typedef enum SlAgain
{
	SL_AGAIN_JUDGE,				/* as if it had just arrived */
	SL_AGAIN_ACCEPT,			/* and never mind what it contradicts */
	SL_AGAIN_DISMISS			/* not at all, ever */
} SlAgain;

extern const char *sl_ingest_event(const SlEvent *event, const char *source,
								   const char *secret_label);
extern const char *sl_ingest_again(const char *event_id, SlAgain how,
								   bool *has_payment, pg_uuid_t *payment_id);
extern bool sl_lock_payment(const pg_uuid_t *id, SlRow *payment);
extern bool sl_link_intent(SlRow *payment, const char *intent_id,
						   bool livemode);
extern void sl_drain_parked(SlRow *payment);

#endif							/* SL_INGEST_H */
