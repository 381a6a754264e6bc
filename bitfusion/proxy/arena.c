/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory of this process at addresses that the server has reserved too. It costs the server nothing until it is
 * backed, block by block: a block is what a driver maps at once. Small pieces share one.
 */
#define _GNU_SOURCE
#include "shared.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#define PAGE ((size_t)4096)
#define BLOCK ((size_t)2 << 20) /* the granularity of every driver so far */
enum { PAGES = BLOCK / PAGE, SMALL = PAGES / 2 };

struct block {
	struct block *next;
	uint8_t *base;
	size_t size;
	CUmemGenericAllocationHandle physical; /* 0: not backed */
	unsigned used;    /* pages */
	bool taken[PAGES];                     /* of a block that small pieces share */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct block *blocks;
_Atomic uint64_t bf_arena_low = UINT64_MAX, bf_arena_high;

static size_t pages_of(size_t size)
{
	return (size + PAGE - 1) / PAGE;
}

/* ------------------------------------------------------------------ blocks, with the lock held */

/* The reservation holds the addresses here already, except under a sanitizer: see map.c. */
static bool make_usable(uint64_t base, size_t size)
{
	void *place = (void *)(uintptr_t)base, *got;

	if (BF_MAP_MAY_RESERVE)
		return !mprotect(place, size, PROT_READ | PROT_WRITE);
	got = mmap(place, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (got != MAP_FAILED && got != place)
		munmap(got, size);
	return got == place;
}

/* Where a sanitizer may have its tables at the driver's addresses, this process proposes some. */
static uint64_t propose(size_t size)
{
	return BF_MAP_MAY_RESERVE ? 0 : bf_map_find_free(size, BLOCK);
}

static void widen(uint64_t base, size_t size)
{
	if (base < atomic_load(&bf_arena_low))
		atomic_store(&bf_arena_low, base);
	if (base + size > atomic_load(&bf_arena_high))
		atomic_store(&bf_arena_high, base + size);
}

/* Another thread may take what this process has proposed. */
static CUdeviceptr reserve(size_t size)
{
	CUdeviceptr base;

	for (int tries = BF_MAP_MAY_RESERVE ? 1 : 16; tries > 0; tries--) {
		if (cuMemAddressReserve(&base, size, BLOCK, propose(size), 0))
			return 0;
		if (make_usable(base, size))
			return base;
		cuMemAddressFree(base, size);
	}
	return 0;
}

static struct block *new_block(size_t size)
{
	struct block *block = calloc(1, sizeof *block);
	CUdeviceptr base = block ? reserve(size) : 0;

	if (!base) {
		free(block);
		return NULL;
	}
	block->base = (uint8_t *)(uintptr_t)base;
	block->size = size;
	block->next = blocks;
	blocks = block;
	widen(base, size);
	return block;
}

static void free_block(struct block *block)
{
	struct block **link = &blocks;

	while (*link != block)
		link = &(*link)->next;
	*link = block->next;
	if (block->physical) {
		BF_CALL(cuMemUnmap, BF_ARG(block->base), block->size);
		BF_CALL(cuMemRelease, block->physical);
	}
	cuMemAddressFree(BF_ARG(block->base), block->size);
	if (!BF_MAP_MAY_RESERVE)
		munmap(block->base, block->size);
	free(block);
}

static struct block *find(const void *memory)
{
	struct block *block = blocks;

	while (block && BF_ARG(memory) - BF_ARG(block->base) >= block->size)
		block = block->next;
	return block;
}

/* ------------------------------------------------------------------ pieces */

/* Index of the first of that many free pages, or -1. */
static int find_pages(const struct block *block, size_t count)
{
	size_t found = 0;

	for (int i = 0; i < PAGES; i++) {
		found = block->taken[i] ? 0 : found + 1;
		if (found == count)
			return i + 1 - (int)count;
	}
	return -1;
}

static void mark(struct block *block, size_t first, size_t count, bool taken)
{
	memset(block->taken + first, taken, count);
	block->used = taken ? block->used + (unsigned)count : block->used - (unsigned)count;
}

static void *take_small(size_t count)
{
	struct block *block = blocks;
	int first = -1;

	for (; block; block = block->next)
		if (block->size == BLOCK && (first = find_pages(block, count)) >= 0)
			break;
	if (!block) {
		block = new_block(BLOCK);
		first = 0;
	}
	if (!block)
		return NULL;
	mark(block, (size_t)first, count, true);
	return block->base + (size_t)first * PAGE;
}

static void *take_large(size_t size)
{
	struct block *block;

	if (size + BLOCK < size)
		return NULL;
	block = new_block((size + BLOCK - 1) & ~(BLOCK - 1));
	if (!block)
		return NULL;
	mark(block, 0, PAGES, true);
	return block->base;
}

void *bf_arena_take(size_t size)
{
	void *memory;

	pthread_mutex_lock(&lock);
	memory = pages_of(size) <= SMALL ? take_small(pages_of(size)) : take_large(size);
	pthread_mutex_unlock(&lock);
	if (memory)
		atomic_store(&bf_shared_used, true);
	return memory;
}

void bf_arena_give(void *memory, size_t size)
{
	struct block *block;

	pthread_mutex_lock(&lock);
	block = find(memory);
	if (block && pages_of(size) <= SMALL) {
		madvise(memory, pages_of(size) * PAGE, MADV_DONTNEED); /* zeros for the next one */
		mark(block, (size_t)((uint8_t *)memory - block->base) / PAGE, pages_of(size), false);
	} else if (block) {
		block->used = 0;
	}
	if (block && !block->used)
		free_block(block);
	pthread_mutex_unlock(&lock);
}

/* ------------------------------------------------------------------ memory of the server's */

static CUresult grant(const struct block *block, CUdevice device)
{
	CUmemAccessDesc access[BF_MAX_DEVICES];
	unsigned count = bf_device_count();

	for (unsigned i = 0; i < count; i++)
		access[i] = (CUmemAccessDesc){ { .type = CU_MEM_LOCATION_TYPE_DEVICE, .id = (int)i },
					       CU_MEM_ACCESS_FLAGS_PROT_READWRITE };
	if (!BF_CALL(cuMemSetAccess, BF_ARG(block->base), block->size, BF_ARG(access), count))
		return CUDA_SUCCESS;
	access[0].location.id = device; /* not all of them are peers */
	return BF_CALL(cuMemSetAccess, BF_ARG(block->base), block->size, BF_ARG(access), 1);
}

static CUresult back(struct block *block)
{
	CUdevice device = bf_context_at(bf_self.current)->device;
	CUmemAllocationProp properties = { .type = CU_MEM_ALLOCATION_TYPE_PINNED,
					   .location = { .type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device } };
	CUmemGenericAllocationHandle physical = 0;
	CUresult status = BF_CALL(cuMemCreate, BF_ARG(&physical), block->size, BF_ARG(&properties), 0);

	if (status)
		return status;
	status = BF_CALL(cuMemMap, BF_ARG(block->base), block->size, 0, physical, 0);
	if (!status) {
		status = grant(block, device);
		if (status)
			BF_CALL(cuMemUnmap, BF_ARG(block->base), block->size);
	}
	if (status)
		BF_CALL(cuMemRelease, physical);
	else
		block->physical = physical;
	return status;
}

bool bf_arena_holds(const void *memory)
{
	bool holds;

	pthread_mutex_lock(&lock);
	holds = find(memory);
	pthread_mutex_unlock(&lock);
	return holds;
}

CUresult bf_arena_back(const void *memory)
{
	CUresult status = CUDA_ERROR_NOT_SUPPORTED;
	struct block *block;

	pthread_mutex_lock(&lock);
	block = find(memory);
	if (block)
		status = block->physical ? CUDA_SUCCESS : back(block);
	pthread_mutex_unlock(&lock);
	return status;
}
