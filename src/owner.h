/*-------------------------------------------------------------------------
 *
 * owner.h
 *	  Whose payment is it, and which ones may a caller see?
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_OWNER_H
#define SL_OWNER_H

#include "utils/uuid.h"

/* On whose behalf a function was called. */
typedef struct SlCaller
{
	bool		separated;		/* a web request, and owners are in use: sees its
								 * own payments only */
	char	   *owner;			/* palloc'd; NULL: the request names nobody */
} SlCaller;

extern void sl_caller_read(SlCaller *caller);
extern bool sl_caller_may_see(const SlCaller *caller, const pg_uuid_t *payment);

#endif							/* SL_OWNER_H */
