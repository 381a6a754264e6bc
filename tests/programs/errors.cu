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

static void show(const char *what, cudaError_t status)
{
	printf("%s: %s\n", what, cudaGetErrorName(status));
}

int main()
{
	int *memory;
	void *huge;
	size_t available, total;

	CHECK(cudaMalloc(&memory, sizeof(int)));
	write_to<<<1, 2048>>>(memory);
	show("2048 threads in a block", cudaGetLastError());
	show("asked again", cudaGetLastError());
	write_to<<<0, 1>>>(memory);
	show("an empty grid", cudaGetLastError());
	write_to<<<1, 1, 1 << 24>>>(memory);
	show("16 MiB of shared memory", cudaGetLastError());
	CHECK(cudaMemGetInfo(&available, &total));
	show("twice the memory", cudaMalloc(&huge, 2 * total));
	cudaGetLastError();
	show("a bad device", cudaSetDevice(1000));
	cudaGetLastError();
	write_to<<<1, 1>>>(memory);
	show("still well", cudaDeviceSynchronize());
	write_to<<<1, 1>>>((int *)0x10);
	show("a write to nowhere", cudaDeviceSynchronize());
	show("the next allocation", cudaMalloc(&huge, 16));
	show("the next wait", cudaDeviceSynchronize());
	return 0;
}
