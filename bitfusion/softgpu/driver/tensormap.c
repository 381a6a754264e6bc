/* SPDX-License-Identifier: Apache-2.0
 *
 * Tensor maps: the arguments are checked as CUDA documents them, and kept as the engine wants them.
 */
#include "driver.h"

#include <string.h>

#include "../engine/tensormap.h"

/* What both kinds of maps have in common. */
struct shape {
	CUtensorMapDataType type;
	cuuint32_t rank;
	void *address;
	const cuuint64_t *dims, *strides;
	const cuuint32_t *steps;
	CUtensorMapInterleave interleave;
	CUtensorMapSwizzle swizzle;
	CUtensorMapL2promotion promotion;
	CUtensorMapFloatOOBfill fill;
};

static CUresult refuse(const char *why)
{
	driver_say(why);
	return CUDA_ERROR_NOT_SUPPORTED;
}

static int is_float(unsigned type)
{
	return type >= SG_ELEMENT_F16;
}

static CUresult check_kind(const struct shape *shape)
{
	if ((unsigned)shape->type > 15 || (unsigned)shape->interleave > CU_TENSOR_MAP_INTERLEAVE_32B ||
	    (unsigned)shape->swizzle >= SG_SWIZZLES ||
	    (unsigned)shape->promotion > CU_TENSOR_MAP_L2_PROMOTION_L2_256B ||
	    (unsigned)shape->fill > CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA)
		return CUDA_ERROR_INVALID_VALUE;
	if (shape->fill && !is_float((unsigned)shape->type))
		return CUDA_ERROR_INVALID_VALUE;
	if ((unsigned)shape->type >= SG_ELEMENTS)
		return refuse("tensor maps of elements of 4 or 6 bits are not supported");
	if (shape->interleave != CU_TENSOR_MAP_INTERLEAVE_NONE)
		return refuse("interleaved tensor maps are not supported");
	if ((unsigned)shape->swizzle > SG_SWIZZLE_128_ATOM_32)
		return refuse("of the 128-byte swizzles, those that flip or move 64 bytes are not supported");
	return CUDA_SUCCESS;
}

static CUresult fill_shape(struct sg_tensor_map *map, const CUtensorMap *to, const struct shape *shape)
{
	if (!to || (uintptr_t)to % 64 || !shape->rank || shape->rank > SG_TENSOR_RANK || !shape->dims ||
	    !shape->steps || (shape->rank > 1 && !shape->strides) || (uintptr_t)shape->address % 16)
		return CUDA_ERROR_INVALID_VALUE;
	TRY(check_kind(shape));
	*map = (struct sg_tensor_map){ .magic = SG_TENSOR_MAP_MAGIC,
				       .address = (uintptr_t)shape->address,
				       .type = (uint8_t)shape->type,
				       .rank = (uint8_t)shape->rank,
				       .swizzle = (uint8_t)shape->swizzle,
				       .fill = (uint8_t)shape->fill };
	for (unsigned d = 0; d < SG_TENSOR_RANK; d++)
		map->steps[d] = 1;
	for (unsigned d = 0; d < shape->rank; d++) {
		if (!shape->dims[d] || shape->dims[d] > 1ull << 32 || !shape->steps[d] || shape->steps[d] > 8)
			return CUDA_ERROR_INVALID_VALUE;
		map->dims[d] = (uint32_t)(shape->dims[d] - 1);
		map->steps[d] = d ? (uint8_t)shape->steps[d] : 1; /* the first dimension has none */
	}
	for (unsigned d = 0; d + 1 < shape->rank; d++) {
		if (shape->strides[d] % 16 || shape->strides[d] >= 1ull << 40)
			return CUDA_ERROR_INVALID_VALUE;
		map->strides[d] = shape->strides[d];
	}
	return CUDA_SUCCESS;
}

/* Elements of a row in shared memory. */
static int row_fits(const struct sg_tensor_map *map, unsigned elements)
{
	const unsigned bytes = elements * sg_element_bytes(map->type), span = sg_swizzle_span(map->swizzle);
	return elements && elements <= 256 && bytes % 16 == 0 && (!span || bytes <= span);
}

static void give(CUtensorMap *to, const struct sg_tensor_map *map)
{
	memset(to, 0, sizeof *to);
	memcpy(to, map, sizeof *map);
}

EXPORT CUresult cuTensorMapEncodeTiled(CUtensorMap *tensorMap, CUtensorMapDataType tensorDataType,
				       cuuint32_t tensorRank, void *globalAddress, const cuuint64_t *globalDim,
				       const cuuint64_t *globalStrides, const cuuint32_t *boxDim,
				       const cuuint32_t *elementStrides, CUtensorMapInterleave interleave,
				       CUtensorMapSwizzle swizzle, CUtensorMapL2promotion l2Promotion,
				       CUtensorMapFloatOOBfill oobFill)
{
	const struct shape shape = { tensorDataType, tensorRank, globalAddress, globalDim,   globalStrides,
				     elementStrides, interleave, swizzle,       l2Promotion, oobFill };
	struct sg_tensor_map map;
	ENTER();
	TRY(fill_shape(&map, tensorMap, &shape));
	if (!boxDim || !row_fits(&map, boxDim[0]))
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned d = 0; d < tensorRank; d++) {
		if (!boxDim[d] || boxDim[d] > 256)
			return CUDA_ERROR_INVALID_VALUE;
		map.box[d] = (uint16_t)boxDim[d];
	}
	give(tensorMap, &map);
	return CUDA_SUCCESS;
}

EXPORT CUresult cuTensorMapEncodeIm2col(CUtensorMap *tensorMap, CUtensorMapDataType tensorDataType,
					cuuint32_t tensorRank, void *globalAddress, const cuuint64_t *globalDim,
					const cuuint64_t *globalStrides, const int *pixelBoxLowerCorner,
					const int *pixelBoxUpperCorner, cuuint32_t channelsPerPixel,
					cuuint32_t pixelsPerColumn, const cuuint32_t *elementStrides,
					CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
					CUtensorMapL2promotion l2Promotion, CUtensorMapFloatOOBfill oobFill)
{
	static const int limits[] = { 32768, 128, 16 }; /* by spatial dimensions */
	const struct shape shape = { tensorDataType, tensorRank, globalAddress, globalDim,   globalStrides,
				     elementStrides, interleave, swizzle,       l2Promotion, oobFill };
	struct sg_tensor_map map;
	ENTER();
	TRY(fill_shape(&map, tensorMap, &shape));
	if (tensorRank < 3 || !pixelBoxLowerCorner || !pixelBoxUpperCorner || !row_fits(&map, channelsPerPixel) ||
	    !pixelsPerColumn || pixelsPerColumn > 1024)
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned k = 0; k < tensorRank - 2; k++) {
		const int limit = limits[tensorRank - 3], lower = pixelBoxLowerCorner[k],
			  upper = pixelBoxUpperCorner[k];
		if (lower < -limit || lower >= limit || upper < -limit || upper >= limit)
			return CUDA_ERROR_INVALID_VALUE;
		map.lower[k] = (int16_t)lower;
		map.upper[k] = (int16_t)upper;
	}
	map.im2col = 1;
	map.channels = (uint16_t)channelsPerPixel;
	map.pixels = (uint16_t)pixelsPerColumn;
	give(tensorMap, &map);
	return CUDA_SUCCESS;
}

EXPORT CUresult cuTensorMapReplaceAddress(CUtensorMap *tensorMap, void *globalAddress)
{
	struct sg_tensor_map map;
	ENTER();
	if (!tensorMap || (uintptr_t)tensorMap % 64 || (uintptr_t)globalAddress % 16)
		return CUDA_ERROR_INVALID_VALUE;
	memcpy(&map, tensorMap, sizeof map);
	if (map.magic != SG_TENSOR_MAP_MAGIC)
		return CUDA_ERROR_INVALID_VALUE;
	map.address = (uintptr_t)globalAddress;
	give(tensorMap, &map);
	return CUDA_SUCCESS;
}
