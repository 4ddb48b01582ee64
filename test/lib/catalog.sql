-- Everything that the catalogs know of extension stripe_lifecycle in this database, as lines of text
-- without an OID in them, so that two installations can be compared: "object | what of it | value".
-- What is of no consequence is left out: toast tables, statistics, the traces of when and how a column
-- came to be (attmissingval, and the stamp pg_attver that some servers set).

CREATE TEMP TABLE member AS
WITH RECURSIVE found (classid, objid) AS (
	SELECT d.classid, d.objid
	  FROM pg_depend d JOIN pg_extension x ON x.oid = d.refobjid
	 WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	   AND x.extname = 'stripe_lifecycle'
	UNION
	SELECT 'pg_namespace'::regclass, x.extnamespace
	  FROM pg_extension x WHERE x.extname = 'stripe_lifecycle'
	UNION
	SELECT d.classid, d.objid
	  FROM pg_depend d JOIN found f ON f.classid = d.refclassid AND f.objid = d.refobjid
	 WHERE d.deptype IN ('i', 'a'))
SELECT f.classid, f.objid, i.type, i.identity
  FROM found f CROSS JOIN LATERAL pg_identify_object(f.classid, f.objid, 0) i
 WHERE coalesce(i.schema, '') <> 'pg_toast' AND i.identity !~ 'pg_toast';

-- an ACL without regard to its order; NULL is what it is worth
CREATE FUNCTION pg_temp.acl_text(acl aclitem[], kind "char", owner oid) RETURNS text
	LANGUAGE sql AS $$
	SELECT string_agg(format('%s=%s%s by %s', coalesce(nullif(a.grantee, 0)::regrole::text, 'PUBLIC'),
							 a.privilege_type, CASE WHEN a.is_grantable THEN '*' END, a.grantor::regrole), ', '
					  ORDER BY a.grantee::regrole::text, a.privilege_type)
	  FROM aclexplode(coalesce(acl, acldefault(kind, owner))) a
$$;

WITH fact (object, what, value) AS (
	-- the extension itself
	SELECT 'extension', 'properties',
		   format('version %s, owner %s, schema %s, relocatable %s', x.extversion,
				  x.extowner::regrole, x.extnamespace::regnamespace, x.extrelocatable)
	  FROM pg_extension x WHERE x.extname = 'stripe_lifecycle'
	UNION ALL
	SELECT 'extension', 'dumped', format('%s where "%s"', c.t::regclass, c.condition)
	  FROM pg_extension x CROSS JOIN LATERAL unnest(x.extconfig, x.extcondition) AS c (t, condition)
	 WHERE x.extname = 'stripe_lifecycle'

	-- membership, dependencies, comments, initial privileges: of all kinds of objects
	UNION ALL
	SELECT m.identity, 'is a', m.type FROM member m
	UNION ALL
	SELECT m.identity, 'depends',
		   format('%s %s on %s', d.objsubid, d.deptype, pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid))
	  FROM member m JOIN pg_depend d ON d.classid = m.classid AND d.objid = m.objid
	 WHERE pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid) !~ 'pg_toast'
	UNION ALL
	SELECT m.identity, 'comment ' || d.objsubid, d.description
	  FROM member m JOIN pg_description d ON d.classoid = m.classid AND d.objoid = m.objid
	UNION ALL
	SELECT m.identity, 'initial privileges ' || p.objsubid,
		   format('%s %s', p.privtype, pg_temp.acl_text(p.initprivs, 'r', 10))
	  FROM member m JOIN pg_init_privs p ON p.classoid = m.classid AND p.objoid = m.objid

	-- tables, views, indexes, sequences
	UNION ALL
	SELECT m.identity, 'relation',
		   format('%s, owner %s, persistence %s, options %s, row security %s %s, replica identity %s, method %s, tablespace %s',
				  c.relkind, c.relowner::regrole, c.relpersistence, c.reloptions, c.relrowsecurity,
				  c.relforcerowsecurity, c.relreplident, a.amname, c.reltablespace)
	  FROM member m JOIN pg_class c ON c.oid = m.objid LEFT JOIN pg_am a ON a.oid = c.relam
	 WHERE m.classid = 'pg_class'::regclass
	UNION ALL
	SELECT m.identity, 'acl', pg_temp.acl_text(c.relacl, CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner)
	  FROM member m JOIN pg_class c ON c.oid = m.objid
	 WHERE m.classid = 'pg_class'::regclass AND c.relkind IN ('r', 'v', 'S')
	UNION ALL
	SELECT m.identity, 'column ' || a.attnum,
		   format('%s %s, not null %s, default %s, identity "%s", generated "%s", storage %s, compression "%s", collation %s, statistics %s, options %s, acl %s, dropped %s',
				  a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
				  pg_get_expr(d.adbin, d.adrelid), a.attidentity, a.attgenerated, a.attstorage,
				  a.attcompression, a.attcollation::regcollation, nullif(a.attstattarget, -1),
				  (SELECT array_agg(o ORDER BY o) FROM unnest(a.attoptions) o WHERE o !~ '^pg_attver='),
				  pg_temp.acl_text(a.attacl, 'c', c.relowner), a.attisdropped)
	  FROM member m JOIN pg_class c ON c.oid = m.objid JOIN pg_attribute a ON a.attrelid = c.oid
	  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
	 WHERE m.classid = 'pg_class'::regclass AND a.attnum > 0
	UNION ALL
	SELECT m.identity, 'index',
		   format('%s, valid %s, ready %s, clustered %s, replica identity %s', pg_get_indexdef(i.indexrelid),
				  i.indisvalid, i.indisready, i.indisclustered, i.indisreplident)
	  FROM member m JOIN pg_index i ON i.indexrelid = m.objid WHERE m.classid = 'pg_class'::regclass
	UNION ALL
	SELECT m.identity, 'view', pg_get_viewdef(c.oid)
	  FROM member m JOIN pg_class c ON c.oid = m.objid
	 WHERE m.classid = 'pg_class'::regclass AND c.relkind = 'v'
	UNION ALL
	SELECT m.identity, 'sequence',
		   format('%s from %s by %s, %s to %s, cache %s, cycle %s', s.seqtypid::regtype, s.seqstart,
				  s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle)
	  FROM member m JOIN pg_sequence s ON s.seqrelid = m.objid WHERE m.classid = 'pg_class'::regclass
	UNION ALL
	SELECT m.identity, 'policies', string_agg(to_jsonb(p)::text, ', ' ORDER BY p.policyname)
	  FROM member m JOIN pg_class c ON c.oid = m.objid
	  JOIN pg_policies p ON p.tablename = c.relname AND p.schemaname = c.relnamespace::regnamespace::text
	 WHERE m.classid = 'pg_class'::regclass GROUP BY 1

	-- what hangs on them
	UNION ALL
	SELECT m.identity, 'constraint',
		   format('%s, deferrable %s %s, validated %s, inherited %s', pg_get_constraintdef(c.oid),
				  c.condeferrable, c.condeferred, c.convalidated, c.connoinherit)
	  FROM member m JOIN pg_constraint c ON c.oid = m.objid WHERE m.classid = 'pg_constraint'::regclass
	UNION ALL
	SELECT m.identity, 'trigger', format('%s, enabled %s, internal %s', pg_get_triggerdef(t.oid), t.tgenabled, t.tgisinternal)
	  FROM member m JOIN pg_trigger t ON t.oid = m.objid WHERE m.classid = 'pg_trigger'::regclass
	UNION ALL
	SELECT m.identity, 'rule', format('%s, enabled %s', pg_get_ruledef(r.oid), r.ev_enabled)
	  FROM member m JOIN pg_rewrite r ON r.oid = m.objid WHERE m.classid = 'pg_rewrite'::regclass

	-- functions: the definition has volatility, parallelism, security, settings, source and library
	UNION ALL
	SELECT m.identity, 'function', format('%s, owner %s, acl %s', pg_get_functiondef(p.oid), p.proowner::regrole,
										  pg_temp.acl_text(p.proacl, 'f', p.proowner))
	  FROM member m JOIN pg_proc p ON p.oid = m.objid WHERE m.classid = 'pg_proc'::regclass

	-- types and schemas
	UNION ALL
	SELECT m.identity, 'type', format('%s, owner %s, acl %s, labels %s', t.typtype, t.typowner::regrole,
									  pg_temp.acl_text(t.typacl, 'T', t.typowner),
									  (SELECT array_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid))
	  FROM member m JOIN pg_type t ON t.oid = m.objid WHERE m.classid = 'pg_type'::regclass
	UNION ALL
	SELECT m.identity, 'schema', format('owner %s, acl %s', n.nspowner::regrole, pg_temp.acl_text(n.nspacl, 'n', n.nspowner))
	  FROM member m JOIN pg_namespace n ON n.oid = m.objid WHERE m.classid = 'pg_namespace'::regclass)
SELECT object || ' | ' || what || ' | ' || replace(coalesce(value, ''), E'\n', ' ') FROM fact ORDER BY object COLLATE "C", what COLLATE "C", value COLLATE "C";

DROP FUNCTION pg_temp.acl_text(aclitem[], "char", oid);
DROP TABLE member;
