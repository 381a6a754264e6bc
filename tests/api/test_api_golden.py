# SPDX-License-Identifier: Apache-2.0
"""Every emitter, on a driver of a few functions, gives exactly the committed text.

BITFUSION_REFRESH=1 rewrites the golden files; read the diff before committing it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from api_helpers import HERE, compile_c, small_files

GOLDEN = HERE / "golden"
NAMES = sorted(path.name for path in GOLDEN.iterdir()) or ["none"]


def test_nothing_is_left_over() -> None:
    files = small_files()
    if os.environ.get("BITFUSION_REFRESH"):
        for name, text in files.items():
            (GOLDEN / name).write_text(text, encoding="utf-8")
    assert sorted(files) == sorted(path.name for path in GOLDEN.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_golden(name: str) -> None:
    expected = (GOLDEN / name).read_text(encoding="utf-8")
    assert small_files()[name] == expected, "BITFUSION_REFRESH=1 rewrites the golden files"


def test_twice_the_same() -> None:
    assert small_files() == small_files()


def test_header_compiles(tmp_path: Path) -> None:
    source = tmp_path / "use.c"
    source.write_text(
        '#include "cuda.h"\n'
        '_Static_assert(sizeof(CUmemLocation) == 8, "a union");\n'
        '_Static_assert(_Alignof(CUproperties) == 64, "as told");\n'
        '_Static_assert(CU_SHAPE_SQUARE == 0x7fffffff && CU_COLOR_BLUE == 300, "numbers");\n'
        '_Static_assert(CUDA_VERSION == 13000 && CU_TEN == 10, "macros");\n'
        "CUresult cuInit(unsigned Flags) { return Flags ? CUDA_ERROR_NOT_SUPPORTED : 0; }\n"
    )
    compile_c(tmp_path / "use.so", [source], [f"-I{GOLDEN}", "-shared", "-fPIC"])
