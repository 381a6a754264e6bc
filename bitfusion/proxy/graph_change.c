/* SPDX-License-Identifier: Apache-2.0
 *
 * Instances of graphs, changed after they were made. What concerns the program's memory and functions is changed in
 * the work that goes with their launches too; those under way have the old one.
 */
#define _GNU_SOURCE
#include "graph.h"

#include <stdlib.h>

static struct bf_graph *instance(CUgraphExec exec)
{
	return bf_handle_find(BF_GRAPHEXEC, BF_ARG(exec));
}

/* ------------------------------------------------------------------ which copy, which function */

enum { NONE = -1 };

static int find_copy(const struct bf_graph_work *work, CUgraphNode node)
{
	for (unsigned i = 0; work && i < work->copy_count; i++)
		if (work->copies[i].node == BF_ARG(node))
			return (int)i;
	return NONE;
}

/* By the buffer that the node has in its graph, where the instance was made before anybody had to know nodes. */
static CUresult find_captured_copy(const struct bf_graph_work *work, CUgraphNode node, int *found)
{
	struct bf_program_node has;
	struct bf_graph_buffer *buffer;
	CUresult status = bf_graph_ask_node(node, &has);

	*found = NONE;
	if (status == CUDA_ERROR_INVALID_VALUE)
		return CUDA_SUCCESS; /* a node of another kind */
	buffer = status ? NULL : bf_graph_node_buffer(&has);
	if (!buffer)
		return status;
	for (unsigned i = 0; i < work->copy_count; i++)
		if (work->copies[i].buffer == buffer)
			*found = (int)i;
	bf_buffer_drop(buffer);
	return *found == NONE ? bf_absent_instead("a change of a node in an instance that another graph has updated",
						  "change the graph and update the instance")
			      : CUDA_SUCCESS;
}

static CUresult find_copy_anyhow(const struct bf_graph_work *work, CUgraphNode node, int *found)
{
	*found = find_copy(work, node);
	return *found != NONE || !work ? CUDA_SUCCESS : find_captured_copy(work, node, found);
}

static CUresult find_function(const struct bf_graph_work *work, CUgraphNode node, int *found)
{
	struct bf_program_node has;
	CUresult status = CUDA_SUCCESS;

	*found = NONE;
	for (unsigned i = 0; work && i < work->function_count; i++)
		if (work->functions[i].node == BF_ARG(node))
			*found = (int)i;
	if (*found != NONE)
		return CUDA_SUCCESS;
	status = bf_graph_ask_node(node, &has);
	for (unsigned i = 0; !status && work && i < work->function_count; i++)
		if (has.function && work->functions[i].function->ticket == has.function)
			*found = (int)i;
	return status || *found != NONE ? status : CUDA_ERROR_INVALID_VALUE;
}

/* ------------------------------------------------------------------ host functions */

static CUresult set_function(CUgraphExec exec, uint64_t node, const struct bf_graph_function *function)
{
	const CUDA_HOST_NODE_PARAMS params = { NULL, (void *)(uintptr_t)function->ticket };

	return BF_CALL(cuGraphExecHostNodeSetParams, BF_ARG(exec), node, BF_ARG(&params));
}

static struct bf_graph_work *share(struct bf_graph_work *work)
{
	if (work)
		atomic_fetch_add(&work->references, 1);
	return work;
}

/* Takes the function over. */
static void put_function(struct bf_graph_call *call, struct bf_graph_function *function, uint64_t node)
{
	bf_graph_function_drop(call->function);
	*call = (struct bf_graph_call){ function, node };
}

BF_EXPORT CUresult cuGraphExecHostNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode,
						const CUDA_HOST_NODE_PARAMS *nodeParams)
{
	struct bf_graph *graph = instance(hGraphExec);
	struct bf_graph_work *old = bf_graph_take_work(graph), *work = NULL;
	struct bf_graph_function *function = NULL;
	CUresult status = bf_check();
	int found = NONE;

	if (!status && (!graph || !nodeParams || !nodeParams->fn))
		status = CUDA_ERROR_INVALID_VALUE;
	if (!status)
		status = find_function(old, hNode, &found);
	if (!status) {
		work = bf_work_join(old, NULL);
		status = work ? bf_graph_function_make(nodeParams, share(old->functions[found].function->before),
						       &function)
			      : CUDA_ERROR_OUT_OF_MEMORY;
	}
	if (!status)
		status = set_function(hGraphExec, BF_ARG(hNode), function);
	if (!status) {
		put_function(&work->functions[found], function, BF_ARG(hNode));
		bf_graph_give_work(graph, work);
	} else {
		bf_work_drop(work);
		bf_graph_function_drop(function);
	}
	bf_work_drop(old);
	return status;
}

/* ------------------------------------------------------------------ copies */

struct change {
	CUgraphExec exec;
	const struct bf_graph_work *old;
	struct bf_graph_work *work; /* to be */
	int copy;
	struct bf_graph_buffer *buffer; /* of that copy, to be */
	struct bf_graph_function **renewed; /* for each function that brings it out; NULL for the others */
};

static bool brings(const struct bf_graph_work *before, const struct bf_graph_buffer *buffer)
{
	const struct bf_graph_copy *copy;

	for (unsigned i = 0; (copy = bf_work_brings(before, &i)); i++)
		if (copy->buffer == buffer)
			return true;
	return false;
}

/* The same with one buffer in place of another. */
static struct bf_graph_work *exchange(const struct bf_graph_work *before, const struct bf_graph_buffer *from,
				      struct bf_graph_buffer *to)
{
	struct bf_graph_work *work = bf_work_new(before->copy_count, 0);
	const struct bf_graph_copy *copy;

	for (unsigned i = 0; work && (copy = bf_work_brings(before, &i)); i++)
		bf_work_append_copy(work, copy->buffer == from ? to : copy->buffer, copy->node);
	return work;
}

static CUresult renew(struct change *change, unsigned i)
{
	const struct bf_graph_call *call = &change->old->functions[i];
	const struct bf_graph_buffer *old = change->old->copies[change->copy].buffer;
	struct bf_graph_function *function;
	struct bf_graph_work *before;
	CUDA_HOST_NODE_PARAMS params;

	if (!brings(call->function->before, old))
		return CUDA_SUCCESS;
	if (!call->node)
		return bf_absent_instead("a change of a captured copy that a host function of the instance looks at",
					 "capture the graph anew");
	function = bf_ticket_function(call->function->ticket, &params);
	before = function ? exchange(function->before, old, change->buffer) : NULL;
	bf_graph_function_drop(function);
	return before ? bf_graph_function_make(&params, before, &change->renewed[i]) : CUDA_ERROR_OUT_OF_MEMORY;
}

/* What its order allows was found out for the memory that it had. */
static CUresult check(const struct change *change)
{
	const struct bf_graph_work *old = change->old;
	const struct bf_graph_copy *copy = &old->copies[change->copy];
	bool known = copy->node != 0;

	if (!change->buffer || change->buffer->to_host != copy->buffer->to_host)
		return CUDA_ERROR_INVALID_VALUE; /* the kinds of memory stay, CUDA says */
	for (unsigned i = 0; i < old->copy_count; i++) {
		const struct bf_graph_copy *other = &old->copies[i];
		bool against = other->buffer->to_host != change->buffer->to_host;
		bool crosses = known ? against && copy->crossed && other->crossed : against || copy->buffer->to_host;

		if ((int)i != change->copy && crosses && bf_buffers_overlap(other->buffer, change->buffer))
			return bf_absent_instead("a copy of an instance that is made to write what another reads",
						 "make two graphs of it");
	}
	return CUDA_SUCCESS;
}

static CUresult prepare(struct change *change)
{
	CUresult status = check(change);

	if (status)
		return status;
	change->work = bf_work_join(change->old, NULL);
	change->renewed = calloc(change->old->function_count + 1, sizeof *change->renewed);
	if (!change->work || !change->renewed)
		return CUDA_ERROR_OUT_OF_MEMORY;
	for (unsigned i = 0; i < change->old->function_count && !status; i++)
		status = renew(change, i);
	return status;
}

/* The server has the copy's new buffer: without its functions the instance would bring out the old one. */
static CUresult follow(struct change *change, struct bf_graph *graph)
{
	struct bf_graph_copy *copy = &change->work->copies[change->copy];
	CUresult status = CUDA_SUCCESS;

	bf_buffer_drop(copy->buffer);
	copy->buffer = change->buffer;
	atomic_fetch_add(&change->buffer->references, 1);
	for (unsigned i = 0; i < change->old->function_count && !status; i++) {
		struct bf_graph_call *call = &change->work->functions[i];

		if (!change->renewed[i])
			continue;
		status = set_function(change->exec, call->node, change->renewed[i]);
		put_function(call, change->renewed[i], call->node);
		change->renewed[i] = NULL;
	}
	if (status)
		graph->broken = status;
	bf_graph_give_work(graph, change->work);
	change->work = NULL;
	return status;
}

static CUresult change_copy(struct change *change, CUgraphNode node, const CUDA_MEMCPY3D *copy, CUcontext context)
{
	CUresult status = prepare(change);

	if (!status)
		status = BF_CALL(cuGraphExecMemcpyNodeSetParams, BF_ARG(change->exec), BF_ARG(node), BF_ARG(copy),
				 BF_ARG(context));
	if (!status)
		status = follow(change, instance(change->exec));
	for (unsigned i = 0; change->renewed && i < change->old->function_count; i++)
		bf_graph_function_drop(change->renewed[i]);
	free(change->renewed);
	bf_work_drop(change->work);
	return status;
}

BF_EXPORT CUresult cuGraphExecMemcpyNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode,
						  const CUDA_MEMCPY3D *copyParams, CUcontext ctx)
{
	struct bf_graph *graph = instance(hGraphExec);
	struct bf_graph_work *work = bf_graph_take_work(graph);
	struct change change = { .exec = hGraphExec, .old = work, .copy = NONE };
	CUDA_MEMCPY3D copy;
	CUresult status = bf_graph_settle_copy("cuGraphExecMemcpyNodeSetParams", copyParams, &copy, &change.buffer);

	if (!status && !graph)
		status = CUDA_ERROR_INVALID_VALUE;
	if (!status)
		status = find_copy_anyhow(work, hNode, &change.copy);
	if (!status && change.copy != NONE)
		status = change_copy(&change, hNode, &copy, ctx);
	else if (!status)
		status = change.buffer ? CUDA_ERROR_INVALID_VALUE /* as above */
				       : BF_CALL(cuGraphExecMemcpyNodeSetParams, BF_ARG(hGraphExec), BF_ARG(hNode),
						 BF_ARG(&copy), BF_ARG(ctx));
	bf_buffer_drop(change.buffer);
	bf_work_drop(work);
	return status;
}

/* ------------------------------------------------------------------ nodes that do nothing */

static CUresult enable_copy(struct bf_graph *graph, const struct bf_graph_work *old, int copy, const uint64_t args[3])
{
	struct bf_graph_work *work;
	CUresult status;

	if (old->copies[copy].brought)
		return bf_absent_instead("a switch for a copy that a host function looks at",
					 "switch an instance of another graph");
	work = bf_work_join(old, NULL);
	status = work ? bf_call(BF_cuGraphNodeSetEnabled, args) : CUDA_ERROR_OUT_OF_MEMORY;
	if (status) {
		bf_work_drop(work);
		return status;
	}
	work->copies[copy].disabled = !args[2];
	bf_graph_give_work(graph, work);
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuGraphNodeSetEnabled(CUgraphExec hGraphExec, CUgraphNode hNode, unsigned int isEnabled)
{
	const uint64_t args[] = { BF_ARG(hGraphExec), BF_ARG(hNode), isEnabled };
	struct bf_graph *graph = instance(hGraphExec);
	struct bf_graph_work *work = bf_graph_take_work(graph);
	int copy = NONE;
	CUresult status = find_copy_anyhow(work, hNode, &copy);

	if (!status)
		status = copy == NONE ? bf_call(BF_cuGraphNodeSetEnabled, args) : enable_copy(graph, work, copy, args);
	bf_work_drop(work);
	return status;
}

/* ------------------------------------------------------------------ as a whole */

BF_EXPORT CUresult cuGraphExecUpdate(CUgraphExec hGraphExec, CUgraph hGraph, CUgraphNode *hErrorNode_out,
				     CUgraphExecUpdateResult *updateResult_out)
{
	CUresult status = atomic_load(&bf_graphs_by_hand) ? bf_graph_plan(BF_ARG(hGraph)) : CUDA_SUCCESS;

	if (!status)
		status = BF_CALL(cuGraphExecUpdate, BF_ARG(hGraphExec), BF_ARG(hGraph), BF_ARG(hErrorNode_out),
				 BF_ARG(updateResult_out));
	if (!status)
		bf_graph_copy(instance(hGraphExec), bf_handle_find(BF_GRAPH, BF_ARG(hGraph)));
	return status;
}

BF_EXPORT CUresult cuGraphExecUpdate_v2(CUgraphExec hGraphExec, CUgraph hGraph, CUgraphExecUpdateResultInfo *resultInfo)
{
	CUgraphExecUpdateResult result = CU_GRAPH_EXEC_UPDATE_ERROR;
	CUgraphNode node = NULL;
	CUresult status = cuGraphExecUpdate(hGraphExec, hGraph, &node, &result);

	if (resultInfo)
		*resultInfo = (CUgraphExecUpdateResultInfo){ .result = result, .errorNode = node };
	return status;
}

static bool has_work(struct bf_graph *graph)
{
	struct bf_graph_work *work = bf_graph_take_work(graph);

	bf_work_drop(work);
	return work != NULL;
}

BF_EXPORT CUresult cuGraphExecChildGraphNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode, CUgraph childGraph)
{
	struct bf_graph *graph = instance(hGraphExec), *child = bf_handle_find(BF_GRAPH, BF_ARG(childGraph));
	CUresult status;

	if (has_work(graph) || has_work(child))
		return bf_absent_instead("cuGraphExecChildGraphNodeSetParams with host memory or host functions",
					 "instantiate the graph anew");
	status = BF_CALL(cuGraphExecChildGraphNodeSetParams, BF_ARG(hGraphExec), BF_ARG(hNode), BF_ARG(childGraph));
	return status ? status : bf_keep_add(graph, child);
}

/* ------------------------------------------------------------------ graphs whose order changes */

/* What was found out while they were captured holds no longer. */
static void forget_order(void)
{
	if (atomic_load(&bf_works))
		atomic_store(&bf_graphs_by_hand, true);
}

/* What the node had is still the graph's, and of no instance made from now on. */
BF_EXPORT CUresult cuGraphDestroyNode(CUgraphNode hNode)
{
	forget_order();
	return BF_CALL(cuGraphDestroyNode, BF_ARG(hNode));
}

#define DEPENDENCIES(name) \
	BF_EXPORT CUresult name(CUgraph hGraph, const CUgraphNode *from, const CUgraphNode *to, \
				size_t numDependencies) \
	{ \
		forget_order(); \
		return BF_CALL(name, BF_ARG(hGraph), BF_ARG(from), BF_ARG(to), numDependencies); \
	} \
	BF_EXPORT CUresult name##_v2(CUgraph hGraph, const CUgraphNode *from, const CUgraphNode *to, \
				     const CUgraphEdgeData *edgeData, size_t numDependencies) \
	{ \
		forget_order(); \
		return BF_CALL(name##_v2, BF_ARG(hGraph), BF_ARG(from), BF_ARG(to), BF_ARG(edgeData), \
			       numDependencies); \
	}

DEPENDENCIES(cuGraphAddDependencies)
DEPENDENCIES(cuGraphRemoveDependencies)
