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

extern const char *sl_ingest_event(const SlEvent *event, const char *source,
								   const char *secret_label);
extern bool sl_lock_payment(const pg_uuid_t *id, SlRow *payment);
extern bool sl_link_intent(SlRow *payment, const char *intent_id,
						   bool livemode);
extern void sl_drain_parked(SlRow *payment);

#endif							/* SL_INGEST_H */
