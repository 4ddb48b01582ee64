/*-------------------------------------------------------------------------
 *
 * audit_hash.c
 *	  The hash of one row of the audit trail, as docs/audit.md describes it.
 *
 * A digest object is kept from row to row: to make one anew costs OpenSSL
 * more than to hash a row with it.
 *
 *-------------------------------------------------------------------------
 */
#include "audit_hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#define NULL_LENGTH		UINT32_C(0xFFFFFFFF)
#define SECOND			INT64_C(1000000)
#define DAY				(INT64_C(86400) * SECOND)

struct SlAuditHash
{
	EVP_MD_CTX *ctx;
	bool		failed;			/* since sl_audit_hash_begin() */
};

SlAuditHash *
sl_audit_hash_new(void)
{
	SlAuditHash *hash = calloc(1, sizeof(SlAuditHash));

	if (hash == NULL)
		return NULL;
	hash->failed = true;		/* until a row is begun */
	hash->ctx = EVP_MD_CTX_new();
	if (hash->ctx == NULL ||
		EVP_DigestInit_ex(hash->ctx, EVP_sha256(), NULL) != 1)
	{
		sl_audit_hash_free(hash);
		return NULL;
	}
	return hash;
}

void
sl_audit_hash_free(SlAuditHash *hash)
{
	if (hash == NULL)
		return;
	EVP_MD_CTX_free(hash->ctx);
	free(hash);
}

void
sl_audit_hash_begin(SlAuditHash *hash, const unsigned char *prev)
{
	static const unsigned char zeroes[SL_AUDIT_HASH_LEN];

	/* without a type the context begins anew with the one it has */
	hash->failed =
		EVP_DigestInit_ex(hash->ctx, NULL, NULL) != 1 ||
		EVP_DigestUpdate(hash->ctx, prev != NULL ? prev : zeroes,
						 SL_AUDIT_HASH_LEN) != 1;
}

void
sl_audit_hash_field(SlAuditHash *hash, const char *bytes, size_t len)
{
	uint32_t	n = bytes == NULL ? NULL_LENGTH : (uint32_t) len;
	unsigned char prefix[4];

	if (bytes != NULL && len >= NULL_LENGTH)
		hash->failed = true;
	if (hash->failed)
		return;
	prefix[0] = (unsigned char) (n >> 24);
	prefix[1] = (unsigned char) (n >> 16);
	prefix[2] = (unsigned char) (n >> 8);
	prefix[3] = (unsigned char) n;
	hash->failed =
		EVP_DigestUpdate(hash->ctx, prefix, sizeof(prefix)) != 1 ||
		(bytes != NULL && len > 0 &&
		 EVP_DigestUpdate(hash->ctx, bytes, len) != 1);
}

bool
sl_audit_hash_finish(SlAuditHash *hash, unsigned char *out)
{
	if (hash->failed || EVP_DigestFinal_ex(hash->ctx, out, NULL) != 1)
	{
		memset(out, 0, SL_AUDIT_HASH_LEN);
		hash->failed = true;
		return false;
	}
	hash->failed = true;		/* a row is finished once */
	return true;
}

/*
 * Day, month and year of a number of days since 1970-01-01, in the Gregorian
 * calendar carried on in both directions.  Years are counted from March, so
 * that the leap day is the last one (after Howard Hinnant's civil_from_days).
 */
static void
civil_date(int64_t days, int64_t *year, int *month, int *day)
{
	int64_t		since = days + 719468;	/* since 0000-03-01 */
	int64_t		era = (since >= 0 ? since : since - 146096) / 146097;
	int64_t		doe = since - era * 146097;
	int64_t		yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int64_t		doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	int64_t		mp = (5 * doy + 2) / 153;

	*day = (int) (doy - (153 * mp + 2) / 5 + 1);
	*month = (int) (mp < 10 ? mp + 3 : mp - 9);
	*year = yoe + era * 400 + (*month <= 2 ? 1 : 0);
}

/* Writes n digits of a number that has no more. */
static char *
put_digits(char *out, int64_t number, int n)
{
	int			i;

	for (i = n - 1; i >= 0; i--)
	{
		out[i] = (char) ('0' + number % 10);
		number /= 10;
	}
	return out + n;
}

size_t
sl_audit_time(int64_t unix_microseconds, char out[SL_AUDIT_TIME_SIZE])
{
	int64_t		days = unix_microseconds / DAY;
	int64_t		rest = unix_microseconds % DAY;
	int64_t		year;
	int			month;
	int			day;
	char	   *p = out;

	if (rest < 0)
	{
		rest += DAY;
		days--;
	}
	civil_date(days, &year, &month, &day);

	/* every INT64 of microseconds has a year of at most six digits */
	if (year >= 0 && year <= 9999)
		p = put_digits(p, year, 4);
	else
		p += snprintf(p, 8, "%0*d", year < 0 ? 5 : 4, (int) year);
	*p++ = '-';
	p = put_digits(p, month, 2);
	*p++ = '-';
	p = put_digits(p, day, 2);
	*p++ = 'T';
	p = put_digits(p, rest / (3600 * SECOND), 2);
	*p++ = ':';
	p = put_digits(p, rest / (60 * SECOND) % 60, 2);
	*p++ = ':';
	p = put_digits(p, rest / SECOND % 60, 2);
	*p++ = '.';
	p = put_digits(p, rest % SECOND, 6);
	*p++ = 'Z';
	*p = '\0';
	return (size_t) (p - out);
}

size_t
sl_audit_uuid(const unsigned char *uuid, char out[SL_AUDIT_UUID_SIZE])
{
	static const char hex[] = "0123456789abcdef";
	char	   *p = out;
	int			i;

	for (i = 0; i < 16; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		*p++ = hex[uuid[i] >> 4];
		*p++ = hex[uuid[i] & 15];
	}
	*p = '\0';
	return (size_t) (p - out);
}
