-- The audit trail proves itself: whatever is done to it behind the guard's back,
-- verify_audit() finds it
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/setup/begin.sql'
\set end :abs_srcdir '/setup/end.sql'
\set audit :abs_srcdir '/setup/audit.sql'
\i :begin
\set ECHO none
\i :audit
\set ECHO all

-- a: five moves; b: paid; c: new; d: failed, then paid; and some around them
SELECT t.pay('before') < t.pay('before too') AS in_order;
SELECT t.pay('a', 'retry') AS a \gset
SELECT t.ingest(t.event('evt_a' || n, 'payment_intent.' || type, 1000 + n, 'pi_a', :'a'))
  FROM unnest('{requires_action, payment_failed, processing, succeeded}'::text[]) WITH ORDINALITY AS x (type, n);
SELECT t.pay_in('succeeded', 'b') AS b, t.pay('c') AS c, t.pay('d') AS d \gset
SELECT t.ingest(t.event('evt_d' || n, 'payment_intent.' || type, 1000 + n, 'pi_d', :'d'))
  FROM unnest('{canceled, succeeded}'::text[]) WITH ORDINALITY AS x (type, n);
INSERT INTO stripe_lifecycle.payments (id, idempotency_key, amount, currency)
	VALUES ('01900000-0000-7000-8000-000000000001', 'by hand', 2000, 'usd');
SELECT count(*) > 0 AS made FROM (SELECT t.pay('filler ' || n) FROM generate_series(1, 1100) AS n) AS x;

-- all is well, and the library's hashes are those of the documented format
SELECT * FROM stripe_lifecycle.verify_audit();
SELECT count(*) AS rows, count(*) FILTER (WHERE hash = wanted AND octet_length(hash) = 32) AS as_documented
  FROM (SELECT t.hash, t.hash(lag(hash) OVER (PARTITION BY payment_id ORDER BY seq), t) AS wanted
		  FROM stripe_lifecycle.payment_transitions t) AS x;
SELECT count(*) AS payments, count(*) FILTER (WHERE audit_head = hash) AS with_their_head
  FROM stripe_lifecycle.payments p JOIN stripe_lifecycle.payment_transitions ON payment_id = id AND seq = transitions;
SELECT seq, from_state, to_state, source, event_type, note, amount, currency, livemode
  FROM stripe_lifecycle.payment_transitions WHERE payment_id = :'d' ORDER BY seq;

-- Do something as a superuser with the triggers off; what verify_audit() says of
-- it; and undo it.
CREATE FUNCTION t.key(payment uuid) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce((SELECT idempotency_key FROM stripe_lifecycle.payments WHERE id = payment), '?')
$$;
CREATE FUNCTION t.found(VARIADIC statements text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	lines text[];
	name text;
	statement text;
BEGIN
	BEGIN
		FOREACH name IN ARRAY '{payments, payment_transitions, webhook_events}'::text[] LOOP
			EXECUTE format('ALTER TABLE stripe_lifecycle.%I DISABLE TRIGGER ALL', name);
		END LOOP;
		FOREACH statement IN ARRAY statements LOOP
			EXECUTE statement;
		END LOOP;
		SELECT array_agg(concat_ws(' | ', t.key(payment_id), seq, problem,
								   regexp_replace(t.mask(detail), '\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S*', '<time>', 'g'))
						 ORDER BY t.key(payment_id) COLLATE "C", seq NULLS LAST, problem, detail)
		  INTO lines FROM stripe_lifecycle.verify_audit();
		RAISE EXCEPTION 'undo';
	EXCEPTION WHEN raise_exception THEN
		NULL;
	END;
	RETURN QUERY SELECT unnest(coalesce(lines, '{nothing}'));
END
$$;
\set trail 'UPDATE stripe_lifecycle.payment_transitions SET'
\set payments 'UPDATE stripe_lifecycle.payments SET'
\set events 'UPDATE stripe_lifecycle.webhook_events SET'
\pset format unaligned
\t on

-- A row altered, in each of its columns, with each kind of change (its position is a matter of checkpoints)
SELECT attname, t.found(format('UPDATE stripe_lifecycle.payment_transitions SET %I = %s WHERE payment_id = %L AND seq = 3',
	attname, CASE WHEN atttypid = 'uuid'::regtype THEN quote_literal('00000000-0000-7000-8000-000000000001')
		WHEN attname = 'seq' THEN '77' WHEN atttypid = 'stripe_lifecycle.payment_state'::regtype THEN '''failed'''
		WHEN atttypid = 'timestamptz'::regtype THEN attname || ' + interval ''1 us'''
		WHEN atttypid = 'bigint'::regtype THEN attname || ' + 1' WHEN atttypid = 'boolean'::regtype THEN 'NOT ' || attname
		WHEN atttypid = 'bytea'::regtype THEN 'set_byte(hash, 31, get_byte(hash, 31) # 1)'
		ELSE 'coalesce(' || attname || ', '''') || '' ''' END, :'a'))
  FROM pg_attribute WHERE attrelid = 'stripe_lifecycle.payment_transitions'::regclass AND attnum > 0 AND attname <> 'position' ORDER BY attnum;
SELECT attname, t.found(format('UPDATE stripe_lifecycle.payment_transitions SET %I = NULL WHERE payment_id = %L AND seq = 3', attname, :'a'))
  FROM pg_attribute WHERE attrelid = 'stripe_lifecycle.payment_transitions'::regclass AND attnum > 0 AND NOT attnotnull
   AND attname <> 'note' ORDER BY attnum;
-- Columns that are never NULL, by somebody who takes that constraint away as well
SELECT attname, t.found('ALTER TABLE stripe_lifecycle.payment_transitions DROP CONSTRAINT payment_transitions_pkey',
	format('ALTER TABLE stripe_lifecycle.payment_transitions ALTER %I DROP NOT NULL', attname),
	format('UPDATE stripe_lifecycle.payment_transitions SET %I = NULL WHERE payment_id = %L AND seq = 3', attname, :'a'))
  FROM pg_attribute WHERE attrelid = 'stripe_lifecycle.payment_transitions'::regclass AND attnum > 0 AND attnotnull
   AND attname <> 'position' ORDER BY attnum;
SELECT attname, t.found('ALTER TABLE stripe_lifecycle.payments DROP CONSTRAINT payments_pkey',
	format('ALTER TABLE stripe_lifecycle.payments ALTER %I DROP NOT NULL', attname),
	format('UPDATE stripe_lifecycle.payments SET %I = NULL WHERE id = %L', attname, :'a'))
  FROM pg_attribute WHERE attrelid = 'stripe_lifecycle.payments'::regclass
   AND attname IN ('id', 'state', 'amount', 'currency', 'transitions') ORDER BY attnum;
-- NULL is not the empty string, and a character moved to the next column is noticed
SELECT t.found(:'trail' || format(' note = '''' WHERE payment_id = %L AND seq = 3', :'a'));
SELECT t.found(:'trail' || format(' event_id = left(event_id, -1), event_type = right(event_id, 1) || event_type WHERE payment_id = %L AND seq = 3', :'a'));
SELECT t.found(:'trail' || format(' hash = substr(hash, 1, 31) WHERE payment_id = %L AND seq = 3', :'a'));
SELECT t.found(:'trail' || format(' hash = hash || ''\x00'' WHERE payment_id = %L AND seq = 5', :'a'));

-- The same with the hashes made anew: of the row alone, of all after it, of the last
SELECT t.found(:'trail' || format(' role = ''nobody'' WHERE payment_id = %L AND seq = 3', :'a'), format('SELECT t.rehash(%L, 3, 3)', :'a'));
SELECT t.found(:'trail' || format(' role = ''nobody'' WHERE payment_id = %L AND seq = 3', :'a'), format('SELECT t.rehash(%L, 3)', :'a'));
SELECT t.found(:'trail' || format(' role = ''nobody'' WHERE payment_id = %L AND seq = 5', :'a'), format('SELECT t.rehash(%L, 5)', :'a'));
SELECT t.found(:'trail' || format(' at = at - interval ''1 day'' WHERE payment_id = %L', :'c'), format('SELECT t.rehash(%L)', :'c'));
SELECT t.found(:'trail' || format(' amount = 1 WHERE payment_id = %L', :'b'), format('SELECT t.rehash(%L)', :'b'));

-- Rows missing: the first, one in between, two, the last, all
SELECT seqs, t.found(format('DELETE FROM stripe_lifecycle.payment_transitions WHERE payment_id = %L AND seq = ANY (%L)', :'a', seqs))
  FROM unnest('{"{1}", "{3}", "{2,3,4}", "{5}", "{1,2,3,4,5}"}'::text[]) AS seqs;
-- and the numbers closed up
SELECT t.found(format('DELETE FROM stripe_lifecycle.payment_transitions WHERE payment_id = %L AND seq = 3', :'a'),
	:'trail' || format(' seq = seq - 1 WHERE payment_id = %L AND seq > 3', :'a'));
-- a trail and a payment cut back together, all hashes right: the events remember
SELECT t.found(format('DELETE FROM stripe_lifecycle.payment_transitions WHERE payment_id = %L AND seq = 2', :'b'),
	:'payments' || format(' state = ''created'', transitions = 1, finished_at = NULL, audit_head = t.hash FROM stripe_lifecycle.payment_transitions t WHERE id = %L AND t.payment_id = id AND t.seq = 1', :'b'));

-- Rows inserted: at the end, in between, before the first, twice the same number
SELECT t.found(format('INSERT INTO stripe_lifecycle.payment_transitions SELECT payment_id, 2, to_state, ''succeeded'', at, ''webhook'', ''evt_x'', ''payment_intent.succeeded'', at, role, NULL, amount, currency, false, hash
	FROM stripe_lifecycle.payment_transitions WHERE payment_id = %L', :'c'), format('SELECT t.rehash(%L, 2)', :'c'));
SELECT t.found(:'trail' || format(' seq = seq + 100 WHERE payment_id = %L AND seq > 2', :'a'), :'trail' || format(' seq = seq - 99 WHERE payment_id = %L AND seq > 100', :'a'),
	format('INSERT INTO stripe_lifecycle.payment_transitions SELECT payment_id, 3, to_state, ''processing'', at, source, event_id, event_type, event_created, role, note, amount, currency, livemode, hash
	FROM stripe_lifecycle.payment_transitions WHERE payment_id = %L AND seq = 2', :'a'), format('SELECT t.rehash(%L, 3, 3)', :'a'));
SELECT t.found('ALTER TABLE stripe_lifecycle.payment_transitions DROP CONSTRAINT payment_transitions_seq_check',
	format('INSERT INTO stripe_lifecycle.payment_transitions SELECT payment_id, 0, from_state, to_state, at, source, event_id, event_type, event_created, role, note, amount, currency, livemode, hash
	FROM stripe_lifecycle.payment_transitions WHERE payment_id = %L AND seq = 1', :'a'));
SELECT t.found('ALTER TABLE stripe_lifecycle.payment_transitions DROP CONSTRAINT payment_transitions_pkey',
	format('INSERT INTO stripe_lifecycle.payment_transitions SELECT * FROM stripe_lifecycle.payment_transitions WHERE payment_id = %L AND seq = 3', :'a'));

-- Rows reordered: two of one payment, the ends of two, and whole trails
SELECT t.found(:'trail' || format(' seq = seq + 1000 WHERE payment_id = %L AND seq IN (2, 3)', :'a'), :'trail' || format(' seq = 1005 - seq WHERE payment_id = %L AND seq > 1000', :'a'));
SELECT t.found(:'trail' || format(' seq = 99 WHERE payment_id = %L AND seq = 2', :'b'),
	:'trail' || format(' payment_id = %L WHERE payment_id = %L AND seq = 2', :'b', :'d'),
	:'trail' || format(' payment_id = %L, seq = 2 WHERE payment_id = %L AND seq = 99', :'d', :'b'));
SELECT t.found(:'trail' || format(' seq = seq + 10 WHERE payment_id = %L', :'a'),
	:'trail' || format(' payment_id = %L WHERE payment_id = %L', :'a', :'d'), :'trail' || format(' payment_id = %L, seq = seq - 10 WHERE payment_id = %L AND seq > 10', :'d', :'a'));

-- Moves that are none, with all hashes right
SELECT t.found(:'trail' || format(' to_state = ''processing'' WHERE payment_id = %L AND seq = 1', :'b'), format('SELECT t.rehash(%L)', :'b'),
	:'payments' || format(' audit_head = t.hash FROM stripe_lifecycle.payment_transitions t WHERE id = %L AND t.payment_id = id AND t.seq = 2', :'b'));
SELECT t.found(:'trail' || format(' from_state = ''processing'' WHERE payment_id = %L AND seq = 2', :'b'), format('SELECT t.rehash(%L)', :'b'),
	:'payments' || format(' audit_head = t.hash FROM stripe_lifecycle.payment_transitions t WHERE id = %L AND t.payment_id = id AND t.seq = 2', :'b'));
SELECT t.found(:'trail' || format(' to_state = ''created'' WHERE payment_id = %L AND seq = 2', :'d'), :'trail' || format(' from_state = ''created'' WHERE payment_id = %L AND seq = 3', :'d'), format('SELECT t.rehash(%L)', :'d'),
	:'payments' || format(' audit_head = t.hash FROM stripe_lifecycle.payment_transitions t WHERE id = %L AND t.payment_id = id AND t.seq = 3', :'d'));

-- The payment's row, in each column that the trail knows; and what it does not
SELECT col, val, t.found(format('UPDATE stripe_lifecycle.payments SET %I = %s WHERE id = %L', col, val, :'b'))
  FROM (VALUES ('state', '''failed'''), ('state', '''created'''), ('transitions', '3'), ('amount', '1'), ('currency', '''eur'''), ('livemode', 'true'), ('livemode', 'NULL'),
	('finished_at', 'NULL'), ('finished_at', 'finished_at + interval ''1 us'''), ('audit_head', 'NULL'), ('audit_head', 'sha256(audit_head)'), ('audit_head', '''x''')) AS x (col, val);
SELECT t.found(:'payments' || format(' finished_at = now() WHERE id = %L', :'c'));
SELECT t.found(:'payments' || format(' livemode = true WHERE id = %L', :'c')) AS not_known_to_the_trail_yet;
SELECT t.found(format('DELETE FROM stripe_lifecycle.payments WHERE id = %L', :'a'));
SELECT t.found(:'payments' || format(' id = ''00000000-0000-7000-8000-000000000001'' WHERE id = %L', :'b'));
SELECT t.found('INSERT INTO stripe_lifecycle.payments (id, idempotency_key, state, amount, currency) VALUES (''ffffffff-0000-7000-8000-000000000001'', ''slipped in'', ''succeeded'', 1, ''usd'')');

-- Events: what is there has to agree, what is gone is gone
SELECT what, t.found(:'events' || ' ' || what || ' WHERE event_id = ''evt_a3''')
  FROM unnest('{payment_id = NULL, outcome = ''recorded'', type = ''charge.failed'', created = created + interval ''1 s''}'::text[]) AS what;
SELECT t.found(:'events' || format(' payment_id = %L WHERE event_id = ''evt_a3''', :'b'));
SELECT t.found('DELETE FROM stripe_lifecycle.webhook_events');
\t off
\pset format aligned

-- One payment alone, one that does not exist; read-only, and in a parallel worker
ALTER TABLE stripe_lifecycle.payment_transitions DISABLE TRIGGER ALL;
UPDATE stripe_lifecycle.payment_transitions SET note = 'mine' WHERE payment_id IN (:'a', :'c') AND seq = 1;
ALTER TABLE stripe_lifecycle.payment_transitions ENABLE ALWAYS TRIGGER stripe_lifecycle_guard;
ALTER TABLE stripe_lifecycle.payment_transitions ENABLE ALWAYS TRIGGER stripe_lifecycle_guard_truncate;
SELECT seq, problem, detail FROM stripe_lifecycle.verify_audit(:'a');
SELECT count(*) FROM stripe_lifecycle.verify_audit(payment_id => :'b');
SELECT count(*) FROM stripe_lifecycle.verify_audit(gen_random_uuid());
SELECT count(*) FROM stripe_lifecycle.verify_audit(NULL);
BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;
SELECT count(*) FROM stripe_lifecycle.verify_audit();
COMMIT;
SELECT set_config(name, 'on', false) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
SELECT count(*) FROM stripe_lifecycle.verify_audit();
-- small memory makes no difference
SET work_mem = '64kB';
SET enable_indexscan = off;
SET enable_bitmapscan = off;
SELECT count(*) FROM stripe_lifecycle.verify_audit();
RESET ALL;
SET client_min_messages = error;

-- Who may: auditors, and nobody else; no client secret is needed for it
CREATE ROLE regress_sl_auditor;
CREATE ROLE regress_sl_app;
SELECT stripe_lifecycle.grant_auditor('regress_sl_auditor');
SELECT stripe_lifecycle.grant_application('regress_sl_app');
GRANT USAGE ON SCHEMA t TO regress_sl_auditor, regress_sl_app;
SET ROLE regress_sl_auditor;
SELECT count(*) FROM stripe_lifecycle.verify_audit();
RESET ROLE;
-- rows that are hidden from the auditor are no rows that are sound
ALTER TABLE stripe_lifecycle.payment_transitions ENABLE ROW LEVEL SECURITY;
CREATE POLICY hide ON stripe_lifecycle.payment_transitions USING (note IS DISTINCT FROM 'mine');
SET ROLE regress_sl_auditor;
SELECT call, t.error('SELECT * FROM stripe_lifecycle.' || call)
  FROM unnest('{verify_audit(), verify_checkpoints(), audit_export()}'::text[]) AS call;
RESET ROLE;
DROP POLICY hide ON stripe_lifecycle.payment_transitions;
ALTER TABLE stripe_lifecycle.payment_transitions DISABLE ROW LEVEL SECURITY;
SET ROLE regress_sl_app;
SELECT t.code('SELECT stripe_lifecycle.verify_audit()');
RESET ROLE;
GRANT EXECUTE ON FUNCTION stripe_lifecycle.verify_audit(uuid) TO regress_sl_app;
SET ROLE regress_sl_app;
SELECT t.code('SELECT stripe_lifecycle.verify_audit()') AS without_the_tables;
RESET ROLE;
DROP OWNED BY regress_sl_auditor, regress_sl_app;
DROP ROLE regress_sl_auditor, regress_sl_app;

-- a payment that has lost its hash is not moved
ALTER TABLE stripe_lifecycle.payments DISABLE TRIGGER ALL;
UPDATE stripe_lifecycle.payments SET audit_head = NULL WHERE id = :'c';
ALTER TABLE stripe_lifecycle.payments ENABLE ALWAYS TRIGGER stripe_lifecycle_guard;
ALTER TABLE stripe_lifecycle.payments ENABLE ALWAYS TRIGGER stripe_lifecycle_guard_truncate;
SELECT t.error(format('SELECT t.ingest(t.event(''evt_c'', ''payment_intent.processing'', 1000, ''pi_c'', %L))', :'c'));

-- a state that is none of the extension's is found, wherever it stands
ALTER TYPE stripe_lifecycle.payment_state ADD VALUE 'refunded';
\pset format unaligned
\t on
SELECT col, t.found(:'trail' || format(' %I = ''refunded'' WHERE payment_id = %L AND seq = 2', col, :'d'))
  FROM unnest('{from_state, to_state}'::text[]) AS col;
SELECT t.found(:'payments' || format(' state = ''refunded'' WHERE id = %L', :'d'));
\i :end
