# SPDX-License-Identifier: Apache-2.0
"""cuBLAS's gemm of three types, called with nothing in between, against NumPy.

The numbers are small integers: every sum is exact in every type, so results must be equal.
"""

from __future__ import annotations

import ctypes
import itertools
import sys
from pathlib import Path
from typing import Any, Tuple

import numpy as np

TYPES = {"Sgemm_v2": np.float32, "Dgemm_v2": np.float64, "Hgemm": np.float16}
SHAPES = [(1, 1, 1), (37, 29, 41), (64, 64, 64), (130, 70, 200), (256, 8, 3)]
FACTORS = [(1, 0), (-2, 1)]


def library(pattern: str) -> Any:
    found = [path for entry in sys.path for path in Path(entry).glob("nvidia/*/lib/" + pattern)]
    assert found, f"no {pattern} below nvidia in {sys.path}"
    return ctypes.CDLL(str(found[0]), mode=ctypes.RTLD_GLOBAL)


RUNTIME = library("libcudart.so.*")
library("libcublasLt.so.*")
CUBLAS = library("libcublas.so.*")


def check(status: int, what: str) -> None:
    if status:
        raise RuntimeError(f"{what} returned {status}")


class Array:
    """A matrix on the GPU, column by column as cuBLAS has them."""

    def __init__(self, values: np.ndarray) -> None:
        self.shape, self.dtype = values.shape, values.dtype
        self.pointer = ctypes.c_void_p()
        size = ctypes.c_size_t(values.nbytes)
        check(RUNTIME.cudaMalloc(ctypes.byref(self.pointer), size), "cudaMalloc")
        columns = np.asfortranarray(values)
        check(
            RUNTIME.cudaMemcpy(self.pointer, columns.ctypes.data_as(ctypes.c_void_p), size, 1),
            "cudaMemcpy",
        )

    def get(self) -> np.ndarray:
        values = np.empty(self.shape, self.dtype, order="F")
        size = ctypes.c_size_t(values.nbytes)
        check(
            RUNTIME.cudaMemcpy(values.ctypes.data_as(ctypes.c_void_p), self.pointer, size, 2),
            "cudaMemcpy",
        )
        return values

    def free(self) -> None:
        check(RUNTIME.cudaFree(self.pointer), "cudaFree")


def integers(shape: Tuple[int, int], seed: int, dtype: Any) -> np.ndarray:
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(dtype)


def gemm(handle: Any, name: str, shape: Tuple[int, int, int], transposed: Tuple[int, int]) -> None:
    (m, n, k), dtype = shape, TYPES[name]
    a = integers((k, m) if transposed[0] else (m, k), 1, dtype)
    b = integers((n, k) if transposed[1] else (k, n), 2, dtype)
    c = integers((m, n), 3, dtype)
    for alpha, beta in FACTORS:
        on_gpu = Array(a), Array(b), Array(c)
        factors = [np.array([value], dtype) for value in (alpha, beta)]
        status = getattr(CUBLAS, "cublas" + name)(
            handle,
            *transposed,
            *(m, n, k),
            factors[0].ctypes.data_as(ctypes.c_void_p),
            *(on_gpu[0].pointer, a.shape[0]),
            *(on_gpu[1].pointer, b.shape[0]),
            factors[1].ctypes.data_as(ctypes.c_void_p),
            *(on_gpu[2].pointer, m),
        )
        check(status, "cublas" + name)
        left, right = (x.T if t else x for x, t in zip((a, b), transposed))
        expected = alpha * (left.astype("f8") @ right.astype("f8")) + beta * c
        assert np.array_equal(on_gpu[2].get(), expected), (name, shape, transposed, alpha, beta)
        for array in on_gpu:
            array.free()


def main() -> None:
    handle, version = ctypes.c_void_p(), ctypes.c_int()
    check(CUBLAS.cublasCreate_v2(ctypes.byref(handle)), "cublasCreate_v2")
    check(CUBLAS.cublasGetVersion_v2(handle, ctypes.byref(version)), "cublasGetVersion_v2")
    print("cuBLAS", version.value)
    for name in TYPES:
        for shape, *transposed in itertools.product(SHAPES, (0, 1), (0, 1)):
            gemm(handle, name, shape, (transposed[0], transposed[1]))
        print(name, "equals NumPy's", len(SHAPES) * 4 * len(FACTORS))
    check(CUBLAS.cublasDestroy_v2(handle), "cublasDestroy_v2")


if __name__ == "__main__":
    main()
