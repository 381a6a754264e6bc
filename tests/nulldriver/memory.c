/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory of the null driver: host memory at addresses far from the program's own. Blocks are powers of two; a freed
 * block is kept for the next allocation of its size, so that allocating costs nothing worth measuring.
 */
#define _GNU_SOURCE
#include "hostview.h"
#include "null.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { CLASSES = 41, LEAST_CLASS = 9, MAX_BLOCKS = 1 << 20 };
#ifdef __SANITIZE_THREAD__ /* which leaves a program few addresses */
#define ARENA_BASE 0x550000000000ull
#define ARENA_SIZE ((uint64_t)1 << 32)
#else
#define ARENA_BASE 0x200000000000ull
#define ARENA_SIZE ((uint64_t)1 << 40)
#endif

struct block {
	uint64_t base, size; /* size 0: free */
	unsigned class, next_free;
};

/* Blocks in the order of their addresses: they are carved from the arena one after another. */
static struct arena {
	uint64_t end, used;
	struct block *blocks;
	unsigned count, free[CLASSES];
} arenas[NULL_DEVICES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int arena_open(struct arena *arena)
{
	uint64_t base = ARENA_BASE + (uint64_t)(arena - arenas) * ARENA_SIZE;
	void *memory;

	if (arena->blocks)
		return 0;
	memory = mmap((void *)(uintptr_t)base, ARENA_SIZE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED)
		return -1;
	madvise(memory, ARENA_SIZE, MADV_HUGEPAGE);
	/* Index 0 is never used: it ends the free lists. */
	arena->blocks = mmap(NULL, sizeof *arena->blocks * MAX_BLOCKS, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	arena->count = 1;
	arena->end = (uint64_t)(uintptr_t)memory;
	return arena->blocks == MAP_FAILED ? -1 : 0;
}

static CUresult allocate(struct arena *arena, uint64_t size, CUdeviceptr *address)
{
	unsigned class = LEAST_CLASS, index;
	struct block *block;

	while (class < CLASSES - 1 && (uint64_t)1 << class < size)
		class++;
	if (arena_open(arena) || arena->used + size > NULL_MEMORY || (uint64_t)1 << class < size)
		return CUDA_ERROR_OUT_OF_MEMORY;
	index = arena->free[class];
	block = &arena->blocks[index ? index : arena->count];
	if (index) {
		arena->free[class] = block->next_free;
	} else {
		uint64_t limit = ARENA_BASE + (uint64_t)(arena - arenas + 1) * ARENA_SIZE;

		if (arena->count == MAX_BLOCKS || arena->end + ((uint64_t)1 << class) > limit)
			return CUDA_ERROR_OUT_OF_MEMORY;
		*block = (struct block){ .base = arena->end, .class = class };
		arena->end += (uint64_t)1 << class;
		arena->count++;
	}
	block->size = size;
	arena->used += size;
	*address = block->base;
	return CUDA_SUCCESS;
}

static struct block *find(uint64_t address, struct arena **found)
{
	for (struct arena *arena = arenas; arena < arenas + NULL_DEVICES; arena++) {
		unsigned low = 1, high = arena->count;

		while (low + 1 < high) {
			unsigned middle = (low + high) / 2;

			if (arena->blocks[middle].base <= address)
				low = middle;
			else
				high = middle;
		}
		if (low >= high || address - arena->blocks[low].base >= arena->blocks[low].size)
			continue;
		*found = arena;
		return &arena->blocks[low];
	}
	return NULL;
}

CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t size)
{
	CUresult status;

	NULL_ENTER();
	if (!size)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&lock);
	status = allocate(&arenas[null_current_device()], size, address);
	pthread_mutex_unlock(&lock);
	return status;
}

CUresult cuMemFree_v2(CUdeviceptr address)
{
	CUresult status = CUDA_ERROR_INVALID_VALUE;
	struct arena *arena;
	struct block *block;

	NULL_ENTER();
	if (!address)
		return CUDA_SUCCESS;
	pthread_mutex_lock(&lock);
	block = find(address, &arena);
	if (block && block->base == address) {
		arena->used -= block->size;
		block->size = 0;
		block->next_free = arena->free[block->class];
		arena->free[block->class] = (unsigned)(block - arena->blocks);
		if (block->class > 22)
			madvise((void *)(uintptr_t)address, (size_t)1 << block->class, MADV_DONTNEED);
		status = CUDA_SUCCESS;
	}
	pthread_mutex_unlock(&lock);
	return status;
}

CUresult cuMemAllocAsync(CUdeviceptr *address, size_t size, CUstream stream)
{
	return cuMemAlloc_v2(address, size);
}

CUresult cuMemAllocFromPoolAsync(CUdeviceptr *address, size_t size, CUmemoryPool pool, CUstream stream)
{
	return cuMemAlloc_v2(address, size);
}

CUresult cuMemFreeAsync(CUdeviceptr address, CUstream stream)
{
	return cuMemFree_v2(address);
}

CUresult cuMemAllocManaged(CUdeviceptr *address, size_t size, unsigned int flags)
{
	return cuMemAlloc_v2(address, size);
}

CUresult cuMemAllocPitch_v2(CUdeviceptr *address, size_t *pitch, size_t width, size_t height, unsigned int element)
{
	*pitch = (width + 511) & ~(size_t)511;
	return cuMemAlloc_v2(address, *pitch * height);
}

CUresult cuMemGetInfo_v2(size_t *available, size_t *total)
{
	NULL_ENTER();
	*total = NULL_MEMORY;
	*available = NULL_MEMORY - arenas[null_current_device()].used;
	return CUDA_SUCCESS;
}

CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *size, CUdeviceptr address)
{
	struct arena *arena;
	struct block *block;

	NULL_ENTER();
	pthread_mutex_lock(&lock);
	block = find(address, &arena);
	if (block && base)
		*base = block->base;
	if (block && size)
		*size = block->size;
	pthread_mutex_unlock(&lock);
	return block ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

/* Of all attributes only the one that says where the bytes are: the proxy answers the others by itself. */
CUresult cuPointerGetAttribute(void *data, CUpointer_attribute attribute, CUdeviceptr ptr)
{
	struct bf_host_view *view = data;
	struct arena *arena;
	struct block *block;

	NULL_ENTER();
	if (attribute != BF_POINTER_ATTRIBUTE_HOST_VIEW)
		return CUDA_SUCCESS;
	pthread_mutex_lock(&lock);
	block = find(ptr, &arena);
	if (block)
		*view = (struct bf_host_view){ (void *)(uintptr_t)ptr, block->base + block->size - ptr };
	pthread_mutex_unlock(&lock);
	return block ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* ------------------------------------------------------------------ host memory */

CUresult cuMemHostAlloc(void **memory, size_t size, unsigned int flags)
{
	NULL_ENTER();
	*memory = aligned_alloc(4096, (size + 4095) & ~(size_t)4095);
	return *memory ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuMemAllocHost_v2(void **memory, size_t size)
{
	return cuMemHostAlloc(memory, size, 0);
}

CUresult cuMemFreeHost(void *memory)
{
	NULL_ENTER();
	free(memory);
	return CUDA_SUCCESS;
}

CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *address, void *memory, unsigned int flags)
{
	NULL_ENTER();
	*address = (uintptr_t)memory;
	return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------ copies and fills */

static void *at(CUdeviceptr address)
{
	return (void *)(uintptr_t)address;
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t size)
{
	NULL_ENTER();
	memcpy(at(to), from, size);
	return CUDA_SUCCESS;
}

CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t size)
{
	NULL_ENTER();
	memcpy(to, at(from), size);
	return CUDA_SUCCESS;
}

CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t size)
{
	NULL_ENTER();
	memmove(at(to), at(from), size);
	return CUDA_SUCCESS;
}

CUresult cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t size)
{
	return cuMemcpyDtoD_v2(to, from, size);
}

CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream)
{
	return cuMemcpyDtoD_v2(to, from, size);
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t size, CUstream stream)
{
	return cuMemcpyHtoD_v2(to, from, size);
}

CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t size, CUstream stream)
{
	return cuMemcpyDtoH_v2(to, from, size);
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream)
{
	return cuMemcpyDtoD_v2(to, from, size);
}

CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t count)
{
	NULL_ENTER();
	memset(at(to), value, count);
	return CUDA_SUCCESS;
}

CUresult cuMemsetD16_v2(CUdeviceptr to, unsigned short value, size_t count)
{
	unsigned short *words = at(to);

	NULL_ENTER();
	for (size_t i = 0; i < count; i++)
		words[i] = value;
	return CUDA_SUCCESS;
}

CUresult cuMemsetD32_v2(CUdeviceptr to, unsigned int value, size_t count)
{
	unsigned int *words = at(to);

	NULL_ENTER();
	for (size_t i = 0; i < count; i++)
		words[i] = value;
	return CUDA_SUCCESS;
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream stream)
{
	return cuMemsetD8_v2(to, value, count);
}

CUresult cuMemsetD16Async(CUdeviceptr to, unsigned short value, size_t count, CUstream stream)
{
	return cuMemsetD16_v2(to, value, count);
}

CUresult cuMemsetD32Async(CUdeviceptr to, unsigned int value, size_t count, CUstream stream)
{
	return cuMemsetD32_v2(to, value, count);
}

static char *side(CUmemorytype type, const void *host, CUdeviceptr device, size_t pitch, size_t y, size_t x)
{
	return (type == CU_MEMORYTYPE_HOST ? (char *)(uintptr_t)host : (char *)at(device)) + y * pitch + x;
}

CUresult cuMemcpy3D_v2(const CUDA_MEMCPY3D *c)
{
	NULL_ENTER();
	if (c->srcMemoryType == CU_MEMORYTYPE_ARRAY || c->dstMemoryType == CU_MEMORYTYPE_ARRAY)
		return CUDA_SUCCESS;
	for (size_t z = 0; z < c->Depth; z++)
		for (size_t y = 0; y < c->Height; y++)
			memmove(side(c->dstMemoryType, c->dstHost, c->dstDevice, c->dstPitch,
				     (c->dstZ + z) * c->dstHeight + c->dstY + y, c->dstXInBytes),
				side(c->srcMemoryType, c->srcHost, c->srcDevice, c->srcPitch,
				     (c->srcZ + z) * c->srcHeight + c->srcY + y, c->srcXInBytes),
				c->WidthInBytes);
	return CUDA_SUCCESS;
}

CUresult cuMemcpy3DAsync_v2(const CUDA_MEMCPY3D *c, CUstream stream)
{
	return cuMemcpy3D_v2(c);
}

CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D *c)
{
	NULL_ENTER();
	if (c->srcMemoryType == CU_MEMORYTYPE_ARRAY || c->dstMemoryType == CU_MEMORYTYPE_ARRAY)
		return CUDA_SUCCESS;
	for (size_t y = 0; y < c->Height; y++)
		memmove(side(c->dstMemoryType, c->dstHost, c->dstDevice, c->dstPitch, c->dstY + y, c->dstXInBytes),
			side(c->srcMemoryType, c->srcHost, c->srcDevice, c->srcPitch, c->srcY + y, c->srcXInBytes),
			c->WidthInBytes);
	return CUDA_SUCCESS;
}

CUresult cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D *c)
{
	return cuMemcpy2D_v2(c);
}

CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *c, CUstream stream)
{
	return cuMemcpy2D_v2(c);
}
