/*-------------------------------------------------------------------------
 *
 * settle.h
 *	  Storing what came of a call to Stripe.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_SETTLE_H
#define SL_SETTLE_H

#include "outbox.h"

extern void sl_outbox_settle(const SlApiCall *call, const SlApiResult *result);

#endif							/* SL_SETTLE_H */
