/* SPDX-License-Identifier: Apache-2.0
 *
 * Instructions on asynchronous barriers, and what completes on them. Copies are done when they are issued, so what
 * waits for them waits for nothing more.
 */
#include "bulk.h"
#include "run.h"

#define WORD(address) ((uint64_t *)(uintptr_t)(address))

/* Lanes one after the other, as the arrivals count; false ends the launch. */
#define MBARRIER(name, call) \
	SG_HANDLER(mbarrier_##name) \
	{ \
		u64 host[SG_LANES]; \
\
		if (!sg_resolve_lanes(w, i, m, 8, host)) \
			return NULL; \
		SG_EACH(l, m) if (!(call)) return NULL; \
		return i + 1; \
	}

MBARRIER(init, sg_mbarrier_init(w, i, l, WORD(host[l]), ((const u32 *)sg_at(w, i->b))[l]))
MBARRIER(inval, sg_mbarrier_invalidate(w, i, l, WORD(host[l])))
MBARRIER(expect, sg_mbarrier_bytes(w, i, l, WORD(host[l]), ((const u32 *)sg_at(w, i->b))[l]))
MBARRIER(complete, sg_mbarrier_bytes(w, i, l, WORD(host[l]), -(s64)((const u32 *)sg_at(w, i->b))[l]))

/* d: the state before, or SG_NOWHERE; b: arrivals or bytes; c: enum sg_arrive */
SG_HANDLER(mbarrier_arrive)
{
	u64 *d = i->d == SG_NOWHERE ? NULL : sg_at(w, i->d);
	const u32 *b = sg_at(w, i->b);
	u64 host[SG_LANES];

	if (!sg_resolve_lanes(w, i, m, 8, host))
		return NULL;
	SG_EACH(l, m)
	{
		const u64 state = *WORD(host[l]);

		if (!sg_mbarrier_arrive(w, i, l, WORD(host[l]), b[l], i->c))
			return NULL;
		if (d)
			d[l] = state;
	}
	return i + 1;
}

/* Who waits lets others run: at once where it may be suspended (c), else as one who runs in a circle. */
static const struct sg_op *tested(struct sg_warp *w, const struct sg_op *i, uint32_t m, uint32_t done)
{
	sg_predicate_set(w, i->d, m, done);
	w->budget -= 4;
	if (!i->c || done == m)
		return i + 1;
	w->groups[0].pc = i + 1;
	w->budget = -1;
	w->turn = -1;
	return NULL;
}

/* d: has the phase that b names, by a state or a parity, completed? */
#define TEST(name, T, asked) \
	SG_HANDLER(mbarrier_##name) \
	{ \
		const T *b = sg_at(w, i->b); \
		u64 host[SG_LANES]; \
		uint32_t done = 0, phase; \
\
		if (!sg_resolve_lanes(w, i, m, 8, host)) \
			return NULL; \
		SG_EACH(l, m) \
		{ \
			if (!sg_mbarrier_phase(w, i, l, WORD(host[l]), &phase)) \
				return NULL; \
			done |= (uint32_t)(phase != (asked)) << l; \
		} \
		return tested(w, i, m, done); \
	}
TEST(state, u64, sg_mbarrier_state_phase(b[l]))
TEST(parity, u32, (b[l] & 1))

SG_HANDLER(mbarrier_pending)
{
	u32 *d = sg_at(w, i->d);
	const u64 *a = sg_at(w, i->a);

	SG_EACH(l, m) d[l] = sg_mbarrier_state_pending(a[l]);
	return i + 1;
}

/* Operand n of the records that follow, as 64-bit values; NULL where it is not there. */
static inline const u64 *more(const struct sg_warp *w, const struct sg_op *i, unsigned n)
{
	const uint32_t operand = (&i[1 + n / 4].d)[n % 4];

	return operand == SG_NOWHERE ? NULL : sg_at(w, operand);
}

static inline const u64 *lane_of(const u64 *values, uint32_t lane)
{
	return values ? values + lane : NULL;
}

/* d, a: to, from; b: bytes; c: bit 0, 1 which of them is shared, then the reduction's type, verb + 1 (0: a copy);
 * further: mbarrier, blocks of a multicast, mask of bytes */
SG_HANDLER(bulk_copy)
{
	const u64 *to = sg_at(w, i->d), *from = sg_at(w, i->a);
	const u64 *barrier = more(w, i, 0), *mask = more(w, i, 1), *byte_mask = more(w, i, 2);
	const u32 *bytes = sg_at(w, i->b);
	const unsigned type = i->c >> 2 & 15, verb = i->c >> 6;

	SG_EACH(l, m)
	{
		const struct sg_bulk bulk = { .to = to[l],
					      .from = from[l],
					      .bytes = bytes[l],
					      .to_shared = i->c & 1,
					      .from_shared = i->c >> 1 & 1,
					      .barrier = lane_of(barrier, l),
					      .mask = lane_of(mask, l),
					      .byte_mask = lane_of(byte_mask, l),
					      .reduction = verb ? sg_reduction_of(verb - 1, type) : NULL,
					      .element = verb ? sg_element_bytes(type) : 1 };

		if (verb && !bulk.reduction)
			return sg_fault(w, i, m, SG_ILLEGAL_INSTRUCTION, "the type has no such reduction");
		if (!sg_bulk_copy(w, i, l, &bulk))
			return NULL;
	}
	return sg_next(i);
}

/* d: the tensor map, a: shared memory; c: way, mode, rank, verb, two, two, three and three bits;
 * further: mbarrier, blocks of a multicast, five coordinates, three offsets */
SG_HANDLER(tensor_copy)
{
	const u64 *map = sg_at(w, i->d), *shared = sg_at(w, i->a);
	const u64 *barrier = more(w, i, 0), *mask = more(w, i, 1);

	SG_EACH(l, m)
	{
		struct sg_tensor tensor = { .map = map[l],
					    .shared = shared[l],
					    .way = i->c & 3,
					    .mode = i->c >> 2 & 3,
					    .rank = i->c >> 4 & 7,
					    .verb = i->c >> 7 & 7,
					    .barrier = lane_of(barrier, l),
					    .mask = lane_of(mask, l) };

		for (unsigned n = 0; n < SG_TENSOR_RANK; n++)
			tensor.at[n] = more(w, i, 2 + n) ? (s64)more(w, i, 2 + n)[l] : 0;
		for (unsigned n = 0; n < 3; n++)
			tensor.offset[n] = more(w, i, 7 + n) ? (s64)more(w, i, 7 + n)[l] : 0;
		if (!sg_tensor_copy(w, i, l, &tensor))
			return NULL;
	}
	return sg_next(i);
}

/* The mbarrier at a counts b bytes that have come. */
SG_HANDLER(bulk_complete)
{
	const u64 *a = sg_at(w, i->a);
	const u32 *b = sg_at(w, i->b);

	SG_EACH(l, m) if (!sg_bulk_complete(w, i, l, a[l], b[l])) return NULL;
	return i + 1;
}

/* b bytes of zeros at a. */
SG_HANDLER(bulk_zero)
{
	const u64 *a = sg_at(w, i->a), *b = sg_at(w, i->b);

	SG_EACH(l, m)
	{
		char *to = b[l] ? sg_host(w, l, a[l], b[l]) : NULL;

		if ((a[l] | b[l]) % 8)
			return sg_fault(w, i, 1u << l, SG_MISALIGNED_ADDRESS,
					"address 0x%llx or size is not a multiple of 8", (unsigned long long)a[l]);
		if (b[l] && (!to || !sg_shared_owner(w->block, to)))
			return sg_fault(w, i, 1u << l, SG_ILLEGAL_ADDRESS, "no shared memory at address 0x%llx",
					(unsigned long long)a[l]);
		if (to)
			memset(to, 0, b[l]);
	}
	return i + 1;
}
