/* SPDX-License-Identifier: Apache-2.0
 *
 * Primary contexts (one per device, shared by all who retain it) and created ones.
 */
#include "driver.h"
#include "queue.h"

static const unsigned known_flags = CU_CTX_SCHED_MASK | CU_CTX_MAP_HOST | CU_CTX_LMEM_RESIZE_TO_MAX |
				    CU_CTX_SYNC_MEMOPS | CU_CTX_COREDUMP_ENABLE | CU_CTX_USER_COREDUMP_ENABLE;

EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *pctx, CUdevice dev)
{
	ENTER();
	struct device *device = device_get(dev);
	if (!pctx)
		return CUDA_ERROR_INVALID_VALUE;
	if (!device)
		return CUDA_ERROR_INVALID_DEVICE;
	TRY(context_activate(device->primary));
	pthread_mutex_lock(&contexts_lock);
	device->primary->retained++;
	pthread_mutex_unlock(&contexts_lock);
	*pctx = (CUcontext)device->primary;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice dev)
{
	ENTER();
	struct device *device = device_get(dev);
	if (!device)
		return CUDA_ERROR_INVALID_DEVICE;
	pthread_mutex_lock(&contexts_lock);
	int held = device->primary->retained, left = held ? --device->primary->retained : 0;
	pthread_mutex_unlock(&contexts_lock);
	if (!held)
		return CUDA_ERROR_INVALID_CONTEXT;
	if (!left)
		context_die(device->primary);
	return CUDA_SUCCESS;
}

EXPORT CUresult cuDevicePrimaryCtxRelease(CUdevice dev)
{
	return cuDevicePrimaryCtxRelease_v2(dev);
}

EXPORT CUresult cuDevicePrimaryCtxReset_v2(CUdevice dev)
{
	ENTER();
	struct device *device = device_get(dev);
	if (!device)
		return CUDA_ERROR_INVALID_DEVICE;
	context_die(device->primary);
	/* those who retained it keep it, fresh */
	return device->primary->retained ? context_activate(device->primary) : CUDA_SUCCESS;
}

EXPORT CUresult cuDevicePrimaryCtxReset(CUdevice dev)
{
	return cuDevicePrimaryCtxReset_v2(dev);
}

EXPORT CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice dev, unsigned int flags)
{
	ENTER();
	struct device *device = device_get(dev);
	if (!device)
		return CUDA_ERROR_INVALID_DEVICE;
	if (flags & ~known_flags)
		return CUDA_ERROR_INVALID_VALUE;
	device->primary->flags = flags;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuDevicePrimaryCtxSetFlags(CUdevice dev, unsigned int flags)
{
	return cuDevicePrimaryCtxSetFlags_v2(dev, flags);
}

EXPORT CUresult cuDevicePrimaryCtxGetState(CUdevice dev, unsigned int *flags, int *active)
{
	ENTER();
	struct device *device = device_get(dev);
	if (!device)
		return CUDA_ERROR_INVALID_DEVICE;
	if (!flags || !active)
		return CUDA_ERROR_INVALID_VALUE;
	*flags = device->primary->flags;
	*active = device->primary->alive;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxCreate_v2(CUcontext *pctx, unsigned int flags, CUdevice dev)
{
	ENTER();
	struct device *device = device_get(dev);
	if (!pctx || (flags & ~known_flags))
		return CUDA_ERROR_INVALID_VALUE;
	if (!device)
		return CUDA_ERROR_INVALID_DEVICE;
	struct context *context;
	TRY(context_create(&context, device, flags));
	TRY(context_push(context));
	*pctx = (CUcontext)context;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxCreate_v3(CUcontext *pctx, CUexecAffinityParam *paramsArray, int numParams, unsigned int flags,
			       CUdevice dev)
{
	(void)paramsArray;
	return numParams ? CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY : cuCtxCreate_v2(pctx, flags, dev);
}

EXPORT CUresult cuCtxCreate_v4(CUcontext *pctx, CUctxCreateParams *ctxCreateParams, unsigned int flags, CUdevice dev)
{
	if (ctxCreateParams && (ctxCreateParams->numExecAffinityParams || ctxCreateParams->cigParams))
		return CUDA_ERROR_NOT_SUPPORTED;
	return cuCtxCreate_v2(pctx, flags, dev);
}

EXPORT CUresult cuCtxDestroy_v2(CUcontext ctx)
{
	ENTER();
	struct context *context = context_get(ctx);
	if (!context || context->primary || !context->alive)
		return CUDA_ERROR_INVALID_CONTEXT;
	context_die(context);
	if (context_current() == context)
		context_pop();
	return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxAttach(CUcontext *pctx, unsigned int flags)
{
	ENTER_CONTEXT(context);
	if (!pctx || flags)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&contexts_lock);
	context->retained++;
	pthread_mutex_unlock(&contexts_lock);
	*pctx = (CUcontext)context;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxDetach(CUcontext ctx)
{
	ENTER();
	struct context *context = context_get(ctx);
	if (!context || !context->alive || context != context_current())
		return CUDA_ERROR_INVALID_CONTEXT;
	if (context->primary)
		return cuDevicePrimaryCtxRelease_v2(context->device->index);
	pthread_mutex_lock(&contexts_lock);
	int others = context->retained > 0 ? context->retained-- : 0;
	pthread_mutex_unlock(&contexts_lock);
	return others ? CUDA_SUCCESS : cuCtxDestroy_v2(ctx);
}
