/* SPDX-License-Identifier: Apache-2.0
 *
 * How a copy is cut into pieces that fit a staging buffer, and when none are needed.
 */
#include "copy.h"
#include "hostview.h"

bool bf_shape_size(struct transfer *transfer)
{
	uint64_t area;
	return !__builtin_mul_overflow(transfer->width, transfer->height, &area) &&
	       !__builtin_mul_overflow(area, transfer->depth, &transfer->total) && transfer->total <= BF_MAX_COPY;
}

void bf_next_piece(const struct transfer *transfer, struct piece *piece)
{
	uint64_t left_x = transfer->width - piece->x, rows, layers;
	piece->width = left_x < BF_STAGING_CHUNK ? left_x : BF_STAGING_CHUNK;
	piece->height = piece->depth = 1;
	if (piece->x == 0 && piece->width == transfer->width) {
		rows = BF_STAGING_CHUNK / transfer->width;
		piece->height = rows < transfer->height - piece->y ? rows : transfer->height - piece->y;
		if (piece->y == 0 && piece->height == transfer->height) {
			layers = rows / transfer->height;
			piece->depth = layers < transfer->depth - piece->z ? layers : transfer->depth - piece->z;
		}
	}
	piece->size = piece->width * piece->height * piece->depth;
}

void bf_piece_advance(const struct transfer *transfer, struct piece *piece)
{
	piece->offset += piece->size;
	piece->x += piece->width;
	if (piece->x < transfer->width)
		return;
	piece->x = 0;
	piece->y += piece->height;
	if (piece->y < transfer->height)
		return;
	piece->y = 0;
	piece->z += piece->depth;
}

static CUDA_MEMCPY3D_v2 piece_shape(const struct transfer *transfer, const struct piece *piece, void *host,
				    bool to_host)
{
	CUDA_MEMCPY3D_v2 shape = transfer->shape;
	shape.WidthInBytes = piece->width;
	shape.Height = piece->height;
	shape.Depth = piece->depth;
	if (to_host) {
		shape.srcXInBytes += piece->x;
		shape.srcY += piece->y;
		shape.srcZ += piece->z;
		shape.dstXInBytes = shape.dstY = shape.dstZ = 0;
		shape.dstHost = host;
		shape.dstPitch = piece->width;
		shape.dstHeight = piece->height;
	} else {
		shape.dstXInBytes += piece->x;
		shape.dstY += piece->y;
		shape.dstZ += piece->z;
		shape.srcXInBytes = shape.srcY = shape.srcZ = 0;
		shape.srcHost = host;
		shape.srcPitch = piece->width;
		shape.srcHeight = piece->height;
	}
	return shape;
}

CUresult bf_copy_piece(struct bf_session *session, const struct transfer *transfer, const struct piece *piece,
		       void *host, bool to_host)
{
	struct bf_driver *driver = session->driver;
	if (!transfer->linear) {
		CUDA_MEMCPY3D_v2 shape = piece_shape(transfer, piece, host, to_host);
		return driver->cuMemcpy3DAsync_v2(&shape, transfer->stream);
	}
	uint64_t device = transfer->device + piece->offset;
	if (to_host)
		return driver->cuMemcpyDtoHAsync_v2(host, device, piece->size, transfer->stream);
	return driver->cuMemcpyHtoDAsync_v2(device, host, piece->size, transfer->stream);
}

/* ------------------------------------------------------------------ device memory that the host can touch */

static bool is_idle(struct bf_session *session, CUstream stream)
{
	/* what the legacy stream has to do comes before what a blocking stream gets now */
	return session->driver->cuStreamQuery(stream) == CUDA_SUCCESS &&
	       (!stream || session->driver->cuStreamQuery(CU_STREAM_LEGACY) == CUDA_SUCCESS);
}

uint8_t *bf_look_through(struct bf_session *session, const struct transfer *transfer, bool wait_briefly)
{
	struct bf_host_view view = { 0 };
	if (!transfer->linear || transfer->total <= BF_STAGING_SMALL || !session->driver->cuPointerGetAttribute ||
	    session->driver->cuPointerGetAttribute(&view, BF_POINTER_ATTRIBUTE_HOST_VIEW, transfer->device) !=
		    CUDA_SUCCESS ||
	    view.size < transfer->total)
		return NULL;
	if (wait_briefly)
		bf_wait_briefly(session, transfer->stream);
	return is_idle(session, transfer->stream) ? view.data : NULL;
}
