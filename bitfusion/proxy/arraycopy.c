/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies between one-dimensional arrays and memory: boxes of one row.
 */
#define _GNU_SOURCE
#include "proxy.h"

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

static CUresult array_to_array(CUarray to, size_t to_offset, CUarray from, size_t offset, size_t bytes, bool per_thread)
{
	CUDA_MEMCPY3D row = row_of(bytes);

	from_array(&row, from, offset);
	to_array(&row, to, to_offset);
	return bf_copy_3d(&row, NULL, false, per_thread);
}

static CUresult array_to_device(CUdeviceptr to, CUarray from, size_t offset, size_t bytes, bool per_thread)
{
	CUDA_MEMCPY3D row = row_of(bytes);

	from_array(&row, from, offset);
	row.dstMemoryType = CU_MEMORYTYPE_DEVICE;
	row.dstDevice = to;
	return bf_copy_3d(&row, NULL, false, per_thread);
}

static CUresult device_to_array(CUarray to, size_t offset, CUdeviceptr from, size_t bytes, bool per_thread)
{
	CUDA_MEMCPY3D row = row_of(bytes);

	to_array(&row, to, offset);
	row.srcMemoryType = CU_MEMORYTYPE_DEVICE;
	row.srcDevice = from;
	return bf_copy_3d(&row, NULL, false, per_thread);
}

static CUDA_MEMCPY3D row_to_host(void *to, CUarray from, size_t offset, size_t bytes)
{
	CUDA_MEMCPY3D row = row_of(bytes);

	from_array(&row, from, offset);
	row.dstMemoryType = CU_MEMORYTYPE_HOST;
	row.dstHost = to;
	return row;
}

static CUDA_MEMCPY3D row_from_host(CUarray to, size_t offset, const void *from, size_t bytes)
{
	CUDA_MEMCPY3D row = row_of(bytes);

	to_array(&row, to, offset);
	row.srcMemoryType = CU_MEMORYTYPE_HOST;
	row.srcHost = (void *)(uintptr_t)from;
	return row;
}

BF_EXPORT CUresult cuMemcpyAtoA_v2(CUarray dstArray, size_t dstOffset, CUarray srcArray, size_t srcOffset,
				   size_t ByteCount)
{
	return array_to_array(dstArray, dstOffset, srcArray, srcOffset, ByteCount, false);
}

BF_EXPORT CUresult cuMemcpyAtoA_v2_ptds(CUarray dstArray, size_t dstOffset, CUarray srcArray, size_t srcOffset,
					size_t ByteCount)
{
	return array_to_array(dstArray, dstOffset, srcArray, srcOffset, ByteCount, true);
}

BF_EXPORT CUresult cuMemcpyAtoD_v2(CUdeviceptr dstDevice, CUarray srcArray, size_t srcOffset, size_t ByteCount)
{
	return array_to_device(dstDevice, srcArray, srcOffset, ByteCount, false);
}

BF_EXPORT CUresult cuMemcpyAtoD_v2_ptds(CUdeviceptr dstDevice, CUarray srcArray, size_t srcOffset, size_t ByteCount)
{
	return array_to_device(dstDevice, srcArray, srcOffset, ByteCount, true);
}

BF_EXPORT CUresult cuMemcpyDtoA_v2(CUarray dstArray, size_t dstOffset, CUdeviceptr srcDevice, size_t ByteCount)
{
	return device_to_array(dstArray, dstOffset, srcDevice, ByteCount, false);
}

BF_EXPORT CUresult cuMemcpyDtoA_v2_ptds(CUarray dstArray, size_t dstOffset, CUdeviceptr srcDevice, size_t ByteCount)
{
	return device_to_array(dstArray, dstOffset, srcDevice, ByteCount, true);
}

BF_EXPORT CUresult cuMemcpyAtoH_v2(void *dstHost, CUarray srcArray, size_t srcOffset, size_t ByteCount)
{
	CUDA_MEMCPY3D row = row_to_host(dstHost, srcArray, srcOffset, ByteCount);

	return bf_copy_3d(&row, NULL, false, false);
}

BF_EXPORT CUresult cuMemcpyAtoH_v2_ptds(void *dstHost, CUarray srcArray, size_t srcOffset, size_t ByteCount)
{
	CUDA_MEMCPY3D row = row_to_host(dstHost, srcArray, srcOffset, ByteCount);

	return bf_copy_3d(&row, NULL, false, true);
}

BF_EXPORT CUresult cuMemcpyAtoHAsync_v2(void *dstHost, CUarray srcArray, size_t srcOffset, size_t ByteCount,
					CUstream hStream)
{
	CUDA_MEMCPY3D row = row_to_host(dstHost, srcArray, srcOffset, ByteCount);

	return bf_copy_3d(&row, hStream, true, false);
}

BF_EXPORT CUresult cuMemcpyAtoHAsync_v2_ptsz(void *dstHost, CUarray srcArray, size_t srcOffset, size_t ByteCount,
					     CUstream hStream)
{
	CUDA_MEMCPY3D row = row_to_host(dstHost, srcArray, srcOffset, ByteCount);

	return bf_copy_3d(&row, hStream, true, true);
}

BF_EXPORT CUresult cuMemcpyHtoA_v2(CUarray dstArray, size_t dstOffset, const void *srcHost, size_t ByteCount)
{
	CUDA_MEMCPY3D row = row_from_host(dstArray, dstOffset, srcHost, ByteCount);

	return bf_copy_3d(&row, NULL, false, false);
}

BF_EXPORT CUresult cuMemcpyHtoA_v2_ptds(CUarray dstArray, size_t dstOffset, const void *srcHost, size_t ByteCount)
{
	CUDA_MEMCPY3D row = row_from_host(dstArray, dstOffset, srcHost, ByteCount);

	return bf_copy_3d(&row, NULL, false, true);
}

BF_EXPORT CUresult cuMemcpyHtoAAsync_v2(CUarray dstArray, size_t dstOffset, const void *srcHost, size_t ByteCount,
					CUstream hStream)
{
	CUDA_MEMCPY3D row = row_from_host(dstArray, dstOffset, srcHost, ByteCount);

	return bf_copy_3d(&row, hStream, true, false);
}

BF_EXPORT CUresult cuMemcpyHtoAAsync_v2_ptsz(CUarray dstArray, size_t dstOffset, const void *srcHost, size_t ByteCount,
					     CUstream hStream)
{
	CUDA_MEMCPY3D row = row_from_host(dstArray, dstOffset, srcHost, ByteCount);

	return bf_copy_3d(&row, hStream, true, true);
}
