/* SPDX-License-Identifier: Apache-2.0
 *
 * Occupancy: the answers must agree with each other, whatever the device is.
 */
#include "program.h"

static const char code[] = PTX_HEADER PTX_ADD ".visible .entry roomy()\n{\n    .shared .align 4 .b8 room[16384];\n"
					      "    .reg .b32 %r<2>;\n    mov.u32 %r1, 1;\n"
					      "    st.shared.u32 [room], %r1;\n    ret;\n}\n";

static size_t CUDA_CB four_per_thread(int threads)
{
	return (size_t)threads * 4;
}

int main(void)
{
	CUmodule module;
	int threads, per_sm, sms, grid, block, large, small, shared_per_sm;
	size_t dynamic;

	open_device();
	CHECK(cuModuleLoadData(&module, code));
	CUfunction add = get_function(module, "add"), roomy = get_function(module, "roomy");
	CHECK(cuDeviceGetAttribute(&threads, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, 0));
	CHECK(cuDeviceGetAttribute(&sms, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 0));
	CHECK(cuDeviceGetAttribute(&shared_per_sm, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, 0));
	CHECK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&per_sm, add, 256, 0));
	printf("blocks of 256: %s\n", per_sm == threads / 256 ? "all threads busy" : "some idle");
	CHECK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&large, add, 1024, 0));
	CHECK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&small, add, 32, 0));
	printf("smaller blocks, more of them: %s\n", small > large && large >= 1 ? "yes" : "no");
	CHECK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&per_sm, roomy, 32, 0));
	printf("limited by shared memory: %s\n", per_sm >= 1 && per_sm <= shared_per_sm / 16384 ? "yes" : "no");
	CHECK(cuOccupancyMaxPotentialBlockSize(&grid, &block, add, NULL, 0, 0));
	CHECK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&per_sm, add, block, 0));
	printf("best: whole warps %s, fills the device %s\n", block % 32 ? "no" : "yes",
	       grid == per_sm * sms && per_sm * block == threads ? "yes" : "no");
	CHECK(cuOccupancyMaxPotentialBlockSize(&grid, &block, add, four_per_thread, 0, 200));
	printf("at most 200 threads: %s\n", block > 0 && block <= 200 ? "yes" : "no");
	CHECK(cuOccupancyAvailableDynamicSMemPerBlock(&dynamic, add, 2, 128));
	CHECK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&per_sm, add, 128, dynamic));
	printf("with all the shared memory there is for two: %s\n", per_sm >= 2 ? "two fit" : "two do not fit");
	SHOW(cuOccupancyMaxActiveBlocksPerMultiprocessor(&per_sm, add, 0, 0));
	SHOW(cuOccupancyMaxActiveBlocksPerMultiprocessor(NULL, add, 32, 0));
	SHOW(cuFuncSetAttribute(add, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 64 << 10));
	SHOW(cuFuncSetAttribute(add, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 1 << 20));
	CHECK(cuDevicePrimaryCtxRelease_v2(0));
	return 0;
}
