/* SPDX-License-Identifier: Apache-2.0
 *
 * The marshalling interpreter of this side: turns the arguments of any row into a command and the reply into
 * what the program's pointers point to. row.h says how the bytes lie.
 */
#define _GNU_SOURCE
#include "graph.h"
#include "location.h"

#include <string.h>

struct call {
	const struct bf_row *row;
	unsigned number;
	uint64_t args[BF_MAX_ARGUMENTS];
	uint64_t wire[BF_MAX_ARGUMENTS];  /* the value or byte count that travels */
	uint64_t minted[BF_MAX_ARGUMENTS];
	size_t size;
};

static bool is_null_stream(const struct bf_argument *argument, uint64_t value)
{
	return argument->handle == BF_STREAM && value <= 2;
}

static CUresult check_handle(const struct bf_argument *argument, uint64_t value)
{
	unsigned kind = BF_HANDLE_KIND(value);

	if (is_null_stream(argument, value))
		return CUDA_SUCCESS;
	if (argument->handle == BF_GRAPHNODE) /* numbered by the server */
		return BF_IS_HANDLE(value) && kind == BF_GRAPHNODE ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
	if (value == 0 && argument->handle != BF_CONTEXT && argument->kind == BF_ARG_HANDLE)
		return CUDA_ERROR_INVALID_HANDLE;
	if (argument->handle == BF_CONTEXT)
		return bf_context_find((CUcontext)(uintptr_t)value) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
	if (kind == BF_KERNEL && argument->handle == BF_FUNCTION)
		return bf_handle_find(BF_KERNEL, value) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
	return bf_handle_find((enum bf_handle_kind)argument->handle, value) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

/* The counter of an array may be a value or a pointer to one. */
static uint64_t counter_value(const struct call *call, const struct bf_argument *argument)
{
	const struct bf_argument *counter = &call->row->arguments[argument->count];
	uint64_t value = call->args[argument->count];

	if (counter->kind == BF_ARG_VALUE)
		return counter->width == 4 ? (uint32_t)value : value;
	if (!value)
		return 0;
	return counter->size == 8 ? *(const uint64_t *)(uintptr_t)value : *(const uint32_t *)(uintptr_t)value;
}

static uint64_t count_of(const struct call *call, const struct bf_argument *argument)
{
	uint64_t value;

	if (argument->count == BF_NO_ARGUMENT)
		return 1;
	value = counter_value(call, argument);
	return value > argument->less ? value - argument->less : 0;
}

static uint64_t element_size(const struct bf_argument *argument)
{
	return argument->kind == BF_ARG_IN_HANDLES || argument->kind == BF_ARG_OUT_HANDLES ? 8 : argument->size;
}

static CUresult measure_array(struct call *call, int i)
{
	const struct bf_argument *argument = &call->row->arguments[i];
	uint64_t count;

	if (!call->args[i]) {
		call->wire[i] = BF_NULL;
		return CUDA_SUCCESS;
	}
	count = argument->kind == BF_ARG_STRING ? strlen((const char *)(uintptr_t)call->args[i]) + 1
						: count_of(call, argument);
	if (count > BF_MAX_COMMAND)
		return CUDA_ERROR_INVALID_VALUE;
	call->wire[i] = argument->kind == BF_ARG_STRING ? count : count * element_size(argument);
	if (call->wire[i] > BF_MAX_COMMAND)
		return CUDA_ERROR_INVALID_VALUE;
	if (argument->kind != BF_ARG_OUT_ARRAY && argument->kind != BF_ARG_OUT_HANDLES)
		call->size += BF_PAD8(call->wire[i]);
	return CUDA_SUCCESS;
}

static CUresult mint(struct call *call, int i)
{
	if (!call->args[i]) {
		call->wire[i] = 0;
		return call->row->arguments[i].kind == BF_ARG_NEW_HANDLE ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
	}
	call->minted[i] = bf_handle_new((enum bf_handle_kind)call->row->arguments[i].handle, NULL);
	call->wire[i] = call->minted[i];
	return call->minted[i] ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

static CUresult measure_config(struct call *call, int i)
{
	const CUlaunchConfig *config = (const CUlaunchConfig *)(uintptr_t)call->args[i];

	if (!config) {
		call->wire[i] = BF_NULL;
		return CUDA_SUCCESS;
	}
	if (config->numAttrs > BF_MAX_LAUNCH_ATTRIBUTES || (config->numAttrs && !config->attrs))
		return CUDA_ERROR_INVALID_VALUE;
	call->wire[i] = sizeof *config + config->numAttrs * sizeof *config->attrs;
	call->size += call->wire[i];
	return CUDA_SUCCESS;
}

static CUresult measure(struct call *call, int i)
{
	const struct bf_argument *argument = &call->row->arguments[i];

	call->wire[i] = call->args[i];
	call->size += 8;
	switch (argument->kind) {
	case BF_ARG_VALUE: return CUDA_SUCCESS;
	case BF_ARG_LOCATION: call->wire[i] = bf_location_value(call->args[i]); return CUDA_SUCCESS;
	case BF_ARG_DEVICE:
		if ((CUdevice)call->args[i] == CU_DEVICE_CPU)
			return CUDA_SUCCESS;
		if (!bf_device_valid((CUdevice)call->args[i]))
			return CUDA_ERROR_INVALID_DEVICE;
		call->wire[i] = bf_device_index((CUdevice)call->args[i]);
		return CUDA_SUCCESS;
	case BF_ARG_HANDLE:
	case BF_ARG_FREE_HANDLE: return check_handle(argument, call->args[i]);
	case BF_ARG_NEW_HANDLE:
	case BF_ARG_FOUND_HANDLE: return mint(call, i);
	case BF_ARG_IN:
	case BF_ARG_INOUT:
	case BF_ARG_RESOURCE:
		call->wire[i] = call->args[i] != 0;
		call->size += call->args[i] ? BF_PAD8(argument->size) : 0;
		return CUDA_SUCCESS;
	case BF_ARG_OUT: call->wire[i] = call->args[i] != 0; return CUDA_SUCCESS;
	case BF_ARG_CONFIG: return measure_config(call, i);
	case BF_ARG_KERNEL_NODE:
		call->wire[i] = ((const struct bf_kernel_node *)(uintptr_t)call->args[i])->size;
		call->size += BF_PAD8(call->wire[i]);
		return CUDA_SUCCESS;
	default: return measure_array(call, i);
	}
}

static void give_back(struct call *call)
{
	for (int i = 0; i < call->row->argument_count; i++)
		if (call->minted[i])
			bf_handle_free(call->minted[i]);
}

static uint8_t *put_bytes(uint8_t *at, const struct bf_argument *argument, const void *bytes, uint64_t size)
{
	memcpy(at, bytes, size);
	bf_location_map(argument, at, size, true);
	memset(at + size, 0, BF_PAD8(size) - size);
	return at + BF_PAD8(size);
}

static uint8_t *put_config(uint8_t *at, const CUlaunchConfig *config)
{
	size_t attributes = config->numAttrs * sizeof *config->attrs;
	CUlaunchConfig copy = *config;

	if (bf_stream_resolve(&copy.hStream, false))
		copy.hStream = NULL; /* a question is asked about it, nothing runs on it */
	copy.attrs = NULL;
	memcpy(at, &copy, sizeof copy);
	if (attributes)
		memcpy(at + sizeof copy, config->attrs, attributes);
	return at + sizeof copy + attributes;
}

static void encode(const struct call *call, uint8_t *at)
{
	for (int i = 0; i < call->row->argument_count; i++) {
		const struct bf_argument *argument = &call->row->arguments[i];
		const void *pointer = (const void *)(uintptr_t)call->args[i];

		memcpy(at, &call->wire[i], 8);
		at += 8;
		if (!pointer)
			continue;
		if (argument->kind == BF_ARG_CONFIG)
			at = put_config(at, pointer);
		else if (argument->kind == BF_ARG_KERNEL_NODE)
			at = put_bytes(at, argument, ((const struct bf_kernel_node *)pointer)->params, call->wire[i]);
		else if (argument->kind == BF_ARG_IN || argument->kind == BF_ARG_INOUT ||
			 argument->kind == BF_ARG_RESOURCE)
			at = put_bytes(at, argument, pointer, argument->size);
		else if (argument->kind == BF_ARG_STRING || argument->kind == BF_ARG_IN_ARRAY ||
			 argument->kind == BF_ARG_IN_HANDLES)
			at = put_bytes(at, argument, pointer, call->wire[i]);
	}
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

static void decode_argument(const struct call *call, int i, struct reader *reader)
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
static void settle_handles(const struct call *call)
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

static CUresult send_oneway(struct call *call, uint64_t *sequence)
{
	uint8_t *command = bf_queue_begin(call->number, sizeof(struct bf_command) + call->size, 0, bf_self.current);

	if (!command) {
		give_back(call);
		return bf_check();
	}
	encode(call, command + sizeof(struct bf_command));
	*sequence = bf_queue_end(BF_LATER);
	settle_handles(call);
	return CUDA_SUCCESS;
}

static bool gives(const struct call *call)
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

static CUresult receive(struct call *call, struct bf_wait *wait)
{
	CUresult status = gives(call) ? bf_wait_for_result(wait) : bf_wait_for(wait);
	struct reader reader = { wait->body, wait->body ? wait->body + wait->body_size : NULL, false };

	/* a failing call may still have written something: only a reply without a body means that it was not made */
	for (int i = 0; wait->body_size && i < call->row->argument_count && !reader.failed; i++)
		decode_argument(call, i, &reader);
	if (reader.failed && !status)
		status = CUDA_ERROR_UNKNOWN;
	if (wait->status == CUDA_SUCCESS)
		settle_handles(call);
	else
		give_back(call);
	bf_wait_drop(wait);
	return status;
}

static CUresult send_and_wait(struct call *call, uint64_t *sequence)
{
	struct bf_wait wait = { 0 };
	uint8_t *command;

	command = bf_queue_begin(call->number, sizeof(struct bf_command) + call->size, BF_WANTS_REPLY, bf_self.current);
	if (!command) {
		give_back(call);
		return CUDA_ERROR_DEVICE_UNAVAILABLE;
	}
	((struct bf_command *)command)->request = bf_wait_add(&wait, call->number);
	encode(call, command + sizeof(struct bf_command));
	*sequence = bf_queue_end(BF_NOW);
	return receive(call, &wait);
}

static CUresult prepare(struct call *call, unsigned number, const uint64_t *args, bool per_thread)
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
		status = measure(call, i);
	if (!status && call->size > BF_MAX_COMMAND - sizeof(struct bf_command))
		status = CUDA_ERROR_INVALID_VALUE;
	if (status)
		give_back(call);
	return status;
}

CUresult bf_call_numbered(unsigned number, const uint64_t *args, bool per_thread, uint64_t *sequence)
{
	struct call call;
	CUresult status = prepare(&call, number, args, per_thread);

	if (status)
		return status;
	if (call.row->flags & BF_ROW_ONEWAY && call.row->stream != BF_NO_ARGUMENT)
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
