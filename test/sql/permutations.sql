-- Any set of events, in any order, any number of times, ends in the same state.
-- Every order of each set below is delivered to a payment of its own: once,
-- each event twice in a row, and the whole row of events twice; with times a
-- second apart and all in one second; under both policies; matched from the
-- start, or parked until the last event names the payment.
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/setup/begin.sql'
\set end :abs_srcdir '/setup/end.sql'
\i :begin

-- The rule, said once more and independently: any success ends in succeeded;
-- else any cancellation, or under 'final' any decline, in failed; else the
-- newest event that says something decides, in one second the one of the
-- greatest rank; and none is created.
CREATE FUNCTION t.rule(types text[], seconds integer[], policy text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
	SELECT CASE
		WHEN 'succeeded' = ANY (types) THEN 'succeeded'
		WHEN 'canceled' = ANY (types) OR (policy = 'final' AND 'payment_failed' = ANY (types)) THEN 'failed'
		ELSE coalesce((
			SELECT CASE type WHEN 'requires_action' THEN 'requires_action' WHEN 'partially_funded' THEN 'requires_action'
				   WHEN 'payment_failed' THEN 'created' ELSE 'processing' END
			  FROM unnest(types, seconds) AS e (type, second) WHERE type <> 'created'
			 ORDER BY second DESC, array_position('{partially_funded, requires_action, processing, amount_capturable_updated, payment_failed}', type) DESC
			 LIMIT 1), 'created') END
$$;
CREATE FUNCTION t.orders(n integer) RETURNS SETOF integer[] LANGUAGE sql AS $$
	WITH RECURSIVE p AS (
		SELECT '{}'::integer[] AS o
		UNION ALL
		SELECT o || i FROM p, generate_series(1, n) AS i WHERE i <> ALL (o))
	SELECT o FROM p WHERE cardinality(o) = n ORDER BY o
$$;
CREATE TABLE t.runs (set_no integer, types text[], policy text, spread boolean, repeats text, parked boolean, payment uuid, expected text);

CREATE FUNCTION t.run(number integer, types text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	n integer := cardinality(types);
	o integer[]; deliveries integer[];
	policy text; repeats text; spread boolean; parked boolean;
	key text; id uuid; i integer; k integer;
	seconds integer[];
BEGIN
	FOR policy, spread, repeats, parked, o IN
		SELECT p, s, r, k2, ord FROM unnest('{final, retry}'::text[]) AS p, unnest('{t, f}'::boolean[]) AS s,
			   unnest('{once, twice each, all twice}'::text[]) AS r, unnest('{f, t}'::boolean[]) AS k2, t.orders(n) AS ord
		 WHERE r = 'once' OR NOT k2
	LOOP
		seconds := ARRAY(SELECT CASE WHEN spread THEN 1000 + j ELSE 1000 END FROM generate_series(1, n) AS j);
		deliveries := CASE repeats WHEN 'once' THEN o WHEN 'all twice' THEN o || o
			ELSE ARRAY(SELECT x FROM unnest(o) WITH ORDINALITY AS u (x, ord), generate_series(1, 2) ORDER BY ord) END;
		key := concat_ws('-', number, policy, spread, repeats, parked, array_to_string(o, ''));
		id := t.pay(key, policy);
		k := 0;
		FOREACH i IN ARRAY deliveries LOOP
			k := k + 1;
			-- parked: only the last one names the payment
			PERFORM t.ingest(t.event('evt_' || key || i, 'payment_intent.' || types[i], seconds[i], 'pi_' || key,
									 CASE WHEN parked AND k < n THEN NULL ELSE id END));
		END LOOP;
		INSERT INTO t.runs VALUES (number, types, policy, spread, repeats, parked, id, t.rule(types, seconds, policy));
	END LOOP;
END
$$;
SELECT t.run(1, '{created, requires_action, processing, succeeded}');
SELECT t.run(2, '{created, payment_failed, succeeded}');
SELECT t.run(3, '{requires_action, payment_failed, canceled}');
SELECT t.run(4, '{payment_failed, payment_failed, processing, succeeded}');
-- sets that end open: here the times and the ranks decide
SELECT t.run(5, '{created, requires_action, payment_failed, processing}');
SELECT t.run(6, '{requires_action, amount_capturable_updated, payment_failed}');
SELECT t.run(7, '{partially_funded, processing, created}');
SELECT t.run(8, '{payment_failed, canceled, succeeded}');

-- how they ended, and how the rule says that they had to
SELECT set_no, types, policy, spread AS seconds_differ, count(*) AS cases, string_agg(DISTINCT state::text, ', ') AS ended, string_agg(DISTINCT expected, ', ') AS rule
  FROM t.runs JOIN stripe_lifecycle.payments ON id = payment GROUP BY 1, 2, 3, 4 ORDER BY 1, 3, 4 DESC;
SELECT count(*) AS cases, count(*) FILTER (WHERE state::text <> expected) AS wrong FROM t.runs JOIN stripe_lifecycle.payments ON id = payment;

-- not only the state: what else is known of the payment doesn't depend on the order either
SELECT set_no, policy, spread, count(DISTINCT (decline_count, finished_at IS NULL, amount_received, amount_capturable, last_error, last_error_at, payment_intent_id IS NULL, livemode, client_secret)) AS different_facts
  FROM t.runs JOIN stripe_lifecycle.payments ON id = payment GROUP BY 1, 2, 3
HAVING count(DISTINCT (decline_count, finished_at IS NULL, amount_received, amount_capturable, last_error, last_error_at, payment_intent_id IS NULL, livemode, client_secret)) > 1;
-- every event is stored once, each payment's trail gives its row, and nothing is left over
SELECT count(*) = (SELECT sum(cardinality(types)) FROM t.runs) AS each_event_once, count(*) FILTER (WHERE outcome IN ('unmatched', 'conflict', 'ignored')) AS odd,
	   count(*) FILTER (WHERE payment_id IS NULL OR applied_at IS NULL) AS not_decided FROM stripe_lifecycle.webhook_events;
SELECT t.broken_audits();
-- under 'final' one cancellation for each payment that a decline failed, and else none
SELECT policy, to_state, max(requests) AS most, bool_and((requests = 1) = (to_state IS NOT NULL)) AS one_where_a_decline_failed_it
  FROM (SELECT policy, payment, (SELECT to_state FROM stripe_lifecycle.payment_transitions tr WHERE tr.payment_id = payment AND to_state = 'failed' AND event_type = 'payment_intent.payment_failed'),
			   (SELECT count(*) FROM stripe_lifecycle.api_requests r WHERE r.payment_id = payment AND operation = 'cancel') AS requests FROM t.runs) AS x
 GROUP BY 1, 2 ORDER BY 1, 2;
-- late money is noted wherever it came late
SELECT from_state, note, count(*) > 0 AS seen FROM stripe_lifecycle.payment_transitions WHERE to_state = 'succeeded' GROUP BY 1, 2 ORDER BY 1;

\i :end
