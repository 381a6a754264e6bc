/* SPDX-License-Identifier: Apache-2.0
 *
 * Clusters: which sizes run, which are refused, and what can be asked about them.
 */
#include "program.h"

static const char code[] =
	PTX_HEADER ".visible .entry plain(.param .u64 x)\n{\n" PTX_REGISTERS "    ld.param.u64 %d1, [x];\n"
		   "    red.global.add.u32 [%d1], 1;\n    ret;\n}\n";
static const char pairs[] =
	".version 8.0\n.target sm_90\n.address_size 64\n"
	".visible .entry pairs() .reqnctapercluster 2\n{\n    ret;\n}\n"
	".visible .entry told() .explicitcluster\n{\n    ret;\n}\n"
	".visible .entry few() .maxclusterrank 4\n{\n    ret;\n}\n"
			    /* each block adds its rank to the next one's counter, in shared memory */
	".visible .entry ring(.param .u64 x)\n{\n"
	"    .reg .b32 %r<9>; .reg .b64 %d<4>; .shared .u32 counter;\n"
	"    ld.param.u64 %d1, [x]; mov.u32 %r1, %cluster_ctarank; mov.u32 %r2, %cluster_nctarank;\n"
	"    st.shared.u32 [counter], 0; barrier.cluster.arrive; barrier.cluster.wait;\n"
	"    add.u32 %r3, %r1, 1; rem.u32 %r3, %r3, %r2; mov.u32 %r4, counter;\n"
	"    mapa.shared::cluster.u32 %r5, %r4, %r3;\n"
	"    red.shared::cluster.add.u32 [%r5], %r1; barrier.cluster.arrive; barrier.cluster.wait;\n"
	"    ld.shared.u32 %r6, [counter]; mov.u32 %r7, %ctaid.x; mul.wide.u32 %d2, %r7, 4;\n"
	"    add.u64 %d1, %d1, %d2; st.global.u32 [%d1], %r6;\n    ret;\n}\n";

static CUlaunchAttribute cluster;

static CUlaunchConfig with_cluster(unsigned x, unsigned y, unsigned z)
{
	cluster = cluster_of(x, y, z);
	return (CUlaunchConfig){ 4, 4, 1, 1, 1, 1, 0, NULL, &cluster, 1 };
}

static void ask(CUfunction function, unsigned x, unsigned y)
{
	CUlaunchConfig config = with_cluster(x, y, 1);
	int largest = -1, active = -1;

	CHECK(cuOccupancyMaxPotentialClusterSize(&largest, function, &config));
	CUresult result = cuOccupancyMaxActiveClusters(&active, function, &config);
	printf("(%u,%u,1): largest %d, any active: %s, %s\n", x, y, largest, active > 0 ? "yes" : "no",
	       error_name(result));
}

static void add_node(CUfunction function)
{
	CUDA_KERNEL_NODE_PARAMS params = one_thread(function, NULL);
	CUgraph graph;
	CUgraphNode node;

	params.gridDimX = 2;
	CHECK(cuGraphCreate(&graph, 0));
	SHOW(cuGraphAddKernelNode_v2(&node, graph, NULL, 0, &params));
	CHECK(cuGraphDestroy(graph));
}

static void ask_attributes(CUfunction function)
{
	static const CUfunction_attribute asked[] = { CU_FUNC_ATTRIBUTE_CLUSTER_SIZE_MUST_BE_SET,
						      CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH,
						      CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_HEIGHT,
						      CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_DEPTH,
						      CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED };
	for (int i = 0; i < 5; i++) {
		int value = -1;
		CHECK(cuFuncGetAttribute(&value, asked[i], function));
		printf(" %d", value);
	}
	printf("\n");
}

static void ring(CUfunction function, unsigned size)
{
	CUdeviceptr sums;
	unsigned found[16];

	CHECK(cuMemAlloc_v2(&sums, sizeof found));
	void *parameters[] = { &sums };
	CUlaunchConfig config = with_cluster(size, 1, 1);
	config.gridDimX = 16;
	config.gridDimY = 1;
	SHOW(cuLaunchKernelEx(&config, function, parameters, NULL));
	CHECK(cuMemcpyDtoH_v2(found, sums, sizeof found));
	printf("ring of %u:", size);
	for (int i = 0; i < 16; i++)
		printf(" %u", found[i]);
	printf("\n");
	CHECK(cuMemFree_v2(sums));
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
	CUfunction told = get_function(modules[1], "told"), few = get_function(modules[1], "few");
	CUfunction around = get_function(modules[1], "ring");
	CHECK(cuMemAlloc_v2(&counter, 4));
	CHECK(cuMemsetD32_v2(counter, 0, 1));
	void *parameters[] = { &counter };
	CUlaunchConfig one = with_cluster(1, 1, 1);
	SHOW(cuLaunchKernelEx(&one, plain, parameters, NULL));
	CUlaunchConfig several = with_cluster(2, 2, 1);
	SHOW(cuLaunchKernelEx(&several, plain, parameters, NULL));
	CUlaunchConfig uneven = with_cluster(3, 1, 1);
	SHOW(cuLaunchKernelEx(&uneven, plain, parameters, NULL));
	CUlaunchConfig none = with_cluster(0, 1, 1);
	SHOW(cuLaunchKernelEx(&none, plain, parameters, NULL));
	CUlaunchConfig large = with_cluster(4, 4, 1);
	SHOW(cuLaunchKernelEx(&large, plain, parameters, NULL));
	CHECK(cuFuncSetAttribute(plain, CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1));
	SHOW(cuLaunchKernelEx(&large, plain, parameters, NULL));
	SHOW(cuLaunchKernel(two, 2, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
	SHOW(cuLaunchKernel(two, 3, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
	several = with_cluster(2, 2, 1);
	SHOW(cuLaunchKernelEx(&several, two, NULL, NULL));
	SHOW(cuLaunchKernel(told, 2, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
	SHOW(cuLaunchKernelEx(&several, told, NULL, NULL));
	CUlaunchConfig eight = with_cluster(4, 2, 1);
	SHOW(cuLaunchKernelEx(&eight, few, NULL, NULL));
	add_node(two);
	/* a launch that was refused leaves the context as it was */
	SHOW(cuCtxSynchronize());
	CHECK(cuMemcpyDtoH_v2(&count, counter, 4));
	printf("blocks that ran: %u\n", count);
	ask(plain, 1, 1);
	ask(plain, 2, 1);
	ask(plain, 32, 1);
	ask(two, 2, 1);
	ask(two, 4, 1);
	ask(few, 2, 1);
	ask_attributes(plain);
	ask_attributes(two);
	ask_attributes(told);
	SHOW(cuFuncSetAttribute(two, CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH, 4));
	ring(around, 1);
	ring(around, 4);
	ring(around, 8);
	CHECK(cuFuncSetAttribute(around, CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH, 2));
	CHECK(cuFuncSetAttribute(around, CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_HEIGHT, 1));
	CHECK(cuFuncSetAttribute(around, CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_DEPTH, 1));
	ask_attributes(around);
	ring(around, 2);
	CUlaunchConfig four = with_cluster(4, 1, 1);
	SHOW(cuLaunchKernelEx(&four, around, parameters, NULL));
	return 0;
}
