# SPDX-License-Identifier: Apache-2.0
"""The filled table, and what follows from it: opcode numbers and the image's version."""

from __future__ import annotations

import zlib
from typing import Dict

from . import ops_convert, ops_float, ops_integer, ops_system
from .semantics import FORMS, OPS, Form, Op

FORMAT = 1  # of the image's layout; the version below also covers the opcodes

GROUPS: Dict[
    str, int
] = {}  # handlers are compiled in files by group: name -> number of handlers up to its end


def _fill() -> None:
    if OPS:
        return
    for name, module in (
        ("system", ops_system),
        ("integer", ops_integer),
        ("float", ops_float),
        ("convert", ops_convert),
    ):
        module.fill()
        GROUPS[name] = len(OPS)


_fill()
NUMBERS: Dict[str, int] = {name: number for number, name in enumerate(OPS)}
SG_IMAGE_VERSION = FORMAT << 32 | zlib.crc32(
    "\n".join(f"{op.name} {op.operands} {op.check}" for op in OPS.values()).encode()
)

__all__ = ["FORMS", "GROUPS", "NUMBERS", "OPS", "SG_IMAGE_VERSION", "Form", "Op"]
