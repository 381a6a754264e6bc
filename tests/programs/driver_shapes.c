/* SPDX-License-Identifier: Apache-2.0
 *
 * Launches in shapes that a kernel or the device cannot take: the launch itself says so, nothing after it.
 */
#include "program.h"

static const char text[] = ".version 8.0\n.target sm_90\n.address_size 64\n"
			   ".visible .entry most(.param .u64 p) .maxntid 64 { ret; }\n"
			   ".visible .entry exact(.param .u64 p) .reqntid 32 { ret; }\n"
			   ".visible .entry exact_box(.param .u64 p) .reqntid 8, 4 { ret; }\n"
			   ".visible .entry any(.param .u64 p) { ret; }\n"
			   ".visible .entry pairs(.param .u64 p) .reqnctapercluster 2 { ret; }\n";

static void *parameters[1];
static CUmodule module;

static CUresult launch(const char *name, unsigned grid, unsigned x, unsigned y)
{
	return cuLaunchKernel(get_function(module, name), grid, 1, 1, x, y, 1, 0, NULL, parameters, NULL);
}

static CUresult launch_cluster(unsigned grid, unsigned cluster)
{
	CUlaunchAttribute attribute = cluster_of(cluster, 1, 1);
	CUlaunchConfig config = { .gridDimX = grid,
				  .gridDimY = 1,
				  .gridDimZ = 1,
				  .blockDimX = 32,
				  .blockDimY = 1,
				  .blockDimZ = 1,
				  .attrs = &attribute,
				  .numAttrs = 1 };

	return cuLaunchKernelEx(&config, get_function(module, "any"), parameters, NULL);
}

static CUresult launch_together(unsigned grid)
{
	return cuLaunchCooperativeKernel(get_function(module, "any"), grid, 1, 1, 1024, 1, 1, 0, NULL, parameters);
}

/* The failure was told: what waits afterwards succeeds. */
#define TRY(call) \
	do { \
		SHOW(call); \
		CHECK(cuCtxSynchronize()); \
	} while (0)

int main(void)
{
	CUdeviceptr memory;

	open_device();
	CHECK(cuModuleLoadData(&module, text));
	CHECK(cuMemAlloc_v2(&memory, 64));
	parameters[0] = &memory;
	for (int round = 0; round < 2; round++) {
		TRY(launch("most", 1, 64, 1));
		TRY(launch("most", 1, 65, 1));
		TRY(launch("exact", 1, 31, 1));
		TRY(launch("exact", 1, 32, 1));
		TRY(launch("exact", 1, 16, 1));
		TRY(launch("exact_box", 1, 8, 4));
		TRY(launch("exact_box", 1, 4, 8));
		TRY(launch("pairs", 4, 32, 1));
		TRY(launch("pairs", 3, 32, 1));
		TRY(launch_cluster(4, 2));
		TRY(launch_cluster(4, 3));
		TRY(launch_cluster(32, 32));
		TRY(launch_together(1));
		TRY(launch_together(1 << 22));
	}
	return 0;
}
