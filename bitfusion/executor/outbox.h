/* SPDX-License-Identifier: Apache-2.0
 *
 * Replies on their way to the client (outbox.c).
 */
#ifndef BITFUSION_EXECUTOR_OUTBOX_H
#define BITFUSION_EXECUTOR_OUTBOX_H

#include "base.h"

struct bf_session;
struct bf_slot;

struct bf_outbox {
	pthread_mutex_t lock;
	pthread_cond_t work, room;
	pthread_t sender;
	bool started, broken;
	bool taken; /* a thread is sending by itself: others queue */
	_Atomic bool over; /* the issue thread should stop reading until the queue has drained */
	size_t queued;     /* bytes */
	struct bf_item *first, **last;
};
void bf_outbox_init(struct bf_session *session);
/* Queues or sends a reply; takes the slot over (may be NULL), whose bytes are the bulk. Never blocks. */
void bf_send(struct bf_session *session, struct bf_reply *reply, const void *body, size_t body_size, const void *bulk,
	     size_t bulk_size, struct bf_slot *slot);
void bf_reply(struct bf_session *session, uint32_t request, CUresult status, const void *body, size_t size);
/* Sends a part of a copy to the client from where it lies and returns when it has left: sleeps while the client
 * does not read, so only for one that waits for it. */
void bf_send_data(struct bf_session *session, uint32_t request, uint64_t offset, const void *bytes, size_t size);
/* Waits until the client has read enough; call it on the issue thread only. */
void bf_outbox_throttle(struct bf_session *session);
/* Gives the last replies a moment to leave. */
void bf_outbox_finish(struct bf_session *session, int timeout_ms);

#endif
