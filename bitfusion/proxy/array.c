/* SPDX-License-Identifier: Apache-2.0
 *
 * CUDA arrays and mipmapped arrays. The server's driver has them; their shapes are kept here, so that a copy that
 * does not fit is refused when it is asked for and not when it is too late.
 */
#define _GNU_SOURCE
#include "format.h"
#include "proxy.h"

static struct bf_array *find(CUarray array)
{
	return bf_handle_find(BF_ARRAY, BF_ARG(array));
}

CUresult bf_array_check(CUarray array, const size_t offset[3], const size_t size[3])
{
	const struct bf_array *found = find(array);

	if (!found)
		return CUDA_ERROR_INVALID_HANDLE;
	const CUDA_ARRAY3D_DESCRIPTOR *shape = &found->shape;
	const size_t element = (size_t)bf_format_bytes(shape->Format) * shape->NumChannels;
	const size_t room[3] = { element ? shape->Width * element : SIZE_MAX, shape->Height ? shape->Height : 1,
				 shape->Depth ? shape->Depth : 1 };

	for (int i = 0; i < 3; i++)
		if (offset[i] > room[i] || size[i] > room[i] - offset[i])
			return CUDA_ERROR_INVALID_VALUE;
	return CUDA_SUCCESS;
}

static void keep_shape(CUarray array, const CUDA_ARRAY3D_DESCRIPTOR *shape, uint64_t parent)
{
	struct bf_array *made = find(array);

	if (!made)
		return;
	made->shape = *shape;
	made->parent = parent;
}

BF_EXPORT CUresult cuArray3DCreate_v2(CUarray *pHandle, const CUDA_ARRAY3D_DESCRIPTOR *pAllocateArray)
{
	CUresult status = BF_CALL(cuArray3DCreate_v2, BF_ARG(pHandle), BF_ARG(pAllocateArray));

	if (!status)
		keep_shape(*pHandle, pAllocateArray, 0);
	return status;
}

BF_EXPORT CUresult cuArrayCreate_v2(CUarray *pHandle, const CUDA_ARRAY_DESCRIPTOR *pAllocateArray)
{
	CUresult status = BF_CALL(cuArrayCreate_v2, BF_ARG(pHandle), BF_ARG(pAllocateArray));

	if (!status)
		keep_shape(*pHandle,
			   &(CUDA_ARRAY3D_DESCRIPTOR){ .Width = pAllocateArray->Width,
						       .Height = pAllocateArray->Height,
						       .Format = pAllocateArray->Format,
						       .NumChannels = pAllocateArray->NumChannels },
			   0);
	return status;
}

BF_EXPORT CUresult cuArrayDestroy(CUarray hArray)
{
	return BF_CALL(cuArrayDestroy, BF_ARG(hArray));
}

BF_EXPORT CUresult cuArray3DGetDescriptor_v2(CUDA_ARRAY3D_DESCRIPTOR *pArrayDescriptor, CUarray hArray)
{
	const struct bf_array *array;
	CUresult status = bf_check();

	if (status)
		return status;
	if (!pArrayDescriptor)
		return CUDA_ERROR_INVALID_VALUE;
	array = find(hArray);
	if (!array)
		return CUDA_ERROR_INVALID_HANDLE;
	*pArrayDescriptor = array->shape;
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuArrayGetDescriptor_v2(CUDA_ARRAY_DESCRIPTOR *pArrayDescriptor, CUarray hArray)
{
	CUDA_ARRAY3D_DESCRIPTOR shape;
	CUresult status = cuArray3DGetDescriptor_v2(pArrayDescriptor ? &shape : NULL, hArray);

	if (!status)
		*pArrayDescriptor = (CUDA_ARRAY_DESCRIPTOR){ .Width = shape.Width,
							     .Height = shape.Height,
							     .Format = shape.Format,
							     .NumChannels = shape.NumChannels };
	return status;
}

BF_EXPORT CUresult cuMipmappedArrayCreate(CUmipmappedArray *pHandle, const CUDA_ARRAY3D_DESCRIPTOR *pMipmappedArrayDesc,
					  unsigned int numMipmapLevels)
{
	return BF_CALL(cuMipmappedArrayCreate, BF_ARG(pHandle), BF_ARG(pMipmappedArrayDesc), numMipmapLevels);
}

BF_EXPORT CUresult cuMipmappedArrayGetLevel(CUarray *pLevelArray, CUmipmappedArray hMipmappedArray, unsigned int level)
{
	CUDA_ARRAY3D_DESCRIPTOR shape = { 0 };
	CUarray found = NULL;
	CUresult status =
		BF_CALL(cuMipmappedArrayGetLevel, BF_ARG(pLevelArray ? &found : NULL), BF_ARG(hMipmappedArray), level);

	if (!status && find(found) && find(found)->parent != BF_ARG(hMipmappedArray)) {
		status = BF_CALL(cuArray3DGetDescriptor_v2, BF_ARG(&shape), BF_ARG(found));
		if (!status)
			keep_shape(found, &shape, BF_ARG(hMipmappedArray));
	}
	if (!status)
		*pLevelArray = found;
	return status;
}

BF_EXPORT CUresult cuMipmappedArrayDestroy(CUmipmappedArray hMipmappedArray)
{
	CUresult status = BF_CALL(cuMipmappedArrayDestroy, BF_ARG(hMipmappedArray));

	for (uint32_t i = 1; !status && i < bf_handle_count(BF_ARRAY); i++) {
		struct bf_array *level = bf_handle_entry(BF_ARRAY, i);

		if (!level || !bf_is_alive(&level->entry) || level->parent != BF_ARG(hMipmappedArray))
			continue;
		level->parent = 0;
		bf_handle_free(BF_HANDLE(BF_ARRAY, i));
	}
	return status;
}
