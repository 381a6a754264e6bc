/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies of boxes. A side on the host is packed or unpacked here, so that only the bytes of the box travel.
 */
#define _GNU_SOURCE
#include "box.h"
#include "graph.h"
#include "late.h"
#include "shared.h"

#include <stdlib.h>
#include <string.h>

struct message {
	struct bf_copy3d copy;
	CUDA_MEMCPY3D shape;
};

static uint8_t *begin(const struct bf_box *box, const struct bf_copy3d *copy, unsigned flags)
{
	struct message message = { .copy = *copy };
	uint8_t *command =
		bf_queue_begin(BF_OP_COPY3D, sizeof(struct bf_command) + sizeof message, flags, bf_self.current);

	if (!command)
		return NULL;
	bf_box_describe(box, &message.shape);
	memcpy(command + sizeof(struct bf_command), &message, sizeof message);
	return command;
}

static CUresult send_late(const struct bf_box *box, CUstream stream)
{
	const struct bf_side *from = &box->from;
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

static CUresult send_now(const struct bf_box *box, CUstream stream, bool async)
{
	struct bf_copy3d copy = { bf_box_bytes(box), BF_ARG(stream), async, 0 };
	bool flat = bf_side_is_flat(box, &box->from);
	uint8_t *packed = flat ? box->from.at : malloc(copy.bulk_size);
	CUresult status = CUDA_SUCCESS;

	if (!packed)
		return CUDA_ERROR_OUT_OF_MEMORY;
	if (!flat) {
		struct bf_side target = bf_side_packed(box, packed);

		bf_box_copy_rows(box, &target, &box->from);
	}
	if (begin(box, &copy, BF_HAS_BULK))
		bf_queue_end_with_bulk(packed, copy.bulk_size, BF_LATER);
	else
		status = CUDA_ERROR_DEVICE_UNAVAILABLE;
	if (!flat)
		free(packed);
	return status;
}

static CUresult send_box(const struct bf_box *box, CUstream stream, bool async)
{
	CUresult status = CUDA_SUCCESS;
	bool late = false;

	if (!async)
		status = bf_host_settle_before(box->from.at, bf_side_span(box, &box->from), stream);
	else if (bf_host_is_pinned(box->from.at)) /* else the bytes are those of now */
		status = bf_late_needed(box->from.at, bf_side_span(box, &box->from), stream, &late);
	if (status)
		return status;
	return late ? send_late(box, stream) : send_now(box, stream, async);
}

/* A box that comes in packed and is spread over the program's memory when it is whole. */
struct incoming {
	struct bf_wait wait; /* first: it is freed as this struct */
	struct bf_box box;
	uint8_t *packed; /* NULL: straight into the program's memory */
};

static void spread(struct bf_wait *wait)
{
	struct incoming *incoming = (struct incoming *)wait;
	struct bf_side source;

	if (!incoming->packed)
		return;
	source = bf_side_packed(&incoming->box, incoming->packed);
	if (!wait->status)
		bf_box_copy_rows(&incoming->box, &incoming->box.to, &source);
	free(incoming->packed);
	incoming->packed = NULL;
}

static CUresult prepare_incoming(struct incoming *incoming, const struct bf_box *box)
{
	uint64_t size = bf_box_bytes(box);

	incoming->box = *box;
	incoming->wait.data = box->to.at;
	incoming->wait.data_size = size;
	if (bf_side_is_flat(box, &box->to))
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

static CUresult receive_box(const struct bf_box *box, CUstream stream, bool async)
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

static CUresult start_receiving_box(const struct bf_box *box, CUstream stream)
{
	struct incoming *incoming = calloc(1, sizeof *incoming);
	CUresult status;

	if (!incoming)
		return CUDA_ERROR_OUT_OF_MEMORY;
	status = prepare_incoming(incoming, box);
	incoming->wait.finish = spread;
	incoming->wait.stream = BF_ARG(stream);
	incoming->wait.host = box->to.at;
	incoming->wait.host_end = box->to.at + bf_side_span(box, &box->to);
	if (!status)
		status = ask_for_box(incoming, stream, true, BF_LATER);
	if (status)
		free(incoming);
	return status ? status : bf_shared_copying(box->to.at, bf_side_span(box, &box->to));
}

static CUresult copy_on_host(const struct bf_box *box, CUstream stream, bool async)
{
	CUresult status = CUDA_SUCCESS;

	if (async)
		status = bf_stream_wait(stream);
	else if (bf_shared_in_use())
		status = bf_shared_finish(stream);
	if (!status)
		status = bf_host_settle(box->from.at, bf_side_span(box, &box->from));
	if (!status)
		status = bf_host_settle(box->to.at, bf_side_span(box, &box->to));
	if (!status)
		bf_box_copy_rows(box, &box->to, &box->from);
	return status;
}

/* Memory that has a twin is device memory too. Is it such? */
static bool settle_shared(const struct bf_box *box, struct bf_side *side)
{
	CUdeviceptr device;

	if (side->type == CU_MEMORYTYPE_HOST && side->at &&
	    bf_shared_find(side->at, bf_side_span(box, side), &device)) {
		side->type = CU_MEMORYTYPE_DEVICE;
		side->at = (uint8_t *)(uintptr_t)device;
	}
	return side->type == CU_MEMORYTYPE_DEVICE && bf_shared_find(side->at, 1, &device);
}

static CUresult send_or_receive(const struct bf_box *box, CUstream stream, bool async)
{
	bool from_host, to_host;
	uint64_t capture = 0;
	CUresult status;

	from_host = box->from.type == CU_MEMORYTYPE_HOST;
	to_host = box->to.type == CU_MEMORYTYPE_HOST;
	status = async && (from_host || to_host) ? bf_capture_find(stream, &capture) : CUDA_SUCCESS;
	if (status || capture)
		return status ? status : bf_capture_refuse(capture, "a copy of rows of host memory");
	bf_stream_admit(stream, from_host || to_host ? bf_box_bytes(box) : 0);
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

static CUresult copy_shared(struct bf_box *box, CUstream stream, bool async)
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

static CUresult copy_box(struct bf_box *box, CUstream stream, bool async)
{
	CUresult status;
	bool across;

	if (!box->width || !box->height || !box->depth)
		return CUDA_SUCCESS;
	status = bf_box_check(box);
	if (status)
		return status;
	status = bf_across_begin_box(box, async, &across);
	if (!status)
		status = bf_shared_in_use() ? copy_shared(box, stream, async) : send_or_receive(box, stream, async);
	return bf_across_end(across, status, stream);
}

/* ------------------------------------------------------------------ entry points */

static CUresult copy_3d(const CUDA_MEMCPY3D *copy, CUstream stream, bool async, bool per_thread)
{
	CUresult status = bf_stream_enter(&stream, per_thread);
	struct bf_box box;

	if (status)
		return status;
	if (!copy)
		return CUDA_ERROR_INVALID_VALUE;
	status = async ? CUDA_SUCCESS : bf_capture_permit();
	if (status)
		return status;
	box = bf_box_of(copy);
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
