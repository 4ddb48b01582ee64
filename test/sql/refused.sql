-- ingest_webhook(): deliveries that are refused.  Each kind has its SQLSTATE,
-- none writes anything, and no message repeats what was sent.
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/setup/begin.sql'
\set end :abs_srcdir '/setup/end.sql'
\i :begin

CREATE FUNCTION t.deliver(body text, header text) RETURNS text LANGUAGE sql AS $$
	SELECT t.error(format('SELECT stripe_lifecycle.ingest_webhook(%L::text, %L)', body, header))
$$;
SELECT t.pay_in('processing', 'one') AS one \gset
SELECT count(*) AS events_before FROM stripe_lifecycle.webhook_events \gset
SELECT t.event('evt_hush', 'payment_intent.succeeded', 2000, 'pi_one', :'one') AS body \gset

\pset format unaligned
\t on
-- the header
SELECT t.deliver(:'body', NULL);
SELECT t.deliver(:'body', '');
SELECT t.deliver(:'body', 'hush');
SELECT t.deliver(:'body', 't=hush,v1=' || repeat('0', 64));
SELECT t.deliver(:'body', 't=' || n || ',t=' || n || ',v1=' || t.sig(convert_to(:'body', 'UTF8'), 'whsec_test_secret', n)) FROM (SELECT extract(epoch FROM now())::bigint::text) AS x (n);
SELECT t.deliver(:'body', 't=1700000000');
SELECT t.deliver(:'body', 't=1700000000,v0=' || repeat('0', 64));
SELECT t.deliver(:'body', 't=1700000000,v1=hush');
SELECT t.deliver(:'body', repeat('hush,', 1000) || t.header(:'body'::text));
-- the signature; it is looked at before the age
SELECT t.deliver(:'body', 't=1700000000,v1=' || repeat('0', 64));
SELECT t.deliver(:'body' || ' ', t.header(:'body'::text));
SELECT t.deliver(:'body', t.header(:'body'::text, 'whsec_hush'));
SELECT t.deliver(:'body', t.header(:'body'::text, 'test_secret'));
-- the age, on both sides
SELECT t.deliver(:'body', t.header(:'body'::text, age => 400));
SELECT left(t.deliver(:'body', t.header(:'body'::text, age => -400)), 5);
-- the body's size is looked at first, for it costs least
SELECT t.deliver(repeat('x', 1048577), NULL);
SELECT t.error($$SELECT t.ingest(repeat('x', 1048577))$$);
SELECT t.error($$SELECT t.ingest(repeat('é', 524288) || 'x')$$);
SELECT t.error($$SELECT t.ingest(repeat('x', 1048576))$$);
SELECT t.deliver(NULL, t.header(:'body'::text));
-- what is signed and still no JSON object
SELECT t.error($$SELECT t.ingest('')$$);
SELECT body, t.code(format('SELECT t.ingest(%L)', body)) AS result
  FROM unnest(ARRAY['} I am not valid JSON; 123][', 'this is not valid JSON', '[]', '"hush"', '1', 'null', 'true', '{', '{}x', '{"a": 1,}', '{a: 1}', E'{"a": "\n"}', '{"a": "\u0000"}', '{"a": "\ud800"}', E'\ufeff{}', '{"a": 1e999999}']) AS body;
SELECT t.code($$SELECT t.ingest((repeat('[', 100000) || repeat(']', 100000)))$$), t.code($$SELECT t.ingest((repeat('{"a":', 100000) || '1' || repeat('}', 100000)))$$);
-- bytes that are no text
CREATE FUNCTION t.deliver_bytes(body bytea) RETURNS text LANGUAGE sql AS $$
	SELECT t.code(format('SELECT stripe_lifecycle.ingest_webhook(%L::bytea, %L)', body, t.header(body)))
$$;
SELECT what, t.deliver_bytes(body) FROM (VALUES ('not UTF-8', '\xff00fe'::bytea), ('not UTF-8 in a string', '\x7b2261223a2022ff227d'), ('surrogate in UTF-8', '\x7b2261223a2022eda080227d'), ('NUL after', '\x7b7d00'), ('NUL before', '\x007b7d'),
	('BOM', '\xefbbbf7b7d'), ('UTF-16', '\xfffe7b007d00'), ('none', '\x'), ('overlong', '\x7b2261223a2022c080227d')) AS x (what, body);

-- what is JSON and still no event.  Each is a good event with one thing wrong.
SELECT t.error($$SELECT t.ingest('{}')$$);
SELECT t.error($$SELECT t.ingest('{"id": "evt_1", "object": "v2.core.event", "type": "v1.billing.meter.error_report_triggered", "livemode": false,
	"created": "2025-10-04T15:13:32.232083866Z", "related_object": {"id": "mtr_1", "type": "billing.meter", "url": "/v1/billing/meters/mtr_1"}}')$$);
CREATE FUNCTION t.wrong(path text, value jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	good jsonb := t.event('evt_wrong', 'payment_intent.succeeded', 2000, 'pi_one');
	bad jsonb := CASE WHEN value IS NULL THEN good #- string_to_array(path, '.') ELSE jsonb_set(good, string_to_array(path, '.'), value) END;
BEGIN
	RETURN substring(t.error(format('SELECT t.ingest(%L)', bad)) FROM '^[^\n]*');
END
$$;
SELECT path, value, t.wrong(path, value) FROM (VALUES
	('object', NULL::jsonb), ('object', '1'), ('object', '"charge"'), ('object', 'null'),
	('id', NULL), ('id', '1'), ('id', '""'), ('id', 'null'), ('id', to_jsonb(repeat('x', 256))),
	('type', NULL), ('type', '{}'), ('type', '""'), ('type', to_jsonb(repeat('x', 256))),
	('created', NULL), ('created', '"2000"'), ('created', '1.5'), ('created', '-1'), ('created', '253402300800'), ('created', '99999999999999999999'), ('created', '"2025-10-04T15:13:32Z"'),
	('livemode', NULL), ('livemode', '"false"'), ('livemode', '0'), ('livemode', 'null'),
	('data', NULL), ('data', '[]'), ('data', '"x"'), ('data.object', NULL), ('data.object', '"pi_one"'), ('data.object', '[]'),
	('data.object.id', NULL), ('data.object.id', '""'), ('data.object.id', '7'),
	('data.object.object', NULL), ('data.object.object', '"charge"'), ('data.object.object', '1'),
	('data.object.status', NULL), ('data.object.status', '1'), ('data.object.status', 'null'),
	('data.object.amount', NULL), ('data.object.amount', '"2000"'), ('data.object.amount', '2000.5'), ('data.object.amount', '10000000000000000000'), ('data.object.amount', 'null'),
	('data.object.currency', NULL), ('data.object.currency', '1')) AS x (path, value);
\t off
\pset format aligned
-- what may be missing or odd without harm
SELECT t.ingest(t.event('evt_odd_' || n, 'payment_intent.processing', 2000 + n, 'pi_one', NULL, object, event)) AS outcome, object, event
  FROM (VALUES (1, '{}'::jsonb, '{"api_version": null}'::jsonb), (2, '{}', '{"account": 7, "request": null}'), (3, '{"latest_charge": 5, "amount_received": "x", "amount_capturable": null}', '{}'),
	(4, '{"metadata": null}', '{}'), (5, '{"metadata": {"stripe_lifecycle_payment_id": 5}}', '{}'), (6, '{"metadata": {"stripe_lifecycle_payment_id": "not a uuid"}}', '{}'),
	(7, '{"metadata": ["x"]}', '{}'), (8, '{"last_payment_error": "x"}', '{}'), (9, '{"status": "something_new"}', '{}'), (10, '{}', '{"pending_webhooks": "x", "new_field": {"deep": [1]}}'),
	(11, '{}', '{"request": "req_old_style"}'), (12, '{"currency": "usd", "charges": {"object": "list", "data": []}}', '{"created": 2012}')) AS x (n, object, event);

-- Isolation and read-only transactions
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT t.error($$SELECT t.ingest(t.event('evt_iso', 'payment_intent.succeeded', 3000, 'pi_one'))$$);
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT t.code($$SELECT t.ingest(t.event('evt_iso', 'payment_intent.succeeded', 3000, 'pi_one'))$$);
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT t.code($$SELECT t.ingest(t.event('evt_iso', 'charge.succeeded', 3000, 'ch_one'))$$) AS of_a_type_without_use;
COMMIT;
BEGIN READ ONLY;
SELECT t.code($$SELECT t.ingest(t.event('evt_iso', 'payment_intent.succeeded', 3000, 'pi_one'))$$);
COMMIT;

-- the payment is where it was, and none of the refused is stored
SELECT t.state(:'one'), count(*) - :events_before AS stored, count(*) FILTER (WHERE event_id NOT LIKE 'evt\_odd\_%') AS not_odd FROM stripe_lifecycle.webhook_events;

-- Secrets: any of the file's, with its label
SELECT t.ingest(t.event('evt_first', 'payment_intent.processing', 4000, 'pi_one'));
SELECT stripe_lifecycle.ingest_webhook(body, t.header(body, 'whsec_other_secret')) FROM t.event('evt_second', 'payment_intent.processing', 4001, 'pi_one') AS body;
SELECT stripe_lifecycle.ingest_webhook(convert_to(body, 'UTF8'), t.header(body, 'whsec_other_secret') || ',v1=' || repeat('0', 64)) FROM t.event('evt_bytes', 'payment_intent.processing', 4002, 'pi_one') AS body;
SELECT event_id, secret_label, source FROM stripe_lifecycle.webhook_events WHERE event_id IN ('evt_first', 'evt_second', 'evt_bytes') ORDER BY created;

-- Secret files that can't be used: the caller hears no path and no reason.
\pset format unaligned
\t on
CREATE FUNCTION t.spoil(command text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'cat >/dev/null; f=' || current_setting('stripe_lifecycle.webhook_secret_file') || '; ' || command);
END
$$;
-- A session reads the file again after a reload: a secret that was taken out is
-- good until then, and not a moment longer.
SELECT t.spoil('echo whsec_new_secret > $f') \g /dev/null
SELECT t.code($$SELECT t.ingest('{}')$$);
DO $$ BEGIN PERFORM pg_reload_conf(); END $$;
\o /dev/null
SELECT $$SELECT pg_sleep(0.01) WHERE t.code('SELECT t.ingest(''{}'')') = 'SL026'$$ FROM generate_series(1, 500) \gexec
\o
SELECT t.code($$SELECT t.ingest('{}')$$) AS old, t.code($$SELECT stripe_lifecycle.ingest_webhook('{}'::text, t.header('{}'::text, 'whsec_new_secret'))$$) AS new;
-- a new session reads it in any case
CREATE TABLE t.secret_file AS SELECT * FROM secret_file;
SELECT t.spoil(': > $f') \g /dev/null
\c -
SET client_min_messages = error;
CREATE TEMP TABLE secret_file AS SELECT * FROM t.secret_file;
SELECT t.error($$SELECT t.ingest('{}')$$);
SELECT t.spoil('printf "# only a comment\n\n" > $f') \g /dev/null
\c -
SELECT t.code($$SELECT t.ingest('{}')$$) AS comment;
SELECT t.spoil('echo sk_test_123 > $f') \g /dev/null
\c -
SELECT t.code($$SELECT t.ingest('{}')$$) AS not_a_signing_secret;
SELECT t.spoil('echo whsec_ > $f') \g /dev/null
\c -
SELECT t.code($$SELECT t.ingest('{}')$$) AS prefix_alone;
SELECT t.spoil('echo whsec_test_secret > $f; chmod 644 $f') \g /dev/null
\c -
SELECT t.code($$SELECT t.ingest('{}')$$) AS readable_by_others;
SELECT t.spoil('chmod 640 $f') \g /dev/null
\c -
SELECT t.code($$SELECT t.ingest('{}')$$) AS readable_by_group;
SELECT t.spoil('chmod 600 $f; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do echo "whsec_$i"; done > $f; echo whsec_test_secret >> $f') \g /dev/null
\c -
SELECT t.code($$SELECT t.ingest('{}')$$) AS seventeen;
SELECT t.spoil('rm $f') \g /dev/null
\c -
SELECT t.code($$SELECT t.ingest('{}')$$) AS gone;
SELECT t.spoil('umask 077; mkdir $f') \g /dev/null
\c -
SELECT t.code($$SELECT t.ingest('{}')$$) AS folder;
SELECT t.spoil('rmdir $f; umask 077; printf "whsec_a\r\nlabel\twhsec_test_secret\r\n" > $f') \g /dev/null
\c -
SET client_min_messages = error;
CREATE TEMP TABLE secret_file AS SELECT * FROM t.secret_file;
SELECT t.code($$SELECT t.ingest('{}')$$) AS well_again;
SELECT t.ingest(t.event('evt_label', 'payment_intent.processing', 4003, 'pi_one'));
SELECT secret_label FROM stripe_lifecycle.webhook_events WHERE event_id = 'evt_label';
\t off
\pset format aligned

SELECT t.broken_audits();
\i :end
