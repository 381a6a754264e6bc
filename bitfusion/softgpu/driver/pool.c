/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory pools and allocation in the order of a stream. An address is chosen when the call is made; it is free
 * again when the stream gets to the free.
 */
#include "memory.h"
#include "node.h"
#include "queue.h"

#include <string.h>

static struct pool *get(CUmemoryPool handle)
{
	return object_get(handle, OBJECT_POOL);
}

static struct pool *pool_new(struct device *device)
{
	struct pool *pool = object_new(OBJECT_POOL, sizeof *pool);
	if (!pool)
		return NULL;
	pool->device = device;
	for (int i = 0; i < 3; i++)
		pool->reuse[i] = 1;
	pthread_mutex_lock(&memory_lock);
	pool->next = device->pools;
	device->pools = pool;
	pthread_mutex_unlock(&memory_lock);
	return pool;
}

CUresult pool_defaults(struct device *device)
{
	device->default_pool = device->current_pool = pool_new(device);
	device->graph_pool = pool_new(device);
	if (!device->default_pool || !device->graph_pool)
		return CUDA_ERROR_OUT_OF_MEMORY;
	device->default_pool->is_default = 1;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *pool_out, CUdevice dev)
{
	ENTER();
	struct device *device = device_get(dev);
	if (!pool_out)
		return CUDA_ERROR_INVALID_VALUE;
	if (!device)
		return CUDA_ERROR_INVALID_DEVICE;
	*pool_out = (CUmemoryPool)device->default_pool;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetMemPool(CUmemoryPool *pool, CUdevice dev)
{
	ENTER();
	struct device *device = device_get(dev);
	if (!pool)
		return CUDA_ERROR_INVALID_VALUE;
	if (!device)
		return CUDA_ERROR_INVALID_DEVICE;
	*pool = (CUmemoryPool)device->current_pool;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceSetMemPool(CUdevice dev, CUmemoryPool handle)
{
	ENTER();
	struct device *device = device_get(dev);
	struct pool *pool = get(handle);
	if (!device)
		return CUDA_ERROR_INVALID_DEVICE;
	if (!pool || pool->device != device)
		return CUDA_ERROR_INVALID_VALUE;
	device->current_pool = pool;
	return CUDA_SUCCESS;
}

/* The same by place: pools are of device memory alone. */
static CUresult pool_location(const CUmemLocation *location, CUmemAllocationType type)
{
	if (!location)
		return CUDA_ERROR_INVALID_VALUE;
	int device = location->type == CU_MEM_LOCATION_TYPE_DEVICE && type == CU_MEM_ALLOCATION_TYPE_PINNED;
	return device ? CUDA_SUCCESS : CUDA_ERROR_NOT_SUPPORTED;
}

EXPORT CUresult cuMemGetDefaultMemPool(CUmemoryPool *pool_out, CUmemLocation *location, CUmemAllocationType type)
{
	TRY(pool_location(location, type));
	return cuDeviceGetDefaultMemPool(pool_out, location->id);
}

EXPORT CUresult cuMemGetMemPool(CUmemoryPool *pool, CUmemLocation *location, CUmemAllocationType type)
{
	TRY(pool_location(location, type));
	return cuDeviceGetMemPool(pool, location->id);
}

EXPORT CUresult cuMemSetMemPool(CUmemLocation *location, CUmemAllocationType type, CUmemoryPool pool)
{
	TRY(pool_location(location, type));
	return cuDeviceSetMemPool(location->id, pool);
}

EXPORT CUresult cuMemPoolCreate(CUmemoryPool *result, const CUmemPoolProps *poolProps)
{
	ENTER();
	if (!result || !poolProps || poolProps->allocType != CU_MEM_ALLOCATION_TYPE_PINNED)
		return CUDA_ERROR_INVALID_VALUE;
	if (poolProps->handleTypes != CU_MEM_HANDLE_TYPE_NONE ||
	    poolProps->location.type != CU_MEM_LOCATION_TYPE_DEVICE)
		return CUDA_ERROR_NOT_SUPPORTED;
	struct device *device = device_get(poolProps->location.id);
	if (!device)
		return CUDA_ERROR_INVALID_DEVICE;
	struct pool *pool = pool_new(device);
	if (!pool)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*result = (CUmemoryPool)pool;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuMemPoolDestroy(CUmemoryPool handle)
{
	ENTER();
	struct pool *pool = get(handle);
	if (!pool || pool->is_default)
		return CUDA_ERROR_INVALID_VALUE;
	if (pool->device->current_pool == pool)
		pool->device->current_pool = pool->device->default_pool;
	pthread_mutex_lock(&memory_lock);
	pool->ended = 1;
	pool_gives(pool, UINT64_MAX);
	pthread_mutex_unlock(&memory_lock);
	/* its allocations may live on; only the handle ends. The object stays for them. */
	object_retire(pool);
	return CUDA_SUCCESS;
}

EXPORT CUresult cuMemPoolTrimTo(CUmemoryPool handle, size_t minBytesToKeep)
{
	ENTER();
	struct pool *pool = get(handle);
	if (!pool)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&memory_lock);
	pool_shrinks(pool, minBytesToKeep);
	pthread_mutex_unlock(&memory_lock);
	return CUDA_SUCCESS;
}

static CUresult pool_value(struct pool *pool, CUmemPool_attribute attr, uint64_t *value, int **reuse)
{
	*reuse = NULL;
	switch ((int)attr) {
	case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
	case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
	case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
		*reuse = &pool->reuse[attr - CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES];
		return CUDA_SUCCESS;
	case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD: *value = pool->release_threshold; return CUDA_SUCCESS;
	case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT: *value = pool->held + pool->kept; return CUDA_SUCCESS;
	case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH: *value = pool->reserved_high; return CUDA_SUCCESS;
	case CU_MEMPOOL_ATTR_USED_MEM_CURRENT: *value = pool->used; return CUDA_SUCCESS;
	case CU_MEMPOOL_ATTR_USED_MEM_HIGH: *value = pool->high; return CUDA_SUCCESS;
	default: return CUDA_ERROR_INVALID_VALUE;
	}
}

EXPORT CUresult cuMemPoolGetAttribute(CUmemoryPool handle, CUmemPool_attribute attr, void *value)
{
	ENTER();
	struct pool *pool = get(handle);
	uint64_t number = 0;
	int *reuse;
	if (!pool || !value)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&memory_lock);
	CUresult result = pool_value(pool, attr, &number, &reuse);
	if (result == CUDA_SUCCESS && reuse)
		*(int *)value = *reuse;
	else if (result == CUDA_SUCCESS)
		*(cuuint64_t *)value = number;
	pthread_mutex_unlock(&memory_lock);
	return result;
}

EXPORT CUresult cuMemPoolSetAttribute(CUmemoryPool handle, CUmemPool_attribute attr, void *value)
{
	ENTER();
	struct pool *pool = get(handle);
	uint64_t number;
	int *reuse;
	if (!pool || !value)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&memory_lock);
	CUresult result = pool_value(pool, attr, &number, &reuse);
	if (result == CUDA_SUCCESS && reuse)
		*reuse = *(int *)value != 0;
	else if (attr == CU_MEMPOOL_ATTR_RELEASE_THRESHOLD)
		pool->release_threshold = *(cuuint64_t *)value;
	else if (attr == CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH)
		pool->reserved_high = *(cuuint64_t *)value ? pool->reserved_high : pool->held + pool->kept;
	else if (attr == CU_MEMPOOL_ATTR_USED_MEM_HIGH)
		pool->high = *(cuuint64_t *)value ? pool->high : pool->used; /* may only be reset */
	else
		result = CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_unlock(&memory_lock);
	return result;
}

EXPORT CUresult cuMemPoolSetAccess(CUmemoryPool handle, const CUmemAccessDesc *map, size_t count)
{
	ENTER();
	struct pool *pool = get(handle);
	if (!pool || (count && !map))
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < count; i++)
		if (map[i].location.type == CU_MEM_LOCATION_TYPE_DEVICE && !device_get(map[i].location.id))
			return CUDA_ERROR_INVALID_DEVICE;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuMemPoolGetAccess(CUmemAccess_flags *flags, CUmemoryPool memPool, CUmemLocation *location)
{
	ENTER();
	if (!flags || !location || !get(memPool))
		return CUDA_ERROR_INVALID_VALUE;
	*flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
	return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------ allocations */

/* With memory_lock held. */
static void count_used(struct pool *pool, uint64_t size)
{
	pool->used += size;
	if (pool->used > pool->high)
		pool->high = pool->used;
}

CUresult pool_take(struct pool *pool, struct context *context, uint64_t size, uint64_t *address)
{
	CUresult result = arena_allocate(pool->device, size, RANGE_POOL, context, pool, address);
	if (result == CUDA_ERROR_OUT_OF_MEMORY) { /* frees that are queued may make room */
		TRY(context_synchronize(context));
		result = arena_allocate(pool->device, size, RANGE_POOL, context, pool, address);
	}
	if (result != CUDA_SUCCESS)
		return result;
	pthread_mutex_lock(&memory_lock);
	count_used(pool, size);
	pthread_mutex_unlock(&memory_lock);
	return CUDA_SUCCESS;
}

CUresult pool_begin_free(uint64_t address)
{
	pthread_mutex_lock(&memory_lock);
	struct range *range = range_find_locked(address);
	int mine = range && range->base == address && range->kind == RANGE_POOL && !range->ending;
	if (mine) {
		range->ending = 1;
		range->pool->used -= range->size;
	}
	pthread_mutex_unlock(&memory_lock);
	return mine ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

void pool_undo_free(uint64_t address)
{
	pthread_mutex_lock(&memory_lock);
	struct range *range = range_find_locked(address);
	if (range->ending) {
		range->ending = 0;
		count_used(range->pool, range->size);
	}
	pthread_mutex_unlock(&memory_lock);
}

int pool_is_graphs(uint64_t address)
{
	struct range range;
	return range_lookup(address, &range) && range.kind == RANGE_POOL &&
	       range.pool == range.pool->device->graph_pool;
}

CUresult pool_free_begun(uint64_t address)
{
	return pool_is_graphs(address) ? CUDA_SUCCESS : arena_free(address, RANGE_POOL);
}

CUresult pool_free_now(uint64_t address)
{
	TRY(pool_begin_free(address));
	return pool_free_begun(address);
}

/* Becomes an allocation node: the address is chosen now and stays for all launches. */
static CUresult capture_allocation(struct stream *stream, struct pool *pool, uint64_t size, CUdeviceptr *result)
{
	struct work *work;
	TRY(make_allocation(pool->device, stream->context, size, &work));
	*result = work->memory.address;
	return submit(stream, work, 0);
}

static CUresult allocate(CUdeviceptr *dptr, size_t size, CUmemoryPool handle, CUstream stream_handle)
{
	struct context *context;
	struct stream *stream;
	TRY(stream_enter(stream_handle, &context, &stream));
	struct pool *pool = handle ? get(handle) : context->device->current_pool;
	if (!dptr || !size || !pool)
		return CUDA_ERROR_INVALID_VALUE;
	uint64_t address;
	if (stream->capture)
		return capture_allocation(stream, pool, size, dptr);
	TRY(pool_take(pool, context, size, &address));
	*dptr = address;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuMemAllocAsync(CUdeviceptr *dptr, size_t bytesize, CUstream hStream)
{
	return allocate(dptr, bytesize, NULL, hStream);
}

EXPORT CUresult cuMemAllocFromPoolAsync(CUdeviceptr *dptr, size_t bytesize, CUmemoryPool pool, CUstream hStream)
{
	return get(pool) ? allocate(dptr, bytesize, pool, hStream) : CUDA_ERROR_INVALID_VALUE;
}

EXPORT CUresult cuMemFreeAsync(CUdeviceptr dptr, CUstream hStream)
{
	struct context *context;
	struct stream *stream;
	struct range range;
	TRY(stream_enter(hStream, &context, &stream));
	if (!range_lookup(dptr, &range) || range.base != dptr)
		return CUDA_ERROR_INVALID_VALUE;
	if (range.kind == RANGE_DEVICE) {
		TRY(stream_synchronize(stream));
		return cuMemFree_v2(dptr);
	}
	if (range.kind != RANGE_POOL)
		return CUDA_ERROR_INVALID_VALUE;
	struct work *work = work_new(stream->capture ? WORK_RELEASE : WORK_FREE, 0);
	if (!work)
		return CUDA_ERROR_OUT_OF_MEMORY;
	work->memory.address = dptr;
	if (stream->capture)
		return submit(stream, work, 0);
	CUresult result = pool_begin_free(dptr);
	if (result != CUDA_SUCCESS) {
		work_discard(work);
		return result;
	}
	result = submit(stream, work, 0);
	if (result != CUDA_SUCCESS)
		pool_undo_free(dptr);
	return result;
}
