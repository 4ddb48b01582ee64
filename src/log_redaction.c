/*-------------------------------------------------------------------------
 *
 * log_redaction.c
 *	  Masks card numbers, keys and secrets in what the server is about to log.
 *
 * emit_log_hook sees every message of every process on its way to the log,
 * whatever the log's format, and before the same message goes to the client;
 * so what goes to both is masked for both.
 *
 * The hook may be called anywhere: in the postmaster, in a critical section,
 * in a signal handler, after running out of memory.  So it reports nothing,
 * allocates next to nothing, and never with an error if there is none to be
 * had.  A message's own strings were palloc'd for it by elog.c, which frees
 * them afterwards, so they are masked in place, byte for byte: positions that
 * a message holds into its internal query stay right.
 *
 * The statement is another matter: debug_query_string is what is being
 * executed.  If there is something in it, its line is left out (hide_stmt), and
 * a masked copy goes into the detail, in the form of it that clients do not get.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "tcop/tcopprot.h"
#include "utils/errcodes.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "compat.h"
#include "guc.h"
#include "log_redaction.h"
#include "redact.h"

static emit_log_hook_type prev_emit_log_hook = NULL;

static void
redact(char *s, bool cut_lines)
{
	if (s != NULL)
		(void) sl_redact(s, strlen(s), cut_lines);
}

/*
 * The statement takes its place in the detail for the log, after the detail
 * that there is.  If there is no memory for that the log has to do without it.
 */
static void
move_statement(ErrorData *edata)
{
	static const char title[] = "Statement, redacted: ";
	const char *detail = edata->detail_log != NULL ? edata->detail_log :
		edata->detail != NULL ? edata->detail : "";
	Size		detail_len = strlen(detail);
	Size		statement_len = strlen(debug_query_string);
	Size		size;
	char	   *combined;
	char	   *at;

	edata->hide_stmt = true;
	size = detail_len + 1 + strlen(title) + statement_len + 1;
	if (!AllocSizeIsValid(size))
		return;
	combined = MemoryContextAllocExtended(edata->assoc_context, size,
										  MCXT_ALLOC_NO_OOM);
	if (combined == NULL)
		return;

	memcpy(combined, detail, detail_len);
	at = combined + detail_len;
	if (detail_len > 0)
		*at++ = '\n';
	memcpy(at, title, strlen(title));
	at += strlen(title);
	memcpy(at, debug_query_string, statement_len + 1);
	redact(at, false);

	if (edata->detail_log != NULL)
		pfree(edata->detail_log);
	edata->detail_log = combined;
}

static void
redact_message(ErrorData *edata)
{
	/*
	 * Statements of other processes are quoted as pg_stat_activity has them,
	 * cut to track_activity_query_size without a sign of it.
	 */
	bool		cut_lines = !IsUnderPostmaster ||
		edata->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED;

	redact(edata->message, false);
	redact(edata->detail, cut_lines);
	redact(edata->detail_log, cut_lines);
	redact(edata->hint, false);
	redact(edata->context, false);
	redact(edata->internalquery, false);
	redact(edata->backtrace, false);

	/* a column of csvlog and jsonlog, and %a of log_line_prefix */
	redact(application_name, false);

	if (check_log_of_query(edata) &&
		sl_redact_finds(debug_query_string, strlen(debug_query_string)))
		move_statement(edata);
}

static void
redact_log(ErrorData *edata)
{
	if (sl_log_redaction)
		redact_message(edata);
	if (prev_emit_log_hook)
		prev_emit_log_hook(edata);
}

void
sl_log_redaction_init(void)
{
	prev_emit_log_hook = emit_log_hook;
	emit_log_hook = redact_log;
}
