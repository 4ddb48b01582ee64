-- Card numbers: refused wherever callers write, masked in what Stripe says
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/setup/begin.sql'
\set end :abs_srcdir '/setup/end.sql'
\i :begin

CREATE FUNCTION t.call(args text) RETURNS text LANGUAGE sql AS $$
	SELECT 'SELECT stripe_lifecycle.create_payment('
		|| concat_ws(', ', CASE WHEN args !~ '\mamount =>' THEN 'amount => 2000' END, CASE WHEN args !~ 'currency =>' THEN 'currency => ''usd''' END,
					 CASE WHEN args !~ 'idempotency_key =>' THEN 'idempotency_key => ''k-' || md5(args) || '''' END, nullif(args, '')) || ')'
$$;

-- A plain INSERT into a database that could still be restored into
SELECT t.code($$INSERT INTO stripe_lifecycle.payments (id, idempotency_key, amount, currency, description) VALUES (gen_random_uuid(), 'first', 1, 'usd', '4242424242424242')$$);

-- Every argument that is text or jsonb, by whatever else is wrong with it
SELECT proargnames[i] AS argument, t.code(t.call(format('%s => %L', proargnames[i], CASE proargtypes[i - 1] WHEN 'jsonb'::regtype THEN '{"k": "4242 4242 4242 4242"}' ELSE 'x 4242-4242-4242-4242' END))) AS result
  FROM pg_proc, generate_series(1, pronargs) AS i WHERE oid = 'stripe_lifecycle.create_payment'::regproc AND proargtypes[i - 1] IN ('text'::regtype, 'jsonb'::regtype) ORDER BY i;
\pset format unaligned
\t on
SELECT t.error(t.call(a)) FROM unnest(ARRAY[$$description => 'card 4242424242424242'$$, $$idempotency_key => '4111111111111111'$$,
	$$metadata => '{"note": "378282246310005"}'$$, $$metadata => '{"378282246310005": "note"}'$$, $$params => '{"a": [{"b": 4242424242424242}]}'$$]) AS a;
\t off
\pset format aligned

-- In jsonb: strings, numbers and keys at any depth, however they are written
SELECT p, t.code(t.call(format('params => %L', p))) AS result FROM unnest(ARRAY[
	'{"a": 4242424242424242}', '{"a": -4242424242424242}', '{"a": 4.242424242424242e15}', '{"a": 4242424242424242.00}', '{"a": 42424242424242420e-1}',
	'{"a": "4242\u00a04242\u20114242 4242"}', '{"a": "\uff14242424242424242"}', '{"a": "\u0034242424242424242"}', '{"a": "x\n4242424242424242"}',
	'{"a": {"b": {"c": {"d": ["x", {"4242424242424242": null}]}}}}', '{"a": [[[["4242424242424242"]]]]}', '{"4242424242424242": {}}',
	'"4242424242424242"', '4242424242424242', '["4242424242424242"]',
	'{"a": "4242 4242 4242 4242 12/27 123"}', '{"a": "4222222222222"}', '{"a": "5555555555554444"}', '{"a": "378282246310005"}', '{"a": "6011111111111117"}', '{"a": "30569309025904"}',
	'{"a": "3566002020360505"}', '{"a": "6205500000000000004"}', '{"a": "6759649826438453"}', '{"a": "2223003122003222"}']) AS p;
SELECT t.code(t.call(format('params => (%L || repeat(''['', 1000) || %L || repeat('']'', 1000) || %L)::jsonb', '{"a": ', '"4242424242424242"', '}'))) AS deeper_than_may_be;

-- The places where Stripe takes a raw card, with or without its number
SELECT p, t.code(t.call(format('params => %L', p))) AS result FROM unnest(ARRAY[
	'{"payment_method_data": {"type": "card", "card": {"number": "hush"}}}', '{"payment_method_data": {"card": ["hush"]}}', '{"card": {}}', '{"x": [{"card": {"exp_month": 1}}]}',
	'{"source": {"object": "card"}}', '{"x": {"source": {"number": "hush"}}}', '{"source": ["hush"]}', '{"cvc": "123"}', '{"payment_method_options": {"card": {"cvc": 123}}}', '{"x": {"cvv": null}}',
	'{"payment_method_options": {"card": {"card": {"number": "hush"}}}}', '{"x": {"payment_method_options": {"card": {"number": "hush"}}}}', '{"payment_method_options": {"x": {"card": {"number": "hush"}}}}',
	'{"payment_method_data[card][number]": "hush"}', '{"payment_method_data[card]": {"number": "hush"}}', '{"payment_method_data": {"card[number]": "hush"}}', '{"payment_method_data": {"card][number": "hush"}}', '{"card[": {"number": "hush"}}',
	'{"payment_method_options": {"card": {"request_three_d_secure": "any"}}}', '{"payment_method_types": ["card"]}', '{"source": "src_1"}', '{"card": "card_1"}', '{"card": null}']) AS p;

-- The other functions
SELECT t.pay('other') AS p \gset
SELECT call, t.error(format('SELECT stripe_lifecycle.' || call, :'p')) AS result FROM unnest(ARRAY[
	$$confirm_payment(%L, '{"payment_method": "4242424242424242"}')$$, $$confirm_payment(%L, '{"payment_method_data": {"card": {"number": "hush"}}}')$$, $$confirm_payment(%L, '"4242424242424242"')$$,
	$$cancel_payment(%L, '4242 4242 4242 4242')$$, $$pause_worker('for card 4242424242424242')$$, $$retry_request(1, 'card 4242-4242-4242-4242')$$, $$replay_event('evt_1', '4242424242424242')$$,
	$$replay_event('4242424242424242')$$, $$resolve_conflict('evt_1', 'dismiss', '4242424242424242')$$, $$record_action('x', '4242424242424242')$$]) AS call;
SELECT paused_reason, (SELECT count(*) FROM stripe_lifecycle.operator_actions) AS actions FROM stripe_lifecycle.worker_state;

-- A plain INSERT
SELECT c, t.error(format('INSERT INTO stripe_lifecycle.payments (id, idempotency_key, amount, currency, %s) VALUES (gen_random_uuid(), %L, 1, ''usd'', %L)', c, 'plain-' || c, v)) AS result
  FROM (VALUES ('description', '4242424242424242'), ('customer', '4242 4242 4242 4242'), ('receipt_email', '4242424242424242@example.com'), ('stripe_account', '4242-4242-4242-4242'),
	('metadata', '{"4242424242424242": "x"}'), ('params', '{"a": [4242424242424242]}')) AS x (c, v);
SELECT t.code($$INSERT INTO stripe_lifecycle.payments (id, idempotency_key, amount, currency) VALUES (gen_random_uuid(), '4242424242424242', 1, 'usd')$$);

-- No row of any table has one
CREATE FUNCTION t.rows_with_cards() RETURNS TABLE (tab text, n bigint) LANGUAGE plpgsql AS $$
BEGIN
	FOR tab IN SELECT relname FROM pg_class WHERE relnamespace = 'stripe_lifecycle'::regnamespace AND relkind = 'r' LOOP
		EXECUTE format('SELECT count(*) FROM stripe_lifecycle.%I r WHERE r::text ~ %L', tab, '\m(4242[ -]?4242[ -]?4242[ -]?4242|4111111111111111|378282246310005)\M') INTO n;
		IF n > 0 THEN RETURN NEXT; END IF;
	END LOOP;
END
$$;
SELECT * FROM t.rows_with_cards();

-- Events: masked wherever they are kept, and not lost
SELECT t.pay('event', 'retry') AS e \gset
SELECT t.ingest(t.event('evt_message', 'payment_intent.payment_failed', 1000, 'pi_event', :'e', '{"last_payment_error": {"type": "card_error 4242424242424242", "code": "4242 4242 4242 4242", "decline_code": 4242424242424242,
	"message": "Your card 4242 4242-4242 4242 was declined; sk_live_hush, whsec_hush, pi_event_secret_hush", "param": "payment_method_data[card][number]=4111111111111111"},
	"latest_charge": "4242424242424242", "reason": 378282246310005, "description": "4242424242424242"}', '{"account": "4242424242424242", "api_version": "4242424242424242", "request": {"id": "4242424242424242", "idempotency_key": "4242 4242 4242 4242"}}'));
SELECT last_error, latest_charge FROM stripe_lifecycle.payments WHERE id = :'e' \gx
SELECT account, api_version, jsonb_pretty(payload #- '{data,object,metadata}') AS payload FROM stripe_lifecycle.webhook_events WHERE event_id = 'evt_message' \gx
SELECT t.ingest(t.event('evt_reason', 'payment_intent.canceled', 1001, 'pi_event', :'e', '{"cancellation_reason": "4242 4242 4242 4242"}')), t.state(:'e');
SELECT cancellation_reason, client_secret FROM stripe_lifecycle.payments WHERE id = :'e';
-- of a type that is one, about an object that is one, of no payment, parked
SELECT t.ingest(t.event('evt_type', '4242424242424242', 1000, '4242 4242 4242 4242'));
SELECT t.ingest(t.event('evt_charge', 'charge.failed', 1000, 'ch_1', NULL, '{"object": "charge", "payment_intent": "4242424242424242", "reason": "4242424242424242"}'));
SELECT t.ingest(t.event('evt_parked', 'payment_intent.payment_failed', 1000, 'pi_parked', NULL, '{"last_payment_error": {"message": "4242424242424242"}}'));
SELECT t.ingest(t.event('evt_parked_2', 'payment_intent.processing', 1000, 'pi_parked', NULL, '{"latest_charge": "4242424242424242"}'));
SELECT t.pay('parked', 'retry') AS p \gset
SELECT t.ingest(t.event('evt_links', 'payment_intent.created', 999, 'pi_parked', :'p')) AS linked, t.state(:'p');
SELECT last_error ->> 'message' AS message, latest_charge, decline_count FROM stripe_lifecycle.payments WHERE id = :'p';
-- one whose amount is one contradicts its payment
SELECT t.ingest(t.event('evt_amount', 'payment_intent.succeeded', 1000, 'pi_parked', :'p', '{"amount": 4242424242424242}'));
SELECT event_id, reason, type, object_id, payment_intent_id, outcome FROM stripe_lifecycle.webhook_events WHERE event_id IN ('evt_amount', 'evt_type', 'evt_charge') ORDER BY 1;
SELECT t.code($$SELECT stripe_lifecycle.resolve_conflict('evt_amount', 'dismiss', 'amount 4242424242424242')$$), stripe_lifecycle.resolve_conflict('evt_amount', 'dismiss', 'wrong amount');
-- an amount is a number and no text: it stays, so that the event can be read again
SELECT event_id, payload #> '{data,object,amount}' AS amount FROM stripe_lifecycle.webhook_events WHERE event_id = 'evt_amount';
SELECT * FROM t.rows_with_cards();

-- What only looks like one, and what is written so as not to be one
SELECT d, t.code(t.call(format('description => %L, metadata => jsonb_build_object(''k'', %L::text)', d, d))) AS result FROM unnest(ARRAY['4242424242424241', '1234567890123456', '424242424242',
	'order_4242424242424242', 'x4242424242424242', '4242.4242.4242.4242', '42424242-4242-4242-4242-424242424242', 'pi_3N4242424242424242', '+4222222222222', '2026-11-25 10:30:45.123456', '1764066645123', '0.4242424242424242']) AS d;
INSERT INTO stripe_lifecycle.payments (id, idempotency_key, amount, currency, description) VALUES (gen_random_uuid(), 'plain', 1, 'usd', 'order_4242424242424242');
SELECT t.code(t.call($$idempotency_key => '42424242-4242-4242-4242-424242424242'$$)) AS uuid_as_key, t.code(t.call($$idempotency_key => 'order_4111111111111111'$$)) AS way_out;


SELECT t.broken_audits();
\i :end
