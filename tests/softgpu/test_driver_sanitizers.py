# SPDX-License-Identifier: Apache-2.0
"""The driver and the engine under sanitizers, with the same programs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from test_driver_programs import ROOT, SOURCES, build, environment, expected, run

pytestmark = pytest.mark.sanitizers


def library(kind: str) -> Path:
    """Built by `make` where that has not been done: that takes minutes."""
    out = "build/" + {"address,undefined": "asan", "thread": "tsan"}[kind]
    subprocess.run(
        ["make", "OUT=" + out, "SANITIZE=" + kind, "softgpu"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("MAKE")},
    )
    return ROOT / out / "lib" / "softgpu"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", sorted(SOURCES))
def test_address_and_undefined(name: str, tmp_path: Path) -> None:
    where = library("address,undefined")
    program = build(name, tmp_path, ("-fsanitize=address,undefined",), where)
    # what lives as long as the process is not given back at its end
    done = run(program, environment(where, ASAN_OPTIONS="detect_leaks=0"))
    assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, done.stderr
    assert done.stdout.splitlines() == expected(name)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "name", ["driver_threads", "driver_streams", "driver_host_functions", "driver_pools"]
)
def test_threads(name: str, tmp_path: Path) -> None:
    where = library("thread")
    program = build(name, tmp_path, ("-fsanitize=thread",), where)
    done = run(program, environment(where, BITFUSION_SOFTGPU_MEMORY="256M"))
    assert "ThreadSanitizer" not in done.stderr, done.stderr
    assert done.stdout.splitlines() == expected(name)
