/* SPDX-License-Identifier: Apache-2.0
 *
 * Captures into a graph that reads host memory already: behind what it has, a kernel, a copy to the host, and
 * functions ahead of that copy and behind it.
 */
#include "program.h"

enum { N = 1000, BYTES = N * sizeof(unsigned) };

static unsigned in[N], out[N];
static CUstream stream;
static CUdeviceptr memory;
static CUfunction scale;

static void CUDA_CB look(void *seen)
{
	*(unsigned *)seen = out[N - 1];
}

static void launch(unsigned factor)
{
	unsigned n = N;
	void *parameters[] = { &memory, &factor, &n };

	CHECK(cuLaunchKernel(scale, (N + 127) / 128, 1, 1, 128, 1, 1, 0, stream, parameters, NULL));
}

static void capture_into(CUgraph graph, CUgraphNode last, unsigned *before, unsigned *behind)
{
	CUgraph same;

	CHECK(cuStreamBeginCaptureToGraph(stream, graph, NULL, NULL, 0, CU_STREAM_CAPTURE_MODE_GLOBAL));
	CHECK(cuStreamUpdateCaptureDependencies(stream, &last, 1, CU_STREAM_ADD_CAPTURE_DEPENDENCIES));
	CHECK(cuStreamUpdateCaptureDependencies_v2(stream, &last, NULL, 1, CU_STREAM_SET_CAPTURE_DEPENDENCIES));
	launch(5);
	CHECK(cuLaunchHostFunc(stream, look, before));
	CHECK(cuMemcpyDtoHAsync_v2(out, memory, BYTES, stream));
	CHECK(cuLaunchHostFunc(stream, look, behind));
	CHECK(cuStreamEndCapture(stream, &same));
	printf("the same graph: %s\n", same == graph ? "yes" : "no");
}

static CUgraph capture(CUgraphNode *last)
{
	CUstreamCaptureStatus state;
	const CUgraphNode *nodes;
	cuuint64_t id;
	size_t count;
	CUgraph graph;

	CHECK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
	CHECK(cuMemcpyHtoDAsync_v2(memory, in, BYTES, stream));
	launch(3);
	CHECK(cuStreamGetCaptureInfo_v2(stream, &state, &id, NULL, &nodes, &count));
	*last = nodes[0];
	CHECK(cuStreamEndCapture(stream, &graph));
	return graph;
}

int main(void)
{
	unsigned before = 0, behind = 0;
	CUgraphExec exec;
	CUgraphNode last;
	CUmodule module;
	CUgraph graph;

	open_device();
	CHECK(cuModuleLoadData(&module, PTX_HEADER PTX_SCALE));
	scale = get_function(module, "scale");
	CHECK(cuMemAlloc_v2(&memory, BYTES));
	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	graph = capture(&last);
	capture_into(graph, last, &before, &behind);
	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	CHECK(cuGraphDestroy(graph));
	for (unsigned round = 1; round < 4; round++) {
		for (unsigned i = 0; i < N; i++)
			in[i] = i * round;
		CHECK(cuGraphLaunch(exec, stream));
		CHECK(cuStreamSynchronize(stream));
		printf("saw %u ahead of the copy, %u behind it, then %u\n", before, behind, out[N - 1]);
	}
	CHECK(cuGraphExecDestroy(exec));
	return 0;
}
