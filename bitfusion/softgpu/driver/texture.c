/* SPDX-License-Identifier: Apache-2.0
 *
 * Texture and surface objects: their descriptions are checked as CUDA documents them, and given to the engine.
 */
#include "array.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 1024, ALIGNMENT = 512, LINE_ALIGNMENT = 32 };
enum {
	KNOWN_FLAGS = CU_TRSF_READ_AS_INTEGER | CU_TRSF_NORMALIZED_COORDINATES | CU_TRSF_SRGB |
		      CU_TRSF_DISABLE_TRILINEAR_OPTIMIZATION | CU_TRSF_SEAMLESS_CUBEMAP
};

/* What a program may ask back. */
struct described {
	struct described *next;
	uint64_t number;
	unsigned kind;
	CUDA_RESOURCE_DESC resource;
	CUDA_TEXTURE_DESC texture;
};

static struct {
	pthread_mutex_t lock;
	struct described *buckets[BUCKETS];
} objects = { .lock = PTHREAD_MUTEX_INITIALIZER };

static struct described **find_locked(uint64_t number, unsigned kind)
{
	struct described **at = &objects.buckets[number % BUCKETS];
	while (*at && ((*at)->number != number || (*at)->kind != kind))
		at = &(*at)->next;
	return at;
}

static CUresult object_describe(uint64_t number, unsigned kind, CUDA_RESOURCE_DESC *resource,
				CUDA_TEXTURE_DESC *texture)
{
	ENTER();
	if (!resource && !texture)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&objects.lock);
	const struct described *found = *find_locked(number, kind);
	if (found && resource)
		*resource = found->resource;
	if (found && texture)
		*texture = found->texture;
	pthread_mutex_unlock(&objects.lock);
	return found ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult object_create(uint64_t *number, const struct sg_texture *made, const CUDA_RESOURCE_DESC *resource,
			      const CUDA_TEXTURE_DESC *texture)
{
	struct described *described = calloc(1, sizeof *described);
	if (!described)
		return CUDA_ERROR_OUT_OF_MEMORY;
	described->number = sg_texture_add(made);
	if (!described->number) {
		free(described);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	described->kind = made->kind;
	described->resource = *resource;
	if (texture)
		described->texture = *texture;
	pthread_mutex_lock(&objects.lock);
	struct described **bucket = &objects.buckets[described->number % BUCKETS];
	described->next = *bucket;
	*bucket = described;
	pthread_mutex_unlock(&objects.lock);
	*number = described->number;
	return CUDA_SUCCESS;
}

static CUresult object_destroy(uint64_t number, unsigned kind)
{
	ENTER_CONTEXT(context);
	pthread_mutex_lock(&objects.lock);
	struct described **at = find_locked(number, kind), *found = *at;
	if (found)
		*at = found->next;
	pthread_mutex_unlock(&objects.lock);
	if (!found)
		return CUDA_ERROR_INVALID_VALUE;
	free(found);
	CUresult result = context_synchronize(context); /* kernels that were launched may still use it */
	sg_texture_remove(number, kind);
	return result;
}

static void describe_array(struct sg_texture *made, const struct array *array)
{
	const int sliced = (array->shape.Flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP)) != 0;
	made->format = (uint8_t)array->shape.Format;
	made->channels = (uint8_t)array->shape.NumChannels;
	made->address = array->address;
	made->size = array->size;
	made->layers = sliced ? array->slices : 1;
	made->level[made->levels++] = array->level;
}

static CUresult describe_memory(struct sg_texture *made, uint64_t address, CUarray_format format, unsigned channels,
				const size_t size[2], size_t pitch)
{
	const uint32_t bytes = texel_bytes(format, channels);
	if (!bytes || !address || address % ALIGNMENT || !size[0] || !size[1] || size[0] > 1u << 28 ||
	    size[1] > 65000 || size[0] * bytes > pitch || pitch > (uint64_t)1 << 32)
		return CUDA_ERROR_INVALID_VALUE;
	made->format = (uint8_t)format;
	made->channels = (uint8_t)channels;
	made->address = address;
	made->size = pitch * (size[1] - 1) + size[0] * bytes;
	made->layers = made->levels = 1;
	made->level[0] = (struct sg_level){ .pitch = pitch,
					    .slice = pitch * size[1],
					    .width = (uint32_t)size[0],
					    .height = (uint32_t)size[1],
					    .depth = 1 };
	return memory_check_device(address, made->size);
}

static CUresult describe(struct sg_texture *made, const CUDA_RESOURCE_DESC *resource)
{
	if (resource->flags)
		return CUDA_ERROR_INVALID_VALUE;
	switch ((int)resource->resType) {
	case CU_RESOURCE_TYPE_ARRAY: {
		const struct array *array = array_get(resource->res.array.hArray);
		if (!array)
			return CUDA_ERROR_INVALID_VALUE;
		describe_array(made, array);
		return CUDA_SUCCESS;
	}
	case CU_RESOURCE_TYPE_MIPMAPPED_ARRAY: {
		const struct mipmap *mipmap = mipmap_get(resource->res.mipmap.hMipmappedArray);
		if (!mipmap)
			return CUDA_ERROR_INVALID_VALUE;
		for (unsigned k = 0; k < mipmap->count; k++)
			describe_array(made, mipmap->levels[k]);
		return CUDA_SUCCESS;
	}
	case CU_RESOURCE_TYPE_LINEAR: {
		const uint32_t bytes = texel_bytes(resource->res.linear.format, resource->res.linear.numChannels);
		const size_t size[2] = { bytes ? resource->res.linear.sizeInBytes / bytes : 0, 1 };
		made->linear_memory = 1;
		return describe_memory(made, resource->res.linear.devPtr, resource->res.linear.format,
				       resource->res.linear.numChannels, size, resource->res.linear.sizeInBytes);
	}
	case CU_RESOURCE_TYPE_PITCH2D: {
		const size_t size[2] = { resource->res.pitch2D.width, resource->res.pitch2D.height };
		if (resource->res.pitch2D.pitchInBytes % LINE_ALIGNMENT)
			return CUDA_ERROR_INVALID_VALUE;
		return describe_memory(made, resource->res.pitch2D.devPtr, resource->res.pitch2D.format,
				       resource->res.pitch2D.numChannels, size, resource->res.pitch2D.pitchInBytes);
	}
	}
	return CUDA_ERROR_INVALID_VALUE;
}

static CUresult refuse(const char *why)
{
	driver_say(why);
	return CUDA_ERROR_NOT_SUPPORTED;
}

static CUresult check_sampler(const struct sg_texture *made, const CUDA_TEXTURE_DESC *d)
{
	const unsigned bytes = sg_texel_bytes(made->format);
	const int is_float = made->format == SG_TEXEL_F16 || made->format == SG_TEXEL_F32;
	const int integer = !is_float && (bytes == 4 || d->flags & CU_TRSF_READ_AS_INTEGER);
	for (int k = 0; k < 3; k++)
		if ((unsigned)d->addressMode[k] > CU_TR_ADDRESS_MODE_BORDER)
			return CUDA_ERROR_INVALID_VALUE;
	if ((unsigned)d->filterMode > 1 || (unsigned)d->mipmapFilterMode > 1 || d->flags & ~(unsigned)KNOWN_FLAGS)
		return CUDA_ERROR_INVALID_VALUE;
	if (integer && !made->linear_memory && (d->filterMode || (made->levels > 1 && d->mipmapFilterMode)))
		return CUDA_ERROR_INVALID_VALUE;
	if (made->levels > 1 && !(d->flags & CU_TRSF_NORMALIZED_COORDINATES))
		return CUDA_ERROR_INVALID_VALUE;
	if (d->flags & CU_TRSF_SEAMLESS_CUBEMAP && d->filterMode)
		return refuse("filtering across the edges of a cube (CU_TRSF_SEAMLESS_CUBEMAP) is not supported");
	if (d->maxAnisotropy > 1 && made->levels > 1)
		return refuse("anisotropic filtering is not supported");
	if (d->flags & CU_TRSF_SRGB && made->format != SG_TEXEL_U8)
		return CUDA_ERROR_INVALID_VALUE;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuTexObjectCreate(CUtexObject *pTexObject, const CUDA_RESOURCE_DESC *pResDesc,
				  const CUDA_TEXTURE_DESC *pTexDesc, const CUDA_RESOURCE_VIEW_DESC *pResViewDesc)
{
	struct sg_texture made = { .kind = SG_TEXTURE };
	uint64_t number;
	ENTER_CONTEXT(context);
	(void)context;
	if (!pTexObject || !pResDesc || !pTexDesc)
		return CUDA_ERROR_INVALID_VALUE;
	if (pResViewDesc)
		return refuse("views of a texture's resource are not supported");
	TRY(describe(&made, pResDesc));
	TRY(check_sampler(&made, pTexDesc));
	for (int k = 0; k < 3; k++)
		made.address_mode[k] = (uint8_t)pTexDesc->addressMode[k];
	memcpy(made.border, pTexDesc->borderColor, sizeof made.border);
	made.filter = pTexDesc->filterMode == CU_TR_FILTER_MODE_LINEAR;
	made.mip_filter = pTexDesc->mipmapFilterMode == CU_TR_FILTER_MODE_LINEAR;
	made.normalised = (pTexDesc->flags & CU_TRSF_NORMALIZED_COORDINATES) != 0;
	made.as_integer = (pTexDesc->flags & CU_TRSF_READ_AS_INTEGER) != 0;
	made.srgb = (pTexDesc->flags & CU_TRSF_SRGB) != 0;
	made.bias = pTexDesc->mipmapLevelBias;
	made.min_level = pTexDesc->minMipmapLevelClamp;
	made.max_level = pTexDesc->maxMipmapLevelClamp;
	TRY(object_create(&number, &made, pResDesc, pTexDesc));
	*pTexObject = number;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuTexObjectDestroy(CUtexObject texObject)
{
	return object_destroy(texObject, SG_TEXTURE);
}

EXPORT CUresult cuTexObjectGetResourceDesc(CUDA_RESOURCE_DESC *pResDesc, CUtexObject texObject)
{
	return object_describe(texObject, SG_TEXTURE, pResDesc, NULL);
}

EXPORT CUresult cuTexObjectGetTextureDesc(CUDA_TEXTURE_DESC *pTexDesc, CUtexObject texObject)
{
	return object_describe(texObject, SG_TEXTURE, NULL, pTexDesc);
}

/* None is ever made with a view. */
EXPORT CUresult cuTexObjectGetResourceViewDesc(CUDA_RESOURCE_VIEW_DESC *pResViewDesc, CUtexObject texObject)
{
	CUDA_RESOURCE_DESC unused;
	if (!pResViewDesc)
		return CUDA_ERROR_INVALID_VALUE;
	TRY(object_describe(texObject, SG_TEXTURE, &unused, NULL));
	return CUDA_ERROR_INVALID_VALUE;
}

EXPORT CUresult cuSurfObjectCreate(CUsurfObject *pSurfObject, const CUDA_RESOURCE_DESC *pResDesc)
{
	struct sg_texture made = { .kind = SG_SURFACE };
	uint64_t number;
	ENTER_CONTEXT(context);
	(void)context;
	if (!pSurfObject || !pResDesc || pResDesc->resType != CU_RESOURCE_TYPE_ARRAY)
		return CUDA_ERROR_INVALID_VALUE;
	TRY(describe(&made, pResDesc));
	if (!(array_get(pResDesc->res.array.hArray)->shape.Flags & CUDA_ARRAY3D_SURFACE_LDST))
		return CUDA_ERROR_INVALID_VALUE;
	TRY(object_create(&number, &made, pResDesc, NULL));
	*pSurfObject = number;
	return CUDA_SUCCESS;
}

EXPORT CUresult cuSurfObjectDestroy(CUsurfObject surfObject)
{
	return object_destroy(surfObject, SG_SURFACE);
}

EXPORT CUresult cuSurfObjectGetResourceDesc(CUDA_RESOURCE_DESC *pResDesc, CUsurfObject surfObject)
{
	return object_describe(surfObject, SG_SURFACE, pResDesc, NULL);
}
