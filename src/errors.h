/*-------------------------------------------------------------------------
 *
 * errors.h
 *	  The SQLSTATEs of this extension: class SL, one per kind of refusal.
 *
 * Applications match on these, so a code never changes its meaning.  Class
 * 40 (transaction rollback) is never raised: PostgREST retries it without
 * end.  The README lists every code with what to do about it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_ERRORS_H
#define SL_ERRORS_H

#include "utils/elog.h"

#define SL_SQLSTATE(a, b, c) MAKE_SQLSTATE('S', 'L', a, b, c)

/* the state machine and its guards */
#define SL_ERRCODE_ILLEGAL_TRANSITION		SL_SQLSTATE('0', '0', '1')
#define SL_ERRCODE_NO_EVIDENCE				SL_SQLSTATE('0', '0', '2')
#define SL_ERRCODE_IMMUTABLE_COLUMN			SL_SQLSTATE('0', '0', '3')
#define SL_ERRCODE_MAINTAINED_ROW			SL_SQLSTATE('0', '0', '4')
#define SL_ERRCODE_APPEND_ONLY				SL_SQLSTATE('0', '0', '5')
#define SL_ERRCODE_GUARD_BYPASSED			SL_SQLSTATE('0', '0', '6')
#define SL_ERRCODE_SUBSCRIBED				SL_SQLSTATE('0', '0', '7')

/* arguments */
#define SL_ERRCODE_AMOUNT					SL_SQLSTATE('0', '1', '0')
#define SL_ERRCODE_CURRENCY					SL_SQLSTATE('0', '1', '1')
#define SL_ERRCODE_IDEMPOTENCY_KEY			SL_SQLSTATE('0', '1', '2')
#define SL_ERRCODE_METADATA					SL_SQLSTATE('0', '1', '3')
#define SL_ERRCODE_PARAMS					SL_SQLSTATE('0', '1', '4')
#define SL_ERRCODE_ARGUMENT					SL_SQLSTATE('0', '1', '5')
#define SL_ERRCODE_KEY_REUSED				SL_SQLSTATE('0', '1', '6')
#define SL_ERRCODE_UNKNOWN_PAYMENT			SL_SQLSTATE('0', '1', '7')
#define SL_ERRCODE_PAYMENT_FINISHED			SL_SQLSTATE('0', '1', '8')
#define SL_ERRCODE_CARD_DATA				SL_SQLSTATE('0', '1', '9')

/* webhooks and secrets */
#define SL_ERRCODE_SECRET					SL_SQLSTATE('0', '2', '0')
#define SL_ERRCODE_BAD_SIGNATURE			SL_SQLSTATE('0', '2', '1')
#define SL_ERRCODE_STALE_SIGNATURE			SL_SQLSTATE('0', '2', '2')
#define SL_ERRCODE_BAD_HEADER				SL_SQLSTATE('0', '2', '3')
#define SL_ERRCODE_PAYLOAD_TOO_LARGE		SL_SQLSTATE('0', '2', '4')
#define SL_ERRCODE_BAD_BODY					SL_SQLSTATE('0', '2', '5')
#define SL_ERRCODE_BAD_EVENT				SL_SQLSTATE('0', '2', '6')
#define SL_ERRCODE_ISOLATION				SL_SQLSTATE('0', '2', '7')

/* operators */
#define SL_ERRCODE_UNKNOWN_REQUEST			SL_SQLSTATE('0', '4', '0')
#define SL_ERRCODE_NOT_RETRYABLE			SL_SQLSTATE('0', '4', '1')
#define SL_ERRCODE_KEY_EXPIRED				SL_SQLSTATE('0', '4', '2')
#define SL_ERRCODE_UNKNOWN_EVENT			SL_SQLSTATE('0', '4', '3')
#define SL_ERRCODE_EVENT_DECIDED			SL_SQLSTATE('0', '4', '4')

/* owners of payments */
#define SL_ERRCODE_NO_OWNER					SL_SQLSTATE('0', '5', '0')

/* HTTP */
#define SL_ERRCODE_TOO_MANY_REQUESTS		SL_SQLSTATE('0', '6', '0')
#define SL_ERRCODE_WRONG_MODE				SL_SQLSTATE('0', '6', '1')

/* library and schema */
#define SL_ERRCODE_SCHEMA_MISMATCH			SL_SQLSTATE('0', '3', '0')

/*
 * Around functions whose arguments nobody else should read (webhook bodies,
 * customers' particulars): whatever is reported in between, by whomever,
 * goes to the server log without the statement and without a context that
 * may quote it.  The client still gets both.
 */
#define SL_PRIVATE_ARGUMENTS_BEGIN() \
	do { \
		ErrorContextCallback sl_private_; \
		sl_private_.callback = sl_hide_statement; \
		sl_private_.arg = NULL; \
		sl_private_.previous = error_context_stack; \
		error_context_stack = &sl_private_

#define SL_PRIVATE_ARGUMENTS_END() \
		error_context_stack = sl_private_.previous; \
	} while (0)

extern void sl_hide_statement(void *arg);
extern bool sl_error_passes(int sqlerrcode);
extern void sl_require_writable(const char *function);
extern bool sl_error_is_of_row(int sqlerrcode);

#endif							/* SL_ERRORS_H */
