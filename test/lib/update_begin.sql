/* how every script of an update begins: see CONTRIBUTING.md */

-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION stripe_lifecycle UPDATE TO '@TO@'" to load this file. \quit

-- An older library would leave the database with objects that it refuses to touch.
DO $$
DECLARE
	library text := (SELECT v.library FROM @extschema@.versions() v);
BEGIN
	IF pg_catalog.string_to_array(library, '.')::int[] OPERATOR(pg_catalog.<)
	   pg_catalog.string_to_array('@TO@', '.')::int[] THEN
		RAISE EXCEPTION 'the server still runs the library of stripe_lifecycle %, not of @TO@', library
			USING ERRCODE = 'SL030',
				  HINT = 'Restart the server to have the new library loaded, then run ALTER EXTENSION stripe_lifecycle UPDATE again.';
	END IF;
END
$$;

