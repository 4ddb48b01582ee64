/*-------------------------------------------------------------------------
 *
 * http_request.h
 *	  The HTTP request that a call came with, and its answer, as PostgREST
 *	  shares them with the database: through transaction-local settings.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_HTTP_REQUEST_H
#define SL_HTTP_REQUEST_H

#include "lib/stringinfo.h"

#include "client_address.h"

typedef struct SlHttpHeader
{
	const char *name;
	const char *value;
} SlHttpHeader;

/* Did the transaction at hand come with an HTTP request of this path? */
extern bool sl_request_path_is(const char *path);
extern bool sl_request_method_is(const char *method);
extern bool sl_request_present(void);

/* A header's value, palloc'd, by its name in lower case; NULL if not there. */
extern char *sl_request_header(const char *name);

/*
 * Who sends it, as a bucket: by stripe_lifecycle.client_address_header if that
 * is set and the request has it, else by the connection.
 */
extern void sl_request_sender(SlAddress *bucket);

/* The status of the answer, if the transaction commits. */
extern void sl_response_set_status(int status);

/*
 * Add headers to the answer, if the transaction commits.  Those that somebody
 * has set before stay; of ours, a name that is there already is left out.
 */
extern void sl_response_add_headers(const SlHttpHeader *headers, int n);

/*
 * Appends the answer's headers, and one more unless its name is NULL, as the
 * object that an error of SQLSTATE PGRST has to bring along.
 */
extern void sl_response_headers_object(StringInfo out,
									   const SlHttpHeader *more);

#endif							/* SL_HTTP_REQUEST_H */
