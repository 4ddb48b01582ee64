/*-------------------------------------------------------------------------
 *
 * test_card_number.c
 *	  What is taken for a card number, and what is not.
 *
 * The numbers are the networks' and Stripe's own test numbers, which no bank
 * issues.
 *
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "card_number.h"

/* Every network, in the lengths that it uses. */
static const char *const cards[] = {
	/* Visa: 13, 16, 19 */
	"4222222222222", "4242424242424242", "4111111111111111",
	"4000056655665556", "4000000000000000006",
	/* Mastercard: 51 to 55, 2221 to 2720 */
	"5555555555554444", "5105105105105100", "5200828282828210",
	"2221000000000009", "2223003122003222", "2720990000000007",
	/* American Express */
	"378282246310005", "371449635398431", "343434343434343",
	/* Diners Club: 14 to 19 */
	"30569309025904", "38520000023237", "36227206271667",
	"3056930009020004", "3095000000000000",
	/* Discover */
	"6011111111111117", "6011000990139424", "6445644564456445",
	"6500000000000002",
	/* JCB */
	"3530111333300000", "3566002020360505",
	/* UnionPay: 16 to 19 */
	"6200000000000005", "6205500000000000004", "8171999927660000",
	/* Maestro: 13 to 19 */
	"6759649826438453", "6799990100000000019", "50339619890917",
	"586824160825533338", "6331101999990016",
	/* RuPay, Mir, Hipercard, Elo, Troy, Verve */
	"6074820000000009", "2201382000000013", "6062826786276634",
	"6362970000457013", "9792000000000003", "5060990580000217499",
};

static bool
is_card(const char *text)
{
	return sl_card_is_in(text, strlen(text));
}

/* The first number found, as text; "" if there is none. */
static const char *
found(const char *text)
{
	static char result[200];
	SlText		t = {text, strlen(text), false};
	size_t		start;
	size_t		end;

	if (!sl_card_find(&t, 0, &start, &end))
		return "";
	snprintf(result, sizeof(result), "%.*s", (int) (end - start), text + start);
	return result;
}

/* Each in many a disguise; and none of it with another last digit. */
static void
test_networks(void)
{
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(cards); i++)
	{
		char		changed[SL_CARD_MAX_DIGITS + 1];
		char		spaced[2 * SL_CARD_MAX_DIGITS + 1];
		size_t		len = strlen(cards[i]);
		size_t		j;
		int			d;

		unit_case("%s", cards[i]);
		CHECK(is_card(cards[i]));

		strcpy(changed, cards[i]);
		for (d = 1; d < 10; d++)
		{
			changed[len - 1] = (char) ('0' + (cards[i][len - 1] - '0' + d) % 10);
			CHECK(!is_card(changed));
		}
		for (j = 0; j < len; j++)
		{
			spaced[2 * j] = cards[i][j];
			spaced[2 * j + 1] = j % 3 == 0 ? '-' : ' ';
		}
		spaced[2 * len - 1] = '\0';
		CHECK_STR(found(spaced), spaced);
	}
	unit_case(NULL);
}

/* Right by Luhn's rule, and no network's, or not in this length. */
static void
test_prefixes(void)
{
	static const char *const none[] = {
		"0000000000000000", "1234567890123452", "1111111111111117",
		"7992739871371300", "9999999999999995",
		"42424242424242", "424242424242424", "424242424242424247",	/* Visa */
		"5555555555555557555",	/* Mastercard of 19 */
		"5000000000009",		/* right length, wrong digit */
		"378282246310005005",	/* Amex of 18 */
		"2220000000000000", "2721000000000004",
		"3527000000000007", "3590000000000006",
		"6430000000000000006111",
		"411111111111",			/* 12 digits */
		"41111111111111111111", /* 20 */
		"42424242424242424242424242424242",
	};
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(none); i++)
	{
		unit_case("%s", none[i]);
		CHECK(!is_card(none[i]));
	}
	unit_case(NULL);
}

/* Whatever stands around it. */
static void
test_found(void)
{
	static const struct
	{
		const char *text;
		const char *number;
	}			cases[] = {
		{"4242 4242 4242 4242", "4242 4242 4242 4242"},
		{"4242-4242-4242-4242", "4242-4242-4242-4242"},
		{"4242  4242 - 4242 --  4242", "4242  4242 - 4242 --  4242"},
		{"42 42424242424 242", "42 42424242424 242"},
		{"3782 822463 10005", "3782 822463 10005"},
		{"card 4242424242424242.", "4242424242424242"},
		{"card:4242424242424242;", "4242424242424242"},
		{"(4242424242424242)", "4242424242424242"},
		{"**4242424242424242**", "4242424242424242"},
		{"#4242424242424242/12", "4242424242424242"},
		{"4242424242424242@example.com", "4242424242424242"},
		{"card[number]=4242424242424242&x", "4242424242424242"},
		{"{\"n\":4242424242424242}", "4242424242424242"},
		{"'4242424242424242'", "4242424242424242"},
		{"-4242424242424242", "4242424242424242"},
		{"card-4242424242424242", "4242424242424242"},
		{"\n4242424242424242\n", "4242424242424242"},
		/* a number, a date, a code */
		{"4242424242424242 12/27", "4242424242424242"},
		{"4242 4242 4242 4242 0127 123", "4242 4242 4242 4242"},
		{"4242424242424242.00", "4242424242424242.00"},
		{"4242424242424242.00 .5x", "4242424242424242.00"},
		{"4242424242424242.5x", "4242424242424242"},
		{"1 4242424242424242", "4242424242424242"},
		{"12345 4242 4242 4242 4242", "4242 4242 4242 4242"},
		{"12345678901234567890 4242424242424242", "4242424242424242"},
		{"v2 4242424242424242", "4242424242424242"},
		/* two of them, and two that overlap */
		{"4242424242424242 4111111111111111", "4242424242424242"},
		{"4242424242424242,4111111111111111", "4242424242424242"},
		{"4242 4242 4242 4242 4242 4242", "4242 4242 4242 4242 4242 4242"},
		/* other alphabets */
		{"\xe5\x8d\xa1\xe5\x8f\xb7" "4242424242424242", "4242424242424242"},
		{"\xe2\x82\xac" "4242424242424242\xe2\x82\xac", "4242424242424242"},
		{"4242\xc2\xa0" "4242\xe2\x80\x91" "4242\xe2\x80\x8b" "4242",
		"4242\xc2\xa0" "4242\xe2\x80\x91" "4242\xe2\x80\x8b" "4242"},
		/* escapes, as in JSON and SQL */
		{"card:\\n4242424242424242\\n", "4242424242424242"},
		{"\\t4242424242424242", "4242424242424242"},
		{"\\u00a04242424242424242", "4242424242424242"},
		{"\\uff4d4242424242424242", "4242424242424242"},
		{"4242\\u00a04242\\u20114242 4242", "4242\\u00a04242\\u20114242 4242"},
		/* too long for a telephone number */
		{"+4242424242424242", "4242424242424242"},
		{"+49 151 23456789 4242424242424242", "4242424242424242"},
		{"+49 151 2x 4222222222222", "4222222222222"},
		/* digits as JSON may write them */
		{"\\u0034242424242424242", "\\u0034242424242424242"},
		{"n: \\u0034\\u0032\\u0034\\u0032 4242 4242\\u00204242.", "\\u0034\\u0032\\u0034\\u0032 4242 4242\\u00204242"},
		/* far from where a word begins */
		{"a_word_of_nearly_every_letter_xyz\\n4242424242424242", "4242424242424242"},
		{"no number here, none there, and then: 4222222222222", "4222222222222"},
		{"zz 4222222222222 zz", "4222222222222"}, {"z4222222222222 4222222222222", "4222222222222"},
	};
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(cases); i++)
	{
		unit_case("%s", cases[i].text);
		CHECK_STR(found(cases[i].text), cases[i].number);
	}
	unit_case(NULL);
}

/* Digits of other scripts, as text and as JSON escapes. */
static void
test_scripts(void)
{
	static const char digits[] = "4242424242424242";
	static const unsigned zeroes[] = {0x0660, 0x06f0, 0x0966, 0xff10};
	size_t		i;
	size_t		j;

	for (i = 0; i < UNIT_LENGTH(zeroes); i++)
	{
		char		text[100] = "";
		char		escaped[200] = "";

		for (j = 0; j < strlen(digits); j++)
		{
			unsigned	c = zeroes[i] + (unsigned) (digits[j] - '0');
			char		utf8[4];

			if (c < 0x800)
				snprintf(utf8, sizeof(utf8), "%c%c", 0xc0 | c >> 6, 0x80 | (c & 0x3f));
			else
				snprintf(utf8, sizeof(utf8), "%c%c%c", 0xe0 | c >> 12,
						 0x80 | (c >> 6 & 0x3f), 0x80 | (c & 0x3f));
			strcat(text, utf8);
			snprintf(escaped + strlen(escaped), 8, "\\u%04X", c);
		}
		unit_case("zero is U+%04X", zeroes[i]);
		CHECK_STR(found(text), text);
		CHECK_STR(found(escaped), escaped);
	}
	unit_case(NULL);
}

/* A part of something longer, or written so as not to be one. */
static void
test_not_found(void)
{
	static const char *const none[] = {
		"", "4", "4242 4242 4242", "4242,4242,4242,4242",
		/* the documented way out */
		"order_4242424242424242", "x4242424242424242", "4242424242424242x",
		"4242424242424242_", "4242.4242.4242.4242", "4242_4242_4242_4242",
		"4242/4242/4242/4242", "42424242x42424242",
		/* tokens */
		"pi_4242424242424242", "3N4242424242424242", "evt_14242424242424242",
		"a4242-4242-4242-4242", "deadbeef4242424242424242",
		"\\x4242424242424242", "0x4242424242424242",
		/* UUIDs, of digits too */
		"550e8400-e29b-41d4-4716-446655440000",
		"42424242-4242-4242-4242-424242424242",
		"id 41111111-1111-1111-1111-111111111111.",
		"stripe_lifecycle-42424242-4242-4242-4242-424242424242-create",
		/* decimals */
		"0.4242424242424242", "1.4242424242424242", "12.4111111111111111 s",
		/* telephone numbers: nothing of 15 digits and a plus */
		"+4222222222222", "+4 4222222222222 4x", "+378282246310005", "+42 222 222 22222",
		"tel:+4-2222-2222-2222",
		/* times */
		"2024-01-15 10:30:45.123456", "2024-01-15T10:30:45Z", "20240115103045",
		"1700000000", "1700000000123", "1700000000123456", "1700000000123456789",
		/* other long numbers with letters */
		"DE89370400440532013000", "1Z999AA10123456784", "978-3-16-148410-0",
		/* cut UTF-8 and cut escapes */
		"424242424242424\xef", "424242424242424\xef\xbc", "424242424242424\\u", "\\", "\\u", "\\u004",
	};
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(none); i++)
	{
		unit_case("%s", none[i]);
		CHECK_STR(found(none[i]), "");
	}
	unit_case(NULL);

	/* NUL is a character like others */
	CHECK(sl_card_is_in("\0004242424242424242\0", 18));
	CHECK(!sl_card_is_in("42424242\00042424242", 17));
	/* nothing behind the end is looked at */
	CHECK(!sl_card_is_in("4242424242424242", 15));
	CHECK(sl_card_is_in("42424242424242424", 16));
}

/* A UUID is one only if it is whole. */
static void
test_uuid(void)
{
	CHECK_STR(found("42424242-4242-4242-"), "42424242-4242-4242");
	CHECK_STR(found("42424242-4242-4242-4242-42424242424"), "42424242-4242-4242");
	CHECK_STR(found("x 4242 4242 42424242-4242-4242-4242-424242424242"), "");
	CHECK_STR(found("4242424242424242-42424242-4242-4242-4242-424242424242"),
			  "4242424242424242");
	CHECK_STR(found("42424242-4242-4242-4242-424242424242 4242424242424242"),
			  "4242424242424242");
}

/* A bytea in hexadecimal digits is read as what it stands for. */
static void
test_hex(void)
{
	static const char digits[] =
	"7b226e223a2234323432343234323432343234323432227d";	/* {"n":"4242..."} */
	SlText		text = {digits, strlen(digits) / 2, true};
	size_t		start;
	size_t		end;
	bool		digit;

	CHECK(sl_card_find(&text, 0, &start, &end));
	CHECK_INT(start, 6);
	CHECK_INT(end, 22);
	CHECK(!sl_card_find(&text, end, &start, &end));
	CHECK_INT(sl_card_step(&text, 6, &digit), 1);
	CHECK(digit);
	CHECK_INT(sl_card_step(&text, 0, &digit), 1);
	CHECK(!digit);
	CHECK_INT(sl_card_step(&text, 1000, &digit), 0);
	text.len = 21;
	CHECK(!sl_card_find(&text, 0, &start, &end));
}

/* Texts that would take for ever, were it not linear. */
static void
test_linear(void)
{
	enum
	{
		SIZE = 400000
	};
	char	   *text = malloc(SIZE);
	static const char *const patterns[] = {
		"4", "4 ", "+4", "4-4 ", "+1 ", "42424242 4242-", "0.4", "-", "a4",
		"42424242-4242-4242-4242-424242424242-", "\\u0034", "\xef\xbc\x94",
	};
	size_t		i;
	size_t		j;

	for (i = 0; i < UNIT_LENGTH(patterns); i++)
	{
		size_t		len = strlen(patterns[i]);

		for (j = 0; j < SIZE; j++)
			text[j] = patterns[i][j % len];
		unit_case("%s", patterns[i]);
		(void) sl_card_is_in(text, SIZE);
		CHECK(text[0] == patterns[i][0]);
	}
	/* two digits with all of it between them */
	memset(text, ' ', SIZE);
	for (j = 0; j < 40; j++)
		text[j * (SIZE / 40)] = '4';
	(void) sl_card_is_in(text, SIZE);
	free(text);
	unit_case(NULL);
}

int
main(void)
{
	test_networks();
	test_prefixes();
	test_found();
	test_scripts();
	test_not_found();
	test_uuid();
	test_hex();
	test_linear();
	return unit_done();
}
