/* SPDX-License-Identifier: Apache-2.0
 *
 * The parameters of nodes: read back, and changed in a graph or in an instance of it.
 */
#include "graph.h"
#include "node.h"

#include <stdlib.h>
#include <string.h>

static struct node *get(CUgraphNode handle, enum work_kind kind)
{
	struct node *node = object_get(handle, OBJECT_NODE);
	return node && node->work->kind == kind ? node : NULL;
}

/* ------------------------------------------------------------------ reading back */

EXPORT CUresult cuGraphKernelNodeGetParams_v2(CUgraphNode hNode, CUDA_KERNEL_NODE_PARAMS *nodeParams)
{
	ENTER();
	struct node *node = get(hNode, WORK_KERNEL);
	if (!node || !nodeParams)
		return CUDA_ERROR_INVALID_VALUE;
	const struct kernel_work *kernel = &node->work->kernel;
	const struct sg_kernel *code = kernel->function->code;
	if (!node->parameters) /* who asked before may still read them: they are the node's until it is changed */
		node->parameters = calloc(code->parameter_count + 1, sizeof *node->parameters);
	if (!node->parameters)
		return CUDA_ERROR_OUT_OF_MEMORY;
	for (unsigned i = 0; i < code->parameter_count; i++)
		node->parameters[i] = (char *)kernel->parameters + code->parameters[i].offset;
	*nodeParams = (CUDA_KERNEL_NODE_PARAMS){
		.func = (CUfunction)kernel->function,
		.kern = (CUkernel)kernel->function->kernel, /* by which CUDA's runtime knows it */
		.gridDimX = kernel->grid[0],
		.gridDimY = kernel->grid[1],
		.gridDimZ = kernel->grid[2],
		.blockDimX = kernel->block[0],
		.blockDimY = kernel->block[1],
		.blockDimZ = kernel->block[2],
		.sharedMemBytes = kernel->dynamic_shared,
		.kernelParams = code->parameter_count ? node->parameters : NULL,
		.ctx = node->context,
	};
	return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphMemcpyNodeGetParams(CUgraphNode hNode, CUDA_MEMCPY3D *nodeParams)
{
	ENTER();
	struct node *node = get(hNode, WORK_COPY);
	if (!node || !nodeParams)
		return CUDA_ERROR_INVALID_VALUE;
	*nodeParams = node->given.copy;
	if (nodeParams->WidthInBytes)
		return CUDA_SUCCESS;
	const struct copy_work *copy = &node->work->copy; /* captured: what it amounts to */
	*nodeParams = (CUDA_MEMCPY3D){
		.srcMemoryType = CU_MEMORYTYPE_UNIFIED,
		.srcDevice = copy->source,
		.srcPitch = copy->source_pitch,
		.srcHeight = copy->height,
		.dstMemoryType = CU_MEMORYTYPE_UNIFIED,
		.dstDevice = copy->target,
		.dstPitch = copy->target_pitch,
		.dstHeight = copy->height,
		.WidthInBytes = copy->width,
		.Height = copy->height,
		.Depth = copy->depth,
	};
	return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphMemsetNodeGetParams(CUgraphNode hNode, CUDA_MEMSET_NODE_PARAMS *nodeParams)
{
	ENTER();
	struct node *node = get(hNode, WORK_SET);
	if (!node || !nodeParams)
		return CUDA_ERROR_INVALID_VALUE;
	const struct set_work *set = &node->work->set;
	*nodeParams =
		(CUDA_MEMSET_NODE_PARAMS){ set->target, set->pitch, set->value, set->element, set->width, set->height };
	return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphHostNodeGetParams(CUgraphNode hNode, CUDA_HOST_NODE_PARAMS *nodeParams)
{
	ENTER();
	struct node *node = get(hNode, WORK_HOST);
	if (!node || !nodeParams)
		return CUDA_ERROR_INVALID_VALUE;
	*nodeParams = (CUDA_HOST_NODE_PARAMS){ node->work->host.function, node->work->host.data };
	return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphChildGraphNodeGetGraph(CUgraphNode hNode, CUgraph *phGraph)
{
	ENTER();
	struct node *node = get(hNode, WORK_CHILD);
	if (!node || !phGraph)
		return CUDA_ERROR_INVALID_VALUE;
	*phGraph = (CUgraph)node->child;
	return CUDA_SUCCESS;
}

static CUresult get_event(CUgraphNode handle, enum work_kind kind, CUevent *event)
{
	ENTER();
	struct node *node = get(handle, kind);
	if (!node || !event)
		return CUDA_ERROR_INVALID_VALUE;
	*event = (CUevent)node->work->record.event;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphEventRecordNodeGetEvent(CUgraphNode hNode, CUevent *event_out)
{
	return get_event(hNode, WORK_RECORD, event_out);
}

EXPORT CUresult cuGraphEventWaitNodeGetEvent(CUgraphNode hNode, CUevent *event_out)
{
	return get_event(hNode, WORK_EVENT_WAIT, event_out);
}

EXPORT CUresult cuGraphMemAllocNodeGetParams(CUgraphNode hNode, CUDA_MEM_ALLOC_NODE_PARAMS *params_out)
{
	ENTER();
	struct node *node = get(hNode, WORK_ALLOCATE);
	if (!node || !params_out)
		return CUDA_ERROR_INVALID_VALUE;
	*params_out = node->given.allocate;
	params_out->bytesize = node->work->memory.size;
	params_out->dptr = node->work->memory.address;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphMemFreeNodeGetParams(CUgraphNode hNode, CUdeviceptr *dptr_out)
{
	ENTER();
	struct node *node = get(hNode, WORK_RELEASE);
	if (!node || !dptr_out)
		return CUDA_ERROR_INVALID_VALUE;
	*dptr_out = node->work->memory.address;
	return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------ changing: a node, or a step of an instance */

/* Takes the work over. The node's own when there is no instance. */
static CUresult replace(CUgraphExec exec, CUgraphNode handle, struct work *work)
{
	if (exec)
		return exec_replace(exec, handle, work);
	struct node *node = get(handle, work->kind);
	pthread_mutex_lock(&queue_lock);
	if (node) {
		struct work *old = node->work;
		if (work->kind == WORK_KERNEL) {
			memcpy(work->kernel.cluster, old->kernel.cluster, sizeof work->kernel.cluster);
			work->kernel.cooperative = old->kernel.cooperative;
		}
		node->work = work;
		free(node->parameters);
		node->parameters = NULL;
		memset(&node->given, 0, sizeof node->given);
		work = old;
	}
	work_free(work);
	pthread_mutex_unlock(&queue_lock);
	return node ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

#define CHANGE(exec, make) \
	do { \
		struct work *work; \
		TRY(make); \
		return replace(exec, hNode, work); \
	} while (0)

EXPORT CUresult cuGraphKernelNodeSetParams_v2(CUgraphNode hNode, const CUDA_KERNEL_NODE_PARAMS *nodeParams)
{
	CHANGE(NULL, make_kernel(nodeParams, &work));
}

EXPORT CUresult cuGraphExecKernelNodeSetParams_v2(CUgraphExec hGraphExec, CUgraphNode hNode,
						  const CUDA_KERNEL_NODE_PARAMS *nodeParams)
{
	if (!hGraphExec)
		return CUDA_ERROR_INVALID_VALUE;
	CHANGE(hGraphExec, make_kernel(nodeParams, &work));
}

EXPORT CUresult cuGraphMemcpyNodeSetParams(CUgraphNode hNode, const CUDA_MEMCPY3D *nodeParams)
{
	struct work *work;
	TRY(make_copy(nodeParams, &work));
	TRY(replace(NULL, hNode, work));
	get(hNode, WORK_COPY)->given.copy = *nodeParams;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphExecMemcpyNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode,
					       const CUDA_MEMCPY3D *copyParams, CUcontext ctx)
{
	(void)ctx;
	if (!hGraphExec)
		return CUDA_ERROR_INVALID_VALUE;
	CHANGE(hGraphExec, make_copy(copyParams, &work));
}

EXPORT CUresult cuGraphMemsetNodeSetParams(CUgraphNode hNode, const CUDA_MEMSET_NODE_PARAMS *nodeParams)
{
	CHANGE(NULL, make_set(nodeParams, &work));
}

EXPORT CUresult cuGraphExecMemsetNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode,
					       const CUDA_MEMSET_NODE_PARAMS *memsetParams, CUcontext ctx)
{
	(void)ctx;
	if (!hGraphExec)
		return CUDA_ERROR_INVALID_VALUE;
	CHANGE(hGraphExec, make_set(memsetParams, &work));
}

EXPORT CUresult cuGraphHostNodeSetParams(CUgraphNode hNode, const CUDA_HOST_NODE_PARAMS *nodeParams)
{
	CHANGE(NULL, make_host(nodeParams, &work));
}

EXPORT CUresult cuGraphExecHostNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode,
					     const CUDA_HOST_NODE_PARAMS *nodeParams)
{
	if (!hGraphExec)
		return CUDA_ERROR_INVALID_VALUE;
	CHANGE(hGraphExec, make_host(nodeParams, &work));
}

EXPORT CUresult cuGraphEventRecordNodeSetEvent(CUgraphNode hNode, CUevent event)
{
	CHANGE(NULL, make_event(WORK_RECORD, event, &work));
}

EXPORT CUresult cuGraphEventWaitNodeSetEvent(CUgraphNode hNode, CUevent event)
{
	CHANGE(NULL, make_event(WORK_EVENT_WAIT, event, &work));
}

EXPORT CUresult cuGraphExecEventRecordNodeSetEvent(CUgraphExec hGraphExec, CUgraphNode hNode, CUevent event)
{
	if (!hGraphExec)
		return CUDA_ERROR_INVALID_VALUE;
	CHANGE(hGraphExec, make_event(WORK_RECORD, event, &work));
}

EXPORT CUresult cuGraphExecEventWaitNodeSetEvent(CUgraphExec hGraphExec, CUgraphNode hNode, CUevent event)
{
	if (!hGraphExec)
		return CUDA_ERROR_INVALID_VALUE;
	CHANGE(hGraphExec, make_event(WORK_EVENT_WAIT, event, &work));
}

/* ------------------------------------------------------------------ of any kind: in a graph, or (exec) in an instance */

static CUresult make_any(const CUgraphNodeParams *params, struct work **work)
{
	switch ((int)params->type) {
	case CU_GRAPH_NODE_TYPE_KERNEL: return make_kernel((const CUDA_KERNEL_NODE_PARAMS *)&params->kernel, work);
	case CU_GRAPH_NODE_TYPE_MEMCPY: return make_copy(&params->memcpy.copyParams, work);
	case CU_GRAPH_NODE_TYPE_MEMSET: return make_set((const CUDA_MEMSET_NODE_PARAMS *)&params->memset, work);
	case CU_GRAPH_NODE_TYPE_HOST: return make_host((const CUDA_HOST_NODE_PARAMS *)&params->host, work);
	case CU_GRAPH_NODE_TYPE_WAIT_EVENT: return make_event(WORK_EVENT_WAIT, params->eventWait.event, work);
	case CU_GRAPH_NODE_TYPE_EVENT_RECORD: return make_event(WORK_RECORD, params->eventRecord.event, work);
	default: return CUDA_ERROR_NOT_SUPPORTED;
	}
}

EXPORT CUresult cuGraphNodeSetParams(CUgraphNode hNode, CUgraphNodeParams *nodeParams)
{
	ENTER();
	if (!nodeParams)
		return CUDA_ERROR_INVALID_VALUE;
	if (nodeParams->type == CU_GRAPH_NODE_TYPE_MEMCPY) /* which remembers what it was given */
		return cuGraphMemcpyNodeSetParams(hNode, &nodeParams->memcpy.copyParams);
	CHANGE(NULL, make_any(nodeParams, &work));
}

EXPORT CUresult cuGraphExecNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode, CUgraphNodeParams *nodeParams)
{
	ENTER();
	if (!hGraphExec || !nodeParams)
		return CUDA_ERROR_INVALID_VALUE;
	CHANGE(hGraphExec, make_any(nodeParams, &work));
}
