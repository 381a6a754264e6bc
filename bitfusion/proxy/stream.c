/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "graph.h"
#include "shared.h"

static _Atomic uint64_t next_id = (uint64_t)1 << 32; /* after the numbers of all contexts' special streams */

static struct bf_stream *find(uint64_t stream)
{
	return bf_handle_find(BF_STREAM, stream);
}

CUresult bf_stream_check(CUstream stream)
{
	if ((uintptr_t)stream <= 2 || find(BF_ARG(stream)))
		return CUDA_SUCCESS;
	return CUDA_ERROR_INVALID_HANDLE;
}

CUresult bf_stream_enter(CUstream *stream, bool per_thread)
{
	CUresult status = bf_check();

	if (!status)
		status = bf_context_check();
	if (!status)
		status = bf_stream_resolve(stream, per_thread);
	return status ? status : bf_stream_check(*stream);
}

static CUresult created(CUstream *stream, unsigned flags, int priority)
{
	struct bf_stream *made = find(BF_ARG(*stream));

	if (!made)
		return CUDA_ERROR_UNKNOWN;
	made->flags = flags;
	made->priority = priority;
	made->id = atomic_fetch_add(&next_id, 1);
	atomic_store(&made->synced, 0);
	atomic_store(&made->capture, 0);
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuStreamCreate(CUstream *phStream, unsigned int Flags)
{
	CUresult status;

	if (Flags & ~CU_STREAM_NON_BLOCKING)
		return bf_check() ? bf_check() : CUDA_ERROR_INVALID_VALUE;
	status = BF_CALL(cuStreamCreate, BF_ARG(phStream), Flags);
	return status ? status : created(phStream, Flags, 0);
}

/* CUDA takes any number and moves it into the device's range. */
static int clamp_priority(int priority)
{
	const struct bf_device *device = bf_device(bf_context_at(bf_self.current)->device);

	if (priority > device->least_priority)
		return device->least_priority;
	return priority < device->greatest_priority ? device->greatest_priority : priority;
}

BF_EXPORT CUresult cuStreamCreateWithPriority(CUstream *phStream, unsigned int flags, int priority)
{
	CUresult status = bf_check();

	if (!status)
		status = bf_context_check();
	if (status)
		return status;
	if (flags & ~CU_STREAM_NON_BLOCKING)
		return CUDA_ERROR_INVALID_VALUE;
	priority = clamp_priority(priority);
	status = BF_CALL(cuStreamCreateWithPriority, BF_ARG(phStream), flags, (uint64_t)(int64_t)priority);
	return status ? status : created(phStream, flags, priority);
}

BF_EXPORT CUresult cuStreamDestroy_v2(CUstream hStream)
{
	CUresult status;

	if (!bf_check() && (uintptr_t)hStream <= 2)
		return CUDA_ERROR_INVALID_HANDLE;
	if (bf_shared_in_use())
		bf_shared_end_stream(hStream);
	bf_capture_stream_destroyed(hStream);
	status = bf_check();
	if (status)
		return status;
	bf_ends_hold();
	status = BF_CALL(cuStreamDestroy_v2, BF_ARG(hStream));
	bf_ends_release();
	return status;
}

BF_EXPORT CUresult cuStreamDestroy(CUstream hStream)
{
	return cuStreamDestroy_v2(hStream);
}

/* Is the command with this number in this stream known to be complete? */
bool bf_stream_passed(uint64_t stream, uint64_t stream_id, uint32_t context, uint64_t sequence)
{
	const struct bf_context *owner = bf_context_at(context);
	struct bf_stream *entry = find(stream);

	if (owner && atomic_load_explicit(&owner->synced, memory_order_acquire) >= sequence)
		return true;
	return entry && entry->id == stream_id &&
	       atomic_load_explicit(&entry->synced, memory_order_acquire) >= sequence;
}

static void note_synced(CUstream stream, uint64_t sequence)
{
	struct bf_stream *entry = find(BF_ARG(stream));
	uint64_t known;

	if (!entry)
		return;
	known = atomic_load(&entry->synced);
	while (known < sequence && !atomic_compare_exchange_weak(&entry->synced, &known, sequence))
		;
}

/* Nothing at all was sent since this stream was last waited for. */
static bool is_idle(CUstream stream)
{
	uint64_t sequence = bf_queue_sequence();
	struct bf_stream *entry = find(BF_ARG(stream));
	const struct bf_context *context = bf_context_at(bf_self.current);

	return (entry && atomic_load(&entry->synced) == sequence) || atomic_load(&context->synced) == sequence;
}

static CUresult wait_or_ask(unsigned call, CUstream stream, bool per_thread)
{
	CUresult status = bf_stream_enter(&stream, per_thread);
	struct bf_credit *credit;
	uint64_t sequence = 0, added;

	if (status || is_idle(stream))
		return status;
	if (bf_shared_in_use())
		status = bf_shared_before_wait();
	if (status)
		return status;
	credit = bf_credit_of(stream);
	added = credit ? atomic_load(&credit->added) : 0;
	status = bf_call_numbered(call, (const uint64_t[]){ BF_ARG(stream) }, false, &sequence);
	if (!status && bf_shared_in_use())
		status = bf_shared_waited(bf_stream_number(stream), sequence);
	if (status)
		return status;
	note_synced(stream, sequence);
	if (credit)
		bf_credit_done(credit, added);
	return CUDA_SUCCESS;
}

CUresult bf_stream_query(CUstream stream)
{
	return wait_or_ask(BF_cuStreamQuery, stream, false);
}

CUresult bf_stream_wait(CUstream stream)
{
	return wait_or_ask(BF_cuStreamSynchronize, stream, false);
}

BF_EXPORT CUresult cuStreamSynchronize(CUstream hStream)
{
	return wait_or_ask(BF_cuStreamSynchronize, hStream, false);
}

BF_EXPORT CUresult cuStreamSynchronize_ptsz(CUstream hStream)
{
	return wait_or_ask(BF_cuStreamSynchronize, hStream, true);
}

BF_EXPORT CUresult cuStreamQuery(CUstream hStream)
{
	return wait_or_ask(BF_cuStreamQuery, hStream, false);
}

BF_EXPORT CUresult cuStreamQuery_ptsz(CUstream hStream)
{
	return wait_or_ask(BF_cuStreamQuery, hStream, true);
}

uint64_t bf_stream_number(CUstream stream)
{
	struct bf_stream *entry = find(BF_ARG(stream));

	return entry ? entry->id : (uint64_t)(uintptr_t)stream + 1 + 3 * (uint64_t)bf_self.current;
}

/* ------------------------------------------------------------------ questions, answered here */

static CUresult get_priority(CUstream stream, int *priority, bool per_thread)
{
	CUresult status = bf_stream_enter(&stream, per_thread);
	struct bf_stream *entry = find(BF_ARG(stream));

	if (status)
		return status;
	if (!priority)
		return CUDA_ERROR_INVALID_VALUE;
	*priority = entry ? entry->priority : 0;
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuStreamGetPriority(CUstream hStream, int *priority)
{
	return get_priority(hStream, priority, false);
}

BF_EXPORT CUresult cuStreamGetPriority_ptsz(CUstream hStream, int *priority)
{
	return get_priority(hStream, priority, true);
}

static CUresult get_flags(CUstream stream, unsigned *flags, bool per_thread)
{
	CUresult status = bf_stream_enter(&stream, per_thread);
	struct bf_stream *entry = find(BF_ARG(stream));

	if (status)
		return status;
	if (!flags)
		return CUDA_ERROR_INVALID_VALUE;
	*flags = entry ? entry->flags : CU_STREAM_DEFAULT;
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuStreamGetFlags(CUstream hStream, unsigned int *flags)
{
	return get_flags(hStream, flags, false);
}

BF_EXPORT CUresult cuStreamGetFlags_ptsz(CUstream hStream, unsigned int *flags)
{
	return get_flags(hStream, flags, true);
}

static CUresult get_id(CUstream stream, unsigned long long *id, bool per_thread)
{
	CUresult status = bf_stream_enter(&stream, per_thread);

	if (status)
		return status;
	if (!id)
		return CUDA_ERROR_INVALID_VALUE;
	*id = bf_stream_number(stream);
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuStreamGetId(CUstream hStream, unsigned long long *streamId)
{
	return get_id(hStream, streamId, false);
}

BF_EXPORT CUresult cuStreamGetId_ptsz(CUstream hStream, unsigned long long *streamId)
{
	return get_id(hStream, streamId, true);
}

static CUresult get_context(CUstream stream, uint32_t *context, bool per_thread)
{
	CUresult status = bf_stream_enter(&stream, per_thread);
	struct bf_stream *entry = find(BF_ARG(stream));

	if (!status)
		*context = entry ? entry->entry.context : bf_self.current;
	return status;
}

static CUresult get_ctx(CUstream stream, CUcontext *pctx, bool per_thread)
{
	uint32_t context = 0;
	CUresult status = get_context(stream, &context, per_thread);

	if (status)
		return status;
	if (!pctx)
		return CUDA_ERROR_INVALID_VALUE;
	*pctx = bf_context_handle(context);
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuStreamGetCtx(CUstream hStream, CUcontext *pctx)
{
	return get_ctx(hStream, pctx, false);
}

BF_EXPORT CUresult cuStreamGetCtx_ptsz(CUstream hStream, CUcontext *pctx)
{
	return get_ctx(hStream, pctx, true);
}

/* Green contexts are absent, so that no stream is of one. */
static CUresult get_ctx_v2(CUstream stream, CUcontext *pCtx, CUgreenCtx *pGreenCtx, bool per_thread)
{
	CUresult status = get_ctx(stream, pCtx, per_thread);

	if (!status && pGreenCtx)
		*pGreenCtx = NULL;
	return status;
}

BF_EXPORT CUresult cuStreamGetCtx_v2(CUstream hStream, CUcontext *pCtx, CUgreenCtx *pGreenCtx)
{
	return get_ctx_v2(hStream, pCtx, pGreenCtx, false);
}

BF_EXPORT CUresult cuStreamGetCtx_v2_ptsz(CUstream hStream, CUcontext *pCtx, CUgreenCtx *pGreenCtx)
{
	return get_ctx_v2(hStream, pCtx, pGreenCtx, true);
}

BF_EXPORT CUresult cuStreamGetGreenCtx(CUstream hStream, CUgreenCtx *phCtx)
{
	CUcontext context;
	CUresult status = get_ctx(hStream, &context, false);

	if (status)
		return status;
	if (!phCtx)
		return CUDA_ERROR_INVALID_VALUE;
	*phCtx = NULL;
	return CUDA_SUCCESS;
}

static CUresult get_device(CUstream stream, CUdevice *device, bool per_thread)
{
	uint32_t context = 0;
	CUresult status = get_context(stream, &context, per_thread);

	if (status)
		return status;
	if (!device)
		return CUDA_ERROR_INVALID_VALUE;
	*device = bf_context_at(context)->device;
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuStreamGetDevice(CUstream hStream, CUdevice *device)
{
	return get_device(hStream, device, false);
}

BF_EXPORT CUresult cuStreamGetDevice_ptsz(CUstream hStream, CUdevice *device)
{
	return get_device(hStream, device, true);
}
