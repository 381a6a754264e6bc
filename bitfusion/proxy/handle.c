/* SPDX-License-Identifier: Apache-2.0
 *
 * Handles that this side mints. A table per kind: chunks that are made when needed and then stay, so that
 * look-ups need no lock. Numbers of destroyed handles come back late, so that a stale one is noticed.
 */
#define _GNU_SOURCE
#include "graph.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNK_BITS = 10, CHUNK = 1 << CHUNK_BITS, CHUNKS = BF_MAX_HANDLES / CHUNK, REUSE_AFTER = 1024 };

struct table {
	size_t entry_size; /* 0: struct bf_entry alone */
	uint32_t first;
	_Atomic(uint8_t *) *chunks;
	uint32_t used; /* indices below were handed out at least once */
	uint32_t *free; /* a ring of `free_room` places */
	uint32_t free_room, free_start, free_count;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic(uint8_t *) chunks[BF_HANDLE_KINDS][CHUNKS];
static struct table tables[BF_HANDLE_KINDS] = {
	[BF_CONTEXT] = { .entry_size = sizeof(struct bf_context), .first = BF_FIRST_CREATED_CONTEXT },
	[BF_FUNCTION] = { .entry_size = sizeof(struct bf_function) },
	[BF_KERNEL] = { .entry_size = sizeof(struct bf_function) },
	[BF_STREAM] = { .entry_size = sizeof(struct bf_stream) },
	[BF_EVENT] = { .entry_size = sizeof(struct bf_event) },
	[BF_ALLOCATION] = { .entry_size = sizeof(struct bf_physical) },
	[BF_ARRAY] = { .entry_size = sizeof(struct bf_array) },
	[BF_GRAPH] = { .entry_size = sizeof(struct bf_graph) },
	[BF_GRAPHEXEC] = { .entry_size = sizeof(struct bf_graph) },
};

static size_t entry_size(enum bf_handle_kind kind)
{
	return tables[kind].entry_size ? tables[kind].entry_size : sizeof(struct bf_entry);
}

void *bf_handle_entry(enum bf_handle_kind kind, uint32_t index)
{
	uint8_t *chunk;

	if (BF_UNLIKELY(index >= BF_MAX_HANDLES || kind >= BF_HANDLE_KINDS))
		return NULL;
	chunk = atomic_load_explicit(&chunks[kind][index >> CHUNK_BITS], memory_order_acquire);
	return chunk ? chunk + (index & (CHUNK - 1)) * entry_size(kind) : NULL;
}

void *bf_handle_find(enum bf_handle_kind kind, uint64_t handle)
{
	struct bf_entry *entry;

	if (BF_UNLIKELY(!BF_IS_HANDLE(handle) || BF_HANDLE_KIND(handle) != kind))
		return NULL;
	entry = bf_handle_entry(kind, BF_HANDLE_INDEX(handle));
	if (BF_UNLIKELY(!entry || !bf_is_alive(entry)))
		return NULL;
	return entry;
}

/* With the lock held. */
static void *make_entry(enum bf_handle_kind kind, uint32_t index)
{
	_Atomic(uint8_t *) *chunk = &chunks[kind][index >> CHUNK_BITS];

	if (!atomic_load(chunk)) {
		uint8_t *memory = calloc(CHUNK, entry_size(kind));

		if (!memory)
			return NULL;
		atomic_store_explicit(chunk, memory, memory_order_release);
	}
	return bf_handle_entry(kind, index);
}

void *bf_handle_reserve(enum bf_handle_kind kind, uint32_t index)
{
	void *entry;

	pthread_mutex_lock(&lock);
	entry = make_entry(kind, index);
	pthread_mutex_unlock(&lock);
	return entry;
}

static uint32_t take_index(struct table *table)
{
	uint32_t index;

	if (table->free_count > REUSE_AFTER || (table->used == BF_MAX_HANDLES && table->free_count)) {
		index = table->free[table->free_start];
		table->free_start = (table->free_start + 1) % table->free_room;
		table->free_count--;
		return index;
	}
	if (table->used == 0)
		table->used = table->first ? table->first : 1;
	return table->used < BF_MAX_HANDLES ? table->used++ : 0;
}

uint64_t bf_handle_new(enum bf_handle_kind kind, void *entry)
{
	struct bf_entry *made = NULL;
	uint32_t index;

	pthread_mutex_lock(&lock);
	index = take_index(&tables[kind]);
	if (index)
		made = make_entry(kind, index);
	pthread_mutex_unlock(&lock);
	if (!made)
		return 0;
	made->context = bf_self.current;
	atomic_store_explicit(&made->life, BF_MINTED, memory_order_release);
	if (entry)
		*(void **)entry = made;
	return BF_HANDLE(kind, index);
}

void bf_handle_start(enum bf_handle_kind kind, uint64_t handle)
{
	struct bf_entry *entry = bf_handle_entry(kind, BF_HANDLE_INDEX(handle));

	if (entry)
		atomic_store_explicit(&entry->life, BF_ALIVE, memory_order_release);
}

static bool grow_free(struct table *table)
{
	uint32_t room = table->free_room ? table->free_room * 2 : 2 * REUSE_AFTER;
	uint32_t *ring = malloc(room * sizeof *ring);

	if (!ring)
		return false;
	for (uint32_t i = 0; i < table->free_count; i++)
		ring[i] = table->free[(table->free_start + i) % table->free_room];
	free(table->free);
	table->free = ring;
	table->free_room = room;
	table->free_start = 0;
	return true;
}

/* With the lock held. A number that cannot be kept is only lost. */
static void give_index(struct table *table, uint32_t index)
{
	if (table->free_count == table->free_room && !grow_free(table))
		return;
	table->free[(table->free_start + table->free_count++) % table->free_room] = index;
}

void bf_handle_free(uint64_t handle)
{
	enum bf_handle_kind kind = (enum bf_handle_kind)BF_HANDLE_KIND(handle);
	struct bf_entry *entry;

	if (!BF_IS_HANDLE(handle) || kind >= BF_HANDLE_KINDS)
		return;
	entry = bf_handle_entry(kind, BF_HANDLE_INDEX(handle));
	if (!entry || atomic_exchange(&entry->life, BF_DEAD) == BF_DEAD)
		return; /* two threads may destroy the same one */
	pthread_mutex_lock(&lock);
	give_index(&tables[kind], BF_HANDLE_INDEX(handle));
	pthread_mutex_unlock(&lock);
}

uint32_t bf_handle_count(enum bf_handle_kind kind)
{
	uint32_t used;

	pthread_mutex_lock(&lock);
	used = tables[kind].used;
	pthread_mutex_unlock(&lock);
	return used;
}

static bool dies_with_context(enum bf_handle_kind kind)
{
	return kind == BF_MODULE || kind == BF_FUNCTION || kind == BF_STREAM || kind == BF_EVENT || kind == BF_ARRAY ||
	       kind == BF_MIPMAPPEDARRAY;
}

void bf_handle_free_context(uint32_t context)
{
	for (int kind = 0; kind < BF_HANDLE_KINDS; kind++) {
		if (!dies_with_context((enum bf_handle_kind)kind))
			continue;
		for (uint32_t index = 1; index < bf_handle_count((enum bf_handle_kind)kind); index++) {
			struct bf_entry *entry = bf_handle_entry((enum bf_handle_kind)kind, index);

			if (entry && entry->context == context && bf_is_alive(entry))
				bf_handle_free(BF_HANDLE(kind, index));
		}
	}
}
