/* SPDX-License-Identifier: Apache-2.0
 *
 * A cluster is what a thread takes to run: its blocks go on in turns, so that they may wait for each other and reach
 * each other's shared memory, and never run at the same time. A block without a cluster is one alone.
 */
#include <stdlib.h>

#include "internal.h"

struct sg_cluster *sg_cluster_new(struct sg_run *run)
{
	struct sg_cluster *cluster = calloc(1, sizeof(*cluster) + run->cluster_size * sizeof(cluster->blocks[0]));

	if (!cluster)
		return NULL;
	cluster->run = run;
	for (; cluster->size < run->cluster_size; cluster->size++) {
		struct sg_block *block = sg_block_new(run);

		if (!block) {
			sg_cluster_free(cluster);
			return NULL;
		}
		block->cluster = cluster;
		block->rank = cluster->size;
		cluster->blocks[cluster->size] = block;
	}
	return cluster;
}

void sg_cluster_free(struct sg_cluster *cluster)
{
	for (uint32_t k = 0; k < cluster->size; k++)
		sg_block_free(cluster->blocks[k]);
	free(cluster);
}

void sg_cluster_place(const struct sg_run *run, uint64_t number, uint32_t first[3])
{
	const uint32_t *size = run->cluster;
	const uint64_t wide = run->launch->grid[0] / size[0], high = run->launch->grid[1] / size[1];

	first[0] = (uint32_t)(number % wide) * size[0];
	first[1] = (uint32_t)(number / wide % high) * size[1];
	first[2] = (uint32_t)(number / wide / high) * size[2];
}

void sg_cluster_start(struct sg_cluster *cluster, uint64_t number)
{
	const uint32_t *size = cluster->run->cluster;
	uint32_t base[3];

	sg_cluster_place(cluster->run, number, base);
	cluster->arrived = 0;
	for (uint32_t rank = 0; rank < cluster->size; rank++) {
		const uint32_t index[3] = { base[0] + rank % size[0], base[1] + rank / size[0] % size[1],
					    base[2] + rank / size[0] / size[1] };

		sg_block_start(cluster->blocks[rank], index);
	}
}

/* Nobody of the cluster can run. */
static bool break_deadlock(struct sg_cluster *cluster)
{
	bool freed = false;

	for (uint32_t k = 0; k < cluster->size; k++)
		freed |= sg_block_release(cluster->blocks[k]);
	for (uint32_t k = 0; k < cluster->size && !freed; k++)
		if (sg_block_deadlock(cluster->blocks[k]))
			break;
	return freed;
}

enum sg_outcome sg_cluster_run(struct sg_cluster *cluster)
{
	for (int round = 0; round < SG_ROUNDS; round++) {
		bool yielded = false, progress = false;
		uint32_t left = 0;

		for (uint32_t k = 0; k < cluster->size; k++) {
			struct sg_block *block = cluster->blocks[k];

			block->progress = false;
			if (block->warps_left && !sg_block_round(block, &yielded))
				return SG_FAULTED;
			progress |= block->progress;
			left += block->warps_left;
		}
		if (!left)
			return SG_DONE;
		if (!progress && !yielded && !break_deadlock(cluster))
			return SG_FAULTED;
		if (yielded && sg_run_cancelled(cluster->run))
			return SG_FAULTED;
	}
	return SG_YIELDED;
}

/* ------------------------------------------------------------------ the barrier of all its threads */

static void recheck(struct sg_cluster *cluster)
{
	uint32_t threads = 0;

	for (uint32_t k = 0; k < cluster->size; k++)
		threads += cluster->blocks[k]->threads;
	if (!cluster->arrived || cluster->arrived < threads)
		return;
	cluster->arrived = 0;
	for (uint32_t k = 0; k < cluster->size; k++) {
		struct sg_block *block = cluster->blocks[k];

		for (uint32_t n = 0; n < block->warp_count; n++)
			block->warps[n].arrived = 0;
		sg_barrier_open(block, SG_CLUSTER_BARRIER);
	}
}

void sg_cluster_arrive(struct sg_warp *w, uint32_t m)
{
	struct sg_cluster *cluster = w->block->cluster;

	cluster->arrived += (uint32_t)__builtin_popcount(m & ~w->arrived);
	w->arrived |= m;
	recheck(cluster);
}

/* Who exits is waited for no longer, and has not arrived either. */
void sg_cluster_leave(struct sg_warp *w, uint32_t m)
{
	struct sg_cluster *cluster = w->block->cluster;

	if (!cluster->arrived)
		return;
	cluster->arrived -= (uint32_t)__builtin_popcount(m & w->arrived);
	w->arrived &= ~m;
	recheck(cluster);
}
