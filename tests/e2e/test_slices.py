# SPDX-License-Identifier: Apache-2.0
"""A share of a GPU's memory is what the program sees and all that it gets; several runs share
one GPU.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Tuple

import pytest

OOM = "CUDA_ERROR_OUT_OF_MEMORY"


def figures(text: str) -> Tuple[int, int, int, int, str]:
    """devices, total, total by cuMemGetInfo, MiB got, error"""
    first = re.search(r"devices (\d+), total (\d+) MiB, by cuMemGetInfo (\d+) MiB", text)
    second = re.search(r"got (\d+) MiB, error (\w+)", text)
    assert first and second, text
    devices, total, info = (int(word) for word in first.groups())
    return devices, total, info, int(second.group(1)), second.group(2)


@pytest.fixture
def whole(gpu: Any, programs: Path) -> int:
    """MiB of the whole GPU."""
    done = gpu.run("direct", str(programs / "memory_limits"), "10")
    return figures(done.stdout)[1]


@pytest.mark.parametrize("how", ["tcp", "unix"])
def test_a_quarter(gpu: Any, programs: Path, whole: int, how: str) -> None:
    done = gpu.run(how, str(programs / "memory_limits"), options=["-n", "1", "-p", "0.25"])
    _, total, info, got, error = figures(done.stdout)
    assert total == info == whole // 4
    assert error == OOM
    assert 0.8 * total <= got <= total
    assert "all given back: 1" in done.stdout


def test_megabytes(gpu: Any, programs: Path) -> None:
    done = gpu.run("tcp", str(programs / "memory_limits"), options=["-n", "1", "-m", "500"])
    _, total, info, got, error = figures(done.stdout)
    assert total == info == 500
    assert (error, got <= total) == (OOM, True)


def test_processes_of_one_run_share_the_slice(
    gpu: Any, programs: Path, whole: int, tmp_path: Path
) -> None:
    """The first holds 60 % of the slice; the second asks for 60 % too and cannot have it."""
    program = str(programs / "memory_limits")
    script = """
        mkfifo hold; '%s' 60 - <hold >first & exec 3>hold
        until grep -q got first; do kill -0 $! || exit 1; sleep 0.02; done
        '%s' 60; exec 3>&-; wait; cat first""" % (program, program)
    words = ["sh", "-c", 'cd "$1"; eval "$2"', "sh", str(tmp_path), script]
    done = gpu.run("tcp", *words, options=["-n", "1", "-p", "0.25"])
    assert done.returncode == 0, done.stderr
    got = [int(number) for number in re.findall(r"got (\d+) MiB", done.stdout)]
    assert sum(got) <= whole // 4, done.stdout
    assert done.stdout.count(OOM) == 1, done.stdout


def test_two_runs_share_one_gpu(gpu: Any, programs: Path, whole: int) -> None:
    program = str(programs / "memory_limits")
    runs = [
        gpu.start("tcp", program, "80", "1", options=["-n", "1", "-p", "0.5"]) for _ in range(2)
    ]
    for run in runs:
        out, err = run.communicate(timeout=100)
        assert run.returncode == 0, err
        _, total, _, got, error = figures(out)
        assert (total, error) == (whole // 2, "none")
        assert got >= total * 0.7


def test_two_devices(gpu: Any, programs: Path) -> None:
    gpu.devices = 2
    done = gpu.run("tcp", str(programs / "memory_limits"), "10", options=["-n", "2"])
    assert figures(done.stdout)[0] == 2, done.stdout + done.stderr


def test_one_of_two_devices(gpu: Any, programs: Path) -> None:
    gpu.devices = 2
    done = gpu.run("tcp", str(programs / "memory_limits"), "10", options=["-n", "1"])
    assert figures(done.stdout)[0] == 1, done.stdout + done.stderr


def test_physical_memory_counts_until_nothing_has_it(gpu: Any, programs: Path) -> None:
    program = str(programs / "driver_virtual_memory")
    done = gpu.run("tcp", program, options=["-n", "1", "-m", "64"])
    assert done.stdout == gpu.run("direct", program).stdout
    assert "mapped, it still counts: yes" in done.stdout and "all back: yes" in done.stdout


def test_arrays_count(gpu: Any, programs: Path) -> None:
    """Arrays, and mipmapped ones, which have a third more than their first level."""
    done = gpu.run("tcp", str(programs / "array_memory"), "fill", options=["-n", "1", "-m", "104"])
    assert done.stdout.splitlines() == [
        f"got 96 MiB, error {OOM}",
        f"and 1 with levels, error {OOM}",
        "all given back: 1",
    ], done.stdout + done.stderr


def test_what_the_driver_holds_beside_counts(gpu: Any, programs: Path) -> None:
    """Of pools, of graphs, and for limits of contexts."""
    done = gpu.run("tcp", str(programs / "slice_reserve"), options=["-n", "1", "-m", "64"])
    assert done.stdout.splitlines() == [
        "at first: 64 of 64 MiB are free",
        "a pool keeps 40 MiB: 24 of 64 MiB are free",
        f"cuMemAllocAsync(&memory, 40 * MIB, stream): {OOM}",
        "trimmed: 64 of 64 MiB are free",
        f"cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, heap + 80 * MIB): {OOM}",
        "24 MiB more of heap: 40 of 64 MiB are free",
        "as before: 64 of 64 MiB are free",
        "a graph has 32 MiB: 32 of 64 MiB are free",
        "the graph is gone: 32 of 64 MiB are free",
        "what it had, too: 64 of 64 MiB are free",
    ], done.stdout + done.stderr
