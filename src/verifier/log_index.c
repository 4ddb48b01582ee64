/*-------------------------------------------------------------------------
 *
 * log_index.c
 *	  The checkpoints that were found in server logs.
 *
 *-------------------------------------------------------------------------
 */
#include "log_index.h"

#include <stdlib.h>
#include <string.h>

struct SlLogIndex
{
	SlLogEntry *entries;
	size_t		count;
	size_t		size;
	size_t		no_signature;
};

SlLogIndex *
sl_log_index_new(void)
{
	return calloc(1, sizeof(SlLogIndex));
}

void
sl_log_index_free(SlLogIndex *index)
{
	if (index == NULL)
		return;
	free(index->entries);
	free(index);
}

static bool
make_room(SlLogIndex *index)
{
	size_t		size = index->size == 0 ? 256 : 2 * index->size;
	SlLogEntry *entries;

	if (index->count < index->size)
		return true;
	entries = realloc(index->entries, size * sizeof(SlLogEntry));
	if (entries == NULL)
		return false;
	index->entries = entries;
	index->size = size;
	return true;
}

bool
sl_log_index_add(SlLogIndex *index, const SlKeyRing *ring, const char *line,
				 size_t len)
{
	const char *text;
	size_t		text_len;
	SlCheckpoint c;
	SlLogEntry *e;

	if (!sl_checkpoint_find(line, len, &text, &text_len))
		return true;
	if (!sl_checkpoint_read(text, text_len, &c) ||
		sl_keyring_verify(ring, &c) != SL_SIGNATURE_GOOD)
	{
		index->no_signature++;
		return true;
	}
	if (!make_room(index))
		return false;
	e = &index->entries[index->count];
	memset(e, 0, sizeof(*e));
	memcpy(e->trail, c.trail, sizeof(e->trail));
	e->number = c.number;
	e->first_at = c.first_at;
	e->last_at = c.last_at;
	memcpy(e->previous, c.previous, sizeof(e->previous));
	if (!sl_checkpoint_hash(&c, e->hash))
		return false;
	index->count++;
	return true;
}

static int
compare_place(const SlLogEntry *a, const unsigned char *trail, int64_t number)
{
	int			order = memcmp(a->trail, trail, sizeof(a->trail));

	if (order != 0)
		return order;
	return (a->number > number) - (a->number < number);
}

static int
compare(const void *a, const void *b)
{
	const SlLogEntry *x = a;
	const SlLogEntry *y = b;
	int			order = compare_place(x, y->trail, y->number);

	return order != 0 ? order : memcmp(x->hash, y->hash, sizeof(x->hash));
}

void
sl_log_index_sort(SlLogIndex *index)
{
	size_t		kept = 0;
	size_t		i;

	if (index->count == 0)
		return;
	qsort(index->entries, index->count, sizeof(SlLogEntry), compare);
	for (i = 0; i < index->count; i++)
		if (i == 0 || compare(&index->entries[kept - 1], &index->entries[i]) != 0)
			index->entries[kept++] = index->entries[i];
	index->count = kept;
}

size_t
sl_log_index_count(const SlLogIndex *index)
{
	return index->count;
}

SlLogEntry *
sl_log_index_entry(const SlLogIndex *index, size_t n)
{
	return &index->entries[n];
}

size_t
sl_log_index_unsigned(const SlLogIndex *index)
{
	return index->no_signature;
}

SlLogEntry *
sl_log_index_find(const SlLogIndex *index, const unsigned char *trail,
				  int64_t number)
{
	size_t		low = 0;
	size_t		high = index->count;

	while (low < high)
	{
		size_t		middle = low + (high - low) / 2;

		if (compare_place(&index->entries[middle], trail, number) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low < index->count &&
		compare_place(&index->entries[low], trail, number) == 0 ?
		&index->entries[low] : NULL;
}
