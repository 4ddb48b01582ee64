/*-------------------------------------------------------------------------
 *
 * sealed_trail.h
 *	  Compares an audit trail with the checkpoints that sealed it.
 *
 * Checkpoints and transitions are handed in by position: each checkpoint
 * before its transitions, and last the transitions that are not sealed yet.
 * Whatever is wrong is reported as soon as it is seen.  No transition is kept,
 * so the memory is the same for any length of trail.
 *
 * verify_checkpoints() and the stand-alone verifier both judge by this file.
 * Needs nothing of PostgreSQL.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_SEALED_TRAIL_H
#define SL_SEALED_TRAIL_H

#include "checkpoint.h"
#include "checkpoint_key.h"

typedef enum SlFinding
{
	SL_FINDING_MISSING_CHECKPOINT,
	SL_FINDING_BROKEN_CHAIN,
	SL_FINDING_BAD_SIGNATURE,
	SL_FINDING_UNKNOWN_KEY,
	SL_FINDING_MISSING_TRANSITIONS,
	SL_FINDING_ADDED_TRANSITIONS,
	SL_FINDING_CHANGED_TRANSITIONS,
	SL_FINDING_DISORDER,
	SL_FINDING_CRYPTO
} SlFinding;

/* Constant: what kind of finding it is, in two words. */
extern const char *sl_finding_name(SlFinding finding);

/*
 * Is told of each finding: the number of the checkpoint it is about, and a
 * sentence that is valid only meanwhile.
 */
typedef void (*SlFindingReport) (void *arg, int64_t number, SlFinding finding,
								 const char *detail);

typedef struct SlSealedTrail SlSealedTrail;

/*
 * Begins.  The ring may be empty, and is referenced until the end, like arg.
 * NULL if OpenSSL has no SHA-256 or no memory.  Free it.
 */
extern SlSealedTrail *sl_sealed_trail_new(const SlKeyRing *ring,
										  SlFindingReport report, void *arg);
extern void sl_sealed_trail_free(SlSealedTrail *trail);

/*
 * Don't expect the trail from its beginning: whatever checkpoint comes first
 * is taken for granted, or, if the one before it is given, checked against it.
 * Call it before anything else.
 */
extern void sl_sealed_trail_partial(SlSealedTrail *trail,
									const SlCheckpoint *before);

/* The next checkpoint. */
extern void sl_sealed_trail_checkpoint(SlSealedTrail *trail,
									   const SlCheckpoint *c);

/*
 * The next transition: its position, its time in microseconds since 1970 and
 * its hash of SL_CHECKPOINT_HASH_LEN bytes.
 */
extern void sl_sealed_trail_transition(SlSealedTrail *trail, int64_t position,
									   int64_t at, const unsigned char *hash);

/* There is nothing more. */
extern void sl_sealed_trail_end(SlSealedTrail *trail);

/* How many there were: checkpoints, transitions, transitions not sealed yet. */
extern int64_t sl_sealed_trail_checkpoints(const SlSealedTrail *trail);
extern int64_t sl_sealed_trail_transitions(const SlSealedTrail *trail);
extern int64_t sl_sealed_trail_unsealed(const SlSealedTrail *trail);

/* The last checkpoint that was handed in; NULL if none was. */
extern const SlCheckpoint *sl_sealed_trail_last(const SlSealedTrail *trail);

#endif							/* SL_SEALED_TRAIL_H */
