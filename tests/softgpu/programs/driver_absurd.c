/* SPDX-License-Identifier: Apache-2.0
 *
 * Sizes that nobody means: launches and declarations that no GPU has room for are refused with the driver's own
 * errors, and what comes after them works.
 */
#include "program.h"

#include <stdint.h>

static const char text[] = PTX_HEADER PTX_ADD
	".visible .entry leave()\n{\n    ret;\n}\n"
	".visible .entry stop()\n{\n    trap;\n}\n"
	".visible .entry few() .maxntid 64, 1, 1\n{\n    ret;\n}\n"
	".visible .entry exact() .reqntid 32, 2, 1\n{\n    ret;\n}\n"
	".visible .entry shares()\n{\n    .reg .b32 a;\n    .shared .b8 all[49152];\n    mov.u32 a, all;\n    ret;\n}\n";

static CUfunction leave;

static CUresult run(CUfunction function, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz,
		    unsigned shared)
{
	CUresult result = cuLaunchKernel(function, x, y, z, bx, by, bz, shared, NULL, NULL, NULL);

	return result ? result : cuCtxSynchronize();
}

static void launches(CUmodule module)
{
	CUfunction shares = get_function(module, "shares"), exact = get_function(module, "exact");
	const unsigned most = UINT32_MAX;

	SHOW(run(leave, 1, 1, 1, 1, 1, 1, 0));
	SHOW(run(leave, 0, 1, 1, 1, 1, 1, 0));
	SHOW(run(leave, 1, 0, 1, 1, 1, 1, 0));
	SHOW(run(leave, 1, 1, 0, 1, 1, 1, 0));
	SHOW(run(leave, 1, 1, 1, 0, 1, 1, 0));
	SHOW(run(leave, 1, 1, 1, 1, 0, 1, 0));
	SHOW(run(leave, 1, 1, 1, 1, 1, 0, 0));
	SHOW(run(leave, most, 1, 1, 1, 1, 1, 0));
	SHOW(run(leave, 1u << 31, 1, 1, 1, 1, 1, 0));
	SHOW(run(leave, 1, 65536, 1, 1, 1, 1, 0));
	SHOW(run(leave, 1, 1, 65536, 1, 1, 1, 0));
	SHOW(run(leave, most, most, most, most, most, most, most));
	SHOW(run(leave, 1, 1, 1, most, 1, 1, 0));
	SHOW(run(leave, 1, 1, 1, 65536, 65536, 1, 0));
	SHOW(run(leave, 1, 1, 1, 1024, 1024, 64, 0));
	SHOW(run(leave, 1, 1, 1, 33, 32, 1, 0));
	SHOW(run(leave, 1, 1, 1, 1, 1, 65, 0));
	SHOW(run(leave, 1, 1, 1, 1, 1, 1, most));
	SHOW(run(leave, 1, 1, 1, 1, 1, 1, 49153));
	SHOW(run(leave, 1, 1, 1, 1, 1, 1, 49152));
	SHOW(run(shares, 1, 1, 1, 1, 1, 1, 0));
	SHOW(run(shares, 1, 1, 1, 1, 1, 1, 1));
	SHOW(run(shares, 1, 1, 1, 1, 1, 1, most - 49151));
	SHOW(run(exact, 1, 1, 1, 32, 1, 1, 0));
	SHOW(run(exact, 1, 1, 1, 64, 1, 1, 0));
	SHOW(run(exact, 1, 1, 1, 32, 2, 1, 0));
	SHOW(run(get_function(module, "few"), 1, 1, 1, 64, 1, 1, 0));
	SHOW(run(get_function(module, "few"), 1, 1, 1, 65, 1, 1, 0));
	SHOW(run(leave, 1, 65535, 1, 1, 1, 1, 0));
}

static void attributes(void)
{
	SHOW(cuFuncSetAttribute(leave, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, -1));
	SHOW(cuFuncSetAttribute(leave, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, INT32_MAX));
	SHOW(cuFuncSetAttribute(leave, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 64 << 10));
	SHOW(run(leave, 1, 1, 1, 1, 1, 1, 64 << 10));
	SHOW(run(leave, 1, 1, 1, 1, 1, 1, (64 << 10) + 1));
}

static CUresult cluster(unsigned grid, unsigned x, unsigned y, unsigned z)
{
	CUlaunchAttribute attribute = { .id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, .value.clusterDim = { x, y, z } };
	CUlaunchConfig config = { .gridDimX = grid,
				  .gridDimY = 1,
				  .gridDimZ = 1,
				  .blockDimX = 1,
				  .blockDimY = 1,
				  .blockDimZ = 1,
				  .attrs = &attribute,
				  .numAttrs = 1 };
	CUresult result = cuLaunchKernelEx(&config, leave, NULL, NULL);

	return result ? result : cuCtxSynchronize();
}

static CUresult cooperate(unsigned x, unsigned y, unsigned z)
{
	CUresult result = cuLaunchCooperativeKernel(leave, x, y, z, 1, 1, 1, 0, NULL, NULL);

	return result ? result : cuCtxSynchronize();
}

static void groups(void)
{
	const unsigned most = UINT32_MAX;

	SHOW(cluster(8, 4, 1, 1));
	SHOW(cluster(8, 0, 1, 1));
	SHOW(cluster(8, 3, 1, 1));
	SHOW(cluster(8, 1, 2, 1));
	SHOW(cluster(34, 17, 1, 1));
	SHOW(cluster(8, most, most, most));
	SHOW(cluster(65536, 65536, 65536, 1));
	SHOW(cooperate(2, 1, 1));
	SHOW(cooperate(2147483647, 65535, 65535));
	SHOW(cooperate(2147483647, 1, 1));
}

static CUresult node(unsigned x, unsigned bx, unsigned shared)
{
	CUDA_KERNEL_NODE_PARAMS parameters = { .func = leave,
					       .gridDimX = x,
					       .gridDimY = 1,
					       .gridDimZ = 1,
					       .blockDimX = bx,
					       .blockDimY = 1,
					       .blockDimZ = 1,
					       .sharedMemBytes = shared };
	CUgraph graph;
	CUgraphNode made;
	CUgraphExec exec = NULL;
	CUresult result;

	CHECK(cuGraphCreate(&graph, 0));
	result = cuGraphAddKernelNode_v2(&made, graph, NULL, 0, &parameters);
	if (!result)
		result = cuGraphInstantiateWithFlags(&exec, graph, 0);
	if (!result)
		result = cuGraphLaunch(exec, NULL);
	if (!result)
		result = cuCtxSynchronize();
	if (exec)
		CHECK(cuGraphExecDestroy(exec));
	CHECK(cuGraphDestroy(graph));
	return result;
}

static CUresult declare(const char *outside, const char *inside)
{
	char source[1024];
	CUmodule module;
	CUfunction function;
	CUresult result;

	snprintf(source, sizeof source, PTX_HEADER "%s\n.visible .entry k()\n{\n%s\n    ret;\n}\n", outside, inside);
	result = cuModuleLoadData(&module, source);
	if (result)
		return result;
	result = cuModuleGetFunction(&function, module, "k");
	if (!result)
		result = run(function, 1, 1, 1, 1, 1, 1, 0);
	CHECK(cuModuleUnload(module));
	return result;
}

static void declarations(void)
{
	SHOW(declare("", ""));
	SHOW(declare(".global .b8 x[4611686018427387904];", ""));
	SHOW(declare(".global .b8 x[18446744073709551615];", ""));
	SHOW(declare(".global .b64 x[4294967296][4294967296];", ""));
	SHOW(declare(".global .b8 x[-1];", ""));
	SHOW(declare(".global .align 3 .b8 x[8];", ""));
	SHOW(declare(".global .align 1073741824 .b8 x[8];", ""));
	SHOW(declare(".const .b8 x[65536];", ""));
	SHOW(declare(".const .b8 x[65537];", ""));
	SHOW(declare("", ".reg .b32 a;\n.shared .b8 x[49152];\nmov.u32 a, x;"));
	SHOW(declare("", ".reg .b32 a;\n.shared .b8 x[49153];\nmov.u32 a, x;"));
	SHOW(declare("", ".reg .b32 a;\n.shared .b8 x[1099511627776];\nmov.u32 a, x;"));
	SHOW(declare("", ".local .b8 x[524288];"));
	SHOW(declare("", ".local .b8 x[524289];"));
	SHOW(declare("", ".local .b8 x[1099511627776];"));
	SHOW(declare("", ".reg .b32 %r<1000000000>;"));
	SHOW(declare("", ".reg .b32 %r<18446744073709551615>;"));
	SHOW(declare(".visible .entry p(.param .b8 x[32764])\n{\n    ret;\n}", ""));
	SHOW(declare(".visible .entry p(.param .b8 x[32765])\n{\n    ret;\n}", ""));
	SHOW(declare(".visible .entry p() .maxntid 4294967295, 4294967295, 4294967295\n{\n    ret;\n}", ""));
	SHOW(declare(".visible .entry p() .reqntid 99999999999999999999\n{\n    ret;\n}", ""));
	SHOW(declare(".visible .entry p() .reqnctapercluster 65536, 65536, 65536\n{\n    ret;\n}", ""));
}

int main(void)
{
	CUmodule module;

	open_device();
	CHECK(cuModuleLoadData(&module, text));
	leave = get_function(module, "leave");
	launches(module);
	attributes();
	groups();
	SHOW(node(1, 1, 0));
	SHOW(node(0, 1, 0));
	SHOW(node(1, 1025, 0));
	SHOW(node(UINT32_MAX, 1, 0));
	SHOW(node(1, 1, UINT32_MAX));
	declarations();
	SHOW(run(leave, 1, 1, 1, 1024, 1, 1, 0));
	/* as many blocks as there may be; the first one ends the launch */
	SHOW(run(get_function(module, "stop"), 2147483647, 65535, 65535, 1, 1, 1, 0));
	SHOW(run(leave, 1, 1, 1, 1, 1, 1, 0));
	return 0;
}
