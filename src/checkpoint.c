/*-------------------------------------------------------------------------
 *
 * checkpoint.c
 *	  A checkpoint of the audit trail as text: what is signed, chained and
 *	  logged.
 *
 * One line that people can read, and not some binary structure, so that
 * whoever has it in a log can check it with openssl and sha256sum alone.  Every
 * value has one spelling only (no signs, no leading zeroes, lower case), which
 * reading ensures in the simplest way: it writes what it has read and compares.
 *
 *-------------------------------------------------------------------------
 */
#include "checkpoint.h"

#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>

#include "audit_hash.h"

#define SIGNATURE_MARK " signature="

/* Digits of a number that is read: always fits an int64_t. */
#define MAX_DIGITS 18

/* Days and times of day, in the units of a time. */
#define SECOND	INT64_C(1000000)
#define DAY		(INT64_C(86400) * SECOND)

/* What is left to be read. */
typedef struct Reader
{
	const char *p;
	const char *end;
	bool		failed;
} Reader;

/* ---------- hex ---------- */

void
sl_hex_encode(const unsigned char *bytes, size_t n, char *out)
{
	static const char digits[] = "0123456789abcdef";
	size_t		i;

	for (i = 0; i < n; i++)
	{
		*out++ = digits[bytes[i] >> 4];
		*out++ = digits[bytes[i] & 15];
	}
	*out = '\0';
}

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

bool
sl_hex_decode(const char *text, size_t len, unsigned char *out, size_t n)
{
	size_t		i;

	if (len != 2 * n)
		return false;
	for (i = 0; i < n; i++)
	{
		int			high = hex_digit(text[2 * i]);
		int			low = hex_digit(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		out[i] = (unsigned char) (high << 4 | low);
	}
	return true;
}

/* ---------- times ---------- */

/* The value of n digits; false if something else is among them. */
static bool
digits_at(const char *p, size_t n, int64_t *value)
{
	size_t		i;

	*value = 0;
	for (i = 0; i < n; i++)
	{
		if (p[i] < '0' || p[i] > '9')
			return false;
		*value = *value * 10 + (p[i] - '0');
	}
	return true;
}

/*
 * Days since 1970-01-01 of a date in the Gregorian calendar; years are counted
 * from March (after Howard Hinnant's days_from_civil).
 */
static int64_t
days_since_epoch(int64_t year, int64_t month, int64_t day)
{
	int64_t		y = month <= 2 ? year - 1 : year;
	int64_t		era = (y >= 0 ? y : y - 399) / 400;
	int64_t		yoe = y - era * 400;
	int64_t		doy = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
	int64_t		doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;

	return era * 146097 + doe - 719468;
}

bool
sl_checkpoint_time(const char *text, size_t len, int64_t *unix_microseconds)
{
	static const char rest_of[] = "-00-00T00:00:00.000000Z";
	const size_t nrest = sizeof(rest_of) - 1;
	char		again[SL_AUDIT_TIME_SIZE];
	bool		negative = len > 0 && text[0] == '-';
	int64_t		year,
				month,
				day,
				hour,
				minute,
				second,
				micro;
	const char *rest;

	/* six digits of a year are more than an int64_t of microseconds has room for */
	if (len < 4 + nrest || len > 7 + nrest)
		return false;
	rest = text + len - nrest;
	if (!digits_at(text + negative, len - nrest - negative, &year) ||
		!digits_at(rest + 1, 2, &month) || !digits_at(rest + 4, 2, &day) ||
		!digits_at(rest + 7, 2, &hour) || !digits_at(rest + 10, 2, &minute) ||
		!digits_at(rest + 13, 2, &second) || !digits_at(rest + 16, 6, &micro) ||
		month < 1 || month > 12 || year > 290000)
		return false;
	*unix_microseconds = days_since_epoch(negative ? -year : year, month, day) * DAY +
		((hour * 60 + minute) * 60 + second) * SECOND + micro;

	return sl_audit_time(*unix_microseconds, again) == len &&
		memcmp(again, text, len) == 0;
}

/* ---------- writing ---------- */

size_t
sl_checkpoint_text(const SlCheckpoint *c, char out[SL_CHECKPOINT_TEXT_SIZE])
{
	char		trail[SL_AUDIT_UUID_SIZE];
	char		first[SL_AUDIT_TIME_SIZE];
	char		last[SL_AUDIT_TIME_SIZE];
	char		sealed[SL_AUDIT_TIME_SIZE];
	char		root[2 * SL_CHECKPOINT_HASH_LEN + 1];
	char		previous[2 * SL_CHECKPOINT_HASH_LEN + 1];
	char		key[2 * SL_CHECKPOINT_HASH_LEN + 1];

	sl_audit_uuid(c->trail, trail);
	sl_audit_time(c->first_at, first);
	sl_audit_time(c->last_at, last);
	sl_audit_time(c->sealed_at, sealed);
	sl_hex_encode(c->root, sizeof(c->root), root);
	sl_hex_encode(c->previous, sizeof(c->previous), previous);
	sl_hex_encode(c->key, sizeof(c->key), key);
	return (size_t) snprintf(out, SL_CHECKPOINT_TEXT_SIZE,
							 SL_CHECKPOINT_MARK "%s number=%lld from=%lld"
							 " to=%lld leaves=%lld first_at=%s last_at=%s"
							 " sealed_at=%s root=%s previous=%s key=%s",
							 trail, (long long) c->number,
							 (long long) c->from_position,
							 (long long) c->to_position, (long long) c->leaves,
							 first, last, sealed, root, previous, key);
}

size_t
sl_checkpoint_line(const SlCheckpoint *c, char out[SL_CHECKPOINT_LINE_SIZE])
{
	size_t		len = sl_checkpoint_text(c, out);

	memcpy(out + len, SIGNATURE_MARK, strlen(SIGNATURE_MARK));
	len += strlen(SIGNATURE_MARK);
	sl_hex_encode(c->signature, sizeof(c->signature), out + len);
	return len + 2 * sizeof(c->signature);
}

bool
sl_checkpoint_hash(const SlCheckpoint *c, unsigned char *out)
{
	char		text[SL_CHECKPOINT_TEXT_SIZE];
	size_t		len = sl_checkpoint_text(c, text);

	if (EVP_Digest(text, len, out, NULL, EVP_sha256(), NULL) == 1)
		return true;
	memset(out, 0, SL_CHECKPOINT_HASH_LEN);
	return false;
}

/* ---------- reading ---------- */

static void
expect(Reader *r, const char *literal)
{
	size_t		len = strlen(literal);

	if (r->failed || (size_t) (r->end - r->p) < len ||
		memcmp(r->p, literal, len) != 0)
		r->failed = true;
	else
		r->p += len;
}

/* Up to the next blank, or the end. */
static size_t
word_length(const Reader *r)
{
	const char *blank;

	if (r->failed)
		return 0;
	blank = memchr(r->p, ' ', (size_t) (r->end - r->p));
	return (size_t) ((blank == NULL ? r->end : blank) - r->p);
}

static void
read_number(Reader *r, const char *name, int64_t *out)
{
	size_t		len;

	expect(r, name);
	len = word_length(r);
	if (r->failed || len == 0 || len > MAX_DIGITS ||
		!digits_at(r->p, len, out))
		r->failed = true;
	else
		r->p += len;
}

static void
read_time(Reader *r, const char *name, int64_t *out)
{
	size_t		len;

	expect(r, name);
	len = word_length(r);
	if (r->failed || !sl_checkpoint_time(r->p, len, out))
		r->failed = true;
	else
		r->p += len;
}

static void
read_bytes(Reader *r, const char *name, unsigned char *out, size_t n)
{
	size_t		len;

	expect(r, name);
	len = word_length(r);
	if (r->failed || !sl_hex_decode(r->p, len, out, n))
		r->failed = true;
	else
		r->p += len;
}

/* Where the dashes are is left to the comparison at the end. */
static void
read_uuid(Reader *r, unsigned char *out)
{
	char		hex[2 * SL_CHECKPOINT_UUID_LEN];
	size_t		len = word_length(r);
	size_t		n = 0;
	size_t		i;

	for (i = 0; i < len && n < sizeof(hex); i++)
		if (r->p[i] != '-')
			hex[n++] = r->p[i];
	if (r->failed || !sl_hex_decode(hex, n, out, SL_CHECKPOINT_UUID_LEN))
		r->failed = true;
	else
		r->p += len;
}

bool
sl_checkpoint_read(const char *line, size_t len, SlCheckpoint *out)
{
	Reader		r = {line, line + len, false};
	char		again[SL_CHECKPOINT_LINE_SIZE];

	memset(out, 0, sizeof(*out));
	expect(&r, SL_CHECKPOINT_MARK);
	read_uuid(&r, out->trail);
	read_number(&r, " number=", &out->number);
	read_number(&r, " from=", &out->from_position);
	read_number(&r, " to=", &out->to_position);
	read_number(&r, " leaves=", &out->leaves);
	read_time(&r, " first_at=", &out->first_at);
	read_time(&r, " last_at=", &out->last_at);
	read_time(&r, " sealed_at=", &out->sealed_at);
	read_bytes(&r, " root=", out->root, sizeof(out->root));
	read_bytes(&r, " previous=", out->previous, sizeof(out->previous));
	read_bytes(&r, " key=", out->key, sizeof(out->key));
	read_bytes(&r, SIGNATURE_MARK, out->signature, sizeof(out->signature));

	if (!r.failed && r.p == r.end &&
		sl_checkpoint_line(out, again) == len && memcmp(again, line, len) == 0)
		return true;
	memset(out, 0, sizeof(*out));
	return false;
}

bool
sl_checkpoint_find(const char *text, size_t len, const char **line,
				   size_t *line_len)
{
	const size_t nmark = strlen(SL_CHECKPOINT_MARK);
	const size_t nsig = strlen(SIGNATURE_MARK);
	const size_t nhex = 2 * SL_SIGNATURE_LEN;
	const char *end = text + len;
	bool		found = false;
	const char *p = text;

	while ((size_t) (end - p) >= nmark &&
		   (p = memchr(p, SL_CHECKPOINT_MARK[0], (size_t) (end - p))) != NULL)
	{
		const char *s;

		if ((size_t) (end - p) < nmark || memcmp(p, SL_CHECKPOINT_MARK, nmark) != 0)
		{
			p++;
			continue;
		}
		/* it ends with a signature, and is no longer than one can be */
		for (s = p + nmark; s - p < SL_CHECKPOINT_TEXT_SIZE &&
			 (size_t) (end - s) >= nsig + nhex; s++)
		{
			if (memcmp(s, SIGNATURE_MARK, nsig) == 0)
			{
				*line = p;
				*line_len = (size_t) (s - p) + nsig + nhex;
				found = true;
				break;
			}
		}
		p += nmark;
	}
	return found;
}
