-- Floors of create_payment() and payment_status().
--
-- create: the bare insert of the same three rows by one PL/pgSQL function, into tables of the same
-- columns and indexes without guards; ids grow with time, as those of create_payment() do.
-- status: a SELECT by primary key of what payment_status() shows of the payment. The :n payments that
-- are looked at get ids that pgbench can make of a number.

CREATE EXTENSION stripe_lifecycle;
CREATE SCHEMA bench;

CREATE TABLE bench.floor_payments (LIKE stripe_lifecycle.payments INCLUDING ALL) WITH (fillfactor = 70);
CREATE TABLE bench.floor_transitions (LIKE stripe_lifecycle.payment_transitions INCLUDING ALL);
CREATE TABLE bench.floor_requests (LIKE stripe_lifecycle.api_requests INCLUDING ALL) WITH (fillfactor = 70);
CREATE SEQUENCE bench.next_payment;
CREATE SEQUENCE bench.floor_next;

CREATE FUNCTION bench.floor_create(key text) RETURNS uuid
	LANGUAGE plpgsql AS $$
DECLARE
	the_id uuid := ('01990000-0000-7000-8000-' || lpad(to_hex(nextval('bench.floor_next')), 12, '0'))::uuid;
BEGIN
	INSERT INTO bench.floor_payments (id, idempotency_key, amount, currency, audit_head)
		VALUES (the_id, key, 2000, 'usd',
			'\x0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef');
	INSERT INTO bench.floor_transitions (payment_id, seq, to_state, at, source, role, amount, currency, hash)
		VALUES (the_id, 1, 'created', now(), 'create_payment', current_user, 2000, 'usd',
			'\x0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef');
	INSERT INTO bench.floor_requests (payment_id, operation, method, path, body, idempotency_key,
			created_at, next_attempt_at)
		VALUES (the_id, 'create', 'POST', '/v1/payment_intents',
			'amount=2000&currency=usd&automatic_payment_methods[enabled]=true&metadata[stripe_lifecycle_payment_id]=01990000-0000-7000-8000-000000000000',
			'stripe_lifecycle-01990000-0000-7000-8000-000000000000-create-' || key, now(), now());
	RETURN the_id;
END
$$;

CREATE TABLE bench.payments AS
	SELECT i AS n, stripe_lifecycle.create_payment(2000, 'usd', 'status-' || i) AS old_id,
		('00000000-0000-7000-8000-' || lpad(i::text, 12, '0'))::uuid AS new_id
	FROM generate_series(1, :n) i;
ALTER TABLE stripe_lifecycle.payments DISABLE TRIGGER USER;
ALTER TABLE stripe_lifecycle.api_requests DISABLE TRIGGER USER;
UPDATE stripe_lifecycle.payments p SET id = new_id FROM bench.payments b WHERE p.id = b.old_id;
UPDATE stripe_lifecycle.api_requests r SET payment_id = new_id FROM bench.payments b WHERE r.payment_id = b.old_id;
ALTER TABLE stripe_lifecycle.payments ENABLE ALWAYS TRIGGER stripe_lifecycle_guard;
ALTER TABLE stripe_lifecycle.payments ENABLE ALWAYS TRIGGER stripe_lifecycle_guard_truncate;
ALTER TABLE stripe_lifecycle.api_requests ENABLE ALWAYS TRIGGER stripe_lifecycle_guard;
ALTER TABLE stripe_lifecycle.api_requests ENABLE ALWAYS TRIGGER stripe_lifecycle_guard_truncate;
VACUUM (FULL, ANALYZE) stripe_lifecycle.payments;
VACUUM (FULL, ANALYZE) stripe_lifecycle.api_requests;
CHECKPOINT;
