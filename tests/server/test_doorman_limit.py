# SPDX-License-Identifier: Apache-2.0
"""How many connections a server takes follows from how many descriptors it may have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RAISE = """
import resource, sys
from bitfusion import linux
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
print(linux.raise_open_files(1000), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def raised(soft: int, hard: int) -> list[int]:
    out = subprocess.check_output(
        [sys.executable, "-c", RAISE, str(soft), str(hard)], text=True, cwd=ROOT, timeout=60
    )
    return [int(word) for word in out.split()]


def test_open_files_are_raised_as_far_as_they_may_be() -> None:
    assert raised(64, 2000) == [1000, 1000, 2000]
    assert raised(64, 500) == [500, 500, 500]
    assert raised(1500, 2000) == [1500, 1500, 2000]
