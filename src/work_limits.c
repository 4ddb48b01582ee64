/*-------------------------------------------------------------------------
 *
 * work_limits.c
 *	  Limits on how long a piece of work may wait and run.
 *
 * A function's own SET statement_timeout does nothing: PostgreSQL starts that
 * clock when a statement begins, and the function is called later.  So the
 * clock itself is set here.  lock_timeout is read at each wait, and setting it
 * is enough.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "work_limits.h"

void
sl_limits_begin(SlWorkLimits *limits, int lock_ms, int statement_ms)
{
	TimestampTz end;

	limits->guc_level = NewGUCNestLevel();
	if (lock_ms > 0 && (LockTimeout == 0 || LockTimeout > lock_ms))
	{
		char		value[16];

		snprintf(value, sizeof(value), "%dms", lock_ms);
		(void) set_config_option("lock_timeout", value, PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	}

	limits->armed = false;
	limits->statement_end = 0;
	if (statement_ms <= 0)
		return;
	end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), statement_ms);
	if (get_timeout_active(STATEMENT_TIMEOUT))
		limits->statement_end = get_timeout_finish_time(STATEMENT_TIMEOUT);
	if (limits->statement_end == 0 || limits->statement_end > end)
	{
		limits->armed = true;
		enable_timeout_at(STATEMENT_TIMEOUT, end);
	}
}

/* The statement's clock as it was. */
static void
give_clock_back(SlWorkLimits *limits)
{
	if (!limits->armed)
		return;
	limits->armed = false;
	disable_timeout(STATEMENT_TIMEOUT, false);
	if (limits->statement_end != 0)
		enable_timeout_at(STATEMENT_TIMEOUT, limits->statement_end);
}

/*
 * The alarm may go off at any moment until it is disabled.  What it leaves is
 * an interrupt that says so; if nobody took that here, it would end whatever
 * this session does next, and not know why.
 */
void
sl_limits_end(SlWorkLimits *limits)
{
	if (limits->armed)
	{
		disable_timeout(STATEMENT_TIMEOUT, true);
		CHECK_FOR_INTERRUPTS();
	}
	give_clock_back(limits);
	AtEOXact_GUC(true, limits->guc_level);
}

/* Settings are restored by whatever rolls back: the clock is not. */
void
sl_limits_abandon(SlWorkLimits *limits)
{
	give_clock_back(limits);
}

int
sl_statement_time_left(void)
{
	long		left;

	if (!get_timeout_active(STATEMENT_TIMEOUT))
		return -1;
	left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
										   get_timeout_finish_time(STATEMENT_TIMEOUT));
	return (int) Min(left, PG_INT32_MAX);
}
