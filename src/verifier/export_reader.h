/*-------------------------------------------------------------------------
 *
 * export_reader.h
 *	  Reads what audit_export() writes: lines of JSON, or CSV.
 *
 * Both have the same fields; a record is returned as them, as text.  Reading is
 * strict, since what is read may come from anybody: whatever audit_export()
 * would not write is an error that names its line.  A record is kept until the
 * next one is read, and is the only one that is.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_EXPORT_READER_H
#define SL_EXPORT_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "audit_hash.h"

/* Longest record, in bytes: none that the extension writes comes near it. */
#define SL_EXPORT_RECORD_MAX	(1024 * 1024)

/* The fields: those that are hashed, and these. */
enum
{
	SL_EXPORT_RECORD = SL_AUDIT_NFIELDS,	/* which kind of record it is */
	SL_EXPORT_TEXT,				/* of those that are no transition */
	SL_EXPORT_POSITION,
	SL_EXPORT_PREVIOUS_HASH,
	SL_EXPORT_HASH,
	SL_EXPORT_NFIELDS
};

typedef struct SlExportField
{
	const char *bytes;			/* NULL: the field is null, or not there */
	size_t		len;
} SlExportField;

typedef struct SlExportRecord
{
	SlExportField fields[SL_EXPORT_NFIELDS];
} SlExportRecord;

typedef enum SlExportResult
{
	SL_EXPORT_OK,
	SL_EXPORT_END,				/* no further record */
	SL_EXPORT_FAILED			/* see sl_export_reader_error() */
} SlExportResult;

typedef struct SlExportReader SlExportReader;

/*
 * Where the bytes come from: fills buf with up to n and returns how many, 0 at
 * the end, -1 after an error.
 */
typedef long (*SlExportSource) (void *arg, char *buf, size_t n);

/* Makes one; NULL without memory.  Free it. */
extern SlExportReader *sl_export_reader_new(SlExportSource source, void *arg);
extern void sl_export_reader_free(SlExportReader *reader);

/* The next record.  After anything but OK don't call it again. */
extern SlExportResult sl_export_read(SlExportReader *reader,
									 SlExportRecord *record);

/* What failed, and in which line, counted from 1. */
extern const char *sl_export_reader_error(const SlExportReader *reader);
extern unsigned long sl_export_reader_line(const SlExportReader *reader);

#endif							/* SL_EXPORT_READER_H */
