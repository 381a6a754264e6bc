/* SPDX-License-Identifier: Apache-2.0
 *
 * What captures forbid to calls beside them. Whom a capture is in the way of is said by its mode, by the thread that
 * began it and by the mode of the thread that calls. The worker's driver knows none of that, because one thread makes
 * all calls there (and is allowed all), so that it is decided here.
 */
#define _GNU_SOURCE
#include "capture.h"

static bool forbids(const struct bf_capture *capture)
{
	if (capture->mode == CU_STREAM_CAPTURE_MODE_RELAXED)
		return false;
	if (pthread_equal(capture->thread, pthread_self()))
		return true;
	return capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL && bf_self.capture_mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
}

/* With the lock held: the stream whose question breaks the capture off in the worker too, or 0 where it is broken. */
static uint64_t break_off(struct bf_capture *capture)
{
	uint64_t stream = capture->broken ? 0 : capture->origin;

	capture->broken = true;
	return stream;
}

/* A driver breaks off the capture of a stream that is asked whether its work is over. */
static void ask(uint64_t stream)
{
	if (stream)
		BF_CALL(cuStreamQuery, stream);
}

/* Whether one forbids; *stream: that of one which does not know yet that it is broken, if there is such a one. */
static bool find_breach(uint64_t *stream)
{
	bool breach = false;

	*stream = 0;
	pthread_mutex_lock(&bf_capture_lock);
	for (struct bf_capture *capture = bf_open_captures; capture && !*stream; capture = capture->next) {
		if (!forbids(capture))
			continue;
		breach = true;
		*stream = break_off(capture);
	}
	pthread_mutex_unlock(&bf_capture_lock);
	return breach;
}

CUresult bf_capture_check_unsafe(void)
{
	uint64_t stream;
	bool breach;

	if (bf_self.capture_mode == CU_STREAM_CAPTURE_MODE_RELAXED)
		return CUDA_SUCCESS;
	while ((breach = find_breach(&stream)) && stream)
		ask(stream);
	return breach ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : CUDA_SUCCESS;
}

CUresult bf_capture_refuse(uint64_t number, const char *what)
{
	struct bf_capture *capture;
	uint64_t stream = 0;

	bf_tell("a stream capture is broken off: %s cannot be captured on a server's GPU", what);
	pthread_mutex_lock(&bf_capture_lock);
	capture = bf_capture_numbered(number);
	if (capture)
		stream = break_off(capture);
	pthread_mutex_unlock(&bf_capture_lock);
	ask(stream);
	return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}

CUresult bf_capture_ask_broken(CUstream stream)
{
	uint64_t number = bf_capture_within(stream);
	const struct bf_capture *capture;
	bool broken;

	pthread_mutex_lock(&bf_capture_lock);
	capture = bf_capture_numbered(number);
	broken = capture && capture->broken;
	pthread_mutex_unlock(&bf_capture_lock);
	return broken ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS;
}
