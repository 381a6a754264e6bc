/* SPDX-License-Identifier: Apache-2.0
 *
 * Attributes of memory pools: the size of the value depends on which it is.
 */
#define _GNU_SOURCE
#include "proxy.h"

#include <string.h>

/* 0: not one that driver API 13.0 knows. */
static size_t value_size(CUmemPool_attribute attribute)
{
	if (attribute >= CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES &&
	    attribute <= CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES)
		return sizeof(int);
	if (attribute >= CU_MEMPOOL_ATTR_RELEASE_THRESHOLD && attribute <= CU_MEMPOOL_ATTR_USED_MEM_HIGH)
		return sizeof(cuuint64_t);
	return 0;
}

BF_EXPORT CUresult cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute attr, void *value)
{
	uint64_t word = 0;
	size_t size = value_size(attr);
	CUresult status = bf_check();

	if (!status && (!size || !value))
		status = CUDA_ERROR_INVALID_VALUE;
	if (!status)
		status = BF_CALL(cuMemPoolGetAttribute, BF_ARG(pool), (uint64_t)attr, BF_ARG(&word));
	if (!status)
		memcpy(value, &word, size);
	return status;
}

BF_EXPORT CUresult cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute attr, void *value)
{
	uint64_t word = 0;
	size_t size = value_size(attr);
	CUresult status = bf_check();

	if (!status && (!size || !value))
		status = CUDA_ERROR_INVALID_VALUE;
	if (status)
		return status;
	memcpy(&word, value, size);
	return BF_CALL(cuMemPoolSetAttribute, BF_ARG(pool), (uint64_t)attr, BF_ARG(&word));
}
