/* SPDX-License-Identifier: Apache-2.0
 *
 * The variables of loaded code take device memory: they count, they can be too many, and they come back.
 */
#include "program.h"

enum { MANY = 200 };

static const char code[] = PTX_HEADER ".visible .global .align 4 .b8 big[67108864];\n"
				      ".visible .entry k() { ret; }\n";

static size_t free_memory(void)
{
	size_t free, total;

	CHECK(cuMemGetInfo_v2(&free, &total));
	return free >> 20;
}

int main(void)
{
	static CUmodule modules[MANY];
	CUlibrary library;
	CUkernel kernel;
	CUfunction function;
	CUresult status = CUDA_SUCCESS;
	size_t before, fit;
	int loaded = 0;

	open_device();
	before = free_memory();
	fit = before / 64;
	while (loaded < MANY && !(status = cuModuleLoadData(&modules[loaded], code)))
		loaded++;
	printf("all that fit: %s, then %s\n", (size_t)loaded == fit ? "yes" : "no", error_name(status));
	while (loaded)
		CHECK(cuModuleUnload(modules[--loaded]));
	printf("unloaded, lost %zu MiB\n", before - free_memory());
	CHECK(cuLibraryLoadData(&library, code, NULL, NULL, 0, NULL, NULL, 0));
	CHECK(cuLibraryGetKernel(&kernel, library, "k"));
	CHECK(cuKernelGetFunction(&function, kernel));
	printf("a library takes %zu MiB\n", before - free_memory());
	CHECK(cuLibraryUnload(library));
	printf("and gives them back: %zu\n", before - free_memory());
	return 0;
}
