/* SPDX-License-Identifier: Apache-2.0
 *
 * Nodes that are more than a row: those that may name memory or events of the program.
 */
#define _GNU_SOURCE
#include "graph.h"
#include "shared.h"

#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------ events: a launch records them unseen */

static void mark_external(CUevent hEvent)
{
	struct bf_event *event = bf_handle_find(BF_EVENT, BF_ARG(hEvent));

	if (event)
		atomic_store(&event->external, true);
}

BF_EXPORT CUresult cuGraphAddEventRecordNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
					     size_t numDependencies, CUevent event)
{
	mark_external(event);
	return BF_CALL(cuGraphAddEventRecordNode, BF_ARG(phGraphNode), BF_ARG(hGraph), BF_ARG(dependencies),
		       numDependencies, BF_ARG(event));
}

BF_EXPORT CUresult cuGraphEventRecordNodeSetEvent(CUgraphNode hNode, CUevent event)
{
	mark_external(event);
	return BF_CALL(cuGraphEventRecordNodeSetEvent, BF_ARG(hNode), BF_ARG(event));
}

BF_EXPORT CUresult cuGraphExecEventRecordNodeSetEvent(CUgraphExec hGraphExec, CUgraphNode hNode, CUevent event)
{
	mark_external(event);
	return BF_CALL(cuGraphExecEventRecordNodeSetEvent, BF_ARG(hGraphExec), BF_ARG(hNode), BF_ARG(event));
}

/* ------------------------------------------------------------------ attributes: not those with handles inside */

static bool has_handle(CUkernelNodeAttrID attribute)
{
	return attribute == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT ||
	       attribute == CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT ||
	       attribute == CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE;
}

BF_EXPORT CUresult cuGraphKernelNodeGetAttribute(CUgraphNode hNode, CUkernelNodeAttrID attr,
						 CUkernelNodeAttrValue *value_out)
{
	if (has_handle(attr))
		return CUDA_ERROR_NOT_SUPPORTED;
	return BF_CALL(cuGraphKernelNodeGetAttribute, BF_ARG(hNode), (uint64_t)attr, BF_ARG(value_out));
}

BF_EXPORT CUresult cuGraphKernelNodeSetAttribute(CUgraphNode hNode, CUkernelNodeAttrID attr,
						 const CUkernelNodeAttrValue *value)
{
	if (has_handle(attr))
		return CUDA_ERROR_NOT_SUPPORTED;
	return BF_CALL(cuGraphKernelNodeSetAttribute, BF_ARG(hNode), (uint64_t)attr, BF_ARG(value));
}

/* ------------------------------------------------------------------ of any kind: as the function for its kind adds it */

static CUcontext or_current(CUcontext context)
{
	if (!context)
		cuCtxGetCurrent(&context);
	return context;
}

union any {
	CUDA_KERNEL_NODE_PARAMS_v2 kernel;
	CUDA_MEMSET_NODE_PARAMS set;
	CUDA_HOST_NODE_PARAMS host;
};

/* What the function for the kind takes, which is the beginning of what the one for any kind does. */
static bool take_any(const CUgraphNodeParams *params, union any *any)
{
	if (params && params->type == CU_GRAPH_NODE_TYPE_KERNEL)
		memcpy(&any->kernel, &params->kernel, sizeof any->kernel);
	else if (params && params->type == CU_GRAPH_NODE_TYPE_MEMSET)
		memcpy(&any->set, &params->memset, sizeof any->set);
	else if (params && params->type == CU_GRAPH_NODE_TYPE_HOST)
		memcpy(&any->host, &params->host, sizeof any->host);
	return params != NULL;
}

static CUresult refuse_type(const CUgraphNodeParams *params)
{
	bf_debug("refused: a graph node of type %d", (int)params->type);
	return CUDA_ERROR_NOT_SUPPORTED;
}

/* The address is told in the parameters. */
static CUresult add_alloc(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
			  size_t numDependencies, CUgraphNodeParams *params)
{
	CUDA_MEM_ALLOC_NODE_PARAMS alloc;
	CUresult status;

	memcpy(&alloc, &params->alloc, sizeof alloc);
	status = cuGraphAddMemAllocNode(phGraphNode, hGraph, dependencies, numDependencies, &alloc);
	params->alloc.dptr = alloc.dptr;
	return status;
}

static CUresult add_any(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
			size_t numDependencies, CUgraphNodeParams *params)
{
#define HEAD phGraphNode, hGraph, dependencies, numDependencies
	union any any;

	if (!take_any(params, &any))
		return CUDA_ERROR_INVALID_VALUE;
	switch ((int)params->type) {
	case CU_GRAPH_NODE_TYPE_KERNEL: return cuGraphAddKernelNode_v2(HEAD, &any.kernel);
	case CU_GRAPH_NODE_TYPE_MEMCPY:
		return cuGraphAddMemcpyNode(HEAD, &params->memcpy.copyParams, or_current(params->memcpy.copyCtx));
	case CU_GRAPH_NODE_TYPE_MEMSET: return cuGraphAddMemsetNode(HEAD, &any.set, or_current(params->memset.ctx));
	case CU_GRAPH_NODE_TYPE_GRAPH:
		if (params->graph.ownership != CU_GRAPH_CHILD_GRAPH_OWNERSHIP_CLONE)
			return CUDA_ERROR_NOT_SUPPORTED; /* here children are always copies */
		return cuGraphAddChildGraphNode(HEAD, params->graph.graph);
	case CU_GRAPH_NODE_TYPE_EMPTY: return cuGraphAddEmptyNode(HEAD);
	case CU_GRAPH_NODE_TYPE_WAIT_EVENT: return cuGraphAddEventWaitNode(HEAD, params->eventWait.event);
	case CU_GRAPH_NODE_TYPE_EVENT_RECORD: return cuGraphAddEventRecordNode(HEAD, params->eventRecord.event);
	case CU_GRAPH_NODE_TYPE_HOST: return cuGraphAddHostNode(HEAD, &any.host);
	case CU_GRAPH_NODE_TYPE_MEM_ALLOC: return add_alloc(HEAD, params);
	case CU_GRAPH_NODE_TYPE_MEM_FREE: return cuGraphAddMemFreeNode(HEAD, params->free.dptr);
	default: return refuse_type(params);
	}
#undef HEAD
}

BF_EXPORT CUresult cuGraphAddNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
				  size_t numDependencies, CUgraphNodeParams *nodeParams)
{
	return add_any(phGraphNode, hGraph, dependencies, numDependencies, nodeParams);
}

/* Edges that let a kernel begin before the one ahead of it is over become whole ones, which order more. */
BF_EXPORT CUresult cuGraphAddNode_v2(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
				     const CUgraphEdgeData *dependencyData, size_t numDependencies,
				     CUgraphNodeParams *nodeParams)
{
	(void)dependencyData;
	return add_any(phGraphNode, hGraph, dependencies, numDependencies, nodeParams);
}

static CUresult set_any(CUgraphExec exec, CUgraphNode node, const CUgraphNodeParams *params)
{
	union any any;

	if (!take_any(params, &any))
		return CUDA_ERROR_INVALID_VALUE;
	switch ((int)params->type) {
	case CU_GRAPH_NODE_TYPE_KERNEL:
		return exec ? cuGraphExecKernelNodeSetParams_v2(exec, node, &any.kernel)
			    : cuGraphKernelNodeSetParams_v2(node, &any.kernel);
	case CU_GRAPH_NODE_TYPE_MEMCPY:
		return exec ? cuGraphExecMemcpyNodeSetParams(exec, node, &params->memcpy.copyParams,
							     or_current(params->memcpy.copyCtx))
			    : cuGraphMemcpyNodeSetParams(node, &params->memcpy.copyParams);
	case CU_GRAPH_NODE_TYPE_MEMSET:
		return exec ? cuGraphExecMemsetNodeSetParams(exec, node, &any.set, or_current(params->memset.ctx))
			    : cuGraphMemsetNodeSetParams(node, &any.set);
	case CU_GRAPH_NODE_TYPE_HOST:
		return exec ? cuGraphExecHostNodeSetParams(exec, node, &any.host)
			    : cuGraphHostNodeSetParams(node, &any.host);
	case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
		return exec ? cuGraphExecEventWaitNodeSetEvent(exec, node, params->eventWait.event)
			    : cuGraphEventWaitNodeSetEvent(node, params->eventWait.event);
	case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
		return exec ? cuGraphExecEventRecordNodeSetEvent(exec, node, params->eventRecord.event)
			    : cuGraphEventRecordNodeSetEvent(node, params->eventRecord.event);
	default: return refuse_type(params);
	}
}

BF_EXPORT CUresult cuGraphNodeSetParams(CUgraphNode hNode, CUgraphNodeParams *nodeParams)
{
	return set_any(NULL, hNode, nodeParams);
}

BF_EXPORT CUresult cuGraphExecNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode, CUgraphNodeParams *nodeParams)
{
	return hGraphExec ? set_any(hGraphExec, hNode, nodeParams) : CUDA_ERROR_INVALID_VALUE;
}
