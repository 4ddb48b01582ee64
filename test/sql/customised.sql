-- Tables that somebody has made something of.  The library writes rows by the
-- access methods where it can; whatever others hang on the tables must have the
-- effect that it has with plain SQL, and must not be seen by halves.
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/setup/begin.sql'
\set end :abs_srcdir '/setup/end.sql'
\i :begin

-- A payment is created, gets its PaymentIntent and moves, a second event is
-- recorded, an unknown type ignored, one parked, the first delivered again:
-- every kind of write there is.  What came of it, in one line.
CREATE FUNCTION t.life(key text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	payment uuid;
	outcomes text[];
BEGIN
	payment := t.pay(key);
	IF t.pay(key) <> payment THEN
		RETURN 'another payment';
	END IF;
	outcomes := ARRAY[
		t.ingest(t.event('evt_1_' || key, 'payment_intent.processing', 10, 'pi_' || key, payment)),
		t.ingest(t.event('evt_2_' || key, 'payment_intent.succeeded', 20, 'pi_' || key)),
		t.ingest(t.event('evt_3_' || key, 'payment_intent.processing', 15, 'pi_' || key)),
		t.ingest(t.event('evt_1_' || key, 'payment_intent.processing', 10, 'pi_' || key)),
		t.ingest(t.event('evt_4_' || key, 'charge.updated', 30, 'pi_' || key)),
		t.ingest(t.event('evt_4_' || key, 'charge.updated', 30, 'pi_' || key)),
		t.ingest(t.event('evt_5_' || key, 'payment_intent.processing', 10, 'pi_other_' || key))];
	RETURN array_to_string(outcomes, ', ') || '; ' || t.state(payment) || ', '
		|| (SELECT count(*) FROM stripe_lifecycle.payment_transitions WHERE payment_id = payment) || ' audit rows, '
		|| (SELECT count(*) FROM stripe_lifecycle.api_requests WHERE payment_id = payment) || ' request, updated '
		|| (SELECT CASE WHEN p.updated_at > p.created_at THEN 'later' ELSE 'never' END
			  FROM stripe_lifecycle.payments p WHERE p.id = payment);
END
$$;
-- the same, or the error
CREATE FUNCTION t.lived(key text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	result := t.life(key);
	RETURN CASE WHEN result = (SELECT plain FROM t.plain) THEN 'as ever' ELSE result END;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ': ' || t.mask(SQLERRM);
END
$$;
CREATE TABLE t.plain (plain text);
INSERT INTO t.plain SELECT t.life('plain');
TABLE t.plain;
SELECT t.lived('plain-2');

-- Row triggers AFTER: all of them fire, once for each row, with what was there
-- before and what is there now, in the order of their names, in the same
-- transaction.  A column counts as updated whether its value changes or not.
CREATE TABLE t.log (n int GENERATED ALWAYS AS IDENTITY, entry text);
CREATE FUNCTION t.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO t.log (entry) VALUES (concat_ws(' ', TG_NAME, TG_WHEN, TG_LEVEL, TG_OP, TG_TABLE_NAME,
		CASE WHEN TG_TABLE_NAME = 'payments' THEN
			concat_ws(' -> ', to_jsonb(OLD) ->> 'state', to_jsonb(NEW) ->> 'state') END));
	RETURN NEW;
END
$$;
CREATE FUNCTION t.logged() RETURNS SETOF text LANGUAGE sql AS $$
	WITH gone AS (DELETE FROM t.log RETURNING n, entry) SELECT entry FROM gone ORDER BY n
$$;
CREATE TRIGGER a AFTER INSERT OR UPDATE ON stripe_lifecycle.payments FOR EACH ROW EXECUTE FUNCTION t.note();
CREATE TRIGGER z AFTER UPDATE OF state ON stripe_lifecycle.payments FOR EACH ROW EXECUTE FUNCTION t.note();
CREATE TRIGGER zz AFTER UPDATE OF id ON stripe_lifecycle.payments FOR EACH ROW EXECUTE FUNCTION t.note();
CREATE TRIGGER paid AFTER UPDATE ON stripe_lifecycle.payments FOR EACH ROW
	WHEN (NEW.state = 'succeeded' AND OLD.state <> 'succeeded') EXECUTE FUNCTION t.note();
CREATE TRIGGER a AFTER INSERT ON stripe_lifecycle.payment_transitions FOR EACH ROW EXECUTE FUNCTION t.note();
CREATE TRIGGER a AFTER INSERT OR UPDATE ON stripe_lifecycle.webhook_events FOR EACH ROW EXECUTE FUNCTION t.note();
CREATE TRIGGER a AFTER INSERT OR UPDATE ON stripe_lifecycle.api_requests FOR EACH ROW EXECUTE FUNCTION t.note();
SELECT t.lived('after');
SELECT * FROM t.logged();
-- deferred: at commit, and not before
CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON stripe_lifecycle.payments DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW WHEN (NEW.state = 'succeeded') EXECUTE FUNCTION t.note();
BEGIN;
SELECT t.lived('deferred');
SELECT count(*) FILTER (WHERE entry LIKE 'late%') AS late, count(*) > 0 AS others FROM t.log;
COMMIT;
SELECT count(*) FILTER (WHERE entry LIKE 'late%') AS late FROM t.log;
TRUNCATE t.log;
-- one that raises takes all of it back, at once or at commit
CREATE FUNCTION t.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no %', TG_NAME; END $$;
CREATE TRIGGER refuse AFTER UPDATE ON stripe_lifecycle.payments FOR EACH ROW
	WHEN (NEW.state = 'succeeded') EXECUTE FUNCTION t.refuse();
SELECT t.pay_in('processing', 'refuse') AS refuse \gset
SELECT t.error($$SELECT t.ingest(t.event('evt_refuse', 'payment_intent.succeeded', 2000, 'pi_refuse'))$$);
SELECT t.state(:'refuse'), count(*) FROM stripe_lifecycle.webhook_events WHERE event_id = 'evt_refuse';
DROP TRIGGER refuse ON stripe_lifecycle.payments;
-- and a session goes on after it as if nothing had been
SELECT t.ingest(t.event('evt_refuse', 'payment_intent.succeeded', 2000, 'pi_refuse')), t.state(:'refuse');
DROP TRIGGER a ON stripe_lifecycle.payments;
DROP TRIGGER z ON stripe_lifecycle.payments;
DROP TRIGGER zz ON stripe_lifecycle.payments;
DROP TRIGGER paid ON stripe_lifecycle.payments;
DROP TRIGGER late ON stripe_lifecycle.payments;
DROP TRIGGER a ON stripe_lifecycle.payment_transitions;
DROP TRIGGER a ON stripe_lifecycle.webhook_events;
DROP TRIGGER a ON stripe_lifecycle.api_requests;

-- A trigger that writes to the same tables by the same functions
CREATE FUNCTION t.follow_up() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM t.life(NEW.idempotency_key || '-again');
	RETURN NEW;
END
$$;
CREATE TRIGGER follow_up AFTER UPDATE ON stripe_lifecycle.payments FOR EACH ROW
	WHEN (NEW.state = 'succeeded' AND OLD.state <> 'succeeded' AND NEW.idempotency_key !~ 'again-again')
	EXECUTE FUNCTION t.follow_up();
SELECT t.lived('nested');
SELECT idempotency_key, state, transitions FROM stripe_lifecycle.payments WHERE idempotency_key LIKE 'nested%' ORDER BY 1;
DROP TRIGGER follow_up ON stripe_lifecycle.payments;

-- Triggers of the other kinds
TRUNCATE t.log RESTART IDENTITY;
CREATE TRIGGER b BEFORE INSERT OR UPDATE ON stripe_lifecycle.payments FOR EACH ROW EXECUTE FUNCTION t.note();
CREATE TRIGGER b BEFORE INSERT ON stripe_lifecycle.webhook_events FOR EACH ROW EXECUTE FUNCTION t.note();
SELECT t.lived('before');
SELECT * FROM t.logged();
DROP TRIGGER b ON stripe_lifecycle.payments;
DROP TRIGGER b ON stripe_lifecycle.webhook_events;
CREATE TRIGGER s BEFORE UPDATE ON stripe_lifecycle.payments EXECUTE FUNCTION t.note();
CREATE TRIGGER t AFTER INSERT OR UPDATE ON stripe_lifecycle.payments EXECUTE FUNCTION t.note();
SELECT t.lived('statement');
SELECT * FROM t.logged();
DROP TRIGGER s ON stripe_lifecycle.payments;
DROP TRIGGER t ON stripe_lifecycle.payments;
CREATE FUNCTION t.count_rows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO t.log (entry) SELECT 'table with ' || state FROM rows;
	RETURN NULL;
END
$$;
CREATE TRIGGER rows AFTER UPDATE ON stripe_lifecycle.payments REFERENCING NEW TABLE AS rows
	FOR EACH STATEMENT EXECUTE FUNCTION t.count_rows();
SELECT t.lived('transition table');
SELECT * FROM t.logged();
DROP TRIGGER rows ON stripe_lifecycle.payments;

-- Constraints that others add bind the library as well, from the next row on
ALTER TABLE stripe_lifecycle.payments ADD CONSTRAINT thrifty CHECK (amount_received < 2000) NOT VALID;
SELECT t.lived('check');
ALTER TABLE stripe_lifecycle.payments DROP CONSTRAINT thrifty;
SELECT t.lived('check');
CREATE FUNCTION t.is_fine(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
ALTER TABLE stripe_lifecycle.webhook_events ADD CONSTRAINT fine CHECK (t.is_fine(event_id));
SELECT t.lived('function');
CREATE OR REPLACE FUNCTION t.is_fine(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 !~ ''5_function''';
SELECT t.lived('function-2'), t.lived('function');
ALTER TABLE stripe_lifecycle.webhook_events DROP CONSTRAINT fine;
ALTER TABLE stripe_lifecycle.payments ADD CONSTRAINT payments_amount_key UNIQUE (amount, description);
SELECT t.lived('unique');
SELECT stripe_lifecycle.create_payment(77, 'usd', 'twin-1', 'same') IS NOT NULL AS made;
SELECT t.code($$SELECT stripe_lifecycle.create_payment(77, 'usd', 'twin-2', 'same')$$);
ALTER TABLE stripe_lifecycle.payments DROP CONSTRAINT payments_amount_key;
ALTER TABLE stripe_lifecycle.payments ADD CONSTRAINT payments_late_key UNIQUE (latest_charge) DEFERRABLE INITIALLY DEFERRED;
SELECT t.lived('deferrable');
ALTER TABLE stripe_lifecycle.payments DROP CONSTRAINT payments_late_key;
CREATE TABLE t.customers (id text PRIMARY KEY);
ALTER TABLE stripe_lifecycle.payments ADD CONSTRAINT known FOREIGN KEY (customer) REFERENCES t.customers;
SELECT t.lived('foreign');
SELECT t.error($$SELECT stripe_lifecycle.create_payment(2000, 'usd', 'stranger', customer => 'cus_1')$$);
ALTER TABLE stripe_lifecycle.payments DROP CONSTRAINT known;
CREATE TABLE t.orders (payment uuid REFERENCES stripe_lifecycle.payments);
INSERT INTO t.orders SELECT id FROM stripe_lifecycle.payments WHERE idempotency_key = 'plain';
SELECT t.lived('referenced');
DROP TABLE t.orders, t.customers;

-- Indexes of every kind know the rows
CREATE INDEX by_hash ON stripe_lifecycle.payments USING hash (idempotency_key);
CREATE INDEX by_expression ON stripe_lifecycle.payments (upper(idempotency_key));
CREATE INDEX by_part ON stripe_lifecycle.payments (amount) WHERE state = 'succeeded';
SELECT t.lived('index'), t.lived('index-2');
CREATE INDEX by_gin ON stripe_lifecycle.webhook_events USING gin (payload);
CREATE INDEX by_brin ON stripe_lifecycle.webhook_events USING brin (received_at);
SELECT t.lived('index-3');
SET enable_seqscan = off;
SELECT count(*) FROM stripe_lifecycle.payments WHERE upper(idempotency_key) = 'INDEX';
SELECT count(*) FROM stripe_lifecycle.payments WHERE idempotency_key IN ('index', 'index-2', 'index-3');
SELECT count(*) FROM stripe_lifecycle.payments WHERE amount = 2000 AND state = 'succeeded' AND idempotency_key LIKE 'index%';
SELECT count(*) FROM stripe_lifecycle.webhook_events WHERE payload @> '{"data": {"object": {"status": "processing"}}}' AND payment_intent_id = 'pi_index-3';
RESET enable_seqscan;
DROP INDEX stripe_lifecycle.by_hash, stripe_lifecycle.by_expression, stripe_lifecycle.by_part,
	stripe_lifecycle.by_gin, stripe_lifecycle.by_brin;
-- and without the ones it knows the library goes on
BEGIN;
ALTER TABLE stripe_lifecycle.payments DROP CONSTRAINT payments_payment_intent_id_key;
DROP INDEX stripe_lifecycle.api_requests_payment;
SELECT t.lived('fewer');
SELECT state, request_status FROM stripe_lifecycle.payment_status(t.pay('fewer'));
ROLLBACK;
SELECT t.lived('fewer');

-- Columns that others add
ALTER TABLE stripe_lifecycle.payments ADD COLUMN note text DEFAULT 'mine',
	ADD COLUMN double bigint GENERATED ALWAYS AS (amount * 2) STORED;
SELECT t.lived('columns');
SELECT note, double FROM stripe_lifecycle.payments WHERE idempotency_key = 'columns';
UPDATE stripe_lifecycle.payments SET note = 'kept' WHERE idempotency_key = 'columns';
SELECT t.ingest(t.event('evt_columns', 'payment_intent.succeeded', 5000, 'pi_columns'));
SELECT note, double FROM stripe_lifecycle.payments WHERE idempotency_key = 'columns';
ALTER TABLE stripe_lifecycle.payments DROP COLUMN note, DROP COLUMN double;
SELECT t.lived('dropped columns');

-- Row security, rules and children
CREATE TABLE t.child () INHERITS (stripe_lifecycle.webhook_events);
SELECT t.lived('child');
DROP TABLE t.child;
ALTER TABLE stripe_lifecycle.payments ENABLE ROW LEVEL SECURITY;
SELECT t.lived('row security');
ALTER TABLE stripe_lifecycle.payments DISABLE ROW LEVEL SECURITY;
CREATE RULE more AS ON INSERT TO stripe_lifecycle.webhook_events DO ALSO INSERT INTO t.log (entry) VALUES ('rule ' || NEW.event_id);
SELECT t.lived('rule');
SELECT count(*) FROM t.logged() AS entry WHERE entry LIKE 'rule evt%rule';
DROP RULE more ON stripe_lifecycle.webhook_events;

-- The guard is missed whichever way a row is written
ALTER TABLE stripe_lifecycle.payment_transitions DISABLE TRIGGER stripe_lifecycle_guard;
SELECT t.lived('unguarded');
ALTER TABLE stripe_lifecycle.payment_transitions ENABLE ALWAYS TRIGGER stripe_lifecycle_guard;
ALTER TABLE stripe_lifecycle.payments ENABLE REPLICA TRIGGER stripe_lifecycle_guard;
SELECT t.lived('unguarded');
ALTER TABLE stripe_lifecycle.payments ENABLE ALWAYS TRIGGER stripe_lifecycle_guard;
SET session_replication_role = replica;
SELECT t.lived('replica');
RESET session_replication_role;

-- A published table without an identity can't be updated by anybody
CREATE PUBLICATION regress_sl FOR TABLE stripe_lifecycle.payments;
ALTER TABLE stripe_lifecycle.payments REPLICA IDENTITY NOTHING;
SELECT t.lived('published');
ALTER TABLE stripe_lifecycle.payments REPLICA IDENTITY DEFAULT;
SELECT t.lived('published');
DROP PUBLICATION regress_sl;

-- Subtransactions that are rolled back leave nothing, in the tables or in the
-- session
DO $$
BEGIN
	FOR i IN 1 .. 50 LOOP
		BEGIN
			PERFORM t.life('rolled back');
			RAISE EXCEPTION 'back';
		EXCEPTION WHEN raise_exception THEN
			NULL;
		END;
	END LOOP;
END
$$;
SELECT count(*) FROM stripe_lifecycle.payments WHERE idempotency_key = 'rolled back';
SELECT t.lived('rolled back');
-- many events in one transaction
SELECT count(*), min(outcome) AS first, max(outcome) AS last FROM (
	SELECT t.ingest(t.event('evt_many_' || i, 'payment_intent.processing', 10, 'pi_many_' || i, t.pay('many-' || i)))
	  FROM generate_series(1, 300) AS i) AS x (outcome);

-- a transaction with a fixed snapshot
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT t.pay('fixed') = t.pay('fixed') AS same;
SELECT state, request_status FROM stripe_lifecycle.payment_status(t.pay('fixed'));
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT t.pay('fixed') = t.pay('fixed') AS same;
COMMIT;
BEGIN READ ONLY;
SELECT state, request_status FROM stripe_lifecycle.payment_status((SELECT id FROM stripe_lifecycle.payments WHERE idempotency_key = 'fixed'));
SELECT t.code($$SELECT t.pay('read only')$$);
COMMIT;

-- the extension dropped and made again in the same session
SELECT t.broken_audits();
DROP EXTENSION stripe_lifecycle CASCADE;
CREATE EXTENSION stripe_lifecycle;
SELECT t.lived('anew');

-- one payment locked and not written, as for its cancellation, and then another written; also if the lock was
-- taken back with its savepoint
SET client_min_messages = error;
SELECT t.pay('locked') AS locked \gset
BEGIN;
SELECT stripe_lifecycle.cancel_payment(:'locked') IS NOT NULL AS cancels;
INSERT INTO stripe_lifecycle.payments (id, idempotency_key, amount, currency) VALUES (gen_random_uuid(), 'beside', 400, 'usd');
SAVEPOINT s;
SELECT stripe_lifecycle.cancel_payment(:'locked') IS NOT NULL AS cancels;
ROLLBACK TO s;
INSERT INTO stripe_lifecycle.payments (id, idempotency_key, amount, currency) VALUES (gen_random_uuid(), 'and another', 500, 'usd');
COMMIT;
SELECT idempotency_key, amount, transitions, audit_head IS NOT NULL AS has_head FROM stripe_lifecycle.payments
 WHERE idempotency_key IN ('locked', 'beside', 'and another') ORDER BY idempotency_key COLLATE "C";
SELECT * FROM stripe_lifecycle.verify_audit();
\i :end
