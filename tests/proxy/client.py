# SPDX-License-Identifier: Apache-2.0
"""Start of each program that the tests run on the proxy: the library by ctypes, short names."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any, List

sys.path.insert(0, os.environ["BITFUSION_TEST_ROOT"])

from bitfusion.api.ctypes_driver import load

cuda = load(os.environ["BITFUSION_TEST_LIBRARY"])
u64, i32, byref = ctypes.c_uint64, ctypes.c_int, ctypes.byref


def check(status: int) -> None:
    if status:
        raise SystemExit("CUDA error %d" % status)


def start() -> int:
    """cuInit and a current primary context."""
    context = u64()
    check(cuda.cuInit(0))
    check(cuda.cuDevicePrimaryCtxRetain(byref(context), 0))
    check(cuda.cuCtxSetCurrent(context.value))
    return context.value


def made(function: Any, *arguments: Any) -> int:
    """The handle or address that a call with its result in front gives."""
    out = u64()
    check(function(byref(out), *arguments))
    return out.value


def alloc(size: int) -> int:
    return made(cuda.cuMemAlloc_v2, size)


def pinned(size: int) -> Any:
    return (ctypes.c_char * size).from_address(made(cuda.cuMemHostAlloc, size, 0))


def kernel() -> int:
    module = made(cuda.cuModuleLoadData, b".version 7.0\n")
    return made(cuda.cuModuleGetFunction, module, b"f")


def parameters(*values: Any) -> Any:
    pointers: List[Any] = [ctypes.cast(ctypes.pointer(value), ctypes.c_void_p) for value in values]
    return (ctypes.c_void_p * len(pointers))(*pointers)
