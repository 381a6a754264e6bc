// SPDX-License-Identifier: Apache-2.0
// Relocatable device code: what this file uses is in part.cu.
#include <cstdio>

extern __device__ int scale(int x);
extern __device__ int counter;
extern __constant__ int table[4];

static __device__ int helper(int x)
{
	return x + 1;
}

extern "C" __global__ void kernel(int *out)
{
	out[threadIdx.x] = helper(scale(threadIdx.x)) + table[threadIdx.x & 3];
	atomicAdd(&counter, 1);
}

#ifndef ONLY_DEVICE
int main()
{
	int *device, values[8], count = 0;

	cudaMalloc(&device, sizeof values);
	kernel<<<1, 8>>>(device);
	cudaMemcpy(values, device, sizeof values, cudaMemcpyDeviceToHost);
	cudaMemcpyFromSymbol(&count, counter, sizeof count);
	printf("%s:", cudaGetErrorString(cudaGetLastError()));
	for (int value : values)
		printf(" %d", value);
	printf(", counted %d\n", count);
	return 0;
}
#endif
