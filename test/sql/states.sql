-- The five states and the machine's edges
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/setup/begin.sql'
\set end :abs_srcdir '/setup/end.sql'
\i :begin

-- exactly these labels, in this order
SELECT enumtypid::regtype AS type, enumsortorder AS n, enumlabel
  FROM pg_enum WHERE enumtypid::regtype::text LIKE 'stripe_lifecycle.%'
 ORDER BY enumtypid::regtype::text, 2;
SELECT enum_range(NULL::stripe_lifecycle.payment_state);

-- the edges, and what proves each
SELECT * FROM stripe_lifecycle.legal_transitions();

-- succeeded absorbs; failed leaves for succeeded only; nothing moves to itself
SELECT s AS state,
	   (SELECT string_agg(to_state::text, ', ' ORDER BY to_state)
		  FROM stripe_lifecycle.legal_transitions() WHERE from_state = s) AS leads_to
  FROM unnest(enum_range(NULL::stripe_lifecycle.payment_state)) AS s;
SELECT count(*) AS edges, count(DISTINCT (from_state, to_state)) AS different,
	   count(*) FILTER (WHERE from_state = to_state) AS loops,
	   count(*) FILTER (WHERE from_state IS NULL) AS beginnings
  FROM stripe_lifecycle.legal_transitions();

-- a payment knows no other state
SELECT t.code($$SELECT 'canceled'::stripe_lifecycle.payment_state$$);
SELECT t.code($$SELECT ''::stripe_lifecycle.payment_state$$);
SELECT t.code($$SELECT 'Created'::stripe_lifecycle.payment_state$$);

-- a label added by hand is no state: no payment can be put there
ALTER TYPE stripe_lifecycle.payment_state ADD VALUE 'refunded';
SELECT t.pay('states-1') IS NOT NULL AS made;
SELECT t.code($$UPDATE stripe_lifecycle.payments SET state = 'refunded'$$);
SELECT t.code($$INSERT INTO stripe_lifecycle.payments (id, idempotency_key, state, amount, currency)
	VALUES (gen_random_uuid(), 'states-2', 'refunded', 1, 'usd')$$);
SELECT state FROM stripe_lifecycle.payments;

\i :end
