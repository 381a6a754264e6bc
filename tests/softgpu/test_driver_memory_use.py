# SPDX-License-Identifier: Apache-2.0
"""What the software GPU takes of memory: little when idle, of the device what was touched."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Dict

import pytest
from test_driver_programs import environment

MIB = 1024  # KiB
# The program that is measured prints KiB that are resident: its own, and those of the process that
# compiles for it.
PROGRAM = r"""
import ctypes, json, os

def resident(pid):
    with open(f"/proc/{pid}/smaps_rollup") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Rss:"))

def children():
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = open(f"/proc/{name}/stat").read().rpartition(")")[2].split()
            if int(stat[1]) == os.getpid() and stat[0] != "Z":
                found.append(name)
        except OSError:
            pass
    return found

def check(result):
    assert result == 0, result

figures = {}
start = resident("self")
cuda = ctypes.CDLL("libcuda.so.1")
context, p, q, module, function = (ctypes.c_void_p() for _ in range(5))
check(cuda.cuInit(0))
check(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
check(cuda.cuCtxSetCurrent(context))
TEXT = b'''.version 7.5
.target sm_75
.address_size 64
.visible .entry touch(.param .u64 at) { .reg .b64 a, x; .reg .b32 t, n;
ld.param.u64 a, [at]; mov.u32 t, %tid.x; mov.u32 n, %ctaid.x; mad.lo.u32 t, n, 256, t;
mul.wide.u32 x, t, 4096; add.u64 a, a, x; st.global.u32 [a], 7; ret; }'''
check(cuda.cuModuleLoadData(ctypes.byref(module), TEXT))
check(cuda.cuModuleGetFunction(ctypes.byref(function), module, b"touch"))

def now():
    check(cuda.cuCtxSynchronize())
    return resident("self")

def launch(at, pages):
    argument = ctypes.c_uint64(at)
    pointers = (ctypes.c_void_p * 1)(ctypes.addressof(argument))
    check(cuda.cuLaunchKernel(function, pages // 256, 1, 1, 256, 1, 1, 0, None, pointers, None))

size = 1 << 30
check(cuda.cuMemAlloc_v2(ctypes.byref(p), ctypes.c_size_t(size)))
launch(p.value, 256)
before = now()
figures["helpers"] = len(children())  # it has answered: it is not on its way any more
figures["idle"] = before - start + sum(map(resident, children()))
check(cuda.cuMemAlloc_v2(ctypes.byref(q), ctypes.c_size_t(size)))
figures["allocated"] = now() - before
check(cuda.cuMemsetD8_v2(ctypes.c_uint64(q.value + (100 << 20)), 1, ctypes.c_size_t(64 << 20)))
figures["64 MiB set"] = now() - before
launch(q.value + (500 << 20), 8192)
figures["32 MiB stored"] = now() - before
check(cuda.cuMemFree_v2(q))
figures["freed"] = now() - before
check(cuda.cuMemAllocManaged(ctypes.byref(q), ctypes.c_size_t(size), 1))
figures["managed"] = now() - before
check(cuda.cuMemFree_v2(q))
print(json.dumps(figures))
"""


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, int]:
    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("does not apply: this kernel has no smaps_rollup")
    cache = tmp_path_factory.mktemp("cache")
    env = environment(BITFUSION_CACHE=str(cache), BITFUSION_SOFTGPU_MEMORY="4G")
    program = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(program, env=env, stdout=subprocess.PIPE, timeout=100, check=True)
    found: Dict[str, int] = json.loads(done.stdout)
    return found


def test_an_idle_gpu_takes_little_memory(figures: Dict[str, int]) -> None:
    """All that is there after a first kernel counts: also threads, and the compiler's process."""
    assert figures["helpers"] == 1
    assert 0 < figures["idle"] <= 40 * MIB, figures


def test_device_memory_is_taken_when_it_is_touched(figures: Dict[str, int]) -> None:
    slack = 2 * MIB
    for what, touched in (
        ("allocated", 0),
        ("64 MiB set", 64 * MIB),
        ("32 MiB stored", 96 * MIB),
        ("freed", 0),
        ("managed", 0),
    ):
        assert touched - slack <= figures[what] <= touched + slack, (what, figures)
