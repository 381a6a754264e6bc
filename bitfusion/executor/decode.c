/* SPDX-License-Identifier: Apache-2.0
 *
 * The arguments of a row from the wire to what the driver gets. Nothing that a client says is believed: sizes,
 * counts and handles are checked here.
 */
#include "reader.h"

/* Handles of an array are translated into a place of our own. */
static CUresult read_handles(struct bf_session *session, struct bf_frame *frame, const struct bf_argument *what,
			     unsigned i, struct reader *reader)
{
	u64 size = frame->given[i];
	const uint8_t *bytes = read_bytes(reader, size);
	if (!bytes || size % 8 || !reserve(frame, size, &frame->argument[i]))
		return BF_VIOLATION;
	u64 *out = (u64 *)(uintptr_t)frame->argument[i];
	for (u64 n = 0; n < size / 8; n++) {
		u64 number;
		memcpy(&number, bytes + 8 * n, 8);
		if (!bf_handle_resolve(&session->handles, what->handle, number, &out[n]))
			return CUDA_ERROR_INVALID_HANDLE;
	}
	return CUDA_SUCCESS;
}

static CUresult read_device(struct bf_session *session, u64 number, u64 *value)
{
	/* CU_DEVICE_CPU and CU_DEVICE_INVALID mean the same everywhere */
	if ((int32_t)number < 0) {
		*value = number;
		return CUDA_SUCCESS;
	}
	if (number >= session->options.device_count)
		return CUDA_ERROR_INVALID_DEVICE;
	*value = (u64)session->ordinal[number];
	return CUDA_SUCCESS;
}

/* A CUmemLocation: uint32_t type, int32_t id. */
static CUresult map_location(struct bf_session *session, void *location)
{
	uint32_t part[2];
	u64 ordinal = 0;
	memcpy(part, location, sizeof(part));
	if (part[0] != CU_MEM_LOCATION_TYPE_DEVICE)
		return CUDA_SUCCESS;
	CUresult status = read_device(session, part[1], &ordinal);
	part[1] = (uint32_t)ordinal;
	if (status == CUDA_SUCCESS)
		memcpy(location, part, sizeof(part));
	return status;
}

void bf_map_location_back(struct bf_session *session, void *location)
{
	uint32_t part[2];
	memcpy(part, location, sizeof(part));
	for (uint32_t i = 0; part[0] == CU_MEM_LOCATION_TYPE_DEVICE && i < session->options.device_count; i++) {
		if (session->ordinal[i] != (CUdevice)part[1])
			continue;
		part[1] = i;
		memcpy(location, part, sizeof(part));
		return;
	}
}

/* Elements lie in the receive buffer, which is ours to write to. */
static CUresult map_locations(struct bf_session *session, const struct bf_argument *what, u64 place, u64 count)
{
	CUresult status = CUDA_SUCCESS;
	for (u64 n = 0; n < count && status == CUDA_SUCCESS; n++)
		status = map_location(session, (uint8_t *)(uintptr_t)place + n * what->size + what->location - 1);
	return status;
}

static CUresult read_handle(struct bf_session *session, const struct bf_argument *what, u64 number, u64 *value)
{
	if (what->kind == BF_ARG_FREE_HANDLE && !BF_IS_HANDLE(number))
		return CUDA_ERROR_INVALID_HANDLE; /* NULL and the special streams are nobody's to free */
	if (what->handle == BF_CONTEXT && bf_handle_is(number, BF_CONTEXT))
		return bf_context_resolve(session, BF_HANDLE_INDEX(number), value) ? CUDA_SUCCESS
										   : CUDA_ERROR_INVALID_CONTEXT;
	return bf_handle_resolve(&session->handles, what->handle, number, value) ? CUDA_SUCCESS
										 : CUDA_ERROR_INVALID_HANDLE;
}

/* Input bytes of a fixed size are used where they lie, unless the driver writes to them. */
static CUresult read_fixed(struct bf_frame *frame, const struct bf_argument *what, unsigned i, struct reader *reader)
{
	u64 present;
	if (!read_u64(reader, &present) || present > 1)
		return BF_VIOLATION;
	frame->given[i] = present;
	frame->argument[i] = 0;
	if (!present)
		return CUDA_SUCCESS;
	if (what->kind == BF_ARG_OUT)
		return reserve(frame, what->size, &frame->argument[i]) ? CUDA_SUCCESS : BF_VIOLATION;
	const uint8_t *bytes = read_bytes(reader, what->size);
	if (!bytes)
		return BF_VIOLATION;
	if (what->kind == BF_ARG_IN) {
		frame->argument[i] = (u64)(uintptr_t)bytes;
		return CUDA_SUCCESS;
	}
	if (!reserve(frame, what->size, &frame->argument[i]))
		return BF_VIOLATION;
	memcpy((void *)(uintptr_t)frame->argument[i], bytes, what->size);
	return CUDA_SUCCESS;
}

static CUresult read_array(struct bf_session *session, struct bf_frame *frame, const struct bf_argument *what,
			   unsigned i, struct reader *reader)
{
	if (!read_u64(reader, &frame->given[i]))
		return BF_VIOLATION;
	frame->argument[i] = 0;
	if (frame->given[i] == BF_NULL)
		return CUDA_SUCCESS;
	switch (what->kind) {
	case BF_ARG_OUT_ARRAY:
	case BF_ARG_OUT_HANDLES:
		return reserve(frame, frame->given[i], &frame->argument[i]) ? CUDA_SUCCESS : BF_VIOLATION;
	case BF_ARG_IN_HANDLES: return read_handles(session, frame, what, i, reader);
	default: {
		const uint8_t *bytes = read_bytes(reader, frame->given[i]);
		if (!bytes)
			return BF_VIOLATION;
		frame->argument[i] = (u64)(uintptr_t)bytes;
		if (what->kind == BF_ARG_STRING && (!frame->given[i] || bytes[frame->given[i] - 1]))
			return BF_VIOLATION;
		return CUDA_SUCCESS;
	}
	}
}

/* Mints that are not the client's to make would overwrite someone's handle. */
static CUresult read_new_handle(struct bf_frame *frame, const struct bf_argument *what, unsigned i,
				struct reader *reader)
{
	if (!read_u64(reader, &frame->given[i]))
		return BF_VIOLATION;
	frame->argument[i] = 0;
	if (!frame->given[i])
		return CUDA_SUCCESS;
	if (!bf_handle_is(frame->given[i], what->handle))
		return BF_VIOLATION;
	return reserve(frame, 8, &frame->argument[i]) ? CUDA_SUCCESS : BF_VIOLATION;
}

static CUresult read_resource(struct bf_session *session, struct bf_frame *frame, const struct bf_argument *what,
			      unsigned i, struct reader *reader)
{
	CUresult status = read_fixed(frame, what, i, reader);
	if (status != CUDA_SUCCESS || !frame->argument[i])
		return status;
	return bf_place_resource(session, (CUDA_RESOURCE_DESC *)(uintptr_t)frame->argument[i]);
}

static inline CUresult read_argument(struct bf_session *session, struct bf_frame *frame, unsigned i,
				     struct reader *reader)
{
	const struct bf_argument *what = &frame->route->row->arguments[i];
	switch (what->kind) {
	case BF_ARG_VALUE: return read_u64(reader, &frame->argument[i]) ? CUDA_SUCCESS : BF_VIOLATION;
	case BF_ARG_DEVICE:
		if (!read_u64(reader, &frame->given[i]))
			return BF_VIOLATION;
		return read_device(session, frame->given[i], &frame->argument[i]);
	case BF_ARG_LOCATION:
		if (!read_u64(reader, &frame->argument[i]))
			return BF_VIOLATION;
		return map_location(session, &frame->argument[i]);
	case BF_ARG_HANDLE:
	case BF_ARG_FREE_HANDLE:
		if (!read_u64(reader, &frame->given[i]))
			return BF_VIOLATION;
		return read_handle(session, what, frame->given[i], &frame->argument[i]);
	case BF_ARG_NEW_HANDLE:
	case BF_ARG_FOUND_HANDLE: return read_new_handle(frame, what, i, reader);
	case BF_ARG_IN:
	case BF_ARG_INOUT:
	case BF_ARG_OUT: return read_fixed(frame, what, i, reader);
	case BF_ARG_CONFIG: return bf_read_config(session, frame, i, reader);
	case BF_ARG_KERNEL_NODE: return bf_read_kernel_node(session, frame, i, reader);
	case BF_ARG_RESOURCE: return read_resource(session, frame, what, i, reader);
	default: return read_array(session, frame, what, i, reader);
	}
}

/* ------------------------------------------------------------------ arrays */

static u64 count_of(const struct bf_frame *frame, unsigned i)
{
	const struct bf_argument *count = &frame->route->row->arguments[i];
	u64 value = frame->argument[i];
	uint32_t narrow = (uint32_t)value;
	if (count->kind == BF_ARG_VALUE)
		return count->width == 8 ? value : narrow;
	const void *place = (const void *)(uintptr_t)value;
	if (!place)
		return 0;
	if (count->size == 8)
		memcpy(&value, place, 8);
	else
		memcpy(&narrow, place, 4);
	return count->size == 8 ? value : narrow;
}

u64 bf_counted(const struct bf_frame *frame, const struct bf_argument *what)
{
	if (what->count == BF_NO_ARGUMENT)
		return 1;
	u64 count = count_of(frame, what->count);
	return count > what->less ? count - what->less : 0;
}

bool bf_is_array(uint8_t kind)
{
	return kind == BF_ARG_IN_ARRAY || kind == BF_ARG_OUT_ARRAY || kind == BF_ARG_IN_HANDLES ||
	       kind == BF_ARG_OUT_HANDLES;
}

/* The driver will believe the count, so the bytes must be there. */
static bool arrays_fit(const struct bf_frame *frame)
{
	const struct bf_row *row = frame->route->row;
	for (unsigned i = 0; i < row->argument_count; i++) {
		const struct bf_argument *what = &row->arguments[i];
		if (!bf_is_array(what->kind) || frame->given[i] == BF_NULL)
			continue;
		u64 count = bf_counted(frame, what), size = what->size ? what->size : 8;
		if (count > BF_MAX_COMMAND || count * size > frame->given[i])
			return false;
	}
	return true;
}

static CUresult locate_inputs(struct bf_session *session, struct bf_frame *frame)
{
	const struct bf_row *row = frame->route->row;
	CUresult status = CUDA_SUCCESS;
	for (unsigned i = 0; i < row->argument_count && status == CUDA_SUCCESS; i++) {
		const struct bf_argument *what = &row->arguments[i];
		if (!what->location || !frame->argument[i] || what->kind == BF_ARG_OUT)
			continue;
		u64 count = what->kind == BF_ARG_IN_ARRAY ? frame->given[i] / what->size : 1;
		status = map_locations(session, what, frame->argument[i], count);
	}
	return status;
}

CUresult bf_decode(struct bf_session *session, struct bf_frame *frame)
{
	const struct bf_row *row = frame->route->row;
	const struct bf_command *command = frame->command;
	struct reader reader = { (const uint8_t *)(command + 1), (const uint8_t *)command + command->size };
	CUresult first = CUDA_SUCCESS;
	for (unsigned i = 0; i < row->argument_count; i++) {
		CUresult status = read_argument(session, frame, i, &reader);
		if (likely(status == CUDA_SUCCESS))
			continue;
		if (status == BF_VIOLATION)
			return bf_violation(session, "%s: bad argument %u", row->name, i);
		first = first ? first : status;
	}
	if (frame->route->has_arrays && !first && !arrays_fit(frame))
		return bf_violation(session, "%s: an array is shorter than its count", row->name);
	if (frame->route->has_locations && !first)
		first = locate_inputs(session, frame);
	return first;
}
