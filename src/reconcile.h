/*-------------------------------------------------------------------------
 *
 * reconcile.h
 *	  Reading Stripe's own list of events, for webhooks that never came.
 *
 * All functions run in the caller's transaction with an open SPI connection.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_RECONCILE_H
#define SL_RECONCILE_H

#include "claim.h"
#include "store.h"

/* for those who store what Stripe says of a payment */
extern void sl_reconcile_account(const SlRow *payment);
extern void sl_reconcile_rewind(const SlRow *payment);

/* for the worker */
extern void sl_reconcile_claim(const char *api_key, int room, int lease_ms,
							   MemoryContext cxt, SlClaim *claim);
extern void sl_reconcile_settle(const SlApiCall *call,
								const SlApiResult *result);
extern void sl_reconcile_set_aside(const SlApiCall *call,
								   const char *sqlstate);
extern void sl_reconcile_recover(void);

#endif							/* SL_RECONCILE_H */
