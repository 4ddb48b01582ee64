/*-------------------------------------------------------------------------
 *
 * form_encoder.c
 *	  Builds application/x-www-form-urlencoded bodies with nested keys.
 *
 * The same tree must always give the same bytes, since Stripe compares a
 * repeated request with the first one of its idempotency key: there are no
 * options, no locale, and the order is the caller's.
 *
 * Brackets that nest stay literal, as in the official SDKs.  A bracket inside
 * a name is percent-encoded like every other byte that isn't unreserved
 * (RFC 3986, 2.3).  That keeps the body unambiguous, but a server may decode
 * names before it nests them: a caller whose names come from elsewhere has to
 * refuse those with brackets itself.
 *
 *-------------------------------------------------------------------------
 */
#include "form_encoder.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define INITIAL_CAPACITY	256

/*
 * Latches the failure.  Returns false, for use in a return statement.
 */
static bool
fail(SlFormBuf *buf)
{
	buf->failed = 1;
	return false;
}

/*
 * Makes room for extra more bytes and the final NUL, at least doubling so
 * that a body costs amortised constant time per byte.
 */
static bool
reserve(SlFormBuf *buf, size_t extra)
{
	size_t		need;
	size_t		cap;
	char	   *data;

	if (extra >= SIZE_MAX - buf->len)
		return fail(buf);
	need = buf->len + extra + 1;
	if (need <= buf->cap)
		return true;

	cap = buf->cap > SIZE_MAX / 2 ? SIZE_MAX : buf->cap * 2;
	if (cap < need)
		cap = need;
	if (cap < INITIAL_CAPACITY)
		cap = INITIAL_CAPACITY;

	data = buf->grow(buf->data, cap);
	if (data == NULL)
		return fail(buf);
	buf->data = data;
	buf->cap = cap;
	return true;
}

static bool
append(SlFormBuf *buf, const char *bytes, size_t len)
{
	if (!reserve(buf, len))
		return false;
	memcpy(buf->data + buf->len, bytes, len);
	buf->len += len;
	buf->data[buf->len] = '\0';
	return true;
}

/* RFC 3986's unreserved characters; not isalnum(), which has a locale. */
static bool
is_unreserved(unsigned char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
		(c >= '0' && c <= '9') ||
		c == '-' || c == '_' || c == '.' || c == '~';
}

/* How many bytes will this text be, encoded?  SIZE_MAX when it can't be. */
static size_t
encoded_size(const char *text, size_t len)
{
	size_t		size = len;
	size_t		i;

	for (i = 0; i < len; i++)
	{
		if (is_unreserved((unsigned char) text[i]) || text[i] == ' ')
			continue;
		if (size > SIZE_MAX - 2)
			return SIZE_MAX;
		size += 2;
	}
	return size;
}

static bool
append_encoded(SlFormBuf *buf, const char *text, size_t len)
{
	static const char digits[] = "0123456789ABCDEF";
	char	   *out;
	size_t		i;

	if (!reserve(buf, encoded_size(text, len)))
		return false;

	out = buf->data + buf->len;
	for (i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) text[i];

		if (is_unreserved(c))
			*out++ = (char) c;
		else if (c == ' ')
			*out++ = '+';
		else
		{
			*out++ = '%';
			*out++ = digits[c >> 4];
			*out++ = digits[c & 15];
		}
	}
	*out = '\0';
	buf->len = (size_t) (out - buf->data);
	return true;
}

void
sl_form_init(SlFormBuf *buf, void *(*grow) (void *old, size_t size))
{
	memset(buf, 0, sizeof(*buf));
	buf->grow = grow;

	/* From here on there is always a string to hand out, if an empty one. */
	append(buf, "", 0);
}

/* Adds a level to the path; NULL when that has failed. */
static SlFormSegment *
enter(SlFormBuf *buf)
{
	if (buf->failed)
		return NULL;
	if (buf->path.depth >= SL_FORM_MAX_DEPTH)
	{
		fail(buf);
		return NULL;
	}
	return &buf->path.segment[buf->path.depth++];
}

void
sl_form_push(SlFormBuf *buf, const char *segment, size_t len)
{
	SlFormSegment *level = enter(buf);

	if (level == NULL)
		return;
	level->name = len > 0 ? segment : "";
	level->len = len;

	/* "=value" and "[b]=value" name no parameter. */
	if (buf->path.depth == 1 && len == 0)
		fail(buf);
}

void
sl_form_push_index(SlFormBuf *buf, unsigned idx)
{
	SlFormSegment *level = enter(buf);
	char	   *start;

	if (level == NULL)
		return;

	start = level->index + sizeof(level->index);
	do
	{
		*--start = (char) ('0' + idx % 10);
		idx /= 10;
	} while (idx > 0);

	level->len = (size_t) (level->index + sizeof(level->index) - start);
	memmove(level->index, start, level->len);
	level->name = NULL;			/* not a pointer into itself: paths may move */
}

void
sl_form_pop(SlFormBuf *buf)
{
	if (buf->failed)
		return;
	if (buf->path.depth == 0)
		fail(buf);
	else
		buf->path.depth--;
}

void
sl_form_value(SlFormBuf *buf, const char *value, size_t len)
{
	int			i;

	if (buf->failed)
		return;
	if (buf->path.depth == 0)
	{
		fail(buf);
		return;
	}

	if (buf->len > 0 && !append(buf, "&", 1))
		return;

	for (i = 0; i < buf->path.depth; i++)
	{
		const SlFormSegment *level = &buf->path.segment[i];
		const char *name = level->name ? level->name : level->index;

		if (i > 0 && !append(buf, "[", 1))
			return;
		if (!append_encoded(buf, name, level->len))
			return;
		if (i > 0 && !append(buf, "]", 1))
			return;
	}

	if (append(buf, "=", 1))
		append_encoded(buf, value, len);
}
