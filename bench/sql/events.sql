-- :n payments that wait for their money, and for each a signed event of about 3 KB saying that it
-- came. Who they are goes into the table past the guards, by the superuser and for the
-- measurement only: the worker would need a call to Stripe for each.

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
-- all in the row: fetching it should cost every contender the same
ALTER TABLE bench.events ALTER intent SET STORAGE PLAIN, ALTER event_id SET STORAGE PLAIN,
	ALTER body SET STORAGE PLAIN, ALTER header SET STORAGE PLAIN;

INSERT INTO bench.events (n, payment_id, intent, event_id)
	SELECT i, stripe_lifecycle.create_payment(2000, 'usd', 'order-' || lpad(i::text, 9, '0')),
		'pi_3TBench' || lpad(i::text, 17, '0'), 'evt_3TBench' || lpad(i::text, 17, '0')
	FROM generate_series(1, :n) i;

ALTER TABLE stripe_lifecycle.payments DISABLE TRIGGER USER;
UPDATE stripe_lifecycle.payments p
	SET payment_intent_id = e.intent, client_secret = e.intent || '_secret_bench', livemode = false
	FROM bench.events e WHERE p.id = e.payment_id;
ALTER TABLE stripe_lifecycle.payments ENABLE ALWAYS TRIGGER stripe_lifecycle_guard;
ALTER TABLE stripe_lifecycle.payments ENABLE ALWAYS TRIGGER stripe_lifecycle_guard_truncate;

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
  "request": {"id": "req_3TBenchAbCdEf", "idempotency_key": "stripe_lifecycle-%3$s-create"},
  "type": "payment_intent.succeeded"}$$, event_id, intent, payment_id, repeat('lorem ipsum ', 130));
UPDATE bench.events SET header = 't=' || t || ',v1=' || encode(hmac(
		convert_to(t || '.' || body, 'UTF8'), convert_to(:'secret', 'UTF8'), 'sha256'), 'hex')
	FROM (SELECT extract(epoch FROM now())::bigint AS t) AS clock;

-- every contender finds its rows packed alike
VACUUM (FULL, ANALYZE) stripe_lifecycle.payments;
VACUUM (FULL, ANALYZE) bench.events;
CREATE SEQUENCE bench.next_event;
