/* SPDX-License-Identifier: Apache-2.0
 *
 * A fault stays with its context, in every call that needs it, until the context ends.
 */
#include "program.h"

static const char ptx[] = PTX_HEADER PTX_SCALE ".visible .entry fault()\n"
					       "{\n"
					       "	.reg .b64 %a<2>;\n"
					       "	mov.u64 %a1, 64;\n"
					       "	st.global.u32 [%a1], 1;\n"
					       "	ret;\n"
					       "}\n";

static void fault(CUmodule module, CUstream stream)
{
	CHECK(cuLaunchKernel(get_function(module, "fault"), 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL));
	SHOW(cuStreamSynchronize(stream));
}

/* What is answered without a device: the context is asked for all the same, except where it is the answer. */
static void show_queries(CUmodule module, CUfunction function)
{
	const char *name;
	CUfunction same;
	CUmodule parent;
	CUdevice device;
	CUcontext context;
	unsigned flags;
	size_t offset, size;
	int value;

	SHOW(cuCtxGetDevice(&device));
	SHOW(cuCtxGetCurrent(&context));
	SHOW(cuCtxGetFlags(&flags));
	SHOW(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_NUM_REGS, function));
	SHOW(cuFuncSetCacheConfig(function, CU_FUNC_CACHE_PREFER_NONE));
	SHOW(cuFuncGetModule(&parent, function));
	SHOW(cuFuncGetName(&name, function));
	SHOW(cuFuncGetParamInfo(function, 0, &offset, &size));
	SHOW(cuModuleGetFunction(&same, module, "scale"));
	SHOW(cuOccupancyMaxActiveBlocksPerMultiprocessor(&value, function, 32, 0));
	SHOW(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_WARP_SIZE, 0));
}

static void show_calls(CUmodule module, CUstream stream, CUevent event, CUdeviceptr x)
{
	unsigned n = 1, factor = 10, word = 0;
	void *parameters[] = { &x, &factor, &n };
	CUfunction scale = get_function(module, "scale");
	CUstream other;
	CUevent another;
	CUdeviceptr y;
	void *pinned;

	CHECK(cuMemAllocHost_v2(&pinned, 64));
	fault(module, stream);
	SHOW(cuLaunchKernel(scale, 1, 1, 1, 1, 1, 1, 0, stream, parameters, NULL));
	SHOW(cuMemsetD8Async(x, 0, 4, stream));
	SHOW(cuMemAlloc_v2(&y, 4));
	SHOW(cuMemcpyHtoD_v2(x, &word, 4));
	SHOW(cuMemcpyHtoDAsync_v2(x, &word, 4, stream));
	SHOW(cuMemcpyDtoH_v2(&word, x, 4));
	SHOW(cuEventRecord(event, stream));
	SHOW(cuStreamWaitEvent(stream, event, 0));
	SHOW(cuStreamCreate(&other, 0));
	SHOW(cuEventCreate(&another, 0));
	SHOW(cuStreamQuery(stream));
	SHOW(cuCtxSynchronize());
	SHOW(cuMemFree_v2(x));
	show_queries(module, scale);
	SHOW(cuMemFreeHost(pinned));
	SHOW(cuModuleUnload(module));
	SHOW(cuStreamDestroy_v2(stream));
	SHOW(cuEventDestroy_v2(event));
}

int main(void)
{
	CUcontext primary = open_device(), second;
	CUmodule module;
	CUstream stream;
	CUevent event;
	CUdeviceptr x;

	for (int i = 0; i < 2; i++) {
		CHECK(cuModuleLoadData(&module, ptx));
		CHECK(cuMemAlloc_v2(&x, 4));
		CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
		CHECK(cuEventCreate(&event, 0));
		show_calls(module, stream, event, x);
		SHOW(cuDevicePrimaryCtxReset_v2(0));
		CHECK(cuDevicePrimaryCtxRetain(&primary, 0));
		CHECK(cuCtxSetCurrent(primary));
	}
	/* another context of the same device has nothing to do with it */
	CHECK(cuCtxCreate_v2(&second, 0, 0));
	CHECK(cuModuleLoadData(&module, ptx));
	fault(module, NULL);
	SHOW(cuMemAlloc_v2(&x, 4));
	CHECK(cuCtxSetCurrent(primary));
	SHOW(cuMemAlloc_v2(&x, 4));
	SHOW(cuMemsetD8Async(x, 0, 4, NULL));
	SHOW(cuCtxSynchronize());
	SHOW(cuCtxDestroy_v2(second));
	SHOW(cuDevicePrimaryCtxRelease_v2(0));
	return 0;
}
