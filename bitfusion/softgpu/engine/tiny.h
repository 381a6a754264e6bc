/* SPDX-License-Identifier: Apache-2.0
 *
 * Floats of 8, 6 and 4 bits (e4m3, e5m2, e3m2, e2m3, e2m1) and ue8m0, an exponent alone. Only e5m2 has infinities;
 * the last three have no NaN. What is too large becomes the largest number, as .satfinite has it.
 */
#ifndef SOFTGPU_TINY_H
#define SOFTGPU_TINY_H

#include "half.h"

static inline float sg_relu32(float x)
{
	return x == x && sg_bits32(x) >> 31 ? 0 : x;
}

/* The bits of a tiny float stand in an f16 of the same layout with a larger bias: `scale` makes up for it. */
static inline float sg_tiny_to_f32(u32 code, u32 sign, int shift, float scale)
{
	const u32 magnitude = code & (sign - 1);
	const float x = sg_f16_to_f32((u16)(magnitude << shift)) * scale;

	return code & sign ? -x : x;
}

static inline float sg_e4m3_to_f32(u32 code)
{
	return (code & 0x7f) == 0x7f ? sg_from32(0x7fffffff) : sg_tiny_to_f32(code, 0x80, 7, 0x1p8f);
}

#define sg_e5m2_to_f32(code) sg_f16_to_f32((u16)((u32)(code) << 8))
#define sg_e3m2_to_f32(code) sg_tiny_to_f32(code, 0x20, 8, 0x1p12f)
#define sg_e2m3_to_f32(code) sg_tiny_to_f32(code, 0x20, 7, 0x1p14f)
#define sg_e2m1_to_f32(code) sg_tiny_to_f32(code, 0x08, 9, 0x1p14f)

/* To the nearest code of a format with `bias` and `bits` of mantissa, whose largest number is `largest`. */
static inline u32 sg_f32_to_tiny(float x, int bias, int bits, u32 largest, u32 sign, u32 nan)
{
	const u32 u = sg_bits32(x) & 0x7fffffff;
	const u32 lost = (u32)(23 - bits);
	const u32 normal = (u + (1u << (lost - 1)) - 1 + (u >> lost & 1) - ((u32)(127 - bias) << 23)) >> lost;
	const float magic =
		sg_from32((u32)(127 + 24 - bias - bits) << 23); /* whose last bit is the smallest number's */
	const u32 small = sg_bits32(sg_from32(u) + magic) - sg_bits32(magic);
	const u32 code = u < (u32)(128 - bias) << 23 ? small : normal;
	const u32 kept = code < largest ? code : largest;

	return u > 0x7f800000 ? nan : (sg_bits32(x) >> 31 ? kept | sign : kept);
}

#define sg_f32_to_e4m3(x) sg_f32_to_tiny(x, 7, 3, 0x7e, 0x80, 0x7f)
#define sg_f32_to_e5m2(x) sg_f32_to_tiny(x, 15, 2, 0x7b, 0x80, 0x7f)
#define sg_f32_to_e3m2(x) sg_f32_to_tiny(x, 3, 2, 0x1f, 0x20, 0x1f)
#define sg_f32_to_e2m3(x) sg_f32_to_tiny(x, 1, 3, 0x1f, 0x20, 0x1f)
#define sg_f32_to_e2m1(x) sg_f32_to_tiny(x, 1, 1, 0x07, 0x08, 0x07)

/* Of a magnitude; 2^-127 is the smallest that there is. */
static inline u32 sg_f32_to_ue8m0(float x, bool up, bool satfinite)
{
	const u32 u = sg_bits32(x) & 0x7fffffff;
	u32 code = u >> 23;

	if (u > 0x7f800000)
		return 0xff;
	code += up && (u & 0x7fffff) && u > 0x400000;
	return satfinite && code > 0xfe ? 0xfe : code;
}

static inline u32 sg_ue8m0_to_bf16(u32 code)
{
	return code == 0xff ? 0x7fff : code ? code << 7 : 0x40;
}

static inline u32 sg_satfinite_tf32(u32 x)
{
	return (x & 0x7fffffff) == 0x7f800000 ? x - 0x2000 : x;
}

/* cvt.pack: a and b, each clamped to `bits`, below them what c has. */
static inline u32 sg_pack_clamped(s32 a, s32 b, u32 c, int bits, bool is_signed)
{
	const s32 low = is_signed ? -(1 << (bits - 1)) : 0;
	const s32 high = is_signed ? (1 << (bits - 1)) - 1 : (1 << bits) - 1;
	const u32 mask = (1u << bits) - 1;
	const u32 first = (u32)(a < low ? low : a > high ? high : a) & mask;
	const u32 second = (u32)(b < low ? low : b > high ? high : b) & mask;

	return (bits < 16 ? c << 2 * bits : 0) | first << bits | second;
}

#endif
