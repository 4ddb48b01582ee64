/*-------------------------------------------------------------------------
 *
 * payment_id.h
 *	  Making and reading the ids of payments.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_PAYMENT_ID_H
#define SL_PAYMENT_ID_H

#include "utils/uuid.h"

extern pg_uuid_t *sl_payment_id_new(void);
extern bool sl_uuid_parse(const char *text, pg_uuid_t *uuid);

#endif							/* SL_PAYMENT_ID_H */
