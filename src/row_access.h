/*-------------------------------------------------------------------------
 *
 * row_access.h
 *	  Rows of a table by its access methods, below the executor.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_ROW_ACCESS_H
#define SL_ROW_ACCESS_H

#include "access/htup.h"
#include "access/transam.h"
#include "nodes/execnodes.h"
#include "storage/itemptr.h"
#include "utils/relcache.h"

/*
 * What is kept about a table between its uses.  Static storage, zeroed but for
 * what the caller sets; the rest is row_access.c's own.
 */
typedef struct SlAccess
{
	/* set by the caller, and set anew if the table becomes another */
	Oid			relid;
	int			ncols;
	const Oid  *types;			/* of the columns that the caller knows */

	/* kept */
	struct SlAccess *next;		/* of those that hear of changes */
	bool		listed;
	bool		current;		/* no change heard of since it was made */
	bool		usable;			/* the table has nothing out of the ordinary */
	bool		busy;			/* a write is under way */
	Oid			made_for;
	MemoryContext cxt;
	EState	   *estate;
	ResultRelInfo *target;
	Oid		   *indexes;		/* those of target, in its order, and ... */
	struct ScanKeyData *questions;	/* ... for a look by their first column */
	int			identity;		/* number of the identity column, or -1 */
	Oid			sequence;		/* behind it */

	/* the row that was locked last, and by which transaction */
	ItemPointerData locked;
	FullTransactionId locked_by;
	SubTransactionId locked_in;
} SlAccess;

/* What became of a row. */
typedef enum SlAccessResult
{
	SL_ACCESS_DONE,
	SL_ACCESS_NO_ROW,			/* none was found, or written */
	SL_ACCESS_USE_SQL			/* nothing was done: the executor has to do it */
} SlAccessResult;

extern SlAccessResult sl_access_find(SlAccess *access, int column, Datum key,
									 bool lock, Datum *values, bool *nulls);
extern SlAccessResult sl_access_newest(SlAccess *access, int column, Datum key,
									   int wanted, Datum *value, bool *isnull);
extern SlAccessResult sl_access_insert(SlAccess *access, Datum *values,
									   bool *nulls, bool may_exist);
extern SlAccessResult sl_access_update(SlAccess *access, const Datum *values,
									   const bool *nulls);

#endif							/* SL_ROW_ACCESS_H */
