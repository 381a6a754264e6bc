/* SPDX-License-Identifier: Apache-2.0
 *
 * f16, bf16 and tf32. Arithmetic goes through f32, where +, -, *, / of halves round innocuously; fma goes through f64
 * and a rounding to odd, so that the result is rounded once.
 */
#ifndef SOFTGPU_HALF_H
#define SOFTGPU_HALF_H

#include "float.h"

/* What tensor copies may put outside of a tensor, and fma.oob makes 0 of: a NaN that no arithmetic gives. */
#define SG_OUTSIDE 0xffff

static inline float sg_f16_to_f32(u16 h)
{
	const u32 magnitude = (u32)(h & 0x7fff) << 13;
	const u32 sign = (u32)(h & 0x8000) << 16;
	const u32 finite = sg_bits32(sg_from32(magnitude) * 0x1p112f);
	const u32 special = (h & 0x7fff) == 0x7c00 ? 0x7f800000 : 0x7fffffff;

	return (h & 0x7fff) > 0x7c00 ? sg_from32(special)
				     : sg_from32(((h & 0x7c00) == 0x7c00 ? special : finite) | sign);
}

static inline u16 sg_f32_to_f16(float x)
{
	const u32 u = sg_bits32(x) & 0x7fffffff;
	const u32 sign = sg_bits32(x) >> 16 & 0x8000;
	const u32 normal = (u + 0xfff + (u >> 13 & 1) - 0x38000000) >> 13;
	const u32 small = sg_bits32(sg_from32(u) + 0.5f) - 0x3f000000;
	const u32 finite = u < 0x38800000 ? small : normal;
	const u32 limited = u >= 0x47800000 ? 0x7c00 : finite;

	return (u16)(u > 0x7f800000 ? 0x7fff : limited | sign);
}

static inline float sg_bf16_to_f32(u16 h)
{
	return (h & 0x7fff) > 0x7f80 ? sg_from32(0x7fffffff) : sg_from32((u32)h << 16);
}

static inline u16 sg_f32_to_bf16(float x)
{
	const u32 u = sg_bits32(x);

	return (u16)((u & 0x7fffffff) > 0x7f800000 ? 0x7fff : (u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* To f32 with the last bit set where something was lost: a second rounding to fewer bits is then exact. */
static inline float sg_odd32(double x)
{
	const float f = (float)x;
	const u32 u = sg_bits32(f) - (__builtin_fabs((double)f) > __builtin_fabs(x));

	return (double)f == x || x != x ? f : sg_from32(u | 1);
}

/* p + c in f64 with the last bit set where something was lost. */
static inline double sg_odd_sum(double p, double c)
{
	const double s = p + c;
	const double back = s - p;
	const double lost = (p - (s - back)) + (c - back);
	const u64 u = sg_bits64(s);
	const bool toward_zero = (lost > 0) == (s < 0);

	if (!(lost != 0) || lost != lost || (u & 1))
		return s;
	return sg_from64(toward_zero ? u - 1 : u + 1);
}

static inline u16 sg_fma_f16(u16 a, u16 b, u16 c)
{
	return sg_f32_to_f16(sg_odd32((double)sg_f16_to_f32(a) * sg_f16_to_f32(b) + sg_f16_to_f32(c)));
}

static inline u16 sg_fma_bf16(u16 a, u16 b, u16 c)
{
	return sg_f32_to_bf16(sg_odd32(sg_odd_sum((double)sg_bf16_to_f32(a) * sg_bf16_to_f32(b), sg_bf16_to_f32(c))));
}

static inline u16 sg_ftz_f16(u16 h)
{
	return h & 0x7c00 ? h : h & 0x8000;
}

#define sg_sat_f16(h) sg_f32_to_f16(sg_sat32(sg_f16_to_f32(h)))
#define sg_sat_bf16(h) sg_f32_to_bf16(sg_sat32(sg_bf16_to_f32(h)))

static inline u16 sg_relu_f16(u16 h)
{
	return (h & 0x7fff) > 0x7c00 ? 0x7fff : h & 0x8000 ? 0 : h;
}

static inline u16 sg_relu_bf16(u16 h)
{
	return (h & 0x7fff) > 0x7f80 ? 0x7fff : h & 0x8000 ? 0 : h;
}

static inline u16 sg_satfinite_f16(u16 h)
{
	return (h & 0x7fff) == 0x7c00 ? (h & 0x8000) | 0x7bff : h;
}

static inline u16 sg_satfinite_bf16(u16 h)
{
	return (h & 0x7fff) == 0x7f80 ? (h & 0x8000) | 0x7f7f : h;
}

static inline u32 sg_f32_to_tf32_rna(float x)
{
	return x == x ? (sg_bits32(x) + 0x1000) & ~0x1fffu : 0x7fffffff;
}

static inline u32 sg_f32_to_tf32_rn(float x)
{
	return x == x ? (sg_bits32(x) + 0xfff + (sg_bits32(x) >> 13 & 1)) & ~0x1fffu : 0x7fffffff;
}

static inline u32 sg_f32_to_tf32_rz(float x)
{
	return x == x ? sg_bits32(x) & ~0x1fffu : 0x7fffffff;
}

/* mantissa * 2^exponent in a format of `precision` bits whose exponents run from `least` to 1 - least, rounded once. */
static inline u16 sg_round_half(u32 sign, u64 mantissa, int exponent, int precision, int least, int mode)
{
	const u16 negative = (u16)(sign << 15);
	const u16 infinite = (u16)((2 - 2 * least + 1) << (precision - 1));

	if (!mantissa)
		return negative;
	const int top = 63 - __builtin_clzll(mantissa) + exponent;
	int last = (top > least ? top : least) - (precision - 1);
	const int shift = last - exponent;
	u64 kept = shift <= 0 ? mantissa << -shift : shift > 63 ? 0 : mantissa >> shift;
	const u64 lost = shift <= 0 ? 0 : shift > 63 ? mantissa : mantissa & sg_low_bits((u32)shift);
	const u64 half = shift <= 0 || shift > 64 ? 0 : 1ull << (shift - 1);
	bool up = false;

	if (mode == SG_RN)
		up = half && (lost > half || (lost == half && (kept & 1)));
	else if (mode != SG_RZ)
		up = lost && (mode == SG_RM) == (sign != 0);
	kept += up;
	if (kept >> precision) {
		kept >>= 1;
		last++;
	}
	if (!(kept >> (precision - 1)))
		return negative | (u16)kept;
	const int e = last + precision - 1;

	if (e > 1 - least) {
		const bool to_infinity = mode == SG_RN || (mode != SG_RZ && (mode == SG_RM) == (sign != 0));

		return negative | (to_infinity ? infinite : infinite - 1);
	}
	return negative | (u16)((e + 1 - least) << (precision - 1)) | (u16)(kept & ((1u << (precision - 1)) - 1));
}

#define SG_HALF_FORMAT(name, precision, least) \
	static inline u16 sg_u64_to_##name(u64 x, int mode) \
	{ \
		return sg_round_half(0, x, 0, precision, least, mode); \
	} \
	static inline u16 sg_s64_to_##name(s64 x, int mode) \
	{ \
		return sg_round_half(x < 0, x < 0 ? -(u64)x : (u64)x, 0, precision, least, mode); \
	} \
	static inline u16 sg_f64_to_##name(double x, int mode) \
	{ \
		const u64 u = sg_bits64(x), fraction = u & 0xfffffffffffffull; \
		const int e = (int)(u >> 52 & 0x7ff); \
\
		if (x != x) \
			return 0x7fff; \
		if (e == 0x7ff) \
			return (u16)(u >> 63 << 15) | (u16)((3 - 2 * (least)) << ((precision) - 1)); \
		return sg_round_half((u32)(u >> 63), e ? fraction | 1ull << 52 : fraction, (e ? e : 1) - 1075, \
				     precision, least, mode); \
	}
SG_HALF_FORMAT(f16, 11, -14)
SG_HALF_FORMAT(bf16, 8, -126)

#endif
