# SPDX-License-Identifier: Apache-2.0
"""Several host threads launch on one pool while memory comes and goes."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import List

import pytest
from engine import LIBRARY, ROOT
from instrumented import compiler
from test_engine_fuzz import SOURCES

from bitfusion.softgpu.engine.encode import encode_module
from bitfusion.softgpu.ptx.frontend import read_image

HERE = Path(__file__).resolve().parent
STRESS = HERE / "stress_launches.c"
# As in the fuzz test: the handlers are many, so they are compiled quickly.
TSAN = ["-std=gnu11", "-O0", "-g", "-fsanitize=thread", "-fno-strict-aliasing", "-w"]
TSAN += ["-ffp-contract=off", "-DSG_BASELINE_ONLY", "-pthread"]


# Two blocks at one address of the device's memory: that is between the kernel and itself, and the
# kernels here do it as PTX allows, by volatile loads and atomics.
SUPPRESSIONS = "race_top:sg_run_ld_\nrace_top:sg_run_atom_\n"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    made = tmp_path / "image"
    text = (HERE / "kernels" / "stress.ptx").read_bytes()
    made.write_bytes(encode_module(read_image(text)))
    return made


def run(program: Path, image: Path, threads: int, rounds: int, **extra: str) -> None:
    command: List[str] = [str(program), str(image), str(threads), str(rounds)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        env={**os.environ, **extra},
    )
    assert done.stderr == ""
    assert done.returncode == 0
    found = re.fullmatch(r"launches (\d+) changes (\d+) failures 0\n", done.stdout)
    assert found and int(found[1]) == threads * rounds and int(found[2]) > 100


def test_threads_share_a_pool(image: Path, tmp_path: Path) -> None:
    program = tmp_path / "stress"
    library = Path(LIBRARY)
    flags = ["-std=gnu11", "-O1", "-g", "-pthread", f"-Wl,-rpath,{library.parent}"]
    command = [*compiler(), *flags, str(STRESS), "-o", str(program), str(library)]
    subprocess.run(command, check=True)
    run(program, image, 6, 100)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_threads_share_a_pool_without_races(image: Path, tmp_path: Path) -> None:
    program = tmp_path / "stress"
    sources = [*SOURCES.glob("*.c"), *SOURCES.glob("generated/*.c")]
    command = [*compiler(), *TSAN, str(STRESS), "-o", str(program), *map(str, sources), "-lm"]
    subprocess.run(command, check=True, cwd=ROOT)
    suppressions = tmp_path / "suppressions"
    suppressions.write_text(SUPPRESSIONS)
    options = f"suppressions={suppressions} print_suppressions=0"
    run(program, image, 4, 25, TSAN_OPTIONS=options)
