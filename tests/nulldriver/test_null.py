# SPDX-License-Identifier: Apache-2.0
"""The null driver at its ABI: it refuses to pass for a GPU, and does what benchmarks need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "build" / "nulldriver" / "libcuda.so.1"

PRELUDE = """
import ctypes, sys
cuda = ctypes.CDLL(sys.argv[1])
u64, byref = ctypes.c_uint64, ctypes.byref
def ok(status):
    assert status == 0, status
ok(cuda.cuInit(0))
"""

PTX = (
    ".version 7.0\\n.target sm_70\\n.address_size 64\\n.visible .entry kernel(.param .u64 a,"
    " .param .u8 b, .param .align 16 .b8 c[20], .param .f64 d)\\n{ ret; }\\n"
)


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("BITFUSION_")}
    kept.update(environment)
    command = [sys.executable, "-c", PRELUDE + script, str(LIBRARY)]
    return subprocess.run(command, env=kept, capture_output=True, text=True, check=False)


def accept(script: str, **environment: str) -> str:
    done = run(script, BITFUSION_NULL_DRIVER="1", **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_refuses_by_default() -> None:
    done = run("")
    assert "AssertionError: 100" in done.stderr  # CUDA_ERROR_NO_DEVICE
    assert "null driver" in done.stderr


def test_memory_is_memory() -> None:
    accept(
        """
a, b = u64(), u64()
ok(cuda.cuMemAlloc_v2(byref(a), ctypes.c_size_t(1000)))
ok(cuda.cuMemAlloc_v2(byref(b), ctypes.c_size_t(1000)))
assert a.value >= 0x200000000000 and b.value >= a.value + 1000
text = ctypes.create_string_buffer(b"carried", 16)
back = ctypes.create_string_buffer(16)
ok(cuda.cuMemcpyHtoD_v2(a, text, ctypes.c_size_t(16)))
ok(cuda.cuMemcpyDtoD_v2(b, a, ctypes.c_size_t(16)))
ok(cuda.cuMemcpyDtoH_v2(back, b, ctypes.c_size_t(16)))
assert back.value == b"carried"
ok(cuda.cuMemsetD8_v2(b, 65, ctypes.c_size_t(3)))
ok(cuda.cuMemcpyDtoH_v2(back, b, ctypes.c_size_t(16)))
assert back.value == b"AAAried"
ok(cuda.cuMemFree_v2(a))
assert cuda.cuMemFree_v2(a) == 1
huge = u64()
assert cuda.cuMemAlloc_v2(byref(huge), ctypes.c_size_t(1 << 40)) == 2
"""
    )


def test_parameter_layout_comes_from_the_text() -> None:
    accept(
        """
module, kernel = ctypes.c_void_p(), ctypes.c_void_p()
ok(cuda.cuModuleLoadData(byref(module), b"%s"))
ok(cuda.cuModuleGetFunction(byref(kernel), module, b"kernel"))
assert cuda.cuModuleGetFunction(byref(kernel), module, b"other") == 500
ok(cuda.cuModuleGetFunction(byref(kernel), module, b"kernel"))
found = []
offset, size = ctypes.c_size_t(), ctypes.c_size_t()
info = cuda.cuFuncGetParamInfo
while info(kernel, ctypes.c_size_t(len(found)), byref(offset), byref(size)) == 0:
    found.append((offset.value, size.value))
assert found == [(0, 8), (8, 1), (16, 20), (40, 8)], found
"""
        % PTX
    )


@pytest.mark.parametrize("number", [1, 2, 3])
def test_fails_at_the_call_asked_for(number: int) -> None:
    script = """
statuses = [cuda.cuCtxSynchronize() for _ in range(5)]
assert [i for i, status in enumerate(statuses) if status == 719] == [%d], statuses
""" % (number - 1)
    accept(script, BITFUSION_NULL_FAIL="%d:719" % (number + 1))
