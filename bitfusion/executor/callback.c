/* SPDX-License-Identifier: Apache-2.0
 *
 * Functions of the program in a stream. The driver calls ours in their place; it asks the client to run the
 * program's, and does not return before the client says that it has.
 */
#include "core.h"
#include "row.h"

#include <stdlib.h>

struct registered {
	struct bf_session *session;
	uint64_t function, data, stream;
	uint32_t kind, context;
	bool captured; /* or a node's: a graph may call it any number of times */
};

static void fire(struct registered *registered, CUresult status)
{
	struct bf_session *session = registered->session;
	struct bf_callback callback = {
		.function = registered->function,
		.data = registered->data,
		.stream = registered->stream,
		.kind = registered->kind,
		.status = (int32_t)status,
	};
	bf_ask(session, registered->context, BF_CALLBACK, &callback, sizeof(callback), NULL, 0);
	if (registered->captured)
		return;
	atomic_fetch_sub(&session->host_functions, 1);
	free(registered);
}

static void host_function(void *data)
{
	fire(data, CUDA_SUCCESS);
}

static void stream_callback(CUstream stream, CUresult status, void *data)
{
	fire(data, status);
}

bool bf_host_function_pending(struct bf_session *session)
{
	return atomic_load_explicit(&session->host_functions, memory_order_acquire) != 0;
}

void bf_op_host_function(struct bf_session *session, const struct bf_command *command, const uint8_t *body, size_t size)
{
	const struct bf_host_function *wanted = (const struct bf_host_function *)body;
	struct bf_driver *driver = session->driver;
	struct registered *registered = calloc(1, sizeof(*registered));
	uint64_t value;
	CUresult status = registered ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
	if (status == CUDA_SUCCESS && !bf_handle_resolve(&session->handles, BF_STREAM, wanted->stream, &value))
		status = CUDA_ERROR_INVALID_HANDLE;
	if (status != CUDA_SUCCESS) {
		free(registered);
		bf_done(session, command, status, NULL, 0);
		return;
	}
	CUstream stream = (CUstream)(uintptr_t)value;
	CUstreamCaptureStatus capturing = CU_STREAM_CAPTURE_STATUS_NONE;
	if (session->captures && driver->cuStreamIsCapturing)
		driver->cuStreamIsCapturing(stream, &capturing);
	*registered = (struct registered){ session,
					   wanted->function,
					   wanted->data,
					   wanted->stream,
					   wanted->kind,
					   command->context,
					   capturing != CU_STREAM_CAPTURE_STATUS_NONE };
	bf_ahead_start(session);
	atomic_fetch_add(&session->host_functions, 1);
	if (wanted->kind == 1)
		status = driver->cuStreamAddCallback
				 ? driver->cuStreamAddCallback(stream, stream_callback, registered, 0)
				 : CUDA_ERROR_NOT_SUPPORTED;
	else
		status = driver->cuLaunchHostFunc ? driver->cuLaunchHostFunc(stream, host_function, registered)
						  : CUDA_ERROR_NOT_SUPPORTED;
	if (status != CUDA_SUCCESS) {
		atomic_fetch_sub(&session->host_functions, 1);
		free(registered);
	}
	bf_done(session, command, status, NULL, 0);
}

/* ------------------------------------------------------------------ as nodes of graphs made by hand */

/* The client gives a number of its own for a function, and its parameters come last. */
CUresult bf_node_function(struct bf_session *session, struct bf_frame *frame)
{
	uint64_t *last = &frame->argument[frame->route->row->argument_count - 1];
	const CUDA_HOST_NODE_PARAMS *wanted = (const CUDA_HOST_NODE_PARAMS *)(uintptr_t)*last;
	if (!wanted)
		return CUDA_ERROR_INVALID_VALUE;
	struct registered *registered = calloc(1, sizeof(*registered));
	if (!registered)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*registered = (struct registered){ .session = session,
					   .function = (uint64_t)(uintptr_t)wanted->userData,
					   .context = frame->command->context,
					   .captured = true };
	const CUDA_HOST_NODE_PARAMS params = { host_function, registered };
	*last = (uint64_t)(uintptr_t)&params;
	bf_ahead_start(session);
	CUresult status = bf_invoke(frame);
	if (status != CUDA_SUCCESS)
		free(registered);
	else
		atomic_fetch_add(&session->host_functions, 1);
	return status;
}

uint64_t bf_host_function_number(const CUDA_HOST_NODE_PARAMS *params)
{
	return params->fn == host_function ? ((const struct registered *)params->userData)->function : 0;
}
