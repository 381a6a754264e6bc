/* SPDX-License-Identifier: Apache-2.0
 *
 * Allocations of device memory.
 */
#include "memory.h"
#include "queue.h"

EXPORT CUresult cuMemGetInfo_v2(size_t *free, size_t *total)
{
	ENTER_CONTEXT(context);
	if (!free || !total)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&memory_lock);
	*total = context->device->arena->limit;
	*free = *total - context->device->arena->used;
	pthread_mutex_unlock(&memory_lock);
	return CUDA_SUCCESS;
}

EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *dptr, size_t bytesize)
{
	ENTER_CONTEXT(context);
	if (!dptr || !bytesize)
		return CUDA_ERROR_INVALID_VALUE;
	TRY(capture_check_unsafe());
	uint64_t address;
	TRY(arena_allocate(context->device, bytesize, RANGE_DEVICE, context, NULL, &address));
	*dptr = address;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuMemAllocPitch_v2(CUdeviceptr *dptr, size_t *pPitch, size_t WidthInBytes, size_t Height,
				   unsigned int ElementSizeBytes)
{
	ENTER_CONTEXT(context);
	if (!dptr || !pPitch || !WidthInBytes || !Height)
		return CUDA_ERROR_INVALID_VALUE;
	if (ElementSizeBytes != 4 && ElementSizeBytes != 8 && ElementSizeBytes != 16)
		return CUDA_ERROR_INVALID_VALUE;
	size_t pitch = (WidthInBytes + 511) & ~(size_t)511, bytes;
	if (__builtin_mul_overflow(pitch, Height, &bytes))
		return CUDA_ERROR_OUT_OF_MEMORY;
	TRY(cuMemAlloc_v2(dptr, bytes));
	*pPitch = pitch;
	return CUDA_SUCCESS;
}

/* What queued work may still use must not go away: like the real call, this one waits. */
static CUresult wait_for_users(const struct range *range)
{
	if (range->context && range->context->alive)
		return context_synchronize(range->context);
	return CUDA_SUCCESS;
}

EXPORT CUresult cuMemFree_v2(CUdeviceptr dptr)
{
	ENTER_CONTEXT(context);
	struct range range;
	if (!dptr)
		return CUDA_SUCCESS;
	TRY(capture_check_unsafe());
	if (!range_lookup(dptr, &range) || range.base != dptr)
		return CUDA_ERROR_INVALID_VALUE;
	switch (range.kind) {
	case RANGE_DEVICE: TRY(wait_for_users(&range)); return arena_free(dptr, RANGE_DEVICE);
	case RANGE_POOL: TRY(wait_for_users(&range)); return pool_free_now(dptr);
	case RANGE_MANAGED: TRY(wait_for_users(&range)); return managed_free(dptr);
	default: return CUDA_ERROR_INVALID_VALUE;
	}
}

EXPORT CUresult cuMemGetAddressRange_v2(CUdeviceptr *pbase, size_t *psize, CUdeviceptr dptr)
{
	ENTER_CONTEXT(context);
	struct range range;
	if (!range_lookup(dptr, &range) || range.kind == RANGE_RESERVED)
		return CUDA_ERROR_NOT_FOUND;
	if (pbase)
		*pbase = range.base;
	if (psize)
		*psize = range.size;
	return CUDA_SUCCESS;
}
