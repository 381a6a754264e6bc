/* SPDX-License-Identifier: Apache-2.0
 *
 * What programs ask about captures. While none is open the answer is known here.
 */
#define _GNU_SOURCE
#include "capture.h"

#include <stdlib.h>

struct question {
	CUstreamCaptureStatus *state;
	cuuint64_t *id;
	CUgraph *graph;
	const CUgraphNode **nodes;
	const CUgraphEdgeData **edges;
	size_t *count;
};

static bool grow(struct bf_capture *capture, size_t room)
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
static CUresult ask_for_nodes(struct bf_capture *capture, CUstream stream, const struct question *question)
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
	uint64_t id, number;
	struct bf_capture *capture;

	if (!question->graph && !question->nodes && !question->edges && !question->count)
		return BF_CALL(cuStreamGetCaptureInfo, BF_ARG(stream), BF_ARG(question->state), BF_ARG(question->id));
	status = BF_CALL(cuStreamGetCaptureInfo, BF_ARG(stream), BF_ARG(question->state), BF_ARG(&id));
	if (status || *question->state != CU_STREAM_CAPTURE_STATUS_ACTIVE)
		return status;
	number = bf_capture_within(stream);
	pthread_mutex_lock(&bf_capture_lock);
	capture = bf_capture_numbered(number);
	status = capture ? ask_for_nodes(capture, stream, question) : CUDA_ERROR_UNKNOWN;
	pthread_mutex_unlock(&bf_capture_lock);
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

#define QUERIES(suffix, per_thread) \
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

QUERIES(, false)
QUERIES(_ptsz, true)
