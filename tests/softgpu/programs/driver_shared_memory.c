/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory that the program and kernels use at the same address: mapped, registered, managed; values that a stream
 * waits for and writes.
 */
#include "program.h"

#include <unistd.h>

enum { COUNT = 512 };

static CUfunction scale;

static int scaled_wrong(unsigned *memory)
{
	CUdeviceptr address = (CUdeviceptr)(size_t)memory;
	unsigned factor = 3, n = COUNT;
	void *parameters[] = { &address, &factor, &n };
	int wrong = 0;

	for (unsigned i = 0; i < COUNT; i++)
		memory[i] = i * 5;
	CHECK(cuLaunchKernel(scale, COUNT / 64, 1, 1, 64, 1, 1, 0, NULL, parameters, NULL));
	CHECK(cuCtxSynchronize());
	for (unsigned i = 0; i < COUNT; i++)
		wrong += memory[i] != i * 16;
	return wrong;
}

static void mapped(void)
{
	static unsigned own[COUNT];
	unsigned *pinned, flags;
	CUdeviceptr managed, device;
	int is_managed;

	CHECK(cuMemHostAlloc((void **)&pinned, COUNT * 4, CU_MEMHOSTALLOC_DEVICEMAP));
	CHECK(cuMemHostGetDevicePointer_v2(&device, pinned, 0));
	CHECK(cuMemHostGetFlags(&flags, pinned));
	printf("pinned: %d wrong, one address: %s, mapped: %s\n", scaled_wrong(pinned),
	       device == (CUdeviceptr)(size_t)pinned ? "yes" : "no", flags & CU_MEMHOSTALLOC_DEVICEMAP ? "yes" : "no");
	CHECK(cuMemFreeHost(pinned));
	CHECK(cuMemHostRegister_v2(own, sizeof own, CU_MEMHOSTREGISTER_DEVICEMAP));
	printf("registered: %d wrong\n", scaled_wrong(own));
	CHECK(cuMemHostUnregister(own));
	CHECK(cuMemAllocManaged(&managed, COUNT * 4, CU_MEM_ATTACH_GLOBAL));
	CHECK(cuPointerGetAttribute(&is_managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, managed));
	CHECK(cuMemPrefetchAsync_v2(managed, COUNT * 4, (CUmemLocation){ .type = CU_MEM_LOCATION_TYPE_DEVICE }, 0,
				    NULL));
	printf("managed: %d wrong, known as such: %d\n", scaled_wrong((unsigned *)(size_t)managed), is_managed);
	CHECK(cuMemFree_v2(managed));
	SHOW(cuMemAllocManaged(&managed, COUNT, 9));
}

static void values(void)
{
	CUstream waiting, writing;
	volatile unsigned *flag;
	CUdeviceptr address;

	CHECK(cuMemHostAlloc((void **)&flag, 64, CU_MEMHOSTALLOC_DEVICEMAP));
	flag[0] = flag[1] = flag[2] = 0;
	address = (CUdeviceptr)(size_t)flag;
	CHECK(cuStreamCreate(&waiting, CU_STREAM_NON_BLOCKING));
	CHECK(cuStreamCreate(&writing, CU_STREAM_NON_BLOCKING));
	CHECK(cuStreamWaitValue32_v2(waiting, address, 5, CU_STREAM_WAIT_VALUE_GEQ));
	CHECK(cuStreamWriteValue32_v2(waiting, address + 4, 1, 0));
	usleep(20000);
	printf("waits: %s\n", cuStreamQuery(waiting) == CUDA_ERROR_NOT_READY && !flag[1] ? "yes" : "no");
	CHECK(cuStreamWriteValue32_v2(writing, address, 4, 0));
	CHECK(cuStreamSynchronize(writing));
	usleep(20000);
	printf("still waits: %s\n", cuStreamQuery(waiting) == CUDA_ERROR_NOT_READY && !flag[1] ? "yes" : "no");
	flag[0] = 6; /* by the program itself */
	CHECK(cuStreamSynchronize(waiting));
	printf("went on: %u\n", flag[1]);
	CHECK(cuStreamDestroy_v2(waiting));
	CHECK(cuStreamDestroy_v2(writing));
	CHECK(cuMemFreeHost((void *)flag));
}

int main(void)
{
	CUmodule module;

	open_device();
	CHECK(cuModuleLoadData(&module, PTX_HEADER PTX_SCALE));
	scale = get_function(module, "scale");
	mapped();
	values();
	CHECK(cuDevicePrimaryCtxRelease_v2(0));
	return 0;
}
