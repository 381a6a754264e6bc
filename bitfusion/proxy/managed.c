/* SPDX-License-Identifier: Apache-2.0
 *
 * Managed memory: shared memory from the start. Where it lies is not for the program to say, so advice is remembered
 * and no more.
 */
#define _GNU_SOURCE
#include "graph.h"
#include "shared.h"

#include <string.h>

enum { FIRST_ADVICE = CU_MEM_ADVISE_SET_READ_MOSTLY, LAST_ADVICE = CU_MEM_ADVISE_UNSET_ACCESSED_BY };
enum { ADVISED = 2 }; /* is added to what is kept, so that 0 is no advice: the host is device -1 */

static CUresult check(void)
{
	CUresult status = bf_check();

	return status ? status : bf_context_check();
}

/* ------------------------------------------------------------------ allocating and freeing */

static CUresult allocate(void *memory, size_t size)
{
	struct bf_range range = { .base = BF_ARG(memory),
				  .size = size,
				  .kind = BF_RANGE_MANAGED,
				  .context = bf_self.current,
				  .device = bf_context_at(bf_self.current)->device };
	CUresult status = bf_map_add(&range);

	if (status)
		return status;
	status = bf_shared_touch(BF_ARG(memory));
	if (status)
		bf_map_remove(BF_ARG(memory), 1u << BF_RANGE_MANAGED, NULL);
	return status;
}

BF_EXPORT CUresult cuMemAllocManaged(CUdeviceptr *dptr, size_t bytesize, unsigned int flags)
{
	CUresult status = check();
	void *memory;

	if (status)
		return status;
	if (!dptr || !bytesize || (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST))
		return CUDA_ERROR_INVALID_VALUE;
	status = bf_capture_permit();
	if (status)
		return status;
	memory = bf_arena_take(bytesize);
	if (!memory)
		return CUDA_ERROR_OUT_OF_MEMORY;
	status = allocate(memory, bytesize);
	if (status)
		bf_arena_give(memory, bytesize);
	else
		*dptr = BF_ARG(memory);
	return status;
}

void bf_managed_free(const struct bf_range *range)
{
	bf_shared_drop(range);
	if (bf_map_remove(range->base, 1u << BF_RANGE_MANAGED, NULL))
		bf_arena_give((void *)(uintptr_t)range->base, range->size);
}

/* ------------------------------------------------------------------ advice */

static CUresult find_managed(CUdeviceptr address, size_t count, struct bf_range *range)
{
	if (!count || !bf_map_find(address, range) || range->kind != BF_RANGE_MANAGED)
		return CUDA_ERROR_INVALID_VALUE;
	return count > range->base + range->size - address ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

static CUresult check_location(CUmemLocation location)
{
	if (location.type == CU_MEM_LOCATION_TYPE_DEVICE && !bf_device_valid(location.id))
		return CUDA_ERROR_INVALID_DEVICE;
	return CUDA_SUCCESS;
}

static CUmemLocation location_of(CUdevice device)
{
	if (device == CU_DEVICE_CPU)
		return (CUmemLocation){ .type = CU_MEM_LOCATION_TYPE_HOST };
	return (CUmemLocation){ .type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device };
}

BF_EXPORT CUresult cuMemAdvise_v2(CUdeviceptr devPtr, size_t count, CUmem_advise advice, CUmemLocation location)
{
	int where = location.type == CU_MEM_LOCATION_TYPE_DEVICE ? location.id : CU_DEVICE_CPU;
	int kind = ((int)advice - FIRST_ADVICE) / 2;
	bool set = ((int)advice - FIRST_ADVICE) % 2 == 0;
	CUresult status = check();
	struct bf_range range;

	if (status)
		return status;
	if ((int)advice < FIRST_ADVICE || (int)advice > LAST_ADVICE)
		return CUDA_ERROR_INVALID_VALUE;
	if (kind > 0)
		status = check_location(location);
	if (!status)
		status = find_managed(devPtr, count, &range);
	if (!status)
		bf_map_set_advice(devPtr, kind, set ? (kind ? where : 1) + ADVISED : 0);
	return status;
}

BF_EXPORT CUresult cuMemAdvise(CUdeviceptr devPtr, size_t count, CUmem_advise advice, CUdevice device)
{
	return cuMemAdvise_v2(devPtr, count, advice, location_of(device));
}

/* Both sides have it already, as soon as they have to. */
static CUresult prefetch(CUdeviceptr devPtr, size_t count, CUmemLocation location, unsigned flags, CUstream stream,
			 bool per_thread)
{
	CUresult status = bf_stream_enter(&stream, per_thread);
	struct bf_range range;

	if (!status && flags)
		status = CUDA_ERROR_INVALID_VALUE;
	if (!status)
		status = check_location(location);
	return status ? status : find_managed(devPtr, count, &range);
}

BF_EXPORT CUresult cuMemPrefetchAsync_v2(CUdeviceptr devPtr, size_t count, CUmemLocation location, unsigned int flags,
					 CUstream hStream)
{
	return prefetch(devPtr, count, location, flags, hStream, false);
}

BF_EXPORT CUresult cuMemPrefetchAsync_v2_ptsz(CUdeviceptr devPtr, size_t count, CUmemLocation location,
					      unsigned int flags, CUstream hStream)
{
	return prefetch(devPtr, count, location, flags, hStream, true);
}

BF_EXPORT CUresult cuMemPrefetchAsync(CUdeviceptr devPtr, size_t count, CUdevice dstDevice, CUstream hStream)
{
	return prefetch(devPtr, count, location_of(dstDevice), 0, hStream, false);
}

BF_EXPORT CUresult cuMemPrefetchAsync_ptsz(CUdeviceptr devPtr, size_t count, CUdevice dstDevice, CUstream hStream)
{
	return prefetch(devPtr, count, location_of(dstDevice), 0, hStream, true);
}

/* Attached to a stream, memory is that stream's alone: a promise of the program's that nothing here needs. */
static CUresult attach(CUstream stream, CUdeviceptr address, size_t length, unsigned flags, bool per_thread)
{
	CUresult status = bf_stream_enter(&stream, per_thread);
	struct bf_range range;

	if (status)
		return status;
	if (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST && flags != CU_MEM_ATTACH_SINGLE)
		return CUDA_ERROR_INVALID_VALUE;
	if (!bf_map_find(address, &range) || range.kind != BF_RANGE_MANAGED)
		return CUDA_ERROR_INVALID_VALUE;
	return length && (address != range.base || length != range.size) ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

BF_EXPORT CUresult cuStreamAttachMemAsync(CUstream hStream, CUdeviceptr dptr, size_t length, unsigned int flags)
{
	return attach(hStream, dptr, length, flags, false);
}

BF_EXPORT CUresult cuStreamAttachMemAsync_ptsz(CUstream hStream, CUdeviceptr dptr, size_t length, unsigned int flags)
{
	return attach(hStream, dptr, length, flags, true);
}

/* ------------------------------------------------------------------ questions */

static int advice_of(const struct bf_range *range, int kind)
{
	if (!range->advice[kind])
		return kind ? CU_DEVICE_INVALID : 0;
	return range->advice[kind] - ADVISED;
}

static CUresult range_attribute(const struct bf_range *range, CUmem_range_attribute attribute, int *data, size_t size)
{
	switch (attribute) {
	case CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY: *data = advice_of(range, 0); return CUDA_SUCCESS;
	case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION: *data = advice_of(range, 1); return CUDA_SUCCESS;
	case CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY:
		for (size_t i = 0; i < size / sizeof *data; i++)
			data[i] = i ? CU_DEVICE_INVALID : advice_of(range, 2);
		return CUDA_SUCCESS;
	case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION: *data = CU_DEVICE_INVALID; return CUDA_SUCCESS;
	default: return CUDA_ERROR_INVALID_VALUE;
	}
}

BF_EXPORT CUresult cuMemRangeGetAttribute(void *data, size_t dataSize, CUmem_range_attribute attribute,
					  CUdeviceptr devPtr, size_t count)
{
	CUresult status = bf_check();
	struct bf_range range;

	if (status)
		return status;
	if (!data || dataSize < sizeof(int))
		return CUDA_ERROR_INVALID_VALUE;
	status = find_managed(devPtr, count, &range);
	return status ? status : range_attribute(&range, attribute, data, dataSize);
}

BF_EXPORT CUresult cuMemRangeGetAttributes(void **data, size_t *dataSizes, CUmem_range_attribute *attributes,
					   size_t numAttributes, CUdeviceptr devPtr, size_t count)
{
	CUresult status = bf_check();

	if (!status && (!data || !dataSizes || !attributes || !numAttributes))
		status = CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < numAttributes && !status; i++)
		status = cuMemRangeGetAttribute(data[i], dataSizes[i], attributes[i], devPtr, count);
	return status;
}
