/*-------------------------------------------------------------------------
 *
 * test_merkle.c
 *	  Merkle roots, against those that RFC 6962's own implementations test
 *	  with, and against its definition written down as it stands there.
 *
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include <openssl/evp.h>

#include "merkle.h"

#define LEN SL_MERKLE_HASH_LEN

static const char *
hex(const unsigned char *bytes)
{
	static char text[2 * LEN + 1];
	int			i;

	for (i = 0; i < LEN; i++)
		sprintf(text + 2 * i, "%02x", bytes[i]);
	return text;
}

/* The eight leaves of the Certificate Transparency project's tests. */
static const struct
{
	const char *bytes;
	size_t		len;
}			leaves[8] = {
	{"", 0}, {"\x00", 1}, {"\x10", 1}, {"\x20\x21", 2}, {"\x30\x31", 2},
	{"\x40\x41\x42\x43", 4}, {"\x50\x51\x52\x53\x54\x55\x56\x57", 8},
	{"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f", 16}
};

static const char *const roots[9] = {
	"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
	"fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
	"aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
	"d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
	"4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
	"76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
	"ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
	"5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
};

static void
test_known_roots(SlMerkle *tree)
{
	unsigned char root[LEN];
	int			n;
	int			i;

	for (n = 0; n <= 8; n++)
	{
		unit_case("%d leaves", n);
		sl_merkle_begin(tree);
		for (i = 0; i < n; i++)
			sl_merkle_add(tree, leaves[i].bytes, leaves[i].len);
		CHECK_INT(sl_merkle_count(tree), n);
		CHECK(sl_merkle_finish(tree, root));
		CHECK_STR(hex(root), roots[n]);
	}
	unit_case(NULL);
}

/* What is number i: four bytes, the most significant first. */
static void
leaf(uint32_t i, unsigned char *out)
{
	out[0] = (unsigned char) (i >> 24);
	out[1] = (unsigned char) (i >> 16);
	out[2] = (unsigned char) (i >> 8);
	out[3] = (unsigned char) i;
}

/* RFC 6962 2.1: MTH(D[first:end]), with at least one leaf. */
static void
defined_root(uint32_t first, uint32_t end, unsigned char *out)
{
	unsigned char node[1 + 2 * LEN];
	uint32_t	k = 1;

	if (end - first == 1)
	{
		node[0] = 0;
		leaf(first, node + 1);
		EVP_Digest(node, 5, out, NULL, EVP_sha256(), NULL);
		return;
	}
	while (2 * k < end - first)
		k *= 2;
	node[0] = 1;
	defined_root(first, first + k, node + 1);
	defined_root(first + k, end, node + 1 + LEN);
	EVP_Digest(node, sizeof(node), out, NULL, EVP_sha256(), NULL);
}

static void
test_definition(SlMerkle *tree)
{
	unsigned char root[LEN];
	unsigned char expected[LEN];
	unsigned char bytes[4];
	uint32_t	n;
	uint32_t	i;

	for (n = 1; n <= 300; n++)
	{
		unit_case("%u leaves", n);
		sl_merkle_begin(tree);
		for (i = 0; i < n; i++)
		{
			leaf(i, bytes);
			sl_merkle_add(tree, bytes, sizeof(bytes));
		}
		CHECK(sl_merkle_finish(tree, root));
		defined_root(0, n, expected);
		CHECK(memcmp(root, expected, LEN) == 0);
	}
	unit_case(NULL);

	sl_merkle_begin(tree);
	for (i = 0; i < 1000; i++)
	{
		leaf(i, bytes);
		sl_merkle_add(tree, bytes, sizeof(bytes));
	}
	CHECK(sl_merkle_finish(tree, root));
	CHECK_STR(hex(root), "ed58fe22105717ceedf760a43eedfb173a60c44ef40fd61b6cd86bd4ebb59b61");
}

/* Whatever could be mistaken for another list of leaves has another root. */
static void
test_difference(SlMerkle *tree)
{
	unsigned char two[LEN];
	unsigned char other[LEN];
	unsigned char node[2 * LEN];

	sl_merkle_begin(tree);
	sl_merkle_add(tree, "a", 1);
	sl_merkle_add(tree, "b", 1);
	CHECK(sl_merkle_finish(tree, two));

	sl_merkle_begin(tree);
	sl_merkle_add(tree, "b", 1);
	sl_merkle_add(tree, "a", 1);
	CHECK(sl_merkle_finish(tree, other));
	CHECK(memcmp(two, other, LEN) != 0);

	/* the last leaf twice, which some trees fill up with */
	sl_merkle_begin(tree);
	sl_merkle_add(tree, "a", 1);
	sl_merkle_add(tree, "b", 1);
	sl_merkle_add(tree, "b", 1);
	CHECK(sl_merkle_finish(tree, other));
	CHECK(memcmp(two, other, LEN) != 0);

	/* a leaf made of what a node hashes */
	sl_merkle_begin(tree);
	sl_merkle_add(tree, "a", 1);
	CHECK(sl_merkle_finish(tree, node));
	sl_merkle_begin(tree);
	sl_merkle_add(tree, "b", 1);
	CHECK(sl_merkle_finish(tree, node + LEN));
	sl_merkle_begin(tree);
	sl_merkle_add(tree, node, sizeof(node));
	CHECK(sl_merkle_finish(tree, other));
	CHECK(memcmp(two, other, LEN) != 0);
}

int
main(void)
{
	SlMerkle   *tree = sl_merkle_new();
	unsigned char root[LEN];

	CHECK(tree != NULL);
	/* a new one is begun */
	CHECK(sl_merkle_finish(tree, root));
	CHECK_STR(hex(root), roots[0]);
	test_known_roots(tree);
	test_definition(tree);
	test_difference(tree);
	sl_merkle_free(tree);
	sl_merkle_free(NULL);
	return unit_done();
}
