/* SPDX-License-Identifier: Apache-2.0
 *
 * Arguments that are structures with handles in them: a launch's configuration, a kernel node, a texture's resource.
 */
#include "reader.h"

/* A CUlaunchConfig with its attributes behind it; handles in both are translated. */
CUresult bf_read_config(struct bf_session *session, struct bf_frame *frame, unsigned i, struct reader *reader)
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

CUresult bf_read_kernel_node(struct bf_session *session, struct bf_frame *frame, unsigned i, struct reader *reader)
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

/* What is not an array lies at an address, which is the same number on both sides. */
CUresult bf_place_resource(struct bf_session *session, CUDA_RESOURCE_DESC *resource)
{
	u64 value = 0;
	switch (resource->resType) {
	case CU_RESOURCE_TYPE_ARRAY:
		if (!bf_handle_resolve(&session->handles, BF_ARRAY, (u64)(uintptr_t)resource->res.array.hArray,
				       &value) ||
		    !value)
			return CUDA_ERROR_INVALID_VALUE;
		resource->res.array.hArray = (CUarray)(uintptr_t)value;
		return CUDA_SUCCESS;
	case CU_RESOURCE_TYPE_MIPMAPPED_ARRAY:
		if (!bf_handle_resolve(&session->handles, BF_MIPMAPPEDARRAY,
				       (u64)(uintptr_t)resource->res.mipmap.hMipmappedArray, &value) ||
		    !value)
			return CUDA_ERROR_INVALID_VALUE;
		resource->res.mipmap.hMipmappedArray = (CUmipmappedArray)(uintptr_t)value;
		return CUDA_SUCCESS;
	case CU_RESOURCE_TYPE_LINEAR:
	case CU_RESOURCE_TYPE_PITCH2D: return CUDA_SUCCESS;
	default: return CUDA_ERROR_INVALID_VALUE;
	}
}
