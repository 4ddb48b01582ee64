-- Owners of payments: customers behind a web gateway see their own and no others
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/setup/begin.sql'
\set end :abs_srcdir '/setup/end.sql'
\i :begin

-- Call something as a gateway does for a request: settings for the transaction alone, then the
-- statement. NULL claims are not set.
CREATE FUNCTION t.as(claims text, statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	PERFORM set_config('request.jwt.claims', coalesce(claims, ''), true), set_config('request.method', 'POST', true),
			set_config('request.path', '/rpc/x', true), set_config('request.headers', '{"host":"example.com"}', true);
	BEGIN
		EXECUTE statement INTO result;
	EXCEPTION WHEN OTHERS THEN
		result := SQLSTATE || ' ' || SQLERRM;
	END;
	PERFORM set_config('request.jwt.claims', '', true), set_config('request.method', '', true),
			set_config('request.path', '', true), set_config('request.headers', '', true);
	RETURN result;
END
$$;
CREATE FUNCTION t.create_as(claims text, key text, amount bigint DEFAULT 2000) RETURNS text LANGUAGE sql AS $$
	SELECT t.as(claims, format('SELECT stripe_lifecycle.create_payment(%s, ''usd'', %L)', amount, key))
$$;
-- everything that can be asked of a payment: ok, or the errors
CREATE FUNCTION t.ask_as(claims text, id text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(DISTINCT CASE WHEN x ~ '^(SL|\d)\d{3}[^\d]' THEN x ELSE 'ok' END, ', ') FROM (
		SELECT t.as(claims, format('SELECT (stripe_lifecycle.payment_status(%L)).state', id))
		UNION ALL SELECT t.as(claims, format('SELECT stripe_lifecycle.confirm_payment(%L)', id))
		UNION ALL SELECT t.as(claims, format('SELECT stripe_lifecycle.cancel_payment(%L)', id))) y (x)
$$;
CREATE FUNCTION t.owner(id text) RETURNS text LANGUAGE sql AS $$ SELECT quote_nullable(owner) FROM stripe_lifecycle.payments p WHERE p.id = $1::uuid $$;

\set alice '{"role": "customer", "sub": "alice"}'
\set bob '{"sub": "bob"}'
\set nobody '{"role": "web_anon"}'

-- Off: nothing is recorded, nothing is hidden
SHOW stripe_lifecycle.owner_claim;
SELECT t.create_as(:'alice', 'before') AS before \gset
SELECT t.owner(:'before'), t.ask_as(:'bob', :'before'), t.ask_as(:'nobody', :'before'), t.create_as(:'bob', 'before') = :'before' AS one_key_for_all;
SELECT t.create_as(:'nobody', 'guest') AS guest \gset
SELECT t.owner(:'guest');

ALTER SYSTEM SET stripe_lifecycle.owner_claim = 'sub';
SELECT pg_reload_conf();
\set ECHO none
\o /dev/null
SELECT 'SELECT pg_sleep(0.01) WHERE current_setting(''stripe_lifecycle.owner_claim'') <> ''sub''' FROM generate_series(1, 500) \gexec
\o
\set ECHO all
SHOW stripe_lifecycle.owner_claim;

-- Each sees his own; somebody else's is as unknown as one that never was
SELECT t.create_as(:'alice', 'order-1') AS hers, t.create_as(:'bob', 'order-2') AS his \gset
SELECT t.owner(:'hers'), t.owner(:'his');
SELECT t.ask_as(:'alice', :'hers') AS alice_hers, t.ask_as(:'bob', :'his') AS bob_his;
SELECT t.ask_as(:'alice', :'his') AS alice_his, t.ask_as(:'bob', :'hers') AS bob_hers, t.ask_as(:'nobody', :'hers') AS nobody_hers;
SELECT t.ask_as(:'bob', '01900000-0000-7000-8000-000000000000') = t.ask_as(:'bob', :'hers') AS same_as_unknown;
CREATE FUNCTION t.whole_error_as(claims text, statement text) RETURNS text LANGUAGE sql AS $$ SELECT t.as(claims, format('SELECT t.error(%L)', statement)) $$;
SELECT DISTINCT t.whole_error_as(:'bob', format('SELECT stripe_lifecycle.%s(%L)', f, id)) FROM unnest('{payment_status, confirm_payment, cancel_payment}'::text[]) f, unnest(ARRAY[:'hers', '01900000-0000-7000-8000-000000000000']) id;
-- at once, however long one is ready to wait
SELECT clock_timestamp() AS start \gset
SELECT t.as(:'bob', format('SELECT stripe_lifecycle.payment_status(%L, ''60 s'')', :'hers')), clock_timestamp() - :'start' < interval '20 s' AS at_once;
-- hers alone
SELECT count(*) AS confirmations FROM stripe_lifecycle.api_requests WHERE payment_id = :'hers' AND operation = 'confirm';

-- Payments without an owner: for requests that name nobody, and not for those that name somebody
SELECT t.ask_as(:'nobody', :'guest') AS nobody, t.ask_as(:'alice', :'guest') AS alice, t.ask_as(:'alice', :'before') AS even_if_she_made_it_before;

-- Outside of a request there is no customer to be separated
SELECT t.pay('plain') AS plain \gset
SELECT t.owner(:'plain'), t.code(format('SELECT stripe_lifecycle.payment_status(%L)', :'hers')), t.code(format('SELECT stripe_lifecycle.cancel_payment(%L)', :'hers'));

-- A request that names nobody creates nothing
SELECT t.whole_error_as(:'nobody', $$SELECT stripe_lifecycle.create_payment(2000, 'usd', 'nobody')$$);
SELECT count(*) FROM stripe_lifecycle.payments WHERE idempotency_key = 'nobody';

-- Keys are each owner's own
SELECT t.create_as(:'bob', 'order-1') AS his_order_1 \gset
SELECT :'his_order_1' <> :'hers' AS another, t.owner(:'his_order_1'), t.create_as(:'bob', 'order-1') = :'his_order_1' AS same_again, t.create_as(:'alice', 'order-1') = :'hers' AS hers_too;
SELECT t.create_as(:'alice', 'order-1', 2001), t.create_as(:'bob', 'order-1', 2002);
SELECT t.code($$SELECT stripe_lifecycle.create_payment(2003, 'usd', 'order-1')$$) AS plain_has_its_own, t.code($$SELECT stripe_lifecycle.create_payment(2004, 'usd', 'order-1')$$);
SELECT owner, count(*), count(DISTINCT id) FROM stripe_lifecycle.payments WHERE idempotency_key = 'order-1' GROUP BY owner ORDER BY owner;

-- What names an owner, and what does not
SELECT claims, CASE WHEN made ~ '^SL' THEN left(made, 5) ELSE t.owner(made) END AS owner
  FROM unnest(ARRAY['{"sub": "x"}', '{"sub": 42}', '{"sub": 42.50}', '{"sub": 1e300}', '{"sub": "42"}', '{"sub": " "}', '{"sub": "Ünïcode \u00e9 '' \" \\"}', '{"sub": "x", "sub": "y"}', '{"a": {"sub": "x"}, "sub": "z"}',
		'{"sub": ""}', '{"sub": null}', '{"sub": true}', '{"sub": ["x"]}', '{"sub": {"sub": "x"}}', '{"Sub": "x"}', '{"sub ": "x"}', '{}', '[]', '["sub", "x"]', '"sub"', 'null', 'sub', '{"sub": "x"', '{"sub": "a\u0000b"}', '{"sub": "\ud83d"}', ' ', NULL])
	   WITH ORDINALITY AS x (claims, n), t.create_as(claims, 'claims-' || n) AS made ORDER BY n;
SELECT n, CASE WHEN made ~ '^SL' THEN left(made, 5) ELSE length(t.owner(made)) - 2 || '' END AS owner
  FROM unnest('{1, 255, 256, 100000}'::int[]) n, t.create_as(format('{"sub": "%s"}', repeat('é', n)), 'length-' || n) AS made;
-- 42 and "42" are one owner, as they are one text
SELECT t.ask_as('{"sub": "42"}', id::text) FROM stripe_lifecycle.payments WHERE idempotency_key = 'claims-2';

-- Any one of a gateway's settings makes a request; only empty ones don't
CREATE FUNCTION t.with_setting(name text, value text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	PERFORM set_config(name, value, true);
	result := t.code($q$SELECT stripe_lifecycle.create_payment(2000, 'usd', 'with a setting')$q$);
	PERFORM set_config(name, '', true);
	RETURN result;
END
$$;
SELECT name, t.with_setting(name, 'x') AS set, t.with_setting(name, '') AS empty FROM unnest('{request.jwt.claims, request.method, request.path, request.headers, request.jwt.claim.sub, request.cookies}'::text[]) name;

-- An owner is fixed for life, and so is having none
SELECT t.error(format('UPDATE stripe_lifecycle.payments SET owner = ''carol'' WHERE id = %L', :'hers')), t.error(format('UPDATE stripe_lifecycle.payments SET owner = NULL WHERE idempotency_key = ''order-2'' OR id = %L', NULL)),
	   t.error(format('UPDATE stripe_lifecycle.payments SET owner = ''bob'' WHERE id = %L', :'guest'));
-- events find their payment whoever owns it
SELECT t.ingest(t.event('evt_hers', 'payment_intent.succeeded', 1, 'pi_hers', :'hers')), t.state(:'hers'), t.owner(:'hers');
-- its owner sees that it has ended; nobody else sees even that
SELECT t.ask_as(:'alice', :'hers'), t.ask_as(:'bob', :'hers');

-- Another claim, another owner
ALTER SYSTEM SET stripe_lifecycle.owner_claim = 'https://example.com/customer';
SELECT pg_reload_conf();
\set ECHO none
\o /dev/null
SELECT 'SELECT pg_sleep(0.01) WHERE current_setting(''stripe_lifecycle.owner_claim'') = ''sub''' FROM generate_series(1, 500) \gexec
\o
\set ECHO all
SELECT t.ask_as('{"sub": "x", "https://example.com/customer": "alice"}', :'hers'), t.ask_as(:'alice', :'hers');

ALTER SYSTEM RESET stripe_lifecycle.owner_claim;
\i :end
