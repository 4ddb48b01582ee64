/* stripe_lifecycle 1.0: types, tables, functions, guards, grants */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION stripe_lifecycle" to load this file. \quit

-- Webhook signatures cover bytes.  In any other encoding the server would
-- hand us a conversion of what Stripe signed, and nothing would verify.
DO $$
BEGIN
	IF pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.<>) 'UTF8' THEN
		RAISE EXCEPTION 'stripe_lifecycle requires a database with encoding UTF8, not %',
			pg_catalog.getdatabaseencoding()
			USING ERRCODE = 'feature_not_supported',
				  HINT = 'Create the database with ENCODING ''UTF8''.';
	END IF;
END
$$;

-- Whoever owns the schema may drop what is in it.  If it was there before,
-- it must be the installer's.
DO $$
BEGIN
	IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace n
			JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) n.nspowner
			WHERE n.nspname OPERATOR(pg_catalog.=) '@extschema@'
			AND r.rolname OPERATOR(pg_catalog.=) current_user) THEN
		RAISE EXCEPTION 'schema "@extschema@" exists and belongs to another role'
			USING ERRCODE = 'insufficient_privilege',
				  HINT = 'Drop the schema, or make it your own, before you create the extension.';
	END IF;
END
$$;

COMMENT ON SCHEMA @extschema@ IS
'Stripe payments kept right by the database: see the README of stripe_lifecycle';

--
-- Types
--

CREATE TYPE @extschema@.payment_state AS ENUM
	('created', 'requires_action', 'processing', 'succeeded', 'failed');
COMMENT ON TYPE @extschema@.payment_state IS
'Where a payment stands; legal_transitions() lists the moves between the states';

CREATE TYPE @extschema@.event_outcome AS ENUM
	('applied', 'recorded', 'stale', 'conflict', 'unmatched', 'ignored');
COMMENT ON TYPE @extschema@.event_outcome IS
'What became of a verified event: moved the state; kept, no move; older than what is known; contradicts the payment and waits for an operator; no payment known yet; of no use';

CREATE TYPE @extschema@.request_status AS ENUM
	('queued', 'in_flight', 'succeeded', 'rejected', 'unknown');
COMMENT ON TYPE @extschema@.request_status IS
'Where a call to Stripe stands: waiting for its (next) attempt; sent, or claimed to be sent; done; refused for good; not known and never re-sent blindly';

--
-- Tables.  The order of columns is known to the library (src/store.c checks
-- it); later versions may only append.
--
-- There are no foreign keys: payments can't be deleted, and only the library
-- writes the tables that point to them, while it holds the payment's lock.
-- A key would prove again, at the price of a query for every row, what the
-- guards prove already.
--

-- fillfactor: a payment is updated two to four times in its life, and leaving
-- room on its page keeps those updates HOT.
CREATE TABLE @extschema@.payments (
	id                  uuid NOT NULL,
	idempotency_key     text NOT NULL,
	state               @extschema@.payment_state NOT NULL DEFAULT 'created',
	amount              bigint NOT NULL CHECK (amount > 0),
	currency            text NOT NULL CHECK (currency ~ '^[a-z]{3}$'),
	description         text,
	customer            text,
	receipt_email       text,
	capture_method      text NOT NULL DEFAULT 'automatic'
		CHECK (capture_method IN ('automatic', 'automatic_async', 'manual')),
	decline_policy      text NOT NULL DEFAULT 'final'
		CHECK (decline_policy IN ('final', 'retry')),
	stripe_account      text,
	metadata            jsonb NOT NULL DEFAULT '{}',
	params              jsonb NOT NULL DEFAULT '{}',
	payment_intent_id   text,
	client_secret       text,
	livemode            boolean,
	amount_capturable   bigint NOT NULL DEFAULT 0,
	amount_received     bigint NOT NULL DEFAULT 0,
	latest_charge       text,
	cancellation_reason text,
	decline_count       integer NOT NULL DEFAULT 0,
	last_error          jsonb,
	last_error_at       timestamptz,
	last_event_id       text,
	last_event_created  timestamptz,
	last_event_rank     smallint,
	transitions         integer NOT NULL DEFAULT 1,
	created_at          timestamptz NOT NULL DEFAULT pg_catalog.now(),
	updated_at          timestamptz NOT NULL DEFAULT pg_catalog.now(),
	finished_at         timestamptz,
	PRIMARY KEY (id),
	CONSTRAINT payments_idempotency_key_key UNIQUE (idempotency_key),
	CONSTRAINT payments_payment_intent_id_key UNIQUE (payment_intent_id)
) WITH (fillfactor = 70);

COMMENT ON TABLE @extschema@.payments IS
'One row a payment. Written by the functions of stripe_lifecycle only: the state moves by verified events of Stripe and by nothing else';
COMMENT ON COLUMN @extschema@.payments.id IS 'UUID version 7, made by create_payment()';
COMMENT ON COLUMN @extschema@.payments.idempotency_key IS 'the caller''s key: one key, one payment';
COMMENT ON COLUMN @extschema@.payments.state IS 'see legal_transitions()';
COMMENT ON COLUMN @extschema@.payments.amount IS 'in the smallest unit of the currency, as Stripe counts it';
COMMENT ON COLUMN @extschema@.payments.currency IS 'ISO 4217 code in lower case';
COMMENT ON COLUMN @extschema@.payments.description IS 'given at creation; sent to Stripe';
COMMENT ON COLUMN @extschema@.payments.customer IS 'Stripe customer id (cus_...)';
COMMENT ON COLUMN @extschema@.payments.receipt_email IS 'given at creation; sent to Stripe';
COMMENT ON COLUMN @extschema@.payments.capture_method IS 'automatic, automatic_async or manual';
COMMENT ON COLUMN @extschema@.payments.decline_policy IS 'final: the first decline fails the payment; retry: only a cancellation does';
COMMENT ON COLUMN @extschema@.payments.stripe_account IS 'connected account (acct_...) the calls act for';
COMMENT ON COLUMN @extschema@.payments.metadata IS 'given at creation; sent to Stripe';
COMMENT ON COLUMN @extschema@.payments.params IS 'further PaymentIntent parameters given at creation';
COMMENT ON COLUMN @extschema@.payments.payment_intent_id IS 'Stripe''s id (pi_...), once known';
COMMENT ON COLUMN @extschema@.payments.client_secret IS 'lets the customer''s browser finish the payment; erased when the payment ends';
COMMENT ON COLUMN @extschema@.payments.livemode IS 'real money (true) or Stripe''s test mode (false), once known';
COMMENT ON COLUMN @extschema@.payments.amount_capturable IS 'authorised and waiting for capture';
COMMENT ON COLUMN @extschema@.payments.amount_received IS 'what Stripe collected';
COMMENT ON COLUMN @extschema@.payments.latest_charge IS 'Stripe charge id (ch_...) of the latest attempt';
COMMENT ON COLUMN @extschema@.payments.cancellation_reason IS 'why the PaymentIntent was canceled, in Stripe''s words';
COMMENT ON COLUMN @extschema@.payments.decline_count IS 'how many declines Stripe reported';
COMMENT ON COLUMN @extschema@.payments.last_error IS 'the latest decline, or the refusal of the latest API call: source, type, code, decline_code, message, param';
COMMENT ON COLUMN @extschema@.payments.last_error_at IS 'when last_error happened';
COMMENT ON COLUMN @extschema@.payments.last_event_id IS 'the newest non-terminal event applied';
COMMENT ON COLUMN @extschema@.payments.last_event_created IS 'its time at Stripe, in whole seconds';
COMMENT ON COLUMN @extschema@.payments.last_event_rank IS 'its rank among events of one second';
COMMENT ON COLUMN @extschema@.payments.transitions IS 'number of rows this payment has in payment_transitions';
COMMENT ON COLUMN @extschema@.payments.created_at IS 'when create_payment() ran';
COMMENT ON COLUMN @extschema@.payments.updated_at IS 'when this row last changed';
COMMENT ON COLUMN @extschema@.payments.finished_at IS 'when the payment reached succeeded or failed';

CREATE TABLE @extschema@.payment_transitions (
	payment_id    uuid NOT NULL,
	seq           integer NOT NULL CHECK (seq > 0),
	from_state    @extschema@.payment_state,
	to_state      @extschema@.payment_state NOT NULL,
	at            timestamptz NOT NULL,
	source        text NOT NULL,
	event_id      text,
	event_type    text,
	event_created timestamptz,
	role          text NOT NULL,
	note          text,
	PRIMARY KEY (payment_id, seq)
);

COMMENT ON TABLE @extschema@.payment_transitions IS
'The audit trail: one row for every change of a payment''s state, append-only';
COMMENT ON COLUMN @extschema@.payment_transitions.payment_id IS 'the payment';
COMMENT ON COLUMN @extschema@.payment_transitions.seq IS '1, 2, 3 ... per payment, without gaps';
COMMENT ON COLUMN @extschema@.payment_transitions.from_state IS 'NULL for the creation';
COMMENT ON COLUMN @extschema@.payment_transitions.to_state IS 'the state from then on';
COMMENT ON COLUMN @extschema@.payment_transitions.at IS 'when the database made the move';
COMMENT ON COLUMN @extschema@.payment_transitions.source IS 'create_payment, insert (a plain INSERT), or webhook';
COMMENT ON COLUMN @extschema@.payment_transitions.event_id IS 'the event that proved it (evt_...)';
COMMENT ON COLUMN @extschema@.payment_transitions.event_type IS 'its type';
COMMENT ON COLUMN @extschema@.payment_transitions.event_created IS 'its time at Stripe';
COMMENT ON COLUMN @extschema@.payment_transitions.role IS 'the database role on whose behalf the statement ran';
COMMENT ON COLUMN @extschema@.payment_transitions.note IS 'what an auditor should notice, such as money that came after a failure';

CREATE TABLE @extschema@.webhook_events (
	event_id          text NOT NULL,
	type              text NOT NULL,
	created           timestamptz NOT NULL,
	livemode          boolean NOT NULL,
	api_version       text,
	account           text,
	object_id         text,
	payment_intent_id text,
	payment_id        uuid,
	outcome           @extschema@.event_outcome NOT NULL,
	reason            text,
	secret_label      text,
	source            text NOT NULL,
	received_at       timestamptz NOT NULL,
	applied_at        timestamptz,
	payload           jsonb NOT NULL,
	PRIMARY KEY (event_id)
);

-- Parked events are looked for whenever a PaymentIntent becomes known; the
-- index holds those only.
CREATE INDEX webhook_events_unmatched ON @extschema@.webhook_events (payment_intent_id)
	WHERE outcome = 'unmatched';
CREATE INDEX webhook_events_conflict ON @extschema@.webhook_events (received_at)
	WHERE outcome = 'conflict';
CREATE INDEX webhook_events_payment ON @extschema@.webhook_events (payment_id)
	WHERE payment_id IS NOT NULL;

COMMENT ON TABLE @extschema@.webhook_events IS
'Every verified event of Stripe''s, once, with what became of it';
COMMENT ON COLUMN @extschema@.webhook_events.event_id IS 'evt_...; a second delivery ends here';
COMMENT ON COLUMN @extschema@.webhook_events.type IS 'such as payment_intent.succeeded';
COMMENT ON COLUMN @extschema@.webhook_events.created IS 'its time at Stripe, in whole seconds';
COMMENT ON COLUMN @extschema@.webhook_events.livemode IS 'real money or test mode';
COMMENT ON COLUMN @extschema@.webhook_events.api_version IS 'the API version the event was rendered in';
COMMENT ON COLUMN @extschema@.webhook_events.account IS 'connected account (acct_...), if any';
COMMENT ON COLUMN @extschema@.webhook_events.object_id IS 'id of the object the event is about';
COMMENT ON COLUMN @extschema@.webhook_events.payment_intent_id IS 'the PaymentIntent concerned';
COMMENT ON COLUMN @extschema@.webhook_events.payment_id IS 'the payment it was matched to';
COMMENT ON COLUMN @extschema@.webhook_events.outcome IS 'what became of it';
COMMENT ON COLUMN @extschema@.webhook_events.reason IS 'why, where the outcome alone does not say';
COMMENT ON COLUMN @extschema@.webhook_events.secret_label IS 'label of the webhook secret whose signature matched';
COMMENT ON COLUMN @extschema@.webhook_events.source IS 'webhook';
COMMENT ON COLUMN @extschema@.webhook_events.received_at IS 'when it arrived here';
COMMENT ON COLUMN @extschema@.webhook_events.applied_at IS 'when it was decided upon; NULL while unmatched';
COMMENT ON COLUMN @extschema@.webhook_events.payload IS 'the event, reduced to the fields this extension reads; never personal or card data';

CREATE TABLE @extschema@.api_requests (
	id                bigint GENERATED ALWAYS AS IDENTITY,
	payment_id        uuid NOT NULL,
	operation         text NOT NULL,
	method            text NOT NULL,
	path              text NOT NULL,
	body              text NOT NULL,
	idempotency_key   text NOT NULL,
	stripe_account    text,
	created_at        timestamptz NOT NULL,
	status            @extschema@.request_status NOT NULL DEFAULT 'queued',
	attempts          integer NOT NULL DEFAULT 0,
	next_attempt_at   timestamptz NOT NULL,
	first_sent_at     timestamptz,
	finished_at       timestamptz,
	http_status       integer,
	stripe_request_id text,
	last_error        jsonb,
	PRIMARY KEY (id),
	CONSTRAINT api_requests_idempotency_key_key UNIQUE (idempotency_key)
) WITH (fillfactor = 70);

CREATE INDEX api_requests_due ON @extschema@.api_requests (next_attempt_at)
	WHERE status IN ('queued', 'in_flight');
CREATE INDEX api_requests_payment ON @extschema@.api_requests (payment_id);

COMMENT ON TABLE @extschema@.api_requests IS
'The outbox: every call to Stripe, its bytes and key frozen before it is first sent';
COMMENT ON COLUMN @extschema@.api_requests.id IS 'order of queueing';
COMMENT ON COLUMN @extschema@.api_requests.payment_id IS 'the payment it is for';
COMMENT ON COLUMN @extschema@.api_requests.operation IS 'create, confirm or cancel';
COMMENT ON COLUMN @extschema@.api_requests.method IS 'HTTP method';
COMMENT ON COLUMN @extschema@.api_requests.path IS 'path below the API base; {payment_intent} stands for the payment''s payment_intent_id';
COMMENT ON COLUMN @extschema@.api_requests.body IS 'the exact form-encoded body of every attempt';
COMMENT ON COLUMN @extschema@.api_requests.idempotency_key IS 'the Idempotency-Key header of every attempt';
COMMENT ON COLUMN @extschema@.api_requests.stripe_account IS 'the Stripe-Account header, if any';
COMMENT ON COLUMN @extschema@.api_requests.created_at IS 'when it was queued';
COMMENT ON COLUMN @extschema@.api_requests.status IS 'where it stands';
COMMENT ON COLUMN @extschema@.api_requests.attempts IS 'how often it was claimed to be sent';
COMMENT ON COLUMN @extschema@.api_requests.next_attempt_at IS 'when it is next due; for one in flight the end of its lease; infinity while it waits for the PaymentIntent to be known';
COMMENT ON COLUMN @extschema@.api_requests.first_sent_at IS 'when it was first claimed; Stripe remembers the key for at least 24 h from then';
COMMENT ON COLUMN @extschema@.api_requests.finished_at IS 'when its outcome was settled';
COMMENT ON COLUMN @extschema@.api_requests.http_status IS 'of the latest answer';
COMMENT ON COLUMN @extschema@.api_requests.stripe_request_id IS 'of the latest answer (req_...); Stripe''s support asks for it';
COMMENT ON COLUMN @extschema@.api_requests.last_error IS 'what the latest failed attempt met';

CREATE TABLE @extschema@.api_attempts (
	request_id          bigint NOT NULL,
	attempt             integer NOT NULL,
	started_at          timestamptz NOT NULL,
	finished_at         timestamptz,
	duration_ms         double precision,
	http_status         integer,
	stripe_request_id   text,
	result              text CHECK (result IN ('succeeded', 'rejected', 'retry', 'unknown', 'lost')),
	error               text,
	idempotent_replayed boolean,
	PRIMARY KEY (request_id, attempt)
) WITH (fillfactor = 80);

COMMENT ON TABLE @extschema@.api_attempts IS
'Every HTTP call, written before its first byte leaves and completed with its answer';
COMMENT ON COLUMN @extschema@.api_attempts.request_id IS 'the row of api_requests';
COMMENT ON COLUMN @extschema@.api_attempts.attempt IS '1, 2, 3 ...';
COMMENT ON COLUMN @extschema@.api_attempts.started_at IS 'when it was claimed';
COMMENT ON COLUMN @extschema@.api_attempts.finished_at IS 'when its outcome was stored; NULL while in flight';
COMMENT ON COLUMN @extschema@.api_attempts.duration_ms IS 'from first byte out to last byte in, in milliseconds';
COMMENT ON COLUMN @extschema@.api_attempts.http_status IS 'NULL if no answer came';
COMMENT ON COLUMN @extschema@.api_attempts.stripe_request_id IS 'Stripe''s Request-Id header';
COMMENT ON COLUMN @extschema@.api_attempts.result IS 'succeeded, rejected, retry, unknown; lost: the worker died before it saw an answer';
COMMENT ON COLUMN @extschema@.api_attempts.error IS 'what went wrong, in short';
COMMENT ON COLUMN @extschema@.api_attempts.idempotent_replayed IS 'Stripe answered from its memory of an earlier attempt';

CREATE TABLE @extschema@.worker_state (
	singleton     boolean NOT NULL DEFAULT true CHECK (singleton),
	paused        boolean NOT NULL DEFAULT false,
	paused_reason text,
	paused_by     text,
	paused_at     timestamptz,
	PRIMARY KEY (singleton)
);
INSERT INTO @extschema@.worker_state DEFAULT VALUES;

COMMENT ON TABLE @extschema@.worker_state IS
'Whether the worker may send; pause_worker() and resume_worker() change it';
COMMENT ON COLUMN @extschema@.worker_state.singleton IS 'there is one row';
COMMENT ON COLUMN @extschema@.worker_state.paused IS 'nothing is sent to Stripe while true';
COMMENT ON COLUMN @extschema@.worker_state.paused_reason IS 'as given to pause_worker()';
COMMENT ON COLUMN @extschema@.worker_state.paused_by IS 'the role that paused it';
COMMENT ON COLUMN @extschema@.worker_state.paused_at IS 'since when';

--
-- Guards.  AFTER triggers see a row as it was really written, whatever other
-- triggers did to it on the way, and raise before the statement ends.
-- ENABLE ALWAYS: session_replication_role = replica does not switch them off.
--

CREATE FUNCTION @extschema@.guard() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'sl_guard';
COMMENT ON FUNCTION @extschema@.guard() IS
'Trigger of the tables of stripe_lifecycle: lets only the library''s own writes through, along legal edges, and appends the audit trail';
REVOKE ALL ON FUNCTION @extschema@.guard() FROM PUBLIC;

CREATE TRIGGER stripe_lifecycle_guard AFTER INSERT OR UPDATE OR DELETE ON @extschema@.payments
	FOR EACH ROW EXECUTE FUNCTION @extschema@.guard();
CREATE TRIGGER stripe_lifecycle_guard_truncate BEFORE TRUNCATE ON @extschema@.payments
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.guard();
ALTER TABLE @extschema@.payments ENABLE ALWAYS TRIGGER stripe_lifecycle_guard;
ALTER TABLE @extschema@.payments ENABLE ALWAYS TRIGGER stripe_lifecycle_guard_truncate;

CREATE TRIGGER stripe_lifecycle_guard AFTER INSERT OR UPDATE OR DELETE ON @extschema@.payment_transitions
	FOR EACH ROW EXECUTE FUNCTION @extschema@.guard();
CREATE TRIGGER stripe_lifecycle_guard_truncate BEFORE TRUNCATE ON @extschema@.payment_transitions
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.guard();
ALTER TABLE @extschema@.payment_transitions ENABLE ALWAYS TRIGGER stripe_lifecycle_guard;
ALTER TABLE @extschema@.payment_transitions ENABLE ALWAYS TRIGGER stripe_lifecycle_guard_truncate;

CREATE TRIGGER stripe_lifecycle_guard AFTER INSERT OR UPDATE OR DELETE ON @extschema@.webhook_events
	FOR EACH ROW EXECUTE FUNCTION @extschema@.guard();
CREATE TRIGGER stripe_lifecycle_guard_truncate BEFORE TRUNCATE ON @extschema@.webhook_events
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.guard();
ALTER TABLE @extschema@.webhook_events ENABLE ALWAYS TRIGGER stripe_lifecycle_guard;
ALTER TABLE @extschema@.webhook_events ENABLE ALWAYS TRIGGER stripe_lifecycle_guard_truncate;

CREATE TRIGGER stripe_lifecycle_guard AFTER INSERT OR UPDATE OR DELETE ON @extschema@.api_requests
	FOR EACH ROW EXECUTE FUNCTION @extschema@.guard();
CREATE TRIGGER stripe_lifecycle_guard_truncate BEFORE TRUNCATE ON @extschema@.api_requests
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.guard();
ALTER TABLE @extschema@.api_requests ENABLE ALWAYS TRIGGER stripe_lifecycle_guard;
ALTER TABLE @extschema@.api_requests ENABLE ALWAYS TRIGGER stripe_lifecycle_guard_truncate;

CREATE TRIGGER stripe_lifecycle_guard AFTER UPDATE OR DELETE ON @extschema@.api_attempts
	FOR EACH ROW EXECUTE FUNCTION @extschema@.guard();
CREATE TRIGGER stripe_lifecycle_guard_truncate BEFORE TRUNCATE ON @extschema@.api_attempts
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.guard();
ALTER TABLE @extschema@.api_attempts ENABLE ALWAYS TRIGGER stripe_lifecycle_guard;
ALTER TABLE @extschema@.api_attempts ENABLE ALWAYS TRIGGER stripe_lifecycle_guard_truncate;

--
-- What applications call
--

CREATE FUNCTION @extschema@.create_payment(
	amount          bigint,
	currency        text,
	idempotency_key text,
	description     text DEFAULT NULL,
	customer        text DEFAULT NULL,
	receipt_email   text DEFAULT NULL,
	capture_method  text DEFAULT NULL,
	decline_policy  text DEFAULT NULL,
	stripe_account  text DEFAULT NULL,
	metadata        jsonb DEFAULT NULL,
	params          jsonb DEFAULT NULL)
	RETURNS uuid
	LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'sl_create_payment';
COMMENT ON FUNCTION @extschema@.create_payment(bigint, text, text, text, text, text, text, text, text, jsonb, jsonb) IS
'Records a payment and queues the creation of its PaymentIntent, both in the caller''s transaction; the same key with the same arguments returns the same payment. Returns the payment''s id';

CREATE FUNCTION @extschema@.payment_status(
	payment_id uuid,
	wait interval DEFAULT '0',
	OUT id uuid,
	OUT state @extschema@.payment_state,
	OUT amount bigint,
	OUT currency text,
	OUT payment_intent_id text,
	OUT client_secret text,
	OUT request_status @extschema@.request_status,
	OUT last_error jsonb,
	OUT decline_count integer,
	OUT livemode boolean,
	OUT created_at timestamptz,
	OUT updated_at timestamptz,
	OUT finished_at timestamptz)
	RETURNS record
	LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'sl_payment_status';
COMMENT ON FUNCTION @extschema@.payment_status(uuid, interval) IS
'What a frontend polls: the payment as it stands, or, with wait, as soon as it changed or when that time is up. request_status is that of the latest call to Stripe';

CREATE FUNCTION @extschema@.confirm_payment(payment_id uuid, params jsonb DEFAULT NULL)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'sl_confirm_payment';
COMMENT ON FUNCTION @extschema@.confirm_payment(uuid, jsonb) IS
'Queues the confirmation of the PaymentIntent, with further parameters such as payment_method; the state moves when Stripe''s event arrives. Returns the id of the queued request';

CREATE FUNCTION @extschema@.cancel_payment(payment_id uuid, cancellation_reason text DEFAULT NULL)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'sl_cancel_payment';
COMMENT ON FUNCTION @extschema@.cancel_payment(uuid, text) IS
'Queues the cancellation of the PaymentIntent; the state moves when Stripe''s event arrives. Returns the id of the queued request';

--
-- Webhooks
--

CREATE FUNCTION @extschema@.ingest_webhook(payload text, signature_header text)
	RETURNS text
	LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'sl_ingest_webhook';
COMMENT ON FUNCTION @extschema@.ingest_webhook(text, text) IS
'Verifies, deduplicates and applies one webhook delivery; payload is the raw body, signature_header the Stripe-Signature header. Returns applied, recorded, stale, conflict, unmatched, ignored or duplicate';

CREATE FUNCTION @extschema@.ingest_webhook(payload bytea, signature_header text)
	RETURNS text
	LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'sl_ingest_webhook';
COMMENT ON FUNCTION @extschema@.ingest_webhook(bytea, text) IS
'The same for a body held as bytes';

CREATE FUNCTION @extschema@.verify_webhook_signature(
	payload text, signature_header text, secret text,
	tolerance interval DEFAULT '5 min', at timestamptz DEFAULT pg_catalog.now())
	RETURNS boolean
	LANGUAGE c IMMUTABLE PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'sl_verify_webhook_signature';
COMMENT ON FUNCTION @extschema@.verify_webhook_signature(text, text, text, interval, timestamptz) IS
'The signature check alone: true or false, never NULL. tolerance is allowed on both sides of at; NULL skips the age check. Secrets given as arguments can end up in logs: for webhooks use ingest_webhook()';

CREATE FUNCTION @extschema@.verify_webhook_signature(
	payload bytea, signature_header text, secret text,
	tolerance interval DEFAULT '5 min', at timestamptz DEFAULT pg_catalog.now())
	RETURNS boolean
	LANGUAGE c IMMUTABLE PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'sl_verify_webhook_signature';
COMMENT ON FUNCTION @extschema@.verify_webhook_signature(bytea, text, text, interval, timestamptz) IS
'The same for a body held as bytes';

--
-- What operators and auditors call
--

CREATE FUNCTION @extschema@.legal_transitions(
	OUT from_state @extschema@.payment_state,
	OUT to_state @extschema@.payment_state,
	OUT evidence text)
	RETURNS SETOF record
	LANGUAGE c STABLE PARALLEL SAFE ROWS 14
	AS 'MODULE_PATHNAME', 'sl_legal_transitions';
COMMENT ON FUNCTION @extschema@.legal_transitions() IS
'Every legal move and what proves it, from the same table the guard reads; from_state is NULL for the creation';

CREATE FUNCTION @extschema@.pause_worker(reason text DEFAULT NULL) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	AS $$
	UPDATE @extschema@.worker_state
	   SET paused = true, paused_reason = reason,
		   paused_by = session_user, paused_at = pg_catalog.clock_timestamp()
$$;
COMMENT ON FUNCTION @extschema@.pause_worker(text) IS
'Nothing more is sent to Stripe from this database until resume_worker(); calls in flight are finished';

CREATE FUNCTION @extschema@.wake_worker() RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'sl_wake_worker';
COMMENT ON FUNCTION @extschema@.wake_worker() IS
'Makes the worker look at this database''s queue when the transaction commits';

CREATE FUNCTION @extschema@.resume_worker() RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	AS $$
	UPDATE @extschema@.worker_state
	   SET paused = false, paused_reason = NULL, paused_by = NULL, paused_at = NULL;
	SELECT @extschema@.wake_worker()
$$;
COMMENT ON FUNCTION @extschema@.resume_worker() IS
'Lets the worker send again what is queued in this database';

--
-- Grants.  Nothing is PUBLIC's but the bare facts of the state machine.
--

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA @extschema@ FROM PUBLIC;

CREATE FUNCTION @extschema@.grant_application(role regrole) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$
BEGIN
	EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA @extschema@ TO %s', role);
	EXECUTE pg_catalog.format(
		'GRANT EXECUTE ON FUNCTION
			@extschema@.create_payment(bigint, text, text, text, text, text, text, text, text, jsonb, jsonb),
			@extschema@.payment_status(uuid, interval),
			@extschema@.confirm_payment(uuid, jsonb),
			@extschema@.cancel_payment(uuid, text),
			@extschema@.ingest_webhook(text, text),
			@extschema@.ingest_webhook(bytea, text),
			@extschema@.legal_transitions()
		 TO %s', role);
END
$$;
COMMENT ON FUNCTION @extschema@.grant_application(regrole) IS
'Grants a role what an application needs: to create, follow, confirm and cancel payments, and to hand in webhooks; no table';
REVOKE ALL ON FUNCTION @extschema@.grant_application(regrole) FROM PUBLIC;

CREATE FUNCTION @extschema@.grant_auditor(role regrole) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$
BEGIN
	EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA @extschema@ TO %s', role);
	EXECUTE pg_catalog.format(
		'GRANT EXECUTE ON FUNCTION @extschema@.legal_transitions() TO %s', role);
	EXECUTE pg_catalog.format(
		'GRANT SELECT ON @extschema@.payment_transitions, @extschema@.webhook_events,
			@extschema@.api_attempts, @extschema@.worker_state TO %s', role);
	-- not client_secret, nor the customer's particulars
	EXECUTE pg_catalog.format(
		'GRANT SELECT (id, idempotency_key, state, amount, currency, capture_method,
			decline_policy, stripe_account, payment_intent_id, livemode,
			amount_capturable, amount_received, latest_charge, cancellation_reason,
			decline_count, last_error, last_error_at, last_event_id,
			last_event_created, last_event_rank, transitions, created_at,
			updated_at, finished_at) ON @extschema@.payments TO %s', role);
	-- not the body, which repeats them
	EXECUTE pg_catalog.format(
		'GRANT SELECT (id, payment_id, operation, method, path, idempotency_key,
			stripe_account, created_at, status, attempts, next_attempt_at,
			first_sent_at, finished_at, http_status, stripe_request_id,
			last_error) ON @extschema@.api_requests TO %s', role);
END
$$;
COMMENT ON FUNCTION @extschema@.grant_auditor(regrole) IS
'Grants a role to read the payments and everything that happened to them, without client secrets, customers'' particulars and request bodies';
REVOKE ALL ON FUNCTION @extschema@.grant_auditor(regrole) FROM PUBLIC;
