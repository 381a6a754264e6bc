# SPDX-License-Identifier: Apache-2.0
"""Stands for the compiled module that knows the numbers."""

import enum


class CUresult(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_NOT_SUPPORTED = 801


class CUshape(enum.IntEnum):
    CU_SHAPE_ROUND = 0
    CU_SHAPE_SQUARE = 0x7FFFFFFF


CU_STREAM_LEGACY = 1
CU_TEN = 10
CUDA_VERSION = 13050
