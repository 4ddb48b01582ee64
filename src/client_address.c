/*-------------------------------------------------------------------------
 *
 * client_address.c
 *	  Reads the network address of a client from what proxies say.
 *
 * The text is foreign: whoever sends a request chooses all of such a header
 * but what the trusted proxies append.  So the reading begins at its right
 * end, and whatever is not plainly an address is none.
 *
 *-------------------------------------------------------------------------
 */
#include "client_address.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

/* Longest text that can be an address with brackets and a port. */
#define MAX_ITEM 64

static int
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* ":1" to ":65535", or nothing. */
static int
is_port_or_nothing(const char *s)
{
	size_t		digits;

	if (*s == '\0')
		return 1;
	digits = strspn(s + 1, "0123456789");
	return *s == ':' && digits >= 1 && digits <= 5 && s[1 + digits] == '\0';
}

/* An IPv4 address in IPv6's notation is the IPv4 address. */
static void
unmap(SlAddress *a)
{
	static const unsigned char prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

	if (a->family != 6 || memcmp(a->bytes, prefix, sizeof(prefix)) != 0)
		return;
	a->family = 4;
	memmove(a->bytes, a->bytes + 12, 4);
	memset(a->bytes + 4, 0, 12);
}

static int
read_as(int family, const char *text, SlAddress *out)
{
	memset(out, 0, sizeof(*out));
	if (inet_pton(family, text, out->bytes) != 1)
	{
		memset(out, 0, sizeof(*out));
		return 0;
	}
	out->family = family == AF_INET ? 4 : 6;
	unmap(out);
	return 1;
}

int
sl_address_parse(const char *text, size_t len, SlAddress *out)
{
	char		item[MAX_ITEM];
	char	   *end;

	memset(out, 0, sizeof(*out));
	while (len > 0 && is_blank(text[0]))
		text++, len--;
	while (len > 0 && is_blank(text[len - 1]))
		len--;
	if (len == 0 || len >= sizeof(item) || memchr(text, '\0', len) != NULL)
		return 0;
	memcpy(item, text, len);
	item[len] = '\0';

	if (item[0] == '[')
	{
		end = strchr(item, ']');
		if (end == NULL || !is_port_or_nothing(end + 1))
			return 0;
		*end = '\0';
		return read_as(AF_INET6, item + 1, out);
	}
	end = strchr(item, ':');
	if (end != NULL && strchr(end + 1, ':') != NULL)
		return read_as(AF_INET6, item, out);
	if (end != NULL)
	{
		if (!is_port_or_nothing(end))
			return 0;
		*end = '\0';
	}
	return read_as(AF_INET, item, out);
}

int
sl_address_of_list(const char *list, size_t len, int hops, SlAddress *out)
{
	size_t		end = len;
	size_t		start;

	for (;;)
	{
		start = end;
		while (start > 0 && list[start - 1] != ',')
			start--;
		if (--hops <= 0 || start == 0)
			return sl_address_parse(list + start, end - start, out);
		end = start - 1;
	}
}

void
sl_address_to_bucket(SlAddress *address)
{
	if (address->family == 6)
		memset(address->bytes + 8, 0, 8);
}

void
sl_address_print(const SlAddress *bucket, char out[SL_ADDRESS_TEXT])
{
	char		text[INET6_ADDRSTRLEN] = "";

	if (bucket->family == 4)
		(void) inet_ntop(AF_INET, bucket->bytes, text, sizeof(text));
	else if (bucket->family == 6)
		(void) inet_ntop(AF_INET6, bucket->bytes, text, sizeof(text));
	snprintf(out, SL_ADDRESS_TEXT, "%s%s", text, bucket->family == 6 ? "/64" : "");
}
