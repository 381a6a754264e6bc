/* SPDX-License-Identifier: Apache-2.0
 *
 * Which addresses mean something to CUDA, beside the arenas: pinned, registered, managed and mapped memory.
 */
#include "memory.h"

#include <stdlib.h>

struct tree host_ranges;

uint64_t range_next_id(void)
{
	static _Atomic uint64_t last;
	return ++last;
}

CUresult range_add_locked(struct range *range, int visible)
{
	/* neither end may lie in another range, nor may another lie inside */
	struct range *next = tree_after(&host_ranges, range->base);
	if (tree_find(&host_ranges, range->base) || (next && next->base - range->base < range->size))
		return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
	range->span = range->size;
	range->id = range_next_id();
	if (visible && sg_space_add(driver.space, range->base, range->size))
		return CUDA_ERROR_OUT_OF_MEMORY;
	range->visible = visible;
	tree_insert(&host_ranges, range);
	return CUDA_SUCCESS;
}

void range_drop_locked(struct range *range)
{
	if (range->visible)
		sg_space_remove(driver.space, range->base);
	tree_remove(&host_ranges, range);
	free(range);
}

CUresult range_add(uint64_t base, uint64_t size, enum range_kind kind, struct context *context, unsigned flags)
{
	struct range *range = calloc(1, sizeof *range);
	if (!range)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*range = (struct range){ .base = base, .size = size, .kind = kind, .context = context, .flags = flags };
	range->device = context ? context->device->index : 0;
	pthread_mutex_lock(&memory_lock);
	CUresult result = range_add_locked(range, 1);
	pthread_mutex_unlock(&memory_lock);
	if (result != CUDA_SUCCESS)
		free(range);
	return result;
}

struct range *range_find_locked(uint64_t address)
{
	for (int i = 0; i < driver.device_count; i++) {
		struct arena *arena = driver.devices[i].arena;
		if (address < arena->base || address - arena->base >= arena->reserved)
			continue;
		struct range *range = tree_find(&arena->tree, address);
		return range && range->kind != RANGE_FREE ? range : NULL;
	}
	return tree_find(&host_ranges, address);
}

int range_lookup(uint64_t address, struct range *copy)
{
	pthread_mutex_lock(&memory_lock);
	struct range *range = range_find_locked(address);
	if (range)
		*copy = *range;
	pthread_mutex_unlock(&memory_lock);
	return range != NULL;
}

static int in_arena(uint64_t address)
{
	for (int i = 0; i < driver.device_count; i++) {
		const struct arena *arena = driver.devices[i].arena;
		if (address >= arena->base && address - arena->base < arena->reserved)
			return 1;
	}
	return 0;
}

static enum place place_locked(uint64_t address, uint64_t size)
{
	struct range *range = range_find_locked(address);
	if (!range)
		return in_arena(address) ? PLACE_INVALID : PLACE_PAGEABLE;
	/* mappings that follow each other are one memory to a copy */
	while (range->kind == RANGE_MAPPED && size > range->base + range->size - address) {
		size -= range->base + range->size - address;
		address = range->base + range->size;
		range = tree_find(&host_ranges, address);
		if (!range)
			return PLACE_INVALID;
	}
	int host = range->kind == RANGE_HOST || range->kind == RANGE_REGISTERED;
	if (range->kind == RANGE_RESERVED || range->kind == RANGE_FREE)
		return PLACE_INVALID;
	if (size > range->base + range->size - address)
		return host ? PLACE_PAGEABLE : PLACE_INVALID;
	return host ? PLACE_PINNED : PLACE_DEVICE;
}

enum place memory_place(uint64_t address, uint64_t size)
{
	pthread_mutex_lock(&memory_lock);
	enum place place = place_locked(address, size);
	pthread_mutex_unlock(&memory_lock);
	return place;
}

CUresult memory_check_device(uint64_t address, uint64_t size)
{
	enum place place = memory_place(address, size);
	return place == PLACE_DEVICE || place == PLACE_PINNED ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
