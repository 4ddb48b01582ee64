/*-------------------------------------------------------------------------
 *
 * stripe_lifecycle.c
 *	  Entry point of the library: magic block and _PG_init.
 *
 * The library works without being preloaded (guards, webhooks and the
 * creation of payments then do all they do otherwise); only the worker needs
 * shared_preload_libraries, and the redaction of the log is then that of
 * sessions which have loaded the library, from that moment on.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "changes.h"
#include "compat.h"
#include "guc.h"
#include "launcher.h"
#include "limiter.h"
#include "log_redaction.h"
#include "pacing.h"
#include "rejections.h"
#include "stats.h"
#include "wake.h"

PG_MODULE_MAGIC;

void
_PG_init(void)
{
	sl_guc_define();
	sl_log_redaction_init();
	sl_wake_init();
	sl_pacing_init();
	sl_stats_init();
	sl_changes_init();
	sl_limiter_init();
	sl_rejections_init();

	/* pg_upgrade starts a server that must not send anything. */
	if (process_shared_preload_libraries_in_progress && !IsBinaryUpgrade)
		sl_launcher_register();
}
