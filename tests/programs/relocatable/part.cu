// SPDX-License-Identifier: Apache-2.0
// The other part of main.cu. Its helper has the name of one there.
__device__ int counter = 100;
__constant__ int table[4] = { 1000, 2000, 3000, 4000 };

static __device__ int helper(int x)
{
	return x * x;
}

__device__ __noinline__ int scale(int x)
{
	return helper(x);
}
