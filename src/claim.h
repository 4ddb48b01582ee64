/*-------------------------------------------------------------------------
 *
 * claim.h
 *	  Which requests may be sent now, and when to look at the queue again.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_CLAIM_H
#define SL_CLAIM_H

#include "outbox.h"

/* Something is due but can't be claimed, as when somebody has it locked. */
#define SL_LOCKED_PAUSE_MS	1000

typedef struct SlClaim
{
	List	   *calls;			/* of SlApiCall, claimed */
	TimestampTz next_due;		/* look again then; DT_NOEND: nothing waits */
	bool		more;			/* look again at once, if there is room */
	bool		careful;		/* row by row, since one of them may be bad */
	int			passed_over;	/* error of one that was neither claimed nor set
								 * aside, packed; 0: there was none */
} SlClaim;

extern void sl_claim(const char *api_key, int room, int lease_ms,
					 MemoryContext cxt, SlClaim *claim);

#endif							/* SL_CLAIM_H */
