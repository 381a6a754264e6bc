/* SPDX-License-Identifier: Apache-2.0
 *
 * Sums by warp shuffle, by shared memory with barriers, by atomics, and over the whole grid with one cooperative launch.
 */
#include "check.cuh"

#include <cooperative_groups.h>
#include <vector>

namespace cg = cooperative_groups;

enum { COUNT = 300000, BLOCK = 256, BLOCKS = 8 };

__global__ void by_shuffle(const int *in, int count, unsigned long long *sum)
{
	long long own = 0;

	for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
		own += in[i];
	for (int offset = 16; offset; offset /= 2)
		own += __shfl_down_sync(0xffffffffu, own, offset);
	if (threadIdx.x % 32 == 0)
		atomicAdd(sum, (unsigned long long)own);
}

__global__ void by_shared(const int *in, int count, unsigned long long *sum)
{
	__shared__ long long part[BLOCK];
	long long own = 0;

	for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
		own += in[i];
	part[threadIdx.x] = own;
	__syncthreads();
	for (int half = BLOCK / 2; half; half /= 2) {
		if (threadIdx.x < half)
			part[threadIdx.x] += part[threadIdx.x + half];
		__syncthreads();
	}
	if (!threadIdx.x)
		atomicAdd(sum, (unsigned long long)part[0]);
}

__global__ void by_votes(const int *in, int count, unsigned int *odd, unsigned int *groups)
{
	int i = blockIdx.x * blockDim.x + threadIdx.x;
	bool mine = i < count && (in[i] & 1);
	unsigned votes = __ballot_sync(0xffffffffu, mine);

	if (threadIdx.x % 32 == 0)
		atomicAdd(odd, __popc(votes));
	if (mine) {
		cg::coalesced_group active = cg::coalesced_threads();

		if (active.thread_rank() == 0)
			atomicAdd(groups, 1);
	}
}

__global__ void over_grid(const int *in, int count, long long *partial, long long *sum)
{
	cg::grid_group grid = cg::this_grid();
	cg::thread_block block = cg::this_thread_block();
	__shared__ long long part[BLOCK];

	part[threadIdx.x] = 0;
	for (int i = grid.thread_rank(); i < count; i += grid.size())
		part[threadIdx.x] += in[i];
	block.sync();
	if (!threadIdx.x) {
		long long own = 0;

		for (int i = 0; i < BLOCK; i++)
			own += part[i];
		partial[blockIdx.x] = own;
	}
	grid.sync();
	if (grid.thread_rank() == 0) {
		*sum = 0;
		for (unsigned i = 0; i < gridDim.x; i++)
			*sum += partial[i];
	}
}

int main()
{
	std::vector<int> host(COUNT);
	long long expected = 0, cooperative;
	unsigned long long sums[2];
	unsigned counts[2], odd = 0;
	int *in, count = COUNT;
	unsigned long long *sum;
	long long *partial, *total;
	unsigned *votes;

	for (int i = 0; i < COUNT; i++) {
		host[i] = (int)((unsigned)i * 2654435761u) >> 8;
		expected += host[i];
		odd += host[i] & 1;
	}
	CHECK(cudaMalloc(&in, COUNT * sizeof(int)));
	CHECK(cudaMalloc(&sum, sizeof sums));
	CHECK(cudaMalloc(&votes, sizeof counts));
	CHECK(cudaMalloc(&partial, BLOCKS * sizeof(long long)));
	CHECK(cudaMalloc(&total, sizeof(long long)));
	CHECK(cudaMemcpy(in, host.data(), COUNT * sizeof(int), cudaMemcpyHostToDevice));
	CHECK(cudaMemset(sum, 0, sizeof sums));
	CHECK(cudaMemset(votes, 0, sizeof counts));
	by_shuffle<<<BLOCKS, BLOCK>>>(in, COUNT, sum);
	by_shared<<<BLOCKS, BLOCK>>>(in, COUNT, sum + 1);
	by_votes<<<(COUNT + BLOCK - 1) / BLOCK, BLOCK>>>(in, COUNT, votes, votes + 1);
	CHECK(cudaMemcpy(sums, sum, sizeof sums, cudaMemcpyDeviceToHost));
	CHECK(cudaMemcpy(counts, votes, sizeof counts, cudaMemcpyDeviceToHost));
	void *arguments[] = { &in, &count, &partial, &total };
	CHECK(cudaLaunchCooperativeKernel((void *)over_grid, BLOCKS, BLOCK, arguments, 0, 0));
	CHECK(cudaMemcpy(&cooperative, total, sizeof cooperative, cudaMemcpyDeviceToHost));
	printf("expected %lld, shuffle %lld, shared %lld, cooperative %lld\n", expected, (long long)sums[0],
	       (long long)sums[1], cooperative);
	printf("odd %u of %u, warps with odd %u\n", counts[0], odd, counts[1]);
	return expected != (long long)sums[0] || expected != (long long)sums[1] || expected != cooperative ||
	       odd != counts[0];
}
