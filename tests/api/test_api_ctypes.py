# SPDX-License-Identifier: Apache-2.0
"""ctypes prototypes from the generated header."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
from api_helpers import compile_c

from bitfusion.api import ctypes_driver


def test_every_function_but_those_with_big_structs() -> None:
    found = ctypes_driver.prototypes(ctypes_driver.HEADER.read_text(encoding="utf-8"))
    without = {name for name, types in found.items() if types is None}
    assert without == {
        "cuEGLStreamProducerPresentFrame",
        "cuIpcOpenEventHandle",
        "cuIpcOpenMemHandle",
        "cuIpcOpenMemHandle_v2",
    }
    assert len(found) > 550
    assert found["cuMemAlloc_v2"] == [ctypes.c_void_p, ctypes.c_size_t]
    assert found["cuMemsetD2D16_v2"] == [
        ctypes.c_ulonglong,
        ctypes.c_size_t,
        ctypes.c_ushort,
        ctypes.c_size_t,
        ctypes.c_size_t,
    ]
    assert found["cuCtxSynchronize"] == []
    assert found["cuLaunchHostFunc_ptsz"] == [ctypes.c_void_p] * 3


def test_load(tmp_path: Path) -> None:
    source = tmp_path / "driver.c"
    source.write_text(
        '#include "cuda.h"\n'
        "CUresult cuMemAlloc_v2(CUdeviceptr *p, size_t n) { *p = n >> 32; return 0; }\n"
        "CUresult cuMemAdvise_v2(CUdeviceptr p, size_t n, CUmem_advise a, CUmemLocation l)\n"
        "{ return l.type == 1 && l.id == 7 && !p && !n && a ? 801 : 1; }\n"
    )
    path = compile_c(tmp_path / "libcuda.so.1", [source], ["-shared", "-fPIC"])
    driver = ctypes_driver.load(str(path))
    address = ctypes.c_uint64()
    assert driver.cuMemAlloc_v2(ctypes.byref(address), 5 << 32) == 0 and address.value == 5
    location = ctypes_driver.CUmemLocation(1, 7)
    assert driver.cuMemAdvise_v2(0, 0, 1, location) == 801
    with pytest.raises(ctypes.ArgumentError):
        driver.cuMemAlloc_v2(ctypes.byref(address), "many")
