/* SPDX-License-Identifier: Apache-2.0
 *
 * Allocation in the order of a stream, and the pools it comes from.
 */
#include "program.h"

enum { COUNT = 1024 };

int main(void)
{
	CUmemoryPool pool, current, mine;
	CUstream stream;
	CUmodule module;
	CUdeviceptr x, y;
	static unsigned host[COUNT];
	unsigned n = COUNT, factor = 2;
	void *parameters[] = { &x, &factor, &n };
	size_t before, after, total;
	cuuint64_t threshold = 1 << 20, read = 0;
	CUmemPoolProps properties = { .allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
				      .location = { .type = CU_MEM_LOCATION_TYPE_DEVICE } };
	int wrong = 0;

	open_device();
	CHECK(cuModuleLoadData(&module, PTX_HEADER PTX_SCALE));
	CUfunction scale = get_function(module, "scale");
	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	CHECK(cuDeviceGetDefaultMemPool(&pool, 0));
	CHECK(cuDeviceGetMemPool(&current, 0));
	printf("the default pool is current: %s\n", pool == current ? "yes" : "no");
	CHECK(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &threshold));
	CHECK(cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &read));
	printf("threshold: %llu\n", (unsigned long long)read);
	CHECK(cuMemGetInfo_v2(&before, &total));
	for (int round = 0; round < 10; round++) {
		CHECK(cuMemAllocAsync(&x, COUNT * 4, stream));
		CHECK(cuMemsetD32Async(x, 21, COUNT, stream));
		CHECK(cuLaunchKernel(scale, COUNT / 128, 1, 1, 128, 1, 1, 0, stream, parameters, NULL));
		CHECK(cuMemcpyDtoHAsync_v2(host, x, sizeof host, stream));
		CHECK(cuMemFreeAsync(x, stream));
		CHECK(cuStreamSynchronize(stream));
		for (unsigned i = 0; i < COUNT; i++)
			wrong += host[i] != 42 + i;
	}
	printf("ten rounds: %d wrong\n", wrong);
	CHECK(cuMemPoolTrimTo(pool, 0));
	CHECK(cuMemGetInfo_v2(&after, &total));
	printf("all back: %s\n", before == after ? "yes" : "no");
	CHECK(cuMemPoolCreate(&mine, &properties));
	CHECK(cuMemAllocFromPoolAsync(&y, 4096, mine, stream));
	CHECK(cuStreamSynchronize(stream));
	CHECK(cuMemFree_v2(y));
	CHECK(cuDeviceSetMemPool(0, mine));
	CHECK(cuDeviceGetMemPool(&current, 0));
	printf("mine is current: %s\n", mine == current ? "yes" : "no");
	CHECK(cuMemPoolDestroy(mine));
	CHECK(cuDeviceGetMemPool(&current, 0));
	printf("the default pool is current again: %s\n", pool == current ? "yes" : "no");
	SHOW(cuMemAllocAsync(&x, 0, stream));
	SHOW(cuMemAllocAsync(&x, (size_t)1 << 50, stream));
	CHECK(cuDevicePrimaryCtxRelease_v2(0));
	return 0;
}
