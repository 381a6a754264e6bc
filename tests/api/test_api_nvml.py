# SPDX-License-Identifier: Apache-2.0
"""NVML: what is declared, what is exported, what is implemented."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Set

import pytest

from bitfusion import paths
from bitfusion.api import declarations, nvml

ROOT = Path(__file__).resolve().parents[2]


def exports(library: str) -> Set[str]:
    command = ["nm", "-D", "--defined-only", paths.library(library)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {line.split()[-1].split("@")[0] for line in text.splitlines()}


@pytest.mark.parametrize("library", ["client/libnvidia-ml.so.1", "softgpu/libnvidia-ml.so.1"])
def test_every_name_is_exported_and_nothing_else(library: str) -> None:
    written = nvml.find_written(p.read_text() for p in (ROOT / nvml.FOLDER).glob("*.c"))
    declared = nvml.load(declarations.find_package())
    assert exports(library) == set(nvml.exported(declared, written))
    assert {"nvmlInit_v2", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetTemperature"} <= exports(
        library
    )


def test_what_is_written_by_hand_is_found() -> None:
    source = (
        "EXPORT nvmlReturn_t nvmlInit_v2(void)\n{\n}\nEXPORT const char *nvmlErrorString(int x)\n"
    )
    assert nvml.find_written([source]) == {"nvmlInit_v2", "nvmlErrorString"}


def test_the_header_holds_only_the_types_that_are_needed() -> None:
    declared = nvml.load(declarations.find_package())
    header = nvml.header(declared, {"nvmlDeviceGetPciInfo_v3"})
    assert "struct nvmlPciInfo_t {" in header and "nvmlFieldValue_t" not in header


ENUM = """\
ctypedef enum Sizes "Sizes":
    FIRST "FIRST"
    SECOND "SECOND"
    SAME "SAME" = SECOND
    NEGATIVE "NEGATIVE" = -(1)
    SHIFTED "SHIFTED" = (1 << 4)
    BOTH "BOTH" = (SHIFTED | SAME)
"""


def test_values_of_enumerators_may_be_expressions() -> None:
    (enum,) = declarations.parse_types(ENUM)
    assert isinstance(enum, declarations.Enum)
    assert dict(enum.members) == {
        "FIRST": None,
        "SECOND": None,
        "SAME": 1,
        "NEGATIVE": -1,
        "SHIFTED": 16,
        "BOTH": 17,
    }


@pytest.mark.parametrize("value", ["(UNKNOWN)", "f(1)", "1 <<", "1.5"])
def test_what_is_no_value_is_refused(value: str) -> None:
    with pytest.raises(declarations.DeclarationError, match="not a value"):
        declarations.parse_types(f'ctypedef enum E "E":\n    ONE "ONE" = {value}\n')
