/* SPDX-License-Identifier: Apache-2.0
 *
 * Works steadily until it is stopped: allocations, launches, copies both ways, waits. Prints "ready" once it is under
 * way. With a number, stops by itself after that many rounds and says how it went.
 */
#include "cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIZE = 1 << 20, HELD = 64 << 20 };

static const char ptx[] = ".version 7.0\n.target sm_70\n.address_size 64\n"
			  ".visible .entry fill(.param .u64 out, .param .u32 value)\n{\n"
			  "    .reg .b32 %r<6>;\n    .reg .b64 %d<4>;\n"
			  "    ld.param.u64 %d1, [out];\n    cvta.to.global.u64 %d1, %d1;\n"
			  "    ld.param.u32 %r1, [value];\n"
			  "    mov.u32 %r2, %ctaid.x;\n    mov.u32 %r3, %ntid.x;\n    mov.u32 %r4, %tid.x;\n"
			  "    mad.lo.u32 %r5, %r2, %r3, %r4;\n    mul.wide.u32 %d2, %r5, 4;\n"
			  "    add.u64 %d3, %d1, %d2;\n    st.global.u32 [%d3], %r1;\n    ret;\n}\n";

static void check(CUresult status, const char *what)
{
	const char *name = "?";

	if (!status)
		return;
	cuGetErrorName(status, &name);
	printf("%s: %s\n", what, name);
	exit(1);
}

#define CHECK(call) check(call, #call)

int main(int argc, char **argv)
{
	long rounds = argc > 1 ? atol(argv[1]) : -1;
	static unsigned host[SIZE / 4];
	CUdeviceptr memory, held;
	CUcontext context;
	CUfunction fill;
	CUmodule module;
	CUstream stream;
	CUevent event;

	CHECK(cuInit(0));
	CHECK(cuDevicePrimaryCtxRetain(&context, 0));
	CHECK(cuCtxSetCurrent(context));
	CHECK(cuModuleLoadData(&module, ptx));
	CHECK(cuModuleGetFunction(&fill, module, "fill"));
	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	CHECK(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
	CHECK(cuMemAlloc_v2(&held, HELD));
	for (unsigned round = 0; rounds < 0 || round < rounds; round++) {
		void *parameters[] = { &memory, &round };

		CHECK(cuMemAlloc_v2(&memory, SIZE));
		CHECK(cuMemcpyHtoDAsync_v2(memory, host, SIZE, stream));
		CHECK(cuLaunchKernel(fill, SIZE / 4 / 128, 1, 1, 128, 1, 1, 0, stream, parameters, NULL));
		CHECK(cuEventRecord(event, stream));
		CHECK(cuMemcpyDtoHAsync_v2(host, memory, SIZE, stream));
		CHECK(cuEventSynchronize(event));
		CHECK(cuStreamSynchronize(stream));
		CHECK(cuMemFree_v2(memory));
		if (round == 1) {
			printf("ready\n");
			fflush(stdout);
		}
	}
	CHECK(cuMemFree_v2(held));
	CHECK(cuEventDestroy_v2(event));
	CHECK(cuStreamDestroy_v2(stream));
	CHECK(cuModuleUnload(module));
	CHECK(cuCtxSynchronize());
	CHECK(cuDevicePrimaryCtxRelease_v2(0));
	printf("done, last value %u\n", host[SIZE / 4 - 1]);
	return 0;
}
