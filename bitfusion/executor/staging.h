/* SPDX-License-Identifier: Apache-2.0
 *
 * Pinned buffers that copies go through, and the events that say when they are free again (staging.c).
 */
#ifndef BITFUSION_EXECUTOR_STAGING_H
#define BITFUSION_EXECUTOR_STAGING_H

#include "base.h"

struct bf_session;

/* An event of the executor's own, of the context that was current when it was taken. */
struct bf_marker {
	struct bf_marker *next;
	CUevent event;
	uint32_t context, generation;
};
struct bf_marker *bf_marker_take(struct bf_session *session, CUresult *status);
void bf_marker_give(struct bf_session *session, struct bf_marker *marker);

struct bf_slot {
	struct bf_slot *next;
	uint8_t *data;
	size_t size;
	struct bf_marker *marker;
	bool kept, pinned;
};
struct bf_staging {
	pthread_mutex_t lock;
	struct bf_slot *idle[2];          /* large, small */
	struct bf_slot *busy, **busy_tail; /* host-to-device, in issue order; the issue thread's alone */
	unsigned busy_count;
	size_t total;
	struct bf_marker *markers;
};
enum { BF_STAGING_CHUNK = 1 << 20, BF_STAGING_SMALL = 64 << 10 };
void bf_staging_init(struct bf_session *session);
/* A buffer for at most BF_STAGING_CHUNK bytes; fails only when there is no memory at all. */
struct bf_slot *bf_staging_take(struct bf_session *session, size_t size);
/* The same, and the driver has it pinned; NULL when it will not. */
struct bf_slot *bf_staging_take_pinned(struct bf_session *session, size_t size);
/* The same, but waits for earlier host-to-device copies rather than take ever more. Issue thread. */
struct bf_slot *bf_staging_take_busy(struct bf_session *session, size_t size);
void bf_staging_give(struct bf_session *session, struct bf_slot *slot);
/* Gives the buffer back once the work that the stream has now is over. Issue thread. */
void bf_staging_retire(struct bf_session *session, struct bf_slot *slot, CUstream stream);
bool bf_staging_full(struct bf_session *session);
/* Whether copies to the device still hold some; gives back what they have done with. Issue thread. */
bool bf_staging_busy(struct bf_session *session);
/* Makes a little time for copies on their way to the client. */
void bf_staging_relieve(struct bf_session *session);

#endif
