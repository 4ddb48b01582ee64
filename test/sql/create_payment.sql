-- create_payment(): what it takes, what it refuses, what it queues
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/setup/begin.sql'
\set end :abs_srcdir '/setup/end.sql'
\i :begin


-- t.tried('currency => ''xyz''') calls it with these arguments and else good ones
CREATE FUNCTION t.call(arguments text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	given text := arguments;
BEGIN
	IF given !~ '\mamount =>' THEN given := given || ', amount => 2000'; END IF;
	IF given !~ '\mcurrency =>' THEN given := given || ', currency => ''usd'''; END IF;
	IF given !~ '\midempotency_key =>' THEN given := given || ', idempotency_key => gen_random_uuid()::text'; END IF;
	RETURN 'SELECT stripe_lifecycle.create_payment(' || ltrim(given, ', ') || ')';
END
$$;
CREATE FUNCTION t.tried(arguments text) RETURNS text LANGUAGE sql AS $$ SELECT t.code(t.call(arguments)) $$;

-- Amounts: each currency's own rules
SELECT currency, amount, t.tried(format('currency => %L, amount => %s', currency, amount)) AS result
  FROM (VALUES
	('usd', 1), ('usd', 0), ('usd', -1), ('usd', 99999999), ('usd', 100000000), ('usd', 9223372036854775807), ('usd', -9223372036854775808),
	('eur', 99999999), ('eur', 100000000),
	('jpy', 1), ('jpy', 9999999999999), ('jpy', 10000000000000), ('krw', 99999999), ('krw', 100000000),
	('idr', 999999999999), ('idr', 1000000000000), ('inr', 999999999), ('inr', 1000000000),
	('huf', 1), ('huf', 9999999999999), ('huf', 10000000000000), ('cop', 9999999999999), ('cop', 10000000000000),
	('lbp', 99999999999999), ('lbp', 100000000000000),
	('isk', 100), ('isk', 50), ('isk', 101), ('isk', 99999900), ('isk', 99999999),
	('ugx', 500), ('ugx', 5), ('ugx', 550),
	('kwd', 5120), ('kwd', 5124), ('kwd', 10), ('bhd', 1), ('jod', 11), ('omr', 20), ('tnd', 25),
	('twd', 1)) AS x (currency, amount);
-- Currencies: any letter case, active codes of countries only
SELECT c, t.tried(format('currency => %L', c)) AS result
  FROM unnest('{USD, Usd, uSD, eur, EUR, xyz, us, usdd, "", " usd", "usd ", "u d", "u$d", xau, xag, xdr, xts, xxx, btc, dem, "ÜSD", "usd,eur"}'::text[]) AS c;
SELECT currency, count(*) FROM stripe_lifecycle.payments WHERE currency IN ('usd', 'eur') GROUP BY 1 ORDER BY 1;

-- Keys: 1 to 255 characters, not bytes
SELECT what, t.tried(format('idempotency_key => %L', key)) AS result
  FROM (VALUES ('empty', ''), ('1', 'k'), ('255', repeat('k', 255)), ('256', repeat('k', 256)),
			   ('255 of two bytes', repeat('é', 255)), ('256 of two bytes', repeat('é', 256)),
			   ('255 of four bytes', repeat('🂡', 255)), ('blank', ' '), ('newline', E'a\nb'),
			   ('quote', '''; --'), ('percent', '%s%n')) AS x (what, key);
SELECT max(length(idempotency_key)), max(octet_length(idempotency_key)) FROM stripe_lifecycle.payments;

-- Ids of Stripe's, e-mail, enumerations
SELECT arguments, t.tried(arguments) AS result FROM unnest(ARRAY[
	$$customer => 'cus_9s6XKzkNRiz8i3'$$, $$customer => ''$$, $$customer => 'cus_'$$, $$customer => 'acct_1'$$,
	$$customer => 'CUS_1'$$, $$customer => 'cus_1 '$$, $$customer => 'cus_1&amount=1'$$, $$customer => E'cus_1\nX-Evil: 1'$$, $$customer => 'cus_é'$$,
	$$customer => 'cus_' || repeat('1', 251)$$, $$customer => 'cus_' || repeat('1', 252)$$,
	$$stripe_account => 'acct_1032D82eZvKYlo2C'$$, $$stripe_account => 'acct_'$$, $$stripe_account => 'acct'$$, $$stripe_account => ''$$,
	$$stripe_account => E'acct_1\r\nX-Evil: 1'$$, $$stripe_account => 'cus_1'$$,
	$$receipt_email => 'jenny@example.com'$$, $$receipt_email => 'jenny'$$, $$receipt_email => '@example.com'$$, $$receipt_email => 'jenny@'$$, $$receipt_email => ''$$,
	$$description => ''$$, $$description => repeat('x', 10000)$$,
	$$capture_method => 'automatic'$$, $$capture_method => 'automatic_async'$$, $$capture_method => 'manual'$$, $$capture_method => 'Manual'$$, $$capture_method => ''$$,
	$$decline_policy => 'final'$$, $$decline_policy => 'retry'$$, $$decline_policy => 'never'$$, $$decline_policy => ''$$]) AS arguments;

-- Metadata: Stripe's limits, in characters
CREATE FUNCTION t.many(n integer) RETURNS jsonb LANGUAGE sql AS $$ SELECT jsonb_object_agg('k' || i, 'v') FROM generate_series(1, n) AS i $$;
SELECT what, t.tried(format('metadata => %L', m)) AS result
  FROM (VALUES
	('none', '{}'::jsonb), ('49 keys', t.many(49)), ('50 keys', t.many(50)), ('51 keys', t.many(51)),
	('key of 40', jsonb_build_object(repeat('k', 40), '')), ('key of 41', jsonb_build_object(repeat('k', 41), '')),
	('key of 40 two-byte characters', jsonb_build_object(repeat('é', 40), '')), ('key of 41 such', jsonb_build_object(repeat('é', 41), '')),
	('empty key', '{"": "x"}'), ('value of 500', jsonb_build_object('k', repeat('v', 500))), ('value of 501', jsonb_build_object('k', repeat('v', 501))),
	('value of 500 two-byte characters', jsonb_build_object('k', repeat('é', 500))), ('empty value', '{"k": ""}'),
	('number', '{"k": 1}'), ('boolean', '{"k": true}'), ('null', '{"k": null}'), ('object', '{"k": {}}'), ('array', '{"k": []}'),
	('nested object', '{"k": {"a": "b"}}'), ('nested array', '{"k": ["a"]}'),
	('our own key', '{"stripe_lifecycle_payment_id": "x"}'), ('our own key in capitals', '{"STRIPE_LIFECYCLE_PAYMENT_ID": "x"}'),
	('brackets', '{"a[b]": "x"}'), ('one bracket', '{"a]": "x"}'),
	('no object: array', '["a"]'), ('no object: string', '"a"'), ('no object: number', '1'), ('no object: null', 'null')) AS x (what, m);

-- Params: no key twice, no raw card, no keys that Stripe would take apart
SELECT p, t.tried(format('params => %L', p)) AS result FROM unnest(ARRAY[
	'{}', '{"confirm": true, "payment_method": "pm_card_visa", "off_session": true}', '{"payment_method_types": ["card", "link"]}',
	'{"automatic_payment_methods": {"enabled": true, "allow_redirects": "never"}}', '{"x": null}', '{"x": {}}', '{"x": []}', '{"x": [{}]}',
	'[]', '"a"', '1', 'null',
	'{"amount": 1}', '{"currency": "eur"}', '{"description": "x"}', '{"customer": "cus_1"}', '{"receipt_email": "a@b"}', '{"capture_method": "manual"}',
	'{"metadata": {"stripe_lifecycle_payment_id": "x"}}', '{"amount": null}',
	'{"payment_method_data": {"type": "card"}}', '{"payment_method_data": {"type": "card", "card": {"token": "tok_visa"}}}',
	'{"payment_method_data": {"type": "card", "card": {"number": "4242424242424242", "cvc": "123"}}}',
	'{"payment_method_data": {"card": ["4242424242424242"]}}', '{"card": {"number": "4242424242424242"}}', '{"a": {"b": [{"card": {"number": "4"}}]}}',
	'{"source": {"object": "card", "number": "4242424242424242"}}', '{"source": "src_1"}', '{"payment_method_options": {"card": {"request_three_d_secure": "any"}}}',
	'{"transfer_data": {"destination": "acct_1", "amount": 5}}',
	'{"payment_method_data[card][number]": "4242424242424242"}', '{"payment_method_data": {"card][number": "4242424242424242"}}',
	'{"source[number]": "4242424242424242"}', '{"card[number]": "4242424242424242"}', '{"amount[]": 1}',
	'{"metadata[stripe_lifecycle_payment_id]": "another"}', '{"x]": 1}', '{"": 1}']::jsonb[]) AS p;
-- 16 levels are taken, 17 are not; a thousand don't hurt
CREATE FUNCTION t.deep(n integer) RETURNS jsonb LANGUAGE sql AS $$ SELECT (repeat('{"a": ', n) || '1' || repeat('}', n))::jsonb $$;
SELECT n, t.tried(format('params => t.deep(%s)', n)) AS result FROM unnest('{15, 16, 17, 1000}'::int[]) AS n;
SELECT n, t.tried(format('params => (%L || repeat(''['', %s) || 1 || repeat('']'', %2$s) || %L)::jsonb', '{"a": ', n, '}')) AS arrays FROM unnest('{15, 16}'::int[]) AS n;

-- NULLs
SELECT a, t.tried(a || ' => NULL') AS result FROM unnest('{amount, currency, idempotency_key, description, customer, receipt_email,
	capture_method, decline_policy, stripe_account, metadata, params}'::text[]) AS a;

-- How the refusals read; none repeats the value
\pset format unaligned
\t on
SELECT t.error(t.call(a)) FROM unnest(ARRAY['amount => NULL', 'amount => 0', 'amount => 100000000', $$amount => 5124, currency => 'kwd'$$,
	$$currency => 'hush'$$, $$idempotency_key => ''$$, $$customer => 'hush'$$, $$receipt_email => 'hush'$$, $$capture_method => 'hush'$$, $$decline_policy => 'hush'$$,
	$$metadata => '{"hush": 1}'$$, $$metadata => t.many(51)$$, $$metadata => '{"stripe_lifecycle_payment_id": "hush"}'$$, $$metadata => '[]'$$,
	$$params => '{"amount": 1}'$$, $$params => '{"source": {"number": "4242424242424242"}}'$$, $$params => t.deep(17)$$, $$params => '[]'$$]) AS a;
\t off
\pset format aligned

-- The outbox row: exactly these bytes
SELECT stripe_lifecycle.create_payment(2000, 'EUR', 'bytes-1') AS p \gset
SELECT t.mask(body) AS body, method, path, t.mask(idempotency_key) AS key, status, attempts, operation, stripe_account, next_attempt_at <= clock_timestamp() AS due
  FROM stripe_lifecycle.api_requests WHERE payment_id = :'p' \gx
SELECT stripe_lifecycle.create_payment(1099, 'usd', 'bytes-3', E'A & B=C+D%20 é/ü\n"~*"', 'cus_1', 'jenny+tag@example.com', 'manual', 'retry', 'acct_1',
	'{"order_id": "6735", "b c": "d&e=f"}',
	'{"confirm": true, "off_session": false, "n": 12.50, "e": 1e3, "nothing": null, "payment_method_types": ["card", "link"],
	  "shipping": {"name": "Jenny", "address": {"line1": "1 Main St", "city": null}}, "list": [{"a": 1}, {"b": [true, []]}]}') AS p \gset
SELECT replace(t.mask(body), '&', E'\n&') AS body, stripe_account FROM stripe_lifecycle.api_requests WHERE payment_id = :'p' \gx
-- with all of Stripe's 50 metadata keys in use there is no room for ours
SELECT stripe_lifecycle.create_payment(1099, 'usd', 'bytes-4', metadata => t.many(50)) AS p \gset
SELECT body LIKE '%stripe_lifecycle_payment_id%' AS has_ours, length(body) FROM stripe_lifecycle.api_requests WHERE payment_id = :'p';
SELECT stripe_lifecycle.create_payment(1099, 'usd', 'bytes-5', metadata => t.many(49)) AS p \gset
SELECT body LIKE '%&metadata[stripe_lifecycle_payment_id]=' || :'p' AS has_ours FROM stripe_lifecycle.api_requests WHERE payment_id = :'p';

-- The row itself; the id is a version 7 UUID of now, and ids sort by time
SELECT currency, amount, description, customer, receipt_email, capture_method, decline_policy, stripe_account, metadata, params, payment_intent_id, client_secret,
	   livemode, amount_capturable, amount_received, decline_count, transitions, created_at = updated_at AS same_time, finished_at, state
  FROM stripe_lifecycle.payments WHERE idempotency_key = 'bytes-3' \gx
SELECT count(*) FILTER (WHERE substr(id::text, 15, 1) <> '7' OR substr(id::text, 20, 1) !~ '[89ab]') AS not_version_7,
	   count(*) FILTER (WHERE abs(('x' || substr(replace(id::text, '-', ''), 1, 12))::bit(48)::bigint
							  - extract(epoch FROM created_at) * 1000) > 1000) AS off_time,
	   count(DISTINCT id) = count(*) AS unique FROM stripe_lifecycle.payments;
SELECT source, t.mask(payment_id::text) AS payment, from_state, to_state, seq, event_id, role = session_user AS by_me, note
  FROM stripe_lifecycle.payment_transitions JOIN stripe_lifecycle.payments ON id = payment_id WHERE idempotency_key = 'bytes-3';

-- The same key and arguments: the same payment, nothing new
SELECT count(*) AS before FROM stripe_lifecycle.payments \gset
CREATE FUNCTION t.again(arguments text DEFAULT '') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	usual text := $a$amount => 500, currency => 'usd', description => 'd', customer => 'cus_1', receipt_email => 'a@b', capture_method => 'manual',
		decline_policy => 'retry', stripe_account => 'acct_1', metadata => '{"a": "1", "b": "2"}', params => '{"x": 1, "y": [1, 2]}'$a$;
	name text := split_part(arguments, ' => ', 1);
	result text;
BEGIN
	IF arguments <> '' THEN
		usual := regexp_replace(usual, '\m' || name || $r$ => ('[^']*'|[0-9]+)$r$, replace(arguments, '\', '\\'));
	END IF;
	EXECUTE 'SELECT stripe_lifecycle.create_payment(idempotency_key => ''again'', ' || usual || ')' INTO result;
	RETURN CASE WHEN result = (SELECT id::text FROM stripe_lifecycle.payments WHERE idempotency_key = 'again') THEN 'the same' ELSE 'another' END;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END
$$;
SELECT t.again(), t.again(), t.again($$currency => 'USD'$$) AS letter_case, t.again($$metadata => '{"b": "2", "a": "1"}'$$) AS order;
SELECT arguments, t.again(arguments) AS result FROM unnest(ARRAY['amount => 501', $$currency => 'eur'$$, $$description => 'D'$$, 'description => NULL',
	$$customer => 'cus_2'$$, 'customer => NULL', $$receipt_email => 'a@c'$$, 'receipt_email => NULL', $$capture_method => 'automatic'$$, 'capture_method => NULL',
	$$decline_policy => 'final'$$, $$stripe_account => 'acct_2'$$, 'stripe_account => NULL', $$metadata => '{"a": "1"}'$$, 'metadata => NULL',
	$$params => '{"x": 1, "y": [2, 1]}'$$, $$params => '{"x": 1}'$$, 'params => NULL', 'amount => 0', $$currency => 'xyz'$$]) AS arguments;
-- a decline policy that was left to the setting may have changed meanwhile
SET stripe_lifecycle.decline_policy = 'final';
SELECT t.again('decline_policy => NULL');
RESET stripe_lifecycle.decline_policy;
SELECT count(*) - :before AS new_payments, count(*) = (SELECT count(*) FROM stripe_lifecycle.api_requests) AS one_request_each FROM stripe_lifecycle.payments;
\pset format unaligned
\t on
SELECT t.error($$SELECT stripe_lifecycle.create_payment(1, 'usd', 'again')$$);
\t off
\pset format aligned
-- still so when the payment has gone on
SELECT t.ingest(replace(t.event('evt_again', 'payment_intent.succeeded', 1, 'pi_again', id), '2000', '500')) FROM stripe_lifecycle.payments WHERE idempotency_key = 'again';
SELECT t.again(), state FROM stripe_lifecycle.payments WHERE idempotency_key = 'again';

-- The setting decides where the argument does not
SELECT t.pay('policy-1') AS p \gset
SET stripe_lifecycle.decline_policy = 'retry';
SELECT t.pay('policy-2') AS p \gset
SELECT t.pay('policy-3', 'final') AS p \gset
RESET stripe_lifecycle.decline_policy;
SELECT idempotency_key, decline_policy FROM stripe_lifecycle.payments WHERE idempotency_key LIKE 'policy-%' ORDER BY 1;

-- Rolled back, it never was; and its key is free
BEGIN;
SELECT t.pay('undone') IS NOT NULL AS made;
ROLLBACK;
BEGIN;
SAVEPOINT a;
SELECT stripe_lifecycle.create_payment(1, 'eur', 'undone') IS NOT NULL AS made;
ROLLBACK TO a;
SELECT count(*) FROM stripe_lifecycle.payments WHERE idempotency_key = 'undone';
SELECT stripe_lifecycle.create_payment(2, 'gbp', 'undone') IS NOT NULL AS made;
COMMIT;
SELECT amount, currency, transitions, (SELECT count(*) FROM stripe_lifecycle.api_requests WHERE payment_id = p.id) AS requests
  FROM stripe_lifecycle.payments p WHERE idempotency_key = 'undone';
-- nothing of the refused calls was left behind
SELECT (SELECT count(*) FROM stripe_lifecycle.payments) = (SELECT count(*) FROM stripe_lifecycle.api_requests) AS requests,
	   (SELECT count(*) FROM stripe_lifecycle.payments) = (SELECT count(*) FROM stripe_lifecycle.payment_transitions WHERE seq = 1) AS transitions;

-- Not where nothing can be written
BEGIN READ ONLY;
SELECT t.error($$SELECT stripe_lifecycle.create_payment(1, 'usd', 'read-only')$$);
COMMIT;
-- fixed snapshots are fine here
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT t.pay('serializable') = t.pay('serializable') AS same;
COMMIT;

SELECT t.broken_audits();
\i :end
