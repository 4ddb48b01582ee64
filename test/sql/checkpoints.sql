-- Checkpoints: their guards, and the functions that read them, where none has been made.  That they
-- are made, and what they find, is in t/040_checkpoints.pl and t/041_tampering.pl.
\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/setup/begin.sql'
\set end :abs_srcdir '/setup/end.sql'
\i :begin

SELECT t.pay('one') AS one \gset
SELECT t.ingest(t.event('evt_1', 'payment_intent.processing', 1000, 'pi_one', :'one'));

-- Nobody writes one by hand once the database is in use, and nobody changes or removes one
\set checkpoint '(1, ''00000000-0000-4000-8000-000000000001'', 0, 2, 2, now(), now(), now(), sha256(''r''), sha256(''p''), sha256(''k''), sha256(''s'') || sha256(''t''))'
\pset format unaligned
\t on
SELECT t.error($$INSERT INTO stripe_lifecycle.audit_checkpoints VALUES $$ || :'checkpoint');
SELECT t.error($$TRUNCATE stripe_lifecycle.audit_checkpoints$$);
ALTER TABLE stripe_lifecycle.audit_checkpoints DISABLE TRIGGER ALL;
INSERT INTO stripe_lifecycle.audit_checkpoints VALUES :checkpoint;
ALTER TABLE stripe_lifecycle.audit_checkpoints ENABLE ALWAYS TRIGGER stripe_lifecycle_guard;
ALTER TABLE stripe_lifecycle.audit_checkpoints ENABLE ALWAYS TRIGGER stripe_lifecycle_guard_truncate;
SELECT t.error($$UPDATE stripe_lifecycle.audit_checkpoints SET root = sha256('mine')$$);
SELECT t.error($$DELETE FROM stripe_lifecycle.audit_checkpoints$$);
\t off
\pset format aligned
SET session_replication_role = replica;
SELECT t.code($$UPDATE stripe_lifecycle.audit_checkpoints SET number = 2$$), t.code($$DELETE FROM stripe_lifecycle.audit_checkpoints$$),
	   t.code($$TRUNCATE stripe_lifecycle.audit_checkpoints$$);
RESET session_replication_role;
-- nor is a transition moved to another place
SELECT t.code($$UPDATE stripe_lifecycle.payment_transitions SET position = position + 1$$),
	   t.code($$UPDATE stripe_lifecycle.payment_transitions SET position = DEFAULT$$);

-- What is no checkpoint at all is kept out by its table
BEGIN;
ALTER TABLE stripe_lifecycle.audit_checkpoints DISABLE TRIGGER ALL;
SELECT value, t.code(format('UPDATE stripe_lifecycle.audit_checkpoints SET %s', value))
  FROM unnest('{number = 0, from_position = -1, to_position = 0, leaves = 0, "root = ''x''", "previous = sha256(''x'') || ''y''", "key = ''''",
	"signature = sha256(''x'')", number = NULL, trail = NULL, from_position = NULL, to_position = NULL, leaves = NULL, first_at = NULL,
	last_at = NULL, sealed_at = NULL, root = NULL, previous = NULL, key = NULL, signature = NULL}'::text[]) AS value;
ROLLBACK;

-- The one above is none: it says so in every way
SELECT checkpoint, problem FROM stripe_lifecycle.verify_checkpoints();
SELECT count(*) FROM stripe_lifecycle.verify_checkpoints('infinity');
SELECT count(*) FROM stripe_lifecycle.verify_checkpoints(NULL, NULL);
SELECT regexp_replace(stripe_lifecycle.checkpoint_line(c), '_at=\S+', '_at=...', 'g') AS line FROM stripe_lifecycle.audit_checkpoints c;
SELECT stripe_lifecycle.checkpoint_line(NULL) IS NULL AS none;
SELECT stripe_lifecycle.checkpoint_line(row(1, NULL, 0, 2, 2, now(), now(), now(), '', '', '', '')::stripe_lifecycle.audit_checkpoints) IS NULL AS no_checkpoint;
SELECT t.code($$SELECT stripe_lifecycle.verify_checkpoints(public_keys => '')$$) AS empty,
	   t.code($$SELECT stripe_lifecycle.verify_checkpoints(public_keys => '-----BEGIN PUBLIC KEY-----')$$) AS broken;

-- The transitions are exported with it, by it and after it
ALTER TABLE stripe_lifecycle.audit_checkpoints DISABLE TRIGGER ALL;
DELETE FROM stripe_lifecycle.audit_checkpoints;
ALTER TABLE stripe_lifecycle.audit_checkpoints ENABLE ALWAYS TRIGGER stripe_lifecycle_guard;
ALTER TABLE stripe_lifecycle.audit_checkpoints ENABLE ALWAYS TRIGGER stripe_lifecycle_guard_truncate;
SELECT count(*) FROM stripe_lifecycle.verify_checkpoints();
\pset format unaligned
\t on
SELECT regexp_replace(t.mask(l), '(at"|created"|hash"|role"):"[^"]*"', '\1:"..."', 'g') FROM stripe_lifecycle.audit_export() l;
SELECT regexp_replace(regexp_replace(t.mask(l), '"[0-9a-f]{64}"|"\d{4}-[^"]*Z"', '...', 'g'), '"' || session_user || '"', '"<superuser>"')
  FROM stripe_lifecycle.audit_export(format => 'csv') l;
\t off
\pset format aligned
SELECT count(*) FROM stripe_lifecycle.audit_export(now(), now()) UNION ALL
SELECT count(*) FROM stripe_lifecycle.audit_export('infinity') UNION ALL
SELECT count(*) FROM stripe_lifecycle.audit_export(NULL, '-infinity') UNION ALL
SELECT count(*) FROM stripe_lifecycle.audit_export(NULL, NULL);
SELECT t.code($$SELECT stripe_lifecycle.audit_export(format => 'JSON')$$), t.code($$SELECT stripe_lifecycle.audit_export('infinity', '-infinity')$$);
-- A role's name, like any text, may hold what is special to either format: until 18 a line's end as well
SELECT format(E'regress_sl "q", \\n%sline', CASE WHEN current_setting('server_version_num')::integer < 190000 THEN E'\n' ELSE E'\t' END) AS odd \gset
CREATE ROLE :"odd" NOLOGIN;
BEGIN;
SELECT stripe_lifecycle.grant_application(quote_ident(:'odd')::regrole);
GRANT USAGE ON SCHEMA t TO :"odd";
SET SESSION AUTHORIZATION :"odd";
SELECT t.pay('odd') IS NOT NULL AS paid;
RESET SESSION AUTHORIZATION;
SELECT l::json ->> 'role' = :'odd' AS same, translate(l::json ->> 'role', E'\n\t', '__') AS from_json FROM stripe_lifecycle.audit_export() l WHERE l::json ->> 'role' LIKE 'regress%';
SELECT translate(substring(l FROM '"regress(?:[^"]|"")*"'), E'\n\t', '__') AS from_csv FROM stripe_lifecycle.audit_export(format => 'csv') l WHERE l LIKE '%regress%';
ROLLBACK;
DROP OWNED BY :"odd";
DROP ROLE :"odd";

-- health() says what there is to say
SELECT status, detail, hint FROM stripe_lifecycle.health() WHERE check_name = 'checkpoints';
\i :end
