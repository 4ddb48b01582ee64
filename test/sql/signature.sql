-- verify_webhook_signature(): every case of the official SDKs' own tests that
-- a function of this shape can have, and every header on which the SDKs
-- disagree, with the verdict of the narrow grammar that all of them share.
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/setup/begin.sql'
\set end :abs_srcdir '/setup/end.sql'
\i :begin

-- The clock of the cases is fixed.  In a header, {S} is the right signature for
-- time 1700000000, {O} that under another secret, {0} sixty-four zeros, and
-- {...} the right signature over that text as time.
CREATE FUNCTION t.fill(header text, body bytea) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	m text;
BEGIN
	header := replace(header, '{S}', t.sig(body, 'whsec_test_secret', '1700000000'));
	header := replace(header, '{O}', t.sig(body, 'whsec_other_secret', '1700000000'));
	header := replace(header, '{0}', repeat('0', 64));
	LOOP
		m := substring(header FROM '\{([^}]*)\}');
		EXIT WHEN m IS NULL;
		header := replace(header, '{' || m || '}', t.sig(body, 'whsec_test_secret', m));
	END LOOP;
	RETURN header;
END
$$;
CREATE FUNCTION t.check(header text, body text, secret text DEFAULT 'whsec_test_secret', tolerance text DEFAULT '''5 min''', at text DEFAULT 'to_timestamp(1700000000)')
	RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	as_text text; as_bytes text;
	filled text := t.fill(header, convert_to(body, 'UTF8'));
BEGIN
	EXECUTE format('SELECT stripe_lifecycle.verify_webhook_signature(%L::text, %L, %L, %s, %s)', body, filled, secret, tolerance, at) INTO as_text;
	EXECUTE format('SELECT stripe_lifecycle.verify_webhook_signature(convert_to(%L, ''UTF8''), %L, %L, %s, %s)', body, filled, secret, tolerance, at) INTO as_bytes;
	RETURN CASE WHEN as_text IS DISTINCT FROM as_bytes THEN 'text and bytea differ' ELSE coalesce(as_text, 'NULL') END;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;
\set body '{"id": "evt_test_webhook", "object": "event"}'

-- Headers
SELECT name, t.check(header, :'body') AS verdict FROM (VALUES
	('good', 't=1700000000,v1={S}'),
	('NULL', NULL), ('empty', ''), ('blank', '   '), ('commas', ',,'), ('t', 't'), ('t,,', 't,,'),
	('bad_header', 'bad_header'), ('prose', 'i''m not even a real signature header'),
	('v1,t=1', 'v1,t=1'), ('t=,v1', 't=,v1={S}'), ('no number', 't=not_a_number,v1={S}'), ('empty values', 't=,v1=,v0='), ('t,v1=,v0', 't,v1=,v0'),
	('scheme v0 only', 't=1700000000,v0={S}'), ('scheme v2 only', 't=1700000000,v2={S}'), ('v1 without t', 'v1={S}'), ('t without v1', 't=1700000000'),
	('bad_signature', 't=1700000000,v1=bad_signature'), ('zeros', 't=1700000000,v1={0}'), ('short bytes', 't=1700000000,v1=deadbeef'),
	('another secret''s', 't=1700000000,v1={O}'), ('good then bad_signature', 't=1700000000,v1={S},v1=bad_signature'),
	('good then potato', 't=1700000000,v1={S},v1=potato'), ('bad then good', 't=1700000000,v1=bad_signature,v1={S}'),
	('rolled: other then good', 't=1700000000,v1={O},v1={S}'), ('rolled: good then other', 't=1700000000,v1={S},v1={O}'),
	('good beside v0', 't=1700000000,v1={S},v0={0}'), ('good as v0, zeros as v1', 't=1700000000,v1={0},v0={S}'),
	('2 order', 'v1={S},t=1700000000'), ('3 blank after comma', 't=1700000000, v1={S}'), ('4 both', 'v1={S}, t=1700000000'),
	('5 leading blank', ' t=1700000000,v1={S}'), ('6 trailing blank', 't=1700000000,v1={S} '), ('7 blank before comma', 't=1700000000 ,v1={S}'),
	('tabs', E'\tt=1700000000\t,\tv1={S}\t'), ('newline after comma', E't=1700000000,\nv1={S}'), ('trailing newline', E't=1700000000,v1={S}\n'),
	('8 blank before =', 't =1700000000,v1={S}'), ('8 blank before = of v1', 't=1700000000,v1 ={S}'), ('9 blank after v1=', 't=1700000000,v1= {S}'), ('blank after t=', 't= 1700000000,v1={S}'),
	('11 capital T', 'T=1700000000,v1={S}'), ('11 capital V', 't=1700000000,V1={S}'),
	('20 bare item', 't=1700000000,v1={S},foo'), ('21 trailing comma', 't=1700000000,v1={S},'), ('leading comma', ',t=1700000000,v1={S}'), ('two commas', 't=1700000000,,v1={S}'),
	('23 = after', 't=1700000000,v1={S}='), ('24 a=b=c', 't=1700000000,v1={S},a=b=c'), ('26 and v1=', 't=1700000000,v1={S},v1='), ('28 and v1', 't=1700000000,v1={S},v1'),
	('one digit more', 't=1700000000,v1={S}0'), ('quoted', 't=1700000000,v1="{S}"'), ('semicolon', 't=1700000000;v1={S}'),
	('31 t=', 't=,v1={}'), ('37 two t, first good', 't=1700000000,t=1,v1={S}'), ('38 two t, second good', 't=1,t=1700000000,v1={S}'),
	('two t, the same', 't=1700000000,t=1700000000,v1={S}'), ('a bare t beside', 't,t=1700000000,v1={S}'), ('an empty t beside', 't=,t=1700000000,v1={S}'),
	('39 digits and letters', 't=1700000000abc,v1={S}'), ('39 signed so', 't=1700000000abc,v1={1700000000abc}'),
	('40 plus', 't=+1700000000,v1={S}'), ('41 plus, signed so', 't=+1700000000,v1={+1700000000}'), ('minus', 't=-1700000000,v1={-1700000000}'),
	('44 fraction', 't=1700000000.5,v1={S}'), ('44 signed so', 't=1700000000.5,v1={1700000000.5}'), ('46 hexadecimal', 't=0x6553f100,v1={S}'),
	('46 signed so', 't=0x6553f100,v1={0x6553f100}'), ('47 underscores', 't=1_700_000_000,v1={S}'), ('48 exponent', 't=17e8,v1={S}'), ('48 signed so', 't=17e8,v1={17e8}'),
	('Arabic digits', 't=١٧٠٠٠٠٠٠٠٠,v1={S}'), ('leading zero, signed so', 't=01700000000,v1={01700000000}'), ('leading zero', 't=01700000000,v1={S}'),
	('61 two headers joined', 't=1600000000,v1={1600000000}, t=1700000000,v1={S}'), ('62 without blank', 't=1600000000,v1={1600000000},t=1700000000,v1={S}'),
	('18 digits', 't=170000000000000000,v1={170000000000000000}'), ('19 digits', 't=1700000000000000000,v1={1700000000000000000}'),
	('2^64 + t', 't=18446744075409551616,v1={S}'), ('unknown items around', 'x=1,t=1700000000,y,v1={S},z=,=,=1'), ('key of nothing', '=1700000000,v1={S}')
	) AS x (name, header);
-- upper-case hex; truncated
SELECT t.check('t=1700000000,v1=' || upper(t.sig(convert_to(:'body', 'UTF8'), 'whsec_test_secret', '1700000000')), :'body') AS upper,
	   t.check('t=1700000000,v1=' || left(t.sig(convert_to(:'body', 'UTF8'), 'whsec_test_secret', '1700000000'), 63), :'body') AS truncated,
	   t.check('t=1700000000,v1=' || encode(decode(t.sig(convert_to(:'body', 'UTF8'), 'whsec_test_secret', '1700000000'), 'hex'), 'base64'), :'body') AS base64;
-- each of the 64 digits counts
SELECT count(*) AS tried, count(*) FILTER (WHERE t.check('t=1700000000,v1=' || overlay(s PLACING CASE WHEN substr(s, i, 1) = 'a' THEN 'b' ELSE 'a' END FROM i), :'body') <> 'false') AS accepted
  FROM t.sig(convert_to(:'body', 'UTF8'), 'whsec_test_secret', '1700000000') AS s, generate_series(1, 64) AS i;
-- many signatures: sixteen well-formed ones are looked at; a header has 4 kB at most
SELECT n, t.check('t=1700000000' || repeat(',v1={0}', n - 1) || ',v1={S}', :'body') AS good_comes_last FROM unnest('{1, 2, 15, 16, 17, 40}'::int[]) AS n;
SELECT n, t.check('t=1700000000' || repeat(',v1=x', n) || ',v1={S}', :'body') AS after_malformed FROM unnest('{1, 16, 100, 800}'::int[]) AS n;
SELECT n, t.check(repeat(',', n - 80) || 't=1700000000,v1={S}', :'body') AS of_length FROM unnest('{4096, 4097, 100000}'::int[]) AS n;

-- Age: both sides, whole seconds, the boundary passes
SELECT tolerance, at - 1700000000 AS now_is, t.check('t=1700000000,v1={S}', :'body', tolerance => tolerance, at => format('to_timestamp(%s)', at)) AS verdict
  FROM (VALUES ('''5 min''', 1700000000.0), ('''5 min''', 1700000299), ('''5 min''', 1700000300), ('''5 min''', 1700000300.9), ('''5 min''', 1700000301), ('''5 min''', 1700000400),
	('''5 min''', 1699999701), ('''5 min''', 1699999700), ('''5 min''', 1699999699.9), ('''5 min''', 1699999699), ('''5 min''', 1699999600),
	('''10 s''', 1700000015), ('''20 s''', 1700000015), ('''10 s''', 1700000009), ('''10 s''', 1699999985), ('''1 s''', 1700000001.99), ('''1.9 s''', 1700000001), ('''1.9 s''', 1700000002),
	('''24 hours''', 1700086400), ('''24 hours''', 1700086401), ('''2562047787 hours''', 0), ('NULL', 0), ('NULL', 9000000000), ('''5 min''', 0), ('''5 min''', -1)) AS x (tolerance, at);
SELECT at, t.check('t=1700000000,v1={S}', :'body', at => at) AS with_tolerance, t.check('t=1700000000,v1={S}', :'body', at => at, tolerance => 'NULL') AS without
  FROM unnest(ARRAY['''infinity''', '''-infinity''', '''294276-12-31 23:59:59 UTC''', '''4714-11-24 00:00:00 UTC BC''', 'NULL']) AS at;
SELECT header, t.check(header, :'body', tolerance => 'NULL') AS no_tolerance, t.check(header, :'body', at => 'to_timestamp(2147483648)') AS in_2038
  FROM unnest('{"t=0,v1={0000}", "t=12345,v1={12345}", "t=2147483648,v1={2147483648}", "t=999999999999999999,v1={999999999999999999}"}'::text[]) AS header;
SELECT t.check('t=0,v1=' || t.sig(convert_to(:'body', 'UTF8'), 'whsec_test_secret', '0'), :'body', tolerance => 'NULL') AS t_zero,
	   t.check('t=0,v1=' || t.sig(convert_to(:'body', 'UTF8'), 'whsec_test_secret', '0'), :'body') AS t_zero_too_old;
-- a tolerance that is none is refused, not guessed at
SELECT tolerance, t.check('t=1700000000,v1={S}', :'body', tolerance => tolerance) AS result
  FROM unnest(ARRAY['''0''', '''0.999 s''', '''-5 min''', '''1 day''', '''1 month''', '''1 day -23:00''', '''-1 day 25:00''', '''1 year''']) AS tolerance;
-- stale and wrong: wrong
SELECT t.check('t=1600000000,v1={0}', :'body');
-- by default the clock is now's, and five minutes
SELECT age, stripe_lifecycle.verify_webhook_signature(:'body'::text, t.header(:'body'::text, age => age), 'whsec_test_secret') AS verdict
  FROM unnest('{0, 100, -100, 290, 400, -400, 86400}'::int[]) AS age;

-- Secrets: the whole string is the key
SELECT secret, t.check('t=1700000000,v1={S}', :'body', secret) AS verdict
  FROM unnest(ARRAY['whsec_test_secret', 'test_secret', 'whsec_test_secre', 'whsec_test_secret ', ' whsec_test_secret', 'WHSEC_TEST_SECRET', 'whsec_test_secret' || E'\n', 'whsec_other_secret']) AS secret;
SELECT t.check('t=1700000000,v1={O}', :'body', 'whsec_other_secret') AS other, t.check('t=1700000000,v1={S},v1={O}', :'body', 'whsec_other_secret') AS rolled;
SELECT length(secret), t.check('t=1700000000,v1=' || t.sig(convert_to(:'body', 'UTF8'), secret, '1700000000'), :'body', secret) AS verdict
  FROM unnest(ARRAY['x', repeat('k', 64), repeat('k', 65), repeat('k', 1000), 'ключ', 'with blanks in it']) AS secret;
-- blank ones are refused, even with the signature that goes with them
SELECT encode(convert_to(secret, 'UTF8'), 'hex') AS secret, t.check('t=1700000000,v1=' || coalesce(encode(hmac('1700000000.' || :'body', coalesce(nullif(secret, ''), 'x'), 'sha256'), 'hex'), '{S}'), :'body', secret) AS result
  FROM unnest(ARRAY[NULL, '', ' ', E'\t', E'\n', E' \r\n\t\f\x0b']) AS secret;
SELECT t.error($$SELECT stripe_lifecycle.verify_webhook_signature('x'::text, 't=1,v1=' || repeat('0', 64), '')$$);
SELECT t.code($$SELECT stripe_lifecycle.verify_webhook_signature(NULL::text, NULL, NULL, NULL, NULL)$$);

-- Payloads: bytes, not text and not JSON
SELECT what, t.check('t=1700000000,v1={S}', body) AS verdict
  FROM (VALUES ('empty', ''), ('not JSON', '} I am not valid JSON; 123]['), ('line end', E'{}\n'), ('CRLF', E'{}\r\n'), ('é', '{"name": "é"}'), ('emoji', '{"name": "🂡"}'),
	('dots', '1700000000.{}'), ('a megabyte', repeat('x', 1048576))) AS x (what, body);
SELECT what, stripe_lifecycle.verify_webhook_signature(changed, t.fill('t=1700000000,v1={S}', convert_to(:'body', 'UTF8')), 'whsec_test_secret', at => to_timestamp(1700000000)) AS verdict
  FROM (VALUES ('as it was', :'body'), ('one byte more', :'body' || ' '), ('a line end more', :'body' || E'\n'), ('through jsonb and back', (:'body'::jsonb - 'object')::text),
	('blanks taken out', replace(:'body', ': ', ':')), ('other case', replace(:'body', 'evt', 'Evt')), ('shortened', left(:'body', -1)), ('{}', '{}'), ('empty', ''), ('NULL', NULL)) AS x (what, changed);
SELECT stripe_lifecycle.verify_webhook_signature(NULL::bytea, 't=1700000000,v1=' || repeat('0', 64), 'whsec_test_secret') AS null_bytes,
	   stripe_lifecycle.verify_webhook_signature('x'::bytea, NULL, 'whsec_test_secret') AS null_header;
SELECT what, stripe_lifecycle.verify_webhook_signature(bytes, t.fill('t=1700000000,v1={S}', signed), 'whsec_test_secret', at => to_timestamp(1700000000)) AS verdict
  FROM (VALUES ('68 with its BOM', '\xefbbbf7b7d'::bytea, '\xefbbbf7b7d'::bytea), ('BOM dropped', '\x7b7d', '\xefbbbf7b7d'), ('BOM added', '\xefbbbf7b7d', '\x7b7d'),
	('not UTF-8', '\xff00fe80', '\xff00fe80'), ('NUL in the middle', '\x7b007d', '\x7b007d'), ('cut off at NUL', '\x7b', '\x7b007d'), ('UTF-16', '\xfffe7b007d00', '\xfffe7b007d00'),
	('none', '\x', '\x')) AS x (what, bytes, signed);

\i :end
