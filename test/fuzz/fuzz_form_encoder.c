/*-------------------------------------------------------------------------
 *
 * fuzz_form_encoder.c
 *	  Arbitrary walks over a tree against the form encoder.
 *
 * Input: a byte that says which allocation fails, then operations.  The body
 * that results is taken apart again, first at its separators and brackets and
 * only then decoded, and must give back exactly the names and values that went
 * in.
 *
 *-------------------------------------------------------------------------
 */
#include "form_encoder.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LEVELS	64
#define MAX_VALUES	256

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

typedef struct Text
{
	char	   *bytes;			/* an allocation of exactly len bytes */
	size_t		len;
} Text;

/* One emitted value with copies of the names above it. */
typedef struct Emitted
{
	Text		name[SL_FORM_MAX_DEPTH];
	int			depth;
	Text		value;
} Emitted;

static struct
{
	Text		level[MAX_LEVELS];
	int			depth;
	Emitted		emitted[MAX_VALUES];
	int			n;
	bool		failed;			/* must the encoder have failed? */
}			model;

static int	grow_calls;
static int	grow_fails_at;		/* 0 = never */
static bool grow_failed;
static size_t granted;

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Always moves, and has exactly the size that was asked for. */
static void *
grow(void *old, size_t size)
{
	char	   *fresh;

	grow_calls++;
	if (grow_fails_at > 0 && grow_calls >= grow_fails_at)
	{
		grow_failed = true;
		return NULL;
	}
	fresh = malloc(size);
	REQUIRE(fresh != NULL && size > granted);
	if (old)
	{
		memcpy(fresh, old, granted);
		free(old);
	}
	granted = size;
	return fresh;
}

static Text
copy_text(const void *bytes, size_t len)
{
	Text		text;

	text.bytes = malloc(len > 0 ? len : 1);
	text.len = len;
	memcpy(text.bytes, bytes, len);
	return text;
}

/* ---- the operations ---- */

static void
push(SlFormBuf *buf, Text name, bool is_index, unsigned idx)
{
	if (is_index)
		sl_form_push_index(buf, idx);
	else
		sl_form_push(buf, name.bytes, name.len);

	if (model.depth >= SL_FORM_MAX_DEPTH || (model.depth == 0 && name.len == 0))
		model.failed = true;
	model.level[model.depth++] = name;
}

static void
push_index(SlFormBuf *buf, unsigned idx)
{
	char		digits[12];
	int			len = snprintf(digits, sizeof(digits), "%u", idx);

	push(buf, copy_text(digits, (size_t) len), true, idx);
}

static void
pop(SlFormBuf *buf)
{
	sl_form_pop(buf);
	if (model.depth == 0)
		model.failed = true;
	else
		free(model.level[--model.depth].bytes);
}

static void
value(SlFormBuf *buf, Text text)
{
	Emitted    *e = &model.emitted[model.n];
	int			i;

	sl_form_value(buf, text.bytes, text.len);
	if (model.depth == 0)
		model.failed = true;
	if (model.failed)
	{
		free(text.bytes);
		return;
	}
	for (i = 0; i < model.depth; i++)
		e->name[i] = copy_text(model.level[i].bytes, model.level[i].len);
	e->depth = model.depth;
	e->value = text;
	model.n++;
}

/* Takes up to "wanted" bytes of the input. */
static const uint8_t *
take(const uint8_t **p, const uint8_t *end, size_t wanted, size_t *got)
{
	const uint8_t *start = *p;

	*got = (size_t) (end - start) < wanted ? (size_t) (end - start) : wanted;
	*p += *got;
	return start;
}

static void
run(SlFormBuf *buf, const uint8_t *p, const uint8_t *end)
{
	while (p < end && model.n < MAX_VALUES && model.depth < MAX_LEVELS)
	{
		uint8_t		op = *p++;
		const uint8_t *bytes;
		size_t		len;

		switch (op % 5)
		{
			case 0:
				bytes = take(&p, end, op / 5 % 16, &len);
				push(buf, copy_text(bytes, len), false, 0);
				break;
			case 1:
				bytes = take(&p, end, 4, &len);
				push_index(buf, len == 4 ? (unsigned) bytes[0] << 24 |
						   (unsigned) bytes[1] << 16 | bytes[2] << 8 | bytes[3] :
						   (unsigned) len);
				break;
			case 2:
				pop(buf);
				break;
			default:
				bytes = take(&p, end, op / 5, &len);
				value(buf, copy_text(bytes, len));
				break;
		}
	}
}

/* ---- the decoder ---- */

static int
hex_value(char c)
{
	static const char digits[] = "0123456789ABCDEF";
	const char *at = c ? strchr(digits, c) : NULL;

	REQUIRE(at != NULL);
	return (int) (at - digits);
}

/*
 * Decodes up to one of the characters in stop (or the end) and compares with
 * what it should be.  Returns where it stopped.
 */
static const char *
decode(const char *p, const char *end, const char *stop, const Text *expected)
{
	size_t		i = 0;

	for (; p < end && strchr(stop, *p) == NULL; p++)
	{
		int			c = (unsigned char) *p;

		REQUIRE(i < expected->len);
		if (c == '%')
		{
			REQUIRE(end - p > 2);
			c = hex_value(p[1]) * 16 + hex_value(p[2]);
			REQUIRE(strchr("-_.~ ", c) == NULL || c == 0);
			p += 2;
		}
		else if (c == '+')
			c = ' ';
		else
			REQUIRE((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
					(c >= '0' && c <= '9') || strchr("-_.~", c) != NULL);
		REQUIRE((unsigned char) expected->bytes[i] == c);
		i++;
	}
	REQUIRE(i == expected->len);
	return p;
}

static const char *
decode_char(const char *p, const char *end, char c)
{
	REQUIRE(p < end && *p == c);
	return p + 1;
}

static void
check_body(const SlFormBuf *buf)
{
	const char *p = buf->data;
	const char *end = buf->data + buf->len;
	int			i;
	int			j;

	for (i = 0; i < model.n; i++)
	{
		const Emitted *e = &model.emitted[i];

		if (i > 0)
			p = decode_char(p, end, '&');
		p = decode(p, end, "[=", &e->name[0]);
		for (j = 1; j < e->depth; j++)
		{
			p = decode_char(p, end, '[');
			p = decode(p, end, "]", &e->name[j]);
			p = decode_char(p, end, ']');
		}
		p = decode_char(p, end, '=');
		p = decode(p, end, "&", &e->value);
	}
	REQUIRE(p == end);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	SlFormBuf	buf;
	int			i;

	if (size == 0)
		return 0;
	memset(&model, 0, sizeof(model));
	grow_calls = 0;
	grow_failed = false;
	granted = 0;
	grow_fails_at = data[0] % 8;

	sl_form_init(&buf, grow);
	run(&buf, data + 1, data + size);

	REQUIRE((buf.failed != 0) == (model.failed || grow_failed));
	REQUIRE(buf.cap == granted && (buf.data == NULL || buf.len < granted));
	if (!buf.failed)
	{
		REQUIRE(buf.data[buf.len] == '\0' && strlen(buf.data) == buf.len);
		REQUIRE(buf.path.depth == model.depth);
		check_body(&buf);
	}

	free(buf.data);
	while (model.depth > 0)
		free(model.level[--model.depth].bytes);
	for (i = 0; i < model.n; i++)
	{
		while (model.emitted[i].depth > 0)
			free(model.emitted[i].name[--model.emitted[i].depth].bytes);
		free(model.emitted[i].value.bytes);
	}
	return 0;
}
