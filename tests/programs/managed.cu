/* SPDX-License-Identifier: Apache-2.0
 *
 * The runtime's ways to memory that both sides use: managed, mapped, and pinned memory that a kernel is simply given.
 */
#include "check.cuh"

enum { COUNT = 10000 };

struct item {
	float weight;
	item *next;
};

__global__ void square(int *data, int count)
{
	int i = blockIdx.x * blockDim.x + threadIdx.x;

	if (i < count)
		data[i] *= data[i];
}

__global__ void walk(item *first, float *total)
{
	for (item *it = first; it; it = it->next) {
		*total += it->weight;
		it->weight = 0;
	}
}

static void run(const char *kind, int *host, int *device)
{
	for (int i = 0; i < COUNT; i++)
		host[i] = i % 1000;
	square<<<(COUNT + 255) / 256, 256>>>(device, COUNT);
	CHECK(cudaGetLastError());
	CHECK(cudaDeviceSynchronize());
	printf("%s: %d %d %016llx\n", kind, host[7], host[999], (unsigned long long)checksum(host, COUNT * 4));
}

static void list()
{
	item *items;
	float *total;
	float left = 0;

	CHECK(cudaMallocManaged(&items, 50 * sizeof *items));
	CHECK(cudaMallocManaged(&total, sizeof *total));
	for (int i = 0; i < 50; i++)
		items[i] = { i * 0.5f, i < 49 ? items + i + 1 : nullptr };
	*total = 0;
	walk<<<1, 1>>>(items, total);
	CHECK(cudaGetLastError());
	CHECK(cudaDeviceSynchronize());
	for (int i = 0; i < 50; i++)
		left += items[i].weight;
	printf("list: %g, left %g\n", *total, left);
	CHECK(cudaFree(items));
	CHECK(cudaFree(total));
}

int main()
{
	cudaPointerAttributes attributes;
	int *host, *device;

	CHECK(cudaMallocManaged(&host, COUNT * sizeof *host));
	CHECK(cudaPointerGetAttributes(&attributes, host));
	printf("managed: %s\n", attributes.type == cudaMemoryTypeManaged ? "yes" : "no");
	run("managed", host, host);
	CHECK(cudaMemset(host, 1, 8));
	printf("filled: %d\n", host[1]);
	CHECK(cudaFree(host));
	CHECK(cudaHostAlloc(&host, COUNT * sizeof *host, cudaHostAllocMapped));
	CHECK(cudaHostGetDevicePointer(&device, host, 0));
	run("mapped", host, device);
	CHECK(cudaFreeHost(host));
	CHECK(cudaMallocHost(&host, COUNT * sizeof *host));
	run("pinned", host, host);
	CHECK(cudaFreeHost(host));
	host = (int *)malloc(COUNT * sizeof *host);
	CHECK(cudaHostRegister(host, COUNT * sizeof *host, cudaHostRegisterMapped));
	CHECK(cudaHostGetDevicePointer(&device, host, 0));
	run("registered", host, device);
	CHECK(cudaHostUnregister(host));
	free(host);
	list();
	return 0;
}
