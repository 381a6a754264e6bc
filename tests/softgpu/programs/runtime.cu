/* SPDX-License-Identifier: Apache-2.0
 *
 * What the CUDA runtime makes of the less usual: managed variables, allocation in stream order, cooperative
 * launches, captured graphs, threads' own default streams, device reset.
 */
#include <cooperative_groups.h>
#include <cstdio>
#include <cstdlib>
#include <thread>

#define CHECK(call)                                                                             \
	do {                                                                                    \
		cudaError_t result_ = (call);                                                   \
		if (result_ != cudaSuccess) {                                                   \
			printf("line %d: %s: %s\n", __LINE__, #call, cudaGetErrorName(result_)); \
			exit(1);                                                                \
		}                                                                               \
	} while (0)

enum { COUNT = 1 << 14 };

__managed__ int managed_value = 40;
__constant__ float weights[4];
__device__ int device_value = 3;

__global__ void add(int *x, int by)
{
	int i = blockIdx.x * blockDim.x + threadIdx.x;
	if (i < COUNT)
		x[i] += by;
}

__global__ void touch_managed(int by)
{
	managed_value += by + device_value;
}

__global__ void weigh(float *out)
{
	extern __shared__ float room[];
	room[threadIdx.x] = weights[threadIdx.x % 4] * threadIdx.x;
	__syncthreads();
	if (threadIdx.x == 0) {
		float sum = 0;
		for (int i = 0; i < blockDim.x; i++)
			sum += room[i];
		*out = sum;
	}
}

__global__ void neighbours(int *from, int *to, int rounds)
{
	cooperative_groups::grid_group grid = cooperative_groups::this_grid();
	int i = grid.thread_rank(), n = grid.size();
	for (int round = 0; round < rounds; round++) {
		to[i] = from[(i + 1) % n] + 1;
		grid.sync();
		from[i] = to[i];
		grid.sync();
	}
}

static int wrong(const int *x, int expected)
{
	int count = 0;
	for (int i = 0; i < COUNT; i++)
		count += x[i] != expected;
	return count;
}

static void managed()
{
	managed_value += 1;
	touch_managed<<<1, 1>>>(100);
	CHECK(cudaDeviceSynchronize());
	printf("managed variable: %d\n", managed_value);
	int *x;
	CHECK(cudaMallocManaged(&x, COUNT * sizeof *x));
	for (int i = 0; i < COUNT; i++)
		x[i] = 1;
	add<<<COUNT / 256, 256>>>(x, 6);
	CHECK(cudaDeviceSynchronize());
	printf("managed memory: %d wrong\n", wrong(x, 7));
	CHECK(cudaFree(x));
}

static void stream_order()
{
	static int host[COUNT];
	cudaStream_t stream;
	int *x;
	CHECK(cudaStreamCreate(&stream));
	CHECK(cudaMallocAsync(&x, sizeof host, stream));
	CHECK(cudaMemsetAsync(x, 0, sizeof host, stream));
	add<<<COUNT / 128, 128, 0, stream>>>(x, 9);
	CHECK(cudaMemcpyAsync(host, x, sizeof host, cudaMemcpyDeviceToHost, stream));
	CHECK(cudaFreeAsync(x, stream));
	CHECK(cudaStreamSynchronize(stream));
	printf("memory in stream order: %d wrong\n", wrong(host, 9));
	CHECK(cudaStreamDestroy(stream));
}

static void constants()
{
	float given[4] = { 1, 0.5f, 0.25f, 2 }, result, *out;
	CHECK(cudaMemcpyToSymbol(weights, given, sizeof given));
	CHECK(cudaMalloc(&out, sizeof *out));
	CHECK(cudaFuncSetAttribute(weigh, cudaFuncAttributeMaxDynamicSharedMemorySize, 65536));
	weigh<<<1, 256, 60000>>>(out);
	CHECK(cudaGetLastError());
	CHECK(cudaMemcpy(&result, out, sizeof result, cudaMemcpyDeviceToHost));
	printf("weighed with much shared memory: %g\n", result);
	weigh<<<1, 32, 70000>>>(out);
	printf("with too much: %s\n", cudaGetErrorName(cudaGetLastError()));
	CHECK(cudaFree(out));
}

static void cooperative()
{
	int *from, *to, rounds = 10, blocks = 8, threads = 64, host[512], bad = 0;
	CHECK(cudaMalloc(&from, sizeof host));
	CHECK(cudaMalloc(&to, sizeof host));
	for (int i = 0; i < 512; i++)
		host[i] = i;
	CHECK(cudaMemcpy(from, host, sizeof host, cudaMemcpyHostToDevice));
	void *arguments[] = { &from, &to, &rounds };
	CHECK(cudaLaunchCooperativeKernel((void *)neighbours, blocks, threads, arguments, 0, 0));
	CHECK(cudaMemcpy(host, from, sizeof host, cudaMemcpyDeviceToHost));
	for (int i = 0; i < 512; i++)
		bad += host[i] != (i + rounds) % 512 + rounds;
	printf("cooperative: %d wrong\n", bad);
	printf("a million blocks: %s\n",
	       cudaGetErrorName(cudaLaunchCooperativeKernel((void *)neighbours, 1000000, threads, arguments, 0, 0)));
	cudaGetLastError();
	CHECK(cudaFree(from));
	CHECK(cudaFree(to));
}

static void captured()
{
	static int host[COUNT];
	cudaStream_t stream;
	cudaGraph_t graph;
	cudaGraphExec_t exec;
	int *x;
	CHECK(cudaMalloc(&x, sizeof host));
	CHECK(cudaMemset(x, 0, sizeof host));
	CHECK(cudaStreamSynchronize(0)); /* a thread's own default stream and this one are not ordered */
	CHECK(cudaStreamCreate(&stream));
	CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
	for (int i = 0; i < 5; i++)
		add<<<COUNT / 256, 256, 0, stream>>>(x, i);
	CHECK(cudaStreamEndCapture(stream, &graph));
	CHECK(cudaGraphInstantiate(&exec, graph, 0));
	for (int i = 0; i < 4; i++)
		CHECK(cudaGraphLaunch(exec, stream));
	CHECK(cudaMemcpyAsync(host, x, sizeof host, cudaMemcpyDeviceToHost, stream));
	CHECK(cudaStreamSynchronize(stream));
	printf("graph launched four times: %d wrong\n", wrong(host, 40));
	CHECK(cudaGraphExecDestroy(exec));
	CHECK(cudaGraphDestroy(graph));
	CHECK(cudaStreamDestroy(stream));
	CHECK(cudaFree(x));
}

static void own_streams()
{
	int results[4];
	std::thread threads[4];
	for (int t = 0; t < 4; t++)
		threads[t] = std::thread([&results, t] {
			static thread_local int host[COUNT];
			int *x;
			CHECK(cudaMalloc(&x, sizeof host));
			CHECK(cudaMemsetAsync(x, 0, sizeof host, cudaStreamPerThread));
			for (int i = 0; i <= t; i++)
				add<<<COUNT / 256, 256, 0, cudaStreamPerThread>>>(x, 10);
			CHECK(cudaMemcpyAsync(host, x, sizeof host, cudaMemcpyDeviceToHost, cudaStreamPerThread));
			CHECK(cudaStreamSynchronize(cudaStreamPerThread));
			results[t] = wrong(host, 10 * (t + 1));
			CHECK(cudaFree(x));
		});
	for (int t = 0; t < 4; t++) {
		threads[t].join();
		printf("thread %d with its own stream: %d wrong\n", t, results[t]);
	}
}

static void reset()
{
	int *x, value = 0;
	CHECK(cudaMalloc(&x, 4));
	CHECK(cudaDeviceReset());
	printf("memory from before the reset: %s\n", cudaGetErrorName(cudaMemset(x, 0, 4)));
	CHECK(cudaMalloc(&x, COUNT * 4));
	CHECK(cudaMemset(x, 0, COUNT * 4));
	add<<<COUNT / 256, 256>>>(x, 5);
	CHECK(cudaMemcpy(&value, x + COUNT - 1, 4, cudaMemcpyDeviceToHost));
	printf("after it: %d\n", value);
}

int main()
{
	managed();
	stream_order();
	constants();
	cooperative();
	captured();
	own_streams();
	reset();
	return 0;
}
