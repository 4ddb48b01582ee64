/*-------------------------------------------------------------------------
 *
 * test_form_encoder.c
 *	  Form bodies with nested keys: the bytes, the limits, running out of
 *	  memory.
 *
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "form_encoder.h"

/* ---- memory that can run out ---- */

static int	grow_calls;
static int	grow_fails_at;		/* 0 = never */
static size_t grow_limit;		/* largest size granted; 0 = any */

static void *
grow(void *old, size_t size)
{
	void	   *fresh;

	grow_calls++;
	if (grow_fails_at > 0 && grow_calls >= grow_fails_at)
		return NULL;
	if (grow_limit > 0 && size > grow_limit)
		return NULL;

	/* A new place each time: nobody may keep a pointer to the old one. */
	fresh = malloc(size);
	if (fresh && old)
	{
		memcpy(fresh, old, strlen(old) + 1);
		free(old);
	}
	return fresh;
}

/*
 * Memory that always fails.  (The sizes in question could be asked for only
 * by an encoder that has lost count.)
 */
static void *
grow_never(void *old, size_t size)
{
	(void) old;
	(void) size;
	return NULL;
}

static void
start(SlFormBuf *buf)
{
	grow_calls = 0;
	sl_form_init(buf, grow);
}

static void
check_body(SlFormBuf *buf, const char *expected, int line)
{
	unit_check_int(buf->failed, 0, "failed", __FILE__, line);
	unit_check_str(buf->data, expected, "the body", __FILE__, line);
	unit_check_int((int64_t) buf->len, (int64_t) strlen(expected), "its length",
				   __FILE__, line);
	unit_check_int(buf->path.depth, 0, "the depth", __FILE__, line);
	free(buf->data);
}

#define CHECK_BODY(buf, expected) check_body((buf), (expected), __LINE__)

/* Takes a failed buffer away. */
#define CHECK_FAILED(buf) \
	do { \
		CHECK((buf)->failed); \
		free((buf)->data); \
	} while (0)

/*
 * Emits one value.  The path is a text of segments: "a.b" pushes two names,
 * "#7" an index.  Names are copied into allocations of their exact size, so
 * that the sanitizer sees any byte read beyond them.
 */
static void
emit(SlFormBuf *buf, const char *path, const char *value, size_t value_len)
{
	char	   *segments[32];
	char	   *exact = malloc(value_len > 0 ? value_len : 1);
	int			depth = 0;
	const char *end;

	for (;; path = end + 1)
	{
		size_t		len;

		end = strchr(path, '.');
		len = end ? (size_t) (end - path) : strlen(path);
		segments[depth] = NULL;
		if (path[0] == '#')
			sl_form_push_index(buf, (unsigned) strtoul(path + 1, NULL, 10));
		else
		{
			segments[depth] = malloc(len > 0 ? len : 1);
			memcpy(segments[depth], path, len);
			sl_form_push(buf, segments[depth], len);
		}
		depth++;
		if (end == NULL)
			break;
	}

	memcpy(exact, value, value_len);
	sl_form_value(buf, exact, value_len);
	free(exact);

	while (depth > 0)
	{
		sl_form_pop(buf);
		free(segments[--depth]);
	}
}

#define EMIT(buf, path, value) emit((buf), (path), (value), strlen(value))

/* ---- the bytes ---- */

static void
test_single_values(void)
{
	static const struct
	{
		const char *path;
		const char *value;
		const char *expected;
	}			cases[] = {
		{"amount", "1099", "amount=1099"},
		{"description", "", "description="},
		{"a.b", "v", "a[b]=v"},
		{"a.b.c", "v", "a[b][c]=v"},
		{"e.#0", "0", "e[0]=0"},
		{"a.#0.foo", "bar", "a[0][foo]=bar"},
		{"a.#0.#0", "1", "a[0][0]=1"},
		{"a.#10", "x", "a[10]=x"},
		{"a.#4294967295", "x", "a[4294967295]=x"},
		{"expand.", "latest_charge", "expand[]=latest_charge"},
		{"a..b", "x", "a[][b]=x"},
		{"metadata.c d", "\xc3\xa9&=", "metadata[c+d]=%C3%A9%26%3D"},

		/* each of these must lose its meaning */
		{"k", "a b", "k=a+b"},
		{"k", "a+b", "k=a%2Bb"},
		{"k", "a%20b", "k=a%2520b"},
		{"k", "a&b=c", "k=a%26b%3Dc"},
		{"k", "a;b", "k=a%3Bb"},
		{"k", "[0]", "k=%5B0%5D"},
		{"k", "\r\n", "k=%0D%0A"},
		{"k", "\t", "k=%09"},
		{"k", "\x7f", "k=%7F"},
		{"k", "#?/:@!$'()*,\"<>\\^`{|}",
		"k=%23%3F%2F%3A%40%21%24%27%28%29%2A%2C%22%3C%3E%5C%5E%60%7B%7C%7D"},
		{"k", "\xf0\x9f\x92\xb3", "k=%F0%9F%92%B3"},
		{"k", "\xff\x80", "k=%FF%80"},
		{"a&b", "x", "a%26b=x"},
		{"a=b", "x", "a%3Db=x"},
		{"a[b]", "x", "a%5Bb%5D=x"},
		{"m.a][b", "x", "m[a%5D%5Bb]=x"},
		{"m.a]=1&b[", "x", "m[a%5D%3D1%26b%5B]=x"},
		{"m.\xe2\x82\xac", "x", "m[%E2%82%AC]=x"},
		{" ", "x", "+=x"},

		/* and these keep it */
		{"k", "ABCXYZabcxyz0189-_.~", "k=ABCXYZabcxyz0189-_.~"},
		{"ABCXYZabcxyz0189-_~", "", "ABCXYZabcxyz0189-_~="},
	};
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(cases); i++)
	{
		SlFormBuf	buf;

		unit_case("value %zu", i);
		start(&buf);
		EMIT(&buf, cases[i].path, cases[i].value);
		CHECK_BODY(&buf, cases[i].expected);
	}
	unit_case(NULL);
}

/* Every byte, against the rule written another way. */
static void
test_every_byte(void)
{
	static const char kept[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
		"abcdefghijklmnopqrstuvwxyz0123456789-_.~";
	int			c;

	for (c = 0; c < 256; c++)
	{
		SlFormBuf	buf;
		char		byte = (char) c;
		char		expected[20];

		if (c == ' ')
			snprintf(expected, sizeof(expected), "k[+]=+");
		else if (c != 0 && strchr(kept, c))
			snprintf(expected, sizeof(expected), "k[%c]=%c", c, c);
		else
			snprintf(expected, sizeof(expected), "k[%%%02X]=%%%02X", c, c);

		unit_case("byte %d", c);
		start(&buf);
		sl_form_push(&buf, "k", 1);
		sl_form_push(&buf, &byte, 1);
		sl_form_value(&buf, &byte, 1);
		sl_form_pop(&buf);
		sl_form_pop(&buf);
		CHECK_BODY(&buf, expected);
	}
	unit_case(NULL);
}

static void
test_several_values(void)
{
	SlFormBuf	buf;

	start(&buf);
	CHECK_BODY(&buf, "");

	start(&buf);
	EMIT(&buf, "amount", "1000");
	EMIT(&buf, "currency", "eur");
	EMIT(&buf, "payment_method_types.#0", "card");
	EMIT(&buf, "payment_method_types.#1", "ideal");
	EMIT(&buf, "metadata.order", "A 7");
	CHECK_BODY(&buf, "amount=1000&currency=eur&payment_method_types[0]=card&"
			   "payment_method_types[1]=ideal&metadata[order]=A+7");

	/* several leaves below one branch, and an index reused */
	start(&buf);
	sl_form_push(&buf, "a", 1);
	sl_form_value(&buf, "0", 1);
	sl_form_push_index(&buf, 12);
	sl_form_value(&buf, "1", 1);
	sl_form_push(&buf, "b", 1);
	sl_form_value(&buf, "2", 1);
	sl_form_value(&buf, "3", 1);
	sl_form_pop(&buf);
	sl_form_value(&buf, "4", 1);
	sl_form_pop(&buf);
	sl_form_push_index(&buf, 3);
	sl_form_value(&buf, "5", 1);
	sl_form_pop(&buf);
	sl_form_pop(&buf);
	CHECK_BODY(&buf, "a=0&a[12]=1&a[12][b]=2&a[12][b]=3&a[12]=4&a[3]=5");

	/* a name, an index and a name again at one level */
	start(&buf);
	EMIT(&buf, "a.b", "1");
	EMIT(&buf, "a.#7", "2");
	EMIT(&buf, "a.c", "3");
	CHECK_BODY(&buf, "a[b]=1&a[7]=2&a[c]=3");

	/* entering and leaving emits nothing */
	start(&buf);
	sl_form_push(&buf, "empty", 5);
	sl_form_push_index(&buf, 0);
	sl_form_pop(&buf);
	sl_form_pop(&buf);
	CHECK_BODY(&buf, "");
}

static void
test_lengths_are_obeyed(void)
{
	SlFormBuf	buf;

	start(&buf);
	sl_form_push(&buf, "keymore", 3);
	sl_form_value(&buf, "valuemore", 5);
	sl_form_pop(&buf);
	CHECK_BODY(&buf, "key=value");

	start(&buf);
	sl_form_push(&buf, "a\0b", 3);
	sl_form_value(&buf, "c\0d", 3);
	sl_form_pop(&buf);
	CHECK_BODY(&buf, "a%00b=c%00d");

	/* nothing may stand for an empty text */
	start(&buf);
	sl_form_push(&buf, "a", 1);
	sl_form_push(&buf, NULL, 0);
	sl_form_value(&buf, NULL, 0);
	sl_form_pop(&buf);
	sl_form_pop(&buf);
	CHECK_BODY(&buf, "a[]=");
}

/* A copy of a buffer's path may be used where the original is gone. */
static void
test_index_survives_a_move(void)
{
	SlFormBuf  *first = malloc(sizeof(*first));
	SlFormBuf	second;

	start(first);
	sl_form_push(first, "a", 1);
	sl_form_push_index(first, 42);
	second = *first;
	memset(first, 'x', sizeof(*first));
	free(first);
	sl_form_value(&second, "v", 1);
	sl_form_pop(&second);
	sl_form_pop(&second);
	CHECK_BODY(&second, "a[42]=v");
}

/* ---- limits ---- */

static void
test_depth(void)
{
	int			depth;

	for (depth = 1; depth <= 20; depth++)
	{
		SlFormBuf	buf;
		char		expected[200] = "k";
		int			i;

		unit_case("depth %d", depth);
		start(&buf);
		for (i = 0; i < depth; i++)
		{
			if (i % 2 == 0)
				sl_form_push(&buf, "k", 1);
			else
				sl_form_push_index(&buf, 1);
			if (i > 0)
				strcat(expected, i % 2 == 0 ? "[k]" : "[1]");
		}
		strcat(expected, "=v");
		CHECK_INT(buf.failed != 0, depth > SL_FORM_MAX_DEPTH);
		sl_form_value(&buf, "v", 1);
		for (i = 0; i < depth; i++)
			sl_form_pop(&buf);
		if (depth <= SL_FORM_MAX_DEPTH)
			CHECK_BODY(&buf, expected);
		else
			CHECK_FAILED(&buf);
	}
	unit_case(NULL);
	CHECK_INT(SL_FORM_MAX_DEPTH, 16);
}

static void
test_misuse(void)
{
	SlFormBuf	buf;

	/* a value of nothing */
	start(&buf);
	sl_form_value(&buf, "v", 1);
	CHECK_FAILED(&buf);

	/* more pops than pushes */
	start(&buf);
	sl_form_pop(&buf);
	CHECK_FAILED(&buf);
	start(&buf);
	sl_form_push(&buf, "a", 1);
	sl_form_pop(&buf);
	sl_form_pop(&buf);
	CHECK_FAILED(&buf);

	/* a parameter without a name */
	start(&buf);
	sl_form_push(&buf, "", 0);
	CHECK_FAILED(&buf);
	start(&buf);
	sl_form_push(&buf, NULL, 0);
	sl_form_push(&buf, "b", 1);
	sl_form_value(&buf, "v", 1);
	CHECK_FAILED(&buf);
}

/* After a failure nothing is added, and the failure stays. */
static void
test_failure_latches(void)
{
	SlFormBuf	buf;

	start(&buf);
	EMIT(&buf, "a", "1");
	sl_form_pop(&buf);
	CHECK(buf.failed);
	EMIT(&buf, "b", "2");
	sl_form_push(&buf, "c", 1);
	sl_form_push_index(&buf, 1);
	sl_form_value(&buf, "3", 1);
	sl_form_pop(&buf);
	CHECK_STR(buf.data, "a=1");
	CHECK_INT((int64_t) buf.len, 3);
	CHECK_INT(buf.path.depth, 0);
	sl_form_push(&buf, "d", 1);
	CHECK_INT(buf.path.depth, 0);
	CHECK_FAILED(&buf);

	/* at the depth where it happened, whatever comes after */
	start(&buf);
	sl_form_push(&buf, "", 0);
	sl_form_pop(&buf);
	CHECK_INT(buf.path.depth, 1);
	CHECK_FAILED(&buf);
}

/* ---- memory ---- */

/* A body of many values, some long, so that it grows often. */
static void
emit_much(SlFormBuf *buf)
{
	static char text[700];
	char		path[40];
	int			i;

	memset(text, '%', sizeof(text));
	for (i = 0; i < 40; i++)
	{
		snprintf(path, sizeof(path), "metadata.key %d.#%d", i, i * 1000);
		emit(buf, path, text, (size_t) (i * 17));
	}
}

static void
test_growth(void)
{
	SlFormBuf	buf;
	char	   *expected = malloc(100000);
	size_t		len = 0;
	int			i;
	int			j;

	start(&buf);
	emit_much(&buf);
	for (i = 0; i < 40; i++)
	{
		len += (size_t) sprintf(expected + len, "%smetadata[key+%d][%d]=",
								i > 0 ? "&" : "", i, i * 1000);
		for (j = 0; j < i * 17; j++)
			len += (size_t) sprintf(expected + len, "%%25");
	}
	CHECK(buf.cap > buf.len);
	CHECK(grow_calls < 20);		/* doubling, not a call per piece */
	CHECK_BODY(&buf, expected);
	free(expected);
}

/* One value far longer than twice what there is. */
static void
test_long_value(void)
{
	static char text[50000];
	static char expected[3 + 3 * sizeof(text)] = "k=";
	SlFormBuf	buf;
	size_t		i;

	memset(text, '/', sizeof(text));
	for (i = 0; i < sizeof(text); i++)
		memcpy(expected + 2 + 3 * i, "%2F", 4);
	start(&buf);
	emit(&buf, "k", text, sizeof(text));
	CHECK_INT(grow_calls, 2);
	CHECK_BODY(&buf, expected);
}

static void
test_running_out_of_memory(void)
{
	int			needed;

	grow_fails_at = 0;
	for (needed = 1;; needed++)
	{
		SlFormBuf	buf;

		grow_fails_at = needed;
		start(&buf);
		emit_much(&buf);
		if (!buf.failed)
		{
			free(buf.data);
			break;
		}
		unit_case("grow call %d fails", needed);
		CHECK_INT(grow_calls, needed);	/* it isn't asked again */
		if (buf.data)
		{
			CHECK(buf.len < buf.cap);
			CHECK_INT((int64_t) strlen(buf.data), (int64_t) buf.len);
		}
		else
			CHECK_INT((int64_t) buf.len, 0);
		free(buf.data);
	}
	grow_fails_at = 0;
	unit_case(NULL);
	CHECK(needed > 5);
}

/* Whatever capacity is refused, nothing is written beyond the one granted. */
static void
test_memory_limit(void)
{
	for (grow_limit = 256; grow_limit < 8192; grow_limit += 256)
	{
		SlFormBuf	buf;

		unit_case("at most %zu bytes", grow_limit);
		start(&buf);
		emit_much(&buf);
		CHECK(buf.failed);
		CHECK(buf.cap <= grow_limit && buf.len < buf.cap);
		free(buf.data);
	}
	grow_limit = 0;
	unit_case(NULL);
}

/* Sizes near the end of the address space must not wrap round. */
static void
test_size_overflow(void)
{
	SlFormBuf	buf;
	char		small[] = "k";
	size_t		len;

	sl_form_init(&buf, grow_never);
	CHECK(buf.failed && buf.data == NULL);

	for (len = SIZE_MAX - 3; len != 0; len++)
	{
		unit_case("%zu bytes in use", len);
		memset(&buf, 0, sizeof(buf));
		buf.grow = grow_never;
		buf.data = small;
		buf.len = buf.cap = len;
		sl_form_push(&buf, "k", 1);
		sl_form_value(&buf, "v", 1);
		CHECK(buf.failed && buf.data == small && buf.len == len);
	}
	unit_case(NULL);
}

int
main(void)
{
	test_single_values();
	test_every_byte();
	test_several_values();
	test_lengths_are_obeyed();
	test_index_survives_a_move();
	test_depth();
	test_misuse();
	test_failure_latches();
	test_growth();
	test_long_value();
	test_running_out_of_memory();
	test_memory_limit();
	test_size_overflow();
	return unit_done();
}
