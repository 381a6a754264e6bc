/* SPDX-License-Identifier: Apache-2.0
 *
 * Stream capture. Libraries ask before every operation whether a stream is capturing: while no capture is open the
 * answer is known here. Inside one, copies from and to the program's memory and its functions are noted, for the
 * launches of the graph to come.
 *
 * A stream gets into a capture where that begins, or when it waits for an event that was recorded in it. This side
 * keeps track, and asks the server of no other stream: a wrong answer would have a launch use memory that the
 * program has long freed.
 */
#define _GNU_SOURCE
#include "capture.h"

#include <stdlib.h>

_Atomic unsigned bf_captures;

pthread_mutex_t bf_capture_lock = PTHREAD_MUTEX_INITIALIZER;
struct bf_capture *bf_open_captures;
static uint64_t next_number = 1;

static struct bf_capture **find_origin(uint64_t stream)
{
	struct bf_capture **link = &bf_open_captures;

	while (*link && (*link)->origin != stream)
		link = &(*link)->next;
	return link;
}

struct bf_capture *bf_capture_numbered(uint64_t number)
{
	struct bf_capture *capture = bf_open_captures;

	while (capture && capture->number != number)
		capture = capture->next;
	return capture;
}

struct bf_capture *bf_capture_begun_in(uint64_t stream)
{
	return *find_origin(stream);
}

static struct bf_stream *stream_of(CUstream stream)
{
	return bf_handle_find(BF_STREAM, BF_ARG(stream));
}

static void drop(struct bf_capture *capture)
{
	if (!capture)
		return;
	bf_work_drop(capture->before);
	bf_work_drop(capture->work);
	bf_keep_drop(&capture->kept);
	free(capture->nodes);
	free(capture->edges);
	free(capture);
}

static CUresult add(CUstream stream, uint64_t graph, CUstreamCaptureMode mode)
{
	struct bf_stream *entry = stream_of(stream);
	struct bf_capture *capture = calloc(1, sizeof *capture);
	CUresult status = CUDA_ERROR_OUT_OF_MEMORY;

	if (capture)
		status = bf_graph_begin_work(graph, &capture->before, &capture->work);
	if (status) {
		drop(capture);
		return status;
	}
	capture->origin = BF_ARG(stream);
	capture->mode = mode;
	capture->thread = pthread_self();
	pthread_mutex_lock(&bf_capture_lock);
	capture->number = next_number++;
	if (entry)
		atomic_store(&entry->capture, capture->number);
	capture->next = bf_open_captures;
	bf_open_captures = capture;
	atomic_fetch_add(&bf_captures, 1);
	pthread_mutex_unlock(&bf_capture_lock);
	return CUDA_SUCCESS;
}

/* Takes the capture that began in the stream off the list. */
static struct bf_capture *take(CUstream stream)
{
	struct bf_capture **link, *capture;

	pthread_mutex_lock(&bf_capture_lock);
	link = find_origin(BF_ARG(stream));
	capture = *link;
	if (capture) {
		*link = capture->next;
		atomic_fetch_sub(&bf_captures, 1);
	}
	pthread_mutex_unlock(&bf_capture_lock);
	return capture;
}

void bf_capture_stream_destroyed(CUstream stream)
{
	if (atomic_load(&bf_captures))
		drop(take(stream));
}

/* Of a capture that the stream has got into and that is open; 0: of none. */
static uint64_t known(const struct bf_stream *stream)
{
	uint64_t number = stream ? atomic_load(&stream->capture) : 0;

	if (!number)
		return 0;
	pthread_mutex_lock(&bf_capture_lock);
	if (!bf_capture_numbered(number))
		number = 0;
	pthread_mutex_unlock(&bf_capture_lock);
	return number;
}

CUresult bf_capture_ask(CUstream stream, uint64_t *number)
{
	CUstreamCaptureStatus state = CU_STREAM_CAPTURE_STATUS_NONE;
	const struct bf_stream *entry = stream_of(stream);
	uint64_t within = known(entry);
	cuuint64_t id;
	CUresult status;

	*number = 0;
	if (entry && !within)
		return CUDA_SUCCESS;
	/* the legacy stream is in none, but is not to be used beside some */
	status = BF_CALL(cuStreamGetCaptureInfo, BF_ARG(stream), BF_ARG(&state), BF_ARG(&id));
	if (status)
		return status;
	if (state == CU_STREAM_CAPTURE_STATUS_INVALIDATED)
		return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
	if (state == CU_STREAM_CAPTURE_STATUS_ACTIVE && !within)
		return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	if (state == CU_STREAM_CAPTURE_STATUS_ACTIVE)
		*number = within;
	return CUDA_SUCCESS;
}

uint64_t bf_capture_within(CUstream stream)
{
	return known(stream_of(stream));
}

void bf_capture_recorded(struct bf_event *event, CUstream stream)
{
	if (atomic_load(&bf_captures))
		atomic_store(&event->capture, bf_capture_within(stream));
}

void bf_capture_awaited(const struct bf_event *event, CUstream stream)
{
	struct bf_stream *entry = stream_of(stream);
	uint64_t number = atomic_load(&event->capture);

	if (!entry || !number || !atomic_load(&bf_captures))
		return;
	pthread_mutex_lock(&bf_capture_lock);
	if (bf_capture_numbered(number))
		atomic_store(&entry->capture, number);
	pthread_mutex_unlock(&bf_capture_lock);
}

/* ------------------------------------------------------------------ what is captured */

CUresult bf_capture_copy(uint64_t number, bool to_host, CUdeviceptr device, void *host, size_t size, CUstream stream)
{
	struct bf_graph_buffer *buffer;
	CUresult status = bf_buffer_new(host, size, to_host, &buffer);
	struct bf_capture *capture;
	CUdeviceptr address;

	if (status)
		return status;
	pthread_mutex_lock(&bf_capture_lock);
	capture = bf_capture_numbered(number);
	status = capture ? bf_work_add_copy(&capture->work, buffer, stream) : CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	pthread_mutex_unlock(&bf_capture_lock);
	address = buffer->address;
	bf_buffer_drop(buffer); /* the capture's now, or nobody's */
	if (status == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)
		return bf_capture_refuse(number,
					 "a copy of host memory behind a host function, or of what another reads,");
	if (status)
		return status;
	return to_host ? BF_CALL(cuMemcpyDtoDAsync_v2, address, device, size, BF_ARG(stream))
		       : BF_CALL(cuMemcpyDtoDAsync_v2, device, address, size, BF_ARG(stream));
}

CUresult bf_capture_function(uint64_t number, struct bf_graph_function *function, CUstream stream)
{
	CUresult status = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	struct bf_capture *capture;

	pthread_mutex_lock(&bf_capture_lock);
	capture = bf_capture_numbered(number);
	if (capture)
		status = bf_work_add_function(&capture->work, function, stream);
	pthread_mutex_unlock(&bf_capture_lock);
	if (status == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)
		return bf_capture_refuse(
			number,
			"a host function that copies to host memory may be ahead of, of another stream or in the graph before,");
	return status;
}

CUresult bf_capture_keep(uint64_t number, const struct bf_graph *graph)
{
	CUresult status = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	struct bf_capture *capture;

	pthread_mutex_lock(&bf_capture_lock);
	capture = bf_capture_numbered(number);
	if (capture)
		status = bf_keep_add(&capture->kept, graph);
	pthread_mutex_unlock(&bf_capture_lock);
	return status;
}

/* What is captured next need not be behind what the stream has captured so far. */
static CUresult depart(CUstream stream)
{
	struct bf_graph_work *apart = NULL;
	CUresult status = CUDA_SUCCESS;
	struct bf_capture *capture;

	pthread_mutex_lock(&bf_capture_lock);
	capture = bf_capture_numbered(atomic_load(&stream_of(stream)->capture));
	if (capture && capture->work) {
		apart = bf_work_apart(capture->work, stream);
		if (apart) {
			bf_work_drop(capture->work);
			capture->work = apart;
		} else {
			status = CUDA_ERROR_OUT_OF_MEMORY;
		}
	}
	pthread_mutex_unlock(&bf_capture_lock);
	return status;
}

/* ------------------------------------------------------------------ begin and end */

static CUresult begin(CUstream stream, CUstreamCaptureMode mode, bool per_thread)
{
	CUresult status = bf_stream_enter(&stream, per_thread);

	if (!status)
		status = BF_CALL(cuStreamBeginCapture_v2, BF_ARG(stream), (uint64_t)mode);
	return status ? status : add(stream, 0, mode);
}

static CUresult begin_to_graph(CUstream stream, const uint64_t args[5], bool per_thread)
{
	CUresult status = bf_stream_enter(&stream, per_thread);

	if (!status)
		status = BF_CALL(cuStreamBeginCaptureToGraph, BF_ARG(stream), args[0], args[1], args[2], args[3],
				 args[4]);
	return status ? status : add(stream, args[0], (CUstreamCaptureMode)args[4]);
}

/* In all but these two cases the capture is over, for good or bad. */
static bool goes_on(CUresult status)
{
	return status == CUDA_ERROR_STREAM_CAPTURE_UNMATCHED || status == CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD ||
	       status == CUDA_ERROR_ILLEGAL_STATE;
}

/* One thread of the worker makes everybody's calls, so that its driver cannot tell. */
static bool is_foreign(CUstream stream)
{
	const struct bf_capture *capture;
	bool foreign;

	pthread_mutex_lock(&bf_capture_lock);
	capture = bf_capture_begun_in(BF_ARG(stream));
	foreign = capture && capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED &&
		  !pthread_equal(capture->thread, pthread_self());
	pthread_mutex_unlock(&bf_capture_lock);
	return foreign;
}

static CUresult end(CUstream stream, CUgraph *phGraph, bool per_thread)
{
	CUresult status = bf_stream_enter(&stream, per_thread);
	struct bf_capture *capture;

	if (status)
		return status;
	if (!phGraph)
		return CUDA_ERROR_INVALID_VALUE;
	*phGraph = NULL;
	if (atomic_load(&bf_captures) && is_foreign(stream))
		return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
	status = BF_CALL(cuStreamEndCapture, BF_ARG(stream), BF_ARG(phGraph));
	if (goes_on(status))
		return status;
	capture = take(stream);
	if (!status && capture && capture->work) {
		status = bf_graph_set_work(BF_ARG(*phGraph), capture->before, capture->work);
		capture->work = NULL;
	}
	if (!status && capture)
		status = bf_keep_add(bf_handle_find(BF_GRAPH, BF_ARG(*phGraph)), &capture->kept);
	drop(capture);
	return status;
}

/* ------------------------------------------------------------------ entry points */

static CUresult update(unsigned call, CUstream stream, uint64_t *arguments, unsigned flags, bool per_thread)
{
	CUresult status = bf_stream_enter(&stream, per_thread);

	arguments[0] = BF_ARG(stream);
	if (!status)
		status = bf_call(call, arguments);
	if (!status && flags != CU_STREAM_ADD_CAPTURE_DEPENDENCIES && stream_of(stream))
		status = depart(stream);
	return status;
}

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
	BF_EXPORT CUresult cuStreamUpdateCaptureDependencies##suffix(CUstream hStream, CUgraphNode *dependencies, \
								     size_t numDependencies, unsigned int flags) \
	{ \
		return update(BF_cuStreamUpdateCaptureDependencies, hStream, \
			      (uint64_t[]){ 0, BF_ARG(dependencies), numDependencies, flags }, flags, per_thread); \
	} \
	BF_EXPORT CUresult cuStreamUpdateCaptureDependencies_v2##suffix(CUstream hStream, CUgraphNode *dependencies, \
									const CUgraphEdgeData *dependencyData, \
									size_t numDependencies, unsigned int flags) \
	{ \
		return update(BF_cuStreamUpdateCaptureDependencies_v2, hStream, \
			      (uint64_t[]){ 0, BF_ARG(dependencies), BF_ARG(dependencyData), numDependencies, flags }, \
			      flags, per_thread); \
	} \
	BF_EXPORT CUresult cuStreamEndCapture##suffix(CUstream hStream, CUgraph *phGraph) \
	{ \
		return end(hStream, phGraph, per_thread); \
	}

CAPTURE(, false)
CAPTURE(_ptsz, true)
