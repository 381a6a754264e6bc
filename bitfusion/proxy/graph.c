/* SPDX-License-Identifier: Apache-2.0
 *
 * Graphs as a whole: made from others, changed, launched, destroyed. What their launches need of this process goes
 * with them.
 */
#define _GNU_SOURCE
#include "graph.h"
#include "shared.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct bf_graph *find(enum bf_handle_kind kind, uint64_t handle)
{
	return bf_handle_find(kind, handle);
}

struct bf_graph_work *bf_graph_take_work(struct bf_graph *graph)
{
	struct bf_graph_work *work;

	pthread_mutex_lock(&lock);
	work = graph ? graph->work : NULL;
	if (work)
		atomic_fetch_add(&work->references, 1);
	pthread_mutex_unlock(&lock);
	return work;
}

void bf_graph_give_work(struct bf_graph *graph, struct bf_graph_work *work)
{
	struct bf_graph_work *old;

	pthread_mutex_lock(&lock);
	old = graph->work;
	graph->work = work;
	pthread_mutex_unlock(&lock);
	bf_work_drop(old);
}

/* Whether a node of the graph is ahead of what is captured into it is not known here: its copies are of no stream. */
CUresult bf_graph_begin_work(uint64_t handle, struct bf_graph_work **before, struct bf_graph_work **work)
{
	*before = bf_graph_take_work(find(BF_GRAPH, handle));
	if (!*before)
		return CUDA_SUCCESS;
	*work = bf_work_apart(*before, NULL);
	return *work ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

static struct bf_graph_work *join_apart(const struct bf_graph_work *one, const struct bf_graph_work *two)
{
	return bf_work_may_join(one, two) ? bf_work_join(one, two) : NULL;
}

CUresult bf_graph_set_work(uint64_t handle, const struct bf_graph_work *before, struct bf_graph_work *work)
{
	struct bf_graph *graph = find(BF_GRAPH, handle);
	struct bf_graph_work *now = bf_graph_take_work(graph);

	/* It may have got a child meanwhile. */
	struct bf_graph_work *both = now == before ? work : before ? NULL : join_apart(now, work);

	if (both != work)
		bf_work_drop(work);
	bf_work_drop(now);
	if (!both) {
		bf_tell("a stream capture fails: its graph got another one with host memory or functions meanwhile");
		return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	}
	if (graph)
		bf_graph_give_work(graph, both);
	return CUDA_SUCCESS;
}

void bf_graph_copy(struct bf_graph *to, struct bf_graph *from)
{
	bf_graph_give_work(to, bf_graph_take_work(from));
	bf_keep_copy(to, from);
}

/* ------------------------------------------------------------------ instantiating and copying */

static CUresult instantiate(CUgraphExec *phGraphExec, CUgraph hGraph, uint64_t flags)
{
	CUresult status = atomic_load(&bf_graphs_by_hand) ? bf_graph_plan(BF_ARG(hGraph)) : CUDA_SUCCESS;

	if (!status)
		status = BF_CALL(cuGraphInstantiateWithFlags, BF_ARG(phGraphExec), BF_ARG(hGraph), flags);
	if (!status)
		bf_graph_copy(find(BF_GRAPHEXEC, BF_ARG(*phGraphExec)), find(BF_GRAPH, BF_ARG(hGraph)));
	return status;
}

BF_EXPORT CUresult cuGraphInstantiateWithFlags(CUgraphExec *phGraphExec, CUgraph hGraph, unsigned long long flags)
{
	return instantiate(phGraphExec, hGraph, flags);
}

static CUresult instantiate_with_log(CUgraphExec *phGraphExec, CUgraph hGraph, CUgraphNode *phErrorNode,
				     char *logBuffer, size_t bufferSize)
{
	CUresult status = instantiate(phGraphExec, hGraph, 0);

	if (phErrorNode)
		*phErrorNode = NULL;
	if (logBuffer && bufferSize)
		*logBuffer = 0;
	return status;
}

BF_EXPORT CUresult cuGraphInstantiate(CUgraphExec *phGraphExec, CUgraph hGraph, CUgraphNode *phErrorNode,
				      char *logBuffer, size_t bufferSize)
{
	return instantiate_with_log(phGraphExec, hGraph, phErrorNode, logBuffer, bufferSize);
}

BF_EXPORT CUresult cuGraphInstantiate_v2(CUgraphExec *phGraphExec, CUgraph hGraph, CUgraphNode *phErrorNode,
					 char *logBuffer, size_t bufferSize)
{
	return instantiate_with_log(phGraphExec, hGraph, phErrorNode, logBuffer, bufferSize);
}

static CUresult instantiate_with(CUgraphExec *phGraphExec, CUgraph hGraph, CUDA_GRAPH_INSTANTIATE_PARAMS *params,
				 bool per_thread)
{
	cuuint64_t flags = params ? params->flags & ~(cuuint64_t)CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD : 0;
	CUresult status = params ? instantiate(phGraphExec, hGraph, flags) : CUDA_ERROR_INVALID_VALUE;

	if (status) {
		if (params)
			params->result_out = CUDA_GRAPH_INSTANTIATE_ERROR;
		return status;
	}
	params->hErrNode_out = NULL;
	params->result_out = CUDA_GRAPH_INSTANTIATE_SUCCESS;
	if (params->flags & CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD)
		status = (per_thread ? cuGraphUpload_ptsz : cuGraphUpload)(*phGraphExec, params->hUploadStream);
	return status;
}

BF_EXPORT CUresult cuGraphInstantiateWithParams(CUgraphExec *phGraphExec, CUgraph hGraph,
						CUDA_GRAPH_INSTANTIATE_PARAMS *instantiateParams)
{
	return instantiate_with(phGraphExec, hGraph, instantiateParams, false);
}

BF_EXPORT CUresult cuGraphInstantiateWithParams_ptsz(CUgraphExec *phGraphExec, CUgraph hGraph,
						     CUDA_GRAPH_INSTANTIATE_PARAMS *instantiateParams)
{
	return instantiate_with(phGraphExec, hGraph, instantiateParams, true);
}

BF_EXPORT CUresult cuGraphClone(CUgraph *phGraphClone, CUgraph originalGraph)
{
	CUresult status = BF_CALL(cuGraphClone, BF_ARG(phGraphClone), BF_ARG(originalGraph));

	if (!status)
		bf_graph_copy(find(BF_GRAPH, BF_ARG(*phGraphClone)), find(BF_GRAPH, BF_ARG(originalGraph)));
	return status;
}

BF_EXPORT CUresult cuGraphAddChildGraphNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
					    size_t numDependencies, CUgraph childGraph)
{
	struct bf_graph *graph = find(BF_GRAPH, BF_ARG(hGraph));
	struct bf_graph_work *own = bf_graph_take_work(graph),
			     *child = bf_graph_take_work(find(BF_GRAPH, BF_ARG(childGraph)));
	struct bf_graph_work *both = child ? bf_work_join(own, child) : NULL;
	CUresult status = child && !both ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;

	if (!bf_work_may_join(own, child)) /* it depends on the order */
		atomic_store(&bf_graphs_by_hand, true);
	if (!status) /* should the call fail after all, they are kept for longer than they need be */
		status = bf_keep_add(graph, find(BF_GRAPH, BF_ARG(childGraph)));
	if (!status)
		status = BF_CALL(cuGraphAddChildGraphNode, BF_ARG(phGraphNode), BF_ARG(hGraph), BF_ARG(dependencies),
				 numDependencies, BF_ARG(childGraph));
	if (!status && both)
		bf_graph_give_work(graph, both);
	else
		bf_work_drop(both);
	bf_work_drop(own);
	bf_work_drop(child);
	return status;
}

/* ------------------------------------------------------------------ destroying */

static CUresult destroy(unsigned call, enum bf_handle_kind kind, uint64_t handle)
{
	struct bf_graph *graph = find(kind, handle);
	CUresult status = bf_check();

	if (status)
		return status;
	if (!graph)
		return CUDA_ERROR_INVALID_VALUE;
	status = bf_call(call, &handle);
	if (!status) {
		bf_graph_give_work(graph, NULL);
		bf_keep_drop(graph);
		graph->broken = CUDA_SUCCESS; /* the next of this number is another one */
	}
	return status;
}

BF_EXPORT CUresult cuGraphDestroy(CUgraph hGraph)
{
	return destroy(BF_cuGraphDestroy, BF_GRAPH, BF_ARG(hGraph));
}

BF_EXPORT CUresult cuGraphExecDestroy(CUgraphExec hGraphExec)
{
	return destroy(BF_cuGraphExecDestroy, BF_GRAPHEXEC, BF_ARG(hGraphExec));
}

/* ------------------------------------------------------------------ launching */

/* The memory may have got a twin after the copy was captured: then that is what earlier work has written. */
static CUresult bring_in_one(const struct bf_graph_buffer *buffer, CUstream stream)
{
	CUdeviceptr twin;

	if (bf_shared_in_use() && bf_shared_find(buffer->host, buffer->size, &twin))
		return bf_copy_between(buffer->address, twin, buffer->size, stream, true);
	return bf_copy_to_device_in_order(buffer->address, buffer->host, buffer->size, stream);
}

static CUresult bring_in(const struct bf_graph_work *work, CUstream stream)
{
	CUresult status = CUDA_SUCCESS;

	for (unsigned i = 0; i < work->copy_count && !status; i++) {
		const struct bf_graph_copy *copy = &work->copies[i];

		if (!copy->buffer->to_host && !copy->disabled)
			status = bring_in_one(copy->buffer, stream);
	}
	return status;
}

static CUresult bring_out(const struct bf_graph_work *work, CUstream stream)
{
	CUresult status = CUDA_SUCCESS;

	for (unsigned i = 0; i < work->copy_count && !status; i++) {
		const struct bf_graph_copy *copy = &work->copies[i];
		const struct bf_graph_buffer *buffer = copy->buffer;

		if (buffer->to_host && !copy->brought && !copy->disabled)
			status = bf_copy_to_host(buffer->host, buffer->address, buffer->size, stream, true);
	}
	return status;
}

/* Nodes may use any shared memory that has a twin by now. */
static CUresult send_launch(CUgraphExec exec, CUstream stream)
{
	bool shared = bf_shared_in_use();
	CUresult status = shared ? bf_shared_before(stream, true) : CUDA_SUCCESS;

	if (status)
		return status;
	status = BF_CALL(cuGraphLaunch, BF_ARG(exec), BF_ARG(stream));
	if (shared)
		bf_shared_after(stream);
	return status;
}

static CUresult launch_with(const struct bf_graph_work *work, CUgraphExec exec, CUstream stream)
{
	uint64_t capture;
	CUresult status = bf_capture_find(stream, &capture);

	if (!status && capture)
		status = bf_capture_refuse(capture, "the launch of a graph that copies host memory");
	if (!status)
		status = bring_in(work, stream);
	if (status)
		return status;
	bf_callback_expect(work);
	status = send_launch(exec, stream);
	if (status)
		bf_callback_forget(work);
	return status ? status : bring_out(work, stream);
}

static CUresult launch_graph(struct bf_graph *graph, CUgraphExec exec, CUstream stream)
{
	struct bf_graph_work *work = bf_graph_take_work(graph);
	CUresult status = work ? launch_with(work, exec, stream) : send_launch(exec, stream);

	bf_work_drop(work);
	return status;
}

static CUresult launch(CUgraphExec exec, CUstream stream, bool per_thread)
{
	CUresult status = bf_check();
	struct bf_graph *graph = find(BF_GRAPHEXEC, BF_ARG(exec));
	uint64_t capture;

	if (!status)
		status = graph ? graph->broken : CUDA_ERROR_INVALID_VALUE;
	if (!status)
		status = bf_stream_resolve(&stream, per_thread);
	if (status)
		return status;
	if (!bf_keeps(graph))
		return launch_graph(graph, exec, stream);
	status = bf_capture_find(stream, &capture);
	if (!status && capture)
		status = bf_capture_keep(capture, graph);
	if (!status)
		status = launch_graph(graph, exec, stream);
	return status || capture ? status : bf_keep_launched(graph, stream);
}

BF_EXPORT CUresult cuGraphLaunch(CUgraphExec hGraphExec, CUstream hStream)
{
	return launch(hGraphExec, hStream, false);
}

BF_EXPORT CUresult cuGraphLaunch_ptsz(CUgraphExec hGraphExec, CUstream hStream)
{
	return launch(hGraphExec, hStream, true);
}
