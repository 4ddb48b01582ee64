/*-------------------------------------------------------------------------
 *
 * guc.c
 *	  Defines the settings of stripe_lifecycle and checks their values.
 *
 * Contexts: whatever decides which events are believed or where money goes
 * is PGC_SIGHUP, so that it comes from the server's configuration and not
 * from a session, a role or a database (whose settings anybody may read in
 * pg_db_role_setting).  No setting holds a secret; some name files that do.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/varlena.h"

#include "compat.h"
#include "guc.h"

char	   *sl_api_base;
char	   *sl_api_key_file;
char	   *sl_webhook_secret_file;
char	   *sl_api_version;
char	   *sl_owner_claim;
int			sl_decline_policy;
int			sl_webhook_tolerance;
int			sl_webhook_max_size;
int			sl_max_in_flight;
int			sl_connect_timeout;
int			sl_request_timeout;
int			sl_retry_base_delay;
int			sl_retry_max_delay;
int			sl_worker_linger;
int			sl_max_databases;
int			sl_max_requests_per_second;
bool		sl_pause_on_move;
char	   *sl_databases;
int			sl_reconcile_interval;
int			sl_watch_after;
int			sl_event_retention;
int			sl_request_retention;
char	   *sl_checkpoint_key_file;
int			sl_checkpoint_interval;

int			sl_webhook_mode;
int			sl_webhook_lock_timeout;
int			sl_webhook_statement_timeout;
char	   *sl_webhook_path;
int			sl_http_errors;
int			sl_http_max_waiting;
char	   *sl_client_address_header;
int			sl_client_address_hops;
double		sl_rate_limit_address;
int			sl_rate_limit_address_burst;
double		sl_rate_limit_role;
int			sl_rate_limit_role_burst;
double		sl_rate_limit_webhook;
int			sl_rate_limit_webhook_burst;
bool		sl_log_redaction;

static const struct config_enum_entry decline_policies[] = {
	{"final", SL_DECLINE_FINAL, false},
	{"retry", SL_DECLINE_RETRY, false},
	{NULL, 0, false}
};

static const struct config_enum_entry webhook_modes[] = {
	{"auto", SL_MODE_AUTO, false},
	{"live", SL_MODE_LIVE, false},
	{"test", SL_MODE_TEST, false},
	{"any", SL_MODE_ANY, false},
	{NULL, 0, false}
};

static const struct config_enum_entry http_errors_values[] = {
	{"auto", SL_HTTP_ERRORS_AUTO, false},
	{"on", SL_HTTP_ERRORS_ON, false},
	{"off", SL_HTTP_ERRORS_OFF, false},
	{NULL, 0, false}
};

/* Only these may be spoken to without TLS. */
static const char *const loopback_prefixes[] = {
	"http://127.0.0.1", "http://localhost", "http://[::1]"
};

static bool
is_loopback_http(const char *url)
{
	size_t		i;

	for (i = 0; i < lengthof(loopback_prefixes); i++)
	{
		size_t		len = strlen(loopback_prefixes[i]);

		if (strncmp(url, loopback_prefixes[i], len) == 0 &&
			(url[len] == '\0' || url[len] == ':'))
			return true;
	}
	return false;
}

/* ":1" to ":65535" and then the end? */
static bool
is_port(const char *s)
{
	size_t		digits = strspn(s + 1, "0123456789");

	return *s == ':' && digits >= 1 && digits <= 5 && s[1 + digits] == '\0' &&
		atoi(s + 1) >= 1 && atoi(s + 1) <= 65535;
}

/* A host name or an address, and perhaps a port; an IPv6 address in brackets. */
static bool
is_authority(const char *s)
{
	size_t		host;

	if (*s == '[')
	{
		host = strspn(s + 1, "0123456789abcdefABCDEF:.");
		if (host == 0 || s[1 + host] != ']')
			return false;
		s += host + 2;
	}
	else
	{
		for (host = 0; isalnum((unsigned char) s[host]) || s[host] == '.' ||
			 s[host] == '-'; host++)
			 /* skip */ ;
		if (host == 0)
			return false;
		s += host;
	}
	return *s == '\0' || is_port(s);
}

/*
 * The base is a scheme and an authority and nothing else.  Anything that
 * could smuggle another host past this check (user info, white space, a
 * path, a query) is refused.
 */
static bool
check_api_base(char **newval, void **extra, GucSource source)
{
	const char *url = *newval;

	if (strncmp(url, "https://", 8) != 0 && !is_loopback_http(url))
	{
		GUC_check_errdetail("The value must begin with https://, or with http:// followed by a loopback address.");
		return false;
	}
	if (!is_authority(strstr(url, "://") + 3))
	{
		GUC_check_errdetail("The value must be a host and an optional port, without a path or a trailing slash.");
		return false;
	}
	return true;
}

/* Goes into an HTTP header: letters, digits, dot, dash and underscore only. */
static bool
check_api_version(char **newval, void **extra, GucSource source)
{
	const char *p = *newval;

	if (*p == '\0')
	{
		GUC_check_errdetail("The API version must not be empty.");
		return false;
	}
	for (; *p; p++)
	{
		if (!isalnum((unsigned char) *p) && strchr(".-_", *p) == NULL)
		{
			GUC_check_errdetail("The API version has letters, digits, dots and dashes only, such as 2026-10-28.endive.");
			return false;
		}
	}
	return true;
}

/*
 * Takes a list of names apart; NULL if it is none.  The names are in the
 * current memory context, and obey the rules for identifiers.
 */
static List *
split_names(const char *list, bool *ok)
{
	List	   *names = NIL;

	*ok = SplitIdentifierString(pstrdup(list), ',', &names);
	return names;
}

static bool
check_databases(char **newval, void **extra, GucSource source)
{
	bool		ok;

	list_free(split_names(*newval, &ok));
	if (!ok)
		GUC_check_errdetail("The value must be a list of database names, separated by commas.");
	return ok;
}

/* Does stripe_lifecycle.databases name this one?  An empty list means all. */
bool
sl_database_is_served(const char *name)
{
	List	   *names;
	ListCell   *lc;
	bool		ok;

	if (sl_databases[0] == '\0')
		return true;
	names = split_names(sl_databases, &ok);
	foreach(lc, names)
	{
		if (strcmp(lfirst(lc), name) == 0)
			return true;
	}
	return false;
}

/* PostgREST shows the names of headers in lower case. */
static bool
check_header_name(char **newval, void **extra, GucSource source)
{
	const char *p = *newval;

	if (p[strspn(p, "abcdefghijklmnopqrstuvwxyz0123456789-_")] == '\0')
		return true;
	GUC_check_errdetail("The name of a header has to be in lower case here, such as x-real-ip.");
	return false;
}

/* The limits of how much HTTP may ask of this server. */
static void
define_rate_settings(void)
{
	static const struct
	{
		const char *name;
		const char *burst_name;
		const char *description;
		const char *burst_description;
		double	   *rate;
		int		   *burst;
		int			burst_default;
	}			limits[] = {
		{"stripe_lifecycle.rate_limit_address", "stripe_lifecycle.rate_limit_address_burst",
			"Requests per second that pre_request() lets a client address make.",
			"Requests of a client address that may come at once.",
		&sl_rate_limit_address, &sl_rate_limit_address_burst, 20},
		{"stripe_lifecycle.rate_limit_role", "stripe_lifecycle.rate_limit_role_burst",
			"Requests per second that pre_request() lets a role make.",
			"Requests of a role that may come at once.",
		&sl_rate_limit_role, &sl_rate_limit_role_burst, 100},
		{"stripe_lifecycle.rate_limit_webhook", "stripe_lifecycle.rate_limit_webhook_burst",
			"Webhooks per second with a bad signature that a client address is given an account of.",
			"Webhooks of a client address with a bad signature that may come at once.",
		&sl_rate_limit_webhook, &sl_rate_limit_webhook_burst, 20}
	};
	int			i;

	for (i = 0; i < (int) lengthof(limits); i++)
	{
		DefineCustomRealVariable(limits[i].name, limits[i].description,
								 "0 sets no limit.",
								 limits[i].rate, 0, 0, 1000000,
								 PGC_SIGHUP, 0, NULL, NULL, NULL);
		DefineCustomIntVariable(limits[i].burst_name, limits[i].burst_description,
								NULL,
								limits[i].burst, limits[i].burst_default, 1, 1000000,
								PGC_SIGHUP, 0, NULL, NULL, NULL);
	}
}

static void
define_http_settings(void)
{
	DefineCustomEnumVariable("stripe_lifecycle.webhook_mode",
							 "Whether webhook() takes events of Stripe's live mode, of its test mode, or of both.",
							 "auto: of the API key's mode, if that is known.",
							 &sl_webhook_mode, SL_MODE_AUTO, webhook_modes,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("stripe_lifecycle.webhook_lock_timeout",
							"Longest time that webhook() waits for a lock.",
							"0 leaves it to lock_timeout.",
							&sl_webhook_lock_timeout, 2000, 0, 60000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("stripe_lifecycle.webhook_statement_timeout",
							"Longest time that webhook() takes.",
							"0 leaves it to statement_timeout.",
							&sl_webhook_statement_timeout, 5000, 0, 60000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomStringVariable("stripe_lifecycle.webhook_path",
							   "Path of the requests that pre_request() never turns away.",
							   "The one by which Stripe's webhooks arrive.",
							   &sl_webhook_path, "/rpc/webhook",
							   PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("stripe_lifecycle.http_errors",
							 "Whether errors are raised in the form that PostgREST turns into an HTTP status.",
							 "auto: if the HTTP request named the very function.",
							 &sl_http_errors, SL_HTTP_ERRORS_AUTO, http_errors_values,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("stripe_lifecycle.http_max_waiting",
							"Most sessions that wait in payment_status() for HTTP requests at once.",
							"Further ones are answered without waiting. Each that waits holds a connection of PostgREST's pool.",
							&sl_http_max_waiting, 5, 0, 10000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("stripe_lifecycle.client_address_header",
							   "HTTP header in which a proxy says who the client is.",
							   "Set it only if no request arrives but through that proxy. Empty: the address of the connection is the client's.",
							   &sl_client_address_header, "",
							   PGC_SIGHUP, 0, check_header_name, NULL, NULL);
	DefineCustomIntVariable("stripe_lifecycle.client_address_hops",
							"How many trusted proxies have added an address to that header.",
							"1 takes the last address, 2 the one before it.",
							&sl_client_address_hops, 1, 1, 16,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	define_rate_settings();
}

static void
define_stripe_settings(void)
{
	DefineCustomStringVariable("stripe_lifecycle.api_base",
							   "Base URL of Stripe's API.",
							   "https only; http for a stand-in on a loopback address.",
							   &sl_api_base, "https://api.stripe.com",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   check_api_base, NULL, NULL);
	DefineCustomStringVariable("stripe_lifecycle.api_key_file",
							   "File that holds Stripe's secret API key.",
							   "Owned by the server's user with mode 0600 or less, or by root with 0640 or less; re-read on reload. Keep it outside the data directory.",
							   &sl_api_key_file, "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomStringVariable("stripe_lifecycle.webhook_secret_file",
							   "File that holds the webhook signing secrets, one a line.",
							   "A line is a secret, or a label and a secret. Ownership and mode as for stripe_lifecycle.api_key_file.",
							   &sl_webhook_secret_file, "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomStringVariable("stripe_lifecycle.api_version",
							   "Stripe API version sent with every call.",
							   NULL,
							   &sl_api_version, "2026-10-28.endive",
							   PGC_SIGHUP, 0, check_api_version, NULL, NULL);
	DefineCustomEnumVariable("stripe_lifecycle.decline_policy",
							 "What a decline does to payments created without a decline_policy.",
							 "final: it fails the payment and its PaymentIntent is canceled; retry: the customer may try again.",
							 &sl_decline_policy, SL_DECLINE_FINAL,
							 decline_policies, PGC_USERSET, 0,
							 NULL, NULL, NULL);
}

static void
define_webhook_settings(void)
{
	DefineCustomIntVariable("stripe_lifecycle.webhook_tolerance",
							"Greatest difference between a webhook's signed time and now.",
							"Applies to the past and to the future alike.",
							&sl_webhook_tolerance, 300, 1, 86400,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("stripe_lifecycle.webhook_max_size",
							"Largest webhook body accepted.",
							"A larger one is refused before its signature is computed.",
							&sl_webhook_max_size, 1024 * 1024, 1024, 64 * 1024 * 1024,
							PGC_SIGHUP, GUC_UNIT_BYTE, NULL, NULL, NULL);
}

static void
define_web_settings(void)
{
	DefineCustomStringVariable("stripe_lifecycle.owner_claim",
							   "Claim of a web request's token that owns the payments it creates.",
							   "Requests then see their own payments only.  If it is empty, payments have no owners.",
							   &sl_owner_claim, "",
							   PGC_SIGHUP, 0, NULL, NULL, NULL);
}

static void
define_worker_settings(void)
{
	DefineCustomIntVariable("stripe_lifecycle.max_in_flight",
							"Most calls to Stripe a database's worker has under way at once.",
							NULL,
							&sl_max_in_flight, 16, 1, 256,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("stripe_lifecycle.connect_timeout",
							"Time allowed to connect to Stripe, TLS included.",
							NULL,
							&sl_connect_timeout, 10000, 100, 300000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("stripe_lifecycle.request_timeout",
							"Time allowed for a whole call to Stripe.",
							"After it the call's outcome is not known, and the call is repeated with the same idempotency key.",
							&sl_request_timeout, 80000, 100, 600000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("stripe_lifecycle.retry_base_delay",
							"Pause before the first retry of a call.",
							"It doubles with every further retry, with jitter.",
							&sl_retry_base_delay, 500, 10, 60000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("stripe_lifecycle.retry_max_delay",
							"Longest pause between two attempts of a call.",
							NULL,
							&sl_retry_max_delay, 60000, 10, 3600000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("stripe_lifecycle.worker_linger",
							"How long an idle worker keeps its connection to a database.",
							NULL,
							&sl_worker_linger, 3000, 0, 60000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("stripe_lifecycle.max_requests_per_second",
							"Most calls per second to each Stripe account, of all databases together.",
							"0 sets no limit until Stripe says that it is too much. Stripe allows 25 in a sandbox and 100 in live mode.",
							&sl_max_requests_per_second, 20, 0, 10000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("stripe_lifecycle.databases",
							   "Databases that workers may serve.",
							   "A list of names; if it is empty, all that have the extension.",
							   &sl_databases, "",
							   PGC_SIGHUP, GUC_LIST_INPUT, check_databases, NULL, NULL);
	DefineCustomBoolVariable("stripe_lifecycle.pause_on_move",
							 "Pause a database whose worker finds itself on another host, port or timeline.",
							 "Off: a promoted standby goes on by itself.",
							 &sl_pause_on_move, false,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
}

static void
define_reconcile_settings(void)
{
	DefineCustomIntVariable("stripe_lifecycle.reconcile_interval",
							"How often Stripe's own list of events is read for webhooks that never came.",
							"0 never does.  It is read by the worker, in databases that have payments.",
							&sl_reconcile_interval, 0, 0, 7 * 86400,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("stripe_lifecycle.watch_after",
							"Age at which a payment that has not ended is compared with its PaymentIntent at Stripe.",
							"Then again at twice that age, and so on.",
							&sl_watch_after, 900, 1, 30 * 86400,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
}

static void
define_privacy_settings(void)
{
	/* like the settings that say what is logged: a superuser's, per session too */
	DefineCustomBoolVariable("stripe_lifecycle.log_redaction",
							 "Mask card numbers, Stripe's keys and secrets in the server's log.",
							 "It also masks what the client is told, if that is logged as well.",
							 &sl_log_redaction, true,
							 PGC_SUSET, 0, NULL, NULL, NULL);
}

/*
 * Stripe lists an event for 30 days and can deliver it as long; what is removed
 * earlier could be delivered, and counted, again.
 */
#define RETENTION_MIN	(35 * 86400)

static bool
check_retention(int *newval, void **extra, GucSource source)
{
	if (*newval == 0 || *newval >= RETENTION_MIN)
		return true;
	GUC_check_errdetail("The value must be 0, or at least 35 days: Stripe can deliver an event for 30.");
	return false;
}

static void
define_retention_settings(void)
{
	DefineCustomIntVariable("stripe_lifecycle.event_retention",
							"How long events of Stripe's are kept.",
							"0 keeps them for ever. Payments and the audit trail are never removed.",
							&sl_event_retention, 0, 0, 3650 * 86400,
							PGC_SIGHUP, GUC_UNIT_S, check_retention, NULL, NULL);
	DefineCustomIntVariable("stripe_lifecycle.request_retention",
							"How long the requests of payments that have ended are kept, with the records of their calls.",
							"0 keeps them for ever.",
							&sl_request_retention, 0, 0, 3650 * 86400,
							PGC_SIGHUP, GUC_UNIT_S, check_retention, NULL, NULL);
}

static void
define_checkpoint_settings(void)
{
	DefineCustomStringVariable("stripe_lifecycle.checkpoint_key_file",
							   "File that holds the private key which signs checkpoints of the audit trail.",
							   "PEM, Ed25519; public keys that were used before may follow. Ownership and mode as for stripe_lifecycle.api_key_file. Empty: nothing is sealed.",
							   &sl_checkpoint_key_file, "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomIntVariable("stripe_lifecycle.checkpoint_interval",
							"How often new transitions of the audit trail are sealed.",
							"0 never does.",
							&sl_checkpoint_interval, 300, 0, 86400,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
}

/*
 * Define all settings; called once, from _PG_init.  Those that size shared
 * memory exist only where the library is preloaded: defining a
 * PGC_POSTMASTER setting later is a FATAL error.
 */
void
sl_guc_define(void)
{
	define_stripe_settings();
	define_webhook_settings();
	define_web_settings();
	define_worker_settings();
	define_reconcile_settings();
	define_retention_settings();
	define_checkpoint_settings();
	define_http_settings();
	define_privacy_settings();

	if (process_shared_preload_libraries_in_progress)
		DefineCustomIntVariable("stripe_lifecycle.max_databases",
								"How many databases can have work for Stripe at the same time.",
								"Sizes a table in shared memory.",
								&sl_max_databases, 64, 1, 10000,
								PGC_POSTMASTER, 0, NULL, NULL, NULL);

	MarkGUCPrefixReserved("stripe_lifecycle");
}
