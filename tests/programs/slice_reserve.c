/* SPDX-License-Identifier: Apache-2.0
 *
 * What the driver holds for a program beside its allocations, in a slice of 64 MiB: none of it is free.
 */
#include "program.h"

#include <unistd.h>

#define MIB ((size_t)1 << 20)

static CUstream stream;

/* What is given back without a wait may take a moment. */
static void show_free(const char *when, size_t expected)
{
	size_t free_bytes, total;

	for (int i = 0; i < 400; i++) {
		CHECK(cuCtxSynchronize());
		CHECK(cuMemGetInfo_v2(&free_bytes, &total));
		if (free_bytes / MIB == expected)
			break;
		usleep(50000);
	}
	printf("%s: %zu of %zu MiB are free\n", when, free_bytes / MIB, total / MIB);
}

static void keep_in_a_pool(void)
{
	cuuint64_t all = UINT64_MAX;
	CUmemoryPool pool;
	CUdeviceptr memory;

	CHECK(cuDeviceGetDefaultMemPool(&pool, 0));
	CHECK(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &all));
	CHECK(cuMemAllocAsync(&memory, 40 * MIB, stream));
	CHECK(cuMemFreeAsync(memory, stream));
	show_free("a pool keeps 40 MiB", 24);
	CHECK(cuMemAllocAsync(&memory, 40 * MIB, stream));
	SHOW(cuMemAllocAsync(&memory, 40 * MIB, stream));
	CHECK(cuMemFreeAsync(memory, stream));
	CHECK(cuMemAlloc_v2(&memory, 40 * MIB)); /* the pool gives it */
	CHECK(cuMemFree_v2(memory));
	CHECK(cuMemPoolTrimTo(pool, 0));
	show_free("trimmed", 64);
}

static void raise_limits(void)
{
	size_t heap;

	CHECK(cuCtxGetLimit(&heap, CU_LIMIT_MALLOC_HEAP_SIZE));
	SHOW(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, heap + 80 * MIB));
	CHECK(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, heap + 24 * MIB));
	show_free("24 MiB more of heap", 40);
	CHECK(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, heap));
	show_free("as before", 64);
}

static void launch_a_graph(void)
{
	CUdeviceptr memory;
	CUgraphExec exec;
	CUgraph graph;

	CHECK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
	CHECK(cuMemAllocAsync(&memory, 32 * MIB, stream));
	CHECK(cuMemsetD32Async(memory, 7, MIB, stream));
	CHECK(cuMemFreeAsync(memory, stream));
	CHECK(cuStreamEndCapture(stream, &graph));
	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	CHECK(cuGraphLaunch(exec, stream));
	show_free("a graph has 32 MiB", 32);
	CHECK(cuGraphExecDestroy(exec));
	CHECK(cuGraphDestroy(graph));
	show_free("the graph is gone", 32);
	CHECK(cuDeviceGraphMemTrim(0));
	show_free("what it had, too", 64);
}

int main(void)
{
	open_device();
	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	show_free("at first", 64);
	keep_in_a_pool();
	raise_limits();
	launch_a_graph();
	return 0;
}
