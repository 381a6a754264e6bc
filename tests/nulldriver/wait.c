/* SPDX-License-Identifier: Apache-2.0
 *
 * The only thing that takes time on the null driver: host functions, which a thread of its own calls, one after the other,
 * as real drivers do. Waits wait for all of them, queries say that they are not done.
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
static struct job *first, **last = &first;
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
		first = job->next;
		if (!first)
			last = &first;
		pthread_mutex_unlock(&lock);
		if (job->callback)
			job->callback(job->stream, CUDA_SUCCESS, job->data);
		else
			job->function(job->data);
		free(job);
		pthread_mutex_lock(&lock);
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

static CUresult wait_for_all(void)
{
	if (__builtin_expect(!atomic_load_explicit(&pending, memory_order_acquire), 1))
		return CUDA_SUCCESS;
	if (pthread_equal(pthread_self(), thread))
		return CUDA_ERROR_NOT_PERMITTED;
	pthread_mutex_lock(&lock);
	while (atomic_load(&pending))
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
	return CUDA_SUCCESS;
}

static CUresult ask(void)
{
	return atomic_load_explicit(&pending, memory_order_acquire) ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
}

CUresult cuLaunchHostFunc(CUstream stream, CUhostFn function, void *data)
{
	NULL_ENTER();
	return enqueue((struct job){ .function = function, .data = data });
}

CUresult cuStreamAddCallback(CUstream stream, CUstreamCallback callback, void *data, unsigned int flags)
{
	NULL_ENTER();
	return enqueue((struct job){ .callback = callback, .stream = stream, .data = data });
}

CUresult cuStreamSynchronize(CUstream stream)
{
	NULL_ENTER();
	return wait_for_all();
}

CUresult cuEventSynchronize(CUevent event)
{
	NULL_ENTER();
	return wait_for_all();
}

CUresult cuCtxSynchronize(void)
{
	NULL_ENTER();
	return wait_for_all();
}

CUresult cuStreamQuery(CUstream stream)
{
	NULL_ENTER();
	return ask();
}

CUresult cuEventQuery(CUevent event)
{
	NULL_ENTER();
	return ask();
}
