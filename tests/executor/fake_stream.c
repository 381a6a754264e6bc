/* SPDX-License-Identifier: Apache-2.0
 *
 * The fake driver's streams, which are threads, and events.
 */
#define _GNU_SOURCE
#include "fake_driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static unsigned busy; /* operations of all streams */

static void run(struct work *work)
{
	switch (work->what) {
	case STORE: __atomic_store_n((uint8_t *)work->to, (uint8_t)work->number, __ATOMIC_RELEASE); break;
	case SPIN:
		while (!__atomic_load_n((uint8_t *)work->to, __ATOMIC_ACQUIRE))
			usleep(50);
		break;
	case FAULT:
		fprintf(stderr, "the kernel is at fault\n");
		sticky = CUDA_ERROR_ILLEGAL_ADDRESS;
		break;
	case PRINT:
		fprintf(stdout, "printed by a kernel\n");
		fflush(stdout);
		break;
	case NAP: usleep(work->number * 1000); break;
	case COPY: memcpy(work->to, work->from, work->size); break;
	case FILL: memset(work->to, (int)work->number, work->size); break;
	case HOST: work->host(work->to); break;
	case CALLBACK: work->callback(NULL, CUDA_SUCCESS, work->to); break;
	case FREE:
		pthread_mutex_lock(&lock);
		give_back((CUdeviceptr)(uintptr_t)work->to);
		pthread_mutex_unlock(&lock);
		break;
	default: break;
	}
}

static double now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void *stream_thread(void *argument)
{
	struct stream *stream = argument;
	pthread_mutex_lock(&lock);
	for (;;) {
		while (!stream->first && !stream->stop)
			pthread_cond_wait(&changed, &lock);
		struct work *work = stream->first;
		if (!work)
			break;
		if (work->what == WAIT_EVENT) {
			while (work->event->reached < work->number)
				pthread_cond_wait(&changed, &lock);
		} else if (work->what == RECORD) {
			work->event->at_ms = now_ms();
			if (work->event->reached < work->number)
				work->event->reached = work->number;
		} else {
			pthread_mutex_unlock(&lock);
			run(work);
			pthread_mutex_lock(&lock);
			stored |= work->what == STORE;
		}
		stream->first = work->next;
		if (!stream->first)
			stream->last = &stream->first;
		stream->busy--;
		busy--;
		free(work->owned);
		free(work);
		pthread_cond_broadcast(&changed);
	}
	pthread_mutex_unlock(&lock);
	free(stream);
	return NULL;
}

struct stream *new_stream(void)
{
	struct stream *stream = calloc(1, sizeof(*stream));
	stream->object.magic = MAGIC_STREAM;
	stream->last = &stream->first;
	pthread_create(&stream->thread, NULL, stream_thread, stream);
	pthread_detach(stream->thread);
	return stream;
}

struct stream *stream_of(CUstream stream)
{
	if ((uintptr_t)stream > 2)
		return check(stream, MAGIC_STREAM, "stream");
	pthread_mutex_lock(&lock);
	if (!current->legacy)
		current->legacy = new_stream();
	pthread_mutex_unlock(&lock);
	return current->legacy;
}

static void add_locked(struct stream *stream, struct work work)
{
	struct work *copy = malloc(sizeof(*copy));
	*copy = work;
	copy->next = NULL;
	*stream->last = copy;
	stream->last = &copy->next;
	stream->busy++;
	busy++;
	pthread_cond_broadcast(&changed);
}

CUresult add(CUstream to, struct work work)
{
	if (!current)
		return CUDA_ERROR_INVALID_CONTEXT;
	struct stream *stream = stream_of(to);
	pthread_mutex_lock(&lock);
	while (queue_size && stream->busy >= queue_size)
		pthread_cond_wait(&changed, &lock);
	add_locked(stream, work);
	pthread_mutex_unlock(&lock);
	return CUDA_SUCCESS;
}

/* Like a real driver before it gives something back: whatever runs may still use it. */
void wait_idle(void)
{
	while (busy)
		pthread_cond_wait(&changed, &lock);
}

CUresult wait_for(struct stream *stream)
{
	pthread_mutex_lock(&lock);
	while (stream->busy)
		pthread_cond_wait(&changed, &lock);
	pool_shrinks();
	pthread_mutex_unlock(&lock);
	return (CUresult)sticky;
}

CUresult cuStreamCreate(CUstream *stream, unsigned flags)
{
	ENTER();
	NEED_CONTEXT();
	if (!stream)
		return CUDA_ERROR_INVALID_VALUE;
	*stream = (CUstream)new_stream();
	return CUDA_SUCCESS;
}

CUresult cuStreamDestroy_v2(CUstream handle)
{
	ENTER();
	struct stream *stream = CHECK(handle, MAGIC_STREAM, "stream to destroy");
	pthread_mutex_lock(&lock);
	stream->object.magic = 0;
	stream->stop = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	return CUDA_SUCCESS;
}

CUresult cuStreamQuery(CUstream handle)
{
	ENTER();
	NEED_CONTEXT();
	struct stream *stream = stream_of(handle);
	pthread_mutex_lock(&lock);
	bool busy = stream->busy;
	pthread_mutex_unlock(&lock);
	return busy ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream stream)
{
	ENTER();
	NEED_CONTEXT();
	return wait_for(stream_of(stream));
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent handle, unsigned flags)
{
	ENTER();
	struct event *event = CHECK(handle, MAGIC_EVENT, "event to wait for");
	return add(stream, (struct work){ .what = WAIT_EVENT, .event = event, .number = event->recorded });
}

CUresult cuLaunchHostFunc(CUstream stream, CUhostFn function, void *data)
{
	ENTER();
	return add(stream, (struct work){ .what = HOST, .host = function, .to = data });
}

CUresult cuStreamAddCallback(CUstream stream, CUstreamCallback callback, void *data, unsigned flags)
{
	ENTER();
	return add(stream, (struct work){ .what = CALLBACK, .callback = callback, .to = data });
}

/* ------------------------------------------------------------------ events: memory is never reused, only marked */

CUresult cuEventCreate(CUevent *event, unsigned flags)
{
	ENTER();
	NEED_CONTEXT();
	if (!event)
		return CUDA_ERROR_INVALID_VALUE;
	struct event *made = calloc(1, sizeof(*made));
	made->object.magic = MAGIC_EVENT;
	*event = (CUevent)made;
	return CUDA_SUCCESS;
}

CUresult cuEventDestroy_v2(CUevent event)
{
	ENTER();
	((struct event *)CHECK(event, MAGIC_EVENT, "event to destroy"))->object.magic = 0;
	return CUDA_SUCCESS;
}

CUresult cuEventRecord(CUevent handle, CUstream stream)
{
	ENTER();
	NEED_CONTEXT();
	struct event *event = CHECK(handle, MAGIC_EVENT, "event to record");
	struct stream *to = stream_of(stream);
	pthread_mutex_lock(&lock);
	add_locked(to, (struct work){ .what = RECORD, .event = event, .number = ++event->recorded });
	pthread_mutex_unlock(&lock);
	return CUDA_SUCCESS;
}

CUresult cuEventQuery(CUevent handle)
{
	ENTER();
	struct event *event = CHECK(handle, MAGIC_EVENT, "event to query");
	return event->reached < event->recorded ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
}

CUresult cuEventSynchronize(CUevent handle)
{
	ENTER();
	/* a program may destroy an event that another thread of it waits for */
	struct event *event = (struct event *)handle;
	if (!event || !event->object.magic)
		return CUDA_ERROR_INVALID_HANDLE;
	unsigned number = event->recorded;
	pthread_mutex_lock(&lock);
	while (event->reached < number)
		pthread_cond_wait(&changed, &lock);
	pool_shrinks();
	pthread_mutex_unlock(&lock);
	return (CUresult)sticky;
}

CUresult cuEventElapsedTime(float *ms, CUevent from, CUevent to)
{
	ENTER();
	struct event *start = CHECK(from, MAGIC_EVENT, "event that time starts at");
	struct event *end = CHECK(to, MAGIC_EVENT, "event that time ends at");
	if (start->reached < start->recorded || end->reached < end->recorded)
		return CUDA_ERROR_NOT_READY;
	*ms = (float)(end->at_ms - start->at_ms);
	return CUDA_SUCCESS;
}
