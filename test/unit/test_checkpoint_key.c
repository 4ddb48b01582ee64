/*-------------------------------------------------------------------------
 *
 * test_checkpoint_key.c
 *	  Reading keys, signing and checking, against what openssl's programs make
 *	  of the same key and text.
 *
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include "checkpoint_key.h"

/* RFC 8032, 7.1, TEST 1 */
static const unsigned char seed[32] = {
	0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4,
	0x92, 0xec, 0x2c, 0xc4, 0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19,
	0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60
};

#define PUBLIC_PEM \
	"-----BEGIN PUBLIC KEY-----\n" \
	"MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n" \
	"-----END PUBLIC KEY-----\n"
#define OTHER_PUBLIC_PEM \
	"-----BEGIN PUBLIC KEY-----\n" \
	"MCowBQYDK2VwAyEAWKUKfve0ZbG1x56kACPAvWi0Lrg1Efb5cjqvfwjTi2s=\n" \
	"-----END PUBLIC KEY-----\n"
#define FINGERPRINT \
	"06e3fd8fda29bb60ab59557de61edb0aecdb231134be30e75b455f8e1b792fa9"

/* what "openssl pkeyutl -sign -rawin" made of it with that key */
#define LINE \
	"stripe_lifecycle checkpoint 1 trail=0190aaaa-bbbb-4ccc-8ddd-eeeeffff0001" \
	" number=2 from=40 to=100 leaves=59 first_at=2026-11-25T18:00:00.000001Z" \
	" last_at=2026-11-25T18:04:59.999999Z sealed_at=2026-11-25T18:05:00.123456Z" \
	" root=4813494d137e1631bba301d5acab6e7bb7aa74ce1185d456565ef51d737677b2" \
	" previous=84fd9bac333ad79154348296204fa7f8c537a96e08983e5f73b3f5aca8e8edf7" \
	" key=" FINGERPRINT \
	" signature=f23a9cda92140115cb135d8a94fed432a3e4ceca54f1814efe20a2df82ebd600" \
	"93a04a33a873db58cdbceb527e935ea0b86932dd86ce06c81d422b7929a8cc02"

/* The PEM of a key; made here, since private keys have no place in sources. */
static char *
private_pem(const unsigned char *raw, int type, const char *passphrase)
{
	EVP_PKEY   *pkey = EVP_PKEY_new_raw_private_key(type, NULL, raw, 32);
	BIO		   *bio = BIO_new(BIO_s_mem());
	char	   *data;
	char	   *text;
	long		n;

	if (PEM_write_bio_PKCS8PrivateKey(bio, pkey,
									  passphrase ? EVP_aes_128_cbc() : NULL,
									  NULL, 0, NULL, (void *) passphrase) != 1)
		abort();
	n = BIO_get_mem_data(bio, &data);
	text = strndup(data, (size_t) n);
	BIO_free(bio);
	EVP_PKEY_free(pkey);
	return text;
}

static char *
joined(const char *a, const char *b)
{
	char	   *text = malloc(strlen(a) + strlen(b) + 1);

	return strcat(strcpy(text, a), b);
}

/* What reading such a file gives; the ring is thrown away. */
static SlKeyResult
reads(const char *pem)
{
	SlKeyRing  *ring = sl_keyring_new();
	SlKeyResult result = sl_keyring_add(ring, pem, strlen(pem));

	sl_keyring_free(ring);
	return result;
}

static const char *
hex(const unsigned char *bytes)
{
	static char text[2 * SL_CHECKPOINT_HASH_LEN + 1];

	sl_hex_encode(bytes, SL_CHECKPOINT_HASH_LEN, text);
	return text;
}

static void
test_signing(const char *pem)
{
	SlKeyRing  *ring = sl_keyring_new();
	SlKeyRing  *public = sl_keyring_new();
	SlCheckpoint c;
	SlCheckpoint signed_again;

	CHECK(sl_checkpoint_read(LINE, strlen(LINE), &c));
	CHECK_INT(sl_keyring_add(ring, pem, strlen(pem)), SL_KEY_OK);
	CHECK_STR(hex(sl_keyring_signer(ring)), FINGERPRINT);
	CHECK_INT(sl_keyring_count(ring), 1);
	CHECK_INT(sl_keyring_verify(ring, &c), SL_SIGNATURE_GOOD);

	CHECK(sl_keyring_forget_private(public));

	signed_again = c;
	memset(signed_again.key, 0, sizeof(signed_again.key));
	memset(signed_again.signature, 0, sizeof(signed_again.signature));
	CHECK(sl_keyring_sign(ring, &signed_again));
	CHECK(memcmp(&c, &signed_again, sizeof(c)) == 0);

	CHECK_INT(sl_keyring_add(public, PUBLIC_PEM, strlen(PUBLIC_PEM)), SL_KEY_OK);
	CHECK(sl_keyring_signer(public) == NULL);
	CHECK_STR(hex(sl_keyring_fingerprint(public, 0)), FINGERPRINT);
	CHECK_INT(sl_keyring_verify(public, &c), SL_SIGNATURE_GOOD);
	signed_again = c;
	CHECK(!sl_keyring_sign(public, &signed_again));

	/* who only checks has no use for the private half */
	CHECK(sl_keyring_forget_private(ring));
	CHECK(sl_keyring_signer(ring) == NULL);
	CHECK_INT(sl_keyring_count(ring), 1);
	CHECK_INT(sl_keyring_verify(ring, &c), SL_SIGNATURE_GOOD);
	CHECK(!sl_keyring_sign(ring, &signed_again));
	sl_keyring_free(ring);
	sl_keyring_free(public);
}

static void
test_refusing(void)
{
	SlKeyRing  *ring = sl_keyring_new();
	SlCheckpoint c;
	SlCheckpoint other;
	size_t		i;

	CHECK(sl_checkpoint_read(LINE, strlen(LINE), &c));
	CHECK_INT(sl_keyring_verify(ring, &c), SL_SIGNATURE_UNKNOWN_KEY);
	CHECK_INT(sl_keyring_add(ring, OTHER_PUBLIC_PEM, strlen(OTHER_PUBLIC_PEM)), SL_KEY_OK);
	CHECK_INT(sl_keyring_verify(ring, &c), SL_SIGNATURE_UNKNOWN_KEY);
	CHECK_INT(sl_keyring_add(ring, PUBLIC_PEM, strlen(PUBLIC_PEM)), SL_KEY_OK);
	CHECK_INT(sl_keyring_verify(ring, &c), SL_SIGNATURE_GOOD);

	for (i = 0; i < sizeof(c.signature); i++)
	{
		other = c;
		other.signature[i] ^= 1;
		CHECK_INT(sl_keyring_verify(ring, &other), SL_SIGNATURE_BAD);
	}
	other = c;
	other.number++;
	CHECK_INT(sl_keyring_verify(ring, &other), SL_SIGNATURE_BAD);
	other = c;
	other.root[31] ^= 0x80;
	CHECK_INT(sl_keyring_verify(ring, &other), SL_SIGNATURE_BAD);
	/* passed off as signed by somebody else */
	other = c;
	memcpy(other.key, sl_keyring_fingerprint(ring, 0), sizeof(other.key));
	CHECK_INT(sl_keyring_verify(ring, &other), SL_SIGNATURE_BAD);
	sl_keyring_free(ring);
}

static void
test_files(const char *pem, const char *other_pem)
{
	SlKeyRing  *ring = sl_keyring_new();
	char	   *text;
	char	   *x25519 = private_pem(seed, EVP_PKEY_X25519, NULL);
	char	   *encrypted = private_pem(seed, EVP_PKEY_ED25519, "hush");

	CHECK_INT(reads(""), SL_KEY_NONE);
	CHECK_INT(reads("no key here\n"), SL_KEY_NONE);
	CHECK_INT(reads(x25519), SL_KEY_WRONG_TYPE);
	CHECK_INT(reads(encrypted), SL_KEY_ENCRYPTED);
	CHECK_INT(reads("-----BEGIN PUBLIC KEY-----\nMCowBQYDK2Vw\n-----END PUBLIC KEY-----\n"),
			  SL_KEY_MALFORMED);
	CHECK_INT(reads("-----BEGIN PUBLIC KEY-----\n\n-----END PUBLIC KEY-----\n"),
			  SL_KEY_MALFORMED);
	CHECK_INT(reads("-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQH"),
			  SL_KEY_MALFORMED);
	CHECK_INT(reads("-----BEGIN CERTIFICATE-----\nMCow\n-----END CERTIFICATE-----\n"),
			  SL_KEY_MALFORMED);
	CHECK_INT(reads("-----BEGIN RSA PRIVATE KEY-----\nMCow\n-----END RSA PRIVATE KEY-----\n"),
			  SL_KEY_WRONG_TYPE);
	/* a public key labelled private, and one with something behind it */
	CHECK_INT(reads("-----BEGIN PRIVATE KEY-----\n"
					"MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n"
					"-----END PRIVATE KEY-----\n"), SL_KEY_MALFORMED);
	CHECK_INT(reads("-----BEGIN PUBLIC KEY-----\n"
					"MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURoAAA==\n"
					"-----END PUBLIC KEY-----\n"), SL_KEY_MALFORMED);

	text = joined(pem, other_pem);
	CHECK_INT(reads(text), SL_KEY_TWO_PRIVATE);
	free(text);
	text = joined(PUBLIC_PEM, x25519);
	CHECK_INT(reads(text), SL_KEY_WRONG_TYPE);
	free(text);
	text = joined(PUBLIC_PEM, "-----BEGIN PUBLIC KEY-----\nMCow");
	CHECK_INT(reads(text), SL_KEY_MALFORMED);
	free(text);

	/* a private key with former public ones, comments in between */
	text = joined("# 2025\n" OTHER_PUBLIC_PEM "# now\n", pem);
	CHECK_INT(sl_keyring_add(ring, text, strlen(text)), SL_KEY_OK);
	CHECK_INT(sl_keyring_count(ring), 2);
	CHECK_STR(hex(sl_keyring_signer(ring)), FINGERPRINT);
	CHECK_INT(sl_keyring_add(ring, PUBLIC_PEM PUBLIC_PEM, strlen(PUBLIC_PEM PUBLIC_PEM)), SL_KEY_OK);
	CHECK_INT(sl_keyring_count(ring), 2);
	CHECK_STR(hex(sl_keyring_signer(ring)), FINGERPRINT);
	free(text);
	sl_keyring_free(ring);

	/* the private key after its own public half */
	ring = sl_keyring_new();
	text = joined(PUBLIC_PEM, pem);
	CHECK_INT(sl_keyring_add(ring, text, strlen(text)), SL_KEY_OK);
	CHECK_INT(sl_keyring_count(ring), 1);
	CHECK_STR(hex(sl_keyring_signer(ring)), FINGERPRINT);
	free(text);
	sl_keyring_free(ring);
	sl_keyring_free(NULL);
	free(x25519);
	free(encrypted);
}

static void
test_too_many(void)
{
	SlKeyRing  *ring = sl_keyring_new();
	SlKeyResult result = SL_KEY_OK;
	int			i;

	for (i = 0; i <= SL_MAX_CHECKPOINT_KEYS && result == SL_KEY_OK; i++)
	{
		unsigned char raw[32] = {(unsigned char) i};
		EVP_PKEY   *pkey = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, raw, 32);
		BIO		   *bio = BIO_new(BIO_s_mem());
		char	   *data;
		long		n;

		PEM_write_bio_PUBKEY(bio, pkey);
		n = BIO_get_mem_data(bio, &data);
		result = sl_keyring_add(ring, data, (size_t) n);
		BIO_free(bio);
		EVP_PKEY_free(pkey);
	}
	CHECK_INT(result, SL_KEY_TOO_MANY);
	CHECK_INT(sl_keyring_count(ring), SL_MAX_CHECKPOINT_KEYS);
	sl_keyring_free(ring);
}

int
main(void)
{
	static const unsigned char other_seed[32] = {1};
	char	   *pem = private_pem(seed, EVP_PKEY_ED25519, NULL);
	char	   *other_pem = private_pem(other_seed, EVP_PKEY_ED25519, NULL);
	int			i;

	test_signing(pem);
	test_refusing();
	test_files(pem, other_pem);
	test_too_many();
	for (i = SL_KEY_OK; i <= SL_KEY_CRYPTO; i++)
		CHECK(strlen(sl_key_result_text((SlKeyResult) i)) > 0);
	free(pem);
	free(other_pem);
	return unit_done();
}
