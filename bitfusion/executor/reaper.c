/* SPDX-License-Identifier: Apache-2.0
 *
 * Calls that give something back, which the client does not wait for, and for which a driver waits until the
 * device is idle: they must not hold up the issue thread. They queue, one queue for each context, and a waiter
 * works each queue off. Whoever then has too little memory waits for them and tries again.
 */
#include "frame.h"

#include <stdlib.h>
#include <time.h>

struct bf_reap {
	struct bf_reap *next;
	struct bf_command command;
	struct bf_allocation memory; /* to free, or given back by the row */
	bool node; /* a graph's next launch may allocate it again */
	uint64_t handle; /* the client's number that the row ends, or 0 */
	struct bf_frame frame; /* or of a row all of whose arguments are values */
};

struct bf_reap_queue {
	struct bf_reap_queue *next;
	uint32_t context;
	bool worked; /* a waiter has it */
	struct bf_reap *first, **last;
};

struct reap_job {
	struct bf_job job;
	struct bf_reap_queue *queue;
};

void bf_reaper_init(struct bf_session *session)
{
	pthread_mutex_init(&session->reaper.lock, NULL);
	pthread_cond_init(&session->reaper.done, NULL);
}

/* ------------------------------------------------------------------ working a queue off */

static CUresult carry_out(struct bf_session *session, struct bf_reap *reap)
{
	if (!reap->frame.route)
		return bf_memory_release(session, reap->memory.address);
	bf_around around = reap->frame.route->around;
	return around ? around(session, &reap->frame) : bf_invoke(&reap->frame);
}

static void run(struct bf_session *session, struct bf_reap *reap)
{
	CUresult status = CUDA_SUCCESS;
	if (!reap->frame.route || !(reap->frame.route->row->flags & BF_ROW_NO_CONTEXT))
		status = bf_context_ensure(session, reap->command.context);
	if (status == CUDA_SUCCESS)
		status = carry_out(session, reap);
	if (status != CUDA_SUCCESS)
		bf_defer(session, reap->command.call, status);
	atomic_fetch_sub(&session->reaper.nodes, reap->node);
}

/* An entry stays in its queue until it is done, so that whoever looks finds it. */
static void work_off(struct bf_session *session, struct bf_reap_queue *queue)
{
	struct bf_reaper *reaper = &session->reaper;
	pthread_mutex_lock(&reaper->lock);
	while (queue->first) {
		struct bf_reap *reap = queue->first;
		pthread_mutex_unlock(&reaper->lock);
		run(session, reap);
		pthread_mutex_lock(&reaper->lock);
		queue->first = reap->next;
		if (!queue->first)
			queue->last = &queue->first;
		atomic_fetch_sub(&reaper->pending, 1);
		pthread_cond_broadcast(&reaper->done);
		free(reap);
	}
	queue->worked = false;
	pthread_mutex_unlock(&reaper->lock);
}

static void run_queue(struct bf_session *session, struct bf_job *job)
{
	struct bf_reap_queue *queue = ((struct reap_job *)job)->queue;
	free(job);
	work_off(session, queue);
}

/* ------------------------------------------------------------------ adding to it */

static struct bf_reap_queue *queue_of(struct bf_reaper *reaper, uint32_t context)
{
	struct bf_reap_queue *queue = reaper->queues;
	while (queue && queue->context != context)
		queue = queue->next;
	if (queue)
		return queue;
	queue = calloc(1, sizeof(*queue));
	if (!queue)
		return NULL;
	queue->context = context;
	queue->last = &queue->first;
	queue->next = reaper->queues;
	reaper->queues = queue;
	return queue;
}

/* Takes the entry over. Without a thread to be had the issue thread has to do it. */
static void add(struct bf_session *session, struct bf_reap *reap)
{
	struct bf_reaper *reaper = &session->reaper;
	struct reap_job *job = NULL;
	pthread_mutex_lock(&reaper->lock);
	struct bf_reap_queue *queue = queue_of(reaper, reap->command.context);
	bool start = queue && !queue->worked;
	if (queue) {
		*queue->last = reap;
		queue->last = &reap->next;
		queue->worked = true;
		atomic_fetch_add(&reaper->pending, 1);
	}
	pthread_mutex_unlock(&reaper->lock);
	if (!queue) {
		run(session, reap);
		free(reap);
		return;
	}
	if (!start)
		return;
	job = calloc(1, sizeof(*job));
	if (job)
		*job = (struct reap_job){ .job = { .run = run_queue }, .queue = queue };
	if (job && bf_submit(session, &job->job))
		return;
	free(job);
	work_off(session, queue);
}

void bf_reap_free(struct bf_session *session, const struct bf_command *command, uint64_t address)
{
	struct bf_reap *reap = calloc(1, sizeof(*reap));
	if (!reap) {
		bf_done(session, command, bf_memory_release(session, address), NULL, 0);
		return;
	}
	reap->command = *command;
	bool known = bf_memory_find(session, address, &reap->memory);
	if (!known) /* such as what a launch has allocated again */
		reap->memory.address = address;
	reap->node = !known || reap->memory.graph;
	atomic_fetch_add(&session->reaper.nodes, reap->node);
	add(session, reap);
}

/* The handle is gone from here on, as it is for the program. */
bool bf_reap_row(struct bf_session *session, const struct bf_frame *frame)
{
	struct bf_reap *reap = calloc(1, sizeof(*reap));
	if (!reap)
		return false;
	reap->command = *frame->command;
	reap->frame = *frame;
	reap->frame.command = &reap->command;
	const struct bf_row *row = frame->route->row;
	for (unsigned i = 0; i < row->argument_count; i++) {
		if (row->arguments[i].kind == BF_ARG_FREE_HANDLE)
			reap->handle = frame->given[i];
	}
	if (reap->handle)
		bf_memory_find(session, reap->handle, &reap->memory); /* what an unloaded module's variables took */
	bf_free_handles(session, frame);
	add(session, reap);
	return true;
}

/* ------------------------------------------------------------------ what depends on it */

static bool holds(const struct bf_reaper *reaper, uint32_t context, uint64_t handle)
{
	for (const struct bf_reap_queue *queue = reaper->queues; queue; queue = queue->next) {
		if (context != BF_ANY_CONTEXT && queue->context != context)
			continue;
		for (const struct bf_reap *reap = queue->first; reap; reap = reap->next) {
			if (!handle || reap->handle == handle)
				return true;
		}
	}
	return false;
}

void bf_reap_wait(struct bf_session *session, uint32_t context, uint64_t handle)
{
	struct bf_reaper *reaper = &session->reaper;
	if (!bf_reap_pending(session))
		return;
	pthread_mutex_lock(&reaper->lock);
	while (holds(reaper, context, handle) && !atomic_load(&session->over))
		pthread_cond_wait(&reaper->done, &reaper->lock);
	pthread_mutex_unlock(&reaper->lock);
}

/* False: none was done in that time. */
static bool one_is_done(struct bf_reaper *reaper, int wait_ms)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += wait_ms % 1000 * 1000000L;
	until.tv_sec += wait_ms / 1000 + until.tv_nsec / 1000000000L;
	until.tv_nsec %= 1000000000L;
	return pthread_cond_timedwait(&reaper->done, &reaper->lock, &until) == 0;
}

/* With all of them done soon, each in its time, the driver's own numbers are right; else what is still to be freed is
 * free already, as the program sees it. */
uint64_t bf_reap_memory(struct bf_session *session, uint32_t device, int wait_ms)
{
	struct bf_reaper *reaper = &session->reaper;
	uint64_t total = 0;
	pthread_mutex_lock(&reaper->lock);
	unsigned left = wait_ms ? atomic_load(&reaper->pending) : 0; /* what is added meanwhile is not waited for */
	for (; left && holds(reaper, BF_ANY_CONTEXT, 0); left--) {
		if (!one_is_done(reaper, wait_ms))
			break;
	}
	for (const struct bf_reap_queue *queue = reaper->queues; queue; queue = queue->next) {
		for (const struct bf_reap *reap = queue->first; reap; reap = reap->next)
			total += reap->memory.device == device ? reap->memory.size : 0;
	}
	pthread_mutex_unlock(&reaper->lock);
	return total;
}
