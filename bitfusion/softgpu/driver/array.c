/* SPDX-License-Identifier: Apache-2.0
 *
 * CUDA arrays and mipmapped arrays.
 */
#include "array.h"
#include "memory.h"

#include <string.h>

enum { PITCH = 64 };
enum {
	KNOWN_FLAGS = CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_SURFACE_LDST | CUDA_ARRAY3D_CUBEMAP |
		      CUDA_ARRAY3D_TEXTURE_GATHER | CUDA_ARRAY3D_COLOR_ATTACHMENT
};

struct array *array_get(CUarray handle)
{
	return object_get(handle, OBJECT_ARRAY);
}

struct mipmap *mipmap_get(CUmipmappedArray handle)
{
	return object_get(handle, OBJECT_MIPMAP);
}

uint32_t texel_bytes(CUarray_format format, unsigned channels)
{
	return channels == 1 || channels == 2 || channels == 4 ? sg_texel_bytes((unsigned)format) * channels : 0;
}

static int exceeds(const struct context *context, uint64_t size, CUdevice_attribute attribute)
{
	int most = 0;
	return !device_attribute(context->device, attribute, &most) || size > (uint64_t)most;
}

#define LIMIT(what) CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE##what

/* One, two and three dimensions, each with layers or without. */
static int too_large(const struct context *context, const CUDA_ARRAY3D_DESCRIPTOR *s)
{
	if (s->Flags & CUDA_ARRAY3D_CUBEMAP)
		return exceeds(context, s->Width, LIMIT(CUBEMAP_WIDTH)) ||
		       exceeds(context, s->Depth, LIMIT(CUBEMAP_LAYERED_LAYERS));
	if (s->Flags & CUDA_ARRAY3D_LAYERED)
		return exceeds(context, s->Width, s->Height ? LIMIT(2D_LAYERED_WIDTH) : LIMIT(1D_LAYERED_WIDTH)) ||
		       exceeds(context, s->Height, LIMIT(2D_LAYERED_HEIGHT)) ||
		       exceeds(context, s->Depth, LIMIT(2D_LAYERED_LAYERS));
	if (s->Depth)
		return exceeds(context, s->Width, LIMIT(3D_WIDTH)) || exceeds(context, s->Height, LIMIT(3D_HEIGHT)) ||
		       exceeds(context, s->Depth, LIMIT(3D_DEPTH));
	return exceeds(context, s->Width, s->Height ? LIMIT(2D_WIDTH) : LIMIT(1D_WIDTH)) ||
	       exceeds(context, s->Height, LIMIT(2D_HEIGHT));
}

static CUresult check_shape(const struct context *context, const CUDA_ARRAY3D_DESCRIPTOR *s)
{
	const unsigned layered = s->Flags & CUDA_ARRAY3D_LAYERED;
	if (s->Flags & ~(unsigned)KNOWN_FLAGS) {
		driver_say("arrays for depth, video, sparse or deferred memory are not supported");
		return CUDA_ERROR_NOT_SUPPORTED;
	}
	if (!sg_texel_bytes((unsigned)s->Format)) {
		driver_say("arrays have elements of integers of 8, 16 and 32 bits, or floats of 16 and 32 bits");
		return CUDA_ERROR_NOT_SUPPORTED;
	}
	if (!texel_bytes(s->Format, s->NumChannels) || !s->Width || (layered && !s->Depth) ||
	    (!layered && s->Depth && !s->Height) || too_large(context, s))
		return CUDA_ERROR_INVALID_VALUE;
	if (s->Flags & CUDA_ARRAY3D_CUBEMAP &&
	    (s->Width != s->Height || (layered ? s->Depth % 6 || !s->Depth : s->Depth != 6)))
		return CUDA_ERROR_INVALID_VALUE;
	return CUDA_SUCCESS;
}

static uint32_t part(size_t size, unsigned level)
{
	return size >> level ? (uint32_t)(size >> level) : 1;
}

/* Fills in one level that begins at an offset; returns where it ends. */
static uint64_t lay_out(struct array *array, const CUDA_ARRAY3D_DESCRIPTOR *shape, unsigned level, uint64_t offset)
{
	const int sliced = (shape->Flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP)) != 0;
	struct sg_level *at = &array->level;
	array->shape = *shape;
	array->shape.Width = part(shape->Width, level);
	array->shape.Height = shape->Height ? part(shape->Height, level) : 0;
	if (!sliced)
		array->shape.Depth = shape->Depth ? part(shape->Depth, level) : 0;
	array->slices = array->shape.Depth ? (uint32_t)array->shape.Depth : 1;
	*at = (struct sg_level){ .offset = offset,
				 .width = (uint32_t)array->shape.Width,
				 .height = array->shape.Height ? (uint32_t)array->shape.Height : 1,
				 .depth = sliced ? 1 : array->slices };
	at->pitch = ((uint64_t)at->width * texel_bytes(shape->Format, shape->NumChannels) + PITCH - 1) / PITCH * PITCH;
	at->slice = at->pitch * at->height;
	return offset + at->slice * array->slices;
}

static CUresult array_create(CUarray *handle, const CUDA_ARRAY3D_DESCRIPTOR *shape)
{
	ENTER_CONTEXT(context);
	if (!handle || !shape)
		return CUDA_ERROR_INVALID_VALUE;
	TRY(check_shape(context, shape));
	struct array *array = object_new(OBJECT_ARRAY, sizeof *array);
	if (!array)
		return CUDA_ERROR_OUT_OF_MEMORY;
	array->context = context->id;
	array->size = lay_out(array, shape, 0, 0);
	CUresult result = arena_allocate(context->device, array->size, RANGE_ARRAY, context, NULL, &array->address);
	if (result != CUDA_SUCCESS) {
		object_free(array);
		return result;
	}
	*handle = (CUarray)array;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuArray3DCreate_v2(CUarray *pHandle, const CUDA_ARRAY3D_DESCRIPTOR *pAllocateArray)
{
	return array_create(pHandle, pAllocateArray);
}

EXPORT CUresult cuArrayCreate_v2(CUarray *pHandle, const CUDA_ARRAY_DESCRIPTOR *pAllocateArray)
{
	if (!pAllocateArray)
		return array_create(pHandle, NULL);
	CUDA_ARRAY3D_DESCRIPTOR shape = { .Width = pAllocateArray->Width,
					  .Height = pAllocateArray->Height,
					  .Format = pAllocateArray->Format,
					  .NumChannels = pAllocateArray->NumChannels };
	return array_create(pHandle, &shape);
}

/* Work that was submitted may still use the memory. */
static CUresult release(struct context *context, uint64_t owner, uint64_t address)
{
	if (context->id != owner) /* one that is gone took the memory along */
		return CUDA_ERROR_INVALID_CONTEXT;
	TRY(context_synchronize(context));
	return arena_free(address, RANGE_ARRAY);
}

EXPORT CUresult cuArrayDestroy(CUarray hArray)
{
	ENTER_CONTEXT(context);
	struct array *array = array_get(hArray);
	if (!array)
		return CUDA_ERROR_INVALID_HANDLE;
	if (array->owner) /* goes with the mipmapped array */
		return CUDA_ERROR_INVALID_VALUE;
	TRY(release(context, array->context, array->address));
	object_free(array);
	return CUDA_SUCCESS;
}

EXPORT CUresult cuArray3DGetDescriptor_v2(CUDA_ARRAY3D_DESCRIPTOR *pArrayDescriptor, CUarray hArray)
{
	ENTER();
	const struct array *array = array_get(hArray);
	if (!pArrayDescriptor)
		return CUDA_ERROR_INVALID_VALUE;
	if (!array)
		return CUDA_ERROR_INVALID_HANDLE;
	*pArrayDescriptor = array->shape;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuArrayGetDescriptor_v2(CUDA_ARRAY_DESCRIPTOR *pArrayDescriptor, CUarray hArray)
{
	CUDA_ARRAY3D_DESCRIPTOR shape;
	if (!pArrayDescriptor)
		return CUDA_ERROR_INVALID_VALUE;
	TRY(cuArray3DGetDescriptor_v2(&shape, hArray));
	*pArrayDescriptor = (CUDA_ARRAY_DESCRIPTOR){
		.Width = shape.Width, .Height = shape.Height, .Format = shape.Format, .NumChannels = shape.NumChannels
	};
	return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------ mipmapped arrays */

static unsigned most_levels(const CUDA_ARRAY3D_DESCRIPTOR *s)
{
	const int sliced = (s->Flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP)) != 0;
	size_t size = s->Width > s->Height ? s->Width : s->Height;
	unsigned count = 1;
	if (!sliced && s->Depth > size)
		size = s->Depth;
	while (size >>= 1)
		count++;
	return count < SG_TEXTURE_LEVELS ? count : SG_TEXTURE_LEVELS;
}

static void mipmap_free(struct mipmap *mipmap)
{
	for (unsigned k = 0; k < mipmap->count; k++)
		object_free(mipmap->levels[k]);
	object_free(mipmap);
}

EXPORT CUresult cuMipmappedArrayCreate(CUmipmappedArray *pHandle, const CUDA_ARRAY3D_DESCRIPTOR *pMipmappedArrayDesc,
				       unsigned int numMipmapLevels)
{
	ENTER_CONTEXT(context);
	if (!pHandle || !pMipmappedArrayDesc || !numMipmapLevels)
		return CUDA_ERROR_INVALID_VALUE;
	TRY(check_shape(context, pMipmappedArrayDesc));
	struct mipmap *mipmap = object_new(OBJECT_MIPMAP, sizeof *mipmap);
	if (!mipmap)
		return CUDA_ERROR_OUT_OF_MEMORY;
	const unsigned most = most_levels(pMipmappedArrayDesc);
	const unsigned count = numMipmapLevels < most ? numMipmapLevels : most;
	CUresult result = CUDA_SUCCESS;
	mipmap->context = context->id;
	mipmap->shape = *pMipmappedArrayDesc;
	while (mipmap->count < count && result == CUDA_SUCCESS) {
		struct array *level = object_new(OBJECT_ARRAY, sizeof *level);
		if (level) {
			level->context = context->id;
			level->owner = mipmap;
			mipmap->size = lay_out(level, &mipmap->shape, mipmap->count, mipmap->size);
			mipmap->levels[mipmap->count++] = level;
		} else {
			result = CUDA_ERROR_OUT_OF_MEMORY;
		}
	}
	if (result == CUDA_SUCCESS)
		result = arena_allocate(context->device, mipmap->size, RANGE_ARRAY, context, NULL, &mipmap->address);
	if (result != CUDA_SUCCESS) {
		mipmap_free(mipmap);
		return result;
	}
	for (unsigned k = 0; k < mipmap->count; k++) {
		mipmap->levels[k]->address = mipmap->address;
		mipmap->levels[k]->size = mipmap->size;
	}
	*pHandle = (CUmipmappedArray)mipmap;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuMipmappedArrayGetLevel(CUarray *pLevelArray, CUmipmappedArray hMipmappedArray, unsigned int level)
{
	ENTER();
	struct mipmap *mipmap = mipmap_get(hMipmappedArray);
	if (!mipmap)
		return CUDA_ERROR_INVALID_HANDLE;
	if (!pLevelArray || level >= mipmap->count)
		return CUDA_ERROR_INVALID_VALUE;
	*pLevelArray = (CUarray)mipmap->levels[level];
	return CUDA_SUCCESS;
}

EXPORT CUresult cuMipmappedArrayDestroy(CUmipmappedArray hMipmappedArray)
{
	ENTER_CONTEXT(context);
	struct mipmap *mipmap = mipmap_get(hMipmappedArray);
	if (!mipmap)
		return CUDA_ERROR_INVALID_HANDLE;
	TRY(release(context, mipmap->context, mipmap->address));
	mipmap_free(mipmap);
	return CUDA_SUCCESS;
}
