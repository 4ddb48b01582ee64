-- ingest_webhook(): what verified events do to payments
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/setup/begin.sql'
\set end :abs_srcdir '/setup/end.sql'
\i :begin

-- A delivery, twice and again; only the first counts
SELECT t.pay('dup') AS dup \gset
SELECT t.event('evt_dup', 'payment_intent.processing', 1000, 'pi_dup', :'dup') AS body \gset
SELECT t.ingest(:'body'), t.ingest(:'body'), t.ingest(:'body' || ' ') AS other_bytes, stripe_lifecycle.ingest_webhook(convert_to(:'body', 'UTF8'), t.header(:'body'::text)) AS as_bytes;
-- the id decides, whatever else the body says
SELECT t.ingest(t.event('evt_dup', 'payment_intent.succeeded', 2000, 'pi_dup', :'dup')), t.state(:'dup');
SELECT state, transitions, (SELECT count(*) FROM stripe_lifecycle.webhook_events WHERE payment_id = p.id) AS events FROM stripe_lifecycle.payments p WHERE id = :'dup';
-- what was rolled back was never delivered
BEGIN;
SELECT t.ingest(t.event('evt_undone', 'payment_intent.succeeded', 2000, 'pi_dup'));
ROLLBACK;
SELECT t.state(:'dup');
SELECT t.ingest(t.event('evt_undone', 'payment_intent.succeeded', 2000, 'pi_dup')), t.state(:'dup');

-- What an event row says
SELECT event_id, type, extract(epoch FROM created)::bigint AS created, livemode, api_version, account, object_id, payment_intent_id, payment_id = :'dup' AS payment, outcome, reason, secret_label, source,
	   applied_at = received_at AS at_once FROM stripe_lifecycle.webhook_events WHERE event_id = 'evt_dup' \gx
-- and the audit row of its move
SELECT seq, from_state, to_state, source, event_id, event_type, extract(epoch FROM event_created)::bigint AS created, role = session_user AS by_me, note
  FROM stripe_lifecycle.payment_transitions WHERE payment_id = :'dup' ORDER BY seq;

-- Stored payloads keep the listed fields and nothing of the customer
SELECT t.pay('hush', 'retry') AS hush \gset
SELECT t.ingest(t.event('evt_hush', 'payment_intent.payment_failed', 1000, 'pi_hush', :'hush',
	'{"client_secret": "pi_hush_secret_hush", "receipt_email": "hush@example.com", "description": "hush", "shipping": {"name": "hush"}, "customer": "cus_hush",
	  "payment_method": {"id": "pm_hush"}, "latest_charge": {"id": "ch_1", "billing_details": {"email": "hush@example.com"}}, "next_action": {"url": "https://hush"},
	  "charges": {"data": [{"billing_details": {"name": "hush"}, "payment_method_details": {"card": {"number": "4242424242424242"}}}]},
	  "last_payment_error": {"type": "card_error", "code": "card_declined", "decline_code": "insufficient_funds", "message": "Your card has insufficient funds.", "param": "x",
		"doc_url": "https://hush", "charge": "ch_hush", "payment_method": {"billing_details": {"email": "hush@example.com"}, "card": {"last4": "hush"}}, "source": {"number": "hush"}}}',
	'{"account": "acct_1", "request": {"id": "req_1", "idempotency_key": "key_1", "hush": 1}, "context": "hush", "user": {"name": "hush"}}')::jsonb::text);
SELECT t.mask(jsonb_pretty(payload)) AS payload FROM stripe_lifecycle.webhook_events WHERE event_id = 'evt_hush';
SELECT count(*) FROM stripe_lifecycle.webhook_events e WHERE e::text LIKE '%hush@%' OR payload::text LIKE '%secret%' OR payload::text LIKE '%4242%';
SELECT last_error, extract(epoch FROM last_error_at)::bigint AS at, latest_charge, client_secret, payment_intent_id FROM stripe_lifecycle.payments WHERE id = :'hush';
SELECT event_id, account, object_id, payment_intent_id FROM stripe_lifecycle.webhook_events WHERE event_id = 'evt_hush';

-- Of several members of one name the last counts, as in jsonb; an escape is no disguise
SELECT t.pay('twice') AS twice \gset
SELECT t.event('evt_twice', 'payment_intent.processing', 1000, 'pi_twice', :'twice') AS twice_body \gset
SELECT t.ingest('{"id": "evt_first", "livemode": 7, "data": {"object": {"id": "pi_first", "metadata": {"stripe_lifecycle_payment_id": "x"}, "status": []}}, ' || substr(:'twice_body', 2));
SELECT t.ingest(left(:'twice_body', -1) || ', "id": "evt_after"}');
SELECT t.ingest(left(:'twice_body', -1) || ', "\u0069d": "evt_\u0065scaped"}');
SELECT t.code(format('SELECT t.ingest(%L)', left(:'twice_body', -1) || what)) AS code, what
  FROM unnest(ARRAY[', "data": null}', ', "data": {}}', ', "data": {"object": []}}', ', "id": {}}', ', "id": null}', ', "created": []}', ', "live\u006dode": 0}']) AS what;
-- an object in place of an id stands for its id, whatever else is in it
SELECT t.ingest(t.event('evt_expanded', 'charge.updated', 1000, 'ch_1', NULL, '{"object": "charge", "payment_intent": {"object": "payment_intent", "charges": [{"id": "no"}], "id": "pi_expanded", "more": {"id": "no"}}}'));
SELECT event_id, payment_intent_id, object_id, outcome FROM stripe_lifecycle.webhook_events WHERE event_id IN ('evt_first', 'evt_twice', 'evt_after', 'evt_escaped', 'evt_expanded') ORDER BY event_id COLLATE "C";
-- what names the payment is stored as long as there is no other word for it
SELECT t.ingest(t.event('evt_lonely', 'payment_intent.processing', 1000, 'pi_lonely', '01890000-0000-7000-8000-000000000000')),
	t.ingest(t.event('evt_linked', 'payment_intent.processing', 1000, 'pi_twice', :'twice'));
SELECT event_id, payment_id IS NOT NULL AS has_payment, payload #>> '{data,object,metadata,stripe_lifecycle_payment_id}' IS NOT NULL AS stored
  FROM stripe_lifecycle.webhook_events WHERE event_id IN ('evt_lonely', 'evt_linked') ORDER BY event_id COLLATE "C";

-- Facts: amounts, charge, reason
SELECT t.pay('facts') AS facts \gset
SELECT t.ingest(t.event('evt_f1', 'payment_intent.amount_capturable_updated', 1000, 'pi_facts', :'facts', '{"amount_capturable": 2000, "latest_charge": "ch_f1"}'));
SELECT state, amount_capturable, amount_received, latest_charge, last_event_id, extract(epoch FROM last_event_created)::bigint AS created, last_event_rank, finished_at FROM stripe_lifecycle.payments WHERE id = :'facts';
SELECT t.ingest(t.event('evt_f2', 'payment_intent.succeeded', 1001, 'pi_facts', :'facts', '{"amount_received": 1500, "latest_charge": {"id": "ch_f2", "object": "charge"}}'));
SELECT state, amount_capturable, amount_received, latest_charge, last_event_id, finished_at = updated_at AS finished, livemode, decline_count FROM stripe_lifecycle.payments WHERE id = :'facts';
SELECT t.pay('why') AS why \gset
SELECT t.ingest(t.event('evt_w1', 'payment_intent.canceled', 1000, 'pi_why', :'why', '{"cancellation_reason": "abandoned"}'));
SELECT state, cancellation_reason, last_error, finished_at IS NOT NULL AS finished FROM stripe_lifecycle.payments WHERE id = :'why';

-- A decline.  final: the payment fails, and one cancellation is queued, however
-- many declines arrive; retry: it is recorded, and nothing is queued.
CREATE FUNCTION t.queued(payment uuid) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT string_agg(operation || coalesce(nullif(' ' || body, ' '), ''), ', ' ORDER BY id) FROM stripe_lifecycle.api_requests WHERE payment_id = payment AND operation <> 'create'
$$;
SELECT policy, t.pay('decline-' || policy, policy) AS id FROM unnest('{final, retry}'::text[]) AS policy \g /dev/null
SELECT decline_policy, n, t.ingest(t.event('evt_d' || n || decline_policy, 'payment_intent.payment_failed', 1000 + n, 'pi_d' || decline_policy, id)) AS outcome,
	   t.state(id), t.queued(id) AS queued
  FROM stripe_lifecycle.payments, generate_series(1, 3) AS n WHERE idempotency_key LIKE 'decline-%' ORDER BY 1, 2;
SELECT decline_policy, state, decline_count, last_error ->> 'code' AS code, extract(epoch FROM last_error_at)::bigint AS at, finished_at IS NOT NULL AS finished
  FROM stripe_lifecycle.payments WHERE idempotency_key LIKE 'decline-%' ORDER BY 1;
-- an older decline counts and does not hide the newer one's error
SELECT t.ingest(t.event('evt_old', 'payment_intent.payment_failed', 900, 'pi_dretry', NULL, '{"last_payment_error": {"code": "expired_card"}}'));
SELECT decline_count, last_error ->> 'code' AS code, extract(epoch FROM last_error_at)::bigint AS at FROM stripe_lifecycle.payments WHERE idempotency_key = 'decline-retry';
-- one without an error object still counts
SELECT t.ingest(t.event('evt_bare', 'payment_intent.payment_failed', 1900, 'pi_dretry', NULL, '{"last_payment_error": null}'));
SELECT decline_count, last_error FROM stripe_lifecycle.payments WHERE idempotency_key = 'decline-retry';
-- the cancellation arrives: Stripe agrees, nothing moves any more
SELECT t.ingest(t.event('evt_dc', 'payment_intent.canceled', 2000, 'pi_dfinal', NULL, '{"cancellation_reason": "requested_by_customer"}'));
-- money that came after all wins, and the audit says so
SELECT t.ingest(t.event('evt_late', 'payment_intent.succeeded', 1500, 'pi_dfinal', NULL, '{"amount_received": 2000}')), t.state(id), t.queued(id) FROM stripe_lifecycle.payments WHERE idempotency_key = 'decline-final';
SELECT seq, from_state, to_state, event_id, note FROM stripe_lifecycle.payment_transitions JOIN stripe_lifecycle.payments ON id = payment_id WHERE idempotency_key = 'decline-final' ORDER BY seq;
SELECT t.ingest(t.event('evt_dr', 'payment_intent.succeeded', 1950, 'pi_dretry')), t.state(id), t.queued(id) FROM stripe_lifecycle.payments WHERE idempotency_key = 'decline-retry';
-- a decline after the money: recorded, and nothing is canceled
SELECT t.ingest(t.event('evt_dl', 'payment_intent.payment_failed', 3000, 'pi_facts')), t.state(:'facts'), t.queued(:'facts');
SELECT decline_count, last_error ->> 'code' AS code FROM stripe_lifecycle.payments WHERE id = :'facts';
-- a cancellation after it changes nothing but is known
SELECT t.ingest(t.event('evt_cl', 'payment_intent.canceled', 3001, 'pi_facts')), t.state(:'facts');

-- No payment known yet: parked, and applied when its PaymentIntent is linked.
-- Events are matched by PaymentIntent, else by the metadata.
SELECT t.pay('parked') AS parked \gset
SELECT t.ingest(t.event('evt_p3', 'payment_intent.succeeded', 1003, 'pi_parked'));
SELECT t.ingest(t.event('evt_p1', 'payment_intent.requires_action', 1001, 'pi_parked'));
SELECT t.ingest(t.event('evt_p2', 'payment_intent.processing', 1002, 'pi_parked'));
SELECT t.ingest(t.event('evt_p4', 'payment_intent.succeeded', 1003, 'pi_parked', NULL, '{"amount": 1}'));
SELECT t.ingest(t.event('evt_p5', 'payment_intent.succeeded', 1003, 'pi_elsewhere'));
SELECT t.ingest(t.event('evt_p3', 'payment_intent.succeeded', 1003, 'pi_parked')) AS again;
SELECT event_id, outcome, reason, payment_id, applied_at FROM stripe_lifecycle.webhook_events WHERE event_id LIKE 'evt\_p_' ORDER BY 1;
SELECT t.state(:'parked');
SELECT t.ingest(t.event('evt_p0', 'payment_intent.created', 1000, 'pi_parked', :'parked'));
SELECT event_id, outcome, reason, payment_id = :'parked' AS payment, applied_at >= received_at AS applied FROM stripe_lifecycle.webhook_events WHERE event_id LIKE 'evt\_p_' ORDER BY 1;
SELECT seq, from_state, to_state, event_id, source FROM stripe_lifecycle.payment_transitions WHERE payment_id = :'parked' ORDER BY seq;
SELECT state, payment_intent_id, last_event_id, amount_received FROM stripe_lifecycle.payments WHERE id = :'parked';
-- a decline that was parked still has its cancellation queued when applied
SELECT t.pay('parked-2') AS parked \gset
SELECT t.ingest(t.event('evt_q1', 'payment_intent.payment_failed', 1001, 'pi_parked2'));
SELECT t.ingest(t.event('evt_q0', 'payment_intent.created', 1000, 'pi_parked2', :'parked')), t.state(:'parked'), t.queued(:'parked');
-- an event of another account's payment, with an id that we don't have
SELECT t.ingest(t.event('evt_foreign', 'payment_intent.succeeded', 1000, 'pi_foreign', '01890000-0000-7000-8000-00000000dead'));

-- Contradictions: kept, announced, nothing changed.  Ids are fixed here, for
-- they are in the text of the warnings.
INSERT INTO stripe_lifecycle.payments (id, idempotency_key, amount, currency)
	SELECT ('01890000-0000-7000-8000-00000000000' || n)::uuid, 'conflict-' || n, 2000, 'usd' FROM generate_series(1, 6) AS n;
CREATE FUNCTION t.conflict(n integer, event text, type text, intent text, object jsonb DEFAULT '{}', more jsonb DEFAULT '{}') RETURNS text LANGUAGE sql AS $$
	SELECT t.ingest(t.event('evt_c' || n || event, 'payment_intent.' || type, 1000, intent, ('01890000-0000-7000-8000-00000000000' || n)::uuid, object, more))
$$;
SET client_min_messages = warning;
SELECT t.conflict(1, 'amount', 'succeeded', 'pi_c1', '{"amount": 2001}');
SELECT t.conflict(2, 'currency', 'succeeded', 'pi_c2', '{"currency": "eur"}');
SELECT t.conflict(2, 'capitals', 'succeeded', 'pi_c2', '{"currency": "USD"}');
SELECT t.conflict(3, 'first', 'processing', 'pi_c3');
SELECT t.conflict(3, 'second', 'succeeded', 'pi_c3b');
SELECT t.conflict(3, 'live', 'succeeded', 'pi_c3', '{}', '{"livemode": true}');
SELECT t.conflict(4, 'first', 'processing', 'pi_c4', '{}', '{"livemode": true}');
SELECT t.conflict(4, 'test', 'succeeded', 'pi_c4');
SELECT t.conflict(5, 'status', 'succeeded', 'pi_c5', '{"status": "requires_payment_method"}');
SELECT t.conflict(5, 'status2', 'canceled', 'pi_c5', '{"status": "succeeded"}');
SELECT t.conflict(6, 'other', 'processing', 'pi_c6', '{"status": "something_new"}') AS no_conflict;
SELECT t.conflict(6, 'all', 'succeeded', 'pi_c6b', '{"amount": 1, "currency": "eur", "status": "x"}', '{"livemode": true}');
-- a payment of one PaymentIntent whose metadata name another payment: the PaymentIntent decides
SELECT t.ingest(t.event('evt_cross', 'payment_intent.processing', 1001, 'pi_c3', '01890000-0000-7000-8000-000000000001'));
SET client_min_messages = error;
SELECT event_id, outcome, reason, right(payment_id::text, 1) AS payment, applied_at = received_at AS decided FROM stripe_lifecycle.webhook_events
 WHERE event_id LIKE 'evt\_c_%' AND payment_id::text LIKE '01890000%' ORDER BY event_id COLLATE "C";
SELECT idempotency_key, state, payment_intent_id, livemode, transitions, amount_received, decline_count FROM stripe_lifecycle.payments WHERE idempotency_key LIKE 'conflict-%' ORDER BY 1;
-- the same event again is a duplicate, not another warning
SELECT t.conflict(1, 'amount', 'succeeded', 'pi_c1', '{"amount": 2000}');
-- and the right one is still taken
SELECT t.conflict(1, 'right', 'succeeded', 'pi_c1'), t.state('01890000-0000-7000-8000-000000000001');
-- parked ones may turn out to contradict, too
SELECT t.pay('parked-3') AS parked \gset
SELECT t.ingest(t.event('evt_r1', 'payment_intent.succeeded', 1001, 'pi_parked3', NULL, '{"amount": 5}'));
SELECT t.ingest(t.event('evt_r2', 'payment_intent.processing', 1002, 'pi_parked3'));
SELECT t.ingest(t.event('evt_r0', 'payment_intent.created', 1000, 'pi_parked3', :'parked')), t.state(:'parked');
SELECT event_id, outcome, reason FROM stripe_lifecycle.webhook_events WHERE event_id LIKE 'evt\_r_' ORDER BY 1;

-- Types without use are kept and change nothing; one day there may be others
SELECT type, t.ingest(t.event('evt_' || type, type, 5000, 'x_1', NULL, jsonb_build_object('object', object, 'payment_intent', 'pi_dup'))) AS outcome
  FROM (VALUES ('charge.succeeded', 'charge'), ('charge.updated', 'charge'), ('charge.failed', 'charge'), ('charge.refunded', 'charge'), ('charge.dispute.created', 'dispute'), ('refund.created', 'refund'),
	('payment_intent.something_new', 'payment_intent'), ('payment_intent', 'payment_intent'), ('payment_intent.succeeded.more', 'payment_intent'), ('Payment_Intent.succeeded', 'payment_intent'),
	('customer.created', 'customer'), ('ping', 'x')) AS x (type, object);
SELECT type, object_id, payment_intent_id, payment_id, outcome FROM stripe_lifecycle.webhook_events WHERE type IN ('charge.succeeded', 'customer.created', 'payment_intent.something_new') ORDER BY 1;
SELECT t.state(:'dup');

-- Times at the edges of what a time can be
SELECT t.pay('times') AS times \gset
SELECT t.ingest(t.event('evt_t0', 'payment_intent.processing', 0, 'pi_times', :'times')), t.ingest(t.event('evt_t1', 'payment_intent.requires_action', 1, 'pi_times')),
	   t.ingest(t.event('evt_t2', 'payment_intent.processing', 253402300799, 'pi_times')), t.ingest(t.event('evt_t3', 'payment_intent.requires_action', 1700000000, 'pi_times'));
SELECT extract(epoch FROM last_event_created)::bigint AS created, state FROM stripe_lifecycle.payments WHERE id = :'times';

-- Bytes that are no text must not get into the database, not even signed ones
CREATE FUNCTION t.deliver_bytes(body bytea) RETURNS text LANGUAGE sql AS $$
	SELECT t.code(format('SELECT stripe_lifecycle.ingest_webhook(%L::bytea, %L)', body, t.header(body)))
$$;
SELECT t.deliver_bytes(overlay(good PLACING '\xff'::bytea FROM position('X'::bytea IN good)))
  FROM convert_to(t.event('evt_bytes_X', 'charge.succeeded', 1, 'ch_1'), 'UTF8') AS good;
SELECT count(*) FROM stripe_lifecycle.webhook_events WHERE event_id LIKE 'evt\_bytes\__';

SELECT t.broken_audits();
\i :end
