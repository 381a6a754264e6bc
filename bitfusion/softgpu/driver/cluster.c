/* SPDX-License-Identifier: Apache-2.0
 *
 * Clusters: which size a launch has, whether it may, and how many fit.
 */
#include "queue.h"

#include <stdio.h>
#include <string.h>

enum { PORTABLE_CLUSTER = 8, LARGEST_CLUSTER = 16 }; /* blocks */

static uint64_t blocks_of(const uint32_t cluster[3])
{
	return (uint64_t)cluster[0] * cluster[1] * cluster[2];
}

/* What the kernel was compiled for, or was told later; 0, 0, 0 where neither says anything. */
static void required_cluster(const struct function *function, uint32_t cluster[3])
{
	for (int i = 0; i < 3; i++) {
		cluster[i] = function->code->required_cluster[i];
		if (!function->code->required_cluster[0])
			cluster[i] = (uint32_t)function->cluster[i];
	}
}

static CUresult refuse(const struct function *function, const char *why)
{
	char text[200];
	snprintf(text, sizeof text, "kernel '%.100s': %s", function->code->name, why);
	driver_say(text);
	return CUDA_ERROR_INVALID_CLUSTER_SIZE;
}

/* asked: 0, 0, 0 when the launch does not say. */
static CUresult choose(const struct function *function, const uint32_t asked[3], uint32_t cluster[3])
{
	uint32_t required[3];
	required_cluster(function, required);
	memmove(cluster, asked[0] ? asked : required, 3 * sizeof *cluster);
	if (required[0] && memcmp(cluster, required, sizeof required))
		return refuse(function, "it requires another size of clusters");
	if (!cluster[0] && function->code->explicit_cluster)
		return refuse(function, "its launch has to give the size of clusters");
	return CUDA_SUCCESS;
}

static unsigned largest(const struct function *function)
{
	unsigned most = function->cluster_nonportable ? LARGEST_CLUSTER : PORTABLE_CLUSTER;
	if (function->code->max_cluster && function->code->max_cluster < most)
		most = function->code->max_cluster;
	return most;
}

CUresult cluster_prepare(struct kernel_work *kernel)
{
	const struct function *function = kernel->function;
	struct sg_fault fault = { 0 };
	TRY(choose(function, kernel->cluster, kernel->cluster));
	if (!kernel->cluster[0])
		return CUDA_SUCCESS;
	if (sg_cluster_check(function->code, kernel->grid, kernel->cluster, &fault)) {
		driver_say(fault.text);
		return (CUresult)fault.error;
	}
	if (blocks_of(kernel->cluster) > largest(function))
		return refuse(function, "more blocks in a cluster than are allowed");
	return CUDA_SUCCESS;
}

static CUresult enter(CUfunction handle, struct function **function)
{
	ENTER_CONTEXT(context);
	return function_resolve(handle, context, function);
}

static unsigned blocks_fit(const struct function *function, const CUlaunchConfig *config)
{
	return function_blocks(function, config->blockDimX * config->blockDimY * config->blockDimZ,
			       config->sharedMemBytes) *
	       SM_COUNT;
}

EXPORT CUresult cuOccupancyMaxPotentialClusterSize(int *clusterSize, CUfunction func, const CUlaunchConfig *config)
{
	struct function *function;
	uint32_t required[3];
	TRY(enter(func, &function));
	if (!clusterSize || !config)
		return CUDA_ERROR_INVALID_VALUE;
	required_cluster(function, required);
	unsigned size = required[0] ? (unsigned)blocks_of(required) : largest(function),
		 fit = blocks_fit(function, config);
	*clusterSize = (int)(size < fit || required[0] ? size : fit);
	return CUDA_SUCCESS;
}

EXPORT CUresult cuOccupancyMaxActiveClusters(int *numClusters, CUfunction func, const CUlaunchConfig *config)
{
	struct function *function;
	uint32_t asked[3] = { 0, 0, 0 }, cluster[3];
	TRY(enter(func, &function));
	if (!numClusters || !config || (config->numAttrs && !config->attrs))
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned i = 0; i < config->numAttrs; i++) {
		const CUlaunchAttributeValue *value = &config->attrs[i].value;
		if (config->attrs[i].id != CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION)
			continue;
		asked[0] = value->clusterDim.x;
		asked[1] = value->clusterDim.y;
		asked[2] = value->clusterDim.z;
	}
	TRY(choose(function, asked, cluster));
	if (!blocks_of(cluster))
		return CUDA_ERROR_INVALID_VALUE;
	*numClusters =
		blocks_of(cluster) > largest(function) ? 0 : (int)(blocks_fit(function, config) / blocks_of(cluster));
	return CUDA_SUCCESS;
}
