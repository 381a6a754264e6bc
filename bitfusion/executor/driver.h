/* SPDX-License-Identifier: Apache-2.0
 *
 * The driver that this process has loaded, and code as it wants it wrapped.
 */
#ifndef BITFUSION_EXECUTOR_DRIVER_H
#define BITFUSION_EXECUTOR_DRIVER_H

#include "base.h"
#include "container.h"

/* ------------------------------------------------------------------ wrapper.c */

struct bf_wrapper {
	struct code_wrapper code; /* the driver looks at this */
	const void **parts;
};

/* Of a load's bulk, which must live as long; false if that is not what its own sizes say. */
bool bf_wrapper_fill(struct bf_wrapper *wrapper, const uint8_t *bulk, uint64_t size, uint32_t input_count);
const void *bf_wrapper_code(const struct bf_wrapper *wrapper); /* for the driver */
void bf_wrapper_free(struct bf_wrapper *wrapper);

/* ------------------------------------------------------------------ driver.c */

/* Functions that the executor calls by itself; each may be NULL in an old driver. */
#define BF_DRIVER_FUNCTIONS(X) \
	X(cuInit) \
	X(cuDriverGetVersion) \
	X(cuDeviceGet) \
	X(cuDeviceGetCount) \
	X(cuDeviceGetName) \
	X(cuDeviceGetUuid) \
	X(cuDeviceGetUuid_v2) \
	X(cuDeviceGetPCIBusId) \
	X(cuDeviceGetAttribute) \
	X(cuDeviceGetDefaultMemPool) \
	X(cuDeviceGetGraphMemAttribute) \
	X(cuDeviceGraphMemTrim) \
	X(cuDeviceTotalMem_v2) \
	X(cuDevicePrimaryCtxRetain) \
	X(cuDevicePrimaryCtxGetState) \
	X(cuCtxSetCurrent) \
	X(cuCtxSetLimit) \
	X(cuCtxGetDevice) \
	X(cuCtxGetLimit) \
	X(cuCtxGetStreamPriorityRange) \
	X(cuCtxSynchronize) \
	X(cuStreamQuery) \
	X(cuStreamSynchronize) \
	X(cuStreamIsCapturing) \
	X(cuThreadExchangeStreamCaptureMode) \
	X(cuStreamWaitEvent) \
	X(cuStreamGetFlags) \
	X(cuStreamAddCallback) \
	X(cuLaunchHostFunc) \
	X(cuEventCreate) \
	X(cuEventDestroy_v2) \
	X(cuEventElapsedTime) \
	X(cuEventRecord) \
	X(cuEventQuery) \
	X(cuEventSynchronize) \
	X(cuLaunchKernel) \
	X(cuLaunchKernelEx) \
	X(cuLaunchCooperativeKernel) \
	X(cuPointerGetAttribute) \
	X(cuMemGetInfo_v2) \
	X(cuMemAlloc_v2) \
	X(cuMemAllocPitch_v2) \
	X(cuMemFree_v2) \
	X(cuMemFreeAsync) \
	X(cuMemPoolGetAttribute) \
	X(cuMemPoolTrimTo) \
	X(cuMemHostRegister_v2) \
	X(cuMemcpyHtoDAsync_v2) \
	X(cuMemcpyDtoHAsync_v2) \
	X(cuMemcpy3DAsync_v2) \
	X(cuModuleLoadDataEx) \
	X(cuModuleUnload) \
	X(cuLibraryUnload) \
	X(cuModuleEnumerateFunctions) \
	X(cuModuleGetFunction) \
	X(cuModuleGetFunctionCount) \
	X(cuLibraryLoadData) \
	X(cuLibraryEnumerateKernels) \
	X(cuLibraryGetKernel) \
	X(cuLibraryGetKernelCount) \
	X(cuKernelGetFunction) \
	X(cuLinkCreate_v2) \
	X(cuLinkAddData_v2) \
	X(cuLinkComplete) \
	X(cuFuncGetName) \
	X(cuFuncGetParamInfo) \
	X(cuGraphChildGraphNodeGetGraph) \
	X(cuGraphGetEdges) \
	X(cuGraphGetEdges_v2) \
	X(cuGraphGetNodes) \
	X(cuGraphHostNodeGetParams) \
	X(cuGraphKernelNodeGetParams_v2) \
	X(cuGraphMemcpyNodeGetParams) \
	X(cuGraphNodeGetType) \
	X(cuKernelGetName) \
	X(cuKernelGetParamInfo) \
	X(cuFuncGetAttribute) \
	X(cuKernelGetAttribute)

#define BF_DRIVER_MEMBER(name) __typeof__(&name) name;
struct bf_driver {
	void *library;
	char path[4096];
	bool ready; /* cuInit has succeeded in this process */
	BF_DRIVER_FUNCTIONS(BF_DRIVER_MEMBER)
};

/* Loads the library and, if asked, initialises it; 0, or a CUresult with the reason in text. */
CUresult bf_driver_load(struct bf_driver *driver, const char *path, bool init, char *text, size_t size);
void *bf_driver_symbol(struct bf_driver *driver, const char *name);
extern struct bf_driver bf_driver; /* the one of this process; warm spares have it filled in already */

#endif
