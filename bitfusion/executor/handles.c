/* SPDX-License-Identifier: Apache-2.0
 *
 * Tables from the client's numbers to the driver's handles, and back.
 */
#include "core.h"

#include <stdlib.h>

#define GONE UINT64_MAX /* in a reverse slot: deleted, keep probing */

void bf_handles_init(struct bf_handles *handles)
{
	pthread_mutex_init(&handles->lock, NULL);
}

static uint64_t *probe(struct bf_reverse *reverse, uint64_t value, uint64_t **vacant)
{
	if (vacant)
		*vacant = NULL;
	if (!reverse->size)
		return NULL;
	size_t mask = reverse->size - 1;
	for (size_t i = (value * 0x9e3779b97f4a7c15ull) >> 20;; i++) {
		uint64_t *pair = reverse->slot + 2 * (i & mask);
		if (pair[0] == value)
			return pair;
		if (vacant && !*vacant && (pair[0] == 0 || pair[0] == GONE))
			*vacant = pair;
		if (pair[0] == 0)
			return NULL;
	}
}

static bool rehash(struct bf_reverse *reverse)
{
	size_t size = 64;
	while (size < reverse->live * 4)
		size *= 2;
	struct bf_reverse bigger = { calloc(size, 16), size, reverse->live, reverse->live };
	if (!bigger.slot)
		return false;
	for (size_t i = 0; i < reverse->size; i++) {
		uint64_t *pair = reverse->slot + 2 * i, *vacant;
		if (pair[0] == 0 || pair[0] == GONE)
			continue;
		probe(&bigger, pair[0], &vacant);
		vacant[0] = pair[0];
		vacant[1] = pair[1];
	}
	free(reverse->slot);
	*reverse = bigger;
	return true;
}

static bool reverse_add(struct bf_reverse *reverse, uint64_t value, uint32_t index)
{
	if (value == 0 || value == GONE)
		return true;
	if (reverse->used * 4 >= reverse->size * 3 && !rehash(reverse))
		return false;
	uint64_t *vacant, *pair = probe(reverse, value, &vacant);
	if (!pair) {
		pair = vacant;
		reverse->used += pair[0] == 0;
		reverse->live++;
		pair[0] = value;
	}
	pair[1] = index;
	return true;
}

static void reverse_remove(struct bf_reverse *reverse, uint64_t value, uint32_t index)
{
	uint64_t *pair = probe(reverse, value, NULL);
	if (pair && pair[1] == index) {
		pair[0] = GONE;
		reverse->live--;
	}
}

static struct bf_entry *make_entry(struct bf_handles *handles, unsigned kind, uint32_t index)
{
	struct bf_entry *chunk = atomic_load(&handles->chunk[kind][index / BF_HANDLE_CHUNK]);
	if (!chunk) {
		chunk = calloc(BF_HANDLE_CHUNK, sizeof(*chunk));
		if (!chunk)
			return NULL;
		atomic_store_explicit(&handles->chunk[kind][index / BF_HANDLE_CHUNK], chunk, memory_order_release);
	}
	return &chunk[index % BF_HANDLE_CHUNK];
}

bool bf_handle_is(uint64_t number, unsigned kind)
{
	uint32_t index = BF_HANDLE_INDEX(number);
	return BF_IS_HANDLE(number) && BF_HANDLE_KIND(number) == kind && index > 0 && index < BF_MAX_HANDLES &&
	       number == BF_HANDLE(kind, index);
}

bool bf_handle_resolve(struct bf_handles *handles, unsigned kind, uint64_t number, uint64_t *value)
{
	if (number == 0 || (kind == BF_STREAM && number <= 2)) {
		*value = number;
		return true;
	}
	/* CUDA 13's runtime passes a CUkernel where a CUfunction is declared */
	if (unlikely(!bf_handle_is(number, kind))) {
		if (kind != BF_FUNCTION || !bf_handle_is(number, BF_KERNEL))
			return false;
		kind = BF_KERNEL;
	}
	struct bf_entry *entry = bf_handle_entry(handles, kind, BF_HANDLE_INDEX(number));
	if (unlikely(!entry))
		return false;
	*value = atomic_load_explicit(&entry->value, memory_order_acquire);
	return *value != 0;
}

static bool bind(struct bf_handles *handles, unsigned kind, uint32_t index, uint64_t value, uint32_t owner)
{
	struct bf_entry *entry = make_entry(handles, kind, index);
	if (!entry)
		return false;
	uint64_t old = atomic_load(&entry->value);
	if (old)
		reverse_remove(&handles->reverse[kind], old, index);
	if (!reverse_add(&handles->reverse[kind], value, index))
		return false;
	entry->owner = owner;
	entry->second = 0;
	entry->flags = 0;
	atomic_store_explicit(&entry->value, value, memory_order_release);
	return true;
}

bool bf_handle_bind(struct bf_handles *handles, unsigned kind, uint64_t number, uint64_t value, uint32_t owner)
{
	if (!bf_handle_is(number, kind))
		return false;
	pthread_mutex_lock(&handles->lock);
	bool bound = bind(handles, kind, BF_HANDLE_INDEX(number), value, owner);
	pthread_mutex_unlock(&handles->lock);
	return bound;
}

static void drop(struct bf_handles *handles, unsigned kind, uint32_t index)
{
	struct bf_entry *entry = bf_handle_entry(handles, kind, index);
	if (!entry)
		return;
	uint64_t value = atomic_exchange(&entry->value, 0);
	if (value)
		reverse_remove(&handles->reverse[kind], value, index);
}

void bf_handle_drop(struct bf_handles *handles, uint64_t number)
{
	unsigned kind = BF_HANDLE_KIND(number);
	if (!bf_handle_is(number, kind))
		return;
	pthread_mutex_lock(&handles->lock);
	drop(handles, kind, BF_HANDLE_INDEX(number));
	pthread_mutex_unlock(&handles->lock);
}

void bf_handle_own(struct bf_handles *handles, uint64_t number, uint32_t second)
{
	pthread_mutex_lock(&handles->lock);
	struct bf_entry *entry = bf_handle_entry(handles, BF_HANDLE_KIND(number), BF_HANDLE_INDEX(number));
	if (entry)
		entry->second = second;
	pthread_mutex_unlock(&handles->lock);
}

/* Removal leaves the reverse tables' slots in place, so walking them meanwhile is safe. */
static void drop_owned(struct bf_handles *handles, uint32_t owner)
{
	for (unsigned kind = 1; kind < BF_HANDLE_KINDS; kind++) {
		struct bf_reverse *reverse = &handles->reverse[kind];
		for (size_t i = 0; reverse->live && i < reverse->size; i++) {
			uint64_t *pair = reverse->slot + 2 * i;
			if (pair[0] == 0 || pair[0] == GONE)
				continue;
			uint32_t index = (uint32_t)pair[1];
			struct bf_entry *entry = bf_handle_entry(handles, kind, index);
			if (!entry || (entry->owner != owner && entry->second != owner))
				continue;
			drop(handles, kind, index);
			drop_owned(handles, (uint32_t)kind << 24 | index);
		}
	}
}

void bf_handle_drop_owned(struct bf_handles *handles, uint64_t number)
{
	pthread_mutex_lock(&handles->lock);
	drop_owned(handles, bf_handle_pack(number));
	pthread_mutex_unlock(&handles->lock);
}

uint64_t bf_handle_known(struct bf_handles *handles, unsigned kind, uint64_t value)
{
	pthread_mutex_lock(&handles->lock);
	uint64_t *pair = value ? probe(&handles->reverse[kind], value, NULL) : NULL;
	uint64_t number = pair ? BF_HANDLE(kind, pair[1]) : 0;
	pthread_mutex_unlock(&handles->lock);
	return number;
}

uint64_t bf_handle_find(struct bf_handles *handles, unsigned kind, uint64_t value, uint64_t proposed, uint32_t owner)
{
	if (value == 0)
		return 0;
	pthread_mutex_lock(&handles->lock);
	uint64_t number = 0;
	uint64_t *pair = probe(&handles->reverse[kind], value, NULL);
	if (pair) {
		number = BF_HANDLE(kind, pair[1]);
	} else {
		bool ours = !bf_handle_is(proposed, kind);
		uint32_t index = BF_HANDLE_INDEX(proposed);
		if (ours && handles->minted[kind] < BF_MAX_HANDLES / 2)
			index = BF_MAX_HANDLES - ++handles->minted[kind];
		else if (ours)
			index = 0;
		if (index && bind(handles, kind, index, value, owner))
			number = BF_HANDLE(kind, index);
	}
	pthread_mutex_unlock(&handles->lock);
	return number;
}
