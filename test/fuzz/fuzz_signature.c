/*-------------------------------------------------------------------------
 *
 * fuzz_signature.c
 *	  Arbitrary headers and payloads against the signature room.
 *
 * Input: a header, a line end, a payload.  Crashes aside, every result is
 * compared with a second reading of the grammar, written for clearness alone,
 * and with OpenSSL's one-shot HMAC(): what the room accepts must be exactly
 * what that reading accepts.
 *
 *-------------------------------------------------------------------------
 */
#include "signature.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#define SECRET "whsec_fuzz"

/* Unlike assert(), never compiled away. */
#define REQUIRE(condition) \
	do { \
		if (!(condition)) \
		{ \
			fprintf(stderr, "%s:%d: not true: %s\n", \
					__FILE__, __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

/* The second reading: a list of texts, and no more. */
typedef struct Reading
{
	SlSigResult result;
	char		t[SL_SIG_MAX_DIGITS + 1];
	int			n_v1;
	char		v1[SL_SIG_MAX_V1][SL_SIG_HEX_LEN + 1];
} Reading;

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool
all_in(const char *text, size_t len, const char *allowed)
{
	while (len > 0)
	{
		if (text[--len] == '\0' || strchr(allowed, text[len]) == NULL)
			return false;
	}
	return true;
}

/* Reads one item, blanks included; counts the times seen. */
static void
read_item(const char *item, size_t len, Reading *reading, int *times)
{
	while (len > 0 && all_in(item, 1, " \t"))
	{
		item++;
		len--;
	}
	while (len > 0 && all_in(item + len - 1, 1, " \t"))
		len--;

	if (len > 1 && item[0] == 't' && item[1] == '=')
	{
		(*times)++;
		item += 2;
		len -= 2;
		if (len >= 1 && len <= SL_SIG_MAX_DIGITS &&
			all_in(item, len, "0123456789"))
			snprintf(reading->t, sizeof(reading->t), "%.*s", (int) len, item);
		else
			(*times)++;			/* as unusable as two of them */
	}
	else if (len == 3 + SL_SIG_HEX_LEN && strncmp(item, "v1=", 3) == 0 &&
			 all_in(item + 3, SL_SIG_HEX_LEN, "0123456789abcdef") &&
			 reading->n_v1 < SL_SIG_MAX_V1)
		memcpy(reading->v1[reading->n_v1++], item + 3, SL_SIG_HEX_LEN);
}

static void
read_header(const char *header, size_t len, Reading *reading)
{
	int			times = 0;
	size_t		from = 0;
	size_t		i;

	memset(reading, 0, sizeof(*reading));
	for (i = 0; i <= len; i++)
	{
		if (i == len || header[i] == ',')
		{
			read_item(header + from, i - from, reading, &times);
			from = i + 1;
		}
	}

	if (all_in(header, len, " \t") && len <= SL_SIG_MAX_HEADER)
		reading->result = SL_SIG_NO_HEADER;
	else if (len > SL_SIG_MAX_HEADER || times != 1)
		reading->result = SL_SIG_MALFORMED;
	else if (reading->n_v1 == 0)
		reading->result = SL_SIG_NO_SCHEME;
	else
		reading->result = SL_SIG_OK;
}

/* The right signature, without any of the room's code. */
static void
sign(const char *t, const char *payload, size_t len, char hex[65])
{
	static const char digits[] = "0123456789abcdef";
	size_t		t_len = strlen(t);
	unsigned char *message = malloc(t_len + 1 + len);
	unsigned char mac[EVP_MAX_MD_SIZE];
	unsigned	mac_len;
	int			i;

	memcpy(message, t, t_len);
	message[t_len] = '.';
	memcpy(message + t_len + 1, payload, len);
	REQUIRE(HMAC(EVP_sha256(), SECRET, strlen(SECRET), message,
				 t_len + 1 + len, mac, &mac_len) != NULL);
	for (i = 0; i < 32; i++)
	{
		hex[2 * i] = digits[mac[i] / 16];
		hex[2 * i + 1] = digits[mac[i] % 16];
	}
	hex[64] = '\0';
	free(message);
}

/* The room's answer to a header must be the reading's. */
static void
compare(const char *header, size_t header_len, SlSigKey *key,
		const char *payload, size_t len)
{
	static const SlSigHeader zero;
	SlSigHeader parsed;
	Reading		reading;
	char		hex[65];
	bool		match = false;
	int			i;

	read_header(header, header_len, &reading);
	memset(&parsed, 0xa5, sizeof(parsed));
	REQUIRE(sl_sig_parse(header, header_len, &parsed) == reading.result);
	if (reading.result != SL_SIG_OK)
	{
		REQUIRE(memcmp(&parsed, &zero, sizeof(zero)) == 0);
		return;
	}

	REQUIRE(strcmp(parsed.t_text, reading.t) == 0);
	REQUIRE(parsed.t_len == (int) strlen(reading.t));
	REQUIRE(parsed.t == strtoll(reading.t, NULL, 10));
	REQUIRE(parsed.n_v1 == reading.n_v1);

	sign(reading.t, payload, len, hex);
	for (i = 0; i < reading.n_v1; i++)
		match = match || strcmp(reading.v1[i], hex) == 0;
	REQUIRE(sl_sig_match(&parsed, key, payload, len) ==
			(match ? SL_SIG_OK : SL_SIG_NO_MATCH));
}

/* The age, in arithmetic that is wide enough to need no care. */
static void
compare_age(const uint8_t *data, size_t size)
{
	SlSigHeader header;
	int64_t		number[3] = {0, 0, 0};
	__int128	distance;
	bool		fresh;

	memcpy(number, data, size < sizeof(number) ? size : sizeof(number));
	memset(&header, 0, sizeof(header));
	header.t = number[0];
	distance = (__int128) number[0] - number[1];
	if (distance < 0)
		distance = -distance;
	fresh = distance <= number[2];
	REQUIRE(sl_sig_age(&header, number[1], number[2]) ==
			(fresh ? SL_SIG_OK : SL_SIG_STALE));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static SlSigKey *key;
	const uint8_t *end = size > 0 ? memchr(data, '\n', size) : NULL;
	size_t		header_len = end ? (size_t) (end - data) : size;
	const char *payload = end ? (const char *) end + 1 : "";
	size_t		len = end ? size - header_len - 1 : 0;
	char	   *header;
	Reading		reading;
	char		hex[65] = "";

	if (key == NULL)
		key = sl_sig_key_new(SECRET, strlen(SECRET), NULL);
	REQUIRE(key != NULL);

	/* of exactly its size, for the sanitizer */
	header = malloc(header_len + 1);
	memcpy(header, data, header_len);
	header = realloc(header, header_len > 0 ? header_len : 1);
	compare(header, header_len, key, payload, len);

	/* the same with a right signature behind it, which nothing finds alone */
	read_header(header, header_len, &reading);
	sign(reading.t, payload, len, hex);
	header = realloc(header, header_len + 70);
	header_len += (size_t) snprintf(header + header_len, 70, ",v1=%s", hex);
	compare(header, header_len, key, payload, len);
	free(header);

	compare_age(data, size);
	return 0;
}
