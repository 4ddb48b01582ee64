/*-------------------------------------------------------------------------
 *
 * audit_cost.c
 *	  What the hash of one row of the audit trail costs: prints microseconds.
 *
 *	  bench/run audit
 *
 *-------------------------------------------------------------------------
 */
#include "audit_hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROWS 200000

/* A move by an event, in the order of the fields. */
static const char *const row[SL_AUDIT_NFIELDS] = {
	"01890a5d-ac96-774b-bcce-b302099a8057", "2", "created", "succeeded",
	"2026-11-25T18:00:00.123456Z", "webhook", "evt_3MtwBwLkdIwHu7ix28a3tqPa",
	"payment_intent.succeeded", "2026-11-25T17:59:58.000000Z", "shop", NULL,
	"2000", "usd", "true"
};

int
main(void)
{
	SlAuditHash *hash = sl_audit_hash_new();
	unsigned char previous[SL_AUDIT_HASH_LEN] = {0};
	struct timespec from;
	struct timespec to;
	int			i;
	int			field;

	if (hash == NULL)
		return 1;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
	for (i = 0; i < ROWS; i++)
	{
		sl_audit_hash_begin(hash, previous);
		for (field = 0; field < SL_AUDIT_NFIELDS; field++)
			sl_audit_hash_field(hash, row[field],
								row[field] == NULL ? 0 : strlen(row[field]));
		if (!sl_audit_hash_finish(hash, previous))
			return 1;
	}
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
	printf("%.4f\n", ((to.tv_sec - from.tv_sec) * 1e6 +
					  (to.tv_nsec - from.tv_nsec) / 1e3) / ROWS);
	sl_audit_hash_free(hash);
	return 0;
}
