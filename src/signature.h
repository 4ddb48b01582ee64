/*-------------------------------------------------------------------------
 *
 * signature.h
 *	  Stripe's webhook signature scheme: parse the header, match, check the age.
 *
 * The three steps are separate because their order is part of the contract
 * with the user: a signature is matched before its age is looked at, so that
 * "stale" is only ever said of a message that Stripe really signed.  A header
 * is parsed once and may then be matched against several secrets.
 *
 * Plain buffers go in, an enum comes out.  Nothing here allocates from
 * PostgreSQL, raises, logs, or keeps a pointer to its arguments.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_SIGNATURE_H
#define SL_SIGNATURE_H

#include <stddef.h>
#include <stdint.h>

#define SL_SIG_MAX_HEADER	4096	/* bytes of header looked at */
#define SL_SIG_MAX_V1		16		/* well-formed v1 items kept */
#define SL_SIG_MAX_DIGITS	18		/* of a time: always fits an int64_t */
#define SL_SIG_MAC_LEN		32		/* HMAC-SHA256 */
#define SL_SIG_HEX_LEN		(2 * SL_SIG_MAC_LEN)

typedef enum SlSigResult
{
	SL_SIG_OK,
	SL_SIG_NO_HEADER,			/* none, or nothing but blanks */
	SL_SIG_MALFORMED,			/* no usable time, two times, or too long */
	SL_SIG_NO_SCHEME,			/* no well-formed v1 signature */
	SL_SIG_NO_MATCH,			/* no v1 was made with this key */
	SL_SIG_STALE,				/* too far from now, on either side */
	SL_SIG_BLANK_SECRET,		/* empty or only ASCII white space */
	SL_SIG_CRYPTO				/* OpenSSL failed */
} SlSigResult;

/*
 * A parsed header.  It owns all it holds: the header's own bytes may go away.
 * t_text is the time as it was sent, since those characters are what Stripe
 * signed; it is NUL-terminated for convenience.
 */
typedef struct SlSigHeader
{
	char		t_text[20];
	int			t_len;
	int64_t		t;
	int			n_v1;
	unsigned char v1[SL_SIG_MAX_V1][SL_SIG_MAC_LEN];
} SlSigHeader;

/* A secret, digested into a keyed MAC context.  Not for use by two threads. */
typedef struct SlSigKey SlSigKey;

/*
 * Reads a Stripe-Signature header value.  Returns OK, NO_HEADER, MALFORMED or
 * NO_SCHEME; *out is complete after OK and all zeroes otherwise.
 */
extern SlSigResult sl_sig_parse(const char *header, size_t len,
								SlSigHeader *out);

/*
 * Makes a key of a whole secret string ("whsec_" included).  The secret is not
 * referenced afterwards, and the caller should wipe it.  NULL means refusal or
 * failure: *why, if why is given, says BLANK_SECRET or CRYPTO (OK on success).
 */
extern SlSigKey *sl_sig_key_new(const char *secret, size_t len,
								SlSigResult *why);

/* Wipes and frees a key; NULL is allowed. */
extern void sl_sig_key_free(SlSigKey *key);

/*
 * Was any of the header's signatures made with this key over this payload?
 * Returns OK, NO_MATCH or CRYPTO.  The header must come from an OK parse.
 */
extern SlSigResult sl_sig_match(const SlSigHeader *header, SlSigKey *key,
								const void *payload, size_t len);

/*
 * Is |now - t| within the tolerance (whole seconds, the boundary included)?
 * Returns OK or STALE.  A negative tolerance lets nothing pass; a caller that
 * wants no check doesn't call.
 */
extern SlSigResult sl_sig_age(const SlSigHeader *header, int64_t now,
							  int64_t tolerance);

/* Constant English text, lower case, without any data of the message. */
extern const char *sl_sig_result_text(SlSigResult result);

/*
 * Signs a payload as Stripe would: out_hex becomes the v1 value, 64 characters
 * and a NUL.  For tests.  Returns 1, or 0 (out_hex is then "") when t isn't a
 * time that a header can carry or OpenSSL failed.
 */
extern int	sl_sig_sign(SlSigKey *key, int64_t t, const void *payload,
						size_t len, char out_hex[65]);

#endif							/* SL_SIGNATURE_H */
