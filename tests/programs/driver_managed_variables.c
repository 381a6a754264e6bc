/* SPDX-License-Identifier: Apache-2.0
 *
 * Managed variables of modules and libraries, which the program and its kernels both use at the same address: looked up
 * before there is a context, while kernels that change them run, by either name, again after their code was unloaded.
 */
#include "program.h"

static const char code[] = PTX_HEADER
	".visible .global .attribute(.managed) .align 4 .u32 counter = 5;\n"
	".visible .global .attribute(.managed) .align 8 .b8 table[40000] = {1, 2, 3, 4, 5, 6, 7, 8};\n"
	".visible .global .align 4 .u32 plain = 9;\n"
	".visible .entry count(.param .u32 by, .param .u32 rounds)\n{\n" PTX_REGISTERS
	"    ld.param.u32 %r1, [by];\n    ld.param.u32 %r2, [rounds];\n    mov.u32 %r3, 0;\n"
	"again:\n    setp.ge.u32 %p1, %r3, %r2;\n    @%p1 bra done;\n    add.u32 %r3, %r3, 1;\n    bra again;\n"
	"done:\n    ld.global.u32 %r4, [counter];\n    add.u32 %r4, %r4, %r1;\n    st.global.u32 [counter], %r4;\n"
	"    ld.global.u32 %r5, [plain];\n    add.u32 %r5, %r5, 1;\n    st.global.u32 [plain], %r5;\n"
	"    st.global.u32 [table+39996], %r4;\n    ret;\n}\n";

enum { BUSY = 3000000, TABLE = 40000 };

static void count(CUfunction function, unsigned by, unsigned rounds, CUstream stream)
{
	void *parameters[] = { &by, &rounds };

	CHECK(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, stream, parameters, NULL));
}

static unsigned *variable(CUmodule module, const char *name)
{
	CUdeviceptr address;

	CHECK(cuModuleGetGlobal_v2(&address, NULL, module, name));
	return (unsigned *)(uintptr_t)address;
}

static unsigned *managed(CUlibrary library, const char *name)
{
	CUdeviceptr address;
	size_t size;

	CHECK(cuLibraryGetManaged(&address, &size, library, name));
	printf("%s: %zu bytes\n", name, size);
	return (unsigned *)(uintptr_t)address;
}

static unsigned last(const unsigned *table)
{
	return table[TABLE / 4 - 1];
}

static int is_managed(const void *address)
{
	int answer = -1;

	cuPointerGetAttribute(&answer, CU_POINTER_ATTRIBUTE_IS_MANAGED, (CUdeviceptr)(uintptr_t)address);
	return answer;
}

/* ------------------------------------------------------------------ modules */

static void both_ways(void)
{
	CUmodule module;
	CUfunction function;
	unsigned *counter, *table, value = 0;

	CHECK(cuModuleLoadData(&module, code));
	function = get_function(module, "count");
	counter = variable(module, "counter");
	table = variable(module, "table");
	printf("first values: %u, %#x %u\n", *counter, table[1], last(table));
	count(function, 10, 0, NULL);
	CHECK(cuCtxSynchronize());
	printf("a kernel: %u %u\n", *counter, last(table));
	*counter = 100;
	table[2] = 7;
	count(function, 1, 0, NULL);
	count(function, 1, 0, NULL);
	CHECK(cuStreamSynchronize(NULL));
	printf("the program, then kernels: %u %u %u\n", *counter, last(table), table[2]);
	CHECK(cuMemcpyDtoH_v2(&value, (CUdeviceptr)(uintptr_t)variable(module, "plain"), sizeof value));
	printf("beside them: %u\n", value);
	CHECK(cuMemsetD8_v2((CUdeviceptr)(uintptr_t)counter, 1, 4));
	printf("filled: %#x\n", *counter);
	printf("managed: %d %d, the other: %d\n", is_managed(counter), is_managed((char *)table + TABLE - 1),
	       is_managed(variable(module, "plain")));
	printf("the same: %d\n", variable(module, "counter") == counter);
	CHECK(cuModuleUnload(module));
	printf("unloaded: %d\n", is_managed(counter));
}

/* What a kernel does that was launched before anybody asked where the variable is. */
static void while_it_runs(CUstream stream)
{
	CUmodule module;
	CUfunction function;
	CUevent event;
	unsigned *counter;

	CHECK(cuModuleLoadData(&module, code));
	function = get_function(module, "count");
	count(function, 1, BUSY, stream);
	counter = variable(module, "counter");
	CHECK(cuStreamSynchronize(stream));
	printf("looked up while it runs: %u %u\n", *counter, last(variable(module, "table")));
	CHECK(cuModuleUnload(module));
	CHECK(cuModuleLoadData(&module, code));
	function = get_function(module, "count");
	CHECK(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
	count(function, 2, BUSY, stream);
	counter = variable(module, "counter");
	CHECK(cuEventRecord(event, stream));
	CHECK(cuEventSynchronize(event));
	printf("and an event waited for: %u\n", *counter);
	CHECK(cuEventDestroy_v2(event));
	CHECK(cuModuleUnload(module));
}

static void in_a_graph(CUstream stream)
{
	CUmodule module;
	CUfunction function;
	CUgraph graph;
	CUgraphExec instance;
	unsigned *counter;

	CHECK(cuModuleLoadData(&module, code));
	function = get_function(module, "count");
	CHECK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
	count(function, 3, 0, stream);
	counter = variable(module, "counter");
	count(function, 4, 0, stream);
	CHECK(cuStreamEndCapture(stream, &graph));
	CHECK(cuGraphInstantiateWithFlags(&instance, graph, 0));
	for (unsigned i = 0; i < 3; i++) {
		*counter += 1000;
		CHECK(cuGraphLaunch(instance, stream));
		CHECK(cuStreamSynchronize(stream));
	}
	printf("in a graph: %u\n", *counter);
	CHECK(cuGraphExecDestroy(instance));
	CHECK(cuGraphDestroy(graph));
	CHECK(cuModuleUnload(module));
}

/* ------------------------------------------------------------------ libraries */

static CUlibrary load_library(void)
{
	CUlibrary library;

	CHECK(cuLibraryLoadData(&library, code, NULL, NULL, 0, NULL, NULL, 0));
	return library;
}

static CUfunction function_of(CUlibrary library)
{
	CUkernel kernel;

	CHECK(cuLibraryGetKernel(&kernel, library, "count"));
	return (CUfunction)kernel;
}

static void use(CUlibrary library, const char *when, unsigned *counter)
{
	*counter += 50;
	count(function_of(library), 1, 0, NULL);
	CHECK(cuCtxSynchronize());
	printf("%s: %u\n", when, *counter);
}

static void before_a_context(void)
{
	CUlibrary library = load_library();
	unsigned *counter = managed(library, "counter");
	CUcontext current;

	printf("before there is a context: %u\n", *counter);
	*counter = 7;
	CHECK(cuCtxGetCurrent(&current));
	printf("still none: %d\n", !current);
	open_device();
	use(library, "in a context", counter);
	CHECK(cuLibraryUnload(library));
}

static void as_library(void)
{
	CUlibrary library = load_library();
	unsigned *counter = managed(library, "counter");
	CUcontext another;
	CUdeviceptr address;

	printf("the same by its other name: %d\n", managed(library, "counter") == counter);
	CHECK(cuLibraryGetGlobal(&address, NULL, library, "counter"));
	printf("the same as a global: %d\n", address == (CUdeviceptr)(uintptr_t)counter);
	SHOW(cuLibraryGetManaged(&address, NULL, library, "plain"));
	SHOW(cuLibraryGetManaged(&address, NULL, library, "nothing"));
	SHOW(cuLibraryGetManaged(NULL, NULL, library, "counter"));
	use(library, "in a library", counter);
	CHECK(cuCtxCreate_v2(&another, 0, 0));
	use(library, "in another context", counter);
	CHECK(cuCtxDestroy_v2(another));
	printf("which has ended: %u\n", *counter);
	use(library, "in the first one again", counter);
	CHECK(cuLibraryUnload(library));
	printf("unloaded: %d\n", is_managed(counter));
	library = load_library();
	printf("loaded again: %u\n", *managed(library, "counter"));
	CHECK(cuLibraryUnload(library));
}

int main(void)
{
	CUstream stream;

	CHECK(cuInit(0));
	before_a_context();
	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	while_it_runs(NULL);
	while_it_runs(stream);
	both_ways();
	in_a_graph(stream);
	as_library();
	CHECK(cuStreamDestroy_v2(stream));
	return 0;
}
