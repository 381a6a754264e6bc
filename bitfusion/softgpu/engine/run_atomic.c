/* SPDX-License-Identifier: Apache-2.0
 *
 * Atomics: lanes one after the other, each with real atomic instructions, because other blocks run on other threads
 * and mapped memory may be anybody's.
 */
#include "run.h"

#define AT(type, address) ((type *)(uintptr_t)(address))

#define ATOMIC(name, T, statement) \
	SG_HANDLER(atom_##name) \
	{ \
		T *d = i->d == SG_NOWHERE ? NULL : sg_at(w, i->d); \
		const T *b = sg_at(w, i->b); \
		u64 host[SG_LANES]; \
\
		if (!sg_resolve_lanes(w, i, m, sizeof(T), host)) \
			return NULL; \
		SG_EACH(l, m) \
		{ \
			T *p = AT(T, host[l]); \
			const T B = b[l]; \
			T old; \
\
			statement; \
			if (d) \
				d[l] = old; \
		} \
		w->budget -= 2; \
		return i + 1; \
	}

#define FETCH(name, function, T) ATOMIC(name, T, old = __atomic_##function(p, B, __ATOMIC_SEQ_CST))
#define LOOP(name, T, expression) \
	ATOMIC(name, T, { \
		T made; \
		old = __atomic_load_n(p, __ATOMIC_RELAXED); \
		do \
			made = (T)(expression); \
		while (!__atomic_compare_exchange_n(p, &old, made, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)); \
	})
#define CAS(name, T) \
	ATOMIC(name, T, { \
		const T C = ((const T *)sg_at(w, i->c))[l]; \
		old = B; \
		__atomic_compare_exchange_n(p, &old, C, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
	})

FETCH(and_32, fetch_and, u32)
FETCH(or_32, fetch_or, u32)
FETCH(xor_32, fetch_xor, u32)
FETCH(exch_32, exchange_n, u32)
FETCH(add_32, fetch_add, u32)
FETCH(and_64, fetch_and, u64)
FETCH(or_64, fetch_or, u64)
FETCH(xor_64, fetch_xor, u64)
FETCH(exch_64, exchange_n, u64)
FETCH(add_64, fetch_add, u64)
FETCH(exch_16, exchange_n, u16)
CAS(cas_16, u16)
CAS(cas_32, u32)
CAS(cas_64, u64)
LOOP(inc_32, u32, old >= B ? 0 : old + 1)
LOOP(dec_32, u32, old == 0 || old > B ? B : old - 1)
LOOP(min_u_32, u32, old < B ? old : B)
LOOP(max_u_32, u32, old > B ? old : B)
LOOP(min_s_32, u32, (s32)old < (s32)B ? old : B)
LOOP(max_s_32, u32, (s32)old > (s32)B ? old : B)
LOOP(min_u_64, u64, old < B ? old : B)
LOOP(max_u_64, u64, old > B ? old : B)
LOOP(min_s_64, u64, (s64)old < (s64)B ? old : B)
LOOP(max_s_64, u64, (s64)old > (s64)B ? old : B)

/* On global memory f32 addition flushes subnormals, on shared memory it does not. */
static inline u32 add_f32(const struct sg_warp *w, const void *p, u32 a, u32 b)
{
	const float x = sg_from32(a), y = sg_from32(b);

	if (sg_shared_owner(w->block, p))
		return sg_bits32(sg_nan32(x + y));
	return sg_bits32(sg_ftz(sg_nan32(sg_ftz(x) + sg_ftz(y))));
}

LOOP(add_f32, u32, add_f32(w, p, old, B))
LOOP(add_f64, u64, sg_bits64(sg_from64(old) + sg_from64(B)))

#define HALF(t, to, back) \
	static inline u16 add_##t(u16 a, u16 b) \
	{ \
		return back(to(a) + to(b)); \
	} \
	static inline u16 min_##t(u16 a, u16 b) \
	{ \
		return back(sg_min32(to(a), to(b))); \
	} \
	static inline u16 max_##t(u16 a, u16 b) \
	{ \
		return back(sg_max32(to(a), to(b))); \
	} \
	LOOP(add_##t, u16, add_##t(old, B)) \
	LOOP(min_##t, u16, min_##t(old, B)) \
	LOOP(max_##t, u16, max_##t(old, B)) \
	LOOP(add_##t##x2, u32, add_##t((u16)old, (u16)B) | (u32)add_##t(old >> 16, B >> 16) << 16) \
	LOOP(min_##t##x2, u32, min_##t((u16)old, (u16)B) | (u32)min_##t(old >> 16, B >> 16) << 16) \
	LOOP(max_##t##x2, u32, max_##t((u16)old, (u16)B) | (u32)max_##t(old >> 16, B >> 16) << 16)

HALF(f16, sg_f16_to_f32, sg_f32_to_f16)
HALF(bf16, sg_bf16_to_f32, sg_f32_to_bf16)

/* 128 bits: no instruction of the baseline does it, so one lock serves all. */
typedef struct {
	u64 low, high;
} wide;

extern pthread_mutex_t sg_wide_lock;

static const struct sg_op *wide_atomic(struct sg_warp *w, const struct sg_op *i, uint32_t m, bool compare)
{
	wide *d = i->d == SG_NOWHERE ? NULL : sg_at(w, i->d);
	const wide *b = sg_at(w, i->b), *c = compare ? sg_at(w, i->c) : NULL;
	u64 host[SG_LANES];

	if (!sg_resolve_lanes(w, i, m, sizeof(wide), host))
		return NULL;
	pthread_mutex_lock(&sg_wide_lock);
	SG_EACH(l, m)
	{
		wide *p = AT(wide, host[l]);
		const wide old = *p, made = compare ? c[l] : b[l];

		if (!compare || (old.low == b[l].low && old.high == b[l].high))
			*p = made;
		if (d)
			d[l] = old;
	}
	pthread_mutex_unlock(&sg_wide_lock);
	return i + 1;
}

SG_HANDLER(atom_exch_128)
{
	return wide_atomic(w, i, m, false);
}

SG_HANDLER(atom_cas_128)
{
	return wide_atomic(w, i, m, true);
}
