/*-------------------------------------------------------------------------
 *
 * sealed_trail.c
 *	  Compares an audit trail with the checkpoints that sealed it.
 *
 * A checkpoint opens a window of positions, which the next one closes: then
 * the root of what came in between is compared with the one that was signed.
 * A checkpoint that is wrong in itself is reported and used all the same, so
 * that one fault is not taken for many.
 *
 *-------------------------------------------------------------------------
 */
#include "sealed_trail.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "merkle.h"

#define DETAIL_SIZE 256

struct SlSealedTrail
{
	const SlKeyRing *ring;
	SlFindingReport report;
	void	   *arg;
	SlMerkle   *tree;			/* of the window that is open */

	bool		partial;		/* may begin in the middle */
	bool		has_last;
	SlCheckpoint last;			/* its window is open, unless it is only known */
	bool		is_open;
	bool		after_gap;		/* checkpoints before it are missing */

	int64_t		first_at;		/* of the window's transitions */
	int64_t		last_at;
	int64_t		outside;		/* transitions that are in no window */
	int64_t		position;		/* of the latest transition */
	bool		disordered;		/* reported for this window */
	bool		has_unknown_key;
	unsigned char unknown_key[SL_CHECKPOINT_HASH_LEN];	/* reported last */

	int64_t		checkpoints;
	int64_t		transitions;
	int64_t		unsealed;
};

const char *
sl_finding_name(SlFinding finding)
{
	switch (finding)
	{
		case SL_FINDING_MISSING_CHECKPOINT:
			return "missing checkpoint";
		case SL_FINDING_BROKEN_CHAIN:
			return "broken chain";
		case SL_FINDING_BAD_SIGNATURE:
			return "bad signature";
		case SL_FINDING_UNKNOWN_KEY:
			return "unknown key";
		case SL_FINDING_MISSING_TRANSITIONS:
			return "missing transitions";
		case SL_FINDING_ADDED_TRANSITIONS:
			return "added transitions";
		case SL_FINDING_CHANGED_TRANSITIONS:
			return "changed transitions";
		case SL_FINDING_DISORDER:
			return "disorder";
		case SL_FINDING_CRYPTO:
			break;
	}
	return "OpenSSL failed";
}

SlSealedTrail *
sl_sealed_trail_new(const SlKeyRing *ring, SlFindingReport report, void *arg)
{
	SlSealedTrail *t = calloc(1, sizeof(SlSealedTrail));

	if (t == NULL)
		return NULL;
	t->ring = ring;
	t->report = report;
	t->arg = arg;
	t->position = INT64_MIN;
	t->tree = sl_merkle_new();
	if (t->tree == NULL)
	{
		free(t);
		return NULL;
	}
	return t;
}

void
sl_sealed_trail_free(SlSealedTrail *t)
{
	if (t == NULL)
		return;
	sl_merkle_free(t->tree);
	free(t);
}

void
sl_sealed_trail_partial(SlSealedTrail *t, const SlCheckpoint *before)
{
	t->partial = true;
	if (before != NULL)
	{
		t->has_last = true;
		t->last = *before;
	}
}

/* ---------- a checkpoint in itself, and its place in the chain ---------- */

static void
check_signature(SlSealedTrail *t, const SlCheckpoint *c)
{
	char		detail[DETAIL_SIZE];
	char		key[2 * SL_CHECKPOINT_HASH_LEN + 1];

	switch (sl_keyring_verify(t->ring, c))
	{
		case SL_SIGNATURE_GOOD:
			return;
		case SL_SIGNATURE_BAD:
			t->report(t->arg, c->number, SL_FINDING_BAD_SIGNATURE,
					  "the signature is not that of the key which the checkpoint names");
			return;
		case SL_SIGNATURE_CRYPTO:
			t->report(t->arg, c->number, SL_FINDING_CRYPTO,
					  "the signature could not be checked");
			return;
		case SL_SIGNATURE_UNKNOWN_KEY:
			break;
	}
	/* once for each key, not for each checkpoint */
	if (t->has_unknown_key && memcmp(t->unknown_key, c->key, sizeof(c->key)) == 0)
		return;
	t->has_unknown_key = true;
	memcpy(t->unknown_key, c->key, sizeof(c->key));
	sl_hex_encode(c->key, sizeof(c->key), key);
	snprintf(detail, sizeof(detail),
			 "no public key is known for fingerprint %s, so signatures from here on are not checked",
			 key);
	t->report(t->arg, c->number, SL_FINDING_UNKNOWN_KEY, detail);
}

/* Numbers between this one and the one before it. */
static void
check_number(SlSealedTrail *t, const SlCheckpoint *c)
{
	int64_t		expected = t->has_last ? t->last.number + 1 : t->partial ? c->number : 1;
	char		detail[DETAIL_SIZE];

	t->after_gap = c->number > expected;
	if (c->number == expected)
		return;
	if (c->number < expected)
	{
		snprintf(detail, sizeof(detail), "it comes after checkpoint %" PRId64,
				 t->last.number);
		t->report(t->arg, c->number, SL_FINDING_DISORDER, detail);
		return;
	}
	if (c->number == expected + 1)
		snprintf(detail, sizeof(detail), "it is not there");
	else
		snprintf(detail, sizeof(detail),
				 "neither it nor those up to checkpoint %" PRId64 " are there",
				 c->number - 1);
	t->report(t->arg, expected, SL_FINDING_MISSING_CHECKPOINT, detail);
}

static void
check_chain(SlSealedTrail *t, const SlCheckpoint *c)
{
	unsigned char expected[SL_CHECKPOINT_HASH_LEN] = {0};
	int64_t		from = t->has_last ? t->last.to_position : 0;
	char		detail[DETAIL_SIZE];

	if (t->has_last && memcmp(t->last.trail, c->trail, sizeof(c->trail)) != 0)
		t->report(t->arg, c->number, SL_FINDING_BROKEN_CHAIN,
				  "it is of another trail than the one before it");

	/* what these would be compared with is missing */
	if (t->after_gap || (!t->has_last && t->partial && c->number != 1))
		return;
	if (t->has_last && !sl_checkpoint_hash(&t->last, expected))
		t->report(t->arg, c->number, SL_FINDING_CRYPTO, "its chain could not be checked");
	else if (memcmp(expected, c->previous, sizeof(expected)) != 0)
		t->report(t->arg, c->number, SL_FINDING_BROKEN_CHAIN,
				  t->has_last ? "its previous hash is not that of the checkpoint before it" :
				  "the first checkpoint must have zeroes for the previous hash");
	if (c->from_position != from)
	{
		snprintf(detail, sizeof(detail),
				 "it begins after position %" PRId64 ", but what is before it ends at %" PRId64,
				 c->from_position, from);
		t->report(t->arg, c->number, SL_FINDING_BROKEN_CHAIN, detail);
	}
}

/* ---------- the transitions in its window ---------- */

static void
compare_transitions(SlSealedTrail *t)
{
	const SlCheckpoint *c = &t->last;
	int64_t		count = (int64_t) sl_merkle_count(t->tree);
	unsigned char root[SL_CHECKPOINT_HASH_LEN];
	char		detail[DETAIL_SIZE];

	if (!sl_merkle_finish(t->tree, root))
		t->report(t->arg, c->number, SL_FINDING_CRYPTO, "its root could not be computed");
	else if (count != c->leaves)
	{
		snprintf(detail, sizeof(detail),
				 "%" PRId64 " transitions were sealed, %" PRId64 " are there",
				 c->leaves, count);
		t->report(t->arg, c->number, count < c->leaves ?
				  SL_FINDING_MISSING_TRANSITIONS : SL_FINDING_ADDED_TRANSITIONS,
				  detail);
	}
	else if (memcmp(root, c->root, sizeof(root)) != 0)
		t->report(t->arg, c->number, SL_FINDING_CHANGED_TRANSITIONS,
				  "as many transitions are there as were sealed, but other ones, or in another order");
	else if (t->first_at != c->first_at || t->last_at != c->last_at)
		t->report(t->arg, c->number, SL_FINDING_CHANGED_TRANSITIONS,
				  "the times of its transitions are not those that were sealed");
}

/* Transitions between two checkpoints are those of missing ones, or intruders. */
static void
judge_outside(SlSealedTrail *t)
{
	char		detail[DETAIL_SIZE];

	if (t->outside > 0 && !t->after_gap)
	{
		snprintf(detail, sizeof(detail),
				 "%" PRId64 " transitions at positions before it are in no checkpoint",
				 t->outside);
		t->report(t->arg, t->last.number, SL_FINDING_ADDED_TRANSITIONS, detail);
	}
	t->outside = 0;
}

static void
close_window(SlSealedTrail *t)
{
	if (!t->is_open)
		return;
	compare_transitions(t);
	judge_outside(t);
	t->is_open = false;
}

void
sl_sealed_trail_checkpoint(SlSealedTrail *t, const SlCheckpoint *c)
{
	close_window(t);
	/* those of before were not the newest after all */
	t->outside += t->unsealed;
	t->unsealed = 0;

	check_number(t, c);
	check_chain(t, c);
	check_signature(t, c);
	t->last = *c;
	t->has_last = true;
	t->is_open = true;
	t->disordered = false;
	t->checkpoints++;
	sl_merkle_begin(t->tree);
}

void
sl_sealed_trail_transition(SlSealedTrail *t, int64_t position, int64_t at,
						   const unsigned char *hash)
{
	char		detail[DETAIL_SIZE];

	t->transitions++;
	if (position <= t->position && !t->disordered)
	{
		snprintf(detail, sizeof(detail),
				 "position %" PRId64 " comes after position %" PRId64,
				 position, t->position);
		t->report(t->arg, t->has_last ? t->last.number : 0, SL_FINDING_DISORDER, detail);
		t->disordered = true;
	}
	t->position = position;

	if (!t->is_open || position > t->last.to_position)
		t->unsealed++;
	else if (position <= t->last.from_position)
		t->outside++;
	else
	{
		if (sl_merkle_count(t->tree) == 0)
			t->first_at = t->last_at = at;
		else if (at < t->first_at)
			t->first_at = at;
		else if (at > t->last_at)
			t->last_at = at;
		sl_merkle_add(t->tree, hash, SL_CHECKPOINT_HASH_LEN);
	}
}

void
sl_sealed_trail_end(SlSealedTrail *t)
{
	close_window(t);
}

int64_t
sl_sealed_trail_checkpoints(const SlSealedTrail *t)
{
	return t->checkpoints;
}

int64_t
sl_sealed_trail_transitions(const SlSealedTrail *t)
{
	return t->transitions;
}

int64_t
sl_sealed_trail_unsealed(const SlSealedTrail *t)
{
	return t->unsealed;
}

const SlCheckpoint *
sl_sealed_trail_last(const SlSealedTrail *t)
{
	return t->checkpoints > 0 ? &t->last : NULL;
}
