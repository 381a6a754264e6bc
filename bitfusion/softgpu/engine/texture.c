/* SPDX-License-Identifier: Apache-2.0
 *
 * The numbers of textures and surfaces. An entry's memory stays; its generation is odd while it is in use and is part
 * of the number, so that a number of something gone is nobody's. Readers copy, and look at the generation again.
 */
#include "texture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 1024, CHUNKS = 1024, INDEX_BITS = 20 };
#define GENERATIONS 0xfffffffull

struct entry {
	_Atomic uint64_t generation;
	uint32_t next; /* of those not in use; 0: none */
	struct sg_texture texture;
};

static struct {
	pthread_mutex_t lock;
	struct entry *_Atomic chunks[CHUNKS];
	uint32_t count, first, last; /* indices from 1; the queue of those not in use */
} table = { .lock = PTHREAD_MUTEX_INITIALIZER };

static struct entry *entry_of(uint64_t index)
{
	struct entry *chunk = index && index < CHUNK * CHUNKS ? atomic_load(&table.chunks[index / CHUNK]) : NULL;

	return chunk ? &chunk[index % CHUNK] : NULL;
}

/* An entry that nobody uses; 0: too many. */
static uint32_t take(void)
{
	uint32_t index = table.first;

	if (index) {
		table.first = entry_of(index)->next;
		return index;
	}
	index = table.count + 1;
	if (index >= CHUNK * CHUNKS)
		return 0;
	if (!atomic_load(&table.chunks[index / CHUNK])) {
		struct entry *made = calloc(CHUNK, sizeof(*made));

		if (!made)
			return 0;
		atomic_store(&table.chunks[index / CHUNK], made);
	}
	table.count = index;
	return index;
}

uint64_t sg_texture_add(const struct sg_texture *texture)
{
	uint64_t number = 0;
	uint32_t index;

	pthread_mutex_lock(&table.lock);
	index = take();
	if (index) {
		struct entry *entry = entry_of(index);

		entry->texture = *texture;
		number = ((atomic_fetch_add(&entry->generation, 1) + 1) & GENERATIONS) << INDEX_BITS | index;
	}
	pthread_mutex_unlock(&table.lock);
	return number;
}

static bool is_live(const struct entry *entry, uint64_t number)
{
	const uint64_t generation = atomic_load(&entry->generation);

	return generation & 1 && (generation & GENERATIONS) == number >> INDEX_BITS;
}

int sg_texture_remove(uint64_t number, unsigned kind)
{
	const uint32_t index = number & (CHUNK * CHUNKS - 1);
	struct entry *entry = entry_of(index);
	int answer = -1;

	pthread_mutex_lock(&table.lock);
	if (entry && is_live(entry, number) && entry->texture.kind == kind) {
		atomic_fetch_add(&entry->generation, 1);
		entry->next = 0;
		if (table.first)
			entry_of(table.last)->next = index;
		else
			table.first = index;
		table.last = index;
		answer = 0;
	}
	pthread_mutex_unlock(&table.lock);
	return answer;
}

int sg_texture_find(uint64_t number, unsigned kind, struct sg_texture *texture)
{
	const struct entry *entry = entry_of(number & (CHUNK * CHUNKS - 1));

	if (!entry || !is_live(entry, number))
		return 0;
	*texture = entry->texture;
	atomic_thread_fence(memory_order_acquire);
	return is_live(entry, number) && texture->kind == kind;
}
