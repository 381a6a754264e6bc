/* SPDX-License-Identifier: Apache-2.0
 *
 * Which lanes run next. The group in the deepest call runs, among those the one at the lowest place, until it comes
 * to a place where another waits; then they join. That brings lanes together again after a branch. It would starve
 * the holder of a lock that a lower place spins on, so after SG_TURN backward branches another group gets a turn.
 */
#include <stdlib.h>

#include "internal.h"

struct sg_frame *sg_frame_new(struct sg_warp *w, const struct sg_function *function)
{
	struct sg_frame *frame = NULL;

	for (struct sg_frame **at = &w->free_frames; *at; at = &(*at)->next_free) {
		if ((*at)->register_bytes >= function->register_bytes) {
			frame = *at;
			*at = frame->next_free;
			break;
		}
	}
	if (!frame) {
		if (w->frame_bytes + function->register_bytes > SG_MAX_FRAMES)
			return NULL;
		if (posix_memalign((void **)&frame, 64, sizeof(*frame) + function->register_bytes))
			return NULL;
		frame->next_all = w->all_frames;
		w->all_frames = frame;
		w->frame_bytes += function->register_bytes;
		frame->register_bytes = function->register_bytes;
		memset(frame->registers, 0, function->register_bytes);
	}
	frame->function = function;
	*(uint32_t *)frame->registers = SG_ALL; /* the predicate that is always true */
	return frame;
}

void sg_frame_drop(struct sg_warp *w, struct sg_frame *frame)
{
	frame->next_free = w->free_frames;
	w->free_frames = frame;
}

void sg_warp_split(struct sg_warp *w, const struct sg_op *pc, struct sg_frame *frame, uint32_t m)
{
	struct sg_group *group = &w->groups[w->group_count++];

	*group = (struct sg_group){ .pc = pc, .frame = frame, .mask = m, .stamp = w->groups[0].stamp };
	w->groups[0].mask &= ~m;
}

static void remove_group(struct sg_warp *w, uint32_t index)
{
	if (index != --w->group_count) /* mostly it is the only one, and copying what was just written stalls */
		w->groups[index] = w->groups[w->group_count];
}

void sg_warp_leave(struct sg_warp *w, uint32_t m)
{
	struct sg_block *block = w->block;

	for (struct sg_frame *frame = w->groups[0].frame, *parent; frame; frame = parent) {
		parent = frame->parent;
		frame->mask &= ~m;
		if (!frame->mask && parent)
			sg_frame_drop(w, frame);
	}
	w->live &= ~m;
	w->groups[0].mask &= ~m;
	if (!w->groups[0].mask) {
		w->sticky = false;
		remove_group(w, 0);
	}
	block->threads -= (uint32_t)__builtin_popcount(m);
	sg_barrier_recheck(block);
	sg_cluster_leave(w, m);
}

static void merge(struct sg_warp *w)
{
	for (uint32_t i = 0; i < w->group_count; i++) {
		struct sg_group *a = &w->groups[i];

		if (!a->mask) {
			remove_group(w, i--);
			continue;
		}
		if (a->state == SG_WAIT_BARRIER)
			continue;
		for (uint32_t j = i + 1; j < w->group_count; j++) {
			const struct sg_group *b = &w->groups[j];

			if (b->pc != a->pc || b->frame != a->frame || b->state == SG_WAIT_BARRIER ||
			    b->resumed != a->resumed)
				continue;
			a->mask |= b->mask;
			a->state = SG_READY; /* one that waits for lanes looks again */
			w->sticky = false;
			remove_group(w, j--);
		}
	}
}

/* Groups that wait for lanes which have meanwhile left, or wait at other places. */
static bool wake_gathered(struct sg_warp *w)
{
	uint32_t here = 0;
	bool woken = false;

	for (uint32_t i = 0; i < w->group_count; i++)
		if (w->groups[i].state == SG_WAIT_LANES)
			here |= w->groups[i].mask;
	for (uint32_t i = 0; i < w->group_count; i++) {
		struct sg_group *group = &w->groups[i];

		if (group->state == SG_WAIT_LANES && !(group->wanted & w->live & ~here)) {
			group->state = SG_READY;
			group->resumed = 1;
			woken = true;
		}
	}
	return woken;
}

static bool before(const struct sg_group *a, const struct sg_group *b)
{
	if (a->frame->depth != b->frame->depth)
		return a->frame->depth > b->frame->depth;
	return a->pc < b->pc;
}

static int pick(const struct sg_warp *w, bool rotate)
{
	int best = -1;

	for (uint32_t i = 0; i < w->group_count; i++) {
		const struct sg_group *group = &w->groups[i];

		if (group->state != SG_READY)
			continue;
		if (best < 0 ||
		    (rotate ? (int32_t)(group->stamp - w->groups[best].stamp) < 0 : before(group, &w->groups[best])))
			best = (int)i;
	}
	return best;
}

/* Puts the group to run at groups[0] and says where it must stop; false: none can run. */
static bool choose(struct sg_warp *w)
{
	const bool rotate = w->turn < 0 && w->group_count > 1;
	int best = 0;

	if (rotate)
		w->groups[0].stamp = ++w->clock;
	if (w->group_count > 1 || w->groups[0].state != SG_READY)
		merge(w);
	if (!w->group_count)
		return false;
	if (rotate || !w->sticky || w->groups[0].state != SG_READY) {
		best = pick(w, rotate);
		if (best < 0 && wake_gathered(w))
			best = pick(w, false);
		if (best < 0)
			return false;
		w->sticky = rotate;
	}
	if (w->turn < 0)
		w->turn = SG_TURN;
	if (best) {
		const struct sg_group swapped = w->groups[0];

		w->groups[0] = w->groups[best];
		w->groups[best] = swapped;
	}
	return true;
}

static void enter(struct sg_warp *w)
{
	const struct sg_group *now = &w->groups[0];

	w->frame = now->frame;
	w->base[SG_AREA_REGISTERS] = now->frame->registers;
	w->idle = ~(now->frame->mask & w->live);
	w->mask = now->mask;
	w->stop = (const struct sg_op *)UINTPTR_MAX;
	for (uint32_t i = 1; i < w->group_count; i++) {
		const struct sg_group *other = &w->groups[i];

		if (other->frame == now->frame && other->state != SG_WAIT_BARRIER && other->pc > now->pc &&
		    other->pc < w->stop)
			w->stop = other->pc;
	}
}

enum sg_outcome sg_warp_run(struct sg_warp *w)
{
	struct sg_run *run = w->block->run;

	for (;;) {
		if (atomic_load_explicit(&run->stop, memory_order_relaxed) == SG_STOPPED)
			return SG_FAULTED;
		if (!w->group_count)
			return SG_DONE;
		if (!choose(w))
			return w->group_count ? SG_BLOCKED : SG_DONE;
		if (w->budget < 0)
			return SG_YIELDED;
		w->block->progress = true;
		enter(w);
		const struct sg_op *pc = w->groups[0].pc, *const stop = w->stop;
		const uint32_t mask = w->mask, *const predicates = (const uint32_t *)w->base[SG_AREA_REGISTERS];

		do {
			const uint32_t m = mask & (predicates[pc->guard] ^ -(uint32_t)(pc->flags & SG_NOT));

			pc = m ? pc->run(w, pc, m) : sg_next(pc);
		} while (pc && pc != stop);
		if (pc)
			w->groups[0].pc = pc;
	}
}

uint32_t sg_warp_gather(struct sg_warp *w, const struct sg_op *i, uint32_t m, const uint32_t *members)
{
	struct sg_group *now = &w->groups[0];
	uint32_t ready = 0, wanted = 0;

	if (now->resumed) {
		now->resumed = 0;
		return m;
	}
	SG_EACH(l, m)
	{
		const uint32_t need = members[l] & w->live;

		if (!(need & ~m))
			ready |= 1u << l;
		else
			wanted |= need;
	}
	if (ready == m)
		return m;
	/* Lanes whose guard is false go on; those that miss somebody wait here for the merge. */
	if (m != now->mask)
		sg_warp_split(w, sg_next(i), w->frame, now->mask & ~m);
	if (ready) {
		sg_warp_split(w, i, w->frame, ready);
		w->groups[w->group_count - 1].resumed = 1;
	}
	now->pc = i;
	now->state = SG_WAIT_LANES;
	now->wanted = wanted;
	return 0;
}
