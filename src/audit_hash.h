/*-------------------------------------------------------------------------
 *
 * audit_hash.h
 *	  The hash of one row of the audit trail, as docs/audit.md describes it.
 *
 * hash = SHA-256(hash of the row before || field 1 || field 2 ...), where a
 * field is its length in bytes as four bytes, most significant first, and
 * then its bytes; NULL is the length 0xFFFFFFFF and no bytes.  The first row
 * of a payment has 32 zero bytes in place of the hash before.
 *
 * Plain buffers go in and out, and nothing of PostgreSQL is needed: the guard
 * writes these hashes, verify_audit() and the stand-alone verifier recompute
 * them, all by this file.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_AUDIT_HASH_H
#define SL_AUDIT_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SL_AUDIT_HASH_LEN	32		/* bytes of a SHA-256 */
#define SL_AUDIT_TIME_SIZE	32		/* bytes for sl_audit_time(), NUL included */
#define SL_AUDIT_UUID_SIZE	37		/* bytes for sl_audit_uuid(), NUL included */

/*
 * The fields of a row, in the order in which they are hashed: the columns of
 * payment_transitions before the hash.  As text: uuid in lower
 * case, integers in decimal, states by their labels, times as sl_audit_time()
 * writes them, booleans as true and false.
 */
typedef enum SlAuditField
{
	SL_AUDIT_PAYMENT_ID, SL_AUDIT_SEQ, SL_AUDIT_FROM_STATE, SL_AUDIT_TO_STATE,
	SL_AUDIT_AT, SL_AUDIT_SOURCE, SL_AUDIT_EVENT_ID, SL_AUDIT_EVENT_TYPE,
	SL_AUDIT_EVENT_CREATED, SL_AUDIT_ROLE, SL_AUDIT_NOTE, SL_AUDIT_AMOUNT,
	SL_AUDIT_CURRENCY, SL_AUDIT_LIVEMODE,
	SL_AUDIT_NFIELDS
} SlAuditField;

/* A digest under way, to be used for one row after another. */
typedef struct SlAuditHash SlAuditHash;

/* Makes one; NULL if OpenSSL has no SHA-256 or no memory.  Free it. */
extern SlAuditHash *sl_audit_hash_new(void);

/* Frees one; NULL is allowed. */
extern void sl_audit_hash_free(SlAuditHash *hash);

/*
 * Begins a row.  prev is the hash of the row before, SL_AUDIT_HASH_LEN bytes,
 * or NULL for the first row of a payment.  Whatever fails from here on is
 * reported by sl_audit_hash_finish().
 */
extern void sl_audit_hash_begin(SlAuditHash *hash, const unsigned char *prev);

/* Adds the next field.  bytes NULL means NULL; an empty string is not NULL. */
extern void sl_audit_hash_field(SlAuditHash *hash, const char *bytes,
								size_t len);

/*
 * Ends the row: out gets SL_AUDIT_HASH_LEN bytes.  False, and out is all
 * zeroes, if OpenSSL failed or a field had 4 GiB or more.
 */
extern bool sl_audit_hash_finish(SlAuditHash *hash, unsigned char *out);

/*
 * Writes a time, in microseconds since 1970-01-01 00:00 UTC, as ISO 8601 in
 * UTC with six digits of the second: 2026-11-25T18:00:00.123456Z.  Years
 * beyond 9999 have more digits, those before 1 a sign.  Returns the length.
 */
extern size_t sl_audit_time(int64_t unix_microseconds,
							char out[SL_AUDIT_TIME_SIZE]);

/* Writes 16 bytes as a UUID in lower case; returns the length, 36. */
extern size_t sl_audit_uuid(const unsigned char *uuid,
							char out[SL_AUDIT_UUID_SIZE]);

#endif							/* SL_AUDIT_HASH_H */
