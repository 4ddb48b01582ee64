/*-------------------------------------------------------------------------
 *
 * probe.h
 *	  Questions that the worker asks Stripe of its own accord.
 *
 * All functions run in the caller's transaction with an open SPI connection.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_PROBE_H
#define SL_PROBE_H

#include "claim.h"

extern int	sl_probe_room(int room, int under_way);
extern void sl_probe_claim(const char *api_key, int room, int lease_ms,
						   MemoryContext cxt, SlClaim *claim);
extern void sl_probe_settle(const SlApiCall *call, const SlApiResult *result);
extern void sl_probe_set_aside(const SlApiCall *call, const char *sqlstate);
extern void sl_probe_recover(void);

#endif							/* SL_PROBE_H */
