/*-------------------------------------------------------------------------
 *
 * subxact.h
 *	  Running something that may fail without losing the transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_SUBXACT_H
#define SL_SUBXACT_H

/*
 * Call action(arg) in a subtransaction, in the current memory context.  NULL,
 * or what went wrong: then the subtransaction has been rolled back, and the
 * error is the caller's, in the current memory context.
 */
extern ErrorData *sl_try(void (*action) (void *arg), void *arg);

#endif							/* SL_SUBXACT_H */
