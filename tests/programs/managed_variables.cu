/* SPDX-License-Identifier: Apache-2.0
 *
 * Variables that the host and kernels both use by name: first values, and changes in both directions.
 */
#include "check.cuh"

enum { COUNT = 5000 };

struct pair {
	int first;
	double second;
};

__managed__ int counter = 42;
__managed__ int zero;
__managed__ double halves[4] = { 0.5, 1.5, 2.5, 3.5 };
__managed__ pair both = { 7, 0.25 };
__managed__ int many[COUNT];
__managed__ int *pointer;
__device__ int plain = 11; /* beside them, of the device's alone */

__global__ void add(int amount)
{
	counter += amount;
	zero -= amount;
	both.first++;
	both.second *= 2;
	for (int i = 0; i < 4; i++)
		halves[i] += plain;
}

__global__ void fill()
{
	int i = blockIdx.x * blockDim.x + threadIdx.x;

	if (i < COUNT)
		many[i] = many[i] * 2 + i;
}

__global__ void follow(int *sum)
{
	for (int i = 0; i < COUNT - 1; i++)
		*sum += pointer[i];
}

static void show(const char *when)
{
	printf("%s: %d %d, %d %g, %g %g %g %g\n", when, counter, zero, both.first, both.second, halves[0], halves[1],
	       halves[2], halves[3]);
}

static void variables()
{
	show("at first");
	add<<<1, 1>>>(5);
	CHECK(cudaGetLastError());
	CHECK(cudaDeviceSynchronize());
	show("after a kernel");
	counter = 1000;
	both.second = 3;
	halves[2] = -1;
	add<<<1, 1>>>(1);
	add<<<1, 1>>>(1);
	CHECK(cudaGetLastError());
	CHECK(cudaDeviceSynchronize());
	show("after the host and two kernels");
}

static void arrays()
{
	for (int i = 0; i < COUNT; i++)
		many[i] = i % 17;
	fill<<<(COUNT + 127) / 128, 128>>>();
	CHECK(cudaGetLastError());
	CHECK(cudaDeviceSynchronize());
	printf("array: %d %d %016llx\n", many[1], many[COUNT - 1], (unsigned long long)checksum(many, sizeof many));
	counter = 0;
	pointer = many + 1;
	follow<<<1, 1>>>(&counter);
	CHECK(cudaGetLastError());
	CHECK(cudaDeviceSynchronize());
	printf("through a pointer: %d\n", counter);
}

/* The runtime's calls take them as what they are: memory. */
static void copies()
{
	cudaPointerAttributes attributes;
	int value = 77, got = 0;
	void *address;
	size_t size;

	CHECK(cudaMemcpyToSymbol(counter, &value, sizeof value));
	CHECK(cudaDeviceSynchronize());
	printf("copied to: %d\n", counter);
	counter = 78;
	CHECK(cudaMemcpyFromSymbol(&got, counter, sizeof got));
	printf("copied from: %d\n", got);
	CHECK(cudaGetSymbolAddress(&address, many));
	CHECK(cudaGetSymbolSize(&size, many));
	printf("symbol: %s, %zu bytes\n", address == many ? "same address" : "another address", size);
	CHECK(cudaMemset(many, 0, sizeof many));
	CHECK(cudaDeviceSynchronize());
	printf("cleared: %d\n", many[COUNT / 2]);
	CHECK(cudaPointerGetAttributes(&attributes, &counter));
	printf("kind: %s\n", attributes.type == cudaMemoryTypeManaged ? "managed" : "another");
}

int main()
{
	variables();
	arrays();
	copies();
	return 0;
}
