/* SPDX-License-Identifier: Apache-2.0
 *
 * Fills are rows; what is added here is the check of the pointer, and the thread's own stream.
 */
#define _GNU_SOURCE
#include "shared.h"

struct fill {
	CUdeviceptr at;
	size_t pitch, value, width, height; /* pitch 0: not two-dimensional */
	size_t element;
	unsigned call, async_call;
};

static CUresult send(const struct fill *fill, CUstream stream, bool async)
{
	if (!async && !stream) /* the rows without a stream are not counted as they are sent */
		bf_stream_admit(stream, 0);
	if (fill->pitch)
		return bf_call(async || stream ? fill->async_call : fill->call,
			       (const uint64_t[]){ fill->at, fill->pitch, fill->value, fill->width, fill->height,
						   BF_ARG(stream) });
	return bf_call(async || stream ? fill->async_call : fill->call,
		       (const uint64_t[]){ fill->at, fill->value, fill->width, BF_ARG(stream) });
}

/* Of memory that the program has too: a fill that is not asynchronous is over on return. */
static CUresult fill_shared(const struct fill *fill, CUstream stream, bool async)
{
	CUresult status = bf_shared_before(stream, true);

	if (status)
		return status;
	status = send(fill, stream, async);
	bf_shared_after(stream);
	return status || async ? status : bf_stream_wait(stream);
}

static CUresult fill(const struct fill *fill, CUstream stream, bool async, bool per_thread)
{
	size_t bytes = fill->width * fill->element;
	CUresult status = bf_check();
	CUdeviceptr at;

	if (!status)
		status = bf_context_check();
	if (!status)
		status = bf_stream_resolve(&stream, per_thread);
	if (status || !fill->width || !fill->height)
		return status;
	if (fill->at % fill->element || fill->width > BF_MAX_COPY ||
	    (fill->height > 1 && (fill->pitch < bytes || fill->pitch % fill->element)))
		return CUDA_ERROR_INVALID_VALUE;
	if (bf_device_range_check(fill->at, (fill->height - 1) * fill->pitch + bytes))
		return CUDA_ERROR_INVALID_VALUE;
	if (bf_shared_in_use() && bf_shared_find((const void *)(uintptr_t)fill->at, 1, &at))
		return fill_shared(fill, stream, async);
	return send(fill, stream, async);
}

#define FILL_1D(bits, type) \
	static CUresult fill_d##bits(CUdeviceptr at, type value, size_t count, CUstream stream, bool async, \
				     bool per_thread) \
	{ \
		struct fill f = { \
			at, 0, value, count, 1, sizeof(type), BF_cuMemsetD##bits##_v2, BF_cuMemsetD##bits##Async \
		}; \
\
		return fill(&f, stream, async, per_thread); \
	} \
	BF_EXPORT CUresult cuMemsetD##bits##_v2(CUdeviceptr dstDevice, type value, size_t N) \
	{ \
		return fill_d##bits(dstDevice, value, N, NULL, false, false); \
	} \
	BF_EXPORT CUresult cuMemsetD##bits##_v2_ptds(CUdeviceptr dstDevice, type value, size_t N) \
	{ \
		return fill_d##bits(dstDevice, value, N, NULL, false, true); \
	} \
	BF_EXPORT CUresult cuMemsetD##bits##Async(CUdeviceptr dstDevice, type value, size_t N, CUstream hStream) \
	{ \
		return fill_d##bits(dstDevice, value, N, hStream, true, false); \
	} \
	BF_EXPORT CUresult cuMemsetD##bits##Async_ptsz(CUdeviceptr dstDevice, type value, size_t N, CUstream hStream) \
	{ \
		return fill_d##bits(dstDevice, value, N, hStream, true, true); \
	}

#define FILL_2D(bits, type) \
	static CUresult fill_2d##bits(CUdeviceptr at, size_t pitch, type value, size_t width, size_t height, \
				      CUstream stream, bool async, bool per_thread) \
	{ \
		struct fill f = { at, \
				  pitch ? pitch : width * sizeof(type), \
				  value, \
				  width, \
				  height, \
				  sizeof(type), \
				  BF_cuMemsetD2D##bits##_v2, \
				  BF_cuMemsetD2D##bits##Async }; \
\
		return fill(&f, stream, async, per_thread); \
	} \
	BF_EXPORT CUresult cuMemsetD2D##bits##_v2(CUdeviceptr dstDevice, size_t dstPitch, type value, size_t Width, \
						  size_t Height) \
	{ \
		return fill_2d##bits(dstDevice, dstPitch, value, Width, Height, NULL, false, false); \
	} \
	BF_EXPORT CUresult cuMemsetD2D##bits##_v2_ptds(CUdeviceptr dstDevice, size_t dstPitch, type value, \
						       size_t Width, size_t Height) \
	{ \
		return fill_2d##bits(dstDevice, dstPitch, value, Width, Height, NULL, false, true); \
	} \
	BF_EXPORT CUresult cuMemsetD2D##bits##Async(CUdeviceptr dstDevice, size_t dstPitch, type value, size_t Width, \
						    size_t Height, CUstream hStream) \
	{ \
		return fill_2d##bits(dstDevice, dstPitch, value, Width, Height, hStream, true, false); \
	} \
	BF_EXPORT CUresult cuMemsetD2D##bits##Async_ptsz(CUdeviceptr dstDevice, size_t dstPitch, type value, \
							 size_t Width, size_t Height, CUstream hStream) \
	{ \
		return fill_2d##bits(dstDevice, dstPitch, value, Width, Height, hStream, true, true); \
	}

FILL_1D(8, unsigned char)
FILL_1D(16, unsigned short)
FILL_1D(32, unsigned int)
FILL_2D(8, unsigned char)
FILL_2D(16, unsigned short)
FILL_2D(32, unsigned int)
