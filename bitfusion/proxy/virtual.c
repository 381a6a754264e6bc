/* SPDX-License-Identifier: Apache-2.0
 *
 * Addresses and memory apart: what the driver reserves is reserved in this process too, so that the program can
 * have nothing there, and what is mapped is known to copies and pointer attributes.
 */
#define _GNU_SOURCE
#include "proxy.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_ATTEMPTS = 16 };

struct reservation {
	struct reservation *next;
	uint64_t base, size;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct reservation *reservations;

/* ------------------------------------------------------------------ addresses */

static bool keep(uint64_t base, uint64_t size)
{
	struct reservation *made = malloc(sizeof *made);

	if (!made || !bf_map_reserve(base, size)) {
		free(made);
		return false;
	}
	*made = (struct reservation){ NULL, base, size };
	pthread_mutex_lock(&lock);
	made->next = reservations;
	reservations = made;
	pthread_mutex_unlock(&lock);
	return true;
}

bool bf_is_reserved(uint64_t address)
{
	struct reservation *reservation;

	pthread_mutex_lock(&lock);
	reservation = reservations;
	while (reservation && address - reservation->base >= reservation->size)
		reservation = reservation->next;
	pthread_mutex_unlock(&lock);
	return reservation;
}

static CUresult ask(uint64_t size, uint64_t alignment, uint64_t wanted, uint64_t flags, uint64_t *base)
{
	return BF_CALL(cuMemAddressReserve, BF_ARG(base), size, alignment, wanted, flags);
}

/* What the program's own memory stands in the way of is kept until the end: the driver would only give it again. */
BF_EXPORT CUresult cuMemAddressReserve(CUdeviceptr *ptr, size_t size, size_t alignment, CUdeviceptr addr,
				       unsigned long long flags)
{
	uint64_t rejected[MAX_ATTEMPTS], base = 0, wanted = addr;
	CUresult status = bf_check();
	int count = 0;

	if (status)
		return status;
	if (!ptr || !size || (alignment & (alignment - 1)))
		return CUDA_ERROR_INVALID_VALUE;
	for (;;) {
		status = ask(size, alignment, wanted, flags, &base);
		if (status || keep(base, size))
			break;
		bf_debug("the program uses %#llx: reserving another address", (unsigned long long)base);
		rejected[count++] = base;
		status = CUDA_ERROR_OUT_OF_MEMORY;
		wanted = bf_map_find_free(size, alignment > 2 << 20 ? alignment : 2 << 20);
		if (count == MAX_ATTEMPTS || !wanted)
			break;
	}
	while (count)
		BF_CALL(cuMemAddressFree, rejected[--count], size);
	if (!status)
		*ptr = base;
	return status;
}

BF_EXPORT CUresult cuMemAddressFree(CUdeviceptr ptr, size_t size)
{
	struct reservation **link = &reservations, *gone;
	CUresult status = BF_CALL(cuMemAddressFree, ptr, size);

	if (status)
		return status;
	pthread_mutex_lock(&lock);
	while (*link && (*link)->base != ptr)
		link = &(*link)->next;
	gone = *link;
	if (gone)
		*link = gone->next;
	pthread_mutex_unlock(&lock);
	if (gone)
		bf_map_unreserve(gone->base, gone->size);
	free(gone);
	return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------ physical memory
 *
 * A handle that is retained while there is one is the same handle, and counted here.
 */

static struct bf_physical *find(CUmemGenericAllocationHandle handle)
{
	return bf_handle_find(BF_ALLOCATION, handle);
}

/* It has to be a device's, and nobody else can be given it: other kinds need the driver in this machine. */
BF_EXPORT CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t size, const CUmemAllocationProp *prop,
			       unsigned long long flags)
{
	struct bf_physical *made;
	CUresult status = bf_check();

	if (status)
		return status;
	if (!handle || !prop || !size)
		return CUDA_ERROR_INVALID_VALUE;
	if (prop->requestedHandleTypes || prop->location.type != CU_MEM_LOCATION_TYPE_DEVICE)
		return CUDA_ERROR_NOT_SUPPORTED;
	status = BF_CALL(cuMemCreate, BF_ARG(handle), size, BF_ARG(prop), flags);
	if (status)
		return status;
	made = find(*handle);
	if (!made)
		return CUDA_ERROR_UNKNOWN;
	made->device = prop->location.id;
	atomic_store(&made->handles, 1);
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
	struct bf_physical *physical = find(handle);
	CUresult status = bf_check();

	if (status)
		return status;
	if (!physical)
		return CUDA_ERROR_INVALID_VALUE;
	if (atomic_fetch_sub(&physical->handles, 1) > 1)
		return CUDA_SUCCESS;
	return BF_CALL(cuMemRelease, handle);
}

/* One that was released while its memory stays mapped comes back under another number. */
static CUresult retain_anew(CUmemGenericAllocationHandle *handle, const struct bf_range *range)
{
	struct bf_physical *made;
	CUresult status = BF_CALL(cuMemRetainAllocationHandle, BF_ARG(handle), range->base);

	if (status)
		return status;
	made = find(*handle);
	if (!made)
		return CUDA_ERROR_UNKNOWN;
	made->device = range->device;
	atomic_store(&made->handles, 1);
	bf_map_change_parent(range->parent, *handle);
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *addr)
{
	struct bf_physical *physical;
	CUresult status = bf_check();
	struct bf_range range;

	if (status)
		return status;
	if (!handle || !bf_map_find(BF_ARG(addr), &range) || range.kind != BF_RANGE_MAPPED)
		return CUDA_ERROR_INVALID_VALUE;
	physical = find(range.parent);
	if (!physical)
		return retain_anew(handle, &range);
	atomic_fetch_add(&physical->handles, 1);
	*handle = range.parent;
	return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------ mappings */

BF_EXPORT CUresult cuMemMap(CUdeviceptr ptr, size_t size, size_t offset, CUmemGenericAllocationHandle handle,
			    unsigned long long flags)
{
	const struct bf_physical *physical = find(handle);
	struct bf_range range = { .base = ptr, .size = size, .kind = BF_RANGE_MAPPED, .parent = handle };
	CUresult status = bf_check();

	if (status)
		return status;
	if (!physical)
		return CUDA_ERROR_INVALID_VALUE;
	range.device = physical->device;
	status = BF_CALL(cuMemMap, ptr, size, offset, handle, flags);
	if (status)
		return status;
	status = bf_map_add(&range);
	if (status)
		BF_CALL(cuMemUnmap, ptr, size);
	return status;
}

BF_EXPORT CUresult cuMemUnmap(CUdeviceptr ptr, size_t size)
{
	CUresult status = BF_CALL(cuMemUnmap, ptr, size);
	struct bf_range range;

	for (uint64_t at = ptr; !status && at - ptr < size; at = range.base + range.size)
		if (!bf_map_remove(at, 1u << BF_RANGE_MAPPED, &range))
			break;
	return status;
}
