/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory that a program does not free comes back with the end of its context.
 */
#include "program.h"

static size_t free_memory(void)
{
	size_t free, total;

	CHECK(cuMemGetInfo_v2(&free, &total));
	return free;
}

static void leave_behind(size_t size)
{
	CUdeviceptr linear, pitched;
	size_t pitch;

	CHECK(cuMemAlloc_v2(&linear, size));
	CHECK(cuMemAllocPitch_v2(&pitched, &pitch, 1000, 1000, 4));
}

int main(void)
{
	CUcontext context = open_device(), created;
	size_t before = free_memory(), most = before / 10 * 8;
	CUdeviceptr kept;

	CHECK(cuMemAlloc_v2(&kept, 4096));
	for (int i = 0; i < 3; i++) {
		CHECK(cuCtxCreate_v2(&created, 0, 0));
		leave_behind(most);
		CHECK(cuCtxDestroy_v2(created));
	}
	CHECK(cuCtxSetCurrent(context));
	CHECK(cuMemFree_v2(kept));
	printf("destroyed, lost %zu\n", before - free_memory());
	for (int i = 0; i < 3; i++) {
		leave_behind(most);
		CHECK(cuDevicePrimaryCtxReset_v2(0));
		CHECK(cuDevicePrimaryCtxRetain(&context, 0));
		CHECK(cuCtxSetCurrent(context));
	}
	printf("reset, lost %zu\n", before - free_memory());
	return 0;
}
