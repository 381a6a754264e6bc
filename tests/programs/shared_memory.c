/* SPDX-License-Identifier: Apache-2.0
 *
 * A little of each kind of memory that the program and its kernels both use, from beginning to end.
 */
#include "program.h"

#include <stdint.h>

enum { COUNT = 64 };

static CUfunction scale;

static void launch(CUdeviceptr memory, CUstream stream)
{
	unsigned factor = 2, n = COUNT;
	void *parameters[] = { &memory, &factor, &n };

	CHECK(cuLaunchKernel(scale, 1, 1, 1, COUNT, 1, 1, 0, stream, parameters, NULL));
}

static unsigned sum(const unsigned *memory)
{
	unsigned sum = 0;

	for (unsigned i = 0; i < COUNT; i++)
		sum = sum * 31 + memory[i];
	return sum;
}

static void fill(unsigned *memory, unsigned with)
{
	for (unsigned i = 0; i < COUNT; i++)
		memory[i] = i * with;
}

static void CUDA_CB look(void *memory)
{
	fill(memory, 1 + sum(memory) % 100);
}

static void use(const char *kind, unsigned *memory, CUdeviceptr device, CUstream stream)
{
	fill(memory, 3);
	launch(device, stream);
	CHECK(cuStreamSynchronize(stream));
	printf("%s: %x\n", kind, sum(memory));
	memory[1] = 7;
	launch(device, stream);
	CHECK(cuLaunchHostFunc(stream, look, memory));
	launch(device, stream);
	CHECK(cuCtxSynchronize());
	printf("%s: %x\n", kind, sum(memory));
}

int main(void)
{
	static unsigned own[COUNT];
	CUcontext context = open_device();
	CUdeviceptr managed, device;
	unsigned *pinned;
	CUmodule module;
	CUstream stream;

	CHECK(cuModuleLoadData(&module, PTX_HEADER PTX_SCALE));
	scale = get_function(module, "scale");
	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	CHECK(cuMemAllocManaged(&managed, sizeof own, CU_MEM_ATTACH_GLOBAL));
	use("managed", (unsigned *)(uintptr_t)managed, managed, stream);
	CHECK(cuMemHostAlloc((void **)&pinned, sizeof own, CU_MEMHOSTALLOC_DEVICEMAP));
	use("pinned", pinned, (CUdeviceptr)(uintptr_t)pinned, stream);
	CHECK(cuMemHostRegister_v2(own, sizeof own, CU_MEMHOSTREGISTER_DEVICEMAP));
	CHECK(cuMemHostGetDevicePointer_v2(&device, own, 0));
	use("registered", own, device, stream);
	CHECK(cuMemHostUnregister(own));
	CHECK(cuMemFreeHost(pinned));
	CHECK(cuMemFree_v2(managed));
	CHECK(cuStreamDestroy_v2(stream));
	CHECK(cuCtxSynchronize());
	CHECK(cuDevicePrimaryCtxRelease_v2(0));
	printf("done\n");
	return context ? 0 : 1;
}
