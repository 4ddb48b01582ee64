/*-------------------------------------------------------------------------
 *
 * json_scan.c
 *	  Goes through a JSON text in place, member by member.
 *
 * PostgreSQL's own parser builds the whole of a text, member by member, in
 * memory; of an event of 3 KB that is most of the work of taking it in, and
 * nine tenths of it are thrown away.
 *
 *-------------------------------------------------------------------------
 */
#include "json_scan.h"

#include <stdint.h>
#include <string.h>

void
sl_json_begin(SlJsonScan *s, const char *text, size_t len)
{
	memset(s, 0, sizeof(*s));
	s->at = text;
	s->end = text + len;
}

static bool
fail(SlJsonScan *s)
{
	s->failed = true;
	s->at = s->end;
	return false;
}

/* Pass over white space; the next byte, or -1 at the end. */
static int
peek(SlJsonScan *s)
{
	while (s->at < s->end &&
		   (*s->at == ' ' || *s->at == '\n' || *s->at == '\r' || *s->at == '\t'))
		s->at++;
	return s->at < s->end ? (unsigned char) *s->at : -1;
}

/* The value of four hexadecimal digits, or -1. */
static int
hex4(const char *p, const char *end)
{
	int			value = 0;
	int			i;

	if (end - p < 4)
		return -1;
	for (i = 0; i < 4; i++)
	{
		char		c = p[i];

		if (c >= '0' && c <= '9')
			value = value * 16 + (c - '0');
		else if (c >= 'a' && c <= 'f')
			value = value * 16 + (c - 'a' + 10);
		else if (c >= 'A' && c <= 'F')
			value = value * 16 + (c - 'A' + 10);
		else
			return -1;
	}
	return value;
}

static bool
is_high_surrogate(int unit)
{
	return unit >= 0xD800 && unit <= 0xDBFF;
}

static bool
is_low_surrogate(int unit)
{
	return unit >= 0xDC00 && unit <= 0xDFFF;
}

/*
 * Read the escape that begins with the backslash at p: its length, and the
 * character it stands for.  0 if it stands for none.
 */
static size_t
read_escape(const char *p, const char *end, uint32_t *character)
{
	static const char letters[] = "\"\\/bfnrt";
	static const char meanings[] = "\"\\/\b\f\n\r\t";
	const char *letter;
	int			unit;
	int			low;

	if (end - p < 2 || p[1] == '\0')
		return 0;
	letter = strchr(letters, p[1]);
	if (letter != NULL)
	{
		*character = (unsigned char) meanings[letter - letters];
		return 2;
	}
	if (p[1] != 'u')
		return 0;
	unit = hex4(p + 2, end);
	if (unit <= 0 || is_low_surrogate(unit))
		return 0;
	if (!is_high_surrogate(unit))
	{
		*character = (uint32_t) unit;
		return 6;
	}
	if (end - p < 12 || p[6] != '\\' || p[7] != 'u')
		return 0;
	low = hex4(p + 8, end);
	if (!is_low_surrogate(low))
		return 0;
	*character = 0x10000 + (((uint32_t) unit - 0xD800) << 10) + ((uint32_t) low - 0xDC00);
	return 12;
}

/*
 * The first byte from p on that is a quote, a backslash or a control character:
 * eight at a time, since most of an event is strings.  A byte b is less than n,
 * for n up to 128, if (b - n) has its high bit set and b has not; and equal to n
 * if (b ^ n) is less than 1.  A borrow makes the test fail for bytes above a
 * true one only, and what is found is looked at byte by byte.
 */
static const char *
skip_plain(const char *p, const char *end)
{
	const uint64_t ones = UINT64_C(0x0101010101010101);
	const uint64_t highs = UINT64_C(0x8080808080808080);

	while (end - p >= 8)
	{
		uint64_t	word;
		uint64_t	quote;
		uint64_t	backslash;

		memcpy(&word, p, 8);
		quote = word ^ (ones * '"');
		backslash = word ^ (ones * '\\');
		if ((((word - ones * 0x20) & ~word) | ((quote - ones) & ~quote) |
			 ((backslash - ones) & ~backslash)) & highs)
			break;
		p += 8;
	}
	while (p < end && *p != '"' && *p != '\\' && (unsigned char) *p >= 0x20)
		p++;
	return p;
}

/* A string, from its opening quote on; it becomes the token. */
static bool
scan_string(SlJsonScan *s)
{
	const char *p = s->at + 1;
	uint32_t	character;

	s->token = p;
	s->token_escaped = false;
	for (;;)
	{
		p = skip_plain(p, s->end);
		if (p >= s->end)
			return fail(s);
		if (*p == '"')
			break;
		if (*p == '\\')
		{
			size_t		len = read_escape(p, s->end, &character);

			if (len == 0)
				return fail(s);
			s->token_escaped = true;
			p += len;
			continue;
		}
		return fail(s);			/* a control character */
	}
	s->token_len = (size_t) (p - s->token);
	s->at = p + 1;
	return true;
}

static const char *
skip_digits(const char *p, const char *end)
{
	while (p < end && *p >= '0' && *p <= '9')
		p++;
	return p;
}

/* A number: -?(0|[1-9][0-9]*)(.[0-9]+)?([eE][-+]?[0-9]+)? */
static bool
scan_number(SlJsonScan *s)
{
	const char *p = s->at;
	const char *digits;

	if (*p == '-')
		p++;
	digits = p;
	p = skip_digits(p, s->end);
	if (p == digits || (*digits == '0' && p > digits + 1))
		return fail(s);
	if (p < s->end && *p == '.')
	{
		digits = ++p;
		p = skip_digits(p, s->end);
		if (p == digits)
			return fail(s);
	}
	if (p < s->end && (*p == 'e' || *p == 'E'))
	{
		p++;
		if (p < s->end && (*p == '-' || *p == '+'))
			p++;
		digits = p;
		p = skip_digits(p, s->end);
		if (p == digits)
			return fail(s);
	}
	s->token = s->at;
	s->token_len = (size_t) (p - s->at);
	s->token_escaped = false;
	s->at = p;
	return true;
}

static SlJsonType
scan_word(SlJsonScan *s, const char *word, SlJsonType type)
{
	size_t		len = strlen(word);

	if ((size_t) (s->end - s->at) < len || memcmp(s->at, word, len) != 0)
	{
		fail(s);
		return SL_JSON_NONE;
	}
	s->at += len;
	return type;
}

static SlJsonType
enter(SlJsonScan *s, SlJsonType type)
{
	if (++s->depth > SL_JSON_MAX_DEPTH)
	{
		fail(s);
		return SL_JSON_NONE;
	}
	s->at++;
	s->first = true;
	return type;
}

SlJsonType
sl_json_value(SlJsonScan *s)
{
	int			c = peek(s);

	if (c == '{')
		return enter(s, SL_JSON_OBJECT);
	if (c == '[')
		return enter(s, SL_JSON_ARRAY);
	s->first = false;
	switch (c)
	{
		case '"':
			return scan_string(s) ? SL_JSON_STRING : SL_JSON_NONE;
		case 't':
			return scan_word(s, "true", SL_JSON_TRUE);
		case 'f':
			return scan_word(s, "false", SL_JSON_FALSE);
		case 'n':
			return scan_word(s, "null", SL_JSON_NULL);
		case '-':
		case '0': case '1': case '2': case '3': case '4':
		case '5': case '6': case '7': case '8': case '9':
			return scan_number(s) ? SL_JSON_NUMBER : SL_JSON_NONE;
		default:
			fail(s);
			return SL_JSON_NONE;
	}
}

/*
 * Is there another member or element before the closing bracket?  Takes the
 * comma before it, or the bracket.
 */
static bool
next(SlJsonScan *s, char closing)
{
	int			c = peek(s);

	if (c == closing)
	{
		s->at++;
		s->depth--;
		s->first = false;
		return false;
	}
	if (s->first)
	{
		s->first = false;
		return c >= 0 || fail(s);
	}
	if (c != ',')
		return fail(s);
	s->at++;
	return true;
}

bool
sl_json_next_key(SlJsonScan *s)
{
	if (!next(s, '}'))
		return false;
	if (peek(s) != '"' || !scan_string(s))
		return fail(s);
	if (peek(s) != ':')
		return fail(s);
	s->at++;
	return true;
}

bool
sl_json_next_element(SlJsonScan *s)
{
	return next(s, ']');
}

void
sl_json_skip(SlJsonScan *s)
{
	switch (sl_json_value(s))
	{
		case SL_JSON_OBJECT:
			while (sl_json_next_key(s))
				sl_json_skip(s);
			break;
		case SL_JSON_ARRAY:
			while (sl_json_next_element(s))
				sl_json_skip(s);
			break;
		default:
			break;
	}
}

bool
sl_json_end(SlJsonScan *s)
{
	return !s->failed && s->depth == 0 && peek(s) < 0;
}

/* UTF-8 of a character; returns the number of bytes. */
static size_t
put_character(uint32_t c, char *out)
{
	if (c < 0x80)
	{
		out[0] = (char) c;
		return 1;
	}
	if (c < 0x800)
	{
		out[0] = (char) (0xC0 | (c >> 6));
		out[1] = (char) (0x80 | (c & 0x3F));
		return 2;
	}
	if (c < 0x10000)
	{
		out[0] = (char) (0xE0 | (c >> 12));
		out[1] = (char) (0x80 | ((c >> 6) & 0x3F));
		out[2] = (char) (0x80 | (c & 0x3F));
		return 3;
	}
	out[0] = (char) (0xF0 | (c >> 18));
	out[1] = (char) (0x80 | ((c >> 12) & 0x3F));
	out[2] = (char) (0x80 | ((c >> 6) & 0x3F));
	out[3] = (char) (0x80 | (c & 0x3F));
	return 4;
}

size_t
sl_json_unescape(const char *string, size_t len, char *out)
{
	const char *p = string;
	const char *end = string + len;
	char	   *o = out;

	while (p < end)
	{
		uint32_t	character;
		size_t		taken;

		if (*p != '\\')
		{
			*o++ = *p++;
			continue;
		}
		taken = read_escape(p, end, &character);
		if (taken == 0)
			break;				/* it did not pass the scan */
		o += put_character(character, o);
		p += taken;
	}
	return (size_t) (o - out);
}
