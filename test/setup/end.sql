\set ECHO none
-- Undoes what test/setup/begin.sql did to the server.
RESET ROLE;
SET client_min_messages = error;
SELECT CASE WHEN before IS NULL THEN 'ALTER SYSTEM RESET stripe_lifecycle.webhook_secret_file'
	   ELSE format('ALTER SYSTEM SET stripe_lifecycle.webhook_secret_file = %L', before) END
  FROM secret_file \gexec
DO $$
BEGIN
	PERFORM pg_reload_conf();
	EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'cat >/dev/null; rm -f ' || path) FROM secret_file;
END
$$;
