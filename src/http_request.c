/*-------------------------------------------------------------------------
 *
 * http_request.c
 *	  The HTTP request that a call came with, and its answer, as PostgREST
 *	  shares them with the database: through transaction-local settings.
 *
 * request.method, request.path and request.headers come in; response.status
 * and response.headers go out.  On a pooled connection a setting that was
 * there once is an empty string afterwards.
 *
 * All of it is foreign text.  One header is read at a time, and the whole is
 * never kept: it has the Authorization header in it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/socket.h>

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/inet.h"
#include "utils/json.h"
#include "utils/jsonb.h"

#include "compat.h"
#include "event_reader.h"
#include "guc.h"
#include "http_request.h"

/* NULL or a value that is not empty; valid until settings change. */
static const char *
setting(const char *name)
{
	const char *value = GetConfigOption(name, true, false);

	return value == NULL || value[0] == '\0' ? NULL : value;
}

static void
set_for_transaction(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
}

bool
sl_request_path_is(const char *path)
{
	const char *value = setting("request.path");

	return value != NULL && strcmp(value, path) == 0;
}

bool
sl_request_method_is(const char *method)
{
	const char *value = setting("request.method");

	return value != NULL && strcmp(value, method) == 0;
}

bool
sl_request_present(void)
{
	return setting("request.method") != NULL && setting("request.path") != NULL;
}

char *
sl_request_header(const char *name)
{
	const char *text = setting("request.headers");
	JsonbValue	buf;
	JsonbValue *v;
	Jsonb	   *headers;
	bool		ok;

	if (text == NULL)
		return NULL;
	headers = sl_json_parse(text, strlen(text), &ok);
	if (!ok)
		return NULL;
	v = getKeyJsonValueFromContainer(&headers->root, name, strlen(name), &buf);
	if (v == NULL || v->type != jbvString)
		return NULL;
	return pnstrdup(v->val.string.val, v->val.string.len);
}

/* The other end of this session's own connection; none of a local socket. */
static void
connection_address(SlAddress *out)
{
	LOCAL_FCINFO(fcinfo, 0);
	const inet *address;
	Datum		datum;

	memset(out, 0, sizeof(*out));
	InitFunctionCallInfoData(*fcinfo, NULL, 0, InvalidOid, NULL, NULL);
	datum = inet_client_addr(fcinfo);
	if (fcinfo->isnull)
		return;
	address = DatumGetInetPP(datum);
	out->family = ip_family(address) == PGSQL_AF_INET ? 4 : 6;
	memcpy(out->bytes, ip_addr(address), out->family == 4 ? 4 : 16);
}

void
sl_request_sender(SlAddress *bucket)
{
	char	   *value = NULL;

	if (sl_client_address_header[0] != '\0')
		value = sl_request_header(sl_client_address_header);
	if (value == NULL ||
		!sl_address_of_list(value, strlen(value), sl_client_address_hops, bucket))
		connection_address(bucket);
	sl_address_to_bucket(bucket);
}

/* ---------- the answer ---------- */

void
sl_response_set_status(int status)
{
	char		text[12];

	snprintf(text, sizeof(text), "%d", status);
	set_for_transaction("response.status", text);
}

/* The headers that somebody has set, an array; NULL if there is none. */
static Jsonb *
headers_so_far(void)
{
	const char *text = setting("response.headers");
	Jsonb	   *headers;

	headers = text == NULL ? NULL : sl_json_parse_any(text, strlen(text));
	return headers != NULL && JB_ROOT_IS_ARRAY(headers) &&
		!JB_ROOT_IS_SCALAR(headers) ? headers : NULL;
}

static void
append_string(StringInfo out, const char *s, int len)
{
	escape_json(out, pnstrdup(s, len));
}

/*
 * Take the members of those headers one by one; whatever is no pair of
 * strings is passed over.
 */
static bool
next_header(JsonbIterator **it, JsonbValue *name, JsonbValue *value)
{
	JsonbIteratorToken token;
	JsonbValue	v;
	bool		named = false;

	if (*it == NULL)
		return false;
	while ((token = JsonbIteratorNext(it, &v, false)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			*name = v;
			named = true;
		}
		else if (token == WJB_VALUE && named && v.type == jbvString)
		{
			*value = v;
			return true;
		}
		else
			named = false;
	}
	*it = NULL;
	return false;
}

static bool
is_named(const JsonbValue *v, const char *name)
{
	return v->val.string.len == (int) strlen(name) &&
		pg_strncasecmp(v->val.string.val, name, v->val.string.len) == 0;
}

static bool
has_header(Jsonb *headers, const char *name)
{
	JsonbIterator *it = headers == NULL ? NULL : JsonbIteratorInit(&headers->root);
	JsonbValue	n;
	JsonbValue	v;

	while (next_header(&it, &n, &v))
	{
		if (is_named(&n, name))
			return true;
	}
	return false;
}

static void
append_pair(StringInfo out, const char *name, int name_len,
			const char *value, int value_len)
{
	append_string(out, name, name_len);
	appendStringInfoString(out, ": ");
	append_string(out, value, value_len);
}

void
sl_response_add_headers(const SlHttpHeader *headers, int n)
{
	Jsonb	   *before = headers_so_far();
	JsonbIterator *it = before == NULL ? NULL : JsonbIteratorInit(&before->root);
	StringInfoData out;
	JsonbValue	name;
	JsonbValue	value;
	const char *comma = "";
	int			i;

	initStringInfo(&out);
	appendStringInfoChar(&out, '[');
	while (next_header(&it, &name, &value))
	{
		appendStringInfo(&out, "%s{", comma);
		append_pair(&out, name.val.string.val, name.val.string.len,
					value.val.string.val, value.val.string.len);
		appendStringInfoChar(&out, '}');
		comma = ", ";
	}
	for (i = 0; i < n; i++)
	{
		if (has_header(before, headers[i].name))
			continue;
		appendStringInfo(&out, "%s{", comma);
		append_pair(&out, headers[i].name, strlen(headers[i].name),
					headers[i].value, strlen(headers[i].value));
		appendStringInfoChar(&out, '}');
		comma = ", ";
	}
	appendStringInfoChar(&out, ']');
	set_for_transaction("response.headers", out.data);
}

void
sl_response_headers_object(StringInfo out, const SlHttpHeader *more)
{
	Jsonb	   *headers = headers_so_far();
	JsonbIterator *it = headers == NULL ? NULL : JsonbIteratorInit(&headers->root);
	JsonbValue	name;
	JsonbValue	value;
	const char *comma = "";

	appendStringInfoChar(out, '{');
	while (next_header(&it, &name, &value))
	{
		if (more != NULL && is_named(&name, more->name))
			continue;
		appendStringInfoString(out, comma);
		append_pair(out, name.val.string.val, name.val.string.len,
					value.val.string.val, value.val.string.len);
		comma = ", ";
	}
	if (more != NULL)
	{
		appendStringInfoString(out, comma);
		append_pair(out, more->name, strlen(more->name),
					more->value, strlen(more->value));
	}
	appendStringInfoChar(out, '}');
}
