-- The settings and what they refuse
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/setup/begin.sql'
\set end :abs_srcdir '/setup/end.sql'
\i :begin

-- max_databases sizes shared memory and exists only where the library is preloaded
SELECT substr(name, 18) AS name, context, vartype, unit, min_val, max_val,
	   CASE WHEN name LIKE '%.api_version' THEN boot_val ~ '^[0-9-]+\.[a-z]+$' || '' ELSE boot_val END AS boot_val, enumvals
  FROM pg_settings WHERE name LIKE 'stripe\_lifecycle.%' AND name <> 'stripe_lifecycle.max_databases' ORDER BY name;
SELECT bool_and(short_desc ~ '^[A-Z].*\.$' AND coalesce(extra_desc ~ '^[a-z0-9A-Z].*\.$', true)) AS described FROM pg_settings WHERE name LIKE 'stripe\_lifecycle.%';
SELECT (current_setting('stripe_lifecycle.max_databases', true) IS NOT NULL) = (current_setting('shared_preload_libraries') ~ 'stripe_lifecycle') AS preloaded_or_not;

-- decline_policy is a session's to set, and log_redaction a superuser's
SELECT substr(name, 18) AS name, t.code(format('SET %s = %L', name, setting)) AS "SET", t.code(format('ALTER ROLE CURRENT_USER SET %s = %L', name, setting)) AS "ALTER ROLE",
	   t.code(format('ALTER DATABASE %I SET %s = %L', current_database(), name, setting)) AS "ALTER DATABASE"
  FROM pg_settings WHERE name LIKE 'stripe\_lifecycle.%' AND name NOT LIKE '%.max_databases' ORDER BY name;
ALTER ROLE CURRENT_USER RESET stripe_lifecycle.decline_policy;
ALTER ROLE CURRENT_USER RESET stripe_lifecycle.log_redaction;
SELECT t.code(format('ALTER DATABASE %I RESET stripe_lifecycle.%I', current_database(), name)) FROM unnest('{decline_policy, log_redaction}'::text[]) AS name;
CREATE ROLE t_plain;
SET ROLE t_plain;
SET stripe_lifecycle.log_redaction = off;
ALTER ROLE t_plain SET stripe_lifecycle.log_redaction = off;
RESET ROLE;
DROP ROLE t_plain;
SELECT v, t.code(format('SET stripe_lifecycle.decline_policy = %L', v)) FROM unnest('{final, retry, FINAL, never, "", on}'::text[]) AS v;
RESET stripe_lifecycle.decline_policy;
SELECT t.code('SET stripe_lifecycle.no_such_setting = 1'), t.code('SET stripe_lifecycle.decline_polic = ''final''');

-- Bad values, as ALTER SYSTEM checks them.  None of these is stored.
\set VERBOSITY terse
ALTER SYSTEM SET stripe_lifecycle.api_base = 'http://api.stripe.com';
ALTER SYSTEM SET stripe_lifecycle.api_base = 'https://api.stripe.com/';
ALTER SYSTEM SET stripe_lifecycle.api_base = 'https://api.stripe.com/v1';
ALTER SYSTEM SET stripe_lifecycle.api_base = 'https://user:hush@api.stripe.com';
ALTER SYSTEM SET stripe_lifecycle.api_base = 'https://api.stripe.com?x=y';
ALTER SYSTEM SET stripe_lifecycle.api_base = 'https://api.stripe.com#x';
ALTER SYSTEM SET stripe_lifecycle.api_base = 'https://api.stripe.com ';
ALTER SYSTEM SET stripe_lifecycle.api_base = 'https://';
ALTER SYSTEM SET stripe_lifecycle.api_base = 'https:/api.stripe.com';
ALTER SYSTEM SET stripe_lifecycle.api_base = 'HTTPS://api.stripe.com';
ALTER SYSTEM SET stripe_lifecycle.api_base = 'api.stripe.com';
ALTER SYSTEM SET stripe_lifecycle.api_base = 'ftp://api.stripe.com';
ALTER SYSTEM SET stripe_lifecycle.api_base = 'file:///etc/passwd';
ALTER SYSTEM SET stripe_lifecycle.api_base = '';
ALTER SYSTEM SET stripe_lifecycle.api_base = 'http://127.0.0.1.example.com';
ALTER SYSTEM SET stripe_lifecycle.api_base = 'http://localhost.example.com';
ALTER SYSTEM SET stripe_lifecycle.api_base = 'http://127.0.0.1@example.com';
ALTER SYSTEM SET stripe_lifecycle.api_base = 'http://127.0.0.1:80@example.com';
ALTER SYSTEM SET stripe_lifecycle.api_base = 'http://localhost:8080/';
ALTER SYSTEM SET stripe_lifecycle.api_base = 'http://0.0.0.0';
ALTER SYSTEM SET stripe_lifecycle.api_base = 'http://[::1]evil.com';
ALTER SYSTEM SET stripe_lifecycle.api_base = 'http://127.0.0.1:';
ALTER SYSTEM SET stripe_lifecycle.api_base = 'http://127.0.0.1:80:90';
ALTER SYSTEM SET stripe_lifecycle.api_version = '';
ALTER SYSTEM SET stripe_lifecycle.api_version = 'a b';
ALTER SYSTEM SET stripe_lifecycle.api_version = E'2026-10-28.endive\nX-Evil: 1';
ALTER SYSTEM SET stripe_lifecycle.webhook_tolerance = '2 days';
ALTER SYSTEM SET stripe_lifecycle.connect_timeout = '1 hour';
ALTER SYSTEM SET stripe_lifecycle.max_in_flight = 0;
ALTER SYSTEM SET stripe_lifecycle.max_in_flight = 257;
-- out of ranges with a unit, which is in other places of the message from 17 on
\set VERBOSITY sqlstate
ALTER SYSTEM SET stripe_lifecycle.webhook_tolerance = 0;
ALTER SYSTEM SET stripe_lifecycle.webhook_tolerance = -1;
ALTER SYSTEM SET stripe_lifecycle.webhook_max_size = 0;
ALTER SYSTEM SET stripe_lifecycle.webhook_max_size = '1GB';
ALTER SYSTEM SET stripe_lifecycle.request_timeout = 0;
ALTER SYSTEM SET stripe_lifecycle.retry_base_delay = 0;
ALTER SYSTEM SET stripe_lifecycle.retry_max_delay = '2 h';
ALTER SYSTEM SET stripe_lifecycle.worker_linger = -1;
\set VERBOSITY default
SELECT count(*) AS stored, count(*) > 0 AS undo FROM pg_file_settings WHERE name = 'stripe_lifecycle.api_base' AND setting ~ '^http://127.0.0.1:(80:90)?$' \gset
SELECT :stored AS stored;
\if :undo
ALTER SYSTEM RESET stripe_lifecycle.api_base;
\endif

-- what a role without rights may see and do
CREATE ROLE regress_sl_nobody;
GRANT USAGE ON SCHEMA t TO regress_sl_nobody;
SET ROLE regress_sl_nobody;
SELECT substr(name, 18) AS name FROM pg_settings WHERE name LIKE 'stripe\_lifecycle.%' AND name <> 'stripe_lifecycle.max_databases' ORDER BY name;
SELECT t.code('SHOW stripe_lifecycle.webhook_secret_file'), t.code('SHOW stripe_lifecycle.api_key_file'), t.code('SHOW stripe_lifecycle.api_base'), t.code('SHOW stripe_lifecycle.api_version');
RESET ROLE;
DROP OWNED BY regress_sl_nobody;
DROP ROLE regress_sl_nobody;
\i :end
