/* SPDX-License-Identifier: Apache-2.0
 *
 * An instance of a graph has its children replaced by other graphs of their shape.
 */
#include "program.h"

static CUdeviceptr memory;
static CUfunction scale;
static CUstream stream;

static CUgraphNode add_scale(CUgraph graph, CUgraphNode after, unsigned factor)
{
	CUgraphNode node;
	unsigned n = 1;
	void *parameters[] = { &memory, &factor, &n };
	CUDA_KERNEL_NODE_PARAMS params = one_thread(scale, parameters);

	CHECK(cuGraphAddKernelNode_v2(&node, graph, after ? &after : NULL, after ? 1 : 0, &params));
	return node;
}

/* The same, by the function for nodes of any kind. */
static CUgraphNode add_any_scale(CUgraph graph, CUgraphNode after, unsigned factor)
{
	CUgraphNode node;
	unsigned n = 1;
	void *parameters[] = { &memory, &factor, &n };
	CUgraphNodeParams params = any_one_thread(scale, parameters);

	CHECK(cuGraphAddNode_v2(&node, graph, after ? &after : NULL, NULL, after ? 1 : 0, &params));
	return node;
}

/* times FIRST, then times SECOND */
static CUgraph pair(unsigned first, unsigned second)
{
	CUgraph graph;

	CHECK(cuGraphCreate(&graph, 0));
	add_any_scale(graph, add_scale(graph, NULL, first), second);
	return graph;
}

static void run(const char *what, CUgraphExec exec)
{
	unsigned value;

	CHECK(cuMemsetD32Async(memory, 1, 1, stream));
	CHECK(cuGraphLaunch(exec, stream));
	CHECK(cuMemcpyDtoHAsync_v2(&value, memory, sizeof value, stream));
	CHECK(cuStreamSynchronize(stream));
	printf("%s: %u\n", what, value);
}

static void replace(CUgraphExec exec, CUgraphNode node)
{
	CUgraph graph = pair(7, 11), longer = pair(2, 2), other;
	CUgraphNode set, first = add_scale(longer, NULL, 1);
	CUDA_MEMSET_NODE_PARAMS params = { .dst = memory, .value = 9, .elementSize = 4, .width = 1, .height = 1 };
	CUcontext context;

	CHECK(cuGraphExecChildGraphNodeSetParams(exec, node, graph));
	CHECK(cuGraphDestroy(graph));
	run("2 (7 11) ((3 5)) 13", exec);
	SHOW(cuGraphExecChildGraphNodeSetParams(exec, node, longer));
	SHOW(cuGraphExecChildGraphNodeSetParams(exec, first, longer));
	CHECK(cuGraphDestroy(longer));
	CHECK(cuGraphCreate(&other, 0));
	SHOW(cuGraphExecChildGraphNodeSetParams(exec, node, other));
	CHECK(cuCtxGetCurrent(&context));
	CHECK(cuGraphAddMemsetNode(&set, other, NULL, 0, &params, context));
	add_scale(other, set, 2);
	SHOW(cuGraphExecChildGraphNodeSetParams(exec, node, other));
	CHECK(cuGraphDestroy(other));
	run("after refusals", exec);
}

int main(void)
{
	CUmodule module;
	CUgraph graph, child, inner;
	CUgraphNode first, second, nested[1];
	CUgraphExec exec;
	size_t count = 1;

	open_device();
	CHECK(cuModuleLoadData(&module, PTX_HEADER PTX_SCALE));
	scale = get_function(module, "scale");
	CHECK(cuMemAlloc_v2(&memory, sizeof(unsigned)));
	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));

	CHECK(cuGraphCreate(&graph, 0));
	CHECK(cuGraphCreate(&child, 0));
	inner = pair(3, 5);
	CHECK(cuGraphAddChildGraphNode(nested, child, NULL, 0, inner));
	CHECK(cuGraphDestroy(inner));
	first = add_scale(graph, NULL, 2);
	inner = pair(3, 5);
	CHECK(cuGraphAddChildGraphNode(&second, graph, &first, 1, inner));
	CHECK(cuGraphDestroy(inner));
	CHECK(cuGraphAddChildGraphNode(&first, graph, &second, 1, child));
	CHECK(cuGraphDestroy(child));
	add_scale(graph, first, 13);
	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	run("2 (3 5) ((3 5)) 13", exec);
	replace(exec, second);

	CHECK(cuGraphChildGraphNodeGetGraph(first, &child));
	CHECK(cuGraphGetNodes(child, nested, &count));
	inner = pair(1, 1);
	CHECK(cuGraphExecChildGraphNodeSetParams(exec, nested[0], inner));
	run("2 (7 11) ((1 1)) 13", exec);
	CHECK(cuGraphDestroy(inner));
	CHECK(cuGraphExecDestroy(exec));
	CHECK(cuGraphDestroy(graph));
	CHECK(cuModuleUnload(module));
	CHECK(cuMemFree_v2(memory));
	printf("done\n");
	return 0;
}
