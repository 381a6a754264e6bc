/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies between the client and the device: the commands, and the way to the device.
 */
#include "copy.h"

#include <string.h>

/* ------------------------------------------------------------------ to the device */

static CUresult client_gone(struct bf_session *session)
{
	session->ended = BF_ENDED_CLIENT_GONE;
	session->stopped = true;
	return BF_VIOLATION;
}

static CUresult upload(struct bf_session *session, const struct transfer *transfer, uint64_t *left)
{
	struct piece piece = { 0 };
	CUresult status = CUDA_SUCCESS;
	uint8_t *place = bf_look_through(session, transfer, false);
	if (place) {
		*left = 0;
		return bf_input_take(session, place, transfer->total) ? CUDA_SUCCESS : client_gone(session);
	}
	for (*left = transfer->total; *left && status == CUDA_SUCCESS; bf_piece_advance(transfer, &piece)) {
		bf_next_piece(transfer, &piece);
		struct bf_slot *slot = bf_staging_take_busy(session, piece.size);
		if (!slot)
			return CUDA_ERROR_OUT_OF_MEMORY;
		*left -= piece.size;
		if (!bf_input_take(session, slot->data, piece.size)) {
			bf_staging_give(session, slot);
			return client_gone(session);
		}
		status = bf_copy_piece(session, transfer, &piece, slot->data, false);
		if (status == CUDA_SUCCESS)
			bf_staging_retire(session, slot, transfer->stream);
		else
			bf_staging_give(session, slot);
	}
	return status;
}

/* A driver captures pageable memory before it returns, so a small copy needs no buffer of its own. */
static CUresult upload_small(struct bf_session *session, const struct transfer *transfer, uint64_t *left)
{
	*left = transfer->total;
	const uint8_t *data = bf_input_peek(session, transfer->total);
	if (!data)
		return CUDA_SUCCESS; /* the client is gone, as the next receive will tell */
	*left = 0;
	CUresult status =
		session->driver->cuMemcpyHtoDAsync_v2(transfer->device, data, transfer->total, transfer->stream);
	bf_input_consume(&session->input, transfer->total);
	return status;
}

static CUresult find_stream(struct bf_session *session, uint64_t number, CUstream *stream)
{
	uint64_t value;
	if (!bf_handle_resolve(&session->handles, BF_STREAM, number, &value))
		return CUDA_ERROR_INVALID_HANDLE;
	*stream = (CUstream)(uintptr_t)value;
	bf_pace_ready(session, value);
	return bf_stream_ready(session, number, value);
}

CUresult bf_may_copy(struct bf_session *session, uint64_t number, CUstream *stream)
{
	CUresult status = find_stream(session, number, stream);
	CUstreamCaptureStatus capturing = CU_STREAM_CAPTURE_STATUS_NONE;
	/* a graph would remember our buffer, which is somebody else's when the graph runs */
	if (status == CUDA_SUCCESS && session->captures &&
	    session->driver->cuStreamIsCapturing(*stream, &capturing) == CUDA_SUCCESS &&
	    capturing != CU_STREAM_CAPTURE_STATUS_NONE)
		return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	return status;
}

/* `command` may no longer lie in the buffer once bulk data has been read: it is a copy. */
static void finish_upload(struct bf_session *session, const struct bf_command *command, const struct transfer *transfer,
			  CUresult status, uint64_t left, bool async)
{
	if (status == BF_VIOLATION)
		return;
	if (left && !bf_input_skip(session, left)) {
		client_gone(session);
		return;
	}
	if (!async && status == CUDA_SUCCESS)
		bf_stream_synced(session, command->context, transfer->stream);
	bf_done(session, command, status, NULL, 0);
}

void bf_op_htod(struct bf_session *session, const struct bf_command *from, const uint8_t *body, size_t size)
{
	struct bf_command command = *from;
	struct bf_copy copy;
	memcpy(&copy, body, sizeof(copy));
	if (copy.bulk_size != (copy.late ? 0 : copy.size) || copy.size > BF_MAX_COPY || (copy.late && !copy.async)) {
		bf_violation(session, "bad size of a copy to the device");
		return;
	}
	struct transfer transfer = {
		.linear = true, .device = copy.device, .width = copy.size, .height = 1, .depth = 1, .total = copy.size
	};
	uint64_t left = copy.bulk_size;
	CUresult status = session->context_status;
	if (status == CUDA_SUCCESS)
		status = bf_may_copy(session, copy.stream, &transfer.stream);
	if (status == CUDA_SUCCESS && copy.late)
		status = bf_upload_late(session, &command, &transfer, copy.late);
	else if (status == CUDA_SUCCESS && copy.size)
		status = copy.size <= BF_STAGING_SMALL ? upload_small(session, &transfer, &left)
						       : upload(session, &transfer, &left);
	finish_upload(session, &command, &transfer, status, left, copy.async);
}

void bf_op_dtoh(struct bf_session *session, const struct bf_command *command, const uint8_t *body, size_t size)
{
	const struct bf_copy *copy = (const struct bf_copy *)body;
	if (copy->size > BF_MAX_COPY || copy->bulk_size || !(command->flags & BF_WANTS_REPLY)) {
		bf_violation(session, "bad copy to the host");
		return;
	}
	struct transfer transfer = { .linear = true,
				     .device = copy->device,
				     .width = copy->size,
				     .height = 1,
				     .depth = 1,
				     .total = copy->size };
	CUresult status = session->context_status;
	if (status == CUDA_SUCCESS)
		status = bf_may_copy(session, copy->stream, &transfer.stream);
	if (status == CUDA_SUCCESS)
		bf_start_download(session, command, &transfer, copy->async);
	else
		bf_done(session, command, status, NULL, 0);
}

/* ------------------------------------------------------------------ two and three dimensions */

static bool is_settled(CUmemorytype type)
{
	return type == CU_MEMORYTYPE_HOST || type == CU_MEMORYTYPE_DEVICE || type == CU_MEMORYTYPE_ARRAY;
}

/* The client settles what is unified: here such an address could be one of this process. */
CUresult bf_translate_shape(struct bf_session *session, CUDA_MEMCPY3D_v2 *shape)
{
	uint64_t value;
	if (!is_settled(shape->srcMemoryType) || !is_settled(shape->dstMemoryType))
		return CUDA_ERROR_INVALID_VALUE;
	if (shape->srcMemoryType == CU_MEMORYTYPE_ARRAY) {
		if (!bf_handle_resolve(&session->handles, BF_ARRAY, (uintptr_t)shape->srcArray, &value) || !value)
			return CUDA_ERROR_INVALID_HANDLE;
		shape->srcArray = (CUarray)(uintptr_t)value;
	}
	if (shape->dstMemoryType == CU_MEMORYTYPE_ARRAY) {
		if (!bf_handle_resolve(&session->handles, BF_ARRAY, (uintptr_t)shape->dstArray, &value) || !value)
			return CUDA_ERROR_INVALID_HANDLE;
		shape->dstArray = (CUarray)(uintptr_t)value;
	}
	return CUDA_SUCCESS;
}

void bf_op_copy3d(struct bf_session *session, const struct bf_command *from, const uint8_t *body, size_t size)
{
	struct bf_command command = *from;
	struct bf_copy3d copy;
	struct transfer transfer = { 0 };
	if (size < sizeof(copy) + sizeof(transfer.shape)) {
		bf_violation(session, "short copy of two or three dimensions");
		return;
	}
	memcpy(&copy, body, sizeof(copy));
	memcpy(&transfer.shape, body + sizeof(copy), sizeof(transfer.shape));
	transfer.width = transfer.shape.WidthInBytes;
	transfer.height = transfer.shape.Height;
	transfer.depth = transfer.shape.Depth;
	bool from_host = transfer.shape.srcMemoryType == CU_MEMORYTYPE_HOST;
	bool to_host = transfer.shape.dstMemoryType == CU_MEMORYTYPE_HOST;
	if (!bf_shape_size(&transfer) || (from_host && to_host) ||
	    copy.bulk_size != (from_host && !copy.late ? transfer.total : 0) ||
	    (copy.late && (!from_host || !copy.async)) || (to_host && !(command.flags & BF_WANTS_REPLY))) {
		bf_violation(session, "bad copy of two or three dimensions");
		return;
	}
	uint64_t left = copy.bulk_size;
	CUresult status = session->context_status;
	if (status == CUDA_SUCCESS)
		status = (from_host || to_host ? bf_may_copy : find_stream)(session, copy.stream, &transfer.stream);
	if (status == CUDA_SUCCESS)
		status = bf_translate_shape(session, &transfer.shape);
	if (status == CUDA_SUCCESS && to_host) {
		bf_start_download(session, &command, &transfer, copy.async);
		return;
	}
	if (status == CUDA_SUCCESS && copy.late)
		status = bf_upload_late(session, &command, &transfer, copy.late);
	else if (status == CUDA_SUCCESS && from_host)
		status = upload(session, &transfer, &left);
	else if (status == CUDA_SUCCESS)
		status = session->driver->cuMemcpy3DAsync_v2(&transfer.shape, transfer.stream);
	finish_upload(session, &command, &transfer, status, left, copy.async || !from_host);
}
