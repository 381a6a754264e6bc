/* SPDX-License-Identifier: Apache-2.0
 *
 * Instances of graphs, and launching them.
 */
#include "graph.h"
#include "node.h"

#include <stdlib.h>
#include <string.h>

static struct exec *get(CUgraphExec handle)
{
	return object_get(handle, OBJECT_EXEC);
}

EXPORT CUresult cuGraphInstantiateWithFlags(CUgraphExec *phGraphExec, CUgraph hGraph, unsigned long long flags)
{
	ENTER_CONTEXT(context);
	struct graph *graph = object_get(hGraph, OBJECT_GRAPH);
	unsigned known = CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH | CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD |
			 CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY;
	if (!phGraphExec || !graph)
		return CUDA_ERROR_INVALID_VALUE;
	if (flags & ~(unsigned long long)known)
		return flags & CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH ? CUDA_ERROR_NOT_SUPPORTED
									 : CUDA_ERROR_INVALID_VALUE;
	struct exec *exec = object_new(OBJECT_EXEC, sizeof *exec);
	if (!exec)
		return CUDA_ERROR_OUT_OF_MEMORY;
	pthread_mutex_lock(&queue_lock);
	CUresult result = graph_plan(graph, &exec->plan);
	exec->id = graph->id;
	pthread_mutex_unlock(&queue_lock);
	exec->context = context;
	exec->flags = flags;
	if (result == CUDA_SUCCESS)
		*phGraphExec = (CUgraphExec)exec;
	else
		object_free(exec);
	return result;
}

EXPORT CUresult cuGraphInstantiateWithParams(CUgraphExec *phGraphExec, CUgraph hGraph,
					     CUDA_GRAPH_INSTANTIATE_PARAMS *instantiateParams)
{
	if (!instantiateParams)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = cuGraphInstantiateWithFlags(phGraphExec, hGraph, instantiateParams->flags);
	instantiateParams->hErrNode_out = NULL;
	instantiateParams->result_out =
		result == CUDA_SUCCESS ? CUDA_GRAPH_INSTANTIATE_SUCCESS : CUDA_GRAPH_INSTANTIATE_ERROR;
	return result;
}

EXPORT CUresult cuGraphInstantiateWithParams_ptsz(CUgraphExec *phGraphExec, CUgraph hGraph,
						  CUDA_GRAPH_INSTANTIATE_PARAMS *instantiateParams)
{
	return cuGraphInstantiateWithParams(phGraphExec, hGraph, instantiateParams);
}

EXPORT CUresult cuGraphInstantiate(CUgraphExec *phGraphExec, CUgraph hGraph, CUgraphNode *phErrorNode, char *logBuffer,
				   size_t bufferSize)
{
	if (phErrorNode)
		*phErrorNode = NULL;
	if (logBuffer && bufferSize)
		*logBuffer = 0;
	return cuGraphInstantiateWithFlags(phGraphExec, hGraph, 0);
}

EXPORT CUresult cuGraphInstantiate_v2(CUgraphExec *phGraphExec, CUgraph hGraph, CUgraphNode *phErrorNode,
				      char *logBuffer, size_t bufferSize)
{
	return cuGraphInstantiate(phGraphExec, hGraph, phErrorNode, logBuffer, bufferSize);
}

EXPORT CUresult cuGraphExecGetFlags(CUgraphExec hGraphExec, cuuint64_t *flags)
{
	ENTER();
	struct exec *exec = get(hGraphExec);
	if (!exec || !flags)
		return CUDA_ERROR_INVALID_VALUE;
	*flags = exec->flags;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphExecDestroy(CUgraphExec hGraphExec)
{
	ENTER();
	struct exec *exec = get(hGraphExec);
	if (!exec)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&queue_lock);
	plan_unref(exec->plan);
	pthread_mutex_unlock(&queue_lock);
	object_free(exec);
	return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------ launches; with queue_lock held */

/* A graph launched into a capture: its steps become nodes, one after the other. */
static CUresult capture_plan(struct stream *stream, const struct exec_plan *plan)
{
	struct node *last = NULL;
	for (unsigned i = 0; i < plan->count; i++) {
		struct work *copy = plan->steps[i].enabled ? work_copy(plan->steps[i].work) : NULL;
		if (!plan->steps[i].enabled)
			continue;
		if (!copy)
			return CUDA_ERROR_OUT_OF_MEMORY;
		TRY(capture_add(stream, copy, &last));
	}
	return last ? user_list_add(&last->graph->users, &plan->users) : CUDA_SUCCESS;
}

/* Recorded by a step further ahead: steps follow each other, so there is nothing to wait for. */
static int is_of_this_launch(const struct event *event, const struct stream *stream)
{
	return event->stream == stream && event->position > stream->submitted;
}

/* Events that the graph waits for are those recorded when it is launched; those it records stand for this launch. */
static CUresult bind_events(struct stream *stream, struct work *work, const struct exec_plan *plan)
{
	for (unsigned i = 0; i < plan->count; i++) {
		const struct work *step = plan->steps[i].work;
		struct event *event = step->record.event;
		if (!plan->steps[i].enabled)
			continue;
		if (step->kind == WORK_EVENT_WAIT && event->stream && !is_of_this_launch(event, stream))
			TRY(work_depend(work, event->stream, event->position));
		if (step->kind != WORK_RECORD)
			continue;
		stream->references++;
		if (event->stream)
			stream_unref(event->stream);
		event_forget_capture(event);
		event->generation++;
		event->stream = stream;
		event->position = stream->submitted + 1;
	}
	return CUDA_SUCCESS;
}

static CUresult launch(struct stream *stream, struct exec *exec)
{
	if (stream->capture)
		return capture_plan(stream, exec->plan);
	TRY(capture_check_legacy(stream->context, stream));
	struct work *work = work_new(WORK_GRAPH, 0);
	if (!work)
		return CUDA_ERROR_OUT_OF_MEMORY;
	work->plan = exec->plan;
	exec->plan->references++;
	CUresult result = bind_events(stream, work, exec->plan);
	if (result == CUDA_SUCCESS) {
		graph_memory_launch(exec->plan);
		queue_append(stream, work, 1);
	} else {
		work_free(work);
	}
	return result;
}

EXPORT CUresult cuGraphLaunch(CUgraphExec hGraphExec, CUstream hStream)
{
	struct context *context;
	struct stream *stream;
	TRY(stream_enter(hStream, &context, &stream));
	pthread_mutex_lock(&queue_lock);
	queue_make_room(stream);
	struct exec *exec = get(hGraphExec);
	CUresult result = exec ? launch(stream, exec) : CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_unlock(&queue_lock);
	return result;
}

EXPORT CUresult cuGraphUpload(CUgraphExec hGraphExec, CUstream hStream)
{
	struct context *context;
	struct stream *stream;
	TRY(stream_enter(hStream, &context, &stream));
	return get(hGraphExec) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* ------------------------------------------------------------------ changes */

/* A plan that a launch in flight still runs is left alone. With queue_lock held. */
static CUresult own_plan(struct exec *exec)
{
	struct exec_plan *plan = exec->plan;
	if (plan->references == 1)
		return CUDA_SUCCESS;
	struct exec_plan *copy = calloc(1, sizeof *copy + plan->count * sizeof(struct step));
	if (!copy)
		return CUDA_ERROR_OUT_OF_MEMORY;
	copy->references = 1;
	CUresult result = user_list_add(&copy->users, &plan->users);
	for (unsigned i = 0; i < plan->count && result == CUDA_SUCCESS; i++) {
		copy->steps[i] = plan->steps[i];
		copy->steps[i].work = work_copy(plan->steps[i].work);
		if (copy->steps[i].work)
			copy->count++;
		else
			result = CUDA_ERROR_OUT_OF_MEMORY;
	}
	if (result != CUDA_SUCCESS) {
		plan_unref(copy);
		return result;
	}
	plan_unref(plan);
	exec->plan = copy;
	return CUDA_SUCCESS;
}

static struct step *find_step(struct exec *exec, CUgraphNode handle)
{
	for (unsigned i = 0; i < exec->plan->count; i++)
		if (exec->plan->steps[i].node == (struct node *)handle)
			return &exec->plan->steps[i];
	return NULL;
}

CUresult exec_replace(CUgraphExec handle, CUgraphNode node, struct work *work)
{
	struct exec *exec = get(handle);
	pthread_mutex_lock(&queue_lock);
	CUresult result = exec ? own_plan(exec) : CUDA_ERROR_INVALID_VALUE;
	struct step *step = result == CUDA_SUCCESS ? find_step(exec, node) : NULL;
	if (result == CUDA_SUCCESS && (!step || step->work->kind != work->kind))
		result = CUDA_ERROR_INVALID_VALUE;
	if (result == CUDA_SUCCESS) {
		struct work *old = step->work;
		step->work = work;
		work = old;
	}
	work_free(work);
	pthread_mutex_unlock(&queue_lock);
	return result;
}

static int within(const struct graph *graph, const struct node *wanted)
{
	for (const struct node *node = graph->first; node; node = node->next)
		if (node == wanted || (node->child && within(node->child, wanted)))
			return 1;
	return 0;
}

/* What the nodes of a child became lies together, in the order that another graph of its shape has too. With queue_lock
 * held. */
static CUresult replace_child(struct exec *exec, const struct graph *child, struct exec_plan *plan)
{
	struct step *step = exec->plan->steps, *end = step + exec->plan->count;
	while (step < end && !within(child, step->node))
		step++;
	unsigned count = 0;
	for (; &step[count] < end && within(child, step[count].node); count++)
		if (count >= plan->count || step[count].work->kind != plan->steps[count].work->kind)
			return CUDA_ERROR_INVALID_VALUE;
	if (count != plan->count)
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned i = 0; i < count; i++) {
		struct work *old = step[i].work;
		step[i].work = plan->steps[i].work;
		plan->steps[i].work = old;
	}
	return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphExecChildGraphNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode, CUgraph childGraph)
{
	ENTER();
	struct exec *exec = get(hGraphExec);
	const struct node *node = object_get(hNode, OBJECT_NODE);
	struct graph *graph = object_get(childGraph, OBJECT_GRAPH);
	struct exec_plan *plan = NULL;
	if (!exec || !node || !node->child || !graph)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&queue_lock);
	CUresult result = graph_plan(graph, &plan);
	if (result == CUDA_SUCCESS)
		result = own_plan(exec);
	if (result == CUDA_SUCCESS)
		result = replace_child(exec, node->child, plan);
	if (result == CUDA_SUCCESS) /* what the old child kept stays until the instance ends */
		result = user_list_add(&exec->plan->users, &plan->users);
	if (plan)
		plan_unref(plan);
	pthread_mutex_unlock(&queue_lock);
	return result;
}

EXPORT CUresult cuGraphNodeSetEnabled(CUgraphExec hGraphExec, CUgraphNode hNode, unsigned int isEnabled)
{
	ENTER();
	struct exec *exec = get(hGraphExec);
	if (!exec)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&queue_lock);
	CUresult result = own_plan(exec);
	struct step *step = result == CUDA_SUCCESS ? find_step(exec, hNode) : NULL;
	if (step)
		step->enabled = isEnabled != 0;
	else if (result == CUDA_SUCCESS)
		result = CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_unlock(&queue_lock);
	return result;
}

EXPORT CUresult cuGraphNodeGetEnabled(CUgraphExec hGraphExec, CUgraphNode hNode, unsigned int *isEnabled)
{
	ENTER();
	struct exec *exec = get(hGraphExec);
	if (!exec || !isEnabled)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&queue_lock);
	struct step *step = find_step(exec, hNode);
	if (step)
		*isEnabled = (unsigned)step->enabled;
	pthread_mutex_unlock(&queue_lock);
	return step ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* With queue_lock held. The program goes on naming the nodes of the graph it instantiated. */
static CUresult update(struct exec *exec, struct graph *graph, CUgraphExecUpdateResultInfo *info)
{
	struct exec_plan *plan;
	TRY(graph_plan(graph, &plan));
	info->result = CU_GRAPH_EXEC_UPDATE_SUCCESS;
	if (plan->count != exec->plan->count)
		info->result = CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
	for (unsigned i = 0; info->result == CU_GRAPH_EXEC_UPDATE_SUCCESS && i < plan->count; i++) {
		if (plan->steps[i].work->kind != exec->plan->steps[i].work->kind) {
			info->result = CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED;
			info->errorNode = (CUgraphNode)plan->steps[i].node;
		}
		plan->steps[i].node = exec->plan->steps[i].node;
		plan->steps[i].enabled = exec->plan->steps[i].enabled;
	}
	if (info->result != CU_GRAPH_EXEC_UPDATE_SUCCESS) {
		plan_unref(plan);
		return CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
	}
	plan_unref(exec->plan);
	exec->plan = plan;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphExecUpdate_v2(CUgraphExec hGraphExec, CUgraph hGraph, CUgraphExecUpdateResultInfo *resultInfo)
{
	ENTER();
	struct exec *exec = get(hGraphExec);
	struct graph *graph = object_get(hGraph, OBJECT_GRAPH);
	if (!exec || !graph || !resultInfo)
		return CUDA_ERROR_INVALID_VALUE;
	memset(resultInfo, 0, sizeof *resultInfo);
	resultInfo->result = CU_GRAPH_EXEC_UPDATE_ERROR;
	pthread_mutex_lock(&queue_lock);
	CUresult result = update(exec, graph, resultInfo);
	pthread_mutex_unlock(&queue_lock);
	return result;
}

EXPORT CUresult cuGraphExecUpdate(CUgraphExec hGraphExec, CUgraph hGraph, CUgraphNode *hErrorNode_out,
				  CUgraphExecUpdateResult *updateResult_out)
{
	CUgraphExecUpdateResultInfo info;
	if (!updateResult_out)
		return CUDA_ERROR_INVALID_VALUE;
	CUresult result = cuGraphExecUpdate_v2(hGraphExec, hGraph, &info);
	*updateResult_out = info.result;
	if (hErrorNode_out)
		*hErrorNode_out = info.errorNode;
	return result;
}
