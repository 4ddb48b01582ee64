/*-------------------------------------------------------------------------
 *
 * retention.h
 *	  Removes events and requests that nobody can need any more.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_RETENTION_H
#define SL_RETENTION_H

#include "datatype/timestamp.h"

/* is anything to be removed at all? */
extern bool sl_retention_is_on(void);

/* in a transaction of the worker's, with an open SPI connection */
extern TimestampTz sl_retain(void);

/* after it failed */
extern TimestampTz sl_retain_failed(int sqlerrcode);

#endif							/* SL_RETENTION_H */
