/* SPDX-License-Identifier: Apache-2.0
 *
 * Text that kernels print comes out between what the program prints before and after it waits.
 */
#include "program.h"

/* say(value): prints "kernel says <value>, thread <index>" */
static const char code[] = PTX_HEADER
	".extern .func (.param .b32 result) vprintf(.param .b64 format, .param .b64 list);\n"
	".global .align 1 .b8 format[32] = {107, 101, 114, 110, 101, 108, 32, 115, 97, 121, 115, "
	"32, 37, 100, 44, 32, 116, 104, 114, 101, 97, 100, 32, 37, 100, 10, 0};\n"
	".visible .entry say(.param .u32 value)\n{\n"
	"    .local .align 8 .b8 list[8];\n" PTX_REGISTERS "    ld.param.u32 %r1, [value];\n    mov.u32 %r2, %tid.x;\n"
	"    mov.u64 %d1, list;\n    cvta.local.u64 %d2, %d1;\n"
	"    st.local.u32 [list], %r1;\n    st.local.u32 [list+4], %r2;\n"
	"    mov.u64 %d3, format;\n    cvta.global.u64 %d4, %d3;\n    {\n"
	"    .param .b64 p0;\n    st.param.b64 [p0], %d4;\n"
	"    .param .b64 p1;\n    st.param.b64 [p1], %d2;\n    .param .b32 r0;\n"
	"    call.uni (r0), vprintf, (p0, p1);\n    ld.param.b32 %r3, [r0];\n    }\n"
	"    ret;\n}\n"
	".visible .entry quiet()\n{\n    ret;\n}\n"
	/* take(where): *where = malloc(24 MiB) */
	".extern .func (.param .b64 result) malloc(.param .b64 size);\n"
	".visible .entry take(.param .u64 where)\n{\n" PTX_REGISTERS "    ld.param.u64 %d1, [where];\n    {\n"
	"    .param .b64 p0;\n    st.param.b64 [p0], 25165824;\n    .param .b64 r0;\n"
	"    call.uni (r0), malloc, (p0);\n    ld.param.b64 %d2, [r0];\n    }\n"
	"    cvta.to.global.u64 %d1, %d1;\n    st.global.u64 [%d1], %d2;\n    ret;\n}\n";

enum { COPIES = 60 };

int main(void)
{
	CUmodule module;
	CUstream stream;
	CUevent event;
	CUdeviceptr memory, taken;
	int value = 42, copied;
	void *parameters[] = { &value };

	open_device();
	CHECK(cuModuleLoadData(&module, code));
	CUfunction say = get_function(module, "say");
	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	CHECK(cuEventCreate(&event, 0));
	CHECK(cuLaunchKernel(get_function(module, "quiet"), 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
	SHOW(cuCtxSetLimit(CU_LIMIT_PRINTF_FIFO_SIZE, 2 << 20)); /* none has printed or allocated yet */
	SHOW(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, 32 << 20));
	printf("before\n");
	CHECK(cuLaunchKernel(say, 1, 1, 1, 1, 1, 1, 0, NULL, parameters, NULL));
	CHECK(cuCtxSynchronize());
	printf("after the context\n");
	SHOW(cuCtxSetLimit(CU_LIMIT_PRINTF_FIFO_SIZE, 4 << 20));
	CHECK(cuMemAlloc_v2(&memory, sizeof memory));
	CHECK(cuLaunchKernel(get_function(module, "take"), 1, 1, 1, 1, 1, 1, 0, NULL, (void *[]){ &memory }, NULL));
	CHECK(cuMemcpyDtoH_v2(&taken, memory, sizeof taken));
	printf("a large piece of the heap: %s\n", taken ? "had" : "refused");
	SHOW(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, 64 << 20));
	value = -1;
	CHECK(cuLaunchKernel(say, 1, 1, 1, 3, 1, 1, 0, stream, parameters, NULL));
	CHECK(cuStreamSynchronize(stream));
	printf("after the stream\n");
	value = 7;
	CHECK(cuLaunchKernel(say, 1, 1, 1, 1, 1, 1, 0, stream, parameters, NULL));
	CHECK(cuEventRecord(event, stream));
	CHECK(cuEventSynchronize(event));
	printf("after the event\n");
	CHECK(cuMemAlloc_v2(&memory, sizeof value));
	for (value = 0; value < COPIES; value++) {
		CHECK(cuLaunchKernel(say, 1, 1, 1, 1, 1, 1, 0, NULL, parameters, NULL));
		CHECK(cuMemcpyDtoH_v2(&copied, memory, sizeof copied));
		printf("after copy %d\n", value);
	}
	CHECK(cuDevicePrimaryCtxRelease_v2(0));
	return 0;
}
