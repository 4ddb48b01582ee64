-- Fills a database made by events.sql with :rows payments that have been, each with the rows its life
-- leaves behind: two of the audit trail, an event, a call to Stripe. They are copies of one payment
-- that was really taken through its life, but for its ids. Past the guards, by the superuser and for
-- the measurement only; in the order in which life would have written them.

CREATE FUNCTION bench.fill(target text, overrides jsonb, first bigint, last bigint) RETURNS void
	LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('INSERT INTO stripe_lifecycle.%I OVERRIDING SYSTEM VALUE
			SELECT %s FROM bench.%I t, generate_series($1, $2) i',
		target,
		(SELECT string_agg(coalesce(overrides ->> attname, 't.' || quote_ident(attname)), ', ' ORDER BY attnum)
			FROM pg_attribute WHERE attrelid = format('stripe_lifecycle.%I', target)::regclass AND attnum > 0),
		'one_' || target)
		USING first, last;
END
$$;

SELECT payment_id AS one, event_id AS event FROM bench.events WHERE n = (SELECT nextval('bench.next_event')) \gset
SELECT stripe_lifecycle.ingest_webhook(body, header) FROM bench.events WHERE payment_id = :'one' \g /dev/null
CREATE TABLE bench.one_payments AS SELECT * FROM stripe_lifecycle.payments WHERE id = :'one';
CREATE TABLE bench.one_payment_transitions AS SELECT * FROM stripe_lifecycle.payment_transitions WHERE payment_id = :'one';
CREATE TABLE bench.one_webhook_events AS SELECT * FROM stripe_lifecycle.webhook_events WHERE event_id = :'event';
CREATE TABLE bench.one_api_requests AS SELECT * FROM stripe_lifecycle.api_requests WHERE payment_id = :'one';
UPDATE bench.one_api_requests SET status = 'succeeded', attempts = 1, finished_at = now(), http_status = 200,
	stripe_request_id = 'req_3TBenchAbCdEf';

ALTER TABLE stripe_lifecycle.payments DISABLE TRIGGER USER;
ALTER TABLE stripe_lifecycle.payment_transitions DISABLE TRIGGER USER;
ALTER TABLE stripe_lifecycle.webhook_events DISABLE TRIGGER USER;
ALTER TABLE stripe_lifecycle.api_requests DISABLE TRIGGER USER;

SELECT set_config('bench.rows', :'rows', false) \g /dev/null
DO $$
DECLARE
	total bigint := current_setting('bench.rows');
	payment text := $q$('01800000-' || substr(lpad(to_hex(i), 8, '0'), 1, 4) || '-7' || substr(lpad(to_hex(i), 8, '0'), 5, 3)
		|| '-8' || substr(lpad(to_hex(i), 8, '0'), 8, 1) || '00-' || substr(md5(i::text), 1, 12))::uuid$q$;
	intent text := $q$'pi_3SBench' || lpad(i::text, 9, '0') || substr(md5(i::text), 1, 8)$q$;
	event text := $q$'evt_3SBench' || lpad(i::text, 9, '0') || substr(md5(i::text), 1, 8)$q$;
	ends bigint;
BEGIN
	FOR begins IN 1 .. total BY 500000 LOOP
		ends := least(begins + 499999, total);
		PERFORM bench.fill('payments', jsonb_build_object('id', payment, 'payment_intent_id', intent,
			'idempotency_key', $q$'older-' || lpad(i::text, 9, '0')$q$), begins, ends);
		PERFORM bench.fill('payment_transitions', jsonb_build_object('payment_id', payment),
			begins, ends);
		PERFORM bench.fill('webhook_events', jsonb_build_object('event_id', event, 'payment_id', payment,
			'object_id', intent, 'payment_intent_id', intent), begins, ends);
		PERFORM bench.fill('api_requests', jsonb_build_object('id', 'i - 1000000000000', 'payment_id', payment,
			'idempotency_key', $q$'stripe_lifecycle-older-' || lpad(i::text, 9, '0') || '-create'$q$),
			begins, ends);
		COMMIT;
	END LOOP;
END
$$;

DO $$
DECLARE
	target text;
BEGIN
	FOREACH target IN ARRAY '{payments,payment_transitions,webhook_events,api_requests}'::text[] LOOP
		EXECUTE format('ALTER TABLE stripe_lifecycle.%I ENABLE ALWAYS TRIGGER stripe_lifecycle_guard', target);
		EXECUTE format('ALTER TABLE stripe_lifecycle.%I ENABLE ALWAYS TRIGGER stripe_lifecycle_guard_truncate', target);
	END LOOP;
END
$$;
VACUUM ANALYZE stripe_lifecycle.payments, stripe_lifecycle.payment_transitions,
	stripe_lifecycle.webhook_events, stripe_lifecycle.api_requests;
CREATE SEQUENCE bench.next_payment;
CHECKPOINT;
