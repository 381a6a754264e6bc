/* SPDX-License-Identifier: Apache-2.0
 *
 * A block is one piece of memory that is used again for the next block of the launch.
 */
#include <stdlib.h>

#include "internal.h"

static size_t aligned(size_t size)
{
	return (size + 63) & ~(size_t)63;
}

static size_t frame_bytes(const struct sg_run *run)
{
	return aligned(sizeof(struct sg_frame) + run->function->register_bytes);
}

static size_t warp_bytes(const struct sg_run *run)
{
	return frame_bytes(run) + aligned(sizeof(uint32_t) * SG_WARP_SPECIALS * SG_LANES) +
	       aligned((size_t)run->local_size * SG_LANES);
}

size_t sg_block_bytes(const struct sg_run *run)
{
	return aligned(sizeof(struct sg_block)) + aligned(run->warp_count * sizeof(struct sg_warp)) +
	       aligned(run->shared_size) + aligned(sizeof(uint32_t) * SG_BLOCK_SPECIALS * SG_LANES) +
	       run->warp_count * warp_bytes(run);
}

static void broadcast(struct sg_block *block, int which, uint32_t value)
{
	uint32_t *to = (uint32_t *)block->specials + which * SG_LANES;

	for (int l = 0; l < SG_LANES; l++)
		to[l] = value;
}

static void set_specials(struct sg_block *block)
{
	const struct sg_run *run = block->run;
	const struct sg_launch *launch = run->launch;

	for (int k = 0; k < 3; k++) {
		broadcast(block, SG_NTID_X + k, launch->block[k]);
		broadcast(block, SG_NCTAID_X + k, launch->grid[k]);
		broadcast(block, SG_NCLUSTERID_X + k, launch->grid[k] / run->cluster[k]);
		broadcast(block, SG_CLUSTER_NCTAID_X + k, run->cluster[k]);
	}
	broadcast(block, SG_CLUSTER_NCTARANK, run->cluster_size);
	broadcast(block, SG_EXPLICIT_CLUSTER, launch->cluster[0] || launch->kernel->required_cluster[0]);
	broadcast(block, SG_ENVREG1, (uint32_t)(run->workspace >> 32));
	broadcast(block, SG_ENVREG2, (uint32_t)run->workspace);
	broadcast(block, SG_DYNAMIC_SMEM, launch->dynamic_shared);
	broadcast(block, SG_TOTAL_SMEM, run->reserved);
	broadcast(block, SG_AGGR_SMEM, run->reserved + SG_RESERVED_SMEM);
	broadcast(block, SG_RESERVED_BEGIN, run->reserved);
	broadcast(block, SG_RESERVED_1, run->reserved + SG_RESERVED_SMEM / 2);
	broadcast(block, SG_RESERVED_END, run->reserved + SG_RESERVED_SMEM);
	broadcast(block, SG_NWARPID, 64);
	broadcast(block, SG_NSMID, 1);
	broadcast(block, SG_GRIDID, run->grid);
}

static void make_warp(struct sg_block *block, struct sg_warp *w, uint32_t index, char *memory)
{
	const struct sg_run *run = block->run;
	const uint32_t *size = run->launch->block;
	uint32_t *tid;

	*w = (struct sg_warp){
		.block = block, .index = index, .root = (struct sg_frame *)memory, .local_size = run->local_size
	};
	memset(w->root, 0, frame_bytes(run));
	w->root->function = run->function;
	w->root->register_bytes = run->function->register_bytes;
	*(uint32_t *)w->root->registers = SG_ALL;
	memory += frame_bytes(run);
	tid = (uint32_t *)memory;
	for (uint32_t l = 0; l < SG_LANES; l++) {
		const uint32_t number = index * SG_LANES + l;

		tid[SG_TID_X * SG_LANES + l] = number % size[0];
		tid[SG_TID_Y * SG_LANES + l] = number / size[0] % size[1];
		tid[SG_TID_Z * SG_LANES + l] = number / size[0] / size[1];
		tid[SG_WARPID * SG_LANES + l] = index;
	}
	w->local = memory + aligned(sizeof(uint32_t) * SG_WARP_SPECIALS * SG_LANES);
	w->base[SG_AREA_CONSTANTS] = run->launch->module->constants;
	w->base[SG_AREA_WARP] = (char *)tid;
	w->base[SG_AREA_BLOCK] = block->specials;
}

struct sg_block *sg_block_new(struct sg_run *run)
{
	const size_t size = sg_block_bytes(run);
	struct sg_block *block;
	char *at;

	if (posix_memalign((void **)&block, 256, size))
		return NULL;
	*block = (struct sg_block){
		.run = run, .warp_count = run->warp_count, .shared_size = run->shared_size, .space_version = UINT64_MAX
	};
	at = (char *)block + aligned(sizeof(*block));
	block->warps = (struct sg_warp *)at;
	at += aligned(run->warp_count * sizeof(struct sg_warp));
	block->shared = at;
	memset(block->shared, 0, run->shared_size);
	at += aligned(run->shared_size);
	block->specials = at;
	at += aligned(sizeof(uint32_t) * SG_BLOCK_SPECIALS * SG_LANES);
	memset(block->specials, 0, (size_t)(at - block->specials));
	set_specials(block);
	for (uint32_t k = 0; k < run->warp_count; k++, at += warp_bytes(run))
		make_warp(block, &block->warps[k], k, at);
	return block;
}

void sg_block_free(struct sg_block *block)
{
	if (!block)
		return;
	for (uint32_t k = 0; k < block->warp_count; k++) {
		for (struct sg_frame *frame = block->warps[k].all_frames, *next; frame; frame = next) {
			next = frame->next_all;
			free(frame);
		}
	}
	free(block);
}

static void set_index(struct sg_block *block, const uint32_t index[3])
{
	const uint32_t *cluster = block->run->cluster;

	for (int k = 0; k < 3; k++) {
		block->index[k] = index[k];
		broadcast(block, SG_CTAID_X + k, index[k]);
		broadcast(block, SG_CLUSTERID_X + k, index[k] / cluster[k]);
		broadcast(block, SG_CLUSTER_CTAID_X + k, index[k] % cluster[k]);
	}
	broadcast(block, SG_CLUSTER_CTARANK, block->rank);
}

/* What was looked up holds as long as nothing was added or removed. */
static void forget_ranges(struct sg_block *block)
{
	const uint64_t version = sg_space_version(block->run->launch->context->space);

	if (block->space_version == version)
		return;
	block->space_version = version;
	memset(block->ranges, 0, sizeof(block->ranges));
}

void sg_block_start(struct sg_block *block, const uint32_t index[3])
{
	const struct sg_run *run = block->run;
	const uint32_t done = block->used ? run->function->prologue : 0; /* its registers are still there */
	const struct sg_op *first = run->image->ops + run->function->first + done;

	block->used = true;
	set_index(block, index);
	memset(block->barriers, 0, sizeof(block->barriers));
	if (run->reserved < run->shared_size)
		memset(block->shared + run->reserved, 0, SG_RESERVED_SMEM);
	block->open_barriers = 0;
	block->threads = run->block_threads;
	block->warps_left = block->warp_count;
	for (uint32_t k = 0; k < block->warp_count; k++) {
		struct sg_warp *w = &block->warps[k];
		const uint32_t left = run->block_threads - k * SG_LANES;

		w->live = left >= SG_LANES ? SG_ALL : (1u << left) - 1;
		w->root->mask = w->live;
		w->root->grown = 0;
		w->groups[0] = (struct sg_group){ .pc = first, .frame = w->root, .mask = w->live };
		w->group_count = 1;
		w->turn = SG_TURN;
		w->sticky = w->finished = false;
		w->carry = 0;
		w->arrived = 0;
	}
}

/* Warps that wait for lanes which wait at a barrier go on without them. */
bool sg_block_release(struct sg_block *block)
{
	bool freed = false;

	for (uint32_t k = 0; k < block->warp_count; k++) {
		struct sg_warp *w = &block->warps[k];

		for (uint32_t g = 0; g < w->group_count; g++) {
			if (w->groups[g].state != SG_WAIT_LANES)
				continue;
			w->groups[g].state = SG_READY;
			w->groups[g].resumed = 1;
			freed = true;
		}
	}
	return freed;
}

bool sg_block_deadlock(struct sg_block *block)
{
	for (uint32_t k = 0; k < block->warp_count; k++) {
		struct sg_warp *w = &block->warps[k];

		if (!w->group_count)
			continue;
		sg_fault(w, w->groups[0].pc, w->groups[0].mask, SG_LAUNCH_TIMEOUT,
			 "deadlock: these threads wait at a barrier that the others of the %s never reach",
			 w->groups[0].barrier == SG_CLUSTER_BARRIER ? "cluster" : "block");
		return true;
	}
	return false;
}

bool sg_block_round(struct sg_block *block, bool *yielded)
{
	forget_ranges(block); /* a kernel may run for long, and its memory be freed by mistake */
	for (uint32_t k = 0; k < block->warp_count; k++) {
		struct sg_warp *w = &block->warps[k];

		if (w->finished)
			continue;
		w->budget = SG_BUDGET;
		switch (sg_warp_run(w)) {
		case SG_DONE:
			w->finished = true;
			block->warps_left--;
			break;
		case SG_YIELDED: *yielded = true; break;
		case SG_FAULTED: return false;
		case SG_BLOCKED: break;
		}
	}
	return true;
}
