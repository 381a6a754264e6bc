/* SPDX-License-Identifier: Apache-2.0
 *
 * Video instructions: on a byte, a half or the whole of each operand, or on all bytes or halves at once. What to do
 * is in the record's x; lower_video.py builds it.
 */
#include "run.h"

enum { ADD, SUB, ABSDIFF, MIN, MAX, AVRG, SHL, SHR, SET, MAD };
enum { EQ, NE, LT, LE, GT, GE };
enum { SECOND_NONE, SECOND_ADD, SECOND_MIN, SECOND_MAX };

#define OPERATION(x) ((x) & 15)
#define D_SIGNED(x) ((x) >> 4 & 1)
#define A_SIGNED(x) ((x) >> 5 & 1)
#define B_SIGNED(x) ((x) >> 6 & 1)
#define SATURATE(x) ((x) >> 7 & 1)
#define CLAMP_SHIFT(x) ((x) >> 8 & 1)
#define SECOND(x) ((x) >> 9 & 3)
#define COMPARISON(x) ((x) >> 11 & 7)
#define A_PART(x) ((x) >> 16 & 7)
#define B_PART(x) ((x) >> 19 & 7)
#define D_PART(x) ((x) >> 22 & 7)
#define SCALE(x) ((x) >> 25 & 15)
#define PLUS_ONE(x) ((x) >> 29 & 1)
#define NEGATED(x) ((x) >> 30 & 1) /* the product */
#define SUBTRACT(x) ((x) >> 31 & 1)
#define LANE_MASK(x) ((x) >> 16 & 15)
#define BYTES(x) ((x) >> 20 & 1)

/* A part: 0 all, 1 to 4 a byte, 5 and 6 a half. */
static inline int part_bits(u32 part)
{
	return part == 0 ? 32 : part < 5 ? 8 : 16;
}

static inline int part_shift(u32 part)
{
	return part == 0 ? 0 : part < 5 ? 8 * (int)(part - 1) : 16 * (int)((part - 5) & 1);
}

static inline s64 extend(u32 value, int shift, int bits, bool is_signed)
{
	const u64 raised = (u64)(value >> shift) << (64 - bits);

	return is_signed ? (s64)raised >> (64 - bits) : (s64)(raised >> (64 - bits));
}

static inline s64 clamp(s64 value, int bits, bool is_signed)
{
	const s64 least = is_signed ? -((s64)1 << (bits - 1)) : 0;
	const s64 most = is_signed ? ((s64)1 << (bits - 1)) - 1 : ((s64)1 << bits) - 1;

	return value < least ? least : value > most ? most : value;
}

static inline bool compare(s64 a, s64 b, u32 how)
{
	switch (how) {
	case EQ: return a == b;
	case NE: return a != b;
	case LT: return a < b;
	case LE: return a <= b;
	case GT: return a > b;
	default: return a >= b;
	}
}

static inline s64 shift(s64 a, s64 b, u32 x)
{
	const u64 amount = (u64)b;
	const int by = CLAMP_SHIFT(x) ? (amount > 32 ? 32 : (int)amount) : (int)(amount & 31);

	const __int128 wide = (__int128)a * ((s64)1 << by);

	if (OPERATION(x) != SHL)
		return a >> by;
	if (SATURATE(x) && (wide > INT64_MAX || wide < INT64_MIN))
		return wide > 0 ? INT64_MAX : INT64_MIN;
	return (s64)wide;
}

static inline s64 operate(s64 a, s64 b, u32 x)
{
	switch (OPERATION(x)) {
	case ADD: return a + b;
	case SUB: return a - b;
	case ABSDIFF: return a < b ? b - a : a - b;
	case MIN: return a < b ? a : b;
	case MAX: return a > b ? a : b;
	case AVRG: return (a + b + (a + b >= 0)) >> 1;
	case SET: return compare(a, b, COMPARISON(x));
	default: return shift(a, b, x);
	}
}

static inline u32 second(s64 value, u32 c, u32 x)
{
	const s64 first = D_SIGNED(x) ? (s32)value : (s64)(u32)value, other = D_SIGNED(x) ? (s32)c : (s64)c;

	switch (SECOND(x)) {
	case SECOND_ADD: return (u32)value + c;
	case SECOND_MIN: return (u32)(first < other ? first : other);
	case SECOND_MAX: return (u32)(first > other ? first : other);
	default: return (u32)value;
	}
}

/* The product is signed where a factor is, or where it is negated; so is what is added. */
static inline u32 multiply_add(s64 a, s64 b, u32 c, u32 x)
{
	const bool is_signed = A_SIGNED(x) || B_SIGNED(x) || NEGATED(x);
	const s64 third = is_signed ? (s32)c : (s64)c;
	const __int128 product = NEGATED(x) ? -((__int128)a * b) : (__int128)a * b;
	const __int128 result = (product + (SUBTRACT(x) ? -third : third) + PLUS_ONE(x)) >> SCALE(x);
	const bool to_signed = is_signed || SUBTRACT(x);
	const __int128 least = to_signed ? INT32_MIN : 0, most = to_signed ? INT32_MAX : UINT32_MAX;

	if (!SATURATE(x))
		return (u32)result;
	return (u32)(result < least ? least : result > most ? most : result);
}

static inline u32 video(u32 a, u32 b, u32 c, u32 x)
{
	const s64 first = extend(a, part_shift(A_PART(x)), part_bits(A_PART(x)), A_SIGNED(x));
	const s64 other = extend(b, part_shift(B_PART(x)), part_bits(B_PART(x)), B_SIGNED(x));
	const u32 to = D_PART(x);
	s64 made;

	if (OPERATION(x) == MAD)
		return multiply_add(first, other, c, x);
	made = operate(first, other, x);
	if (SATURATE(x))
		made = clamp(made, part_bits(to), D_SIGNED(x));
	if (to) {
		const u32 mask = (u32)((1u << part_bits(to)) - 1) << part_shift(to);

		return ((u32)made << part_shift(to) & mask) | (c & ~mask);
	}
	return second(made, c, x);
}

static inline u32 video_lanes(u32 a, u32 b, u32 c, u32 x)
{
	const int bits = BYTES(x) ? 8 : 16;
	u32 result = c;

	for (int at = 0, k = 0; at < 32; at += bits, k++) {
		const u32 mask = ((1u << bits) - 1) << at;
		s64 made;

		if (!(LANE_MASK(x) >> k & 1))
			continue;
		made = operate(extend(a, at, bits, A_SIGNED(x)), extend(b, at, bits, B_SIGNED(x)), x);
		if (SATURATE(x))
			made = clamp(made, bits, D_SIGNED(x));
		if (SECOND(x))
			result += (u32)made;
		else
			result = ((u32)made << at & mask) | (result & ~mask);
	}
	return result;
}

#define VIDEO(name, function) \
	SG_HANDLER(name) \
	{ \
		u32 *d = sg_at(w, i->d); \
		const u32 *a = sg_at(w, i->a), *b = sg_at(w, i->b), *c = sg_at(w, i->c); \
\
		SG_EACH(l, m) d[l] = function(a[l], b[l], c[l], i->x); \
		return i + 1; \
	}

VIDEO(video, video)
VIDEO(video_lanes, video_lanes)
