/* SPDX-License-Identifier: Apache-2.0
 *
 * Device memory. The driver picks the address; the same numbers are reserved here. When the program already has
 * something there, the driver is asked for another address.
 */
#define _GNU_SOURCE
#include "graph.h"
#include "shared.h"

#include <string.h>

enum { MAX_ATTEMPTS = 16 };

struct answer {
	uint64_t address, pitch;
};

static CUresult check(void)
{
	CUresult status = bf_check();

	return status ? status : bf_context_check();
}

static struct bf_range device_range(uint64_t base, uint64_t size, enum bf_range_kind kind)
{
	return (struct bf_range){ .base = base,
				  .size = size,
				  .kind = kind,
				  .context = bf_self.current,
				  .device = bf_context_at(bf_self.current)->device };
}

static void give_back(uint64_t address)
{
	struct bf_free release = { address };

	if (address)
		bf_post(BF_OP_FREE, &release, sizeof release);
}

static CUresult keep(uint64_t address, uint64_t size)
{
	struct bf_range range = device_range(address, size, BF_RANGE_DEVICE);

	range.reserved = true;
	return bf_map_add(&range);
}

/* Each attempt names the address that the one before it gave, so that the server frees it and gives another. */
static CUresult allocate(const struct bf_alloc *alloc, struct answer *answer)
{
	struct {
		struct bf_alloc alloc;
		uint64_t rejected;
	} body = { .alloc = *alloc };
	CUresult status = CUDA_SUCCESS;

	for (int attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
		memset(answer, 0, sizeof *answer);
		status = bf_ask(BF_OP_ALLOC, &body, sizeof body.alloc + body.alloc.rejected_count * 8, answer,
				sizeof *answer);
		if (status) /* if memory came with it, the failure is an earlier call's */
			break;
		status = keep(answer->address, alloc->height ? answer->pitch * alloc->height : alloc->size);
		if (status != CUDA_ERROR_ALREADY_MAPPED)
			break;
		bf_debug("the program uses %#llx: asking for another address", (unsigned long long)answer->address);
		body.alloc.rejected_count = 1;
		body.rejected = answer->address;
		status = CUDA_ERROR_OUT_OF_MEMORY;
	}
	if (status)
		give_back(answer->address);
	return status;
}

CUresult bf_memory_allocate(CUdeviceptr *address, size_t size)
{
	struct bf_alloc alloc = { .size = size };
	CUresult status = check();
	struct answer answer;

	if (status)
		return status;
	if (!address || !size)
		return CUDA_ERROR_INVALID_VALUE;
	status = allocate(&alloc, &answer);
	if (!status)
		*address = answer.address;
	return status;
}

BF_EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *dptr, size_t bytesize)
{
	CUresult status = check();

	if (!status && dptr && bytesize)
		status = bf_capture_permit();
	return status ? status : bf_memory_allocate(dptr, bytesize);
}

BF_EXPORT CUresult cuMemAllocPitch_v2(CUdeviceptr *dptr, size_t *pPitch, size_t WidthInBytes, size_t Height,
				      unsigned int ElementSizeBytes)
{
	struct bf_alloc alloc = { .size = WidthInBytes, .height = Height, .element_size = ElementSizeBytes };
	CUresult status = check();
	struct answer answer;

	if (status)
		return status;
	if (!dptr || !pPitch || !WidthInBytes || !Height ||
	    (ElementSizeBytes != 4 && ElementSizeBytes != 8 && ElementSizeBytes != 16))
		return CUDA_ERROR_INVALID_VALUE;
	status = bf_capture_permit();
	if (!status)
		status = allocate(&alloc, &answer);
	if (status)
		return status;
	*dptr = answer.address;
	*pPitch = answer.pitch;
	return CUDA_SUCCESS;
}

/* One-way: the server frees after all that was issued before, as CUDA does. */
CUresult bf_memory_free(CUdeviceptr address)
{
	struct bf_free release = { address };

	if (!bf_map_remove(address, 1u << BF_RANGE_DEVICE | 1u << BF_RANGE_POOL, NULL))
		return CUDA_ERROR_INVALID_VALUE;
	return bf_post(BF_OP_FREE, &release, sizeof release);
}

BF_EXPORT CUresult cuMemFree_v2(CUdeviceptr dptr)
{
	CUresult status = bf_check();
	struct bf_range range = { 0 };

	if (!status && dptr)
		status = bf_capture_permit();
	if (status || !dptr)
		return status;
	if (bf_map_find(dptr, &range) && bf_fault_of(range.context))
		return bf_fault_of(range.context);
	if (range.kind == BF_RANGE_MANAGED && range.base == dptr && !range.parent) {
		bf_managed_free(&range);
		return CUDA_SUCCESS;
	}
	if (range.kind == BF_RANGE_DEVICE && range.twin) /* that of registered memory */
		return CUDA_ERROR_INVALID_VALUE;
	if (bf_shared_in_use()) /* CUDA waits here, and some programs look at what work has written next */
		bf_shared_wait_for_all();
	return bf_memory_free(dptr);
}

BF_EXPORT CUresult cuMemGetInfo_v2(size_t *free, size_t *total)
{
	uint64_t answer[2] = { 0 };
	CUresult status = check();

	if (!status)
		status = bf_ask(BF_OP_MEMORY_INFO, NULL, 0, answer, sizeof answer);
	if (status)
		return status;
	if (free)
		*free = answer[0];
	if (total)
		*total = answer[1];
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuMemGetAddressRange_v2(CUdeviceptr *pbase, size_t *psize, CUdeviceptr dptr)
{
	CUresult status = check();
	struct bf_range range;

	if (status)
		return status;
	if (!bf_map_find(dptr, &range))
		return CUDA_ERROR_NOT_FOUND;
	if (pbase)
		*pbase = range.base;
	if (psize)
		*psize = range.size;
	return CUDA_SUCCESS;
}

bool bf_is_device_memory(uint64_t address)
{
	struct bf_range range;

	if (!bf_map_find(address, &range))
		return bf_is_reserved(address);
	return !bf_range_is_host(&range) || (range.kind == BF_RANGE_PINNED && range.twin);
}

CUresult bf_device_range_check(uint64_t address, uint64_t size)
{
	struct bf_range range;

	if (!bf_map_find(address, &range) || range.kind == BF_RANGE_REGISTERED)
		return CUDA_ERROR_INVALID_VALUE;
	if (range.kind == BF_RANGE_PINNED && bf_shared_touch(address))
		return CUDA_ERROR_INVALID_VALUE;
	/* mappings that follow each other are one memory */
	while (size > range.base + range.size - address) {
		if (range.kind != BF_RANGE_MAPPED)
			return CUDA_ERROR_INVALID_VALUE;
		size -= range.base + range.size - address;
		address = range.base + range.size;
		if (!bf_map_find(address, &range))
			return CUDA_ERROR_INVALID_VALUE;
	}
	return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------ allocations in stream order */

struct pool_request {
	uint64_t size, pool;
	CUstream stream;
	bool from_pool; /* else from the device's current one */
};

static CUresult ask_pool(const struct pool_request *request, uint64_t *address)
{
	if (request->from_pool)
		return BF_CALL(cuMemAllocFromPoolAsync, BF_ARG(address), request->size, request->pool,
			       BF_ARG(request->stream));
	return BF_CALL(cuMemAllocAsync, BF_ARG(address), request->size, BF_ARG(request->stream));
}

/* The pool may give memory again whose free was only queued: then the map has it already removed. */
static CUresult keep_pooled(const struct pool_request *request, uint64_t address)
{
	struct bf_range range = device_range(address, request->size, BF_RANGE_POOL);

	range.parent = request->pool;
	range.reserved = true;
	range.graph = atomic_load(&bf_captures) && bf_capture_within(request->stream);
	return bf_map_add(&range);
}

/* What the program's own memory stands in the way of is held until the end: a pool would only give it again. */
static CUresult allocate_in_order(const struct pool_request *request, CUdeviceptr *dptr)
{
	uint64_t rejected[MAX_ATTEMPTS], address = 0;
	CUresult status;
	int count = 0;

	for (;;) {
		status = ask_pool(request, &address);
		if (status)
			break;
		status = keep_pooled(request, address);
		if (!status)
			break;
		rejected[count++] = address;
		if (status != CUDA_ERROR_ALREADY_MAPPED || count == MAX_ATTEMPTS) {
			status = CUDA_ERROR_OUT_OF_MEMORY;
			break;
		}
		bf_debug("the program uses %#llx: asking for another address", (unsigned long long)address);
	}
	while (count)
		BF_CALL(cuMemFreeAsync, rejected[--count], BF_ARG(request->stream));
	if (!status)
		*dptr = address;
	return status;
}

static CUresult alloc_in_order(CUdeviceptr *dptr, struct pool_request request, bool per_thread)
{
	CUresult status = check();

	if (!status && (!dptr || !request.size))
		status = CUDA_ERROR_INVALID_VALUE;
	if (!status)
		status = bf_stream_resolve(&request.stream, per_thread);
	return status ? status : allocate_in_order(&request, dptr);
}

BF_EXPORT CUresult cuMemAllocAsync(CUdeviceptr *dptr, size_t bytesize, CUstream hStream)
{
	return alloc_in_order(dptr, (struct pool_request){ bytesize, 0, hStream, false }, false);
}

BF_EXPORT CUresult cuMemAllocAsync_ptsz(CUdeviceptr *dptr, size_t bytesize, CUstream hStream)
{
	return alloc_in_order(dptr, (struct pool_request){ bytesize, 0, hStream, false }, true);
}

BF_EXPORT CUresult cuMemAllocFromPoolAsync(CUdeviceptr *dptr, size_t bytesize, CUmemoryPool pool, CUstream hStream)
{
	return alloc_in_order(dptr, (struct pool_request){ bytesize, BF_ARG(pool), hStream, true }, false);
}

BF_EXPORT CUresult cuMemAllocFromPoolAsync_ptsz(CUdeviceptr *dptr, size_t bytesize, CUmemoryPool pool, CUstream hStream)
{
	return alloc_in_order(dptr, (struct pool_request){ bytesize, BF_ARG(pool), hStream, true }, true);
}

static CUresult free_async(CUdeviceptr dptr, CUstream stream, bool per_thread)
{
	CUresult status = check();
	struct bf_range range;
	uint64_t sequence;

	if (status || !dptr)
		return status;
	if (bf_map_find(dptr, &range) && range.twin)
		return CUDA_ERROR_INVALID_VALUE;
	if (!bf_map_remove(dptr, 1u << BF_RANGE_DEVICE | 1u << BF_RANGE_POOL, NULL))
		return CUDA_ERROR_INVALID_VALUE;
	return bf_call_numbered(BF_cuMemFreeAsync, (const uint64_t[]){ dptr, BF_ARG(stream) }, per_thread, &sequence);
}

BF_EXPORT CUresult cuMemFreeAsync(CUdeviceptr dptr, CUstream hStream)
{
	return free_async(dptr, hStream, false);
}

BF_EXPORT CUresult cuMemFreeAsync_ptsz(CUdeviceptr dptr, CUstream hStream)
{
	return free_async(dptr, hStream, true);
}
