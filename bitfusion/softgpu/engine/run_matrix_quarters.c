/* SPDX-License-Identifier: Apache-2.0
 *
 * mma m8n8k4 of f16: quarter q of the warp is lanes 4q to 4q + 3 and those 16 further, and each has a multiplication
 * of its own.
 */
#include "matrix.h"
#include "run.h"

static f32 half_at(const struct sg_warp *w, const struct sg_op *i, uint32_t first, uint32_t lane, uint32_t element)
{
	return sg_f16_to_f32(((const u16 *)sg_at(w, sg_extra(i, first + element / 2)))[2 * lane + element % 2]);
}

/* Of element e of the accumulators that a lane (0-3, 4-7 for the upper ones) of a quarter has. */
static void place_in_quarter(bool single, uint32_t lane, uint32_t e, uint32_t *row, uint32_t *column)
{
	*row = single ? (lane & 1) + (e & 2) + (lane & 4) : lane;
	*column = single ? (e & 4) + (lane & 2) + (e & 1) : e;
}

static void quarter(struct sg_warp *w, const struct sg_op *i, const struct sg_matrix *s, uint32_t q)
{
	const uint32_t c_first = s->d_regs + 4;
	f32 a[8][4], b[4][8], sum[8][8];

	for (uint32_t lane = 0; lane < 8; lane++) {
		const uint32_t from = 4 * q + lane % 4 + (lane & 4) * 4;

		for (uint32_t e = 0; e < 4; e++) {
			const f32 x = half_at(w, i, s->d_regs, from, e), y = half_at(w, i, s->d_regs + 2, from, e);

			if (i->x & SG_MATRIX_COLUMN_A)
				a[e + (lane & 4)][lane % 4] = x;
			else
				a[lane][e] = x;
			if (i->x & SG_MATRIX_COLUMN_B)
				b[e][lane] = y;
			else
				b[lane % 4][e + (lane & 4)] = y;
		}
	}
	for (uint32_t row = 0; row < 8; row++)
		for (uint32_t j = 0; j < 8; j++) {
			sum[row][j] = 0;
			for (uint32_t l = 0; l < 4; l++)
				sum[row][j] += a[row][l] * b[l][j];
		}
	for (uint32_t lane = 0; lane < 8; lane++)
		for (uint32_t e = 0; e < 8; e++) {
			const uint32_t at = 4 * q + lane % 4 + (lane & 4) * 4;
			const bool single = s->c_type == SG_SUM_F32;
			uint32_t row, j;

			place_in_quarter(single, lane, e, &row, &j);
			sum[row][j] += single ? ((const f32 *)sg_at(w, sg_extra(i, c_first + e)))[at]
					      : half_at(w, i, c_first, at, e);
		}
	for (uint32_t lane = 0; lane < 8; lane++)
		for (uint32_t e = 0; e < 8; e++) {
			const uint32_t at = 4 * q + lane % 4 + (lane & 4) * 4;
			const bool single = s->d_type == SG_SUM_F32;
			uint32_t row, j;

			place_in_quarter(single, lane, e, &row, &j);
			if (single)
				((f32 *)sg_at(w, sg_extra(i, e)))[at] = sg_nan32(sum[row][j]);
			else
				((u16 *)sg_at(w, sg_extra(i, e / 2)))[2 * at + e % 2] = sg_f32_to_f16(sum[row][j]);
		}
}

SG_HANDLER(mma_quarters)
{
	struct sg_matrix s;

	if (!SG_WHOLE_WARP(w, i, m))
		return NULL;
	sg_matrix_read(i->x, &s);
	for (uint32_t q = 0; q < 4; q++)
		quarter(w, i, &s, q);
	return sg_next(i);
}
