# SPDX-License-Identifier: Apache-2.0
from ..cydriver cimport *

cdef CUresult _cuInit(unsigned int Flags) except ?CUDA_ERROR_NOT_FOUND nogil
cdef CUresult _cuGone(int a) except ?CUDA_ERROR_NOT_FOUND nogil
cdef CUresult _cuFuture(int a) except ?CUDA_ERROR_NOT_FOUND nogil
cdef CUresult _cuStreamCreate(CUstream* phStream, unsigned int Flags) except ?CUDA_ERROR_NOT_FOUND nogil
cdef CUresult _cuStreamDestroy_v2(CUstream hStream) except ?CUDA_ERROR_NOT_FOUND nogil
cdef CUresult _cuStreamSynchronize(CUstream hStream) except ?CUDA_ERROR_NOT_FOUND nogil
cdef CUresult _cuStreamGetFlags(CUstream hStream, unsigned int* flags) except ?CUDA_ERROR_NOT_FOUND nogil
cdef CUresult _cuCtxSynchronize() except ?CUDA_ERROR_NOT_FOUND nogil
cdef CUresult _cuMemcpyHtoD_v2(CUdeviceptr dst, const void* src, size_t size) except ?CUDA_ERROR_NOT_FOUND nogil
cdef CUresult _cuDeviceSetMemPool(CUdevice dev, CUmemoryPool pool) except ?CUDA_ERROR_NOT_FOUND nogil
cdef CUresult _cuDeviceGetMemPool(CUmemoryPool* pool, CUdevice dev) except ?CUDA_ERROR_NOT_FOUND nogil
cdef CUresult _cuMemAdvise_v2(CUdeviceptr ptr, size_t count, CUmemLocation location) except ?CUDA_ERROR_NOT_FOUND nogil
cdef CUresult _cuMemCreate(CUmemGenericAllocationHandle* handle, const CUproperties* prop, unsigned long long flags) except ?CUDA_ERROR_NOT_FOUND nogil
cdef CUresult _cuNodes(CUgraphNode* nodes, size_t* count, const CUgraphNode* from_, size_t number) except ?CUDA_ERROR_NOT_FOUND nogil
cdef CUresult _cuNode(CUgraphNode* node, CUgraphNode other, const CUgraphNode** all_out, size_t* number) except ?CUDA_ERROR_NOT_FOUND nogil
cdef CUresult _cuNumbers(const char* name, const int* numbers, unsigned int rank, void* value, CUshape shape, float* out) except ?CUDA_ERROR_NOT_FOUND nogil
cdef CUresult _cuScale(float factor, CUdevice* device, void* data) except ?CUDA_ERROR_NOT_FOUND nogil
cdef CUresult _cuLaunchHostFunc(CUstream hStream, CUhostFn fn, void* userData) except ?CUDA_ERROR_NOT_FOUND nogil
