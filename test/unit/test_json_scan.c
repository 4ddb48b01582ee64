/*-------------------------------------------------------------------------
 *
 * test_json_scan.c
 *	  What the scan takes for JSON, what it finds in it, and what it passes over.
 *
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "json_scan.h"

/* A copy with nothing behind it, so that a byte too far is an error of ASan's. */
static char *
exact_copy(const char *text, size_t len)
{
	char	   *copy = malloc(len > 0 ? len : 1);

	memcpy(copy, text, len);
	return copy;
}

static bool
is_json_n(const char *text, size_t len)
{
	char	   *copy = exact_copy(text, len);
	SlJsonScan	s;
	bool		result;

	sl_json_begin(&s, copy, len);
	sl_json_skip(&s);
	result = sl_json_end(&s);
	free(copy);
	return result;
}

static const char *const good[] = {
	"{}", "[]", "\"\"", "0", "-0", "1", "-1", "10", "0.5", "-0.5", "1e5", "1E5", "1e+5",
	"1e-5", "1.5e10", "0e0", "1e999999", "12345678901234567890123456789", "true",
	"false", "null", " {} ", "\t\n\r []\n", "[1]", "[1,2]", "[ 1 , 2 ]", "[[]]",
	"[{}]", "{\"a\":1}", "{ \"a\" : 1 , \"b\" : [ ] }", "{\"a\":{\"b\":{\"c\":[]}}}",
	"{\"\":0}", "{\"a\":1,\"a\":2}", "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\u0041\"",
	"\"\\u00e9\"", "\"\\u20AC\"", "\"\\ud83d\\ude00\"", "\"\\uD83D\\uDE00\"",
	"\"\\ufffe\"", "\"\\u007f\"", "\"\x7f\"", "\"\xc3\xa9\"", "\"12345678\"",
	"\"1234567\\n\"", "\"12345678\\\\\"", "\"a slash / alone\"",
	"[true,false,null,\"x\",1,{},[]]", "\"\\u0001\"", "{\"a\\u0062c\":1}"
};

static const char *const bad[] = {
	"", " ", "{", "}", "[", "]", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "[1}", "{]",
	"{1:2}", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{,\"a\":1}", "{\"a\":1 \"b\":2}",
	"{\"a\" 1}", "{a:1}", "{'a':1}", "{\"a\":1}}", "{}{}", "{} x", "[] []", "1 2",
	"01", "-", "+1", "1.", ".5", "-.5", "1e", "1e+", "1.e5", "0x10", "1_000", "1,2",
	"--1", "00", "-01", "NaN", "Infinity", "tru", "truex", "True", "nul", "nulll",
	"fals", "\"", "\"a", "\"\\", "\"\\\"", "\"\\x\"", "\"\\u\"", "\"\\u12\"",
	"\"\\u123\"", "\"\\u123g\"", "\"\\u0000\"", "\"\\ud800\"", "\"\\ud800x\"",
	"\"\\ud800\\n\"", "\"\\ud800\\u0041\"", "\"\\udc00\"", "\"\\udc00\\ud800\"",
	"\"\\ud800\\ud800\"", "\"\\ud83d\\u\"", "\"\n\"", "\"\t\"", "\"\x1f\"",
	"\"12345678\n\"", "\"1234567\x01\"", "\"\\'\"", "\"\\U0041\"", "/**/1", "1//",
	"\xef\xbb\xbf{}", "\f{}", "\v1", "[1,,2]", "{\"a\"::1}", "[\"a\":1]", "'a'", "undefined"
};

static void
test_grammar(void)
{
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(good); i++)
	{
		unit_case("good: %s", good[i]);
		CHECK(is_json_n(good[i], strlen(good[i])));
	}
	for (i = 0; i < UNIT_LENGTH(bad); i++)
	{
		unit_case("bad: %s", bad[i]);
		CHECK(!is_json_n(bad[i], strlen(bad[i])));
	}
	unit_case("NUL");
	CHECK(!is_json_n("{}\0", 3));
	CHECK(!is_json_n("\0{}", 3));
	CHECK(!is_json_n("\"\0\"", 3));
	CHECK(!is_json_n("\"\\\0\"", 4));
	unit_case(NULL);
}

/* What was cut short is wrong, wherever the cut is. */
static void
test_cuts(void)
{
	static const char text[] = "{\"a\": [1.5e3, \"x\\u00e9\\ud83d\\ude00\", true, null], \"b\": {}}";
	size_t		len;

	CHECK(is_json_n(text, strlen(text)));
	for (len = 0; len < strlen(text); len++)
	{
		unit_case("%zu bytes", len);
		CHECK(!is_json_n(text, len));
	}
	unit_case(NULL);
}

/* Quotes and the like at every place of the eight bytes that are taken at once. */
static void
test_strides(void)
{
	static const char special[] = {'"', '\\', '\x1f', '\x00'};
	char		text[40];
	size_t		len;
	size_t		at;
	size_t		i;

	for (len = 0; len < 24; len++)
		for (at = 0; at < len; at++)
			for (i = 0; i < sizeof(special); i++)
			{
				memset(text, (at & 1) ? 'x' : (char) 0xC3, sizeof(text));
				text[0] = '"';
				text[1 + at] = special[i];
				text[1 + len] = '"';
				unit_case("byte %d at %zu of %zu", special[i], at, len);
				/* a backslash makes an escape, and before a quote leaves the string open */
				CHECK(!is_json_n(text, len + 2));
			}
	for (len = 0; len < 24; len++)
	{
		memset(text, '!', sizeof(text));
		text[0] = text[1 + len] = '"';
		unit_case("plain, %zu", len);
		CHECK(is_json_n(text, len + 2));
	}
	unit_case(NULL);
}

static void
test_depth(void)
{
	int			depth;
	int			kind;

	for (kind = 0; kind < 2; kind++)
		for (depth = SL_JSON_MAX_DEPTH - 1; depth <= SL_JSON_MAX_DEPTH + 1; depth++)
		{
			char	   *text = malloc(6 * (size_t) depth + 2);
			char	   *p = text;
			int			i;

			for (i = 0; i < depth; i++)
				p += sprintf(p, kind == 0 ? "[" : "{\"a\":");
			*p++ = '1';
			for (i = 0; i < depth; i++)
				*p++ = kind == 0 ? ']' : '}';
			unit_case("depth %d", depth);
			CHECK_INT(is_json_n(text, (size_t) (p - text)), depth <= SL_JSON_MAX_DEPTH);
			free(text);
		}
	unit_case(NULL);
}

static bool
token_is(const SlJsonScan *s, const char *expected)
{
	return s->token_len == strlen(expected) &&
		memcmp(s->token, expected, s->token_len) == 0;
}

/* A walk through an object, with some members taken, some passed over. */
static void
test_walk(void)
{
	static const char text[] =
	"{\"id\": \"evt_1\", \"skip\": {\"a\": [1, {\"b\": \"}\"}], \"c\": \"]\"}, \"n\": -12.5e3,"
	" \"yes\": true, \"no\": false, \"nothing\": null, \"list\": [1, \"two\", [3], {\"four\": 4}],"
	" \"e\\u0073c\": \"a\\nb\", \"last\": {}}";
	SlJsonScan	s;
	int			elements = 0;

	sl_json_begin(&s, text, strlen(text));
	CHECK_INT(sl_json_value(&s), SL_JSON_OBJECT);
	CHECK(sl_json_next_key(&s) && token_is(&s, "id"));
	CHECK_INT(sl_json_value(&s), SL_JSON_STRING);
	CHECK(token_is(&s, "evt_1") && !s.token_escaped);
	CHECK(sl_json_next_key(&s) && token_is(&s, "skip"));
	sl_json_skip(&s);
	CHECK(sl_json_next_key(&s) && token_is(&s, "n"));
	CHECK_INT(sl_json_value(&s), SL_JSON_NUMBER);
	CHECK(token_is(&s, "-12.5e3"));
	CHECK(sl_json_next_key(&s) && token_is(&s, "yes"));
	CHECK_INT(sl_json_value(&s), SL_JSON_TRUE);
	CHECK(sl_json_next_key(&s) && token_is(&s, "no"));
	CHECK_INT(sl_json_value(&s), SL_JSON_FALSE);
	CHECK(sl_json_next_key(&s) && token_is(&s, "nothing"));
	CHECK_INT(sl_json_value(&s), SL_JSON_NULL);
	CHECK(sl_json_next_key(&s) && token_is(&s, "list"));
	CHECK_INT(sl_json_value(&s), SL_JSON_ARRAY);
	while (sl_json_next_element(&s))
	{
		sl_json_skip(&s);
		elements++;
	}
	CHECK_INT(elements, 4);
	CHECK(sl_json_next_key(&s) && token_is(&s, "e\\u0073c") && s.token_escaped);
	CHECK_INT(sl_json_value(&s), SL_JSON_STRING);
	CHECK(token_is(&s, "a\\nb") && s.token_escaped);
	CHECK(sl_json_next_key(&s) && token_is(&s, "last") && !s.token_escaped);
	CHECK_INT(sl_json_value(&s), SL_JSON_OBJECT);
	CHECK(!sl_json_next_key(&s));
	CHECK(!sl_json_next_key(&s));
	CHECK(sl_json_end(&s));
}

/* After an error there is no more, and it is not forgotten. */
static void
test_errors_last(void)
{
	static const char text[] = "{\"a\": 1, \"b\": tru, \"c\": 3}";
	SlJsonScan	s;
	int			keys = 0;

	sl_json_begin(&s, text, strlen(text));
	CHECK_INT(sl_json_value(&s), SL_JSON_OBJECT);
	while (sl_json_next_key(&s))
	{
		keys++;
		sl_json_skip(&s);
	}
	CHECK_INT(keys, 2);
	CHECK_INT(sl_json_value(&s), SL_JSON_NONE);
	CHECK(!sl_json_next_key(&s));
	CHECK(!sl_json_next_element(&s));
	CHECK(!sl_json_end(&s));

	/* an object that was left before its end is no end */
	sl_json_begin(&s, "{}", 2);
	CHECK_INT(sl_json_value(&s), SL_JSON_OBJECT);
	CHECK(!sl_json_end(&s));
}

static void
test_unescape(void)
{
	static const struct
	{
		const char *string;
		const char *meaning;
	}			rows[] = {
		{"", ""}, {"plain", "plain"}, {"\\\"\\\\\\/", "\"\\/"},
		{"\\b\\f\\n\\r\\t", "\b\f\n\r\t"}, {"a\\nb", "a\nb"}, {"\\u0041\\u0062", "Ab"},
		{"\\u00e9", "\xc3\xa9"}, {"\\u07ff\\u0800", "\xdf\xbf\xe0\xa0\x80"},
		{"\\u20AC", "\xe2\x82\xac"}, {"\\uffff", "\xef\xbf\xbf"},
		{"\\ud800\\udc00", "\xf0\x90\x80\x80"}, {"\\ud83d\\ude00", "\xf0\x9f\x98\x80"},
		{"\\udbff\\udfff", "\xf4\x8f\xbf\xbf"}, {"x\\u0001y", "x\x01y"},
		{"\\\\u0041", "\\u0041"}, {"\xc3\xa9\\n\xc3\xa9", "\xc3\xa9\n\xc3\xa9"}
	};
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(rows); i++)
	{
		size_t		len = strlen(rows[i].string);
		char	   *out = malloc(len > 0 ? len : 1);
		size_t		n = sl_json_unescape(rows[i].string, len, out);

		unit_case("%s", rows[i].string);
		CHECK(n == strlen(rows[i].meaning) && memcmp(out, rows[i].meaning, n) == 0);
		free(out);
	}
	unit_case(NULL);
}

int
main(void)
{
	test_grammar();
	test_cuts();
	test_strides();
	test_depth();
	test_walk();
	test_errors_last();
	test_unescape();
	return unit_done();
}
