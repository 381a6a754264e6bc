/* SPDX-License-Identifier: Apache-2.0
 *
 * Events: a position in a stream, and the time when it was reached.
 */
#include "memory.h"
#include "queue.h"

#include <stdlib.h>

static struct event *get(CUevent handle)
{
	return object_get(handle, OBJECT_EVENT);
}

void event_unref(struct event *event)
{
	if (--event->references)
		return;
	event_forget_capture(event);
	if (event->stream)
		stream_unref(event->stream);
	object_free(event);
}

EXPORT CUresult cuEventCreate(CUevent *phEvent, unsigned int Flags)
{
	ENTER_CONTEXT(context);
	unsigned known = CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS;
	if (!phEvent || (Flags & ~known))
		return CUDA_ERROR_INVALID_VALUE;
	if (Flags & CU_EVENT_INTERPROCESS)
		return Flags & CU_EVENT_DISABLE_TIMING ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_INVALID_VALUE;
	struct event *event = object_new(OBJECT_EVENT, sizeof *event);
	if (!event)
		return CUDA_ERROR_OUT_OF_MEMORY;
	event->flags = Flags;
	event->device = context->device;
	event->references = 1;
	*phEvent = (CUevent)event;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuEventDestroy_v2(CUevent hEvent)
{
	ENTER();
	struct event *event = get(hEvent);
	if (!event)
		return CUDA_ERROR_INVALID_HANDLE;
	pthread_mutex_lock(&queue_lock);
	object_retire(event);
	event_unref(event);
	pthread_mutex_unlock(&queue_lock);
	return CUDA_SUCCESS;
}

/* With queue_lock held. */
static CUresult record(struct stream *stream, struct event *event, unsigned flags)
{
	struct work *work;
	if (stream->capture && !(flags & CU_EVENT_RECORD_EXTERNAL))
		return capture_record(stream, event);
	TRY(capture_check_legacy(stream->context, stream));
	work = work_new(WORK_RECORD, 0);
	if (!work)
		return CUDA_ERROR_OUT_OF_MEMORY;
	event->references++;
	work->record.event = event;
	if (stream->capture) {
		work->record.external = 1;
		return capture_add(stream, work, NULL);
	}
	event_forget_capture(event);
	work->record.generation = ++event->generation;
	event->time_ns = 0;
	stream->references++;
	if (event->stream)
		stream_unref(event->stream);
	event->stream = stream;
	event->position = stream->submitted + 1;
	queue_append(stream, work, 1);
	return CUDA_SUCCESS;
}

EXPORT CUresult cuEventRecordWithFlags(CUevent hEvent, CUstream hStream, unsigned int flags)
{
	struct context *context;
	struct stream *stream;
	TRY(stream_enter(hStream, &context, &stream));
	if (flags & ~(unsigned)CU_EVENT_RECORD_EXTERNAL)
		return get(hEvent) ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_HANDLE;
	pthread_mutex_lock(&queue_lock);
	queue_make_room(stream);
	struct event *event = get(hEvent);
	CUresult result = CUDA_ERROR_INVALID_HANDLE;
	if (event && event->device == context->device)
		result = record(stream, event, flags);
	pthread_mutex_unlock(&queue_lock);
	return result;
}

EXPORT CUresult cuEventRecord(CUevent hEvent, CUstream hStream)
{
	return cuEventRecordWithFlags(hEvent, hStream, 0);
}

/* With queue_lock held. */
static CUresult wait_for(struct stream *stream, struct event *event, unsigned flags)
{
	if (event->capture || (stream->capture && !(flags & CU_EVENT_WAIT_EXTERNAL)))
		return capture_wait(stream, event);
	TRY(capture_check_legacy(stream->context, stream));
	if (!stream->capture && (!event->stream || event->stream->completed >= event->position))
		return CUDA_SUCCESS;
	struct work *work = work_new(stream->capture ? WORK_EVENT_WAIT : WORK_MARKER, 0);
	if (!work)
		return CUDA_ERROR_OUT_OF_MEMORY;
	if (stream->capture) {
		event->references++;
		work->record.event = event;
		return capture_add(stream, work, NULL);
	}
	CUresult result = work_depend(work, event->stream, event->position);
	if (result == CUDA_SUCCESS)
		queue_append(stream, work, 1);
	else
		work_free(work);
	return result;
}

EXPORT CUresult cuStreamWaitEvent(CUstream hStream, CUevent hEvent, unsigned int Flags)
{
	struct context *context;
	struct stream *stream;
	TRY(stream_enter(hStream, &context, &stream));
	if (Flags & ~(unsigned)CU_EVENT_WAIT_EXTERNAL)
		return get(hEvent) ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_HANDLE;
	pthread_mutex_lock(&queue_lock);
	queue_make_room(stream);
	struct event *event = get(hEvent);
	CUresult result = event ? wait_for(stream, event, Flags) : CUDA_ERROR_INVALID_HANDLE;
	pthread_mutex_unlock(&queue_lock);
	return result;
}

EXPORT CUresult cuEventQuery(CUevent hEvent)
{
	ENTER();
	struct event *event = get(hEvent);
	if (!event)
		return CUDA_ERROR_INVALID_HANDLE;
	pthread_mutex_lock(&queue_lock);
	struct context *context = event->stream ? event->stream->context : NULL;
	CUresult result = CUDA_SUCCESS;
	if (event->capture)
		result = CUDA_ERROR_CAPTURED_EVENT;
	else if (event->stream && event->stream->completed < event->position)
		result = CUDA_ERROR_NOT_READY;
	pthread_mutex_unlock(&queue_lock);
	if (result != CUDA_ERROR_CAPTURED_EVENT)
		TRY(capture_check_unsafe());
	if (context)
		TRY(context_error(context));
	if (context && result == CUDA_SUCCESS)
		context_flush_output(context);
	return result;
}

EXPORT CUresult cuEventSynchronize(CUevent hEvent)
{
	ENTER();
	struct event *event = get(hEvent);
	if (!event)
		return CUDA_ERROR_INVALID_HANDLE;
	pthread_mutex_lock(&queue_lock);
	struct context *context = event->stream ? event->stream->context : NULL;
	CUresult result = event->capture ? CUDA_ERROR_CAPTURED_EVENT : CUDA_SUCCESS;
	if (event->stream && result == CUDA_SUCCESS)
		queue_wait_locked(event->stream, event->position);
	pthread_mutex_unlock(&queue_lock);
	if (!context)
		return result;
	pools_synchronized(context->device);
	context_flush_output(context);
	return result ? result : context_error(context);
}

EXPORT CUresult cuEventElapsedTime_v2(float *pMilliseconds, CUevent hStart, CUevent hEnd)
{
	ENTER();
	struct event *start = get(hStart), *end = get(hEnd);
	if (!pMilliseconds)
		return CUDA_ERROR_INVALID_VALUE;
	if (!start || !end || (start->flags | end->flags) & CU_EVENT_DISABLE_TIMING)
		return CUDA_ERROR_INVALID_HANDLE;
	pthread_mutex_lock(&queue_lock);
	CUresult result = CUDA_SUCCESS;
	if (!start->stream || !end->stream)
		result = CUDA_ERROR_INVALID_HANDLE;
	else if (start->stream->completed < start->position || end->stream->completed < end->position)
		result = CUDA_ERROR_NOT_READY;
	else
		*pMilliseconds = (float)((double)(int64_t)(end->time_ns - start->time_ns) / 1e6);
	pthread_mutex_unlock(&queue_lock);
	return result;
}

EXPORT CUresult cuEventElapsedTime(float *pMilliseconds, CUevent hStart, CUevent hEnd)
{
	return cuEventElapsedTime_v2(pMilliseconds, hStart, hEnd);
}
