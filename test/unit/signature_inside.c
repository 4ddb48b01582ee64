/*-------------------------------------------------------------------------
 *
 * signature_inside.c
 *	  The webhook signature's dealings with OpenSSL, seen from inside.
 *
 * The room's source is included with OpenSSL's functions replaced by stand-ins
 * that can fail at any call, or behave as OpenSSL 3.0.0 to 3.0.2 do, where
 * EVP_MAC_init() without a key reports success and rewinds nothing.  Being
 * inside also lets RFC 4231's vectors be run: their messages have no time in
 * front, and two of their keys are what we refuse as blank.
 *
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include <openssl/evp.h>

/* Fail at this call from now (1 = the next one); 0 = never. */
static int	fail_at;
static int	calls;
static bool old_openssl;
static int	rewinds;
static int	copies;

static bool
fails_now(void)
{
	calls++;
	return fail_at > 0 && calls == fail_at;
}

static void *
stand_in_calloc(size_t n, size_t size)
{
	return fails_now() ? NULL : calloc(n, size);
}

static EVP_MAC *
stand_in_fetch(OSSL_LIB_CTX *library, const char *name, const char *properties)
{
	return fails_now() ? NULL : EVP_MAC_fetch(library, name, properties);
}

static EVP_MAC_CTX *
stand_in_new(EVP_MAC *mac)
{
	return fails_now() ? NULL : EVP_MAC_CTX_new(mac);
}

static EVP_MAC_CTX *
stand_in_dup(const EVP_MAC_CTX *ctx)
{
	copies++;
	return fails_now() ? NULL : EVP_MAC_CTX_dup(ctx);
}

static int
stand_in_init(EVP_MAC_CTX *ctx, const unsigned char *key, size_t len,
			  const OSSL_PARAM params[])
{
	if (fails_now())
		return 0;
	if (key == NULL)
	{
		rewinds++;
		if (old_openssl)
			return 1;
	}
	return EVP_MAC_init(ctx, key, len, params);
}

static int
stand_in_update(EVP_MAC_CTX *ctx, const unsigned char *data, size_t len)
{
	return fails_now() ? 0 : EVP_MAC_update(ctx, data, len);
}

static int
stand_in_final(EVP_MAC_CTX *ctx, unsigned char *out, size_t *len, size_t size)
{
	return fails_now() ? 0 : EVP_MAC_final(ctx, out, len, size);
}

#define calloc			stand_in_calloc
#define EVP_MAC_fetch	stand_in_fetch
#define EVP_MAC_CTX_new stand_in_new
#define EVP_MAC_CTX_dup stand_in_dup
#define EVP_MAC_init	stand_in_init
#define EVP_MAC_update	stand_in_update
#define EVP_MAC_final	stand_in_final
#include "signature.c"
#undef calloc

#define SECRET	"whsec_test_secret"
#define PAYLOAD "{\"id\":\"evt_1\",\"object\":\"event\"}"
#define GOOD	"0c8670ed117751cc551a20e35839447075c42800ea3cf3e8a2fbda99cd1e6edd"
#define HEADER	"t=1700000000,v1=" GOOD

static void
test_rfc_4231(void)
{
	static const struct
	{
		char		key_byte;	/* repeated, unless key is given */
		const char *key;
		size_t		key_len;
		char		data_byte;
		const char *data;
		size_t		data_len;
		const char *mac;
		size_t		mac_digits;
	}			cases[] = {
		{0x0b, NULL, 20, 0, "Hi There", 8,
			"b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
		64},
		{0, "Jefe", 4, 0, "what do ya want for nothing?", 28,
			"5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
		64},
		{(char) 0xaa, NULL, 20, (char) 0xdd, NULL, 50,
			"773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
		64},
		{0, "\1\2\3\4\5\6\7\10\11\12\13\14\15\16\17\20\21\22\23\24\25\26\27\30\31",
			25, (char) 0xcd, NULL, 50,
			"82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
		64},
		{0x0c, NULL, 20, 0, "Test With Truncation", 20,
		"a3b6167473100ee06e0c796c2955552b", 32},
		{(char) 0xaa, NULL, 131, 0,
			"Test Using Larger Than Block-Size Key - Hash Key First", 54,
			"60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
		64},
		{(char) 0xaa, NULL, 131, 0,
			"This is a test using a larger than block-size key and a larger "
			"than block-size data. The key needs to be hashed before being "
			"used by the HMAC algorithm.", 152,
			"9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
		64},
	};
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(cases); i++)
	{
		char		key[200];
		char		data[200];
		char		hex[SL_SIG_HEX_LEN + 1];
		unsigned char mac[SL_SIG_MAC_LEN];
		EVP_MAC_CTX *ctx;
		int			j;

		memset(key, cases[i].key_byte, sizeof(key));
		if (cases[i].key)
			memcpy(key, cases[i].key, cases[i].key_len);
		memset(data, cases[i].data_byte, sizeof(data));
		if (cases[i].data)
			memcpy(data, cases[i].data, cases[i].data_len);

		unit_case("RFC 4231 case %zu", i + 1);
		ctx = keyed_context(key, cases[i].key_len);
		CHECK(ctx != NULL);
		CHECK(mac_message(ctx, NULL, 0, data, cases[i].data_len, mac));
		for (j = 0; j < SL_SIG_MAC_LEN; j++)
			snprintf(hex + 2 * j, 3, "%02x", mac[j]);
		hex[cases[i].mac_digits] = '\0';
		CHECK_STR(hex, cases[i].mac);
		EVP_MAC_CTX_free(ctx);
	}
	unit_case(NULL);
}

/* Several messages with one key give the same answers as in signature tests. */
static void
check_key_works(SlSigKey *key)
{
	SlSigHeader header;
	char		hex[65];
	int			i;

	CHECK_INT(sl_sig_parse(HEADER, strlen(HEADER), &header), SL_SIG_OK);
	for (i = 0; i < 3; i++)
	{
		CHECK_INT(sl_sig_match(&header, key, PAYLOAD, strlen(PAYLOAD)),
				  SL_SIG_OK);
		CHECK_INT(sl_sig_match(&header, key, "", 0), SL_SIG_NO_MATCH);
		CHECK_INT(sl_sig_sign(key, 1700000000, PAYLOAD, strlen(PAYLOAD), hex),
				  1);
		CHECK_STR(hex, GOOD);
	}
}

/* The fast path is taken where it works: no copy per message. */
static void
test_rewinding(void)
{
	SlSigKey   *key = sl_sig_key_new(SECRET, strlen(SECRET), NULL);

	CHECK(key != NULL && key->reusable);
	copies = rewinds = 0;
	check_key_works(key);
	CHECK_INT(copies, 0);
	CHECK_INT(rewinds, 9);
	sl_sig_key_free(key);
}

static void
test_library_that_cannot_rewind(void)
{
	SlSigKey   *key;

	old_openssl = true;
	key = sl_sig_key_new(SECRET, strlen(SECRET), NULL);
	CHECK(key != NULL && !key->reusable);
	copies = rewinds = 0;
	check_key_works(key);
	CHECK_INT(copies, 9);
	CHECK_INT(rewinds, 0);
	sl_sig_key_free(key);
	old_openssl = false;
}

/* Whichever call fails while a key is made: no key, or one that works. */
static void
test_failures_making_a_key(void)
{
	int			refused = 0;

	for (fail_at = 1;; fail_at++)
	{
		SlSigResult why = SL_SIG_STALE;
		SlSigKey   *key;
		bool		reached;

		calls = 0;
		key = sl_sig_key_new(SECRET, strlen(SECRET), &why);
		reached = calls >= fail_at;
		calls = fail_at;		/* none fails any more */
		unit_case("call %d fails", fail_at);
		CHECK_INT(why, key ? SL_SIG_OK : SL_SIG_CRYPTO);
		if (key)
			check_key_works(key);
		else
			refused++;
		sl_sig_key_free(key);
		if (!reached)
			break;
	}
	unit_case(NULL);
	fail_at = 0;
	CHECK_INT(refused, 4);		/* memory, fetch, context, key */
}

/*
 * Whichever call fails while a message is checked: CRYPTO, never OK or
 * NO_MATCH, and the next message is judged rightly.
 */
static void
check_failures_of_message(SlSigKey *key, int expected)
{
	SlSigHeader header;
	char		hex[65];
	int			failures = 0;

	CHECK_INT(sl_sig_parse(HEADER, strlen(HEADER), &header), SL_SIG_OK);
	for (fail_at = 1;; fail_at++)
	{
		SlSigResult result;

		calls = 0;
		result = sl_sig_match(&header, key, PAYLOAD, strlen(PAYLOAD));
		unit_case("call %d fails", fail_at);
		if (calls < fail_at)
		{
			CHECK_INT(result, SL_SIG_OK);
			break;
		}
		failures++;
		CHECK_INT(result, SL_SIG_CRYPTO);

		calls = 0;
		memset(hex, 'x', sizeof(hex));
		CHECK_INT(sl_sig_sign(key, 1700000000, PAYLOAD, strlen(PAYLOAD), hex),
				  0);
		CHECK_STR(hex, "");

		calls = fail_at;
		check_key_works(key);
	}
	unit_case(NULL);
	fail_at = 0;
	CHECK_INT(failures, expected);
}

static void
test_failures_of_a_message(void)
{
	SlSigKey   *key = sl_sig_key_new(SECRET, strlen(SECRET), NULL);

	/* init or copy, then time, full stop, payload, final */
	check_failures_of_message(key, 5);
	sl_sig_key_free(key);

	old_openssl = true;
	key = sl_sig_key_new(SECRET, strlen(SECRET), NULL);
	check_failures_of_message(key, 5);
	sl_sig_key_free(key);
	old_openssl = false;
}

int
main(void)
{
	test_rfc_4231();
	test_rewinding();
	test_library_that_cannot_rewind();
	test_failures_making_a_key();
	test_failures_of_a_message();
	return unit_done();
}
