/* SPDX-License-Identifier: Apache-2.0
 *
 * Modules, libraries and the linker: variables, kernels and what is known of them.
 */
#include "program.h"

static const char code[] = PTX_HEADER
	".visible .global .align 4 .b32 counter = 5;\n"
	".visible .const .align 4 .b32 weights[4] = {10, 20, 30, 40};\n"
	".visible .entry count(.param .u32 by, .param .u64 where, .param .align 8 .b8 pair[16])\n{\n" PTX_REGISTERS
	"    .shared .align 4 .b8 room[256];\n"
	"    ld.param.u32 %r1, [by];\n    ld.param.u64 %d1, [where];\n    ld.param.u64 %d2, [pair+8];\n"
	"    ld.global.u32 %r2, [counter];\n    add.u32 %r3, %r2, %r1;\n    st.global.u32 [counter], %r3;\n"
	"    ld.const.u32 %r4, [weights+8];\n    cvt.u32.u64 %r5, %d2;\n    add.u32 %r4, %r4, %r5;\n"
	"    cvta.to.global.u64 %d1, %d1;\n    st.global.u32 [%d1], %r4;\n    ret;\n}\n"
	".visible .entry nothing()\n{\n    ret;\n}\n";

static const char caller[] = PTX_HEADER
	".extern .func (.param .b32 result) twice(.param .b32 x);\n"
	".visible .entry outer(.param .u64 where)\n{\n" PTX_REGISTERS
	"    ld.param.u64 %d1, [where];\n    cvta.to.global.u64 %d1, %d1;\n    ld.global.u32 %r1, [%d1];\n    {\n"
	"    .param .b32 p0;\n    st.param.b32 [p0], %r1;\n    .param .b32 r0;\n"
	"    call.uni (r0), twice, (p0);\n    ld.param.b32 %r2, [r0];\n    }\n"
	"    st.global.u32 [%d1], %r2;\n    ret;\n}\n";

static const char callee[] = PTX_HEADER
	".visible .func (.param .b32 result) twice(.param .b32 x)\n{\n" PTX_REGISTERS
	"    ld.param.b32 %r1, [x];\n    add.u32 %r2, %r1, %r1;\n    st.param.b32 [result], %r2;\n    ret;\n}\n";

static CUdeviceptr where;

static unsigned run_count(CUfunction count, unsigned by)
{
	struct {
		unsigned long long a, b;
	} pair = { 1, 1000 };
	void *parameters[] = { &by, &where, &pair };
	unsigned value;

	CHECK(cuLaunchKernel(count, 1, 1, 1, 1, 1, 1, 0, NULL, parameters, NULL));
	CHECK(cuMemcpyDtoH_v2(&value, where, sizeof value));
	return value;
}

static void show_variable(CUmodule module, const char *name)
{
	unsigned values[4] = { 0 };
	CUdeviceptr address;
	size_t size;

	CHECK(cuModuleGetGlobal_v2(&address, &size, module, name));
	CHECK(cuMemcpyDtoH_v2(values, address, size < sizeof values ? size : sizeof values));
	printf("%s: %zu bytes: %u %u\n", name, size, values[0], values[1]);
}

static void as_modules(void)
{
	CUmodule first, second;
	CUdeviceptr weights;
	unsigned replaced = 77;

	CHECK(cuModuleLoadData(&first, code));
	CHECK(cuModuleLoadDataEx(&second, code, 0, NULL, NULL));
	show_variable(first, "counter");
	show_variable(first, "weights");
	printf("result: %u\n", run_count(get_function(first, "count"), 3));
	printf("result: %u\n", run_count(get_function(first, "count"), 4));
	CHECK(cuModuleGetGlobal_v2(&weights, NULL, second, "weights"));
	CHECK(cuMemcpyHtoD_v2(weights + 8, &replaced, sizeof replaced));
	printf("result in the second: %u\n", run_count(get_function(second, "count"), 100));
	show_variable(first, "counter");
	show_variable(second, "counter");
	CHECK(cuModuleUnload(second));
	SHOW(cuModuleUnload(second));
	CHECK(cuModuleUnload(first));
}

static void as_library(void)
{
	CUlibrary library;
	CUkernel count, nothing;
	CUfunction function;
	CUmodule module;
	const char *name;
	size_t offset, size;
	int value;

	CHECK(cuLibraryLoadData(&library, code, NULL, NULL, 0, NULL, NULL, 0));
	CHECK(cuLibraryGetKernel(&count, library, "count"));
	CHECK(cuLibraryGetKernel(&nothing, library, "nothing"));
	SHOW(cuLibraryGetKernel(&count, library, "no_such_kernel"));
	printf("kernel as function: %u\n", run_count((CUfunction)count, 1));
	CHECK(cuKernelGetFunction(&function, count));
	printf("function of the kernel: %u\n", run_count(function, 1));
	CHECK(cuLibraryGetModule(&module, library));
	show_variable(module, "counter");
	CHECK(cuKernelGetName(&name, nothing));
	printf("name: %s\n", name);
	for (size_t i = 0; cuKernelGetParamInfo(count, i, &offset, &size) == CUDA_SUCCESS; i++)
		printf("parameter %zu: offset %zu, size %zu\n", i, offset, size);
	CHECK(cuKernelGetAttribute(&value, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, nothing, 0));
	printf("shared bytes of nothing: %d\n", value);
	CHECK(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, function));
	printf("threads at most: %d\n", value);
	CHECK(cuLibraryUnload(library));
}

/* A driver may give new code the handles of code that is gone. */
static void again_and_again(void)
{
	for (int i = 0; i < 20; i++) {
		CUlibrary library;
		CUkernel nothing;
		CUfunction function;
		CUmodule module;

		CHECK(cuLibraryLoadData(&library, code, NULL, NULL, 0, NULL, NULL, 0));
		CHECK(cuLibraryGetKernel(&nothing, library, "nothing"));
		CHECK(cuKernelGetFunction(&function, nothing));
		CHECK(cuLibraryUnload(library));
		CHECK(cuCtxSynchronize());
		CHECK(cuModuleLoadData(&module, code));
		if (run_count(get_function(module, "count"), 1) != 1030)
			printf("another result in turn %d\n", i);
		CHECK(cuModuleUnload(module));
	}
}

static void linked(void)
{
	CUlinkState link;
	CUmodule module;
	void *image, *parameters[] = { &where };
	size_t size;
	unsigned value = 21;

	CHECK(cuLinkCreate_v2(0, NULL, NULL, &link));
	CHECK(cuLinkAddData_v2(link, CU_JIT_INPUT_PTX, (void *)caller, sizeof caller, "caller", 0, NULL, NULL));
	CHECK(cuLinkAddData_v2(link, CU_JIT_INPUT_PTX, (void *)callee, sizeof callee, "callee", 0, NULL, NULL));
	CHECK(cuLinkComplete(link, &image, &size));
	printf("linked: %s\n", image && size ? "something" : "nothing");
	CHECK(cuModuleLoadData(&module, image));
	CHECK(cuLinkDestroy(link));
	CHECK(cuMemcpyHtoD_v2(where, &value, sizeof value));
	CHECK(cuLaunchKernel(get_function(module, "outer"), 1, 1, 1, 1, 1, 1, 0, NULL, parameters, NULL));
	CHECK(cuMemcpyDtoH_v2(&value, where, sizeof value));
	printf("twice 21: %u\n", value);
}

/* What the linker has to say goes where the creation of the link said, with the room that it had then. */
static void not_linked(void)
{
	static char log[512];
	CUjit_option names[] = { CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES };
	void *values[] = { log, (void *)sizeof log }, *image;
	CUlinkState link;
	size_t size;

	CHECK(cuLinkCreate_v2(2, names, values, &link));
	CHECK(cuLinkAddData_v2(link, CU_JIT_INPUT_PTX, (void *)caller, sizeof caller, "caller", 0, NULL, NULL));
	printf("one that is missing: %s, ", cuLinkComplete(link, &image, &size) ? "refused" : "linked");
	printf("%s\n", *log ? "with a reason" : "without a reason");
	CHECK(cuLinkDestroy(link));
}

int main(void)
{
	open_device();
	CHECK(cuMemAlloc_v2(&where, 16));
	as_modules();
	as_library();
	again_and_again();
	linked();
	not_linked();
	CHECK(cuMemFree_v2(where));
	CHECK(cuDevicePrimaryCtxRelease_v2(0));
	return 0;
}
