/*-------------------------------------------------------------------------
 *
 * version.c
 *	  Does this library fit the extension's objects in this database?
 *
 * The library is the server's, the objects are each database's, and they
 * change at different times: one with a restart, the others with ALTER
 * EXTENSION UPDATE.  Between the two a library meets objects of another
 * version.  It knows which versions it works with (ACCEPTS in the Makefile)
 * and does nothing with any other, rather than guess at columns and labels.
 *
 * The extension's own scripts are let through: while one runs, the version on
 * record is that of the step, and what it does is its author's matter.  A
 * script of an upgrade looks at versions() first; see CONTRIBUTING.md.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "compat.h"
#include "version.h"

PG_FUNCTION_INFO_V1(sl_versions);

/* versions(): library, objects, problem */
#define VERSIONS_COLUMNS 3

/* The version of the objects in this database, palloc'd; NULL: not installed. */
static char *
objects_version(void)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	char	   *version = NULL;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum(SL_EXTENSION));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		d = heap_getattr(tuple, Anum_pg_extension_extversion,
									 RelationGetDescr(rel), &isnull);

		if (!isnull)
			version = TextDatumGetCString(d);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return version;
}

/* Is it one of the words of SL_ACCEPTS? */
static bool
is_accepted(const char *version)
{
	size_t		len = strlen(version);
	const char *word = SL_ACCEPTS;

	while (*word != '\0')
	{
		size_t		n = strcspn(word, " ");

		if (n == len && strncmp(word, version, len) == 0)
			return true;
		word += n;
		word += strspn(word, " ");
	}
	return false;
}

/*
 * Why this library must leave the objects alone, palloc'd; NULL if it fits.
 * Needs a transaction.
 */
char *
sl_version_problem(void)
{
	char	   *objects = objects_version();

	if (objects == NULL)
		return psprintf("extension \"%s\" is not installed in this database", SL_EXTENSION);
	if (is_accepted(objects))
		return NULL;
	return psprintf("the server's library of %s is of version %s, the extension in this database of version %s",
					SL_EXTENSION, SL_VERSION, objects);
}

/* What to do about it; constant storage. */
const char *
sl_version_hint(void)
{
	return "If the library is the newer one, run ALTER EXTENSION " SL_EXTENSION " UPDATE; if it is the older one, restart the server to have the new library loaded.";
}

/* Is a script of the extension running, to create or update it? */
bool
sl_in_own_script(void)
{
	return creating_extension &&
		CurrentExtensionObject == get_extension_oid(SL_EXTENSION, true);
}

/*
 * SQL: versions() returns one row.  It works whatever the versions are.
 */
Datum
sl_versions(PG_FUNCTION_ARGS)
{
	char	   *objects = objects_version();
	char	   *problem = sl_version_problem();
	Datum		values[VERSIONS_COLUMNS] = {0};
	bool		nulls[VERSIONS_COLUMNS] = {false};
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE ||
		desc->natts != VERSIONS_COLUMNS)
		elog(ERROR, "return type must be a row type of %d columns", VERSIONS_COLUMNS);
	values[0] = CStringGetTextDatum(SL_VERSION);
	nulls[1] = objects == NULL;
	if (objects != NULL)
		values[1] = CStringGetTextDatum(objects);
	nulls[2] = problem == NULL;
	if (problem != NULL)
		values[2] = CStringGetTextDatum(problem);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, nulls)));
}
