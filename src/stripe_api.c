/*-------------------------------------------------------------------------
 *
 * stripe_api.c
 *	  Turns a call into an HTTP request to Stripe, and the response into what
 *	  the retry policy wants to know.
 *
 * Stripe-Version is always sent: without it the account's default decides how
 * parameters are read, and somebody can change that in the dashboard.  The
 * idempotency key is there from the first attempt, since libcurl may repeat a
 * POST of its own accord.
 *
 * Whatever goes into a header or the URL comes out of a table, so it is
 * checked here, where the lines are put together: a control character in it
 * could end the line and begin another.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/datetime.h"

#include "json_scan.h"
#include "stripe_api.h"

#define SL_USER_AGENT "stripe_lifecycle/1.0"
#define SL_MAX_HEADERS 8

/*
 * Answers are a few kB; nothing of use is this large.  A page of a list has a
 * hundred objects with up to 27 kB of metadata each.
 */
#define SL_MAX_ANSWER (1024 * 1024)
#define SL_MAX_PAGE (16 * 1024 * 1024)

typedef enum WantedHeader
{
	REQUEST_ID,
	REPLAYED,
	SHOULD_RETRY,
	RETRY_AFTER,
	LIMIT_REASON,
	DATE,
	N_WANTED
} WantedHeader;

static const char *const wanted_headers[N_WANTED] = {
	[REQUEST_ID] = "Request-Id",
	[REPLAYED] = "Idempotent-Replayed",
	[SHOULD_RETRY] = "Stripe-Should-Retry",
	[RETRY_AFTER] = "Retry-After",
	[LIMIT_REASON] = "Stripe-Rate-Limited-Reason",
	[DATE] = "Date"
};

/* ---------- requests ---------- */

/* Visible ASCII only: nothing that ends a line or begins a new word. */
static bool
is_token(const char *s)
{
	if (*s == '\0')
		return false;
	for (; *s != '\0'; s++)
	{
		if (*s <= ' ' || *s > '~')
			return false;
	}
	return true;
}

/* A path of our own host: no second slash that could name another. */
static bool
is_path(const char *path)
{
	return path[0] == '/' && path[1] != '/' && is_token(path) &&
		strpbrk(path, "#\\") == NULL;
}

static bool
add_header(const char **headers, int *n, const char *name, const char *value)
{
	Assert(*n < SL_MAX_HEADERS);
	if (!is_token(value))
		return false;
	headers[(*n)++] = psprintf("%s: %s", name, value);
	return true;
}

/*
 * Fills in everything of *request but the key and the timeouts.  False if the
 * call holds something that cannot be sent as it is.  What *request points to
 * is in the current memory context or belongs to the call.
 */
bool
sl_stripe_request(const SlStripeCall *call, const char *base,
				  const char *version, SlHttpRequest *request)
{
	const char **headers = palloc(SL_MAX_HEADERS * sizeof(char *));
	bool		posts = strcmp(call->method, "POST") == 0;
	const char *body = call->body == NULL ? "" : call->body;
	int			n = 0;

	memset(request, 0, sizeof(*request));
	if ((!posts && strcmp(call->method, "GET") != 0 &&
		 strcmp(call->method, "DELETE") != 0) || !is_path(call->path))
		return false;
	if (!add_header(headers, &n, "Stripe-Version", version) ||
		(call->idempotency_key != NULL &&
		 !add_header(headers, &n, "Idempotency-Key", call->idempotency_key)) ||
		(call->account != NULL &&
		 !add_header(headers, &n, "Stripe-Account", call->account)))
		return false;
	headers[n++] = "User-Agent: " SL_USER_AGENT;
	headers[n++] = "Accept: application/json";

	request->url = psprintf("%s%s", base, call->path);
	if (posts)
	{
		headers[n++] = "Content-Type: application/x-www-form-urlencoded";
		request->body = body;
		request->body_len = strlen(body);
	}
	else if (body[0] != '\0')
	{
		if (!is_token(body))
			return false;
		request->url = psprintf("%s%s%s", request->url,
								strchr(call->path, '?') ? "&" : "?", body);
	}
	request->method = call->method;
	request->headers = headers;
	request->nheaders = n;
	request->max_body = posts ? SL_MAX_ANSWER : SL_MAX_PAGE;
	request->wanted = wanted_headers;
	request->nwanted = N_WANTED;
	return true;
}

/* ---------- answers ---------- */

/* Is this one whole JSON text? */
static bool
is_json(const char *json, size_t len)
{
	SlJsonScan	s;

	if (json == NULL || len == 0 ||
		pg_encoding_verifymbstr(PG_UTF8, json, (int) len) != (int) len)
		return false;
	sl_json_begin(&s, json, len);
	sl_json_skip(&s);
	return sl_json_end(&s);
}

/*
 * Retry-After in seconds.  Its other form, a date, is not used by Stripe and
 * counts as absent.
 */
static int64
retry_after_ms(const char *value)
{
	size_t		len = strlen(value);

	if (len == 0 || len > 9 || strspn(value, "0123456789") != len)
		return -1;
	return strtol(value, NULL, 10) * INT64CONST(1000);
}

/* The one form that RFC 9110 lets a server send; 0 for anything else. */
static int64
unix_time(const char *date)
{
	static const char *const months = "JanFebMarAprMayJunJulAugSepOctNovDec";
	char		name[4];
	const char *month;
	int			day,
				year,
				hour,
				minute,
				second;

	if (sscanf(date, "%*3[A-Za-z], %2d %3[A-Za-z] %4d %2d:%2d:%2d GMT", &day, name,
			   &year, &hour, &minute, &second) != 6 ||
		strlen(name) != 3 || (month = strstr(months, name)) == NULL ||
		(month - months) % 3 != 0 || day < 1 || day > 31 || year < 1970 ||
		hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60)
		return 0;
	return ((int64) date2j(year, (int) (month - months) / 3 + 1, day) -
			UNIX_EPOCH_JDATE) * SECS_PER_DAY +
		hour * SECS_PER_HOUR + minute * SECS_PER_MINUTE + second;
}

static int
should_retry(const char *value)
{
	if (strcmp(value, "true") == 0)
		return 1;
	if (strcmp(value, "false") == 0)
		return 0;
	return -1;
}

/* A body that was cut off or isn't JSON is no answer of Stripe's to a success. */
void
sl_stripe_answer(const SlHttpResponse *response, SlStripeAnswer *answer)
{
	const char *id = response->values[REQUEST_ID];

	memset(answer, 0, sizeof(*answer));
	answer->attempt.transport_failed = response->error != NULL;
	answer->attempt.http_status = response->status;
	answer->attempt.should_retry = should_retry(response->values[SHOULD_RETRY]);
	answer->attempt.retry_after_ms = retry_after_ms(response->values[RETRY_AFTER]);
	answer->attempt.body_complete = response->error == NULL &&
		!response->too_large && is_json(response->body, response->body_len);
	answer->request_id = is_token(id) ? id : NULL;

	/* a limit of one object is no reason to spare the account */
	answer->throttled = response->status == 429 &&
		strcmp(response->values[LIMIT_REASON], "resource-specific") != 0;
	answer->replayed = strcmp(response->values[REPLAYED], "true") == 0;
	answer->attempt.replayed = answer->replayed;
	answer->server_time = unix_time(response->values[DATE]);
}
