/*-------------------------------------------------------------------------
 *
 * checkpoint.h
 *	  A checkpoint of the audit trail as text: what is signed, chained and
 *	  logged.  docs/checkpoints.md describes it.
 *
 * Its text is one line of "name=value" pairs in a fixed order, without a line
 * end.  What is signed is that line; its SHA-256 is the checkpoint's hash,
 * which the next one carries; and what the server logs is that line and the
 * signature.  A text is read strictly: what is accepted is, byte by byte, what
 * would be written.
 *
 * Needs nothing of PostgreSQL: the worker writes these texts, the SQL functions
 * and the stand-alone verifier read them, all by this file.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_CHECKPOINT_H
#define SL_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SL_CHECKPOINT_HASH_LEN	32	/* bytes of a SHA-256 */
#define SL_CHECKPOINT_UUID_LEN	16
#define SL_SIGNATURE_LEN		64	/* bytes of an Ed25519 signature */

/* bytes for sl_checkpoint_text() and sl_checkpoint_line(), NUL included */
#define SL_CHECKPOINT_TEXT_SIZE	768
#define SL_CHECKPOINT_LINE_SIZE	1024

/* What every text begins with, the version of the format included. */
#define SL_CHECKPOINT_MARK		"stripe_lifecycle checkpoint 1 trail="

typedef struct SlCheckpoint
{
	unsigned char trail[SL_CHECKPOINT_UUID_LEN];	/* which audit trail */
	int64_t		number;			/* 1, 2, 3 ... */
	int64_t		from_position;	/* covers positions above this ... */
	int64_t		to_position;	/* ... up to and including this */
	int64_t		leaves;			/* transitions there */
	int64_t		first_at;		/* earliest and latest time of them, */
	int64_t		last_at;		/* in microseconds since 1970, UTC */
	int64_t		sealed_at;		/* when it was made, likewise */
	unsigned char root[SL_CHECKPOINT_HASH_LEN]; /* Merkle root of the leaves */
	unsigned char previous[SL_CHECKPOINT_HASH_LEN]; /* hash of the one before;
													 * zeroes for number 1 */
	unsigned char key[SL_CHECKPOINT_HASH_LEN];	/* fingerprint of the key */
	unsigned char signature[SL_SIGNATURE_LEN];	/* not part of the text */
} SlCheckpoint;

/* Writes the text that is signed; returns its length. */
extern size_t sl_checkpoint_text(const SlCheckpoint *c,
								 char out[SL_CHECKPOINT_TEXT_SIZE]);

/* Writes the text and the signature, as it is logged; returns its length. */
extern size_t sl_checkpoint_line(const SlCheckpoint *c,
								 char out[SL_CHECKPOINT_LINE_SIZE]);

/* The SHA-256 of the text.  False, and out is all zeroes, if OpenSSL failed. */
extern bool sl_checkpoint_hash(const SlCheckpoint *c, unsigned char *out);

/*
 * Reads what sl_checkpoint_line() writes, and nothing after it.  False, and
 * *out is all zeroes, if it is anything else.
 */
extern bool sl_checkpoint_read(const char *line, size_t len, SlCheckpoint *out);

/*
 * Looks for such a line within other text: a line of a server's log, whatever
 * its prefix and format.  True if there is one, its place and length stored;
 * the last one if there are several.
 */
extern bool sl_checkpoint_find(const char *text, size_t len,
							   const char **line, size_t *line_len);

/*
 * Reads a time as sl_audit_time() writes it, all len bytes of it.  False if it
 * is anything else.
 */
extern bool sl_checkpoint_time(const char *text, size_t len,
							   int64_t *unix_microseconds);

/* Writes bytes as lower-case hex: 2 * n characters and a NUL. */
extern void sl_hex_encode(const unsigned char *bytes, size_t n, char *out);

/* Reads exactly 2 * n lower-case hex digits. */
extern bool sl_hex_decode(const char *text, size_t len, unsigned char *out,
						  size_t n);

#endif							/* SL_CHECKPOINT_H */
