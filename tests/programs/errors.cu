/* SPDX-License-Identifier: Apache-2.0
 *
 * What goes wrong must go wrong the same way everywhere: bad launches, too much memory, and last an access to
 * nowhere, after which nothing works any more in this process.
 */
#include "check.cuh"

__global__ void write_to(int *where)
{
	*where = 1;
}

static int wrong;

static void expect(const char *what, cudaError_t status, cudaError_t expected)
{
	printf("%s: %s\n", what, cudaGetErrorName(status));
	wrong |= status != expected;
}

int main()
{
	const dim3 one(1), many(2048);
	cudaLaunchConfig_t config = {};
	int *memory;
	void *huge, *arguments[] = { &memory };
	size_t available, total;

	CHECK(cudaMalloc(&memory, sizeof(int)));
	write_to<<<one, many>>>(memory);
	expect("2048 threads in a block", cudaGetLastError(), cudaErrorInvalidConfiguration);
	expect("asked again", cudaGetLastError(), cudaSuccess);
	write_to<<<0, 1>>>(memory);
	expect("an empty grid", cudaGetLastError(), cudaErrorInvalidConfiguration);
	write_to<<<dim3(1, 70000), 1>>>(memory);
	expect("a grid too high", cudaGetLastError(), cudaErrorInvalidConfiguration);
	expect("a cooperative one", cudaLaunchCooperativeKernel((void *)write_to, one, many, arguments, 0, 0),
	       cudaErrorInvalidConfiguration);
	config.gridDim = one;
	config.blockDim = many;
	expect("one by its configuration", cudaLaunchKernelExC(&config, (void *)write_to, arguments),
	       cudaErrorInvalidConfiguration);
	cudaGetLastError();
	write_to<<<1, 1, 1 << 24>>>(memory);
	expect("16 MiB of shared memory", cudaGetLastError(), cudaErrorInvalidValue);
	CHECK(cudaMemGetInfo(&available, &total));
	expect("twice the memory", cudaMalloc(&huge, 2 * total), cudaErrorMemoryAllocation);
	cudaGetLastError();
	expect("a bad device", cudaSetDevice(1000), cudaErrorInvalidDevice);
	cudaGetLastError();
	write_to<<<1, 1>>>(memory);
	expect("still well", cudaDeviceSynchronize(), cudaSuccess);
	write_to<<<1, 1>>>((int *)0x10);
	expect("a write to nowhere", cudaDeviceSynchronize(), cudaErrorIllegalAddress);
	expect("the next allocation", cudaMalloc(&huge, 16), cudaErrorIllegalAddress);
	expect("the next wait", cudaDeviceSynchronize(), cudaErrorIllegalAddress);
	return wrong;
}
