/* SPDX-License-Identifier: Apache-2.0
 *
 * What is refused, and how: bad arguments harm nothing, a fault in a kernel is remembered.
 */
#include "program.h"

static const char code[] = PTX_HEADER PTX_ADD ".visible .entry write_to(.param .u64 x)\n{\n" PTX_REGISTERS
					      "    ld.param.u64 %d1, [x];\n    mov.u32 %r1, 7;\n"
					      "    st.global.u32 [%d1], %r1;\n    ret;\n}\n"
					      ".visible .entry limited() .maxntid 64, 1, 1\n{\n    ret;\n}\n";

static void before_anything(void)
{
	int count;
	CUcontext context;

	SHOW(cuDeviceGetCount(&count));
	SHOW(cuCtxGetCurrent(&context));
	SHOW(cuInit(1));
	CHECK(cuInit(0));
	SHOW(cuCtxSynchronize());
	SHOW(cuCtxPopCurrent_v2(&context));
}

static void devices(void)
{
	CUdevice device;
	int value, count;
	char name[8];

	CHECK(cuDeviceGetCount(&count));
	SHOW(cuDeviceGet(&device, count));
	SHOW(cuDeviceGet(&device, -1));
	SHOW(cuDeviceGetAttribute(&value, 0, 0));
	SHOW(cuDeviceGetAttribute(NULL, CU_DEVICE_ATTRIBUTE_WARP_SIZE, 0));
	SHOW(cuDeviceGetName(name, 0, 0));
	SHOW(cuDeviceGetName(name, sizeof name, 99));
}

static void launches(CUfunction add, CUfunction limited)
{
	CUdeviceptr x = 0;
	unsigned n = 0;
	void *parameters[] = { &x, &x, &x, &n };
	CUstream wild = (CUstream)(size_t)0x123450;

	SHOW(cuLaunchKernel(add, 0, 1, 1, 32, 1, 1, 0, NULL, parameters, NULL));
	SHOW(cuLaunchKernel(add, 1, 65536, 1, 32, 1, 1, 0, NULL, parameters, NULL));
	SHOW(cuLaunchKernel(add, 1, 1, 1, 1025, 1, 1, 0, NULL, parameters, NULL));
	SHOW(cuLaunchKernel(add, 1, 1, 1, 1, 1, 65, 0, NULL, parameters, NULL));
	SHOW(cuLaunchKernel(add, 1, 1, 1, 32, 1, 1, 200 << 10, NULL, parameters, NULL));
	SHOW(cuLaunchKernel(add, 1, 1, 1, 32, 1, 1, 0, wild, parameters, NULL));
	SHOW(cuLaunchKernel((CUfunction)(size_t)0x6660, 1, 1, 1, 32, 1, 1, 0, NULL, parameters, NULL));
	SHOW(cuLaunchKernel(limited, 1, 1, 1, 64, 1, 1, 0, NULL, NULL, NULL));
	SHOW(cuLaunchKernel(limited, 1, 1, 1, 65, 1, 1, 0, NULL, NULL, NULL));
	SHOW(cuCtxSynchronize());
}

static void modules(void)
{
	CUmodule module;
	CUfunction function;
	CUdeviceptr address;
	size_t size;

	SHOW(cuModuleLoadData(&module, "this is not PTX"));
	SHOW(cuModuleLoadData(NULL, code));
	SHOW(cuModuleLoad(&module, "/nonexistent/file.ptx"));
	CHECK(cuModuleLoadData(&module, code));
	SHOW(cuModuleGetFunction(&function, module, "no_such_kernel"));
	SHOW(cuModuleGetGlobal_v2(&address, &size, module, "no_such_variable"));
	launches(get_function(module, "add"), get_function(module, "limited"));
}

static void handles(void)
{
	CUstream stream;
	CUevent event;
	float milliseconds;

	CHECK(cuStreamCreate(&stream, CU_STREAM_DEFAULT));
	CHECK(cuStreamDestroy_v2(stream));
	SHOW(cuStreamCreate(&stream, 77));
	SHOW(cuEventCreate(&event, 1 << 20));
	CHECK(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
	CHECK(cuEventRecord(event, NULL));
	CHECK(cuEventSynchronize(event));
	SHOW(cuEventElapsedTime_v2(&milliseconds, event, event));
	CHECK(cuEventDestroy_v2(event));
	SHOW(cuEventQuery((CUevent)(size_t)0x999990));
	SHOW(cuCtxSetCurrent((CUcontext)(size_t)0x777770));
}

static void fault(void)
{
	CUmodule module;
	CUdeviceptr memory, wild = 0x100;
	int value;
	void *parameters[] = { &memory };

	CHECK(cuModuleLoadData(&module, code));
	CUfunction write_to = get_function(module, "write_to");
	CHECK(cuMemAlloc_v2(&memory, 4));
	CHECK(cuLaunchKernel(write_to, 1, 1, 1, 1, 1, 1, 0, NULL, parameters, NULL));
	CHECK(cuMemcpyDtoH_v2(&value, memory, 4));
	printf("written: %d\n", value);
	parameters[0] = &wild;
	CHECK(cuLaunchKernel(write_to, 1, 1, 1, 1, 1, 1, 0, NULL, parameters, NULL));
	SHOW(cuCtxSynchronize());
	SHOW(cuMemAlloc_v2(&memory, 4));
	SHOW(cuMemcpyDtoH_v2(&value, memory, 4));
	SHOW(cuCtxSynchronize());
}

int main(void)
{
	const char *text = NULL;

	setvbuf(stdout, NULL, _IOLBF, 0);
	before_anything();
	devices();
	open_device();
	modules();
	handles();
	SHOW(cuGetErrorName((CUresult)12345, &text));
	fault();
	return 0;
}
