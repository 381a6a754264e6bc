/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies and advice by the batch. What is done one by one in order is also a right order for a batch.
 */
#include "memory.h"
#include "queue.h"

/* Attributes tell when sources may be read; copies here read pageable ones during the call, which is always right. */
static CUresult check_attributes(const CUmemcpyAttributes *attrs, const size_t *indexes, size_t attribute_count,
				 size_t count)
{
	if (!attrs || !indexes || !attribute_count || attribute_count > count || indexes[0] != 0)
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < attribute_count; i++) {
		if (attrs[i].srcAccessOrder < CU_MEMCPY_SRC_ACCESS_ORDER_STREAM ||
		    attrs[i].srcAccessOrder > CU_MEMCPY_SRC_ACCESS_ORDER_ANY)
			return CUDA_ERROR_INVALID_VALUE;
		if (i && (indexes[i] <= indexes[i - 1] || indexes[i] >= count))
			return CUDA_ERROR_INVALID_VALUE;
	}
	return CUDA_SUCCESS;
}

/* A batch is for streams that are the program's own, and no capture takes it. */
static CUresult enter_batch(CUstream handle)
{
	struct context *context;
	struct stream *stream;
	TRY(stream_enter(handle, &context, &stream));
	if (stream->is_legacy)
		return CUDA_ERROR_INVALID_VALUE;
	return stream->capture ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : CUDA_SUCCESS;
}

static CUresult copy_batch(CUdeviceptr *dsts, CUdeviceptr *srcs, size_t *sizes, size_t count,
			   const CUmemcpyAttributes *attrs, const size_t *indexes, size_t attribute_count,
			   size_t *failed, CUstream stream)
{
	*failed = SIZE_MAX; /* nothing in particular is wrong */
	TRY(enter_batch(stream));
	if (!dsts || !srcs || !sizes || !count)
		return CUDA_ERROR_INVALID_VALUE;
	TRY(check_attributes(attrs, indexes, attribute_count, count));
	for (size_t i = 0; i < count; i++)
		if (!dsts[i] || !srcs[i] || !sizes[i] || memory_place(dsts[i], sizes[i]) == PLACE_INVALID ||
		    memory_place(srcs[i], sizes[i]) == PLACE_INVALID) {
			*failed = i;
			return CUDA_ERROR_INVALID_VALUE;
		}
	for (size_t i = 0; i < count; i++)
		TRY(cuMemcpyAsync(dsts[i], srcs[i], sizes[i], stream));
	return CUDA_SUCCESS;
}

EXPORT CUresult cuMemcpyBatchAsync(CUdeviceptr *dsts, CUdeviceptr *srcs, size_t *sizes, size_t count,
				   CUmemcpyAttributes *attrs, size_t *attrsIdxs, size_t numAttrs, size_t *failIdx,
				   CUstream hStream)
{
	size_t failed;
	return copy_batch(dsts, srcs, sizes, count, attrs, attrsIdxs, numAttrs, failIdx ? failIdx : &failed, hStream);
}

EXPORT CUresult cuMemcpyBatchAsync_v2(CUdeviceptr *dsts, CUdeviceptr *srcs, size_t *sizes, size_t count,
				      CUmemcpyAttributes *attrs, size_t *attrsIdxs, size_t numAttrs, CUstream hStream)
{
	size_t failed;
	return copy_batch(dsts, srcs, sizes, count, attrs, attrsIdxs, numAttrs, &failed, hStream);
}

/* ------------------------------------------------------------------ managed memory: where it is makes no difference */

static CUresult advise_batch(const CUdeviceptr *addresses, const size_t *sizes, size_t count, unsigned long long flags,
			     CUstream stream)
{
	TRY(enter_batch(stream));
	if (!addresses || !sizes || !count || flags)
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < count; i++) {
		struct range range;
		if (!sizes[i] || !range_lookup(addresses[i], &range) || range.kind != RANGE_MANAGED ||
		    sizes[i] > range.base + range.size - addresses[i])
			return CUDA_ERROR_INVALID_VALUE;
	}
	return CUDA_SUCCESS;
}

static CUresult check_places(const CUmemLocation *places, const size_t *indexes, size_t place_count, size_t count)
{
	if (!places || !indexes || !place_count || place_count > count || indexes[0] != 0)
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < place_count; i++) {
		if (i && (indexes[i] <= indexes[i - 1] || indexes[i] >= count))
			return CUDA_ERROR_INVALID_VALUE;
		if (places[i].type == CU_MEM_LOCATION_TYPE_DEVICE && !device_get(places[i].id))
			return CUDA_ERROR_INVALID_DEVICE;
	}
	return CUDA_SUCCESS;
}

EXPORT CUresult cuMemPrefetchBatchAsync(CUdeviceptr *dptrs, size_t *sizes, size_t count, CUmemLocation *prefetchLocs,
					size_t *prefetchLocIdxs, size_t numPrefetchLocs, unsigned long long flags,
					CUstream hStream)
{
	TRY(advise_batch(dptrs, sizes, count, flags, hStream));
	return check_places(prefetchLocs, prefetchLocIdxs, numPrefetchLocs, count);
}

/* What is discarded may have any content, also the one it has. */
EXPORT CUresult cuMemDiscardBatchAsync(CUdeviceptr *dptrs, size_t *sizes, size_t count, unsigned long long flags,
				       CUstream hStream)
{
	return advise_batch(dptrs, sizes, count, flags, hStream);
}

EXPORT CUresult cuMemDiscardAndPrefetchBatchAsync(CUdeviceptr *dptrs, size_t *sizes, size_t count,
						  CUmemLocation *prefetchLocs, size_t *prefetchLocIdxs,
						  size_t numPrefetchLocs, unsigned long long flags, CUstream hStream)
{
	return cuMemPrefetchBatchAsync(dptrs, sizes, count, prefetchLocs, prefetchLocIdxs, numPrefetchLocs, flags,
				       hStream);
}
