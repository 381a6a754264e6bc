/* SPDX-License-Identifier: Apache-2.0
 *
 * Host functions as nodes made by hand. The server's node has a ticket for one, as those have that were captured.
 */
#define _GNU_SOURCE
#include "graph.h"

static CUresult make(const CUDA_HOST_NODE_PARAMS *params, struct bf_graph_function **function)
{
	CUresult status = bf_check();

	*function = NULL;
	if (status)
		return status;
	return params && params->fn ? bf_graph_function_make(params, NULL, function) : CUDA_ERROR_INVALID_VALUE;
}

static CUresult add(CUgraphNode *node, uint64_t graph, const CUgraphNode *dependencies, size_t count,
		    struct bf_graph_function *function)
{
	const CUDA_HOST_NODE_PARAMS params = { NULL, (void *)(uintptr_t)function->ticket };
	struct bf_graph *entry = bf_handle_find(BF_GRAPH, graph);
	struct bf_graph_work *old = bf_graph_take_work(entry), *more = bf_work_without(old, NULL, NULL);
	CUresult status = more ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;

	if (!entry || !node)
		status = CUDA_ERROR_INVALID_VALUE;
	if (!status)
		status = BF_CALL(cuGraphAddHostNode, BF_ARG(node), graph, BF_ARG(dependencies), count, BF_ARG(&params));
	if (!status) {
		bf_work_append_function(more, function, BF_ARG(*node));
		bf_graph_give_work(entry, more);
		atomic_store(&bf_graphs_by_hand, true);
	} else {
		bf_work_drop(more);
	}
	bf_work_drop(old);
	return status;
}

BF_EXPORT CUresult cuGraphAddHostNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
				      size_t numDependencies, const CUDA_HOST_NODE_PARAMS *nodeParams)
{
	struct bf_graph_function *function;
	CUresult status = make(nodeParams, &function);

	if (status)
		return status;
	status = add(phGraphNode, BF_ARG(hGraph), dependencies, numDependencies, function);
	bf_graph_function_drop(function); /* the graph's now, or nobody's */
	return status;
}

static CUresult ask(CUgraphNode node, struct bf_program_node *has)
{
	CUresult status = bf_graph_ask_node(node, has);

	return !status && !has->function ? CUDA_ERROR_INVALID_VALUE : status;
}

/* The function that the node had goes, but for instances that have it. */
static CUresult set(CUgraphNode node, const struct bf_program_node *has, struct bf_graph_function *function)
{
	const CUDA_HOST_NODE_PARAMS params = { NULL, (void *)(uintptr_t)function->ticket };
	CUDA_HOST_NODE_PARAMS old_params;
	struct bf_graph_function *before = bf_ticket_function(has->function, &old_params);
	struct bf_graph *graph = bf_handle_find(BF_GRAPH, has->graph);
	struct bf_graph_work *old = bf_graph_take_work(graph), *work = bf_work_without(old, NULL, before);
	CUresult status = work ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;

	if (!graph)
		status = CUDA_ERROR_INVALID_VALUE;
	if (!status)
		status = BF_CALL(cuGraphHostNodeSetParams, BF_ARG(node), BF_ARG(&params));
	if (!status) {
		bf_work_append_function(work, function, BF_ARG(node));
		bf_graph_give_work(graph, work);
		atomic_store(&bf_graphs_by_hand, true);
	} else {
		bf_work_drop(work);
	}
	bf_work_drop(old);
	bf_graph_function_drop(before);
	return status;
}

BF_EXPORT CUresult cuGraphHostNodeSetParams(CUgraphNode hNode, const CUDA_HOST_NODE_PARAMS *nodeParams)
{
	struct bf_graph_function *function;
	struct bf_program_node has;
	CUresult status = make(nodeParams, &function);

	if (status)
		return status;
	status = ask(hNode, &has);
	if (!status)
		status = set(hNode, &has, function);
	bf_graph_function_drop(function);
	return status;
}

BF_EXPORT CUresult cuGraphHostNodeGetParams(CUgraphNode hNode, CUDA_HOST_NODE_PARAMS *nodeParams)
{
	struct bf_graph_function *function;
	struct bf_program_node has;
	CUresult status = bf_check();

	if (!status && !nodeParams)
		status = CUDA_ERROR_INVALID_VALUE;
	if (!status)
		status = ask(hNode, &has);
	if (status)
		return status;
	function = bf_ticket_function(has.function, nodeParams);
	if (!function)
		return CUDA_ERROR_UNKNOWN;
	bf_graph_function_drop(function);
	return CUDA_SUCCESS;
}
