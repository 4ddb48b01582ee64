/*-------------------------------------------------------------------------
 *
 * settle.h
 *	  Storing what came of a call to Stripe.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_SETTLE_H
#define SL_SETTLE_H

#include "event_reader.h"
#include "outbox.h"

extern void sl_outbox_settle(const SlApiCall *call, const SlApiResult *result);

/* for look-ups, which settle by other evidence */
extern void sl_record_attempt(const SlApiCall *call, const SlApiResult *result,
							  SlOutcome outcome, const SlApiError *err,
							  TimestampTz now);
extern bool sl_lock_request(const SlApiCall *call, SlRow *payment,
							SlRow *request);
extern Jsonb *sl_adopt_intent(SlRow *payment, const SlIntent *intent,
							  TimestampTz now);
extern void sl_show_rejection(SlRow *payment, Jsonb *error, TimestampTz now);
extern void sl_reject_waiting(const SlRow *payment, TimestampTz now);

#endif							/* SL_SETTLE_H */
