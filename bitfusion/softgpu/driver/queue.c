/* SPDX-License-Identifier: Apache-2.0
 *
 * The queues of all streams and the threads that run them.
 */
#include "queue.h"
#include "memory.h"

#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A stream takes as much work as NVIDIA's driver lets queue up; then who adds more waits. */
enum { MAX_EXECUTORS = 128, SPIN_NS = 20000, MAX_QUEUED = 1024, ROOM = 64 };

pthread_mutex_t queue_lock = PTHREAD_MUTEX_INITIALIZER;

static struct {
	struct stream *first; /* ready streams, the most urgent first */
	unsigned ready, idle, total;
	pthread_cond_t work;
} executors = { .work = PTHREAD_COND_INITIALIZER };

/* This thread is an executor and looks for more work by itself. */
static __thread int is_executor;

uint64_t queue_now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ------------------------------------------------------------------ work */

struct work *work_new(enum work_kind kind, size_t tail)
{
	struct work *work = malloc(sizeof *work + tail);
	if (!work)
		return NULL;
	memset(work, 0, sizeof *work);
	work->kind = kind;
	work->dependencies = work->few;
	return work;
}

CUresult work_depend(struct work *work, struct stream *stream, uint64_t position)
{
	if (stream->completed >= position)
		return CUDA_SUCCESS;
	unsigned count = work->dependency_count, few = sizeof work->few / sizeof *work->few;
	if (count >= few && !(count & (count - 1))) {
		struct dependency *more = malloc(2 * count * sizeof *more);
		if (!more)
			return CUDA_ERROR_OUT_OF_MEMORY;
		memcpy(more, work->dependencies, count * sizeof *more);
		if (work->dependencies != work->few)
			free(work->dependencies);
		work->dependencies = more;
	}
	stream->references++;
	work->dependencies[work->dependency_count++] = (struct dependency){ stream, position };
	return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------ moving on; all with queue_lock held */

static void *executor(void *unused);

static void spawn(void)
{
	sigset_t all, before;
	pthread_t thread;
	/* the program's signals are for the program's threads */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	if (!pthread_create(&thread, NULL, executor, NULL)) {
		executors.total++;
		pthread_detach(thread);
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void make_ready(struct stream *stream, int wake)
{
	struct stream **at = &executors.first;
	while (*at && (*at)->priority <= stream->priority)
		at = &(*at)->next_ready;
	stream->next_ready = *at;
	*at = stream;
	stream->state = STREAM_READY;
	executors.ready++;
	if (!wake || (is_executor && executors.ready == 1))
		return;
	if (executors.idle >= executors.ready)
		pthread_cond_signal(&executors.work);
	else if (executors.total < MAX_EXECUTORS)
		spawn();
}

static void unready(struct stream *stream)
{
	struct stream **at = &executors.first;
	while (*at != stream)
		at = &(*at)->next_ready;
	*at = stream->next_ready;
	executors.ready--;
}

/* 1 when everything the work waits for has happened; else the stream is enlisted with what has not. */
static int dependencies_met(struct stream *stream, struct work *work)
{
	for (; work->dependencies_met < work->dependency_count; work->dependencies_met++) {
		struct dependency *wanted = &work->dependencies[work->dependencies_met];
		if (wanted->stream->completed >= wanted->position)
			continue;
		stream->next_waiter = wanted->stream->waiters;
		wanted->stream->waiters = stream;
		stream->state = STREAM_WAITING;
		return 0;
	}
	return 1;
}

static void finish(struct stream *stream, struct work *work);

static void record(struct work *work)
{
	struct event *event = work->record.event;
	if (event->generation == work->record.generation)
		event->time_ns = queue_now_ns();
}

/* The stream has a new first piece of work, or something it waited for has happened. */
static void advance(struct stream *stream, int wake)
{
	while (stream->head) {
		struct work *work = stream->head;
		if (!dependencies_met(stream, work))
			return;
		if (work->kind != WORK_MARKER && work->kind != WORK_RECORD) {
			make_ready(stream, wake);
			return;
		}
		if (work->kind == WORK_RECORD)
			record(work);
		finish(stream, work);
	}
	stream->state = STREAM_IDLE;
	stream_unref(stream);
}

/* Takes the first piece of work off; those who waited for it go on. */
static void finish(struct stream *stream, struct work *work)
{
	stream->head = work->next;
	if (!stream->head)
		stream->tail = NULL;
	stream->completed++;
	if (stream->completed >= stream->wanted) {
		stream->wanted = UINT64_MAX;
		pthread_cond_broadcast(&stream->progressed);
	}
	struct stream *waiter = stream->waiters;
	stream->waiters = NULL;
	while (waiter) {
		struct stream *next = waiter->next_waiter;
		advance(waiter, 1);
		waiter = next;
	}
	work_free(work);
}

/* The default stream waits for all that block with it, and they for it. */
static CUresult add_default_order(struct stream *stream, struct work *work)
{
	if (stream->flags & CU_STREAM_NON_BLOCKING)
		return CUDA_SUCCESS;
	if (!stream->is_legacy) {
		struct stream *legacy = stream->context->legacy;
		return legacy ? work_depend(work, legacy, legacy->submitted) : CUDA_SUCCESS;
	}
	for (struct stream *other = stream->context->streams; other; other = other->next_in_context)
		if (other != stream && !(other->flags & CU_STREAM_NON_BLOCKING))
			TRY(work_depend(work, other, other->submitted));
	return CUDA_SUCCESS;
}

void queue_append(struct stream *stream, struct work *work, int wake)
{
	/* out of memory for a dependency: order is worth more than speed */
	if (add_default_order(stream, work) != CUDA_SUCCESS)
		while (work->dependency_count--)
			queue_wait_locked(work->dependencies[work->dependency_count].stream,
					  work->dependencies[work->dependency_count].position);
	work->next = NULL;
	if (stream->tail)
		stream->tail->next = work;
	else
		stream->head = work;
	stream->tail = work;
	stream->submitted++;
	if (stream->state != STREAM_IDLE)
		return;
	stream->references++;
	advance(stream, wake);
}

/* ------------------------------------------------------------------ running */

/* Runs the first piece of work of a stream that is ready and off the list. Lets go of the lock meanwhile. */
static void run_first(struct stream *stream)
{
	struct work *work = stream->head;
	struct context *context = stream->context;
	stream->state = STREAM_RUNNING;
	pthread_mutex_unlock(&queue_lock);
	CUresult result = work_run(context, work);
	if (result != CUDA_SUCCESS)
		context_fail(context, result, NULL);
	pthread_mutex_lock(&queue_lock);
	finish(stream, work);
	advance(stream, 1);
}

static void *executor(void *unused)
{
	(void)unused;
	is_executor = 1;
	pthread_mutex_lock(&queue_lock);
	for (;;) {
		while (!executors.first) {
			executors.idle++;
			pthread_cond_wait(&executors.work, &queue_lock);
			executors.idle--;
		}
		struct stream *stream = executors.first;
		unready(stream);
		run_first(stream);
	}
	return NULL;
}

/* What a waiting thread may run itself: not what may block for long or is the program's code. */
static int may_help(const struct stream *stream)
{
	if (stream->state != STREAM_READY)
		return 0;
	enum work_kind kind = stream->head->kind;
	return kind != WORK_HOST && kind != WORK_WAIT_VALUE && kind != WORK_GRAPH;
}

/* Work is often done before a thread could go to sleep and be woken again. */
static void spin(struct stream *stream, uint64_t position)
{
	static int processors;
	if (!processors)
		processors = (int)sysconf(_SC_NPROCESSORS_ONLN);
	if (processors < 2)
		return;
	pthread_mutex_unlock(&queue_lock);
	uint64_t end = queue_now_ns() + SPIN_NS;
	while (stream->completed < position && queue_now_ns() < end)
		sched_yield(); /* on a busy machine the other side needs the processor */
	pthread_mutex_lock(&queue_lock);
}

void queue_wait_locked(struct stream *stream, uint64_t position)
{
	int spun = 0;
	stream->references++;
	while (stream->completed < position) {
		if (may_help(stream)) {
			unready(stream);
			run_first(stream);
			continue;
		}
		if (!spun++) {
			spin(stream, position);
			continue;
		}
		if (stream->state == STREAM_READY && executors.idle == 0 && executors.total < MAX_EXECUTORS)
			spawn(); /* its submitter meant to run it, or no thread could be had then */
		else if (stream->state == STREAM_READY)
			pthread_cond_signal(&executors.work);
		if (position < stream->wanted)
			stream->wanted = position;
		pthread_cond_wait(&stream->progressed, &queue_lock);
	}
	stream_unref(stream);
}

void queue_make_room(struct stream *stream)
{
	while (stream->submitted - stream->completed >= MAX_QUEUED && !stream->capture && !is_executor)
		queue_wait_locked(stream, stream->submitted - MAX_QUEUED + ROOM);
}

CUresult submit(struct stream *stream, struct work *work, int flags)
{
	CUresult result;
	pthread_mutex_lock(&queue_lock);
	queue_make_room(stream);
	if (stream->capture && !(flags & SUBMIT_NO_CAPTURE)) {
		result = capture_add(stream, work, NULL);
		pthread_mutex_unlock(&queue_lock);
		return result;
	}
	result = capture_check_legacy(stream->context, stream);
	if (result != CUDA_SUCCESS) {
		work_free(work);
	} else {
		queue_append(stream, work, !(flags & SUBMIT_WAIT));
		if (flags & SUBMIT_WAIT)
			queue_wait_locked(stream, stream->submitted);
	}
	pthread_mutex_unlock(&queue_lock);
	if (result == CUDA_SUCCESS && (flags & SUBMIT_WAIT)) {
		context_flush_output(stream->context);
		result = context_error(stream->context);
	}
	return result;
}

CUresult context_synchronize(struct context *context)
{
	/* holds where each stream is now; what others add meanwhile is not waited for */
	struct work *now = work_new(WORK_MARKER, 0);
	if (!now)
		return CUDA_ERROR_OUT_OF_MEMORY;
	CUresult result = CUDA_SUCCESS;
	pthread_mutex_lock(&queue_lock);
	for (struct stream *stream = context->streams; stream && !result; stream = stream->next_in_context)
		result = work_depend(now, stream, stream->submitted);
	for (unsigned i = 0; i < now->dependency_count && !result; i++)
		queue_wait_locked(now->dependencies[i].stream, now->dependencies[i].position);
	work_free(now);
	pthread_mutex_unlock(&queue_lock);
	pools_synchronized(context->device);
	context_flush_output(context);
	return result ? result : context_error(context);
}
