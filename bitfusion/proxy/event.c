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
	event->latest = (struct bf_record){ 0 };
	event->recording = 0;
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

/* Another thread may record it again at any time. */
static struct bf_record latest(struct bf_event *event)
{
	struct bf_record record;

	pthread_mutex_lock(&event->lock);
	record = event->latest;
	pthread_mutex_unlock(&event->lock);
	return record;
}

static bool is_still_latest(struct bf_event *event, const struct bf_record *record)
{
	bool still;

	pthread_mutex_lock(&event->lock);
	still = !event->recording && event->latest.number == record->number;
	pthread_mutex_unlock(&event->lock);
	return still;
}

static void begin_record(struct bf_event *event)
{
	pthread_mutex_lock(&event->lock);
	event->recording++;
	pthread_mutex_unlock(&event->lock);
}

/* With number 0 it failed. */
static void end_record(struct bf_event *event, struct bf_record record)
{
	pthread_mutex_lock(&event->lock);
	event->recording--;
	if (record.number > event->latest.number)
		event->latest = record;
	pthread_mutex_unlock(&event->lock);
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
	begin_record(event);
	status = bf_call_numbered(call, (const uint64_t[]){ BF_ARG(hEvent), BF_ARG(stream), flags }, false, &sequence);
	if (!status)
		bf_capture_recorded(event, stream);
	end_record(event, (struct bf_record){ sequence, BF_ARG(stream), bf_stream_number(stream) });
	return status;
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

static bool is_complete(const struct bf_event *event, const struct bf_record *record)
{
	if (atomic_load_explicit(&event->external, memory_order_relaxed))
		return false;
	return !record->number || atomic_load_explicit(&event->complete, memory_order_acquire) == record->number ||
	       bf_stream_passed(record->stream, record->stream_id, event->entry.context, record->number);
}

static CUresult wait_or_ask(unsigned call, CUevent hEvent)
{
	CUresult status = bf_check();
	struct bf_event *event = find(hEvent);
	struct bf_record record;
	bool known;

	if (status)
		return status;
	if (!event)
		return CUDA_ERROR_INVALID_HANDLE;
	record = latest(event);
	if (is_complete(event, &record))
		return CUDA_SUCCESS;
	if (bf_shared_in_use())
		status = bf_shared_before_wait();
	if (!status)
		status = bf_call(call, (const uint64_t[]){ BF_ARG(hEvent) });
	known = is_still_latest(event, &record); /* else nobody knows which one was waited for */
	if (!status && bf_shared_in_use())
		status = bf_shared_waited(known ? record.stream_id : 0, record.number);
	if (!status && known)
		atomic_store_explicit(&event->complete, record.number, memory_order_release);
	return status;
}

BF_EXPORT CUresult cuEventQuery(CUevent hEvent)
{
	const struct bf_event *event = find(hEvent);
	CUresult status = bf_check();

	if (!status && event && !atomic_load(&event->capture))
		status = bf_capture_permit();
	return status ? status : wait_or_ask(BF_cuEventQuery, hEvent);
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
