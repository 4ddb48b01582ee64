/*-------------------------------------------------------------------------
 *
 * errors.c
 *	  Keeps statements with private arguments out of the server log; tells
 *	  errors that will pass from those that won't; refuses to write where
 *	  nothing can be written.
 *
 * By default the server logs the text of every statement that fails
 * (log_min_error_statement), literals included.  For a refused webhook that
 * would be the whole body.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"

#include "errors.h"

/* Error context callback; see SL_PRIVATE_ARGUMENTS_BEGIN. */
void
sl_hide_statement(void *arg)
{
	errhidestmt(true);
	errhidecontext(true);
}

/*
 * Would the same statement succeed later, with nothing about its rows changed?
 */
bool
sl_error_passes(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
			return true;
		default:
			return false;
	}
}

/*
 * Is it the row that is bad: data, a constraint, or what somebody's trigger
 * thinks of it?  Others may well succeed where this one failed.
 */
bool
sl_error_is_of_row(int sqlerrcode)
{
	int			category = ERRCODE_TO_CATEGORY(sqlerrcode);

	return category == ERRCODE_DATA_EXCEPTION ||
		category == ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION ||
		category == ERRCODE_PLPGSQL_ERROR;
}

/*
 * Refuse a function that writes on a standby server and in a read-only
 * transaction.
 */
void
sl_require_writable(const char *function)
{
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot execute %s on a standby server", function),
				 errhint("Call it on the primary.")));
	PreventCommandIfReadOnly(function);
}
