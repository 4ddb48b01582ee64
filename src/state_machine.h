/*-------------------------------------------------------------------------
 *
 * state_machine.h
 *	  The five payment states, their legal edges, and what an event decides.
 *
 * Pure C: no PostgreSQL, no allocation, no I/O.  The edge table in
 * state_machine.c is the only statement of the machine in the project; the
 * guard trigger, legal_transitions() and the README are all read from it or
 * checked against it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_STATE_MACHINE_H
#define SL_STATE_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The order is that of the SQL enum payment_state. */
typedef enum SlState
{
	SL_STATE_NONE = -1,			/* before the payment exists */
	SL_STATE_CREATED = 0,
	SL_STATE_REQUIRES_ACTION,
	SL_STATE_PROCESSING,
	SL_STATE_SUCCEEDED,
	SL_STATE_FAILED
} SlState;

#define SL_STATE_COUNT 5

/* What kind of evidence an event of Stripe's is. */
typedef enum SlEvidenceKind
{
	SL_EVIDENCE_NONE,			/* a type that says nothing of the state */
	SL_EVIDENCE_CREATED,
	SL_EVIDENCE_REQUIRES_ACTION,
	SL_EVIDENCE_PROCESSING,
	SL_EVIDENCE_CAPTURABLE,
	SL_EVIDENCE_DECLINED,
	SL_EVIDENCE_CANCELED,
	SL_EVIDENCE_SUCCEEDED
} SlEvidenceKind;

typedef struct SlEdge
{
	SlState		from;
	SlState		to;
	const char *evidence;		/* English, for legal_transitions() */
} SlEdge;

/* What is known of a payment when an event arrives. */
typedef struct SlKnown
{
	SlState		state;
	bool		retry_declines; /* decline_policy = retry */
	bool		has_last;		/* any non-terminal evidence applied yet? */
	int64_t		last_created;	/* its event's created, Unix seconds */
	int			last_rank;
} SlKnown;

typedef enum SlVerdict
{
	SL_VERDICT_APPLIED,			/* the state moves */
	SL_VERDICT_RECORDED,		/* agrees with or adds to what is known */
	SL_VERDICT_STALE			/* older than what is known */
} SlVerdict;

typedef struct SlDecision
{
	SlVerdict	verdict;
	SlState		to;				/* the state afterwards, moved or not */
	bool		advances;		/* becomes the newest non-terminal evidence */
	bool		late_success;	/* money came after the payment had failed */
	bool		cancel_intent;	/* failed by a decline: Stripe must agree */
} SlDecision;

extern const SlEdge *sl_edges(size_t *count);
extern bool sl_edge_is_legal(SlState from, SlState to);
extern const char *sl_state_name(SlState state);
extern SlState sl_state_by_name(const char *name);
extern SlState sl_state_of_status(const char *status);
extern SlEvidenceKind sl_evidence_of_type(const char *event_type);
extern int	sl_evidence_rank(SlEvidenceKind kind);
extern bool sl_evidence_agrees(SlEvidenceKind kind, const char *status);
extern SlDecision sl_decide(const SlKnown *known, SlEvidenceKind kind,
							int64_t created);

#endif							/* SL_STATE_MACHINE_H */
