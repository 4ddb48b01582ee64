/*-------------------------------------------------------------------------
 *
 * claim.c
 *	  Which requests may be sent now, and when to look at the queue again.
 *
 * Between the queue (outbox.c), which knows what is due, and the pace of each
 * Stripe account (pacing.c).  A request is claimed only with a token in hand,
 * so what has to wait stays in the queue: it holds no place in the window, and
 * other accounts pass it by.
 *
 * The queue is looked at account by account, which an index makes as cheap as
 * looking at its head.  So a long queue of an account that has to wait costs
 * the others nothing, and when its turn comes is known to the millisecond.
 * Accounts take turns: each look begins after the account served last, and
 * none takes more than its share of the room, however much it has queued.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "claim.h"
#include "pacing.h"

/* The account served last, malloc'd; NULL before the first. */
static char *last_account = NULL;

static bool
is_last_served(const SlDueAccount *account)
{
	return last_account != NULL && strcmp(account->name, last_account) == 0;
}

static void
remember_last_served(const SlDueAccount *account)
{
	if (is_last_served(account))
		return;
	free(last_account);
	last_account = strdup(account->name);	/* without it: less fair */
}

/* The place in the list to begin with. */
static int
first_turn(List *accounts)
{
	int			i;

	for (i = 0; i < list_length(accounts); i++)
	{
		if (is_last_served(list_nth(accounts, i)))
			return i + 1;
	}
	return 0;
}

static int
count_due(List *accounts, TimestampTz now)
{
	ListCell   *lc;
	int			n = 0;

	foreach(lc, accounts)
	{
		if (((SlDueAccount *) lfirst(lc))->due <= now)
			n++;
	}
	return n;
}

/*
 * Claims what an account may send, 'limit' at most, and says when to look at
 * it again.  Returns how many were claimed.
 */
static int
claim_of_account(SlDueAccount *account, const char *api_key, int limit,
				 int lease_ms, MemoryContext cxt, SlClaim *claim)
{
	uint64		pace = sl_pacing_id(api_key, account->name);
	int			granted = sl_pacing_take(pace, limit);
	List	   *calls = NIL;
	TimestampTz now;
	int64		delay;

	if (granted > 0)
	{
		calls = sl_outbox_claim(account->name, granted, lease_ms, cxt,
								claim->careful, &claim->passed_over);
		sl_pacing_give_back(pace, granted - list_length(calls));
		MemoryContextSwitchTo(cxt); /* SPI has changed it */
		claim->calls = list_concat(claim->calls, calls);
	}

	now = GetCurrentTimestamp();
	delay = sl_pacing_delay_ms(pace);
	if (granted > list_length(calls))
	{
		/* all that is due was taken, or is out of reach */
		account->due = sl_outbox_next_due(account->name);
		if (account->due <= now)
			account->due = TimestampTzPlusMilliseconds(now, SL_LOCKED_PAUSE_MS);
	}
	else if (delay > 0)
		account->due = TimestampTzPlusMilliseconds(now, delay);
	else
		claim->more = true;
	return list_length(calls);
}

/*
 * Claim up to 'room' requests for 'lease_ms'; none without a key.  The caller
 * commits before it sends anything.  The calls are in 'cxt'.
 */
void
sl_claim(const char *api_key, int room, int lease_ms, MemoryContext cxt,
		 SlClaim *claim)
{
	MemoryContext old = MemoryContextSwitchTo(cxt);
	List	   *accounts = sl_outbox_accounts();
	TimestampTz now = GetCurrentTimestamp();
	int			waiting = count_due(accounts, now);
	int			first = first_turn(accounts);
	ListCell   *lc;
	int			i;

	claim->calls = NIL;
	claim->next_due = DT_NOEND;
	claim->more = false;
	claim->passed_over = 0;
	for (i = 0; i < list_length(accounts) && api_key != NULL && room > 0; i++)
	{
		SlDueAccount *account = list_nth(accounts,
										 (first + i) % list_length(accounts));
		int			claimed;

		if (account->due > now)
			continue;
		claimed = claim_of_account(account, api_key, Max(room / waiting, 1),
								   lease_ms, cxt, claim);
		waiting--;
		room -= claimed;
		if (claimed > 0)
			remember_last_served(account);
	}
	if (waiting > 0)
		claim->more = api_key != NULL;

	foreach(lc, accounts)
	{
		SlDueAccount *account = lfirst(lc);

		if (account->due > now || api_key == NULL)
			claim->next_due = Min(claim->next_due, account->due);
	}
	MemoryContextSwitchTo(old);
}
