# SPDX-License-Identifier: Apache-2.0
"""The hidden tables and the integrity handshake, in C, plainly and under sanitizers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from instrumented import compiler

ROOT = Path(__file__).resolve().parents[2]
ABI = ROOT / "bitfusion" / "abi"


@pytest.mark.parametrize("sanitizer", ["", "address,undefined", "thread"])
def test_tables(sanitizer: str, tmp_path: Path) -> None:
    program = tmp_path / "abi_test"
    flags = [f"-fsanitize={sanitizer}"] if sanitizer else []
    includes = [f"-I{ROOT / 'bitfusion' / 'wire' / 'generated'}", f"-I{ABI}"]
    parts = [ABI / name for name in ("storage.c", "tables.c", "runtime.c")]
    sources = [Path(__file__).with_name("abi_test.c"), *parts]
    build = [*compiler(), "-std=gnu11", "-g", "-O1", "-pthread", *flags, *includes]
    subprocess.run([*build, *map(str, sources), "-o", str(program)], check=True)
    done = subprocess.run([str(program)], stdout=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stdout.decode()) == (0, "")
