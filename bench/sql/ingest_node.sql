-- The tables of the contender in Node; see bench/node/rival.mjs.

CREATE TABLE bench.node_payments (LIKE stripe_lifecycle.payments INCLUDING ALL) WITH (fillfactor = 70);
CREATE TABLE bench.node_transitions (LIKE stripe_lifecycle.payment_transitions INCLUDING ALL);
ALTER TABLE bench.node_transitions ALTER hash DROP NOT NULL; -- no hash chain here
CREATE TABLE bench.node_events (LIKE stripe_lifecycle.webhook_events INCLUDING ALL);
INSERT INTO bench.node_payments SELECT * FROM stripe_lifecycle.payments ORDER BY id;
INSERT INTO bench.node_transitions SELECT * FROM stripe_lifecycle.payment_transitions ORDER BY payment_id;
VACUUM ANALYZE bench.node_payments, bench.node_transitions;
CREATE SEQUENCE bench.node_next;
