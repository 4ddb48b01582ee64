/*-------------------------------------------------------------------------
 *
 * test_redact.c
 *	  What is masked in a line of the log, and what is left to be read.
 *
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "redact.h"

typedef struct Case
{
	const char *text;
	const char *masked;			/* NULL: the same */
} Case;

/*
 * In a buffer of exactly its size.  What is true of every text is checked
 * here: twice is as good as once, and asking finds what doing does.
 */
static const char *
redacted(const char *text, bool cut_lines)
{
	static char *result;
	size_t		len = strlen(text);
	char	   *work = malloc(len > 0 ? len : 1);
	size_t		found;

	memcpy(work, text, len);
	found = sl_redact(work, len, cut_lines);
	CHECK((found > 0) == (memcmp(work, text, len) != 0));
	if (!cut_lines)
		CHECK(sl_redact_finds(text, len) == (found > 0));
	CHECK_INT(sl_redact(work, len, cut_lines), 0);

	free(result);
	result = malloc(len + 1);
	memcpy(result, work, len);
	result[len] = '\0';
	free(work);
	return result;
}

static void
check_cases(const Case *cases, size_t n, bool cut_lines)
{
	size_t		i;

	for (i = 0; i < n; i++)
	{
		const char *masked = cases[i].masked ? cases[i].masked : cases[i].text;

		unit_case("%s", cases[i].text);
		CHECK_STR(redacted(cases[i].text, cut_lines), masked);
	}
	unit_case(NULL);
}

static void
test_keys(void)
{
	static const Case cases[] = {
		{"sk_live_51Habc", "sk_live_******"},
		{"sk_test_x", "sk_test_*"},
		{"rk_live_51Habc_DEF", "rk_live_**********"},
		{"rk_test_51Habc", "rk_test_******"},
		{"ek_test_YWNjdF8x", "ek_test_********"},
		{"sk_org_live_abc", "sk_org_********"},
		{"Authorization: Bearer sk_live_abc123", "Authorization: Bearer sk_live_******"},
		{"'sk_live_abc'", "'sk_live_***'"},
		{"https://sk_live_abc:@api.stripe.com", "https://sk_live_***:@api.stripe.com"},
		{"key=sk_live_abc&x", "key=sk_live_***&x"},
		{"\"\\nsk_live_abc\"", "\"\\nsk_live_***\""},
		{"sk_live_abc sk_test_abc,rk_live_abc", "sk_live_*** sk_test_***,rk_live_***"},
		/* within a word, if it is as long as a key */
		{"mysk_live_" "abcdefgh12345678", "mysk_live_****************"},
		{"Bearer%20sk_live_" "abcdefgh12345678", "Bearer%20sk_live_****************"},
		{"sk_51HabcdefghijklmnopQRS", "sk_**********************"},
		/* other names */
		{"task_live_status", NULL}, {"risk_test_data_of_2026", NULL},
		{"sk_customer_id", NULL}, {"sk_date", NULL}, {"sk_", NULL},
		{"dim_customer.sk_customer_identifier", NULL}, {"pk_live_51Habcdefghijklmnop", NULL},
		{"sk_live_", NULL}, {"sk_live_*****1234", NULL}, {"SK_LIVE_abc", NULL}, {"k_live_abc", NULL},
		{"sk", NULL}, {"_", NULL}, {"sk_live", NULL},
	};

	check_cases(cases, UNIT_LENGTH(cases), false);
}

static void
test_signing_secrets(void)
{
	static const Case cases[] = {
		{"whsec_abc123", "whsec_******"},
		{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_********************************"},
		{"whsec_a+b/c==", "whsec_*******"},
		{"label whsec_x\nother whsec_y", "label whsec_*\nother whsec_*"},
		{"xwhsec_abc", "xwhsec_***"},
		{"whsec_", NULL}, {"whsec_...", NULL}, {"the whsec_ prefix", NULL}, {"whse_c", NULL},
		{"webhook_secret_file", NULL},
	};

	check_cases(cases, UNIT_LENGTH(cases), false);
}

static void
test_client_secrets(void)
{
	static const Case cases[] = {
		{"pi_3MtwBw_secret_YrKJUK", "pi_3MtwBw_secret_******"},
		{"pi_one_secret_x", "pi_one_secret_*"},
		{"seti_1Mm8_secret_Nfs", "seti_1Mm8_secret_***"},
		{"client_secret=pi_1_secret_abc&payment_method=pm_1", "client_secret=pi_1_secret_***&payment_method=pm_1"},
		{"{\"client_secret\": \"pi_1_secret_abc\"}", "{\"client_secret\": \"pi_1_secret_***\"}"},
		{"cs_test_a1B2c3_secret_fidwbEhqYWAnPydg", "cs_test_a1B2c3_secret_****************"},
		{"fcsess_1ABC_secret_abcdefgh", "fcsess_1ABC_secret_********"},
		{"\\npi_1_secret_abc", "\\npi_1_secret_***"},
		{"pi_1_secret_a pi_2_secret_b", "pi_1_secret_* pi_2_secret_*"},
		{"pi_1_secret_a_secret_b", "pi_1_secret_**********"},
		{"pi_1_secret_", NULL}, {"pi_1_secret", NULL}, {"_secret_abcdefgh1", NULL},
		{"my_secret_santa_event_2026", NULL}, {"app_client_secret_key_id", NULL},
		{"pi_%_secret_%", NULL}, {"stripe_lifecycle.webhook_secret_file", NULL},
		{"table2_secret_x", NULL}, {"my_table2_secret_x", NULL},
	};

	check_cases(cases, UNIT_LENGTH(cases), false);
}

static void
test_cards(void)
{
	static const Case cases[] = {
		{"Failing row contains (1, 4242424242424242, null).", "Failing row contains (1, ****************, null)."},
		{"4242 4242-4242 4242", "**** ****-**** ****"},
		{"4242424242424242 4111111111111111", "**************** ****************"},
		{"4242424242424242.50", "****************.**"},
		{"4242424242424242.4111111111111111", "****************.****************"},
		{"\xef\xbc\x94\xef\xbc\x92\xef\xbc\x94\xef\xbc\x92" "424242424242", "************" "************"},
		{"4242\\u00a04242\\u00a04242\\u00a04242", "****\\u00a0****\\u00a0****\\u00a0****"},
		{"order_4242424242424242", NULL}, {"4242424242424241", NULL},
		{"42424242-4242-4242-4242-424242424242", NULL},
		{"0.4242424242424242", NULL},
		{"duration: 0.123 ms", NULL},
	};

	check_cases(cases, UNIT_LENGTH(cases), false);
}

/* PostgreSQL cuts values in details, contexts and parameters. */
static void
test_cut(void)
{
	static const Case cases[] = {
		{"4242424242424...", "*************..."},
		{"(4242 4242 42...)", "(**** **** **...)"},
		{"4242 4242 4242 ...", "**** **** **** ..."},
		{"...242424242424242", "...***************"},
		{"... 4242 4242 4242", "... **** **** ****"},
		{"...42424", "...*****"}, {"...-10005", "...-*****"},
		{"...cret_YrKJUKribcBjcG8HVhfZ\"", "...*************************\""},
		{"sk_live_abc...", "sk_live_***..."},
		{"...4242424242...", "...**********..."},
		/* what may be shown, and what is none */
		{"424242...", NULL}, {"...4242", NULL}, {"... 4242", NULL}, {"... 12345 rows", NULL}, {"and so on ...", NULL},
		{"a4242424242424...", NULL}, {"...4242424242x", NULL},
		{"...some_long_name_of_a_column", NULL}, {"...", NULL}, {"....", NULL},
		{"424242424242424..", NULL}, {"424242424242424", NULL},
		{"line 4242424\nline 4242424", NULL},
	};
	static const Case lines[] = {
		{"Process 1: SELECT 424242424242424\nProcess 2: x", "Process 1: SELECT ***************\nProcess 2: x"},
		{"SELECT 424242424242424", "SELECT ***************"},
		{"Process 4242", NULL}, {"x\n\ny\n", NULL}, {"", NULL},
	};

	check_cases(cases, UNIT_LENGTH(cases), false);
	check_cases(lines, UNIT_LENGTH(lines), true);
}

/* As bytea_out writes it. */
static const char *
hex(const char *before, const char *text, const char *after)
{
	static char result[4][2000];
	static int	turn;
	char	   *at = result[turn++ % 4];
	char	   *start = at;

	at += sprintf(at, "%s\\x", before);
	for (; *text; text++)
		at += sprintf(at, "%02x", (unsigned char) *text);
	strcpy(at, after);
	return start;
}

static void
test_hex(void)
{
	static const Case cases[] = {
		{"{\"client_secret\": \"pi_1_secret_abc\"}", "{\"client_secret\": \"pi_1_secret_***\"}"},
		{"4242424242424242", "****************"},
		{"sk_live_abc", "sk_live_***"},
		{"whsec_abc", "whsec_***"},
		{"whsec_abc whsec_def 4242 4242 4242 4242", "whsec_*** whsec_*** **** **** **** ****"},
		{"42424242424242", "**************"},	/* may be cut */
		{"nothing", NULL}, {"", NULL},
	};
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(cases); i++)
	{
		const char *masked = cases[i].masked ? cases[i].masked : cases[i].text;

		unit_case("%s", cases[i].text);
		CHECK_STR(redacted(hex("$1 = '", cases[i].text, "', $2 = 'x'"), false),
				  hex("$1 = '", masked, "', $2 = 'x'"));
		CHECK_STR(redacted(hex("E'\\", cases[i].text, "7"), false),
				  hex("E'\\", masked, "7"));
	}
	unit_case(NULL);
	CHECK_STR(redacted("\\x", false), "\\x");
	CHECK_STR(redacted("\\x7", false), "\\x7");
	CHECK_STR(redacted("\\xzz", false), "\\xzz");
	CHECK_STR(redacted("x73", false), "x73");
	CHECK_STR(redacted("\\", false), "\\");
	CHECK_STR(redacted("\\x4242424242424242", false), "\\x4242424242424242");
}

/* Not what the secrets are, and only what is a card's. */
static void
test_cards_alone(void)
{
	char		text[] = "pi_1_secret_x 4242424242424242 424242424242424...";

	CHECK_INT(sl_redact_cards(text, strlen(text)), 1);
	CHECK_STR(text, "pi_1_secret_x **************** 424242424242424...");
	CHECK_INT(sl_redact_cards(text, strlen(text)), 0);
}

/* Bytes of no encoding, and nothing beyond the end. */
static void
test_bytes(void)
{
	char		text[] = "\xff\xfe\0sk_live_abc\0" "4242424242424242\x80";
	char		last[] = "whsec_abc";

	CHECK_INT(sl_redact(text, sizeof(text) - 1, false), 2);
	CHECK(memcmp(text, "\xff\xfe\0sk_live_***\0****************\x80", sizeof(text)) == 0);
	CHECK_INT(sl_redact(last, 7, false), 1);
	CHECK_STR(last, "whsec_*bc");
	CHECK_INT(sl_redact(last, 0, false), 0);
}

/* Texts that would take for ever, were it not linear. */
static void
test_linear(void)
{
	enum
	{
		SIZE = 100000
	};
	char	   *text = malloc(SIZE);
	static const char *const patterns[] = {
		"_", "sk_", "sk_live_", "\\nsk_", "whsec_", "_secret_", "_a1_secret_", "pi_", "_a_secret_",
		"seti_1_secret_", "a", ".", "...", "...1", "1...", "4 ", "\\x", "\\x4", "\\", "\n", "1\n",
	};
	size_t		i;
	size_t		j;
	int			cut;

	for (i = 0; i < UNIT_LENGTH(patterns); i++)
		for (cut = 0; cut < 2; cut++)
		{
			size_t		len = strlen(patterns[i]);

			for (j = 0; j < SIZE; j++)
				text[j] = patterns[i][j % len];
			unit_case("%s", patterns[i]);
			(void) sl_redact_finds(text, SIZE);
			(void) sl_redact(text, SIZE, cut);
			CHECK_INT(sl_redact(text, SIZE, cut), 0);
		}
	free(text);
	unit_case(NULL);
}

int
main(void)
{
	test_keys();
	test_signing_secrets();
	test_client_secrets();
	test_cards();
	test_cut();
	test_hex();
	test_cards_alone();
	test_bytes();
	test_linear();
	return unit_done();
}
