/* SPDX-License-Identifier: Apache-2.0
 *
 * All functions of a module and all kernels of a library, without knowing their names: they can be asked about
 * and launched, and are the same ones that their names give. Short code is loaded at once, long code by parts.
 */
#include "program.h"

static const char kernels[] =
	".visible .global .align 4 .u32 total = 1;\n"
	".visible .entry add_one()\n{\n" PTX_REGISTERS "    atom.global.add.u32 %r2, [total], 1;\n    ret;\n}\n"
	".visible .entry add_many(.param .u32 many, .param .align 8 .b8 more[12])\n{\n" PTX_REGISTERS
	"    ld.param.u32 %r1, [many];\n    atom.global.add.u32 %r2, [total], %r1;\n    ret;\n}\n"
	".visible .entry broken_if_long()\n{\n" PTX_REGISTERS "    add.u32 %r1, %r2, %r3;\n    ret;\n}\n";

enum { MANY = 16 };

static char *make_text(int lines)
{
	static const char line[] = "// this makes the text so long that it is compiled in parts\n";
	char *text = malloc(sizeof PTX_HEADER + sizeof kernels + (size_t)lines * sizeof line), *at = text, *register_3;

	at += sprintf(at, PTX_HEADER);
	for (int i = 0; i < lines; i++)
		at += sprintf(at, "%s", line);
	memcpy(at, kernels, sizeof kernels);
	register_3 = strstr(at, "%r2, %r3;\n    ret");
	if (lines)
		memcpy(register_3, "%r2, %no;", 9);
	return text;
}

static void describe(CUfunction function)
{
	const char *name;
	size_t offset, size;

	CHECK(cuFuncGetName(&name, function));
	printf("%s:", name);
	for (size_t i = 0; cuFuncGetParamInfo(function, i, &offset, &size) == CUDA_SUCCESS; i++)
		printf(" %zu+%zu", offset, size);
	printf("\n");
}

static void launch(CUfunction function)
{
	unsigned many = 40;
	char more[12] = { 0 };
	void *parameters[] = { &many, more };
	const char *name;

	CHECK(cuFuncGetName(&name, function));
	printf("launch %s: %s\n", name,
	       error_name(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, NULL, parameters, NULL)));
}

static void show_total(CUmodule module)
{
	CUdeviceptr address;
	unsigned value;

	CHECK(cuModuleGetGlobal_v2(&address, NULL, module, "total"));
	CHECK(cuMemcpyDtoH_v2(&value, address, sizeof value));
	printf("total: %u\n", value);
}

static void of_a_module(const char *text)
{
	CUfunction functions[MANY] = { 0 }, again[MANY] = { 0 };
	CUmodule module;
	CUfunctionLoadingState state;
	unsigned count = 0;
	int threads = 0;

	CHECK(cuModuleLoadData(&module, text));
	CHECK(cuModuleGetFunctionCount(&count, module));
	printf("%u functions\n", count);
	SHOW(cuModuleEnumerateFunctions(NULL, MANY, module));
	SHOW(cuModuleEnumerateFunctions(functions, 0, module));
	CHECK(cuModuleEnumerateFunctions(functions, 1, module));
	printf("only one: %d\n", functions[0] && !functions[1]);
	CHECK(cuModuleEnumerateFunctions(functions, MANY, module));
	CHECK(cuModuleEnumerateFunctions(again, MANY, module));
	printf("the same again: %d, no more: %d\n", !memcmp(functions, again, sizeof again), !functions[count]);
	for (unsigned i = 0; i < count; i++)
		describe(functions[i]);
	printf("by name: %d\n", get_function(module, "add_one") == functions[0]);
	CHECK(cuFuncGetAttribute(&threads, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, functions[1]));
	printf("threads: %d\n", threads);
	SHOW(cuFuncLoad(functions[1]));
	CHECK(cuFuncIsLoaded(&state, functions[1]));
	printf("loaded: %d\n", state == CU_FUNCTION_LOADING_STATE_LOADED);
	launch(functions[0]);
	launch(functions[1]);
	show_total(module);
	SHOW(cuFuncLoad(functions[2]));
	CHECK(cuModuleUnload(module));
}

static void of_a_library(const char *text)
{
	CUkernel kernels_found[MANY] = { 0 }, kernel;
	CUlibrary library;
	CUmodule module;
	unsigned count = 0;

	CHECK(cuLibraryLoadData(&library, text, NULL, NULL, 0, NULL, NULL, 0));
	CHECK(cuLibraryGetKernelCount(&count, library));
	printf("%u kernels\n", count);
	SHOW(cuLibraryEnumerateKernels(kernels_found, 0, library));
	CHECK(cuLibraryEnumerateKernels(kernels_found, MANY, library));
	for (unsigned i = 0; i < count; i++) {
		const char *name;

		CHECK(cuKernelGetName(&name, kernels_found[i]));
		CHECK(cuLibraryGetKernel(&kernel, library, name));
		printf("%s, by name: %d\n", name, kernel == kernels_found[i]);
	}
	launch((CUfunction)kernels_found[1]);
	CHECK(cuLibraryGetModule(&module, library));
	show_total(module);
	launch((CUfunction)kernels_found[2]);
	SHOW(cuCtxSynchronize());
	if (cuCtxSynchronize() == CUDA_SUCCESS)
		CHECK(cuLibraryUnload(library));
}

int main(void)
{
	open_device();
	for (int lines = 0; lines <= 1000; lines += 1000) {
		char *text = make_text(lines);

		printf("%s code\n", lines ? "long" : "short");
		of_a_module(text);
		of_a_library(text);
		free(text);
	}
	return 0;
}
