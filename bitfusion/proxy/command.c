/* SPDX-License-Identifier: Apache-2.0
 *
 * The arguments of any row as a command. row.h says how the bytes lie.
 */
#define _GNU_SOURCE
#include "command.h"
#include "location.h"

#include <string.h>

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
static uint64_t counter_value(const struct bf_row_call *call, const struct bf_argument *argument)
{
	const struct bf_argument *counter = &call->row->arguments[argument->count];
	uint64_t value = call->args[argument->count];

	if (counter->kind == BF_ARG_VALUE)
		return counter->width == 4 ? (uint32_t)value : value;
	if (!value)
		return 0;
	return counter->size == 8 ? *(const uint64_t *)(uintptr_t)value : *(const uint32_t *)(uintptr_t)value;
}

static uint64_t count_of(const struct bf_row_call *call, const struct bf_argument *argument)
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

static CUresult measure_array(struct bf_row_call *call, int i)
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

static CUresult mint(struct bf_row_call *call, int i)
{
	if (!call->args[i]) {
		call->wire[i] = 0;
		return call->row->arguments[i].kind == BF_ARG_NEW_HANDLE ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
	}
	call->minted[i] = bf_handle_new((enum bf_handle_kind)call->row->arguments[i].handle, NULL);
	call->wire[i] = call->minted[i];
	return call->minted[i] ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

static CUresult measure_config(struct bf_row_call *call, int i)
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

CUresult bf_command_measure(struct bf_row_call *call, int i)
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

void bf_command_encode(const struct bf_row_call *call, uint8_t *at)
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
