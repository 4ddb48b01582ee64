/*-------------------------------------------------------------------------
 *
 * test_export_judge.c
 *	  Exports and logs, honest ones and tampered ones, as the stand-alone
 *	  verifier judges them.
 *
 * An export of seven transitions is made here, sealed in three checkpoints but
 * for the last one.  Each test changes its lines, or those of the log, and says
 * what has to be found.
 *
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include "export_judge.h"
#include "merkle.h"

#define NTRANSITIONS	7
#define NCHECKPOINTS	3
#define NLINES			(NTRANSITIONS + NCHECKPOINTS + 2)
#define LINE_SIZE		1200

/* The lines of an export; an empty one stands for none. */
typedef struct Text
{
	char		line[NLINES][LINE_SIZE];
} Text;

/* Where in an export its checkpoints and some transitions are. */
enum
{
	EXPORT, CHECKPOINT_1, FIRST, SECOND, CHECKPOINT_2, THIRD, FOURTH, FIFTH,
	CHECKPOINT_3, SIXTH, SEVENTH, END
};

static SlKeyRing *ring;
static SlKeyRing *empty_ring;
static Text whole;
static Text forged;				/* another history, sealed with the same key */
static char problems[4000];

static SlKeyRing *
make_ring(void)
{
	unsigned char raw[32] = {9};
	EVP_PKEY   *pkey = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, raw, 32);
	BIO		   *bio = BIO_new(BIO_s_mem());
	SlKeyRing  *made = sl_keyring_new();
	char	   *data;
	long		len;

	PEM_write_bio_PKCS8PrivateKey(bio, pkey, NULL, NULL, 0, NULL, NULL);
	len = BIO_get_mem_data(bio, &data);
	if (sl_keyring_add(made, data, (size_t) len) != SL_KEY_OK)
		abort();
	BIO_free(bio);
	EVP_PKEY_free(pkey);
	return made;
}

/* ---------- an export ---------- */

/* Transition i: payments a and b take turns; writes its line, gives its hash. */
static void
make_transition(int i, const char *amount, unsigned char hashes[][32], char *line)
{
	static const char *const ids[2] = {
		"01900000-0000-7000-8000-00000000000a", "01900000-0000-7000-8000-00000000000b"
	};
	SlAuditHash *hash = sl_audit_hash_new();
	char		seq[12];
	char		at[SL_AUDIT_TIME_SIZE];
	char		hex[65];
	char		previous[70] = "null";
	const char *fields[SL_AUDIT_NFIELDS] = {
		ids[i % 2], seq, i < 2 ? NULL : "created", i < 2 ? "created" : "succeeded", at,
		"webhook", NULL, "payment_intent.succeeded", NULL, "we\"b", "", amount, "usd",
		i < 2 ? NULL : "false"
	};
	int			n;

	snprintf(seq, sizeof(seq), "%d", i / 2 + 1);
	sl_audit_time(INT64_C(1795629600000000) + i * INT64_C(60000000), at);
	sl_audit_hash_begin(hash, i < 2 ? NULL : hashes[i - 2]);
	for (n = 0; n < SL_AUDIT_NFIELDS; n++)
		sl_audit_hash_field(hash, fields[n], fields[n] == NULL ? 0 : strlen(fields[n]));
	CHECK(sl_audit_hash_finish(hash, hashes[i]));
	sl_audit_hash_free(hash);

	sl_hex_encode(hashes[i], 32, hex);
	if (i >= 2)
	{
		previous[0] = '"';
		sl_hex_encode(hashes[i - 2], 32, previous + 1);
		strcat(previous, "\"");
	}
	snprintf(line, LINE_SIZE, "{\"record\":\"transition\",\"position\":%d,\"payment_id\":\"%s\","
			 "\"seq\":%s,\"from_state\":%s,\"to_state\":\"%s\",\"at\":\"%s\",\"source\":\"webhook\","
			 "\"event_id\":null,\"event_type\":\"payment_intent.succeeded\",\"event_created\":null,"
			 "\"role\":\"we\\\"b\",\"note\":\"\",\"amount\":%s,\"currency\":\"usd\",\"livemode\":%s,"
			 "\"previous_hash\":%s,\"hash\":\"%s\"}", 10 + i, ids[i % 2], seq,
			 i < 2 ? "null" : "\"created\"", fields[3], at, amount,
			 i < 2 ? "null" : "false", previous, hex);
}

/* Checkpoint n over transitions first to end - 1. */
static void
make_checkpoint(int n, int first, int end, unsigned char trail_id,
				unsigned char hashes[][32], SlCheckpoint *c, char *line)
{
	SlMerkle   *tree = sl_merkle_new();
	unsigned char previous[32] = {0};
	char		text[SL_CHECKPOINT_LINE_SIZE];
	int			i;

	if (n > 1)
		sl_checkpoint_hash(c, previous);
	memset(c, 0, sizeof(*c));
	memset(c->trail, trail_id, sizeof(c->trail));
	c->number = n;
	c->from_position = first == 0 ? 0 : 9 + first;
	c->to_position = 9 + end;
	c->leaves = end - first;
	c->first_at = INT64_C(1795629600000000) + first * INT64_C(60000000);
	c->last_at = INT64_C(1795629600000000) + (end - 1) * INT64_C(60000000);
	c->sealed_at = c->last_at + 1;
	memcpy(c->previous, previous, sizeof(previous));
	for (i = first; i < end; i++)
		sl_merkle_add(tree, hashes[i], 32);
	sl_merkle_finish(tree, c->root);
	sl_merkle_free(tree);
	CHECK(sl_keyring_sign(ring, c));
	sl_checkpoint_line(c, text);
	snprintf(line, LINE_SIZE, "{\"record\":\"checkpoint\",\"text\":\"%s\"}", text);
}

static void
make_export(Text *t, const char *amount, unsigned char trail_id)
{
	static const int places[NTRANSITIONS] = {FIRST, SECOND, THIRD, FOURTH, FIFTH, SIXTH, SEVENTH};
	unsigned char hashes[NTRANSITIONS][32];
	SlCheckpoint c;
	int			i;

	strcpy(t->line[EXPORT], "{\"record\":\"export\",\"text\":\"stripe_lifecycle export 1 since=-infinity until=infinity\"}");
	for (i = 0; i < NTRANSITIONS; i++)
		make_transition(i, amount, hashes, t->line[places[i]]);
	make_checkpoint(1, 0, 2, trail_id, hashes, &c, t->line[CHECKPOINT_1]);
	make_checkpoint(2, 2, 5, trail_id, hashes, &c, t->line[CHECKPOINT_2]);
	make_checkpoint(3, 5, 6, trail_id, hashes, &c, t->line[CHECKPOINT_3]);
	strcpy(t->line[END], "{\"record\":\"end\",\"text\":\"stripe_lifecycle end checkpoints=3 transitions=7\"}");
}

/* Puts other numbers into the last line. */
static void
recount(Text *t, int checkpoints, int transitions)
{
	snprintf(t->line[END], LINE_SIZE, "{\"record\":\"end\",\"text\":"
			 "\"stripe_lifecycle end checkpoints=%d transitions=%d\"}", checkpoints, transitions);
}

static void
replace(char *line, const char *what, const char *by)
{
	char	   *where = strstr(line, what);
	char		rest[LINE_SIZE];

	CHECK(where != NULL);
	strcpy(rest, where + strlen(what));
	strcpy(where, by);
	strcat(line, rest);
}

/* ---------- judging ---------- */

static void
collect(void *arg, const char *problem)
{
	(void) arg;
	snprintf(problems + strlen(problems), sizeof(problems) - strlen(problems), "%s\n", problem);
}

typedef struct Source
{
	const char *text;
} Source;

static long
read_text(void *arg, char *buf, size_t n)
{
	Source	   *s = arg;
	size_t		len = strlen(s->text);

	if (len > n)
		len = n;
	memcpy(buf, s->text, len);
	s->text += len;
	return (long) len;
}

/* All problems, or "malformed: ..." behind those that came before. */
static const char *
judge_with(const Text *t, const SlKeyRing *keys, SlLogIndex *log, const unsigned char *trail)
{
	static char text[NLINES * LINE_SIZE];
	Source		source = {text};
	SlExportReader *reader = sl_export_reader_new(read_text, &source);
	SlExportJudge *j = sl_export_judge_new(keys, log, trail, collect, NULL);
	SlExportRecord record;
	const char *error = NULL;
	SlExportResult result;
	int			i;

	text[0] = problems[0] = '\0';
	for (i = 0; i < NLINES; i++)
		if (t->line[i][0] != '\0')
			strcat(strcat(text, t->line[i]), "\n");
	while ((result = sl_export_read(reader, &record)) == SL_EXPORT_OK &&
		   sl_export_judge_record(j, &record, &error))
		 /* next */ ;
	if (result == SL_EXPORT_END)
		sl_export_judge_end(j);
	else
	{
		char		malformed[200];

		snprintf(malformed, sizeof(malformed), "malformed: %s", error != NULL ? error :
				 sl_export_reader_error(reader));
		collect(NULL, malformed);
	}
	sl_export_judge_free(j);
	sl_export_reader_free(reader);
	return problems;
}

static const char *
judge(const Text *t)
{
	return judge_with(t, ring, NULL, NULL);
}

/* A log of the checkpoints of an export, whose numbers are bits of 'which'. */
static void
add_to_log(SlLogIndex *log, const Text *t, int which)
{
	static const int places[NCHECKPOINTS] = {CHECKPOINT_1, CHECKPOINT_2, CHECKPOINT_3};
	int			i;

	for (i = 0; i < NCHECKPOINTS; i++)
		if (which & 1 << (i + 1))
			CHECK(sl_log_index_add(log, ring, t->line[places[i]], strlen(t->line[places[i]])));
}

static SlLogIndex *
make_log(const Text *t, int which)
{
	SlLogIndex *log = sl_log_index_new();

	add_to_log(log, t, which);
	sl_log_index_sort(log);
	return log;
}

#define ALTERED(seq, payment, position) \
	"transition " seq " of payment 01900000-0000-7000-8000-00000000000" payment \
	", position " position ": altered: its hash is not that of its fields and of the row before it\n"

static void
test_transitions(void)
{
	static const char *const changes[][2] = {
		{"\"amount\":2000", "\"amount\":2001"},
		{"\"currency\":\"usd\"", "\"currency\":\"eur\""},
		{"\"to_state\":\"succeeded\"", "\"to_state\":\"failed\""},
		{"\"from_state\":\"created\"", "\"from_state\":null"},
		{"\"source\":\"webhook\"", "\"source\":\"operator\""},
		{"\"role\":\"we\\\"b\"", "\"role\":\"web\""},
		{"\"note\":\"\"", "\"note\":null"},
		{"\"event_id\":null", "\"event_id\":\"\""},
		{"\"livemode\":false", "\"livemode\":true"},
		{"\"livemode\":false", "\"livemode\":null"},
	};
	Text		t = whole;
	size_t		i;

	CHECK_STR(judge(&whole), "");
	for (i = 0; i < UNIT_LENGTH(changes); i++)
	{
		unit_case("%s", changes[i][1]);
		t = whole;
		replace(t.line[THIRD], changes[i][0], changes[i][1]);
		CHECK_STR(judge(&t), ALTERED("2", "a", "12"));
		/* what is not sealed yet has a hash all the same */
		t = whole;
		replace(t.line[SEVENTH], changes[i][0], changes[i][1]);
		CHECK_STR(judge(&t), ALTERED("4", "a", "16"));
	}
	unit_case(NULL);

	/* altered together with its hash, which is what was sealed */
	t = whole;
	strcpy(t.line[THIRD], forged.line[THIRD]);
	CHECK_STR(judge(&t), "checkpoint 2: changed transitions: as many transitions are there as were sealed, but other ones, or in another order\n");

	t = whole;
	t.line[FOURTH][0] = '\0';
	CHECK_STR(judge(&t), "checkpoint 2: missing transitions: 3 transitions were sealed, 2 are there\n"
			  "the export counts other numbers of lines than there are: some were removed or added\n");
	recount(&t, 3, 6);
	CHECK_STR(judge(&t), "checkpoint 2: missing transitions: 3 transitions were sealed, 2 are there\n");

	t = whole;
	strcpy(t.line[THIRD], whole.line[FOURTH]);
	strcpy(t.line[FOURTH], whole.line[THIRD]);
	CHECK_STR(judge(&t), "checkpoint 2: disorder: position 12 comes after position 13\n"
			  "checkpoint 2: changed transitions: as many transitions are there as were sealed, but other ones, or in another order\n");

	/* one that says it was the first */
	t = whole;
	replace(t.line[FIRST], "\"previous_hash\":null",
			"\"previous_hash\":\"0000000000000000000000000000000000000000000000000000000000000000\"");
	CHECK_STR(judge(&t), "transition 1 of payment 01900000-0000-7000-8000-00000000000a, position 10:"
			  " it is the first, but says that there is one before it\n");
}

static void
test_checkpoints(void)
{
	Text		t = whole;

	t.line[CHECKPOINT_2][0] = '\0';
	recount(&t, 2, 7);
	CHECK(strstr(judge(&t), "checkpoint 2: missing checkpoint: it is not there") != NULL);

	t = whole;
	replace(t.line[CHECKPOINT_2], " leaves=3", " leaves=2");
	CHECK_STR(judge(&t), "checkpoint 2: bad signature: the signature is not that of the key which the checkpoint names\n"
			  "checkpoint 2: added transitions: 2 transitions were sealed, 3 are there\n"
			  "checkpoint 3: broken chain: its previous hash is not that of the checkpoint before it\n");

	/* who rules over the key can do this, and only a log can tell */
	CHECK_STR(judge(&forged), "");
	CHECK(strstr(judge_with(&whole, empty_ring, NULL, NULL), "checkpoint 1: unknown key: ") == problems);

	/* a part of the trail */
	t = whole;
	t.line[CHECKPOINT_1][0] = t.line[FIRST][0] = t.line[SECOND][0] = '\0';
	recount(&t, 2, 5);
	CHECK_STR(judge(&t), "checkpoint 1: missing checkpoint: it is not there\n");
	replace(t.line[EXPORT], "since=-infinity", "since=2026-11-25T18:02:00.000000Z");
	CHECK_STR(judge(&t), "");
}

static void
test_shape(void)
{
	static const struct
	{
		int			line;
		const char *what;
		const char *by;
		const char *error;
	}			cases[] = {
		{EXPORT, "export 1", "export 2", "it is no export of a version known here"},
		{EXPORT, "since=-infinity", "since=yesterday", "it is no export of a version known here"},
		{EXPORT, " until=infinity", "", "it is no export of a version known here"},
		{EXPORT, "since=-infinity until=infinity", "", "it is no export of a version known here"},
		{EXPORT, ",\"text\":\"stripe_lifecycle export 1 since=-infinity until=infinity\"", "",
		"it is no export of a version known here"},
		{EXPORT, "\"record\":\"export\"", "\"record\":\"end\"", "an export begins with one record that says so"},
		{CHECKPOINT_1, "\"record\":\"checkpoint\"", "\"record\":\"export\"", "an export begins with one record that says so"},
		{CHECKPOINT_1, "\"record\":\"checkpoint\"", "\"record\":\"other\"", "there is no record of that kind"},
		{CHECKPOINT_1, "\"record\":\"checkpoint\"", "\"record\":null", "there is no record of that kind"},
		{CHECKPOINT_1, " number=1", " number=01", "the checkpoint is malformed"},
		{CHECKPOINT_1, "\"text\"", "\"note\"", "the checkpoint is malformed"},
		{FIRST, "\"position\":10,", "", "the transition is malformed"},
		{FIRST, "\"position\":10", "\"position\":-10", "the transition is malformed"},
		{FIRST, "\"position\":10", "\"position\":1000000000000000000", "the transition is malformed"},
		{FIRST, "\"payment_id\":\"01900000", "\"payment_id\":\"\\u001b[2J", "the transition is malformed"},
		{FIRST, "\"seq\":1", "\"seq\":\"x\"", "the transition is malformed"},
		{FIRST, "\"at\":\"2026", "\"at\":\"26", "the transition is malformed"},
		{FIRST, "\"hash\":\"", "\"hash\":\"00", "the transition is malformed"},
		{FIRST, "\"previous_hash\":null", "\"previous_hash\":\"00\"", "the transition is malformed"},
		{FIRST, "{", "", "it is no JSON object"},
	};
	char		expected[200];
	Text		t = whole;
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(cases); i++)
	{
		unit_case("%s", cases[i].by);
		t = whole;
		replace(t.line[cases[i].line], cases[i].what, cases[i].by);
		snprintf(expected, sizeof(expected), "malformed: %s\n", cases[i].error);
		CHECK_STR(judge(&t), expected);
	}
	unit_case(NULL);

	/* cut off, and going on after the end */
	t = whole;
	t.line[END][0] = '\0';
	CHECK_STR(judge(&t), "the export is cut off: its last line is missing\n");
	t = whole;
	strcpy(t.line[SEVENTH], whole.line[END]);
	strcpy(t.line[END], whole.line[SEVENTH]);
	CHECK(strstr(judge(&t), "malformed: there is something after the end of the export") != NULL);
}

#define OTHER_IN_LOG(n) \
	"checkpoint " n ": the log has another one of that number: the trail was changed after that was made\n"
#define NOT_IN_EXPORT(n) \
	"checkpoint " n ": the log has it, the export has not: it was removed, or the log is newer than the export\n"

static void
test_logs(void)
{
	SlLogIndex *log = make_log(&whole, 2 | 4 | 8);
	SlLogIndex *none = make_log(&whole, 0);
	Text		t = whole;

	CHECK_STR(judge_with(&whole, ring, log, NULL), "");
	CHECK_STR(judge_with(&whole, ring, none, NULL),
			  "the log has no checkpoint that is signed by one of the given keys\n");
	/* a history made up by who has the key */
	CHECK_STR(judge_with(&forged, ring, log, NULL), OTHER_IN_LOG("1") OTHER_IN_LOG("2") OTHER_IN_LOG("3"));
	sl_log_index_free(none);

	/* the newest checkpoint is gone, with its transitions or without; or all are */
	t.line[CHECKPOINT_3][0] = '\0';
	recount(&t, 2, 7);
	CHECK_STR(judge(&t), "");
	CHECK_STR(judge_with(&t, ring, log, NULL), NOT_IN_EXPORT("3"));
	t.line[SIXTH][0] = t.line[SEVENTH][0] = '\0';
	recount(&t, 2, 5);
	CHECK_STR(judge(&t), "");
	CHECK_STR(judge_with(&t, ring, log, NULL), NOT_IN_EXPORT("3"));
	memset(t.line + CHECKPOINT_1, 0, sizeof(t.line[0]) * (END - CHECKPOINT_1));
	recount(&t, 0, 0);
	CHECK_STR(judge(&t), "");
	CHECK_STR(judge_with(&t, ring, log, NULL), NOT_IN_EXPORT("1") NOT_IN_EXPORT("2") NOT_IN_EXPORT("3"));
	/* unless it is of a time that nobody asked for */
	replace(t.line[EXPORT], "until=infinity", "until=2026-11-25T18:02:00.000000Z");
	CHECK_STR(judge_with(&t, ring, log, NULL), NOT_IN_EXPORT("1"));
	replace(t.line[EXPORT], "since=-infinity", "since=2026-11-25T18:01:00.000001Z");
	CHECK_STR(judge_with(&t, ring, log, NULL), "");
	sl_log_index_free(log);

	/* a part, whose first checkpoint continues another one than the log's */
	log = make_log(&forged, 2);
	t = whole;
	t.line[CHECKPOINT_1][0] = t.line[FIRST][0] = t.line[SECOND][0] = '\0';
	recount(&t, 2, 5);
	replace(t.line[EXPORT], "since=-infinity", "since=2026-11-25T18:02:00.000000Z");
	CHECK_STR(judge_with(&t, ring, log, NULL),
			  "checkpoint 2: broken chain: its previous hash is not that of the one before it in the log\n");
	sl_log_index_free(log);
}

static void
test_doubtful_logs(void)
{
	static const unsigned char trail[SL_CHECKPOINT_UUID_LEN] = {
		7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7
	};
	SlLogIndex *log = sl_log_index_new();
	Text		other;
	char		line[LINE_SIZE];

	/* repetitions in any order, and forgeries without the key, are no matter */
	add_to_log(log, &whole, 8);
	add_to_log(log, &whole, 2 | 4);
	add_to_log(log, &whole, 2 | 4 | 8);
	strcpy(line, forged.line[CHECKPOINT_2]);
	replace(line, " leaves=3", " leaves=4");
	CHECK(sl_log_index_add(log, ring, line, strlen(line)));
	CHECK(sl_log_index_add(log, empty_ring, whole.line[CHECKPOINT_1], strlen(whole.line[CHECKPOINT_1])));
	CHECK(sl_log_index_add(log, ring, "LOG:  nothing of the kind", 25));
	CHECK_INT(sl_log_index_unsigned(log), 2);
	sl_log_index_sort(log);
	CHECK_INT(sl_log_index_count(log), 3);
	CHECK_STR(judge_with(&whole, ring, log, NULL), "");
	problems[0] = '\0';
	sl_judge_log(log, NULL, collect, NULL);
	CHECK_STR(problems, "");

	/* taken back to before number 2, and sealed anew */
	add_to_log(log, &forged, 4);
	sl_log_index_sort(log);
	CHECK_STR(judge_with(&whole, ring, log, NULL),
			  "checkpoint 2: the log has another one of that number as well: the trail was taken back and sealed anew\n");
	problems[0] = '\0';
	sl_judge_log(log, NULL, collect, NULL);
	CHECK(strstr(problems, "checkpoint 2: the log has two different ones of that number") != NULL);
	sl_log_index_free(log);

	/* thrown away as a whole and begun anew: a trail of another name */
	make_export(&other, "2000", 8);
	log = make_log(&other, 2 | 4 | 8);
	add_to_log(log, &whole, 2);
	sl_log_index_sort(log);
	CHECK_STR(judge_with(&other, ring, log, NULL),
			  "the log has checkpoints of other trails as well: name the one in question with --trail\n");
	CHECK_STR(judge_with(&other, ring, log, trail),
			  "the export is of another trail than the one that was named\n" NOT_IN_EXPORT("1"));
	CHECK_STR(judge_with(&whole, ring, log, trail), "");
	problems[0] = '\0';
	sl_judge_log(log, trail, collect, NULL);
	CHECK_STR(problems, "");
	sl_log_index_free(log);

	/* a log alone: of no trail, and of one that does not hold together */
	log = make_log(&other, 2 | 4);
	sl_judge_log(log, trail, collect, NULL);
	CHECK_STR(problems, "the log has no checkpoint that is signed by one of the given keys and of the trail that was named\n");
	sl_log_index_free(log);
	log = make_log(&whole, 2 | 8);
	add_to_log(log, &forged, 4);
	sl_log_index_sort(log);
	problems[0] = '\0';
	sl_judge_log(log, NULL, collect, NULL);
	CHECK_STR(problems, "checkpoint 2: broken chain: its previous hash is not that of the checkpoint before it\n"
			  "checkpoint 3: broken chain: its previous hash is not that of the checkpoint before it\n");
	sl_log_index_free(log);
	sl_log_index_free(NULL);
}

int
main(void)
{
	ring = make_ring();
	empty_ring = sl_keyring_new();
	make_export(&whole, "2000", 7);
	make_export(&forged, "1", 7);
	test_transitions();
	test_checkpoints();
	test_shape();
	test_logs();
	test_doubtful_logs();
	sl_keyring_free(ring);
	sl_keyring_free(empty_ring);
	return unit_done();
}
