/* SPDX-License-Identifier: Apache-2.0
 *
 * Work that may use shared memory, and whose stream nobody can wait for: the stream is being destroyed, or the work was
 * sent before there was such memory. A stream of ours, the context's heir, waits for it in its place, by events: so
 * nothing here blocks, and captures elsewhere go on.
 */
#define _GNU_SOURCE
#include "graph.h"
#include "twin.h"

static _Atomic unsigned inheriting; /* threads that are about to look at all streams: none may go before */
static pthread_mutex_t ends = PTHREAD_MUTEX_INITIALIZER;

void bf_ends_hold(void)
{
	pthread_mutex_lock(&ends);
}

void bf_ends_release(void)
{
	pthread_mutex_unlock(&ends);
}

/* With the lock held. */
static CUresult find_heir(CUstream *heir)
{
	struct bf_carrier *carrier;
	CUresult status = bf_carrier_find(&carrier);

	if (!status && !carrier->heir)
		status = cuStreamCreate(&carrier->heir, CU_STREAM_NON_BLOCKING);
	if (!status)
		*heir = carrier->heir;
	return status;
}

bool bf_is_heir(CUstream stream)
{
	const struct bf_carrier *carrier = bf_carriers();

	while (carrier && carrier->heir != stream)
		carrier = carrier->next;
	return stream && carrier;
}

/* ------------------------------------------------------------------ without the lock, as all work is sent */

static CUresult start_heir(CUstream *heir)
{
	CUresult status;

	bf_shared_lock();
	status = find_heir(heir);
	if (!status)
		status = bf_flight_start(*heir);
	bf_shared_unlock();
	return status;
}

/* What has ended is no more named to the server, which would tell the program of an invalid handle. */
static bool is_there(CUstream stream)
{
	const struct bf_context *context = bf_context_at(bf_self.current);
	const struct bf_stream *entry = bf_handle_find(BF_STREAM, BF_ARG(stream));

	return context && bf_is_alive(&context->entry) && !atomic_load(&context->ending) &&
	       (!context->primary || atomic_load(&context->active)) && (entry || (uintptr_t)stream <= 2);
}

static CUresult wait_for(CUstream stream, CUstream heir)
{
	uint64_t event = 0;
	CUresult status = BF_CALL(cuEventCreate, BF_ARG(&event), CU_EVENT_DISABLE_TIMING);

	if (!status)
		status = BF_CALL(cuEventRecord, event, BF_ARG(stream));
	if (!status)
		status = BF_CALL(cuStreamWaitEvent, BF_ARG(heir), event, 0);
	if (event)
		BF_CALL(cuEventDestroy_v2, event);
	return status;
}

/* While streams are kept from ending nothing may wait for what they have queued. */
static CUresult wait_for_one_that_is_there(CUstream stream, CUstream heir)
{
	CUresult status = CUDA_SUCCESS;

	bf_stream_admit(stream, 0);
	bf_stream_admit(heir, 0);
	bf_ends_hold();
	bf_self.admitted = true;
	if (is_there(stream))
		status = wait_for(stream, heir);
	bf_self.admitted = false;
	bf_ends_release();
	return status;
}

/* What a stream of the current context has now. Another thread may end it meanwhile. */
static CUresult inherit(CUstream stream)
{
	uint64_t capture;
	CUresult status = bf_capture_find(stream, &capture);
	CUstream heir = NULL;

	if (!status && capture)
		status = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	if (!status)
		status = start_heir(&heir);
	if (status)
		return status;
	status = wait_for_one_that_is_there(stream, heir);
	bf_shared_after(heir);
	return status;
}

void bf_shared_end_stream(CUstream stream)
{
	const struct bf_stream *entry = bf_handle_find(BF_STREAM, BF_ARG(stream));
	uint32_t before = bf_self.current;
	CUresult status;
	bool known;

	bf_shared_lock();
	known = entry && (atomic_load(&inheriting) || bf_flight_known(stream));
	bf_shared_unlock();
	if (!known)
		return;
	bf_self.current = entry->entry.context;
	status = inherit(stream);
	bf_shared_lock();
	bf_flight_end(stream, !status);
	bf_shared_unlock();
	bf_self.current = before;
}

static void inherit_context(uint32_t index)
{
	const struct bf_context *context = bf_context_at(index);

	if (!context || !bf_is_alive(&context->entry) || (context->primary && !atomic_load(&context->active)))
		return;
	bf_self.current = index;
	inherit(CU_STREAM_LEGACY);
	for (uint32_t i = 1; i < bf_handle_count(BF_STREAM); i++) {
		const struct bf_stream *stream = bf_handle_entry(BF_STREAM, i);

		if (stream && bf_is_alive(&stream->entry) && stream->entry.context == index)
			inherit((CUstream)(uintptr_t)BF_HANDLE(BF_STREAM, i));
	}
}

void bf_inherit_begin(void)
{
	atomic_fetch_add(&inheriting, 1);
}

void bf_inherit_end(void)
{
	atomic_fetch_sub(&inheriting, 1);
}

/* Work was not noted then. A stream in a capture has none that runs, as far as anybody can say. */
void bf_inherit_all(void)
{
	uint32_t before = bf_self.current;

	for (uint32_t i = 1; i <= bf_device_count(); i++) /* primary ones */
		inherit_context(i);
	for (uint32_t i = BF_FIRST_CREATED_CONTEXT; i < bf_handle_count(BF_CONTEXT); i++)
		inherit_context(i);
	bf_self.current = before;
}
