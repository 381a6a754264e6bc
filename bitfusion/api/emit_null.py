# SPDX-License-Identifier: Apache-2.0
"""Spec -> the generated part of the null driver (tests/nulldriver/generated). Pure.

Functions that need state are written by hand; `written` names those. Everything else succeeds,
with what it returns zeroed or minted.
"""

from __future__ import annotations

import re
from typing import AbstractSet, Dict, List, Set

from . import emit_c
from .declarations import Member, Prototype
from .emit_header import HEADER_LINE, spell_prototype, tags_of
from .spec import HANDLES, Argument, Function, Spec

_NO_OUTPUT = {"char", "void", "CUjit_option", "CUlibraryOption"}
_DEFINITION = re.compile(r"^CUresult (cu\w+)\(", re.MULTILINE)


def find_written(sources: List[str]) -> Set[str]:
    """The exported functions that hand-written C defines."""
    return {name for source in sources for name in _DEFINITION.findall(source)}


def _head() -> List[str]:
    return [
        "/* SPDX-License-Identifier: Apache-2.0 */",
        "/* %s */" % HEADER_LINE,
    ]


def _handle(member: Member, value: str) -> str:
    name = member.name
    return "\tif (%s)\n\t\t*%s = (%s)(uintptr_t)%s;" % (name, name, member.type.base, value)


def _row_output(function: Function, argument: Argument) -> List[str]:
    """What a stub of a function with a row does about one argument."""
    member = Member(argument.name, argument.type)
    if argument.kind == "NEW_HANDLE":
        return [_handle(member, "null_mint()")]
    if argument.kind == "FOUND_HANDLE":
        return [_handle(member, "null_found()")]
    size = "(%s)" % argument.size
    if argument.kind == "OUT_ARRAY":
        assert argument.count is not None
        counter = function.arguments[argument.count]
        if counter.type.pointers:
            return []
        size += " * %s" % counter.name
    elif argument.kind != "OUT":
        return []
    return ["\tif (%s)\n\t\tmemset(%s, 0, %s);" % (argument.name, argument.name, size)]


def _plain_output(spec: Spec, function: Function, member: Member) -> List[str]:
    """The same without a row: only what can be no input; a struct only where the name says Get."""
    type_ = member.type
    zero = "\tif (%s)\n\t\tmemset(%s, 0, sizeof *%s);" % ((member.name,) * 3)
    if type_.pointers != 1 or type_.const or type_.base in _NO_OUTPUT:
        return []
    if type_.base in HANDLES:
        return [_handle(member, "null_mint()")]
    aliases = spec.declarations.aliases()
    base = type_.base
    while base in aliases and not aliases[base].type.pointers:
        base = aliases[base].type.base
    if base in spec.declarations.records() and "Get" not in function.name:
        return []
    return [zero]


def _call(name: str, prototype: Prototype) -> List[str]:
    arguments = ", ".join(a.name for a in prototype.arguments)
    return ["\treturn %s(%s);" % (name, arguments)]


def _body(spec: Spec, function: Function, prototype: Prototype) -> List[str]:
    if function.alias:
        return _call(function.alias, prototype)
    lines = ["\tNULL_ENTER();"]
    if function.arguments:
        for argument in function.arguments:
            lines += _row_output(function, argument)
    elif function.class_ != "absent":
        for member in prototype.arguments:
            lines += _plain_output(spec, function, member)
    return [*lines, "\treturn CUDA_SUCCESS;"]


def emit_null_stubs(spec: Spec, written: AbstractSet[str]) -> str:
    tags = tags_of(spec.declarations)
    lines = [*_head(), '#include "../null.h"', "", "#include <stddef.h>", "#include <string.h>"]
    for function in spec.functions:
        if function.prototype is None:
            continue
        prototype = function.prototype
        if function.name not in written:
            body = _body(spec, function, prototype)
            lines += ["", spell_prototype(prototype, tags), "{", *body, "}"]
        for flavour in function.flavours:
            name = function.name + flavour.suffix
            if name not in written:
                twin = Prototype(name, prototype.result, prototype.arguments)
                call = _call(function.name, prototype)
                lines += ["", spell_prototype(twin, tags), "{", *call, "}"]
    return "\n".join(lines) + "\n"


def emit_null(spec: Spec, written: AbstractSet[str]) -> Dict[str, str]:
    """File name under tests/nulldriver/generated -> text."""
    present = {s.exported for s in spec.symbols if s.function.prototype is not None}
    return {
        "stubs.c": emit_null_stubs(spec, written),
        "symbols.c": emit_c.symbols_source(spec, present),
        "exports.map": emit_c.export_map(sorted(present)),
    }
