/*-------------------------------------------------------------------------
 *
 * launcher.h
 *	  The process that starts a worker in each database with work to do.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_LAUNCHER_H
#define SL_LAUNCHER_H

/* From _PG_init while shared_preload_libraries are being loaded. */
extern void sl_launcher_register(void);

/* Entry point, looked up by name by the postmaster's child. */
extern PGDLLEXPORT void sl_launcher_main(Datum main_arg);

#endif							/* SL_LAUNCHER_H */
