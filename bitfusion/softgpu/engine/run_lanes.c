/* SPDX-License-Identifier: Apache-2.0
 *
 * Exchange between the lanes of a warp: shfl, vote, match, redux, activemask, elect.
 */
#include "run.h"

/* a value, b source lane or distance, c clamp and segment mask; the following record's d is the predicate that says
 * whether the source was in range, its a the member mask (NOWHERE: the old form, whoever is there). */
#define SHUFFLE(name, choose, valid) \
	SG_HANDLER(shfl_##name) \
	{ \
		u32 *d = i->d == SG_NOWHERE ? NULL : sg_at(w, i->d); \
		const u32 *b = sg_at(w, i->b), *c = sg_at(w, i->c); \
		const uint32_t ready = i[1].a == SG_NOWHERE ? m : sg_warp_gather(w, i, m, sg_at(w, i[1].a)); \
		uint32_t in_range = 0; \
		u32 value[SG_LANES]; \
\
		if (!ready) \
			return NULL; \
		memcpy(value, sg_at(w, i->a), sizeof(value)); \
		SG_EACH(l, ready) \
		{ \
			const s32 segment = (c[l] >> 8 & 31), limit_bits = (c[l] & 31), distance = (b[l] & 31); \
			const s32 lane = (s32)l, low = lane & segment, high = low | (limit_bits & ~segment); \
			s32 from = (choose); \
			const bool good = (valid); \
			(void)low; \
			(void)high; \
			if (!good) \
				from = lane; \
			in_range |= (uint32_t)good << l; \
			if (d) \
				d[l] = ready >> from & 1 ? value[from] : value[l]; \
		} \
		if (i[1].d != SG_NOWHERE) \
			sg_predicate_set(w, i[1].d, ready, in_range); \
		return sg_next(i); \
	}

SHUFFLE(up, lane - distance, from >= high)
SHUFFLE(down, lane + distance, from <= high)
SHUFFLE(bfly, lane ^ distance, from <= high)
SHUFFLE(idx, low | (distance & ~segment), from <= high)

/* a: source predicate, b: member mask. Lanes with different masks are different votes. */
static inline uint32_t members(const struct sg_op *i, const u32 *mask, uint32_t lane, uint32_t ready)
{
	uint32_t same = 0;

	SG_EACH(l, ready) same |= (uint32_t)(mask[l] == mask[lane]) << l;
	return same & mask[lane];
}

#define VOTE(name, expression) \
	SG_HANDLER(vote_##name) \
	{ \
		const u32 *mask = sg_at(w, i->b); \
		const uint32_t ready = sg_warp_gather(w, i, m, mask), truth = sg_truth(w, i->a); \
\
		if (!ready) \
			return NULL; \
		for (uint32_t left = ready; left;) { \
			const uint32_t set = members(i, mask, sg_lowest(left), ready); \
			const uint32_t done = set ? set & left : left & -left, yes = truth & set; \
\
			expression; \
			left &= ~done; \
		} \
		return i + 1; \
	}
VOTE(all, sg_predicate_set(w, i->d, done, yes == set ? SG_ALL : 0))
VOTE(any, sg_predicate_set(w, i->d, done, yes ? SG_ALL : 0))
VOTE(uni, sg_predicate_set(w, i->d, done, yes == set || !yes ? SG_ALL : 0))
VOTE(ballot, {
	u32 *d = sg_at(w, i->d);
	SG_EACH(l, done) d[l] = yes;
})

#define MATCH(bits) \
	SG_HANDLER(match_any_##bits) \
	{ \
		u32 *d = sg_at(w, i->d); \
		u##bits value[SG_LANES]; \
		const u32 *mask = sg_at(w, i->b); \
		const uint32_t ready = sg_warp_gather(w, i, m, mask); \
\
		if (!ready) \
			return NULL; \
		memcpy(value, sg_at(w, i->a), sizeof(value)); \
		SG_EACH(l, ready) \
		{ \
			const uint32_t set = members(i, mask, l, ready); \
			uint32_t same = 0; \
\
			SG_EACH(k, set) same |= (uint32_t)(value[k] == value[l]) << k; \
			d[l] = same; \
		} \
		return i + 1; \
	} \
	SG_HANDLER(match_all_##bits) \
	{ \
		u32 *d = i->d == SG_NOWHERE ? NULL : sg_at(w, i->d); \
		u##bits value[SG_LANES]; \
		const u32 *mask = sg_at(w, i->b); \
		const uint32_t ready = sg_warp_gather(w, i, m, mask); \
		uint32_t agreed = 0; \
\
		if (!ready) \
			return NULL; \
		memcpy(value, sg_at(w, i->a), sizeof(value)); \
		SG_EACH(l, ready) \
		{ \
			const uint32_t set = members(i, mask, l, ready); \
			bool all = true; \
\
			SG_EACH(k, set) all &= value[k] == value[l]; \
			agreed |= (uint32_t)all << l; \
			if (d) \
				d[l] = all ? set : 0; \
		} \
		if (i->c != SG_NOWHERE) \
			sg_predicate_set(w, i->c, ready, agreed); \
		return i + 1; \
	}
MATCH(32)
MATCH(64)

SG_HANDLER(activemask)
{
	u32 *d = sg_at(w, i->d);

	SG_EACH(l, m) d[l] = m;
	return i + 1;
}

#define REDUX(name, T, first, combine) \
	SG_HANDLER(redux_##name) \
	{ \
		u32 *d = sg_at(w, i->d); \
		const u32 *mask = sg_at(w, i->b); \
		const uint32_t ready = sg_warp_gather(w, i, m, mask); \
		T value[SG_LANES]; \
\
		if (!ready) \
			return NULL; \
		memcpy(value, sg_at(w, i->a), sizeof(value)); \
		for (uint32_t left = ready; left;) { \
			const uint32_t set = members(i, mask, sg_lowest(left), ready); \
			const uint32_t done = set ? set & left : left & -left; \
			const uint32_t start = sg_lowest(done); \
			T x = value[start]; \
			u32 made; \
\
			x = (first); \
			SG_EACH(k, set & ~(1u << start)) \
			{ \
				const T y = value[k]; \
				x = (combine); \
			} \
			memcpy(&made, &x, sizeof(made)); \
			SG_EACH(l, done) d[l] = made; \
			left &= ~done; \
		} \
		return i + 1; \
	}
REDUX(add_u, u32, x, x + y)
REDUX(min_u, u32, x, x < y ? x : y)
REDUX(max_u, u32, x, x > y ? x : y)
REDUX(min_s, s32, x, x < y ? x : y)
REDUX(max_s, s32, x, x > y ? x : y)
REDUX(and, u32, x, x &y)
REDUX(or, u32, x, x | y)
REDUX(xor, u32, x, x ^ y)
REDUX(min_f32, f32, sg_nan32(x), sg_min32(x, y))
REDUX(max_f32, f32, sg_nan32(x), sg_max32(x, y))
REDUX(min_abs_f32, f32, sg_nan32(__builtin_fabsf(x)), sg_min32(x, __builtin_fabsf(y)))
REDUX(max_abs_f32, f32, sg_nan32(__builtin_fabsf(x)), sg_max32(x, __builtin_fabsf(y)))
REDUX(min_nan_f32, f32, sg_nan32(x), sg_min_nan32(x, y))
REDUX(max_nan_f32, f32, sg_nan32(x), sg_max_nan32(x, y))
REDUX(min_abs_nan_f32, f32, sg_nan32(__builtin_fabsf(x)), sg_min_nan32(x, __builtin_fabsf(y)))
REDUX(max_abs_nan_f32, f32, sg_nan32(__builtin_fabsf(x)), sg_max_nan32(x, __builtin_fabsf(y)))

/* The lowest member is elected; the mask is an immediate or register in a. */
SG_HANDLER(elect)
{
	const u32 *mask = sg_at(w, i->a);
	const uint32_t ready = sg_warp_gather(w, i, m, mask);

	if (!ready)
		return NULL;
	SG_EACH(l, ready)
	{
		const uint32_t set = members(i, mask, l, ready), leader = set ? sg_lowest(set) : l;

		if (i->d != SG_NOWHERE)
			((u32 *)sg_at(w, i->d))[l] = leader;
		if (i->c != SG_NOWHERE)
			sg_predicate_set(w, i->c, 1u << l, leader == l ? SG_ALL : 0);
	}
	return i + 1;
}
