/*-------------------------------------------------------------------------
 *
 * audit.h
 *	  The audit trail: makes its rows, hashes them, replays them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_AUDIT_H
#define SL_AUDIT_H

#include "audit_hash.h"
#include "store.h"

/* Why a payment is made or moved. */
typedef struct SlCause
{
	const char *source;
	const char *event_id;		/* these three NULL/0 without an event */
	const char *event_type;
	TimestampTz event_created;
	const char *note;			/* or NULL */
} SlCause;

/*
 * Told of each break that a replay finds.  seq is 0 for a break of the whole
 * payment.  problem is one of a few constant labels, detail a sentence.
 */
typedef void (*SlBreakCallback) (void *arg, int seq, const char *problem,
								 const char *detail);

/* A payment's trail, replayed row by row. */
typedef struct SlReplay
{
	SlBreakCallback report;
	void	   *arg;
	int			rows;			/* seen */
	int			seq;			/* of the latest; these only if rows > 0 */
	SlState		state;
	TimestampTz at;
	int64		amount;
	char		currency[8];
	bool		has_livemode;
	bool		livemode;
	unsigned char hash[SL_AUDIT_HASH_LEN];	/* as it is stored */
} SlReplay;

/* 1970-01-01 in microseconds since PostgreSQL's epoch, 2000-01-01. */
#define SL_UNIX_EPOCH_USECS \
	((int64) (UNIX_EPOCH_JDATE - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY)

/* bytes for any sl_audit_text() that is written into a buffer */
#define SL_AUDIT_TEXT_SIZE	40

extern const char *sl_audit_time_text(TimestampTz t,
									  char buf[SL_AUDIT_TIME_SIZE]);
extern const char *sl_audit_text(SlTransitionColumn column, Datum value,
								 char buf[SL_AUDIT_TEXT_SIZE], size_t *len);
extern void sl_audit_record(SlRow *payment, SlState from, const SlCause *cause,
							SlRow *transition);

extern void sl_replay_begin(SlReplay *replay, SlBreakCallback report,
							void *arg);
extern void sl_replay_row(SlReplay *replay, const SlRow *transition);
extern void sl_replay_end(SlReplay *replay, const SlRow *payment);

#endif							/* SL_AUDIT_H */
