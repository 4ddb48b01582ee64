/*-------------------------------------------------------------------------
 *
 * state_machine.c
 *	  The payment state machine as data, and the one rule that reads events.
 *
 * Stripe delivers events late, twice, out of order and several in one second
 * (docs.stripe.com/webhooks), so arrival order must not matter.  The rule:
 * any success ends in succeeded; else any terminal failure ends in failed;
 * else the newest non-terminal event decides, newest meaning the greatest
 * (created, rank).  Each step below depends only on the maximum of what was
 * seen so far, which makes the end state the same for every order and every
 * number of deliveries.
 *
 *-------------------------------------------------------------------------
 */
#include "state_machine.h"

#include <string.h>

static const char *const state_names[SL_STATE_COUNT] = {
	"created", "requires_action", "processing", "succeeded", "failed"
};

/*
 * Every legal move.  Events may be missed or overtaken, so evidence may skip
 * states; a card payment, for one, never shows "processing".
 */
static const SlEdge edges[] = {
	{SL_STATE_NONE, SL_STATE_CREATED, "create_payment"},
	{SL_STATE_CREATED, SL_STATE_REQUIRES_ACTION,
	"payment_intent.requires_action or payment_intent.partially_funded"},
	{SL_STATE_CREATED, SL_STATE_PROCESSING,
	"payment_intent.processing or payment_intent.amount_capturable_updated"},
	{SL_STATE_CREATED, SL_STATE_SUCCEEDED, "payment_intent.succeeded"},
	{SL_STATE_CREATED, SL_STATE_FAILED,
	"payment_intent.canceled, or payment_intent.payment_failed under decline_policy final"},
	{SL_STATE_REQUIRES_ACTION, SL_STATE_CREATED,
	"payment_intent.payment_failed under decline_policy retry"},
	{SL_STATE_REQUIRES_ACTION, SL_STATE_PROCESSING,
	"payment_intent.processing or payment_intent.amount_capturable_updated"},
	{SL_STATE_REQUIRES_ACTION, SL_STATE_SUCCEEDED, "payment_intent.succeeded"},
	{SL_STATE_REQUIRES_ACTION, SL_STATE_FAILED,
	"payment_intent.canceled, or payment_intent.payment_failed under decline_policy final"},
	{SL_STATE_PROCESSING, SL_STATE_CREATED,
	"payment_intent.payment_failed under decline_policy retry"},
	{SL_STATE_PROCESSING, SL_STATE_REQUIRES_ACTION,
	"payment_intent.requires_action or payment_intent.partially_funded"},
	{SL_STATE_PROCESSING, SL_STATE_SUCCEEDED, "payment_intent.succeeded"},
	{SL_STATE_PROCESSING, SL_STATE_FAILED,
	"payment_intent.canceled, or payment_intent.payment_failed under decline_policy final"},
	{SL_STATE_FAILED, SL_STATE_SUCCEEDED, "payment_intent.succeeded"},
};

#define EDGE_COUNT (sizeof(edges) / sizeof(edges[0]))

/*
 * Event types and their rank among non-terminal events of one second.  A
 * decline ranks highest: within one second it ends the attempt whose earlier
 * events share its timestamp.  payment_intent.created ranks lowest and never
 * moves anything, since every payment starts there.
 */
static const struct
{
	const char *type;
	SlEvidenceKind kind;
}			event_types[] = {
	{"payment_intent.created", SL_EVIDENCE_CREATED},
	{"payment_intent.requires_action", SL_EVIDENCE_REQUIRES_ACTION},
	{"payment_intent.partially_funded", SL_EVIDENCE_REQUIRES_ACTION},
	{"payment_intent.processing", SL_EVIDENCE_PROCESSING},
	{"payment_intent.amount_capturable_updated", SL_EVIDENCE_CAPTURABLE},
	{"payment_intent.payment_failed", SL_EVIDENCE_DECLINED},
	{"payment_intent.canceled", SL_EVIDENCE_CANCELED},
	{"payment_intent.succeeded", SL_EVIDENCE_SUCCEEDED},
};

#define EVENT_TYPE_COUNT (sizeof(event_types) / sizeof(event_types[0]))

/* The edge table, for listing; static storage. */
const SlEdge *
sl_edges(size_t *count)
{
	*count = EDGE_COUNT;
	return edges;
}

bool
sl_edge_is_legal(SlState from, SlState to)
{
	size_t		i;

	for (i = 0; i < EDGE_COUNT; i++)
		if (edges[i].from == from && edges[i].to == to)
			return true;
	return false;
}

/* The enum label of a state; NULL for none. */
const char *
sl_state_name(SlState state)
{
	if (state < 0 || state >= SL_STATE_COUNT)
		return NULL;
	return state_names[state];
}

/* The state of an enum label; SL_STATE_NONE if there is no such label. */
SlState
sl_state_by_name(const char *name)
{
	int			i;

	for (i = 0; i < SL_STATE_COUNT; i++)
		if (strcmp(state_names[i], name) == 0)
			return (SlState) i;
	return SL_STATE_NONE;
}

/*
 * The state that mirrors a PaymentIntent's status, as long as no decline has
 * failed the payment; SL_STATE_NONE for a status that is not known here, since
 * the set is open.
 */
SlState
sl_state_of_status(const char *status)
{
	static const struct
	{
		const char *status;
		SlState		state;
	}			mirrors[] = {
		{"requires_payment_method", SL_STATE_CREATED},
		{"requires_confirmation", SL_STATE_CREATED},
		{"requires_action", SL_STATE_REQUIRES_ACTION},
		{"processing", SL_STATE_PROCESSING},
		{"requires_capture", SL_STATE_PROCESSING},
		{"succeeded", SL_STATE_SUCCEEDED},
		{"canceled", SL_STATE_FAILED},
	};
	size_t		i;

	for (i = 0; i < sizeof(mirrors) / sizeof(mirrors[0]); i++)
		if (strcmp(mirrors[i].status, status) == 0)
			return mirrors[i].state;
	return SL_STATE_NONE;
}

SlEvidenceKind
sl_evidence_of_type(const char *event_type)
{
	size_t		i;

	for (i = 0; i < EVENT_TYPE_COUNT; i++)
		if (strcmp(event_types[i].type, event_type) == 0)
			return event_types[i].kind;
	return SL_EVIDENCE_NONE;
}

/* Order among non-terminal events of one second; see event_types[]. */
int
sl_evidence_rank(SlEvidenceKind kind)
{
	switch (kind)
	{
		case SL_EVIDENCE_REQUIRES_ACTION:
			return 1;
		case SL_EVIDENCE_PROCESSING:
			return 2;
		case SL_EVIDENCE_CAPTURABLE:
			return 3;
		case SL_EVIDENCE_DECLINED:
			return 4;
		default:
			return 0;
	}
}

/*
 * Does the PaymentIntent's status bear out what the event's type claims?
 * Only the two types that end a payment must be borne out; the others are
 * snapshots whose status Stripe may render otherwise, and the set of
 * statuses is open.
 */
bool
sl_evidence_agrees(SlEvidenceKind kind, const char *status)
{
	if (kind == SL_EVIDENCE_SUCCEEDED)
		return strcmp(status, "succeeded") == 0;
	if (kind == SL_EVIDENCE_CANCELED)
		return strcmp(status, "canceled") == 0;
	return true;
}

static SlState
state_of_evidence(SlEvidenceKind kind)
{
	switch (kind)
	{
		case SL_EVIDENCE_REQUIRES_ACTION:
			return SL_STATE_REQUIRES_ACTION;
		case SL_EVIDENCE_PROCESSING:
		case SL_EVIDENCE_CAPTURABLE:
			return SL_STATE_PROCESSING;
		case SL_EVIDENCE_CANCELED:
			return SL_STATE_FAILED;
		case SL_EVIDENCE_SUCCEEDED:
			return SL_STATE_SUCCEEDED;
		default:
			return SL_STATE_CREATED;
	}
}

static bool
is_newer(const SlKnown *known, SlEvidenceKind kind, int64_t created)
{
	if (!known->has_last)
		return true;
	if (created != known->last_created)
		return created > known->last_created;
	return sl_evidence_rank(kind) > known->last_rank;
}

static SlDecision
decide_non_terminal(const SlKnown *known, SlEvidenceKind kind, int64_t created)
{
	SlDecision	d = {SL_VERDICT_STALE, known->state, false, false, false};

	if (known->state == SL_STATE_FAILED || !is_newer(known, kind, created))
		return d;

	/* "created" is where every payment starts: it can only confirm. */
	if (kind == SL_EVIDENCE_CREATED || kind == SL_EVIDENCE_NONE)
	{
		d.verdict = SL_VERDICT_RECORDED;
		return d;
	}

	d.advances = true;
	d.to = state_of_evidence(kind);
	d.verdict = d.to == known->state ? SL_VERDICT_RECORDED : SL_VERDICT_APPLIED;
	return d;
}

/*
 * Decide what one verified event means for a payment.  'created' is the
 * event's own time, in Unix seconds.  Every move it returns is a legal edge.
 */
SlDecision
sl_decide(const SlKnown *known, SlEvidenceKind kind, int64_t created)
{
	SlDecision	d = {SL_VERDICT_RECORDED, known->state, false, false, false};
	bool		terminal_failure;

	if (kind == SL_EVIDENCE_SUCCEEDED)
	{
		if (known->state == SL_STATE_SUCCEEDED)
			return d;
		d.verdict = SL_VERDICT_APPLIED;
		d.to = SL_STATE_SUCCEEDED;
		d.late_success = known->state == SL_STATE_FAILED;
		return d;
	}

	terminal_failure = kind == SL_EVIDENCE_CANCELED ||
		(kind == SL_EVIDENCE_DECLINED && !known->retry_declines);

	if (known->state == SL_STATE_SUCCEEDED)
	{
		if (!terminal_failure)
			d.verdict = SL_VERDICT_STALE;
		return d;
	}
	if (!terminal_failure)
		return decide_non_terminal(known, kind, created);

	if (known->state == SL_STATE_FAILED)
		return d;
	d.verdict = SL_VERDICT_APPLIED;
	d.to = SL_STATE_FAILED;
	d.cancel_intent = kind == SL_EVIDENCE_DECLINED;
	return d;
}
