/*-------------------------------------------------------------------------
 *
 * checkpoint_store.h
 *	  Checkpoints and the transitions they seal, as they are in the tables.
 *
 * All functions need an open SPI connection unless they say otherwise.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_CHECKPOINT_STORE_H
#define SL_CHECKPOINT_STORE_H

#include "checkpoint.h"
#include "store.h"

/* What a checkpoint says of one transition. */
typedef struct SlLeaf
{
	int64		position;
	int64		at;				/* in microseconds since 1970 */
	const unsigned char *hash;	/* valid until the next one is asked for */
} SlLeaf;

/* Rows of one of the two tables, read in batches: memory stays the same. */
typedef struct SlRows
{
	Portal		portal;
	uint64		n;				/* in SPI's current batch */
	uint64		next;
	SPITupleTable *batch;
} SlRows;

extern int64 sl_unix_time(TimestampTz t);

/* needs no SPI connection */
extern bool sl_checkpoint_of_row(const SlRow *row, SlCheckpoint *c);

extern bool sl_newest_checkpoint(bool callers_snapshot, SlCheckpoint *c);
extern bool sl_insert_checkpoint(const SlCheckpoint *c);
extern int64 sl_last_position(void);

extern void sl_open_checkpoints(SlRows *rows, int64 from_number, int64 to_number);
extern bool sl_next_checkpoint(SlRows *rows, SlCheckpoint *c);
extern int64 sl_position_above(int64 position);
extern void sl_open_transitions(SlRows *rows, int64 from_position,
								int64 to_position, int64 limit,
								bool callers_snapshot);
extern bool sl_next_transition(SlRows *rows, SlLeaf *leaf);
extern void sl_close_rows(SlRows *rows);

#endif							/* SL_CHECKPOINT_STORE_H */
