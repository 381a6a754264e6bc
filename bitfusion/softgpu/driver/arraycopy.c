/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies of bytes from and to the row of a one-dimensional array.
 */
#include "queue.h"

static CUDA_MEMCPY3D row(size_t bytes)
{
	return (CUDA_MEMCPY3D){ .WidthInBytes = bytes, .Height = 1, .Depth = 1 };
}

static void from_array(CUDA_MEMCPY3D *box, CUarray array, size_t offset)
{
	box->srcMemoryType = CU_MEMORYTYPE_ARRAY;
	box->srcArray = array;
	box->srcXInBytes = offset;
}

static void to_array(CUDA_MEMCPY3D *box, CUarray array, size_t offset)
{
	box->dstMemoryType = CU_MEMORYTYPE_ARRAY;
	box->dstArray = array;
	box->dstXInBytes = offset;
}

#define DEFAULT CU_STREAM_LEGACY
#define OWN CU_STREAM_PER_THREAD
/* The flavour whose stream 0 is the calling thread's own comes with each. */
#define BOTH(name, parameters, ...) \
	EXPORT CUresult name parameters \
	{ \
		CUDA_MEMCPY3D box = row(ByteCount); \
		__VA_ARGS__; \
		return copy_box(DEFAULT, &box, 1); \
	} \
	EXPORT CUresult name##_ptds parameters \
	{ \
		CUDA_MEMCPY3D box = row(ByteCount); \
		__VA_ARGS__; \
		return copy_box(OWN, &box, 1); \
	}

BOTH(cuMemcpyAtoA_v2, (CUarray dstArray, size_t dstOffset, CUarray srcArray, size_t srcOffset, size_t ByteCount),
     from_array(&box, srcArray, srcOffset), to_array(&box, dstArray, dstOffset))
BOTH(cuMemcpyAtoD_v2, (CUdeviceptr dstDevice, CUarray srcArray, size_t srcOffset, size_t ByteCount),
     from_array(&box, srcArray, srcOffset), box.dstMemoryType = CU_MEMORYTYPE_DEVICE, box.dstDevice = dstDevice)
BOTH(cuMemcpyDtoA_v2, (CUarray dstArray, size_t dstOffset, CUdeviceptr srcDevice, size_t ByteCount),
     to_array(&box, dstArray, dstOffset), box.srcMemoryType = CU_MEMORYTYPE_DEVICE, box.srcDevice = srcDevice)
BOTH(cuMemcpyAtoH_v2, (void *dstHost, CUarray srcArray, size_t srcOffset, size_t ByteCount),
     from_array(&box, srcArray, srcOffset), box.dstMemoryType = CU_MEMORYTYPE_HOST, box.dstHost = dstHost)
BOTH(cuMemcpyHtoA_v2, (CUarray dstArray, size_t dstOffset, const void *srcHost, size_t ByteCount),
     to_array(&box, dstArray, dstOffset), box.srcMemoryType = CU_MEMORYTYPE_HOST,
     box.srcHost = (void *)(uintptr_t)srcHost)

EXPORT CUresult cuMemcpyAtoHAsync_v2(void *dstHost, CUarray srcArray, size_t srcOffset, size_t ByteCount,
				     CUstream hStream)
{
	CUDA_MEMCPY3D box = row(ByteCount);
	from_array(&box, srcArray, srcOffset);
	box.dstMemoryType = CU_MEMORYTYPE_HOST;
	box.dstHost = dstHost;
	return copy_box(hStream, &box, 0);
}

EXPORT CUresult cuMemcpyAtoHAsync_v2_ptsz(void *dstHost, CUarray srcArray, size_t srcOffset, size_t ByteCount,
					  CUstream hStream)
{
	return cuMemcpyAtoHAsync_v2(dstHost, srcArray, srcOffset, ByteCount, PER_THREAD(hStream));
}

EXPORT CUresult cuMemcpyHtoAAsync_v2(CUarray dstArray, size_t dstOffset, const void *srcHost, size_t ByteCount,
				     CUstream hStream)
{
	CUDA_MEMCPY3D box = row(ByteCount);
	to_array(&box, dstArray, dstOffset);
	box.srcMemoryType = CU_MEMORYTYPE_HOST;
	box.srcHost = (void *)(uintptr_t)srcHost;
	return copy_box(hStream, &box, 0);
}

EXPORT CUresult cuMemcpyHtoAAsync_v2_ptsz(CUarray dstArray, size_t dstOffset, const void *srcHost, size_t ByteCount,
					  CUstream hStream)
{
	return cuMemcpyHtoAAsync_v2(dstArray, dstOffset, srcHost, ByteCount, PER_THREAD(hStream));
}
