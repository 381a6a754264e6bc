/* SPDX-License-Identifier: Apache-2.0
 *
 * Loads and stores of whole warps whose lanes follow each other or read one place: one check is enough for all. So it
 * is with parts of eight lanes, as blocks 8 or 16 threads wide make them. What is not of these forms, or not in
 * bounds, goes to the handlers in run_memory.c.
 */
#include "run.h"

#define AT(type, address) (*(type *)(uintptr_t)(address))

enum { SCATTERED, CONSECUTIVE, UNIFORM, CONSECUTIVE_PARTS, UNIFORM_PARTS };
enum { PART = 8, PARTS = SG_LANES / PART };
#define PART_OF(T) part_##T
#define PART_TYPE(T) typedef T PART_OF(T) __attribute__((vector_size(PART * sizeof(T)), aligned(sizeof(T))));
PART_TYPE(u8)
PART_TYPE(s8)
PART_TYPE(u16)
PART_TYPE(s16)
PART_TYPE(u32)
PART_TYPE(u64)

#define PATTERN(T) \
	static int parts_##T(const T *a, T bytes) \
	{ \
		T scatter = 0, differ = 0; \
\
		for (int p = 0; p < SG_LANES; p += PART) \
			SG_VECTOR for (int l = 0; l < PART; l++) \
			{ \
				const T away = a[p + l] - a[p]; \
\
				differ |= away; \
				scatter |= away ^ (T)l * bytes; \
			} \
		return !scatter ? CONSECUTIVE_PARTS : !differ ? UNIFORM_PARTS : SCATTERED; \
	} \
	static inline int pattern_##T(const T *a, T bytes) \
	{ \
		T scatter = 0, differ = 0; \
\
		SG_VECTOR for (int l = 0; l < SG_LANES; l++) \
		{ \
			const T away = a[l] - a[0]; \
\
			differ |= away; \
			scatter |= away ^ (T)l * bytes; \
		} \
		return !scatter ? CONSECUTIVE : !differ ? UNIFORM : parts_##T(a, bytes); \
	}
PATTERN(u32)
PATTERN(u64)

/* Host address of lane 0 where the whole warp's bytes are in bounds and aligned, else 0. */
static inline u64 whole_global(const struct sg_warp *w, const struct sg_op *i, u64 first, u64 bytes, u64 align)
{
	const struct sg_range *range = sg_range_of(w, i);
	const u64 x = first + (u64)(s64)(s32)i->x, t = x - range->base;

	return range->size >= bytes && t <= range->size - bytes && !(x & (align - 1)) ? x : 0;
}

static inline char *whole_shared(const struct sg_warp *w, const struct sg_op *i, u32 first, u32 bytes, u32 align)
{
	const u32 x = first + i->x, size = w->block->shared_size;

	return size >= bytes && x <= size - bytes && !(x & (align - 1)) ? w->block->shared + x : NULL;
}

/* Shared memory by a 64-bit address. */
static inline char *whole_shared_wide(const struct sg_warp *w, const struct sg_op *i, u64 first, u64 bytes, u64 align)
{
	const u64 x = first + (u64)(s64)(s32)i->x, size = w->block->shared_size;

	return size >= bytes && x <= size - bytes && !(x & (align - 1)) ? w->block->shared + x : NULL;
}

#define OTHERWISE(name) const struct sg_op *SG_NAME(name)(struct sg_warp * w, const struct sg_op *i, uint32_t m);

/* Finds out what the addresses look like, for itself and for the records behind it that have the same. */
#define FIND(T, TA) (w->patterns[i->b % SG_PATTERNS] = (uint8_t)(m == SG_ALL ? pattern_##TA(a, sizeof(T)) : SCATTERED))
#define KNOWN(T, TA) (m == SG_ALL ? w->patterns[i->b % SG_PATTERNS] : SCATTERED)

/* A part at once, T in memory and R in the register. The whole warp's parts are checked before one is touched. Not
 * inline: the handlers save no registers for it. */
#define LOAD_PARTS(space, T, R, TA, name, whole) \
	static __attribute__((noinline)) const struct sg_op *load_parts_##space##_##name( \
		struct sg_warp *w, const struct sg_op *i, uint32_t m, int pattern) \
	{ \
		const TA bytes = pattern == UNIFORM_PARTS ? sizeof(T) : PART * sizeof(T), *a = sg_at(w, i->a); \
		PART_OF(R) *d = sg_at(w, i->d); \
		u64 from[PARTS]; \
\
		for (int p = 0; p < PARTS; p++) { \
			from[p] = (u64)(uintptr_t)whole(w, i, a[p * PART], bytes, sizeof(T)); \
			if (!from[p]) \
				return SG_NAME(ld_##name)(w, i, m); \
		} \
		for (int p = 0; p < PARTS; p++) \
			if (pattern == UNIFORM_PARTS) \
				d[p] = (PART_OF(R)){ 0 } + (R)AT(T, from[p]); \
			else \
				d[p] = __builtin_convertvector(AT(PART_OF(T), from[p]), PART_OF(R)); \
		return i + 1; \
	}

#define STORE_PARTS(space, T, R, TA, name, whole) \
	static __attribute__((noinline)) const struct sg_op *store_parts_##space##_##name( \
		struct sg_warp *w, const struct sg_op *i, uint32_t m) \
	{ \
		const TA *a = sg_at(w, i->a); \
		const PART_OF(R) *d = sg_at(w, i->d); \
		u64 to[PARTS]; \
\
		for (int p = 0; p < PARTS; p++) { \
			to[p] = (u64)(uintptr_t)whole(w, i, a[p * PART], PART * sizeof(T), sizeof(T)); \
			if (!to[p]) \
				return SG_NAME(st_##name)(w, i, m); \
		} \
		for (int p = 0; p < PARTS; p++) \
			AT(PART_OF(T), to[p]) = __builtin_convertvector(d[p], PART_OF(T)); \
		return i + 1; \
	}

#define FAST_LOAD(space, known, T, R, TA, name, whole, look) \
	SG_HANDLER(ld_##space##known##_##name) \
	{ \
		const TA *a = sg_at(w, i->a); \
		R *d = sg_at(w, i->d); \
		const int pattern = look(T, TA); \
		const T *from; \
\
		if (pattern >= CONSECUTIVE_PARTS) \
			return load_parts_##space##_##name(w, i, m, pattern); \
		if (pattern == SCATTERED) \
			return SG_NAME(ld_##name)(w, i, m); \
		from = (const T *)(uintptr_t)whole(w, i, a[0], pattern == UNIFORM ? sizeof(T) : SG_LANES * sizeof(T), \
						   sizeof(T)); \
		if (!from) \
			return SG_NAME(ld_##name)(w, i, m); \
		if (pattern == UNIFORM) { \
			const R value = (R) * from; \
			SG_VECTOR for (int l = 0; l < SG_LANES; l++) d[l] = value; \
		} else if (sizeof(T) == sizeof(R)) { \
			memcpy(d, from, SG_LANES * sizeof(T)); \
		} else { \
			SG_VECTOR for (int l = 0; l < SG_LANES; l++) d[l] = (R)from[l]; \
		} \
		return i + 1; \
	}

#define FAST_STORE(space, known, T, R, TA, name, whole, look) \
	SG_HANDLER(st_##space##known##_##name) \
	{ \
		const TA *a = sg_at(w, i->a); \
		const R *d = sg_at(w, i->d); \
		const int pattern = look(T, TA); \
		T *to; \
\
		if (pattern == CONSECUTIVE_PARTS) \
			return store_parts_##space##_##name(w, i, m); \
		if (pattern != CONSECUTIVE) \
			return SG_NAME(st_##name)(w, i, m); \
		to = (T *)(uintptr_t)whole(w, i, a[0], SG_LANES * sizeof(T), sizeof(T)); \
		if (!to) \
			return SG_NAME(st_##name)(w, i, m); \
		if (sizeof(T) == sizeof(R)) \
			memcpy(to, d, SG_LANES * sizeof(T)); \
		else \
			SG_VECTOR for (int l = 0; l < SG_LANES; l++) to[l] = (T)d[l]; \
		return i + 1; \
	}

#define FAST_LOADS(space, T, R, TA, name, whole) \
	OTHERWISE(ld_##name) \
	LOAD_PARTS(space, T, R, TA, name, whole) \
	FAST_LOAD(space, , T, R, TA, name, whole, FIND) \
	FAST_LOAD(space, _known, T, R, TA, name, whole, KNOWN)
#define FAST_STORES(space, T, R, TA, name, whole) \
	OTHERWISE(st_##name) \
	STORE_PARTS(space, T, R, TA, name, whole) \
	FAST_STORE(space, , T, R, TA, name, whole, FIND) \
	FAST_STORE(space, _known, T, R, TA, name, whole, KNOWN)

#define FAST(space, TA, whole) \
	FAST_LOADS(space, u8, u16, TA, u8_16, whole) \
	FAST_LOADS(space, u8, u32, TA, u8_32, whole) \
	FAST_LOADS(space, s8, u16, TA, s8_16, whole) \
	FAST_LOADS(space, s8, u32, TA, s8_32, whole) \
	FAST_LOADS(space, u16, u16, TA, u16_16, whole) \
	FAST_LOADS(space, u16, u32, TA, u16_32, whole) \
	FAST_LOADS(space, s16, u32, TA, s16_32, whole) \
	FAST_LOADS(space, u32, u32, TA, u32_32, whole) \
	FAST_LOADS(space, u64, u64, TA, u64_64, whole) \
	FAST_STORES(space, u8, u16, TA, 8_16, whole) \
	FAST_STORES(space, u8, u32, TA, 8_32, whole) \
	FAST_STORES(space, u16, u16, TA, 16_16, whole) \
	FAST_STORES(space, u16, u32, TA, 16_32, whole) \
	FAST_STORES(space, u32, u32, TA, 32_32, whole) \
	FAST_STORES(space, u64, u64, TA, 64_64, whole)

FAST(global, u64, whole_global)
FAST(shared, u32, whole_shared)
FAST(shared_wide, u64, whole_shared_wide)
