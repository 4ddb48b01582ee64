/*-------------------------------------------------------------------------
 *
 * stripe_lifecycle_verify.c
 *	  The program that checks an exported audit trail, without a server.
 *
 * Options, files and what is printed; what is right and wrong is decided in
 * export_judge.c.  Needs OpenSSL and nothing of PostgreSQL, so that an auditor
 * can build and run it where no server is.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "audit_hash.h"
#include "checkpoint.h"
#include "checkpoint_key.h"
#include "export_judge.h"
#include "export_reader.h"
#include "log_index.h"

#define PROGRAM "stripe_lifecycle_verify"

#ifndef SL_VERSION
#define SL_VERSION "of an unknown version"
#endif

/* Exit statuses, as --help has them. */
#define STATUS_GOOD		0
#define STATUS_BAD		1
#define STATUS_TROUBLE	2

/* Problems that are printed; all are counted. */
#define MAX_SHOWN		100

#define KEY_FILE_MAX	65536

typedef struct Options
{
	SlKeyRing  *ring;
	SlLogIndex *log;			/* NULL without --log */
	bool		has_trail;
	unsigned char trail[SL_CHECKPOINT_UUID_LEN];
	bool		quiet;
	const char *export;			/* NULL: none */
} Options;

static unsigned long problems = 0;

static const char usage[] =
"Checks an exported audit trail of stripe_lifecycle against its checkpoints.\n"
"\n"
"Usage:\n"
"  " PROGRAM " --public-key FILE... [--log FILE...] EXPORT\n"
"  " PROGRAM " --public-key FILE... --log FILE...\n"
"\n"
"EXPORT is what audit_export() wrote, JSON or CSV; \"-\" is the standard input.\n"
"Without it the checkpoints of the logs are checked by themselves.\n"
"\n"
"Options:\n"
"  -k, --public-key FILE  public keys (PEM, Ed25519) whose signatures count\n"
"  -l, --log FILE         server logs from elsewhere, in any format, saved before\n"
"                         the export was made; \"-\" is the standard input.  Each of\n"
"                         their checkpoints of the exported time has to be in it\n"
"  -t, --trail UUID       the trail it has to be, where logs have several\n"
"  -q, --quiet            print problems only\n"
"  -h, --help             show this help and exit\n"
"  -V, --version          show the version and exit\n"
"\n"
"--public-key and --log may be given several times.\n"
"\n"
"Exit status:\n"
"  0  whatever is sealed is as it was when it was sealed\n"
"  1  it is not, or cannot be proved to be: see what is printed\n"
"  2  nothing could be checked: wrong usage, or a file that is no export, is\n"
"     malformed or cannot be read\n";

/* ---------- messages ---------- */

__attribute__((noreturn, format(printf, 1, 2)))
static void
die(const char *format,...)
{
	va_list		args;

	fprintf(stderr, PROGRAM ": ");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n");
	exit(STATUS_TROUBLE);
}

static void
out_of_memory(void)
{
	die("out of memory");
}

static void
report(void *arg, const char *problem)
{
	(void) arg;
	problems++;
	if (problems <= MAX_SHOWN)
		printf("%s\n", problem);
	else if (problems == MAX_SHOWN + 1)
		printf("... and more\n");
}

/* ---------- files ---------- */

static FILE *
open_input(const char *path)
{
	static bool stdin_used = false;
	FILE	   *file = stdin;

	if (strcmp(path, "-") != 0)
		file = fopen(path, "rb");
	else if (stdin_used)
		die("the standard input can be read only once");
	else
		stdin_used = true;
	if (file == NULL)
		die("could not open file \"%s\": %s", path, strerror(errno));
	return file;
}

static void
read_keys(SlKeyRing *ring, const char *path)
{
	static char pem[KEY_FILE_MAX];
	FILE	   *file = open_input(path);
	size_t		len = fread(pem, 1, sizeof(pem), file);
	bool		failed = ferror(file) != 0;
	SlKeyResult result;

	fclose(file);
	if (failed)
		die("could not read file \"%s\"", path);
	if (len == sizeof(pem))
		die("file \"%s\" is too large for a file of keys", path);
	result = sl_keyring_add(ring, pem, len);
	if (result != SL_KEY_OK)
		die("file \"%s\" %s", path, sl_key_result_text(result));
	if (sl_keyring_signer(ring) != NULL)
		die("file \"%s\" holds a private key; leave that on the server and make the public one of it: openssl pkey -pubout",
			path);
}

static void
read_log(const Options *options, const char *path)
{
	FILE	   *file = open_input(path);
	char	   *line = NULL;
	size_t		size = 0;
	ssize_t		len;

	while ((len = getline(&line, &size, file)) >= 0)
		if (!sl_log_index_add(options->log, options->ring, line, (size_t) len))
			out_of_memory();
	if (ferror(file))
		die("could not read file \"%s\": %s", path, strerror(errno));
	free(line);
	fclose(file);
}

static long
read_file(void *arg, char *buf, size_t n)
{
	FILE	   *file = arg;
	size_t		got = fread(buf, 1, n, file);

	return got == 0 && ferror(file) ? -1 : (long) got;
}

/* ---------- what is checked ---------- */

static void
show_counts(const SlExportJudge *judge)
{
	const SlCheckpoint *last = sl_export_judge_last(judge);
	char		text[SL_AUDIT_TIME_SIZE];
	char		trail[SL_AUDIT_UUID_SIZE];

	printf("%" PRId64 " transitions, %" PRId64 " of them not sealed yet; %" PRId64 " checkpoints",
		   sl_export_judge_transitions(judge), sl_export_judge_unsealed(judge),
		   sl_export_judge_checkpoints(judge));
	if (last != NULL)
	{
		sl_audit_time(last->sealed_at, text);
		sl_audit_uuid(last->trail, trail);
		printf(", numbers %" PRId64 " to %" PRId64 "\nnewest checkpoint: %" PRId64 " of %s, trail %s",
			   sl_export_judge_first(judge), last->number, last->number, text, trail);
	}
	printf("\n");
}

static void
check_export(const Options *options)
{
	FILE	   *file = open_input(options->export);
	SlExportReader *reader = sl_export_reader_new(read_file, file);
	SlExportJudge *judge = sl_export_judge_new(options->ring, options->log,
											   options->has_trail ? options->trail : NULL,
											   report, NULL);
	SlExportRecord record;
	SlExportResult result;
	const char *error = NULL;

	if (reader == NULL || judge == NULL)
		out_of_memory();
	while ((result = sl_export_read(reader, &record)) == SL_EXPORT_OK &&
		   sl_export_judge_record(judge, &record, &error))
		 /* judged */ ;
	if (result != SL_EXPORT_END)
		die("%s, line %lu: %s", options->export, sl_export_reader_line(reader),
			result == SL_EXPORT_FAILED ? sl_export_reader_error(reader) : error);
	sl_export_judge_end(judge);
	if (!options->quiet)
	{
		show_counts(judge);
		if (options->log != NULL && sl_export_judge_not_logged(judge) > 0)
			printf("%" PRId64 " of the checkpoints are not in the log\n",
				   sl_export_judge_not_logged(judge));
		if (options->log == NULL)
			printf("no log was given: checkpoints that were removed at the end would not be missed\n");
	}
	sl_export_judge_free(judge);
	sl_export_reader_free(reader);
	fclose(file);
}

static void
check_log(const Options *options)
{
	sl_judge_log(options->log, options->has_trail ? options->trail : NULL,
				 report, NULL);
	if (!options->quiet)
		printf("%zu checkpoints in the log\n", sl_log_index_count(options->log));
}

/* ---------- options ---------- */

static void
read_trail(Options *options, const char *uuid)
{
	char		again[SL_AUDIT_UUID_SIZE];
	char		hex[2 * SL_CHECKPOINT_UUID_LEN];
	size_t		n = 0;

	options->has_trail = true;
	for (const char *p = uuid; *p != '\0'; p++)
		if (*p != '-' && n < sizeof(hex))
			hex[n++] = *p;
	if (!sl_hex_decode(hex, n, options->trail, sizeof(options->trail)) ||
		(sl_audit_uuid(options->trail, again), strcmp(again, uuid) != 0))
		die("\"%s\" is no trail: a UUID in lower case is expected", uuid);
}

/* Keys first, whatever the order of the options: logs are read by them. */
static void
read_options(Options *options, int argc, char **argv)
{
	static const struct option known[] = {
		{"public-key", required_argument, NULL, 'k'},
		{"log", required_argument, NULL, 'l'},
		{"trail", required_argument, NULL, 't'},
		{"quiet", no_argument, NULL, 'q'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{NULL, 0, NULL, 0}
	};
	const char **logs = calloc((size_t) argc, sizeof(char *));
	int			nlogs = 0;
	int			option;
	int			i;

	if (logs == NULL)
		out_of_memory();
	while ((option = getopt_long(argc, argv, "k:l:t:qhV", known, NULL)) != -1)
	{
		switch (option)
		{
			case 'k':
				read_keys(options->ring, optarg);
				break;
			case 'l':
				logs[nlogs++] = optarg;
				break;
			case 't':
				read_trail(options, optarg);
				break;
			case 'q':
				options->quiet = true;
				break;
			case 'h':
				fputs(usage, stdout);
				exit(STATUS_GOOD);
			case 'V':
				puts(PROGRAM " " SL_VERSION);
				exit(STATUS_GOOD);
			default:
				fprintf(stderr, "Try \"" PROGRAM " --help\".\n");
				exit(STATUS_TROUBLE);
		}
	}
	if (argc - optind > 1)
		die("there is more than one export; check them one by one");
	options->export = argv[optind];
	if (options->export == NULL && nlogs == 0)
		die("there is nothing to check; try \"" PROGRAM " --help\"");
	options->log = nlogs == 0 ? NULL : sl_log_index_new();
	if (nlogs > 0 && options->log == NULL)
		out_of_memory();
	for (i = 0; i < nlogs; i++)
		read_log(options, logs[i]);
	if (options->log != NULL)
		sl_log_index_sort(options->log);
	free(logs);
}

int
main(int argc, char **argv)
{
	Options		options = {0};

	options.ring = sl_keyring_new();
	if (options.ring == NULL)
		out_of_memory();
	read_options(&options, argc, argv);
	if (options.export != NULL)
		check_export(&options);
	else
		check_log(&options);

	if (options.log != NULL && !options.quiet &&
		sl_log_index_unsigned(options.log) > 0)
		printf("%zu lines of the log look like checkpoints, but are not signed by a given key\n",
			   sl_log_index_unsigned(options.log));
	if (problems > 0)
		printf("FAILED: %lu problem%s found\n", problems, problems == 1 ? "" : "s");
	else if (!options.quiet)
		printf("OK\n");
	sl_log_index_free(options.log);
	sl_keyring_free(options.ring);
	if (fflush(stdout) != 0 || ferror(stdout))
		die("could not write to the standard output");
	return problems > 0 ? STATUS_BAD : STATUS_GOOD;
}
