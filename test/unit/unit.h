/*-------------------------------------------------------------------------
 *
 * unit.h
 *	  The smallest harness that the pure rooms' tests need.
 *
 * A test program calls the CHECK macros and ends main() with
 * "return unit_done();".  A failed check is reported with its place and the
 * test goes on, so that one run shows all that is wrong.  The last line of
 * output is always "N passed, N failed"; the exit status is 1 if any failed.
 *
 * Table-driven tests name the row at hand with unit_case(), which failures
 * then show.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_UNIT_H
#define SL_UNIT_H

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNIT_UNUSED		__attribute__((unused))
#define UNIT_LENGTH(a)	(sizeof(a) / sizeof((a)[0]))

/* After so many failures only counting goes on: a log stays readable. */
#define UNIT_SHOWN		40

static unsigned long unit_passed;
static unsigned long unit_failed;
static char unit_case_name[200];

/* Names the case that the checks after this one are about; NULL for none. */
UNIT_UNUSED __attribute__((format(printf, 1, 2)))
static void
unit_case(const char *format,...)
{
	va_list		args;

	unit_case_name[0] = '\0';
	if (format == NULL)
		return;
	va_start(args, format);
	vsnprintf(unit_case_name, sizeof(unit_case_name), format, args);
	va_end(args);
}

/* Counts one check; true if it passed. */
static bool
unit_count(bool passed, const char *file, int line)
{
	if (passed)
	{
		unit_passed++;
		return true;
	}
	unit_failed++;
	if (unit_failed <= UNIT_SHOWN)
		printf("%s:%d: %s%s", file, line, unit_case_name,
			   unit_case_name[0] ? ": " : "");
	return false;
}

static void
unit_check(bool passed, const char *text, const char *file, int line)
{
	if (!unit_count(passed, file, line) && unit_failed <= UNIT_SHOWN)
		printf("not true: %s\n", text);
}

static void UNIT_UNUSED
unit_check_int(int64_t actual, int64_t expected, const char *text,
			   const char *file, int line)
{
	if (!unit_count(actual == expected, file, line) &&
		unit_failed <= UNIT_SHOWN)
		printf("%s is %" PRId64 ", expected %" PRId64 "\n",
			   text, actual, expected);
}

static void UNIT_UNUSED
unit_check_str(const char *actual, const char *expected, const char *text,
			   const char *file, int line)
{
	bool		same = actual == NULL || expected == NULL ?
		actual == expected : strcmp(actual, expected) == 0;

	if (!unit_count(same, file, line) && unit_failed <= UNIT_SHOWN)
		printf("%s is \"%s\", expected \"%s\"\n", text,
			   actual ? actual : "(null)", expected ? expected : "(null)");
}

#define CHECK(condition) \
	unit_check((condition), #condition, __FILE__, __LINE__)
#define CHECK_INT(actual, expected) \
	unit_check_int((actual), (expected), #actual, __FILE__, __LINE__)
#define CHECK_STR(actual, expected) \
	unit_check_str((actual), (expected), #actual, __FILE__, __LINE__)

/* The verdict: prints the last line and gives the exit status. */
static int
unit_done(void)
{
	if (unit_failed > UNIT_SHOWN)
		printf("(%lu more failures not shown)\n", unit_failed - UNIT_SHOWN);
	printf("%lu passed, %lu failed\n", unit_passed, unit_failed);

	/* A test that checked nothing has shown nothing. */
	return unit_failed > 0 || unit_passed == 0 ? 1 : 0;
}

#endif							/* SL_UNIT_H */
