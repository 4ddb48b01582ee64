-- The hash of an audit row as docs/audit.md describes it, in SQL: a second
-- opinion beside the library's. Comes after test/setup/begin.sql.
CREATE FUNCTION t.field(value text) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
	SELECT CASE WHEN value IS NULL THEN '\xffffffff'::bytea
		ELSE int4send(octet_length(value)) || convert_to(value, 'UTF8') END
$$;
CREATE FUNCTION t.iso(value timestamptz) RETURNS text LANGUAGE sql IMMUTABLE AS $$
	SELECT to_char(value AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;
CREATE FUNCTION t.hash(previous bytea, r stripe_lifecycle.payment_transitions) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
	SELECT sha256(coalesce(previous, decode(repeat('00', 32), 'hex'))
		|| t.field(r.payment_id::text) || t.field(r.seq::text)
		|| t.field(r.from_state::text) || t.field(r.to_state::text)
		|| t.field(t.iso(r.at)) || t.field(r.source)
		|| t.field(r.event_id) || t.field(r.event_type) || t.field(t.iso(r.event_created))
		|| t.field(r.role) || t.field(r.note)
		|| t.field(r.amount::text) || t.field(r.currency) || t.field(r.livemode::text))
$$;

-- Hash the rows of a payment anew, from one on to another: what somebody would do
-- who changes the trail and knows the format. The guard has to be off.
CREATE FUNCTION t.rehash(payment uuid, first integer DEFAULT 1, last integer DEFAULT 1000) RETURNS void
	LANGUAGE plpgsql AS $$
DECLARE
	r stripe_lifecycle.payment_transitions;
BEGIN
	FOR r IN SELECT * FROM stripe_lifecycle.payment_transitions
			  WHERE payment_id = payment AND seq BETWEEN first AND last ORDER BY seq LOOP
		UPDATE stripe_lifecycle.payment_transitions
		   SET hash = t.hash((SELECT p.hash FROM stripe_lifecycle.payment_transitions p
							   WHERE p.payment_id = payment AND p.seq < r.seq ORDER BY p.seq DESC LIMIT 1), r)
		 WHERE payment_id = payment AND seq = r.seq;
	END LOOP;
END
$$;
