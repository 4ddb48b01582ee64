/*-------------------------------------------------------------------------
 *
 * probe.c
 *	  Questions that the worker asks Stripe of its own accord: what became of
 *	  a request (lookup.c), and what events there are (reconcile.c).
 *
 * To the worker they are calls like those of the queue: claimed, sent and
 * settled in the same way and in the same window.  They change nothing at
 * Stripe, so they may be repeated at will.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"
#include "errors.h"
#include "guc.h"
#include "lookup.h"
#include "probe.h"
#include "reconcile.h"
#include "subxact.h"

/* Questions take this part of the window, so that they never hold up payments. */
#define PART_OF_WINDOW	4

/* How many more questions may be asked, given how many are under way. */
int
sl_probe_room(int room, int under_way)
{
	return Max(Min(room, Max(sl_max_in_flight / PART_OF_WINDOW, 1) - under_way), 0);
}

typedef struct Pages
{
	const char *api_key;
	int			room;
	int			lease_ms;
	MemoryContext cxt;
	SlClaim    *claim;
} Pages;

static void
try_claim_pages(void *arg)
{
	Pages	   *p = arg;

	sl_reconcile_claim(p->api_key, p->room, p->lease_ms, p->cxt, p->claim);
}

/* Pages of events; if something there is bad it is in the way of nothing else. */
static void
claim_pages(Pages *p)
{
	int			before = list_length(p->claim->calls);
	ErrorData  *error;

	if (!p->claim->careful)
	{
		try_claim_pages(p);
		return;
	}
	error = sl_try(try_claim_pages, p);
	if (error == NULL)
		return;
	if (!sl_error_is_of_row(error->sqlerrcode))
		ReThrowError(error);
	p->claim->calls = list_truncate(p->claim->calls, before);
	p->claim->passed_over = error->sqlerrcode;
}

/*
 * Claim up to 'room' questions for 'lease_ms'; none without a key.  The caller
 * commits before it asks.  The calls are in 'cxt'; claim->next_due is when to
 * look again.
 */
void
sl_probe_claim(const char *api_key, int room, int lease_ms, MemoryContext cxt,
			   SlClaim *claim)
{
	claim->calls = NIL;
	claim->next_due = DT_NOEND;
	claim->more = false;
	claim->passed_over = 0;
	/* with no room the end of one that is under way brings us back */
	if (room <= 0)
		return;
	claim_pages(&(Pages) {api_key, room, lease_ms, cxt, claim});
	sl_lookup_claim(api_key, room, lease_ms, cxt, claim);
	claim->more = list_length(claim->calls) == room;
}

/* Store the answer. */
void
sl_probe_settle(const SlApiCall *call, const SlApiResult *result)
{
	if (call->kind == SL_CALL_EVENTS)
		sl_reconcile_settle(call, result);
	else
		sl_lookup_settle(call, result);
}

/* There can be no answer, or it can't be stored: ask again much later. */
void
sl_probe_set_aside(const SlApiCall *call, const char *sqlstate)
{
	if (call->kind == SL_CALL_EVENTS)
		sl_reconcile_set_aside(call, sqlstate);
	else
		sl_lookup_set_aside(call, sqlstate);
}

/*
 * A worker has begun: what its predecessor was asking is to be asked again.
 * Look-ups have records like other calls; sl_outbox_recover() sees to them.
 */
void
sl_probe_recover(void)
{
	sl_reconcile_recover();
}
