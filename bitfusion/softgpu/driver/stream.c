/* SPDX-License-Identifier: Apache-2.0
 *
 * Streams as the program sees them.
 */
#include "queue.h"
#include "memory.h"

#include <string.h>

CUresult stream_create(struct stream **result, struct context *context, unsigned flags, int priority)
{
	static _Atomic uint64_t last_id;
	struct stream *stream = object_new(OBJECT_STREAM, sizeof *stream);
	if (!stream)
		return CUDA_ERROR_OUT_OF_MEMORY;
	stream->context = context;
	stream->id = ++last_id;
	stream->flags = flags;
	stream->priority = priority;
	stream->references = 1;
	stream->wanted = UINT64_MAX;
	pthread_cond_init(&stream->progressed, NULL);
	pthread_mutex_lock(&queue_lock);
	stream->next_in_context = context->streams;
	context->streams = stream;
	pthread_mutex_unlock(&queue_lock);
	*result = stream;
	return CUDA_SUCCESS;
}

void stream_unref(struct stream *stream)
{
	if (--stream->references)
		return;
	struct stream **at = &stream->context->streams;
	while (*at && *at != stream)
		at = &(*at)->next_in_context;
	if (*at)
		*at = stream->next_in_context;
	pthread_cond_destroy(&stream->progressed);
	object_free(stream);
}

/* The handle goes; the work that is in it does not. */
static void retire(struct stream *stream)
{
	pthread_mutex_lock(&queue_lock);
	if (!stream->destroyed) {
		stream->destroyed = 1;
		capture_drop(stream);
		object_retire(stream);
		stream_unref(stream);
	}
	pthread_mutex_unlock(&queue_lock);
}

void streams_abandon(struct context *context)
{
	context_synchronize(context); /* what is queued is skipped by now, what runs was told to stop */
	for (;;) {
		pthread_mutex_lock(&queue_lock);
		struct stream *stream = context->streams;
		while (stream && stream->destroyed)
			stream = stream->next_in_context;
		pthread_mutex_unlock(&queue_lock);
		if (!stream)
			return;
		retire(stream);
	}
}

struct stream *stream_resolve(struct context *context, CUstream handle)
{
	if (handle == NULL || handle == CU_STREAM_LEGACY)
		return context->legacy;
	if (handle == CU_STREAM_PER_THREAD)
		return per_thread_stream(context);
	return object_get(handle, OBJECT_STREAM);
}

CUresult stream_enter(CUstream handle, struct context **context, struct stream **stream)
{
	TRY(context_enter(context));
	*stream = stream_resolve(*context, handle);
	if (!*stream)
		return CUDA_ERROR_INVALID_HANDLE;
	*context = (*stream)->context;
	return context_error(*context);
}

static CUresult create(CUstream *result, unsigned flags, int priority)
{
	ENTER_CONTEXT(context);
	struct stream *stream;
	if (!result || (flags & ~(unsigned)CU_STREAM_NON_BLOCKING))
		return CUDA_ERROR_INVALID_VALUE;
	/* out of range means the nearest */
	priority = priority > 0 ? 0 : priority < -5 ? -5 : priority;
	TRY(stream_create(&stream, context, flags, priority));
	*result = (CUstream)stream;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamCreate(CUstream *phStream, unsigned int Flags)
{
	return create(phStream, Flags, 0);
}

EXPORT CUresult cuStreamCreateWithPriority(CUstream *phStream, unsigned int flags, int priority)
{
	return create(phStream, flags, priority);
}

EXPORT CUresult cuStreamDestroy_v2(CUstream hStream)
{
	ENTER();
	struct stream *stream = object_get(hStream, OBJECT_STREAM);
	if (!stream || stream->is_legacy)
		return CUDA_ERROR_INVALID_HANDLE;
	retire(stream);
	return CUDA_SUCCESS;
}

CUresult stream_synchronize(struct stream *stream)
{
	pthread_mutex_lock(&queue_lock);
	CUresult result =
		stream->capture ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : capture_check_legacy(stream->context, stream);
	if (stream->capture)
		capture_invalidate(stream);
	if (result == CUDA_SUCCESS) {
		struct context *context = stream->context;
		queue_wait_locked(stream, stream->submitted);
		/* the default stream is also done when all that it would wait for is */
		if (stream->is_legacy) {
			pthread_mutex_unlock(&queue_lock);
			struct work *marker = work_new(WORK_MARKER, 0);
			result = marker ? submit(stream, marker, SUBMIT_WAIT) : CUDA_ERROR_OUT_OF_MEMORY;
			pools_synchronized(context->device);
			return result;
		}
		result = context->error;
	}
	pthread_mutex_unlock(&queue_lock);
	pools_synchronized(stream->context->device);
	context_flush_output(stream->context);
	return result;
}

EXPORT CUresult cuStreamSynchronize(CUstream hStream)
{
	struct context *context;
	struct stream *stream;
	TRY(stream_enter(hStream, &context, &stream));
	return stream_synchronize(stream);
}

static int legacy_is_busy(const struct stream *legacy)
{
	for (struct stream *other = legacy->context->streams; other; other = other->next_in_context)
		if (!(other->flags & CU_STREAM_NON_BLOCKING) && other->completed < other->submitted)
			return 1;
	return 0;
}

EXPORT CUresult cuStreamQuery(CUstream hStream)
{
	struct context *context;
	struct stream *stream;
	TRY(stream_enter(hStream, &context, &stream));
	pthread_mutex_lock(&queue_lock);
	CUresult result =
		stream->capture ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : capture_check_legacy(context, stream);
	if (stream->capture)
		capture_invalidate(stream);
	if (result == CUDA_SUCCESS &&
	    (stream->completed < stream->submitted || (stream->is_legacy && legacy_is_busy(stream))))
		result = CUDA_ERROR_NOT_READY;
	pthread_mutex_unlock(&queue_lock);
	if (result != CUDA_SUCCESS)
		return result;
	context_flush_output(context);
	return context_error(context);
}

EXPORT CUresult cuStreamGetPriority(CUstream hStream, int *priority)
{
	struct context *context;
	struct stream *stream;
	TRY(stream_enter(hStream, &context, &stream));
	if (!priority)
		return CUDA_ERROR_INVALID_VALUE;
	*priority = stream->priority;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamGetFlags(CUstream hStream, unsigned int *flags)
{
	struct context *context;
	struct stream *stream;
	TRY(stream_enter(hStream, &context, &stream));
	if (!flags)
		return CUDA_ERROR_INVALID_VALUE;
	*flags = stream->flags;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamGetId(CUstream hStream, unsigned long long *streamId)
{
	struct context *context;
	struct stream *stream;
	TRY(stream_enter(hStream, &context, &stream));
	if (!streamId)
		return CUDA_ERROR_INVALID_VALUE;
	*streamId = stream->id;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamGetCtx(CUstream hStream, CUcontext *pctx)
{
	struct context *context;
	struct stream *stream;
	TRY(stream_enter(hStream, &context, &stream));
	if (!pctx)
		return CUDA_ERROR_INVALID_VALUE;
	*pctx = (CUcontext)context;
	return CUDA_SUCCESS;
}

/* There are no green contexts, so no stream is of one. cuBLAS asks before it launches anything. */
EXPORT CUresult cuStreamGetGreenCtx(CUstream hStream, CUgreenCtx *phCtx)
{
	struct context *context;
	struct stream *stream;
	TRY(stream_enter(hStream, &context, &stream));
	if (!phCtx)
		return CUDA_ERROR_INVALID_VALUE;
	*phCtx = NULL;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamGetCtx_v2(CUstream hStream, CUcontext *pCtx, CUgreenCtx *pGreenCtx)
{
	if (pGreenCtx)
		*pGreenCtx = NULL;
	return cuStreamGetCtx(hStream, pCtx);
}

EXPORT CUresult cuStreamGetDevice(CUstream hStream, CUdevice *device)
{
	struct context *context;
	struct stream *stream;
	TRY(stream_enter(hStream, &context, &stream));
	if (!device)
		return CUDA_ERROR_INVALID_VALUE;
	*device = context->device->index;
	return CUDA_SUCCESS;
}

/* Every attribute there is advises the hardware about caches, clocks or priorities. */
EXPORT CUresult cuStreamSetAttribute(CUstream hStream, CUstreamAttrID attr, const CUstreamAttrValue *value)
{
	struct context *context;
	struct stream *stream;
	TRY(stream_enter(hStream, &context, &stream));
	if (!value)
		return CUDA_ERROR_INVALID_VALUE;
	if (attr == CU_LAUNCH_ATTRIBUTE_PRIORITY)
		stream->priority = value->priority > 0 ? 0 : value->priority < -5 ? -5 : value->priority;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamGetAttribute(CUstream hStream, CUstreamAttrID attr, CUstreamAttrValue *value_out)
{
	struct context *context;
	struct stream *stream;
	TRY(stream_enter(hStream, &context, &stream));
	if (!value_out)
		return CUDA_ERROR_INVALID_VALUE;
	memset(value_out, 0, sizeof *value_out);
	if (attr == CU_LAUNCH_ATTRIBUTE_PRIORITY)
		value_out->priority = stream->priority;
	else if (attr == CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY)
		value_out->syncPolicy = CU_SYNC_POLICY_AUTO;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamCopyAttributes(CUstream dst, CUstream src)
{
	struct context *context;
	struct stream *to, *from;
	TRY(stream_enter(dst, &context, &to));
	TRY(stream_enter(src, &context, &from));
	to->priority = from->priority;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamAttachMemAsync(CUstream hStream, CUdeviceptr dptr, size_t length, unsigned int flags)
{
	struct context *context;
	struct stream *stream;
	struct range range;
	TRY(stream_enter(hStream, &context, &stream));
	(void)length;
	if (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST && flags != CU_MEM_ATTACH_SINGLE)
		return CUDA_ERROR_INVALID_VALUE;
	return range_lookup(dptr, &range) && range.kind == RANGE_MANAGED ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
