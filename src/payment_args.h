/*-------------------------------------------------------------------------
 *
 * payment_args.h
 *	  The arguments of create_payment() and confirm_payment().
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_PAYMENT_ARGS_H
#define SL_PAYMENT_ARGS_H

#include "fmgr.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

#include "store.h"

/* Checked and normalised; palloc'd where they were read. */
typedef struct SlPaymentArgs
{
	int64		amount;
	char	   *currency;		/* lower case */
	char	   *idempotency_key;
	char	   *description;	/* this and the next two may be NULL */
	char	   *customer;
	char	   *receipt_email;
	char	   *capture_method;
	char	   *decline_policy;
	bool		decline_policy_given;
	char	   *stripe_account; /* may be NULL */
	Jsonb	   *metadata;
	Jsonb	   *params;
} SlPaymentArgs;

extern void sl_args_read(FunctionCallInfo fcinfo, SlPaymentArgs *args);
extern void sl_args_to_row(const SlPaymentArgs *args, SlRow *row);
extern const char *sl_args_difference(const SlPaymentArgs *args,
									  const SlRow *row);
extern char *sl_create_body(const SlPaymentArgs *args, const pg_uuid_t *id);
extern char *sl_params_body(Jsonb *params);

#endif							/* SL_PAYMENT_ARGS_H */
