/* SPDX-License-Identifier: Apache-2.0
 *
 * The rules of f32 and f64 results: one NaN for f32, flushing, saturation, ordered zeros in min and max.
 * Written as selections so that loops over them vectorise.
 */
#ifndef SOFTGPU_FLOAT_H
#define SOFTGPU_FLOAT_H

#include "lanes.h"

enum { SG_RN, SG_RZ, SG_RM, SG_RP };

static inline u32 sg_bits32(float x)
{
	union {
		float f;
		u32 u;
	} v = { .f = x };

	return v.u;
}

static inline float sg_from32(u32 x)
{
	union {
		u32 u;
		float f;
	} v = { .u = x };

	return v.f;
}

static inline u64 sg_bits64(double x)
{
	union {
		double f;
		u64 u;
	} v = { .f = x };

	return v.u;
}

static inline double sg_from64(u64 x)
{
	union {
		u64 u;
		double f;
	} v = { .u = x };

	return v.f;
}

static inline float sg_nan32(float x)
{
	return x == x ? x : sg_from32(0x7fffffff);
}

static inline float sg_ftz(float x)
{
	const u32 u = sg_bits32(x);

	return sg_from32(u & 0x7f800000 ? u : u & 0x80000000);
}

static inline double sg_ftz64(double x)
{
	const u64 u = sg_bits64(x);

	return sg_from64(u << 1 >> 53 ? u : u & (u64)1 << 63);
}

static inline float sg_sat32(float x)
{
	x = x > 0 ? x : 0; /* NaN and -0 too */
	return x < 1 ? x : 1;
}

#define SG_EXTREME(name, less, zero, n, type) \
	static inline type sg_##name##n(type a, type b) \
	{ \
		type r = a less b ? a : b; \
\
		r = a == b ? sg_from##n(sg_bits##n(a) zero sg_bits##n(b)) : r; \
		return b == b ? r : a == a ? a : sg_quiet##n(a); \
	}
static inline float sg_quiet32(float x)
{
	return sg_from32(0x7fffffff);
}

static inline double sg_quiet64(double x)
{
	return x + x;
}

SG_EXTREME(min, <, |, 32, float)
SG_EXTREME(max, >, &, 32, float)
SG_EXTREME(min, <, |, 64, double)
SG_EXTREME(max, >, &, 64, double)

static inline float sg_min_nan32(float a, float b)
{
	return a == a && b == b ? sg_min32(a, b) : sg_from32(0x7fffffff);
}

static inline float sg_max_nan32(float a, float b)
{
	return a == a && b == b ? sg_max32(a, b) : sg_from32(0x7fffffff);
}

#define SG_XORSIGN(name) \
	static inline float sg_##name##_xorsign32(float a, float b) \
	{ \
		const u32 sign = (sg_bits32(a) ^ sg_bits32(b)) & 0x80000000; \
\
		const float r = sg_##name##32(__builtin_fabsf(a), __builtin_fabsf(b)); \
\
		return r == r ? sg_from32(sg_bits32(r) | sign) : r; \
	}
SG_XORSIGN(min)
SG_XORSIGN(max)
SG_XORSIGN(min_nan)
SG_XORSIGN(max_nan)

#define sg_rint32(x) __builtin_rintf(x)
#define sg_trunc32(x) __builtin_truncf(x)
#define sg_floor32(x) __builtin_floorf(x)
#define sg_ceil32(x) __builtin_ceilf(x)
#define sg_rint64(x) __builtin_rint(x)
#define sg_trunc64(x) __builtin_trunc(x)
#define sg_floor64(x) __builtin_floor(x)
#define sg_ceil64(x) __builtin_ceil(x)

/* testp, on bits */
#define sg_finite32(x) (((x) & 0x7f800000) != 0x7f800000)
#define sg_infinite32(x) (((x) & 0x7fffffff) == 0x7f800000)
#define sg_number32(x) (((x) & 0x7fffffff) <= 0x7f800000)
#define sg_notanumber32(x) (((x) & 0x7fffffff) > 0x7f800000)
#define sg_normal32(x) (((x) & 0x7f800000) && sg_finite32(x))
#define sg_subnormal32(x) (!((x) & 0x7f800000) && ((x) & 0x7fffff))
#define sg_finite64(x) (((x) & 0x7ff0000000000000ull) != 0x7ff0000000000000ull)
#define sg_infinite64(x) (((x) & 0x7fffffffffffffffull) == 0x7ff0000000000000ull)
#define sg_number64(x) (((x) & 0x7fffffffffffffffull) <= 0x7ff0000000000000ull)
#define sg_notanumber64(x) (((x) & 0x7fffffffffffffffull) > 0x7ff0000000000000ull)
#define sg_normal64(x) (((x) & 0x7ff0000000000000ull) && sg_finite64(x))
#define sg_subnormal64(x) (!((x) & 0x7ff0000000000000ull) && ((x) & 0xfffffffffffffull))

#endif
