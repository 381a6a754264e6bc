/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory of the host that the device can use: pinned, registered, managed. All of it is ordinary memory here,
 * at the same address for both, and really shared.
 */
#include "memory.h"
#include "queue.h"

#include <stdlib.h>
#include <sys/mman.h>

static uint64_t whole_pages(uint64_t size)
{
	return (size + 4095) & ~(uint64_t)4095;
}

static void *map_pages(uint64_t size, uint64_t wanted)
{
	if (whole_pages(size) < size)
		return NULL;
	void *base =
		mmap((void *)wanted, whole_pages(size), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return base == MAP_FAILED ? NULL : base;
}

/* Code's managed variables have to have the same place in a program on another machine: so it is one under that from
 * which kernels fill processes downwards, and which sanitizers leave to programs. */
#define MANAGED_BASE 0x7e9000000000ull
#define MANAGED_SPAN ((uint64_t)256 << 30)

static void *map_managed(uint64_t size)
{
	static uint64_t used;
	uint64_t place = MANAGED_BASE + __atomic_fetch_add(&used, whole_pages(size), __ATOMIC_RELAXED) % MANAGED_SPAN;
	return map_pages(size, place);
}

/* Takes the range out of the tables, then the memory away. */
static CUresult drop(uint64_t address, enum range_kind kind, int unmap, CUresult otherwise)
{
	pthread_mutex_lock(&memory_lock);
	struct range *range = tree_find(&host_ranges, address);
	if (!range || range->base != address || range->kind != kind) {
		pthread_mutex_unlock(&memory_lock);
		return otherwise;
	}
	uint64_t size = range->size;
	range_drop_locked(range);
	pthread_mutex_unlock(&memory_lock);
	if (unmap)
		munmap((void *)address, whole_pages(size));
	return CUDA_SUCCESS;
}

EXPORT CUresult cuMemHostAlloc(void **pp, size_t bytesize, unsigned int Flags)
{
	ENTER_CONTEXT(context);
	unsigned known = CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_WRITECOMBINED;
	if (!pp || !bytesize || (Flags & ~known))
		return CUDA_ERROR_INVALID_VALUE;
	TRY(capture_check_unsafe());
	void *base = map_pages(bytesize, 0);
	if (!base)
		return CUDA_ERROR_OUT_OF_MEMORY;
	CUresult result = range_add((uint64_t)base, bytesize, RANGE_HOST, context, Flags | CU_MEMHOSTALLOC_DEVICEMAP);
	if (result != CUDA_SUCCESS)
		munmap(base, whole_pages(bytesize));
	else
		*pp = base;
	return result;
}

EXPORT CUresult cuMemAllocHost_v2(void **pp, size_t bytesize)
{
	return cuMemHostAlloc(pp, bytesize, 0);
}

EXPORT CUresult cuMemFreeHost(void *p)
{
	ENTER_CONTEXT(context);
	struct range range;
	TRY(capture_check_unsafe());
	if (!range_lookup((uint64_t)p, &range) || range.kind != RANGE_HOST || range.base != (uint64_t)p)
		return CUDA_ERROR_INVALID_VALUE;
	if (range.context->alive)
		TRY(context_synchronize(range.context));
	return drop((uint64_t)p, RANGE_HOST, 1, CUDA_ERROR_INVALID_VALUE);
}

EXPORT CUresult cuMemHostRegister_v2(void *p, size_t bytesize, unsigned int Flags)
{
	ENTER_CONTEXT(context);
	unsigned known = CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP | CU_MEMHOSTREGISTER_READ_ONLY;
	if (!p || !bytesize)
		return CUDA_ERROR_INVALID_VALUE;
	if (Flags & ~known)
		return Flags & CU_MEMHOSTREGISTER_IOMEMORY ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_INVALID_VALUE;
	TRY(capture_check_unsafe());
	return range_add((uint64_t)p, bytesize, RANGE_REGISTERED, context, Flags);
}

EXPORT CUresult cuMemHostUnregister(void *p)
{
	ENTER_CONTEXT(context);
	struct range range;
	TRY(capture_check_unsafe());
	if (!p)
		return CUDA_ERROR_INVALID_VALUE;
	if (!range_lookup((uint64_t)p, &range) || range.kind != RANGE_REGISTERED || range.base != (uint64_t)p)
		return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
	if (range.context->alive)
		TRY(context_synchronize(range.context));
	return drop((uint64_t)p, RANGE_REGISTERED, 0, CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
}

EXPORT CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *pdptr, void *p, unsigned int Flags)
{
	ENTER_CONTEXT(context);
	struct range range;
	if (!pdptr || !p || Flags)
		return CUDA_ERROR_INVALID_VALUE;
	if (!range_lookup((uint64_t)p, &range) || (range.kind != RANGE_HOST && range.kind != RANGE_REGISTERED))
		return CUDA_ERROR_INVALID_VALUE;
	*pdptr = (CUdeviceptr)(uintptr_t)p;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuMemHostGetFlags(unsigned int *pFlags, void *p)
{
	ENTER_CONTEXT(context);
	struct range range;
	if (!pFlags || !range_lookup((uint64_t)p, &range) || range.kind != RANGE_HOST)
		return CUDA_ERROR_INVALID_VALUE;
	*pFlags = range.flags;
	return CUDA_SUCCESS;
}

CUresult managed_allocate(struct context *context, uint64_t size, unsigned flags, uint64_t *address)
{
	void *base = map_managed(size);
	if (!base)
		return CUDA_ERROR_OUT_OF_MEMORY;
	CUresult result = range_add((uint64_t)base, size, RANGE_MANAGED, context, flags);
	if (result != CUDA_SUCCESS)
		munmap(base, whole_pages(size));
	else
		*address = (uint64_t)base;
	return result;
}

CUresult managed_free(uint64_t address)
{
	return drop(address, RANGE_MANAGED, 1, CUDA_ERROR_INVALID_VALUE);
}

EXPORT CUresult cuMemAllocManaged(CUdeviceptr *dptr, size_t bytesize, unsigned int flags)
{
	ENTER_CONTEXT(context);
	if (!dptr || !bytesize || (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST))
		return CUDA_ERROR_INVALID_VALUE;
	TRY(capture_check_unsafe());
	uint64_t address;
	TRY(managed_allocate(context, bytesize, flags, &address));
	*dptr = address;
	return CUDA_SUCCESS;
}
