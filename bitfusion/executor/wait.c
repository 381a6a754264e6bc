/* SPDX-License-Identifier: Apache-2.0
 *
 * Calls that wait for the device. The issue thread looks for a moment whether the wait is over already;
 * otherwise a waiter takes it, so that the stream goes on.
 */
#include "clock.h"
#include "core.h"

#include <sched.h>
#include <stdlib.h>

enum { MAX_WAITERS = 256, WAITER_STACK = 1 << 20 };

/* ------------------------------------------------------------------ waiters */

void bf_waiters_init(struct bf_session *session)
{
	struct bf_waiters *waiters = &session->waiters;
	pthread_mutex_init(&waiters->lock, NULL);
	pthread_cond_init(&waiters->work, NULL);
	waiters->last = &waiters->first;
}

static void *waiter(void *argument)
{
	struct bf_session *session = argument;
	struct bf_waiters *waiters = &session->waiters;
	pthread_mutex_lock(&waiters->lock);
	for (;;) {
		waiters->idle++;
		while (!waiters->first)
			pthread_cond_wait(&waiters->work, &waiters->lock);
		waiters->idle--;
		struct bf_job *job = waiters->first;
		waiters->queued--;
		waiters->first = job->next;
		if (!waiters->first)
			waiters->last = &waiters->first;
		pthread_mutex_unlock(&waiters->lock);
		job->run(session, job);
		pthread_mutex_lock(&waiters->lock);
	}
	return NULL;
}

static bool start_waiter(struct bf_session *session)
{
	pthread_t thread;
	pthread_attr_t attributes;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, WAITER_STACK);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	bool started = pthread_create(&thread, &attributes, waiter, session) == 0;
	pthread_attr_destroy(&attributes);
	return started;
}

bool bf_submit(struct bf_session *session, struct bf_job *job)
{
	struct bf_waiters *waiters = &session->waiters;
	pthread_mutex_lock(&waiters->lock);
	/* a host function's call must get through even when every waiter waits for it */
	bool room = waiters->threads < MAX_WAITERS || job->urgent;
	if (waiters->queued >= waiters->idle && room && start_waiter(session))
		waiters->threads++;
	bool taken = waiters->threads > 0;
	if (taken) {
		struct bf_job **place = job->urgent ? &waiters->first : waiters->last;
		waiters->queued++;
		job->next = *place;
		*place = job;
		if (!job->next)
			waiters->last = &job->next;
		pthread_cond_signal(&waiters->work);
	}
	pthread_mutex_unlock(&waiters->lock);
	return taken;
}

/* ------------------------------------------------------------------ waiting on the issue thread */

static inline void relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

struct polled {
	CUstream stream;
	CUevent event;
};

static CUresult poll_once(struct bf_session *session, const struct polled *polled)
{
	if (polled->event)
		return session->driver->cuEventQuery(polled->event);
	return session->driver->cuStreamQuery(polled->stream);
}

static CUresult poll_briefly(struct bf_session *session, const struct polled *polled)
{
	CUresult status = poll_once(session, polled);
	if (status != CUDA_ERROR_NOT_READY || !session->spin_ns)
		return status;
	uint64_t until = bf_now_ns() + session->spin_ns;
	/* commands that have arrived already must not wait for this one */
	if (session->input.start != session->input.end)
		return status;
	do {
		for (int i = 0; i < 4; i++) {
			relax();
			status = poll_once(session, polled);
			if (status != CUDA_ERROR_NOT_READY)
				return status;
		}
		if (bf_input_more(session, false) != 0)
			return status;
		sched_yield(); /* a driver on the CPU needs the cores that we poll on */
	} while (bf_now_ns() < until);
	return status;
}

CUresult bf_wait_briefly(struct bf_session *session, CUstream stream)
{
	return poll_briefly(session, &(struct polled){ .stream = stream });
}

/* ------------------------------------------------------------------ synchronize rows */

struct wait_job {
	struct bf_job job;
	struct bf_route *route;
	uint64_t argument;
	struct bf_marker *marker; /* of the work that had been enqueued when the call was issued */
};

/* A client that waits is not idle. */
static void count_wait(struct bf_session *session, int change)
{
	if (session->ledger)
		bf_ledger_waits(session->ledger, session->options.slot, change);
}

static void run_wait(struct bf_session *session, struct bf_job *job)
{
	struct wait_job *wait = (struct wait_job *)job;
	CUresult status = bf_context_ensure(session, job->context);
	if (status == CUDA_SUCCESS && wait->marker)
		status = session->driver->cuEventSynchronize(wait->marker->event);
	else if (status == CUDA_SUCCESS)
		status = ((CUresult (*)(uint64_t))wait->route->function)(wait->argument);
	if (wait->marker)
		bf_marker_give(session, wait->marker);
	count_wait(session, -1);
	bf_settle(session);
	bf_reply(session, job->request, status, NULL, 0);
	free(wait);
}

uint32_t bf_stream_context(struct bf_session *session, const struct bf_command *command, uint64_t number)
{
	struct bf_entry *entry =
		number > 2 ? bf_handle_entry(&session->handles, BF_STREAM, BF_HANDLE_INDEX(number)) : NULL;
	return entry && entry->owner >> 24 == BF_CONTEXT ? entry->owner & 0xffffff : command->context;
}

/* ------------------------------------------------------------------ progress of a stream */

static void tell_progress(struct bf_session *session, uint32_t request)
{
	struct bf_reply reply = { .size = sizeof(reply), .kind = BF_PROGRESS, .request = request };
	bf_send(session, &reply, NULL, 0, NULL, 0, NULL);
}

static void run_progress(struct bf_session *session, struct bf_job *job)
{
	struct wait_job *wait = (struct wait_job *)job;
	if (bf_context_ensure(session, job->context) == CUDA_SUCCESS)
		session->driver->cuEventSynchronize(wait->marker->event);
	bf_marker_give(session, wait->marker);
	tell_progress(session, job->request);
	free(wait);
}

bool bf_is_capturing(struct bf_session *session, CUstream stream)
{
	CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
	return session->captures && (session->driver->cuStreamIsCapturing(stream, &status) != CUDA_SUCCESS ||
				     status != CU_STREAM_CAPTURE_STATUS_NONE);
}

/* False: there is nothing to wait for, or no way to. */
static bool await_progress(struct bf_session *session, const struct bf_command *command, uint64_t number,
			   uint64_t value)
{
	CUstream stream = (CUstream)(uintptr_t)value;
	CUresult status = bf_context_ensure(session, bf_stream_context(session, command, number));
	struct wait_job *wait = calloc(1, sizeof(*wait));
	if (!wait || status != CUDA_SUCCESS || bf_is_capturing(session, stream)) {
		free(wait);
		return false;
	}
	wait->job.run = run_progress;
	wait->job.request = command->request;
	wait->job.context = bf_context_current - 1;
	wait->marker = bf_marker_take(session, &status);
	if (wait->marker)
		status = session->driver->cuEventRecord(wait->marker->event, stream);
	if (wait->marker && status == CUDA_SUCCESS && bf_submit(session, &wait->job))
		return true;
	if (wait->marker)
		bf_marker_give(session, wait->marker);
	free(wait);
	return false;
}

void bf_op_progress(struct bf_session *session, const struct bf_command *command, const uint8_t *body, size_t size)
{
	uint64_t number = ((const struct bf_progress *)body)->stream, value;
	if (!(command->flags & BF_WANTS_REPLY)) {
		bf_violation(session, "a question about a stream's progress without a number");
		return;
	}
	if (!bf_handle_resolve(&session->handles, BF_STREAM, number, &value) ||
	    !await_progress(session, command, number, value))
		tell_progress(session, command->request);
}

static enum bf_wait_kind wait_kind(const struct bf_frame *frame)
{
	const struct bf_row *row = frame->route->row;
	if (row->argument_count == 0 || row->arguments[0].handle == BF_CONTEXT)
		return BF_WAIT_CONTEXT;
	return row->arguments[0].handle == BF_STREAM ? BF_WAIT_STREAM : BF_WAIT_EVENT;
}

/* Hands the wait over; a stream's is pinned to what had been enqueued by now. */
static void wait_elsewhere(struct bf_session *session, struct bf_frame *frame, enum bf_wait_kind kind)
{
	struct wait_job *wait = calloc(1, sizeof(*wait));
	CUresult status = wait ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
	uint32_t context = bf_stream_context(session, frame->command, kind == BF_WAIT_STREAM ? frame->given[0] : 0);
	if (status == CUDA_SUCCESS && kind == BF_WAIT_STREAM)
		status = bf_context_ensure(session, context);
	if (status == CUDA_SUCCESS && kind == BF_WAIT_STREAM) {
		wait->marker = bf_marker_take(session, &status);
		if (wait->marker)
			status = session->driver->cuEventRecord(wait->marker->event,
								(CUstream)(uintptr_t)frame->argument[0]);
	}
	if (status == CUDA_SUCCESS) {
		wait->job.run = run_wait;
		wait->job.request = frame->command->request;
		wait->job.context = context;
		wait->route = frame->route;
		wait->argument = frame->argument[0];
		count_wait(session, 1);
		if (bf_submit(session, &wait->job))
			return;
		count_wait(session, -1);
		status = CUDA_ERROR_OUT_OF_MEMORY;
	}
	if (wait && wait->marker)
		bf_marker_give(session, wait->marker);
	free(wait);
	bf_done(session, frame->command, status, NULL, 0);
}

void bf_wait_row(struct bf_session *session, struct bf_frame *frame)
{
	enum bf_wait_kind kind = wait_kind(frame);
	CUresult status = CUDA_SUCCESS;
	struct polled polled = { 0 };
	if (kind == BF_WAIT_STREAM)
		polled.stream = (CUstream)(uintptr_t)frame->argument[0];
	else if (kind == BF_WAIT_EVENT)
		polled.event = (CUevent)(uintptr_t)frame->argument[0];
	if (kind == BF_WAIT_STREAM || polled.event)
		status = poll_briefly(session, &polled);
	if (kind == BF_WAIT_CONTEXT || status == CUDA_ERROR_NOT_READY) {
		wait_elsewhere(session, frame, kind);
		return;
	}
	/* also when a query said it is over, or failed: only a real wait makes a driver hand out what kernels print */
	CUresult waited = bf_invoke(frame);
	if (status == CUDA_SUCCESS)
		status = waited;
	bf_settle(session);
	bf_done(session, frame->command, status, NULL, 0);
}

void bf_settle(struct bf_session *session)
{
	if (atomic_load_explicit(&session->pending_count, memory_order_acquire))
		bf_copy_deliver(session);
	bf_freed_look(session);
	bf_output_drain(session, false);
}
