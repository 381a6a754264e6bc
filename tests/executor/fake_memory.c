/* SPDX-License-Identifier: Apache-2.0
 *
 * The fake driver's memory, and copies.
 */
#define _GNU_SOURCE
#include "fake_driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct memory {
	struct memory *next;
	uint8_t *at;
	size_t size;
	bool pooled;
} *memory;
size_t memory_used;

static struct memory **find(CUdeviceptr address, size_t size)
{
	for (struct memory **link = &memory; *link; link = &(*link)->next) {
		uint64_t at = (uint64_t)(uintptr_t)(*link)->at;
		if (address >= at && address - at <= (*link)->size && size <= (*link)->size - (address - at))
			return link;
	}
	return NULL;
}

bool valid(CUdeviceptr address, size_t size)
{
	pthread_mutex_lock(&lock);
	bool found = find(address, size) != NULL;
	pthread_mutex_unlock(&lock);
	return found;
}

CUresult take(CUdeviceptr *address, size_t size, bool pooled)
{
	if (!size)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&lock);
	if (pooled)
		pool_lends(size);
	struct memory *made = size <= MEMORY - memory_used ? calloc(1, sizeof(*made)) : NULL;
	if (made) {
		made->at = aligned_alloc(256, (size + 255) / 256 * 256);
		memset(made->at, 0, size);
		made->size = size;
		made->pooled = pooled;
		made->next = memory;
		memory = made;
		memory_used += size;
		if (pooled)
			pool_takes(size);
		*address = (CUdeviceptr)(uintptr_t)made->at;
	}
	pthread_mutex_unlock(&lock);
	return made ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t size)
{
	ENTER();
	NEED_CONTEXT();
	return take(address, size, false);
}

CUresult cuMemAllocPitch_v2(CUdeviceptr *address, size_t *pitch, size_t width, size_t height, unsigned element)
{
	*pitch = (width + 255) / 256 * 256;
	return cuMemAlloc_v2(address, *pitch * height);
}

bool give_back(CUdeviceptr address)
{
	struct memory **link = find(address, 0), *gone = link ? *link : NULL;
	if (!gone || (CUdeviceptr)(uintptr_t)gone->at != address)
		return false;
	*link = gone->next;
	if (gone->pooled)
		pool_keeps(gone->size);
	else
		memory_used -= gone->size;
	free(gone->at);
	free(gone);
	return true;
}

CUresult cuMemFree_v2(CUdeviceptr address)
{
	ENTER();
	NEED_CONTEXT();
	if (!address)
		return CUDA_SUCCESS;
	pthread_mutex_lock(&lock);
	wait_idle();
	struct memory **found = find(address, 0);
	if (found && (*found)->pooled)
		pool_frees((*found)->size);
	bool given = give_back(address);
	pthread_mutex_unlock(&lock);
	const char *slow_us = getenv("FAKE_SLOW_FREE");
	if (slow_us)
		usleep((useconds_t)atoi(slow_us));
	return given ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemFreeAsync(CUdeviceptr address, CUstream stream)
{
	ENTER();
	NEED_CONTEXT();
	pthread_mutex_lock(&lock);
	struct memory **found = find(address, 0);
	if (found && (*found)->pooled)
		pool_frees((*found)->size);
	pthread_mutex_unlock(&lock);
	if (!found)
		return CUDA_ERROR_INVALID_VALUE;
	return add(stream, (struct work){ .what = FREE, .to = (void *)(uintptr_t)address });
}

CUresult cuMemGetInfo_v2(size_t *free, size_t *total)
{
	ENTER();
	NEED_CONTEXT();
	/* FAKE_NEIGHBOUR: somebody else takes a quarter of what is left, each time */
	static _Atomic size_t others;
	if (getenv("FAKE_NEIGHBOUR"))
		others += (MEMORY - memory_used - others) / 4;
	*free = MEMORY - memory_used - others;
	*total = MEMORY;
	return CUDA_SUCCESS;
}

static struct pinned {
	struct pinned *next;
	const uint8_t *at;
	size_t size;
} *pinned;

CUresult cuMemHostRegister_v2(void *at, size_t size, unsigned flags)
{
	ENTER();
	struct pinned *made = malloc(sizeof(*made));
	pthread_mutex_lock(&lock);
	*made = (struct pinned){ pinned, at, size };
	pinned = made;
	pthread_mutex_unlock(&lock);
	return CUDA_SUCCESS;
}

static bool is_pinned(const uint8_t *at)
{
	pthread_mutex_lock(&lock);
	struct pinned *found = pinned;
	while (found && (at < found->at || at >= found->at + found->size))
		found = found->next;
	pthread_mutex_unlock(&lock);
	return found;
}

/* What is not registered is captured at once, as a real driver does with pageable memory. */
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t size, CUstream stream)
{
	ENTER();
	NEED_CONTEXT();
	if (!valid(to, size))
		return CUDA_ERROR_INVALID_VALUE;
	void *owned = NULL;
	if (!is_pinned(from))
		from = owned = memcpy(malloc(size + 1), from, size);
	return add(
		stream,
		(struct work){ .what = COPY, .to = (void *)(uintptr_t)to, .from = from, .size = size, .owned = owned });
}

CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t size, CUstream stream)
{
	ENTER();
	NEED_CONTEXT();
	if (!valid(from, size))
		return CUDA_ERROR_INVALID_VALUE;
	return add(stream,
		   (struct work){ .what = COPY, .to = to, .from = (const void *)(uintptr_t)from, .size = size });
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t size, CUstream stream)
{
	ENTER();
	NEED_CONTEXT();
	if (!valid(to, size))
		return CUDA_ERROR_INVALID_VALUE;
	return add(stream, (struct work){ .what = FILL, .to = (void *)(uintptr_t)to, .number = value, .size = size });
}

static void copy_rows(const CUDA_MEMCPY3D_v2 *c, uint8_t *to, const uint8_t *from)
{
	for (size_t z = 0; z < c->Depth; z++) {
		for (size_t y = 0; y < c->Height; y++) {
			size_t t = ((c->dstZ + z) * c->dstHeight + c->dstY + y) * c->dstPitch + c->dstXInBytes;
			size_t f = ((c->srcZ + z) * c->srcHeight + c->srcY + y) * c->srcPitch + c->srcXInBytes;
			memcpy(to + t, from + f, c->WidthInBytes);
		}
	}
}

/* In order, but at once. */
CUresult cuMemcpy3DAsync_v2(const CUDA_MEMCPY3D_v2 *c, CUstream stream)
{
	ENTER();
	NEED_CONTEXT();
	size_t rows = c->Depth * c->Height;
	if ((c->dstMemoryType == CU_MEMORYTYPE_DEVICE && !valid(c->dstDevice, rows * c->dstPitch)) ||
	    (c->srcMemoryType == CU_MEMORYTYPE_DEVICE && !valid(c->srcDevice, rows * c->srcPitch)))
		return CUDA_ERROR_INVALID_VALUE;
	wait_for(stream_of(stream));
	uint8_t *to = c->dstMemoryType == CU_MEMORYTYPE_HOST ? c->dstHost : (uint8_t *)(uintptr_t)c->dstDevice;
	const uint8_t *from =
		c->srcMemoryType == CU_MEMORYTYPE_HOST ? c->srcHost : (const uint8_t *)(uintptr_t)c->srcDevice;
	copy_rows(c, to, from);
	return CUDA_SUCCESS;
}
