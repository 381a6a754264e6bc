/* SPDX-License-Identifier: Apache-2.0
 *
 * What of a device a context has: all of it, for there are no green contexts. cuSOLVER asks how many
 * multiprocessors that is.
 */
#include "driver.h"

#include <string.h>

static CUresult describe(CUdevResource *resource, CUdevResourceType type)
{
	if (!resource)
		return CUDA_ERROR_INVALID_VALUE;
	if (type != CU_DEV_RESOURCE_TYPE_SM)
		return CUDA_ERROR_INVALID_RESOURCE_TYPE;
	memset(resource, 0, sizeof *resource);
	resource->type = type;
	resource->sm.smCount = SM_COUNT;
	resource->sm.minSmPartitionSize = SM_COUNT;
	resource->sm.smCoscheduledAlignment = SM_COUNT;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetDevResource(CUdevice device, CUdevResource *resource, CUdevResourceType type)
{
	ENTER();
	return device_get(device) ? describe(resource, type) : CUDA_ERROR_INVALID_DEVICE;
}

EXPORT CUresult cuCtxGetDevResource(CUcontext hCtx, CUdevResource *resource, CUdevResourceType type)
{
	ENTER();
	struct context *context = hCtx ? context_get(hCtx) : context_current();
	return context ? describe(resource, type) : CUDA_ERROR_INVALID_CONTEXT;
}
