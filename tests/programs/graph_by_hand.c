/* SPDX-License-Identifier: Apache-2.0
 *
 * A graph made node by node that copies host memory to the device, has a kernel change it, copies it back, and has
 * host functions look at what has come so far. Its copies and functions are then changed, in the graph and in an
 * instance; it is cloned, nested, and changed after an update.
 */
#include "program.h"

enum { N = 1000, BYTES = N * sizeof(unsigned) };

static CUcontext context;
static CUstream stream;
static CUdeviceptr memory;
static CUfunction scale;
static unsigned *in, *out; /* pinned */
static unsigned other_in[N], other_out[N], early[4], seen[4];

struct look {
	const unsigned *at;
	unsigned *to;
};
static struct look before, behind, elsewhere;

static void CUDA_CB look(void *data)
{
	const struct look *what = data;

	*what->to = what->at[N - 1];
}

static void CUDA_CB look_twice(void *data)
{
	const struct look *what = data;

	*what->to = 2 * what->at[N - 1];
}

static void fill(unsigned *values, unsigned factor)
{
	for (unsigned i = 0; i < N; i++)
		values[i] = i * factor;
}

/* ------------------------------------------------------------------ nodes */

struct nodes {
	CUgraphNode up, kernel, down, before, behind;
};

static CUDA_MEMCPY3D upload(unsigned *from)
{
	return (CUDA_MEMCPY3D){ .srcMemoryType = CU_MEMORYTYPE_HOST,
				.srcHost = from,
				.dstMemoryType = CU_MEMORYTYPE_DEVICE,
				.dstDevice = memory,
				.WidthInBytes = BYTES,
				.Height = 1,
				.Depth = 1 };
}

/* Unified: the address alone says that it is the host's. */
static CUDA_MEMCPY3D download(unsigned *to)
{
	return (CUDA_MEMCPY3D){ .srcMemoryType = CU_MEMORYTYPE_DEVICE,
				.srcDevice = memory,
				.dstMemoryType = CU_MEMORYTYPE_UNIFIED,
				.dstDevice = (CUdeviceptr)(uintptr_t)to,
				.WidthInBytes = BYTES / 4,
				.Height = 4,
				.Depth = 1 };
}

static CUgraphNode add_kernel(CUgraph graph, CUgraphNode after, unsigned factor)
{
	unsigned n = N;
	void *parameters[] = { &memory, &factor, &n };
	CUDA_KERNEL_NODE_PARAMS params = one_thread(scale, parameters);
	CUgraphNode node;

	params.gridDimX = (N + 127) / 128;
	params.blockDimX = 128;
	CHECK(cuGraphAddKernelNode_v2(&node, graph, after ? &after : NULL, after ? 1 : 0, &params));
	return node;
}

static CUgraphNode add_function(CUgraph graph, CUgraphNode after, CUhostFn function, struct look *what)
{
	CUDA_HOST_NODE_PARAMS params = { function, what };
	CUgraphNode node;

	CHECK(cuGraphAddHostNode(&node, graph, after ? &after : NULL, after ? 1 : 0, &params));
	return node;
}

/* in -> memory, times FACTOR, a look at what came before, memory -> out, a look at that */
static CUgraph make(struct nodes *nodes, unsigned factor, unsigned *from, unsigned *to)
{
	CUDA_MEMCPY3D up = upload(from), down = download(to);
	CUgraph graph;

	CHECK(cuGraphCreate(&graph, 0));
	CHECK(cuGraphAddMemcpyNode(&nodes->up, graph, NULL, 0, &up, context));
	nodes->kernel = add_kernel(graph, nodes->up, factor);
	nodes->before = add_function(graph, nodes->kernel, look, &before);
	CHECK(cuGraphAddMemcpyNode(&nodes->down, graph, &nodes->before, 1, &down, context));
	nodes->behind = add_function(graph, nodes->down, look, &behind);
	return graph;
}

static void run(const char *what, CUgraphExec exec, const unsigned *result)
{
	CHECK(cuGraphLaunch(exec, stream));
	CHECK(cuStreamSynchronize(stream));
	printf("%s: saw %u ahead of the copy, %u behind it, then %u\n", what, early[0], seen[0], result[N - 1]);
}

/* ------------------------------------------------------------------ what is done with it */

static void launches(CUgraph graph)
{
	CUgraphExec exec;

	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	for (unsigned round = 1; round < 4; round++) {
		fill(in, round);
		run("launch", exec, out);
	}
	fill(in, 7); /* two at once: the second looks at what the first has left */
	CHECK(cuGraphLaunch(exec, stream));
	run("again", exec, out);
	CHECK(cuGraphExecDestroy(exec));
}

static void ask(const struct nodes *nodes)
{
	CUDA_MEMCPY3D copy;
	CUDA_HOST_NODE_PARAMS host;
	CUgraphNodeType type;

	CHECK(cuGraphMemcpyNodeGetParams(nodes->up, &copy));
	printf("up: from host %d, to the device %d, %zu bytes\n", copy.srcHost == in, copy.dstDevice == memory,
	       copy.WidthInBytes);
	CHECK(cuGraphMemcpyNodeGetParams(nodes->down, &copy));
	printf("down: type %d, there %d, %zu x %zu\n", copy.dstMemoryType,
	       copy.dstDevice == (CUdeviceptr)(uintptr_t)out, copy.WidthInBytes, copy.Height);
	CHECK(cuGraphHostNodeGetParams(nodes->behind, &host));
	printf("function: %d %d\n", host.fn == look, host.userData == &behind);
	CHECK(cuGraphNodeGetType(nodes->behind, &type));
	printf("of type %d\n", type);
	SHOW(cuGraphHostNodeGetParams(nodes->up, &host));
	SHOW(cuGraphMemcpyNodeGetParams(nodes->behind, &copy));
}

/* In one instance; the graph and another instance stay as they are. */
static void change_instance(CUgraph graph, const struct nodes *nodes)
{
	CUDA_MEMCPY3D up = upload(other_in), down = download(other_out);
	CUDA_HOST_NODE_PARAMS host = { look_twice, &elsewhere };
	CUgraphExec exec, same;

	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	CHECK(cuGraphInstantiateWithFlags(&same, graph, 0));
	CHECK(cuGraphLaunch(exec, stream)); /* which has the old ones */
	CHECK(cuGraphExecMemcpyNodeSetParams(exec, nodes->up, &up, context));
	CHECK(cuGraphExecMemcpyNodeSetParams(exec, nodes->down, &down, context));
	CHECK(cuGraphExecHostNodeSetParams(exec, nodes->behind, &host));
	fill(other_in, 11);
	run("changed instance", exec, other_out);
	printf("which saw twice %u\n", seen[1] / 2);
	fill(in, 2);
	run("the other instance", same, out);
	CHECK(cuGraphNodeSetEnabled(same, nodes->up, 0));
	fill(in, 3);
	run("without its upload", same, out);
	CHECK(cuGraphNodeSetEnabled(same, nodes->up, 1));
	run("and with", same, out);
	CHECK(cuGraphExecDestroy(exec));
	CHECK(cuGraphExecDestroy(same));
}

/* The instance made before the change gets it by an update. */
static void change_graph(CUgraph graph, const struct nodes *nodes)
{
	CUDA_MEMCPY3D up = upload(other_in), down = download(other_out);
	CUDA_HOST_NODE_PARAMS host = { look_twice, &elsewhere };
	CUgraphExecUpdateResultInfo info;
	CUgraphExec exec;

	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	CHECK(cuGraphMemcpyNodeSetParams(nodes->up, &up));
	CHECK(cuGraphMemcpyNodeSetParams(nodes->down, &down));
	CHECK(cuGraphHostNodeSetParams(nodes->behind, &host));
	fill(in, 4);
	fill(other_in, 13);
	run("before the update", exec, out);
	CHECK(cuGraphExecUpdate_v2(exec, graph, &info));
	run("after it", exec, other_out);
	printf("which saw twice %u\n", seen[1] / 2);
	CHECK(cuGraphExecDestroy(exec));
}

static void nest(CUgraph graph)
{
	CUgraph clone, outer;
	CUgraphExec exec;
	CUgraphNode first, second;

	CHECK(cuGraphClone(&clone, graph));
	CHECK(cuGraphCreate(&outer, 0));
	CHECK(cuGraphAddChildGraphNode(&first, outer, NULL, 0, clone));
	CHECK(cuGraphDestroy(clone));
	second = add_function(outer, first, look, &(struct look){ out, seen + 2 });
	CHECK(cuGraphDestroyNode(second));
	add_function(outer, first, look_twice, &elsewhere);
	CHECK(cuGraphInstantiateWithFlags(&exec, outer, 0));
	CHECK(cuGraphDestroy(outer));
	fill(in, 5);
	run("nested", exec, out);
	CHECK(cuGraphExecDestroy(exec));
}

/* Host memory that is read and written by one graph, with a function that changes it in between launches. */
static void in_place(void)
{
	struct nodes nodes;
	CUgraph graph = make(&nodes, 3, in, in);
	CUgraphExec exec;

	before = (struct look){ in, early };
	behind = (struct look){ in, seen };
	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	CHECK(cuGraphDestroy(graph));
	fill(in, 1);
	CHECK(cuGraphLaunch(exec, stream));
	CHECK(cuGraphLaunch(exec, stream));
	run("in place", exec, in);
	CHECK(cuGraphExecDestroy(exec));
}

/* Two copies to the host in branches of their own, a function behind both that was there first, one behind the other
 * function whose copy it leaves alone, and a third copy that nobody looks at. */
static void branches(void)
{
	CUDA_MEMCPY3D first = download(out), second = download(other_out), third = download(other_in);
	CUgraphNode join, next, empty, copies[3];
	CUgraphExec exec;
	CUgraph graph;

	before = (struct look){ out, early };
	behind = (struct look){ other_out, seen };
	CHECK(cuGraphCreate(&graph, 0));
	join = add_function(graph, NULL, look, &before);
	next = add_function(graph, join, look, &behind);
	CHECK(cuGraphAddMemcpyNode(&copies[0], graph, NULL, 0, &first, context));
	CHECK(cuGraphAddEmptyNode(&empty, graph, copies, 1));
	CHECK(cuGraphAddMemcpyNode(&copies[1], graph, &empty, 1, &second, context));
	CHECK(cuGraphAddMemcpyNode(&copies[2], graph, copies, 1, &third, context));
	CHECK(cuGraphAddDependencies(graph, copies, &join, 1));
	CHECK(cuGraphAddDependencies(graph, copies + 1, &next, 1));
	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	CHECK(cuGraphDestroy(graph));
	for (unsigned round = 1; round < 3; round++) {
		fill(in, round);
		CHECK(cuMemcpyHtoD_v2(memory, in, BYTES));
		run("branches", exec, other_in);
	}
	CHECK(cuGraphExecDestroy(exec));
}

/* By the function for nodes of any kind. */
static void any_kind(void)
{
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_MEMCPY };
	CUgraphNode up, host;
	CUgraphExec exec;
	CUgraph graph;

	CHECK(cuGraphCreate(&graph, 0));
	params.memcpy.copyParams = upload(in);
	CHECK(cuGraphAddNode_v2(&up, graph, NULL, NULL, 0, &params));
	params = (CUgraphNodeParams){ .type = CU_GRAPH_NODE_TYPE_HOST };
	params.host.fn = look;
	params.host.userData = &before;
	CHECK(cuGraphAddNode_v2(&host, graph, &up, NULL, 1, &params));
	params.host.fn = look_twice;
	CHECK(cuGraphNodeSetParams(host, &params));
	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	fill(in, 8);
	run("any kind", exec, in);
	params.host.fn = look;
	CHECK(cuGraphExecNodeSetParams(exec, host, &params));
	run("set again", exec, in);
	params.host.fn = NULL;
	SHOW(cuGraphAddNode_v2(&host, graph, &up, NULL, 1, &params));
	CHECK(cuGraphExecDestroy(exec));
	CHECK(cuGraphDestroy(graph));
}

int main(void)
{
	struct nodes nodes;
	CUmodule module;
	CUgraph graph;

	context = open_device();
	CHECK(cuModuleLoadData(&module, PTX_HEADER PTX_SCALE));
	scale = get_function(module, "scale");
	CHECK(cuMemAlloc_v2(&memory, BYTES));
	CHECK(cuMemAllocHost_v2((void **)&in, BYTES));
	CHECK(cuMemAllocHost_v2((void **)&out, BYTES));
	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	before = (struct look){ out, early };
	behind = (struct look){ out, seen };
	elsewhere = (struct look){ other_out, seen + 1 };
	memset(out, 0, BYTES);
	graph = make(&nodes, 3, in, out);
	launches(graph);
	ask(&nodes);
	change_instance(graph, &nodes);
	nest(graph);
	change_graph(graph, &nodes);
	CHECK(cuGraphDestroy(graph));
	in_place();
	branches();
	any_kind();
	CHECK(cuMemFreeHost(in));
	CHECK(cuMemFreeHost(out));
	CHECK(cuMemFree_v2(memory));
	printf("done\n");
	return 0;
}
