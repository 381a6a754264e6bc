# SPDX-License-Identifier: Apache-2.0
"""Every row of the real spec is well formed, as compiled; the committed files are the spec's."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Dict, List

import pytest
from api_helpers import ROOT, compile_c, load_real

from bitfusion.api import __main__ as program
from bitfusion.api import declarations, emit_c, spec
from bitfusion.api.declarations import parse_member, parse_prototype

WIRE = ROOT / "bitfusion" / "wire"
KINDS: List[str] = re.findall(r"^\tBF_ARG_(\w+),", (WIRE / "row.h").read_text(), re.MULTILINE)
BY_VALUE = {"VALUE", "DEVICE", "HANDLE", "FREE_HANDLE", "LOCATION"}
COUNTED = {"IN_ARRAY", "OUT_ARRAY", "IN_HANDLES", "OUT_HANDLES"}
ONEWAY, BLOCKS = 1, 2
NONE = 0xFF


class CArgument(ctypes.Structure):
    _fields_ = [
        ("kind", ctypes.c_uint8),
        ("handle", ctypes.c_uint8),
        ("count", ctypes.c_uint8),
        ("width", ctypes.c_uint8),
        ("size", ctypes.c_uint32),
        ("location", ctypes.c_uint16),
        ("less", ctypes.c_uint16),
    ]


class CRow(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("argument_count", ctypes.c_uint8),
        ("flags", ctypes.c_uint8),
        ("stream", ctypes.c_uint8),
        ("zero", ctypes.c_uint8),
        ("arguments", ctypes.POINTER(CArgument)),
    ]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, CRow]:
    target = tmp_path_factory.mktemp("rows") / "librows.so"
    library = ctypes.CDLL(
        str(compile_c(target, [WIRE / "generated" / "rows.c"], ["-shared", "-fPIC"]))
    )
    count = ctypes.c_uint.in_dll(library, "bf_row_count").value
    found = (CRow * count).in_dll(library, "bf_rows")
    return {row.name.decode(): row for row in found}


def test_every_row_is_well_formed(rows: Dict[str, CRow]) -> None:
    assert len(rows) > 100
    for name, row in rows.items():
        assert row.argument_count <= 16, name
        kinds = [KINDS[row.arguments[i].kind] for i in range(row.argument_count)]
        for index, kind in enumerate(kinds):
            argument, where = row.arguments[index], f"{name}[{index}]"
            if kind in BY_VALUE:
                assert argument.width in (1, 2, 4, 8) and argument.size == 0, where
            elif kind == "STRING":
                assert argument.size == 0, where
            else:
                assert 0 < argument.size <= 4096, where
            assert ("HANDLE" in kind) == (argument.handle != 0), where
            one = kind == "OUT_HANDLES" and argument.count == NONE
            assert one or (kind in COUNTED) == (argument.count != NONE), where
            if argument.count != NONE:
                assert kinds[argument.count] in ("VALUE", "INOUT"), where
            assert argument.less == 0 or kind in COUNTED, where
            assert argument.location < argument.size or argument.location == 0, where
        if row.stream != NONE:
            assert kinds[row.stream] == "HANDLE", name


def test_a_oneway_row_brings_nothing_back(rows: Dict[str, CRow]) -> None:
    for name, row in rows.items():
        kinds = {KINDS[row.arguments[i].kind] for i in range(row.argument_count)}
        if row.flags & ONEWAY:
            assert not kinds & {"OUT", "INOUT", "OUT_ARRAY", "OUT_HANDLES", "FOUND_HANDLE"}, name


def test_waits_are_marked(rows: Dict[str, CRow]) -> None:
    for name in ("cuCtxSynchronize", "cuStreamSynchronize", "cuEventSynchronize"):
        assert rows[name].flags & BLOCKS


def test_some_rows(rows: Dict[str, CRow]) -> None:
    row = rows["cuTensorMapEncodeTiled"]
    strides = row.arguments[5]
    assert (KINDS[strides.kind], strides.count, strides.less) == ("IN_ARRAY", 2, 1)
    assert KINDS[row.arguments[0].kind] == "OUT" and row.arguments[0].size == 128
    location = rows["cuMemCreate"].arguments[2].location
    assert location == 1 + 8
    assert rows["cuEventRecord"].stream == 1


def test_hash_changes_with_any_row() -> None:
    real = load_real()
    before = emit_c.spec_hash(real)
    text = emit_c.calls_header(real)
    assert f"0x{before:016x}ull" in text
    lines = {emit_c.describe_row(f) for f in real.rows}
    assert len(lines) == len(real.rows)


def test_committed_files_are_current() -> None:
    files = program.generate(load_real(), program.sources(ROOT / program.NULL))
    assert program.differing(ROOT, files) == []


def test_check_names_what_differs(tmp_path: Path) -> None:
    files = {"a/b.c": "text\n", "c.md": "more\n"}
    assert program.differing(tmp_path, files) == ["a/b.c", "c.md"]
    assert program.write(tmp_path, files) == ["a/b.c", "c.md"]
    assert program.differing(tmp_path, files) == []
    (tmp_path / "c.md").write_text("less\n")
    assert program.write(tmp_path, files) == ["c.md"]


def test_main_without_declarations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--check", "--declarations", str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().err


def test_every_function_has_a_class_and_a_reason() -> None:
    real = load_real()
    known = set(real.declarations.functions) - set(real.header["newer"])
    assert known <= {f.name for f in real.functions}
    for function in real.functions:
        assert function.class_ in spec.CLASSES and len(function.why) > 10
        assert function.since <= real.header["version"]


@pytest.mark.parametrize(
    "text, base, pointers, const, array",
    [
        ("const void* image", "void", 1, True, None),
        ("unsigned long long flags", "unsigned long long", 0, False, None),
        ("unsigned numChannels", "unsigned", 0, False, None),
        ("long long reserved1[29]", "long long", 0, False, 29),
        ("const CUgraphNode** dependencies_out", "CUgraphNode", 2, True, None),
        ("CUdevice", "CUdevice", 0, False, None),
    ],
)
def test_member(text: str, base: str, pointers: int, const: bool, array: int) -> None:
    found = parse_member(text).type
    assert (found.base, found.pointers, found.const, found.array) == (base, pointers, const, array)


def test_prototype() -> None:
    found = parse_prototype("CUresult cuX(const char* name, unsigned int n)")
    assert (found.name, [a.name for a in found.arguments]) == ("cuX", ["name", "n"])
    with pytest.raises(declarations.DeclarationError):
        parse_prototype("nothing of the kind")
