/*-------------------------------------------------------------------------
 *
 * lifecycle.pml
 *	  The protocol between create_payment(), the worker, Stripe and
 *	  ingest_webhook(), small enough for every interleaving to be tried.
 *
 * One payment; a worker with two calls under way; webhooks in any order and
 * any number; a customer, an operator, a network that loses and delays, and
 * Stripe.  What decides is not modelled but linked in: sl_decide(),
 * sl_edge_is_legal() and sl_evidence_rank() of src/state_machine.c, and
 * sl_retry_classify() of src/retry_policy.c.  README.md says which function of
 * src/ each step stands for, what is left out, and what is taken for granted.
 *
 * An atomic step here is a transaction there.  That transactions on one
 * payment don't mix is what its row lock is for; with FINE the model takes and
 * releases the locks itself, in steps of their own, and so shows that they
 * suffice and that nobody waits for ever.
 *
 * Size of the search: FAULTS, CRASHES, ACTS, HELP.  Kind: RETRY_DECLINES,
 * UNMARKED, FINE.  ONCE: no event comes twice.  BREAK_...: a
 * defect put in on purpose, which has to be found (see check).
 *
 *-------------------------------------------------------------------------
 */

#ifndef FAULTS
#define FAULTS 2				/* calls and answers lost, refusals that pass, errors */
#endif
#ifndef CRASHES
#define CRASHES 1				/* of a worker, or of a backend that ingests */
#endif
#ifndef ACTS
#define ACTS 2					/* what the customer does */
#endif
#ifndef HELP
#define HELP 1					/* calls of retry_request() */
#endif

#ifdef UNMARKED
#define MARKED false			/* events and lists don't name the payment */
#else
#define MARKED true
#endif

/* SlState and SlEvidenceKind of src/state_machine.h */
#define CREATED 0
#define REQUIRES_ACTION 1
#define PROCESSING 2
#define SUCCEEDED 3
#define FAILED 4
#define NOTHING 255

#define E_REQUIRES_ACTION 2
#define E_PROCESSING 3
#define E_DECLINED 5
#define E_CANCELED 6
#define E_SUCCEEDED 7

/* SlOutcome of src/retry_policy.h */
#define DO_SUCCEEDED 0
#define DO_REJECT 1
#define DO_RETRY 2
#define DO_UNKNOWN 3

/* api_requests.status */
#define NONE 0
#define QUEUED 1
#define IN_FLIGHT 2
#define DONE 3
#define REJECTED 4
#define UNKNOWN 5

/* Requests; each has its own idempotency key. */
#define CREATE 0				/* by create_payment() */
#define CREATE_AGAIN 1			/* by retry_request(), of one that was rejected */
#define CANCEL 2
#define CANCEL_AGAIN 3
#define REQUESTS 4
#define creates(r) ((r) <= CREATE_AGAIN)

/* what Stripe has saved under a key */
#define K_NEW 0
#define K_DONE 1
#define K_500 2
#define K_REFUSED 3
#define K_REFUSED_CANCELED 4

/* answers */
#define LOST 0
#define OK 1
#define OK_ABSENT 2				/* a list without the PaymentIntent */
#define BAD_400 3
#define BAD_400_CANCELED 4		/* it is canceled already */
#define BAD_401 5
#define BAD_429 6
#define BAD_500 7
#define is_4xx(a) ((a) >= BAD_400 && (a) <= BAD_429)

/* api_requests.first_sent_at, and how long ago that was */
#define NEVER 0
#define FRESH 1
#define TOO_OLD 2				/* 23 hours: not to be sent again */
#define FORGOTTEN 3				/* 24 hours: Stripe has forgotten the key */

#define EVENTS (ACTS + 1)		/* and our own cancellation */

c_decl {
\#include "state_machine.h"
\#include "retry_policy.h"

_Static_assert(SL_STATE_CREATED == 0 && SL_STATE_REQUIRES_ACTION == 1 &&
			   SL_STATE_PROCESSING == 2 && SL_STATE_SUCCEEDED == 3 &&
			   SL_STATE_FAILED == 4, "states are numbered otherwise here");
_Static_assert(SL_EVIDENCE_REQUIRES_ACTION == 2 && SL_EVIDENCE_PROCESSING == 3 &&
			   SL_EVIDENCE_DECLINED == 5 && SL_EVIDENCE_CANCELED == 6 &&
			   SL_EVIDENCE_SUCCEEDED == 7, "evidence is numbered otherwise here");
_Static_assert(SL_OUTCOME_SUCCEEDED == 0 && SL_OUTCOME_REJECTED == 1 &&
			   SL_OUTCOME_RETRY == 2 && SL_OUTCOME_UNKNOWN == 3,
			   "outcomes are numbered otherwise here");
};

/* what may still go wrong */
byte faults = FAULTS;
byte crashes = CRASHES;

/* ---------- Stripe's books ---------- */

byte intents;					/* PaymentIntents made */
byte pi = NOTHING;				/* where it stands */
byte saved[REQUESTS];			/* under each key */
bit invalid;					/* the creation's bytes can't be accepted */
bit at_once;					/* all of its events are of one second; else each of its own */
byte events;					/* emitted so far */
byte ekind[EVENTS];
#define etime(n) ((n) * (1 - at_once))

/* ---------- the database ---------- */

/* payments and payment_transitions */
bit exists;
bit linked;						/* payment_intent_id is set */
byte state;
bit has_last;					/* last_event_created, last_event_rank */
byte last_time;
byte last_rank;
byte declines;
byte trail;						/* to_state of the latest transition */

/* webhook_events */
byte taken[EVENTS];				/* 0 not here, 1 decided, 2 unmatched */
byte untaken;					/* emitted, and not here */

/* api_requests and api_attempts */
byte status[REQUESTS];
bit waits[REQUESTS];			/* next_attempt_at = infinity */
byte owner[REQUESTS];			/* who made the latest attempt; 0: it has ended, or who made it has */
byte age[REQUESTS];
byte doubt[REQUESTS];			/* attempts not known to have done nothing */
bit absent[REQUESTS];			/* a look-up proved: not created */

/* locks, held between steps only with FINE */
byte row;						/* the payment's row */
byte mutex;						/* lock_intent() */

/* ---------- the network ---------- */

byte flying[REQUESTS];			/* claimed, and not yet arrived or lost */
byte orphans[REQUESTS];			/* of these, those whose answer nobody awaits */
byte busy;						/* processes in the middle of something */

/*
 * Scratch, of no meaning between two steps.  What C code writes is read only
 * within the same d_step, since backtracking does not restore it.
 */
hidden byte answer;
hidden byte replayed;
hidden byte outcome;
hidden byte kind;
hidden byte when;
hidden byte to;
hidden byte moves;
hidden byte advances;
hidden byte cancels;
hidden byte legal;
hidden byte i;

/* ---------- Stripe ---------- */

inline emit(what)
{
	assert(events < EVENTS);
	ekind[events] = what;
	events++;
	untaken++
}

inline make_intent(r)
{
	assert(status[r] != REJECTED);	/* what is called refused was not done, and never will be */
	intents++;
	assert(intents <= 1);
	pi = CREATED
}

inline execute_create(r)
{
	if
	:: invalid && r == CREATE -> answer = BAD_400
	:: !invalid || r != CREATE ->
		if
		:: at_once = 1
		:: true
		fi;
		make_intent(r); saved[r] = K_DONE; answer = OK
	:: (!invalid || r != CREATE) && faults > 0 -> faults--; make_intent(r); saved[r] = K_500; answer = BAD_500
	:: (!invalid || r != CREATE) && faults > 0 -> faults--; saved[r] = K_500; answer = BAD_500
	fi
}

inline execute_cancel(r)
{
	if
	:: pi == CREATED || pi == REQUIRES_ACTION ->
		pi = FAILED; emit(E_CANCELED); saved[r] = K_DONE; answer = OK
	:: pi == FAILED -> saved[r] = K_REFUSED_CANCELED; answer = BAD_400_CANCELED
	:: pi == PROCESSING || pi == SUCCEEDED -> saved[r] = K_REFUSED; answer = BAD_400
	fi
}

/* A POST has arrived.  401 and 429 come before the key is looked at. */
inline stripe_post(r)
{
	replayed = 0;
	if
	:: faults > 0 -> faults--; answer = BAD_401
	:: faults > 0 -> faults--; answer = BAD_429
	:: saved[r] == K_NEW && creates(r) -> execute_create(r)
	:: saved[r] == K_NEW && !creates(r) -> execute_cancel(r)
	:: saved[r] == K_DONE -> answer = OK; replayed = 1
	:: saved[r] == K_500 -> answer = BAD_500; replayed = 1
	:: saved[r] == K_REFUSED -> answer = BAD_400; replayed = 1
	:: saved[r] == K_REFUSED_CANCELED -> answer = BAD_400_CANCELED; replayed = 1
	fi
}

/* The customer, and the merchant in Stripe's Dashboard, from the moment the PaymentIntent is there. */
active proctype Customer()
{
	byte acts = ACTS;

end:
	do
	:: atomic {
			acts > 0 && (pi == CREATED || pi == REQUIRES_ACTION || pi == PROCESSING) ->
			acts--;
			if
			:: pi == CREATED -> pi = REQUIRES_ACTION; emit(E_REQUIRES_ACTION)
			:: pi != PROCESSING -> pi = PROCESSING; emit(E_PROCESSING)
			:: pi = SUCCEEDED; emit(E_SUCCEEDED)
			:: pi = CREATED; emit(E_DECLINED)
			:: pi != PROCESSING -> pi = FAILED; emit(E_CANCELED)
			fi
		}
	od
}

/* ---------- time and the network ---------- */

#define is_open(q) (status[q] == QUEUED || status[q] == IN_FLIGHT || status[q] == UNKNOWN)
#ifdef BREAK_SEND_BEFORE_CLAIM
#define may_be_forgotten(q) (is_open(q) && saved[q] != K_NEW && flying[q] == 0)
#else
#define may_be_forgotten(q) (is_open(q) && age[q] == TOO_OLD && saved[q] != K_NEW && flying[q] == 0)
#endif

inline forget_key(q)
{
	saved[q] = K_NEW;
	if
	:: age[q] == TOO_OLD -> age[q] = FORGOTTEN
	:: else
	fi
}

/*
 * The hour between 23 and 24 is longer than any call is under way.  What is
 * settled has no use for its key.
 */
active proctype Clock()
{
end:
	do
	:: d_step { age[CREATE] == FRESH && is_open(CREATE) -> age[CREATE] = TOO_OLD }
	:: d_step { age[CANCEL] == FRESH && is_open(CANCEL) -> age[CANCEL] = TOO_OLD }
	:: d_step { may_be_forgotten(CREATE) -> forget_key(CREATE) }
	:: d_step { may_be_forgotten(CANCEL) -> forget_key(CANCEL) }
	od
}

inline arrive_late(q)
{
	orphans[q]--;
	flying[q]--;
	if
	:: stripe_post(q)
	:: true						/* or never */
	fi
}

/* What nobody waits for any more. */
active proctype Network()
{
end:
	do
	:: atomic { orphans[CREATE] > 0 -> arrive_late(CREATE) }
	:: atomic { orphans[CREATE_AGAIN] > 0 -> arrive_late(CREATE_AGAIN) }
	:: atomic { orphans[CANCEL] > 0 -> arrive_late(CANCEL) }
	:: atomic { orphans[CANCEL_AGAIN] > 0 -> arrive_late(CANCEL_AGAIN) }
	od
}

/* ---------- what a transaction does with the payment locked ---------- */

inline enqueue_cancel()
{
#ifndef BREAK_NO_CANCEL
	if
	:: status[CANCEL] == NONE -> status[CANCEL] = QUEUED; waits[CANCEL] = !linked
	:: status[CANCEL] != NONE && status[CANCEL_AGAIN] == NONE -> status[CANCEL_AGAIN] = QUEUED
	:: else
	fi
#else
	skip
#endif
}

/* What event e means as things stand: to, moves, advances, cancels. */
inline decide(e)
{
	kind = ekind[e];
	when = etime(e);
	c_code {
		SlKnown known = {
			.state = (SlState) now.state,
#ifdef RETRY_DECLINES
			.retry_declines = true,
#endif
			.has_last = now.has_last,
			.last_created = now.last_time,
			.last_rank = now.last_rank
		};
		SlDecision d = sl_decide(&known, (SlEvidenceKind) kind, when);

		to = d.to;
		moves = d.verdict == SL_VERDICT_APPLIED;
		advances = d.advances;
		cancels = d.cancel_intent;
#ifdef BREAK_LAST_WINS
		/* whatever arrives last is the truth */
		to = kind == SL_EVIDENCE_SUCCEEDED ? SL_STATE_SUCCEEDED :
			kind == SL_EVIDENCE_REQUIRES_ACTION ? SL_STATE_REQUIRES_ACTION :
			kind == SL_EVIDENCE_PROCESSING ? SL_STATE_PROCESSING : SL_STATE_FAILED;
		moves = to != now.state;
#endif
#ifdef BREAK_LAST_TERMINAL_WINS
		/* a late decline overwrites a success */
		if (now.state == SL_STATE_SUCCEEDED && (kind == SL_EVIDENCE_DECLINED || kind == SL_EVIDENCE_CANCELED))
		{
			to = SL_STATE_FAILED;
			moves = 1;
		}
#endif
#ifdef BREAK_FAILED_IS_FINAL
		if (now.state == SL_STATE_FAILED)
			moves = 0;
#endif
	}
}

/* The row is written; the guard sees it and appends to the audit trail. */
inline write_payment(was)
{
	if
	:: kind == E_DECLINED -> declines++
	:: else
	fi;
	if
	:: advances ->
		has_last = 1;
		last_time = when;
		c_code { now.last_rank = sl_evidence_rank((SlEvidenceKind) kind); }
	:: else
	fi;
	if
	:: moves ->
		assert(was == trail);
#if !defined(BREAK_LAST_WINS) && !defined(BREAK_LAST_TERMINAL_WINS)
		c_code { legal = sl_edge_is_legal((SlState) now.trail, (SlState) to); };
		assert(legal);
#endif
		state = to;
#ifdef BREAK_SPLIT_AUDIT
		if
		:: crashes > 0 -> crashes--	/* between the two */
		:: else -> trail = to
		fi
#else
		trail = to
#endif
	:: else
	fi;
	if
	:: cancels -> enqueue_cancel()
	:: else
	fi
}

/* The PaymentIntent becomes known: what waited for that goes on. */
inline link_intent()
{
	linked = 1;
#ifndef BREAK_NO_RELEASE
	waits[CANCEL] = 0;
#endif
#ifndef BREAK_NO_DRAIN
	i = 0;
	do
	:: i < EVENTS ->
		if
		:: taken[i] == 2 -> taken[i] = 1; decide(i); write_payment(state)
		:: else
		fi;
		i++
	:: else -> break
	od
#endif
}

/* What waited for a PaymentIntent that will never be is refused with it. */
inline reject_waiting()
{
	if
	:: !linked && waits[CANCEL] -> status[CANCEL] = REJECTED; waits[CANCEL] = 0
	:: else
	fi
}

/* Decided for good: whatever was remembered for another attempt is of no use. */
inline finish(r, how)
{
	assert(status[r] != DONE && status[r] != REJECTED);
	status[r] = how;
	age[r] = NEVER;
	if
	:: how == DONE -> doubt[r] = 0
	:: else
	fi
}

/* ---------- application ---------- */

active proctype Application()
{
	/* create_payment(); whether Stripe will accept it is not known here */
	atomic {
		if
		:: invalid = 1
		:: true
		fi;
		exists = 1;
		state = CREATED;
		trail = CREATED;
		status[CREATE] = QUEUED
	}

	/* the commit's answer is lost, so the application calls it again */
#ifdef BREAK_NO_UNIQUE_KEY
	status[CREATE_AGAIN] = QUEUED;
#endif

#ifdef RETRY_DECLINES
	/* cancel_payment(): unless the payment has ended, or will never be */
	if
#ifdef BREAK_ENQUEUE_UNLOCKED
	:: bit was;
		atomic { state < SUCCEEDED && (linked || status[CREATE] != REJECTED) -> was = linked };
		d_step { status[CANCEL] = QUEUED; waits[CANCEL] = !was }
#else
	:: d_step {
			row == 0 && state < SUCCEEDED && (linked || status[CREATE] != REJECTED) ->
			enqueue_cancel()
		}
#endif
	:: true
	fi
#endif
}

/* ---------- worker ---------- */

inline classify(r)
{
	c_code {
		static const int statuses[] = {0, 200, 200, 400, 400, 401, 429, 500};
		SlAttemptResult result = {
			.transport_failed = PWorker->got == 0,
			.http_status = statuses[PWorker->got],
			.should_retry = -1,
			.retry_after_ms = -1,
			.body_complete = 1,
			.replayed = PWorker->again
		};
#ifdef BREAK_BLIND_RESEND
		int64_t since_first = 0;
#else
		int64_t since_first = now.age[PWorker->r] > 1 ? SL_RETRY_WINDOW_MS : 0;
#endif

		outcome = sl_retry_classify(&result, since_first);
	}
	if
	:: outcome == DO_REJECT && got == BAD_400_CANCELED -> outcome = DO_SUCCEEDED
#ifndef BREAK_REFUSAL_IS_FINAL
	:: outcome == DO_REJECT && got == BAD_401 && doubt[r] > 0 -> outcome = DO_UNKNOWN
#endif
	:: else
	fi
}

#ifdef BREAK_NO_LEASE_CHECK
#define is_mine(r, what) true
#else
#define is_mine(r, what) (owner[r] == _pid && status[r] == (what))
#endif

inline settle_send(r)
{
	/* a 4xx did nothing: that attempt leaves no doubt */
	if
	:: is_4xx(got) && doubt[r] > 0 -> doubt[r]--
	:: else
	fi;
	if
	:: is_mine(r, IN_FLIGHT) ->
		classify(r);
#ifdef BREAK_SEND_BEFORE_CLAIM
		age[r] = FRESH;
#endif
		if
		:: outcome == DO_SUCCEEDED ->
			finish(r, DONE);
			if
			:: creates(r) && !linked -> link_intent()
			:: else
			fi
		:: outcome == DO_REJECT ->
			finish(r, REJECTED);
			if
			:: creates(r) -> assert(intents == 0); reject_waiting()
			:: else
			fi
		:: outcome == DO_RETRY -> status[r] = QUEUED
		:: outcome == DO_UNKNOWN -> status[r] = UNKNOWN
		fi
	:: else
	fi
}

inline settle_look(r)
{
	if
	:: !is_mine(r, UNKNOWN) || got == LOST
	:: else ->
		if
		:: creates(r) && got == OK ->
			finish(r, DONE);
			if
			:: !linked -> link_intent()
			:: else
			fi
		:: creates(r) && got == OK_ABSENT && !linked && sure ->
			finish(r, REJECTED);
			assert(intents == 0);
			absent[r] = 1;
			reject_waiting()
		:: !creates(r) && seen == FAILED -> finish(r, DONE)
		:: !creates(r) && seen == SUCCEEDED -> finish(r, REJECTED)
		:: !creates(r) && seen != FAILED && seen != SUCCEEDED && sure ->
			finish(r, REJECTED);
			if
			:: state == FAILED && r == CANCEL -> enqueue_cancel()
			:: else
			fi
		:: else						/* it stays unknown, and is looked up again */
		fi
	fi
}

/* In flight and due again: its worker has died, or took longer than its lease. */
#ifdef BREAK_NO_RECOVERY
#define due(q) (status[q] == QUEUED && !waits[q])
#else
#define due(q) ((status[q] == QUEUED && !waits[q]) || \
	(status[q] == IN_FLIGHT && (owner[q] == 0 || crashes > 0)))
#endif

/* Neither by its id nor by its mark can it be found at Stripe. */
#define out_of_reach (!linked && !MARKED)
/* A look that begins while a sending may be under way is of little use, so seldom. */
#ifdef BREAK_NO_LOOK
#define lookable(q) false
#else
#define lookable(q) (status[q] == UNKNOWN && owner[q] == 0 && !out_of_reach && (flying[q] == 0 || faults > 0))
#endif

#ifdef BREAK_EARLY_LOOK
#define none_under_way(q) true
#else
#define none_under_way(q) (flying[q] == 0)
#endif

inline forget()
{
	busy--; r = 0; got = LOST; again = 0; seen = 0; sure = 0; looks = 0
}

inline release(r)
{
	if
	:: owner[r] == _pid -> owner[r] = 0
	:: else
	fi;
	if
	:: row == _pid -> row = 0
	:: else
	fi;
	if
	:: mutex == _pid -> mutex = 0
	:: else
	fi
}

/* What was in memory is gone; what is on the wire is not. */
inline die()
{
	crashes--;
#ifdef BREAK_SEND_BEFORE_CLAIM
	if
	:: owner[r] == _pid && status[r] == IN_FLIGHT -> status[r] = QUEUED
	:: else
	fi;
#endif
	release(r);
	forget()
}

inline claim(q)
{
	r = q;
	busy++;
	if
	:: status[q] == IN_FLIGHT && owner[q] != 0 -> crashes--
	:: else
	fi;
	if
#ifndef BREAK_BLIND_RESEND
	:: age[q] >= TOO_OLD -> status[q] = UNKNOWN; owner[q] = 0; forget()
#endif
	:: else ->
		status[q] = IN_FLIGHT;
		owner[q] = _pid;
#ifndef BREAK_SEND_BEFORE_CLAIM
		if
		:: age[q] == NEVER -> age[q] = FRESH
		:: else
		fi;
#endif
		doubt[q]++;
		flying[q]++;
#ifdef BREAK_NEW_KEY
		saved[q] = K_NEW;
#endif
		goto call
	fi
}

inline claim_look(q)
{
	r = q;
	busy++;
	if
	:: flying[q] > 0 -> faults--
	:: else
	fi;
	looks = 1;
	owner[q] = _pid;
	sure = none_under_way(q);
	goto look
}

active [2] proctype Worker()
{
	byte r, got, seen;
	bit again, sure, looks;

end_claim:
	/* committed before a byte goes out; the second call is for when one is under way */
	if
	:: atomic { due(CREATE) -> claim(CREATE) }
	:: atomic { due(CREATE_AGAIN) -> claim(CREATE_AGAIN) }
	:: atomic { due(CANCEL) -> claim(CANCEL) }
	:: atomic { due(CANCEL_AGAIN) -> claim(CANCEL_AGAIN) }
	:: atomic { lookable(CREATE) -> claim_look(CREATE) }
	:: atomic { lookable(CREATE_AGAIN) -> claim_look(CREATE_AGAIN) }
	:: atomic { lookable(CANCEL) -> claim_look(CANCEL) }
	:: atomic { lookable(CANCEL_AGAIN) -> claim_look(CANCEL_AGAIN) }
	fi;
	goto end_claim;

call:
	if
	/* it arrives, and the answer comes back or is lost */
	:: atomic {
			true ->
			flying[r]--;
			stripe_post(r);
			if
			:: got = answer; again = replayed
			:: faults > 0 -> faults--
			fi;
			goto settle
		}
	/* the time is up, and it is still under way */
	:: d_step { faults > 0 -> faults--; orphans[r]++ };
		goto settle
	:: d_step { crashes > 0 -> orphans[r]++; die() };
		goto end_claim
	fi;

look:
	if
	:: d_step {
			true ->
			if
			:: !creates(r) -> got = OK; seen = pi
			:: creates(r) && intents > 0 && !out_of_reach -> got = OK
			:: else -> got = OK_ABSENT
			fi
		}
	:: d_step { faults > 0 -> faults-- }
	:: d_step { crashes > 0 -> die() };
		goto end_claim
	fi;

settle:
#ifdef FINE
	if
#ifdef BREAK_LOCK_ORDER
	:: d_step { mutex == 0 -> mutex = _pid }
#else
	:: d_step { row == 0 -> row = _pid }
#endif
	:: d_step { crashes > 0 -> die() };
		goto end_claim
	fi;
#endif
	/* under the payment's lock, and under the PaymentIntent's if it is new */
	if
	:: d_step {
			(row == 0 || row == _pid) && (linked || mutex == 0 || mutex == _pid) ->
			if
			:: looks -> settle_look(r)
			:: else -> settle_send(r)
			fi;
			release(r);
			forget()
		}
	/* the database refuses to store the answer: the request is set aside */
	:: d_step {
			faults > 0 && owner[r] == _pid && status[r] == IN_FLIGHT && (row == 0 || row == _pid) ->
			faults--;
			status[r] = UNKNOWN;
			release(r);
			forget()
		}
	:: d_step { crashes > 0 -> die() }
	fi;
	goto end_claim
}

/* ---------- webhooks and reconciliation ---------- */

#ifdef BREAK_NO_DEDUPE
#define is_new(e) true
#else
#define is_new(e) (taken[e] == 0)
#endif
/* The event is committed, then the move: a crash between the two. */
#ifdef BREAK_SPLIT_INGEST
#define loses_move (crashes > 0)
#else
#define loses_move false
#endif

inline mark_taken(e, how)
{
	if
	:: taken[e] == 0 -> untaken--
	:: else
	fi;
	taken[e] = how
}

inline apply(e, was)
{
	mark_taken(e, 1);
	if
	:: loses_move -> crashes--
	:: else ->
		if
		:: linked -> write_payment(was)
		:: else -> linked = 1; write_payment(was); link_intent()
		fi
	fi
}

inline park(e)
{
	if
	:: taken[e] == 0 -> mark_taken(e, 2)
	:: else
	fi
}

#ifndef FINE

inline ingest(e)
{
	if
#ifdef BREAK_NO_RECONCILIATION
	/* the webhook was lost, and nobody reads Stripe's list of events */
	:: crashes > 0 && taken[e] == 0 -> crashes--; mark_taken(e, 1)
#endif
	:: out_of_reach -> park(e)
	:: else ->
		if
		:: is_new(e) -> decide(e); apply(e, state)
		:: else					/* a second delivery ends here */
		fi
	fi
}

/* Each of them comes some day, or the same one could come again for ever. */
#ifdef ONCE
#define to_deliver(n) (n < events && taken[n] == 0)
#else
#define to_deliver(n) (n < events)
#endif

/* Any event, at any time, in any order, again and again. */
active proctype Ingest()
{
end:
	do
	:: d_step { to_deliver(0) -> ingest(0) }
	:: d_step { to_deliver(1) -> ingest(1) }
#if ACTS > 1
	:: d_step { to_deliver(2) -> ingest(2) }
#endif
#if ACTS > 2
	:: d_step { to_deliver(3) -> ingest(3) }
#endif
	od
}

#else

byte dups = 1;					/* deliveries of an event that is here */

#define to_deliver(n) (n < events && (taken[n] == 0 || dups > 0))

inline deliver(n)
{
	e = n;
	busy++;
	if
	:: taken[n] != 0 -> dups--
	:: else
	fi
}

/* Two of them, lock by lock. */
active [2] proctype Ingest()
{
	byte e, d_to, d_state;
	bit d_moves, d_advances, d_cancels;

end_wait:
	if
	:: d_step { to_deliver(0) -> deliver(0) }
	:: d_step { to_deliver(1) -> deliver(1) }
#if ACTS > 1
	:: d_step { to_deliver(2) -> deliver(2) }
#endif
	fi;

	/* match: by the PaymentIntent's id, by the payment's, and if neither is known ... */
	if
	:: !out_of_reach -> goto matched
#ifdef BREAK_NO_PARK_LOCK
	:: out_of_reach
#else
	:: d_step { out_of_reach && mutex == 0 -> mutex = _pid }
#endif
	fi;
	/* ... by its id once more, while nobody can link it */
	if
	:: linked -> goto matched
	:: !linked
	fi;
	d_step { park(e) };
	goto end_transaction;

matched:
	if
	:: d_step {
#ifdef BREAK_NO_ROW_LOCK
			true ->
#else
			row == 0 -> row = _pid;
#endif
			decide(e);
			d_to = to; d_moves = moves; d_advances = advances; d_cancels = cancels; d_state = state
		}
	:: d_step { crashes > 0 -> crashes-- };
		goto end_transaction
	fi;
	if
	:: d_step {
			linked || mutex == 0 || mutex == _pid ->
			if
			:: is_new(e) ->
				kind = ekind[e]; when = etime(e);
				to = d_to; moves = d_moves; advances = d_advances; cancels = d_cancels;
				apply(e, d_state)
			:: else				/* a second delivery ends here */
			fi
		}
	:: d_step { crashes > 0 -> crashes-- }
	fi;

end_transaction:
	atomic {
		if
		:: row == _pid -> row = 0
		:: else
		fi;
		if
		:: mutex == _pid -> mutex = 0
		:: else
		fi;
		busy--; e = 0; d_to = 0; d_moves = 0; d_advances = 0; d_cancels = 0; d_state = 0
	};
	goto end_wait
}

#endif

/* ---------- operator ---------- */

#define made_nothing(q) (absent[q] || doubt[q] == 0)

/* retry_request(): the same key again, or a new request under a new key */
active proctype Operator()
{
	byte help = HELP;

end:
	do
	:: d_step {
			help > 0 && row == 0 && status[CREATE] == UNKNOWN && age[CREATE] <= FRESH ->
			help--; status[CREATE] = QUEUED
		}
	:: d_step {
			help > 0 && row == 0 && status[CREATE] == REJECTED && status[CREATE_AGAIN] == NONE &&
			state < SUCCEEDED && !linked && made_nothing(CREATE) ->
			help--; status[CREATE_AGAIN] = QUEUED
		}
	:: d_step {
			help > 0 && row == 0 && status[CANCEL] == UNKNOWN && age[CANCEL] <= FRESH ->
			help--; status[CANCEL] = QUEUED
		}
	od
}

/* ---------- what must be true ---------- */

#define settled(q) (status[q] == NONE || status[q] == DONE || status[q] == REJECTED || \
	(status[q] == QUEUED && waits[q]) || (status[q] == UNKNOWN && out_of_reach))
#define all_settled (settled(CREATE) && settled(CREATE_AGAIN) && settled(CANCEL) && settled(CANCEL_AGAIN))
#define none_flying (flying[CREATE] + flying[CREATE_AGAIN] + flying[CANCEL] + flying[CANCEL_AGAIN] == 0)

/* Nothing is under way and nothing is left to be done, for the moment. */
#define quiet (exists && busy == 0 && untaken == 0 && all_settled && none_flying)

/* Only an operator can tell: a creation in doubt that left no mark at Stripe. */
#define in_the_dark (out_of_reach && (status[CREATE] == UNKNOWN || status[CREATE_AGAIN] == UNKNOWN))
#define last_cancel_refused (status[CANCEL_AGAIN] == REJECTED || \
	(status[CANCEL] == REJECTED && status[CANCEL_AGAIN] == NONE))

/*
 * The state that the set of Stripe's events amounts to, in whatever order they
 * came: money wins; else a terminal failure; else the newest, by time and rank.
 */
inline expect()
{
	c_code {
		int newest = -1;
		int n;

		to = SL_STATE_CREATED;
		when = 0;				/* how many declines */
		moves = 0;				/* the money came */
		cancels = 0;			/* a terminal failure */
		kind = 0;				/* how many are parked */
		for (n = 0; n < now.events; n++)
		{
			int k = now.ekind[n];

			when += k == SL_EVIDENCE_DECLINED;
			moves |= k == SL_EVIDENCE_SUCCEEDED;
			cancels |= k == SL_EVIDENCE_CANCELED;
#ifndef RETRY_DECLINES
			cancels |= k == SL_EVIDENCE_DECLINED;
#endif
			if ((now.at_once ? 0 : n) * 8 + sl_evidence_rank(k) > newest)
			{
				newest = (now.at_once ? 0 : n) * 8 + sl_evidence_rank(k);
				to = k == SL_EVIDENCE_REQUIRES_ACTION ? SL_STATE_REQUIRES_ACTION :
					k == SL_EVIDENCE_PROCESSING ? SL_STATE_PROCESSING : SL_STATE_CREATED;
			}
			kind += now.taken[n] == 2;
		}
		to = moves ? SL_STATE_SUCCEEDED : cancels ? SL_STATE_FAILED : to;
	}
}

/* Compares the books whenever that can be done; changes nothing. */
active proctype Books()
{
end:
	do
	:: d_step {
			quiet ->
			expect();
			assert(state == to || in_the_dark);
			assert(trail == state);
			assert(declines == when || in_the_dark);
			assert(kind == 0 || in_the_dark);
			assert(intents == 0 || linked || in_the_dark);
			assert(status[CREATE] != DONE || intents == 1);
			assert(!waits[CANCEL] || in_the_dark);
			assert(state != FAILED || pi == FAILED || last_cancel_refused)
		}
	od
}

/* succeeded absorbs */
ltl absorbs { [] ((state == SUCCEEDED) -> [] (state == SUCCEEDED)) }

/* Faults and crashes end some day, and everybody gets a turn. */
/* Every request is settled, or unknown for good where nothing can tell: */
ltl settles { [] (exists -> <> all_settled) }
/* Money that came is known to have come: */
ltl paid { [] ((pi == SUCCEEDED) -> <> (state == SUCCEEDED || in_the_dark)) }
