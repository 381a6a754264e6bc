/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory of a captured graph that the program frees itself is there again at the next launch.
 */
#include "program.h"

enum { COUNT = 1024, BYTES = COUNT * 4 };

static CUstream stream;

static void show_use(const char *when)
{
	cuuint64_t used, high, reserved;

	CHECK(cuDeviceGetGraphMemAttribute(0, CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT, &used));
	CHECK(cuDeviceGetGraphMemAttribute(0, CU_GRAPH_MEM_ATTR_USED_MEM_HIGH, &high));
	CHECK(cuDeviceGetGraphMemAttribute(0, CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT, &reserved));
	printf("%s: used %llu, at most %llu, %s\n", when, (unsigned long long)used, (unsigned long long)high,
	       reserved >= used ? "reserved" : "less reserved");
}

static CUgraph capture_allocation(CUdeviceptr *memory, int and_free)
{
	CUgraph graph;

	CHECK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
	CHECK(cuMemAllocAsync(memory, BYTES, stream));
	CHECK(cuMemsetD32Async(*memory, 7, COUNT, stream));
	if (and_free)
		CHECK(cuMemFreeAsync(*memory, stream));
	CHECK(cuStreamEndCapture(stream, &graph));
	return graph;
}

static void show_first(CUdeviceptr memory)
{
	unsigned value;

	CHECK(cuMemcpyDtoHAsync_v2(&value, memory, sizeof value, stream));
	CHECK(cuStreamSynchronize(stream));
	printf("  %u\n", value);
}

static void free_outside(void)
{
	CUdeviceptr memory;
	cuuint64_t zero = 0, one = 1;
	CUgraph graph = capture_allocation(&memory, 0);
	CUgraphExec exec;

	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	for (int i = 0; i < 4; i++) {
		CHECK(cuGraphLaunch(exec, stream));
		show_first(memory);
		CHECK(i & 1 ? cuMemFreeAsync(memory, stream) : cuMemFree_v2(memory));
	}
	SHOW(cuMemFree_v2(memory));
	CHECK(cuStreamSynchronize(stream));
	CHECK(cuGraphExecDestroy(exec));
	CHECK(cuGraphDestroy(graph));
	show_use("when the graph is gone");
	SHOW(cuDeviceSetGraphMemAttribute(0, CU_GRAPH_MEM_ATTR_USED_MEM_HIGH, &zero));
	SHOW(cuDeviceSetGraphMemAttribute(0, CU_GRAPH_MEM_ATTR_USED_MEM_HIGH, &one));
	SHOW(cuDeviceSetGraphMemAttribute(0, CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT, &zero));
	SHOW(cuDeviceGraphMemTrim(0));
	SHOW(cuDeviceGraphMemTrim(99));
	CHECK(cuCtxSynchronize());
	show_use("begun again");
}

static void free_inside(void)
{
	CUdeviceptr memory;
	CUgraph graph = capture_allocation(&memory, 1);
	CUgraphExec exec;

	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	for (int i = 0; i < 2; i++)
		CHECK(cuGraphLaunch(exec, stream));
	CHECK(cuStreamSynchronize(stream));
	show_use("freed by a node");
	CHECK(cuGraphExecDestroy(exec));
	CHECK(cuGraphDestroy(graph));
}

int main(void)
{
	open_device();
	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	free_outside();
	free_inside();
	return 0;
}
