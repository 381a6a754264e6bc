/* SPDX-License-Identifier: Apache-2.0
 *
 * One thread makes calls for which a driver may wait as long as a kernel runs; the kernel runs until another thread
 * sets a flag. Neither may hold up the other.
 */
#include "program.h"

#include <pthread.h>
#include <unistd.h>

static CUcontext context;
static CUstream held, free_stream, third;
static CUdeviceptr memory, flag;
static CUmodule module;
static CUlibrary library;

static void free_memory(void)
{
	CHECK(cuMemFree_v2(memory));
}

static void free_pooled(void)
{
	CUdeviceptr pooled;

	CHECK(cuMemAllocAsync(&pooled, 1 << 20, third));
	CHECK(cuMemFree_v2(pooled));
}

static void unload_module(void)
{
	CHECK(cuModuleUnload(module));
}

static void unload_library(void)
{
	CHECK(cuLibraryUnload(library));
}

static void trim(void)
{
	CUmemoryPool pool;

	CHECK(cuDeviceGetDefaultMemPool(&pool, 0));
	CHECK(cuMemPoolTrimTo(pool, 0));
}

static const struct {
	const char *name;
	void (*run)(void);
} cases[] = {
	{ "cuMemFree", free_memory },        { "cuMemFree of a pool's memory", free_pooled },
	{ "cuModuleUnload", unload_module }, { "cuLibraryUnload", unload_library },
	{ "cuMemPoolTrimTo", trim },
};

static void *run_case(void *argument)
{
	CHECK(cuCtxSetCurrent(context));
	cases[*(size_t *)argument].run();
	return NULL;
}

static void try_case(size_t i, CUfunction until)
{
	void *parameters[] = { &flag };
	unsigned one = 1;
	pthread_t thread;

	CHECK(cuMemAlloc_v2(&memory, 1 << 20));
	CHECK(cuModuleLoadData(&module, PTX_HEADER PTX_SCALE));
	CHECK(cuLibraryLoadData(&library, PTX_HEADER PTX_SCALE, NULL, NULL, 0, NULL, NULL, 0));
	CHECK(cuMemsetD32_v2(flag, 0, 1));
	CHECK(cuCtxSynchronize());
	CHECK(cuLaunchKernel(until, 1, 1, 1, 1, 1, 1, 0, held, parameters, NULL));
	pthread_create(&thread, NULL, run_case, &i);
	usleep(50000); /* it is in the call by now */
	CHECK(cuMemcpyHtoDAsync_v2(flag, &one, sizeof one, free_stream));
	CHECK(cuStreamSynchronize(free_stream));
	pthread_join(thread, NULL);
	CHECK(cuStreamSynchronize(held));
	printf("%s: both went on\n", cases[i].name);
}

int main(void)
{
	CUmodule code;
	CUfunction until;

	context = open_device();
	CHECK(cuModuleLoadData(&code, PTX_HEADER PTX_UNTIL));
	until = get_function(code, "until");
	CHECK(cuMemAlloc_v2(&flag, sizeof(unsigned)));
	CHECK(cuStreamCreate(&held, CU_STREAM_NON_BLOCKING));
	CHECK(cuStreamCreate(&free_stream, CU_STREAM_NON_BLOCKING));
	CHECK(cuStreamCreate(&third, CU_STREAM_NON_BLOCKING));
	for (size_t i = 0; i < LENGTH(cases); i++)
		try_case(i, until);
	return 0;
}
