/*-------------------------------------------------------------------------
 *
 * guc.h
 *	  The settings of stripe_lifecycle, as the rest of the library reads them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_GUC_H
#define SL_GUC_H

typedef enum SlDeclinePolicy
{
	SL_DECLINE_FINAL,
	SL_DECLINE_RETRY
} SlDeclinePolicy;

extern char *sl_api_base;
extern char *sl_api_key_file;
extern char *sl_webhook_secret_file;
extern char *sl_api_version;
extern char *sl_owner_claim;	/* "": payments have no owners */
extern int	sl_decline_policy;
extern int	sl_webhook_tolerance;	/* seconds */
extern int	sl_webhook_max_size;	/* bytes */
extern int	sl_max_in_flight;
extern int	sl_connect_timeout; /* milliseconds */
extern int	sl_request_timeout; /* milliseconds */
extern int	sl_retry_base_delay;	/* milliseconds */
extern int	sl_retry_max_delay; /* milliseconds */
extern int	sl_worker_linger;	/* milliseconds */
extern int	sl_max_databases;
extern int	sl_max_requests_per_second; /* 0: no limit */
extern bool sl_pause_on_move;
extern char *sl_databases;		/* a list; "": all */
extern int	sl_reconcile_interval;	/* seconds; 0: off */
extern int	sl_watch_after; /* seconds */

extern void sl_guc_define(void);
extern bool sl_database_is_served(const char *name);

#endif							/* SL_GUC_H */
