-- grant_...() and revoke_...(): exact inverses, whatever else a role was granted
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/setup/begin.sql'
\set end :abs_srcdir '/setup/end.sql'
\i :begin

-- The list names what exists, as the catalogs spell it, and each thing once.
SELECT p.* FROM stripe_lifecycle.privileges() p
 WHERE NOT CASE class
	WHEN 'FUNCTION' THEN object IN (SELECT format('stripe_lifecycle.%I(%s)', proname, oidvectortypes(proargtypes)) FROM pg_proc WHERE pronamespace = 'stripe_lifecycle'::regnamespace)
	WHEN 'SEQUENCE' THEN to_regclass(object) IS NOT NULL
	WHEN 'TABLE' THEN to_regclass(object) IS NOT NULL AND (column_name IS NULL OR EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass(object) AND attname = column_name AND attnum > 0))
	WHEN 'SEQUENCE' THEN EXISTS (SELECT FROM pg_class WHERE oid = to_regclass(object) AND relkind = 'S')
	WHEN 'TYPE' THEN to_regtype(object) IS NOT NULL
	WHEN 'SCHEMA' THEN object = 'stripe_lifecycle'
	ELSE false END;
SELECT p, count(*) FROM stripe_lifecycle.privileges() p GROUP BY p HAVING count(*) > 1;
SELECT kind, string_agg(DISTINCT privilege || ' ON ' || class, ', ' ORDER BY privilege || ' ON ' || class) AS privileges FROM stripe_lifecycle.privileges() GROUP BY kind ORDER BY kind;

-- Each kind has a privilege that no other one has: by these a revoke tells of which kinds a role is.
CREATE VIEW t.own_privileges AS
	SELECT min(kind) AS kind, privilege, class, object, column_name FROM stripe_lifecycle.privileges() GROUP BY 2, 3, 4, 5 HAVING count(*) = 1;
SELECT DISTINCT kind AS without_a_privilege_of_its_own FROM stripe_lifecycle.privileges() WHERE kind NOT IN (SELECT kind FROM t.own_privileges);

CREATE ROLE "regress_sl; the ""odd"" role";
\set odd '"regress_sl; the ""odd"" role"'
CREATE FUNCTION t.grant(kind text, role text DEFAULT '"regress_sl; the ""odd"" role"') RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE format('SELECT stripe_lifecycle.grant_%s(%L)', kind, role); END $$;
CREATE FUNCTION t.revoke(kind text, role text DEFAULT '"regress_sl; the ""odd"" role"') RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE format('SELECT stripe_lifecycle.revoke_%s(%L)', kind, role); END $$;
-- what a role was granted, straight from the catalogs
CREATE FUNCTION t.acl(role text DEFAULT '"regress_sl; the ""odd"" role"') RETURNS text[] LANGUAGE sql AS $$
	WITH acls AS (
		SELECT x.*, 'stripe_lifecycle' AS object FROM pg_namespace, aclexplode(nspacl) x WHERE nspname = 'stripe_lifecycle' AND grantee = role::regrole
		UNION ALL SELECT x.*, oid::regprocedure::text FROM pg_proc, aclexplode(proacl) x WHERE grantee = role::regrole
		UNION ALL SELECT x.*, oid::regclass::text FROM pg_class, aclexplode(relacl) x WHERE grantee = role::regrole
		UNION ALL SELECT x.*, oid::regtype::text FROM pg_type, aclexplode(typacl) x WHERE grantee = role::regrole
		UNION ALL SELECT x.*, attrelid::regclass || '.' || attname FROM pg_attribute, aclexplode(attacl) x WHERE grantee = role::regrole)
	SELECT coalesce(array_agg(x ORDER BY x), '{}') FROM (SELECT privilege_type || ' ' || object || CASE WHEN is_grantable THEN '*' ELSE '' END AS x FROM acls) y
$$;
-- what the list says it should have for these kinds
CREATE FUNCTION t.listed(kinds text[]) RETURNS text[] LANGUAGE sql AS $$
	SELECT coalesce(array_agg(x ORDER BY x), '{}') FROM (
		SELECT DISTINCT privilege || ' ' || CASE class WHEN 'FUNCTION' THEN object::regprocedure::text ELSE object END || coalesce('.' || column_name, '') AS x
		  FROM stripe_lifecycle.privileges() WHERE kind = ANY (kinds)) y
$$;
SELECT t.acl() AS nothing_yet, t.listed('{none}');

-- Every kind alone: granted, granted again, revoked, revoked again
CREATE TABLE t.kinds AS SELECT unnest('{web, application, auditor, operator}'::text[]) AS kind;
CREATE FUNCTION t.alone(kind text, OUT granted boolean, OUT again boolean, OUT revoked boolean, OUT once_more boolean) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM t.grant(kind); granted := t.acl() = t.listed(ARRAY[kind]);
	PERFORM t.grant(kind); again := t.acl() = t.listed(ARRAY[kind]);
	PERFORM t.revoke(kind); revoked := t.acl() = '{}';
	PERFORM t.revoke(kind); once_more := t.acl() = '{}';
END
$$;
SELECT kind, a.*, cardinality(t.listed(ARRAY[kind])) > 3 AS of_something FROM t.kinds, t.alone(kind) a;

-- Every set of kinds, and with each of them every kind granted and revoked: what is left is what the
-- set without that kind gives.
CREATE TABLE t.sets AS
	SELECT array_agg(kind) FILTER (WHERE n & bit > 0) AS kinds
	  FROM generate_series(0, 15) n, (SELECT kind, 1 << (row_number() OVER (ORDER BY kind) - 1)::int AS bit FROM t.kinds WHERE kind IN (SELECT kind FROM t.own_privileges)) k
	 GROUP BY n;
CREATE FUNCTION t.leaves(kinds text[], kind text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	k text; got text[]; wanted text[] := t.listed(array_remove(kinds, kind));
BEGIN
	FOREACH k IN ARRAY coalesce(kinds, '{}') LOOP PERFORM t.grant(k); END LOOP;
	IF t.acl() <> t.listed(kinds) THEN RETURN 'granted something else'; END IF;
	PERFORM t.grant(kind);
	PERFORM t.revoke(kind);
	got := t.acl();
	FOREACH k IN ARRAY coalesce(kinds, '{}') LOOP PERFORM t.revoke(k); END LOOP;
	IF t.acl() <> '{}' THEN RETURN 'not all was revoked'; END IF;
	RETURN CASE WHEN got = wanted THEN 'as it should be'
		WHEN got <@ wanted THEN 'too little'
		ELSE 'too much' END;
END
$$;
CREATE TABLE t.results (result text);
\o /dev/null
SELECT format('INSERT INTO t.results SELECT t.leaves(%L, %L)', kinds, kind) FROM (SELECT DISTINCT kinds FROM t.sets) s, t.kinds WHERE kind IN (SELECT kind FROM t.own_privileges) \gexec
\o
SELECT result, count(*) >= 64 AS of_many FROM t.results GROUP BY 1;

-- What somebody else granted, and nothing of ours gives, stays
CREATE TABLE t.theirs ();
GRANT SELECT ON t.theirs TO :odd;
GRANT DELETE ON stripe_lifecycle.payments TO :odd;
SELECT t.grant('auditor'), t.revoke('auditor');
SELECT t.acl();
REVOKE ALL ON t.theirs FROM :odd;
REVOKE ALL ON stripe_lifecycle.payments FROM :odd;

-- so a role that was revoked from can be dropped
SELECT t.grant('application'), t.grant('operator'), t.revoke('operator'), t.revoke('application');
DROP ROLE :odd;
CREATE ROLE :odd;

-- Another role's are left alone
CREATE ROLE regress_sl_other;
SELECT t.grant('application', 'regress_sl_other'), t.grant('application'), t.revoke('application');
SELECT t.acl() AS odd, t.acl('regress_sl_other') = t.listed('{application}') AS other_has_its_own, stripe_lifecycle.kinds_of_role('regress_sl_other');

-- The worker's rights are in the list too, and no revoke takes them
SELECT t.acl('stripe_lifecycle_worker') = t.listed('{worker}') AS worker;
SELECT count(t.revoke(kind, 'stripe_lifecycle_worker')::text) FROM t.kinds;
SELECT t.acl('stripe_lifecycle_worker') = t.listed('{worker}') AS worker;

-- The owner needs none, and loses none
CREATE FUNCTION t.owners_acls() RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(proacl::text, ' ' ORDER BY oid) || (SELECT nspacl::text FROM pg_namespace WHERE nspname = 'stripe_lifecycle') FROM pg_proc WHERE pronamespace = 'stripe_lifecycle'::regnamespace
$$;
SELECT t.owners_acls() AS before \gset
SELECT count(t.grant(kind, quote_ident(current_user))::text), count(t.revoke(kind, quote_ident(current_user))::text) FROM t.kinds;
SELECT t.owners_acls() = :'before' AS unchanged;

-- What is no role
SELECT t.error('SELECT stripe_lifecycle.grant_web(NULL)'), t.error('SELECT stripe_lifecycle.revoke_web(NULL)');
SELECT t.error('SELECT stripe_lifecycle.grant_web(4000000001)'), t.error('SELECT stripe_lifecycle.grant_web(0)'), t.error('SELECT stripe_lifecycle.grant_web(''no_such_role'')');
SELECT t.error('SELECT stripe_lifecycle.grant_web(''public'')');

-- Who may not grant: everybody but the owner and superusers, even a role that has it all
CREATE ROLE regress_sl_all;
SELECT count(t.grant(kind, 'regress_sl_all')::text) FROM t.kinds;
GRANT USAGE ON SCHEMA t TO regress_sl_all;
SET ROLE regress_sl_all;
SELECT DISTINCT t.code(format('SELECT stripe_lifecycle.%s(%s)', f, a))
  FROM unnest('{grant_web, revoke_web, grant_application, revoke_application, grant_auditor, revoke_auditor, grant_operator, revoke_operator}'::text[]) f, unnest(ARRAY['''regress_sl_all''', '10']) a;
SELECT t.code($$SELECT stripe_lifecycle.change_privileges('GRANT', 'operator', 'regress_sl_all')$$), t.code('SELECT stripe_lifecycle.privileges()'),
	   t.code('SELECT stripe_lifecycle.granted_privileges()'), t.code($$SELECT stripe_lifecycle.kinds_of_role('regress_sl_all')$$);
RESET ROLE;
-- and where somebody gave a role the function, PostgreSQL's own rules for GRANT hold
GRANT USAGE ON SCHEMA stripe_lifecycle, t TO regress_sl_other;
GRANT EXECUTE ON FUNCTION stripe_lifecycle.grant_operator(regrole), stripe_lifecycle.change_privileges(text, text, regrole), stripe_lifecycle.privileges() TO regress_sl_other;
SET ROLE regress_sl_other;
SELECT t.code('SELECT stripe_lifecycle.grant_operator(''regress_sl_other'')');
RESET ROLE;

SELECT 'DROP OWNED BY ' || string_agg(quote_ident(rolname), ', ') || '; DROP ROLE ' || string_agg(quote_ident(rolname), ', ') AS tidy FROM pg_roles WHERE rolname LIKE 'regress\_sl%' \gset
:tidy;
\i :end
