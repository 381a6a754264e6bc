/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies of one dimension, and what all copies share: what may be read late and what may not.
 */
#include "queue.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

/* Pageable memory up to this size is captured when the call is made; for more, and while there is much that was
 * captured and not yet copied, the call waits. */
enum { STAGE_LIMIT = 1 << 20, CAPTURED_LIMIT = 256 << 20 };
static _Atomic uint64_t captured;

static uint64_t extent(uint64_t width, uint64_t height, uint64_t depth, uint64_t pitch, uint64_t slice)
{
	return (depth - 1) * slice + (height - 1) * pitch + width;
}

static uint64_t source_extent(const struct copy_work *copy)
{
	return extent(copy->width, copy->height, copy->depth, copy->source_pitch, copy->source_slice);
}

/* Packs the source's rows into memory of the work's own. */
static int stage(struct copy_work *copy)
{
	uint64_t row = copy->width, total = row * copy->height * copy->depth;
	char *to = total > STAGE_LIMIT || captured + total > CAPTURED_LIMIT ? NULL : malloc(total);
	if (!to)
		return 0;
	captured += total;
	copy->staged = to;
	copy->staged_size = total;
	for (uint64_t z = 0; z < copy->depth; z++)
		for (uint64_t y = 0; y < copy->height; y++, to += row)
			memcpy(to,
			       (const char *)(uintptr_t)copy->source + z * copy->source_slice + y * copy->source_pitch,
			       row);
	copy->source_pitch = row;
	copy->source_slice = row * copy->height;
	return 1;
}

void copy_unstage(struct copy_work *copy)
{
	captured -= copy->staged_size;
	free(copy->staged);
}

/* ------------------------------------------------------------------ across contexts
 *
 * A copy that is not asynchronous and has to do with another GPU, or with another context of this one, comes behind
 * all work of each of the contexts, and all that they are given later comes behind it. */

/* Whose memory that is; NULL: the host's, or of no one GPU. */
static struct context *owner(uint64_t address)
{
	struct range range;
	if (!range_lookup(address, &range) || range.kind == RANGE_HOST || range.kind == RANGE_REGISTERED ||
	    range.kind == RANGE_MANAGED)
		return NULL;
	const struct device *device = &driver.devices[range.device];
	struct context *context = range.context; /* of a pool, who asked may work on another GPU */
	return context && context->alive && context->device == device ? context : device->primary;
}

static CUresult wait_for(struct context *context)
{
	return context && context->alive ? context_synchronize(context) : CUDA_SUCCESS;
}

static CUresult wait_for_all(struct context *current, struct context *one, struct context *other)
{
	TRY(wait_for(one == current ? NULL : one));
	TRY(wait_for(other == current || other == one ? NULL : other));
	return wait_for(current);
}

static int is_across(struct context *current, struct context *one, struct context *other, enum copy_mode mode)
{
	return mode != COPY_ASYNCHRONOUS && ((one && one != current) || (other && other != current));
}

static CUresult put_across(struct context *current, struct context *one, struct context *other, enum copy_mode *mode)
{
	*mode = COPY_ACROSS;
	return wait_for_all(current, one, other);
}

CUresult copy_between(CUcontext to, CUcontext from, enum copy_mode *mode)
{
	ENTER_CONTEXT(current);
	struct context *one = context_get(to), *other = context_get(from);
	if ((to && !one) || (from && !other))
		return CUDA_ERROR_INVALID_CONTEXT;
	if (!is_across(current, one, other, *mode))
		return CUDA_SUCCESS;
	TRY(capture_check_unsafe());
	return put_across(current, one, other, mode);
}

static CUresult settle_mode(struct context *current, const struct copy_work *copy, enum copy_mode *mode)
{
	struct context *one = owner(copy->source), *other = owner(copy->target);
	return is_across(current, one, other, *mode) ? put_across(current, one, other, mode) : CUDA_SUCCESS;
}

/* ------------------------------------------------------------------ any copy */

CUresult copy_submit(struct stream *stream, const struct copy_work *request, enum copy_mode mode)
{
	if (!request->width || !request->height || !request->depth)
		return CUDA_SUCCESS;
	enum place from = memory_place(request->source, source_extent(request));
	enum place to = memory_place(request->target, extent(request->width, request->height, request->depth,
							     request->target_pitch, request->target_slice));
	if (from == PLACE_INVALID || to == PLACE_INVALID)
		return CUDA_ERROR_INVALID_VALUE;
	if (!stream->capture)
		TRY(settle_mode(stream->context, request, &mode));
	struct work *work = work_new(WORK_COPY, 0);
	if (!work)
		return CUDA_ERROR_OUT_OF_MEMORY;
	work->copy = *request;
	/* between places of one context nothing is waited for; to pageable memory everything is */
	int wait = mode == COPY_ACROSS || (mode && (from != PLACE_DEVICE || to != PLACE_DEVICE));
	if (stream->capture) /* a node reads and writes when it is launched */
		return submit(stream, work, 0);
	if (to == PLACE_PAGEABLE)
		wait = 1;
	else if (!wait && from == PLACE_PAGEABLE)
		wait = !stage(&work->copy);
	return submit(stream, work, wait ? SUBMIT_WAIT : 0);
}

static CUresult copy_line(CUstream handle, uint64_t target, uint64_t source, uint64_t size, int device_target,
			  int device_source, enum copy_mode mode)
{
	struct context *context;
	struct stream *stream;
	TRY(stream_enter(handle, &context, &stream));
	if (mode != COPY_ASYNCHRONOUS)
		TRY(capture_check_unsafe());
	if (!size)
		return CUDA_SUCCESS;
	if (!target || !source)
		return CUDA_ERROR_INVALID_VALUE;
	if (device_target)
		TRY(memory_check_device(target, size));
	if (device_source)
		TRY(memory_check_device(source, size));
	struct copy_work copy = {
		.source = source,
		.target = target,
		.width = size,
		.height = 1,
		.depth = 1,
		.source_pitch = size,
		.target_pitch = size,
		.source_slice = size,
		.target_slice = size,
	};
	return copy_submit(stream, &copy, mode);
}

#define HOST(pointer) ((uint64_t)(uintptr_t)(pointer))
/* The flavour whose stream 0 is the calling thread's own. */
#define DEFAULT CU_STREAM_LEGACY
#define OWN CU_STREAM_PER_THREAD

EXPORT CUresult cuMemcpy(CUdeviceptr dst, CUdeviceptr src, size_t ByteCount)
{
	return copy_line(DEFAULT, dst, src, ByteCount, 0, 0, COPY_SYNCHRONOUS);
}

EXPORT CUresult cuMemcpy_ptds(CUdeviceptr dst, CUdeviceptr src, size_t ByteCount)
{
	return copy_line(OWN, dst, src, ByteCount, 0, 0, COPY_SYNCHRONOUS);
}

EXPORT CUresult cuMemcpyAsync(CUdeviceptr dst, CUdeviceptr src, size_t ByteCount, CUstream hStream)
{
	return copy_line(hStream, dst, src, ByteCount, 0, 0, COPY_ASYNCHRONOUS);
}

EXPORT CUresult cuMemcpyHtoD_v2(CUdeviceptr dstDevice, const void *srcHost, size_t ByteCount)
{
	return copy_line(DEFAULT, dstDevice, HOST(srcHost), ByteCount, 1, 0, COPY_SYNCHRONOUS);
}

EXPORT CUresult cuMemcpyHtoD_v2_ptds(CUdeviceptr dstDevice, const void *srcHost, size_t ByteCount)
{
	return copy_line(OWN, dstDevice, HOST(srcHost), ByteCount, 1, 0, COPY_SYNCHRONOUS);
}

EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr dstDevice, const void *srcHost, size_t ByteCount, CUstream hStream)
{
	return copy_line(hStream, dstDevice, HOST(srcHost), ByteCount, 1, 0, COPY_ASYNCHRONOUS);
}

EXPORT CUresult cuMemcpyDtoH_v2(void *dstHost, CUdeviceptr srcDevice, size_t ByteCount)
{
	return copy_line(DEFAULT, HOST(dstHost), srcDevice, ByteCount, 0, 1, COPY_SYNCHRONOUS);
}

EXPORT CUresult cuMemcpyDtoH_v2_ptds(void *dstHost, CUdeviceptr srcDevice, size_t ByteCount)
{
	return copy_line(OWN, HOST(dstHost), srcDevice, ByteCount, 0, 1, COPY_SYNCHRONOUS);
}

EXPORT CUresult cuMemcpyDtoHAsync_v2(void *dstHost, CUdeviceptr srcDevice, size_t ByteCount, CUstream hStream)
{
	return copy_line(hStream, HOST(dstHost), srcDevice, ByteCount, 0, 1, COPY_ASYNCHRONOUS);
}

EXPORT CUresult cuMemcpyDtoD_v2(CUdeviceptr dstDevice, CUdeviceptr srcDevice, size_t ByteCount)
{
	return copy_line(DEFAULT, dstDevice, srcDevice, ByteCount, 1, 1, COPY_SYNCHRONOUS);
}

EXPORT CUresult cuMemcpyDtoD_v2_ptds(CUdeviceptr dstDevice, CUdeviceptr srcDevice, size_t ByteCount)
{
	return copy_line(OWN, dstDevice, srcDevice, ByteCount, 1, 1, COPY_SYNCHRONOUS);
}

EXPORT CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr dstDevice, CUdeviceptr srcDevice, size_t ByteCount, CUstream hStream)
{
	return copy_line(hStream, dstDevice, srcDevice, ByteCount, 1, 1, COPY_ASYNCHRONOUS);
}

static CUresult copy_peer(CUdeviceptr target, CUcontext to, CUdeviceptr source, CUcontext from, size_t size,
			  CUstream stream, enum copy_mode mode)
{
	if (!to || !from)
		return CUDA_ERROR_INVALID_CONTEXT;
	TRY(copy_between(to, from, &mode));
	return copy_line(stream, target, source, size, 1, 1, mode);
}

EXPORT CUresult cuMemcpyPeer(CUdeviceptr dstDevice, CUcontext dstContext, CUdeviceptr srcDevice, CUcontext srcContext,
			     size_t ByteCount)
{
	return copy_peer(dstDevice, dstContext, srcDevice, srcContext, ByteCount, DEFAULT, COPY_SYNCHRONOUS);
}

EXPORT CUresult cuMemcpyPeer_ptds(CUdeviceptr dstDevice, CUcontext dstContext, CUdeviceptr srcDevice,
				  CUcontext srcContext, size_t ByteCount)
{
	return copy_peer(dstDevice, dstContext, srcDevice, srcContext, ByteCount, OWN, COPY_SYNCHRONOUS);
}

EXPORT CUresult cuMemcpyPeerAsync(CUdeviceptr dstDevice, CUcontext dstContext, CUdeviceptr srcDevice,
				  CUcontext srcContext, size_t ByteCount, CUstream hStream)
{
	return copy_peer(dstDevice, dstContext, srcDevice, srcContext, ByteCount, hStream, COPY_ASYNCHRONOUS);
}
