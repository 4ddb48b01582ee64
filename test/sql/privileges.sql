-- Who may do what, over every object of the extension
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/setup/begin.sql'
\set end :abs_srcdir '/setup/end.sql'
\i :begin

CREATE ROLE regress_sl_nobody;
CREATE ROLE regress_sl_app;
CREATE ROLE regress_sl_auditor;
SELECT stripe_lifecycle.grant_application('regress_sl_app');
SELECT stripe_lifecycle.grant_auditor('regress_sl_auditor');

-- What the extension consists of.  From 17 on the types that come with others, of rows and arrays, are
-- members of their own, and from 16 on json is a keyword, which needs no schema.
CREATE VIEW t.members AS
	SELECT classid, objid FROM pg_depend
	 WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
	   AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'stripe_lifecycle')
	   AND (classid <> 'pg_type'::regclass OR objid NOT IN
			(SELECT t.oid FROM pg_type t LEFT JOIN pg_class c ON c.oid = typrelid WHERE typcategory = 'A' OR relkind <> 'c'));
SELECT type, regexp_replace(identity, '^stripe_lifecycle\.|pg_catalog\.(?=json\M)', '', 'g') AS identity
  FROM t.members, pg_identify_object(classid, objid, 0) ORDER BY type COLLATE "C", identity COLLATE "C";

-- everything a role can do, column by column where it isn't the whole table
CREATE FUNCTION t.rights(role text) RETURNS TABLE ("right" text, "on" text) LANGUAGE sql AS $$
	SELECT p, 'schema' FROM unnest('{USAGE, CREATE}'::text[]) AS p WHERE has_schema_privilege(role, 'stripe_lifecycle', p)
	UNION ALL
	SELECT 'EXECUTE', proname || '(' || pg_get_function_identity_arguments(p.oid) || ')'
	  FROM t.members JOIN pg_proc p ON classid = 'pg_proc'::regclass AND objid = p.oid WHERE has_function_privilege(role, p.oid, 'EXECUTE')
	UNION ALL
	SELECT string_agg(p, ', ' ORDER BY p), relname
	  FROM pg_class c, unnest('{SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER}'::text[]) AS p
	 WHERE relnamespace = 'stripe_lifecycle'::regnamespace AND relkind IN ('r', 'v') AND has_table_privilege(role, c.oid, p) GROUP BY relname
	UNION ALL
	SELECT p, relname || ' (' || string_agg(attname, ', ' ORDER BY attnum) || ')'
	  FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid AND attnum > 0, unnest('{SELECT, INSERT, UPDATE, REFERENCES}'::text[]) AS p
	 WHERE relnamespace = 'stripe_lifecycle'::regnamespace AND relkind IN ('r', 'v') AND has_column_privilege(role, c.oid, attnum, p) AND NOT has_table_privilege(role, c.oid, p) GROUP BY p, relname
	UNION ALL
	SELECT p, relname FROM pg_class c, unnest('{SELECT, USAGE, UPDATE}'::text[]) AS p
	 WHERE relnamespace = 'stripe_lifecycle'::regnamespace AND relkind = 'S' AND has_sequence_privilege(role, c.oid, p)
$$;
SELECT * FROM t.rights('regress_sl_nobody') ORDER BY "right" COLLATE "C", "on" COLLATE "C";
SELECT * FROM t.rights('regress_sl_app') ORDER BY "right" COLLATE "C", "on" COLLATE "C";
\pset format unaligned
SELECT * FROM t.rights('regress_sl_auditor') ORDER BY "right" COLLATE "C", "on" COLLATE "C";
\pset format aligned
-- what the auditor is kept from
SELECT relname, string_agg(attname, ', ' ORDER BY attnum) AS hidden FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid AND attnum > 0
 WHERE relnamespace = 'stripe_lifecycle'::regnamespace AND relkind = 'r' AND NOT has_column_privilege('regress_sl_auditor', c.oid, attnum, 'SELECT') GROUP BY 1 ORDER BY 1;
-- nothing was granted with the right to pass it on
SELECT count(*) FROM pg_proc p, aclexplode(proacl) a WHERE pronamespace = 'stripe_lifecycle'::regnamespace AND is_grantable AND grantee <> proowner;

-- the application's role at work: the functions do, the tables don't
SELECT t.pay('granted') AS granted \gset
SELECT t.event('evt_granted', 'payment_intent.processing', 1, 'pi_granted', :'granted') AS body \gset
SELECT t.header(:'body'::text) AS header \gset
GRANT USAGE ON SCHEMA t TO regress_sl_nobody, regress_sl_app, regress_sl_auditor;
CREATE TABLE t.statements (n integer GENERATED ALWAYS AS IDENTITY, statement text);
GRANT SELECT ON t.statements TO PUBLIC;
INSERT INTO t.statements (statement) VALUES ('SELECT stripe_lifecycle.create_payment(1, ''usd'', ''k'' || current_user)'), (format('SELECT stripe_lifecycle.payment_status(%L)', :'granted')),
	(format('SELECT stripe_lifecycle.confirm_payment(%L)', :'granted')), (format('SELECT stripe_lifecycle.cancel_payment(%L)', :'granted')), (format('SELECT stripe_lifecycle.ingest_webhook(%L::text, %L)', :'body', :'header')),
	(format('SELECT stripe_lifecycle.verify_webhook_signature(%L::text, %L, ''s'')', :'body', :'header')), ('SELECT stripe_lifecycle.legal_transitions()'), ('SELECT stripe_lifecycle.pause_worker()'), ('SELECT stripe_lifecycle.resume_worker()'),
	('SELECT stripe_lifecycle.wake_worker()'), ('SELECT stripe_lifecycle.grant_application(''regress_sl_nobody'')'), ('SELECT stripe_lifecycle.grant_auditor(''regress_sl_nobody'')'), ('SELECT stripe_lifecycle.guard()'),
	('SELECT client_secret FROM stripe_lifecycle.payments'), ('SELECT state FROM stripe_lifecycle.payments'), ('SELECT * FROM stripe_lifecycle.payment_transitions'), ('SELECT payload FROM stripe_lifecycle.webhook_events'),
	('SELECT body FROM stripe_lifecycle.api_requests'), ('UPDATE stripe_lifecycle.payments SET state = ''succeeded'''), ('DELETE FROM stripe_lifecycle.payment_transitions'), ('UPDATE stripe_lifecycle.worker_state SET paused = false'),
	('CREATE TABLE stripe_lifecycle.mine (a int)'), ('LOCK stripe_lifecycle.payments');
CREATE FUNCTION t.all_codes() RETURNS text[] LANGUAGE sql AS $$ SELECT array_agg(t.code(statement) ORDER BY n) FROM t.statements $$;
SET ROLE regress_sl_nobody;
SELECT t.all_codes() AS nobody \gset
SET ROLE regress_sl_app;
SELECT t.all_codes() AS app \gset
SET ROLE regress_sl_auditor;
SELECT t.all_codes() AS auditor \gset
RESET ROLE;
SELECT left(t.mask(statement), 55) AS statement, nobody, app, auditor
  FROM t.statements JOIN unnest(:'nobody'::text[], :'app'::text[], :'auditor'::text[]) WITH ORDINALITY AS x (nobody, app, auditor, n) USING (n) ORDER BY n;
-- the audit names the role that called, not the functions' owner
SELECT idempotency_key, source, replace(role, session_user, '<superuser>') AS role, seq FROM stripe_lifecycle.payment_transitions JOIN stripe_lifecycle.payments ON id = payment_id ORDER BY 1, seq;
-- granting again changes nothing; names that need quotes are quoted; what is no role is refused
SELECT stripe_lifecycle.grant_application('regress_sl_app'), stripe_lifecycle.grant_auditor('regress_sl_auditor');
CREATE ROLE "regress_sl; odd ""name""";
SELECT stripe_lifecycle.grant_application('"regress_sl; odd ""name"""'::regrole), stripe_lifecycle.grant_auditor('"regress_sl; odd ""name"""'::regrole);
SELECT count(*) AS rights FROM t.rights('regress_sl; odd "name"');
SELECT t.code($$SELECT stripe_lifecycle.grant_application('no_such_role')$$), t.code($$SELECT stripe_lifecycle.grant_application(NULL)$$);

-- Functions: their labels; who runs them and where they look for names
SELECT proname, provolatile AS volatile, proparallel AS parallel, prosecdef AS definer, proisstrict AS strict, proretset AS set, l.lanname AS language, proconfig AS config, count(*) AS n
  FROM t.members JOIN pg_proc p ON classid = 'pg_proc'::regclass AND objid = p.oid JOIN pg_language l ON l.oid = prolang
 GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 ORDER BY 1;
SELECT count(*) FILTER (WHERE prosecdef) AS definers, count(*) FILTER (WHERE prosecdef AND proconfig IS DISTINCT FROM '{"search_path=pg_catalog, pg_temp"}') AS with_an_open_path,
	   count(*) FILTER (WHERE l.lanname IN ('sql', 'plpgsql') AND proconfig IS DISTINCT FROM '{"search_path=pg_catalog, pg_temp"}') AS scripts_with_an_open_path
  FROM t.members JOIN pg_proc p ON classid = 'pg_proc'::regclass AND objid = p.oid JOIN pg_language l ON l.oid = prolang;

-- Every object and column has a comment (indexes, constraints, triggers and row types speak for themselves)
SELECT pg_describe_object(classid, objid, 0) AS without_comment FROM t.members
 WHERE obj_description(objid, classid::regclass::name) IS NULL
   AND NOT (classid = 'pg_class'::regclass AND (SELECT relkind FROM pg_class WHERE oid = objid) NOT IN ('r', 'v'))
   AND NOT (classid = 'pg_type'::regclass AND (SELECT typtype <> 'e' FROM pg_type WHERE oid = objid)) ORDER BY 1;
SELECT attrelid::regclass, attname AS column_without_comment FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
 WHERE relnamespace = 'stripe_lifecycle'::regnamespace AND relkind IN ('r', 'v') AND attnum > 0 AND NOT attisdropped AND col_description(attrelid, attnum) IS NULL ORDER BY 1, 2;
SELECT obj_description('stripe_lifecycle'::regnamespace) IS NOT NULL AS schema, obj_description(oid, 'pg_extension') IS NOT NULL AS extension FROM pg_extension WHERE extname = 'stripe_lifecycle';

-- The guards stand over every table, always
SELECT tgrelid::regclass AS table, tgname, tgenabled, tgtype FROM pg_trigger WHERE tgfoid = 'stripe_lifecycle.guard'::regproc ORDER BY tgrelid::regclass::text COLLATE "C", tgname;

DROP OWNED BY regress_sl_nobody, regress_sl_app, regress_sl_auditor, "regress_sl; odd ""name""";
DROP ROLE regress_sl_nobody, regress_sl_app, regress_sl_auditor, "regress_sl; odd ""name""";
\i :end
