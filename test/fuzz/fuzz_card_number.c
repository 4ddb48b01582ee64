/*-------------------------------------------------------------------------
 *
 * fuzz_card_number.c
 *	  Arbitrary text against the search for card numbers.
 *
 * What is found must be exactly what a second reading finds.  That one takes
 * the text apart into characters first and words then, and tries every pair
 * of words as the first and the last of a number.  Hexadecimal digits for the
 * same text must give the same result.
 *
 *-------------------------------------------------------------------------
 */
#include "card_number.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TEXT	256

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

/* A word that begins with a digit. */
typedef struct Word
{
	size_t		start;
	size_t		end;
	char		digits[MAX_TEXT + 1];	/* those it begins with */
	bool		pure;			/* it has nothing else */
	bool		joined;			/* only separators between it and the last one */
	bool		in_uuid;
} Word;

static const uint8_t *text;
static size_t size;
static Word words[MAX_TEXT];
static int	nwords;

/* 'd' digit (then *value), 'w' word, 's' separator, 'o' other; *len bytes. */
static char
kind_of(uint32_t c, int *value)
{
	static const uint32_t zeroes[] = {'0', 0x660, 0x6f0, 0x966, 0xff10};
	static const uint32_t separators[] = {
		0x20, '-', 0xa0, 0xad, 0x202f, 0x205f, 0x2060, 0x2212, 0x3000, 0xfe63,
		0xfeff, 0xff0d
	};
	size_t		i;

	for (i = 0; i < sizeof(zeroes) / sizeof(zeroes[0]); i++)
		if (c - zeroes[i] < 10)
		{
			*value = (int) (c - zeroes[i]);
			return 'd';
		}
	for (i = 0; i < sizeof(separators) / sizeof(separators[0]); i++)
		if (c == separators[i])
			return 's';
	return c >= 0x2000 && c <= 0x2015 ? 's' : 'o';
}

static char
read_char(size_t p, size_t *len, int *value)
{
	uint8_t		c = text[p];
	unsigned	escaped;
	char		four[5] = "";

	*len = 1;
	if (c < 0x80 && c != '\\')
		return strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_", c) &&
			c != 0 ? 'w' : kind_of(c, value);
	if (c == '\\')
	{
		if (p + 1 < size && text[p + 1] != 0 && strchr("nrtbf", text[p + 1]))
			*len = 2;
		if (size - p < 6 || text[p + 1] != 'u')
			return 'o';
		memcpy(four, text + p + 2, 4);
		if (strspn(four, "0123456789abcdefABCDEF") != 4)
			return 'o';
		*len = 6;
		sscanf(four, "%x", &escaped);
		return kind_of(escaped, value);
	}
	if (size - p >= 2 && c >= 0xc0 && c < 0xe0 && text[p + 1] >> 6 == 2)
	{
		*len = 2;
		return kind_of((c - 0xc0u) * 64 + text[p + 1] - 0x80u, value);
	}
	if (size - p >= 3 && c >= 0xe0 && c < 0xf0 && text[p + 1] >> 6 == 2 &&
		text[p + 2] >> 6 == 2)
	{
		*len = 3;
		return kind_of((c - 0xe0u) * 4096 + (text[p + 1] - 0x80u) * 64 +
					   text[p + 2] - 0x80u, value);
	}
	return 'o';
}

static bool
in_uuid(size_t p)
{
	static const char pattern[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
	size_t		from;

	for (from = p < 24 ? 0 : p - 24; from <= p && from + 36 <= size; from++)
	{
		bool		matches = true;
		size_t		i;

		if (p != from && p != from + 9 && p != from + 14 && p != from + 19 &&
			p != from + 24)
			continue;
		for (i = 0; i < 36; i++)
		{
			char		c = (char) text[from + i];

			if (pattern[i] == '-' ? c != '-' :
				c == '\0' || !strchr("0123456789abcdefABCDEF", c))
				matches = false;
		}
		if (from > 0 && text[from - 1] != 0 &&
			strchr("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_", text[from - 1]))
			matches = false;
		if (from + 36 < size && text[from + 36] != 0 &&
			strchr("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_", text[from + 36]))
			matches = false;
		if (matches)
			return true;
	}
	return false;
}

static void
read_words(void)
{
	bool		only_separators = false;
	size_t		p = 0;

	nwords = 0;
	while (p < size)
	{
		Word	   *w = &words[nwords];
		int			n = 0;
		size_t		len;
		int			value;
		char		kind = read_char(p, &len, &value);

		if (kind == 's' || kind == 'o')
		{
			only_separators = kind == 's' && (only_separators || (nwords > 0 && words[nwords - 1].end == p));
			p += len;
			continue;
		}
		w->start = p;
		w->pure = true;
		w->joined = only_separators;
		only_separators = false;
		if (kind == 'd')
			nwords++;
		while (p < size && (kind = read_char(p, &len, &value)) != 's' && kind != 'o')
		{
			if (kind == 'w')
				w->pure = false;
			else if (w->pure)
				w->digits[n++] = (char) ('0' + value);
			p += len;
		}
		w->digits[n] = '\0';
		w->end = p;
		w->in_uuid = in_uuid(w->start);
	}
}

/* Written from the networks' documents, prefix by prefix. */
static bool
issued(const char *d)
{
	static const char *const networks[] = {
		"4:13,16,19", "51-55:16", "2221-2720:16", "34:15", "37:15",
		"300-305:14-19", "3095:14-19", "36:14-19", "38-39:14-19",
		"3528-3589:16-19", "6011:16-19", "644-649:16-19", "65:16-19",
		"62:16-19", "81:16-19", "50:13-19", "56-58:13-19", "63:13-19",
		"67:13-19", "60:16", "82:16", "2200-2205:16-19", "8600:16",
		"9860:16", "9704:16,19", "9792:16"
	};
	size_t		i;

	for (i = 0; i < sizeof(networks) / sizeof(networks[0]); i++)
	{
		char		copy[32];
		char	   *lengths;
		char	   *range;
		long		first;
		long		last;
		long		ours;

		strcpy(copy, networks[i]);
		lengths = strchr(copy, ':');
		*lengths++ = '\0';
		range = strchr(copy, '-');
		if (range)
			*range++ = '\0';
		first = atol(copy);
		last = range ? atol(range) : first;
		ours = atol((const char[]){d[0], strlen(copy) > 1 ? d[1] : '\0',
								   strlen(copy) > 2 ? d[2] : '\0',
								   strlen(copy) > 3 ? d[3] : '\0', '\0'});
		if (ours < first || ours > last)
			continue;
		if (strchr(lengths, '-'))
		{
			if ((long) strlen(d) >= atol(lengths) &&
				(long) strlen(d) <= atol(strchr(lengths, '-') + 1))
				return true;
		}
		else
		{
			char	   *one = strtok(lengths, ",");

			for (; one; one = strtok(NULL, ","))
				if ((long) strlen(d) == atol(one))
					return true;
		}
	}
	return false;
}

static bool
luhn(const char *d)
{
	int			sum = 0;
	size_t		len = strlen(d);
	size_t		i;

	for (i = 0; i < len; i++)
	{
		int			v = d[i] - '0';

		if ((len - i) % 2 == 0)
			v = v * 2 / 10 + v * 2 % 10;
		sum += v;
	}
	return sum % 10 == 0;
}

/*
 * The last word of the telephone number that begins with word w, after a plus
 * sign; -1 if it has too many digits or none.
 */
static int
phone_at(int w)
{
	int			last = -1;
	int			digits = 0;

	for (;; w++)
	{
		digits += (int) strlen(words[w].digits);
		if (digits > 15)
			return -1;
		if (!words[w].pure)
			return last;
		last = w;
		if (w + 1 == nwords || !words[w + 1].joined)
			return last;
	}
}

/* Are the words from i to j a card number? */
static bool
is_number(int i, int j)
{
	char		d[20] = "";
	bool		plus = words[i].start > 0 && text[words[i].start - 1] == '+';
	int			w;

	if (words[i].start > 1 && text[words[i].start - 1] == '.' &&
		text[words[i].start - 2] >= '0' && text[words[i].start - 2] <= '9')
		return false;
	for (w = i; w <= j; w++)
	{
		if (!words[w].pure || (w > i && !words[w].joined) ||
			strlen(d) + strlen(words[w].digits) > 19 || words[w].in_uuid)
			return false;
		strcat(d, words[w].digits);
	}
	return strlen(d) >= (plus ? 16 : 13) && luhn(d) && issued(d);
}

/* The end of the longest number that begins with the word; 0 if none. */
static size_t
number_at(int i)
{
	size_t		end = 0;
	int			j;

	for (j = i; j < nwords && j < i + 19; j++)
		if (is_number(i, j))
			end = words[j].end;
	return end;
}

/* The first number that begins at or after 'from'. */
static bool
find(size_t from, size_t *start, size_t *end)
{
	int			i;

	for (i = 0; i < nwords; i++)
	{
		int			j;

		if (words[i].start < from)
			continue;
		if (words[i].start > 0 && text[words[i].start - 1] == '+' &&
			phone_at(i) >= 0)
		{
			i = phone_at(i);
			continue;
		}
		*end = number_at(i);
		if (*end == 0)
			continue;
		*start = words[i].start;
		for (j = i + 1; j < nwords && words[j].start < *end; j++)
			if (number_at(j) > *end)
				*end = number_at(j);
		for (; j < nwords; j++)
			if (words[j].start == *end + 1 && text[*end] == '.' &&
				words[j].pure && !words[j].in_uuid)
				*end = words[j].end;
		return true;
	}
	return false;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const char digits[] = "0123456789abcdef";
	char	   *exact;
	char	   *hex;
	SlText		plain = {NULL, len, false};
	SlText		coded = {NULL, len, true};
	size_t		end[3] = {0, 0, 0};
	size_t		i;

	if (len > MAX_TEXT)
		return 0;
	/* allocations of exactly that size show who reads beyond them */
	exact = malloc(len > 0 ? len : 1);
	hex = malloc(len > 0 ? 2 * len : 1);
	memcpy(exact, data, len);
	for (i = 0; i < len; i++)
	{
		hex[2 * i] = digits[data[i] / 16];
		hex[2 * i + 1] = digits[data[i] % 16];
	}
	plain.bytes = exact;
	coded.bytes = hex;
	text = data;
	size = len;
	read_words();

	for (;;)
	{
		size_t		start[3] = {0, 0, 0};
		bool		found = sl_card_find(&plain, end[0], &start[0], &end[0]);

		REQUIRE(sl_card_find(&coded, end[1], &start[1], &end[1]) == found);
		REQUIRE(find(end[2], &start[2], &end[2]) == found);
		if (!found)
			break;
		REQUIRE(start[0] == start[1] && end[0] == end[1]);
		REQUIRE(start[0] == start[2] && end[0] == end[2]);
		REQUIRE(start[0] < end[0] && end[0] <= len);
	}

	free(exact);
	free(hex);
	return 0;
}
