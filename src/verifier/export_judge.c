/*-------------------------------------------------------------------------
 *
 * export_judge.c
 *	  Judges an export of the audit trail: by itself, by public keys, and by
 *	  what server logs have of its checkpoints.
 *
 * Three questions.  Is each transition what its hash says?  Are the transitions
 * those that the checkpoints sealed, and are these chained and signed
 * (sealed_trail.c)?  And are these the checkpoints that the server once logged,
 * all of those that the log has of that time?  Only the last one finds what
 * somebody does who rules over the database and over its key.
 *
 *-------------------------------------------------------------------------
 */
#include "export_judge.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sealed_trail.h"

#define PROBLEM_SIZE 512

typedef enum Place
{
	AT_BEGINNING,
	INSIDE,
	AT_END
} Place;

struct SlExportJudge
{
	const SlKeyRing *ring;
	SlLogIndex *log;
	const unsigned char *trail;
	SlProblemReport report;
	void	   *arg;

	Place		place;
	int64_t		since;			/* what was exported */
	int64_t		until;
	SlSealedTrail *sealed;
	SlAuditHash *hash;
	int64_t		first;			/* number of the first checkpoint */
	int64_t		not_logged;
};

/* Reports a problem. */
__attribute__((format(printf, 2, 3)))
static void
problem(const SlExportJudge *j, const char *format,...)
{
	char		text[PROBLEM_SIZE];
	va_list		args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	j->report(j->arg, text);
}

static void
report_finding(void *arg, int64_t number, SlFinding finding, const char *detail)
{
	problem(arg, "checkpoint %" PRId64 ": %s: %s", number,
			sl_finding_name(finding), detail);
}

SlExportJudge *
sl_export_judge_new(const SlKeyRing *ring, SlLogIndex *log,
					const unsigned char *trail, SlProblemReport report, void *arg)
{
	SlExportJudge *j = calloc(1, sizeof(SlExportJudge));
	size_t		i;

	if (j == NULL)
		return NULL;
	for (i = 0; log != NULL && i < sl_log_index_count(log); i++)
		sl_log_index_entry(log, i)->seen = false;
	j->ring = ring;
	j->log = log;
	j->trail = trail;
	j->report = report;
	j->arg = arg;
	j->sealed = sl_sealed_trail_new(ring, report_finding, j);
	j->hash = sl_audit_hash_new();
	if (j->sealed == NULL || j->hash == NULL)
	{
		sl_export_judge_free(j);
		return NULL;
	}
	return j;
}

void
sl_export_judge_free(SlExportJudge *j)
{
	if (j == NULL)
		return;
	sl_sealed_trail_free(j->sealed);
	sl_audit_hash_free(j->hash);
	free(j);
}

/* ---------- fields ---------- */

static bool
is(const SlExportField *field, const char *text)
{
	return field->bytes != NULL && field->len == strlen(text) &&
		memcmp(field->bytes, text, field->len) == 0;
}

static bool
read_number(const SlExportField *field, int64_t *value)
{
	size_t		i;

	*value = 0;
	if (field->bytes == NULL || field->len == 0 || field->len > 18)
		return false;
	for (i = 0; i < field->len; i++)
	{
		if (field->bytes[i] < '0' || field->bytes[i] > '9')
			return false;
		*value = *value * 10 + (field->bytes[i] - '0');
	}
	return true;
}

static bool
read_hash(const SlExportField *field, unsigned char *out)
{
	return field->bytes != NULL &&
		sl_hex_decode(field->bytes, field->len, out, SL_CHECKPOINT_HASH_LEN);
}

/* Infinite times are the ends of the range, as they are to checkpoints. */
static bool
read_time(const char *text, size_t len, int64_t *t)
{
	const int64_t limit = INT64_C(9000000000000000000);

	if (len == strlen("infinity") && memcmp(text, "infinity", len) == 0)
		*t = limit;
	else if (len == strlen("-infinity") && memcmp(text, "-infinity", len) == 0)
		*t = -limit;
	else
		return sl_checkpoint_time(text, len, t);
	return true;
}

/* It is shown, so it has to look like one. */
static bool
is_uuid(const SlExportField *field)
{
	size_t		i;

	if (field->bytes == NULL || field->len != 36)
		return false;
	for (i = 0; i < 36; i++)
	{
		bool		dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? field->bytes[i] != '-' :
			memchr("0123456789abcdef", field->bytes[i], 16) == NULL)
			return false;
	}
	return true;
}

/* ---------- records ---------- */

/* "stripe_lifecycle export 1 since=... until=..." */
static bool
begin(SlExportJudge *j, const SlExportField *text)
{
	static const char mark[] = "stripe_lifecycle export 1 since=";
	static const char until[] = " until=";
	const char *since;
	const char *end;
	const char *blank;

	if (text->bytes == NULL || text->len < strlen(mark) ||
		memcmp(text->bytes, mark, strlen(mark)) != 0)
		return false;
	since = text->bytes + strlen(mark);
	end = text->bytes + text->len;
	blank = memchr(since, ' ', (size_t) (end - since));
	if (blank == NULL || (size_t) (end - blank) < strlen(until) ||
		memcmp(blank, until, strlen(until)) != 0)
		return false;
	if (!read_time(since, (size_t) (blank - since), &j->since) ||
		!read_time(blank + strlen(until), (size_t) (end - blank) - strlen(until), &j->until))
		return false;
	/* only what was exported from the beginning has to have one */
	if (!is(&(SlExportField) {since, (size_t) (blank - since)}, "-infinity"))
		sl_sealed_trail_partial(j->sealed, NULL);
	j->place = INSIDE;
	return true;
}

/* Is it the one of that number which the log has? */
static void
compare_with_log(SlExportJudge *j, const SlCheckpoint *c)
{
	unsigned char hash[SL_CHECKPOINT_HASH_LEN];
	SlLogEntry *before = sl_log_index_find(j->log, c->trail, c->number - 1);
	SlLogEntry *e = sl_log_index_find(j->log, c->trail, c->number);
	size_t		n = e == NULL ? 0 : (size_t) (e - sl_log_index_entry(j->log, 0));
	bool		same = false;
	int			others = 0;

	/* later ones are compared with those before them in the export itself */
	if (j->first == c->number && before != NULL &&
		memcmp(before->hash, c->previous, sizeof(c->previous)) != 0)
		problem(j, "checkpoint %" PRId64 ": broken chain: its previous hash is not that of the one before it in the log",
				c->number);
	if (e == NULL)
	{
		j->not_logged++;
		return;
	}
	(void) sl_checkpoint_hash(c, hash);
	for (; n < sl_log_index_count(j->log); n++)
	{
		e = sl_log_index_entry(j->log, n);
		if (e->number != c->number || memcmp(e->trail, c->trail, sizeof(e->trail)) != 0)
			break;
		e->seen = true;
		if (memcmp(e->hash, hash, sizeof(hash)) == 0)
			same = true;
		else
			others++;
	}
	if (!same)
		problem(j, "checkpoint %" PRId64 ": the log has another one of that number: the trail was changed after that was made",
				c->number);
	else if (others > 0)
		problem(j, "checkpoint %" PRId64 ": the log has another one of that number as well: the trail was taken back and sealed anew",
				c->number);
}

static bool
checkpoint(SlExportJudge *j, const SlExportField *text)
{
	SlCheckpoint c;

	if (text->bytes == NULL || !sl_checkpoint_read(text->bytes, text->len, &c))
		return false;
	if (sl_sealed_trail_checkpoints(j->sealed) == 0)
	{
		j->first = c.number;
		if (j->trail != NULL && memcmp(j->trail, c.trail, sizeof(c.trail)) != 0)
			problem(j, "the export is of another trail than the one that was named");
	}
	sl_sealed_trail_checkpoint(j->sealed, &c);
	if (j->log != NULL)
		compare_with_log(j, &c);
	return true;
}

static void
check_hash(SlExportJudge *j, const SlExportRecord *r, const unsigned char *hash,
		   const unsigned char *previous)
{
	const SlExportField *f = r->fields;
	bool		is_first = is(&f[SL_AUDIT_SEQ], "1");
	unsigned char expected[SL_AUDIT_HASH_LEN];
	const char *what = NULL;
	int			i;

	sl_audit_hash_begin(j->hash, previous);
	for (i = 0; i < SL_AUDIT_NFIELDS; i++)
		sl_audit_hash_field(j->hash, f[i].bytes, f[i].len);
	if (!sl_audit_hash_finish(j->hash, expected))
		what = "its hash could not be computed";
	else if (memcmp(expected, hash, sizeof(expected)) != 0)
		what = "altered: its hash is not that of its fields and of the row before it";
	else if (is_first != (previous == NULL))
		what = is_first ? "it is the first, but says that there is one before it" :
			"there is no row before it";
	if (what != NULL)
		problem(j, "transition %.*s of payment %.*s, position %.*s: %s",
				(int) f[SL_AUDIT_SEQ].len, f[SL_AUDIT_SEQ].bytes,
				(int) f[SL_AUDIT_PAYMENT_ID].len, f[SL_AUDIT_PAYMENT_ID].bytes,
				(int) f[SL_EXPORT_POSITION].len, f[SL_EXPORT_POSITION].bytes,
				what);
}

static bool
transition(SlExportJudge *j, const SlExportRecord *r)
{
	const SlExportField *f = r->fields;
	bool		has_previous = f[SL_EXPORT_PREVIOUS_HASH].bytes != NULL;
	unsigned char hash[SL_CHECKPOINT_HASH_LEN];
	unsigned char previous[SL_CHECKPOINT_HASH_LEN];
	int64_t		position;
	int64_t		seq;
	int64_t		at;

	if (!read_number(&f[SL_EXPORT_POSITION], &position) ||
		!read_number(&f[SL_AUDIT_SEQ], &seq) ||
		!is_uuid(&f[SL_AUDIT_PAYMENT_ID]) ||
		f[SL_AUDIT_AT].bytes == NULL ||
		!read_time(f[SL_AUDIT_AT].bytes, f[SL_AUDIT_AT].len, &at) ||
		!read_hash(&f[SL_EXPORT_HASH], hash) ||
		(has_previous && !read_hash(&f[SL_EXPORT_PREVIOUS_HASH], previous)))
		return false;
	check_hash(j, r, hash, has_previous ? previous : NULL);
	sl_sealed_trail_transition(j->sealed, position, at, hash);
	return true;
}

static void
end(SlExportJudge *j, const SlExportField *text)
{
	char		expected[128];

	snprintf(expected, sizeof(expected),
			 "stripe_lifecycle end checkpoints=%" PRId64 " transitions=%" PRId64,
			 sl_sealed_trail_checkpoints(j->sealed),
			 sl_sealed_trail_transitions(j->sealed));
	if (!is(text, expected))
		problem(j, "the export counts other numbers of lines than there are: some were removed or added");
	j->place = AT_END;
}

bool
sl_export_judge_record(SlExportJudge *j, const SlExportRecord *record,
					   const char **error)
{
	const SlExportField *kind = &record->fields[SL_EXPORT_RECORD];
	const SlExportField *text = &record->fields[SL_EXPORT_TEXT];

	if (j->place == AT_END)
		*error = "there is something after the end of the export";
	else if ((j->place == AT_BEGINNING) != is(kind, "export"))
		*error = "an export begins with one record that says so";
	else if (is(kind, "export") && !begin(j, text))
		*error = "it is no export of a version known here";
	else if (is(kind, "checkpoint") && !checkpoint(j, text))
		*error = "the checkpoint is malformed";
	else if (is(kind, "transition") && !transition(j, record))
		*error = "the transition is malformed";
	else if (is(kind, "end"))
	{
		end(j, text);
		return true;
	}
	else if (is(kind, "export") || is(kind, "checkpoint") || is(kind, "transition"))
		return true;
	else
		*error = "there is no record of that kind";
	return false;
}

/* ---------- what the log has and the export has not ---------- */

/*
 * Which trail of the log is it about?  That of the export, or the one named, or
 * the only one.  NULL if nobody can tell.
 */
static const unsigned char *
trail_in_question(const SlExportJudge *j)
{
	const SlCheckpoint *last = sl_sealed_trail_last(j->sealed);
	size_t		n = sl_log_index_count(j->log);

	if (j->trail != NULL)
		return j->trail;
	if (last != NULL)
		return last->trail;
	if (memcmp(sl_log_index_entry(j->log, 0)->trail,
			   sl_log_index_entry(j->log, n - 1)->trail, SL_CHECKPOINT_UUID_LEN) == 0)
		return sl_log_index_entry(j->log, 0)->trail;
	return NULL;
}

static void
look_for_missing(SlExportJudge *j)
{
	const unsigned char *trail;
	bool		others = false;
	size_t		i;

	if (sl_log_index_count(j->log) == 0)
	{
		problem(j, "the log has no checkpoint that is signed by one of the given keys");
		return;
	}
	trail = trail_in_question(j);
	for (i = 0; i < sl_log_index_count(j->log); i++)
	{
		const SlLogEntry *e = sl_log_index_entry(j->log, i);

		if (trail == NULL || memcmp(e->trail, trail, sizeof(e->trail)) != 0)
			others = true;
		else if (!e->seen && e->last_at >= j->since && e->first_at < j->until)
			problem(j, "checkpoint %" PRId64 ": the log has it, the export has not: it was removed, or the log is newer than the export",
					e->number);
	}
	/* a trail that was thrown away and begun anew would be one of these */
	if (others && j->trail == NULL)
		problem(j, "the log has checkpoints of other trails as well: name the one in question with --trail");
}

void
sl_export_judge_end(SlExportJudge *j)
{
	if (j->place != AT_END)
		problem(j, "the export is cut off: its last line is missing");
	sl_sealed_trail_end(j->sealed);
	if (j->log != NULL)
		look_for_missing(j);
}

int64_t
sl_export_judge_checkpoints(const SlExportJudge *j)
{
	return sl_sealed_trail_checkpoints(j->sealed);
}

int64_t
sl_export_judge_transitions(const SlExportJudge *j)
{
	return sl_sealed_trail_transitions(j->sealed);
}

int64_t
sl_export_judge_unsealed(const SlExportJudge *j)
{
	return sl_sealed_trail_unsealed(j->sealed);
}

int64_t
sl_export_judge_not_logged(const SlExportJudge *j)
{
	return j->not_logged;
}

int64_t
sl_export_judge_first(const SlExportJudge *j)
{
	return j->first;
}

const SlCheckpoint *
sl_export_judge_last(const SlExportJudge *j)
{
	return sl_sealed_trail_last(j->sealed);
}

/* ---------- a log alone ---------- */

void
sl_judge_log(SlLogIndex *log, const unsigned char *trail,
			 SlProblemReport report, void *arg)
{
	SlExportJudge j = {.report = report, .arg = arg};
	size_t		of_trail = 0;
	size_t		i;

	for (i = 0; i < sl_log_index_count(log); i++)
	{
		const SlLogEntry *e = sl_log_index_entry(log, i);
		const SlLogEntry *before = i == 0 ? NULL : e - 1;

		if (trail != NULL && memcmp(e->trail, trail, sizeof(e->trail)) != 0)
			continue;
		of_trail++;
		if (before == NULL || memcmp(before->trail, e->trail, sizeof(e->trail)) != 0)
			continue;
		if (before->number == e->number)
			problem(&j, "checkpoint %" PRId64 ": the log has two different ones of that number: the trail was taken back and sealed anew",
					e->number);
		else if (before->number == e->number - 1 &&
				 memcmp(before->hash, e->previous, sizeof(e->previous)) != 0)
			problem(&j, "checkpoint %" PRId64 ": broken chain: its previous hash is not that of the checkpoint before it",
					e->number);
	}
	if (of_trail == 0)
		problem(&j, "the log has no checkpoint that is signed by one of the given keys%s",
				trail == NULL ? "" : " and of the trail that was named");
}
