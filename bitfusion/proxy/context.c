/* SPDX-License-Identifier: Apache-2.0
 *
 * Contexts live on this side: per-thread stacks, reference counts, flags. A command says in its header which one
 * is current; the server makes a primary context when a command first names it.
 */
#define _GNU_SOURCE
#include "shared.h"

#include <stdlib.h>

static _Atomic uint64_t next_id = 1;

CUcontext bf_context_handle(uint32_t index)
{
	return index ? (CUcontext)(uintptr_t)BF_HANDLE(BF_CONTEXT, index) : NULL;
}

struct bf_context *bf_context_at(uint32_t index)
{
	return index ? bf_handle_entry(BF_CONTEXT, index) : NULL;
}

struct bf_context *bf_context_find(CUcontext context)
{
	return bf_handle_find(BF_CONTEXT, (uint64_t)(uintptr_t)context);
}

static uint32_t index_of(CUcontext context)
{
	return context ? BF_HANDLE_INDEX((uintptr_t)context) : 0;
}

static uint32_t primary_index(CUdevice device)
{
	return bf_device_index(device) + 1;
}

static struct bf_context *primary_of(CUdevice device)
{
	return bf_device_valid(device) ? bf_context_at(primary_index(device)) : NULL;
}

/* The handles of primary contexts are valid from the start: the runtime makes one current before it retains it. */
CUresult bf_contexts_open(void)
{
	for (unsigned i = 0; i < bf_device_count(); i++) {
		uint32_t index = primary_index((CUdevice)i);
		struct bf_context *context = bf_handle_reserve(BF_CONTEXT, index);

		if (!context)
			return CUDA_ERROR_OUT_OF_MEMORY;
		context->device = (CUdevice)i;
		context->primary = true;
		context->id = atomic_fetch_add(&next_id, 1);
		bf_handle_start(BF_CONTEXT, BF_HANDLE(BF_CONTEXT, index));
	}
	return CUDA_SUCCESS;
}

CUresult bf_context_check(void)
{
	struct bf_context *context = bf_context_at(bf_self.current);

	if (BF_UNLIKELY(!context))
		return CUDA_ERROR_INVALID_CONTEXT;
	if (BF_UNLIKELY(!bf_is_alive(&context->entry)))
		return CUDA_ERROR_CONTEXT_IS_DESTROYED;
	return (CUresult)atomic_load_explicit(&context->fault, memory_order_relaxed);
}

/* What another thread is destroying is no place for anything of ours, which would outlive it. */
uint32_t bf_context_any(void)
{
	struct bf_context *context = bf_context_at(bf_self.current);
	bool lives = context && bf_is_alive(&context->entry) && !atomic_load(&context->ending);

	return lives ? bf_self.current : primary_index(0);
}

static CUresult check_current(void)
{
	CUresult status = bf_check();

	return status ? status : bf_context_check();
}

/* ------------------------------------------------------------------ the thread's stack */

static CUresult push(uint32_t index)
{
	if (bf_self.depth == bf_self.capacity) {
		uint32_t capacity = bf_self.capacity ? bf_self.capacity * 2 : 8;
		uint32_t *stack = realloc(bf_self.stack, capacity * sizeof *stack);

		if (!stack)
			return CUDA_ERROR_OUT_OF_MEMORY;
		bf_self.stack = stack;
		bf_self.capacity = capacity;
		bf_thread_watch();
	}
	bf_self.stack[bf_self.depth++] = index;
	bf_self.current = index;
	return CUDA_SUCCESS;
}

static void pop(void)
{
	if (bf_self.depth)
		bf_self.depth--;
	bf_self.current = bf_self.depth ? bf_self.stack[bf_self.depth - 1] : 0;
}

static void activate(struct bf_context *context)
{
	if (context->primary)
		atomic_store_explicit(&context->active, true, memory_order_relaxed);
}

BF_EXPORT CUresult cuCtxSetCurrent(CUcontext ctx)
{
	CUresult status = bf_check();
	struct bf_context *context;

	if (status)
		return status;
	if (!ctx) {
		pop();
		return CUDA_SUCCESS;
	}
	context = bf_context_find(ctx);
	if (!context)
		return CUDA_ERROR_INVALID_CONTEXT;
	activate(context);
	if (!bf_self.depth)
		return push(index_of(ctx));
	bf_self.stack[bf_self.depth - 1] = bf_self.current = index_of(ctx);
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuCtxGetCurrent(CUcontext *pctx)
{
	CUresult status = bf_check();

	if (status)
		return status;
	if (!pctx)
		return CUDA_ERROR_INVALID_VALUE;
	*pctx = bf_context_handle(bf_self.current);
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuCtxPushCurrent_v2(CUcontext ctx)
{
	CUresult status = bf_check();
	struct bf_context *context = bf_context_find(ctx);

	if (status)
		return status;
	if (!context)
		return CUDA_ERROR_INVALID_CONTEXT;
	activate(context);
	return push(index_of(ctx));
}

BF_EXPORT CUresult cuCtxPopCurrent_v2(CUcontext *pctx)
{
	CUresult status = bf_check();

	if (status)
		return status;
	if (!bf_self.current)
		return CUDA_ERROR_INVALID_CONTEXT;
	if (pctx)
		*pctx = bf_context_handle(bf_self.current);
	pop();
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuCtxPushCurrent(CUcontext ctx)
{
	return cuCtxPushCurrent_v2(ctx);
}

BF_EXPORT CUresult cuCtxPopCurrent(CUcontext *pctx)
{
	return cuCtxPopCurrent_v2(pctx);
}

/* ------------------------------------------------------------------ primary contexts */

/* What hangs on a context goes with it. Destructors of context-local storage run first, on this thread. */
static void bury(uint32_t index)
{
	abi_context_storage_clear(bf_context_handle(index));
	/* in order with `ending`: either we see the first such memory, or who makes it sees that */
	if (atomic_load(&bf_shared_used))
		bf_shared_end_context(index);
	bf_ends_hold();
	bf_handle_free_context(index);
	bf_ends_release();
	bf_texture_end_context(index);
	bf_map_remove_context(index);
}

static CUresult find_primary(CUdevice dev, struct bf_context **context)
{
	CUresult status = bf_check();

	if (status)
		return status;
	*context = primary_of(dev);
	return *context ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

BF_EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *pctx, CUdevice dev)
{
	struct bf_context *context;
	CUresult status = find_primary(dev, &context);

	if (status)
		return status;
	if (!pctx)
		return CUDA_ERROR_INVALID_VALUE;
	atomic_fetch_add(&context->retained, 1);
	activate(context);
	*pctx = bf_context_handle(primary_index(dev));
	return CUDA_SUCCESS;
}

/* The last release waits, so that what kernels printed still appears. */
static CUresult end_primary(struct bf_context *context, CUdevice dev, unsigned call)
{
	CUresult status = CUDA_SUCCESS;

	if (!atomic_exchange(&context->active, false))
		return CUDA_SUCCESS;
	bury(primary_index(dev));
	status = bf_call(call, (const uint64_t[]){ (uint64_t)dev });
	atomic_store(&context->flags, 0);
	atomic_store(&context->synced, 0);
	atomic_store(&context->fault, 0);
	return bf_is_fault(status) ? CUDA_SUCCESS : status; /* that ended too */
}

BF_EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice dev)
{
	struct bf_context *context;
	CUresult status = find_primary(dev, &context);
	uint32_t retained;

	if (status)
		return status;
	retained = atomic_load(&context->retained);
	do
		if (!retained)
			return CUDA_ERROR_INVALID_CONTEXT;
	while (!atomic_compare_exchange_weak(&context->retained, &retained, retained - 1));
	return retained == 1 ? end_primary(context, dev, BF_cuDevicePrimaryCtxRelease_v2) : CUDA_SUCCESS;
}

BF_EXPORT CUresult cuDevicePrimaryCtxReset_v2(CUdevice dev)
{
	struct bf_context *context;
	CUresult status = find_primary(dev, &context);

	return status ? status : end_primary(context, dev, BF_cuDevicePrimaryCtxReset_v2);
}

BF_EXPORT CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice dev, unsigned int flags)
{
	struct bf_context *context;
	CUresult status = find_primary(dev, &context);

	if (status)
		return status;
	if ((flags & CU_CTX_SCHED_MASK) > CU_CTX_SCHED_BLOCKING_SYNC || flags & ~CU_CTX_FLAGS_MASK)
		return CUDA_ERROR_INVALID_VALUE;
	atomic_store(&context->flags, flags);
	return BF_CALL(cuDevicePrimaryCtxSetFlags_v2, (uint64_t)dev, flags);
}

BF_EXPORT CUresult cuDevicePrimaryCtxGetState(CUdevice dev, unsigned int *flags, int *active)
{
	struct bf_context *context;
	CUresult status = find_primary(dev, &context);

	if (status)
		return status;
	if (flags)
		*flags = atomic_load(&context->flags);
	if (active)
		*active = atomic_load(&context->active);
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuDevicePrimaryCtxRelease(CUdevice dev)
{
	return cuDevicePrimaryCtxRelease_v2(dev);
}

BF_EXPORT CUresult cuDevicePrimaryCtxReset(CUdevice dev)
{
	return cuDevicePrimaryCtxReset_v2(dev);
}

BF_EXPORT CUresult cuDevicePrimaryCtxSetFlags(CUdevice dev, unsigned int flags)
{
	return cuDevicePrimaryCtxSetFlags_v2(dev, flags);
}

/* ------------------------------------------------------------------ created contexts */

BF_EXPORT CUresult cuCtxCreate_v2(CUcontext *pctx, unsigned int flags, CUdevice dev)
{
	CUresult status = bf_check();
	struct bf_context *context;

	if (status)
		return status;
	if (!pctx || (flags & CU_CTX_SCHED_MASK) > CU_CTX_SCHED_BLOCKING_SYNC || flags & ~CU_CTX_FLAGS_MASK)
		return CUDA_ERROR_INVALID_VALUE;
	status = BF_CALL(cuCtxCreate_v2, BF_ARG(pctx), flags, (uint64_t)dev);
	if (status)
		return status;
	context = bf_context_find(*pctx);
	if (!context)
		return CUDA_ERROR_UNKNOWN;
	context->device = dev;
	context->primary = false;
	context->flags = flags;
	context->id = atomic_fetch_add(&next_id, 1);
	context->synced = 0;
	context->fault = 0;
	context->retained = 1;
	context->ending = false; /* as the one before it was whose number this is */
	return push(index_of(*pctx));
}

BF_EXPORT CUresult cuCtxCreate_v3(CUcontext *pctx, CUexecAffinityParam *paramsArray, int numParams, unsigned int flags,
				  CUdevice dev)
{
	return numParams ? CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY : cuCtxCreate_v2(pctx, flags, dev);
}

BF_EXPORT CUresult cuCtxCreate_v4(CUcontext *pctx, CUctxCreateParams *ctxCreateParams, unsigned int flags, CUdevice dev)
{
	if (ctxCreateParams && (ctxCreateParams->numExecAffinityParams || ctxCreateParams->cigParams))
		return CUDA_ERROR_NOT_SUPPORTED;
	return cuCtxCreate_v2(pctx, flags, dev);
}

BF_EXPORT CUresult cuCtxDestroy_v2(CUcontext ctx)
{
	CUresult status = bf_check();
	struct bf_context *context = bf_context_find(ctx);

	if (status)
		return status;
	if (!context || context->primary)
		return CUDA_ERROR_INVALID_CONTEXT;
	atomic_store(&context->ending, true);
	bury(index_of(ctx));
	status = BF_CALL(cuCtxDestroy_v2, BF_ARG(ctx));
	if (bf_self.current == index_of(ctx))
		pop();
	return bf_is_fault(status) ? CUDA_SUCCESS : status;
}

BF_EXPORT CUresult cuCtxDestroy(CUcontext ctx)
{
	return cuCtxDestroy_v2(ctx);
}

BF_EXPORT CUresult cuCtxAttach(CUcontext *pctx, unsigned int flags)
{
	CUresult status = check_current();

	if (status)
		return status;
	if (!pctx || flags)
		return CUDA_ERROR_INVALID_VALUE;
	*pctx = bf_context_handle(bf_self.current);
	atomic_fetch_add(&bf_context_at(bf_self.current)->retained, 1);
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuCtxDetach(CUcontext ctx)
{
	CUresult status = bf_check();
	struct bf_context *context = bf_context_find(ctx);

	if (status)
		return status;
	if (!context || context->primary || index_of(ctx) != bf_self.current)
		return CUDA_ERROR_INVALID_CONTEXT;
	if (atomic_fetch_sub(&context->retained, 1) > 1)
		return CUDA_SUCCESS;
	return cuCtxDestroy_v2(ctx);
}
