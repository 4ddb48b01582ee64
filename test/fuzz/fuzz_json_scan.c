/*-------------------------------------------------------------------------
 *
 * fuzz_json_scan.c
 *	  Arbitrary bytes against the scan of JSON texts.
 *
 * What the room takes must be exactly what a second reading of RFC 8259 takes,
 * written for clearness alone; whether a text is walked through member by
 * member or passed over in one go must come to the same; and what a string
 * stands for is never longer than what stands in the text.
 *
 *-------------------------------------------------------------------------
 */
#include "json_scan.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Unlike assert(), never compiled away. */
#define REQUIRE(condition) \
	do { \
		if (!(condition)) \
		{ \
			fprintf(stderr, "%s:%d: not true: %s\n", \
					__FILE__, __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---------- the second reading: what is left after a value, or NULL ---------- */

static const char *text_end;

static const char *
blanks(const char *p)
{
	while (p < text_end && strchr(" \t\r\n", *p) != NULL && *p != '\0')
		p++;
	return p;
}

static int
hex_digit(int c)
{
	static const char digits[] = "0123456789abcdef0123456789ABCDEF";
	const char *found = c == '\0' ? NULL : strchr(digits, c);

	return found == NULL ? -1 : (int) (found - digits) % 16;
}

/* "\uXXXX" at p as a number; -1 if it is none. */
static long
code_unit(const char *p)
{
	long		value = 0;
	int			i;

	if (text_end - p < 6 || p[0] != '\\' || p[1] != 'u')
		return -1;
	for (i = 2; i < 6; i++)
	{
		if (hex_digit(p[i]) < 0)
			return -1;
		value = value * 16 + hex_digit(p[i]);
	}
	return value;
}

static const char *
string_end(const char *p)
{
	if (p >= text_end || *p++ != '"')
		return NULL;
	while (p < text_end && *p != '"')
	{
		if ((unsigned char) *p < 32)
			return NULL;
		if (*p != '\\')
			p++;
		else if (text_end - p >= 2 && p[1] != '\0' && strchr("\"\\/bfnrt", p[1]) != NULL)
			p += 2;
		else
		{
			long		unit = code_unit(p);

			if (unit <= 0 || (unit >= 0xDC00 && unit < 0xE000))
				return NULL;
			p += 6;
			if (unit >= 0xD800 && unit < 0xDC00)
			{
				unit = code_unit(p);
				if (unit < 0xDC00 || unit >= 0xE000)
					return NULL;
				p += 6;
			}
		}
	}
	return p < text_end ? p + 1 : NULL;
}

static const char *
digits_end(const char *p)
{
	const char *begin = p;

	while (p < text_end && *p >= '0' && *p <= '9')
		p++;
	return p == begin ? NULL : p;
}

static const char *
number_end(const char *p)
{
	if (p < text_end && *p == '-')
		p++;
	if (p < text_end && *p == '0')
		p++;
	else if ((p = digits_end(p)) == NULL)
		return NULL;
	if (p < text_end && *p == '.' && (p = digits_end(p + 1)) == NULL)
		return NULL;
	if (p < text_end && (*p == 'e' || *p == 'E'))
	{
		p++;
		if (p < text_end && (*p == '+' || *p == '-'))
			p++;
		p = digits_end(p);
	}
	return p;
}

static const char *value_end(const char *p, int depth);

static const char *
members_end(const char *p, char closing, int depth)
{
	if (depth > SL_JSON_MAX_DEPTH)
		return NULL;
	p = blanks(p + 1);
	if (p < text_end && *p == closing)
		return p + 1;
	for (;;)
	{
		if (closing == '}')
		{
			if ((p = string_end(blanks(p))) == NULL)
				return NULL;
			p = blanks(p);
			if (p >= text_end || *p++ != ':')
				return NULL;
		}
		if ((p = value_end(blanks(p), depth)) == NULL)
			return NULL;
		p = blanks(p);
		if (p < text_end && *p == closing)
			return p + 1;
		if (p >= text_end || *p++ != ',')
			return NULL;
	}
}

static const char *
value_end(const char *p, int depth)
{
	static const char *const words[] = {"true", "false", "null"};
	size_t		i;

	if (p >= text_end)
		return NULL;
	if (*p == '{')
		return members_end(p, '}', depth + 1);
	if (*p == '[')
		return members_end(p, ']', depth + 1);
	if (*p == '"')
		return string_end(p);
	for (i = 0; i < 3; i++)
		if ((size_t) (text_end - p) >= strlen(words[i]) &&
			memcmp(p, words[i], strlen(words[i])) == 0)
			return p + strlen(words[i]);
	return number_end(p);
}

static bool
is_json(const char *text, size_t len)
{
	const char *p;

	text_end = text + len;
	p = value_end(blanks(text), 0);
	return p != NULL && blanks(p) == text_end;
}

/* ---------- the room ---------- */

static void
check_string(const SlJsonScan *s)
{
	char	   *out = malloc(s->token_len > 0 ? s->token_len : 1);
	size_t		n = sl_json_unescape(s->token, s->token_len, out);

	REQUIRE(n <= s->token_len);
	if (!s->token_escaped)
		REQUIRE(n == s->token_len && memcmp(out, s->token, n) == 0);
	else
		REQUIRE(n < s->token_len);
	free(out);
}

static void
walk(SlJsonScan *s)
{
	SlJsonType	type = sl_json_value(s);

	if (type == SL_JSON_STRING)
		check_string(s);
	else if (type == SL_JSON_OBJECT)
		while (sl_json_next_key(s))
		{
			check_string(s);
			walk(s);
		}
	else if (type == SL_JSON_ARRAY)
		while (sl_json_next_element(s))
			walk(s);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *) data;
	bool		expected = is_json(text, size);
	SlJsonScan	s;

	sl_json_begin(&s, text, size);
	walk(&s);
	REQUIRE(sl_json_end(&s) == expected);

	sl_json_begin(&s, text, size);
	sl_json_skip(&s);
	REQUIRE(sl_json_end(&s) == expected);
	return 0;
}
