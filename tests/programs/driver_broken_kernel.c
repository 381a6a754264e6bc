/* SPDX-License-Identifier: Apache-2.0
 *
 * Kernels that cannot be run, in code so long that each kernel is compiled when it is first used: nobody may go on
 * without noticing. With a name of a kernel as argument: waits for a line after the device is open, then runs
 * that kernel of a library, for tests of what may happen to the compiler.
 */
#include "program.h"

static const char kernels[] =
	".visible .global .align 4 .u32 total = 1;\n"
	".visible .entry good()\n{\n" PTX_REGISTERS "    atom.global.add.u32 %r2, [total], 41;\n    ret;\n}\n"
	".visible .entry broken()\n{\n" PTX_REGISTERS "    add.u32 %r1, %r2, %no_such_register;\n    ret;\n}\n"
	".visible .entry unknown()\n{\n" PTX_REGISTERS "    tensormap.replace.b32 %r1, %r2;\n    ret;\n}\n";

static char *make_text(void)
{
	enum { PADDING = 1000 };
	static const char line[] = "// this makes the text so long that it is compiled in parts\n";
	char *text = malloc(sizeof PTX_HEADER + sizeof kernels + PADDING * sizeof line), *at = text;

	at += sprintf(at, PTX_HEADER);
	for (int i = 0; i < PADDING; i++)
		at += sprintf(at, "%s", line);
	sprintf(at, "%s", kernels);
	return text;
}

static CUresult launch(CUlibrary library, const char *name)
{
	CUkernel kernel;

	CHECK(cuLibraryGetKernel(&kernel, library, name));
	return cuLaunchKernel((CUfunction)kernel, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL);
}

/* Nothing that waits, starts work or allocates may succeed after it. */
static void show_context(void)
{
	CUdeviceptr memory;
	CUevent event;
	unsigned word = 0;

	SHOW(cuCtxSynchronize());
	SHOW(cuCtxSynchronize());
	SHOW(cuMemAlloc_v2(&memory, 4));
	SHOW(cuMemcpyDtoH_v2(&word, 4096, sizeof word));
	SHOW(cuEventCreate(&event, 0));
}

static void in_a_module(const char *text)
{
	CUmodule module;
	CUfunction function;
	CUdeviceptr total;
	unsigned value = 0;

	CHECK(cuModuleLoadData(&module, text));
	SHOW(cuModuleGetFunction(&function, module, "broken"));
	CHECK(cuLaunchKernel(get_function(module, "good"), 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
	CHECK(cuModuleGetGlobal_v2(&total, NULL, module, "total"));
	CHECK(cuMemcpyDtoH_v2(&value, total, sizeof value));
	printf("the good one: %u\n", value);
	CHECK(cuLaunchKernel(get_function(module, "unknown"), 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
	show_context();
}

static void run_alone(CUlibrary library, const char *name)
{
	CUdeviceptr total;
	unsigned value = 0;

	printf("ready\n");
	if (getchar() < 0)
		exit(1);
	SHOW(launch(library, name));
	SHOW(cuCtxSynchronize());
	CHECK(cuLibraryGetGlobal(&total, NULL, library, "total"));
	CHECK(cuMemcpyDtoH_v2(&value, total, sizeof value));
	printf("total: %u\n", value);
}

int main(int argc, char **argv)
{
	char *text = make_text();
	CUlibrary library;

	open_device();
	CHECK(cuLibraryLoadData(&library, text, NULL, NULL, 0, NULL, NULL, 0));
	if (argc > 1) {
		run_alone(library, argv[1]);
		return 0;
	}
	in_a_module(text);
	SHOW(cuDevicePrimaryCtxReset_v2(0));
	open_device();
	CHECK(launch(library, "good"));
	SHOW(launch(library, "broken"));
	show_context();
	free(text);
	return 0;
}
