/* SPDX-License-Identifier: Apache-2.0
 *
 * Host functions inside a graph run at each launch, in their place; events that a graph records; graphs made node
 * by node, nested, and launched into a capture.
 */
#include "program.h"

static int calls, order[64];
static CUdeviceptr memory;

static void note(void *data)
{
	order[calls++ % 64] = (int)(intptr_t)data;
}

static void show_order(const char *what)
{
	printf("%s:", what);
	for (int i = 0; i < calls && i < 64; i++)
		printf(" %d", order[i]);
	printf("\n");
	calls = 0;
}

static unsigned read_word(void)
{
	unsigned word = 0;

	CHECK(cuMemcpyDtoH_v2(&word, memory, sizeof word));
	return word;
}

static void functions(CUstream stream)
{
	CUgraph graph;
	CUgraphExec exec;

	CHECK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
	CHECK(cuMemsetD32Async(memory, 1, 1, stream));
	CHECK(cuLaunchHostFunc(stream, note, (void *)1));
	CHECK(cuMemsetD32Async(memory, 2, 1, stream));
	CHECK(cuLaunchHostFunc(stream, note, (void *)2));
	CHECK(cuStreamEndCapture(stream, &graph));
	printf("called while capturing: %d\n", calls);
	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	CHECK(cuGraphDestroy(graph));
	CHECK(cuGraphLaunch(exec, stream));
	CHECK(cuLaunchHostFunc(stream, note, (void *)3));
	CHECK(cuGraphLaunch(exec, stream));
	CHECK(cuStreamSynchronize(stream));
	show_order("functions");
	printf("word %u\n", read_word());
	CHECK(cuGraphExecDestroy(exec));
	CHECK(cuLaunchHostFunc(stream, note, (void *)4));
	CHECK(cuStreamSynchronize(stream));
	show_order("after");
}

static CUgraphNode add_fill(CUgraph graph, CUgraphNode after, unsigned value, CUcontext context)
{
	CUDA_MEMSET_NODE_PARAMS params = {
		.dst = memory,
		.value = value,
		.elementSize = 4,
		.width = 1,
		.height = 1,
		.pitch = 4,
	};
	CUgraphNode node;

	CHECK(cuGraphAddMemsetNode(&node, graph, after ? &after : NULL, after ? 1 : 0, &params, context));
	return node;
}

static void by_hand(CUstream stream, CUcontext context)
{
	CUgraph graph, child, found;
	CUgraphExec exec;
	CUgraphNode first, empty, second, nested, nodes[8], from[8], to[8];
	CUDA_MEMSET_NODE_PARAMS params;
	size_t count = 8;

	CHECK(cuGraphCreate(&child, 0));
	add_fill(child, NULL, 77, context);
	CHECK(cuGraphCreate(&graph, 0));
	first = add_fill(graph, NULL, 5, context);
	CHECK(cuGraphAddEmptyNode(&empty, graph, &first, 1));
	second = add_fill(graph, NULL, 6, context);
	CHECK(cuGraphAddDependencies(graph, &empty, &second, 1));
	CHECK(cuGraphGetEdges(graph, from, to, &count));
	printf("%zu edges, first to empty %d, empty to second %d\n", count, from[0] == first && to[0] == empty,
	       from[1] == empty && to[1] == second);
	CHECK(cuGraphMemsetNodeGetParams(second, &params));
	printf("second fills with %u\n", params.value);
	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	CHECK(cuGraphLaunch(exec, stream));
	CHECK(cuStreamSynchronize(stream));
	printf("word %u\n", read_word());
	params.value = 60;
	CHECK(cuGraphExecMemsetNodeSetParams(exec, second, &params, context));
	CHECK(cuGraphLaunch(exec, stream));
	CHECK(cuStreamSynchronize(stream));
	printf("word %u\n", read_word());
	CHECK(cuGraphExecDestroy(exec));
	CHECK(cuGraphAddChildGraphNode(&nested, graph, &second, 1, child));
	CHECK(cuGraphChildGraphNodeGetGraph(nested, &found));
	count = 0;
	CHECK(cuGraphGetNodes(found, NULL, &count));
	printf("the child has %zu node\n", count);
	count = 8;
	CHECK(cuGraphNodeGetDependencies(nested, nodes, &count));
	printf("the child waits for %zu, the second %d\n", count, nodes[0] == second);
	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	CHECK(cuGraphLaunch(exec, stream));
	CHECK(cuStreamSynchronize(stream));
	printf("word %u\n", read_word());
	CHECK(cuGraphExecDestroy(exec));
	CHECK(cuGraphDestroyNode(nested));
	count = 0;
	CHECK(cuGraphGetNodes(graph, NULL, &count));
	printf("%zu nodes left\n", count);
	CHECK(cuGraphDestroy(graph));
	CHECK(cuGraphDestroy(child));
}

static void events(CUstream stream)
{
	CUevent event;
	CUgraph graph;
	CUgraphNode node;
	CUgraphExec exec;

	CHECK(cuEventCreate(&event, 0));
	CHECK(cuGraphCreate(&graph, 0));
	CHECK(cuGraphAddEventRecordNode(&node, graph, NULL, 0, event));
	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	SHOW(cuEventQuery(event));
	CHECK(cuGraphLaunch(exec, stream));
	CHECK(cuEventSynchronize(event));
	SHOW(cuEventQuery(event));
	CHECK(cuGraphExecDestroy(exec));
	CHECK(cuGraphDestroy(graph));
	CHECK(cuEventDestroy_v2(event));
}

static void nested_capture(CUstream stream)
{
	CUgraph inner, outer;
	CUgraphExec exec;
	size_t count = 0;

	CHECK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
	CHECK(cuMemsetD32Async(memory, 21, 1, stream));
	CHECK(cuStreamEndCapture(stream, &inner));
	CHECK(cuGraphInstantiateWithFlags(&exec, inner, 0));
	CHECK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
	CHECK(cuGraphLaunch(exec, stream));
	CHECK(cuMemsetD32Async(memory + 4, 22, 1, stream));
	CHECK(cuStreamEndCapture(stream, &outer));
	CHECK(cuGraphGetNodes(outer, NULL, &count));
	printf("a launch inside a capture: %zu nodes\n", count);
	CHECK(cuGraphExecDestroy(exec));
	CHECK(cuGraphInstantiateWithFlags(&exec, outer, 0));
	CHECK(cuGraphLaunch(exec, stream));
	CHECK(cuStreamSynchronize(stream));
	printf("word %u\n", read_word());
	CHECK(cuGraphExecDestroy(exec));
	CHECK(cuGraphDestroy(inner));
	CHECK(cuGraphDestroy(outer));
}

int main(void)
{
	CUcontext context = open_device();
	CUstream stream;

	CHECK(cuMemAlloc_v2(&memory, 64));
	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	functions(stream);
	by_hand(stream, context);
	events(stream);
	nested_capture(stream);
	CHECK(cuStreamDestroy_v2(stream));
	CHECK(cuMemFree_v2(memory));
	printf("done\n");
	return 0;
}
