/*-------------------------------------------------------------------------
 *
 * http_errors.c
 *	  Errors with a fitting HTTP status, for functions that PostgREST calls.
 *
 * PostgREST takes an error of SQLSTATE PGRST apart: its message is a JSON
 * object with code, message, details and hint, which becomes the body; its
 * detail one with status and headers.  That is the only way for an error to
 * bring headers along.  The HTTP reason phrase stays the standard one, so no
 * text of ours or of anybody gets into it.
 *
 * An application that calls in SQL matches on SQLSTATEs, and must find them
 * as they are; a function of the site's own that is called by HTTP, and calls
 * ours in turn, is such an application.  So the request has to name the very
 * function, unless stripe_lifecycle.http_errors decides otherwise.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/json.h"

#include "compat.h"
#include "errors.h"
#include "guc.h"
#include "http_errors.h"
#include "http_request.h"
#include "http_status.h"

#define ERRCODE_POSTGREST MAKE_SQLSTATE('P', 'G', 'R', 'S', 'T')

static bool
is_wanted(const char *name)
{
	char		path[NAMEDATALEN + 8];

	if (sl_http_errors != SL_HTTP_ERRORS_AUTO)
		return sl_http_errors == SL_HTTP_ERRORS_ON;
	snprintf(path, sizeof(path), "/rpc/%s", name);
	return sl_request_path_is(path) && sl_request_present();
}

static void
append_member(StringInfo out, const char *name, const char *value)
{
	appendStringInfo(out, ", \"%s\": ", name);
	if (value == NULL)
		appendStringInfoString(out, "null");
	else
		escape_json(out, value);
}

/*
 * What PostgREST answers with.  An error that will pass says only that: what
 * PostgreSQL has to say about its locks is no client's business.
 */
static char *
body_of(const ErrorData *e, const char *sqlstate, bool is_ours)
{
	StringInfoData out;

	initStringInfo(&out);
	appendStringInfoString(&out, "{\"code\": ");
	escape_json(&out, sqlstate);
	append_member(&out, "message", is_ours ? e->message : "not available just now");
	append_member(&out, "details", is_ours ? e->detail : NULL);
	append_member(&out, "hint", is_ours ? e->hint : "Send the same request again later.");
	appendStringInfoChar(&out, '}');
	return out.data;
}

static char *
status_of(const SlHttpStatus *status, int64 retry_after)
{
	StringInfoData out;
	SlHttpHeader header = {"Retry-After", NULL};

	if (retry_after > 0)
		header.value = psprintf(INT64_FORMAT, retry_after);
	initStringInfo(&out);
	appendStringInfo(&out, "{\"status\": %d, \"headers\": ", status->status);
	sl_response_headers_object(&out, header.value == NULL ? NULL : &header);
	appendStringInfoChar(&out, '}');
	return out.data;
}

/* Raise 'e' so that PostgREST answers with this status. */
static void
raise_as(const ErrorData *e, const SlHttpStatus *status, int64 retry_after)
{
	char	   *sqlstate = pstrdup(unpack_sql_state(e->sqlerrcode));
	bool		is_ours = strncmp(sqlstate, "SL", 2) == 0;
	const char *for_log = e->detail_log != NULL ? e->detail_log : e->detail;

	ereport(ERROR,
			(errcode(ERRCODE_POSTGREST),
			 errmsg_internal("%s", body_of(e, sqlstate, is_ours)),
			 errdetail_internal("%s", status_of(status, retry_after)),
			 errdetail_log("SQLSTATE %s: %s%s%s", sqlstate,
						   e->message == NULL ? "" : e->message,
						   for_log == NULL ? "" : "  ",
						   for_log == NULL ? "" : for_log),
			 errhidestmt(true),
			 errhidecontext(true)));
}

/*
 * NULL: PostgREST's own.  GET is read-only by its nature, and whoever sends it
 * should not be told to try again (PostgREST answers 405).
 */
static const SlHttpStatus *
status_for(const ErrorData *e)
{
	if (e->sqlerrcode == ERRCODE_READ_ONLY_SQL_TRANSACTION &&
		!sl_request_method_is("POST"))
		return NULL;
	return sl_http_status(unpack_sql_state(e->sqlerrcode));
}

Datum
sl_http_call(PGFunction body, FunctionCallInfo fcinfo, const char *name)
{
	MemoryContext cxt = CurrentMemoryContext;
	volatile Datum result = (Datum) 0;

	if (!is_wanted(name))
		return body(fcinfo);

	PG_TRY();
	{
		result = body(fcinfo);
	}
	PG_CATCH();
	{
		const SlHttpStatus *status;
		ErrorData  *e;

		MemoryContextSwitchTo(cxt);
		e = CopyErrorData();
		status = status_for(e);
		if (status == NULL)
			PG_RE_THROW();
		FlushErrorState();
		raise_as(e, status, status->retry_after);
	}
	PG_END_TRY();
	return result;
}

void
sl_http_too_many_requests(int64 retry_after)
{
	ErrorData	e = {0};

	e.sqlerrcode = SL_ERRCODE_TOO_MANY_REQUESTS;
	e.message = "too many requests";
	e.hint = "Wait for as long as the header Retry-After says.";
	raise_as(&e, sl_http_status("SL060"), retry_after);
	pg_unreachable();
}
