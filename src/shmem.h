/*-------------------------------------------------------------------------
 *
 * shmem.h
 *	  The library's areas of shared memory, each with a lock.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_SHMEM_H
#define SL_SHMEM_H

#include "storage/lwlock.h"

/* One room's area; static storage. */
typedef struct SlSharedArea
{
	const char *name;			/* of the memory and of the lock */
	Size		(*size) (void);

	/* In the postmaster; 'is_new': it has to be initialised. */
	void		(*attach) (void *memory, LWLock *lock, bool is_new);
	struct SlSharedArea *next;	/* set by sl_shared_area_add() */
} SlSharedArea;

/* from _PG_init, while the library is being preloaded */
extern void sl_shared_area_add(SlSharedArea *area);

#endif							/* SL_SHMEM_H */
