/* SPDX-License-Identifier: Apache-2.0
 *
 * Virtual memory: reserved addresses, physical memory (here an anonymous file), and mappings of one at the other.
 */
#include "memory.h"
#include "queue.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#ifndef MFD_CLOEXEC
#define MFD_CLOEXEC 1u
#endif

#define GRANULARITY MIB(2)

struct allocation {
	struct object object;
	int references; /* the handle and the mappings; under memory_lock */
	int handles;
	int fd;
	uint64_t size;
	struct device *device; /* whose memory it counts as, or NULL */
	CUmemAllocationProp properties;
};

static struct tree reservations; /* under memory_lock */

static struct allocation *get(CUmemGenericAllocationHandle handle)
{
	return object_get((void *)(uintptr_t)handle, OBJECT_ALLOCATION);
}

static int granular(uint64_t value)
{
	return value % GRANULARITY == 0;
}

EXPORT CUresult cuMemGetAllocationGranularity(size_t *granularity, const CUmemAllocationProp *prop,
					      CUmemAllocationGranularity_flags option)
{
	ENTER();
	if (!granularity || !prop || (unsigned)option > CU_MEM_ALLOC_GRANULARITY_RECOMMENDED)
		return CUDA_ERROR_INVALID_VALUE;
	*granularity = GRANULARITY;
	return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------ addresses */

static void *reserve(uint64_t wanted, uint64_t size, uint64_t alignment)
{
	static uint64_t next = 0x300000000000ull; /* far from the program's memory and the arenas */
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	void *base = MAP_FAILED;
#ifndef __SANITIZE_THREAD__
	if (wanted)
		base = mmap((void *)wanted, size, PROT_NONE, flags | MAP_FIXED_NOREPLACE, -1, 0);
	if (base != MAP_FAILED && (uint64_t)base != wanted) { /* an old kernel takes it for a hint */
		munmap(base, size);
		base = MAP_FAILED;
	}
	if (base != MAP_FAILED)
		return base;
#endif
	next = (next + alignment - 1) & ~(alignment - 1);
	base = mmap((void *)next, size + alignment, PROT_NONE, flags, -1, 0);
	if (base == MAP_FAILED)
		return NULL;
	uint64_t start = ((uint64_t)base + alignment - 1) & ~(alignment - 1);
	if (start > (uint64_t)base)
		munmap(base, start - (uint64_t)base);
	if ((uint64_t)base + alignment > start)
		munmap((void *)(start + size), (uint64_t)base + alignment - start);
	if (start == next)
		next += size;
	return (void *)start;
}

EXPORT CUresult cuMemAddressReserve(CUdeviceptr *ptr, size_t size, size_t alignment, CUdeviceptr addr,
				    unsigned long long flags)
{
	ENTER();
	if (!ptr || !size || !granular(size) || flags || (alignment & (alignment - 1)))
		return CUDA_ERROR_INVALID_VALUE;
	struct range *range = calloc(1, sizeof *range);
	if (!range)
		return CUDA_ERROR_OUT_OF_MEMORY;
	pthread_mutex_lock(&memory_lock);
	void *base = reserve(granular(addr) ? addr : 0, size, alignment > GRANULARITY ? alignment : GRANULARITY);
	if (base) {
		*range = (struct range){ .base = (uint64_t)base, .size = size, .span = size, .kind = RANGE_RESERVED };
		tree_insert(&reservations, range);
		*ptr = (uint64_t)base;
	}
	pthread_mutex_unlock(&memory_lock);
	if (!base)
		free(range);
	return base ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

static int anything_mapped(uint64_t base, uint64_t size)
{
	struct range *next = tree_after(&host_ranges, base);
	return tree_find(&host_ranges, base) || (next && next->base - base < size);
}

EXPORT CUresult cuMemAddressFree(CUdeviceptr ptr, size_t size)
{
	ENTER();
	pthread_mutex_lock(&memory_lock);
	struct range *range = tree_find(&reservations, ptr);
	if (range && (range->base != ptr || range->size != size || anything_mapped(ptr, size)))
		range = NULL;
	if (range) {
		tree_remove(&reservations, range);
		munmap((void *)(uintptr_t)ptr, size);
	}
	pthread_mutex_unlock(&memory_lock);
	free(range);
	return range ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* ------------------------------------------------------------------ physical memory */

static int make_file(uint64_t size)
{
	int fd = (int)syscall(SYS_memfd_create, "bitfusion-softgpu", MFD_CLOEXEC);
	if (fd >= 0 && ftruncate(fd, (off_t)size)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

EXPORT CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t size, const CUmemAllocationProp *prop,
			    unsigned long long flags)
{
	ENTER();
	if (!handle || !prop || !size || !granular(size) || flags || prop->type != CU_MEM_ALLOCATION_TYPE_PINNED)
		return CUDA_ERROR_INVALID_VALUE;
	if (prop->requestedHandleTypes != CU_MEM_HANDLE_TYPE_NONE)
		return CUDA_ERROR_NOT_SUPPORTED;
	struct device *device = NULL;
	if (prop->location.type == CU_MEM_LOCATION_TYPE_DEVICE && !(device = device_get(prop->location.id)))
		return CUDA_ERROR_INVALID_DEVICE;
	struct allocation *allocation = object_new(OBJECT_ALLOCATION, sizeof *allocation);
	if (!allocation)
		return CUDA_ERROR_OUT_OF_MEMORY;
	if (device && !arena_take(device, size)) {
		object_free(allocation);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	allocation->fd = make_file(size);
	allocation->size = size;
	allocation->device = device;
	allocation->properties = *prop;
	allocation->references = allocation->handles = 1;
	*handle = (CUmemGenericAllocationHandle)(uintptr_t)allocation;
	if (allocation->fd >= 0)
		return CUDA_SUCCESS;
	if (device)
		arena_give(device, size);
	object_free(allocation);
	return CUDA_ERROR_OUT_OF_MEMORY;
}

/* With memory_lock held. */
static void unref(struct allocation *allocation)
{
	if (--allocation->references)
		return;
	close(allocation->fd);
	if (allocation->device)
		allocation->device->arena->used -= allocation->size;
	object_free(allocation);
}

EXPORT CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
	ENTER();
	pthread_mutex_lock(&memory_lock);
	struct allocation *allocation = get(handle);
	CUresult result = allocation && allocation->handles ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
	if (result == CUDA_SUCCESS) {
		allocation->handles--;
		unref(allocation);
	}
	pthread_mutex_unlock(&memory_lock);
	return result;
}

EXPORT CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp *prop, CUmemGenericAllocationHandle handle)
{
	ENTER();
	struct allocation *allocation = get(handle);
	if (!prop || !allocation)
		return CUDA_ERROR_INVALID_VALUE;
	*prop = allocation->properties;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *addr)
{
	ENTER();
	if (!handle)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&memory_lock);
	struct range *range = tree_find(&host_ranges, (uint64_t)(uintptr_t)addr);
	if (range && range->kind != RANGE_MAPPED)
		range = NULL;
	if (range) {
		range->allocation->references++;
		range->allocation->handles++;
		*handle = (CUmemGenericAllocationHandle)(uintptr_t)range->allocation;
	}
	pthread_mutex_unlock(&memory_lock);
	return range ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* ------------------------------------------------------------------ mappings; helpers with memory_lock held */

static CUresult map(uint64_t base, uint64_t size, uint64_t offset, struct allocation *allocation)
{
	struct range *reserved = tree_find(&reservations, base);
	if (!reserved || size > reserved->base + reserved->size - base || anything_mapped(base, size))
		return CUDA_ERROR_INVALID_VALUE;
	struct range *range = calloc(1, sizeof *range);
	if (!range)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*range = (struct range){ .base = base,
				 .size = size,
				 .kind = RANGE_MAPPED,
				 .device = allocation->device ? allocation->device->index : 0,
				 .allocation = allocation };
	void *mapped = mmap((void *)base, size, PROT_NONE, MAP_SHARED | MAP_FIXED, allocation->fd, (off_t)offset);
	CUresult result = mapped == MAP_FAILED ? CUDA_ERROR_OUT_OF_MEMORY : range_add_locked(range, 0);
	if (result == CUDA_SUCCESS)
		allocation->references++;
	else
		free(range);
	return result;
}

EXPORT CUresult cuMemMap(CUdeviceptr ptr, size_t size, size_t offset, CUmemGenericAllocationHandle handle,
			 unsigned long long flags)
{
	ENTER();
	struct allocation *allocation = get(handle);
	if (!allocation || !size || !granular(ptr) || !granular(size) || !granular(offset) || flags)
		return CUDA_ERROR_INVALID_VALUE;
	if (offset > allocation->size || size > allocation->size - offset)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&memory_lock);
	CUresult result = map(ptr, size, offset, allocation);
	pthread_mutex_unlock(&memory_lock);
	return result;
}

/* 1 when whole mappings cover the addresses without a gap. */
static int covered(uint64_t base, uint64_t size)
{
	struct range *range;
	for (uint64_t at = base; at < base + size; at = range->base + range->size) {
		range = tree_find(&host_ranges, at);
		if (!range || range->kind != RANGE_MAPPED || range->base != at || range->size > base + size - at)
			return 0;
	}
	return 1;
}

static void unmap(uint64_t base, uint64_t size)
{
	while (size) {
		struct range *range = tree_find(&host_ranges, base);
		uint64_t length = range->size;
		unref(range->allocation);
		range_drop_locked(range);
		mmap((void *)base, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
		base += length;
		size -= length;
	}
}

EXPORT CUresult cuMemUnmap(CUdeviceptr ptr, size_t size)
{
	ENTER();
	struct context *context = context_current();
	if (context && context->alive) /* queued work may still use it */
		context_synchronize(context);
	pthread_mutex_lock(&memory_lock);
	CUresult result = size && covered(ptr, size) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
	if (result == CUDA_SUCCESS)
		unmap(ptr, size);
	pthread_mutex_unlock(&memory_lock);
	return result;
}

static CUresult set_access(struct range *range, int access)
{
	int protection = access == CU_MEM_ACCESS_FLAGS_PROT_NONE ? PROT_NONE : PROT_READ | PROT_WRITE;
	if (mprotect((void *)range->base, range->size, protection))
		return CUDA_ERROR_OUT_OF_MEMORY;
	if (protection == PROT_NONE && range->visible)
		sg_space_remove(driver.space, range->base);
	else if (protection != PROT_NONE && !range->visible && sg_space_add(driver.space, range->base, range->size))
		return CUDA_ERROR_OUT_OF_MEMORY;
	range->visible = protection != PROT_NONE;
	range->access = access;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuMemSetAccess(CUdeviceptr ptr, size_t size, const CUmemAccessDesc *desc, size_t count)
{
	ENTER();
	if (!size || !desc || !count)
		return CUDA_ERROR_INVALID_VALUE;
	/* one process, one set of page tables: the widest access asked for is everybody's */
	int access = 0;
	for (size_t i = 0; i < count; i++) {
		if (desc[i].location.type == CU_MEM_LOCATION_TYPE_DEVICE && !device_get(desc[i].location.id))
			return CUDA_ERROR_INVALID_DEVICE;
		if ((int)desc[i].flags > access)
			access = (int)desc[i].flags;
	}
	pthread_mutex_lock(&memory_lock);
	CUresult result = covered(ptr, size) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
	for (uint64_t at = ptr; result == CUDA_SUCCESS && at < ptr + size;) {
		struct range *range = tree_find(&host_ranges, at);
		at = range->base + range->size;
		result = set_access(range, access);
	}
	pthread_mutex_unlock(&memory_lock);
	return result;
}

EXPORT CUresult cuMemGetAccess(unsigned long long *flags, const CUmemLocation *location, CUdeviceptr ptr)
{
	ENTER();
	struct range range;
	if (!flags || !location || !range_lookup(ptr, &range) || range.kind != RANGE_MAPPED)
		return CUDA_ERROR_INVALID_VALUE;
	*flags = (unsigned long long)range.access;
	return CUDA_SUCCESS;
}
