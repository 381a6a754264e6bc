/* SPDX-License-Identifier: Apache-2.0
 *
 * Kernel nodes: the values of their parameters are packed here by the kernel's layout, and spread again for a program
 * that reads them back.
 */
#define _GNU_SOURCE
#include "graph.h"
#include "shared.h"

#include <stdlib.h>
#include <string.h>

static struct bf_kernel_node *new_node(const CUDA_KERNEL_NODE_PARAMS_v2 *params, size_t packed)
{
	CUDA_KERNEL_NODE_PARAMS_v2 plain = *params;
	struct bf_kernel_node *node = calloc(1, sizeof *node + BF_PAD8(packed));

	if (!node)
		return NULL;
	plain.kernelParams = plain.extra = NULL;
	node->size = sizeof plain + packed;
	memcpy(node->params, &plain, sizeof plain);
	return node;
}

static CUresult pack(const CUDA_KERNEL_NODE_PARAMS_v2 *params, struct bf_kernel_node **node)
{
	CUfunction handle = params ? params->func ? params->func : (CUfunction)params->kern : NULL;
	const struct bf_function *function = bf_function_find(handle);
	const void *packed = NULL;
	size_t size = function ? function->parameters_size : 0;
	CUresult status = CUDA_SUCCESS;

	if (!params)
		return CUDA_ERROR_INVALID_VALUE;
	if (!function)
		return CUDA_ERROR_INVALID_HANDLE;
	if (params->extra && !params->kernelParams) {
		status = bf_extra_read(params->extra, &packed, &size);
		if (!packed)
			return CUDA_ERROR_INVALID_VALUE;
	} else if (!params->kernelParams && function->parameter_count)
		status = CUDA_ERROR_INVALID_VALUE;
	if (status || size > BF_MAX_PARAMETERS || size < function->parameters_size)
		return CUDA_ERROR_INVALID_VALUE;
	*node = new_node(params, size);
	if (!*node)
		return CUDA_ERROR_OUT_OF_MEMORY;
	if (packed)
		memcpy((*node)->packed, packed, size);
	for (uint32_t i = 0; !packed && i < function->parameter_count; i++)
		memcpy((*node)->packed + function->parameters[i].offset, params->kernelParams[i],
		       function->parameters[i].size);
	return bf_shared_in_use() ? bf_shared_touch_words((*node)->packed, size) : CUDA_SUCCESS;
}

static CUDA_KERNEL_NODE_PARAMS_v2 widen(const CUDA_KERNEL_NODE_PARAMS_v1 *params)
{
	CUDA_KERNEL_NODE_PARAMS_v2 wide = { 0 };

	memcpy(&wide, params, sizeof *params);
	return wide;
}

static CUresult add_kernel(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
			   size_t numDependencies, const CUDA_KERNEL_NODE_PARAMS_v2 *params)
{
	struct bf_kernel_node *node = NULL;
	CUresult status = bf_check();

	if (!status)
		status = pack(params, &node);
	if (!status)
		status = BF_CALL(cuGraphAddKernelNode_v2, BF_ARG(phGraphNode), BF_ARG(hGraph), BF_ARG(dependencies),
				 numDependencies, BF_ARG(node));
	free(node);
	return status;
}

static CUresult set_kernel(CUgraphExec hGraphExec, CUgraphNode hNode, const CUDA_KERNEL_NODE_PARAMS_v2 *params)
{
	struct bf_kernel_node *node = NULL;
	CUresult status = bf_check();

	if (!status)
		status = pack(params, &node);
	if (!status && hGraphExec)
		status = BF_CALL(cuGraphExecKernelNodeSetParams_v2, BF_ARG(hGraphExec), BF_ARG(hNode), BF_ARG(node));
	else if (!status)
		status = BF_CALL(cuGraphKernelNodeSetParams_v2, BF_ARG(hNode), BF_ARG(node));
	free(node);
	return status;
}

BF_EXPORT CUresult cuGraphAddKernelNode_v2(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
					   size_t numDependencies, const CUDA_KERNEL_NODE_PARAMS *nodeParams)
{
	return add_kernel(phGraphNode, hGraph, dependencies, numDependencies, nodeParams);
}

BF_EXPORT CUresult cuGraphAddKernelNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
					size_t numDependencies, const CUDA_KERNEL_NODE_PARAMS_v1 *nodeParams)
{
	CUDA_KERNEL_NODE_PARAMS_v2 wide;

	if (!nodeParams)
		return CUDA_ERROR_INVALID_VALUE;
	wide = widen(nodeParams);
	return add_kernel(phGraphNode, hGraph, dependencies, numDependencies, &wide);
}

BF_EXPORT CUresult cuGraphKernelNodeSetParams_v2(CUgraphNode hNode, const CUDA_KERNEL_NODE_PARAMS *nodeParams)
{
	return set_kernel(NULL, hNode, nodeParams);
}

BF_EXPORT CUresult cuGraphKernelNodeSetParams(CUgraphNode hNode, const CUDA_KERNEL_NODE_PARAMS_v1 *nodeParams)
{
	CUDA_KERNEL_NODE_PARAMS_v2 wide;

	if (!nodeParams)
		return CUDA_ERROR_INVALID_VALUE;
	wide = widen(nodeParams);
	return set_kernel(NULL, hNode, &wide);
}

BF_EXPORT CUresult cuGraphExecKernelNodeSetParams_v2(CUgraphExec hGraphExec, CUgraphNode hNode,
						     const CUDA_KERNEL_NODE_PARAMS *nodeParams)
{
	return hGraphExec ? set_kernel(hGraphExec, hNode, nodeParams) : CUDA_ERROR_INVALID_VALUE;
}

BF_EXPORT CUresult cuGraphExecKernelNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode,
						  const CUDA_KERNEL_NODE_PARAMS_v1 *nodeParams)
{
	CUDA_KERNEL_NODE_PARAMS_v2 wide;

	if (!nodeParams || !hGraphExec)
		return CUDA_ERROR_INVALID_VALUE;
	wide = widen(nodeParams);
	return set_kernel(hGraphExec, hNode, &wide);
}

/* ------------------------------------------------------------------ reading back */

/* What a program was told of a node, by pointers that it may keep for as long as there is the node. The server uses
 * the number of one that is gone again, so there are never more than there once were nodes. */
struct told {
	struct told *next;
	CUgraphNode node;
	size_t size; /* of what is packed */
	uint32_t count;
	void **parameters;
	uint8_t *packed;
};

enum { TOLD_BUCKETS = 256 };

static struct {
	pthread_mutex_t lock;
	struct told *bucket[TOLD_BUCKETS];
} told_nodes = { .lock = PTHREAD_MUTEX_INITIALIZER };

static struct told *find_told(CUgraphNode node)
{
	struct told **bucket = &told_nodes.bucket[BF_HANDLE_INDEX(BF_ARG(node)) % TOLD_BUCKETS], *told = *bucket;

	while (told && told->node != node)
		told = told->next;
	if (told)
		return told;
	told = calloc(1, sizeof *told);
	if (!told)
		return NULL;
	told->node = node;
	told->next = *bucket;
	*bucket = told;
	return told;
}

static CUresult make_room(struct told *told, const struct bf_function *function, size_t size)
{
	void **parameters;
	uint8_t *packed;

	if (told->packed && told->size == size && told->count == function->parameter_count)
		return CUDA_SUCCESS;
	parameters = calloc(function->parameter_count + 1, sizeof *parameters);
	packed = calloc(1, size + 1);
	if (!parameters || !packed) {
		free(parameters);
		free(packed);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	free(told->parameters);
	free(told->packed);
	told->parameters = parameters;
	told->packed = packed;
	told->size = size;
	told->count = function->parameter_count;
	return CUDA_SUCCESS;
}

static CUresult tell(CUgraphNode node, const struct bf_kernel_node *from, CUDA_KERNEL_NODE_PARAMS_v2 *params)
{
	const struct bf_function *function;
	size_t size = from->size - sizeof *params;
	CUresult status = CUDA_ERROR_OUT_OF_MEMORY;
	struct told *told;

	memcpy(params, from->params, sizeof *params);
	function = bf_function_find(params->func ? params->func : (CUfunction)params->kern);
	if (!function || size < function->parameters_size)
		return CUDA_ERROR_UNKNOWN;
	params->kernelParams = params->extra = NULL;
	cuCtxGetCurrent(&params->ctx);
	if (params->kern)
		cuKernelGetFunction(&params->func, params->kern);
	if (!function->parameter_count)
		return CUDA_SUCCESS;
	pthread_mutex_lock(&told_nodes.lock);
	told = find_told(node);
	if (told)
		status = make_room(told, function, size);
	if (!status) {
		memcpy(told->packed, from->packed, size);
		for (uint32_t i = 0; i < function->parameter_count; i++)
			told->parameters[i] = told->packed + function->parameters[i].offset;
		params->kernelParams = told->parameters;
	}
	pthread_mutex_unlock(&told_nodes.lock);
	return status;
}

static CUresult read_node(CUgraphNode node, CUDA_KERNEL_NODE_PARAMS_v2 *params)
{
	const struct bf_node body = { BF_ARG(node) };
	const struct bf_kernel_node *answer;
	struct bf_wait wait = { 0 };
	CUresult status = bf_check();

	if (!status)
		status = bf_question(&wait, BF_OP_KERNEL_NODE, &body, sizeof body);
	if (status)
		return status;
	status = bf_wait_for_result(&wait);
	answer = (const struct bf_kernel_node *)wait.body;
	if (!status &&
	    (wait.body_size < sizeof *answer || answer->size < sizeof *params ||
	     answer->size > sizeof *params + BF_MAX_PARAMETERS || wait.body_size < sizeof answer->size + answer->size))
		status = CUDA_ERROR_UNKNOWN;
	if (!status)
		status = tell(node, answer, params);
	bf_wait_drop(&wait);
	return status;
}

BF_EXPORT CUresult cuGraphKernelNodeGetParams_v2(CUgraphNode hNode, CUDA_KERNEL_NODE_PARAMS *nodeParams)
{
	return nodeParams ? read_node(hNode, nodeParams) : CUDA_ERROR_INVALID_VALUE;
}

BF_EXPORT CUresult cuGraphKernelNodeGetParams(CUgraphNode hNode, CUDA_KERNEL_NODE_PARAMS_v1 *nodeParams)
{
	CUDA_KERNEL_NODE_PARAMS_v2 wide = { 0 };
	CUresult status = nodeParams ? read_node(hNode, &wide) : CUDA_ERROR_INVALID_VALUE;

	if (status)
		return status;
	memcpy(nodeParams, &wide, sizeof *nodeParams);
	return CUDA_SUCCESS;
}
