/*-------------------------------------------------------------------------
 *
 * client_address.h
 *	  The network address of a client, as a proxy's header or a socket has it.
 *
 * No PostgreSQL in here.  Nothing allocates or keeps a pointer to its
 * arguments.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_CLIENT_ADDRESS_H
#define SL_CLIENT_ADDRESS_H

#include <stddef.h>

/* Longest text of an address that sl_address_print() makes, NUL included. */
#define SL_ADDRESS_TEXT 52

/* Plain data without pointers: it may be hashed and lie in shared memory. */
typedef struct SlAddress
{
	unsigned char family;		/* 4, 6, or 0: none */
	unsigned char bytes[16];	/* the first four, or all; the rest is 0 */
} SlAddress;

/*
 * Reads one address: IPv4 or IPv6, perhaps in brackets, perhaps with a port,
 * blanks around it.  An IPv4 address written as IPv6 (::ffff:1.2.3.4) is an
 * IPv4 address.  Returns 1, or 0: *out is then no address.
 */
extern int	sl_address_parse(const char *text, size_t len, SlAddress *out);

/*
 * Reads the address that the outermost trusted proxy saw, from a list to
 * which each proxy on the way has added one: the hops-th from the right, 1
 * being the last.  A shorter list came past fewer proxies, so that its first
 * item is the one.  Returns as sl_address_parse().
 */
extern int	sl_address_of_list(const char *list, size_t len, int hops,
							   SlAddress *out);

/*
 * What is counted as one client: an IPv4 address, or the network of 64 bits
 * that one IPv6 host gets at least.
 */
extern void sl_address_to_bucket(SlAddress *address);

/*
 * Writes a bucket as inet takes it, such as 192.0.2.7 or 2001:db8::/64; "" if
 * there is no address.
 */
extern void sl_address_print(const SlAddress *bucket,
							 char out[SL_ADDRESS_TEXT]);

#endif							/* SL_CLIENT_ADDRESS_H */
