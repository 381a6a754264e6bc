# SPDX-License-Identifier: Apache-2.0
"""What `make release` gives runs on old systems: built by zig, for glibc 2.17, on both machines.

The engine takes zig minutes, and meets it in a release only.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Dict, List

import pytest

ROOT = Path(__file__).resolve().parents[2]
OLDEST = (2, 17)
ELF_MACHINE = {"x86_64": 62, "aarch64": 183}
PARTS: Dict[str, List[str]] = {"x86_64": ["proxy"], "aarch64": ["proxy", "executor"]}
LIBRARIES = {"proxy": "client/libcuda.so.1", "executor": "server/libbfexecutor.so"}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("machine", sorted(PARTS))
def test_built_for_old_systems(machine: str) -> None:
    pytest.importorskip("ziglang")
    done = subprocess.run(
        ["make", "release", "MACHINES=" + machine, "RELEASED=" + " ".join(PARTS[machine])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "CC" and not k.startswith("MAKE")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for part in PARTS[machine]:
        library = ROOT / "build/release" / machine / "lib" / LIBRARIES[part]
        image = library.read_bytes()
        assert int.from_bytes(image[18:20], "little") == ELF_MACHINE[machine]
        needed = {(int(a), int(b)) for a, b in re.findall(rb"GLIBC_(\d+)\.(\d+)", image)}
        assert needed and max(needed) <= OLDEST, sorted(needed)
