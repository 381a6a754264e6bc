/* SPDX-License-Identifier: Apache-2.0
 *
 * Questions about the current context, answered here, and waiting for all of its work.
 */
#define _GNU_SOURCE
#include "graph.h"
#include "shared.h"

enum { API_VERSION = 3020 };

static CUresult current(struct bf_context **context)
{
	CUresult status = bf_check();

	if (!status)
		status = bf_context_check();
	if (!status)
		*context = bf_context_at(bf_self.current);
	return status;
}

/* The context that a call names, or the current one where it names none. */
static CUresult named(CUcontext ctx, struct bf_context **context)
{
	CUresult status = bf_check();

	if (status || !ctx)
		return status ? status : current(context);
	*context = bf_context_find(ctx);
	return *context ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

BF_EXPORT CUresult cuCtxGetDevice(CUdevice *device)
{
	const struct bf_context *context = bf_context_at(bf_self.current);
	CUresult status = bf_check();

	if (status)
		return status;
	if (!device)
		return CUDA_ERROR_INVALID_VALUE;
	if (!context) /* a fault of it, or its end, is in nobody's way */
		return CUDA_ERROR_INVALID_CONTEXT;
	*device = context->device;
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuCtxGetDevice_v2(CUdevice *device, CUcontext ctx)
{
	struct bf_context *context;
	CUresult status = named(ctx, &context);

	if (status)
		return status;
	if (!device)
		return CUDA_ERROR_INVALID_VALUE;
	*device = context->device;
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuCtxGetDevResource(CUcontext hCtx, CUdevResource *resource, CUdevResourceType type)
{
	struct bf_context *context;
	CUresult status = named(hCtx, &context);

	return status ? status : bf_device_resource(context->device, resource, type);
}

BF_EXPORT CUresult cuCtxGetFlags(unsigned int *flags)
{
	struct bf_context *context;
	CUresult status = current(&context);

	if (status)
		return status;
	if (!flags)
		return CUDA_ERROR_INVALID_VALUE;
	*flags = atomic_load(&context->flags);
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuCtxSetFlags(unsigned int flags)
{
	struct bf_context *context;
	CUresult status = current(&context);

	if (!status)
		atomic_store(&context->flags, flags); /* how the host waits: nothing for the server */
	return status;
}

BF_EXPORT CUresult cuCtxGetId(CUcontext ctx, unsigned long long *ctxId)
{
	struct bf_context *context;
	CUresult status = named(ctx, &context);

	if (status)
		return status;
	if (!ctxId)
		return CUDA_ERROR_INVALID_VALUE;
	*ctxId = context->id;
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuCtxGetApiVersion(CUcontext ctx, unsigned int *version)
{
	struct bf_context *context;
	CUresult status = named(ctx, &context);

	if (status)
		return status;
	if (!version)
		return CUDA_ERROR_INVALID_VALUE;
	*version = API_VERSION;
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuCtxGetStreamPriorityRange(int *leastPriority, int *greatestPriority)
{
	struct bf_context *context;
	CUresult status = current(&context);

	if (status)
		return status;
	if (leastPriority)
		*leastPriority = bf_device(context->device)->least_priority;
	if (greatestPriority)
		*greatestPriority = bf_device(context->device)->greatest_priority;
	return CUDA_SUCCESS;
}

/* Cache and bank preferences are hints that no device of today follows. */
BF_EXPORT CUresult cuCtxGetCacheConfig(CUfunc_cache *pconfig)
{
	struct bf_context *context;
	CUresult status = current(&context);

	if (status)
		return status;
	if (!pconfig)
		return CUDA_ERROR_INVALID_VALUE;
	*pconfig = CU_FUNC_CACHE_PREFER_NONE;
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuCtxSetCacheConfig(CUfunc_cache config)
{
	struct bf_context *context;

	return current(&context);
}

BF_EXPORT CUresult cuCtxGetSharedMemConfig(CUsharedconfig *pConfig)
{
	struct bf_context *context;
	CUresult status = current(&context);

	if (status)
		return status;
	if (!pConfig)
		return CUDA_ERROR_INVALID_VALUE;
	*pConfig = CU_SHARED_MEM_CONFIG_FOUR_BYTE_BANK_SIZE;
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuCtxSetSharedMemConfig(CUsharedconfig config)
{
	struct bf_context *context;

	return current(&context);
}

static void note_synced(_Atomic uint64_t *synced, uint64_t sequence)
{
	uint64_t known = atomic_load(synced);

	while (known < sequence && !atomic_compare_exchange_weak(synced, &known, sequence))
		;
}

/* Nothing was sent since the last time: there is nothing to wait for, and nothing that could have failed. */
static CUresult synchronize(struct bf_context *context)
{
	uint64_t sequence = bf_queue_sequence();
	CUresult status = bf_capture_permit();

	if (status)
		return status;
	if (sequence && atomic_load(&context->synced) == sequence)
		return CUDA_SUCCESS;
	status = bf_shared_in_use() ? bf_shared_before_wait() : CUDA_SUCCESS;
	if (!status)
		status = bf_call_numbered(BF_cuCtxSynchronize, NULL, false, &sequence);
	if (!status && bf_shared_in_use())
		status = bf_shared_waited_context(bf_self.current, sequence);
	if (!status)
		note_synced(&context->synced, sequence);
	return status;
}

BF_EXPORT CUresult cuCtxSynchronize(void)
{
	struct bf_context *context;
	CUresult status = current(&context);

	return status ? status : synchronize(context);
}

BF_EXPORT CUresult cuCtxSynchronize_v2(CUcontext ctx)
{
	struct bf_context *context;
	CUresult status = named(ctx, &context);
	uint32_t before = bf_self.current;

	if (status)
		return status;
	if (ctx)
		bf_self.current = BF_HANDLE_INDEX((uintptr_t)ctx);
	status = synchronize(context);
	bf_self.current = before;
	return status;
}
