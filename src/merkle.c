/*-------------------------------------------------------------------------
 *
 * merkle.c
 *	  The Merkle root of a list of leaves, as RFC 6962 (2.1) defines it.
 *
 * Of the leaves seen so far only the roots of complete subtrees are kept, one
 * for each bit that is set in their number, the largest at the bottom of the
 * stack.  A leaf that comes in is merged with its equals like a carry in
 * binary addition; at the end what is left is merged from the top down, which
 * is RFC 6962's split at the largest power of two.
 *
 *-------------------------------------------------------------------------
 */
#include "merkle.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#define LEAF_PREFIX		0x00
#define NODE_PREFIX		0x01

typedef struct Hash
{
	unsigned char bytes[SL_MERKLE_HASH_LEN];
} Hash;

struct SlMerkle
{
	EVP_MD_CTX *ctx;
	uint64_t	count;			/* leaves */
	int			depth;			/* of the stack: bits set in count */
	bool		failed;
	Hash		stack[64];
};

SlMerkle *
sl_merkle_new(void)
{
	SlMerkle   *tree = calloc(1, sizeof(SlMerkle));

	if (tree == NULL)
		return NULL;
	tree->ctx = EVP_MD_CTX_new();
	if (tree->ctx == NULL ||
		EVP_DigestInit_ex(tree->ctx, EVP_sha256(), NULL) != 1)
	{
		sl_merkle_free(tree);
		return NULL;
	}
	sl_merkle_begin(tree);
	return tree;
}

void
sl_merkle_free(SlMerkle *tree)
{
	if (tree == NULL)
		return;
	EVP_MD_CTX_free(tree->ctx);
	free(tree);
}

void
sl_merkle_begin(SlMerkle *tree)
{
	tree->count = 0;
	tree->depth = 0;
	tree->failed = false;
}

/* SHA-256(prefix || a || b); without a prefix if that is negative. */
static void
digest(SlMerkle *tree, int prefix, const void *a, size_t alen,
	   const void *b, size_t blen, Hash *out)
{
	unsigned char byte = (unsigned char) prefix;

	if (tree->failed)
		return;
	/* without a type the context begins anew with the one it has */
	tree->failed =
		EVP_DigestInit_ex(tree->ctx, NULL, NULL) != 1 ||
		(prefix >= 0 && EVP_DigestUpdate(tree->ctx, &byte, 1) != 1) ||
		(alen > 0 && EVP_DigestUpdate(tree->ctx, a, alen) != 1) ||
		(blen > 0 && EVP_DigestUpdate(tree->ctx, b, blen) != 1) ||
		EVP_DigestFinal_ex(tree->ctx, out->bytes, NULL) != 1;
}

/* Put a node over the two topmost subtrees. */
static void
merge(SlMerkle *tree)
{
	Hash	   *left = &tree->stack[tree->depth - 2];
	Hash	   *right = &tree->stack[tree->depth - 1];

	digest(tree, NODE_PREFIX, left->bytes, sizeof(left->bytes),
		   right->bytes, sizeof(right->bytes), left);
	tree->depth--;
}

void
sl_merkle_add(SlMerkle *tree, const void *leaf, size_t len)
{
	uint64_t	carry;

	digest(tree, LEAF_PREFIX, leaf, len, NULL, 0, &tree->stack[tree->depth]);
	tree->depth++;
	for (carry = tree->count; carry & 1; carry >>= 1)
		merge(tree);
	tree->count++;
}

uint64_t
sl_merkle_count(const SlMerkle *tree)
{
	return tree->count;
}

bool
sl_merkle_finish(SlMerkle *tree, unsigned char *root)
{
	if (tree->count == 0)
	{
		digest(tree, -1, NULL, 0, NULL, 0, &tree->stack[0]);
		tree->depth = 1;
	}
	while (tree->depth > 1)
		merge(tree);
	if (tree->failed)
		memset(root, 0, SL_MERKLE_HASH_LEN);
	else
		memcpy(root, tree->stack[0].bytes, SL_MERKLE_HASH_LEN);
	return !tree->failed;
}
