/*-------------------------------------------------------------------------
 *
 * payment_id.c
 *	  Payment ids: UUIDs of version 7 (RFC 9562, section 5.7).
 *
 * Their leading 48 bits are the time, so new payments lie side by side in
 * the indexes and the cost of one does not grow with the table.  The other
 * 74 bits come from a strong source: an id can't be guessed.  PostgreSQL
 * makes version 7 itself from 18 on only.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/timestamp.h"

#include "payment_id.h"

/* A new id, palloc'd. */
pg_uuid_t *
sl_payment_id_new(void)
{
	pg_uuid_t  *uuid = palloc(sizeof(pg_uuid_t));
	uint64		ms;
	int			i;

	ms = GetCurrentTimestamp() / 1000 +
		(uint64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY * 1000;

	if (!pg_strong_random(uuid->data, UUID_LEN))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random values")));
	for (i = 0; i < 6; i++)
		uuid->data[i] = (unsigned char) (ms >> (40 - 8 * i));
	uuid->data[6] = (uuid->data[6] & 0x0f) | 0x70;
	uuid->data[8] = (uuid->data[8] & 0x3f) | 0x80;
	return uuid;
}

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/*
 * Read the canonical form, 8-4-4-4-12 hexadecimal digits; false if the text
 * is anything else.  Unlike uuid_in it never raises: the text is foreign.
 */
bool
sl_uuid_parse(const char *text, pg_uuid_t *uuid)
{
	const char *p = text;
	int			i;

	for (i = 0; i < UUID_LEN; i++)
	{
		int			high;
		int			low;

		if ((i == 4 || i == 6 || i == 8 || i == 10) && *p++ != '-')
			return false;
		high = hex_digit(p[0]);
		low = high < 0 ? -1 : hex_digit(p[1]);
		if (low < 0)
			return false;
		uuid->data[i] = (unsigned char) (high << 4 | low);
		p += 2;
	}
	return *p == '\0';
}
