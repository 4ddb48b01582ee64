-- :n payments one after the other, with :pause seconds in between, so that the server is idle.
-- track_commit_timestamp then knows when each was committed, and when its PaymentIntent was.

CREATE SCHEMA IF NOT EXISTS bench;
CREATE OR REPLACE PROCEDURE bench.create_slowly(series text, n int, pause double precision)
	LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		PERFORM stripe_lifecycle.create_payment(2000, 'usd', series || '-n' || i);
		COMMIT;
		PERFORM pg_sleep(pause);
	END LOOP;
END
$$;
CALL bench.create_slowly(:'series', :n, :pause);
