-- :n payments one after the other, each followed until its PaymentIntent's id can be seen. The
-- clock starts when COMMIT has returned. A second series lets the worker go to sleep in between.

CREATE SCHEMA bench;
CREATE TABLE bench.latency (series text, ms double precision);

CREATE PROCEDURE bench.measure(series text, n int, pause double precision)
	LANGUAGE plpgsql AS $$
DECLARE
	payment uuid;
	started timestamptz;
BEGIN
	FOR i IN 1 .. n LOOP
		payment := stripe_lifecycle.create_payment(2000, 'usd', series || '-' || i);
		COMMIT;
		started := clock_timestamp();
		LOOP
			EXIT WHEN EXISTS (SELECT FROM stripe_lifecycle.payments p
				WHERE p.id = payment AND p.payment_intent_id IS NOT NULL);
			COMMIT;
			PERFORM pg_sleep(0.0005);
			IF clock_timestamp() - started > interval '30 s' THEN
				RAISE EXCEPTION 'payment % has no PaymentIntent after 30 s', payment;
			END IF;
		END LOOP;
		INSERT INTO bench.latency
			VALUES (series, extract(epoch FROM clock_timestamp() - started) * 1000);
		COMMIT;
		PERFORM pg_sleep(pause);
	END LOOP;
END
$$;

CALL bench.measure('worker at hand', :n, 0.05);
ALTER SYSTEM SET stripe_lifecycle.worker_linger = 0;
SELECT pg_reload_conf();
SELECT pg_sleep(4);
CALL bench.measure('worker started anew', least(:n, 20), 0.3);

SELECT series AS "commit to stored, ms", count(*) AS payments,
	round(min(ms)::numeric, 1) AS min,
	round(percentile_cont(0.5) WITHIN GROUP (ORDER BY ms)::numeric, 1) AS p50,
	round(percentile_cont(0.99) WITHIN GROUP (ORDER BY ms)::numeric, 1) AS p99,
	round(max(ms)::numeric, 1) AS max
	FROM bench.latency GROUP BY series ORDER BY 1;
