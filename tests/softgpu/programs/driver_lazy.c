/* SPDX-License-Identifier: Apache-2.0
 *
 * A module so long that its kernels are compiled when they are first used. What they share must stay one thing:
 * variables, addresses of functions; and what is broken in one must not harm the others.
 */
#include "program.h"

static const char start[] =
	PTX_HEADER "/* { a comment with \" and } */\n"
		   ".file 1 \"a { strange } name;\"\n"
		   ".visible .global .align 4 .u32 total = 100;\n"
		   ".visible .global .align 8 .u64 pointer = generic(total);\n"
		   ".global .align 8 .u64 table[2] = {generic(plus), generic(times)};\n"
		   ".visible .const .align 4 .u32 step = 7;\n"
		   ".visible .global .attribute(.managed) .align 4 .u32 shared_value = 11;\n"
		   ".func (.param .b32 out) plus(.param .b32 a, .param .b32 b)\n{\n" PTX_REGISTERS
		   "    ld.param.u32 %r1, [a];\n    ld.param.u32 %r2, [b];\n    add.u32 %r3, %r1, %r2;\n"
		   "    st.param.b32 [out], %r3;\n    ret;\n}\n"
		   ".func (.param .b32 out) times(.param .b32 a, .param .b32 b)\n{\n" PTX_REGISTERS
		   "    ld.param.u32 %r1, [a];\n    ld.param.u32 %r2, [b];\n    mul.lo.u32 %r3, %r1, %r2;\n"
		   "    st.param.b32 [out], %r3;\n    ret;\n}\n"
		   ".visible .global .align 8 .u64 chosen;\n";

static const char kernels[] =
	".visible .entry add_step()\n{\n" PTX_REGISTERS "    // an unmatched { and \" in a comment\n"
	"    ld.const.u32 %r1, [step];\n    atom.global.add.u32 %r2, [total], %r1;\n    ret;\n}\n"
	".visible .entry through_pointer(.param .u32 by)\n{\n" PTX_REGISTERS
	"    ld.param.u32 %r1, [by];\n    ld.global.u64 %d1, [pointer];\n    ld.u32 %r2, [%d1];\n"
	"    add.u32 %r2, %r2, %r1;\n    st.u32 [%d1], %r2;\n    ret;\n}\n"
	".visible .entry choose(.param .u32 which)\n{\n" PTX_REGISTERS
	"    ld.param.u32 %r1, [which];\n    mul.wide.u32 %d1, %r1, 8;\n    mov.u64 %d2, table;\n"
	"    add.u64 %d2, %d2, %d1;\n    ld.global.u64 %d3, [%d2];\n    st.global.u64 [chosen], %d3;\n    ret;\n}\n"
	".visible .entry call_chosen(.param .u32 by)\n{\n" PTX_REGISTERS
	"    ld.global.u64 %d1, [chosen];\n    ld.global.u32 %r1, [total];\n    ld.param.u32 %r2, [by];\n    {\n"
	"    .param .b32 p0;\n    st.param.b32 [p0], %r1;\n    .param .b32 p1;\n    st.param.b32 [p1], %r2;\n"
	"    .param .b32 q;\n    shape: .callprototype (.param .b32 _) _ (.param .b32 _, .param .b32 _);\n"
	"    call (q), %d1, (p0, p1), shape;\n    ld.param.b32 %r3, [q];\n    }\n"
	"    st.global.u32 [total], %r3;\n    ret;\n}\n"
	".visible .entry use_managed(.param .align 16 .b8 unused[20], .param .u64 .ptr .global .align 4 where)\n{\n" PTX_REGISTERS
	"    ld.global.u32 %r1, [shared_value];\n    add.u32 %r1, %r1, 1;\n"
	"    st.global.u32 [shared_value], %r1;\n    ret;\n}\n"
	".visible .entry broken()\n{\n" PTX_REGISTERS "    add.u32 %r1, %r2, %no_such_register;\n    ret;\n}\n"
	".visible .entry fault()\n{\n" PTX_REGISTERS "    mov.u64 %d1, 64;\n    st.global.u32 [%d1], 1;\n    ret;\n}\n";

static char *make_text(void)
{
	enum { PADDING = 1000 };
	static const char line[] = "// this makes the text so long that it is split {\n";
	char *text = malloc(sizeof start + sizeof kernels + PADDING * sizeof line), *at = text;

	at += sprintf(at, "%s", start);
	for (int i = 0; i < PADDING; i++)
		at += sprintf(at, "%s", line);
	sprintf(at, "%s", kernels);
	return text;
}

static void run(CUfunction function, unsigned value)
{
	unsigned values[5] = { value }; /* as large as any kernel's first parameter */
	void *parameters[] = { values, values };

	CHECK(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, NULL, parameters, NULL));
	CHECK(cuCtxSynchronize());
}

static unsigned get_total(CUmodule module)
{
	CUdeviceptr address;
	unsigned value;

	CHECK(cuModuleGetGlobal_v2(&address, NULL, module, "total"));
	CHECK(cuMemcpyDtoH_v2(&value, address, sizeof value));
	return value;
}

static void share(CUmodule module)
{
	run(get_function(module, "add_step"), 0);
	printf("100 + 7: %u\n", get_total(module));
	run(get_function(module, "through_pointer"), 1000);
	printf("and 1000: %u\n", get_total(module));
	run(get_function(module, "choose"), 1);
	run(get_function(module, "call_chosen"), 2);
	printf("times 2: %u\n", get_total(module));
	run(get_function(module, "choose"), 0);
	run(get_function(module, "call_chosen"), 5);
	printf("plus 5: %u\n", get_total(module));
}

static void list(CUmodule module)
{
	CUfunction functions[16];
	unsigned count;

	CHECK(cuModuleGetFunctionCount(&count, module));
	CHECK(cuModuleEnumerateFunctions(functions, 16, module));
	for (unsigned i = 0; i < count; i++) {
		const char *name;
		CUfunctionLoadingState state;
		size_t offset, size;

		CHECK(cuFuncGetName(&name, functions[i]));
		CHECK(cuFuncIsLoaded(&state, functions[i]));
		printf("%s: %s, parameters", name, state == CU_FUNCTION_LOADING_STATE_LOADED ? "loaded" : "not loaded");
		for (size_t k = 0; cuFuncGetParamInfo(functions[i], k, &offset, &size) == CUDA_SUCCESS; k++)
			printf(" %zu+%zu", offset, size);
		printf("\n");
	}
}

static void in_a_library(const char *text)
{
	CUlibrary library;
	CUkernel kernel, broken;
	CUdeviceptr managed;
	size_t size;
	int value;

	CHECK(cuLibraryLoadData(&library, text, NULL, NULL, 0, NULL, NULL, 0));
	CHECK(cuLibraryGetManaged(&managed, &size, library, "shared_value"));
	printf("managed: %u, %zu bytes\n", *(unsigned *)(uintptr_t)managed, size);
	CHECK(cuLibraryGetKernel(&kernel, library, "use_managed"));
	run((CUfunction)kernel, 0);
	printf("managed: %u\n", *(unsigned *)(uintptr_t)managed);
	CHECK(cuLibraryGetKernel(&broken, library, "broken"));
	SHOW(cuKernelGetAttribute(&value, CU_FUNC_ATTRIBUTE_NUM_REGS, broken, 0));
	CHECK(cuLibraryUnload(library));
}

int main(void)
{
	char *text = make_text();
	CUmodule module, second;
	CUfunction function;

	open_device();
	CHECK(cuModuleLoadData(&module, text));
	list(module);
	share(module);
	SHOW(cuModuleGetFunction(&function, module, "broken"));
	SHOW(cuModuleGetFunction(&function, module, "broken"));
	SHOW(cuModuleGetFunction(&function, module, "no_such_kernel"));
	CHECK(cuModuleLoadData(&second, text));
	printf("another module's: %u, and the first's: %u\n", get_total(second), get_total(module));
	list(module);
	CHECK(cuModuleUnload(second));
	in_a_library(text);
	CHECK(cuLaunchKernel(get_function(module, "fault"), 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
	SHOW(cuCtxSynchronize());
	free(text);
	return 0;
}
