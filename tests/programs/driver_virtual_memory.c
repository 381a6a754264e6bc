/* SPDX-License-Identifier: Apache-2.0
 *
 * Addresses and memory apart: reserved, created, mapped, twice if wanted, and taken apart again.
 */
#include "program.h"

enum { COUNT = 1024 };

/* To a copy, mappings that follow each other are one memory. */
static void copy_across(CUdeviceptr base, size_t grain)
{
	static const unsigned written[4] = { 11, 22, 33, 44 };
	unsigned read[4] = { 0 };

	CHECK(cuMemcpy(base + grain - 8, (CUdeviceptr)(size_t)written, sizeof written));
	CHECK(cuMemcpy((CUdeviceptr)(size_t)read, base + grain - 8, sizeof read));
	printf("across the seam: %u %u %u %u\n", read[0], read[1], read[2], read[3]);
	SHOW(cuMemcpy((CUdeviceptr)(size_t)read, base + 2 * grain - 8, sizeof read));
	SHOW(cuMemcpyHtoD_v2(base + 2 * grain - 8, read, sizeof read));
}

static void ask_about(CUdeviceptr base, size_t grain)
{
	CUpointer_attribute attributes[] = { CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL,
					     CU_POINTER_ATTRIBUTE_MAPPED, CU_POINTER_ATTRIBUTE_IS_MANAGED };
	int values[4] = { -1, -1, -1, -1 };
	void *places[] = { &values[0], &values[1], &values[2], &values[3] };
	CUcontext context = (CUcontext)1;
	CUdeviceptr start;

	CHECK(cuPointerGetAttributes(LENGTH(attributes), attributes, places, base + 5));
	printf("memory type %d, device %d, mapped %d, managed %d\n", values[0], values[1], values[2], values[3]);
	CHECK(cuPointerGetAttribute(&context, CU_POINTER_ATTRIBUTE_CONTEXT, base));
	printf("a context's: %s\n", context ? "yes" : "no");
	CHECK(cuPointerGetAttribute(&start, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, base + grain + 5));
	printf("starts where it is mapped: %s\n", start == base + grain ? "yes" : "no");
	SHOW(cuPointerGetAttribute(&start, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, base + 2 * grain));
}

/* The handle is gone, the memory is there, and so is a way to a handle. */
static void retain_what_was_released(CUdeviceptr base)
{
	CUmemGenericAllocationHandle handle, twice;
	CUmemAllocationProp properties;

	CHECK(cuMemRetainAllocationHandle(&handle, (void *)(size_t)base));
	CHECK(cuMemRetainAllocationHandle(&twice, (void *)(size_t)base));
	CHECK(cuMemGetAllocationPropertiesFromHandle(&properties, handle));
	printf("of device %d\n", properties.location.id);
	CHECK(cuMemRelease(handle));
	CHECK(cuMemRelease(twice));
	SHOW(cuMemRelease(handle));
	SHOW(cuMemMap(base, 1 << 21, 0, handle, 0));
}

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
	int supported;

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
	copy_across(base, grain);
	ask_about(base, grain);
	CHECK(cuMemRetainAllocationHandle(&again, (void *)(size_t)base));
	printf("the same memory: %s\n", again == memory ? "yes" : "no");
	CHECK(cuMemRelease(again));
	CHECK(cuMemRelease(memory));
	retain_what_was_released(base);
	CHECK(cuMemGetInfo_v2(&during, &total));
	printf("mapped, it still counts: %s\n", before - during == grain ? "yes" : "no");
	SHOW(cuMemAddressFree(base, 4 * grain));
	SHOW(cuMemcpyDtoH_v2(host, base + 2 * grain, 8));
	CHECK(cuMemUnmap(base, 2 * grain));
	SHOW(cuMemcpyDtoH_v2(host, base, 8));
	CHECK(cuMemAddressFree(base, 4 * grain));
	CHECK(cuMemGetInfo_v2(&after, &total));
	printf("all back: %s\n", before == after ? "yes" : "no");
	SHOW(cuMemCreate(&memory, total + grain, &properties, 0));
	SHOW(cuMemCreate(&memory, grain + 1, &properties, 0));
	properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
	SHOW(cuMemCreate(&memory, grain, &properties, 0));
	CHECK(cuDeviceGetAttribute(&supported, CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, 0));
	printf("supported: %d\n", supported);
	CHECK(cuDevicePrimaryCtxRelease_v2(0));
	return 0;
}
