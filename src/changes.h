/*-------------------------------------------------------------------------
 *
 * changes.h
 *	  How sessions that wait for news of a payment hear of a commit.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_CHANGES_H
#define SL_CHANGES_H

#include "utils/uuid.h"

/* from _PG_init */
extern void sl_changes_init(void);

/* This transaction changes something about a payment. */
extern void sl_changes_note(const pg_uuid_t *payment);

/* It may change any of them: some prepared transaction is being committed. */
extern void sl_changes_note_any(void);

/* If not, who waits has to look now and then. */
extern bool sl_changes_are_counted(void);

/*
 * How often something about this payment was committed, or about one of the
 * few that it shares a counter with.
 */
extern uint64 sl_changes_count(const pg_uuid_t *payment);

/*
 * Sleep until that number is another one, or for so many milliseconds at most,
 * or, where nobody counts, for as long as is reasonable before looking again.
 * May raise what an interrupt brings.
 */
extern void sl_changes_wait(const pg_uuid_t *payment, uint64 seen, int64 ms);

/*
 * Take one of 'limit' places for sessions that wait on behalf of HTTP
 * requests; false if none is free.  Given back, or lost with the session.
 */
extern bool sl_changes_enter(int limit);
extern void sl_changes_leave(void);

#endif							/* SL_CHANGES_H */
