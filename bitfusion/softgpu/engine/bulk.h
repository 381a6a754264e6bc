/* SPDX-License-Identifier: Apache-2.0
 *
 * Bulk and tensor copies: what their handlers pass on.
 */
#ifndef SOFTGPU_BULK_H
#define SOFTGPU_BULK_H

#include "internal.h"
#include "tensormap.h"

/* reduce.c: to[k] = to[k] op from[k], atomically; the numbers are lower_bulk.py's. */
enum sg_reduce {
	SG_REDUCE_ADD,
	SG_REDUCE_MIN,
	SG_REDUCE_MAX,
	SG_REDUCE_INC,
	SG_REDUCE_DEC,
	SG_REDUCE_AND,
	SG_REDUCE_OR,
	SG_REDUCE_XOR,
	SG_REDUCTIONS
};
typedef void (*sg_reduction)(void *to, const void *from, uint64_t count);
sg_reduction sg_reduction_of(unsigned verb, unsigned type); /* NULL: there is none */

/* One lane's copy; addresses are generic. What is NULL is not there. */
struct sg_bulk {
	uint64_t to, from, bytes;
	bool to_shared, from_shared;
	const uint64_t *barrier, *mask; /* blocks of a multicast */
	const uint64_t *byte_mask;
	sg_reduction reduction;
	uint32_t element;
};
bool sg_bulk_copy(struct sg_warp *w, const struct sg_op *i, uint32_t lane, const struct sg_bulk *bulk);

/* Where a copy into shared memory goes and what is told: one place, or the same one in each block of the mask. */
struct sg_targets {
	uint32_t count;
	char *to[SG_MAX_CLUSTER];
	uint64_t *word[SG_MAX_CLUSTER];
};
bool sg_bulk_targets(struct sg_warp *w, const struct sg_op *i, uint32_t lane, const char *to, uint64_t barrier,
		     const uint64_t *mask, struct sg_targets *targets);
bool sg_bulk_complete(struct sg_warp *w, const struct sg_op *i, uint32_t lane, uint64_t address, uint64_t bytes);

/* Withdraws a cluster that was not begun for the lane's, and writes an answer of four words: whether there was one, and
 * where its first block is. */
bool sg_bulk_cancel(struct sg_warp *w, const struct sg_op *i, uint32_t lane, uint64_t answer, uint64_t barrier);

/* tensor.c */
enum sg_tensor_way { SG_TENSOR_LOAD, SG_TENSOR_STORE, SG_TENSOR_REDUCE };
enum sg_tensor_mode { SG_TENSOR_TILE, SG_TENSOR_IM2COL, SG_TENSOR_ROWS };
struct sg_tensor {
	uint64_t map, shared; /* generic addresses */
	unsigned way, mode, rank, verb;
	int64_t at[SG_TENSOR_RANK]; /* coordinates */
	int64_t offset[3]; /* im2col */
	const uint64_t *barrier, *mask;
};
bool sg_tensor_copy(struct sg_warp *w, const struct sg_op *i, uint32_t lane, const struct sg_tensor *tensor);

#endif
