-- payment_status(), confirm_payment(), cancel_payment()
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/setup/begin.sql'
\set end :abs_srcdir '/setup/end.sql'
\i :begin

SELECT t.pay('one', 'retry') AS one \gset
SELECT id = :'one' AS id, state, amount, currency, payment_intent_id, client_secret, request_status, last_error, decline_count, livemode,
	   created_at = updated_at AS unchanged, finished_at FROM stripe_lifecycle.payment_status(:'one') \gx
SELECT count(*) AS rows, pg_typeof(stripe_lifecycle.payment_status(:'one')) FROM stripe_lifecycle.payment_status(:'one') GROUP BY 2;

-- what goes wrong
SELECT what, t.code('SELECT stripe_lifecycle.payment_status(' || replace(arguments, '$', quote_literal(:'one')) || ')') AS result
  FROM (VALUES ('unknown', '''00000000-0000-0000-0000-000000000000'''), ('NULL', 'NULL'), ('no uuid', '''x'''),
	('negative wait', '$, ''-1 second'''), ('a microsecond less than none', '$, ''-00:00:00.000001'''), ('a day', '$, ''1 day'''),
	('a month', '$, ''1 month'''), ('a day, nearly taken back', '$, ''1 day -24 hours'''),
	('no wait', '$, ''0'''), ('NULL wait', '$, NULL'), ('less than a millisecond', '$, ''0.0001 s''')) AS x (what, arguments);
\pset format unaligned
\t on
SELECT t.error($$SELECT stripe_lifecycle.payment_status('00000000-0000-0000-0000-000000000000')$$);
SELECT t.error(format('SELECT stripe_lifecycle.payment_status(%L, %L)', :'one', '-1 second'));
\t off
\pset format aligned

-- a wait in vain ends when its time is up; where nothing can change it ends at once
CREATE FUNCTION t.waited(wait interval) RETURNS interval LANGUAGE plpgsql AS $$
DECLARE
	start timestamptz := clock_timestamp();
	id uuid := (SELECT p.id FROM stripe_lifecycle.payments p WHERE idempotency_key = 'one');
BEGIN
	PERFORM stripe_lifecycle.payment_status(id, wait);
	RETURN clock_timestamp() - start;
END
$$;
SELECT w >= '0.2 s' AS long_enough, w < '5 s' AS not_too_long FROM t.waited('0.2 s') AS w;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT t.waited('20 s') < '10 s' AS at_once;
COMMIT;
-- it can be cancelled
SET statement_timeout = '100ms';
SELECT t.code($$SELECT t.waited('20 s')$$);
RESET statement_timeout;

-- as the payment goes on
SELECT t.ingest(t.event('evt_1', 'payment_intent.payment_failed', 1000, 'pi_one', :'one'));
SELECT state, payment_intent_id, request_status, last_error, decline_count, livemode, updated_at > created_at AS changed, finished_at
  FROM stripe_lifecycle.payment_status(:'one') \gx
SELECT t.ingest(t.event('evt_2', 'payment_intent.succeeded', 1001, 'pi_one', :'one', '{"amount_received": 2000}'));
SELECT state, client_secret, last_error ->> 'code' AS last_error, finished_at IS NOT NULL AS finished, finished_at = updated_at AS just_now
  FROM stripe_lifecycle.payment_status(:'one') \gx

-- confirm and cancel: queued, each with a key of its own, until the
-- PaymentIntent is known
SELECT t.pay('two') AS two \gset
SELECT stripe_lifecycle.confirm_payment(:'two') < stripe_lifecycle.confirm_payment(:'two', '{"payment_method": "pm_card_visa", "return_url": "https://example.com/?a=b"}') AS ascending;
SELECT stripe_lifecycle.cancel_payment(:'two') < stripe_lifecycle.cancel_payment(:'two', 'abandoned') AS ascending;
SELECT stripe_lifecycle.confirm_payment(payment_id => :'two', params => NULL) > 0 AS queued;
SELECT operation, method, path, body <> '' AS has_body, t.mask(idempotency_key) AS key, status, next_attempt_at = 'infinity' AS waits, attempts
  FROM stripe_lifecycle.api_requests WHERE payment_id = :'two' ORDER BY id;
SELECT operation, body FROM stripe_lifecycle.api_requests WHERE payment_id = :'two' AND operation <> 'create' ORDER BY id;
SELECT state, request_status, updated_at = created_at AS unchanged FROM stripe_lifecycle.payment_status(:'two');
-- the event that names the PaymentIntent lets them go
SELECT t.ingest(t.event('evt_3', 'payment_intent.created', 1000, 'pi_two', :'two'));
SELECT count(*) FILTER (WHERE next_attempt_at = 'infinity') AS waiting, count(*) AS requests FROM stripe_lifecycle.api_requests WHERE payment_id = :'two';
-- rolled back, a number is used again
BEGIN;
SELECT stripe_lifecycle.cancel_payment(:'two') > 0 AS queued;
ROLLBACK;
SELECT stripe_lifecycle.cancel_payment(:'two', 'duplicate') > 0 AS queued;
SELECT t.mask(idempotency_key) AS key, body, next_attempt_at <= clock_timestamp() AS due FROM stripe_lifecycle.api_requests WHERE payment_id = :'two' ORDER BY id DESC LIMIT 1;

-- what goes wrong
SELECT arguments, t.code('SELECT stripe_lifecycle.confirm_payment(' || replace(arguments, '$', quote_literal(:'two')) || ')') AS confirm
  FROM unnest(ARRAY['NULL', $$'00000000-0000-0000-0000-000000000000'$$, '$', '$, NULL', $a$$, '{}'$a$, $a$$, '[]'$a$, $a$$, '"x"'$a$, $a$$, 'null'$a$,
	$a$$, '{"payment_method_data": {"card": {"number": "4242424242424242"}}}'$a$, $a$$, '{"source": {"number": "4242424242424242"}}'$a$,
	$a$$, '{"payment_method_data[card][number]": "4242424242424242"}'$a$, $a$$, '{"": "x"}'$a$]) AS arguments;
SELECT arguments, t.code('SELECT stripe_lifecycle.cancel_payment(' || replace(arguments, '$', quote_literal(:'two')) || ')') AS cancel
  FROM unnest(ARRAY['NULL', $$'00000000-0000-0000-0000-000000000000'$$, '$', '$, NULL', $a$$, 'duplicate'$a$, $a$$, 'fraudulent'$a$, $a$$, 'requested_by_customer'$a$,
	$a$$, 'abandoned'$a$, $a$$, 'automatic'$a$, $a$$, ''$a$, $a$$, 'Abandoned'$a$, $a$$, 'abandoned&x=y'$a$]) AS arguments;
BEGIN READ ONLY;
SELECT t.code(format('SELECT stripe_lifecycle.confirm_payment(%L)', :'two')), t.code(format('SELECT stripe_lifecycle.cancel_payment(%L)', :'two'));
COMMIT;

-- a payment that has ended is neither confirmed nor canceled
SELECT state, t.code(format('SELECT stripe_lifecycle.confirm_payment(%L)', t.pay_in(state, 'confirm-' || state))) AS confirm,
	   t.code(format('SELECT stripe_lifecycle.cancel_payment(%L)', t.pay_in(state, 'cancel-' || state))) AS cancel
  FROM unnest('{created, requires_action, processing, succeeded, failed}'::text[]) AS state;
\pset format unaligned
\t on
SELECT t.error(format('SELECT stripe_lifecycle.confirm_payment(%L)', :'one'));
SELECT t.error(format('SELECT stripe_lifecycle.cancel_payment(%L)', id)) FROM stripe_lifecycle.payments WHERE idempotency_key = 'cancel-failed';
SELECT t.error(format('SELECT stripe_lifecycle.cancel_payment(%L, %L)', :'two', 'hush'));
SELECT t.error(format('SELECT stripe_lifecycle.confirm_payment(%L, %L)', :'two', '["hush"]'));
\t off
\pset format aligned
-- none of these calls moved anything
SELECT t.state(:'two'), t.broken_audits();

-- the connected account of the payment is that of its calls
SELECT stripe_lifecycle.create_payment(2000, 'usd', 'three', stripe_account => 'acct_1') AS three \gset
SELECT stripe_lifecycle.cancel_payment(:'three') > 0 AS queued;
SELECT operation, stripe_account FROM stripe_lifecycle.api_requests WHERE payment_id = :'three' ORDER BY id;

-- pause and resume
SELECT paused, paused_reason, paused_by = session_user AS by_me, paused_at <= clock_timestamp() AS at FROM stripe_lifecycle.worker_state;
BEGIN;
SELECT stripe_lifecycle.resume_worker();
SELECT paused, paused_reason, paused_by, paused_at FROM stripe_lifecycle.worker_state;
SELECT stripe_lifecycle.pause_worker();
SELECT paused, paused_reason, paused_by = session_user AS by_me FROM stripe_lifecycle.worker_state;
ROLLBACK;
SELECT t.code('INSERT INTO stripe_lifecycle.worker_state (singleton) VALUES (false)'), t.code('INSERT INTO stripe_lifecycle.worker_state DEFAULT VALUES');

\i :end
