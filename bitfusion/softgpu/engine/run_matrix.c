/* SPDX-License-Identifier: Apache-2.0
 *
 * mma and wmma.mma. The fragments of the warp become packed rows, those become arrays of f32, f64 or s32, and the sums
 * are vector code over 8 columns. f32 sums are rounded after each product, and the accumulator comes last; a GPU's
 * order and inner precision are its own affair.
 */
#include "matrix.h"
#include "run.h"

typedef f32 f32x8 __attribute__((vector_size(32), may_alias));
typedef s32 s32x8 __attribute__((vector_size(32), may_alias));
typedef u32 u32x8 __attribute__((vector_size(32), may_alias));

#define ALIGNED __attribute__((aligned(32)))

/* Registers from `first` on -> rows of packed bytes; units are of 16 bytes, or of 32 for f64. */
static void collect(const struct sg_warp *w, const struct sg_op *i, uint32_t first, uint32_t count, bool stacked,
		    uint32_t row_bytes, uint32_t unit, char *packed)
{
	const uint32_t along = row_bytes / unit, half = stacked ? 2 : 1;

	for (uint32_t r = 0; r < count; r++) {
		const char *from = sg_at(w, sg_extra(i, first + r));
		const uint32_t below = r % half, at = r / half % along, group = r / half / along;
		char *to = packed + (size_t)(group * half + below) * 8 * row_bytes + (size_t)at * unit;

		if (unit == 16)
			for (int g = 0; g < 8; g++)
				memcpy(to + (size_t)g * row_bytes, from + 16 * g, 16);
		else
			for (int g = 0; g < 8; g++)
				memcpy(to + (size_t)g * row_bytes, from + 32 * g, 32);
	}
}

/* Row and column of a pair of accumulators' first elements: register 2q has a lane's even column, 2q + 1 the odd one. */
static size_t place_of_pair(const struct sg_matrix *s, uint32_t q)
{
	const uint32_t half = s->m > 8 ? 2 : 1, blocks = s->n / 8;

	return (size_t)(q / half / blocks * half + q % half) * 8 * s->n + q / half % blocks * 8;
}

/* Sizes are copied first: registers may alias everything. */
#define ACCUMULATORS(T) \
	static void collect_sums_##T(const struct sg_warp *w, const struct sg_op *i, uint32_t first, \
				     const struct sg_matrix *s, T *sums) \
	{ \
		const size_t n = s->n, pairs = s->m * n / 64; \
\
		for (uint32_t q = 0; q < pairs; q++) { \
			const T *even = sg_at(w, sg_extra(i, first + 2 * q)); \
			const T *odd = sg_at(w, sg_extra(i, first + 2 * q + 1)); \
			T *to = sums + place_of_pair(s, q); \
\
			for (int g = 0; g < 8; g++, to += n, even += 4, odd += 4) { \
				const T row[8] = { \
					even[0], odd[0], even[1], odd[1], even[2], odd[2], even[3], odd[3] \
				}; \
\
				memcpy(to, row, sizeof(row)); \
			} \
		} \
	} \
	static void spread_sums_##T(struct sg_warp *w, const struct sg_op *i, const struct sg_matrix *s, \
				    const T *sums) \
	{ \
		const size_t n = s->n, pairs = s->m * n / 64; \
\
		for (uint32_t q = 0; q < pairs; q++) { \
			T *even = sg_at(w, sg_extra(i, 2 * q)), *odd = sg_at(w, sg_extra(i, 2 * q + 1)); \
			const T *from = sums + place_of_pair(s, q); \
\
			for (int g = 0; g < 8; g++, from += n, even += 4, odd += 4) { \
				const T left[4] = { from[0], from[2], from[4], from[6] }; \
				const T right[4] = { from[1], from[3], from[5], from[7] }; \
\
				memcpy(even, left, sizeof(left)); \
				memcpy(odd, right, sizeof(right)); \
			} \
		} \
	}
ACCUMULATORS(u32)
ACCUMULATORS(u64)

static void spread_halves(struct sg_warp *w, const struct sg_op *i, const struct sg_matrix *s, const char *packed)
{
	const uint32_t half = s->m > 8 ? 2 : 1, blocks = s->n / 8, row_bytes = 2 * s->n;

	for (uint32_t r = 0; r < s->d_regs; r++) {
		char *to = sg_at(w, sg_extra(i, r));
		const uint32_t row = (r / half / blocks * half + r % half) * 8;

		for (uint32_t g = 0; g < 8; g++)
			memcpy(to + 16 * g, packed + (row + g) * row_bytes + 16 * (r / half % blocks), 16);
	}
}

/* Where each two of four units of a row stand, from the threads that hold it. */
static u64 metadata_of_row(const u32 *meta, uint32_t row, uint32_t units, bool wide, uint32_t selector)
{
	const uint32_t g = row % 8, below = row / 8, each = wide ? 16 : 32;
	u64 bits = 0;

	for (uint32_t q = 0; q < units / each; q++) {
		const uint32_t thread = units == 16   ? selector
					: wide        ? 2 * selector + q
					: units == 32 ? 2 * selector + below
						      : 2 * q + below;
		const u32 word = meta[4 * g + thread];

		bits |= (u64)(wide ? word >> 16 * below & 0xffff : word) << each * q;
	}
	return bits;
}

/* Half rows to whole ones, zeros between. */
static void expand(const struct sg_matrix *s, const u32 *meta, uint32_t selector, const char *stored, char *packed)
{
	const bool wide = s->bits >= 16;
	const uint32_t units = s->b_bytes >> wide;

	memset(packed, 0, (size_t)s->m * s->b_bytes);
	for (uint32_t row = 0; row < s->m; row++) {
		const u64 bits = metadata_of_row(meta, row, units, wide, selector);
		const char *from = stored + (size_t)row * s->a_bytes;
		char *to = packed + (size_t)row * s->b_bytes;

		for (uint32_t u = 0; u < units / 2; u++) {
			const uint32_t at = u / 2 * 4 + (uint32_t)(bits >> 2 * u & 3);

			memcpy(to + (at << wide), from + (u << wide), 1u << wide);
		}
	}
}

static void factor_a(const struct sg_warp *w, const struct sg_op *i, const struct sg_matrix *s, char *packed)
{
	char stored[SG_MATRIX_BYTES] ALIGNED;
	const bool sparse = i->x & SG_MATRIX_SPARSE;

	collect(w, i, s->d_regs, s->a_used, s->m > 8, s->a_bytes, 4 * s->width, sparse ? stored : packed);
	if (sparse)
		expand(s, sg_at(w, sg_extra(i, s->operands - 1)), SG_MATRIX_SELECTOR(i->x), stored, packed);
}

static void factor_b(const struct sg_warp *w, const struct sg_op *i, const struct sg_matrix *s, char *packed)
{
	collect(w, i, s->d_regs + s->a_regs, s->b_used, false, s->b_bytes, 4 * s->width, packed);
}

#define CONVERT(T, U, expression) \
	do { \
		const T *x = (const T *)packed; \
		SG_VECTOR for (uint32_t l = 0; l < count; l++) \
		{ \
			const T X = x[l]; \
			values[l] = (U)(expression); \
		} \
	} while (0)

static void to_singles(uint32_t type, const char *packed, uint32_t count, f32 *values)
{
	switch (type) {
	case SG_F16: CONVERT(u16, f32, sg_f16_to_f32(X)); break;
	case SG_BF16: CONVERT(u16, f32, sg_bf16_to_f32(X)); break;
	case SG_TF32: CONVERT(u32, f32, sg_from32(X & ~0x1fffu)); break;
	case SG_E4M3: CONVERT(u8, f32, sg_e4m3_to_f32(X)); break;
	default: CONVERT(u8, f32, sg_f16_to_f32((u16)(X << 8))); break;
	}
}

static void to_integers(uint32_t type, const char *packed, uint32_t count, s32 *values)
{
	switch (type) {
	case SG_S8: CONVERT(s8, s32, X); break;
	case SG_U8: CONVERT(u8, s32, X); break;
	default:
		for (uint32_t l = 0; l < count; l += 2) {
			const u32 x = ((const u8 *)packed)[l / 2];

			values[l] = type == SG_S4 ? (s32)(x << 28) >> 28 : (s32)(x & 15);
			values[l + 1] = type == SG_S4 ? (s32)(x << 24) >> 28 : (s32)(x >> 4);
		}
	}
}

/* B's columns, one after the other, to blocks of 8 columns: [n / 8][k][8]. */
static void interleave(const u32 *columns, size_t n, size_t k, u32 *blocks)
{
	for (; n; n -= 8, columns += 8 * k)
		for (size_t l = 0; l < k; l++, blocks += 8) {
			const u32 *x = columns + l;
			const u32 row[8] = { x[0], x[k], x[2 * k], x[3 * k], x[4 * k], x[5 * k], x[6 * k], x[7 * k] };

			memcpy(blocks, row, sizeof(row));
		}
}

/* Four rows at a time, so that a row of B is loaded once for four products. */
#define MULTIPLY(name, V, T) \
	static void name(const struct sg_matrix *s, const T *a, const T *b, T *sums) \
	{ \
		const size_t m = s->m, n = s->n, k = s->k; \
\
		for (size_t j = 0; j < n; j += 8) \
			for (size_t row = 0; row < m; row += 4) { \
				const V *from = (const V *)(b + j * k); \
				const T *x = a + row * k; \
				V s0 = { 0 }, s1 = { 0 }, s2 = { 0 }, s3 = { 0 }; \
\
				for (size_t l = 0; l < k; l++) { \
					const V y = from[l]; \
\
					s0 += x[l] * y; \
					s1 += x[k + l] * y; \
					s2 += x[2 * k + l] * y; \
					s3 += x[3 * k + l] * y; \
				} \
				*(V *)(sums + row * n + j) = s0; \
				*(V *)(sums + (row + 1) * n + j) = s1; \
				*(V *)(sums + (row + 2) * n + j) = s2; \
				*(V *)(sums + (row + 3) * n + j) = s3; \
			} \
	}
MULTIPLY(multiply_f32, f32x8, f32)
MULTIPLY(multiply_u32, u32x8, u32)

static void run_f32(struct sg_warp *w, const struct sg_op *i, const struct sg_matrix *s)
{
	char packed[SG_MATRIX_BYTES] ALIGNED;
	f32 a[SG_MATRIX_VALUES] ALIGNED, columns[SG_MATRIX_VALUES] ALIGNED, b[SG_MATRIX_VALUES] ALIGNED;
	f32 sums[SG_MATRIX_SUMS] ALIGNED, c[SG_MATRIX_SUMS] ALIGNED;
	const uint32_t first = s->d_regs + s->a_regs + s->b_regs, count = s->m * s->n;

	factor_a(w, i, s, packed);
	to_singles(s->a_type, packed, s->m * s->k, a);
	factor_b(w, i, s, packed);
	to_singles(s->b_type, packed, s->n * s->k, columns);
	interleave((const u32 *)columns, s->n, s->k, (u32 *)b);
	multiply_f32(s, a, b, sums);
	if (s->c_type == SG_SUM_F16) {
		collect(w, i, first, s->c_regs, s->m > 8, 2 * s->n, 16, packed);
		to_singles(SG_F16, packed, count, c);
	} else {
		collect_sums_u32(w, i, first, s, (u32 *)c);
	}
	if (s->d_type == SG_SUM_F16) {
		u16 *halves = (u16 *)packed;

		SG_VECTOR for (uint32_t l = 0; l < count; l++) halves[l] = sg_f32_to_f16(sums[l] + c[l]);
		spread_halves(w, i, s, packed);
	} else {
		SG_VECTOR for (uint32_t l = 0; l < count; l++) sums[l] = sg_nan32(sums[l] + c[l]);
		spread_sums_u32(w, i, s, (const u32 *)sums);
	}
}

static void count_bits(const struct sg_matrix *s, const char *a, const char *b, bool both, u32 *sums)
{
	const uint32_t words = s->k / 32;

	for (uint32_t row = 0; row < s->m; row++)
		for (uint32_t j = 0; j < s->n; j++) {
			const u32 *x = (const u32 *)a + row * words, *y = (const u32 *)b + j * words;
			u32 sum = 0;

			for (uint32_t l = 0; l < words; l++)
				sum += (u32)__builtin_popcount(both ? x[l] & y[l] : x[l] ^ y[l]);
			sums[row * s->n + j] = sum;
		}
}

static void run_s32(struct sg_warp *w, const struct sg_op *i, const struct sg_matrix *s)
{
	char packed[SG_MATRIX_BYTES] ALIGNED, other[SG_MATRIX_BYTES] ALIGNED;
	s32 a[SG_MATRIX_VALUES] ALIGNED, columns[SG_MATRIX_VALUES] ALIGNED, b[SG_MATRIX_VALUES] ALIGNED;
	u32 sums[SG_MATRIX_SUMS] ALIGNED, c[SG_MATRIX_SUMS] ALIGNED;
	const uint32_t count = s->m * s->n;

	factor_a(w, i, s, packed);
	factor_b(w, i, s, other);
	if (s->a_type == SG_B1) {
		count_bits(s, packed, other, i->x & SG_MATRIX_AND, sums);
	} else {
		to_integers(s->a_type, packed, s->m * s->k, a);
		to_integers(s->b_type, other, s->n * s->k, columns);
		interleave((const u32 *)columns, s->n, s->k, (u32 *)b);
		multiply_u32(s, (const u32 *)a, (const u32 *)b, sums);
	}
	collect_sums_u32(w, i, s->d_regs + s->a_regs + s->b_regs, s, c);
	if (i->x & SG_MATRIX_SATFINITE)
		for (uint32_t l = 0; l < count; l++)
			sums[l] = (u32)sg_saturate32((int64_t)(s32)sums[l] + (s32)c[l]);
	else
		SG_VECTOR for (uint32_t l = 0; l < count; l++) sums[l] += c[l];
	spread_sums_u32(w, i, s, sums);
}

/* A chain of fused multiplications and additions from the accumulator on, each rounded. */
static void run_f64(struct sg_warp *w, const struct sg_op *i, const struct sg_matrix *s)
{
	static const int modes[] = { FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD };
	const int mode = modes[SG_MATRIX_ROUNDING(i->x)], saved = fegetround();
	f64 a[SG_MATRIX_BYTES / 8] ALIGNED, b[SG_MATRIX_BYTES / 8] ALIGNED, c[SG_MATRIX_SUMS] ALIGNED;

	factor_a(w, i, s, (char *)a);
	factor_b(w, i, s, (char *)b);
	collect_sums_u64(w, i, s->d_regs + s->a_regs + s->b_regs, s, (u64 *)c);
	if (mode != saved)
		fesetround(mode);
	__asm__ volatile("" ::: "memory");
	for (uint32_t row = 0; row < s->m; row++)
		for (uint32_t l = 0; l < s->k; l++)
			for (uint32_t j = 0; j < s->n; j++)
				c[row * s->n + j] =
					__builtin_fma(a[row * s->k + l], b[j * s->k + l], c[row * s->n + j]);
	__asm__ volatile("" ::: "memory");
	if (mode != saved)
		fesetround(saved);
	spread_sums_u64(w, i, s, (const u64 *)c);
}

SG_HANDLER(mma)
{
	struct sg_matrix s;

	if (!SG_WHOLE_WARP(w, i, m))
		return NULL;
	sg_matrix_read(i->x, &s);
	if (s.a_type == SG_F64)
		run_f64(w, i, &s);
	else if (s.d_type == SG_SUM_S32)
		run_s32(w, i, &s);
	else
		run_f32(w, i, &s);
	return sg_next(i);
}
