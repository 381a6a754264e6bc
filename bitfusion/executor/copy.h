/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files that copy between client and device share.
 */
#ifndef BITFUSION_EXECUTOR_COPY_H
#define BITFUSION_EXECUTOR_COPY_H

#include "core.h"

struct transfer {
	CUDA_MEMCPY3D_v2 shape; /* the part that is not linear memory of the client */
	bool linear;
	uint64_t device; /* linear: the device address */
	uint64_t width, height, depth, total;
	CUstream stream;
	const uint64_t *known; /* by a client that has some of it (refresh.c): digests of what it has; else NULL */
};

struct piece {
	uint64_t x, y, z, width, height, depth;
	uint64_t offset, size;
};

/* The client's numbers of arrays become the driver's; CUDA_ERROR_INVALID_VALUE where memory is of no settled kind. */
CUresult bf_translate_shape(struct bf_session *session, CUDA_MEMCPY3D_v2 *shape);
/* Fills in the total; false when it is more than a copy may be. */
bool bf_shape_size(struct transfer *transfer);
/* The piece that starts where the last one ended, as large as fits one staging buffer. */
void bf_next_piece(const struct transfer *transfer, struct piece *piece);
void bf_piece_advance(const struct transfer *transfer, struct piece *piece);
CUresult bf_copy_piece(struct bf_session *session, const struct transfer *transfer, const struct piece *piece,
		       void *host, bool to_host);
/* Where the bytes are, if they are in this process and no earlier work may still use them; else NULL. */
uint8_t *bf_look_through(struct bf_session *session, const struct transfer *transfer, bool wait_briefly);
/* The bytes are asked for piece by piece, each when the stream is there. */
CUresult bf_upload_late(struct bf_session *session, const struct bf_command *command, const struct transfer *transfer,
			uint32_t source);
void bf_start_download(struct bf_session *session, const struct bf_command *command, const struct transfer *transfer,
		       bool async);

/* With the client's memory on one side. */
CUresult bf_may_copy(struct bf_session *session, uint64_t number, CUstream *stream);
/* Sends what differs from the known; bit i of the answer: piece i does. */
uint64_t bf_refresh_send(struct bf_session *session, uint32_t request, const uint64_t *known, const uint8_t *bytes,
			 size_t size);

#endif
