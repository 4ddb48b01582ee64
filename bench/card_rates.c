/*-------------------------------------------------------------------------
 *
 * card_rates.c
 *	  How often something that is no card number is taken for one.
 *
 * Makes so many of each kind of number that applications put into keys and
 * metadata, from a seed, and asks src/card_number.c.  The last rows are real
 * card numbers, of which none may be missed.
 *
 *	  bench/privacy rates [NUMBER_OF_EACH] [SEED]
 *
 *-------------------------------------------------------------------------
 */
#include "card_number.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t state;

/* splitmix64 */
static uint64_t
next(void)
{
	uint64_t	z = (state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static uint64_t
between(uint64_t low, uint64_t high)
{
	return low + next() % (high - low + 1);
}

/*
 * Fills in a pattern: 9 a digit, 8 a digit but zero, x a hexadecimal digit, A
 * a letter, a a letter or digit; whatever follows a backslash is itself.
 */
static void
fill(char *out, const char *pattern)
{
	static const char alnum[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

	for (; *pattern; pattern++)
		switch (*pattern)
		{
			case '9':
				*out++ = (char) ('0' + between(0, 9));
				break;
			case '8':
				*out++ = (char) ('0' + between(1, 9));
				break;
			case 'x':
				*out++ = "0123456789abcdef"[between(0, 15)];
				break;
			case 'A':
				*out++ = (char) ('A' + between(0, 25));
				break;
			case 'a':
				*out++ = alnum[between(0, 61)];
				break;
			case '\\':
				pattern++;
				/* FALLTHROUGH */
			default:
				*out++ = *pattern;
		}
	*out = '\0';
}

/* A time from 2020 to 2035, in so many units a second. */
static void
unix_time(char *out, uint64_t units)
{
	sprintf(out, "%" PRIu64, between(UINT64_C(1577836800), UINT64_C(2082758400)) * units +
			between(0, units - 1));
}

static void
iso_time(char *out, const char *format)
{
	time_t		t = (time_t) between(UINT64_C(1577836800), UINT64_C(2082758400));

	strftime(out, 100, format, gmtime(&t));
}

/* Its last digit made right: EAN and ISBN weigh 1 and 3 in turn. */
static void
ean(char *out, const char *prefix)
{
	int			sum = 0;
	int			i;

	fill(out, "9999999999999");
	memcpy(out, prefix, strlen(prefix));
	for (i = 0; i < 12; i++)
		sum += (out[i] - '0') * (i % 2 == 0 ? 1 : 3);
	out[12] = (char) ('0' + (10 - sum % 10) % 10);
}

/* Its last digit made right by Luhn's rule, which not only cards use. */
static void
luhn(char *out, const char *pattern)
{
	size_t		len;
	int			sum = 0;
	size_t		i;

	fill(out, pattern);
	len = strlen(out);
	for (i = 0; i + 1 < len; i++)
	{
		int			v = out[i] - '0';

		if ((len - i) % 2 == 0)
			v = v * 2 / 10 + v * 2 % 10;
		sum += v;
	}
	out[len - 1] = (char) ('0' + (10 - sum % 10) % 10);
}

static void
make_uuid4(char *out)
{
	fill(out, "xxxxxxxx-xxxx-4xxx-xxxx-xxxxxxxxxxxx");
	out[19] = "89ab"[between(0, 3)];
}

static void
make_uuid7(char *out)
{
	char		rest[32];
	uint64_t	ms = between(UINT64_C(1577836800000), UINT64_C(2082758400000));

	fill(rest, "\\7xxx-\\8xxx-xxxxxxxxxxxx");
	rest[5] = "89ab"[between(0, 3)];
	sprintf(out, "%08" PRIx64 "-%04" PRIx64 "-%s", ms >> 16, ms & 0xffff, rest);
}

static void
make_unix_s(char *out)
{
	unix_time(out, 1);
}

static void
make_unix_ms(char *out)
{
	unix_time(out, 1000);
}

static void
make_unix_us(char *out)
{
	unix_time(out, 1000000);
}

static void
make_unix_ns(char *out)
{
	unix_time(out, 1000000000);
}

static void
make_iso(char *out)
{
	iso_time(out, "%Y-%m-%d %H:%M:%S.");
	fill(out + strlen(out), "999999+00");
}

static void
make_compact_time(char *out)
{
	iso_time(out, "%Y%m%d%H%M%S");
	fill(out + strlen(out), "999999");
}

static void
make_two_dates(char *out)
{
	iso_time(out, "%Y-%m-%d ");
	iso_time(out + strlen(out), "%Y-%m-%d");
}

/* Twitter's kind: 41 bits of milliseconds, 22 bits of other things. */
static void
make_snowflake(char *out)
{
	uint64_t	ms = between(UINT64_C(1577836800000), UINT64_C(2082758400000)) - UINT64_C(1288834974657);

	sprintf(out, "%" PRIu64, ms << 22 | (next() & 0x3fffff));
}

static void
make_ean(char *out)
{
	ean(out, "");
}

static void
make_ean_4(char *out)
{
	ean(out, "4");
}

static void
make_isbn(char *out)
{
	ean(out, "978");
}

static void
make_imei(char *out)
{
	luhn(out, "\\3\\59999999999999");
}

static void
make_visa(char *out)
{
	luhn(out, "\\4999999999999999");
}

static void
make_visa_spaced(char *out)
{
	char		number[32];

	make_visa(number);
	sprintf(out, "%.4s %.4s %.4s %.4s", number, number + 4, number + 8, number + 12);
}

static void
make_mastercard(char *out)
{
	luhn(out, "\\5\\399999999999999");
}

static void
make_amex(char *out)
{
	luhn(out, "\\3\\79999999999999");
}

/* One kind: by a function, or by a pattern. */
static const struct
{
	const char *name;
	void		(*make) (char *out);
	const char *pattern;
}			kinds[] = {
	{"UUID, version 4", make_uuid4, NULL},
	{"UUID, version 7", make_uuid7, NULL},
	{"UUID without dashes", NULL, "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"},
	{"SHA-256 in hexadecimal", NULL, "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"},
	{"Stripe id (pi_3..., evt_1...)", NULL, "pi_3aaaaaaaaaaaaaaaaaaaaaaa"},
	{"Unix time, seconds", make_unix_s, NULL},
	{"Unix time, milliseconds", make_unix_ms, NULL},
	{"Unix time, microseconds", make_unix_us, NULL},
	{"Unix time, nanoseconds", make_unix_ns, NULL},
	{"ISO timestamp", make_iso, NULL},
	{"timestamp of 20 digits", make_compact_time, NULL},
	{"two ISO dates", make_two_dates, NULL},
	{"telephone, +49 151 23456789", NULL, "+89 899 99999999"},
	{"telephone, +4915123456789", NULL, "+8999999999999"},
	{"telephone, (415) 555-2671", NULL, "(899) 899-9999"},
	{"telephone, 0151 23456789", NULL, "\\0899 99999999"},
	{"two telephones, 415-555-2671", NULL, "899-899-9999 899-899-9999"},
	{"order number of 6 digits", NULL, "899999"},
	{"order number of 10 digits", NULL, "8999999999"},
	{"order number of 12 digits", NULL, "899999999999"},
	{"order number of 13 digits", NULL, "8999999999999"},
	{"order number of 14 digits", NULL, "89999999999999"},
	{"order number of 16 digits", NULL, "8999999999999999"},
	{"order number of 18 digits", NULL, "899999999999999999"},
	{"order number of 19 digits", NULL, "8999999999999999999"},
	{"order_ and 16 digits", NULL, "order_8999999999999999"},
	{"order number 123-1234567-1234567", NULL, "999-9999999-9999999"},
	{"snowflake id", make_snowflake, NULL},
	{"invoice number INV-2026-000123", NULL, "INV-\\2\\0\\2\\6-999999"},
	{"IBAN, DE", NULL, "DE99999999999999999999"},
	{"IBAN, DE, in groups", NULL, "DE99 9999 9999 9999 9999 99"},
	{"IBAN, GB, in groups", NULL, "GB99 AAAA 9999 9999 9999 99"},
	{"IBAN, FR, in groups", NULL, "FR99 9999 9999 99aa aaaa aaaa a99"},
	{"tracking number 1Z...", NULL, "1Zaaaaaa9999999999"},
	{"tracking number of 22 digits", NULL, "\\9\\4\\0\\0999999999999999999"},
	{"tracking number of 22, in groups", NULL, "\\9\\4\\0\\0 9999 9999 9999 9999 99"},
	{"tracking number of 15 digits", NULL, "899999999999999"},
	{"EAN-13", make_ean, NULL},
	{"EAN-13 that begins with 4", make_ean_4, NULL},
	{"ISBN-13", make_isbn, NULL},
	{"IMEI", make_imei, NULL},
	{"decimal fraction of 16 digits", NULL, "\\0.9999999999999999"},
	{"4 random groups of 4 digits", NULL, "9999 9999 9999 9999"},
	{"Visa card", make_visa, NULL},
	{"Visa card, in groups", make_visa_spaced, NULL},
	{"Mastercard card", make_mastercard, NULL},
	{"American Express card", make_amex, NULL}
};

int
main(int argc, char **argv)
{
	long		n = argc > 1 ? atol(argv[1]) : 1000000;
	size_t		i;

	state = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
	printf("%ld of each, seed %" PRIu64 "\n", n, state);
	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
	{
		char		text[100];
		long		taken = 0;
		long		k;

		for (k = 0; k < n; k++)
		{
			if (kinds[i].make)
				kinds[i].make(text);
			else
				fill(text, kinds[i].pattern);
			taken += sl_card_is_in(text, strlen(text));
		}
		printf("%-34s %-40s %9.4f %%\n", kinds[i].name, text, 100.0 * taken / n);
	}
	return 0;
}
