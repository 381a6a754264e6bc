/* SPDX-License-Identifier: Apache-2.0
 *
 * A graph made by the function that adds nodes of any kind: fill, kernel, copy, child, events, nothing.
 */
#include "program.h"

#include <stdbool.h>

static CUdeviceptr memory, copy;
static CUgraph graph;
static CUgraphNode last;

static void add(CUgraphNodeParams *params)
{
	CUgraphNode node;

	CHECK(cuGraphAddNode_v2(&node, graph, last ? &last : NULL, NULL, last ? 1 : 0, params));
	last = node;
}

static void add_fill(unsigned value)
{
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_MEMSET };

	params.memset.dst = memory;
	params.memset.value = value;
	params.memset.elementSize = sizeof value;
	params.memset.width = params.memset.height = 1;
	add(&params);
}

static void add_kernel(CUfunction function, unsigned factor)
{
	unsigned n = 1;
	void *parameters[] = { &memory, &factor, &n };
	CUgraphNodeParams params = any_one_thread(function, parameters);

	add(&params);
}

static void add_copy(void)
{
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_MEMCPY };

	params.memcpy.copyParams = (CUDA_MEMCPY3D){
		.srcMemoryType = CU_MEMORYTYPE_DEVICE,
		.srcDevice = memory,
		.dstMemoryType = CU_MEMORYTYPE_DEVICE,
		.dstDevice = copy,
		.WidthInBytes = sizeof(unsigned),
		.Height = 1,
		.Depth = 1,
	};
	add(&params);
}

static void add_child(CUgraphChildGraphNodeOwnership ownership, bool works)
{
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_GRAPH };
	CUgraph child;
	CUgraphNode node;

	CHECK(cuGraphCreate(&child, 0));
	CHECK(cuGraphAddEmptyNode(&node, child, NULL, 0));
	params.graph.graph = child;
	params.graph.ownership = ownership;
	if (works)
		add(&params);
	else
		SHOW(cuGraphAddNode_v2(&node, graph, NULL, NULL, 0, &params));
	CHECK(cuGraphDestroy(child));
}

static void add_events(CUevent event)
{
	CUgraphNodeParams record = { .type = CU_GRAPH_NODE_TYPE_EVENT_RECORD };
	CUgraphNodeParams await = { .type = CU_GRAPH_NODE_TYPE_WAIT_EVENT };
	CUgraphNodeParams nothing = { .type = CU_GRAPH_NODE_TYPE_EMPTY };

	record.eventRecord.event = await.eventWait.event = event;
	add(&record);
	add(&await);
	add(&nothing);
}

int main(void)
{
	unsigned value = 0;
	CUgraphExec exec;
	CUmodule module;
	CUevent event;
	CUstream stream;

	open_device();
	CHECK(cuModuleLoadData(&module, PTX_HEADER PTX_SCALE));
	CHECK(cuMemAlloc_v2(&memory, sizeof value));
	CHECK(cuMemAlloc_v2(&copy, sizeof value));
	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	CHECK(cuEventCreate(&event, CU_EVENT_DEFAULT));
	CHECK(cuGraphCreate(&graph, 0));
	add_fill(5);
	add_kernel(get_function(module, "scale"), 3);
	add_child(CU_GRAPH_CHILD_GRAPH_OWNERSHIP_CLONE, true);
	add_events(event);
	add_kernel(get_function(module, "scale"), 7);
	add_copy();
	add_child(CU_GRAPH_CHILD_GRAPH_OWNERSHIP_MOVE, false);
	SHOW(cuGraphAddNode_v2(&last, graph, NULL, NULL, 0, NULL));

	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	CHECK(cuGraphLaunch(exec, stream));
	CHECK(cuMemcpyDtoHAsync_v2(&value, copy, sizeof value, stream));
	CHECK(cuStreamSynchronize(stream));
	printf("5 3 7: %u, event: %d\n", value, cuEventQuery(event));
	CHECK(cuGraphExecDestroy(exec));
	CHECK(cuGraphDestroy(graph));
	printf("done\n");
	return 0;
}
