-- What may not be changed, deleted or written by hand
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/setup/begin.sql'
\set end :abs_srcdir '/setup/end.sql'
\i :begin

SELECT stripe_lifecycle.create_payment(2000, 'usd', 'one', 'a book', 'cus_1', 'jenny@example.com',
	'automatic', 'retry', 'acct_1', '{"order": "1"}', '{"off_session": true}') IS NOT NULL AS made;
SELECT id AS one FROM stripe_lifecycle.payments \gset
SELECT t.ingest(t.event('evt_1', 'payment_intent.processing', 1000, 'pi_1', :'one'));
SELECT stripe_lifecycle.cancel_payment(:'one') > 0 AS queued;

-- Every column of payments: first those that are fixed (SL003), then those
-- that only events change (SL004)
SELECT attname AS column, t.code(format('UPDATE stripe_lifecycle.payments SET %I = %s', attname,
	CASE WHEN atttypid = 'uuid'::regtype THEN 'gen_random_uuid()'
		 WHEN atttypid = 'jsonb'::regtype THEN '''{"x": "y"}'''
		 WHEN atttypid = 'boolean'::regtype THEN 'NOT ' || attname
		 WHEN atttypid = 'timestamptz'::regtype THEN '''2001-01-01'''
		 WHEN atttypid = 'bytea'::regtype THEN '''mine'''
		 WHEN atttypid = 'text'::regtype THEN '''eur'''
		 ELSE '777' END)) AS new_value,
	   t.code(format('UPDATE stripe_lifecycle.payments SET %I = NULL', attname)) AS null_value,
	   t.code(format('UPDATE stripe_lifecycle.payments SET %I = %1$I', attname)) AS same_value
  FROM pg_attribute WHERE attrelid = 'stripe_lifecycle.payments'::regclass AND attnum > 0 AND attname <> 'state'
 ORDER BY attnum;

\pset format unaligned
\t on
SELECT t.error($$UPDATE stripe_lifecycle.payments SET amount = 1$$);
SELECT t.error($$UPDATE stripe_lifecycle.payments SET client_secret = 'mine'$$);
-- the state is looked at first, then the columns in order
SELECT t.error($$UPDATE stripe_lifecycle.payments SET state = 'failed', amount = 1$$);

-- Nothing is deleted or truncated
SELECT t.error($$DELETE FROM stripe_lifecycle.payments$$);
SELECT t.error($$TRUNCATE stripe_lifecycle.payments$$);
\t off
\pset format aligned
SELECT name, t.code(format('DELETE FROM stripe_lifecycle.%I', name)) AS delete,
	   t.code(format('TRUNCATE stripe_lifecycle.%I', name)) AS truncate,
	   t.code(format('TRUNCATE stripe_lifecycle.%I RESTART IDENTITY CASCADE', name)) AS truncate_cascade
  FROM unnest('{payments, payment_transitions, webhook_events, api_requests}'::text[]) AS name;
SELECT t.code('TRUNCATE stripe_lifecycle.payments, stripe_lifecycle.payment_transitions, stripe_lifecycle.webhook_events');
SELECT t.code('MERGE INTO stripe_lifecycle.payments p USING (VALUES (1)) AS x (n) ON true WHEN MATCHED THEN DELETE');
SET session_replication_role = replica;
SELECT name, t.code(format('DELETE FROM stripe_lifecycle.%I', name)) AS delete,
	   t.code(format('TRUNCATE stripe_lifecycle.%I', name)) AS truncate
  FROM unnest('{payments, payment_transitions, webhook_events, api_requests}'::text[]) AS name;
RESET session_replication_role;

-- The audit trail is appended to by the guard and by nobody else
SELECT attname AS column, t.code(format('UPDATE stripe_lifecycle.payment_transitions SET %I = NULL', attname)) AS null_value,
	   t.code(format('UPDATE stripe_lifecycle.payment_transitions SET %I = %1$I', attname)) AS same_value
  FROM pg_attribute WHERE attrelid = 'stripe_lifecycle.payment_transitions'::regclass AND attnum > 0
 ORDER BY attnum;
SELECT t.code($$UPDATE stripe_lifecycle.payment_transitions SET note = 'mine'$$);
SELECT t.code(format($$INSERT INTO stripe_lifecycle.payment_transitions VALUES
	(%L, 3, 'processing', 'succeeded', now(), 'webhook', 'evt_2', 'payment_intent.succeeded', now(), 'x', NULL, 2000, 'usd', false, sha256('x'))$$, :'one')) AS of_this_payment,
	   t.code($$INSERT INTO stripe_lifecycle.payment_transitions VALUES
	(gen_random_uuid(), 1, NULL, 'created', now(), 'create_payment', NULL, NULL, NULL, 'x', NULL, 2000, 'usd', NULL, sha256('x'))$$) AS of_no_payment;
SELECT t.code($$INSERT INTO stripe_lifecycle.payment_transitions
	SELECT * FROM stripe_lifecycle.payment_transitions ON CONFLICT (payment_id, seq) DO UPDATE SET note = 'mine'$$);
SELECT t.code($$INSERT INTO stripe_lifecycle.payment_transitions
	SELECT * FROM stripe_lifecycle.payment_transitions ON CONFLICT DO NOTHING$$) AS nothing_written;

-- Events: none is written or changed by hand, not even from NULL
SELECT attname AS column, t.code(format('UPDATE stripe_lifecycle.webhook_events SET %I = %s', attname,
	CASE WHEN atttypid = 'uuid'::regtype THEN 'gen_random_uuid()' WHEN atttypid = 'jsonb'::regtype THEN '''{"x": "y"}'''
		 WHEN atttypid = 'boolean'::regtype THEN 'NOT livemode' WHEN atttypid = 'timestamptz'::regtype THEN '''2001-01-01'''
		 WHEN attname = 'outcome' THEN '''unmatched''' ELSE '''x''' END)) AS new_value
  FROM pg_attribute WHERE attrelid = 'stripe_lifecycle.webhook_events'::regclass AND attnum > 0
 ORDER BY attnum;
\pset format unaligned
\t on
SELECT t.error($$INSERT INTO stripe_lifecycle.webhook_events VALUES ('evt_mine', 'payment_intent.succeeded', now(), false,
	NULL, NULL, 'pi_1', 'pi_1', NULL, 'unmatched', NULL, NULL, 'webhook', now(), NULL, '{}')$$);
SELECT t.error($$UPDATE stripe_lifecycle.webhook_events SET outcome = 'unmatched'$$);
SELECT t.error($$INSERT INTO stripe_lifecycle.api_requests (payment_id, operation, method, path, body, idempotency_key, created_at, next_attempt_at)
	VALUES (gen_random_uuid(), 'create', 'POST', '/v1/payment_intents', 'amount=1', 'mine', now(), now())$$);
SELECT t.error($$UPDATE stripe_lifecycle.api_requests SET body = 'amount=1'$$);
\t off
\pset format aligned

-- The outbox: what is sent is frozen, what happened to it is bookkeeping
SELECT attname AS column, t.code(format('UPDATE stripe_lifecycle.api_requests SET %I = %s', attname,
	CASE WHEN attname = 'id' THEN 'DEFAULT' WHEN attname = 'status' THEN '''unknown'''
		 WHEN atttypid = 'uuid'::regtype THEN 'gen_random_uuid()' WHEN atttypid = 'jsonb'::regtype THEN '''{"x": "y"}'''
		 WHEN atttypid = 'timestamptz'::regtype THEN '''2001-01-01'''
		 WHEN atttypid = 'text'::regtype THEN '''x''' ELSE '1' END || ' WHERE operation = ''create''')) AS new_value
  FROM pg_attribute WHERE attrelid = 'stripe_lifecycle.api_requests'::regclass AND attnum > 0
 ORDER BY attnum;

-- Attempts: completed once, then left alone
INSERT INTO stripe_lifecycle.api_attempts (request_id, attempt, started_at) SELECT min(id), 1, now() FROM stripe_lifecycle.api_requests;
SELECT t.code($$UPDATE stripe_lifecycle.api_attempts SET http_status = 200$$) AS unfinished,
	   t.code($$UPDATE stripe_lifecycle.api_attempts SET finished_at = now(), result = 'succeeded'$$) AS finish;
\pset format unaligned
\t on
SELECT t.error($$UPDATE stripe_lifecycle.api_attempts SET http_status = 500$$);
SELECT t.error($$UPDATE stripe_lifecycle.api_attempts SET finished_at = NULL$$);
SELECT t.error($$DELETE FROM stripe_lifecycle.api_attempts$$);
SELECT t.error($$TRUNCATE stripe_lifecycle.api_attempts$$);
\t off
\pset format aligned

-- Wide values move to another table behind the scenes and are frozen all the same
SELECT stripe_lifecycle.create_payment(2000, 'usd', 'wide', repeat(md5('a'), 300), metadata => (
	SELECT jsonb_object_agg('key' || i, (SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, 15) AS j))
	  FROM generate_series(1, 49) AS i)) AS wide \gset
SELECT t.ingest(t.event('evt_wide', 'payment_intent.succeeded', 1000, 'pi_wide', :'wide')), t.state(:'wide');
SELECT t.code($$UPDATE stripe_lifecycle.payments SET metadata = metadata || '{"key7": "x"}' WHERE idempotency_key = 'wide'$$),
	   t.code($$UPDATE stripe_lifecycle.payments SET description = description || 'x' WHERE idempotency_key = 'wide'$$),
	   t.code($$UPDATE stripe_lifecycle.payments SET metadata = (metadata::text)::jsonb WHERE idempotency_key = 'wide'$$) AS same;

SELECT t.broken_audits();
\i :end
