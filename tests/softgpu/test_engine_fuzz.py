# SPDX-License-Identifier: Apache-2.0
"""Damaged images: the engine refuses them or runs them without harm, under ASan and UBSan."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from engine import ROOT
from instrumented import compiler

from bitfusion.softgpu.engine.encode import encode_module
from bitfusion.softgpu.ptx.frontend import read_image

SOURCES = ROOT / "bitfusion/softgpu/engine"
# The handlers are many; they are compiled without optimisation and for the baseline CPU only.
FLAGS = ["-std=gnu11", "-O0", "-g", "-fsanitize=address,undefined", "-fno-strict-aliasing", "-w"]
FLAGS += ["-fno-sanitize-recover=undefined", "-ffp-contract=off", "-DSG_BASELINE_ONLY", "-pthread"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fuzz") / "fuzz_image"
    sources = [*SOURCES.glob("*.c"), *SOURCES.glob("generated/*.c")]
    command = [*compiler(), *FLAGS, str(Path(__file__).with_name("fuzz_image.c")), "-o", str(out)]
    subprocess.run([*command, *map(str, sources), "-lm"], check=True)
    return out


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("kernels", "seed"), [("fuzz", 1), ("fuzz", 2), ("fuzz", 3), ("fuzz_matrix", 4)]
)
def test_damaged_images_do_no_harm(program: Path, tmp_path: Path, kernels: str, seed: int) -> None:
    image = tmp_path / "image"
    text = (Path(__file__).parent / "kernels" / f"{kernels}.ptx").read_bytes()
    image.write_bytes(encode_module(read_image(text)))
    done = subprocess.run(
        [str(program), str(image), str(seed), "400"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = re.fullmatch(r"refused (\d+) ran (\d+)\n", done.stdout)
    assert found and int(found[1]) > 20 and int(found[2]) > 20
