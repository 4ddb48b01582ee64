/*-------------------------------------------------------------------------
 *
 * log_index.h
 *	  The checkpoints that were found in server logs.
 *
 * Anybody who can make a server log something can make it log what looks like
 * a checkpoint, so only those with a good signature count; and can have an old
 * one logged again, so repetitions are no offence, in whatever order.  Two
 * different checkpoints of one trail and number are: somebody has taken the
 * trail back and sealed it anew.
 *
 * The index keeps some hundred bytes of each checkpoint.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_LOG_INDEX_H
#define SL_LOG_INDEX_H

#include "checkpoint.h"
#include "checkpoint_key.h"

typedef struct SlLogEntry
{
	unsigned char trail[SL_CHECKPOINT_UUID_LEN];
	int64_t		number;
	int64_t		first_at;
	int64_t		last_at;
	unsigned char hash[SL_CHECKPOINT_HASH_LEN];
	unsigned char previous[SL_CHECKPOINT_HASH_LEN];
	bool		seen;			/* for who goes through them */
} SlLogEntry;

typedef struct SlLogIndex SlLogIndex;

/* Makes an empty one; NULL without memory.  Free it. */
extern SlLogIndex *sl_log_index_new(void);
extern void sl_log_index_free(SlLogIndex *index);

/*
 * Adds the checkpoint of a line of a log, if it has one that is signed by a key
 * of the ring.  False without memory.
 */
extern bool sl_log_index_add(SlLogIndex *index, const SlKeyRing *ring,
							 const char *line, size_t len);

/*
 * Sorts by trail and number, and drops repetitions.  Call it when all are
 * added, and before what follows.
 */
extern void sl_log_index_sort(SlLogIndex *index);

/* How many there are, and one of them. */
extern size_t sl_log_index_count(const SlLogIndex *index);
extern SlLogEntry *sl_log_index_entry(const SlLogIndex *index, size_t n);

/* How many lines looked like one and were not signed by a key of the ring. */
extern size_t sl_log_index_unsigned(const SlLogIndex *index);

/* The first entry of that trail and number; NULL if there is none. */
extern SlLogEntry *sl_log_index_find(const SlLogIndex *index,
									 const unsigned char *trail, int64_t number);

#endif							/* SL_LOG_INDEX_H */
