/* SPDX-License-Identifier: Apache-2.0
 *
 * Replies leave at once while the socket takes them. What does not fit waits in a queue that a thread
 * empties, so that a client which reads slowly holds up its own reading and nothing else.
 */
#include "core.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>

/* Past the high mark no more commands are read until the queue is below the low one. */
enum { HIGH_MARK = 64 << 20, LOW_MARK = 16 << 20 };

struct bf_item {
	struct bf_item *next;
	size_t head_size, bulk_size, sent;
	const uint8_t *bulk;
	struct bf_slot *slot;
	uint8_t head[];
};

void bf_outbox_init(struct bf_session *session)
{
	struct bf_outbox *outbox = &session->outbox;
	pthread_mutex_init(&outbox->lock, NULL);
	pthread_cond_init(&outbox->work, NULL);
	pthread_cond_init(&outbox->room, NULL);
	outbox->last = &outbox->first;
}

static void give(struct bf_session *session, struct bf_slot *slot)
{
	if (slot)
		bf_staging_give(session, slot);
}

static void discard(struct bf_session *session)
{
	struct bf_outbox *outbox = &session->outbox;
	outbox->broken = true;
	while (outbox->first) {
		struct bf_item *item = outbox->first;
		outbox->first = item->next;
		give(session, item->slot);
		free(item);
	}
	outbox->last = &outbox->first;
	outbox->queued = 0;
	atomic_store(&outbox->over, false);
	pthread_cond_broadcast(&outbox->room);
}

/* Sends one item as far as the socket takes it: 1 done, 0 not yet, -1 broken. Other threads only append. */
static int send_item(struct bf_session *session, struct bf_item *item)
{
	struct iovec parts[2];
	int count = 0;
	if (item->sent < item->head_size)
		parts[count++] = (struct iovec){ item->head + item->sent, item->head_size - item->sent };
	size_t bulk = item->sent > item->head_size ? item->sent - item->head_size : 0;
	if (bulk < item->bulk_size)
		parts[count++] = (struct iovec){ (void *)(item->bulk + bulk), item->bulk_size - bulk };
	ssize_t size = bf_transport_send_some(&session->transport, parts, count);
	if (size < 0)
		return -1;
	item->sent += (size_t)size;
	return item->sent == item->head_size + item->bulk_size;
}

static void drained(struct bf_outbox *outbox, size_t size)
{
	outbox->queued -= size;
	if (outbox->queued < LOW_MARK && atomic_load(&outbox->over)) {
		atomic_store(&outbox->over, false);
		pthread_cond_broadcast(&outbox->room);
	}
}

static void *sender(void *argument)
{
	struct bf_session *session = argument;
	struct bf_outbox *outbox = &session->outbox;
	pthread_mutex_lock(&outbox->lock);
	for (;;) {
		while ((!outbox->first || outbox->taken) && !atomic_load(&session->over))
			pthread_cond_wait(&outbox->work, &outbox->lock);
		if (!outbox->first || outbox->taken)
			break;
		struct bf_item *item = outbox->first;
		size_t before = item->sent;
		pthread_mutex_unlock(&outbox->lock);
		int done = send_item(session, item);
		if (done == 0) {
			struct pollfd poller = { .fd = session->transport.fd, .events = POLLOUT };
			poll(&poller, 1, 1000);
		}
		pthread_mutex_lock(&outbox->lock);
		if (done < 0) {
			discard(session);
			continue;
		}
		drained(outbox, item->sent - before);
		if (!done)
			continue;
		outbox->first = item->next;
		if (!outbox->first) {
			outbox->last = &outbox->first;
			pthread_cond_broadcast(&outbox->room);
		}
		give(session, item->slot);
		free(item);
	}
	pthread_mutex_unlock(&outbox->lock);
	return NULL;
}

static bool start_sender(struct bf_session *session)
{
	struct bf_outbox *outbox = &session->outbox;
	if (!outbox->started)
		outbox->started = pthread_create(&outbox->sender, NULL, sender, session) == 0;
	return outbox->started;
}

/* Copies the small parts and keeps a reference to the bulk. */
static bool enqueue(struct bf_session *session, const struct iovec *parts, size_t sent, struct bf_slot *slot)
{
	struct bf_outbox *outbox = &session->outbox;
	size_t head = parts[0].iov_len + parts[1].iov_len;
	size_t copied = slot ? head : head + parts[2].iov_len;
	struct bf_item *item = malloc(sizeof(*item) + copied);
	if (!item || !start_sender(session)) {
		free(item);
		return false;
	}
	*item = (struct bf_item){ .head_size = copied, .sent = sent, .slot = slot };
	memcpy(item->head, parts[0].iov_base, parts[0].iov_len);
	if (parts[1].iov_len)
		memcpy(item->head + parts[0].iov_len, parts[1].iov_base, parts[1].iov_len);
	if (slot) {
		item->bulk = parts[2].iov_base;
		item->bulk_size = parts[2].iov_len;
	} else if (parts[2].iov_len) {
		memcpy(item->head + head, parts[2].iov_base, parts[2].iov_len);
	}
	*outbox->last = item;
	outbox->last = &item->next;
	outbox->queued += item->head_size + item->bulk_size - sent;
	if (outbox->queued > HIGH_MARK)
		atomic_store(&outbox->over, true);
	pthread_cond_signal(&outbox->work);
	return true;
}

static void take_deferred(struct bf_session *session, struct bf_reply *reply)
{
	if (likely(!atomic_load_explicit(&session->deferred, memory_order_relaxed)))
		return;
	uint64_t deferred = atomic_exchange(&session->deferred, 0);
	reply->deferred = (int32_t)(uint32_t)deferred;
	reply->deferred_call = (uint32_t)(deferred >> 32);
}

void bf_send(struct bf_session *session, struct bf_reply *reply, const void *body, size_t body_size, const void *bulk,
	     size_t bulk_size, struct bf_slot *slot)
{
	struct bf_outbox *outbox = &session->outbox;
	const struct iovec parts[3] = {
		{ reply, sizeof(*reply) },
		{ (void *)body, body_size },
		{ (void *)bulk, bulk_size },
	};
	size_t total = sizeof(*reply) + body_size + bulk_size;
	pthread_mutex_lock(&outbox->lock);
	if (outbox->broken)
		goto out;
	if (reply->kind == BF_REPLY)
		take_deferred(session, reply);
	ssize_t sent = 0;
	if (!outbox->first && !outbox->taken)
		sent = bf_transport_send_some(&session->transport, parts, bulk_size ? 3 : body_size ? 2 : 1);
	if (sent >= 0 && (size_t)sent < total) {
		if (enqueue(session, parts, (size_t)sent, slot))
			slot = NULL; /* now the queue's */
		else
			sent = -1;
	}
	if (sent < 0)
		discard(session);
out:
	pthread_mutex_unlock(&outbox->lock);
	give(session, slot);
}

void bf_send_data(struct bf_session *session, uint32_t request, uint64_t offset, const void *bytes, size_t size)
{
	struct bf_outbox *outbox = &session->outbox;
	struct bf_data data = { offset, size };
	struct bf_reply reply = { .size = sizeof(reply) + sizeof(data), .kind = BF_DATA, .request = request };
	struct iovec parts[3] = { { &reply, sizeof(reply) }, { &data, sizeof(data) }, { (void *)bytes, size } };
	pthread_mutex_lock(&outbox->lock);
	while ((outbox->first || outbox->taken) && !outbox->broken)
		pthread_cond_wait(&outbox->room, &outbox->lock);
	if (!outbox->broken) {
		outbox->taken = true;
		pthread_mutex_unlock(&outbox->lock);
		int failed = bf_transport_send(&session->transport, parts, 3);
		pthread_mutex_lock(&outbox->lock);
		outbox->taken = false;
		if (failed)
			discard(session);
		pthread_cond_signal(&outbox->work);
		pthread_cond_broadcast(&outbox->room);
	}
	pthread_mutex_unlock(&outbox->lock);
}

void bf_reply(struct bf_session *session, uint32_t request, CUresult status, const void *body, size_t size)
{
	struct bf_reply reply = {
		.size = (uint32_t)(sizeof(reply) + size),
		.kind = BF_REPLY,
		.request = request,
		.status = (int32_t)status,
	};
	if (unlikely(status != CUDA_SUCCESS && status != CUDA_ERROR_NOT_READY))
		bf_output_drain(session, true);
	bf_send(session, &reply, body, size, NULL, 0, NULL);
}

void bf_outbox_throttle(struct bf_session *session)
{
	struct bf_outbox *outbox = &session->outbox;
	if (likely(!atomic_load_explicit(&outbox->over, memory_order_relaxed)))
		return;
	pthread_mutex_lock(&outbox->lock);
	while (atomic_load(&outbox->over) && !outbox->broken)
		pthread_cond_wait(&outbox->room, &outbox->lock);
	pthread_mutex_unlock(&outbox->lock);
}

void bf_outbox_finish(struct bf_session *session, int timeout_ms)
{
	struct bf_outbox *outbox = &session->outbox;
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += timeout_ms / 1000;
	until.tv_nsec += timeout_ms % 1000 * 1000000L;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_nsec -= 1000000000L;
		until.tv_sec++;
	}
	pthread_mutex_lock(&outbox->lock);
	while (outbox->first && !outbox->broken) {
		if (pthread_cond_timedwait(&outbox->room, &outbox->lock, &until) == ETIMEDOUT)
			break;
	}
	pthread_mutex_unlock(&outbox->lock);
}
