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

-- Whoever owns the schema may drop what is in it.  If it was there before, it
-- must be the installer's.  A superuser's becomes so: a dump makes the schema
-- that of its original owner before another superuser creates the extension.
DO $$
DECLARE
	super boolean;
BEGIN
	SELECT r.rolsuper INTO super FROM pg_catalog.pg_namespace n
	  JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) n.nspowner
	 WHERE n.nspname OPERATOR(pg_catalog.=) '@extschema@'
	   AND r.rolname OPERATOR(pg_catalog.<>) current_user;
	IF super THEN
		ALTER SCHEMA @extschema@ OWNER TO CURRENT_USER;
	ELSIF super IS NOT NULL THEN
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

-- fillfactor: leaves room on a page for the updates of a payment's life.  Those
-- between the first and the last are HOT then (98 of 100 in test/t/046): they
-- touch no index, and what they leave behind goes without VACUUM.  The first,
-- which sets payment_intent_id, and the last, which sets finished_at, can't be:
-- both are what an index is about.  Autovacuum's own settings fit: two dead rows
-- a payment, whatever becomes of it.
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
	owner               text,
	audit_head          bytea,
	PRIMARY KEY (id),
	-- the key first: it tells payments apart, be there owners or not
	CONSTRAINT payments_idempotency_key_key UNIQUE NULLS NOT DISTINCT (idempotency_key, owner),
	CONSTRAINT payments_payment_intent_id_key UNIQUE (payment_intent_id)
) WITH (fillfactor = 70);

-- The payments that have not ended, the oldest first: few, however many there
-- were.  finished_at changes once in a payment's life, so this index spoils one
-- HOT update of each; without it every look at them would read the whole table.
CREATE INDEX payments_open ON @extschema@.payments (created_at)
	WHERE finished_at IS NULL;

COMMENT ON TABLE @extschema@.payments IS
'One row a payment. Written by the functions of stripe_lifecycle only: the state moves by verified events of Stripe and by nothing else';
COMMENT ON COLUMN @extschema@.payments.id IS 'UUID version 7, made by create_payment()';
COMMENT ON COLUMN @extschema@.payments.idempotency_key IS 'the caller''s key: one key of one owner, one payment';
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
COMMENT ON COLUMN @extschema@.payments.owner IS 'the customer whose web request created it: the claim that stripe_lifecycle.owner_claim named; other requests do not see it. NULL: nobody''s';
COMMENT ON COLUMN @extschema@.payments.audit_head IS 'hash of the payment''s latest row in payment_transitions: the row after it is hashed onto this';

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
	amount        bigint NOT NULL,
	currency      text NOT NULL,
	livemode      boolean,
	hash          bytea NOT NULL,
	position      bigint GENERATED BY DEFAULT AS IDENTITY,
	PRIMARY KEY (payment_id, seq)
);

-- For what seals the trail, a range of positions at a time.  Rows lie in that
-- order, so the smallest of indexes does, and a row more costs it nothing.
CREATE INDEX payment_transitions_position ON @extschema@.payment_transitions
	USING brin (position) WITH (autosummarize = on);

COMMENT ON TABLE @extschema@.payment_transitions IS
'The audit trail: one row for every change of a payment''s state, append-only, each hashed onto the one before it; see verify_audit()';
COMMENT ON COLUMN @extschema@.payment_transitions.payment_id IS 'the payment';
COMMENT ON COLUMN @extschema@.payment_transitions.seq IS '1, 2, 3 ... per payment, without gaps';
COMMENT ON COLUMN @extschema@.payment_transitions.from_state IS 'NULL for the creation';
COMMENT ON COLUMN @extschema@.payment_transitions.to_state IS 'the state from then on';
COMMENT ON COLUMN @extschema@.payment_transitions.at IS 'when the database made the move';
COMMENT ON COLUMN @extschema@.payment_transitions.source IS 'create_payment, insert (a plain INSERT), webhook, events_api (read from Stripe''s list of events), or operator (resolve_conflict)';
COMMENT ON COLUMN @extschema@.payment_transitions.event_id IS 'the event that proved it (evt_...)';
COMMENT ON COLUMN @extschema@.payment_transitions.event_type IS 'its type';
COMMENT ON COLUMN @extschema@.payment_transitions.event_created IS 'its time at Stripe';
COMMENT ON COLUMN @extschema@.payment_transitions.role IS 'the database role on whose behalf the statement ran';
COMMENT ON COLUMN @extschema@.payment_transitions.note IS 'what an auditor should notice, such as money that came after a failure';
COMMENT ON COLUMN @extschema@.payment_transitions.amount IS 'the payment''s amount';
COMMENT ON COLUMN @extschema@.payment_transitions.currency IS 'its currency';
COMMENT ON COLUMN @extschema@.payment_transitions.livemode IS 'real money (true) or Stripe''s test mode (false), as far as it was known then';
COMMENT ON COLUMN @extschema@.payment_transitions.hash IS 'SHA-256 of the hash before it (zeroes for the first) and of the fields of this row; docs/audit.md says how';
COMMENT ON COLUMN @extschema@.payment_transitions.position IS 'order of writing, over all payments, with gaps: by it the trail is sealed, see audit_checkpoints. Not part of the hash';

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
COMMENT ON COLUMN @extschema@.webhook_events.source IS 'webhook, or events_api (read from Stripe''s list of events)';
COMMENT ON COLUMN @extschema@.webhook_events.received_at IS 'when it arrived here';
COMMENT ON COLUMN @extschema@.webhook_events.applied_at IS 'when it was decided upon; NULL while unmatched';
COMMENT ON COLUMN @extschema@.webhook_events.payload IS 'what the extension reads of the event and there is no column for, in the event''s own shape; never personal or card data';

-- fillfactor: the two updates of a request, claim and settlement, change what
-- the index of the queue is about, so they are never HOT.  The room keeps a row's
-- versions on one page, as the queue is: the head of it is read again and again.
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
	lookup_at         timestamptz,
	lookup_cursor     text,
	watch_at          timestamptz,
	watch_note        text,
	PRIMARY KEY (id),
	CONSTRAINT api_requests_idempotency_key_key UNIQUE (idempotency_key)
) WITH (fillfactor = 70);

-- Each account has its own pace: the queue is read account by account, by the
-- very expressions of src/outbox.c.
CREATE INDEX api_requests_due ON @extschema@.api_requests
	((coalesce(stripe_account, '')), next_attempt_at)
	WHERE status IN ('queued', 'in_flight');
CREATE INDEX api_requests_payment ON @extschema@.api_requests (payment_id);
CREATE INDEX api_requests_lookup ON @extschema@.api_requests (lookup_at)
	WHERE status = 'unknown';
-- 402: the customer's bank said no, which is nobody's business here.
CREATE INDEX api_requests_rejected ON @extschema@.api_requests (finished_at)
	WHERE status = 'rejected' AND http_status IS DISTINCT FROM 402;
CREATE INDEX api_requests_watch ON @extschema@.api_requests (watch_at)
	WHERE watch_at IS NOT NULL;

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
COMMENT ON COLUMN @extschema@.api_requests.attempts IS 'number of HTTP calls made for it, look-ups included';
COMMENT ON COLUMN @extschema@.api_requests.next_attempt_at IS 'when it is next due; for one in flight the end of its lease; infinity while it waits for the PaymentIntent to be known';
COMMENT ON COLUMN @extschema@.api_requests.first_sent_at IS 'when it was first claimed; Stripe remembers the key for at least 24 h from then';
COMMENT ON COLUMN @extschema@.api_requests.finished_at IS 'when its outcome was settled';
COMMENT ON COLUMN @extschema@.api_requests.http_status IS 'of the latest answer';
COMMENT ON COLUMN @extschema@.api_requests.stripe_request_id IS 'of the latest answer (req_...); Stripe''s support asks for it';
COMMENT ON COLUMN @extschema@.api_requests.last_error IS 'what the latest failed attempt met';
COMMENT ON COLUMN @extschema@.api_requests.lookup_at IS 'of an unknown one: when Stripe is next asked whether it was carried out; infinity if Stripe''s list cannot tell, until an event names the PaymentIntent';
COMMENT ON COLUMN @extschema@.api_requests.lookup_cursor IS 'of an unknown one: how far the search through Stripe''s list of PaymentIntents has come';
COMMENT ON COLUMN @extschema@.api_requests.watch_at IS 'of the creation of a PaymentIntent: when to look at it next, should the payment not have ended by then';
COMMENT ON COLUMN @extschema@.api_requests.watch_note IS 'what the latest such look found';

-- fillfactor: a row is completed once, which takes it out of the index of open
-- ones and so is not HOT; there is room for that version beside the first.
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
	method              text NOT NULL DEFAULT 'POST' CHECK (method IN ('POST', 'GET')),
	PRIMARY KEY (request_id, attempt)
) WITH (fillfactor = 80);

-- A worker completes what its predecessor had under way when it died.
CREATE INDEX api_attempts_open ON @extschema@.api_attempts (request_id)
	WHERE finished_at IS NULL;

COMMENT ON TABLE @extschema@.api_attempts IS
'Every HTTP call, written before its first byte leaves and completed with its answer';
COMMENT ON COLUMN @extschema@.api_attempts.request_id IS 'the row of api_requests';
COMMENT ON COLUMN @extschema@.api_attempts.attempt IS '1, 2, 3 ...';
COMMENT ON COLUMN @extschema@.api_attempts.started_at IS 'when it was claimed';
COMMENT ON COLUMN @extschema@.api_attempts.finished_at IS 'when its outcome was stored; NULL while in flight';
COMMENT ON COLUMN @extschema@.api_attempts.duration_ms IS 'from first byte out to last byte in, in milliseconds';
COMMENT ON COLUMN @extschema@.api_attempts.http_status IS 'NULL if no answer came';
COMMENT ON COLUMN @extschema@.api_attempts.stripe_request_id IS 'Stripe''s Request-Id header';
COMMENT ON COLUMN @extschema@.api_attempts.result IS 'succeeded, rejected, retry, unknown; lost: the worker died before it saw an answer. Of a look-up: whether it was answered';
COMMENT ON COLUMN @extschema@.api_attempts.error IS 'what went wrong, in short';
COMMENT ON COLUMN @extschema@.api_attempts.idempotent_replayed IS 'Stripe answered from its memory of an earlier attempt';
COMMENT ON COLUMN @extschema@.api_attempts.method IS 'POST: the request itself; GET: a look-up of what became of it, or of its PaymentIntent';

CREATE TABLE @extschema@.worker_state (
	singleton         boolean NOT NULL DEFAULT true CHECK (singleton),
	paused            boolean NOT NULL DEFAULT false,
	paused_reason     text,
	paused_by         text,
	paused_at         timestamptz,
	system_identifier text,
	database_oid      oid,
	host              text,
	port              integer,
	timeline          integer,
	served_at         timestamptz,
	moved_from        text,
	moved_at          timestamptz,
	PRIMARY KEY (singleton)
);
INSERT INTO @extschema@.worker_state DEFAULT VALUES;

-- A dump carries this row: in it stands who served the database, by which a
-- restored copy knows itself for one.  It takes the place of the row above.  If
-- it does not tell the copy from its original, because that never sent anything
-- or because it is restored where it comes from, then it comes back paused.
CREATE FUNCTION @extschema@.replace_worker_state() RETURNS trigger
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$
BEGIN
	DELETE FROM @extschema@.worker_state;
	IF NOT NEW.paused AND (NEW.system_identifier IS NULL
		OR NEW.system_identifier = (SELECT c.system_identifier::text FROM pg_control_system() c)
		AND NEW.database_oid = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))
	THEN
		NEW.paused := true;
		NEW.paused_reason := 'restored from a dump';
		NEW.paused_by := session_user;
		NEW.paused_at := clock_timestamp();
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION @extschema@.replace_worker_state() IS
'Trigger of worker_state: a restored row takes the place of the one that CREATE EXTENSION made, and sends nothing until resume_worker()';
CREATE TRIGGER stripe_lifecycle_replace BEFORE INSERT ON @extschema@.worker_state
	FOR EACH ROW EXECUTE FUNCTION @extschema@.replace_worker_state();
-- also for the row that comes by logical replication
ALTER TABLE @extschema@.worker_state ENABLE ALWAYS TRIGGER stripe_lifecycle_replace;
SELECT pg_catalog.pg_extension_config_dump('@extschema@.worker_state', '');

COMMENT ON TABLE @extschema@.worker_state IS
'Whether the worker may send, and from where it last did; pause_worker() and resume_worker() change it';
COMMENT ON COLUMN @extschema@.worker_state.singleton IS 'there is one row';
COMMENT ON COLUMN @extschema@.worker_state.paused IS 'nothing is sent to Stripe while true';
COMMENT ON COLUMN @extschema@.worker_state.paused_reason IS 'as given to pause_worker(), or why the worker did it itself';
COMMENT ON COLUMN @extschema@.worker_state.paused_by IS 'the role that paused it; stripe_lifecycle_worker: the worker itself';
COMMENT ON COLUMN @extschema@.worker_state.paused_at IS 'since when';
COMMENT ON COLUMN @extschema@.worker_state.system_identifier IS 'the server from which payments were sent: anywhere else this is a copy, and paused. NULL before anything was sent';
COMMENT ON COLUMN @extschema@.worker_state.database_oid IS 'the database there';
COMMENT ON COLUMN @extschema@.worker_state.host IS 'the host the latest worker ran on';
COMMENT ON COLUMN @extschema@.worker_state.port IS 'the port of its server';
COMMENT ON COLUMN @extschema@.worker_state.timeline IS 'the timeline it wrote; a promotion begins a new one';
COMMENT ON COLUMN @extschema@.worker_state.served_at IS 'when that worker first sent something';
COMMENT ON COLUMN @extschema@.worker_state.moved_from IS 'host, port and timeline before they last changed; resume_worker() erases this';
COMMENT ON COLUMN @extschema@.worker_state.moved_at IS 'when the worker noticed';

-- One row per Stripe account: a connected account has a list of events of its
-- own.  No guard: nothing here is believed about a payment.
CREATE TABLE @extschema@.reconcile_state (
	account          text NOT NULL,
	since            timestamptz NOT NULL,
	cursor_created   timestamptz,
	rewind_to        timestamptz,
	run_started_at   timestamptz,
	run_gte          timestamptz,
	run_after        text,
	run_newest       timestamptz,
	run_failed       timestamptz,
	run_pages        integer NOT NULL DEFAULT 0,
	in_flight        boolean NOT NULL DEFAULT false,
	due_at           timestamptz,
	failures         integer NOT NULL DEFAULT 0,
	proven_until     timestamptz,
	last_finished_at timestamptz,
	last_error       jsonb,
	gap_from         timestamptz,
	gap_to           timestamptz,
	run_failures     integer NOT NULL DEFAULT 0,
	failing          integer NOT NULL DEFAULT 0,
	failing_since    timestamptz,
	failing_error    jsonb,
	retry_from       timestamptz,
	retry_at         timestamptz,
	PRIMARY KEY (account)
) WITH (fillfactor = 50);

COMMENT ON TABLE @extschema@.reconcile_state IS
'How far Stripe''s own list of events has been read, for each account; see stripe_lifecycle.reconcile_interval';
COMMENT ON COLUMN @extschema@.reconcile_state.account IS 'connected account (acct_...), or empty for the API key''s own';
COMMENT ON COLUMN @extschema@.reconcile_state.since IS 'when the account''s first PaymentIntent became known';
COMMENT ON COLUMN @extschema@.reconcile_state.cursor_created IS 'events up to here were read, by Stripe''s clock; the next run begins a little before';
COMMENT ON COLUMN @extschema@.reconcile_state.rewind_to IS 'a look at a payment found an event missing: the next run begins here';
COMMENT ON COLUMN @extschema@.reconcile_state.run_started_at IS 'when the run under way began; NULL between runs';
COMMENT ON COLUMN @extschema@.reconcile_state.run_gte IS 'the oldest time it reads';
COMMENT ON COLUMN @extschema@.reconcile_state.run_after IS 'the last event it has read: Stripe lists the newest first';
COMMENT ON COLUMN @extschema@.reconcile_state.run_newest IS 'Stripe''s clock when it began: the next cursor';
COMMENT ON COLUMN @extschema@.reconcile_state.run_failed IS 'time of the oldest event of ours that it could not take in';
COMMENT ON COLUMN @extschema@.reconcile_state.run_pages IS 'pages read by the run under way, or by the latest';
COMMENT ON COLUMN @extschema@.reconcile_state.in_flight IS 'a page is being fetched; due_at is the end of its lease';
COMMENT ON COLUMN @extschema@.reconcile_state.due_at IS 'when the next page or run is due, unless that is a matter of the interval';
COMMENT ON COLUMN @extschema@.reconcile_state.failures IS 'pages in a row that could not be had';
COMMENT ON COLUMN @extschema@.reconcile_state.proven_until IS 'every event up to here that Stripe still has was taken in';
COMMENT ON COLUMN @extschema@.reconcile_state.last_finished_at IS 'when the latest complete run ended';
COMMENT ON COLUMN @extschema@.reconcile_state.last_error IS 'what went wrong in the run under way, or in the latest';
COMMENT ON COLUMN @extschema@.reconcile_state.gap_from IS 'events from here to gap_to were gone from Stripe, which keeps them for 30 days, before they could be read. Stays until its owner sets both to NULL';
COMMENT ON COLUMN @extschema@.reconcile_state.gap_to IS 'the end of that gap';
COMMENT ON COLUMN @extschema@.reconcile_state.run_failures IS 'how many events of ours it could not take in';
COMMENT ON COLUMN @extschema@.reconcile_state.failing IS 'how many events of ours are at Stripe and could not be taken in';
COMMENT ON COLUMN @extschema@.reconcile_state.failing_since IS 'since when there are any';
COMMENT ON COLUMN @extschema@.reconcile_state.failing_error IS 'id and SQLSTATE of one of them';
COMMENT ON COLUMN @extschema@.reconcile_state.retry_from IS 'time of the oldest of them; proven_until stays before it';
COMMENT ON COLUMN @extschema@.reconcile_state.retry_at IS 'when a run is to begin there and try them again. Its owner may set it to now()';

-- Where the removal of old rows stands.  Not dumped: a restored table is gone
-- through from its beginning.
CREATE TABLE @extschema@.retention_state (
	table_name  text NOT NULL,
	block       bigint NOT NULL DEFAULT 0,
	due_at      timestamptz,
	removed     bigint NOT NULL DEFAULT 0,
	finished_at timestamptz,
	PRIMARY KEY (table_name)
) WITH (fillfactor = 50);
INSERT INTO @extschema@.retention_state (table_name) VALUES ('webhook_events'), ('api_requests');

-- A subscriber of logical replication has these rows already when its original's arrive.
CREATE FUNCTION @extschema@.replace_retention_state() RETURNS trigger
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$
BEGIN
	DELETE FROM @extschema@.retention_state WHERE table_name = NEW.table_name;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION @extschema@.replace_retention_state() IS
'Trigger of retention_state: a replicated row takes the place of the one that CREATE EXTENSION made';
CREATE TRIGGER stripe_lifecycle_replace BEFORE INSERT ON @extschema@.retention_state
	FOR EACH ROW EXECUTE FUNCTION @extschema@.replace_retention_state();
ALTER TABLE @extschema@.retention_state ENABLE ALWAYS TRIGGER stripe_lifecycle_replace;

COMMENT ON TABLE @extschema@.retention_state IS
'How far old rows have been removed; see stripe_lifecycle.event_retention and request_retention';
COMMENT ON COLUMN @extschema@.retention_state.table_name IS 'webhook_events, or api_requests with api_attempts';
COMMENT ON COLUMN @extschema@.retention_state.block IS 'page of the table at which the next step begins; 0 between rounds';
COMMENT ON COLUMN @extschema@.retention_state.due_at IS 'when that is; NULL: at once';
COMMENT ON COLUMN @extschema@.retention_state.removed IS 'rows removed so far';
COMMENT ON COLUMN @extschema@.retention_state.finished_at IS 'when the table was last gone through to its end';

CREATE TABLE @extschema@.operator_actions (
	id         bigint GENERATED ALWAYS AS IDENTITY,
	at         timestamptz NOT NULL,
	role       text NOT NULL,
	action     text NOT NULL,
	request_id bigint,
	payment_id uuid,
	event_id   text,
	reason     text,
	-- not id alone: whoever pauses a new database before rows are restored or
	-- replicated into it takes a number that one of these rows has
	PRIMARY KEY (id, at)
);

COMMENT ON TABLE @extschema@.operator_actions IS
'What operators did, append-only: who paused and resumed the worker, sent requests again, decided on events';
COMMENT ON COLUMN @extschema@.operator_actions.id IS 'order of recording; in a copy what was recorded before its rows came has the number of one of them';
COMMENT ON COLUMN @extschema@.operator_actions.at IS 'when';
COMMENT ON COLUMN @extschema@.operator_actions.role IS 'the database role on whose behalf the session ran';
COMMENT ON COLUMN @extschema@.operator_actions.action IS 'pause_worker, resume_worker, retry_request, replay_event, accept_event or dismiss_event';
COMMENT ON COLUMN @extschema@.operator_actions.request_id IS 'the row of api_requests, if it was about one';
COMMENT ON COLUMN @extschema@.operator_actions.payment_id IS 'the payment, if it was about one';
COMMENT ON COLUMN @extschema@.operator_actions.event_id IS 'the event, if it was about one';
COMMENT ON COLUMN @extschema@.operator_actions.reason IS 'as the operator gave it';

CREATE TABLE @extschema@.audit_checkpoints (
	number        bigint NOT NULL CHECK (number > 0),
	trail         uuid NOT NULL,
	from_position bigint NOT NULL CHECK (from_position >= 0),
	to_position   bigint NOT NULL CHECK (to_position > from_position),
	leaves        bigint NOT NULL CHECK (leaves > 0),
	first_at      timestamptz NOT NULL,
	last_at       timestamptz NOT NULL,
	sealed_at     timestamptz NOT NULL,
	root          bytea NOT NULL CHECK (octet_length(root) = 32),
	previous      bytea NOT NULL CHECK (octet_length(previous) = 32),
	key           bytea NOT NULL CHECK (octet_length(key) = 32),
	signature     bytea NOT NULL CHECK (octet_length(signature) = 64),
	PRIMARY KEY (number)
);

COMMENT ON TABLE @extschema@.audit_checkpoints IS
'Signed seals over the audit trail, each chained to the one before, append-only; see verify_checkpoints() and docs/checkpoints.md. The server''s log has a copy of each';
COMMENT ON COLUMN @extschema@.audit_checkpoints.number IS '1, 2, 3 ... without gaps';
COMMENT ON COLUMN @extschema@.audit_checkpoints.trail IS 'which trail: drawn at random for the first checkpoint, the same in all that follow it';
COMMENT ON COLUMN @extschema@.audit_checkpoints.from_position IS 'seals the transitions at positions above this ...';
COMMENT ON COLUMN @extschema@.audit_checkpoints.to_position IS '... up to and including this';
COMMENT ON COLUMN @extschema@.audit_checkpoints.leaves IS 'how many transitions those are';
COMMENT ON COLUMN @extschema@.audit_checkpoints.first_at IS 'the earliest time of one of them';
COMMENT ON COLUMN @extschema@.audit_checkpoints.last_at IS 'the latest';
COMMENT ON COLUMN @extschema@.audit_checkpoints.sealed_at IS 'when they were sealed';
COMMENT ON COLUMN @extschema@.audit_checkpoints.root IS 'Merkle root (RFC 6962) of their hashes in the order of their positions';
COMMENT ON COLUMN @extschema@.audit_checkpoints.previous IS 'SHA-256 of the checkpoint before; zeroes for the first';
COMMENT ON COLUMN @extschema@.audit_checkpoints.key IS 'fingerprint of the key that signed: SHA-256 of the public key in DER';
COMMENT ON COLUMN @extschema@.audit_checkpoints.signature IS 'Ed25519 signature over all of the above, as checkpoint_line() writes it';

--
-- Dumps.  pg_dump carries all of the tables above, and what continues their
-- identity columns.  It sorts tables by their names, so payment_transitions
-- comes before payments, which it has to prove.  Restored rows come through the guards, by plain INSERT or
-- COPY; the guards take them only where the library has written nothing yet,
-- which is what the table below tells.  It is never dumped, so it is empty in a
-- restored database until that is taken into use.
--

CREATE TABLE @extschema@.in_use (
	since timestamptz NOT NULL
);
COMMENT ON TABLE @extschema@.in_use IS
'Has a row once a payment or an event was written by the functions of stripe_lifecycle in this very database: from then on no rows are taken from dumps. Never dumped itself';
COMMENT ON COLUMN @extschema@.in_use.since IS 'when that began; sessions that began at once leave a row each';

SELECT pg_catalog.pg_extension_config_dump('@extschema@.payments', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.payment_transitions', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.payment_transitions_position_seq', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.audit_checkpoints', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.webhook_events', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.api_requests', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.api_requests_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.api_attempts', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.reconcile_state', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.operator_actions', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.operator_actions_id_seq', '');

--
-- Guards.  AFTER triggers see a row as it was really written, whatever other
-- triggers did to it on the way, and raise before the statement ends.
-- ENABLE ALWAYS: session_replication_role = replica does not switch them off.
-- The one writer they let through is logical replication's apply worker.
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

CREATE TRIGGER stripe_lifecycle_guard AFTER INSERT OR UPDATE OR DELETE ON @extschema@.operator_actions
	FOR EACH ROW EXECUTE FUNCTION @extschema@.guard();
CREATE TRIGGER stripe_lifecycle_guard_truncate BEFORE TRUNCATE ON @extschema@.operator_actions
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.guard();
ALTER TABLE @extschema@.operator_actions ENABLE ALWAYS TRIGGER stripe_lifecycle_guard;
ALTER TABLE @extschema@.operator_actions ENABLE ALWAYS TRIGGER stripe_lifecycle_guard_truncate;

CREATE TRIGGER stripe_lifecycle_guard AFTER INSERT OR UPDATE OR DELETE ON @extschema@.audit_checkpoints
	FOR EACH ROW EXECUTE FUNCTION @extschema@.guard();
CREATE TRIGGER stripe_lifecycle_guard_truncate BEFORE TRUNCATE ON @extschema@.audit_checkpoints
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.guard();
ALTER TABLE @extschema@.audit_checkpoints ENABLE ALWAYS TRIGGER stripe_lifecycle_guard;
ALTER TABLE @extschema@.audit_checkpoints ENABLE ALWAYS TRIGGER stripe_lifecycle_guard_truncate;

CREATE TRIGGER stripe_lifecycle_guard AFTER UPDATE OR DELETE ON @extschema@.in_use
	FOR EACH ROW EXECUTE FUNCTION @extschema@.guard();
CREATE TRIGGER stripe_lifecycle_guard_truncate BEFORE TRUNCATE ON @extschema@.in_use
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.guard();
ALTER TABLE @extschema@.in_use ENABLE ALWAYS TRIGGER stripe_lifecycle_guard;
ALTER TABLE @extschema@.in_use ENABLE ALWAYS TRIGGER stripe_lifecycle_guard_truncate;

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

-- A type of its own, not OUT parameters: PostgreSQL would put the shape of the
-- answer together from them twice for each call, which takes longer than to find
-- the payment.
CREATE TYPE @extschema@.payment_summary AS (
	id                uuid,
	state             @extschema@.payment_state,
	amount            bigint,
	currency          text,
	payment_intent_id text,
	client_secret     text,
	request_status    @extschema@.request_status,
	last_error        jsonb,
	decline_count     integer,
	livemode          boolean,
	created_at        timestamptz,
	updated_at        timestamptz,
	finished_at       timestamptz
);
COMMENT ON TYPE @extschema@.payment_summary IS 'What payment_status() shows of a payment';
COMMENT ON COLUMN @extschema@.payment_summary.id IS 'as in payments, and so are the others where nothing else is said';
COMMENT ON COLUMN @extschema@.payment_summary.state IS 'see legal_transitions()';
COMMENT ON COLUMN @extschema@.payment_summary.amount IS 'in the smallest unit of the currency';
COMMENT ON COLUMN @extschema@.payment_summary.currency IS 'ISO 4217 code in lower case';
COMMENT ON COLUMN @extschema@.payment_summary.payment_intent_id IS 'Stripe''s id (pi_...), once known';
COMMENT ON COLUMN @extschema@.payment_summary.client_secret IS 'for the customer''s browser, until the payment ends';
COMMENT ON COLUMN @extschema@.payment_summary.request_status IS 'of the latest call to Stripe; NULL if there was none';
COMMENT ON COLUMN @extschema@.payment_summary.last_error IS 'the latest decline, or the refusal of the latest API call';
COMMENT ON COLUMN @extschema@.payment_summary.decline_count IS 'how many declines Stripe reported';
COMMENT ON COLUMN @extschema@.payment_summary.livemode IS 'real money or test mode, once known';
COMMENT ON COLUMN @extschema@.payment_summary.created_at IS 'when create_payment() ran';
COMMENT ON COLUMN @extschema@.payment_summary.updated_at IS 'when the payment last changed';
COMMENT ON COLUMN @extschema@.payment_summary.finished_at IS 'when it reached succeeded or failed';

CREATE FUNCTION @extschema@.payment_status(
	payment_id uuid,
	wait interval DEFAULT '0',
	known timestamptz DEFAULT NULL)
	RETURNS @extschema@.payment_summary
	LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'sl_payment_status';
COMMENT ON FUNCTION @extschema@.payment_status(uuid, interval, timestamptz) IS
'What a frontend polls: the payment as it stands, or, with wait, as soon as it changed or when that time is up; at once if it has ended, or if its updated_at is not the one given as known. request_status is that of the latest call to Stripe';

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
-- HTTP, through PostgREST; see docs/postgrest.md
--

-- One unnamed parameter of type json, and a name without overloads: only then
-- does PostgREST hand over the raw body.  Not STRICT: NULL is no success.
CREATE FUNCTION @extschema@.webhook(json) RETURNS json
	LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'sl_webhook';
COMMENT ON FUNCTION @extschema@.webhook(json) IS
'Stripe''s webhook endpoint, as PostgREST calls it: the parameter is the raw body, the signature is in request.headers. Answers 200 to every verified event, 400 to what is no such thing, 413, 429; raises PT503 or PT500 if Stripe should deliver it again';

CREATE FUNCTION @extschema@.pre_request() RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'sl_pre_request';
COMMENT ON FUNCTION @extschema@.pre_request() IS
'PostgREST''s db-pre-request, or called from a site''s own: security headers for the answer, and limits to the requests of a client address and of a role (429). Stripe''s webhooks pass';

CREATE FUNCTION @extschema@.recent_rejections(
	OUT at timestamptz, OUT reason text, OUT sender inet,
	OUT body_bytes bigint, OUT time_skew interval)
	RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 100
	AS 'MODULE_PATHNAME', 'sl_recent_rejections';
COMMENT ON FUNCTION @extschema@.recent_rejections() IS
'The latest webhooks that this database did not take in, from shared memory, the newest first: 256 are kept for the whole server. See view webhook_rejections';

CREATE VIEW @extschema@.webhook_rejections WITH (security_barrier) AS
SELECT at, reason, sender, body_bytes, time_skew
  FROM @extschema@.recent_rejections();
COMMENT ON VIEW @extschema@.webhook_rejections IS
'The latest webhooks that this database did not take in; nothing of what was sent';
COMMENT ON COLUMN @extschema@.webhook_rejections.at IS 'when';
COMMENT ON COLUMN @extschema@.webhook_rejections.reason IS 'why, in the words of the refused_ columns of pg_stat_stripe_lifecycle';
COMMENT ON COLUMN @extschema@.webhook_rejections.sender IS 'the client''s address, an IPv6 one as its network of 64 bits; NULL for a local connection. Behind PostgREST see stripe_lifecycle.client_address_header';
COMMENT ON COLUMN @extschema@.webhook_rejections.body_bytes IS 'how long the body was';
COMMENT ON COLUMN @extschema@.webhook_rejections.time_skew IS 'the time in the signature header minus the time it arrived; NULL if there was none';

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

-- With row_security off they fail where somebody's policy hides rows from the
-- caller, and do not pass over them.
CREATE FUNCTION @extschema@.verify_audit(
	INOUT payment_id uuid DEFAULT NULL,
	OUT seq integer, OUT problem text, OUT detail text)
	RETURNS SETOF record
	LANGUAGE c STABLE PARALLEL SAFE ROWS 10
	SET search_path = pg_catalog, pg_temp
	SET row_security = off
	AS 'MODULE_PATHNAME', 'sl_verify_audit';
COMMENT ON FUNCTION @extschema@.verify_audit(uuid) IS
'Every break in the audit trail of one payment, or of all: rows altered, missing, inserted or reordered, moves that are illegal, payments that differ from their replayed trail, events that disagree. No row means that all is well';

-- Checkpoints: what the worker seals is judged here, and taken elsewhere to be
-- judged there.

CREATE FUNCTION @extschema@.checkpoint_line(checkpoint @extschema@.audit_checkpoints)
	RETURNS text
	LANGUAGE c IMMUTABLE PARALLEL SAFE STRICT
	AS 'MODULE_PATHNAME', 'sl_checkpoint_line_sql';
COMMENT ON FUNCTION @extschema@.checkpoint_line(@extschema@.audit_checkpoints) IS
'A checkpoint as the server''s log has it: the text that is signed, and the signature';

CREATE FUNCTION @extschema@.verify_checkpoints(
	since timestamptz DEFAULT '-infinity',
	public_keys text DEFAULT NULL,
	OUT checkpoint bigint, OUT problem text, OUT detail text)
	RETURNS SETOF record
	LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 10
	SET search_path = pg_catalog, pg_temp
	SET row_security = off
	AS 'MODULE_PATHNAME', 'sl_verify_checkpoints';
COMMENT ON FUNCTION @extschema@.verify_checkpoints(timestamptz, text) IS
'Compares the audit trail with the checkpoints that sealed it, from the first one with transitions of that time on: what is missing, added, changed, not chained or not signed. public_keys (PEM) are trusted beside those in the server''s key file. No row means that all is well, as far as it can be told from within';

CREATE FUNCTION @extschema@.audit_export(
	since timestamptz DEFAULT '-infinity',
	until timestamptz DEFAULT 'infinity',
	format text DEFAULT 'json')
	RETURNS SETOF text
	LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 100000
	SET search_path = pg_catalog, pg_temp
	SET row_security = off
	AS 'MODULE_PATHNAME', 'sl_audit_export';
COMMENT ON FUNCTION @extschema@.audit_export(timestamptz, timestamptz, text) IS
'The audit trail with its checkpoints as lines of JSON, or of CSV, for stripe_lifecycle_verify: all checkpoints with transitions from since on and before until, whole, and what is not sealed yet. No personal data';

CREATE FUNCTION @extschema@.record_action(action text, reason text) RETURNS text
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'sl_record_action';
COMMENT ON FUNCTION @extschema@.record_action(text, text) IS
'Appends to operator_actions, for the functions of stripe_lifecycle; returns the role on whose behalf the session runs';

CREATE FUNCTION @extschema@.pause_worker(reason text DEFAULT NULL) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	AS $$
	WITH noted AS MATERIALIZED (
		SELECT @extschema@.record_action('pause_worker', reason) AS role)
	UPDATE @extschema@.worker_state
	   SET paused = true, paused_reason = reason,
		   paused_by = noted.role, paused_at = pg_catalog.clock_timestamp()
	  FROM noted
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
	-- a replica has its original's rows, but not the state of its sequences
	SELECT pg_catalog.setval('@extschema@.operator_actions_id_seq', r.id)
	  FROM @extschema@.operator_actions_id_seq s, (SELECT pg_catalog.max(a.id) AS id FROM @extschema@.operator_actions a) r
	 WHERE r.id > CASE WHEN s.is_called THEN s.last_value ELSE 0 END;
	SELECT pg_catalog.setval('@extschema@.api_requests_id_seq', r.id)
	  FROM @extschema@.api_requests_id_seq s, (SELECT pg_catalog.max(q.id) AS id FROM @extschema@.api_requests q) r
	 WHERE r.id > CASE WHEN s.is_called THEN s.last_value ELSE 0 END;
	SELECT @extschema@.record_action('resume_worker', NULL);
	SELECT pg_catalog.setval('@extschema@.payment_transitions_position_seq', p.position)
	  FROM @extschema@.payment_transitions_position_seq s,
		   -- all of them are looked through only where the newest payment's tells that they are behind
		   LATERAL (SELECT GREATEST((SELECT pg_catalog.max(c.to_position) FROM @extschema@.audit_checkpoints c),
									(SELECT pg_catalog.max(t.position) FROM @extschema@.payment_transitions t
									  WHERE NOT EXISTS (SELECT FROM @extschema@.in_use)
										 OR (SELECT n.position FROM @extschema@.payment_transitions n
											  WHERE n.seq = 1 AND n.payment_id = (
												SELECT q.id FROM @extschema@.payments q ORDER BY q.id DESC LIMIT 1))
											> CASE WHEN s.is_called THEN s.last_value ELSE 0 END)) AS position) p
	 WHERE p.position > CASE WHEN s.is_called THEN s.last_value ELSE 0 END;
	UPDATE @extschema@.worker_state
	   SET paused = false, paused_reason = NULL, paused_by = NULL, paused_at = NULL,
		   -- whoever calls this means this server and this database
		   system_identifier = CASE WHEN system_identifier IS NOT NULL THEN
			   (SELECT c.system_identifier::text FROM pg_catalog.pg_control_system() c) END,
		   database_oid = CASE WHEN system_identifier IS NOT NULL THEN
			   (SELECT d.oid FROM pg_catalog.pg_database d
				 WHERE d.datname = pg_catalog.current_database()) END,
		   host = NULL, port = NULL, timeline = NULL,
		   moved_from = NULL, moved_at = NULL;
	-- what was restored here is in use from now on
	INSERT INTO @extschema@.in_use
	SELECT pg_catalog.clock_timestamp()
	 WHERE EXISTS (SELECT FROM @extschema@.payments)
	   AND NOT EXISTS (SELECT FROM @extschema@.in_use);
	SELECT @extschema@.wake_worker()
$$;
COMMENT ON FUNCTION @extschema@.resume_worker() IS
'Lets the worker send again what is queued in this database. In a copy it means that payments are sent from here from now on, and no longer from the original';

CREATE FUNCTION @extschema@.retry_request(request_id bigint, reason text DEFAULT NULL)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'sl_retry_request';
COMMENT ON FUNCTION @extschema@.retry_request(bigint, text) IS
'Sends a dead request again: an unknown one as it is, under the same key, as long as Stripe remembers that; a rejected one as a new request. Returns the id of the request that will be sent';

CREATE FUNCTION @extschema@.replay_event(event_id text, reason text DEFAULT NULL)
	RETURNS text
	LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'sl_replay_event';
COMMENT ON FUNCTION @extschema@.replay_event(text, text) IS
'Judges an unmatched or conflicting event anew, after what kept it from being applied was mended. Returns its outcome';

CREATE FUNCTION @extschema@.resolve_conflict(event_id text, action text, reason text DEFAULT NULL)
	RETURNS text
	LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'sl_resolve_conflict';
COMMENT ON FUNCTION @extschema@.resolve_conflict(text, text, text) IS
'Decides on an event that contradicts its payment: accept applies it all the same, dismiss leaves the payment as it is. Also dismisses an unmatched event. Returns its outcome';

--
-- What is going on.  The views read only what waits for somebody, through
-- partial indexes, so they cost what that is and not what ever was.  They are
-- read by roles that may not read the tables: hence security_barrier, lest a
-- function in such a role's query be shown the rows that a view leaves out.
--

CREATE FUNCTION @extschema@.stats(
	OUT stats_since timestamptz,
	OUT attempts bigint, OUT succeeded bigint, OUT rejected bigint,
	OUT retry bigint, OUT unknown bigint, OUT retries bigint,
	OUT transport_errors bigint, OUT http_2xx bigint, OUT http_4xx bigint,
	OUT http_429 bigint, OUT http_5xx bigint,
	OUT last_success timestamptz, OUT last_error_at timestamptz,
	OUT last_error text, OUT latency_histogram bigint[],
	OUT webhooks_applied bigint, OUT webhooks_recorded bigint,
	OUT webhooks_stale bigint, OUT webhooks_conflict bigint,
	OUT webhooks_unmatched bigint, OUT webhooks_ignored bigint,
	OUT webhooks_duplicate bigint,
	OUT refused_bad_signature bigint, OUT refused_stale bigint,
	OUT refused_malformed bigint, OUT refused_too_large bigint,
	OUT refused_bad_body bigint, OUT refused_bad_event bigint,
	OUT refused_no_secret bigint, OUT refused_wrong_mode bigint,
	OUT refused_unavailable bigint, OUT refused_failed bigint,
	OUT last_webhook timestamptz,
	OUT worker_starts bigint, OUT worker_failures bigint)
	RETURNS record
	LANGUAGE c VOLATILE PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'sl_stats';
COMMENT ON FUNCTION @extschema@.stats() IS
'This database''s counters since stats_since, from shared memory; all NULL if the library is not preloaded. See view pg_stat_stripe_lifecycle';

CREATE FUNCTION @extschema@.stats_latency(
	OUT from_ms bigint, OUT below_ms bigint, OUT calls bigint)
	RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 21
	AS 'MODULE_PATHNAME', 'sl_stats_latency';
COMMENT ON FUNCTION @extschema@.stats_latency() IS
'The histogram of how long calls to Stripe took, with its bounds in milliseconds; the last bucket has no upper one';

CREATE FUNCTION @extschema@.versions(
	OUT library text, OUT objects text, OUT problem text)
	RETURNS record
	LANGUAGE c STABLE PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'sl_versions';
COMMENT ON FUNCTION @extschema@.versions() IS
'The version of the library that this session runs, of the extension in this database, and why they do not fit; problem is NULL if they do. Scripts of updates ask it first';

CREATE FUNCTION @extschema@.server_status(
	OUT preloaded boolean, OUT launcher_running boolean, OUT worker_running boolean,
	OUT database_served boolean,
	OUT api_key_problem text, OUT api_key_mode text,
	OUT webhook_secrets_problem text, OUT webhook_secrets integer,
	OUT system_identifier text, OUT timeline integer, OUT host text, OUT port integer,
	OUT checkpoint_key_problem text, OUT checkpoint_key text)
	RETURNS record
	LANGUAGE c VOLATILE PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'sl_server_status';
COMMENT ON FUNCTION @extschema@.server_status() IS
'What health() knows of the server: processes, whether the files of secrets can be used, where it runs. For the owner';

CREATE VIEW @extschema@.pg_stat_stripe_lifecycle WITH (security_barrier) AS
SELECT d.oid AS datid, d.datname,
	   q.queued, q.in_flight, q.oldest_due,
	   (SELECT count(*) FROM @extschema@.api_requests WHERE status = 'unknown') AS unknown_requests,
	   s.*
  FROM pg_catalog.pg_database d,
	   (SELECT count(*) FILTER (WHERE status = 'queued') AS queued,
			   count(*) FILTER (WHERE status = 'in_flight') AS in_flight,
			   min(next_attempt_at) FILTER (WHERE status = 'queued' AND next_attempt_at <> 'infinity') AS oldest_due
		  FROM @extschema@.api_requests WHERE status IN ('queued', 'in_flight')) q,
	   @extschema@.stats() s
 WHERE d.datname = pg_catalog.current_database();
COMMENT ON VIEW @extschema@.pg_stat_stripe_lifecycle IS
'One row for this database: its queue as it is, and counters since stats_since, which survive workers but not a restart of the server';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.datid IS 'OID of this database';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.datname IS 'its name';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.queued IS 'requests that wait to be sent, or sent again';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.in_flight IS 'requests under way';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.oldest_due IS 'when the first of the queue is, or was, due; NULL if nothing waits but for its PaymentIntent';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.unknown_requests IS 'requests of which nobody knows whether Stripe carried them out';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.stats_since IS 'since when the following is counted; NULL, like all of it, if the library is not preloaded';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.attempts IS 'calls to Stripe that have ended';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.succeeded IS 'of these: carried out';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.rejected IS 'of these: refused for good';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.retry IS 'of these: to be repeated';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.unknown IS 'of these: not known, and not to be repeated';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.retries IS 'attempts that were not the first of their request';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.transport_errors IS 'attempts without an answer: no connection, a broken one, a timeout';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.http_2xx IS 'answers of that class';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.http_4xx IS 'answers of that class but 429';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.http_429 IS 'answers that said: too many requests';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.http_5xx IS 'answers of that class';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.last_success IS 'when a call last succeeded';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.last_error_at IS 'when one last did not';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.last_error IS 'how: transport, http_NNN, or the SQLSTATE with which its answer could not be stored';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.latency_histogram IS 'calls by how long they took: below 1 ms, below 2, below 4 ... the 21st 2^19 ms or more; see stats_latency()';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.webhooks_applied IS 'webhooks that moved a payment';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.webhooks_recorded IS 'webhooks kept that moved nothing';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.webhooks_stale IS 'webhooks older than what was known';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.webhooks_conflict IS 'webhooks that contradicted their payment';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.webhooks_unmatched IS 'webhooks of no payment known then';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.webhooks_ignored IS 'webhooks of a type without use';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.webhooks_duplicate IS 'webhooks that had been taken in before';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.refused_bad_signature IS 'webhooks refused: no signature matched (SL021)';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.refused_stale IS 'webhooks refused: signed too far from now (SL022)';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.refused_malformed IS 'webhooks refused: header missing or malformed (SL023)';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.refused_too_large IS 'webhooks refused: body too large (SL024)';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.refused_bad_body IS 'webhooks refused: signed, but no JSON object (SL025)';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.refused_bad_event IS 'webhooks refused: signed, but no event that can be read (SL026)';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.refused_no_secret IS 'webhooks refused for want of a secret (SL020)';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.refused_wrong_mode IS 'webhooks refused by webhook(): of the other mode, live or test (SL061)';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.refused_unavailable IS 'webhooks not taken in because the database could not do so at that moment: a lock, a timeout, a standby';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.refused_failed IS 'webhooks not taken in because of another error, such as one that a trigger raised';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.last_webhook IS 'when a webhook was last taken in';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.worker_starts IS 'workers that took up this database';
COMMENT ON COLUMN @extschema@.pg_stat_stripe_lifecycle.worker_failures IS 'workers that ended otherwise than by having nothing to do';

CREATE VIEW @extschema@.conflicts WITH (security_barrier) AS
SELECT event_id, type, payment_id, payment_intent_id, reason, created, received_at
  FROM @extschema@.webhook_events
 WHERE outcome = 'conflict';
COMMENT ON VIEW @extschema@.conflicts IS
'Verified events that contradict their payment and changed nothing; resolve_conflict() decides on them';
COMMENT ON COLUMN @extschema@.conflicts.event_id IS 'the event (evt_...)';
COMMENT ON COLUMN @extschema@.conflicts.type IS 'its type';
COMMENT ON COLUMN @extschema@.conflicts.payment_id IS 'the payment it contradicts';
COMMENT ON COLUMN @extschema@.conflicts.payment_intent_id IS 'the PaymentIntent it is about';
COMMENT ON COLUMN @extschema@.conflicts.reason IS 'what contradicts what';
COMMENT ON COLUMN @extschema@.conflicts.created IS 'its time at Stripe';
COMMENT ON COLUMN @extschema@.conflicts.received_at IS 'when it arrived here';

-- Refusals that need no human are left out: a bank's no, a call whose payment
-- has ended, one that a later call took the place of.  A failed payment's
-- cancellation does matter, because the customer could still pay.
CREATE VIEW @extschema@.dead_requests WITH (security_barrier) AS
SELECT r.id, r.payment_id, r.operation, r.status, r.finished_at AS since,
	   coalesce(r.last_error ->> 'message', r.last_error ->> 'code', 'no answer of Stripe''s was stored') AS why,
	   CASE WHEN r.first_sent_at IS NULL OR r.first_sent_at > pg_catalog.now() - interval '23 hours'
			THEN 'Call retry_request(): it sends the same bytes under the same key, which is safe until 23 hours after it was first sent.'
			ELSE 'Wait for the worker''s look-up at Stripe; if that cannot tell, look for the payment''s id in the metadata of PaymentIntents in Stripe''s Dashboard.'
	   END AS what_to_do
  FROM @extschema@.api_requests r
 WHERE r.status = 'unknown'
UNION ALL
SELECT r.id, r.payment_id, r.operation, r.status, r.finished_at,
	   CASE WHEN r.last_error ->> 'source' IN ('lookup', 'worker') THEN '' ELSE 'Stripe refused: ' END || coalesce(r.last_error ->> 'message', r.last_error ->> 'code', 'HTTP status ' || r.http_status, 'no reason was stored'),
	   CASE r.operation
			WHEN 'create' THEN 'Mend the cause and call retry_request(), or create another payment.'
			WHEN 'cancel' THEN 'Look at the PaymentIntent in Stripe''s Dashboard; if it can still be paid, mend the cause and call retry_request().'
			ELSE 'Mend the cause and call retry_request(), or confirm_payment() with other parameters.'
	   END
  FROM @extschema@.api_requests r
  JOIN @extschema@.payments p ON p.id = r.payment_id
 WHERE r.status = 'rejected' AND r.http_status IS DISTINCT FROM 402
   AND r.last_error ->> 'type' IS DISTINCT FROM 'card_error'
   AND (p.finished_at IS NULL OR (p.state = 'failed' AND r.operation = 'cancel'))
   AND NOT EXISTS (SELECT FROM @extschema@.api_requests later
					WHERE later.payment_id = r.payment_id
					  AND later.operation = r.operation AND later.id > r.id);
COMMENT ON VIEW @extschema@.dead_requests IS
'Calls to Stripe that nobody makes any more and that need a human: why, and what to do';
COMMENT ON COLUMN @extschema@.dead_requests.id IS 'the request, for retry_request()';
COMMENT ON COLUMN @extschema@.dead_requests.payment_id IS 'its payment';
COMMENT ON COLUMN @extschema@.dead_requests.operation IS 'create, confirm or cancel';
COMMENT ON COLUMN @extschema@.dead_requests.status IS 'rejected or unknown';
COMMENT ON COLUMN @extschema@.dead_requests.since IS 'when it came to that';
COMMENT ON COLUMN @extschema@.dead_requests.why IS 'what went wrong';
COMMENT ON COLUMN @extschema@.dead_requests.what_to_do IS 'what to do about it';

-- The look at the creating request costs two index probes and is done only for
-- payments without a PaymentIntent.
CREATE VIEW @extschema@.stuck_payments WITH (security_barrier) AS
SELECT p.id AS payment_id, p.state, p.updated_at AS since,
	   k.kind NOT IN ('customer_details', 'customer_action') AND
	   (k.kind <> 'processing' OR p.updated_at < pg_catalog.now() - interval '7 days') AS needs_operator,
	   CASE k.kind
			WHEN 'not_queued' THEN 'no call to Stripe was ever queued for it'
			WHEN 'create_rejected' THEN 'Stripe refused to create its PaymentIntent'
			WHEN 'create_unknown' THEN 'nobody knows whether Stripe created its PaymentIntent'
			WHEN 'create_waiting' THEN 'its PaymentIntent has not been created yet'
			WHEN 'create_answered' THEN 'its PaymentIntent was created, but is not stored'
			WHEN 'capture' THEN 'it is authorised and waits for capture'
			WHEN 'processing' THEN 'Stripe is processing it'
			WHEN 'customer_action' THEN 'the customer has yet to authenticate or act'
			ELSE 'the customer has yet to give payment details'
	   END AS why,
	   CASE k.kind
			WHEN 'not_queued' THEN 'It was inserted by hand: create a payment with create_payment() instead.'
			WHEN 'create_rejected' THEN 'Mend the cause, see dead_requests, and call retry_request(), or create another payment.'
			WHEN 'create_unknown' THEN 'See dead_requests.'
			WHEN 'create_waiting' THEN 'See health(): is the worker paused, without a key, or is Stripe not to be reached?'
			WHEN 'create_answered' THEN 'See last_error of the request in api_requests.'
			WHEN 'capture' THEN 'Capture or cancel it at Stripe: an authorisation lapses, usually after 7 days.'
			WHEN 'processing' THEN 'Bank debits take days. If it has ended in Stripe''s Dashboard, a webhook was lost: see setting stripe_lifecycle.reconcile_interval.'
			ELSE 'Nothing, or cancel_payment() if the customer will not come back.'
	   END AS what_to_do
  FROM @extschema@.payments p
  LEFT JOIN LATERAL (
	SELECT r.status FROM @extschema@.api_requests r
	 WHERE p.payment_intent_id IS NULL AND r.payment_id = p.id AND r.operation = 'create'
	 ORDER BY r.id DESC LIMIT 1) c ON true
 CROSS JOIN LATERAL (
	SELECT CASE
		WHEN p.payment_intent_id IS NULL THEN
			CASE c.status
				WHEN 'rejected' THEN 'create_rejected'
				WHEN 'unknown' THEN 'create_unknown'
				WHEN 'succeeded' THEN 'create_answered'
				WHEN 'queued' THEN 'create_waiting'
				WHEN 'in_flight' THEN 'create_waiting'
				ELSE 'not_queued'
			END
		WHEN p.state = 'processing' AND p.amount_capturable > 0 THEN 'capture'
		WHEN p.state = 'processing' THEN 'processing'
		WHEN p.state = 'requires_action' THEN 'customer_action'
		ELSE 'customer_details' END AS kind) k
 WHERE p.finished_at IS NULL
   AND p.created_at < pg_catalog.now() - interval '1 hour'
   AND p.updated_at < pg_catalog.now() - interval '1 hour';
COMMENT ON VIEW @extschema@.stuck_payments IS
'Payments that have not ended and have not moved for an hour: why, and what to do';
COMMENT ON COLUMN @extschema@.stuck_payments.payment_id IS 'the payment';
COMMENT ON COLUMN @extschema@.stuck_payments.state IS 'its state';
COMMENT ON COLUMN @extschema@.stuck_payments.since IS 'when anything last became known of it';
COMMENT ON COLUMN @extschema@.stuck_payments.needs_operator IS 'false while it is the customer''s turn, or a bank''s for up to a week';
COMMENT ON COLUMN @extschema@.stuck_payments.why IS 'what it waits for';
COMMENT ON COLUMN @extschema@.stuck_payments.what_to_do IS 'what to do about it';

--
-- Secrets: what may be seen of them
--

CREATE FUNCTION @extschema@.secrets_status(
	OUT kind text, OUT label text, OUT fingerprint text,
	OUT modified_at timestamptz, OUT age interval, OUT mode text,
	OUT problems text)
	RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 3
	AS 'MODULE_PATHNAME', 'sl_secrets_status';
COMMENT ON FUNCTION @extschema@.secrets_status() IS
'One row per secret, from the files as they are now: kind (api_key, webhook or checkpoint), label, the first 16 hexadecimal digits of its SHA-256 (of a checkpoint key: of its public half), when the file was last modified, mode (live or test, of API keys), and what is wrong. A file that cannot be used is a row with its problem alone. Without a file for checkpoints there is no row of that kind';

-- Numbers are counted up to a thousand, so that asking costs little however
-- bad things are.
CREATE FUNCTION @extschema@.health(
	OUT check_name text, OUT status text, OUT detail text, OUT hint text)
	RETURNS SETOF record
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER ROWS 17
	SET search_path = pg_catalog, pg_temp
	AS $$
DECLARE
	here record;
	counted record;
	facts record;
	state jsonb;
	n bigint;
	lag interval;
	tried interval;
	since timestamptz;
	standby boolean := pg_is_in_recovery();
BEGIN
	-- with a library of another version nothing else can be asked
	check_name := 'library';
	SELECT v.problem INTO detail FROM @extschema@.versions() v;
	IF detail IS NOT NULL THEN
		status := 'critical';
		detail := format('%s, so nothing is done and nothing is sent to Stripe', detail);
		hint := 'If the library is the newer one, run ALTER EXTENSION stripe_lifecycle UPDATE; if it is the older one, restart the server.';
		RETURN NEXT;
		RETURN;
	END IF;

	SELECT * INTO here FROM @extschema@.server_status();
	SELECT * INTO counted FROM @extschema@.stats();
	SELECT to_jsonb(w) INTO state FROM @extschema@.worker_state w;
	SELECT count(*) FILTER (WHERE r.status = 'queued') AS queued,
		   count(*) FILTER (WHERE r.status = 'in_flight') AS in_flight,
		   clock_timestamp() - min(r.next_attempt_at) FILTER (WHERE r.status = 'queued' AND r.next_attempt_at <> 'infinity') AS lag,
		   clock_timestamp() - min(r.first_sent_at) AS tried
	  INTO facts
	  FROM @extschema@.api_requests r WHERE r.status IN ('queued', 'in_flight');
	lag := greatest(date_trunc('second', facts.lag), interval '0');
	tried := date_trunc('second', facts.tried);

	IF here.preloaded THEN
		status := 'ok'; detail := 'the library is preloaded'; hint := NULL;
	ELSE
		status := 'critical'; detail := 'the library is not preloaded, so nothing is sent to Stripe';
		hint := 'Add stripe_lifecycle to shared_preload_libraries and restart the server.';
	END IF;
	RETURN NEXT;

	check_name := 'launcher'; hint := NULL;
	IF here.launcher_running THEN
		status := 'ok'; detail := 'running';
	ELSIF standby THEN
		status := 'ok'; detail := 'this is a standby; the launcher starts when it is promoted';
	ELSE
		status := 'critical'; detail := 'not running, so no worker is started';
		hint := 'See whether the library is preloaded, max_worker_processes leaves room, and what the server''s log says.';
	END IF;
	RETURN NEXT;

	check_name := 'worker'; hint := NULL; status := 'ok';
	IF here.worker_running THEN
		detail := 'running';
	ELSIF standby OR lag IS NULL OR lag < interval '15 s' THEN
		detail := 'not running, not needed';
	ELSIF (state ->> 'paused')::boolean THEN
		detail := 'not running while paused';
	ELSIF NOT here.database_served THEN
		status := 'critical'; detail := 'work is waiting, but this database is not served';
		hint := 'Add it to stripe_lifecycle.databases and reload the configuration.';
	ELSE
		status := 'critical'; detail := 'work is waiting and no worker is running';
		hint := 'The server''s log says why. Is the API key readable, max_worker_processes large enough?';
	END IF;
	RETURN NEXT;

	check_name := 'api_key'; hint := NULL;
	IF here.api_key_problem IS NULL THEN
		status := 'ok'; detail := coalesce(format('a key of %s mode', here.api_key_mode), 'a key whose mode its prefix does not tell');
	ELSE
		status := 'critical'; detail := here.api_key_problem;
		hint := 'Put the key into the file named by stripe_lifecycle.api_key_file and reload the configuration.';
	END IF;
	RETURN NEXT;

	check_name := 'webhook_secrets'; hint := NULL;
	IF here.webhook_secrets_problem IS NULL THEN
		status := 'ok'; detail := format('%s active', here.webhook_secrets);
	ELSE
		status := 'critical'; detail := here.webhook_secrets_problem;
		hint := 'Put the secrets into the file named by stripe_lifecycle.webhook_secret_file and reload the configuration.';
	END IF;
	RETURN NEXT;

	check_name := 'mode'; hint := NULL; status := 'ok'; detail := 'key and payments agree';
	IF here.api_key_mode IS NOT NULL AND EXISTS (
		SELECT FROM @extschema@.payments p
		 WHERE p.finished_at IS NULL AND p.livemode = (here.api_key_mode <> 'live'))
	THEN
		status := 'critical';
		detail := format('the API key is of %s mode, but payments of the other mode have not ended', here.api_key_mode);
		hint := 'Put a key of the payments'' mode into the key file, or keep test and live payments in different databases.';
	END IF;
	RETURN NEXT;

	check_name := 'paused'; hint := NULL; status := 'ok'; detail := 'sending';
	IF (state ->> 'paused')::boolean THEN
		status := 'warning';
		detail := format('paused by %s since %s%s', coalesce(state ->> 'paused_by', 'nobody known'),
						 date_trunc('second', (state ->> 'paused_at')::timestamptz),
						 ': ' || (state ->> 'paused_reason'));
		hint := 'Nothing is sent until resume_worker().';
	END IF;
	RETURN NEXT;

	-- where the worker last served this database, and where it is now
	check_name := 'moved'; hint := NULL; status := 'ok'; detail := 'the queue was last served by this server';
	IF state ->> 'system_identifier' IS NULL THEN
		detail := 'the queue has not been served yet';
	ELSIF state ->> 'system_identifier' <> here.system_identifier
		OR (state ->> 'database_oid')::oid <> (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
	THEN
		status := 'critical'; detail := 'this database is a copy: its queue was last served in another one';
		hint := 'If the original is gone for good, call resume_worker(). If it still runs, do not: both would send the same requests.';
	ELSIF (state ->> 'host') <> here.host OR (state ->> 'port')::integer <> here.port
		OR (state ->> 'timeline')::integer <> here.timeline
	THEN
		status := 'warning';
		detail := format('last served on host %s, port %s, timeline %s; now %s, %s, %s',
						 state ->> 'host', state ->> 'port', state ->> 'timeline',
						 here.host, here.port, coalesce(here.timeline::text, 'unknown'));
		hint := 'A promoted standby looks like this, and so does a copy of the data directory. Make sure that only one of them has the key files.';
	ELSIF state ->> 'moved_from' IS NOT NULL THEN
		status := 'warning';
		detail := format('moved from %s at %s', state ->> 'moved_from', date_trunc('second', (state ->> 'moved_at')::timestamptz));
		hint := 'A promoted standby looks like this, and so does a copy of the data directory. Make sure that only one of them has the key files; resume_worker() then ends this warning.';
	END IF;
	RETURN NEXT;

	check_name := 'queue'; hint := NULL; status := 'ok';
	detail := format('%s queued, %s in flight', facts.queued, facts.in_flight);
	IF lag >= interval '1 min' THEN
		status := CASE WHEN lag >= interval '1 hour' THEN 'critical' ELSE 'warning' END;
		detail := detail || format('; the oldest has been due for %s', lag);
		hint := 'See the checks worker, api_key and paused, and last_error of pg_stat_stripe_lifecycle.';
	ELSIF tried >= interval '5 min' THEN
		-- every retry is in the future again, so being due says nothing of these
		status := CASE WHEN tried >= interval '1 hour' THEN 'critical' ELSE 'warning' END;
		detail := detail || format('; the oldest has been tried for %s without a final answer', tried);
		hint := 'Is Stripe to be reached? See last_error of api_requests and of pg_stat_stripe_lifecycle.';
	END IF;
	RETURN NEXT;

	check_name := 'dead_requests'; hint := NULL; status := 'ok'; detail := 'none';
	SELECT count(*) INTO n FROM (SELECT FROM @extschema@.dead_requests LIMIT 1001) x;
	IF n > 0 THEN
		status := 'warning'; detail := CASE WHEN n > 1000 THEN 'more than 1000' ELSE n::text END;
		hint := 'See stripe_lifecycle.dead_requests.';
	END IF;
	RETURN NEXT;

	check_name := 'conflicts'; hint := NULL; status := 'ok'; detail := 'none';
	SELECT count(*) INTO n FROM (SELECT FROM @extschema@.conflicts LIMIT 1001) x;
	IF n > 0 THEN
		status := 'warning'; detail := CASE WHEN n > 1000 THEN 'more than 1000' ELSE n::text END;
		hint := 'See stripe_lifecycle.conflicts, and decide with resolve_conflict().';
	END IF;
	RETURN NEXT;

	-- Other users of the same Stripe account have events too: what does not
	-- carry a payment's id is most likely theirs.
	check_name := 'unmatched_events'; hint := NULL; status := 'ok'; detail := 'none older than an hour';
	SELECT count(*) FILTER (WHERE x.ours) AS ours, count(*) AS total INTO facts
	  FROM (SELECT e.payload #>> '{data,object,metadata,stripe_lifecycle_payment_id}' IS NOT NULL AS ours
			  FROM @extschema@.webhook_events e
			 WHERE e.outcome = 'unmatched' AND e.received_at < now() - interval '1 hour'
			 LIMIT 1001) x;
	IF facts.total > 0 THEN
		status := CASE WHEN facts.ours > 0 THEN 'warning' ELSE 'ok' END;
		detail := format('%s older than an hour, %s of them with the id of a payment that is not here',
						 CASE WHEN facts.total > 1000 THEN 'more than 1000' ELSE facts.total::text END, facts.ours);
		hint := CASE WHEN facts.ours > 0
			THEN 'Does another database share the webhook endpoint, or was this one restored from an older backup? Mend that and call replay_event().' END;
	END IF;
	RETURN NEXT;

	check_name := 'stuck_payments'; hint := NULL; status := 'ok'; detail := 'none that needs an operator';
	SELECT count(*) INTO n FROM (SELECT FROM @extschema@.stuck_payments s WHERE s.needs_operator LIMIT 1001) x;
	IF n > 0 THEN
		status := 'warning'; detail := CASE WHEN n > 1000 THEN 'more than 1000' ELSE n::text END;
		hint := 'See stripe_lifecycle.stuck_payments.';
	END IF;
	RETURN NEXT;

	-- A PaymentIntent that was created has an event, which should be here soon.
	check_name := 'webhooks'; hint := NULL; status := 'ok';
	since := coalesce(counted.last_webhook, counted.stats_since);
	detail := CASE WHEN counted.stats_since IS NULL THEN 'not counted'
		WHEN counted.last_webhook IS NULL THEN format('none since %s', date_trunc('second', counted.stats_since))
		ELSE format('the last one came %s s ago', floor(extract(epoch FROM clock_timestamp() - counted.last_webhook))) END;
	IF counted.last_success > since
		AND (counted.last_success - since > interval '15 min' OR clock_timestamp() - counted.last_success > interval '15 min')
	THEN
		status := 'warning'; detail := detail || ', although Stripe has carried out calls since';
		hint := 'Look at the endpoint''s deliveries in Stripe''s Dashboard, and at the refused_ columns of pg_stat_stripe_lifecycle.';
	END IF;
	RETURN NEXT;

	check_name := 'rate_limits'; hint := NULL; status := 'ok';
	SELECT string_agg(format('%s %s/s', replace(x.name, 'stripe_lifecycle.rate_limit_', ''), x.setting), ', ' ORDER BY x.name) INTO detail
	  FROM pg_settings x WHERE x.name IN ('stripe_lifecycle.rate_limit_address', 'stripe_lifecycle.rate_limit_role', 'stripe_lifecycle.rate_limit_webhook') AND x.setting::float8 > 0;
	IF detail IS NULL THEN
		detail := 'off';
	ELSIF NOT here.preloaded THEN
		status := 'warning'; detail := format('set (%s), but not in force: the library is not preloaded', detail);
		hint := 'Add stripe_lifecycle to shared_preload_libraries and restart the server.';
	ELSIF current_setting('stripe_lifecycle.client_address_header') = '' THEN
		detail := format('%s; a client is whoever connects, which behind PostgREST is PostgREST', detail);
	END IF;
	RETURN NEXT;

	check_name := 'reconciliation'; hint := NULL; status := 'ok';
	SELECT s.setting::bigint INTO n FROM pg_settings s WHERE s.name = 'stripe_lifecycle.reconcile_interval';
	SELECT max(clock_timestamp() - coalesce(r.proven_until, r.since)) AS lag,
		   min(r.gap_from) AS gap_from, max(r.gap_to) AS gap_to,
		   sum(r.failing) AS failing, min(r.failing_since) AS failing_since, min(r.retry_at) AS retry_at
	  INTO facts FROM @extschema@.reconcile_state r;
	IF facts.gap_from IS NOT NULL THEN
		status := 'critical';
		detail := format('events from %s to %s were gone from Stripe before they could be read', facts.gap_from, facts.gap_to);
		hint := 'Compare the payments of that time with Stripe''s Dashboard; then set gap_from and gap_to of reconcile_state to NULL.';
	ELSIF coalesce(n, 0) = 0 THEN
		detail := 'off: missed webhooks are not looked for';
		hint := 'Set stripe_lifecycle.reconcile_interval, such as to 5min.';
	ELSIF facts.lag IS NULL THEN
		detail := 'nothing to be read yet';
	ELSE
		detail := format('equal to Stripe up to %s ago', date_trunc('second', greatest(facts.lag, interval '0')));
		IF facts.lag > make_interval(secs => 3 * n) + interval '5 min' THEN
			status := CASE WHEN facts.lag > interval '1 day' THEN 'critical' ELSE 'warning' END;
			hint := 'See last_error of reconcile_state, and the checks worker, api_key and paused. Stripe keeps events for 30 days.';
		END IF;
		IF facts.failing > 0 THEN
			status := CASE WHEN clock_timestamp() - facts.failing_since > interval '1 day' THEN 'critical' ELSE 'warning' END;
			detail := format('%s events could not be taken in, since %s; tried again at %s', facts.failing,
							 date_trunc('second', facts.failing_since), date_trunc('second', facts.retry_at));
			hint := 'failing_error of reconcile_state names one of them and the error. Mend that; to try again at once, set retry_at there to now().';
		END IF;
	END IF;
	RETURN NEXT;

	-- the oldest transition that is not sealed, of the first thousand
	check_name := 'checkpoints'; hint := NULL; status := 'ok';
	SELECT s.setting::bigint INTO n FROM pg_settings s WHERE s.name = 'stripe_lifecycle.checkpoint_interval';
	SELECT c.number, c.to_position, c.sealed_at INTO facts
	  FROM @extschema@.audit_checkpoints c ORDER BY c.number DESC LIMIT 1;
	SELECT date_trunc('second', clock_timestamp() - min(x.at)) INTO lag
	  FROM (SELECT t.at FROM @extschema@.payment_transitions t
			 WHERE t.position > coalesce(facts.to_position, 0) LIMIT 1000) x;
	detail := CASE WHEN facts.number IS NULL THEN 'none yet'
		ELSE format('number %s, %s ago', facts.number, date_trunc('second', clock_timestamp() - facts.sealed_at)) END;
	IF coalesce(n, 0) = 0 OR coalesce(here.checkpoint_key_problem, here.checkpoint_key) IS NULL THEN
		detail := 'off: the audit trail is not sealed';
		hint := 'Set stripe_lifecycle.checkpoint_key_file; see docs/checkpoints.md.';
	ELSIF here.checkpoint_key_problem IS NOT NULL AND NOT standby THEN
		status := 'critical'; detail := here.checkpoint_key_problem;
		hint := 'Put an Ed25519 private key in PEM into the file named by stripe_lifecycle.checkpoint_key_file.';
	ELSIF lag > make_interval(secs => 3 * n) + interval '1 min' THEN
		status := CASE WHEN lag > interval '1 day' THEN 'critical' ELSE 'warning' END;
		detail := format('%s; a transition made %s ago is not sealed', detail, lag);
		hint := 'Is this a copy, or the worker not running? The server''s log may say why. A transaction that has written payments and is still open, or prepared, keeps the trail from being sealed: see pg_stat_activity and pg_prepared_xacts.';
	END IF;
	RETURN NEXT;

	check_name := 'guards'; hint := NULL; status := 'ok'; detail := 'on all tables';
	SELECT string_agg(t.name, ', ') INTO detail
	  FROM unnest('{payments,payment_transitions,webhook_events,api_requests,api_attempts,operator_actions,in_use,audit_checkpoints}'::text[]) AS t (name)
	 WHERE 2 <> (SELECT count(*) FROM pg_trigger g
				 WHERE g.tgrelid = to_regclass('@extschema@.' || t.name)
				   AND g.tgfoid = '@extschema@.guard()'::regprocedure AND g.tgenabled = 'A');
	IF detail IS NOT NULL THEN
		status := 'critical'; detail := format('missing or disabled on: %s', detail);
		hint := 'Enable them: ALTER TABLE ... ENABLE ALWAYS TRIGGER stripe_lifecycle_guard, and stripe_lifecycle_guard_truncate. Find out who disabled them.';
	ELSE
		detail := 'on all tables';
	END IF;
	RETURN NEXT;
END
$$;
COMMENT ON FUNCTION @extschema@.health() IS
'Is all well? One row per check: ok, warning or critical, with what was found and what to do';

--
-- Grants.  Nothing is PUBLIC's.
--
-- privileges() is the one list of who may do what.  A function more is a row
-- more; the grant and revoke functions, lint(), and the tests that compare
-- docs/privileges.md with the catalogs all read it.
--

CREATE FUNCTION @extschema@.privileges(
	OUT kind text, OUT privilege text, OUT class text, OUT object text,
	OUT column_name text)
	RETURNS SETOF record
	LANGUAGE sql STABLE PARALLEL SAFE ROWS 150
	SET search_path = pg_catalog, pg_temp
	AS $$
	SELECT k.kind, l.privilege, l.class,
		   CASE l.class
				WHEN 'SCHEMA' THEN '@extschema@'
				-- as granted_privileges() spells it; an error if there is no such function
				WHEN 'FUNCTION' THEN (SELECT format('@extschema@.%I(%s)', f.proname, oidvectortypes(f.proargtypes))
										FROM pg_proc f WHERE f.oid = ('@extschema@.' || l.name)::regprocedure)
				ELSE '@extschema@.' || l.name
		   END,
		   c.column_name
	  FROM (VALUES
	('SCHEMA', '', 'USAGE', '{web,application,auditor,operator,worker}', NULL),
	('TYPE', 'payment_state', 'USAGE', '{application,worker}', NULL),
	('TYPE', 'event_outcome', 'USAGE', '{application,worker}', NULL),
	('TYPE', 'request_status', 'USAGE', '{application,worker}', NULL),

	('FUNCTION', 'create_payment(bigint, text, text, text, text, text, text, text, text, jsonb, jsonb)', 'EXECUTE', '{application}', NULL),
	('FUNCTION', 'payment_status(uuid, interval, timestamp with time zone)', 'EXECUTE', '{web,application}', NULL),
	('FUNCTION', 'confirm_payment(uuid, jsonb)', 'EXECUTE', '{application}', NULL),
	('FUNCTION', 'cancel_payment(uuid, text)', 'EXECUTE', '{application}', NULL),
	('FUNCTION', 'ingest_webhook(text, text)', 'EXECUTE', '{application}', NULL),
	('FUNCTION', 'ingest_webhook(bytea, text)', 'EXECUTE', '{application}', NULL),
	('FUNCTION', 'webhook(json)', 'EXECUTE', '{web}', NULL),
	-- PostgREST calls it as the role of the request, whichever that is
	('FUNCTION', 'pre_request()', 'EXECUTE', '{web,application,auditor,operator}', NULL),
	('FUNCTION', 'recent_rejections()', 'EXECUTE', '{auditor,operator}', NULL),
	('FUNCTION', 'legal_transitions()', 'EXECUTE', '{application,auditor}', NULL),
	('FUNCTION', 'verify_audit(uuid)', 'EXECUTE', '{auditor}', NULL),
	('FUNCTION', 'verify_checkpoints(timestamp with time zone, text)', 'EXECUTE', '{auditor}', NULL),
	('FUNCTION', 'checkpoint_line(@extschema@.audit_checkpoints)', 'EXECUTE', '{auditor}', NULL),
	('FUNCTION', 'audit_export(timestamp with time zone, timestamp with time zone, text)', 'EXECUTE', '{auditor}', NULL),
	('FUNCTION', 'health()', 'EXECUTE', '{auditor,operator}', NULL),
	('FUNCTION', 'versions()', 'EXECUTE', '{auditor,operator}', NULL),
	('FUNCTION', 'stats()', 'EXECUTE', '{auditor,operator}', NULL),
	('FUNCTION', 'stats_latency()', 'EXECUTE', '{auditor,operator}', NULL),
	('FUNCTION', 'secrets_status()', 'EXECUTE', '{auditor,operator}', NULL),
	('FUNCTION', 'lint()', 'EXECUTE', '{auditor,operator}', NULL),
	('FUNCTION', 'pause_worker(text)', 'EXECUTE', '{operator}', NULL),
	('FUNCTION', 'resume_worker()', 'EXECUTE', '{operator}', NULL),
	('FUNCTION', 'retry_request(bigint, text)', 'EXECUTE', '{operator}', NULL),
	('FUNCTION', 'replay_event(text, text)', 'EXECUTE', '{operator}', NULL),
	('FUNCTION', 'resolve_conflict(text, text, text)', 'EXECUTE', '{operator}', NULL),

	-- not client_secret, nor the customer's particulars
	('TABLE', 'payments', 'SELECT', '{auditor}',
	 '{id,idempotency_key,state,amount,currency,capture_method,decline_policy,stripe_account,payment_intent_id,livemode,amount_capturable,amount_received,latest_charge,cancellation_reason,decline_count,last_error,last_error_at,last_event_id,last_event_created,last_event_rank,transitions,created_at,updated_at,finished_at,audit_head}'),
	('TABLE', 'payments', 'SELECT', '{worker}', NULL),
	('TABLE', 'payments', 'UPDATE', '{worker}', NULL),
	-- not the body, which repeats them
	('TABLE', 'api_requests', 'SELECT', '{auditor}',
	 '{id,payment_id,operation,method,path,idempotency_key,stripe_account,created_at,status,attempts,next_attempt_at,first_sent_at,finished_at,http_status,stripe_request_id,last_error,lookup_at,watch_at,watch_note}'),
	('TABLE', 'api_requests', 'SELECT', '{worker}', NULL),
	('TABLE', 'api_requests', 'INSERT', '{worker}', NULL),
	('TABLE', 'api_requests', 'UPDATE', '{worker}', NULL),
	('TABLE', 'payment_transitions', 'SELECT', '{auditor,worker}', NULL),
	('SEQUENCE', 'payment_transitions_position_seq', 'SELECT', '{worker}', NULL),
	('TABLE', 'audit_checkpoints', 'SELECT', '{auditor,worker}', NULL),
	('TABLE', 'audit_checkpoints', 'INSERT', '{worker}', NULL),
	('TABLE', 'webhook_events', 'SELECT', '{auditor,worker}', NULL),
	('TABLE', 'webhook_events', 'INSERT', '{worker}', NULL),
	('TABLE', 'webhook_events', 'UPDATE', '{worker}', NULL),
	('TABLE', 'api_attempts', 'SELECT', '{auditor,worker}', NULL),
	('TABLE', 'api_attempts', 'INSERT', '{worker}', NULL),
	('TABLE', 'api_attempts', 'UPDATE', '{worker}', NULL),
	('TABLE', 'webhook_events', 'DELETE', '{worker}', NULL),
	('TABLE', 'api_requests', 'DELETE', '{worker}', NULL),
	('TABLE', 'api_attempts', 'DELETE', '{worker}', NULL),
	('TABLE', 'retention_state', 'SELECT', '{auditor,operator,worker}', NULL),
	('TABLE', 'retention_state', 'UPDATE', '{worker}', NULL),
	('TABLE', 'reconcile_state', 'SELECT', '{auditor,worker}', NULL),
	('TABLE', 'reconcile_state', 'INSERT', '{worker}', NULL),
	('TABLE', 'reconcile_state', 'UPDATE', '{worker}', NULL),
	('TABLE', 'worker_state', 'SELECT', '{auditor,operator,worker}', NULL),
	('TABLE', 'worker_state', 'UPDATE', '{worker}', NULL),
	('TABLE', 'operator_actions', 'SELECT', '{auditor,operator}', NULL),
	('TABLE', 'in_use', 'SELECT', '{auditor,worker}', NULL),
	('TABLE', 'in_use', 'INSERT', '{worker}', NULL),
	('TABLE', 'dead_requests', 'SELECT', '{auditor,operator}', NULL),
	('TABLE', 'stuck_payments', 'SELECT', '{auditor,operator}', NULL),
	('TABLE', 'conflicts', 'SELECT', '{auditor,operator}', NULL),
	('TABLE', 'webhook_rejections', 'SELECT', '{auditor,operator}', NULL),
	('TABLE', 'pg_stat_stripe_lifecycle', 'SELECT', '{auditor,operator}', NULL)
	  ) AS l (class, name, privilege, kinds, columns)
	 CROSS JOIN LATERAL pg_catalog.unnest(l.kinds::text[]) AS k (kind)
	 CROSS JOIN LATERAL pg_catalog.unnest(coalesce(l.columns::text[], '{NULL}')) AS c (column_name)
$$;
COMMENT ON FUNCTION @extschema@.privileges() IS
'The list of who may do what, by kind of role: web, application, auditor, operator, and worker (role stripe_lifecycle_worker). column_name is NULL where the whole object is meant. For the owner';

CREATE FUNCTION @extschema@.granted_privileges(
	OUT grantee oid, OUT privilege text, OUT class text, OUT object text,
	OUT column_name text, OUT grantable boolean)
	RETURNS SETOF record
	LANGUAGE sql STABLE PARALLEL SAFE ROWS 150
	SET search_path = pg_catalog, pg_temp
	AS $$
	WITH acls (class, object, column_name, owner, acl) AS (
		SELECT 'SCHEMA', '@extschema@', NULL, n.nspowner,
			   coalesce(n.nspacl, acldefault('n', n.nspowner))
		  FROM pg_namespace n WHERE n.nspname = '@extschema@'
		UNION ALL
		SELECT 'TYPE', format('@extschema@.%I', t.typname), NULL, t.typowner,
			   coalesce(t.typacl, acldefault('T', t.typowner))
		  FROM pg_type t WHERE t.typnamespace = '@extschema@'::regnamespace AND t.typtype = 'e'
		UNION ALL
		SELECT 'FUNCTION', format('@extschema@.%I(%s)', p.proname, oidvectortypes(p.proargtypes)), NULL,
			   p.proowner, coalesce(p.proacl, acldefault('f', p.proowner))
		  FROM pg_proc p WHERE p.pronamespace = '@extschema@'::regnamespace
		UNION ALL
		SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
			   format('@extschema@.%I', c.relname), NULL, c.relowner,
			   coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner))
		  FROM pg_class c WHERE c.relnamespace = '@extschema@'::regnamespace AND c.relkind IN ('r', 'v', 'm', 'p', 'f', 'S')
		UNION ALL
		SELECT 'TABLE', format('@extschema@.%I', c.relname), a.attname, c.relowner, a.attacl
		  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
		 WHERE c.relnamespace = '@extschema@'::regnamespace AND a.attacl IS NOT NULL AND NOT a.attisdropped)
	SELECT x.grantee, x.privilege_type, acls.class, acls.object, acls.column_name, x.is_grantable
	  FROM acls CROSS JOIN LATERAL aclexplode(acls.acl) x
	 WHERE x.grantee <> acls.owner
$$;
COMMENT ON FUNCTION @extschema@.granted_privileges() IS
'What has really been granted on the objects of stripe_lifecycle to anybody but their owner, in the words of privileges(); grantee 0 is PUBLIC. For the owner';

-- A role may be of several kinds, and kinds share privileges, so that a revoke
-- has to know which others the role is of: those of which it has every
-- privilege that no other kind has.  Each kind needs one at least for this.
CREATE FUNCTION @extschema@.kinds_of_role(role regrole) RETURNS text[]
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
	AS $$
	WITH own AS (
		SELECT min(p.kind) AS kind, p.privilege, p.class, p.object, p.column_name
		  FROM @extschema@.privileges() p
		 GROUP BY p.privilege, p.class, p.object, p.column_name HAVING count(*) = 1),
	kinds AS (
		SELECT o.kind
		  FROM own o
		  LEFT JOIN @extschema@.granted_privileges() g
			ON g.grantee = role::oid AND g.privilege = o.privilege AND g.class = o.class
		   AND g.object = o.object AND g.column_name IS NOT DISTINCT FROM o.column_name
		 GROUP BY o.kind HAVING bool_and(g.grantee IS NOT NULL))
	SELECT coalesce(array_agg(k.kind ORDER BY k.kind), '{}') FROM kinds k
$$;
COMMENT ON FUNCTION @extschema@.kinds_of_role(regrole) IS
'Of which kinds a role is: those whose own privileges were all granted to it. For the owner';

CREATE FUNCTION @extschema@.change_privileges(action text, kind text, role regrole) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$
DECLARE
	rolename name := (SELECT r.rolname FROM pg_roles r WHERE r.oid = role);
	kept text[] := '{}';
	item record;
BEGIN
	IF role IS NULL THEN
		RAISE EXCEPTION 'argument "role" must not be null'
			USING ERRCODE = 'null_value_not_allowed';
	ELSIF rolename IS NULL THEN
		RAISE EXCEPTION 'role with OID % does not exist', role::oid
			USING ERRCODE = 'undefined_object';
	END IF;
	-- the owner has it all, and must not lose what its functions need
	IF role = (SELECT n.nspowner FROM pg_namespace n WHERE n.nspname = '@extschema@') THEN
		RAISE NOTICE 'role "%" owns the schema "@extschema@" and needs no grant', rolename;
		RETURN;
	END IF;

	IF action = 'REVOKE' THEN
		kept := array_remove(@extschema@.kinds_of_role(role), kind);
	END IF;
	FOR item IN
		SELECT p.privilege || coalesce(' (' || string_agg(quote_ident(p.column_name), ', ') || ')', '') AS privilege,
			   p.class, p.object
		  FROM @extschema@.privileges() p
		 WHERE p.kind = change_privileges.kind
		   AND NOT EXISTS (SELECT FROM @extschema@.privileges() k
							WHERE k.kind = ANY (kept) AND k.privilege = p.privilege
							  AND k.class = p.class AND k.object = p.object
							  AND k.column_name IS NOT DISTINCT FROM p.column_name)
		 GROUP BY p.privilege, p.class, p.object, p.column_name IS NULL
	LOOP
		EXECUTE format('%s %s ON %s %s %s %I', action, item.privilege, item.class, item.object,
					   CASE action WHEN 'GRANT' THEN 'TO' ELSE 'FROM' END, rolename);
	END LOOP;
END
$$;
COMMENT ON FUNCTION @extschema@.change_privileges(text, text, regrole) IS
'Grants a role what privileges() lists for a kind (action GRANT), or takes it away but for what another kind of the role''s needs (REVOKE). For the owner';

CREATE FUNCTION @extschema@.grant_web(role regrole) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$ SELECT @extschema@.change_privileges('GRANT', 'web', role) $$;
COMMENT ON FUNCTION @extschema@.grant_web(regrole) IS
'Grants a role what the anonymous role of a web gateway needs: to follow a payment whose id it was given; no table';

CREATE FUNCTION @extschema@.revoke_web(role regrole) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$ SELECT @extschema@.change_privileges('REVOKE', 'web', role) $$;
COMMENT ON FUNCTION @extschema@.revoke_web(regrole) IS
'Takes away what grant_web() gave, but for what another grant_...() gave as well';

CREATE FUNCTION @extschema@.grant_application(role regrole) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$ SELECT @extschema@.change_privileges('GRANT', 'application', role) $$;
COMMENT ON FUNCTION @extschema@.grant_application(regrole) IS
'Grants a role what an application needs: to create, follow, confirm and cancel payments, and to hand in webhooks; no table';

CREATE FUNCTION @extschema@.revoke_application(role regrole) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$ SELECT @extschema@.change_privileges('REVOKE', 'application', role) $$;
COMMENT ON FUNCTION @extschema@.revoke_application(regrole) IS
'Takes away what grant_application() gave, but for what another grant_...() gave as well';

CREATE FUNCTION @extschema@.grant_auditor(role regrole) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$ SELECT @extschema@.change_privileges('GRANT', 'auditor', role) $$;
COMMENT ON FUNCTION @extschema@.grant_auditor(regrole) IS
'Grants a role to read the payments and everything that happened to them, without client secrets, customers'' particulars and request bodies';

CREATE FUNCTION @extschema@.revoke_auditor(role regrole) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$ SELECT @extschema@.change_privileges('REVOKE', 'auditor', role) $$;
COMMENT ON FUNCTION @extschema@.revoke_auditor(regrole) IS
'Takes away what grant_auditor() gave, but for what another grant_...() gave as well';

CREATE FUNCTION @extschema@.grant_operator(role regrole) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$ SELECT @extschema@.change_privileges('GRANT', 'operator', role) $$;
COMMENT ON FUNCTION @extschema@.grant_operator(regrole) IS
'Grants a role what an operator needs: to see what is wrong, pause and resume the worker, send requests again and decide on events; no payment''s particulars (see grant_auditor)';

CREATE FUNCTION @extschema@.revoke_operator(role regrole) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS $$ SELECT @extschema@.change_privileges('REVOKE', 'operator', role) $$;
COMMENT ON FUNCTION @extschema@.revoke_operator(regrole) IS
'Takes away what grant_operator() gave, but for what another grant_...() gave as well';

--
-- lint(): which settings of the server, and which rights in it, endanger
-- secrets, money or evidence.  A rule over one setting is a row more of
-- lint_settings(); docs/operations.md lists all rules.
--

CREATE FUNCTION @extschema@.lint_settings(
	OUT rule text, OUT severity text, OUT object text, OUT finding text, OUT fix text)
	RETURNS SETOF record
	LANGUAGE sql STABLE PARALLEL RESTRICTED ROWS 5
	SET search_path = pg_catalog, pg_temp
	AS $$
	-- as configured, and where a role or a database deviates from that
	WITH held (name, value, place) AS (
		SELECT s.name, s.reset_val, '' FROM pg_settings s
		UNION ALL
		SELECT lower(split_part(c, '=', 1)), substr(c, strpos(c, '=') + 1),
			   concat(' of', ' role ' || quote_ident(o.rolname), ' in database ' || quote_ident(d.datname))
		  FROM pg_db_role_setting s
		  LEFT JOIN pg_roles o ON o.oid = s.setrole
		  LEFT JOIN pg_database d ON d.oid = s.setdatabase
		 CROSS JOIN LATERAL unnest(s.setconfig) c
		 WHERE s.setdatabase = 0 OR d.datname = current_database()),
	rules (rule, severity, name, bad, finding, fix) AS (VALUES
	('log_statement', 'warning', 'log_statement', '^all$',
	 'every statement is logged, with the customers'' particulars in it', 'Set it to ddl or none.'),
	('log_duration', 'warning', 'log_min_duration_statement', '^(?!-)',
	 'slow statements are logged, with the customers'' particulars in them', 'Set it to -1, at least for the roles that call stripe_lifecycle.'),
	('log_duration', 'warning', 'log_min_duration_sample', '^(?!-)',
	 'a sample of slow statements is logged, with the customers'' particulars in them', 'Set it to -1, at least for the roles that call stripe_lifecycle.'),
	('log_duration', 'warning', 'log_transaction_sample_rate', '[1-9]',
	 'all statements of a sample of transactions are logged, with the customers'' particulars in them', 'Set it to 0.'),
	('log_parameters_on_error', 'warning', 'log_parameter_max_length_on_error', '^(?!0)',
	 'parameters of a statement that fails are logged: payloads of webhooks and customers'' particulars', 'Set it to 0.'),
	('auto_explain', 'warning', 'auto_explain.log_min_duration', '^(?!-)',
	 'plans are logged with the text of their statements, and the customers'' particulars in it', 'Set it to -1, at least for the roles that call stripe_lifecycle.'),
	('log_redaction', 'critical', 'stripe_lifecycle.log_redaction', '^(off|false|no|0)',
	 'card numbers, API keys and secrets are logged as they are', 'Set it to on.'),
	('debug_print', 'warning', 'debug_print_parse', '^(on|true|yes|1)', 'parse trees are logged, with the constants in them', 'Set it to off.'),
	('debug_print', 'warning', 'debug_print_rewritten', '^(on|true|yes|1)', 'parse trees are logged, with the constants in them', 'Set it to off.'),
	('debug_print', 'warning', 'debug_print_plan', '^(on|true|yes|1)', 'plans are logged, with the constants in them', 'Set it to off.'),
	('durability', 'critical', 'fsync', '^(off|false|no|0)',
	 'a crash of the machine can destroy the database', 'Set it to on.'),
	('durability', 'critical', 'full_page_writes', '^(off|false|no|0)',
	 'a crash of the machine can destroy the database', 'Set it to on.'),
	('durability', 'critical', 'synchronous_commit', '^(off|false|no|0)',
	 'a crash can lose payments that were promised to the caller, and webhooks that Stripe was told were taken in', 'Set it to on, or local.'),
	('durability', 'critical', 'zero_damaged_pages', '^(on|true|yes|1)',
	 'damaged pages are overwritten with nothing', 'Set it to off.'),
	('durability', 'critical', 'ignore_checksum_failure', '^(on|true|yes|1)',
	 'damaged pages are read as if they were sound', 'Set it to off.'),
	('data_checksums', 'warning', 'data_checksums', '^off$',
	 'damage done by disks is not noticed', 'Stop the server and run pg_checksums --enable.'),
	('isolation', 'critical', 'default_transaction_isolation', '^(?!read committed)',
	 'webhooks are refused (SL027), which need read committed', 'Set it to read committed.'),
	('read_only', 'warning', 'default_transaction_read_only', '^(on|true|yes|1)',
	 'no payment is created and no webhook taken in', 'Set it to off.'),
	('reconciliation', 'warning', 'stripe_lifecycle.reconcile_interval', '^0$',
	 'webhooks that never come are not made up for', 'Set it, such as to 5min.'),
	('checkpoints', 'warning', 'stripe_lifecycle.checkpoint_key_file', '^$',
	 'the audit trail is not sealed, so whoever may do anything in the database can rewrite it unnoticed', 'Name a key, as docs/checkpoints.md says.'),
	('checkpoints', 'warning', 'stripe_lifecycle.checkpoint_interval', '^0$',
	 'the audit trail is not sealed, so whoever may do anything in the database can rewrite it unnoticed', 'Reset it.')
	)
	SELECT r.rule, r.severity, h.name || h.place, r.finding, r.fix
	  FROM rules r JOIN held h ON h.name = r.name AND lower(h.value) ~ r.bad
	UNION ALL
	SELECT 'log_parameters', 'warning', s.name,
		   'bind parameters are logged with each statement that is logged: payloads of webhooks and customers'' particulars',
		   'Set it to 0.'
	  FROM pg_settings s
	 WHERE s.name = 'log_parameter_max_length' AND s.reset_val <> '0'
	   AND EXISTS (SELECT FROM rules r JOIN held h ON h.name = r.name AND lower(h.value) ~ r.bad
					WHERE r.rule IN ('log_statement', 'log_duration'))
	UNION ALL
	SELECT 'log_files', 'warning', s.name,
		   'everybody on the machine may read the server''s log', 'Set it to 0600 or 0640, and change the files that are there.'
	  FROM pg_settings s
	 WHERE s.name = 'log_file_mode' AND s.setting !~ '0$' AND current_setting('logging_collector') = 'on'
	UNION ALL
	SELECT 'webhook_tolerance', 'warning', s.name,
		   format('a webhook that was intercepted can be handed in again for %s minutes', ceil(s.reset_val::numeric / 60)),
		   'Set it to 5min, and keep the server''s clock right.'
	  FROM pg_settings s
	 WHERE s.name = 'stripe_lifecycle.webhook_tolerance' AND s.reset_val::integer > 600
	UNION ALL
	SELECT 'worker_processes', 'critical', s.name,
		   'there is no room for the launcher and a worker, so nothing is sent to Stripe',
		   'Set it to 8 or more, and restart the server.'
	  FROM pg_settings s
	 WHERE s.name = 'max_worker_processes'
	   AND s.reset_val::integer < 2 + (current_setting('max_logical_replication_workers')::integer > 0)::integer
	UNION ALL
	SELECT 'backup', 'warning', 'archive_mode',
		   'neither is WAL archived nor does a standby follow: with the disk go the payments since the last backup',
		   'Archive WAL, or set up a standby.'
	 WHERE current_setting('archive_mode') = 'off'
	   AND NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.slot_type = 'physical')
	   AND NOT EXISTS (SELECT FROM pg_stat_get_wal_senders())
	UNION ALL
	SELECT 'preloaded', 'critical', 'shared_preload_libraries',
		   'the library is not preloaded, so nothing is sent to Stripe and nothing is counted',
		   'Add stripe_lifecycle to it and restart the server.'
	  FROM @extschema@.server_status() h WHERE NOT h.preloaded
$$;
COMMENT ON FUNCTION @extschema@.lint_settings() IS 'The rules of lint() over settings. For the owner';

CREATE FUNCTION @extschema@.lint_secrets(
	OUT rule text, OUT severity text, OUT object text, OUT finding text, OUT fix text)
	RETURNS SETOF record
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED ROWS 2
	SET search_path = pg_catalog, pg_temp
	AS $$
	SELECT 'secrets',
		   CASE WHEN s.fingerprint IS NULL OR s.problems ~ 'Others may' THEN 'critical' ELSE 'warning' END,
		   concat(CASE s.kind WHEN 'api_key' THEN 'API key' WHEN 'webhook' THEN 'webhook secret' ELSE 'checkpoint key' END,
				  ' ' || s.label),
		   s.problems,
		   format('See "Rotating secrets" in docs/operations.md; then reload. The file is named by stripe_lifecycle.%s.',
				  CASE s.kind WHEN 'api_key' THEN 'api_key_file' WHEN 'webhook' THEN 'webhook_secret_file' ELSE 'checkpoint_key_file' END)
	  FROM @extschema@.secrets_status() s WHERE s.problems IS NOT NULL
	UNION ALL
	SELECT 'api_base',
		   CASE WHEN EXISTS (SELECT FROM @extschema@.secrets_status() k WHERE k.mode = 'live') THEN 'critical' ELSE 'warning' END,
		   s.name, 'payments and the API key go to another address than Stripe''s', 'Reset it.'
	  FROM pg_settings s
	 WHERE s.name = 'stripe_lifecycle.api_base' AND s.reset_val <> s.boot_val
	UNION ALL
	SELECT 'shared_key', 'notice', 'stripe_lifecycle.databases',
		   'one API key serves every database of this server that has the extension, copies too', 'Name the databases that may send.'
	 WHERE current_setting('stripe_lifecycle.databases') = ''
	   AND 1 < (SELECT count(*) FROM pg_database d
				 WHERE d.datallowconn AND NOT d.datistemplate AND d.datname <> 'postgres')
$$;
COMMENT ON FUNCTION @extschema@.lint_secrets() IS 'The rules of lint() over secrets and where they go. For the owner';

CREATE FUNCTION @extschema@.lint_roles(
	OUT rule text, OUT severity text, OUT object text, OUT finding text, OUT fix text)
	RETURNS SETOF record
	LANGUAGE sql STABLE PARALLEL RESTRICTED ROWS 2
	SET search_path = pg_catalog, pg_temp
	AS $$
	-- a superuser is a member of every role, and cannot be kept from anything
	SELECT 'superuser', 'critical', 'role ' || quote_ident(r.rolname),
		   'it was granted as a role of an application''s or an operator''s, but it is a superuser, whom no guard stops',
		   'Let applications and operators log in as roles of their own.'
	  FROM pg_roles r
	 WHERE r.rolsuper AND EXISTS (SELECT FROM @extschema@.granted_privileges() g WHERE g.grantee = r.oid)
	UNION ALL
	SELECT 'membership', 'critical', 'role ' || quote_ident(r.rolname),
		   format('it is a member of role %I, %s', m.rolname, m.may),
		   format('REVOKE %I FROM %I;', m.rolname, r.rolname)
	  FROM pg_roles r
	 CROSS JOIN LATERAL (
		SELECT o.oid, o.rolname, 'which owns the payments and can disable their guards' AS may
		  FROM pg_namespace n JOIN pg_roles o ON o.oid = n.nspowner WHERE n.nspname = '@extschema@'
		UNION ALL
		SELECT o.oid, o.rolname, 'as which the worker acts' FROM pg_roles o WHERE o.rolname = 'stripe_lifecycle_worker'
		UNION ALL
		SELECT o.oid, o.rolname, 'and so can get at the secrets'' files' FROM pg_roles o
		 WHERE o.rolname IN ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program')) m
	 WHERE NOT r.rolsuper AND r.oid <> m.oid AND r.rolname !~ '^pg_' AND pg_has_role(r.oid, m.oid, 'MEMBER')
	UNION ALL
	SELECT 'reader', 'warning', 'role ' || quote_ident(r.rolname),
		   format('it is a member of role %s, and so may %s all payments, with client secrets and customers'' particulars',
				  m.rolname, CASE m.rolname WHEN 'pg_read_all_data' THEN 'read' ELSE 'write to' END),
		   format('REVOKE %s FROM %I; use grant_auditor().', m.rolname, r.rolname)
	  FROM pg_roles r, pg_roles m
	 WHERE m.rolname IN ('pg_read_all_data', 'pg_write_all_data')
	   AND NOT r.rolsuper AND r.oid <> m.oid AND pg_has_role(r.oid, m.oid, 'MEMBER')
	UNION ALL
	SELECT 'statements', 'notice', 'role ' || quote_ident(r.rolname),
		   'it may read the statements of all sessions (pg_read_all_stats), and the customers'' particulars in them',
		   'Pass particulars as bind parameters, which are not shown, or revoke that role.'
	  FROM pg_roles r
	 WHERE r.rolcanlogin AND NOT r.rolsuper AND pg_has_role(r.oid, 'pg_read_all_stats'::regrole, 'MEMBER')
	UNION ALL
	SELECT 'owner_claim', 'warning', 'role ' || quote_ident(r.rolname),
		   'customers are told apart by a claim, but whoever logs in as this role can claim to be any of them',
		   format('ALTER ROLE %I NOLOGIN; let the gateway''s role alone log in.', r.rolname)
	  FROM pg_roles r
	 WHERE current_setting('stripe_lifecycle.owner_claim') <> '' AND r.rolcanlogin AND NOT r.rolsuper
	   AND EXISTS (SELECT FROM @extschema@.granted_privileges() g
					WHERE g.grantee = r.oid AND g.object ~ '\.(create_payment|payment_status)\(')
$$;
COMMENT ON FUNCTION @extschema@.lint_roles() IS 'The rules of lint() over roles. For the owner';

CREATE FUNCTION @extschema@.lint_objects(
	OUT rule text, OUT severity text, OUT object text, OUT finding text, OUT fix text)
	RETURNS SETOF record
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED ROWS 2
	SET search_path = pg_catalog, pg_temp
	AS $$
	SELECT 'privilege',
		   CASE WHEN g.grantee = 0 OR g.grantable OR g.privilege IN ('TRIGGER', 'CREATE') THEN 'critical' ELSE 'warning' END,
		   concat(lower(g.class), ' ', g.object, '.' || quote_ident(g.column_name)),
		   format('%s was granted %s%s, which no grant_...() gives', x.grantee, g.privilege,
				  CASE WHEN g.grantable THEN ' with the right to pass it on' END),
		   format('REVOKE %s%s ON %s %s FROM %s CASCADE;', g.privilege, ' (' || quote_ident(g.column_name) || ')',
				  g.class, g.object, x.grantee)
	  FROM @extschema@.granted_privileges() g
	  LEFT JOIN pg_roles r ON r.oid = g.grantee
	 CROSS JOIN LATERAL (SELECT coalesce(quote_ident(r.rolname), 'PUBLIC') AS grantee) x
	 WHERE g.grantable OR NOT EXISTS (
		SELECT FROM @extschema@.privileges() p
		 WHERE p.privilege = g.privilege AND p.class = g.class AND p.object = g.object
		   AND p.column_name IS NOT DISTINCT FROM g.column_name
		   AND (p.kind = 'worker') = (r.rolname IS NOT DISTINCT FROM 'stripe_lifecycle_worker')
		   AND g.grantee <> 0)
	UNION ALL
	SELECT 'guards', 'critical', 'schema @extschema@', h.detail, h.hint
	  FROM @extschema@.health() h WHERE h.check_name = 'guards' AND h.status <> 'ok'
	UNION ALL
	SELECT 'trigger', t.severity, format('trigger %I on %s', g.tgname, g.tgrelid::regclass), t.finding, t.fix
	  FROM pg_trigger g
	  JOIN pg_class c ON c.oid = g.tgrelid AND c.relnamespace = '@extschema@'::regnamespace
	  JOIN pg_proc p ON p.oid = g.tgfoid AND p.pronamespace <> '@extschema@'::regnamespace
	  JOIN pg_roles o ON o.oid = p.proowner
	 CROSS JOIN LATERAL (
		SELECT 'critical' AS severity,
			   format('its function belongs to role %I and runs as the extension''s owner: who can change the function can do what the owner can', o.rolname) AS finding,
			   format('ALTER FUNCTION %s SECURITY DEFINER;', p.oid::regprocedure) AS fix
		 WHERE NOT p.prosecdef AND NOT o.rolsuper AND o.oid <> c.relowner
		UNION ALL
		SELECT 'warning', 'its function runs as its owner, and takes names from whatever search_path the caller has',
			   format('ALTER FUNCTION %s SET search_path = pg_catalog, pg_temp; and qualify names in it.', p.oid::regprocedure)
		 WHERE p.prosecdef AND NOT EXISTS (SELECT FROM unnest(p.proconfig) s WHERE s LIKE 'search\_path=%')
		UNION ALL
		SELECT 'warning', 'it is fired before a row is written: if it changes or discards the row, events and answers of Stripe''s are refused',
			   'Make it an AFTER trigger.'
		 WHERE g.tgtype & 2 <> 0) t
	 WHERE NOT g.tgisinternal
	UNION ALL
	SELECT 'rule', 'warning', format('rule %I on %s', w.rulename, w.ev_class::regclass),
		   'it rewrites what is written to the table', format('DROP RULE %I ON %s;', w.rulename, w.ev_class::regclass)
	  FROM pg_rewrite w
	  JOIN pg_class c ON c.oid = w.ev_class AND c.relnamespace = '@extschema@'::regnamespace AND c.relkind = 'r'
	UNION ALL
	SELECT 'row_security', 'warning', 'table ' || c.oid::regclass,
		   'row security hides rows from the worker, which then does not send them',
		   format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;', c.oid::regclass)
	  FROM pg_class c
	 WHERE c.relnamespace = '@extschema@'::regnamespace AND (c.relrowsecurity OR c.relforcerowsecurity)
	UNION ALL
	SELECT 'publication', 'warning', 'publication ' || quote_ident(t.pubname),
		   'it carries client secrets, request bodies and customers'' particulars to its subscribers: ' || string_agg(t.tablename, ', ' ORDER BY t.tablename),
		   'Publish other tables, or with a list of columns those alone that an auditor may read.'
	  FROM pg_publication_tables t
	 WHERE t.schemaname = '@extschema@'
	   AND EXISTS (SELECT FROM pg_attribute a
					WHERE a.attrelid = format('@extschema@.%I', t.tablename)::regclass AND a.attname = ANY (t.attnames)
					  AND NOT EXISTS (SELECT FROM @extschema@.privileges() p
									   WHERE p.kind = 'auditor' AND p.object = '@extschema@.' || t.tablename
										 AND coalesce(p.column_name, a.attname) = a.attname))
	 GROUP BY t.pubname
	UNION ALL
	SELECT 'public_schema', 'warning', 'schema ' || quote_ident(n.nspname),
		   'everybody may create objects in it, and so lie in wait for functions without a search_path of their own',
		   format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC;', n.nspname)
	  FROM pg_namespace n
	 WHERE n.nspname !~ '^pg_' AND n.nspname <> '@extschema@'
	   AND EXISTS (SELECT FROM aclexplode(n.nspacl) a WHERE a.grantee = 0 AND a.privilege_type = 'CREATE')
$$;
COMMENT ON FUNCTION @extschema@.lint_objects() IS 'The rules of lint() over the objects of stripe_lifecycle, and over what others hang on them. For the owner';

-- pg_hba.conf as it is now, be it loaded or not.  Only who may see it at all:
-- with an owner who is no superuser this rule is silent.
CREATE FUNCTION @extschema@.lint_access(
	OUT rule text, OUT severity text, OUT object text, OUT finding text, OUT fix text)
	RETURNS SETOF record
	LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED ROWS 2
	SET search_path = pg_catalog, pg_temp
	AS $$
BEGIN
	IF NOT has_table_privilege('pg_hba_file_rules', 'SELECT')
		OR NOT has_function_privilege('pg_hba_file_rules()', 'EXECUTE')
	THEN
		RETURN;
	END IF;
	RETURN QUERY
	WITH lines AS (
		SELECT h.*, format('pg_hba.conf, line %s', h.line_number) AS place,
			   h.type <> 'local' AND h.address <> 'localhost' AND h.address !~ '^(127\.|::1(/|$))' AS remote
		  FROM pg_hba_file_rules h
		 WHERE h.error IS NOT NULL
			OR h.database && ARRAY['all', 'sameuser', 'samerole', 'samegroup', 'replication', current_database()::text]
			OR EXISTS (SELECT FROM unnest(h.database) d WHERE d ~ '^[/@]'))
	SELECT 'trust', CASE WHEN l.remote THEN 'critical' ELSE 'warning' END, l.place,
		   CASE WHEN l.remote THEN 'whoever reaches the server may be any role, without a password'
				ELSE 'whoever is on the machine may be any role, without a password' END,
		   CASE l.type WHEN 'local' THEN 'Use peer.' ELSE 'Use scram-sha-256.' END
	  FROM lines l WHERE l.auth_method = 'trust'
	UNION ALL
	SELECT 'password', 'warning', l.place, 'passwords are sent as they are', 'Use scram-sha-256.'
	  FROM lines l WHERE l.auth_method = 'password' AND l.remote AND l.type <> 'hostssl'
	UNION ALL
	SELECT 'hba_error', 'warning', l.place, 'the line is not as it should be: ' || l.error, 'Mend it, reload.'
	  FROM lines l WHERE l.error IS NOT NULL
	UNION ALL
	SELECT 'ssl', 'critical', 'ssl', 'clients on other machines connect without encryption', 'Set it to on, and use hostssl in pg_hba.conf.'
	 WHERE current_setting('ssl') = 'off'
	   AND EXISTS (SELECT FROM unnest(string_to_array(current_setting('listen_addresses'), ',')) a
					WHERE btrim(a) !~ '^(localhost|127\..*|::1|)$')
	   AND EXISTS (SELECT FROM lines l WHERE l.remote AND l.auth_method <> 'reject');
END
$$;
COMMENT ON FUNCTION @extschema@.lint_access() IS 'The rules of lint() over who may connect, and how. For the owner';

CREATE FUNCTION @extschema@.lint(
	OUT rule text, OUT severity text, OUT object text, OUT finding text, OUT fix text)
	RETURNS SETOF record
	LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER ROWS 10
	SET search_path = pg_catalog, pg_temp
	AS $$
	SELECT l.rule, l.severity, l.object, l.finding, l.fix
	  FROM (SELECT * FROM @extschema@.lint_settings()
			UNION ALL SELECT * FROM @extschema@.lint_secrets()
			UNION ALL SELECT * FROM @extschema@.lint_roles()
			UNION ALL SELECT * FROM @extschema@.lint_objects()
			UNION ALL SELECT * FROM @extschema@.lint_access()) l
	 ORDER BY array_position(ARRAY['critical', 'warning', 'notice'], l.severity), l.rule, l.object, l.finding
$$;
COMMENT ON FUNCTION @extschema@.lint() IS
'What in this server endangers secrets, money or evidence: one row per finding, critical, warning or notice, with what was found in which object, and the fix';

--
-- The worker's role.  The worker is connected as the bootstrap superuser, like
-- any background worker, and takes on this role for each of its transactions,
-- so that triggers of others which it sets off have its rights and no more.
-- Roles belong to the server: all databases share this one, and DROP EXTENSION
-- leaves it.
--

DO $$
BEGIN
	BEGIN
		CREATE ROLE stripe_lifecycle_worker NOLOGIN;
		COMMENT ON ROLE stripe_lifecycle_worker IS 'The worker of extension stripe_lifecycle acts as this role';
	EXCEPTION WHEN duplicate_object OR unique_violation THEN
		NULL;
	END;
	IF EXISTS (SELECT FROM pg_catalog.pg_roles r
			WHERE r.rolname OPERATOR(pg_catalog.=) 'stripe_lifecycle_worker'
			  AND (r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication
				   OR r.rolbypassrls OR r.rolcanlogin)) THEN
		RAISE EXCEPTION 'role "stripe_lifecycle_worker" has attributes that a worker must not have'
			USING ERRCODE = 'object_not_in_prerequisite_state',
				  HINT = 'ALTER ROLE stripe_lifecycle_worker NOLOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS.';
	END IF;
END
$$;

SELECT @extschema@.change_privileges('GRANT', 'worker', 'stripe_lifecycle_worker');

-- Last, when everything is there.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA @extschema@ FROM PUBLIC;
-- USAGE of a type, which PostgreSQL gives to PUBLIC, lets others make tables
-- that stand in the way of dropping it.
REVOKE ALL ON TYPE @extschema@.payment_state, @extschema@.payment_summary, @extschema@.event_outcome,
	@extschema@.request_status FROM PUBLIC;
