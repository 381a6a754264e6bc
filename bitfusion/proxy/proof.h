/* SPDX-License-Identifier: Apache-2.0
 *
 * Which launches need an answer. Drivers refuse some shapes for reasons that only they know: a kernel that was made
 * for one block shape, clusters that do not divide the grid, cooperative grids that do not fit. A program that tries
 * shapes looks at what the launch returns. So the first launch of each such shape waits for the driver's word, and
 * those that are like it do not.
 */
#ifndef BITFUSION_PROOF_H
#define BITFUSION_PROOF_H

#include "proxy.h"

#define BF_ANY_BLOCK UINT64_MAX

struct bf_shape {
	uint64_t block; /* the block's size */
	uint64_t digest; /* of all that counts; 0 where the block alone does */
};

uint64_t bf_shape_digest(const struct bf_launch *launch, const CUlaunchAttribute *attributes);
bool bf_shape_has_clusters(const struct bf_function *function, const CUlaunchAttribute *attributes, unsigned count);
bool bf_proof_has_digest(const struct bf_proof *proof, uint64_t digest);
void bf_proof_add(struct bf_proof *proof, const struct bf_shape *shape);
void bf_proof_clear(struct bf_proof *proof);

static inline struct bf_shape bf_shape_of(const struct bf_function *function, const struct bf_launch *launch,
					  const CUlaunchAttribute *attributes)
{
	/* no device takes blocks beyond 1024 in any direction */
	struct bf_shape shape = { .block = (uint64_t)launch->block[2] << 32 | launch->block[1] << 16 |
					   launch->block[0] };

	if (BF_UNLIKELY(launch->kind == BF_LAUNCH_COOPERATIVE ||
			bf_shape_has_clusters(function, attributes, launch->attribute_count)))
		shape.digest = bf_shape_digest(launch, attributes);
	return shape;
}

/* Has the driver taken a launch like this one? */
static inline bool bf_proof_has(const struct bf_proof *proof, const struct bf_shape *shape)
{
	uint64_t block = atomic_load_explicit(&proof->block, memory_order_relaxed);

	if (BF_UNLIKELY(shape->digest))
		return bf_proof_has_digest(proof, shape->digest);
	return block == shape->block || block == BF_ANY_BLOCK;
}

#endif
