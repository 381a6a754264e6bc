/* SPDX-License-Identifier: Apache-2.0
 *
 * Launches: the hottest path. Everything that can be checked is checked here, with CUDA's own error codes, from
 * what came with the function's handle; then one command is written into the queue, and that is all.
 */
#define _GNU_SOURCE
#include "graph.h"
#include "proof.h"
#include "shared.h"

#include <stdlib.h>
#include <string.h>

struct launch {
	struct bf_launch wire;
	struct bf_function *function;
	CUstream stream;
	void **parameters;
	const void *blob; /* instead of parameters */
	const CUlaunchAttribute *attributes;
	const void *caller; /* an address in the code that launches */
};

_Static_assert(sizeof(CUlaunchAttribute) == 72, "the wire says 72");

/* As drivers tell a kernel's bounds from a lack of registers, which they hand out to a warp in units of 256. */
static CUresult too_many_threads(const struct bf_device *limits, const struct bf_function *function, uint64_t threads)
{
	const int *most = &limits->attribute[CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK].value;
	uint64_t warp = ((uint64_t)function->attribute[CU_FUNC_ATTRIBUTE_NUM_REGS] * 32 + 255) / 256 * 256;

	if (function->attribute_valid & 1u << CU_FUNC_ATTRIBUTE_NUM_REGS &&
	    (threads + 31) / 32 * warp > (uint64_t)*most)
		return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
	return CUDA_ERROR_INVALID_VALUE;
}

/* The device's limits, which do not change: looked up once per context switch would be enough, but this is cheap. */
static CUresult check_shape(const struct launch *launch, CUdevice device)
{
	const struct bf_launch *wire = &launch->wire;
	const struct bf_device *limits = bf_device(device);
	uint64_t threads = (uint64_t)wire->block[0] * wire->block[1] * wire->block[2];
	const struct bf_function *function = launch->function;

	for (int i = 0; i < 3; i++) {
		if (BF_UNLIKELY(wire->grid[i] - 1 >=
				(uint32_t)limits->attribute[CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X + i].value))
			return abi_impossible_shape(launch->caller);
		if (BF_UNLIKELY(wire->block[i] - 1 >=
				(uint32_t)limits->attribute[CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X + i].value))
			return abi_impossible_shape(launch->caller);
	}
	if (BF_UNLIKELY(threads > (uint32_t)limits->attribute[CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK].value))
		return abi_impossible_shape(launch->caller);
	if (function->attribute_valid & 1u << CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK &&
	    BF_UNLIKELY(threads > (uint32_t)function->attribute[CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK]))
		return too_many_threads(limits, function, threads);
	if (function->attribute_valid & 1u << CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES &&
	    wire->shared_bytes > (uint32_t)function->attribute[CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES])
		return CUDA_ERROR_INVALID_VALUE;
	return CUDA_SUCCESS;
}

static inline void put_parameter(uint8_t *to, const void *from, uint32_t size)
{
	if (size == 8)
		memcpy(to, from, 8);
	else if (size == 4)
		memcpy(to, from, 4);
	else
		memcpy(to, from, size);
}

static void put_parameters(uint8_t *to, const struct launch *launch)
{
	const struct bf_function *function = launch->function;
	size_t padded = BF_PAD8(launch->wire.parameters_size);

	if (launch->blob) {
		memset(to + padded - 8, 0, padded ? 8 : 0);
		memcpy(to, launch->blob, launch->wire.parameters_size);
		return;
	}
	memset(to, 0, padded); /* no stale bytes of ours in the gaps */
	for (uint32_t i = 0; i < function->parameter_count; i++)
		put_parameter(to + function->parameters[i].offset, launch->parameters[i], function->parameters[i].size);
}

/* Parameters as a ready buffer: a list of tags, each followed by its value. */
CUresult bf_extra_read(void **extra, const void **values, size_t *size)
{
	for (; *extra != CU_LAUNCH_PARAM_END; extra += 2) {
		if (*extra == CU_LAUNCH_PARAM_BUFFER_POINTER)
			*values = extra[1];
		else if (*extra == CU_LAUNCH_PARAM_BUFFER_SIZE)
			*size = extra[1] ? *(const size_t *)extra[1] : 0;
		else
			return CUDA_ERROR_INVALID_VALUE;
	}
	return CUDA_SUCCESS;
}

static CUresult read_extra(struct launch *launch, void **extra)
{
	size_t size = 0;
	CUresult status = bf_extra_read(extra, &launch->blob, &size);

	if (status)
		return status;
	if (size > BF_MAX_PARAMETERS || (size && !launch->blob))
		return CUDA_ERROR_INVALID_VALUE;
	if (size < launch->function->parameters_size)
		return CUDA_ERROR_INVALID_VALUE;
	launch->wire.parameters_size = (uint32_t)size;
	return CUDA_SUCCESS;
}

static bool launches_block(void)
{
	static _Atomic int known; /* 0 not asked yet, 1 no, 2 yes */
	int answer = atomic_load_explicit(&known, memory_order_relaxed);

	if (BF_UNLIKELY(!answer)) {
		const char *value = getenv("CUDA_LAUNCH_BLOCKING");

		answer = value && atoi(value) ? 2 : 1;
		atomic_store_explicit(&known, answer, memory_order_relaxed);
	}
	return answer == 2;
}

/* A launch is where a program looks for kernels that cannot be loaded, and for shapes that cannot be. */
static CUresult wait_for_proof(struct bf_function *function, const struct bf_shape *shape, struct bf_wait *wait)
{
	CUresult status = bf_wait_for_result(wait);

	bf_wait_drop(wait);
	if (status)
		return status;
	atomic_store(&function->loaded, true);
	bf_proof_add(&function->proof, shape);
	return CUDA_SUCCESS;
}

static CUresult put_launch(const struct launch *launch, bool unproven, struct bf_wait *wait)
{
	size_t attributes = launch->wire.attribute_count * sizeof(CUlaunchAttribute);
	size_t size = sizeof(struct bf_command) + sizeof(struct bf_launch) + attributes +
		      BF_PAD8(launch->wire.parameters_size);
	uint8_t *command = bf_queue_begin(BF_OP_LAUNCH, size, unproven ? BF_WANTS_REPLY : 0, bf_self.current);

	if (BF_UNLIKELY(!command))
		return CUDA_ERROR_DEVICE_UNAVAILABLE;
	if (BF_UNLIKELY(unproven))
		((struct bf_command *)command)->request = bf_wait_add(wait, BF_OP_LAUNCH);
	command += sizeof(struct bf_command);
	memcpy(command, &launch->wire, sizeof launch->wire);
	command += sizeof(struct bf_launch);
	if (attributes)
		memcpy(command, launch->attributes, attributes);
	put_parameters(command + attributes, launch);
	bf_queue_end(unproven ? BF_NOW : BF_LATER);
	return CUDA_SUCCESS;
}

static CUresult send_launch(const struct launch *launch, bool shared)
{
	const struct bf_shape shape = bf_shape_of(launch->function, &launch->wire, launch->attributes);
	const bool unproven = !bf_proof_has(&launch->function->proof, &shape);
	struct bf_wait wait = { 0 };
	CUresult status = put_launch(launch, unproven, &wait);

	if (BF_UNLIKELY(shared))
		bf_shared_after(launch->stream);
	if (BF_UNLIKELY(status))
		return status;
	if (BF_UNLIKELY(unproven))
		status = wait_for_proof(launch->function, &shape, &wait);
	return BF_UNLIKELY(launches_block() && !status) ? bf_stream_wait(launch->stream) : status;
}

/* What kernels are given the address of they may use, and what that leads to. */
static CUresult share(const struct launch *launch)
{
	const struct bf_function *function = launch->function;
	CUresult status = CUDA_SUCCESS;

	if (launch->blob)
		status = bf_shared_touch_words(launch->blob, launch->wire.parameters_size);
	for (uint32_t i = 0; !launch->blob && i < function->parameter_count && !status; i++)
		status = bf_shared_touch_words(launch->parameters[i], function->parameters[i].size);
	return status ? status : bf_shared_before(launch->stream, true);
}

/* A kernel of a library is of any context. */
static CUresult check_context(const struct launch *launch, const struct bf_stream *stream, CUfunction function)
{
	uint32_t context = stream ? stream->entry.context : bf_self.current;

	if (BF_HANDLE_KIND(BF_ARG(function)) == BF_FUNCTION && launch->function->entry.context != context)
		return CUDA_ERROR_INVALID_HANDLE;
	return CUDA_SUCCESS;
}

static CUresult start(struct launch *launch, CUfunction function, void **extra, bool per_thread)
{
	struct bf_context *context = bf_context_at(bf_self.current);
	struct bf_stream *stream = NULL;
	CUresult status = bf_check();
	bool shared;

	if (BF_UNLIKELY(status))
		return status;
	if (BF_UNLIKELY(!context))
		return CUDA_ERROR_INVALID_CONTEXT;
	if (BF_UNLIKELY(context->fault))
		return (CUresult)context->fault;
	launch->function = bf_function_find(function);
	if (BF_UNLIKELY(!launch->function))
		return CUDA_ERROR_INVALID_HANDLE;
	status = bf_stream_resolve(&launch->stream, per_thread);
	if (!status)
		stream = bf_handle_find(BF_STREAM, BF_ARG(launch->stream));
	if (!status && !stream && (uintptr_t)launch->stream > 2)
		status = CUDA_ERROR_INVALID_HANDLE;
	if (!status)
		status = check_context(launch, stream, function);
	if (!status)
		status = check_shape(launch, context->device);
	if (!status)
		status = bf_capture_takes(launch->stream);
	if (BF_UNLIKELY(status))
		return status;
	launch->wire.function = BF_ARG(function);
	launch->wire.stream = BF_ARG(launch->stream);
	launch->wire.parameters_size = launch->function->parameters_size;
	if (BF_UNLIKELY(extra && !launch->parameters))
		status = read_extra(launch, extra);
	else if (BF_UNLIKELY(launch->function->parameter_count && (extra || !launch->parameters)))
		status = CUDA_ERROR_INVALID_VALUE;
	shared = !status && bf_shared_in_use();
	if (BF_UNLIKELY(shared))
		status = share(launch);
	if (BF_UNLIKELY(status))
		return status;
	bf_credit_take(stream ? &stream->credit : &context->credit, launch->stream, 0);
	return send_launch(launch, shared);
}

#define CALLER __builtin_return_address(0)
#define SHAPE .grid = { gridDimX, gridDimY, gridDimZ }, .block = { blockDimX, blockDimY, blockDimZ }

BF_EXPORT CUresult cuLaunchKernel(CUfunction f, unsigned int gridDimX, unsigned int gridDimY, unsigned int gridDimZ,
				  unsigned int blockDimX, unsigned int blockDimY, unsigned int blockDimZ,
				  unsigned int sharedMemBytes, CUstream hStream, void **kernelParams, void **extra)
{
	struct launch launch = { .wire = { SHAPE, .shared_bytes = sharedMemBytes },
				 .stream = hStream,
				 .parameters = kernelParams,
				 .caller = CALLER };

	return start(&launch, f, extra, false);
}

BF_EXPORT CUresult cuLaunchKernel_ptsz(CUfunction f, unsigned int gridDimX, unsigned int gridDimY,
				       unsigned int gridDimZ, unsigned int blockDimX, unsigned int blockDimY,
				       unsigned int blockDimZ, unsigned int sharedMemBytes, CUstream hStream,
				       void **kernelParams, void **extra)
{
	struct launch launch = { .wire = { SHAPE, .shared_bytes = sharedMemBytes },
				 .stream = hStream,
				 .parameters = kernelParams,
				 .caller = CALLER };

	return start(&launch, f, extra, true);
}

BF_EXPORT CUresult cuLaunchCooperativeKernel(CUfunction f, unsigned int gridDimX, unsigned int gridDimY,
					     unsigned int gridDimZ, unsigned int blockDimX, unsigned int blockDimY,
					     unsigned int blockDimZ, unsigned int sharedMemBytes, CUstream hStream,
					     void **kernelParams)
{
	struct launch launch = { .wire = { SHAPE, .shared_bytes = sharedMemBytes, .kind = BF_LAUNCH_COOPERATIVE },
				 .stream = hStream,
				 .parameters = kernelParams,
				 .caller = CALLER };

	return start(&launch, f, NULL, false);
}

BF_EXPORT CUresult cuLaunchCooperativeKernel_ptsz(CUfunction f, unsigned int gridDimX, unsigned int gridDimY,
						  unsigned int gridDimZ, unsigned int blockDimX, unsigned int blockDimY,
						  unsigned int blockDimZ, unsigned int sharedMemBytes, CUstream hStream,
						  void **kernelParams)
{
	struct launch launch = { .wire = { SHAPE, .shared_bytes = sharedMemBytes, .kind = BF_LAUNCH_COOPERATIVE },
				 .stream = hStream,
				 .parameters = kernelParams,
				 .caller = CALLER };

	return start(&launch, f, NULL, true);
}

/* What the launch records by itself. */
static CUevent event_of(const CUlaunchAttribute *attribute)
{
	switch (attribute->id) {
	case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT: return attribute->value.programmaticEvent.event;
	case CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT: return attribute->value.launchCompletionEvent.event;
	default: return NULL;
	}
}

static void note_event(CUevent handle, CUstream stream)
{
	struct bf_event *event = bf_handle_find(BF_EVENT, BF_ARG(handle));

	if (!event)
		return;
	atomic_store(&event->external, true);
	bf_capture_recorded(event, stream);
}

/* One attribute has an output: the node by which the launch could be changed later. It belongs to graphs. */
static CUresult check_attributes(const CUlaunchConfig *config)
{
	if (config->numAttrs > BF_MAX_LAUNCH_ATTRIBUTES || (config->numAttrs && !config->attrs))
		return CUDA_ERROR_INVALID_VALUE;
	for (unsigned i = 0; i < config->numAttrs; i++)
		if (config->attrs[i].id == CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE)
			return CUDA_ERROR_NOT_SUPPORTED;
	return CUDA_SUCCESS;
}

static CUresult launch_ex(const CUlaunchConfig *config, CUfunction f, void **parameters, void **extra, bool per_thread,
			  const void *caller)
{
	struct launch launch = { .parameters = parameters, .caller = caller };
	CUresult status = bf_check();

	if (status)
		return status;
	if (!config)
		return CUDA_ERROR_INVALID_VALUE;
	status = check_attributes(config);
	if (status)
		return status;
	launch.stream = config->hStream;
	launch.attributes = config->attrs;
	launch.wire = (struct bf_launch){
		.grid = { config->gridDimX, config->gridDimY, config->gridDimZ },
		.block = { config->blockDimX, config->blockDimY, config->blockDimZ },
		.shared_bytes = config->sharedMemBytes,
		.attribute_count = config->numAttrs,
		.kind = config->numAttrs ? BF_LAUNCH_EX : BF_LAUNCH_PLAIN,
	};
	status = start(&launch, f, extra, per_thread);
	for (unsigned i = 0; i < config->numAttrs && !status; i++)
		note_event(event_of(&config->attrs[i]), launch.stream);
	return status;
}

BF_EXPORT CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction f, void **kernelParams, void **extra)
{
	return launch_ex(config, f, kernelParams, extra, false, CALLER);
}

BF_EXPORT CUresult cuLaunchKernelEx_ptsz(const CUlaunchConfig *config, CUfunction f, void **kernelParams, void **extra)
{
	return launch_ex(config, f, kernelParams, extra, true, CALLER);
}
