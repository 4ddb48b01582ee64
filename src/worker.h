/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  The process that calls Stripe on behalf of one database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_WORKER_H
#define SL_WORKER_H

/* Entry point, looked up by name; the argument is the database's OID. */
extern PGDLLEXPORT void sl_worker_main(Datum main_arg);

#endif							/* SL_WORKER_H */
