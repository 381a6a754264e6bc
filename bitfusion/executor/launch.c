/* SPDX-License-Identifier: Apache-2.0 */
#include "core.h"

#include <string.h>

static CUresult translate_attribute(struct bf_session *session, CUlaunchAttribute *attribute)
{
	CUevent *event = NULL;
	switch (attribute->id) {
	case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT: event = &attribute->value.programmaticEvent.event; break;
	case CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT: event = &attribute->value.launchCompletionEvent.event; break;
	case CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE:
		/* its node is an output, which a launch has no way to bring back */
		return CUDA_ERROR_NOT_SUPPORTED;
	default: return CUDA_SUCCESS;
	}
	uint64_t value;
	if (!bf_handle_resolve(&session->handles, BF_EVENT, (uint64_t)(uintptr_t)*event, &value))
		return CUDA_ERROR_INVALID_HANDLE;
	*event = (CUevent)(uintptr_t)value;
	return CUDA_SUCCESS;
}

CUresult bf_launch_attributes(struct bf_session *session, CUlaunchAttribute *attributes, unsigned count)
{
	CUresult status = CUDA_SUCCESS;
	for (unsigned i = 0; i < count && status == CUDA_SUCCESS; i++)
		status = translate_attribute(session, &attributes[i]);
	return status;
}

static CUresult launch_ex(struct bf_session *session, const struct bf_launch *launch, CUfunction function,
			  CUstream stream, void **extra)
{
	CUlaunchAttribute attributes[BF_MAX_LAUNCH_ATTRIBUTES + 1];
	unsigned count = launch->attribute_count;
	if (!session->driver->cuLaunchKernelEx)
		return CUDA_ERROR_NOT_SUPPORTED;
	memcpy(attributes, launch + 1, count * sizeof(*attributes));
	CUresult status = bf_launch_attributes(session, attributes, count);
	if (status != CUDA_SUCCESS)
		return status;
	if (launch->kind == BF_LAUNCH_COOPERATIVE) {
		/* cuLaunchCooperativeKernel takes no packed parameters */
		memset(&attributes[count], 0, sizeof(*attributes));
		attributes[count].id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE;
		attributes[count++].value.cooperative = 1;
	}
	CUlaunchConfig config = {
		.gridDimX = launch->grid[0],
		.gridDimY = launch->grid[1],
		.gridDimZ = launch->grid[2],
		.blockDimX = launch->block[0],
		.blockDimY = launch->block[1],
		.blockDimZ = launch->block[2],
		.sharedMemBytes = launch->shared_bytes,
		.hStream = stream,
		.attrs = attributes,
		.numAttrs = count,
	};
	return session->driver->cuLaunchKernelEx(&config, function, NULL, extra);
}

void bf_op_launch(struct bf_session *session, const struct bf_command *command, const uint8_t *body, size_t size)
{
	const struct bf_launch *launch = (const struct bf_launch *)body;
	size_t attributes = (size_t)launch->attribute_count * sizeof(CUlaunchAttribute);
	if (launch->attribute_count > BF_MAX_LAUNCH_ATTRIBUTES || launch->parameters_size > BF_MAX_PARAMETERS ||
	    size < sizeof(*launch) + attributes + bf_pad(launch->parameters_size)) {
		bf_violation(session, "bad launch");
		return;
	}
	uint64_t function, stream;
	CUresult status = CUDA_ERROR_INVALID_HANDLE;
	if (bf_handle_resolve(&session->handles, BF_FUNCTION, launch->function, &function) &&
	    bf_handle_resolve(&session->handles, BF_STREAM, launch->stream, &stream))
		status = bf_stream_ready(session, launch->stream, stream);
	if (likely(status == CUDA_SUCCESS)) {
		size_t bytes = launch->parameters_size;
		void *extra[] = { CU_LAUNCH_PARAM_BUFFER_POINTER, (void *)(body + sizeof(*launch) + attributes),
				  CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes, CU_LAUNCH_PARAM_END };
		void **parameters = bytes ? extra : NULL;
		CUfunction kernel = (CUfunction)(uintptr_t)function;
		bf_pace_ready(session, stream);
		if (likely(launch->kind == BF_LAUNCH_PLAIN && !attributes))
			status = session->driver->cuLaunchKernel(kernel, launch->grid[0], launch->grid[1],
								 launch->grid[2], launch->block[0], launch->block[1],
								 launch->block[2], launch->shared_bytes,
								 (CUstream)(uintptr_t)stream, NULL, parameters);
		else
			status = launch_ex(session, launch, kernel, (CUstream)(uintptr_t)stream, parameters);
	}
	bf_done(session, command, status, NULL, 0);
}
