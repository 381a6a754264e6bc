/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies to the device whose source must not be read before the stream gets there: a function in the stream asks
 * the client for the bytes, and the copy behind it takes them from our buffer.
 */
#include "copy.h"

#include <stdlib.h>

struct fetch {
	struct bf_session *session;
	struct bf_fetch asked;
	uint32_t context;
	uint8_t *to;
};

static void fetch_now(void *data)
{
	struct fetch *fetch = data;
	struct bf_session *session = fetch->session;
	if (!bf_ask(session, fetch->context, BF_FETCH, &fetch->asked, sizeof(fetch->asked), fetch->to,
		    fetch->asked.size))
		bf_defer(session, BF_OP_HTOD, CUDA_ERROR_UNKNOWN); /* what is copied now is nobody's */
	atomic_fetch_sub(&session->host_functions, 1);
	free(fetch);
}

static CUresult enqueue_fetch(struct bf_session *session, const struct fetch *wanted, CUstream stream)
{
	struct fetch *fetch = malloc(sizeof(*fetch));
	if (!fetch)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*fetch = *wanted;
	atomic_fetch_add(&session->host_functions, 1);
	CUresult status = session->driver->cuLaunchHostFunc
				  ? session->driver->cuLaunchHostFunc(stream, fetch_now, fetch)
				  : CUDA_ERROR_NOT_SUPPORTED;
	if (status != CUDA_SUCCESS) {
		atomic_fetch_sub(&session->host_functions, 1);
		free(fetch);
	}
	return status;
}

/* One buffer for all pieces: the stream itself keeps each from being fetched before the last has been copied. */
static CUresult enqueue_pieces(struct bf_session *session, const struct transfer *transfer, struct fetch *fetch,
			       bool *begun)
{
	struct piece piece = { 0 };
	CUresult status = CUDA_SUCCESS;
	while (piece.offset < transfer->total && status == CUDA_SUCCESS) {
		bf_next_piece(transfer, &piece);
		fetch->asked.offset = piece.offset;
		fetch->asked.size = piece.size;
		fetch->asked.last = piece.offset + piece.size == transfer->total;
		status = enqueue_fetch(session, fetch, transfer->stream);
		*begun |= status == CUDA_SUCCESS;
		if (status == CUDA_SUCCESS)
			status = bf_copy_piece(session, transfer, &piece, fetch->to, false);
		bf_piece_advance(transfer, &piece);
	}
	return status;
}

CUresult bf_upload_late(struct bf_session *session, const struct bf_command *command, const struct transfer *transfer,
			uint32_t source)
{
	bool begun = false;
	bf_ahead_start(session);
	/* the driver would read memory that it has not pinned at once */
	struct bf_slot *slot = bf_staging_take_pinned(session, transfer->total);
	if (!slot)
		return CUDA_ERROR_OUT_OF_MEMORY;
	struct fetch fetch = {
		.session = session,
		.asked.source = source,
		.context = command->context,
		.to = slot->data,
	};
	CUresult status = enqueue_pieces(session, transfer, &fetch, &begun);
	if (begun)
		bf_staging_retire(session, slot, transfer->stream);
	else
		bf_staging_give(session, slot);
	return status;
}
