/* SPDX-License-Identifier: Apache-2.0
 *
 * Functions of the program in a stream. The driver calls ours in their place; it asks the client to run the
 * program's, and does not return before the client says that it has.
 */
#include "core.h"

#include <stdlib.h>

struct registered {
	struct bf_session *session;
	uint64_t function, data, stream;
	uint32_t kind, context;
	bool captured; /* a graph may call it any number of times */
};

/* One call under way, on the stack of the driver's thread. */
struct bf_fired {
	struct bf_fired *next;
	uint64_t token;
	bool done;
	pthread_cond_t returned;
};

struct announce_job {
	struct bf_job job;
	struct bf_callback callback;
};

/* The function may read what earlier copies brought, and inside a host function a driver cannot be asked
 * which have completed: another thread sends those, then the call. */
static void run_announce(struct bf_session *session, struct bf_job *job)
{
	struct announce_job *announce = (struct announce_job *)job;
	if (bf_context_ensure(session, job->context) == CUDA_SUCCESS)
		bf_settle(session);
	struct bf_reply reply = {
		.size = sizeof(reply) + sizeof(announce->callback),
		.kind = BF_CALLBACK,
	};
	bf_send(session, &reply, &announce->callback, sizeof(announce->callback), NULL, 0, NULL);
	free(announce);
}

static void fire(struct registered *registered, CUresult status)
{
	struct bf_session *session = registered->session;
	struct bf_fired fired = { .done = false };
	struct announce_job *announce = calloc(1, sizeof(*announce));
	if (!announce)
		return;
	pthread_cond_init(&fired.returned, NULL);
	pthread_mutex_lock(&session->callback_lock);
	fired.token = ++session->next_token;
	fired.next = session->fired;
	session->fired = &fired;
	pthread_mutex_unlock(&session->callback_lock);
	announce->job.run = run_announce;
	announce->job.urgent = true;
	announce->job.context = registered->context;
	announce->callback = (struct bf_callback){
		.token = fired.token,
		.function = registered->function,
		.data = registered->data,
		.stream = registered->stream,
		.kind = registered->kind,
		.status = (int32_t)status,
	};
	bool submitted = bf_submit(session, &announce->job);
	pthread_mutex_lock(&session->callback_lock);
	while (submitted && !fired.done && !atomic_load(&session->over))
		pthread_cond_wait(&fired.returned, &session->callback_lock);
	struct bf_fired **link = &session->fired;
	while (*link != &fired)
		link = &(*link)->next;
	*link = fired.next;
	pthread_mutex_unlock(&session->callback_lock);
	pthread_cond_destroy(&fired.returned);
	if (!submitted)
		free(announce);
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

void bf_op_callback_done(struct bf_session *session, const struct bf_command *command, const uint8_t *body, size_t size)
{
	uint64_t token = ((const struct bf_callback_done *)body)->token;
	pthread_mutex_lock(&session->callback_lock);
	struct bf_fired *fired = session->fired;
	while (fired && fired->token != token)
		fired = fired->next;
	if (fired) {
		fired->done = true;
		pthread_cond_signal(&fired->returned);
	}
	pthread_mutex_unlock(&session->callback_lock);
	bf_done(session, command, CUDA_SUCCESS, NULL, 0);
}
