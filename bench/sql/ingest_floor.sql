-- The floor of ingestion: the bare writes of one event and nothing else, by one PL/pgSQL function,
-- into tables of the same columns and indexes as the extension's, without its guards. No
-- signature, no payload, no lock, no decision.

CREATE TABLE bench.floor_payments (LIKE stripe_lifecycle.payments INCLUDING ALL) WITH (fillfactor = 70);
CREATE TABLE bench.floor_transitions (LIKE stripe_lifecycle.payment_transitions INCLUDING ALL);
CREATE TABLE bench.floor_events (LIKE stripe_lifecycle.webhook_events INCLUDING ALL);
INSERT INTO bench.floor_payments SELECT * FROM stripe_lifecycle.payments ORDER BY id;
INSERT INTO bench.floor_transitions SELECT * FROM stripe_lifecycle.payment_transitions ORDER BY payment_id;
VACUUM ANALYZE bench.floor_payments, bench.floor_transitions;
CREATE SEQUENCE bench.floor_next;

CREATE FUNCTION bench.floor_ingest(the_event text, the_payment uuid, intent text) RETURNS text
	LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO bench.floor_events (event_id, type, created, livemode, api_version, object_id,
			payment_intent_id, payment_id, outcome, source, received_at, applied_at, payload)
		VALUES (the_event, 'payment_intent.succeeded', now(), false, '2026-10-28.endive', intent,
			intent, the_payment, 'applied', 'webhook', now(), now(), '{}');
	UPDATE bench.floor_payments
		SET state = 'succeeded', amount_received = amount, transitions = transitions + 1,
			client_secret = NULL, updated_at = now(), finished_at = now()
		WHERE id = the_payment;
	INSERT INTO bench.floor_transitions (payment_id, seq, from_state, to_state, at, source,
			event_id, event_type, event_created, role, amount, currency, livemode, hash)
		VALUES (the_payment, 2, 'created', 'succeeded', now(), 'webhook', the_event,
			'payment_intent.succeeded', now(), current_user, 2000, 'usd', false,
			'\x0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef');
	RETURN 'applied';
END
$$;
