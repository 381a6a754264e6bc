/* SPDX-License-Identifier: Apache-2.0
 *
 * Addresses and memory apart: reserved, created, mapped, twice if wanted, and taken apart again.
 */
#include "program.h"

enum { COUNT = 1024 };

int main(void)
{
	CUmemAllocationProp properties = { .type = CU_MEM_ALLOCATION_TYPE_PINNED,
					   .location = { .type = CU_MEM_LOCATION_TYPE_DEVICE } };
	CUmemAccessDesc access = { .location = properties.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE };
	CUmemGenericAllocationHandle memory, again;
	CUdeviceptr base;
	CUmodule module;
	size_t grain, before, during, after, total;
	unsigned n = COUNT, factor = 1, host[2];
	unsigned long long flags;

	open_device();
	CHECK(cuModuleLoadData(&module, PTX_HEADER PTX_SCALE));
	CUfunction scale = get_function(module, "scale");
	void *parameters[] = { &base, &factor, &n };
	CHECK(cuMemGetAllocationGranularity(&grain, &properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
	CHECK(cuMemGetInfo_v2(&before, &total));
	CHECK(cuMemAddressReserve(&base, 4 * grain, 0, 0, 0));
	CHECK(cuMemCreate(&memory, grain, &properties, 0));
	CHECK(cuMemGetInfo_v2(&during, &total));
	printf("it counts: %s\n", before - during == grain ? "yes" : "no");
	CHECK(cuMemMap(base, grain, 0, memory, 0));
	SHOW(cuMemMap(base, grain, 0, memory, 0));
	CHECK(cuMemMap(base + grain, grain, 0, memory, 0));
	CHECK(cuMemSetAccess(base, 2 * grain, &access, 1));
	CHECK(cuMemGetAccess(&flags, &access.location, base + 5));
	printf("access: %llu\n", flags);
	CHECK(cuMemsetD32_v2(base, 100, COUNT));
	CHECK(cuLaunchKernel(scale, COUNT / 64, 1, 1, 64, 1, 1, 0, NULL, parameters, NULL));
	CHECK(cuMemcpyDtoH_v2(host, base + grain + 40, 8));
	printf("seen through the other mapping: %u %u\n", host[0], host[1]);
	CHECK(cuMemRetainAllocationHandle(&again, (void *)(size_t)base));
	printf("the same memory: %s\n", again == memory ? "yes" : "no");
	CHECK(cuMemRelease(again));
	CHECK(cuMemRelease(memory));
	SHOW(cuMemAddressFree(base, 4 * grain));
	SHOW(cuMemcpyDtoH_v2(host, base + 2 * grain, 8));
	CHECK(cuMemUnmap(base, 2 * grain));
	SHOW(cuMemcpyDtoH_v2(host, base, 8));
	CHECK(cuMemAddressFree(base, 4 * grain));
	CHECK(cuMemGetInfo_v2(&after, &total));
	printf("all back: %s\n", before == after ? "yes" : "no");
	SHOW(cuMemCreate(&memory, total + grain, &properties, 0));
	SHOW(cuMemCreate(&memory, grain + 1, &properties, 0));
	CHECK(cuDevicePrimaryCtxRelease_v2(0));
	return 0;
}
