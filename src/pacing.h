/*-------------------------------------------------------------------------
 *
 * pacing.h
 *	  How many requests per second each Stripe account gets from this server.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_PACING_H
#define SL_PACING_H

#include "datatype/timestamp.h"

/* from _PG_init */
extern void sl_pacing_init(void);

/* Whose rate is meant; account may be NULL or "": the key's own. */
extern uint64 sl_pacing_id(const char *api_key, const char *account);

/* How many of 'wanted' requests may be sent now; the rest has to be returned. */
extern int	sl_pacing_take(uint64 id, int wanted);
extern void sl_pacing_give_back(uint64 id, int n);

extern bool sl_pacing_take_one(uint64 id, TimestampTz now,
							   TimestampTz *wait_until);

/* How long until one more may be sent; 0: now. */
extern int64 sl_pacing_delay_ms(uint64 id);

/* Stripe said that this account has had too many requests. */
extern void sl_pacing_throttled(uint64 id);

#endif							/* SL_PACING_H */
