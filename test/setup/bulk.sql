-- Fills a database where the extension has just been created with :n payments of three
-- moves each, their events and requests, by plain INSERTs as from a dump. Needs the
-- functions of test/setup/audit.sql. Says nothing.
CREATE FUNCTION t.bulk_id(n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
	SELECT ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid
$$;
CREATE TEMP TABLE bulk AS
SELECT t.bulk_id(n) AS payment_id, seq,
	   (CASE seq WHEN 2 THEN 'created' WHEN 3 THEN 'processing' END)::stripe_lifecycle.payment_state AS from_state,
	   (CASE seq WHEN 1 THEN 'created' WHEN 2 THEN 'processing' ELSE 'succeeded' END)::stripe_lifecycle.payment_state AS to_state,
	   '2026-01-01 00:00+00'::timestamptz + n * interval '1 s' + seq * interval '1 us' AS at,
	   CASE seq WHEN 1 THEN 'create_payment' ELSE 'webhook' END AS source,
	   CASE WHEN seq > 1 THEN format('evt_%s_%s', n, seq) END AS event_id,
	   CASE seq WHEN 2 THEN 'payment_intent.processing' WHEN 3 THEN 'payment_intent.succeeded' END AS event_type,
	   CASE WHEN seq > 1 THEN '2026-01-01 00:00+00'::timestamptz + n * interval '1 s' END AS event_created,
	   'shop' AS role, NULL::text AS note, 1000 + n AS amount, 'usd' AS currency,
	   CASE WHEN seq > 1 THEN false END AS livemode, '\x'::bytea AS hash
  FROM generate_series(1, :n) n, generate_series(1, 3) seq;
ALTER TABLE bulk ADD fields bytea;
UPDATE bulk SET fields = t.field(payment_id::text) || t.field(seq::text) || t.field(from_state::text) || t.field(to_state::text)
	|| t.field(t.iso(at)) || t.field(source) || t.field(event_id) || t.field(event_type) || t.field(t.iso(event_created))
	|| t.field(role) || t.field(note) || t.field(amount::text) || t.field(currency) || t.field(livemode::text);
CREATE INDEX ON bulk (payment_id, seq);
ANALYZE bulk;
UPDATE bulk SET hash = sha256(decode(repeat('00', 32), 'hex') || fields) WHERE seq = 1;
UPDATE bulk b SET hash = sha256(p.hash || b.fields) FROM bulk p WHERE b.seq = 2 AND p.seq = 1 AND p.payment_id = b.payment_id;
UPDATE bulk b SET hash = sha256(p.hash || b.fields) FROM bulk p WHERE b.seq = 3 AND p.seq = 2 AND p.payment_id = b.payment_id;
ALTER TABLE bulk DROP fields;
INSERT INTO stripe_lifecycle.payment_transitions SELECT * FROM bulk ORDER BY payment_id, seq;
INSERT INTO stripe_lifecycle.payments (id, idempotency_key, state, amount, currency, description, metadata, payment_intent_id, livemode,
	amount_received, latest_charge, last_event_id, last_event_created, last_event_rank, transitions, created_at, updated_at, finished_at, audit_head)
SELECT payment_id, 'order ' || amount, 'succeeded', amount, 'usd', 'Order ' || amount, jsonb_build_object('order', amount::text), 'pi_3Bulk' || amount, false,
	amount, 'ch_3Bulk' || amount, replace(event_id, '_3', '_2'), event_created, 30, 3, at, at, at, hash
  FROM bulk WHERE seq = 3 ORDER BY payment_id;
INSERT INTO stripe_lifecycle.webhook_events
SELECT event_id, event_type, event_created, false, '2026-10-28.endive', NULL, 'pi_3Bulk' || amount, 'pi_3Bulk' || amount, payment_id, 'applied', NULL, NULL,
	'webhook', at, at, jsonb_build_object('id', event_id, 'object', 'event', 'type', event_type, 'livemode', false, 'created', extract(epoch FROM event_created),
		'api_version', '2026-10-28.endive', 'request', jsonb_build_object('id', 'req_' || amount, 'idempotency_key', payment_id),
		'data', jsonb_build_object('object', jsonb_build_object('id', 'pi_3Bulk' || amount, 'object', 'payment_intent', 'amount', amount, 'currency', 'usd',
			'status', to_state, 'livemode', false, 'latest_charge', 'ch_3Bulk' || amount, 'capture_method', 'automatic', 'amount_received', amount,
			'metadata', jsonb_build_object('stripe_lifecycle_payment_id', payment_id))))
  FROM bulk WHERE seq > 1 ORDER BY payment_id, seq;
INSERT INTO stripe_lifecycle.api_requests (payment_id, operation, method, path, body, idempotency_key, created_at, status, attempts, next_attempt_at,
	first_sent_at, finished_at, http_status, stripe_request_id)
SELECT payment_id, 'create', 'POST', '/v1/payment_intents', format('amount=%s&currency=usd&metadata[stripe_lifecycle_payment_id]=%s', amount, payment_id),
	format('stripe_lifecycle-%s-create', payment_id), at, 'succeeded', 1, at, at, at, 200, 'req_' || amount
  FROM bulk WHERE seq = 1 ORDER BY payment_id;
INSERT INTO stripe_lifecycle.api_attempts (request_id, attempt, started_at, finished_at, duration_ms, http_status, stripe_request_id, result, idempotent_replayed)
SELECT id, 1, created_at, created_at, 200, 200, stripe_request_id, 'succeeded', false FROM stripe_lifecycle.api_requests;
DROP TABLE bulk;
