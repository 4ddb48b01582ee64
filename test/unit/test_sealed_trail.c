/*-------------------------------------------------------------------------
 *
 * test_sealed_trail.c
 *	  A trail that is whole, and the same one tampered with in each way.
 *
 * A trail of twelve transitions in four checkpoints is made and sealed here;
 * each test spoils a copy of it and says what has to be found, all of it.
 *
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include "merkle.h"
#include "sealed_trail.h"

#define NCHECKPOINTS	4
#define NTRANSITIONS	14		/* the last two are not sealed */

typedef struct Transition
{
	int64_t		position;
	int64_t		at;
	unsigned char hash[SL_CHECKPOINT_HASH_LEN];
} Transition;

typedef struct Trail
{
	int			nc;
	SlCheckpoint c[NCHECKPOINTS + 1];
	int			nt;
	Transition	t[NTRANSITIONS + 2];
} Trail;

static SlKeyRing *ring;			/* signs */
static SlKeyRing *other_ring;	/* signs, too, but nobody knows its key */
static SlKeyRing *empty_ring;
static Trail whole;

static SlKeyRing *
make_ring(unsigned char n)
{
	unsigned char raw[32] = {n};
	EVP_PKEY   *pkey = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, raw, 32);
	BIO		   *bio = BIO_new(BIO_s_mem());
	SlKeyRing  *made = sl_keyring_new();
	char	   *data;
	long		len;

	PEM_write_bio_PKCS8PrivateKey(bio, pkey, NULL, NULL, 0, NULL, NULL);
	len = BIO_get_mem_data(bio, &data);
	if (sl_keyring_add(made, data, (size_t) len) != SL_KEY_OK)
		abort();
	BIO_free(bio);
	EVP_PKEY_free(pkey);
	return made;
}

/* Seals the transitions of a trail anew, from checkpoint n on. */
static void
seal_from(Trail *trail, int n, const SlKeyRing *key)
{
	SlMerkle   *tree = sl_merkle_new();
	int			i;

	for (; n < trail->nc; n++)
	{
		SlCheckpoint *c = &trail->c[n];

		c->first_at = INT64_MAX;
		c->last_at = INT64_MIN;
		c->leaves = 0;
		sl_merkle_begin(tree);
		for (i = 0; i < trail->nt; i++)
		{
			const Transition *t = &trail->t[i];

			if (t->position <= c->from_position || t->position > c->to_position)
				continue;
			c->leaves++;
			c->first_at = t->at < c->first_at ? t->at : c->first_at;
			c->last_at = t->at > c->last_at ? t->at : c->last_at;
			sl_merkle_add(tree, t->hash, sizeof(t->hash));
		}
		sl_merkle_finish(tree, c->root);
		if (n > 0)
			sl_checkpoint_hash(&trail->c[n - 1], c->previous);
		sl_keyring_sign(key, c);
	}
	sl_merkle_free(tree);
}

/* Positions 2, 4, 6 ... ; three of them to a checkpoint. */
static void
make_whole(void)
{
	int			i;

	whole.nt = NTRANSITIONS;
	for (i = 0; i < NTRANSITIONS; i++)
	{
		whole.t[i].position = 2 * (i + 1);
		/* not in order: clocks are set, and transactions end when they will */
		whole.t[i].at = 1000 * (i ^ 1);
		memset(whole.t[i].hash, i + 1, sizeof(whole.t[i].hash));
	}
	whole.nc = NCHECKPOINTS;
	for (i = 0; i < NCHECKPOINTS; i++)
	{
		whole.c[i].number = i + 1;
		whole.c[i].from_position = 6 * i;
		whole.c[i].to_position = 6 * (i + 1);
		whole.c[i].sealed_at = 1000000 + i;
		memset(whole.c[i].trail, 7, sizeof(whole.c[i].trail));
	}
	seal_from(&whole, 0, ring);
}

/* Collects findings as "number kind; number kind". */
static void
collect(void *arg, int64_t number, SlFinding finding, const char *detail)
{
	char	   *list = arg;
	size_t		len = strlen(list);

	CHECK(strlen(detail) > 0);
	snprintf(list + len, 1000 - len, "%s%lld %s", len > 0 ? "; " : "",
			 (long long) number, sl_finding_name(finding));
}

/* As verify_checkpoints() and an export have them: by position. */
static void
feed(SlSealedTrail *s, const Trail *trail)
{
	int			t = 0;
	int			i;

	for (i = 0; i < trail->nc; i++)
	{
		sl_sealed_trail_checkpoint(s, &trail->c[i]);
		for (; t < trail->nt && trail->t[t].position <= trail->c[i].to_position; t++)
			sl_sealed_trail_transition(s, trail->t[t].position, trail->t[t].at,
									   trail->t[t].hash);
	}
	for (; t < trail->nt; t++)
		sl_sealed_trail_transition(s, trail->t[t].position, trail->t[t].at,
								   trail->t[t].hash);
	sl_sealed_trail_end(s);
}

static const char *
findings_with(const Trail *trail, const SlKeyRing *keys, bool partial,
			  const SlCheckpoint *before)
{
	static char list[1000];
	SlSealedTrail *s = sl_sealed_trail_new(keys, collect, list);

	list[0] = '\0';
	if (partial)
		sl_sealed_trail_partial(s, before);
	feed(s, trail);
	sl_sealed_trail_free(s);
	return list;
}

static const char *
findings(const Trail *trail)
{
	return findings_with(trail, ring, false, NULL);
}

static void
remove_transition(Trail *trail, int n)
{
	memmove(&trail->t[n], &trail->t[n + 1],
			(size_t) (trail->nt - n - 1) * sizeof(Transition));
	trail->nt--;
}

static void
add_transition(Trail *trail, int n, int64_t position)
{
	memmove(&trail->t[n + 1], &trail->t[n],
			(size_t) (trail->nt - n) * sizeof(Transition));
	trail->nt++;
	trail->t[n].position = position;
}

static void
remove_checkpoint(Trail *trail, int n)
{
	memmove(&trail->c[n], &trail->c[n + 1],
			(size_t) (trail->nc - n - 1) * sizeof(SlCheckpoint));
	trail->nc--;
}

static void
test_whole(void)
{
	SlSealedTrail *s = sl_sealed_trail_new(ring, collect, (char[1000]) {""});
	Trail		none = {0};

	CHECK_STR(findings(&whole), "");
	CHECK(sl_sealed_trail_last(s) == NULL);
	feed(s, &whole);
	CHECK_INT(sl_sealed_trail_checkpoints(s), 4);
	CHECK_INT(sl_sealed_trail_transitions(s), 14);
	CHECK_INT(sl_sealed_trail_unsealed(s), 2);
	CHECK_INT(sl_sealed_trail_last(s)->number, 4);
	sl_sealed_trail_free(s);
	sl_sealed_trail_free(NULL);

	CHECK_STR(findings(&none), "");
	none.nt = 2;
	none.t[0].position = 1;
	none.t[1].position = 2;
	CHECK_STR(findings(&none), "");
}

static void
test_transitions(void)
{
	Trail		t = whole;

	t.t[4].hash[0] ^= 1;
	CHECK_STR(findings(&t), "2 changed transitions");

	t = whole;
	t.t[4].at = t.c[1].last_at + 1;
	CHECK_STR(findings(&t), "2 changed transitions");

	t = whole;
	memcpy(t.t[3].hash, whole.t[4].hash, sizeof(t.t[3].hash));
	memcpy(t.t[4].hash, whole.t[3].hash, sizeof(t.t[4].hash));
	CHECK_STR(findings(&t), "2 changed transitions");

	/* the first, one in the middle, the last that is sealed, all of one */
	t = whole;
	remove_transition(&t, 0);
	CHECK_STR(findings(&t), "1 missing transitions");
	t = whole;
	remove_transition(&t, 7);
	CHECK_STR(findings(&t), "3 missing transitions");
	t = whole;
	t.nt = 11;
	CHECK_STR(findings(&t), "4 missing transitions");
	t.nt = 5;
	CHECK_STR(findings(&t), "2 missing transitions; 3 missing transitions; 4 missing transitions");
	t.nt = 0;
	CHECK_STR(findings(&t), "1 missing transitions; 2 missing transitions;"
			  " 3 missing transitions; 4 missing transitions");

	t = whole;
	add_transition(&t, 0, 1);
	CHECK_STR(findings(&t), "1 added transitions");
	t = whole;
	add_transition(&t, 9, 19);
	CHECK_STR(findings(&t), "4 added transitions");
	/* one removed and another one put in its place */
	t = whole;
	remove_transition(&t, 3);
	add_transition(&t, 3, 7);
	CHECK_STR(findings(&t), "2 changed transitions");
	/* moved from one checkpoint to the next */
	t = whole;
	t.t[2].position = 7;
	CHECK_STR(findings(&t), "1 missing transitions; 2 added transitions");
	/* one position twice, and positions out of order */
	t = whole;
	add_transition(&t, 5, 10);
	CHECK_STR(findings(&t), "2 disorder; 2 added transitions");
	t = whole;
	t.t[3].position = 10;
	t.t[4].position = 8;
	CHECK_STR(findings(&t), "2 disorder");
}

static void
test_checkpoints(void)
{
	Trail		t = whole;

	remove_checkpoint(&t, 0);
	CHECK_STR(findings(&t), "1 missing checkpoint");
	t = whole;
	remove_checkpoint(&t, 1);
	CHECK_STR(findings(&t), "2 missing checkpoint");
	remove_checkpoint(&t, 1);
	CHECK_STR(findings(&t), "2 missing checkpoint");
	/* the newest ones: nothing in here can tell */
	t = whole;
	t.nc = 3;
	CHECK_STR(findings(&t), "");

	/* a checkpoint and its transitions */
	t = whole;
	remove_checkpoint(&t, 1);
	remove_transition(&t, 3);
	remove_transition(&t, 3);
	remove_transition(&t, 3);
	CHECK_STR(findings(&t), "2 missing checkpoint");

	/* numbered anew after that, without the key and with another one */
	t.c[1].number = 2;
	t.c[2].number = 3;
	CHECK_STR(findings(&t), "2 broken chain; 2 broken chain; 2 bad signature;"
			  " 3 broken chain; 3 bad signature");
	t.c[1].from_position = 6;
	seal_from(&t, 1, other_ring);
	CHECK_STR(findings(&t), "2 unknown key");

	/* twice, and in the wrong order */
	t = whole;
	t.c[2] = t.c[1];
	CHECK_STR(findings(&t), "2 disorder; 2 broken chain; 2 broken chain;"
			  " 2 missing transitions; 3 missing checkpoint");
	t = whole;
	t.c[1] = whole.c[2];
	t.c[2] = whole.c[1];
	CHECK(strstr(findings(&t), "2 disorder") != NULL);
}

static void
test_values(void)
{
	Trail		t = whole;

	t.c[1].root[0] ^= 1;
	CHECK_STR(findings(&t), "2 bad signature; 2 changed transitions; 3 broken chain");
	t = whole;
	t.c[1].signature[0] ^= 1;
	CHECK_STR(findings(&t), "2 bad signature");
	t = whole;
	t.c[1].previous[0] ^= 1;
	CHECK_STR(findings(&t), "2 broken chain; 2 bad signature; 3 broken chain");
	t = whole;
	t.c[0].previous[0] ^= 1;
	seal_from(&t, 0, ring);
	CHECK_STR(findings(&t), "1 broken chain");
	t = whole;
	t.c[1].leaves++;
	CHECK_STR(findings(&t), "2 bad signature; 2 missing transitions; 3 broken chain");
	t = whole;
	t.c[1].sealed_at++;
	CHECK_STR(findings(&t), "2 bad signature; 3 broken chain");
	t = whole;
	t.c[3].trail[0] ^= 1;
	CHECK_STR(findings(&t), "4 broken chain; 4 bad signature");

	/* sealed again by the key itself, as somebody might who has it */
	t = whole;
	t.c[2].to_position = 16;
	t.c[3].from_position = 18;
	seal_from(&t, 2, ring);
	CHECK_STR(findings(&t), "4 broken chain; 4 added transitions");
}

static void
test_keys(void)
{
	Trail		t = whole;

	CHECK_STR(findings_with(&whole, empty_ring, false, NULL), "1 unknown key");
	seal_from(&t, 2, other_ring);
	CHECK_STR(findings(&t), "3 unknown key");
	CHECK_STR(findings_with(&t, other_ring, false, NULL), "1 unknown key");
	/* it claims the known key */
	memcpy(t.c[2].key, t.c[0].key, sizeof(t.c[2].key));
	CHECK_STR(findings(&t), "3 bad signature; 4 broken chain; 4 unknown key");
}

static void
test_partial(void)
{
	Trail		t = whole;
	SlCheckpoint before = whole.c[1];

	/* the last two checkpoints and what they seal */
	t.nc = 2;
	memmove(&t.c[0], &whole.c[2], 2 * sizeof(SlCheckpoint));
	t.nt = 8;
	memmove(&t.t[0], &whole.t[6], 8 * sizeof(Transition));
	CHECK_STR(findings_with(&t, ring, true, NULL), "");
	CHECK_STR(findings_with(&t, ring, true, &before), "");
	CHECK_STR(findings(&t), "1 missing checkpoint");
	before.root[0] ^= 1;
	CHECK_STR(findings_with(&t, ring, true, &before), "3 broken chain");
	before = whole.c[0];
	CHECK_STR(findings_with(&t, ring, true, &before), "2 missing checkpoint");
	t.t[0].hash[0] ^= 1;
	CHECK_STR(findings_with(&t, ring, true, NULL), "3 changed transitions");
	/* the beginning is checked as such even so */
	t = whole;
	t.c[0].from_position = 1;
	seal_from(&t, 0, ring);
	CHECK_STR(findings_with(&t, ring, true, NULL), "1 broken chain");
}

int
main(void)
{
	ring = make_ring(1);
	other_ring = make_ring(2);
	empty_ring = sl_keyring_new();
	make_whole();
	test_whole();
	test_transitions();
	test_checkpoints();
	test_values();
	test_keys();
	test_partial();
	sl_keyring_free(ring);
	sl_keyring_free(other_ring);
	sl_keyring_free(empty_ring);
	return unit_done();
}
