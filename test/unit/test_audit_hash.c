/*-------------------------------------------------------------------------
 *
 * test_audit_hash.c
 *	  The hash of an audit row, against hashes made by Python's hashlib.
 *
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "audit_hash.h"

#define SECOND	INT64_C(1000000)

static const char *
hex(const unsigned char *bytes)
{
	static char text[2 * SL_AUDIT_HASH_LEN + 1];
	int			i;

	for (i = 0; i < SL_AUDIT_HASH_LEN; i++)
		sprintf(text + 2 * i, "%02x", bytes[i]);
	return text;
}

/* Hashes n fields; NULL is NULL.  Returns hex in static storage. */
static const char *
hash_of(SlAuditHash *hash, const unsigned char *prev,
		const char *const *fields, int n, unsigned char *out)
{
	int			i;

	sl_audit_hash_begin(hash, prev);
	for (i = 0; i < n; i++)
		sl_audit_hash_field(hash, fields[i],
							fields[i] == NULL ? 0 : strlen(fields[i]));
	CHECK(sl_audit_hash_finish(hash, out));
	return hex(out);
}

static void
test_rows(SlAuditHash *hash)
{
	static const char *const created[SL_AUDIT_NFIELDS] = {
		"01900000-0000-7000-8000-000000000001", "1", NULL, "created",
		"2026-11-25T18:00:00.123456Z", "create_payment", NULL, NULL, NULL,
		"shop", NULL, "2000", "usd", NULL
	};
	static const char *const paid[SL_AUDIT_NFIELDS] = {
		"01900000-0000-7000-8000-000000000001", "2", "created", "succeeded",
		"2026-11-25T18:00:09.000001Z", "webhook", "evt_1",
		"payment_intent.succeeded", "2026-11-25T18:00:08.000000Z", "web", "",
		"2000", "usd", "false"
	};
	unsigned char first[SL_AUDIT_HASH_LEN];
	unsigned char second[SL_AUDIT_HASH_LEN];
	unsigned char again[SL_AUDIT_HASH_LEN];

	CHECK_STR(hash_of(hash, NULL, created, SL_AUDIT_NFIELDS, first),
			  "3a8a4829ff30152df6c49abe95d21bb2a0b2a4a56d0549850456446c54b80f89");
	CHECK_STR(hash_of(hash, first, paid, SL_AUDIT_NFIELDS, second),
			  "431f48492da1a6af09c36470bd5f3c2e43e39a5e10dd207b43f0a55d7206fc26");

	/* what it hashed before leaves no trace */
	(void) hash_of(hash, NULL, created, SL_AUDIT_NFIELDS, again);
	CHECK(memcmp(first, again, SL_AUDIT_HASH_LEN) == 0);
	(void) hash_of(hash, NULL, paid, SL_AUDIT_NFIELDS, again);
	CHECK(memcmp(second, again, SL_AUDIT_HASH_LEN) != 0);
}

/* No two lists of fields have the same bytes. */
static void
test_framing(SlAuditHash *hash)
{
	static const char *const null[] = {NULL};
	static const char *const empty[] = {""};
	static const char *const ab_c[] = {"ab", "c"};
	static const char *const a_bc[] = {"a", "bc"};
	static char longer[70001];
	const char *long_field[] = {longer};
	unsigned char out[SL_AUDIT_HASH_LEN];

	CHECK_STR(hash_of(hash, NULL, null, 0, out),
			  "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925");
	CHECK_STR(hash_of(hash, NULL, null, 1, out),
			  "890ed82cf09f22243bdc4252e4d79c8a9810c1391f455dce37a7b732eb0a0e4f");
	CHECK_STR(hash_of(hash, NULL, empty, 1, out),
			  "6db65fd59fd356f6729140571b5bcd6bb3b83492a16e1bf0a3884442fc3c8a0e");
	CHECK_STR(hash_of(hash, NULL, ab_c, 2, out),
			  "237fbdced7183988f8d7d816550be592f1f6f7986536d9f12845a6259804e49a");
	CHECK_STR(hash_of(hash, NULL, a_bc, 2, out),
			  "75224848922eed77090ebcb1ea4d05063fb4b8d27a385ddf192f762d9dfe3b70");
	memset(longer, 'x', sizeof(longer) - 1);
	longer[70000] = '\0';
	CHECK_STR(hash_of(hash, NULL, long_field, 1, out),
			  "8be79ebd800f316dbca93917a1a5c5b9b5a49e14f48f360e3e3046e2fd4d27e3");

	/* bytes are bytes, a zero among them too */
	sl_audit_hash_begin(hash, NULL);
	sl_audit_hash_field(hash, "a\0b", 3);
	CHECK(sl_audit_hash_finish(hash, out));
	CHECK_STR(hex(out), "4968600859edc7ae2124d322c49f2341989ef2db6e327fad9e3ab3cd99264303");
}

static void
test_misuse(SlAuditHash *hash)
{
	static const unsigned char zeroes[SL_AUDIT_HASH_LEN];
	SlAuditHash *fresh = sl_audit_hash_new();
	unsigned char out[SL_AUDIT_HASH_LEN];

	sl_audit_hash_free(NULL);

	/* a row that was never begun has no hash */
	memset(out, 1, sizeof(out));
	CHECK(!sl_audit_hash_finish(fresh, out));
	CHECK(memcmp(out, zeroes, sizeof(out)) == 0);
	sl_audit_hash_free(fresh);

	/* nor has one that was finished already */
	sl_audit_hash_begin(hash, NULL);
	CHECK(sl_audit_hash_finish(hash, out));
	CHECK(!sl_audit_hash_finish(hash, out));
	sl_audit_hash_field(hash, "x", 1);
	CHECK(!sl_audit_hash_finish(hash, out));

	/* nor one with a length that means NULL, or that wraps around to another */
	sl_audit_hash_begin(hash, NULL);
	sl_audit_hash_field(hash, "x", (size_t) UINT32_C(0xFFFFFFFF));
	sl_audit_hash_field(hash, "x", 1);
	CHECK(!sl_audit_hash_finish(hash, out));
#if SIZE_MAX > UINT32_MAX
	sl_audit_hash_begin(hash, NULL);
	sl_audit_hash_field(hash, "x", (size_t) UINT32_MAX + 2);
	CHECK(!sl_audit_hash_finish(hash, out));
#endif

	/* and the next one is as if nothing had been */
	sl_audit_hash_begin(hash, NULL);
	CHECK(sl_audit_hash_finish(hash, out));
	CHECK_STR(hex(out), "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925");
}

static void
test_times(void)
{
	static const struct
	{
		int64_t		time;
		const char *text;
	}			cases[] = {
		{0, "1970-01-01T00:00:00.000000Z"},
		{1, "1970-01-01T00:00:00.000001Z"},
		{-1, "1969-12-31T23:59:59.999999Z"},
		{INT64_C(1795629600) * SECOND + 123456, "2026-11-25T18:00:00.123456Z"},
		{INT64_C(951782400) * SECOND, "2000-02-29T00:00:00.000000Z"},
		{INT64_C(951868800) * SECOND - 1, "2000-02-29T23:59:59.999999Z"},
		{INT64_C(951868800) * SECOND, "2000-03-01T00:00:00.000000Z"},
		{INT64_C(4107542399) * SECOND, "2100-02-28T23:59:59.000000Z"},
		{INT64_C(4107542400) * SECOND, "2100-03-01T00:00:00.000000Z"},
		{INT64_C(253402300799) * SECOND + 999999, "9999-12-31T23:59:59.999999Z"},
		{INT64_C(253402300800) * SECOND, "10000-01-01T00:00:00.000000Z"},
		{INT64_C(-62135596800) * SECOND, "0001-01-01T00:00:00.000000Z"},
		{INT64_C(-62135596800) * SECOND - 1, "0000-12-31T23:59:59.999999Z"},
		{INT64_C(-62167219200) * SECOND - 1, "-0001-12-31T23:59:59.999999Z"},
		{INT64_MAX, "294247-01-10T04:00:54.775807Z"},
		{INT64_MIN, "-290308-12-21T19:59:05.224192Z"},
	};
	char		text[SL_AUDIT_TIME_SIZE];
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(cases); i++)
	{
		size_t		len;

		unit_case("%s", cases[i].text);
		len = sl_audit_time(cases[i].time, text);
		CHECK_STR(text, cases[i].text);
		CHECK_INT(len, strlen(text));
	}
	unit_case(NULL);
}

/* Every day of four centuries comes after the one before it. */
static void
test_days(void)
{
	static const int length[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	int			year = 1800;
	int			month = 1;
	int			day = 1;
	int64_t		days = -62091;	/* 1800-01-01 */
	long		wrong = 0;

	for (; year < 2200; days++)
	{
		bool		leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
		char		text[SL_AUDIT_TIME_SIZE];
		char		expected[SL_AUDIT_TIME_SIZE + 16];

		snprintf(expected, sizeof(expected), "%04d-%02d-%02dT12:34:56.789012Z",
				 year, month, day);
		(void) sl_audit_time(days * 86400 * SECOND + INT64_C(45296789012), text);
		wrong += strcmp(text, expected) != 0;
		if (++day > length[month - 1] + (month == 2 && leap))
		{
			day = 1;
			if (++month > 12)
			{
				month = 1;
				year++;
			}
		}
	}
	CHECK_INT(wrong, 0);
	CHECK_INT(days, 84006);		/* 2200-01-01 */
}

static void
test_uuid(void)
{
	static const unsigned char uuid[16] = {
		0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
		0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10
	};
	char		text[SL_AUDIT_UUID_SIZE];

	CHECK_INT(sl_audit_uuid(uuid, text), 36);
	CHECK_STR(text, "01234567-89ab-cdef-fedc-ba9876543210");
}

int
main(void)
{
	SlAuditHash *hash = sl_audit_hash_new();

	CHECK(hash != NULL);
	test_rows(hash);
	test_framing(hash);
	test_misuse(hash);
	test_times();
	test_days();
	test_uuid();
	sl_audit_hash_free(hash);
	return unit_done();
}
