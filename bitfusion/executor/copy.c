/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies between the client and the device, in pieces that fit a staging buffer. A copy to the client that
 * has to wait is put on the list of pending ones, and whoever notices its end sends it.
 */
#include "core.h"
#include "hostview.h"

#include <stdlib.h>
#include <string.h>

/* A synchronous copy of more than this is pumped through a few buffers; an asynchronous one must have its
 * source read in the stream's order, so it takes as many as it needs, up to a size that is pumped too. */
#define PUMP_SYNC ((uint64_t)8 << 20)
#define PUMP_ASYNC ((uint64_t)256 << 20)
enum { PUMP_DEPTH = 6 };

struct transfer {
	CUDA_MEMCPY3D_v2 shape; /* the part that is not linear memory of the client */
	bool linear;
	uint64_t device; /* linear: the device address */
	uint64_t width, height, depth, total;
	CUstream stream;
};

struct piece {
	uint64_t x, y, z, width, height, depth;
	uint64_t offset, size;
};

struct held {
	struct bf_slot *slot;
	uint64_t offset, size;
};

struct bf_pending {
	struct bf_pending *next;
	struct bf_marker *marker; /* completed: all of it has arrived in the buffers */
	uint32_t request, context;
	CUresult status; /* of enqueueing it */
	unsigned count;
	struct held held[];
};

/* ------------------------------------------------------------------ shapes */

static bool shape_size(struct transfer *transfer)
{
	uint64_t area;
	return !__builtin_mul_overflow(transfer->width, transfer->height, &area) &&
	       !__builtin_mul_overflow(area, transfer->depth, &transfer->total) && transfer->total <= BF_MAX_COPY;
}

/* The piece that starts where the last one ended, as large as fits one staging buffer. */
static void next_piece(const struct transfer *transfer, struct piece *piece)
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

static void advance(const struct transfer *transfer, struct piece *piece)
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

static CUresult copy_piece(struct bf_session *session, const struct transfer *transfer, const struct piece *piece,
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

/* Where the bytes are, if they are in this process and no earlier work may still use them; else NULL. */
static uint8_t *look_through(struct bf_session *session, const struct transfer *transfer, bool wait_briefly)
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
	uint8_t *place = look_through(session, transfer, false);
	if (place) {
		*left = 0;
		return bf_input_take(session, place, transfer->total) ? CUDA_SUCCESS : client_gone(session);
	}
	for (*left = transfer->total; *left && status == CUDA_SUCCESS; advance(transfer, &piece)) {
		next_piece(transfer, &piece);
		struct bf_slot *slot = bf_staging_take_busy(session, piece.size);
		if (!slot)
			return CUDA_ERROR_OUT_OF_MEMORY;
		*left -= piece.size;
		if (!bf_input_take(session, slot->data, piece.size)) {
			bf_staging_give(session, slot);
			return client_gone(session);
		}
		status = copy_piece(session, transfer, &piece, slot->data, false);
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
	return bf_stream_ready(session, number, value);
}

/* With the client's memory on one side. */
static CUresult may_copy(struct bf_session *session, uint64_t number, CUstream *stream)
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
	if (copy.bulk_size != copy.size || copy.size > BF_MAX_COPY) {
		bf_violation(session, "bad size of a copy to the device");
		return;
	}
	struct transfer transfer = {
		.linear = true, .device = copy.device, .width = copy.size, .height = 1, .depth = 1, .total = copy.size
	};
	uint64_t left = copy.size;
	CUresult status = session->context_status;
	if (status == CUDA_SUCCESS)
		status = may_copy(session, copy.stream, &transfer.stream);
	if (status == CUDA_SUCCESS && copy.size)
		status = copy.size <= BF_STAGING_SMALL ? upload_small(session, &transfer, &left)
						       : upload(session, &transfer, &left);
	finish_upload(session, &command, &transfer, status, left, copy.async);
}

/* ------------------------------------------------------------------ to the client */

static void send_held(struct bf_session *session, uint32_t request, struct held *held)
{
	struct bf_data data = { held->offset, held->size };
	struct bf_reply reply = {
		.size = sizeof(reply) + sizeof(data),
		.kind = BF_DATA,
		.request = request,
	};
	struct bf_slot *slot = held->slot;
	held->slot = NULL;
	bf_send(session, &reply, &data, sizeof(data), slot->data, held->size, slot);
}

static void finish_pending(struct bf_session *session, struct bf_pending *pending, CUresult status)
{
	for (unsigned i = 0; i < pending->count; i++) {
		if (status == CUDA_SUCCESS)
			send_held(session, pending->request, &pending->held[i]);
		else
			bf_staging_give(session, pending->held[i].slot);
	}
	if (pending->marker)
		bf_marker_give(session, pending->marker);
	bf_reply(session, pending->request, status, NULL, 0);
	free(pending);
}

void bf_copy_deliver(struct bf_session *session)
{
	pthread_mutex_lock(&session->pending_lock);
	for (struct bf_pending **link = &session->pending, *pending; (pending = *link);) {
		CUresult status = session->driver->cuEventQuery(pending->marker->event);
		if (status == CUDA_ERROR_NOT_READY) {
			link = &pending->next;
			continue;
		}
		*link = pending->next;
		if (!*link)
			session->pending_tail = link;
		finish_pending(session, pending, pending->status ? pending->status : status);
		/* not sooner: who sees none pending may reply at once */
		atomic_fetch_sub(&session->pending_count, 1);
	}
	pthread_mutex_unlock(&session->pending_lock);
}

/* Waits for the oldest copy, so that copies arrive also when the program never waits. */
static void *copier(void *argument)
{
	struct bf_session *session = argument;
	pthread_mutex_lock(&session->pending_lock);
	for (;;) {
		while (!session->pending)
			pthread_cond_wait(&session->pending_work, &session->pending_lock);
		CUevent event = session->pending->marker->event;
		uint32_t context = session->pending->context;
		pthread_mutex_unlock(&session->pending_lock);
		/* someone else may deliver it meanwhile and the event be used again: then this wait is merely longer */
		if (bf_context_ensure(session, context) == CUDA_SUCCESS)
			session->driver->cuEventSynchronize(event);
		bf_settle(session);
		pthread_mutex_lock(&session->pending_lock);
	}
	return NULL;
}

struct deliver_job {
	struct bf_job job;
	CUevent event;
};

static void run_deliver(struct bf_session *session, struct bf_job *job)
{
	struct deliver_job *deliver = (struct deliver_job *)job;
	if (bf_context_ensure(session, job->context) == CUDA_SUCCESS)
		session->driver->cuEventSynchronize(deliver->event);
	bf_output_drain(session, false);
	bf_copy_deliver(session);
	free(deliver);
}

/* A thread that waits for its own copy must not wait for the oldest one of another stream. */
static void watch_pending(struct bf_session *session, struct bf_pending *pending, bool async)
{
	struct deliver_job *deliver = async ? NULL : calloc(1, sizeof(*deliver));
	if (deliver) {
		deliver->job.run = run_deliver;
		deliver->job.context = pending->context;
		deliver->event = pending->marker->event;
	}
	pthread_mutex_lock(&session->pending_lock);
	pending->next = NULL;
	*session->pending_tail = pending;
	session->pending_tail = &pending->next;
	atomic_fetch_add(&session->pending_count, 1);
	pthread_t thread;
	if (!session->copier_started && pthread_create(&thread, NULL, copier, session) == 0) {
		pthread_detach(thread);
		session->copier_started = true;
	}
	pthread_cond_signal(&session->pending_work);
	pthread_mutex_unlock(&session->pending_lock);
	if (deliver && !bf_submit(session, &deliver->job))
		free(deliver);
}

/* Enqueues all pieces. Those before one that fails may be on their way into our buffers. */
static CUresult enqueue_download(struct bf_session *session, const struct transfer *transfer,
				 struct bf_pending *pending)
{
	struct piece piece = { 0 };
	while (piece.offset < transfer->total) {
		next_piece(transfer, &piece);
		struct bf_slot *slot = bf_staging_take(session, piece.size);
		if (!slot)
			return CUDA_ERROR_OUT_OF_MEMORY;
		CUresult status = copy_piece(session, transfer, &piece, slot->data, true);
		if (status != CUDA_SUCCESS) {
			bf_staging_give(session, slot);
			return status;
		}
		pending->held[pending->count++] = (struct held){ slot, piece.offset, piece.size };
		advance(transfer, &piece);
	}
	return CUDA_SUCCESS;
}

static unsigned count_pieces(const struct transfer *transfer)
{
	struct piece piece = { 0 };
	unsigned count = 0;
	for (; piece.offset < transfer->total; count++) {
		next_piece(transfer, &piece);
		advance(transfer, &piece);
	}
	return count;
}

static CUresult mark(struct bf_session *session, struct bf_pending *pending, CUstream stream)
{
	CUresult status;
	pending->marker = bf_marker_take(session, &status);
	return pending->marker ? session->driver->cuEventRecord(pending->marker->event, stream) : status;
}

/* True when the copy is complete, or waiting for it here is allowed and has been done. */
static bool complete_now(struct bf_session *session, const struct bf_command *command, CUstream stream,
			 CUresult *status)
{
	CUresult arrived = bf_wait_briefly(session, stream);
	if (arrived == CUDA_ERROR_NOT_READY && bf_may_block(session, command))
		arrived = session->driver->cuStreamSynchronize(stream);
	if (arrived == CUDA_ERROR_NOT_READY)
		return false;
	*status = arrived;
	return true;
}

static void download(struct bf_session *session, const struct bf_command *command, const struct transfer *transfer,
		     bool async)
{
	while (bf_staging_full(session) && !atomic_load(&session->over))
		bf_staging_relieve(session);
	size_t bytes = sizeof(struct bf_pending) + count_pieces(transfer) * sizeof(struct held);
	struct bf_pending *pending = calloc(1, bytes);
	if (!pending) {
		bf_done(session, command, CUDA_ERROR_OUT_OF_MEMORY, NULL, 0);
		return;
	}
	pending->request = command->request;
	pending->context = command->context;
	pending->status = enqueue_download(session, transfer, pending);
	if (!pending->count || (!async && pending->status == CUDA_SUCCESS &&
				complete_now(session, command, transfer->stream, &pending->status))) {
		bf_settle(session);
		finish_pending(session, pending, pending->status);
		return;
	}
	CUresult status = mark(session, pending, transfer->stream);
	if (status == CUDA_SUCCESS) {
		watch_pending(session, pending, async);
		return;
	}
	/* nothing tells when the driver is done with the buffers, so nobody else may have them: they are lost */
	pending->count = 0;
	finish_pending(session, pending, status);
}

/* ------------------------------------------------------------------ pumping what is too large for that */

struct pump_job {
	struct bf_job job;
	struct transfer transfer;
};

/* A client that waits for the copy reads, so its bytes need not be queued: few buffers, still in the cache. */
static void send_pumped(struct bf_session *session, uint32_t request, struct held *held, bool client_waits)
{
	if (!client_waits) {
		bf_outbox_throttle(session);
		send_held(session, request, held);
		return;
	}
	bf_send_data(session, request, held->offset, held->slot->data, held->size);
	bf_staging_give(session, held->slot);
}

static CUresult await_held(struct bf_session *session, uint32_t request, struct held *held, bool client_waits)
{
	struct bf_marker *marker = held->slot->marker;
	CUresult status = session->driver->cuEventSynchronize(marker->event);
	held->slot->marker = NULL;
	bf_marker_give(session, marker);
	if (status == CUDA_SUCCESS)
		send_pumped(session, request, held, client_waits);
	else
		bf_staging_give(session, held->slot);
	return status;
}

static CUresult start_held(struct bf_session *session, const struct transfer *transfer, struct piece *piece,
			   struct held *held)
{
	next_piece(transfer, piece);
	struct bf_slot *slot = bf_staging_take(session, piece->size);
	if (!slot)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*held = (struct held){ slot, piece->offset, piece->size };
	CUresult status = copy_piece(session, transfer, piece, slot->data, true);
	slot->marker = status == CUDA_SUCCESS ? bf_marker_take(session, &status) : NULL;
	if (slot->marker)
		status = session->driver->cuEventRecord(slot->marker->event, transfer->stream);
	if (status != CUDA_SUCCESS) {
		session->driver->cuStreamSynchronize(transfer->stream);
		if (slot->marker)
			bf_marker_give(session, slot->marker);
		slot->marker = NULL;
		bf_staging_give(session, slot);
	}
	advance(transfer, piece);
	return status;
}

static void pump(struct bf_session *session, uint32_t request, const struct transfer *transfer, bool client_waits)
{
	struct held ring[PUMP_DEPTH];
	struct piece piece = { 0 };
	unsigned first = 0, count = 0;
	CUresult status = CUDA_SUCCESS;
	while (count || (status == CUDA_SUCCESS && piece.offset < transfer->total)) {
		bool more = status == CUDA_SUCCESS && piece.offset < transfer->total;
		if (more && count < PUMP_DEPTH) {
			status = start_held(session, transfer, &piece, &ring[(first + count) % PUMP_DEPTH]);
			count += status == CUDA_SUCCESS;
			continue;
		}
		CUresult arrived = await_held(session, request, &ring[first], client_waits);
		status = status == CUDA_SUCCESS ? arrived : status;
		first = (first + 1) % PUMP_DEPTH;
		count--;
	}
	bf_settle(session);
	bf_reply(session, request, status, NULL, 0);
}

static void run_pump(struct bf_session *session, struct bf_job *job)
{
	struct pump_job *work = (struct pump_job *)job;
	CUresult status = bf_context_ensure(session, job->context);
	if (status == CUDA_SUCCESS)
		pump(session, job->request, &work->transfer, true);
	else
		bf_reply(session, job->request, status, NULL, 0);
	free(work);
}

static void start_download(struct bf_session *session, const struct bf_command *command,
			   const struct transfer *transfer, bool async)
{
	/* on this thread, so that no later command can change what is being sent; the client waits, so it reads */
	uint8_t *place = async ? NULL : look_through(session, transfer, true);
	if (place) {
		bf_settle(session);
		bf_send_data(session, command->request, 0, place, transfer->total);
		bf_reply(session, command->request, CUDA_SUCCESS, NULL, 0);
		return;
	}
	if (transfer->total <= (async ? PUMP_ASYNC : PUMP_SYNC)) {
		download(session, command, transfer, async);
		return;
	}
	if (!async && !bf_may_block(session, command)) {
		struct pump_job *work = calloc(1, sizeof(*work));
		if (work) {
			work->job.run = run_pump;
			work->job.request = command->request;
			work->job.context = command->context;
			work->transfer = *transfer;
			if (bf_submit(session, &work->job))
				return;
			free(work);
		}
	}
	pump(session, command->request, transfer, !async);
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
		status = may_copy(session, copy->stream, &transfer.stream);
	if (status == CUDA_SUCCESS)
		start_download(session, command, &transfer, copy->async);
	else
		bf_done(session, command, status, NULL, 0);
}

/* ------------------------------------------------------------------ two and three dimensions */

static CUresult translate_shape(struct bf_session *session, CUDA_MEMCPY3D_v2 *shape)
{
	uint64_t value;
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
	if (!shape_size(&transfer) || (from_host && to_host) || copy.bulk_size != (from_host ? transfer.total : 0) ||
	    (to_host && !(command.flags & BF_WANTS_REPLY))) {
		bf_violation(session, "bad copy of two or three dimensions");
		return;
	}
	uint64_t left = from_host ? transfer.total : 0;
	CUresult status = session->context_status;
	if (status == CUDA_SUCCESS)
		status = (from_host || to_host ? may_copy : find_stream)(session, copy.stream, &transfer.stream);
	if (status == CUDA_SUCCESS)
		status = translate_shape(session, &transfer.shape);
	if (status == CUDA_SUCCESS && to_host) {
		start_download(session, &command, &transfer, copy.async);
		return;
	}
	if (status == CUDA_SUCCESS && from_host)
		status = upload(session, &transfer, &left);
	else if (status == CUDA_SUCCESS)
		status = session->driver->cuMemcpy3DAsync_v2(&transfer.shape, transfer.stream);
	finish_upload(session, &command, &transfer, status, left, copy.async || !from_host);
}

void bf_copy_init(struct bf_session *session)
{
	pthread_mutex_init(&session->pending_lock, NULL);
	pthread_cond_init(&session->pending_work, NULL);
	session->pending_tail = &session->pending;
}
