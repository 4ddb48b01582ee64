-- Attempts to pass for the library itself.  Each ends with the payment where
-- it was, and with an audit trail that gives its row.
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/setup/begin.sql'
\set end :abs_srcdir '/setup/end.sql'
\i :begin

SELECT t.pay('one') AS one \gset
CREATE FUNCTION t.move_it() RETURNS text LANGUAGE sql AS $$
	SELECT t.code($u$UPDATE stripe_lifecycle.payments SET state = 'succeeded' WHERE idempotency_key = 'one'$u$)
$$;

-- Settings.  The prefix is reserved, so there is nothing to set.
SELECT name, t.code(format('SET stripe_lifecycle.%s = ''on''', name)) AS set,
	   t.code(format('SELECT set_config(''stripe_lifecycle.%s'', ''on'', true)', name)) AS set_config
  FROM unnest('{permit, ingest, guard, trusted, in_ingest, bypass, source, internal}'::text[]) AS name;
SELECT t.code($$ALTER ROLE CURRENT_USER SET stripe_lifecycle.guard = 'off'$$);
SELECT t.code(format($$ALTER DATABASE %I SET stripe_lifecycle.permit = 'on'$$, current_database()));
SET application_name = 'stripe_lifecycle worker';
SET myapp.stripe_lifecycle_permit = 'on';
SELECT t.move_it();
RESET application_name;

-- Calling the trigger's function, or hanging it up elsewhere
SELECT t.error('SELECT stripe_lifecycle.guard()');
CREATE TABLE t.payments (LIKE stripe_lifecycle.payments INCLUDING ALL);
CREATE TRIGGER guard AFTER INSERT OR UPDATE ON t.payments FOR EACH ROW EXECUTE FUNCTION stripe_lifecycle.guard();
SELECT t.error($$INSERT INTO t.payments (id, idempotency_key, amount, currency) VALUES (gen_random_uuid(), 'x', 1, 'usd')$$);
DROP TABLE t.payments;
CREATE TRIGGER early BEFORE UPDATE ON stripe_lifecycle.payments FOR EACH ROW EXECUTE FUNCTION stripe_lifecycle.guard();
SELECT t.error($$UPDATE stripe_lifecycle.payments SET description = 'x'$$);
SELECT t.error($$SELECT t.ingest(t.event('evt_early', 'payment_intent.processing', 1, 'pi_early', $$ || quote_literal(:'one') || '))');
DROP TRIGGER early ON stripe_lifecycle.payments;
CREATE TRIGGER per_statement AFTER UPDATE ON stripe_lifecycle.payments EXECUTE FUNCTION stripe_lifecycle.guard();
SELECT t.code($$UPDATE stripe_lifecycle.payments SET description = 'x'$$);
DROP TRIGGER per_statement ON stripe_lifecycle.payments;
-- a second copy of the guard finds the permit used up and refuses: it fails closed
CREATE TRIGGER zz_second AFTER UPDATE ON stripe_lifecycle.payments FOR EACH ROW EXECUTE FUNCTION stripe_lifecycle.guard();
SELECT t.code($$SELECT t.ingest(t.event('evt_second', 'payment_intent.processing', 1, 'pi_early', $$ || quote_literal(:'one') || '))');
DROP TRIGGER zz_second ON stripe_lifecycle.payments;
SELECT t.state(:'one'), count(*) AS events FROM stripe_lifecycle.webhook_events;

-- Objects in pg_temp and on the search_path that look like the library's own.
-- If any were used, the payment would move or the ingest would go wrong.
CREATE TEMP TABLE payments AS SELECT * FROM stripe_lifecycle.payments;
UPDATE pg_temp.payments SET state = 'succeeded', amount = 1;
CREATE TEMP TABLE payment_transitions AS SELECT * FROM stripe_lifecycle.payment_transitions;
CREATE TEMP TABLE webhook_events AS SELECT * FROM stripe_lifecycle.webhook_events;
CREATE TEMP TABLE api_requests AS SELECT * FROM stripe_lifecycle.api_requests;
CREATE TEMP TABLE worker_state (paused boolean);
CREATE TYPE pg_temp.payment_state AS ENUM ('succeeded', 'created');
CREATE SCHEMA t_evil;
CREATE FUNCTION t_evil.always(uuid, uuid) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR t_evil.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = t_evil.always);
CREATE FUNCTION t_evil.always(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR t_evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = t_evil.always);
CREATE FUNCTION t_evil.always(stripe_lifecycle.event_outcome, stripe_lifecycle.event_outcome) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR t_evil.= (LEFTARG = stripe_lifecycle.event_outcome, RIGHTARG = stripe_lifecycle.event_outcome, FUNCTION = t_evil.always);
CREATE FUNCTION t_evil.now() RETURNS timestamptz LANGUAGE sql AS $$SELECT 'infinity'::timestamptz$$;
CREATE FUNCTION t_evil.count(OUT bigint) LANGUAGE sql AS 'SELECT 42::bigint';
CREATE FUNCTION pg_temp.guard() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
SELECT t.pay('two') AS two \gset
SET search_path = t_evil, pg_temp, stripe_lifecycle, pg_catalog;
SELECT t.move_it();
SELECT ingest_webhook(body, t.header(body)) FROM (SELECT t.event('evt_temp', 'payment_intent.processing', 10, 'pi_one', :'one')) AS x (body);
SELECT t.pay('three') OPERATOR(pg_catalog.<>) ALL (ARRAY[:'one', :'two']::uuid[]) AS another;
SELECT cancel_payment(:'two') OPERATOR(pg_catalog.>) 0 AS queued;
RESET search_path;
SELECT idempotency_key, state, amount, transitions FROM stripe_lifecycle.payments ORDER BY created_at;
SELECT operation, t.mask(idempotency_key) AS key FROM stripe_lifecycle.api_requests ORDER BY id;
SELECT count(*) FROM pg_temp.payment_transitions;
DROP SCHEMA t_evil CASCADE;
DROP TABLE pg_temp.payments, pg_temp.payment_transitions, pg_temp.webhook_events, pg_temp.api_requests, pg_temp.worker_state;
DROP TYPE pg_temp.payment_state;

-- Triggers of others on payments.  Each tries something in the very statement
-- of an ingest; the names sort before and after the guard's.
CREATE FUNCTION t.meddle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF pg_trigger_depth() > 1 THEN
		RETURN NEW;
	END IF;
	CASE TG_ARGV[0]
		WHEN 'state' THEN NEW.state := 'succeeded';
		WHEN 'amount' THEN NEW.amount := 1;
		WHEN 'time' THEN NEW.updated_at := NEW.updated_at + interval '1 second';
		WHEN 'secret' THEN NEW.client_secret := 'mine';
		WHEN 'null' THEN RETURN NULL;
		WHEN 'old' THEN RETURN OLD;
		WHEN 'update same' THEN UPDATE stripe_lifecycle.payments SET description = description WHERE id = NEW.id;
		WHEN 'update state' THEN UPDATE stripe_lifecycle.payments SET state = 'succeeded' WHERE id = NEW.id;
		WHEN 'update back' THEN UPDATE stripe_lifecycle.payments SET state = OLD.state WHERE id = NEW.id;
		WHEN 'update other' THEN UPDATE stripe_lifecycle.payments SET state = NEW.state WHERE idempotency_key = 'two';
		WHEN 'update error' THEN
			BEGIN
				UPDATE stripe_lifecycle.payments SET state = 'succeeded' WHERE id = NEW.id;
			EXCEPTION WHEN OTHERS THEN NULL;
			END;
		WHEN 'transition' THEN INSERT INTO stripe_lifecycle.payment_transitions
			VALUES (NEW.id, NEW.transitions + 1, NEW.state, 'succeeded', now(), 'webhook', 'evt_x', 'x', now(), 'x', NULL, NEW.amount, NEW.currency, false, sha256('x'));
		WHEN 'same transition' THEN INSERT INTO stripe_lifecycle.payment_transitions
			VALUES (NEW.id, NEW.transitions, OLD.state, NEW.state, NEW.updated_at, 'webhook', 'evt_x', 'x', now(), 'x', NULL, NEW.amount, NEW.currency, false, NEW.audit_head);
		WHEN 'event' THEN INSERT INTO stripe_lifecycle.webhook_events
			VALUES ('evt_x', 'x', now(), false, NULL, NULL, NULL, NULL, NEW.id, 'applied', NULL, NULL, 'webhook', now(), now(), '{}');
		WHEN 'request' THEN INSERT INTO stripe_lifecycle.api_requests
			(payment_id, operation, method, path, body, idempotency_key, created_at, next_attempt_at)
			VALUES (NEW.id, 'refund', 'POST', '/v1/refunds', '', 'x', now(), now());
		WHEN 'delete' THEN DELETE FROM stripe_lifecycle.payments WHERE id = NEW.id;
		WHEN 'raise' THEN RAISE EXCEPTION 'meddled';
		WHEN 'harmless' THEN PERFORM 1;
	END CASE;
	RETURN NEW;
END
$$;
CREATE FUNCTION t.meddled(timing text, name text, what text, target text DEFAULT 'payments', event text DEFAULT 'UPDATE')
	RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	key text := concat_ws('-', timing, name, what, target, event);
	id uuid := t.pay(key);
	result text;
BEGIN
	EXECUTE format('CREATE TRIGGER %I %s %s ON stripe_lifecycle.%I FOR EACH ROW EXECUTE FUNCTION t.meddle(%L)',
				   name, timing, event, target, what);
	result := t.code(format('SELECT t.ingest(t.event(%L, ''payment_intent.requires_action'', 1000, %L, %L))',
							'evt_' || key, 'pi_' || key, id));
	EXECUTE format('DROP TRIGGER %I ON stripe_lifecycle.%I', name, target);
	-- the permit must not have outlived the statement, whatever became of it
	RETURN result || ', ' || t.state(id) || ', then '
		|| t.code(format('UPDATE stripe_lifecycle.payments SET state = ''succeeded'' WHERE id = %L', id));
END
$$;
SELECT what, t.meddled('BEFORE', 'aa', what) AS "BEFORE aa", t.meddled('BEFORE', 'zz', what) AS "BEFORE zz"
  FROM unnest('{state, amount, time, secret, "null", old, update same, update state, update back, update other,
	update error, transition, same transition, event, request, delete, raise, harmless}'::text[]) AS what;
SELECT what, t.meddled('AFTER', 'aa', what) AS "AFTER aa", t.meddled('AFTER', 'zz', what) AS "AFTER zz"
  FROM unnest('{state, "null", update same, update state, update back, update other,
	update error, transition, same transition, event, request, delete, raise, harmless}'::text[]) AS what;
SELECT idempotency_key, state FROM stripe_lifecycle.payments WHERE idempotency_key = 'two';

-- Triggers on the other tables that the ingest writes
CREATE FUNCTION t.meddle_elsewhere() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	CASE TG_ARGV[0]
		WHEN 'null' THEN RETURN NULL;
		WHEN 'move' THEN UPDATE stripe_lifecycle.payments SET state = 'succeeded' WHERE idempotency_key = TG_ARGV[1];
		WHEN 'move and hide' THEN
			BEGIN
				UPDATE stripe_lifecycle.payments SET state = 'succeeded' WHERE idempotency_key = TG_ARGV[1];
			EXCEPTION WHEN OTHERS THEN NULL;
			END;
		WHEN 'change' THEN
			IF TG_TABLE_NAME = 'payment_transitions' THEN NEW.to_state := 'succeeded';
			ELSIF TG_TABLE_NAME = 'webhook_events' THEN NEW.outcome := 'ignored';
			ELSE NEW.body := 'amount=1'; END IF;
		WHEN 'swallow' THEN
			-- the same row, by another statement, instead of the library's
			IF pg_trigger_depth() > 1 AND TG_TABLE_NAME <> 'payment_transitions' OR pg_trigger_depth() > 2 THEN
				RETURN NEW;
			END IF;
			EXECUTE format('INSERT INTO stripe_lifecycle.%I OVERRIDING SYSTEM VALUE SELECT ($1).*', TG_TABLE_NAME) USING NEW;
			RETURN NULL;
		WHEN 'twice' THEN
			EXECUTE format('INSERT INTO stripe_lifecycle.%I SELECT ($1).*', TG_TABLE_NAME) USING NEW;
	END CASE;
	RETURN NEW;
END
$$;
CREATE FUNCTION t.meddled_elsewhere(timing text, target text, what text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	key text := concat_ws('-', timing, target, what);
	id uuid := t.pay_in('requires_action', key);
	before bigint := (SELECT count(*) FROM stripe_lifecycle.api_requests);
	result text;
BEGIN
	EXECUTE format('CREATE TRIGGER aa %s INSERT ON stripe_lifecycle.%I FOR EACH ROW EXECUTE FUNCTION t.meddle_elsewhere(%L, %L)',
				   timing, target, what, key);
	-- a decline: writes to all of the tables
	result := t.code(format('SELECT t.ingest(t.event(%L, ''payment_intent.payment_failed'', 2000, %L, %L))',
							'evt_' || key, 'pi_' || key, id));
	EXECUTE format('DROP TRIGGER aa ON stripe_lifecycle.%I', target);
	RETURN result || ', ' || t.state(id) || ', ' || (SELECT count(*) FROM stripe_lifecycle.api_requests) - before || ' queued';
END
$$;
SELECT what, timing, t.meddled_elsewhere(timing, 'payment_transitions', what) AS payment_transitions,
	   t.meddled_elsewhere(timing, 'webhook_events', what) AS webhook_events,
	   t.meddled_elsewhere(timing, 'api_requests', what) AS api_requests
  FROM unnest('{"null", move, move and hide, change, swallow, twice}'::text[]) AS what, unnest('{BEFORE, AFTER}'::text[]) AS timing
 WHERE what NOT IN ('swallow', 'twice') OR timing = CASE what WHEN 'twice' THEN 'AFTER' ELSE 'BEFORE' END;
-- the same for a new payment, which would be left without its request
CREATE TRIGGER aa BEFORE INSERT ON stripe_lifecycle.payments FOR EACH ROW EXECUTE FUNCTION t.meddle_elsewhere('swallow');
SELECT t.code($$SELECT t.pay('swallowed')$$);
DROP TRIGGER aa ON stripe_lifecycle.payments;
SELECT count(*) AS without_request FROM stripe_lifecycle.payments p WHERE NOT EXISTS (SELECT FROM stripe_lifecycle.api_requests WHERE payment_id = p.id);

-- Errors in between.  A permit is gone however its statement ended.
SELECT t.pay('errors') AS errors \gset
\set VERBOSITY sqlstate
BEGIN;
SAVEPOINT a;
CREATE TRIGGER zz AFTER UPDATE ON stripe_lifecycle.payments FOR EACH ROW EXECUTE FUNCTION t.meddle('raise');
SELECT t.ingest(t.event('evt_e1', 'payment_intent.processing', 1000, 'pi_errors', :'errors'));
ROLLBACK TO a;
UPDATE stripe_lifecycle.payments SET state = 'processing' WHERE id = :'errors';
ROLLBACK TO a;
SELECT t.ingest(t.event('evt_e1', 'payment_intent.processing', 1000, 'pi_errors', :'errors'));
SAVEPOINT b;
UPDATE stripe_lifecycle.payments SET state = 'succeeded' WHERE id = :'errors';
ROLLBACK TO b;
SELECT t.ingest('not json');
ROLLBACK TO b;
UPDATE stripe_lifecycle.payments SET state = 'succeeded' WHERE id = :'errors';
ROLLBACK TO a;
SELECT t.state(:'errors');
UPDATE stripe_lifecycle.payments SET state = 'processing' WHERE id = :'errors';
ROLLBACK;
UPDATE stripe_lifecycle.payments SET state = 'processing' WHERE id = :'errors';
DO $$
DECLARE
	id uuid := (SELECT p.id FROM stripe_lifecycle.payments p WHERE idempotency_key = 'errors');
BEGIN
	FOR i IN 1 .. 3 LOOP
		BEGIN
			PERFORM t.ingest(t.event('evt_e2', 'payment_intent.processing', 1000, 'pi_errors', id));
			RAISE EXCEPTION 'rolled back';
		EXCEPTION WHEN OTHERS THEN
			NULL;
		END;
	END LOOP;
	UPDATE stripe_lifecycle.payments SET state = 'processing' WHERE idempotency_key = 'errors';
END
$$;
-- not even the very row that was permitted a moment ago
CREATE FUNCTION t.give_away() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''%'', NEW; END';
CREATE TRIGGER zz_give_away BEFORE UPDATE ON stripe_lifecycle.payments FOR EACH ROW WHEN (current_setting('t.give_away', true) = 'on') EXECUTE FUNCTION t.give_away();
DO $$
DECLARE
	r stripe_lifecycle.payments;
	payment uuid := (SELECT p.id FROM stripe_lifecycle.payments p WHERE idempotency_key = 'errors');
BEGIN
	SET t.give_away = 'on';
	BEGIN
		PERFORM t.ingest(t.event('evt_e3', 'payment_intent.processing', 1000, 'pi_errors', payment));
	EXCEPTION WHEN raise_exception THEN
		r := SQLERRM::stripe_lifecycle.payments;
	END;
	SET t.give_away = 'off';
	ASSERT r.state = 'processing' AND r.last_event_id = 'evt_e3';
	UPDATE stripe_lifecycle.payments SET state = r.state, transitions = r.transitions, payment_intent_id = r.payment_intent_id, livemode = r.livemode,
		last_event_id = r.last_event_id, last_event_created = r.last_event_created, last_event_rank = r.last_event_rank, updated_at = r.updated_at WHERE id = r.id;
END
$$;
DROP TRIGGER zz_give_away ON stripe_lifecycle.payments;
\set VERBOSITY default
SELECT t.state(:'errors'), (SELECT count(*) FROM stripe_lifecycle.webhook_events WHERE event_id LIKE 'evt\_e_') AS events;

-- Without its guard a table is not written at all: the ingest refuses
\pset format unaligned
\t on
SELECT t.pay_in('requires_action', 'unguarded') AS unguarded \gset
ALTER TABLE stripe_lifecycle.payments DISABLE TRIGGER stripe_lifecycle_guard;
SELECT t.error($$SELECT t.ingest(t.event('evt_u1', 'payment_intent.payment_failed', 2000, 'pi_unguarded'))$$);
SELECT t.code($$SELECT t.pay('unguarded-2')$$);
ALTER TABLE stripe_lifecycle.payments ENABLE REPLICA TRIGGER stripe_lifecycle_guard;
SELECT t.code($$SELECT t.ingest(t.event('evt_u1', 'payment_intent.payment_failed', 2000, 'pi_unguarded'))$$);
ALTER TABLE stripe_lifecycle.payments ENABLE ALWAYS TRIGGER stripe_lifecycle_guard;
SELECT name, t.code(format('ALTER TABLE stripe_lifecycle.%I DISABLE TRIGGER ALL', name)) AS disable,
	   t.code($$SELECT t.ingest(t.event('evt_u1', 'payment_intent.payment_failed', 2000, 'pi_unguarded'))$$) AS ingest,
	   t.code(format('ALTER TABLE stripe_lifecycle.%I ENABLE ALWAYS TRIGGER stripe_lifecycle_guard', name)) AS enable
  FROM unnest('{payments, payment_transitions, webhook_events, api_requests}'::text[]) AS name;
BEGIN;
DROP TRIGGER stripe_lifecycle_guard ON stripe_lifecycle.payments;
SELECT t.code($$SELECT t.ingest(t.event('evt_u1', 'payment_intent.payment_failed', 2000, 'pi_unguarded'))$$);
ROLLBACK;
SELECT t.state(:'unguarded'), count(*) AS transitions FROM stripe_lifecycle.payment_transitions WHERE payment_id = :'unguarded';
\t off
\pset format aligned

-- and with it back all is well
SELECT t.ingest(t.event('evt_u1', 'payment_intent.payment_failed', 2000, 'pi_unguarded'));
SELECT t.state(:'unguarded');
-- Rules; and once they are gone the session works again
CREATE RULE eat AS ON UPDATE TO stripe_lifecycle.payments DO INSTEAD NOTHING;
SELECT t.error($$SELECT t.ingest(t.event('evt_rule', 'payment_intent.requires_action', 2000, 'pi_rule', $$ || quote_literal(:'two') || '))');
DROP RULE eat ON stripe_lifecycle.payments;
CREATE RULE more AS ON UPDATE TO stripe_lifecycle.payments DO ALSO
	UPDATE stripe_lifecycle.payment_transitions SET note = 'mine' WHERE payment_id = OLD.id;
SELECT t.code($$SELECT t.ingest(t.event('evt_rule', 'payment_intent.requires_action', 2000, 'pi_rule', $$ || quote_literal(:'two') || '))');
DROP RULE more ON stripe_lifecycle.payments;
CREATE RULE eat AS ON INSERT TO stripe_lifecycle.payments DO INSTEAD NOTHING;
SELECT t.code($$SELECT t.pay('rule')$$);
DROP RULE eat ON stripe_lifecycle.payments;
SELECT t.code($$SELECT t.pay('rule')$$);
SELECT t.code($$SELECT t.ingest(t.event('evt_rule', 'payment_intent.requires_action', 2000, 'pi_rule', $$ || quote_literal(:'two') || '))');
SELECT t.broken_audits();

\i :end
