/*-------------------------------------------------------------------------
 *
 * work_limits.h
 *	  Limits on how long a piece of work may wait and run.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_WORK_LIMITS_H
#define SL_WORK_LIMITS_H

#include "datatype/timestamp.h"

/* What was in force before. */
typedef struct SlWorkLimits
{
	int			guc_level;
	bool		armed;			/* the statement timeout is ours */
	TimestampTz statement_end;	/* the one before, or 0 */
} SlWorkLimits;

/*
 * From here on: waits for a lock end after lock_ms, and the statement after
 * statement_ms, with PostgreSQL's own errors (55P03, 57014).  0 leaves either
 * as it is, and neither ever becomes longer than it was.
 */
extern void sl_limits_begin(SlWorkLimits *limits, int lock_ms,
							int statement_ms);

/* As before; raises the statement's timeout if it has just run out. */
extern void sl_limits_end(SlWorkLimits *limits);

/* The same on the way out with an error. */
extern void sl_limits_abandon(SlWorkLimits *limits);

/* Milliseconds that are left to the statement; -1 if it has no limit. */
extern int	sl_statement_time_left(void);

#endif							/* SL_WORK_LIMITS_H */
