/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies of boxes.
 */
#include "array.h"
#include "queue.h"
#include "memory.h"

#include <string.h>

/* One end of a box copy, as the several request structures name it. */
struct end {
	CUmemorytype type;
	const void *host;
	CUdeviceptr device;
	CUarray array;
	uint64_t x, y, z, pitch, height;
};

static CUresult place_in_array(const struct end *end, const CUDA_MEMCPY3D *box, uint64_t *base, uint64_t *pitch,
			       uint64_t *slice)
{
	const struct array *array = array_get(end->array);
	if (!array)
		return CUDA_ERROR_INVALID_HANDLE;
	const struct sg_level *level = &array->level;
	const uint64_t size[3] = { (uint64_t)level->width * texel_bytes(array->shape.Format, array->shape.NumChannels),
				   level->height, array->slices };
	if (end->x > size[0] || box->WidthInBytes > size[0] - end->x || end->y > size[1] ||
	    box->Height > size[1] - end->y || end->z > size[2] || box->Depth > size[2] - end->z)
		return CUDA_ERROR_INVALID_VALUE;
	*pitch = level->pitch;
	*slice = level->slice;
	*base = array->address + level->offset + end->z * *slice + end->y * *pitch + end->x;
	return memory_check_device(*base, (box->Depth - 1) * *slice + (box->Height - 1) * *pitch + box->WidthInBytes);
}

static CUresult place_end(const struct end *end, const CUDA_MEMCPY3D *box, uint64_t *base, uint64_t *pitch,
			  uint64_t *slice)
{
	uint64_t start;
	switch ((int)end->type) {
	case CU_MEMORYTYPE_HOST: start = (uint64_t)(uintptr_t)end->host; break;
	case CU_MEMORYTYPE_DEVICE:
	case CU_MEMORYTYPE_UNIFIED: start = end->device; break;
	case CU_MEMORYTYPE_ARRAY: return place_in_array(end, box, base, pitch, slice);
	default: return CUDA_ERROR_INVALID_VALUE;
	}
	*pitch = end->pitch ? end->pitch : box->WidthInBytes + end->x;
	uint64_t height = end->height ? end->height : box->Height + end->y;
	*slice = *pitch * height;
	if (!start || (box->Height > 1 && *pitch < box->WidthInBytes + end->x) ||
	    (box->Depth > 1 && height < box->Height + end->y))
		return CUDA_ERROR_INVALID_VALUE;
	*base = start + end->z * *slice + end->y * *pitch + end->x;
	uint64_t size = (box->Depth - 1) * *slice + (box->Height - 1) * *pitch + box->WidthInBytes;
	return end->type == CU_MEMORYTYPE_DEVICE ? memory_check_device(*base, size) : CUDA_SUCCESS;
}

CUresult copy_from_3d(const CUDA_MEMCPY3D *box, struct copy_work *copy)
{
	struct end source = { box->srcMemoryType, box->srcHost, box->srcDevice, box->srcArray, box->srcXInBytes,
			      box->srcY,          box->srcZ,    box->srcPitch,  box->srcHeight };
	struct end target = { box->dstMemoryType, box->dstHost, box->dstDevice, box->dstArray, box->dstXInBytes,
			      box->dstY,          box->dstZ,    box->dstPitch,  box->dstHeight };
	memset(copy, 0, sizeof *copy);
	if (!box->WidthInBytes || !box->Height || !box->Depth)
		return CUDA_SUCCESS;
	copy->width = box->WidthInBytes;
	copy->height = box->Height;
	copy->depth = box->Depth;
	TRY(place_end(&source, box, &copy->source, &copy->source_pitch, &copy->source_slice));
	return place_end(&target, box, &copy->target, &copy->target_pitch, &copy->target_slice);
}

CUresult copy_box(CUstream handle, const CUDA_MEMCPY3D *box, enum copy_mode mode)
{
	struct context *context;
	struct stream *stream;
	struct copy_work copy;
	TRY(stream_enter(handle, &context, &stream));
	if (!box)
		return CUDA_ERROR_INVALID_VALUE;
	if (mode != COPY_ASYNCHRONOUS)
		TRY(capture_check_unsafe());
	TRY(copy_from_3d(box, &copy));
	return copy_submit(stream, &copy, mode);
}

static CUresult copy_plane(CUstream handle, const CUDA_MEMCPY2D *plane, enum copy_mode mode)
{
	if (!plane)
		return CUDA_ERROR_INVALID_VALUE;
	CUDA_MEMCPY3D box = {
		.srcXInBytes = plane->srcXInBytes,
		.srcY = plane->srcY,
		.srcMemoryType = plane->srcMemoryType,
		.srcHost = plane->srcHost,
		.srcDevice = plane->srcDevice,
		.srcArray = plane->srcArray,
		.srcPitch = plane->srcPitch,
		.dstXInBytes = plane->dstXInBytes,
		.dstY = plane->dstY,
		.dstMemoryType = plane->dstMemoryType,
		.dstHost = plane->dstHost,
		.dstDevice = plane->dstDevice,
		.dstArray = plane->dstArray,
		.dstPitch = plane->dstPitch,
		.WidthInBytes = plane->WidthInBytes,
		.Height = plane->Height,
		.Depth = 1,
	};
	return copy_box(handle, &box, mode);
}

static CUresult copy_peer_box(CUstream handle, const CUDA_MEMCPY3D_PEER *peer, enum copy_mode mode)
{
	if (!peer)
		return CUDA_ERROR_INVALID_VALUE;
	CUDA_MEMCPY3D box = {
		.srcXInBytes = peer->srcXInBytes,
		.srcY = peer->srcY,
		.srcZ = peer->srcZ,
		.srcMemoryType = peer->srcMemoryType,
		.srcHost = peer->srcHost,
		.srcDevice = peer->srcDevice,
		.srcArray = peer->srcArray,
		.srcPitch = peer->srcPitch,
		.srcHeight = peer->srcHeight,
		.dstXInBytes = peer->dstXInBytes,
		.dstY = peer->dstY,
		.dstZ = peer->dstZ,
		.dstMemoryType = peer->dstMemoryType,
		.dstHost = peer->dstHost,
		.dstDevice = peer->dstDevice,
		.dstArray = peer->dstArray,
		.dstPitch = peer->dstPitch,
		.dstHeight = peer->dstHeight,
		.WidthInBytes = peer->WidthInBytes,
		.Height = peer->Height,
		.Depth = peer->Depth,
	};
	TRY(copy_between(peer->dstContext, peer->srcContext, &mode));
	return copy_box(handle, &box, mode);
}

EXPORT CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D *pCopy)
{
	return copy_plane(CU_STREAM_LEGACY, pCopy, COPY_SYNCHRONOUS);
}

EXPORT CUresult cuMemcpy2D_v2_ptds(const CUDA_MEMCPY2D *pCopy)
{
	return copy_plane(CU_STREAM_PER_THREAD, pCopy, COPY_SYNCHRONOUS);
}

EXPORT CUresult cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D *pCopy)
{
	return copy_plane(CU_STREAM_LEGACY, pCopy, COPY_SYNCHRONOUS);
}

EXPORT CUresult cuMemcpy2DUnaligned_v2_ptds(const CUDA_MEMCPY2D *pCopy)
{
	return copy_plane(CU_STREAM_PER_THREAD, pCopy, COPY_SYNCHRONOUS);
}

EXPORT CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *pCopy, CUstream hStream)
{
	return copy_plane(hStream, pCopy, COPY_ASYNCHRONOUS);
}

EXPORT CUresult cuMemcpy3D_v2(const CUDA_MEMCPY3D *pCopy)
{
	return copy_box(CU_STREAM_LEGACY, pCopy, COPY_SYNCHRONOUS);
}

EXPORT CUresult cuMemcpy3D_v2_ptds(const CUDA_MEMCPY3D *pCopy)
{
	return copy_box(CU_STREAM_PER_THREAD, pCopy, COPY_SYNCHRONOUS);
}

EXPORT CUresult cuMemcpy3DAsync_v2(const CUDA_MEMCPY3D *pCopy, CUstream hStream)
{
	return copy_box(hStream, pCopy, COPY_ASYNCHRONOUS);
}

EXPORT CUresult cuMemcpy3DPeer(const CUDA_MEMCPY3D_PEER *pCopy)
{
	return copy_peer_box(CU_STREAM_LEGACY, pCopy, COPY_SYNCHRONOUS);
}

EXPORT CUresult cuMemcpy3DPeer_ptds(const CUDA_MEMCPY3D_PEER *pCopy)
{
	return copy_peer_box(CU_STREAM_PER_THREAD, pCopy, COPY_SYNCHRONOUS);
}

EXPORT CUresult cuMemcpy3DPeerAsync(const CUDA_MEMCPY3D_PEER *pCopy, CUstream hStream)
{
	return copy_peer_box(hStream, pCopy, COPY_ASYNCHRONOUS);
}
