/* SPDX-License-Identifier: Apache-2.0
 *
 * Clusters: of one block they run, of more they are refused, and what can be asked about them says so.
 */
#include "program.h"

static const char code[] =
	PTX_HEADER ".visible .entry plain(.param .u64 x)\n{\n" PTX_REGISTERS "    ld.param.u64 %d1, [x];\n"
		   "    red.global.add.u32 [%d1], 1;\n    ret;\n}\n";
static const char pairs[] = ".version 8.0\n.target sm_90\n.address_size 64\n"
			    ".visible .entry pairs() .reqnctapercluster 2\n{\n    ret;\n}\n";

static CUlaunchAttribute cluster;

static CUlaunchConfig with_cluster(unsigned x, unsigned y, unsigned z)
{
	cluster.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
	cluster.value.clusterDim.x = x;
	cluster.value.clusterDim.y = y;
	cluster.value.clusterDim.z = z;
	return (CUlaunchConfig){ 4, 4, 1, 1, 1, 1, 0, NULL, &cluster, 1 };
}

static void ask(CUfunction function, unsigned x, unsigned y)
{
	CUlaunchConfig config = with_cluster(x, y, 1);
	int largest = -1, active = -1;

	CHECK(cuOccupancyMaxPotentialClusterSize(&largest, function, &config));
	CHECK(cuOccupancyMaxActiveClusters(&active, function, &config));
	printf("(%u,%u,1): largest %d, any active: %s\n", x, y, largest, active > 0 ? "yes" : "no");
}

static void add_node(CUfunction function)
{
	CUDA_KERNEL_NODE_PARAMS params = { .func = function,
					   .gridDimX = 2,
					   .gridDimY = 1,
					   .gridDimZ = 1,
					   .blockDimX = 1,
					   .blockDimY = 1,
					   .blockDimZ = 1 };
	CUgraph graph;
	CUgraphNode node;

	CHECK(cuGraphCreate(&graph, 0));
	SHOW(cuGraphAddKernelNode_v2(&node, graph, NULL, 0, &params));
	CHECK(cuGraphDestroy(graph));
}

int main(void)
{
	CUmodule modules[2];
	CUdeviceptr counter;
	unsigned count = 0;
	int can = -1;

	open_device();
	CHECK(cuDeviceGetAttribute(&can, CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH, 0));
	printf("clusters: %d\n", can);
	CHECK(cuModuleLoadData(&modules[0], code));
	CHECK(cuModuleLoadData(&modules[1], pairs));
	CUfunction plain = get_function(modules[0], "plain"), two = get_function(modules[1], "pairs");
	CHECK(cuMemAlloc_v2(&counter, 4));
	CHECK(cuMemsetD32_v2(counter, 0, 1));
	void *parameters[] = { &counter };
	CUlaunchConfig one = with_cluster(1, 1, 1);
	SHOW(cuLaunchKernelEx(&one, plain, parameters, NULL));
	CUlaunchConfig several = with_cluster(2, 2, 1);
	SHOW(cuLaunchKernelEx(&several, plain, parameters, NULL));
	CUlaunchConfig uneven = with_cluster(3, 1, 1);
	SHOW(cuLaunchKernelEx(&uneven, plain, parameters, NULL));
	SHOW(cuLaunchKernel(two, 2, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
	add_node(two);
	/* a launch that was refused leaves the context as it was */
	SHOW(cuCtxSynchronize());
	CHECK(cuMemcpyDtoH_v2(&count, counter, 4));
	printf("blocks that ran: %u\n", count);
	ask(plain, 1, 1);
	ask(plain, 2, 1);
	ask(two, 2, 1);
	return 0;
}
