/* SPDX-License-Identifier: Apache-2.0
 *
 * The sixteen barriers of a block. Threads are counted, so a barrier may be reached from different places and by
 * parts of a warp; one that exits counts no longer, which may open a barrier.
 */
#include "internal.h"

void sg_barrier_open(struct sg_block *block, uint32_t id)
{
	const struct sg_barrier reached = id < SG_BARRIERS ? block->barriers[id] : (struct sg_barrier){ 0 };

	for (uint32_t k = 0; k < block->warp_count; k++) {
		struct sg_warp *w = &block->warps[k];

		for (uint32_t g = 0; g < w->group_count; g++) {
			struct sg_group *group = &w->groups[g];

			if (group->state != SG_WAIT_BARRIER || group->barrier != id)
				continue;
			group->state = SG_READY;
			group->resumed = group->wanted != 0;
			group->any = reached.any;
			group->all = !reached.some_false;
			group->count = reached.count;
		}
	}
	if (id < SG_BARRIERS)
		block->barriers[id] = (struct sg_barrier){ 0 };
	block->open_barriers &= ~(1u << id);
}

static bool complete(const struct sg_block *block, const struct sg_barrier *barrier)
{
	return barrier->arrived >= (barrier->expected ? barrier->expected : block->threads);
}

void sg_barrier_recheck(struct sg_block *block)
{
	SG_EACH(id, block->open_barriers)
	if (complete(block, &block->barriers[id]))
		sg_barrier_open(block, id);
}

bool sg_barrier_value(struct sg_warp *w, uint32_t *any, uint32_t *all, uint32_t *count)
{
	struct sg_group *now = &w->groups[0];

	if (!now->resumed)
		return false;
	now->resumed = 0;
	*any = now->any;
	*all = now->all;
	*count = now->count;
	return true;
}

const struct sg_op *sg_barrier(struct sg_warp *w, const struct sg_op *i, uint32_t m, enum sg_barrier_kind kind,
			       uint32_t bits)
{
	const uint32_t lane = sg_lowest(m), id = ((const uint32_t *)sg_at(w, i->a))[lane];
	const uint32_t count = ((const uint32_t *)sg_at(w, i->b))[lane];
	struct sg_block *block = w->block;
	struct sg_group *now = &w->groups[0];
	struct sg_barrier *barrier;

	if (id >= SG_BARRIERS)
		return sg_fault(w, i, m, SG_ILLEGAL_INSTRUCTION, "there is no barrier %u", id);
	barrier = &block->barriers[id];
	barrier->expected = count;
	/* A thread count counts whole warps: what is missing of a warp arrives with the rest of it. */
	barrier->arrived += (uint32_t)__builtin_popcount(count && m == w->live ? SG_ALL : m);
	barrier->count += (uint32_t)__builtin_popcount(bits & m);
	barrier->any |= (bits & m) != 0;
	barrier->some_false |= (~bits & m) != 0;
	block->open_barriers |= 1u << id;
	if (kind == SG_BARRIER_ARRIVE) {
		now->pc = sg_next(i);
	} else {
		if (m != now->mask)
			sg_warp_split(w, sg_next(i), w->frame, now->mask & ~m);
		now->pc = kind == SG_BARRIER_REDUCE ? i : sg_next(i);
		now->state = SG_WAIT_BARRIER;
		now->barrier = id;
		now->wanted = kind == SG_BARRIER_REDUCE;
	}
	if (complete(block, barrier))
		sg_barrier_open(block, id);
	return NULL;
}
