-- A role that may call everything, and has prepared the ground: twins of PostgreSQL's own functions, operators,
-- types and of the extension's tables lie in wait in a schema that comes first in its search_path, and in pg_temp.
-- Whoever steps on one of them leaves a trace.
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/setup/begin.sql'
\set end :abs_srcdir '/setup/end.sql'
\i :begin

-- What the catalogs say: every function that runs as its owner, and every script, looks for names in pg_catalog alone
CREATE VIEW t.functions AS
	SELECT p.oid, p.oid::regprocedure AS function, p.prosecdef, l.lanname, p.proconfig,
		   -- comments and literals taken out
		   regexp_replace(p.prosrc, '--[^\n]*|''([^'']|'''')*''', ' ', 'g') AS body
	  FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE p.pronamespace = 'stripe_lifecycle'::regnamespace;
SELECT count(*) > 20 AS functions, count(*) FILTER (WHERE prosecdef) > 10 AS definers, count(*) FILTER (WHERE lanname IN ('sql', 'plpgsql')) > 10 AS scripts FROM t.functions;
SELECT function AS with_an_open_path FROM t.functions
 WHERE (prosecdef OR lanname IN ('sql', 'plpgsql')) AND 'search_path=pg_catalog, pg_temp' <> ALL (coalesce(proconfig, '{}'));
SELECT DISTINCT lanname FROM t.functions ORDER BY 1;
-- and names the extension's own objects with their schema
SELECT f.function, n.name AS unqualified
  FROM t.functions f,
	   (SELECT relname::text FROM pg_class WHERE relnamespace = 'stripe_lifecycle'::regnamespace AND relkind IN ('r', 'v', 'S')
		UNION SELECT proname FROM pg_proc WHERE pronamespace = 'stripe_lifecycle'::regnamespace
		UNION SELECT typname FROM pg_type WHERE typnamespace = 'stripe_lifecycle'::regnamespace) AS n (name)
 WHERE f.lanname IN ('sql', 'plpgsql') AND f.body ~ ('(^|[^.\w])' || n.name || '\M(?! :=|\.)')
   AND n.name <> ALL (SELECT unnest(coalesce(proargnames, '{}')) FROM pg_proc WHERE oid = f.oid);
-- a view is a barrier: see below
SELECT relname AS no_barrier FROM pg_class WHERE relnamespace = 'stripe_lifecycle'::regnamespace AND relkind = 'v' AND reloptions IS DISTINCT FROM '{security_barrier=true}';

-- The attacker, with the rights of all kinds of roles
CREATE ROLE regress_sl_evil;
SELECT stripe_lifecycle.grant_web('regress_sl_evil'), stripe_lifecycle.grant_application('regress_sl_evil'), stripe_lifecycle.grant_auditor('regress_sl_evil'), stripe_lifecycle.grant_operator('regress_sl_evil');
CREATE SCHEMA evil AUTHORIZATION regress_sl_evil;
DO $$ BEGIN EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO regress_sl_evil', current_database()); END $$;
GRANT USAGE ON SCHEMA t TO regress_sl_evil;
CREATE SEQUENCE t.traps_sprung;
GRANT ALL ON t.traps_sprung TO regress_sl_evil;

SET ROLE regress_sl_evil;
-- a twin of every function whose types can be named, in a schema
CREATE FUNCTION evil.make_twins(home text, OUT functions bigint, OUT operators bigint) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	x record;
BEGIN
	functions := 0; operators := 0;
	FOR x IN SELECT p.proname, p.oid, oidvectortypes(p.proargtypes) AS args, format_type(p.prorettype, NULL) AS result
			   FROM pg_proc p
			  WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND NOT p.proretset AND p.provariadic = 0
				AND 'p' <> ALL (SELECT typtype FROM pg_type WHERE oid = ANY (p.proargtypes || p.prorettype::oid))
	LOOP
		EXECUTE format('CREATE FUNCTION %s.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', home, x.proname, x.args, x.result,
			format('BEGIN PERFORM pg_catalog.nextval(%L); RAISE EXCEPTION %L USING ERRCODE = ''EVIL1''; END', 't.traps_sprung', 'stepped on ' || x.proname));
		functions := functions + 1;
	END LOOP;
	FOR x IN SELECT o.oprname, format_type(o.oprleft, NULL) AS l, format_type(o.oprright, NULL) AS r, p.proname
			   FROM pg_operator o JOIN pg_proc p ON p.oid = o.oprcode
			  WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprleft <> 0 AND p.prokind = 'f' AND NOT p.proretset AND p.provariadic = 0
				AND 'p' <> ALL (SELECT typtype FROM pg_type WHERE oid = ANY (p.proargtypes || p.prorettype::oid))
	LOOP
		EXECUTE format('CREATE OPERATOR %s.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = %s.%I)', home, x.oprname, x.l, x.r, home, x.proname);
		operators := operators + 1;
	END LOOP;
	-- those with a variable number of arguments, and an aggregate
	EXECUTE format('CREATE FUNCTION %s.format(text, VARIADIC text[]) RETURNS text LANGUAGE sql AS %L', home, format('SELECT %s.now()::text', home));
	EXECUTE format('CREATE FUNCTION %s.step(bigint) RETURNS bigint LANGUAGE sql AS %L', home, format('SELECT %s.abs(1::bigint)', home));
	EXECUTE format('CREATE AGGREGATE %1$s.count(*) (SFUNC = %1$s.step, STYPE = bigint, INITCOND = 0)', home);
	-- types, and tables of the extension's names that would take what is meant for those
	FOR x IN SELECT unnest('{uuid, text, jsonb, bytea, interval, record, regclass, regrole, payment_state, event_outcome, request_status}'::text[]) AS name LOOP
		EXECUTE format('CREATE DOMAIN %s.%I AS integer CHECK (%s.abs(VALUE) = 0)', home, x.name, home);
	END LOOP;
	FOR x IN SELECT relname FROM pg_class WHERE relnamespace = 'stripe_lifecycle'::regnamespace AND relkind IN ('r', 'v')
			 UNION SELECT unnest('{pg_class, pg_proc, pg_trigger, pg_settings, pg_database, pg_roles}'::text[]) LOOP
		EXECUTE format('CREATE TABLE %s.%I (id integer CHECK (%s.abs(id) = 0))', home, x.relname, home);
	END LOOP;
END
$$;
-- not for the test's own statements
SET search_path = public, pg_catalog, pg_temp;
SELECT functions > 1500 AS functions, operators > 400 AS operators FROM evil.make_twins('evil');
SELECT functions > 1500 AS functions, operators > 400 AS operators FROM evil.make_twins('pg_temp');
RESET ROLE;

-- What is called: everything that is granted, with arguments that take it all the way through.  A function that is
-- granted and not called here shows below.
SELECT t.pay('attacked') AS id, t.pay('attacked too') AS other, t.pay('attacked, and canceled') AS ended \gset
SELECT t.event('evt_new', 'payment_intent.succeeded', 2, 'pi_new', :'id') AS body, t.event('evt_text', 'payment_intent.processing', 3, 'pi_text', :'other') AS text_body,
	   t.event('evt_http', 'payment_intent.processing', 4, 'pi_http', :'other') AS http_body, t.event('evt_bytes', 'payment_intent.payment_failed', 3, 'pi_bytes', :'id') AS bytes_body \gset
SELECT t.ingest(t.event('evt_conflict', 'payment_intent.succeeded', 2, 'pi_id', :'id', '{"amount": 1}')), t.ingest(t.event('evt_unmatched', 'payment_intent.succeeded', 2, 'pi_none')),
	   t.ingest(t.event('evt_ended', 'payment_intent.canceled', 2, 'pi_ended', :'ended'));
CREATE TABLE t.calls (n integer GENERATED ALWAYS AS IDENTITY, function text, statement text);
GRANT SELECT ON t.calls TO regress_sl_evil;
INSERT INTO t.calls (function, statement) VALUES
	('create_payment', $$SELECT stripe_lifecycle.create_payment(2000, 'usd', 'a new key', description => 'd', customer => 'cus_1', receipt_email => 'a@example.com', metadata => '{"a": "b"}', params => '{"payment_method": "pm_1", "confirm": true}')$$),
	('create_payment', $$SELECT stripe_lifecycle.create_payment(2000, 'usd', 'attacked')$$),
	('create_payment', $$SELECT stripe_lifecycle.create_payment(2001, 'usd', 'attacked')$$),
	('payment_status', format('SELECT stripe_lifecycle.payment_status(%L)', :'id')),
	('payment_status', format('SELECT stripe_lifecycle.payment_status(%L, ''100 ms'')', :'id')),
	('payment_status', $$SELECT stripe_lifecycle.payment_status('01900000-0000-7000-8000-000000000000')$$),
	('confirm_payment', format('SELECT stripe_lifecycle.confirm_payment(%L, ''{"payment_method": "pm_1"}'')', :'id')),
	('confirm_payment', format('SELECT stripe_lifecycle.confirm_payment(%L)', :'ended')),
	('cancel_payment', format('SELECT stripe_lifecycle.cancel_payment(%L, ''duplicate'')', :'other')),
	('ingest_webhook', format('SELECT stripe_lifecycle.ingest_webhook(%L::pg_catalog.text, %L)', :'text_body', t.header(:'text_body'::text))),
	('ingest_webhook', format('SELECT stripe_lifecycle.ingest_webhook(%L::pg_catalog.bytea, %L)', convert_to(:'bytes_body', 'UTF8'), t.header(:'bytes_body'::text))),
	('ingest_webhook', $$SELECT stripe_lifecycle.ingest_webhook('{}'::pg_catalog.text, 't=1,v1=0')$$),
	('webhook', format('SELECT pg_catalog.set_config(''request.headers'', %L, true), stripe_lifecycle.webhook(%L)', json_build_object('stripe-signature', t.header(:'http_body'::text)), :'http_body')),
	('webhook', $$SELECT pg_catalog.set_config('request.headers', '{"stripe-signature": "t=1,v1=0"}', true), stripe_lifecycle.webhook('{}')$$),
	('pre_request', $$SELECT pg_catalog.set_config('response.headers', '[{"A": "b"}]', true), stripe_lifecycle.pre_request()$$),
	('recent_rejections', 'SELECT * FROM stripe_lifecycle.recent_rejections()'),
	('legal_transitions', 'SELECT * FROM stripe_lifecycle.legal_transitions()'),
	('verify_audit', 'SELECT * FROM stripe_lifecycle.verify_audit()'),
	('verify_checkpoints', 'SELECT * FROM stripe_lifecycle.verify_checkpoints()'),
	('audit_export', 'SELECT * FROM stripe_lifecycle.audit_export()'),
	('checkpoint_line', 'SELECT stripe_lifecycle.checkpoint_line(c) FROM stripe_lifecycle.audit_checkpoints c'),
	('health', 'SELECT * FROM stripe_lifecycle.health()'),
	('stats', 'SELECT * FROM stripe_lifecycle.stats()'),
	('stats_latency', 'SELECT * FROM stripe_lifecycle.stats_latency()'),
	('lint', 'SELECT * FROM stripe_lifecycle.lint()'),
	('versions', 'SELECT * FROM stripe_lifecycle.versions()'),
	('secrets_status', 'SELECT * FROM stripe_lifecycle.secrets_status()'),
	('pause_worker', $$SELECT stripe_lifecycle.pause_worker('attack')$$),
	('resume_worker', 'SELECT stripe_lifecycle.resume_worker()'),
	('retry_request', format('SELECT stripe_lifecycle.retry_request(%s)', (SELECT min(id) FROM stripe_lifecycle.api_requests))),
	('retry_request', 'SELECT stripe_lifecycle.retry_request(-1)'),
	('replay_event', $$SELECT stripe_lifecycle.replay_event('evt_unmatched')$$),
	('replay_event', $$SELECT stripe_lifecycle.replay_event('evt_none')$$),
	('resolve_conflict', $$SELECT stripe_lifecycle.resolve_conflict('evt_conflict', 'dismiss')$$),
	('resolve_conflict', $$SELECT stripe_lifecycle.resolve_conflict('evt_conflict', 'accept')$$);
INSERT INTO t.calls (statement)
	SELECT format('SELECT %s FROM %s', string_agg(coalesce(column_name, '*'), ', '), object) FROM stripe_lifecycle.privileges() WHERE kind <> 'worker' AND class = 'TABLE' AND privilege = 'SELECT' GROUP BY object ORDER BY object;
SELECT DISTINCT object AS granted_but_not_called FROM stripe_lifecycle.privileges()
 WHERE class = 'FUNCTION' AND kind <> 'worker' AND NOT EXISTS (SELECT FROM t.calls WHERE object LIKE format('stripe\_lifecycle.%s(%%', function));

-- Run a statement with this search_path, and undo what it did: ok, or its SQLSTATE
CREATE FUNCTION t.try(statement text, path text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	result text := 'ok';
	me name := current_user;
BEGIN
	BEGIN
		PERFORM pg_catalog.set_config('search_path', path, true);
		EXECUTE statement;
		PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
		RAISE EXCEPTION USING ERRCODE = CASE current_user WHEN me THEN 'UNDO0' ELSE 'ELSE0' END;
	EXCEPTION WHEN OTHERS THEN
		PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
		IF SQLSTATE <> 'UNDO0' THEN
			result := SQLSTATE;
		END IF;
	END;
	RETURN result;
END
$$;

-- The traps work: this is what happens to one who does not look where he treads
SET ROLE regress_sl_evil;
SELECT statement, t.try(statement, 'pg_catalog') AS plain, t.try(statement, 'evil, pg_catalog, pg_temp') AS evil, t.try(statement, 'pg_temp, evil, pg_catalog') AS temp
  FROM unnest('{SELECT now(), SELECT 1 = 1, SELECT ''a''::pg_catalog.text < ''b'', "SELECT format(''%s'', ''x''::pg_catalog.text)", SELECT count(*) FROM pg_catalog.pg_class, SELECT 5::regclass, SELECT 5::text, INSERT INTO payments VALUES (1), SELECT oid FROM pg_class, SELECT id FROM pg_class}'::text[]) AS statement;
RESET ROLE;
SELECT setval('t.traps_sprung', 1, false);

-- The extension does: with either path everything ends as without
SET ROLE regress_sl_evil;
SELECT coalesce(function, statement) AS what, plain, evil, temp
  FROM (SELECT n, function, substring(statement FROM ' FROM .*') AS statement, t.try(statement, 'evil, pg_catalog, pg_temp') AS evil, t.try(statement, 'pg_temp, evil, pg_catalog') AS temp, t.try(statement, 'pg_catalog') AS plain FROM t.calls) x ORDER BY n;
RESET ROLE;
SELECT last_value, is_called FROM t.traps_sprung;

-- Neither does whoever writes to the tables with such a path, be it their owner: the guards stand
SELECT t.mask(statement) AS statement, t.try(statement, 'pg_catalog') AS plain, t.try(statement, 'evil, pg_catalog, pg_temp') AS evil
  FROM unnest(ARRAY[format('UPDATE stripe_lifecycle.payments SET state = ''succeeded'' WHERE id OPERATOR(pg_catalog.=) ''%s''', :'other'), format('UPDATE stripe_lifecycle.payments SET amount = 1 WHERE id OPERATOR(pg_catalog.=) ''%s''', :'other'),
		'DELETE FROM stripe_lifecycle.payments', 'TRUNCATE stripe_lifecycle.payment_transitions', $$INSERT INTO stripe_lifecycle.payments (id, idempotency_key, amount, currency) VALUES ('01900000-0000-7000-8000-000000000000', 'direct', 1, 'usd')$$,
		'INSERT INTO stripe_lifecycle.worker_state DEFAULT VALUES', $$SELECT stripe_lifecycle.grant_operator('regress_sl_evil')$$, $$SELECT stripe_lifecycle.revoke_operator('regress_sl_evil')$$, 'SELECT * FROM stripe_lifecycle.granted_privileges()']) AS statement;
SELECT last_value, is_called FROM t.traps_sprung;

-- What is no role's name is none, and what looks like SQL is data
SET ROLE regress_sl_evil;
SELECT t.code(format('SELECT stripe_lifecycle.%s(%s)', f, a)) AS code, count(*)
  FROM unnest('{grant_web, grant_application, grant_auditor, grant_operator, revoke_operator, kinds_of_role}'::text[]) f,
	   unnest(ARRAY['''regress_sl_evil''', '''stripe_lifecycle_worker''', '10', quote_literal('"x"; DROP TABLE t.calls'), quote_literal('regress_sl_evil; ALTER ROLE regress_sl_evil SUPERUSER')]) a GROUP BY 1 ORDER BY 1;
SELECT t.code(format('SELECT stripe_lifecycle.create_payment(2000, ''usd'', %L, description => %1$L, metadata => jsonb_build_object(''k'', %1$L), params => jsonb_build_object(''k'', %1$L))', x)),
	   t.code(format('SELECT stripe_lifecycle.pause_worker(%L)', x)), t.code(format('SELECT stripe_lifecycle.replay_event(%L, %1$L)', x)), t.code(format('SELECT stripe_lifecycle.resolve_conflict(%L, %1$L)', x))
  FROM unnest(ARRAY[$$'; DROP TABLE t.calls; --$$, $$%s %1$s %I $1$$, '$a$; DROP TABLE t.calls; $a$', E'\\''; DROP TABLE t.calls', '"; DROP TABLE t.calls; --']) x;
RESET ROLE;
SELECT count(*) > 30 AS still_there FROM t.calls;
SELECT count(*) AS as_they_were_given FROM stripe_lifecycle.payments WHERE description = idempotency_key AND metadata ->> 'k' = idempotency_key AND params ->> 'k' = idempotency_key AND idempotency_key ~ 'DROP|%s';
SELECT rolsuper OR rolcreaterole AS grown FROM pg_roles WHERE rolname = 'regress_sl_evil';

-- Views don't show a function of the reader's what they leave out, be there no index that leaves it out as well
SET enable_indexscan = off;
SET enable_bitmapscan = off;
CREATE SEQUENCE t.shown;
GRANT ALL ON t.shown TO regress_sl_evil;
CREATE ROLE regress_sl_operator;
SELECT stripe_lifecycle.grant_operator('regress_sl_operator');
GRANT USAGE ON SCHEMA t TO regress_sl_operator;
GRANT ALL ON t.shown TO regress_sl_operator;
CREATE FUNCTION t.show(anyelement) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$ BEGIN PERFORM nextval('t.shown'); RETURN true; END $$;
SET ROLE regress_sl_operator;
SELECT count(*) FROM stripe_lifecycle.conflicts WHERE t.show(event_id) \gset conflicts_
SELECT :conflicts_count AS conflicts, last_value AS shown FROM t.shown;
SELECT count(*) FROM stripe_lifecycle.dead_requests WHERE t.show(id);
SELECT count(*) FROM stripe_lifecycle.stuck_payments WHERE t.show(payment_id);
SELECT last_value AS shown FROM t.shown;
RESET ROLE;
RESET enable_indexscan;
RESET enable_bitmapscan;

DROP SCHEMA evil CASCADE;
DROP OWNED BY regress_sl_evil, regress_sl_operator CASCADE;
DROP ROLE regress_sl_evil, regress_sl_operator;
\i :end
