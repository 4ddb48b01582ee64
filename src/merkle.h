/*-------------------------------------------------------------------------
 *
 * merkle.h
 *	  The Merkle root of a list of leaves, as RFC 6962 (2.1) defines it.
 *
 * The hash of a leaf is SHA-256(0x00 || leaf), that of a node SHA-256(0x01 ||
 * left || right), so that no leaf can be passed off as a node.  A tree over n
 * leaves is split at the largest power of two below n.  Leaves come one after
 * another and none is kept: the memory is the same for any number of them.
 *
 * Needs nothing of PostgreSQL.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SL_MERKLE_H
#define SL_MERKLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SL_MERKLE_HASH_LEN	32		/* bytes of a SHA-256 */

/* A tree under way, to be used for one tree after another. */
typedef struct SlMerkle SlMerkle;

/* Makes one, begun; NULL if OpenSSL has no SHA-256 or no memory.  Free it. */
extern SlMerkle *sl_merkle_new(void);

/* Frees one; NULL is allowed. */
extern void sl_merkle_free(SlMerkle *tree);

/*
 * Begins a tree without leaves.  Whatever fails from here on is reported by
 * sl_merkle_finish().
 */
extern void sl_merkle_begin(SlMerkle *tree);

/* Adds the next leaf: any bytes, none too. */
extern void sl_merkle_add(SlMerkle *tree, const void *leaf, size_t len);

/* How many leaves it has. */
extern uint64_t sl_merkle_count(const SlMerkle *tree);

/*
 * The root of the leaves so far, SL_MERKLE_HASH_LEN bytes; that of no leaves
 * is SHA-256 of nothing.  The tree has to be begun again after this.  False,
 * and root is all zeroes, if OpenSSL failed.
 */
extern bool sl_merkle_finish(SlMerkle *tree, unsigned char *root);

#endif							/* SL_MERKLE_H */
