# SPDX-License-Identifier: Apache-2.0
"""Damaged fat binaries and PTX text: the driver takes them apart without harm, under ASan."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Tuple

import pytest
from instrumented import compiler
from ptx_fatbins import container, entry, lz4_literals, ptx
from test_driver_programs import LIBRARY, build, environment

HERE = Path(__file__).resolve().parent
DRIVER = HERE.parents[1] / "bitfusion/softgpu/driver"
FLAGS = ["-std=gnu11", "-O1", "-g", "-fsanitize=address,undefined"]
FLAGS += ["-fno-sanitize-recover=undefined", "-Wall", "-Wextra", "-Werror"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fuzz") / "fuzz_loader"
    sources = [HERE / "fuzz_loader.c"]
    sources += [DRIVER / name for name in ("fatbin.c", "ptxscan.c", "ptxnames.c", "ptxslice.c")]
    subprocess.run([*compiler(), *FLAGS, "-o", out, *sources, "-ldl"], check=True)
    return out


def fatbins(folder: Path) -> list[Path]:
    """Several entries, packed and not, for several architectures, one after the other."""
    text = (HERE / "data" / "linkable.ptx").read_bytes()
    packed = lz4_literals(text)
    several = container(
        [
            entry(2, 90, b"\x7fELF" + bytes(60)),
            entry(1, 75, ptx("sm_75")),
            entry(1, 90, packed, flags=0x2011, size=len(text), compressed=len(packed)),
        ]
    )
    special = container([entry(1, 90, ptx("sm_90a")), entry(1, 90, ptx("sm_90f"))])
    linked = container([entry(0x4246, 2, text)])
    found = []
    for number, data in enumerate((several, several + special, special, linked)):
        found.append(folder / f"{number}.fatbin")
        found[-1].write_bytes(data)
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2])
def test_damaged_code_does_no_harm(program: Path, tmp_path: Path, seed: int) -> None:
    files = [*fatbins(tmp_path), *HERE.glob("data/*.fatbin"), HERE / "data/linkable.ptx"]
    files.append(HERE / "kernels/stress.ptx")
    done = subprocess.run(
        [program, str(seed), "1000", *files], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    counts = re.fullmatch(r"refused (\d+) found (\d+)\n", done.stdout)
    assert counts and int(counts[1]) > 500 and int(counts[2]) > 500


def load_damaged(tmp_path: Path, library: Path, flags: Tuple[str, ...], turns: int) -> None:
    """Through the driver's own functions, with the compiler's process behind them."""
    driver = build("fuzz_driver", tmp_path, flags, library, HERE / "fuzz_driver.c")
    files = [*HERE.glob("data/*.fatbin"), HERE / "kernels/stress.ptx"]
    env = environment(library, BITFUSION_CACHE="off", ASAN_OPTIONS="detect_leaks=0")
    command = [driver, str(tmp_path), "2", str(turns), *map(str, files)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    counts = re.fullmatch(r"refused (\d+) loaded (\d+)\n", done.stdout)
    assert counts and int(counts[1]) > turns / 2 and int(counts[2]) > turns / 4, done.stdout
    assert "cannot load code: the file is cut off" in done.stderr


def test_damaged_code_is_refused_by_the_driver(tmp_path: Path) -> None:
    load_damaged(tmp_path, LIBRARY, (), 60)


@pytest.mark.sanitizers
@pytest.mark.timeout(600)
def test_damaged_code_is_refused_by_the_driver_under_asan(tmp_path: Path, asan: Path) -> None:
    load_damaged(tmp_path, asan, ("-fsanitize=address,undefined",), 150)
