/*-------------------------------------------------------------------------
 *
 * rejections.h
 *	  What operators may know of webhooks that were turned away.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_REJECTIONS_H
#define SL_REJECTIONS_H

#include "client_address.h"

/* Why a delivery was not taken in; the order is that of stats.h's counters. */
typedef enum SlRefusal
{
	SL_REFUSED_BAD_SIGNATURE,
	SL_REFUSED_STALE,
	SL_REFUSED_MALFORMED,		/* the header */
	SL_REFUSED_TOO_LARGE,
	SL_REFUSED_BAD_BODY,
	SL_REFUSED_BAD_EVENT,
	SL_REFUSED_NO_SECRET,
	SL_REFUSED_WRONG_MODE,
	SL_REFUSED_UNAVAILABLE,		/* the same delivery may succeed later */
	SL_REFUSED_FAILED,			/* an error that nobody foresaw */
	SL_REFUSALS,
	SL_NOT_REFUSED = -1
} SlRefusal;

typedef struct SlRejection
{
	SlRefusal	why;
	int64		size;			/* of the body, in bytes; -1: no body */
	bool		has_skew;		/* the header had a time */
	int64		skew;			/* that time minus ours, in seconds */
	SlAddress	sender;			/* as a bucket */
} SlRejection;

/* from _PG_init */
extern void sl_rejections_init(void);

/* Does nothing where the library is not preloaded; cannot fail. */
extern void sl_rejection_note(const SlRejection *rejection);

/* Constant storage. */
extern const char *sl_refusal_name(SlRefusal why);

#endif							/* SL_REJECTIONS_H */
