/* SPDX-License-Identifier: Apache-2.0 */
#include "proof.h"

#include <string.h>

static bool shapes_clusters(const CUlaunchAttribute *attribute)
{
	switch ((int)attribute->id) {
	case CU_LAUNCH_ATTRIBUTE_COOPERATIVE:
	case CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION:
	case CU_LAUNCH_ATTRIBUTE_PREFERRED_CLUSTER_DIMENSION: return true;
	default: return false;
	}
}

/* Either the kernel was made for clusters, or the launch asks for them or for a cooperative grid. */
bool bf_shape_has_clusters(const struct bf_function *function, const CUlaunchAttribute *attributes, unsigned count)
{
	static const uint32_t made_for =
		1u << CU_FUNC_ATTRIBUTE_CLUSTER_SIZE_MUST_BE_SET | 1u << CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH;

	if (atomic_load_explicit(&function->attribute_valid, memory_order_relaxed) & made_for &&
	    (function->attribute[CU_FUNC_ATTRIBUTE_CLUSTER_SIZE_MUST_BE_SET] ||
	     function->attribute[CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH]))
		return true;
	for (unsigned i = 0; i < count; i++)
		if (shapes_clusters(&attributes[i]))
			return true;
	return false;
}

/* FNV-1a. Two shapes with one digest would only move an error from the launch to the next call that waits. */
static uint64_t mix(uint64_t digest, const void *data, size_t size)
{
	const uint8_t *bytes = data;

	for (size_t i = 0; i < size; i++)
		digest = (digest ^ bytes[i]) * 0x100000001b3;
	return digest;
}

uint64_t bf_shape_digest(const struct bf_launch *launch, const CUlaunchAttribute *attributes)
{
	uint64_t digest = mix(0xcbf29ce484222325, launch->grid, sizeof launch->grid);

	digest = mix(digest, launch->block, sizeof launch->block);
	digest = mix(digest, &launch->shared_bytes, sizeof launch->shared_bytes);
	digest = mix(digest, &launch->kind, sizeof launch->kind);
	for (unsigned i = 0; i < launch->attribute_count; i++)
		if (shapes_clusters(&attributes[i])) {
			digest = mix(digest, &attributes[i].id, sizeof attributes[i].id);
			digest = mix(digest, &attributes[i].value.clusterDim, sizeof attributes[i].value.clusterDim);
		}
	return digest ? digest : 1;
}

bool bf_proof_has_digest(const struct bf_proof *proof, uint64_t digest)
{
	for (int i = 0; i < BF_PROVED_SHAPES; i++)
		if (atomic_load_explicit(&proof->shape[i], memory_order_relaxed) == digest)
			return true;
	return false;
}

/* A kernel that two block shapes have gone well with was not made for one. */
void bf_proof_add(struct bf_proof *proof, const struct bf_shape *shape)
{
	uint64_t none = 0;

	if (shape->digest) {
		if (!bf_proof_has_digest(proof, shape->digest))
			atomic_store(&proof->shape[atomic_fetch_add(&proof->next, 1) % BF_PROVED_SHAPES],
				     shape->digest);
	} else if (!atomic_compare_exchange_strong(&proof->block, &none, shape->block) && none != shape->block) {
		atomic_store(&proof->block, BF_ANY_BLOCK);
	}
}

void bf_proof_clear(struct bf_proof *proof)
{
	atomic_store(&proof->block, 0);
	for (int i = 0; i < BF_PROVED_SHAPES; i++)
		atomic_store(&proof->shape[i], 0);
}
