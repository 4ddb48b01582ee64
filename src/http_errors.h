/*-------------------------------------------------------------------------
 *
 * http_errors.h
 *	  Errors with a fitting HTTP status, for functions that PostgREST calls.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_HTTP_ERRORS_H
#define SL_HTTP_ERRORS_H

#include "compat.h"

#include "fmgr.h"

/*
 * Call the body of the SQL function 'name'.  If this is what an HTTP request
 * asked for, errors leave it in the form that PostgREST turns into an answer
 * with a status; to SQL they are what they are.
 */
extern Datum sl_http_call(PGFunction body, FunctionCallInfo fcinfo,
						  const char *name);

/* Turn away a request, whoever called; retry_after in seconds. */
pg_noreturn extern void sl_http_too_many_requests(int64 retry_after);

#endif							/* SL_HTTP_ERRORS_H */
