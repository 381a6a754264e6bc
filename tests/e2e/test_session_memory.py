# SPDX-License-Identifier: Apache-2.0
"""What a session that does nothing takes of memory: little on the server, less in the program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, List, Set

import pytest

SESSIONS = int(os.environ.get("BITFUSION_TEST_SESSIONS", "4"))
MIB = 1024  # KiB
# Prints KiB that became resident in it, then waits.
PROGRAM = r"""
import ctypes, sys

def resident():
    with open("/proc/self/smaps_rollup") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Rss:"))

def check(result):
    assert result == 0, result

context, module, function = (ctypes.c_void_p() for _ in range(3))
start = resident()
cuda = ctypes.CDLL("libcuda.so.1")
check(cuda.cuInit(0))
check(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
check(cuda.cuCtxSetCurrent(context))
TEXT = b".version 7.5 .target sm_75 .address_size 64 .visible .entry nothing() { ret; }"
check(cuda.cuModuleLoadData(ctypes.byref(module), TEXT))
check(cuda.cuModuleGetFunction(ctypes.byref(function), module, b"nothing"))
check(cuda.cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, None, None, None))
check(cuda.cuCtxSynchronize())
print(resident() - start, flush=True)
sys.stdin.read()
"""


def of(pid: int, name: str) -> str:
    """That file of a process; of one that is gone, nothing."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:
        return ""


def parent_of(pid: int) -> int:
    return int((of(pid, "stat").rpartition(")")[2].split() or ["", "0"])[1])


def processes_of(gpu: Any) -> Set[int]:
    """The server's: all below the `bitfusion server` that the fixture started."""
    marked = gpu.processes()
    ours = [pid for pid in marked if parent_of(pid) == os.getpid()]
    found = {pid for pid in ours if "\0server\0" in of(pid, "cmdline")}
    while True:
        more = {pid for pid in marked if parent_of(pid) in found} - found
        if not more:
            return found
        found |= more


def memory_of(pids: Set[int]) -> int:
    """KiB; of what several share each has its part."""
    total = 0
    for pid in pids:
        for line in of(pid, "smaps_rollup").splitlines():
            total += int(line.split()[1]) if line.startswith("Pss:") else 0
    return total


def start(gpu: Any, server: str) -> subprocess.Popen[str]:
    options = ["-n", "1", "-m", "16", "--server_list", server]
    return subprocess.Popen(
        gpu.command("tcp", [sys.executable, "-c", PROGRAM], options),
        env=gpu.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.timeout(max(600, 30 * SESSIONS))
def test_an_idle_session_takes_little_memory(gpu: Any, server: str) -> None:
    """After a first kernel: workers, what compiles for them, and the server's own part."""
    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("does not apply: this kernel has no smaps_rollup")
    alone = processes_of(gpu)
    before = memory_of(alone)
    runs: List[subprocess.Popen[str]] = []
    try:
        for _ in range(SESSIONS):
            runs.append(start(gpu, server))
            assert runs[-1].stdout is not None
            assert 0 < int(runs[-1].stdout.readline()) <= 40 * MIB
        serving = processes_of(gpu)
        assert len(serving) >= len(alone) + SESSIONS
        each = (memory_of(serving) - before) / SESSIONS
        print(f"{SESSIONS} sessions: {each / MIB:.1f} MiB each")
        assert 1 * MIB < each <= 40 * MIB
    finally:
        for run in runs:
            run.communicate()
    assert all(run.returncode == 0 for run in runs)
