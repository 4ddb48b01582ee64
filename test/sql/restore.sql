-- Rows that come by plain INSERT or COPY, as from a dump: what is taken where, and
-- what never is
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/setup/begin.sql'
\set end :abs_srcdir '/setup/end.sql'
\set audit :abs_srcdir '/setup/audit.sql'
\i :begin
\set ECHO none
\i :audit

-- A made-up dump: a row and its trail, all hashes right. 'wrong' spoils one thing.
CREATE TABLE t.trail (LIKE stripe_lifecycle.payment_transitions);
CREATE TABLE t.payment (LIKE stripe_lifecycle.payments INCLUDING DEFAULTS);
CREATE FUNCTION t.make(key text, states text[]) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
	id uuid := gen_random_uuid();
	r stripe_lifecycle.payment_transitions;
	n integer := cardinality(states);
	ends boolean := states[n] IN ('succeeded', 'failed');
BEGIN
	FOR i IN 1 .. n LOOP
		r := (id, i, states[i - 1], states[i], '2026-01-01 12:00:00.5+00'::timestamptz + i * interval '1 s',
			  CASE i WHEN 1 THEN 'create_payment' ELSE 'webhook' END,
			  CASE WHEN i > 1 THEN 'evt_' || key || i END, CASE WHEN i > 1 THEN 'payment_intent.any' END,
			  CASE WHEN i > 1 THEN '2026-01-01 12:00+00'::timestamptz END,
			  'shop', CASE i WHEN 3 THEN 'ü' END, 2000, 'usd', CASE WHEN i > 1 THEN false END,
			  r.hash, nextval('stripe_lifecycle.payment_transitions_position_seq'));
		r.hash := t.hash(r.hash, r);
		INSERT INTO t.trail VALUES (r.*);
	END LOOP;
	INSERT INTO t.payment (id, idempotency_key, state, amount, currency, livemode, transitions, audit_head, finished_at, payment_intent_id)
	VALUES (id, key, states[n]::stripe_lifecycle.payment_state, 2000, 'usd', CASE WHEN n > 1 THEN false END, n, r.hash,
			CASE WHEN ends THEN r.at END, CASE WHEN n > 1 THEN 'pi_' || key END);
	RETURN id;
END
$$;
CREATE FUNCTION t.restore_trail(key text) RETURNS text LANGUAGE sql AS $$
	SELECT t.code(format('INSERT INTO stripe_lifecycle.payment_transitions SELECT r.* FROM t.trail r JOIN t.payment p ON p.id = payment_id
		WHERE idempotency_key = %L ORDER BY seq DESC', key))
$$;
CREATE FUNCTION t.restore_payment(key text) RETURNS text LANGUAGE sql AS $$
	SELECT t.error(format('INSERT INTO stripe_lifecycle.payments SELECT p.* FROM t.payment p WHERE idempotency_key = %L', key))
$$;
CREATE FUNCTION t.worker() RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(', ', CASE WHEN paused THEN 'paused' ELSE 'sending' END, paused_reason) FROM stripe_lifecycle.worker_state
$$;
\set ECHO all

-- a new database, of which nobody has paused the worker
UPDATE stripe_lifecycle.worker_state SET paused = false, paused_reason = NULL;
SELECT t.make('created', '{created}') IS NOT NULL AND t.make('acting', '{created, requires_action}') IS NOT NULL
   AND t.make('paid', '{created, requires_action, processing, succeeded}') IS NOT NULL
   AND t.make('failed', '{created, failed}') IS NOT NULL AND t.make('late', '{created, failed, succeeded}') IS NOT NULL
   AND t.make('declined', '{created, processing, created}') IS NOT NULL AS made;

-- Without their trails: none that has moved, by INSERT or by COPY
\pset format unaligned
\t on
SELECT regexp_replace(t.restore_payment('paid'), 'payment \S+', 'payment <id>');
\t off
\pset format aligned
SELECT idempotency_key, split_part(t.restore_payment(idempotency_key), ':', 1) AS code FROM t.payment ORDER BY 1;
COPY stripe_lifecycle.payments (id, idempotency_key, state, amount, currency, livemode, transitions, audit_head, finished_at) FROM stdin;
01900000-0000-7000-8000-000000000009	slipped in	succeeded	2000	usd	t	2	\\x00	2026-01-01 12:00
\.
SELECT t.worker(), count(*) FROM stripe_lifecycle.payments GROUP BY 1;
-- a trail that says something else
SELECT t.restore_trail('paid');
CREATE FUNCTION t.spoilt(key text, col text, val text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	EXECUTE format('UPDATE t.payment SET %I = %s WHERE idempotency_key = %L', col, val, key);
	result := t.restore_payment(key);
	RAISE EXCEPTION USING MESSAGE = result, ERRCODE = 'ZZ001';
EXCEPTION WHEN SQLSTATE 'ZZ001' THEN
	RETURN replace(regexp_replace(SQLERRM, '\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S*', '<time>', 'g'), (SELECT id::text FROM t.payment WHERE idempotency_key = key), '<id>');
END
$$;
\pset format unaligned
\t on
SELECT t.spoilt('paid', 'state', '''failed''');
SELECT t.spoilt('paid', 'amount', '1');
SELECT t.spoilt('paid', 'currency', '''eur''');
SELECT t.spoilt('paid', 'livemode', 'true');
SELECT t.spoilt('paid', 'livemode', 'NULL');
SELECT t.spoilt('paid', 'transitions', '3');
SELECT t.spoilt('paid', 'finished_at', 'NULL');
SELECT t.spoilt('paid', 'finished_at', 'now()');
SELECT t.spoilt('paid', 'audit_head', 'NULL');
SELECT t.spoilt('paid', 'audit_head', 'sha256(audit_head)');
-- a trail that was altered, by somebody who makes the hash anew or not; its rows in any order
CREATE FUNCTION t.spoilt_trail(VARIADIC statements text[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	statement text;
	result text;
	payment uuid;
BEGIN
	payment := t.make('victim', '{created, processing, succeeded}');
	FOREACH statement IN ARRAY statements LOOP
		EXECUTE 'WITH x AS (SELECT ''' || payment || '''::uuid AS p) ' || statement;
	END LOOP;
	result := t.restore_trail('victim') || ', ' || t.restore_payment('victim');
	RAISE EXCEPTION USING MESSAGE = result, ERRCODE = 'ZZ001';
EXCEPTION WHEN SQLSTATE 'ZZ001' THEN
	RETURN replace(SQLERRM, payment::text, '<id>');
END
$$;
SELECT t.spoilt_trail('UPDATE t.trail SET note = ''mine'' FROM x WHERE payment_id = p AND seq = 2');
SELECT t.spoilt_trail('UPDATE t.trail SET hash = substr(hash, 2) FROM x WHERE payment_id = p AND seq = 2');
SELECT t.spoilt_trail('DELETE FROM t.trail USING x WHERE payment_id = p AND seq = 1');
SELECT t.spoilt_trail('DELETE FROM t.trail USING x WHERE payment_id = p AND seq = 2');
SELECT t.spoilt_trail('DELETE FROM t.trail USING x WHERE payment_id = p AND seq = 3');
SELECT t.spoilt_trail('DELETE FROM t.trail USING x WHERE payment_id = p AND seq > 1', 'UPDATE t.payment SET transitions = 1 FROM x WHERE id = p');
SELECT t.spoilt_trail('UPDATE t.trail SET to_state = ''failed'' FROM x WHERE payment_id = p AND seq = 2', 'UPDATE t.trail r SET hash = t.hash(b.hash, r::text::stripe_lifecycle.payment_transitions) FROM t.trail b, x WHERE r.payment_id = p AND r.seq = 2 AND b.payment_id = p AND b.seq = 1');
SELECT t.spoilt_trail('UPDATE t.trail SET from_state = ''created'' FROM x WHERE payment_id = p AND seq = 1', 'UPDATE t.trail r SET hash = t.hash(NULL, r::text::stripe_lifecycle.payment_transitions) FROM x WHERE r.payment_id = p AND r.seq = 1');
-- the guard follows the edges in a trail too
SELECT t.make('backwards', '{created, succeeded, failed}') IS NOT NULL AS made, t.restore_trail('backwards'), regexp_replace(t.restore_payment('backwards'), 'payment \S+', 'payment <id>');
SELECT t.make('from nowhere', '{succeeded}') IS NOT NULL AS made, t.restore_trail('from nowhere'), regexp_replace(t.restore_payment('from nowhere'), 'payment \S+', 'payment <id>');
\t off
\pset format aligned

-- With their trails all of them, as they were; the database is paused by it
SELECT idempotency_key, CASE idempotency_key WHEN 'paid' THEN 'there' ELSE t.restore_trail(idempotency_key) END AS trail, t.restore_payment(idempotency_key) AS payment
  FROM t.payment WHERE idempotency_key NOT IN ('backwards', 'from nowhere') ORDER BY 1;
SELECT t.worker();
SELECT count(*) AS payments, count(*) FILTER (WHERE d IS NOT DISTINCT FROM p) AS as_in_the_dump FROM stripe_lifecycle.payments p JOIN t.payment d USING (id);
SELECT count(*) AS rows, count(*) FILTER (WHERE d IS NOT DISTINCT FROM r) AS as_in_the_dump FROM stripe_lifecycle.payment_transitions r LEFT JOIN t.trail d USING (payment_id, seq);
SELECT problem, count(*) FROM stripe_lifecycle.verify_audit() GROUP BY 1 ORDER BY 1;
-- trail and payment in one statement: the order is not known, so no
SELECT t.make('together', '{created, succeeded}') IS NOT NULL AS made;
WITH trail AS (INSERT INTO stripe_lifecycle.payment_transitions SELECT r.* FROM t.trail r JOIN t.payment p ON p.id = payment_id WHERE idempotency_key = 'together')
INSERT INTO stripe_lifecycle.payments SELECT p.* FROM t.payment p WHERE idempotency_key = 'together';
SELECT count(*) FROM stripe_lifecycle.payments WHERE idempotency_key = 'together';

-- What is there is not touched: no row for a trail that has its payment
SELECT t.error(format('INSERT INTO stripe_lifecycle.payment_transitions SELECT payment_id, seq + 1, to_state, ''succeeded'', at, ''webhook'', ''evt_x'', ''x'', at, role, NULL, amount, currency, false, hash
	FROM stripe_lifecycle.payment_transitions WHERE payment_id = %L AND seq = 2', id)) FROM t.payment WHERE idempotency_key = 'acting';
-- not even in the statement that brings the payment
SELECT t.code($$WITH p AS (INSERT INTO stripe_lifecycle.payments (id, idempotency_key, amount, currency) VALUES ('01900000-0000-7000-8000-000000000005', 'five', 2000, 'usd'))
	INSERT INTO stripe_lifecycle.payment_transitions VALUES ('01900000-0000-7000-8000-000000000005', 2, 'created', 'succeeded', now(), 'webhook', 'evt_x', 'x', now(), 'x', NULL, 2000, 'usd', false, sha256('x'))$$);
SELECT t.code($$UPDATE stripe_lifecycle.payments SET state = 'succeeded' WHERE idempotency_key = 'created'$$) AS update,
	   t.code($$UPDATE stripe_lifecycle.payment_transitions SET note = 'x'$$) AS trail, t.code($$DELETE FROM stripe_lifecycle.payment_transitions$$) AS delete;

-- The other tables
SELECT t.code($$INSERT INTO stripe_lifecycle.webhook_events VALUES ('evt_old', 'payment_intent.succeeded', now(), false,
	NULL, NULL, 'pi_1', 'pi_1', NULL, 'unmatched', NULL, NULL, 'webhook', now(), NULL, '{}')$$) AS event,
	   t.code($$INSERT INTO stripe_lifecycle.api_requests OVERRIDING SYSTEM VALUE VALUES (7, gen_random_uuid(), 'create', 'POST', '/v1/payment_intents', 'amount=1', 'old', NULL, now(), 'queued', 0, now())$$) AS request,
	   t.code($$INSERT INTO stripe_lifecycle.operator_actions OVERRIDING SYSTEM VALUE VALUES (777, now(), 'me', 'nothing')$$) AS action;
SELECT t.code($$UPDATE stripe_lifecycle.webhook_events SET outcome = 'applied'$$) AS event, t.code($$UPDATE stripe_lifecycle.api_requests SET body = 'amount=2'$$) AS request,
	   t.code($$UPDATE stripe_lifecycle.operator_actions SET role = 'x'$$) AS action;

-- Whoever restores needs the right to insert, and no other
CREATE ROLE regress_sl_restore;
GRANT USAGE ON SCHEMA stripe_lifecycle TO regress_sl_restore;
GRANT INSERT ON stripe_lifecycle.payments, stripe_lifecycle.payment_transitions TO regress_sl_restore;
GRANT USAGE ON SCHEMA t TO regress_sl_restore;
GRANT SELECT ON t.payment, t.trail TO regress_sl_restore;
SELECT t.make('by another', '{created, failed}') IS NOT NULL AS made;
SET ROLE regress_sl_restore;
SELECT t.restore_trail('by another'), t.restore_payment('by another');
RESET ROLE;
DROP OWNED BY regress_sl_restore;
DROP ROLE regress_sl_restore;

-- worker_state: the row of a dump comes back paused, unless it tells the copy from the original by itself
INSERT INTO stripe_lifecycle.worker_state DEFAULT VALUES;
SELECT t.worker(), count(*) FROM stripe_lifecycle.worker_state GROUP BY 1;
INSERT INTO stripe_lifecycle.worker_state (system_identifier, database_oid) SELECT system_identifier, oid FROM pg_control_system(), pg_database WHERE datname = current_database();
SELECT t.worker() AS restored_where_it_comes_from;
INSERT INTO stripe_lifecycle.worker_state (paused, paused_reason) VALUES (true, 'holidays');
SELECT t.worker();
INSERT INTO stripe_lifecycle.worker_state (system_identifier, database_oid) VALUES ('1', 1);
SELECT t.worker() AS of_another_server;
SELECT t.make('after it', '{created}') IS NOT NULL AS made, t.restore_trail('after it'), t.restore_payment('after it');
SELECT t.worker() AS knows_itself_for_a_copy;

-- The first payment or event of this database's own shuts the door; if it is rolled back, it is open again
SELECT t.make('too late', '{created, succeeded}') IS NOT NULL AS made;
BEGIN;
SELECT t.pay('own') IS NOT NULL AS made;
SELECT t.restore_trail('too late') AS trail;
ROLLBACK;
SELECT count(*) FROM stripe_lifecycle.in_use;
SELECT t.make('one more', '{created, succeeded}') IS NOT NULL AS made, t.restore_trail('one more');
-- also if it was resume_worker() that said so, and this session has believed it
BEGIN;
SELECT stripe_lifecycle.resume_worker();
SELECT t.pay('own') IS NOT NULL AS made;
SELECT t.restore_trail('too late') AS trail;
ROLLBACK;
SELECT t.make('after all', '{created, succeeded}') IS NOT NULL AS made, t.restore_trail('after all'), t.restore_payment('after all');
BEGIN;
SAVEPOINT a;
SELECT t.pay('own') IS NOT NULL AS made;
ROLLBACK TO a;
SELECT t.make('and one', '{created, succeeded}') IS NOT NULL AS made, t.restore_trail('and one'), t.restore_payment('and one');
SELECT t.pay('own') IS NOT NULL AS made;
SELECT t.restore_trail('too late');
ROLLBACK;
BEGIN;
SELECT t.ingest(t.event('evt_own', 'charge.succeeded', 1, 'ch_1'));
SELECT t.restore_trail('too late') AS after_an_event;
ROLLBACK;
SELECT t.pay('own') IS NOT NULL AS made;
SELECT count(*) FROM stripe_lifecycle.in_use;
SELECT t.pay('another') IS NOT NULL AS made;
SELECT count(*) FROM stripe_lifecycle.in_use;
\pset format unaligned
\t on
SELECT regexp_replace(t.restore_payment('one more'), 'payment \S+', 'payment <id>');
SELECT t.error('INSERT INTO stripe_lifecycle.payment_transitions SELECT r.* FROM t.trail r JOIN t.payment p ON p.id = payment_id WHERE idempotency_key = ''too late''');
\t off
\pset format aligned
SELECT t.code($$INSERT INTO stripe_lifecycle.webhook_events VALUES ('evt_mine', 'payment_intent.succeeded', now(), false,
	NULL, NULL, 'pi_1', 'pi_1', NULL, 'unmatched', NULL, NULL, 'webhook', now(), NULL, '{}')$$) AS event,
	   t.code($$INSERT INTO stripe_lifecycle.api_requests OVERRIDING SYSTEM VALUE VALUES (8, gen_random_uuid(), 'create', 'POST', '/v1/payment_intents', 'amount=1', 'mine', NULL, now(), 'queued', 0, now())$$) AS request,
	   t.code($$INSERT INTO stripe_lifecycle.operator_actions OVERRIDING SYSTEM VALUE VALUES (778, now(), 'me', 'nothing')$$) AS action;
-- a session that has not seen it knows it as well
CREATE TABLE t.secret_file AS SELECT * FROM secret_file;
\c -
SET client_min_messages = error;
CREATE TEMP TABLE secret_file AS SELECT * FROM t.secret_file;
SELECT t.restore_trail('too late');
-- nobody opens it again
SELECT t.error('DELETE FROM stripe_lifecycle.in_use');
SELECT t.code('UPDATE stripe_lifecycle.in_use SET since = now()'), t.code('TRUNCATE stripe_lifecycle.in_use');
SET session_replication_role = replica;
SELECT t.code('DELETE FROM stripe_lifecycle.in_use'), t.code('TRUNCATE stripe_lifecycle.in_use'), t.restore_trail('too late');
RESET session_replication_role;
-- a payment by hand is a new one, as ever
INSERT INTO stripe_lifecycle.payments (id, idempotency_key, amount, currency) VALUES ('01900000-0000-7000-8000-000000000001', 'by hand', 2000, 'usd');
SELECT source, audit_head = hash AS has_its_head FROM stripe_lifecycle.payments JOIN stripe_lifecycle.payment_transitions ON payment_id = id WHERE idempotency_key = 'by hand';

-- A schema that is there: another superuser's becomes the installer's, anybody else's is none to install into
CREATE ROLE regress_sl_admin SUPERUSER;
CREATE ROLE regress_sl_squatter;
DROP EXTENSION stripe_lifecycle CASCADE;
DROP SCHEMA IF EXISTS stripe_lifecycle;
CREATE SCHEMA stripe_lifecycle AUTHORIZATION regress_sl_squatter;
SELECT t.error('CREATE EXTENSION stripe_lifecycle');
ALTER SCHEMA stripe_lifecycle OWNER TO regress_sl_admin;
CREATE EXTENSION stripe_lifecycle;
SELECT nspowner = extowner AS is_the_installers FROM pg_namespace JOIN pg_extension ON extnamespace = pg_namespace.oid WHERE extname = 'stripe_lifecycle';
DROP ROLE regress_sl_admin, regress_sl_squatter;
SELECT t.pay('own') IS NOT NULL AS made;

-- The extension made anew: the door is open, for this session too
DROP EXTENSION stripe_lifecycle CASCADE;
CREATE EXTENSION stripe_lifecycle;
SELECT count(*) FROM stripe_lifecycle.in_use;
SELECT t.code($$INSERT INTO stripe_lifecycle.operator_actions OVERRIDING SYSTEM VALUE VALUES (777, now(), 'me', 'nothing')$$) AS action;
-- resume_worker() takes into use what was restored, but not an empty database
SELECT stripe_lifecycle.resume_worker();
SELECT count(*) FROM stripe_lifecycle.in_use;
INSERT INTO stripe_lifecycle.payments (id, idempotency_key, amount, currency) VALUES ('01900000-0000-7000-8000-000000000001', 'by hand', 2000, 'usd');
SELECT stripe_lifecycle.resume_worker(), stripe_lifecycle.resume_worker();
SELECT count(*) FROM stripe_lifecycle.in_use;
SELECT t.code($$INSERT INTO stripe_lifecycle.operator_actions OVERRIDING SYSTEM VALUE VALUES (999, now(), 'me', 'nothing')$$) AS action;
\i :end
