/* SPDX-License-Identifier: Apache-2.0
 *
 * Nodes of each kind: made from their parameters, added to a graph.
 */
#include "graph.h"
#include "memory.h"
#include "node.h"

#include <stdlib.h>
#include <string.h>

static struct graph *get_graph(CUgraph handle)
{
	return object_get(handle, OBJECT_GRAPH);
}

/* ------------------------------------------------------------------ parameters to work */

CUresult make_kernel(const CUDA_KERNEL_NODE_PARAMS *given, struct work **work)
{
	ENTER_CONTEXT(current);
	if (!given)
		return CUDA_ERROR_INVALID_VALUE;
	struct context *context = given->ctx ? context_get(given->ctx) : current;
	const uint32_t grid[3] = { given->gridDimX, given->gridDimY, given->gridDimZ };
	const uint32_t block[3] = { given->blockDimX, given->blockDimY, given->blockDimZ };
	CUfunction function = given->func ? given->func : (CUfunction)given->kern;
	if (!context)
		return CUDA_ERROR_INVALID_CONTEXT;
	TRY(launch_check_shape(grid, block, NULL));
	TRY(launch_prepare(context, function, grid, block, given->sharedMemBytes, given->kernelParams, given->extra,
			   work));
	CUresult result = cluster_prepare(&(*work)->kernel);
	if (result != CUDA_SUCCESS)
		work_discard(*work);
	return result;
}

CUresult make_copy(const CUDA_MEMCPY3D *given, struct work **result)
{
	struct copy_work copy;
	ENTER();
	if (!given)
		return CUDA_ERROR_INVALID_VALUE;
	TRY(copy_from_3d(given, &copy));
	struct work *work = work_new(WORK_COPY, 0);
	if (!work)
		return CUDA_ERROR_OUT_OF_MEMORY;
	work->copy = copy;
	*result = work;
	return CUDA_SUCCESS;
}

CUresult make_set(const CUDA_MEMSET_NODE_PARAMS *given, struct work **result)
{
	ENTER();
	if (!given || !given->width || !given->height)
		return CUDA_ERROR_INVALID_VALUE;
	if (given->elementSize != 1 && given->elementSize != 2 && given->elementSize != 4)
		return CUDA_ERROR_INVALID_VALUE;
	uint64_t row = given->width * given->elementSize, pitch = given->height > 1 ? given->pitch : row;
	if (given->dst % given->elementSize || pitch < row)
		return CUDA_ERROR_INVALID_VALUE;
	TRY(memory_check_device(given->dst, pitch * (given->height - 1) + row));
	struct work *work = work_new(WORK_SET, 0);
	if (!work)
		return CUDA_ERROR_OUT_OF_MEMORY;
	work->set =
		(struct set_work){ given->dst, pitch, given->width, given->height, given->value, given->elementSize };
	*result = work;
	return CUDA_SUCCESS;
}

CUresult make_host(const CUDA_HOST_NODE_PARAMS *given, struct work **result)
{
	ENTER();
	if (!given || !given->fn)
		return CUDA_ERROR_INVALID_VALUE;
	struct work *work = work_new(WORK_HOST, 0);
	if (!work)
		return CUDA_ERROR_OUT_OF_MEMORY;
	work->host = (struct host_work){ .function = given->fn, .data = given->userData };
	*result = work;
	return CUDA_SUCCESS;
}

CUresult make_event(enum work_kind kind, CUevent handle, struct work **result)
{
	ENTER();
	struct event *event = object_get(handle, OBJECT_EVENT);
	if (!event)
		return CUDA_ERROR_INVALID_VALUE;
	struct work *work = work_new(kind, 0);
	if (!work)
		return CUDA_ERROR_OUT_OF_MEMORY;
	pthread_mutex_lock(&queue_lock);
	event->references++;
	pthread_mutex_unlock(&queue_lock);
	work->record.event = event;
	*result = work;
	return CUDA_SUCCESS;
}

static CUresult make_plain(enum work_kind kind, struct work **result)
{
	ENTER();
	*result = work_new(kind, 0);
	return *result ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

/* ------------------------------------------------------------------ adding */

static CUresult add(CUgraphNode *result, CUgraph handle, const CUgraphNode *dependencies, size_t count,
		    struct work *work, struct node **made)
{
	struct graph *graph = get_graph(handle);
	struct node *node = NULL;
	CUresult status = !result || !graph || (count && !dependencies) ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
	for (size_t i = 0; i < count && status == CUDA_SUCCESS; i++) {
		const struct node *on = object_get(dependencies[i], OBJECT_NODE);
		if (!on || on->graph != graph)
			status = CUDA_ERROR_INVALID_VALUE;
	}
	pthread_mutex_lock(&queue_lock);
	if (status == CUDA_SUCCESS)
		status = node_add(graph, work, (struct node *const *)dependencies, count, &node);
	else
		work_free(work);
	pthread_mutex_unlock(&queue_lock);
	if (status != CUDA_SUCCESS)
		return status;
	node->context = (CUcontext)context_current();
	*result = (CUgraphNode)node;
	*made = node;
	return CUDA_SUCCESS;
}

#define ADD_PARAMETERS CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies, size_t numDependencies
#define ADD(work, made) add(phGraphNode, hGraph, dependencies, numDependencies, work, made)

EXPORT CUresult cuGraphAddKernelNode_v2(ADD_PARAMETERS, const CUDA_KERNEL_NODE_PARAMS *nodeParams)
{
	struct work *work;
	struct node *node;
	TRY(make_kernel(nodeParams, &work));
	return ADD(work, &node);
}

EXPORT CUresult cuGraphAddMemcpyNode(ADD_PARAMETERS, const CUDA_MEMCPY3D *copyParams, CUcontext ctx)
{
	struct work *work;
	struct node *node;
	(void)ctx; /* all memory is in reach of all */
	TRY(make_copy(copyParams, &work));
	TRY(ADD(work, &node));
	node->given.copy = *copyParams;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphAddMemsetNode(ADD_PARAMETERS, const CUDA_MEMSET_NODE_PARAMS *memsetParams, CUcontext ctx)
{
	struct work *work;
	struct node *node;
	(void)ctx;
	TRY(make_set(memsetParams, &work));
	return ADD(work, &node);
}

EXPORT CUresult cuGraphAddHostNode(ADD_PARAMETERS, const CUDA_HOST_NODE_PARAMS *nodeParams)
{
	struct work *work;
	struct node *node;
	TRY(make_host(nodeParams, &work));
	return ADD(work, &node);
}

EXPORT CUresult cuGraphAddEmptyNode(ADD_PARAMETERS)
{
	struct work *work;
	struct node *node;
	TRY(make_plain(WORK_MARKER, &work));
	return ADD(work, &node);
}

EXPORT CUresult cuGraphAddEventRecordNode(ADD_PARAMETERS, CUevent event)
{
	struct work *work;
	struct node *node;
	TRY(make_event(WORK_RECORD, event, &work));
	work->record.external = 1;
	return ADD(work, &node);
}

EXPORT CUresult cuGraphAddEventWaitNode(ADD_PARAMETERS, CUevent event)
{
	struct work *work;
	struct node *node;
	TRY(make_event(WORK_EVENT_WAIT, event, &work));
	return ADD(work, &node);
}

EXPORT CUresult cuGraphAddChildGraphNode(ADD_PARAMETERS, CUgraph childGraph)
{
	struct graph *original = get_graph(childGraph), *child;
	struct work *work;
	struct node *node;
	if (!original)
		return CUDA_ERROR_INVALID_VALUE;
	TRY(make_plain(WORK_CHILD, &work));
	pthread_mutex_lock(&queue_lock);
	CUresult result = graph_clone(original, &child);
	pthread_mutex_unlock(&queue_lock);
	if (result != CUDA_SUCCESS) {
		work_discard(work);
		return result;
	}
	result = ADD(work, &node);
	if (result == CUDA_SUCCESS) {
		child->is_child = 1;
		node->child = child;
	} else {
		pthread_mutex_lock(&queue_lock);
		graph_free(child);
		pthread_mutex_unlock(&queue_lock);
	}
	return result;
}

EXPORT CUresult cuGraphAddMemAllocNode(ADD_PARAMETERS, CUDA_MEM_ALLOC_NODE_PARAMS *nodeParams)
{
	ENTER_CONTEXT(context);
	struct work *work;
	struct node *node;
	if (!nodeParams || !nodeParams->bytesize || nodeParams->poolProps.location.type != CU_MEM_LOCATION_TYPE_DEVICE)
		return CUDA_ERROR_INVALID_VALUE;
	struct device *device = device_get(nodeParams->poolProps.location.id);
	if (!device)
		return CUDA_ERROR_INVALID_DEVICE;
	TRY(make_allocation(device, context, nodeParams->bytesize, &work));
	nodeParams->dptr = work->memory.address;
	TRY(ADD(work, &node));
	node->given.allocate = *nodeParams;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphAddMemFreeNode(ADD_PARAMETERS, CUdeviceptr dptr)
{
	struct work *work;
	struct node *node;
	struct range range;
	TRY(make_plain(WORK_RELEASE, &work));
	work->memory.address = dptr;
	if (!range_lookup(dptr, &range) || range.base != dptr || range.kind != RANGE_POOL) {
		work_discard(work);
		return CUDA_ERROR_INVALID_VALUE;
	}
	return ADD(work, &node);
}

EXPORT CUresult cuGraphAddNode_v2(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
				  const CUgraphEdgeData *dependencyData, size_t numDependencies,
				  CUgraphNodeParams *nodeParams)
{
	ENTER();
	(void)dependencyData;
	if (!nodeParams)
		return CUDA_ERROR_INVALID_VALUE;
#define HEAD phGraphNode, hGraph, dependencies, numDependencies
	switch ((int)nodeParams->type) {
	case CU_GRAPH_NODE_TYPE_KERNEL:
		return cuGraphAddKernelNode_v2(HEAD, (const CUDA_KERNEL_NODE_PARAMS *)&nodeParams->kernel);
	case CU_GRAPH_NODE_TYPE_MEMCPY:
		return cuGraphAddMemcpyNode(HEAD, &nodeParams->memcpy.copyParams, nodeParams->memcpy.copyCtx);
	case CU_GRAPH_NODE_TYPE_MEMSET:
		return cuGraphAddMemsetNode(HEAD, (const CUDA_MEMSET_NODE_PARAMS *)&nodeParams->memset,
					    nodeParams->memset.ctx);
	case CU_GRAPH_NODE_TYPE_HOST: return cuGraphAddHostNode(HEAD, (const CUDA_HOST_NODE_PARAMS *)&nodeParams->host);
	case CU_GRAPH_NODE_TYPE_GRAPH:
		if (nodeParams->graph.ownership != CU_GRAPH_CHILD_GRAPH_OWNERSHIP_CLONE)
			return CUDA_ERROR_NOT_SUPPORTED; /* children are always copies */
		return cuGraphAddChildGraphNode(HEAD, nodeParams->graph.graph);
	case CU_GRAPH_NODE_TYPE_EMPTY: return cuGraphAddEmptyNode(HEAD);
	case CU_GRAPH_NODE_TYPE_WAIT_EVENT: return cuGraphAddEventWaitNode(HEAD, nodeParams->eventWait.event);
	case CU_GRAPH_NODE_TYPE_EVENT_RECORD: return cuGraphAddEventRecordNode(HEAD, nodeParams->eventRecord.event);
	case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
		return cuGraphAddMemAllocNode(HEAD, (CUDA_MEM_ALLOC_NODE_PARAMS *)&nodeParams->alloc);
	case CU_GRAPH_NODE_TYPE_MEM_FREE: return cuGraphAddMemFreeNode(HEAD, nodeParams->free.dptr);
	default: return CUDA_ERROR_NOT_SUPPORTED;
	}
#undef HEAD
}
