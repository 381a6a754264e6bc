/* SPDX-License-Identifier: Apache-2.0
 *
 * The only thing that takes time on the null driver: host functions, which a thread of its own calls, one after the other,
 * as real drivers do. Waits wait for all of them, queries say that they are not done; those of a stream that was created
 * mean its own.
 */
#include "null.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct job {
	struct job *next;
	CUhostFn function;
	CUstreamCallback callback;
	CUstream stream;
	void *data;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct job *first, **last = &first; /* the first one may be running */
static atomic_uint pending;
static int started;
static pthread_t thread;

static void *run_jobs(void *unused)
{
	for (;;) {
		struct job *job;

		pthread_mutex_lock(&lock);
		while (!first)
			pthread_cond_wait(&changed, &lock);
		job = first;
		pthread_mutex_unlock(&lock);
		if (job->callback)
			job->callback(job->stream, CUDA_SUCCESS, job->data);
		else
			job->function(job->data);
		pthread_mutex_lock(&lock);
		first = job->next;
		if (!first)
			last = &first;
		free(job);
		atomic_fetch_sub(&pending, 1);
		pthread_cond_broadcast(&changed);
		pthread_mutex_unlock(&lock);
	}
	return NULL;
}

static CUresult enqueue(struct job job)
{
	struct job *own = malloc(sizeof *own);

	if (!own)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*own = job;
	pthread_mutex_lock(&lock);
	if (!started && !pthread_create(&thread, NULL, run_jobs, NULL))
		started = 1;
	*last = own;
	last = &own->next;
	atomic_fetch_add(&pending, 1);
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	return started ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

/* With the lock held. */
static int is_busy(CUstream stream)
{
	const struct job *job = first;

	if ((uintptr_t)stream <= (uintptr_t)CU_STREAM_PER_THREAD)
		return job != NULL;
	while (job && job->stream != stream)
		job = job->next;
	return job != NULL;
}

static CUresult wait_for(CUstream stream)
{
	if (__builtin_expect(!atomic_load_explicit(&pending, memory_order_acquire), 1))
		return CUDA_SUCCESS;
	if (pthread_equal(pthread_self(), thread))
		return CUDA_ERROR_NOT_PERMITTED;
	pthread_mutex_lock(&lock);
	while (is_busy(stream))
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
	return CUDA_SUCCESS;
}

static CUresult ask(CUstream stream)
{
	int busy;

	if (__builtin_expect(!atomic_load_explicit(&pending, memory_order_acquire), 1))
		return CUDA_SUCCESS;
	pthread_mutex_lock(&lock);
	busy = is_busy(stream);
	pthread_mutex_unlock(&lock);
	return busy ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
}

CUresult cuLaunchHostFunc(CUstream stream, CUhostFn function, void *data)
{
	NULL_ENTER();
	return enqueue((struct job){ .function = function, .stream = stream, .data = data });
}

CUresult cuStreamAddCallback(CUstream stream, CUstreamCallback callback, void *data, unsigned int flags)
{
	NULL_ENTER();
	return enqueue((struct job){ .callback = callback, .stream = stream, .data = data });
}

CUresult cuStreamSynchronize(CUstream stream)
{
	NULL_ENTER();
	return wait_for(stream);
}

CUresult cuEventSynchronize(CUevent event)
{
	NULL_ENTER();
	return wait_for(NULL);
}

CUresult cuCtxSynchronize(void)
{
	NULL_ENTER();
	return wait_for(NULL);
}

CUresult cuStreamQuery(CUstream stream)
{
	NULL_ENTER();
	return ask(stream);
}

CUresult cuEventQuery(CUevent event)
{
	NULL_ENTER();
	return ask(NULL);
}
