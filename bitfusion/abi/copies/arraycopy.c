/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies between one-dimensional arrays and memory: boxes of one row, for the library's own cuMemcpy3D. Of every
 * library that has arrays.
 */
#include "cuda.h"

#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

static CUDA_MEMCPY3D row_of(size_t bytes)
{
	return (CUDA_MEMCPY3D){ .WidthInBytes = bytes, .Height = 1, .Depth = 1 };
}

static void from_array(CUDA_MEMCPY3D *row, CUarray array, size_t offset)
{
	row->srcMemoryType = CU_MEMORYTYPE_ARRAY;
	row->srcArray = array;
	row->srcXInBytes = offset;
}

static void to_array(CUDA_MEMCPY3D *row, CUarray array, size_t offset)
{
	row->dstMemoryType = CU_MEMORYTYPE_ARRAY;
	row->dstArray = array;
	row->dstXInBytes = offset;
}

static void from_host(CUDA_MEMCPY3D *row, const void *memory)
{
	row->srcMemoryType = CU_MEMORYTYPE_HOST;
	row->srcHost = (void *)(uintptr_t)memory;
}

static void to_host(CUDA_MEMCPY3D *row, void *memory)
{
	row->dstMemoryType = CU_MEMORYTYPE_HOST;
	row->dstHost = memory;
}

/* The flavour whose stream 0 is the calling thread's own comes with each. */
#define BOTH(name, parameters, ...) \
	EXPORT CUresult name parameters \
	{ \
		CUDA_MEMCPY3D row = row_of(ByteCount); \
		__VA_ARGS__; \
		return cuMemcpy3D_v2(&row); \
	} \
	EXPORT CUresult name##_ptds parameters \
	{ \
		CUDA_MEMCPY3D row = row_of(ByteCount); \
		__VA_ARGS__; \
		return cuMemcpy3D_v2_ptds(&row); \
	}
#define BOTH_ASYNC(name, parameters, ...) \
	EXPORT CUresult name parameters \
	{ \
		CUDA_MEMCPY3D row = row_of(ByteCount); \
		__VA_ARGS__; \
		return cuMemcpy3DAsync_v2(&row, hStream); \
	} \
	EXPORT CUresult name##_ptsz parameters \
	{ \
		CUDA_MEMCPY3D row = row_of(ByteCount); \
		__VA_ARGS__; \
		return cuMemcpy3DAsync_v2_ptsz(&row, hStream); \
	}

BOTH(cuMemcpyAtoA_v2, (CUarray dstArray, size_t dstOffset, CUarray srcArray, size_t srcOffset, size_t ByteCount),
     from_array(&row, srcArray, srcOffset), to_array(&row, dstArray, dstOffset))
BOTH(cuMemcpyAtoD_v2, (CUdeviceptr dstDevice, CUarray srcArray, size_t srcOffset, size_t ByteCount),
     from_array(&row, srcArray, srcOffset), row.dstMemoryType = CU_MEMORYTYPE_DEVICE, row.dstDevice = dstDevice)
BOTH(cuMemcpyDtoA_v2, (CUarray dstArray, size_t dstOffset, CUdeviceptr srcDevice, size_t ByteCount),
     to_array(&row, dstArray, dstOffset), row.srcMemoryType = CU_MEMORYTYPE_DEVICE, row.srcDevice = srcDevice)
BOTH(cuMemcpyAtoH_v2, (void *dstHost, CUarray srcArray, size_t srcOffset, size_t ByteCount),
     from_array(&row, srcArray, srcOffset), to_host(&row, dstHost))
BOTH(cuMemcpyHtoA_v2, (CUarray dstArray, size_t dstOffset, const void *srcHost, size_t ByteCount),
     to_array(&row, dstArray, dstOffset), from_host(&row, srcHost))
BOTH_ASYNC(cuMemcpyAtoHAsync_v2,
	   (void *dstHost, CUarray srcArray, size_t srcOffset, size_t ByteCount, CUstream hStream),
	   from_array(&row, srcArray, srcOffset), to_host(&row, dstHost))
BOTH_ASYNC(cuMemcpyHtoAAsync_v2,
	   (CUarray dstArray, size_t dstOffset, const void *srcHost, size_t ByteCount, CUstream hStream),
	   to_array(&row, dstArray, dstOffset), from_host(&row, srcHost))
