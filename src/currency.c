/*-------------------------------------------------------------------------
 *
 * currency.c
 *	  Which currencies exist, and which amounts Stripe can take in them.
 *
 * The list is ISO 4217's active currencies of countries and monetary unions.
 * Metals, fund codes, units of account and test codes can't be charged and are
 * left out; the few codes that ISO has withdrawn but Stripe still lists are
 * kept.  Whether an account can use a currency is for Stripe to say.
 *
 * Decimals, maximums and multiples follow docs.stripe.com/currencies.
 *
 *-------------------------------------------------------------------------
 */
#include "currency.h"

#include <string.h>

/* Eight digits are the rule; these are the exceptions that Stripe names. */
#define MAX_USUAL	INT64_C(99999999)
#define MAX_INR		INT64_C(999999999)
#define MAX_IDR		INT64_C(999999999999)
#define MAX_WIDE	INT64_C(9999999999999)	/* cop, huf, jpy */
#define MAX_LBP		INT64_C(99999999999999)

/*
 * Sorted by code.  isk and ugx have lost their minor unit but are sent with
 * two decimals that must be 00; in currencies with three decimals the last one
 * must be 0.
 */
static const SlCurrency currencies[] = {
	{"aed", 2, MAX_USUAL, 1},
	{"afn", 2, MAX_USUAL, 1},
	{"all", 2, MAX_USUAL, 1},
	{"amd", 2, MAX_USUAL, 1},
	{"ang", 2, MAX_USUAL, 1},	/* ISO: now xcg */
	{"aoa", 2, MAX_USUAL, 1},
	{"ars", 2, MAX_USUAL, 1},
	{"aud", 2, MAX_USUAL, 1},
	{"awg", 2, MAX_USUAL, 1},
	{"azn", 2, MAX_USUAL, 1},
	{"bam", 2, MAX_USUAL, 1},
	{"bbd", 2, MAX_USUAL, 1},
	{"bdt", 2, MAX_USUAL, 1},
	{"bgn", 2, MAX_USUAL, 1},	/* ISO: now eur */
	{"bhd", 3, MAX_USUAL, 10},
	{"bif", 0, MAX_USUAL, 1},
	{"bmd", 2, MAX_USUAL, 1},
	{"bnd", 2, MAX_USUAL, 1},
	{"bob", 2, MAX_USUAL, 1},
	{"brl", 2, MAX_USUAL, 1},
	{"bsd", 2, MAX_USUAL, 1},
	{"btn", 2, MAX_USUAL, 1},
	{"bwp", 2, MAX_USUAL, 1},
	{"byn", 2, MAX_USUAL, 1},
	{"bzd", 2, MAX_USUAL, 1},
	{"cad", 2, MAX_USUAL, 1},
	{"cdf", 2, MAX_USUAL, 1},
	{"chf", 2, MAX_USUAL, 1},
	{"clp", 0, MAX_USUAL, 1},
	{"cny", 2, MAX_USUAL, 1},
	{"cop", 2, MAX_WIDE, 1},
	{"crc", 2, MAX_USUAL, 1},
	{"cup", 2, MAX_USUAL, 1},
	{"cve", 2, MAX_USUAL, 1},
	{"czk", 2, MAX_USUAL, 1},
	{"djf", 0, MAX_USUAL, 1},
	{"dkk", 2, MAX_USUAL, 1},
	{"dop", 2, MAX_USUAL, 1},
	{"dzd", 2, MAX_USUAL, 1},
	{"egp", 2, MAX_USUAL, 1},
	{"ern", 2, MAX_USUAL, 1},
	{"etb", 2, MAX_USUAL, 1},
	{"eur", 2, MAX_USUAL, 1},
	{"fjd", 2, MAX_USUAL, 1},
	{"fkp", 2, MAX_USUAL, 1},
	{"gbp", 2, MAX_USUAL, 1},
	{"gel", 2, MAX_USUAL, 1},
	{"ghs", 2, MAX_USUAL, 1},
	{"gip", 2, MAX_USUAL, 1},
	{"gmd", 2, MAX_USUAL, 1},
	{"gnf", 0, MAX_USUAL, 1},
	{"gtq", 2, MAX_USUAL, 1},
	{"gyd", 2, MAX_USUAL, 1},
	{"hkd", 2, MAX_USUAL, 1},
	{"hnl", 2, MAX_USUAL, 1},
	{"htg", 2, MAX_USUAL, 1},
	{"huf", 2, MAX_WIDE, 1},
	{"idr", 2, MAX_IDR, 1},
	{"ils", 2, MAX_USUAL, 1},
	{"inr", 2, MAX_INR, 1},
	{"iqd", 3, MAX_USUAL, 10},
	{"irr", 2, MAX_USUAL, 1},
	{"isk", 2, MAX_USUAL, 100},	/* no minor unit left, sent with two */
	{"jmd", 2, MAX_USUAL, 1},
	{"jod", 3, MAX_USUAL, 10},
	{"jpy", 0, MAX_WIDE, 1},
	{"kes", 2, MAX_USUAL, 1},
	{"kgs", 2, MAX_USUAL, 1},
	{"khr", 2, MAX_USUAL, 1},
	{"kmf", 0, MAX_USUAL, 1},
	{"kpw", 2, MAX_USUAL, 1},
	{"krw", 0, MAX_USUAL, 1},
	{"kwd", 3, MAX_USUAL, 10},
	{"kyd", 2, MAX_USUAL, 1},
	{"kzt", 2, MAX_USUAL, 1},
	{"lak", 2, MAX_USUAL, 1},
	{"lbp", 2, MAX_LBP, 1},
	{"lkr", 2, MAX_USUAL, 1},
	{"lrd", 2, MAX_USUAL, 1},
	{"lsl", 2, MAX_USUAL, 1},
	{"lyd", 3, MAX_USUAL, 10},
	{"mad", 2, MAX_USUAL, 1},
	{"mdl", 2, MAX_USUAL, 1},
	{"mga", 0, MAX_USUAL, 1},
	{"mkd", 2, MAX_USUAL, 1},
	{"mmk", 2, MAX_USUAL, 1},
	{"mnt", 2, MAX_USUAL, 1},
	{"mop", 2, MAX_USUAL, 1},
	{"mru", 2, MAX_USUAL, 1},
	{"mur", 2, MAX_USUAL, 1},
	{"mvr", 2, MAX_USUAL, 1},
	{"mwk", 2, MAX_USUAL, 1},
	{"mxn", 2, MAX_USUAL, 1},
	{"myr", 2, MAX_USUAL, 1},
	{"mzn", 2, MAX_USUAL, 1},
	{"nad", 2, MAX_USUAL, 1},
	{"ngn", 2, MAX_USUAL, 1},
	{"nio", 2, MAX_USUAL, 1},
	{"nok", 2, MAX_USUAL, 1},
	{"npr", 2, MAX_USUAL, 1},
	{"nzd", 2, MAX_USUAL, 1},
	{"omr", 3, MAX_USUAL, 10},
	{"pab", 2, MAX_USUAL, 1},
	{"pen", 2, MAX_USUAL, 1},
	{"pgk", 2, MAX_USUAL, 1},
	{"php", 2, MAX_USUAL, 1},
	{"pkr", 2, MAX_USUAL, 1},
	{"pln", 2, MAX_USUAL, 1},
	{"pyg", 0, MAX_USUAL, 1},
	{"qar", 2, MAX_USUAL, 1},
	{"ron", 2, MAX_USUAL, 1},
	{"rsd", 2, MAX_USUAL, 1},
	{"rub", 2, MAX_USUAL, 1},
	{"rwf", 0, MAX_USUAL, 1},
	{"sar", 2, MAX_USUAL, 1},
	{"sbd", 2, MAX_USUAL, 1},
	{"scr", 2, MAX_USUAL, 1},
	{"sdg", 2, MAX_USUAL, 1},
	{"sek", 2, MAX_USUAL, 1},
	{"sgd", 2, MAX_USUAL, 1},
	{"shp", 2, MAX_USUAL, 1},
	{"sle", 2, MAX_USUAL, 1},
	{"sos", 2, MAX_USUAL, 1},
	{"srd", 2, MAX_USUAL, 1},
	{"ssp", 2, MAX_USUAL, 1},
	{"std", 2, MAX_USUAL, 1},	/* ISO: now stn */
	{"stn", 2, MAX_USUAL, 1},
	{"svc", 2, MAX_USUAL, 1},
	{"syp", 2, MAX_USUAL, 1},
	{"szl", 2, MAX_USUAL, 1},
	{"thb", 2, MAX_USUAL, 1},
	{"tjs", 2, MAX_USUAL, 1},
	{"tmt", 2, MAX_USUAL, 1},
	{"tnd", 3, MAX_USUAL, 10},
	{"top", 2, MAX_USUAL, 1},
	{"try", 2, MAX_USUAL, 1},
	{"ttd", 2, MAX_USUAL, 1},
	{"twd", 2, MAX_USUAL, 1},
	{"tzs", 2, MAX_USUAL, 1},
	{"uah", 2, MAX_USUAL, 1},
	{"ugx", 2, MAX_USUAL, 100},	/* likewise */
	{"usd", 2, MAX_USUAL, 1},
	{"uyu", 2, MAX_USUAL, 1},
	{"uzs", 2, MAX_USUAL, 1},
	{"ved", 2, MAX_USUAL, 1},
	{"ves", 2, MAX_USUAL, 1},
	{"vnd", 0, MAX_USUAL, 1},
	{"vuv", 0, MAX_USUAL, 1},
	{"wst", 2, MAX_USUAL, 1},
	{"xaf", 0, MAX_USUAL, 1},
	{"xcd", 2, MAX_USUAL, 1},
	{"xcg", 2, MAX_USUAL, 1},
	{"xof", 0, MAX_USUAL, 1},
	{"xpf", 0, MAX_USUAL, 1},
	{"yer", 2, MAX_USUAL, 1},
	{"zar", 2, MAX_USUAL, 1},
	{"zmw", 2, MAX_USUAL, 1},
	{"zwg", 2, MAX_USUAL, 1},
};

#define N_CURRENCIES	(sizeof(currencies) / sizeof(currencies[0]))

/* Not tolower(), which has a locale. */
static char
fold_letter(char c)
{
	return c >= 'A' && c <= 'Z' ? (char) (c - 'A' + 'a') : c;
}

const SlCurrency *
sl_currency_lookup(const char *code, size_t len)
{
	char		folded[3];
	size_t		low = 0;
	size_t		high = N_CURRENCIES;

	if (code == NULL || len != sizeof(folded))
		return NULL;
	folded[0] = fold_letter(code[0]);
	folded[1] = fold_letter(code[1]);
	folded[2] = fold_letter(code[2]);

	while (low < high)
	{
		size_t		middle = low + (high - low) / 2;
		int			order = memcmp(folded, currencies[middle].code,
								   sizeof(folded));

		if (order == 0)
			return &currencies[middle];
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}

SlAmountCheck
sl_amount_check(const SlCurrency *currency, int64_t amount)
{
	if (amount <= 0)
		return SL_AMOUNT_NOT_POSITIVE;
	if (amount > currency->max_amount)
		return SL_AMOUNT_TOO_LARGE;
	if (amount % currency->multiple != 0)
		return SL_AMOUNT_NOT_MULTIPLE;
	return SL_AMOUNT_OK;
}
