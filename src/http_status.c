/*-------------------------------------------------------------------------
 *
 * http_status.c
 *	  Which HTTP status goes with which refusal.
 *
 * Left to itself PostgREST answers 400 to every SQLSTATE that it does not
 * know, 500 to a lock timeout, 405 to a standby, and repeats class 40 without
 * end in all releases up to 14.  A client should be told whether to mend its
 * request (4xx) or to send the very same one again later (503).
 *
 * docs/postgrest.md shows this table, and a test compares the two.
 *
 *-------------------------------------------------------------------------
 */
#include "http_status.h"

#include <stddef.h>
#include <string.h>

static const SlHttpStatus statuses[] = {
	{"SL010", 422, 0},
	{"SL011", 422, 0},
	{"SL012", 422, 0},
	{"SL013", 422, 0},
	{"SL014", 422, 0},
	{"SL015", 422, 0},
	{"SL016", 409, 0},
	{"SL017", 404, 0},
	{"SL018", 409, 0},
	{"SL019", 422, 0},
	{"SL020", 503, 60},
	{"SL027", 503, 60},
	{"SL030", 503, 60},
	{"SL050", 401, 0},
	{"SL060", 429, 0},
	{"25006", 503, 5},
	{"40", 503, 1},
	{"53", 503, 5},
	{"55", 503, 1},
	{"57", 503, 1},
	{"58", 503, 5},
};

const SlHttpStatus *
sl_http_status(const char *sqlstate)
{
	size_t		i;

	for (i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++)
	{
		const char *s = statuses[i].sqlstate;

		if (strncmp(s, sqlstate, strlen(s)) == 0)
			return &statuses[i];
	}
	return NULL;
}
