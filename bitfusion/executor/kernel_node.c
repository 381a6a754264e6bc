/* SPDX-License-Identifier: Apache-2.0
 *
 * What a kernel node of a graph would launch, for a client that changes some of it: drivers give pointers to the
 * values of the parameters, so these travel, packed by the kernel's layout.
 */
#include "core.h"
#include "row.h"

#include <stddef.h>
#include <string.h>

/* struct bf_kernel_node with room; that one ends without a size, and clang takes no such struct into another */
struct answer {
	struct {
		uint64_t size;
		uint8_t params[sizeof(((struct bf_kernel_node *)NULL)->params)];
	} head;
	uint8_t packed[BF_MAX_PARAMETERS + 8];
};
_Static_assert(offsetof(struct answer, packed) == offsetof(struct bf_kernel_node, packed), "the same layout");

static CUresult layout(struct bf_driver *driver, const CUDA_KERNEL_NODE_PARAMS_v2 *node, size_t i, size_t *offset,
		       size_t *size)
{
	if (node->func)
		return driver->cuFuncGetParamInfo ? driver->cuFuncGetParamInfo(node->func, i, offset, size)
						  : CUDA_ERROR_NOT_SUPPORTED;
	return driver->cuKernelGetParamInfo ? driver->cuKernelGetParamInfo(node->kern, i, offset, size)
					    : CUDA_ERROR_NOT_SUPPORTED;
}

/* CUDA_ERROR_INVALID_VALUE is how drivers say that there are no more parameters. */
static CUresult pack_values(struct bf_driver *driver, const CUDA_KERNEL_NODE_PARAMS_v2 *node, struct answer *answer)
{
	for (size_t i = 0; node->kernelParams; i++) {
		size_t offset = 0, size = 0;
		CUresult status = layout(driver, node, i, &offset, &size);
		if (status != CUDA_SUCCESS)
			return status == CUDA_ERROR_INVALID_VALUE ? CUDA_SUCCESS : status;
		if (offset > BF_MAX_PARAMETERS || size > BF_MAX_PARAMETERS - offset)
			return CUDA_ERROR_INVALID_VALUE;
		memcpy(answer->packed + offset, node->kernelParams[i], size);
		if (answer->head.size < sizeof(*node) + offset + size)
			answer->head.size = sizeof(*node) + offset + size;
	}
	return CUDA_SUCCESS;
}

static CUresult pack_buffer(const CUDA_KERNEL_NODE_PARAMS_v2 *node, struct answer *answer)
{
	const void *values = NULL;
	size_t size = 0;
	for (void **extra = node->extra; extra && *extra != CU_LAUNCH_PARAM_END; extra += 2) {
		if (*extra == CU_LAUNCH_PARAM_BUFFER_POINTER)
			values = extra[1];
		else if (*extra == CU_LAUNCH_PARAM_BUFFER_SIZE)
			size = *(const size_t *)extra[1];
	}
	if (size > BF_MAX_PARAMETERS || (size && !values))
		return CUDA_ERROR_INVALID_VALUE;
	if (size)
		memcpy(answer->packed, values, size);
	answer->head.size = sizeof(*node) + size;
	return CUDA_SUCCESS;
}

/* The client knows kernels and functions by numbers of its own; one that a library's kernel is in a context it may
 * never have asked for. */
static uint64_t number_of(struct bf_session *session, const CUDA_KERNEL_NODE_PARAMS_v2 *node)
{
	struct bf_handles *handles = &session->handles;
	if (node->kern)
		return bf_handle_known(handles, BF_KERNEL, (uint64_t)(uintptr_t)node->kern);
	uint64_t function = (uint64_t)(uintptr_t)node->func, number = bf_handle_known(handles, BF_FUNCTION, function);
	/* CUDA 13's runtime launches kernels where functions are declared, and is given them back as such */
	return number ? number : bf_handle_known(handles, BF_KERNEL, function);
}

static CUresult translate(struct bf_session *session, CUDA_KERNEL_NODE_PARAMS_v2 *node)
{
	uint64_t number = number_of(session, node);
	if (!number) {
		bf_log(session, "a graph has a kernel that the client has no handle of");
		return CUDA_ERROR_NOT_SUPPORTED;
	}
	node->func = node->kern ? NULL : (CUfunction)(uintptr_t)number;
	node->kern = node->kern ? (CUkernel)(uintptr_t)number : NULL;
	node->kernelParams = node->extra = NULL;
	node->ctx = NULL;
	return CUDA_SUCCESS;
}

static CUresult describe(struct bf_session *session, uint64_t node, struct answer *answer)
{
	struct bf_driver *driver = session->driver;
	CUDA_KERNEL_NODE_PARAMS_v2 params = { 0 };
	if (!driver->cuGraphKernelNodeGetParams_v2)
		return CUDA_ERROR_NOT_SUPPORTED;
	CUresult status = driver->cuGraphKernelNodeGetParams_v2((CUgraphNode)(uintptr_t)node, &params);
	if (status != CUDA_SUCCESS)
		return status;
	answer->head.size = sizeof(params);
	status = params.extra ? pack_buffer(&params, answer) : pack_values(driver, &params, answer);
	if (status == CUDA_SUCCESS)
		status = translate(session, &params);
	memcpy(answer->head.params, &params, sizeof(params));
	return status;
}

void bf_op_kernel_node(struct bf_session *session, const struct bf_command *command, const uint8_t *body, size_t size)
{
	struct answer answer = { 0 };
	struct bf_node given;
	uint64_t node;
	memcpy(&given, body, sizeof(given));
	CUresult status = CUDA_ERROR_INVALID_VALUE;
	if (given.node && bf_handle_resolve(&session->handles, BF_GRAPHNODE, given.node, &node))
		status = describe(session, node, &answer);
	bf_done(session, command, status, &answer, status ? 0 : sizeof(answer.head.size) + bf_pad(answer.head.size));
}
