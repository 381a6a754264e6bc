# SPDX-License-Identifier: Apache-2.0
"""Sizes, offsets and numbers: the compiler's, the tests' own, and those of docs/wire.md."""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path
from typing import Dict, List

import pytest
import wire_layout as layout
from instrumented import compiler

HEADER = (layout.ROOT / "bitfusion/wire/wire.h").read_text(encoding="utf-8")
PAGE = (layout.ROOT / "docs/wire.md").read_text(encoding="utf-8")
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def members(name: str) -> List[str]:
    """Of a struct without nested ones, in order."""
    body = re.search(r"struct %s \{(.*?)\n\};" % name, HEADER, re.DOTALL)
    assert body, name
    text = re.sub(r"/\*.*?\*/", "", body.group(1), flags=re.DOTALL)
    declared = re.findall(r"\w+ ([\w, \[\]]+);", text)
    return [part.split("[")[0].strip() for line in declared for part in line.split(",")]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, int]:
    """What the C compiler makes of wire.h."""
    lines = [
        "#include <stddef.h>",
        "#include <stdio.h>",
        '#include "wire.h"',
        "int main(void)",
        "{",
    ]
    for name in layout.STRUCTS:
        lines.append('printf("%s %%zu\\n", sizeof(struct %s));' % (name, name))
        for member in members(name):
            place = (name, member, name, member)
            lines.append('printf("%s.%s %%zu\\n", offsetof(struct %s, %s));' % place)
    for number in (*("BF_OP_" + name for name in layout.OPERATIONS), "BF_PROTOCOL"):
        lines.append('printf("%s %%d\\n", (int)%s);' % (number, number))
    for limit in re.findall(r"\b(BF_MAX_\w+)\b", HEADER):
        lines.append('printf("%s %%llu\\n", (unsigned long long)%s);' % (limit, limit))
    folder = tmp_path_factory.mktemp("wire")
    (folder / "layout.c").write_text("\n".join([*lines, "}", ""]))
    binary = str(folder / "layout")
    include = "-I%s" % Path(layout.ROOT / "bitfusion/wire")
    subprocess.run([*compiler(), include, "-o", binary, str(folder / "layout.c")], check=True)
    printed = subprocess.run([binary], check=True, stdout=subprocess.PIPE, text=True).stdout
    return {name: int(value) for name, value in (line.split() for line in printed.splitlines())}


@pytest.mark.parametrize("name", sorted(layout.STRUCTS))
def test_struct(compiled: Dict[str, int], name: str) -> None:
    assert layout.STRUCTS[name].size == compiled[name]
    assert compiled[name] % 8 == 0, "every frame is a multiple of 8 bytes"
    offsets, at = [], 0
    for item in re.findall(r"\d*[a-zA-Z]", layout.STRUCTS[name].format.lstrip("<")):
        offsets.append(at)
        at += struct.calcsize("<" + item)
    assert offsets == [compiled["%s.%s" % (name, member)] for member in members(name)]


def test_operations(compiled: Dict[str, int]) -> None:
    assert [compiled["BF_OP_" + name] for name in layout.OPERATIONS] == list(
        range(len(layout.OPERATIONS))
    )
    assert len(set(re.findall(r"\bBF_OP_[A-Z_0-9]+(?=,)", HEADER))) == len(layout.OPERATIONS)
    assert compiled["BF_PROTOCOL"] == layout.PROTOCOL


@pytest.mark.parametrize(
    ("what", "limit"),
    [
        ("one command or reply, bulk not counted", "BF_MAX_COMMAND"),
        ("environment in the hello", "BF_MAX_ENVIRONMENT"),
        ("parameters of one kernel", "BF_MAX_PARAMETERS"),
        ("code image, with all that it was linked from", "BF_MAX_IMAGE"),
        ("objects that one image was linked from", "BF_MAX_LOAD_INPUTS"),
        ("one copy (streamed, never allocated whole)", "BF_MAX_COPY"),
        ("handles of one kind in a session", "BF_MAX_HANDLES"),
        ("devices", "BF_MAX_DEVICES"),
    ],
)
def test_documented_limit(compiled: Dict[str, int], what: str, limit: str) -> None:
    row = re.search(r"^\| %s \| ([\d,]+) ?(\w*) \|$" % re.escape(what), PAGE, re.MULTILINE)
    assert row, "docs/wire.md has no row '%s'" % what
    assert int(row.group(1).replace(",", "")) * UNITS.get(row.group(2), 1) == compiled[limit]
