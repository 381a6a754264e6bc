/* SPDX-License-Identifier: Apache-2.0
 *
 * Kernel nodes made by hand: parameters in both forms, changed in the graph and in the executable graph.
 */
#include "program.h"

enum { N = 256 };

static CUdeviceptr memory;
static CUfunction scale;
static CUstream stream;

static CUDA_KERNEL_NODE_PARAMS shape(void **parameters, void **extra)
{
	CUDA_KERNEL_NODE_PARAMS params = {
		.func = scale,
		.gridDimX = 2,
		.gridDimY = 1,
		.gridDimZ = 1,
		.blockDimX = 128,
		.blockDimY = 1,
		.blockDimZ = 1,
		.kernelParams = parameters,
		.extra = extra,
	};

	return params;
}

static void run(const char *what, CUgraphExec exec)
{
	unsigned values[N];

	CHECK(cuMemsetD32Async(memory, 1, N, stream));
	CHECK(cuGraphLaunch(exec, stream));
	CHECK(cuMemcpyDtoHAsync_v2(values, memory, sizeof values, stream));
	CHECK(cuStreamSynchronize(stream));
	printf("%s: %u %u %u\n", what, values[0], values[1], values[N - 1]);
}

/* What a node would launch, as a program that changes one value of a captured kernel reads it. */
static void show_node(CUgraphNode node, unsigned expected)
{
	CUDA_KERNEL_NODE_PARAMS params;
	CUDA_KERNEL_NODE_PARAMS_v1 older;

	CHECK(cuGraphKernelNodeGetParams_v2(node, &params));
	printf("node: %u blocks of %u, %s, times %u of %u\n", params.gridDimX, params.blockDimX,
	       params.func == scale ? "scale" : "another", *(unsigned *)params.kernelParams[1],
	       *(unsigned *)params.kernelParams[2]);
	if (*(CUdeviceptr *)params.kernelParams[0] != memory || *(unsigned *)params.kernelParams[1] != expected)
		printf("not what the node was given\n");
	CHECK(cuGraphKernelNodeGetParams(node, &older));
	printf("as before CUDA 12: %s, times %u\n", older.func == scale ? "scale" : "another",
	       *(unsigned *)older.kernelParams[1]);
}

static void change_captured(void **parameters)
{
	CUgraphNodeParams any = { .type = CU_GRAPH_NODE_TYPE_KERNEL };
	CUDA_KERNEL_NODE_PARAMS params;
	CUgraphNode node, copy;
	CUgraphExec exec;
	CUgraph graph;
	unsigned factor = 7;
	size_t count = 1;

	CHECK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
	CHECK(cuLaunchKernel(scale, 2, 1, 1, 128, 1, 1, 0, stream, parameters, NULL));
	CHECK(cuStreamEndCapture(stream, &graph));
	CHECK(cuGraphGetNodes(graph, &node, &count));
	CHECK(cuGraphKernelNodeGetParams_v2(node, &params));
	show_node(node, *(unsigned *)parameters[1]);
	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	run("captured", exec);
	void *changed[] = { params.kernelParams[0], &factor, params.kernelParams[2] };
	params.kernelParams = changed;
	memcpy(&any.kernel, &params, sizeof params);
	CHECK(cuGraphExecNodeSetParams(exec, node, &any));
	run("captured, then times 7", exec);
	CHECK(cuGraphNodeSetParams(node, &any));
	show_node(node, 7);
	CHECK(cuGraphAddEmptyNode(&copy, graph, NULL, 0));
	SHOW(cuGraphKernelNodeGetParams_v2(copy, &params));
	SHOW(cuGraphKernelNodeGetParams_v2(NULL, &params));
	SHOW(cuGraphKernelNodeGetParams_v2(node, NULL));
	CHECK(cuGraphExecDestroy(exec));
	CHECK(cuGraphDestroy(graph));
}

/* By which of the two a node was made shows when it is read: CUDA's runtime looks for the kernel. */
static void show_library_kernel(void **parameters)
{
	CUDA_KERNEL_NODE_PARAMS params = shape(parameters, NULL), read;
	CUlibrary library;
	CUkernel kernel;
	CUfunction function;
	CUgraphNode nodes[3];
	CUgraph graph;
	size_t count = 1;

	CHECK(cuLibraryLoadData(&library, PTX_HEADER PTX_SCALE, NULL, NULL, 0, NULL, NULL, 0));
	CHECK(cuLibraryGetKernel(&kernel, library, "scale"));
	CHECK(cuKernelGetFunction(&function, kernel));
	CHECK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
	CHECK(cuLaunchKernel((CUfunction)kernel, 2, 1, 1, 128, 1, 1, 0, stream, parameters, NULL));
	CHECK(cuStreamEndCapture(stream, &graph));
	CHECK(cuGraphGetNodes(graph, &nodes[0], &count));
	params.func = function;
	CHECK(cuGraphAddKernelNode_v2(&nodes[1], graph, NULL, 0, &params));
	params.func = NULL;
	params.kern = kernel;
	CHECK(cuGraphAddKernelNode_v2(&nodes[2], graph, NULL, 0, &params));
	for (int i = 0; i < 3; i++) {
		CHECK(cuGraphKernelNodeGetParams_v2(nodes[i], &read));
		printf("of a library: the kernel %s, its function %s\n", read.kern == kernel ? "yes" : "no",
		       read.func == function ? "yes" : "no");
	}
	CHECK(cuGraphDestroy(graph));
	CHECK(cuLibraryUnload(library));
}

int main(void)
{
	CUmodule module;
	CUgraph graph;
	CUgraphExec exec;
	CUgraphNode first, second;
	unsigned n = N, factor = 3;
	void *parameters[] = { &memory, &factor, &n };
	CUDA_KERNEL_NODE_PARAMS params;
	CUlaunchAttributeValue value;

	open_device();
	CHECK(cuModuleLoadData(&module, PTX_HEADER PTX_SCALE));
	scale = get_function(module, "scale");
	CHECK(cuMemAlloc_v2(&memory, N * sizeof(unsigned)));
	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	CHECK(cuGraphCreate(&graph, 0));
	params = shape(parameters, NULL);
	CHECK(cuGraphAddKernelNode_v2(&first, graph, NULL, 0, &params));

	struct {
		CUdeviceptr memory;
		unsigned factor, n;
	} packed = { memory, 10, N };
	size_t size = sizeof packed;
	void *extra[] = { CU_LAUNCH_PARAM_BUFFER_POINTER, &packed, CU_LAUNCH_PARAM_BUFFER_SIZE, &size,
			  CU_LAUNCH_PARAM_END };
	params = shape(NULL, extra);
	CHECK(cuGraphAddKernelNode_v2(&second, graph, &first, 1, &params));
	show_node(first, 3);
	show_node(second, 10);
	memset(&packed, 0, sizeof packed); /* they were captured */
	factor = 99;
	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	run("times 3, times 10", exec);

	factor = 5;
	params = shape(parameters, NULL);
	CHECK(cuGraphExecKernelNodeSetParams_v2(exec, first, &params));
	run("times 5, times 10", exec);
	CHECK(cuGraphExecDestroy(exec));

	factor = 2;
	CHECK(cuGraphKernelNodeSetParams_v2(second, &params));
	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	run("times 3, times 2", exec);
	CHECK(cuGraphNodeSetEnabled(exec, second, 0));
	run("times 3", exec);
	CHECK(cuGraphExecDestroy(exec));

	memset(&value, 0, sizeof value);
	value.priority = 0;
	SHOW(cuGraphKernelNodeSetAttribute(first, CU_LAUNCH_ATTRIBUTE_PRIORITY, &value));
	params.func = NULL;
	SHOW(cuGraphKernelNodeSetParams_v2(second, NULL));
	CHECK(cuGraphDestroy(graph));
	change_captured(parameters);
	show_library_kernel(parameters);
	CHECK(cuModuleUnload(module));
	CHECK(cuMemFree_v2(memory));
	printf("done\n");
	return 0;
}
