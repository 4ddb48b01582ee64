/*-------------------------------------------------------------------------
 *
 * payment_status.h
 *	  What is said of a payment that is not there, or not the caller's.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_PAYMENT_STATUS_H
#define SL_PAYMENT_STATUS_H

#include "compat.h"

#include "utils/uuid.h"

/* Raises SL017, the same for an id that never was and for one not to be seen. */
pg_noreturn extern void sl_unknown_payment(void);

/* Raises that if this caller may not see the payment.  Needs SPI. */
extern void sl_require_visible(const pg_uuid_t *id);

#endif							/* SL_PAYMENT_STATUS_H */
