/* SPDX-License-Identifier: Apache-2.0
 *
 * The word of a matrix record, which ops_matrix.py builds, and how fragments lie in registers.
 *
 * A fragment is made of blocks: 8 rows of 16 bytes (32 of f64), each row in 4 neighbouring lanes of one register. For
 * this the rows of B are its columns. Blocks follow one another in the order of registers: two below each other
 * where there are 16 rows, then along the row, then 16 rows further down (for B: along the row, then 8 down).
 * An accumulator of 32 or 64 bits has two registers in the place of one: a lane has two neighbours of a row.
 */
#ifndef SOFTGPU_MATRIX_H
#define SOFTGPU_MATRIX_H

#include "internal.h"

enum sg_element { SG_F16, SG_BF16, SG_TF32, SG_F64, SG_S8, SG_U8, SG_S4, SG_U4, SG_B1, SG_E4M3, SG_E5M2, SG_ELEMENTS };
enum sg_accumulator { SG_SUM_F16, SG_SUM_F32, SG_SUM_S32, SG_SUM_F64 };
enum sg_part { SG_PART_D, SG_PART_A, SG_PART_B, SG_PART_C };

#define SG_MATRIX_SATFINITE (1u << 19)
#define SG_MATRIX_AND (1u << 20)
#define SG_MATRIX_ROUNDING(word) ((word) >> 21 & 3)
#define SG_MATRIX_SPARSE (1u << 23)
#define SG_MATRIX_SELECTOR(word) ((word) >> 24 & 3)
#define SG_MATRIX_LEGACY (1u << 26) /* wmma: f16 factors have 8 registers, whatever the shape */
#define SG_MATRIX_COLUMN_A (1u << 27) /* of mma_quarters; of a fragment record: its own layout */
#define SG_MATRIX_COLUMN_B (1u << 28)
#define SG_MATRIX_PART(word) ((word) >> 29 & 3)
#define SG_MATRIX_BYTES 2048 /* that no packed factor or f32 accumulator exceeds */
#define SG_MATRIX_VALUES 2048 /* nor its elements */
#define SG_MATRIX_SUMS 256 /* elements of an accumulator */

struct sg_matrix {
	uint32_t m, n, k;
	uint32_t a_type, b_type, c_type, d_type;
	uint32_t bits; /* of an element of a and b */
	uint32_t a_bytes, b_bytes; /* of a packed row: of a as it is stored, of a column of b */
	uint32_t a_used, b_used; /* registers that are looked at */
	uint32_t d_regs, a_regs, b_regs, c_regs; /* registers that the record has, in this order */
	uint32_t width; /* bytes a register has */
	uint32_t operands; /* all of them, the metadata too */
};

static inline uint32_t sg_element_bits(uint32_t type)
{
	static const unsigned char bits[SG_ELEMENTS] = { 16, 16, 32, 64, 8, 8, 4, 4, 1, 8, 8 };

	return bits[type];
}

/* Types that one multiplication may have together. */
static inline bool sg_matrix_mixes(const struct sg_matrix *s)
{
	const uint32_t a = s->a_type, b = s->b_type, c = s->c_type, d = s->d_type;

	if (a >= SG_ELEMENTS || b >= SG_ELEMENTS || sg_element_bits(a) != sg_element_bits(b))
		return false;
	if (a == SG_F64 || (a >= SG_S8 && a <= SG_B1))
		return c == d && c == (a == SG_F64 ? SG_SUM_F64 : SG_SUM_S32) && (b == SG_F64 || b <= SG_B1) &&
		       b >= SG_F64;
	return (b < SG_F64 || b > SG_B1) && c <= SG_SUM_F32 && d <= SG_SUM_F32;
}

/* false: no such multiplication. All sizes are then within the bounds above. */
static inline bool sg_matrix_read(uint32_t word, struct sg_matrix *s)
{
	const bool sparse = word & SG_MATRIX_SPARSE;
	uint32_t block;

	*s = (struct sg_matrix){
		.m = 8u << (word & 3),
		.n = 8u << (word >> 2 & 3),
		.k = 4u << (word >> 4 & 7),
		.a_type = word >> 7 & 15,
		.b_type = word >> 11 & 15,
		.c_type = word >> 15 & 3,
		.d_type = word >> 17 & 3,
	};
	if (s->m > 32 || s->n > 32 || s->m * s->n > SG_MATRIX_SUMS || s->k > 256 || !sg_matrix_mixes(s))
		return false;
	s->bits = sg_element_bits(s->a_type);
	s->width = s->a_type == SG_F64 ? 8 : 4;
	block = 4 * s->width;
	s->b_bytes = s->k * s->bits / 8;
	s->a_bytes = s->b_bytes >> sparse;
	s->c_regs = s->m * s->n / 32 >> (s->c_type == SG_SUM_F16);
	s->d_regs = s->m * s->n / 32 >> (s->d_type == SG_SUM_F16);
	if (s->a_type == SG_F16 && s->k == 4) { /* the four multiplications of mma_quarters */
		s->a_regs = s->b_regs = 2;
		s->c_regs *= 4;
		s->d_regs *= 4;
	} else {
		if (s->a_bytes % block || s->b_bytes % block || !s->a_bytes || s->m * s->b_bytes > SG_MATRIX_BYTES ||
		    s->n * s->b_bytes > SG_MATRIX_BYTES)
			return false;
		if ((s->m > s->n ? s->m : s->n) * s->k > SG_MATRIX_VALUES && s->a_type != SG_B1)
			return false;
		s->a_regs = s->a_used = s->m / 8 * (s->a_bytes / block);
		s->b_regs = s->b_used = s->n / 8 * (s->b_bytes / block);
		if ((word & SG_MATRIX_LEGACY) && s->a_type == SG_F16)
			s->a_regs = s->b_regs = 8;
	}
	if (s->a_used > s->a_regs || s->b_used > s->b_regs)
		return false;
	s->operands = s->d_regs + s->a_regs + s->b_regs + s->c_regs + sparse;
	if (!sparse)
		return true;
	/* metadata: 4 bits for what 4 units of a row become 2 of; a unit is a byte, or a half word of longer elements */
	block = s->b_bytes >> (s->bits >= 16);
	return s->m == 16 && s->bits != 1 && s->bits != 64 && (block == 16 || block == 32 || block == 64) &&
	       (s->bits < 16 ? block >= 32 : block <= 32) && SG_MATRIX_SELECTOR(word) < 64 / block;
}

/* A fragment record's matrix: rows of bytes, and the registers that hold them. */
struct sg_fragment {
	uint32_t rows, columns, bits;
	uint32_t used, registers, width;
	bool stacked; /* two blocks below each other come first */
	bool paired; /* two registers in the place of one */
	bool along; /* a line in memory is a row */
};

static inline bool sg_fragment_read(uint32_t word, struct sg_fragment *f)
{
	const uint32_t part = SG_MATRIX_PART(word);
	const bool column = word & SG_MATRIX_COLUMN_A;
	struct sg_matrix s;

	if ((word & SG_MATRIX_SPARSE) || !sg_matrix_read(word, &s) || (s.a_type == SG_F16 && s.k == 4))
		return false;
	*f = (struct sg_fragment){ .width = s.width };
	if (part == SG_PART_A || part == SG_PART_B) {
		f->rows = part == SG_PART_A ? s.m : s.n;
		f->columns = s.k;
		f->bits = s.bits;
		f->used = part == SG_PART_A ? s.a_used : s.b_used;
		f->registers = part == SG_PART_A ? s.a_regs : s.b_regs;
		f->stacked = part == SG_PART_A && s.m > 8;
		f->along = column == (part == SG_PART_B);
		return f->bits >= 8 || f->along;
	}
	f->rows = s.m;
	f->columns = s.n;
	f->bits = s.c_type == SG_SUM_F16 ? 16 : s.c_type == SG_SUM_F64 ? 64 : 32;
	f->used = f->registers = s.c_regs;
	f->stacked = s.m > 8;
	f->paired = f->bits > 16;
	f->along = !column;
	return true;
}

/* For all handlers here: true if the whole warp is at this instruction; else return NULL. */
#define SG_WHOLE_WARP(w, i, m) ((m) == SG_ALL || sg_matrix_gather(w, i, m))
bool sg_matrix_gather(struct sg_warp *w, const struct sg_op *i, uint32_t m);

static inline uint32_t sg_extra(const struct sg_op *i, uint32_t k)
{
	return (&i[1 + k / 4].d)[k % 4];
}

#endif
