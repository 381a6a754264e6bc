# SPDX-License-Identifier: Apache-2.0
# A tiny driver in the shape of the package's declarations: one of everything that the reader knows.
from libc.stdint cimport uint32_t, uint64_t

cdef extern from 'cuda.h':
    ctypedef enum cudaError_enum:
        CUDA_SUCCESS
        CUDA_ERROR_INVALID_VALUE
        CUDA_ERROR_NOT_SUPPORTED
        CUDA_ERROR_OF_NO_VALUE
    ctypedef cudaError_enum CUresult

cdef extern from 'cuda.h':
    ctypedef enum CUshape "CUshape":
        CU_SHAPE_ROUND
        CU_SHAPE_SQUARE

ctypedef enum CUcolor_enum "CUcolor_enum":
    CU_COLOR_RED "CU_COLOR_RED" = 0x10
    CU_COLOR_BLUE "CU_COLOR_BLUE" = 300
ctypedef CUcolor_enum CUcolor "CUcolor"

cdef enum: CUDA_VERSION = 13050

cdef extern from 'cuda.h':
    ctypedef uint64_t cuuint64_t 'cuuint64_t'

cdef extern from 'cuda.h':
    ctypedef int CUdevice_v1 'CUdevice_v1'

cdef extern from 'cuda.h':
    ctypedef CUdevice_v1 CUdevice 'CUdevice'

cdef extern from 'cuda.h':
    ctypedef unsigned long long CUdeviceptr 'CUdeviceptr'

cdef extern from 'cuda.h':
    ctypedef struct CUstream_st:
        pass
    ctypedef CUstream_st* CUstream 'CUstream'

cdef extern from 'cuda.h':
    ctypedef struct CUgraphNode_st:
        pass
    ctypedef CUgraphNode_st* CUgraphNode 'CUgraphNode'

cdef extern from 'cuda.h':
    ctypedef struct CUmemPoolHandle_st:
        pass
    ctypedef CUmemPoolHandle_st* CUmemoryPool 'CUmemoryPool'

cdef extern from 'cuda.h':
    ctypedef unsigned long long CUmemGenericAllocationHandle 'CUmemGenericAllocationHandle'

cdef extern from 'cuda.h':
    cdef struct CUmemLocation_st:
        CUshape type
        int id
        cuda_bindings_driver__anon_pod1 localized
    ctypedef CUmemLocation_st CUmemLocation

cdef extern from 'cuda.h':
    ctypedef struct cuda_bindings_driver__anon_pod1 "std::remove_all_extents<decltype(((CUmemLocation*)0)->localized)>::type":
        unsigned char deviceId
        unsigned char part

cdef extern from 'cuda.h':
    cdef struct CUproperties_st:
        long long reserved[3]
        CUmemLocation location
        void* data
    ctypedef CUproperties_st CUproperties

cdef extern from 'cuda.h':
    ctypedef void (*CUhostFn 'CUhostFn')(
        void* userData
    )
