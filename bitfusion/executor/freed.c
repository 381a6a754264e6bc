/* SPDX-License-Identifier: Apache-2.0
 *
 * What cuMemFreeAsync frees is free once its stream gets there, and counts against the slice until then: behind a host
 * function or a long kernel that may be late. The frees of a stream are gathered; when the issue thread has nothing
 * else to do, one event is recorded behind them. Whoever is short of memory, or waits anyway, looks at the events; a
 * waiter looks now and then for the other workers of the session, who know the ledger only.
 */
#include "clock.h"
#include "core.h"

#include <stdlib.h>
#include <time.h>

enum { MOST_BATCHES = 16 }; /* of a stream; what is freed next waits with the last of them */
/* Between looks of who is short of memory, and of the waiter. */
static const long short_nap_ns[] = { 50000, 1600000 }, watch_nap_ns[] = { 1000000, 32000000 };
/* A host function may wait for the very thread whose allocation waits here. */
#define PATIENCE_NS 10000000000ull

struct bf_freed_batch {
	struct bf_freed_batch *next;
	struct bf_marker *marker; /* behind all of it, once it is closed */
	int device;
	uint64_t size, graphs; /* of it, what nodes of graphs allocate */
};

struct bf_freed_stream {
	struct bf_freed_stream *next;
	CUstream stream;
	uint32_t context;
	unsigned count;
	bool open; /* the last one is */
	struct bf_freed_batch *first, *last;
};

void bf_freed_init(struct bf_session *session)
{
	pthread_mutex_init(&session->freed.lock, NULL);
}

/* ------------------------------------------------------------------ with the lock held */

static struct bf_freed_stream *stream_of(struct bf_freed *freed, CUstream stream, uint32_t context)
{
	struct bf_freed_stream *found = freed->streams;
	while (found && (found->stream != stream || found->context != context))
		found = found->next;
	if (found)
		return found;
	found = calloc(1, sizeof(*found));
	if (found) {
		*found = (struct bf_freed_stream){ .next = freed->streams, .stream = stream, .context = context };
		freed->streams = found;
	}
	return found;
}

/* The one that the next free goes to; NULL without memory for it. */
static struct bf_freed_batch *batch_of(struct bf_freed *freed, struct bf_freed_stream *stream, int device)
{
	struct bf_freed_batch *last = stream->last;
	if (last && last->device == device && (stream->open || stream->count >= MOST_BATCHES)) {
		stream->open = true;
		return last;
	}
	struct bf_freed_batch *batch = calloc(1, sizeof(*batch));
	if (!batch)
		return NULL;
	batch->device = device;
	*(last ? &last->next : &stream->first) = batch;
	stream->last = batch;
	stream->count++;
	stream->open = true;
	atomic_fetch_add(&freed->pending, 1);
	return batch;
}

static void settle_first(struct bf_session *session, struct bf_freed_stream *stream)
{
	struct bf_freed_batch *batch = stream->first;
	stream->first = batch->next;
	if (!stream->first)
		stream->last = NULL;
	stream->count--;
	bf_memory_refund(session, batch->device, batch->size);
	atomic_fetch_sub(&session->freed.bytes[batch->device], batch->size - batch->graphs);
	atomic_fetch_sub(&session->reserve.nodes[batch->device], batch->graphs);
	if (batch->marker)
		bf_marker_give(session, batch->marker);
	free(batch);
	atomic_fetch_add(&session->freed.settled, 1);
	atomic_fetch_sub(&session->freed.pending, 1);
}

static bool reached(struct bf_session *session, const struct bf_freed_stream *stream)
{
	const struct bf_freed_batch *batch = stream->first;
	if (!batch || (stream->open && batch == stream->last))
		return false;
	return !batch->marker || session->driver->cuEventQuery(batch->marker->event) != CUDA_ERROR_NOT_READY;
}

/* Whether there is more to come by itself: what lies open waits for the issue thread. */
static bool look(struct bf_session *session, bool elsewhere)
{
	struct bf_freed_stream **link = &session->freed.streams, *stream;
	bool more = false;
	while ((stream = *link)) {
		if (elsewhere && bf_context_ensure(session, stream->context) != CUDA_SUCCESS) {
			link = &stream->next;
			continue;
		}
		while (reached(session, stream))
			settle_first(session, stream);
		if (stream->first) {
			more |= !stream->open || stream->count > 1;
			link = &stream->next;
			continue;
		}
		*link = stream->next;
		free(stream);
	}
	return more;
}

/* False: not now. A broken context has nothing that could be waited for. */
static bool close_stream(struct bf_session *session, struct bf_freed_stream *stream)
{
	struct bf_freed_batch *batch = stream->last;
	CUresult status = bf_context_ensure(session, stream->context);
	if (status == CUDA_SUCCESS && bf_is_capturing(session, stream->stream))
		return false;
	if (status == CUDA_SUCCESS && !batch->marker)
		batch->marker = bf_marker_take(session, &status);
	if (status == CUDA_ERROR_OUT_OF_MEMORY)
		return false;
	if (status == CUDA_SUCCESS)
		status = session->driver->cuEventRecord(batch->marker->event, stream->stream);
	if (status != CUDA_SUCCESS && batch->marker) {
		bf_marker_give(session, batch->marker);
		batch->marker = NULL;
	}
	stream->open = false;
	return true;
}

/* ------------------------------------------------------------------ looking at what has been reached */

void bf_freed_look(struct bf_session *session)
{
	if (bf_freed_pending(session)) {
		pthread_mutex_lock(&session->freed.lock);
		look(session, false);
		pthread_mutex_unlock(&session->freed.lock);
	}
	bf_reserve_update(session); /* which the driver may keep now */
}

static void nap(long *ns, const long *range)
{
	nanosleep(&(struct timespec){ 0, *ns }, NULL);
	*ns = *ns < range[1] ? 2 * *ns : *ns;
}

bool bf_freed_wait(struct bf_session *session, unsigned seen)
{
	struct bf_freed *freed = &session->freed;
	const uint64_t since = bf_now_ns();
	long ns = short_nap_ns[0];
	for (;;) {
		pthread_mutex_lock(&freed->lock);
		bool more = look(session, true);
		pthread_mutex_unlock(&freed->lock);
		bf_reserve_update(session);
		if (atomic_load(&freed->settled) != seen)
			return true;
		if (!more || atomic_load(&session->over) ||
		    (bf_host_function_pending(session) && bf_now_ns() - since > PATIENCE_NS))
			return false;
		nap(&ns, short_nap_ns);
	}
}

static void watch(struct bf_session *session, struct bf_job *job)
{
	struct bf_freed *freed = &session->freed;
	long ns = watch_nap_ns[0];
	free(job);
	for (bool more = true; more && !atomic_load(&session->over);) {
		nap(&ns, watch_nap_ns);
		unsigned before = atomic_load(&freed->settled);
		pthread_mutex_lock(&freed->lock);
		more = freed->watched = look(session, true);
		pthread_mutex_unlock(&freed->lock);
		bf_reserve_update(session);
		ns = atomic_load(&freed->settled) == before ? ns : watch_nap_ns[0];
	}
	/* The program may not wait for a long time, and other workers of the session see the ledger only. */
	nanosleep(&(struct timespec){ 0, watch_nap_ns[1] }, NULL);
	if (!bf_freed_pending(session))
		bf_reserve_trim(session, false);
}

/* ------------------------------------------------------------------ the issue thread's */

static void start_watch(struct bf_session *session)
{
	struct bf_job *job = calloc(1, sizeof(*job));
	if (!job)
		return;
	job->run = watch;
	if (bf_submit(session, job))
		return;
	free(job);
	pthread_mutex_lock(&session->freed.lock);
	session->freed.watched = false;
	pthread_mutex_unlock(&session->freed.lock);
}

void bf_freed_close(struct bf_session *session)
{
	struct bf_freed *freed = &session->freed;
	const uint32_t before = bf_context_current;
	pthread_mutex_lock(&freed->lock);
	freed->open = false;
	for (struct bf_freed_stream *stream = freed->streams; stream; stream = stream->next)
		freed->open |= stream->open && !close_stream(session, stream);
	bool start = freed->streams && !freed->watched;
	freed->watched |= start;
	pthread_mutex_unlock(&freed->lock);
	if (before) /* the command that is carried out next may be of another context */
		bf_context_ensure(session, before - 1);
	if (start)
		start_watch(session);
}

bool bf_freed_add(struct bf_session *session, uint64_t value, uint32_t context, const struct bf_allocation *gone)
{
	struct bf_freed *freed = &session->freed;
	CUstream stream = (CUstream)(uintptr_t)value;
	if (!bf_memory_limited(session, gone->device) || bf_is_capturing(session, stream))
		return false;
	pthread_mutex_lock(&freed->lock);
	struct bf_freed_stream *known = stream_of(freed, stream, context);
	struct bf_freed_batch *batch = known ? batch_of(freed, known, (int)gone->device) : NULL;
	if (batch) {
		batch->size += gone->size;
		batch->graphs += gone->graph ? gone->size : 0;
		atomic_fetch_add(&freed->bytes[gone->device], gone->graph ? 0 : gone->size);
	}
	pthread_mutex_unlock(&freed->lock);
	freed->open |= batch != NULL;
	return batch != NULL;
}

/* ------------------------------------------------------------------ contexts that end, with their streams and events */

struct bf_freed_stream *bf_freed_leave(struct bf_session *session, uint32_t context)
{
	struct bf_freed_stream *left = NULL, *stream;
	pthread_mutex_lock(&session->freed.lock);
	for (struct bf_freed_stream **link = &session->freed.streams; (stream = *link);) {
		if (stream->context != context) {
			link = &stream->next;
			continue;
		}
		*link = stream->next;
		stream->next = left;
		left = stream;
	}
	pthread_mutex_unlock(&session->freed.lock);
	return left;
}

void bf_freed_end(struct bf_session *session, struct bf_freed_stream *left, bool ended)
{
	struct bf_freed *freed = &session->freed;
	pthread_mutex_lock(&freed->lock);
	for (struct bf_freed_stream *stream; (stream = left);) {
		left = stream->next;
		if (!ended) {
			stream->next = freed->streams;
			freed->streams = stream;
			continue;
		}
		while (stream->first)
			settle_first(session, stream);
		free(stream);
	}
	pthread_mutex_unlock(&freed->lock);
}
