/* SPDX-License-Identifier: Apache-2.0
 *
 * Fills. Those without a stream wait where the host can see what they fill.
 */
#include "queue.h"
#include "memory.h"

struct fill {
	CUdeviceptr target;
	size_t pitch;
	unsigned value, element;
	size_t width, height;
};

static int host_sees(uint64_t address)
{
	struct range range;
	return range_lookup(address, &range) &&
	       (range.kind == RANGE_HOST || range.kind == RANGE_REGISTERED || range.kind == RANGE_MANAGED);
}

static CUresult fill(CUstream handle, int synchronous, const struct fill *fill)
{
	struct context *context;
	struct stream *stream;
	TRY(stream_enter(handle, &context, &stream));
	if (!fill->width || !fill->height)
		return CUDA_SUCCESS;
	uint64_t row = fill->width * fill->element, pitch = fill->height > 1 ? fill->pitch : row;
	if (fill->target % fill->element || pitch % fill->element || (fill->height > 1 && pitch < row))
		return CUDA_ERROR_INVALID_VALUE;
	TRY(memory_check_device(fill->target, pitch * (fill->height - 1) + row));
	struct work *work = work_new(WORK_SET, 0);
	if (!work)
		return CUDA_ERROR_OUT_OF_MEMORY;
	work->set = (struct set_work){ fill->target, pitch, fill->width, fill->height, fill->value, fill->element };
	return submit(stream, work, synchronous && host_sees(fill->target) ? SUBMIT_WAIT : 0);
}

#define LINE(stream, synchronous, element) \
	fill(stream, synchronous, &(struct fill){ dstDevice, 0, value, element, N, 1 })
#define BOX(stream, synchronous, element) \
	fill(stream, synchronous, &(struct fill){ dstDevice, dstPitch, value, element, Width, Height })

/* The four flavours of each: for stream 0 shared or own, and asynchronous ones. */
#define FILL(bits, type) \
	EXPORT CUresult cuMemsetD##bits##_v2(CUdeviceptr dstDevice, type value, size_t N) \
	{ \
		return LINE(CU_STREAM_LEGACY, 1, bits / 8); \
	} \
	EXPORT CUresult cuMemsetD##bits##_v2_ptds(CUdeviceptr dstDevice, type value, size_t N) \
	{ \
		return LINE(CU_STREAM_PER_THREAD, 1, bits / 8); \
	} \
	EXPORT CUresult cuMemsetD##bits##Async(CUdeviceptr dstDevice, type value, size_t N, CUstream hStream) \
	{ \
		return LINE(hStream, 0, bits / 8); \
	} \
	EXPORT CUresult cuMemsetD##bits##Async_ptsz(CUdeviceptr dstDevice, type value, size_t N, CUstream hStream) \
	{ \
		return LINE(PER_THREAD(hStream), 0, bits / 8); \
	} \
	EXPORT CUresult cuMemsetD2D##bits##_v2(CUdeviceptr dstDevice, size_t dstPitch, type value, size_t Width, \
					       size_t Height) \
	{ \
		return BOX(CU_STREAM_LEGACY, 1, bits / 8); \
	} \
	EXPORT CUresult cuMemsetD2D##bits##_v2_ptds(CUdeviceptr dstDevice, size_t dstPitch, type value, size_t Width, \
						    size_t Height) \
	{ \
		return BOX(CU_STREAM_PER_THREAD, 1, bits / 8); \
	} \
	EXPORT CUresult cuMemsetD2D##bits##Async(CUdeviceptr dstDevice, size_t dstPitch, type value, size_t Width, \
						 size_t Height, CUstream hStream) \
	{ \
		return BOX(hStream, 0, bits / 8); \
	} \
	EXPORT CUresult cuMemsetD2D##bits##Async_ptsz(CUdeviceptr dstDevice, size_t dstPitch, type value, \
						      size_t Width, size_t Height, CUstream hStream) \
	{ \
		return BOX(PER_THREAD(hStream), 0, bits / 8); \
	}

FILL(8, unsigned char)
FILL(16, unsigned short)
FILL(32, unsigned int)
