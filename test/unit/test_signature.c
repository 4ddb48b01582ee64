/*-------------------------------------------------------------------------
 *
 * test_signature.c
 *	  The webhook signature: grammar, match, age, and known answers.
 *
 * Where the official SDKs have a test of their own, the case is named after
 * it; where they disagree about a header, the case carries what our grammar
 * says.  Known answers were computed with another implementation (Python's
 * hmac module), so that signing and matching can't be wrong together.
 *
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "signature.h"

#define SECRET		"whsec_test_secret"
#define PAYLOAD		"{\"id\":\"evt_1\",\"object\":\"event\"}"
#define NOW			INT64_C(1700000000)
#define T			"1700000000"
#define TOLERANCE	300

/* HMAC-SHA256 of T, a full stop and PAYLOAD with SECRET. */
#define GOOD	"0c8670ed117751cc551a20e35839447075c42800ea3cf3e8a2fbda99cd1e6edd"
#define GOOD_UP	"0C8670ED117751CC551A20E35839447075C42800EA3CF3E8A2FBDA99CD1E6EDD"
#define OTHER	"00000000000000000000000000000000000000000000000000000000000000ab"

/* The header that verifies PAYLOAD. */
#define HEADER	"t=" T ",v1=" GOOD

#define ANY_AGE	(-1)

static SlSigKey *
new_key(const char *secret)
{
	SlSigResult why = SL_SIG_CRYPTO;
	SlSigKey   *key = sl_sig_key_new(secret, strlen(secret), &why);

	if (key == NULL)
	{
		printf("no key: %s\n", sl_sig_result_text(why));
		exit(1);
	}
	return key;
}

/*
 * All three steps in the order in which the webhook takes them.  The header
 * is parsed from an allocation of exactly its size, so that reading past its
 * end is an error that the sanitizer sees.
 */
static SlSigResult
verify_at(const char *header, size_t header_len, const char *secret,
		  const char *payload, size_t len, int64_t now, int64_t tolerance)
{
	SlSigHeader parsed;
	SlSigResult result;
	SlSigKey   *key;
	char	   *exact = malloc(header_len > 0 ? header_len : 1);

	memcpy(exact, header, header_len);
	result = sl_sig_parse(exact, header_len, &parsed);
	free(exact);
	if (result != SL_SIG_OK)
		return result;

	key = sl_sig_key_new(secret, strlen(secret), &result);
	if (key == NULL)
		return result;
	result = sl_sig_match(&parsed, key, payload, len);
	sl_sig_key_free(key);
	if (result != SL_SIG_OK || tolerance == ANY_AGE)
		return result;

	return sl_sig_age(&parsed, now, tolerance);
}

static SlSigResult
parse(const char *header, SlSigHeader *out)
{
	return sl_sig_parse(header, strlen(header), out);
}

static SlSigResult
verify(const char *header)
{
	return verify_at(header, strlen(header), SECRET, PAYLOAD, strlen(PAYLOAD),
					 NOW, TOLERANCE);
}

static void
check_text(SlSigResult actual, SlSigResult expected, int line)
{
	unit_check_str(sl_sig_result_text(actual), sl_sig_result_text(expected),
				   "the result", __FILE__, line);
}

#define CHECK_RESULT(actual, expected) \
	check_text((actual), (expected), __LINE__)

/* Signs a payload for a header; the text lives until the next call. */
static const char *
header_for(const char *secret, int64_t t, const char *payload, size_t len)
{
	static char header[120];
	char		hex[65];
	SlSigKey   *key = new_key(secret);

	CHECK_INT(sl_sig_sign(key, t, payload, len, hex), 1);
	sl_sig_key_free(key);
	snprintf(header, sizeof(header), "t=%" PRId64 ",v1=%s", t, hex);
	return header;
}

/* ---- headers ---- */

static const struct
{
	const char *name;
	const char *header;
	SlSigResult expected;
}			header_cases[] = {
	/* the ordinary ones */
	{"one v1", "t=" T ",v1=" GOOD, SL_SIG_OK},
	{"matrix 2: v1, v0 before t", "v1=" GOOD ",v0=" OTHER ",t=" T, SL_SIG_OK},
	{"fake v0 beside v1", "t=" T ",v1=" GOOD ",v0=" OTHER, SL_SIG_OK},
	{"rolled key: good is second", "t=" T ",v1=" OTHER ",v1=" GOOD, SL_SIG_OK},
	{"rolled key: good is first", "t=" T ",v1=" GOOD ",v1=" OTHER, SL_SIG_OK},

	/* the SDKs' own suites */
	{"node 22", "t=" T ",v1=" GOOD ",v1=potato", SL_SIG_OK},
	{"go 6, ruby 16", "t=" T ",v1=" GOOD ",v1=bad_signature", SL_SIG_OK},
	{"node 9", "bad_header", SL_SIG_MALFORMED},
	{"node 14", "I'm not even a real signature header", SL_SIG_MALFORMED},
	{"node 15", "", SL_SIG_NO_HEADER},
	{"node 16", "t=" T ",v0=" GOOD, SL_SIG_NO_SCHEME},
	{"node 17", "t=" T ",v1=bad_signature", SL_SIG_NO_SCHEME},
	{"go 4", "v1,t=1", SL_SIG_NO_SCHEME},
	{"go 5", "t=", SL_SIG_MALFORMED},
	{"go 8", "t=" T ",v1=deadbeef", SL_SIG_NO_SCHEME},
	{"java", "t=not_a_number,v1=somesignature", SL_SIG_MALFORMED},
	{".NET 1", "t=,v1=" GOOD ",v0=" OTHER, SL_SIG_MALFORMED},
	{".NET 2", "t,v1=,v0=", SL_SIG_MALFORMED},
	{".NET 3", "t,v1=,v0", SL_SIG_MALFORMED},
	{".NET 4", "t,v1=,", SL_SIG_MALFORMED},
	{".NET 5", "t,,", SL_SIG_MALFORMED},
	{".NET 6", ",,", SL_SIG_MALFORMED},
	{".NET 7", "t", SL_SIG_MALFORMED},

	/* the cases that the SDKs judge differently */
	{"matrix 3", "t=" T ", v1=" GOOD, SL_SIG_OK},
	{"matrix 4", "v1=" GOOD ", t=" T, SL_SIG_OK},
	{"matrix 5", " t=" T ",v1=" GOOD, SL_SIG_OK},
	{"matrix 6", "t=" T ",v1=" GOOD " ", SL_SIG_OK},
	{"matrix 7", "t=" T " ,v1=" GOOD, SL_SIG_OK},
	{"tabs as blanks", "\tt=" T "\t,\t v1=" GOOD "\t", SL_SIG_OK},
	{"matrix 9", "t=" T ",v1= " GOOD, SL_SIG_NO_SCHEME},
	{"matrix 10", "t=" T ",v1=" GOOD_UP, SL_SIG_NO_SCHEME},
	{"matrix 11, T", "T=" T ",v1=" GOOD, SL_SIG_MALFORMED},
	{"matrix 11, V1", "t=" T ",V1=" GOOD, SL_SIG_NO_SCHEME},
	{"matrix 12", "t=" T ",v0=" GOOD ",v2=" GOOD, SL_SIG_NO_SCHEME},
	{"matrix 20", "t=" T ",v1=" GOOD ",foo", SL_SIG_OK},
	{"matrix 21", "t=" T ",v1=" GOOD ",", SL_SIG_OK},
	{"leading comma", ",t=" T ",v1=" GOOD, SL_SIG_OK},
	{"empty items", "t=" T ",, ,v1=" GOOD, SL_SIG_OK},
	{"matrix 23", "t=" T ",v1=" GOOD "=", SL_SIG_NO_SCHEME},
	{"matrix 24", "t=" T ",v1=" GOOD ",a=b=c", SL_SIG_OK},
	{"matrix 26", "t=" T ",v1=" GOOD ",v1=", SL_SIG_OK},
	{"matrix 28", "t=" T ",v1=" GOOD ",v1", SL_SIG_OK},
	{"matrix 29", "t=" T ",v1=0c8670ed117751cc551a20e35839447075c42800",
	SL_SIG_NO_SCHEME},
	{"matrix 31", "t=,v1=" GOOD, SL_SIG_MALFORMED},
	{"matrix 32", "v1=" GOOD, SL_SIG_MALFORMED},
	{"matrix 37", "t=" T ",t=1699999999,v1=" GOOD, SL_SIG_MALFORMED},
	{"matrix 38", "t=1699999999,t=" T ",v1=" GOOD, SL_SIG_MALFORMED},
	{"the same t twice", "t=" T ",t=" T ",v1=" GOOD, SL_SIG_MALFORMED},
	{"an empty second t", "t=" T ",v1=" GOOD ",t=", SL_SIG_MALFORMED},
	{"an empty first t", "t=,t=" T ",v1=" GOOD, SL_SIG_MALFORMED},
	{"a bare second t", "t=" T ",v1=" GOOD ",t", SL_SIG_OK},
	{"matrix 39", "t=" T "abc,v1=" GOOD, SL_SIG_MALFORMED},
	{"matrix 40", "t=+" T ",v1=" GOOD, SL_SIG_MALFORMED},
	{"a negative time", "t=-" T ",v1=" GOOD, SL_SIG_MALFORMED},
	{"matrix 44", "t=" T ".5,v1=" GOOD, SL_SIG_MALFORMED},
	{"matrix 46", "t=0x6553f100,v1=" GOOD, SL_SIG_MALFORMED},
	{"matrix 47", "t=1_700_000_000,v1=" GOOD, SL_SIG_MALFORMED},
	{"matrix 48", "t=17e8,v1=" GOOD, SL_SIG_MALFORMED},
	{"t after a blank", "t= " T ",v1=" GOOD, SL_SIG_MALFORMED},
	{"blank before =", "t =" T ",v1=" GOOD, SL_SIG_MALFORMED},
	{"digits of another script",
	"t=\xd9\xa1\xd9\xa7\xd9\xa0\xd9\xa0,v1=" GOOD, SL_SIG_MALFORMED},
	{"matrix 61", "t=1699990000,v1=" OTHER ", t=" T ",v1=" GOOD,
	SL_SIG_MALFORMED},
	{"matrix 62", "t=1699990000,v1=" OTHER ",t=" T ",v1=" GOOD,
	SL_SIG_MALFORMED},

	/* what no suite has */
	{"only blanks", " \t ", SL_SIG_NO_HEADER},
	{"one comma", ",", SL_SIG_MALFORMED},
	{"semicolons", "t=" T ";v1=" GOOD, SL_SIG_MALFORMED},
	{"line end after t", "t=" T "\n,v1=" GOOD, SL_SIG_MALFORMED},
	{"line end after v1", "t=" T ",v1=" GOOD "\r\n", SL_SIG_NO_SCHEME},
	{"no-break space", "\xc2\xa0t=" T ",v1=" GOOD, SL_SIG_MALFORMED},
	{"quoted v1", "t=" T ",v1=\"" GOOD "\"", SL_SIG_NO_SCHEME},
	{"v1 with 63 digits",
	"t=" T ",v1=0c8670ed117751cc551a20e35839447075c42800ea3cf3e8a2fbda99cd1e6ed",
	SL_SIG_NO_SCHEME},
	{"v1 with 65 digits", "t=" T ",v1=" GOOD "0", SL_SIG_NO_SCHEME},
	{"v10", "t=" T ",v10=" GOOD, SL_SIG_NO_SCHEME},
	{"xv1", "t=" T ",xv1=" GOOD, SL_SIG_NO_SCHEME},
	{"a longer key than t", "tt=" T ",v1=" GOOD, SL_SIG_MALFORMED},
	{"a g among the digits",
	"t=" T ",v1=gc8670ed117751cc551a20e35839447075c42800ea3cf3e8a2fbda99cd1e6edd",
	SL_SIG_NO_SCHEME},
	{"a g at the end",
	"t=" T ",v1=0c8670ed117751cc551a20e35839447075c42800ea3cf3e8a2fbda99cd1e6edg",
	SL_SIG_NO_SCHEME},
	{"first bit wrong",
	"t=" T ",v1=8c8670ed117751cc551a20e35839447075c42800ea3cf3e8a2fbda99cd1e6edd",
	SL_SIG_NO_MATCH},
	{"last bit wrong",
	"t=" T ",v1=0c8670ed117751cc551a20e35839447075c42800ea3cf3e8a2fbda99cd1e6edc",
	SL_SIG_NO_MATCH},
	{"another time", "t=1700000001,v1=" GOOD, SL_SIG_NO_MATCH},
	{"a leading zero is part of the text", "t=0" T ",v1=" GOOD,
	SL_SIG_NO_MATCH},
	{"only wrong ones", "t=" T ",v1=" OTHER ",v1=" OTHER, SL_SIG_NO_MATCH},
};

static void
test_headers(void)
{
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(header_cases); i++)
	{
		unit_case("header %s", header_cases[i].name);
		CHECK_RESULT(verify(header_cases[i].header), header_cases[i].expected);
	}
	unit_case(NULL);
}

static void
test_bytes_in_header(void)
{
	static const char nul_in_t[] = "t=17\0" "00000000,v1=" GOOD;
	static const char nul_item[] = "t=" T ",\0,v1=" GOOD;
	static const char nul_end[] = "t=" T ",v1=" GOOD "\0";
	SlSigHeader parsed;

	CHECK_RESULT(verify_at(nul_in_t, sizeof(nul_in_t) - 1, SECRET, PAYLOAD,
						   strlen(PAYLOAD), NOW, TOLERANCE), SL_SIG_MALFORMED);
	CHECK_RESULT(verify_at(nul_item, sizeof(nul_item) - 1, SECRET, PAYLOAD,
						   strlen(PAYLOAD), NOW, TOLERANCE), SL_SIG_OK);
	CHECK_RESULT(verify_at(nul_end, sizeof(nul_end) - 1, SECRET, PAYLOAD,
						   strlen(PAYLOAD), NOW, TOLERANCE), SL_SIG_NO_SCHEME);
	CHECK_RESULT(sl_sig_parse(NULL, 0, &parsed), SL_SIG_NO_HEADER);
	CHECK_RESULT(sl_sig_parse(NULL, 5, &parsed), SL_SIG_NO_HEADER);
}

/* Every length up to the whole header: none may match, or read beyond it. */
static void
test_truncated_headers(void)
{
	static const char whole[] = "v0=" OTHER ",t=" T ",v1=" GOOD;
	size_t		len;

	for (len = 0; len < sizeof(whole) - 1; len++)
	{
		SlSigResult result;

		unit_case("%zu bytes", len);
		result = verify_at(whole, len, SECRET, PAYLOAD, strlen(PAYLOAD),
						   NOW, TOLERANCE);
		CHECK(result == SL_SIG_NO_HEADER || result == SL_SIG_MALFORMED ||
			  result == SL_SIG_NO_SCHEME);
	}
	unit_case(NULL);
	CHECK_RESULT(verify(whole), SL_SIG_OK);
}

/* No single changed character of t or v1 may go unnoticed. */
static void
test_every_character_counts(void)
{
	char		header[] = HEADER;
	size_t		i;

	for (i = 0; i < sizeof(header) - 1; i++)
	{
		char		was = header[i];
		const char *other = "0189af,=tvxA \x7f";

		for (; *other; other++)
		{
			if (*other == was)
				continue;
			header[i] = *other;
			unit_case("character %zu as \"%c\"", i, *other);
			CHECK(verify(header) != SL_SIG_OK);
		}
		header[i] = was;
	}
	unit_case(NULL);
	CHECK_RESULT(verify(header), SL_SIG_OK);
}

static void
test_header_size(void)
{
	static char header[SL_SIG_MAX_HEADER + 2];
	static const char good[] = "t=" T ",v1=" GOOD ",";
	SlSigHeader parsed;

	memset(header, 'x', sizeof(header));
	memcpy(header, good, sizeof(good) - 1);

	CHECK_RESULT(sl_sig_parse(header, SL_SIG_MAX_HEADER, &parsed), SL_SIG_OK);
	CHECK_RESULT(sl_sig_parse(header, SL_SIG_MAX_HEADER + 1, &parsed),
				 SL_SIG_MALFORMED);
	CHECK_INT(parsed.n_v1, 0);
	CHECK_RESULT(sl_sig_parse(header, SIZE_MAX, &parsed), SL_SIG_MALFORMED);
}

/* The sixteenth well-formed v1 counts, the seventeenth doesn't. */
static void
test_number_of_v1(void)
{
	char		header[SL_SIG_MAX_HEADER];
	int			before;

	for (before = 0; before < 20; before++)
	{
		int			len = snprintf(header, sizeof(header), "t=" T);
		int			i;

		for (i = 0; i < before; i++)
		{
			/* an ill-formed one takes no place */
			len += snprintf(header + len, sizeof(header) - (size_t) len,
							",v1=%s,v1=short", OTHER);
		}
		snprintf(header + len, sizeof(header) - (size_t) len, ",v1=%s", GOOD);

		unit_case("%d before the good one", before);
		CHECK_RESULT(verify(header),
					 before < SL_SIG_MAX_V1 ? SL_SIG_OK : SL_SIG_NO_MATCH);
	}
	unit_case(NULL);
}

static void
test_parsed_fields(void)
{
	/* the header of an official test vector */
	static const char header[] = "t=1533204620,"
		"v1=2220f87ef101a04665f11cdf770523143f875572008577fa0f20882ddb9cc3c7,"
		"v0=63f3a72374a733066c4be69ed7f8e5ac85c22c9f0a6a612ab9a025a9e4ee7eef";
	static const SlSigHeader zero;
	SlSigHeader parsed;

	CHECK_RESULT(parse(header, &parsed), SL_SIG_OK);
	CHECK_STR(parsed.t_text, "1533204620");
	CHECK_INT(parsed.t_len, 10);
	CHECK_INT(parsed.t, 1533204620);
	CHECK_INT(parsed.n_v1, 1);
	CHECK_INT(parsed.v1[0][0], 0x22);
	CHECK_INT(parsed.v1[0][1], 0x20);
	CHECK_INT(parsed.v1[0][31], 0xc7);

	CHECK_RESULT(parse("t=007,v1=" GOOD, &parsed), SL_SIG_OK);
	CHECK_STR(parsed.t_text, "007");
	CHECK_INT(parsed.t, 7);

	/* refused headers leave nothing behind that could be matched */
	CHECK_RESULT(parse("v1=" GOOD ",t=1,t=2", &parsed),
				 SL_SIG_MALFORMED);
	CHECK(memcmp(&parsed, &zero, sizeof(zero)) == 0);
}

/* ---- the time ---- */

static void
test_time_digits(void)
{
	static const struct
	{
		const char *digits;
		SlSigResult expected;
		int64_t		value;
	}			cases[] = {
		{"0", SL_SIG_OK, 0},
		{"2147483647", SL_SIG_OK, INT64_C(2147483647)},
		{"2147483648", SL_SIG_OK, INT64_C(2147483648)},
		{"4294967296", SL_SIG_OK, INT64_C(4294967296)},
		{"999999999999999999", SL_SIG_OK, INT64_C(999999999999999999)},
		{"000000000000000001", SL_SIG_OK, 1},
		{"0000000000000000001", SL_SIG_MALFORMED, 0},
		{"1000000000000000000", SL_SIG_MALFORMED, 0},
		{"9223372036854775808", SL_SIG_MALFORMED, 0},
		{"18446744073709551616", SL_SIG_MALFORMED, 0},
		{"99999999999999999999999999999999", SL_SIG_MALFORMED, 0},
	};
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(cases); i++)
	{
		char		header[200];
		SlSigHeader parsed;
		int			len;

		len = snprintf(header, sizeof(header), "t=%s,v1=" OTHER,
					   cases[i].digits);
		unit_case("t=%s", cases[i].digits);
		CHECK_RESULT(sl_sig_parse(header, (size_t) len, &parsed),
					 cases[i].expected);
		CHECK_INT(parsed.t, cases[i].value);
	}
	unit_case(NULL);
}

static SlSigResult
age(int64_t t, int64_t now, int64_t tolerance)
{
	SlSigHeader header;

	memset(&header, 0, sizeof(header));
	header.t = t;
	return sl_sig_age(&header, now, tolerance);
}

static void
test_age(void)
{
	static const struct
	{
		const char *name;
		int64_t		t;
		int64_t		now;
		int64_t		tolerance;
		SlSigResult expected;
	}			cases[] = {
		{"same second", NOW, NOW, 300, SL_SIG_OK},
		{"299 s old", NOW - 299, NOW, 300, SL_SIG_OK},
		{"boundary, old", NOW - 300, NOW, 300, SL_SIG_OK},
		{"past it, old", NOW - 301, NOW, 300, SL_SIG_STALE},
		{"boundary, early", NOW + 300, NOW, 300, SL_SIG_OK},
		{"past it, early", NOW + 301, NOW, 300, SL_SIG_STALE},
		{"matrix 58", NOW + 400, NOW, 300, SL_SIG_STALE},
		{"node 18, 19", NOW - 15, NOW, 10, SL_SIG_STALE},
		{"node 21", NOW - 9, NOW, 10, SL_SIG_OK},
		{"go 10", NOW - 15, NOW, 20, SL_SIG_OK},
		{"php", NOW + 15, NOW, 10, SL_SIG_STALE},
		{"node 31", NOW - 400, NOW, 300, SL_SIG_STALE},
		{"java clock 12", 1, 12, 10, SL_SIG_STALE},
		{"java future: two-sided here", 11, 0, 10, SL_SIG_STALE},
		{"matrix 49", 0, NOW, 300, SL_SIG_STALE},
		{"matrix 52", INT64_C(2147483648), INT64_C(2147483648), 300,
		SL_SIG_OK},
		{"tolerance 0, same", NOW, NOW, 0, SL_SIG_OK},
		{"tolerance 0, older", NOW - 1, NOW, 0, SL_SIG_STALE},
		{"tolerance 0, newer", NOW + 1, NOW, 0, SL_SIG_STALE},
		{"tolerance -1", NOW, NOW, -1, SL_SIG_STALE},
		{"least tolerance", NOW, NOW, INT64_MIN, SL_SIG_STALE},
		{"greatest tolerance", INT64_C(1514764800), NOW, INT64_MAX, SL_SIG_OK},
		{"all far apart", INT64_C(999999999999999999), INT64_MIN, INT64_MAX,
		SL_SIG_STALE},
		{"latest t, now 0", INT64_C(999999999999999999), 0, 300, SL_SIG_STALE},
		{"latest now", 0, INT64_MAX, 300, SL_SIG_STALE},
		{"latest now, greatest tolerance", 0, INT64_MAX, INT64_MAX, SL_SIG_OK},
		{"now before the epoch", 0, -300, 300, SL_SIG_OK},
		{"more before the epoch", 0, -301, 300, SL_SIG_STALE},
		{"earliest now", 0, INT64_MIN, 300, SL_SIG_STALE},
		{"earliest now, greatest tolerance", 0, INT64_MIN, INT64_MAX,
		SL_SIG_STALE},
	};
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(cases); i++)
	{
		unit_case("age %s", cases[i].name);
		CHECK_RESULT(age(cases[i].t, cases[i].now, cases[i].tolerance),
					 cases[i].expected);
	}
	unit_case(NULL);
}

/* A stale header with a wrong signature is a wrong signature (matrix 59). */
static void
test_match_before_age(void)
{
	const char *header = "t=1600000000,v1=" GOOD;

	CHECK_RESULT(verify(header), SL_SIG_NO_MATCH);
	CHECK_RESULT(verify(header_for(SECRET, NOW - 15, PAYLOAD,
								   strlen(PAYLOAD))), SL_SIG_OK);
	CHECK_RESULT(verify(header_for(SECRET, NOW - 400, PAYLOAD,
								   strlen(PAYLOAD))), SL_SIG_STALE);
	CHECK_RESULT(verify(header_for(SECRET, NOW + 400, PAYLOAD,
								   strlen(PAYLOAD))), SL_SIG_STALE);

	/* node 23, go 11: an old one, without a look at its age */
	header = header_for(SECRET, 12345, PAYLOAD, strlen(PAYLOAD));
	CHECK_RESULT(verify_at(header, strlen(header), SECRET, PAYLOAD,
						   strlen(PAYLOAD), NOW, ANY_AGE), SL_SIG_OK);
	CHECK_RESULT(verify(header), SL_SIG_STALE);
}

/* ---- secrets ---- */

static void
test_secrets(void)
{
	static const char *const wrong[] = {
		"whsec_test_secret ", " whsec_test_secret", "whsec_test_secret\n",
		"test_secret", "whsec_", "whsec_test_secre", "whsec_test_secret_",
		"WHSEC_TEST_SECRET", "whsec_another", "x",
	};
	static const char *const blank[] = {
		"", " ", "\t", "\n", "\v", "\f", "\r", " \t\r\n\f\v ",
	};
	static const char with_nul[] = "whsec_test_secret\0more";
	SlSigHeader parsed;
	SlSigResult why;
	SlSigKey   *key;
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(wrong); i++)
	{
		unit_case("secret \"%s\"", wrong[i]);
		CHECK_RESULT(verify_at(HEADER, strlen(HEADER), wrong[i], PAYLOAD,
							   strlen(PAYLOAD), NOW, TOLERANCE),
					 SL_SIG_NO_MATCH);
	}
	for (i = 0; i < UNIT_LENGTH(blank); i++)
	{
		unit_case("blank secret %zu", i);
		why = SL_SIG_OK;
		CHECK(sl_sig_key_new(blank[i], strlen(blank[i]), &why) == NULL);
		CHECK_RESULT(why, SL_SIG_BLANK_SECRET);
		CHECK(sl_sig_key_new(blank[i], strlen(blank[i]), NULL) == NULL);
	}
	unit_case(NULL);
	CHECK(sl_sig_key_new(NULL, 0, &why) == NULL);
	CHECK_RESULT(why, SL_SIG_BLANK_SECRET);
	CHECK(sl_sig_key_new(NULL, 5, &why) == NULL);
	CHECK_RESULT(why, SL_SIG_BLANK_SECRET);

	/* neither of these is white space */
	key = sl_sig_key_new("\0", 1, &why);
	CHECK(key != NULL);
	sl_sig_key_free(key);
	key = sl_sig_key_new("\b", 1, &why);
	CHECK(key != NULL);
	sl_sig_key_free(key);
	key = sl_sig_key_new("\x0e", 1, NULL);
	CHECK(key != NULL);
	sl_sig_key_free(key);

	/* a secret is as long as it is said to be */
	CHECK_RESULT(parse(HEADER, &parsed), SL_SIG_OK);
	key = sl_sig_key_new(with_nul, sizeof(with_nul) - 1, &why);
	CHECK_RESULT(why, SL_SIG_OK);
	CHECK_RESULT(sl_sig_match(&parsed, key, PAYLOAD, strlen(PAYLOAD)),
				 SL_SIG_NO_MATCH);
	sl_sig_key_free(key);
	key = sl_sig_key_new(with_nul, strlen(with_nul), &why);
	CHECK_RESULT(sl_sig_match(&parsed, key, PAYLOAD, strlen(PAYLOAD)),
				 SL_SIG_OK);
	sl_sig_key_free(key);
	sl_sig_key_free(NULL);
}

/* Either secret of a rolled pair verifies a header signed with both (go 9). */
static void
test_rolled_secret(void)
{
	char		header[200];
	char		old_hex[65];
	char		new_hex[65];
	SlSigKey   *old_key = new_key(SECRET);
	SlSigKey   *next_key = new_key(SECRET "_rolled_key");
	SlSigKey   *third_key = new_key(SECRET "_third");
	SlSigHeader parsed;
	int			len;

	CHECK_INT(sl_sig_sign(old_key, NOW, PAYLOAD, strlen(PAYLOAD), old_hex), 1);
	CHECK_INT(sl_sig_sign(next_key, NOW, PAYLOAD, strlen(PAYLOAD), new_hex),
			  1);
	CHECK_STR(old_hex, GOOD);
	len = snprintf(header, sizeof(header), "t=" T ",v1=%s,v1=%s",
				   old_hex, new_hex);
	CHECK_RESULT(sl_sig_parse(header, (size_t) len, &parsed), SL_SIG_OK);
	CHECK_RESULT(sl_sig_match(&parsed, old_key, PAYLOAD, strlen(PAYLOAD)),
				 SL_SIG_OK);
	CHECK_RESULT(sl_sig_match(&parsed, next_key, PAYLOAD, strlen(PAYLOAD)),
				 SL_SIG_OK);
	CHECK_RESULT(sl_sig_match(&parsed, third_key, PAYLOAD, strlen(PAYLOAD)),
				 SL_SIG_NO_MATCH);
	sl_sig_key_free(old_key);
	sl_sig_key_free(next_key);
	sl_sig_key_free(third_key);
}

/* ---- payloads ---- */

static void
test_payloads(void)
{
	static const struct
	{
		const char *name;
		const char *payload;
		size_t		len;
	}			wrong[] = {
		{"empty", "", 0},
		{"one byte less", PAYLOAD, sizeof(PAYLOAD) - 2},
		{"one byte more", PAYLOAD, sizeof(PAYLOAD)},
		{"more text (.NET)", PAYLOAD "this_changes_the_json",
		sizeof(PAYLOAD) + 20},
		{"a line end more", PAYLOAD "\n", sizeof(PAYLOAD)},
		{"a blank more", "{\"id\": \"evt_1\",\"object\":\"event\"}",
		sizeof(PAYLOAD)},
		{"reordered, as jsonb would", "{\"object\":\"event\",\"id\":\"evt_1\"}",
		sizeof(PAYLOAD) - 1},
		{"a byte order mark first", "\xef\xbb\xbf" PAYLOAD,
		sizeof(PAYLOAD) + 2},
	};
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(wrong); i++)
	{
		unit_case("payload %s", wrong[i].name);
		CHECK_RESULT(verify_at(HEADER, strlen(HEADER), SECRET,
							   wrong[i].payload, wrong[i].len, NOW, TOLERANCE),
					 SL_SIG_NO_MATCH);
	}
	unit_case(NULL);
}

/* The time's end and the payload's start can't be moved into each other. */
static void
test_time_is_delimited(void)
{
	const char *header = header_for(SECRET, 17, "0.x", 3);
	char		moved[120];

	snprintf(moved, sizeof(moved), "t=170%s", header + 4);
	CHECK_RESULT(verify_at(header, strlen(header), SECRET, "0.x", 3, NOW,
						   ANY_AGE), SL_SIG_OK);
	CHECK_RESULT(verify_at(moved, strlen(moved), SECRET, "x", 1, NOW, ANY_AGE),
				 SL_SIG_NO_MATCH);
}

/* ---- known answers ---- */

static void
test_known_answers(void)
{
	static char thousands[3000];
	static const struct
	{
		const char *secret;
		const char *t;
		const char *payload;
		size_t		len;
		const char *v1;
	}			cases[] = {
		{SECRET, T, PAYLOAD, sizeof(PAYLOAD) - 1, GOOD},
		{SECRET, T, "", 0,
		"316b9ab98c15bfa039d243f3196acee619cf29749a91a634e6a8154e2f7b6727"},
		{SECRET, "0", "{}", 2,
		"13f6d44b9cf5d88556347e2bf7903d906d9673d3ac60cfd268d829d86ad2df73"},
		{SECRET, "0001700000000", "{}", 2,
		"88e374ad14a75f9a7bd118e18b4f21c4e127502a181f169f61b399a4bba103d8"},
		{SECRET, "2147483648", "{}", 2,
		"a1cfd172ad36a017145d6be341e0e72dd4854f71557f535f71d028858ac75b70"},
		{SECRET, "999999999999999999", "{}", 2,
		"574c561a2a9746f111b46a8da0f3e0d572de07ad825353434c4dc528a7c69594"},
		/* a secret longer than SHA-256's block; bytes beyond ASCII; CR LF */
		{"whsec_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
			"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
			T, "{\"a\":\"\xc3\xa9\"}\r\n", 12,
		"60234861f5c479b6930382e5f19b5dc1c4aef5a62d4402fabb23fabed5021740"},
		/* the prefix is part of the key: without it another answer */
		{"test_secret", T, PAYLOAD, sizeof(PAYLOAD) - 1,
		"0fb54d9a35d072623dc9c03143395360f9abb724c46b8d837a63aa8d704baede"},
		{SECRET, T, "\xef\xbb\xbf{}", 5,
		"d39d0da0451408c5303a1de0e6ac487f302183f463f595cacf67857e01f244c5"},
		{SECRET, T, "a\0b", 3,
		"1c68785302fdb56dfa4ba16b9548a84be275258764de5cc2fc6aa3e576e157a0"},
		{SECRET, T, thousands, sizeof(thousands),
		"7b7ea6459c35be4c30ef72e1b94026c377f9245da19a5e96cc64e5570e8bdc08"},
	};
	size_t		i;

	memset(thousands, 'x', sizeof(thousands));
	for (i = 0; i < UNIT_LENGTH(cases); i++)
	{
		char		header[200];
		char		hex[65];
		SlSigKey   *key;
		int			len;

		unit_case("known answer %zu", i);
		len = snprintf(header, sizeof(header), "t=%s,v1=%s", cases[i].t,
					   cases[i].v1);
		CHECK_RESULT(verify_at(header, (size_t) len, cases[i].secret,
							   cases[i].payload, cases[i].len, NOW, ANY_AGE),
					 SL_SIG_OK);

		/* signing writes no leading zeroes, so it can't make that one */
		if (cases[i].t[0] == '0' && cases[i].t[1] != '\0')
			continue;
		key = new_key(cases[i].secret);
		CHECK_INT(sl_sig_sign(key, strtoll(cases[i].t, NULL, 10),
							  cases[i].payload, cases[i].len, hex), 1);
		CHECK_STR(hex, cases[i].v1);
		sl_sig_key_free(key);
	}
	unit_case(NULL);
}

static void
test_sign_refuses_times(void)
{
	SlSigKey   *key = new_key(SECRET);
	char		hex[65];

	memset(hex, 'x', sizeof(hex));
	CHECK_INT(sl_sig_sign(key, -1, "", 0, hex), 0);
	CHECK_STR(hex, "");
	CHECK_INT(sl_sig_sign(key, INT64_MIN, "", 0, hex), 0);
	CHECK_INT(sl_sig_sign(key, INT64_C(1000000000000000000), "", 0, hex), 0);
	CHECK_INT(sl_sig_sign(key, INT64_MAX, "", 0, hex), 0);
	sl_sig_key_free(key);
}

/* One key, many messages of all sizes: none may leave a trace in the next. */
static void
test_key_is_reusable(void)
{
	static char payload[5000];
	SlSigKey   *used = new_key(SECRET);
	size_t		len;

	memset(payload, 'p', sizeof(payload));
	for (len = 0; len < sizeof(payload); len += 37)
	{
		SlSigKey   *fresh = new_key(SECRET);
		char		used_hex[65];
		char		fresh_hex[65];

		unit_case("%zu bytes", len);
		CHECK_INT(sl_sig_sign(used, NOW, payload, len, used_hex), 1);
		CHECK_INT(sl_sig_sign(fresh, NOW, payload, len, fresh_hex), 1);
		CHECK_STR(used_hex, fresh_hex);
		sl_sig_key_free(fresh);
	}
	unit_case(NULL);
	sl_sig_key_free(used);
}

/* ---- texts ---- */

static void
test_texts(void)
{
	int			i;
	int			j;

	for (i = SL_SIG_OK; i <= SL_SIG_CRYPTO; i++)
	{
		const char *text = sl_sig_result_text((SlSigResult) i);

		unit_case("text %d", i);
		CHECK(text != NULL && text[0] >= 'a' && text[0] <= 'z');
		CHECK(strchr(text, '.') == NULL && strchr(text, '%') == NULL);
		for (j = SL_SIG_OK; j < i; j++)
			CHECK(strcmp(text, sl_sig_result_text((SlSigResult) j)) != 0);
	}
	unit_case(NULL);
	CHECK_STR(sl_sig_result_text((SlSigResult) 99), "unknown signature result");
}

int
main(void)
{
	test_headers();
	test_bytes_in_header();
	test_truncated_headers();
	test_every_character_counts();
	test_header_size();
	test_number_of_v1();
	test_parsed_fields();
	test_time_digits();
	test_age();
	test_match_before_age();
	test_secrets();
	test_rolled_secret();
	test_payloads();
	test_time_is_delimited();
	test_known_answers();
	test_sign_refuses_times();
	test_key_is_reusable();
	test_texts();
	return unit_done();
}
