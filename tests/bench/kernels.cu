// SPDX-License-Identifier: Apache-2.0
// What `make bench-softgpu` runs: one small kernel, one product of matrices by tiles of shared memory.

extern "C" __global__ void add(const float *a, const float *b, float *c, int n)
{
	const int i = blockIdx.x * blockDim.x + threadIdx.x;

	if (i < n)
		c[i] = a[i] + b[i];
}

#define TILE 32

// n is a multiple of TILE.
extern "C" __global__ void product(const float *a, const float *b, float *c, int n)
{
	__shared__ float left[TILE][TILE], right[TILE][TILE];
	const int row = blockIdx.y * TILE + threadIdx.y, column = blockIdx.x * TILE + threadIdx.x;
	float sum = 0;

	for (int at = 0; at < n; at += TILE) {
		left[threadIdx.y][threadIdx.x] = a[row * n + at + threadIdx.x];
		right[threadIdx.y][threadIdx.x] = b[(at + threadIdx.y) * n + column];
		__syncthreads();
#pragma unroll
		for (int k = 0; k < TILE; k++)
			sum += left[threadIdx.y][k] * right[k][threadIdx.x];
		__syncthreads();
	}
	c[row * n + column] = sum;
}
