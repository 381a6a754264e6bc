/* SPDX-License-Identifier: Apache-2.0
 *
 * Nodes of graphs made by hand that name memory: copies, allocations, and what frees them.
 */
#include "copy.h"
#include "reserve.h"

#include <string.h>

/* The client settles what is unified, and has no memory of its own on either side. */
CUresult bf_node_copy(struct bf_session *session, struct bf_frame *frame)
{
	/* (exec and node, params, context), (node, params) or (node, graph, dependencies, count, params, context) */
	unsigned count = frame->route->row->argument_count, i = count == 2 ? 1 : count - 2;
	CUDA_MEMCPY3D copy;
	if (!frame->argument[i])
		return CUDA_ERROR_INVALID_VALUE;
	memcpy(&copy, (const void *)(uintptr_t)frame->argument[i], sizeof(copy));
	if (copy.srcMemoryType == CU_MEMORYTYPE_HOST || copy.dstMemoryType == CU_MEMORYTYPE_HOST)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult status = bf_translate_shape(session, &copy);
	if (status != CUDA_SUCCESS)
		return status;
	frame->argument[i] = (uint64_t)(uintptr_t)&copy;
	return bf_invoke(frame);
}

/* Counts until the program, or a node that is made, frees it. */
CUresult bf_node_alloc(struct bf_session *session, struct bf_frame *frame)
{
	CUDA_MEM_ALLOC_NODE_PARAMS *params = (CUDA_MEM_ALLOC_NODE_PARAMS *)(uintptr_t)frame->argument[4];
	if (!params)
		return CUDA_ERROR_INVALID_VALUE;
	params->accessDescs = NULL;
	params->accessDescCount = 0;
	params->poolProps.win32SecurityAttributes = NULL;
	params->dptr = 0;
	CUresult status = bf_reserve_node(session, frame, params->bytesize, (uint64_t *)&params->dptr);
	params->accessDescs = NULL;
	return status;
}

CUresult bf_node_alloc_params(struct bf_session *session, struct bf_frame *frame)
{
	CUDA_MEM_ALLOC_NODE_PARAMS *params = (CUDA_MEM_ALLOC_NODE_PARAMS *)(uintptr_t)frame->argument[1];
	CUresult status = bf_invoke(frame);
	if (!params)
		return status;
	params->accessDescs = NULL;
	params->accessDescCount = 0;
	params->poolProps.win32SecurityAttributes = NULL;
	return status;
}

CUresult bf_node_free(struct bf_session *session, struct bf_frame *frame)
{
	return bf_row_refunded(session, frame, frame->argument[4]);
}
