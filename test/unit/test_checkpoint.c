/*-------------------------------------------------------------------------
 *
 * test_checkpoint.c
 *	  The text of a checkpoint, against one that was put together and hashed
 *	  by other means.
 *
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "audit_hash.h"
#include "checkpoint.h"

#define TEXT \
	"stripe_lifecycle checkpoint 1 trail=0190aaaa-bbbb-4ccc-8ddd-eeeeffff0001" \
	" number=2 from=40 to=100 leaves=59 first_at=2026-11-25T18:00:00.000001Z" \
	" last_at=2026-11-25T18:04:59.999999Z sealed_at=2026-11-25T18:05:00.123456Z" \
	" root=4813494d137e1631bba301d5acab6e7bb7aa74ce1185d456565ef51d737677b2" \
	" previous=84fd9bac333ad79154348296204fa7f8c537a96e08983e5f73b3f5aca8e8edf7" \
	" key=06e3fd8fda29bb60ab59557de61edb0aecdb231134be30e75b455f8e1b792fa9"
#define SIGNATURE \
	"f23a9cda92140115cb135d8a94fed432a3e4ceca54f1814efe20a2df82ebd600" \
	"93a04a33a873db58cdbceb527e935ea0b86932dd86ce06c81d422b7929a8cc02"
#define LINE TEXT " signature=" SIGNATURE

static void
test_reading_and_writing(void)
{
	SlCheckpoint c;
	char		text[SL_CHECKPOINT_TEXT_SIZE];
	char		line[SL_CHECKPOINT_LINE_SIZE];
	char		hex[2 * SL_CHECKPOINT_HASH_LEN + 1];
	unsigned char hash[SL_CHECKPOINT_HASH_LEN];

	CHECK(sl_checkpoint_read(LINE, strlen(LINE), &c));
	CHECK_INT(c.trail[0], 0x01);
	CHECK_INT(c.trail[15], 0x01);
	CHECK_INT(c.number, 2);
	CHECK_INT(c.from_position, 40);
	CHECK_INT(c.to_position, 100);
	CHECK_INT(c.leaves, 59);
	CHECK_INT(c.first_at, INT64_C(1795629600000001));
	CHECK_INT(c.last_at, INT64_C(1795629899999999));
	CHECK_INT(c.sealed_at, INT64_C(1795629900123456));
	CHECK_INT(c.root[0], 0x48);
	CHECK_INT(c.previous[31], 0xf7);
	CHECK_INT(c.key[31], 0xa9);
	CHECK_INT(c.signature[63], 0x02);

	CHECK_INT(sl_checkpoint_text(&c, text), strlen(TEXT));
	CHECK_STR(text, TEXT);
	CHECK_INT(sl_checkpoint_line(&c, line), strlen(LINE));
	CHECK_STR(line, LINE);
	CHECK(sl_checkpoint_hash(&c, hash));
	sl_hex_encode(hash, sizeof(hash), hex);
	CHECK_STR(hex, "7765f86c3a5afc5d02135e7c3d78c13d3e48592eead7bca11d248d75b99c4947");
}

/* The longest text there can be fits. */
static void
test_size(void)
{
	SlCheckpoint c;
	char		line[SL_CHECKPOINT_LINE_SIZE];

	memset(&c, 0xff, sizeof(c));
	c.number = c.from_position = c.to_position = c.leaves = INT64_MIN;
	c.first_at = c.last_at = c.sealed_at = INT64_MIN;
	CHECK(sl_checkpoint_line(&c, line) < sizeof(line));
	CHECK_STR(line + strlen(line) - 4, "ffff");
	CHECK(sl_checkpoint_text(&c, line) < SL_CHECKPOINT_TEXT_SIZE);
}

/* No byte can be left out, added or changed without being noticed. */
static void
test_strictness(void)
{
	static const char alphabet[] = " 0aA-\n\"";
	static const SlCheckpoint nothing;
	size_t		n = strlen(LINE);
	char		line[sizeof(LINE) + 8];
	SlCheckpoint c;
	SlCheckpoint original;
	size_t		i;
	size_t		j;

	CHECK(sl_checkpoint_read(LINE, n, &original));
	for (i = 0; i < n; i++)
	{
		unit_case("byte %zu", i);
		CHECK(!sl_checkpoint_read(LINE, i, &c));
		CHECK(memcmp(&c, &nothing, sizeof(c)) == 0);

		/* without that byte, or with another one, it is none or another one */
		memcpy(line, LINE, n);
		memmove(line + i, line + i + 1, n - i - 1);
		if (sl_checkpoint_read(line, n - 1, &c))
			CHECK(memcmp(&c, &original, sizeof(c)) != 0);
		for (j = 0; j < strlen(alphabet); j++)
		{
			memcpy(line, LINE, n);
			line[i] = alphabet[j];
			if (line[i] != LINE[i] && sl_checkpoint_read(line, n, &c))
				CHECK(memcmp(&c, &original, sizeof(c)) != 0);
		}
	}
	unit_case(NULL);
	CHECK(!sl_checkpoint_read(LINE " ", n + 1, &c));
	CHECK(!sl_checkpoint_read(" " LINE, n + 1, &c));
	CHECK(!sl_checkpoint_read(TEXT, strlen(TEXT), &c));
	CHECK(!sl_checkpoint_read("", 0, &c));
}

/* Other spellings of the same values are refused. */
static void
test_spellings(void)
{
	static const char *const spellings[][2] = {
		{"number=2", "number=02"},
		{"number=2", "number=+2"},
		{"number=2", "number=-2"},
		{"number=2", "number=2000000000000000000"},
		{"number=2", "number="},
		{"number=2 from", "number=2  from"},
		{"number=2 from=40", "from=40 number=2"},
		{"trail=0190aaaa-bbbb", "trail=0190aaaabbbb"},
		{"trail=0190aaaa-bbbb", "trail=0190AAAA-bbbb"},
		{"trail=0190aaaa-bbbb", "trail=0190aaa-abbbb"},
		{"18:00:00.000001Z", "18:00:00.000001+00"},
		{"18:00:00.000001Z", "18:00:00.00001Z"},
		{"18:00:00.000001Z", "18:00:60.000001Z"},
		{"18:00:00.000001Z", "24:00:00.000001Z"},
		{"2026-11-25T18:00:00", "2026-11-31T18:00:00"},
		{"2026-11-25T18:00:00", "2026-02-29T18:00:00"},
		{"2026-11-25T18:00:00", "2026-13-25T18:00:00"},
		{"2026-11-25T18:00:00", "2026-00-25T18:00:00"},
		{"2026-11-25T18:00:00", "02026-11-25T18:00:00"},
		{"2026-11-25T18:00:00", "-026-11-25T18:00:00"},
		{"2026-11-25T18:00:00", "999999-11-25T18:00:00"},
		{"root=48", "root=4"},
		{"root=4813494d", "root=4813494D"},
		{"checkpoint 1", "checkpoint 2"},
		{" signature=", " Signature="},
	};
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(spellings); i++)
	{
		const char *where = strstr(LINE, spellings[i][0]);
		char		line[2 * sizeof(LINE)];
		SlCheckpoint c;

		unit_case("%s", spellings[i][1]);
		CHECK(where != NULL);
		snprintf(line, sizeof(line), "%.*s%s%s", (int) (where - LINE), LINE,
				 spellings[i][1], where + strlen(spellings[i][0]));
		CHECK(!sl_checkpoint_read(line, strlen(line), &c));
	}
	unit_case(NULL);
}

static void
test_times(void)
{
	/* the ends of what PostgreSQL and an int64_t know, leap days, and the like */
	static const int64_t times[] = {
		0, 1, -1, INT64_C(951782400000000), INT64_C(951868799999999),
		INT64_C(4107542400000000), INT64_C(253402300799999999),
		INT64_C(253402300800000000), INT64_C(-62135596800000001),
		INT64_C(-62167219200000000), INT64_C(-62167219200000001),
		INT64_C(-210866803200000000), INT64_C(9000000000000000000),
		INT64_C(-9000000000000000000)
	};
	size_t		i;
	int64_t		t;
	char		text[SL_AUDIT_TIME_SIZE];

	for (i = 0; i < UNIT_LENGTH(times); i++)
	{
		size_t		len = sl_audit_time(times[i], text);

		unit_case("%s", text);
		CHECK(sl_checkpoint_time(text, len, &t));
		CHECK_INT(t, times[i]);
		CHECK(!sl_checkpoint_time(text, len - 1, &t));
	}
	for (t = INT64_C(-70000000000000000); t < INT64_C(300000000000000000);
		 t += INT64_C(98765432101234))
	{
		size_t		len = sl_audit_time(t, text);
		int64_t		again;

		unit_case("%s", text);
		CHECK(sl_checkpoint_time(text, len, &again) && again == t);
	}
	unit_case(NULL);
	CHECK(!sl_checkpoint_time("", 0, &t));
	CHECK(!sl_checkpoint_time("infinity", 8, &t));
}

static bool
finds(const char *text, size_t len)
{
	const char *line = NULL;
	size_t		line_len = 0;
	SlCheckpoint c;

	return sl_checkpoint_find(text, len, &line, &line_len) &&
		line >= text && line + line_len <= text + len &&
		sl_checkpoint_read(line, line_len, &c) && c.number == 2;
}

static void
test_finding(void)
{
	static const char *const found[] = {
		LINE,
		"2026-11-25 18:05:00.124 UTC [4711] LOG:  " LINE "\n",
		"2026-11-25,,,\"" LINE "\",,,,",
		"{\"message\":\"" LINE "\",\"backend_type\":\"stripe_lifecycle worker\"}",
		"stripe_lifecycle checkpoint 1 trail=" LINE,
		"stripe_lifecycle checkpoint 1 trail=x signature=" LINE,
		"ssssstripe_lifecycle " LINE "ff",
		TEXT " " LINE
	};
	static const char *const not_found[] = {
		"", "s", "stripe_lifecycle checkpoint 1 trail=", TEXT,
		TEXT " signature=ff", "LOG:  checkpoint complete"
	};
	const char *line;
	size_t		len;
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(found); i++)
	{
		unit_case("%zu", i);
		CHECK(finds(found[i], strlen(found[i])));
	}
	for (i = 0; i < UNIT_LENGTH(not_found); i++)
	{
		unit_case("%s", not_found[i]);
		CHECK(!sl_checkpoint_find(not_found[i], strlen(not_found[i]), &line, &len));
	}
	/* what is beyond the end is not looked at */
	for (i = 0; i < strlen(LINE); i++)
		CHECK(!finds(LINE, i));
	unit_case(NULL);
}

static void
test_hex(void)
{
	unsigned char bytes[2];

	CHECK(sl_hex_decode("00ff", 4, bytes, 2));
	CHECK_INT(bytes[1], 255);
	CHECK(!sl_hex_decode("00f", 3, bytes, 2));
	CHECK(!sl_hex_decode("00fg", 4, bytes, 2));
	CHECK(!sl_hex_decode("00FF", 4, bytes, 2));
	CHECK(!sl_hex_decode("00ff00", 6, bytes, 2));
	CHECK(sl_hex_decode("", 0, bytes, 0));
}

int
main(void)
{
	test_reading_and_writing();
	test_size();
	test_strictness();
	test_spellings();
	test_times();
	test_finding();
	test_hex();
	return unit_done();
}
