/*-------------------------------------------------------------------------
 *
 * seal.c
 *	  Seals new transitions of the audit trail into signed checkpoints.
 *
 * A checkpoint covers a range of positions, which a sequence gives to
 * transitions as they are written.  Transactions commit in another order than
 * they took their positions in, so the question is up to which position no
 * further transition can turn up.  The answer: read the sequence, and then ask
 * the lock manager who holds the lock on payment_transitions that every writer
 * of it holds to the end of its transaction.  Whoever has taken a position up
 * to the one we read is among them, or has ended.  When all of them have ended,
 * all transitions up to that position that will ever be are there to be seen.
 * No clock is asked, nobody has to wait for us, and the only cost to a writer
 * is the position itself.
 *
 * Until they have ended the worker comes back again and again.  A transaction
 * that stays open, or was prepared and forgotten, thus keeps the trail from
 * being sealed, which health() shows; it is no reason to leave a gap.
 *
 * A checkpoint has a limited number of transitions, so that each is sealed in
 * one short transaction; if there are more, the next one follows at once.
 *
 * The line for the server's log is written once the checkpoint is committed: a
 * crash in between loses the line, but not the hash that the next one carries.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "audit.h"
#include "checkpoint_key.h"
#include "checkpoint_store.h"
#include "compat.h"
#include "errors.h"
#include "guc.h"
#include "identity.h"
#include "merkle.h"
#include "seal.h"
#include "secrets.h"
#include "slots.h"

/* Most transitions in one checkpoint. */
#define MAX_LEAVES			10000

/* Pauses while writers have not ended, doubling from the one to the other. */
#define WAIT_MIN_MS			50
#define WAIT_MAX_MS			5000

/* After a problem: when to try again, and if it will pass by itself. */
#define PROBLEM_PAUSE_MS	30000
#define PASSING_PAUSE_MS	1000

static TimestampTz
later(TimestampTz now, int64 ms)
{
	return TimestampTzPlusMilliseconds(now, ms);
}

static TimestampTz
after_interval(TimestampTz now)
{
	return later(now, (int64) sl_checkpoint_interval * 1000);
}

/* Say it, but not all the time; returns when to try again. */
static TimestampTz
complain(SlSealing *s, int sqlerrcode, const char *detail, const char *hint)
{
	s->held_up = true;
	if (sl_slot_may_warn_of_sealing(s->slot))
		ereport(WARNING,
				(errcode(sqlerrcode),
				 errmsg("stripe_lifecycle cannot seal the audit trail"),
				 errdetail_internal("%s", detail),
				 errhint("%s", hint)));
	return later(GetCurrentTimestamp(), Max((int64) sl_checkpoint_interval * 1000, PROBLEM_PAUSE_MS));
}

/* ---------- up to where ---------- */

static void
forget_horizon(SlSealing *s)
{
	if (s->writers != NULL)
		pfree(s->writers);
	s->writers = NULL;
	s->nwriters = 0;
	s->horizon = 0;
	s->waits = 0;
}

/*
 * Choose a position to seal up to, and remember who may still have
 * transitions up to it; see the top for the order.
 */
static void
choose_horizon(SlSealing *s)
{
	Oid			relid = get_relname_relid("payment_transitions", sl_catalog()->schema);
	VirtualTransactionId *conflicts;
	LOCKTAG		tag;
	int			n;

	forget_horizon(s);
	s->horizon = sl_last_position();
	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	conflicts = GetLockConflicts(&tag, ShareLock, &n);
	s->writers = MemoryContextAlloc(s->cxt, Max(n, 1) * sizeof(VirtualTransactionId));
	memcpy(s->writers, conflicts, n * sizeof(VirtualTransactionId));
	s->nwriters = n;
}

/* Have they all ended?  Does not wait. */
static bool
horizon_is_reached(SlSealing *s)
{
	while (s->nwriters > 0 &&
		   VirtualXactLock(s->writers[s->nwriters - 1], false))
		s->nwriters--;
	return s->nwriters == 0;
}

/* Does the worker have a reason to stay, although there is nothing to send? */
bool
sl_seal_waits(const SlSealing *s)
{
	return s->horizon != 0 && sl_seal_is_on();
}

/* ---------- a checkpoint ---------- */

/*
 * Plan by the index, and for this process alone.  The planner, as long as the
 * table has not been analyzed, knows neither that its rows lie in the order of
 * their positions nor how few are asked for.  Holds until AtEOXact_GUC().
 */
static int
plan_by_index(void)
{
	int			level = NewGUCNestLevel();

	(void) set_config_option("enable_seqscan", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("max_parallel_workers_per_gather", "0", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	return level;
}

/*
 * Compute root, number and times of the transitions above c->from_position and
 * up to 'upto', but of no more than a checkpoint may have; sets c->to_position.
 * Where positions were given but never used the range is widened until there
 * is something in it; false if there is nothing.
 */
static bool
compute_root(int64 upto, SlCheckpoint *c)
{
	SlMerkle   *volatile tree = sl_merkle_new();
	volatile bool ok = tree != NULL;
	int64		from = c->from_position;
	int64		width = MAX_LEAVES;
	int			guc_level = plan_by_index();

	c->leaves = 0;
	PG_TRY();
	{
		while (ok && c->leaves == 0 && from < upto)
		{
			int64		end = width < upto - from ? from + width : upto;
			SlRows		rows;
			SlLeaf		leaf;

			sl_open_transitions(&rows, from, end, MAX_LEAVES, false);
			while (sl_next_transition(&rows, &leaf))
			{
				c->first_at = c->leaves == 0 ? leaf.at : Min(c->first_at, leaf.at);
				c->last_at = c->leaves == 0 ? leaf.at : Max(c->last_at, leaf.at);
				c->leaves++;
				sl_merkle_add(tree, leaf.hash, SL_AUDIT_HASH_LEN);
			}
			sl_close_rows(&rows);
			c->to_position = c->leaves == MAX_LEAVES ? leaf.position : end;
			from = end;
			width *= 2;
		}
		ok = ok && sl_merkle_finish(tree, c->root);
	}
	PG_FINALLY();
	{
		sl_merkle_free(tree);
	}
	PG_END_TRY();
	AtEOXact_GUC(false, guc_level);
	if (!ok)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not compute SHA-256 hash")));
	return c->leaves > 0;
}

/* Number, trail and hash, from the one before it. */
static void
continue_chain(bool has_last, const SlCheckpoint *last, SlCheckpoint *c)
{
	memset(c, 0, sizeof(*c));
	if (!has_last)
	{
		c->number = 1;
		if (!pg_strong_random(c->trail, sizeof(c->trail)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random values")));
		/* a version 4 UUID */
		c->trail[6] = (c->trail[6] & 0x0f) | 0x40;
		c->trail[8] = (c->trail[8] & 0x3f) | 0x80;
		return;
	}
	c->number = last->number + 1;
	memcpy(c->trail, last->trail, sizeof(c->trail));
	c->from_position = last->to_position;
	if (!sl_checkpoint_hash(last, c->previous))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not compute SHA-256 hash")));
}

/* NULL, or why it could not be signed. */
static const char *
sign(SlCheckpoint *c)
{
	const char *why;
	SlKeyRing  *ring = sl_checkpoint_keys(true, &why);
	bool		ok;

	if (ring == NULL)
		return why;
	ok = sl_keyring_sign(ring, c);
	sl_keyring_free(ring);
	return ok ? NULL : "OpenSSL could not sign it.";
}

/* Is there a key?  Asked before anything is computed in vain. */
static const char *
key_problem(void)
{
	const char *why;
	SlKeyRing  *ring = sl_checkpoint_keys(true, &why);

	sl_keyring_free(ring);
	return ring == NULL ? why : NULL;
}

#define KEY_HINT "Put an Ed25519 private key in PEM into the file named by \"stripe_lifecycle.checkpoint_key_file\"."

/*
 * Seal what is up to the horizon, or the first part of it.  False if there was
 * nothing, or a problem.
 */
static bool
seal_next(SlSealing *s, bool has_last, const SlCheckpoint *last,
		  SlCheckpoint *c, TimestampTz *next)
{
	TimestampTz now = GetCurrentTimestamp();
	const char *problem;

	*next = after_interval(now);
	continue_chain(has_last, last, c);
	if (!compute_root(s->horizon, c))
	{
		forget_horizon(s);
		return false;
	}
	c->sealed_at = sl_unix_time(now);
	problem = sign(c);
	if (problem != NULL)
	{
		forget_horizon(s);
		*next = complain(s, SL_ERRCODE_SECRET, problem, KEY_HINT);
		return false;
	}
	if (!sl_insert_checkpoint(c))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("checkpoint " INT64_FORMAT " is there already", c->number)));
	if (c->to_position < s->horizon)
		*next = now;
	else
		forget_horizon(s);
	return true;
}

/* When the next checkpoint is due, unless one is under way. */
static TimestampTz
due_time(const SlSealing *s, bool has_last, const SlCheckpoint *last,
		 TimestampTz now)
{
	if (s->horizon != 0 || !has_last)
		return now;
	/* a clock that was set back is no reason to wait for longer */
	return Min(after_interval(last->sealed_at + SL_UNIX_EPOCH_USECS),
			   after_interval(now));
}

bool
sl_seal_is_on(void)
{
	return sl_checkpoint_interval > 0 && sl_checkpoint_key_file[0] != '\0';
}

/*
 * Seal what is due, in the caller's transaction.  True: a checkpoint was
 * inserted; once it is committed it has to be announced.  *next is when to call
 * again; DT_NOEND: not before something changes.
 */
bool
sl_seal(SlSealing *s, SlCheckpoint *sealed, TimestampTz *next)
{
	TimestampTz now = GetCurrentTimestamp();
	SlCheckpoint last;
	bool		has_last;
	int64		position;
	const char *problem;

	*next = DT_NOEND;
	s->held_up = false;
	position = sl_last_position();
	if (position == 0)
	{
		forget_horizon(s);
		return false;
	}
	*next = after_interval(now);
	has_last = sl_newest_checkpoint(false, &last);
	if (has_last && position < last.to_position)
	{
		forget_horizon(s);
		*next = complain(s, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
						 "New transitions get positions that were sealed before: their sequence was set back.",
						 "Call stripe_lifecycle.resume_worker(), which sets it right.");
		return false;
	}
	if (has_last && position == last.to_position)
	{
		forget_horizon(s);
		return false;
	}
	if (due_time(s, has_last, &last, now) > now)
	{
		*next = due_time(s, has_last, &last, now);
		return false;
	}
	if (!sl_may_seal())
	{
		s->held_up = true;
		forget_horizon(s);
		return false;
	}
	if ((problem = key_problem()) != NULL)
	{
		forget_horizon(s);
		*next = complain(s, SL_ERRCODE_SECRET, problem, KEY_HINT);
		return false;
	}

	if (s->horizon == 0)
		choose_horizon(s);
	if (!horizon_is_reached(s))
	{
		*next = later(now, Min(WAIT_MIN_MS << Min(s->waits, 10), WAIT_MAX_MS));
		s->waits++;
		return false;
	}
	return seal_next(s, has_last, &last, sealed, next);
}

/* The copy that leaves the server with its log. */
void
sl_seal_announce(const SlCheckpoint *sealed)
{
	char		line[SL_CHECKPOINT_LINE_SIZE];

	sl_checkpoint_line(sealed, line);
	ereport(LOG,
			(errcode(ERRCODE_SUCCESSFUL_COMPLETION),
			 errmsg_internal("%s", line),
			 errhidestmt(true), errhidecontext(true)));
}

/* It ended in an error: returns when to try again. */
TimestampTz
sl_seal_failed(SlSealing *s, int sqlerrcode)
{
	char		detail[64];

	forget_horizon(s);
	if (sl_error_passes(sqlerrcode))
		return later(GetCurrentTimestamp(), PASSING_PAUSE_MS);
	snprintf(detail, sizeof(detail), "The attempt failed with SQLSTATE %s.",
			 unpack_sql_state(sqlerrcode));
	return complain(s, sqlerrcode, detail,
					"It is tried again by and by.  See what keeps the worker from reading payment_transitions and writing audit_checkpoints.");
}
