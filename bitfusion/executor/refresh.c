/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies to a client that has most of it already: it says what it has, piece by piece, and gets what differs.
 */
#include "copy.h"
#include "digest.h"

_Static_assert((uint64_t)BF_MAX_REFRESH <= BF_STAGING_CHUNK, "one buffer holds it");

static size_t piece_size(size_t left)
{
	return left < BF_REFRESH_PIECE ? left : BF_REFRESH_PIECE;
}

static void send_part(struct bf_session *session, uint32_t request, uint64_t offset, const uint8_t *bytes, size_t size)
{
	struct bf_data data = { offset, size };
	struct bf_reply reply = { .size = sizeof(reply) + sizeof(data), .kind = BF_DATA, .request = request };
	bf_send(session, &reply, &data, sizeof(data), bytes, size, NULL);
}

uint64_t bf_refresh_send(struct bf_session *session, uint32_t request, const uint64_t *known, const uint8_t *bytes,
			 size_t size)
{
	uint64_t differing = 0;
	size_t first = 0;
	for (size_t at = 0, i = 0; at < size; at += BF_REFRESH_PIECE, i++)
		if (bf_digest(bytes + at, piece_size(size - at)) != known[i])
			differing |= (uint64_t)1 << i;
	for (size_t at = 0, i = 0; at < size; at += BF_REFRESH_PIECE, i++) {
		size_t end = at + piece_size(size - at);
		bool more = end < size && (differing >> (i + 1) & 1);
		if (!(differing >> i & 1))
			first = end;
		else if (!more)
			send_part(session, request, first, bytes + first, end - first);
		if (!more)
			first = end;
	}
	return differing;
}

void bf_op_refresh(struct bf_session *session, const struct bf_command *command, const uint8_t *body, size_t size)
{
	const struct bf_refresh *refresh = (const struct bf_refresh *)body;
	if (!refresh->size || refresh->size > BF_MAX_REFRESH || !(command->flags & BF_WANTS_REPLY) ||
	    size != sizeof(*refresh) + BF_REFRESH_PIECES(refresh->size) * sizeof(uint64_t)) {
		bf_violation(session, "bad refresh");
		return;
	}
	struct transfer transfer = { .linear = true,
				     .device = refresh->device,
				     .width = refresh->size,
				     .height = 1,
				     .depth = 1,
				     .total = refresh->size,
				     .known = (const uint64_t *)(refresh + 1) };
	CUresult status = session->context_status;
	if (status == CUDA_SUCCESS)
		status = bf_may_copy(session, refresh->stream, &transfer.stream);
	if (status == CUDA_SUCCESS)
		bf_start_download(session, command, &transfer, false);
	else
		bf_done(session, command, status, NULL, 0);
}
