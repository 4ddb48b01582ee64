/*-------------------------------------------------------------------------
 *
 * payment_status.h
 *	  What is said of a payment that is not there, or not the caller's.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_PAYMENT_STATUS_H
#define SL_PAYMENT_STATUS_H

/* Raises SL017, the same for an id that never was and for one not to be seen. */
extern void sl_unknown_payment(void) pg_attribute_noreturn();

#endif							/* SL_PAYMENT_STATUS_H */
