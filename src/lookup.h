/*-------------------------------------------------------------------------
 *
 * lookup.h
 *	  Asking Stripe what became of a request, or how a PaymentIntent stands.
 *
 * All functions run in the caller's transaction with an open SPI connection.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_LOOKUP_H
#define SL_LOOKUP_H

#include "claim.h"

extern void sl_lookup_claim(const char *api_key, int room, int lease_ms,
							MemoryContext cxt, SlClaim *claim);
extern void sl_lookup_settle(const SlApiCall *call, const SlApiResult *result);
extern void sl_lookup_set_aside(const SlApiCall *call, const char *sqlstate);

#endif							/* SL_LOOKUP_H */
