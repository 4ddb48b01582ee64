/*-------------------------------------------------------------------------
 *
 * errors.c
 *	  Keeps statements with private arguments out of the server log.
 *
 * By default the server logs the text of every statement that fails
 * (log_min_error_statement), literals included.  For a refused webhook that
 * would be the whole body.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "errors.h"

/* Error context callback; see SL_PRIVATE_ARGUMENTS_BEGIN. */
void
sl_hide_statement(void *arg)
{
	errhidestmt(true);
	errhidecontext(true);
}
