/* SPDX-License-Identifier: Apache-2.0
 *
 * What CUDA keeps per thread: the stack of contexts, and the thread's own default stream in each of them.
 */
#define _GNU_SOURCE
#include "proxy.h"

#include <stdlib.h>

struct bf_thread_stream {
	struct bf_thread_stream *next;
	uint32_t context;
	CUstream stream;
};

__thread struct bf_thread bf_self;

static pthread_key_t key;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;

static void thread_ends(void *value)
{
	struct bf_thread *self = value;

	while (self->streams) {
		struct bf_thread_stream *own = self->streams;

		self->streams = own->next;
		/* any context serves for this; the executor knows the stream's own */
		if (bf_handle_find(BF_STREAM, (uint64_t)(uintptr_t)own->stream) && !bf_check()) {
			self->current = own->context;
			cuStreamDestroy_v2(own->stream);
		}
		free(own);
	}
	free(self->stack);
	self->stack = NULL;
	self->current = self->depth = self->capacity = 0;
}

static void make_key(void)
{
	if (pthread_key_create(&key, thread_ends))
		bf_debug("cannot watch for the end of threads, ignoring");
}

void bf_thread_watch(void)
{
	pthread_once(&key_once, make_key);
	if (!pthread_getspecific(key))
		pthread_setspecific(key, &bf_self);
}

static struct bf_thread_stream *find_own(void)
{
	for (struct bf_thread_stream *own = bf_self.streams; own; own = own->next)
		if (own->context == bf_self.current)
			return own;
	return NULL;
}

/* Made at first use: a blocking stream, as CUDA's per-thread one is. One that died with its context is made anew. */
CUresult bf_thread_stream(CUstream *stream)
{
	struct bf_thread_stream *own;
	CUresult status;

	if (!bf_self.current)
		return CUDA_ERROR_INVALID_CONTEXT;
	own = find_own();
	if (!own) {
		own = calloc(1, sizeof *own);
		if (!own)
			return CUDA_ERROR_OUT_OF_MEMORY;
		own->context = bf_self.current;
		own->next = bf_self.streams;
		bf_self.streams = own;
		bf_thread_watch();
	}
	if (!own->stream || !bf_handle_find(BF_STREAM, (uint64_t)(uintptr_t)own->stream)) {
		status = cuStreamCreate(&own->stream, CU_STREAM_DEFAULT);
		if (status)
			return status;
	}
	*stream = own->stream;
	return CUDA_SUCCESS;
}

BF_EXPORT CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode)
{
	CUstreamCaptureMode before = (CUstreamCaptureMode)bf_self.capture_mode;
	CUresult status = bf_check();

	if (status)
		return status;
	if (!mode || (unsigned)*mode > CU_STREAM_CAPTURE_MODE_RELAXED)
		return CUDA_ERROR_INVALID_VALUE;
	bf_self.capture_mode = (int)*mode;
	*mode = before;
	return CUDA_SUCCESS;
}
