/* SPDX-License-Identifier: Apache-2.0
 *
 * Small allocations with the variables of modules between them: several things share a page, in any order of coming and going.
 */
#include "program.h"

enum { MANY = 24 };

static const char code[] = PTX_HEADER ".visible .global .align 4 .u32 counter[4] = { 1, 2, 3, 4 };\n"
				      ".visible .entry k() { ret; }\n";

int main(void)
{
	CUdeviceptr before[MANY], variable[MANY], after[MANY];
	CUmodule module[MANY];
	unsigned values[4] = { 0 }, sum = 0;
	size_t size;

	open_device();
	for (int i = 0; i < MANY; i++) {
		CHECK(cuMemAlloc_v2(&before[i], 16));
		CHECK(cuModuleLoadData(&module[i], code));
		CHECK(cuModuleGetGlobal_v2(&variable[i], &size, module[i], "counter"));
		CHECK(cuMemAlloc_v2(&after[i], 16));
	}
	for (int i = 0; i < MANY; i++) {
		CHECK(cuMemFree_v2(before[i]));
		CHECK(cuMemAlloc_v2(&before[i], 16));
		CHECK(cuMemcpy(before[i], variable[i], sizeof values));
		CHECK(cuMemFree_v2(after[i]));
		CHECK(cuMemcpyDtoH_v2(values, before[i], sizeof values));
		sum += values[0] + values[3];
	}
	for (int i = 0; i < MANY; i++) {
		CHECK(cuModuleUnload(module[i]));
		CHECK(cuMemFree_v2(before[i]));
	}
	printf("sum %u\n", sum);
	return 0;
}
