/*-------------------------------------------------------------------------
 *
 * test_state_machine.c
 *	  The edges one by one, and the rule that reads events: exhaustively.
 *
 * The rule is what the guarantee "events may come in any order" rests on, so
 * it isn't sampled.  Every multiset of up to five events, drawn from all
 * PaymentIntent event types at three moments, is delivered in every order
 * under both decline policies, and the end is compared with the rule as the
 * design words it, computed here from the whole set at once.
 *
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "state_machine.h"

static const SlState all_states[] = {
	SL_STATE_NONE, SL_STATE_CREATED, SL_STATE_REQUIRES_ACTION,
	SL_STATE_PROCESSING, SL_STATE_SUCCEEDED, SL_STATE_FAILED
};

static const char *
name_of(SlState state)
{
	const char *name = sl_state_name(state);

	return name ? name : "none";
}

/* ---- names and edges ---- */

static void
test_names(void)
{
	static const char *const names[] = {
		"created", "requires_action", "processing", "succeeded", "failed"
	};
	static const char *const not_names[] = {
		"", "none", "Created", "CREATED", "created ", " created", "create",
		"canceled", "requires_capture", "requires_payment_method", "\xff",
	};
	size_t		i;

	CHECK_INT(SL_STATE_COUNT, (int64_t) UNIT_LENGTH(names));
	for (i = 0; i < UNIT_LENGTH(names); i++)
	{
		/* the enum's order is that of the SQL type */
		CHECK_STR(sl_state_name((SlState) i), names[i]);
		CHECK_INT(sl_state_by_name(names[i]), (int64_t) i);
	}
	for (i = 0; i < UNIT_LENGTH(not_names); i++)
	{
		unit_case("name \"%s\"", not_names[i]);
		CHECK_INT(sl_state_by_name(not_names[i]), SL_STATE_NONE);
	}
	unit_case(NULL);
	CHECK_STR(sl_state_name(SL_STATE_NONE), NULL);
	CHECK_STR(sl_state_name((SlState) SL_STATE_COUNT), NULL);
	CHECK_STR(sl_state_name((SlState) 99), NULL);
}

/* One row for each state a payment can be in, with the states it may enter. */
static const struct
{
	SlState		from;
	const char *to;				/* c, r, p, s, f; "-" where there's no edge */
}			legal[] = {
	{SL_STATE_NONE, "c----"},
	{SL_STATE_CREATED, "-rpsf"},
	{SL_STATE_REQUIRES_ACTION, "c-psf"},
	{SL_STATE_PROCESSING, "cr-sf"},
	{SL_STATE_SUCCEEDED, "-----"},
	{SL_STATE_FAILED, "---s-"},
};

static void
test_every_pair(void)
{
	size_t		listed = 0;
	size_t		count = 0;
	size_t		i;
	size_t		j;

	for (i = 0; i < UNIT_LENGTH(legal); i++)
	{
		for (j = 0; j < SL_STATE_COUNT; j++)
		{
			bool		expected = legal[i].to[j] != '-';

			unit_case("%s -> %s", name_of(legal[i].from),
					  name_of((SlState) j));
			CHECK_INT(sl_edge_is_legal(legal[i].from, (SlState) j), expected);
			listed += expected;
		}
		unit_case("%s -> nothing", name_of(legal[i].from));
		CHECK(!sl_edge_is_legal(legal[i].from, SL_STATE_NONE));
		CHECK(!sl_edge_is_legal(legal[i].from, (SlState) SL_STATE_COUNT));
		CHECK(!sl_edge_is_legal((SlState) SL_STATE_COUNT, legal[i].from));
	}
	unit_case(NULL);

	sl_edges(&count);
	CHECK_INT((int64_t) count, (int64_t) listed);
}

/* The table itself: what it lists is legal, said once and explained. */
static void
test_edge_table(void)
{
	size_t		count = 0;
	const SlEdge *edges = sl_edges(&count);
	size_t		i;
	size_t		j;

	CHECK_INT((int64_t) count, 14);
	for (i = 0; i < count; i++)
	{
		unit_case("edge %zu", i);
		CHECK(sl_edge_is_legal(edges[i].from, edges[i].to));
		CHECK(edges[i].from != edges[i].to);
		CHECK(edges[i].evidence != NULL && edges[i].evidence[0] != '\0');
		for (j = 0; j < i; j++)
			CHECK(edges[i].from != edges[j].from ||
				  edges[i].to != edges[j].to);
	}
	unit_case(NULL);
}

/* ---- events ---- */

static void
test_event_types(void)
{
	static const struct
	{
		const char *type;
		SlEvidenceKind kind;
	}			types[] = {
		{"payment_intent.created", SL_EVIDENCE_CREATED},
		{"payment_intent.requires_action", SL_EVIDENCE_REQUIRES_ACTION},
		{"payment_intent.partially_funded", SL_EVIDENCE_REQUIRES_ACTION},
		{"payment_intent.processing", SL_EVIDENCE_PROCESSING},
		{"payment_intent.amount_capturable_updated", SL_EVIDENCE_CAPTURABLE},
		{"payment_intent.payment_failed", SL_EVIDENCE_DECLINED},
		{"payment_intent.canceled", SL_EVIDENCE_CANCELED},
		{"payment_intent.succeeded", SL_EVIDENCE_SUCCEEDED},
		/* a charge that succeeded may be a mere authorisation */
		{"charge.succeeded", SL_EVIDENCE_NONE},
		{"charge.failed", SL_EVIDENCE_NONE},
		{"charge.captured", SL_EVIDENCE_NONE},
		{"charge.refunded", SL_EVIDENCE_NONE},
		{"refund.created", SL_EVIDENCE_NONE},
		{"setup_intent.succeeded", SL_EVIDENCE_NONE},
		{"payment_intent.updated", SL_EVIDENCE_NONE},
		{"payment_intent", SL_EVIDENCE_NONE},
		{"payment_intent.", SL_EVIDENCE_NONE},
		{"payment_intent.succeede", SL_EVIDENCE_NONE},
		{"payment_intent.succeeded ", SL_EVIDENCE_NONE},
		{"payment_intent.succeeded.more", SL_EVIDENCE_NONE},
		{"PAYMENT_INTENT.SUCCEEDED", SL_EVIDENCE_NONE},
		{"succeeded", SL_EVIDENCE_NONE},
		{"", SL_EVIDENCE_NONE},
	};
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(types); i++)
	{
		unit_case("type \"%s\"", types[i].type);
		CHECK_INT(sl_evidence_of_type(types[i].type), types[i].kind);
	}
	unit_case(NULL);
}

static void
test_ranks(void)
{
	CHECK(sl_evidence_rank(SL_EVIDENCE_CREATED) <
		  sl_evidence_rank(SL_EVIDENCE_REQUIRES_ACTION));
	CHECK(sl_evidence_rank(SL_EVIDENCE_REQUIRES_ACTION) <
		  sl_evidence_rank(SL_EVIDENCE_PROCESSING));
	CHECK(sl_evidence_rank(SL_EVIDENCE_PROCESSING) <
		  sl_evidence_rank(SL_EVIDENCE_CAPTURABLE));
	CHECK(sl_evidence_rank(SL_EVIDENCE_CAPTURABLE) <
		  sl_evidence_rank(SL_EVIDENCE_DECLINED));
	CHECK_INT(sl_evidence_rank(SL_EVIDENCE_NONE), 0);
}

/* A terminal type must be borne out by the status; others needn't. */
static void
test_agreement(void)
{
	static const char *const statuses[] = {
		"requires_payment_method", "requires_confirmation", "requires_action",
		"processing", "requires_capture", "succeeded", "canceled", "",
		"Succeeded", "succeeded ", "some_new_status",
	};
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(statuses); i++)
	{
		const char *status = statuses[i];
		int			kind;

		for (kind = SL_EVIDENCE_NONE; kind <= SL_EVIDENCE_SUCCEEDED; kind++)
		{
			bool		expected = true;

			if (kind == SL_EVIDENCE_SUCCEEDED)
				expected = strcmp(status, "succeeded") == 0;
			if (kind == SL_EVIDENCE_CANCELED)
				expected = strcmp(status, "canceled") == 0;
			unit_case("kind %d, status \"%s\"", kind, status);
			CHECK_INT(sl_evidence_agrees((SlEvidenceKind) kind, status),
					  expected);
		}
	}
	unit_case(NULL);
}

/* ---- one decision ---- */

static bool
is_terminal_failure(SlEvidenceKind kind, bool retry_declines)
{
	return kind == SL_EVIDENCE_CANCELED ||
		(kind == SL_EVIDENCE_DECLINED && !retry_declines);
}

/* What has to hold of a decision whatever the circumstances. */
static bool
is_sound(const SlKnown *known, SlEvidenceKind kind, const SlDecision *d)
{
	bool		moves = d->to != known->state;

	if ((d->verdict == SL_VERDICT_APPLIED) != moves)
		return false;
	if (moves && !sl_edge_is_legal(known->state, d->to))
		return false;

	/* success absorbs, and only success undoes a failure */
	if (known->state == SL_STATE_SUCCEEDED && moves)
		return false;
	if (kind == SL_EVIDENCE_SUCCEEDED && d->to != SL_STATE_SUCCEEDED)
		return false;
	if (d->to == SL_STATE_SUCCEEDED && moves && kind != SL_EVIDENCE_SUCCEEDED)
		return false;
	if (d->late_success != (moves && known->state == SL_STATE_FAILED))
		return false;

	/* a terminal event always counts, and is never called stale */
	if (is_terminal_failure(kind, known->retry_declines) &&
		d->to != SL_STATE_SUCCEEDED && d->to != SL_STATE_FAILED)
		return false;
	if ((kind == SL_EVIDENCE_SUCCEEDED ||
		 is_terminal_failure(kind, known->retry_declines)) &&
		(d->verdict == SL_VERDICT_STALE || d->advances))
		return false;
	if (d->to == SL_STATE_FAILED && moves &&
		!is_terminal_failure(kind, known->retry_declines))
		return false;
	if (d->cancel_intent != (d->to == SL_STATE_FAILED && moves &&
							 kind == SL_EVIDENCE_DECLINED))
		return false;

	/* types that say nothing do nothing */
	if ((kind == SL_EVIDENCE_NONE || kind == SL_EVIDENCE_CREATED) &&
		(moves || d->advances))
		return false;

	/* the first of its kind is the newest, whatever its time */
	if (!known->has_last && kind != SL_EVIDENCE_NONE &&
		kind != SL_EVIDENCE_CREATED && kind != SL_EVIDENCE_SUCCEEDED &&
		!is_terminal_failure(kind, known->retry_declines) &&
		known->state != SL_STATE_SUCCEEDED &&
		known->state != SL_STATE_FAILED && !d->advances)
		return false;

	/* what is stale leaves no trace */
	return d->verdict != SL_VERDICT_STALE || !d->advances;
}

static void
test_every_decision(void)
{
	static const int64_t times[] = {INT64_MIN, -1, 0, 1, 2, INT64_MAX};
	SlKnown		known;
	size_t		s;
	size_t		last;
	size_t		created;
	int			kind;

	for (s = 1; s < UNIT_LENGTH(all_states); s++)
		for (last = 0; last < UNIT_LENGTH(times); last++)
			for (known.last_rank = 0; known.last_rank <= 5; known.last_rank++)
				for (kind = 0; kind <= SL_EVIDENCE_SUCCEEDED; kind++)
					for (created = 0; created < UNIT_LENGTH(times) * 4; created++)
					{
						SlDecision	d;

						known.state = all_states[s];
						known.retry_declines = created & 1;
						known.has_last = (created & 2) != 0;
						known.last_created = times[last];
						d = sl_decide(&known, (SlEvidenceKind) kind,
									  times[created / 4]);
						unit_case("%s, kind %d at %" PRId64
								  ", last %d %" PRId64 " %d",
								  name_of(known.state), kind,
								  times[created / 4], known.has_last,
								  known.last_created, known.last_rank);
						CHECK(is_sound(&known, (SlEvidenceKind) kind, &d));
					}
	unit_case(NULL);
}

/* The cases that the design names, with all that they decide. */
static void
test_named_decisions(void)
{
	static const struct
	{
		const char *name;
		SlKnown		known;		/* state, retry, has_last, created, rank */
		SlEvidenceKind kind;
		int64_t		created;
		SlDecision	expected;	/* verdict, to, advances, late, cancel */
	}			cases[] = {
		{"a success that skips all states",
			{SL_STATE_CREATED, false, false, 0, 0}, SL_EVIDENCE_SUCCEEDED, 5,
		{SL_VERDICT_APPLIED, SL_STATE_SUCCEEDED, false, false, false}},
		{"money after a decline",
			{SL_STATE_FAILED, false, false, 0, 0}, SL_EVIDENCE_SUCCEEDED, 1,
		{SL_VERDICT_APPLIED, SL_STATE_SUCCEEDED, false, true, false}},
		{"a second success",
			{SL_STATE_SUCCEEDED, false, false, 0, 0}, SL_EVIDENCE_SUCCEEDED, 9,
		{SL_VERDICT_RECORDED, SL_STATE_SUCCEEDED, false, false, false}},
		{"a late decline of a paid one",
			{SL_STATE_SUCCEEDED, false, true, 5, 1}, SL_EVIDENCE_DECLINED, 9,
		{SL_VERDICT_RECORDED, SL_STATE_SUCCEEDED, false, false, false}},
		{"a late decline of a paid one, retry",
			{SL_STATE_SUCCEEDED, true, true, 5, 1}, SL_EVIDENCE_DECLINED, 9,
		{SL_VERDICT_STALE, SL_STATE_SUCCEEDED, false, false, false}},
		{"a cancellation of a paid one",
			{SL_STATE_SUCCEEDED, true, true, 5, 1}, SL_EVIDENCE_CANCELED, 9,
		{SL_VERDICT_RECORDED, SL_STATE_SUCCEEDED, false, false, false}},
		{"a decline, final",
			{SL_STATE_PROCESSING, false, true, 5, 2}, SL_EVIDENCE_DECLINED, 6,
		{SL_VERDICT_APPLIED, SL_STATE_FAILED, false, false, true}},
		{"an old decline, final",
			{SL_STATE_PROCESSING, false, true, 5, 2}, SL_EVIDENCE_DECLINED, 1,
		{SL_VERDICT_APPLIED, SL_STATE_FAILED, false, false, true}},
		{"a second decline, final",
			{SL_STATE_FAILED, false, false, 0, 0}, SL_EVIDENCE_DECLINED, 6,
		{SL_VERDICT_RECORDED, SL_STATE_FAILED, false, false, false}},
		{"a decline, retry",
			{SL_STATE_REQUIRES_ACTION, true, true, 5, 1}, SL_EVIDENCE_DECLINED,
			5,
		{SL_VERDICT_APPLIED, SL_STATE_CREATED, true, false, false}},
		{"a decline at once, retry",
			{SL_STATE_CREATED, true, false, 0, 0}, SL_EVIDENCE_DECLINED, 5,
		{SL_VERDICT_RECORDED, SL_STATE_CREATED, true, false, false}},
		{"an old decline, retry",
			{SL_STATE_PROCESSING, true, true, 5, 2}, SL_EVIDENCE_DECLINED, 4,
		{SL_VERDICT_STALE, SL_STATE_PROCESSING, false, false, false}},
		{"a cancellation, retry",
			{SL_STATE_CREATED, true, true, 5, 4}, SL_EVIDENCE_CANCELED, 1,
		{SL_VERDICT_APPLIED, SL_STATE_FAILED, false, false, false}},
		{"3-D Secure needed",
			{SL_STATE_CREATED, false, false, 0, 0},
			SL_EVIDENCE_REQUIRES_ACTION, 5,
		{SL_VERDICT_APPLIED, SL_STATE_REQUIRES_ACTION, true, false, false}},
		{"created, delivered after it",
			{SL_STATE_REQUIRES_ACTION, false, true, 5, 1},
			SL_EVIDENCE_CREATED, 5,
		{SL_VERDICT_STALE, SL_STATE_REQUIRES_ACTION, false, false, false}},
		{"created, delivered first",
			{SL_STATE_CREATED, false, false, 0, 0}, SL_EVIDENCE_CREATED, 5,
		{SL_VERDICT_RECORDED, SL_STATE_CREATED, false, false, false}},
		{"authorised",
			{SL_STATE_CREATED, false, false, 0, 0}, SL_EVIDENCE_CAPTURABLE, 5,
		{SL_VERDICT_APPLIED, SL_STATE_PROCESSING, true, false, false}},
		{"authorised while processing",
			{SL_STATE_PROCESSING, false, true, 5, 2}, SL_EVIDENCE_CAPTURABLE,
			5,
		{SL_VERDICT_RECORDED, SL_STATE_PROCESSING, true, false, false}},
		{"the same second, a lower rank",
			{SL_STATE_PROCESSING, false, true, 5, 2},
			SL_EVIDENCE_REQUIRES_ACTION, 5,
		{SL_VERDICT_STALE, SL_STATE_PROCESSING, false, false, false}},
		{"the same second, the same rank",
			{SL_STATE_PROCESSING, false, true, 5, 2}, SL_EVIDENCE_PROCESSING,
			5,
		{SL_VERDICT_STALE, SL_STATE_PROCESSING, false, false, false}},
		{"a second later, a lower rank",
			{SL_STATE_PROCESSING, false, true, 5, 2},
			SL_EVIDENCE_REQUIRES_ACTION, 6,
		{SL_VERDICT_APPLIED, SL_STATE_REQUIRES_ACTION, true, false, false}},
		{"progress of a failed one",
			{SL_STATE_FAILED, true, false, 0, 0}, SL_EVIDENCE_PROCESSING, 9,
		{SL_VERDICT_STALE, SL_STATE_FAILED, false, false, false}},
	};
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(cases); i++)
	{
		SlDecision	d = sl_decide(&cases[i].known, cases[i].kind,
								  cases[i].created);

		unit_case("%s", cases[i].name);
		CHECK_INT(d.verdict, cases[i].expected.verdict);
		CHECK_STR(name_of(d.to), name_of(cases[i].expected.to));
		CHECK_INT(d.advances, cases[i].expected.advances);
		CHECK_INT(d.late_success, cases[i].expected.late_success);
		CHECK_INT(d.cancel_intent, cases[i].expected.cancel_intent);
	}
	unit_case(NULL);
}

/* ---- every order of every set ---- */

#define MAX_EVENTS	5
#define TIMES		3

/*
 * All types of event, with what the design says of each: its place within one
 * second, and the state that it shows if it is the newest.
 */
static const struct
{
	const char *type;
	int			place;			/* 0: never decides */
	SlState		shows;
}			types[] = {
	{"payment_intent.created", 0, SL_STATE_CREATED},
	{"payment_intent.requires_action", 1, SL_STATE_REQUIRES_ACTION},
	{"payment_intent.partially_funded", 1, SL_STATE_REQUIRES_ACTION},
	{"payment_intent.processing", 2, SL_STATE_PROCESSING},
	{"payment_intent.amount_capturable_updated", 3, SL_STATE_PROCESSING},
	{"payment_intent.payment_failed", 4, SL_STATE_CREATED},
	{"payment_intent.canceled", 0, SL_STATE_FAILED},
	{"payment_intent.succeeded", 0, SL_STATE_SUCCEEDED},
};

#define DECLINE		5
#define CANCEL		6
#define SUCCESS		7
#define ALPHABET	((int) UNIT_LENGTH(types) * TIMES)

/* An event is a number: its type and its time. */
#define TYPE_OF(event)	((event) / TIMES)
#define TIME_OF(event)	((event) % TIMES + 1)

static SlEvidenceKind kinds[UNIT_LENGTH(types)];

static unsigned long orders;
static unsigned long decisions;

typedef struct Delivery
{
	int			event[MAX_EVENTS];	/* ascending */
	int			n;
	bool		taken[MAX_EVENTS];
	int			order[MAX_EVENTS];	/* indexes into event[], as delivered */
	SlState		expected;
	int			newest;			/* the deciding event, or -1 */
	bool		twice;			/* deliver all once more at the end */
	const char *wrong;			/* what was broken first */
} Delivery;

/* The rule, from the whole set. */
static void
expect(Delivery *d, bool retry_declines)
{
	int			i;

	d->expected = SL_STATE_CREATED;
	d->newest = -1;
	for (i = 0; i < d->n; i++)
	{
		int			event = d->event[i];
		int			type = TYPE_OF(event);

		if (types[type].place == 0)
			continue;
		if (d->newest < 0 || TIME_OF(event) > TIME_OF(d->newest) ||
			(TIME_OF(event) == TIME_OF(d->newest) &&
			 types[type].place > types[TYPE_OF(d->newest)].place))
			d->newest = event;
	}
	if (d->newest >= 0)
		d->expected = types[TYPE_OF(d->newest)].shows;

	for (i = 0; i < d->n; i++)
		if (TYPE_OF(d->event[i]) == CANCEL ||
			(TYPE_OF(d->event[i]) == DECLINE && !retry_declines))
			d->expected = SL_STATE_FAILED;
	for (i = 0; i < d->n; i++)
		if (TYPE_OF(d->event[i]) == SUCCESS)
			d->expected = SL_STATE_SUCCEEDED;
}

/* One event, as the ingest applies it. */
static SlKnown
deliver(Delivery *d, SlKnown known, int event)
{
	SlEvidenceKind kind = kinds[TYPE_OF(event)];
	SlDecision	decision = sl_decide(&known, kind, TIME_OF(event));

	decisions++;
	if (!is_sound(&known, kind, &decision))
		d->wrong = "an unsound decision";
	known.state = decision.to;
	if (decision.advances)
	{
		known.has_last = true;
		known.last_created = TIME_OF(event);
		known.last_rank = sl_evidence_rank(kind);
	}
	return known;
}

/* All events are in: is the end the right one? */
static void
check_end(Delivery *d, SlKnown known)
{
	int			i;

	orders++;
	if (known.state != d->expected)
		d->wrong = "the wrong end";

	/* while nothing is final, what comes next is measured by the newest */
	if (d->expected != SL_STATE_SUCCEEDED && d->expected != SL_STATE_FAILED)
	{
		if (known.has_last != (d->newest >= 0))
			d->wrong = "a wrong has_last";
		else if (known.has_last &&
				 (known.last_created != TIME_OF(d->newest) ||
				  known.last_rank !=
				  sl_evidence_rank(kinds[TYPE_OF(d->newest)])))
			d->wrong = "not the newest remembered";
	}

	/* even if the caller removed no duplicates */
	for (i = 0; d->twice && i < d->n && !d->wrong; i++)
	{
		known = deliver(d, known, d->event[d->order[i]]);
		if (known.state != d->expected)
			d->wrong = "a duplicate that counts";
	}
}

/* Delivers the events not yet taken, in every order. */
static void
permute(Delivery *d, SlKnown known, int delivered)
{
	int			i;

	if (delivered == d->n)
	{
		check_end(d, known);
		return;
	}

	for (i = 0; i < d->n && !d->wrong; i++)
	{
		/* two events that are alike make no new order when swapped */
		if (d->taken[i] ||
			(i > 0 && d->event[i] == d->event[i - 1] && !d->taken[i - 1]))
			continue;
		d->taken[i] = true;
		d->order[delivered] = i;
		permute(d, deliver(d, known, d->event[i]), delivered + 1);
		d->taken[i] = false;
	}
}

static void
name_case(const Delivery *d, bool retry_declines)
{
	char		text[160];
	size_t		len = 0;
	int			i;

	/* in the order that went wrong: permute() leaves it behind */
	text[0] = '\0';
	for (i = 0; i < d->n && len < sizeof(text); i++)
	{
		int			event = d->event[d->order[i]];

		len += (size_t) snprintf(text + len, sizeof(text) - len, " %s@%d",
								 strchr(types[TYPE_OF(event)].type, '.') + 1,
								 TIME_OF(event));
	}
	unit_case("%s: %s:%s", d->wrong, retry_declines ? "retry" : "final", text);
}

static void
check_set(const int *events, int n)
{
	int			retry_declines;

	for (retry_declines = 0; retry_declines <= 1; retry_declines++)
	{
		Delivery	d;
		SlKnown		known;

		memset(&d, 0, sizeof(d));
		memset(&known, 0, sizeof(known));
		memcpy(d.event, events, sizeof(int) * (size_t) n);
		d.n = n;
		d.twice = n < MAX_EVENTS;
		known.state = SL_STATE_CREATED;
		known.retry_declines = retry_declines;
		expect(&d, retry_declines);
		permute(&d, known, 0);
		if (d.wrong)
			name_case(&d, retry_declines);
		CHECK(!d.wrong);
		unit_case(NULL);
	}
}

/* Extends a set by every event not below its last, itself included. */
static void
extend(int *events, int n)
{
	int			event;

	if (n > 0)
		check_set(events, n);
	if (n == MAX_EVENTS)
		return;
	for (event = n > 0 ? events[n - 1] : 0; event < ALPHABET; event++)
	{
		events[n] = event;
		extend(events, n + 1);
	}
}

static void
test_every_order_of_every_set(void)
{
	int			events[MAX_EVENTS];
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(types); i++)
	{
		kinds[i] = sl_evidence_of_type(types[i].type);
		CHECK(kinds[i] != SL_EVIDENCE_NONE);
	}
	extend(events, 0);
	printf("%lu orders, %lu decisions\n", orders, decisions);
}

/* The status of a PaymentIntent, as a state. */
static void
test_statuses(void)
{
	static const struct
	{
		const char *status;
		SlState		state;
	}			cases[] = {
		{"requires_payment_method", SL_STATE_CREATED},
		{"requires_confirmation", SL_STATE_CREATED},
		{"requires_action", SL_STATE_REQUIRES_ACTION},
		{"processing", SL_STATE_PROCESSING},
		{"requires_capture", SL_STATE_PROCESSING},
		{"succeeded", SL_STATE_SUCCEEDED},
		{"canceled", SL_STATE_FAILED},
		{"failed", SL_STATE_NONE},
		{"requires_source", SL_STATE_NONE},
		{"Succeeded", SL_STATE_NONE},
		{"", SL_STATE_NONE},
	};
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(cases); i++)
	{
		unit_case("status \"%s\"", cases[i].status);
		CHECK_INT(sl_state_of_status(cases[i].status), cases[i].state);
	}
	unit_case(NULL);
}

int
main(void)
{
	test_names();
	test_every_pair();
	test_edge_table();
	test_event_types();
	test_ranks();
	test_agreement();
	test_every_decision();
	test_named_decisions();
	test_every_order_of_every_set();
	test_statuses();
	return unit_done();
}
