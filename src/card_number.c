/*-------------------------------------------------------------------------
 *
 * card_number.c
 *	  Finds payment card numbers; see card_number.h for what counts as one.
 *
 * Text is read as words: runs of letters, underscores and digits.  A word of
 * digits alone is a group, and groups with nothing but spaces and dashes
 * between them are one number or several.  A card number begins where a group
 * does and ends where one does, so "4242 4242 4242 4242 12 2030" and
 * "12345 4242 4242 4242 4242" are looked at in every such way.
 *
 *-------------------------------------------------------------------------
 */
#include "card_number.h"

#include <stdint.h>

/* E.164: a telephone number has no more digits than these. */
#define MAX_PHONE_DIGITS 15

#define UUID_LENGTH 36

typedef enum Kind
{
	OTHER,
	WORD,						/* ASCII letter or underscore */
	DIGIT,
	SEPARATOR					/* a space or a dash */
} Kind;

/* What stands at some place of a text: a character, or an escape for one. */
typedef struct Char
{
	Kind		kind;
	int			value;			/* of a digit */
	size_t		len;			/* in bytes; 0 at the end */
} Char;

typedef struct Number
{
	int			n;
	unsigned char digit[SL_CARD_MAX_DIGITS];
} Number;

/* Lengths as a set of bits. */
#define L(n) (UINT32_C(1) << (n))
#define L_13_TO_19 (L(13) | L(14) | L(15) | L(16) | L(17) | L(18) | L(19))
#define L_14_TO_19 (L_13_TO_19 & ~L(13))
#define L_16_TO_19 (L(16) | L(17) | L(18) | L(19))

/*
 * The networks' ranges, by the first six digits.  Ranges may overlap.  Only
 * what is really issued: of Maestro's 50 and 56 to 69 those parts that banks
 * have used, since it alone has every length.
 */
static const struct
{
	uint32_t	first;
	uint32_t	last;
	uint32_t	lengths;
}			ranges[] = {
	{220000, 220599, L_16_TO_19},	/* Mir, BORICA */
	{222100, 272099, L(16)},	/* Mastercard */
	{300000, 305999, L_14_TO_19},	/* Diners Club */
	{309500, 309599, L_14_TO_19},
	{340000, 349999, L(15)},	/* American Express */
	{352800, 358999, L_16_TO_19},	/* JCB; also RuPay */
	{360000, 369999, L_14_TO_19},	/* Diners Club */
	{370000, 379999, L(15)},	/* American Express */
	{380000, 399999, L_14_TO_19},	/* Diners Club, Hipercard */
	{400000, 499999, L(13) | L(16) | L(19)},	/* Visa; also Elo */
	{500000, 509999, L_13_TO_19},	/* Maestro, Verve, Elo, RuPay, Dankort */
	{510000, 559999, L(16)},	/* Mastercard */
	{560000, 589999, L_13_TO_19},	/* Maestro */
	{600000, 609999, L(16)},	/* RuPay, Hipercard */
	{601100, 601199, L_16_TO_19},	/* Discover */
	{620000, 629999, L_16_TO_19},	/* UnionPay, Discover, Elo */
	{630000, 639999, L_13_TO_19},	/* Maestro, InterPayment, Elo */
	{644000, 659999, L_16_TO_19},	/* Discover, RuPay, Troy, Verve, Elo */
	{670000, 679999, L_13_TO_19},	/* Maestro */
	{810000, 819999, L_16_TO_19},	/* UnionPay, RuPay */
	{820000, 829999, L(16)},	/* RuPay */
	{860000, 860099, L(16)},	/* Uzcard */
	{970400, 970499, L(16) | L(19)},	/* Napas */
	{979200, 979299, L(16)},	/* Troy */
	{986000, 986099, L(16)}		/* Humo */
};

/* No number of any network begins with another digit. */
static bool
may_begin(int digit)
{
	return digit >= 2 && digit != 7;
}

static bool
is_issued(const Number *number)
{
	uint32_t	prefix = 0;
	size_t		i;

	for (i = 0; i < 6; i++)
		prefix = prefix * 10 + number->digit[i];
	for (i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++)
		if (prefix >= ranges[i].first && prefix <= ranges[i].last &&
			(ranges[i].lengths & L(number->n)) != 0)
			return true;
	return false;
}

static bool
passes_luhn(const Number *number)
{
	static const int doubled[10] = {0, 2, 4, 6, 8, 1, 3, 5, 7, 9};
	int			sum = 0;
	int			i;

	for (i = 0; i < number->n; i++)
	{
		int			d = number->digit[number->n - 1 - i];

		sum += i % 2 == 0 ? d : doubled[d];
	}
	return sum % 10 == 0;
}

/* What a character beyond ASCII, or an escaped one, is, by its code point. */
static Char
classify(uint32_t c, size_t len)
{
	static const uint32_t zeroes[] = {'0', 0x0660, 0x06F0, 0x0966, 0xFF10};
	static const struct
	{
		uint32_t	first;
		uint32_t	last;
	}			separators[] = {
		{' ', ' '}, {'-', '-'}, {0x00A0, 0x00A0}, {0x00AD, 0x00AD},
		{0x2000, 0x2015}, {0x202F, 0x202F}, {0x205F, 0x2060},
		{0x2212, 0x2212}, {0x3000, 0x3000}, {0xFE63, 0xFE63},
		{0xFEFF, 0xFEFF}, {0xFF0D, 0xFF0D}
	};
	Char		result = {OTHER, 0, len};
	size_t		i;

	for (i = 0; i < sizeof(zeroes) / sizeof(zeroes[0]); i++)
		if (c >= zeroes[i] && c <= zeroes[i] + 9)
		{
			result.kind = DIGIT;
			result.value = (int) (c - zeroes[i]);
		}
	for (i = 0; i < sizeof(separators) / sizeof(separators[0]); i++)
		if (c >= separators[i].first && c <= separators[i].last)
			result.kind = SEPARATOR;
	return result;
}

/* UTF-8 of two or three bytes; whatever is none of that is a byte. */
static Char
utf8_at(const SlText *text, size_t p, int lead)
{
	static const Char other = {OTHER, 0, 1};
	int			second = sl_text_byte(text, p + 1);
	int			third;

	if (second < 0 || (second & 0xC0) != 0x80)
		return other;
	if ((lead & 0xE0) == 0xC0)
		return classify((uint32_t) (lead & 0x1F) << 6 | (second & 0x3F), 2);
	third = sl_text_byte(text, p + 2);
	if ((lead & 0xF0) != 0xE0 || third < 0 || (third & 0xC0) != 0x80)
		return other;
	return classify((uint32_t) (lead & 0x0F) << 12 |
					(uint32_t) (second & 0x3F) << 6 | (third & 0x3F), 3);
}

/*
 * After a backslash: JSON's \uXXXX, or \n and its kind, whose letter is no
 * part of the word that follows.
 */
static Char
escape_at(const SlText *text, size_t p)
{
	Char		result = {OTHER, 0, 1};
	uint32_t	c = 0;
	int			i;

	switch (sl_text_byte(text, p + 1))
	{
		case 'b':
		case 'f':
		case 'n':
		case 'r':
		case 't':
			result.len = 2;
			return result;
		case 'u':
			break;
		default:
			return result;
	}
	for (i = 2; i < 6; i++)
	{
		int			v = sl_hex_value(sl_text_byte(text, p + i));

		if (v < 0)
			return result;
		c = c << 4 | (uint32_t) v;
	}
	return classify(c, 6);
}

static inline Char
char_at(const SlText *text, size_t p)
{
	Char		result = {OTHER, 0, 1};
	int			c = sl_text_byte(text, p);

	if (c >= '0' && c <= '9')
	{
		result.kind = DIGIT;
		result.value = c - '0';
	}
	else if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_')
		result.kind = WORD;
	else if (c == ' ' || c == '-')
		result.kind = SEPARATOR;
	else if (c == '\\')
		return escape_at(text, p);
	else if (c >= 0x80)
		return utf8_at(text, p, c);
	else if (c < 0)
		result.len = 0;
	return result;
}

static inline bool
is_ascii_word(int c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
		(c >= 'A' && c <= 'Z') || c == '_';
}

static size_t
skip_word(const SlText *text, size_t p)
{
	for (;;)
	{
		Char		c;

		while (is_ascii_word(sl_text_byte(text, p)))
			p++;
		c = char_at(text, p);
		if (c.kind != WORD && c.kind != DIGIT)
			return p;
		p += c.len;
	}
}

static size_t
skip_digits(const SlText *text, size_t p)
{
	for (;;)
	{
		Char		c = char_at(text, p);

		if (c.kind != DIGIT)
			return p;
		p += c.len;
	}
}

static size_t
skip_separators(const SlText *text, size_t p)
{
	for (;;)
	{
		Char		c = char_at(text, p);

		if (c.kind != SEPARATOR)
			return p;
		p += c.len;
	}
}

/*
 * May this byte be a part of a card number?  That is every one that digits,
 * separators and escapes for them have.
 */
static inline bool
may_be_part(unsigned char c)
{
	static const bool part[0x80] = {
		['0'] = true, ['1'] = true, ['2'] = true, ['3'] = true, ['4'] = true,
		['5'] = true, ['6'] = true, ['7'] = true, ['8'] = true, ['9'] = true,
		[' '] = true, ['-'] = true, ['\\'] = true, ['u'] = true,
		['a'] = true, ['b'] = true, ['c'] = true, ['d'] = true, ['e'] = true,
		['f'] = true, ['A'] = true, ['B'] = true, ['C'] = true, ['D'] = true,
		['E'] = true, ['F'] = true
	};

	return c >= 0x80 || part[c];
}

/*
 * Skips what no card number can begin in, since a byte that is part of none
 * comes before it would be long enough: most of most texts, and a step is up
 * to as long as a number has to be.
 */
static size_t
skip_plain(const SlText *text, size_t p)
{
	const unsigned char *bytes = (const unsigned char *) text->bytes;

	if (text->hex)
		return p;
	while (text->len - p >= SL_CARD_MIN_DIGITS)
	{
		size_t		i = SL_CARD_MIN_DIGITS;

		while (i > 0 && may_be_part(bytes[p + i - 1]))
			i--;
		if (i == 0)
			return p;
		p += i;
	}
	return text->len;
}

/* Is p, which skip_plain() has come to, in the middle of a word? */
static bool
is_within_word(const SlText *text, size_t p)
{
	int			before = sl_text_byte(text, p - 1);

	if (p > 1 && sl_text_byte(text, p - 2) == '\\' &&
		(before == 'n' || before == 'r' || before == 't'))
		return false;
	return is_ascii_word(before);
}

/*
 * The next word at or after p that a card number may begin with; p is within
 * no word.
 */
static size_t
next_number(const SlText *text, size_t p)
{
	while (p < text->len)
	{
		size_t		plain = skip_plain(text, p);
		Char		c = char_at(text, plain);

		if (plain > p && is_within_word(text, plain))
			p = skip_word(text, plain);
		else if (c.kind == DIGIT)
			return plain;
		else if (c.kind == WORD)
			p = skip_word(text, plain);
		else
			p = skip_separators(text, plain + c.len);
	}
	return p;
}

/* Is there a UUID from p on, and no more than that? */
static bool
is_uuid(const SlText *text, size_t p)
{
	size_t		i;

	if (sl_text_byte(text, p + 8) != '-' ||
		(p > 0 && is_ascii_word(sl_text_byte(text, p - 1))) ||
		is_ascii_word(sl_text_byte(text, p + UUID_LENGTH)))
		return false;
	for (i = 0; i < UUID_LENGTH; i++)
	{
		int			c = sl_text_byte(text, p + i);

		if (i == 8 || i == 13 || i == 18 || i == 23 ? c != '-' : sl_hex_value(c) < 0)
			return false;
	}
	return true;
}

/* Does a part of a UUID begin at p? */
static bool
is_in_uuid(const SlText *text, size_t p)
{
	static const size_t part[] = {0, 9, 14, 19, 24};
	size_t		i;

	if (sl_text_byte(text, p + 8) != '-' &&
		(p == 0 || sl_text_byte(text, p - 1) != '-'))
		return false;
	for (i = 0; i < sizeof(part) / sizeof(part[0]); i++)
		if (p >= part[i] && is_uuid(text, p - part[i]))
			return true;
	return false;
}

/*
 * Appends the digits of the word at p and sets *end behind it.  False if it
 * is more than digits, or more digits than a card has.
 */
static bool
read_group(const SlText *text, size_t p, Number *number, size_t *end)
{
	for (;;)
	{
		Char		c = char_at(text, p);

		if (c.kind != DIGIT)
		{
			*end = p;
			return c.kind != WORD;
		}
		if (number->n == SL_CARD_MAX_DIGITS)
			return false;
		number->digit[number->n++] = (unsigned char) c.value;
		p += c.len;
	}
}

/*
 * The end of the longest card number that begins with the group at p and has
 * at least so many digits; 0 if there is none.
 */
static size_t
match_at(const SlText *text, size_t p, int min_digits)
{
	Number		number = {0};
	size_t		longest = 0;
	size_t		end;

	if (!may_begin(char_at(text, p).value))
		return 0;
	while (!is_in_uuid(text, p) && read_group(text, p, &number, &end))
	{
		if (number.n >= min_digits && is_issued(&number) && passes_luhn(&number))
			longest = end;
		p = skip_separators(text, end);
		if (p == end || char_at(text, p).kind != DIGIT)
			break;
	}
	return longest;
}

/*
 * The end of all that begins within the number from p to end, since numbers
 * that overlap are one, and of decimals behind it, lest they be taken for a
 * number of their own once the rest is masked.
 */
static size_t
extend(const SlText *text, size_t p, size_t end)
{
	for (;;)
	{
		size_t		other;

		p = skip_separators(text, skip_word(text, p));
		if (p >= end)
			break;
		other = match_at(text, p, SL_CARD_MIN_DIGITS);
		if (other > end)
			end = other;
	}
	while (sl_text_byte(text, end) == '.' && !is_in_uuid(text, end + 1))
	{
		size_t		decimals = skip_digits(text, end + 1);

		if (decimals == end + 1 || char_at(text, decimals).kind == WORD)
			break;
		end = decimals;
	}
	return end;
}

/* Is the group at p what follows a decimal point? */
static bool
is_fraction(const SlText *text, size_t p)
{
	int			before;

	if (p < 2 || sl_text_byte(text, p - 1) != '.')
		return false;
	before = sl_text_byte(text, p - 2);
	return before >= '0' && before <= '9';
}

/*
 * Are the groups from p on, which follow a plus sign, few enough digits for a
 * telephone number?  Then *end is behind them.
 */
static bool
is_phone(const SlText *text, size_t p, size_t *end)
{
	int			digits = 0;

	*end = 0;
	for (;;)
	{
		Char		c = char_at(text, p);

		for (; c.kind == DIGIT; c = char_at(text, p))
		{
			if (++digits > MAX_PHONE_DIGITS)
				return false;
			p += c.len;
		}
		/* a word that goes on with letters is no part of it */
		if (c.kind == WORD)
			return *end > 0;
		*end = p;
		p = skip_separators(text, p);
		if (p == *end || char_at(text, p).kind != DIGIT)
			return true;
	}
}

bool
sl_card_find(const SlText *text, size_t from, size_t *start, size_t *end)
{
	size_t		p;

	for (p = next_number(text, from); p < text->len; p = next_number(text, p))
	{
		int			min_digits = SL_CARD_MIN_DIGITS;
		size_t		match;

		if (p > 0 && sl_text_byte(text, p - 1) == '+')
		{
			if (is_phone(text, p, end))
			{
				p = *end;
				continue;
			}
			min_digits = MAX_PHONE_DIGITS + 1;
		}
		match = is_fraction(text, p) ? 0 : match_at(text, p, min_digits);
		if (match > 0)
		{
			*start = p;
			*end = extend(text, p, match);
			return true;
		}
		p = skip_word(text, p);
	}
	return false;
}

bool
sl_card_is_in(const char *bytes, size_t len)
{
	SlText		text = {bytes, len, false};
	size_t		start;
	size_t		end;

	return sl_card_find(&text, 0, &start, &end);
}

size_t
sl_card_step(const SlText *text, size_t i, bool *is_digit)
{
	Char		c = char_at(text, i);

	*is_digit = c.kind == DIGIT;
	return c.len;
}
