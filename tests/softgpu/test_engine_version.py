# SPDX-License-Identifier: Apache-2.0
"""The image's version changes with every source that decides what an image holds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from engine import ROOT, Engine, ImageError, library
from test_driver_programs import build, environment, run
from waiting import wait_for

from bitfusion.softgpu.engine import __main__ as generator
from bitfusion.softgpu.engine import coverage, encoding, table
from bitfusion.softgpu.engine.encode import encode_module
from bitfusion.softgpu.engine.generated import SG_IMAGE_VERSION
from bitfusion.softgpu.engine.syntax import Refusal
from bitfusion.softgpu.engine.version import PACKAGE, image_version, sources
from bitfusion.softgpu.ptx.frontend import read_image

TEXT = ".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry k()\n{\n ret;\n}\n"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name in ("engine", "ptx"):
        shutil.copytree(PACKAGE / name, tmp_path / name)
    return tmp_path


def test_the_generated_files_are_current() -> None:
    assert generator.main(["--check"]) == 0


def test_the_encoder_has_the_table() -> None:
    forms = {name: (form.op, table.OPS[form.op].operands) for name, form in table.FORMS.items()}
    assert forms == encoding.FORMS
    assert table.NUMBERS == encoding.NUMBERS


def test_a_helper_does_not_fill_the_table() -> None:
    """It would start 10 ms later."""
    code = "import sys; from bitfusion.softgpu.engine import encode; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    loaded = done.stdout.split()
    assert "bitfusion.softgpu.engine.encoding" in loaded
    assert "bitfusion.softgpu.engine.table" not in loaded


def test_the_coverage_table_is_of_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    text = coverage.document()
    assert coverage.DOCUMENT.read_text() == text
    assert "| `fma` | `.rn.ftz.sat` | f16, f16x2, f32 |" in text
    assert "| `vset4` | `ORDER [.add]` | u32, s32; u32, s32 |" in text
    assert "| `wgmma` | all | only single architectures" in text
    monkeypatch.setitem(coverage.REFUSED, "lop3", [Refusal((), "")])
    with pytest.raises(ValueError, match="implemented: lop3"):
        coverage.document()


def test_library_and_package_agree() -> None:
    assert library().sg_image_version() == SG_IMAGE_VERSION == image_version()


def test_what_decides_an_image_is_among_the_sources() -> None:
    wanted = {"encode", "function", "reach", "semantics", "table", "lower", "lower_memory"}
    wanted |= {"ops_float", "ops_integer", "ops_convert", "ops_system"}
    names = {f"engine/{name}.py" for name in wanted}
    names |= {f"ptx/{name}.py" for name in ("parser", "lexer", "body", "operand", "link")}
    assert names <= set(sources())


@pytest.mark.parametrize("name", sources())
def test_every_source_changes_it(name: str, package: Path) -> None:
    before = image_version(package)
    assert before == image_version()
    with open(package / name, "a") as file:
        file.write("# changed\n")
    assert image_version(package) != before


def test_a_new_source_changes_it_and_a_tool_does_not(package: Path) -> None:
    before = image_version(package)
    for name in ("ptx/cache.py", "ptx/helper.py", "engine/emit.py"):
        (package / name).write_text("")
    assert image_version(package) == before
    (package / "engine" / "lower_new.py").write_text("")
    assert image_version(package) != before


def test_an_image_of_another_build_is_refused() -> None:
    image = bytearray(encode_module(read_image(TEXT.encode())))
    image[8] ^= 1
    engine = Engine()
    with pytest.raises(ImageError, match="made by another build of the software GPU"):
        engine.load_image(bytes(image))
    engine.close()


PROGRAM = """#include "program.h"
int main(void)
{
    CUmodule module;
    open_device();
    SHOW(cuModuleLoadData(&module, PTX_HEADER ".visible .entry k()\\n{\\n ret;\\n}\\n"));
    return 0;
}
"""


@pytest.mark.parametrize("same", [True, False])
def test_the_driver_says_when_the_package_is_of_another_build(same: bool, tmp_path: Path) -> None:
    home, cache = tmp_path / "home", tmp_path / "cache"
    skip = shutil.ignore_patterns("__pycache__", "*.c", "*.h")
    shutil.copytree(PACKAGE, home / "bitfusion" / "softgpu", ignore=skip)
    shutil.copy(ROOT / "bitfusion" / "__init__.py", home / "bitfusion")
    if not same:
        constants = home / "bitfusion/softgpu/engine/generated/__init__.py"
        constants.write_text(f"SG_IMAGE_VERSION = {SG_IMAGE_VERSION ^ 1}\n")
    source = tmp_path / "load.c"
    source.write_text(PROGRAM)
    env = environment(BITFUSION_HOME=str(home), BITFUSION_CACHE=str(cache))
    done = run(build("load", tmp_path, source=source), env)
    error = "CUDA_SUCCESS" if same else "CUDA_ERROR_JIT_COMPILER_NOT_FOUND"
    assert done.stdout.endswith(f": {error}\n")
    assert done.stderr.count("\n") == (0 if same else 1)
    assert same or "are of different builds, run `make`" in done.stderr
    if same:  # what compiled it answers first
        assert wait_for(lambda: cache.exists() and os.listdir(cache))
    else:
        assert not cache.exists()


def test_modules_of_the_program_are_not_the_front_end_s(tmp_path: Path) -> None:
    """A program may run in a folder that holds files called as Python's modules."""
    source, folder = tmp_path / "load.c", tmp_path / "folder"
    source.write_text(PROGRAM)
    program = build("load", tmp_path, source=source)
    folder.mkdir()
    for name in ("struct", "bitfusion", "re", "signal"):
        (folder / f"{name}.py").write_text("raise SystemExit(f'{__name__} of the program')\n")
    env = environment(BITFUSION_CACHE="off")
    done = subprocess.run(
        [program], env=env, cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.stdout[-15:], done.stderr) == (": CUDA_SUCCESS\n", "")
