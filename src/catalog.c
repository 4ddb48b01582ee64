/*-------------------------------------------------------------------------
 *
 * catalog.c
 *	  Finds the extension's types and enum labels, and notices when the
 *	  extension was dropped and created again, or updated.
 *
 * Labels are resolved by name, never by assumed OID: enum OIDs differ from
 * database to database.  The cache belongs to one incarnation of the
 * extension, told apart by the OIDs of its schema and its enum type; plans
 * that carry those OIDs are keyed by 'generation' and rebuilt with it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "utils/inval.h"
#include "utils/syscache.h"

#include "catalog.h"
#include "compat.h"
#include "errors.h"
#include "state_machine.h"
#include "version.h"

static const char *const enum_names[SL_ENUM_COUNT] = {
	"payment_state", "event_outcome", "request_status"
};

/* States come from state_machine.c; these are the other two. */
static const char *const outcome_labels[] = {
	"applied", "recorded", "stale", "conflict", "unmatched", "ignored", NULL
};
static const char *const status_labels[] = {
	"queued", "in_flight", "succeeded", "rejected", "unknown", NULL
};

static SlCatalog cache;
static bool cache_valid = false;

/*
 * A type, a schema, a function or a table changed somewhere, so the extension
 * may have been updated: look again before trusting the cache.
 */
static void
invalidate(Datum arg, int cacheid, uint32 hashvalue)
{
	cache_valid = false;
}

static void
invalidate_of_table(Datum arg, Oid relid)
{
	cache_valid = false;
}

static void
watch_catalogs(void)
{
	static bool watching = false;

	if (watching)
		return;
	CacheRegisterSyscacheCallback(TYPEOID, invalidate, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, invalidate, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, invalidate, (Datum) 0);
	CacheRegisterRelcacheCallback(invalidate_of_table, (Datum) 0);
	watching = true;
}

/* Is the extension installed in this database? */
bool
sl_extension_present(void)
{
	return OidIsValid(get_extension_oid(SL_EXTENSION, true));
}

/* A label by its position, NULL past the last; constant storage. */
const char *
sl_enum_label(SlEnumId id, int position)
{
	if (id == SL_ENUM_STATE)
		return sl_state_name((SlState) position);
	return id == SL_ENUM_OUTCOME ? outcome_labels[position] : status_labels[position];
}

static Oid
enum_type(Oid schema, SlEnumId id)
{
	return GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
						   CStringGetDatum(enum_names[id]),
						   ObjectIdGetDatum(schema));
}

static void
load_labels(SlCatalog *c, SlEnumId id)
{
	const char *name;
	int			i;

	for (i = 0; (name = sl_enum_label(id, i)) != NULL; i++)
	{
		c->labels[id][i] = GetSysCacheOid2(ENUMTYPOIDNAME, Anum_pg_enum_oid,
										   ObjectIdGetDatum(c->enums[id]),
										   CStringGetDatum(name));
		if (!OidIsValid(c->labels[id][i]))
			ereport(ERROR,
					(errcode(SL_ERRCODE_SCHEMA_MISMATCH),
					 errmsg("type %s.%s lacks the label \"%s\"",
							SL_SCHEMA, enum_names[id], name),
					 errdetail("The installed library and the extension's objects are of different versions."),
					 errhint("Run ALTER EXTENSION stripe_lifecycle UPDATE, or install the library of the extension's version.")));
	}
}

/*
 * The objects must be of a version that this library works with.  In a script
 * of the extension they need not, and nothing is concluded for afterwards.
 */
static bool
check_version(void)
{
	char	   *problem;

	if (sl_in_own_script())
		return false;
	problem = sl_version_problem();
	if (problem != NULL)
		ereport(ERROR,
				(errcode(SL_ERRCODE_SCHEMA_MISMATCH),
				 errmsg("%s", problem),
				 errdetail("They do not fit, so nothing is done."),
				 errhint("%s", sl_version_hint())));
	return true;
}

/*
 * For every function that SQL can call, before it relies on anything: do the
 * library and the extension's objects fit?  Costs nothing but after changes of
 * the catalogs.
 */
void
sl_require_version(void)
{
	(void) sl_catalog();
}

/*
 * The OIDs of the extension in this database, valid until the caller next
 * lets go of its snapshot.  Raises an error if the extension is missing, or of
 * a version that is not the library's.
 */
const SlCatalog *
sl_catalog(void)
{
	SlCatalog	fresh = {0};
	Oid			schema;
	Oid			state;
	bool		checked;
	int			i;

	if (cache_valid)
		return &cache;
	watch_catalogs();

	schema = get_namespace_oid(SL_SCHEMA, true);
	state = OidIsValid(schema) ? enum_type(schema, SL_ENUM_STATE) : InvalidOid;
	if (!OidIsValid(state))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"stripe_lifecycle\" is not installed in this database"),
				 errhint("Run CREATE EXTENSION stripe_lifecycle.")));

	checked = check_version();
	if (cache.schema == schema && cache.enums[SL_ENUM_STATE] == state)
	{
		cache_valid = checked;
		return &cache;
	}

	fresh.schema = schema;
	for (i = 0; i < SL_ENUM_COUNT; i++)
	{
		fresh.enums[i] = enum_type(schema, (SlEnumId) i);
		load_labels(&fresh, (SlEnumId) i);
	}
	fresh.generation = cache.generation + 1;
	cache = fresh;
	cache_valid = checked;
	return &cache;
}

/* Which label of the enum an OID is, counted from 0; -1 if it is none. */
int
sl_enum_position(SlEnumId id, Oid label)
{
	const SlCatalog *c = sl_catalog();
	int			i;

	for (i = 0; i < SL_ENUM_MAX_LABELS; i++)
		if (OidIsValid(c->labels[id][i]) && c->labels[id][i] == label)
			return i;
	return -1;
}
