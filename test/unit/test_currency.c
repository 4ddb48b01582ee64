/*-------------------------------------------------------------------------
 *
 * test_currency.c
 *	  The table of currencies and the amounts that it lets pass.
 *
 * The expectations stand here once more, written in another way than in the
 * table: as the lists of exceptions that Stripe's documentation gives.
 *
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "currency.h"

static const char all_codes[] =
"aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bhd bif bmd bnd bob "
"brl bsd btn bwp byn bzd cad cdf chf clp cny cop crc cup cve czk djf dkk dop "
"dzd egp ern etb eur fjd fkp gbp gel ghs gip gmd gnf gtq gyd hkd hnl htg huf "
"idr ils inr iqd irr isk jmd jod jpy kes kgs khr kmf kpw krw kwd kyd kzt lak "
"lbp lkr lrd lsl lyd mad mdl mga mkd mmk mnt mop mru mur mvr mwk mxn myr mzn "
"nad ngn nio nok npr nzd omr pab pen pgk php pkr pln pyg qar ron rsd rub rwf "
"sar sbd scr sdg sek sgd shp sle sos srd ssp std stn svc syp szl thb tjs tmt "
"tnd top try ttd twd tzs uah ugx usd uyu uzs ved ves vnd vuv wst xaf xcd xcg "
"xof xpf yer zar zmw zwg ";

#define ZERO_DECIMAL	"bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf "
#define THREE_DECIMAL	"bhd iqd jod kwd lyd omr tnd "
#define TIMES_HUNDRED	"isk ugx "
#define WIDE			"cop huf jpy "

static bool
listed(const char *list, const char *code)
{
	char		item[5];

	snprintf(item, sizeof(item), "%s ", code);
	return strstr(list, item) != NULL;
}

static int64_t
expected_maximum(const char *code)
{
	if (strcmp(code, "inr") == 0)
		return INT64_C(999999999);
	if (strcmp(code, "idr") == 0)
		return INT64_C(999999999999);
	if (strcmp(code, "lbp") == 0)
		return INT64_C(99999999999999);
	return listed(WIDE, code) ? INT64_C(9999999999999) : 99999999;
}

static void
check_currency(const char *code, const SlCurrency *currency)
{
	int			multiple = listed(TIMES_HUNDRED, code) ? 100 :
		listed(THREE_DECIMAL, code) ? 10 : 1;

	CHECK(currency != NULL);
	if (currency == NULL)
		return;
	CHECK_STR(currency->code, code);
	CHECK_INT(currency->decimals, listed(ZERO_DECIMAL, code) ? 0 :
			  listed(THREE_DECIMAL, code) ? 3 : 2);
	CHECK_INT(currency->multiple, multiple);
	CHECK_INT(currency->max_amount, expected_maximum(code));

	CHECK_INT(sl_amount_check(currency, multiple), SL_AMOUNT_OK);
	CHECK_INT(sl_amount_check(currency, 0), SL_AMOUNT_NOT_POSITIVE);
	CHECK_INT(sl_amount_check(currency, -multiple), SL_AMOUNT_NOT_POSITIVE);
	CHECK_INT(sl_amount_check(currency, currency->max_amount + 1),
			  SL_AMOUNT_TOO_LARGE);
	CHECK_INT(sl_amount_check(currency, currency->max_amount),
			  multiple == 1 ? SL_AMOUNT_OK : SL_AMOUNT_NOT_MULTIPLE);
}

/* Every three letters: found if listed, and only then. */
static void
test_every_code(void)
{
	char		code[4] = "aaa";
	int			found = 0;

	for (code[0] = 'a'; code[0] <= 'z'; code[0]++)
		for (code[1] = 'a'; code[1] <= 'z'; code[1]++)
			for (code[2] = 'a'; code[2] <= 'z'; code[2]++)
			{
				const SlCurrency *currency = sl_currency_lookup(code, 3);

				if (!listed(all_codes, code))
				{
					if (currency != NULL)
					{
						unit_case("code %s", code);
						CHECK(currency == NULL);
					}
					continue;
				}
				found++;
				unit_case("code %s", code);
				check_currency(code, currency);
			}
	unit_case(NULL);
	CHECK_INT(found, (int64_t) strlen(all_codes) / 4);
}

static void
test_letter_case(void)
{
	const SlCurrency *eur = sl_currency_lookup("eur", 3);

	CHECK(eur != NULL);
	CHECK(sl_currency_lookup("EUR", 3) == eur);
	CHECK(sl_currency_lookup("Eur", 3) == eur);
	CHECK(sl_currency_lookup("eUr", 3) == eur);
	CHECK(sl_currency_lookup("euR", 3) == eur);
	CHECK(sl_currency_lookup("ZMW", 3) == sl_currency_lookup("zmw", 3));
	CHECK(sl_currency_lookup("AED", 3) == sl_currency_lookup("aed", 3));
}

static void
test_no_currency(void)
{
	static const char *const none[] = {
		/* metals, funds, units of account, tests */
		"xau", "xag", "xpt", "xpd", "xdr", "xba", "xbb", "xbc", "xbd", "xsu",
		"xua", "bov", "che", "chw", "clf", "cou", "mxv", "usn", "uyi", "uyw",
		"xts", "xxx",
		/* gone, or never there */
		"dem", "frf", "hrk", "sll", "zwl", "cuc", "mro", "eud", "aaa", "zzz",
		/* no letters */
		"   ", "e r", "123", "eu\xc5", "\xff\xff\xff", "eu[", "EU@", "{ur",
	};
	static const struct
	{
		const char *code;
		size_t		len;
	}			wrong_length[] = {
		{"", 0}, {"e", 1}, {"eu", 2}, {"euro", 4}, {"eur ", 4}, {" eur", 4},
		{"eur\0", 4}, {"usdc", 4}, {"eureur", 6}, {"eur", SIZE_MAX},
	};
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(none); i++)
	{
		unit_case("code %s", none[i]);
		CHECK(sl_currency_lookup(none[i], 3) == NULL);
	}
	for (i = 0; i < UNIT_LENGTH(wrong_length); i++)
	{
		unit_case("length case %zu", i);
		CHECK(sl_currency_lookup(wrong_length[i].code,
								 wrong_length[i].len) == NULL);
	}
	unit_case(NULL);
	CHECK(sl_currency_lookup(NULL, 0) == NULL);
	CHECK(sl_currency_lookup(NULL, 3) == NULL);
	CHECK(sl_currency_lookup("\0\0", 3) == NULL);

	/* the length counts, not a NUL */
	CHECK(sl_currency_lookup("euro", 3) != NULL);
}

static void
test_amounts(void)
{
	static const struct
	{
		const char *code;
		int64_t		amount;
		SlAmountCheck expected;
	}			cases[] = {
		{"usd", 1, SL_AMOUNT_OK},
		{"usd", 50, SL_AMOUNT_OK},
		{"usd", 99999999, SL_AMOUNT_OK},
		{"usd", 100000000, SL_AMOUNT_TOO_LARGE},
		{"usd", INT64_MAX, SL_AMOUNT_TOO_LARGE},
		{"usd", -1, SL_AMOUNT_NOT_POSITIVE},
		{"usd", INT64_MIN, SL_AMOUNT_NOT_POSITIVE},
		{"usd", INT64_C(4294967297), SL_AMOUNT_TOO_LARGE},
		{"jpy", INT64_C(9999999999999), SL_AMOUNT_OK},
		{"jpy", INT64_C(10000000000000), SL_AMOUNT_TOO_LARGE},
		{"idr", INT64_C(999999999999), SL_AMOUNT_OK},
		{"idr", INT64_C(1000000000000), SL_AMOUNT_TOO_LARGE},
		{"inr", 999999999, SL_AMOUNT_OK},
		{"inr", 1000000000, SL_AMOUNT_TOO_LARGE},
		{"lbp", INT64_C(99999999999999), SL_AMOUNT_OK},
		{"lbp", INT64_C(100000000000000), SL_AMOUNT_TOO_LARGE},
		{"ugx", 500, SL_AMOUNT_OK},
		{"ugx", 5, SL_AMOUNT_NOT_MULTIPLE},
		{"ugx", 150, SL_AMOUNT_NOT_MULTIPLE},
		{"ugx", 99999900, SL_AMOUNT_OK},
		{"ugx", 100000000, SL_AMOUNT_TOO_LARGE},
		{"isk", 100, SL_AMOUNT_OK},
		{"isk", 99, SL_AMOUNT_NOT_MULTIPLE},
		{"isk", 101, SL_AMOUNT_NOT_MULTIPLE},
		{"kwd", 5120, SL_AMOUNT_OK},
		{"kwd", 5124, SL_AMOUNT_NOT_MULTIPLE},
		{"kwd", 5125, SL_AMOUNT_NOT_MULTIPLE},
		{"kwd", -5124, SL_AMOUNT_NOT_POSITIVE},
		/* divisible by a hundred for payouts only */
		{"huf", 1, SL_AMOUNT_OK},
		{"twd", 101, SL_AMOUNT_OK},
	};
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(cases); i++)
	{
		const SlCurrency *currency = sl_currency_lookup(cases[i].code, 3);

		unit_case("%" PRId64 " %s", cases[i].amount, cases[i].code);
		CHECK_INT(sl_amount_check(currency, cases[i].amount),
				  cases[i].expected);
	}
	unit_case(NULL);
}

int
main(void)
{
	test_every_code();
	test_letter_case();
	test_no_currency();
	test_amounts();
	return unit_done();
}
