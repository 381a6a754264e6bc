/* SPDX-License-Identifier: Apache-2.0
 *
 * The loops of the generated handlers. Each macro makes one handler from the expression for one lane; A, B and C
 * are the lane's operands. Where every register that would be overwritten is the running group's or nobody's, the
 * loop has no mask. FULL also lets idle lanes compute: expressions must not trap, whatever the values.
 */
#ifndef SOFTGPU_LANES_H
#define SOFTGPU_LANES_H

#include "internal.h"

#ifdef SG_VARIANT
#define SG_PASTE2(a, b) a##_##b
#define SG_PASTE(a, b) SG_PASTE2(a, b)
#define SG_NAME(name) SG_PASTE(sg_run_##name, SG_VARIANT)
#else
#define SG_NAME(name) sg_run_##name
#endif

#ifdef __clang__
#define SG_VECTOR _Pragma("clang loop vectorize(assume_safety)")
#else
#define SG_VECTOR _Pragma("GCC ivdep")
#endif

typedef uint8_t u8;
typedef int8_t s8;
typedef uint16_t u16 __attribute__((may_alias));
typedef int16_t s16 __attribute__((may_alias));
typedef uint32_t u32 __attribute__((may_alias));
typedef int32_t s32 __attribute__((may_alias));
typedef uint64_t u64 __attribute__((may_alias));
typedef int64_t s64 __attribute__((may_alias));
typedef float f32 __attribute__((may_alias));
typedef double f64 __attribute__((may_alias));

static const uint32_t sg_bit[SG_LANES] = {
	1u << 0,  1u << 1,  1u << 2,  1u << 3,  1u << 4,  1u << 5,  1u << 6,  1u << 7,  1u << 8,  1u << 9,  1u << 10,
	1u << 11, 1u << 12, 1u << 13, 1u << 14, 1u << 15, 1u << 16, 1u << 17, 1u << 18, 1u << 19, 1u << 20, 1u << 21,
	1u << 22, 1u << 23, 1u << 24, 1u << 25, 1u << 26, 1u << 27, 1u << 28, 1u << 29, 1u << 30, 1u << 31,
};

#define SG_HANDLER(name) \
	const struct sg_op *SG_NAME(name)(struct sg_warp * w, const struct sg_op *i, uint32_t m); \
	const struct sg_op *SG_NAME(name)(struct sg_warp * w, const struct sg_op *i, uint32_t m)

#define SG_LOOP(body) \
	if ((m | w->idle) == SG_ALL) { \
		SG_VECTOR for (int l = 0; l < SG_LANES; l++) \
		{ \
			body; \
			d[l] = r; \
		} \
	} else { \
		SG_VECTOR for (int l = 0; l < SG_LANES; l++) \
		{ \
			body; \
			d[l] = m & sg_bit[l] ? r : d[l]; \
		} \
	} \
	return i + 1;

#define SG_LANE1(name, TD, TA, expr) \
	SG_HANDLER(name) \
	{ \
		TD *d = sg_at(w, i->d); \
		const TA *a = sg_at(w, i->a); \
		SG_LOOP(const TA A = a[l]; const TD r = (TD)(expr)) \
	}
#define SG_LANE2(name, TD, TA, TB, expr) \
	SG_HANDLER(name) \
	{ \
		TD *d = sg_at(w, i->d); \
		const TA *a = sg_at(w, i->a); \
		const TB *b = sg_at(w, i->b); \
		SG_LOOP(const TA A = a[l]; const TB B = b[l]; const TD r = (TD)(expr)) \
	}
#define SG_LANE3(name, TD, TA, TB, TC, expr) \
	SG_HANDLER(name) \
	{ \
		TD *d = sg_at(w, i->d); \
		const TA *a = sg_at(w, i->a); \
		const TB *b = sg_at(w, i->b); \
		const TC *c = sg_at(w, i->c); \
		SG_LOOP(const TA A = a[l]; const TB B = b[l]; const TC C = c[l]; const TD r = (TD)(expr)) \
	}

/* Whether all lanes have one value; two lanes tell mostly. */
static inline bool sg_same(const void *values, size_t bytes)
{
	u64 differ = 0;

	if (memcmp(values, (const char *)values + bytes, bytes))
		return false;
	if (bytes == 2)
		SG_VECTOR for (int l = 0; l < SG_LANES; l++) differ |= ((const u16 *)values)[l] ^ *(const u16 *)values;
	else if (bytes == 4)
		SG_VECTOR for (int l = 0; l < SG_LANES; l++) differ |= ((const u32 *)values)[l] ^ *(const u32 *)values;
	else
		SG_VECTOR for (int l = 0; l < SG_LANES; l++) differ |= ((const u64 *)values)[l] ^ *(const u64 *)values;
	return !differ;
}

/* For expressions that the compiler cannot vectorise: the active lanes only, one by one, and one for all where a
 * whole warp has the same operands. */
#define SG_EACH_LOOP(same, body) \
	const bool once = (m | w->idle) == SG_ALL && (same); \
\
	SG_EACH(l, once ? 1 : m) \
	{ \
		body; \
		d[l] = r; \
	} \
	if (once) \
		SG_VECTOR for (int l = 1; l < SG_LANES; l++) d[l] = d[0]; \
	return i + 1;
#define SG_SAME(x) sg_same(x, sizeof(*(x)))

#define SG_EACH1(name, TD, TA, expr) \
	SG_HANDLER(name) \
	{ \
		TD *d = sg_at(w, i->d); \
		const TA *a = sg_at(w, i->a); \
		SG_EACH_LOOP(SG_SAME(a), const TA A = a[l]; const TD r = (TD)(expr)) \
	}
#define SG_EACH2(name, TD, TA, TB, expr) \
	SG_HANDLER(name) \
	{ \
		TD *d = sg_at(w, i->d); \
		const TA *a = sg_at(w, i->a); \
		const TB *b = sg_at(w, i->b); \
		SG_EACH_LOOP(SG_SAME(a) && SG_SAME(b), const TA A = a[l]; const TB B = b[l]; const TD r = (TD)(expr)) \
	}
#define SG_EACH3(name, TD, TA, TB, TC, expr) \
	SG_HANDLER(name) \
	{ \
		TD *d = sg_at(w, i->d); \
		const TA *a = sg_at(w, i->a); \
		const TB *b = sg_at(w, i->b); \
		const TC *c = sg_at(w, i->c); \
		SG_EACH_LOOP(SG_SAME(a) && SG_SAME(b) && SG_SAME(c), const TA A = a[l]; const TB B = b[l]; \
			     const TC C = c[l]; const TD r = (TD)(expr)) \
	}

/* Two halves of a register at once: 64 lanes of 16 bits, or of 32. */
#define SG_PAIR_LOOP(body) \
	if ((m | w->idle) == SG_ALL) { \
		SG_VECTOR for (int l = 0; l < 2 * SG_LANES; l++) \
		{ \
			body; \
			d[l] = r; \
		} \
	} else { \
		SG_EACH(lane, m) for (uint32_t l = 2 * lane; l < 2 * lane + 2; l++) \
		{ \
			body; \
			d[l] = r; \
		} \
	} \
	return i + 1;
#define SG_PAIR1(name, T, expr) \
	SG_HANDLER(name) \
	{ \
		T *d = sg_at(w, i->d); \
		const T *a = sg_at(w, i->a); \
		SG_PAIR_LOOP(const T A = a[l]; const T r = (T)(expr)) \
	}
#define SG_PAIR2(name, T, expr) \
	SG_HANDLER(name) \
	{ \
		T *d = sg_at(w, i->d); \
		const T *a = sg_at(w, i->a), *b = sg_at(w, i->b); \
		SG_PAIR_LOOP(const T A = a[l]; const T B = b[l]; const T r = (T)(expr)) \
	}
#define SG_PAIR3(name, T, expr) \
	SG_HANDLER(name) \
	{ \
		T *d = sg_at(w, i->d); \
		const T *a = sg_at(w, i->a), *b = sg_at(w, i->b), *c = sg_at(w, i->c); \
		SG_PAIR_LOOP(const T A = a[l]; const T B = b[l]; const T C = c[l]; const T r = (T)(expr)) \
	}

/* Under a rounding mode of the CPU. Operands are loaded and results stored between the two changes. */
#define SG_ROUNDED(mode, statement) \
	const int saved = fegetround(); \
	fesetround(mode); \
	__asm__ volatile("" ::: "memory"); \
	statement __asm__ volatile("" :: : "memory"); \
	fesetround(saved); \
	return i + 1;
#define SG_ROUND1(name, mode, TD, TA, expr) \
	SG_HANDLER(name) \
	{ \
		TD *d = sg_at(w, i->d); \
		const TA *a = sg_at(w, i->a); \
		SG_ROUNDED( \
			mode, SG_EACH(l, m) { \
				const TA A = a[l]; \
				d[l] = (TD)(expr); \
			}) \
	}
#define SG_ROUND2(name, mode, TD, TA, TB, expr) \
	SG_HANDLER(name) \
	{ \
		TD *d = sg_at(w, i->d); \
		const TA *a = sg_at(w, i->a); \
		const TB *b = sg_at(w, i->b); \
		SG_ROUNDED( \
			mode, SG_EACH(l, m) { \
				const TA A = a[l]; \
				const TB B = b[l]; \
				d[l] = (TD)(expr); \
			}) \
	}
#define SG_ROUND3(name, mode, TD, TA, TB, TC, expr) \
	SG_HANDLER(name) \
	{ \
		TD *d = sg_at(w, i->d); \
		const TA *a = sg_at(w, i->a); \
		const TB *b = sg_at(w, i->b); \
		const TC *c = sg_at(w, i->c); \
		SG_ROUNDED( \
			mode, SG_EACH(l, m) { \
				const TA A = a[l]; \
				const TB B = b[l]; \
				const TC C = c[l]; \
				d[l] = (TD)(expr); \
			}) \
	}

#define SG_ROUND_PAIR2(name, mode, T, expr) \
	SG_HANDLER(name) \
	{ \
		T *d = sg_at(w, i->d); \
		const T *a = sg_at(w, i->a), *b = sg_at(w, i->b); \
		SG_ROUNDED( \
			mode, SG_EACH(lane, m) for (uint32_t l = 2 * lane; l < 2 * lane + 2; l++) { \
				const T A = a[l]; \
				const T B = b[l]; \
				d[l] = (T)(expr); \
			}) \
	}
#define SG_ROUND_PAIR3(name, mode, T, expr) \
	SG_HANDLER(name) \
	{ \
		T *d = sg_at(w, i->d); \
		const T *a = sg_at(w, i->a), *b = sg_at(w, i->b), *c = sg_at(w, i->c); \
		SG_ROUNDED( \
			mode, SG_EACH(lane, m) for (uint32_t l = 2 * lane; l < 2 * lane + 2; l++) { \
				const T A = a[l]; \
				const T B = b[l]; \
				const T C = c[l]; \
				d[l] = (T)(expr); \
			}) \
	}

/* Comparisons: d and c are the two destinations, x the combination with a predicate (see sg_compared). */
#define SG_TEST_LOOP(body) \
	uint32_t bits = 0; \
	SG_VECTOR for (int l = 0; l < SG_LANES; l++) \
	{ \
		body \
	}
#define SG_TEST1(name, TA, expr) \
	SG_HANDLER(name) \
	{ \
		const TA *a = sg_at(w, i->a); \
		SG_TEST_LOOP(const TA A = a[l]; bits |= (expr) ? sg_bit[l] : 0;) \
		return sg_compared(w, i, m, bits); \
	}
#define SG_TEST2(name, TA, TB, expr) \
	SG_HANDLER(name) \
	{ \
		const TA *a = sg_at(w, i->a); \
		const TB *b = sg_at(w, i->b); \
		SG_TEST_LOOP(const TA A = a[l]; const TB B = b[l]; bits |= (expr) ? sg_bit[l] : 0;) \
		return sg_compared(w, i, m, bits); \
	}

/* x: bits 0-1 the operation (none, and, or, xor), the rest a source predicate shifted left by 2. */
static inline const struct sg_op *sg_compared(struct sg_warp *w, const struct sg_op *i, uint32_t m, uint32_t bits)
{
	uint32_t other = ~bits;

	if (i->x & 3) {
		const uint32_t with = sg_truth(w, i->x >> 2);

		switch (i->x & 3) {
		case 1:
			bits &= with;
			other &= with;
			break;
		case 2:
			bits |= with;
			other |= with;
			break;
		case 3:
			bits ^= with;
			other ^= with;
			break;
		}
	}
	if (i->d != SG_NOWHERE)
		sg_predicate_set(w, i->d, m, bits);
	if (i->c != SG_NOWHERE)
		sg_predicate_set(w, i->c, m, other);
	return i + 1;
}

/* With the carry of the condition code: IN is the lane's carry, the expression sets r and OUT. */
#define SG_CARRY3(name, T, body) \
	SG_HANDLER(name) \
	{ \
		T *d = sg_at(w, i->d); \
		const T *a = sg_at(w, i->a), *b = sg_at(w, i->b), *c = sg_at(w, i->c); \
		uint32_t carry = w->carry; \
		SG_EACH(l, m) \
		{ \
			const T A = a[l], B = b[l], C = c[l]; \
			const uint32_t IN = w->carry >> l & 1; \
			uint32_t OUT = IN; \
			T r; \
			(void)C; \
			(void)IN; \
			body; \
			d[l] = r; \
			carry = (carry & ~(1u << l)) | OUT << l; \
		} \
		w->carry = carry; \
		return i + 1; \
	}

#endif
