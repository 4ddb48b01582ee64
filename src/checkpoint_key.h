/*-------------------------------------------------------------------------
 *
 * checkpoint_key.h
 *	  The Ed25519 keys by which checkpoints are signed and checked.
 *
 * A ring holds any number of public keys, and a private one if there is
 * something to be signed.  Keys come as PEM, as "openssl genpkey -algorithm
 * ed25519" and "openssl pkey -pubout" write them.  A key's fingerprint is the
 * SHA-256 of its public half in DER (SubjectPublicKeyInfo).
 *
 * Needs nothing of PostgreSQL.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_CHECKPOINT_KEY_H
#define SL_CHECKPOINT_KEY_H

#include "checkpoint.h"

#define SL_MAX_CHECKPOINT_KEYS	64	/* in one ring */

typedef enum SlKeyResult
{
	SL_KEY_OK,
	SL_KEY_NONE,				/* no key in PEM at all */
	SL_KEY_MALFORMED,			/* PEM that is broken or no key */
	SL_KEY_ENCRYPTED,			/* a private key with a passphrase */
	SL_KEY_WRONG_TYPE,			/* a key, but not of Ed25519 */
	SL_KEY_TWO_PRIVATE,			/* a second private key */
	SL_KEY_TOO_MANY,
	SL_KEY_CRYPTO				/* OpenSSL failed, or no memory */
} SlKeyResult;

typedef enum SlSignatureVerdict
{
	SL_SIGNATURE_GOOD,
	SL_SIGNATURE_BAD,
	SL_SIGNATURE_UNKNOWN_KEY,	/* made by a key that is not in the ring */
	SL_SIGNATURE_CRYPTO			/* OpenSSL failed */
} SlSignatureVerdict;

typedef struct SlKeyRing SlKeyRing;

/* Makes an empty one; NULL without memory.  Free it. */
extern SlKeyRing *sl_keyring_new(void);

/* Frees one, its private key wiped; NULL is allowed. */
extern void sl_keyring_free(SlKeyRing *ring);

/*
 * Adds all keys of a PEM text; what stands between the blocks is passed over,
 * and a key that is there already is not added again.  After anything but OK
 * the ring may hold some of them, and should be freed.  The text is not
 * referenced afterwards; wipe it if it holds a private key.
 */
extern SlKeyResult sl_keyring_add(SlKeyRing *ring, const char *pem, size_t len);

/* Constant English text that completes "the file ...". */
extern const char *sl_key_result_text(SlKeyResult result);

/* How many keys there are, and the fingerprint of one of them. */
extern int	sl_keyring_count(const SlKeyRing *ring);
extern const unsigned char *sl_keyring_fingerprint(const SlKeyRing *ring, int n);

/* The fingerprint of the private key; NULL if there is none. */
extern const unsigned char *sl_keyring_signer(const SlKeyRing *ring);

/* Keep only the public half of the private key, for who has nothing to sign. */
extern bool sl_keyring_forget_private(SlKeyRing *ring);

/* Sets c->key and c->signature.  False without a private key, or if OpenSSL failed. */
extern bool sl_keyring_sign(const SlKeyRing *ring, SlCheckpoint *c);

/* Is it signed by the key that it names, and is that one in the ring? */
extern SlSignatureVerdict sl_keyring_verify(const SlKeyRing *ring, const SlCheckpoint *c);

#endif							/* SL_CHECKPOINT_KEY_H */
