/* SPDX-License-Identifier: Apache-2.0
 *
 * A launch: what it needs before its first block, and what fits a multiprocessor.
 */
#include <stdio.h>
#include <stdlib.h>

#include "internal.h"

static bool refuse(struct sg_fault *fault, int error, const char *name, const char *why)
{
	fault->error = error;
	snprintf(fault->text, sizeof(fault->text), "kernel '%.100s': %s", name, why);
	return false;
}

int sg_cluster_check(const struct sg_kernel *kernel, const uint32_t grid[3], const uint32_t cluster[3],
		     struct sg_fault *fault)
{
	uint64_t blocks = 1;

	for (int k = 0; k < 3; k++) {
		const uint32_t size = cluster[k] ? cluster[k] : 1;

		blocks = size > SG_MAX_CLUSTER ? SG_MAX_CLUSTER + 1 : blocks * size;
		if (grid[k] % size)
			refuse(fault, SG_INVALID_CLUSTER_SIZE, kernel->name,
			       "the grid is not a multiple of the cluster");
	}
	if (blocks > SG_MAX_CLUSTER)
		refuse(fault, SG_INVALID_CLUSTER_SIZE, kernel->name, "a cluster has at most 16 blocks");
	return fault->error;
}

/* The block that cooperative_groups' grid.sync() counts arrivals in; its barrier is the second word. */
static bool make_workspace(struct sg_run *run, struct sg_context *context)
{
	uint64_t *memory = calloc(8, sizeof(*memory));

	if (!memory || sg_space_add(context->space, (uint64_t)(uintptr_t)memory, 64)) {
		free(memory);
		return false;
	}
	run->workspace = (uint64_t)(uintptr_t)memory;
	return true;
}

bool sg_run_prepare(struct sg_run *run, const struct sg_launch *launch, struct sg_fault *fault)
{
	const struct sg_image *image = launch->module->image;
	const size_t kernel = (size_t)(launch->kernel - image->kernels);
	const uint32_t parameters = launch->kernel->parameters_size;
	const uint64_t threads = (uint64_t)launch->block[0] * launch->block[1] * launch->block[2];

	*run = (struct sg_run){ .launch = launch, .image = image };
	if (!threads || threads > 1024 || !launch->grid[0] || !launch->grid[1] || !launch->grid[2] ||
	    kernel >= image->kernel_count)
		return refuse(fault, 1, launch->kernel->name, "the grid or the block is empty or too large");
	const uint32_t *cluster = launch->cluster[0] ? launch->cluster : launch->kernel->required_cluster;

	if (sg_cluster_check(launch->kernel, launch->grid, cluster, fault))
		return false;
	run->function = &image->functions[image->kernel_function[kernel]];
	run->block_threads = (uint32_t)threads;
	run->warp_count = (uint32_t)(threads + SG_LANES - 1) / SG_LANES;
	/* Compilers load all 16 bytes where they need some: shared memory never ends in between on a GPU. */
	run->shared_size = (launch->kernel->static_shared + 15) / 16 * 16;
	run->shared_size += (launch->dynamic_shared + 15) / 16 * 16;
	run->reserved = run->shared_size;
	if (image->kernel_flags[kernel] & SG_KERNEL_RESERVES)
		run->shared_size += SG_RESERVED_SMEM;
	run->local_size = (image->kernel_stack[kernel] + 15) / 16 * 16;
	run->cluster_size = 1;
	run->clusters = 1;
	for (int k = 0; k < 3; k++) {
		run->cluster[k] = cluster[k] ? cluster[k] : 1;
		run->cluster_size *= run->cluster[k];
		run->clusters *= launch->grid[k] / run->cluster[k];
	}
	run->parameters = aligned_alloc(64, (parameters + 63) / 64 * 64 + 64);
	if (!run->parameters)
		return refuse(fault, 2, launch->kernel->name, "no memory for its parameters");
	if (parameters)
		memcpy(run->parameters, launch->parameters, parameters);
	if (launch->cooperative && !make_workspace(run, launch->context)) {
		free(run->parameters);
		return refuse(fault, 2, launch->kernel->name, "no memory for the grid's barrier");
	}
	run->grid = (uint32_t)atomic_fetch_add(&launch->context->grid, 1) + 1;
	pthread_mutex_init(&run->lock, NULL);
	pthread_cond_init(&run->finished, NULL);
	run->resident_limit = launch->cooperative ? UINT32_MAX : 1024;
	if (!launch->cooperative && sg_block_bytes(run) * run->cluster_size * run->resident_limit > 512u << 20)
		run->resident_limit = (uint32_t)((512u << 20) / sg_block_bytes(run) / run->cluster_size) + 4;
	return true;
}

void sg_run_release(struct sg_run *run)
{
	struct sg_cluster *lists[] = { run->spare, run->parked };

	for (int k = 0; k < 2; k++) {
		for (struct sg_cluster *cluster = lists[k], *next; cluster; cluster = next) {
			next = cluster->next;
			sg_cluster_free(cluster);
		}
	}
	if (run->workspace) {
		sg_space_remove(run->launch->context->space, run->workspace);
		free((void *)(uintptr_t)run->workspace);
	}
	free(run->parameters);
	pthread_mutex_destroy(&run->lock);
	pthread_cond_destroy(&run->finished);
}

bool sg_run_cancelled(struct sg_run *run)
{
	const volatile int *cancel = run->launch->cancel;

	if (!cancel || !__atomic_load_n(cancel, __ATOMIC_RELAXED))
		return atomic_load_explicit(&run->stop, memory_order_relaxed);
	pthread_mutex_lock(&run->lock);
	if (!run->fault.error)
		refuse(&run->fault, SG_LAUNCH_TIMEOUT, run->launch->kernel->name, "cancelled");
	pthread_mutex_unlock(&run->lock);
	atomic_store(&run->stop, SG_STOPPED);
	return true;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

unsigned sg_occupancy(const struct sg_kernel *kernel, const struct sg_limits *limits, uint32_t block_threads,
		      uint64_t dynamic_shared)
{
	const uint64_t warps = (block_threads + SG_LANES - 1) / SG_LANES;
	/* registers are given to warps in units of 256 */
	const uint64_t registers = warps * (((uint64_t)kernel->registers * SG_LANES + 255) / 256 * 256);
	const uint64_t shared =
		(kernel->static_shared + dynamic_shared + limits->reserved_shared_per_block + 127) / 128 * 128;
	uint64_t blocks = limits->blocks_per_sm;

	if (!block_threads || block_threads > kernel->max_threads)
		return 0;
	blocks = smaller(blocks, limits->threads_per_sm / (warps * SG_LANES));
	if (registers)
		blocks = smaller(blocks, limits->registers_per_sm / registers);
	if (shared)
		blocks = smaller(blocks, limits->shared_per_sm / shared);
	return (unsigned)blocks;
}
