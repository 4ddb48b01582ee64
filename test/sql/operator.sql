-- What operators see and do; the worker is paused all the time
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/setup/begin.sql'
\set end :abs_srcdir '/setup/end.sql'
\i :begin

CREATE ROLE regress_sl_operator;
SELECT stripe_lifecycle.grant_operator('regress_sl_operator');
GRANT USAGE ON SCHEMA t TO regress_sl_operator;
-- the operator's own function calls, and what they are recorded as
CREATE VIEW t.actions AS
	SELECT id, role, action, request_id IS NOT NULL AS request, payment_id IS NOT NULL AS payment, event_id, reason
	  FROM stripe_lifecycle.operator_actions WHERE role = 'regress_sl_operator' ORDER BY id;
-- what the worker would have found, brought about by hand
CREATE FUNCTION t.request(key text, operation text) RETURNS bigint LANGUAGE sql AS $$
	SELECT max(r.id) FROM stripe_lifecycle.api_requests r JOIN stripe_lifecycle.payments p ON p.id = payment_id
	 WHERE p.idempotency_key = key AND r.operation = $2
$$;
CREATE FUNCTION t.settle(request bigint, status text, http_status integer, sent interval DEFAULT '1 min', code text DEFAULT 'parameter_unknown') RETURNS void LANGUAGE sql AS $$
	UPDATE stripe_lifecycle.api_requests
	   SET status = $2::stripe_lifecycle.request_status, http_status = $3, attempts = 1, first_sent_at = now() - sent,
		   finished_at = now(), next_attempt_at = now(), last_error = jsonb_build_object('source', 'api', 'code', $5)
	 WHERE id = request
$$;
CREATE FUNCTION t.requests(key text) RETURNS TABLE (operation text, wire_key text, status text, attempts integer, due text, same_body boolean) LANGUAGE sql AS $$
	SELECT r.operation, t.mask(r.idempotency_key), r.status::text, r.attempts,
		   CASE WHEN r.next_attempt_at = 'infinity' THEN 'waits' WHEN r.next_attempt_at <= clock_timestamp() THEN 'now' ELSE 'later' END,
		   r.body = first_value(r.body) OVER (PARTITION BY r.operation ORDER BY r.id)
	  FROM stripe_lifecycle.api_requests r JOIN stripe_lifecycle.payments p ON p.id = payment_id
	 WHERE p.idempotency_key = key ORDER BY r.id
$$;

-- pausing and resuming is on record, in the name of whoever did it
SET ROLE regress_sl_operator;
SELECT stripe_lifecycle.resume_worker();
SELECT stripe_lifecycle.pause_worker('the operator''s tests');
RESET ROLE;
SELECT paused, paused_by, paused_reason FROM stripe_lifecycle.worker_state;
SELECT role, action, reason FROM t.actions;

-- the record is appended to, by these functions only, once the database is in use
SELECT t.pay('the first') IS NOT NULL AS made;
SELECT t.error($$INSERT INTO stripe_lifecycle.operator_actions (at, role, action) VALUES (now(), 'me', 'nothing')$$);
SELECT t.code($$UPDATE stripe_lifecycle.operator_actions SET role = 'you'$$), t.code($$UPDATE stripe_lifecycle.operator_actions SET reason = reason$$),
	   t.code($$DELETE FROM stripe_lifecycle.operator_actions$$), t.code($$TRUNCATE stripe_lifecycle.operator_actions$$);
SELECT t.code($$SELECT stripe_lifecycle.pause_worker(repeat('x', 1001))$$);

--
-- retry_request()
--

-- a creation nobody knows the end of: the same key and bytes
SELECT t.pay('unknown') IS NOT NULL AS made;
SELECT t.settle(t.request('unknown', 'create'), 'unknown', NULL);
SELECT operation, status, why, what_to_do FROM stripe_lifecycle.dead_requests;
SET ROLE regress_sl_operator;
SELECT id AS dead FROM stripe_lifecycle.dead_requests \gset
SELECT stripe_lifecycle.retry_request(:dead, 'Stripe is back') = :dead AS the_same_request;
RESET ROLE;
SELECT * FROM t.requests('unknown');
SELECT count(*) AS dead FROM stripe_lifecycle.dead_requests;
SELECT t.error(format('SELECT stripe_lifecycle.retry_request(%s)', :dead)) ~ '^SL041: request \d+ cannot be sent again: it is still under way' AS under_way;
SELECT t.settle(:dead, 'succeeded', 200);
SELECT t.code(format('SELECT stripe_lifecycle.retry_request(%s)', :dead)) AS succeeded;
-- 23 hours after it was first sent Stripe may have forgotten the key
SELECT t.settle(:dead, 'unknown', NULL, '22 h 59 min');
SELECT t.code(format('SELECT stripe_lifecycle.retry_request(%s)', :dead)) AS just_in_time;
SELECT t.settle(:dead, 'unknown', NULL, '23 h 1 s');
SELECT regexp_replace(t.error(format('SELECT stripe_lifecycle.retry_request(%s)', :dead)), 'request \d+', 'request N');
SELECT operation, status, what_to_do FROM stripe_lifecycle.dead_requests;
SELECT t.settle(:dead, 'succeeded', 200);

-- a creation that Stripe refused: a new key, once
SELECT t.pay('refused') IS NOT NULL AS made;
SELECT stripe_lifecycle.confirm_payment(id) > 0 AS queued FROM stripe_lifecycle.payments WHERE idempotency_key = 'refused';
SELECT t.settle(t.request('refused', 'create'), 'rejected', 400);
SELECT operation, status, why, what_to_do FROM stripe_lifecycle.dead_requests;
SELECT t.request('refused', 'create') AS dead \gset
SET ROLE regress_sl_operator;
SELECT stripe_lifecycle.retry_request(:dead, 'mended') > :dead AS a_new_request;
RESET ROLE;
SELECT * FROM t.requests('refused');
SELECT count(*) AS dead FROM stripe_lifecycle.dead_requests;
SELECT regexp_replace(t.error(format('SELECT stripe_lifecycle.retry_request(%s)', :dead)), 'request \d+', 'request N') AS again;
SELECT t.settle(t.request('refused', 'create'), 'rejected', 403);
SELECT stripe_lifecycle.retry_request(t.request('refused', 'create')) > 0 AS a_third;
SELECT wire_key, same_body FROM t.requests('refused') WHERE operation = 'create';
-- not where the refusal does not prove that there is no PaymentIntent
SELECT status, t.settle(t.request('refused', 'create'), 'rejected', status) IS NULL AS settled,
	   t.code(format('SELECT stripe_lifecycle.retry_request(%s)', t.request('refused', 'create'))) AS code
  FROM unnest('{NULL, 200, 500, 503, 409}'::int[]) AS status;
-- a look-up that found none proves it too
UPDATE stripe_lifecycle.api_requests SET status = 'rejected', http_status = 500, last_error = '{"source": "lookup", "code": "not_created", "message": "Stripe has none"}' WHERE id = t.request('refused', 'create');
SELECT why, what_to_do FROM stripe_lifecycle.dead_requests;
SELECT stripe_lifecycle.retry_request(t.request('refused', 'create')) > 0 AS a_fourth;
SELECT t.ingest(t.event('evt_refused', 'payment_intent.created', 1000, 'pi_refused', id)) FROM stripe_lifecycle.payments WHERE idempotency_key = 'refused';
SELECT t.settle(t.request('refused', 'create'), 'rejected', 400);
SELECT regexp_replace(t.error(format('SELECT stripe_lifecycle.retry_request(%s)', t.request('refused', 'create'))), 'request \d+', 'request N');

-- confirmation and cancellation; a bank's no is nobody's business here
SELECT t.settle(t.request('refused', 'create'), 'succeeded', 200), t.settle(t.request('refused', 'confirm'), 'rejected', 402);
SELECT count(*) AS dead FROM stripe_lifecycle.dead_requests;
SELECT stripe_lifecycle.retry_request(t.request('refused', 'confirm')) > 0 AS confirmed_again;
SELECT * FROM t.requests('refused') WHERE operation = 'confirm';
SELECT t.pay_in('succeeded', 'paid') AS paid \gset
SELECT t.settle(t.request('paid', 'create'), 'rejected', 400);
SELECT t.error(format('SELECT stripe_lifecycle.retry_request(%s)', t.request('paid', 'create')));
-- what failed here may still have to be canceled there
SELECT t.pay('declined') AS declined \gset
SELECT t.ingest(t.event('evt_declined', 'payment_intent.payment_failed', 1000, 'pi_declined', :'declined'));
SELECT t.settle(t.request('declined', 'cancel'), 'rejected', 404);
SELECT operation, status, what_to_do FROM stripe_lifecycle.dead_requests;
SELECT stripe_lifecycle.retry_request(t.request('declined', 'cancel')) > 0 AS canceled_again;
SELECT operation, wire_key, status, due FROM t.requests('declined');
SELECT t.code('SELECT stripe_lifecycle.retry_request(0)'), t.code('SELECT stripe_lifecycle.retry_request(NULL)'), t.code('SELECT stripe_lifecycle.retry_request(-1)');
SELECT action, request, payment, reason FROM t.actions WHERE action = 'retry_request';

--
-- Events that wait for an operator
--
SELECT t.pay('conflict') AS conflict \gset
SELECT t.ingest(t.event('evt_amount', 'payment_intent.succeeded', 1000, 'pi_conflict', :'conflict', '{"amount": 1999, "amount_received": 1999}')) AS amount,
	   t.ingest(t.event('evt_currency', 'payment_intent.canceled', 1001, 'pi_conflict', :'conflict', '{"currency": "eur"}')) AS currency;
SELECT event_id, type, payment_id = :'conflict' AS its_payment, payment_intent_id, reason FROM stripe_lifecycle.conflicts ORDER BY 1;
SET ROLE regress_sl_operator;
SELECT stripe_lifecycle.replay_event('evt_amount') AS still;
SELECT stripe_lifecycle.resolve_conflict('evt_currency', 'dismiss', 'a test of theirs') AS dismissed;
SELECT stripe_lifecycle.resolve_conflict('evt_amount', 'accept', 'a cent of rounding') AS accepted;
RESET ROLE;
SELECT state, amount, amount_received, transitions FROM stripe_lifecycle.payments WHERE id = :'conflict';
SELECT seq, to_state, source, event_id, role, note FROM stripe_lifecycle.payment_transitions WHERE payment_id = :'conflict' AND seq > 1;
SELECT event_id, outcome, reason FROM stripe_lifecycle.webhook_events WHERE payment_id = :'conflict' ORDER BY 1;
SELECT t.error($$SELECT stripe_lifecycle.resolve_conflict('evt_amount', 'dismiss')$$);
SELECT t.error($$SELECT stripe_lifecycle.resolve_conflict('evt_amount', 'perhaps')$$);
SELECT t.error($$SELECT stripe_lifecycle.replay_event('evt_none')$$);
SELECT t.code($$SELECT stripe_lifecycle.replay_event(NULL)$$), t.code($$SELECT stripe_lifecycle.resolve_conflict('evt_amount', NULL)$$);
-- money wins over a failure, if an operator believes in it
SELECT t.pay_in('failed', 'late') AS late \gset
SELECT t.ingest(t.event('evt_late', 'payment_intent.succeeded', 1001, 'pi_second', :'late')) AS second_intent;
SELECT stripe_lifecycle.resolve_conflict('evt_late', 'accept');
SELECT to_state, source, note FROM stripe_lifecycle.payment_transitions WHERE payment_id = :'late' ORDER BY seq;
SELECT payment_intent_id FROM stripe_lifecycle.payments WHERE id = :'late';
-- an event whose payment was not there yet
SELECT t.ingest(t.event('evt_early', 'payment_intent.processing', 1000, 'pi_early', '01900000-0000-7000-8000-000000000001')) AS early,
	   t.ingest(t.event('evt_foreign', 'payment_intent.succeeded', 1000, 'pi_foreign')) AS foreign;
SELECT stripe_lifecycle.replay_event('evt_early') AS too_early;
INSERT INTO stripe_lifecycle.payments (id, idempotency_key, amount, currency) VALUES ('01900000-0000-7000-8000-000000000001', 'by hand', 2000, 'usd');
SELECT stripe_lifecycle.replay_event('evt_early', 'the payment is back');
SELECT state, payment_intent_id FROM stripe_lifecycle.payments WHERE idempotency_key = 'by hand';
SELECT source, event_id FROM stripe_lifecycle.payment_transitions JOIN stripe_lifecycle.payments ON id = payment_id WHERE idempotency_key = 'by hand' ORDER BY seq;
SELECT stripe_lifecycle.resolve_conflict('evt_foreign', 'accept') AS nothing_to_apply_it_to, stripe_lifecycle.resolve_conflict('evt_foreign', 'dismiss') AS dismissed;
SELECT event_id, outcome, reason FROM stripe_lifecycle.webhook_events WHERE event_id IN ('evt_early', 'evt_foreign') ORDER BY 1;
SELECT action, payment, event_id, reason FROM t.actions WHERE event_id IS NOT NULL;
SELECT t.broken_audits();
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT t.code($$SELECT stripe_lifecycle.replay_event('evt_early')$$);
COMMIT;

--
-- Stuck payments, health
--
INSERT INTO stripe_lifecycle.payments (id, idempotency_key, amount, currency, created_at, updated_at)
	SELECT gen_random_uuid(), 'old ' || n, 2000, 'usd', now() - interval '2 h', now() - interval '2 h' FROM generate_series(1, 9) AS n;
ALTER TABLE stripe_lifecycle.payments DISABLE TRIGGER stripe_lifecycle_guard;
ALTER TABLE stripe_lifecycle.api_requests DISABLE TRIGGER stripe_lifecycle_guard;
INSERT INTO stripe_lifecycle.api_requests (payment_id, operation, method, path, body, idempotency_key, created_at, status, next_attempt_at)
	SELECT id, 'create', 'POST', '/v1/payment_intents', '', 'k' || id, now(), status, now()
	  FROM stripe_lifecycle.payments JOIN unnest(enum_range(NULL::stripe_lifecycle.request_status)) WITH ORDINALITY AS s (status, n) ON idempotency_key = 'old ' || n;
UPDATE stripe_lifecycle.payments SET payment_intent_id = 'pi_' || right(idempotency_key, 1), livemode = false WHERE idempotency_key IN ('old 7', 'old 8', 'old 9');
UPDATE stripe_lifecycle.payments SET state = 'requires_action' WHERE idempotency_key = 'old 8';
UPDATE stripe_lifecycle.payments SET state = 'processing', amount_capturable = 2000 WHERE idempotency_key = 'old 9';
SELECT check_name, status, detail FROM stripe_lifecycle.health() WHERE check_name = 'guards';
ALTER TABLE stripe_lifecycle.payments ENABLE ALWAYS TRIGGER stripe_lifecycle_guard;
ALTER TABLE stripe_lifecycle.api_requests ENABLE ALWAYS TRIGGER stripe_lifecycle_guard;
SELECT idempotency_key, s.state, needs_operator, why, what_to_do FROM stripe_lifecycle.stuck_payments s JOIN stripe_lifecycle.payments p ON p.id = s.payment_id ORDER BY 1;
SELECT t.ingest(t.event('evt_conflict', 'payment_intent.succeeded', 1000, 'pi_other', :'paid', '{"amount": 1}')) AS conflict;
SELECT check_name, status, CASE WHEN check_name NOT IN ('queue', 'webhooks', 'paused', 'worker') THEN detail END AS detail
  FROM stripe_lifecycle.health() WHERE check_name NOT IN ('library', 'launcher', 'api_key', 'mode', 'moved', 'reconciliation');
SELECT count(*) AS without_a_hint FROM stripe_lifecycle.health() WHERE status <> 'ok' AND hint IS NULL;
SELECT string_agg(DISTINCT status, ', ') AS other_statuses FROM stripe_lifecycle.health() WHERE status NOT IN ('ok', 'warning', 'critical');
-- the views go by their indexes
SET enable_seqscan = off;
CREATE FUNCTION t.indexes(view text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE line text; found text[] := '{}';
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) SELECT * FROM stripe_lifecycle.' || view LOOP
		IF line ~ 'Seq Scan' THEN RETURN line; END IF;
		found := found || substring(line FROM 'Scan.* (?:using|on) ((?:payments|api_requests|webhook_events)_\w+)');
	END LOOP;
	RETURN (SELECT string_agg(DISTINCT x, ', ' ORDER BY x) FROM unnest(found) AS x);
END
$$;
SELECT view, t.indexes(view) FROM unnest('{dead_requests, stuck_payments, conflicts}'::text[]) AS view;
RESET enable_seqscan;

--
-- Counters: what is rolled back was not taken in, what is refused counts at once
--
CREATE TEMP TABLE before AS SELECT * FROM stripe_lifecycle.stats();
SELECT t.ingest(t.event('evt_counted', 'payment_intent.created', 1000, 'pi_counted')) AS committed;
SELECT t.ingest(t.event('evt_counted', 'payment_intent.created', 1000, 'pi_counted')) AS committed;
BEGIN;
SELECT t.ingest(t.event('evt_kept', 'payment_intent.created', 1000, 'pi_counted')) AS kept;
SAVEPOINT s;
SELECT t.ingest(t.event('evt_lost', 'charge.succeeded', 1000, 'pi_counted')) AS lost;
ROLLBACK TO s;
SAVEPOINT s2;
SELECT t.ingest(t.event('evt_kept', 'payment_intent.created', 1000, 'pi_counted')) AS kept;
RELEASE s2;
COMMIT;
BEGIN;
SELECT t.ingest(t.event('evt_lost', 'charge.succeeded', 1000, 'pi_counted')) AS lost;
ROLLBACK;
SELECT t.code($$SELECT stripe_lifecycle.ingest_webhook('{}', t.header('{}', 'whsec_wrong'))$$) AS bad_signature,
	   t.code($$SELECT stripe_lifecycle.ingest_webhook('{}', t.header('{}', age => 3600))$$) AS stale,
	   t.code($$SELECT stripe_lifecycle.ingest_webhook('{}', 'x')$$) AS malformed,
	   t.code($$SELECT stripe_lifecycle.ingest_webhook(repeat('x', 2000000), 'x')$$) AS too_large,
	   t.code($$SELECT t.ingest('[]')$$) AS bad_body, t.code($$SELECT t.ingest('{}')$$) AS bad_event;
SELECT key, after.value::bigint - before.value::bigint AS counted
  FROM (SELECT to_jsonb(s) AS now FROM stripe_lifecycle.stats() s) x, jsonb_each_text(now) AS after
  JOIN (SELECT key, value FROM before b, jsonb_each_text(to_jsonb(b))) AS before USING (key)
 WHERE key ~ '^(webhooks|refused)_' AND after.value <> before.value ORDER BY key COLLATE "C";
SELECT extract(epoch FROM clock_timestamp() - last_webhook) BETWEEN 0 AND 60 AS just_now, stats_since <= last_webhook AS since FROM stripe_lifecycle.pg_stat_stripe_lifecycle;
SELECT count(*) AS rows, count(*) FILTER (WHERE datname = current_database()) AS ours FROM stripe_lifecycle.pg_stat_stripe_lifecycle;
SELECT count(*) AS buckets, min(from_ms), max(from_ms), count(below_ms) AS bounded, sum(calls) = (SELECT sum(n) FROM stripe_lifecycle.stats() s, unnest(s.latency_histogram) AS n) AS same FROM stripe_lifecycle.stats_latency();

-- an operator sees what he needs, and moves nothing by himself
SET ROLE regress_sl_operator;
SELECT statement, t.code(statement) FROM unnest(ARRAY['SELECT * FROM stripe_lifecycle.health()', 'SELECT * FROM stripe_lifecycle.pg_stat_stripe_lifecycle',
	'SELECT * FROM stripe_lifecycle.dead_requests', 'SELECT * FROM stripe_lifecycle.stuck_payments', 'SELECT * FROM stripe_lifecycle.conflicts', 'SELECT * FROM stripe_lifecycle.stats_latency()',
	'SELECT * FROM stripe_lifecycle.operator_actions', 'SELECT * FROM stripe_lifecycle.worker_state', 'SELECT * FROM stripe_lifecycle.payments', 'SELECT * FROM stripe_lifecycle.api_requests',
	'SELECT * FROM stripe_lifecycle.server_status()', 'SELECT stripe_lifecycle.record_action(''x'', ''y'')', 'UPDATE stripe_lifecycle.worker_state SET paused = false', 'SELECT stripe_lifecycle.grant_operator(''regress_sl_operator'')']) AS statement;
RESET ROLE;

DROP OWNED BY regress_sl_operator;
DROP ROLE regress_sl_operator;
\i :end
