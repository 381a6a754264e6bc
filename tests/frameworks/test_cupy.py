# SPDX-License-Identifier: Apache-2.0
"""CuPy with kernels of its own, which NVRTC compiles, and none of CUDA's large libraries."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parent / "cupy_arrays.py"
CHECKS = ["arithmetic", "reductions", "sorting", "raw_kernel"]


@pytest.mark.slow
@pytest.mark.timeout(600)  # NVRTC takes half a minute of CPU the first time
def test_arrays_and_kernels(gpu: Any) -> None:
    pytest.importorskip("cupy")
    gpu.timeout = 280
    for how in ("direct", "tcp"):
        done = gpu.run(how, sys.executable, str(SCRIPT), *CHECKS)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.splitlines() == [name + " right" for name in CHECKS]
