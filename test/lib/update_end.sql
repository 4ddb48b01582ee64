
/* how every script of an update ends: see CONTRIBUTING.md */

-- Nothing is PUBLIC's.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA @extschema@ FROM PUBLIC;
DO $$
DECLARE
	type name;
BEGIN
	FOR type IN
		SELECT t.typname FROM pg_catalog.pg_type t
		  JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace
		 WHERE n.nspname OPERATOR(pg_catalog.=) '@extschema@' AND t.typtype IN ('c', 'e')
	LOOP
		EXECUTE pg_catalog.format('REVOKE ALL ON TYPE @extschema@.%I FROM PUBLIC', type);
	END LOOP;
END
$$;

-- What waited for a library and objects that fit.
SELECT @extschema@.wake_worker();
