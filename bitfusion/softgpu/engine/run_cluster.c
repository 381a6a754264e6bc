/* SPDX-License-Identifier: Apache-2.0
 *
 * Instructions on clusters: the barrier of all their blocks, and addresses in each other's shared memory.
 */
#include "bulk.h"
#include "run.h"

SG_HANDLER(cluster_arrive)
{
	sg_cluster_arrive(w, m);
	return i + 1;
}

/* Lanes whose phase is over go on; so do those whose guard is false. */
SG_HANDLER(cluster_wait)
{
	struct sg_group *now = &w->groups[0];
	const uint32_t waiting = m & w->arrived;

	if (!waiting)
		return i + 1;
	if (waiting != now->mask)
		sg_warp_split(w, i + 1, w->frame, now->mask & ~waiting);
	now->pc = i + 1;
	now->state = SG_WAIT_BARRIER;
	now->barrier = SG_CLUSTER_BARRIER;
	now->wanted = 0;
	return NULL;
}

/* Asks for a cluster that was not begun: the answer at a, and the mbarrier at b counts its bytes. */
SG_HANDLER(try_cancel)
{
	const u64 *a = sg_at(w, i->a), *b = sg_at(w, i->b);

	SG_EACH(l, m) if (!sg_bulk_cancel(w, i, l, a[l], b[l])) return NULL;
	return i + 1;
}

#define MAPA(bits) \
	SG_HANDLER(mapa_##bits) \
	{ \
		u##bits *d = sg_at(w, i->d); \
		const u##bits *a = sg_at(w, i->a); \
		const u32 *b = sg_at(w, i->b); \
		SG_LOOP(const u##bits r = (a[l] & ~(u##bits)SG_TAG_MASK) | SG_TAG(b[l])) \
	} \
	SG_HANDLER(cluster_rank_##bits) \
	{ \
		u32 *d = sg_at(w, i->d); \
		const u##bits *a = sg_at(w, i->a); \
		const u32 own = w->block->rank; \
		SG_LOOP(const u32 tag = (u32)a[l] >> SG_TAG_SHIFT; const u32 r = tag ? tag - 1 : own) \
	}
MAPA(32)
MAPA(64)
