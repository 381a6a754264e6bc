/* SPDX-License-Identifier: Apache-2.0
 *
 * Stream capture. Libraries ask before every operation whether a stream is capturing: while no capture is open the
 * answer is known here. Inside one, copies from and to the program's memory and its functions are noted, for the
 * launches of the graph to come.
 */
#define _GNU_SOURCE
#include "graph.h"

#include <stdlib.h>

_Atomic unsigned bf_captures;

struct capture {
	struct capture *next;
	uint64_t id;
	uint64_t origin; /* the stream that it began in and must end in */
	struct bf_graph_work *work;
	CUgraphNode *nodes; /* what the latest cuStreamGetCaptureInfo told */
	CUgraphEdgeData *edges;
	size_t room;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct capture *open_captures;

static struct capture **find_origin(uint64_t stream)
{
	struct capture **link = &open_captures;

	while (*link && (*link)->origin != stream)
		link = &(*link)->next;
	return link;
}

static struct capture *find(uint64_t id)
{
	struct capture *capture = open_captures;

	while (capture && capture->id != id)
		capture = capture->next;
	return capture;
}

static CUresult add(CUstream stream, uint64_t id)
{
	struct capture *capture = calloc(1, sizeof *capture);

	if (!capture)
		return CUDA_ERROR_OUT_OF_MEMORY;
	capture->id = id;
	capture->origin = BF_ARG(stream);
	pthread_mutex_lock(&lock);
	capture->next = open_captures;
	open_captures = capture;
	atomic_fetch_add(&bf_captures, 1);
	pthread_mutex_unlock(&lock);
	return CUDA_SUCCESS;
}

/* Takes the capture that began in the stream off the list. */
static struct capture *take(CUstream stream)
{
	struct capture **link, *capture;

	pthread_mutex_lock(&lock);
	link = find_origin(BF_ARG(stream));
	capture = *link;
	if (capture) {
		*link = capture->next;
		atomic_fetch_sub(&bf_captures, 1);
	}
	pthread_mutex_unlock(&lock);
	return capture;
}

static void drop(struct capture *capture)
{
	if (!capture)
		return;
	bf_work_drop(capture->work);
	free(capture->nodes);
	free(capture->edges);
	free(capture);
}

void bf_capture_stream_destroyed(CUstream stream)
{
	if (atomic_load(&bf_captures))
		drop(take(stream));
}

CUresult bf_capture_ask(CUstream stream, uint64_t *id)
{
	CUstreamCaptureStatus state = CU_STREAM_CAPTURE_STATUS_NONE;
	cuuint64_t number = 0;
	CUresult status = BF_CALL(cuStreamGetCaptureInfo, BF_ARG(stream), BF_ARG(&state), BF_ARG(&number));

	*id = 0;
	if (status)
		return status;
	if (state == CU_STREAM_CAPTURE_STATUS_INVALIDATED)
		return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
	if (state == CU_STREAM_CAPTURE_STATUS_ACTIVE)
		*id = number;
	return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------ what is captured */

CUresult bf_capture_copy(uint64_t id, bool to_host, CUdeviceptr device, void *host, size_t size, CUstream stream)
{
	CUdeviceptr buffer = 0;
	CUresult status = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	struct capture *capture;

	pthread_mutex_lock(&lock);
	capture = find(id);
	if (capture)
		status = bf_work_add_copy(&capture->work, to_host, host, size, &buffer);
	pthread_mutex_unlock(&lock);
	if (status)
		return status;
	return to_host ? BF_CALL(cuMemcpyDtoDAsync_v2, buffer, device, size, BF_ARG(stream))
		       : BF_CALL(cuMemcpyDtoDAsync_v2, device, buffer, size, BF_ARG(stream));
}

CUresult bf_capture_function(uint64_t id)
{
	CUresult status = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	struct capture *capture;

	pthread_mutex_lock(&lock);
	capture = find(id);
	if (capture)
		status = bf_work_add_function(&capture->work);
	pthread_mutex_unlock(&lock);
	return status;
}

/* ------------------------------------------------------------------ begin and end */

static CUresult begun(CUstream stream)
{
	uint64_t id = 0;
	CUresult status = bf_capture_ask(stream, &id);

	return status ? status : add(stream, id);
}

static CUresult begin(CUstream stream, CUstreamCaptureMode mode, bool per_thread)
{
	CUresult status = bf_stream_enter(&stream, per_thread);

	if (!status)
		status = BF_CALL(cuStreamBeginCapture_v2, BF_ARG(stream), (uint64_t)mode);
	return status ? status : begun(stream);
}

static CUresult begin_to_graph(CUstream stream, const uint64_t args[5], bool per_thread)
{
	CUresult status = bf_stream_enter(&stream, per_thread);

	if (!status)
		status = BF_CALL(cuStreamBeginCaptureToGraph, BF_ARG(stream), args[0], args[1], args[2], args[3],
				 args[4]);
	return status ? status : begun(stream);
}

/* In all but these two cases the capture is over, for good or bad. */
static bool goes_on(CUresult status)
{
	return status == CUDA_ERROR_STREAM_CAPTURE_UNMATCHED || status == CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD ||
	       status == CUDA_ERROR_ILLEGAL_STATE;
}

static CUresult end(CUstream stream, CUgraph *phGraph, bool per_thread)
{
	CUresult status = bf_stream_enter(&stream, per_thread);
	struct capture *capture;

	if (status)
		return status;
	if (!phGraph)
		return CUDA_ERROR_INVALID_VALUE;
	*phGraph = NULL;
	status = BF_CALL(cuStreamEndCapture, BF_ARG(stream), BF_ARG(phGraph));
	if (goes_on(status))
		return status;
	capture = take(stream);
	if (!status && capture && capture->work) {
		bf_graph_set_work(BF_ARG(*phGraph), capture->work);
		capture->work = NULL;
	}
	drop(capture);
	return status;
}

/* ------------------------------------------------------------------ questions */

struct question {
	CUstreamCaptureStatus *state;
	cuuint64_t *id;
	CUgraph *graph;
	const CUgraphNode **nodes;
	const CUgraphEdgeData **edges;
	size_t *count;
};

static bool grow(struct capture *capture, size_t room)
{
	CUgraphNode *nodes = realloc(capture->nodes, room * sizeof *nodes);
	CUgraphEdgeData *edges;

	if (!nodes)
		return false;
	capture->nodes = nodes;
	edges = realloc(capture->edges, room * sizeof *edges);
	if (!edges)
		return false;
	capture->edges = edges;
	capture->room = room;
	return true;
}

/* With the lock held: the arrays belong to the capture. */
static CUresult ask_for_nodes(struct capture *capture, CUstream stream, const struct question *question)
{
	size_t count = 0;
	CUresult status;

	do {
		if (count >= capture->room && !grow(capture, count + 16))
			return CUDA_ERROR_OUT_OF_MEMORY;
		count = capture->room;
		status = BF_CALL(cuStreamGetCaptureInfo_v3, BF_ARG(stream), BF_ARG(question->state),
				 BF_ARG(question->id), BF_ARG(question->graph), BF_ARG(capture->nodes),
				 question->edges ? BF_ARG(capture->edges) : 0, BF_ARG(&count));
	} while (!status && count > capture->room);
	if (status)
		return status;
	if (question->nodes)
		*question->nodes = capture->nodes;
	if (question->edges)
		*question->edges = capture->edges;
	if (question->count)
		*question->count = count;
	return CUDA_SUCCESS;
}

static CUresult ask_all(CUstream stream, const struct question *question)
{
	CUresult status;
	uint64_t id;
	struct capture *capture;

	if (!question->graph && !question->nodes && !question->edges && !question->count)
		return BF_CALL(cuStreamGetCaptureInfo, BF_ARG(stream), BF_ARG(question->state), BF_ARG(question->id));
	status = BF_CALL(cuStreamGetCaptureInfo, BF_ARG(stream), BF_ARG(question->state), BF_ARG(&id));
	if (status || *question->state != CU_STREAM_CAPTURE_STATUS_ACTIVE)
		return status;
	pthread_mutex_lock(&lock);
	capture = find(id);
	status = capture ? ask_for_nodes(capture, stream, question) : CUDA_ERROR_UNKNOWN;
	pthread_mutex_unlock(&lock);
	return status;
}

static CUresult ask(CUstream stream, const struct question *question, bool per_thread)
{
	CUresult status = bf_stream_enter(&stream, per_thread);

	if (status)
		return status;
	if (!question->state)
		return CUDA_ERROR_INVALID_VALUE;
	*question->state = CU_STREAM_CAPTURE_STATUS_NONE;
	return atomic_load_explicit(&bf_captures, memory_order_relaxed) ? ask_all(stream, question) : CUDA_SUCCESS;
}

/* ------------------------------------------------------------------ entry points */

#define CAPTURE(suffix, per_thread) \
	BF_EXPORT CUresult cuStreamBeginCapture##suffix(CUstream hStream) \
	{ \
		return begin(hStream, CU_STREAM_CAPTURE_MODE_GLOBAL, per_thread); \
	} \
	BF_EXPORT CUresult cuStreamBeginCapture_v2##suffix(CUstream hStream, CUstreamCaptureMode mode) \
	{ \
		return begin(hStream, mode, per_thread); \
	} \
	BF_EXPORT CUresult cuStreamBeginCaptureToGraph##suffix( \
		CUstream hStream, CUgraph hGraph, const CUgraphNode *dependencies, \
		const CUgraphEdgeData *dependencyData, size_t numDependencies, CUstreamCaptureMode mode) \
	{ \
		return begin_to_graph(hStream, \
				      (const uint64_t[]){ BF_ARG(hGraph), BF_ARG(dependencies), \
							  BF_ARG(dependencyData), numDependencies, mode }, \
				      per_thread); \
	} \
	BF_EXPORT CUresult cuStreamEndCapture##suffix(CUstream hStream, CUgraph *phGraph) \
	{ \
		return end(hStream, phGraph, per_thread); \
	} \
	BF_EXPORT CUresult cuStreamIsCapturing##suffix(CUstream hStream, CUstreamCaptureStatus *captureStatus) \
	{ \
		return ask(hStream, &(struct question){ .state = captureStatus }, per_thread); \
	} \
	BF_EXPORT CUresult cuStreamGetCaptureInfo##suffix(CUstream hStream, CUstreamCaptureStatus *captureStatus_out, \
							  cuuint64_t *id_out) \
	{ \
		return ask(hStream, &(struct question){ .state = captureStatus_out, .id = id_out }, per_thread); \
	} \
	BF_EXPORT CUresult cuStreamGetCaptureInfo_v2##suffix( \
		CUstream hStream, CUstreamCaptureStatus *captureStatus_out, cuuint64_t *id_out, CUgraph *graph_out, \
		const CUgraphNode **dependencies_out, size_t *numDependencies_out) \
	{ \
		return ask(hStream, \
			   &(struct question){ captureStatus_out, id_out, graph_out, dependencies_out, NULL, \
					       numDependencies_out }, \
			   per_thread); \
	} \
	BF_EXPORT CUresult cuStreamGetCaptureInfo_v3##suffix( \
		CUstream hStream, CUstreamCaptureStatus *captureStatus_out, cuuint64_t *id_out, CUgraph *graph_out, \
		const CUgraphNode **dependencies_out, const CUgraphEdgeData **edgeData_out, \
		size_t *numDependencies_out) \
	{ \
		return ask(hStream, \
			   &(struct question){ captureStatus_out, id_out, graph_out, dependencies_out, edgeData_out, \
					       numDependencies_out }, \
			   per_thread); \
	}

CAPTURE(, false)
CAPTURE(_ptsz, true)

BF_EXPORT CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode)
{
	CUstreamCaptureMode before = (CUstreamCaptureMode)bf_self.capture_mode;
	CUresult status = bf_check();

	if (status)
		return status;
	if (!mode || (unsigned)*mode > CU_STREAM_CAPTURE_MODE_RELAXED)
		return CUDA_ERROR_INVALID_VALUE;
	bf_self.capture_mode = (int)*mode;
	*mode = before;
	return CUDA_SUCCESS;
}
