/* SPDX-License-Identifier: Apache-2.0
 *
 * Graphs that allocate and free device memory by nodes: within one graph, in a graph for one and a graph for the other,
 * by a node and then by the program, again and again, and freed by the next launch.
 */
#include "program.h"

#include <unistd.h>

enum { N = 1000, BYTES = N * sizeof(unsigned) };

static CUcontext context;
static CUstream stream;
static CUfunction scale;
static unsigned in[N], out[N];

static CUgraphNode add_memory(CUgraph graph, const CUgraphNode *after, CUdeviceptr *address)
{
	CUDA_MEM_ALLOC_NODE_PARAMS params = { .bytesize = BYTES };
	CUgraphNode node;

	params.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
	params.poolProps.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
	CHECK(cuGraphAddMemAllocNode(&node, graph, after, after ? 1 : 0, &params));
	*address = params.dptr;
	return node;
}

static CUgraphNode add_copy(CUgraph graph, CUgraphNode after, CUdeviceptr to, CUdeviceptr from)
{
	CUDA_MEMCPY3D copy = { .srcMemoryType = CU_MEMORYTYPE_UNIFIED,
			       .srcDevice = from,
			       .dstMemoryType = CU_MEMORYTYPE_UNIFIED,
			       .dstDevice = to,
			       .WidthInBytes = BYTES,
			       .Height = 1,
			       .Depth = 1 };
	CUgraphNode node;

	CHECK(cuGraphAddMemcpyNode(&node, graph, &after, 1, &copy, context));
	return node;
}

static CUgraphNode add_kernel(CUgraph graph, CUgraphNode after, CUdeviceptr memory, unsigned factor)
{
	unsigned n = N;
	void *parameters[] = { &memory, &factor, &n };
	CUDA_KERNEL_NODE_PARAMS params = one_thread(scale, parameters);
	CUgraphNode node;

	params.gridDimX = N;
	CHECK(cuGraphAddKernelNode_v2(&node, graph, &after, 1, &params));
	return node;
}

static CUdeviceptr address_of(const void *host)
{
	return (CUdeviceptr)(uintptr_t)host;
}

static void show(const char *what)
{
	CHECK(cuStreamSynchronize(stream));
	printf("%s: %u %u\n", what, out[1], out[N - 1]);
	memset(out, 0, sizeof out);
}

static CUgraphExec instantiate(CUgraph graph, unsigned flags)
{
	CUgraphExec exec;

	CHECK(cuGraphInstantiateWithFlags(&exec, graph, flags));
	CHECK(cuGraphDestroy(graph));
	return exec;
}

/* Allocated, used and freed by one graph, with a second piece behind the first one's end. */
static void within(void)
{
	CUdeviceptr first, second, freed = 0;
	CUDA_MEM_ALLOC_NODE_PARAMS params;
	CUgraphNode node, end;
	CUgraphExec exec;
	CUgraph graph;

	CHECK(cuGraphCreate(&graph, 0));
	node = add_memory(graph, NULL, &first);
	CHECK(cuGraphMemAllocNodeGetParams(node, &params));
	printf("allocates %zu bytes there: %d, device %d\n", params.bytesize, params.dptr == first,
	       params.poolProps.location.id);
	node = add_copy(graph, node, first, address_of(in));
	node = add_kernel(graph, node, first, 3);
	node = add_copy(graph, node, address_of(out), first);
	CHECK(cuGraphAddMemFreeNode(&end, graph, &node, 1, first));
	CHECK(cuGraphMemFreeNodeGetParams(end, &freed));
	printf("frees it: %d\n", freed == first);
	node = add_memory(graph, &end, &second);
	CHECK(cuGraphAddMemFreeNode(&end, graph, &node, 1, second));
	SHOW(cuGraphMemAllocNodeGetParams(end, &params));
	exec = instantiate(graph, 0);
	for (int i = 0; i < 3; i++) {
		in[1] = 10 + (unsigned)i;
		CHECK(cuGraphLaunch(exec, stream));
		show("within");
	}
	CHECK(cuGraphExecDestroy(exec));
}

static CUgraph make(CUdeviceptr *memory)
{
	CUgraphNode node;
	CUgraph graph;

	CHECK(cuGraphCreate(&graph, 0));
	node = add_memory(graph, NULL, memory);
	node = add_copy(graph, node, *memory, address_of(in));
	add_kernel(graph, node, *memory, 5);
	return graph;
}

/* The program copies what the graph has left, and frees it in each of the ways that there are. */
static void left_to_the_program(void)
{
	CUdeviceptr memory;
	CUgraphExec exec = instantiate(make(&memory), 0), release;
	CUgraphNode node;
	CUgraph graph;

	CHECK(cuGraphCreate(&graph, 0));
	CHECK(cuGraphAddMemFreeNode(&node, graph, NULL, 0, memory));
	release = instantiate(graph, 0);
	for (unsigned i = 0; i < 6; i++) {
		in[1] = i;
		CHECK(cuGraphLaunch(exec, stream));
		CHECK(cuMemcpyDtoHAsync_v2(out, memory, BYTES, stream));
		CHECK(cuMemsetD32Async(memory, 77, 2, stream));
		show("left");
		CHECK(cuMemcpyDtoH_v2(out, memory, BYTES));
		show("set");
		if (i % 3 == 0)
			CHECK(cuMemFreeAsync(memory, stream));
		else if (i % 3 == 1)
			CHECK(cuMemFree_v2(memory));
		else
			CHECK(cuGraphLaunch(release, stream));
	}
	CHECK(cuStreamSynchronize(stream));
	CHECK(cuGraphExecDestroy(release));
	CHECK(cuGraphExecDestroy(exec));
}

static void CUDA_CB be_slow(void *unused)
{
	usleep(100000);
}

/* cuMemFree waits for what runs; the launch after it has the memory again. */
static void freed_late(void)
{
	CUdeviceptr memory;
	CUgraphExec exec = instantiate(make(&memory), 0);
	CUstream slow;

	CHECK(cuStreamCreate(&slow, CU_STREAM_NON_BLOCKING));
	for (unsigned i = 0; i < 2; i++) {
		in[1] = 30 + i;
		CHECK(cuGraphLaunch(exec, stream));
		CHECK(cuLaunchHostFunc(slow, be_slow, NULL));
		CHECK(cuMemFree_v2(memory));
		CHECK(cuGraphLaunch(exec, stream));
		CHECK(cuStreamSynchronize(stream));
		usleep(200000); /* nothing frees it now */
		CHECK(cuMemcpyDtoHAsync_v2(out, memory, BYTES, stream));
		show("freed late");
		CHECK(cuMemFree_v2(memory));
	}
	CHECK(cuStreamDestroy_v2(slow));
	CHECK(cuGraphExecDestroy(exec));
}

/* The next launch frees what the one before it has left. */
static void freed_on_launch(void)
{
	CUdeviceptr memory;
	CUgraphExec exec = instantiate(make(&memory), CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
	cuuint64_t flags;

	CHECK(cuGraphExecGetFlags(exec, &flags));
	printf("flags %u\n", (unsigned)flags);
	for (unsigned i = 0; i < 3; i++) {
		in[1] = 20 + i;
		CHECK(cuGraphLaunch(exec, stream));
		CHECK(cuMemcpyDtoHAsync_v2(out, memory, BYTES, stream));
		show("left to the next launch");
	}
	CHECK(cuMemFreeAsync(memory, stream));
	CHECK(cuStreamSynchronize(stream));
	CHECK(cuGraphExecDestroy(exec));
}

/* The same of a captured graph, whose memory the program frees between launches. */
static void captured(void)
{
	CUdeviceptr memory;
	CUgraphExec exec;
	CUgraph graph;

	CHECK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
	CHECK(cuMemAllocAsync(&memory, BYTES, stream));
	CHECK(cuMemsetD32Async(memory, 9, N, stream));
	CHECK(cuStreamEndCapture(stream, &graph));
	exec = instantiate(graph, 0);
	for (int i = 0; i < 3; i++) {
		CHECK(cuGraphLaunch(exec, stream));
		CHECK(cuMemcpyDtoHAsync_v2(out, memory, BYTES, stream));
		show("captured");
		CHECK(cuMemFreeAsync(memory, stream));
	}
	CHECK(cuStreamSynchronize(stream));
	CHECK(cuGraphExecDestroy(exec));
}

/* By the function for nodes of any kind. */
static void any_kind(void)
{
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_MEM_ALLOC };
	CUgraphNode node, end;
	CUdeviceptr memory;
	CUgraphExec exec;
	CUgraph graph;

	CHECK(cuGraphCreate(&graph, 0));
	params.alloc.bytesize = BYTES;
	params.alloc.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
	params.alloc.poolProps.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
	CHECK(cuGraphAddNode_v2(&node, graph, NULL, NULL, 0, &params));
	memory = params.alloc.dptr;
	node = add_copy(graph, node, memory, address_of(in));
	node = add_copy(graph, node, address_of(out), memory);
	params = (CUgraphNodeParams){ .type = CU_GRAPH_NODE_TYPE_MEM_FREE };
	params.free.dptr = memory;
	CHECK(cuGraphAddNode_v2(&end, graph, &node, NULL, 1, &params));
	exec = instantiate(graph, 0);
	CHECK(cuGraphLaunch(exec, stream));
	show("any kind");
	CHECK(cuGraphExecDestroy(exec));
}

int main(void)
{
	CUDA_MEM_ALLOC_NODE_PARAMS none = { .bytesize = 0 };
	CUmodule module;
	CUgraphNode node;
	CUgraph graph;

	context = open_device();
	CHECK(cuModuleLoadData(&module, PTX_HEADER PTX_SCALE));
	scale = get_function(module, "scale");
	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	for (unsigned i = 0; i < N; i++)
		in[i] = i;
	within();
	left_to_the_program();
	freed_late();
	freed_on_launch();
	captured();
	any_kind();
	CHECK(cuGraphCreate(&graph, 0));
	SHOW(cuGraphAddMemAllocNode(&node, graph, NULL, 0, &none));
	CHECK(cuGraphDestroy(graph));
	printf("done\n");
	return 0;
}
