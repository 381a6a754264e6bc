/* SPDX-License-Identifier: Apache-2.0
 *
 * Host functions: the server's stream stops at one, tells us, and goes on when we say that it has returned. They
 * run on one thread of ours, in the order the server reports them.
 */
#define _GNU_SOURCE
#include "graph.h"

#include <stdlib.h>
#include <sys/prctl.h>

struct pending {
	struct pending *next;
	struct bf_callback callback;
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct pending *first, **last;
	_Atomic uint64_t issued, done;
	bool started;
} callbacks = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .last = &callbacks.first };

enum { HOST_FUNCTION, STREAM_CALLBACK };

static void run(const struct bf_callback *callback)
{
	struct bf_callback_done done = { callback->token };
	void *data = (void *)(uintptr_t)callback->data;

	if (callback->kind == STREAM_CALLBACK)
		((CUstreamCallback)(uintptr_t)callback->function)((CUstream)(uintptr_t)callback->stream,
								  (CUresult)callback->status, data);
	else
		((CUhostFn)(uintptr_t)callback->function)(data);
	bf_post(BF_OP_CALLBACK_DONE, &done, sizeof done);
	bf_queue_flush();
}

static void *callback_main(void *unused)
{
	prctl(PR_SET_NAME, "bitfusion-calls");
	bf_self.in_callback = true;
	pthread_mutex_lock(&callbacks.lock);
	for (;;) {
		struct pending *pending = callbacks.first;

		if (!pending) {
			pthread_cond_wait(&callbacks.changed, &callbacks.lock);
			continue;
		}
		callbacks.first = pending->next;
		if (!callbacks.first)
			callbacks.last = &callbacks.first;
		pthread_mutex_unlock(&callbacks.lock);
		run(&pending->callback);
		free(pending);
		pthread_mutex_lock(&callbacks.lock);
		atomic_fetch_add(&callbacks.done, 1);
	}
	return unused;
}

/* Called by whoever reads the socket. */
void bf_callback_queue(const struct bf_callback *callback)
{
	struct pending *pending = malloc(sizeof *pending);

	if (!pending) {
		bf_connection_lost("no memory for a host function");
		return;
	}
	pending->next = NULL;
	pending->callback = *callback;
	pthread_mutex_lock(&callbacks.lock);
	*callbacks.last = pending;
	callbacks.last = &pending->next;
	pthread_cond_broadcast(&callbacks.changed);
	pthread_mutex_unlock(&callbacks.lock);
}

bool bf_callback_pending(void)
{
	return atomic_load(&callbacks.issued) != atomic_load(&callbacks.done);
}

void bf_callback_expect(unsigned count)
{
	atomic_fetch_add(&callbacks.issued, count);
}

static CUresult start_thread(void)
{
	CUresult status = CUDA_SUCCESS;

	pthread_mutex_lock(&callbacks.lock);
	if (!callbacks.started) {
		if (bf_thread_start(callback_main))
			status = CUDA_ERROR_OUT_OF_MEMORY;
		else
			callbacks.started = true;
	}
	pthread_mutex_unlock(&callbacks.lock);
	if (!status)
		bf_reply_start_reader();
	return status;
}

static CUresult launch(CUstream stream, uint64_t function, void *data, unsigned kind, bool per_thread)
{
	struct bf_host_function body = { .function = function, .data = BF_ARG(data), .kind = kind };
	CUresult status = bf_check();
	uint64_t capture = 0;

	if (!status)
		status = bf_context_check();
	if (!status)
		status = bf_stream_resolve(&stream, per_thread);
	if (!status)
		status = bf_stream_check(stream);
	if (!status && !function)
		status = CUDA_ERROR_INVALID_VALUE;
	if (!status)
		status = bf_capture_find(stream, &capture);
	if (!status && capture)
		status = kind == HOST_FUNCTION ? bf_capture_function(capture) : CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	if (!status)
		status = start_thread();
	if (status)
		return status;
	body.stream = BF_ARG(stream);
	if (!capture) /* else each launch of the graph will issue it */
		bf_callback_expect(1);
	return bf_post(BF_OP_HOST_FUNCTION, &body, sizeof body);
}

BF_EXPORT CUresult cuLaunchHostFunc(CUstream hStream, CUhostFn fn, void *userData)
{
	return launch(hStream, (uint64_t)(uintptr_t)fn, userData, HOST_FUNCTION, false);
}

BF_EXPORT CUresult cuLaunchHostFunc_ptsz(CUstream hStream, CUhostFn fn, void *userData)
{
	return launch(hStream, (uint64_t)(uintptr_t)fn, userData, HOST_FUNCTION, true);
}

BF_EXPORT CUresult cuStreamAddCallback(CUstream hStream, CUstreamCallback callback, void *userData, unsigned int flags)
{
	if (flags)
		return bf_check() ? bf_check() : CUDA_ERROR_INVALID_VALUE;
	return launch(hStream, (uint64_t)(uintptr_t)callback, userData, STREAM_CALLBACK, false);
}

BF_EXPORT CUresult cuStreamAddCallback_ptsz(CUstream hStream, CUstreamCallback callback, void *userData,
					    unsigned int flags)
{
	if (flags)
		return bf_check() ? bf_check() : CUDA_ERROR_INVALID_VALUE;
	return launch(hStream, (uint64_t)(uintptr_t)callback, userData, STREAM_CALLBACK, true);
}
