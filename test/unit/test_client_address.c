/*-------------------------------------------------------------------------
 *
 * test_client_address.c
 *	  Which address is read out of which header, and what is no address.
 *
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "client_address.h"

/* The bucket that an address falls into, or "none". */
static const char *
bucket_of(int hops, const char *text)
{
	static char out[SL_ADDRESS_TEXT];
	SlAddress	a;
	int			ok = hops == 0 ? sl_address_parse(text, strlen(text), &a) :
		sl_address_of_list(text, strlen(text), hops, &a);

	if (!ok)
	{
		static const SlAddress none;

		CHECK(memcmp(&a, &none, sizeof(a)) == 0);
		return "none";
	}
	sl_address_to_bucket(&a);
	sl_address_print(&a, out);
	return out;
}

static void
test_one(void)
{
	static const char *const cases[][2] = {
		{"192.0.2.7", "192.0.2.7"},
		{" \t192.0.2.7 ", "192.0.2.7"},
		{"192.0.2.7:8080", "192.0.2.7"},
		{"0.0.0.0", "0.0.0.0"},
		{"255.255.255.255", "255.255.255.255"},
		{"2001:db8::1", "2001:db8::/64"},
		{"2001:DB8:0:0:ffff:ffff:ffff:ffff", "2001:db8::/64"},
		{"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"},
		{"[2001:db8::1]", "2001:db8::/64"},
		{"[2001:db8::1]:443", "2001:db8::/64"},
		{"::1", "::/64"},
		{"::", "::/64"},
		{"::ffff:192.0.2.7", "192.0.2.7"},
		{"::ffff:c000:207", "192.0.2.7"},
		{"[::ffff:192.0.2.7]:80", "192.0.2.7"},
		{"::192.0.2.7", "::/64"},	/* the deprecated form is IPv6 */

		{"", "none"},
		{" ", "none"},
		{"unknown", "none"},
		{"_hidden", "none"},
		{"example.com", "none"},
		{"192.0.2", "none"},
		{"192.0.2.256", "none"},
		{"192.0.2.7.8", "none"},
		{"192.0.2.07", "none"},
		{"0xc0.0.2.7", "none"},
		{"3221225991", "none"},
		{"192.0.2.7:", "none"},
		{"192.0.2.7:port", "none"},
		{"192.0.2.7:123456", "none"},
		{"192.0.2.7 8.8.8.8", "none"},
		{"192.0.2.7/24", "none"},
		{"-192.0.2.7", "none"},
		{"[192.0.2.7]", "none"},
		{"[2001:db8::1", "none"},
		{"2001:db8::1]", "none"},
		{"[2001:db8::1]x", "none"},
		{"[2001:db8::1]:", "none"},
		{"[]", "none"},
		{"2001:db8::1::2", "none"},
		{"2001:db8:1:2:3:4:5:6:7", "none"},
		{"fe80::1%eth0", "none"},
		{"for=192.0.2.7", "none"},
		{"\"192.0.2.7\"", "none"},
		{":", "none"},
		{"::::", "none"},
	};
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(cases); i++)
	{
		unit_case("\"%s\"", cases[i][0]);
		CHECK_STR(bucket_of(0, cases[i][0]), cases[i][1]);
	}
	unit_case(NULL);
}

/* What comes from the left is the client's own word, and is not looked at. */
static void
test_list(void)
{
	static const struct
	{
		int			hops;
		const char *list;
		const char *wanted;
	}			cases[] = {
		{1, "192.0.2.1", "192.0.2.1"},
		{1, "192.0.2.1, 192.0.2.2", "192.0.2.2"},
		{1, "192.0.2.1,192.0.2.2", "192.0.2.2"},
		{2, "192.0.2.1, 192.0.2.2", "192.0.2.1"},
		{2, "6.6.6.6, 192.0.2.1, 192.0.2.2", "192.0.2.1"},
		{3, "192.0.2.1, 192.0.2.2", "192.0.2.1"},
		{16, "192.0.2.1, 192.0.2.2", "192.0.2.1"},
		{1, "evil, \", \\, 192.0.2.2", "192.0.2.2"},
		{1, "192.0.2.1, unknown", "none"},
		{1, "192.0.2.1,", "none"},
		{2, "192.0.2.1,", "192.0.2.1"},
		{2, "192.0.2.1,,192.0.2.3", "none"},
		{1, "", "none"},
		{1, ",", "none"},
		{1, ",,,,,", "none"},
		{16, ",,,,,", "none"},
		{1, "2001:db8::1, 2001:db8:0:7::1", "2001:db8:0:7::/64"},
		{0, "192.0.2.1, 192.0.2.2", "none"},	/* no list but an address */
	};
	size_t		i;

	for (i = 0; i < UNIT_LENGTH(cases); i++)
	{
		unit_case("%d of \"%s\"", cases[i].hops, cases[i].list);
		CHECK_STR(bucket_of(cases[i].hops, cases[i].list), cases[i].wanted);
	}
	unit_case(NULL);
}

/* Lengths count, not terminators; a NUL inside is no address. */
static void
test_bounds(void)
{
	char	   *exact = malloc(9);
	char	   *lengthy = malloc(100000);
	SlAddress	a;

	memcpy(exact, "192.0.2.1", 9);
	CHECK_INT(sl_address_parse(exact, 9, &a), 1);
	CHECK_INT(sl_address_of_list(exact, 9, 1, &a), 1);
	CHECK_INT(sl_address_parse(exact, 0, &a), 0);
	CHECK_INT(sl_address_parse("192.0.2.1\0", 10, &a), 0);
	CHECK_INT(sl_address_parse("192.0.2.1\0.2", 12, &a), 0);

	memset(lengthy, '1', 100000);
	CHECK_INT(sl_address_parse(lengthy, 100000, &a), 0);
	memset(lengthy, ' ', 100000);
	memcpy(lengthy + 50000, "192.0.2.1", 9);
	CHECK_INT(sl_address_parse(lengthy, 100000, &a), 1);
	memset(lengthy, ',', 100000);
	CHECK_INT(sl_address_of_list(lengthy, 100000, 16, &a), 0);
	free(lengthy);
	free(exact);
}

/* Two hosts of one network share a bucket, two networks don't. */
static void
test_buckets(void)
{
	SlAddress	a;
	SlAddress	b;

	CHECK(sl_address_parse("2001:db8::1", 11, &a) == 1);
	CHECK(sl_address_parse("2001:db8::2", 11, &b) == 1);
	CHECK(memcmp(&a, &b, sizeof(a)) != 0);
	sl_address_to_bucket(&a);
	sl_address_to_bucket(&b);
	CHECK(memcmp(&a, &b, sizeof(a)) == 0);
	CHECK(sl_address_parse("192.0.2.1", 9, &a) == 1);
	CHECK(sl_address_parse("192.0.2.2", 9, &b) == 1);
	sl_address_to_bucket(&a);
	sl_address_to_bucket(&b);
	CHECK(memcmp(&a, &b, sizeof(a)) != 0);
}

int
main(void)
{
	test_one();
	test_list();
	test_bounds();
	test_buckets();
	return unit_done();
}
