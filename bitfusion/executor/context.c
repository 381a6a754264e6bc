/* SPDX-License-Identifier: Apache-2.0
 *
 * Contexts: a command names the context of the thread that sent it, and it is made current on whichever
 * thread of ours carries the command out.
 */
#include "core.h"

__thread uint32_t bf_context_current;
__thread uint32_t bf_context_seen;

/* A primary context that nobody has retained comes to life when it is used, as after cuCtxSetCurrent. */
static CUresult activate(struct bf_session *session, uint32_t index, uint64_t *context)
{
	uint32_t device = index - 1;
	CUcontext primary = NULL;
	pthread_mutex_lock(&session->context_lock);
	CUresult status = CUDA_SUCCESS;
	if (!bf_handle_resolve(&session->handles, BF_CONTEXT, BF_HANDLE(BF_CONTEXT, index), context)) {
		status = session->driver->cuDevicePrimaryCtxRetain(&primary, session->ordinal[device]);
		if (status == CUDA_SUCCESS) {
			session->implicit[device] = true;
			*context = (uint64_t)(uintptr_t)primary;
			bf_handle_bind(&session->handles, BF_CONTEXT, BF_HANDLE(BF_CONTEXT, index), *context, 0);
		}
	}
	pthread_mutex_unlock(&session->context_lock);
	return status;
}

static CUresult resolve(struct bf_session *session, uint32_t index, uint64_t *context)
{
	if (index == 0 || index >= BF_MAX_HANDLES) {
		*context = 0;
		return index ? CUDA_ERROR_INVALID_CONTEXT : CUDA_SUCCESS;
	}
	if (bf_handle_resolve(&session->handles, BF_CONTEXT, BF_HANDLE(BF_CONTEXT, index), context))
		return CUDA_SUCCESS;
	if (index > session->options.device_count)
		return CUDA_ERROR_INVALID_CONTEXT;
	return activate(session, index, context);
}

bool bf_context_resolve(struct bf_session *session, uint32_t index, uint64_t *context)
{
	return resolve(session, index, context) == CUDA_SUCCESS;
}

/* One thread of ours makes the calls of all of the program's, so that what a capture forbids to the others must
 * be allowed here. */
static void relax(const struct bf_driver *driver)
{
	static __thread bool relaxed;
	CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
	if (!relaxed && driver->cuThreadExchangeStreamCaptureMode)
		driver->cuThreadExchangeStreamCaptureMode(&mode);
	relaxed = true;
}

CUresult bf_context_use(struct bf_session *session, uint32_t index)
{
	uint64_t context;
	uint32_t generation = atomic_load(&session->context_generation);
	CUresult status = resolve(session, index, &context);
	if (status == CUDA_SUCCESS)
		status = session->driver->cuCtxSetCurrent((CUcontext)(uintptr_t)context);
	relax(session->driver);
	bf_context_current = status == CUDA_SUCCESS ? index + 1 : 0;
	bf_context_seen = generation;
	return status;
}

int bf_device_of(struct bf_session *session, uint64_t ordinal)
{
	for (uint32_t i = 0; i < session->options.device_count; i++) {
		if (session->ordinal[i] == (CUdevice)ordinal)
			return (int)i;
	}
	return -1;
}

CUresult bf_context_device(struct bf_session *session, int *device)
{
	CUdevice ordinal;
	CUresult status = session->driver->cuCtxGetDevice(&ordinal);
	*device = status == CUDA_SUCCESS ? bf_device_of(session, (uint64_t)ordinal) : -1;
	return status == CUDA_SUCCESS && *device < 0 ? CUDA_ERROR_INVALID_DEVICE : status;
}
