/*-------------------------------------------------------------------------
 *
 * wake.h
 *	  How a committing backend tells the worker that there is work.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_WAKE_H
#define SL_WAKE_H

/* From _PG_init only, whether preloaded or not. */
extern void sl_wake_init(void);

/* Inside a transaction that queues work: wake the worker if it commits. */
extern void sl_wake_at_commit(void);

/* Is the library preloaded, and its launcher running? */
extern bool sl_worker_available(void);

#endif							/* SL_WAKE_H */
