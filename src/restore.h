/*-------------------------------------------------------------------------
 *
 * restore.h
 *	  Rows that come from a dump: whether they are taken.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_RESTORE_H
#define SL_RESTORE_H

#include "store.h"

extern bool sl_take_restored(Relation rel, SlTableId table, const SlRow *row);

#endif							/* SL_RESTORE_H */
