/* SPDX-License-Identifier: Apache-2.0
 *
 * What a driver refuses at the call and not later: contexts that do not belong together, parameters given twice or
 * too short, calls from a host function, code that is none.
 */
#include "program.h"

#include <elf.h>
#include <unistd.h>

static CUcontext contexts[2];
static CUfunction functions[2];
static CUdeviceptr memory;
static unsigned factor = 2, count = 32;

static void mix_contexts(void)
{
	void *parameters[] = { &memory, &factor, &count };
	CUstream other;

	CHECK(cuCtxSetCurrent(contexts[1]));
	CHECK(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
	CHECK(cuCtxSetCurrent(contexts[0]));
	SHOW(cuLaunchKernel(functions[1], 1, 1, 1, 32, 1, 1, 0, NULL, parameters, NULL));
	SHOW(cuCtxSynchronize());
	SHOW(cuLaunchKernel(functions[0], 1, 1, 1, 32, 1, 1, 0, other, parameters, NULL));
	SHOW(cuStreamSynchronize(other));
	SHOW(cuLaunchKernel(functions[1], 1, 1, 1, 32, 1, 1, 0, other, parameters, NULL));
	SHOW(cuStreamSynchronize(other));
	SHOW(cuMemsetD32Async(memory, 1, count, other));
	SHOW(cuStreamSynchronize(other));
}

static void give_parameters_oddly(void)
{
	void *parameters[] = { &memory, &factor, &count };
	struct {
		CUdeviceptr x;
		unsigned factor, n;
		uint64_t more;
	} packed = { memory, factor, count, 0 };
	size_t size = 16, shorter = 12, longer = sizeof packed;
	void *extra[] = { CU_LAUNCH_PARAM_BUFFER_POINTER, &packed, CU_LAUNCH_PARAM_BUFFER_SIZE, &size,
			  CU_LAUNCH_PARAM_END };
	void *none[] = { CU_LAUNCH_PARAM_END };

	SHOW(cuLaunchKernel(functions[0], 1, 1, 1, 32, 1, 1, 0, NULL, NULL, extra));
	SHOW(cuLaunchKernel(functions[0], 1, 1, 1, 32, 1, 1, 0, NULL, parameters, extra));
	SHOW(cuLaunchKernel(functions[0], 1, 1, 1, 32, 1, 1, 0, NULL, parameters, none));
	SHOW(cuLaunchKernel(functions[0], 1, 1, 1, 32, 1, 1, 0, NULL, NULL, none));
	SHOW(cuLaunchKernel(functions[0], 1, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL));
	extra[3] = &shorter;
	SHOW(cuLaunchKernel(functions[0], 1, 1, 1, 32, 1, 1, 0, NULL, NULL, extra));
	extra[3] = &longer;
	SHOW(cuLaunchKernel(functions[0], 1, 1, 1, 32, 1, 1, 0, NULL, NULL, extra));
	SHOW(cuCtxSynchronize());
}

static CUresult answers[4];

static void CUDA_CB call_driver(void *data)
{
	CUdeviceptr address;
	int devices;

	answers[0] = cuMemAlloc_v2(&address, 64);
	answers[1] = cuCtxSynchronize();
	answers[2] = cuDeviceGetCount(&devices);
	answers[3] = cuCtxSetCurrent(contexts[0]);
}

static void call_from_a_host_function(void)
{
	CHECK(cuLaunchHostFunc(NULL, call_driver, NULL));
	SHOW(cuCtxSynchronize());
	for (size_t i = 0; i < LENGTH(answers); i++)
		printf("in a host function: %s\n", error_name(answers[i]));
}

static void load_what_is_no_code(void)
{
	static const char broken[256] = "\177ELF and nothing that belongs to one";
	static const char wrong[] = PTX_HEADER ".visible .entry f()\n{\n    mov.u32 %r1, 0;\n}\n";
	char log[256] = "as it was";
	CUjit_option options[] = { CU_JIT_INFO_LOG_BUFFER, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES };
	void *values[] = { log, (void *)sizeof log };
	int value = -1;
	CUmodule module;

	SHOW(cuModuleLoadData(&module, broken));
	SHOW(cuModuleLoadDataEx(&module, wrong, LENGTH(options), options, values));
	printf("information: '%s', %zu bytes\n", log, (size_t)values[1]);
	SHOW(cuFuncGetAttribute(&value, (CUfunction_attribute)17, functions[0]));
	printf("value: %d\n", value);
}

static const char code[] = PTX_HEADER PTX_SCALE;

static void load_file(const char *what, const void *bytes, size_t size)
{
	char path[] = "/tmp/driver_refusals-XXXXXX";
	int file = mkstemp(path);
	CUmodule module;
	CUlibrary library;

	if (file < 0 || write(file, bytes, size) != (ssize_t)size)
		exit(2);
	close(file);
	printf("%s: as a module %s", what, error_name(cuModuleLoad(&module, path)));
	printf(", as a library %s\n", error_name(cuLibraryLoadFromFile(&library, path, NULL, NULL, 0, NULL, NULL, 0)));
	unlink(path);
}

/* What is missing of a file is no memory of the program's. */
static void load_files_that_are_cut_off(void)
{
	struct {
		unsigned magic;
		unsigned short version, header_size;
		unsigned long long size;
	} fatbin = { 0xba55ed50, 1, 16, 64 };
	Elf64_Ehdr cubin = { .e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
			     .e_machine = 190,
			     .e_shoff = sizeof cubin,
			     .e_shentsize = sizeof(Elf64_Shdr),
			     .e_shnum = 4 };

	load_file("nothing", "", 0);
	load_file("text", code, sizeof code - 1);
	load_file("text without its end", code, sizeof code - 5);
	load_file("a fat binary without its end", &fatbin, sizeof fatbin);
	load_file("half of its header", &fatbin, sizeof fatbin / 2);
	load_file("a cubin without its sections", &cubin, sizeof cubin);
	load_file("half of its header", &cubin, sizeof cubin / 2);
}

int main(void)
{
	CUmodule module;

	setvbuf(stdout, NULL, _IOLBF, 0);
	CHECK(cuInit(0));
	for (int i = 0; i < 2; i++) {
		CHECK(cuCtxCreate_v2(&contexts[i], 0, 0));
		CHECK(cuModuleLoadData(&module, PTX_HEADER PTX_SCALE));
		CHECK(cuCtxSetCurrent(contexts[0])); /* who asks for the function is not whose it is */
		functions[i] = get_function(module, "scale");
	}
	CHECK(cuMemAlloc_v2(&memory, 4 * count));
	mix_contexts();
	give_parameters_oddly();
	call_from_a_host_function();
	load_what_is_no_code();
	load_files_that_are_cut_off();
	return 0;
}
