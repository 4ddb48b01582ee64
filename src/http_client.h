/*-------------------------------------------------------------------------
 *
 * http_client.h
 *	  HTTP requests, many at a time, waited for together with MyLatch.
 *
 * Knows neither SQL nor Stripe.  Memory that is handed out is malloc'd and
 * belongs to the exchange it came with.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_HTTP_CLIENT_H
#define SL_HTTP_CLIENT_H

#define SL_HTTP_MAX_WANTED	8	/* response headers that a request asks for */
#define SL_HTTP_VALUE_MAX	256 /* bytes of such a header, NUL included */

typedef struct SlHttpClient SlHttpClient;
typedef struct SlHttpExchange SlHttpExchange;

/* Only read while sl_http_start() runs; everything is copied. */
typedef struct SlHttpRequest
{
	const char *method;
	const char *url;
	const char *bearer;			/* for Authorization, or NULL */
	const char *const *headers; /* "Name: value" */
	int			nheaders;
	const char *body;			/* or NULL */
	size_t		body_len;
	int			connect_timeout_ms;
	int			timeout_ms;		/* of the whole exchange */
	size_t		max_body;		/* what the response may have */
	const char *const *wanted;	/* names of response headers; static */
	int			nwanted;
} SlHttpRequest;

typedef struct SlHttpResponse
{
	const char *error;			/* why there is no whole answer, or NULL; a
								 * constant text */
	int			status;			/* 0: no answer began */
	bool		too_large;		/* the body was cut at max_body */
	char	   *body;			/* NUL-terminated, or NULL if empty */
	size_t		body_len;
	double		duration_ms;
	char		values[SL_HTTP_MAX_WANTED][SL_HTTP_VALUE_MAX];	/* "": absent */
} SlHttpResponse;

extern SlHttpClient *sl_http_new(int max_connections, const char **error);
extern void sl_http_free(SlHttpClient *client);

extern bool sl_http_start(SlHttpClient *client, const SlHttpRequest *request,
						  void *tag, const char **error);
extern void sl_http_wait(SlHttpClient *client, long timeout_ms,
						 uint32 wait_event_info);

extern SlHttpExchange *sl_http_next_finished(SlHttpClient *client);
extern void *sl_http_tag(SlHttpExchange *exchange);
extern const SlHttpResponse *sl_http_response(SlHttpExchange *exchange);
extern void sl_http_exchange_free(SlHttpExchange *exchange);

#endif							/* SL_HTTP_CLIENT_H */
