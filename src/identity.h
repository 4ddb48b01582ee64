/*-------------------------------------------------------------------------
 *
 * identity.h
 *	  May this server send for this database, or is it a copy?
 *
 * All functions need an open SPI connection.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_IDENTITY_H
#define SL_IDENTITY_H

/* the worker */
extern bool sl_may_send(bool *known);
extern void sl_note_serving(void);
extern void sl_pause_restored(void);
extern bool sl_may_seal(void);

/* functions that queue something */
extern void sl_warn_if_paused(void);

#endif							/* SL_IDENTITY_H */
