/*-------------------------------------------------------------------------
 *
 * http_status.h
 *	  Which HTTP status goes with which refusal.
 *
 * No PostgreSQL in here.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_HTTP_STATUS_H
#define SL_HTTP_STATUS_H

typedef struct SlHttpStatus
{
	const char *sqlstate;		/* five characters, or the two of a class */
	int			status;
	int			retry_after;	/* seconds, for the header; 0: none */
} SlHttpStatus;

/*
 * The status for an SQLSTATE; NULL if PostgREST's own choice is as good as
 * any.  Constant storage.
 */
extern const SlHttpStatus *sl_http_status(const char *sqlstate);

#endif							/* SL_HTTP_STATUS_H */
