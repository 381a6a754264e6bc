/* SPDX-License-Identifier: Apache-2.0
 *
 * ldmatrix, stmatrix, movmatrix, and wmma's loads and stores of fragments.
 */
#include "matrix.h"
#include "run.h"

/* Host addresses of the rows of 16 bytes that the lanes of m name. */
static bool rows_at(struct sg_warp *w, const struct sg_op *i, uint32_t m, u64 *host)
{
	const u32 *a = sg_at(w, i->a), size = w->block->shared_size;
	const u64 base = (u64)(uintptr_t)w->block->shared;
	u32 bad = size < 16;

	if (SG_SPACE(i->flags) != SG_SHARED || (i->flags & SG_WIDE))
		return sg_resolve_lanes(w, i, m, 16, host);
	for (int l = 0; l < SG_LANES; l++) {
		const u32 x = a[l] + i->x;

		bad |= (x > size - 16 || (x & 15)) & (m >> l & 1);
		host[l] = base + x;
	}
	return !bad || sg_resolve_lanes(w, i, m, 16, host);
}

/* A register of all lanes is a matrix of 8 rows of 16 bytes. */
static void transpose(const u16 *from, u16 *to)
{
	for (int row = 0; row < 8; row++)
		for (int column = 0; column < 8; column++)
			to[8 * column + row] = from[8 * row + column];
}

static inline const struct sg_op *load_8x8(struct sg_warp *w, const struct sg_op *i, uint32_t m, bool turned)
{
	const uint32_t count = i->c;
	u64 host[SG_LANES];
	u16 matrix[4][64];

	if (!SG_WHOLE_WARP(w, i, m))
		return NULL;
	m = (uint32_t)((1ull << 8 * count) - 1);
	if (!rows_at(w, i, m, host))
		return NULL;
	SG_EACH(l, m) memcpy(&matrix[l / 8][l % 8 * 8], (const void *)(uintptr_t)host[l], 16);
	for (uint32_t k = 0; k < count; k++) {
		u16 *d = sg_at(w, sg_extra(i, k));

		if (turned)
			transpose(matrix[k], d);
		else
			memcpy(d, matrix[k], sizeof(matrix[k]));
	}
	return sg_next(i);
}

static inline const struct sg_op *store_8x8(struct sg_warp *w, const struct sg_op *i, uint32_t m, bool turned)
{
	const uint32_t count = i->c;
	u64 host[SG_LANES];
	u16 matrix[4][64];

	if (!SG_WHOLE_WARP(w, i, m))
		return NULL;
	m = (uint32_t)((1ull << 8 * count) - 1);
	if (!rows_at(w, i, m, host))
		return NULL;
	for (uint32_t k = 0; k < count; k++) {
		const u16 *d = sg_at(w, sg_extra(i, k));

		if (turned)
			transpose(d, matrix[k]);
		else
			memcpy(matrix[k], d, sizeof(matrix[k]));
	}
	SG_EACH(l, m) memcpy((void *)(uintptr_t)host[l], &matrix[l / 8][l % 8 * 8], 16);
	return sg_next(i);
}

SG_HANDLER(ldmatrix)
{
	return load_8x8(w, i, m, false);
}

SG_HANDLER(ldmatrix_trans)
{
	return load_8x8(w, i, m, true);
}

SG_HANDLER(stmatrix)
{
	return store_8x8(w, i, m, false);
}

SG_HANDLER(stmatrix_trans)
{
	return store_8x8(w, i, m, true);
}

SG_HANDLER(movmatrix)
{
	u16 matrix[64];

	if (!SG_WHOLE_WARP(w, i, m))
		return NULL;
	memcpy(matrix, sg_at(w, i->a), sizeof(matrix));
	transpose(matrix, sg_at(w, i->d));
	return i + 1;
}

/* ---- wmma: a matrix in memory <-> packed rows <-> registers. */

static inline void move(char *a, char *b, size_t size, bool store)
{
	memcpy(store ? a : b, store ? b : a, size);
}

/* A line in memory and a column of the packed rows. */
static void move_across(char *memory, char *to, uint32_t rows, uint32_t size, uint32_t row_bytes, bool store)
{
	for (uint32_t row = 0; row < rows; row++, to += row_bytes, memory += size)
		switch (size) { /* constants, for the compiler */
		case 1: move(memory, to, 1, store); break;
		case 2: move(memory, to, 2, store); break;
		case 4: move(memory, to, 4, store); break;
		default: move(memory, to, 8, store);
		}
}

static bool move_line(struct sg_warp *w, const struct sg_op *i, const struct sg_fragment *f, uint32_t line, bool store,
		      char *packed)
{
	const uint32_t lane = 0, row_bytes = f->columns * f->bits / 8;
	const uint32_t size = f->bits >= 8 ? f->bits / 8 : 1;
	const u64 stride = ((const u32 *)sg_at(w, i->b))[lane];
	const uint32_t bytes = f->along ? row_bytes : f->rows * size;
	char *memory = sg_resolve_line(w, i, lane, line * stride * f->bits / 8, bytes, size);
	char *to = packed + (f->along ? (size_t)line * row_bytes : (size_t)line * size);

	if (!memory)
		return false;
	if (f->along) {
		memcpy(store ? memory : to, store ? to : memory, row_bytes);
		return true;
	}
	move_across(memory, to, f->rows, size, row_bytes, store);
	return true;
}

/* Lane and byte of a register's place in the packed rows: see matrix.h. */
static void move_register(const struct sg_fragment *f, uint32_t r, char *registers, char *packed, bool store)
{
	const uint32_t row_bytes = f->columns * f->bits / 8, unit = 4 * f->width;
	const uint32_t half = f->stacked ? 2 : 1, along = row_bytes / (f->paired ? 2 * unit : unit);
	const uint32_t block = f->paired ? r / 2 : r;
	char *rows = packed + (size_t)(block / half / along * half + block % half) * 8 * row_bytes +
		     (size_t)(block / half % along) * unit * (f->paired ? 2 : 1);

	for (uint32_t g = 0; g < 8; g++, rows += row_bytes, registers += unit) {
		if (!f->paired && unit == 16)
			move(rows, registers, 16, store);
		else if (!f->paired)
			move(rows, registers, 32, store);
		else if (f->width == 4)
			for (uint32_t t = 0; t < 4; t++)
				move(rows + 8 * t + r % 2 * 4, registers + 4 * t, 4, store);
		else
			for (uint32_t t = 0; t < 4; t++)
				move(rows + 16 * t + r % 2 * 8, registers + 8 * t, 8, store);
	}
}

SG_HANDLER(load_fragment)
{
	char packed[SG_MATRIX_BYTES];
	struct sg_fragment f;
	uint32_t lines;

	if (!SG_WHOLE_WARP(w, i, m))
		return NULL;
	sg_fragment_read(i->c, &f);
	lines = f.along ? f.rows : f.columns;
	for (uint32_t line = 0; line < lines; line++)
		if (!move_line(w, i, &f, line, false, packed))
			return NULL;
	for (uint32_t r = 0; r < f.registers; r++)
		move_register(&f, r % f.used, sg_at(w, sg_extra(i, r)), packed, false);
	return sg_next(i);
}

SG_HANDLER(store_fragment)
{
	char packed[SG_MATRIX_BYTES];
	struct sg_fragment f;
	uint32_t lines;

	if (!SG_WHOLE_WARP(w, i, m))
		return NULL;
	sg_fragment_read(i->c, &f);
	for (uint32_t r = 0; r < f.used; r++)
		move_register(&f, r, sg_at(w, sg_extra(i, r)), packed, true);
	lines = f.along ? f.rows : f.columns;
	for (uint32_t line = 0; line < lines; line++)
		if (!move_line(w, i, &f, line, true, packed))
			return NULL;
	return sg_next(i);
}
