# SPDX-License-Identifier: Apache-2.0
"""What the tests of bitfusion.api share: the small driver, and a C compiler."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path
from typing import Dict, List, Sequence

import pytest
from instrumented import compiler

from bitfusion.api import __main__ as program
from bitfusion.api import declarations, emit_c, emit_docs, spec

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
INCLUDES = ["bitfusion/wire/generated", "bitfusion/wire", "bitfusion/abi"]


@functools.cache
def small_declarations() -> declarations.Declarations:
    return declarations.load(str(HERE / "small"))


def load_small(path: Path = HERE / "small.toml") -> spec.Spec:
    return spec.load(path, small_declarations(), path.name)


@functools.cache
def load_real() -> spec.Spec:
    try:
        found = declarations.load()
    except declarations.DeclarationError as error:
        pytest.skip(str(error))
    return spec.load(ROOT / program.CUDA, found, program.CUDA)


def small_files() -> Dict[str, str]:
    """Every emitter's text for the small driver, by the name of its golden file."""
    small = load_small()
    return {
        "cuda.h": emit_c.header(small),
        "calls.h": emit_c.calls_header(small),
        "rows.c": emit_c.rows_source(small),
        "stubs.h": emit_c.stubs_header(small),
        "stubs.c": emit_c.stubs_source(small),
        "absent.c": emit_c.proxy_absent_source(small),
        "symbols.c": emit_c.symbols_source(small, emit_c.proxy_present(small)),
        "exports.map": emit_c.export_map(small.exported),
        "errors.c": emit_c.errors_source(small),
        "coverage.md": emit_docs.coverage(small),
    }


def compile_c(target: Path, sources: Sequence[Path], flags: Sequence[str] = ()) -> Path:
    """A shared library, or a program where flags say so."""
    command: List[str] = [*compiler(), "-std=gnu11", "-Wall", "-Wextra", "-Werror"]
    command += [*flags, *(f"-I{ROOT / folder}" for folder in INCLUDES)]
    command += ["-o", str(target), *map(str, sources)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target
