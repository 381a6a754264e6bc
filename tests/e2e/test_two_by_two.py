# SPDX-License-Identifier: Apache-2.0
"""The same program, directly on the software GPU and through us, must say the same thing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "tests" / "programs"
# What it shows is of a slice of 64 MiB, which a whole GPU never gets to: tests/e2e/test_slices.py.
OF_A_SLICE = {"slice_reserve"}
C_PROGRAMS = sorted({p.stem for p in SOURCES.glob("*.c")} - OF_A_SLICE)
CUDA_PROGRAMS = sorted(p.stem for p in SOURCES.glob("*.cu"))
CUDA_PROGRAMS += ["vector_add_shared", "relocatable"]
SCRIPTS = sorted(p.name for p in SOURCES.glob("*.py"))
# Their output names figures of one run (times, addresses), so only their status is compared.
UNSTABLE = {"demo_mandelbrot"}
ARGUMENTS = {"steady": ["50"]}


# What each command said directly, to be compared with every way through us.
DIRECT: Dict[Tuple[str, ...], Any] = {}


def compare(gpu: Any, how: str, command: List[str], name: str) -> None:
    key = (str(gpu.devices), *command)
    if key not in DIRECT:
        DIRECT[key] = gpu.run("direct", *command)
    direct = DIRECT[key]
    through = gpu.run(how, *command, options=["-n", str(gpu.devices)])
    assert direct.returncode == 0, direct.stdout + direct.stderr
    assert through.returncode == 0, through.stdout + through.stderr
    if name not in UNSTABLE:
        assert through.stdout == direct.stdout
        assert direct.stdout


@pytest.mark.parametrize("how", ["tcp", "unix"])
@pytest.mark.parametrize("name", C_PROGRAMS)
def test_driver_program(gpu: Any, programs: Path, name: str, how: str) -> None:
    compare(gpu, how, [str(programs / name), *ARGUMENTS.get(name, [])], name)


@pytest.mark.parametrize("how", ["tcp", "unix"])
def test_copies_between_two_devices(gpu: Any, programs: Path, how: str) -> None:
    gpu.devices = 2
    name = "driver_peer_copies"
    compare(gpu, how, [str(programs / name)], name)


@pytest.mark.parametrize("how", ["tcp", "unix"])
@pytest.mark.parametrize("name", CUDA_PROGRAMS)
def test_nvcc_program(gpu: Any, programs: Path, name: str, how: str) -> None:
    if not (programs / name).exists():
        pytest.skip("not built: nvcc needs g++ on this machine")
    compare(gpu, how, [str(programs / name)], name)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["tcp", "unix"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_python_program(gpu: Any, name: str, how: str) -> None:
    if not name.startswith("nvml"):
        pytest.importorskip("numba_cuda" if "numba" in name else "cuda.core")
    compare(gpu, how, [sys.executable, str(SOURCES / name)], name)
