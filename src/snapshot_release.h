/*-------------------------------------------------------------------------
 *
 * snapshot_release.h
 *	  Lets a function wait without keeping a snapshot, where that is safe.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_SNAPSHOT_RELEASE_H
#define SL_SNAPSHOT_RELEASE_H

#include "fmgr.h"

/*
 * Let go of the snapshot of the statement that called this function.  False,
 * and nothing has happened, where that is not known to be safe.  After true
 * the caller reads nothing without a snapshot of its own, keeps nothing it has
 * read by reference, and calls sl_snapshot_take_back() before it returns; if
 * it raises an error instead, nothing is left to be done.
 */
extern bool sl_snapshot_release(FunctionCallInfo fcinfo);
extern void sl_snapshot_take_back(void);

#endif							/* SL_SNAPSHOT_RELEASE_H */
