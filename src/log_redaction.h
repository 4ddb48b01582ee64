/*-------------------------------------------------------------------------
 *
 * log_redaction.h
 *	  Card numbers, keys and secrets do not reach the server's log.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_LOG_REDACTION_H
#define SL_LOG_REDACTION_H

/* Called once, from _PG_init: sets emit_log_hook. */
extern void sl_log_redaction_init(void);

#endif							/* SL_LOG_REDACTION_H */
