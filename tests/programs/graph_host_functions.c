/* SPDX-License-Identifier: Apache-2.0
 *
 * Captured host functions behind copies to host memory: they see what was copied in their own launch, may change it,
 * and what they have changed stays.
 */
#include "program.h"

#include <unistd.h>

enum { N = 1000, BYTES = N * sizeof(unsigned) };

struct job {
	unsigned *values;
	unsigned long long seen;
	int times, slow;
};

static CUstream stream;
static CUdeviceptr memory;
static CUfunction scale;

static unsigned long long sum(const unsigned *values)
{
	unsigned long long total = 0;

	for (int i = 0; i < N; i++)
		total += values[i];
	return total;
}

static void CUDA_CB look(void *data)
{
	struct job *job = data;

	if (job->slow)
		usleep(2000);
	job->seen = sum(job->values);
	job->values[0] = 1000000 + (unsigned)job->times++;
}

static CUgraphExec capture(unsigned *in, unsigned *out, unsigned *later, struct job *first, struct job *second)
{
	unsigned n = N, factor = 3;
	void *parameters[] = { &memory, &factor, &n };
	CUgraph graph;
	CUgraphExec exec;

	CHECK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
	CHECK(cuMemcpyHtoDAsync_v2(memory, in, BYTES, stream));
	CHECK(cuLaunchKernel(scale, (N + 127) / 128, 1, 1, 128, 1, 1, 0, stream, parameters, NULL));
	CHECK(cuMemcpyDtoHAsync_v2(out, memory, BYTES, stream));
	CHECK(cuLaunchHostFunc(stream, look, first));
	CHECK(cuLaunchKernel(scale, (N + 127) / 128, 1, 1, 128, 1, 1, 0, stream, parameters, NULL));
	CHECK(cuMemcpyDtoHAsync_v2(later, memory, BYTES, stream));
	CHECK(cuLaunchHostFunc(stream, look, second));
	CHECK(cuStreamEndCapture(stream, &graph));
	CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
	CHECK(cuGraphDestroy(graph));
	return exec;
}

static void run(const char *what, unsigned *in, unsigned *out, unsigned *later)
{
	struct job first = { .values = out }, second = { .values = later };
	CUgraphExec exec = capture(in, out, later, &first, &second);

	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < N; i++)
			in[i] = i * (round + 1);
		memset(out, 0, BYTES);
		memset(later, 0, BYTES);
		CHECK(cuGraphLaunch(exec, stream));
		CHECK(cuStreamSynchronize(stream));
		printf("%s: saw %llu, %llu, then %u %u, %u %u\n", what, first.seen, second.seen, out[0], out[N - 1],
		       later[0], later[N - 1]);
	}
	first.slow = second.slow = 1;
	for (int i = 0; i < 5; i++)
		CHECK(cuGraphLaunch(exec, stream));
	CHECK(cuGraphExecDestroy(exec)); /* with work under way */
	CHECK(cuStreamSynchronize(stream));
	printf("%s: %d times, saw %llu, %llu\n", what, first.times, first.seen, second.seen);
}

int main(void)
{
	static unsigned pageable[3][N];
	unsigned *pinned;
	size_t before, after, total;
	CUmodule module;

	open_device();
	CHECK(cuModuleLoadData(&module, PTX_HEADER PTX_SCALE));
	scale = get_function(module, "scale");
	CHECK(cuMemAlloc_v2(&memory, BYTES));
	CHECK(cuMemAllocHost_v2((void **)&pinned, 3 * BYTES));
	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	run("pinned", pinned, pinned + N, pinned + 2 * N);
	run("pageable", pageable[0], pageable[1], pageable[2]);
	CHECK(cuMemGetInfo_v2(&before, &total));
	for (int i = 0; i < 200; i++)
		CHECK(cuGraphExecDestroy(
			capture(pinned, pinned + N, pinned + 2 * N, &(struct job){ 0 }, &(struct job){ 0 })));
	CHECK(cuMemGetInfo_v2(&after, &total));
	printf("all back: %s\n", before == after ? "yes" : "no");
	return 0;
}
