/*-------------------------------------------------------------------------
 *
 * catalog.h
 *	  OIDs of the extension's own types, enum labels and tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_CATALOG_H
#define SL_CATALOG_H

#define SL_SCHEMA "stripe_lifecycle"

/* The extension's enum types. */
typedef enum SlEnumId
{
	SL_ENUM_STATE,
	SL_ENUM_OUTCOME,
	SL_ENUM_STATUS,
	SL_ENUM_COUNT
} SlEnumId;

#define SL_ENUM_MAX_LABELS 8

typedef struct SlCatalog
{
	uint64		generation;		/* grows whenever the extension was re-created */
	Oid			schema;
	Oid			enums[SL_ENUM_COUNT];
	Oid			labels[SL_ENUM_COUNT][SL_ENUM_MAX_LABELS];
} SlCatalog;

extern bool sl_extension_present(void);
extern const SlCatalog *sl_catalog(void);
extern void sl_require_version(void);
extern const char *sl_enum_label(SlEnumId id, int position);
extern int	sl_enum_position(SlEnumId id, Oid label);

#endif							/* SL_CATALOG_H */
