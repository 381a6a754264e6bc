/* SPDX-License-Identifier: Apache-2.0
 *
 * The marshalling interpreter of this side: sends any row as a command (command.c) and turns the reply into what the
 * program's pointers point to. row.h says how the bytes lie.
 */
#define _GNU_SOURCE
#include "command.h"
#include "graph.h"
#include "location.h"

#include <string.h>

static void give_back(struct bf_row_call *call)
{
	for (int i = 0; i < call->row->argument_count; i++)
		if (call->minted[i])
			bf_handle_free(call->minted[i]);
}

struct reader {
	const uint8_t *at, *end;
	bool failed;
};

static uint64_t take_word(struct reader *reader)
{
	uint64_t word = 0;

	if (reader->end - reader->at < 8) {
		reader->failed = true;
		return 0;
	}
	memcpy(&word, reader->at, 8);
	reader->at += 8;
	return word;
}

static void take_bytes(struct reader *reader, void *to, uint64_t size)
{
	if (reader->failed || (uint64_t)(reader->end - reader->at) < BF_PAD8(size)) {
		reader->failed = true;
		return;
	}
	memcpy(to, reader->at, size);
	reader->at += BF_PAD8(size);
}

static void decode_argument(const struct bf_row_call *call, int i, struct reader *reader)
{
	const struct bf_argument *argument = &call->row->arguments[i];
	void *to = (void *)(uintptr_t)call->args[i];
	uint64_t size;

	if (!to)
		return;
	switch (argument->kind) {
	case BF_ARG_OUT:
	case BF_ARG_INOUT:
		take_bytes(reader, to, argument->size);
		if (!reader->failed)
			bf_location_map(argument, to, argument->size, false);
		return;
	case BF_ARG_OUT_ARRAY:
	case BF_ARG_OUT_HANDLES:
		size = take_word(reader);
		if (size <= call->wire[i])
			take_bytes(reader, to, size);
		else
			reader->failed = true;
		return;
	case BF_ARG_FOUND_HANDLE:
		size = take_word(reader);
		if (!reader->failed)
			memcpy(to, &size, 8);
		return;
	default: return;
	}
}

/* Handles that the call made or ended. A found one is the proposed one, or one that was bound before. */
static void settle_handles(const struct bf_row_call *call)
{
	for (int i = 0; i < call->row->argument_count; i++) {
		const struct bf_argument *argument = &call->row->arguments[i];
		uint64_t *to = (uint64_t *)(uintptr_t)call->args[i];

		if (argument->kind == BF_ARG_NEW_HANDLE) {
			*to = call->minted[i];
			bf_handle_start((enum bf_handle_kind)argument->handle, call->minted[i]);
		} else if (argument->kind == BF_ARG_FOUND_HANDLE && to) {
			if (*to == call->minted[i])
				bf_handle_start((enum bf_handle_kind)argument->handle, call->minted[i]);
			else
				bf_handle_free(call->minted[i]);
		} else if (argument->kind == BF_ARG_FREE_HANDLE) {
			bf_handle_free(call->args[i]);
		}
	}
}

static CUresult send_oneway(struct bf_row_call *call, uint64_t *sequence)
{
	uint8_t *command = bf_queue_begin(call->number, sizeof(struct bf_command) + call->size, 0, bf_self.current);

	if (!command) {
		give_back(call);
		return bf_check();
	}
	bf_command_encode(call, command + sizeof(struct bf_command));
	*sequence = bf_queue_end(BF_LATER);
	settle_handles(call);
	return CUDA_SUCCESS;
}

static bool gives(const struct bf_row_call *call)
{
	for (int i = 0; i < call->row->argument_count; i++)
		switch (call->row->arguments[i].kind) {
		case BF_ARG_NEW_HANDLE:
		case BF_ARG_FOUND_HANDLE:
		case BF_ARG_OUT:
		case BF_ARG_INOUT:
		case BF_ARG_OUT_ARRAY:
		case BF_ARG_OUT_HANDLES: return true;
		default: break;
		}
	return false;
}

static CUresult receive(struct bf_row_call *call, struct bf_wait *wait)
{
	CUresult status = gives(call) ? bf_wait_for_result(wait) : bf_wait_for(wait);
	struct reader reader = { wait->body, wait->body ? wait->body + wait->body_size : NULL, false };

	/* a failing call may still have written something, unless it was not made: then the reply has no body */
	for (int i = 0; (wait->body_size || !wait->status) && i < call->row->argument_count && !reader.failed; i++)
		decode_argument(call, i, &reader);
	if (reader.failed && !status)
		status = CUDA_ERROR_UNKNOWN;
	if (wait->status == CUDA_SUCCESS && !reader.failed)
		settle_handles(call);
	else
		give_back(call);
	bf_wait_drop(wait);
	return status;
}

static CUresult send_and_wait(struct bf_row_call *call, uint64_t *sequence)
{
	struct bf_wait wait = { 0 };
	uint8_t *command;

	command = bf_queue_begin(call->number, sizeof(struct bf_command) + call->size, BF_WANTS_REPLY, bf_self.current);
	if (!command) {
		give_back(call);
		return CUDA_ERROR_DEVICE_UNAVAILABLE;
	}
	((struct bf_command *)command)->request = bf_wait_add(&wait, call->number);
	bf_command_encode(call, command + sizeof(struct bf_command));
	*sequence = bf_queue_end(BF_NOW);
	return receive(call, &wait);
}

static CUresult prepare(struct bf_row_call *call, unsigned number, const uint64_t *args, bool per_thread)
{
	const struct bf_row *row = &bf_rows[number - BF_FIRST_ROW];
	CUresult status = bf_check();

	if (!status && !(row->flags & BF_ROW_NO_CONTEXT))
		status = bf_context_check();
	else if (!status && row->stream != BF_NO_ARGUMENT)
		status = bf_fault_of(bf_self.current);
	if (status)
		return status;
	call->row = row;
	call->number = number;
	call->size = 0;
	for (int i = 0; i < row->argument_count; i++)
		call->args[i] = args[i];
	memset(call->minted, 0, row->argument_count * sizeof *call->minted);
	if (row->stream != BF_NO_ARGUMENT) {
		CUstream stream = (CUstream)(uintptr_t)call->args[row->stream];

		status = bf_stream_resolve(&stream, per_thread);
		if (!status && row->flags & BF_ROW_ONEWAY)
			status = bf_capture_takes(stream);
		call->args[row->stream] = (uint64_t)(uintptr_t)stream;
	}
	for (int i = 0; !status && i < row->argument_count; i++)
		status = bf_command_measure(call, i);
	if (!status && call->size > BF_MAX_COMMAND - sizeof(struct bf_command))
		status = CUDA_ERROR_INVALID_VALUE;
	if (status)
		give_back(call);
	return status;
}

CUresult bf_call_numbered(unsigned number, const uint64_t *args, bool per_thread, uint64_t *sequence)
{
	struct bf_row_call call;
	CUresult status = prepare(&call, number, args, per_thread);

	if (status)
		return status;
	if (call.row->flags & BF_ROW_ONEWAY && call.row->stream != BF_NO_ARGUMENT && !bf_self.admitted)
		bf_stream_admit((CUstream)(uintptr_t)call.args[call.row->stream], 0);
	if (call.row->flags & BF_ROW_ONEWAY)
		return send_oneway(&call, sequence);
	return send_and_wait(&call, sequence);
}

CUresult bf_call(unsigned number, const uint64_t *args)
{
	uint64_t sequence;

	return bf_call_numbered(number, args, false, &sequence);
}

CUresult bf_call_per_thread(unsigned number, const uint64_t *args)
{
	uint64_t sequence;

	return bf_call_numbered(number, args, true, &sequence);
}
