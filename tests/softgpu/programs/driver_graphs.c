/* SPDX-License-Identifier: Apache-2.0
 *
 * Stream capture, graphs built by hand, and changes to what was instantiated.
 */
#include "program.h"

static CUfunction work;
static CUdeviceptr x;

static void add_one(CUstream stream)
{
	unsigned rounds = 10;
	void *parameters[] = { &x, &rounds };

	CHECK(cuLaunchKernel(work, 1, 1, 1, 1, 1, 1, 0, stream, parameters, NULL));
}

static unsigned value(void)
{
	unsigned result;

	CHECK(cuMemcpyDtoH_v2(&result, x, sizeof result));
	return result;
}

static void CUDA_CB count_call(void *counter)
{
	++*(int *)counter;
}

static void fork_and_join(void)
{
	CUstream first, second;
	CUevent fork, join;
	CUgraph graph;
	CUgraphExec exec;
	CUstreamCaptureStatus status;
	size_t nodes = 0, edges = 0, roots = 0;
	int calls = 0;

	CHECK(cuStreamCreate(&first, CU_STREAM_NON_BLOCKING));
	CHECK(cuStreamCreate(&second, CU_STREAM_NON_BLOCKING));
	CHECK(cuEventCreate(&fork, CU_EVENT_DISABLE_TIMING));
	CHECK(cuEventCreate(&join, CU_EVENT_DISABLE_TIMING));
	CHECK(cuMemsetD32_v2(x, 0, 1));
	CHECK(cuCtxSynchronize());
	CHECK(cuStreamBeginCapture_v2(first, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
	add_one(first);
	CHECK(cuEventRecord(fork, first));
	CHECK(cuStreamWaitEvent(second, fork, 0));
	add_one(second);
	CHECK(cuLaunchHostFunc(second, count_call, &calls));
	CHECK(cuEventRecord(join, second));
	add_one(first);
	CHECK(cuStreamIsCapturing(second, &status));
	printf("the second stream: %s\n", status == CU_STREAM_CAPTURE_STATUS_ACTIVE ? "is captured too" : "is not");
	CHECK(cuStreamWaitEvent(first, join, 0));
	add_one(first);
	SHOW(cuEventQuery(join));
	CHECK(cuStreamEndCapture(first, &graph));
	CHECK(cuStreamIsCapturing(second, &status));
	printf("afterwards: %s\n", status == CU_STREAM_CAPTURE_STATUS_NONE ? "free" : "still captured");
	CHECK(cuGraphGetNodes(graph, NULL, &nodes));
	CHECK(cuGraphGetRootNodes(graph, NULL, &roots));
	CHECK(cuGraphGetEdges_v2(graph, NULL, NULL, NULL, &edges));
	printf("%zu nodes, %zu edges, %zu root; nothing has run: %u\n", nodes, edges, roots, value());
	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	CHECK(cuGraphDestroy(graph));
	for (int i = 0; i < 3; i++)
		CHECK(cuGraphLaunch(exec, first));
	CHECK(cuStreamSynchronize(first));
	printf("three launches: %u, calls %d\n", value(), calls);
	CHECK(cuGraphExecDestroy(exec));
	CHECK(cuStreamDestroy_v2(first));
	CHECK(cuStreamDestroy_v2(second));
}

static void forbidden(void)
{
	CUstream stream, other;
	CUgraph graph;
	CUdeviceptr y;
	CUevent event;

	CHECK(cuStreamCreate(&stream, CU_STREAM_DEFAULT));
	CHECK(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
	CHECK(cuEventCreate(&event, 0));
	SHOW(cuStreamBeginCapture_v2(NULL, CU_STREAM_CAPTURE_MODE_GLOBAL));
	CHECK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
	SHOW(cuStreamSynchronize(stream));
	SHOW(cuStreamEndCapture(stream, &graph));
	CHECK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
	SHOW(cuMemAlloc_v2(&y, 4));
	SHOW(cuStreamEndCapture(stream, &graph));
	CHECK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
	SHOW(cuMemAlloc_v2(&y, 4));
	SHOW(cuEventRecord(event, NULL));
	SHOW(cuStreamEndCapture(stream, &graph));
	CHECK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
	add_one(stream);
	CHECK(cuEventRecord(event, stream));
	CHECK(cuStreamWaitEvent(other, event, 0));
	add_one(other);
	SHOW(cuStreamEndCapture(other, &graph));
	SHOW(cuStreamEndCapture(stream, &graph));
	CHECK(cuMemFree_v2(y));
	CHECK(cuStreamDestroy_v2(stream));
	CHECK(cuStreamDestroy_v2(other));
	CHECK(cuEventDestroy_v2(event));
}

static void by_hand(void)
{
	CUgraph graph, clone;
	CUgraphExec exec;
	CUgraphNode set, kernel, copy, host, nodes[4];
	CUgraphNodeType type;
	CUgraphExecUpdateResultInfo info;
	unsigned rounds = 5, result = 0;
	int calls = 0;
	size_t count = LENGTH(nodes);
	void *parameters[] = { &x, &rounds };
	CUDA_MEMSET_NODE_PARAMS set_given = { .dst = x, .value = 41, .elementSize = 4, .width = 1, .height = 1 };
	CUDA_KERNEL_NODE_PARAMS kernel_given = { .func = work,
						 .gridDimX = 1,
						 .gridDimY = 1,
						 .gridDimZ = 1,
						 .blockDimX = 1,
						 .blockDimY = 1,
						 .blockDimZ = 1,
						 .kernelParams = parameters };
	CUDA_MEMCPY3D copy_given = { .srcMemoryType = CU_MEMORYTYPE_DEVICE,
				     .srcDevice = x,
				     .dstMemoryType = CU_MEMORYTYPE_HOST,
				     .dstHost = &result,
				     .WidthInBytes = 4,
				     .Height = 1,
				     .Depth = 1 };
	CUDA_HOST_NODE_PARAMS host_given = { .fn = count_call, .userData = &calls };
	CUcontext context;

	CHECK(cuCtxGetCurrent(&context));
	CHECK(cuGraphCreate(&graph, 0));
	CHECK(cuGraphAddMemcpyNode(&copy, graph, NULL, 0, &copy_given, context));
	CHECK(cuGraphAddKernelNode_v2(&kernel, graph, NULL, 0, &kernel_given));
	CHECK(cuGraphAddMemsetNode(&set, graph, NULL, 0, &set_given, context));
	CHECK(cuGraphAddHostNode(&host, graph, &copy, 1, &host_given));
	CUgraphNode from[] = { set, kernel }, to[] = { kernel, copy };
	CHECK(cuGraphAddDependencies_v2(graph, from, to, NULL, 2));
	SHOW(cuGraphAddDependencies_v2(graph, from, from, NULL, 1));
	CHECK(cuGraphNodeGetType(copy, &type));
	printf("type of the copy: %s\n", type == CU_GRAPH_NODE_TYPE_MEMCPY ? "memcpy" : "another");
	CHECK(cuGraphNodeGetDependencies_v2(kernel, nodes, NULL, &count));
	printf("the kernel waits for %zu, the fill: %s\n", count, nodes[0] == set ? "yes" : "no");
	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	CHECK(cuGraphLaunch(exec, NULL));
	CHECK(cuStreamSynchronize(NULL));
	printf("result %u, calls %d\n", result, calls);
	set_given.value = 99;
	CHECK(cuGraphExecMemsetNodeSetParams(exec, set, &set_given, context));
	CHECK(cuGraphNodeSetEnabled(exec, host, 0));
	CHECK(cuGraphLaunch(exec, NULL));
	CHECK(cuStreamSynchronize(NULL));
	printf("with another value, without the call: result %u, calls %d\n", result, calls);
	CHECK(cuGraphClone(&clone, graph));
	CHECK(cuGraphNodeFindInClone(&nodes[0], set, clone));
	set_given.value = 7;
	CHECK(cuGraphMemsetNodeSetParams(nodes[0], &set_given));
	CHECK(cuGraphExecUpdate_v2(exec, clone, &info));
	CHECK(cuGraphLaunch(exec, NULL));
	CHECK(cuStreamSynchronize(NULL));
	printf("updated: result %u, calls %d\n", result, calls);
	CHECK(cuGraphAddEmptyNode(&nodes[1], clone, NULL, 0));
	SHOW(cuGraphExecUpdate_v2(exec, clone, &info));
	CUgraphNode circle_from[] = { copy }, circle_to[] = { set };
	CHECK(cuGraphAddDependencies_v2(graph, circle_from, circle_to, NULL, 1));
	CUgraphExec unused;
	SHOW(cuGraphInstantiateWithFlags(&unused, graph, 0));
	CHECK(cuGraphExecDestroy(exec));
	CHECK(cuGraphDestroy(clone));
	CHECK(cuGraphDestroy(graph));
	SHOW(cuGraphDestroy(graph));
}

static void with_memory(void)
{
	CUstream stream;
	CUgraph graph, parent;
	CUgraphNode child, empty;
	CUgraphExec exec;
	CUdeviceptr y;
	unsigned result = 0;

	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	CHECK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
	CHECK(cuMemAllocAsync(&y, 4096, stream));
	CHECK(cuMemsetD32Async(y, 11, 1, stream));
	CHECK(cuMemcpyDtoDAsync_v2(x, y, 4, stream));
	CHECK(cuMemcpyDtoHAsync_v2(&result, x, 4, stream));
	CHECK(cuMemFreeAsync(y, stream));
	CHECK(cuStreamEndCapture(stream, &graph));
	CHECK(cuGraphCreate(&parent, 0));
	CHECK(cuGraphAddEmptyNode(&empty, parent, NULL, 0));
	CHECK(cuGraphAddChildGraphNode(&child, parent, &empty, 1, graph));
	CHECK(cuGraphInstantiateWithFlags(&exec, parent, 0));
	CHECK(cuGraphLaunch(exec, stream));
	CHECK(cuStreamSynchronize(stream));
	printf("as a child, with memory of its own: %u\n", result);
	CHECK(cuGraphExecDestroy(exec));
	CHECK(cuGraphDestroy(parent));
	CHECK(cuGraphDestroy(graph));
	CHECK(cuStreamDestroy_v2(stream));
}

int main(void)
{
	CUmodule module;
	size_t before, after, total;

	open_device();
	CHECK(cuModuleLoadData(&module, PTX_HEADER PTX_WORK));
	work = get_function(module, "work");
	CHECK(cuMemAlloc_v2(&x, 4));
	CHECK(cuMemGetInfo_v2(&before, &total));
	fork_and_join();
	forbidden();
	by_hand();
	with_memory();
	CHECK(cuDeviceGraphMemTrim(0));
	CHECK(cuMemGetInfo_v2(&after, &total));
	printf("all memory back: %s\n", before == after ? "yes" : "no");
	CHECK(cuDevicePrimaryCtxRelease_v2(0));
	return 0;
}
