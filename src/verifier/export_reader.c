/*-------------------------------------------------------------------------
 *
 * export_reader.c
 *	  Reads what audit_export() writes: lines of JSON, or CSV.
 *
 * Which of the two it is the first byte says: JSON's lines begin with a brace.
 * A whole record is brought into the buffer and taken apart in place, for no
 * value is longer than it was when quoted.
 *
 * In CSV a field without quotes that is empty is null, and one with quotes is
 * not, as COPY has it.
 *
 *-------------------------------------------------------------------------
 */
#include "export_reader.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK 65536

static const char *const names[SL_EXPORT_NFIELDS] = {
	[SL_AUDIT_PAYMENT_ID] = "payment_id",
	[SL_AUDIT_SEQ] = "seq",
	[SL_AUDIT_FROM_STATE] = "from_state",
	[SL_AUDIT_TO_STATE] = "to_state",
	[SL_AUDIT_AT] = "at",
	[SL_AUDIT_SOURCE] = "source",
	[SL_AUDIT_EVENT_ID] = "event_id",
	[SL_AUDIT_EVENT_TYPE] = "event_type",
	[SL_AUDIT_EVENT_CREATED] = "event_created",
	[SL_AUDIT_ROLE] = "role",
	[SL_AUDIT_NOTE] = "note",
	[SL_AUDIT_AMOUNT] = "amount",
	[SL_AUDIT_CURRENCY] = "currency",
	[SL_AUDIT_LIVEMODE] = "livemode",
	[SL_EXPORT_RECORD] = "record",
	[SL_EXPORT_TEXT] = "text",
	[SL_EXPORT_POSITION] = "position",
	[SL_EXPORT_PREVIOUS_HASH] = "previous_hash",
	[SL_EXPORT_HASH] = "hash",
};

/* CSV's columns in their order, and the line that says so. */
static const int columns[SL_EXPORT_NFIELDS] = {
	SL_EXPORT_RECORD, SL_EXPORT_TEXT, SL_EXPORT_POSITION,
	SL_AUDIT_PAYMENT_ID, SL_AUDIT_SEQ, SL_AUDIT_FROM_STATE, SL_AUDIT_TO_STATE,
	SL_AUDIT_AT, SL_AUDIT_SOURCE, SL_AUDIT_EVENT_ID, SL_AUDIT_EVENT_TYPE,
	SL_AUDIT_EVENT_CREATED, SL_AUDIT_ROLE, SL_AUDIT_NOTE, SL_AUDIT_AMOUNT,
	SL_AUDIT_CURRENCY, SL_AUDIT_LIVEMODE, SL_EXPORT_PREVIOUS_HASH,
	SL_EXPORT_HASH
};
static const char csv_header[] =
"record,text,position,payment_id,seq,from_state,to_state,at,source,event_id,"
"event_type,event_created,role,note,amount,currency,livemode,previous_hash,hash";

typedef enum Format
{
	UNKNOWN,
	JSON,
	CSV
} Format;

struct SlExportReader
{
	SlExportSource source;
	void	   *arg;
	Format		format;
	char	   *buf;
	size_t		size;
	size_t		len;			/* bytes in it */
	size_t		used;			/* of these, read already */
	bool		at_end;			/* the source has no more */
	bool		ended;			/* and there is no record left */
	unsigned long line;			/* of the record at hand */
	unsigned long lines;		/* line ends in it */
	const char *error;
};

/* A record that is taken apart. */
typedef struct Parser
{
	SlExportReader *r;
	char	   *p;
	char	   *end;
} Parser;

SlExportReader *
sl_export_reader_new(SlExportSource source, void *arg)
{
	SlExportReader *r = calloc(1, sizeof(SlExportReader));

	if (r == NULL)
		return NULL;
	r->source = source;
	r->arg = arg;
	r->lines = 1;
	return r;
}

void
sl_export_reader_free(SlExportReader *r)
{
	if (r == NULL)
		return;
	free(r->buf);
	free(r);
}

const char *
sl_export_reader_error(const SlExportReader *r)
{
	return r->error == NULL ? "" : r->error;
}

unsigned long
sl_export_reader_line(const SlExportReader *r)
{
	return r->line;
}

static bool
fail(SlExportReader *r, const char *error)
{
	if (r->error == NULL)
		r->error = error;
	return false;
}

/* ---------- bytes ---------- */

/* Have more bytes in the buffer, unless there are none. */
static bool
fill(SlExportReader *r)
{
	long		n;

	if (r->used > 0)
	{
		memmove(r->buf, r->buf + r->used, r->len - r->used);
		r->len -= r->used;
		r->used = 0;
	}
	if (r->len > SL_EXPORT_RECORD_MAX)
		return fail(r, "the record is too long");
	if (r->size - r->len < CHUNK)
	{
		size_t		size = r->size == 0 ? 2 * CHUNK : 2 * r->size;
		char	   *buf = realloc(r->buf, size);

		if (buf == NULL)
			return fail(r, "out of memory");
		r->buf = buf;
		r->size = size;
	}
	n = r->source(r->arg, r->buf + r->len, r->size - r->len);
	if (n < 0)
		return fail(r, "it could not be read");
	r->at_end = n == 0;
	r->len += (size_t) n;
	return true;
}

/*
 * Find the end of the record at hand: *len bytes without its line end.  In CSV a
 * line end within quotes is part of a value.
 */
static bool
find_record(SlExportReader *r, size_t *len)
{
	bool		quoted = false;
	size_t		i = 0;

	for (;;)
	{
		for (; r->used + i < r->len; i++)
		{
			char		c = r->buf[r->used + i];

			if (c == '"' && r->format == CSV)
				quoted = !quoted;
			else if (c == '\n')
			{
				r->lines++;
				if (!quoted)
				{
					*len = i;
					return true;
				}
			}
		}
		if (r->at_end)
		{
			*len = i;
			r->ended = i == 0;
			return !quoted || fail(r, "a quote is not closed");
		}
		if (!fill(r))
			return false;
	}
}

/* ---------- JSON ---------- */

static void
skip_blanks(Parser *p)
{
	while (p->p < p->end && (*p->p == ' ' || *p->p == '\t' || *p->p == '\r'))
		p->p++;
}

static bool
take(Parser *p, char c)
{
	skip_blanks(p);
	if (p->p == p->end || *p->p != c)
		return false;
	p->p++;
	return true;
}

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Four hexadecimal digits; -1 if they are not there. */
static long
hex4(Parser *p)
{
	long		value = 0;
	int			i;

	if (p->end - p->p < 4)
		return -1;
	for (i = 0; i < 4; i++)
	{
		char		c = *p->p++;

		if (is_digit(c))
			value = value * 16 + (c - '0');
		else if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'))
			value = value * 16 + ((c | 0x20) - 'a' + 10);
		else
			return -1;
	}
	return value;
}

/* Writes a code point as UTF-8, which is no longer than its escape. */
static char *
put_utf8(char *out, long c)
{
	if (c < 0x80)
		*out++ = (char) c;
	else if (c < 0x800)
	{
		*out++ = (char) (0xC0 | c >> 6);
		*out++ = (char) (0x80 | (c & 0x3F));
	}
	else if (c < 0x10000)
	{
		*out++ = (char) (0xE0 | c >> 12);
		*out++ = (char) (0x80 | (c >> 6 & 0x3F));
		*out++ = (char) (0x80 | (c & 0x3F));
	}
	else
	{
		*out++ = (char) (0xF0 | c >> 18);
		*out++ = (char) (0x80 | (c >> 12 & 0x3F));
		*out++ = (char) (0x80 | (c >> 6 & 0x3F));
		*out++ = (char) (0x80 | (c & 0x3F));
	}
	return out;
}

/* What follows "\u": a code point, or two surrogates that make one. */
static char *
unicode_escape(Parser *p, char *out)
{
	long		c = hex4(p);

	if (c >= 0xD800 && c < 0xDC00)
	{
		long		low;

		if (p->end - p->p < 2 || p->p[0] != '\\' || p->p[1] != 'u')
			return NULL;
		p->p += 2;
		low = hex4(p);
		if (low < 0xDC00 || low > 0xDFFF)
			return NULL;
		c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
	}
	else if (c <= 0 || (c >= 0xDC00 && c <= 0xDFFF))
		return NULL;
	return put_utf8(out, c);
}

/* What follows a backslash. */
static char *
escape(Parser *p, char *out)
{
	static const char from[] = "\"\\/bfnrt";
	static const char to[] = "\"\\/\b\f\n\r\t";
	const char *found;
	char		c;

	if (p->p == p->end)
		return NULL;
	c = *p->p++;
	if (c == 'u')
		return unicode_escape(p, out);
	found = c == '\0' ? NULL : strchr(from, c);
	if (found == NULL)
		return NULL;
	*out++ = to[found - from];
	return out;
}

/* A string, the opening quote already taken; unescaped where it stands. */
static bool
json_string(Parser *p, SlExportField *out)
{
	char	   *to = p->p;

	out->bytes = p->p;
	while (p->p < p->end && *p->p != '"')
	{
		if ((unsigned char) *p->p < 0x20)
			return fail(p->r, "a string holds a control character");
		if (*p->p != '\\')
			*to++ = *p->p++;
		else
		{
			p->p++;
			to = escape(p, to);
			if (to == NULL)
				return fail(p->r, "a string holds a malformed escape");
		}
	}
	if (p->p == p->end)
		return fail(p->r, "a string does not end");
	p->p++;
	out->len = (size_t) (to - out->bytes);
	return true;
}

static bool
is_word(const SlExportField *field, const char *word)
{
	return field->len == strlen(word) && memcmp(field->bytes, word, field->len) == 0;
}

static bool
is_integer(const SlExportField *field)
{
	size_t		i = field->len > 0 && field->bytes[0] == '-' ? 1 : 0;

	if (i == field->len)
		return false;
	for (; i < field->len; i++)
		if (!is_digit(field->bytes[i]))
			return false;
	return true;
}

/* A string, an integer, true, false or null. */
static bool
json_value(Parser *p, SlExportField *out)
{
	if (take(p, '"'))
		return json_string(p, out);
	out->bytes = p->p;
	while (p->p < p->end &&
		   (is_digit(*p->p) || *p->p == '-' || (*p->p >= 'a' && *p->p <= 'z')))
		p->p++;
	out->len = (size_t) (p->p - out->bytes);
	if (is_word(out, "null"))
		*out = (SlExportField) {NULL, 0};
	else if (!is_word(out, "true") && !is_word(out, "false") && !is_integer(out))
		return fail(p->r, "a value is neither a string, an integer, true, false nor null");
	return true;
}

static int
field_by_name(const SlExportField *name)
{
	int			i;

	for (i = 0; i < SL_EXPORT_NFIELDS; i++)
		if (is_word(name, names[i]))
			return i;
	return -1;
}

static bool
parse_json(Parser *p, SlExportRecord *record)
{
	bool		seen[SL_EXPORT_NFIELDS] = {false};
	SlExportField name;
	int			field;

	if (!take(p, '{'))
		return fail(p->r, "it is no JSON object");
	do
	{
		if (!take(p, '"'))
			return fail(p->r, "a name is expected");
		if (!json_string(p, &name))
			return false;
		field = field_by_name(&name);
		if (field < 0)
			return fail(p->r, "an export has no field of that name");
		if (seen[field])
			return fail(p->r, "a field is there twice");
		seen[field] = true;
		if (!take(p, ':'))
			return fail(p->r, "a colon is expected");
		if (!json_value(p, &record->fields[field]))
			return false;
	} while (take(p, ','));
	if (!take(p, '}'))
		return fail(p->r, "a comma or a closing brace is expected");
	skip_blanks(p);
	return p->p == p->end || fail(p->r, "something follows the object");
}

/* ---------- CSV ---------- */

/* The next field, up to its comma or the end. */
static bool
csv_field(Parser *p, SlExportField *out)
{
	char	   *to;

	if (p->p == p->end || *p->p != '"')
	{
		out->bytes = p->p;
		while (p->p < p->end && *p->p != ',' && *p->p != '"')
			p->p++;
		out->len = (size_t) (p->p - out->bytes);
		if (p->p < p->end && *p->p == '"')
			return fail(p->r, "a quote stands in the middle of a field");
		if (out->len == 0)
			out->bytes = NULL;
		return true;
	}
	out->bytes = to = ++p->p;
	for (;;)
	{
		if (p->p == p->end)
			return fail(p->r, "a quote is not closed");
		if (*p->p == '"')
		{
			p->p++;
			if (p->p == p->end || *p->p != '"')
				break;
		}
		*to++ = *p->p++;
	}
	out->len = (size_t) (to - out->bytes);
	return p->p == p->end || *p->p == ',' ||
		fail(p->r, "something follows a closing quote");
}

static bool
parse_csv(Parser *p, SlExportRecord *record)
{
	int			i;

	for (i = 0; i < SL_EXPORT_NFIELDS; i++)
	{
		if (i > 0 && (p->p == p->end || *p->p++ != ','))
			return fail(p->r, "there are too few fields");
		if (!csv_field(p, &record->fields[columns[i]]))
			return false;
	}
	return p->p == p->end || fail(p->r, "there are too many fields");
}

/* ---------- records ---------- */

/* Take the record at hand out of the buffer, without its line end. */
static bool
take_record(SlExportReader *r, Parser *p)
{
	size_t		len;

	if (!find_record(r, &len))
		return false;
	p->r = r;
	p->p = r->buf + r->used;
	p->end = p->p + len;
	r->used += len;
	if (r->used < r->len)
		r->used++;
	if (r->format == CSV && len > 0 && p->end[-1] == '\r')
		p->end--;
	return true;
}

/* What is it?  CSV says so by its first line, which is none of its records. */
static bool
find_format(SlExportReader *r)
{
	Parser		p;

	r->line = 1;
	if (!fill(r))
		return false;
	if (r->len > 0 && r->buf[0] == '{')
	{
		r->format = JSON;
		return true;
	}
	r->format = CSV;
	if (!take_record(r, &p))
		return false;
	if ((size_t) (p.end - p.p) != strlen(csv_header) ||
		memcmp(p.p, csv_header, strlen(csv_header)) != 0)
		return fail(r, "it is no export: neither JSON nor CSV with the header of one");
	return true;
}

SlExportResult
sl_export_read(SlExportReader *r, SlExportRecord *record)
{
	Parser		p;

	memset(record, 0, sizeof(*record));
	if (r->format == UNKNOWN && !find_format(r))
		return SL_EXPORT_FAILED;
	r->line = r->lines;
	if (!take_record(r, &p))
		return SL_EXPORT_FAILED;
	if (r->ended)
		return SL_EXPORT_END;
	return (r->format == JSON ? parse_json(&p, record) : parse_csv(&p, record)) ?
		SL_EXPORT_OK : SL_EXPORT_FAILED;
}
