/* SPDX-License-Identifier: Apache-2.0
 *
 * What the driver-API programs share. They print what they find, never addresses or times, so that what they
 * print may be compared between drivers and ways to reach them.
 */
#ifndef PROGRAM_H
#define PROGRAM_H

#include "cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH(array) (sizeof(array) / sizeof *(array))

static inline const char *error_name(CUresult result)
{
	const char *name = NULL;

	return cuGetErrorName(result, &name) == CUDA_SUCCESS ? name : "?";
}

#define CHECK(call) \
	do { \
		CUresult result_ = (call); \
		if (result_ != CUDA_SUCCESS) { \
			printf("line %d: %s: %s\n", __LINE__, #call, error_name(result_)); \
			exit(1); \
		} \
	} while (0)

/* Prints what a call answers: for calls that are meant to fail, and those whose answer is the subject. */
#define SHOW(call) printf("%s: %s\n", #call, error_name(call))

/* The primary context of device 0, current. */
static inline CUcontext open_device(void)
{
	CUcontext context;

	setvbuf(stdout, NULL, _IOLBF, 0);
	CHECK(cuInit(0));
	CHECK(cuDevicePrimaryCtxRetain(&context, 0));
	CHECK(cuCtxSetCurrent(context));
	return context;
}

static inline CUfunction get_function(CUmodule module, const char *name)
{
	CUfunction function;

	CHECK(cuModuleGetFunction(&function, module, name));
	return function;
}

/* A graph's node that runs a kernel in one thread. */
static inline CUDA_KERNEL_NODE_PARAMS one_thread(CUfunction function, void **parameters)
{
	return (CUDA_KERNEL_NODE_PARAMS){ .func = function,
					  .gridDimX = 1,
					  .gridDimY = 1,
					  .gridDimZ = 1,
					  .blockDimX = 1,
					  .blockDimY = 1,
					  .blockDimZ = 1,
					  .kernelParams = parameters };
}

/* The same, for the function that adds nodes of any kind. */
static inline CUgraphNodeParams any_one_thread(CUfunction function, void **parameters)
{
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_KERNEL };

	params.kernel.func = function;
	params.kernel.gridDimX = params.kernel.gridDimY = params.kernel.gridDimZ = 1;
	params.kernel.blockDimX = params.kernel.blockDimY = params.kernel.blockDimZ = 1;
	params.kernel.kernelParams = parameters;
	return params;
}

static inline CUlaunchAttribute cluster_of(unsigned x, unsigned y, unsigned z)
{
	CUlaunchAttribute attribute = { .id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION };

	attribute.value.clusterDim.x = x;
	attribute.value.clusterDim.y = y;
	attribute.value.clusterDim.z = z;
	return attribute;
}

#define PTX_HEADER ".version 7.0\n.target sm_70\n.address_size 64\n"

/* %r5 is the global index of the thread. */
#define PTX_INDEX \
	"    mov.u32 %r2, %ctaid.x;\n    mov.u32 %r3, %ntid.x;\n    mov.u32 %r4, %tid.x;\n" \
	"    mad.lo.u32 %r5, %r2, %r3, %r4;\n"
#define PTX_REGISTERS "    .reg .pred %p<4>;\n    .reg .b32 %r<16>;\n    .reg .f32 %f<8>;\n    .reg .b64 %d<16>;\n"

/* add(a, b, c, n): c[i] = a[i] + b[i] */
#define PTX_ADD \
	".visible .entry add(.param .u64 a, .param .u64 b, .param .u64 c, .param .u32 n)\n{\n" PTX_REGISTERS \
	"    ld.param.u64 %d1, [a];\n    ld.param.u64 %d2, [b];\n" \
	"    ld.param.u64 %d3, [c];\n    ld.param.u32 %r1, [n];\n" PTX_INDEX \
	"    setp.ge.u32 %p1, %r5, %r1;\n    @%p1 bra done;\n    mul.wide.u32 %d4, %r5, 4;\n" \
	"    cvta.to.global.u64 %d1, %d1;\n    cvta.to.global.u64 %d2, %d2;\n" \
	"    cvta.to.global.u64 %d3, %d3;\n    add.u64 %d5, %d1, %d4;\n    add.u64 %d6, %d2, %d4;\n" \
	"    add.u64 %d7, %d3, %d4;\n    ld.global.f32 %f1, [%d5];\n    ld.global.f32 %f2, [%d6];\n" \
	"    add.f32 %f3, %f1, %f2;\n    st.global.f32 [%d7], %f3;\ndone:\n    ret;\n}\n"

/* scale(x, factor, n): x[i] = x[i] * factor + i, in unsigned */
#define PTX_SCALE \
	".visible .entry scale(.param .u64 x, .param .u32 factor, .param .u32 n)\n{\n" PTX_REGISTERS \
	"    ld.param.u64 %d1, [x];\n    ld.param.u32 %r6, [factor];\n    ld.param.u32 %r1, [n];\n" PTX_INDEX \
	"    setp.ge.u32 %p1, %r5, %r1;\n    @%p1 bra done;\n    mul.wide.u32 %d2, %r5, 4;\n" \
	"    cvta.to.global.u64 %d1, %d1;\n    add.u64 %d3, %d1, %d2;\n" \
	"    ld.global.u32 %r7, [%d3];\n    mad.lo.u32 %r8, %r7, %r6, %r5;\n" \
	"    st.global.u32 [%d3], %r8;\ndone:\n    ret;\n}\n"

/* work(x, rounds): keeps one thread busy for that many rounds, then adds 1 to *x */
#define PTX_WORK \
	".visible .entry work(.param .u64 x, .param .u32 rounds)\n{\n" PTX_REGISTERS \
	"    ld.param.u64 %d1, [x];\n    ld.param.u32 %r1, [rounds];\n    mov.u32 %r2, 0;\n" \
	"again:\n    setp.ge.u32 %p1, %r2, %r1;\n    @%p1 bra done;\n    add.u32 %r2, %r2, 1;\n" \
	"    bra again;\ndone:\n    cvta.to.global.u64 %d1, %d1;\n    ld.global.u32 %r3, [%d1];\n" \
	"    add.u32 %r3, %r3, 1;\n    st.global.u32 [%d1], %r3;\n    ret;\n}\n"

/* until(x): runs until *x is not 0 */
#define PTX_UNTIL \
	".visible .entry until(.param .u64 x)\n{\n" PTX_REGISTERS "    ld.param.u64 %d1, [x];\n" \
	"    cvta.to.global.u64 %d1, %d1;\nagain:\n    ld.volatile.global.u32 %r1, [%d1];\n" \
	"    setp.eq.u32 %p1, %r1, 0;\n    @%p1 bra again;\n    ret;\n}\n"

#endif
