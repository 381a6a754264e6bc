/* SPDX-License-Identifier: Apache-2.0
 *
 * Objects of the program that graphs keep: copies, instances and launches keep them too, and the function for one
 * runs when the last of these is gone.
 */
#include "program.h"

#include <stdatomic.h>
#include <unistd.h>

enum { OBJECTS = 11 };

static atomic_int destroyed[OBJECTS];
static atomic_int may_go;

static void destroy(void *data)
{
	atomic_fetch_add((atomic_int *)data, 1);
}

static void hold(void *data)
{
	while (!atomic_load(&may_go))
		usleep(1000);
}

static CUuserObject make(int which, unsigned references)
{
	CUuserObject object;

	CHECK(cuUserObjectCreate(&object, &destroyed[which], destroy, references, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC));
	return object;
}

/* Functions run on a thread that nobody waits for. */
static void show(const char *what, int which, int expected)
{
	for (int i = 0; i < 60000 && atomic_load(&destroyed[which]) < expected; i++)
		usleep(1000);
	if (!expected)
		usleep(20000);
	printf("%s: %d\n", what, atomic_load(&destroyed[which]));
}

static CUgraph make_graph(CUdeviceptr memory, CUcontext context)
{
	CUDA_MEMSET_NODE_PARAMS set = { .dst = memory, .value = 1, .elementSize = 4, .width = 1, .height = 1 };
	CUgraphNode node;
	CUgraph graph;

	CHECK(cuGraphCreate(&graph, 0));
	CHECK(cuGraphAddMemsetNode(&node, graph, NULL, 0, &set, context));
	return graph;
}

static void counts(void)
{
	CUuserObject object = make(0, 2);

	CHECK(cuUserObjectRetain(object, 1));
	CHECK(cuUserObjectRelease(object, 2));
	show("one reference left", 0, 0);
	CHECK(cuUserObjectRelease(object, 1));
	show("none left", 0, 1);
}

static void copies(CUdeviceptr memory, CUcontext context)
{
	CUgraph graph = make_graph(memory, context), clone;
	CUuserObject object = make(1, 2);

	CHECK(cuGraphRetainUserObject(graph, object, 2, CU_GRAPH_USER_OBJECT_MOVE));
	CHECK(cuGraphReleaseUserObject(graph, object, 1));
	CHECK(cuGraphClone(&clone, graph));
	CHECK(cuGraphDestroy(graph));
	show("a copy is left", 1, 0);
	CHECK(cuGraphDestroy(clone));
	show("no copy is left", 1, 1);
}

static void instances(CUdeviceptr memory, CUcontext context, CUstream stream)
{
	CUgraph child = make_graph(memory, context), graph = make_graph(memory, context);
	CUuserObject object = make(2, 1), other = make(3, 1);
	CUgraphNode node;
	CUgraphExec exec;

	CHECK(cuGraphRetainUserObject(child, object, 1, CU_GRAPH_USER_OBJECT_MOVE));
	CHECK(cuGraphRetainUserObject(graph, other, 1, 0));
	CHECK(cuGraphAddChildGraphNode(&node, graph, NULL, 0, child));
	CHECK(cuGraphDestroy(child));
	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	CHECK(cuGraphDestroy(graph));
	CHECK(cuUserObjectRelease(other, 1));
	show("the child's is kept by the instance", 2, 0);
	show("the graph's, too", 3, 0);
	CHECK(cuLaunchHostFunc(stream, hold, NULL));
	CHECK(cuGraphLaunch(exec, stream));
	CHECK(cuGraphExecDestroy(exec));
	show("by the launch", 2, 0);
	atomic_store(&may_go, 1);
	CHECK(cuStreamSynchronize(stream));
	show("the child's after the launch", 2, 1);
	show("the graph's", 3, 1);
}

static void updates(CUdeviceptr memory, CUcontext context, CUstream stream)
{
	CUgraph one = make_graph(memory, context), two = make_graph(memory, context);
	CUuserObject first = make(4, 1), second = make(5, 1);
	CUgraphExecUpdateResultInfo info;
	CUgraphExec exec;

	CHECK(cuGraphRetainUserObject(one, first, 1, CU_GRAPH_USER_OBJECT_MOVE));
	CHECK(cuGraphRetainUserObject(two, second, 1, CU_GRAPH_USER_OBJECT_MOVE));
	CHECK(cuGraphInstantiateWithFlags(&exec, one, 0));
	CHECK(cuGraphLaunch(exec, stream));
	CHECK(cuGraphExecUpdate_v2(exec, two, &info));
	CHECK(cuGraphDestroy(one));
	CHECK(cuGraphDestroy(two));
	CHECK(cuStreamSynchronize(stream));
	show("what the instance was", 4, 1);
	show("what it has become", 5, 0);
	CHECK(cuGraphExecDestroy(exec));
	show("nothing", 5, 1);
}

/* The stream of the last launch is gone before the instance is. */
static void lost_stream(CUdeviceptr memory, CUcontext context)
{
	CUgraph graph = make_graph(memory, context);
	CUuserObject object = make(7, 1);
	CUgraphExec exec;
	CUstream stream;

	CHECK(cuGraphRetainUserObject(graph, object, 1, CU_GRAPH_USER_OBJECT_MOVE));
	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	CHECK(cuGraphDestroy(graph));
	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	CHECK(cuGraphLaunch(exec, stream));
	CHECK(cuStreamDestroy_v2(stream));
	show("its stream is gone", 7, 0);
	CHECK(cuGraphExecDestroy(exec));
	show("the instance, too", 7, 1);
}

static void replaced_child(CUdeviceptr memory, CUcontext context)
{
	CUgraph graph = make_graph(memory, context), old = make_graph(memory, context);
	CUgraph child = make_graph(memory, context);
	CUuserObject object = make(8, 1);
	CUgraphNode node;
	CUgraphExec exec;

	CHECK(cuGraphAddChildGraphNode(&node, graph, NULL, 0, old));
	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	CHECK(cuGraphRetainUserObject(child, object, 1, CU_GRAPH_USER_OBJECT_MOVE));
	CHECK(cuGraphExecChildGraphNodeSetParams(exec, node, child));
	CHECK(cuGraphDestroy(child));
	CHECK(cuGraphDestroy(old));
	CHECK(cuGraphDestroy(graph));
	show("the new child's is kept by the instance", 8, 0);
	CHECK(cuGraphExecDestroy(exec));
	show("and by nothing else", 8, 1);
}

/* What a capture took in keeps what that kept. */
static void captured_launch(CUdeviceptr memory, CUcontext context, CUstream stream)
{
	CUgraph graph = make_graph(memory, context), captured;
	CUuserObject object = make(10, 1);
	CUgraphExec inner, outer;

	CHECK(cuGraphRetainUserObject(graph, object, 1, CU_GRAPH_USER_OBJECT_MOVE));
	CHECK(cuGraphInstantiateWithFlags(&inner, graph, 0));
	CHECK(cuGraphDestroy(graph));
	CHECK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
	CHECK(cuGraphLaunch(inner, stream));
	CHECK(cuStreamEndCapture(stream, &captured));
	CHECK(cuGraphExecDestroy(inner));
	show("a launch of it was captured", 10, 0);
	CHECK(cuGraphInstantiateWithFlags(&outer, captured, 0));
	CHECK(cuGraphDestroy(captured));
	CHECK(cuGraphLaunch(outer, stream));
	CHECK(cuStreamSynchronize(stream));
	show("and launched", 10, 0);
	CHECK(cuGraphExecDestroy(outer));
	show("and destroyed", 10, 1);
}

/* What ends a launch is no part of what the program captures. */
static void in_a_capture(CUdeviceptr memory, CUcontext context, CUstream stream)
{
	CUgraph graph = make_graph(memory, context), captured;
	CUuserObject object = make(9, 1);
	CUgraphExec exec;
	size_t count = 0;

	CHECK(cuGraphRetainUserObject(graph, object, 1, CU_GRAPH_USER_OBJECT_MOVE));
	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	CHECK(cuGraphDestroy(graph));
	CHECK(cuGraphLaunch(exec, stream));
	CHECK(cuStreamSynchronize(stream));
	CHECK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
	CHECK(cuMemsetD32Async(memory, 3, 1, stream));
	CHECK(cuGraphExecDestroy(exec));
	CHECK(cuStreamEndCapture(stream, &captured));
	CHECK(cuGraphGetNodes(captured, NULL, &count));
	printf("nodes captured: %zu\n", count);
	show("destroyed in the middle of it", 9, 1);
	CHECK(cuGraphDestroy(captured));
}

static void mistakes(CUdeviceptr memory, CUcontext context)
{
	CUgraph graph = make_graph(memory, context);
	CUuserObject object = make(6, 1), none;

	SHOW(cuUserObjectCreate(&none, NULL, destroy, 1, 0));
	SHOW(cuUserObjectCreate(&none, NULL, NULL, 1, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC));
	SHOW(cuUserObjectCreate(&none, NULL, destroy, 0, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC));
	SHOW(cuUserObjectRetain(object, 0));
	SHOW(cuUserObjectRelease(object, 2));
	SHOW(cuGraphRetainUserObject(graph, NULL, 1, 0));
	SHOW(cuGraphRetainUserObject(graph, object, 1, 2));
	SHOW(cuGraphReleaseUserObject(graph, object, 1));
	show("after mistakes", 6, 0);
	CHECK(cuGraphDestroy(graph));
	CHECK(cuUserObjectRelease(object, 1));
	show("in the end", 6, 1);
}

int main(void)
{
	CUcontext context = open_device();
	CUdeviceptr memory;
	CUstream stream;

	CHECK(cuMemAlloc_v2(&memory, 64));
	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	counts();
	copies(memory, context);
	instances(memory, context, stream);
	updates(memory, context, stream);
	lost_stream(memory, context);
	replaced_child(memory, context);
	in_a_capture(memory, context, stream);
	captured_launch(memory, context, stream);
	mistakes(memory, context);
	return 0;
}
