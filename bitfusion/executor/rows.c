/* SPDX-License-Identifier: Apache-2.0
 *
 * Rows that mean more to the executor than their call: contexts, streams' flags, captures, and memory that
 * counts against the session's slice.
 */
#include "format.h"
#include "reserve.h"
#include "virtual.h"

#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------ contexts */

/* Everything that threads of ours believe about current contexts is void. */
static void forget_contexts(struct bf_session *session)
{
	atomic_fetch_add(&session->context_generation, 1);
	bf_context_current = 0;
}

/* A driver makes a new context current on the thread that creates it. */
static CUresult context_create(struct bf_session *session, struct bf_frame *frame)
{
	CUresult status = bf_invoke(frame);
	bf_context_current = 0;
	return status;
}

/* No look at what its streams have freed may come in between. */
static CUresult end_context(struct bf_session *session, struct bf_frame *frame, uint32_t context)
{
	struct bf_freed_stream *left = bf_freed_leave(session, context);
	CUresult status = bf_invoke(frame);
	bf_freed_end(session, left, status == CUDA_SUCCESS);
	return status;
}

static CUresult context_destroy(struct bf_session *session, struct bf_frame *frame)
{
	bf_reap_wait(session, BF_HANDLE_INDEX(frame->given[0]), 0);
	bf_use_wait(session, frame->given[0]);
	CUresult status = end_context(session, frame, BF_HANDLE_INDEX(frame->given[0]));
	if (status == CUDA_SUCCESS)
		bf_memory_end_context(session, BF_HANDLE_INDEX(frame->given[0]));
	forget_contexts(session);
	return status;
}

static void end_primary(struct bf_session *session, uint32_t context)
{
	uint64_t number = BF_HANDLE(BF_CONTEXT, context);
	bf_handle_drop_owned(&session->handles, number);
	bf_handle_drop(&session->handles, number);
	bf_memory_end_context(session, context);
}

/* The client says so when its program releases for the last time; the one retain to give back is ours. */
static CUresult primary_release(struct bf_session *session, struct bf_frame *frame)
{
	int device = bf_device_of(session, frame->argument[0]);
	uint64_t number = BF_HANDLE(BF_CONTEXT, device + 1), context;
	if (device < 0)
		return CUDA_ERROR_INVALID_DEVICE;
	if (!bf_handle_resolve(&session->handles, BF_CONTEXT, number, &context))
		return CUDA_SUCCESS; /* it never came to life */
	bf_reap_wait(session, (uint32_t)device + 1, 0);
	bf_use_wait(session, number);
	CUresult status = end_context(session, frame, (uint32_t)device + 1);
	if (status == CUDA_SUCCESS)
		end_primary(session, (uint32_t)device + 1);
	forget_contexts(session);
	return status;
}

/* A reset takes the retains away with the state, so the next use retains anew. */
static CUresult primary_reset(struct bf_session *session, struct bf_frame *frame)
{
	int device = bf_device_of(session, frame->argument[0]);
	if (device >= 0) {
		bf_reap_wait(session, (uint32_t)device + 1, 0);
		bf_use_wait(session, BF_HANDLE(BF_CONTEXT, device + 1));
	}
	CUresult status = end_context(session, frame, (uint32_t)device + 1); /* of no device: of none */
	if (device >= 0 && status == CUDA_SUCCESS)
		end_primary(session, (uint32_t)device + 1);
	forget_contexts(session);
	return status;
}

/* ------------------------------------------------------------------ streams */

static CUresult begin_capture(struct bf_session *session, struct bf_frame *frame)
{
	CUresult status = bf_invoke(frame);
	/* never counted down: a capture can end in ways that no call tells of */
	session->captures |= status == CUDA_SUCCESS;
	return status;
}

/* The driver answers with arrays of its own, which a row brings home like any other. */
static CUresult capture_info(struct bf_session *session, struct bf_frame *frame)
{
	__typeof__(&cuStreamGetCaptureInfo_v3) function = (void *)frame->route->function;
	uint64_t *a = frame->argument;
	const CUgraphNode *nodes = NULL;
	const CUgraphEdgeData *edges = NULL;
	size_t count = 0, room = a[4] ? (size_t)frame->given[4] / sizeof(*nodes) : 0;
	CUresult status = function((CUstream)(uintptr_t)a[0], (void *)(uintptr_t)a[1], (void *)(uintptr_t)a[2],
				   (void *)(uintptr_t)a[3], &nodes, a[5] ? &edges : NULL, &count);
	if (status != CUDA_SUCCESS)
		return status;
	if (nodes && a[4])
		memcpy((void *)(uintptr_t)a[4], nodes, (count < room ? count : room) * sizeof(*nodes));
	room = a[5] ? (size_t)frame->given[5] / sizeof(*edges) : 0;
	if (edges && a[5])
		memcpy((void *)(uintptr_t)a[5], edges, (count < room ? count : room) * sizeof(*edges));
	if (a[6])
		memcpy((void *)(uintptr_t)a[6], &count, sizeof(count));
	return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------ memory */

CUresult bf_row_charged(struct bf_session *session, struct bf_frame *frame, uint64_t size, uint64_t *place,
			uint64_t key)
{
	int device;
	CUresult status = bf_memory_charge(session, size, &device);
	if (status != CUDA_SUCCESS)
		return status;
	status = bf_invoke(frame);
	if (status != CUDA_SUCCESS)
		bf_memory_refund(session, device, size);
	else
		bf_memory_add(session, &(struct bf_allocation){ place ? *place : key, size, (uint32_t)device,
								bf_context_index(), false });
	return status;
}

/* (CUdeviceptr *address, size_t size, …, CUstream stream) */
static CUresult alloc_row(struct bf_session *session, struct bf_frame *frame)
{
	uint64_t *place = (uint64_t *)(uintptr_t)frame->argument[0];
	CUstream stream = (CUstream)(uintptr_t)frame->argument[frame->route->row->argument_count - 1];
	if (!place)
		return bf_invoke(frame);
	if (bf_is_capturing(session, stream))
		return bf_reserve_node(session, frame, frame->argument[1], place);
	return bf_reserve_alloc(session, frame, stream);
}

CUresult bf_row_refunded(struct bf_session *session, struct bf_frame *frame, uint64_t key)
{
	struct bf_allocation allocation;
	bool known = bf_memory_remove(session, key, &allocation);
	CUresult status = bf_invoke(frame);
	if (known && status == CUDA_SUCCESS)
		bf_memory_forget(session, &allocation);
	else if (known)
		bf_memory_add(session, &allocation);
	return status;
}

/* (CUdeviceptr address, CUstream stream) */
static CUresult free_async_row(struct bf_session *session, struct bf_frame *frame)
{
	struct bf_allocation allocation;
	bool known = bf_memory_remove(session, frame->argument[0], &allocation);
	CUresult status = bf_invoke(frame);
	uint32_t context = bf_stream_context(session, frame->command, frame->given[1]);
	if (known && status != CUDA_SUCCESS)
		bf_memory_add(session, &allocation);
	else if (known && !bf_freed_add(session, frame->argument[1], context, &allocation))
		bf_memory_forget(session, &allocation);
	return status;
}

/* (CUdeviceptr address) */
static CUresult free_row(struct bf_session *session, struct bf_frame *frame)
{
	return bf_row_refunded(session, frame, frame->argument[0]);
}

/* (CUarray array), (CUmipmappedArray array) */
static CUresult release_row(struct bf_session *session, struct bf_frame *frame)
{
	return bf_row_refunded(session, frame, frame->given[0]);
}

static CUresult total_memory(struct bf_session *session, struct bf_frame *frame)
{
	CUresult status = bf_invoke(frame);
	uint64_t *total = (uint64_t *)(uintptr_t)frame->argument[0];
	int device = bf_device_of(session, frame->argument[1]);
	if (status == CUDA_SUCCESS && total && device >= 0)
		*total = bf_memory_total(session, (uint32_t)device, *total);
	return status;
}

static CUresult memory_info(struct bf_session *session, struct bf_frame *frame)
{
	uint64_t info[2] = { 0, 0 };
	CUresult status = bf_memory_info(session, info);
	for (int i = 0; i < 2 && status == CUDA_SUCCESS; i++) {
		if (frame->argument[i])
			*(uint64_t *)(uintptr_t)frame->argument[i] = info[i];
	}
	return status;
}

/* A driver pads rows, by how much it does not say: 64 bytes is the least that any does. */
static uint64_t array_bytes(const CUDA_ARRAY3D_DESCRIPTOR *what)
{
	unsigned channel = bf_format_bytes(what->Format); /* what is compressed counts for a byte */
	uint64_t total = (uint64_t)(channel ? channel : 1) * (what->NumChannels ? what->NumChannels : 1);
	if (__builtin_mul_overflow(total, what->Width ? what->Width : 1, &total) || total > UINT64_MAX - 63)
		return UINT64_MAX;
	total = (total + 63) / 64 * 64;
	if (__builtin_mul_overflow(total, what->Height ? what->Height : 1, &total) ||
	    __builtin_mul_overflow(total, what->Depth ? what->Depth : 1, &total))
		return UINT64_MAX;
	return total;
}

static size_t half(size_t size)
{
	return size > 1 ? size / 2 : size;
}

static uint64_t mipmap_bytes(CUDA_ARRAY3D_DESCRIPTOR what, unsigned levels)
{
	const bool sliced = what.Flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP);
	uint64_t total = 0;
	for (unsigned level = 0; level < levels; level++) {
		if (__builtin_add_overflow(total, array_bytes(&what), &total))
			return UINT64_MAX;
		if (what.Width <= 1 && what.Height <= 1 && (sliced || what.Depth <= 1))
			break;
		what.Width = half(what.Width);
		what.Height = half(what.Height);
		what.Depth = sliced ? what.Depth : half(what.Depth);
	}
	return total;
}

static CUresult array_row(struct bf_session *session, struct bf_frame *frame)
{
	const CUDA_ARRAY_DESCRIPTOR *what = (const CUDA_ARRAY_DESCRIPTOR *)(uintptr_t)frame->argument[1];
	if (!what || !frame->argument[0])
		return bf_invoke(frame);
	const CUDA_ARRAY3D_DESCRIPTOR shape = {
		.Width = what->Width, .Height = what->Height, .Format = what->Format, .NumChannels = what->NumChannels
	};
	return bf_row_charged(session, frame, array_bytes(&shape), NULL, frame->given[0]);
}

static CUresult array3d_row(struct bf_session *session, struct bf_frame *frame)
{
	const CUDA_ARRAY3D_DESCRIPTOR *what = (const CUDA_ARRAY3D_DESCRIPTOR *)(uintptr_t)frame->argument[1];
	if (!what || !frame->argument[0])
		return bf_invoke(frame);
	return bf_row_charged(session, frame, array_bytes(what), NULL, frame->given[0]);
}

static CUresult mipmap_row(struct bf_session *session, struct bf_frame *frame)
{
	const CUDA_ARRAY3D_DESCRIPTOR *what = (const CUDA_ARRAY3D_DESCRIPTOR *)(uintptr_t)frame->argument[1];
	if (!what || !frame->argument[0])
		return bf_invoke(frame);
	return bf_row_charged(session, frame, mipmap_bytes(*what, (unsigned)frame->argument[2]), NULL, frame->given[0]);
}

static CUresult stream_destroy(struct bf_session *session, struct bf_frame *frame)
{
	bf_use_wait(session, frame->given[0]);
	return bf_invoke(frame);
}

/* ------------------------------------------------------------------ images */

static CUresult unload_row(struct bf_session *session, struct bf_frame *frame)
{
	bf_use_wait(session, frame->given[0]);
	/* what was looked up meanwhile: before the driver can give the same handles to other code */
	bf_handle_drop_owned(&session->handles, frame->given[0]);
	CUresult status = bf_invoke(frame);
	if (status == CUDA_SUCCESS) {
		bf_image_drop(session, frame->given[0]);
		bf_code_refund(session, frame->given[0]);
	}
	return status;
}

/* Calls that make a context's copy of a library, whose variables take memory then. */
static CUresult instance_row(struct bf_session *session, struct bf_frame *frame, unsigned library)
{
	struct bf_code_memory before;
	bf_code_measure(session, &before);
	CUresult status = bf_invoke(frame);
	return status ? status : bf_code_charge(session, &before, frame->given[library], BF_OUTLIVES);
}

static CUresult library_module(struct bf_session *session, struct bf_frame *frame)
{
	return instance_row(session, frame, 1);
}

static CUresult library_global(struct bf_session *session, struct bf_frame *frame)
{
	return instance_row(session, frame, 2);
}

static const struct {
	const char *name;
	bf_around around;
} rows[] = {
	{ "cuArray3DCreate_v2", array3d_row },
	{ "cuArrayCreate_v2", array_row },
	{ "cuArrayDestroy", release_row },
	{ "cuCtxCreate_v2", context_create },
	{ "cuCtxCreate_v3", context_create },
	{ "cuCtxCreate_v4", context_create },
	{ "cuCtxDestroy_v2", context_destroy },
	{ "cuCtxSetLimit", bf_limit_set },
	{ "cuDeviceGraphMemTrim", bf_reserve_other },
	{ "cuDevicePrimaryCtxRelease_v2", primary_release },
	{ "cuDevicePrimaryCtxReset_v2", primary_reset },
	{ "cuDeviceTotalMem_v2", total_memory },
	{ "cuGraphAddHostNode", bf_node_function },
	{ "cuGraphAddMemAllocNode", bf_node_alloc },
	{ "cuGraphAddMemFreeNode", bf_node_free },
	{ "cuGraphAddMemcpyNode", bf_node_copy },
	{ "cuGraphDestroy", bf_reserve_end_graph },
	{ "cuGraphExecDestroy", bf_reserve_end_graph },
	{ "cuGraphExecHostNodeSetParams", bf_node_function },
	{ "cuGraphExecMemcpyNodeSetParams", bf_node_copy },
	{ "cuGraphHostNodeSetParams", bf_node_function },
	{ "cuGraphLaunch", bf_reserve_launch },
	{ "cuGraphMemAllocNodeGetParams", bf_node_alloc_params },
	{ "cuGraphMemcpyNodeSetParams", bf_node_copy },
	{ "cuGraphUpload", bf_reserve_launch },
	{ "cuLibraryGetGlobal", library_global },
	{ "cuLibraryGetModule", library_module },
	{ "cuLibraryUnload", unload_row },
	{ "cuLinkDestroy", unload_row },
	{ "cuMemAllocAsync", alloc_row },
	{ "cuMemAllocAsync_ptsz", alloc_row },
	{ "cuMemAllocFromPoolAsync", alloc_row },
	{ "cuMemAllocFromPoolAsync_ptsz", alloc_row },
	{ "cuMemCreate", bf_virtual_create },
	{ "cuMemFreeAsync", free_async_row },
	{ "cuMemFreeAsync_ptsz", free_async_row },
	{ "cuMemFree_v2", free_row },
	{ "cuMemGetInfo_v2", memory_info },
	{ "cuMemMap", bf_virtual_map },
	{ "cuMemPoolCreate", bf_reserve_create },
	{ "cuMemPoolDestroy", bf_reserve_destroy },
	{ "cuMemPoolTrimTo", bf_reserve_other },
	{ "cuMemRelease", bf_virtual_release },
	{ "cuMemRetainAllocationHandle", bf_virtual_retain },
	{ "cuMemUnmap", bf_virtual_unmap },
	{ "cuMipmappedArrayCreate", mipmap_row },
	{ "cuMipmappedArrayDestroy", release_row },
	{ "cuModuleUnload", unload_row },
	{ "cuStreamBeginCaptureToGraph", begin_capture },
	{ "cuStreamBeginCapture_v2", begin_capture },
	{ "cuStreamDestroy_v2", stream_destroy },
	{ "cuStreamGetCaptureInfo_v3", capture_info },
};

bf_around bf_row_around(const char *name)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		if (!strcmp(rows[i].name, name))
			return rows[i].around;
	}
	return NULL;
}

bool bf_row_allocates(bf_around around)
{
	return around == alloc_row || around == bf_node_alloc || around == bf_virtual_create || around == array_row ||
	       around == array3d_row || around == mipmap_row;
}
