# SPDX-License-Identifier: Apache-2.0
"""The filled table, and the opcode numbers that follow from it."""

from __future__ import annotations

from typing import Dict

from . import (
    ops_async,
    ops_convert,
    ops_float,
    ops_half,
    ops_integer,
    ops_matrix,
    ops_system,
    ops_texture,
)
from .semantics import FORMS, OPS, Form, Op

GROUPS: Dict[
    str, int
] = {}  # handlers are compiled in files by group: name -> number of handlers up to its end


def _fill() -> None:
    if OPS:
        return
    for name, module in (
        ("system", ops_system),
        ("async", ops_async),
        ("texture", ops_texture),
        ("integer", ops_integer),
        ("float", ops_float),
        ("half", ops_half),
        ("convert", ops_convert),
        ("matrix", ops_matrix),
    ):
        module.fill()
        GROUPS[name] = len(OPS)


_fill()
NUMBERS: Dict[str, int] = {name: number for number, name in enumerate(OPS)}

__all__ = ["FORMS", "GROUPS", "NUMBERS", "OPS", "Form", "Op"]
