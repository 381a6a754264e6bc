# SPDX-License-Identifier: Apache-2.0
"""An ordinary CuPy program: every kind of kernel that CuPy has, each result against NumPy's."""

from __future__ import annotations

import sys
from typing import Callable, Dict

import cupy as cp
import numpy as np

CHECKS: Dict[str, Callable[[], None]] = {}


def check(function: Callable[[], None]) -> Callable[[], None]:
    CHECKS[function.__name__] = function
    return function


def numbers(*shape: int, dtype: str = "float32", seed: int = 1) -> np.ndarray:
    return np.random.RandomState(seed).uniform(-1, 1, shape).astype(dtype)


def same(got: cp.ndarray, wanted: np.ndarray, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(cp.asnumpy(got), wanted, rtol=tolerance, atol=tolerance)


@check
def arithmetic() -> None:
    for dtype in ("float32", "float64", "float16", "int32", "int64", "complex64"):
        a, b = (numbers(37, 41, seed=s) * 50 for s in (1, 2))
        a, b = a.astype(dtype), b.astype(dtype)
        x, y = cp.asarray(a), cp.asarray(b)
        same(x * y + x - 3, a * b + a - 3, 1e-2 if dtype == "float16" else 1e-5)
        same(x[::2, ::-3].T, a[::2, ::-3].T)
        assert bool((cp.where(x == x, x, y) == x).all())
    same(cp.sin(cp.arange(50.0)) ** 2, np.sin(np.arange(50.0)) ** 2)


@check
def reductions() -> None:
    a = numbers(53, 67, dtype="float64")
    x = cp.asarray(a)
    for name in ("sum", "mean", "max", "min", "prod", "std", "argmax"):
        for axis in (None, 0, 1):
            same(getattr(x, name)(axis=axis), getattr(a, name)(axis=axis))
    same(x.cumsum(axis=1), a.cumsum(axis=1))
    same(cp.percentile(x, 30), np.percentile(a, 30))


@check
def sorting() -> None:
    for dtype in ("float32", "int32", "uint8", "float64"):
        a = (numbers(3001) * 100).astype(dtype)
        same(cp.sort(cp.asarray(a)), np.sort(a))
        same(cp.argsort(cp.asarray(a), kind="stable"), np.argsort(a, kind="stable"))
    a = (numbers(500) * 20).astype("int32")
    same(cp.unique(cp.asarray(a)), np.unique(a))
    same(
        cp.searchsorted(cp.asarray(np.sort(a)), cp.arange(-20, 20)),
        np.searchsorted(np.sort(a), np.arange(-20, 20)),
    )


@check
def raw_kernel() -> None:
    source = r"""
    extern "C" __global__ void saxpy(float a, const float *x, float *y, int n) {
        int i = blockIdx.x * blockDim.x + threadIdx.x;
        if (i < n) y[i] += a * x[i];
    }"""
    a, b = numbers(1000), numbers(1000, seed=2)
    x, y = cp.asarray(a), cp.asarray(b)
    cp.RawKernel(source, "saxpy")((8,), (128,), (cp.float32(3), x, y, 1000))
    same(y, 3 * a + b)


@check
def raw_module() -> None:
    source = r"""
    __constant__ float factor;
    template <typename T> __global__ void scale(T *x) {
        extern __shared__ char memory[];
        T *tile = (T *)memory;
        tile[threadIdx.x] = x[threadIdx.x];
        __syncthreads();
        x[threadIdx.x] = factor * tile[blockDim.x - 1 - threadIdx.x];
    }"""
    names = ["scale<float>", "scale<double>"]
    module = cp.RawModule(code=source, options=("-std=c++17",), name_expressions=names)
    factor = cp.ndarray(1, cp.float32, module.get_global("factor"))
    factor[...] = 2.5
    for name, dtype in zip(names, ("float32", "float64")):
        a = numbers(96, dtype=dtype)
        x = cp.asarray(a)
        module.get_function(name)((1,), (96,), (x,), shared_mem=96 * a.itemsize)
        same(x, 2.5 * a[::-1])


@cp.fuse
def fused(x: cp.ndarray, y: cp.ndarray) -> cp.ndarray:
    return cp.exp(x) * y + 1


@check
def own_kernels() -> None:
    a, b = numbers(300), numbers(300, seed=2)
    x, y = cp.asarray(a), cp.asarray(b)
    squares = cp.ElementwiseKernel("T x, T y", "T z", "z = (x - y) * (x - y)", "squares")
    same(squares(x, y), (a - b) ** 2)
    norm = cp.ReductionKernel("T x", "T y", "x * x", "a + b", "y = sqrt(a)", "0", "length")
    same(norm(x), np.sqrt((a * a).sum()))
    same(fused(x, y), np.exp(a) * b + 1)


@check
def random_numbers() -> None:
    values = cp.random.RandomState(3).uniform(size=20000)
    assert abs(float(values.mean()) - 0.5) < 0.02 and float(values.max()) < 1
    normal = cp.random.default_rng(5).standard_normal(20000)
    assert abs(float(normal.mean())) < 0.05 and abs(float(normal.std()) - 1) < 0.05


@check
def streams_and_memory() -> None:
    with cp.cuda.Stream(non_blocking=True) as stream:
        x = cp.arange(1000)
        y = x * 2
        event = stream.record()
    event.synchronize()
    assert int(y[999]) == 1998
    with cp.cuda.using_allocator(cp.cuda.MemoryAsyncPool().malloc):
        assert int(cp.arange(100).sum()) == 4950
    pinned = cp.cuda.alloc_pinned_memory(80)
    host = np.frombuffer(pinned, np.float64, 10)
    host[...] = 7
    assert float(cp.asarray(host).sum()) == 70


@check
def managed_memory() -> None:
    with cp.cuda.using_allocator(cp.cuda.malloc_managed):
        assert int(cp.arange(100).sum()) == 4950


@check
def graphs() -> None:
    stream = cp.cuda.Stream(non_blocking=True)
    x = cp.zeros(100, cp.float32)
    add = cp.RawKernel('extern "C" __global__ void add(float *x) { x[threadIdx.x] += 1; }', "add")
    add.compile()
    with stream:
        stream.begin_capture()
        add((1,), (100,), (x,))
        add((1,), (100,), (x,))
        graph = stream.end_capture()
        for _ in range(3):
            graph.launch()
    stream.synchronize()
    assert (x.get() == 6).all()


def blas(dtype: str, tolerance: float) -> None:
    for m, n, k in ((1, 1, 1), (64, 64, 64), (37, 29, 41), (130, 70, 200)):
        a, b = numbers(m, k, dtype=dtype), numbers(k, n, dtype=dtype, seed=2)
        same(cp.asarray(a) @ cp.asarray(b), (a.astype("float64") @ b).astype(dtype), tolerance)
        same(cp.asarray(a.T.copy()).T @ cp.asarray(b), a.astype("float64") @ b, tolerance)


@check
def sgemm() -> None:
    blas("float32", 1e-4)


@check
def dgemm() -> None:
    blas("float64", 1e-10)


@check
def hgemm() -> None:
    blas("float16", 3e-2)


@check
def cgemm() -> None:
    a, b = (numbers(33, 33, seed=s) + 1j * numbers(33, 33, seed=s + 5) for s in (1, 2))
    same(cp.asarray(a) @ cp.asarray(b), a @ b, 1e-4)


@check
def blas_vectors() -> None:
    a, v, w = numbers(90, 50), numbers(50), numbers(50, seed=3)
    same(cp.asarray(a) @ cp.asarray(v), a @ v, 1e-4)
    same(cp.asarray(v).dot(cp.asarray(w)), v.dot(w), 1e-4)
    from cupy import cublas

    y = cp.asarray(w)
    cublas.axpy(2.0, cp.asarray(v), y)
    same(y, 2 * v + w)
    same(cublas.nrm2(cp.asarray(v)), np.linalg.norm(v), 1e-4)


@check
def batched_gemm() -> None:
    a, b = numbers(5, 20, 30), numbers(5, 30, 10, seed=2)
    same(cp.asarray(a) @ cp.asarray(b), a @ b, 1e-4)
    same(
        cp.einsum("bij,bjk->ik", cp.asarray(a), cp.asarray(b)),
        np.einsum("bij,bjk->ik", a, b),
        1e-4,
    )


@check
def fft() -> None:
    a = numbers(256, dtype="float64")
    same(cp.fft.fft(cp.asarray(a)), np.fft.fft(a), 1e-8)


@check
def solver() -> None:
    a = numbers(40, 40, dtype="float64") + 40 * np.eye(40)
    b = numbers(40, dtype="float64", seed=2)
    same(cp.linalg.solve(cp.asarray(a), cp.asarray(b)), np.linalg.solve(a, b), 1e-8)


@check
def sparse() -> None:
    import cupyx.scipy.sparse

    a = numbers(30, 40)
    a[abs(a) < 0.7] = 0
    matrix = cupyx.scipy.sparse.csr_matrix(cp.asarray(a))
    v = numbers(40, seed=2)
    same(matrix @ cp.asarray(v), a @ v, 1e-4)


def main() -> None:
    wanted = sys.argv[1:] or list(CHECKS)
    failed = 0
    for name in wanted:
        try:
            CHECKS[name]()
            print(name, "right", flush=True)
        except Exception as error:  # the next check is worth running
            failed += 1
            line = (str(error).strip().splitlines() or [""])[0]
            print(name, "WRONG", type(error).__name__, line, flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
