// SPDX-License-Identifier: Apache-2.0
// Compiled with -rdc=true to linkable.ptx: symbols of another module, weak and common ones.
extern __device__ int shared_state;
extern __device__ int helper(int value, const int *table);
__device__ int own_state = 5;
static __device__ int table[3] = { 10, 20, 30 };

template <typename T> __device__ __noinline__ T weak_twice(T value) { return value * 2; }

__global__ void entry(int *out)
{
	out[0] = helper(weak_twice(own_state), table) + shared_state;
}
