/*-------------------------------------------------------------------------
 *
 * version.h
 *	  Does this library fit the extension's objects in this database?
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_VERSION_H
#define SL_VERSION_H

#define SL_EXTENSION "stripe_lifecycle"

/* The Makefile defines SL_VERSION and SL_ACCEPTS. */
#if !defined(SL_VERSION) || !defined(SL_ACCEPTS)
#error "build with make, which knows the extension's version"
#endif

extern char *sl_version_problem(void);
extern const char *sl_version_hint(void);
extern bool sl_in_own_script(void);

#endif							/* SL_VERSION_H */
