/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory of allocation nodes. Its address is chosen with the node and kept as long as a graph or an instance has that
 * node: what is freed, by a node or by the program, is allocated there again when the graph is launched again.
 */
#include "graph.h"
#include "memory.h"
#include "node.h"

#include <stdlib.h>

CUresult make_allocation(struct device *device, struct context *context, uint64_t size, struct work **result)
{
	struct work *work = work_new(WORK_ALLOCATE, 0);
	struct graph_memory *memory = calloc(1, sizeof *memory);
	CUresult status = CUDA_ERROR_OUT_OF_MEMORY;
	if (work && memory)
		status = pool_take(device->graph_pool, context, size, &memory->address);
	if (status != CUDA_SUCCESS) {
		free(memory);
		free(work);
		return status;
	}
	memory->references = 1;
	work->memory.address = memory->address;
	work->memory.size = size;
	work->memory.owned = memory;
	*result = work;
	return CUDA_SUCCESS;
}

void graph_memory_unref(struct graph_memory *memory)
{
	if (--memory->references)
		return;
	pool_begin_free(memory->address); /* unless it was freed last */
	arena_free(memory->address, RANGE_POOL);
	free(memory);
}

void graph_memory_launch(const struct exec_plan *plan)
{
	for (unsigned i = 0; i < plan->count; i++) {
		const struct work *work = plan->steps[i].work;
		if (plan->steps[i].enabled && work->kind == WORK_ALLOCATE)
			pool_undo_free(work->memory.address);
		else if (plan->steps[i].enabled && work->kind == WORK_RELEASE && pool_is_graphs(work->memory.address))
			pool_begin_free(work->memory.address);
	}
}

/* ------------------------------------------------------------------ the API */

EXPORT CUresult cuDeviceGraphMemTrim(CUdevice device)
{
	ENTER();
	struct device *found = device_get(device);
	if (!found)
		return CUDA_ERROR_INVALID_DEVICE;
	pthread_mutex_lock(&memory_lock);
	pool_gives(found->graph_pool, UINT64_MAX); /* all that no graph has */
	pthread_mutex_unlock(&memory_lock);
	return CUDA_SUCCESS;
}

static CUresult read_attribute(const struct pool *pool, CUgraphMem_attribute attr, cuuint64_t *value)
{
	switch ((int)attr) {
	case CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT: *value = pool->used; return CUDA_SUCCESS;
	case CU_GRAPH_MEM_ATTR_USED_MEM_HIGH: *value = pool->high; return CUDA_SUCCESS;
	case CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT: *value = pool->held + pool->kept; return CUDA_SUCCESS;
	case CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH: *value = pool->reserved_high; return CUDA_SUCCESS;
	default: return CUDA_ERROR_INVALID_VALUE;
	}
}

static int is_high(CUgraphMem_attribute attr)
{
	return attr == CU_GRAPH_MEM_ATTR_USED_MEM_HIGH || attr == CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH;
}

EXPORT CUresult cuDeviceGetGraphMemAttribute(CUdevice device, CUgraphMem_attribute attr, void *value)
{
	ENTER();
	struct device *found = device_get(device);
	if (!value)
		return CUDA_ERROR_INVALID_VALUE;
	if (!found)
		return CUDA_ERROR_INVALID_DEVICE;
	pthread_mutex_lock(&memory_lock);
	CUresult result = read_attribute(found->graph_pool, attr, value);
	pthread_mutex_unlock(&memory_lock);
	return result;
}

/* High marks alone can be set, and to 0 alone: they begin again. */
EXPORT CUresult cuDeviceSetGraphMemAttribute(CUdevice device, CUgraphMem_attribute attr, void *value)
{
	ENTER();
	struct device *found = device_get(device);
	if (!value || !is_high(attr) || *(const cuuint64_t *)value)
		return CUDA_ERROR_INVALID_VALUE;
	if (!found)
		return CUDA_ERROR_INVALID_DEVICE;
	struct pool *pool = found->graph_pool;
	pthread_mutex_lock(&memory_lock);
	if (attr == CU_GRAPH_MEM_ATTR_USED_MEM_HIGH)
		pool->high = pool->used;
	else
		pool->reserved_high = pool->held + pool->kept;
	pthread_mutex_unlock(&memory_lock);
	return CUDA_SUCCESS;
}
