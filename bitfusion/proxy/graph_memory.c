/* SPDX-License-Identifier: Apache-2.0
 *
 * Nodes that allocate device memory. Its address is the node's for as long as there is a graph or an instance with it;
 * each launch allocates it there anew, so that the map keeps it when the program frees it.
 */
#define _GNU_SOURCE
#include "graph.h"

#include <string.h>

static bool is_own(const CUDA_MEM_ALLOC_NODE_PARAMS *params)
{
	for (size_t i = 0; params->accessDescs && i < params->accessDescCount; i++) {
		const CUmemAccessDesc *access = &params->accessDescs[i];

		if (access->location.type != params->poolProps.location.type ||
		    access->location.id != params->poolProps.location.id ||
		    access->flags != CU_MEM_ACCESS_FLAGS_PROT_READWRITE)
			return false;
	}
	return true;
}

static CUresult keep(const CUDA_MEM_ALLOC_NODE_PARAMS *params)
{
	struct bf_range range = { .base = params->dptr,
				  .size = params->bytesize,
				  .kind = BF_RANGE_POOL,
				  .context = bf_self.current,
				  .device = params->poolProps.location.id,
				  .reserved = true,
				  .graph = true };
	CUresult status = bf_map_add(&range);

	if (!status)
		return CUDA_SUCCESS;
	bf_tell("memory of a graph is at %#llx, where the program has something already", params->dptr);
	return CUDA_ERROR_OUT_OF_MEMORY;
}

BF_EXPORT CUresult cuGraphAddMemAllocNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
					  size_t numDependencies, CUDA_MEM_ALLOC_NODE_PARAMS *nodeParams)
{
	CUDA_MEM_ALLOC_NODE_PARAMS params;
	CUresult status = bf_check();

	if (!status && (!nodeParams || !nodeParams->bytesize || !phGraphNode))
		status = CUDA_ERROR_INVALID_VALUE;
	if (!status && !is_own(nodeParams))
		return bf_absent_instead("cuGraphAddMemAllocNode with access by other devices",
					 "allocate by cuMemAllocFromPoolAsync");
	if (status)
		return status;
	params = *nodeParams;
	params.accessDescs = NULL;
	params.accessDescCount = 0;
	status = BF_CALL(cuGraphAddMemAllocNode, BF_ARG(phGraphNode), BF_ARG(hGraph), BF_ARG(dependencies),
			 numDependencies, BF_ARG(&params));
	if (!status)
		status = keep(&params);
	if (!status)
		nodeParams->dptr = params.dptr;
	return status;
}

BF_EXPORT CUresult cuGraphMemAllocNodeGetParams(CUgraphNode hNode, CUDA_MEM_ALLOC_NODE_PARAMS *params_out)
{
	if (!params_out)
		return bf_check() ? bf_check() : CUDA_ERROR_INVALID_VALUE;
	return BF_CALL(cuGraphMemAllocNodeGetParams, BF_ARG(hNode), BF_ARG(params_out));
}
