/*-------------------------------------------------------------------------
 *
 * signature.c
 *	  Stripe's webhook signature scheme.
 *
 * Stripe signs the characters of the header's time, a full stop and the raw
 * body with HMAC-SHA256, keyed with the whole secret string, "whsec_" included,
 * and writes the result in lower-case hex (docs.stripe.com/webhooks).
 *
 * The official SDKs disagree about unusual headers: which of two times wins,
 * what a number may look like, where blanks may stand.  Every such header is
 * one that Stripe doesn't send, so the grammar here is the narrow one of which
 * all readings agree: exactly one time, of digits only, and its characters are
 * both what is signed and what is converted.  What may appear beside it one
 * day (other schemes, new items) is passed over.
 *
 * Setting up an HMAC key costs more than hashing a small event, so a key holds
 * a context with the key's two inner states already computed, and each message
 * starts from there.
 *
 *-------------------------------------------------------------------------
 */
#include "signature.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>

struct SlSigKey
{
	EVP_MAC_CTX *ctx;			/* keyed */
	bool		reusable;		/* can ctx be rewound, or must it be copied? */
};

/* ---- the header ---- */

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/*
 * A hex digit's value plus one; 0 for what is none.  Upper case is none: Stripe
 * never sends it.  A table, since the digits of a MAC are random, and so would
 * be the branches of anything else.
 */
static const unsigned char hex_digit[256] = {
	['0'] = 1, ['1'] = 2, ['2'] = 3, ['3'] = 4, ['4'] = 5, ['5'] = 6, ['6'] = 7,
	['7'] = 8, ['8'] = 9, ['9'] = 10, ['a'] = 11, ['b'] = 12, ['c'] = 13,
	['d'] = 14, ['e'] = 15, ['f'] = 16
};

/*
 * The time: digits only, at most 18 of them, so that neither a sign, a
 * fraction nor an overflow can make its text and its value differ.
 */
static bool
parse_time(const char *text, size_t len, SlSigHeader *out)
{
	int64_t		value = 0;
	size_t		i;

	if (len == 0 || len > SL_SIG_MAX_DIGITS)
		return false;

	for (i = 0; i < len; i++)
	{
		if (text[i] < '0' || text[i] > '9')
			return false;
		value = value * 10 + (text[i] - '0');
	}

	memcpy(out->t_text, text, len);
	out->t_text[len] = '\0';
	out->t_len = (int) len;
	out->t = value;
	return true;
}

/* Keeps a v1 value if it is well-formed and there is room; else passes it over. */
static void
parse_v1(const char *text, size_t len, SlSigHeader *out)
{
	unsigned char mac[SL_SIG_MAC_LEN];
	size_t		i;

	if (len != SL_SIG_HEX_LEN || out->n_v1 >= SL_SIG_MAX_V1)
		return;

	for (i = 0; i < SL_SIG_MAC_LEN; i++)
	{
		int			high = hex_digit[(unsigned char) text[2 * i]];
		int			low = hex_digit[(unsigned char) text[2 * i + 1]];

		if (high == 0 || low == 0)
			return;
		mac[i] = (unsigned char) ((high - 1) << 4 | (low - 1));
	}

	memcpy(out->v1[out->n_v1++], mac, sizeof(mac));
}

/*
 * One item, blanks around it already gone.  Returns false when it makes the
 * whole header unusable: an unusable time, or a second one.
 */
static bool
parse_item(const char *item, size_t len, SlSigHeader *out)
{
	if (len >= 2 && memcmp(item, "t=", 2) == 0)
		return out->t_len == 0 && parse_time(item + 2, len - 2, out);

	if (len >= 3 && memcmp(item, "v1=", 3) == 0)
		parse_v1(item + 3, len - 3, out);

	return true;
}

/* Cuts the header at its commas and reads each item. */
static SlSigResult
parse_items(const char *p, const char *end, SlSigHeader *out)
{
	bool		only_blanks = true;

	for (;;)
	{
		const char *comma = memchr(p, ',', (size_t) (end - p));
		const char *next = comma ? comma : end;
		const char *stop = next;

		while (p < stop && is_blank(*p))
			p++;
		while (stop > p && is_blank(stop[-1]))
			stop--;

		if (!parse_item(p, (size_t) (stop - p), out))
			return SL_SIG_MALFORMED;
		if (stop > p || comma)
			only_blanks = false;

		if (!comma)
			break;
		p = comma + 1;
	}

	if (only_blanks)
		return SL_SIG_NO_HEADER;
	if (out->t_len == 0)
		return SL_SIG_MALFORMED;
	if (out->n_v1 == 0)
		return SL_SIG_NO_SCHEME;
	return SL_SIG_OK;
}

SlSigResult
sl_sig_parse(const char *header, size_t len, SlSigHeader *out)
{
	SlSigResult result;

	memset(out, 0, sizeof(*out));

	if (header == NULL || len == 0)
		return SL_SIG_NO_HEADER;
	if (len > SL_SIG_MAX_HEADER)
		return SL_SIG_MALFORMED;

	result = parse_items(header, header + len, out);

	/* A caller that forgets to look at the result must not find signatures. */
	if (result != SL_SIG_OK)
		memset(out, 0, sizeof(*out));
	return result;
}

/* ---- the MAC ---- */

/*
 * HMAC over prefix, a full stop and the payload, or over the payload alone
 * when prefix is NULL, in a context that is keyed and at its start.
 */
static bool
mac_message(EVP_MAC_CTX *ctx, const char *prefix, size_t prefix_len,
			const void *payload, size_t len,
			unsigned char mac[SL_SIG_MAC_LEN])
{
	size_t		mac_len = 0;

	if (prefix != NULL &&
		(EVP_MAC_update(ctx, (const unsigned char *) prefix, prefix_len) != 1 ||
		 EVP_MAC_update(ctx, (const unsigned char *) ".", 1) != 1))
		return false;
	if (len > 0 && EVP_MAC_update(ctx, payload, len) != 1)
		return false;
	return EVP_MAC_final(ctx, mac, &mac_len, SL_SIG_MAC_LEN) == 1 &&
		mac_len == SL_SIG_MAC_LEN;
}

/*
 * Does EVP_MAC_init() without a key rewind the context?  In OpenSSL 3.0.0 to
 * 3.0.2 it reports success and does nothing (openssl issue 17811), and a
 * certified FIPS provider of that age may sit under a newer library.  So ask
 * the code itself, on a copy, instead of looking at a version number.
 */
static bool
can_rewind(EVP_MAC_CTX *keyed)
{
	EVP_MAC_CTX *copy = EVP_MAC_CTX_dup(keyed);
	unsigned char first[SL_SIG_MAC_LEN];
	unsigned char second[SL_SIG_MAC_LEN];
	bool		same;

	if (copy == NULL)
		return false;

	same = mac_message(copy, NULL, 0, "?", 1, first) &&
		EVP_MAC_init(copy, NULL, 0, NULL) == 1 &&
		mac_message(copy, NULL, 0, "?", 1, second) &&
		CRYPTO_memcmp(first, second, sizeof(first)) == 0;

	EVP_MAC_CTX_free(copy);
	OPENSSL_cleanse(first, sizeof(first));
	OPENSSL_cleanse(second, sizeof(second));
	return same;
}

/* A keyed HMAC-SHA256 context, or NULL. */
static EVP_MAC_CTX *
keyed_context(const char *secret, size_t len)
{
	char		digest[] = "SHA256";
	OSSL_PARAM	params[2];
	EVP_MAC    *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	EVP_MAC_CTX *ctx;

	if (mac == NULL)
		return NULL;

	params[0] = OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST,
												 digest, 0);
	params[1] = OSSL_PARAM_construct_end();

	ctx = EVP_MAC_CTX_new(mac);
	EVP_MAC_free(mac);			/* the context keeps a reference of its own */

	if (ctx != NULL &&
		EVP_MAC_init(ctx, (const unsigned char *) secret, len, params) != 1)
	{
		EVP_MAC_CTX_free(ctx);
		ctx = NULL;
	}
	return ctx;
}

/*
 * An empty HMAC key is one that everybody has, and one of white space is what
 * a broken secret file gives; the SDKs had to learn to refuse both.
 */
static bool
is_blank_secret(const char *secret, size_t len)
{
	size_t		i;

	if (secret == NULL)
		return true;
	for (i = 0; i < len; i++)
	{
		if (secret[i] != ' ' && (secret[i] < '\t' || secret[i] > '\r'))
			return false;
	}
	return true;
}

SlSigKey *
sl_sig_key_new(const char *secret, size_t len, SlSigResult *why)
{
	SlSigResult result = SL_SIG_OK;
	SlSigKey   *key = NULL;

	if (is_blank_secret(secret, len))
		result = SL_SIG_BLANK_SECRET;
	else if ((key = calloc(1, sizeof(*key))) == NULL)
		result = SL_SIG_CRYPTO;
	else if ((key->ctx = keyed_context(secret, len)) == NULL)
	{
		free(key);
		key = NULL;
		result = SL_SIG_CRYPTO;
	}
	else
		key->reusable = can_rewind(key->ctx);

	if (why != NULL)
		*why = result;
	return key;
}

void
sl_sig_key_free(SlSigKey *key)
{
	if (key == NULL)
		return;
	EVP_MAC_CTX_free(key->ctx); /* OpenSSL wipes the key it holds */
	OPENSSL_cleanse(key, sizeof(*key));
	free(key);
}

/*
 * The signature of a payload at a time.  A key is never left half-used: the
 * context is rewound before each message and not after it, so a failure or an
 * abandoned message can't leak into the next one.
 */
static bool
mac_event(SlSigKey *key, const char *t_text, size_t t_len,
		  const void *payload, size_t len, unsigned char mac[SL_SIG_MAC_LEN])
{
	EVP_MAC_CTX *copy;
	bool		done;

	if (key->reusable)
		return EVP_MAC_init(key->ctx, NULL, 0, NULL) == 1 &&
			mac_message(key->ctx, t_text, t_len, payload, len, mac);

	copy = EVP_MAC_CTX_dup(key->ctx);
	done = copy != NULL &&
		mac_message(copy, t_text, t_len, payload, len, mac);
	EVP_MAC_CTX_free(copy);
	return done;
}

SlSigResult
sl_sig_match(const SlSigHeader *header, SlSigKey *key,
			 const void *payload, size_t len)
{
	unsigned char mac[SL_SIG_MAC_LEN];
	int			matches = 0;
	int			i;

	if (!mac_event(key, header->t_text, (size_t) header->t_len,
				   payload, len, mac))
	{
		OPENSSL_cleanse(mac, sizeof(mac));
		return SL_SIG_CRYPTO;
	}

	/*
	 * Every candidate is compared, also after a match: the time taken tells
	 * how many there were, which the sender knows, and nothing else.
	 */
	for (i = 0; i < header->n_v1; i++)
		matches += CRYPTO_memcmp(mac, header->v1[i], sizeof(mac)) == 0;

	/* The right signature of a forged body must not stay on the stack. */
	OPENSSL_cleanse(mac, sizeof(mac));
	return matches > 0 ? SL_SIG_OK : SL_SIG_NO_MATCH;
}

SlSigResult
sl_sig_age(const SlSigHeader *header, int64_t now, int64_t tolerance)
{
	uint64_t	distance;

	/* In unsigned arithmetic the distance of any two times is exact. */
	if (now >= header->t)
		distance = (uint64_t) now - (uint64_t) header->t;
	else
		distance = (uint64_t) header->t - (uint64_t) now;

	if (tolerance < 0 || distance > (uint64_t) tolerance)
		return SL_SIG_STALE;
	return SL_SIG_OK;
}

const char *
sl_sig_result_text(SlSigResult result)
{
	switch (result)
	{
		case SL_SIG_OK:
			return "signature is valid";
		case SL_SIG_NO_HEADER:
			return "signature header is missing";
		case SL_SIG_MALFORMED:
			return "signature header is malformed";
		case SL_SIG_NO_SCHEME:
			return "signature header has no usable v1 signature";
		case SL_SIG_NO_MATCH:
			return "no signature matches the payload";
		case SL_SIG_STALE:
			return "signature time is outside the tolerance";
		case SL_SIG_BLANK_SECRET:
			return "webhook secret is blank";
		case SL_SIG_CRYPTO:
			return "could not compute the signature";
	}
	return "unknown signature result";
}

int
sl_sig_sign(SlSigKey *key, int64_t t, const void *payload, size_t len,
			char out_hex[65])
{
	static const char digits[] = "0123456789abcdef";
	unsigned char mac[SL_SIG_MAC_LEN];
	char		text[20];
	char	   *start = text + sizeof(text);
	int64_t		rest = t;
	int			i;

	out_hex[0] = '\0';
	if (t < 0 || t >= INT64_C(1000000000000000000))
		return 0;

	do
	{
		*--start = digits[rest % 10];
		rest /= 10;
	} while (rest > 0);

	if (!mac_event(key, start, (size_t) (text + sizeof(text) - start),
				   payload, len, mac))
		return 0;

	for (i = 0; i < SL_SIG_MAC_LEN; i++)
	{
		out_hex[2 * i] = digits[mac[i] >> 4];
		out_hex[2 * i + 1] = digits[mac[i] & 15];
	}
	out_hex[SL_SIG_HEX_LEN] = '\0';
	OPENSSL_cleanse(mac, sizeof(mac));
	return 1;
}
