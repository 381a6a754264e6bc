/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies larger than any buffer between, both ways, behind a host function that takes its time, and calls that may
 * wait for the device: whoever carries them must not wait for the function where its return is to arrive.
 */
#include "cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SIZE ((size_t)300 << 20)
#define PTX ".version 7.0\n.target sm_70\n.address_size 64\n"

static void check(CUresult status, const char *what)
{
	if (status != CUDA_SUCCESS) {
		printf("%s: error %d\n", what, status);
		exit(1);
	}
}
#define CHECK(call) check(call, #call)

static void take_time(void *counter)
{
	usleep(100000);
	++*(int *)counter;
}

int main(void)
{
	CUdevice device;
	CUcontext context;
	CUstream stream;
	CUdeviceptr memory;
	CUmemoryPool pool;
	CUmodule module;
	char *host;
	int calls = 0;

	CHECK(cuInit(0));
	CHECK(cuDeviceGet(&device, 0));
	CHECK(cuDevicePrimaryCtxRetain(&context, device));
	CHECK(cuCtxSetCurrent(context));
	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	CHECK(cuMemAlloc_v2(&memory, SIZE));
	CHECK(cuMemHostAlloc((void **)&host, SIZE, 0));
	memset(host, 3, SIZE);

	CHECK(cuLaunchHostFunc(stream, take_time, &calls));
	CHECK(cuMemcpyHtoDAsync_v2(memory, host, SIZE, stream));
	CHECK(cuStreamSynchronize(stream));
	printf("up after %d call\n", calls);

	memset(host, 0, SIZE);
	CHECK(cuLaunchHostFunc(stream, take_time, &calls));
	CHECK(cuMemcpyDtoHAsync_v2(host, memory, SIZE, stream));
	CHECK(cuStreamSynchronize(stream));
	printf("down after %d calls: %d %d %d\n", calls, host[0], host[SIZE / 2], host[SIZE - 1]);

	CHECK(cuModuleLoadData(&module, PTX));
	CHECK(cuDeviceGetDefaultMemPool(&pool, device));
	CHECK(cuLaunchHostFunc(stream, take_time, &calls));
	CHECK(cuModuleUnload(module));
	CHECK(cuMemFree_v2(memory));
	CHECK(cuMemPoolTrimTo(pool, 0));
	CHECK(cuCtxSetLimit(CU_LIMIT_PRINTF_FIFO_SIZE, 2 << 20));
	CHECK(cuStreamSynchronize(stream));
	printf("ended and trimmed around %d calls\n", calls);

	CHECK(cuLaunchHostFunc(stream, take_time, &calls));
	CHECK(cuMemFreeHost(host));
	CHECK(cuDevicePrimaryCtxRelease_v2(device));
	return 0;
}
