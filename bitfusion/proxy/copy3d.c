/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies of boxes. A side on the host is packed or unpacked here, so that only the bytes of the box travel.
 */
#define _GNU_SOURCE
#include "graph.h"
#include "late.h"
#include "shared.h"

#include <stdlib.h>
#include <string.h>

/* One side of the copy, whichever it is. */
struct side {
	CUmemorytype type;
	uint8_t *at; /* the first byte of the box: an address on the host or the device */
	size_t pitch, height;
	CUarray array; /* instead of the address */
	size_t offset[3];
};

struct box {
	struct side from, to;
	size_t width, height, depth;
};

static CUmemorytype settle_type(CUmemorytype type, CUdeviceptr address)
{
	if (type != CU_MEMORYTYPE_UNIFIED)
		return type;
	return bf_is_device_memory(address) ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST;
}

static struct side array_side(CUarray array, const size_t offset[3])
{
	return (struct side){ .type = CU_MEMORYTYPE_ARRAY,
			      .array = array,
			      .offset = { offset[0], offset[1], offset[2] } };
}

static struct side make_side(CUmemorytype type, const void *host, CUdeviceptr device, size_t pitch, size_t height,
			     const size_t offset[3])
{
	/* unified addresses come in the device's member */
	const uint8_t *base = type == CU_MEMORYTYPE_HOST ? host : (const uint8_t *)(uintptr_t)device;

	return (struct side){ .type = settle_type(type, device),
			      .at = (uint8_t *)base + (offset[2] * height + offset[1]) * pitch + offset[0],
			      .pitch = pitch,
			      .height = height };
}

static uint64_t side_size(const struct box *box, const struct side *side)
{
	return ((box->depth - 1) * side->height + box->height - 1) * side->pitch + box->width;
}

static CUresult check_side(const struct box *box, const struct side *side)
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
						: bf_device_range_check(BF_ARG(side->at), side_size(box, side));
}

static void copy_rows(const struct box *box, const struct side *to, const struct side *from)
{
	for (size_t z = 0; z < box->depth; z++)
		for (size_t y = 0; y < box->height; y++)
			memmove(to->at + (z * to->height + y) * to->pitch,
				from->at + (z * from->height + y) * from->pitch, box->width);
}

static bool is_flat(const struct box *box, const struct side *side)
{
	return (side->pitch == box->width || (box->height == 1 && box->depth == 1)) &&
	       (side->height == box->height || box->depth == 1);
}

static struct side packed_side(const struct box *box, uint8_t *memory)
{
	return (struct side){ .type = CU_MEMORYTYPE_HOST, .at = memory, .pitch = box->width, .height = box->height };
}

/* The struct as it travels: offsets are already in the addresses, but for arrays. */
static void describe(const struct box *box, CUDA_MEMCPY3D *shape)
{
	const struct side *from = &box->from, *to = &box->to;
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

struct message {
	struct bf_copy3d copy;
	CUDA_MEMCPY3D shape;
};

static uint8_t *begin(const struct box *box, const struct bf_copy3d *copy, unsigned flags)
{
	struct message message = { .copy = *copy };
	uint8_t *command =
		bf_queue_begin(BF_OP_COPY3D, sizeof(struct bf_command) + sizeof message, flags, bf_self.current);

	if (!command)
		return NULL;
	describe(box, &message.shape);
	memcpy(command + sizeof(struct bf_command), &message, sizeof message);
	return command;
}

static CUresult send_late(const struct box *box, CUstream stream)
{
	const struct side *from = &box->from;
	const struct bf_late_box source = { from->at,   box->width,  box->height,
					    box->depth, from->pitch, from->pitch * from->height };
	struct bf_copy3d copy = { .stream = BF_ARG(stream), .async = true };
	CUresult status = bf_late_add(&source, stream, &copy.late);

	if (status)
		return status;
	if (begin(box, &copy, 0)) {
		bf_queue_end(BF_LATER);
		return CUDA_SUCCESS;
	}
	bf_late_cancel(copy.late);
	return CUDA_ERROR_DEVICE_UNAVAILABLE;
}

static CUresult send_now(const struct box *box, CUstream stream, bool async)
{
	struct bf_copy3d copy = { box->width * box->height * box->depth, BF_ARG(stream), async, 0 };
	bool flat = is_flat(box, &box->from);
	uint8_t *packed = flat ? box->from.at : malloc(copy.bulk_size);
	CUresult status = CUDA_SUCCESS;

	if (!packed)
		return CUDA_ERROR_OUT_OF_MEMORY;
	if (!flat) {
		struct side target = packed_side(box, packed);

		copy_rows(box, &target, &box->from);
	}
	if (begin(box, &copy, BF_HAS_BULK))
		bf_queue_end_with_bulk(packed, copy.bulk_size, BF_LATER);
	else
		status = CUDA_ERROR_DEVICE_UNAVAILABLE;
	if (!flat)
		free(packed);
	return status;
}

static CUresult send_box(const struct box *box, CUstream stream, bool async)
{
	CUresult status = CUDA_SUCCESS;
	bool late = false;

	if (!async)
		status = bf_host_settle_before(box->from.at, side_size(box, &box->from), stream);
	else if (bf_host_is_pinned(box->from.at)) /* else the bytes are those of now */
		status = bf_late_needed(box->from.at, side_size(box, &box->from), stream, &late);
	if (status)
		return status;
	return late ? send_late(box, stream) : send_now(box, stream, async);
}

/* A box that comes in packed and is spread over the program's memory when it is whole. */
struct incoming {
	struct bf_wait wait; /* first: it is freed as this struct */
	struct box box;
	uint8_t *packed; /* NULL: straight into the program's memory */
};

static void spread(struct bf_wait *wait)
{
	struct incoming *incoming = (struct incoming *)wait;
	struct side source;

	if (!incoming->packed)
		return;
	source = packed_side(&incoming->box, incoming->packed);
	if (!wait->status)
		copy_rows(&incoming->box, &incoming->box.to, &source);
	free(incoming->packed);
	incoming->packed = NULL;
}

static CUresult prepare_incoming(struct incoming *incoming, const struct box *box)
{
	uint64_t size = box->width * box->height * box->depth;

	incoming->box = *box;
	incoming->wait.data = box->to.at;
	incoming->wait.data_size = size;
	if (is_flat(box, &box->to))
		return CUDA_SUCCESS;
	incoming->packed = malloc(size);
	incoming->wait.data = incoming->packed;
	return incoming->packed ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

static CUresult ask_for_box(struct incoming *incoming, CUstream stream, bool async, enum bf_urgency urgency)
{
	const struct bf_copy3d copy = { .stream = BF_ARG(stream), .async = async };
	uint8_t *command;

	command = begin(&incoming->box, &copy, BF_WANTS_REPLY);
	if (!command) {
		free(incoming->packed);
		return CUDA_ERROR_DEVICE_UNAVAILABLE;
	}
	((struct bf_command *)command)->request = bf_wait_add(&incoming->wait, BF_OP_COPY3D);
	bf_queue_end(urgency);
	return CUDA_SUCCESS;
}

static CUresult receive_box(const struct box *box, CUstream stream, bool async)
{
	struct incoming incoming = { 0 };
	CUresult status = prepare_incoming(&incoming, box);

	if (!status)
		status = ask_for_box(&incoming, stream, async, BF_NOW);
	if (status)
		return status;
	status = bf_wait_for(&incoming.wait);
	spread(&incoming.wait);
	bf_wait_drop(&incoming.wait);
	return status;
}

static CUresult start_receiving_box(const struct box *box, CUstream stream)
{
	struct incoming *incoming = calloc(1, sizeof *incoming);
	CUresult status;

	if (!incoming)
		return CUDA_ERROR_OUT_OF_MEMORY;
	status = prepare_incoming(incoming, box);
	incoming->wait.finish = spread;
	incoming->wait.stream = BF_ARG(stream);
	incoming->wait.host = box->to.at;
	incoming->wait.host_end = box->to.at + side_size(box, &box->to);
	if (!status)
		status = ask_for_box(incoming, stream, true, BF_LATER);
	if (status)
		free(incoming);
	return status ? status : bf_shared_copying(box->to.at, side_size(box, &box->to));
}

static CUresult copy_on_host(const struct box *box, CUstream stream, bool async)
{
	CUresult status = CUDA_SUCCESS;

	if (async)
		status = bf_stream_wait(stream);
	else if (bf_shared_in_use())
		status = bf_shared_finish(stream);
	if (!status)
		status = bf_host_settle(box->from.at, side_size(box, &box->from));
	if (!status)
		status = bf_host_settle(box->to.at, side_size(box, &box->to));
	if (!status)
		copy_rows(box, &box->to, &box->from);
	return status;
}

/* Memory that has a twin is device memory too. Is it such? */
static bool settle_shared(const struct box *box, struct side *side)
{
	CUdeviceptr device;

	if (side->type == CU_MEMORYTYPE_HOST && side->at && bf_shared_find(side->at, side_size(box, side), &device)) {
		side->type = CU_MEMORYTYPE_DEVICE;
		side->at = (uint8_t *)(uintptr_t)device;
	}
	return side->type == CU_MEMORYTYPE_DEVICE && bf_shared_find(side->at, 1, &device);
}

static CUresult send_or_receive(const struct box *box, CUstream stream, bool async)
{
	bool from_host, to_host;
	uint64_t capture = 0;
	CUresult status;

	from_host = box->from.type == CU_MEMORYTYPE_HOST;
	to_host = box->to.type == CU_MEMORYTYPE_HOST;
	status = async && (from_host || to_host) ? bf_capture_find(stream, &capture) : CUDA_SUCCESS;
	if (status || capture)
		return status ? status : CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	bf_stream_admit(stream, from_host || to_host ? box->width * box->height * box->depth : 0);
	if (from_host)
		return to_host ? copy_on_host(box, stream, async) : send_box(box, stream, async);
	if (to_host)
		return async && bf_host_is_pinned(box->to.at) ? start_receiving_box(box, stream)
							      : receive_box(box, stream, async);
	if (!begin(box, &(struct bf_copy3d){ .stream = BF_ARG(stream), .async = async }, 0))
		return CUDA_ERROR_DEVICE_UNAVAILABLE;
	bf_queue_end(BF_LATER);
	return CUDA_SUCCESS;
}

static CUresult copy_shared(struct box *box, CUstream stream, bool async)
{
	bool from_shared = settle_shared(box, &box->from), to_shared = settle_shared(box, &box->to);
	bool to_host = box->to.type == CU_MEMORYTYPE_HOST, from_host = box->from.type == CU_MEMORYTYPE_HOST;
	CUresult status = CUDA_SUCCESS;

	if (from_shared || to_shared || (to_host && !async))
		status = bf_shared_before(stream, to_shared);
	if (status)
		return status;
	status = send_or_receive(box, stream, async);
	if (to_shared)
		bf_shared_after(stream);
	/* what a copy that has waited tells the program, or brings it, is all there */
	return status || async || !(to_shared || to_host || from_host) ? status : bf_shared_finish(stream);
}

static CUresult copy_box(struct box *box, CUstream stream, bool async)
{
	CUresult status;

	if (!box->width || !box->height || !box->depth)
		return CUDA_SUCCESS;
	if (box->width > BF_MAX_COPY || box->height > BF_MAX_COPY || box->depth > BF_MAX_COPY ||
	    (unsigned __int128)box->width * box->height * box->depth > BF_MAX_COPY)
		return CUDA_ERROR_INVALID_VALUE;
	status = check_side(box, &box->from);
	if (!status)
		status = check_side(box, &box->to);
	if (status)
		return status;
	return bf_shared_in_use() ? copy_shared(box, stream, async) : send_or_receive(box, stream, async);
}

/* ------------------------------------------------------------------ entry points */

static struct side from_side(const CUDA_MEMCPY3D *copy)
{
	const size_t offset[] = { copy->srcXInBytes, copy->srcY, copy->srcZ };

	if (copy->srcMemoryType == CU_MEMORYTYPE_ARRAY)
		return array_side(copy->srcArray, offset);
	return make_side(copy->srcMemoryType, copy->srcHost, copy->srcDevice,
			 copy->srcPitch ? copy->srcPitch : copy->WidthInBytes,
			 copy->srcHeight ? copy->srcHeight : copy->Height, offset);
}

static struct side to_side(const CUDA_MEMCPY3D *copy)
{
	const size_t offset[] = { copy->dstXInBytes, copy->dstY, copy->dstZ };

	if (copy->dstMemoryType == CU_MEMORYTYPE_ARRAY)
		return array_side(copy->dstArray, offset);
	return make_side(copy->dstMemoryType, copy->dstHost, copy->dstDevice,
			 copy->dstPitch ? copy->dstPitch : copy->WidthInBytes,
			 copy->dstHeight ? copy->dstHeight : copy->Height, offset);
}

static CUresult copy_3d(const CUDA_MEMCPY3D *copy, CUstream stream, bool async, bool per_thread)
{
	CUresult status = bf_stream_enter(&stream, per_thread);
	struct box box;

	if (status)
		return status;
	if (!copy)
		return CUDA_ERROR_INVALID_VALUE;
	box = (struct box){ from_side(copy), to_side(copy), copy->WidthInBytes, copy->Height, copy->Depth };
	return copy_box(&box, stream, async);
}

static CUresult copy_2d(const CUDA_MEMCPY2D *copy, CUstream stream, bool async, bool per_thread)
{
	if (!copy)
		return copy_3d(NULL, stream, async, per_thread);
	return copy_3d(&(CUDA_MEMCPY3D){ .srcXInBytes = copy->srcXInBytes,
					 .srcY = copy->srcY,
					 .srcMemoryType = copy->srcMemoryType,
					 .srcHost = copy->srcHost,
					 .srcDevice = copy->srcDevice,
					 .srcArray = copy->srcArray,
					 .srcPitch = copy->srcPitch,
					 .dstXInBytes = copy->dstXInBytes,
					 .dstY = copy->dstY,
					 .dstMemoryType = copy->dstMemoryType,
					 .dstHost = copy->dstHost,
					 .dstDevice = copy->dstDevice,
					 .dstArray = copy->dstArray,
					 .dstPitch = copy->dstPitch,
					 .WidthInBytes = copy->WidthInBytes,
					 .Height = copy->Height,
					 .Depth = 1 },
		       stream, async, per_thread);
}

BF_EXPORT CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D *pCopy)
{
	return copy_2d(pCopy, NULL, false, false);
}

BF_EXPORT CUresult cuMemcpy2D_v2_ptds(const CUDA_MEMCPY2D *pCopy)
{
	return copy_2d(pCopy, NULL, false, true);
}

BF_EXPORT CUresult cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D *pCopy)
{
	return copy_2d(pCopy, NULL, false, false);
}

BF_EXPORT CUresult cuMemcpy2DUnaligned_v2_ptds(const CUDA_MEMCPY2D *pCopy)
{
	return copy_2d(pCopy, NULL, false, true);
}

BF_EXPORT CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *pCopy, CUstream hStream)
{
	return copy_2d(pCopy, hStream, true, false);
}

BF_EXPORT CUresult cuMemcpy2DAsync_v2_ptsz(const CUDA_MEMCPY2D *pCopy, CUstream hStream)
{
	return copy_2d(pCopy, hStream, true, true);
}

BF_EXPORT CUresult cuMemcpy3D_v2(const CUDA_MEMCPY3D *pCopy)
{
	return copy_3d(pCopy, NULL, false, false);
}

BF_EXPORT CUresult cuMemcpy3D_v2_ptds(const CUDA_MEMCPY3D *pCopy)
{
	return copy_3d(pCopy, NULL, false, true);
}

BF_EXPORT CUresult cuMemcpy3DAsync_v2(const CUDA_MEMCPY3D *pCopy, CUstream hStream)
{
	return copy_3d(pCopy, hStream, true, false);
}

BF_EXPORT CUresult cuMemcpy3DAsync_v2_ptsz(const CUDA_MEMCPY3D *pCopy, CUstream hStream)
{
	return copy_3d(pCopy, hStream, true, true);
}
