/* SPDX-License-Identifier: Apache-2.0
 *
 * Nodes that are more than a row: those that may name memory or events of the program.
 */
#define _GNU_SOURCE
#include "graph.h"

#include <stdlib.h>

/* ------------------------------------------------------------------ copies: between devices only */

static bool is_on_host(CUmemorytype type, const void *host, CUdeviceptr device)
{
	struct bf_range range;

	if (type == CU_MEMORYTYPE_HOST)
		return true;
	return type == CU_MEMORYTYPE_UNIFIED && (!bf_map_find(device, &range) || bf_range_is_host(&range));
}

static CUresult check_copy(const CUDA_MEMCPY3D *copy)
{
	if (!copy)
		return CUDA_ERROR_INVALID_VALUE;
	if (is_on_host(copy->srcMemoryType, copy->srcHost, copy->srcDevice) ||
	    is_on_host(copy->dstMemoryType, copy->dstHost, copy->dstDevice)) {
		bf_debug("refused: a graph node with host memory that was not captured");
		return CUDA_ERROR_NOT_SUPPORTED;
	}
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuGraphAddMemcpyNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
					size_t numDependencies, const CUDA_MEMCPY3D *copyParams, CUcontext ctx)
{
	CUresult status = check_copy(copyParams);

	return status ? status
		      : BF_CALL(cuGraphAddMemcpyNode, BF_ARG(phGraphNode), BF_ARG(hGraph), BF_ARG(dependencies),
				numDependencies, BF_ARG(copyParams), BF_ARG(ctx));
}

BF_EXPORT CUresult cuGraphMemcpyNodeSetParams(CUgraphNode hNode, const CUDA_MEMCPY3D *nodeParams)
{
	CUresult status = check_copy(nodeParams);

	return status ? status : BF_CALL(cuGraphMemcpyNodeSetParams, BF_ARG(hNode), BF_ARG(nodeParams));
}

BF_EXPORT CUresult cuGraphExecMemcpyNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode,
						  const CUDA_MEMCPY3D *copyParams, CUcontext ctx)
{
	CUresult status = check_copy(copyParams);

	return status ? status
		      : BF_CALL(cuGraphExecMemcpyNodeSetParams, BF_ARG(hGraphExec), BF_ARG(hNode),
				BF_ARG(copyParams), BF_ARG(ctx));
}

/* ------------------------------------------------------------------ events: a launch records them unseen */

static void mark_external(CUevent hEvent)
{
	struct bf_event *event = bf_handle_find(BF_EVENT, BF_ARG(hEvent));

	if (event)
		atomic_store(&event->external, true);
}

BF_EXPORT CUresult cuGraphAddEventRecordNode(CUgraphNode *phGraphNode, CUgraph hGraph,
					     const CUgraphNode *dependencies, size_t numDependencies, CUevent event)
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
