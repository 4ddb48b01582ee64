-- webhook(json) and pre_request() as SQL sees them: settings that come in, settings that go out.  The rest is in
-- test/t/025_webhook_http.pl and those after it.
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/setup/begin.sql'
\set end :abs_srcdir '/setup/end.sql'
\i :begin

-- what PostgREST looks for: one unnamed parameter of type json, no second function of the name
SELECT count(*), bool_and(proargnames IS NULL AND proargtypes[0] = 'json'::regtype AND provolatile = 'v' AND NOT proisstrict) AS as_it_must_be
  FROM pg_proc WHERE proname = 'webhook' AND pronamespace = 'stripe_lifecycle'::regnamespace;

-- a call as PostgREST makes it; the answer and what was set
CREATE FUNCTION t.post(body text, header text, OUT answer json, OUT status text, OUT headers text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('request.headers', json_build_object('stripe-signature', header)::text, true),
			set_config('response.status', '', true), set_config('response.headers', '', true);
	answer := stripe_lifecycle.webhook(body::json);
	status := current_setting('response.status'); headers := current_setting('response.headers');
END
$$;
SELECT t.pay('one') AS one \gset
SELECT t.event('evt_1', 'payment_intent.processing', 1000, 'pi_one', :'one') AS body \gset
SELECT * FROM t.post(:'body', t.header(:'body'::text));
SELECT * FROM t.post(:'body', t.header(:'body'::text));
SELECT * FROM t.post(:'body' || ' ', t.header(:'body'::text));
SELECT * FROM t.post(:'body', t.header(:'body'::text, age => 400));
SELECT * FROM t.post(:'body', 'nonsense');
SELECT * FROM t.post(:'body', NULL);
SELECT * FROM t.post('[]', t.header('[]'::text));
SELECT * FROM t.post('{}', t.header('{}'::text));
SELECT * FROM t.post(NULL, t.header('{}'::text));
SELECT t.state(:'one');
-- without a request there is no header
RESET request.headers;
SELECT stripe_lifecycle.webhook('{}');

-- headers: what is there stays, whatever it is like; names are compared without regard to case
CREATE FUNCTION t.headers(before text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('response.headers', before, true);
	PERFORM stripe_lifecycle.pre_request();
	RETURN current_setting('response.headers');
END
$$;
SELECT jsonb_pretty(t.headers('')::jsonb);
SELECT b AS before, (SELECT string_agg(key || ': ' || value, '; ' ORDER BY n, key)
	FROM jsonb_array_elements(t.headers(b)::jsonb) WITH ORDINALITY AS a (e, n), jsonb_each_text(e)
	WHERE key !~ '^(Content-Security|Cross|Referrer|Strict|X-Content)') AS after
  FROM unnest(ARRAY['[]', '[{"A": "1"}, {"A": "2"}]', '[{"cache-control": "max-age=5"}]', '[{"A": "1", "x-FRAME-options": "mine"}]', E'[{"A": "\\u00e9\\"\\\\\\n"}]',
	'[{"A": 1}, {"B": null}, {"C": ["x"]}, {"D": {"E": "f"}}, "g", 7]', '{"A": "1"}', '"A"', 'null', 'no json', '[{"A": "1"}', '[', E'[{"A": "1"}]\t']) AS b;
-- twice is once
SELECT t.headers(t.headers('[{"A": "1"}]')) = t.headers('[{"A": "1"}]') AS idempotent;
-- in a transaction only
BEGIN;
SELECT stripe_lifecycle.pre_request();
SELECT current_setting('response.headers') <> '' AS set;
ROLLBACK;
SELECT coalesce(current_setting('response.headers', true), '') = '' AS gone;

-- errors: whether they fit HTTP
CREATE FUNCTION t.raised(path text, method text, statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('request.path', path, true), set_config('request.method', method, true), set_config('response.headers', '', true);
	RETURN t.error(statement);
END
$$;
\pset format unaligned
SELECT path, method, split_part(t.raised(path, method, $$SELECT stripe_lifecycle.create_payment(-1, 'usd', 'k')$$), ':', 1) AS sqlstate
  FROM (VALUES ('/rpc/create_payment', 'POST'), ('/rpc/create_payment', ''), ('', 'POST'), ('/rpc/create_paymen', 'POST'), ('/rpc/create_payment/', 'POST'), ('/rpc/confirm_payment', 'POST'), ('create_payment', 'POST')) AS x (path, method);
\t on
SELECT t.raised('/rpc/create_payment', 'POST', $$SELECT stripe_lifecycle.create_payment(-1, 'usd', 'k')$$);
SELECT t.raised('/rpc/create_payment', 'POST', $$SELECT stripe_lifecycle.create_payment(1, 'usd', 'one')$$);
SELECT t.raised('/rpc/cancel_payment', 'POST', $$SELECT stripe_lifecycle.cancel_payment(NULL)$$);
SELECT t.raised('/rpc/payment_status', 'GET', $$SELECT stripe_lifecycle.payment_status(NULL)$$);
BEGIN READ ONLY;
SELECT t.raised('/rpc/confirm_payment', 'POST', format('SELECT stripe_lifecycle.confirm_payment(%L)', :'one'));
SELECT t.raised('/rpc/confirm_payment', 'GET', format('SELECT stripe_lifecycle.confirm_payment(%L)', :'one'));
COMMIT;
-- an error of others is theirs
SELECT t.raised('/rpc/create_payment', 'POST', $$SELECT stripe_lifecycle.create_payment(1 / 0, 'usd', 'k')$$);
\t off
\pset format aligned
-- caught by the site's own function it is no transaction's end
SELECT t.code($$SELECT stripe_lifecycle.create_payment(-1, 'usd', 'k')$$), t.code($$SELECT stripe_lifecycle.create_payment(1, 'usd', 'k2')$$);

-- the limits of time end with the call, and never lengthen what is in force
CREATE FUNCTION t.timeouts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('t.lock_timeout', current_setting('lock_timeout'), false);
	RETURN NULL;
END
$$;
CREATE TRIGGER timeouts AFTER INSERT ON stripe_lifecycle.webhook_events FOR EACH ROW EXECUTE FUNCTION t.timeouts();
SELECT answer FROM (SELECT t.event('evt_a', 'customer.created', 1000, 'cus_1') AS b) x, t.post(b, t.header(b));
SELECT current_setting('t.lock_timeout') AS during, current_setting('lock_timeout') AS after;
SET lock_timeout = '1s';
SELECT answer FROM (SELECT t.event('evt_b', 'customer.created', 1000, 'cus_1') AS b) x, t.post(b, t.header(b));
SELECT current_setting('t.lock_timeout') AS during, current_setting('lock_timeout') AS after;
SET lock_timeout = '10s';
SELECT answer FROM (SELECT t.event('evt_c', 'customer.created', 1000, 'cus_1') AS b) x, t.post(b, t.header(b));
SELECT current_setting('t.lock_timeout') AS during, current_setting('lock_timeout') AS after;
RESET lock_timeout;
-- a statement that was allowed a short time keeps it
SET statement_timeout = '300ms';
SELECT answer FROM (SELECT t.event('evt_d', 'customer.created', 1000, 'cus_1') AS b) x, t.post(b, t.header(b)), pg_sleep(10);
RESET statement_timeout;
\i :end
