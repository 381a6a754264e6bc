/* SPDX-License-Identifier: Apache-2.0
 *
 * What a context can be asked and told: limits, flags, preferences, peers.
 */
#include "driver.h"
#include "queue.h"

EXPORT CUresult cuCtxGetDevice(CUdevice *device)
{
	ENTER();
	struct context *context = context_current();
	if (!device)
		return CUDA_ERROR_INVALID_VALUE;
	if (!context)
		return CUDA_ERROR_INVALID_CONTEXT;
	*device = context->device->index;
	return CUDA_SUCCESS;
}

/* NULL means the calling thread's. */
static CUresult any_context(CUcontext handle, struct context **context)
{
	ENTER();
	*context = handle ? context_get(handle) : context_current();
	if (!*context)
		return CUDA_ERROR_INVALID_CONTEXT;
	return (*context)->alive || (*context)->primary ? CUDA_SUCCESS : CUDA_ERROR_CONTEXT_IS_DESTROYED;
}

EXPORT CUresult cuCtxGetDevice_v2(CUdevice *device, CUcontext ctx)
{
	struct context *context;
	TRY(any_context(ctx, &context));
	if (!device)
		return CUDA_ERROR_INVALID_VALUE;
	*device = context->device->index;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxGetFlags(unsigned int *flags)
{
	ENTER_CONTEXT(context);
	if (!flags)
		return CUDA_ERROR_INVALID_VALUE;
	*flags = context->flags;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxSetFlags(unsigned int flags)
{
	ENTER_CONTEXT(context);
	context->flags = flags;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxGetId(CUcontext ctx, unsigned long long *ctxId)
{
	struct context *context;
	TRY(any_context(ctx, &context));
	if (!ctxId)
		return CUDA_ERROR_INVALID_VALUE;
	if (!context->alive)
		TRY(context_activate(context));
	*ctxId = context->id;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxGetApiVersion(CUcontext ctx, unsigned int *version)
{
	struct context *context;
	TRY(any_context(ctx, &context));
	if (!version)
		return CUDA_ERROR_INVALID_VALUE;
	if (!context->alive)
		return CUDA_ERROR_CONTEXT_IS_DESTROYED;
	*version = context->api_version;
	return CUDA_SUCCESS;
}

static CUresult synchronize(struct context *context)
{
	TRY(capture_check_unsafe());
	return context_synchronize(context);
}

EXPORT CUresult cuCtxSynchronize(void)
{
	ENTER_CONTEXT(context);
	return synchronize(context);
}

EXPORT CUresult cuCtxSynchronize_v2(CUcontext ctx)
{
	struct context *context;
	TRY(any_context(ctx, &context));
	if (!context->alive)
		return context->primary ? CUDA_SUCCESS : CUDA_ERROR_CONTEXT_IS_DESTROYED;
	TRY(context_error(context));
	return synchronize(context);
}

EXPORT CUresult cuCtxGetLimit(size_t *pvalue, CUlimit limit)
{
	ENTER_CONTEXT(context);
	if (!pvalue)
		return CUDA_ERROR_INVALID_VALUE;
	if ((int)limit < 0 || limit >= CU_LIMIT_MAX)
		return CUDA_ERROR_UNSUPPORTED_LIMIT;
	*pvalue = context->limits[limit];
	return CUDA_SUCCESS;
}

/* Too late once a kernel has printed, or has asked for memory. */
static CUresult set_room(struct context *context, CUlimit limit, size_t value)
{
	if (value == context->limits[limit])
		return CUDA_SUCCESS;
	if (value > context->device->memory)
		return CUDA_ERROR_OUT_OF_MEMORY;
	if (!context->engine)
		return CUDA_SUCCESS;
	int answer = limit == CU_LIMIT_MALLOC_HEAP_SIZE ? sg_context_set_heap(context->engine, value)
							: sg_context_set_text(context->engine, value);
	return answer < 0 ? CUDA_ERROR_OUT_OF_MEMORY : answer ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

EXPORT CUresult cuCtxSetLimit(CUlimit limit, size_t value)
{
	ENTER_CONTEXT(context);
	switch ((int)limit) {
	case CU_LIMIT_PRINTF_FIFO_SIZE:
	case CU_LIMIT_MALLOC_HEAP_SIZE:
		TRY(context_synchronize(context));
		TRY(set_room(context, limit, value));
		break;
	case CU_LIMIT_STACK_SIZE:
		if (value > KIB(512)) /* the local memory of a thread */
			return CUDA_ERROR_INVALID_VALUE;
		break;
	case CU_LIMIT_DEV_RUNTIME_SYNC_DEPTH:
	case CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT: break;
	case CU_LIMIT_MAX_L2_FETCH_GRANULARITY:
		if (value > 128)
			return CUDA_ERROR_INVALID_VALUE;
		break;
	case CU_LIMIT_PERSISTING_L2_CACHE_SIZE:
		value = 0; /* there is no such cache */
		break;
	default: return CUDA_ERROR_UNSUPPORTED_LIMIT;
	}
	context->limits[limit] = value;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxGetCacheConfig(CUfunc_cache *pconfig)
{
	ENTER_CONTEXT(context);
	if (!pconfig)
		return CUDA_ERROR_INVALID_VALUE;
	*pconfig = context->cache_config;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxSetCacheConfig(CUfunc_cache config)
{
	ENTER_CONTEXT(context);
	if ((int)config < 0 || config > CU_FUNC_CACHE_PREFER_EQUAL)
		return CUDA_ERROR_INVALID_VALUE;
	context->cache_config = config;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxGetSharedMemConfig(CUsharedconfig *pConfig)
{
	ENTER_CONTEXT(context);
	if (!pConfig)
		return CUDA_ERROR_INVALID_VALUE;
	*pConfig = CU_SHARED_MEM_CONFIG_FOUR_BYTE_BANK_SIZE;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxSetSharedMemConfig(CUsharedconfig config)
{
	ENTER_CONTEXT(context);
	(void)config;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxGetStreamPriorityRange(int *leastPriority, int *greatestPriority)
{
	ENTER_CONTEXT(context);
	if (leastPriority)
		*leastPriority = 0;
	if (greatestPriority)
		*greatestPriority = -5;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxResetPersistingL2Cache(void)
{
	ENTER_CONTEXT(context);
	return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxGetExecAffinity(CUexecAffinityParam *pExecAffinity, CUexecAffinityType type)
{
	ENTER_CONTEXT(context);
	(void)type;
	return pExecAffinity ? CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY : CUDA_ERROR_INVALID_VALUE;
}

/* Every device's memory is the process's memory here, so peers differ only in what they were told. */
EXPORT CUresult cuCtxEnablePeerAccess(CUcontext peerContext, unsigned int Flags)
{
	ENTER_CONTEXT(context);
	struct context *peer = context_get(peerContext);
	if (Flags)
		return CUDA_ERROR_INVALID_VALUE;
	if (!peer || peer->device == context->device)
		return peer ? CUDA_ERROR_PEER_ACCESS_UNSUPPORTED : CUDA_ERROR_INVALID_CONTEXT;
	uint64_t bit = (uint64_t)1 << peer->device->index;
	if (context->peers & bit)
		return CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED;
	context->peers |= bit;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxDisablePeerAccess(CUcontext peerContext)
{
	ENTER_CONTEXT(context);
	struct context *peer = context_get(peerContext);
	if (!peer)
		return CUDA_ERROR_INVALID_CONTEXT;
	uint64_t bit = (uint64_t)1 << peer->device->index;
	if (!(context->peers & bit))
		return CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
	context->peers &= ~bit;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuProfilerInitialize(const char *configFile, const char *outputFile, CUoutput_mode outputMode)
{
	ENTER();
	(void)configFile, (void)outputFile, (void)outputMode;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuProfilerStart(void)
{
	ENTER_CONTEXT(context);
	return CUDA_SUCCESS;
}

EXPORT CUresult cuProfilerStop(void)
{
	ENTER_CONTEXT(context);
	return CUDA_SUCCESS;
}
