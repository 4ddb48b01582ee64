-- :n payments whose PaymentIntents are known, and for each of them a signed event of about 3 KB.
-- The payments are put in past the guards, by the superuser and for this benchmark only.

CREATE EXTENSION stripe_lifecycle;
CREATE EXTENSION pgcrypto;
CREATE SCHEMA bench;

CREATE TABLE bench.events (
	n int PRIMARY KEY,
	payment_id uuid NOT NULL,
	intent text NOT NULL,
	event_id text NOT NULL,
	body text,
	header text
);
ALTER TABLE bench.events ALTER body SET STORAGE PLAIN;
CREATE SEQUENCE bench.ingest_next;

-- ids that grow with time, as those of create_payment() do
INSERT INTO bench.events (n, payment_id, intent, event_id)
	SELECT i, (lpad(to_hex(1787000000000 + i), 12, '0') || '7' || substr(md5(i::text), 1, 3)
				|| '8' || substr(md5(i::text), 4, 15))::uuid,
		'pi_3TBench' || lpad(i::text, 16, '0'), 'evt_3TBench' || lpad(i::text, 16, '0')
	FROM generate_series(1, :n) i;

ALTER TABLE stripe_lifecycle.payments DISABLE TRIGGER ALL;
ALTER TABLE stripe_lifecycle.payment_transitions DISABLE TRIGGER ALL;
INSERT INTO stripe_lifecycle.payments (id, idempotency_key, amount, currency, payment_intent_id,
		client_secret, livemode, audit_head)
	SELECT payment_id, 'order-' || n, 2000, 'usd', intent, intent || '_secret_bench', false, sha256('any')
	FROM bench.events ORDER BY n;
INSERT INTO stripe_lifecycle.payment_transitions (payment_id, seq, to_state, at, source, role, amount, currency, hash)
	SELECT payment_id, 1, 'created', now(), 'create_payment', current_user, 2000, 'usd', sha256('any')
	FROM bench.events ORDER BY n;
ALTER TABLE stripe_lifecycle.payments ENABLE TRIGGER ALL;
ALTER TABLE stripe_lifecycle.payment_transitions ENABLE TRIGGER ALL;
ALTER TABLE stripe_lifecycle.payments ENABLE ALWAYS TRIGGER stripe_lifecycle_guard;
ALTER TABLE stripe_lifecycle.payment_transitions ENABLE ALWAYS TRIGGER stripe_lifecycle_guard;

-- the fields of a real event, and a description that brings it to 3 KB
UPDATE bench.events SET body = format($${
  "id": "%1$s", "object": "event", "api_version": "2026-10-28.endive", "created": 1787000003,
  "data": {"object": {
    "id": "%2$s", "object": "payment_intent", "amount": 2000, "amount_capturable": 0,
    "amount_details": {"tip": {}}, "amount_received": 2000, "application": null,
    "application_fee_amount": null, "automatic_payment_methods": {"enabled": true},
    "canceled_at": null, "cancellation_reason": null, "capture_method": "automatic",
    "client_secret": "%2$s_secret_bench", "confirmation_method": "automatic",
    "created": 1787000000, "currency": "usd", "customer": null, "description": "%4$s",
    "last_payment_error": null, "latest_charge": "ch_3TBench", "livemode": false,
    "metadata": {"order_id": "42", "stripe_lifecycle_payment_id": "%3$s"},
    "next_action": null, "on_behalf_of": null, "payment_method": "pm_1TBench",
    "payment_method_options": {"card": {"installments": null, "mandate_options": null,
      "network": null, "request_three_d_secure": "automatic"}},
    "payment_method_types": ["card"], "processing": null, "receipt_email": null, "review": null,
    "setup_future_usage": null, "shipping": null, "statement_descriptor": null,
    "statement_descriptor_suffix": null, "status": "succeeded", "transfer_data": null,
    "transfer_group": null}},
  "livemode": false, "pending_webhooks": 1,
  "request": {"id": "req_bench", "idempotency_key": "stripe_lifecycle-%3$s-create"},
  "type": "payment_intent.succeeded"}$$, event_id, intent, payment_id, repeat('lorem ipsum ', 130));
UPDATE bench.events SET header = 't=' || t || ',v1=' || encode(hmac(
		convert_to(t || '.' || body, 'UTF8'), convert_to(:'secret', 'UTF8'), 'sha256'), 'hex')
	FROM (SELECT extract(epoch FROM now())::bigint AS t) AS clock;
SELECT format('an event has %s bytes', avg(length(body))::int) FROM bench.events WHERE n <= 100;
