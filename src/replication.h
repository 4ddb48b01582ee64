/*-------------------------------------------------------------------------
 *
 * replication.h
 *	  Tables that get their rows from another server.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_REPLICATION_H
#define SL_REPLICATION_H

extern bool sl_is_replicated_write(void);
extern bool sl_is_subscribed(Oid table);
extern void sl_refuse_subscribed(Oid table);

#endif							/* SL_REPLICATION_H */
