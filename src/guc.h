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

/* Which events webhook() takes. */
typedef enum SlWebhookMode
{
	SL_MODE_AUTO,				/* those of the API key's mode */
	SL_MODE_LIVE,
	SL_MODE_TEST,
	SL_MODE_ANY
} SlWebhookMode;

/* Whether errors are raised as PostgREST answers them. */
typedef enum SlHttpErrors
{
	SL_HTTP_ERRORS_AUTO,		/* if the request named the function */
	SL_HTTP_ERRORS_ON,
	SL_HTTP_ERRORS_OFF
} SlHttpErrors;

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
extern int	sl_event_retention; /* seconds; 0: for ever */
extern int	sl_request_retention;	/* likewise */
extern char *sl_checkpoint_key_file;
extern int	sl_checkpoint_interval; /* seconds; 0: off */

/* HTTP, through PostgREST */
extern int	sl_webhook_mode;
extern int	sl_webhook_lock_timeout;	/* milliseconds; 0: the session's */
extern int	sl_webhook_statement_timeout;	/* milliseconds; likewise */
extern char *sl_webhook_path;
extern int	sl_http_errors;
extern int	sl_http_max_waiting;
extern char *sl_client_address_header;	/* in lower case; "": none */
extern int	sl_client_address_hops;
extern double sl_rate_limit_address;	/* per second; 0: no limit */
extern int	sl_rate_limit_address_burst;
extern double sl_rate_limit_role;
extern int	sl_rate_limit_role_burst;
extern double sl_rate_limit_webhook;
extern int	sl_rate_limit_webhook_burst;
extern bool sl_log_redaction;

extern void sl_guc_define(void);
extern bool sl_database_is_served(const char *name);

#endif							/* SL_GUC_H */
