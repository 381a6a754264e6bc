/* SPDX-License-Identifier: Apache-2.0
 *
 * Allocation in the order of a stream, and the pools it comes from.
 */
#include "program.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <unistd.h>

enum { COUNT = 1024 };

static atomic_bool go;

static void CUDA_CB wait_for_go(void *unused)
{
	while (!atomic_load(&go))
		usleep(1000);
}

/* What a stream has yet to free is the program's no more: it cannot be freed again, nor does it count. */
static void free_twice(CUmemoryPool pool, CUstream stream)
{
	cuuint64_t before, used;
	CUdeviceptr x;

	CHECK(cuStreamSynchronize(stream));
	CHECK(cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &before));
	CHECK(cuMemAllocAsync(&x, 4096, stream));
	CHECK(cuLaunchHostFunc(stream, wait_for_go, NULL));
	CHECK(cuMemFreeAsync(x, stream));
	SHOW(cuMemFreeAsync(x, stream));
	CHECK(cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used));
	printf("used behind a free: %llu\n", (unsigned long long)(used - before));
	atomic_store(&go, true);
	CHECK(cuStreamSynchronize(stream));
	SHOW(cuMemFreeAsync(x, stream));
}

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
	free_twice(pool, stream);
	SHOW(cuMemAllocAsync(&x, 0, stream));
	SHOW(cuMemAllocAsync(&x, (size_t)1 << 50, stream));
	CHECK(cuDevicePrimaryCtxRelease_v2(0));
	return 0;
}
