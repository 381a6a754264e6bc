/* SPDX-License-Identifier: Apache-2.0
 *
 * Pointer attributes, from the map of ranges: some libraries ask for every argument of every launch.
 */
#define _GNU_SOURCE
#include "twin.h"

#include <string.h>

static size_t attribute_size(CUpointer_attribute attribute)
{
	switch (attribute) {
	case CU_POINTER_ATTRIBUTE_CONTEXT:
	case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
	case CU_POINTER_ATTRIBUTE_HOST_POINTER:
	case CU_POINTER_ATTRIBUTE_BUFFER_ID:
	case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
	case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
	case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
	case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
	case CU_POINTER_ATTRIBUTE_MAPPING_SIZE:
	case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR:
	case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID: return 8;
	case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
	case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
	case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
	/* "a boolean", which programs take into an int */
	case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
	case CU_POINTER_ATTRIBUTE_IS_MANAGED:
	case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
	case CU_POINTER_ATTRIBUTE_MAPPED:
	case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
	case CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE: return 4;
	default: return 0;
	}
}

/* Answers that do not fit the pointer's kind of memory are errors for one attribute, zeros in a list. */
static CUresult attribute_value(const struct bf_range *range, CUdeviceptr pointer, CUpointer_attribute attribute,
				uint64_t *value)
{
	const struct bf_twin *twin = range->twin;
	bool registered = twin && twin->allocated;
	bool host = bf_range_is_host(range) || registered, managed = range->kind == BF_RANGE_MANAGED;

	*value = 0;
	switch (attribute) {
	case CU_POINTER_ATTRIBUTE_CONTEXT: *value = BF_ARG(bf_context_handle(range->context)); return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
		*value = host ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
		*value = registered ? twin->device + (pointer - range->base) : pointer; /* else one address space */
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_HOST_POINTER:
		if (!host && !managed)
			return CUDA_ERROR_INVALID_VALUE;
		*value = registered ? BF_ARG(twin->host) + (pointer - range->base) : pointer;
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_IS_MANAGED: *value = managed; return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_BUFFER_ID:
	case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID: *value = range->id; return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL: *value = (uint32_t)range->device; return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
	case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR: *value = range->base; return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
	case CU_POINTER_ATTRIBUTE_MAPPING_SIZE: *value = range->size; return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_MAPPED: *value = 1; return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
		*value = CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READWRITE;
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
		*value = range->kind == BF_RANGE_POOL ? range->parent : 0;
		return CUDA_SUCCESS;
	case CU_POINTER_ATTRIBUTE_P2P_TOKENS: return CUDA_ERROR_INVALID_VALUE;
	default: return attribute_size(attribute) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
	}
}

BF_EXPORT CUresult cuPointerGetAttribute(void *data, CUpointer_attribute attribute, CUdeviceptr ptr)
{
	CUresult status = bf_check();
	struct bf_range range;
	uint64_t value;

	if (status)
		return status;
	if (!data || !bf_map_find(ptr, &range))
		return CUDA_ERROR_INVALID_VALUE;
	status = attribute_value(&range, ptr, attribute, &value);
	if (!status)
		memcpy(data, &value, attribute_size(attribute));
	return status;
}

/* What an unknown pointer, which is one of the program's own memory, gives in a list. */
static uint64_t unknown_value(CUpointer_attribute attribute)
{
	return attribute == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL ? (uint32_t)CU_DEVICE_INVALID : 0;
}

BF_EXPORT CUresult cuPointerGetAttributes(unsigned int numAttributes, CUpointer_attribute *attributes, void **data,
					  CUdeviceptr ptr)
{
	CUresult status = bf_check();
	struct bf_range range;
	bool known;

	if (status)
		return status;
	if (!numAttributes || !attributes || !data)
		return CUDA_ERROR_INVALID_VALUE;
	known = bf_map_find(ptr, &range);
	for (unsigned i = 0; i < numAttributes; i++) {
		size_t size = attribute_size(attributes[i]);
		uint64_t value = unknown_value(attributes[i]);

		if (!size || !data[i])
			return CUDA_ERROR_INVALID_VALUE;
		if (known && attribute_value(&range, ptr, attributes[i], &value))
			value = 0;
		memcpy(data[i], &value, size);
	}
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuPointerSetAttribute(const void *value, CUpointer_attribute attribute, CUdeviceptr ptr)
{
	CUresult status = bf_check();
	struct bf_range range;

	if (status)
		return status;
	if (!value || attribute != CU_POINTER_ATTRIBUTE_SYNC_MEMOPS || !bf_map_find(ptr, &range))
		return CUDA_ERROR_INVALID_VALUE;
	return CUDA_SUCCESS; /* synchronous copies always wait here */
}
