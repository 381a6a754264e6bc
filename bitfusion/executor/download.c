/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies to the client. One that has to wait is put on the list of pending ones, and whoever notices its end
 * sends it.
 */
#include "copy.h"

#include <stdlib.h>
#include <string.h>

/* A synchronous copy of more than this is pumped through a few buffers; an asynchronous one must have its
 * source read in the stream's order, so it takes as many as it needs, up to a size that is pumped too. */
#define PUMP_SYNC ((uint64_t)8 << 20)
#define PUMP_ASYNC ((uint64_t)256 << 20)
enum { PUMP_DEPTH = 6 };

struct held {
	struct bf_slot *slot;
	uint64_t offset, size;
};

struct bf_pending {
	struct bf_pending *next;
	struct bf_marker *marker; /* completed: all of it has arrived in the buffers */
	uint32_t request, context;
	CUresult status; /* of enqueueing it */
	uint64_t *known; /* digests, behind what is held; or NULL */
	unsigned count;
	struct held held[];
};

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

static void reply(struct bf_session *session, uint32_t request, const uint64_t *known, CUresult status,
		  uint64_t differing)
{
	bf_reply(session, request, status, known ? &differing : NULL, known ? sizeof(differing) : 0);
}

static void finish_pending(struct bf_session *session, struct bf_pending *pending, CUresult status)
{
	uint64_t differing = 0;
	for (unsigned i = 0; i < pending->count; i++) {
		struct held *held = &pending->held[i];
		if (status == CUDA_SUCCESS && !pending->known) {
			send_held(session, pending->request, held);
			continue;
		}
		if (status == CUDA_SUCCESS) /* it is the only one */
			differing = bf_refresh_send(session, pending->request, pending->known, held->slot->data,
						    held->size);
		bf_staging_give(session, held->slot);
	}
	if (pending->marker)
		bf_marker_give(session, pending->marker);
	reply(session, pending->request, pending->known, status, differing);
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
		bf_output_drain(session, false); /* what kernels before the copy printed comes before it */
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
		bf_next_piece(transfer, &piece);
		struct bf_slot *slot = bf_staging_take(session, piece.size);
		if (!slot)
			return CUDA_ERROR_OUT_OF_MEMORY;
		CUresult status = bf_copy_piece(session, transfer, &piece, slot->data, true);
		if (status != CUDA_SUCCESS) {
			bf_staging_give(session, slot);
			return status;
		}
		pending->held[pending->count++] = (struct held){ slot, piece.offset, piece.size };
		bf_piece_advance(transfer, &piece);
	}
	return CUDA_SUCCESS;
}

static unsigned count_pieces(const struct transfer *transfer)
{
	struct piece piece = { 0 };
	unsigned count = 0;
	for (; piece.offset < transfer->total; count++) {
		bf_next_piece(transfer, &piece);
		bf_piece_advance(transfer, &piece);
	}
	return count;
}

static CUresult mark(struct bf_session *session, struct bf_pending *pending, CUstream stream)
{
	CUresult status;
	pending->marker = bf_marker_take(session, &status);
	return pending->marker ? session->driver->cuEventRecord(pending->marker->event, stream) : status;
}

static bool complete_soon(struct bf_session *session, CUstream stream, CUresult *status)
{
	CUresult arrived = bf_wait_briefly(session, stream);
	if (arrived == CUDA_ERROR_NOT_READY)
		return false;
	*status = arrived;
	return true;
}

static void download(struct bf_session *session, const struct bf_command *command, const struct transfer *transfer,
		     bool async)
{
	while (bf_staging_full(session) && !bf_host_function_pending(session) && !atomic_load(&session->over))
		bf_staging_relieve(session);
	size_t bytes = sizeof(struct bf_pending) + count_pieces(transfer) * sizeof(struct held);
	size_t digests = transfer->known ? BF_REFRESH_PIECES(transfer->total) * sizeof(uint64_t) : 0;
	struct bf_pending *pending = calloc(1, bytes + digests);
	if (!pending) {
		bf_done(session, command, CUDA_ERROR_OUT_OF_MEMORY, NULL, 0);
		return;
	}
	if (digests)
		pending->known = memcpy((uint8_t *)pending + bytes, transfer->known, digests);
	pending->request = command->request;
	pending->context = command->context;
	pending->status = enqueue_download(session, transfer, pending);
	if (!pending->count ||
	    (!async && pending->status == CUDA_SUCCESS && complete_soon(session, transfer->stream, &pending->status))) {
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
	bf_next_piece(transfer, piece);
	struct bf_slot *slot = bf_staging_take(session, piece->size);
	if (!slot)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*held = (struct held){ slot, piece->offset, piece->size };
	CUresult status = bf_copy_piece(session, transfer, piece, slot->data, true);
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
	bf_piece_advance(transfer, piece);
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

void bf_start_download(struct bf_session *session, const struct bf_command *command, const struct transfer *transfer,
		       bool async)
{
	/* on this thread, so that no later command can change what is being sent; the client waits, so it reads */
	uint8_t *place = async ? NULL : bf_look_through(session, transfer, true);
	if (place) {
		uint64_t differing = 0;
		bf_settle(session);
		if (transfer->known)
			differing = bf_refresh_send(session, command->request, transfer->known, place, transfer->total);
		else
			bf_send_data(session, command->request, 0, place, transfer->total);
		reply(session, command->request, transfer->known, CUDA_SUCCESS, differing);
		return;
	}
	if (transfer->total <= (async ? PUMP_ASYNC : PUMP_SYNC) || bf_host_function_pending(session)) {
		download(session, command, transfer, async);
		return;
	}
	if (!async) {
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

void bf_copy_init(struct bf_session *session)
{
	pthread_mutex_init(&session->pending_lock, NULL);
	pthread_cond_init(&session->pending_work, NULL);
	session->pending_tail = &session->pending;
}
