/*-------------------------------------------------------------------------
 *
 * fuzz_client_address.c
 *	  Any bytes as a header that should hold addresses.
 *
 * The first byte is the number of hops.  What is read has to come back from
 * its own text, and only the list's right end may matter.
 *
 *-------------------------------------------------------------------------
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "client_address.h"

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
require(int condition)
{
	if (!condition)
		abort();
}

/* An address, its text, and what is read from that are one. */
static void
check_round_trip(const SlAddress *a)
{
	char		text[SL_ADDRESS_TEXT];
	SlAddress	bucket = *a;
	SlAddress	again;
	char	   *slash;

	require(a->family == 4 || a->family == 6);
	sl_address_to_bucket(&bucket);
	sl_address_print(&bucket, text);
	require(strlen(text) < SL_ADDRESS_TEXT && text[0] != '\0');
	slash = strchr(text, '/');
	require((slash != NULL) == (a->family == 6));
	require(sl_address_parse(text, slash ? (size_t) (slash - text) : strlen(text), &again));
	require(memcmp(&again, &bucket, sizeof(again)) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const SlAddress none;
	SlAddress	a;
	SlAddress	b;
	char	   *longer;
	int			hops;
	int			found;

	if (size < 1)
		return 0;
	hops = data[0] % 18;
	if (sl_address_parse((const char *) data + 1, size - 1, &a))
		check_round_trip(&a);
	else
		require(memcmp(&a, &none, sizeof(a)) == 0);

	found = sl_address_of_list((const char *) data + 1, size - 1, hops, &a);
	if (found)
		check_round_trip(&a);
	else
		require(memcmp(&a, &none, sizeof(a)) == 0);

	/* one more proxy, one more hop: the same address */
	longer = malloc(size - 1 + 10);
	memcpy(longer, data + 1, size - 1);
	memcpy(longer + size - 1, ",192.0.2.9", 10);
	require(sl_address_of_list(longer, size - 1 + 10, (hops < 1 ? 1 : hops) + 1, &b) == found);
	require(memcmp(&a, &b, sizeof(a)) == 0);
	free(longer);
	return 0;
}
