/* SPDX-License-Identifier: Apache-2.0
 *
 * Events. One that is known to be complete, or that was never recorded, is answered here.
 */
#define _GNU_SOURCE
#include "graph.h"
#include "shared.h"

static struct bf_event *find(CUevent event)
{
	return bf_handle_find(BF_EVENT, BF_ARG(event));
}

BF_EXPORT CUresult cuEventCreate(CUevent *phEvent, unsigned int Flags)
{
	struct bf_event *event;
	CUresult status;

	if (Flags & ~(CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS))
		return bf_check() ? bf_check() : CUDA_ERROR_INVALID_VALUE;
	if (Flags & CU_EVENT_INTERPROCESS)
		return bf_check() ? bf_check() : CUDA_ERROR_NOT_SUPPORTED;
	status = BF_CALL(cuEventCreate, BF_ARG(phEvent), Flags);
	if (status)
		return status;
	event = find(*phEvent);
	if (!event)
		return CUDA_ERROR_UNKNOWN;
	event->flags = Flags;
	atomic_store(&event->recorded, 0);
	atomic_store(&event->complete, 0);
	atomic_store(&event->external, false);
	atomic_store(&event->capture, 0);
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuEventDestroy_v2(CUevent hEvent)
{
	return BF_CALL(cuEventDestroy_v2, BF_ARG(hEvent));
}

BF_EXPORT CUresult cuEventDestroy(CUevent hEvent)
{
	return cuEventDestroy_v2(hEvent);
}

static uint32_t context_of(CUstream stream)
{
	const struct bf_stream *entry = bf_handle_find(BF_STREAM, BF_ARG(stream));

	return entry ? entry->entry.context : bf_self.current;
}

static CUresult record(unsigned call, CUevent hEvent, CUstream stream, uint64_t flags, bool per_thread)
{
	CUresult status = bf_check();
	struct bf_event *event = find(hEvent);
	uint64_t sequence = 0;

	if (!status)
		status = bf_stream_enter(&stream, per_thread);
	if (status)
		return status;
	if (!event)
		return CUDA_ERROR_INVALID_HANDLE;
	if (bf_context_at(event->entry.context)->device != bf_context_at(context_of(stream))->device)
		return CUDA_ERROR_INVALID_HANDLE;
	if (flags & CU_EVENT_RECORD_EXTERNAL)
		atomic_store(&event->external, true);
	status = bf_call_numbered(call, (const uint64_t[]){ BF_ARG(hEvent), BF_ARG(stream), flags }, false, &sequence);
	if (status)
		return status;
	event->stream = BF_ARG(stream);
	event->stream_id = bf_stream_number(stream);
	bf_capture_recorded(event, stream);
	atomic_store_explicit(&event->recorded, sequence, memory_order_release);
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuEventRecord(CUevent hEvent, CUstream hStream)
{
	return record(BF_cuEventRecord, hEvent, hStream, 0, false);
}

BF_EXPORT CUresult cuEventRecord_ptsz(CUevent hEvent, CUstream hStream)
{
	return record(BF_cuEventRecord, hEvent, hStream, 0, true);
}

BF_EXPORT CUresult cuEventRecordWithFlags(CUevent hEvent, CUstream hStream, unsigned int flags)
{
	return record(BF_cuEventRecordWithFlags, hEvent, hStream, flags, false);
}

BF_EXPORT CUresult cuEventRecordWithFlags_ptsz(CUevent hEvent, CUstream hStream, unsigned int flags)
{
	return record(BF_cuEventRecordWithFlags, hEvent, hStream, flags, true);
}

static CUresult wait_in_stream(CUstream stream, CUevent hEvent, unsigned flags, bool per_thread)
{
	const struct bf_event *event = find(hEvent);
	CUresult status = bf_check();

	if (!status)
		status = bf_stream_resolve(&stream, per_thread);
	if (!status)
		status = BF_CALL(cuStreamWaitEvent, BF_ARG(stream), BF_ARG(hEvent), flags);
	if (!status && event)
		bf_capture_awaited(event, stream);
	return status;
}

BF_EXPORT CUresult cuStreamWaitEvent(CUstream hStream, CUevent hEvent, unsigned int Flags)
{
	return wait_in_stream(hStream, hEvent, Flags, false);
}

BF_EXPORT CUresult cuStreamWaitEvent_ptsz(CUstream hStream, CUevent hEvent, unsigned int Flags)
{
	return wait_in_stream(hStream, hEvent, Flags, true);
}

static bool is_complete(const struct bf_event *event)
{
	uint64_t recorded = atomic_load_explicit(&event->recorded, memory_order_acquire);

	if (atomic_load_explicit(&event->external, memory_order_relaxed))
		return false;
	return !recorded || atomic_load_explicit(&event->complete, memory_order_acquire) == recorded ||
	       bf_stream_passed(event->stream, event->stream_id, event->entry.context, recorded);
}

static CUresult wait_or_ask(unsigned call, CUevent hEvent)
{
	CUresult status = bf_check();
	struct bf_event *event = find(hEvent);
	uint64_t recorded;

	if (status)
		return status;
	if (!event)
		return CUDA_ERROR_INVALID_HANDLE;
	if (is_complete(event))
		return CUDA_SUCCESS;
	recorded = atomic_load(&event->recorded);
	if (bf_shared_in_use())
		status = bf_shared_before_wait();
	if (!status)
		status = bf_call(call, (const uint64_t[]){ BF_ARG(hEvent) });
	if (!status && bf_shared_in_use())
		status = bf_shared_waited(event->stream_id, recorded);
	if (!status)
		atomic_store_explicit(&event->complete, recorded, memory_order_release);
	return status;
}

BF_EXPORT CUresult cuEventQuery(CUevent hEvent)
{
	return wait_or_ask(BF_cuEventQuery, hEvent);
}

BF_EXPORT CUresult cuEventSynchronize(CUevent hEvent)
{
	return wait_or_ask(BF_cuEventSynchronize, hEvent);
}

BF_EXPORT CUresult cuEventElapsedTime_v2(float *pMilliseconds, CUevent hStart, CUevent hEnd)
{
	if (!bf_check() && !pMilliseconds)
		return CUDA_ERROR_INVALID_VALUE;
	return BF_CALL(cuEventElapsedTime_v2, BF_ARG(pMilliseconds), BF_ARG(hStart), BF_ARG(hEnd));
}

BF_EXPORT CUresult cuEventElapsedTime(float *pMilliseconds, CUevent hStart, CUevent hEnd)
{
	return cuEventElapsedTime_v2(pMilliseconds, hStart, hEnd);
}
