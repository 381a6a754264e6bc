/* SPDX-License-Identifier: Apache-2.0
 *
 * How long the device works for this session. What the issue thread enqueues between two looks for input is a batch,
 * with an event before it and one behind it on each of its streams; a thread waits for these and takes the time. A
 * session that may have all of a GPU has one batch in SAMPLE measured, picked at random, which counts for all of
 * them: two events a batch would cost more than many a batch. Where batches are few, all are: of a handful of long ones
 * a sample could be none. A session that is paced has every batch measured, of
 * about TARGET_NS each and no more than two under way, and waits before it opens one until the ledger lets it go on.
 */
#include "clock.h"
#include "core.h"
#include "ledger.h"

#include <stdlib.h>
#include <time.h>

enum { SAMPLE = 16, STREAMS = 4, LEAST_LAUNCHES = 1, MOST_LAUNCHES = 1024, FIRST_LAUNCHES = 2, UNDER_WAY = 2 };
/* Looks for input that are farther apart than this come with few batches. */
static const uint64_t FEW_NS = 2 * 1000000, LONG_NS = 32 * 1000000;
static const uint64_t TARGET_NS = 10 * 1000000;
/* A batch may itself wait for what comes behind it in the command stream, so nobody waits longer for its end. */
static const uint64_t PATIENCE_NS = 200 * 1000000ull;
static const long NAP_NS = 500000;

struct bf_batch {
	struct bf_batch *next;
	struct bf_use use;
	uint32_t context, generation;
	int device;
	unsigned stands_for, launches, streams, events;
	bool paced;
	CUstream stream[STREAMS];
	CUevent start, end[STREAMS];
	CUevent latest; /* of those in end */
};

void bf_pace_init(struct bf_session *session)
{
	struct bf_pace *pace = &session->pace;
	pthread_mutex_init(&pace->lock, NULL);
	pthread_cond_init(&pace->work, NULL);
	pthread_cond_init(&pace->done, NULL);
	pace->last = &pace->closed;
	pace->limit = FIRST_LAUNCHES;
	pace->random = 2463534242u;
	pace->gap_ns = LONG_NS;
}

/* ------------------------------------------------------------------ the thread that measures */

static bool same_events(const struct bf_batch *batch, const struct bf_batch *other)
{
	return batch->context == other->context && batch->generation == other->generation;
}

/* How long it took; what overlaps with the batch before, on other streams, has been counted with that. */
static bool measure(struct bf_session *session, struct bf_batch *batch, const struct bf_batch *before, uint64_t *took)
{
	const struct bf_driver *driver = session->driver;
	float longest = 0, beyond, ms;
	if (bf_context_ensure(session, batch->context) != CUDA_SUCCESS)
		return false;
	for (unsigned i = 0; i < batch->streams; i++) {
		if (driver->cuEventSynchronize(batch->end[i]) != CUDA_SUCCESS ||
		    driver->cuEventElapsedTime(&ms, batch->start, batch->end[i]) != CUDA_SUCCESS)
			return false; /* the context is broken, or gone */
		if (ms >= longest) {
			longest = ms;
			batch->latest = batch->end[i];
		}
	}
	if (before && same_events(batch, before) &&
	    driver->cuEventElapsedTime(&beyond, before->latest, batch->latest) == CUDA_SUCCESS && beyond < longest)
		longest = beyond > 0 ? beyond : 0;
	*took = (uint64_t)((double)longest * 1e6);
	return true;
}

static void *work_off(void *argument)
{
	struct bf_session *session = argument;
	struct bf_pace *pace = &session->pace;
	struct bf_batch *before = NULL;
	pthread_mutex_lock(&pace->lock);
	for (;;) {
		while (!pace->closed)
			pthread_cond_wait(&pace->work, &pace->lock);
		struct bf_batch *batch = pace->closed;
		pace->closed = batch->next;
		if (!pace->closed)
			pace->last = &pace->closed;
		pthread_mutex_unlock(&pace->lock);
		uint64_t took = 0;
		bool measured = measure(session, batch, before, &took);
		bf_use_end(session, &batch->use);
		bf_ledger_waits(session->ledger, session->options.slot, -1);
		if (measured)
			bf_ledger_spend(session->ledger, (uint32_t)batch->device, took * batch->stands_for);
		pthread_mutex_lock(&pace->lock);
		if (measured && batch->paced)
			pace->took_ns = took;
		struct bf_batch *spare = measured ? before : batch;
		before = measured ? batch : before;
		if (spare) {
			spare->next = pace->spare;
			pace->spare = spare;
		}
		pace->under_way--;
		pthread_cond_signal(&pace->done);
	}
	return NULL;
}

static bool start_thread(struct bf_session *session)
{
	pthread_t thread;
	if (!session->pace.started && pthread_create(&thread, NULL, work_off, session) == 0) {
		pthread_detach(thread);
		session->pace.started = true;
	}
	return session->pace.started;
}

/* ------------------------------------------------------------------ waiting for one's time */

static void nap(struct bf_pace *pace)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += NAP_NS;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	pthread_cond_timedwait(&pace->done, &pace->lock, &until);
}

static void wait_for_time(struct bf_session *session, uint32_t device)
{
	struct bf_pace *pace = &session->pace;
	uint64_t patience_ends = bf_now_ns() + PATIENCE_NS;
	pthread_mutex_lock(&pace->lock);
	while (pace->under_way >= UNDER_WAY && bf_now_ns() < patience_ends)
		nap(pace);
	while (!bf_ledger_may_go_on(session->ledger, device))
		nap(pace);
	if (pace->took_ns > 2 * TARGET_NS && pace->limit > LEAST_LAUNCHES)
		pace->limit /= 2;
	else if (pace->took_ns && pace->took_ns < TARGET_NS / 2 && pace->limit < MOST_LAUNCHES)
		pace->limit *= 2;
	pace->took_ns = 0;
	pthread_mutex_unlock(&pace->lock);
}

/* ------------------------------------------------------------------ batches: the issue thread's */

/* One of this context, whose events live as long as that does; those of others are only memory by now. */
static struct bf_batch *take(struct bf_session *session)
{
	struct bf_pace *pace = &session->pace;
	uint32_t generation = atomic_load(&session->context_generation);
	pthread_mutex_lock(&pace->lock);
	struct bf_batch **link = &pace->spare, *batch;
	while ((batch = *link) && (batch->generation != generation || batch->context != bf_context_index())) {
		if (batch->generation == generation) {
			link = &batch->next;
			continue;
		}
		*link = batch->next;
		free(batch);
	}
	if (batch)
		*link = batch->next;
	pthread_mutex_unlock(&pace->lock);
	if (batch)
		return batch;
	batch = calloc(1, sizeof(*batch));
	if (batch && session->driver->cuEventCreate(&batch->start, CU_EVENT_BLOCKING_SYNC) != CUDA_SUCCESS) {
		free(batch);
		return NULL;
	}
	if (batch) {
		batch->generation = generation;
		batch->context = bf_context_index();
	}
	return batch;
}

static void give(struct bf_session *session, struct bf_batch *batch)
{
	pthread_mutex_lock(&session->pace.lock);
	batch->next = session->pace.spare;
	session->pace.spare = batch;
	pthread_mutex_unlock(&session->pace.lock);
}

static bool open_batch(struct bf_session *session, CUstream stream)
{
	struct bf_pace *pace = &session->pace;
	int device;
	if (bf_is_capturing(session, stream) || bf_context_device(session, &device) != CUDA_SUCCESS ||
	    !start_thread(session))
		return false;
	if (pace->paced)
		wait_for_time(session, (uint32_t)device);
	struct bf_batch *batch = take(session);
	if (!batch)
		return false;
	if (session->driver->cuEventRecord(batch->start, stream) != CUDA_SUCCESS) {
		give(session, batch);
		return false;
	}
	batch->device = device;
	batch->paced = pace->paced;
	batch->stands_for = pace->paced ? 1 : pace->stands_for;
	batch->launches = batch->streams = 0;
	pace->open = batch;
	return true;
}

/* False: the batch has no more room. */
static bool add_stream(struct bf_batch *batch, CUstream stream)
{
	for (unsigned i = 0; i < batch->streams; i++) {
		if (batch->stream[i] == stream)
			return true;
	}
	if (batch->streams == STREAMS)
		return false;
	batch->stream[batch->streams++] = stream;
	return true;
}

void bf_pace_work(struct bf_session *session, uint64_t value)
{
	struct bf_pace *pace = &session->pace;
	CUstream stream = (CUstream)(uintptr_t)value;
	struct bf_batch *batch = pace->open;
	if (batch && (batch->context != bf_context_index() || (batch->paced && batch->launches >= pace->limit) ||
		      !add_stream(batch, stream)))
		bf_pace_close(session);
	if (!pace->open && pace->attentive && open_batch(session, stream))
		add_stream(pace->open, stream);
	if (pace->open)
		pace->open->launches++;
}

static bool record_ends(struct bf_session *session, struct bf_batch *batch)
{
	for (unsigned i = 0; i < batch->streams; i++) {
		if (i == batch->events &&
		    session->driver->cuEventCreate(&batch->end[i], CU_EVENT_BLOCKING_SYNC) != CUDA_SUCCESS)
			return false;
		batch->events = i < batch->events ? batch->events : i + 1;
		if (bf_is_capturing(session, batch->stream[i]) ||
		    session->driver->cuEventRecord(batch->end[i], batch->stream[i]) != CUDA_SUCCESS)
			return false;
	}
	return true;
}

static bool end_batch(struct bf_session *session, struct bf_batch *batch)
{
	uint32_t before = bf_context_current;
	bool ended = bf_context_ensure(session, batch->context) == CUDA_SUCCESS && record_ends(session, batch);
	if (before) /* the command that ends it may be one of another context, and is carried out next */
		bf_context_ensure(session, before - 1);
	return ended;
}

void bf_pace_close(struct bf_session *session)
{
	struct bf_pace *pace = &session->pace;
	struct bf_batch *batch = pace->open;
	pace->open = NULL;
	pace->attentive = pace->paced;
	if (!batch)
		return;
	if (!end_batch(session, batch)) {
		give(session, batch);
		return;
	}
	bf_use_begin(session, &batch->use, batch->context, 0);
	bf_ledger_waits(session->ledger, session->options.slot, 1); /* its client may wait for an event of its own */
	pthread_mutex_lock(&pace->lock);
	batch->next = NULL;
	*pace->last = batch;
	pace->last = &batch->next;
	pace->under_way++;
	pthread_cond_signal(&pace->work);
	pthread_mutex_unlock(&pace->lock);
}

static bool picked(struct bf_pace *pace)
{
	pace->random ^= pace->random << 13;
	pace->random ^= pace->random >> 17;
	pace->random ^= pace->random << 5;
	return pace->random % SAMPLE == 0;
}

/* Whether batches are few. By the looks before this one: what is picked must not depend on how long it takes. */
static bool few(struct bf_pace *pace, uint64_t now)
{
	uint64_t gap = now - pace->turned_ns;
	if (pace->turned_ns)
		pace->gap_ns += ((gap < LONG_NS ? gap : LONG_NS) >> 3) - (pace->gap_ns >> 3);
	pace->turned_ns = now;
	return pace->gap_ns > FEW_NS;
}

void bf_pace_turn(struct bf_session *session)
{
	struct bf_pace *pace = &session->pace;
	if (!session->ledger || !session->driver->cuEventElapsedTime)
		return;
	if (pace->open)
		bf_pace_close(session);
	uint64_t now = bf_now_ns();
	bf_ledger_called(session->ledger, session->options.slot, now);
	pace->paced = bf_ledger_paced(session->ledger, now);
	pace->stands_for = few(pace, now) ? 1 : SAMPLE;
	pace->attentive = pace->paced || pace->stands_for == 1 || picked(pace);
}
