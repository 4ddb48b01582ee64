-- A contender: webhooks taken in by one PL/pgSQL function with pgcrypto, as a good engineer would
-- write it: signature and age, lock, decide, deduplicate, update, audit. It knows the cases that the
-- measured events can be, and keeps the same facts.

CREATE TABLE bench.plpgsql_payments (LIKE stripe_lifecycle.payments INCLUDING ALL) WITH (fillfactor = 70);
CREATE TABLE bench.plpgsql_transitions (LIKE stripe_lifecycle.payment_transitions INCLUDING ALL);
ALTER TABLE bench.plpgsql_transitions ALTER hash DROP NOT NULL; -- no hash chain here
CREATE TABLE bench.plpgsql_events (LIKE stripe_lifecycle.webhook_events INCLUDING ALL);
INSERT INTO bench.plpgsql_payments SELECT * FROM stripe_lifecycle.payments ORDER BY id;
INSERT INTO bench.plpgsql_transitions SELECT * FROM stripe_lifecycle.payment_transitions ORDER BY payment_id;
VACUUM ANALYZE bench.plpgsql_payments, bench.plpgsql_transitions;
CREATE SEQUENCE bench.plpgsql_next;
CREATE TABLE bench.plpgsql_secret AS SELECT :'secret'::text AS secret;

CREATE FUNCTION bench.plpgsql_verify(body text, header text, secret text, tolerance bigint)
	RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
	t text := substring(header FROM '(?:^|,)\s*t=(\d+)');
	expected text := encode(public.hmac(convert_to(t || '.' || body, 'UTF8'),
										convert_to(secret, 'UTF8'), 'sha256'), 'hex');
BEGIN
	RETURN 'v1=' || expected = ANY (string_to_array(replace(header, ' ', ''), ','))
		AND abs(extract(epoch FROM clock_timestamp()) - t::bigint) <= tolerance;
END
$$;

CREATE FUNCTION bench.plpgsql_ingest(body text, header text) RETURNS text
	LANGUAGE plpgsql AS $$
DECLARE
	event jsonb;
	intent jsonb;
	payment bench.plpgsql_payments;
	target stripe_lifecycle.payment_state;
	result stripe_lifecycle.event_outcome := 'applied';
	moment timestamptz := clock_timestamp();
BEGIN
	IF NOT bench.plpgsql_verify(body, header, (SELECT secret FROM bench.plpgsql_secret), 86400) THEN
		RAISE EXCEPTION 'bad signature';
	END IF;
	event := body::jsonb;
	intent := event #> '{data,object}';
	target := CASE event ->> 'type'
		WHEN 'payment_intent.requires_action' THEN 'requires_action'
		WHEN 'payment_intent.processing' THEN 'processing'
		WHEN 'payment_intent.amount_capturable_updated' THEN 'processing'
		WHEN 'payment_intent.succeeded' THEN 'succeeded'
		WHEN 'payment_intent.payment_failed' THEN 'failed'
		WHEN 'payment_intent.canceled' THEN 'failed'
	END;

	SELECT * INTO payment FROM bench.plpgsql_payments p
		WHERE p.payment_intent_id = intent ->> 'id' FOR UPDATE;
	IF NOT FOUND THEN
		SELECT * INTO payment FROM bench.plpgsql_payments p
			WHERE p.id = (intent #>> '{metadata,stripe_lifecycle_payment_id}')::uuid FOR UPDATE;
	END IF;
	IF payment.id IS NULL THEN
		result := 'unmatched';
	ELSIF payment.amount <> (intent ->> 'amount')::bigint OR payment.currency <> intent ->> 'currency'
		OR payment.livemode <> (event ->> 'livemode')::boolean THEN
		result := 'conflict';
	ELSIF target IS NULL THEN
		result := 'ignored';
	ELSIF payment.state = 'succeeded' OR payment.state = 'failed' AND target <> 'succeeded'
		OR target NOT IN ('succeeded', 'failed')
			AND payment.last_event_created >= to_timestamp((event ->> 'created')::bigint) THEN
		result := 'stale';
	END IF;

	INSERT INTO bench.plpgsql_events (event_id, type, created, livemode, api_version, account,
			object_id, payment_intent_id, payment_id, outcome, source, received_at, applied_at, payload)
		VALUES (event ->> 'id', event ->> 'type', to_timestamp((event ->> 'created')::bigint),
			(event ->> 'livemode')::boolean, event ->> 'api_version', event ->> 'account',
			intent ->> 'id', intent ->> 'id', payment.id, result, 'webhook', moment, moment,
			jsonb_build_object('id', event -> 'id', 'type', event -> 'type',
				'created', event -> 'created', 'livemode', event -> 'livemode',
				'request', event -> 'request',
				'data', jsonb_build_object('object', jsonb_strip_nulls(jsonb_build_object(
					'id', intent -> 'id', 'object', intent -> 'object',
					'status', intent -> 'status', 'amount', intent -> 'amount',
					'amount_capturable', intent -> 'amount_capturable',
					'amount_received', intent -> 'amount_received',
					'currency', intent -> 'currency', 'latest_charge', intent -> 'latest_charge',
					'cancellation_reason', intent -> 'cancellation_reason',
					'last_payment_error', intent -> 'last_payment_error',
					'metadata', intent -> 'metadata')))))
		ON CONFLICT (event_id) DO NOTHING;
	IF NOT FOUND THEN
		RETURN 'duplicate';
	END IF;
	IF result <> 'applied' THEN
		RETURN result;
	END IF;

	UPDATE bench.plpgsql_payments SET state = target,
			amount_received = greatest(payment.amount_received, (intent ->> 'amount_received')::bigint),
			amount_capturable = (intent ->> 'amount_capturable')::bigint,
			latest_charge = coalesce(intent ->> 'latest_charge', latest_charge),
			transitions = payment.transitions + 1, updated_at = moment,
			client_secret = CASE WHEN target IN ('succeeded', 'failed') THEN NULL ELSE client_secret END,
			finished_at = CASE WHEN target IN ('succeeded', 'failed') THEN moment END
		WHERE id = payment.id;
	INSERT INTO bench.plpgsql_transitions (payment_id, seq, from_state, to_state, at, source,
			event_id, event_type, event_created, role, amount, currency, livemode)
		VALUES (payment.id, payment.transitions + 1, payment.state, target, moment, 'webhook',
			event ->> 'id', event ->> 'type', to_timestamp((event ->> 'created')::bigint), session_user,
			payment.amount, payment.currency, payment.livemode);
	RETURN result;
END
$$;
