/*-------------------------------------------------------------------------
 *
 * json_scan.h
 *	  Goes through a JSON text in place, member by member.
 *
 * Nothing is allocated and nothing is copied: what the caller has no use for
 * costs a look at its bytes and no more.  A whole object:
 *
 *	sl_json_begin(&s, text, len);
 *	if (sl_json_value(&s) == SL_JSON_OBJECT)
 *		while (sl_json_next_key(&s))
 *			... look at the key in s.token, then sl_json_value() or sl_json_skip()
 *	if (!sl_json_end(&s))
 *		... it was no JSON, whatever was found in it
 *
 * The text is held to RFC 8259, the parts that are skipped too, and must be
 * UTF-8, which is not looked at here.  As for jsonb, an escape that stands for
 * no character that a text can hold (\u0000, half of a surrogate pair) is an
 * error.  An error is remembered: every call after it says that there is no
 * more, and sl_json_end() tells.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_JSON_SCAN_H
#define SL_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>

/* Deeper texts are refused. */
#define SL_JSON_MAX_DEPTH 512

typedef enum SlJsonType
{
	SL_JSON_NONE,				/* there is no value: the text is wrong */
	SL_JSON_OBJECT,
	SL_JSON_ARRAY,
	SL_JSON_STRING,
	SL_JSON_NUMBER,
	SL_JSON_TRUE,
	SL_JSON_FALSE,
	SL_JSON_NULL
} SlJsonType;

typedef struct SlJsonScan
{
	const char *at;
	const char *end;
	const char *token;			/* the latest key, string (both without quotes)
								 * or number, as it stands in the text */
	size_t		token_len;
	bool		token_escaped;	/* it has escapes: see sl_json_unescape() */
	bool		first;			/* no member of the innermost one seen yet */
	bool		failed;
	int			depth;
} SlJsonScan;

/* Begin.  The text is not copied, and need not end in a NUL. */
extern void sl_json_begin(SlJsonScan *s, const char *text, size_t len);

/*
 * Take the value that comes next.  Of an object or array that is only its
 * opening bracket: go on with sl_json_next_key() or sl_json_next_element()
 * until they say that it is over.
 */
extern SlJsonType sl_json_value(SlJsonScan *s);

/* Go to the next member of an object: its key is the token; false at the end. */
extern bool sl_json_next_key(SlJsonScan *s);

/* Go to the next element of an array; false at the end. */
extern bool sl_json_next_element(SlJsonScan *s);

/* Pass over the value that comes next, with all that is in it. */
extern void sl_json_skip(SlJsonScan *s);

/* Was that all, and was it JSON? */
extern bool sl_json_end(SlJsonScan *s);

/*
 * Write what a string of len bytes stands for, in at most len bytes; returns
 * how many.  It must have passed the scan.
 */
extern size_t sl_json_unescape(const char *string, size_t len, char *out);

#endif							/* SL_JSON_SCAN_H */
