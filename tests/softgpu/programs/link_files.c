/* SPDX-License-Identifier: Apache-2.0
 *
 * link_files FILE…: links the device code of objects and archives by the driver's linker and runs it.
 */
#include "program.h"

int main(int count, char **words)
{
	static char log[512];
	CUjit_option names[] = { CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES };
	void *options[] = { log, (void *)sizeof log }, *image;
	CUlinkState link;
	CUmodule module;
	CUdeviceptr out;
	int values[8];
	size_t size;

	open_device();
	CHECK(cuLinkCreate_v2(2, names, options, &link));
	for (int i = 1; i < count; i++) {
		const char *end = strrchr(words[i], '.');

		CHECK(cuLinkAddFile_v2(link, strcmp(end, ".a") ? CU_JIT_INPUT_OBJECT : CU_JIT_INPUT_LIBRARY, words[i],
				       0, NULL, NULL));
	}
	CUresult result = cuLinkComplete(link, &image, &size);
	printf("%s%s%s\n", error_name(result), *log ? ": " : "", log);
	if (result != CUDA_SUCCESS)
		return 0;
	CHECK(cuModuleLoadData(&module, image));
	CHECK(cuLinkDestroy(link));
	CHECK(cuMemAlloc_v2(&out, sizeof values));
	void *parameters[] = { &out };
	CHECK(cuLaunchKernel(get_function(module, "kernel"), 1, 1, 1, 8, 1, 1, 0, NULL, parameters, NULL));
	CHECK(cuMemcpyDtoH_v2(values, out, sizeof values));
	for (int i = 0; i < 8; i++)
		printf("%d%s", values[i], i < 7 ? " " : "\n");
	return 0;
}
