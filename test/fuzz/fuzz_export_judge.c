/*-------------------------------------------------------------------------
 *
 * fuzz_export_judge.c
 *	  Arbitrary bytes as an export, as a log and as a file of keys.
 *
 * Input: a byte that says in what pieces the rest is handed out, and a text,
 * which is read in each of the three ways.  Crashes aside: a text that is read
 * in other pieces gives the same verdict; a checkpoint that is found in it is,
 * written again, the bytes it was read from; no key that made no signature
 * passes one; and no problem that is shown holds a control character, which
 * could only have come from the input.
 *
 *-------------------------------------------------------------------------
 */
#include "export_judge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Unlike assert(), never compiled away. */
#define REQUIRE(condition) \
	do { \
		if (!(condition)) \
		{ \
			fprintf(stderr, "%s:%d: not true: %s\n", \
					__FILE__, __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

/* any key; that of RFC 8032, 7.1, TEST 1 */
static const char public_key[] =
"-----BEGIN PUBLIC KEY-----\n"
"MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n"
"-----END PUBLIC KEY-----\n";

typedef struct Source
{
	const char *text;
	size_t		len;
	size_t		piece;
} Source;

/* What came of an export. */
typedef struct Verdict
{
	SlExportResult result;
	unsigned long line;
	unsigned long problems;
	int64_t		checkpoints;
	int64_t		transitions;
} Verdict;

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static long
read_piece(void *arg, char *buf, size_t n)
{
	Source	   *s = arg;
	size_t		take = s->len < s->piece ? s->len : s->piece;

	take = take < n ? take : n;
	if (take > 0)
		memcpy(buf, s->text, take);
	s->text += take;
	s->len -= take;
	return (long) take;
}

static void
count_problem(void *arg, const char *problem)
{
	Verdict    *v = arg;

	v->problems++;
	for (; *problem != '\0'; problem++)
		REQUIRE(*problem >= ' ' && *problem <= '~');
}

static Verdict
judge(const SlKeyRing *ring, SlLogIndex *log, const char *text, size_t len, size_t piece)
{
	Verdict		v = {0};
	Source		source = {text, len, piece};
	SlExportReader *reader = sl_export_reader_new(read_piece, &source);
	SlExportJudge *j = sl_export_judge_new(ring, log, NULL, count_problem, &v);
	SlExportRecord record;
	const char *error = "";

	while ((v.result = sl_export_read(reader, &record)) == SL_EXPORT_OK)
	{
		if (!sl_export_judge_record(j, &record, &error))
			break;
	}
	REQUIRE(error != NULL);
	v.line = sl_export_reader_line(reader);
	REQUIRE((v.result == SL_EXPORT_FAILED) == (sl_export_reader_error(reader)[0] != '\0'));
	sl_export_judge_end(j);
	v.checkpoints = sl_export_judge_checkpoints(j);
	v.transitions = sl_export_judge_transitions(j);
	REQUIRE(sl_export_judge_unsealed(j) <= v.transitions);
	REQUIRE((sl_export_judge_last(j) != NULL) == (v.checkpoints > 0));
	sl_export_judge_free(j);
	sl_export_reader_free(reader);
	return v;
}

/* Line by line, as a log is read. */
static SlLogIndex *
read_log(const SlKeyRing *ring, const char *text, size_t len)
{
	SlLogIndex *log = sl_log_index_new();
	const char *end = text + len;
	const char *line = text;

	while (line < end)
	{
		const char *line_end = memchr(line, '\n', (size_t) (end - line));
		const char *found;
		size_t		found_len;
		SlCheckpoint c;
		char		again[SL_CHECKPOINT_LINE_SIZE];

		if (line_end == NULL)
			line_end = end;
		if (sl_checkpoint_find(line, (size_t) (line_end - line), &found, &found_len))
		{
			REQUIRE(found >= line && found + found_len <= line_end);
			if (sl_checkpoint_read(found, found_len, &c))
				REQUIRE(sl_checkpoint_line(&c, again) == found_len &&
						memcmp(again, found, found_len) == 0);
		}
		REQUIRE(sl_log_index_add(log, ring, line, (size_t) (line_end - line)));
		line = line_end + 1;
	}
	sl_log_index_sort(log);
	return log;
}

static void
read_keys(const char *text, size_t len)
{
	SlKeyRing  *ring = sl_keyring_new();

	(void) sl_keyring_add(ring, text, len);
	REQUIRE(sl_keyring_count(ring) <= SL_MAX_CHECKPOINT_KEYS);
	sl_keyring_free(ring);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	SlKeyRing  *ring = sl_keyring_new();
	SlLogIndex *log;
	const char *text = (const char *) data + 1;
	Verdict		whole;
	Verdict		pieces;

	if (size == 0)
	{
		sl_keyring_free(ring);
		return 0;
	}
	REQUIRE(sl_keyring_add(ring, public_key, strlen(public_key)) == SL_KEY_OK);
	log = read_log(ring, text, size - 1);
	whole = judge(ring, log, text, size - 1, size);
	pieces = judge(ring, log, text, size - 1, 1 + (size_t) data[0] % 64);
	REQUIRE(whole.result == pieces.result && whole.line == pieces.line &&
			whole.problems == pieces.problems &&
			whole.checkpoints == pieces.checkpoints &&
			whole.transitions == pieces.transitions);
	/* nobody has signed anything by this key */
	REQUIRE(whole.checkpoints == 0 || whole.problems > 0);
	read_keys(text, size - 1);
	sl_log_index_free(log);
	sl_keyring_free(ring);
	return 0;
}
