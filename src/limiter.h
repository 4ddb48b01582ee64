/*-------------------------------------------------------------------------
 *
 * limiter.h
 *	  How many requests a client or a role may make.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_LIMITER_H
#define SL_LIMITER_H

/* Each with a rate and a burst of its own; see the settings. */
typedef enum SlLimit
{
	SL_LIMIT_ADDRESS,			/* requests of one client address */
	SL_LIMIT_ROLE,				/* requests of one role */
	SL_LIMIT_WEBHOOK,			/* unverified webhooks of one client address */
	SL_LIMITS
} SlLimit;

/* from _PG_init */
extern void sl_limiter_init(void);

/* Is any limit set, and no memory there to count in? */
extern bool sl_limiter_lacks_memory(void);

/*
 * Count a request of 'who', any bytes.  Returns 0 if it may go on, else the
 * milliseconds after which the next one may; 0 too where there is no limit,
 * or no shared memory to count in.
 */
extern int64 sl_limiter_take(SlLimit limit, const void *who, size_t len);

#endif							/* SL_LIMITER_H */
