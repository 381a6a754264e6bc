/* SPDX-License-Identifier: Apache-2.0
 *
 * Six host threads at once, each with its own stream, memory and work of its own length.
 */
#include "check.cuh"

#include <thread>
#include <vector>

enum { THREADS = 6, COUNT = 20000, ROUNDS = 40 };

__global__ void step(uint64_t *data, uint64_t add, int count)
{
	int i = blockIdx.x * blockDim.x + threadIdx.x;

	if (i < count)
		data[i] = data[i] * 6364136223846793005ull + add;
}

static void work(int number, uint64_t *result)
{
	std::vector<uint64_t> host(COUNT);
	cudaStream_t stream;
	uint64_t *device;

	CHECK(cudaSetDevice(0));
	CHECK(cudaStreamCreate(&stream));
	CHECK(cudaMalloc(&device, COUNT * sizeof(uint64_t)));
	CHECK(cudaMemsetAsync(device, number, COUNT * sizeof(uint64_t), stream));
	for (int round = 0; round < ROUNDS + number; round++) {
		step<<<(COUNT + 127) / 128, 128, 0, stream>>>(device, 2 * round + number, COUNT);
		if (round % 7 == 0)
			CHECK(cudaStreamSynchronize(stream));
	}
	CHECK(cudaMemcpyAsync(host.data(), device, COUNT * sizeof(uint64_t), cudaMemcpyDeviceToHost, stream));
	CHECK(cudaStreamSynchronize(stream));
	*result = checksum(host.data(), COUNT * sizeof(uint64_t));
	CHECK(cudaFree(device));
	CHECK(cudaStreamDestroy(stream));
}

int main()
{
	std::vector<std::thread> threads;
	uint64_t results[THREADS];

	for (int i = 0; i < THREADS; i++)
		threads.emplace_back(work, i, &results[i]);
	for (auto &thread : threads)
		thread.join();
	for (int i = 0; i < THREADS; i++)
		printf("thread %d: %016llx\n", i, (unsigned long long)results[i]);
	return 0;
}
