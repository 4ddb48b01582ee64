/*-------------------------------------------------------------------------
 *
 * redact.c
 *	  Masks card numbers, keys and secrets in text; see redact.h.
 *
 * It stands in the way of every line that the server logs, so the usual case
 * is to find nothing: one pass over the bytes for digits, and memchr() for the
 * characters without which there is nothing else to find.
 *
 *-------------------------------------------------------------------------
 */
#include "redact.h"

#include <string.h>

#include "card_number.h"

/* Six digits of a card number may be shown, and so may its last four. */
#define SHOWN_FIRST 6
#define SHOWN_LAST 4

/* Words shorter than these are no keys and no parts of one. */
#define MIN_KEY 16
#define MIN_CLIENT_SECRET 8

/* A text, where its masked form goes (NULL: nowhere), and what was found. */
typedef struct Redaction
{
	SlText		text;
	char	   *out;			/* the same bytes */
	size_t		found;
} Redaction;

static bool
is_digit(int c)
{
	return c >= '0' && c <= '9';
}

static bool
is_alnum(int c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool
is_word(int c)
{
	return is_alnum(c) || c == '_';
}

/* Base64 and its variant for URLs, and what escapes it in URLs. */
static bool
is_secret(int c)
{
	return is_word(c) || (c > 0 && strchr("+/=-%", c) != NULL);
}

static void
put_asterisks(Redaction *r, size_t from, size_t to)
{
	for (; r->out != NULL && from < to; from++)
	{
		if (r->text.hex)
			memcpy(r->out + 2 * from, "2a", 2);
		else
			r->out[from] = '*';
	}
}

/* Masks from..to; returns the end. */
static size_t
mask(Redaction *r, size_t from, size_t to)
{
	r->found++;
	put_asterisks(r, from, to);
	return to;
}

static size_t
end_of(const SlText *t, size_t p, bool (*belongs) (int c))
{
	while (belongs(sl_text_byte(t, p)))
		p++;
	return p;
}

static size_t
start_of(const SlText *t, size_t p, bool (*belongs) (int c))
{
	while (p > 0 && belongs(sl_text_byte(t, p - 1)))
		p--;
	return p;
}

static bool
has_digit(const SlText *t, size_t from, size_t to)
{
	while (from < to && !is_digit(sl_text_byte(t, from)))
		from++;
	return from < to;
}

/* Do these characters stand at p? */
static bool
stands_at(const SlText *t, size_t p, const char *s)
{
	while (*s != '\0' && sl_text_byte(t, p) == (unsigned char) *s)
	{
		p++;
		s++;
	}
	return *s == '\0';
}

static bool
stands_before(const SlText *t, size_t p, const char *s)
{
	size_t		len = strlen(s);

	return p >= len && stands_at(t, p - len, s);
}

/* The next such character at or after p, or the end. */
static size_t
find(const SlText *t, size_t p, char wanted)
{
	const char *at;

	if (t->hex)
	{
		while (p < t->len && sl_text_byte(t, p) != wanted)
			p++;
		return p;
	}
	at = p < t->len ? memchr(t->bytes + p, wanted, t->len - p) : NULL;
	return at == NULL ? t->len : (size_t) (at - t->bytes);
}

/* ---- keys and secrets ---- */

/* Are there at least n such characters from p on? */
static bool
has_run(const SlText *t, size_t p, size_t n, bool (*belongs) (int c))
{
	while (n > 0 && belongs(sl_text_byte(t, p)))
	{
		p++;
		n--;
	}
	return n == 0;
}

/*
 * Does a word begin at p?  The letter of an escape such as \n belongs to none.
 */
static bool
begins_word(const SlText *t, size_t p)
{
	int			before = p > 0 ? sl_text_byte(t, p - 1) : -1;

	return !is_word(before) ||
		(p > 1 && sl_text_byte(t, p - 2) == '\\' &&
		 strchr("bfnrt", before) != NULL);
}

/*
 * The underscore at u may end sk_, rk_ or ek_.  Returns the end of the key
 * that is masked, or 0; so do the next two.
 */
static size_t
redact_key(Redaction *r, size_t u)
{
	static const char *const modes[] = {"live_", "test_", "org_"};
	const SlText *t = &r->text;
	size_t		body = u + 1;
	size_t		end;
	bool		begins;
	size_t		i;

	if (!stands_before(t, u, "sk") && !stands_before(t, u, "rk") &&
		!stands_before(t, u, "ek"))
		return 0;
	begins = begins_word(t, u - 2);
	for (i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
		if (stands_at(t, body, modes[i]))
		{
			body += strlen(modes[i]);
			/* in a longer word only what is as long as a key */
			return has_run(t, body, begins ? 1 : MIN_KEY, is_alnum) ?
				mask(r, body, end_of(t, body, is_word)) : 0;
		}

	/* the surrogate key of some table is called sk_ as well */
	end = begins ? end_of(t, body, is_word) : body;
	return end >= body + MIN_KEY && has_digit(t, body, end) ?
		mask(r, body, end) : 0;
}

/* The underscore at u may end whsec_. */
static size_t
redact_signing_secret(Redaction *r, size_t u)
{
	const SlText *t = &r->text;

	return stands_before(t, u, "whsec") && has_run(t, u + 1, 1, is_secret) ?
		mask(r, u + 1, end_of(t, u + 1, is_secret)) : 0;
}

/* The underscore at u may begin _secret_, after an id. */
static size_t
redact_client_secret(Redaction *r, size_t u)
{
	const SlText *t = &r->text;
	size_t		body = u + strlen("_secret_");
	size_t		id;
	bool		is_known;

	if (!stands_at(t, u, "_secret_"))
		return 0;
	id = start_of(t, u, is_alnum);
	if (id == u || !stands_before(t, id, "_"))
		return 0;
	is_known = stands_before(t, id, "pi_") || stands_before(t, id, "seti_");
	return (is_known || has_digit(t, id, u)) &&
		has_run(t, body, is_known ? 1 : MIN_CLIENT_SECRET, is_secret) ?
		mask(r, body, end_of(t, body, is_secret)) : 0;
}

static void
redact_secrets(Redaction *r)
{
	size_t		u = 0;

	while ((u = find(&r->text, u, '_')) < r->text.len)
	{
		int			before = u > 0 ? sl_text_byte(&r->text, u - 1) : -1;
		size_t		end = 0;

		/* most underscores are in names of other things */
		if (before == 'k')
			end = redact_key(r, u);
		else if (before == 'c')
			end = redact_signing_secret(r, u);
		if (end == 0 && sl_text_byte(&r->text, u + 1) == 's')
			end = redact_client_secret(r, u);
		u = end > 0 ? end : u + 1;
	}
}

/* ---- what was cut ---- */

static bool
is_number_part(int c)
{
	return is_digit(c) || c == ' ' || c == '-';
}

/* Masks the digits from..to if they are more than may be shown of a card. */
static void
redact_part(Redaction *r, size_t from, size_t to, int shown)
{
	int			digits = 0;
	size_t		p;

	for (p = from; p < to; p++)
		digits += is_digit(sl_text_byte(&r->text, p));
	if (digits <= shown)
		return;
	r->found++;
	for (p = from; p < to; p++)
		if (is_digit(sl_text_byte(&r->text, p)))
			put_asterisks(r, p, p + 1);
}

/* A card number that was cut at p. */
static void
redact_head(Redaction *r, size_t p)
{
	size_t		start = start_of(&r->text, p, is_number_part);

	/* not the digits at the end of some word */
	if (!begins_word(&r->text, start))
		start = end_of(&r->text, start, is_digit);
	redact_part(r, start, p, SHOWN_FIRST);
}

/* A card number, or a key, whose beginning was cut away before p. */
static void
redact_tail(Redaction *r, size_t p)
{
	const SlText *t = &r->text;
	size_t		end = end_of(t, p, is_number_part);

	/* not the digits at the beginning of some word */
	if (is_word(sl_text_byte(t, end)))
		end = start_of(t, end, is_digit);
	redact_part(r, p, end, sl_text_byte(t, p) == ' ' ? SHOWN_FIRST : SHOWN_LAST);

	end = end_of(t, p, is_word);
	if (end >= p + MIN_KEY && has_digit(t, p, end))
		(void) mask(r, p, end);
}

static void
redact_cut(Redaction *r, bool cut_lines)
{
	const SlText *t = &r->text;
	size_t		p;

	for (p = find(t, 0, '.'); p < t->len; p = find(t, p + 1, '.'))
		if (stands_at(t, p, "..."))
		{
			redact_head(r, p);
			redact_tail(r, p + 3);
		}
	if (!cut_lines)
		return;
	for (p = find(t, 0, '\n'); p < t->len; p = find(t, p + 1, '\n'))
		redact_head(r, p);
	redact_head(r, t->len);
}

/* ---- card numbers ---- */

static void
redact_cards(Redaction *r)
{
	size_t		start;
	size_t		end = 0;

	while (sl_card_find(&r->text, end, &start, &end))
	{
		size_t		p = start;

		r->found++;
		while (p < end)
		{
			bool		is_card_digit;
			size_t		len = sl_card_step(&r->text, p, &is_card_digit);

			if (is_card_digit)
				put_asterisks(r, p, p + len);
			p += len;
		}
	}
}

/* ---- all of it ---- */

/*
 * Cards come last: what the others mask is then no part of a number any more,
 * the second time as the first.
 */
static void
redact_plain(Redaction *r, bool cut_lines)
{
	redact_secrets(r);
	redact_cut(r, cut_lines);
	redact_cards(r);
}

/* The bytea that may begin with the backslash at p; returns where to go on. */
static size_t
redact_hex(Redaction *r, size_t p)
{
	const SlText *t = &r->text;
	Redaction	inner;
	size_t		digits = 0;

	if (!stands_at(t, p, "\\x"))
		return p + 1;
	p += 2;
	while (sl_hex_value(sl_text_byte(t, p + digits)) >= 0)
		digits++;

	inner.text.bytes = t->bytes + p;
	inner.text.len = digits / 2;
	inner.text.hex = true;
	inner.out = r->out == NULL ? NULL : r->out + p;
	inner.found = 0;
	redact_plain(&inner, true);
	r->found += inner.found;
	return p + digits;
}

static size_t
redact(const char *bytes, char *out, size_t len, bool cut_lines)
{
	Redaction	r = {{bytes, len, false}, out, 0};
	size_t		p;

	redact_plain(&r, cut_lines);
	for (p = find(&r.text, 0, '\\'); p < len; p = find(&r.text, p, '\\'))
		p = redact_hex(&r, p);
	return r.found;
}

size_t
sl_redact(char *text, size_t len, bool cut_lines)
{
	return redact(text, text, len, cut_lines);
}

bool
sl_redact_finds(const char *text, size_t len)
{
	return redact(text, NULL, len, false) > 0;
}

size_t
sl_redact_cards(char *text, size_t len)
{
	Redaction	r = {{text, len, false}, text, 0};

	redact_cards(&r);
	return r.found;
}
