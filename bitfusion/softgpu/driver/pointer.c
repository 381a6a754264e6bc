/* SPDX-License-Identifier: Apache-2.0
 *
 * What an address is.
 */
#include "hostview.h"
#include "memory.h"
#include "queue.h"

#include <string.h>

static int is_host(const struct range *range)
{
	return range->kind == RANGE_HOST || range->kind == RANGE_REGISTERED;
}

#define PUT(type, value) (*(type *)data = (type)(value), CUDA_SUCCESS)

/* Of plain device memory only: nothing else has its bytes where the device address says, come what may. */
static CUresult host_view(const struct range *range, uint64_t address, struct bf_host_view *view)
{
	if (range->kind != RANGE_DEVICE && range->kind != RANGE_POOL && range->kind != RANGE_GLOBAL)
		return CUDA_ERROR_INVALID_VALUE;
	view->data = (void *)(uintptr_t)address;
	view->size = range->base + range->size - address;
	return CUDA_SUCCESS;
}

static CUresult attribute_of(const struct range *range, uint64_t address, CUpointer_attribute attribute, void *data)
{
	switch ((int)attribute) {
	case CU_POINTER_ATTRIBUTE_CONTEXT: return PUT(CUcontext, (CUcontext)range->context);
	case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
		return PUT(unsigned, is_host(range) ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE);
	case CU_POINTER_ATTRIBUTE_DEVICE_POINTER: return PUT(CUdeviceptr, address);
	case CU_POINTER_ATTRIBUTE_HOST_POINTER:
		if (!is_host(range) && range->kind != RANGE_MANAGED)
			return CUDA_ERROR_INVALID_VALUE;
		return PUT(void *, (uintptr_t)address);
	case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS: return PUT(int, range->sync_memops);
	case CU_POINTER_ATTRIBUTE_BUFFER_ID: return PUT(unsigned long long, range->id);
	case CU_POINTER_ATTRIBUTE_IS_MANAGED: return PUT(int, range->kind == RANGE_MANAGED);
	case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL: return PUT(int, range->device);
	case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE: return PUT(int, 0);
	case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR: return PUT(CUdeviceptr, range->base);
	case CU_POINTER_ATTRIBUTE_RANGE_SIZE: return PUT(size_t, range->size);
	case CU_POINTER_ATTRIBUTE_MAPPED: return PUT(int, range->kind != RANGE_RESERVED);
	case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES: return PUT(unsigned long long, 0);
	case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE: return PUT(int, 0);
	case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS: return PUT(unsigned, CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READWRITE);
	case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE: return PUT(CUmemoryPool, (CUmemoryPool)range->pool);
	case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID: return PUT(unsigned long long, range->id);
	case BF_POINTER_ATTRIBUTE_HOST_VIEW: return host_view(range, address, data);
	default: return CUDA_ERROR_INVALID_VALUE;
	}
}

EXPORT CUresult cuPointerGetAttribute(void *data, CUpointer_attribute attribute, CUdeviceptr ptr)
{
	ENTER();
	struct range range;
	if (!data || !range_lookup(ptr, &range))
		return CUDA_ERROR_INVALID_VALUE;
	return attribute_of(&range, ptr, attribute, data);
}

/* What is said of an address that CUDA does not know, or of an attribute that it does not have. */
static void put_nothing(CUpointer_attribute attribute, void *data)
{
	switch ((int)attribute) {
	case CU_POINTER_ATTRIBUTE_CONTEXT:
	case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
	case CU_POINTER_ATTRIBUTE_HOST_POINTER:
	case CU_POINTER_ATTRIBUTE_BUFFER_ID:
	case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
	case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
	case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
	case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
	case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID: *(uint64_t *)data = 0; break;
	case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL: *(int *)data = -2; break;
	default: *(int *)data = 0;
	}
}

EXPORT CUresult cuPointerGetAttributes(unsigned int numAttributes, CUpointer_attribute *attributes, void **data,
				       CUdeviceptr ptr)
{
	ENTER();
	struct range range;
	if (!numAttributes || !attributes || !data)
		return CUDA_ERROR_INVALID_VALUE;
	int known = range_lookup(ptr, &range);
	for (unsigned i = 0; i < numAttributes; i++) {
		if (!data[i])
			return CUDA_ERROR_INVALID_VALUE;
		if (!known || attribute_of(&range, ptr, attributes[i], data[i]) != CUDA_SUCCESS)
			put_nothing(attributes[i], data[i]);
	}
	return CUDA_SUCCESS;
}

EXPORT CUresult cuPointerSetAttribute(const void *value, CUpointer_attribute attribute, CUdeviceptr ptr)
{
	ENTER();
	if (!value || attribute != CU_POINTER_ATTRIBUTE_SYNC_MEMOPS)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&memory_lock);
	struct range *range = range_find_locked(ptr);
	if (range)
		range->sync_memops = *(const int *)value != 0;
	pthread_mutex_unlock(&memory_lock);
	return range ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* ------------------------------------------------------------------ managed memory: advice changes nothing */

static CUresult check_managed(CUdeviceptr address, size_t count)
{
	struct range range;
	if (!count || !range_lookup(address, &range) || range.kind != RANGE_MANAGED)
		return CUDA_ERROR_INVALID_VALUE;
	return count > range.base + range.size - address ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

static CUresult check_location(CUmemLocation location)
{
	if (location.type == CU_MEM_LOCATION_TYPE_DEVICE && !device_get(location.id))
		return CUDA_ERROR_INVALID_DEVICE;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuMemAdvise_v2(CUdeviceptr devPtr, size_t count, CUmem_advise advice, CUmemLocation location)
{
	ENTER_CONTEXT(context);
	if ((int)advice < CU_MEM_ADVISE_SET_READ_MOSTLY || advice > CU_MEM_ADVISE_UNSET_ACCESSED_BY)
		return CUDA_ERROR_INVALID_VALUE;
	if (advice >= CU_MEM_ADVISE_SET_PREFERRED_LOCATION)
		TRY(check_location(location));
	TRY(check_managed(devPtr, count));
	pthread_mutex_lock(&memory_lock);
	struct range *range = range_find_locked(devPtr);
	int kind = (advice - 1) / 2, set = (advice - 1) % 2 == 0;
	int where = location.type == CU_MEM_LOCATION_TYPE_DEVICE ? location.id : -1; /* -1: the host */
	if (range)
		range->advice[kind] = !set ? 0 : kind == 0 ? 1 : where + 2;
	pthread_mutex_unlock(&memory_lock);
	return CUDA_SUCCESS;
}

static CUmemLocation old_location(CUdevice device)
{
	CUmemLocation location = { .type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device };
	if (device == CU_DEVICE_CPU)
		location = (CUmemLocation){ .type = CU_MEM_LOCATION_TYPE_HOST };
	return location;
}

EXPORT CUresult cuMemAdvise(CUdeviceptr devPtr, size_t count, CUmem_advise advice, CUdevice device)
{
	return cuMemAdvise_v2(devPtr, count, advice, old_location(device));
}

EXPORT CUresult cuMemPrefetchAsync_v2(CUdeviceptr devPtr, size_t count, CUmemLocation location, unsigned int flags,
				      CUstream hStream)
{
	struct context *context;
	struct stream *stream;
	TRY(stream_enter(hStream, &context, &stream));
	if (flags)
		return CUDA_ERROR_INVALID_VALUE;
	TRY(check_location(location));
	return check_managed(devPtr, count);
}

EXPORT CUresult cuMemPrefetchAsync(CUdeviceptr devPtr, size_t count, CUdevice dstDevice, CUstream hStream)
{
	return cuMemPrefetchAsync_v2(devPtr, count, old_location(dstDevice), 0, hStream);
}

EXPORT CUresult cuMemRangeGetAttribute(void *data, size_t dataSize, CUmem_range_attribute attribute, CUdeviceptr devPtr,
				       size_t count)
{
	ENTER();
	struct range range;
	if (!data || dataSize < sizeof(int))
		return CUDA_ERROR_INVALID_VALUE;
	TRY(check_managed(devPtr, count));
	range_lookup(devPtr, &range);
	switch ((int)attribute) {
	case CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY: return PUT(int, range.advice[0]);
	case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION:
		return PUT(int, range.advice[1] ? range.advice[1] - 2 : CU_DEVICE_INVALID);
	case CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY:
		for (size_t i = 0; i < dataSize / sizeof(int); i++)
			((int *)data)[i] = i || !range.advice[2] ? CU_DEVICE_INVALID : range.advice[2] - 2;
		return CUDA_SUCCESS;
	case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION: return PUT(int, CU_DEVICE_INVALID);
	default: return CUDA_ERROR_INVALID_VALUE;
	}
}

EXPORT CUresult cuMemRangeGetAttributes(void **data, size_t *dataSizes, CUmem_range_attribute *attributes,
					size_t numAttributes, CUdeviceptr devPtr, size_t count)
{
	if (!data || !dataSizes || !attributes || !numAttributes)
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < numAttributes; i++)
		TRY(cuMemRangeGetAttribute(data[i], dataSizes[i], attributes[i], devPtr, count));
	return CUDA_SUCCESS;
}
