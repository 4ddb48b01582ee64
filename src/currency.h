/*-------------------------------------------------------------------------
 *
 * currency.h
 *	  Which currencies exist, and which amounts Stripe can take in them.
 *
 * Amounts are in Stripe's minor unit, which is ISO 4217's with a few
 * exceptions.  A check here only refuses what Stripe is sure to refuse:
 * minimums depend on the account's settlement currency, maximums of some
 * payment methods are lower, and both are left to Stripe.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_CURRENCY_H
#define SL_CURRENCY_H

#include <stddef.h>
#include <stdint.h>

typedef enum SlAmountCheck
{
	SL_AMOUNT_OK,
	SL_AMOUNT_NOT_POSITIVE,
	SL_AMOUNT_TOO_LARGE,
	SL_AMOUNT_NOT_MULTIPLE
} SlAmountCheck;

typedef struct SlCurrency
{
	char		code[4];		/* lower case, as in Stripe's API */
	int			decimals;		/* digits of Stripe's minor unit */
	int64_t		max_amount;		/* in minor units */
	int			multiple;		/* an amount must be a multiple of this */
} SlCurrency;

/*
 * Finds a currency by its three letters, in any case.  The result is constant
 * and lives for ever; NULL means that there is no such currency.
 */
extern const SlCurrency *sl_currency_lookup(const char *code, size_t len);

/* May this amount be charged in this currency? */
extern SlAmountCheck sl_amount_check(const SlCurrency *currency,
									 int64_t amount);

#endif							/* SL_CURRENCY_H */
