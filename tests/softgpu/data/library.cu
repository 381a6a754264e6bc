// SPDX-License-Identifier: Apache-2.0
// Compiled with -rdc=true to library.ptx: what linkable.cu lacks.
__device__ int shared_state = 100;
static __device__ int table[2] = { 1, 2 };

template <typename T> __device__ __noinline__ T weak_twice(T value) { return value * 2; }

__device__ int helper(int value, const int *other)
{
	return weak_twice(value) + other[1] + table[value & 1];
}
