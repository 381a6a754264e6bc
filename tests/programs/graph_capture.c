/* SPDX-License-Identifier: Apache-2.0
 *
 * A captured graph: a kernel, copies from and to host memory that are read and written anew at each launch, a
 * second stream that joins by events, questions during the capture, and what must be refused.
 */
#include "program.h"

enum { N = 1000, BYTES = N * sizeof(int) };

static const char ptx[] = ".version 7.0\n.target sm_70\n.address_size 64\n"
			  ".visible .entry add(.param .u64 p, .param .u32 n, .param .u32 what) {\n"
			  ".reg .b32 %r<8>; .reg .b64 %rd<4>; .reg .pred %p;\n"
			  "ld.param.u64 %rd1, [p]; ld.param.u32 %r1, [n]; ld.param.u32 %r2, [what];\n"
			  "mov.u32 %r3, %ctaid.x; mov.u32 %r4, %ntid.x; mov.u32 %r5, %tid.x;\n"
			  "mad.lo.s32 %r6, %r3, %r4, %r5; setp.ge.s32 %p, %r6, %r1; @%p bra end;\n"
			  "mul.wide.s32 %rd2, %r6, 4; add.s64 %rd3, %rd1, %rd2;\n"
			  "ld.global.u32 %r7, [%rd3]; add.s32 %r7, %r7, %r2; st.global.u32 [%rd3], %r7;\n"
			  "end: ret; }\n";

static CUfunction add;
static CUdeviceptr memory;

static void launch(CUstream stream, int what)
{
	int n = N;
	void *parameters[] = { &memory, &n, &what };

	CHECK(cuLaunchKernel(add, (N + 127) / 128, 1, 1, 128, 1, 1, 0, stream, parameters, NULL));
}

static void show(const char *what, const int *values)
{
	long long sum = 0;

	for (int i = 0; i < N; i++)
		sum += values[i];
	printf("%s: first %d last %d sum %lld\n", what, values[0], values[N - 1], sum);
}

static void fill(int *values, int from)
{
	for (int i = 0; i < N; i++)
		values[i] = from + i;
}

static void questions(CUstream stream)
{
	CUstreamCaptureStatus status = 9, again = 9;
	cuuint64_t id = 0, same = 0;
	CUgraph graph = NULL;
	const CUgraphNode *nodes = NULL;
	size_t count = 99;

	CHECK(cuStreamIsCapturing(stream, &status));
	CHECK(cuStreamGetCaptureInfo_v2(stream, &again, &id, &graph, &nodes, &count));
	printf("capturing %d %d, id %s, graph %s, %zu dependency\n", status, again, id ? "yes" : "no",
	       graph ? "yes" : "no", count);
	CHECK(cuStreamGetCaptureInfo_v2(stream, &again, &same, NULL, NULL, NULL));
	printf("same id %d\n", same == id);
	if (count) {
		CUgraphNodeType type;

		CHECK(cuGraphNodeGetType(nodes[0], &type));
		printf("it is of type %d\n", type);
	}
}

static void describe(CUgraph graph)
{
	CUgraphNode nodes[16];
	size_t count = 0, edges = 0, roots = 0;
	int types[16] = { 0 };

	CHECK(cuGraphGetNodes(graph, NULL, &count));
	CHECK(cuGraphGetEdges(graph, NULL, NULL, &edges));
	CHECK(cuGraphGetRootNodes(graph, NULL, &roots));
	printf("%zu nodes, %zu edges, %zu root\n", count, edges, roots);
	CHECK(cuGraphGetNodes(graph, nodes, &count));
	for (size_t i = 0; i < count; i++) {
		CUgraphNodeType type;

		CHECK(cuGraphNodeGetType(nodes[i], &type));
		types[type]++;
	}
	printf("%d kernels, %d copies, %d memsets\n", types[CU_GRAPH_NODE_TYPE_KERNEL],
	       types[CU_GRAPH_NODE_TYPE_MEMCPY], types[CU_GRAPH_NODE_TYPE_MEMSET]);
}

/* in -> memory, +1, fork: memset of a part on another stream, join, +10, memory -> out */
static CUgraph capture(CUstream stream, CUstream other, int *in, int *out)
{
	CUgraph graph;
	CUevent fork, join;

	CHECK(cuEventCreate(&fork, CU_EVENT_DISABLE_TIMING));
	CHECK(cuEventCreate(&join, CU_EVENT_DISABLE_TIMING));
	CHECK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
	CHECK(cuMemcpyHtoDAsync_v2(memory, in, BYTES, stream));
	launch(stream, 1);
	questions(stream);
	CHECK(cuEventRecord(fork, stream));
	CHECK(cuStreamWaitEvent(other, fork, 0));
	CHECK(cuMemsetD32Async(memory, 7, 10, other));
	CHECK(cuEventRecord(join, other));
	CHECK(cuStreamWaitEvent(stream, join, 0));
	launch(stream, 10);
	CHECK(cuMemcpyDtoHAsync_v2(out, memory, BYTES, stream));
	CHECK(cuStreamEndCapture(stream, &graph));
	CHECK(cuEventDestroy_v2(fork));
	CHECK(cuEventDestroy_v2(join));
	return graph;
}

static void run(CUstream stream, CUstream other, int *in, int *out)
{
	CUgraph graph, clone;
	CUgraphExec exec;
	CUgraphExecUpdateResultInfo info;
	CUstreamCaptureStatus status = 9;

	graph = capture(stream, other, in, out);
	CHECK(cuStreamIsCapturing(stream, &status));
	printf("capturing %d\n", status);
	describe(graph);
	CHECK(cuGraphClone(&clone, graph));
	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	CHECK(cuGraphUpload(exec, stream));
	CHECK(cuGraphDestroy(graph));
	for (int i = 0; i < 3; i++) {
		fill(in, 100 * i);
		memset(out, 0, BYTES);
		CHECK(cuGraphLaunch(exec, stream));
		CHECK(cuStreamSynchronize(stream));
		show("launch", out);
	}
	CHECK(cuGraphExecUpdate_v2(exec, clone, &info));
	printf("update %d\n", info.result);
	fill(in, -5);
	CHECK(cuGraphLaunch(exec, other));
	CHECK(cuCtxSynchronize());
	show("updated", out);
	CHECK(cuGraphExecDestroy(exec));
	CHECK(cuGraphInstantiateWithFlags(&exec, clone, 0));
	CHECK(cuGraphDestroy(clone));
	CHECK(cuGraphLaunch(exec, stream));
	CHECK(cuGraphLaunch(exec, stream));
	CHECK(cuStreamSynchronize(stream));
	show("clone", out);
	CHECK(cuGraphExecDestroy(exec));
}

static void refusals(CUstream stream)
{
	CUgraph graph = NULL;
	CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
	CUresult status;

	printf("end without begin: %d\n", cuStreamEndCapture(stream, &graph));
	printf("legacy stream: %d\n", cuStreamBeginCapture_v2(NULL, mode));
	CHECK(cuStreamBeginCapture_v2(stream, mode));
	status = cuStreamSynchronize(stream);
	printf("wait inside: %d\n", status);
	status = cuStreamEndCapture(stream, &graph);
	printf("then the end: %d, graph %s\n", status, graph ? "yes" : "no");
	CHECK(cuThreadExchangeStreamCaptureMode(&mode));
	printf("thread mode was %d\n", mode);
	launch(stream, 1);
	CHECK(cuStreamSynchronize(stream));
}

/* joined: not at all, before the forked stream is destroyed, or after it. */
static void destroy_forked(CUstream stream, int joined)
{
	CUstream forked;
	CUevent fork, join;
	CUgraph graph = NULL;
	size_t count = 0;

	CHECK(cuEventCreate(&fork, CU_EVENT_DISABLE_TIMING));
	CHECK(cuEventCreate(&join, CU_EVENT_DISABLE_TIMING));
	CHECK(cuStreamCreate(&forked, CU_STREAM_NON_BLOCKING));
	CHECK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
	CHECK(cuMemsetD32Async(memory, 1, 1, stream));
	CHECK(cuEventRecord(fork, stream));
	CHECK(cuStreamWaitEvent(forked, fork, 0));
	CHECK(cuMemsetD32Async(memory, 2, 1, forked));
	CHECK(cuEventRecord(join, forked));
	if (joined == 1)
		CHECK(cuStreamWaitEvent(stream, join, 0));
	CHECK(cuStreamDestroy_v2(forked));
	if (joined == 2)
		CHECK(cuStreamWaitEvent(stream, join, 0));
	CHECK(cuEventDestroy_v2(fork));
	CHECK(cuEventDestroy_v2(join));
	CUresult status = cuStreamEndCapture(stream, &graph);
	if (graph)
		CHECK(cuGraphGetNodes(graph, NULL, &count));
	printf("destroyed, joined %d: %s, %zu nodes\n", joined, error_name(status), count);
	if (graph)
		CHECK(cuGraphDestroy(graph));
}

int main(void)
{
	CUmodule module;
	CUstream stream, other;
	int *in, *out, *pageable = malloc(2 * BYTES);

	open_device();
	CHECK(cuModuleLoadData(&module, ptx));
	CHECK(cuModuleGetFunction(&add, module, "add"));
	CHECK(cuMemAlloc_v2(&memory, BYTES));
	CHECK(cuMemAllocHost_v2((void **)&in, BYTES));
	CHECK(cuMemAllocHost_v2((void **)&out, BYTES));
	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	CHECK(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
	run(stream, other, in, out);
	run(stream, other, pageable, pageable + N);
	refusals(stream);
	for (int joined = 0; joined < 3; joined++)
		destroy_forked(stream, joined);
	CHECK(cuMemFreeHost(in));
	CHECK(cuMemFreeHost(out));
	CHECK(cuStreamDestroy_v2(stream));
	CHECK(cuStreamDestroy_v2(other));
	CHECK(cuMemFree_v2(memory));
	free(pageable);
	printf("done\n");
	return 0;
}
