/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "box.h"

#include <string.h>

static CUmemorytype settle_type(CUmemorytype type, CUdeviceptr address)
{
	if (type != CU_MEMORYTYPE_UNIFIED)
		return type;
	return bf_is_device_memory(address) ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST;
}

static struct bf_side array_side(CUarray array, const size_t offset[3])
{
	return (struct bf_side){ .type = CU_MEMORYTYPE_ARRAY,
				 .array = array,
				 .offset = { offset[0], offset[1], offset[2] } };
}

static struct bf_side make_side(CUmemorytype type, const void *host, CUdeviceptr device, size_t pitch, size_t height,
				const size_t offset[3])
{
	/* unified addresses come in the device's member */
	const uint8_t *base = type == CU_MEMORYTYPE_HOST ? host : (const uint8_t *)(uintptr_t)device;

	return (struct bf_side){ .type = settle_type(type, device),
				 .at = (uint8_t *)base + (offset[2] * height + offset[1]) * pitch + offset[0],
				 .pitch = pitch,
				 .height = height };
}

static struct bf_side from_side(const CUDA_MEMCPY3D *copy)
{
	const size_t offset[] = { copy->srcXInBytes, copy->srcY, copy->srcZ };

	if (copy->srcMemoryType == CU_MEMORYTYPE_ARRAY)
		return array_side(copy->srcArray, offset);
	return make_side(copy->srcMemoryType, copy->srcHost, copy->srcDevice,
			 copy->srcPitch ? copy->srcPitch : copy->WidthInBytes,
			 copy->srcHeight ? copy->srcHeight : copy->Height, offset);
}

static struct bf_side to_side(const CUDA_MEMCPY3D *copy)
{
	const size_t offset[] = { copy->dstXInBytes, copy->dstY, copy->dstZ };

	if (copy->dstMemoryType == CU_MEMORYTYPE_ARRAY)
		return array_side(copy->dstArray, offset);
	return make_side(copy->dstMemoryType, copy->dstHost, copy->dstDevice,
			 copy->dstPitch ? copy->dstPitch : copy->WidthInBytes,
			 copy->dstHeight ? copy->dstHeight : copy->Height, offset);
}

struct bf_box bf_box_of(const CUDA_MEMCPY3D *copy)
{
	return (struct bf_box){ from_side(copy), to_side(copy), copy->WidthInBytes, copy->Height, copy->Depth };
}

uint64_t bf_side_span(const struct bf_box *box, const struct bf_side *side)
{
	return ((box->depth - 1) * side->height + box->height - 1) * side->pitch + box->width;
}

static CUresult check_side(const struct bf_box *box, const struct bf_side *side)
{
	if (side->type == CU_MEMORYTYPE_ARRAY)
		return bf_array_check(side->array, side->offset,
				      (const size_t[]){ box->width, box->height, box->depth });
	if (side->type != CU_MEMORYTYPE_HOST && side->type != CU_MEMORYTYPE_DEVICE)
		return CUDA_ERROR_INVALID_VALUE;
	if ((side->pitch < box->width && (box->height > 1 || box->depth > 1)) ||
	    (side->height < box->height && box->depth > 1))
		return CUDA_ERROR_INVALID_VALUE;
	if (!side->at)
		return CUDA_ERROR_INVALID_VALUE;
	return side->type == CU_MEMORYTYPE_HOST ? CUDA_SUCCESS
						: bf_device_range_check(BF_ARG(side->at), bf_side_span(box, side));
}

CUresult bf_box_check(const struct bf_box *box)
{
	CUresult status;

	if (box->width > BF_MAX_COPY || box->height > BF_MAX_COPY || box->depth > BF_MAX_COPY ||
	    (unsigned __int128)box->width * box->height * box->depth > BF_MAX_COPY)
		return CUDA_ERROR_INVALID_VALUE;
	status = check_side(box, &box->from);
	return status ? status : check_side(box, &box->to);
}

uint64_t bf_box_bytes(const struct bf_box *box)
{
	return box->width * box->height * box->depth;
}

void bf_box_copy_rows(const struct bf_box *box, const struct bf_side *to, const struct bf_side *from)
{
	for (size_t z = 0; z < box->depth; z++)
		for (size_t y = 0; y < box->height; y++)
			memmove(to->at + (z * to->height + y) * to->pitch,
				from->at + (z * from->height + y) * from->pitch, box->width);
}

bool bf_side_is_flat(const struct bf_box *box, const struct bf_side *side)
{
	return (side->pitch == box->width || (box->height == 1 && box->depth == 1)) &&
	       (side->height == box->height || box->depth == 1);
}

struct bf_side bf_side_packed(const struct bf_box *box, uint8_t *memory)
{
	return (struct bf_side){ .type = CU_MEMORYTYPE_HOST, .at = memory, .pitch = box->width, .height = box->height };
}

void bf_box_describe(const struct bf_box *box, CUDA_MEMCPY3D *shape)
{
	const struct bf_side *from = &box->from, *to = &box->to;
	bool from_host = from->type == CU_MEMORYTYPE_HOST, to_host = to->type == CU_MEMORYTYPE_HOST;

	memset(shape, 0, sizeof *shape);
	shape->srcMemoryType = from->type;
	shape->srcDevice = from_host ? 0 : BF_ARG(from->at);
	shape->srcPitch = from_host ? box->width : from->pitch;
	shape->srcHeight = from_host ? box->height : from->height;
	shape->dstMemoryType = to->type;
	shape->dstDevice = to_host ? 0 : BF_ARG(to->at);
	shape->dstPitch = to_host ? box->width : to->pitch;
	shape->dstHeight = to_host ? box->height : to->height;
	shape->srcArray = from->array;
	shape->srcXInBytes = from->offset[0];
	shape->srcY = from->offset[1];
	shape->srcZ = from->offset[2];
	shape->dstArray = to->array;
	shape->dstXInBytes = to->offset[0];
	shape->dstY = to->offset[1];
	shape->dstZ = to->offset[2];
	shape->WidthInBytes = box->width;
	shape->Height = box->height;
	shape->Depth = box->depth;
}
