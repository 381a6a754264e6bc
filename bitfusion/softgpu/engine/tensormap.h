/* SPDX-License-Identifier: Apache-2.0
 *
 * What a CUtensorMap holds here: programs see 128 bytes that they pass on. The driver writes them, copies read them.
 */
#ifndef SOFTGPU_TENSORMAP_H
#define SOFTGPU_TENSORMAP_H

#include <stdint.h>

#define SG_TENSOR_MAP_MAGIC 0x70616d2d72736e74ull
#define SG_TENSOR_RANK 5

struct sg_tensor_map {
	uint64_t magic;
	uint64_t address;
	uint64_t strides[SG_TENSOR_RANK - 1]; /* bytes, of dimension 1 and up */
	uint32_t dims[SG_TENSOR_RANK]; /* less 1: a dimension may have 2^32 elements */
	uint16_t box[SG_TENSOR_RANK];
	int16_t lower[3], upper[3]; /* im2col, from the width on */
	uint16_t channels, pixels;
	uint8_t steps[SG_TENSOR_RANK]; /* element strides */
	uint8_t type, rank, swizzle, fill, im2col;
};
_Static_assert(sizeof(struct sg_tensor_map) <= 128, "a CUtensorMap has 128 bytes");

/* The numbers of CUtensorMapDataType. */
enum sg_element {
	SG_ELEMENT_U8,
	SG_ELEMENT_U16,
	SG_ELEMENT_U32,
	SG_ELEMENT_S32,
	SG_ELEMENT_U64,
	SG_ELEMENT_S64,
	SG_ELEMENT_F16,
	SG_ELEMENT_F32,
	SG_ELEMENT_F64,
	SG_ELEMENT_BF16,
	SG_ELEMENT_F32_FTZ,
	SG_ELEMENT_TF32,
	SG_ELEMENT_TF32_FTZ,
	SG_ELEMENTS
};
/* … of CUtensorMapSwizzle. */
enum sg_swizzle {
	SG_SWIZZLE_NONE,
	SG_SWIZZLE_32,
	SG_SWIZZLE_64,
	SG_SWIZZLE_128,
	SG_SWIZZLE_128_ATOM_32,
	SG_SWIZZLE_128_ATOM_32_FLIP_8,
	SG_SWIZZLE_128_ATOM_64,
	SG_SWIZZLES
};

static inline uint32_t sg_element_bytes(unsigned type)
{
	static const uint8_t bytes[SG_ELEMENTS] = { 1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4 };

	return type < SG_ELEMENTS ? bytes[type] : 0;
}

/* Bytes of the rows in which 16 bytes change places; 0: none do. */
static inline uint32_t sg_swizzle_span(unsigned swizzle)
{
	return swizzle == SG_SWIZZLE_NONE ? 0 : swizzle == SG_SWIZZLE_32 ? 32 : swizzle == SG_SWIZZLE_64 ? 64 : 128;
}

#endif
