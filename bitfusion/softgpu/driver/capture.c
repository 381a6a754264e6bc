/* SPDX-License-Identifier: Apache-2.0
 *
 * Stream capture: while it lasts, what is submitted to a stream becomes the nodes of a graph.
 */
#include "capture.h"

#include <stdlib.h>
#include <string.h>

static struct capture *active; /* under queue_lock */
static _Atomic int active_count;
static __thread CUstreamCaptureMode thread_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

static void unref(struct capture *capture)
{
	if (--capture->references)
		return;
	free(capture->streams);
	free(capture->orphans);
	free(capture);
}

CUresult set_frontier(struct stream *stream, struct node *const *nodes, unsigned count)
{
	struct node **copy = malloc((count + 1) * sizeof *copy);
	if (!copy)
		return CUDA_ERROR_OUT_OF_MEMORY;
	if (count)
		memcpy(copy, nodes, count * sizeof *copy);
	free(stream->frontier);
	stream->frontier = copy;
	stream->frontier_count = count;
	return CUDA_SUCCESS;
}

static CUresult join(struct stream *stream, struct capture *capture)
{
	struct stream **streams = realloc(capture->streams, (capture->stream_count + 1) * sizeof *streams);
	if (!streams)
		return CUDA_ERROR_OUT_OF_MEMORY;
	capture->streams = streams;
	streams[capture->stream_count++] = stream;
	stream->references++;
	stream->capture = capture;
	capture->references++;
	return CUDA_SUCCESS;
}

static void leave(struct stream *stream)
{
	struct capture *capture = stream->capture;
	stream->capture = NULL;
	free(stream->frontier);
	stream->frontier = NULL;
	stream->frontier_count = 0;
	for (unsigned i = 0; i < capture->stream_count; i++)
		if (capture->streams[i] == stream) {
			capture->streams[i] = capture->streams[--capture->stream_count];
			break;
		}
	stream_unref(stream);
	unref(capture);
}

/* The program's graph stays; one of our own goes unless it was handed out. */
static void end(struct capture *capture, int keep_graph)
{
	struct capture **at = &active;
	while (*at && *at != capture)
		at = &(*at)->next_active;
	if (*at) {
		*at = capture->next_active;
		active_count--;
	}
	capture->status = CU_STREAM_CAPTURE_STATUS_NONE;
	capture->references++;
	while (capture->stream_count)
		leave(capture->streams[0]);
	if (!keep_graph && capture->owns_graph)
		graph_free(capture->graph);
	capture->graph = NULL;
	unref(capture);
}

static CUresult invalidate(struct capture *capture, CUresult why)
{
	capture->status = CU_STREAM_CAPTURE_STATUS_INVALIDATED;
	return why;
}

void capture_invalidate(struct stream *stream)
{
	if (stream->capture)
		invalidate(stream->capture, CUDA_SUCCESS);
}

static CUresult adopt(struct capture *capture, struct node *const *nodes, unsigned count)
{
	struct node **orphans = realloc(capture->orphans, (capture->orphan_count + count + 1) * sizeof *orphans);
	if (!orphans)
		return CUDA_ERROR_OUT_OF_MEMORY;
	if (count)
		memcpy(orphans + capture->orphan_count, nodes, count * sizeof *orphans);
	capture->orphans = orphans;
	capture->orphan_count += count;
	return CUDA_SUCCESS;
}

void capture_drop(struct stream *stream)
{
	struct capture *capture = stream->capture;
	if (!capture)
		return;
	if (capture->origin == stream) {
		end(capture, 0);
		return;
	}
	if (adopt(capture, stream->frontier, stream->frontier_count) != CUDA_SUCCESS)
		invalidate(capture, CUDA_SUCCESS);
	leave(stream);
}

CUresult capture_check_unsafe(void)
{
	CUresult result = CUDA_SUCCESS;
	if (!active_count || thread_mode == CU_STREAM_CAPTURE_MODE_RELAXED)
		return CUDA_SUCCESS;
	pthread_mutex_lock(&queue_lock);
	for (struct capture *capture = active; capture; capture = capture->next_active) {
		if (capture->mode == CU_STREAM_CAPTURE_MODE_RELAXED)
			continue;
		int mine = pthread_equal(capture->thread, pthread_self());
		int all =
			capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL && thread_mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
		if (mine || all)
			result = invalidate(capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
	}
	pthread_mutex_unlock(&queue_lock);
	return result;
}

CUresult capture_check_legacy(struct context *context, struct stream *stream)
{
	if (!active_count || !stream->is_legacy)
		return CUDA_SUCCESS;
	for (struct stream *other = context->streams; other; other = other->next_in_context)
		if (other->capture && !(other->flags & CU_STREAM_NON_BLOCKING))
			return invalidate(other->capture, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
	return CUDA_SUCCESS;
}

CUresult capture_add(struct stream *stream, struct work *work, struct node **result)
{
	struct node *node;
	if (stream->capture->status != CU_STREAM_CAPTURE_STATUS_ACTIVE) {
		work_free(work);
		return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
	}
	TRY(node_add(stream->capture->graph, work, stream->frontier, stream->frontier_count, &node));
	node->context = (CUcontext)stream->context;
	if (result)
		*result = node;
	return set_frontier(stream, &node, 1);
}

void event_forget_capture(struct event *event)
{
	if (event->capture)
		unref(event->capture);
	free(event->captured);
	event->capture = NULL;
	event->captured = NULL;
	event->captured_count = 0;
}

CUresult capture_record(struct stream *stream, struct event *event)
{
	struct node **copy = malloc((stream->frontier_count + 1) * sizeof *copy);
	if (!copy)
		return CUDA_ERROR_OUT_OF_MEMORY;
	if (stream->frontier_count)
		memcpy(copy, stream->frontier, stream->frontier_count * sizeof *copy);
	event_forget_capture(event);
	event->capture = stream->capture;
	event->capture->references++;
	event->captured = copy;
	event->captured_count = stream->frontier_count;
	return CUDA_SUCCESS;
}

CUresult capture_wait(struct stream *stream, struct event *event)
{
	if (!event->capture)
		return invalidate(stream->capture, CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
	if (event->capture->status != CU_STREAM_CAPTURE_STATUS_ACTIVE)
		return CUDA_ERROR_INVALID_VALUE;
	if (stream->capture && stream->capture != event->capture) {
		invalidate(event->capture, CUDA_SUCCESS);
		return invalidate(stream->capture, CUDA_ERROR_STREAM_CAPTURE_MERGE);
	}
	if (!stream->capture) {
		if (stream->is_legacy)
			return invalidate(event->capture, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
		TRY(join(stream, event->capture));
		return set_frontier(stream, event->captured, event->captured_count);
	}
	struct node **both = malloc((stream->frontier_count + event->captured_count + 1) * sizeof *both);
	unsigned count = stream->frontier_count;
	if (!both)
		return CUDA_ERROR_OUT_OF_MEMORY;
	if (count)
		memcpy(both, stream->frontier, count * sizeof *both);
	for (unsigned i = 0; i < event->captured_count; i++)
		if (!node_reaches(both, count, event->captured[i]))
			both[count++] = event->captured[i];
	CUresult result = set_frontier(stream, both, count);
	free(both);
	return result;
}

/* ------------------------------------------------------------------ the API */

static CUresult begin(struct stream *stream, CUstreamCaptureMode mode, struct graph *graph,
		      struct node *const *dependencies, size_t count)
{
	static uint64_t last_id;
	if (stream->is_legacy)
		return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	if (stream->capture)
		return CUDA_ERROR_ILLEGAL_STATE;
	struct capture *capture = calloc(1, sizeof *capture);
	if (!capture)
		return CUDA_ERROR_OUT_OF_MEMORY;
	capture->owns_graph = !graph;
	capture->graph = graph ? graph : graph_new();
	capture->id = ++last_id;
	capture->mode = mode;
	capture->status = CU_STREAM_CAPTURE_STATUS_ACTIVE;
	capture->origin = stream;
	capture->thread = pthread_self();
	CUresult result = capture->graph ? join(stream, capture) : CUDA_ERROR_OUT_OF_MEMORY;
	if (result == CUDA_SUCCESS)
		result = set_frontier(stream, dependencies, (unsigned)count);
	if (result != CUDA_SUCCESS) {
		free(capture);
		return result;
	}
	capture->next_active = active;
	active = capture;
	active_count++;
	return CUDA_SUCCESS;
}

static CUresult begin_capture(CUstream handle, CUstreamCaptureMode mode, CUgraph graph_handle, int to_graph,
			      const CUgraphNode *dependencies, size_t count)
{
	struct context *context;
	struct stream *stream;
	TRY(stream_enter(handle, &context, &stream));
	struct graph *graph = object_get(graph_handle, OBJECT_GRAPH);
	if ((int)mode < 0 || mode > CU_STREAM_CAPTURE_MODE_RELAXED || (to_graph && !graph) || (count && !dependencies))
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < count; i++) {
		struct node *node = object_get(dependencies[i], OBJECT_NODE);
		if (!node || node->graph != graph)
			return CUDA_ERROR_INVALID_VALUE;
	}
	pthread_mutex_lock(&queue_lock);
	CUresult result = begin(stream, mode, graph, (struct node *const *)dependencies, count);
	pthread_mutex_unlock(&queue_lock);
	return result;
}

EXPORT CUresult cuStreamBeginCapture_v2(CUstream hStream, CUstreamCaptureMode mode)
{
	return begin_capture(hStream, mode, NULL, 0, NULL, 0);
}

EXPORT CUresult cuStreamBeginCapture(CUstream hStream)
{
	return begin_capture(hStream, CU_STREAM_CAPTURE_MODE_GLOBAL, NULL, 0, NULL, 0);
}

EXPORT CUresult cuStreamBeginCaptureToGraph(CUstream hStream, CUgraph hGraph, const CUgraphNode *dependencies,
					    const CUgraphEdgeData *dependencyData, size_t numDependencies,
					    CUstreamCaptureMode mode)
{
	(void)dependencyData;
	return begin_capture(hStream, mode, hGraph, 1, dependencies, numDependencies);
}

static int reaches_all(const struct stream *stream, struct node *const *nodes, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (!node_reaches(stream->frontier, stream->frontier_count, nodes[i]))
			return 0;
	return 1;
}

/* Every stream that joined must have been joined again, also one that is gone. */
static int unjoined(const struct capture *capture)
{
	const struct stream *origin = capture->origin;
	for (unsigned i = 0; i < capture->stream_count; i++)
		if (!reaches_all(origin, capture->streams[i]->frontier, capture->streams[i]->frontier_count))
			return 1;
	return !reaches_all(origin, capture->orphans, capture->orphan_count);
}

static CUresult end_capture(struct stream *stream, CUgraph *graph)
{
	struct capture *capture = stream->capture;
	*graph = NULL;
	if (!capture)
		return CUDA_ERROR_ILLEGAL_STATE;
	if (capture->origin != stream)
		return invalidate(capture, CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
	if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED && !pthread_equal(capture->thread, pthread_self()))
		return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
	CUresult result = CUDA_SUCCESS;
	if (capture->status != CU_STREAM_CAPTURE_STATUS_ACTIVE)
		result = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
	else if (unjoined(capture))
		result = CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
	if (result == CUDA_SUCCESS)
		*graph = (CUgraph)capture->graph;
	end(capture, result == CUDA_SUCCESS);
	return result;
}

EXPORT CUresult cuStreamEndCapture(CUstream hStream, CUgraph *phGraph)
{
	struct context *context;
	struct stream *stream;
	TRY(stream_enter(hStream, &context, &stream));
	if (!phGraph)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&queue_lock);
	CUresult result = end_capture(stream, phGraph);
	pthread_mutex_unlock(&queue_lock);
	return result;
}

EXPORT CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode)
{
	ENTER();
	if (!mode || (int)*mode < 0 || *mode > CU_STREAM_CAPTURE_MODE_RELAXED)
		return CUDA_ERROR_INVALID_VALUE;
	CUstreamCaptureMode before = thread_mode;
	thread_mode = *mode;
	*mode = before;
	return CUDA_SUCCESS;
}
