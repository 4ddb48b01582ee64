/*-------------------------------------------------------------------------
 *
 * seal.h
 *	  Seals new transitions of the audit trail into signed checkpoints.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_SEAL_H
#define SL_SEAL_H

#include "datatype/timestamp.h"
#include "storage/lock.h"

#include "checkpoint.h"

/*
 * What the worker remembers from one look to the next.  Begin with zeroes, but
 * for the slot, and for cxt, which has to live as long.
 */
typedef struct SlSealing
{
	MemoryContext cxt;
	int			slot;			/* the worker's, see slots.h */
	int64		horizon;		/* seal up to this position; 0: not chosen */
	VirtualTransactionId *writers;	/* that must have ended before that, in cxt */
	int			nwriters;
	int			waits;			/* how often we have looked in vain */
	bool		held_up;		/* by what somebody may have mended */
} SlSealing;

/* is it to be done at all? */
extern bool sl_seal_is_on(void);

/* in a transaction of the worker's, with an open SPI connection */
extern bool sl_seal(SlSealing *s, SlCheckpoint *sealed, TimestampTz *next);

/* after it has been committed, or rolled back */
extern void sl_seal_announce(const SlCheckpoint *sealed);
extern TimestampTz sl_seal_failed(SlSealing *s, int sqlerrcode);

extern bool sl_seal_waits(const SlSealing *s);

#endif							/* SL_SEAL_H */
