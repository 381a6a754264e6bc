/* SPDX-License-Identifier: Apache-2.0
 *
 * CUDA arrays: memory of the device with rows and slices of its own making.
 */
#ifndef SOFTGPU_ARRAY_H
#define SOFTGPU_ARRAY_H

#include "driver.h"

#include "../engine/texture.h"

struct mipmap;

struct array {
	struct object object;
	uint64_t context; /* its number: the memory dies with it */
	struct mipmap *owner; /* whose level it is, or NULL */
	CUDA_ARRAY3D_DESCRIPTOR shape;
	uint64_t address, size; /* all of its memory, or of its owner's */
	struct sg_level level; /* where it lies in that */
	uint32_t slices;       /* layers or depth */
};

struct mipmap {
	struct object object;
	uint64_t context;
	CUDA_ARRAY3D_DESCRIPTOR shape;
	uint64_t address, size;
	uint32_t count;
	struct array *levels[SG_TEXTURE_LEVELS];
};

struct array *array_get(CUarray handle);
struct mipmap *mipmap_get(CUmipmappedArray handle);
uint32_t texel_bytes(CUarray_format format, unsigned channels); /* 0 where there is no such texel */

#endif
