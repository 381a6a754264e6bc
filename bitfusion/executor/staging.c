/* SPDX-License-Identifier: Apache-2.0
 *
 * Host memory that copies pass through, registered with the driver so that they can be asynchronous; and
 * markers, events that tell when work of a stream is over.
 */
#include "core.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

/* Up to the soft limit buffers are pinned and kept; past the hard one the issue thread waits for some. */
#define SOFT_LIMIT ((size_t)256 << 20)
#define HARD_LIMIT ((size_t)1 << 30)
enum { LOOK_AHEAD = 8 };

void bf_staging_init(struct bf_session *session)
{
	struct bf_staging *staging = &session->staging;
	pthread_mutex_init(&staging->lock, NULL);
	staging->busy_tail = &staging->busy;
}

/* ------------------------------------------------------------------ markers */

struct bf_marker *bf_marker_take(struct bf_session *session, CUresult *status)
{
	*status = CUDA_SUCCESS;
	struct bf_staging *staging = &session->staging;
	uint32_t generation = atomic_load(&session->context_generation);
	pthread_mutex_lock(&staging->lock);
	struct bf_marker **link = &staging->markers, *marker;
	while ((marker = *link)) {
		if (marker->context == bf_context_current && marker->generation == generation)
			break;
		link = &marker->next;
	}
	if (marker)
		*link = marker->next;
	pthread_mutex_unlock(&staging->lock);
	if (marker)
		return marker;
	marker = calloc(1, sizeof(*marker));
	unsigned flags = CU_EVENT_DISABLE_TIMING | CU_EVENT_BLOCKING_SYNC;
	*status = marker ? session->driver->cuEventCreate(&marker->event, flags) : CUDA_ERROR_OUT_OF_MEMORY;
	if (*status != CUDA_SUCCESS) {
		free(marker);
		return NULL;
	}
	marker->context = bf_context_current;
	marker->generation = generation;
	return marker;
}

/* An event dies with its context, and there is no asking whether it has: then only the memory is freed. */
void bf_marker_give(struct bf_session *session, struct bf_marker *marker)
{
	struct bf_staging *staging = &session->staging;
	if (marker->generation != atomic_load(&session->context_generation)) {
		free(marker);
		return;
	}
	pthread_mutex_lock(&staging->lock);
	marker->next = staging->markers;
	staging->markers = marker;
	pthread_mutex_unlock(&staging->lock);
}

/* ------------------------------------------------------------------ buffers */

static struct bf_slot *new_slot(struct bf_session *session, size_t size, bool pin)
{
	struct bf_slot *slot = calloc(1, sizeof(*slot));
	if (!slot)
		return NULL;
	slot->data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (slot->data == MAP_FAILED) {
		free(slot);
		return NULL;
	}
	slot->size = size;
	/* registered rather than allocated by the driver: its end with a context leaves the memory valid */
	slot->pinned =
		pin && session->driver->cuMemHostRegister_v2 &&
		session->driver->cuMemHostRegister_v2(slot->data, size, CU_MEMHOSTREGISTER_PORTABLE) == CUDA_SUCCESS;
	slot->kept = pin;
	return slot;
}

/* Gives back what the device has read; with wait, at least one buffer if there is any. */
static void reclaim(struct bf_session *session, bool wait)
{
	struct bf_staging *staging = &session->staging;
	struct bf_slot **link = &staging->busy;
	for (int looked = 0; *link && looked < LOOK_AHEAD; looked++) {
		struct bf_slot *slot = *link;
		CUresult status = session->driver->cuEventQuery(slot->marker->event);
		if (status == CUDA_ERROR_NOT_READY && wait) {
			session->driver->cuEventSynchronize(slot->marker->event);
			status = CUDA_SUCCESS;
		}
		if (status == CUDA_ERROR_NOT_READY) {
			link = &slot->next;
			continue;
		}
		wait = false;
		*link = slot->next;
		if (!*link)
			staging->busy_tail = link;
		staging->busy_count--;
		bf_marker_give(session, slot->marker);
		slot->marker = NULL;
		bf_staging_give(session, slot);
	}
}

static struct bf_slot *take_idle(struct bf_staging *staging, bool small)
{
	pthread_mutex_lock(&staging->lock);
	struct bf_slot *slot = staging->idle[small];
	if (slot)
		staging->idle[small] = slot->next;
	pthread_mutex_unlock(&staging->lock);
	return slot;
}

static struct bf_slot *take(struct bf_session *session, size_t size, bool pin)
{
	struct bf_staging *staging = &session->staging;
	bool small = size <= BF_STAGING_SMALL;
	size_t full = small ? BF_STAGING_SMALL : BF_STAGING_CHUNK;
	struct bf_slot *slot = take_idle(staging, small);
	if (slot)
		return slot;
	pthread_mutex_lock(&staging->lock);
	/* a copy to memory that is not pinned makes a driver wait, which must not be for a host function */
	pin |= staging->total + full <= bf_host_memory_most(session, SOFT_LIMIT, 8) ||
	       bf_host_function_pending(session);
	staging->total += full;
	pthread_mutex_unlock(&staging->lock);
	slot = new_slot(session, full, pin);
	if (!slot) {
		pthread_mutex_lock(&staging->lock);
		staging->total -= full;
		pthread_mutex_unlock(&staging->lock);
	}
	return slot;
}

struct bf_slot *bf_staging_take(struct bf_session *session, size_t size)
{
	return take(session, size, false);
}

struct bf_slot *bf_staging_take_pinned(struct bf_session *session, size_t size)
{
	struct bf_slot *slot = take(session, size, true);
	if (slot && !slot->pinned) {
		bf_staging_give(session, slot);
		return NULL;
	}
	return slot;
}

/* For host-to-device copies, which only the issue thread makes. */
struct bf_slot *bf_staging_take_busy(struct bf_session *session, size_t size)
{
	struct bf_staging *staging = &session->staging;
	if (staging->busy) {
		pthread_mutex_lock(&staging->lock);
		bool full = staging->total > bf_host_memory_most(session, SOFT_LIMIT, 8),
		     idle = staging->idle[size <= BF_STAGING_SMALL];
		pthread_mutex_unlock(&staging->lock);
		if (!idle || full)
			reclaim(session, full && !idle && !bf_host_function_pending(session));
	}
	return bf_staging_take(session, size);
}

void bf_staging_give(struct bf_session *session, struct bf_slot *slot)
{
	struct bf_staging *staging = &session->staging;
	pthread_mutex_lock(&staging->lock);
	if (slot->kept) {
		bool small = slot->size == BF_STAGING_SMALL;
		slot->next = staging->idle[small];
		staging->idle[small] = slot;
		slot = NULL;
	} else {
		staging->total -= slot->size;
	}
	pthread_mutex_unlock(&staging->lock);
	if (slot) {
		munmap(slot->data, slot->size);
		free(slot);
	}
}

bool bf_staging_full(struct bf_session *session)
{
	struct bf_staging *staging = &session->staging;
	pthread_mutex_lock(&staging->lock);
	bool full = staging->total > bf_host_memory_most(session, HARD_LIMIT, 4);
	pthread_mutex_unlock(&staging->lock);
	return full;
}

bool bf_staging_busy(struct bf_session *session)
{
	reclaim(session, false);
	return session->staging.busy != NULL;
}

void bf_staging_relieve(struct bf_session *session)
{
	const struct timespec moment = { .tv_nsec = 200000 };
	bf_copy_deliver(session);
	nanosleep(&moment, NULL);
}

void bf_staging_retire(struct bf_session *session, struct bf_slot *slot, CUstream stream)
{
	struct bf_staging *staging = &session->staging;
	CUresult status;
	slot->marker = bf_marker_take(session, &status);
	if (!slot->marker || session->driver->cuEventRecord(slot->marker->event, stream) != CUDA_SUCCESS)
		return; /* nothing tells when the driver has read the buffer: it is lost */
	slot->next = NULL;
	*staging->busy_tail = slot;
	staging->busy_tail = &slot->next;
	staging->busy_count++;
}
