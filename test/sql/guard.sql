-- The guard: who may move a payment from which state to which.  Nobody may,
-- but the ingest of a verified event; and that only along legal edges.
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/setup/begin.sql'
\set end :abs_srcdir '/setup/end.sql'
\i :begin

-- one payment in each state
SELECT s AS wanted, t.state(t.pay_in(s::text, s::text, 'retry')) AS is
  FROM unnest(enum_range(NULL::stripe_lifecycle.payment_state)) AS s;

-- All 25 moves by one statement: what became of each.  %1$L is the payment,
-- %2$L the state it should get.
CREATE FUNCTION t.matrix(statement text)
	RETURNS TABLE ("from \ to" text, created text, requires_action text, processing text, succeeded text, failed text)
	LANGUAGE plpgsql AS $$
DECLARE
	id uuid;
	tried text[];
BEGIN
	FOR "from \ to" IN SELECT unnest(enum_range(NULL::stripe_lifecycle.payment_state)) LOOP
		SELECT p.id INTO id FROM stripe_lifecycle.payments p WHERE p.idempotency_key = "from \ to";
		SELECT array_agg(t.code(format(statement, id, s)) ORDER BY s) INTO tried
		  FROM unnest(enum_range(NULL::stripe_lifecycle.payment_state)) AS s;
		created := tried[1]; requires_action := tried[2]; processing := tried[3];
		succeeded := tried[4]; failed := tried[5];
		RETURN NEXT;
	END LOOP;
END
$$;

-- the table's owner: SL001 there is no such edge, SL002 the edge is Stripe's
SELECT * FROM t.matrix('UPDATE stripe_lifecycle.payments SET state = %2$L WHERE id = %1$L');
-- with the columns that would go with it
SELECT * FROM t.matrix('UPDATE stripe_lifecycle.payments SET state = %2$L, transitions = transitions + 1,
	last_event_id = ''evt_x'', updated_at = now() WHERE id = %1$L');
-- deferred constraints defer nothing
BEGIN;
SET CONSTRAINTS ALL DEFERRED;
SELECT * FROM t.matrix('UPDATE stripe_lifecycle.payments SET state = %2$L WHERE id = %1$L');
COMMIT;

-- From here on only a difference from that first matrix is shown, and the
-- number of statements that were tried.
CREATE TABLE t.expected AS
	SELECT * FROM t.matrix('UPDATE stripe_lifecycle.payments SET state = %2$L WHERE id = %1$L');
CREATE FUNCTION t.differences(statement text) RETURNS TABLE (tried bigint, different text) LANGUAGE sql AS $$
	WITH m AS (SELECT * FROM t.matrix(statement))
	SELECT 5 * count(*), string_agg(m::text, ' ') FILTER (WHERE m IS DISTINCT FROM e)
	  FROM m JOIN t.expected e USING ("from \ to")
$$;

-- an application's role that was granted too much
CREATE ROLE regress_sl_app;
GRANT USAGE ON SCHEMA stripe_lifecycle, t TO regress_sl_app;
GRANT SELECT, INSERT, UPDATE ON stripe_lifecycle.payments TO regress_sl_app;
GRANT SELECT ON t.expected TO regress_sl_app;
SET ROLE regress_sl_app;
SELECT * FROM t.differences('UPDATE stripe_lifecycle.payments SET state = %2$L WHERE id = %1$L');
RESET ROLE;

-- INSERT ... ON CONFLICT DO UPDATE, by either key
SELECT * FROM t.differences('INSERT INTO stripe_lifecycle.payments (id, idempotency_key, amount, currency)
	VALUES (%1$L, ''other'', 2000, ''usd'') ON CONFLICT (id) DO UPDATE SET state = %2$L');
SELECT * FROM t.differences('INSERT INTO stripe_lifecycle.payments (id, idempotency_key, state, amount, currency)
	SELECT gen_random_uuid(), idempotency_key, %2$L, amount, currency FROM stripe_lifecycle.payments WHERE id = %1$L
	ON CONFLICT (idempotency_key, owner) DO UPDATE SET state = EXCLUDED.state');

-- MERGE
SELECT * FROM t.differences('MERGE INTO stripe_lifecycle.payments p USING (VALUES (%1$L::uuid)) AS x (id) ON p.id = x.id
	WHEN MATCHED THEN UPDATE SET state = %2$L');

-- UPDATE ... FROM, in a WITH, and through a view
SELECT * FROM t.differences('UPDATE stripe_lifecycle.payments p SET state = x.s::stripe_lifecycle.payment_state
	FROM (VALUES (%1$L::uuid, %2$L)) AS x (id, s) WHERE p.id = x.id');
SELECT * FROM t.differences('WITH x AS (UPDATE stripe_lifecycle.payments SET state = %2$L WHERE id = %1$L RETURNING 1) SELECT FROM x');
CREATE VIEW t.payments AS SELECT * FROM stripe_lifecycle.payments;
SELECT * FROM t.differences('UPDATE t.payments SET state = %2$L WHERE id = %1$L');

-- inside functions, SECURITY DEFINER or not, with EXCEPTION or not
CREATE FUNCTION t.sneak(payment uuid, s stripe_lifecycle.payment_state) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	UPDATE stripe_lifecycle.payments SET state = s WHERE id = payment;
END
$$;
CREATE FUNCTION t.sneak_as_owner(payment uuid, s stripe_lifecycle.payment_state) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	BEGIN
		RAISE EXCEPTION 'first something fails';
	EXCEPTION WHEN OTHERS THEN
		UPDATE stripe_lifecycle.payments SET state = s WHERE id = payment;
	END;
END
$$;
CREATE FUNCTION t.sneak_sql(payment uuid, s stripe_lifecycle.payment_state) RETURNS void LANGUAGE sql AS $$
	UPDATE stripe_lifecycle.payments SET state = s WHERE id = payment
$$;
SELECT * FROM t.differences('SELECT t.sneak(%1$L, %2$L)');
SELECT * FROM t.differences('SELECT t.sneak_as_owner(%1$L, %2$L)');
SELECT * FROM t.differences('SELECT t.sneak_sql(%1$L, %2$L)');
SELECT * FROM t.differences('DO $x$ BEGIN PERFORM t.sneak(%1$L, %2$L); END $x$');
SET ROLE regress_sl_app;
SELECT * FROM t.differences('SELECT t.sneak_as_owner(%1$L, %2$L)');
RESET ROLE;

-- as a replica would
SET session_replication_role = replica;
SELECT * FROM t.differences('UPDATE stripe_lifecycle.payments SET state = %2$L WHERE id = %1$L');
RESET session_replication_role;

-- none of it moved anything or left a trace
SELECT idempotency_key, state, transitions,
	   (SELECT count(*) FROM stripe_lifecycle.payment_transitions WHERE payment_id = p.id) AS trail
  FROM stripe_lifecycle.payments p ORDER BY state;

-- How the refusals read
\pset format unaligned
\t on
SELECT t.error($$UPDATE stripe_lifecycle.payments SET state = 'succeeded' WHERE idempotency_key = 'processing'$$);
SELECT t.error($$UPDATE stripe_lifecycle.payments SET state = 'succeeded' WHERE idempotency_key = 'failed'$$);
SELECT t.error($$UPDATE stripe_lifecycle.payments SET state = 'failed' WHERE idempotency_key = 'created'$$);
SELECT t.error($$UPDATE stripe_lifecycle.payments SET state = 'failed' WHERE idempotency_key = 'succeeded'$$);
SELECT t.error($$UPDATE stripe_lifecycle.payments SET state = 'created' WHERE idempotency_key = 'failed'$$);
SELECT t.error($$UPDATE stripe_lifecycle.payments SET state = NULL WHERE idempotency_key = 'failed'$$) LIKE '23502: %';
\t off
\pset format aligned

-- INSERT.  Only a fresh payment may be inserted by hand, whoever does it.
CREATE FUNCTION t.insert_in(s stripe_lifecycle.payment_state, suffix text) RETURNS text LANGUAGE sql AS $$
	SELECT t.code(format('INSERT INTO stripe_lifecycle.payments (id, idempotency_key, state, amount, currency)
		VALUES (%L, %L, %L, 2000, ''usd'')', md5(s || suffix)::uuid, s || suffix, s))
$$;
SELECT s, t.insert_in(s, '-owner') FROM unnest(enum_range(NULL::stripe_lifecycle.payment_state)) AS s;
SET ROLE regress_sl_app;
SELECT s, t.insert_in(s, '-app') FROM unnest(enum_range(NULL::stripe_lifecycle.payment_state)) AS s;
RESET ROLE;
SET session_replication_role = replica;
SELECT s, t.insert_in(s, '-replica') FROM unnest(enum_range(NULL::stripe_lifecycle.payment_state)) AS s;
RESET session_replication_role;
SELECT s, t.code(format('MERGE INTO stripe_lifecycle.payments p USING (VALUES (1)) AS x (n) ON false
	WHEN NOT MATCHED THEN INSERT (id, idempotency_key, state, amount, currency)
	VALUES (gen_random_uuid(), %L, %L, 2000, ''usd'')', s || '-merge', s)) AS merge
  FROM unnest(enum_range(NULL::stripe_lifecycle.payment_state)) AS s;

\set VERBOSITY sqlstate
COPY stripe_lifecycle.payments (id, idempotency_key, state, amount, currency) FROM stdin;
00000000-0000-4000-8000-000000000001	created-copy	created	2000	usd
\.
COPY stripe_lifecycle.payments (id, idempotency_key, state, amount, currency) FROM stdin;
00000000-0000-4000-8000-000000000002	requires_action-copy	requires_action	2000	usd
\.
COPY stripe_lifecycle.payments (id, idempotency_key, state, amount, currency) FROM stdin;
00000000-0000-4000-8000-000000000003	processing-copy	processing	2000	usd
\.
COPY stripe_lifecycle.payments (id, idempotency_key, state, amount, currency) FROM stdin;
00000000-0000-4000-8000-000000000004	succeeded-copy	succeeded	2000	usd
\.
COPY stripe_lifecycle.payments (id, idempotency_key, state, amount, currency) FROM stdin;
00000000-0000-4000-8000-000000000005	failed-copy	failed	2000	usd
\.
-- one bad row among good ones: none is stored
COPY stripe_lifecycle.payments (id, idempotency_key, state, amount, currency) FROM stdin;
00000000-0000-4000-8000-000000000006	copy-6	created	2000	usd
00000000-0000-4000-8000-000000000007	copy-7	succeeded	2000	usd
\.
\set VERBOSITY default

-- nor may it bring evidence of its own
SELECT col, t.code(format('INSERT INTO stripe_lifecycle.payments (id, idempotency_key, amount, currency, %I)
	VALUES (gen_random_uuid(), %L, 2000, ''usd'', %L)', col, 'evidence-' || col, val)) AS code
  FROM (VALUES ('payment_intent_id', 'pi_mine'), ('client_secret', 'x'), ('livemode', 'true'),
			   ('amount_capturable', '1'), ('amount_received', '2000'), ('latest_charge', 'ch_1'),
			   ('cancellation_reason', 'abandoned'), ('decline_count', '1'), ('last_error', '{}'),
			   ('last_error_at', 'now'), ('last_event_id', 'evt_1'), ('last_event_created', 'now'),
			   ('last_event_rank', '0'), ('transitions', '0'), ('transitions', '2'),
			   ('finished_at', 'now'), ('amount', '-1'), ('description', 'anything')) AS x (col, val)
 WHERE col <> 'amount';
\pset format unaligned
\t on
SELECT t.error($$INSERT INTO stripe_lifecycle.payments (id, idempotency_key, state, amount, currency)
	VALUES ('01890000-0000-7000-8000-000000000000', 'x', 'succeeded', 2000, 'usd')$$);
SELECT t.error($$INSERT INTO stripe_lifecycle.payments (id, idempotency_key, amount, currency, payment_intent_id)
	VALUES (gen_random_uuid(), 'x', 2000, 'usd', 'pi_mine')$$);
\t off
\pset format aligned

-- what was inserted has its audit row, with who and how
SELECT idempotency_key, state, source, replace(role, session_user, '<superuser>') AS role, from_state, to_state, seq
  FROM stripe_lifecycle.payments p JOIN stripe_lifecycle.payment_transitions ON payment_id = p.id
 WHERE source <> 'create_payment' AND source <> 'webhook' ORDER BY idempotency_key COLLATE "C";

-- The ingest: every state, every event, both policies; state and outcome after
-- a newer event, and after an older one.
CREATE FUNCTION t.after(s text, type text, policy text, created bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	key text := concat_ws('-', s, type, policy, created);
	id uuid := t.pay_in(s, key, policy);
	outcome text;
BEGIN
	outcome := t.ingest(t.event('evt_' || key, 'payment_intent.' || type, created, 'pi_' || key, id));
	RETURN outcome || CASE WHEN t.state(id) <> s THEN ' -> ' || t.state(id) ELSE '' END;
END
$$;
CREATE FUNCTION t.ingest_matrix(policy text, created bigint)
	RETURNS TABLE (event text, "from created" text, "from requires_action" text,
				   "from processing" text, "from succeeded" text, "from failed" text) LANGUAGE sql AS $$
	SELECT type, t.after('created', type, policy, created), t.after('requires_action', type, policy, created),
		   t.after('processing', type, policy, created), t.after('succeeded', type, policy, created),
		   t.after('failed', type, policy, created)
	  FROM unnest('{created, requires_action, partially_funded, processing, amount_capturable_updated,
		payment_failed, canceled, succeeded}'::text[]) AS type
$$;
SELECT * FROM t.ingest_matrix('final', 2000);
SELECT * FROM t.ingest_matrix('retry', 2000);
SELECT * FROM t.ingest_matrix('final', 500);
SELECT * FROM t.ingest_matrix('retry', 500);
-- one second: the rank decides
SELECT * FROM t.ingest_matrix('retry', 1000);

-- only legal edges were taken, every one of them at least once, all audited
SELECT l.from_state, l.to_state, count(p.payment_id) > 0 AS taken
  FROM stripe_lifecycle.legal_transitions() l
  FULL JOIN stripe_lifecycle.payment_transitions p
	ON p.to_state = l.to_state AND p.from_state IS NOT DISTINCT FROM l.from_state
 GROUP BY 1, 2 ORDER BY 1 NULLS FIRST, 2;
SELECT count(*) AS payments, t.broken_audits() AS broken FROM stripe_lifecycle.payments;

-- What a payment cannot be without, the guard misses too, in a table whose constraints somebody has taken away
ALTER TABLE stripe_lifecycle.payments DROP CONSTRAINT payments_pkey;
SELECT count(*) AS altered FROM (
	SELECT t.code(format('ALTER TABLE stripe_lifecycle.payments ALTER %I DROP NOT NULL', attname)) AS code
	  FROM pg_attribute WHERE attrelid = 'stripe_lifecycle.payments'::regclass AND attnum > 0 AND attnotnull) AS x
 WHERE code = 'ok';
SELECT t.pay('untouched') IS NOT NULL AS made;
SELECT col, t.error(format($$INSERT INTO stripe_lifecycle.payments SELECT (jsonb_populate_record(p, jsonb_build_object('id', gen_random_uuid(),
	'idempotency_key', 'null ' || %L, 'audit_head', NULL) || jsonb_build_object(%L, NULL))).* FROM stripe_lifecycle.payments p WHERE idempotency_key = 'untouched'$$, col, col)) AS result
  FROM unnest('{id, idempotency_key, state, amount, currency, metadata, params, capture_method, decline_policy, transitions, updated_at}'::text[]) AS col;
ALTER TABLE stripe_lifecycle.payment_transitions DROP CONSTRAINT payment_transitions_pkey;
ALTER TABLE stripe_lifecycle.payment_transitions ALTER payment_id DROP NOT NULL;
SELECT t.error($$INSERT INTO stripe_lifecycle.payment_transitions (seq, to_state, at, source, role, amount, currency, hash)
	VALUES (1, 'created', now(), 'x', 'x', 1, 'usd', '')$$);
SELECT t.error($$UPDATE stripe_lifecycle.payments SET state = NULL WHERE idempotency_key = 'created'$$) LIKE 'SL001: % cannot go from created to nothing%' AS refused;

DROP OWNED BY regress_sl_app;
DROP ROLE regress_sl_app;
\i :end
