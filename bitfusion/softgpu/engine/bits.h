/* SPDX-License-Identifier: Apache-2.0
 *
 * Bit instructions of one lane.
 */
#ifndef SOFTGPU_BITS_H
#define SOFTGPU_BITS_H

#include "lanes.h"

#define SG_SAT32(x) sg_saturate32(x)

static inline s32 sg_saturate32(int64_t x)
{
	return x > INT32_MAX ? INT32_MAX : x < INT32_MIN ? INT32_MIN : (s32)x;
}

static inline u64 sg_reverse64(u64 x)
{
	x = (x >> 1 & 0x5555555555555555ull) | (x & 0x5555555555555555ull) << 1;
	x = (x >> 2 & 0x3333333333333333ull) | (x & 0x3333333333333333ull) << 2;
	x = (x >> 4 & 0x0f0f0f0f0f0f0f0full) | (x & 0x0f0f0f0f0f0f0f0full) << 4;
	return __builtin_bswap64(x);
}

static inline u32 sg_reverse32(u32 x)
{
	return (u32)(sg_reverse64(x) >> 32);
}

/* width low bits of x, all of them from 64 on */
static inline u64 sg_low_bits(u32 width)
{
	return width > 63 ? ~0ull : (1ull << width) - 1;
}

static inline u64 sg_bfe(u64 x, u32 position, u32 length, u32 bits, bool is_signed)
{
	position &= 0xff;
	length &= 0xff;
	if (!length)
		return 0;
	const u32 last = position + length - 1 < bits - 1 ? position + length - 1 : bits - 1;
	const u64 sign = is_signed && (x >> last & 1) ? ~0ull : 0;

	if (position >= bits)
		return sign;
	const u32 taken = last - position + 1;
	const u64 mask = sg_low_bits(taken);

	return (x >> position & mask) | (sign & ~mask);
}

#define sg_bfe_u32(a, b, c) sg_bfe(a, b, c, 32, false)
#define sg_bfe_s32(a, b, c) sg_bfe(a, b, c, 32, true)
#define sg_bfe_u64(a, b, c) sg_bfe(a, b, c, 64, false)
#define sg_bfe_s64(a, b, c) sg_bfe(a, b, c, 64, true)

static inline u64 sg_bfi(u64 inserted, u64 into, u32 position, u32 length, u32 bits)
{
	position &= 0xff;
	length &= 0xff;
	if (position >= bits)
		return into;
	const u64 mask = sg_low_bits(length) << position;

	return (into & ~mask) | (inserted << position & mask);
}

static inline u32 sg_bmsk_wrap(u32 position, u32 width)
{
	position &= 31;
	width &= 31;
	const u32 low = ~0u << position;

	return position + width >= 32 ? low : low & ~(~0u << (position + width));
}

static inline u32 sg_bmsk_clamp(u32 position, u32 width)
{
	if (position > 31)
		return 0;
	return width > 31 ? ~0u << position : sg_bmsk_wrap(position, width);
}

static inline u32 sg_szext_u32(u32 x, u32 width)
{
	return width > 31 ? x : x & ((1u << width) - 1);
}

static inline u32 sg_szext_s32(u32 x, u32 width)
{
	if (width > 31 || !width)
		return width ? x : 0;
	return (u32)((s32)(x << (32 - width)) >> (32 - width));
}

static inline u32 sg_fns(u32 mask, u32 base, s32 offset)
{
	const int step = offset < 0 ? -1 : 1;
	int64_t count = offset < 0 ? -(int64_t)offset - 1 : offset - 1;

	if (base > 31)
		return ~0u;
	if (!offset)
		return mask >> base & 1 ? base : ~0u;
	for (int at = (int)base; at >= 0 && at < 32; at += step)
		if ((mask >> at & 1) && count-- == 0)
			return (u32)at;
	return ~0u;
}

static inline u32 sg_byte_of(u64 x, u32 which)
{
	return (u32)(x >> 8 * (which & 7)) & 0xff;
}

static inline u32 sg_prmt(u32 a, u32 b, u32 control)
{
	const u64 x = (u64)b << 32 | a;
	u32 made = 0;

	for (int k = 0; k < 4; k++) {
		const u32 select = control >> 4 * k & 15;
		const u32 byte = sg_byte_of(x, select & 7);

		made |= (select & 8 ? (byte & 0x80 ? 0xffu : 0) : byte) << 8 * k;
	}
	return made;
}

static inline u32 sg_prmt_f4e(u32 a, u32 b, u32 c)
{
	return (u32)(((u64)b << 32 | a) >> 8 * (c & 3));
}

static inline u32 sg_prmt_b4e(u32 a, u32 b, u32 c)
{
	const u64 x = (u64)b << 32 | a;

	c &= 3;
	return sg_byte_of(x, c) | sg_byte_of(x, c - 1) << 8 | sg_byte_of(x, c - 2) << 16 | sg_byte_of(x, c - 3) << 24;
}

static inline u32 sg_prmt_rc8(u32 a, u32 b, u32 c)
{
	return sg_byte_of(a, c & 3) * 0x01010101u;
}

static inline u32 sg_prmt_ecl(u32 a, u32 b, u32 c)
{
	u32 made = 0;

	for (u32 k = 0; k < 4; k++)
		made |= sg_byte_of(a, k > (c & 3) ? k : c & 3) << 8 * k;
	return made;
}

static inline u32 sg_prmt_ecr(u32 a, u32 b, u32 c)
{
	u32 made = 0;

	for (u32 k = 0; k < 4; k++)
		made |= sg_byte_of(a, k < (c & 3) ? k : c & 3) << 8 * k;
	return made;
}

static inline u32 sg_prmt_rc16(u32 a, u32 b, u32 c)
{
	return (a >> 16 * (c & 1) & 0xffff) * 0x00010001u;
}

#endif
