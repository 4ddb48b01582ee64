/*-------------------------------------------------------------------------
 *
 * checkpoint_key.c
 *	  The Ed25519 keys by which checkpoints are signed and checked.
 *
 * PEM is read block by block and not with PEM_read_bio_PrivateKey(), which
 * would take whatever key comes first, and ask a terminal for the passphrase
 * of an encrypted one.
 *
 *-------------------------------------------------------------------------
 */
#include "checkpoint_key.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

typedef struct Key
{
	EVP_PKEY   *pkey;
	unsigned char fingerprint[SL_CHECKPOINT_HASH_LEN];
} Key;

struct SlKeyRing
{
	int			count;
	int			signer;			/* which of them is private; -1: none */
	Key			keys[SL_MAX_CHECKPOINT_KEYS];
};

SlKeyRing *
sl_keyring_new(void)
{
	SlKeyRing  *ring = calloc(1, sizeof(SlKeyRing));

	if (ring != NULL)
		ring->signer = -1;
	return ring;
}

void
sl_keyring_free(SlKeyRing *ring)
{
	int			i;

	if (ring == NULL)
		return;
	for (i = 0; i < ring->count; i++)
		EVP_PKEY_free(ring->keys[i].pkey);
	free(ring);
}

static bool
make_fingerprint(EVP_PKEY *pkey, unsigned char *out)
{
	unsigned char *der = NULL;
	int			len = i2d_PUBKEY(pkey, &der);
	bool		ok = len > 0 &&
		EVP_Digest(der, (size_t) len, out, NULL, EVP_sha256(), NULL) == 1;

	OPENSSL_free(der);
	return ok;
}

static int
find_key(const SlKeyRing *ring, const unsigned char *fingerprint)
{
	int			i;

	for (i = 0; i < ring->count; i++)
		if (memcmp(ring->keys[i].fingerprint, fingerprint,
				   SL_CHECKPOINT_HASH_LEN) == 0)
			return i;
	return -1;
}

/* Takes pkey over, whatever becomes of it. */
static SlKeyResult
add_key(SlKeyRing *ring, EVP_PKEY *pkey, bool private)
{
	SlKeyResult result = SL_KEY_OK;
	Key			key;
	int			n;

	key.pkey = pkey;
	if (EVP_PKEY_id(pkey) != EVP_PKEY_ED25519)
		result = SL_KEY_WRONG_TYPE;
	else if (!make_fingerprint(pkey, key.fingerprint))
		result = SL_KEY_CRYPTO;
	else if (private && ring->signer >= 0)
		result = SL_KEY_TWO_PRIVATE;
	else
	{
		n = find_key(ring, key.fingerprint);
		if (n < 0 && ring->count == SL_MAX_CHECKPOINT_KEYS)
			result = SL_KEY_TOO_MANY;
		else if (n < 0 || private)
		{
			/* a private key takes the place of its public half */
			if (n < 0)
				n = ring->count++;
			else
				EVP_PKEY_free(ring->keys[n].pkey);
			ring->keys[n] = key;
			if (private)
				ring->signer = n;
			return SL_KEY_OK;
		}
	}
	EVP_PKEY_free(pkey);
	return result;
}

/* One block of PEM. */
static SlKeyResult
add_block(SlKeyRing *ring, const char *name, const char *header,
		  const unsigned char *data, long len)
{
	const unsigned char *p = data;
	bool		private = strcmp(name, "PRIVATE KEY") == 0;
	EVP_PKEY   *pkey;

	if (strcmp(name, "ENCRYPTED PRIVATE KEY") == 0 || header[0] != '\0')
		return SL_KEY_ENCRYPTED;
	if (private)
		pkey = d2i_AutoPrivateKey(NULL, &p, len);
	else if (strcmp(name, "PUBLIC KEY") == 0)
		pkey = d2i_PUBKEY(NULL, &p, len);
	else
		return strstr(name, "PRIVATE KEY") != NULL ? SL_KEY_WRONG_TYPE : SL_KEY_MALFORMED;
	if (pkey == NULL)
		return SL_KEY_MALFORMED;
	if (p != data + len)
	{
		EVP_PKEY_free(pkey);
		return SL_KEY_MALFORMED;
	}
	return add_key(ring, pkey, private);
}

SlKeyResult
sl_keyring_add(SlKeyRing *ring, const char *pem, size_t len)
{
	SlKeyResult result = SL_KEY_OK;
	BIO		   *bio = len > INT32_MAX ? NULL : BIO_new_mem_buf(pem, (int) len);
	int			blocks = 0;
	char	   *name;
	char	   *header;
	unsigned char *data;
	long		n;

	if (bio == NULL)
		return SL_KEY_CRYPTO;
	ERR_clear_error();
	while (result == SL_KEY_OK &&
		   PEM_read_bio(bio, &name, &header, &data, &n) == 1)
	{
		blocks++;
		result = add_block(ring, name, header, data, n);
		OPENSSL_free(name);
		OPENSSL_free(header);
		OPENSSL_clear_free(data, (size_t) n);
	}
	/* the end is where there is no further beginning of a block */
	if (result == SL_KEY_OK &&
		ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
		result = SL_KEY_MALFORMED;
	else if (result == SL_KEY_OK && blocks == 0)
		result = SL_KEY_NONE;
	ERR_clear_error();
	BIO_free(bio);
	return result;
}

const char *
sl_key_result_text(SlKeyResult result)
{
	switch (result)
	{
		case SL_KEY_OK:
			return "is fine";
		case SL_KEY_NONE:
			return "holds no key in PEM";
		case SL_KEY_MALFORMED:
			return "holds malformed PEM, or something else than keys";
		case SL_KEY_ENCRYPTED:
			return "holds an encrypted private key, which nobody is there to give the passphrase for";
		case SL_KEY_WRONG_TYPE:
			return "holds a key of another kind than Ed25519";
		case SL_KEY_TWO_PRIVATE:
			return "holds more than one private key";
		case SL_KEY_TOO_MANY:
			return "holds too many keys";
		case SL_KEY_CRYPTO:
			break;
	}
	return "could not be used: OpenSSL failed";
}

int
sl_keyring_count(const SlKeyRing *ring)
{
	return ring->count;
}

const unsigned char *
sl_keyring_fingerprint(const SlKeyRing *ring, int n)
{
	return ring->keys[n].fingerprint;
}

const unsigned char *
sl_keyring_signer(const SlKeyRing *ring)
{
	return ring->signer < 0 ? NULL : ring->keys[ring->signer].fingerprint;
}

bool
sl_keyring_forget_private(SlKeyRing *ring)
{
	Key		   *key = &ring->keys[ring->signer < 0 ? 0 : ring->signer];
	unsigned char raw[32];
	size_t		len = sizeof(raw);
	EVP_PKEY   *public;

	if (ring->signer < 0)
		return true;
	if (EVP_PKEY_get_raw_public_key(key->pkey, raw, &len) != 1 ||
		(public = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, raw, len)) == NULL)
		return false;
	EVP_PKEY_free(key->pkey);
	key->pkey = public;
	ring->signer = -1;
	return true;
}

bool
sl_keyring_sign(const SlKeyRing *ring, SlCheckpoint *c)
{
	char		text[SL_CHECKPOINT_TEXT_SIZE];
	size_t		siglen = sizeof(c->signature);
	EVP_MD_CTX *ctx;
	size_t		len;
	bool		ok;

	if (ring->signer < 0)
		return false;
	memcpy(c->key, ring->keys[ring->signer].fingerprint, sizeof(c->key));
	len = sl_checkpoint_text(c, text);
	ctx = EVP_MD_CTX_new();
	ok = ctx != NULL &&
		EVP_DigestSignInit(ctx, NULL, NULL, NULL, ring->keys[ring->signer].pkey) == 1 &&
		EVP_DigestSign(ctx, c->signature, &siglen,
					   (const unsigned char *) text, len) == 1 &&
		siglen == sizeof(c->signature);
	EVP_MD_CTX_free(ctx);
	ERR_clear_error();
	return ok;
}

SlSignatureVerdict
sl_keyring_verify(const SlKeyRing *ring, const SlCheckpoint *c)
{
	char		text[SL_CHECKPOINT_TEXT_SIZE];
	size_t		len = sl_checkpoint_text(c, text);
	int			n = find_key(ring, c->key);
	SlSignatureVerdict	verdict = SL_SIGNATURE_CRYPTO;
	EVP_MD_CTX *ctx;

	if (n < 0)
		return SL_SIGNATURE_UNKNOWN_KEY;
	ctx = EVP_MD_CTX_new();
	if (ctx != NULL &&
		EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, ring->keys[n].pkey) == 1)
		verdict = EVP_DigestVerify(ctx, c->signature, sizeof(c->signature),
								   (const unsigned char *) text, len) == 1 ?
			SL_SIGNATURE_GOOD : SL_SIGNATURE_BAD;
	EVP_MD_CTX_free(ctx);
	ERR_clear_error();
	return verdict;
}
