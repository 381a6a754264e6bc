/* SPDX-License-Identifier: Apache-2.0
 *
 * Four streams with pinned memory: copies and kernels in each, events between them, a host function at the end.
 */
#include "check.cuh"

enum { STREAMS = 4, COUNT = 1 << 16, ROUNDS = 5 };

__global__ void mix(uint32_t *data, uint32_t key, int count)
{
	for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
		uint32_t x = data[i] ^ key;

		x ^= x << 13;
		x ^= x >> 17;
		data[i] = x ^ x << 5;
	}
}

__global__ void fold(uint32_t *into, const uint32_t *from, int count)
{
	int i = blockIdx.x * blockDim.x + threadIdx.x;

	if (i < count)
		into[i] += from[i];
}

static void done(void *flag)
{
	*(int *)flag = 1;
}

int main()
{
	static uint32_t *host[STREAMS], *device[STREAMS], *total;
	cudaStream_t streams[STREAMS];
	cudaEvent_t start, ready[STREAMS], end;
	float elapsed = -1;
	int finished = 0;

	CHECK(cudaEventCreate(&start));
	CHECK(cudaEventCreate(&end));
	for (int s = 0; s < STREAMS; s++) {
		CHECK(cudaStreamCreateWithFlags(&streams[s], cudaStreamNonBlocking));
		CHECK(cudaEventCreateWithFlags(&ready[s], cudaEventDisableTiming));
		CHECK(cudaMallocHost(&host[s], COUNT * sizeof(uint32_t)));
		CHECK(cudaMalloc(&device[s], COUNT * sizeof(uint32_t)));
		for (int i = 0; i < COUNT; i++)
			host[s][i] = s * 1000003 + i;
	}
	CHECK(cudaMallocHost(&total, COUNT * sizeof(uint32_t)));
	CHECK(cudaEventRecord(start, streams[0]));
	for (int s = 0; s < STREAMS; s++) {
		CHECK(cudaMemcpyAsync(device[s], host[s], COUNT * sizeof(uint32_t), cudaMemcpyHostToDevice,
				      streams[s]));
		for (int round = 0; round < ROUNDS; round++)
			mix<<<16, 128, 0, streams[s]>>>(device[s], round * 77 + s, COUNT);
		CHECK(cudaMemcpyAsync(host[s], device[s], COUNT * sizeof(uint32_t), cudaMemcpyDeviceToHost,
				      streams[s]));
		CHECK(cudaEventRecord(ready[s], streams[s]));
	}
	for (int s = 1; s < STREAMS; s++) {
		CHECK(cudaStreamWaitEvent(streams[0], ready[s], 0));
		fold<<<COUNT / 256, 256, 0, streams[0]>>>(device[0], device[s], COUNT);
	}
	CHECK(cudaMemcpyAsync(total, device[0], COUNT * sizeof(uint32_t), cudaMemcpyDeviceToHost, streams[0]));
	CHECK(cudaEventRecord(end, streams[0]));
	CHECK(cudaLaunchHostFunc(streams[0], done, &finished));
	CHECK(cudaStreamSynchronize(streams[0]));
	CHECK(cudaEventElapsedTime(&elapsed, start, end));
	for (int s = 0; s < STREAMS; s++) {
		CHECK(cudaEventSynchronize(ready[s]));
		printf("stream %d: %016llx\n", s, (unsigned long long)checksum(host[s], COUNT * sizeof(uint32_t)));
	}
	printf("total: %016llx\n", (unsigned long long)checksum(total, COUNT * sizeof(uint32_t)));
	printf("host function ran: %d, time measured: %d, all idle: %d\n", finished, elapsed >= 0,
	       cudaStreamQuery(streams[1]) == cudaSuccess);
	for (int s = 0; s < STREAMS; s++) {
		CHECK(cudaStreamDestroy(streams[s]));
		CHECK(cudaFreeHost(host[s]));
		CHECK(cudaFree(device[s]));
	}
	return 0;
}
