# SPDX-License-Identifier: Apache-2.0
"""How what changed in shared memory is found and stored, in C, plainly and under sanitizers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from instrumented import compiler

BITFUSION = Path(__file__).resolve().parents[2] / "bitfusion"
PROXY = BITFUSION / "proxy"
INCLUDES = [PROXY, BITFUSION / "wire", BITFUSION / "wire" / "generated", BITFUSION / "abi"]


@pytest.mark.parametrize("sanitizer", ["", "address,undefined", "thread"])
def test_difference(sanitizer: str, tmp_path: Path) -> None:
    program = tmp_path / "difference"
    flags = [f"-fsanitize={sanitizer}"] if sanitizer else []
    sources = [Path(__file__).with_name("difference_main.c"), PROXY / "difference.c"]
    build = [*compiler(), "-std=gnu11", "-g", "-O1", "-pthread", *flags]
    build += [f"-I{folder}" for folder in INCLUDES]
    sources.append(PROXY / "reach.c")
    subprocess.run([*build, *map(str, sources), "-o", str(program)], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
