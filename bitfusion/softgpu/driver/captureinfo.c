/* SPDX-License-Identifier: Apache-2.0
 *
 * What a program may ask about a capture in progress, and change in it.
 */
#include "capture.h"

#include <stdlib.h>
#include <string.h>

EXPORT CUresult cuStreamIsCapturing(CUstream hStream, CUstreamCaptureStatus *captureStatus)
{
	struct context *context;
	struct stream *stream;
	TRY(stream_enter(hStream, &context, &stream));
	if (!captureStatus)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&queue_lock);
	CUresult result = capture_check_legacy(context, stream);
	*captureStatus = stream->capture ? stream->capture->status : CU_STREAM_CAPTURE_STATUS_NONE;
	pthread_mutex_unlock(&queue_lock);
	return result;
}

EXPORT CUresult cuStreamGetCaptureInfo_v3(CUstream hStream, CUstreamCaptureStatus *captureStatus_out,
					  cuuint64_t *id_out, CUgraph *graph_out, const CUgraphNode **dependencies_out,
					  const CUgraphEdgeData **edgeData_out, size_t *numDependencies_out)
{
	struct context *context;
	struct stream *stream;
	TRY(stream_enter(hStream, &context, &stream));
	if (!captureStatus_out)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&queue_lock);
	struct capture *capture = stream->capture;
	CUresult result = capture_check_legacy(context, stream);
	*captureStatus_out = capture ? capture->status : CU_STREAM_CAPTURE_STATUS_NONE;
	if (id_out)
		*id_out = capture ? capture->id : 0;
	if (graph_out)
		*graph_out = capture ? (CUgraph)capture->graph : NULL;
	if (dependencies_out)
		*dependencies_out = (const CUgraphNode *)stream->frontier;
	if (edgeData_out)
		*edgeData_out = NULL;
	if (numDependencies_out)
		*numDependencies_out = stream->frontier_count;
	pthread_mutex_unlock(&queue_lock);
	return result;
}

EXPORT CUresult cuStreamGetCaptureInfo_v2(CUstream hStream, CUstreamCaptureStatus *captureStatus_out,
					  cuuint64_t *id_out, CUgraph *graph_out, const CUgraphNode **dependencies_out,
					  size_t *numDependencies_out)
{
	return cuStreamGetCaptureInfo_v3(hStream, captureStatus_out, id_out, graph_out, dependencies_out, NULL,
					 numDependencies_out);
}

EXPORT CUresult cuStreamGetCaptureInfo(CUstream hStream, CUstreamCaptureStatus *captureStatus_out, cuuint64_t *id_out)
{
	return cuStreamGetCaptureInfo_v3(hStream, captureStatus_out, id_out, NULL, NULL, NULL, NULL);
}

static CUresult update_frontier(struct stream *stream, struct node **nodes, size_t count, unsigned flags)
{
	if (!stream->capture)
		return CUDA_ERROR_ILLEGAL_STATE;
	if (flags == CU_STREAM_SET_CAPTURE_DEPENDENCIES)
		return set_frontier(stream, nodes, (unsigned)count);
	struct node **both = malloc((stream->frontier_count + count + 1) * sizeof *both);
	if (!both)
		return CUDA_ERROR_OUT_OF_MEMORY;
	memcpy(both, stream->frontier, stream->frontier_count * sizeof *both);
	if (count)
		memcpy(both + stream->frontier_count, nodes, count * sizeof *both);
	CUresult result = set_frontier(stream, both, stream->frontier_count + (unsigned)count);
	free(both);
	return result;
}

EXPORT CUresult cuStreamUpdateCaptureDependencies(CUstream hStream, CUgraphNode *dependencies, size_t numDependencies,
						  unsigned int flags)
{
	struct context *context;
	struct stream *stream;
	TRY(stream_enter(hStream, &context, &stream));
	if ((numDependencies && !dependencies) || flags > CU_STREAM_SET_CAPTURE_DEPENDENCIES)
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < numDependencies; i++)
		if (!object_get(dependencies[i], OBJECT_NODE))
			return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&queue_lock);
	CUresult result = update_frontier(stream, (struct node **)dependencies, numDependencies, flags);
	pthread_mutex_unlock(&queue_lock);
	return result;
}

EXPORT CUresult cuStreamUpdateCaptureDependencies_v2(CUstream hStream, CUgraphNode *dependencies,
						     const CUgraphEdgeData *dependencyData, size_t numDependencies,
						     unsigned int flags)
{
	(void)dependencyData;
	return cuStreamUpdateCaptureDependencies(hStream, dependencies, numDependencies, flags);
}
