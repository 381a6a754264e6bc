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
	CHECK(cuModuleUnload(module));
	CHECK(cuMemFree_v2(memory));
	printf("done\n");
	return 0;
}
