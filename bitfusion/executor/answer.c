/* SPDX-License-Identifier: Apache-2.0
 *
 * What a call of a row gave, for the client: handles are bound or dropped, results composed, the reply sent.
 */
#include "frame.h"

#include <string.h>

typedef uint64_t u64;

static void put_u64(uint8_t **at, u64 value)
{
	memcpy(*at, &value, 8);
	*at += 8;
}

static void put_bytes(uint8_t **at, u64 argument, u64 size)
{
	memset(*at + (size & ~(u64)7), 0, bf_pad(size) - (size & ~(u64)7));
	memcpy(*at, (const void *)(uintptr_t)argument, size);
	*at += bf_pad(size);
}

/* An executable graph and a clone outlive the graph they were made from, a node does not. */
static uint32_t owner_of(const struct bf_frame *frame, unsigned kind)
{
	const struct bf_row *row = frame->route->row;
	if (kind == BF_CONTEXT || kind == BF_LIBRARY || kind == BF_MEMPOOL || kind == BF_ALLOCATION)
		return 0;
	for (unsigned i = 0; i < row->argument_count; i++) {
		unsigned parent = row->arguments[i].handle;
		bool by_value = row->arguments[i].kind == BF_ARG_HANDLE;
		if (by_value && (parent == BF_MODULE || parent == BF_LIBRARY || parent == BF_MIPMAPPEDARRAY ||
				 (parent == BF_GRAPH && kind == BF_GRAPHNODE)))
			return bf_handle_pack(frame->given[i]);
	}
	return bf_handle_pack(BF_HANDLE(BF_CONTEXT, frame->command->context));
}

static void put_array(struct bf_session *session, struct bf_frame *frame, unsigned i, CUresult status, uint8_t **at)
{
	const struct bf_argument *what = &frame->route->row->arguments[i];
	u64 size = what->size ? what->size : 8, count = 0;
	if (status == CUDA_SUCCESS) {
		count = bf_counted(frame, what);
		count = count < frame->given[i] / size ? count : frame->given[i] / size;
	}
	if (what->kind == BF_ARG_OUT_HANDLES) {
		u64 *handle = (u64 *)(uintptr_t)frame->argument[i];
		for (u64 n = 0; n < count; n++)
			handle[n] = bf_handle_find(&session->handles, what->handle, handle[n], 0,
						   owner_of(frame, what->handle));
	}
	put_u64(at, count * size);
	put_bytes(at, frame->argument[i], count * size);
}

static void free_handle(struct bf_session *session, u64 number)
{
	bf_handle_drop_owned(&session->handles, number);
	bf_handle_drop(&session->handles, number);
}

void bf_free_handles(struct bf_session *session, const struct bf_frame *frame)
{
	const struct bf_row *row = frame->route->row;
	for (unsigned i = 0; i < row->argument_count; i++) {
		if (row->arguments[i].kind == BF_ARG_FREE_HANDLE)
			free_handle(session, frame->given[i]);
	}
}

static CUresult bind_result(struct bf_session *session, struct bf_frame *frame, unsigned i, uint8_t **at)
{
	const struct bf_argument *what = &frame->route->row->arguments[i];
	u64 value = *(u64 *)(uintptr_t)frame->argument[i];
	uint32_t owner = owner_of(frame, what->handle);
	if (what->kind == BF_ARG_NEW_HANDLE) {
		if (!bf_handle_bind(&session->handles, what->handle, frame->given[i], value, owner))
			return CUDA_ERROR_OUT_OF_MEMORY;
		/* cuStreamCreate, cuStreamCreateWithPriority: flags come second */
		if (what->handle == BF_STREAM && (frame->argument[1] & CU_STREAM_NON_BLOCKING))
			bf_handle_entry(&session->handles, BF_STREAM, BF_HANDLE_INDEX(frame->given[i]))->flags =
				BF_STREAM_NON_BLOCKING;
		return CUDA_SUCCESS;
	}
	put_u64(at, bf_handle_find(&session->handles, what->handle, value, frame->given[i], owner));
	return CUDA_SUCCESS;
}

/* Only what a failed call cannot have written is left out: the body keeps its shape. */
static void finish_argument(struct bf_session *session, struct bf_frame *frame, unsigned i, CUresult *status,
			    uint8_t **at)
{
	const struct bf_argument *what = &frame->route->row->arguments[i];
	CUresult bound = CUDA_SUCCESS;
	switch (what->kind) {
	case BF_ARG_FREE_HANDLE:
		if (*status == CUDA_SUCCESS)
			free_handle(session, frame->given[i]);
		break;
	case BF_ARG_NEW_HANDLE:
	case BF_ARG_FOUND_HANDLE:
		if (!frame->given[i])
			break;
		if (*status == CUDA_SUCCESS)
			bound = bind_result(session, frame, i, at);
		else if (what->kind == BF_ARG_FOUND_HANDLE)
			put_u64(at, 0);
		break;
	case BF_ARG_OUT:
	case BF_ARG_INOUT:
		if (!frame->given[i])
			break;
		if (what->location)
			bf_map_location_back(session, (uint8_t *)(uintptr_t)frame->argument[i] + what->location - 1);
		put_bytes(at, frame->argument[i], what->size);
		break;
	case BF_ARG_OUT_ARRAY:
	case BF_ARG_OUT_HANDLES:
		if (frame->given[i] != BF_NULL)
			put_array(session, frame, i, *status, at);
		break;
	default: break;
	}
	if (bound != CUDA_SUCCESS)
		*status = bound;
}

void bf_finish(struct bf_session *session, struct bf_frame *frame, CUresult status, uint8_t *answer)
{
	uint8_t *at = answer;
	const struct bf_row *row = frame->route->row;
	for (unsigned i = 0; i < row->argument_count; i++) {
		if (row->arguments[i].kind != BF_ARG_VALUE)
			finish_argument(session, frame, i, &status, &at);
	}
	if (!(frame->command->flags & BF_WANTS_REPLY)) {
		if (unlikely(status != CUDA_SUCCESS))
			bf_defer(session, frame->command->call, status);
		return;
	}
	if (atomic_load_explicit(&session->pending_count, memory_order_acquire))
		bf_copy_deliver(session);
	bf_reply(session, frame->command->request, status, answer, (size_t)(at - answer));
}

void bf_done(struct bf_session *session, const struct bf_command *command, CUresult status, const void *body,
	     size_t size)
{
	if (command->flags & BF_WANTS_REPLY)
		bf_reply(session, command->request, status, body, size);
	else if (unlikely(status != CUDA_SUCCESS))
		bf_defer(session, command->call, status);
}
