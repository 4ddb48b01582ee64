\set ECHO none
-- What every test begins with: a fresh extension whose worker is paused, a
-- file with webhook secrets, and helpers in schema t.  Says nothing itself.
-- Ends with test/setup/end.sql.
SET client_min_messages = error;
SET client_encoding = UTF8;
\set SHOW_CONTEXT never

DROP EXTENSION IF EXISTS stripe_lifecycle CASCADE;
DROP SCHEMA IF EXISTS stripe_lifecycle, t CASCADE;
CREATE EXTENSION IF NOT EXISTS pgcrypto;
BEGIN;
CREATE EXTENSION stripe_lifecycle;
DO $$ BEGIN PERFORM stripe_lifecycle.pause_worker('regression tests'); END $$;
COMMIT;
-- ALTER SYSTEM knows the settings of loaded libraries only
LOAD 'stripe_lifecycle';

-- The secrets.  Whatever ALTER SYSTEM had set before comes back in the end.
CREATE TEMP TABLE secret_file (path text, before text);
COPY secret_file (path) FROM PROGRAM
	'umask 077; f=$(mktemp /tmp/stripe_lifecycle_test.XXXXXX) && printf "# two secrets\nwhsec_test_secret\nsecond whsec_other_secret\n" > "$f" && echo "$f"';
UPDATE secret_file SET before = (
	SELECT setting FROM pg_file_settings
	 WHERE name = 'stripe_lifecycle.webhook_secret_file'
	   AND sourcefile LIKE '%postgresql.auto.conf'
	   AND setting NOT LIKE '/tmp/stripe_lifecycle_test.%'
	 ORDER BY seqno DESC LIMIT 1);
SELECT path AS secret_path FROM secret_file \gset
ALTER SYSTEM SET stripe_lifecycle.webhook_secret_file = :'secret_path';
DO $$ BEGIN PERFORM pg_reload_conf(); END $$;
-- A session takes a new configuration in between two commands.
\o /dev/null
SELECT 'SELECT pg_sleep(0.01) FROM secret_file WHERE current_setting(''stripe_lifecycle.webhook_secret_file'') <> path'
  FROM generate_series(1, 500) \gexec
\o

CREATE SCHEMA t;

-- ids differ from run to run
CREATE FUNCTION t.mask(s text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
	SELECT regexp_replace(s, '[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}', '<payment>', 'g')
$$;

-- Run a statement: 'ok', or its SQLSTATE.
CREATE FUNCTION t.code(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;

-- Run a statement that should fail: the whole error, ids masked.
CREATE FUNCTION t.error(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	code text; message text; detail text; hint text; col text; tab text;
BEGIN
	EXECUTE statement;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
		detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT,
		col = COLUMN_NAME, tab = TABLE_NAME;
	RETURN t.mask(code || ': ' || message
		|| coalesce(E'\n  detail: ' || nullif(detail, ''), '')
		|| coalesce(E'\n  hint: ' || nullif(hint, ''), '')
		|| coalesce(E'\n  where: ' || nullif(concat_ws('.', nullif(tab, ''), nullif(col, '')), ''), ''));
END
$$;

-- As Stripe signs: HMAC-SHA256 over time, dot, body; the whole secret is the key.
CREATE FUNCTION t.sig(body bytea, secret text, signed_at text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
	SELECT encode(public.hmac(convert_to(signed_at || '.', 'UTF8') || body,
							  convert_to(secret, 'UTF8'), 'sha256'), 'hex')
$$;
CREATE FUNCTION t.header(body bytea, secret text DEFAULT 'whsec_test_secret', age integer DEFAULT 0)
	RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT 't=' || n || ',v1=' || t.sig(body, secret, n)
	  FROM (SELECT (extract(epoch FROM clock_timestamp())::bigint - age)::text) AS x(n)
$$;
CREATE FUNCTION t.header(body text, secret text DEFAULT 'whsec_test_secret', age integer DEFAULT 0)
	RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT t.header(convert_to(body, 'UTF8'), secret, age)
$$;

-- A signed delivery of any body.
CREATE FUNCTION t.ingest(body text) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT stripe_lifecycle.ingest_webhook(body, t.header(body))
$$;

-- The status that goes with a type, as Stripe sends it.
CREATE FUNCTION t.status(type text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
	SELECT CASE split_part(type, '.', 2)
		WHEN 'requires_action' THEN 'requires_action' WHEN 'partially_funded' THEN 'requires_action'
		WHEN 'processing' THEN 'processing' WHEN 'amount_capturable_updated' THEN 'requires_capture'
		WHEN 'canceled' THEN 'canceled' WHEN 'succeeded' THEN 'succeeded'
		ELSE 'requires_payment_method' END
$$;

-- An event in the shape of Stripe's.  Without a payment it has no metadata.
-- 'object' replaces or adds fields of the PaymentIntent, 'event' of the event.
CREATE FUNCTION t.event(id text, type text, created bigint, intent text,
						payment uuid DEFAULT NULL, object jsonb DEFAULT '{}', event jsonb DEFAULT '{}')
	RETURNS text LANGUAGE sql STABLE AS $$
	SELECT (jsonb_build_object('id', id, 'object', 'event', 'api_version', '2026-10-28.endive',
		'created', created, 'type', type, 'livemode', false, 'pending_webhooks', 1,
		'request', jsonb_build_object('id', 'req_1', 'idempotency_key', 'key_1'),
		'data', jsonb_build_object('object', jsonb_build_object(
			'id', intent, 'object', 'payment_intent', 'amount', 2000, 'currency', 'usd',
			'amount_capturable', CASE WHEN t.status(type) = 'requires_capture' THEN 2000 ELSE 0 END,
			'amount_received', CASE WHEN t.status(type) = 'succeeded' THEN 2000 ELSE 0 END,
			'capture_method', 'automatic', 'client_secret', intent || '_secret_hush',
			'status', t.status(type), 'livemode', false, 'receipt_email', 'jenny@example.com',
			'metadata', CASE WHEN payment IS NULL THEN '{}'::jsonb
				ELSE jsonb_build_object('stripe_lifecycle_payment_id', payment) END,
			'last_payment_error', CASE WHEN type = 'payment_intent.payment_failed' THEN
				'{"type": "card_error", "code": "card_declined", "decline_code": "generic_decline",
				  "message": "Your card was declined.",
				  "payment_method": {"id": "pm_1", "billing_details": {"email": "jenny@example.com"},
									 "card": {"last4": "0002"}}}'::jsonb END)
			|| object)) || event)::text
$$;

CREATE FUNCTION t.pay(key text, policy text DEFAULT NULL) RETURNS uuid LANGUAGE sql VOLATILE AS $$
	SELECT stripe_lifecycle.create_payment(2000, 'usd', key, decline_policy => policy)
$$;

-- A new payment that events have brought to a state; its PaymentIntent is pi_<key>.
CREATE FUNCTION t.pay_in(wanted text, key text, policy text DEFAULT NULL) RETURNS uuid
	LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	id uuid := t.pay(key, policy);
	type text := 'payment_intent.' || CASE wanted WHEN 'failed' THEN 'canceled' ELSE wanted END;
BEGIN
	PERFORM t.ingest(t.event('evt_to_' || key, type, 1000, 'pi_' || key, id));
	RETURN id;
END
$$;

CREATE FUNCTION t.state(payment uuid) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT state::text FROM stripe_lifecycle.payments WHERE id = payment
$$;

-- Payments whose audit trail, replayed, does not give their row; and whatever
-- else verify_audit() finds.
CREATE FUNCTION t.broken_audits() RETURNS bigint LANGUAGE sql STABLE AS $$
	WITH trail AS (
		SELECT payment_id, seq, from_state, to_state,
			   lag(to_state) OVER w AS previous, row_number() OVER w AS n,
			   seq = max(seq) OVER (PARTITION BY payment_id) AS is_last
		  FROM stripe_lifecycle.payment_transitions
		WINDOW w AS (PARTITION BY payment_id ORDER BY seq))
	SELECT count(*) + (SELECT count(*) FROM stripe_lifecycle.verify_audit()) FROM stripe_lifecycle.payments p
	 WHERE p.transitions <> (SELECT count(*) FROM trail WHERE payment_id = p.id)
		OR NOT EXISTS (SELECT FROM trail WHERE payment_id = p.id AND is_last AND to_state = p.state)
		OR EXISTS (SELECT FROM trail tr WHERE payment_id = p.id
					AND (seq <> n OR from_state IS DISTINCT FROM previous
						 OR NOT EXISTS (SELECT FROM stripe_lifecycle.legal_transitions() l
										 WHERE l.from_state IS NOT DISTINCT FROM tr.from_state
										   AND l.to_state = tr.to_state)))
$$;

-- Messages stay off, or a server without a worker would say so each time; a
-- test that is about a warning turns them on.
\set ECHO all
