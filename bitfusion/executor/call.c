/* SPDX-License-Identifier: Apache-2.0
 *
 * One interpreter for all functions that are rows: arguments from the wire, the driver's call through
 * integer-typed pointers (no CUDA driver function takes floating point or structures by value), results back.
 */
#include "core.h"

#include <stdlib.h>
#include <string.h>

typedef uint64_t u64;

CUresult bf_invoke(struct bf_frame *frame)
{
	const u64 *a = frame->argument;
	void *f = frame->route->function;
#define T(...) ((CUresult (*)(__VA_ARGS__))f)
	switch (frame->route->row->argument_count) {
	case 0: return T(void)();
	case 1: return T(u64)(a[0]);
	case 2: return T(u64, u64)(a[0], a[1]);
	case 3: return T(u64, u64, u64)(a[0], a[1], a[2]);
	case 4: return T(u64, u64, u64, u64)(a[0], a[1], a[2], a[3]);
	case 5: return T(u64, u64, u64, u64, u64)(a[0], a[1], a[2], a[3], a[4]);
	case 6: return T(u64, u64, u64, u64, u64, u64)(a[0], a[1], a[2], a[3], a[4], a[5]);
	case 7:
	case 8: return T(u64, u64, u64, u64, u64, u64, u64, u64)(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]);
	case 9:
	case 10:
	case 11:
	case 12:
		return T(u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64,
			 u64)(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11]);
	default:
		return T(u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64,
			 u64)(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13],
			      a[14], a[15]);
	}
#undef T
}

/* ------------------------------------------------------------------ reading a command's body */

struct reader {
	const uint8_t *at, *end;
};

static inline bool read_u64(struct reader *reader, u64 *value)
{
	if (unlikely((size_t)(reader->end - reader->at) < sizeof(*value)))
		return false;
	memcpy(value, reader->at, sizeof(*value));
	reader->at += sizeof(*value);
	return true;
}

static inline const uint8_t *read_bytes(struct reader *reader, u64 size)
{
	const uint8_t *bytes = reader->at;
	if (size > BF_MAX_COMMAND || (size_t)(reader->end - reader->at) < bf_pad(size))
		return NULL;
	reader->at += bf_pad(size);
	return bytes;
}

static bool reserve(struct bf_frame *frame, u64 size, u64 *argument)
{
	if (size > BF_MAX_COMMAND || frame->scratch_size + bf_pad(size) + 16 > BF_SCRATCH)
		return false;
	uint8_t *place = frame->scratch + frame->scratch_size;
	frame->scratch_size += bf_pad(size);
	memset(place, 0, bf_pad(size));
	*argument = (u64)(uintptr_t)place;
	return true;
}

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

static void map_location_back(struct bf_session *session, void *location)
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

/* A CUlaunchConfig with its attributes behind it; handles in both are translated. */
static CUresult read_config(struct bf_session *session, struct bf_frame *frame, unsigned i, struct reader *reader)
{
	CUlaunchConfig config;
	if (!read_u64(reader, &frame->given[i]))
		return BF_VIOLATION;
	u64 size = frame->given[i], stream;
	frame->argument[i] = 0;
	if (size == BF_NULL)
		return CUDA_SUCCESS;
	const uint8_t *bytes = read_bytes(reader, size);
	if (!bytes || size < sizeof(config))
		return BF_VIOLATION;
	memcpy(&config, bytes, sizeof(config));
	if (config.numAttrs > BF_MAX_LAUNCH_ATTRIBUTES ||
	    size != sizeof(config) + config.numAttrs * sizeof(CUlaunchAttribute) ||
	    !reserve(frame, size, &frame->argument[i]))
		return BF_VIOLATION;
	CUlaunchConfig *ours = (CUlaunchConfig *)(uintptr_t)frame->argument[i];
	memcpy(ours, bytes, size);
	ours->attrs = config.numAttrs ? (CUlaunchAttribute *)(ours + 1) : NULL;
	if (!bf_handle_resolve(&session->handles, BF_STREAM, (u64)(uintptr_t)config.hStream, &stream))
		return CUDA_ERROR_INVALID_HANDLE;
	ours->hStream = (CUstream)(uintptr_t)stream;
	return bf_launch_attributes(session, ours->attrs, config.numAttrs);
}

/* A kernel takes the place of a function: each has its own member. */
static CUresult place_kernel(struct bf_session *session, CUDA_KERNEL_NODE_PARAMS_v2 *params)
{
	u64 number = (u64)(uintptr_t)(params->func ? (void *)params->func : (void *)params->kern), value, context = 0;
	if (!number || !bf_handle_resolve(&session->handles, BF_FUNCTION, number, &value))
		return CUDA_ERROR_INVALID_HANDLE;
	bool is_kernel = bf_handle_is(number, BF_KERNEL);
	params->func = is_kernel ? NULL : (CUfunction)(uintptr_t)value;
	params->kern = is_kernel ? (CUkernel)(uintptr_t)value : NULL;
	number = (u64)(uintptr_t)params->ctx;
	if (number &&
	    (!bf_handle_is(number, BF_CONTEXT) || !bf_context_resolve(session, BF_HANDLE_INDEX(number), &context)))
		return CUDA_ERROR_INVALID_CONTEXT;
	params->ctx = (CUcontext)(uintptr_t)context;
	return CUDA_SUCCESS;
}

static CUresult read_kernel_node(struct bf_session *session, struct bf_frame *frame, unsigned i, struct reader *reader)
{
	struct ours {
		CUDA_KERNEL_NODE_PARAMS_v2 params;
		size_t size;
		void *extra[5];
	};
	_Static_assert(sizeof(CUDA_KERNEL_NODE_PARAMS_v2) == sizeof(((struct bf_kernel_node *)0)->params), "row.h");
	if (!read_u64(reader, &frame->given[i]))
		return BF_VIOLATION;
	u64 size = frame->given[i];
	const uint8_t *bytes = read_bytes(reader, size);
	if (!bytes || size < sizeof(CUDA_KERNEL_NODE_PARAMS_v2) ||
	    size > sizeof(CUDA_KERNEL_NODE_PARAMS_v2) + BF_MAX_PARAMETERS ||
	    !reserve(frame, sizeof(struct ours), &frame->argument[i]))
		return BF_VIOLATION;
	struct ours *ours = (struct ours *)(uintptr_t)frame->argument[i];
	memcpy(&ours->params, bytes, sizeof(ours->params));
	ours->size = (size_t)size - sizeof(ours->params);
	ours->extra[0] = CU_LAUNCH_PARAM_BUFFER_POINTER;
	ours->extra[1] = (void *)(bytes + sizeof(ours->params));
	ours->extra[2] = CU_LAUNCH_PARAM_BUFFER_SIZE;
	ours->extra[3] = &ours->size;
	ours->extra[4] = CU_LAUNCH_PARAM_END;
	ours->params.kernelParams = NULL;
	ours->params.extra = ours->size ? ours->extra : NULL;
	return place_kernel(session, &ours->params);
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
	case BF_ARG_CONFIG: return read_config(session, frame, i, reader);
	case BF_ARG_KERNEL_NODE: return read_kernel_node(session, frame, i, reader);
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

static u64 counted(const struct bf_frame *frame, const struct bf_argument *what)
{
	if (what->count == BF_NO_ARGUMENT)
		return 1;
	u64 count = count_of(frame, what->count);
	return count > what->less ? count - what->less : 0;
}

static bool is_array(uint8_t kind)
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
		if (!is_array(what->kind) || frame->given[i] == BF_NULL)
			continue;
		u64 count = counted(frame, what), size = what->size ? what->size : 8;
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

static CUresult decode(struct bf_session *session, struct bf_frame *frame)
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

/* ------------------------------------------------------------------ the answer */

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
		if (by_value &&
		    (parent == BF_MODULE || parent == BF_LIBRARY || (parent == BF_GRAPH && kind == BF_GRAPHNODE)))
			return bf_handle_pack(frame->given[i]);
	}
	return bf_handle_pack(BF_HANDLE(BF_CONTEXT, frame->command->context));
}

static void put_array(struct bf_session *session, struct bf_frame *frame, unsigned i, CUresult status, uint8_t **at)
{
	const struct bf_argument *what = &frame->route->row->arguments[i];
	u64 size = what->size ? what->size : 8, count = 0;
	if (status == CUDA_SUCCESS) {
		count = counted(frame, what);
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
			map_location_back(session, (uint8_t *)(uintptr_t)frame->argument[i] + what->location - 1);
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

/* ------------------------------------------------------------------ carrying out */

struct row_job {
	struct bf_job job;
	struct bf_frame frame;
	uint8_t *memory; /* command, scratch, answer */
};

static CUresult carry_out(struct bf_session *session, struct bf_frame *frame)
{
	bf_around around = frame->route->around;
	return around ? around(session, frame) : bf_invoke(frame);
}

static void run_row(struct bf_session *session, struct bf_job *job)
{
	struct row_job *row = (struct row_job *)job;
	CUresult status = CUDA_SUCCESS;
	if (!(row->frame.route->row->flags & BF_ROW_NO_CONTEXT))
		status = bf_context_ensure(session, job->context);
	if (status == CUDA_SUCCESS) {
		status = carry_out(session, &row->frame);
		bf_settle(session);
		bf_finish(session, &row->frame, status, row->memory + 2 * BF_SCRATCH);
	} else {
		bf_done(session, row->frame.command, status, NULL, 0);
	}
	free(row->memory);
	free(row);
}

/* Carries a call out that may block on a waiter, from a copy of the command. */
static bool submit_row(struct bf_session *session, struct bf_route *route, const struct bf_command *command)
{
	struct row_job *row = calloc(1, sizeof(*row));
	if (!row)
		return false;
	row->memory = malloc(3 * (size_t)BF_SCRATCH);
	if (row->memory) {
		memcpy(row->memory, command, command->size);
		row->job.run = run_row;
		row->job.context = command->context;
		row->frame.route = route;
		row->frame.command = (const struct bf_command *)row->memory;
		row->frame.scratch = row->memory + BF_SCRATCH;
		CUresult status = decode(session, &row->frame);
		if (status == CUDA_SUCCESS && bf_submit(session, &row->job))
			return true;
		if (status != CUDA_SUCCESS && status != BF_VIOLATION)
			bf_done(session, command, status, NULL, 0);
		free(row->memory);
		free(row);
		return status != CUDA_SUCCESS;
	}
	free(row);
	return false;
}

static bool resolve_route(struct bf_session *session, struct bf_route *route)
{
	if (!route->resolved) {
		route->resolved = true;
		route->function = bf_driver_symbol(session->driver, route->row->name);
		if (!route->function && (session->options.flags & BF_SERVE_VERBOSE))
			bf_log(session, "the driver has no %s", route->row->name);
	}
	return route->function != NULL;
}

void bf_row_command(struct bf_session *session, const struct bf_command *command)
{
	unsigned number = command->call - BF_FIRST_ROW;
	if (unlikely(number >= bf_row_count)) {
		bf_violation(session, "no call %u", command->call);
		return;
	}
	struct bf_route *route = &session->routes[number];
	if (unlikely(!route->function) && !resolve_route(session, route)) {
		bf_done(session, command, CUDA_ERROR_NOT_SUPPORTED, NULL, 0);
		return;
	}
	CUresult status = CUDA_SUCCESS;
	/* special streams are those of the current context, also where no context is needed otherwise */
	if (!(route->row->flags & BF_ROW_NO_CONTEXT) || route->row->stream != BF_NO_ARGUMENT)
		status = bf_context_ensure(session, command->context);
	if (route->row->flags & BF_ROW_NO_CONTEXT)
		status = CUDA_SUCCESS;
	bool elsewhere = (route->row->flags & BF_ROW_BLOCKS) && !route->waits && (command->flags & BF_WANTS_REPLY) &&
			 !bf_may_block(session, command);
	if (elsewhere && status == CUDA_SUCCESS && submit_row(session, route, command))
		return;
	struct bf_frame frame;
	frame.route = route;
	frame.command = command;
	frame.scratch = session->scratch;
	frame.scratch_size = 0;
	if (status == CUDA_SUCCESS)
		status = decode(session, &frame);
	if (unlikely(status != CUDA_SUCCESS)) {
		if (status != BF_VIOLATION)
			bf_done(session, command, status, NULL, 0);
		return;
	}
	if (route->row->stream != BF_NO_ARGUMENT) {
		unsigned stream = route->row->stream;
		status = bf_stream_ready(session, frame.given[stream], frame.argument[stream]);
	}
	if (route->waits && (command->flags & BF_WANTS_REPLY)) {
		bf_wait_row(session, &frame);
		return;
	}
	if (likely(status == CUDA_SUCCESS))
		status = carry_out(session, &frame);
	if (route->row->flags & BF_ROW_BLOCKS)
		bf_settle(session);
	bf_finish(session, &frame, status, session->answer);
}

static bool is_wait(const char *name)
{
	static const char *const names[] = { "cuStreamSynchronize", "cuEventSynchronize", "cuCtxSynchronize",
					     "cuCtxSynchronize_v2" };
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		if (!strcmp(name, names[i]))
			return true;
	}
	return false;
}

bool bf_routes_init(struct bf_session *session)
{
	session->routes = calloc(bf_row_count + 1, sizeof(*session->routes));
	session->scratch = aligned_alloc(64, bf_pad(BF_SCRATCH + 64) / 64 * 64);
	session->answer = aligned_alloc(64, bf_pad(BF_SCRATCH + 64) / 64 * 64);
	if (!session->routes || !session->scratch || !session->answer)
		return false;
	for (unsigned i = 0; i < bf_row_count; i++) {
		struct bf_route *route = &session->routes[i];
		route->row = &bf_rows[i];
		route->waits = is_wait(route->row->name);
		route->around = bf_row_around(route->row->name);
		for (unsigned n = 0; n < route->row->argument_count; n++) {
			route->has_arrays |= is_array(route->row->arguments[n].kind);
			route->has_locations |= route->row->arguments[n].location != 0;
		}
	}
	return true;
}

void bf_done(struct bf_session *session, const struct bf_command *command, CUresult status, const void *body,
	     size_t size)
{
	if (command->flags & BF_WANTS_REPLY)
		bf_reply(session, command->request, status, body, size);
	else if (unlikely(status != CUDA_SUCCESS))
		bf_defer(session, command->call, status);
}
