/*-------------------------------------------------------------------------
 *
 * form_encoder.h
 *	  Builds application/x-www-form-urlencoded bodies with nested keys.
 *
 * Stripe's v1 API takes parameters as a[b][0][c]=value.  The caller walks its
 * own tree: it pushes the key segments on the way down, emits values at the
 * leaves and pops on the way up; what the tree is (jsonb, a struct) is nothing
 * this room knows about.
 *
 * Errors latch: after the first one every call is a no-op, so a caller checks
 * "failed" once, at the end.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_FORM_ENCODER_H
#define SL_FORM_ENCODER_H

#include <stddef.h>

#define SL_FORM_MAX_DEPTH	16

/* One key segment: the caller's bytes, or the text of an index when NULL. */
typedef struct SlFormSegment
{
	const char *name;
	size_t		len;
	char		index[12];
} SlFormSegment;

/* The segments from the root to where the caller now is. */
typedef struct SlFormPath
{
	int			depth;
	SlFormSegment segment[SL_FORM_MAX_DEPTH];
} SlFormPath;

/*
 * data is what grow() returned last and belongs to whoever grow() allocates
 * for: nothing here frees it.  Unless failed is set it is a NUL-terminated
 * string of len bytes, "" while nothing has been emitted.
 */
typedef struct SlFormBuf
{
	char	   *data;
	size_t		len;
	size_t		cap;
	int			failed;
	void	   *(*grow) (void *old, size_t size);
	SlFormPath	path;
} SlFormBuf;

/*
 * Starts an empty body.  grow(old, size) works as realloc() does: old may be
 * NULL, and a NULL result (old is then still valid) latches failed.  It may
 * also leave by longjmp: the buffer is consistent whenever grow() is called.
 */
extern void sl_form_init(SlFormBuf *buf, void *(*grow) (void *old, size_t size));

/*
 * Enters a key segment.  Its bytes are not copied: they must stay in place
 * until the matching pop.  The outermost segment must not be empty; an empty
 * inner one gives "a[]".  More than SL_FORM_MAX_DEPTH segments latch failed.
 */
extern void sl_form_push(SlFormBuf *buf, const char *segment, size_t len);

/* Enters an array element. */
extern void sl_form_push_index(SlFormBuf *buf, unsigned idx);

/* Leaves the innermost segment. */
extern void sl_form_pop(SlFormBuf *buf);

/* Emits the current path with this value, after a "&" unless it is the first. */
extern void sl_form_value(SlFormBuf *buf, const char *value, size_t len);

#endif							/* SL_FORM_ENCODER_H */
