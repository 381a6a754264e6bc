/* SPDX-License-Identifier: Apache-2.0
 *
 * Boxes of bytes: what cuMemcpy2D and cuMemcpy3D copy. Their shape alone; nothing here sends anything.
 */
#ifndef BITFUSION_BOX_H
#define BITFUSION_BOX_H

#include "proxy.h"

/* One side of the copy, whichever it is. */
struct bf_side {
	CUmemorytype type;
	uint8_t *at; /* the first byte of the box: an address on the host or the device */
	size_t pitch, height;
	CUarray array; /* instead of the address */
	size_t offset[3];
};

struct bf_box {
	struct bf_side from, to;
	size_t width, height, depth;
};

/* `box` from the two sides of the call. */
struct bf_box bf_box_of(const CUDA_MEMCPY3D *copy);
CUresult bf_box_check(const struct bf_box *box);

uint64_t bf_box_bytes(const struct bf_box *box);
/* From the first byte of the box to its last on this side. */
uint64_t bf_side_span(const struct bf_box *box, const struct bf_side *side);
/* Do the rows follow each other without a gap? */
bool bf_side_is_flat(const struct bf_box *box, const struct bf_side *side);
struct bf_side bf_side_packed(const struct bf_box *box, uint8_t *memory);
void bf_box_copy_rows(const struct bf_box *box, const struct bf_side *to, const struct bf_side *from);

/* The struct as it travels: offsets are already in the addresses, but for arrays. */
void bf_box_describe(const struct bf_box *box, CUDA_MEMCPY3D *shape);

/* As bf_across_begin (memory.h). */
CUresult bf_across_begin_box(const struct bf_box *box, bool async, bool *across);

#endif
