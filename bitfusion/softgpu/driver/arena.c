/* SPDX-License-Identifier: Apache-2.0
 *
 * The memory of a device: one reserved range of addresses far from any of the program's, whose pages come
 * into being when they are first touched and go back when a large allocation is freed.
 */
#include "memory.h"

#include <stdlib.h>
#include <sys/mman.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

#define ARENA_BASE 0x200000000000ull
#define ARENA_STRIDE ((uint64_t)1 << 40)

enum { ALIGNMENT = 512, PAGE = 4096, GIVE_BACK = 64 << 10 };

pthread_mutex_t memory_lock = PTHREAD_MUTEX_INITIALIZER;

/* Holes between live allocations must not make the device full, which a GPU's page tables prevent there. */
static uint64_t address_space(uint64_t memory)
{
	return memory * 4 < ARENA_STRIDE / 2 ? memory * 4 : ARENA_STRIDE / 2;
}

CUresult arena_create(struct arena **result, const struct device *device)
{
	struct arena *arena = calloc(1, sizeof *arena);
	struct range *all = calloc(1, sizeof *all);
	uint64_t wanted = ARENA_BASE + (uint64_t)device->index * ARENA_STRIDE;
	uint64_t size = address_space(device->memory);
	int protection = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	if (!arena || !all)
		goto fail;
	void *base = MAP_FAILED;
#ifndef __SANITIZE_THREAD__ /* which keeps these addresses to itself */
	base = mmap((void *)wanted, size, protection, flags | MAP_FIXED_NOREPLACE, -1, 0);
#endif
	if (base == MAP_FAILED)
		base = mmap((void *)wanted, size, protection, flags, -1, 0);
	if (base == MAP_FAILED)
		goto fail;
	madvise(base, size, MADV_DONTDUMP);
	*arena = (struct arena){ .base = (uint64_t)base, .reserved = size, .limit = device->memory };
	*all = (struct range){ .base = (uint64_t)base, .span = size, .kind = RANGE_FREE };
	tree_insert(&arena->tree, all);
	*result = arena;
	return CUDA_SUCCESS;
fail:
	free(arena);
	free(all);
	return CUDA_ERROR_OUT_OF_MEMORY;
}

/* Cuts `span` bytes off the beginning of a free range. */
static struct range *carve(struct arena *arena, uint64_t span)
{
	struct range *range = tree_first_fit(&arena->tree, span);
	if (!range || range->span == span)
		return range;
	struct range *rest = calloc(1, sizeof *rest);
	if (!rest)
		return NULL;
	*rest = (struct range){ .base = range->base + span, .span = range->span - span, .kind = RANGE_FREE };
	range->span = span;
	tree_changed(&arena->tree, range);
	tree_insert(&arena->tree, rest);
	return range;
}

static void join(struct arena *arena, struct range *low, struct range *high)
{
	tree_remove(&arena->tree, high);
	low->span += high->span;
	tree_changed(&arena->tree, low);
	free(high);
}

static void release(struct arena *arena, struct range *range)
{
	uint64_t base = range->base, span = range->span;
	range->kind = RANGE_FREE;
	tree_changed(&arena->tree, range);
	struct range *next = tree_after(&arena->tree, range->base), *before = tree_before(&arena->tree, range->base);
	if (next && next->kind == RANGE_FREE)
		join(arena, range, next);
	if (before && before->kind == RANGE_FREE) {
		join(arena, before, range);
		range = before;
	}
	if (span < GIVE_BACK)
		return;
	/* the pages it shared with free neighbours go too */
	uint64_t from = base & ~(uint64_t)(PAGE - 1), to = (base + span + PAGE - 1) & ~(uint64_t)(PAGE - 1);
	if (from < range->base)
		from += PAGE;
	if (to > range->base + range->span)
		to -= PAGE;
	madvise((void *)from, to - from, MADV_DONTNEED);
}

/* What pools keep makes room. */
static int take_locked(struct device *device, uint64_t bytes)
{
	struct arena *arena = device->arena;
	for (struct pool *pool = device->pools; pool && bytes > arena->limit - arena->used; pool = pool->next)
		pool_gives(pool, UINT64_MAX);
	if (bytes > arena->limit - arena->used)
		return 0;
	arena->used += bytes;
	return 1;
}

int arena_take(struct device *device, uint64_t bytes)
{
	pthread_mutex_lock(&memory_lock);
	int taken = take_locked(device, bytes);
	pthread_mutex_unlock(&memory_lock);
	return taken;
}

void arena_give(struct device *device, uint64_t bytes)
{
	pthread_mutex_lock(&memory_lock);
	device->arena->used -= bytes;
	pthread_mutex_unlock(&memory_lock);
}

static CUresult allocate_locked(struct device *device, uint64_t size, struct pool *pool, struct range **result)
{
	struct arena *arena = device->arena;
	uint64_t span = (size + ALIGNMENT - 1) & ~(uint64_t)(ALIGNMENT - 1);
	if (pool)
		pool_gives(pool, span);
	if (span < size || !take_locked(device, span))
		return CUDA_ERROR_OUT_OF_MEMORY;
	struct range *range = carve(arena, span);
	if (!range || sg_space_add(driver.space, range->base, size)) {
		arena->used -= span;
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	*result = range;
	return CUDA_SUCCESS;
}

CUresult arena_allocate(struct device *device, uint64_t size, enum range_kind kind, struct context *context,
			struct pool *pool, uint64_t *address)
{
	struct range *range;
	pthread_mutex_lock(&memory_lock);
	CUresult result = allocate_locked(device, size, pool, &range);
	if (result == CUDA_SUCCESS) {
		if (pool)
			pool_takes(pool, range->span);
		range->size = size;
		range->kind = kind;
		range->id = range_next_id();
		range->device = device->index;
		range->context = context;
		range->pool = pool;
		range->flags = 0;
		range->sync_memops = 0;
		range->ending = 0;
		tree_changed(&device->arena->tree, range);
		*address = range->base;
	}
	pthread_mutex_unlock(&memory_lock);
	return result;
}

CUresult arena_free(uint64_t address, enum range_kind kind)
{
	CUresult result = CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&memory_lock);
	for (int i = 0; i < driver.device_count; i++) {
		struct arena *arena = driver.devices[i].arena;
		if (address < arena->base || address - arena->base >= arena->reserved)
			continue;
		struct range *range = tree_find(&arena->tree, address);
		if (!range || range->base != address || range->kind != kind)
			break;
		sg_space_remove(driver.space, address);
		arena->used -= range->span;
		if (kind == RANGE_POOL)
			pool_keeps(range->pool, range->span);
		release(arena, range);
		result = CUDA_SUCCESS;
		break;
	}
	pthread_mutex_unlock(&memory_lock);
	return result;
}
